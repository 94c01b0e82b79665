//! The directory of a zip archive, over mapped bytes.
//!
//! The `zip` crate hands out members as streams, while a stored tensor is to stay in the map; and it is
//! lenient where a weight file that plays tricks should be refused. So this reads the central directory
//! itself and believes nothing else: local headers must repeat it, members may neither overlap nor share a
//! name, and nothing may be encrypted or split. Inflating is left to `miniz_oxide`, which is pure Rust.

mod write;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use indexmap::IndexMap;

use crate::FormatError;

pub(crate) use write::ZipDraft;

/// What inflating a member may take beyond the size of the file it comes from.
pub(crate) const INFLATED_MARGIN: usize = 256 << 20;

/// What every zip file begins with, unless it is empty.
pub(crate) const LOCAL: &[u8; 4] = b"PK\x03\x04";
pub(crate) const CENTRAL: &[u8; 4] = b"PK\x01\x02";
pub(crate) const END: &[u8; 4] = b"PK\x05\x06";
const END_64: &[u8; 4] = b"PK\x06\x06";
const END_64_LOCATOR: &[u8; 4] = b"PK\x06\x07";

const END_BYTES: usize = 22;
const LOCATOR_BYTES: usize = 20;
pub(crate) const CENTRAL_BYTES: usize = 46;
pub(crate) const LOCAL_BYTES: usize = 30;
pub(crate) const ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;
const ZIP64_EXTRA: u16 = 1;

/// Whether a file begins as an archive.
pub(crate) fn is_zip(bytes: &[u8]) -> bool {
    bytes.starts_with(LOCAL) || bytes.starts_with(END)
}

/// The members of a zip archive, by name, in the order of its directory.
#[derive(Clone)]
pub(crate) struct Archive {
    path: PathBuf,
    format: &'static str,
    pub(crate) members: IndexMap<String, Member>,
}

/// One file in an archive.
#[derive(Clone)]
pub(crate) struct Member {
    /// Where its bytes begin in the archive.
    pub(crate) offset: usize,
    /// Its size once inflated, as the directory claims.
    pub(crate) size: usize,
    crc: u32,
    deflated: bool,
    /// The bytes as they lie in the archive.
    pub(crate) raw: Bytes,
}

impl Archive {
    /// Reads the directory; `format` says in errors what the archive should have been.
    ///
    /// # Errors
    /// The archive is truncated, encrypted, split or inconsistent.
    pub(crate) fn open(
        path: &Path,
        format: &'static str,
        map: &Bytes,
    ) -> Result<Self, FormatError> {
        let refuse = |(offset, reason)| FormatError::Malformed {
            path: path.to_owned(),
            format,
            offset: Some(offset as u64),
            reason,
        };
        Ok(Self {
            path: path.to_owned(),
            format,
            members: directory(map).map_err(refuse)?,
        })
    }

    /// The bytes of a member: a slice of the map if it is stored, a copy if it is deflated.
    ///
    /// # Errors
    /// The deflated stream is broken, or larger than the directory or the margin allow.
    pub(crate) fn bytes(&self, name: &str, member: &Member) -> Result<Bytes, FormatError> {
        if !member.deflated {
            return Ok(member.raw.clone());
        }
        let most = member.raw.len().saturating_add(INFLATED_MARGIN);
        if member.size > most {
            return Err(self.refuse(
                member,
                format!(
                    "`{name}` claims to inflate from {} to {} bytes, beyond the {most} that are allowed; save it \
                     without compression",
                    member.raw.len(),
                    member.size
                ),
            ));
        }
        // Room for one byte more than is claimed shows whether there are more.
        let bytes = self.inflate(name, member, member.size.saturating_add(1))?;
        if bytes.len() != member.size {
            let most = if bytes.len() > member.size {
                "more"
            } else {
                "fewer"
            };
            let reason = format!(
                "`{name}` inflates to {most} than the {} bytes that the directory says",
                member.size
            );
            return Err(self.refuse(member, reason));
        }
        Ok(bytes.into())
    }

    /// The same, with its checksum held against the directory.
    ///
    /// # Errors
    /// Those of [`Archive::bytes`], or the checksum differs.
    pub(crate) fn checked_bytes(&self, name: &str, member: &Member) -> Result<Bytes, FormatError> {
        let bytes = self.bytes(name, member)?;
        if crc32fast::hash(&bytes) != member.crc {
            return Err(self.refuse(member, format!("the checksum of `{name}` is wrong")));
        }
        Ok(bytes)
    }

    /// At most the first `most` bytes of a member.
    ///
    /// # Errors
    /// The deflated stream is broken.
    pub(crate) fn prefix(
        &self,
        name: &str,
        member: &Member,
        most: usize,
    ) -> Result<Bytes, FormatError> {
        if !member.deflated {
            return Ok(member.raw.slice(..most.min(member.raw.len())));
        }
        let bytes = self.inflate(name, member, most.min(member.size))?;
        Ok(bytes.into())
    }

