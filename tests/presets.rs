//! The presets against the names and shapes that torchvision, timm and the CIFAR repository store, without
//! the weights: the files are holes of the right size.
//!
//! `tools/fixtures/presets.py` makes the fixture.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::Path;

use salamander::models::processing::image::Image;
use salamander::tasks::ImageClassification;
use salamander::{Device, Network, inspect};
use serde_json::{Map, Value, json};

/// A tensor's name and shape.
type Tensor = (String, Vec<usize>);

/// What the libraries store, by preset.
fn presets() -> BTreeMap<String, Vec<Tensor>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/presets.json");
    serde_json::from_reader(File::open(path).unwrap()).unwrap()
}

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
    let presets = presets();
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

#[test]
fn presets_know_the_names_of_their_classes() {
    let presets = presets();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    let labels = |name: &str, tensors: &[Tensor]| {
        hollow(&path, tensors);
        let device = Device::from_env().unwrap();
        let task = ImageClassification::open_as(&path, name, &device).unwrap();
        task.labels().to_vec()
    };
    for name in ["torchvision/resnet18", "timm/vit_tiny_patch16_224"] {
        let labels = labels(name, &presets[name]);
        assert_eq!(labels.len(), 1000);
        let distinct: BTreeSet<&String> = labels.iter().collect();
        assert_eq!(distinct.len(), 1000);
        // The first, the last, and the bird and the machine of one name.
        for (class, expected) in [
            (0, "tench"),
            (134, "crane bird"),
            (517, "crane"),
            (999, "toilet tissue"),
        ] {
            assert_eq!(labels[class], expected);
        }
    }
    let name = "cifar/resnet20";
    assert_eq!(labels(name, &presets[name])[9], "truck");

    // Fine-tuned for three classes of somebody's own.
    let name = "torchvision/resnet18";
    let mut tensors = presets[name].clone();
    for (key, shape) in &mut tensors {
        if key.starts_with("fc.") {
            shape[0] = 3;
        }
    }
    assert_eq!(labels(name, &tensors), ["LABEL_0", "LABEL_1", "LABEL_2"]);
}

#[test]
fn the_configurations_of_timm_are_understood() {
    let directory = tempfile::tempdir().unwrap();
    let tensors = &presets()["timm/vit_tiny_patch16_224"];
    hollow(&directory.path().join("model.safetensors"), tensors);
    let names: Vec<String> = (0..1000).map(|index| format!("n{index}")).collect();
    let mut config = json!({
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 1000,
        "label_names": names,
        "label_descriptions": {"n0": "a newt"},
        "pretrained_cfg": {
            "input_size": [3, 224, 224],
            "crop_pct": 0.9,
            "crop_mode": "center",
            "interpolation": "bicubic",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
        },
    });
    let open = |config: &Value| {
        let path = directory.path().join("config.json");
        std::fs::write(path, config.to_string()).unwrap();
        ImageClassification::open(directory.path(), &Device::from_env().unwrap())
    };
    let task = open(&config).unwrap();
    let found = inspect(directory.path()).unwrap();
    assert_eq!(
        (found.architecture, &found.classes[..], &found.tasks[..]),
        (
            Some("vit"),
            &["ViTForImageClassification".to_owned()][..],
            &["image-classification".to_owned()][..]
        )
    );
    let picture = Image::new(3, 2, vec![90; 18]).unwrap();
    // Without weights every class is as likely.
    let labels = task.run(&picture).unwrap();
    assert_eq!(
        (labels.len(), &labels[0].name[..], &labels[1].name[..]),
        (1000, "a newt", "n1")
    );
    assert!((labels[0].score - 0.001).abs() < 1e-6);

    for (field, value, says) in [
        (
            "model_args",
            json!({"reg_tokens": 4}),
            "`model_args.reg_tokens`: 4",
        ),
        (
            "architecture",
            json!("vit_so400m_patch14"),
            "\"timm/vit_so400m_patch14\" is not a preset",
        ),
        (
            "pretrained_cfg",
            json!({"input_size": [3, 8, 8], "crop_mode": "random"}),
            "\"random\"",
        ),
    ] {
        let before = config[field].clone();
        config[field] = value;
        let error = open(&config).unwrap_err().to_string();
        assert!(error.contains(says), "{error} does not say {says}");
        let refused = inspect(directory.path()).unwrap().refused.unwrap();
        assert!(refused.contains(says), "{refused} does not say {says}");
        config[field] = before;
    }
}

#[test]
fn a_preset_is_found_under_the_attribute_of_a_trainer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    let device = Device::from_env().unwrap();
    for prefix in ["model.", "net.", "backbone.", "module.model."] {
        let tensors = presets()["torchvision/resnet18"].clone().into_iter();
        let tensors: Vec<Tensor> = tensors
            .map(|(name, mut shape)| {
                // Of ten classes.
                if name.starts_with("fc.") {
                    shape[0] = 10;
                }
                (format!("{prefix}{name}"), shape)
            })
            .collect();
        hollow(&path, &tensors);
        let task = ImageClassification::open_as(&path, "torchvision/resnet18", &device).unwrap();
        assert_eq!(task.labels().len(), 10, "{prefix}");
    }
}
