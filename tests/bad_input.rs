//! Models and texts that are not as they should be: each is an error that says which file, where and what
//! to do; none is a panic.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use salamander::tasks::{FillMask, QuestionAnswering, TextClassification, TokenClassification};
use salamander::{Device, Error, Network, inspect};
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

/// A copy of a model directory, to be spoiled.
fn copy(name: &str) -> TempDir {
    let directory = TempDir::new().unwrap();
    for item in fs::read_dir(fixture(name)).unwrap() {
        let path = item.unwrap().path();
        if path.is_file() {
            fs::copy(&path, directory.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    directory
}

/// What opening a classifier says when its `config.json` has these fields instead.
fn refused_config(changes: Value) -> String {
    let directory = copy("text_tasks/text-classification");
    let path = directory.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (field, value) in changes.as_object().unwrap() {
        config[field] = value.clone();
    }
    fs::write(&path, config.to_string()).unwrap();
    let error = TextClassification::open(directory.path(), &device())
        .unwrap_err()
        .to_string();
    let name = directory.path().to_str().unwrap();
    assert!(error.contains(name), "{error} does not name the directory");
    error
}

#[test]
fn configurations_are_refused_by_field_and_value() {
    for (changes, says) in [
        (
            json!({"model_type": "megalodon"}),
            "\"megalodon\" is not in the zoo",
        ),
        (
            json!({"model_type": null, "architectures": ["Megalodon"]}),
            "`model_type`",
        ),
        (json!({"hidden_act": "sine"}), "`hidden_act`: \"sine\""),
        (json!({"hidden_act": 5}), "`hidden_act`"),
        (
            json!({"position_embedding_type": "rotary"}),
            "`position_embedding_type`: \"rotary\"",
        ),
        (
            json!({"hidden_size": 17}),
            "`num_attention_heads`: 4 heads do not divide",
        ),
        (json!({"hidden_size": 0}), "`hidden_size`: 0"),
        (json!({"hidden_size": -16}), "`hidden_size`"),
        (json!({"hidden_size": 1_u64 << 40}), "`hidden_size`"),
        (
            json!({"num_attention_heads": 0}),
            "`num_attention_heads`: 0",
        ),
        (
            json!({"num_hidden_layers": 1_000_000_000}),
            "`num_hidden_layers`: 1000000000 cannot come",
        ),
        (json!({"layer_norm_eps": -1.0}), "`layer_norm_eps`: -1"),
        (
            json!({"add_cross_attention": true}),
            "`add_cross_attention`",
        ),
        (json!({"pruned_heads": {"0": [1]}}), "`pruned_heads`"),
        (
            json!({"problem_type": "ranking"}),
            "`problem_type`: \"ranking\"",
        ),
        (
            json!({"id2label": {"0": "A", "2": "C"}}),
            "`id2label`: has no entry for class 1",
        ),
        (
            json!({"quantization_config": {"quant_method": "gptq"}}),
            "gptq",
        ),
    ] {
        let error = refused_config(changes);
        assert!(error.contains(says), "{error} does not say {says}");
    }
}

#[test]
fn sizes_that_the_checkpoint_lacks_are_one_report() {
    for changes in [
        json!({"vocab_size": 1 << 30}),
        json!({"intermediate_size": 1 << 30, "vocab_size": 31}),
        json!({"id2label": {"0": "A", "1": "B", "2": "C", "3": "D"}}),
        json!({"num_hidden_layers": 3}),
        json!({"num_hidden_layers": 1}),
    ] {
        let directory = copy("text_tasks/text-classification");
        let path = directory.path().join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for (field, value) in changes.as_object().unwrap() {
            config[field] = value.clone();
        }
        fs::write(&path, config.to_string()).unwrap();
        let error = TextClassification::open(directory.path(), &device()).unwrap_err();
        // Where only the classes do not fit, the configuration's names of them are blamed.
        let told = match changes.get("id2label") {
            Some(_) => matches!(error, Error::Config { .. }),
            None => matches!(error, Error::Keys(_)),
        };
        assert!(told, "{error}");
    }
}

#[test]
fn a_wrong_checkpoint_is_one_report_with_nearest_names() {
    let directory = copy("bert/token-classification");
    let path = directory.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["architectures"] = json!(["BertForQuestionAnswering"]);
    config["type_vocab_size"] = json!(5);
    fs::write(&path, config.to_string()).unwrap();
    let error = Network::open(directory.path(), None, &device()).unwrap_err();
    let Error::Keys(report) = error else {
        unreachable!("{error}");
    };
    let missing: Vec<&str> = report
        .missing
        .iter()
        .map(|missing| &missing.key[..])
        .collect();
    assert_eq!(missing, ["qa_outputs.weight", "qa_outputs.bias"]);
    assert_eq!(report.mismatched.len(), 1);
    let text = report.to_string();
    assert!(
        text.contains("token_type_embeddings.weight: expected floats [5, 16]"),
        "{text}"
    );

    let renamed = salamander_importers::KeyMap::new(&[], &[""]);
    let checkpoint = salamander::importers::Checkpoint::open(directory.path()).unwrap();
    let module = burn::nn::LayerNormConfig::new(16).init(device().burn());
    let error =
        salamander::importers::load(module, "LayerNorm", &renamed, &checkpoint).unwrap_err();
    assert!(error.to_string().contains("more"), "{error}");
}

#[test]
fn directories_and_files_that_are_not_there_are_named() {
    for (model, says) in [
        ("/no/such/directory", "no such file or directory"),
        ("no-such-directory", "no such file or directory"),
        ("", "no such file or directory"),
        (
            env!("CARGO_MANIFEST_PATH"),
            "plain text that begins `[workspace]`",
        ),
        (
            concat!(env!("CARGO_MANIFEST_DIR"), "/src"),
            "no weights in this directory",
        ),
    ] {
        let error = TextClassification::open(model, &device())
            .unwrap_err()
            .to_string();
        assert!(error.contains(says) && error.contains(model), "{error}");
    }
    assert!(inspect("/no/such/directory").is_err());
}

#[cfg(not(feature = "hub"))]
#[test]
fn a_hub_id_says_how_to_switch_the_hub_on() {
    let error = TextClassification::open("owner/name", &device())
        .unwrap_err()
        .to_string();
    assert!(error.contains("--features hub"), "{error}");
}

#[test]
fn tokenizers_that_are_missing_or_broken_are_named() {
    let directory = copy("text_tasks/text-classification");
    let open = || {
        TextClassification::open(directory.path(), &device())
            .unwrap_err()
            .to_string()
    };
    let path = directory.path().join("tokenizer.json");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert!(open().contains("tokenizer.json"), "{}", open());
    fs::remove_file(&path).unwrap();
    assert!(open().contains("tokenizer.json: is missing"), "{}", open());
    fs::write(directory.path().join("vocab.txt"), "a\nb\n").unwrap();
    assert!(open().contains("vocab.txt: has no `[CLS]`"), "{}", open());
    fs::write(directory.path().join("vocab.txt"), [0xff, 0xfe]).unwrap();
    assert!(open().contains("vocab.txt"), "{}", open());
    fs::write(directory.path().join("config.json"), "{").unwrap();
    assert!(open().contains("config.json: not valid JSON"), "{}", open());
}

#[test]
fn a_token_beyond_the_embeddings_is_an_error() {
    let directory = copy("text_tasks/text-classification");
    let path = directory.path().join("tokenizer.json");
    let text = fs::read_to_string(&path).unwrap();
    let mut tokenizer: Value = serde_json::from_str(&text).unwrap();
    tokenizer["model"]["vocab"]["dog"] = json!(4000);
    fs::write(&path, tokenizer.to_string()).unwrap();
    let task = TextClassification::open(directory.path(), &device()).unwrap();
    let error = task.run("the dog").unwrap_err().to_string();
    assert!(error.contains("`input_ids`: holds 4000"), "{error}");
}

#[test]
fn odd_texts_have_answers() {
    let task =
        TextClassification::open(fixture("text_tasks/text-classification"), &device()).unwrap();
    let long = "the dog went home. ".repeat(60_000);
    assert!(long.len() > 1_000_000);
    let word = "a".repeat(1_000_000);
    for text in [
        "",
        " ",
        "\u{0}",
        "\n\t",
        "🦎",
        "\u{feff}",
        "\u{202e}abc",
        &long,
        &word,
    ] {
        assert_eq!(task.run(text).unwrap().len(), 3);
    }
    let none: [&str; 0] = [];
    assert!(task.run_batch(none).unwrap().is_empty());

    let tag =
        TokenClassification::open(fixture("text_tasks/token-classification"), &device()).unwrap();
    for text in ["", " ", "🦎", &long] {
        tag.run(text).unwrap();
    }
    let answer =
        QuestionAnswering::open(fixture("text_tasks/question-answering"), &device()).unwrap();
    answer.run("Who?", "").unwrap();
    answer.run("", "the dog").unwrap();
    let error = answer
        .run(&long[..1000], "the dog")
        .unwrap_err()
        .to_string();
    assert!(error.contains("leave no room"), "{error}");
    let mask = FillMask::open(fixture("text_tasks/fill-mask"), &device()).unwrap();
    let error = mask.run("no mask here").unwrap_err().to_string();
    assert!(error.contains("has no [MASK]"), "{error}");
}
