//! NumPy's `.npy`, of versions 1 to 3, and `.npz`, stored or deflated.
//!
//! The layout is that of `numpy/lib/format.py`. The header, a Python literal, is parsed and not evaluated.
//! Arrays in Fortran order are laid out anew when they are read, big-endian ones turned around.
//!
//! An `.npy` is one tensor, called `array`; an `.npz` has one for each member, without its `.npy`. Types that
//! Burn has no name for — complex numbers, texts, dates, records, `bfloat16` as NumPy stores it — are listed
//! and not read; complex numbers are written to formats that have them. Arrays of Python objects are pickles, and are refused.

mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::TensorData;
use bytes::Bytes;
use indexmap::IndexMap;

use crate::checkpoint::{Checkpoint, Dtype, Entry, Format, Layout};
use crate::data::{self, clip};
use crate::error::FormatError;
use crate::map::map_file;
use crate::zip::{self, Archive, Member};

pub(crate) use write::{NPY, NPZ};

pub(crate) const MAGIC: &[u8; 6] = b"\x93NUMPY";
const FORMAT: &str = "NumPy";
/// The longest header. NumPy itself reads no more than 10,000 bytes of what it does not trust.
const MOST_HEADER: usize = 64 << 10;
/// NumPy has 64 dimensions since 2.0.
const MOST_DIMENSIONS: usize = 64;

/// Opens one `.npy` or `.npz` file.
///
/// # Errors
/// The file cannot be read, is truncated or corrupt, or holds Python objects.
pub fn open(path: &Path) -> Result<Checkpoint, FormatError> {
    let map = map_file(path)?;
    if zip::is_zip(&map) {
        npz(path, Archive::open(path, FORMAT, &map)?)
    } else {
        npy(path, &map)
    }
}

pub(crate) fn npy(path: &Path, map: &Bytes) -> Result<Checkpoint, FormatError> {
    let refuse = |(offset, reason)| malformed(path, offset, reason);
    let header = Header::read(map).map_err(refuse)?;
    let data = map.slice(header.length..);
    header.proven(data.len()).map_err(refuse)?;
    let entry = entry(path, "array", header, Source::Mapped(data), 0);
    let entries = IndexMap::from([("array".to_owned(), entry)]);
    Ok(Checkpoint::new(
        Format::Npy,
        vec![path.to_owned()],
        BTreeMap::new(),
        entries,
    ))
}

/// Where the data of an array of Python objects begins, if it is one.
pub(crate) fn objects(bytes: &[u8]) -> Option<usize> {
    let (begin, length) = match bytes.get(6)? {
        1 => (
            10,
            usize::from(u16::from_le_bytes(*bytes.get(8..)?.first_chunk()?)),
        ),
        _ => (
            12,
            u32::from_le_bytes(*bytes.get(8..)?.first_chunk()?) as usize,
        ),
    };
    let end = begin + length;
    let header = String::from_utf8_lossy(bytes.get(begin..end)?);
    ["'O'", "'|O'"]
        .iter()
        .any(|kind| header.contains(kind))
        .then_some(end)
}

/// Whether an archive is one of arrays; an empty one is by its name.
pub(crate) fn is_npz(path: &Path, archive: &Archive) -> bool {
    let named = path
        .extension()
        .is_some_and(|ending| ending.eq_ignore_ascii_case("npz"));
    let mut names = archive.members.keys();
    names.any(|name| name.ends_with(".npy")) || (named && archive.members.is_empty())
}

pub(crate) fn npz(path: &Path, archive: Archive) -> Result<Checkpoint, FormatError> {
    let archive = Arc::new(archive);
    let mut entries = IndexMap::new();
    for (member_name, member) in &archive.members {
        let Some(name) = member_name.strip_suffix(".npy") else {
            let reason = format!("`{}` in the archive is no `.npy`", clip(member_name));
            return Err(malformed(path, member.offset, reason));
        };
        let refuse = |(offset, reason): (usize, String)| {
            let reason = format!(
                "`{}`: {reason} (byte {offset} of the member)",
                clip(member_name)
            );
            malformed(path, member.offset, reason)
        };
        let begin = archive.prefix(member_name, member, MOST_HEADER)?;
        let header = Header::read(&begin).map_err(refuse)?;
        header
            .proven(member.size.saturating_sub(header.length))
            .map_err(refuse)?;
        let source = Source::Member(archive.clone(), member_name.clone(), member.clone());
        entries.insert(
            name.to_owned(),
            entry(path, name, header, source, member.offset),
        );
    }
    Ok(Checkpoint::new(
        Format::Npz,
        vec![path.to_owned()],
        BTreeMap::new(),
        entries,
    ))
}

