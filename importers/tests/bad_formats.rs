//! Files that are not what they claim, or mean harm: each is an error that names the file and the place, and
//! none is run, panics, hangs, or takes memory beyond a margin.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs;
use std::path::{Path, PathBuf};

use salamander_importers::{
    Checkpoint, Compression, Dtype, FormatError, WriteFormat, WriteOptions,
};
use tempfile::TempDir;

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/formats");
    fs::read(folder.join(name)).unwrap()
}

fn write(directory: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = directory.path().join(name);
    // Some file systems flush a file that is written over; a new one they do not.
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

/// The error of a file with these bytes, which must name the file.
#[track_caller]
fn refused(name: &str, bytes: &[u8]) -> String {
    let directory = TempDir::new().unwrap();
    let path = write(&directory, name, bytes);
    let error = read(&path).unwrap_err().to_string();
    assert!(error.contains(name), "{error}");
    assert!(error.len() < 2_000, "an error of {} bytes", error.len());
    error
}

#[track_caller]
fn refused_saying(name: &str, bytes: &[u8], says: &[&str]) {
    let error = refused(name, bytes);
    for says in says {
        assert!(error.contains(says), "{error}\ndoes not say {says}");
    }
}

/// Every shorter file is refused.
fn truncations(name: &str, bytes: &[u8]) {
    let directory = TempDir::new().unwrap();
    for length in 0..bytes.len() {
        let path = write(&directory, name, &bytes[..length]);
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
    println!("{name}: {} truncated files refused", bytes.len());
}

/// Every file with one byte changed is read or refused; what must not happen is a panic or a hang.
fn flips(name: &str, bytes: &[u8]) {
    let directory = TempDir::new().unwrap();
    let begun = std::time::Instant::now();
    let mut tried = 0;
    for at in 0..bytes.len() {
        // Padding, of which there is much, is of one kind.
        if bytes[at] == 0 && at % 16 != 0 && bytes[at - 1] == 0 && bytes.get(at + 1) == Some(&0) {
            continue;
        }
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

// Zip archives, made by hand so that they can lie.

struct Zipped {
    name: String,
    method: u16,
    flags: u16,
    size: u32,
    data: Vec<u8>,
}

fn stored(name: &str, data: &[u8]) -> Zipped {
    Zipped {
        name: name.to_owned(),
        method: 0,
        flags: 0,
        size: u32::try_from(data.len()).unwrap(),
        data: data.to_vec(),
    }
}

/// Zeros, deflated; `claimed` is the size that the directory gives.
fn bomb(name: &str, matches: usize, claimed: u32) -> Zipped {
    // A final block of fixed codes: a zero, then matches of 258 bytes at distance 1, then its end.
    let mut bits = vec![1_u8, 1, 0];
    bits.extend([0, 0, 1, 1, 0, 0, 0, 0]);
    for _ in 0..matches {
        bits.extend([1, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0]);
    }
    bits.extend([0; 7]);
    let byte = |bits: &[u8]| bits.iter().rev().fold(0, |byte, bit| byte << 1 | bit);
    Zipped {
        name: name.to_owned(),
        method: 8,
        flags: 0,
        size: claimed,
        data: bits.chunks(8).map(byte).collect(),
    }
}

/// The archive, and where the data of each member begins.
fn zip(members: &[Zipped]) -> (Vec<u8>, Vec<usize>) {
    let mut file = Vec::new();
    let mut directory = Vec::new();
    let mut begins = Vec::new();
    for member in members {
        let crc = 0_u32.to_le_bytes();
        let stored = u32::try_from(member.data.len()).unwrap().to_le_bytes();
        let size = member.size.to_le_bytes();
        let length = u16::try_from(member.name.len()).unwrap().to_le_bytes();
        let (flags, method) = (member.flags.to_le_bytes(), member.method.to_le_bytes());
        let offset = u32::try_from(file.len()).unwrap().to_le_bytes();
        let common = [
            &[20, 0][..],
            &flags,
            &method,
            &[0; 4],
            &crc,
            &stored,
            &size,
            &length,
            &[0; 2],
        ]
        .concat();
        directory.extend(
            [
                b"PK\x01\x02\x14\x00",
                &common[..],
                &[0; 10],
                &offset,
                member.name.as_bytes(),
            ]
            .concat(),
        );
        file.extend([b"PK\x03\x04", &common[..], member.name.as_bytes()].concat());
        begins.push(file.len());
        file.extend(&member.data);
    }
    let count = u16::try_from(members.len()).unwrap().to_le_bytes();
    let size = u32::try_from(directory.len()).unwrap().to_le_bytes();
    let offset = u32::try_from(file.len()).unwrap().to_le_bytes();
    file.extend(directory);
    file.extend(
        [
            b"PK\x05\x06\0\0\0\0",
            &count[..],
            &count,
            &size,
            &offset,
            &[0; 2],
        ]
        .concat(),
    );
    (file, begins)
}

/// A PyTorch archive with that pickle and one storage of eight floats.
fn archive(pickle: &[u8]) -> Vec<u8> {
    zip(&[stored("a/data.pkl", pickle), stored("a/data/0", &[0; 32])]).0
}

// Pickles, likewise.

fn text(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap().to_le_bytes();
    [b"X", &length[..], text.as_bytes()].concat()
}

fn int(value: i64) -> Vec<u8> {
    [b"\x8a\x08", &value.to_le_bytes()[..]].concat()
}

fn ints(values: &[i64]) -> Vec<u8> {
    [
        b"(".to_vec(),
        values.iter().flat_map(|value| int(*value)).collect(),
        b"t".to_vec(),
    ]
    .concat()
}

/// The opcodes that leave a tensor of floats on the stack.
fn tensor(key: &str, length: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        text("storage"),
        b"ctorch\nFloatStorage\n".to_vec(),
        text(key),
        text("cpu"),
        int(length),
        b"tQ".to_vec(),
        int(offset),
        ints(shape),
        ints(strides),
        b"\x89ccollections\nOrderedDict\n)RtR".to_vec(),
    ]
    .concat()
}

/// A state dictionary of one tensor.
fn state(tensor: &[u8]) -> Vec<u8> {
    [b"\x80\x02}", &text("w")[..], tensor, b"s."].concat()
}

#[test]
fn other_savers_of_pytorch_are_called_by_their_names() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.pt2");
    let mut archive = zip::ZipWriter::new(fs::File::create(&path).unwrap());
    let options = zip::write::SimpleFileOptions::default();
    for (name, content) in [("x/archive_format", "pt2"), ("x/models/model.json", "{}")] {
        archive.start_file(name, options).unwrap();
        std::io::Write::write_all(&mut archive, content.as_bytes()).unwrap();
    }
    archive.finish().unwrap();
    let error = Checkpoint::open(&path).unwrap_err().to_string();
    assert!(error.contains("torch.export"), "{error}");

    let directory = tempfile::tempdir().unwrap();
    for name in [".metadata", "__0_0.distcp", "__1_0.distcp"] {
        fs::write(directory.path().join(name), "x").unwrap();
    }
    let error = Checkpoint::open(directory.path()).unwrap_err().to_string();
    assert!(error.contains("dcp_to_torch"), "{error}");
}

#[test]
fn the_handmade_archive_is_read() {
    let directory = TempDir::new().unwrap();
    for (shape, strides) in [
        (&[2, 4][..], &[4, 1][..]),
        (&[4, 2], &[1, 4]),
        (&[8, 3], &[1, 0]),
        (&[], &[]),
    ] {
        let bytes = archive(&state(&tensor("0", 8, 0, shape, strides)));
        assert_eq!(read(&write(&directory, "a.pt", &bytes)).unwrap(), 1);
    }
}

#[test]
fn truncated_pytorch_files_are_refused() {
    truncations("a.pt", &fixture("pytorch/list.pt"));
    truncations("b.pt", &fixture("pytorch/legacy_protocol4.pt"));
    let tar = fixture("pytorch/tar.pt");
    // What ends a tar archive is padding.
    let end = tar.iter().rposition(|byte| *byte != 0).unwrap();
    truncations("c.pt", &tar[..=end]);
}

#[test]
fn changed_pytorch_files_are_read_or_refused() {
    flips("a.pt", &fixture("pytorch/list.pt"));
    flips("b.pt", &fixture("pytorch/legacy_protocol4.pt"));
    flips("c.pt", &fixture("pytorch/tar.pt"));
    flips("d.pt", &fixture("pytorch/deflated.pt"));
}

#[test]
fn pickles_that_name_code_are_refused_by_that_name() {
    let call = |module: &str, name: &str| {
        [
            b"\x80\x02c",
            module.as_bytes(),
            b"\n",
            name.as_bytes(),
            b"\n",
            &text("true")[..],
            b"\x85R.",
        ]
        .concat()
    };
    for (module, name) in [
        ("os", "system"),
        ("posix", "system"),
        ("nt", "system"),
        ("subprocess", "Popen"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "getattr"),
        ("builtins", "__import__"),
        ("__builtin__", "eval"),
        ("operator", "attrgetter"),
        ("functools", "reduce"),
        ("torch", "load"),
        ("torch.hub", "load"),
        ("torch", "FloatStorage.__init__"),
        ("pickle", "loads"),
        ("runpy", "_run_code"),
        ("webbrowser", "open"),
        ("numpy.f2py.crackfortran", "getlincoef"),
        ("os\u{0}", "system"),
        ("collections", "__builtins__"),
    ] {
        let shown: String = format!("`{module}.{name}`")
            .chars()
            .flat_map(char::escape_debug)
            .collect();
        let pickle = call(module, name);
        let (bytes, begins) = zip(&[stored("a/data.pkl", &pickle)]);
        refused_saying(
            "a.pt",
            &bytes,
            &[&shown, &format!("at byte {}", begins[0] + 2), "not run"],
        );
        // The same in the place of the legacy container's first pickle, and in a wrapper's unused corner.
        refused_saying("a.bin", &pickle, &[&shown]);
        let mut hidden = b"\x80\x02}".to_vec();
        hidden.extend(text("model"));
        hidden.extend(b"}s");
        hidden.extend(text("unused"));
        hidden.extend(&pickle[2..pickle.len() - 1]);
        hidden.extend(b"s.");
        refused_saying("a.pt", &archive(&hidden), &[&shown]);
    }
}

#[test]
fn other_ways_to_code_are_refused() {
    let protocol4 = |rest: &[u8]| archive(&[b"\x80\x04", rest].concat());
    // Names from the stack, from the memo, and from Python 2's strings.
    refused_saying(
        "a.pt",
        &protocol4(b"\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R."),
        &["`os.system`", "at byte"],
    );
    let memo = b"\x8c\x06system\x94\x8c\x02os\x94\x30\x30h\x01h\x00\x93)R.";
    refused_saying("a.pt", &protocol4(memo), &["`os.system`"]);
    refused_saying(
        "a.pt",
        &protocol4(b"U\x02osU\x06system\x93)R."),
        &["`os.system`"],
    );
    refused_saying("a.pt", &protocol4(b"K\x01K\x02\x93."), &["no text"]);
    // Instances of protocol 0 and 1.
    refused_saying(
        "a.pt",
        &protocol4(b"(X\x04\0\0\0trueios\nsystem\n."),
        &["`os.system`"],
    );
    refused_saying(
        "a.pt",
        &protocol4(b"(cos\nsystem\nX\x04\0\0\0trueo."),
        &["`os.system`"],
    );
    // Extension codes, persistent ids, buffers, calls of what is no function.
    refused_saying("a.pt", &protocol4(b"\x82\x07)R."), &["extension code 7"]);
    refused_saying(
        "a.pt",
        &protocol4(b"\x83\x07\x01)R."),
        &["extension code 263"],
    );
    refused_saying(
        "a.pt",
        &protocol4(b"\x84\x07\0\0\x01)R."),
        &["extension code 16777223"],
    );
    refused_saying("a.pt", &protocol4(b"K\x01Q."), &["persistent id"]);
    refused_saying("a.pt", &protocol4(b"Pos.system\n."), &["persistent id"]);
    refused_saying("a.pt", &protocol4(b"\x97."), &["buffer"]);
    refused_saying("a.pt", &protocol4(b"K\x01)R."), &["calls 1"]);
    // A type's rebuilding that would wrap another call.
    let wrapped = b"ctorch._tensor\n_rebuild_from_type_v2\n(ccollections\nOrderedDict\nctorch\nTensor\n)Nt\x52.";
    refused_saying("a.pt", &protocol4(wrapped), &["_rebuild_from_type_v2"]);
    refused_saying(
        "a.pt",
        &protocol4(b"\x8c\x01ac_codecs\nencode\n\x8c\x01a\x8c\x05rot13\x86R."),
        &["_codecs.encode"],
    );
    refused_saying("a.pt", &archive(b"\x80\x06N."), &["protocol 6"]);
    refused_saying("a.pt", &archive(b"\xff"), &["0xff"]);
    // The stack.
    for pickle in [
        &b"."[..],
        b"0",
        b"a.",
        b"]a.",
        b"(.",
        b"(t",
        b"u.",
        b"R.",
        b"\x85.",
        b"(\x85.",
        b"h\x00.",
        b"K\x01}b.",
        b"(K\x01d.",
    ] {
        refused("a.pt", &protocol4(pickle));
    }
}

#[test]
fn nesting_and_cycles_end() {
    let pickle = |parts: &[&[u8]]| archive(&parts.concat());
    let w = tensor("0", 8, 0, &[8], &[1]);
    let many = 1 << 20;
    for (open, close) in [
        (&b"]"[..], &b"a"[..]),
        (b"", b"\x85"),
        (b"}K\x00", b"s"),
        (b"(", b"t"),
    ] {
        let bytes = pickle(&[&open.repeat(many), &w, &close.repeat(many), b"."]);
        refused_saying("a.pt", &bytes, &["deep"]);
    }
    refused("a.pt", &pickle(&[&b"(".repeat(many), b"."]));
    // A list in itself, a dictionary in itself beside a tensor, two that hold each other.
    refused_saying("a.pt", &pickle(&[b"]q\x00h\x00a."]), &["itself"]);
    refused_saying(
        "a.pt",
        &pickle(&[b"}q\x00", &text("a"), &w, b"s", &text("b"), b"h\x00s."]),
        &["itself"],
    );
    refused_saying(
        "a.pt",
        &pickle(&[b"]q\x00]q\x01h\x00a", &w, b"ah\x01a."]),
        &["itself"],
    );
    // Each doubles the one before.
    let mut laughs = w.clone();
    for _ in 0..40 {
        laughs.extend(b"q\x01h\x01\x86");
    }
    refused_saying("a.pt", &pickle(&[&laughs, b"."]), &["beyond all measure"]);
    let mut names = [
        b"}".to_vec(),
        text(&"k".repeat(1 << 16)),
        w.clone(),
        b"s".to_vec(),
    ]
    .concat();
    for _ in 0..40 {
        names = [&b"}"[..], &text(&"k".repeat(1 << 16)), &names, b"s"].concat();
    }
    refused("a.pt", &pickle(&[&names, b"2\x86."]));
    refused_saying("a.pt", &archive(&b"N".repeat(5 << 20)), &["opcodes"]);
}

#[test]
fn tensors_beyond_their_storage_are_refused() {
    for (key, length, offset, shape, strides) in [
        ("1", 8, 0, &[8][..], &[1][..]),
        ("../../0", 8, 0, &[8], &[1]),
        ("0", 9, 0, &[8], &[1]),
        ("0", i64::MAX, 0, &[8], &[1]),
        ("0", -1, 0, &[8], &[1]),
        ("0", 8, 1, &[8], &[1]),
        ("0", 8, -1, &[8], &[1]),
        ("0", 8, i64::MAX, &[8], &[1]),
        ("0", 8, 0, &[9], &[1]),
        ("0", 8, 0, &[2, 2], &[7, 2]),
        ("0", 8, 0, &[2], &[-1]),
        ("0", 8, 0, &[-1], &[1]),
        ("0", 8, 0, &[8], &[1, 1]),
        ("0", 8, 0, &[i64::MAX], &[1]),
        ("0", 8, 0, &[i64::MAX, i64::MAX], &[0, 0]),
        ("0", 8, 0, &[i64::MAX, 2, 0], &[1, 1, 1]),
        ("0", 8, 0, &[1 << 40], &[0]),
        ("0", 8, 0, &[2], &[i64::MAX]),
        ("0", 8, 0, &[1; 65], &[1; 65]),
    ] {
        refused(
            "a.pt",
            &archive(&state(&tensor(key, length, offset, shape, strides))),
        );
    }
    // 2^63 itself is no 64-bit integer.
    let mut bytes = state(&tensor("0", 8, 0, &[1], &[1]));
    let at = bytes.windows(2).position(|pair| pair == b"(\x8a").unwrap();
    bytes.splice(at + 1..at + 11, *b"\x8a\x09\0\0\0\0\0\0\0\x80\0");
    refused("a.pt", &archive(&bytes));
}

#[test]
fn archives_that_play_tricks_are_refused() {
    let good = state(&tensor("0", 8, 0, &[8], &[1]));
    let pickle = || stored("a/data.pkl", &good);
    let data = || stored("a/data/0", &[0; 32]);
    let says = |members: &[Zipped], says: &[&str]| refused_saying("a.pt", &zip(members).0, says);
    says(&[], &["no `data.pkl`"]);
    says(&[data()], &["no `data.pkl`"]);
    says(&[pickle(), data(), pickle()], &["twice"]);
    says(
        &[pickle(), data(), stored("b/data.pkl", &good)],
        &["a/data.pkl", "b/data.pkl"],
    );
    says(
        &[
            Zipped {
                flags: 1,
                ..pickle()
            },
            data(),
        ],
        &["encrypted"],
    );
    says(
        &[
            Zipped {
                method: 99,
                ..pickle()
            },
            data(),
        ],
        &["method 99"],
    );
    says(
        &[
            Zipped {
                size: 5,
                ..pickle()
            },
            data(),
        ],
        &["two sizes"],
    );
    says(
        &[pickle(), data(), stored("a/byteorder", b"middle")],
        &["middle"],
    );
    says(
        &[
            Zipped {
                method: 8,
                ..pickle()
            },
            data(),
        ],
        &["inflated"],
    );
    // The directory says another name than the member itself.
    let (mut bytes, begins) = zip(&[pickle(), data()]);
    bytes[begins[1] - 1] = b'1';
    refused_saying("a.pt", &bytes, &["`a/data/0`", "header"]);
    // A member inside another one, which scanners see and readers do not.
    let (inner, _) = zip(&[stored("a/data/0", &[0; 32])]);
    let (mut bytes, begins) = zip(&[stored("a/data.pkl", &inner), data()]);
    let pointer = bytes.len() - 22 - 8 - 4;
    bytes[pointer..pointer + 4].copy_from_slice(&u32::try_from(begins[0]).unwrap().to_le_bytes());
    refused_saying("a.pt", &bytes, &["begins inside"]);
    // Bombs: one that says so, one that does not.
    says(
        &[bomb("a/data.pkl", 5 << 20, 1_353_000_961)],
        &["claims to inflate"],
    );
    says(
        &[bomb("a/data.pkl", 1 << 20, 100)],
        &["more than the 100 bytes"],
    );
    says(
        &[bomb("a/data.pkl", 10, 3000)],
        &["fewer than the 3000 bytes"],
    );
    // What is not there.
    for (at, value) in [
        (12, u32::MAX),
        (16, u32::MAX),
        (12, 0),
        (16, 0),
        (10, 0xffff),
    ] {
        let (mut bytes, _) = zip(&[pickle(), data()]);
        let field = bytes.len() - 22 + at;
        bytes[field..field + 4].copy_from_slice(&value.to_le_bytes());
        refused("a.pt", &bytes);
    }
}

#[test]
fn what_is_no_weight_file_at_all_is_named() {
    for (bytes, says) in [
        (&b"Not Found"[..], "plain text that begins `Not Found`"),
        (
            b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>",
            "error in XML (`AccessDenied`)",
        ),
        (
            b"{\"error\": \"Repository not found\"}",
            "Repository not found",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 438\n",
            "to one of 438 bytes",
        ),
        (b"\x01\x02\xff", "neither as a zip archive"),
        (b"", "an empty file"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "git lfs pull",
        ),
        (b"<!DOCTYPE html>", "web page"),
        (b"7z\xbc\xaf\x27\x1c\0\0\0", "7z"),
        (b"\x1f\x8b\x08\0\0\0\0", "gzip"),
        (b"\x80\x02K\x01.", "nor one with tensors"),
    ] {
        refused_saying("a.pt", bytes, &[says]);
    }
}

// GGUF, made by hand.

/// A file of version 3: its keys (already encoded), tensors as name, shape, type and offset, and data.
fn gguf(keys: &[Vec<u8>], tensors: &[(&str, &[u64], u32, u64)], data: usize) -> Vec<u8> {
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend((keys.len() as u64).to_le_bytes());
    file.extend(keys.concat());
    for (name, shape, kind, offset) in tensors {
        file.extend(long_text(name));
        file.extend(u32::try_from(shape.len()).unwrap().to_le_bytes());
        file.extend(shape.iter().flat_map(|size| size.to_le_bytes()));
        file.extend(kind.to_le_bytes());
        file.extend(offset.to_le_bytes());
    }
    file.resize(file.len().next_multiple_of(32), 0);
    file.resize(file.len() + data, 0);
    file
}

fn long_text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

fn key(name: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&long_text(name)[..], &kind.to_le_bytes(), value].concat()
}

#[test]
fn truncated_and_changed_gguf_files_are_refused() {
    let aligned = fixture("gguf/aligned.gguf");
    // The last tensor's four bytes are followed by padding.
    truncations("a.gguf", &aligned[..aligned.len() - 124]);
    flips("a.gguf", &aligned);
    let types = fixture("gguf/types.gguf");
    flips("b.gguf", &types[..2600]);
    flips("c.gguf", &fixture("gguf/v1.gguf"));
    flips("d.gguf", &fixture("gguf/big_endian.gguf"));
}

#[test]
fn gguf_files_that_lie_are_refused() {
    let max = u64::MAX;
    let array = |kind: u32, count: u64, rest: &[u8]| {
        [&kind.to_le_bytes()[..], &count.to_le_bytes(), rest].concat()
    };
    let nested = array(9, 1, &[]).repeat(1000);
    for (bytes, says) in [
        (gguf(&[], &[("w", &[4], 0, 32)], 32), "reaches beyond"),
        (gguf(&[], &[("w", &[9], 0, 0)], 32), "reaches beyond"),
        (gguf(&[], &[("w", &[4], 0, max - 31)], 32), "reaches beyond"),
        (
            gguf(&[], &[("w", &[1 << 63], 0, 0)], 32),
            "larger than any file",
        ),
        (gguf(&[], &[("w", &[1 << 62], 0, 0)], 32), "reaches beyond"),
        (
            gguf(&[], &[("w", &[0, 1 << 63], 0, 0)], 32),
            "larger than any file",
        ),
        (
            gguf(&[], &[("w", &[max, max], 0, 0)], 32),
            "larger than any file",
        ),
        (gguf(&[], &[("w", &[33], 2, 0)], 64), "blocks of 32 (Q4_0)"),
        (gguf(&[], &[("w", &[4], 999, 0)], 32), "type 999"),
        (gguf(&[], &[("w", &[4], 5, 0)], 32), "type 5"),
        (gguf(&[], &[("w", &[4], 0, 8)], 32), "multiple of 32"),
        (gguf(&[], &[("w", &[1; 9], 0, 0)], 32), "9 dimensions"),
        (
            gguf(&[], &[("w", &[4], 0, 0), ("w", &[4], 0, 32)], 64),
            "twice",
        ),
        (
            gguf(&[], &[("v", &[16], 0, 0), ("w", &[4], 0, 32)], 64),
            "`w` begins inside tensor `v`",
        ),
        (
            gguf(&[key("a", 4, &[0; 4]), key("a", 4, &[0; 4])], &[], 0),
            "twice",
        ),
        (gguf(&[key("a", 13, &[])], &[], 0), "type 13"),
        (
            gguf(&[key("general.alignment", 4, &[3, 0, 0, 0])], &[], 0),
            "power of two",
        ),
        (
            gguf(&[key("general.alignment", 4, &[0; 4])], &[], 0),
            "power of two",
        ),
        (
            gguf(&[key("a", 8, &max.to_le_bytes())], &[], 0),
            "truncated",
        ),
        (
            gguf(&[key("a", 9, &array(4, max, &[]))], &[], 0),
            "truncated",
        ),
        (
            gguf(&[key("a", 9, &array(9, max, &[]))], &[], 0),
            "truncated",
        ),
        (gguf(&[key("a", 9, &nested)], &[], 0), "type 9"),
        (
            gguf(&[key("split.count", 2, &[2, 0])], &[], 0),
            "one of 2 parts",
        ),
        (b"GGUF\x04\0\0\0".repeat(9), "version 4"),
        (
            [&b"GGUF\x03\0\0\0"[..], &max.to_le_bytes(), &[0; 8]].concat(),
            "18446744073709551615",
        ),
        (b"GGUF".to_vec(), "truncated"),
        (b"GGML".to_vec(), "does not begin"),
    ] {
        refused_saying("a.gguf", &bytes, &[says]);
    }
}

// NumPy, made by hand.

/// An array of version 1 with that header and data.
fn npy(header: &str, data: usize) -> Vec<u8> {
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    [
        b"\x93NUMPY\x01\0",
        &length[..],
        header.as_bytes(),
        &vec![0; data],
    ]
    .concat()
}

#[test]
fn truncated_and_changed_numpy_files_are_refused() {
    truncations("a.npy", &fixture("numpy/v1.npy"));
    truncations("b.npz", &fixture("numpy/others.npz"));
    flips("a.npy", &fixture("numpy/v1.npy"));
    flips("b.npy", &fixture("numpy/v3.npy"));
    flips("c.npz", &fixture("numpy/others.npz"));
    flips("d.npz", &fixture("numpy/deflated.npz"));
}

#[test]
fn numpy_files_that_lie_are_refused() {
    let descr = |descr: &str, shape: &str| {
        npy(
            &format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"),
            16,
        )
    };
    let shape = |shape: &str| descr("'<f4'", shape);
    assert_eq!(
        read(&write(&TempDir::new().unwrap(), "a.npy", &shape("(4,)"))).ok(),
        Some(1)
    );
    for (bytes, says) in [
        (shape("(5,)"), "takes 20 bytes, 16 follow"),
        (shape("(3,)"), "takes 12 bytes, 16 follow"),
        (shape("(9223372036854775808,)"), "larger than any file"),
        (shape("(4611686018427387904,)"), "larger than any file"),
        (shape("(18446744073709551616,)"), "no literal"),
        (shape("(4294967296, 4294967296)"), "larger than any file"),
        (shape("(0, 9223372036854775808)"), "larger than any file"),
        (shape("(-4,)"), "no literal"),
        (shape("4"), "no tuple"),
        (shape("('4',)"), "no number"),
        (shape("(4 5)"), "comma"),
        (shape(&format!("({})", "1,".repeat(65))), "65 dimensions"),
        (shape(&format!("({}", "(".repeat(5000))), "nested"),
        (shape("__import__('os').system('true')"), "no literal"),
        (descr("'|O'", "(2,)"), "Python objects"),
        (descr("'<f3'", "(4,)"), "takes 12 bytes"),
        (descr("'q'", "(4,)"), "`q`"),
        (descr("''", "(4,)"), "type ``"),
        (descr("4", "(4,)"), "neither a text nor a list"),
        (npy("[]", 0), "no dictionary"),
        (npy("{}", 0), "no `descr`"),
        (
            npy("{'descr': '<f4', 'fortran_order': 1, 'shape': ()}", 4),
            "neither True nor False",
        ),
        (npy("{} {}", 0), "follows"),
        (npy("{1: 2}", 0), "no text"),
        (npy("{'a' 2}", 0), "no value"),
        (npy("{'a", 0), "does not end"),
        (b"\x93NUMPY\x04\0\x02\0{}".to_vec(), "version 4"),
        (b"\x93NUMPY\x02\0\xff\xff\xff\xff{}".to_vec(), "truncated"),
    ] {
        refused_saying("a.npy", &bytes, &[says]);
    }
    let good = shape("(4,)");
    let bytes = zip(&[stored("w.npy", &good)]).0;
    refused_saying("a.npz", &bytes, &["checksum of `w.npy`"]);
    let bytes = zip(&[stored("w.npy", &good), stored("run.py", b"")]).0;
    refused_saying("a.npz", &bytes, &["`run.py`"]);
    let bytes = zip(&[stored("w.npy", &good), stored("w.npy", &good)]).0;
    refused_saying("a.npz", &bytes, &["twice"]);
    let bytes = zip(&[bomb("w.npy", 5 << 20, 1_353_000_961)]).0;
    refused_saying("a.npz", &bytes, &["does not begin"]);
}

/// The most memory that this process has had, on Linux.
fn peak() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    line.split_whitespace()
        .nth(1)?
        .parse::<usize>()
        .ok()
        .map(|kilobytes| kilobytes << 10)
}

