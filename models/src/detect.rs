//! What a checkpoint shows of its model where no configuration comes with it.
//!
//! Names tell the architecture and whose they are, shapes tell the sizes. What neither shows is taken from
//! the architecture's published models where these agree, and otherwise left open.

use std::fmt;

use salamander_importers::{Checkpoint, FormatError, KeyMap};
use serde_json::{Map, Value};

use crate::{ARCHITECTURES, Architecture, ConfigError, Preset};

/// The dialect of checkpoints whose names and fields are transformers'.
pub(crate) const HUGGING_FACE: &str = "Hugging Face";

/// A model known by the names and shapes of its tensors.
#[derive(Debug, Clone)]
pub struct Detected {
    /// The architecture of the zoo.
    pub architecture: &'static Architecture,
    /// Whose names the tensors bear, for instance `Hugging Face` or `torchvision`.
    pub dialect: &'static str,
    /// The fields of a `config.json`, each with how it was found.
    pub fields: Vec<Field>,
}

/// A field of a configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Its name in `config.json`.
    pub name: &'static str,
    /// How its value was found.
    pub finding: Finding,
}

/// How the value of a field was found.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Finding {
    /// A tensor shows it.
    Shown {
        /// The value.
        value: Value,
        /// The tensor's name and shape, or what is there or missing.
        by: String,
    },
    /// No tensor shows it; the architecture's published models have it.
    Usual {
        /// The value.
        value: Value,
        /// Whose value it is.
        why: &'static str,
    },
    /// No tensor shows it, and it differs between models.
    Open {
        /// The values that are possible or usual, if there are few.
        candidates: Vec<Value>,
    },
}

impl Field {
    /// The value, unless it is open.
    pub fn value(&self) -> Option<&Value> {
        match &self.finding {
            Finding::Shown { value, .. } | Finding::Usual { value, .. } => Some(value),
            Finding::Open { .. } => None,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Shown { by, .. } => f.write_str(by),
            Finding::Usual { why, .. } => write!(f, "not shown by the weights; {why}"),
            Finding::Open { candidates } if candidates.is_empty() => {
                f.write_str("not shown by the weights")
            }
            Finding::Open { candidates } => {
                let candidates: Vec<String> = candidates.iter().map(Value::to_string).collect();
                write!(
                    f,
                    "not shown by the weights; one of {}",
                    candidates.join(", ")
                )
            }
        }
    }
}

impl Detected {
    /// The configuration: the fields of `given`, completed by what was found.
    ///
    /// # Errors
    /// A field is open, and `given` does not have it.
    pub fn config(&self, given: &Value) -> Result<Value, ConfigError> {
        let empty = Map::new();
        let given = given.as_object().unwrap_or(&empty);
        complete_all(given, &self.fields).map(Value::Object)
    }

    /// The models of other libraries that look like this one: several where only their pictures' preparation
    /// differs, none for Hugging Face's names.
    pub fn presets(&self) -> Vec<Preset> {
        if self.dialect == HUGGING_FACE {
            return Vec::new();
        }
        let shown = |field: &Field| matches!(field.finding, Finding::Shown { .. });
        let fits = |preset: &Preset| {
            let mut shown = self.fields.iter().filter(|field| shown(field));
            shown.all(|field| match preset.config.get(field.name) {
                // The class count is the fine-tuning's.
                _ if field.name == "num_labels" => true,
                Some(value) => field.value() == Some(value),
                // A flag or a kind that a preset does not name is off there.
                None => !matches!(field.value(), Some(Value::Bool(true) | Value::String(_))),
            })
        };
        let all = (self.architecture.presets)();
        all.into_iter().filter(fits).collect()
    }
}

/// The architecture of a checkpoint, and what can be known of its configuration beyond what is `given`.
///
/// # Errors
/// The names are those of no architecture of the zoo, or of several.
pub fn detect(checkpoint: &Checkpoint, given: &Value) -> Result<Detected, ConfigError> {
    /// Under a prefix is the model that most of the tensors belong to, not a part of a larger one.
    const MOST: f64 = 0.5;
    let empty = Map::new();
    let fields = given.as_object().unwrap_or(&empty);
    let refuse =
        |error: FormatError| ConfigError::new("model_type", format!("is missing; {error}"));
    checkpoint.refuse_parts().map_err(refuse)?;
    let is_known = |seen: &Checkpoint| {
        let mut all = ARCHITECTURES.iter();
        all.any(|architecture| (architecture.detect)(seen, fields).is_some())
    };
    let checkpoint = &checkpoint.seen_through(MOST, is_known).map_err(refuse)?;
    let detected = |architecture: &'static Architecture| {
        let (dialect, fields) = (architecture.detect)(checkpoint, fields)?;
        Some(Detected {
            architecture,
            dialect,
            fields,
        })
    };
    let mut found: Vec<Detected> = ARCHITECTURES.iter().filter_map(detected).collect();
    let names = |found: &[Detected]| {
        let names: Vec<&str> = found.iter().map(|one| one.architecture.name).collect();
        names.join(", ")
    };
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => {
            let known: Vec<&str> = ARCHITECTURES.iter().map(|one| one.name).collect();
            if let Some(name) = checkpoint.metadata.get("general.architecture") {
                let runs = match ARCHITECTURES.iter().any(|one| one.name == name) {
                    true => "but its tensors do not bear that architecture's names",
                    false => "which is not in the zoo",
                };
                let reason = format!(
                    "is missing, and the file says that it is a \"{name}\", {runs} ({})",
                    known.join(", ")
                );
                return Err(ConfigError::new("model_type", reason));
            }
            let reason = format!(
                "is missing, and the names of the tensors are those of no architecture of the zoo ({})",
                known.join(", ")
            );
            Err(ConfigError::new("model_type", reason))
        }
        _ => {
            let reason = format!(
                "is missing, and the names of the tensors fit {}; write a config.json with this field",
                names(&found)
            );
            Err(ConfigError::new("model_type", reason))
        }
    }
}

