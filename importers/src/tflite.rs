//! TFLite (LiteRT) models: the tensors that have data.
//!
//! The layout is that of `tensorflow/compiler/mlir/lite/schema/schema.fbs`, version 3 of the schema, of TensorFlow
//! 2.17: one FlatBuffer, behind which large buffers may lie. It is read in place.
//!
//! Tensors with scales and zero points, one or one for each slice of a dimension, become `f32` when they are read:
//! `scale · (value − zero point)`. Quantization by blocks, sparse tensors and texts are listed and not read.
//!
//! Tensors have the names of the file. The second of two with the same name has its number behind a colon, one
//! without a name is called `tensor:NUMBER`; behind a slash after the name of their graph, where it is not the
//! first.
//!
//! These names are the converter's: a weight is called after the operation that takes it (`model/dense/MatMul`) or
//! after nothing (`arith.constant7`), as biases mostly are, and norms are folded away. No table of names can say
//! which parameter such a tensor is, so that these files are listed, read and converted, and no model is run from them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use bytes::Bytes;
use indexmap::IndexMap;

use crate::checkpoint::{Checkpoint, Dtype, Entry, Format};
use crate::data::{self, VIEW_MARGIN, clip};
use crate::error::FormatError;
use crate::map::map_file;

const FORMAT: &str = "TFLite";
/// Where a FlatBuffer says what it is.
const MAGIC: (usize, &[u8]) = (4, b"TFL3");
const VERSION: u32 = 3;
const MOST_DIMENSIONS: usize = 64;

/// Opens one TFLite model.
///
/// # Errors
/// The file cannot be read, is truncated or corrupt, or of another version.
pub fn open(path: &Path) -> Result<Checkpoint, FormatError> {
    read(path, &map_file(path)?)
}

pub(crate) fn is_tflite(bytes: &[u8]) -> bool {
    let (at, magic) = MAGIC;
    bytes.get(at..).is_some_and(|rest| rest.starts_with(magic))
}

pub(crate) fn read(path: &Path, map: &Bytes) -> Result<Checkpoint, FormatError> {
    let refuse = |(offset, reason): Refusal| FormatError::Malformed {
        path: path.to_owned(),
        format: FORMAT,
        offset: Some(offset as u64),
        reason,
    };
    if !is_tflite(map) {
        return Err(refuse((4, "it does not say that it is one".to_owned())));
    }
    let model = Model::read(map).map_err(refuse)?;
    let mut entries = IndexMap::new();
    let mut budget = map.len() as u64 + VIEW_MARGIN;
    let mut number = 0;
    for graph in 0..model.graphs.count {
        let graph = model.graphs.table(map, graph).map_err(refuse)?;
        let scope = match graph.at {
            at if model.first == Some(at) => String::new(),
            _ => format!(
                "{}/",
                graph
                    .text(map, GRAPH_NAME)
                    .map_err(refuse)?
                    .unwrap_or_default()
            ),
        };
        let tensors = graph.vector(map, GRAPH_TENSORS, 4).map_err(refuse)?;
        for tensor in 0..tensors.count {
            let table = tensors.table(map, tensor).map_err(refuse)?;
            number += 1;
            // A table takes some bytes, unless graphs share theirs, and then there is no end.
            if number > map.len() / 4 {
                return Err(refuse((
                    table.at,
                    "it claims more tensors than it has bytes".to_owned(),
                )));
            }
            let Some(reader) = model.tensor(path, map, &table).map_err(refuse)? else {
                continue;
            };
            let own = table
                .text(map, TENSOR_NAME)
                .map_err(refuse)?
                .unwrap_or_default();
            let mut name = format!("{scope}{own}");
            if own.is_empty() {
                name = format!("{scope}tensor:{}", number - 1);
            } else if entries.contains_key(&name) {
                name = format!("{name}:{}", number - 1);
            }
            // Many tensors may share one table, and with it one long name.
            let cost = (name.len() + 8 * reader.shape.len()) as u64;
            let rest = budget.checked_sub(cost);
            budget = rest.ok_or_else(|| {
                refuse((
                    table.at,
                    "the names are larger than the file allows".to_owned(),
                ))
            })?;
            let reader = Reader {
                name: name.clone(),
                ..reader
            };
            let (dtype, shape, bytes) = (
                reader.dtype.clone(),
                reader.shape.clone(),
                reader.bytes.len(),
            );
            let entry = Entry::new(dtype, shape, bytes, move || reader.read());
            if entries.insert(name, entry).is_some() {
                return Err(refuse((table.at, "a name is there twice".to_owned())));
            }
        }
    }
    let mut metadata = BTreeMap::new();
    if let Some(description) = model.root.text(map, MODEL_DESCRIPTION).map_err(refuse)? {
        metadata.insert("tflite.description".to_owned(), description);
    }
    Ok(Checkpoint::new(
        Format::TfLite,
        vec![path.to_owned()],
        metadata,
        entries,
    ))
}

