//! WAV in its shapes: RIFF, RF64, BW64 and Sony's W64, with sizes that are wrong, and the formats in them.

use std::io;
use std::ops::Range;

use super::joined::Recording;
use super::source::Peeker;

pub(super) const W64_RIFF: [u8; 16] = *b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00";
pub(super) const W64_WAVE: [u8; 16] = *b"wave\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a";

/// Whether a WAV begins here.
pub(super) fn begins(bytes: &[u8]) -> bool {
    let named = [b"RIFF", b"RF64", b"BW64"]
        .iter()
        .any(|name| bytes.starts_with(*name));
    named && bytes.get(8..12) == Some(b"WAVE")
}

/// How samples lie.
#[derive(Debug, Clone)]
pub(super) struct Format {
    /// The body of a `fmt ` chunk as the decoder wants it.
    body: Vec<u8>,
    block: u64,
    /// Whether the data are frames of MPEG audio.
    pub(super) mpeg: bool,
}

impl Format {
    /// The data as a file of its own, without a block that breaks off.
    pub(super) fn recording(&self, data: Range<u64>) -> Recording {
        let length = data.end.saturating_sub(data.start);
        let length = length - length % self.block;
        let size = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
        let head = [
            b"RIFF\xff\xff\xff\xffWAVEfmt ",
            &(self.body.len() as u32).to_le_bytes()[..],
            &self.body,
            b"data",
            &size,
        ];
        Recording {
            head: head.concat(),
            range: data.start..data.start + length,
            ending: Some("wav"),
            seekable: true,
            ..Recording::default()
        }
    }

    /// Reads the body of a `fmt ` chunk.
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let Some(fixed) = bytes.first_chunk::<16>() else {
            return Err("is a WAV whose format chunk breaks off".to_owned());
        };
        let word = |at: usize| u16::from_le_bytes([fixed[at], fixed[at + 1]]);
        let (mut tag, channels, block, bits) = (word(0), word(2), word(12), word(14));
        let extension = bytes.get(18..).unwrap_or_default();
        if tag == 0xfffe {
            // The format is the beginning of an identifier.
            let Some([low, high, rest @ ..]) = extension.get(6..22) else {
                return Err("is a WAV whose extensible format breaks off".to_owned());
            };
            const USUAL: [u8; 14] = *b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71";
            const AMBISONIC: [u8; 14] = *b"\0\0\x21\x07\xd3\x11\x86\x44\xc8\xc1\xca\0\0\0";
            if *rest != USUAL && *rest != AMBISONIC {
                return Err("is a WAV of an unknown extensible format".to_owned());
            }
            tag = u16::from_le_bytes([*low, *high]);
        }
        let name = match tag {
            1 | 3 | 6 | 7 => None,
            2 | 0x11 => (!(1..=2).contains(&channels)).then_some("ADPCM of more than two channels"),
            0x50 | 0x55 => None,
            0x14 | 0x40 | 0x45 | 0x64 => Some("G.726 or G.721 ADPCM"),
            0x15 | 0x16 => Some("DIGISTD or DIGIFIX"),
            0x22 => Some("TrueSpeech"),
            0x31 => Some("GSM 6.10"),
            0x38 | 0x57 | 0x58 | 0x7361 => Some("AMR"),
            0x42 | 0x111 => Some("G.723.1"),
            0x83 | 0x133 => Some("G.729"),
            0x160..=0x163 => Some("Windows Media Audio"),
            0xff | 0x1600 | 0x1602 | 0x1610 => Some("AAC"),
            0x92 | 0x2000 => Some("AC-3"),
            0x674f..=0x6751 | 0x676f..=0x6771 => Some("Vorbis"),
            0x704f => Some("Opus"),
            0xf1ac => Some("FLAC"),
            _ => return Err(format!("is a WAV of the unknown format {tag:#06x}")),
        };
        if let Some(name) = name {
            return Err(format!("is a WAV of {name}, which cannot be decoded"));
        }
        if channels == 0 {
            return Err("is a WAV of no channels".to_owned());
        }
        let mut body = bytes[..16].to_vec();
        body[..2].copy_from_slice(&tag.to_le_bytes());
        let mut whole = u64::from(block);
        match tag {
            1 | 3 => {
                // Samples of 12 or 20 bits lie at the top of whole bytes.
                let bytes = bits.div_ceil(8);
                let sizes: &[u16] = if tag == 1 { &[1, 2, 3, 4] } else { &[4, 8] };
                if !sizes.contains(&bytes) {
                    return Err(format!("is a WAV whose samples have {bits} bits"));
                }
                whole = u64::from(channels) * u64::from(bytes);
                body[14..].copy_from_slice(&(8 * bytes).to_le_bytes());
            }
            6 | 7 => {
                whole = u64::from(channels);
                body[14..].copy_from_slice(&8_u16.to_le_bytes());
                body.extend([0, 0]);
            }
            2 => {
                // The coefficients are always the same seven pairs.
                body.extend([32, 0]);
                let mut rest = extension.to_vec();
                rest.resize(32, 0);
                body.extend(rest);
            }
            0x11 => {
                body.extend([2, 0]);
                let mut rest = extension.to_vec();
                rest.resize(2, 0);
                body.extend(rest);
            }
            _ => {}
        }
        let mpeg = tag == 0x50 || tag == 0x55;
        if whole == 0 && !mpeg {
            return Err("is a WAV whose blocks have no bytes".to_owned());
        }
        Ok(Self {
            body,
            block: whole.max(1),
            mpeg,
        })
    }
}

