//! Models as text, in JSON or YAML, their tensors as decimal numbers:
//!
//! ```yaml
//! metadata: {name: …, architecture: …, version: …, training_config: …, custom: {…}}
//! parameters:
//!   - {name: encoder.weight, shape: [2, 3], dtype: f32, requires_grad: true}
//! data: [0.1, …]
//! ```
//!
//! `data` has the elements of all parameters one after the other. Every number is an `f32`, written in the
//! fewest digits that give it back. `custom` is taken apart into metadata under its own names, and put together
//! again from whatever is not one of the other fields.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use bytes::Bytes;
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::checkpoint::{Checkpoint, Dtype, Entry, Format};
use crate::compress;
use crate::data::{self, clip};
use crate::error::FormatError;
use crate::json::Shape;
use crate::write::{Draft, Job, Writer};

const FORMAT: &str = "model";

pub(crate) const JSON: Writer = Writer {
    name: "json-model",
    endings: &[],
    holds: |dtype| *dtype == Dtype::F32,
    write: write_json,
};

pub(crate) const YAML: Writer = Writer {
    name: "yaml",
    endings: &[".yaml", ".yml"],
    holds: |dtype| *dtype == Dtype::F32,
    write: write_yaml,
};

/// The fields of `metadata`, in their order; the others are in `custom`.
const NAME: &str = "name";
const ARCHITECTURE: &str = "architecture";
const VERSION: &str = "version";
const TRAINING: &str = "training_config";

#[derive(Deserialize)]
struct Model {
    metadata: Option<Value>,
    parameters: Vec<Parameter>,
    data: Vec<f32>,
}

/// One tensor, without its data.
#[derive(Deserialize)]
pub(crate) struct Parameter {
    name: String,
    shape: Shape,
    dtype: Option<String>,
}

/// Reads a YAML text.
pub(crate) fn read_yaml(path: &Path, text: &Bytes) -> Result<Checkpoint, FormatError> {
    let malformed = |reason: String| FormatError::Malformed {
        path: path.to_owned(),
        format: "YAML",
        offset: None,
        reason,
    };
    // What a text holds is bounded by its length, but for aliases, which keep the limit of their own.
    let most = text.len().saturating_add(1);
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: most.saturating_mul(2),
            max_nodes: most,
            max_total_scalar_bytes: most,
        },
        with_snippet: false,
    };
    let model: Model = serde_saphyr::from_slice_with_options(text, options)
        .map_err(|error| malformed(error.to_string()))?;
    let Model {
        metadata,
        parameters,
        data,
    } = model;
    checkpoint(path, Format::YamlModel, metadata, parameters, data)
}

/// The parameters over their data.
pub(crate) fn checkpoint(
    path: &Path,
    format: Format,
    metadata: Option<Value>,
    parameters: Vec<Parameter>,
    values: Vec<f32>,
) -> Result<Checkpoint, FormatError> {
    let count = values.len();
    let values = Bytes::from_owner(Numbers(TensorData::new(values, [count]).into_bytes()));
    let mut entries = IndexMap::new();
    let mut at: usize = 0;
    for Parameter { name, shape, dtype } in parameters {
        let refuse = |reason: String| FormatError::Tensor {
            path: path.to_owned(),
            tensor: clip(&name),
            offset: None,
            reason,
        };
        let dtype = dtype.unwrap_or("f32".to_owned());
        if dtype != "f32" {
            let reason = format!("its type is `{}`, and f32 is known", clip(&dtype));
            return Err(refuse(reason));
        }
        let bytes = data::elements(&shape.0)
            .and_then(|count| count.checked_mul(4))
            .and_then(|bytes| usize::try_from(bytes).ok());
        let end = bytes
            .and_then(|bytes| at.checked_add(bytes))
            .filter(|end| *end <= values.len())
            .ok_or_else(|| {
                refuse(format!(
                    "its shape {:?} reaches beyond the {} numbers of `data`",
                    shape.0,
                    values.len() / 4
                ))
            })?;
        let sizes: Option<Vec<usize>> = shape
            .0
            .iter()
            .map(|size| usize::try_from(*size).ok())
            .collect();
        let sizes =
            sizes.ok_or_else(|| refuse("its shape is larger than this machine".to_owned()))?;
        let (own, own_shape) = (values.slice(at..end), sizes.clone());
        let (file, tensor) = (path.to_owned(), name.clone());
        let entry = Entry::new(Dtype::F32, sizes, end - at, move || {
            data::typed(own.clone(), &own_shape, &Dtype::F32).map_err(|reason| {
                FormatError::Tensor {
                    path: file.clone(),
                    tensor: clip(&tensor),
                    offset: None,
                    reason,
                }
            })
        });
        if entries.insert(name.clone(), entry).is_some() {
            return Err(refuse("it is there twice".to_owned()));
        }
        at = end;
    }
    if at != values.len() {
        return Err(FormatError::Malformed {
            path: path.to_owned(),
            format: FORMAT,
            offset: None,
            reason: format!(
                "its parameters take {} of the {} numbers of `data`",
                at / 4,
                values.len() / 4
            ),
        });
    }
    let mut metadata = metadata;
    let custom = metadata.as_mut().and_then(|metadata| {
        let fields = metadata.as_object_mut()?;
        fields.remove("custom")
    });
    let mut texts_found = texts(custom);
    texts_found.extend(texts(metadata));
    let files = vec![path.to_owned()];
    Ok(Checkpoint::new(format, files, texts_found, entries))
}

