//! What is written is read back to the bit, and is what the reference libraries make of the same numbers.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use burn::tensor::TensorData;
use salamander_importers::{
    Block, Checkpoint, Compression, Dtype, Entry, Float8, WriteFormat, WriteOptions, difference,
    gguf, safetensors, scan, write,
};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures/formats")
        .join(name)
}

fn quiet(_: &str, _: usize) {}

/// All tensors in types that a format holds, as converting does it; GGUF has nothing for `u64`.
fn held(checkpoint: &Checkpoint, format: WriteFormat) -> Checkpoint {
    let entries = checkpoint.iter().filter_map(|(name, entry)| {
        let own = Some(entry.dtype.clone()).filter(|dtype| format.holds(dtype));
        let dtype = own.or_else(|| format.substitute(&entry.dtype));
        if dtype.is_none() {
            assert_eq!((format, &entry.dtype), (WriteFormat::Gguf, &Dtype::U64));
        }
        Some((name.to_owned(), entry.cast(&dtype?).unwrap()))
    });
    checkpoint.with_entries(entries.collect::<Vec<_>>())
}

/// One tensor of every type but those that are listed only.
fn every_type() -> Checkpoint {
    let all = Checkpoint::open(fixture("pytorch/dtypes.pt")).unwrap();
    let readable = |entry: &Entry| entry.dtype.to_burn().is_some();
    let entries = all.iter().filter(|(_, entry)| readable(entry));
    let entries: Vec<_> = entries
        .map(|(name, entry)| (name.to_owned(), entry.clone()))
        .collect();
    all.with_entries(entries)
}

fn with_metadata(mut checkpoint: Checkpoint) -> Checkpoint {
    checkpoint.metadata = BTreeMap::from([
        ("license".to_owned(), "MIT".to_owned()),
        ("quoted \"key\"".to_owned(), "line\nbreak: [x] ü".to_owned()),
    ]);
    checkpoint
}

/// The tensors whose values are all finite.
fn finite(checkpoint: &Checkpoint) -> Checkpoint {
    let finite = checkpoint.iter().filter(|(_, entry)| {
        let data = entry.read().unwrap();
        let mut values = data.as_slice::<f32>().unwrap().iter();
        values.all(|value| value.is_finite())
    });
    let finite: Vec<_> = finite
        .map(|(name, entry)| (name.to_owned(), entry.clone()))
        .collect();
    assert!(finite.len() > 5);
    checkpoint.with_entries(finite)
}

