//! A zip archive, looked at from both ends: what its directory lists, and what lies in it.

use std::collections::HashSet;

use bytes::Bytes;

use super::packed::{self, Packed, State};
use super::{Place, leads_out, pickle};
use crate::data::clip;
use crate::zip::{
    CENTRAL, CENTRAL_BYTES, ENCRYPTED, END, LOCAL, LOCAL_BYTES, sizes, u16_at, u32_at,
};

/// Bit 3 of the flags: sizes and checksum follow the data.
const SIZES_BEHIND: u16 = 1 << 3;
const END_BYTES: usize = 22;
/// How far before its end readers look for the directory.
const SEARCHED: usize = END_BYTES + u16::MAX as usize;
/// How many times its size a member may inflate to, and how much that is at least, before it is a bomb.
const MOST_RATIO: u64 = 500;
const MOST_CLAIMED: u64 = 1 << 32;

/// A header of a member: in the directory, or before its data.
#[derive(Debug, Clone)]
struct Header {
    at: usize,
    name: String,
    flags: u16,
    method: u16,
    crc: u32,
    stored: usize,
    size: usize,
    /// In the directory: where the member lies. Before the data: where that begins.
    place: usize,
    /// The type and rights of a file on Unix.
    mode: u32,
}

/// Where an archive begins behind other bytes, if the end of the file is that of one.
pub(super) fn behind(map: &[u8]) -> Option<usize> {
    let end = find_end(map)?;
    let size = u32_at(map, end + 12)? as usize;
    let directory = end.checked_sub(size)?;
    let count = u16_at(map, end + 10)?;
    let begins = map.get(directory..)?.starts_with(CENTRAL);
    if !begins || count == 0 {
        return None;
    }
    // Where the first member begins, by the directory and how far that has been moved.
    let moved = directory.checked_sub(u32_at(map, end + 16)? as usize)?;
    let (first, _) = central(map, directory)?;
    let first = first.place.checked_add(moved)?;
    map.get(first..)?.starts_with(LOCAL).then_some(first)
}

fn find_end(map: &[u8]) -> Option<usize> {
    let tail = map.len().saturating_sub(SEARCHED);
    let found = memchr::memmem::rfind(&map[tail..], END)?;
    Some(tail + found)
}

/// Looks at all members; the archive begins at `begin`.
pub(super) fn scan(place: &mut Place<'_>, map: &Bytes, begin: usize) {
    let (listed, moved) = directory(place, map, begin);
    let mut covered: Vec<(usize, usize)> = Vec::new();
    let mut names = HashSet::new();
    let mut members = Vec::new();
    for mut entry in listed {
        if !names.insert(entry.name.clone()) {
            let name = clip(&entry.name);
            let what = format!("lists `{name}` twice; readers differ in which they take");
            place.danger(entry.at, what);
        }
        entry.place = entry.place.saturating_add(moved);
        let Some(local) = local(map, entry.place) else {
            let what = format!("lists `{}` where there is no member", clip(&entry.name));
            place.danger(entry.at, what);
            continue;
        };
        compare(place, &entry, &local);
        let end = local.place.saturating_add(entry.stored).min(map.len());
        covered.push((entry.place, end));
        members.push((entry, local.place));
    }
    covered.sort_unstable();
    let mut end = 0;
    for (from, to) in &covered {
        if *from < end {
            place.danger(*from, "has members that lie in each other");
        }
        end = end.max(*to);
    }
    // What lies in another member is looked at once.
    let mut seen = HashSet::new();
    for (entry, begin) in members {
        if seen.insert((begin, entry.stored, entry.method)) {
            member(place, map, &entry, begin);
        }
    }
    hidden(place, map, &covered, begin);
}