/// What a WAV holds.
pub(super) struct Found {
    /// Its format and where its data lie, or why it is not heard.
    pub(super) sound: Result<(Format, Range<u64>), String>,
    /// Where to go on.
    pub(super) next: u64,
    /// Why there is less than the header says.
    pub(super) cut: Option<String>,
}

impl Found {
    fn none(next: u64, reason: &str) -> Self {
        Self {
            sound: Err(reason.to_owned()),
            next,
            cut: None,
        }
    }
}

/// The longest `fmt ` chunk of which something is wanted.
const FORMAT: u64 = 64;

/// Programs that write to a pipe do not know the size, and put something very large.
fn is_unknown(size: u32) -> bool {
    size >= 0x7fff_0000
}

/// The size of a chunk that may stand behind the data.
pub(super) fn trailing_chunk(bytes: &[u8], left: u64) -> Option<u64> {
    let (name, size) = bytes.first_chunk::<8>()?.split_at(4);
    let size = u64::from(u32::from_le_bytes([size[0], size[1], size[2], size[3]]));
    let printable = name.iter().all(|byte| (0x20..0x7f).contains(byte));
    (printable && size <= left.saturating_sub(8)).then_some(size)
}

/// Reads a RIFF, RF64 or BW64 at `start`.
pub(super) fn read(peeker: &mut Peeker, start: u64, end: u64) -> io::Result<Found> {
    let mut at = start + 12;
    let mut format = None;
    // In RF64 the sizes of four gigabytes and more stand in a chunk of their own.
    let mut large: Option<u64> = None;
    loop {
        let head = peeker.peek(at, 12)?;
        if begins(head) {
            return Ok(Found::none(at, "is a WAV without data"));
        }
        let Some(&[a, b, c, d, size @ ..]) = head.first_chunk::<8>() else {
            return Ok(Found::none(
                end,
                "is a WAV without data, or breaks off before it",
            ));
        };
        let (name, size) = ([a, b, c, d], u32::from_le_bytes(size));
        let body = at + 8;
        match &name {
            b"fmt " => {
                let bytes = peeker.peek(body, FORMAT.min(u64::from(size)) as usize)?;
                format = Some(Format::parse(bytes));
            }
            b"ds64" => {
                let bytes = peeker.peek(body, 16)?;
                let size = bytes.get(8..).and_then(<[u8]>::first_chunk);
                large = size.map(|size| u64::from_le_bytes(*size));
            }
            b"data" => {
                let format = match format {
                    Some(Ok(format)) => format,
                    Some(Err(reason)) => {
                        let next = body.saturating_add(u64::from(size) + u64::from(size % 2));
                        return Ok(Found {
                            sound: Err(reason),
                            next: next.min(end),
                            cut: None,
                        });
                    }
                    None => return Ok(Found::none(end, "is a WAV without a format chunk")),
                };
                return data(peeker, format, body, size, large, end);
            }
            _ => {}
        }
        at = body.saturating_add(u64::from(size) + u64::from(size % 2));
    }
}