#[track_caller]
fn same(written: &Checkpoint, source: &Checkpoint) {
    let names = |checkpoint: &Checkpoint| {
        let mut names: Vec<String> = checkpoint.iter().map(|(name, _)| name.to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(names(written), names(source));
    for (name, entry) in source.iter() {
        let found = written.get(name).unwrap();
        assert_eq!(
            (&found.shape, &found.dtype),
            (&entry.shape, &entry.dtype),
            "{name}"
        );
        let found = difference((written, found), (source, entry)).unwrap();
        assert!(found.identical && found.largest == 0.0, "{name}: {found:?}");
    }
}

#[test]
fn every_format_gives_back_what_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let source = with_metadata(every_type());
    assert!(source.len() >= 15);
    for format in WriteFormat::ALL {
        let text = format.is_text();
        let mut held = held(&source, *format);
        if *format == WriteFormat::Npy {
            let (_, entry) = held.iter().next().unwrap();
            held = held.with_entries([("array".to_owned(), entry.clone())]);
        }
        if *format == WriteFormat::JsonModel {
            // It has no numbers that are not finite.
            held = finite(&held);
        }
        let compressions = if text {
            vec![None, Some(Compression::Gzip), Some(Compression::Zstd)]
        } else {
            vec![None]
        };
        for compression in compressions {
            for pretty in [false, true] {
                let path = folder.path().join(format.usual_name(compression));
                let options = WriteOptions {
                    compression,
                    pretty,
                    ..WriteOptions::default()
                };
                let count = RefCell::new(0);
                let wrote = |_: &str, _: usize| *count.borrow_mut() += 1;
                let files = write(&held, &path, *format, &options, &wrote).unwrap();
                let mut expected = vec![path.clone()];
                if *format == WriteFormat::TensorFlow {
                    expected.push(folder.path().join("model.ckpt.data-00000-of-00001"));
                }
                assert_eq!((files, count.into_inner()), (expected, held.len()));
                let written = Checkpoint::open(&path).unwrap();
                same(&written, &held);
                if !matches!(
                    format,
                    WriteFormat::Npz | WriteFormat::Npy | WriteFormat::TensorFlow
                ) {
                    for (key, value) in &source.metadata {
                        assert_eq!(&written.metadata[key], value, "{}", format.name());
                    }
                }
                assert!(!scan::scan(&path).unwrap().is_dangerous());
            }
        }
    }
    // Nothing but the files themselves is left.
    let left = fs::read_dir(folder.path()).unwrap();
    let left: Vec<_> = left.map(|item| item.unwrap().file_name()).collect();
    assert!(
        left.iter()
            .all(|name| !name.to_str().unwrap().starts_with('.')),
        "{left:?}"
    );
}

#[test]
fn a_set_is_sharded_above_a_size_under_an_index() {
    let source = with_metadata(every_type());
    for (format, index) in [
        (WriteFormat::Safetensors, "model.safetensors.index.json"),
        (WriteFormat::PyTorch, "pytorch_model.bin.index.json"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format.usual_name(None));
        let options = WriteOptions {
            shard_size: Some(60),
            ..WriteOptions::default()
        };
        let files = write(&source, &path, format, &options, &quiet).unwrap();
        assert!(files.len() > 4);
        assert_eq!(files[0], folder.path().join(index));
        assert!(!path.exists());
        let text = fs::read_to_string(&files[0]).unwrap();
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        let total: usize = source.iter().map(|(_, entry)| entry.bytes).sum();
        assert_eq!(parsed["metadata"]["total_size"], total);
        for directory in [files[0].clone(), folder.path().to_owned()] {
            let written = Checkpoint::open(directory).unwrap();
            same(&written, &source);
            assert_eq!(written.metadata["license"], "MIT");
        }
        for shard in &files[1..] {
            let shard = Checkpoint::open(shard).unwrap();
            let bytes: usize = shard.iter().map(|(_, entry)| entry.bytes).sum();
            assert!(bytes <= 60 || shard.len() == 1);
        }
    }
}

#[test]
fn a_failure_leaves_nothing_behind() {
    let source = every_type();
    let bad = Checkpoint::open(fixture("pytorch/dtypes.pt")).unwrap();
    // A boolean that is none, in a checkpoint that is fine otherwise.
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.safetensors");
    let header = br#"{"b":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.push(7);
    fs::write(&broken, bytes).unwrap();
    let broken = Checkpoint::open(&broken).unwrap();
    let mut entries: Vec<_> = source
        .iter()
        .map(|(n, e)| (n.to_owned(), e.clone()))
        .collect();
    let wrong = broken.get("b").unwrap().cast(&Dtype::I64).unwrap();
    entries.push(("zzz".to_owned(), wrong));
    let failing = bad.with_entries(entries);
    for format in [
        WriteFormat::Safetensors,
        WriteFormat::PyTorch,
        WriteFormat::Burnpack,
    ] {
        let target = tempfile::tempdir().unwrap();
        let path = target.path().join(format.usual_name(None));
        let options = WriteOptions {
            shard_size: Some(60),
            ..WriteOptions::default()
        };
        let failing = held(&failing, format);
        let error = write(&failing, &path, format, &options, &quiet).unwrap_err();
        assert!(error.to_string().contains("not a boolean"), "{error}");
        assert_eq!(
            fs::read_dir(target.path()).unwrap().count(),
            0,
            "{}",
            format.name()
        );
    }
}

#[test]
fn what_a_format_cannot_hold_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let source = every_type();
    let refused = |format: WriteFormat, source: &Checkpoint| {
        let path = folder.path().join(format.usual_name(None));
        let options = WriteOptions::default();
        write(source, &path, format, &options, &quiet)
            .unwrap_err()
            .to_string()
    };
    assert!(refused(WriteFormat::Npz, &source).contains("does not hold the type"));
    assert!(
        refused(WriteFormat::Npy, &held(&source, WriteFormat::Npy)).contains("holds one array")
    );
    let long = "x".repeat(64);
    let f32s = held(&source, WriteFormat::YamlModel);
    let (_, entry) = f32s.iter().next().unwrap();
    let named = source.with_entries([(long, entry.clone())]);
    assert!(refused(WriteFormat::Gguf, &named).contains("63 at most"));
    let infinite = f32s.iter().find(|(_, entry)| {
        let data = entry.read().unwrap();
        data.as_slice::<f32>()
            .unwrap()
            .iter()
            .any(|x| !x.is_finite())
    });
    let (_, entry) = infinite.unwrap();
    let infinite = source.with_entries([("inf".to_owned(), entry.clone())]);
    assert!(refused(WriteFormat::JsonModel, &infinite).contains("JSON has no number"));
}

