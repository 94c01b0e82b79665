//! Checkpoints of the second version, which SavedModels have too: a table of what there is, and shards of data.
//!
//! The layout is that of `core/util/tensor_bundle/tensor_bundle.cc` and `core/protobuf/tensor_bundle.proto` of
//! TensorFlow 2.17.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use bytes::Bytes;
use indexmap::IndexMap;

use super::malformed;
use super::slice::{Place, Slice, places};
use super::table::{Table, masked};
use super::tensor::{self, Layout};
use crate::checkpoint::{Checkpoint, Entry, Format};
use crate::data::{self, VIEW_MARGIN, clip};
use crate::error::FormatError;
use crate::map::map_file;
use crate::protobuf::{self, Message, Refusal, varint};

pub(super) const INDEX: &str = ".index";
const OBJECT_GRAPH: &str = "_CHECKPOINTABLE_OBJECT_GRAPH";
const VALUE: &str = "/.ATTRIBUTES/VARIABLE_VALUE";

/// The path of one shard's data.
pub(super) fn shard(index: &Path, number: u64, count: u64) -> Option<PathBuf> {
    let name = index.file_name()?.to_str()?.strip_suffix(INDEX)?;
    Some(index.with_file_name(format!("{name}.data-{number:05}-of-{count:05}")))
}

/// Reads the bundle whose index is `table`.
pub(super) fn read(path: &Path, table: &Table, length: usize) -> Result<Checkpoint, FormatError> {
    let refuse = |(at, reason): Refusal| malformed(path, at, reason);
    let (header, mut items) = list(table, length).map_err(refuse)?;

    let mut shards: BTreeMap<u64, (PathBuf, Bytes)> = BTreeMap::new();
    for (key, item) in &items {
        if shards.contains_key(&item.shard) || !item.slices.is_empty() {
            continue;
        }
        let name = String::from_utf8_lossy(key);
        if item.shard >= header.shards {
            let reason = format!(
                "`{}` lies in shard {} of {}",
                clip(&name),
                item.shard,
                header.shards
            );
            return Err(malformed(path, item.at, reason));
        }
        let file = shard(path, item.shard, header.shards).ok_or_else(|| {
            let reason = format!(
                "the index of a checkpoint is not called `NAME{INDEX}`, so that its data cannot be found; give it its \
                 name back"
            );
            malformed(path, 0, reason)
        })?;
        if !file.is_file() {
            return Err(FormatError::MissingShard {
                path: path.to_owned(),
                shard: file
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                tensor: clip(&name),
            });
        }
        let map = map_file(&file)?;
        shards.insert(item.shard, (file, map));
    }
    prove(path, &items, &shards)?;

    let names = match items.get(OBJECT_GRAPH.as_bytes()) {
        Some(item) => {
            let bytes = shards.get(&item.shard).map(|(_, map)| item.bytes(map));
            let graph = object_graph(&bytes.unwrap_or_default()).map_err(|reason| {
                malformed(path, item.at, format!("`{OBJECT_GRAPH}`: {reason}"))
            })?;
            graph_names(&graph, &items).map_err(|(_, reason)| {
                malformed(path, item.at, format!("`{OBJECT_GRAPH}`: {reason}"))
            })?
        }
        None => None,
    };
    let mut metadata = BTreeMap::new();
    if items.contains_key(OBJECT_GRAPH.as_bytes()) {
        let kind = if names.is_some() {
            "variables"
        } else {
            "object paths"
        };
        metadata.insert("tensorflow.names".to_owned(), kind.to_owned());
    }

    let mut entries = IndexMap::new();
    let keys: Vec<Vec<u8>> = items.keys().cloned().collect();
    for key in keys {
        // The keys of slices begin with a zero; those that nobody has taken are left over.
        let Some(item) = items.get(&key).filter(|_| key.first() != Some(&0)).cloned() else {
            continue;
        };
        let stored = String::from_utf8(key).map_err(|error| {
            let name = String::from_utf8_lossy(error.as_bytes()).into_owned();
            malformed(
                path,
                item.at,
                format!("the name `{}` is not UTF-8", clip(&name)),
            )
        })?;
        let refuse = |reason: String| FormatError::Tensor {
            path: path.to_owned(),
            tensor: clip(&stored),
            offset: Some(item.at as u64),
            reason,
        };
        let mut parts = Vec::new();
        if item.slices.is_empty() {
            let (file, map) = shards
                .get(&item.shard)
                .ok_or_else(|| refuse("its shard is missing".to_owned()))?;
            parts.push(Part::whole(file, map, &item));
        } else {
            let places = places(item.slices.iter(), &item.layout).map_err(refuse)?;
            for (slice, place) in item.slices.iter().zip(places) {
                let part = items.remove(&slice.key(&stored));
                let part = part.filter(|part| part.slices.is_empty());
                let part =
                    part.ok_or_else(|| refuse("one of its slices is not there".to_owned()))?;
                if part.layout.shape != place.sizes || part.layout.code != item.layout.code {
                    let reason = format!(
                        "one of its slices is {} {:?}, not {} {:?}",
                        part.layout.dtype, part.layout.shape, item.layout.dtype, place.sizes
                    );
                    return Err(refuse(reason));
                }
                let (file, map) = shards
                    .get(&part.shard)
                    .ok_or_else(|| refuse("its shard is missing".to_owned()))?;
                parts.push(Part {
                    place,
                    ..Part::whole(file, map, &part)
                });
            }
        }
        let name = match &names {
            Some(names) => names
                .get(&stored)
                .cloned()
                .unwrap_or_else(|| stored.clone()),
            None => stored.strip_suffix(VALUE).unwrap_or(&stored).to_owned(),
        };
        let bytes = parts.iter().map(|part| part.bytes.len()).sum();
        let reader = Reader {
            name: name.clone(),
            layout: item.layout.clone(),
            big_endian: header.big_endian,
            sliced: !item.slices.is_empty(),
            parts,
        };
        let (dtype, shape) = (item.layout.dtype.clone(), item.layout.sizes());
        let entry = Entry::new(dtype, shape, bytes, move || reader.read());
        if entries.insert(name, entry).is_some() {
            return Err(refuse("another tensor has its name".to_owned()));
        }
    }
    let mut files = vec![path.to_owned()];
    files.extend(shards.into_values().map(|(file, _)| file));
    Ok(Checkpoint::new(
        Format::TensorFlow,
        files,
        metadata,
        entries,
    ))
}

