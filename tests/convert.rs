//! Every architecture in every format gives the numbers that it gives in safetensors.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use salamander::importers::{Checkpoint, WriteFormat, gguf};
use salamander::models::{Inputs, open_class};
use salamander::native::{Hardware, Native};
use salamander::{
    Conversion, ConvertOptions, Device, ModelDir, Network, convert, dtype_named, inspect,
};
use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// Cases of every architecture, and of every dialect that has other names in Hugging Face's files.
const CASES: &[&str] = &[
    "bert/model",
    "bert/sequence-classification-single-label",
    "bert/dialect-gamma-beta",
    "bert/dialect-f16",
    "bert/dialect-bf16",
    "bert/dialect-sharded",
    "bert/masked-lm",
    "resnet/model",
    "resnet/image-classification",
    "resnet/torchvision-basic",
    "resnet/torchvision-bottleneck",
    "resnet/torchvision-module",
    "resnet/timm-d-basic",
    "resnet/cifar-a",
    "resnet/cifar-b",
    "vit/model",
    "vit/image-classification",
    "vit/timm",
    "vit/timm-distilled",
    "vit/torchvision",
    "whisper/dialect-openai",
    "whisper/classification",
    "patchtst/model",
    "patchtst/norm-eps",
];

fn quiet(options: ConvertOptions, source: &Path, target: &Path) -> Conversion {
    convert(source, target, &options, &|_| {})
        .unwrap_or_else(|error| panic!("{}: {error}", source.display()))
}

/// What the class of a case makes of its inputs, with the weights and the configuration of a directory.
fn outputs(case: &Path, model: &Path) -> Vec<(String, Vec<u8>)> {
    let directory = ModelDir::find(model).unwrap();
    let config = directory.config().unwrap();
    let checkpoint = directory.checkpoint().unwrap();
    let device = Device::from_env().unwrap();
    let opened = open_class(&config, None, &checkpoint, device.burn());
    let (_, network) = opened.unwrap_or_else(|error| panic!("{}: {error}", model.display()));
    let golden = Checkpoint::open(case.join("golden.safetensors")).unwrap();
    let inputs: Inputs = golden
        .iter()
        .filter_map(|(name, entry)| {
            let name = name.strip_prefix("input.")?;
            Some((name.to_owned(), entry.read().unwrap()))
        })
        .collect();
    let outputs = network.forward(inputs).unwrap().into_data();
    let outputs = outputs.into_iter();
    outputs
        .map(|(name, data)| (name, data.as_bytes().to_vec()))
        .collect()
}

/// Whether some are longer than GGUF's may be, as the buffers of a ResNet in Hugging Face's names are.
fn has_long_names(case: &Path) -> bool {
    let checkpoint = Checkpoint::open(case).unwrap();
    checkpoint.iter().any(|(name, _)| name.len() > 63)
}

#[test]
fn every_format_gives_every_architecture_the_same_numbers() {
    for case in CASES {
        let case = fixture(case);
        let expected = outputs(&case, &case);
        let floats = Checkpoint::open(&case).unwrap();
        for format in [
            WriteFormat::Safetensors,
            WriteFormat::PyTorch,
            WriteFormat::Npz,
            WriteFormat::Json,
            WriteFormat::JsonModel,
            WriteFormat::YamlModel,
            WriteFormat::Burnpack,
            WriteFormat::TensorFlow,
            WriteFormat::Gguf,
        ] {
            if format == WriteFormat::Gguf && has_long_names(&case) {
                continue;
            }
            let folder = tempfile::tempdir().unwrap();
            let target = folder.path().join("out");
            let options = ConvertOptions {
                format: Some(format),
                shard_size: Some(100_000),
                // llama.cpp has no names for most heads.
                keep_names: format == WriteFormat::Gguf,
                ..ConvertOptions::default()
            };
            let done = quiet(options, &case, &target);
            assert_eq!(done.largest_difference, 0.0);
            assert!(done.tensors.len() >= floats.len(), "{done:?}");
            let found = outputs(&case, &target);
            assert!(found == expected, "{} as {}", case.display(), format.name());
        }
    }
}

#[test]
fn narrower_types_give_what_their_values_give() {
    for case in CASES {
        let case = fixture(case);
        if has_long_names(&case) {
            continue;
        }
        for dtype in ["f16", "bf16", "q8_0", "q4_1"] {
            let folder = tempfile::tempdir().unwrap();
            let (narrow, wide) = (folder.path().join("narrow"), folder.path().join("wide"));
            let options = |format, dtype| ConvertOptions {
                format: Some(format),
                dtype: dtype_named(dtype),
                keep_names: true,
                ..ConvertOptions::default()
            };
            quiet(options(WriteFormat::Gguf, dtype), &case, &narrow);
            // The dequantized values, which are held against the `gguf` package's elsewhere.
            let done = quiet(options(WriteFormat::Safetensors, "f32"), &narrow, &wide);
            assert_eq!(done.largest_difference, 0.0);
            let same = outputs(&case, &narrow) == outputs(&case, &wide);
            assert!(same, "{} as {dtype}", case.display());
        }
    }
}