/// The records of the directory, found by the end record, and how far it has been moved; says what is odd about that.
fn directory(place: &mut Place<'_>, map: &[u8], begin: usize) -> (Vec<Header>, usize) {
    let Some(end) = find_end(map).filter(|end| *end >= begin) else {
        let what = "has no directory; it is truncated, or only some readers open it";
        place.notice(map.len(), what);
        return (Vec::new(), 0);
    };
    let comment = u16_at(map, end + 20).map_or(0, usize::from);
    let stop = end + END_BYTES + comment;
    if let Some(rest) = map.get(stop..).filter(|rest| !rest.is_empty()) {
        if rest.iter().all(|byte| *byte == 0) {
            place.notice(end, "has zeros behind its end");
        } else {
            place.danger(end, "has bytes behind its end");
        }
    }
    let size = u32_at(map, end + 12).map_or(0, |size| size as usize);
    let named = u32_at(map, end + 16).map_or(0, |begin| begin as usize);
    let is_directory = |at: &usize| map.get(*at..).is_some_and(|rest| rest.starts_with(CENTRAL));
    // Right before the end, where readers take it from that allow for bytes before the archive; or where it is said to be.
    let near = end.checked_sub(size).filter(is_directory);
    let said = Some(named).filter(is_directory);
    let at = near.or(said).or_else(|| first(map, begin));
    if let (Some(near), Some(said)) = (near, said)
        && near != said
    {
        place.danger(
            end,
            "has two directories; readers differ in which they take",
        );
        if let Some((header, _)) = central(map, said) {
            let what = format!("lists `{}` in its other directory", clip(&header.name));
            place.danger(said, what);
        }
    }
    let moved = match near {
        Some(near) if Some(near) != said => near.saturating_sub(named),
        _ => 0,
    };
    let mut listed = Vec::new();
    let mut next = at;
    while let Some(begin) = next
        && let Some((header, after)) = central(map, begin)
    {
        listed.push(header);
        next = Some(after);
    }
    let count = u16_at(map, end + 10).map_or(0, usize::from);
    if count != listed.len() && count != usize::from(u16::MAX) {
        let what = format!(
            "claims {count} members, and its directory lists {}",
            listed.len()
        );
        place.danger(end, what);
    }
    (listed, moved)
}

/// The first record that looks as one of a directory; those of large archives are found so.
fn first(map: &[u8], begin: usize) -> Option<usize> {
    memchr::memmem::find(&map[begin..], CENTRAL).map(|at| begin + at)
}

fn central(map: &[u8], at: usize) -> Option<(Header, usize)> {
    let record = map.get(at..)?;
    if !record.starts_with(CENTRAL) || record.len() < CENTRAL_BYTES {
        return None;
    }
    let short = |at| u16_at(record, at).map(usize::from);
    let (name, extra, comment) = (short(28)?, short(30)?, short(32)?);
    let text = record.get(CENTRAL_BYTES..CENTRAL_BYTES + name)?;
    let extra_bytes = record.get(CENTRAL_BYTES + name..CENTRAL_BYTES + name + extra)?;
    let (size, stored, place) = sizes(
        extra_bytes,
        u32_at(record, 24)?,
        u32_at(record, 20)?,
        u32_at(record, 42)?,
    )?;
    let header = Header {
        at,
        name: String::from_utf8_lossy(text).into_owned(),
        flags: u16_at(record, 8)?,
        method: u16_at(record, 10)?,
        crc: u32_at(record, 16)?,
        stored,
        size,
        place,
        mode: u32_at(record, 38)? >> 16,
    };
    Some((header, at + CENTRAL_BYTES + name + extra + comment))
}

fn local(map: &[u8], at: usize) -> Option<Header> {
    let record = map.get(at..)?;
    if !record.starts_with(LOCAL) || record.len() < LOCAL_BYTES {
        return None;
    }
    let (name, extra) = (
        usize::from(u16_at(record, 26)?),
        usize::from(u16_at(record, 28)?),
    );
    let text = record.get(LOCAL_BYTES..LOCAL_BYTES + name)?;
    let extra_bytes = record.get(LOCAL_BYTES + name..LOCAL_BYTES + name + extra)?;
    let (size, stored, _) = sizes(extra_bytes, u32_at(record, 22)?, u32_at(record, 18)?, 0)?;
    Some(Header {
        at,
        name: String::from_utf8_lossy(text).into_owned(),
        flags: u16_at(record, 6)?,
        method: u16_at(record, 8)?,
        crc: u32_at(record, 14)?,
        stored,
        size,
        place: at + LOCAL_BYTES + name + extra,
        mode: 0,
    })
}

