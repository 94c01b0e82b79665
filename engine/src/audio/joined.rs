//! The recordings in a file, one after the other: files that were joined, and what stands around sound.
//!
//! Decoders end where the first recording ends. So the borders are found here, by what the containers say of their
//! sizes and, where they do not, by the signature of the next. Each recording is then read as a file of its own.

use std::io;
use std::ops::Range;

use super::source::{Bytes, Peeker};
use super::wave::{self, Format};

/// A recording.
#[derive(Debug, Default)]
pub(super) struct Recording {
    /// A header that takes the place of the file's.
    pub(super) head: Vec<u8>,
    pub(super) range: Range<u64>,
    /// The ending that such files have.
    pub(super) ending: Option<&'static str>,
    /// Whether decoders may look ahead. Without a count of frames they would guess one, and stop there.
    pub(super) seekable: bool,
    /// Whether the count of samples in its header is exact.
    pub(super) counted: bool,
    /// Whether it may end anywhere, since its header gives no size.
    pub(super) open: bool,
    /// How many samples an encoder put before the sound, of those that no header speaks of any more.
    pub(super) skip: u64,
    /// Why there is less of it than its header says.
    pub(super) cut: Option<String>,
}

/// What a file holds at some place.
#[derive(Debug)]
pub(super) enum Piece {
    Sound(Recording),
    /// Bytes from `at` on that are not heard, and why.
    Other {
        at: u64,
        reason: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Wave,
    Wave64,
    Aiff,
    Flac,
    Ogg,
    Mp4,
    Matroska,
    Caf,
    Au,
    Frames,
}

/// What tells that a container begins, or `None` for frames of MPEG, which are told by their successors.
fn container(bytes: &[u8]) -> Option<Kind> {
    let at =
        |from: usize, what: &[u8]| bytes.get(from..).is_some_and(|rest| rest.starts_with(what));
    let kind = match bytes.first()? {
        b'R' | b'B' if wave::begins(bytes) => Kind::Wave,
        b'r' if at(0, &wave::W64_RIFF) && at(24, &wave::W64_WAVE) => Kind::Wave64,
        b'F' if at(0, b"FORM") && (at(8, b"AIFF") || at(8, b"AIFC")) => Kind::Aiff,
        // The stream information, which is first, has 34 bytes.
        b'f' if at(0, b"fLaC") && at(5, &[0, 0, 34]) => Kind::Flac,
        b'O' if at(0, b"OggS\0") => Kind::Ogg,
        0x1a if at(0, &[0x1a, 0x45, 0xdf, 0xa3]) => {
            let header = &bytes[..bytes.len().min(64)];
            let named = |name: &[u8]| header.windows(name.len()).any(|part| part == name);
            (named(b"webm") || named(b"matroska")).then_some(Kind::Matroska)?
        }
        b'c' if at(0, b"caff\0\x01") => Kind::Caf,
        b'.' if at(0, b".snd\0\0\0") => Kind::Au,
        0 if at(4, b"ftyp") => Kind::Mp4,
        _ => return None,
    };
    Some(kind)
}

/// Whether another file begins, where the one before does not tell.
fn begins_anew(bytes: &[u8]) -> bool {
    match container(bytes) {
        // Its first page says so, and is before all samples.
        Some(Kind::Ogg) => matches!(bytes, [_, _, _, _, _, flags, time @ ..]
            if flags & OGG_BEGINS != 0 && time.starts_with(&[0; 8])),
        kind => kind.is_some(),
    }
}

/// The first bytes of what [`container`] knows.
const FIRST: &[u8] = b"\0RBrFfO\x1ac.";

const OGG_BEGINS: u8 = 2;
const OGG_ENDS: u8 = 4;

/// Formats that are known by name alone.
fn foreign(bytes: &[u8]) -> Option<&'static str> {
    const NAMES: &[(usize, &[u8], &str)] = &[
        (0, b"#!AMR-WB", "AMR wideband speech"),
        (0, b"#!AMR", "AMR speech"),
        (0, b"RIFX", "a big-endian WAV (RIFX)"),
        (0, &[0x30, 0x26, 0xb2, 0x75], "an ASF file (WMA)"),
        (0, b"MThd", "MIDI, which is notes and no sound"),
        (0, b"MAC ", "Monkey's Audio"),
        (0, b"wvpk", "WavPack"),
        (0, b"MPCK", "Musepack"),
        (0, b"MP+", "Musepack"),
        (0, b"TTA1", "True Audio"),
        (0, b"DSD ", "DSD"),
        (0, &[0x0b, 0x77], "Dolby Digital (AC-3)"),
        (0, b"NIST_1A", "a NIST SPHERE file"),
        (0, b"Creative Voice File", "a Creative VOC file"),
        (0, b"ID3", "an ID3 tag without sound"),
        (0, b"FLV", "Flash video"),
        (8, b"AVI ", "AVI video"),
        (0, &[0, 0, 1, 0xba], "an MPEG program stream"),
    ];
    let known = NAMES.iter().find(|(at, magic, _)| {
        let rest = bytes.get(*at..);
        rest.is_some_and(|rest| rest.starts_with(magic))
    });
    known.map(|(_, _, name)| *name)
}

