//! Readers of weights against mutated files: nothing panics or hangs, and memory stays within a margin of the file.
//!
//! For each reader, files that the reference libraries wrote are cut at every byte, then changed at random from a
//! fixed seed: bits, bytes, numbers, runs moved, doubled and taken out, parts of one file in another, members of
//! archives under right checksums. `SALAMANDER_INPUTS` says how many random ones there are for each; a file that
//! fails is kept in the target directory. `fuzz/` calls the same functions with inputs that a fuzzer finds.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::fs;
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use peak_alloc::PeakAlloc;
use salamander::ModelDir;
use salamander::importers::{Checkpoint, WriteFormat, WriteOptions, scan, verify, write};
use salamander::models::{contained_files, detect};
use salamander::native::Native;
use serde_json::Value;
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// How many random inputs each reader is given where nobody says.
const INPUTS: usize = 400;
/// The most places at which a file is cut; a longer one is cut at some of its bytes.
const CUTS: usize = 1500;
/// What a reader may hold beyond a multiple of the file: the greatest margin of any, and what a buffer that
/// grows takes for a moment.
const MARGIN: usize = 80 << 20;
const TIMES: usize = 16;
/// Far beyond what any takes, in a build without optimisation on a busy machine.
const SLOWEST: Duration = Duration::from_secs(20);

/// One reader: what its file is called, which files it is given, the smallest first, and what lies beside.
struct Reader {
    name: &'static str,
    file: &'static str,
    seeds: &'static [&'static str],
    beside: &'static [&'static str],
    /// How a seed is wrapped, and a mutated one again.
    within: Within,
}

#[derive(Clone, Copy, PartialEq)]
enum Within {
    Nothing,
    /// A zip archive, of which every second input has a member changed and its checksum right.
    Zip,
    Gzip,
    Zstd,
}

const fn reader(
    name: &'static str,
    file: &'static str,
    seeds: &'static [&'static str],
    beside: &'static [&'static str],
    within: Within,
) -> Reader {
    Reader {
        name,
        file,
        seeds,
        beside,
        within,
    }
}

use Within::{Gzip, Nothing, Zip, Zstd};

