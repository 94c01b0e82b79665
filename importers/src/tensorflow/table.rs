//! The sorted string table that an index of a checkpoint is, and a whole checkpoint of the first version.
//!
//! The layout is LevelDB's, of `doc/table_format.md` at v1.23, as TensorFlow's `core/lib/io/table*` of 2.17 has
//! it: blocks of prefix-compressed keys, each with a kind (stored or Snappy) and a checksum, under an index.

use bytes::Bytes;

use crate::protobuf::{Refusal, put_varint, varint};

/// What a table ends with.
const MAGIC: u64 = 0xdb47_7524_8b80_fb57;
const FOOTER_BYTES: usize = 48;
/// The kind of a block, and its checksum.
const TRAILER_BYTES: usize = 5;
/// A key in TensorFlow's tables is a name, with a slice at most.
const MOST_KEY: usize = 128 << 10;
/// Snappy makes at most 64 bytes of three.
const MOST_SNAPPY: usize = 22;
const RESTART_EVERY: usize = 16;
/// TensorFlow's `table::Options::block_size`.
const BLOCK_BYTES: usize = 256 << 10;

pub(super) fn is_table(bytes: &[u8]) -> bool {
    bytes.len() >= FOOTER_BYTES && bytes.ends_with(&MAGIC.to_le_bytes())
}

/// Where a block is in the file, without its trailer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Handle {
    pub(super) offset: usize,
    size: usize,
}

/// The bytes of a block once uncompressed.
pub(super) struct Block {
    bytes: Bytes,
    /// Where they begin in the file.
    at: usize,
    /// Whether they lie there as they are.
    pub(super) stored: bool,
}

/// A key and its value.
pub(super) struct Item {
    pub(super) key: Vec<u8>,
    pub(super) value: Bytes,
    /// Where the value begins in the file; where its block does if that is compressed.
    pub(super) at: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Table {
    map: Bytes,
}

impl Table {
    pub(super) fn new(map: &Bytes) -> Self {
        Self { map: map.clone() }
    }

    /// The blocks in their order, which is that of their keys and of the file.
    pub(super) fn blocks(&self) -> Result<Vec<Handle>, Refusal> {
        let begin = self.map.len().saturating_sub(FOOTER_BYTES);
        if !is_table(&self.map) {
            let reason = format!(
                "its {} bytes do not end as a table of TensorFlow's does; it is truncated",
                self.map.len()
            );
            return Err((begin, reason));
        }
        let footer = &self.map[begin..];
        let (_, length) =
            handle(footer).ok_or_else(|| (begin, "the footer is broken".to_owned()))?;
        let (index, _) =
            handle(&footer[length..]).ok_or_else(|| (begin, "the footer is broken".to_owned()))?;
        let mut handles: Vec<Handle> = Vec::new();
        self.verify(index)?;
        for item in self.block(index)?.items()? {
            let item = item?;
            let (found, _) = handle(&item.value)
                .ok_or_else(|| (item.at, "the place of a block is broken".to_owned()))?;
            let before = handles.last().map_or(0, |last| last.offset + last.size);
            if found.offset < before {
                let reason = format!(
                    "a block at byte {} begins inside the one before",
                    found.offset
                );
                return Err((item.at, reason));
            }
            self.raw(found)?;
            handles.push(found);
        }
        Ok(handles)
    }

    /// Whether its header is that of a checkpoint of the first version, which begins with a message, where that of
    /// the second begins with a number.
    pub(super) fn holds_slices(&self) -> Result<bool, Refusal> {
        let Some(first) = self.blocks()?.into_iter().next() else {
            return Ok(false);
        };
        self.verify(first)?;
        let item = self.block(first)?.items()?.next().transpose()?;
        Ok(item.is_some_and(|item| item.value.first() == Some(&0x0a)))
    }

    /// A block and its trailer.
    fn raw(&self, handle: Handle) -> Result<(Bytes, u8, u32), Refusal> {
        let end = handle.offset.checked_add(handle.size);
        let trailer = end.and_then(|end| self.map.get(end..)?.first_chunk::<TRAILER_BYTES>());
        let (Some(end), Some([kind, crc @ ..])) = (end, trailer) else {
            let reason = format!(
                "a block of {} bytes at byte {} reaches beyond the file of {}; it is truncated",
                handle.size,
                handle.offset,
                self.map.len()
            );
            return Err((handle.offset.min(self.map.len()), reason));
        };
        let bytes = self.map.slice(handle.offset..end);
        Ok((bytes, *kind, u32::from_le_bytes(*crc)))
    }

