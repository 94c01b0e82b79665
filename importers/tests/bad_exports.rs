//! ONNX, Flax and GGML files that are not what they claim: each is an error that names the file and the place.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs;
use std::path::{Path, PathBuf};

use salamander_importers::{Checkpoint, FormatError};
use tempfile::TempDir;

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/formats");
    fs::read(folder.join(name)).unwrap()
}

fn write(directory: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = directory.path().join(name);
    let _ = fs::remove_file(&path);
    fs::write(&path, bytes).unwrap();
    path
}

/// Opens and reads everything that has a type.
fn read(path: &Path) -> Result<usize, FormatError> {
    let checkpoint = Checkpoint::open(path)?;
    for (_, entry) in checkpoint.iter() {
        if entry.dtype.to_burn().is_some() {
            let data = entry.read()?;
            assert_eq!(data.num_elements(), entry.elements());
        }
    }
    Ok(checkpoint.len())
}

#[track_caller]
fn refused_saying(name: &str, bytes: &[u8], says: &str) {
    let directory = TempDir::new().unwrap();
    let error = read(&write(&directory, name, bytes))
        .unwrap_err()
        .to_string();
    assert!(error.contains(name), "{error}");
    assert!(error.len() < 2_000, "an error of {} bytes", error.len());
    assert!(error.contains(says), "{error}\ndoes not say {says}");
}

/// Every shorter file, and every file with a byte changed, is read or refused: no panic, no hang.
fn mutations(name: &str, bytes: &[u8], step: usize) {
    let directory = TempDir::new().unwrap();
    let begun = std::time::Instant::now();
    let mut tried = 0;
    for at in (0..bytes.len()).step_by(step) {
        let _ = read(&write(&directory, name, &bytes[..at]));
        for flip in [0x01, 0x80, 0xff] {
            let mut changed = bytes.to_vec();
            changed[at] ^= flip;
            let _ = read(&write(&directory, name, &changed));
            tried += 1;
        }
    }
    println!(
        "{name}: {tried} changed files tried in {:?}",
        begun.elapsed()
    );
}

#[test]
fn changed_onnx_files_are_read_or_refused() {
    mutations("a.onnx", &fixture("onnx/types.onnx"), 3);
    mutations(
        "b.onnx",
        &fixture("onnx/quantized/nbits-asymmetric.onnx"),
        37,
    );
    mutations("c.onnx", &fixture("onnx/quantized/dynamic.onnx"), 41);
    mutations("d.onnx", &fixture("onnx/bert/masked-lm.dynamo.onnx"), 43);
}

#[test]
fn changed_flax_files_are_read_or_refused() {
    mutations("a.msgpack", &fixture("flax/types.msgpack"), 1);
}

#[test]
fn changed_ggml_files_are_read_or_refused() {
    let bytes = fixture("ggml/whisper-q5_0.bin");
    mutations("a.bin", &bytes[..7000], 3);
    mutations("b.bin", &bytes, 311);
}

// ONNX, made by hand.

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    [
        varint(field << 3 | 2),
        varint(value.len() as u64),
        value.to_vec(),
    ]
    .concat()
}

fn tensor(name: &str, kind: u64, dims: &[u64], rest: &[u8]) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|size| number(1, *size)).collect();
    [
        dims,
        number(2, kind),
        bytes(8, name.as_bytes()),
        rest.to_vec(),
    ]
    .concat()
}

fn model(graph: &[Vec<u8>]) -> Vec<u8> {
    [number(1, 10), bytes(7, &graph.concat())].concat()
}

fn with_tensor(tensor: &[u8]) -> Vec<u8> {
    model(&[bytes(5, tensor)])
}

fn external(location: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let entry = |key: &str, value: &str| {
        let pair = [bytes(1, key.as_bytes()), bytes(2, value.as_bytes())].concat();
        bytes(13, &pair)
    };
    let more = more.iter().flat_map(|(key, value)| entry(key, value));
    let mut all = entry("location", location);
    all.extend(more);
    all.extend(number(14, 1));
    with_tensor(&tensor("w", 1, &[2], &all))
}

