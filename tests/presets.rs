//! The presets against the names and shapes that torchvision, timm and the CIFAR repository store, without
//! the weights: the files are holes of the right size.
//!
//! `tools/fixtures/presets.py` makes the fixture.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use salamander::{Device, Network};
use serde_json::{Map, Value, json};

/// A tensor's name and shape.
type Tensor = (String, Vec<usize>);

/// A safetensors file of zeros that takes no room on disk.
fn hollow(path: &Path, tensors: &[Tensor]) {
    let mut header = Map::new();
    let mut end = 0;
    for (name, shape) in tensors {
        let (dtype, size) = match name.ends_with("num_batches_tracked") {
            true => ("I64", 8),
            false => ("F32", 4),
        };
        let begin = end;
        end += shape.iter().product::<usize>() * size;
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, end]});
        header.insert(name.clone(), entry);
    }
    let header = Value::Object(header).to_string();
    let mut file = File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes())
        .unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len((8 + header.len() + end) as u64).unwrap();
}

#[test]
fn presets_have_the_tensors_of_their_libraries() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/presets.json");
    let presets: BTreeMap<String, Vec<Tensor>> =
        serde_json::from_reader(File::open(path).unwrap()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let device = Device::from_env().unwrap();
    let mut failures = Vec::new();
    for (name, tensors) in &presets {
        let path = directory.path().join("model.safetensors");
        hollow(&path, tensors);
        if let Err(error) = Network::open(&path, Some(name), &device) {
            failures.push(format!("{name}: {error}"));
        }
    }
    println!("{} presets", presets.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