// The places of the fields that are read in their tables.
const MODEL_VERSION: usize = 0;
const MODEL_GRAPHS: usize = 2;
const MODEL_DESCRIPTION: usize = 3;
const MODEL_BUFFERS: usize = 4;
const GRAPH_TENSORS: usize = 0;
const GRAPH_NAME: usize = 4;
const TENSOR_SHAPE: usize = 0;
const TENSOR_TYPE: usize = 1;
const TENSOR_BUFFER: usize = 2;
const TENSOR_NAME: usize = 3;
const TENSOR_QUANTIZATION: usize = 4;
const TENSOR_SPARSITY: usize = 6;
const QUANTIZATION_SCALES: usize = 2;
const QUANTIZATION_ZEROS: usize = 3;
const QUANTIZATION_DETAILS: usize = 4;
const QUANTIZATION_DIMENSION: usize = 6;
const BUFFER_DATA: usize = 0;
const BUFFER_OFFSET: usize = 1;
const BUFFER_SIZE: usize = 2;

/// A type's name as stored and, with scales, as quantized; and how many bits an element takes.
struct Kind {
    dtype: Dtype,
    quantized: Option<&'static str>,
    bits: u64,
}

fn kind(code: u8) -> Option<Kind> {
    let (dtype, quantized, bits) = match code {
        0 => (Dtype::F32, None, 32),
        1 => (Dtype::F16, None, 16),
        2 => (Dtype::I32, Some("QINT32"), 32),
        3 => (Dtype::U8, Some("QUINT8"), 8),
        4 => (Dtype::I64, Some("QINT64"), 64),
        5 => (Dtype::Other("STRING".to_owned()), None, 0),
        6 => (Dtype::Bool, None, 8),
        7 => (Dtype::I16, Some("QINT16"), 16),
        8 => (Dtype::Other("COMPLEX64".to_owned()), None, 64),
        9 => (Dtype::I8, Some("QINT8"), 8),
        10 => (Dtype::F64, None, 64),
        11 => (Dtype::Other("COMPLEX128".to_owned()), None, 128),
        12 => (Dtype::U64, None, 64),
        13 => (Dtype::Other("RESOURCE".to_owned()), None, 0),
        14 => (Dtype::Other("VARIANT".to_owned()), None, 0),
        15 => (Dtype::U32, None, 32),
        16 => (Dtype::U16, Some("QUINT16"), 16),
        17 => (Dtype::Other("INT4".to_owned()), Some("QINT4"), 4),
        18 => (Dtype::BF16, None, 16),
        _ => return None,
    };
    Some(Kind {
        dtype,
        quantized,
        bits,
    })
}

struct Model {
    root: Table,
    graphs: Vector,
    /// Where the first graph is, whose tensors have their names alone.
    first: Option<usize>,
    buffers: Vector,
}

impl Model {
    fn read(map: &[u8]) -> Result<Self, Refusal> {
        let root = Table::at(map, u32_at(map, 0)? as usize)?;
        let version = root.number(map, MODEL_VERSION, u32_at)?.unwrap_or(0);
        if version != VERSION {
            return Err((
                root.at,
                format!("version {version} of the schema is not known; {VERSION} is"),
            ));
        }
        let graphs = root.vector(map, MODEL_GRAPHS, 4)?;
        let first = match graphs.count {
            0 => None,
            _ => Some(graphs.table(map, 0)?.at),
        };
        Ok(Self {
            first,
            graphs,
            buffers: root.vector(map, MODEL_BUFFERS, 4)?,
            root,
        })
    }