#[test]
fn memory_stays_within_the_margin() {
    let w = tensor("0", 8, 0, &[8], &[1]);
    // Opcodes that make the most of a byte, tensors made from the memo, texts decoded again and again.
    let many = 4 << 20;
    let expanded = state(&tensor("0", 8, 0, &[15 << 20], &[0]));
    let mut rebuilt = w[..w.len() - 1].to_vec();
    rebuilt.splice(0..0, *b"ctorch._utils\n_rebuild_tensor_v2\nq\x00");
    rebuilt.extend(b"q\x01");
    rebuilt.extend(b"h\x00h\x01R".repeat(1 << 20));
    let mut encoded = [
        b"c_codecs\nencode\nq\x00",
        &text(&"e".repeat(1 << 20))[..],
        &text("latin1"),
        b"\x86q\x01",
    ]
    .concat();
    encoded.extend(b"h\x00h\x01R".repeat(1 << 16));
    let mut pairs = [
        b"]q\x01(",
        &b"K\x00K\x00\x86".repeat(1 << 16)[..],
        b"eccollections\nOrderedDict\nq\x000h\x01\x85q\x01",
    ]
    .concat();
    pairs.extend(b"h\x00h\x01R".repeat(1 << 16));
    for bytes in [
        archive(&b"]".repeat(many)),
        archive(&b"}".repeat(many)),
        archive(&b"\x8c\0".repeat(many)),
        archive(&expanded),
        archive(&rebuilt),
        archive(&encoded),
        archive(&pairs),
        zip(&[bomb("a/data.pkl", 5 << 20, 1_353_000_961)]).0,
    ] {
        let directory = TempDir::new().unwrap();
        let _ = read(&write(&directory, "a.pt", &bytes));
    }
    let flags = [
        &7_u32.to_le_bytes()[..],
        &(8_u64 << 20).to_le_bytes(),
        &vec![0; 8 << 20],
    ]
    .concat();
    let bytes = gguf(&[key("a", 9, &flags), key("b", 9, &flags)], &[], 0);
    let directory = TempDir::new().unwrap();
    let error = read(&write(&directory, "a.gguf", &bytes))
        .unwrap_err()
        .to_string();
    assert!(error.contains("metadata is larger"), "{error}");
    match peak() {
        None => println!("skipped: no figure of the peak memory on this machine"),
        // All tests of this file run at once, with the files that they write in memory.
        Some(peak) => {
            println!("peak memory {} MiB", peak >> 20);
            assert!(peak < 2 << 30, "peak memory {} MiB", peak >> 20);
        }
    }
}

