//! Tensors whose values are computed as they are read: sparse, quantized, negated and conjugated ones.

use burn::tensor::TensorData;
use bytes::Bytes;
use half::{bf16, f16};

use super::containers::Reader;
use super::globals::Element;
use super::pickle::{Quantized, Scale, Sparse};
use crate::checkpoint::Dtype;
use crate::data;
use crate::error::FormatError;

/// Why something cannot be computed: a reason, or that a part of it cannot be read.
pub(super) enum Unreadable {
    Reason(String),
    Part(FormatError),
}

impl Unreadable {
    pub(super) fn or(self, refuse: impl Fn(String) -> FormatError) -> FormatError {
        match self {
            Self::Reason(reason) => refuse(reason),
            Self::Part(error) => error,
        }
    }
}

impl From<FormatError> for Unreadable {
    fn from(error: FormatError) -> Self {
        Self::Part(error)
    }
}

impl From<String> for Unreadable {
    fn from(reason: String) -> Self {
        Self::Reason(reason)
    }
}

/// Negates and conjugates little-endian values in place.
pub(super) fn change_signs(bytes: &mut [u8], element: Element, negated: bool, conjugated: bool) {
    let word = element.word();
    let complex = word != element.size();
    for (at, value) in bytes.chunks_exact_mut(word).enumerate() {
        // The second half of a complex number is its imaginary part.
        if negated == (conjugated && complex && at % 2 == 1) {
            continue;
        }
        if element.is_signed_by_a_bit() {
            if let Some(last) = value.last_mut() {
                *last ^= 0x80;
            }
            continue;
        }
        let mut carry = true;
        for byte in value {
            (*byte, carry) = (!*byte).overflowing_add(u8::from(carry));
        }
    }
}

/// Little-endian integers of 32 or 64 bits that count from 0.
fn places(reader: &Reader) -> Result<Vec<u64>, Unreadable> {
    let bytes = reader.bytes()?;
    let places = match reader.dtype {
        Dtype::I64 => {
            let (chunks, _) = bytes.as_chunks();
            chunks
                .iter()
                .map(|chunk| u64::try_from(i64::from_le_bytes(*chunk)).ok())
                .collect()
        }
        Dtype::I32 => {
            let (chunks, _) = bytes.as_chunks();
            chunks
                .iter()
                .map(|chunk| u64::try_from(i32::from_le_bytes(*chunk)).ok())
                .collect()
        }
        _ => None,
    };
    let places: Option<Vec<u64>> = places;
    places.ok_or_else(|| {
        "an index of its is negative or no integer"
            .to_owned()
            .into()
    })
}

/// A sparse tensor, which is read as a dense one.
pub(super) struct Dense {
    pub(super) shape: Vec<usize>,
    layout: String,
    indices: Vec<Reader>,
    values: Reader,
    /// How many axes come before the sparse ones, and whether it is columns that are compressed.
    batch: usize,
    /// The size of a block; one by one where there are none.
    block: [usize; 2],
}

impl Dense {
    pub(super) fn new(
        sparse: &Sparse,
        indices: Vec<Reader>,
        values: Reader,
    ) -> Result<Self, String> {
        let wrong = || {
            format!(
                "its indices and values do not make a tensor of {:?} in the layout {}",
                sparse.shape, sparse.layout
            )
        };
        let shape: Option<Vec<usize>> = sparse
            .shape
            .iter()
            .map(|size| usize::try_from(*size).ok())
            .collect();
        let shape = shape.ok_or_else(wrong)?;
        let mut dense = Self {
            shape,
            layout: sparse.layout.to_string(),
            indices,
            values,
            batch: 0,
            block: [1, 1],
        };
        let fits = match &dense.indices[..] {
            [places] => match places.shape[..] {
                [axes, count] => {
                    axes <= dense.shape.len()
                        && dense.values.shape.first() == Some(&count)
                        && dense.values.shape[1..] == dense.shape[axes..]
                }
                _ => false,
            },
            [compressed, plain] => {
                let batch = compressed.shape.len().saturating_sub(1);
                let blocked = dense.layout.ends_with("bsr") || dense.layout.ends_with("bsc");
                let before = batch + 1 + if blocked { 2 } else { 0 };
                dense.batch = batch;
                let values = &dense.values.shape;
                let starts = values.len() >= before
                    && dense.shape.len() >= batch + 2
                    && plain.shape.len() == batch + 1
                    && !compressed.shape.is_empty()
                    && plain.shape[..] == values[..=batch]
                    && compressed.shape[..batch] == dense.shape[..batch]
                    && plain.shape[..batch] == dense.shape[..batch]
                    && values[before..] == dense.shape[batch + 2..];
                if starts && blocked {
                    dense.block = [values[batch + 1], values[batch + 2]];
                }
                let [height, width] = dense.block;
                starts
                    && height > 0
                    && width > 0
                    && dense.shape[batch].is_multiple_of(height)
                    && dense.shape[batch + 1].is_multiple_of(width)
                    && compressed.shape[batch] == dense.lines() + 1
            }
            _ => false,
        };
        fits.then_some(dense).ok_or_else(wrong)
    }

