//! Every architecture against its reference implementation, on tiny random models.
//!
//! `tools/fixtures/` makes the fixtures. The device comes from `SALAMANDER_DEVICE`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use salamander::Device;
use salamander::importers::{Checkpoint, Dtype};
use salamander::models::{Finding, Inputs, Model, Task, detect, open, open_class};
use serde_json::Value;

const TOLERANCE: f32 = 1e-4;

/// Beside f32: how far a tensor may be from the reference in proportion to its size, both by the root of
/// the sum of squares. These are random models of few and narrow layers, whose errors average out the least.
const NARROW: [(Dtype, f32); 4] = [
    (Dtype::F16, 0.005),
    (Dtype::BF16, 0.015),
    (Dtype::I8, 0.04),
    (Dtype::INT4, 0.45),
];

/// A fixture whose activation, the integral of a narrow bell, is so steep that it doubles what int8 loses.
const STEEP: &str = "hidden-act-laplace";

fn root(architecture: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    fixtures.join(architecture)
}

/// The cases of an architecture.
fn cases(architecture: &str) -> Vec<PathBuf> {
    let mut cases: Vec<PathBuf> = fs::read_dir(root(architecture))
        .unwrap()
        .map(|item| item.unwrap().path())
        .collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

fn config(case: &Path) -> Value {
    let text = fs::read_to_string(case.join("config.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A case's model and what the reference made of its inputs.
struct Golden {
    model: Box<dyn Model>,
    tensors: Checkpoint,
}

impl Golden {
    fn open(case: &Path, device: &Device) -> Result<Self, String> {
        Self::with(case, &config(case), device)
    }

    fn with(case: &Path, config: &Value, device: &Device) -> Result<Self, String> {
        let checkpoint = Checkpoint::open(case).map_err(|error| error.to_string())?;
        let checkpoint = checkpoint.computed_in(device.dtype().clone());
        let opened = open_class(config, None, &checkpoint, device.burn());
        let (_, model) = opened.map_err(|error| error.to_string())?;
        let tensors = Checkpoint::open(case.join("golden.safetensors")).unwrap();
        Ok(Self { model, tensors })
    }

    fn under(&self, prefix: &str) -> Vec<(String, TensorData)> {
        let named = self.tensors.iter().filter_map(|(name, entry)| {
            Some((name.strip_prefix(prefix)?.to_owned(), entry.read().unwrap()))
        });
        named.collect()
    }

    fn inputs(&self) -> Inputs {
        self.under("input.").into_iter().collect()
    }

    /// What differs first: an intermediate, so that the name tells the layer, or an output.
    fn check(&self) -> Result<f32, String> {
        self.compare(distance)
    }

    fn compare(&self, distance: Distance) -> Result<f32, String> {
        let mut worst: f32 = 0.0;
        let parts = self
            .model
            .intermediates(self.inputs())
            .map_err(|error| error.to_string())?;
        for (name, part) in parts {
            let key = format!("intermediate.{name}");
            let expected = self
                .tensors
                .get(&key)
                .ok_or(format!("the fixture has no {key}"))?;
            let expected = expected.read().unwrap();
            worst = worst.max(distance(&name, &part.into_data(), &expected)?);
        }
        let outputs = self
            .model
            .forward(self.inputs())
            .map_err(|error| error.to_string())?;
        let outputs = outputs.into_data();
        let expected = self.under("output.");
        if outputs.len() != expected.len() {
            return Err(format!("outputs are {:?}", outputs.keys()));
        }
        for (name, expected) in expected {
            let output = outputs.get(&name).ok_or(format!("no output {name}"))?;
            worst = worst.max(distance(&name, output, &expected)?);
        }
        Ok(worst)
    }
}

type Distance = fn(&str, &TensorData, &TensorData) -> Result<f32, String>;

/// How far a tensor is in proportion to its size.
fn proportion(_: &str, found: &TensorData, expected: &TensorData) -> Result<f32, String> {
    let (found, expected) = (
        found.as_slice::<f32>().unwrap(),
        expected.as_slice::<f32>().unwrap(),
    );
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b) * (a - b));
    let size: f32 = expected.iter().map(|value| value * value).sum();
    Ok((differences.sum::<f32>() / size.max(1e-12)).sqrt())
}

/// An architecture with linear layers narrower than f32, as far as the device has them.
fn narrow_products(architecture: &str) {
    let device = Device::from_env().unwrap();
    let mut failures = Vec::new();
    for (dtype, tolerance) in NARROW {
        let device = match device.clone().with_dtype(dtype) {
            Ok(device) => device,
            Err(reason) => {
                println!("skipped: {reason}");
                continue;
            }
        };
        let mut worst = (0.0, String::new());
        for case in cases(architecture) {
            let case_name = format!("{}", case.display());
            let golden = Golden::open(&case, &device).unwrap();
            let found = golden.compare(proportion).unwrap();
            let tolerance = match case.ends_with(STEEP) {
                true => 2.0 * tolerance,
                false => tolerance,
            };
            // A comparison with NaN fails.
            if found.is_nan() || found > tolerance {
                failures.push(format!("{case_name} on {device}: differs by {found}"));
            }
            if found > worst.0 {
                worst = (found, case_name);
            }
        }
        println!(
            "{architecture} on {device}: at most {} in {}",
            worst.0, worst.1
        );
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn narrow_products_of_bert() {
    narrow_products("bert");
}

#[test]
fn narrow_products_of_patchtst() {
    narrow_products("patchtst");
}

#[test]
fn narrow_products_of_resnet() {
    narrow_products("resnet");
}

#[test]
fn narrow_products_of_vit() {
    narrow_products("vit");
}

#[test]
fn narrow_products_of_whisper() {
    narrow_products("whisper");
}

fn distance(name: &str, found: &TensorData, expected: &TensorData) -> Result<f32, String> {
    if found.shape() != expected.shape() {
        return Err(format!(
            "{name}: shape {:?}, not {:?}",
            found.shape(),
            expected.shape()
        ));
    }
    let (found, expected) = (
        found.as_slice::<f32>().unwrap(),
        expected.as_slice::<f32>().unwrap(),
    );
    let worst = found
        .iter()
        .zip(expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    // `max` passes over NaN, which no fixture expects.
    if worst > TOLERANCE || found.iter().any(|value| value.is_nan()) {
        return Err(format!("{name}: differs by {worst}"));
    }
    Ok(worst)
}

fn check(architecture: &str) {
    let device = Device::from_env().unwrap();
    let mut failures = Vec::new();
    let mut worst: f32 = 0.0;
    let cases = cases(architecture);
    for case in &cases {
        match Golden::open(case, &device).and_then(|golden| golden.check()) {
            Ok(distance) => worst = worst.max(distance),
            Err(reason) => failures.push(format!("{}: {reason}", case.display())),
        }
    }
    println!(
        "{architecture} on {device}: {} cases, largest difference {worst:e}",
        cases.len()
    );
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn patchtst() {
    check("patchtst");
}

#[test]
fn bert() {
    check("bert");
}

#[test]
fn a_task_takes_its_head_from_any_checkpoint_that_has_one() {
    let device = Device::from_env().unwrap();
    for (case, task, output) in [
        ("pretraining", Task::FillMask, "logits"),
        ("pretraining", Task::TextEmbedding, "last_hidden_state"),
        (
            "token-classification",
            Task::TextEmbedding,
            "last_hidden_state",
        ),
        ("masked-lm", Task::TextEmbedding, "last_hidden_state"),
    ] {
        let case = root("bert").join(case);
        let config = config(&case);
        let checkpoint = Checkpoint::open(&case).unwrap();
        let model = open(&config, task, &checkpoint, device.burn()).unwrap();
        let ids = TensorData::new(vec![1_i64, 2, 3], [1, 3]);
        let outputs = model.forward(Inputs::new().with("input_ids", ids)).unwrap();
        assert!(
            outputs.into_data().contains_key(output),
            "{task} of {}",
            case.display()
        );
    }
}

#[test]
fn resnet() {
    check("resnet");
}

#[test]
fn whisper() {
    check("whisper");
}

#[test]
fn vit() {
    check("vit");
}

/// Cases whose checkpoint holds another class's tensors too, which is taken for it.
const OTHER_CLASS: &[&str] = &[
    "assistant",
    "assistant-alone",
    "assistant-in-whole-model",
    "backbone",
    "backbone-features",
    "backbone-indices",
    "dialect-superfluous",
    "dialect-trunk-of-prediction",
    "dialect-trunk-with-prefix",
    "dialect-without-prefix",
];

/// What the checkpoint shows is left out of each configuration; what is found instead gives the same numbers.
#[test]
fn names_and_shapes_stand_in_for_a_configuration() {
    let device = Device::from_env().unwrap();
    let mut failures = Vec::new();
    let mut count = 0;
    let architectures = ["bert", "patchtst", "resnet", "vit", "whisper"];
    for case in architectures.into_iter().flat_map(cases) {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        if OTHER_CLASS.contains(&&name[..]) {
            continue;
        }
        let given = config(&case);
        let mut left = given.clone();
        let checkpoint = Checkpoint::open(&case).unwrap();
        // What is shown is the same with and without what cannot be.
        for field in detect(&checkpoint, &given).unwrap().fields {
            if matches!(field.finding, Finding::Shown { .. }) {
                left.as_object_mut().unwrap().remove(field.name);
            }
        }
        let found = detect(&checkpoint, &left);
        let opened = found.map_err(|error| error.to_string()).and_then(|found| {
            let config = found.config(&left).map_err(|error| error.to_string())?;
            Golden::with(&case, &config, &device)?.check()
        });
        count += 1;
        if let Err(reason) = opened {
            failures.push(format!("{}: {reason}", case.display()));
        }
    }
    println!("{count} cases opened by what their checkpoints show");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
