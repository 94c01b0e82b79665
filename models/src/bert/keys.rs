//! The names of a BERT in Hugging Face's checkpoints.

use salamander_importers::{KeyMap, Row};

/// The trunk, without its `bert.`.
const TRUNK: &[Row] = &[
    ("embeddings.word_embeddings", "embeddings.word_embeddings"),
    // A checkpoint that dropped one of two tied tensors may have kept this one.
    ("cls.predictions.decoder", "embeddings.word_embeddings"),
    ("embeddings.LayerNorm", "embeddings.norm"),
    (
        "encoder.layer.{i}.attention.self.{m}",
        "layers.{i}.attention.{m}",
    ),
    (
        "encoder.layer.{i}.attention.self.distance_embedding",
        "layers.{i}.distances.embedding",
    ),
    (
        "encoder.layer.{i}.attention.output.dense",
        "layers.{i}.attention.output",
    ),
    (
        "encoder.layer.{i}.attention.output.LayerNorm",
        "layers.{i}.attention_norm",
    ),
    ("encoder.layer.{i}.intermediate.dense", "layers.{i}.mlp.up"),
    ("encoder.layer.{i}.output.dense", "layers.{i}.mlp.down"),
    ("encoder.layer.{i}.output.LayerNorm", "layers.{i}.mlp_norm"),
    ("pooler.dense", "pooler"),
];

const HEADS: &[Row] = &[
    ("cls.predictions.transform.dense", "predictions.dense"),
    ("cls.predictions.transform.LayerNorm", "predictions.norm"),
    ("cls.predictions.decoder.weight", "predictions.decoder"),
    ("cls.predictions.decoder.bias", "predictions.bias"),
    ("cls.predictions.bias", "predictions.bias"),
    ("cls.seq_relationship", "seq_relationship"),
];

/// What a checkpoint may hold without every class needing it: buffers, and heads that were trained along.
const SUPERFLUOUS: &[&str] = &[
    "embeddings.position_ids",
    "embeddings.token_type_ids",
    // Still stored, though not added, where positions are relative.
    "embeddings.position_embeddings",
    "pooler",
    "cls",
    "classifier",
    "qa_outputs",
];

/// The trunk alone.
pub(super) fn trunk() -> KeyMap {
    KeyMap::new(TRUNK, &["", "bert."]).ignore(SUPERFLUOUS)
}

/// A trunk in the field `bert`, and heads beside it.
pub(super) fn with_heads() -> KeyMap {
    KeyMap::new(HEADS, &[""])
        .with("bert.", TRUNK, &["bert.", ""])
        .ignore(SUPERFLUOUS)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_head_finds_its_trunk_with_and_without_prefix() {
        assert_eq!(
            super::with_heads().candidates("bert.layers.3.attention.key.weight"),
            [
                "bert.encoder.layer.3.attention.self.key.weight",
                "encoder.layer.3.attention.self.key.weight"
            ]
        );
        assert_eq!(
            super::with_heads().candidates("predictions.bias"),
            ["cls.predictions.decoder.bias", "cls.predictions.bias"]
        );
    }
}