pub(super) struct Pieces {
    peeker: Peeker,
    at: u64,
    /// Where the tags at the file's end begin.
    end: u64,
    /// The format of the last WAV, for data that goes on.
    wave: Option<Format>,
    begun: bool,
    /// Whether frames of MPEG audio came before.
    framed: bool,
}

impl Pieces {
    pub(super) fn new(bytes: Bytes) -> io::Result<Self> {
        let mut peeker = Peeker::new(bytes);
        let end = end_of_sound(&mut peeker)?;
        Ok(Self {
            peeker,
            at: 0,
            end,
            wave: None,
            begun: false,
            framed: false,
        })
    }

    /// The next piece, until there is none.
    pub(super) fn next(&mut self) -> io::Result<Option<Piece>> {
        loop {
            self.skip_zeros()?;
            if self.at >= self.end {
                return Ok(None);
            }
            let at = self.at;
            let mut head = self.peeker.peek(at, FRAMES_SEEN)?.to_vec();
            head.truncate(usize::try_from(self.end - at).unwrap_or(usize::MAX));
            if let Some(size) = tag_size(&head) {
                self.at = at.saturating_add(size);
                continue;
            }
            let kind = container(&head).or(starts_frames(&head).then_some(Kind::Frames));
            let Some(kind) = kind else {
                let chunk = self.wave.as_ref().and_then(|format| {
                    let size = wave::trailing_chunk(&head, self.end - at)?;
                    Some((format, size))
                });
                if let Some((format, size)) = chunk {
                    let from = at + 8;
                    self.at = from + size + size % 2;
                    if head.starts_with(b"data") && size > 0 {
                        return Ok(Some(Piece::Sound(format.recording(from..from + size))));
                    }
                    continue;
                }
                return self.unknown(&head).map(Some);
            };
            self.begun = true;
            let piece = match kind {
                Kind::Wave | Kind::Wave64 | Kind::Au => self.wave(kind)?,
                Kind::Frames => self.frames(self.end)?,
                Kind::Ogg => self.ogg()?,
                Kind::Mp4 => {
                    let end = self.end_of_boxes()?;
                    self.recording(end, "m4a")
                }
                Kind::Aiff => {
                    let size = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
                    let end = at.saturating_add(8 + u64::from(size) + u64::from(size % 2));
                    let end = if size <= 4 { self.end } else { end };
                    let claimed = end > self.end;
                    let mut piece = self.recording(end.min(self.end), "aiff");
                    if let (true, Piece::Sound(recording)) = (claimed, &mut piece) {
                        recording.cut = Some("the file ends before its header says".to_owned());
                    }
                    piece
                }
                Kind::Flac | Kind::Matroska => {
                    let next = self.peeker.find(at + 1, self.end, FIRST, 64, begins_anew)?;
                    let ending = if kind == Kind::Flac { "flac" } else { "mkv" };
                    let mut piece = self.recording(next.unwrap_or(self.end), ending);
                    if let Piece::Sound(recording) = &mut piece {
                        recording.open = kind == Kind::Matroska && is_open_matroska(&head);
                    }
                    piece
                }
                Kind::Caf => self.recording(self.end, "caf"),
            };
            return Ok(Some(piece));
        }
    }

