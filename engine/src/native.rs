//! The native model directory: `config.toml`, `model.safetensors`, `tokenizer.json`, `vocab.txt`, `README.md`.
//!
//! `config.toml` has four tables. `[model]` says what the model is: `name`, `architecture`, `version`, `author`,
//! `license` and `description`. `[architecture]` has the fields that a Hugging Face `config.json` would.
//! `[hardware]` says what it needs: `min_ram_gb`, `recommended_ram_gb`, `supports_cpu`, `supports_gpu` and
//! `supports_mixed_precision`. `[metrics]` has any numbers; `model_size_mb` among them is kept true. A gigabyte
//! is 10^9 bytes. Fields and tables beyond these, and comments, stay as they are.

use std::collections::BTreeMap;
use std::path::Path;

use salamander_importers::{Checkpoint, Dtype};
use serde_json::{Map, Value, json};
use toml::{Spanned, Table, Value as Toml};

use crate::{Device, Error, ModelDir};

/// The file that describes a model.
const CONFIG: &str = "config.toml";

/// The most of nested tables that are followed.
const DEEPEST: usize = 32;

/// A parsed `config.toml`.
#[derive(Debug, Clone)]
pub struct Native {
    text: String,
    document: Table,
}

/// What a model needs of a machine; what is not said is not needed.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Hardware {
    /// The memory that it needs, in bytes.
    pub min_ram: Option<u64>,
    /// The memory that it should have, in bytes.
    pub recommended_ram: Option<u64>,
    /// Whether it runs on a CPU.
    pub cpu: Option<bool>,
    /// Whether it runs on a GPU.
    pub gpu: Option<bool>,
}

