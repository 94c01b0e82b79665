//! Models that TensorFlow saved give the same outputs as the safetensors they came from, to the bit.
//!
//! `tools/fixtures/tensorflow_models.py` makes the fixtures. The device comes from `SALAMANDER_DEVICE`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use salamander::importers::Checkpoint;
use salamander::models::{Inputs, open_class};
use salamander::{Device, Network};

fn fixtures(folder: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    fixtures.join(folder)
}

/// What a case's model makes of the case's inputs when its weights are these.
fn outputs(case: &Path, weights: &Path, device: &Device) -> Vec<(String, TensorData)> {
    let text = fs::read_to_string(case.join("config.json")).unwrap();
    let config = serde_json::from_str(&text).unwrap();
    let checkpoint = Checkpoint::open(weights).unwrap();
    let opened = open_class(&config, None, &checkpoint, device.burn());
    let (_, model) = opened
        .map_err(|error| format!("{}: {error}", weights.display()))
        .unwrap();
    let golden = Checkpoint::open(case.join("golden.safetensors")).unwrap();
    let inputs = golden.iter().filter_map(|(name, entry)| {
        Some((
            name.strip_prefix("input.")?.to_owned(),
            entry.read().unwrap(),
        ))
    });
    let outputs = model
        .forward(inputs.collect::<Inputs>())
        .unwrap()
        .into_data();
    outputs.into_iter().collect()
}

#[test]
fn models_from_tensorflow_give_the_outputs_of_safetensors() {
    let device = Device::from_env().unwrap();
    let folder = fixtures("formats/tensorflow_models");
    let mut compared = 0;
    for item in fs::read_dir(&folder).unwrap() {
        let weights = item.unwrap().path();
        let name = weights.file_name().unwrap().to_str().unwrap();
        let (name, _) = name.split_once('.').unwrap();
        let case = fixtures(&name.replacen('-', "/", 1));
        let expected = outputs(&case, &case, &device);
        let found = outputs(&case, &weights, &device);
        assert_eq!(expected.len(), found.len());
        for ((name, expected), (other, found)) in expected.iter().zip(&found) {
            assert_eq!(name, other);
            let same = expected.as_bytes() == found.as_bytes();
            assert!(same, "{}: {name} differs", weights.display());
        }
        compared += 1;
    }
    println!("{compared} models on {device}, all equal to the bit");
    assert!(compared >= 16);
}

#[test]
fn a_folder_of_google_research_bert_is_a_model() {
    let device = Device::from_env().unwrap();
    let case = fixtures("bert/pretraining");
    let folder = tempfile::tempdir().unwrap();
    let weights = fixtures("formats/tensorflow_models/bert-pretraining.google");
    for file in fs::read_dir(weights).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(case.join("config.json")).unwrap()).unwrap();
    // The fields that `BertConfig` of `modeling.py` has.
    let fields = [
        "attention_probs_dropout_prob",
        "hidden_act",
        "hidden_dropout_prob",
        "hidden_size",
        "initializer_range",
        "intermediate_size",
        "max_position_embeddings",
        "num_attention_heads",
        "num_hidden_layers",
        "type_vocab_size",
        "vocab_size",
    ];
    let fields = fields.map(|field| (field.to_owned(), config[field].clone()));
    let own = serde_json::Value::Object(fields.into_iter().collect());
    fs::write(folder.path().join("bert_config.json"), own.to_string()).unwrap();
    let network = Network::open(folder.path(), Some("BertForPreTraining"), &device).unwrap();
    let golden = Checkpoint::open(case.join("golden.safetensors")).unwrap();
    let inputs = golden.iter().filter_map(|(name, entry)| {
        let name = name.strip_prefix("input.")?;
        Some((name.to_owned(), entry.read().unwrap()))
    });
    let found = network.forward(inputs.collect::<Inputs>()).unwrap();
    let expected = outputs(&case, &case, &device);
    assert_eq!(found.len(), expected.len());
    for (name, expected) in expected {
        assert!(found[&name].as_bytes() == expected.as_bytes(), "{name}");
    }
}
