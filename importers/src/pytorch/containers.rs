//! The three containers: where each has its pickle and its storages.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use indexmap::IndexMap;

use super::FORMAT;
use super::derived;
use super::flatten::{Flat, Named, flatten};
use super::globals::{Element, Global};
use super::pickle::{Leaf, Node, Persistent, Pickle, Refusal, Storage, Tensor, Value};
use crate::checkpoint::{Checkpoint, Dtype, Entry, Format};
use crate::data::{self, clip};
use crate::error::FormatError;
use crate::numpy;
use crate::zip::{Archive, Member};

/// The number that the legacy container begins with, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const LEGACY_PROTOCOL: i64 = 1001;
/// Texts that the writer keeps beside the tensors, as TorchScript keeps extra files; PyTorch passes over them.
pub(super) const METADATA: &str = "extra/metadata.json";

/// A file that is being read.
struct File<'a> {
    path: &'a Path,
    map: &'a Bytes,
}

/// The bytes of a storage.
#[derive(Clone)]
enum Source {
    /// In the map, from that byte on.
    Mapped(Bytes, usize),
    /// A deflated member, which only archives that were packed again have.
    Deflated(Arc<Archive>, String, Member),
}

impl Source {
    fn length(&self) -> u64 {
        match self {
            Source::Mapped(bytes, _) => bytes.len() as u64,
            Source::Deflated(_, _, member) => member.size as u64,
        }
    }

    fn offset(&self) -> usize {
        match self {
            Source::Mapped(_, offset) => *offset,
            Source::Deflated(_, _, member) => member.offset,
        }
    }
}

