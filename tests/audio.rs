//! Sound files and the frames made of them, against the reference.
//!
//! `tools/fixtures/whisper_audio.py` makes the fixtures. `SALAMANDER_DATA` names a folder with
//! `audio/jfk.wav`, a recording that is not part of the repository.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use salamander::importers::Checkpoint;
use salamander::models::processing::audio::{LogMel, LogMelConfig};
use salamander::{Audio, AudioFileError, Heard};

const RATE: u32 = 16_000;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/whisper_audio")
        .join(name)
}

fn golden(name: &str) -> (Vec<usize>, Vec<f32>) {
    let goldens = Checkpoint::open(fixture("mel.safetensors")).unwrap();
    let entry = goldens.get(name).unwrap();
    let values = entry.read().unwrap().as_slice::<f32>().unwrap().to_vec();
    (entry.shape.clone(), values)
}

fn front_end(bins: usize) -> LogMel {
    LogMel::new(LogMelConfig {
        feature_size: bins,
        ..LogMelConfig::default()
    })
    .unwrap()
}

#[test]
fn frames_are_the_references() {
    let sound = Audio::open(fixture("sound.wav"), RATE).unwrap();
    assert_eq!(sound.samples.len(), 16_000);
    let mut worst: f32 = 0.0;
    for bins in [80, 128] {
        let found = front_end(bins).window(&sound.samples).unwrap();
        assert_eq!((found.bins, found.frames), (bins, 3000));
        let (shape, expected) = golden(&format!("mel.{bins}"));
        let (_, rest) = golden(&format!("rest.{bins}"));
        for (bin, row) in found.values.chunks_exact(3000).enumerate() {
            for (frame, value) in row.iter().enumerate() {
                let expected = match frame < shape[1] {
                    true => expected[bin * shape[1] + frame],
                    false => rest[0],
                };
                worst = worst.max((value - expected).abs());
            }
        }
    }
    let long = front_end(80).frames(&sound.samples).unwrap();
    let (shape, expected) = golden("long");
    assert_eq!(shape, [long.bins, long.frames]);
    let pairs = long.values.iter().zip(&expected);
    worst = pairs.map(|(a, b)| (a - b).abs()).fold(worst, f32::max);
    println!("log-mel frames: largest difference {worst:e}");
    assert!(worst < 1e-4, "{worst}");
}

#[test]
fn frames_of_speech_are_the_references() {
    let Some(data) = std::env::var_os("SALAMANDER_DATA") else {
        println!("skipped: SALAMANDER_DATA names no folder with audio/jfk.wav");
        return;
    };
    let speech = Audio::open(Path::new(&data).join("audio/jfk.wav"), RATE).unwrap();
    let found = front_end(80).window(&speech.samples).unwrap();
    let (shape, expected) = golden("jfk");
    let mut worst: f32 = 0.0;
    for bin in 0..shape[0] {
        for step in 0..shape[1] {
            let found = found.values[bin * 3000 + step * 16];
            worst = worst.max((found - expected[bin * shape[1] + step]).abs());
        }
    }
    println!("log-mel frames of jfk.wav: largest difference {worst:e}");
    assert!(worst < 1e-4, "{worst}");
}

/// The root mean square of the difference, at the shift that makes it least: what an AAC encoder puts
/// before the sound stays there, and other codecs may delay too.
fn difference(a: &[f32], b: &[f32]) -> f64 {
    let at = |shift: i64| {
        let pairs = (2_000..14_000_i64).filter_map(|n| {
            let other = b.get(usize::try_from(n + shift).ok()?)?;
            Some(f64::from(a[n as usize] - other).powi(2))
        });
        (pairs.sum::<f64>() / 12_000.0).sqrt()
    };
    (-40..=400).map(at).fold(f64::INFINITY, f64::min)
}

