//! What is compressed as a whole, and tar archives.

use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;
use tempfile::SpooledData;

use super::{Place, leads_out};
use crate::data::clip;
use crate::{map, pytorch};

/// The widest window that is kept of a compressed stream, as its own tools ask before they keep more.
const MOST_WINDOW: u64 = 64 << 20;
const MOST_WINDOW_KIB: u32 = 72 << 10;
/// How much of what is unpacked stays in memory.
const MOST_IN_MEMORY: usize = 8 << 20;
const BLOCK: usize = 512;

/// How something is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packed {
    Gzip,
    Zlib,
    Deflate,
    Bzip2,
    Xz,
    Lzma,
    Zstd,
    /// What is not looked into: its name.
    Closed(&'static str),
}

impl Packed {
    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zlib => "zlib",
            Self::Deflate => "deflate",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Lzma => "LZMA",
            Self::Zstd => "Zstandard",
            Self::Closed(name) => name,
        }
    }
}

/// How a file is packed, by its first bytes.
pub(super) fn find(bytes: &[u8]) -> Option<Packed> {
    Some(match bytes {
        [0x1f, 0x8b, 8, ..] => Packed::Gzip,
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, ..]
        | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, 0x38, ..] => Packed::Bzip2,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Packed::Xz,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Packed::Zstd,
        [0x78, second, ..] if (0x7800 + u16::from(*second)) % 31 == 0 && begins(bytes) => {
            Packed::Zlib
        }
        [0x5d, 0, 0, ..] if is_lzma(bytes) => Packed::Lzma,
        [b'7', b'z', 0xbc, 0xaf, 0x27, 0x1c, ..] => Packed::Closed("7z archive"),
        [b'R', b'a', b'r', b'!', 0x1a, 7, ..] => Packed::Closed("RAR archive"),
        [b'M', b'S', b'C', b'F', 0, 0, 0, 0, ..] => Packed::Closed("CAB archive"),
        [0x04, 0x22, 0x4d, 0x18, ..] => Packed::Closed("LZ4 stream"),
        [b'L', b'Z', b'I', b'P', 0 | 1, ..] => Packed::Closed("lzip stream"),
        [0xff, 6, 0, 0, b's', b'N', b'a', b'P', b'p', b'Y', ..] => Packed::Closed("Snappy stream"),
        _ => return None,
    })
}

/// Whether a zlib stream really begins here.
fn begins(bytes: &[u8]) -> bool {
    let mut some = [0; 64];
    let mut stream = flate2::read::ZlibDecoder::new(bytes);
    stream.read(&mut some).is_ok_and(|count| count > 0)
}

/// The size of the dictionary is a power of two or half as much more, and the length is that or unknown.
fn is_lzma(bytes: &[u8]) -> bool {
    let Some(dictionary) = bytes.get(1..5).and_then(|size| size.first_chunk()) else {
        return false;
    };
    let dictionary = u32::from_le_bytes(*dictionary);
    let size = bytes.get(5..13).and_then(|size| size.first_chunk());
    let size = size.map_or(0, |size| u64::from_le_bytes(*size));
    dictionary >= 1 << 12
        && (dictionary.count_ones() == 1 || dictionary == u32::MAX)
        && (size == u64::MAX || size < 1 << 40)
        && bytes.get(13) == Some(&0)
}

/// Looks into something that is packed; says what it is.
pub(super) fn scan(place: &mut Place<'_>, name: &str, bytes: &Bytes, how: Packed) -> String {
    if let Packed::Closed(kind) = how {
        place.warning(
            0,
            format!("is packed as a {kind}, which is not looked into"),
        );
        return format!("a {kind}");
    }
    let (inner, state) = unpack(place, bytes, how, u64::MAX);
    match state {
        State::Whole => {}
        State::Broken(reason) => {
            let what = format!("cannot be unpacked to its end by {}: {reason}", how.name());
            place.notice(0, what);
        }
        State::Beyond => beyond(place, 0),
    }
    let inside = name
        .rsplit_once('.')
        .filter(|(_, ending)| matches!(*ending, "gz" | "tgz" | "xz" | "bz2" | "zst" | "lzma" | "z"))
        .map_or(name, |(stem, _)| stem);
    let label = if inside == name {
        format!("what {} unpacks to", how.name())
    } else {
        inside.to_owned()
    };
    place.unpacked(0, &label, &inner);
    format!("compressed by {}", how.name())
}

