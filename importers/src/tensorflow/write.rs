//! Writes checkpoints of the second version, in one shard.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;

use super::bundle::INDEX;
use super::table::{self, masked};
use super::tensor;
use crate::data::clip;
use crate::error::FormatError;
use crate::proto::{put_bytes, put_fixed32, put_number};

/// The version of the layout, and the first one whose readers understand it.
const VERSION: u64 = 1;

/// Writes tensors as `PREFIX.index` and `PREFIX.data-00000-of-00001`, one at a time, under temporary names first.
///
/// Names are kept; a checkpoint has no place for metadata. `tf.train.load_checkpoint(PREFIX)` reads it.
///
/// # Errors
/// A type has no name in TensorFlow, a name is there twice or empty, a tensor cannot be had, or a file cannot be
/// written.
pub fn write(
    prefix: &Path,
    tensors: impl IntoIterator<Item = (String, Result<TensorData, FormatError>)>,
) -> Result<(), FormatError> {
    let with = |ending: &str| {
        let mut name = prefix.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    let (index, data) = (with(INDEX), with(".data-00000-of-00001"));
    let (index_part, data_part) = (with(".index.part"), with(".data.part"));
    let written = write_data(&data_part, tensors).and_then(|items| {
        std::fs::write(&index_part, table_of(&items)).map_err(FormatError::io(&index_part))?;
        // The index comes last: without it there is no checkpoint.
        std::fs::rename(&data_part, &data).map_err(FormatError::io(&data))?;
        std::fs::rename(&index_part, &index).map_err(FormatError::io(&index))
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&data_part);
        let _ = std::fs::remove_file(&index_part);
    }
    written
}

/// Writes the data; gives what the index says of each tensor, by name.
fn write_data(
    path: &Path,
    tensors: impl IntoIterator<Item = (String, Result<TensorData, FormatError>)>,
) -> Result<BTreeMap<String, Vec<u8>>, FormatError> {
    let mut file = BufWriter::new(File::create(path).map_err(FormatError::io(path))?);
    let mut items = BTreeMap::new();
    let mut offset = 0;
    for (name, data) in tensors {
        let data = data?;
        let refuse = |reason: String| FormatError::Tensor {
            path: path.to_owned(),
            tensor: clip(&name),
            offset: None,
            reason,
        };
        let code = tensor::code(data.dtype());
        let code =
            code.ok_or_else(|| refuse(format!("the type {:?} cannot be written", data.dtype())))?;
        if name.is_empty() || name.starts_with('\0') {
            return Err(refuse(
                "the name means something else in a checkpoint".to_owned(),
            ));
        }
        let bytes = data.as_bytes();
        let mut shape = Vec::new();
        for size in data.shape().to_vec() {
            let mut dimension = Vec::new();
            put_number(&mut dimension, 1, size as u64);
            put_bytes(&mut shape, 2, &dimension);
        }
        let mut item = Vec::new();
        put_number(&mut item, 1, code);
        put_bytes(&mut item, 2, &shape);
        put_number(&mut item, 4, offset);
        put_number(&mut item, 5, bytes.len() as u64);
        put_fixed32(&mut item, 6, masked(crc32c::crc32c(bytes)));
        if items.contains_key(&name) {
            return Err(refuse("it is there twice".to_owned()));
        }
        items.insert(name, item);
        file.write_all(bytes).map_err(FormatError::io(path))?;
        offset += bytes.len() as u64;
    }
    let file = file
        .into_inner()
        .map_err(|error| FormatError::io(path)(error.into_error()))?;
    file.sync_all().map_err(FormatError::io(path))?;
    Ok(items)
}

fn table_of(items: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut version = Vec::new();
    put_number(&mut version, 1, VERSION);
    let mut header = Vec::new();
    put_number(&mut header, 1, 1);
    put_bytes(&mut header, 3, &version);
    let mut table = table::Writer::default();
    table.put(b"", &header);
    for (name, item) in items {
        table.put(name.as_bytes(), item);
    }
    table.finish()
}