#[test]
fn every_format_gives_the_same_sound() {
    let original = Audio::open(fixture("sound.wav"), RATE).unwrap();
    for name in ["sound.flac", "sound-alac.m4a"] {
        let lossless = Audio::open(fixture(name), RATE).unwrap();
        assert_eq!(lossless, original, "{name}");
    }
    // The noise differs between rates, and codecs drop some; chirp and tone are the same.
    for name in ["sound.mp3", "sound.ogg", "sound.m4a", "sound-8000.wav"] {
        let sound = Audio::open(fixture(name), RATE).unwrap();
        assert_eq!(sound.rate, RATE);
        assert!(
            (sound.seconds() - 1.0).abs() < 0.06,
            "{name}: {}",
            sound.seconds()
        );
        let difference = difference(&original.samples, &sound.samples);
        println!(
            "{name}: {} samples, differs by {difference:.4}",
            sound.samples.len()
        );
        // The 1024 samples that AAC puts before the sound are no whole number of samples at our rate.
        let most = if name == "sound.m4a" { 0.12 } else { 0.06 };
        assert!(difference < most, "{name}: {difference}");
    }
}

#[test]
fn bytes_need_no_file() {
    let bytes = fs::read(fixture("sound.flac")).unwrap();
    let sound = Audio::from_bytes("upload", bytes, RATE).unwrap();
    assert_eq!(sound.samples.len(), 16_000);
}

#[test]
fn bad_files_are_errors_that_name_them() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        let error = Audio::open(&path, RATE).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(path.to_str().unwrap()), "{text}");
        text
    };
    let wav = fs::read(fixture("sound.wav")).unwrap();
    assert!(refused("empty.wav", b"").contains("is empty"));
    refused(
        "text.wav",
        b"this is not a sound file, but it is long enough to be looked at",
    );
    refused("header.wav", &wav[..20]);
    refused("zeros.mp3", &[0; 5000]);
    for name in ["sound.flac", "sound.mp3", "sound.ogg", "sound.m4a"] {
        let bytes = fs::read(fixture(name)).unwrap();
        refused(name, &bytes[..30]);
        // Broken anywhere: an error or what could be read, never a panic.
        for cut in [60, 500, bytes.len() / 2, bytes.len() - 1] {
            let path = directory.path().join(name);
            fs::write(&path, &bytes[..cut]).unwrap();
            if let Ok(sound) = Audio::open(&path, RATE) {
                assert!(sound.samples.len() < 20_000);
            }
            let mut spoiled = bytes.clone();
            for byte in spoiled.iter_mut().skip(cut).step_by(97) {
                *byte ^= 0x5a;
            }
            if let Ok(sound) = Audio::from_bytes(name, spoiled, RATE) {
                assert!(sound.samples.len() < 100_000);
            }
        }
    }
    let missing = Audio::open(directory.path().join("missing.wav"), RATE).unwrap_err();
    assert!(matches!(missing, AudioFileError::Io { .. }), "{missing}");
    assert!(Audio::open(directory.path(), RATE).is_err());
}

