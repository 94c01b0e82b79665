//! The names of a ViT in Hugging Face's checkpoints, in torchvision's and in timm's.

use salamander_importers::{KeyMap, Row};

/// Hugging Face's trunk, without its `vit.` or `deit.`: as stored, and as modules hold it since transformers 5.
const HF: &[Row] = &[
    (
        "embeddings.patch_embeddings.projection",
        "embeddings.projection",
    ),
    ("layernorm", "norm"),
    ("pooler.dense", "pooler"),
    (
        "encoder.layer.{i}.layernorm_before",
        "layers.{i}.attention_norm",
    ),
    ("layers.{i}.layernorm_before", "layers.{i}.attention_norm"),
    ("encoder.layer.{i}.layernorm_after", "layers.{i}.mlp_norm"),
    ("layers.{i}.layernorm_after", "layers.{i}.mlp_norm"),
    (
        "encoder.layer.{i}.attention.attention.query",
        "layers.{i}.attention.query",
    ),
    ("layers.{i}.attention.q_proj", "layers.{i}.attention.query"),
    (
        "encoder.layer.{i}.attention.attention.key",
        "layers.{i}.attention.key",
    ),
    ("layers.{i}.attention.k_proj", "layers.{i}.attention.key"),
    (
        "encoder.layer.{i}.attention.attention.value",
        "layers.{i}.attention.value",
    ),
    ("layers.{i}.attention.v_proj", "layers.{i}.attention.value"),
    (
        "encoder.layer.{i}.attention.output.dense",
        "layers.{i}.attention.output",
    ),
    ("layers.{i}.attention.o_proj", "layers.{i}.attention.output"),
    ("encoder.layer.{i}.intermediate.dense", "layers.{i}.mlp.up"),
    ("layers.{i}.mlp.fc1", "layers.{i}.mlp.up"),
    ("encoder.layer.{i}.output.dense", "layers.{i}.mlp.down"),
    ("layers.{i}.mlp.fc2", "layers.{i}.mlp.down"),
];

const TIMM: &[Row] = &[
    ("cls_token", "embeddings.cls_token"),
    ("dist_token", "embeddings.distillation_token"),
    ("pos_embed", "embeddings.position_embeddings"),
    ("patch_embed.proj", "embeddings.projection"),
    ("blocks.{i}.norm1", "layers.{i}.attention_norm"),
    ("blocks.{i}.attn.qkv[0/3]", "layers.{i}.attention.query"),
    ("blocks.{i}.attn.qkv[1/3]", "layers.{i}.attention.key"),
    ("blocks.{i}.attn.qkv[2/3]", "layers.{i}.attention.value"),
    ("blocks.{i}.attn.proj", "layers.{i}.attention.output"),
    ("blocks.{i}.norm2", "layers.{i}.mlp_norm"),
    ("blocks.{i}.mlp.fc1", "layers.{i}.mlp.up"),
    ("blocks.{i}.mlp.fc2", "layers.{i}.mlp.down"),
];

