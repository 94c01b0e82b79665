//! The text tasks against the reference's pipelines, on tiny random models.
//!
//! `tools/fixtures/text_tasks.py` makes the fixtures. The device comes from `SALAMANDER_DEVICE`.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use salamander::Device;
use salamander::models::processing::text::{
    TextTokenizer, TokenizerFiles, Truncation, TruncationStrategy,
};
use salamander::tasks::{
    Aggregation, ClassificationFunction, FillMask, FillMaskOptions, Prompt, QuestionAnswering,
    QuestionAnsweringOptions, TextClassification, TextClassificationOptions, TextEmbedding,
    TextEmbeddingOptions, TextInput, TokenClassification, TokenClassificationOptions,
};
use serde_json::Value;

const TOLERANCE: f64 = 1e-4;

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/text_tasks")
        .join(name)
}

/// The cases of a fixture: an input, its options, and the reference's answer.
fn cases(name: &str) -> Vec<Value> {
    let text = fs::read(directory(name).join("expected.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_slice(&text).unwrap();
    assert!(!cases.is_empty());
    cases
}

fn device() -> Device {
    Device::from_env().unwrap()
}

/// The input of a case as a text or a pair.
fn text_input(case: &Value) -> TextInput<'_> {
    match &case["input"] {
        Value::String(text) => text.into(),
        pair => match (pair["text"].as_str().unwrap(), pair["text_pair"].as_str()) {
            (text, Some(pair)) => (text, pair).into(),
            (text, None) => text.into(),
        },
    }
}

#[track_caller]
fn assert_close(found: f64, expected: &Value, case: &Value) {
    let expected = expected.as_f64().unwrap();
    assert!(
        (found - expected).abs() <= TOLERANCE,
        "{found} for {expected} in {case}"
    );
}

#[test]
fn text_classification() {
    for name in [
        "text-classification",
        "text-classification-multilabel",
        "text-classification-one-label",
        "text-classification-regression",
    ] {
        let task = TextClassification::open(directory(name), &device()).unwrap();
        for case in cases(name) {
            let options = &case["options"];
            let truncation = !options["truncation"].is_null();
            let max_length = options["max_length"].as_u64().unwrap_or(32) as usize;
            let top_k = match options.get("top_k") {
                None => Some(1),
                Some(count) => count.as_u64().map(|count| count as usize),
            };
            let task = task.clone().with_options(TextClassificationOptions {
                top_k,
                function: match options["function_to_apply"].as_str() {
                    Some("softmax") => Some(ClassificationFunction::Softmax),
                    Some("sigmoid") => Some(ClassificationFunction::Sigmoid),
                    Some("none") => Some(ClassificationFunction::None),
                    _ => None,
                },
                max_length: truncation.then_some(max_length),
                truncation: (options["truncation"] == "only_first")
                    .then_some(TruncationStrategy::OnlyFirst),
            });
            let found = task.run(text_input(&case)).unwrap();
            let expected = match &case["output"] {
                Value::Array(labels) => labels.clone(),
                label => vec![label.clone()],
            };
            assert_eq!(found.len(), expected.len(), "{case}");
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!(found.name, expected["label"], "{case}");
                assert_close(found.score.into(), &expected["score"], &case);
            }
        }
    }
}

#[test]
fn a_batch_answers_as_single_texts_do_and_in_their_order() {
    let task = TextClassification::open(directory("text-classification"), &device()).unwrap();
    let cases = cases("text-classification");
    let inputs: Vec<TextInput<'_>> = cases.iter().map(text_input).collect();
    let batch = task.run_batch(inputs.iter().copied()).unwrap();
    assert_eq!(batch.len(), inputs.len());
    for (input, found) in inputs.iter().zip(&batch) {
        let single = task.run(*input).unwrap();
        for (a, b) in single.iter().zip(found) {
            assert_eq!(a.name, b.name);
            assert!((a.score - b.score).abs() < 1e-5);
        }
    }
}

