//! GGUF, versions 1 to 3, of either byte order, whole or split.
//!
//! The layout is that of <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Shapes are reversed, as
//! GGUF stores the fastest dimension first. Block types become `f32` when they are read.
//!
//! [`Checkpoint::metadata`] has every key: texts and numbers as they are, arrays as JSON.
//!
//! A file that is one part of several, `NAME-00002-of-00003.gguf`, opens all of them, under the metadata of
//! the first.

mod metadata;
mod quantize;
pub(crate) mod quants;
mod write;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use bytes::Bytes;
use indexmap::IndexMap;

use self::quants::Values;
use crate::checkpoint::{Checkpoint, Entry, Format};
use crate::data::{self, clip};
use crate::error::FormatError;
use crate::map::map_file;
use crate::sharded::in_file;

pub use metadata::{Metadata, Value, metadata};
pub(crate) use quants::Kind;
pub use quants::quantized_types;
pub(crate) use write::{WRITER, refusal};

pub(crate) const MAGIC: &[u8; 4] = b"GGUF";
const FORMAT: &str = "GGUF";
const DEFAULT_ALIGNMENT: u64 = 32;
/// GGML itself has four.
const MOST_DIMENSIONS: u64 = 8;
const DEEPEST_ARRAY: usize = 8;
/// What the text of the metadata may take beyond the size of the file: a bit of an array is six letters.
const METADATA_MARGIN: usize = 64 << 20;

/// Opens one file, or all the files that it is a part of.
///
/// # Errors
/// The file cannot be read, is truncated or corrupt, or a part of it is missing.
pub fn open(path: &Path) -> Result<Checkpoint, FormatError> {
    read(path, map_file(path)?)
}

