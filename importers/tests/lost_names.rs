//! Exported graphs whose weights have lost their names: they are told apart by the graph, or not at all.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::Device;
use salamander_importers::{Checkpoint, KeyMap, LoadError, load};
use tempfile::TempDir;

#[derive(Module, Debug)]
struct Two {
    first: Linear,
    second: Linear,
}

fn field(number: u8, value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(value.len()).unwrap();
    assert!(length < 128);
    [&[number << 3 | 2, length][..], value].concat()
}

/// A 2 × 2 matrix of one value.
fn weight(name: &str, value: f32) -> Vec<u8> {
    let raw = value.to_le_bytes().repeat(4);
    let parts = [
        vec![1 << 3, 2, 1 << 3, 2, 2 << 3, 1],
        field(8, name.as_bytes()),
        field(9, &raw),
    ];
    field(5, &parts.concat())
}

fn node(op: &str, inputs: [&str; 2], output: &str) -> Vec<u8> {
    let inputs = inputs.map(|input| field(1, input.as_bytes())).concat();
    let rest = [field(2, output.as_bytes()), field(4, op.as_bytes())].concat();
    field(1, &[inputs, rest].concat())
}

/// What a model of these nodes gives the two layers, by the value of their weights.
fn loaded(nodes: &[Vec<u8>]) -> Result<[f32; 2], LoadError> {
    // The file's order says nothing.
    let weights = [weight("onnx::MatMul_9", 2.0), weight("onnx::MatMul_7", 1.0)].concat();
    let inputs = ["x", "y"].map(|name| field(11, &field(1, name.as_bytes())));
    let graph = [nodes.concat(), weights, inputs.concat()].concat();
    let (low, high) = (graph.len() as u8 & 127 | 128, (graph.len() >> 7) as u8);
    let model = [&[1 << 3, 10, 7 << 3 | 2, low, high][..], &graph].concat();
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("model.onnx");
    fs::write(&path, model).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let linear = || {
        let config = LinearConfig::new(2, 2).with_bias(false);
        config.init(&Device::default())
    };
    let two = Two {
        first: linear(),
        second: linear(),
    };
    let two = load(two, "Two", &KeyMap::new(&[], &[""]), &checkpoint)?;
    let value = |linear: &Linear| {
        let data = linear.weight.val().into_data();
        data.try_to_vec::<f32>().unwrap()[0]
    };
    Ok([value(&two.first), value(&two.second)])
}

#[test]
fn the_flow_of_the_graph_says_which_is_which() {
    // One behind the other.
    let chain = [
        node("MatMul", ["x", "onnx::MatMul_7"], "a"),
        node("Relu", ["a", ""], "b"),
        node("MatMul", ["b", "onnx::MatMul_9"], "c"),
    ];
    assert_eq!(loaded(&chain).unwrap(), [1.0, 2.0]);
    // Both sides of a product, the second one's node first.
    let product = [
        node("MatMul", ["x", "onnx::MatMul_9"], "a"),
        node("MatMul", ["x", "onnx::MatMul_7"], "b"),
        node("Transpose", ["a", ""], "c"),
        node("MatMul", ["b", "c"], "d"),
    ];
    assert_eq!(loaded(&product).unwrap(), [1.0, 2.0]);
    // Each at an input of its own.
    let inputs = [
        node("MatMul", ["x", "onnx::MatMul_7"], "a"),
        node("MatMul", ["y", "onnx::MatMul_9"], "b"),
        node("Add", ["a", "b"], "c"),
    ];
    assert!(loaded(&inputs).is_err());
    let inputs = [&inputs[..2], &[node("Relu", ["a", ""], "c")]].concat();
    assert_eq!(loaded(&inputs).unwrap(), [1.0, 2.0]);
}

#[test]
fn what_could_change_places_is_an_error_that_lists_the_candidates() {
    let sum = [
        node("MatMul", ["x", "onnx::MatMul_7"], "a"),
        node("MatMul", ["x", "onnx::MatMul_9"], "b"),
        node("Add", ["a", "b"], "c"),
    ];
    let error = loaded(&sum).unwrap_err();
    let LoadError::Keys(report) = &error else {
        panic!("{error}");
    };
    assert_eq!(report.missing.len(), 2);
    let [ambiguous] = &report.ambiguous[..] else {
        panic!("{error}");
    };
    assert_eq!(ambiguous.parameters, ["first.weight", "second.weight"]);
    assert_eq!(ambiguous.candidates, ["onnx::MatMul_7", "onnx::MatMul_9"]);
    let text = error.to_string();
    assert!(text.contains("may each be onnx::MatMul_7"), "{text}");
}