const READERS: &[Reader] = &[
    reader(
        "safetensors",
        "model.safetensors",
        &["pytorch/list.safetensors", "written/float8.safetensors"],
        &[],
        Nothing,
    ),
    reader(
        "mlx",
        "model.safetensors",
        &["mlx/3/model.safetensors"],
        &["mlx/3/config.json"],
        Nothing,
    ),
    reader(
        "pytorch zip",
        "model.pt",
        &[
            "pytorch/no_crc32.pt",
            "pytorch/views.pt",
            "pytorch/training.pt",
            "pytorch/script.pt",
            "pytorch/deflated.pt",
            "pytorch/dtypes.pt",
        ],
        &[],
        Zip,
    ),
    reader(
        "pytorch legacy",
        "model.pt",
        &["pytorch/legacy_protocol4.pt", "pytorch/legacy.pt"],
        &[],
        Nothing,
    ),
    reader(
        "pytorch tar",
        "model.pt",
        &["pytorch/tar_described.pt", "pytorch/tar.pt"],
        &[],
        Nothing,
    ),
    reader(
        "index of shards",
        "pytorch_model.bin.index.json",
        &["pytorch/sharded/pytorch_model.bin.index.json"],
        &[
            "pytorch/sharded/pytorch_model-00001-of-00002.bin",
            "pytorch/sharded/pytorch_model-00002-of-00002.bin",
        ],
        Nothing,
    ),
    reader(
        "gguf",
        "model.gguf",
        &["gguf/v1.gguf", "gguf/aligned.gguf", "gguf/types.gguf"],
        &[],
        Nothing,
    ),
    reader(
        "gguf split",
        "split-00001-of-00002.gguf",
        &["gguf/split-00001-of-00002.gguf"],
        &["gguf/split-00002-of-00002.gguf"],
        Nothing,
    ),
    reader(
        "ggml",
        "model.bin",
        &["ggml/silero.bin", "ggml/whisper-q5_0.bin"],
        &[],
        Nothing,
    ),
    reader(
        "onnx",
        "model.onnx",
        &[
            "onnx/types.onnx",
            "onnx/resnet/bottleneck.torchscript.onnx",
            "onnx/quantized/nbits-asymmetric.onnx",
        ],
        &[],
        Nothing,
    ),
    reader(
        "tensorflow checkpoint's index",
        "written.index",
        &["tensorflow/written.index"],
        &["tensorflow/written.data-00000-of-00001"],
        Nothing,
    ),
    reader(
        "tensorflow checkpoint's object graph",
        "objects.index",
        &["tensorflow/objects.index"],
        &["tensorflow/objects.data-00000-of-00001"],
        Nothing,
    ),
    reader(
        "tensorflow checkpoint's shard",
        "written.data-00000-of-00001",
        &["tensorflow/written.data-00000-of-00001"],
        &["tensorflow/written.index"],
        Nothing,
    ),
    reader(
        "tensorflow checkpoint, version 1",
        "model.ckpt",
        &["tensorflow/v1.ckpt"],
        &[],
        Nothing,
    ),
    reader(
        "tensorflow SavedModel",
        "saved_model.pb",
        &[
            "tensorflow/constants/saved_model.pb",
            "tensorflow/objects_first/saved_model.pb",
        ],
        &[],
        Nothing,
    ),
    reader(
        "tensorflow graph",
        "frozen.pb",
        &["tensorflow/frozen.pb"],
        &[],
        Nothing,
    ),
    reader(
        "hdf5",
        "model.h5",
        &[
            "hdf5/bfloat16.h5",
            "hdf5/small.h5",
            "hdf5/keras2_weights.h5",
            "hdf5/latest.h5",
        ],
        &[],
        Nothing,
    ),
    reader(
        "keras index of shards",
        "tiny.weights.json",
        &["hdf5/keras3_sharded/tiny.weights.json"],
        &[
            "hdf5/keras3_sharded/tiny_00000.weights.h5",
            "hdf5/keras3_sharded/tiny_00001.weights.h5",
        ],
        Nothing,
    ),
    reader(
        "keras",
        "model.keras",
        &["hdf5/keras2.keras", "hdf5/keras3.keras"],
        &[],
        Zip,
    ),
    reader(
        "tflite",
        "model.tflite",
        &[
            "tflite/handmade.tflite",
            "tflite/dynamic.tflite",
            "tflite/offsets.tflite",
        ],
        &[],
        Nothing,
    ),
    reader(
        "npy",
        "model.npy",
        &["numpy/v1.npy", "numpy/v3.npy", "numpy/objects.npy"],
        &[],
        Nothing,
    ),
    reader(
        "npz",
        "model.npz",
        &["numpy/others.npz", "numpy/stored.npz", "numpy/deflated.npz"],
        &[],
        Zip,
    ),
    reader(
        "flax",
        "model.msgpack",
        &["flax/types.msgpack", "flax/bert/model.msgpack"],
        &[],
        Nothing,
    ),
    reader(
        "burnpack",
        "model.bpk",
        &["written/model.bpk"],
        &[],
        Nothing,
    ),
    reader(
        "json state dictionary",
        "model.json",
        &["written/state.json"],
        &[],
        Nothing,
    ),
    reader(
        "json model",
        "model.json",
        &["written/model.json"],
        &[],
        Nothing,
    ),
    reader(
        "yaml model",
        "model.yaml",
        &["written/model.yaml"],
        &[],
        Nothing,
    ),
    reader(
        "json in gzip",
        "model.json.gz",
        &["written/state.json"],
        &[],
        Gzip,
    ),
    reader(
        "yaml in zstd",
        "model.yaml.zst",
        &["written/model.yaml"],
        &[],
        Zstd,
    ),
];

/// Numbers that sizes and offsets are often wrong by.
const NUMBERS: [u64; 16] = [
    0,
    1,
    2,
    7,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 40,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

/// The same in texts, and what else is no number there.
const TEXTS: [&str; 10] = [
    "-1",
    "0",
    "9223372036854775807",
    "18446744073709551616",
    "1e999",
    "[[[[[[[[[[[[[[[[",
    "{\"a\":{\"a\":{\"a\":",
    "\"",
    "null",
    "../../",
];

/// Xorshift; the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 11) as usize % end.max(1)
    }
}

/// Changes some bytes, as fuzzers do.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        let at = random
            .below(bytes.len() + 1)
            .min(bytes.len().saturating_sub(1));
        let end = (at + 1 + random.below(64)).min(bytes.len());
        match random.below(10) {
            0 | 1 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            2 => {
                let value = random.next() as u8;
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            3 | 4 => {
                let number = NUMBERS[random.below(NUMBERS.len())];
                let size = [1, 2, 4, 8][random.below(4)];
                let number = if random.below(4) == 0 {
                    number.to_be_bytes()[8 - size..].to_vec()
                } else {
                    number.to_le_bytes()[..size].to_vec()
                };
                for (byte, new) in bytes.iter_mut().skip(at).zip(number) {
                    *byte = new;
                }
            }
            5 => {
                bytes.drain(at..end);
            }
            6 => {
                let run = bytes[at..end].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, run.repeat(1 + random.below(3)));
            }
            7 => bytes.truncate(at),
            8 => {
                let from = random.below(other.len());
                let run = &other[from..(from + 1 + random.below(64)).min(other.len())];
                bytes.splice(at..end, run.iter().copied());
            }
            _ => {
                let text = TEXTS[random.below(TEXTS.len())];
                bytes.splice(at..end.min(at + 4), text.bytes());
            }
        }
    }
}