#[test]
fn eight_bit_floats_are_what_torch_reads() {
    let file = Checkpoint::open(fixture("written/float8.safetensors")).unwrap();
    for float in [
        "F8_E4M3",
        "F8_E5M2",
        "F8_E4M3FNUZ",
        "F8_E5M2FNUZ",
        "F8_E8M0",
    ] {
        let entry = file.get(float).unwrap();
        assert!(matches!(&entry.dtype, Dtype::F8(kind) if kind.name() == float));
        let read = entry.read().unwrap();
        let expected = file
            .get(&format!("{float}.values"))
            .unwrap()
            .read()
            .unwrap();
        let pairs = read.as_slice::<f32>().unwrap().iter();
        for (byte, (ours, theirs)) in pairs.zip(expected.as_slice::<f32>().unwrap()).enumerate() {
            let same = ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan();
            assert!(same, "{float} {byte:#x}: {ours} is not {theirs}");
        }
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(entry.stored().unwrap().to_vec(), bytes);
    }
    assert_eq!(Float8::E4M3.name(), "F8_E4M3");
}

#[test]
fn blocks_are_those_of_the_reference_libraries() {
    let file = Checkpoint::open(fixture("written/quantized.safetensors")).unwrap();
    let mut count = 0;
    for (name, entry) in file.iter() {
        let Some(rows) = name.strip_prefix("values.") else {
            continue;
        };
        for dtype in gguf::quantized_types() {
            let expected = file
                .get(&format!("{dtype}.{rows}"))
                .unwrap()
                .stored()
                .unwrap();
            let made = entry.cast(&dtype).unwrap();
            assert_eq!(made.bytes, expected.len());
            let made = made.stored().unwrap();
            let differ = made.iter().zip(expected.iter()).position(|(a, b)| a != b);
            assert_eq!(differ, None, "{dtype} of {rows}");
            count += 1;
        }
    }
    assert_eq!(count, 6 * 7);
}

#[test]
fn rows_that_do_not_divide_into_blocks_are_not_quantized() {
    let tensors = BTreeMap::from([("w".to_owned(), TensorData::new(vec![0.5f32; 66], [2, 33]))]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    safetensors::write(&path, &tensors, BTreeMap::new()).unwrap();
    let file = Checkpoint::open(&path).unwrap();
    let entry = file.get("w").unwrap();
    for dtype in gguf::quantized_types() {
        assert!(entry.cast(&dtype).is_none());
    }
    assert!(entry.cast(&Dtype::Quantized("Q2_K")).is_none());
    let block = |index, count| entry.block(Block { index, count });
    assert_eq!(
        block(1, 2).unwrap().read().unwrap().shape().to_vec(),
        [1, 33]
    );
    assert!(block(0, 3).is_none() && block(2, 2).is_none());
}

#[test]
fn typed_metadata_survives_and_alignment_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["types", "aligned", "v1", "v2", "big_endian"] {
        let source = fixture("gguf").join(format!("{name}.gguf"));
        let metadata = gguf::metadata(&source).unwrap();
        let checkpoint = Checkpoint::open(&source).unwrap();
        let readable = checkpoint
            .iter()
            .filter(|(_, entry)| !matches!(entry.dtype, Dtype::Other(_)));
        let readable: Vec<_> = readable
            .map(|(name, entry)| (name.to_owned(), entry.clone()))
            .filter(|(_, entry)| {
                name != "big_endian" || !matches!(entry.dtype, Dtype::Quantized(_))
            })
            .collect();
        assert!(!readable.is_empty());
        let kept = checkpoint.with_entries(readable);
        let path = folder.path().join(format!("{name}.gguf"));
        let options = WriteOptions {
            gguf: Some(metadata.clone()),
            ..WriteOptions::default()
        };
        write(&kept, &path, WriteFormat::Gguf, &options, &quiet).unwrap();
        let written = Checkpoint::open(&path).unwrap();
        same(&written, &kept);
        assert_eq!(written.metadata, checkpoint.metadata);
        assert_eq!(gguf::metadata(&path).unwrap(), metadata);
    }
}