#[test]
fn a_task_is_used_from_several_threads() {
    let task = TextClassification::open(directory("text-classification"), &device()).unwrap();
    let expected = task.run("The movie was great!").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert_eq!(task.run("The movie was great!").unwrap(), expected);
                }
            });
        }
    });
}

#[test]
fn token_classification() {
    const NAME: &str = "token-classification";
    let task = TokenClassification::open(directory(NAME), &device()).unwrap();
    for case in cases(NAME) {
        let options = &case["options"];
        let ignored = options["ignore_labels"].as_array().map(|labels| {
            labels
                .iter()
                .map(|label| label.as_str().unwrap().to_owned())
                .collect()
        });
        let aggregation = match options["aggregation_strategy"].as_str() {
            None | Some("none") => Aggregation::None,
            Some("simple") => Aggregation::Simple,
            Some("first") => Aggregation::First,
            Some("average") => Aggregation::Average,
            Some("max") => Aggregation::Max,
            Some(other) => panic!("{other}"),
        };
        let options = TokenClassificationOptions {
            aggregation,
            ignore_labels: ignored.unwrap_or(vec!["O".to_owned()]),
            stride: options["stride"].as_u64().map(|stride| stride as usize),
        };
        let task = task.clone().with_options(options).unwrap();
        let (found, expected) = match &case["input"] {
            Value::String(text) => (task.run(text).unwrap(), &case["output"]),
            words => {
                let words = words.as_array().unwrap().iter();
                let words: Vec<&str> = words.map(|word| word.as_str().unwrap()).collect();
                let output = &case["output"];
                let nested = output.get(0).is_some_and(Value::is_array);
                (
                    task.run_words(&words).unwrap(),
                    if nested { &output[0] } else { output },
                )
            }
        };
        let expected = expected.as_array().unwrap();
        assert_eq!(found.len(), expected.len(), "{found:?} for {case}");
        for (found, expected) in found.iter().zip(expected) {
            let label = expected.get("entity").unwrap_or(&expected["entity_group"]);
            assert_eq!(found.label, *label, "{case}");
            assert_eq!(found.word, expected["word"], "{case}");
            assert_eq!(found.start, expected["start"], "{case}");
            assert_eq!(found.end, expected["end"], "{case}");
            let index = expected
                .get("index")
                .map(|index| index.as_u64().unwrap() as usize);
            assert_eq!(found.index, index, "{case}");
            assert_close(found.score.into(), &expected["score"], &case);
        }
    }
}

#[test]
fn only_the_beginning_of_a_long_text_is_read_and_gives_the_same_tokens() {
    let read = |name: &str| fs::read(directory("text-classification").join(name)).ok();
    let config = read("tokenizer_config.json").map(|json| serde_json::from_slice(&json).unwrap());
    let files = TokenizerFiles {
        tokenizer: read("tokenizer.json"),
        config,
        ..TokenizerFiles::default()
    };
    let tokenizer = TextTokenizer::new(&files).unwrap();
    let words = "The dog, 中国人 in  London\u{a0}was unhappily at home; café\u{301} [MASK] 😀\n"
        .repeat(150);
    let spaces = format!("{}dog {}cat", " ".repeat(30_000), "\t".repeat(9_000));
    let one = "x".repeat(9_000);
    let texts = [&words[..], &words[3..], &spaces, &one, "who is it", ""];
    let tokens = |text: &str| {
        let all = tokenizer.encode(text, None, None).unwrap();
        let ids = all[0].get_ids();
        ids[1..ids.len() - 1].to_vec()
    };
    /// How many tokens of each text longest_first leaves.
    fn kept(first: usize, second: usize, most: usize) -> (usize, usize) {
        if first + second <= most {
            return (first, second);
        }
        let (short, long) = (first.min(second), first.max(second));
        let left = if short > most {
            short
        } else {
            short.max(most - short)
        };
        let (short, long) = match short + left > most {
            true => (most / 2, most / 2 + most % 2),
            false => (short, left.min(long)),
        };
        if first > second {
            (long, short)
        } else {
            (short, long)
        }
    }
    for text in texts {
        for max_length in [3, 8, 33, 200] {
            let truncation = Some(Truncation::to(max_length));
            let found = tokenizer.encode(text, None, truncation).unwrap();
            assert_eq!(found.len(), 1);
            assert!(found[0].get_overflowing().is_empty());
            let expected = tokens(text);
            let expected = &expected[..expected.len().min(max_length - 2)];
            let ids = found[0].get_ids();
            assert_eq!(&ids[1..ids.len() - 1], expected);
            for pair in texts {
                let found = tokenizer.encode(text, Some(pair), truncation).unwrap();
                let (first, second) = (tokens(text), tokens(pair));
                let (left, right) = kept(first.len(), second.len(), max_length - 3);
                let ids = found[0].get_ids();
                assert_eq!(ids.len(), left + right + 3);
                assert_eq!(ids[1..=left], first[..left]);
                assert_eq!(ids[left + 2..=left + 1 + right], second[..right]);
            }
        }
    }
}