impl File<'_> {
    fn malformed(&self, offset: usize, reason: impl Into<String>) -> FormatError {
        FormatError::Malformed {
            path: self.path.to_owned(),
            format: FORMAT,
            offset: Some(offset as u64),
            reason: reason.into(),
        }
    }

    /// The pickle at a place of the file.
    fn pickle(&self, at: usize, persistent: &Persistent<'_>) -> Result<Pickle, FormatError> {
        let bytes = self.map.slice(at.min(self.map.len())..);
        Pickle::read(&bytes, persistent).map_err(self.refusal(at))
    }

    fn refusal(&self, begin: usize) -> impl Fn(Refusal) -> FormatError + '_ {
        move |(at, reason)| self.malformed(begin + at, reason)
    }

    /// Makes the checkpoint. `begin` is where the pickle lies, for errors.
    fn checkpoint(
        &self,
        format: Format,
        container: &str,
        flats: Vec<(Flat, usize, &HashMap<String, Source>)>,
        big_endian: bool,
    ) -> Result<Checkpoint, FormatError> {
        let mut entries = IndexMap::new();
        let mut metadata = BTreeMap::new();
        for (flat, begin, sources) in flats {
            metadata.extend(flat.metadata);
            if !flat.warnings.is_empty() {
                tracing::warn!(
                    "{}: left unread: {}",
                    self.path.display(),
                    flat.warnings.join(", ")
                );
            }
            for (name, named) in flat.tensors {
                let place = Place {
                    begin,
                    sources,
                    big_endian,
                };
                let entry = self.leaf(&name, &named, &place)?;
                if entries.insert(name.clone(), entry).is_some() {
                    let reason = format!("two tensors have the name `{}`", clip(&name));
                    return Err(self.malformed(begin, reason));
                }
            }
        }
        metadata.insert("pytorch.container".to_owned(), container.to_owned());
        Ok(Checkpoint::new(
            format,
            vec![self.path.to_owned()],
            metadata,
            entries,
        ))
    }

    /// The entry of whatever a name stands for.
    fn leaf(&self, name: &str, named: &Named, place: &Place<'_>) -> Result<Entry, FormatError> {
        let at = (place.begin + named.leaf.at()) as u64;
        let (path, tensor) = (self.path.to_owned(), clip(name));
        let refuse = move |reason: String| FormatError::Tensor {
            path: path.clone(),
            tensor: tensor.clone(),
            offset: Some(at),
            reason,
        };
        let expanded =
            |bytes: u64| bytes <= (self.map.len() as u64).saturating_add(data::VIEW_MARGIN);
        let (kind, shape, reason) = match &*named.leaf {
            Leaf::Strided(tensor) => {
                let (reader, bytes) = self.reader(name, tensor, place)?;
                let reader = Arc::new(reader);
                let stored = reader.clone();
                let (dtype, shape) = (reader.dtype.clone(), reader.shape.clone());
                if matches!(dtype, Dtype::Quantized(_)) {
                    let reason =
                        "its scale is not known, without which quantized integers are no numbers";
                    (dtype.to_string(), tensor.shape.clone(), reason.to_owned())
                } else {
                    let entry = Entry::new(dtype, shape, bytes, move || reader.read());
                    return Ok(entry.with_stored(move || Ok(data::shared(stored.bytes()?))));
                }
            }
            Leaf::Array(array) => {
                let begin = self.map.as_ptr() as usize;
                let offset = (array.bytes.as_ptr() as usize)
                    .checked_sub(begin)
                    .filter(|offset| *offset < self.map.len());
                let entry = numpy::array(
                    self.path,
                    name,
                    (array.dtype.clone(), array.size, array.big_endian),
                    (&array.shape, array.fortran),
                    array.bytes.clone(),
                    offset.unwrap_or(place.begin + array.at),
                );
                let entry = entry.map_err(&refuse)?;
                return Ok(entry.with_generated(named.is_number));
            }
            Leaf::Sparse(sparse) => {
                let mut indices = Vec::new();
                for tensor in &sparse.indices {
                    indices.push(self.reader(name, tensor, place)?.0);
                }
                let (values, _) = self.reader(name, &sparse.values, place)?;
                let element = sparse.values.element;
                let elements = data::elements(&sparse.shape);
                let bytes = elements.and_then(|count| count.checked_mul(element.size() as u64));
                match bytes.filter(|bytes| expanded(*bytes)) {
                    None => (
                        format!("sparse {}", element.dtype()),
                        sparse.shape.clone(),
                        format!(
                            "it is sparse, and dense its shape {:?} would be far larger than the file; save it by `.to_dense()`",
                            sparse.shape
                        ),
                    ),
                    Some(bytes) => {
                        let dense =
                            derived::Dense::new(sparse, indices, values).map_err(&refuse)?;
                        let dense = Arc::new(dense);
                        let stored = dense.clone();
                        let shape = dense.shape.clone();
                        let again = refuse.clone();
                        let entry = Entry::new(element.dtype(), shape, bytes as usize, move || {
                            dense.read().map_err(|error| error.or(&refuse))
                        });
                        return Ok(entry.with_stored(move || {
                            let bytes = stored.bytes().map_err(|error| error.or(&again))?;
                            Ok(data::shared(bytes))
                        }));
                    }
                }
            }
            Leaf::Quantized(quantized) if quantized.tensor.element.is_packed() => (
                quantized.tensor.element.dtype().to_string(),
                quantized.tensor.shape.clone(),
                format!(
                    "its type {} packs several numbers into a byte; save it by `.dequantize()`",
                    quantized.tensor.element.dtype()
                ),
            ),
            Leaf::Quantized(quantized) => {
                let (values, bytes) = self.reader(name, &quantized.tensor, place)?;
                let element = quantized.tensor.element;
                let channels = match &quantized.scale {
                    super::pickle::Scale::Tensor { .. } => None,
                    super::pickle::Scale::Channels {
                        scales,
                        zero_points,
                        ..
                    } => Some((
                        self.reader(name, scales, place)?.0,
                        self.reader(name, zero_points, place)?.0,
                    )),
                };
                let floats = derived::Floats::new(quantized, values, channels).map_err(&refuse)?;
                let shape = floats.shape.clone();
                return Ok(Entry::new(element.dtype(), shape, bytes, move || {
                    floats.read().map_err(|error| error.or(&refuse))
                }));
            }
            Leaf::Refused(refused) => (
                refused.kind.clone(),
                refused.shape.clone(),
                refused.reason.clone(),
            ),
        };
        let sizes: Option<Vec<usize>> = data::elements(&shape).and_then(|_| {
            shape
                .iter()
                .map(|size| usize::try_from(*size).ok())
                .collect()
        });
        let sizes = sizes.unwrap_or_default();
        Ok(Entry::new(Dtype::Other(kind), sizes, 0, move || {
            Err(refuse(reason.clone()))
        }))
    }

    fn reader(
        &self,
        name: &str,
        tensor: &Tensor,
        place: &Place<'_>,
    ) -> Result<(Reader, usize), FormatError> {
        let &Place {
            begin,
            sources,
            big_endian,
        } = place;
        let refuse = |reason: String| FormatError::Tensor {
            path: self.path.to_owned(),
            tensor: clip(name),
            offset: Some((begin + tensor.at) as u64),
            reason,
        };
        let Storage {
            key,
            element,
            length,
            offset,
        } = &tensor.storage;
        let source = sources.get(&key[..]);
        let source = source.ok_or_else(|| {
            refuse(format!(
                "its storage `{}` is not in the file; fetch it again",
                clip(key)
            ))
        })?;
        let size = tensor.element.size() as u64;
        let unit = element.map_or(1, |element| element.size() as u64);
        let outside = || {
            refuse(format!(
                "its shape {:?} with strides {:?} and offset {} reaches beyond its storage `{}` of {length} elements \
                 in {} bytes; fetch or export the file again",
                tensor.shape,
                tensor.strides,
                tensor.offset,
                clip(key),
                source.length(),
            ))
        };
        let first = offset.checked_mul(unit).ok_or_else(outside)?;
        let room = length.checked_mul(unit).ok_or_else(outside)?;
        if first
            .checked_add(room)
            .is_none_or(|end| end > source.length())
        {
            return Err(outside());
        }
        let elements = data::elements(&tensor.shape).ok_or_else(outside)?;
        let span = span(tensor, elements).and_then(|span| span.checked_mul(size));
        let from = tensor.offset.checked_mul(size).ok_or_else(outside)?;
        let span = span
            .filter(|span| elements == 0 || from.checked_add(*span).is_some_and(|end| end <= room));
        let span = span.ok_or_else(outside)?;
        let bytes = elements.checked_mul(size).ok_or_else(outside)?;
        if bytes > (self.map.len() as u64).saturating_add(data::VIEW_MARGIN) {
            return Err(refuse(format!(
                "its strides {:?} expand a file of {} bytes to {bytes}; save it contiguous",
                tensor.strides,
                self.map.len()
            )));
        }
        // All of these are below the length of the map, or the shape is of nothing.
        let begin = if elements == 0 {
            0
        } else {
            (first + from) as usize
        };
        let shape: Option<Vec<usize>> = tensor
            .shape
            .iter()
            .map(|size| usize::try_from(*size).ok())
            .collect();
        let reader = Reader {
            path: self.path.to_owned(),
            name: name.to_owned(),
            offset: (source.offset() + begin) as u64,
            dtype: tensor.element.dtype(),
            element: tensor.element,
            negated: tensor.negated,
            conjugated: tensor.conjugated,
            shape: shape.ok_or_else(outside)?,
            view: (!data::is_contiguous(&tensor.shape, &tensor.strides) && elements > 0)
                .then(|| (tensor.shape.clone(), tensor.strides.clone(), size as usize)),
            swap: if big_endian { tensor.element.word() } else { 1 },
            begin,
            end: begin + if elements == 0 { 0 } else { span as usize },
            source: source.clone(),
        };
        Ok((reader, bytes as usize))
    }
}

