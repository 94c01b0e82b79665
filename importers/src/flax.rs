//! Flax's `flax_model.msgpack`: nested dictionaries of arrays in MessagePack.
//!
//! The layout is that of `flax/serialization.py` of Flax 0.12 over
//! <https://github.com/msgpack/msgpack/blob/master/spec.md>: an array is an extension of type 1, a scalar of type
//! 3, each of which holds a tuple of shape, type and bytes; an array above 1 GiB is a dictionary of chunks. Arrays
//! stay in the mapped file, chunks are joined when they are read.
//!
//! # Names
//!
//! Dictionaries become dotted names, `encoder.layer.0.output.dense.kernel`. Where the outermost one has
//! collections, `params` and `batch_stats` are taken off and what else has arrays (`opt_state`, …) is left out;
//! `flax.left_out` in the metadata says how many. Numbers and texts beside the arrays are kept as metadata.
//! What is called a kernel lies as `[spatial…, in, out]`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use bytes::Bytes;
use indexmap::IndexMap;

use crate::checkpoint::{Checkpoint, Dtype, Entry, Format, Layout};
use crate::data::{self, clip};
use crate::error::FormatError;
use crate::map::map_file;
use crate::protobuf::{Refusal, Slice};

const FORMAT: &str = "Flax msgpack";
const DEEPEST: usize = 64;
const MOST_DIMENSIONS: usize = 64;
/// How much metadata is kept, in entries and in bytes of one.
const MOST_METADATA: usize = 1 << 12;
/// What the names may take beyond the size of the file.
const NAMES_MARGIN: usize = 16 << 20;
const LONGEST_TEXT: usize = 1 << 12;
/// How many of the values that are not read are named.
const MOST_UNREAD: usize = 64;
/// Types that are not read but written, and their sizes.
const COMPLEX: [(&str, usize); 2] = [("C64", 8), ("C128", 16)];
/// What parameters and running statistics stand under.
const COLLECTIONS: [&str; 2] = ["params.", "batch_stats."];
const CHUNKED: &str = "__msgpack_chunked_array__";

/// Opens one file.
///
/// # Errors
/// The file cannot be read, is truncated or corrupt, or holds no dictionary.
pub fn open(path: &Path) -> Result<Checkpoint, FormatError> {
    read(path, map_file(path)?)
}

/// Whether the bytes begin as a dictionary whose first key is a text.
pub(crate) fn is_flax(bytes: &[u8]) -> bool {
    let mut reader = Reader(Slice::whole(bytes));
    matches!(reader.value(), Ok(Value::Map(1..)))
        && matches!(reader.value(), Ok(Value::Text(text)) if std::str::from_utf8(text.bytes).is_ok() && !text.bytes.is_empty())
        && matches!(
            reader.value(),
            Ok(Value::Map(_) | Value::Extension(1 | 3, _))
        )
}

pub(crate) fn read(path: &Path, map: Bytes) -> Result<Checkpoint, FormatError> {
    let refuse = |(offset, reason): Refusal| FormatError::Malformed {
        path: path.to_owned(),
        format: FORMAT,
        offset: Some(offset as u64),
        reason,
    };
    let mut tree = Tree {
        map: &map,
        arrays: IndexMap::new(),
        metadata: BTreeMap::new(),
        unread: Vec::new(),
        names: 0,
    };
    let mut reader = Reader(Slice::whole(&map));
    tree.dictionary(&mut reader, "", 0).map_err(refuse)?;
    if !reader.0.bytes.is_empty() {
        let reason = format!("{} bytes follow its dictionary", reader.0.bytes.len());
        return Err(refuse((reader.0.at, reason)));
    }
    let Tree {
        arrays,
        mut metadata,
        unread,
        ..
    } = tree;
    if !unread.is_empty() {
        let mut text = unread[..unread.len().min(MOST_UNREAD)].join(", ");
        if unread.len() > MOST_UNREAD {
            text.push_str(&format!(" and {} more", unread.len() - MOST_UNREAD));
        }
        tracing::warn!("{}: left unread: {text}", path.display());
        metadata.insert("flax.unread".to_owned(), text);
    }
    let collected = arrays.keys().any(|name| name.starts_with(COLLECTIONS[0]));
    let mut left_out = 0;
    let mut entries = IndexMap::new();
    for (name, array) in arrays {
        let stripped = COLLECTIONS
            .iter()
            .find_map(|prefix| name.strip_prefix(prefix));
        let name = match stripped {
            Some(name) if collected => name.to_owned(),
            None if collected => {
                left_out += 1;
                continue;
            }
            _ => name,
        };
        let entry = array.entry(path, &name);
        if entries.insert(name.clone(), entry).is_some() {
            let reason = format!("`{}` is there twice", clip(&name));
            return Err(refuse((0, reason)));
        }
    }
    if left_out > 0 {
        metadata.insert("flax.left_out".to_owned(), left_out.to_string());
    }
    Ok(Checkpoint::new(
        Format::Flax,
        vec![path.to_owned()],
        metadata,
        entries,
    ))
}

