//! Models as the hub's most fetched repositories lay out their files, against the references.
//!
//! `tools/fixtures/layouts.py` makes the fixtures. The device comes from `SALAMANDER_DEVICE`.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use salamander::tasks::{
    Label, Prompt, TextClassification, TextEmbedding, TextEmbeddingOptions, TextInput,
    TokenClassification,
};
use salamander::{ConvertOptions, Device, Error, convert};
use serde_json::{Value, json};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/layouts")
}

fn device() -> Device {
    Device::from_env().unwrap()
}

/// What a task answers to a text or a pair, in the form of the reference's answer.
fn answer(model: &Path, row: &Value) -> Result<Vec<Value>, Error> {
    let no_inputs = Vec::new();
    let inputs = row["inputs"].as_array().unwrap_or(&no_inputs);
    match row["task"].as_str().unwrap() {
        "text-embedding" => {
            let options = TextEmbeddingOptions {
                prompt: match row["options"]["prompt_name"].as_str() {
                    Some(name) => Prompt::Named(name.to_owned()),
                    None => Prompt::Default,
                },
                normalize: row["options"]["normalize_embeddings"] == true,
                ..TextEmbeddingOptions::default()
            };
            let task = TextEmbedding::open(model, &device())?.with_options(options)?;
            let texts: Vec<&str> = inputs.iter().filter_map(Value::as_str).collect();
            Ok(task
                .run_batch(&texts)?
                .into_iter()
                .map(|v| json!(v))
                .collect())
        }
        "text-classification" => {
            let task = TextClassification::open(model, &device())?;
            let inputs = inputs.iter().map(|input| match input.as_array() {
                Some(pair) => (pair[0].as_str().unwrap(), pair[1].as_str().unwrap()).into(),
                None => TextInput::from(input.as_str().unwrap()),
            });
            let labels = task.labels().to_vec();
            let answers = task.run_batch(inputs)?.into_iter();
            Ok(answers
                .map(|answer| as_expected(answer, &labels, row))
                .collect())
        }
        "token-classification" => {
            let task = TokenClassification::open(model, &device())?;
            let texts: Vec<&str> = inputs.iter().filter_map(Value::as_str).collect();
            let answers = task.run_batch(&texts)?.into_iter();
            Ok(answers
                .map(|entities| {
                    let entities = entities.iter().map(|entity| {
                        json!({
                            "entity_group": entity.label, "score": entity.score, "word": entity.word,
                            "start": entity.start, "end": entity.end,
                        })
                    });
                    entities.collect()
                })
                .collect())
        }
        other => panic!("{other}"),
    }
}

/// Labels as a pipeline gives them, or else the scores in the order of the classes.
fn as_expected(answer: Vec<Label>, labels: &[String], row: &Value) -> Value {
    if row["output"][0][0].is_object() {
        return json!(answer);
    }
    let score = |name: &String| {
        let mut answer = answer.iter();
        answer
            .find(|label| label.name == *name)
            .map(|label| label.score)
    };
    labels.iter().map(score).collect()
}

/// Where two answers differ by more than the tolerance.
fn difference(found: &Value, expected: &Value, tolerance: f64) -> Option<String> {
    let differ = || Some(format!("{found} for {expected}"));
    match (found, expected) {
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => a
            .iter()
            .zip(b)
            .find_map(|(a, b)| difference(a, b, tolerance)),
        (Value::Object(a), Value::Object(b)) if a.len() == b.len() => b
            .iter()
            .find_map(|(key, b)| difference(a.get(key).unwrap_or(&Value::Null), b, tolerance)),
        (Value::Number(a), Value::Number(b)) => {
            let apart = (a.as_f64().unwrap() - b.as_f64().unwrap()).abs();
            // Not a number is not within it either.
            if apart <= tolerance { None } else { differ() }
        }
        // A class that is a number is called by its text.
        (Value::String(a), Value::Number(b)) if *a == b.to_string() => None,
        (a, b) if a == b => None,
        _ => differ(),
    }
}

