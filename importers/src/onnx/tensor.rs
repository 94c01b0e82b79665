//! One tensor of the file: its type, its shape, and where its data is.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

use crate::FormatError;
use crate::checkpoint::Dtype;
use crate::data::{self, clip};
use crate::float8::{Float8, e2m1};
use crate::map::map_file;
use crate::protobuf::{Refusal, Slice, Wire};

/// ONNX has no limit of its own.
const MOST_DIMENSIONS: usize = 64;

/// An element type of `TensorProto.DataType`.
#[derive(Debug)]
pub(super) struct Kind {
    id: u64,
    pub(super) bits: usize,
    pub(super) values: Values,
}

/// How the bytes become values.
#[derive(Debug)]
pub(super) enum Values {
    /// They are values already.
    Plain(Dtype),
    /// Each byte, or each part of one, becomes an `f32`; the name is ONNX's.
    Small(&'static str, fn(u8) -> f32),
    /// They are listed and not read.
    Listed(&'static str),
}

const fn kind(id: u64, bits: usize, values: Values) -> Kind {
    Kind { id, bits, values }
}

fn int4(bits: u8) -> f32 {
    f32::from((bits << 4).cast_signed() >> 4)
}

fn int2(bits: u8) -> f32 {
    f32::from((bits << 6).cast_signed() >> 6)
}

static KINDS: &[Kind] = &[
    kind(1, 32, Values::Plain(Dtype::F32)),
    kind(2, 8, Values::Plain(Dtype::U8)),
    kind(3, 8, Values::Plain(Dtype::I8)),
    kind(4, 16, Values::Plain(Dtype::U16)),
    kind(5, 16, Values::Plain(Dtype::I16)),
    kind(6, 32, Values::Plain(Dtype::I32)),
    kind(7, 64, Values::Plain(Dtype::I64)),
    kind(8, 0, Values::Listed("STRING")),
    kind(9, 8, Values::Plain(Dtype::Bool)),
    kind(10, 16, Values::Plain(Dtype::F16)),
    kind(11, 64, Values::Plain(Dtype::F64)),
    kind(12, 32, Values::Plain(Dtype::U32)),
    kind(13, 64, Values::Plain(Dtype::U64)),
    kind(14, 64, Values::Listed("COMPLEX64")),
    kind(15, 128, Values::Listed("COMPLEX128")),
    kind(16, 16, Values::Plain(Dtype::BF16)),
    kind(
        17,
        8,
        Values::Small("FLOAT8E4M3FN", |byte| Float8::E4M3.value(byte)),
    ),
    kind(
        18,
        8,
        Values::Small("FLOAT8E4M3FNUZ", |byte| Float8::E4M3Fnuz.value(byte)),
    ),
    kind(
        19,
        8,
        Values::Small("FLOAT8E5M2", |byte| Float8::E5M2.value(byte)),
    ),
    kind(
        20,
        8,
        Values::Small("FLOAT8E5M2FNUZ", |byte| Float8::E5M2Fnuz.value(byte)),
    ),
    kind(21, 4, Values::Small("UINT4", f32::from)),
    kind(22, 4, Values::Small("INT4", int4)),
    kind(23, 4, Values::Small("FLOAT4E2M1", e2m1)),
    kind(
        24,
        8,
        Values::Small("FLOAT8E8M0", |byte| Float8::E8M0.value(byte)),
    ),
    kind(25, 2, Values::Small("UINT2", f32::from)),
    kind(26, 2, Values::Small("INT2", int2)),
];

impl Kind {
    pub(super) fn dtype(&self) -> Dtype {
        match &self.values {
            Values::Plain(dtype) => dtype.clone(),
            Values::Small(name, _) => Dtype::Quantized(name),
            Values::Listed(name) => Dtype::Other((*name).to_owned()),
        }
    }

    /// ONNX's name of a type that weights are quantized to.
    pub(super) fn quantized_name(&self) -> &'static str {
        match (&self.values, self.id) {
            (Values::Small(name, _) | Values::Listed(name), _) => name,
            (_, 2) => "UINT8",
            (_, 3) => "INT8",
            (_, 4) => "UINT16",
            (_, 5) => "INT16",
            (_, 6) => "INT32",
            _ => "QUANTIZED",
        }
    }

    pub(super) fn is_float(&self) -> bool {
        self.dtype().to_burn().is_some_and(|dtype| dtype.is_float())
    }
}

/// Where a tensor's data is.
#[derive(Debug, Clone)]
enum Place<'a> {
    /// Little-endian bytes in the file.
    Raw(Slice<'a>),
    /// Bytes of another file.
    External(Bytes),
    /// Numbers in the typed field of that number.
    Typed(u32),
}

/// A tensor as the file has it, its size proven.
#[derive(Debug, Clone)]
pub(super) struct Tensor<'a> {
    pub(super) name: &'a str,
    /// Where its message begins.
    pub(super) at: usize,
    pub(super) kind: &'static Kind,
    pub(super) shape: Vec<usize>,
    message: Slice<'a>,
    place: Place<'a>,
}