/// The name of the parameter at a path with slashes.
pub(crate) fn dotted(path: &str) -> String {
    let name = path.replace('/', ".");
    let stripped = COLLECTIONS
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix));
    stripped.map_or_else(|| name.clone(), str::to_owned)
}

/// A value of MessagePack; what is nested comes next.
enum Value<'a> {
    Nil,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(Slice<'a>),
    Bytes(Slice<'a>),
    Array(usize),
    Map(usize),
    Extension(i8, Slice<'a>),
}

/// What is left to be read.
struct Reader<'a>(Slice<'a>);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<Slice<'a>, Refusal> {
        let Slice { bytes, at } = self.0;
        let Some((taken, rest)) = bytes.split_at_checked(count) else {
            let reason = format!(
                "it is truncated: {count} bytes are wanted, {} are left",
                bytes.len()
            );
            return Err((at, reason));
        };
        self.0 = Slice {
            bytes: rest,
            at: at + count,
        };
        Ok(Slice { bytes: taken, at })
    }

    /// A big-endian number of so many bytes.
    fn number(&mut self, bytes: usize) -> Result<u64, Refusal> {
        let taken = self.take(bytes)?;
        let digits = taken.bytes.iter();
        Ok(digits.fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// A length of so many bytes, and what it is the length of.
    fn counted(&mut self, bytes: usize) -> Result<Slice<'a>, Refusal> {
        let length = self.number(bytes)?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn extension(&mut self, length: usize) -> Result<Value<'a>, Refusal> {
        let kind = self.take(1)?.bytes[0].cast_signed();
        Ok(Value::Extension(kind, self.take(length)?))
    }

    fn value(&mut self) -> Result<Value<'a>, Refusal> {
        let at = self.0.at;
        let marker = self.take(1)?.bytes[0];
        Ok(match marker {
            0x00..=0x7f => Value::Unsigned(marker.into()),
            0x80..=0x8f => Value::Map(usize::from(marker & 15)),
            0x90..=0x9f => Value::Array(usize::from(marker & 15)),
            0xa0..=0xbf => Value::Text(self.take(usize::from(marker & 31))?),
            0xc0 => Value::Nil,
            0xc2 | 0xc3 => Value::Bool(marker == 0xc3),
            0xc4..=0xc6 => Value::Bytes(self.counted(1 << (marker - 0xc4))?),
            0xc7..=0xc9 => {
                let length = self.number(1 << (marker - 0xc7))?;
                self.extension(usize::try_from(length).unwrap_or(usize::MAX))?
            }
            0xca => Value::Float(f32::from_bits(self.number(4)? as u32).into()),
            0xcb => Value::Float(f64::from_bits(self.number(8)?)),
            0xcc..=0xcf => Value::Unsigned(self.number(1 << (marker - 0xcc))?),
            0xd0..=0xd3 => {
                let bytes = 1 << (marker - 0xd0);
                let number = self.number(bytes)?.cast_signed();
                let unused = 64 - 8 * bytes;
                Value::Signed(number << unused >> unused)
            }
            0xd4..=0xd8 => self.extension(1 << (marker - 0xd4))?,
            0xd9..=0xdb => Value::Text(self.counted(1 << (marker - 0xd9))?),
            0xdc | 0xdd => Value::Array(self.number(2 << (marker - 0xdc))? as usize),
            0xde | 0xdf => Value::Map(self.number(2 << (marker - 0xde))? as usize),
            0xe0..=0xff => Value::Signed(marker.cast_signed().into()),
            0xc1 => return Err((at, "a value begins with c1, which nothing does".to_owned())),
        })
    }
}

/// One array, whole or in chunks.
struct Array {
    at: usize,
    dtype: Dtype,
    sizes: Vec<usize>,
    chunks: Vec<Bytes>,
}

/// The tensors as they are found.
struct Tree<'a> {
    map: &'a Bytes,
    arrays: IndexMap<String, Array>,
    metadata: BTreeMap<String, String>,
    /// What was not read, by its name and kind.
    unread: Vec<String>,
    /// How many bytes all names have: a dictionary's stands in each of its items.
    names: usize,
}

impl<'a> Tree<'a> {
    fn dictionary(
        &mut self,
        reader: &mut Reader<'a>,
        name: &str,
        depth: usize,
    ) -> Result<(), Refusal> {
        let at = reader.0.at;
        match reader.value()? {
            Value::Map(count) => self.items(reader, count, name, depth),
            _ => Err((at, "it is no dictionary of parameters".to_owned())),
        }
    }

