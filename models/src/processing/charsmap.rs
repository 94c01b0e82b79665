//! SentencePiece's compiled map of characters, checked before it is used.

/// Why a map cannot be used, if it cannot.
///
/// The map is a trie in a double array and the texts that its leaves point to. Looking a text up follows
/// offsets in the array without checking them, so here all of them are.
///
/// Reference: `third_party/darts_clone/darts.h` and `src/normalizer.cc` of google/sentencepiece 0.2.
pub(crate) fn flaw(map: &[u8]) -> Option<&'static str> {
    const BROKEN: &str = "the precompiled_charsmap is broken";
    let Some((size, rest)) = map.split_first_chunk::<4>() else {
        return Some(BROKEN);
    };
    let size = u32::from_le_bytes(*size) as usize;
    if !size.is_multiple_of(4) || size > rest.len() {
        return Some(BROKEN);
    }
    let (trie, texts) = rest.split_at(size);
    let Ok(texts) = str::from_utf8(texts) else {
        return Some(BROKEN);
    };
    let (units, _) = trie.as_chunks::<4>();
    let unit = |place: usize| {
        units
            .get(place)
            .map(|unit| u32::from_le_bytes(*unit) as usize)
    };
    let leads_out = |place: usize| {
        let unit = unit(place).unwrap_or(0);
        // A unit with the highest bit is a leaf's value.
        let is_leaf = unit >> 31 == 1;
        let next = place ^ (unit >> 10) << ((unit & 1 << 9) >> 6);
        !is_leaf && (next | 0xff) >= units.len()
    };
    let points_out = |place: usize| {
        let unit = unit(place).unwrap_or(0);
        let value = unit & 0x7fff_ffff;
        unit >> 31 == 1 && !texts.is_char_boundary(value)
    };
    let broken =
        units.is_empty() || (0..units.len()).any(|place| leads_out(place) || points_out(place));
    broken.then_some(BROKEN)
}