/// What all tensors of one pickle share: where it begins, its storages, and the byte order of those.
struct Place<'a> {
    begin: usize,
    sources: &'a HashMap<String, Source>,
    big_endian: bool,
}

/// From the first element of a view to behind its last one.
fn span(tensor: &Tensor, elements: u64) -> Option<u64> {
    if elements == 0 {
        return Some(0);
    }
    let mut last: u64 = 0;
    for (size, stride) in tensor.shape.iter().zip(&tensor.strides) {
        last = last.checked_add((size - 1).checked_mul(*stride)?)?;
    }
    last.checked_add(1)
}

/// One tensor: where its bytes are, and what must happen to them.
pub(super) struct Reader {
    path: PathBuf,
    name: String,
    offset: u64,
    pub(super) dtype: Dtype,
    pub(super) element: Element,
    pub(super) shape: Vec<usize>,
    negated: bool,
    conjugated: bool,
    /// Shape, strides and element size of what is not contiguous.
    view: Option<(Vec<u64>, Vec<u64>, usize)>,
    /// The size of the words to be turned around; one for none.
    swap: usize,
    begin: usize,
    end: usize,
    source: Source,
}

impl Reader {
    fn read(&self) -> Result<burn::tensor::TensorData, FormatError> {
        let refuse = |reason: String| FormatError::Tensor {
            path: self.path.clone(),
            tensor: clip(&self.name),
            offset: Some(self.offset),
            reason,
        };
        if self.dtype.to_burn().is_none() {
            return Err(refuse(format!(
                "the type {} cannot be read; convert it to float32 first",
                self.dtype
            )));
        }
        data::typed(self.bytes()?, &self.shape, &self.dtype).map_err(refuse)
    }