    /// A tensor that has data, without its name.
    fn tensor(&self, path: &Path, map: &Bytes, table: &Table) -> Result<Option<Reader>, Refusal> {
        let buffer = table.number(map, TENSOR_BUFFER, u32_at)?.unwrap_or(0) as usize;
        if buffer == 0 {
            return Ok(None);
        }
        if buffer >= self.buffers.count {
            return Err((
                table.at,
                format!("buffer {buffer} of {} is not there", self.buffers.count),
            ));
        }
        let (from, to) = self.data(map, buffer)?;
        let shape = table.vector(map, TENSOR_SHAPE, 4)?;
        if shape.count > MOST_DIMENSIONS {
            return Err((shape.at, format!("a shape of {} dimensions", shape.count)));
        }
        let sizes = (0..shape.count).map(|place| {
            let size = i32_at(map, shape.at + 4 * place)?;
            u64::try_from(size).map_err(|_| (shape.at, format!("a dimension of {size}")))
        });
        let sizes: Vec<u64> = sizes.collect::<Result<_, _>>()?;
        let elements = data::elements(&sizes).ok_or_else(|| {
            (
                shape.at,
                format!("the shape {sizes:?} is larger than any file"),
            )
        })?;
        // What is computed has no data yet.
        if from == to && elements > 0 {
            return Ok(None);
        }
        let code = table.number(map, TENSOR_TYPE, u8_at)?.unwrap_or(0);
        let kind = kind(code).ok_or_else(|| (table.at, format!("the type {code} is not known")))?;
        let mut dtype = kind.dtype;
        let mut scales = None;
        if table.field(map, TENSOR_SPARSITY)?.is_some() {
            dtype = Dtype::Other(format!("sparse {dtype}"));
        } else if let Some(quantization) = table.child(map, TENSOR_QUANTIZATION)? {
            if quantization
                .number(map, QUANTIZATION_DETAILS, u8_at)?
                .unwrap_or(0)
                != 0
            {
                dtype = Dtype::Other(format!("{dtype} in blocks"));
            } else if let Some(name) = kind.quantized {
                scales = Scales::read(map, &quantization, &sizes)?;
                if scales.is_some() {
                    dtype = Dtype::Quantized(name);
                }
            }
        }
        let reader = Reader {
            path: path.to_owned(),
            name: String::new(),
            offset: from as u64,
            code,
            dtype,
            shape: sizes.iter().map(|size| *size as usize).collect(),
            bytes: map.slice(from..to),
            scales,
        };
        if kind.bits > 0 && !matches!(reader.dtype, Dtype::Other(_)) {
            let wanted = elements.checked_mul(kind.bits).map(|bits| bits.div_ceil(8));
            if wanted != Some((to - from) as u64) {
                let reason = format!("{} bytes are not {} {sizes:?}", to - from, reader.dtype);
                return Err((from, reason));
            }
        }
        Ok(Some(reader))
    }

    /// Where the data of a buffer begins and ends: in it, or behind the FlatBuffer.
    fn data(&self, map: &[u8], buffer: usize) -> Result<(usize, usize), Refusal> {
        let table = self.buffers.table(map, buffer)?;
        let inside = table.vector(map, BUFFER_DATA, 1)?;
        let offset = table.number(map, BUFFER_OFFSET, u64_at)?.unwrap_or(0);
        // One is what a writer puts there before it knows.
        if inside.count > 0 || offset <= 1 {
            return Ok((inside.at, inside.at + inside.count));
        }
        let size = table.number(map, BUFFER_SIZE, u64_at)?.unwrap_or(0);
        let end = offset
            .checked_add(size)
            .filter(|end| *end <= map.len() as u64);
        let end = end.ok_or_else(|| {
            let reason = format!(
                "buffer {buffer} claims {size} bytes at byte {offset}, beyond the file of {}; it is truncated",
                map.len()
            );
            (table.at, reason)
        })?;
        Ok((offset as usize, end as usize))
    }
}

/// Scales and zero points along a dimension.
#[derive(Debug, Clone)]
struct Scales {
    map: Bytes,
    scales: Vector,
    zeros: Vector,
    /// How many elements in a row have the same scale.
    run: usize,
}