#[test]
fn names_are_those_that_the_target_is_used_with() {
    let folder = tempfile::tempdir().unwrap();
    let converted = |case: &str| {
        let target = folder.path().join(case.replace('/', "-"));
        let done = quiet(ConvertOptions::default(), &fixture(case), &target);
        let checkpoint = Checkpoint::open(&target).unwrap();
        let names: Vec<String> = checkpoint.iter().map(|(name, _)| name.to_owned()).collect();
        (done.renamed, names)
    };
    for (case, architecture, name) in [
        (
            "vit/timm",
            "vit",
            "vit.encoder.layer.0.attention.attention.key.bias",
        ),
        (
            "vit/torchvision",
            "vit",
            "vit.encoder.layer.0.intermediate.dense.weight",
        ),
        (
            "resnet/torchvision-basic",
            "resnet",
            "resnet.embedder.embedder.convolution.weight",
        ),
        (
            "whisper/dialect-openai",
            "whisper",
            "model.decoder.layers.0.encoder_attn.out_proj.weight",
        ),
    ] {
        let (renamed, names) = converted(case);
        assert_eq!(renamed, Some(architecture), "{case}");
        assert!(names.iter().any(|found| found == name), "{case}: {names:?}");
    }
    for case in ["vit/model", "bert/model", "patchtst/model"] {
        assert_eq!(converted(case).0, None, "{case}");
    }
}

#[test]
fn a_bert_in_gguf_has_the_names_and_keys_of_llama_cpp() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model.gguf");
    let source = fixture("../../assets/sentiment");
    let options = ConvertOptions {
        dtype: dtype_named("q8_0"),
        ..ConvertOptions::default()
    };
    let done = quiet(options, &source, &target);
    assert_eq!(done.renamed, Some("bert"));
    let file = Checkpoint::open(&target).unwrap();
    let config: Value =
        serde_json::from_slice(&fs::read(source.join("config.json")).unwrap()).unwrap();
    for (key, field) in [
        ("bert.block_count", "num_hidden_layers"),
        ("bert.embedding_length", "hidden_size"),
        ("bert.attention.head_count", "num_attention_heads"),
        ("bert.feed_forward_length", "intermediate_size"),
    ] {
        assert_eq!(file.metadata[key], config[field].to_string());
    }
    assert_eq!(file.metadata["general.architecture"], "bert");
    assert_eq!(file.metadata["tokenizer.ggml.model"], "bert");
    let tokens: Vec<String> =
        serde_json::from_str(&file.metadata["tokenizer.ggml.tokens"]).unwrap();
    assert_eq!(tokens.len() as u64, config["vocab_size"].as_u64().unwrap());
    assert!(
        tokens.contains(&"[CLS]".to_owned()) && tokens.iter().any(|t| t.starts_with('\u{2581}'))
    );
    for name in [
        "token_embd.weight",
        "blk.0.attn_q.bias",
        "blk.1.layer_output_norm.weight",
        "cls.output.weight",
    ] {
        assert!(file.get(name).is_some(), "{name}");
    }
    assert_eq!(
        file.get("blk.0.ffn_up.weight").unwrap().dtype.to_string(),
        "Q8_0"
    );
    assert_eq!(
        file.get("blk.0.ffn_up.bias").unwrap().dtype.to_string(),
        "F32"
    );
    let left_out = done
        .remarks
        .iter()
        .find(|remark| remark.contains("left out"));
    assert_eq!((left_out, file.len()), (None, done.tensors.len()));
    assert!(file.get("cls.weight").is_some() && file.get("cls.bias").is_some());
    assert_eq!(file.metadata["bert.pooling_type"], "4");
    assert!(done.largest_difference > 0.0 && done.largest_difference < 0.1);

    // It classifies as it lies, and as what Hugging Face's libraries have again.
    let back = folder.path().join("back");
    quiet(ConvertOptions::default(), &target, &back);
    let device = Device::from_env().unwrap();
    let best = |model: &Path| {
        let task = salamander::tasks::TextClassification::open(model, &device).unwrap();
        let labels = task.run("a warm, funny, engaging film").unwrap();
        let best = labels
            .into_iter()
            .max_by(|a, b| a.score.total_cmp(&b.score));
        best.map(|label| (label.name, label.score)).unwrap()
    };
    let (name, score) = best(&source);
    for model in [&target, &back] {
        let (found, other) = best(model);
        assert!(
            found == name && (score - other).abs() < 1e-2,
            "{}: {found} {other}, not {name} {score}",
            model.display()
        );
    }
    assert_eq!(best(&target), best(&back));

    // From there to other blocks, the typed keys go along.
    let again = folder.path().join("again.gguf");
    let options = ConvertOptions {
        dtype: dtype_named("q4_0"),
        ..ConvertOptions::default()
    };
    quiet(options, &target, &again);
    let keys = |path: &Path| {
        let mut keys = gguf::metadata(path).unwrap();
        keys.retain(|(key, _)| key != "general.file_type");
        keys.sort_by(|a, b| a.0.cmp(&b.0));
        keys
    };
    assert_eq!(keys(&again), keys(&target));
}