/// What the table says about all of it.
struct Header {
    shards: u64,
    big_endian: bool,
}

/// What the table says about one tensor, or a slice of one.
#[derive(Debug, Clone)]
struct Item {
    layout: Layout,
    shard: u64,
    offset: u64,
    size: u64,
    crc: u32,
    /// The parts that it is in, if it has no data of its own.
    slices: Vec<Slice>,
    /// Where the table says so.
    at: usize,
}

impl Item {
    /// Its data, which `prove` has found to be there.
    fn bytes(&self, map: &Bytes) -> Bytes {
        let from = self.offset as usize;
        if self.size == 0 {
            return Bytes::new();
        }
        map.slice(from..from + self.size as usize)
    }
}

/// Everything that the table lists, by key.
fn list(table: &Table, length: usize) -> Result<(Header, BTreeMap<Vec<u8>, Item>), Refusal> {
    let mut header = None;
    let mut items: BTreeMap<Vec<u8>, Item> = BTreeMap::new();
    let mut last: Vec<u8> = Vec::new();
    let mut text: u64 = 0;
    for handle in table.blocks()? {
        table.verify(handle)?;
        for item in table.block(handle)?.items()? {
            let item = item?;
            if header.is_none() {
                if !item.key.is_empty() {
                    return Err((item.at, "the table has no header".to_owned()));
                }
                header = Some(read_header(&Message::new(item.value, item.at))?);
                continue;
            }
            if item.key <= last {
                return Err((item.at, "the keys are not in order".to_owned()));
            }
            // Keys share their beginnings, so that a few bytes may be a long one.
            text += item.key.len() as u64;
            if text > length as u64 + VIEW_MARGIN {
                return Err((
                    item.at,
                    "the names are larger than the file allows".to_owned(),
                ));
            }
            last.clone_from(&item.key);
            let found = read_item(&Message::new(item.value, item.at)).map_err(|(at, reason)| {
                let name = String::from_utf8_lossy(&item.key).into_owned();
                (at, format!("`{}`: {reason}", clip(&name)))
            })?;
            items.insert(item.key, found);
        }
    }
    let header = header.ok_or((0, "the table is empty".to_owned()))?;
    Ok((header, items))
}

