//! The bytes of a sound file, and windows onto them.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

use symphonia::core::io::MediaSource;

/// Where the bytes lie.
#[derive(Debug, Clone)]
pub(super) enum Bytes {
    File(Arc<File>, u64),
    Memory(Arc<[u8]>),
}

impl Bytes {
    pub(super) fn len(&self) -> u64 {
        match self {
            Bytes::File(_, length) => *length,
            Bytes::Memory(bytes) => bytes.len() as u64,
        }
    }

    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Bytes::File(file, _) => {
                let mut file = &**file;
                file.seek(SeekFrom::Start(at))?;
                file.read(buffer)
            }
            Bytes::Memory(bytes) => {
                let from = bytes.len().min(usize::try_from(at).unwrap_or(usize::MAX));
                let count = buffer.len().min(bytes.len() - from);
                buffer[..count].copy_from_slice(&bytes[from..from + count]);
                Ok(count)
            }
        }
    }
}

/// Reads small pieces here and there, most of them a little further on than the last.
pub(super) struct Peeker {
    bytes: Bytes,
    buffer: Vec<u8>,
    start: u64,
}

const AHEAD: usize = 1 << 16;

impl Peeker {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self {
            bytes,
            buffer: Vec::new(),
            start: 0,
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.bytes.len()
    }

    /// The `count` bytes from `at` on, at most 64 KiB; fewer where the file ends.
    pub(super) fn peek(&mut self, at: u64, count: usize) -> io::Result<&[u8]> {
        let within = at >= self.start
            && at.saturating_add(count as u64) <= self.start + self.buffer.len() as u64;
        if !within {
            self.start = at;
            self.buffer.resize(AHEAD, 0);
            let mut filled = 0;
            while filled < AHEAD {
                match self
                    .bytes
                    .read_at(at.saturating_add(filled as u64), &mut self.buffer[filled..])
                {
                    Ok(0) => break,
                    Ok(read) => filled += read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            self.buffer.truncate(filled);
        }
        let from = (at - self.start) as usize;
        let end = self.buffer.len().min(from + count);
        Ok(&self.buffer[from.min(end)..end])
    }

    /// The first place from `at` on, before `end`, where `found` holds of the bytes that begin there, of which it
    /// sees `seen` unless the file ends. Only places with one of the bytes `first` are asked about.
    pub(super) fn find(
        &mut self,
        mut at: u64,
        end: u64,
        first: &[u8],
        seen: usize,
        found: impl Fn(&[u8]) -> bool,
    ) -> io::Result<Option<u64>> {
        while at < end {
            let block = self.peek(at, AHEAD)?;
            let last = block.len() < AHEAD;
            let tries = match last {
                true => block.len(),
                false => AHEAD - seen,
            };
            let tries = tries.min(usize::try_from(end - at).unwrap_or(usize::MAX));
            let place = (0..tries).find(|&n| first.contains(&block[n]) && found(&block[n..]));
            if let Some(place) = place {
                return Ok(Some(at + place as u64));
            }
            if last {
                break;
            }
            at += tries as u64;
        }
        Ok(None)
    }
}

/// A range of the bytes as a file of its own, with a header of ours before it.
pub(super) struct Window {
    bytes: Bytes,
    head: Vec<u8>,
    range: Range<u64>,
    at: u64,
    seekable: bool,
}

impl Window {
    pub(super) fn new(bytes: Bytes, head: Vec<u8>, range: Range<u64>, seekable: bool) -> Self {
        Self {
            bytes,
            head,
            range,
            at: 0,
            seekable,
        }
    }

    fn size(&self) -> u64 {
        self.head.len() as u64 + (self.range.end - self.range.start)
    }
}

impl Read for Window {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let head = self.head.len() as u64;
        let count = if self.at < head {
            let rest = &self.head[self.at as usize..];
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            count
        } else {
            let left = self.size().saturating_sub(self.at);
            let count = buffer
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            let from = self.range.start + (self.at - head);
            self.bytes.read_at(from, &mut buffer[..count])?
        };
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Window {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size().checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = to.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

impl MediaSource for Window {
    fn is_seekable(&self) -> bool {
        self.seekable
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.size())
    }
}
