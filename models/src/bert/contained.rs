use salamander_importers::Checkpoint;
use serde_json::{Value, json};

use crate::ConfigError;
use crate::contained::{File, Metadata, tokenizer};

/// What a GGUF file of a BERT holds beside its weights.
///
/// Keys are those of `gguf/constants.py` of the `gguf` package 0.19.
pub(crate) fn contained(
    checkpoint: &Checkpoint,
    metadata: &Metadata,
) -> Result<Vec<File>, ConfigError> {
    let refuse =
        |key: &str, reason: String| Err(ConfigError::within("the file's metadata", key, reason));
    let size = |key: &str| metadata.get::<usize>(key);
    let causal: Option<bool> = metadata.find("bert.attention.causal")?;
    let words = checkpoint
        .get("token_embd.weight")
        .and_then(|entry| entry.shape.first());
    // A classifier that lost its pooler, as llama.cpp's converter leaves it, is none any more.
    let classifies = ["cls.weight", "cls.output.weight"]
        .iter()
        .all(|name| checkpoint.get(name).is_some());
    let class = match classifies {
        true => "BertForSequenceClassification",
        false => "BertModel",
    };
    let mut config = json!({
        "model_type": "bert",
        "architectures": [class],
        "vocab_size": words,
        "hidden_size": size("bert.embedding_length")?,
        "num_hidden_layers": size("bert.block_count")?,
        "num_attention_heads": size("bert.attention.head_count")?,
        "intermediate_size": size("bert.feed_forward_length")?,
        "max_position_embeddings": size("bert.context_length")?,
        "type_vocab_size": metadata.find::<usize>("tokenizer.ggml.token_type_count")?.unwrap_or(2),
        "layer_norm_eps": metadata.get::<f32>("bert.attention.layer_norm_epsilon")?,
        "is_decoder": causal.unwrap_or(false),
    });
    let labels: Option<Vec<String>> = metadata.find("bert.classifier.output_labels")?;
    if let Some(labels) = labels.filter(|_| classifies) {
        let named = labels.into_iter().enumerate();
        let named = named.map(|(id, label)| (id.to_string(), Value::from(label)));
        config["id2label"] = Value::Object(named.collect());
    }
    let mut files = vec![("config.json", config)];
    let mode = match metadata.find::<u32>("bert.pooling_type")? {
        None | Some(0 | 4) => None,
        Some(1) => Some("pooling_mode_mean_tokens"),
        Some(2) => Some("pooling_mode_cls_token"),
        Some(3) => Some("pooling_mode_lasttoken"),
        Some(other) => {
            let reason = format!(
                "{other} is not 0 (none), 1 (mean), 2 (first token), 3 (last token) or 4 (rank)"
            );
            return refuse("bert.pooling_type", reason);
        }
    };
    if let Some(mode) = mode {
        files.push((
            "modules.json",
            json!([
                {"path": "", "type": "sentence_transformers.models.Transformer"},
                {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            ]),
        ));
        let mut pooling = json!({"word_embedding_dimension": size("bert.embedding_length")?});
        // Without it the mean would be taken too.
        pooling["pooling_mode_mean_tokens"] = Value::from(false);
        pooling[mode] = Value::from(true);
        files.push(("1_Pooling/config.json", pooling));
    }
    if let Some((tokenizer, mut settings)) = tokenizer(metadata)? {
        settings["model_max_length"] = Value::from(size("bert.context_length")?);
        files.push(("tokenizer.json", tokenizer));
        files.push(("tokenizer_config.json", settings));
    }
    Ok(files)
}