pub(crate) fn read(path: &Path, map: Bytes) -> Result<Checkpoint, FormatError> {
    let whole = one(path, map)?;
    let count = whole
        .metadata
        .get("split.count")
        .and_then(|count| count.parse().ok())
        .unwrap_or(1);
    if count <= 1 {
        return Ok(whole);
    }
    let malformed = |reason: String| FormatError::Malformed {
        path: path.to_owned(),
        format: FORMAT,
        offset: None,
        reason,
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Some((stem, _, named)) = part(&name).filter(|(_, _, named)| *named == count) else {
        return Err(malformed(format!(
            "it is one of {count} parts, but is not called `NAME-00001-of-{count:05}.gguf`, so that the others cannot be \
             found; give the parts their names back"
        )));
    };
    let mut files = Vec::new();
    let mut entries = IndexMap::new();
    let mut metadata = BTreeMap::new();
    for number in 1..=named {
        let sibling = path.with_file_name(format!("{stem}-{number:05}-of-{named:05}.gguf"));
        if !sibling.is_file() {
            let name = sibling.file_name().unwrap_or_default().to_string_lossy();
            return Err(malformed(format!(
                "it is one of {count} parts, and `{name}` is not beside it"
            )));
        }
        let found = one(&sibling, map_file(&sibling)?)?;
        let place = found
            .metadata
            .get("split.no")
            .and_then(|place| place.parse::<u32>().ok());
        if place != Some(number - 1) {
            return Err(malformed(format!(
                "`{}` does not say that it is part {number}",
                sibling.display()
            )));
        }
        if number == 1 {
            metadata.clone_from(&found.metadata);
        }
        for (name, entry) in in_file(found.into_entries(), &sibling) {
            if entries.contains_key(&name) {
                return Err(malformed(format!("two of its parts hold `{name}`")));
            }
            entries.insert(name, entry);
        }
        files.push(sibling);
    }
    Ok(Checkpoint::new(Format::SplitGguf, files, metadata, entries))
}

/// Stem, number and count of a part's name, `stem-00001-of-00003.gguf`.
pub(crate) fn part(name: &str) -> Option<(&str, u32, u32)> {
    let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let five = |digits: &str| {
        if digits.len() == 5 {
            digits.parse().ok()
        } else {
            None
        }
    };
    Some((stem, five(number)?, five(count)?))
}

fn one(path: &Path, map: Bytes) -> Result<Checkpoint, FormatError> {
    let mut header = Header {
        map: &map,
        at: 0,
        version: 0,
        big_endian: false,
    };
    let refuse = |(offset, reason): (usize, String)| FormatError::Malformed {
        path: path.to_owned(),
        format: FORMAT,
        offset: Some(offset as u64),
        reason,
    };
    let (metadata, infos) = header.read().map_err(refuse)?;
    let alignment = match metadata.get("general.alignment") {
        None => DEFAULT_ALIGNMENT,
        Some(text) => text
            .parse()
            .ok()
            .filter(|alignment: &u64| alignment.is_power_of_two())
            .ok_or_else(|| {
                refuse((
                    0,
                    format!(
                        "`general.alignment` is {}, which is no power of two",
                        clip(text)
                    ),
                ))
            })?,
    };
    let begin = (header.at as u64)
        .checked_next_multiple_of(alignment)
        .unwrap_or(u64::MAX);
    let mut entries = IndexMap::new();
    let mut spans: Vec<(u64, u64, String)> = Vec::new();
    for info in infos {
        let refuse = |reason: String| FormatError::Tensor {
            path: path.to_owned(),
            tensor: clip(&info.name),
            offset: Some(info.at as u64),
            reason,
        };
        let kind = Kind::find(info.kind);
        let kind = kind.ok_or_else(|| refuse(format!("its type {} is not known", info.kind)))?;
        let elements = data::elements(&info.shape);
        let elements = elements.ok_or_else(|| {
            refuse(format!(
                "its shape {:?} is larger than any file",
                info.shape
            ))
        })?;
        let row = info.shape.last().copied().unwrap_or(1);
        if !row.is_multiple_of(kind.block as u64) {
            return Err(refuse(format!(
                "its rows of {row} elements do not divide into blocks of {} ({})",
                kind.block, kind.name
            )));
        }
        if !info.offset.is_multiple_of(alignment) {
            return Err(refuse(format!(
                "its offset {} is not a multiple of {alignment}",
                info.offset
            )));
        }
        let length = (elements / kind.block as u64).checked_mul(kind.size as u64);
        let range = length.and_then(|length| {
            let from = begin.checked_add(info.offset)?;
            Some((from, from.checked_add(length)?))
        });
        let (from, to) = range.filter(|(_, to)| length == Some(0) || *to <= map.len() as u64).ok_or_else(|| {
            refuse(format!(
                "its data, {} {:?} at byte {} of the data, reaches beyond the file of {} bytes; it is truncated",
                kind.name,
                info.shape,
                info.offset,
                map.len()
            ))
        })?;
        let bytes = if from == to {
            Bytes::new()
        } else {
            map.slice(from as usize..to as usize)
        };
        if from < to {
            spans.push((from, to, info.name.clone()));
        }
        let shape: Option<Vec<usize>> = info
            .shape
            .iter()
            .map(|size| usize::try_from(*size).ok())
            .collect();
        let reader = Reader {
            path: path.to_owned(),
            name: info.name.clone(),
            offset: from,
            kind,
            shape: shape
                .ok_or_else(|| refuse("its shape is larger than this machine".to_owned()))?,
            bytes,
            big_endian: header.big_endian,
        };
        let plain = matches!(kind.values, Values::Plain(_));
        let stored = reader.bytes.clone();
        let mut entry = reader.entry();
        if !plain && !header.big_endian {
            entry = entry.with_stored(move || Ok(data::shared(stored.clone())));
        }
        if entries.insert(info.name.clone(), entry).is_some() {
            return Err(refuse("it is there twice".to_owned()));
        }
    }
    spans.sort();
    for pair in spans.windows(2) {
        let ((_, end, first), (from, _, second)) = (&pair[0], &pair[1]);
        if from < end {
            let reason = format!(
                "tensor `{}` begins inside tensor `{}`",
                clip(second),
                clip(first)
            );
            return Err(refuse((*from as usize, reason)));
        }
    }
    Ok(Checkpoint::new(
        Format::Gguf,
        vec![path.to_owned()],
        metadata,
        entries,
    ))
}

/// One tensor in a mapped file.
pub(crate) struct Reader {
    pub(crate) path: PathBuf,
    pub(crate) name: String,
    pub(crate) offset: u64,
    pub(crate) kind: &'static Kind,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Bytes,
    pub(crate) big_endian: bool,
}

impl Reader {
    pub(crate) fn entry(self) -> Entry {
        let (dtype, shape) = (self.kind.dtype(), self.shape.clone());
        Entry::new(dtype, shape, self.bytes.len(), move || self.read())
    }

    fn read(&self) -> Result<TensorData, FormatError> {
        let refuse = |reason: String| FormatError::Tensor {
            path: self.path.clone(),
            tensor: clip(&self.name),
            offset: Some(self.offset),
            reason,
        };
        let name = self.kind.name;
        match &self.kind.values {
            Values::Plain(dtype) if self.big_endian => {
                let bytes = data::swapped(&self.bytes, self.kind.size);
                data::typed(bytes.into(), &self.shape, dtype).map_err(refuse)
            }
            Values::Plain(dtype) => {
                data::typed(self.bytes.clone(), &self.shape, dtype).map_err(refuse)
            }
            Values::Blocks(_) if self.big_endian => Err(refuse(format!(
                "{name} in a big-endian file is not read; convert the file to little-endian"
            ))),
            Values::Blocks(_) => Ok(self.kind.dequantize(&self.bytes, self.shape.clone())),
            Values::Listed => Err(refuse(format!(
                "the type {name} cannot be read; quantize to another one"
            ))),
        }
    }
}

/// A tensor as the header lists it.
struct Info {
    name: String,
    /// Slowest dimension first.
    shape: Vec<u64>,
    kind: u32,
    offset: u64,
    /// Where the header lists it.
    at: usize,
}

/// The header, as far as it is read.
struct Header<'a> {
    map: &'a [u8],
    at: usize,
    version: u32,
    big_endian: bool,
}

