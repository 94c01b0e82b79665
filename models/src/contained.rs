//! The files of a model directory that a weight file holds itself.
//!
//! whisper.cpp's files and GGUF's have sizes, vocabulary and settings beside the weights. Here they become what
//! a Hugging Face directory would have, so that everything behind works as from there.

use std::collections::BTreeMap;

use salamander_importers::{Checkpoint, Format};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::processing::vocabulary::{Special, Unigram, byte_level, unigram, word_piece};
use crate::{ConfigError, bert, whisper};

/// Files by their names in a model directory.
pub type Files = BTreeMap<String, Vec<u8>>;

/// The files that the checkpoint holds, if it is of a kind that holds any.
///
/// # Errors
/// A value of its metadata cannot be honoured.
pub fn contained_files(checkpoint: &Checkpoint) -> Result<Option<Files>, ConfigError> {
    let metadata = Metadata::of(checkpoint);
    let files = match checkpoint.format {
        Format::Ggml if metadata.text("ggml.model") == Some("whisper") => {
            whisper::contained(checkpoint, &metadata)?
        }
        Format::Gguf | Format::SplitGguf
            if metadata.text("general.architecture") == Some("bert") =>
        {
            bert::contained(checkpoint, &metadata)?
        }
        _ => return Ok(None),
    };
    let files = files
        .into_iter()
        .map(|(name, json)| (name.to_owned(), json.to_string().into_bytes()));
    Ok(Some(files.collect()))
}

/// The `tokenizer.json` of a GGUF file, of whatever architecture, if it has a vocabulary.
///
/// # Errors
/// The vocabulary is of a kind that is not supported.
pub fn contained_tokenizer(checkpoint: &Checkpoint) -> Result<Option<Vec<u8>>, ConfigError> {
    let found = tokenizer(&Metadata::of(checkpoint))?;
    Ok(found.map(|(tokenizer, _)| tokenizer.to_string().into_bytes()))
}

/// The kind of a vocabulary, in GGUF.
const MODEL: &str = "tokenizer.ggml.model";
/// What llama.cpp writes before a WordPiece that begins a word, where `vocab.txt` has nothing.
const BEGIN: char = '\u{2581}';
/// Values of `tokenizer.ggml.token_type`.
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// The `tokenizer.json` and the `tokenizer_config.json` of GGUF's metadata, if it has a vocabulary.
pub(crate) fn tokenizer(metadata: &Metadata) -> Result<Option<(Value, Value)>, ConfigError> {
    let Some(model) = metadata.text(MODEL) else {
        return Ok(None);
    };
    let made = match model {
        "bert" => bert_tokenizer(metadata),
        "gpt2" => gpt2_tokenizer(metadata),
        "t5" => t5_tokenizer(metadata),
        other => {
            let reason = format!(
                "\"{other}\" is not \"bert\", the WordPiece of BERT, \"gpt2\", the byte-level BPE of GPT-2, or \"t5\", the unigrams of T5"
            );
            Err(ConfigError::within(PLACE, MODEL, reason))
        }
    };
    made.map(Some)
}

/// The token that a key names by its id, or else the one that is usually called so.
fn special_token(
    metadata: &Metadata,
    tokens: &[String],
    key: &str,
    usual: &str,
) -> Result<Special, ConfigError> {
    let id: Option<usize> = metadata.find(key)?;
    let id = id.or_else(|| tokens.iter().position(|token| token == usual));
    let found = id.and_then(|id| Some((tokens.get(id)?.clone(), id as u32)));
    found.ok_or_else(|| ConfigError::within(PLACE, key, "names no token of the vocabulary"))
}

fn bert_tokenizer(metadata: &Metadata) -> Result<(Value, Value), ConfigError> {
    let mut tokens: Vec<String> = metadata.get("tokenizer.ggml.tokens")?;
    let kinds: Vec<i64> = metadata.get("tokenizer.ggml.token_type")?;
    let is_special = |kind: i64| [UNKNOWN, CONTROL].contains(&kind);
    let mut special: Vec<Special> = Vec::new();
    for (id, (token, kind)) in tokens.iter_mut().zip(&kinds).enumerate() {
        if is_special(*kind) {
            special.push((token.clone(), id as u32));
        } else if let Some(word) = token.strip_prefix(BEGIN) {
            *token = word.to_owned();
        } else if !token.is_empty() {
            token.insert_str(0, "##");
        }
    }
    let find = |key: &str, usual: &str| special_token(metadata, &tokens, key, usual);
    let unknown = find("tokenizer.ggml.unknown_token_id", "[UNK]")?;
    let cls = find("tokenizer.ggml.cls_token_id", "[CLS]");
    let cls = cls.or_else(|_| find("tokenizer.ggml.bos_token_id", "[CLS]"))?;
    let sep = find("tokenizer.ggml.seperator_token_id", "[SEP]")?;
    let lowercase: Option<bool> = metadata.find("tokenizer.ggml.normalizer.lowercase")?;
    // A vocabulary with capitals is of a model that tells them apart.
    let cased = || {
        let ordinary = tokens
            .iter()
            .zip(&kinds)
            .filter(|(_, kind)| !is_special(**kind));
        let mut ordinary = ordinary.filter(|(token, _)| !token.starts_with('['));
        ordinary.any(|(token, _)| token.chars().any(char::is_uppercase))
    };
    let lowercase = lowercase.unwrap_or_else(|| !cased());
    let tokenizer = word_piece(&tokens, &special, lowercase, [&unknown, &cls, &sep]);
    let settings = json!({"unk_token": unknown.0, "cls_token": cls.0, "sep_token": sep.0});
    Ok((tokenizer, settings))
}