    /// The elements, little-endian and in row-major order.
    pub(super) fn bytes(&self) -> Result<Bytes, FormatError> {
        let storage = match &self.source {
            Source::Mapped(bytes, _) => bytes.clone(),
            // A storage may be large and its checksum wrong: `torch.save` can be told not to compute any.
            Source::Deflated(archive, name, member) => archive.bytes(name, member)?,
        };
        let mut bytes = storage.slice(self.begin..self.end);
        if let Some((shape, strides, size)) = &self.view {
            bytes = data::gather(&bytes, *size, shape, strides).into();
        }
        if self.swap > 1 {
            bytes = data::swapped(&bytes, self.swap).into();
        }
        if self.negated || self.conjugated {
            let mut signed = bytes.to_vec();
            derived::change_signs(&mut signed, self.element, self.negated, self.conjugated);
            bytes = signed.into();
        }
        Ok(bytes)
    }
}

/// The archive of `torch.save` since 1.6, and of TorchScript: `NAME/data.pkl` and `NAME/data/KEY`.
pub(crate) fn zip(path: &Path, map: &Bytes, archive: Archive) -> Result<Checkpoint, FormatError> {
    let file = File { path, map };
    let archive = Arc::new(archive);
    let mut roots = archive.members.keys().filter_map(|name| {
        let root = name.strip_suffix("data.pkl")?;
        (root.is_empty() || root.ends_with('/') && root.find('/') == Some(root.len() - 1))
            .then_some(root)
    });
    let root = roots.next().ok_or_else(|| {
        let is_exported = |name: &String| name.rsplit('/').next() == Some("archive_format");
        if archive.members.keys().any(is_exported) {
            let reason = "this is a program of torch.export (`.pt2`), whose weights are not read; save them with \
                          `torch.save(torch.export.load(FILE).state_dict, \"weights.pt\")`";
            return file.malformed(0, reason);
        }
        let names: Vec<String> = archive
            .members
            .keys()
            .take(8)
            .map(|name| clip(name))
            .collect();
        file.malformed(
            0,
            format!(
                "the zip archive has no `data.pkl`, only {}",
                names.join(", ")
            ),
        )
    })?;
    if let Some(second) = roots.next() {
        let reason = format!(
            "it has both `{}data.pkl` and `{}data.pkl`",
            clip(root),
            clip(second)
        );
        return Err(file.malformed(0, reason));
    }
    let big_endian = match archive.members.get(&format!("{root}byteorder")) {
        None => false,
        Some(member) => match &archive.bytes("byteorder", member)?[..] {
            b"little" => false,
            b"big" => true,
            other => {
                let reason = format!(
                    "its byte order is `{}`",
                    clip(&String::from_utf8_lossy(other))
                );
                return Err(file.malformed(member.offset, reason));
            }
        },
    };
    let script = archive
        .members
        .contains_key(&format!("{root}constants.pkl"));

    let mut read = Vec::new();
    for (pickle, folder, prefix) in [
        ("data.pkl", "data/", ""),
        ("constants.pkl", "constants/", "constants"),
    ] {
        let name = format!("{root}{pickle}");
        let Some(member) = archive.members.get(&name) else {
            continue;
        };
        // Checksums are not looked at: `torch.serialization.set_crc32_options(False)` writes wrong ones,
        // and no value here is trusted for having a right one.
        let bytes = archive.bytes(&name, member)?;
        let begin = member.offset;
        let refusal = |(at, reason): Refusal| {
            if member.is_stored() {
                file.malformed(begin + at, reason)
            } else {
                file.malformed(
                    begin,
                    format!("{reason} (byte {at} of the inflated `{}`)", clip(&name)),
                )
            }
        };
        let values = Pickle::read(&bytes, &Persistent::Storages).map_err(refusal)?;
        let flat = flatten(&values, prefix).map_err(refusal)?;
        let folder = format!("{root}{folder}");
        let mut sources = HashMap::new();
        for (name, member) in &archive.members {
            if let Some(key) = name.strip_prefix(&folder) {
                let source = if member.is_stored() {
                    Source::Mapped(member.raw.clone(), member.offset)
                } else {
                    Source::Deflated(archive.clone(), name.clone(), member.clone())
                };
                sources.insert(key.to_owned(), source);
            }
        }
        add_embedded(&mut sources, map, &values);
        let begin = if member.is_stored() { begin } else { 0 };
        read.push((flat, begin, sources));
    }
    let format = if script {
        Format::TorchScript
    } else {
        Format::PyTorch
    };
    let flats = read
        .iter_mut()
        .map(|(flat, begin, sources)| (std::mem::take(flat), *begin, &*sources));
    let mut checkpoint = file.checkpoint(format, "zip", flats.collect(), big_endian)?;
    let name = format!("{root}{METADATA}");
    if let Some(member) = archive.members.get(&name) {
        let texts: BTreeMap<String, String> =
            serde_json::from_slice(&archive.bytes(&name, member)?).map_err(|error| {
                file.malformed(member.offset, format!("`{}`: {error}", clip(&name)))
            })?;
        checkpoint.metadata.extend(texts);
    }
    Ok(checkpoint)
}

