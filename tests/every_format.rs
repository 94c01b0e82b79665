//! Every format that can carry an architecture gives what its safetensors give.
//!
//! `tools/fixtures/` makes the files from the models of `tests/fixtures/ARCHITECTURE/CASE`. What stores the same
//! numbers must give the same logits to the bit.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use salamander::importers::Checkpoint;
use salamander::models::processing::text::{TextTokenizer, TokenizerFiles};
use salamander::models::{Inputs, contained_files, open_class};
use salamander::tasks::{SpeechRecognition, SpeechRecognitionOptions, SpeechTask, TextEmbedding};
use salamander::{Audio, Device};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// What the weights make of a case's inputs.
fn outputs(case: &str, weights: &Path) -> Result<BTreeMap<String, TensorData>, String> {
    let case = fixtures().join(case);
    let config = case.join("config.json");
    forward(&config, None, weights, &case.join("golden.safetensors"))
}

/// What the weights make of the inputs in a golden file.
fn forward(
    config: &Path,
    class: Option<&str>,
    weights: &Path,
    golden: &Path,
) -> Result<BTreeMap<String, TensorData>, String> {
    let device = Device::from_env().unwrap();
    let config = serde_json::from_slice(&fs::read(config).unwrap()).unwrap();
    let checkpoint = Checkpoint::open(weights).map_err(|error| error.to_string())?;
    let (_, model) = open_class(&config, class, &checkpoint, device.burn())
        .map_err(|error| error.to_string())?;
    let golden = Checkpoint::open(golden).unwrap();
    let inputs: Inputs = golden
        .iter()
        .filter_map(|(name, entry)| {
            Some((
                name.strip_prefix("input.")?.to_owned(),
                entry.read().unwrap(),
            ))
        })
        .collect();
    Ok(model.forward(inputs).unwrap().into_data())
}

/// The largest difference from what the case's own safetensors give.
fn difference(case: &str, weights: &Path) -> Result<f32, String> {
    let expected = outputs(case, &fixtures().join(case)).unwrap();
    let found =
        outputs(case, weights).map_err(|error| format!("{}: {error}", weights.display()))?;
    assert_eq!(found.len(), expected.len());
    let mut worst: f32 = 0.0;
    for (name, expected) in expected {
        let (found, expected) = (
            found[&name].try_to_vec::<f32>().unwrap(),
            expected.try_to_vec::<f32>().unwrap(),
        );
        assert_eq!(found.len(), expected.len());
        assert!(found.iter().all(|value| value.is_finite()));
        let differences = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        worst = worst.max(differences.fold(0.0, f32::max));
    }
    println!("{}: {worst:e}", weights.display());
    Ok(worst)
}