impl Scales {
    /// `None` if there are none, or one that is zero, which means the same.
    fn read(map: &Bytes, table: &Table, shape: &[u64]) -> Result<Option<Self>, Refusal> {
        let scales = table.vector(map, QUANTIZATION_SCALES, 4)?;
        let zeros = table.vector(map, QUANTIZATION_ZEROS, 8)?;
        if scales.count == 0 || (scales.count == 1 && u32_at(map, scales.at)? == 0) {
            return Ok(None);
        }
        let dimension = table
            .number(map, QUANTIZATION_DIMENSION, i32_at)?
            .unwrap_or(0);
        let along = usize::try_from(dimension).ok();
        let along = along.and_then(|along| Some((*shape.get(along)?, &shape[along + 1..])));
        let run = match along {
            _ if scales.count == 1 => usize::MAX,
            Some((size, inner)) if size == scales.count as u64 => {
                inner.iter().product::<u64>() as usize
            }
            _ => {
                let reason = format!(
                    "{} scales along dimension {dimension} of {shape:?}",
                    scales.count
                );
                return Err((scales.at, reason));
            }
        };
        if zeros.count > 1 && zeros.count != scales.count {
            let reason = format!("{} zero points for {} scales", zeros.count, scales.count);
            return Err((zeros.at, reason));
        }
        let map = map.clone();
        Ok(Some(Self {
            map,
            scales,
            zeros,
            run,
        }))
    }

    fn dequantized(&self, values: impl Iterator<Item = i64>) -> Result<Vec<f32>, Refusal> {
        let map = &self.map;
        let mut found = Vec::with_capacity(values.size_hint().0);
        let pair = |slice: usize| {
            let slice = slice % self.scales.count;
            let scale = f32::from_bits(u32_at(map, self.scales.at + 4 * slice)?);
            let zero = match self.zeros.count {
                0 => 0,
                1 => u64_at(map, self.zeros.at)?,
                _ => u64_at(map, self.zeros.at + 8 * slice)?,
            };
            Ok((f64::from(scale), zero.cast_signed()))
        };
        let (mut slice, mut left) = (0, self.run);
        let (mut scale, mut zero) = pair(0)?;
        for value in values {
            if left == 0 {
                slice += 1;
                left = self.run;
                (scale, zero) = pair(slice)?;
            }
            left -= 1;
            found.push((scale * value.wrapping_sub(zero) as f64) as f32);
        }
        Ok(found)
    }
}

/// One tensor.
struct Reader {
    path: PathBuf,
    name: String,
    offset: u64,
    code: u8,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Bytes,
    scales: Option<Scales>,
}

impl Reader {
    fn read(&self) -> Result<TensorData, FormatError> {
        let refuse = |reason: String| FormatError::Tensor {
            path: self.path.clone(),
            tensor: clip(&self.name),
            offset: Some(self.offset),
            reason,
        };
        if let Dtype::Other(name) = &self.dtype {
            return Err(refuse(format!(
                "{name} cannot be read; convert the model with dense float weights"
            )));
        }
        let Some(scales) = &self.scales else {
            return data::typed(self.bytes.clone(), &self.shape, &self.dtype).map_err(refuse);
        };
        let bytes = &self.bytes;
        let values = match self.code {
            2 => scales.dequantized(
                bytes
                    .chunks_exact(4)
                    .map(|b| word(b).cast_signed() << 32 >> 32),
            ),
            3 => scales.dequantized(bytes.iter().map(|byte| i64::from(*byte))),
            4 => scales.dequantized(bytes.chunks_exact(8).map(|b| word(b).cast_signed())),
            7 => scales.dequantized(
                bytes
                    .chunks_exact(2)
                    .map(|b| word(b).cast_signed() << 48 >> 48),
            ),
            9 => scales.dequantized(bytes.iter().map(|byte| i64::from(byte.cast_signed()))),
            16 => scales.dequantized(bytes.chunks_exact(2).map(|b| word(b).cast_signed())),
            // Two in a byte, the first in its lower half.
            17 => {
                let halves = bytes.iter().flat_map(|byte| [byte << 4, byte & 0xf0]);
                let signed = halves.map(|half| i64::from(half.cast_signed() >> 4));
                scales.dequantized(signed.take(self.shape.iter().product()))
            }
            code => return Err(refuse(format!("the type {code} has no scales"))),
        };
        let values = values.map_err(|(_, reason)| refuse(reason))?;
        Ok(TensorData::new(values, self.shape.clone()))
    }
}

/// Up to eight bytes as a number.
fn word(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, byte| word << 8 | u64::from(*byte))
}

