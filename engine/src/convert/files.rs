//! What lies beside a model's weights and goes along with them into a directory.

use std::fs;
use std::path::{Path, PathBuf};

use salamander_importers::{Checkpoint, Dtype};
use serde_json::{Value, json};

use super::{ConvertOptions, Model};
use crate::native::{self, Native};
use crate::sentence::relative_folder;
use crate::{Error, ModelDir};

/// What the names of configurations, tokenizers, vocabularies and cards end in.
const ENDINGS: [&str; 7] = ["json", "jsonl", "jinja", "md", "model", "toml", "txt"];
/// Cards and terms without an ending.
const NAMES: [&str; 3] = ["LICENSE", "LICENCE", "NOTICE"];
/// Files of weights and their indexes, which end as the others do.
const WEIGHTS: [&str; 2] = [".index.json", "model.json"];
/// A larger file is none of those.
const MOST_BYTES: u64 = 256 << 20;

/// The files that go along.
pub(super) struct Files<'a> {
    model: &'a Model,
    target: &'a Path,
    options: &'a ConvertOptions,
}

impl<'a> Files<'a> {
    pub(super) fn new(model: &'a Model, target: &'a Path, options: &'a ConvertOptions) -> Self {
        Self {
            model,
            target,
            options,
        }
    }

    /// Copies or makes them, and gives their places.
    pub(super) fn copy(
        &self,
        written: &Checkpoint,
        remarks: &mut Vec<String>,
    ) -> Result<Vec<PathBuf>, Error> {
        let mut files = Vec::new();
        if let Some(directory) = &self.model.directory {
            let same =
                fs::canonicalize(directory.folder()).ok() == fs::canonicalize(self.target).ok();
            if !same {
                for name in names(directory)? {
                    // A native directory's configuration is its `config.toml`.
                    if !self.options.native || name != Path::new("config.json") {
                        files.push(self.one(directory.folder(), &name)?);
                    }
                }
            }
        }
        for (name, bytes) in &self.model.contained {
            let path = self.target.join(name);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(Error::io(parent))?;
            }
            place(&path, bytes)?;
            files.push(path);
        }
        if self.options.native {
            let native = self.native(written)?;
            for (name, text) in [
                ("config.toml", native.text().to_owned()),
                ("README.md", native.card()),
            ] {
                let path = self.target.join(name);
                if name == "config.toml" || !path.exists() {
                    place(&path, text.as_bytes())?;
                    files.push(path);
                }
            }
        } else if let Some(config) = &self.model.config {
            let path = self.target.join("config.json");
            let text = format!("{:#}\n", self.configured(config));
            place(&path, text.as_bytes())?;
            files.push(path);
        }
        let processor = self.target.join("preprocessor_config.json");
        if let Some(settings) = &self.model.processor
            && !processor.exists()
        {
            place(&processor, format!("{settings:#}\n").as_bytes())?;
            files.push(processor);
        }
        files.sort();
        files.dedup();
        if files.is_empty() {
            remarks.push("there is no configuration to go along with the weights".to_owned());
        }
        Ok(files)
    }

    fn one(&self, from: &Path, name: &Path) -> Result<PathBuf, Error> {
        let (source, target) = (from.join(name), self.target.join(name));
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(Error::io(parent))?;
        }
        let bytes = fs::read(&source).map_err(Error::io(&source))?;
        place(&target, &bytes)?;
        Ok(target)
    }

    /// The configuration, with the class that the weights belong to and the type that they have now.
    fn configured(&self, config: &Value) -> Value {
        let mut config = config.clone();
        let Some(fields) = config.as_object_mut() else {
            return config;
        };
        if let Some(known) = &self.model.known {
            let is_empty = |value: Option<&Value>| value.is_none_or(Value::is_null);
            if is_empty(fields.get("architectures")) {
                fields.insert("architectures".to_owned(), json!([known.class]));
            }
            if is_empty(fields.get("model_type")) {
                let model_type = known.architecture.model_types.first();
                fields.insert("model_type".to_owned(), json!(model_type));
            }
        }
        let name = match &self.options.dtype {
            Some(Dtype::F64) => "float64",
            Some(Dtype::F32) => "float32",
            Some(Dtype::F16) => "float16",
            Some(Dtype::BF16) => "bfloat16",
            _ => return config,
        };
        for key in ["dtype", "torch_dtype"] {
            if let Some(value) = fields.get_mut(key) {
                *value = json!(name);
            }
        }
        config
    }

    /// The native description: the source's own where it has one, with the new size.
    fn native(&self, written: &Checkpoint) -> Result<Native, Error> {
        let directory = self.model.directory.as_ref();
        let own = directory.map(Native::open).transpose()?.flatten();
        let mut native = match own {
            Some(native) => native,
            None => {
                let config = self.model.config.clone().unwrap_or(json!({}));
                let card = match directory {
                    Some(directory) => directory.read("README.md")?,
                    None => None,
                };
                let name = directory.map_or(self.target, ModelDir::folder);
                native::describe(name, &self.configured(&config), card.as_deref())
            }
        };
        native.measure(written);
        Ok(native)
    }
}

/// Writes a file under a temporary name first.
fn place(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.part", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    written.map_err(|source| {
        let _ = fs::remove_file(&temporary);
        Error::io(path)(source)
    })
}

/// The files that go along, below the directory: by their names, and those of sentence-transformers' modules.
fn names(directory: &ModelDir) -> Result<Vec<PathBuf>, Error> {
    let mut names = Vec::new();
    for name in files_in(directory.folder())? {
        let text = name.to_string_lossy();
        let ending = name.extension().unwrap_or_default().to_string_lossy();
        let weights =
            WEIGHTS.iter().any(|weights| text.ends_with(weights)) || text.ends_with("model.yaml");
        if (ENDINGS.contains(&&ending[..]) || NAMES.contains(&&text[..])) && !weights {
            names.push(name);
        }
    }
    let modules = directory.json("modules.json")?;
    let modules = modules.as_ref().and_then(Value::as_array);
    for module in modules.into_iter().flatten() {
        let path = module.get("path").and_then(Value::as_str).unwrap_or("");
        let folder = relative_folder(path).unwrap_or_default();
        if !folder.is_empty() && directory.folder().join(&folder).is_dir() {
            let inner = files_in(&directory.folder().join(&folder))?;
            names.extend(inner.into_iter().map(|name| Path::new(&folder).join(name)));
        }
    }
    Ok(names)
}

fn files_in(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    for item in fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = item.map_err(Error::io(folder))?.path();
        let small =
            fs::metadata(&path).is_ok_and(|file| file.is_file() && file.len() <= MOST_BYTES);
        if let (true, Some(name)) = (small, path.file_name()) {
            found.push(PathBuf::from(name));
        }
    }
    found.sort();
    Ok(found)
}