/// The Python that has the reference libraries, if there is one.
fn python() -> Option<String> {
    let named = std::env::var("SALAMANDER_PYTHON").ok();
    let python = named.unwrap_or_else(|| "python3".to_owned());
    let imports = "import ml_dtypes, numpy, safetensors";
    let found = Command::new(&python).args(["-c", imports]).output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        println!(
            "skipped: `{python}` lacks ml_dtypes, numpy or safetensors; SALAMANDER_PYTHON names another"
        );
    }
    found.then_some(python)
}

#[test]
fn the_reference_libraries_read_what_is_written() {
    let Some(python) = python() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let source = with_metadata(every_type());
    let reference = folder.path().join("reference.safetensors");
    write(
        &source,
        &reference,
        WriteFormat::Safetensors,
        &WriteOptions::default(),
        &quiet,
    )
    .unwrap();
    for (name, format, shard_size) in [
        ("model.safetensors", WriteFormat::Safetensors, Some(60)),
        ("model.pt", WriteFormat::PyTorch, None),
        ("pytorch_model.bin", WriteFormat::PyTorch, Some(60)),
        ("model.npz", WriteFormat::Npz, None),
        ("model.gguf", WriteFormat::Gguf, None),
        ("model.json", WriteFormat::Json, None),
        ("numbers.json", WriteFormat::JsonModel, None),
        ("model.yaml", WriteFormat::YamlModel, None),
        ("model.ckpt", WriteFormat::TensorFlow, None),
        ("plain.safetensors", WriteFormat::Safetensors, None),
    ] {
        let options = WriteOptions {
            shard_size,
            ..WriteOptions::default()
        };
        let path = folder.path().join(name);
        let mut held = held(&source, format);
        match (name, format) {
            // It has no numbers that are not finite.
            (_, WriteFormat::JsonModel | WriteFormat::YamlModel) => held = finite(&held),
            ("plain.safetensors", _) => {
                let plain = held.iter().filter(|(_, entry)| {
                    !matches!(entry.dtype, Dtype::F8(_)) && entry.dtype != Dtype::F64
                });
                let plain: Vec<_> = plain
                    .map(|(name, entry)| (name.to_owned(), entry.clone()))
                    .collect();
                held = held.with_entries(plain);
            }
            _ => {}
        }
        write(&held, &path, format, &options, &quiet).unwrap();
    }
    let values = Checkpoint::open(fixture("written/quantized.safetensors")).unwrap();
    let values = values
        .iter()
        .filter(|(name, _)| name.starts_with("values."));
    let mut blocks = Vec::new();
    for (name, entry) in values {
        for dtype in gguf::quantized_types() {
            blocks.push((format!("{dtype}.{name}"), entry.cast(&dtype).unwrap()));
        }
    }
    let blocks = source.with_entries(blocks);
    let path = folder.path().join("quantized.gguf");
    write(
        &blocks,
        &path,
        WriteFormat::Gguf,
        &WriteOptions::default(),
        &quiet,
    )
    .unwrap();
    // What we read in those blocks, for the library to compare with what it does.
    let path = folder.path().join("dequantized.safetensors");
    let wide = held(&blocks, WriteFormat::Safetensors);
    write(
        &wide,
        &path,
        WriteFormat::Safetensors,
        &WriteOptions::default(),
        &quiet,
    )
    .unwrap();

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/check_written.py");
    let output = Command::new(python)
        .arg(script)
        .arg(folder.path())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    print!("{}", String::from_utf8_lossy(&output.stdout));
}
