use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use salamander_importers::Checkpoint;
use salamander_models::processing::text::{SENTENCEPIECE_FILES, TextTokenizer, TokenizerFiles};
use salamander_models::{Files, PretrainedConfig, contained_files, detect, nearest};
use serde_json::{Map, Value};

use crate::Error;
use crate::native::Native;

/// A directory with a model's files, or one of its weight files, which may hold the others itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelDir {
    path: PathBuf,
    /// The directory, also where one of its files is named.
    folder: PathBuf,
    /// What a weight file holds beside the weights.
    contained: Option<Arc<Files>>,
}

impl ModelDir {
    /// The directory `model`, or the one that the hub id `owner/name` or `owner/name@revision` is fetched
    /// to (with the feature `hub`). Or a weight file: configuration and tokenizer are then what it holds itself,
    /// as a GGUF of a BERT and a `.bin` of whisper.cpp do, or lie beside it. A TensorFlow checkpoint may be named by its
    /// prefix, which is no file.
    ///
    /// # Errors
    /// There is no such directory, it is no id that can be fetched, and no such file.
    pub fn find(model: impl AsRef<Path>) -> Result<Self, Error> {
        let model = &Checkpoint::file(model.as_ref());
        if model.is_dir() {
            #[cfg(feature = "hub")]
            salamander_hub::record_opened(model)?;
            return Self::at(model.to_owned()).completed();
        }
        let not_found = |reason: &str| Error::NotFound {
            model: model.display().to_string(),
            reason: reason.to_owned(),
        };
        if model.exists() {
            let checkpoint = Checkpoint::open(model)?;
            let contained = contained_files(&checkpoint).map_err(Error::config(model))?;
            let folder = model.parent().filter(|path| !path.as_os_str().is_empty());
            let folder = folder.unwrap_or(Path::new("."));
            // Hugging Face's repositories have exports in a folder of their own, and all else above it.
            let above = folder.join("..");
            let exported = folder
                .canonicalize()
                .is_ok_and(|path| path.ends_with("onnx"))
                && !folder.join("config.json").exists()
                && above.join("config.json").exists();
            let folder = if exported { &above } else { folder };
            #[cfg(feature = "hub")]
            salamander_hub::record_opened(folder)?;
            return Ok(Self {
                path: model.to_owned(),
                folder: folder.to_owned(),
                contained: contained.map(Arc::new),
            });
        }
        match model.to_str().filter(|text| is_hub_id(text)) {
            Some(id) => Self::fetch(id),
            None => Err(not_found(&no_such_path(model))),
        }
    }

    fn at(path: PathBuf) -> Self {
        Self {
            folder: path.clone(),
            path,
            contained: None,
        }
    }

    /// With what the directory's weights hold themselves, where there is no configuration beside them.
    fn completed(mut self) -> Result<Self, Error> {
        if self.known_config()?.is_some() {
            return Ok(self);
        }
        // Weights that cannot be read are an error where they are wanted.
        if let Ok(checkpoint) = Checkpoint::open(&self.path) {
            match contained_files(&checkpoint) {
                Ok(contained) => self.contained = contained.map(Arc::new),
                Err(error) => tracing::warn!("{}: {error}", self.path.display()),
            }
        }
        Ok(self)
    }

    #[cfg(feature = "hub")]
    fn fetch(id: &str) -> Result<Self, Error> {
        Self::at(salamander_hub::fetch(id)?).completed()
    }

    #[cfg(not(feature = "hub"))]
    fn fetch(id: &str) -> Result<Self, Error> {
        Err(Error::NotFound {
            model: id.to_owned(),
            reason: "no such directory; to fetch it from the hub, build with `--features hub`"
                .to_owned(),
        })
    }

    /// Where it is: the directory, or the file that was named.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory itself.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The parsed `config.json`, or what the `bert_config.json` of google-research/bert or a native directory's
    /// `config.toml` says in its place.
    ///
    /// # Errors
    /// There is neither, or it is not valid.
    pub fn config(&self) -> Result<Value, Error> {
        self.known_config()?.ok_or_else(|| Error::NotFound {
            model: self.path.display().to_string(),
            reason: "has no config.json; a model directory needs one".to_owned(),
        })
    }

    /// The same, or nothing where there is none.
    ///
    /// # Errors
    /// It is not valid.
    pub fn known_config(&self) -> Result<Option<Value>, Error> {
        if let Some(config) = self.json("config.json")? {
            return Ok(Some(config));
        }
        // It has the fields of Hugging Face's, but for the name of what they are of.
        if let Some(mut config) = self.json("bert_config.json")? {
            if let Some(fields) = config.as_object_mut() {
                let model_type = fields.entry("model_type");
                model_type.or_insert_with(|| "bert".into());
            }
            return Ok(Some(config));
        }
        Ok(Native::open(self)?.map(|native| native.config()))
    }

