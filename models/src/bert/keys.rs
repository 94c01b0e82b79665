//! The names of a BERT in Hugging Face's checkpoints, and in Flax's, llama.cpp's, google-research/bert's and
//! mlx-examples' where they differ.
//!
//! Graphs that TensorFlow froze have no names for tables of embeddings, only for the look-ups in their order.
//!
//! Of TensorFlow's names this table has what is left once layouts and the names of kernels are PyTorch's.

use salamander_importers::{Entry, KeyMap, Row};

/// The trunk, without its `bert.`.
const TRUNK: &[Row] = &[
    (
        "embeddings.word_embeddings.weight",
        "embeddings.word_embeddings.weight",
    ),
    // A checkpoint that dropped one of two tied tensors may have kept this one.
    (
        "cls.predictions.decoder.weight",
        "embeddings.word_embeddings.weight",
    ),
    ("embeddings.Gather", "embeddings.word_embeddings.weight"),
    (
        "embeddings.position_embeddings.weight",
        "embeddings.position_embeddings.weight",
    ),
    (
        "embeddings.Gather_1",
        "embeddings.position_embeddings.weight",
    ),
    (
        "embeddings.token_type_embeddings.weight",
        "embeddings.token_type_embeddings.weight",
    ),
    (
        "embeddings.Gather_2",
        "embeddings.token_type_embeddings.weight",
    ),
    ("embeddings.LayerNorm", "embeddings.norm"),
    (
        "encoder.layer.{i}.attention.self.query",
        "layers.{i}.attention.query",
    ),
    (
        "encoder.layer.{i}.attention.self.key",
        "layers.{i}.attention.key",
    ),
    (
        "encoder.layer.{i}.attention.self.value",
        "layers.{i}.attention.value",
    ),
    // Relative positions.
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
    ("cls.predictions.decoder.kernel", "predictions.decoder"),
    ("cls.predictions.decoder.bias", "predictions.bias"),
    ("cls.predictions.bias", "predictions.bias"),
    ("cls.seq_relationship.weight", "seq_relationship.weight"),
    ("cls.seq_relationship.bias", "seq_relationship.bias"),
    ("classifier.weight", "classifier.weight"),
    ("classifier.bias", "classifier.bias"),
    ("qa_outputs.weight", "qa_outputs.weight"),
    ("qa_outputs.bias", "qa_outputs.bias"),
];

/// The head for words as it is stored, from the field `predictions`.
const STORED_PREDICTIONS: &[Row] = &[
    ("cls.predictions.transform.dense", "dense"),
    ("cls.predictions.transform.LayerNorm", "norm"),
    ("cls.predictions.decoder.weight", "decoder"),
    ("cls.predictions.bias", "bias"),
];

/// The trunk's names in google-research/bert.
const GOOGLE: &[Row] = &[
    (
        "embeddings.word_embeddings",
        "embeddings.word_embeddings.weight",
    ),
    (
        "embeddings.position_embeddings",
        "embeddings.position_embeddings.weight",
    ),
    (
        "embeddings.token_type_embeddings",
        "embeddings.token_type_embeddings.weight",
    ),
    ("embeddings.LayerNorm", "embeddings.norm"),
    (
        "encoder.layer_{i}.attention.self.query",
        "layers.{i}.attention.query",
    ),
    (
        "encoder.layer_{i}.attention.self.key",
        "layers.{i}.attention.key",
    ),
    (
        "encoder.layer_{i}.attention.self.value",
        "layers.{i}.attention.value",
    ),
    (
        "encoder.layer_{i}.attention.output.dense",
        "layers.{i}.attention.output",
    ),
    (
        "encoder.layer_{i}.attention.output.LayerNorm",
        "layers.{i}.attention_norm",
    ),
    ("encoder.layer_{i}.intermediate.dense", "layers.{i}.mlp.up"),
    ("encoder.layer_{i}.output.dense", "layers.{i}.mlp.down"),
    ("encoder.layer_{i}.output.LayerNorm", "layers.{i}.mlp_norm"),
    ("pooler.dense", "pooler"),
];

/// Its heads'.
const GOOGLE_HEADS: &[Row] = &[
    ("cls.predictions.transform.dense", "predictions.dense"),
    ("cls.predictions.transform.LayerNorm", "predictions.norm"),
    ("cls.predictions.output_bias", "predictions.bias"),
    (
        "cls.seq_relationship.output_weights",
        "seq_relationship.weight",
    ),
    ("cls.seq_relationship.output_bias", "seq_relationship.bias"),
    ("output_weights", "classifier.weight"),
    ("output_bias", "classifier.bias"),
    ("cls.squad.output_weights", "qa_outputs.weight"),
    ("cls.squad.output_bias", "qa_outputs.bias"),
];

