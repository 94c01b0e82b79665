//! safetensors, one file; `sharded.rs` has the index of several.
//!
//! The layout is that of <https://huggingface.co/docs/safetensors>; the header is parsed and proven by
//! the `safetensors` crate (no gaps, no overlaps, sizes equal to shape × type, nothing beyond the file).

use std::collections::BTreeMap;
use std::path::Path;

use ::safetensors::SafeTensors;
use ::safetensors::tensor::TensorView;
use burn::tensor::{BoolStore, DType, TensorData};
use bytes::Bytes;
use indexmap::IndexMap;

use crate::checkpoint::{Checkpoint, Dtype, Entry, Format};
use crate::data;
use crate::error::FormatError;
use crate::map::map_file;

const FORMAT: &str = "safetensors";
const LENGTH_BYTES: usize = 8;

/// Opens one safetensors file.
///
/// # Errors
/// The file cannot be read, or its header does not describe its bytes.
pub fn open(path: &Path) -> Result<Checkpoint, FormatError> {
    read(path, &map_file(path)?)
}

pub(crate) fn read(path: &Path, map: &Bytes) -> Result<Checkpoint, FormatError> {
    let malformed = |offset: usize, reason: String| FormatError::Malformed {
        path: path.to_owned(),
        format: FORMAT,
        offset: Some(offset as u64),
        reason,
    };
    if map.len() < LENGTH_BYTES {
        let reason = format!(
            "the file has {} bytes, the header's length alone takes 8",
            map.len()
        );
        return Err(malformed(0, reason));
    }
    let (header, metadata) =
        SafeTensors::read_metadata(map).map_err(|error| malformed(0, explain(map, &error)))?;
    let data_start = LENGTH_BYTES + header;
    let mut entries = IndexMap::new();
    for name in metadata.offset_keys() {
        let Some(info) = metadata.info(&name) else {
            continue;
        };
        let (begin, end) = info.data_offsets;
        let bytes = map.slice(data_start + begin..data_start + end);
        let dtype = dtype(info.dtype);
        let reader = Reader {
            path: path.to_owned(),
            name: name.clone(),
            offset: (data_start + begin) as u64,
            dtype: dtype.clone(),
            shape: info.shape.clone(),
            bytes,
        };
        let entry = Entry::new(dtype, info.shape.clone(), end - begin, move || {
            reader.read()
        });
        entries.insert(name, entry);
    }
    let text = metadata.metadata().clone().unwrap_or_default();
    Ok(Checkpoint::new(
        Format::Safetensors,
        vec![path.to_owned()],
        text.into_iter().collect(),
        entries,
    ))
}

/// Writes tensors to one file, under a temporary name first.
///
/// # Errors
/// A type has no safetensors name, or the file cannot be written.
pub fn write(
    path: &Path,
    tensors: &BTreeMap<String, TensorData>,
    metadata: BTreeMap<String, String>,
) -> Result<(), FormatError> {
    let mut views = Vec::new();
    for (name, data) in tensors {
        let dtype = stored_dtype(data.dtype()).ok_or_else(|| FormatError::Tensor {
            path: path.to_owned(),
            tensor: name.clone(),
            offset: None,
            reason: format!("the type {:?} cannot be written", data.dtype()),
        })?;
        let view = TensorView::new(dtype, data.shape().to_vec(), data.as_bytes());
        views.push((name, view.map_err(|error| unwritten(path, error))?));
    }
    let metadata = metadata.into_iter().collect();
    ::safetensors::serialize_to_file(views, Some(metadata), path)
        .map_err(|error| unwritten(path, error))
}

fn unwritten(path: &Path, error: ::safetensors::SafeTensorError) -> FormatError {
    let source = match error {
        ::safetensors::SafeTensorError::IoError(error) => error,
        other => std::io::Error::other(other),
    };
    FormatError::Io {
        path: path.to_owned(),
        source,
    }
}

/// One tensor's bytes in a mapped file.
struct Reader {
    path: std::path::PathBuf,
    name: String,
    offset: u64,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Bytes,
}

impl Reader {
    fn read(&self) -> Result<TensorData, FormatError> {
        let refuse = |reason: String| FormatError::Tensor {
            path: self.path.clone(),
            tensor: self.name.clone(),
            offset: Some(self.offset),
            reason,
        };
        data::typed(self.bytes.clone(), &self.shape, &self.dtype).map_err(refuse)
    }
}

fn dtype(dtype: ::safetensors::Dtype) -> Dtype {
    use ::safetensors::Dtype as Stored;
    match dtype {
        Stored::F64 => Dtype::F64,
        Stored::F32 => Dtype::F32,
        Stored::F16 => Dtype::F16,
        Stored::BF16 => Dtype::BF16,
        Stored::I64 => Dtype::I64,
        Stored::I32 => Dtype::I32,
        Stored::I16 => Dtype::I16,
        Stored::I8 => Dtype::I8,
        Stored::U64 => Dtype::U64,
        Stored::U32 => Dtype::U32,
        Stored::U16 => Dtype::U16,
        Stored::U8 => Dtype::U8,
        Stored::BOOL => Dtype::Bool,
        other => Dtype::Other(other.to_string()),
    }
}

fn stored_dtype(dtype: DType) -> Option<::safetensors::Dtype> {
    use ::safetensors::Dtype as Stored;
    Some(match dtype {
        DType::F64 => Stored::F64,
        DType::F32 => Stored::F32,
        DType::F16 => Stored::F16,
        DType::BF16 => Stored::BF16,
        DType::I64 => Stored::I64,
        DType::I32 => Stored::I32,
        DType::I16 => Stored::I16,
        DType::I8 => Stored::I8,
        DType::U64 => Stored::U64,
        DType::U32 => Stored::U32,
        DType::U16 => Stored::U16,
        DType::U8 => Stored::U8,
        DType::Bool(BoolStore::Native) => Stored::BOOL,
        _ => return None,
    })
}

/// The safetensors crate's reason in the words of someone who has only the file.
fn explain(map: &[u8], error: &::safetensors::SafeTensorError) -> String {
    use ::safetensors::SafeTensorError as E;
    let claimed = map
        .first_chunk::<LENGTH_BYTES>()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes));
    match error {
        E::HeaderTooLarge | E::InvalidHeaderLength => format!(
            "it claims a header of {claimed} bytes, but the file has {}",
            map.len()
        ),
        E::MetadataIncompleteBuffer => format!(
            "the tensors that its header lists do not end where the file does ({} bytes); it is truncated or has \
             trailing bytes",
            map.len()
        ),
        E::InvalidOffset(name) => {
            format!("tensor `{name}` does not begin where the one before it ends")
        }
        E::TensorInvalidInfo => "a tensor's offsets do not fit its shape and type".to_owned(),
        E::ValidationOverflow => "a tensor's shape is larger than any file".to_owned(),
        other => other.to_string(),
    }
}
