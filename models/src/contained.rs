//! The files of a model directory that a weight file holds itself.
//!
//! whisper.cpp's files and GGUF's have sizes, vocabulary and settings beside the weights. Here they become what
//! a Hugging Face directory would have, so that everything behind works as from there.

use std::collections::BTreeMap;

use salamander_importers::{Checkpoint, Format};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{ConfigError, bert, whisper};

/// Files by their names in a model directory.
pub type Files = BTreeMap<String, Vec<u8>>;

/// The files that the checkpoint holds, if it is of a kind that holds any.
///
/// # Errors
/// A value of its metadata cannot be honoured.
pub fn contained_files(checkpoint: &Checkpoint) -> Result<Option<Files>, ConfigError> {
    let metadata = Metadata(&checkpoint.metadata);
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

/// A file's name and its JSON.
pub(crate) type File = (&'static str, Value);

/// The metadata of a weight file.
pub(crate) struct Metadata<'a>(&'a BTreeMap<String, String>);

impl Metadata<'_> {
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|text| &text[..])
    }

    /// The value under a key, if it is there.
    pub(crate) fn find<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, ConfigError> {
        let parse = |text: &str| {
            serde_json::from_str(text)
                .map_err(|error| ConfigError::within("the file's metadata", key, error.to_string()))
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