    /// The same, or an empty one where there is none, for what the checkpoint alone shows.
    ///
    /// # Errors
    /// It is not valid.
    pub fn config_or_empty(&self) -> Result<Value, Error> {
        let config = self.known_config()?;
        Ok(config.unwrap_or_else(|| Value::Object(serde_json::Map::new())))
    }

    /// The configuration, completed by what the checkpoint shows where it names no architecture.
    ///
    /// # Errors
    /// It is not valid, or the checkpoint does not show enough to do without.
    pub fn config_for(&self, checkpoint: &Checkpoint) -> Result<Value, Error> {
        let known = self.known_config()?;
        let names = ["model_type", "architectures", "architecture"];
        if let Some(config) = &known
            && names.iter().any(|name| !config[*name].is_null())
        {
            return Ok(config.clone());
        }
        let given = known.clone().unwrap_or(Value::Null);
        let found = detect(checkpoint, &given).and_then(|found| found.config(&given));
        found.map_err(|source| match known {
            Some(_) => Error::config(&self.path)(source),
            None => Error::NotFound {
                model: self.path.display().to_string(),
                reason: format!(
                    "has no config.json, and the weights do not stand in for it: {source}"
                ),
            },
        })
    }

    /// The fields of `config.json` that every architecture has.
    ///
    /// # Errors
    /// A field cannot be honoured.
    pub fn common_config(&self, config: &Value) -> Result<PretrainedConfig, Error> {
        let common = PretrainedConfig::parse(config).map_err(Error::config(&self.path))?;
        if let Some(remark) = common.remark() {
            tracing::warn!(model = %self.path.display(), "{remark}");
        }
        Ok(common)
    }

    /// The weights, under PyTorch's names and in its layouts.
    ///
    /// # Errors
    /// There are none, or they cannot be read.
    pub fn checkpoint(&self) -> Result<Checkpoint, Error> {
        Ok(Checkpoint::open(&self.path)?.in_pytorch_layout())
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// Its files are absent or not valid.
    pub fn tokenizer(&self) -> Result<TextTokenizer, Error> {
        self.tokenizer_with(&Map::new())
    }

    /// The tokenizer, with `fields` in place of those of `tokenizer_config.json`.
    ///
    /// # Errors
    /// As [`ModelDir::tokenizer`].
    pub(crate) fn tokenizer_with(
        &self,
        fields: &Map<String, Value>,
    ) -> Result<TextTokenizer, Error> {
        let mut config = self.json("tokenizer_config.json")?;
        if !fields.is_empty() {
            replace(config.get_or_insert_with(|| Map::new().into()), fields);
        }
        let mut files = TokenizerFiles {
            tokenizer: self.read("tokenizer.json")?,
            config,
            special_tokens: self.json("special_tokens_map.json")?,
            added_tokens: self.json("added_tokens.json")?,
            model_config: self.json("config.json")?,
            ..TokenizerFiles::default()
        };
        if files.tokenizer.is_none() {
            files.vocabulary = self.read("vocab.txt")?;
            files.ids = self.read("vocab.json")?;
            files.merges = self.read("merges.txt")?;
            for name in SENTENCEPIECE_FILES {
                files
                    .sentencepiece
                    .extend(self.read(name)?.map(|bytes| (name, bytes)));
            }
        }
        TextTokenizer::new(&files).map_err(|source| Error::Tokenizer {
            directory: self.path.clone(),
            source,
        })
    }

    /// How pictures are prepared, and which file says it: the `image_processor` of a `processor_config.json`, or a
    /// `preprocessor_config.json`.
    pub(crate) fn image_processor(&self) -> Result<Option<(&'static str, Value)>, Error> {
        const NESTED: &str = "processor_config.json";
        const OWN: &str = "preprocessor_config.json";
        if let Some(mut processor) = self.json(NESTED)?
            && let Some(own) = processor.get_mut("image_processor")
            && !own.is_null()
        {
            return Ok(Some((NESTED, own.take())));
        }
        Ok(self.json(OWN)?.map(|processor| (OWN, processor)))
    }

    /// A file of the directory, or `None` where there is none.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        if let Some(contained) = &self.contained {
            return Ok(contained.get(name).cloned());
        }
        let path = self.folder.join(name);
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
            path: self.folder.join(name),
            source,
        })
    }
}

/// Puts `fields` in place of an object's own.
pub(crate) fn replace(json: &mut Value, fields: &Map<String, Value>) {
    if let Some(own) = json.as_object_mut() {
        own.extend(fields.clone());
    }
}

/// How the models of the hub are called that have no owner. There will be no others, so that any other name alone is a
/// path.
const OWNERLESS: [&str; 14] = [
    "albert-",
    "bert-",
    "camembert-",
    "ctrl",
    "distilbert-",
    "distilgpt2",
    "distilroberta-",
    "gpt2",
    "openai-gpt",
    "roberta-",
    "t5-",
    "transfo-xl-",
    "xlm-",
    "xlnet-",
];

