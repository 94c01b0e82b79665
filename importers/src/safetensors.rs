//! safetensors, single file and sharded.
//!
//! The layout is that of <https://huggingface.co/docs/safetensors>; the header is parsed and proven by
//! the `safetensors` crate (no gaps, no overlaps, sizes equal to shape × type, nothing beyond the file).

use std::collections::BTreeMap;
use std::path::Path;

use ::safetensors::SafeTensors;
use ::safetensors::tensor::TensorView;
use burn::tensor::{AllocationProperty, BoolStore, Bytes as BurnBytes, DType, TensorData};
use bytes::Bytes;
use indexmap::IndexMap;
use serde::Deserialize;

use crate::checkpoint::{Checkpoint, Dtype, Entry, Format};
use crate::error::FormatError;
use crate::map::map_file;

const FORMAT: &str = "safetensors";
const LENGTH_BYTES: usize = 8;

/// Opens one safetensors file.
///
/// # Errors
/// The file cannot be read, or its header does not describe its bytes.
pub fn open(path: &Path) -> Result<Checkpoint, FormatError> {
    let map = map_file(path)?;
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
        SafeTensors::read_metadata(&map).map_err(|error| malformed(0, explain(&map, &error)))?;
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

/// `model.safetensors.index.json`.
#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    metadata: BTreeMap<String, serde_json::Value>,
    weight_map: BTreeMap<String, String>,
}

/// Opens the safetensors files that an index names.
///
/// # Errors
/// The index is not valid JSON, names a shard that is absent or lies outside its directory, or a tensor
/// that its shard does not hold; or a shard cannot be read.
pub fn open_sharded(path: &Path) -> Result<Checkpoint, FormatError> {
    let malformed = |reason: String| FormatError::Malformed {
        path: path.to_owned(),
        format: "safetensors index",
        offset: None,
        reason,
    };
    let text = std::fs::read(path).map_err(FormatError::io(path))?;
    let index: Index =
        serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
    let directory = path.parent().unwrap_or(Path::new("."));

    let mut files = vec![path.to_owned()];
    let mut shards: BTreeMap<&str, IndexMap<String, Entry>> = BTreeMap::new();
    for (tensor, shard) in &index.weight_map {
        if shards.contains_key(&shard[..]) {
            continue;
        }
        if Path::new(shard).file_name() != Some(shard.as_ref()) {
            let reason = format!("the shard name `{shard}` is not a plain file name");
            return Err(malformed(reason));
        }
        let file = directory.join(shard);
        if !file.is_file() {
            return Err(FormatError::MissingShard {
                path: path.to_owned(),
                shard: shard.clone(),
                tensor: tensor.clone(),
            });
        }
        shards.insert(shard, open(&file)?.into_entries());
        files.push(file);
    }

    let mut entries = IndexMap::new();
    for (tensor, shard) in &index.weight_map {
        let entry = shards
            .get_mut(&shard[..])
            .and_then(|entries| entries.shift_remove(tensor))
            .ok_or_else(|| {
                malformed(format!(
                    "says that `{shard}` holds `{tensor}`, but it does not"
                ))
            })?;
        entries.insert(tensor.clone(), entry);
    }
    // What the shards hold beyond the index is listed too, so that nothing is dropped unseen.
    for (name, entry) in shards.into_values().flatten() {
        entries.entry(name).or_insert(entry);
    }

    let metadata = index.metadata.into_iter().map(|(key, value)| match value {
        serde_json::Value::String(text) => (key, text),
        other => (key, other.to_string()),
    });
    Ok(Checkpoint::new(
        Format::ShardedSafetensors,
        files,
        metadata.collect(),
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
        let dtype = self
            .dtype
            .to_burn()
            .ok_or_else(|| refuse(format!("the type {} cannot be read", self.dtype)))?;
        if self.dtype == Dtype::Bool
            && let Some(at) = self.bytes.iter().position(|&byte| byte > 1)
        {
            let byte = self.bytes[at];
            return Err(refuse(format!("element {at} is {byte}, not a boolean")));
        }
        // Elements are read in place, which needs the alignment that a header padded by hand may lack.
        let aligned = (self.bytes.as_ptr() as usize).is_multiple_of(dtype.size());
        let bytes = if aligned {
            BurnBytes::from_shared(self.bytes.clone(), AllocationProperty::File)
        } else {
            BurnBytes::from_bytes_vec(self.bytes.to_vec())
        };
        Ok(TensorData::from_bytes(bytes, self.shape.clone(), dtype))
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