#[test]
fn the_hubs_layouts_give_what_the_references_do() {
    let rows: Vec<Value> =
        serde_json::from_slice(&fs::read(fixtures().join("expected.json")).unwrap()).unwrap();
    assert!(rows.len() > 40);
    let mut wrong = Vec::new();
    for row in &rows {
        let name = row["name"].as_str().unwrap();
        let file = row["file"].as_str().unwrap();
        let model = match file {
            "" => fixtures().join(name),
            file => fixtures().join(name).join(file),
        };
        let found = answer(&model, row);
        let told = match (row["refused"].as_str(), found) {
            (Some(words), Err(error)) if error.to_string().contains(words) => None,
            (Some(words), Err(error)) => Some(format!("{error} does not name {words}")),
            (Some(_), Ok(_)) => Some("is not refused".to_owned()),
            (None, Err(error)) => Some(error.to_string()),
            (None, Ok(found)) => {
                let tolerance = row["tolerance"].as_f64().unwrap();
                difference(&found.into(), &row["output"], tolerance)
            }
        };
        wrong.extend(told.map(|told| format!("{name}/{file} {}: {told}", row["options"])));
    }
    assert!(
        wrong.is_empty(),
        "{} rows:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// A copy of a fixture, in which a file was changed.
fn changed(name: &str, file: &str, content: &Value) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    copy(&fixtures().join(name), directory.path());
    let path = directory.path().join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content.to_string()).unwrap();
    directory
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        let target = to.join(item.file_name());
        if item.path().is_dir() {
            copy(&item.path(), &target);
        } else {
            fs::copy(item.path(), target).unwrap();
        }
    }
}

