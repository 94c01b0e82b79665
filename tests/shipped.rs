//! Trained models against their reference implementations: those that come with the repository, and
//! all-MiniLM-L6-v2 where `SALAMANDER_MINILM` names its directory.
//!
//! `tools/fixtures/{sentiment,cifar,recordings,minilm}.py` make the fixtures.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use salamander::importers::Checkpoint;
use salamander::models::processing::text::Truncation;
use salamander::tasks::{
    ClassificationFunction, ImageClassification, ImageClassificationOptions, SpeechRecognition,
    SpeechRecognitionOptions, TextClassification, TextClassificationOptions, TextEmbedding,
    Transcript,
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
    assert_eq!((samples, cases.len()), (8, 18));
}

#[test]
fn speech() {
    let device = Device::from_env().unwrap();
    let open = |timestamps| {
        // Nothing is drawn.
        let options = SpeechRecognitionOptions {
            timestamps,
            temperatures: vec![0.0],
            compression_ratio_threshold: None,
            logprob_threshold: None,
            no_speech_threshold: None,
            ..SpeechRecognitionOptions::default()
        };
        let model = SpeechRecognition::open(root("assets/speech"), &device);
        model.unwrap().with_options(options).unwrap()
    };
    let (timed, plain) = (open(true), open(false));
    let cases = json("tests/fixtures/speech/expected.json");
    assert!(cases.len() >= 10);
    let file = |case: &Value| root(case["file"].as_str().unwrap());
    let mut transcripts = Vec::new();
    let mut tokens = 0;
    for case in &cases {
        let transcript = timed.run(file(case)).unwrap();
        assert_eq!(transcript.language.as_deref(), Some("en"));
        // The reference has segments for noise, too; a segment without text is none here.
        let expected = case["segments"].as_array().unwrap();
        let expected = expected.iter().filter(|segment| segment["text"] != "");
        let expected: Vec<&Value> = expected.collect();
        let name = &case["file"];
        assert_eq!(transcript.segments.len(), expected.len(), "{name}");
        for (found, expected) in transcript.segments.iter().zip(expected) {
            assert_eq!(
                serde_json::json!(found.tokens),
                expected["tokens"],
                "{name}"
            );
            assert_eq!(expected["text"], found.text, "{name}");
            let start = expected["start"].as_f64().unwrap();
            assert!(
                (found.start - start).abs() < 1e-6,
                "{name}: {}",
                found.start
            );
            // No segment ends after the recording.
            let end = expected["end"].as_f64().unwrap();
            assert!(found.end < end + 1e-6, "{name}: {}", found.end);
            tokens += found.tokens.len();
        }
        transcripts.push(transcript);
        if let Some(expected) = case.get("plain") {
            let transcript = plain.run(file(case)).unwrap();
            let found: Vec<u32> = transcript
                .segments
                .iter()
                .flat_map(|segment| segment.tokens.clone())
                .collect();
            assert_eq!(serde_json::json!(found), *expected, "{name}");
            tokens += found.len();
        }
    }
    println!("{tokens} tokens of {} recordings", cases.len());

    // Side by side they say what each says alone.
    let files: Vec<PathBuf> = cases.iter().map(file).collect();
    let together = timed.run_batch(&files).unwrap();
    assert_eq!(together.len(), transcripts.len());
    for (together, alone) in together.iter().zip(&transcripts) {
        assert_eq!(together.text, alone.text);
        let tokens = |transcript: &Transcript| {
            let segments = transcript.segments.iter();
            segments.map(|s| s.tokens.clone()).collect::<Vec<_>>()
        };
        assert_eq!(tokens(together), tokens(alone));
    }
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