/// What `torch.save` wrote before 1.6: five pickles, then each storage behind its number of elements.
///
/// Its numbers are little-endian on every machine; `sys_info` only says what wrote them.
pub(super) fn legacy(path: &Path, map: &Bytes) -> Result<Checkpoint, FormatError> {
    let file = File { path, map };
    let none = Persistent::Refused;
    let magic = file.pickle(0, &none)?;
    if !matches!(magic.node(&magic.root), Some(Node::Long(number)) if number[..] == MAGIC) {
        return plain(&file, &magic);
    }
    let mut at = magic.length;
    let protocol = file.pickle(at, &none)?;
    if !matches!(protocol.root, Value::Int(LEGACY_PROTOCOL)) {
        return Err(file.malformed(at, format!("its protocol is not {LEGACY_PROTOCOL}")));
    }
    at += protocol.length;
    at += file.pickle(at, &none)?.length;
    let begin = at;
    let values = file.pickle(at, &Persistent::Storages)?;
    at += values.length;
    let keys = file.pickle(at, &none)?;
    let keys_at = at;
    at += keys.length;

    // The sizes of elements are in the pickle, with the storages.
    let mut units: HashMap<&str, usize> = HashMap::new();
    for node in &values.nodes {
        if let Node::Storage(storage) = node {
            let unit = storage.element.map_or(1, |element| element.size());
            units.insert(&storage.key, unit);
        }
    }
    let mut sources = HashMap::new();
    for key in keys
        .list(&keys.root)
        .ok_or_else(|| file.malformed(keys_at, "it has no list of storages"))?
    {
        let key = match key {
            Value::Text(key) => key.to_string(),
            Value::Int(key) => key.to_string(),
            _ => return Err(file.malformed(keys_at, "the key of a storage is no text")),
        };
        let unit = units.get(&key[..]).copied();
        let unit = unit.ok_or_else(|| {
            file.malformed(
                keys_at,
                format!("the storage `{}` is listed and not used", clip(&key)),
            )
        })?;
        let (source, next) = file.storage(at, unit, &key)?;
        sources.insert(key, source);
        at = next;
    }
    add_embedded(&mut sources, map, &values);
    let flat = flatten(&values, "").map_err(file.refusal(begin))?;
    file.checkpoint(
        Format::PyTorch,
        "legacy",
        vec![(flat, begin, &sources)],
        false,
    )
}