fn read_header(message: &Message) -> Result<Header, Refusal> {
    let mut header = Header {
        shards: 0,
        big_endian: false,
    };
    for field in message.fields() {
        let field = field?;
        match field.number {
            1 => header.shards = field.size()?,
            2 => header.big_endian = field.unsigned()? != 0,
            _ => {}
        }
    }
    Ok(header)
}

fn read_item(message: &Message) -> Result<Item, Refusal> {
    let (mut code, mut sizes) = (0, Vec::new());
    let (mut shard, mut offset, mut size, mut crc) = (0, 0, 0, 0);
    let mut slices = Vec::new();
    for field in message.fields() {
        let field = field?;
        match field.number {
            1 => code = field.unsigned()?,
            2 => sizes = tensor::shape(&field.message()?)?,
            3 => shard = field.size()?,
            4 => offset = field.size()?,
            5 => size = field.size()?,
            6 => crc = field.fixed32()?,
            7 => slices.push(Slice::read(&field.message()?)?),
            _ => {}
        }
    }
    let layout = Layout::new(code, sizes).map_err(|reason| (message.at(), reason))?;
    if slices.is_empty() && layout.size.is_some() && size != layout.bytes {
        let reason = format!(
            "it has {size} bytes, its shape {:?} takes {}",
            layout.shape, layout.bytes
        );
        return Err((message.at(), reason));
    }
    Ok(Item {
        layout,
        shard,
        offset,
        size,
        crc,
        slices,
        at: message.at(),
    })
}

/// Proves that all data is in its shard, and none in that of another tensor.
fn prove(
    path: &Path,
    items: &BTreeMap<Vec<u8>, Item>,
    shards: &BTreeMap<u64, (PathBuf, Bytes)>,
) -> Result<(), FormatError> {
    let mut spans = Vec::new();
    for (key, item) in items {
        let Some((file, map)) = shards.get(&item.shard).filter(|_| item.slices.is_empty()) else {
            continue;
        };
        let end = item
            .offset
            .checked_add(item.size)
            .filter(|end| *end <= map.len() as u64);
        let Some(end) = end else {
            return Err(FormatError::Tensor {
                path: file.clone(),
                tensor: clip(&String::from_utf8_lossy(key)),
                offset: Some(item.offset),
                reason: format!(
                    "its {} bytes reach beyond the file of {}; it is truncated",
                    item.size,
                    map.len()
                ),
            });
        };
        if item.size > 0 {
            spans.push((item.shard, item.offset, end, key));
        }
    }
    spans.sort();
    for pair in spans.windows(2) {
        let ((shard, _, end, first), (other, begin, _, second)) = (&pair[0], &pair[1]);
        if shard == other && begin < end {
            let name = |key: &[u8]| clip(&String::from_utf8_lossy(key));
            let reason = format!(
                "tensor `{}` begins inside tensor `{}`",
                name(second),
                name(first)
            );
            let file = shards.get(shard).map_or(path, |(file, _)| file);
            return Err(malformed(file, *begin as usize, reason));
        }
    }
    Ok(())
}

