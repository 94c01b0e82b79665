//! Bytes of a file as the data of a tensor; what all formats share.

use burn::tensor::{AllocationProperty, Bytes as BurnBytes, TensorData};
use bytes::Bytes;

use crate::Dtype;

/// What materialising a view may take beyond the size of its file: a tensor that is expanded over and over
/// by a stride of zero is no weight.
pub(crate) const VIEW_MARGIN: u64 = 64 << 20;

/// The number of elements, or `None` if no machine could hold them. Zero sizes do not hide others.
pub(crate) fn elements(shape: &[u64]) -> Option<u64> {
    let mut full: u64 = 1;
    for size in shape.iter().filter(|size| **size != 0) {
        full = full
            .checked_mul(*size)
            .filter(|full| i64::try_from(*full).is_ok())?;
    }
    Some(if shape.contains(&0) { 0 } else { full })
}

/// The bytes as a tensor, without a copy where they are aligned; the error is a reason.
pub(crate) fn typed(bytes: Bytes, shape: &[usize], dtype: &Dtype) -> Result<TensorData, String> {
    if let Dtype::F8(float) = dtype {
        return Ok(TensorData::new(float.decode(&bytes), shape.to_vec()));
    }
    let burn = dtype.to_burn();
    let burn = burn.ok_or_else(|| format!("the type {dtype} cannot be read"))?;
    if *dtype == Dtype::Bool
        && let Some(at) = bytes.iter().position(|&byte| byte > 1)
    {
        return Err(format!("element {at} is {}, not a boolean", bytes[at]));
    }
    // Elements are read in place, which needs an alignment that not every writer gives.
    let aligned = (bytes.as_ptr() as usize).is_multiple_of(burn.size());
    let bytes = if aligned {
        shared(bytes)
    } else {
        BurnBytes::from_bytes_vec(bytes.to_vec())
    };
    Ok(TensorData::from_bytes(bytes, shape.to_vec(), burn))
}

/// Bytes of a file in Burn's type, without a copy.
pub(crate) fn shared(bytes: Bytes) -> BurnBytes {
    BurnBytes::from_shared(bytes, AllocationProperty::File)
}

/// Turns every word around: little-endian from big-endian.
pub(crate) fn swapped(bytes: &[u8], word: usize) -> Vec<u8> {
    let mut swapped = bytes.to_vec();
    if word > 1 {
        swapped.chunks_exact_mut(word).for_each(<[u8]>::reverse);
    }
    swapped
}

/// Whether elements lie one after the other in row-major order.
pub(crate) fn is_contiguous(shape: &[u64], strides: &[u64]) -> bool {
    let mut expected: u64 = 1;
    for (size, stride) in shape.iter().zip(strides).rev() {
        if *size != 1 && *stride != expected {
            return false;
        }
        expected = expected.saturating_mul(*size);
    }
    true
}

/// The elements of a view, in row-major order. The caller has proven that all of them are in `bytes`,
/// which begins at the view's first element.
pub(crate) fn gather(bytes: &[u8], size: usize, shape: &[u64], strides: &[u64]) -> Vec<u8> {
    let Some((inner, outer)) = shape.split_last() else {
        return bytes.get(..size).unwrap_or_default().to_vec();
    };
    let step = strides.last().copied().unwrap_or(1);
    let rows: u64 = outer.iter().product();
    let mut found = Vec::with_capacity((rows * inner) as usize * size);
    let mut index = vec![0; outer.len()];
    for _ in 0..rows {
        let row: u64 = index
            .iter()
            .zip(strides)
            .map(|(at, stride)| at * stride)
            .sum();
        for at in 0..*inner {
            let begin = (row + at * step) as usize * size;
            found.extend_from_slice(bytes.get(begin..begin + size).unwrap_or_default());
        }
        for (at, size) in index.iter_mut().zip(outer).rev() {
            *at += 1;
            if *at < *size {
                break;
            }
            *at = 0;
        }
    }
    found
}

/// The data with its axes in another order; a copy, unless that is the order they are in.
pub(crate) fn permuted(data: TensorData, axes: &[usize]) -> TensorData {
    if axes.iter().enumerate().all(|(place, &axis)| place == axis) {
        return data;
    }
    let stored = data.shape();
    let size = data.dtype().size();
    // A kernel's `[places…, in, out]` to `[out, in, places…]`, a matrix among them.
    if let (&[ref places @ .., inputs, outputs], true) = (&stored[..], is_kernel(axes)) {
        let count: usize = places.iter().product();
        let mut bytes = transposed(data.as_bytes(), size, count * inputs, outputs);
        // Within each of the outputs inputs come before places.
        let each = count * inputs * size;
        if !places.is_empty() && each > 0 {
            let kernels = bytes.chunks_exact(each);
            bytes = kernels
                .flat_map(|kernel| transposed(kernel, size, count, inputs))
                .collect();
        }
        let shape = [&[outputs, inputs], places].concat();
        return TensorData::from_bytes_vec(bytes, shape, data.dtype());
    }
    let mut strides = vec![1; stored.len()];
    for axis in (1..stored.len()).rev() {
        strides[axis - 1] = strides[axis] * stored[axis] as u64;
    }
    let shape: Vec<usize> = axes.iter().map(|&axis| stored[axis]).collect();
    let sizes: Vec<u64> = shape.iter().map(|&size| size as u64).collect();
    let strides: Vec<u64> = axes.iter().map(|&axis| strides[axis]).collect();
    let bytes = gather(data.as_bytes(), data.dtype().size(), &sizes, &strides);
    TensorData::from_bytes_vec(bytes, shape, data.dtype())
}

/// Whether axes turn a kernel around: the last first, the last but one second, then the others.
fn is_kernel(axes: &[usize]) -> bool {
    let rank = axes.len();
    let turned = [rank.wrapping_sub(1), rank.wrapping_sub(2)];
    rank > 1 && axes[..2] == turned && axes[2..].iter().copied().eq(0..rank - 2)
}

/// The transpose of a matrix, in its own memory.
fn transposed(bytes: &[u8], size: usize, rows: usize, columns: usize) -> Vec<u8> {
    match size {
        1 => tiles::<1>(bytes, rows, columns),
        2 => tiles::<2>(bytes, rows, columns),
        4 => tiles::<4>(bytes, rows, columns),
        _ => tiles::<8>(bytes, rows, columns),
    }
}

/// Tile by tile, so that both matrices stay in the cache.
fn tiles<const N: usize>(bytes: &[u8], rows: usize, columns: usize) -> Vec<u8> {
    const TILE: usize = 32;
    let (from, _) = bytes.as_chunks::<N>();
    let mut out = vec![0; bytes.len()];
    let (to, _) = out.as_chunks_mut::<N>();
    for top in (0..rows).step_by(TILE) {
        for left in (0..columns).step_by(TILE) {
            for column in left..columns.min(left + TILE) {
                for row in top..rows.min(top + TILE) {
                    to[column * rows + row] = from[row * columns + column];
                }
            }
        }
    }
    out
}

/// A text of the file, short enough for an error and on one line.
pub(crate) fn clip(text: &str) -> String {
    const MOST: usize = 80;
    let mut clipped: String = text
        .chars()
        .take(MOST)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(MOST).is_some() {
        clipped.push('…');
    }
    clipped
}
