//! Files that play the tricks which scanners are tested with, and files that people have.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use salamander_importers::Checkpoint;
use salamander_importers::scan::{Severity, scan};
use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/scan")
}

#[test]
fn every_trick_is_named_and_refused() {
    let expected = fs::read_to_string(folder().join("expected.json")).unwrap();
    let expected: serde_json::Map<String, Value> = serde_json::from_str(&expected).unwrap();
    assert!(expected.len() > 50);
    let mut failures = Vec::new();
    for (name, expected) in &expected {
        let path = folder().join(name);
        let found = scan(&path).unwrap();
        let report: Vec<String> = found
            .findings
            .iter()
            .map(|finding| format!("{}: {}", finding.within.join(" / "), finding.what))
            .collect();
        let report = report.join("\n");
        let dangerous = expected["dangerous"].as_bool().unwrap();
        if found.is_dangerous() != dangerous {
            failures.push(format!("{name}: dangerous is {}\n{report}", !dangerous));
        }
        for says in expected["says"].as_array().unwrap() {
            let says = says.as_str().unwrap();
            if !report.contains(says) {
                failures.push(format!("{name}: does not say {says:?}, but\n{report}"));
            }
        }
        // What runs something when it is unpickled is no weights to the reader either.
        if dangerous && Checkpoint::open(&path).is_ok() {
            // What the reader does not look at cannot harm it.
            let readable = ["graph.pb", "unlisted.pt"];
            if !readable.contains(&&name[..]) {
                failures.push(format!("{name} is opened"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// The files of `tools/scan_corpus.py`: a line with the manifest, and what is in them one behind the other.
#[test]
fn the_corpus_is_judged_right_both_ways() {
    let packed = fs::read(folder().join("corpus.gz")).unwrap();
    let mut whole = Vec::new();
    flate2::read::GzDecoder::new(&packed[..])
        .read_to_end(&mut whole)
        .unwrap();
    let line = whole.iter().position(|byte| *byte == b'\n').unwrap();
    let manifest: Vec<Value> = serde_json::from_slice(&whole[..line]).unwrap();
    let mut rest = &whole[line + 1..];
    let root = tempfile::tempdir().unwrap();
    let (mut dangerous, mut harmless) = (0, 0);
    let mut failures = Vec::new();
    for entry in &manifest {
        let name = entry["name"].as_str().unwrap();
        let size = usize::try_from(entry["size"].as_u64().unwrap()).unwrap();
        let (content, behind) = rest.split_at(size);
        rest = behind;
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        let found = scan(&path).unwrap();
        let report: Vec<String> = found
            .findings
            .iter()
            .map(|finding| {
                let severity = finding.severity.name();
                format!(
                    "{severity} {}: {}",
                    finding.within.join(" / "),
                    finding.what
                )
            })
            .collect();
        let report = report.join("\n");
        let expected = entry["dangerous"].as_bool().unwrap();
        if expected {
            dangerous += 1;
        } else {
            harmless += 1;
        }
        let says = entry["says"].as_array().unwrap();
        let silent = says
            .iter()
            .find(|says| !report.contains(says.as_str().unwrap()));
        if found.is_dangerous() != expected {
            failures.push(format!("{name}: dangerous is {}\n{report}", !expected));
        } else if let Some(says) = silent {
            failures.push(format!("{name}: does not say {says}, but\n{report}"));
        }
    }
    assert!(rest.is_empty());
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    assert!(
        dangerous >= 300 && harmless >= 150,
        "{dangerous}, {harmless}"
    );
}

#[test]
fn a_scan_takes_time_in_proportion_to_the_file() {
    // A scan that looks again from every byte takes minutes for these.
    const SIZE: usize = 1 << 20;
    let units: [&[u8]; 16] = [
        b"\x80\x02",
        b"V",
        b"c",
        b"(",
        b"\x94",
        b"\x85",
        b"cos\nx\n",
        b"(ios\nx\n",
        b"X\x00\x00\x07\x00",
        b"\x80\x02B\x00\x00\x07\x00",
        b"\x8c\x02os\x8c\x01x\x93",
        b"\x80\x02.",
        b"PK\x03\x04",
        b"PK\x01\x02",
        b"{\"a\":",
        b"c\n",
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.bin");
    for unit in units {
        for begin in [&b""[..], b"\x80\x04N", b"\x89HDF\r\n\x1a\n"] {
            let mut bytes = begin.to_vec();
            bytes.extend(unit.iter().cycle().take(SIZE));
            fs::write(&path, &bytes).unwrap();
            let begun = Instant::now();
            scan(&path).unwrap();
            let took = begun.elapsed();
            assert!(took < Duration::from_secs(20), "{unit:?} takes {took:?}");
        }
    }
}

#[test]
fn what_the_reference_libraries_write_passes() {
    let formats = folder().join("../formats");
    let mut count = 0;
    for kind in ["pytorch", "numpy", "gguf"] {
        for item in fs::read_dir(formats.join(kind)).unwrap() {
            let path = item.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            // A checksum that PyTorch was told not to compute, objects, and an exotic archive that is no one's.
            let odd = ["no_crc32.pt", "objects.npy", "refused"].contains(&&name[..]);
            if path.is_dir() || odd || name.ends_with(".json") {
                continue;
            }
            let found = scan(&path).unwrap();
            assert!(!found.is_dangerous(), "{found:#?}");
            count += 1;
        }
    }
    assert!(count > 40);
}

#[test]
fn a_scan_ends_for_every_beginning_and_every_flipped_bit() {
    let folder_of_files = tempfile::tempdir().unwrap();
    let path = folder_of_files.path().join("model.pt");
    for name in [
        "nested.pkl",
        "unlisted.pt",
        "two_names.pt",
        "objects.npy",
        "built.pkl",
    ] {
        let bytes = fs::read(folder().join(name)).unwrap();
        for end in (0..bytes.len()).step_by(3) {
            fs::write(&path, &bytes[..end]).unwrap();
            let found = scan(&path).unwrap();
            assert!(
                found
                    .findings
                    .iter()
                    .all(|f| f.severity <= Severity::Danger)
            );
        }
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x81;
            fs::write(&path, &flipped).unwrap();
            scan(&path).unwrap();
        }
    }
}