fn malformed(path: &Path, offset: usize, reason: String) -> FormatError {
    FormatError::Malformed {
        path: path.to_owned(),
        format: FORMAT,
        offset: Some(offset as u64),
        reason,
    }
}

/// The type that a name such as `<f4` stands for, its size, and whether it is big-endian.
pub(crate) fn named(name: &str) -> Result<(Dtype, usize, bool), String> {
    element(&Literal::Text(name.to_owned()))
}

/// An array by its type as [`named`] has it, its shape and whether that is in Fortran's order, and its bytes, which lie
/// at `offset` of the file.
pub(crate) fn array(
    path: &Path,
    name: &str,
    (dtype, size, big_endian): (Dtype, usize, bool),
    (shape, fortran): (&[u64], bool),
    bytes: Bytes,
    offset: usize,
) -> Result<Entry, String> {
    let beyond = || format!("its shape {shape:?} is larger than any file");
    let sizes: Option<Vec<usize>> = shape
        .iter()
        .map(|size| usize::try_from(*size).ok())
        .collect();
    let header = Header {
        length: 0,
        dtype,
        size,
        big_endian,
        fortran,
        shape: shape.to_vec(),
        sizes: sizes.ok_or_else(beyond)?,
        bytes: bytes.len(),
    };
    let elements = data::elements(shape).ok_or_else(beyond)?;
    if elements.checked_mul(size as u64) != Some(bytes.len() as u64) {
        return Err(format!(
            "{} {shape:?} does not take the {} bytes it has",
            header.dtype,
            bytes.len()
        ));
    }
    Ok(entry(path, name, header, Source::Mapped(bytes), offset))
}

/// Where the bytes of an array are.
enum Source {
    /// Behind the header, in the map.
    Mapped(Bytes),
    /// In a member, header included.
    Member(Arc<Archive>, String, Member),
}

fn entry(path: &Path, name: &str, header: Header, source: Source, offset: usize) -> Entry {
    let reader = Reader {
        path: path.to_owned(),
        name: name.to_owned(),
        offset: (offset + header.length) as u64,
        header,
        source,
    };
    let header = &reader.header;
    let (dtype, shape, bytes) = (header.dtype.clone(), header.sizes.clone(), header.bytes);
    // PyTorch has no kernels, so that the name alone shows an array of TensorFlow or Flax.
    let layout = if name.ends_with("kernel") {
        Layout::InOut
    } else {
        Layout::OutIn
    };
    let is_complex = matches!(&dtype, Dtype::Other(name) if name == "C64" || name == "C128");
    let reader = Arc::new(reader);
    let stored = reader.clone();
    let entry = Entry::new(dtype, shape, bytes, move || reader.read()).with_layout(layout);
    if is_complex {
        return entry.with_stored(move || Ok(data::shared(stored.bytes()?)));
    }
    entry
}

struct Reader {
    path: PathBuf,
    name: String,
    offset: u64,
    header: Header,
    source: Source,
}

impl Reader {
    fn read(&self) -> Result<TensorData, FormatError> {
        let header = &self.header;
        let refuse = |reason: String| FormatError::Tensor {
            path: self.path.clone(),
            tensor: clip(&self.name),
            offset: Some(self.offset),
            reason,
        };
        if header.dtype.to_burn().is_none() {
            return Err(refuse(format!(
                "the type {} cannot be read; convert it to float32 first",
                header.dtype
            )));
        }
        data::typed(self.bytes()?, &header.sizes, &header.dtype).map_err(refuse)
    }

    /// The elements, little-endian and in row-major order.
    fn bytes(&self) -> Result<Bytes, FormatError> {
        let header = &self.header;
        let mut bytes = match &self.source {
            Source::Mapped(bytes) => bytes.slice(..header.bytes),
            Source::Member(archive, name, member) => {
                let whole = archive.checked_bytes(name, member)?;
                whole.slice(header.length..header.length + header.bytes)
            }
        };
        if header.fortran && header.bytes > 0 {
            let mut stride = 1;
            let mut strides = Vec::with_capacity(header.shape.len());
            for size in &header.shape {
                strides.push(stride);
                stride *= size;
            }
            bytes = data::gather(&bytes, header.size, &header.shape, &strides).into();
        }
        if header.big_endian {
            // Each half of a complex number is turned around.
            let is_complex = matches!(header.dtype, Dtype::Other(_));
            let word = if is_complex {
                header.size / 2
            } else {
                header.size
            };
            bytes = data::swapped(&bytes, word).into();
        }
        Ok(bytes)
    }
}