    /// All up to `end`.
    fn recording(&mut self, end: u64, ending: &'static str) -> Piece {
        let range = self.at..end;
        self.at = end;
        Piece::Sound(Recording {
            range,
            ending: Some(ending),
            seekable: true,
            counted: matches!(ending, "flac" | "m4a"),
            ..Recording::default()
        })
    }

    fn skip_zeros(&mut self) -> io::Result<()> {
        // An MP4 begins with the size of its first box.
        while self.at < self.end {
            let block = self.peeker.peek(self.at, 1 << 12)?;
            let zeros = block.iter().take_while(|byte| **byte == 0).count();
            if zeros == block.len() && zeros > 0 {
                self.at += zeros as u64;
                continue;
            }
            let boxed = (0..=zeros.min(3)).rev().find(|&before| {
                let from = zeros - before;
                before > 0 && block.get(from + 4..from + 8) == Some(b"ftyp")
            });
            self.at += (zeros - boxed.unwrap_or(0)) as u64;
            break;
        }
        Ok(())
    }

    /// Bytes of no known kind: up to the next that are.
    fn unknown(&mut self, head: &[u8]) -> io::Result<Piece> {
        let at = self.at;
        if let Some(name) = foreign(head) {
            self.at = self.end;
            let reason = format!("is {name}, which cannot be decoded");
            return Ok(Piece::Other { at, reason });
        }
        let first = [FIRST, b"\xffI"].concat();
        let next = self
            .peeker
            .find(at + 1, self.end, &first, FRAMES_SEEN, |bytes| {
                begins_anew(bytes)
                    || starts_frames(bytes)
                    || (bytes.starts_with(b"ID3") && tag_size(bytes).is_some())
            })?;
        if next.is_none() && !self.begun {
            // The decoders may know more.
            let range = at..self.end;
            self.at = self.end;
            return Ok(Piece::Sound(Recording {
                range,
                seekable: true,
                ..Recording::default()
            }));
        }
        self.at = next.unwrap_or(self.end);
        Ok(Piece::Other {
            at,
            reason: format!("{} bytes are no sound that is known", self.at - at),
        })
    }

    /// Frames of MPEG audio or AAC, as long as they follow each other and are of one kind.
    fn frames(&mut self, limit: u64) -> io::Result<Piece> {
        let start = self.at;
        let mut at = start;
        let (mut first, mut counted, mut frames, mut cut) = (None, None, 0_u64, None);
        let (mut begin, mut delay) = (start, 0);
        while at < limit {
            let seen = self.peeker.peek(at, 256)?;
            let Some(frame) = Frame::parse(seen) else {
                break;
            };
            if *first.get_or_insert(frame.kind) != frame.kind {
                break;
            }
            // Another header is another recording's.
            let count = frame.count(seen);
            if count.is_some() && at > start {
                break;
            }
            if at + frame.length > limit {
                cut = Some("the last frame breaks off".to_owned());
                break;
            }
            at += frame.length;
            match count {
                Some(count) => {
                    delay = frame.delay(seen);
                    (counted, begin) = (Some(count), at);
                }
                None => frames += 1,
            }
        }
        // A frame that breaks off is not heard.
        self.at = if cut.is_some() { limit } else { at };
        let mut range = start..at;
        let mut seekable = counted.is_some();
        // As FFmpeg does, what encoders put around the parts of a joined file is heard, but before the first.
        let first_part = !std::mem::replace(&mut self.framed, true);
        let mut next = self.at;
        while let Some(size) = tag_size(self.peeker.peek(next, 256)?) {
            next = next.saturating_add(size);
        }
        let joined =
            !first_part || (next < self.end && starts_frames(self.peeker.peek(next, FRAMES_SEEN)?));
        let mut skip = 0;
        if let Some(count) = counted {
            let count = count.unwrap_or(frames);
            if joined || frames > count {
                // There is more than the header counts, which would be left out.
                (range.start, seekable) = (begin, false);
                skip = if first_part { delay } else { 0 };
            }
            if frames + 1 < count {
                cut = Some(format!(
                    "the header counts {count} frames, {frames} are there"
                ));
            }
        }
        let adts = first.is_some_and(|kind| kind & ADTS != 0);
        Ok(Piece::Sound(Recording {
            range,
            ending: Some(if adts { "aac" } else { "mp3" }),
            seekable,
            skip,
            cut,
            ..Recording::default()
        }))
    }