#[test]
fn what_a_sentence_model_says_and_is_not_followed_is_refused() {
    const LIBRARY: &str = "sentence_transformers.models";
    let transformer = json!({"path": "", "type": format!("{LIBRARY}.Transformer")});
    let pooling = json!({"path": "1_Pooling", "type": format!("{LIBRARY}.Pooling")});
    let with = |path: &str, kind: &str| json!([transformer, pooling, {"path": path, "type": format!("{LIBRARY}.{kind}")}]);
    let settings = "sentence_bert_config.json";
    let general = "config_sentence_transformers.json";
    for (file, content, words) in [
        (
            "modules.json",
            with("2_CNN", "CNN"),
            "\"CNN\" is not supported",
        ),
        (
            "modules.json",
            with("2_Dense", "Dense"),
            "2_Dense: no config.json in it, though modules.json names it",
        ),
        (
            "modules.json",
            with("../2_Dense", "Dense"),
            "leads out of the model's directory",
        ),
        (
            "modules.json",
            with("/etc", "Normalize"),
            "leads out of the model's directory",
        ),
        (
            "modules.json",
            with("1_Pooling", "Transformer"),
            "\"Transformer\" is not supported behind another",
        ),
        ("modules.json", json!([transformer]), "has no Pooling"),
        (
            "modules.json",
            json!([pooling]),
            "\"Pooling\" is not supported as the first module",
        ),
        ("modules.json", json!([]), "lists no module"),
        ("modules.json", json!({}), "is not a list"),
        (
            "modules.json",
            json!([transformer, {"path": "9", "type": format!("{LIBRARY}.Pooling")}]),
            "9: no config.json",
        ),
        (
            "modules.json",
            json!([{"path": "0", "type": format!("{LIBRARY}.Transformer")}]),
            "0: no such folder",
        ),
        (
            "modules.json",
            json!([{"path": "", "type": "mine.Transformer"}]),
            "\"mine.Transformer\" is code",
        ),
        (
            "modules.json",
            json!([{"path": ""}]),
            "`[0].type`: is missing",
        ),
        (
            settings,
            json!({"max_seq_length": 0}),
            "`max_seq_length`: 0 is not",
        ),
        (
            settings,
            json!({"max_seq_length": "128"}),
            "`max_seq_length`",
        ),
        (
            settings,
            json!({"tokenizer_name_or_path": "other"}),
            "`tokenizer_name_or_path`",
        ),
        (
            settings,
            json!({"processing_kwargs": {"text": {"add_special_tokens": false}}}),
            "`processing_kwargs.text.add_special_tokens`",
        ),
        (
            settings,
            json!({"processing_kwargs": {"common": {"padding_side": "left"}}}),
            "`processing_kwargs.common.padding_side`",
        ),
        (
            settings,
            json!({"transformer_task": "fill-mask"}),
            "`transformer_task`",
        ),
        (
            settings,
            json!({"model_args": {"num_hidden_layers": 3}}),
            "`model_args.num_hidden_layers`",
        ),
        (
            settings,
            json!({"modality_config": {"text": {"method": "forward", "method_output_name": "pooler_output"}}}),
            "pooler_output",
        ),
        (settings, json!({"surprise": 1}), "`surprise`"),
        (
            general,
            json!({"model_type": "SparseEncoder"}),
            "\"SparseEncoder\"",
        ),
        (
            general,
            json!({"model_type": "CrossEncoder"}),
            "text-classification runs it",
        ),
        (general, json!({"truncate_dim": -2}), "`truncate_dim`: -2"),
        (general, json!({"prompts": {"a": 1}}), "`prompts`"),
        (
            general,
            json!({"prompts": {"a": ""}, "default_prompt_name": "b"}),
            "\"b\" is not one of the prompts: a",
        ),
        (
            "1_Pooling/config.json",
            json!({"pooling_mode": "median"}),
            "pooling_mode",
        ),
        (
            "1_Pooling/config.json",
            json!({"pooling_mode_median": true}),
            "pooling_mode_median",
        ),
    ] {
        let directory = changed("all-MiniLM-L6-v2", file, &content);
        let error = TextEmbedding::open(directory.path(), &device()).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(words),
            "{text} does not say {words} of {content}"
        );
    }
    for (dense, words) in [
        (
            json!({"in_features": 16, "out_features": 16, "activation_function": "mine.Act"}),
            "`activation_function`",
        ),
        (
            json!({"in_features": 16, "out_features": 16, "activation_function": null}),
            "`activation_function`",
        ),
        (
            json!({"in_features": 16, "out_features": 16, "module_input_name": "token_embeddings"}),
            "`module_input_name`",
        ),
    ] {
        let directory = changed("LaBSE", "2_Dense/config.json", &dense);
        let text = TextEmbedding::open(directory.path(), &device())
            .unwrap_err()
            .to_string();
        assert!(text.contains(words), "{text}");
    }
    let two = json!({"pooling_mode": ["cls", "mean"]});
    let directory = changed("LaBSE", "1_Pooling/config.json", &two);
    let text = TextEmbedding::open(directory.path(), &device())
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("`in_features`: 16 is not the 32 values"),
        "{text}"
    );
}

