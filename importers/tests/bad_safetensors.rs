//! Files that are not what they claim: each is an error that names the file, none a panic.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use salamander_importers::{Checkpoint, FormatError};
use tempfile::TempDir;

/// A safetensors file of a header and data.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

fn good() -> Vec<u8> {
    let header = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"BOOL","shape":[3],"data_offsets":[16,19]}}"#;
    let floats: Vec<u8> = [1.0_f32, 2.0, 3.0, 4.0]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    file(header, &[&floats[..], &[1, 0, 1]].concat())
}

fn write(directory: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// Opens and reads everything.
fn read(path: &Path) -> Result<usize, FormatError> {
    let checkpoint = Checkpoint::open(path)?;
    for (_, entry) in checkpoint.iter() {
        entry.read()?;
    }
    Ok(checkpoint.len())
}

/// The error of a file with these bytes, which must name the file.
fn refused(bytes: &[u8]) -> String {
    let directory = TempDir::new().unwrap();
    let path = write(&directory, "model.safetensors", bytes);
    let error = read(&path).unwrap_err().to_string();
    assert!(error.contains("model.safetensors"), "{error}");
    error
}

#[test]
fn the_good_file_is_read() {
    let directory = TempDir::new().unwrap();
    let checkpoint = Checkpoint::open(write(&directory, "x.safetensors", &good())).unwrap();
    let data = checkpoint.get("a").unwrap().read().unwrap();
    assert_eq!(data.as_slice::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0]);
    let data = checkpoint.get("b").unwrap().read().unwrap();
    assert_eq!(data.as_slice::<bool>().unwrap(), [true, false, true]);
    assert_eq!(checkpoint.metadata["format"], "pt");
}

#[test]
fn data_that_is_not_aligned_is_read() {
    let floats: Vec<u8> = [1.5_f32, -2.5]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    for padding in 0..8 {
        let header = format!(
            r#"{{"a":{{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}{}}}"#,
            " ".repeat(padding)
        );
        let directory = TempDir::new().unwrap();
        let path = write(&directory, "x.safetensors", &file(&header, &floats));
        let data = Checkpoint::open(path)
            .unwrap()
            .get("a")
            .unwrap()
            .read()
            .unwrap();
        assert_eq!(data.as_slice::<f32>().unwrap(), [1.5, -2.5]);
    }
}

#[test]
fn every_truncation_is_refused() {
    let bytes = good();
    for length in 0..bytes.len() {
        refused(&bytes[..length]);
    }
}

#[test]
fn every_flipped_byte_is_read_or_refused() {
    let bytes = good();
    let directory = TempDir::new().unwrap();
    let mut tried = 0;
    for at in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] ^= flip;
            // Either is right; what must not happen is a panic.
            let _ = read(&write(&directory, "x.safetensors", &changed));
            tried += 1;
        }
    }
    println!("{tried} changed files tried");
}

#[test]
fn headers_that_lie_are_refused() {
    let one = |info: &str| file(&format!(r#"{{"a":{info}}}"#), &[0; 16]);
    let claims = |length: u64| {
        let mut bytes = good();
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        bytes
    };
    for (bytes, says) in [
        (claims(u64::MAX), "18446744073709551615"),
        (claims(1 << 40), "1099511627776"),
        (claims(0), "header"),
        (
            one(r#"{"dtype":"F32","shape":[5],"data_offsets":[0,16]}"#),
            "shape",
        ),
        (
            one(r#"{"dtype":"F32","shape":[4],"data_offsets":[4,20]}"#),
            "begin",
        ),
        (
            one(r#"{"dtype":"F32","shape":[4],"data_offsets":[16,0]}"#),
            "begin",
        ),
        (
            one(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#),
            "trailing",
        ),
        (
            one(r#"{"dtype":"F32","shape":[8],"data_offsets":[0,32]}"#),
            "truncated",
        ),
        (
            one(r#"{"dtype":"F32","shape":[9223372036854775808,2],"data_offsets":[0,16]}"#),
            "larger",
        ),
        (
            one(r#"{"dtype":"F99","shape":[4],"data_offsets":[0,16]}"#),
            "F99",
        ),
        (
            one(r#"{"dtype":"F32","shape":[-4],"data_offsets":[0,16]}"#),
            "-4",
        ),
        (file("[1,2]", &[]), "not a valid safetensors"),
        (file("\u{0}\u{1}", &[]), "not a valid safetensors"),
        (
            file(
                r#"{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[8],"data_offsets":[4,12]}}"#,
                &[0; 12],
            ),
            "`b` does not begin where",
        ),
    ] {
        let error = refused(&bytes);
        assert!(error.contains(says), "{error} does not say {says}");
    }
}

#[test]
fn a_byte_that_is_no_boolean_names_its_tensor() {
    let mut bytes = good();
    let last = bytes.len() - 1;
    bytes[last] = 7;
    let error = refused(&bytes);
    assert!(
        error.contains("`b`") && error.contains("element 2 is 7"),
        "{error}"
    );
}

#[test]
fn a_type_that_cannot_be_read_is_still_listed() {
    let bytes = file(
        r#"{"a":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}}"#,
        &[0; 8],
    );
    let directory = TempDir::new().unwrap();
    let path = write(&directory, "x.safetensors", &bytes);
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.get("a").unwrap().dtype.to_string(), "C64");
    assert!(read(&path).unwrap_err().to_string().contains("C64"));
}

#[test]
fn an_index_must_be_true() {
    let index = |map: &str| format!(r#"{{"metadata":{{"total_size":19}},"weight_map":{map}}}"#);
    for (map, says) in [
        (r#"{"a":"one.safetensors"}"#, None),
        (r#"{"a":"two.safetensors"}"#, Some("`two.safetensors`")),
        (r#"{"z":"one.safetensors"}"#, Some("`z`")),
        (
            r#"{"a":"../one.safetensors"}"#,
            Some("not a plain file name"),
        ),
        (r#"{"a":"/etc/passwd"}"#, Some("not a plain file name")),
        (r#"{"a":5}"#, Some("invalid type")),
        (r#"[]"#, Some("invalid type")),
    ] {
        let directory = TempDir::new().unwrap();
        write(&directory, "one.safetensors", &good());
        write(
            &directory,
            "model.safetensors.index.json",
            index(map).as_bytes(),
        );
        match (read(directory.path()), says) {
            // The shard's second tensor is listed although the index does not name it.
            (Ok(count), None) => assert_eq!(count, 2),
            (Err(error), Some(says)) => {
                let error = error.to_string();
                assert!(
                    error.contains(says) && error.contains("index.json"),
                    "{error}"
                );
            }
            (result, _) => unreachable!("{map}: {result:?}"),
        }
    }
}

#[test]
fn a_directory_without_weights_says_what_it_has() {
    let directory = TempDir::new().unwrap();
    let empty = read(directory.path()).unwrap_err().to_string();
    assert!(empty.contains("no weights"), "{empty}");
    write(&directory, "pytorch_model.bin", b"PK");
    let other = read(directory.path()).unwrap_err().to_string();
    assert!(other.contains("pytorch_model.bin"), "{other}");
    let absent = read(&directory.path().join("absent"))
        .unwrap_err()
        .to_string();
    assert!(absent.contains("absent"), "{absent}");
}