/// The trunk's names in llama.cpp's GGUF files.
const LLAMA_CPP: &[Row] = &[
    ("token_embd.weight", "embeddings.word_embeddings.weight"),
    (
        "position_embd.weight",
        "embeddings.position_embeddings.weight",
    ),
    (
        "token_types.weight",
        "embeddings.token_type_embeddings.weight",
    ),
    ("token_embd_norm", "embeddings.norm"),
    ("blk.{i}.attn_q", "layers.{i}.attention.query"),
    ("blk.{i}.attn_k", "layers.{i}.attention.key"),
    ("blk.{i}.attn_v", "layers.{i}.attention.value"),
    ("blk.{i}.attn_qkv[0/3]", "layers.{i}.attention.query"),
    ("blk.{i}.attn_qkv[1/3]", "layers.{i}.attention.key"),
    ("blk.{i}.attn_qkv[2/3]", "layers.{i}.attention.value"),
    ("blk.{i}.attn_output", "layers.{i}.attention.output"),
    ("blk.{i}.attn_output_norm", "layers.{i}.attention_norm"),
    ("blk.{i}.ffn_up", "layers.{i}.mlp.up"),
    ("blk.{i}.ffn_down", "layers.{i}.mlp.down"),
    ("blk.{i}.layer_output_norm", "layers.{i}.mlp_norm"),
    // What llama.cpp runs before the classifier, with the hyperbolic tangent behind it; its converter leaves it out.
    ("cls", "pooler"),
];

/// The trunk's names in mlx-examples, where they are not Hugging Face's.
const MLX: &[Row] = &[
    ("embeddings.norm", "embeddings.norm"),
    (
        "encoder.layers.{i}.attention.query_proj",
        "layers.{i}.attention.query",
    ),
    (
        "encoder.layers.{i}.attention.key_proj",
        "layers.{i}.attention.key",
    ),
    (
        "encoder.layers.{i}.attention.value_proj",
        "layers.{i}.attention.value",
    ),
    (
        "encoder.layers.{i}.attention.out_proj",
        "layers.{i}.attention.output",
    ),
    ("encoder.layers.{i}.ln1", "layers.{i}.attention_norm"),
    ("encoder.layers.{i}.linear1", "layers.{i}.mlp.up"),
    ("encoder.layers.{i}.linear2", "layers.{i}.mlp.down"),
    ("encoder.layers.{i}.ln2", "layers.{i}.mlp_norm"),
    ("pooler", "pooler"),
];

/// The heads' that llama.cpp has.
const LLAMA_CPP_HEADS: &[Row] = &[
    ("cls.output.weight", "classifier.weight"),
    ("cls.output.bias", "classifier.bias"),
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
    "output_weights",
    "output_bias",
];

/// The trunk alone.
pub(super) fn trunk() -> KeyMap {
    KeyMap::new(TRUNK, &["", "bert."])
        .with("", GOOGLE, &["", "bert."])
        .with("", LLAMA_CPP, &[""])
        .with("", MLX, &[""])
        .ignore(SUPERFLUOUS)
}

/// A trunk in the field `bert`, and heads beside it.
pub(super) fn with_heads() -> KeyMap {
    KeyMap::new(HEADS, &[""])
        .with("", GOOGLE_HEADS, &[""])
        .with("", LLAMA_CPP_HEADS, &[""])
        .with("bert.", TRUNK, &["bert.", ""])
        .with("bert.", GOOGLE, &["bert.", ""])
        .with("bert.", LLAMA_CPP, &[""])
        .with("bert.", MLX, &["bert.", ""])
        .ignore(SUPERFLUOUS)
}

/// The names as Hugging Face stores the class.
pub(crate) fn hugging_face(class: &str) -> KeyMap {
    let map = of_class(class, HEADS, TRUNK, ["", "bert."]);
    // Of the two names that the bias of the words has, this is the one that is stored.
    map.with("predictions.", STORED_PREDICTIONS, &[""])
}

/// The bias of the words under its second name, which transformers does not tie to the first where the output layer is
/// not the word embeddings.
pub(crate) fn untied_bias(
    config: &serde_json::Value,
    entries: &[(String, Entry)],
) -> Option<(String, Entry)> {
    const BIAS: &str = "cls.predictions.decoder.bias";
    let find = |wanted: &str| entries.iter().find(|(name, _)| name == wanted);
    if config.get("tie_word_embeddings")?.as_bool()? || find(BIAS).is_some() {
        return None;
    }
    let (_, bias) = find("cls.predictions.bias")?;
    Some((BIAS.to_owned(), bias.clone()))
}

/// The names in google-research/bert's checkpoints, whose trunk is always in `bert`.
pub(crate) fn google(class: &str) -> KeyMap {
    of_class(class, GOOGLE_HEADS, GOOGLE, ["bert.", "bert."])
}

/// The names in llama.cpp's files, which know a trunk and a classifier; what they do not name keeps its path.
pub(crate) fn llama_cpp(class: &str) -> KeyMap {
    of_class(class, LLAMA_CPP_HEADS, LLAMA_CPP, ["", ""])
}

/// The tables for a class; the trunk's prefix where it is alone and where it has heads beside it.
fn of_class(
    class: &str,
    heads: &'static [Row],
    trunk: &'static [Row],
    [alone, beside]: [&'static str; 2],
) -> KeyMap {
    if class == "BertModel" {
        return KeyMap::new(trunk, &[alone]);
    }
    KeyMap::new(heads, &[""]).with("bert.", trunk, &[beside])
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_head_finds_its_trunk_with_and_without_prefix() {
        assert_eq!(
            super::with_heads().candidates("bert.layers.3.attention.key.weight")[..4],
            [
                "bert.encoder.layer.3.attention.self.key.weight",
                "encoder.layer.3.attention.self.key.weight",
                "bert.encoder.layer_3.attention.self.key.weight",
                "encoder.layer_3.attention.self.key.weight"
            ]
        );
        assert_eq!(
            super::with_heads().candidates("predictions.bias"),
            [
                "cls.predictions.decoder.bias",
                "cls.predictions.bias",
                "cls.predictions.output_bias"
            ]
        );
    }
}