/// The archive with one member changed, under checksums that are right.
fn mutate_member(archive: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let mut from = ZipArchive::new(std::io::Cursor::new(archive)).ok()?;
    let chosen = random.below(from.len());
    let mut to = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for place in 0..from.len() {
        let mut member = from.by_index(place).ok()?;
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes).ok()?;
        if place == chosen {
            let other = bytes.clone();
            mutate(&mut bytes, &other, random);
        }
        let stored =
            SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        to.start_file(member.name().ok()?, stored).ok()?;
        to.write_all(&bytes).ok()?;
    }
    Some(to.finish().ok()?.into_inner())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut stream = GzEncoder::new(Vec::new(), Compression::fast());
    stream.write_all(bytes).unwrap();
    stream.finish().unwrap()
}

/// A Zstandard frame of raw blocks.
fn zstd(bytes: &[u8]) -> Vec<u8> {
    // One segment, whose size is in four bytes.
    let mut frame = b"\x28\xb5\x2f\xfd\xa0".to_vec();
    frame.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
    let blocks = bytes.chunks(1 << 16);
    let count = blocks.len();
    for (place, block) in blocks.enumerate() {
        let last = u32::from(place + 1 == count);
        let header = u32::try_from(block.len()).unwrap() << 3 | last;
        frame.extend(&header.to_le_bytes()[..3]);
        frame.extend(block);
    }
    frame
}

impl Within {
    fn wrap(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Nothing | Zip => bytes.to_vec(),
            Gzip => gzip(bytes),
            Zstd => zstd(bytes),
        }
    }
}

/// What the inputs of one reader came to.
#[derive(Default)]
struct Tried {
    inputs: usize,
    refused: usize,
    peak: usize,
    slowest: Duration,
}

/// A place for the file, and what is done with it.
struct Trial<'a> {
    name: &'a str,
    path: PathBuf,
    read: fn(&Path) -> bool,
    tried: Tried,
}

impl Trial<'_> {
    fn run(&mut self, bytes: &[u8]) {
        // Some file systems flush a file that is written over; a new one they do not.
        let _ = fs::remove_file(&self.path);
        fs::write(&self.path, bytes).unwrap();
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let begun = Instant::now();
        let read = catch_unwind(AssertUnwindSafe(|| (self.read)(&self.path)));
        let took = begun.elapsed();
        let peak = MEMORY.peak_usage().saturating_sub(before);
        self.tried.inputs += 1;
        self.tried.peak = self.tried.peak.max(peak);
        self.tried.slowest = self.tried.slowest.max(took);
        self.tried.refused += usize::from(matches!(read, Ok(false)));
        let failure = match read {
            Err(_) => "panics".to_owned(),
            Ok(_) if peak > MARGIN + TIMES * bytes.len() => format!("takes {peak} bytes of memory"),
            Ok(_) if took > SLOWEST => format!("takes {took:?}"),
            Ok(_) => return,
        };
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!(
            "{}-{}",
            self.name.replace(' ', "-"),
            self.path.file_name().unwrap().to_string_lossy()
        ));
        fs::write(&kept, bytes).unwrap();
        let number = self.tried.inputs;
        panic!(
            "{}: input {number} {failure}; it is kept as {}",
            self.name,
            kept.display()
        );
    }
}

/// Reads all there is, by every way in; whether it is weights.
fn read(path: &Path) -> bool {
    let _ = scan::scan(path);
    let read = verify(path);
    if let Err(error) = &read {
        let error = error.to_string();
        let folder = path.parent().unwrap().display().to_string();
        assert!(
            error.contains(&folder),
            "an error that names no file: {error}"
        );
        assert!(error.len() < 2_000, "an error of {} bytes", error.len());
    }
    if let Ok(checkpoint) = Checkpoint::open(path) {
        let _ = contained_files(&checkpoint);
        let _ = detect(&checkpoint.in_pytorch_layout(), &Value::Null);
    }
    read.is_ok()
}