struct Numbers(burn::tensor::Bytes);

impl AsRef<[u8]> for Numbers {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// An object's fields as texts; what is not a text is JSON.
pub(crate) fn texts(object: Option<Value>) -> BTreeMap<String, String> {
    let Some(Value::Object(fields)) = object else {
        return BTreeMap::new();
    };
    let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
    let text = |value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    fields.map(|(key, value)| (key, text(value))).collect()
}

/// The `metadata` of a job, with the names that a model must have.
fn metadata(job: &Job<'_>) -> Map<String, Value> {
    let mut custom = job.metadata.clone();
    let stem = job.path.file_stem().unwrap_or_default().to_string_lossy();
    let mut take = |key: &str, default: &str| {
        let found = custom.remove(key);
        json!(found.unwrap_or_else(|| default.to_owned()))
    };
    let mut fields = Map::new();
    fields.insert(NAME.to_owned(), take(NAME, &stem));
    fields.insert(ARCHITECTURE.to_owned(), take(ARCHITECTURE, "custom"));
    fields.insert(VERSION.to_owned(), take(VERSION, "0.1.0"));
    let training = custom.remove(TRAINING);
    let training = training.and_then(|text| serde_json::from_str(&text).ok());
    fields.insert(TRAINING.to_owned(), training.unwrap_or(Value::Null));
    fields.insert("custom".to_owned(), json!(custom));
    fields
}

fn parameter(name: &str, entry: &Entry) -> Value {
    json!({"name": name, "shape": entry.shape, "dtype": "f32", "requires_grad": true})
}

/// Calls `write` with the text of every number, in pieces.
fn numbers(
    job: &Job<'_>,
    out: &mut Draft,
    mut number: impl FnMut(&mut String, f32) -> Result<(), String>,
) -> Result<(), FormatError> {
    const PIECE: usize = 1 << 14;
    let mut text = String::new();
    for (name, entry) in &job.tensors {
        let data: TensorData = entry.read()?;
        let values: &[f32] = data.as_slice().unwrap_or_default();
        for piece in values.chunks(PIECE) {
            text.clear();
            for value in piece {
                number(&mut text, *value).map_err(|reason| job.refuse(name, reason))?;
            }
            out.write(text.as_bytes())?;
        }
        job.wrote(name, entry);
    }
    Ok(())
}

/// The fewest digits that readers who go through `f64`, not always to the last bit, give back as `value`.
fn decimal(value: f32) -> String {
    let short = serde_json::to_string(&value).unwrap_or_default();
    if serde_json::from_str(&short).is_ok_and(|read: f32| read == value) {
        return short;
    }
    json!(value).to_string()
}

fn write_json(job: &Job<'_>) -> Result<Vec<PathBuf>, FormatError> {
    let mut out = Draft::create(job.path)?;
    let parameters = job
        .tensors
        .iter()
        .map(|(name, entry)| parameter(name, entry));
    let parameters: Vec<Value> = parameters.collect();
    let pretty = job.options.pretty;
    let text = |value: Value| {
        if pretty {
            format!("{value:#}").replace('\n', "\n  ")
        } else {
            value.to_string()
        }
    };
    let (line, colon) = if pretty { ("\n  ", ": ") } else { ("", ":") };
    let head = format!(
        "{{{line}\"metadata\"{colon}{},{line}\"parameters\"{colon}{},{line}\"data\"{colon}[",
        text(Value::Object(metadata(job))),
        text(Value::Array(parameters)),
    );
    out.write(head.as_bytes())?;
    let mut first = true;
    numbers(job, &mut out, |text, value| {
        if !value.is_finite() {
            return Err(format!(
                "JSON has no number {value}; write a state dictionary"
            ));
        }
        if !std::mem::take(&mut first) {
            text.push(',');
        }
        if pretty {
            text.push_str("\n    ");
        }
        text.push_str(&decimal(value));
        Ok(())
    })?;
    let end = if pretty { "\n  ]\n}\n" } else { "]}\n" };
    out.write(end.as_bytes())?;
    compress::place(out, job.path, job.options.compression)
}

fn write_yaml(job: &Job<'_>) -> Result<Vec<PathBuf>, FormatError> {
    let mut out = Draft::create(job.path)?;
    // JSON is YAML's flow style, and quotes what needs it.
    let mut head = "metadata:\n".to_owned();
    for (key, value) in metadata(job) {
        let _ = writeln!(head, "  {key}: {value}");
    }
    head.push_str("parameters:\n");
    for (name, entry) in &job.tensors {
        let _ = writeln!(
            head,
            "  - name: {}\n    shape: {}\n    dtype: f32\n    requires_grad: true",
            json!(name),
            json!(entry.shape)
        );
    }
    let empty = job.tensors.iter().all(|(_, entry)| entry.bytes == 0);
    if job.tensors.is_empty() {
        head = head.replace("parameters:\n", "parameters: []\n");
    }
    head.push_str(if empty { "data: []\n" } else { "data:\n" });
    out.write(head.as_bytes())?;
    numbers(job, &mut out, |text, value| {
        let shown = if value.is_nan() {
            ".nan".to_owned()
        } else if value.is_infinite() {
            if value > 0.0 { ".inf" } else { "-.inf" }.to_owned()
        } else {
            decimal(value)
        };
        let _ = writeln!(text, "  - {shown}");
        Ok(())
    })?;
    compress::place(out, job.path, job.options.compression)
}
