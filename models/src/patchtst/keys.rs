//! The names of PatchTST's parameters in checkpoints.

use salamander_importers::{KeyMap, Row};

use super::config::PatchTstConfig;

const TRUNK: &[Row] = &[
    ("encoder.positional_encoder.position_enc", "position_enc"),
    ("encoder.positional_encoder.cls_token", "cls_token"),
    (
        "encoder.layers.{i}.self_attn.q_proj",
        "layers.{i}.attention.query",
    ),
    (
        "encoder.layers.{i}.self_attn.k_proj",
        "layers.{i}.attention.key",
    ),
    (
        "encoder.layers.{i}.self_attn.v_proj",
        "layers.{i}.attention.value",
    ),
    (
        "encoder.layers.{i}.self_attn.out_proj",
        "layers.{i}.attention.output",
    ),
    ("encoder.layers.{i}.ff.0", "layers.{i}.mlp.up"),
    ("encoder.layers.{i}.ff.3", "layers.{i}.mlp.down"),
];

const BATCH_NORMS: &[Row] = &[
    (
        "encoder.layers.{i}.norm_sublayer1.batchnorm",
        "layers.{i}.attention_norm",
    ),
    (
        "encoder.layers.{i}.norm_sublayer2.batchnorm",
        "layers.{i}.channel_norm",
    ),
    (
        "encoder.layers.{i}.norm_sublayer3.batchnorm",
        "layers.{i}.mlp_norm",
    ),
];
const LAYER_NORMS: &[Row] = &[
    (
        "encoder.layers.{i}.norm_sublayer1",
        "layers.{i}.attention_norm",
    ),
    (
        "encoder.layers.{i}.norm_sublayer2",
        "layers.{i}.channel_norm",
    ),
    ("encoder.layers.{i}.norm_sublayer3", "layers.{i}.mlp_norm"),
];

const SHARED_EMBEDDING: &[Row] = &[("encoder.embedder.input_embedding", "{c}")];
const OWN_EMBEDDINGS: &[Row] = &[("encoder.embedder.input_embedding.{c}", "{c}")];

const COUNTERS: &str = "encoder.layers.{i}.{norm}.batchnorm.num_batches_tracked";

const SHARED_VALUES: &[Row] = &[
    ("head.projection", "head.{c}.{k}"),
    ("head.linear", "linear"),
];
const SHARED_PARAMETERS: &[Row] = &[("head.projection.proj.{k}", "head.{c}.{k}")];
const OWN_VALUES: &[Row] = &[("head.projections.{c}", "head.{c}.{k}")];
const OWN_PARAMETERS: &[Row] = &[("head.projections.{c}.proj.{k}", "head.{c}.{k}")];

/// The trunk alone, from its own checkpoint or that of any class.
pub(super) fn trunk(config: &PatchTstConfig) -> KeyMap {
    let prefixes = &["", "model."];
    KeyMap::new(TRUNK, prefixes)
        .with("", norms(config), prefixes)
        .with("embeddings.", embeddings(config), prefixes)
        .ignore(&[COUNTERS, "head"])
}

/// A class with its head; `distribution` when the head gives parameters.
pub(super) fn with_head(config: &PatchTstConfig, shared: bool, distribution: bool) -> KeyMap {
    let head = match (shared, distribution) {
        (true, false) => SHARED_VALUES,
        (true, true) => SHARED_PARAMETERS,
        (false, false) => OWN_VALUES,
        (false, true) => OWN_PARAMETERS,
    };
    let prefixes = &["model.", ""];
    KeyMap::new(head, &[""])
        .with("model.", TRUNK, prefixes)
        .with("model.", norms(config), prefixes)
        .with("model.embeddings.", embeddings(config), prefixes)
        .ignore(&[COUNTERS])
}

fn norms(config: &PatchTstConfig) -> &'static [Row] {
    if config.norm_type == "batchnorm" {
        BATCH_NORMS
    } else {
        LAYER_NORMS
    }
}

fn embeddings(config: &PatchTstConfig) -> &'static [Row] {
    if config.share_embedding {
        SHARED_EMBEDDING
    } else {
        OWN_EMBEDDINGS
    }
}

const ORIGINAL: &[Row] = &[
    ("revin_layer.affine_weight", "revin_weight"),
    ("revin_layer.affine_bias", "revin_bias"),
    ("backbone.W_P", "embedding"),
    ("backbone.W_pos", "positions"),
    (
        "backbone.encoder.layers.{i}.self_attn.W_Q",
        "layers.{i}.attention.query",
    ),
    (
        "backbone.encoder.layers.{i}.self_attn.W_K",
        "layers.{i}.attention.key",
    ),
    (
        "backbone.encoder.layers.{i}.self_attn.W_V",
        "layers.{i}.attention.value",
    ),
    (
        "backbone.encoder.layers.{i}.self_attn.to_out.0",
        "layers.{i}.attention.output",
    ),
    (
        "backbone.encoder.layers.{i}.norm_attn.1",
        "layers.{i}.attention_norm",
    ),
    (
        "backbone.encoder.layers.{i}.norm_attn",
        "layers.{i}.attention_norm",
    ),
    (
        "backbone.encoder.layers.{i}.norm_ffn.1",
        "layers.{i}.mlp_norm",
    ),
    (
        "backbone.encoder.layers.{i}.norm_ffn",
        "layers.{i}.mlp_norm",
    ),
    ("backbone.encoder.layers.{i}.ff.0", "layers.{i}.mlp.up"),
    ("backbone.encoder.layers.{i}.ff.3", "layers.{i}.mlp.down"),
];

const ORIGINAL_SHARED_HEAD: &[Row] = &[("head.linear", "{c}")];
const ORIGINAL_OWN_HEADS: &[Row] = &[("head.linears.{c}", "{c}")];

/// The original repository's names; with `individual` heads, and in two parts when it decomposes.
pub(super) fn original(individual: bool) -> KeyMap {
    let heads = if individual {
        ORIGINAL_OWN_HEADS
    } else {
        ORIGINAL_SHARED_HEAD
    };
    let map = KeyMap::default()
        .with("whole.", ORIGINAL, &["model.", "module.model.", ""])
        .with("trend.", ORIGINAL, &["model_trend."])
        .with("residual.", ORIGINAL, &["model_res."])
        .with("whole.heads.", heads, &["model.", "module.model.", ""])
        .with("trend.heads.", heads, &["model_trend."])
        .with("residual.heads.", heads, &["model_res."]);
    map.ignore(&[
        // Always 1/√width of a head, which the load has checked.
        "backbone.encoder.layers.{i}.self_attn.sdp_attn.scale",
        "backbone.encoder.layers.{i}.{norm}.1.num_batches_tracked",
    ])
}