    /// At most the first `most` bytes.
    fn inflate(&self, name: &str, member: &Member, most: usize) -> Result<Vec<u8>, FormatError> {
        inflate(&member.raw, most)
            .map_err(|status| self.refuse(member, format!("`{name}` cannot be inflated: {status}")))
    }

    pub(crate) fn refuse(&self, member: &Member, reason: String) -> FormatError {
        FormatError::Malformed {
            path: self.path.clone(),
            format: self.format,
            offset: Some(member.offset as u64),
            reason,
        }
    }
}

/// At most the first `most` bytes of a deflated stream. The buffer grows with what comes out, not with what is
/// claimed; the error is what is wrong with the stream.
pub(crate) fn inflate(raw: &[u8], most: usize) -> Result<Vec<u8>, String> {
    use miniz_oxide::inflate::{TINFLStatus, core};
    let flags = core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let mut state = core::DecompressorOxide::new();
    let mut bytes = vec![0; most.min(raw.len().saturating_mul(2).max(64))];
    let (mut read, mut written) = (0, 0);
    loop {
        let rest = raw.get(read..).unwrap_or_default();
        let (status, taken, given) = core::decompress(&mut state, rest, &mut bytes, written, flags);
        read += taken;
        written += given;
        match status {
            TINFLStatus::HasMoreOutput if bytes.len() < most => {
                bytes.resize(most.min(bytes.len().saturating_mul(2).max(64)), 0);
            }
            TINFLStatus::Done | TINFLStatus::HasMoreOutput => break,
            other => return Err(format!("{other:?}")),
        }
    }
    bytes.truncate(written);
    Ok(bytes)
}

impl Member {
    pub(crate) fn is_stored(&self) -> bool {
        !self.deflated
    }
}

/// A place and what is wrong there.
type Refusal = (usize, String);

fn directory(map: &Bytes) -> Result<IndexMap<String, Member>, Refusal> {
    let end = find_end(map)?;
    let (count, size, begin) = end_record(map, end)?;
    let stop = begin.checked_add(size).filter(|stop| *stop <= end);
    let Some(stop) = stop else {
        let reason = format!(
            "it claims a directory of {size} bytes at byte {begin}, which is not in the file"
        );
        return Err((end, reason));
    };
    // A record takes 46 bytes and its name, so that the count is bounded by the file.
    if count > size / CENTRAL_BYTES {
        return Err((
            end,
            format!("a directory of {size} bytes cannot list {count} members"),
        ));
    }
    let mut members = IndexMap::with_capacity(count);
    let mut at = begin;
    for _ in 0..count {
        let (name, member, next) = central_record(map, at, stop, begin)?;
        if members.contains_key(&name) {
            return Err((at, format!("`{name}` is there twice")));
        }
        members.insert(name, member);
        at = next;
    }
    if at != stop {
        return Err((at, "the directory does not end where it says".to_owned()));
    }
    let mut spans: Vec<(usize, usize, &str)> = members
        .iter()
        .map(|(name, m)| (m.offset, m.offset + m.raw.len(), &name[..]))
        .collect();
    spans.sort_unstable();
    for pair in spans.windows(2) {
        let ((_, end, first), (begin, _, second)) = (pair[0], pair[1]);
        if begin < end {
            return Err((begin, format!("`{second}` begins inside `{first}`")));
        }
    }
    Ok(members)
}

/// Where the end record is: the last one whose comment reaches exactly to the end of the file.
fn find_end(map: &[u8]) -> Result<usize, Refusal> {
    let last = map.len().saturating_sub(END_BYTES);
    let first = last.saturating_sub(usize::from(u16::MAX));
    (first..=last)
        .rev()
        .find(|&at| {
            map[at..].starts_with(END)
                && u16_at(map, at + 20)
                    .is_some_and(|comment| at + END_BYTES + usize::from(comment) == map.len())
        })
        .ok_or_else(|| {
            let reason = format!(
                "the zip archive has no directory at its end ({} bytes); it is truncated",
                map.len()
            );
            (last, reason)
        })
}

/// The number of members, and the size and place of the directory.
fn end_record(map: &[u8], end: usize) -> Result<(usize, usize, usize), Refusal> {
    let truncated = || (end, "the end of the directory is truncated".to_owned());
    let short = |at| u16_at(map, end + at).ok_or_else(truncated);
    let long = |at| u32_at(map, end + at).ok_or_else(truncated);
    let (disk, directory_disk) = (short(4)?, short(6)?);
    let (here, count) = (short(8)?, short(10)?);
    let (size, begin) = (long(12)?, long(16)?);
    let locator = end
        .checked_sub(LOCATOR_BYTES)
        .filter(|at| map[*at..].starts_with(END_64_LOCATOR));
    if let Some(locator) = locator {
        let at = u64_at(map, locator + 8).and_then(|at| usize::try_from(at).ok());
        let at = at.filter(|at| map.get(*at..).is_some_and(|rest| rest.starts_with(END_64)));
        let Some(at) = at.filter(|at| *at < locator) else {
            return Err((
                locator,
                "the zip64 directory is not where it should be".to_owned(),
            ));
        };
        let field = |field| {
            let value = u64_at(map, at + field).and_then(|value| usize::try_from(value).ok());
            value.ok_or_else(|| (at, "the zip64 directory is out of range".to_owned()))
        };
        let (count, size, begin) = (field(32)?, field(40)?, field(48)?);
        return Ok((count, size, begin));
    }
    if disk != 0 || directory_disk != 0 || here != count {
        return Err((end, "the archive is split over several files".to_owned()));
    }
    Ok((usize::from(count), size as usize, begin as usize))
}

