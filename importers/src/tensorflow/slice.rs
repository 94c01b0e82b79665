//! Slices of partitioned variables, and the keys that they have in a table.

use super::tensor::Layout;
use crate::protobuf::{Message, Refusal};

/// Slices are proven not to overlap by pairs.
const MOST: usize = 4096;

/// A range of each dimension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slice {
    /// Start and length; without a length it is all of the dimension.
    extents: Vec<(u64, Option<u64>)>,
}

impl Slice {
    /// Reads a `TensorSliceProto`.
    pub(super) fn read(message: &Message) -> Result<Self, Refusal> {
        let mut extents = Vec::new();
        for field in message.fields() {
            let field = field?;
            if field.number != 1 {
                continue;
            }
            let (mut start, mut length) = (0, None);
            for field in field.message()?.fields() {
                let field = field?;
                match field.number {
                    1 => start = field.size()?,
                    2 => length = Some(field.size()?),
                    _ => {}
                }
            }
            extents.push((start, length));
        }
        Ok(Self { extents })
    }

    fn place(&self, shape: &[u64]) -> Option<Place> {
        if self.extents.len() != shape.len() {
            return None;
        }
        let mut starts = Vec::new();
        let mut sizes = Vec::new();
        for ((start, length), size) in self.extents.iter().zip(shape) {
            let length = length.unwrap_or(*size);
            if (length == 0 && *size > 0) || start.checked_add(length)? > *size {
                return None;
            }
            starts.push(*start);
            sizes.push(length);
        }
        Some(Place { starts, sizes })
    }

    /// The key under which the table has this slice of a tensor: `EncodeTensorNameSlice` of
    /// `core/util/saved_tensor_slice_util.cc`, in the order-preserving code of `core/lib/strings/ordered_code.cc`.
    pub(super) fn key(&self, name: &str) -> Vec<u8> {
        let mut key = Vec::new();
        put_unsigned(&mut key, 0);
        put_text(&mut key, name.as_bytes());
        put_unsigned(&mut key, self.extents.len() as u64);
        for (start, length) in &self.extents {
            put_signed(&mut key, start.cast_signed());
            put_signed(&mut key, length.map_or(-1, u64::cast_signed));
        }
        key
    }
}

/// Where a slice begins in its tensor, and its shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) starts: Vec<u64>,
    pub(super) sizes: Vec<u64>,
}

impl Place {
    /// All of a tensor.
    pub(super) fn whole(shape: &[u64]) -> Self {
        Self {
            starts: vec![0; shape.len()],
            sizes: shape.to_vec(),
        }
    }

    fn is_apart_from(&self, other: &Self) -> bool {
        let ends_before = |a: &Self, b: &Self, d: usize| a.starts[d] + a.sizes[d] <= b.starts[d];
        (0..self.starts.len()).any(|d| ends_before(self, other, d) || ends_before(other, self, d))
    }

    /// Copies the slice, whose elements of `size` bytes are `bytes`, into the whole tensor.
    pub(super) fn paste(&self, whole: &mut [u8], shape: &[u64], bytes: &[u8], size: usize) {
        let Some((last, outer)) = self.sizes.split_last() else {
            whole.copy_from_slice(bytes);
            return;
        };
        let run = *last as usize * size;
        let mut index = vec![0; outer.len()];
        for row in bytes.chunks_exact(run.max(1)) {
            let mut at = 0;
            for (place, start) in self.starts.iter().enumerate() {
                at = at * shape[place] + start + index.get(place).copied().unwrap_or(0);
            }
            let at = at as usize * size;
            if let Some(target) = whole.get_mut(at..at + run) {
                target.copy_from_slice(row);
            }
            for (at, size) in index.iter_mut().zip(outer).rev() {
                *at += 1;
                if *at < *size {
                    break;
                }
                *at = 0;
            }
        }
    }
}