    /// Pages up to the first page of another chain.
    fn ogg(&mut self) -> io::Result<Piece> {
        let start = self.at;
        let mut at = start;
        let (mut headers, mut ended, mut speex, mut cut) = (true, false, false, None);
        while at < self.end {
            let page = self.peeker.peek(at, 27 + 255 + 8)?;
            if page.len() < 27 || !page.starts_with(b"OggS\0") {
                // Pages that are damaged are for the decoder to skip.
                if ended {
                    break;
                }
                let next = self.peeker.find(at, self.end, b"O", 64, |bytes| {
                    container(bytes) == Some(Kind::Ogg)
                })?;
                match next {
                    Some(next) => at = next,
                    None => break,
                }
                continue;
            }
            let begins = page[5] & OGG_BEGINS != 0;
            if begins && !headers {
                break;
            }
            headers &= begins;
            ended = page[5] & OGG_ENDS != 0;
            let segments = usize::from(page[26]);
            let Some(table) = page.get(27..27 + segments) else {
                (at, cut) = (self.end, Some("the last page breaks off".to_owned()));
                break;
            };
            let body: u64 = table.iter().map(|&size| u64::from(size)).sum();
            speex |= begins && page[27 + segments..].starts_with(b"Speex   ");
            at += 27 + segments as u64 + body;
        }
        if at > self.end {
            (at, cut) = (self.end, Some("the last page breaks off".to_owned()));
        }
        self.at = at;
        if speex {
            let reason = "is Speex in OGG, which cannot be decoded".to_owned();
            return Ok(Piece::Other { at: start, reason });
        }
        Ok(Piece::Sound(Recording {
            range: start..at,
            ending: Some("ogg"),
            seekable: true,
            cut,
            ..Recording::default()
        }))
    }

    /// Where the boxes of an MP4 end: with the file, or where another begins.
    fn end_of_boxes(&mut self) -> io::Result<u64> {
        let mut at = self.at;
        let mut media = false;
        while at < self.end {
            let head = self.peeker.peek(at, 16)?;
            let Some((size, name)) = head.first_chunk::<8>().map(|head| head.split_at(4)) else {
                break;
            };
            if media && name == b"ftyp" {
                return Ok(at);
            }
            media |= name == b"moov" || name == b"mdat";
            let size = match (
                u32::from_be_bytes([size[0], size[1], size[2], size[3]]),
                head,
            ) {
                (0, _) => break,
                (1, [_, _, _, _, _, _, _, _, large @ ..]) => match large.first_chunk() {
                    Some(large) => u64::from_be_bytes(*large),
                    None => break,
                },
                (size, _) => u64::from(size),
            };
            if size < 8 {
                break;
            }
            at = at.saturating_add(size);
        }
        Ok(self.end)
    }

    fn wave(&mut self, kind: Kind) -> io::Result<Piece> {
        let start = self.at;
        let found = match kind {
            Kind::Wave64 => wave::read_large(&mut self.peeker, start, self.end)?,
            Kind::Au => wave::read_au(&mut self.peeker, start, self.end)?,
            _ => wave::read(&mut self.peeker, start, self.end)?,
        };
        self.at = found.next.max(start + 12);
        let (format, data) = match found.sound {
            Ok(sound) => sound,
            Err(reason) => return Ok(Piece::Other { at: start, reason }),
        };
        if format.mpeg {
            let next = self.at;
            self.at = data.start;
            let seen = self.peeker.peek(data.start, FRAMES_SEEN)?;
            if starts_frames(seen) {
                let piece = self.frames(data.end)?;
                // Frames that do not follow each other are looked at one by one.
                if self.at >= data.end {
                    self.at = next;
                }
                return Ok(piece);
            }
            self.at = next;
            let reason = "is a WAV of MPEG audio that has no frames".to_owned();
            return Ok(Piece::Other { at: start, reason });
        }
        let mut recording = format.recording(data);
        recording.cut = found.cut;
        self.wave = Some(format);
        Ok(Piece::Sound(recording))
    }
}