/// What an array's header says.
#[derive(Debug)]
struct Header {
    /// How many bytes come before the data.
    length: usize,
    dtype: Dtype,
    /// The size of an element.
    size: usize,
    big_endian: bool,
    fortran: bool,
    shape: Vec<u64>,
    sizes: Vec<usize>,
    /// The size of the data.
    bytes: usize,
}

type Refusal = (usize, String);

impl Header {
    fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let truncated = || {
            let reason = format!(
                "its {} bytes are less than its header; it is truncated, or the header is too long",
                bytes.len()
            );
            (0, reason)
        };
        if !bytes.starts_with(MAGIC) {
            return Err((0, "it does not begin with `\\x93NUMPY`".to_owned()));
        }
        let (begin, length) = match bytes.get(6).ok_or_else(truncated)? {
            1 => {
                let length = bytes
                    .get(8..)
                    .and_then(|rest| rest.first_chunk())
                    .ok_or_else(truncated)?;
                (10, usize::from(u16::from_le_bytes(*length)))
            }
            2 | 3 => {
                let length = bytes
                    .get(8..)
                    .and_then(|rest| rest.first_chunk())
                    .ok_or_else(truncated)?;
                (12, u32::from_le_bytes(*length) as usize)
            }
            other => {
                return Err((
                    6,
                    format!("version {other} is not known; versions 1 to 3 are"),
                ));
            }
        };
        let end = begin + length;
        let text = bytes.get(begin..end).ok_or_else(truncated)?;
        // Version 3 is UTF-8; before it Latin-1, which differs in the names of fields alone.
        let text = String::from_utf8_lossy(text);
        let fields = Literal::parse(&text).map_err(|(at, reason)| (begin + at, reason))?;
        let refuse = |reason: String| (begin, reason);
        let Literal::Dict(fields) = fields else {
            return Err(refuse("its header is no dictionary".to_owned()));
        };
        let mut fields: BTreeMap<String, Literal> = fields.into_iter().collect();
        let mut field = |name: &str| {
            let found = fields.remove(name);
            found.ok_or_else(|| refuse(format!("its header has no `{name}`")))
        };
        let (descr, order, shape) = (field("descr")?, field("fortran_order")?, field("shape")?);
        let Literal::Bool(fortran) = order else {
            return Err(refuse(
                "its `fortran_order` is neither True nor False".to_owned(),
            ));
        };
        let Literal::Tuple(shape) = shape else {
            return Err(refuse("its `shape` is no tuple".to_owned()));
        };
        if shape.len() > MOST_DIMENSIONS {
            return Err(refuse(format!(
                "its `shape` has {} dimensions",
                shape.len()
            )));
        }
        let sizes = shape.iter().map(|size| match size {
            Literal::Int(size) => Ok(*size),
            _ => Err(refuse("its `shape` has what is no number".to_owned())),
        });
        let shape = sizes.collect::<Result<Vec<u64>, Refusal>>()?;
        let (dtype, size, big_endian) = element(&descr).map_err(refuse)?;
        let bytes = data::elements(&shape).and_then(|elements| elements.checked_mul(size as u64));
        let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok());
        let sizes: Option<Vec<usize>> = shape
            .iter()
            .map(|size| usize::try_from(*size).ok())
            .collect();
        let (Some(bytes), Some(sizes)) = (bytes, sizes) else {
            return Err(refuse(format!(
                "its shape {shape:?} is larger than any file"
            )));
        };
        Ok(Self {
            length: end,
            dtype,
            size,
            big_endian,
            fortran,
            shape,
            sizes,
            bytes,
        })
    }

    /// Whether the data has the size that shape and type make.
    fn proven(&self, available: usize) -> Result<(), Refusal> {
        if available == self.bytes || self.size == 0 {
            return Ok(());
        }
        let reason = format!(
            "{} {:?} takes {} bytes, {available} follow the header",
            self.dtype, self.shape, self.bytes
        );
        Err((self.length, reason))
    }
}