/// The places of slices that make up all of a tensor, each element once; the error is a reason.
pub(super) fn places<'a>(
    slices: impl Iterator<Item = &'a Slice>,
    layout: &Layout,
) -> Result<Vec<Place>, String> {
    let shape = &layout.shape;
    let mut found: Vec<Place> = Vec::new();
    let mut elements = 0;
    for slice in slices {
        if found.len() == MOST {
            return Err(format!("it is in more than {MOST} slices"));
        }
        let place = slice.place(shape);
        let place =
            place.ok_or_else(|| format!("one of its slices is not in its shape {shape:?}"))?;
        if !found.iter().all(|other| place.is_apart_from(other)) {
            return Err("two of its slices overlap".to_owned());
        }
        elements += place.sizes.iter().product::<u64>();
        found.push(place);
    }
    if elements != layout.elements {
        let all = layout.elements;
        return Err(format!(
            "its slices have {elements} elements, its shape {shape:?} has {all}"
        ));
    }
    Ok(found)
}

fn put_unsigned(key: &mut Vec<u8>, value: u64) {
    let bytes = value.to_be_bytes();
    let zeros = (value.leading_zeros() / 8) as usize;
    key.push((bytes.len() - zeros) as u8);
    key.extend_from_slice(&bytes[zeros..]);
}

fn put_text(key: &mut Vec<u8>, text: &[u8]) {
    for byte in text {
        match byte {
            0 => key.extend([0, 0xff]),
            0xff => key.extend([0xff, 0]),
            other => key.push(*other),
        }
    }
    key.extend([0, 1]);
}

/// As many leading ones as there are bytes, turned around for negative numbers, then the number.
fn put_signed(key: &mut Vec<u8>, value: i64) {
    let magnitude = (if value < 0 { !value } else { value }).cast_unsigned();
    let bits = (u64::BITS - magnitude.leading_zeros()) as usize;
    let length = bits / 7 + 1;
    let sign = if value < 0 { 0xff } else { 0 };
    let mut bytes = [sign; 10];
    bytes[2..].copy_from_slice(&value.to_be_bytes());
    let header: u16 = !(0xffff_u32 >> length) as u16;
    let begin = bytes.len() - length;
    let [first, second] = header.to_be_bytes();
    bytes[begin] ^= first;
    if let Some(byte) = bytes.get_mut(begin + 1) {
        *byte ^= second;
    }
    key.extend_from_slice(&bytes[begin..]);
}

#[cfg(test)]
mod tests {
    use super::{Place, Slice, put_signed};

    #[test]
    fn signed_numbers_are_coded_as_tensorflow_does() {
        let coded = |value| {
            let mut key = Vec::new();
            put_signed(&mut key, value);
            key
        };
        // The examples of `ordered_code.cc` and its test.
        assert_eq!(coded(0), [0x80]);
        assert_eq!(coded(-1), [0x7f]);
        assert_eq!(coded(63), [0xbf]);
        assert_eq!(coded(-64), [0x40]);
        assert_eq!(coded(64), [0xc0, 0x40]);
        assert_eq!(coded(-65), [0x3f, 0xbf]);
        assert_eq!(coded(8191), [0xdf, 0xff]);
        assert_eq!(coded(8192), [0xe0, 0x20, 0]);
        assert_eq!(
            coded(i64::MAX),
            [&[0xff, 0xc0, 0x7f][..], &[0xff; 7]].concat()
        );
    }

    #[test]
    fn slices_are_pasted_where_they_belong() {
        let place = |starts: [u64; 2], sizes: [u64; 2]| Place {
            starts: starts.into(),
            sizes: sizes.into(),
        };
        let mut whole = [0; 6];
        place([0, 1], [2, 2]).paste(&mut whole, &[2, 3], &[1, 2, 3, 4], 1);
        place([0, 0], [2, 1]).paste(&mut whole, &[2, 3], &[5, 6], 1);
        assert_eq!(whole, [5, 1, 2, 6, 3, 4]);
        let slice = Slice {
            extents: vec![(0, None), (1, Some(2))],
        };
        assert_eq!(slice.place(&[2, 3]), Some(place([0, 1], [2, 2])));
        assert_eq!(slice.place(&[2, 2]), None);
        assert_eq!(slice.place(&[2]), None);
    }
}
