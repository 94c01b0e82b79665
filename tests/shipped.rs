//! Trained models against their reference implementations: the classifiers that come with the repository,
//! and all-MiniLM-L6-v2 where `SALAMANDER_MINILM` names its directory.
//!
//! `tools/fixtures/{sentiment,cifar,minilm}.py` make the fixtures.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use salamander::importers::Checkpoint;
use salamander::models::processing::text::Truncation;
use salamander::tasks::{
    ClassificationFunction, ImageClassification, ImageClassificationOptions, TextClassification,
    TextClassificationOptions, TextEmbedding,
};
use salamander::{Device, ModelDir};
use serde_json::Value;

const TOLERANCE: f32 = 1e-4;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn json(path: &str) -> Vec<Value> {
    serde_json::from_slice(&fs::read(root(path)).unwrap()).unwrap()
}

#[test]
fn sentiment() {
    let device = Device::from_env().unwrap();
    let model = root("assets/sentiment");
    let tokenizer = ModelDir::find(&model).unwrap().tokenizer().unwrap();
    let classify = TextClassification::open(&model, &device).unwrap();
    let options = TextClassificationOptions {
        function: Some(ClassificationFunction::None),
        ..TextClassificationOptions::default()
    };
    let logits = classify.clone().with_options(options);
    let cases = json("tests/fixtures/sentiment/expected.json");
    assert!(cases.len() >= 40);
    for case in &cases {
        let text = case["text"].as_str().unwrap();
        let ids = case["input_ids"].as_array().unwrap();
        let encoded = tokenizer
            .encode(text, None, Some(Truncation::to(512)))
            .unwrap();
        assert_eq!(
            serde_json::json!(encoded[0].get_ids()),
            Value::from(ids.clone()),
            "{text}"
        );
        let found = classify.run(text).unwrap();
        assert_eq!(found[0].name, case["label"], "{text}");
        let score = case["score"].as_f64().unwrap() as f32;
        assert!((found[0].score - score).abs() < TOLERANCE, "{text}");
        for label in logits.run(text).unwrap() {
            let class = classify
                .labels()
                .iter()
                .position(|name| *name == label.name)
                .unwrap();
            let expected = case["logits"][class].as_f64().unwrap() as f32;
            assert!(
                (label.score - expected).abs() < TOLERANCE,
                "{text}: {} for {expected}",
                label.score
            );
        }
    }
}

#[test]
fn pictures() {
    let device = Device::from_env().unwrap();
    let classify = ImageClassification::open(root("assets/cifar10"), &device).unwrap();
    let options = ImageClassificationOptions {
        function: Some(ClassificationFunction::None),
        ..ImageClassificationOptions::default()
    };
    let logits = classify.clone().with_options(options);
    let cases = json("tests/fixtures/cifar10/expected.json");
    let mut samples = 0;
    for case in &cases {
        let file = case["file"].as_str().unwrap();
        let path = root(file);
        let found = classify.run(&path).unwrap();
        assert_eq!(found[0].name, case["label"], "{file}");
        let score = case["score"].as_f64().unwrap() as f32;
        assert!((found[0].score - score).abs() < TOLERANCE, "{file}");
        for label in logits.run(&path).unwrap() {
            let mut names = classify.labels().iter();
            let class = names.position(|name| *name == label.name).unwrap();
            let expected = case["logits"][class].as_f64().unwrap() as f32;
            assert!(
                (label.score - expected).abs() < TOLERANCE,
                "{file}: {} for {expected}",
                label.score
            );
        }
        // The samples are named for what they show.
        if file.starts_with("assets") {
            assert_eq!(path.file_stem().unwrap(), &found[0].name[..]);
            samples += 1;
        }
    }
    assert_eq!((samples, cases.len()), (8, 16));
}

#[test]
fn minilm() {
    let Ok(model) = std::env::var("SALAMANDER_MINILM") else {
        println!("skipped: SALAMANDER_MINILM does not name the directory of all-MiniLM-L6-v2");
        return;
    };
    let device = Device::from_env().unwrap();
    let tokenizer = ModelDir::find(&model).unwrap().tokenizer().unwrap();
    let embed = TextEmbedding::open(&model, &device).unwrap();
    let sentences = json("tests/fixtures/minilm/sentences.json");
    let sentences: Vec<&str> = sentences
        .iter()
        .map(|text| text.as_str().unwrap())
        .collect();
    let expected = Checkpoint::open(root("tests/fixtures/minilm/expected.safetensors")).unwrap();
    let embeddings = expected.get("embeddings").unwrap().read().unwrap();
    let embeddings = embeddings.as_slice::<f32>().unwrap();
    let found = embed.run_batch(&sentences).unwrap();
    let width = found[0].len();
    assert_eq!(embeddings.len(), sentences.len() * width);
    for (index, text) in sentences.iter().enumerate() {
        let ids = expected
            .get(&format!("input_ids.{index}"))
            .unwrap()
            .read()
            .unwrap();
        let encoded = tokenizer
            .encode(text, None, Some(Truncation::to(256)))
            .unwrap();
        let found_ids: Vec<i64> = encoded[0].get_ids().iter().map(|&id| id.into()).collect();
        assert_eq!(found_ids, ids.as_slice::<i64>().unwrap(), "{text}");
        let row = &embeddings[index * width..(index + 1) * width];
        for (a, b) in found[index].iter().zip(row) {
            assert!((a - b).abs() < TOLERANCE, "{text}: {a} for {b}");
        }
    }
}
