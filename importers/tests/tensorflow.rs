//! Files of TensorFlow, Keras and TFLite, held against what those libraries read in them; and files that lie.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use salamander_importers::{
    Checkpoint, Dtype, Format, FormatError, WriteFormat, WriteOptions, write,
};
use tempfile::TempDir;

fn fixtures(folder: &str) -> PathBuf {
    let formats = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/formats");
    formats.join(folder)
}

/// The folder of real files, if this machine has it.
fn real(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("SALAMANDER_DATA");
    if root.is_none() {
        println!("skipped: SALAMANDER_DATA does not name the folder of real files ({folder})");
    }
    root.map(|root| Path::new(&root).join(folder))
}

fn names(checkpoint: &Checkpoint) -> BTreeSet<String> {
    checkpoint.iter().map(|(name, _)| name.to_owned()).collect()
}

/// Holds types, shapes and bytes against those of a safetensors file, and names but for `listed`, which have no type.
fn same(found: &Checkpoint, expected: &Path, listed: &[&str]) {
    let expected = Checkpoint::open(expected).unwrap();
    let file = found.files[0].display();
    let mut wanted = names(&expected);
    wanted.extend(listed.iter().map(|name| (*name).to_owned()));
    assert_eq!(names(found), wanted, "{file}");
    for (name, expected) in expected.iter() {
        let entry = found.get(name).unwrap();
        assert_eq!(entry.shape, expected.shape, "{file}: {name}");
        if !matches!(entry.dtype, Dtype::Quantized(_)) {
            assert_eq!(entry.dtype, expected.dtype, "{file}: {name}");
        }
        let (data, expected) = (entry.read().unwrap(), expected.read().unwrap());
        assert_eq!(data.dtype(), expected.dtype(), "{file}: {name}");
        assert!(
            data.as_bytes() == expected.as_bytes(),
            "{file}: {name}: {data} is not {expected}"
        );
    }
    for name in listed {
        let entry = found.get(name).unwrap();
        let error = entry.read().unwrap_err().to_string();
        assert!(
            error.contains(name) && error.contains("cannot be read"),
            "{error}"
        );
    }
}

fn open(folder: &str, name: &str) -> Checkpoint {
    Checkpoint::open(fixtures(folder).join(name)).unwrap()
}

#[test]
fn checkpoints_are_what_tensorflow_reads() {
    let graph = "_CHECKPOINTABLE_OBJECT_GRAPH";
    for (name, format, listed) in [
        ("dtypes", Format::TensorFlow, &["text", "complex"][..]),
        ("written", Format::TensorFlow, &[]),
        ("snappy", Format::TensorFlow, &["text", "complex"]),
        ("sharded", Format::TensorFlow, &[]),
        ("big_endian", Format::TensorFlow, &[]),
        ("objects", Format::TensorFlow, &[graph]),
        ("ways", Format::TensorFlow, &[graph]),
        ("saved_model", Format::SavedModel, &[graph]),
        ("objects_first", Format::SavedModel, &[graph]),
    ] {
        let checkpoint = open("tensorflow", name);
        assert_eq!(checkpoint.format, format, "{name}");
        let expected = fixtures("tensorflow").join(format!("{name}.safetensors"));
        same(&checkpoint, &expected, listed);
    }
    let names = |name| open("tensorflow", name).metadata["tensorflow.names"].clone();
    assert_eq!(
        (names("objects"), names("ways")),
        ("variables".to_owned(), "object paths".to_owned())
    );
    assert_eq!(open("tensorflow", "sharded").files.len(), 3);
    let checkpoint = open("tensorflow", "v1.ckpt");
    assert_eq!(checkpoint.format, Format::TensorFlowV1);
    same(&checkpoint, &fixtures("tensorflow/v1.safetensors"), &[]);
}