impl Native {
    /// Reads a directory's `config.toml`; `None` if it has none.
    ///
    /// # Errors
    /// It cannot be read, or is not valid TOML.
    pub fn open(directory: &ModelDir) -> Result<Option<Self>, Error> {
        let Some(bytes) = directory.read(CONFIG)? else {
            return Ok(None);
        };
        let malformed = |reason: String| Error::Toml {
            path: directory.folder().join(CONFIG),
            reason,
        };
        let text = String::from_utf8(bytes).map_err(|error| malformed(error.to_string()))?;
        let document: Result<Table, _> = toml::from_str(&text);
        let document = document.map_err(|error| malformed(error.to_string()))?;
        Ok(Some(Self { text, document }))
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The configuration, in the fields of a Hugging Face `config.json`.
    pub fn config(&self) -> Value {
        let table = self.document.get("architecture").and_then(Toml::as_table);
        let mut config = table.map_or_else(Map::new, |table| object(table, 0));
        if !config.contains_key("model_type")
            && let Some(name) = self.model("architecture")
        {
            config.insert("model_type".to_owned(), json!(name.to_lowercase()));
        }
        Value::Object(config)
    }

    /// A field of `[model]`.
    pub fn model(&self, field: &str) -> Option<&str> {
        self.document.get("model")?.get(field)?.as_str()
    }

    /// What it needs.
    pub fn hardware(&self) -> Hardware {
        let field = |name: &str| self.document.get("hardware")?.get(name);
        let bytes = |name: &str| {
            let item = field(name)?;
            let gigabytes = item
                .as_float()
                .or(item.as_integer().map(|whole| whole as f64))?;
            Some((gigabytes * 1e9) as u64)
        };
        let flag = |name: &str| field(name).and_then(Toml::as_bool);
        Hardware {
            min_ram: bytes("min_ram_gb"),
            recommended_ram: bytes("recommended_ram_gb"),
            cpu: flag("supports_cpu"),
            gpu: flag("supports_gpu"),
        }
    }

    /// A card for a model that has none.
    pub(crate) fn card(&self) -> String {
        let field = |name: &str| self.model(name).unwrap_or_default();
        let mut card = String::new();
        if !field("license").is_empty() {
            card.push_str(&format!("---\nlicense: {}\n---\n\n", field("license")));
        }
        card.push_str(&format!("# {}\n", field("name")));
        if !field("description").is_empty() {
            card.push_str(&format!("\n{}\n", field("description")));
        }
        card
    }

    /// Sets the fields that follow from the weights: their size always, the memory where it is not said.
    pub(crate) fn measure(&mut self, weights: &Checkpoint) {
        let entries = || weights.iter().map(|(_, entry)| entry);
        let bytes: usize = entries().map(|entry| entry.bytes).sum();
        // Floats are computed with as `f32`.
        let loaded = entries().map(|entry| match entry.dtype {
            Dtype::F64 | Dtype::F32 => entry.bytes,
            ref dtype if dtype.is_float() => entry.elements() * 4,
            _ => entry.bytes,
        });
        let loaded = loaded.sum::<usize>() as f64 / 1e9;
        let rounded = |value: f64| (value * 100.0).ceil() / 100.0;
        let megabytes = (bytes as f64 / 1e4).round() / 100.0;
        self.set("metrics", "model_size_mb", megabytes.into(), true);
        // Half a gigabyte for the program and the activations of a small batch.
        let (least, most) = (rounded(loaded + 0.5), rounded(loaded * 2.0 + 1.0));
        for (name, value) in [
            ("min_ram_gb", Toml::from(least)),
            ("recommended_ram_gb", most.into()),
            ("supports_cpu", true.into()),
            ("supports_gpu", true.into()),
            ("supports_mixed_precision", false.into()),
        ] {
            self.set("hardware", name, value, false);
        }
    }

    /// Writes a field into the text, in place of one that is there only where that is wished.
    fn set(&mut self, table: &str, name: &str, value: Toml, anew: bool) {
        type Places = BTreeMap<String, Spanned<Toml>>;
        #[derive(serde::Deserialize)]
        struct Known {
            metrics: Option<Places>,
            hardware: Option<Places>,
        }
        let Ok(known) = toml::from_str::<Known>(&self.text) else {
            return;
        };
        let places = match table {
            "metrics" => known.metrics,
            _ => known.hardware,
        };
        let before = self.text.clone();
        match places.as_ref().map(|places| places.get(name)) {
            Some(Some(place)) if anew => {
                self.text.replace_range(place.span(), &value.to_string());
            }
            Some(Some(_)) => {}
            Some(None) => {
                let header = format!("[{table}]");
                let mut at = 0;
                let line = self.text.split_inclusive('\n').find(|line| {
                    at += line.len();
                    line.trim_start().starts_with(&header)
                });
                // A table that is not written as one, but as dotted keys, is left as it is.
                if line.is_some() {
                    let end = self.text[at..]
                        .find("\n[")
                        .map_or(self.text.len(), |end| at + end + 1);
                    let body = self.text[at..end].trim_end().len();
                    self.text
                        .insert_str(at + body, &field(name, &value, body > 0));
                }
            }
            None => {
                let text = format!("\n[{table}]\n{}", field(name, &value, false));
                self.text.push_str(&text);
            }
        }
        match toml::from_str(&self.text) {
            Ok(document) => self.document = document,
            // A layout that was not foreseen is better left as it is.
            Err(_) => self.text = before,
        }
    }
}

/// A line; behind another, or behind a table's header, which ends its own.
fn field(name: &str, value: &Toml, behind_another: bool) -> String {
    let (before, after) = if behind_another {
        ("\n", "")
    } else {
        ("", "\n")
    };
    format!("{before}{name} = {value}{after}")
}

/// Describes a model by its configuration, and by its card's front matter where that names a licence.
pub(crate) fn describe(directory: &Path, config: &Value, card: Option<&[u8]>) -> Native {
    let get = |key: &str| config.get(key).and_then(Value::as_str);
    let folder = std::fs::canonicalize(directory).unwrap_or(directory.to_owned());
    let folder = folder
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let card = card.map(String::from_utf8_lossy).unwrap_or_default();
    let name = get("_name_or_path").filter(|name| !name.is_empty());
    let name = name.map_or(folder, |path| {
        path.rsplit('/').next().unwrap_or(path).to_owned()
    });
    let mut text = "[model]\n".to_owned();
    for (field, value) in [
        ("name", &name[..]),
        ("architecture", get("model_type").unwrap_or("unknown")),
        ("version", "1.0.0"),
        ("author", ""),
        ("license", front_matter(&card, "license").unwrap_or("")),
        ("description", ""),
    ] {
        text.push_str(&format!("{field} = {}\n", Toml::from(value)));
    }
    text.push_str("\n[architecture]\n");
    for (field, value) in config.as_object().into_iter().flatten() {
        if let Some(value) = plain(value, 0).filter(|_| field != "model_type") {
            text.push_str(&format!("{} = {value}\n", key(field)));
        }
    }
    text.push_str("\n[hardware]\n\n[metrics]\n");
    let document = toml::from_str(&text).unwrap_or_default();
    Native { text, document }
}

/// A key as it is, or quoted where that needs it.
fn key(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    if !name.is_empty() && name.chars().all(plain) {
        name.to_owned()
    } else {
        Toml::from(name).to_string()
    }
}

/// A field of the YAML between the first two `---` of a card, where it is a plain text on one line.
fn front_matter<'a>(card: &'a str, field: &str) -> Option<&'a str> {
    let (matter, _) = card.strip_prefix("---\n")?.split_once("\n---")?;
    let mut lines = matter.lines();
    let found = lines.find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let found = found.trim().trim_matches(['"', '\'']);
    (!found.is_empty()).then_some(found)
}