#[test]
fn headers_that_claim_too_much_cost_nothing() {
    let mut wav = fs::read(fixture("sound.wav")).unwrap();
    // Four gigabytes of data claimed, thirty kilobytes there.
    wav[40..44].copy_from_slice(&u32::MAX.to_le_bytes());
    wav[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    if let Ok(sound) = Audio::from_bytes("claims.wav", wav.clone(), RATE) {
        assert!(sound.samples.len() <= 16_000);
    }
    // Four billion samples a second.
    wav[24..28].copy_from_slice(&u32::MAX.to_le_bytes());
    let error = Audio::from_bytes("fast.wav", wav, RATE).unwrap_err();
    assert!(error.to_string().contains("fast.wav"), "{error}");
}

/// The most memory that this process ever held, where the system tells.
fn peak_memory() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    let kibibytes: usize = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[test]
fn three_hours_take_the_memory_of_what_is_kept() {
    const SECONDS: u32 = 3 * 3600;
    const SIZE: u32 = SECONDS * RATE * 2;
    // A kilohertz keeps the test small: a sixteenth of the file's samples, and the frames of those.
    let kept = 1_000;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("long.wav");
    let mut header = fs::read(fixture("sound.wav")).unwrap()[..44].to_vec();
    header[4..8].copy_from_slice(&(SIZE + 36).to_le_bytes());
    header[40..44].copy_from_slice(&SIZE.to_le_bytes());
    fs::write(&path, header).unwrap();
    // A hole, which takes no room on disk.
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(u64::from(SIZE) + 44).unwrap();

    let sound = Audio::open(&path, kept).unwrap();
    assert_eq!(sound.seconds(), f64::from(SECONDS));
    let mel = front_end(80);
    let frames = mel.frames(&sound.samples).unwrap();
    assert_eq!(frames.frames, sound.samples.len() / 160);
    let window = frames.window(frames.frames - 1, 3000);
    assert_eq!(window.values.len(), 80 * 3000);
    let results = 4 * (sound.samples.len() + frames.values.len());
    // Vectors grow by doubling; the other tests of this file take less than their share.
    let most = 2 * results + (64 << 20);
    assert!(most < SIZE as usize);
    if let Some(peak) = peak_memory() {
        println!(
            "{} MB at the most for {} MB of results",
            peak >> 20,
            results >> 20
        );
        assert!(peak < most, "{peak}, not {most}");
    }
}

#[test]
fn channels_are_mixed_by_their_mean() {
    let mut wav = fs::read(fixture("sound.wav")).unwrap();
    // The mono samples become pairs of left and right, at half the bytes a second each.
    wav[22..24].copy_from_slice(&2_u16.to_le_bytes());
    wav[28..32].copy_from_slice(&64_000_u32.to_le_bytes());
    wav[32..34].copy_from_slice(&4_u16.to_le_bytes());
    let mono = Audio::open(fixture("sound.wav"), RATE).unwrap().samples;
    let mixed = Audio::from_bytes("stereo.wav", wav, RATE).unwrap().samples;
    let means = mono.chunks_exact(2).map(|pair| (pair[0] + pair[1]) / 2.0);
    assert_eq!(mixed, means.collect::<Vec<_>>());
}

#[test]
fn a_millisecond_and_nothing_are_sounds() {
    let wav = fs::read(fixture("sound.wav")).unwrap();
    for bytes in [0_u32, 32] {
        let mut short = wav[..44 + bytes as usize].to_vec();
        short[40..44].copy_from_slice(&bytes.to_le_bytes());
        short[4..8].copy_from_slice(&(36 + bytes).to_le_bytes());
        let sound = Audio::from_bytes("short.wav", short, RATE).unwrap();
        assert_eq!(sound.samples.len(), bytes as usize / 2);
    }
}

/// The sound of a file's bytes at the rate that it has.
fn heard(name: &str, bytes: &[u8], rate: u32) -> Heard {
    Audio::listen_to_bytes(name, bytes.to_vec(), rate).unwrap()
}

fn bytes(name: &str) -> Vec<u8> {
    fs::read(fixture(name)).unwrap()
}

/// The samples of `sound.wav`, which follow its header of 44 bytes.
fn samples() -> Vec<u8> {
    bytes("sound.wav")[44..].to_vec()
}

fn chunk(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut made = [&name[..], &(body.len() as u32).to_le_bytes(), body].concat();
    made.resize(made.len().next_multiple_of(2), 0);
    made
}

/// A `fmt ` chunk's body for one channel at 16 kHz.
fn format(tag: u16, bits: u16, channels: u16) -> Vec<u8> {
    let block = channels * bits / 8;
    [
        &tag.to_le_bytes()[..],
        &channels.to_le_bytes(),
        &RATE.to_le_bytes(),
        &(RATE * u32::from(block)).to_le_bytes(),
        &block.to_le_bytes(),
        &bits.to_le_bytes(),
    ]
    .concat()
}

fn riff(chunks: &[Vec<u8>]) -> Vec<u8> {
    let body = chunks.concat();
    [
        b"RIFF",
        &(body.len() as u32 + 4).to_le_bytes()[..],
        b"WAVE",
        &body,
    ]
    .concat()
}

#[test]
fn joined_files_are_heard_to_the_end() {
    for (name, rate) in [
        ("sound.wav", RATE),
        ("sound.flac", RATE),
        ("sound.ogg", 44_100),
        ("sound-alac.m4a", RATE),
        #[cfg(feature = "opus")]
        ("silk.opus", 48_000),
        #[cfg(feature = "opus")]
        ("sound.webm", 48_000),
    ] {
        let one = bytes(name);
        let alone = heard(name, &one, rate);
        assert_eq!(alone.warnings, [], "{name}");
        let joined = heard(name, &one.repeat(3), rate);
        assert_eq!(joined.warnings, [], "{name}");
        assert_eq!(
            joined.audio.samples,
            alone.audio.samples.repeat(3),
            "{name}"
        );
    }
    // Of different rates, channels and formats, with tags between and behind them.
    let tag = [&b"TAG"[..], &[b' '; 125]].concat();
    let ape = [
        &b"APETAGEX"[..],
        &2000_u32.to_le_bytes(),
        &40_u32.to_le_bytes(),
        &[0; 4],
        &(1_u32 << 31).to_le_bytes(),
        &[0; 8],
        &[1; 40],
    ]
    .concat();
    let mixed = [
        bytes("sound.ogg"),
        bytes("sound-8000.wav"),
        bytes("sound.mp3"),
        tag.clone(),
        bytes("sound.wav"),
        bytes("sound.ogg"),
        ape,
        bytes("sound.flac"),
        bytes("sound-alac.m4a"),
        tag,
    ];
    let mixed = heard("mixed", &mixed.concat(), RATE);
    assert_eq!(mixed.warnings, []);
    assert!(
        (mixed.audio.seconds() - 7.0).abs() < 0.12,
        "{}",
        mixed.audio.seconds()
    );
    let end = mixed.audio.samples.len() - RATE as usize;
    assert_eq!(
        mixed.audio.samples[end..],
        heard("wav", &bytes("sound.wav"), RATE).audio.samples
    );
}

#[test]
fn joined_mp3_is_what_ffmpeg_hears() {
    let one = bytes("sound.mp3");
    let alone = heard("one.mp3", &one, 44_100).audio.samples.len();
    let all = |count: usize| heard("joined.mp3", &one.repeat(count), 44_100);
    let (two, three) = (all(2), all(3));
    assert_eq!((&two.warnings[..], &three.warnings[..]), (&[][..], &[][..]));
    let (two, three) = (two.audio.samples.len(), three.audio.samples.len());
    // Whole frames of each, of which the delay of the first is left out.
    let frames = three - two;
    assert_eq!(frames % 1152, 0);
    assert!(
        frames >= alone && frames < alone + 4 * 1152,
        "{frames} {alone}"
    );
    assert!(
        two < 2 * frames && two > 2 * frames - 2 * 1152,
        "{two} {frames}"
    );
    // One without a header, or with frames behind those that the header counts, has no end but the file's.
    let first = one.iter().position(|byte| *byte == 0xff).unwrap();
    let info = one
        .windows(4)
        .position(|name| name == b"Info" || name == b"Xing")
        .unwrap();
    let second = (info..one.len())
        .find(|&at| one[at..].starts_with(&one[first..first + 2]))
        .unwrap();
    let bare = &one[second..];
    assert_eq!(heard("bare.mp3", bare, 44_100).audio.samples.len(), frames);
    let more = heard("more.mp3", &[&one[..], bare].concat(), 44_100);
    assert_eq!(more.audio.samples.len(), two);
}

#[test]
fn what_is_not_heard_is_said() {
    let mp3 = bytes("sound.mp3");
    let noise: Vec<u8> = (1..3_001_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 & 0x7f)
        .collect();
    let cases = [
        (
            "rest.wav",
            [bytes("sound.wav"), noise.clone()].concat(),
            "3000 bytes are no sound",
        ),
        (
            "between.mp3",
            [mp3.clone(), noise.clone(), mp3.clone()].concat(),
            "3000 bytes are no sound",
        ),
        (
            "before.mp3",
            [noise.clone(), mp3.clone()].concat(),
            "3000 bytes are no sound",
        ),
        (
            "cut.mp3",
            mp3[..mp3.len() / 2].to_vec(),
            "the header counts",
        ),
        (
            "cut.wav",
            bytes("sound.wav")[..10_000].to_vec(),
            "the header says 32000 bytes of sound, 9956 are there",
        ),
        (
            "cut.flac",
            bytes("sound.flac")[..20_000].to_vec(),
            "breaks off",
        ),
        (
            "cut.ogg",
            bytes("sound.ogg")[..10_000].to_vec(),
            "breaks off",
        ),
        (
            "amr.wav",
            [bytes("sound.wav"), b"#!AMR\n".to_vec(), noise].concat(),
            "AMR",
        ),
    ];
    for (name, bytes, says) in cases {
        let heard = heard(name, &bytes, RATE);
        let [warning] = &heard.warnings[..] else {
            panic!("{name}: {:?}", heard.warnings);
        };
        assert!(warning.reason.contains(says), "{name}: {warning}");
        assert!(
            warning.seconds <= heard.audio.seconds() + 1e-3,
            "{name}: {warning}"
        );
        assert!(warning.byte <= bytes.len() as u64, "{name}: {warning}");
        assert!(!heard.audio.samples.is_empty(), "{name}");
    }
    let mut damaged = bytes("sound.flac");
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0xff;
    let heard = heard("damaged.flac", &damaged, RATE);
    assert!(heard.audio.samples.len() < 16_000);
    assert_eq!(heard.warnings.len(), 1, "{:?}", heard.warnings);
}

#[test]
fn wav_is_read_in_all_its_shapes() {
    let expected = heard("sound.wav", &bytes("sound.wav"), RATE).audio;
    let fmt = chunk(b"fmt ", &format(1, 16, 1));
    let open = |size: u32, riff: u32| {
        let sizes = [size.to_le_bytes(), riff.to_le_bytes()];
        [
            b"RIFF",
            &sizes[1][..],
            b"WAVE",
            &fmt,
            b"data",
            &sizes[0],
            &samples(),
        ]
        .concat()
    };
    let half = samples().len() / 2;
    let (first, second) = (samples()[..half].to_vec(), samples()[half..].to_vec());
    let ds64 = [
        (32_100_u64).to_le_bytes(),
        (32_000_u64).to_le_bytes(),
        (16_000_u64).to_le_bytes(),
    ]
    .concat();
    let large = [
        b"RF64",
        &[0xff; 4][..],
        b"WAVE",
        &chunk(b"ds64", &[&ds64[..], &[0; 4]].concat()),
        &fmt,
        b"data",
        &[0xff; 4],
        &samples(),
    ]
    .concat();
    let guid = |name: &[u8; 4]| {
        [
            &name[..],
            b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a",
        ]
        .concat()
    };
    let w64_chunk = |name: &[u8; 4], body: &[u8]| {
        [
            &guid(name)[..],
            &(body.len() as u64 + 24).to_le_bytes(),
            body,
        ]
        .concat()
    };
    let w64 = [
        b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00",
        &32_128_u64.to_le_bytes()[..],
        &guid(b"wave"),
        &w64_chunk(b"fmt ", &format(1, 16, 1)),
        &w64_chunk(b"data", &samples()),
    ]
    .concat();
    let extensible = |bits: u16, tag: u16, channels: u16| {
        let rest = [
            &22_u16.to_le_bytes()[..],
            &bits.to_le_bytes(),
            &0_u32.to_le_bytes(),
            &tag.to_le_bytes(),
            b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71",
        ];
        chunk(
            b"fmt ",
            &[format(0xfffe, bits, channels), rest.concat()].concat(),
        )
    };
    let each = |make: &dyn Fn(i16) -> Vec<u8>| -> Vec<u8> {
        let data = samples();
        let values = data
            .chunks_exact(2)
            .map(|pair| i16::from_le_bytes([pair[0], pair[1]]));
        values.flat_map(make).collect()
    };
    let wide = each(&|value| [&[0][..], &value.to_le_bytes()].concat());
    let double = each(&|value| (f64::from(value) / 32_768.0).to_le_bytes().to_vec());
    let six = each(&|value| value.to_le_bytes().repeat(6));
    for (name, made) in [
        ("sizes of all ones", open(u32::MAX, u32::MAX)),
        ("sizes of sox", open(0x7fff_f000, 0x7fff_f024)),
        ("sizes of zero", open(0, 0)),
        (
            "odd chunks",
            riff(&[
                chunk(b"LIST", b"abcde"),
                fmt.clone(),
                chunk(b"junk", b"x"),
                chunk(b"data", &samples()),
                chunk(b"id3 ", b"abc"),
            ]),
        ),
        (
            "data twice",
            riff(&[fmt.clone(), chunk(b"data", &first), chunk(b"data", &second)]),
        ),
        (
            "joined",
            [
                riff(&[fmt.clone(), chunk(b"data", &first)]),
                riff(&[fmt.clone(), chunk(b"data", &second)]),
            ]
            .concat(),
        ),
        ("RF64", large),
        ("W64", w64),
        (
            "extensible",
            riff(&[extensible(16, 1, 1), chunk(b"data", &samples())]),
        ),
        (
            "24 bits",
            riff(&[extensible(24, 1, 1), chunk(b"data", &wide)]),
        ),
        (
            "64-bit floats",
            riff(&[chunk(b"fmt ", &format(3, 64, 1)), chunk(b"data", &double)]),
        ),
        (
            "six channels",
            riff(&[extensible(16, 1, 6), chunk(b"data", &six)]),
        ),
    ] {
        let heard = heard("made.wav", &made, RATE);
        assert_eq!(heard.warnings, [], "{name}");
        assert_eq!(heard.audio.samples.len(), expected.samples.len(), "{name}");
        let pairs = heard.audio.samples.iter().zip(&expected.samples);
        let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-6, "{name}: {worst}");
    }
    // Streams that were joined end where the next begins, whatever they claim.
    let joined = heard("joined.wav", &open(u32::MAX, u32::MAX).repeat(2), RATE);
    assert_eq!(joined.audio.samples, expected.samples.repeat(2));
    for (tag, name) in [
        (0x31_u16, "GSM"),
        (0x45, "G.726"),
        (0x111, "G.723"),
        (0x7777, "0x7777"),
    ] {
        let made = riff(&[
            chunk(b"fmt ", &format(tag, 8, 1)),
            chunk(b"data", &samples()),
        ]);
        let error = Audio::from_bytes("phone.wav", made, RATE)
            .unwrap_err()
            .to_string();
        assert!(error.contains(name) && error.contains("ffmpeg"), "{error}");
    }
}