/// What `pickle.dump` wrote: one pickle, whose tensors are NumPy's or have their storages in it.
fn plain(file: &File<'_>, values: &Pickle) -> Result<Checkpoint, FormatError> {
    let flat = flatten(values, "").map_err(file.refusal(0))?;
    if flat.tensors.is_empty() {
        let reason = "it is a pickle, but neither one that `torch.save` wrote nor one with tensors or arrays in it";
        return Err(file.malformed(0, reason));
    }
    let mut sources = HashMap::new();
    add_embedded(&mut sources, file.map, values);
    let flats = vec![(flat, 0, &sources)];
    file.checkpoint(Format::PyTorch, "pickle", flats, false)
}

/// The storages that lie in a pickle itself.
fn add_embedded(sources: &mut HashMap<String, Source>, map: &Bytes, values: &Pickle) {
    for (key, bytes) in &values.embedded {
        let offset = (bytes.as_ptr() as usize).checked_sub(map.as_ptr() as usize);
        let offset = offset.filter(|offset| *offset < map.len()).unwrap_or(0);
        sources.insert(key.to_string(), Source::Mapped(bytes.clone(), offset));
    }
}

/// A storage that was saved into a pickle as a file of its own: what it is, its bytes, and how many were parsed.
pub(super) fn embedded(bytes: &Bytes) -> Result<(Storage, Bytes, usize), String> {
    let mut at = 0;
    let mut next = |persistent: &Persistent<'_>| {
        let pickle = Pickle::read_within(&bytes.slice(at..), persistent, true).map_err(
            |(offset, reason)| format!("a storage in it, at its byte {}: {reason}", at + offset),
        )?;
        at += pickle.length;
        Ok::<Pickle, String>(pickle)
    };
    let magic = next(&Persistent::Refused)?;
    if !matches!(magic.node(&magic.root), Some(Node::Long(number)) if number[..] == MAGIC) {
        return Err("a storage in it is not in the form that `torch.save` once had".to_owned());
    }
    next(&Persistent::Refused)?;
    next(&Persistent::Refused)?;
    let values = next(&Persistent::Storages)?;
    next(&Persistent::Refused)?;
    let Some(Node::Storage(storage)) = values.node(&values.root) else {
        return Err("what should be a storage in it is none".to_owned());
    };
    let unit = storage.element.map_or(1, Element::size) as u64;
    let rest = bytes.get(at..).unwrap_or_default();
    let count = rest.first_chunk().map(|count| u64::from_le_bytes(*count));
    let length = count
        .and_then(|count| count.checked_mul(unit))
        .and_then(|length| usize::try_from(length).ok())
        .filter(|length| *length <= rest.len() - 8)
        .ok_or("a storage in it is truncated")?;
    let storage = Storage::clone(storage);
    Ok((storage, bytes.slice(at + 8..at + 8 + length), at))
}