/// One record of the directory, checked against the local header: name, member, where the next begins.
fn central_record(
    map: &Bytes,
    at: usize,
    stop: usize,
    directory: usize,
) -> Result<(String, Member, usize), Refusal> {
    let truncated = || (at, "a record of the directory is truncated".to_owned());
    let record = map
        .get(at..stop)
        .filter(|record| record.len() >= CENTRAL_BYTES)
        .ok_or_else(truncated)?;
    if !record.starts_with(CENTRAL) {
        return Err((
            at,
            "a record of the directory does not begin as one".to_owned(),
        ));
    }
    let short = |at| u16_at(record, at).map(usize::from).ok_or_else(truncated);
    let long = |at| u32_at(record, at).ok_or_else(truncated);
    let (flags, method) = (u16_at(record, 8).unwrap_or(0), short(10)?);
    let (name, extra, comment) = (short(28)?, short(30)?, short(32)?);
    let next = CENTRAL_BYTES + name + extra + comment;
    let (Some(name), Some(extra)) = (
        record.get(CENTRAL_BYTES..CENTRAL_BYTES + name),
        record.get(CENTRAL_BYTES + name..CENTRAL_BYTES + name + extra),
    ) else {
        return Err(truncated());
    };
    if next > record.len() {
        return Err(truncated());
    }
    let text = str::from_utf8(name).map_err(|_| (at, "a member's name is not UTF-8".to_owned()))?;
    if text.contains('\0') {
        return Err((at, format!("the name {text:?} has a zero byte")));
    }
    if flags & ENCRYPTED != 0 {
        return Err((
            at,
            format!("`{text}` is encrypted; decrypt the archive first"),
        ));
    }
    if method != 0 && method != 8 {
        let reason =
            format!("`{text}` is compressed by method {method}; save it stored or deflated");
        return Err((at, reason));
    }
    let (size, stored, local) = sizes(extra, long(24)?, long(20)?, long(42)?)
        .ok_or_else(|| (at, format!("`{text}` has sizes that are out of range")))?;
    if method == 0 && size != stored {
        let reason = format!("`{text}` is stored, but its two sizes are {stored} and {size}");
        return Err((at, reason));
    }

    let begin = local_header(map, local, name, directory).ok_or_else(|| {
        (
            local,
            format!("the header of `{text}` is not what the directory says"),
        )
    })?;
    let end = begin.checked_add(stored).filter(|end| *end <= directory);
    let Some(end) = end else {
        let reason =
            format!("`{text}` claims {stored} bytes, which would reach beyond the archive's data");
        return Err((begin, reason));
    };
    let member = Member {
        offset: begin,
        size,
        crc: long(16)?,
        deflated: method == 8,
        raw: map.slice(begin..end),
    };
    Ok((text.to_owned(), member, at + next))
}

/// Size, stored size and local header, from the record's fields or its zip64 field where those are full.
pub(crate) fn sizes(
    extra: &[u8],
    size: u32,
    stored: u32,
    local: u32,
) -> Option<(usize, usize, usize)> {
    let mut rest = extra;
    let mut wide: &[u8] = &[];
    // PyTorch pads with fields of its own; what does not parse as a field is padding too.
    while let (Some(id), Some(length)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let Some(field) = rest.get(4..4 + usize::from(length)) else {
            break;
        };
        if id == ZIP64_EXTRA {
            wide = field;
        }
        rest = &rest[4 + usize::from(length)..];
    }
    let mut pick = |narrow: u32| {
        if narrow != u32::MAX {
            return Some(narrow as usize);
        }
        let value = u64_at(wide, 0)?;
        wide = &wide[8..];
        usize::try_from(value).ok()
    };
    Some((pick(size)?, pick(stored)?, pick(local)?))
}

/// Where the data behind a local header begins, if that header has the same name.
fn local_header(map: &[u8], at: usize, name: &[u8], directory: usize) -> Option<usize> {
    let header = map.get(at..directory)?;
    if header.len() < LOCAL_BYTES || !header.starts_with(LOCAL) {
        return None;
    }
    let length = usize::from(u16_at(header, 26)?);
    let extra = usize::from(u16_at(header, 28)?);
    let same = header.get(LOCAL_BYTES..LOCAL_BYTES + length)? == name;
    let begin = LOCAL_BYTES + length + extra;
    (same && begin <= header.len()).then_some(at + begin)
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