/// A file of a small state, written in a format.
fn written(format: WriteFormat, compression: Option<Compression>) -> (String, Vec<u8>) {
    let directory = TempDir::new().unwrap();
    let source = write(&directory, "source.npz", &fixture("numpy/stored.npz"));
    let source = Checkpoint::open(source).unwrap();
    let entries = source.iter().filter_map(|(name, entry)| {
        let small = entry.elements() < 50 && entry.dtype.is_float();
        let cast = small.then(|| entry.cast(&Dtype::F32))??;
        let data = cast.read().ok()?;
        let finite = data.as_slice::<f32>().ok()?.iter().all(|x| x.is_finite());
        finite.then(|| (name.to_owned(), cast))
    });
    let small = source.with_entries(entries.collect::<Vec<_>>());
    assert!(!small.is_empty());
    let name = format.usual_name(compression);
    let path = directory.path().join(&name);
    let options = WriteOptions {
        compression,
        ..WriteOptions::default()
    };
    salamander_importers::write(&small, &path, format, &options, &|_, _| {}).unwrap();
    (name, fs::read(path).unwrap())
}

#[test]
fn changed_texts_and_records_are_read_or_refused() {
    for (format, compression) in [
        (WriteFormat::Json, None),
        (WriteFormat::Json, Some(Compression::Gzip)),
        (WriteFormat::Json, Some(Compression::Zstd)),
        (WriteFormat::JsonModel, None),
        (WriteFormat::YamlModel, None),
        (WriteFormat::Burnpack, None),
    ] {
        let (name, bytes) = written(format, compression);
        flips(&name, &bytes);
        // A text may lack its last line's end, and a record or a YAML list its last entries unseen.
        let directory = TempDir::new().unwrap();
        for length in 0..bytes.len() {
            let path = write(&directory, &name, &bytes[..length]);
            let _ = read(&path);
        }
    }
    let (name, bytes) = written(WriteFormat::Json, None);
    truncations(&name, bytes.trim_ascii_end());
}

