//! Tensors in another type, or some rows of them: computed when they are read, one at a time.

use burn::tensor::{Bytes, DType, TensorData};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::checkpoint::{Checkpoint, Dtype, Entry, Layout};
use crate::data;
use crate::error::FormatError;
use crate::gguf;
use crate::key_map::Block;

/// How many bytes of a mapped file may have been read before its memory is let go of.
const READ_AT_ONCE: usize = 16 << 20;

impl Entry {
    /// The same tensor in another type. Narrower floats are rounded to the nearest, ties to even; blocks are
    /// quantized as GGML does. `None` if the type is not one that can be written, or if the last dimension
    /// is not a multiple of its block.
    pub fn cast(&self, dtype: &Dtype) -> Option<Entry> {
        if *dtype == self.dtype && self.is_stored() {
            return Some(self.clone());
        }
        let from = self.clone();
        if let Dtype::Quantized(name) = dtype {
            let kind = gguf::Kind::named(name)?;
            let row = self.shape.last().copied().unwrap_or(1);
            let bytes = kind.quantized_size(self.elements(), row)?;
            let (reads, stores) = (from.clone(), from);
            let shape = self.shape.clone();
            let entry = Entry::new(dtype.clone(), self.shape.clone(), bytes, move || {
                let blocks = kind.quantize(&to_f32(reads.read()?));
                Ok(kind.dequantize(&blocks, shape.clone()))
            });
            return Some(entry.with_stored(move || {
                let blocks = kind.quantize(&to_f32(stores.read()?));
                Ok(Bytes::from_bytes_vec(blocks))
            }));
        }
        let to = match dtype {
            Dtype::F8(_) | Dtype::Other(_) => return None,
            plain => plain.to_burn()?,
        };
        self.dtype.to_burn()?;
        let bytes = self.elements().checked_mul(to.size())?;
        Some(Entry::new(
            dtype.clone(),
            self.shape.clone(),
            bytes,
            move || Ok(converted(from.read()?, to)),
        ))
    }

    /// One of several equal blocks along the axis of the outputs; `None` if they do not divide it.
    pub fn block(&self, block: Block) -> Option<Entry> {
        let mut shape = self.shape.clone();
        let axis = self.layout.axes(shape.len()).first().copied()?;
        let size = shape.get_mut(axis)?;
        if block.count == 0 || block.index >= block.count || !size.is_multiple_of(block.count) {
            return None;
        }
        *size /= block.count;
        let (reads, stores) = (self.clone(), self.clone());
        let entry = Entry::new(
            self.dtype.clone(),
            shape,
            self.bytes / block.count,
            move || Ok(block_of(&reads.read()?, axis, block)),
        );
        let entry = entry.with_layout(self.layout);
        // Only blocks of whole rows are runs of quantized blocks too.
        let stored = self.is_stored() && axis == 0;
        Some(if stored {
            entry.with_stored(move || {
                let part = part(&stores.stored()?, 1, block);
                Ok(Bytes::from_bytes_vec(part))
            })
        } else {
            entry
        })
    }

    /// The same tensor with its axes in another layout; computed when it is read.
    pub fn in_layout(&self, layout: Layout) -> Entry {
        let rank = self.shape.len();
        let mut axes = vec![0; rank];
        for (to, from) in layout.axes(rank).into_iter().zip(self.layout.axes(rank)) {
            axes[to] = from;
        }
        if axes.is_sorted() {
            return self.clone().with_layout(layout);
        }
        let from = self.clone();
        let shape = axes.iter().map(|&axis| self.shape[axis]).collect();
        let entry = Entry::new(self.dtype.clone(), shape, self.bytes, move || {
            Ok(data::permuted(from.read()?, &axes))
        });
        entry.with_layout(layout)
    }
}

/// A copy of one of several equal blocks along an axis, whose size is known to be a multiple.
pub(crate) fn block_of(data: &TensorData, axis: usize, block: Block) -> TensorData {
    let mut shape = data.shape().clone();
    shape[axis] /= block.count;
    let outer = shape[..axis].iter().product();
    let bytes = part(data.as_bytes(), outer, block);
    TensorData::from_bytes_vec(bytes, shape, data.dtype())
}