#[test]
fn any_file_of_a_checkpoint_opens_it() {
    for name in ["sharded", "sharded.index", "sharded.data-00001-of-00002"] {
        let checkpoint = open("tensorflow", name);
        same(
            &checkpoint,
            &fixtures("tensorflow/sharded.safetensors"),
            &[],
        );
    }
    for name in ["steps", "steps/checkpoint", "steps/model.ckpt-2"] {
        let checkpoint = open("tensorflow", name);
        let step = checkpoint.get("step").unwrap().read().unwrap();
        assert_eq!(step.as_slice::<i32>().unwrap(), [2], "{name}");
    }
    let error = Checkpoint::open(fixtures("tensorflow/steps/model.ckpt-1"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("model.ckpt-1.data-00000-of-00001"),
        "{error}"
    );
    for name in [
        "saved_model/saved_model.pb",
        "saved_model/variables/variables.index",
    ] {
        assert_eq!(open("tensorflow", name).format, Format::SavedModel);
    }
    let error = Checkpoint::open(fixtures("tensorflow/none")).unwrap_err();
    assert!(matches!(error, FormatError::Io { .. }), "{error}");
}

#[test]
fn graphs_are_what_tensorflow_reads() {
    let checkpoint = open("tensorflow", "frozen.pb");
    assert_eq!(checkpoint.format, Format::TensorFlowGraph);
    same(
        &checkpoint,
        &fixtures("tensorflow/frozen.safetensors"),
        &["text"],
    );
    let checkpoint = open("tensorflow", "constants");
    assert_eq!(checkpoint.format, Format::SavedModel);
    assert_eq!(checkpoint.metadata["tensorflow.tags"], "serve");
    same(
        &checkpoint,
        &fixtures("tensorflow/constants.safetensors"),
        &[],
    );
}

#[test]
fn hdf5_files_are_what_keras_and_h5py_read() {
    for (name, listed) in [
        ("keras2_whole.h5", &[][..]),
        ("keras2_weights.h5", &[]),
        ("keras3_whole.h5", &[]),
        ("keras3.weights.h5", &[]),
        ("small.h5", &[]),
        ("bfloat16.h5", &[]),
        ("storages.h5", &["texts", "compound"]),
        ("latest.h5", &["texts", "compound"]),
    ] {
        let checkpoint = open("hdf5", name);
        assert_eq!(checkpoint.format, Format::Hdf5);
        let expected = name.strip_suffix(".h5").unwrap();
        same(
            &checkpoint,
            &fixtures("hdf5").join(format!("{expected}.safetensors")),
            listed,
        );
    }
    for name in ["keras2", "keras3"] {
        let checkpoint = open("hdf5", &format!("{name}.keras"));
        assert_eq!(checkpoint.format, Format::Keras);
        assert!(checkpoint.metadata["config.json"].contains("DepthwiseConv2D"));
        same(
            &checkpoint,
            &fixtures("hdf5").join(format!("{name}.safetensors")),
            &[],
        );
    }
    let sharded = open("hdf5", "keras3_sharded");
    assert_eq!(sharded.format, Format::ShardedHdf5);
    assert!(sharded.files.len() > 2);
    same(&sharded, &fixtures("hdf5/keras3.weights.safetensors"), &[]);
    let whole = open("hdf5", "keras2_whole.h5").metadata;
    assert_eq!(whole["keras.left_out"], "optimizer_weights");
    assert!(whole["model_config"].contains("DepthwiseConv2D"));
    assert_eq!(open("hdf5", "storages.h5").metadata["note"], "a text");
    assert_eq!(
        open("hdf5", "keras3.weights.h5").metadata["keras.left_out"],
        "optimizer"
    );
}

#[test]
fn contiguous_data_stays_in_the_file() {
    for (folder, name, tensor) in [
        ("hdf5", "storages.h5", "types/float32"),
        ("tensorflow", "dtypes", "float32"),
    ] {
        let checkpoint = open(folder, name);
        let entry = checkpoint.get(tensor).unwrap();
        let (first, second) = (entry.read().unwrap(), entry.read().unwrap());
        let aligned = std::ptr::eq(first.as_bytes().as_ptr(), second.as_bytes().as_ptr());
        println!("{name}: {tensor} stays in the file: {aligned}");
        assert!(aligned || folder == "tensorflow");
    }
}

#[test]
fn tflite_files_are_what_the_interpreter_reads() {
    for (name, listed) in [
        ("float", &[][..]),
        ("offsets", &[]),
        ("half", &[]),
        ("dynamic", &[]),
        ("whole", &[]),
        ("wide", &[]),
        ("handmade", &["text", "sparse"]),
    ] {
        let checkpoint = open("tflite", &format!("{name}.tflite"));
        assert_eq!(checkpoint.format, Format::TfLite);
        same(
            &checkpoint,
            &fixtures("tflite").join(format!("{name}.safetensors")),
            listed,
        );
    }
    let checkpoint = open("tflite", "handmade.tflite");
    assert_eq!(checkpoint.metadata["tflite.description"], "handmade");
    assert_eq!(checkpoint.get("int4").unwrap().dtype.to_string(), "QINT4");
    assert!(
        open("tflite", "whole.tflite")
            .iter()
            .any(|(_, entry)| entry.dtype == Dtype::Quantized("QINT8"))
    );
}

#[test]
fn what_is_written_is_to_the_byte_what_tensorflow_writes() {
    let directory = TempDir::new().unwrap();
    let source = open("tensorflow", "written");
    let written = |source: &Checkpoint, name: &str| {
        let prefix = directory.path().join(name);
        let options = WriteOptions::default();
        let files = write(
            source,
            &prefix,
            WriteFormat::TensorFlow,
            &options,
            &|_, _| {},
        )
        .unwrap();
        assert_eq!(files[0], directory.path().join(format!("{name}.index")));
        Checkpoint::open(&prefix).unwrap()
    };
    let found = written(&source, "written");
    for ending in ["index", "data-00000-of-00001"] {
        let name = format!("written.{ending}");
        let found = fs::read(directory.path().join(&name)).unwrap();
        assert!(
            found == fs::read(fixtures("tensorflow").join(&name)).unwrap(),
            "{name} differs"
        );
    }
    same(&found, &fixtures("tensorflow/written.safetensors"), &[]);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    // 12,000 scalars take two blocks; the checksum is that of TensorFlow's index of them.
    let values: Vec<f32> = (0..12_000_u16).map(f32::from).collect();
    let data = values.iter().flat_map(|value| value.to_le_bytes());
    let data: Vec<u8> = data.collect();
    let views = (0..12_000).map(|number| {
        let value = &data[number * 4..][..4];
        let view = TensorView::new(safetensors::Dtype::F32, vec![], value).unwrap();
        (format!("layer_{number:05}/kernel"), view)
    });
    let file = directory.path().join("many.safetensors");
    fs::write(&file, safetensors::serialize(views, None).unwrap()).unwrap();
    let many = written(&Checkpoint::open(&file).unwrap(), "many");
    fs::remove_file(file).unwrap();
    let index = fs::read(directory.path().join("many.index")).unwrap();
    let checksum = crc32fast::hash(&index);
    assert_eq!((index.len(), checksum), (319_854, 0x4b4a_7924));
    let last = many.get("layer_11999/kernel").unwrap().read().unwrap();
    assert_eq!(many.len(), 12_000);
    assert_eq!(last.as_slice::<f32>().unwrap(), [11_999.0]);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 4);
}