/// Holds every file of `formats/FOLDER/ARCHITECTURE/CASE.ANYTHING` against its case, and counts them.
fn check(folder: &str, allowed: impl Fn(&Path) -> f32) -> usize {
    let mut failures = Vec::new();
    let mut count = 0;
    for architecture in ["bert", "patchtst", "resnet", "vit", "whisper"] {
        let folder = fixtures().join("formats").join(folder).join(architecture);
        let Ok(items) = fs::read_dir(folder) else {
            continue;
        };
        for item in items {
            let path = item.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let case = format!("{architecture}/{}", name.split_once('.').unwrap().0);
            count += 1;
            match difference(&case, &path) {
                Ok(worst) if worst <= allowed(&path) => {}
                Ok(worst) => failures.push(format!("{}: differs by {worst:e}", path.display())),
                Err(error) => failures.push(error),
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    count
}

#[test]
fn onnx_exports_give_the_same_logits() {
    // Exporters fold norms into convolutions with arithmetic of their own.
    let folded = |path: &Path| path.components().any(|part| part.as_os_str() == "resnet");
    let count = check("onnx", |path| if folded(path) { 1e-5 } else { 0.0 });
    assert_eq!(count, 33);
    let external = fixtures().join("formats/onnx/external/model.onnx");
    let case = "bert/sequence-classification-single-label";
    assert_eq!(difference(case, &external), Ok(0.0));
    let pair = fixtures().join("formats/onnx/pair");
    assert_eq!(difference("whisper/generation", &pair), Ok(0.0));
}

#[test]
fn quantized_onnx_models_load_whole() {
    let case = "bert/sequence-classification-single-label";
    let mut worst: f32 = 0.0;
    for item in fs::read_dir(fixtures().join("formats/onnx/quantized")).unwrap() {
        let path = item.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "onnx") {
            let differs = difference(case, &path).unwrap();
            assert!(differs > 0.0);
            worst = worst.max(differs);
        }
    }
    // Four bits are coarse for so small a model; another layer's weights would differ by more.
    assert!(worst < 1.0, "{worst}");
}

#[test]
fn quantized_onnx_models_give_the_logits_of_the_values_that_onnx_runtime_reads() {
    for case in [
        "resnet/image-classification",
        "vit/image-classification",
        "patchtst/prediction",
        "whisper/generation",
    ] {
        let quantized = fixtures().join(format!("formats/onnx/qdq/{case}.onnx"));
        let found = outputs(case, &quantized).unwrap();
        let floats = quantized.with_extension("float.onnx");
        assert_eq!(found, outputs(case, &floats).unwrap(), "{case}");
        let differs = difference(case, &quantized).unwrap();
        assert!(differs > 0.0 && differs < 1.0, "{case}: {differs}");
    }
}

#[test]
fn pytorchs_other_containers_give_the_same_logits() {
    assert_eq!(check("torch", |_| 0.0), 10);
}

#[test]
fn flax_weights_give_the_same_logits() {
    assert_eq!(check("flax", |_| 0.0), 7);
    let case = "bert/sequence-classification-single-label";
    let sharded = fixtures().join("formats/flax/sharded");
    assert_eq!(difference(case, &sharded), Ok(0.0));
}

#[test]
fn models_in_mlx_give_the_logits_of_the_values_that_mlx_reads() {
    let root = fixtures().join("formats/mlx_models");
    let mut count = 0;
    for item in fs::read_dir(&root).unwrap() {
        let folder = item.unwrap().path();
        let Some(name) = folder.file_name().filter(|_| folder.is_dir()) else {
            continue;
        };
        let name = name.to_str().unwrap();
        // OpenAI's sizes name no class.
        let class = name
            .starts_with("whisper")
            .then_some("WhisperForConditionalGeneration");
        let golden = root.join(format!("{name}.golden.safetensors"));
        let config = folder.join("config.json");
        let values = root.join(format!("{name}.safetensors"));
        let found = forward(&config, class, &folder, &golden).unwrap();
        let same = forward(&config, class, &values, &golden).unwrap();
        let golden = Checkpoint::open(golden).unwrap();
        for (key, expected) in golden.iter() {
            let Some(key) = key.strip_prefix("output.") else {
                continue;
            };
            // What MLX does not store is computed, and that is not the same to the bit everywhere.
            let computed = name.starts_with("whisper");
            assert!(
                computed || found[key].as_bytes() == same[key].as_bytes(),
                "{name}: {key}"
            );
            let expected = expected.read().unwrap().try_into_vec::<f32>().unwrap();
            let found = found[key].try_to_vec::<f32>().unwrap();
            assert_eq!(found.len(), expected.len(), "{name}: {key}");
            let differences = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
            let worst = differences.fold(0.0, f32::max);
            println!("{name}: {key} {worst:e}");
            assert!(worst < 1e-4, "{name}: {key} differs by {worst:e}");
            count += 1;
        }
    }
    assert!(count >= 9, "{count}");
}

#[test]
fn a_whisper_cpp_file_transcribes_as_its_safetensors() {
    let root = fixtures().join("formats/ggml");
    let device = Device::from_env().unwrap();
    let options = SpeechRecognitionOptions {
        temperatures: vec![0.0],
        compression_ratio_threshold: None,
        logprob_threshold: None,
        no_speech_threshold: None,
        task: Some(SpeechTask::Transcribe),
        ..SpeechRecognitionOptions::default()
    };
    let sound = fixtures().join("whisper_audio/sound.wav");
    let sound = Audio::open(sound, 16_000).unwrap();
    let open = |name: &str| SpeechRecognition::open(root.join(name), &device).unwrap();
    for (language, prompt) in [
        (None, None),
        (Some("german"), None),
        (Some("en"), Some("the thing")),
    ] {
        let options = SpeechRecognitionOptions {
            language: language.map(str::to_owned),
            prompt: prompt.map(str::to_owned),
            ..options.clone()
        };
        let run = |name: &str| {
            let model = open(name).with_options(options.clone()).unwrap();
            model.run_audio(&sound, |_| {}).unwrap()
        };
        let expected = run("whisper");
        let tokens = expected.segments.iter().flat_map(|segment| &segment.tokens);
        assert!(tokens.count() > 5);
        assert_eq!(run("whisper-f32.bin"), expected);
    }
    for name in ["whisper-f16.bin", "whisper-q8_0.bin", "whisper-q5_0.bin"] {
        let model = open(name).with_options(options.clone()).unwrap();
        model.run_audio(&sound, |_| {}).unwrap();
    }
}

#[test]
fn a_whisper_cpp_vocabulary_is_the_reference_tokenizer() {
    let root = fixtures().join("formats/ggml");
    let checkpoint = Checkpoint::open(root.join("whisper-f32.bin")).unwrap();
    let files = contained_files(&checkpoint).unwrap().unwrap();
    let tokenizer = TextTokenizer::new(&TokenizerFiles {
        tokenizer: files.get("tokenizer.json").cloned(),
        ..TokenizerFiles::default()
    });
    let tokenizer = tokenizer.unwrap();
    let cases: serde_json::Value =
        serde_json::from_slice(&fs::read(root.join("tokens.json")).unwrap()).unwrap();
    for case in cases.as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(tokenizer.pieces(text).unwrap(), ids, "{text}");
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
    }
}

#[test]
fn an_embedding_model_in_one_gguf_file_embeds_as_its_directory() {
    let device = Device::from_env().unwrap();
    let texts = [
        "the cat and the dog",
        "London is a big city (fast)!",
        "Ünknown words",
        "",
    ];
    for case in ["mean-nonorm", "cls", "lasttoken"] {
        let file = fixtures().join(format!("formats/gguf_embedding/{case}.gguf"));
        let directory = fixtures().join(format!("text_tasks/text-embedding-{case}"));
        let embed = |path: &Path| {
            let model = TextEmbedding::open(path, &device).unwrap();
            model.run_batch(&texts).unwrap()
        };
        let (found, expected) = (embed(&file), embed(&directory));
        for (found, expected) in found.iter().zip(&expected) {
            // Some directories normalise behind the pooling, which no GGUF says.
            let length = |vector: &[f32]| vector.iter().map(|v| v * v).sum::<f32>().sqrt();
            let (a, b) = (length(found), length(expected));
            let differences = found
                .iter()
                .zip(expected)
                .map(|(x, y)| (x / a - y / b).abs());
            let worst = differences.fold(0.0, f32::max);
            assert!(worst < 1e-6, "{case}: {worst}");
        }
    }
}