impl<'a> Tensor<'a> {
    /// Reads a `TensorProto`; `elsewhere` has the files of external data.
    pub(super) fn read(message: Slice<'a>, elsewhere: &mut Elsewhere) -> Result<Self, Failure> {
        let mut name = "";
        let mut dims: Vec<u64> = Vec::new();
        let mut id = 0;
        let mut raw = None;
        let mut typed = None;
        let mut external = false;
        let mut reference = Reference::default();
        for field in message.fields() {
            match field? {
                (1, Wire::Varint(size)) => dims.push(size),
                (1, Wire::Bytes(mut packed)) => {
                    while !packed.bytes.is_empty() && dims.len() <= MOST_DIMENSIONS {
                        dims.push(packed.varint()?);
                    }
                }
                (2, Wire::Varint(value)) => id = value,
                (3, _) => {
                    let reason = "it is cut into segments, which are not supported".to_owned();
                    return Err(Failure::Tensor(reason));
                }
                (4 | 5 | 7 | 10 | 11, Wire::Bytes(packed)) if packed.bytes.is_empty() => {}
                (number @ (4 | 5 | 7 | 10 | 11), _) => typed = Some(number),
                (8, Wire::Bytes(text)) => name = text.text()?,
                (9, Wire::Bytes(bytes)) => raw = Some(bytes),
                (13, Wire::Bytes(entry)) => reference.read(entry)?,
                (14, Wire::Varint(location)) => external = location == 1,
                _ => {}
            }
            if dims.len() > MOST_DIMENSIONS {
                let reason = format!("it has more than {MOST_DIMENSIONS} dimensions");
                return Err(Failure::Tensor(reason));
            }
        }
        let refuse = |reason: String| Failure::Named(clip(name), message.at, reason);
        let kind = KINDS.iter().find(|kind| kind.id == id);
        let kind = kind.ok_or_else(|| refuse(format!("its data type {id} is not known")))?;
        let shape: Option<Vec<usize>> = dims
            .iter()
            .map(|size| usize::try_from(*size).ok())
            .collect();
        let (Some(elements), Some(shape)) = (data::elements(&dims), shape) else {
            return Err(refuse(format!(
                "its shape {dims:?} is larger than any file"
            )));
        };
        let bits = elements.checked_mul(kind.bits as u64);
        let size = bits.and_then(|bits| usize::try_from(bits.div_ceil(8)).ok());
        let size =
            size.ok_or_else(|| refuse(format!("its shape {dims:?} is larger than any file")))?;
        let place = if external {
            let bytes = elsewhere.bytes(name, &reference, size)?;
            Place::External(bytes)
        } else if let Some(bytes) = raw {
            if bytes.bytes.len() != size && kind.bits > 0 {
                let reason = format!(
                    "{} {dims:?} takes {size} bytes, it has {}",
                    kind.dtype(),
                    bytes.bytes.len()
                );
                return Err(refuse(reason));
            }
            Place::Raw(bytes)
        } else {
            let number = typed.unwrap_or(4);
            let expected = match kind.bits {
                4 => elements.div_ceil(2),
                2 => elements.div_ceil(4),
                _ => elements,
            };
            let found = count(message, number)?;
            if kind.bits > 0 && !matches!(kind.id, 14 | 15) && found != expected {
                let reason = format!(
                    "{} {dims:?} takes {expected} numbers, it has {found}",
                    kind.dtype()
                );
                return Err(refuse(reason));
            }
            Place::Typed(number)
        };
        Ok(Self {
            name,
            at: message.at,
            kind,
            shape,
            message,
            place,
        })
    }