#[test]
fn the_order_in_a_directory_is_as_documented() {
    let directory = TempDir::new().unwrap();
    let put = |from: &str, name: &str| {
        fs::copy(fixtures(from), directory.path().join(name)).unwrap();
    };
    let opened = || Checkpoint::open(directory.path()).unwrap().format;
    put("tflite/handmade.tflite", "a.tflite");
    assert_eq!(opened(), Format::TfLite);
    put("tensorflow/frozen.pb", "a.pb");
    assert_eq!(opened(), Format::TensorFlowGraph);
    put("hdf5/small.h5", "a.h5");
    assert_eq!(opened(), Format::Hdf5);
    put("hdf5/keras3.keras", "b.keras");
    let error = Checkpoint::open(directory.path()).unwrap_err().to_string();
    assert!(error.contains("a.h5, b.keras"), "{error}");
    put("hdf5/small.h5", "tf_model.h5");
    assert_eq!(opened(), Format::Hdf5);
    put("tensorflow/dtypes.index", "a.index");
    put(
        "tensorflow/dtypes.data-00000-of-00001",
        "a.data-00000-of-00001",
    );
    assert_eq!(opened(), Format::TensorFlow);
    put("tensorflow/constants/saved_model.pb", "saved_model.pb");
    assert_eq!(opened(), Format::SavedModel);
}

#[test]
fn real_files_are_read() {
    let Some(folder) = real("tf") else {
        return;
    };
    let value = |path: &str, name: &str| {
        let checkpoint = Checkpoint::open(folder.join(path)).unwrap();
        let entry = checkpoint
            .get(name)
            .unwrap_or_else(|| panic!("{path}: {checkpoint:?}"));
        entry
            .read()
            .unwrap()
            .convert::<f32>()
            .try_into_vec::<f32>()
            .unwrap()
    };
    for model in [
        "saved_model_half_plus_two_cpu",
        "saved_model_half_plus_two_tf2_cpu",
    ] {
        let path = format!("{model}/00000123");
        assert_eq!(
            (value(&path, "a"), value(&path, "b")),
            (vec![0.5], vec![2.0]),
            "{model}"
        );
    }
    assert_eq!(value("saved_model_counter/00000123", "counter").len(), 1);
    let lite =
        Checkpoint::open(folder.join("saved_model_half_plus_two_tflite/00000123/model.tflite"))
            .unwrap();
    println!("{lite:?}");
    assert!(!lite.is_empty());
    let bad = Checkpoint::open(folder.join("bad_half_plus_two/00000123"));
    println!("{bad:?}");
}