#[test]
fn texts_that_lie_are_refused() {
    for (text, says) in [
        (r#"{"a": 1}"#, "neither `tensors`"),
        (r#"{"version": "2.0", "tensors": {}}"#, "\"1.0\" is known"),
        (
            r#"{"tensors": {"w": {"shape": [2], "dtype": "f32", "data": "AAAA"}}}"#,
            "does not take the 3 bytes",
        ),
        (
            r#"{"tensors": {"w": {"shape": [], "dtype": "f32", "data": "AAA"}}}"#,
            "does not take",
        ),
        (
            r#"{"tensors": {"w": {"shape": [1], "dtype": "f32", "data": "!!!!AA=="}}}"#,
            "no base64",
        ),
        (
            r#"{"tensors": {"w": {"shape": [1], "dtype": "q9", "data": ""}}}"#,
            "`q9` is not known",
        ),
        (
            r#"{"tensors": {"w": {"shape": [4294967296, 4294967296, 4294967296], "dtype": "u8", "data": ""}}}"#,
            "does not take",
        ),
        (
            r#"{"tensors": {"w": {"shape": [0], "dtype": "u8", "data": ""}, "w": {"shape": [0], "dtype": "u8", "data": ""}}}"#,
            "there twice",
        ),
        (
            r#"{"parameters": [{"name": "w", "shape": [3]}], "data": [1, 2]}"#,
            "reaches beyond the 2 numbers",
        ),
        (
            r#"{"parameters": [{"name": "w", "shape": [1]}], "data": [1, 2]}"#,
            "take 1 of the 2 numbers",
        ),
        (
            r#"{"parameters": [{"name": "w", "shape": [1], "dtype": "i8"}], "data": [1]}"#,
            "f32 is known",
        ),
    ] {
        refused_saying("model.json", text.as_bytes(), &[says]);
    }
    let deep = format!("{}{}", "{\"tensors\":".repeat(10_000), "}".repeat(10_000));
    refused("model.json", deep.as_bytes());
    let dimensions = format!(
        "{{\"tensors\": {{\"w\": {{\"shape\": [{}1]}}}}}}",
        "1,".repeat(100_000)
    );
    refused_saying(
        "model.json",
        dimensions.as_bytes(),
        &["more than 64 dimensions"],
    );
    refused(
        "model.yaml",
        format!("a: {}", "[".repeat(100_000)).as_bytes(),
    );
    // Ten times ten times ten … of the same list.
    let mut laughs = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n".to_owned();
    for level in 1..9 {
        let item = format!("*a{},", level - 1).repeat(10);
        laughs.push_str(&format!("a{level}: &a{level} [{item}]\n"));
    }
    refused("model.yaml", laughs.as_bytes());
    let blanks = vec![b' '; 1 << 20];
    let mut stream = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..300 {
        std::io::Write::write_all(&mut stream, &blanks).unwrap();
    }
    refused_saying(
        "model.json.gz",
        &stream.finish().unwrap(),
        &["inflate to more than"],
    );
}