#[test]
fn what_is_there_is_not_replaced_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let source = fixture("bert/model");
    let to = |target: &Path, overwrite: bool| {
        let options = ConvertOptions {
            overwrite,
            ..ConvertOptions::default()
        };
        convert(&source, target, &options, &|_| {}).map_err(|error| error.to_string())
    };
    let file = folder.path().join("model.npz");
    assert!(to(&file, false).is_ok());
    assert!(to(&file, false).unwrap_err().contains("is there already"));
    assert!(to(&file, true).is_ok());
    assert!(
        to(folder.path(), false)
            .unwrap_err()
            .contains("model.npz is there already")
    );
}

const CONFIG: &str = r#"# what it is
[model]
name = "tiny"
architecture = "BERT"   # as papers write it
version = "1.0.0"
reviewed_by = "nobody"

[architecture]
ARCHITECTURE

[hardware]
min_ram_gb = 2.0
recommended_ram_gb = 4000000.0
supports_cpu = true
supports_gpu = true
supports_mixed_precision = true
fans = 2

[metrics]
accuracy = 0.895
model_size_mb = 440.0 # once

[training]
epochs = [1, 2]
"#;

#[test]
fn a_native_directory_is_a_model_and_keeps_what_is_not_known() {
    let folder = tempfile::tempdir().unwrap();
    let source = fixture("../../assets/sentiment");
    let native = folder.path().join("native");
    let options = ConvertOptions {
        native: true,
        ..ConvertOptions::default()
    };
    let done = quiet(options.clone(), &source, &native);
    assert_eq!(done.largest_difference, 0.0);
    for file in [
        "config.toml",
        "model.safetensors",
        "tokenizer.json",
        "README.md",
    ] {
        assert!(native.join(file).is_file(), "{file}");
    }
    assert!(!native.join("config.json").exists());
    let device = Device::from_env().unwrap();
    let text = "a warm, funny, engaging film";
    let scores = |model: &Path| {
        let task = salamander::tasks::TextClassification::open(model, &device).unwrap();
        let scores = task.run(text).unwrap().into_iter();
        scores
            .map(|label| (label.name, label.score.to_bits()))
            .collect::<Vec<_>>()
    };
    assert_eq!(scores(&native), scores(&source));
    let network = Network::open(&native, None, &device).unwrap();
    assert_eq!(network.class(), "BertForSequenceClassification");

    // The seed's own layout, with more in it than anyone knows.
    let config = ModelDir::find(&source).unwrap().config().unwrap();
    let fields = [
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
        "type_vocab_size",
    ];
    let mut lines: Vec<String> = fields
        .iter()
        .map(|f| format!("{f} = {}", config[*f]))
        .collect();
    lines.push("architectures = [\"BertForSequenceClassification\"]".to_owned());
    lines.push("id2label = { 0 = \"NEGATIVE\", 1 = \"POSITIVE\" }".to_owned());
    let written = CONFIG.replace("ARCHITECTURE", &lines.join("\n"));
    fs::write(native.join("config.toml"), &written).unwrap();
    assert_eq!(scores(&native), scores(&source));
    let copy = folder.path().join("copy");
    quiet(options, &native, &copy);
    let kept = fs::read_to_string(copy.join("config.toml")).unwrap();
    let size = fs::metadata(native.join("model.safetensors"))
        .unwrap()
        .len() as f64
        / 1e6;
    let line = kept
        .lines()
        .find(|line| line.starts_with("model_size_mb"))
        .unwrap();
    let number = line
        .trim_start_matches("model_size_mb = ")
        .trim_end_matches(" # once");
    assert!(
        (number.parse::<f64>().unwrap() - size).abs() < 0.1,
        "{line}"
    );
    assert_eq!(kept.replace(line, "model_size_mb = 440.0 # once"), written);

    // Back to a Hugging Face directory.
    let back = folder.path().join("back");
    quiet(ConvertOptions::default(), &copy, &back);
    fs::remove_file(back.join("config.toml")).unwrap();
    assert_eq!(scores(&back), scores(&source));

    let found = inspect(&native).unwrap();
    assert_eq!(found.architecture, Some("bert"));
    assert_eq!(found.shortcomings.len(), 1, "{:?}", found.shortcomings);
    assert!(found.shortcomings[0].contains("should have 4000000.0 GB"));
}