#[test]
fn the_handmade_onnx_file_is_read() {
    let directory = TempDir::new().unwrap();
    let good = with_tensor(&tensor("w", 1, &[2], &bytes(9, &[0; 8])));
    assert_eq!(read(&write(&directory, "a.onnx", &good)).ok(), Some(1));
    // Content comes before the name.
    assert_eq!(read(&write(&directory, "a.bin", &good)).ok(), Some(1));
    write(&directory, "data", &[0; 16]);
    fs::create_dir(directory.path().join("weights")).unwrap();
    fs::write(directory.path().join("weights/w"), [0; 8]).unwrap();
    for location in ["data", "./data", "weights/w"] {
        let good = external(location, &[]);
        assert_eq!(
            read(&write(&directory, "b.onnx", &good)).ok(),
            Some(1),
            "{location}"
        );
    }
    let good = external("data", &[("offset", "8"), ("length", "8")]);
    assert_eq!(read(&write(&directory, "b.onnx", &good)).ok(), Some(1));
}

#[test]
fn onnx_files_that_lie_are_refused() {
    let raw = |kind: u64, dims: &[u64], length: usize| {
        with_tensor(&tensor("w", kind, dims, &bytes(9, &vec![0; length])))
    };
    let half = 1_u64 << 63;
    for (file, says) in [
        (raw(1, &[3], 8), "takes 12 bytes, it has 8"),
        (raw(1, &[half], 8), "larger than any file"),
        (raw(1, &[u64::MAX], 8), "larger than any file"),
        (raw(1, &[1 << 40, 1 << 40], 8), "larger than any file"),
        (raw(22, &[1 << 62, 4], 8), "larger than any file"),
        (raw(1, &[1; 65], 4), "64 dimensions"),
        (raw(99, &[1], 4), "data type 99"),
        (
            with_tensor(&tensor("w", 1, &[2], &[])),
            "takes 2 numbers, it has 0",
        ),
        (
            with_tensor(&tensor("w", 6, &[3], &bytes(5, &[1, 2]))),
            "takes 3 numbers, it has 2",
        ),
        (
            with_tensor(&tensor("w", 1, &[1], &bytes(3, &[]))),
            "segments",
        ),
        (
            model(&[bytes(5, &tensor("w", 1, &[], &bytes(9, &[0; 4]))).repeat(2)]),
            "twice",
        ),
        (
            model(&[bytes(
                15,
                &bytes(1, &tensor("s", 1, &[1], &bytes(9, &[0; 4]))),
            )]),
            "sparse",
        ),
        (number(1, 10), "neither nodes nor tensors"),
        (
            [number(1, 10), vec![0x3a, 0xff, 0xff, 0xff, 0xff, 0x0f]].concat(),
            "truncated",
        ),
        (vec![0x08, 0xff], "truncated"),
        (vec![0x0b, 0x01], "wire type 3"),
        (vec![0x00, 0x01], "no field 0"),
        (vec![0xff; 12], "too long"),
    ] {
        refused_saying("a.onnx", &file, says);
    }
    for (location, says) in [
        ("../data", "not a file under the model's directory"),
        (
            "weights/../../data",
            "not a file under the model's directory",
        ),
        ("/etc/passwd", "not a file under the model's directory"),
        ("..\\data", "not a file under the model's directory"),
        ("", "not a file under the model's directory"),
        ("missing", "missing"),
    ] {
        refused_saying("a.onnx", &external(location, &[]), says);
    }
    let directory = TempDir::new().unwrap();
    write(&directory, "data", &[0; 16]);
    for (more, says) in [
        (
            [("offset", "12"), ("length", "8")],
            "reach beyond that file of 16 bytes",
        ),
        (
            [("offset", "18446744073709551615"), ("length", "8")],
            "reach beyond",
        ),
        ([("offset", "-1"), ("length", "8")], "no number"),
        (
            [("offset", "0"), ("length", "16")],
            "take 8 bytes, its external data has 16",
        ),
    ] {
        let path = write(&directory, "a.onnx", &external("data", &more));
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("a.onnx") && error.contains(says), "{error}");
    }
}