    fn items(
        &mut self,
        reader: &mut Reader<'a>,
        count: usize,
        name: &str,
        depth: usize,
    ) -> Result<(), Refusal> {
        if depth > DEEPEST {
            return Err((reader.0.at, "it is nested too deeply".to_owned()));
        }
        for item in 0..count {
            let at = reader.0.at;
            let key = match reader.value()? {
                Value::Text(text) | Value::Bytes(text) if text.bytes.len() > LONGEST_TEXT => {
                    return Err((at, "a key is too long".to_owned()));
                }
                Value::Text(text) | Value::Bytes(text) => text.text()?.to_owned(),
                Value::Unsigned(number) => number.to_string(),
                _ => return Err((at, "a key is neither a text nor a number".to_owned())),
            };
            if item == 0 && key == CHUNKED {
                return self.chunks(reader, count, name);
            }
            let key = if name.is_empty() {
                key
            } else {
                format!("{name}.{key}")
            };
            self.leaf(reader, &key, depth)?;
        }
        Ok(())
    }

    fn leaf(&mut self, reader: &mut Reader<'a>, name: &str, depth: usize) -> Result<(), Refusal> {
        let at = reader.0.at;
        let text = match reader.value()? {
            Value::Map(count) => return self.items(reader, count, name, depth + 1),
            Value::Array(count) => {
                if depth > DEEPEST {
                    return Err((at, "it is nested too deeply".to_owned()));
                }
                for place in 0..count {
                    self.leaf(reader, &format!("{name}.{place}"), depth + 1)?;
                }
                return Ok(());
            }
            Value::Extension(1 | 3, payload) => {
                let array = Array::read(payload, self.map)
                    .map_err(|(at, reason)| (at, format!("`{}`: {reason}", clip(name))))?;
                self.names += name.len();
                if self.names > self.map.len().saturating_add(NAMES_MARGIN) {
                    return Err((at, "its names are larger than the file allows".to_owned()));
                }
                if self.arrays.insert(name.to_owned(), array).is_some() {
                    return Err((at, format!("`{}` is there twice", clip(name))));
                }
                return Ok(());
            }
            Value::Nil => return Ok(()),
            Value::Extension(2, _) => return self.leave(at, name, "a complex number"),
            Value::Extension(..) => return self.leave(at, name, "an extension"),
            Value::Bytes(_) => return self.leave(at, name, "bytes"),
            Value::Bool(value) => value.to_string(),
            Value::Unsigned(value) => value.to_string(),
            Value::Signed(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            Value::Text(text) if text.bytes.len() > LONGEST_TEXT => {
                return self.leave(at, name, "a long text");
            }
            Value::Text(text) => text.text()?.to_owned(),
        };
        if self.metadata.len() < MOST_METADATA {
            self.metadata.insert(name.to_owned(), text);
        }
        Ok(())
    }

    /// Says that something is not read.
    fn leave(&mut self, at: usize, name: &str, what: &str) -> Result<(), Refusal> {
        self.names += name.len();
        if self.names > self.map.len().saturating_add(NAMES_MARGIN) {
            return Err((at, "its names are larger than the file allows".to_owned()));
        }
        self.unread.push(format!("{} ({what})", clip(name)));
        Ok(())
    }

    /// An array in chunks: whether it is one, its shape and its chunks, the latter two as dictionaries that
    /// count from 0.
    fn chunks(&mut self, reader: &mut Reader<'a>, count: usize, name: &str) -> Result<(), Refusal> {
        let begin = reader.0.at;
        let refuse = |reason: &str| (begin, format!("`{}`: {reason}", clip(name)));
        reader.value()?;
        let mut shape = Vec::new();
        let mut chunks: Vec<Array> = Vec::new();
        for _ in 1..count {
            let Value::Text(key) = reader.value()? else {
                return Err(refuse("a key of its chunks is no text"));
            };
            let Value::Map(items) = reader.value()? else {
                return Err(refuse("its shape or chunks are no dictionary"));
            };
            for item in 0..items {
                let is_next = match reader.value()? {
                    Value::Text(text) => text.text()? == item.to_string(),
                    _ => false,
                };
                match (key.bytes, reader.value()?) {
                    _ if !is_next => return Err(refuse("its chunks do not count from 0")),
                    (b"shape", Value::Unsigned(size)) if shape.len() < MOST_DIMENSIONS => {
                        shape.push(size);
                    }
                    (b"chunks", Value::Extension(1, payload)) => {
                        chunks.push(Array::read(payload, self.map)?);
                    }
                    _ => return Err(refuse("its chunks are not understood")),
                }
            }
        }
        let Some(first) = chunks.first() else {
            return Err(refuse("it has no chunks"));
        };
        let dtype = first.dtype.clone();
        if chunks.iter().any(|chunk| chunk.dtype != dtype) {
            return Err(refuse("its chunks are of different types"));
        }
        let chunks = chunks.into_iter().flat_map(|chunk| chunk.chunks);
        let array = Array::new(begin, dtype, shape, chunks.collect())?;
        self.arrays.insert(name.to_owned(), array);
        Ok(())
    }
}

impl Array {
    /// Reads the tuple of shape, type and bytes.
    fn read(payload: Slice<'_>, map: &Bytes) -> Result<Self, Refusal> {
        let at = payload.at;
        let refuse = |reason: &str| (at, reason.to_owned());
        let mut reader = Reader(payload);
        let Value::Array(3) = reader.value()? else {
            return Err(refuse("its array is no tuple of three"));
        };
        let Value::Array(dimensions) = reader.value()? else {
            return Err(refuse("its shape is no tuple"));
        };
        if dimensions > MOST_DIMENSIONS {
            return Err(refuse("its shape has too many dimensions"));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let Value::Unsigned(size) = reader.value()? else {
                return Err(refuse("its shape has what is no size"));
            };
            shape.push(size);
        }
        let (Value::Text(name) | Value::Bytes(name)) = reader.value()? else {
            return Err(refuse("its type is no text"));
        };
        let dtype = match name.bytes {
            b"float64" => Dtype::F64,
            b"float32" => Dtype::F32,
            b"float16" => Dtype::F16,
            b"bfloat16" => Dtype::BF16,
            b"int64" => Dtype::I64,
            b"int32" => Dtype::I32,
            b"int16" => Dtype::I16,
            b"int8" => Dtype::I8,
            b"uint64" => Dtype::U64,
            b"uint32" => Dtype::U32,
            b"uint16" => Dtype::U16,
            b"uint8" => Dtype::U8,
            b"bool" => Dtype::Bool,
            b"complex64" => Dtype::Other("C64".to_owned()),
            b"complex128" => Dtype::Other("C128".to_owned()),
            other => Dtype::Other(clip(&String::from_utf8_lossy(other))),
        };
        let (Value::Bytes(bytes) | Value::Text(bytes)) = reader.value()? else {
            return Err(refuse("its data are no bytes"));
        };
        Self::new(bytes.at, dtype, shape, vec![map.slice_ref(bytes.bytes)])
    }