/// The type that a `descr` names, its size, and whether it is big-endian.
fn element(descr: &Literal) -> Result<(Dtype, usize, bool), String> {
    let text = match descr {
        Literal::Text(text) => text,
        // Records: their size is the sum of their fields', and nobody reads them.
        Literal::List(_) => return Ok((Dtype::Other("record".to_owned()), 0, false)),
        _ => return Err("its `descr` is neither a text nor a list".to_owned()),
    };
    let (order, name) = match text.split_at_checked(1) {
        Some((order @ ("<" | ">" | "|" | "="), name)) => (order, name),
        _ => ("=", &text[..]),
    };
    let digits = name
        .trim_start_matches(|c: char| c.is_ascii_alphabetic())
        .split('[')
        .next();
    let number: usize = digits.and_then(|digits| digits.parse().ok()).unwrap_or(0);
    let known = match name {
        "f8" => Dtype::F64,
        "f4" => Dtype::F32,
        "f2" => Dtype::F16,
        "i8" => Dtype::I64,
        "i4" => Dtype::I32,
        "i2" => Dtype::I16,
        "i1" => Dtype::I8,
        "u8" => Dtype::U64,
        "u4" => Dtype::U32,
        "u2" => Dtype::U16,
        "u1" => Dtype::U8,
        "b1" => Dtype::Bool,
        _ => {
            let (shown, size) = match name.chars().next() {
                Some('O') => {
                    return Err("it holds Python objects, which are pickles that nothing here runs; save numbers".to_owned());
                }
                Some('c') => {
                    let shown = format!("C{}", number.saturating_mul(8));
                    return Ok((Dtype::Other(shown), number, order == ">"));
                }
                Some('U') => (clip(text), number.saturating_mul(4)),
                Some('S' | 'a' | 'V' | 'f') => (clip(text), number),
                Some('M' | 'm') => (clip(text), 8),
                _ => return Err(format!("its type `{}` is not known", clip(text))),
            };
            return Ok((Dtype::Other(shown), size, false));
        }
    };
    Ok((known, number, order == ">"))
}

/// A Python literal, as far as headers have them.
#[derive(Debug, PartialEq)]
enum Literal {
    Bool(bool),
    Int(u64),
    Text(String),
    Tuple(Vec<Literal>),
    List(Vec<Literal>),
    Dict(Vec<(String, Literal)>),
}

/// A text that is being parsed, and how far.
struct Parser<'a> {
    text: &'a str,
    at: usize,
}

/// The deepest nesting: records in records.
const DEEPEST: usize = 16;

impl Literal {
    fn parse(text: &str) -> Result<Self, Refusal> {
        let mut parser = Parser { text, at: 0 };
        let literal = parser.literal(0)?;
        parser.skip();
        if parser.at < text.len() {
            return Err(parser.refuse("something follows the header's dictionary"));
        }
        Ok(literal)
    }
}

impl Parser<'_> {
    fn refuse(&self, reason: &str) -> Refusal {
        (self.at, reason.to_owned())
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    /// Goes past `token` if it is next.
    fn eat(&mut self, token: &str) -> bool {
        self.skip();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn literal(&mut self, depth: usize) -> Result<Literal, Refusal> {
        if depth > DEEPEST {
            return Err(self.refuse("its header is nested too deeply"));
        }
        self.skip();
        if self.eat("{") {
            let mut items = Vec::new();
            while !self.eat("}") {
                let Literal::Text(key) = self.literal(depth + 1)? else {
                    return Err(self.refuse("a key of its header is no text"));
                };
                if !self.eat(":") {
                    return Err(self.refuse("a key of its header has no value"));
                }
                items.push((key, self.literal(depth + 1)?));
                self.comma("}")?;
            }
            return Ok(Literal::Dict(items));
        }
        if self.eat("(") {
            return Ok(Literal::Tuple(self.items(")", depth)?));
        }
        if self.eat("[") {
            return Ok(Literal::List(self.items("]", depth)?));
        }
        for (word, value) in [("True", true), ("False", false)] {
            if self.eat(word) {
                return Ok(Literal::Bool(value));
            }
        }
        for quote in ["'", "\""] {
            if self.eat(quote) {
                let end = self
                    .rest()
                    .find(quote)
                    .ok_or_else(|| self.refuse("a text of its header does not end"))?;
                let text = self.rest()[..end].to_owned();
                self.at += end + 1;
                return Ok(Literal::Text(text));
            }
        }
        let rest = self.rest();
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number = rest[..digits]
            .parse()
            .map_err(|_| self.refuse("its header has what is no literal"))?;
        self.at += digits;
        // Python 2 wrote some sizes as `3L`.
        self.eat("L");
        Ok(Literal::Int(number))
    }

    fn items(&mut self, close: &str, depth: usize) -> Result<Vec<Literal>, Refusal> {
        let mut items = Vec::new();
        while !self.eat(close) {
            items.push(self.literal(depth + 1)?);
            self.comma(close)?;
        }
        Ok(items)
    }

    /// A comma, or what closes.
    fn comma(&mut self, close: &str) -> Result<(), Refusal> {
        self.skip();
        if self.eat(",") || self.rest().starts_with(close) {
            return Ok(());
        }
        Err(self.refuse("its header lacks a comma"))
    }
}