impl File<'_> {
    /// A number of elements and their bytes, at a place of the file; and what follows.
    fn storage(&self, at: usize, unit: usize, key: &str) -> Result<(Source, usize), FormatError> {
        let rest = self.map.get(at..).unwrap_or_default();
        let truncated = |claimed: u64| {
            let left = rest.len().saturating_sub(8);
            let reason = format!(
                "the storage `{}` claims {claimed} elements of {unit} bytes, {left} bytes are left; the file is truncated",
                clip(key)
            );
            self.malformed(at, reason)
        };
        let count = rest
            .first_chunk::<8>()
            .map(|count| u64::from_le_bytes(*count))
            .ok_or_else(|| truncated(0))?;
        let length = usize::try_from(count)
            .ok()
            .and_then(|count| count.checked_mul(unit));
        let length = length
            .filter(|length| *length <= rest.len() - 8)
            .ok_or_else(|| truncated(count))?;
        let begin = at + 8;
        let end = begin + length;
        Ok((Source::Mapped(self.map.slice(begin..end), begin), end))
    }
}

/// What `torch.save` wrote in PyTorch's first months: a tar archive of `storages`, `tensors` and `pickle`.
///
/// Where the pickle describes the storages itself, as other writers of this container have it, there may be no
/// `tensors` and no views of storages.
pub(super) fn tar(path: &Path, map: &Bytes) -> Result<Checkpoint, FormatError> {
    let file = File { path, map };
    let members = tar_members(&file)?;
    let member = |name: &str| {
        let found = members.get(name).cloned();
        found.ok_or_else(|| file.malformed(0, format!("the tar archive has no member `{name}`")))
    };
    let none = Persistent::Refused;
    let count = |at: usize, pickle: &Pickle| match pickle.root {
        Value::Int(count) if count >= 0 => Ok(count),
        _ => Err(file.malformed(at, "it has no number of storages or tensors")),
    };
    let (mut at, end) = member("storages")?;
    // A member's pickles must not run on into the next one.
    let within = |at: usize, end: usize| {
        if at > end {
            Err(file.malformed(end, "a member of the tar archive is truncated"))
        } else {
            Ok(at)
        }
    };
    let mut listed = HashMap::new();
    let mut sources = HashMap::new();
    let number = file.pickle(at, &none)?;
    let storages = count(at, &number)?;
    at = within(at + number.length, end)?;
    for _ in 0..storages {
        let described = file.pickle(at, &none)?;
        let (key, element) = match described.tuple(&described.root) {
            Some([Value::Int(key), _, Value::Global(Global::Storage(element))]) => {
                (key.to_string(), *element)
            }
            Some([Value::Text(key), _, Value::Global(Global::Storage(element))]) => {
                (key.to_string(), *element)
            }
            _ => {
                return Err(
                    file.malformed(at, "a storage is not described by key, location and type")
                );
            }
        };
        at = within(at + described.length, end)?;
        let (source, next) = file.storage(at, element.size(), &key)?;
        at = within(next, end)?;
        let storage = Storage {
            key: key[..].into(),
            element: Some(element),
            length: source.length() / element.size() as u64,
            offset: 0,
        };
        if let Ok(number) = key.parse() {
            listed.insert(number, Node::Storage(Box::new(storage)));
        }
        sources.insert(key, source);
    }
    let views = (at < end).then(|| file.pickle(at, &none)).transpose()?;
    let listed_views = views.iter().filter_map(|views| views.list(&views.root));
    for view in listed_views.flatten() {
        let (
            Some(
                [
                    Value::Int(key),
                    Value::Int(root),
                    Value::Int(offset),
                    Value::Int(length),
                ],
            ),
            _,
        ) = (views.as_ref().and_then(|views| views.tuple(view)), ())
        else {
            return Err(file.malformed(at, "a view of a storage is not described by four numbers"));
        };
        let (Some(Node::Storage(root)), Ok(offset), Ok(length)) = (
            listed.get(root),
            u64::try_from(*offset),
            u64::try_from(*length),
        ) else {
            return Err(file.malformed(at, "a view of a storage is of none, or negative"));
        };
        let view = Storage {
            offset,
            length,
            ..Storage::clone(root)
        };
        listed.insert(*key, Node::Storage(Box::new(view)));
    }

    let (mut at, end) = members.get("tensors").copied().unwrap_or_default();
    let mut tensors = 0;
    if at < end {
        let number = file.pickle(at, &none)?;
        tensors = count(at, &number)?;
        at = within(at + number.length, end)?;
    }
    for _ in 0..tensors {
        let described = file.pickle(at, &none)?;
        let (key, storage) = match described.tuple(&described.root) {
            Some(
                [
                    Value::Int(key),
                    Value::Int(storage),
                    Value::Global(Global::Tensor),
                ],
            ) => (*key, *storage),
            _ => {
                return Err(
                    file.malformed(at, "a tensor is not described by key, storage and type")
                );
            }
        };
        let begin = at;
        at = within(at + described.length, end)?;
        let Some(Node::Storage(storage)) = listed.get(&storage) else {
            return Err(file.malformed(begin, format!("the tensor {key} has no storage")));
        };
        let (tensor, next) = tar_tensor(&map[..end], at, storage)
            .ok_or_else(|| file.malformed(at, "a tensor's shape is truncated or out of range"))?;
        at = next;
        listed.insert(key, Node::Tensor(Arc::new(Leaf::Strided(tensor))));
    }

    let (begin, _) = member("pickle")?;
    let values = file.pickle(begin, &Persistent::Listed(&listed))?;
    add_embedded(&mut sources, map, &values);
    let flat = flatten(&values, "").map_err(file.refusal(begin))?;
    // Where a tensor is made is a place in the file here, not in the pickle.
    file.checkpoint(Format::PyTorch, "tar", vec![(flat, 0, &sources)], false)
}