type Read<T> = Result<T, (usize, String)>;

impl Header<'_> {
    /// The numbers of tensors and of keys, behind which the keys begin.
    fn begin(&mut self) -> Read<(u64, u64)> {
        if self.take(4)? != MAGIC {
            return Err((0, "it does not begin with `GGUF`".to_owned()));
        }
        let version = self.u32()?;
        // Versions are small, so that one in the upper half was written the other way around.
        self.big_endian = version & 0xffff == 0 && version != 0;
        self.version = if self.big_endian {
            version.swap_bytes()
        } else {
            version
        };
        if !(1..=3).contains(&self.version) {
            return Err((
                4,
                format!("version {} is not known; versions 1 to 3 are", self.version),
            ));
        }
        let (tensors, keys) = (self.size()?, self.size()?);
        // An entry takes more than a byte, which bounds both by the file.
        if tensors.saturating_add(keys) > self.map.len() as u64 {
            let reason = format!(
                "it claims {tensors} tensors and {keys} keys in {} bytes",
                self.map.len()
            );
            return Err((8, reason));
        }
        Ok((tensors, keys))
    }

    fn read(&mut self) -> Read<(BTreeMap<String, String>, Vec<Info>)> {
        let (tensors, keys) = self.begin()?;
        let mut metadata = BTreeMap::new();
        let mut text = 0;
        for _ in 0..keys {
            let at = self.at;
            let key = self.string()?;
            let kind = self.u32()?;
            let mut value = String::new();
            self.value(kind, &mut value, 0, text)?;
            text += value.len();
            if metadata.contains_key(&key) {
                return Err((at, format!("the key `{}` is there twice", clip(&key))));
            }
            metadata.insert(key, value);
        }
        let mut infos = Vec::new();
        for _ in 0..tensors {
            let at = self.at;
            let name = self.string()?;
            let dimensions = self.u32()?;
            if u64::from(dimensions) > MOST_DIMENSIONS {
                return Err((
                    at,
                    format!("tensor `{}` has {dimensions} dimensions", clip(&name)),
                ));
            }
            let mut shape = Vec::new();
            for _ in 0..dimensions {
                shape.push(self.size()?);
            }
            shape.reverse();
            let kind = self.u32()?;
            let offset = self.u64()?;
            infos.push(Info {
                name,
                shape,
                kind,
                offset,
                at,
            });
        }
        Ok((metadata, infos))
    }

    fn take(&mut self, count: usize) -> Read<&[u8]> {
        let end = self
            .at
            .checked_add(count)
            .filter(|end| *end <= self.map.len());
        let Some(end) = end else {
            let left = self.map.len() - self.at;
            let reason =
                format!("the header is truncated: {count} bytes are wanted, {left} are left");
            return Err((self.at, reason));
        };
        let taken = &self.map[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (at, big_endian) = (self.at, self.big_endian);
        let taken = self.take(N)?;
        let mut bytes: [u8; N] = taken
            .try_into()
            .map_err(|_| (at, "the header is truncated".to_owned()))?;
        if big_endian {
            bytes.reverse();
        }
        Ok(bytes)
    }

    fn u32(&mut self) -> Read<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Read<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A count or length, which version 1 had half as wide.
    fn size(&mut self) -> Read<u64> {
        if self.version == 1 {
            Ok(self.u32()?.into())
        } else {
            self.u64()
        }
    }

    fn string(&mut self) -> Read<String> {
        let at = self.at;
        let length = self.size()?;
        let length =
            usize::try_from(length).map_err(|_| (at, format!("a text of {length} bytes")))?;
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    /// Writes a value as text; in an array, as JSON. `before` is how much text there is already.
    fn value(&mut self, kind: u32, text: &mut String, depth: usize, before: usize) -> Read<()> {
        let at = self.at;
        let written = match kind {
            0 => write!(text, "{}", self.array::<1>()?[0]),
            1 => write!(text, "{}", self.array::<1>()?[0].cast_signed()),
            2 => write!(text, "{}", u16::from_le_bytes(self.array()?)),
            3 => write!(text, "{}", i16::from_le_bytes(self.array()?)),
            4 => write!(text, "{}", self.u32()?),
            5 => write!(text, "{}", self.u32()?.cast_signed()),
            6 => {
                let value = f32::from_le_bytes(self.array()?);
                if value.is_finite() || depth == 0 {
                    write!(text, "{value:?}")
                } else {
                    write!(text, "null")
                }
            }
            7 => write!(text, "{}", self.array::<1>()?[0] != 0),
            8 => {
                let value = self.string()?;
                if depth == 0 {
                    text.push_str(&value);
                } else {
                    text.push_str(&serde_json::Value::String(value).to_string());
                }
                Ok(())
            }
            9 if depth < DEEPEST_ARRAY => {
                let kind = self.u32()?;
                let count = self.size()?;
                text.push('[');
                for place in 0..count {
                    if place > 0 {
                        text.push(',');
                    }
                    self.value(kind, text, depth + 1, before)?;
                    if before + text.len() > self.map.len().saturating_add(METADATA_MARGIN) {
                        return Err((at, "the metadata is larger than the file allows".to_owned()));
                    }
                }
                text.push(']');
                Ok(())
            }
            10 => write!(text, "{}", self.u64()?),
            11 => write!(text, "{}", self.u64()?.cast_signed()),
            12 => {
                let value = f64::from_le_bytes(self.array()?);
                if value.is_finite() || depth == 0 {
                    write!(text, "{value:?}")
                } else {
                    write!(text, "null")
                }
            }
            other => return Err((at, format!("the metadata's type {other} is not known"))),
        };
        written.map_err(|error| (at, error.to_string()))
    }
}