    pub(super) fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// How many bytes the data takes, packed.
    pub(super) fn size(&self) -> usize {
        (self.elements() * self.kind.bits).div_ceil(8)
    }

    /// The same tensor, free of the file's borrow: the data stays in the map.
    pub(super) fn owned(&self, map: &Bytes) -> Owned {
        let place = match &self.place {
            Place::Raw(slice) => OwnedPlace::Bytes(map.slice_ref(slice.bytes)),
            Place::External(bytes) => OwnedPlace::Bytes(bytes.clone()),
            Place::Typed(number) => OwnedPlace::Typed(map.slice_ref(self.message.bytes), *number),
        };
        Owned {
            kind: self.kind,
            shape: self.shape.clone(),
            place,
        }
    }
}

/// A tensor that can be read when it is wanted.
#[derive(Debug, Clone)]
pub(super) struct Owned {
    pub(super) kind: &'static Kind,
    pub(super) shape: Vec<usize>,
    place: OwnedPlace,
}

#[derive(Debug, Clone)]
enum OwnedPlace {
    Bytes(Bytes),
    Typed(Bytes, u32),
}

impl Owned {
    /// The bytes, little-endian and packed; a copy only where typed fields have them otherwise.
    pub(super) fn bytes(&self) -> Result<Bytes, String> {
        let (message, number) = match &self.place {
            OwnedPlace::Bytes(bytes) => return Ok(bytes.clone()),
            OwnedPlace::Typed(message, number) => (message, *number),
        };
        let width = match self.kind.bits {
            2 | 4 => 1,
            bits => bits / 8,
        };
        let mut gathered = Vec::new();
        let mut chunks = 0;
        for field in Slice::whole(message).fields() {
            let (found, value) = field.map_err(|(_, reason)| reason)?;
            if found != number {
                continue;
            }
            chunks += 1;
            match value {
                Wire::Fixed32(bytes) => gathered.extend(bytes),
                Wire::Fixed64(bytes) => gathered.extend(bytes),
                Wire::Varint(value) => gathered.extend(&value.to_le_bytes()[..width]),
                Wire::Bytes(packed) if matches!(number, 4 | 10) => {
                    let all = Slice::whole(message).fields();
                    let only =
                        chunks == 1 && all.flatten().filter(|(n, _)| *n == number).count() == 1;
                    if only {
                        return Ok(message.slice_ref(packed.bytes));
                    }
                    gathered.extend(packed.bytes);
                }
                Wire::Bytes(mut packed) => {
                    while !packed.bytes.is_empty() {
                        let value = packed.varint().map_err(|(_, reason)| reason)?;
                        gathered.extend(&value.to_le_bytes()[..width]);
                    }
                }
            }
        }
        Ok(gathered.into())
    }

    /// The values as `f32`, for types that have them.
    pub(super) fn floats(&self) -> Result<Vec<f32>, String> {
        let bytes = self.bytes()?;
        let elements = self.shape.iter().product();
        match &self.kind.values {
            Values::Plain(dtype) => {
                let data = data::typed(bytes, &self.shape, dtype)?;
                Ok(data.iter::<f32>().collect())
            }
            Values::Small(_, decode) => {
                let bits = self.kind.bits;
                let parts = 8 / bits;
                let mask = u8::MAX >> (8 - bits);
                let values = bytes.iter().flat_map(|byte| {
                    (0..parts).map(move |part| decode((byte >> (part * bits)) & mask))
                });
                Ok(values.take(elements).collect())
            }
            Values::Listed(name) => Err(format!("the type {name} cannot be read")),
        }
    }
}

