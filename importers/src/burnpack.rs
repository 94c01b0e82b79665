//! burnpack, the container of Burn's own records: what the crate `burn-pack` 0.22 reads and writes.
//!
//! Names and layouts are those of the record. Its identities of parameters, which only training needs, are not
//! kept.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{BoolStore, Bytes as BurnBytes, DType};
use burn_pack::{Error, Reader, Tensor, Writer as Pack};
use bytes::Bytes;
use indexmap::IndexMap;

use crate::checkpoint::{Checkpoint, Dtype, Entry, Format};
use crate::data::{self, clip};
use crate::error::FormatError;
use crate::map::map_file;
use crate::write::{Draft, Job, Writer};

const FORMAT: &str = "burnpack";
/// The magic number as it lies in the file.
pub(crate) const MAGIC: [u8; 4] = burn_pack::MAGIC_NUMBER.to_le_bytes();

pub(crate) const WRITER: Writer = Writer {
    name: FORMAT,
    endings: &[".bpk", ".burnpack"],
    holds: |dtype| {
        !matches!(dtype, Dtype::F8(_) | Dtype::Quantized(_)) && dtype.to_burn().is_some()
    },
    write,
};

/// Opens one file.
///
/// # Errors
/// The file cannot be read, is truncated or corrupt.
pub fn open(path: &Path) -> Result<Checkpoint, FormatError> {
    read(path, map_file(path)?)
}

pub(crate) fn read(path: &Path, map: Bytes) -> Result<Checkpoint, FormatError> {
    let malformed = |error: Error| FormatError::Malformed {
        path: path.to_owned(),
        format: FORMAT,
        offset: None,
        reason: error.to_string(),
    };
    let reader = Reader::from_bytes(data::shared(map)).map_err(malformed)?;
    let mut metadata: BTreeMap<String, String> = reader.metadata().clone();
    for (name, scalar) in reader.scalars() {
        let text = match scalar {
            burn_pack::Scalar::Int(value) => value.to_string(),
            burn_pack::Scalar::UInt(value) => value.to_string(),
            burn_pack::Scalar::Float(value) => format!("{value:?}"),
            burn_pack::Scalar::Bool(value) => value.to_string(),
        };
        metadata.entry(name.clone()).or_insert(text);
    }
    let mut entries = IndexMap::new();
    for tensor in reader.into_tensors().map_err(malformed)? {
        let refuse = |name: &str, reason: String| FormatError::Tensor {
            path: path.to_owned(),
            tensor: clip(name),
            offset: None,
            reason,
        };
        let (name, stored, shape, _, bytes) = tensor.into_parts().map_err(malformed)?;
        let shape: Vec<usize> = shape.to_vec();
        let dtype = dtype(stored).unwrap_or_else(|| Dtype::Other(format!("{stored:?}")));
        let sizes: Vec<u64> = shape.iter().map(|size| *size as u64).collect();
        let size = dtype.to_burn().map(|_| stored.size() as u64);
        let length = data::elements(&sizes).and_then(|count| count.checked_mul(size.unwrap_or(0)));
        if size.is_some() && length != Some(bytes.len() as u64) {
            let reason = format!(
                "{dtype} {shape:?} does not take the {} bytes that it has",
                bytes.len()
            );
            return Err(refuse(&name, reason));
        }
        let (path, entry_name, kind, sizes) =
            (path.to_owned(), name.clone(), dtype.clone(), shape.clone());
        let length = bytes.len();
        let entry = Entry::new(dtype, shape, length, move || {
            let refuse = |reason: String| FormatError::Tensor {
                path: path.clone(),
                tensor: clip(&entry_name),
                offset: None,
                reason,
            };
            typed(bytes.clone(), &sizes, &kind).map_err(refuse)
        });
        entries.insert(name, entry);
    }
    let files = vec![path.to_owned()];
    Ok(Checkpoint::new(Format::Burnpack, files, metadata, entries))
}

/// The bytes as a tensor; the error is a reason.
fn typed(
    bytes: BurnBytes,
    shape: &[usize],
    dtype: &Dtype,
) -> Result<burn::tensor::TensorData, String> {
    let burn = dtype.to_burn();
    let burn = burn.ok_or_else(|| format!("the type {dtype} cannot be read"))?;
    if *dtype == Dtype::Bool
        && let Some(at) = bytes.iter().position(|&byte| byte > 1)
    {
        return Err(format!("element {at} is {}, not a boolean", bytes[at]));
    }
    Ok(burn::tensor::TensorData::from_bytes(
        bytes,
        shape.to_vec(),
        burn,
    ))
}

fn dtype(stored: DType) -> Option<Dtype> {
    Some(match stored {
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

fn write(job: &Job<'_>) -> Result<Vec<std::path::PathBuf>, FormatError> {
    // The crate takes closures without a lifetime, and errors without a type: entries are cloned, and the
    // first error is kept beside.
    let failed = std::sync::Arc::new(std::sync::Mutex::new(None));
    let mut tensors = Vec::new();
    for (name, entry) in &job.tensors {
        let dtype = entry.dtype.to_burn();
        let dtype = dtype.ok_or_else(|| job.refuse(name, format!("no type {}", entry.dtype)))?;
        let (source, failed, owner) = ((*entry).clone(), failed.clone(), job.checkpoint.clone());
        tensors.push(Tensor::deferred(
            (*name).to_owned(),
            dtype,
            entry.shape.clone(),
            None,
            entry.bytes,
            move || {
                owner.release();
                source.stored().map_err(|error| {
                    let reason = error.to_string();
                    if let Ok(mut failed) = failed.lock() {
                        failed.get_or_insert(error);
                    }
                    Error::IoError(reason)
                })
            },
        ));
    }
    let mut pack = Pack::new(tensors).auto_extension(false);
    for (key, value) in &job.metadata {
        pack = pack.with_metadata(key, value);
    }
    let out = Draft::create(job.path)?;
    let written = pack.write_to_file_in_place(out.temporary());
    if let Ok(mut failed) = failed.lock()
        && let Some(error) = failed.take()
    {
        return Err(error);
    }
    written.map_err(|error| FormatError::Malformed {
        path: job.path.to_owned(),
        format: FORMAT,
        offset: None,
        reason: error.to_string(),
    })?;
    for (name, entry) in &job.tensors {
        job.wrote(name, entry);
    }
    Ok(vec![out.place()?])
}
