//! A zip archive, looked at from both ends: what its directory lists, and what lies in it.

use bytes::Bytes;

use super::Place;
use crate::data::clip;
use crate::pytorch;
use crate::zip::{
    CENTRAL, CENTRAL_BYTES, ENCRYPTED, END, INFLATED_MARGIN, LOCAL, LOCAL_BYTES, inflate, sizes,
    u16_at, u32_at,
};

/// How many times its size a member may inflate to.
const MOST_RATIO: usize = 200;
/// Bit 3 of the flags: sizes and checksum follow the data.
const SIZES_BEHIND: u16 = 1 << 3;

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
}

pub(super) fn scan(place: &mut Place<'_>, map: &Bytes) {
    let listed = directory(place, map);
    let mut covered: Vec<(usize, usize)> = Vec::new();
    for (index, entry) in listed.iter().enumerate() {
        if listed[..index].iter().any(|other| other.name == entry.name) {
            place.danger(
                entry.at,
                format!(
                    "lists `{}` twice; readers differ in which they take",
                    clip(&entry.name)
                ),
            );
        }
        let Some(local) = local(map, entry.place) else {
            place.danger(
                entry.at,
                format!("lists `{}` where there is no member", clip(&entry.name)),
            );
            continue;
        };
        compare(place, entry, &local);
        let end = local.place.saturating_add(entry.stored).min(map.len());
        covered.push((entry.place, end));
        member(place, map, entry, local.place);
    }
    covered.sort_unstable();
    for pair in covered.windows(2) {
        if pair[1].0 < pair[0].1 {
            place.danger(pair[1].0, "has members that lie in each other".to_owned());
        }
    }
    hidden(place, map, &covered);
}

/// The records of the directory, found by the end record; and what is odd about that.
fn directory(place: &mut Place<'_>, map: &[u8]) -> Vec<Header> {
    let end = map.windows(END.len()).rposition(|window| window == END);
    let Some(end) = end else {
        place.danger(
            map.len(),
            "has no directory; it is truncated, or only some readers open it".to_owned(),
        );
        return Vec::new();
    };
    let comment = u16_at(map, end + 20).map_or(0, usize::from);
    if end + 22 + comment != map.len() {
        place.danger(end, "has bytes behind its end".to_owned());
    }
    let mut listed = Vec::new();
    let mut at = map
        .windows(CENTRAL.len())
        .position(|window| window == CENTRAL);
    // The directory that the end record names, where it is there.
    let named = u32_at(map, end + 16).map(|begin| begin as usize);
    if let Some(begin) = named.filter(|begin| {
        map.get(*begin..)
            .is_some_and(|rest| rest.starts_with(CENTRAL))
    }) {
        at = Some(begin);
    }
    while let Some(begin) = at
        && let Some((header, next)) = central(map, begin)
    {
        listed.push(header);
        at = Some(next);
    }
    let count = u16_at(map, end + 10).map_or(0, usize::from);
    if count != listed.len() && count != usize::from(u16::MAX) {
        place.danger(
            end,
            format!(
                "claims {count} members, and its directory lists {}",
                listed.len()
            ),
        );
    }
    listed
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
    } else if listed.flags & ENCRYPTED != 0 {
        differ(format!(
            "has `{name}` encrypted, so that nobody can look at it"
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
    let odd =
        listed.name.starts_with('/') || listed.name.split(['/', '\\']).any(|part| part == "..");
    if odd {
        differ(format!(
            "has a member `{name}`, whose name leads out of the archive"
        ));
    }
}

/// The content of a member: its checksum, and whatever it is.
fn member(place: &mut Place<'_>, map: &Bytes, header: &Header, begin: usize) {
    let name = clip(&header.name);
    if header.method != 0 && header.method != 8 {
        place.danger(
            header.at,
            format!(
                "has `{name}` compressed by method {}, which is not looked into",
                header.method
            ),
        );
        return;
    }
    let end = begin.saturating_add(header.stored).min(map.len());
    let raw = map.slice(begin.min(end)..end);
    if header.method == 8 && header.size / MOST_RATIO > raw.len() {
        place.danger(
            header.at,
            format!(
                "claims that `{name}` inflates from {} to {} bytes",
                raw.len(),
                header.size
            ),
        );
    }
    let bytes = if header.method == 0 {
        raw
    } else {
        inflated(&raw, header.size)
    };
    let whole = bytes.len() == header.size;
    let is_pickle = pytorch::is_pickle(&bytes) || header.name.ends_with(".pkl");
    if whole && crc32fast::hash(&bytes) != header.crc {
        let what = format!("gives `{name}` a checksum that it does not have");
        // PyTorch can be told not to compute those of storages.
        if is_pickle {
            place.danger(
                header.at,
                format!("{what}; readers that check it pass over this pickle"),
            );
        } else {
            place.notice(header.at, what);
        }
    }
    if header.size > 0 && bytes.is_empty() {
        place.danger(header.at, format!("has `{name}`, which cannot be inflated"));
    }
    let usual = ["data.pkl", "constants.pkl", "attributes.pkl"].iter();
    let usual = usual.clone().any(|usual| header.name.ends_with(usual));
    if pytorch::is_pickle(&bytes) && !usual {
        let found = Place::try_out(&bytes);
        // Numbers may begin as a pickle does; with names it is one.
        if found.names == 0 {
            return;
        }
        let what = format!("has a pickle under the name `{name}`");
        place.danger(header.at, what);
    }
    if header.name.contains("/code/") && header.name.ends_with(".py") {
        place.notice(header.at, format!("has TorchScript's code, `{name}`"));
    }
    let keras = header.name == "config.json" && contains(&bytes, b"\"class_name\": \"Lambda\"");
    if keras {
        place.danger(
            header.at,
            "has a Lambda layer, whose code Keras runs".to_owned(),
        );
    }
    place.within(header.place, &header.name, |place| {
        place.file(&header.name, &bytes);
    });
}

/// Members that the directory does not list.
fn hidden(place: &mut Place<'_>, map: &Bytes, covered: &[(usize, usize)]) {
    let mut at = 0;
    while let Some(found) = map
        .get(at..)
        .and_then(|rest| rest.windows(4).position(|w| w == LOCAL))
    {
        at += found;
        let inside = covered
            .iter()
            .find(|(begin, end)| (*begin..*end).contains(&at));
        if let Some((_, end)) = inside {
            at = *end.max(&(at + 1));
            continue;
        }
        if let Some(mut header) = local(map, at) {
            if header.flags & SIZES_BEHIND != 0 && header.stored == 0 {
                header.stored = map.len() - header.place.min(map.len());
                header.size = header.stored;
            }
            let what = format!(
                "has a member `{}` that its directory does not list",
                clip(&header.name)
            );
            place.danger(at, what);
            let begin = header.place;
            member(
                place,
                map,
                &Header {
                    place: at,
                    ..header
                },
                begin,
            );
        }
        at += 4;
    }
}

fn inflated(raw: &[u8], size: usize) -> Bytes {
    let most = size.min(raw.len().saturating_add(INFLATED_MARGIN));
    let bytes = inflate(raw, most.saturating_add(1)).unwrap_or_default();
    // What is larger than it says is no stream of that size.
    let fits = bytes.len() <= most;
    if fits { bytes.into() } else { Bytes::new() }
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}
