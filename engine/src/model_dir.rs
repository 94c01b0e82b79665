use std::fs;
use std::path::{Path, PathBuf};

use salamander_importers::Checkpoint;
use salamander_models::PretrainedConfig;
use salamander_models::processing::text::{TextTokenizer, TokenizerFiles};
use serde_json::Value;

use crate::Error;

/// A directory with a model's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelDir {
    path: PathBuf,
}

impl ModelDir {
    /// The directory `model`, or the one that the hub id `owner/name` or `owner/name@revision` is fetched
    /// to (with the feature `hub`).
    ///
    /// # Errors
    /// There is no such directory, and it is no id that can be fetched.
    pub fn find(model: impl AsRef<Path>) -> Result<Self, Error> {
        let model = model.as_ref();
        if model.is_dir() {
            #[cfg(feature = "hub")]
            salamander_hub::record_opened(model)?;
            return Ok(Self {
                path: model.to_owned(),
            });
        }
        let not_found = |reason: &str| Error::NotFound {
            model: model.display().to_string(),
            reason: reason.to_owned(),
        };
        if model.exists() {
            return Err(not_found(
                "is a file; a model is a directory with its config.json",
            ));
        }
        match model.to_str().filter(|text| is_hub_id(text)) {
            Some(id) => Self::fetch(id),
            None => Err(not_found(
                "no such directory; give a directory with a config.json, or a hub id `owner/name`",
            )),
        }
    }

    #[cfg(feature = "hub")]
    fn fetch(id: &str) -> Result<Self, Error> {
        let path = salamander_hub::fetch(id)?;
        Ok(Self { path })
    }

    #[cfg(not(feature = "hub"))]
    fn fetch(id: &str) -> Result<Self, Error> {
        Err(Error::NotFound {
            model: id.to_owned(),
            reason: "no such directory; to fetch it from the hub, build with `--features hub`"
                .to_owned(),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The parsed `config.json`.
    ///
    /// # Errors
    /// It is absent or not valid JSON.
    pub fn config(&self) -> Result<Value, Error> {
        self.json("config.json")?.ok_or_else(|| Error::NotFound {
            model: self.path.display().to_string(),
            reason: "has no config.json; a model directory needs one".to_owned(),
        })
    }

    /// The parsed `config.json`, or an empty one where there is none, for what the checkpoint alone shows.
    ///
    /// # Errors
    /// It is not valid JSON.
    pub fn config_or_empty(&self) -> Result<Value, Error> {
        let config = self.json("config.json")?;
        Ok(config.unwrap_or_else(|| Value::Object(serde_json::Map::new())))
    }

    /// The fields of `config.json` that every architecture has.
    ///
    /// # Errors
    /// A field cannot be honoured.
    pub fn common_config(&self, config: &Value) -> Result<PretrainedConfig, Error> {
        PretrainedConfig::parse(config).map_err(Error::config(&self.path))
    }

    /// The weights.
    ///
    /// # Errors
    /// There are none, or they cannot be read.
    pub fn checkpoint(&self) -> Result<Checkpoint, Error> {
        Ok(Checkpoint::open(&self.path)?)
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// Its files are absent or not valid.
    pub fn tokenizer(&self) -> Result<TextTokenizer, Error> {
        let files = TokenizerFiles {
            tokenizer: self.read("tokenizer.json")?,
            vocabulary: self.read("vocab.txt")?,
            config: self.json("tokenizer_config.json")?,
            special_tokens: self.json("special_tokens_map.json")?,
        };
        TextTokenizer::new(&files).map_err(|source| Error::Tokenizer {
            directory: self.path.clone(),
            source,
        })
    }

    /// A file of the directory, or `None` where there is none.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.path.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Io { path, source }),
        }
    }

    /// A JSON file of the directory, or `None` where there is none.
    pub(crate) fn json(&self, name: &str) -> Result<Option<Value>, Error> {
        let Some(bytes) = self.read(name)? else {
            return Ok(None);
        };
        let parsed = serde_json::from_slice(&bytes);
        parsed.map(Some).map_err(|source| Error::Json {
            path: self.path.join(name),
            source,
        })
    }
}

/// `owner/name`, perhaps with `@revision`.
fn is_hub_id(text: &str) -> bool {
    let (id, revision) = text.split_once('@').unwrap_or((text, "main"));
    let word = |word: &str| {
        !word.is_empty()
            && !word.starts_with('.')
            && word
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    !revision.is_empty()
        && id
            .split_once('/')
            .is_some_and(|(owner, name)| word(owner) && word(name))
}

#[cfg(test)]
mod tests {
    use super::is_hub_id;

    #[test]
    fn paths_are_no_hub_ids() {
        assert!(is_hub_id("google-bert/bert-base-uncased"));
        assert!(is_hub_id("owner/name@v1.0"));
        for path in [
            "",
            "name",
            "/etc/passwd",
            "../up",
            "./here",
            "a/b/c",
            "a/",
            "a/b@",
        ] {
            assert!(!is_hub_id(path), "{path}");
        }
    }
}