    fn by_columns(&self) -> bool {
        self.layout.ends_with("csc") || self.layout.ends_with("bsc")
    }

    /// How many rows of blocks are compressed, or columns.
    fn lines(&self) -> usize {
        let axis = usize::from(self.by_columns());
        self.shape[self.batch + axis] / self.block[axis]
    }

    pub(super) fn read(&self) -> Result<TensorData, Unreadable> {
        Ok(data::typed(self.bytes()?, &self.shape, &self.values.dtype)?)
    }

    /// The elements, little-endian and in row-major order.
    pub(super) fn bytes(&self) -> Result<Bytes, Unreadable> {
        let values = self.values.bytes()?;
        let size = self.values.element.size();
        // The caller has held this against the size of the file.
        let mut dense = vec![0; self.shape.iter().product::<usize>() * size];
        let mut written = vec![false; dense.len() / size.max(1)];
        let mut put = |at: usize, from: usize, count: usize| -> Result<(), Unreadable> {
            let all = dense
                .get_mut(at * size..(at + count) * size)
                .zip(written.get_mut(at..at + count))
                .zip(values.get(from * size..(from + count) * size));
            let ((into, seen), from) =
                all.ok_or_else(|| "an index of its lies beyond its shape".to_owned())?;
            let pairs = into.chunks_exact_mut(size).zip(from.chunks_exact(size));
            for ((into, from), seen) in pairs.zip(seen) {
                // PyTorch adds the first to zero, too, which tells in the sign of a zero.
                match add(into, from, self.values.element) {
                    Err(reason) if *seen => return Err(reason.into()),
                    Err(_) => into.copy_from_slice(from),
                    Ok(()) => {}
                }
                *seen = true;
            }
            Ok(())
        };
        if let [places_of] = &self.indices[..] {
            let [axes, count] = places_of.shape[..] else {
                return Err("its indices are no matrix".to_owned().into());
            };
            let places = places(places_of)?;
            let tail: usize = self.shape[axes..].iter().product();
            for item in 0..count {
                let mut at = 0;
                for (axis, &bound) in self.shape[..axes].iter().enumerate() {
                    let place = places.get(axis * count + item).copied().unwrap_or(0);
                    let place = usize::try_from(place).ok().filter(|place| *place < bound);
                    let place =
                        place.ok_or_else(|| "an index of its lies beyond its shape".to_owned())?;
                    at = at * bound + place;
                }
                put(at * tail, item * tail, tail)?;
            }
            return Ok(dense.into());
        }
        let [compressed, plain] = &self.indices[..] else {
            return Err("its indices are not two".to_owned().into());
        };
        let stored = plain.shape[self.batch];
        let (compressed, plain) = (places(compressed)?, places(plain)?);
        let batches: usize = self.shape[..self.batch].iter().product();
        let (rows, columns) = (self.shape[self.batch], self.shape[self.batch + 1]);
        let tail: usize = self.shape[self.batch + 2..].iter().product();
        let [height, width] = self.block;
        let lines = self.lines();
        let beyond = || Unreadable::from("an index of its lies beyond its shape".to_owned());
        for batch in 0..batches {
            let ends = &compressed[batch * (lines + 1)..(batch + 1) * (lines + 1)];
            for (line, ends) in ends.windows(2).enumerate() {
                let (from, to) = (ends[0], ends[1]);
                if from > to || to > stored as u64 {
                    return Err(beyond());
                }
                for item in from as usize..to as usize {
                    let across =
                        usize::try_from(plain[batch * stored + item]).map_err(|_| beyond())?;
                    let (row, column) = if self.by_columns() {
                        (across, line)
                    } else {
                        (line, across)
                    };
                    if row >= rows / height || column >= columns / width {
                        return Err(beyond());
                    }
                    let from = (batch * stored + item) * height * width;
                    for down in 0..height {
                        let at = (batch * rows + row * height + down) * columns + column * width;
                        put(at * tail, (from + down * width) * tail, width * tail)?;
                    }
                }
            }
        }
        Ok(dense.into())
    }
}

