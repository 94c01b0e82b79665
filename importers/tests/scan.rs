//! Files that play the tricks which scanners of pickles are tested with.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

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
            let readable = ["bomb.pt", "graph.pb", "unlisted.pt"];
            if !readable.contains(&&name[..]) {
                failures.push(format!("{name} is opened"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
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