#[test]
fn fill_mask() {
    const NAME: &str = "fill-mask";
    let task = FillMask::open(directory(NAME), &device()).unwrap();
    for case in cases(NAME) {
        let options = &case["options"];
        let targets = match &options["targets"] {
            Value::String(target) => vec![target.clone()],
            Value::Array(targets) => targets
                .iter()
                .map(|target| target.as_str().unwrap().to_owned())
                .collect(),
            _ => Vec::new(),
        };
        let options = FillMaskOptions {
            top_k: options["top_k"].as_u64().unwrap_or(5) as usize,
            targets,
            max_length: (options["tokenizer_kwargs"]["truncation"] == true).then_some(32),
        };
        let task = task.clone().with_options(options).unwrap();
        let found = task.run(case["input"].as_str().unwrap()).unwrap();
        let output = case["output"].as_array().unwrap();
        let expected: Vec<&[Value]> = if output[0].is_array() {
            output
                .iter()
                .map(|row| &row.as_array().unwrap()[..])
                .collect()
        } else {
            vec![&output[..]]
        };
        assert_eq!(found.len(), expected.len(), "{case}");
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(found.len(), expected.len(), "{case}");
            for (found, expected) in found.iter().zip(expected) {
                assert_eq!(found.token, expected["token"], "{case}");
                assert_eq!(found.token_str, expected["token_str"], "{case}");
                assert_eq!(found.sequence, expected["sequence"], "{case}");
                assert_close(found.score.into(), &expected["score"], &case);
            }
        }
    }
}

#[test]
fn question_answering() {
    const NAME: &str = "question-answering";
    let task = QuestionAnswering::open(directory(NAME), &device()).unwrap();
    for case in cases(NAME) {
        let options = &case["options"];
        let number = |name: &str| options[name].as_u64().map(|value| value as usize);
        let options = QuestionAnsweringOptions {
            top_k: number("top_k").unwrap_or(1),
            max_answer_len: number("max_answer_len").unwrap_or(15),
            max_seq_len: number("max_seq_len"),
            doc_stride: number("doc_stride"),
            handle_impossible_answer: options["handle_impossible_answer"].as_bool() == Some(true),
            align_to_words: options["align_to_words"].as_bool() != Some(false),
        };
        let task = task.clone().with_options(options).unwrap();
        let text = |name: &str| case["input"][name].as_str().unwrap();
        let found = task.run(text("question"), text("context")).unwrap();
        let expected = match &case["output"] {
            Value::Array(answers) => answers.clone(),
            answer => vec![answer.clone()],
        };
        assert_eq!(found.len(), expected.len(), "{found:?} for {case}");
        println!("{found:?}");
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found.text, expected["answer"], "{case}");
            assert_eq!(found.start, expected["start"], "{case}");
            assert_eq!(found.end, expected["end"], "{case}");
            assert_close(found.score.into(), &expected["score"], &case);
        }
    }
}