/// Says that no more is unpacked.
pub(super) fn beyond(place: &mut Place<'_>, at: usize) {
    place.danger(
        at,
        "unpacks to so many bytes that they would fill memory or disk; the rest is not looked into",
    );
}

/// How unpacking ended.
pub(super) enum State {
    Whole,
    Broken(String),
    /// There is more than may be unpacked.
    Beyond,
}

/// At most `most` bytes of what is packed, as far as it can be unpacked; a long one in a temporary file.
pub(super) fn unpack(
    place: &mut Place<'_>,
    bytes: &[u8],
    how: Packed,
    most: u64,
) -> (Bytes, State) {
    let budget = place.left.min(most);
    let mut out = tempfile::spooled_tempfile(MOST_IN_MEMORY);
    let copied = copy(bytes, how, budget, &mut out);
    let length = copied.as_ref().map_or(0, |count| *count);
    let state = match copied {
        Err(error) => State::Broken(error.to_string()),
        Ok(count) if count > place.left => State::Beyond,
        Ok(_) => State::Whole,
    };
    let text = match out.into_inner() {
        SpooledData::InMemory(text) => text.into_inner().into(),
        SpooledData::OnDisk(file) => {
            map::map(Path::new("a temporary file"), &file).unwrap_or_default()
        }
    };
    let taken = length.max(text.len() as u64);
    place.left = place.left.saturating_sub(taken);
    (text, state)
}

/// Copies one byte more than the budget at most, so that it shows whether there is more.
fn copy(
    bytes: &[u8],
    how: Packed,
    budget: u64,
    out: &mut tempfile::SpooledTempFile,
) -> io::Result<u64> {
    let most = budget.saturating_add(1);
    let mut read = |stream: &mut dyn Read| io::copy(&mut stream.take(most), out);
    match how {
        Packed::Gzip => read(&mut flate2::read::MultiGzDecoder::new(bytes)),
        Packed::Zlib => read(&mut flate2::read::ZlibDecoder::new(bytes)),
        Packed::Deflate => read(&mut flate2::read::DeflateDecoder::new(bytes)),
        Packed::Bzip2 => read(&mut bzip2::read::MultiBzDecoder::new(bytes)),
        Packed::Xz => read(&mut lzma_rust2::XzReader::new_mem_limit(
            bytes,
            true,
            MOST_WINDOW_KIB,
        )),
        Packed::Lzma => read(&mut lzma_rust2::LzmaReader::new_mem_limit(
            bytes,
            MOST_WINDOW_KIB,
            None,
        )?),
        Packed::Zstd => {
            use ruzstd::decoding::StreamingDecoder;
            let stream = StreamingDecoder::new_with_max_window_size(bytes, MOST_WINDOW);
            read(&mut stream.map_err(|error| io::Error::other(error.to_string()))?)
        }
        Packed::Closed(_) => Ok(0),
    }
}

/// Whether it is a tar archive: by its mark, or by the checksum of its first header.
pub(super) fn is_tar(bytes: &[u8]) -> bool {
    pytorch::is_tar(bytes) || bytes.first_chunk().is_some_and(is_header)
}

fn is_header(block: &[u8; BLOCK]) -> bool {
    let claimed = octal(&block[148..156]);
    let sum = |place: usize| {
        if (148..156).contains(&place) {
            u64::from(b' ')
        } else {
            u64::from(block[place])
        }
    };
    block[0] != 0 && claimed == Some((0..BLOCK).map(sum).sum())
}