// FlatBuffers, as <https://flatbuffers.dev/internals/> has them.

type Refusal = (usize, String);

/// A table, and where it says which fields it has.
struct Table {
    at: usize,
    fields: usize,
    /// How many bytes say so.
    length: usize,
}

/// Elements one after the other.
#[derive(Debug, Clone, Copy)]
struct Vector {
    at: usize,
    count: usize,
}

impl Table {
    fn at(map: &[u8], at: usize) -> Result<Self, Refusal> {
        let back = i64::from(i32_at(map, at)?);
        let fields = i64::try_from(at)
            .ok()
            .and_then(|at| usize::try_from(at - back).ok());
        let fields =
            fields.ok_or_else(|| (at, "a table has its fields before the file".to_owned()))?;
        let length = usize::from(u16_at(map, fields)?);
        Ok(Self { at, fields, length })
    }

    /// Where a field is, if the table has it.
    fn field(&self, map: &[u8], number: usize) -> Result<Option<usize>, Refusal> {
        let place = 4 + 2 * number;
        if place + 2 > self.length {
            return Ok(None);
        }
        let offset = usize::from(u16_at(map, self.fields + place)?);
        Ok((offset != 0).then_some(self.at + offset))
    }

    fn number<T>(
        &self,
        map: &[u8],
        number: usize,
        read: fn(&[u8], usize) -> Result<T, Refusal>,
    ) -> Result<Option<T>, Refusal> {
        self.field(map, number)?.map(|at| read(map, at)).transpose()
    }

    fn child(&self, map: &[u8], number: usize) -> Result<Option<Table>, Refusal> {
        self.field(map, number)?
            .map(|at| Table::at(map, target(map, at)?))
            .transpose()
    }

    /// Empty if the table does not have it.
    fn vector(&self, map: &[u8], number: usize, size: usize) -> Result<Vector, Refusal> {
        let Some(field) = self.field(map, number)? else {
            return Ok(Vector { at: 0, count: 0 });
        };
        let begin = target(map, field)?;
        let count = u32_at(map, begin)? as usize;
        let at = begin + 4;
        let end = count
            .checked_mul(size)
            .and_then(|size| at.checked_add(size));
        if end.is_none_or(|end| end > map.len()) {
            return Err((
                begin,
                format!("{count} elements reach beyond the file; it is truncated"),
            ));
        }
        Ok(Vector { at, count })
    }

    fn text(&self, map: &[u8], number: usize) -> Result<Option<String>, Refusal> {
        let bytes = self.vector(map, number, 1)?;
        let text = String::from_utf8_lossy(&map[bytes.at..bytes.at + bytes.count]);
        Ok((bytes.count > 0).then(|| text.into_owned()))
    }
}

impl Vector {
    /// The table that an element points to; the caller counts.
    fn table(&self, map: &[u8], place: usize) -> Result<Table, Refusal> {
        Table::at(map, target(map, self.at + 4 * place)?)
    }
}

/// What an offset points to.
fn target(map: &[u8], at: usize) -> Result<usize, Refusal> {
    let offset = u32_at(map, at)? as usize;
    at.checked_add(offset)
        .ok_or_else(|| (at, "an offset is out of range".to_owned()))
}

fn array<const N: usize>(map: &[u8], at: usize) -> Result<[u8; N], Refusal> {
    let found = map.get(at..).and_then(|rest| rest.first_chunk());
    found.copied().ok_or_else(|| {
        let reason = format!(
            "{N} bytes at byte {at} are beyond the file of {}; it is truncated",
            map.len()
        );
        (at.min(map.len()), reason)
    })
}

fn u8_at(map: &[u8], at: usize) -> Result<u8, Refusal> {
    Ok(array::<1>(map, at)?[0])
}

fn u16_at(map: &[u8], at: usize) -> Result<u16, Refusal> {
    Ok(u16::from_le_bytes(array(map, at)?))
}

fn u32_at(map: &[u8], at: usize) -> Result<u32, Refusal> {
    Ok(u32::from_le_bytes(array(map, at)?))
}

fn i32_at(map: &[u8], at: usize) -> Result<i32, Refusal> {
    Ok(i32::from_le_bytes(array(map, at)?))
}

fn u64_at(map: &[u8], at: usize) -> Result<u64, Refusal> {
    Ok(u64::from_le_bytes(array(map, at)?))
}
