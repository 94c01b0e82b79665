use salamander_importers::Checkpoint;
use serde_json::{Value, json};

use crate::ConfigError;
use crate::contained::{File, Metadata};
use crate::processing::vocabulary::{Special, word_piece};

/// What llama.cpp writes before a token that begins a word, where `vocab.txt` has nothing.
const BEGIN: char = '\u{2581}';
/// Values of `tokenizer.ggml.token_type`.
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;

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
    let config = json!({
        "model_type": "bert",
        "architectures": ["BertModel"],
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
    let mut files = vec![("config.json", config)];
    let mode = match metadata.find::<u32>("bert.pooling_type")? {
        None | Some(0) => None,
        Some(1) => Some("pooling_mode_mean_tokens"),
        Some(2) => Some("pooling_mode_cls_token"),
        Some(3) => Some("pooling_mode_lasttoken"),
        Some(other) => {
            let reason =
                format!("{other} is not 0 (none), 1 (mean), 2 (first token) or 3 (last token)");
            return refuse("bert.pooling_type", reason);
        }
    };
    if let Some(mode) = mode {
        files.push((
            "modules.json",
            json!([{"path": "1_Pooling", "type": "Pooling"}]),
        ));
        let mut pooling = json!({"word_embedding_dimension": size("bert.embedding_length")?});
        // Without it the mean would be taken too.
        pooling["pooling_mode_mean_tokens"] = Value::from(false);
        pooling[mode] = Value::from(true);
        files.push(("1_Pooling/config.json", pooling));
    }
    let model = metadata.text("tokenizer.ggml.model").unwrap_or_default();
    if model != "bert" {
        let reason = format!("\"{model}\" is not \"bert\", the WordPiece of BERT");
        return refuse("tokenizer.ggml.model", reason);
    }
    let mut tokens: Vec<String> = metadata.get("tokenizer.ggml.tokens")?;
    let kinds: Vec<i64> = metadata.get("tokenizer.ggml.token_type")?;
    let mut special: Vec<Special> = Vec::new();
    for (id, (token, kind)) in tokens.iter_mut().zip(&kinds).enumerate() {
        if [UNKNOWN, CONTROL].contains(kind) {
            special.push((token.clone(), id as u32));
        } else if let Some(word) = token.strip_prefix(BEGIN) {
            *token = word.to_owned();
        } else if !token.is_empty() {
            token.insert_str(0, "##");
        }
    }
    let find = |key: &str, name: &str, usual: &str| {
        let id: Option<usize> = metadata.find(key)?;
        let id = id.or_else(|| tokens.iter().position(|token| token == usual));
        let found = id.and_then(|id| Some((tokens.get(id)?.clone(), id as u32)));
        found.ok_or_else(|| {
            ConfigError::within("the file's metadata", key, format!("names no {name} token"))
        })
    };
    let unknown = find("tokenizer.ggml.unknown_token_id", "unknown", "[UNK]")?;
    let first = match find("tokenizer.ggml.cls_token_id", "first", "[CLS]") {
        Ok(first) => first,
        Err(_) => find("tokenizer.ggml.bos_token_id", "first", "[CLS]")?,
    };
    let last = find("tokenizer.ggml.seperator_token_id", "separating", "[SEP]")?;
    let lowercase: Option<bool> = metadata.find("tokenizer.ggml.normalizer.lowercase")?;
    // A vocabulary with capitals is of a model that tells them apart.
    let cased = || {
        let ordinary = tokens
            .iter()
            .zip(&kinds)
            .filter(|(_, kind)| ![UNKNOWN, CONTROL].contains(kind));
        let mut ordinary = ordinary.filter(|(token, _)| !token.starts_with('['));
        ordinary.any(|(token, _)| token.chars().any(char::is_uppercase))
    };
    let lowercase = lowercase.unwrap_or_else(|| !cased());
    let tokenizer = word_piece(&tokens, &special, lowercase, [&unknown, &first, &last]);
    files.push(("tokenizer.json", tokenizer));
    let settings = json!({
        "unk_token": unknown.0, "cls_token": first.0, "sep_token": last.0,
        "model_max_length": size("bert.context_length")?,
    });
    files.push(("tokenizer_config.json", settings));
    Ok(files)
}