#[test]
fn hardware_is_held_against_the_machine() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    fs::write(
        &path,
        "[hardware]\nmin_ram_gb = 3\nrecommended_ram_gb = 4.5\nsupports_cpu = false\n",
    )
    .unwrap();
    let directory = ModelDir::find(folder.path()).unwrap();
    let hardware = Native::open(&directory).unwrap().unwrap().hardware();
    let expected = Hardware {
        min_ram: Some(3_000_000_000),
        recommended_ram: Some(4_500_000_000),
        cpu: Some(false),
        gpu: None,
    };
    assert_eq!(hardware, expected);
    let short = |memory| hardware.shortcomings(Some(memory), None);
    assert!(short(2_000_000_000)[0].contains("needs 3.0 GB"));
    assert!(short(4_000_000_000)[0].contains("should have 4.5 GB"));
    assert!(short(5_000_000_000).is_empty());
    let device: Device = "flex".parse().unwrap();
    let short = hardware.shortcomings(None, Some(&device));
    assert!(short[0].contains("does not run on a CPU"));
    fs::write(&path, "[hardware\n").unwrap();
    let error = Native::open(&directory).unwrap_err().to_string();
    assert!(error.contains("config.toml: not valid TOML"), "{error}");
}

/// Weights that other libraries and exporters wrote of the cases in Hugging Face's names, each with its case.
fn sources_of_cases() -> Vec<(PathBuf, String)> {
    let formats = fixture("formats");
    let mut found = Vec::new();
    let is_foreign = |name: &str| name.starts_with("timm") || name.starts_with("torchvision");
    for folder in ["onnx", "onnx/qdq", "flax", "torch"] {
        for architecture in ["bert", "patchtst", "resnet", "vit", "whisper"] {
            let Ok(items) = fs::read_dir(formats.join(folder).join(architecture)) else {
                continue;
            };
            for item in items {
                let path = item.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                let case = name.split('.').next().unwrap();
                if !is_foreign(case) {
                    found.push((path, format!("{architecture}/{case}")));
                }
            }
        }
    }
    for item in fs::read_dir(formats.join("tensorflow_models")).unwrap() {
        let path = item.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let case = name.split('.').next().unwrap().replacen('-', "/", 1);
        found.push((path, case));
    }
    let classifier = "bert/sequence-classification-single-label".to_owned();
    for item in fs::read_dir(formats.join("onnx/quantized")).unwrap() {
        let path = item.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "onnx") {
            found.push((path, classifier.clone()));
        }
    }
    for folder in ["flax/sharded", "onnx/external"] {
        found.push((formats.join(folder), classifier.clone()));
    }
    found.push((formats.join("onnx/pair"), "whisper/generation".to_owned()));
    found.sort();
    found
}

/// Puts weights, a file or a folder of them, into a new directory with a case's configuration.
fn beside_config(weights: &Path, case: &Path, directory: &Path) {
    fs::create_dir_all(directory).unwrap();
    copy_into(weights, directory);
    fs::copy(case.join("config.json"), directory.join("config.json")).unwrap();
}

fn copy_into(from: &Path, directory: &Path) {
    if !from.is_dir() {
        fs::copy(from, directory.join(from.file_name().unwrap())).unwrap();
        return;
    }
    for item in fs::read_dir(from).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            let inner = directory.join(path.file_name().unwrap());
            fs::create_dir_all(&inner).unwrap();
            copy_into(&path, &inner);
        } else {
            copy_into(&path, directory);
        }
    }
}