#[test]
fn onnx_graphs_in_graphs_end() {
    let mut graph = bytes(5, &tensor("w", 1, &[], &bytes(9, &[0; 4])));
    for _ in 0..20_000 {
        // A node with an attribute that is a graph.
        let attribute = bytes(6, &graph);
        graph = bytes(1, &bytes(5, &attribute));
        if graph.len() > 1 << 17 {
            break;
        }
    }
    refused_saying("a.onnx", &model(&[graph]), "nested too deeply");
}

#[test]
fn quantized_onnx_weights_that_lie_are_refused() {
    let node = |op: &str, inputs: &[&str], attributes: &[(&str, u64)]| {
        let mut node: Vec<u8> = inputs
            .iter()
            .flat_map(|name| bytes(1, name.as_bytes()))
            .collect();
        node.extend(bytes(2, b"y"));
        node.extend(bytes(4, op.as_bytes()));
        for (name, value) in attributes {
            let attribute = [bytes(1, name.as_bytes()), number(3, *value)].concat();
            node.extend(bytes(5, &attribute));
        }
        bytes(1, &node)
    };
    let init = |name: &str, kind: u64, dims: &[u64], length: usize| {
        bytes(5, &tensor(name, kind, dims, &bytes(9, &vec![0; length])))
    };
    let weight = || init("w", 3, &[2, 3], 6);
    let nbits = |k: u64, n: u64, size: u64, bits: u64| {
        let attributes = [("K", k), ("N", n), ("block_size", size), ("bits", bits)];
        let node = node("MatMulNBits", &["x", "w", "s"], &attributes);
        model(&[node, init("w", 2, &[2, 1, 8], 16), init("s", 1, &[2], 8)])
    };
    let dequantize = |scale: Vec<u8>, attributes: &[(&str, u64)]| {
        model(&[
            node("DequantizeLinear", &["w", "s"], attributes),
            weight(),
            scale,
        ])
    };
    for (file, says) in [
        (
            model(&[node("DequantizeLinear", &["w", "s"], &[]), weight()]),
            "no constant",
        ),
        (
            model(&[node("MatMulInteger", &["x", "w"], &[]), weight()]),
            "has no scale",
        ),
        (dequantize(init("s", 1, &[5], 20), &[]), "do not fit"),
        (dequantize(init("s", 6, &[3], 12), &[]), "is of I32"),
        (
            dequantize(init("s", 1, &[3], 12), &[("axis", 9)]),
            "do not fit",
        ),
        (
            dequantize(init("s", 1, &[2, 3], 24), &[("block_size", 2)]),
            "have scales of [2, 2]",
        ),
        (nbits(16, 2, 16, 7), "7 bits"),
        (nbits(16, 3, 16, 4), "do not take"),
        (nbits(u64::MAX, 2, 16, 4), "no `K`"),
        (nbits(1 << 62, 1 << 62, 1, 8), "do not take"),
        (nbits(16, 2, 1 << 62, 8), "do not take"),
    ] {
        refused_saying("a.onnx", &file, says);
    }
    let good = nbits(16, 2, 16, 4);
    let directory = TempDir::new().unwrap();
    assert_eq!(read(&write(&directory, "a.onnx", &good)).ok(), Some(1));
}

// Flax, made by hand.

/// A dictionary of one array, `w`.
fn flax(array: &[u8]) -> Vec<u8> {
    [
        &b"\x81\xa1w\xc7"[..],
        &[u8::try_from(array.len()).unwrap(), 1],
        array,
    ]
    .concat()
}

