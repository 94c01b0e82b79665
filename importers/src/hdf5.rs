//! HDF5 files, as Keras and others keep weights in, and Keras' own archives.
//!
//! `hdf5-reader` parses the file; nothing outside of it is opened. Keras' three layouts are known:
//!
//! - Weights of Keras 1 and 2, alone or in a whole model: groups list their layers and weights in attributes, which
//!   give order and names (`dense/kernel`, without the `:0` of TensorFlow's tensors). When two layers have different weights
//!   of one name, the second's stands behind its layer's. The state of the optimizer is left out.
//! - Weights of Keras 3, alone (`.weights.h5`) or in an archive (`.keras`): numbered variables
//!   (`layers/dense/vars/0`). The state of the optimizer is left out likewise.
//! - Any other file: every dataset, under its path.
//!
//! [`Checkpoint::metadata`] has the texts of the root's attributes, `model_config` among them; of an archive the
//! texts of `config.json` and `metadata.json` under these names; and `keras.left_out` where that is so.
//!
//! Contiguous data stays in the mapped file. Types that Burn has no name for are listed and not read.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use bytes::Bytes;
use hdf5_reader::error::Error;
use hdf5_reader::group::Group;
use hdf5_reader::messages::HdfMessage;
use hdf5_reader::messages::layout::DataLayout;
use hdf5_reader::{Dataset, Datatype, Hdf5File, OpenOptions};
use indexmap::IndexMap;

use crate::checkpoint::{Checkpoint, Dtype, Entry, Format};
use crate::data::{self, VIEW_MARGIN, clip};
use crate::error::FormatError;
use crate::map::map_file;
use crate::zip::{self, Archive, INFLATED_MARGIN};

pub(crate) const MAGIC: &[u8; 8] = b"\x89HDF\r\n\x1a\n";
const FORMAT: &str = "HDF5";
/// Where the weights are in an archive.
const WEIGHTS: &str = "model.weights.h5";
const DEEPEST: usize = 64;

/// Opens an HDF5 file or a Keras archive.
///
/// # Errors
/// The file cannot be read, is truncated or corrupt, or uses what `hdf5-reader` does not know.
pub fn open(path: &Path) -> Result<Checkpoint, FormatError> {
    let map = map_file(path)?;
    if zip::is_zip(&map) {
        archive(path, &Archive::open(path, FORMAT, &map)?)
    } else {
        read(path, map)
    }
}

pub(crate) fn is_keras(archive: &Archive) -> bool {
    archive.members.contains_key(WEIGHTS)
}

/// Reads the weights in a Keras archive.
pub(crate) fn archive(path: &Path, archive: &Archive) -> Result<Checkpoint, FormatError> {
    let Some(member) = archive.members.get(WEIGHTS) else {
        return Err(malformed(path, format!("the archive has no `{WEIGHTS}`")));
    };
    let mut checkpoint = read(path, archive.checked_bytes(WEIGHTS, member)?)?;
    checkpoint.format = Format::Keras;
    for name in ["config.json", "metadata.json"] {
        if let Some(member) = archive.members.get(name) {
            let text = archive.checked_bytes(name, member)?;
            let text = String::from_utf8_lossy(&text).into_owned();
            checkpoint.metadata.insert(name.to_owned(), text);
        }
    }
    Ok(checkpoint)
}

pub(crate) fn read(path: &Path, map: Bytes) -> Result<Checkpoint, FormatError> {
    let most = map.len().saturating_add(INFLATED_MARGIN);
    let options = OpenOptions::default()
        .with_chunk_cache_bytes(0)
        .with_max_chunk_bytes(most)
        .with_max_read_bytes(most);
    let refuse = |error: Error| malformed(path, error.to_string());
    let file = Hdf5File::from_owner(map.clone(), options).map_err(refuse)?;
    let mut walk = Walk {
        path,
        text: map.len() as u64 + VIEW_MARGIN,
        map,
        file,
        groups: HashSet::new(),
        entries: IndexMap::new(),
    };
    let root = walk.file.root_group().map_err(refuse)?;
    let mut metadata = walk.metadata(&root)?;
    let whole = root.group("model_weights").ok();
    let weights = whole.as_ref().unwrap_or(&root);
    let mut left_out = Vec::new();
    if let Some(layers) = walk.texts(weights, "layer_names")? {
        walk.layers(weights, layers)?;
        if whole.is_some() && root.group("optimizer_weights").is_ok() {
            left_out.push("optimizer_weights");
        }
    } else {
        // What has numbered variables and an optimizer beside its layers is of Keras 3.
        let optimizer = root
            .group("optimizer")
            .and_then(|group| group.group("vars"))
            .is_ok();
        let skip = if optimizer { "optimizer" } else { "" };
        if optimizer {
            left_out.push(skip);
        }
        walk.group(&root, "", skip, 0)?;
    }
    if !left_out.is_empty() {
        metadata.insert("keras.left_out".to_owned(), left_out.join(", "));
    }
    Ok(Checkpoint::new(
        Format::Hdf5,
        vec![path.to_owned()],
        metadata,
        walk.entries,
    ))
}