/// `owner/name`, perhaps with `@revision`, that is not rather a path: it has no weight file's ending, and no folder
/// of the owner's name is here. Or the address of a page, which the hub's client reads.
fn is_hub_id(text: &str) -> bool {
    if text.contains("://") || text.starts_with("huggingface.co/") || text.starts_with("hf.co/") {
        return true;
    }
    let (id, revision) = text.split_once('@').unwrap_or((text, "main"));
    let word = |word: &str| {
        !word.is_empty()
            && !word.starts_with('.')
            && word
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    let Some((owner, name)) = id.split_once('/') else {
        let is_known = OWNERLESS.iter().any(|known| id.starts_with(known));
        return !revision.is_empty() && is_known && word(id) && !names_a_file(id);
    };
    !revision.is_empty()
        && word(owner)
        && word(name)
        && !Path::new(owner).is_dir()
        && !names_a_file(name)
}

/// Whether a name ends as those of files with weights do, which no model on the hub is called.
fn names_a_file(name: &str) -> bool {
    const ENDINGS: [&str; 16] = [
        "bin",
        "ckpt",
        "gguf",
        "h5",
        "json",
        "keras",
        "msgpack",
        "npy",
        "npz",
        "onnx",
        "pb",
        "pkl",
        "pt",
        "pth",
        "safetensors",
        "tflite",
    ];
    let ending = Path::new(name)
        .extension()
        .and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| ENDINGS.contains(&&ending.to_ascii_lowercase()[..]))
}

/// Says that a path leads nowhere, from where on, and what it may have been meant to be.
fn no_such_path(path: &Path) -> String {
    const ASK: &str =
        "give a directory with a config.json, a weight file, or a hub id `owner/name`";
    if path.starts_with("~") {
        return format!(
            "no such file or directory: `~` is not expanded here; write the home directory out, or leave the path \
             unquoted; {ASK}"
        );
    }
    let mut there = PathBuf::new();
    for part in path.components() {
        let next = there.join(part);
        if next.exists() {
            there = next;
            continue;
        }
        let folder = match there.as_os_str().is_empty() {
            true => Path::new("."),
            false => &there,
        };
        if !folder.is_dir() {
            return format!(
                "no such file or directory: {} is a file; {ASK}",
                folder.display()
            );
        }
        let wanted = part.as_os_str().to_string_lossy().into_owned();
        let place = if next == path {
            String::new()
        } else {
            format!(" ({} is not there)", next.display())
        };
        return match nearest_name(folder, &wanted) {
            Some(name) => {
                let found = there.join(name);
                format!(
                    "no such file or directory{place}; the nearest is {}; {ASK}",
                    found.display()
                )
            }
            None => format!("no such file or directory{place}; {ASK}"),
        };
    }
    format!("no such file or directory; {ASK}")
}

/// The name in a folder that is most like the one that was asked for, if any is.
fn nearest_name(folder: &Path, wanted: &str) -> Option<String> {
    /// Folders of more are not searched to their end.
    const MOST: usize = 10_000;
    let names = fs::read_dir(folder).ok()?.take(MOST);
    let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    nearest(names, wanted)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{is_hub_id, no_such_path};

    #[test]
    fn a_path_that_leads_nowhere_names_the_nearest() {
        for (path, says) in [
            ("src/tusks", "the nearest is src/tasks;"),
            (
                "./src/tasks/batch.ra",
                "the nearest is ./src/tasks/batch.rs;",
            ),
            ("srcs/tasks", "(srcs is not there); the nearest is src;"),
            ("src/zzzzqqq", "no such file or directory; give"),
            ("src/lib.rs/model", "src/lib.rs is a file"),
            ("~/model", "`~` is not expanded"),
        ] {
            let reason = no_such_path(Path::new(path));
            assert!(reason.starts_with("no such file or directory"), "{reason}");
            assert!(reason.contains(says), "{path}: {reason}");
        }
    }

    #[test]
    fn paths_are_no_hub_ids() {
        assert!(is_hub_id("google-bert/bert-base-uncased"));
        assert!(is_hub_id("owner/name@v1.0"));
        assert!(is_hub_id("bert-base-uncased"));
        assert!(is_hub_id("gpt2@main"));
        assert!(is_hub_id("https://huggingface.co/owner/name/tree/main"));
        for path in [
            "",
            "name",
            "gpt2.gguf",
            "bert-base-uncased@",
            "/etc/passwd",
            "../up",
            "./here",
            "a/b/c",
            "a/",
            "a/b@",
            // The first part is a folder where the tests run, or the last a file.
            "src/tusks",
            "owner/model.safetensors",
            "owner/pytorch_model.BIN",
            "~/models",
        ] {
            assert!(!is_hub_id(path), "{path}");
        }
    }
}