#[test]
fn every_source_of_a_model_becomes_its_own_safetensors() {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources_of_cases();
    assert!(sources.len() >= 60, "{}", sources.len());
    let mut failures = Vec::new();
    for (at, (weights, case)) in sources.into_iter().enumerate() {
        let directory = folder.path().join(at.to_string());
        beside_config(&weights, &fixture(&case), &directory);
        let expected = Checkpoint::open(fixture(&case)).unwrap();
        // Fewer bits, and what an exporter folded, are other values.
        let text = weights.to_string_lossy().into_owned();
        let others = text.contains("/onnx/q") || text.contains("/onnx/resnet");
        for format in [
            WriteFormat::Safetensors,
            WriteFormat::PyTorch,
            WriteFormat::Npz,
        ] {
            let target = folder.path().join(format!("{at}-{}", format.name()));
            let options = ConvertOptions {
                format: Some(format),
                ..ConvertOptions::default()
            };
            quiet(options, &directory, &target);
            let found = Checkpoint::open(&target).unwrap();
            let names = |checkpoint: &Checkpoint| {
                let entries = checkpoint.iter();
                let names = entries.map(|(name, entry)| (name.to_owned(), entry.shape.clone()));
                // An output layer that is tied may be stored again.
                let names = names.filter(|(name, _)| name != "proj_out.weight");
                names.collect::<BTreeMap<_, _>>()
            };
            if names(&found) != names(&expected) {
                let (found, expected) = (names(&found), names(&expected));
                let lacking = expected
                    .iter()
                    .filter(|(name, _)| !found.contains_key(*name));
                let more = found
                    .iter()
                    .filter(|(name, _)| !expected.contains_key(*name));
                failures.push(format!(
                    "{text} as {}: lacks {:?}, has {:?}",
                    format.name(),
                    lacking.collect::<Vec<_>>(),
                    more.collect::<Vec<_>>()
                ));
                continue;
            }
            for (name, entry) in expected.iter().filter(|_| !others) {
                let (found, expected) = (found.get(name).unwrap().read(), entry.read());
                let same = found.unwrap().as_bytes() == expected.unwrap().as_bytes();
                assert!(same, "{text} as {}: {name} differs", format.name());
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A case's tensors under other names, in a new directory with the configuration.
fn renamed(case: &str, directory: &Path, rename: &dyn Fn(&str) -> Vec<String>) -> PathBuf {
    let case = fixture(case);
    fs::create_dir_all(directory).unwrap();
    fs::copy(case.join("config.json"), directory.join("config.json")).unwrap();
    let checkpoint = Checkpoint::open(&case).unwrap();
    let entries = checkpoint.iter().flat_map(|(name, entry)| {
        let names = rename(name).into_iter();
        names.map(|name| (name, entry.clone())).collect::<Vec<_>>()
    });
    let entries: Vec<_> = entries.collect();
    let file = directory.join("model.safetensors");
    let options = salamander::importers::WriteOptions::default();
    let written = salamander::importers::write(
        &checkpoint.with_entries(entries),
        &file,
        WriteFormat::Safetensors,
        &options,
        &|_, _| {},
    );
    written.unwrap();
    directory.to_owned()
}

#[test]
fn every_architecture_is_found_under_the_prefixes_of_trainers() {
    let folder = tempfile::tempdir().unwrap();
    let device = Device::from_env().unwrap();
    let mut at = 0;
    for case in [
        "bert/sequence-classification-single-label",
        "bert/model",
        "vit/image-classification",
        "vit/timm",
        "vit/torchvision",
        "resnet/image-classification",
        "resnet/torchvision-basic",
        "whisper/dialect-openai",
        "patchtst/prediction",
    ] {
        let expected = outputs(&fixture(case), &fixture(case));
        let mut directory = || {
            at += 1;
            folder.path().join(at.to_string())
        };
        for prefix in [
            "model.",
            "net.",
            "backbone.",
            "_orig_mod.module.",
            "module._orig_mod.",
            "model._orig_mod.module.",
            "student.encoder_q.",
            "0.",
        ] {
            let moved = renamed(case, &directory(), &|name| vec![format!("{prefix}{name}")]);
            let found = outputs(&fixture(case), &moved);
            assert!(found == expected, "{case} under {prefix}");
            let target = moved.join("converted");
            let done = quiet(ConvertOptions::default(), &moved, &target);
            assert!(
                done.tensors
                    .iter()
                    .all(|tensor| !tensor.name.starts_with(prefix) || prefix == "model."),
                "{case} under {prefix}: {:?}",
                done.tensors
            );
            assert!(
                outputs(&fixture(case), &target) == expected,
                "{case} {prefix}"
            );
        }
        // Two of them are not to be told apart, and one is taken when it is named.
        let twice = renamed(case, &directory(), &|name| {
            vec![format!("online.{name}"), format!("target.{name}")]
        });
        let error = Network::open(&twice, None, &device)
            .unwrap_err()
            .to_string();
        assert!(error.contains("`online.`, `target.`"), "{case}: {error}");
        let named = device.clone().with_prefix("target");
        Network::open(&twice, None, &named).unwrap();
        let options = ConvertOptions {
            prefix: Some("target.".to_owned()),
            ..ConvertOptions::default()
        };
        let target = twice.join("converted");
        quiet(options, &twice, &target);
        assert!(outputs(&fixture(case), &target) == expected, "{case} named");
        // What is not there is said in the names of the file.
        let odd = renamed(case, &directory(), &|name| {
            let kept = !name.ends_with(".bias");
            let name = format!("net.{name}");
            if kept { vec![name] } else { Vec::new() }
        });
        let error = Network::open(&odd, None, &device).unwrap_err().to_string();
        assert!(error.contains("missing     net."), "{case}: {error}");
    }
}

#[test]
fn parts_of_models_are_refused_by_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let device = Device::from_env().unwrap();
    for (at, (part, said)) in [
        ("base_model.model.NAME.lora_A.weight", "merge_and_unload"),
        ("shadow_params.NAME", "torch_ema"),
        ("_fsdp_wrapped_module.NAME._flat_param", "FULL_STATE_DICT"),
    ]
    .into_iter()
    .enumerate()
    {
        let directory = folder.path().join(at.to_string());
        let rename = |name: &str| vec![part.replace("NAME", name)];
        let model = renamed("bert/model", &directory, &rename);
        let error = Network::open(&model, None, &device)
            .unwrap_err()
            .to_string();
        assert!(error.contains(said), "{part}: {error}");
    }
}

#[test]
fn a_missing_head_is_answered_with_the_tasks_there_are() {
    let device = Device::from_env().unwrap();
    let config = ModelDir::find(fixture("bert/masked-lm")).unwrap();
    let (config, checkpoint) = (config.config().unwrap(), config.checkpoint().unwrap());
    let task = salamander::models::Task::QuestionAnswering;
    let error = salamander::models::open(&config, task, &checkpoint, device.burn()).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("it has no qa_outputs; it can be opened for text-embedding, fill-mask")
            || text.contains("it has no qa_outputs; it can be opened for fill-mask"),
        "{text}"
    );
}

#[test]
fn a_gguf_of_another_architecture_is_called_by_its_name() {
    let device = Device::from_env().unwrap();
    let file = fixture("formats/families/gpt2.gguf");
    let error = Network::open(&file, None, &device).unwrap_err().to_string();
    assert!(
        error.contains("\"gpt2\", which is not in the zoo"),
        "{error}"
    );
}

#[test]
fn variables_of_any_tensorflow_checkpoint_are_converted_and_texts_are_said() {
    let folder = tempfile::tempdir().unwrap();
    let source = fixture("formats/tensorflow/objects.index");
    let target = folder.path().join("objects.safetensors");
    let done = quiet(ConvertOptions::default(), &source, &target);
    let said = done.remarks.join("; ");
    assert!(said.contains("_CHECKPOINTABLE_OBJECT_GRAPH"), "{said}");
    assert!(!done.tensors.is_empty());
    assert_eq!(done.largest_difference, 0.0);
}

#[test]
fn what_cannot_be_written_is_left_out_only_when_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let source = renamed("bert/model", &folder.path().join("source"), &|name| {
        vec![name.replace("pooler", &"long".repeat(20))]
    });
    fs::remove_file(source.join("config.json")).unwrap();
    let file = source.join("model.safetensors");
    let to = |name: &str, options: ConvertOptions| {
        let options = ConvertOptions {
            keep_names: true,
            ..options
        };
        let target = folder.path().join(name);
        convert(&file, &target, &options, &|_| {}).map_err(|error| error.to_string())
    };
    let patterns = |patterns: &[&str]| patterns.iter().map(|&pattern| pattern.into()).collect();
    let error = to("a.gguf", ConvertOptions::default()).unwrap_err();
    assert!(
        error.contains("63 at most") && error.contains("--skip"),
        "{error}"
    );
    assert!(!folder.path().join("a.gguf").exists());
    let all = Checkpoint::open(&file).unwrap().len();
    let skipped = to(
        "b.gguf",
        ConvertOptions {
            skip: true,
            ..ConvertOptions::default()
        },
    );
    let skipped = skipped.unwrap();
    assert_eq!(skipped.tensors.len(), all - 2);
    let said = skipped
        .remarks
        .iter()
        .filter(|remark| remark.starts_with("left out: `long"));
    assert_eq!(said.count(), 2);
    let excluded = to(
        "c.gguf",
        ConvertOptions {
            exclude: patterns(&["*long*"]),
            ..ConvertOptions::default()
        },
    );
    assert_eq!(excluded.unwrap().tensors.len(), all - 2);
    let included = to(
        "d.safetensors",
        ConvertOptions {
            include: patterns(&[
                "encoder.layer.*.query.*",
                "embeddings.word_embeddings.weight",
            ]),
            exclude: patterns(&["*.bias"]),
            ..ConvertOptions::default()
        },
    );
    let names: Vec<String> = included
        .unwrap()
        .tensors
        .into_iter()
        .map(|tensor| tensor.name)
        .collect();
    assert!(names.len() >= 2, "{names:?}");
    assert!(
        names
            .iter()
            .all(|name| name.ends_with("query.weight")
                || name == "embeddings.word_embeddings.weight")
    );
    let error = to(
        "e.safetensors",
        ConvertOptions {
            include: patterns(&["nothing"]),
            ..ConvertOptions::default()
        },
    );
    let error = error.unwrap_err();
    assert!(error.contains("left out by the patterns"), "{error}");
    assert!(!folder.path().join("e.safetensors").exists());
}

#[test]
fn a_conversion_that_would_write_no_tensor_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.safetensors");
    fs::write(&empty, [&2_u64.to_le_bytes()[..], b"{}"].concat()).unwrap();
    let target = folder.path().join("out.npz");
    let done = convert(&empty, &target, &ConvertOptions::default(), &|_| {});
    let error = done.unwrap_err().to_string();
    assert!(error.contains("nothing to write"), "{error}");
    assert!(!target.exists());
}