/// How many numbers a typed field has.
fn count(message: Slice, number: u32) -> Result<u64, Refusal> {
    let mut count = 0;
    for field in message.fields() {
        let (found, value) = field?;
        if found != number {
            continue;
        }
        count += match value {
            Wire::Bytes(packed) if number == 4 => (packed.bytes.len() / 4) as u64,
            Wire::Bytes(packed) if number == 10 => (packed.bytes.len() / 8) as u64,
            // A number ends with the byte whose highest bit is clear.
            Wire::Bytes(packed) => packed.bytes.iter().filter(|byte| **byte < 0x80).count() as u64,
            _ => 1,
        };
    }
    Ok(count)
}

/// Why a tensor cannot be had.
#[derive(Debug)]
pub(super) enum Failure {
    /// The message is broken there.
    Broken(Refusal),
    /// Something is wrong with the tensor before its name is known.
    Tensor(String),
    /// Something is wrong with the tensor of that name, whose message begins there.
    Named(String, usize, String),
    /// Another file cannot be read.
    Format(FormatError),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Broken(refusal)
    }
}

impl From<FormatError> for Failure {
    fn from(error: FormatError) -> Self {
        Self::Format(error)
    }
}

/// What `external_data` says.
#[derive(Debug, Default)]
struct Reference<'a> {
    location: Option<&'a str>,
    offset: Option<&'a str>,
    length: Option<&'a str>,
}

impl<'a> Reference<'a> {
    fn read(&mut self, entry: Slice<'a>) -> Result<(), Refusal> {
        let (mut key, mut value) = ("", "");
        for field in entry.fields() {
            match field? {
                (1, Wire::Bytes(text)) => key = text.text()?,
                (2, Wire::Bytes(text)) => value = text.text()?,
                _ => {}
            }
        }
        match key {
            "location" => self.location = Some(value),
            "offset" => self.offset = Some(value),
            "length" => self.length = Some(value),
            // A checksum, which writers do not write, or a hint.
            _ => {}
        }
        Ok(())
    }
}

/// The files of external data, each mapped once.
pub(super) struct Elsewhere {
    path: PathBuf,
    files: HashMap<PathBuf, Bytes>,
}

impl Elsewhere {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            files: HashMap::new(),
        }
    }

    /// The files that were needed, in the order of their names.
    pub(super) fn files(self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = self.files.into_keys().collect();
        files.sort();
        files
    }

    /// The bytes of a tensor, `size` of them.
    fn bytes(
        &mut self,
        name: &str,
        reference: &Reference,
        size: usize,
    ) -> Result<Bytes, FormatError> {
        let refuse = |reason: String| FormatError::Tensor {
            path: self.path.clone(),
            tensor: clip(name),
            offset: None,
            reason,
        };
        let location = reference.location.unwrap_or_default();
        let relative = Path::new(location);
        let plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        // A backslash separates folders elsewhere.
        if location.is_empty() || location.contains('\\') || !relative.components().all(plain) {
            return Err(refuse(format!(
                "its data is said to be in `{}`, which is not a file under the model's directory",
                clip(location)
            )));
        }
        let number = |text: Option<&str>| text.map(str::parse::<usize>).transpose();
        let (Ok(offset), Ok(length)) = (number(reference.offset), number(reference.length)) else {
            return Err(refuse(
                "the offset or length of its external data is no number".to_owned(),
            ));
        };
        let (offset, length) = (offset.unwrap_or(0), length.unwrap_or(size));
        if length != size {
            return Err(refuse(format!(
                "its shape and type take {size} bytes, its external data has {length}"
            )));
        }
        let file = self.path.with_file_name("").join(relative);
        let map = match self.files.get(&file) {
            Some(map) => map.clone(),
            None if !file.is_file() => {
                return Err(FormatError::MissingShard {
                    path: self.path.clone(),
                    shard: clip(location),
                    tensor: clip(name),
                });
            }
            None => {
                let map = map_file(&file)?;
                self.files.insert(file, map.clone());
                map
            }
        };
        let end = offset.checked_add(length).filter(|end| *end <= map.len());
        let end = end.ok_or_else(|| {
            refuse(format!(
                "its {length} bytes at byte {offset} of `{}` reach beyond that file of {} bytes; it is truncated",
                clip(location),
                map.len()
            ))
        })?;
        Ok(map.slice(offset..end))
    }
}