/// Reads a native directory's configuration; whether it is one.
fn read_native(path: &Path) -> bool {
    // A directory is asked what it holds as it is found.
    let Ok(directory) = ModelDir::find(path.parent().unwrap()) else {
        return false;
    };
    let Ok(Some(native)) = Native::open(&directory) else {
        return false;
    };
    let _ = native.config();
    native.hardware().shortcomings(Some(1 << 30), None);
    true
}

fn inputs() -> usize {
    let given = std::env::var("SALAMANDER_INPUTS").ok();
    given.map_or(INPUTS, |text| text.parse().unwrap())
}

/// Cuts the first seed at every byte, then changes all of them at random.
fn attack(reader: &Reader, seeds: &[Vec<u8>], read: fn(&Path) -> bool) -> Tried {
    let directory = TempDir::new().unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats");
    for file in reader.beside {
        let from = fixtures.join(file);
        fs::copy(&from, directory.path().join(from.file_name().unwrap())).unwrap();
    }
    let mut trial = Trial {
        name: reader.name,
        path: directory.path().join(reader.file),
        read,
        tried: Tried::default(),
    };
    for (number, seed) in seeds.iter().enumerate() {
        trial.run(&reader.within.wrap(seed));
        let whole = number > 0 || trial.tried.refused == 0;
        assert!(whole, "{}: a whole file is refused", reader.name);
    }
    let smallest = reader.within.wrap(&seeds[0]);
    for length in (0..smallest.len()).step_by(smallest.len() / CUTS + 1) {
        trial.run(&smallest[..length]);
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ reader.name.len() as u64);
    for number in 0..inputs() {
        let seed = &seeds[number % seeds.len()];
        let other = &seeds[random.below(seeds.len())];
        let second = number / seeds.len() % 2 == 1;
        let member = (reader.within == Zip && second).then(|| mutate_member(seed, &mut random));
        if let Some(Some(bytes)) = member {
            trial.run(&bytes);
            continue;
        }
        // What is compressed is changed within or without.
        let outside = matches!(reader.within, Gzip | Zstd) && !second;
        let mut bytes = if outside {
            reader.within.wrap(seed)
        } else {
            seed.clone()
        };
        mutate(&mut bytes, other, &mut random);
        if !outside {
            bytes = reader.within.wrap(&bytes);
        }
        trial.run(&bytes);
    }
    let Tried {
        inputs,
        refused,
        peak,
        slowest,
    } = trial.tried;
    println!(
        "{:38} {inputs:6} inputs, {refused:6} refused, {:5.1} MB at most, {slowest:.1?} the slowest",
        reader.name,
        peak as f64 / 1e6,
    );
    trial.tried
}

/// A native directory's configuration with all that it can have.
const NATIVE: &str = r#"# what it is
[model]
name = "tiny"
architecture = "BERT"
version = "1.0.0"

[architecture]
vocab_size = 100
hidden_size = 8
id2label = { 0 = "NEGATIVE", 1 = "POSITIVE" }
layer_norm_eps = 1e-12

[hardware]
min_ram_gb = 2.0
recommended_ram_gb = 4
supports_cpu = true

[metrics]
accuracy = 0.895

[[training.epochs]]
loss = [0.5, inf, 1979-05-27T07:32:00Z]
"#;

/// A committed file, or a small state as we write it in a format that is ours.
fn seed(name: &str) -> Vec<u8> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats");
    let format = match name {
        "written/model.bpk" => WriteFormat::Burnpack,
        "written/state.json" => WriteFormat::Json,
        "written/model.json" => WriteFormat::JsonModel,
        "written/model.yaml" => WriteFormat::YamlModel,
        committed => return fs::read(fixtures.join(committed)).unwrap(),
    };
    let state = Checkpoint::open(fixtures.join("pytorch/list.safetensors")).unwrap();
    let directory = TempDir::new().unwrap();
    let path = directory.path().join(format.usual_name(None));
    write(&state, &path, format, &WriteOptions::default(), &|_, _| {}).unwrap();
    fs::read(path).unwrap()
}

// One test, since memory is counted for the whole process.
#[test]
fn every_reader_withstands_mutated_files() {
    let begun = Instant::now();
    let mut total = 0;
    for reader in READERS {
        let seeds: Vec<Vec<u8>> = reader.seeds.iter().map(|name| seed(name)).collect();
        total += attack(reader, &seeds, read).inputs;
    }
    let native = reader("native config.toml", "config.toml", &[], &[], Nothing);
    total += attack(&native, &[NATIVE.into()], read_native).inputs;
    println!("{total} inputs in {:.1?}", begun.elapsed());
}