/// Dimensions, sizes, strides and offset, and what follows.
fn tar_tensor(bytes: &[u8], at: usize, storage: &Storage) -> Option<(Tensor, usize)> {
    const MOST_DIMENSIONS: usize = 64;
    let number = |at: usize| {
        let number = i64::from_le_bytes(*bytes.get(at..)?.first_chunk()?);
        u64::try_from(number).ok()
    };
    // Four bytes count the dimensions, four are padding that once was not there to be trusted.
    let dimensions = u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?) as usize;
    if dimensions > MOST_DIMENSIONS {
        return None;
    }
    let sizes = at + 8;
    let strides = sizes + 8 * dimensions;
    let offset = strides + 8 * dimensions;
    let numbers = |from: usize| {
        (0..dimensions)
            .map(|i| number(from + 8 * i))
            .collect::<Option<Vec<u64>>>()
    };
    let tensor = Tensor {
        element: storage.element?,
        storage: storage.clone(),
        offset: number(offset)?,
        shape: numbers(sizes)?,
        strides: numbers(strides)?,
        negated: false,
        conjugated: false,
        at,
    };
    Some((tensor, offset + 8))
}

/// The members of a tar archive, by name: where each begins and ends.
fn tar_members(file: &File<'_>) -> Result<HashMap<String, (usize, usize)>, FormatError> {
    const BLOCK: usize = 512;
    let mut members = HashMap::new();
    let mut at = 0;
    while let Some(header) = file.map.get(at..at + BLOCK) {
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        let text = |from: usize, length: usize| {
            let field = &header[from..from + length];
            let end = field.iter().position(|byte| *byte == 0).unwrap_or(length);
            String::from_utf8_lossy(&field[..end]).into_owned()
        };
        let malformed = |reason: &str| file.malformed(at, format!("the tar archive: {reason}"));
        let size = text(124, 12);
        let size = usize::from_str_radix(size.trim(), 8)
            .map_err(|_| malformed("a size is no octal number"))?;
        let begin = at + BLOCK;
        let end = begin.checked_add(size).filter(|end| *end <= file.map.len());
        let end =
            end.ok_or_else(|| malformed("a member reaches beyond the file, which is truncated"))?;
        let name = text(0, 100);
        // Links and devices have no bytes; what matters are plain files.
        if matches!(header[156], b'0' | 0) {
            let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
            if members.insert(name, (begin, end)).is_some() {
                return Err(malformed("a member is there twice"));
            }
        }
        at = end.next_multiple_of(BLOCK);
    }
    Ok(members)
}