fn data(
    peeker: &mut Peeker,
    format: Format,
    body: u64,
    size: u32,
    large: Option<u64>,
    end: u64,
) -> io::Result<Found> {
    let left = end.saturating_sub(body);
    let claimed = match large.filter(|large| size == u32::MAX && *large > 0) {
        Some(large) => large,
        None => u64::from(size),
    };
    // Nothing, or nothing yet: a header that was never completed.
    let empty = size == 0 && {
        let next = peeker.peek(body, 12)?;
        next.is_empty() || begins(next) || trailing_chunk(next, left).is_some()
    };
    let unknown = (size == 0 && !empty) || (is_unknown(size) && claimed > left);
    if !unknown && claimed <= left {
        let stop = body + claimed;
        // Some writers forget the byte that makes a size even.
        let padded = claimed % 2 == 1 && !begins(peeker.peek(stop, 12)?);
        return Ok(Found {
            sound: Ok((format, body..stop)),
            next: (stop + u64::from(padded)).min(end),
            cut: None,
        });
    }
    let next = peeker.find(body, end, b"RB", 64, |bytes| {
        // Samples look like a header once in a universe.
        begins(bytes)
            && matches!(
                bytes.get(12..16),
                Some(b"fmt " | b"JUNK" | b"LIST" | b"bext" | b"ds64" | b"fact")
            )
    })?;
    let stop = next.unwrap_or(end);
    let there = stop - body;
    let cut =
        (!unknown).then(|| format!("the header says {claimed} bytes of sound, {there} are there"));
    Ok(Found {
        sound: Ok((format, body..stop)),
        next: stop,
        cut,
    })
}

/// Reads a W64 at `start`, whose chunks have names of 16 bytes and sizes of 8, which count the header.
pub(super) fn read_large(peeker: &mut Peeker, start: u64, end: u64) -> io::Result<Found> {
    let mut at = start + 40;
    let mut format = None;
    loop {
        let head = peeker.peek(at, 24)?;
        let Some(size) = head.get(16..).and_then(<[u8]>::first_chunk) else {
            return Ok(Found::none(
                end,
                "is a W64 without data, or breaks off before it",
            ));
        };
        let size = u64::from_le_bytes(*size);
        let name = [head[0], head[1], head[2], head[3]];
        let body = at + 24;
        let claimed = size.saturating_sub(24);
        match &name {
            b"fmt " => {
                let bytes = peeker.peek(body, FORMAT.min(claimed) as usize)?;
                format = Some(Format::parse(bytes));
            }
            b"data" => {
                let left = end.saturating_sub(body);
                let sound = match format {
                    Some(Ok(format)) => Ok((format, body..body + claimed.min(left))),
                    Some(Err(reason)) => Err(reason),
                    None => Err("is a W64 without a format chunk".to_owned()),
                };
                let cut = (claimed > left && claimed < i64::MAX as u64)
                    .then(|| format!("the header says {claimed} bytes of sound, {left} are there"));
                let next = at.saturating_add(size.div_ceil(8).saturating_mul(8));
                return Ok(Found {
                    sound,
                    next: next.clamp(body, end.max(body)),
                    cut,
                });
            }
            _ if size < 24 => {
                return Ok(Found::none(end, "is a W64 with a broken chunk"));
            }
            _ => {}
        }
        at = at.saturating_add(size.div_ceil(8).saturating_mul(8));
    }
}

/// Reads an AU file at `start`, of the formats that a WAV has, too.
pub(super) fn read_au(peeker: &mut Peeker, start: u64, end: u64) -> io::Result<Found> {
    let Some(head) = peeker.peek(start, 24)?.first_chunk::<24>().copied() else {
        return Ok(Found::none(
            end,
            "is an AU file that breaks off in its header",
        ));
    };
    let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let tag: u16 = match word(12) {
        1 => 7,
        27 => 6,
        other => {
            let reason =
                format!("is an AU file of the encoding {other}; µ-law and A-law are known");
            return Ok(Found::none(end, &reason));
        }
    };
    let channels = u16::try_from(word(20)).unwrap_or(0);
    let body = [
        &tag.to_le_bytes()[..],
        &channels.to_le_bytes(),
        &word(16).to_le_bytes(),
        &word(16).saturating_mul(channels.into()).to_le_bytes(),
        &channels.to_le_bytes(),
        &8_u16.to_le_bytes(),
    ];
    let sound = Format::parse(&body.concat());
    let data = start.saturating_add(u64::from(word(4).max(24))).min(end);
    let (claimed, left) = (word(8), end - data);
    let stop = data + u64::from(claimed).min(left);
    let cut = (claimed != u32::MAX && u64::from(claimed) > left)
        .then(|| format!("the header says {claimed} bytes of sound, {left} are there"));
    Ok(Found {
        sound: sound.map(|format| (format, data..stop)),
        next: stop,
        cut,
    })
}