#[test]
fn text_embedding() {
    let fixtures = fs::read_dir(directory("")).unwrap();
    let names = fixtures.map(|item| item.unwrap().file_name().into_string().unwrap());
    let names: Vec<String> = names
        .filter(|name| name.starts_with("text-embedding"))
        .collect();
    assert!(names.len() > 10);
    for name in names {
        let task = TextEmbedding::open(directory(&name), &device()).unwrap();
        for case in cases(&name) {
            let options = &case["options"];
            let prompt = match (&options["prompt"], &options["prompt_name"]) {
                (Value::String(text), _) => Prompt::Text(text.clone()),
                (_, Value::String(name)) => Prompt::Named(name.clone()),
                _ => Prompt::Default,
            };
            let options = TextEmbeddingOptions {
                prompt,
                ..TextEmbeddingOptions::default()
            };
            let task = task.clone().with_options(options).unwrap();
            let found = task.run(case["input"].as_str().unwrap()).unwrap();
            let expected = case["output"].as_array().unwrap();
            assert_eq!(found.len(), expected.len(), "{name}: {case}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(
                    (f64::from(*found) - expected.as_f64().unwrap()).abs() <= TOLERANCE,
                    "{name}: {found} for {expected} in {case}"
                );
            }
        }
    }
}

#[test]
fn tokenizers_from_a_vocabulary() {
    let root = directory("tokenizers");
    let mut variants = 0;
    for item in fs::read_dir(&root).unwrap() {
        let path = item.unwrap().path();
        let config = fs::read(path.join("tokenizer_config.json")).unwrap();
        let tokenizer = TextTokenizer::new(&TokenizerFiles {
            vocabulary: Some(fs::read(path.join("vocab.txt")).unwrap()),
            config: Some(serde_json::from_slice(&config).unwrap()),
            ..TokenizerFiles::default()
        })
        .unwrap();
        variants += 1;
        let name = format!("tokenizers/{}", path.file_name().unwrap().to_str().unwrap());
        for case in cases(&name) {
            check_tokens(&tokenizer, &case);
        }
    }
    assert!(variants >= 5);
}

fn check_tokens(tokenizer: &TextTokenizer, case: &Value) {
    let options = &case["options"];
    let (text, pair) = match &case["input"] {
        Value::String(text) => (&text[..], None),
        Value::Array(pair) => (pair[0].as_str().unwrap(), pair[1].as_str()),
        other => (other["text"].as_str().unwrap(), other["text_pair"].as_str()),
    };
    // A single empty second text is no second text to the reference.
    let pair = pair.filter(|pair| !pair.is_empty());
    let strategy = match &options["truncation"] {
        Value::Null | Value::Bool(false) => None,
        Value::String(name) if name == "only_first" => Some(TruncationStrategy::OnlyFirst),
        Value::String(name) if name == "only_second" => Some(TruncationStrategy::OnlySecond),
        _ => Some(TruncationStrategy::LongestFirst),
    };
    let truncation = strategy.map(|strategy| Truncation {
        max_length: options["max_length"].as_u64().unwrap() as usize,
        strategy,
        windows: options["stride"].as_u64().map(|stride| stride as usize),
    });
    if options["add_special_tokens"] == false {
        let found = tokenizer.pieces(text).unwrap();
        assert_eq!(serde_json::json!(found), case["output"][0]["ids"], "{case}");
        return;
    }
    let found = tokenizer.encode(text, pair, truncation);
    if !case["output"]["error"].is_null() {
        assert!(found.is_err(), "{case}");
        return;
    }
    let found = found.unwrap();
    let expected = case["output"].as_array().unwrap();
    assert_eq!(found.len(), expected.len(), "{case}");
    for (found, expected) in found.iter().zip(expected) {
        let found = serde_json::json!({
            "ids": found.get_ids(),
            "type_ids": found.get_type_ids(),
            "tokens": found.get_tokens(),
            "offsets": found.get_offsets(),
            "words": found.get_word_ids(),
        });
        assert_eq!(found, *expected, "{case}");
    }
}