#[test]
fn a_real_detector_is_the_same_in_tensorflow_and_tflite_as_in_pytorch() {
    let Some(folder) = real("ultraface") else {
        return;
    };
    let open = |name: &str| Checkpoint::open(folder.join(name)).unwrap();
    let trained = open("version-RFB-320.pth");
    let variables = open("tf_savedmodel_RFB").in_pytorch_layout();
    let contents = |checkpoint: &Checkpoint| -> BTreeSet<(Vec<usize>, Vec<u8>)> {
        let floats = checkpoint
            .iter()
            .filter(|(_, entry)| entry.dtype == Dtype::F32);
        let read = floats.map(|(_, entry)| {
            (
                entry.shape.clone(),
                entry.read().unwrap().as_bytes().to_vec(),
            )
        });
        read.collect()
    };
    let (expected, found) = (contents(&trained), contents(&variables));
    assert!(
        expected == found,
        "{} tensors, not {}",
        found.len(),
        expected.len()
    );
    println!(
        "{} variables of TensorFlow are PyTorch's to the bit",
        variables.len()
    );

    // The converter has folded each norm into the convolution before it, but behind a dilated one, which it takes
    // apart.
    let lite = open("version-RFB-320_without_postprocessing.tflite");
    let values =
        |entry: &salamander_importers::Entry| entry.read().unwrap().try_into_vec::<f32>().unwrap();
    let kernels: Vec<(Vec<usize>, Vec<f32>)> = lite
        .iter()
        .filter(|(_, entry)| entry.dtype == Dtype::F32 && entry.shape.len() == 4)
        .map(|(_, entry)| (entry.shape.clone(), values(entry)))
        .collect();
    let (mut folded, mut same) = (0, 0);
    for (name, entry) in trained.iter() {
        let (Some(path), &[outputs, inputs, height, width]) =
            (name.strip_suffix(".weight"), &entry.shape[..])
        else {
            continue;
        };
        // `….conv` beside `….bn`, or one place on in a sequence.
        let (parent, last) = path.rsplit_once('.').unwrap();
        let next = last
            .parse::<u32>()
            .map_or("bn".to_owned(), |place| (place + 1).to_string());
        let norm = |leaf: &str| trained.get(&format!("{parent}.{next}.{leaf}")).map(values);
        let norm = norm("weight").zip(norm("running_var"));
        let weights = values(entry);
        let found = |scale: &dyn Fn(usize) -> f64, tolerance: f64| {
            kernels.iter().any(|(shape, kernel)| {
                let depthwise = inputs == 1 && shape[..] == [1, height, width, outputs];
                if !depthwise && shape[..] != [outputs, height, width, inputs] {
                    return false;
                }
                (0..weights.len()).all(|at| {
                    let (place, rest) = (at % (height * width), at / (height * width));
                    let (o, i) = (rest / inputs, rest % inputs);
                    let other = if depthwise {
                        place * outputs + o
                    } else {
                        (o * height * width + place) * inputs + i
                    };
                    let wanted = f64::from(weights[at]) * scale(o);
                    (f64::from(kernel[other]) - wanted).abs() <= tolerance * wanted.abs().max(1.0)
                })
            })
        };
        // Keras' epsilon, not PyTorch's, whose file it was taken from.
        const EPSILON: f64 = 1.001e-5;
        let scaled = norm.is_some_and(|(gain, variance)| {
            let scale = |o: usize| f64::from(gain[o]) / (f64::from(variance[o]) + EPSILON).sqrt();
            found(&scale, 1e-6)
        });
        let unchanged = !scaled && found(&|_| 1.0, 0.0);
        assert!(scaled || unchanged, "no kernel of TFLite is {name}");
        folded += usize::from(scaled);
        same += usize::from(unchanged);
    }
    println!(
        "{folded} kernels of TFLite are PyTorch's with their norms folded in, {same} to the bit"
    );
    assert!(folded > 30 && same == 18, "{folded}, {same}");
}

// Files that lie.

/// A directory with one file of that content, beside copies of others.
fn with(name: &str, bytes: &[u8], beside: &[&str]) -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    for file in beside {
        let file = fixtures(file);
        fs::copy(&file, directory.path().join(file.file_name().unwrap())).unwrap();
    }
    let path = directory.path().join(name);
    fs::write(&path, bytes).unwrap();
    (directory, path)
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
    let turned = checkpoint.clone().in_pytorch_layout();
    for (_, entry) in turned.iter() {
        if entry.dtype.to_burn().is_some() {
            assert_eq!(entry.read()?.num_elements(), entry.elements());
        }
    }
    Ok(checkpoint.len())
}