fn malformed(path: &Path, reason: String) -> FormatError {
    FormatError::Malformed {
        path: path.to_owned(),
        format: FORMAT,
        offset: None,
        reason,
    }
}

/// A file, as far as it has been walked.
struct Walk<'a> {
    path: &'a Path,
    map: Bytes,
    file: Hdf5File,
    /// What names and attributes may still take: one text may be referred to again and again.
    text: u64,
    /// The groups that have been entered; links may lead back to them.
    groups: HashSet<u64>,
    entries: IndexMap<String, Entry>,
}

impl Walk<'_> {
    fn refuse(&self, place: &str, error: &Error) -> FormatError {
        malformed(self.path, format!("`{}`: {error}", clip(place)))
    }

    fn spend(&mut self, bytes: u64) -> Result<(), FormatError> {
        let rest = self.text.checked_sub(bytes);
        self.text = rest.ok_or_else(|| {
            malformed(
                self.path,
                "its texts are larger than the file allows".to_owned(),
            )
        })?;
        Ok(())
    }

    /// The texts among the attributes of the root.
    fn metadata(&mut self, root: &Group) -> Result<BTreeMap<String, String>, FormatError> {
        self.affordable(root)?;
        let attributes = root
            .attributes()
            .map_err(|error| self.refuse("/", &error))?;
        let texts = attributes.into_iter().filter_map(|attribute| {
            let text = attribute.read_string().ok()?;
            Some((attribute.name, text))
        });
        Ok(texts.collect())
    }

    /// Counts what the attributes of a group refer to before any of it is copied.
    fn affordable(&mut self, group: &Group) -> Result<(), FormatError> {
        let refuse =
            |error: Error| malformed(self.path, format!("`{}`: {error}", clip(group.name())));
        let attributes = group.raw_attributes().map_err(refuse)?;
        let reference = 4 + usize::from(group.offset_size()) + 4;
        let mut bytes = 0;
        for attribute in &attributes {
            let message = attribute.message();
            bytes += message.raw_data.len() as u64;
            if matches!(
                message.datatype,
                Datatype::VarLen { .. } | Datatype::String { .. }
            ) {
                let lengths = message.raw_data.chunks_exact(reference);
                let lengths = lengths.filter_map(|reference| reference.first_chunk());
                bytes += lengths
                    .map(|length| u64::from(u32::from_le_bytes(*length)))
                    .sum::<u64>();
            }
        }
        self.spend(bytes)
    }

    /// An attribute that is a list of texts; Keras spreads a long one over several, with a number behind the name.
    fn texts(&mut self, group: &Group, name: &str) -> Result<Option<Vec<String>>, FormatError> {
        self.affordable(group)?;
        let attributes = group
            .attributes()
            .map_err(|error| self.refuse(group.name(), &error))?;
        let find = |name: &str| attributes.iter().find(|attribute| attribute.name == name);
        let numbered = (0..).map_while(|number| find(&format!("{name}{number}")));
        let found: Vec<_> = find(name).into_iter().chain(numbered).collect();
        if found.is_empty() {
            return Ok(None);
        }
        let mut texts = Vec::new();
        for attribute in found {
            // An empty list has no type of its own: NumPy makes it one of floats.
            if attribute.num_elements().is_ok_and(|count| count == 0) {
                continue;
            }
            texts.extend(
                attribute
                    .read_strings()
                    .map_err(|error| self.refuse(&attribute.name, &error))?,
            );
        }
        Ok(Some(texts))
    }

    /// The weights that layers list.
    fn layers(&mut self, weights: &Group, layers: Vec<String>) -> Result<(), FormatError> {
        // What belongs to no layer is in a group that is not listed.
        let top = "top_level_model_weights".to_owned();
        let unlisted = !layers.contains(&top) && weights.group(&top).is_ok();
        for layer in layers.into_iter().chain(unlisted.then_some(top)) {
            let (parent, name) = layer.rsplit_once('/').unwrap_or(("", &layer));
            // The shards that transformers writes list their weights as if they were layers.
            let listed = descend(weights, parent).and_then(|group| group.dataset(name));
            if let Ok(dataset) = listed {
                self.dataset(without_output(&layer).to_owned(), dataset)?;
                continue;
            }
            let group = descend(weights, &layer).map_err(|error| self.refuse(&layer, &error))?;
            for weight in self.texts(&group, "weight_names")?.unwrap_or_default() {
                let (parent, name) = weight.rsplit_once('/').unwrap_or(("", &weight));
                let dataset = descend(&group, parent).and_then(|group| group.dataset(name));
                let dataset =
                    dataset.map_err(|error| self.refuse(&format!("{layer}/{weight}"), &error))?;
                let own = without_output(&weight);
                if !self.entries.contains_key(own) {
                    self.dataset(own.to_owned(), dataset)?;
                    continue;
                }
                // A variable that layers share is stored with each of them.
                let name = format!("{layer}/{own}");
                self.dataset(name.clone(), dataset)?;
                if self.same(own, &name)? {
                    self.entries.shift_remove(&name);
                }
            }
        }
        Ok(())
    }

    /// Whether two tensors are one.
    fn same(&self, first: &str, second: &str) -> Result<bool, FormatError> {
        let (Some(first), Some(second)) = (self.entries.get(first), self.entries.get(second))
        else {
            return Ok(false);
        };
        let alike = first.dtype == second.dtype && first.shape == second.shape;
        Ok(alike
            && first.dtype.to_burn().is_some()
            && first.read()?.as_bytes() == second.read()?.as_bytes())
    }

    /// All datasets in a group, but for its member `skip`.
    fn group(
        &mut self,
        group: &Group,
        path: &str,
        skip: &str,
        depth: usize,
    ) -> Result<(), FormatError> {
        if !self.groups.insert(group.address()) {
            return Ok(());
        }
        if depth > DEEPEST {
            return Err(malformed(
                self.path,
                format!("its groups are nested more than {DEEPEST} deep"),
            ));
        }
        let (groups, datasets) = group.members().map_err(|error| self.refuse(path, &error))?;
        let mut datasets: Vec<_> = datasets
            .into_iter()
            .map(|dataset| (dataset.name().to_owned(), dataset))
            .collect();
        // Variables are numbered, so that 10 comes after 9.
        datasets.sort_by_cached_key(|(name, _)| {
            (name.parse::<u32>().unwrap_or(u32::MAX), name.clone())
        });
        for (name, dataset) in datasets {
            let name = name.rsplit('/').next().unwrap_or_default();
            self.dataset(format!("{path}{name}"), dataset)?;
        }
        for inner in groups {
            let name = inner
                .name()
                .rsplit('/')
                .next()
                .unwrap_or_default()
                .to_owned();
            if name != skip || skip.is_empty() {
                self.spend(path.len() as u64)?;
                self.group(&inner, &format!("{path}{name}/"), "", depth + 1)?;
            }
        }
        Ok(())
    }

    fn dataset(&mut self, name: String, dataset: Dataset) -> Result<(), FormatError> {
        self.spend(name.len() as u64)?;
        let refuse = |reason: String| FormatError::Tensor {
            path: self.path.to_owned(),
            tensor: clip(&name),
            offset: None,
            reason,
        };
        let wrong = |error: Error| refuse(error.to_string());
        let shape = dataset.shape().to_vec();
        let elements = data::elements(&shape);
        let elements = elements
            .ok_or_else(|| refuse(format!("its shape {shape:?} is larger than any file")))?;
        let (dtype, size, swapped) = dtype(&dataset).map_err(wrong)?;
        let bytes = elements
            .checked_mul(size as u64)
            .and_then(|bytes| usize::try_from(bytes).ok());
        let bytes =
            bytes.ok_or_else(|| refuse(format!("its shape {shape:?} is larger than any file")))?;
        let stored = if swapped {
            None
        } else {
            self.contiguous(&dataset, bytes).map_err(wrong)?
        };
        let reader = Reader {
            path: self.path.to_owned(),
            name: name.clone(),
            dtype: dtype.clone(),
            shape: shape.iter().map(|size| *size as usize).collect(),
            bytes,
            stored,
            dataset,
        };
        let entry = Entry::new(dtype, reader.shape.clone(), bytes, move || reader.read());
        if self.entries.contains_key(&name) {
            return Err(refuse("it is there twice".to_owned()));
        }
        self.entries.insert(name, entry);
        Ok(())
    }

    /// The data where it lies in the file in one piece.
    fn contiguous(&self, dataset: &Dataset, bytes: usize) -> Result<Option<Bytes>, Error> {
        let header = self.file.get_or_parse_header(dataset.address())?;
        let layout = header.messages.iter().find_map(|message| match message {
            HdfMessage::DataLayout(message) => Some(&message.layout),
            _ => None,
        });
        // Addresses count from the superblock, which a user block would move.
        let Some(DataLayout::Contiguous { address, size }) =
            layout.filter(|_| self.map.starts_with(MAGIC))
        else {
            return Ok(None);
        };
        let from = usize::try_from(*address)
            .ok()
            .filter(|_| *size == bytes as u64);
        let range = from.and_then(|from| Some(from..from.checked_add(bytes)?));
        // Data that was never written has no place; the library fills it in.
        Ok(range
            .filter(|range| range.end <= self.map.len())
            .map(|range| self.map.slice(range)))
    }
}