/// Completes `given` by the fields that are not open.
pub(crate) fn complete(given: &Map<String, Value>, fields: &[Field]) -> Map<String, Value> {
    let mut config = given.clone();
    for field in fields {
        if let Some(value) = field.value() {
            config.entry(field.name).or_insert_with(|| value.clone());
        }
    }
    config
}

/// Completes `given` by all fields.
pub(crate) fn complete_all(
    given: &Map<String, Value>,
    fields: &[Field],
) -> Result<Map<String, Value>, ConfigError> {
    let missing = |field: &&Field| field.value().is_none() && !given.contains_key(field.name);
    if let Some(field) = fields.iter().find(missing) {
        let reason = format!(
            "{}; write a config.json with this field beside the weights",
            field.finding
        );
        return Err(ConfigError::new(field.name, reason));
    }
    Ok(complete(given, fields))
}

/// A checkpoint read by an architecture's names, and what it was seen to show.
pub(crate) struct Evidence<'a> {
    checkpoint: &'a Checkpoint,
    map: KeyMap,
    fields: Vec<Field>,
}

/// A tensor that was looked for by its parameter's path.
pub(crate) struct Found<'a> {
    pub(crate) key: String,
    pub(crate) shape: &'a [usize],
}

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is {:?}", self.key, self.shape)
    }
}

impl<'a> Evidence<'a> {
    /// Looks through `map` into `checkpoint`.
    pub(crate) fn new(checkpoint: &'a Checkpoint, map: KeyMap) -> Self {
        Self {
            checkpoint,
            map,
            fields: Vec::new(),
        }
    }

    /// The tensor of the parameter `path`.
    pub(crate) fn find(&self, path: &str) -> Option<Found<'a>> {
        self.map.candidates(path).into_iter().find_map(|key| {
            let shape = &self.checkpoint.get(&key)?.shape;
            Some(Found { key, shape })
        })
    }

    /// Whether there is a tensor for the parameter `path`.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.find(path).is_some()
    }

    /// How many tensors there are for the parameters `before0after`, `before1after`, …
    pub(crate) fn count(&self, before: &str, after: &str) -> usize {
        let has = |index: &usize| self.has(&format!("{before}{index}{after}"));
        (0..self.checkpoint.len()).take_while(has).count()
    }

    /// A number that the file holds beside its tensors.
    pub(crate) fn stored(&self, name: &str) -> Option<usize> {
        self.checkpoint.metadata.get(name)?.parse().ok()
    }

    /// Notes what `by` shows.
    pub(crate) fn shown(
        &mut self,
        name: &'static str,
        value: impl Into<Value>,
        by: impl fmt::Display,
    ) {
        let (value, by) = (value.into(), by.to_string());
        let finding = Finding::Shown { value, by };
        self.fields.push(Field { name, finding });
    }

    /// Notes the size of a dimension of the parameter `path`, if that is there.
    pub(crate) fn size(&mut self, name: &'static str, path: &str, dim: usize) -> Option<usize> {
        let found = self.find(path)?;
        let size = *found.shape.get(dim)?;
        self.shown(name, size, found);
        Some(size)
    }

    /// Notes whether there is a tensor for the parameter `path`.
    pub(crate) fn presence(&mut self, name: &'static str, path: &str) -> bool {
        let found = self.find(path);
        let present = found.is_some();
        match found {
            Some(found) => self.shown(name, present, format!("`{}` is there", found.key)),
            None => {
                let key = self.map.candidates(path).swap_remove(0);
                self.shown(name, present, format!("there is no `{key}`"));
            }
        }
        present
    }

    /// Notes what published models have.
    pub(crate) fn usual(&mut self, name: &'static str, value: impl Into<Value>, why: &'static str) {
        let value = value.into();
        let finding = Finding::Usual { value, why };
        self.fields.push(Field { name, finding });
    }

    /// Notes that nothing shows the field.
    pub(crate) fn open(&mut self, name: &'static str, candidates: Vec<Value>) {
        let finding = Finding::Open { candidates };
        self.fields.push(Field { name, finding });
    }

    /// What was noted.
    pub(crate) fn fields(self) -> Vec<Field> {
        self.fields
    }
}