#[track_caller]
fn refused(name: &str, bytes: &[u8], beside: &[&str], says: &str) {
    let (_directory, path) = with(name, bytes, beside);
    let error = read(&path).unwrap_err().to_string();
    assert!(error.contains(says), "{error}\ndoes not say {says}");
    assert!(error.len() < 2_000, "an error of {} bytes", error.len());
}

/// Every shorter file, and every file with one byte changed, is read or refused: no panic, no hang.
fn mutations(name: &str, fixture: &str, beside: &[&str], every_truncation_is_refused: bool) {
    let bytes = fs::read(fixtures(fixture)).unwrap();
    let (directory, path) = with(name, &bytes, beside);
    read(&path).unwrap();
    let begun = std::time::Instant::now();
    let (mut tried, mut refusals) = (0, 0);
    let mut attempt = |bytes: &[u8]| {
        let _ = fs::remove_file(&path);
        fs::write(&path, bytes).unwrap();
        tried += 1;
        let refused = read(&path).is_err();
        refusals += usize::from(refused);
        refused
    };
    // A longer file is cut at some of its bytes.
    for length in (0..bytes.len()).step_by(bytes.len() / 2000 + 1) {
        let refused = attempt(&bytes[..length]);
        assert!(
            refused || !every_truncation_is_refused,
            "{fixture}: {length} bytes are read"
        );
    }
    for at in 0..bytes.len() {
        let quiet = |place: usize| bytes.get(place).is_none_or(|byte| *byte == 0);
        // Padding, of which there is much, is of one kind.
        if quiet(at) && at % 16 != 0 && quiet(at.wrapping_sub(1)) && quiet(at + 1) {
            continue;
        }
        for flip in [0x01, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] ^= flip;
            attempt(&changed);
        }
    }
    drop(directory);
    println!(
        "{fixture}: {tried} files tried, {refusals} refused, in {:?}",
        begun.elapsed()
    );
}

#[test]
fn changed_checkpoints_are_read_or_refused() {
    let data = "tensorflow/written.data-00000-of-00001";
    mutations("written.index", "tensorflow/written.index", &[data], true);
    mutations(
        "written.data-00000-of-00001",
        data,
        &["tensorflow/written.index"],
        true,
    );
    let data = "tensorflow/snappy.data-00000-of-00001";
    mutations("snappy.index", "tensorflow/snappy.index", &[data], true);
    let shards = [
        "tensorflow/sharded.data-00000-of-00002",
        "tensorflow/sharded.data-00001-of-00002",
    ];
    mutations("sharded.index", "tensorflow/sharded.index", &shards, true);
    mutations("v1.ckpt", "tensorflow/v1.ckpt", &[], true);
}

#[test]
fn changed_graphs_are_read_or_refused() {
    // What ends between two nodes is a graph too.
    mutations("a.pb", "tensorflow/frozen.pb", &[], false);
    mutations(
        "saved_model.pb",
        "tensorflow/constants/saved_model.pb",
        &[],
        false,
    );
}

#[test]
fn changed_tflite_files_are_read_or_refused() {
    mutations("a.tflite", "tflite/handmade.tflite", &[], false);
}

#[test]
fn changed_hdf5_files_are_read_or_refused() {
    mutations("a.h5", "hdf5/bfloat16.h5", &[], false);
    mutations("b.h5", "hdf5/small.h5", &[], false);
}

// Tables and messages, made by hand so that they can lie.

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn number(field: u64, value: i64) -> Vec<u8> {
    [varint(field << 3), varint(value.cast_unsigned())].concat()
}

fn message(field: u64, parts: &[Vec<u8>]) -> Vec<u8> {
    let inner = parts.concat();
    [varint(field << 3 | 2), varint(inner.len() as u64), inner].concat()
}

fn shape(field: u64, sizes: &[i64]) -> Vec<u8> {
    let dimensions: Vec<Vec<u8>> = sizes
        .iter()
        .map(|size| message(2, &[number(1, *size)]))
        .collect();
    message(field, &dimensions)
}

fn masked(bytes: &[u8]) -> [u8; 4] {
    let crc = crc32c::crc32c(bytes);
    crc.rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// A block of entries that share nothing, with its trailer.
fn block(entries: &[(&[u8], &[u8])], kind: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, value) in entries {
        bytes.extend(
            [
                vec![0],
                varint(key.len() as u64),
                varint(value.len() as u64),
            ]
            .concat(),
        );
        bytes.extend([*key, *value].concat());
    }
    bytes.extend([0, 0, 0, 0, 1, 0, 0, 0]);
    sealed(bytes, kind)
}

fn sealed(mut bytes: Vec<u8>, kind: u8) -> Vec<u8> {
    bytes.push(kind);
    let crc = masked(&bytes);
    bytes.extend(crc);
    bytes
}

