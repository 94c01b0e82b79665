//! HDF5: links and data that lie in other files, and the configurations of Keras in its attributes.
//!
//! What leads out of a file stands in messages of a few fixed forms. They are found by these forms wherever they lie,
//! in headers and heaps alike, so that a damaged or hidden group hides nothing.

use bytes::Bytes;

use super::{Place, keras};
use crate::data::clip;
use crate::hdf5::MAGIC;

/// Where the file begins: a user block of a power of two may stand before it.
pub(super) fn base(bytes: &[u8]) -> Option<usize> {
    let starts = |at: usize| bytes.get(at..).is_some_and(|rest| rest.starts_with(MAGIC));
    if starts(0) {
        return Some(0);
    }
    (9..32).map(|power| 1 << power).find(|at| starts(*at))
}

pub(super) fn scan(place: &mut Place<'_>, bytes: &Bytes, base: usize) {
    // MATLAB writes a line of text before its own.
    let before = &bytes[..base];
    if before.iter().any(|byte| *byte != 0) && !before.starts_with(b"MATLAB ") {
        let what =
            format!("is HDF5 behind {base} bytes of something else: it is two files at once");
        place.danger(0, what);
    }
    let file = bytes.slice(base..);
    // The size of an address, by the version of the first block.
    let wide = match file.get(8) {
        Some(0 | 1) => file.get(13),
        _ => file.get(9),
    };
    let wide = if wide == Some(&4) { 4 } else { 8 };
    links(place, &file);
    files(place, &file, wide);
    virtual_sources(place, &file, wide);
    keras::in_bytes(place, bytes);
}

/// External links: version 1, flags with the bit for a type, and the type 64.
fn links(place: &mut Place<'_>, file: &[u8]) {
    for at in memchr::memchr_iter(64, file) {
        if at >= 2
            && file[at - 2] == 1
            && file[at - 1] & 0xe8 == 8
            && let Some((name, target, path)) = link(&file[at - 2..])
        {
            let what = format!(
                "links `{}` to `{}` of the file `{}`",
                clip(&name),
                clip(&path),
                clip(&target)
            );
            place.danger(at - 2, what);
        }
    }
}

fn link(message: &[u8]) -> Option<(String, String, String)> {
    let flags = message[1];
    let mut at = 3 + if flags & 4 == 0 { 0 } else { 8 } + usize::from(flags & 0x10 != 0);
    let width = 1 << (flags & 3);
    let length = uint(message.get(at..at + width)?);
    at += width;
    let length = usize::try_from(length)
        .ok()
        .filter(|length| *length < 1 << 16)?;
    let name = printable(message.get(at..at + length)?)?;
    at += length;
    let size = uint(message.get(at..at + 2)?) as usize;
    let info = message.get(at + 2..at + 2 + size)?;
    let mut texts = info.get(1..)?.split(|byte| *byte == 0);
    let target = printable(texts.next()?)?;
    let path = printable(texts.next()?)?;
    Some((name, target, path))
}

/// Lists of external files: version 1, counts of slots, and the address of a heap of names.
fn files(place: &mut Place<'_>, file: &[u8], wide: usize) {
    for begin in memchr::memmem::find_iter(file, &[1, 0, 0, 0]) {
        let Some(head) = file.get(begin..begin + 8 + wide) else {
            return;
        };
        let (slots, used) = (uint(&head[4..6]), uint(&head[6..8]));
        let heap = usize::try_from(uint(&head[8..])).unwrap_or(usize::MAX);
        let is_heap = || {
            file.get(heap..)
                .is_some_and(|rest| rest.starts_with(b"HEAP"))
        };
        if used == 0 || used > slots || !is_heap() {
            continue;
        }
        for slot in 0..used as usize {
            let entry = begin + 8 + wide + slot * 3 * 8;
            let Some(name) = heap_text(file, heap, wide, entry) else {
                break;
            };
            let what = format!("keeps data in the file `{}`", clip(&name));
            place.danger(begin, what);
        }
    }
}

/// The text in a heap whose place the number at `entry` gives.
fn heap_text(file: &[u8], heap: usize, wide: usize, entry: usize) -> Option<String> {
    let offset = uint(file.get(entry..entry + 8)?) as usize;
    let field = heap + 8 + 2 * 8;
    let data = uint(file.get(field..field + wide)?) as usize;
    let begin = data.checked_add(offset)?;
    let text = file.get(begin..)?.split(|byte| *byte == 0).next()?;
    printable(text)
}

/// Virtual datasets, whose parts lie in other files: layouts of version 4 and class 3.
fn virtual_sources(place: &mut Place<'_>, file: &[u8], wide: usize) {
    for at in memchr::memmem::find_iter(file, &[4, 3]) {
        let Some(address) = file.get(at + 2..at + 6 + wide) else {
            return;
        };
        let heap = usize::try_from(uint(&address[..wide])).unwrap_or(usize::MAX);
        if !file
            .get(heap..)
            .is_some_and(|rest| rest.starts_with(b"GCOL"))
        {
            continue;
        }
        let Some(data) = heap_object(file, heap, uint(&address[wide..])) else {
            continue;
        };
        // A version, how many parts there are, and of each first the name of its file.
        let rest = data.get(9..).unwrap_or_default();
        let name = rest.split(|byte| *byte == 0).next().and_then(printable);
        if let Some(name) = name.filter(|name| name != ".") {
            let what = format!(
                "has a dataset whose parts lie in the file `{}`",
                clip(&name)
            );
            place.danger(at, what);
        }
    }
}

fn heap_object(file: &[u8], heap: usize, wanted: u64) -> Option<&[u8]> {
    let size = uint(file.get(heap + 8..heap + 16)?) as usize;
    let heap = file.get(heap..heap.checked_add(size)?)?;
    let mut at = 16;
    loop {
        let index = uint(heap.get(at..at + 2)?);
        let size = uint(heap.get(at + 8..at + 16)?) as usize;
        let data = heap.get(at + 16..(at + 16).checked_add(size)?)?;
        if index == wanted {
            return Some(data);
        }
        if index == 0 {
            return None;
        }
        at += 16 + size.div_ceil(8) * 8;
    }
}

fn uint(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .take(8)
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// A text of at least one character and no control characters.
fn printable(bytes: &[u8]) -> Option<String> {
    let text = str::from_utf8(bytes).ok()?;
    let fine = !text.is_empty() && !text.chars().any(char::is_control);
    fine.then(|| text.to_owned())
}
