//! Writing safetensors.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{BoolStore, DType, TensorData};
use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use super::{FORMAT, LENGTH_BYTES};
use crate::checkpoint::{Checkpoint, Dtype, Entry, Format};
use crate::error::FormatError;
use crate::sharded;
use crate::write::{Draft, Job, Whole, WriteFormat, WriteOptions, Writer};

pub(crate) const WRITER: Writer = Writer {
    name: FORMAT,
    endings: &[".safetensors"],
    holds: |dtype| match dtype {
        Dtype::Quantized(_) => false,
        Dtype::Other(name) => ["C64", "F4", "F6_E2M3", "F6_E3M2"].contains(&&name[..]),
        _ => true,
    },
    write: |job| sharded::write(job, write_file),
};

/// Readers of Hugging Face's refuse a file that does not say which framework's layout it has.
const LAYOUT: (&str, &str) = ("format", "pt");
/// The longest header that readers take.
const MOST_HEADER: usize = 100_000_000;

/// Writes tensors to one file, under a temporary name first.
///
/// # Errors
/// A type has no safetensors name, or the file cannot be written.
pub fn write(
    path: &Path,
    tensors: &BTreeMap<String, TensorData>,
    metadata: BTreeMap<String, String>,
) -> Result<(), FormatError> {
    let mut entries = IndexMap::new();
    for (name, data) in tensors {
        let dtype = dtype(data.dtype()).ok_or_else(|| FormatError::Tensor {
            path: path.to_owned(),
            tensor: name.clone(),
            offset: None,
            reason: format!("the type {:?} cannot be written", data.dtype()),
        })?;
        let (shape, bytes) = (data.shape().to_vec(), data.as_bytes().len());
        let data = data.clone();
        let entry = Entry::new(dtype, shape, bytes, move || Ok(data.clone()));
        entries.insert(name.clone(), entry);
    }
    let checkpoint = Checkpoint::new(Format::Safetensors, Vec::new(), metadata, entries);
    let (format, options) = (WriteFormat::Safetensors, WriteOptions::default());
    crate::write(&checkpoint, path, format, &options, &|_, _| {})?;
    Ok(())
}

/// Writes one file, its header first: the widest types before the others, so that all are aligned.
fn write_file(job: &Job<'_>) -> Result<Whole, FormatError> {
    let mut tensors = job.tensors.clone();
    tensors.sort_by_key(|(name, entry)| (std::cmp::Reverse(width(entry)), *name));
    let mut header = Map::new();
    let (key, layout) = LAYOUT;
    let mut metadata = job.metadata.clone();
    metadata.entry(key.to_owned()).or_insert(layout.to_owned());
    header.insert("__metadata__".to_owned(), json!(metadata));
    let mut at: usize = 0;
    for (name, entry) in &tensors {
        let end = at + entry.bytes;
        let info = json!({
            "dtype": entry.dtype.to_string(),
            "shape": entry.shape,
            "data_offsets": [at, end],
        });
        if *name == "__metadata__" || header.insert((*name).to_owned(), info).is_some() {
            return Err(job.refuse(name, "two tensors cannot have one name".to_owned()));
        }
        at = end;
    }
    let mut header = Value::Object(header).to_string();
    let padded = header.len().next_multiple_of(LENGTH_BYTES);
    header.extend(std::iter::repeat_n(' ', padded - header.len()));
    if header.len() > MOST_HEADER {
        let reason = format!(
            "its header would take {} bytes, more than the {MOST_HEADER} that readers take",
            header.len()
        );
        return Err(FormatError::Malformed {
            path: job.path.to_owned(),
            format: FORMAT,
            offset: None,
            reason,
        });
    }
    let mut out = Draft::create(job.path)?;
    out.write(&(header.len() as u64).to_le_bytes())?;
    out.write(header.as_bytes())?;
    for (name, entry) in tensors {
        job.copy(name, entry, &mut out)?;
    }
    out.finish()
}

/// The size of an element, which is what its data must be aligned to.
fn width(entry: &Entry) -> usize {
    entry.bytes / entry.elements().max(1)
}

fn dtype(dtype: DType) -> Option<Dtype> {
    Some(match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::I16 => Dtype::I16,
        DType::I8 => Dtype::I8,
        DType::U64 => Dtype::U64,
        DType::U32 => Dtype::U32,
        DType::U16 => Dtype::U16,
        DType::U8 => Dtype::U8,
        DType::Bool(BoolStore::Native) => Dtype::Bool,
        _ => return None,
    })
}
