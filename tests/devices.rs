//! The same answers on every device: the shipped models' tasks against the CPU, warm-ups, and what a machine
//! has.
//!
//! The device comes from `SALAMANDER_DEVICE`. Where it is `flex` itself there is nothing to hold it against.

#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::path::PathBuf;
use std::time::Instant;

use salamander::Device;
use salamander::tasks::{
    Forecast, ImageClassification, ImageEmbedding, Label, SpeechRecognition,
    SpeechRecognitionOptions, TableOptions, TextClassification, TextEmbedding,
};

fn asset(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("assets")
        .join(path)
}

/// The device under test, and the CPU.
fn devices() -> [Device; 2] {
    [Device::from_env().unwrap(), Device::flex()]
}

fn close(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let allowed = tolerance * expected.abs().max(1.0);
        assert!(
            (found - expected).abs() <= allowed,
            "{found}, not {expected}"
        );
    }
}

fn same(found: &[Label], expected: &[Label]) {
    let names = |labels: &[Label]| -> Vec<String> {
        let mut names: Vec<String> = labels.iter().map(|label| label.name.clone()).collect();
        names.sort();
        names
    };
    assert_eq!(names(found), names(expected));
    for label in found {
        let other = expected.iter().find(|other| other.name == label.name);
        close(&[label.score], &[other.unwrap().score], 1e-4);
    }
}

/// What `run` gives on the device and on the CPU, with the times of its first and second call on the device.
fn both<T>(what: &str, mut run: impl FnMut(&Device) -> T) -> [T; 2] {
    let [device, cpu] = devices();
    let begin = Instant::now();
    let found = run(&device);
    println!("{what} on {device}: {:.1?}", begin.elapsed());
    [found, run(&cpu)]
}

#[test]
fn texts() {
    let sentences = ["a warm, funny, engaging film", "dull", "not good, not bad"];
    let [found, expected] = both("text-classification", |device| {
        let task = TextClassification::open(asset("sentiment"), device).unwrap();
        assert!(!task.warm_up().unwrap().is_zero());
        let begin = Instant::now();
        let answers = task.run_batch(sentences).unwrap();
        println!("after the warm-up on {device}: {:.1?}", begin.elapsed());
        answers
    });
    for (found, expected) in found.iter().zip(&expected) {
        same(found, expected);
    }
    let [found, expected] = both("text-embedding", |device| {
        let task = TextEmbedding::open(asset("sentiment"), device).unwrap();
        task.run_batch(&sentences).unwrap()
    });
    for (found, expected) in found.iter().zip(&expected) {
        close(found, expected, 1e-4);
    }
}

#[test]
fn pictures() {
    let samples = ["cat.png", "ship.png"].map(|name| asset("cifar10/samples").join(name));
    let [found, expected] = both("image-classification", |device| {
        let task = ImageClassification::open(asset("cifar10"), device).unwrap();
        assert!(!task.warm_up().unwrap().is_zero());
        task.run_batch(&samples).unwrap()
    });
    for (found, expected) in found.iter().zip(&expected) {
        same(found, expected);
    }
    let [found, expected] = both("image-embedding", |device| {
        let task = ImageEmbedding::open(asset("cifar10"), device).unwrap();
        task.run_batch(&samples).unwrap()
    });
    for (found, expected) in found.iter().zip(&expected) {
        close(found, expected, 1e-4);
    }
}

#[test]
fn series() {
    let [found, expected] = both("forecast", |device| {
        let task = Forecast::open(asset("forecast"), device).unwrap();
        assert!(!task.warm_up().unwrap().is_zero());
        let columns = TableOptions::default();
        let horizon = task.forecasts().horizon;
        let (_, answer) = task
            .run_csv(&asset("forecast/sample.csv"), &columns, horizon)
            .unwrap();
        answer
    });
    for (found, expected) in found.series.iter().zip(&expected.series) {
        close(&found.mean, &expected.mean, 1e-4);
        for (found, expected) in found.quantiles.iter().zip(&expected.quantiles) {
            close(&found.values, &expected.values, 1e-3);
        }
    }
}

/// Decoding step by step with a cache, on which fusion and autotuning together have gone wrong upstream:
/// <https://github.com/tracel-ai/burn/issues/5257>.
#[test]
fn speech() {
    let [found, expected] = both("speech-recognition", |device| {
        let options = SpeechRecognitionOptions {
            temperatures: vec![0.0],
            ..SpeechRecognitionOptions::default()
        };
        let task = SpeechRecognition::open(asset("speech"), device).unwrap();
        let task = task.with_options(options).unwrap();
        assert!(!task.warm_up().unwrap().is_zero());
        let begin = Instant::now();
        let transcript = task.run(asset("speech/sample.flac")).unwrap();
        println!("after the warm-up on {device}: {:.1?}", begin.elapsed());
        transcript
    });
    assert!(!found.text.is_empty());
    assert_eq!(found.text, expected.text);
    for (found, expected) in found.segments.iter().zip(&expected.segments) {
        assert_eq!(found.tokens, expected.tokens);
        close(&[found.mean_logprob], &[expected.mean_logprob], 1e-3);
    }
}

#[test]
fn a_task_goes_on_on_another_device() {
    let [device, cpu] = devices();
    let mut answers = Vec::new();
    for device in [&device, &cpu, &device] {
        let task = TextClassification::open(asset("sentiment"), device).unwrap();
        assert_eq!(task.device().to_string(), device.to_string());
        answers.push(task.run("a warm, funny, engaging film").unwrap());
    }
    same(&answers[0], &answers[1]);
    same(&answers[0], &answers[2]);
}
