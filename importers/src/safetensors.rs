//! safetensors, one file; `sharded.rs` has the index of several.
//!
//! The layout is that of <https://huggingface.co/docs/safetensors>; the header is parsed and proven by
//! the `safetensors` crate (no gaps, no overlaps, sizes equal to shape × type, nothing beyond the file).

mod write;

use std::path::Path;

use ::safetensors::SafeTensors;
use burn::tensor::TensorData;
use bytes::Bytes;
use indexmap::IndexMap;

use crate::checkpoint::{Checkpoint, Dtype, Entry, Format};
use crate::data;
use crate::error::FormatError;
use crate::float8::Float8;
use crate::map::map_file;

pub(crate) use write::WRITER;
pub use write::write;

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
        let stored = reader.bytes.clone();
        let entry = Entry::new(dtype, info.shape.clone(), end - begin, move || {
            reader.read()
        })
        .with_stored(move || Ok(data::shared(stored.clone())));
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
        other => {
            let name = other.to_string();
            Float8::find(&name).map_or(Dtype::Other(name), Dtype::F8)
        }
    }
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