#[test]
fn transformers_loads_what_is_renamed() {
    let named = std::env::var("SALAMANDER_PYTHON").ok();
    let python = named.unwrap_or_else(|| "python3".to_owned());
    let found = Command::new(&python)
        .args(["-c", "import torch, transformers"])
        .output();
    if !found.is_ok_and(|output| output.status.success()) {
        println!(
            "skipped: `{python}` lacks torch or transformers; SALAMANDER_PYTHON names another"
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        "vit/timm",
        "vit/torchvision",
        "resnet/torchvision-basic",
        "whisper/dialect-openai",
    ];
    let cases = cases.map(|case| (fixture(case), fixture(case).join("golden.safetensors")));
    // transformers wants the usual padding token of a Whisper, which one of forty tokens does not have.
    let mlx = ["bert-examples", "vit-8-bits", "resnet-6-bits"].map(|name| {
        let folder = fixture("formats/mlx_models");
        (
            folder.join(name),
            folder.join(format!("{name}.golden.safetensors")),
        )
    });
    // Other sources of the same models, put beside the configuration and the inputs of each.
    let sources = folder.path().join("sources");
    let others = sources_of_cases().into_iter().filter(|(path, _)| {
        // Fewer bits give other numbers, which the names of the same files are held for elsewhere.
        !path.to_string_lossy().contains("/onnx/q")
    });
    let others = others.enumerate().map(|(at, (weights, case))| {
        let source = sources.join(format!("{at}-{}", case.replace('/', "-")));
        beside_config(&weights, &fixture(&case), &source);
        (source, fixture(&case).join("golden.safetensors"))
    });
    let others: Vec<_> = others.collect();
    let targets = folder.path().join("targets");
    fs::create_dir(&targets).unwrap();
    for (case, golden) in cases.into_iter().chain(mlx).chain(others) {
        for (ending, format) in [
            ("st", WriteFormat::Safetensors),
            ("pt", WriteFormat::PyTorch),
        ] {
            let name = case.file_name().unwrap().to_string_lossy();
            let target = targets.join(format!("{name}-{ending}"));
            let options = ConvertOptions {
                format: Some(format),
                ..ConvertOptions::default()
            };
            quiet(options, &case, &target);
            fs::copy(&golden, target.join("golden")).unwrap();
        }
    }
    let script = fixture("../../tools/check_renamed.py");
    let output = Command::new(python)
        .arg(script)
        .arg(&targets)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    print!("{}", String::from_utf8_lossy(&output.stdout));
}

/// A checkpoint's tensors by name: type, shape, bytes.
fn tensors(path: &Path) -> BTreeMap<String, (String, Vec<usize>, Vec<u8>)> {
    let checkpoint = Checkpoint::open(path).unwrap();
    let entries = checkpoint.iter().map(|(name, entry)| {
        let bytes = entry.stored().unwrap().to_vec();
        (
            name.to_owned(),
            (entry.dtype.to_string(), entry.shape.clone(), bytes),
        )
    });
    entries.collect()
}

#[test]
fn families_that_do_not_run_go_between_gguf_and_hugging_face() {
    let folder = tempfile::tempdir().unwrap();
    for case in ["gpt2", "t5", "t5-gated"] {
        let reference = fixture("formats/families").join(case);
        let file = reference.with_extension("gguf");
        let directory = folder.path().join(case);
        let done = quiet(ConvertOptions::default(), &file, &directory);
        assert_eq!(done.renamed, Some(case.trim_end_matches("-gated")));
        // What transformers stores once for several parameters has one name here and there.
        assert_eq!(tensors(&directory), tensors(&reference), "{case}");
        let parsed = |path: &Path| -> Value {
            serde_json::from_slice(&fs::read(path.join("config.json")).unwrap()).unwrap()
        };
        let (found, expected) = (parsed(&directory), parsed(&reference));
        for (field, value) in found.as_object().unwrap() {
            let same = match (value.as_f64(), expected[field].as_f64()) {
                (Some(found), Some(expected)) => found as f32 == expected as f32,
                // Where they are what is usual, transformers leaves them out.
                _ => *value == expected[field] || expected[field].is_null(),
            };
            assert!(same, "{case}: {field} is {value}, not {}", expected[field]);
        }
        let tokenizer = ModelDir::find(&directory).unwrap().tokenizer().unwrap();
        let tried = fs::read(reference.with_extension("json")).unwrap();
        let tried: Vec<Value> = serde_json::from_slice(&tried).unwrap();
        for one in tried {
            let text = one["text"].as_str().unwrap();
            let mut ids: Vec<u32> = serde_json::from_value(one["ids"].clone()).unwrap();
            if case != "gpt2" {
                // The end is no piece of the text.
                assert_eq!(ids.pop(), Some(1));
            }
            assert_eq!(tokenizer.pieces(text).unwrap(), ids, "{case}: {text}");
        }

        // And back, from what transformers wrote.
        let source = folder.path().join(format!("{case}-source"));
        fs::create_dir(&source).unwrap();
        for name in ["config.json", "model.safetensors"] {
            fs::copy(reference.join(name), source.join(name)).unwrap();
        }
        fs::copy(
            directory.join("tokenizer.json"),
            source.join("tokenizer.json"),
        )
        .unwrap();
        let again = folder.path().join(format!("{case}.gguf"));
        let done = quiet(ConvertOptions::default(), &source, &again);
        assert_eq!(done.largest_difference, 0.0);
        assert_eq!(tensors(&again), tensors(&file), "{case}");
        let (found, expected) = (
            Checkpoint::open(&again).unwrap(),
            Checkpoint::open(&file).unwrap(),
        );
        for (key, value) in &expected.metadata {
            assert_eq!(found.metadata.get(key), Some(value), "{case}: {key}");
        }
    }
}

#[test]
fn a_bert_in_a_tensorflow_checkpoint_has_googles_names_and_layouts() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model.ckpt");
    let options = ConvertOptions {
        format: Some(WriteFormat::TensorFlow),
        ..ConvertOptions::default()
    };
    let done = quiet(options, &fixture("bert/pretraining"), &target);
    assert_eq!(done.renamed, Some("bert"));
    assert_eq!(done.files.len(), 2);
    let found = tensors(&target);
    let reference = "formats/tensorflow_models/bert-pretraining.google/bert_model.ckpt.index";
    let mut expected = tensors(&fixture(reference));
    expected.retain(|name, _| !name.ends_with("/adam_m") && !name.ends_with("/adam_v"));
    expected.remove("global_step");
    assert_eq!(found, expected);
    // Other architectures keep their names.
    let target = folder.path().join("vit.ckpt.index");
    let done = quiet(ConvertOptions::default(), &fixture("vit/model"), &target);
    assert_eq!(done.renamed, None);
    assert_eq!(done.largest_difference, 0.0);
}

