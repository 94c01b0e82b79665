//! GGUF's typed metadata, as it is written.

use std::path::Path;

use super::{DEEPEST_ARRAY, FORMAT, Header, Read};
use crate::error::FormatError;
use crate::map::map_file;

/// Keys and values in the order of the file.
pub type Metadata = Vec<(String, Value)>;

/// A typed value, as its bytes in a little-endian file of version 3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    kind: u32,
    bytes: Vec<u8>,
}

const U8: u32 = 0;
const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const BOOL: u32 = 7;
const TEXT: u32 = 8;
const ARRAY: u32 = 9;

impl Value {
    /// A text.
    pub fn text(text: &str) -> Self {
        let mut bytes = Vec::new();
        put_text(&mut bytes, text.as_bytes());
        Self { kind: TEXT, bytes }
    }

    /// A natural number.
    pub fn u32(value: u32) -> Self {
        let bytes = value.to_le_bytes().to_vec();
        Self { kind: U32, bytes }
    }

    /// A number.
    pub fn f32(value: f32) -> Self {
        let bytes = value.to_le_bytes().to_vec();
        Self { kind: F32, bytes }
    }

    /// A truth.
    pub fn bool(value: bool) -> Self {
        let bytes = vec![value.into()];
        Self { kind: BOOL, bytes }
    }

    /// An array of texts.
    pub fn texts<'a>(texts: impl ExactSizeIterator<Item = &'a str>) -> Self {
        let mut bytes = array(TEXT, texts.len());
        texts.for_each(|text| put_text(&mut bytes, text.as_bytes()));
        Self { kind: ARRAY, bytes }
    }

    /// An array of bytes.
    pub fn u8s(values: &[u8]) -> Self {
        let mut bytes = array(U8, values.len());
        bytes.extend(values);
        Self { kind: ARRAY, bytes }
    }

    /// An array of integers.
    pub fn i32s(values: impl ExactSizeIterator<Item = i32>) -> Self {
        let mut bytes = array(I32, values.len());
        values.for_each(|value| bytes.extend(value.to_le_bytes()));
        Self { kind: ARRAY, bytes }
    }

    /// An array of numbers.
    pub fn f32s(values: impl ExactSizeIterator<Item = f32>) -> Self {
        let mut bytes = array(F32, values.len());
        values.for_each(|value| bytes.extend(value.to_le_bytes()));
        Self { kind: ARRAY, bytes }
    }

    /// The natural number that it is.
    pub(super) fn as_u32(&self) -> Option<u32> {
        let bytes = self.bytes.first_chunk().filter(|_| self.kind == U32)?;
        Some(u32::from_le_bytes(*bytes))
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend(self.kind.to_le_bytes());
        out.extend(&self.bytes);
    }
}

fn array(kind: u32, count: usize) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend((count as u64).to_le_bytes());
    bytes
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text);
}

/// The metadata of one file, with its types.
///
/// # Errors
/// The file cannot be read, is truncated or corrupt.
pub fn metadata(path: &Path) -> Result<Metadata, FormatError> {
    let map = map_file(path)?;
    let mut header = Header {
        map: &map,
        at: 0,
        version: 0,
        big_endian: false,
    };
    let read = |header: &mut Header<'_>| {
        let (_, keys) = header.begin()?;
        let mut metadata = Metadata::new();
        for _ in 0..keys {
            let key = header.string()?;
            let kind = header.u32()?;
            let mut bytes = Vec::new();
            header.copy(kind, &mut bytes, 0)?;
            metadata.push((key, Value { kind, bytes }));
        }
        Ok(metadata)
    };
    read(&mut header).map_err(|(offset, reason): (usize, String)| FormatError::Malformed {
        path: path.to_owned(),
        format: FORMAT,
        offset: Some(offset as u64),
        reason,
    })
}

impl Header<'_> {
    /// Copies a value in the layout of version 3.
    fn copy(&mut self, kind: u32, out: &mut Vec<u8>, depth: usize) -> Read<()> {
        let at = self.at;
        match kind {
            0 | 1 | 7 => out.extend(self.array::<1>()?),
            2 | 3 => out.extend(self.array::<2>()?),
            4..=6 => out.extend(self.array::<4>()?),
            10..=12 => out.extend(self.array::<8>()?),
            TEXT => {
                let length = self.size()?;
                let length = usize::try_from(length)
                    .map_err(|_| (at, format!("a text of {length} bytes")))?;
                put_text(out, self.take(length)?);
            }
            ARRAY if depth < DEEPEST_ARRAY => {
                let kind = self.u32()?;
                let count = self.size()?;
                out.extend(kind.to_le_bytes());
                out.extend(count.to_le_bytes());
                for _ in 0..count {
                    self.copy(kind, out, depth + 1)?;
                }
            }
            other => return Err((at, format!("the metadata's type {other} is not known"))),
        }
        Ok(())
    }
}