#[test]
fn what_is_said_twice_is_followed_in_the_references_order() {
    let text = "the dog lives in London and the dog likes bread and the city is good";
    let open = |directory: &Path| TextEmbedding::open(directory, &device()).unwrap();
    let vector = |file: &str, content: Value| {
        let directory = changed("bge-small-en-v1.5", file, &content);
        open(directory.path()).run(text).unwrap()
    };
    let settings = "sentence_bert_config.json";
    let short = vector(settings, json!({"max_seq_length": 6}));
    let long = vector(settings, json!({}));
    assert_ne!(short, long);
    let tokenizer = json!({"max_seq_length": 30, "tokenizer_args": {"model_max_length": 6}});
    assert_eq!(vector(settings, tokenizer), short);
    let call = json!({"max_seq_length": 30, "processing_kwargs": {"text": {"max_length": 6}}});
    assert_eq!(vector(settings, call), short);
    let common =
        json!({"processing_kwargs": {"text": {"max_length": 30}, "common": {"max_length": 6}}});
    assert_eq!(vector(settings, common), short);
    let whole = json!({"max_seq_length": 6, "processing_kwargs": {"text": {"truncation": false}}});
    assert_eq!(vector(settings, whole), long);
    // A file under an older name counts where the newer has nothing.
    assert_eq!(
        vector("sentence_roberta_config.json", json!({"max_seq_length": 6})).len(),
        16
    );

    let truncated = json!({"truncate_dim": 5, "prompts": {"query": null, "ask": "dog "}});
    let directory = changed(
        "bge-small-en-v1.5",
        "config_sentence_transformers.json",
        &truncated,
    );
    let task = open(directory.path());
    let all = open(&fixtures().join("bge-small-en-v1.5"));
    let kept = task.run(text).unwrap();
    assert_eq!(kept, all.run(text).unwrap()[..5]);
    let options = TextEmbeddingOptions {
        truncate_dim: Some(99),
        ..TextEmbeddingOptions::default()
    };
    let more = task.clone().with_options(options).unwrap();
    assert_eq!(more.run(text).unwrap(), all.run(text).unwrap());
    let named = |name: &str| {
        task.clone().with_options(TextEmbeddingOptions {
            prompt: Prompt::Named(name.to_owned()),
            ..TextEmbeddingOptions::default()
        })
    };
    assert_eq!(named("query").unwrap().run(text).unwrap(), kept);
    assert_ne!(named("ask").unwrap().run(text).unwrap(), kept);
    let error = named("passage").unwrap_err().to_string();
    assert!(
        error.contains("not one of the model's: ask, query"),
        "{error}"
    );
    let error = all.with_options(TextEmbeddingOptions {
        prompt: Prompt::Named("query".to_owned()),
        ..TextEmbeddingOptions::default()
    });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("has no prompts"), "{error}");
}

#[test]
fn conversion_to_gguf_says_what_it_leaves_behind() {
    for (name, words) in [
        (
            "LaBSE",
            &[
                "the Dense layer of 2_Dense",
                "scaled to length 1",
                "16 tokens",
            ][..],
        ),
        ("mxbai-embed-large-v1", &["the prompts query"]),
        (
            "matryoshka",
            &[
                "[WeightedMean, LastToken]",
                "the layer norm of 2_LayerNorm",
                "8 values",
                "\"query\" is the prompt by default",
            ],
        ),
        (
            "ms-marco-MiniLM-L6-v2",
            &["the activation of this cross-encoder"],
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("model.gguf");
        let options = ConvertOptions::default();
        let converted = convert(fixtures().join(name), target, &options, &|_| {}).unwrap();
        for words in words {
            let said = converted
                .remarks
                .iter()
                .any(|remark| remark.contains(words));
            assert!(said, "{:?} of {name} do not say {words}", converted.remarks);
        }
    }
    // Of a pooling that it holds it says nothing, whichever version wrote it.
    let now = json!({"embedding_dimension": 16, "pooling_mode": "cls"});
    let directory = changed("mxbai-embed-large-v1", "1_Pooling/config.json", &now);
    let target = directory.path().join("model.gguf");
    convert(
        directory.path(),
        &target,
        &ConvertOptions::default(),
        &|_| {},
    )
    .unwrap();
    let text = "the dog is in London";
    let [whole, file] = [directory.path(), &target].map(|model| {
        let task = TextEmbedding::open(model, &device()).unwrap();
        task.run(text).unwrap()
    });
    let furthest = whole.iter().zip(&file).map(|(a, b)| (a - b).abs());
    assert!(furthest.fold(0.0, f32::max) < 1e-4, "{whole:?} {file:?}");
}