    /// Holds the checksum of the block at `handle` against its bytes.
    pub(super) fn verify(&self, handle: Handle) -> Result<(), Refusal> {
        let (bytes, kind, crc) = self.raw(handle)?;
        if masked(crc32c::crc32c_append(crc32c::crc32c(&bytes), &[kind])) != crc {
            return Err((handle.offset, "the checksum of a block is wrong".to_owned()));
        }
        Ok(())
    }

    /// The block at `handle`, uncompressed; its checksum is not looked at.
    pub(super) fn block(&self, handle: Handle) -> Result<Block, Refusal> {
        let (bytes, kind, _) = self.raw(handle)?;
        let at = handle.offset;
        match kind {
            0 => Ok(Block {
                bytes,
                at,
                stored: true,
            }),
            1 => {
                let broken = |error| {
                    (
                        at,
                        format!("a Snappy block cannot be uncompressed: {error}"),
                    )
                };
                let claimed = snap::raw::decompress_len(&bytes).map_err(broken)?;
                if claimed > bytes.len().saturating_mul(MOST_SNAPPY) {
                    let reason = format!("{} bytes of Snappy cannot be {claimed}", bytes.len());
                    return Err((at, reason));
                }
                let whole = snap::raw::Decoder::new()
                    .decompress_vec(&bytes)
                    .map_err(broken)?;
                Ok(Block {
                    bytes: whole.into(),
                    at,
                    stored: false,
                })
            }
            other => Err((
                at,
                format!("a block is compressed by method {other}, which is not known"),
            )),
        }
    }
}

impl Block {
    /// The keys and values, in ascending order of the keys.
    pub(super) fn items(&self) -> Result<Items<'_>, Refusal> {
        let broken = || (self.at, "a block does not end as one".to_owned());
        let bytes = &self.bytes;
        let last = bytes.len().checked_sub(4).ok_or_else(broken)?;
        let restarts = bytes.get(last..).and_then(|tail| tail.first_chunk());
        let restarts = u32::from_le_bytes(*restarts.ok_or_else(broken)?) as usize;
        let end = restarts
            .checked_mul(4)
            .and_then(|size| last.checked_sub(size));
        Ok(Items {
            block: self,
            next: 0,
            end: end.ok_or_else(broken)?,
            key: Vec::new(),
        })
    }
}

pub(super) struct Items<'a> {
    block: &'a Block,
    next: usize,
    end: usize,
    /// The key before, whose beginning the next one shares.
    key: Vec<u8>,
}

impl Items<'_> {
    fn item(&mut self) -> Result<Item, Refusal> {
        let first = self.next == 0;
        let bytes = &self.block.bytes[..self.end];
        let at = |place: usize| {
            if self.block.stored {
                self.block.at + place
            } else {
                self.block.at
            }
        };
        let begin = at(self.next);
        let truncated = || (begin, "an entry of a block is truncated".to_owned());
        let mut number = || {
            let (value, length) = varint(bytes.get(self.next..).unwrap_or_default())?;
            self.next += length;
            usize::try_from(value).ok()
        };
        let (shared, own, size) = (
            number().ok_or_else(truncated)?,
            number().ok_or_else(truncated)?,
            number().ok_or_else(truncated)?,
        );
        let value = self.next.checked_add(own).ok_or_else(truncated)?;
        let end = value.checked_add(size).filter(|end| *end <= bytes.len());
        let end = end.ok_or_else(truncated)?;
        if shared > self.key.len() || shared + own > MOST_KEY {
            let reason = format!(
                "a key shares {shared} bytes with one before of {}",
                self.key.len()
            );
            return Err((begin, reason));
        }
        let key = [&self.key[..shared], &bytes[self.next..value]].concat();
        if !first && key <= self.key {
            return Err((begin, "the keys of a block are not in order".to_owned()));
        }
        self.key.clone_from(&key);
        self.next = end;
        Ok(Item {
            key,
            value: self.block.bytes.slice(value..end),
            at: at(value),
        })
    }
}

impl Iterator for Items<'_> {
    type Item = Result<Item, Refusal>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.end {
            return None;
        }
        let item = self.item();
        if item.is_err() {
            self.next = self.end;
        }
        Some(item)
    }
}

/// The place of a block, and how many bytes say so.
fn handle(bytes: &[u8]) -> Option<(Handle, usize)> {
    let (offset, first) = varint(bytes)?;
    let (size, second) = varint(&bytes[first..])?;
    let handle = Handle {
        offset: usize::try_from(offset).ok()?,
        size: usize::try_from(size).ok()?,
    };
    Some((handle, first + second))
}