/// A number in octal digits, or in binary behind a set bit.
fn octal(field: &[u8]) -> Option<u64> {
    if field.first()? & 0x80 != 0 {
        let bytes = field.get(field.len().checked_sub(8)?..)?;
        return Some(u64::from_be_bytes(*bytes.first_chunk()?));
    }
    let text = str::from_utf8(field).ok()?;
    let text = text.trim_matches(['\0', ' ']);
    u64::from_str_radix(if text.is_empty() { "0" } else { text }, 8).ok()
}

/// A text that ends at its first zero.
fn text(field: &[u8]) -> String {
    let length = field.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&field[..length.unwrap_or(field.len())]).into_owned()
}

/// The members of a tar archive.
pub(super) fn tar(place: &mut Place<'_>, bytes: &Bytes) {
    let mut at = 0;
    // Names that are too long for a header stand before it.
    let (mut name_before, mut link_before) = (None, None);
    while let Some(block) = bytes.get(at..).and_then(|rest| rest.first_chunk::<BLOCK>()) {
        if block.iter().all(|byte| *byte == 0) {
            return;
        }
        if !is_header(block) {
            let what = "is a tar archive whose next header cannot be read";
            place.notice(at, what);
            return;
        }
        let size = octal(&block[124..136]).and_then(|size| usize::try_from(size).ok());
        let begin = at + BLOCK;
        let end = size.and_then(|size| begin.checked_add(size));
        let Some(end) = end.filter(|end| *end <= bytes.len()) else {
            place.notice(at, "is a truncated tar archive");
            return;
        };
        let data = bytes.slice(begin..end);
        let kind = block[156];
        let (header, next) = (at, begin + (end - begin).div_ceil(BLOCK) * BLOCK);
        at = next;
        match kind {
            b'L' => name_before = Some(text(&data)),
            b'K' => link_before = Some(text(&data)),
            b'x' | b'g' => {
                name_before = extended(&data, "path").or(name_before);
                link_before = extended(&data, "linkpath").or(link_before);
            }
            _ => {
                let prefix = text(&block[345..500]);
                let mut name = text(&block[..100]);
                if pytorch::is_tar(block) && !prefix.is_empty() {
                    name = format!("{prefix}/{name}");
                }
                let name = name_before.take().unwrap_or(name);
                let link = link_before.take().unwrap_or_else(|| text(&block[157..257]));
                member(place, header, kind, (&name, &link), &data);
            }
        }
    }
}

/// Where the members of a tar archive end.
pub(super) fn tar_end(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(block) = bytes.get(at..).and_then(|rest| rest.first_chunk::<BLOCK>()) {
        let size = octal(&block[124..136]).and_then(|size| usize::try_from(size).ok());
        let next = size.and_then(|size| size.checked_next_multiple_of(BLOCK));
        match next.and_then(|next| (at + BLOCK).checked_add(next)) {
            Some(next) if is_header(block) => at = next,
            _ => break,
        }
    }
    at
}

/// A value of an extended header: lines of a length, a key and a value.
fn extended(data: &[u8], wanted: &str) -> Option<String> {
    let text = String::from_utf8_lossy(data);
    text.lines().find_map(|line| {
        let (_, rest) = line.split_once(' ')?;
        let (key, value) = rest.split_once('=')?;
        (key == wanted).then(|| value.to_owned())
    })
}

fn member(place: &mut Place<'_>, at: usize, kind: u8, names: (&str, &str), data: &Bytes) {
    let (name, link) = names;
    if let Some(where_to) = leads_out(name) {
        let what = format!("has a member `{}`, which is {where_to}", clip(name));
        place.danger(at, what);
    }
    match kind {
        b'1' | b'2' => {
            // A link may also lead out step by step.
            if let Some(where_to) = leads_out(link) {
                let what = format!("links `{}` to `{}`, {where_to}", clip(name), clip(link));
                place.danger(at, what);
            }
        }
        b'3' | b'4' | b'6' => {
            let what = format!("has `{}`, which is a device or a pipe", clip(name));
            place.danger(at, what);
        }
        b'5' => {}
        _ if data.is_empty() => {}
        _ => place.unpacked(at + BLOCK, name, data),
    }
}
