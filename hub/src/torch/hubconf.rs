//! `hubconf.toml`: what a repository offers, as data instead of code.
//!
//! ```toml
//! [models.tiny]
//! description = "A tiny classifier of two classes."
//! preset = "torchvision/resnet18"       # the name of a layout, with the weights alone; or
//! config = "models/tiny/config.json"    # the configuration of a model directory, with
//! files = ["models/tiny/tokenizer.json"] # what else is in it; or
//! # directory = "models/tiny"           # a model directory of the repository as it is
//!
//! [[models.tiny.weights]]               # the first are the default
//! name = "V2"
//! file = "weights/tiny.safetensors"     # in the repository, or `url`
//! sha256 = "…"
//! when = { size = "small" }             # which arguments want these
//!
//! [models.tiny.arguments.size]
//! description = "How large the model is."
//! default = "small"
//! values = ["small", "large"]
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::digest::is_hex;
use crate::files;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hubconf {
    pub(super) models: BTreeMap<String, EntryPoint>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EntryPoint {
    pub(super) description: Option<String>,
    pub(super) preset: Option<String>,
    pub(super) config: Option<String>,
    #[serde(default)]
    pub(super) files: Vec<String>,
    pub(super) directory: Option<String>,
    #[serde(default)]
    pub(super) weights: Vec<Weights>,
    #[serde(default)]
    pub(super) arguments: BTreeMap<String, Argument>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Weights {
    pub(super) name: Option<String>,
    pub(super) file: Option<String>,
    pub(super) url: Option<String>,
    pub(super) sha256: Option<String>,
    #[serde(default)]
    pub(super) when: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Argument {
    pub(super) description: Option<String>,
    pub(super) default: Option<Value>,
    #[serde(default)]
    pub(super) values: Vec<Value>,
}

/// Reads the file, if the repository has one.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(directory: &Path) -> Result<Option<Hubconf>, String> {
    let text = match std::fs::read_to_string(directory.join("hubconf.toml")) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|error| error.to_string())?,
    };
    let hubconf: Hubconf = toml::from_str(&text).map_err(|e| e.to_string().replace('\n', " "))?;
    for (name, entry) in &hubconf.models {
        entry
            .check()
            .map_err(|reason| format!("models.{name}: {reason}"))?;
    }
    Ok(Some(hubconf))
}

impl EntryPoint {
    fn check(&self) -> Result<(), String> {
        let sources = [&self.preset, &self.config, &self.directory];
        if sources.iter().filter(|source| source.is_some()).count() != 1 {
            return Err("give one of `preset`, `config` and `directory`".to_owned());
        }
        if self.directory.is_none() && self.weights.is_empty() {
            return Err("there are no `weights`".to_owned());
        }
        if self.directory.is_some() && !(self.weights.is_empty() && self.files.is_empty()) {
            return Err("a `directory` has its own files and weights".to_owned());
        }
        let paths = self
            .weights
            .iter()
            .filter_map(|weights| weights.file.as_ref());
        let paths = paths
            .chain(&self.files)
            .chain(&self.config)
            .chain(&self.directory);
        for path in paths {
            if files::leaves(path) || !files::is_plain(path) {
                return Err(format!("`{path}` is not a path inside of the repository"));
            }
        }
        for (index, weights) in self.weights.iter().enumerate() {
            if weights.file.is_some() == weights.url.is_some() {
                return Err(format!("weights {index}: give one of `file` and `url`"));
            }
            let is_sum = |sum: &String| sum.len() == 64 && is_hex(sum);
            match &weights.sha256 {
                Some(sum) if is_sum(sum) => {}
                Some(sum) => {
                    return Err(format!(
                        "weights {index}: `{sum}` is no SHA-256 in small digits"
                    ));
                }
                None => return Err(format!("weights {index}: there is no `sha256`")),
            }
            for name in weights.when.keys() {
                if !self.arguments.contains_key(name) {
                    return Err(format!("weights {index}: `{name}` is no argument"));
                }
            }
        }
        Ok(())
    }

    /// The description and the arguments as a text.
    pub(super) fn documentation(&self) -> String {
        let mut text = self.description.clone().unwrap_or_default();
        if !self.arguments.is_empty() {
            text += "\n\nArguments:";
            for (name, argument) in &self.arguments {
                text += &format!("\n    {name}");
                if let Some(default) = &argument.default {
                    text += &format!(" = {default}");
                }
                if let Some(description) = &argument.description {
                    text += &format!(": {description}");
                }
                if !argument.values.is_empty() {
                    let values: Vec<_> = argument.values.iter().map(Value::to_string).collect();
                    text += &format!(" One of {}.", values.join(", "));
                }
            }
        }
        let names: Vec<_> = self
            .weights
            .iter()
            .filter_map(|w| w.name.as_deref())
            .collect();
        if !names.is_empty() {
            text += &format!("\n\nWeights: {}", names.join(", "));
        }
        text.trim().to_owned()
    }

    /// The weights that the arguments choose.
    ///
    /// # Errors
    /// An argument is unknown or has a value that it cannot have, or no weights are for it.
    pub(super) fn choose(
        &self,
        arguments: &BTreeMap<String, Value>,
    ) -> Result<Option<&Weights>, String> {
        let mut values: BTreeMap<&str, &Value> = BTreeMap::new();
        for (name, argument) in &self.arguments {
            if let Some(default) = &argument.default {
                values.insert(name, default);
            }
        }
        let mut wanted = None;
        for (name, value) in arguments {
            match (&name[..], self.arguments.get(name), value) {
                (_, Some(argument), _) => {
                    if !argument.values.is_empty() && !argument.values.contains(value) {
                        let known: Vec<_> = argument.values.iter().map(Value::to_string).collect();
                        return Err(format!(
                            "`{name}` = {value}; it is one of {}",
                            known.join(", ")
                        ));
                    }
                    values.insert(name, value);
                }
                ("weights", None, Value::String(name)) => wanted = Some(name),
                ("pretrained", None, Value::Bool(true)) | ("progress", None, Value::Bool(_)) => {}
                ("weights", None, Value::Null) | ("pretrained", None, Value::Bool(false)) => {
                    return Err("a model without trained weights is of no use here; leave `weights` and `pretrained` out".to_owned());
                }
                _ => {
                    let known: Vec<_> = self.arguments.keys().map(String::as_str).collect();
                    return Err(format!("it has no argument `{name}`; it has {known:?}"));
                }
            }
        }
        if self.directory.is_some() {
            return Ok(None);
        }
        let fits = |weights: &&Weights| {
            let is_it = |(name, value): (&String, &Value)| values.get(&**name) == Some(&value);
            let is_named = match wanted {
                Some(wanted) if wanted != "DEFAULT" => weights.name.as_ref() == Some(wanted),
                _ => true,
            };
            is_named && weights.when.iter().all(is_it)
        };
        let known = || {
            let names: Vec<_> = self
                .weights
                .iter()
                .filter_map(|w| w.name.as_deref())
                .collect();
            format!("no weights are for these arguments; it has {names:?}")
        };
        self.weights.iter().find(fits).map(Some).ok_or_else(known)
    }
}