/// What the two headers of a member say differently.
fn compare(place: &mut Place<'_>, listed: &Header, local: &Header) {
    let name = clip(&listed.name);
    let mut differ = |what: String| place.danger(local.at, what);
    if listed.name != local.name {
        differ(format!(
            "lists a member as `{name}` that calls itself `{}`",
            clip(&local.name)
        ));
    }
    if (listed.flags ^ local.flags) & ENCRYPTED != 0 {
        differ(format!(
            "says of `{name}` in one place only that it is encrypted"
        ));
    }
    if listed.method != local.method {
        differ(format!(
            "says of `{name}` two ways in which it is compressed"
        ));
    }
    let behind = local.flags & SIZES_BEHIND != 0;
    if !behind && (listed.size, listed.stored) != (local.size, local.stored) {
        differ(format!("gives `{name}` two sizes"));
    }
    if !behind && listed.crc != local.crc {
        differ(format!("gives `{name}` two checksums"));
    }
    if let Some(where_to) = leads_out(&listed.name).or_else(|| leads_out(&local.name)) {
        differ(format!("has a member `{name}`, which is {where_to}"));
    }
}

/// The content of a member: its checksum, and whatever it is.
fn member(place: &mut Place<'_>, map: &Bytes, header: &Header, begin: usize) {
    let name = clip(&header.name);
    let end = begin.saturating_add(header.stored).min(map.len());
    let raw = map.slice(begin.min(end)..end);
    let encrypted = header.flags & ENCRYPTED != 0;
    let how = match header.method {
        0 => None,
        8 => Some(Packed::Deflate),
        12 => Some(Packed::Bzip2),
        93 => Some(Packed::Zstd),
        95 => Some(Packed::Xz),
        _ => Some(Packed::Closed("")),
    };
    let closed = encrypted || how == Some(Packed::Closed(""));
    let said = if encrypted {
        "encrypted".to_owned()
    } else {
        format!("compressed by method {}", header.method)
    };
    let (size, crc) = (header.size, header.crc);
    let plain = raw.len() == size && crc32fast::hash(&raw) == crc;
    let bytes = if closed && plain {
        if size > 0 {
            let what = format!("says of `{name}` that it is {said}, which it is not");
            place.danger(header.at, what);
        }
        raw
    } else if closed {
        let what = format!("has `{name}` {said}, so that it is not looked into");
        place.warning(header.at, what);
        return;
    } else if let Some(how) = how {
        unpack(place, header, &raw, how)
    } else {
        raw
    };
    let whole = bytes.len() == size;
    if whole && crc32fast::hash(&bytes) != crc {
        // PyTorch can be told not to compute any.
        let what = format!("gives `{name}` a checksum that it does not have");
        place.notice(header.at, what);
    }
    if header.mode & 0o170_000 == 0o120_000 {
        let target = String::from_utf8_lossy(&bytes).into_owned();
        match leads_out(&target) {
            Some(where_to) => {
                let what = format!("links `{name}` to `{}`, {where_to}", clip(&target));
                place.danger(header.at, what);
            }
            None => place.notice(header.at, format!("links `{name}` to `{}`", clip(&target))),
        }
        return;
    }
    let usual = header.name.ends_with("pkl") || header.name.ends_with(".pickle");
    if pickle::is_marked(&bytes) && !usual && bytes.ends_with(b".") {
        let what = format!("has a pickle under the name `{name}`");
        place.notice(header.at, what);
    }
    if header.name.contains("/code/") && header.name.ends_with(".py") {
        script(place, header, &bytes);
    }
    if !bytes.is_empty() {
        place.unpacked(header.place, &header.name, &bytes);
    }
}