/// A table of these blocks, whose places in the index `place` may change.
fn table_of(blocks: &[Vec<u8>], place: impl Fn(usize, u64, u64) -> (u64, u64)) -> Vec<u8> {
    let mut file = Vec::new();
    let mut index: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for (number, block) in blocks.iter().enumerate() {
        let (offset, size) = place(number, file.len() as u64, block.len() as u64 - 5);
        index.push((
            format!("{number:09}").into(),
            [varint(offset), varint(size)].concat(),
        ));
        file.extend(block);
    }
    let entries: Vec<(&[u8], &[u8])> = index
        .iter()
        .map(|(key, value)| (&key[..], &value[..]))
        .collect();
    let (at, index) = (file.len() as u64, block(&entries, 0));
    file.extend(&index);
    let handle = [varint(at), varint(index.len() as u64 - 5)].concat();
    let mut footer = [&handle[..], &handle].concat();
    footer.resize(40, 0);
    file.extend(footer);
    file.extend(0xdb47_7524_8b80_fb57_u64.to_le_bytes());
    file
}

fn table(entries: &[(&[u8], &[u8])]) -> Vec<u8> {
    table_of(&[block(entries, 0)], |_, offset, size| (offset, size))
}

/// The index of one shard with these entries.
fn index(entries: &[(&[u8], Vec<u8>)]) -> Vec<u8> {
    let header = number(1, 1);
    let mut all: Vec<(&[u8], &[u8])> = vec![(b"", &header)];
    all.extend(entries.iter().map(|(key, value)| (*key, &value[..])));
    table(&all)
}

/// An entry of floats.
fn floats(sizes: &[i64], shard: i64, offset: i64, size: i64) -> Vec<u8> {
    let crc = masked(&[0; 16]);
    let crc = [&[0x35][..], &crc].concat();
    [
        number(1, 1),
        shape(2, sizes),
        number(3, shard),
        number(4, offset),
        number(5, size),
        crc,
    ]
    .concat()
}

/// A slice of rows.
fn rows(start: i64, length: i64) -> Vec<u8> {
    message(7, &[message(1, &[number(1, start), number(2, length)])])
}

