//! TensorFlow's checkpoints, of both versions, its SavedModels and its frozen graphs.
//!
//! Which file of a checkpoint is named does not matter: its prefix (`model.ckpt-100`), its index
//! (`model.ckpt-100.index`), a shard of its data, or the text file `checkpoint`, which names the latest of a
//! directory. Of that name only the last part is taken, so that it never leads out of the directory.
//!
//! # Names
//!
//! Variables have the names that TensorFlow gave them, with slashes: `dense/kernel`. Checkpoints that were saved
//! from an object name its variables by the way to them (`layer/kernel/.ATTRIBUTES/VARIABLE_VALUE`) and say in
//! their object graph what the variables themselves are called. Those names are given when each variable has one
//! of its own; else the ways, without their ending. [`Checkpoint::metadata`] says which under
//! `tensorflow.names`: `variables` or `object paths`.
//!
//! Constants have the names of their nodes, in a function behind the function's. Of a SavedModel the variables
//! are read where there are any, else the constants of its graph, of the one tagged `serve` where it has
//! several.
//!
//! # Data
//!
//! Tensors are as TensorFlow lays them out; [`Checkpoint::in_pytorch_layout`] turns them into PyTorch's. Partitioned
//! variables are put together. Checksums are held against the data when it is read. Texts, complex numbers and
//! what else Burn has no type for are listed and not read.

mod bundle;
mod graph;
mod slice;
mod table;
mod tensor;
mod v1;
mod write;

use std::path::{Path, PathBuf};

use bytes::Bytes;

use self::table::Table;
use crate::checkpoint::{Checkpoint, Format};
use crate::data::clip;
use crate::error::FormatError;
use crate::map::map_file;

pub(crate) use write::{WRITER, index_of};

pub(crate) const FORMAT: &str = "TensorFlow";
/// What the file that names the latest checkpoint begins with.
const LATEST: &str = "model_checkpoint_path:";
/// Where a SavedModel has its variables.
pub(crate) const VARIABLES: &str = "variables/variables.index";

/// The metadata that says which graph of a SavedModel the constants are of.
pub(crate) const TAGS: &str = "tensorflow.tags";

/// Opens a checkpoint by any of its files or its prefix, a SavedModel or a frozen graph.
///
/// # Errors
/// The file cannot be read, is truncated or corrupt, or a shard is missing.
pub fn open(path: &Path) -> Result<Checkpoint, FormatError> {
    let path = named(path);
    let map = map_file(&path)?;
    read(&path, &map).unwrap_or_else(|| {
        let reason = "it begins as no file of TensorFlow's does".to_owned();
        Err(malformed(&path, 0, reason))
    })
}

/// The file that stands for a checkpoint: its index for its prefix and for its shards, else the file itself.
pub(crate) fn named(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = match name.rsplit_once(".data-") {
        Some((stem, shard)) if is_shard(shard) => stem,
        _ if !path.exists() => &name,
        _ => return path.to_owned(),
    };
    let index = path.with_file_name(format!("{stem}{}", bundle::INDEX));
    if index.is_file() {
        index
    } else {
        path.to_owned()
    }
}

/// `00000-of-00001`
fn is_shard(text: &str) -> bool {
    let digits = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once("-of-")
        .is_some_and(|(number, count)| digits(number) && digits(count))
}

/// Reads a file if its content is of TensorFlow's.
pub(crate) fn read(path: &Path, map: &Bytes) -> Option<Result<Checkpoint, FormatError>> {
    Some(if table::is_table(map) {
        read_table(path, map)
    } else if map.starts_with(LATEST.as_bytes()) {
        latest(path, map)
    } else if graph::is_saved_model(map) {
        saved_model(path, map)
    } else if graph::is_graph(map) {
        graph::read_graph(path, map)
    } else {
        return None;
    })
}

fn read_table(path: &Path, map: &Bytes) -> Result<Checkpoint, FormatError> {
    let table = Table::new(map);
    if table
        .holds_slices()
        .map_err(|(at, reason)| malformed(path, at, reason))?
    {
        return v1::read(path, &table, map.len());
    }
    let mut checkpoint = bundle::read(path, &table, map.len())?;
    if path.ends_with(VARIABLES) {
        checkpoint.format = Format::SavedModel;
    }
    Ok(checkpoint)
}

/// Opens the checkpoint that a `checkpoint` file names first.
fn latest(path: &Path, map: &[u8]) -> Result<Checkpoint, FormatError> {
    let text = String::from_utf8_lossy(map);
    let quoted = text[LATEST.len()..]
        .trim_start()
        .strip_prefix('"')
        .and_then(|rest| rest.split('"').next());
    let name = quoted
        .and_then(|name| name.rsplit(['/', '\\']).next())
        .filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| malformed(path, 0, "it names no checkpoint".to_owned()))?;
    let target = named(&path.with_file_name(name));
    if !target.is_file() || target == path {
        return Err(FormatError::NoWeights {
            path: path.to_owned(),
            reason: format!(
                "it names the checkpoint `{}`, which is not beside it",
                clip(name)
            ),
        });
    }
    let map = map_file(&target)?;
    if !table::is_table(&map) {
        return Err(malformed(
            &target,
            map.len(),
            "it does not end as a checkpoint does; it is truncated".to_owned(),
        ));
    }
    read_table(&target, &map)
}

/// The variables beside a SavedModel, or the constants in it.
fn saved_model(path: &Path, map: &Bytes) -> Result<Checkpoint, FormatError> {
    let variables = path.with_file_name(VARIABLES);
    if variables.is_file() {
        let map = map_file(&variables)?;
        return read_table(&variables, &map);
    }
    graph::read_saved_model(path, map)
}

fn malformed(path: &Path, offset: usize, reason: String) -> FormatError {
    FormatError::Malformed {
        path: path.to_owned(),
        format: FORMAT,
        offset: Some(offset as u64),
        reason,
    }
}