fn part(bytes: &[u8], outer: usize, block: Block) -> Vec<u8> {
    let size = bytes.len() / outer.max(1) / block.count;
    let pieces = (0..outer).map(|row| &bytes[(row * block.count + block.index) * size..][..size]);
    pieces.collect::<Vec<_>>().concat()
}

/// Data as `f32`, whatever its type.
pub(crate) fn to_f32(data: TensorData) -> TensorData {
    converted(data, DType::F32)
}

fn converted(data: TensorData, to: DType) -> TensorData {
    if data.dtype() == to {
        return data;
    }
    let shape = data.shape().clone();
    if let (Ok(values), DType::F32) = (data.as_slice::<f16>(), to) {
        let mut wide = vec![0.0; values.len()];
        values.convert_to_f32_slice(&mut wide);
        return TensorData::new(wide, shape);
    }
    if let (Ok(values), DType::F32) = (data.as_slice::<bf16>(), to) {
        let mut wide = vec![0.0; values.len()];
        values.convert_to_f32_slice(&mut wide);
        return TensorData::new(wide, shape);
    }
    if let Ok(values) = data.as_slice::<f32>() {
        if to == DType::F16 {
            let mut narrow = vec![f16::ZERO; values.len()];
            narrow.convert_from_f32_slice(values);
            return TensorData::new(narrow, shape);
        }
        if to == DType::BF16 {
            let mut narrow = vec![bf16::ZERO; values.len()];
            narrow.convert_from_f32_slice(values);
            return TensorData::new(narrow, shape);
        }
    }
    data.convert_dtype(to)
}

/// How far two tensors are apart.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Difference {
    /// The largest difference of two values. Equal values and two that are not numbers do not differ; a number
    /// differs without bound from what is none.
    pub largest: f64,
    /// Whether type and bytes are the same.
    pub identical: bool,
}

/// Compares a tensor of one checkpoint with one of another, which may be of another type.
///
/// # Errors
/// One of them cannot be read.
pub fn difference(
    (left_file, left): (&Checkpoint, &Entry),
    (right_file, right): (&Checkpoint, &Entry),
) -> Result<Difference, FormatError> {
    let same_type = left.dtype == right.dtype && left.is_stored() && right.is_stored();
    if same_type {
        let (left, right) = (left.stored()?, right.stored()?);
        let chunks = left.chunks(READ_AT_ONCE).zip(right.chunks(READ_AT_ONCE));
        let mut identical = left.len() == right.len();
        for (left, right) in chunks {
            identical &= left == right;
            left_file.release();
            right_file.release();
        }
        if identical {
            let largest = 0.0;
            return Ok(Difference { largest, identical });
        }
    }
    let (left, right) = (left.read()?, right.read()?);
    left_file.release();
    let mut largest: f64 = 0.0;
    let step = READ_AT_ONCE / size_of::<f64>();
    let elements = left.num_elements().min(right.num_elements());
    for begin in (0..elements).step_by(step) {
        let end = elements.min(begin + step);
        let (ours, theirs) = (values(&left, begin, end), values(&right, begin, end));
        for (ours, theirs) in ours.into_iter().zip(theirs) {
            let apart = (ours - theirs).abs();
            let same = ours == theirs || ours.is_nan() && theirs.is_nan();
            largest = match (same, apart.is_nan()) {
                (true, _) => largest,
                (false, true) => f64::INFINITY,
                (false, false) => largest.max(apart),
            };
        }
        left_file.release();
        right_file.release();
    }
    Ok(Difference {
        largest,
        identical: false,
    })
}

/// Some elements as `f64`.
fn values(data: &TensorData, begin: usize, end: usize) -> Vec<f64> {
    let size = data.dtype().size();
    let bytes = data.as_bytes();
    let part = bytes.get(begin * size..end * size).unwrap_or_default();
    let part = TensorData::from_bytes_vec(part.to_vec(), [end - begin], data.dtype());
    part.convert_dtype(DType::F64)
        .try_into_vec()
        .unwrap_or_default()
}