/// The group at the end of a path.
fn descend(group: &Group, path: &str) -> Result<Group, Error> {
    let steps = path.split('/').filter(|step| !step.is_empty());
    steps
        .take(DEEPEST)
        .try_fold(group.clone(), |group, step| group.group(step))
}

/// A variable's name without the `:0` that TensorFlow puts behind the first output of an operation.
pub(crate) fn without_output(name: &str) -> &str {
    name.strip_suffix(":0").unwrap_or(name)
}

/// The type of a dataset, the size of an element, and whether the bytes are turned around.
fn dtype(dataset: &Dataset) -> Result<(Dtype, usize, bool), Error> {
    let size = dataset.raw_element_size()?;
    let other = |name: &str| (Dtype::Other(name.to_owned()), size, false);
    let swapped = |order| order == hdf5_reader::ByteOrder::BigEndian;
    Ok(match dataset.dtype() {
        Datatype::FixedPoint {
            size: width,
            signed,
            byte_order,
        } => {
            let dtype = match (width, signed) {
                (1, true) => Dtype::I8,
                (2, true) => Dtype::I16,
                (4, true) => Dtype::I32,
                (8, true) => Dtype::I64,
                (1, false) => Dtype::U8,
                (2, false) => Dtype::U16,
                (4, false) => Dtype::U32,
                (8, false) => Dtype::U64,
                _ => return Ok(other(&format!("integer of {width} bytes"))),
            };
            (dtype, size, *width > 1 && swapped(*byte_order))
        }
        Datatype::FloatingPoint {
            size: width,
            byte_order,
        } => {
            // Version and class, flags, size; offset, precision; place and size of exponent and mantissa.
            let raw = dataset.raw_datatype()?;
            let dtype = match (width, raw.get(13), raw.get(15)) {
                (2, Some(5), Some(10)) => Dtype::F16,
                (2, Some(8), Some(7)) => Dtype::BF16,
                (4, Some(8), Some(23)) => Dtype::F32,
                (8, Some(11), Some(52)) => Dtype::F64,
                _ => return Ok(other(&format!("float of {width} bytes"))),
            };
            (dtype, size, swapped(*byte_order))
        }
        // h5py has booleans so.
        Datatype::Enum { members, .. } if size == 1 => {
            let mut names: Vec<&str> = members.iter().map(|member| &member.name[..]).collect();
            names.sort_unstable();
            match names[..] {
                ["FALSE", "TRUE"] => (Dtype::Bool, size, false),
                _ => other("enumeration"),
            }
        }
        Datatype::Enum { .. } => other("enumeration"),
        Datatype::String { .. } => other("string"),
        Datatype::VarLen { .. } => other("variable length"),
        Datatype::Compound { .. } => other("compound"),
        Datatype::Opaque { .. } => other("opaque"),
        Datatype::Array { .. } => other("array"),
        _ => other("unknown"),
    })
}

/// One dataset.
struct Reader {
    path: PathBuf,
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: usize,
    stored: Option<Bytes>,
    dataset: Dataset,
}

impl Reader {
    fn read(&self) -> Result<TensorData, FormatError> {
        let refuse = |reason: String| FormatError::Tensor {
            path: self.path.clone(),
            tensor: clip(&self.name),
            offset: None,
            reason,
        };
        if self.dtype.to_burn().is_none() {
            return Err(refuse(format!("the type `{}` cannot be read", self.dtype)));
        }
        let bytes = match &self.stored {
            Some(bytes) => bytes.clone(),
            None => {
                let bytes = self.dataset.read_native_bytes();
                let bytes = bytes.map_err(|error| refuse(error.to_string()))?;
                Bytes::from(bytes)
            }
        };
        if bytes.len() != self.bytes {
            return Err(refuse(format!(
                "it has {} bytes, not {}",
                bytes.len(),
                self.bytes
            )));
        }
        data::typed(bytes, &self.shape, &self.dtype).map_err(refuse)
    }
}
