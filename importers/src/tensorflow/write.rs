//! Writes checkpoints of the second version, in one shard.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::bundle::INDEX;
use super::table::{self, masked};
use super::tensor;
use crate::Dtype;
use crate::error::FormatError;
use crate::protobuf::{put_bytes, put_fixed32, put_number};
use crate::write::{Draft, Job, Writer};

pub(crate) const WRITER: Writer = Writer {
    name: "tensorflow",
    endings: &[INDEX],
    // Floats of eight bits and blocks are read as wider ones.
    holds: |dtype| {
        let plain = !matches!(dtype, Dtype::F8(_) | Dtype::Quantized(_));
        plain && dtype.to_burn().and_then(tensor::code).is_some()
    },
    write,
};

/// The version of the layout, and the first one whose readers understand it.
const VERSION: u64 = 1;

/// The index of the checkpoint with that prefix, if it is not named itself.
pub(crate) fn index_of(path: &Path) -> PathBuf {
    match path.to_string_lossy().ends_with(INDEX) {
        true => path.to_owned(),
        false => with_ending(path.as_os_str(), INDEX),
    }
}

fn with_ending(prefix: &std::ffi::OsStr, ending: &str) -> PathBuf {
    let mut name = prefix.to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Writes `PREFIX.index` and `PREFIX.data-00000-of-00001`, as `tf.train.load_checkpoint(PREFIX)` reads them.
///
/// A checkpoint has no place for metadata.
fn write(job: &Job<'_>) -> Result<Vec<PathBuf>, FormatError> {
    let index = index_of(job.path);
    // What is left without the ending is the prefix, dots and all.
    let data = with_ending(index.with_extension("").as_os_str(), ".data-00000-of-00001");
    let mut draft = Draft::create(&data)?;
    let items = write_data(job, &mut draft)?;
    let data = draft.finish()?;
    let mut draft = Draft::create(&index)?;
    draft.write(&table_of(&items))?;
    let index = draft.finish()?;
    // The index comes last: without it there is no checkpoint.
    let data = data.place()?;
    Ok(vec![index.place()?, data])
}

/// Writes the data; gives what the index says of each tensor, by name.
fn write_data(job: &Job<'_>, draft: &mut Draft) -> Result<BTreeMap<String, Vec<u8>>, FormatError> {
    let mut items = BTreeMap::new();
    let mut offset = 0;
    for (name, entry) in &job.tensors {
        let code = entry.dtype.to_burn().and_then(tensor::code);
        let code = code.ok_or_else(|| {
            let reason = format!("the type {} cannot be written", entry.dtype);
            job.refuse(name, reason)
        })?;
        if name.is_empty() || name.starts_with('\0') {
            let reason = "the name means something else in a checkpoint".to_owned();
            return Err(job.refuse(name, reason));
        }
        let bytes = job.bytes(name, entry)?;
        let mut shape = Vec::new();
        for size in &entry.shape {
            let mut dimension = Vec::new();
            put_number(&mut dimension, 1, *size as u64);
            put_bytes(&mut shape, 2, &dimension);
        }
        let mut item = Vec::new();
        put_number(&mut item, 1, code);
        put_bytes(&mut item, 2, &shape);
        put_number(&mut item, 4, offset);
        put_number(&mut item, 5, bytes.len() as u64);
        put_fixed32(&mut item, 6, masked(crc32c::crc32c(&bytes)));
        items.insert((*name).to_owned(), item);
        draft.write(&bytes)?;
        offset += bytes.len() as u64;
        job.wrote(name, entry);
    }
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
