//! The names of a Whisper in Hugging Face's, OpenAI's and mlx-examples' checkpoints.

use salamander_importers::{Checkpoint, KeyMap, Row};

/// Hugging Face's trunk, without its `model.`.
const HUGGING_FACE: &[Row] = &[
    ("encoder.conv1", "encoder.conv1"),
    ("encoder.conv2", "encoder.conv2"),
    (
        "encoder.embed_positions.weight",
        "encoder.position_embeddings",
    ),
    (
        "decoder.embed_positions.weight",
        "decoder.position_embeddings",
    ),
    // Flax's.
    (
        "encoder.embed_positions.embedding",
        "encoder.position_embeddings",
    ),
    (
        "decoder.embed_positions.embedding",
        "decoder.position_embeddings",
    ),
    ("decoder.embed_tokens", "decoder.token_embeddings"),
    // A checkpoint that dropped one of two tied tensors may have kept this one.
    ("proj_out", "decoder.token_embeddings"),
    ("encoder.layer_norm", "encoder.norm"),
    ("decoder.layer_norm", "decoder.norm"),
    (
        "{side}.layers.{i}.self_attn.q_proj",
        "{side}.layers.{i}.attention.query",
    ),
    (
        "{side}.layers.{i}.self_attn.k_proj",
        "{side}.layers.{i}.attention.key",
    ),
    (
        "{side}.layers.{i}.self_attn.v_proj",
        "{side}.layers.{i}.attention.value",
    ),
    (
        "{side}.layers.{i}.self_attn.out_proj",
        "{side}.layers.{i}.attention.output",
    ),
    (
        "{side}.layers.{i}.self_attn_layer_norm",
        "{side}.layers.{i}.attention_norm",
    ),
    (
        "{side}.layers.{i}.encoder_attn.q_proj",
        "{side}.layers.{i}.cross_attention.query",
    ),
    (
        "{side}.layers.{i}.encoder_attn.k_proj",
        "{side}.layers.{i}.cross_attention.key",
    ),
    (
        "{side}.layers.{i}.encoder_attn.v_proj",
        "{side}.layers.{i}.cross_attention.value",
    ),
    (
        "{side}.layers.{i}.encoder_attn.out_proj",
        "{side}.layers.{i}.cross_attention.output",
    ),
    (
        "{side}.layers.{i}.encoder_attn_layer_norm",
        "{side}.layers.{i}.cross_attention_norm",
    ),
    ("{side}.layers.{i}.fc1", "{side}.layers.{i}.mlp.up"),
    ("{side}.layers.{i}.fc2", "{side}.layers.{i}.mlp.down"),
    (
        "{side}.layers.{i}.final_layer_norm",
        "{side}.layers.{i}.mlp_norm",
    ),
];

/// The names of the package `openai-whisper`, and of mlx-examples' Whisper where they differ.
const OPENAI: &[Row] = &[
    (
        "encoder.positional_embedding",
        "encoder.position_embeddings",
    ),
    (
        "decoder.positional_embedding",
        "decoder.position_embeddings",
    ),
    ("decoder.token_embedding", "decoder.token_embeddings"),
    ("encoder.ln_post", "encoder.norm"),
    ("decoder.ln", "decoder.norm"),
    (
        "{side}.blocks.{i}.attn.{m}",
        "{side}.layers.{i}.attention.{m}",
    ),
    (
        "{side}.blocks.{i}.attn.out",
        "{side}.layers.{i}.attention.output",
    ),
    (
        "{side}.blocks.{i}.attn_ln",
        "{side}.layers.{i}.attention_norm",
    ),
    (
        "{side}.blocks.{i}.cross_attn.{m}",
        "{side}.layers.{i}.cross_attention.{m}",
    ),
    (
        "{side}.blocks.{i}.cross_attn.out",
        "{side}.layers.{i}.cross_attention.output",
    ),
    (
        "{side}.blocks.{i}.cross_attn_ln",
        "{side}.layers.{i}.cross_attention_norm",
    ),
    ("{side}.blocks.{i}.mlp.0", "{side}.layers.{i}.mlp.up"),
    ("{side}.blocks.{i}.mlp.2", "{side}.layers.{i}.mlp.down"),
    // mlx-examples'.
    ("{side}.blocks.{i}.mlp1", "{side}.layers.{i}.mlp.up"),
    ("{side}.blocks.{i}.mlp2", "{side}.layers.{i}.mlp.down"),
    ("{side}.blocks.{i}.mlp_ln", "{side}.layers.{i}.mlp_norm"),
];

/// The output layer, where it is not the token embeddings.
const HEAD: &[Row] = &[
    ("proj_out.weight", "proj_out"),
    ("proj_out.kernel", "proj_out"),
];

/// What a checkpoint may hold without the class needing it: a tied output layer, and buffers.
const SUPERFLUOUS: &[&str] = &["proj_out", "decoder.mask", "alignment_heads"];

/// Whether a checkpoint bears OpenAI's names.
pub(super) fn is_openai(checkpoint: &Checkpoint) -> bool {
    checkpoint.get("decoder.token_embedding.weight").is_some()
}

/// The trunk alone.
pub(super) fn trunk(openai: bool) -> KeyMap {
    let map = if openai {
        KeyMap::new(OPENAI, &[""])
    } else {
        KeyMap::new(HUGGING_FACE, &["", "model."])
    };
    map.ignore(SUPERFLUOUS)
}

/// A trunk in the field `model`, and the output layer beside it.
pub(super) fn generation(openai: bool) -> KeyMap {
    let map = KeyMap::new(HEAD, &[""]);
    let map = if openai {
        map.with("model.", OPENAI, &[""])
    } else {
        map.with("model.", HUGGING_FACE, &["model.", ""])
    };
    map.ignore(SUPERFLUOUS)
}

/// A decoder in the field `model`, and the output layer beside it; whole models may lend theirs.
pub(super) fn decoder(openai: bool) -> KeyMap {
    generation(openai).ignore(&["encoder"])
}

/// An encoder in the field `encoder`, and the classifier beside it.
pub(super) fn classification() -> KeyMap {
    KeyMap::new(HUGGING_FACE, &["", "model."])
}

/// The names as Hugging Face stores the class.
pub(crate) fn hugging_face(class: &str) -> KeyMap {
    match class {
        "WhisperModel" => KeyMap::new(HUGGING_FACE, &[""]),
        "WhisperForAudioClassification" => classification(),
        _ => KeyMap::new(HEAD, &[""]).with("model.", HUGGING_FACE, &["model."]),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn both_dialects_find_the_same_parameter() {
        let path = "model.decoder.layers.3.cross_attention.output.weight";
        assert_eq!(
            super::generation(false).candidates(path),
            [
                "model.decoder.layers.3.encoder_attn.out_proj.weight",
                "decoder.layers.3.encoder_attn.out_proj.weight"
            ]
        );
        assert_eq!(
            super::generation(true).candidates(path),
            ["decoder.blocks.3.cross_attn.out.weight"]
        );
        assert_eq!(
            super::trunk(true).candidates("encoder.layers.0.attention.query.bias"),
            ["encoder.blocks.0.attn.query.bias"]
        );
    }
}