const TORCHVISION: &[Row] = &[
    ("class_token", "embeddings.cls_token"),
    ("encoder.pos_embedding", "embeddings.position_embeddings"),
    ("conv_proj", "embeddings.projection"),
    (
        "encoder.layers.encoder_layer_{i}.ln_1",
        "layers.{i}.attention_norm",
    ),
    (
        "encoder.layers.encoder_layer_{i}.self_attention.in_proj_weight[0/3]",
        "layers.{i}.attention.query.weight",
    ),
    (
        "encoder.layers.encoder_layer_{i}.self_attention.in_proj_weight[1/3]",
        "layers.{i}.attention.key.weight",
    ),
    (
        "encoder.layers.encoder_layer_{i}.self_attention.in_proj_weight[2/3]",
        "layers.{i}.attention.value.weight",
    ),
    (
        "encoder.layers.encoder_layer_{i}.self_attention.in_proj_bias[0/3]",
        "layers.{i}.attention.query.bias",
    ),
    (
        "encoder.layers.encoder_layer_{i}.self_attention.in_proj_bias[1/3]",
        "layers.{i}.attention.key.bias",
    ),
    (
        "encoder.layers.encoder_layer_{i}.self_attention.in_proj_bias[2/3]",
        "layers.{i}.attention.value.bias",
    ),
    (
        "encoder.layers.encoder_layer_{i}.self_attention.out_proj",
        "layers.{i}.attention.output",
    ),
    (
        "encoder.layers.encoder_layer_{i}.ln_2",
        "layers.{i}.mlp_norm",
    ),
    (
        "encoder.layers.encoder_layer_{i}.mlp.0",
        "layers.{i}.mlp.up",
    ),
    (
        "encoder.layers.encoder_layer_{i}.mlp.3",
        "layers.{i}.mlp.down",
    ),
    // Before torchvision 0.13.
    (
        "encoder.layers.encoder_layer_{i}.mlp.linear_1",
        "layers.{i}.mlp.up",
    ),
    (
        "encoder.layers.encoder_layer_{i}.mlp.linear_2",
        "layers.{i}.mlp.down",
    ),
    ("encoder.ln", "norm"),
];

const HEADS: &[Row] = &[
    ("classifier", "classifier"),
    ("head", "classifier"),
    ("heads.head", "classifier"),
    ("heads", "classifier"),
    ("cls_classifier", "cls_classifier"),
    ("head", "cls_classifier"),
    ("distillation_classifier", "distillation_classifier"),
    ("head_dist", "distillation_classifier"),
    ("decoder.0", "decoder"),
];

/// What a checkpoint may hold without every class needing it.
const SUPERFLUOUS: &[&str] = &[
    "embeddings.mask_token",
    "pooler",
    "decoder",
    "classifier",
    "cls_classifier",
    "distillation_classifier",
    "head",
    "head_dist",
    "heads",
];

/// The keys whose rows count the classes, in the dialects that come without a configuration.
pub(super) const CLASSIFIERS: &[&str] = &["head.weight", "heads.head.weight"];

/// How the tensors of a checkpoint are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    HuggingFace,
    Timm,
    Torchvision,
}

impl Dialect {
    fn rows(self) -> (&'static [Row], &'static [&'static str]) {
        match self {
            Self::HuggingFace => (HF, &["vit.", "deit.", ""]),
            Self::Timm => (TIMM, &["", "module."]),
            Self::Torchvision => (TORCHVISION, &["", "module."]),
        }
    }

    /// A trunk in the field `vit`, and heads beside it.
    pub(super) fn map(self) -> KeyMap {
        let (rows, prefixes) = self.rows();
        KeyMap::new(HEADS, &["", "module."])
            .with("vit.", rows, prefixes)
            .ignore(SUPERFLUOUS)
    }
}

/// The names as Hugging Face stores the class.
pub(crate) fn hugging_face(class: &str) -> KeyMap {
    let prefix: &[&str] = if class.ends_with("Model") {
        &[""]
    } else if class.starts_with("DeiT") {
        &["deit."]
    } else {
        &["vit."]
    };
    KeyMap::new(HEADS, &[""]).with("vit.", HF, prefix)
}

#[cfg(test)]
mod tests {
    use super::Dialect;

    #[test]
    fn fused_projections_are_thirds() {
        for (dialect, key) in [
            (Dialect::Timm, "blocks.3.attn.qkv.bias"),
            (
                Dialect::Torchvision,
                "encoder.layers.encoder_layer_3.self_attention.in_proj_bias",
            ),
        ] {
            let found = dialect.map().sources("vit.layers.3.attention.key.bias");
            let rows = found[0].rows.map(|block| (block.index, block.count));
            assert_eq!((&found[0].key[..], rows), (key, Some((1, 3))));
        }
    }
}
