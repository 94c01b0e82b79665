//! Writing a zip archive of stored members, one after the other, with zip64 records where they are needed.
//!
//! Layout: <https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT> 6.3.10.

use std::path::PathBuf;

use super::{CENTRAL, END, END_64, END_64_LOCATOR, LOCAL, LOCAL_BYTES, ZIP64_EXTRA};
use crate::error::FormatError;
use crate::write::{Draft, Whole};

/// The field of padding, as PyTorch writes it.
const PADDING: &[u8; 2] = b"FB";
/// The first of January 1980, the earliest date there is: files of equal weights are equal.
const DATE: u16 = 1 << 5 | 1;
const VERSION: u16 = 45;
/// Names are UTF-8.
const UTF8: u16 = 1 << 11;
/// A name, a size and a place beyond these have 64 bits.
const FULL: u64 = u32::MAX as u64;

/// An archive that is being written.
pub(crate) struct ZipDraft {
    out: Draft,
    at: u64,
    alignment: u64,
    members: Vec<Written>,
}

struct Written {
    name: String,
    at: u64,
    size: u64,
    crc: u32,
}

impl ZipDraft {
    /// The data of each member will begin at a multiple of `alignment`.
    pub(crate) fn new(out: Draft, alignment: u64) -> Self {
        Self {
            out,
            at: 0,
            alignment,
            members: Vec::new(),
        }
    }

    /// Adds a member whose bytes come in parts; `write` gets a place to put them.
    pub(crate) fn member(
        &mut self,
        name: &str,
        size: u64,
        write: impl FnOnce(&mut Member<'_>) -> Result<(), FormatError>,
    ) -> Result<(), FormatError> {
        let wide = size >= FULL;
        let begin = self.at;
        let mut extra = Vec::new();
        if wide {
            extra.extend(ZIP64_EXTRA.to_le_bytes());
            extra.extend(16u16.to_le_bytes());
            extra.extend(size.to_le_bytes());
            extra.extend(size.to_le_bytes());
        }
        let plain = begin + (LOCAL_BYTES + name.len() + extra.len()) as u64;
        if !plain.is_multiple_of(self.alignment) {
            // The field's own header takes four bytes.
            let padding = (plain + 4).next_multiple_of(self.alignment) - (plain + 4);
            extra.extend(PADDING);
            extra.extend((padding as u16).to_le_bytes());
            extra.extend(std::iter::repeat_n(b'Z', padding as usize));
        }
        let narrow = u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes();
        let narrow = if wide { [0xff; 4] } else { narrow };
        let mut header = Vec::new();
        header.extend(LOCAL);
        for field in [VERSION, UTF8, 0, 0, DATE] {
            header.extend(field.to_le_bytes());
        }
        let crc_at = begin + header.len() as u64;
        header.extend([0; 4]);
        header.extend(narrow);
        header.extend(narrow);
        header.extend((name.len() as u16).to_le_bytes());
        header.extend((extra.len() as u16).to_le_bytes());
        header.extend(name.as_bytes());
        header.extend(&extra);
        self.out.write(&header)?;
        let mut member = Member {
            out: &mut self.out,
            crc: crc32fast::Hasher::new(),
            written: 0,
        };
        write(&mut member)?;
        let (crc, written) = (member.crc.finalize(), member.written);
        debug_assert_eq!(written, size);
        self.out.rewrite(crc_at, &crc.to_le_bytes())?;
        self.at = begin + header.len() as u64 + written;
        self.members.push(Written {
            name: name.to_owned(),
            at: begin,
            size,
            crc,
        });
        Ok(())
    }

    /// Adds a member.
    pub(crate) fn bytes(&mut self, name: &str, bytes: &[u8]) -> Result<(), FormatError> {
        self.member(name, bytes.len() as u64, |member| member.write(bytes))
    }

    /// Writes the directory.
    pub(crate) fn finish(mut self) -> Result<Whole, FormatError> {
        let begin = self.at;
        let mut directory = Vec::new();
        for member in &self.members {
            directory.extend(central(member));
        }
        let (size, count) = (directory.len() as u64, self.members.len() as u64);
        if begin >= FULL || size >= FULL || count >= u64::from(u16::MAX) {
            let end = begin + size;
            directory.extend(END_64);
            directory.extend(44u64.to_le_bytes());
            directory.extend(VERSION.to_le_bytes());
            directory.extend(VERSION.to_le_bytes());
            directory.extend([0; 8]);
            for field in [count, count, size, begin] {
                directory.extend(field.to_le_bytes());
            }
            directory.extend(END_64_LOCATOR);
            directory.extend([0; 4]);
            directory.extend(end.to_le_bytes());
            directory.extend(1u32.to_le_bytes());
        }
        let count = u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes();
        directory.extend(END);
        directory.extend([0; 4]);
        directory.extend(count);
        directory.extend(count);
        directory.extend(narrow(size));
        directory.extend(narrow(begin));
        directory.extend([0; 2]);
        self.out.write(&directory)?;
        self.out.finish()
    }

    /// Writes the directory and gives the file its name.
    pub(crate) fn place(self) -> Result<Vec<PathBuf>, FormatError> {
        Ok(vec![self.finish()?.place()?])
    }
}

fn narrow(value: u64) -> [u8; 4] {
    u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes()
}

/// A record of the directory.
fn central(member: &Written) -> Vec<u8> {
    let mut wide = Vec::new();
    if member.size >= FULL {
        wide.extend(member.size.to_le_bytes());
        wide.extend(member.size.to_le_bytes());
    }
    if member.at >= FULL {
        wide.extend(member.at.to_le_bytes());
    }
    let mut extra = Vec::new();
    if !wide.is_empty() {
        extra.extend(ZIP64_EXTRA.to_le_bytes());
        extra.extend((wide.len() as u16).to_le_bytes());
        extra.extend(wide);
    }
    let mut record = Vec::new();
    record.extend(CENTRAL);
    for field in [VERSION, VERSION, UTF8, 0, 0, DATE] {
        record.extend(field.to_le_bytes());
    }
    record.extend(member.crc.to_le_bytes());
    record.extend(narrow(member.size));
    record.extend(narrow(member.size));
    record.extend((member.name.len() as u16).to_le_bytes());
    record.extend((extra.len() as u16).to_le_bytes());
    // No comment, the first disk, no attributes.
    record.extend([0; 10]);
    record.extend(narrow(member.at));
    record.extend(member.name.as_bytes());
    record.extend(extra);
    record
}

/// The member that is being written.
pub(crate) struct Member<'a> {
    out: &'a mut Draft,
    crc: crc32fast::Hasher,
    written: u64,
}

impl Member<'_> {
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        self.crc.update(bytes);
        self.written += bytes.len() as u64;
        self.out.write(bytes)
    }
}
