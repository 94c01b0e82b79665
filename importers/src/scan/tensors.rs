//! Safetensors: whether the header and the data say the same.

use std::collections::HashSet;

use bytes::Bytes;

use super::Place;
use super::json::{self, Json};
use crate::data::clip;

/// The longest header that the format allows.
const LONGEST_HEADER: u64 = 100_000_000;

pub(super) fn is_safetensors(bytes: &[u8]) -> bool {
    bytes.get(8) == Some(&b'{') && bytes.get(6..8) == Some(&[0, 0])
}

pub(super) fn safetensors(place: &mut Place<'_>, bytes: &Bytes) {
    let Some(length) = bytes
        .first_chunk()
        .map(|length| u64::from_le_bytes(*length))
    else {
        return;
    };
    if length > LONGEST_HEADER {
        let what = format!("claims a header of {length} bytes, more than the format allows");
        place.danger(0, what);
        return;
    }
    let end = 8 + length as usize;
    let Some(header) = bytes.get(8..end) else {
        place.notice(0, "is truncated: its header is longer than the file");
        return;
    };
    let header = str::from_utf8(header)
        .ok()
        .and_then(|text| json::parse(text).ok());
    let Some(header) = header else {
        place.notice(8, "has a header that is not JSON");
        return;
    };
    let mut spans: Vec<(u64, u64, &str)> = Vec::new();
    let mut names = HashSet::new();
    for (name, tensor) in header.members() {
        if !names.insert(name) {
            let what = format!(
                "lists `{}` twice; readers differ in which they take",
                clip(name)
            );
            place.danger(8, what);
        }
        if name == "__metadata__" {
            continue;
        }
        let offsets = tensor
            .get("data_offsets")
            .map(Json::items)
            .unwrap_or_default();
        let [begin, stop] = offsets else { continue };
        let (Some(begin), Some(stop)) = (begin.number(), stop.number()) else {
            continue;
        };
        let (begin, stop) = (begin as u64, stop as u64);
        spans.push((begin, stop, name));
        if let Some(size) = size(tensor).filter(|size| stop.checked_sub(begin) != Some(*size)) {
            let what = format!(
                "gives `{}` the bytes {begin} to {stop}, and a shape that takes {size}",
                clip(name)
            );
            place.danger(8, what);
        }
    }
    spans.sort_unstable();
    let mut covered = 0;
    for (begin, stop, name) in &spans {
        if *begin < covered && stop > begin {
            let what = format!("has `{}` lie in another tensor", clip(name));
            place.danger(end, what);
        }
        if *begin > covered {
            let what = format!(
                "has {} bytes before `{}` that no tensor covers",
                begin - covered,
                clip(name)
            );
            place.danger(end.saturating_add(covered as usize), what);
        }
        covered = covered.max(*stop);
    }
    let data = (bytes.len() - end) as u64;
    if covered > data {
        let what = format!("is truncated: {data} bytes of data are there of {covered}");
        place.notice(end, what);
    } else if covered < data {
        let what = format!(
            "has {} bytes behind its tensors that none covers",
            data - covered
        );
        place.danger(end + covered as usize, what);
    }
}

/// How many bytes a tensor takes by its type and shape, if the type is one of whole bytes.
fn size(tensor: &Json) -> Option<u64> {
    let size = match tensor.text_of("dtype")? {
        "F64" | "I64" | "U64" | "C64" => 8,
        "F32" | "I32" | "U32" => 4,
        "F16" | "BF16" | "I16" | "U16" => 2,
        "I8" | "U8" | "BOOL" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" => 1,
        _ => return None,
    };
    let mut product: u64 = size;
    for length in tensor.get("shape")?.items() {
        product = product.checked_mul(length.number()? as u64)?;
    }
    Some(product)
}