#[cfg(feature = "opus")]
#[test]
fn opus_is_what_libopus_decodes() {
    let golden: serde_json::Value = serde_json::from_slice(&bytes("opus.json")).unwrap();
    for (name, expected) in golden.as_object().unwrap() {
        let heard = heard(name, &bytes(name), 48_000);
        assert_eq!(heard.warnings, [], "{name}");
        let length = heard.audio.samples.len();
        // As `opusdec` has it; but WebM says where the sound ends within its last packet, which is not read.
        let most = match &name[..] {
            "sound.webm" => 48_960,
            "silk.opus" => 48_312,
            _ => 48_000,
        };
        assert!((48_000..=most).contains(&length), "{name}: {length}");
        let expected = expected.as_array().unwrap();
        let pairs = heard.audio.samples.iter().step_by(48).zip(expected);
        let worst = pairs
            .map(|(found, expected)| {
                (f64::from(*found) * 32_768.0 - expected.as_f64().unwrap()).abs()
            })
            .fold(0.0, f64::max);
        // The decoder computes with integers, the reference with floats.
        println!("{name}: differs by {worst} of 32768");
        assert!(worst <= 12.0, "{name}: {worst}");
    }
    let mut spoiled = bytes("celt.opus");
    for byte in spoiled.iter_mut().skip(300).step_by(61) {
        *byte ^= 0x5a;
    }
    if let Ok(sound) = Audio::from_bytes("spoiled.opus", spoiled, RATE) {
        assert!(sound.seconds() < 10.0);
    }
}

#[test]
fn pipes_are_read() {
    let wav = bytes("sound.wav");
    let piped = Audio::from_reader("standard input", &wav[..], RATE).unwrap();
    assert_eq!(piped.audio, heard("sound.wav", &wav, RATE).audio);
    let error = Audio::from_reader("standard input", &[][..], RATE).unwrap_err();
    assert!(
        error.to_string().contains("standard input: is empty"),
        "{error}"
    );
}
