//! Weights in several files under a `*.index.json`, of safetensors, PyTorch, HDF5 or Flax, or under Keras'
//! `*.weights.json`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::checkpoint::{Checkpoint, Entry, Format};
use crate::error::FormatError;
use crate::write::{Draft, Job, Whole};
use crate::{detect, flax, hdf5};

/// What an index says of its own tensors.
pub(crate) const COUNTS: [&str; 2] = ["total_size", "total_parameters"];

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
    let index: Index = index(path)?;

    let mut files = vec![path.to_owned()];
    let mut format = Format::ShardedSafetensors;
    let mut shards: BTreeMap<&str, IndexMap<String, Entry>> = BTreeMap::new();
    for (tensor, shard) in &index.weight_map {
        if shards.contains_key(&shard[..]) {
            continue;
        }
        let file = shard_file(path, shard, tensor)?;
        let checkpoint = detect::one(&file)?;
        format = match checkpoint.format {
            Format::Safetensors => Format::ShardedSafetensors,
            Format::PyTorch => Format::ShardedPyTorch,
            Format::Flax => Format::ShardedFlax,
            Format::Hdf5 => Format::ShardedHdf5,
            other => {
                return Err(malformed(
                    path,
                    format!(
                        "`{shard}` is a {other} file; shards are safetensors, PyTorch, HDF5 or Flax"
                    ),
                ));
            }
        };
        shards.insert(shard, in_file(checkpoint.into_entries(), &file));
        files.push(file);
    }

    let mut entries = IndexMap::new();
    for (tensor, shard) in &index.weight_map {
        // Flax's indices have the path, with its collection.
        let tensor = &match format {
            Format::ShardedFlax => flax::dotted(tensor),
            _ => tensor.clone(),
        };
        let found = shards.get_mut(&shard[..]);
        let (name, entry) = found
            .and_then(|entries| take(entries, tensor, format))
            .ok_or_else(|| {
                malformed(
                    path,
                    format!("says that `{shard}` holds `{tensor}`, but it does not"),
                )
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

/// Tensors that know their file, of several.
pub(crate) fn in_file(
    mut entries: IndexMap<String, Entry>,
    file: &Path,
) -> IndexMap<String, Entry> {
    let file = Arc::from(file);
    for entry in entries.values_mut() {
        *entry = entry.clone().in_file(&file);
    }
    entries
}

fn malformed(path: &Path, reason: String) -> FormatError {
    FormatError::Malformed {
        path: path.to_owned(),
        format: "index",
        offset: None,
        reason,
    }
}

fn index<I: DeserializeOwned>(path: &Path) -> Result<I, FormatError> {
    let text = std::fs::read(path).map_err(FormatError::io(path))?;
    serde_json::from_slice(&text).map_err(|error| malformed(path, error.to_string()))
}

/// The file beside its index in which a tensor is said to be.
fn shard_file(path: &Path, shard: &str, tensor: &str) -> Result<PathBuf, FormatError> {
    // An index that names an index, perhaps itself, would not end.
    if Path::new(shard).file_name() != Some(shard.as_ref()) || shard.ends_with(".json") {
        let reason = format!("the shard name `{shard}` is not a plain file name");
        return Err(malformed(path, reason));
    }
    let file = path.with_file_name(shard);
    if !file.is_file() {
        return Err(FormatError::MissingShard {
            path: path.to_owned(),
            shard: shard.to_owned(),
            tensor: tensor.to_owned(),
        });
    }
    Ok(file)
}

/// What the name of an index of Keras' ends in.
pub(crate) const KERAS: &str = ".weights.json";
/// The state of a training, which the files' reader leaves out.
const OPTIMIZER: &str = "/optimizer/";

/// `model.weights.json`, which names the files of a layer's variables, not of each.
#[derive(Deserialize)]
struct KerasIndex {
    weight_map: BTreeMap<String, Shards>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Shards {
    One(String),
    Several(Vec<String>),
}

/// Opens the files that an index of Keras 3 names.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_keras(path: &Path) -> Result<Checkpoint, FormatError> {
    let index: KerasIndex = index(path)?;
    let mut files = vec![path.to_owned()];
    let mut metadata = BTreeMap::new();
    // By the group that they are in.
    let mut shards: IndexMap<String, HashMap<String, Vec<(String, Entry)>>> = IndexMap::new();
    let mut entries = IndexMap::new();
    for (group, named) in &index.weight_map {
        let named = match named {
            Shards::One(shard) => std::slice::from_ref(shard),
            Shards::Several(shards) => shards,
        };
        for shard in named {
            if !shards.contains_key(shard) {
                let file = shard_file(path, shard, group)?;
                let checkpoint = hdf5::open(&file)?;
                metadata.extend(checkpoint.metadata.clone());
                let mut groups: HashMap<String, Vec<(String, Entry)>> = HashMap::new();
                for (name, entry) in in_file(checkpoint.into_entries(), &file) {
                    let (group, _) = name.rsplit_once('/').unwrap_or_default();
                    let of_group = groups.entry(group.to_owned()).or_default();
                    of_group.push((name, entry));
                }
                shards.insert(shard.clone(), groups);
                files.push(file);
            }
            let found = shards
                .get_mut(shard)
                .and_then(|groups| groups.remove(group.trim_matches('/')));
            if found.is_none() && !group.starts_with(OPTIMIZER) {
                let reason = format!("says that `{shard}` holds `{group}`, but it does not");
                return Err(malformed(path, reason));
            }
            entries.extend(found.into_iter().flatten());
        }
    }
    // What the shards hold beyond the index is listed too, so that nothing is dropped unseen.
    let mut rest: Vec<_> = shards
        .into_values()
        .flat_map(HashMap::into_values)
        .flatten()
        .collect();
    rest.sort_by(|(first, _), (second, _)| first.cmp(second));
    for (name, entry) in rest {
        entries.entry(name).or_insert(entry);
    }
    Ok(Checkpoint::new(
        Format::ShardedHdf5,
        files,
        metadata,
        entries,
    ))
}

/// Writes one file, or where that would be larger than wished `STEM-00001-of-00003.ENDING` and so on under a
/// `STEM.ENDING.index.json`, as Hugging Face's libraries do: tensors in their order, as many as fit.
pub(crate) fn write(
    job: &Job<'_>,
    file: fn(&Job<'_>) -> Result<Whole, FormatError>,
) -> Result<Vec<PathBuf>, FormatError> {
    let shards = shards(job);
    let count = shards.len();
    if count == 1 {
        return Ok(vec![file(job)?.place()?]);
    }
    let stem = job.path.file_stem().unwrap_or_default().to_string_lossy();
    let ending = job.path.extension().unwrap_or_default().to_string_lossy();
    let mut weight_map = BTreeMap::new();
    let mut whole = Vec::new();
    for (at, tensors) in shards.iter().enumerate() {
        let name = format!("{stem}-{:05}-of-{count:05}.{ending}", at + 1);
        let path = job.path.with_file_name(&name);
        whole.push(file(&job.part(tensors, &path))?);
        for (tensor, _) in tensors {
            weight_map.insert(*tensor, name.clone());
        }
    }
    let total: usize = job.tensors.iter().map(|(_, entry)| entry.bytes).sum();
    let elements: usize = job.tensors.iter().map(|(_, entry)| entry.elements()).sum();
    let mut metadata = json!(job.metadata);
    metadata[COUNTS[0]] = json!(total);
    metadata[COUNTS[1]] = json!(elements);
    let index = json!({"metadata": metadata, "weight_map": weight_map});
    let index_path = job
        .path
        .with_file_name(format!("{stem}.{ending}.index.json"));
    let mut draft = Draft::create(&index_path)?;
    draft.write(format!("{index:#}\n").as_bytes())?;
    let index = draft.finish()?;
    // The index last: until it is there, the set is not.
    let mut files = Vec::new();
    for shard in whole {
        files.push(shard.place()?);
    }
    files.insert(0, index.place()?);
    Ok(files)
}

fn shards<'a>(job: &Job<'a>) -> Vec<Vec<(&'a str, &'a Entry)>> {
    let most = job.options.shard_size.unwrap_or(u64::MAX);
    let mut shards = vec![Vec::new()];
    let mut size: u64 = 0;
    for (name, entry) in &job.tensors {
        let bytes = entry.bytes as u64;
        if size > 0 && size.saturating_add(bytes) > most {
            shards.push(Vec::new());
            size = 0;
        }
        size = size.saturating_add(bytes);
        if let Some(shard) = shards.last_mut() {
            shard.push((*name, *entry));
        }
    }
    shards
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