/// Whether a Matroska's segment has no size, as that of a stream.
fn is_open_matroska(bytes: &[u8]) -> bool {
    let size = |at: usize| {
        let first = *bytes.get(at)?;
        let length = first.leading_zeros() as usize + 1;
        let rest = bytes.get(at + 1..at + length)?;
        let own = u64::from(first) & (0x7f >> (length - 1).min(7));
        let value = rest
            .iter()
            .fold(own, |value, byte| value << 8 | u64::from(*byte));
        Some((value, length))
    };
    let segment = size(4).map(|(header, length)| 4 + length + header as usize);
    let Some(segment) =
        segment.filter(|at| bytes.get(*at..*at + 4) == Some(&[0x18, 0x53, 0x80, 0x67]))
    else {
        return false;
    };
    size(segment + 4).is_some_and(|(value, length)| length < 9 && value == (1 << (7 * length)) - 1)
}

/// Where the tags begin that players put at the end of a file.
fn end_of_sound(peeker: &mut Peeker) -> io::Result<u64> {
    let mut end = peeker.len();
    loop {
        let before = |size: u64| end.checked_sub(size);
        let mut found = None;
        if let Some(at) = before(128) {
            found = peeker.peek(at, 3)?.starts_with(b"TAG").then_some(at);
        }
        if let (None, Some(at)) = (found, before(32)) {
            let foot = peeker.peek(at, 32)?;
            if let Some(size) = ape_size(foot) {
                found = end.checked_sub(size);
            }
        }
        if let (None, Some(at)) = (found, before(15)) {
            let foot = peeker.peek(at, 15)?;
            if foot.ends_with(b"LYRICS200") {
                let digits = std::str::from_utf8(&foot[..6]).ok();
                let size: Option<u64> = digits.and_then(|digits| digits.parse().ok());
                found = size.and_then(|size| at.checked_sub(size));
            }
        }
        match found {
            // A file of nothing but tags keeps its first.
            Some(at) if at > 0 => end = at,
            _ => return Ok(end),
        }
    }
}

/// The whole size of an APE tag, by its header or footer.
fn ape_size(bytes: &[u8]) -> Option<u64> {
    let fixed: &[u8; 24] = bytes.strip_prefix(b"APETAGEX").and(bytes.first_chunk())?;
    let word =
        |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    let headed = word(20) >> 31 == 1;
    Some(u64::from(word(12)) + if headed { 32 } else { 0 })
}

/// The size of a tag that begins here.
fn tag_size(bytes: &[u8]) -> Option<u64> {
    let header = bytes
        .strip_prefix(b"ID3")
        .and_then(<[u8]>::first_chunk::<7>);
    match header {
        Some([0..16, _, flags, size @ ..]) if size.iter().all(|byte| *byte < 128) => {
            let size: [u8; 4] = *size;
            let size = size.iter().fold(0, |all, byte| all << 7 | u64::from(*byte));
            return Some(10 + size + if flags & 0x10 != 0 { 10 } else { 0 });
        }
        _ => {}
    }
    if bytes.starts_with(b"TAG+") {
        return Some(227);
    }
    if bytes.starts_with(b"TAG") && bytes.len() >= 128 {
        return Some(128);
    }
    ape_size(bytes)
}

/// How many bytes tell that frames follow each other.
const FRAMES_SEEN: usize = 8_192 + 8;

fn starts_frames(bytes: &[u8]) -> bool {
    let Some(frame) = Frame::parse(bytes) else {
        return false;
    };
    let length = frame.length as usize;
    match bytes.get(length..) {
        Some([]) => true,
        Some(next) => {
            let next_kind = Frame::parse(next).map(|next| next.kind);
            next_kind == Some(frame.kind) || tag_size(next).is_some() || container(next).is_some()
        }
        None => false,
    }
}

/// A frame of MPEG audio, or of AAC in ADTS.
#[derive(Debug, Clone, Copy)]
struct Frame {
    length: u64,
    /// Version, layer, rate and channels, which a decoder does not let change.
    kind: u16,
}

const ADTS: u16 = 0x8000;