#[test]
fn a_bert_in_gguf_without_a_vocabulary_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let (file, back) = (folder.path().join("m.gguf"), folder.path().join("back"));
    let case = fixture("bert/model");
    let done = quiet(ConvertOptions::default(), &case, &file);
    assert_eq!(done.renamed, Some("bert"));
    quiet(ConvertOptions::default(), &file, &back);
    assert!(!back.join("tokenizer.json").exists());
    assert!(outputs(&case, &back) == outputs(&case, &case));
}

#[test]
fn weights_without_a_configuration_are_converted_as_what_they_show() {
    let folder = tempfile::tempdir().unwrap();
    let alone = |case: &str| {
        let name = case.replace('/', "-");
        let file = folder.path().join(format!("{name}.safetensors"));
        fs::copy(fixture(case).join("model.safetensors"), &file).unwrap();
        let target = folder.path().join(name);
        (quiet(ConvertOptions::default(), &file, &target), target)
    };
    let case = fixture("resnet/torchvision-basic");
    let (done, target) = alone("resnet/torchvision-basic");
    assert_eq!(done.renamed, Some("resnet"));
    assert!(done.remarks[0].contains("torchvision"), "{done:?}");
    assert!(outputs(&case, &target) == outputs(&case, &case));
    // What the shapes leave open is asked for, and until then nothing is renamed.
    let (done, target) = alone("bert/model");
    assert_eq!(done.renamed, None);
    let said = done.remarks.join("; ");
    assert!(said.contains("num_attention_heads"), "{said}");
    assert_eq!(tensors(&target), tensors(&fixture("bert/model")));
}