#[test]
fn indices_that_lie_are_refused() {
    let refuse = |index: &[u8], says: &str| {
        let (directory, path) = with("a.index", index, &[]);
        fs::write(directory.path().join("a.data-00000-of-00001"), [0; 32]).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains(says), "{error}\ndoes not say {says}");
    };
    let one = |entry: Vec<u8>, says: &str| refuse(&index(&[(b"w", entry)]), says);
    let good = || floats(&[4], 0, 0, 16);
    {
        let (directory, path) = with("a.index", &index(&[(b"w", good())]), &[]);
        fs::write(directory.path().join("a.data-00000-of-00001"), [0; 32]).unwrap();
        assert_eq!(read(&path).unwrap(), 1);
        fs::write(directory.path().join("a.data-00000-of-00001"), [1; 32]).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("checksum"));
        fs::remove_file(directory.path().join("a.data-00000-of-00001")).unwrap();
        assert!(
            read(&path)
                .unwrap_err()
                .to_string()
                .contains("a.data-00000-of-00001")
        );
    }
    one(floats(&[4], 1, 0, 16), "shard 1 of 1");
    one(floats(&[4], i64::MAX, 0, 16), "of 1");
    one(floats(&[4], -1, 0, 16), "-1 is no size");
    one(floats(&[4], 0, -16, 16), "-16 is no size");
    one(floats(&[4], 0, 17, 16), "reach beyond");
    one(floats(&[4], 0, i64::MAX, 16), "reach beyond");
    one(floats(&[4], 0, 0, 12), "12 bytes");
    one(floats(&[i64::MAX], 0, 0, 16), "larger than any file");
    one(
        floats(&[i64::MAX, i64::MAX], 0, 0, 16),
        "larger than any file",
    );
    one(floats(&[1 << 62], 0, 0, 16), "larger than any file");
    one(floats(&[-4], 0, 0, 16), "-4 is no size");
    one(floats(&[1; 300], 0, 0, 4), "dimensions");
    one([number(1, 99), shape(2, &[4])].concat(), "type 99");
    one(vec![0x0b], "wire type 3");
    one(
        vec![
            0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
        ],
        "truncated",
    );
    one(vec![0x12, 0xff, 0xff, 0xff, 0xff, 0x7f], "claims");
    refuse(
        &index(&[(b"v", good()), (b"w", floats(&[4], 0, 4, 16))]),
        "begins inside",
    );
    refuse(
        &index(&[(b"w", good()), (b"v", floats(&[4], 0, 16, 16))]),
        "not in order",
    );
    refuse(
        &index(&[(b"w", good()), (b"w", floats(&[4], 0, 16, 16))]),
        "not in order",
    );
    refuse(&index(&[(b"\xff", good())]), "not UTF-8");
    // Slices: one that is not there, too few, two on each other, one outside.
    let sliced = |slices: &[Vec<u8>]| [number(1, 1), shape(2, &[4]), slices.concat()].concat();
    one(sliced(&[rows(0, 4)]), "not there");
    one(sliced(&[rows(0, 2)]), "have 2 elements");
    one(sliced(&[rows(0, 2), rows(1, 2)]), "overlap");
    one(sliced(&[rows(0, 5)]), "not in its shape");
    one(sliced(&[rows(i64::MAX, 1)]), "not in its shape");
    one(sliced(&[rows(0, 0)]), "not in its shape");
    let each: Vec<Vec<u8>> = (0..5000).map(|row| rows(row, 1)).collect();
    one(
        [number(1, 1), shape(2, &[5000]), each.concat()].concat(),
        "slices",
    );
    // Tables: no header, a key that shares what is not there, blocks on each other, compressed by nothing known.
    refuse(&table(&[(b"w", &good())]), "no header");
    refuse(&table(&[]), "empty");
    let sharing = sealed(
        [&[5, 1, 0, b'w'][..], &[0, 0, 0, 0, 1, 0, 0, 0]].concat(),
        0,
    );
    refuse(
        &table_of(&[sharing], |_, offset, size| (offset, size)),
        "shares 5 bytes",
    );
    let header = || block(&[(b"", &number(1, 1))], 0);
    let other = block(&[(b"w", &good())], 0);
    let blocks = [header(), other];
    refuse(&table_of(&blocks, |_, _, _| (0, 10)), "begins inside");
    refuse(
        &table_of(&blocks, |_, _, size| (u64::MAX, size)),
        "reaches beyond",
    );
    refuse(
        &table_of(&blocks, |_, offset, _| (offset, u64::MAX)),
        "reaches beyond",
    );
    refuse(
        &table_of(&blocks, |_, offset, size| (offset + 1, size)),
        "checksum",
    );
    let place = |_: usize, offset, size| (offset, size);
    refuse(
        &table_of(&[block(&[(b"", &number(1, 1))], 7)], place),
        "method 7",
    );
    // Snappy that claims 4 GiB, and that is none.
    let bomb = sealed(vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0], 1);
    refuse(&table_of(&[bomb], place), "cannot be 4294967295");
    refuse(
        &table_of(&[sealed(vec![10, 0xff, 0xff, 0xff], 1)], place),
        "uncompressed",
    );
    // Restarts beyond the block.
    refuse(
        &table_of(&[sealed(vec![0xff; 8], 0)], place),
        "does not end as one",
    );
    refuse(
        &table_of(&[sealed(vec![], 0)], place),
        "does not end as one",
    );
}

#[test]
fn checkpoints_of_the_first_version_that_lie_are_refused() {
    let meta = |sizes: &[i64]| {
        message(
            1,
            &[message(
                1,
                &[message(1, &[b"w".to_vec()]), shape(2, sizes), number(3, 1)],
            )],
        )
    };
    let slice =
        |start: i64, length: i64| message(2, &[message(1, &[number(1, start), number(2, length)])]);
    let data = |name: &[u8], slice: Vec<u8>, count: usize| {
        let values = message(5, &[vec![0; 4 * count]]);
        message(
            2,
            &[message(1, &[name.to_vec()]), slice, message(3, &[values])],
        )
    };
    let file = |sizes: &[i64], values: &[Vec<u8>]| {
        let meta = meta(sizes);
        let keys: Vec<String> = (0..values.len())
            .map(|number| format!("{number:05}"))
            .collect();
        let mut entries: Vec<(&[u8], &[u8])> = vec![(b"", &meta)];
        entries.extend(
            keys.iter()
                .zip(values)
                .map(|(key, value)| (key.as_bytes(), &value[..])),
        );
        table(&entries)
    };
    let (_directory, path) = with("a.ckpt", &file(&[4], &[data(b"w", slice(0, 4), 4)]), &[]);
    assert_eq!(read(&path).unwrap(), 1);
    for (bytes, says) in [
        (file(&[4], &[]), "have 0 elements"),
        (file(&[4], &[data(b"w", slice(0, 3), 3)]), "have 3 elements"),
        (file(&[4], &[data(b"w", slice(0, 4), 5)]), "5 values"),
        (file(&[4], &[data(b"v", slice(0, 4), 4)]), "have 0 elements"),
        (
            file(
                &[4],
                &[data(b"w", slice(0, 4), 4), data(b"v", slice(0, 4), 4)],
            ),
            "`v`, which is not listed",
        ),
        (
            file(
                &[4],
                &[data(b"w", slice(0, 4), 4), data(b"w", slice(0, 4), 4)],
            ),
            "overlap",
        ),
        (
            file(&[1 << 40], &[data(b"w", slice(0, 1 << 40), 1)]),
            "may repeat",
        ),
        (file(&[4], &[data(b"w", slice(-1, 4), 4)]), "no size"),
        (file(&[4], &[message(2, &[])]), "no slice"),
        (file(&[4], &[number(9, 9)]), "no data"),
    ] {
        refused("a.ckpt", &bytes, &[], says);
    }
}