/// A checksum as it is stored: turned and moved, so that a checksum over checksums means something.
pub(super) fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Writes a table whose keys come in ascending order, to the byte as TensorFlow's own does.
#[derive(Default)]
pub(super) struct Writer {
    file: Vec<u8>,
    block: BlockWriter,
    index: BlockWriter,
    /// The last key of a block that is not in the index yet, and the block's place.
    pending: Option<(Vec<u8>, Vec<u8>)>,
}

#[derive(Default)]
struct BlockWriter {
    bytes: Vec<u8>,
    restarts: Vec<u32>,
    count: usize,
    key: Vec<u8>,
}

impl Writer {
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) {
        if let Some((last, place)) = self.pending.take() {
            self.index.put(&between(&last, key), &place, 1);
        }
        self.block.put(key, value, RESTART_EVERY);
        if self.block.size() >= BLOCK_BYTES {
            self.end_block();
        }
    }

    fn end_block(&mut self) {
        let block = std::mem::take(&mut self.block);
        let key = block.key.clone();
        let place = self.append(block);
        self.pending = Some((key, place));
    }

    /// Appends a block and its trailer; gives its place as it is written.
    fn append(&mut self, block: BlockWriter) -> Vec<u8> {
        let bytes = block.finish();
        let mut place = Vec::new();
        put_varint(&mut place, self.file.len() as u64);
        put_varint(&mut place, bytes.len() as u64);
        self.file.extend_from_slice(&bytes);
        self.file.push(0);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes), &[0]);
        self.file.extend(masked(crc).to_le_bytes());
        place
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.block.count > 0 {
            self.end_block();
        }
        if let Some((last, place)) = self.pending.take() {
            self.index.put(&after(&last), &place, 1);
        }
        let mut footer = self.append(BlockWriter::default());
        let index = std::mem::take(&mut self.index);
        footer.extend(self.append(index));
        footer.resize(FOOTER_BYTES - MAGIC.to_le_bytes().len(), 0);
        self.file.extend(footer);
        self.file.extend(MAGIC.to_le_bytes());
        self.file
    }
}

/// A short key that is not before `key`.
fn after(key: &[u8]) -> Vec<u8> {
    let Some(at) = key.iter().position(|byte| *byte != 0xff) else {
        return key.to_vec();
    };
    let mut short = key[..=at].to_vec();
    short[at] += 1;
    short
}

/// A short key that is not before `first`, and before `second`.
fn between(first: &[u8], second: &[u8]) -> Vec<u8> {
    let differing = first.iter().zip(second).position(|(a, b)| a != b);
    let Some(at) = differing.filter(|at| first[*at] < 0xff && first[*at] + 1 < second[*at]) else {
        return first.to_vec();
    };
    let mut short = first[..=at].to_vec();
    short[at] += 1;
    short
}

impl BlockWriter {
    fn put(&mut self, key: &[u8], value: &[u8], restart_every: usize) {
        let shared = if self.count.is_multiple_of(restart_every) {
            self.restarts.push(self.bytes.len() as u32);
            0
        } else {
            key.iter()
                .zip(&self.key)
                .take_while(|(a, b)| a == b)
                .count()
        };
        for number in [shared, key.len() - shared, value.len()] {
            put_varint(&mut self.bytes, number as u64);
        }
        self.bytes.extend_from_slice(&key[shared..]);
        self.bytes.extend_from_slice(value);
        self.key = key.to_vec();
        self.count += 1;
    }

    /// How large it is once it is finished.
    fn size(&self) -> usize {
        self.bytes.len() + 4 * self.restarts.len() + 4
    }

    fn finish(mut self) -> Vec<u8> {
        if self.restarts.is_empty() {
            self.restarts.push(0);
        }
        self.bytes
            .extend(self.restarts.iter().flat_map(|at| at.to_le_bytes()));
        self.bytes
            .extend((self.restarts.len() as u32).to_le_bytes());
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{Table, Writer};

    #[test]
    fn a_table_of_many_blocks_is_read_as_it_was_written() -> Result<(), super::Refusal> {
        let key = |number: usize| format!("layer_{number:05}/kernel").into_bytes();
        let mut writer = Writer::default();
        for number in 0..9000 {
            writer.put(&key(number), &[number as u8; 60]);
        }
        let table = Table::new(&Bytes::from(writer.finish()));
        let (mut found, mut blocks) = (0, 0);
        for handle in table.blocks()? {
            table.verify(handle)?;
            for item in table.block(handle)?.items()? {
                let item = item?;
                assert_eq!(item.key, key(found));
                assert_eq!(&item.value[..], [found as u8; 60]);
                found += 1;
            }
            blocks += 1;
        }
        assert_eq!(found, 9000);
        assert!(blocks > 1);
        Ok(())
    }
}