    fn new(at: usize, dtype: Dtype, shape: Vec<u64>, chunks: Vec<Bytes>) -> Result<Self, Refusal> {
        let sizes: Option<Vec<usize>> = shape
            .iter()
            .map(|size| usize::try_from(*size).ok())
            .collect();
        let (Some(elements), Some(sizes)) = (data::elements(&shape), sizes) else {
            return Err((at, format!("its shape {shape:?} is larger than any file")));
        };
        let found: usize = chunks.iter().map(Bytes::len).sum();
        let complex = COMPLEX.iter().find(|(name, _)| *name == dtype.to_string());
        let size = dtype.to_burn().map(|burn| burn.size());
        if let Some(size) = size.or(complex.map(|(_, size)| *size)) {
            let expected = elements.checked_mul(size as u64);
            if expected != Some(found as u64) {
                let reason = format!("{dtype} {shape:?} does not take the {found} bytes it has");
                return Err((at, reason));
            }
        }
        Ok(Self {
            at,
            dtype,
            sizes,
            chunks,
        })
    }

    fn entry(self, path: &Path, name: &str) -> Entry {
        let layout = if name == "kernel" || name.ends_with(".kernel") {
            Layout::InOut
        } else {
            Layout::OutIn
        };
        let bytes = self.chunks.iter().map(Bytes::len).sum();
        let (dtype, sizes) = (self.dtype.clone(), self.sizes.clone());
        let (path, name): (PathBuf, String) = (path.to_owned(), name.to_owned());
        let is_complex = COMPLEX.iter().any(|(name, _)| *name == dtype.to_string());
        let array = std::sync::Arc::new(self);
        let stored = array.clone();
        let entry = Entry::new(dtype, sizes, bytes, move || {
            array.data().map_err(|reason| FormatError::Tensor {
                path: path.clone(),
                tensor: clip(&name),
                offset: Some(array.at as u64),
                reason,
            })
        })
        .with_layout(layout);
        if is_complex {
            return entry.with_stored(move || Ok(data::shared(stored.bytes())));
        }
        entry
    }

    fn data(&self) -> Result<TensorData, String> {
        data::typed(self.bytes(), &self.sizes, &self.dtype)
    }

    fn bytes(&self) -> Bytes {
        match &self.chunks[..] {
            [only] => only.clone(),
            chunks => chunks.concat().into(),
        }
    }
}
