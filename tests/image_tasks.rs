//! The image tasks against the reference's pipelines, on tiny random models.
//!
//! `tools/fixtures/image_tasks.py` makes the fixtures. The device comes from `SALAMANDER_DEVICE`.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use salamander::Device;
use salamander::models::processing::image::Image;
use salamander::tasks::{
    ClassificationFunction, ImageClassification, ImageClassificationOptions, ImageEmbedding,
    ImageEmbeddingOptions,
};
use serde_json::{Value, json};
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn device() -> Device {
    Device::from_env().unwrap()
}

/// A model of another fixture with a processor beside it.
fn model(name: &str, processor: &Value) -> TempDir {
    let directory = TempDir::new().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(fixture(name).join(file), directory.path().join(file)).unwrap();
    }
    let path = directory.path().join("preprocessor_config.json");
    fs::write(path, processor.to_string()).unwrap();
    directory
}

fn cases(task: &str) -> Vec<Value> {
    let text = fs::read(fixture("image_tasks.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_slice(&text).unwrap();
    let cases = cases.into_iter().filter(|case| case["task"] == task);
    let cases: Vec<Value> = cases.collect();
    assert!(!cases.is_empty());
    cases
}

#[track_caller]
fn assert_close(found: f32, expected: &Value) {
    let expected = expected.as_f64().unwrap();
    assert!(
        (f64::from(found) - expected).abs() <= 1e-4,
        "{found} for {expected}"
    );
}

#[test]
fn classification_answers_as_the_reference() {
    for case in cases("image-classification") {
        let directory = model(case["model"].as_str().unwrap(), &case["processor"]);
        let options = ImageClassificationOptions {
            top_k: case["options"]["top_k"].as_u64().map(|k| k as usize),
            function: case["options"]["function_to_apply"]
                .as_str()
                .map(|name| match name {
                    "sigmoid" => ClassificationFunction::Sigmoid,
                    _ => ClassificationFunction::None,
                }),
        };
        let task = ImageClassification::open(directory.path(), &device()).unwrap();
        let task = task.with_options(options);
        let answers = case["answers"].as_object().unwrap();
        let files: Vec<PathBuf> = answers
            .keys()
            .map(|file| fixture("images/files").join(file))
            .collect();
        let batch = task.run_batch(&files).unwrap();
        for ((file, expected), found) in answers.iter().zip(batch) {
            let expected = expected.as_array().unwrap();
            assert_eq!(found.len(), expected.len(), "{file}");
            for (label, expected) in found.iter().zip(expected) {
                assert_eq!(label.name, expected["label"], "{file}");
                assert_close(label.score, &expected["score"]);
            }
        }
        // A path, its bytes and the decoded picture are the same input.
        let bytes = fs::read(&files[0]).unwrap();
        let image = Image::decode(&bytes).unwrap();
        let by_path = task.run(&files[0]).unwrap();
        assert_eq!(by_path, task.run(&bytes).unwrap());
        assert_eq!(by_path, task.run(&image).unwrap());
    }
}

#[test]
fn embedding_answers_as_the_reference() {
    for case in cases("image-feature-extraction") {
        let directory = model(case["model"].as_str().unwrap(), &case["processor"]);
        let task = ImageEmbedding::open(directory.path(), &device()).unwrap();
        for (file, expected) in case["answers"].as_object().unwrap() {
            let found = task.run(&fixture("images/files").join(file)).unwrap();
            let expected = expected.as_array().unwrap();
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.into_iter().zip(expected) {
                assert_close(found, expected);
            }
        }
        let unit = task.with_options(ImageEmbeddingOptions { normalize: true });
        let vector = unit.run(&fixture("images/files/rgb.png")).unwrap();
        let length: f32 = vector.iter().map(|value| value * value).sum();
        assert!((length - 1.0).abs() < 1e-5);
        let none: [&str; 0] = [];
        assert!(unit.run_batch(none).unwrap().is_empty());
    }
}

#[test]
fn a_classifier_gives_vectors_too() {
    let processor = &cases("image-classification")[0]["processor"];
    let directory = model("vit/image-classification", processor);
    let task = ImageEmbedding::open(directory.path(), &device()).unwrap();
    let vector = task.run(&fixture("images/files/rgb.png")).unwrap();
    assert_eq!(vector.len(), 12);
}

/// Answers of a directory with other settings of pictures.
fn answers(changes: impl Fn(&Path)) -> Vec<(String, f32)> {
    let processor = &cases("image-classification")[0]["processor"];
    let directory = model("vit/image-classification", processor);
    changes(directory.path());
    let task = ImageClassification::open(directory.path(), &device()).unwrap();
    let labels = task.run(&fixture("images/files/rgb.png")).unwrap();
    labels
        .into_iter()
        .map(|label| (label.name, label.score))
        .collect()
}

#[test]
fn a_processor_may_be_told_by_the_model_or_lie_elsewhere() {
    let expected = answers(|_| {});
    let put = |directory: &Path, name: &str, json: Value| {
        fs::write(directory.join(name), json.to_string()).unwrap();
    };
    let own = "preprocessor_config.json";
    let nested = "processor_config.json";
    let size = json!({"height": 24, "width": 24});
    for json in [
        json!({"size": 24}),
        json!({"size": size, "image_processor_type": null}),
        json!({"size": [24, 24], "feature_extractor_type": "ViTFeatureExtractor"}),
        json!({"size": size, "image_processor_type": "ViTImageProcessorFast", "image_mean": [0.5], "image_std": 0.5}),
        json!({"size": size, "do_rescale": null, "resample": null, "do_convert_rgb": true}),
    ] {
        assert_eq!(
            answers(|directory| put(directory, own, json.clone())),
            expected,
            "{json}"
        );
    }
    // What is nested goes before the file that was there before it.
    let found = answers(|directory| {
        put(directory, own, json!({"size": 7}));
        put(
            directory,
            nested,
            json!({"image_processor": {"size": size}, "processor_class": "ViTProcessor"}),
        );
    });
    assert_eq!(found, expected);
    let found = answers(|directory| {
        put(
            directory,
            nested,
            json!({"processor_class": "ViTProcessor"}),
        );
    });
    assert_eq!(found, expected);
    let processor = &cases("image-classification")[0]["processor"];
    let directory = model("vit/image-classification", processor);
    fs::remove_file(directory.path().join(own)).unwrap();
    put(
        directory.path(),
        nested,
        json!({"image_processor": {"size": "big"}}),
    );
    let error = ImageClassification::open(directory.path(), &device()).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("processor_config.json: `size`: \"big\""),
        "{error}"
    );
    assert!(!error.contains("preprocessor"), "{error}");
}