/// The bytes of the object graph: a text's length, the checksum of that, the text.
fn object_graph(bytes: &Bytes) -> Result<Message, String> {
    let (length, size) = varint(bytes).ok_or("its length is truncated")?;
    let from = size + 4;
    let end = usize::try_from(length)
        .ok()
        .and_then(|length| from.checked_add(length));
    let end = end
        .filter(|end| *end <= bytes.len())
        .ok_or("it is truncated")?;
    Ok(Message::new(bytes.slice(from..end), from))
}

/// The names of the variables by their keys, when each has one of its own.
fn graph_names(
    graph: &Message,
    items: &BTreeMap<Vec<u8>, Item>,
) -> Result<Option<BTreeMap<String, String>>, Refusal> {
    let mut names = BTreeMap::new();
    for node in graph.fields() {
        let node = node?;
        if node.number != 1 {
            continue;
        }
        for attribute in node.message()?.fields() {
            let attribute = attribute?;
            if attribute.number != 2 {
                continue;
            }
            let (mut name, mut key) = (String::new(), String::new());
            for field in attribute.message()?.fields() {
                let field = field?;
                match field.number {
                    2 => name = protobuf::name(&field)?,
                    3 => key = protobuf::name(&field)?,
                    _ => {}
                }
            }
            if !name.is_empty() && key.ends_with(VALUE) && items.contains_key(key.as_bytes()) {
                names.insert(key, name);
            }
        }
    }
    let variables = items.keys().filter(|key| key.ends_with(VALUE.as_bytes()));
    let every = variables.count() == names.len();
    let unique: BTreeSet<&String> = names.values().collect();
    let free = names
        .values()
        .all(|name| !items.contains_key(name.as_bytes()));
    Ok((every && free && unique.len() == names.len()).then_some(names))
}

/// A run of data, and where it belongs.
struct Part {
    file: PathBuf,
    offset: u64,
    crc: u32,
    bytes: Bytes,
    place: Place,
}

impl Part {
    fn whole(file: &Path, map: &Bytes, item: &Item) -> Self {
        Self {
            file: file.to_owned(),
            offset: item.offset,
            crc: item.crc,
            bytes: item.bytes(map),
            place: Place::whole(&item.layout.shape),
        }
    }
}

/// One tensor.
struct Reader {
    name: String,
    layout: Layout,
    big_endian: bool,
    sliced: bool,
    parts: Vec<Part>,
}

impl Reader {
    fn read(&self) -> Result<TensorData, FormatError> {
        let layout = &self.layout;
        let refuse = |part: Option<&Part>, reason: String| FormatError::Tensor {
            path: part.map(|part| part.file.clone()).unwrap_or_default(),
            tensor: clip(&self.name),
            offset: part.map(|part| part.offset),
            reason,
        };
        let first = self.parts.first();
        let size = layout.size.filter(|_| layout.dtype.to_burn().is_some());
        let size =
            size.ok_or_else(|| refuse(first, format!("the type {} cannot be read", layout.dtype)))?;
        for part in &self.parts {
            if masked(crc32c::crc32c(&part.bytes)) != part.crc {
                return Err(refuse(
                    Some(part),
                    "its checksum is wrong; fetch the file again".to_owned(),
                ));
            }
        }
        let mut bytes = match first {
            Some(part) if !self.sliced => part.bytes.clone(),
            _ => {
                // The parts have been proven to be as large as the whole.
                let mut whole = vec![0; layout.bytes as usize];
                for part in &self.parts {
                    part.place
                        .paste(&mut whole, &layout.shape, &part.bytes, size);
                }
                whole.into()
            }
        };
        if self.big_endian {
            bytes = data::swapped(&bytes, size).into();
        }
        data::typed(bytes, &layout.sizes(), &layout.dtype).map_err(|reason| refuse(first, reason))
    }
}
