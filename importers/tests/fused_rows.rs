//! Several parameters out of the rows of one stored tensor.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};
use salamander_importers::{Checkpoint, KeyMap, LoadError, Row, load, safetensors};

#[derive(Module, Debug)]
struct Projections {
    query: Linear,
    key: Linear,
    value: Linear,
}

impl Projections {
    fn new(inputs: usize, outputs: usize) -> Self {
        let linear = || LinearConfig::new(inputs, outputs).init(&Device::default());
        Self {
            query: linear(),
            key: linear(),
            value: linear(),
        }
    }
}

const ROWS: &[Row] = &[
    ("qkv[0/3]", "query"),
    ("qkv[1/3]", "key"),
    ("qkv[2/3]", "value"),
];

/// A fused projection of two inputs to three times two outputs, whose elements count from 0.
fn checkpoint(directory: &tempfile::TempDir) -> Checkpoint {
    let weight: Vec<f32> = (0..12_u8).map(f32::from).collect();
    let bias: Vec<f32> = (0..6_u8).map(f32::from).collect();
    let tensors = BTreeMap::from([
        ("qkv.weight".to_owned(), TensorData::new(weight, [6, 2])),
        ("qkv.bias".to_owned(), TensorData::new(bias, [6])),
    ]);
    let path = directory.path().join("model.safetensors");
    safetensors::write(&path, &tensors, BTreeMap::new()).unwrap();
    Checkpoint::open(&path).unwrap()
}

#[test]
fn each_parameter_gets_its_block() {
    let directory = tempfile::tempdir().unwrap();
    let map = KeyMap::new(ROWS, &[""]);
    let module = load(
        Projections::new(2, 2),
        "Projections",
        &map,
        &checkpoint(&directory),
    );
    let module = module.unwrap();
    let input = Tensor::<2>::from_data([[1.0, 10.0]], &Device::default());
    for (linear, expected) in [
        (&module.query, [10.0, 33.0]),
        (&module.key, [56.0, 79.0]),
        (&module.value, [102.0, 125.0]),
    ] {
        let found = linear.forward(input.clone()).into_data();
        assert_eq!(found.as_slice::<f32>().unwrap(), expected);
    }
}

#[test]
fn a_fused_tensor_of_another_size_is_reported_once() {
    let directory = tempfile::tempdir().unwrap();
    let map = KeyMap::new(ROWS, &[""]);
    let error = load(
        Projections::new(2, 3),
        "Projections",
        &map,
        &checkpoint(&directory),
    );
    let Err(LoadError::Keys(report)) = error else {
        unreachable!("{error:?}");
    };
    let lines: Vec<String> = report
        .mismatched
        .iter()
        .map(|mismatch| format!("{} {}", mismatch.key, mismatch.expected))
        .collect();
    assert_eq!(lines, ["qkv.weight floats [9, 2]", "qkv.bias floats [9]"]);
    assert!(report.missing.is_empty() && report.unexpected.is_empty());
}