/// TOML has no null; a field without a value is left out.
fn plain(value: &Value, depth: usize) -> Option<Toml> {
    if depth > DEEPEST {
        return None;
    }
    Some(match value {
        Value::Null => return None,
        Value::Bool(flag) => (*flag).into(),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => whole.into(),
            None => number.as_f64()?.into(),
        },
        Value::String(text) => text[..].into(),
        Value::Array(items) => {
            let items = items.iter().filter_map(|item| plain(item, depth + 1));
            Toml::Array(items.collect())
        }
        Value::Object(fields) => {
            let fields = fields.iter();
            let fields =
                fields.filter_map(|(name, value)| Some((name.clone(), plain(value, depth + 1)?)));
            Toml::Table(fields.collect())
        }
    })
}

fn object(table: &Table, depth: usize) -> Map<String, Value> {
    let fields = table.iter();
    fields
        .map(|(name, value)| (name.clone(), json_of(value, depth + 1)))
        .collect()
}

fn json_of(value: &Toml, depth: usize) -> Value {
    match value {
        _ if depth > DEEPEST => Value::Null,
        Toml::String(text) => json!(text),
        Toml::Integer(whole) => json!(whole),
        Toml::Float(number) => json!(number),
        Toml::Boolean(flag) => json!(flag),
        Toml::Datetime(time) => json!(time.to_string()),
        Toml::Array(items) => {
            Value::Array(items.iter().map(|item| json_of(item, depth + 1)).collect())
        }
        Toml::Table(table) => Value::Object(object(table, depth + 1)),
    }
}

impl Hardware {
    /// In what the machine falls short, one sentence each.
    pub fn shortcomings(&self, memory: Option<u64>, device: Option<&Device>) -> Vec<String> {
        let mut found = Vec::new();
        let gigabytes = |bytes: u64| bytes as f64 / 1e9;
        if let Some(memory) = memory {
            if let Some(least) = self.min_ram.filter(|least| *least > memory) {
                found.push(format!(
                    "the model needs {:.1} GB of memory, and this machine has {:.1}",
                    gigabytes(least),
                    gigabytes(memory)
                ));
            } else if let Some(most) = self.recommended_ram.filter(|most| *most > memory) {
                found.push(format!(
                    "the model should have {:.1} GB of memory, and this machine has {:.1}",
                    gigabytes(most),
                    gigabytes(memory)
                ));
            }
        }
        if let Some(device) = device {
            let (supports, kind) = if device.is_cpu() {
                (self.cpu, "a CPU")
            } else {
                (self.gpu, "a GPU")
            };
            if supports == Some(false) {
                let reason =
                    format!("the model says that it does not run on {kind}, which {device} is");
                found.push(reason);
            }
        }
        found
    }
}

/// The memory of this machine in bytes, where it can be known.
pub fn memory() -> Option<u64> {
    use sysinfo::{MemoryRefreshKind, RefreshKind, System};
    let what = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let total = System::new_with_specifics(what).total_memory();
    (total > 0).then_some(total)
}