fn gpt2_tokenizer(metadata: &Metadata) -> Result<(Value, Value), ConfigError> {
    const PRE: &str = "tokenizer.ggml.pre";
    // Other models split texts before the merges in other ways.
    if let Some(pre) = metadata
        .text(PRE)
        .filter(|pre| !matches!(*pre, "gpt-2" | "default"))
    {
        let reason = format!("\"{pre}\" is not \"gpt-2\"");
        return Err(ConfigError::within(PLACE, PRE, reason));
    }
    let tokens: Vec<String> = metadata.get("tokenizer.ggml.tokens")?;
    let kinds: Vec<i64> = metadata
        .find("tokenizer.ggml.token_type")?
        .unwrap_or_default();
    let special = tokens.iter().zip(&kinds).enumerate();
    let special = special.filter(|(_, (_, kind))| **kind == CONTROL);
    let special: Vec<Special> = special
        .map(|(id, (token, _))| (token.clone(), id as u32))
        .collect();
    let merges: Vec<String> = metadata.get("tokenizer.ggml.merges")?;
    Ok((
        byte_level(&tokens, Some(merges), &special, |_| false),
        json!({}),
    ))
}

/// SentencePiece's unigrams, with the rules by which T5 prepares a text.
fn t5_tokenizer(metadata: &Metadata) -> Result<(Value, Value), ConfigError> {
    let tokens: Vec<String> = metadata.get("tokenizer.ggml.tokens")?;
    let scores: Vec<f64> = metadata.get("tokenizer.ggml.scores")?;
    if scores.len() != tokens.len() {
        let reason = format!("{} scores for {} tokens", scores.len(), tokens.len());
        return Err(ConfigError::within(PLACE, "tokenizer.ggml.scores", reason));
    }
    let kinds: Option<Vec<i64>> = metadata.find("tokenizer.ggml.token_type")?;
    let kinds = kinds.unwrap_or_default();
    let special = tokens.iter().zip(&kinds).enumerate();
    let special = special.filter(|(_, (_, kind))| [UNKNOWN, CONTROL, USER_DEFINED].contains(*kind));
    let special: Vec<Special> = special
        .map(|(id, (token, _))| (token.clone(), id as u32))
        .collect();
    let find = |key: &str, usual: &str| special_token(metadata, &tokens, key, usual);
    let unknown = find("tokenizer.ggml.unknown_token_id", "<unk>")?;
    let end = find("tokenizer.ggml.eos_token_id", "</s>")?;
    let flag = |key: &str| metadata.find::<bool>(&format!("tokenizer.ggml.{key}"));
    let rules = Unigram {
        characters: metadata
            .find::<Vec<u8>>("tokenizer.ggml.precompiled_charsmap")?
            .unwrap_or_default(),
        prefix_space: flag("add_space_prefix")?.unwrap_or(true),
        one_space: flag("remove_extra_whitespaces")?.unwrap_or(true),
        end: flag("add_eos_token")?.unwrap_or(true).then(|| end.clone()),
    };
    let tokenizer = unigram(&tokens, &scores, &special, unknown.1, &rules);
    let mut settings = json!({"unk_token": unknown.0, "eos_token": end.0});
    if let Ok(pad) = find("tokenizer.ggml.padding_token_id", "<pad>") {
        settings["pad_token"] = pad.0.into();
    }
    Ok((tokenizer, settings))
}

/// What an error calls the place of a key.
const PLACE: &str = "the file's metadata";

/// A file's name and its JSON.
pub(crate) type File = (&'static str, Value);

/// The metadata of a weight file.
pub(crate) struct Metadata<'a>(&'a BTreeMap<String, String>);

impl<'a> Metadata<'a> {
    pub(crate) fn of(checkpoint: &'a Checkpoint) -> Self {
        Self(&checkpoint.metadata)
    }

    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|text| &text[..])
    }

    /// The value under a key, if it is there.
    pub(crate) fn find<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, ConfigError> {
        let parse = |text: &str| {
            serde_json::from_str(text)
                .map_err(|error| ConfigError::within(PLACE, key, error.to_string()))
        };
        self.text(key).map(parse).transpose()
    }

    /// The value under a key.
    pub(crate) fn get<T: DeserializeOwned>(&self, key: &str) -> Result<T, ConfigError> {
        self.find(key)?.ok_or_else(|| {
            ConfigError::within(
                "the file's metadata",
                key,
                "is missing; convert the model anew",
            )
        })
    }
}