/// Adds a value to another of its type, as the values of one index of a sparse tensor are.
fn add(into: &mut [u8], from: &[u8], element: Element) -> Result<(), String> {
    macro_rules! added {
        ($type:ty, $sum:expr) => {{
            let words = into.chunks_exact_mut(size_of::<$type>());
            for (into, from) in words.zip(from.chunks_exact(size_of::<$type>())) {
                let read = |bytes: &[u8]| {
                    let mut whole = [0; size_of::<$type>()];
                    whole.copy_from_slice(bytes);
                    <$type>::from_le_bytes(whole)
                };
                let sum: $type = $sum(read(into), read(from));
                into.copy_from_slice(&sum.to_le_bytes());
            }
        }};
    }
    let dtype = match element.dtype() {
        Dtype::Other(name) if name == "C64" => Dtype::F32,
        Dtype::Other(name) if name == "C128" => Dtype::F64,
        other => other,
    };
    match dtype {
        Dtype::F64 => added!(f64, |a: f64, b: f64| a + b),
        Dtype::F32 => added!(f32, |a: f32, b: f32| a + b),
        Dtype::F16 => added!(f16, |a: f16, b: f16| f16::from_f32(a.to_f32() + b.to_f32())),
        Dtype::BF16 => added!(bf16, |a: bf16, b: bf16| bf16::from_f32(
            a.to_f32() + b.to_f32()
        )),
        Dtype::I64 | Dtype::U64 => added!(u64, u64::wrapping_add),
        Dtype::I32 | Dtype::U32 => added!(u32, u32::wrapping_add),
        Dtype::I16 | Dtype::U16 => added!(u16, u16::wrapping_add),
        Dtype::I8 | Dtype::U8 => added!(u8, u8::wrapping_add),
        Dtype::Bool => added!(u8, |a: u8, b: u8| a | b),
        other => {
            return Err(format!(
                "it has two values of the type {other} for one index; save it by `.coalesce()`"
            ));
        }
    }
    Ok(())
}

/// A quantized tensor, which is read as floats.
pub(super) struct Floats {
    pub(super) shape: Vec<usize>,
    values: Reader,
    scale: Channels,
}

enum Channels {
    One {
        scale: f32,
        zero_point: i64,
    },
    Each {
        scales: Box<Reader>,
        zero_points: Box<Reader>,
        axis: usize,
    },
}

impl Floats {
    pub(super) fn new(
        quantized: &Quantized,
        values: Reader,
        channels: Option<(Reader, Reader)>,
    ) -> Result<Self, String> {
        match quantized.tensor.element.names().0 {
            "qint8" | "quint8" | "qint32" => {}
            other => return Err(format!("it is quantized, but its storage is of {other}")),
        }
        let scale = match (&quantized.scale, channels) {
            (Scale::Tensor { scale, zero_point }, _) => Channels::One {
                scale: *scale as f32,
                zero_point: *zero_point,
            },
            (Scale::Channels { axis, .. }, Some((scales, zero_points))) => {
                let count = values.shape.get(*axis).copied();
                if [&scales, &zero_points]
                    .iter()
                    .any(|reader| reader.shape.iter().product::<usize>() != count.unwrap_or(0))
                {
                    return Err(format!(
                        "it does not have one scale for each index of axis {axis}"
                    ));
                }
                Channels::Each {
                    scales: scales.into(),
                    zero_points: zero_points.into(),
                    axis: *axis,
                }
            }
            _ => return Err("its scales are missing".to_owned()),
        };
        Ok(Self {
            shape: values.shape.clone(),
            values,
            scale,
        })
    }

    pub(super) fn read(&self) -> Result<TensorData, Unreadable> {
        let bytes = self.values.bytes()?;
        let integers: Vec<i64> = match self.values.element.names().0 {
            "qint8" => bytes
                .iter()
                .map(|&byte| byte.cast_signed().into())
                .collect(),
            "quint8" => bytes.iter().map(|&byte| byte.into()).collect(),
            _ => {
                let (words, _) = bytes.as_chunks();
                words
                    .iter()
                    .map(|word| i32::from_le_bytes(*word).into())
                    .collect()
            }
        };
        let floats: Vec<f32> = match &self.scale {
            Channels::One { scale, zero_point } => integers
                .iter()
                .map(|value| value.wrapping_sub(*zero_point) as f32 * scale)
                .collect(),
            Channels::Each {
                scales,
                zero_points,
                axis,
            } => {
                let scales = floats(scales)?;
                let zero_points = floats(zero_points)?;
                let count = self.shape[*axis];
                let inner: usize = self.shape[axis + 1..].iter().product();
                integers
                    .iter()
                    .enumerate()
                    .map(|(at, value)| {
                        let channel = at / inner.max(1) % count.max(1);
                        let distance = (*value as f64 - zero_points[channel]) as f32;
                        (f64::from(distance) * scales[channel]) as f32
                    })
                    .collect()
            }
        };
        Ok(TensorData::new(floats, self.shape.clone()))
    }
}

/// Scales or zero points, whose types PyTorch has changed over time.
fn floats(reader: &Reader) -> Result<Vec<f64>, Unreadable> {
    let bytes = reader.bytes()?;
    Ok(match reader.dtype {
        Dtype::F64 => {
            let (words, _) = bytes.as_chunks();
            words.iter().map(|word| f64::from_le_bytes(*word)).collect()
        }
        Dtype::F32 => {
            let (words, _) = bytes.as_chunks();
            words
                .iter()
                .map(|word| f32::from_le_bytes(*word).into())
                .collect()
        }
        Dtype::I64 => {
            let (words, _) = bytes.as_chunks();
            words
                .iter()
                .map(|word| i64::from_le_bytes(*word) as f64)
                .collect()
        }
        Dtype::I32 => {
            let (words, _) = bytes.as_chunks();
            words
                .iter()
                .map(|word| i32::from_le_bytes(*word).into())
                .collect()
        }
        _ => return Err(format!("its scales are of the type {}", reader.dtype).into()),
    })
}