impl Frame {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let [0xff, second, third, fourth, ..] = *bytes else {
            return None;
        };
        if second & 0xe0 != 0xe0 {
            return None;
        }
        let (version, layer) = (second >> 3 & 3, second >> 1 & 3);
        if layer == 0 {
            let [fifth, sixth, _] = *bytes.get(4..7)?.first_chunk()?;
            let rate = third >> 2 & 15;
            let channels = (third & 1) << 2 | fourth >> 6;
            let length =
                u64::from(fourth & 3) << 11 | u64::from(fifth) << 3 | u64::from(sixth >> 5);
            let valid = second & 0xf0 == 0xf0 && rate < 13 && length > 7;
            return valid.then_some(Self {
                length,
                kind: ADTS
                    | u16::from(third >> 6) << 8
                    | u16::from(rate) << 4
                    | u16::from(channels),
            });
        }
        let (rate, index) = (usize::from(third >> 2 & 3), usize::from(third >> 4));
        if version == 1 || rate == 3 || index == 0 || index == 15 || fourth & 3 == 2 {
            return None;
        }
        const RATES: [u64; 3] = [44_100, 48_000, 32_000];
        const HIGH: [[u16; 14]; 3] = [
            [
                32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320,
            ],
            [
                32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384,
            ],
            [
                32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448,
            ],
        ];
        const LOW: [[u16; 14]; 3] = [
            [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
            [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
            [
                32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256,
            ],
        ];
        let first = version == 3;
        let table = if first { &HIGH } else { &LOW };
        let bits = 1_000 * u64::from(table[usize::from(layer) - 1][index - 1]);
        let hertz = RATES[rate] >> [2, 0, 1, 0][usize::from(version)];
        let padding = u64::from(third >> 1 & 1);
        let length = match layer {
            3 => 4 * (12 * bits / hertz + padding),
            1 if !first => 72 * bits / hertz + padding,
            _ => 144 * bits / hertz + padding,
        };
        let mono = u16::from(fourth >> 6 == 3);
        Some(Self {
            length,
            kind: u16::from(version) << 6 | u16::from(layer) << 4 | (rate as u16) << 1 | mono,
        })
    }

    /// Whether it is a header of a variable rate, and how many frames that counts.
    fn count(self, bytes: &[u8]) -> Option<Option<u64>> {
        let layer = self.kind >> 4 & 3;
        if self.kind & ADTS != 0 || layer != 1 {
            return None;
        }
        let number = |at: usize| {
            let bytes = bytes.get(at..)?.first_chunk()?;
            Some(u64::from(u32::from_be_bytes(*bytes)))
        };
        let (first, mono) = (self.kind >> 6 == 3, self.kind & 1 == 1);
        let side = match (first, mono) {
            (true, false) => 32,
            (true, true) | (false, false) => 17,
            (false, true) => 9,
        };
        // With and without a checksum before it.
        for at in [4 + side, 6 + side] {
            let name = bytes.get(at..at + 4);
            if name == Some(b"Xing") || name == Some(b"Info") {
                let flags = number(at + 4)?;
                return Some(number(at + 8).filter(|_| flags & 1 == 1));
            }
        }
        (bytes.get(36..40) == Some(b"VBRI")).then(|| number(50))
    }

    /// How many samples come before the sound by such a header, with those that a decoder puts there.
    ///
    /// Reference: `mp3_parse_info_tag` of FFmpeg 7.
    fn delay(self, bytes: &[u8]) -> u64 {
        const DECODER: u64 = 528 + 1;
        let named = |at: usize| matches!(bytes.get(at..at + 4), Some(b"Xing" | b"Info"));
        let Some(at) = (13..=38).find(|&at| named(at)) else {
            return 0;
        };
        let flags = bytes.get(at + 7).copied().unwrap_or(0);
        let fields = [(1, 4), (2, 4), (4, 100), (8, 4)];
        let present = fields.iter().filter(|(flag, _)| flags & flag != 0);
        let encoder = at + 8 + present.map(|(_, size)| size).sum::<usize>();
        match bytes.get(encoder + 21..encoder + 23) {
            Some([high, low]) if bytes[encoder..encoder + 4].is_ascii() && bytes[encoder] != 0 => {
                (u64::from(*high) << 4 | u64::from(*low) >> 4) + DECODER
            }
            _ => 0,
        }
    }
}
