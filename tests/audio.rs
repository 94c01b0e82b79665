//! Sound files and the frames made of them, against the reference.
//!
//! `tools/fixtures/whisper_audio.py` makes the fixtures. `SALAMANDER_DATA` names a folder with
//! `audio/jfk.wav`, a recording that is not part of the repository.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs;
use std::path::{Path, PathBuf};

use salamander::importers::Checkpoint;
use salamander::models::processing::audio::{LogMel, LogMelConfig};
use salamander::{Audio, AudioFileError};

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