#[test]
fn flax_files_that_lie_are_refused() {
    let directory = TempDir::new().unwrap();
    let good = flax(b"\x93\x91\x02\xa7float32\xc4\x08\0\0\0\0\0\0\0\0");
    assert_eq!(read(&write(&directory, "a.msgpack", &good)).ok(), Some(1));
    let chunked = |rest: &[u8]| [b"\x81\xa1w\x83\xb9__msgpack_chunked_array__\xc3", rest].concat();
    let deep = [&b"\x81\xa1a".repeat(5000)[..], b"\xc0"].concat();
    let arrays = [b"\x81\xa1a", &b"\x91".repeat(5000)[..], b"\xc0"].concat();
    for (file, says) in [
        (
            flax(b"\x93\x91\x03\xa7float32\xc4\x08\0\0\0\0\0\0\0\0"),
            "does not take the 8 bytes",
        ),
        (
            flax(b"\x93\x91\xcf\x80\0\0\0\0\0\0\0\xa7float32\xc4\x00"),
            "larger than any file",
        ),
        (flax(b"\x93\x91\xff\xa7float32\xc4\x00"), "no size"),
        (flax(b"\x92\x91\x02\xa7float32"), "no tuple of three"),
        (flax(b"\x93\x91\x02\xa7float32\xc4\xff"), "truncated"),
        (flax(b"\x93\xdd\xff\xff\xff\xff"), "too many dimensions"),
        (b"\x91\xa1w".to_vec(), "no dictionary"),
        (b"\x81\xc0\xc0".to_vec(), "neither a text nor a number"),
        (b"\x81\xa1w\xc1".to_vec(), "c1"),
        (b"\xdf\xff\xff\xff\xff\xa1w\xc0".to_vec(), "truncated"),
        (b"\x81\xa1w\xc9\xff\xff\xff\xff\x01".to_vec(), "truncated"),
        ([&good[..], b"\xc0"].concat(), "follow its dictionary"),
        (
            chunked(b"\xa5shape\x81\xa10\x02\xa6chunks\x80"),
            "no chunks",
        ),
        (
            chunked(b"\xa5shape\x81\xa11\x02\xa6chunks\x80"),
            "count from 0",
        ),
        (chunked(b"\xa5shape\xc0\xa6chunks\x80"), "no dictionary"),
        (deep, "nested too deeply"),
        (arrays, "nested too deeply"),
    ] {
        refused_saying("a.msgpack", &file, says);
    }
}

// GGML, made by hand.

#[test]
fn ggml_files_that_lie_are_refused() {
    let good = fixture("ggml/whisper-f32.bin");
    let with = |at: usize, value: i32| {
        let mut changed = good.clone();
        changed[at..at + 4].copy_from_slice(&value.to_le_bytes());
        changed
    };
    for (file, says) in [
        (with(4, -1), "not between"),
        (with(44, 1008), "version 1"),
        (with(48, 0), "not between"),
        (with(48, i32::MAX), "not between"),
        (with(48, 16_000), "truncated"),
        (b"lmgg".to_vec(), "truncated"),
        (b"fmgg\x01\0\0\0".to_vec(), "convert it to GGUF"),
        (b"tjgg\x01\0\0\0".to_vec(), "convert it to GGUF"),
    ] {
        refused_saying("a.bin", &file, says);
    }
    let name = b"encoder.conv1.weight";
    let at = good
        .windows(name.len())
        .position(|found| found == name)
        .unwrap();
    // Before the name: dimensions, its length, the type and three sizes.
    let tensor = at - 4 * 6;
    for (offset, value, says) in [
        (0, 5, "number of dimensions"),
        (0, -1, "number of dimensions"),
        (4, 0, "length of a name"),
        (8, 77, "type 77"),
        (8, 2, "cannot be Q4_0"),
        (12, 0, "`a size`"),
        (12, i32::MAX, "truncated"),
    ] {
        refused_saying("a.bin", &with(tensor + offset, value), says);
    }
}