#[test]
fn a_weight_file_alone_opens_by_what_it_shows() {
    let device = Device::from_env().unwrap();
    for case in ["bert/model", "resnet/torchvision-basic", "vit/timm"] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.safetensors");
        fs::copy(fixture(case).join("model.safetensors"), &file).unwrap();
        let by_file = Network::open(&file, None, &device).map(|network| network.class());
        let by_folder = Network::open(folder.path(), None, &device).map(|network| network.class());
        let text = |error: salamander::Error| error.to_string();
        let (by_file, by_folder) = (by_file.map_err(text), by_folder.map_err(text));
        println!("{case}: {by_file:?}");
        match (by_file, by_folder) {
            (Ok(file), Ok(folder)) => assert_eq!(file, folder),
            // What the shapes do not tell is asked for in the same way.
            (Err(file), Err(folder)) => assert_eq!(file.replace("/model.safetensors", ""), folder),
            (file, folder) => panic!("{case}: {file:?}, {folder:?}"),
        }
    }
}

#[test]
fn names_stay_where_transformers_has_no_such_model() {
    let folder = tempfile::tempdir().unwrap();
    for case in ["resnet/cifar-a", "resnet/cifar-b", "resnet/timm-d-basic"] {
        let target = folder.path().join(case.replace('/', "-"));
        let done = quiet(ConvertOptions::default(), &fixture(case), &target);
        assert_eq!(done.renamed, None, "{case}");
        let said = done.remarks.join("; ");
        assert!(
            said.contains("no names for this variant of resnet"),
            "{case}: {said}"
        );
        let (source, found) = (fixture(case), Checkpoint::open(&target).unwrap());
        for (name, _) in Checkpoint::open(source).unwrap().iter() {
            assert!(found.get(name).is_some(), "{case}: {name}");
        }
    }
}

#[test]
fn a_tensorflow_checkpoint_is_named_by_its_prefix() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = folder.path().join("model.ckpt");
    let options = ConvertOptions {
        format: Some(WriteFormat::TensorFlow),
        ..ConvertOptions::default()
    };
    let files = quiet(options, &fixture("bert/model"), &folder.path().join("all")).files;
    for file in files {
        let ending = file.file_name().unwrap().to_string_lossy().into_owned();
        let (_, ending) = ending.rsplit_once('.').unwrap();
        fs::copy(&file, folder.path().join(format!("model.ckpt.{ending}"))).unwrap();
    }
    let target = folder.path().join("out.safetensors");
    let done = quiet(ConvertOptions::default(), &prefix, &target);
    assert!(
        done.remarks[0].contains("model.ckpt.index is read"),
        "{done:?}"
    );
    assert!(
        ModelDir::find(&prefix)
            .unwrap()
            .path()
            .ends_with("model.ckpt.index")
    );
}