#[test]
fn graphs_that_lie_are_refused() {
    let node = |name: &str, tensor: Vec<u8>| {
        let value = message(2, &[message(8, &[tensor])]);
        let attribute = message(5, &[message(1, &[b"value".to_vec()]), value]);
        message(
            1,
            &[
                message(1, &[name.into()]),
                message(2, &[b"Const".to_vec()]),
                attribute,
            ],
        )
    };
    let one = |tensor: Vec<u8>| node("w", tensor);
    let content = |sizes: &[i64], bytes: usize| {
        [number(1, 1), shape(2, sizes), message(4, &[vec![0; bytes]])].concat()
    };
    let (_directory, path) = with("a.pb", &one(content(&[4], 16)), &[]);
    assert_eq!(read(&path).unwrap(), 1);
    let repeated =
        |sizes: &[i64]| [number(1, 1), shape(2, sizes), vec![0x2d, 0, 0, 0x80, 0x3f]].concat();
    let (_directory, path) = with("a.pb", &one(repeated(&[1 << 20])), &[]);
    assert_eq!(read(&path).unwrap(), 1);
    for (bytes, says) in [
        (one(content(&[4], 12)), "12 bytes"),
        (one(content(&[1 << 62], 16)), "larger than any file"),
        (one(repeated(&[1 << 40])), "may repeat"),
        (one(repeated(&[])).repeat(2), "twice"),
        (
            one([number(1, 1), message(2, &[number(3, 1)])].concat()),
            "unknown rank",
        ),
        (one([number(1, 77), shape(2, &[1])].concat()), "type 77"),
        (one(vec![0xff; 20]), "truncated"),
        (
            message(
                1,
                &[
                    message(1, &[b"w".to_vec()]),
                    message(2, &[b"Const".to_vec()]),
                ],
            ),
            "no value",
        ),
        (
            one([repeated(&[1]), vec![0x2d, 0, 0, 0x80, 0x3f]].concat()),
            "2 values",
        ),
    ] {
        refused("a.pb", &bytes, &[], says);
    }
    // As deep as a file can be: what nobody asks for is stepped over.
    let mut deep = Vec::new();
    for _ in 0..2000 {
        deep = message(9, &[deep]);
    }
    let deep = [
        one(content(&[4], 16)),
        message(
            1,
            &[
                message(1, &[b"x".to_vec()]),
                message(2, &[b"Op".to_vec()]),
                deep,
            ],
        ),
    ];
    let (_directory, path) = with("a.pb", &deep.concat(), &[]);
    assert_eq!(read(&path).unwrap(), 1);
    refused("a.meta", b"\x0a\x02\x0a\x00", &[], ".index");
    refused(
        "checkpoint",
        b"model_checkpoint_path: \"../../etc/passwd\"",
        &[],
        "`passwd`, which is not beside it",
    );
    refused(
        "checkpoint",
        b"model_checkpoint_path: \"checkpoint\"",
        &[],
        "not beside it",
    );
    refused(
        "checkpoint",
        b"model_checkpoint_path: 4",
        &[],
        "names no checkpoint",
    );
    refused("a.index", b"", &[], "an empty file");
}

#[test]
fn tflite_files_that_lie_are_refused() {
    let bytes = fs::read(fixtures("tflite/handmade.tflite")).unwrap();
    let root = u32::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let changed = |at: usize, value: u32| {
        let mut bytes = bytes.clone();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    refused("a.tflite", &changed(0, u32::MAX), &[], "beyond the file");
    refused(
        "a.tflite",
        &changed(root, 0x7fff_ffff),
        &[],
        "before the file",
    );
    refused(
        "a.tflite",
        &changed(root, 0x8000_0000),
        &[],
        "beyond the file",
    );
    refused("a.tflite", b"TFL3", &[], "a.tflite");
    refused("a.tflite", &bytes[..8], &[], "beyond the file");
}
