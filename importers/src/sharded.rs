//! Weights in several files under a `*.index.json`, of safetensors, of PyTorch or of HDF5.

use std::collections::BTreeMap;
use std::path::Path;

use indexmap::IndexMap;
use serde::Deserialize;

use crate::checkpoint::{Checkpoint, Entry, Format};
use crate::detect;
use crate::error::FormatError;
use crate::hdf5;

/// `model.safetensors.index.json`, `pytorch_model.bin.index.json`.
#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    metadata: BTreeMap<String, serde_json::Value>,
    weight_map: BTreeMap<String, String>,
}

/// Opens the files that an index names.
///
/// # Errors
/// The index is not valid JSON, names a shard that is absent or lies outside its directory, or a tensor
/// that its shard does not hold; or a shard cannot be read.
pub(crate) fn open(path: &Path) -> Result<Checkpoint, FormatError> {
    let malformed = |reason: String| FormatError::Malformed {
        path: path.to_owned(),
        format: "index",
        offset: None,
        reason,
    };
    let text = std::fs::read(path).map_err(FormatError::io(path))?;
    let index: Index =
        serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
    let directory = path.parent().unwrap_or(Path::new("."));

    let mut files = vec![path.to_owned()];
    let mut format = Format::ShardedSafetensors;
    let mut shards: BTreeMap<&str, IndexMap<String, Entry>> = BTreeMap::new();
    for (tensor, shard) in &index.weight_map {
        if shards.contains_key(&shard[..]) {
            continue;
        }
        // An index that names an index, perhaps itself, would not end.
        if Path::new(shard).file_name() != Some(shard.as_ref()) || shard.ends_with(".json") {
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
        let checkpoint = detect::open(&file)?;
        format = match checkpoint.format {
            Format::Safetensors => Format::ShardedSafetensors,
            Format::PyTorch => Format::ShardedPyTorch,
            Format::Hdf5 => Format::ShardedHdf5,
            other => {
                return Err(malformed(format!(
                    "`{shard}` is a {other} file; shards are safetensors, PyTorch or HDF5"
                )));
            }
        };
        shards.insert(shard, checkpoint.into_entries());
        files.push(file);
    }

    let mut entries = IndexMap::new();
    for (tensor, shard) in &index.weight_map {
        let found = shards.get_mut(&shard[..]);
        let (name, entry) = found
            .and_then(|entries| take(entries, tensor, format))
            .ok_or_else(|| {
                malformed(format!(
                    "says that `{shard}` holds `{tensor}`, but it does not"
                ))
            })?;
        entries.insert(name, entry);
    }
    // What the shards hold beyond the index is listed too, so that nothing is dropped unseen.
    for (name, entry) in shards.into_values().flatten() {
        entries.entry(name).or_insert(entry);
    }

    let metadata = index.metadata.into_iter().map(|(key, value)| match value {
        serde_json::Value::String(text) => (key, text),
        other => (key, other.to_string()),
    });
    Ok(Checkpoint::new(format, files, metadata.collect(), entries))
}

/// The tensor that an index names, under the name that it has in its shard.
fn take(
    entries: &mut IndexMap<String, Entry>,
    tensor: &str,
    format: Format,
) -> Option<(String, Entry)> {
    let mut names = vec![tensor];
    if format == Format::ShardedHdf5 {
        // transformers' index has the names of TensorFlow's tensors, under a scope that its shards lack.
        let own = hdf5::without_output(tensor);
        names = vec![own];
        names.extend(own.split_once('/').map(|(_, inner)| inner));
    }
    let name = names.into_iter().find(|name| entries.contains_key(*name))?;
    entries.shift_remove_entry(name)
}