/// What TorchScript's code reaches for beyond tensors.
fn script(place: &mut Place<'_>, header: &Header, bytes: &[u8]) {
    let name = clip(&header.name);
    place.notice(header.at, format!("has TorchScript's code, `{name}`"));
    for call in [
        "torch.from_file(",
        "torch.save(",
        "torch.load(",
        "aten::from_file",
        "aten::save",
    ] {
        if memchr::memmem::find(bytes, call.as_bytes()).is_some() {
            let what = format!(
                "has TorchScript's code that calls `{}`, which reads or writes files",
                call.trim_end_matches('(')
            );
            place.danger(header.at, what);
        }
    }
}

fn unpack(place: &mut Place<'_>, header: &Header, raw: &Bytes, how: Packed) -> Bytes {
    let name = clip(&header.name);
    let size = header.size as u64;
    if size > MOST_CLAIMED && size / MOST_RATIO > raw.len() as u64 {
        let what = format!(
            "claims that `{name}` inflates from {} to {size} bytes",
            raw.len()
        );
        place.danger(header.at, what);
    }
    if size > 1 << 16 && size / 200 > raw.len() as u64 {
        let what = format!(
            "has `{name}`, which inflates from {} to {size} bytes",
            raw.len()
        );
        place.notice(header.at, what);
    }
    let (bytes, state) = packed::unpack(place, raw, how, size.max(1 << 20));
    match state {
        State::Whole if bytes.len() as u64 == size => {}
        State::Whole => {
            let what = format!(
                "has `{name}`, which inflates from {} to other than the {size} bytes that it claims",
                raw.len()
            );
            place.danger(header.at, what);
        }
        State::Broken(reason) => {
            let what = format!("has `{name}`, which cannot be unpacked: {reason}");
            place.notice(header.at, what);
        }
        State::Beyond => packed::beyond(place, header.at),
    }
    bytes
}

/// Members that the directory does not list.
fn hidden(place: &mut Place<'_>, map: &Bytes, covered: &[(usize, usize)], begin: usize) {
    const MOST: usize = 1000;
    let listed = !covered.is_empty();
    let mut count = 0;
    let mut skipped = 0;
    for found in memchr::memmem::find_iter(&map[begin..], LOCAL) {
        let at = begin + found;
        // The last stretch that begins at or before this place; they may lie in each other.
        let before = covered.partition_point(|(from, _)| *from <= at);
        let inside = covered[..before]
            .iter()
            .rev()
            .take(8)
            .any(|(_, to)| at < *to);
        if inside || at < skipped {
            continue;
        }
        let Some(mut header) = local(map, at).filter(|header| is_likely(header, map)) else {
            continue;
        };
        count += 1;
        if count > MOST {
            place.danger(
                at,
                format!("has more than {MOST} members that are not listed"),
            );
            return;
        }
        if header.flags & SIZES_BEHIND != 0 && header.stored == 0 {
            let next = memchr::memmem::find(&map[at + 4..], LOCAL);
            let next = next.map_or(map.len(), |next| at + 4 + next);
            header.stored = next - header.place.min(next);
            header.size = header.stored;
        }
        if listed {
            let what = format!(
                "has a member `{}` that its directory does not list",
                clip(&header.name)
            );
            place.danger(at, what);
        }
        let begin = header.place;
        skipped = begin.saturating_add(header.stored);
        let header = Header {
            place: at,
            ..header
        };
        member(place, map, &header, begin);
    }
}

/// Whether a header is no chance among other bytes.
fn is_likely(header: &Header, map: &[u8]) -> bool {
    let version = u16_at(map, header.at + 4).unwrap_or(u16::MAX) & 0xff;
    version < 100 && header.method < 100 && !header.name.is_empty() && !header.name.contains('\0')
}
