//! The command as a program would call it.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures")
        .join(name)
}

fn salamander(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_salamander"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that fails early does not read what it is given.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().unwrap()
}

/// The lines of a command that succeeds, each a JSON object.
#[track_caller]
fn objects(arguments: &[&str], input: &str) -> Vec<Value> {
    remarked_objects(arguments, input, "")
}

/// The same of a command that warns of its input.
#[track_caller]
fn remarked_objects(arguments: &[&str], input: &str, remark: &str) -> Vec<Value> {
    let output = salamander(arguments, input.as_bytes());
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    assert_eq!(errors, remark, "a pipe gets no other remarks");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[track_caller]
fn fails(arguments: &[&str], input: &[u8]) -> String {
    let output = salamander(arguments, input);
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.starts_with("error: ") && !text.contains("panicked"),
        "{text}"
    );
    text
}

#[test]
fn answers_come_in_the_order_of_the_lines() {
    let model = fixture("text_tasks/text-classification");
    let model = model.to_str().unwrap();
    let lines: Vec<String> = (0..1200)
        .map(|index| "the dog ".repeat(index % 7) + &index.to_string())
        .collect();
    let run = ["run", "text-classification", "--model", model, "--json"];
    let all = objects(&run, &(lines.join("\n") + "\n"));
    assert_eq!(all.len(), lines.len());
    for index in [0, 6, 511, 512, 1199] {
        let single = objects(&[&run[..], &[&lines[index]]].concat(), "");
        assert_eq!(all[index]["label"], single[0]["label"]);
        let difference =
            all[index]["score"].as_f64().unwrap() - single[0]["score"].as_f64().unwrap();
        assert!(difference.abs() < 1e-5);
    }
    let empty = objects(&run, "");
    assert!(empty.is_empty());
    let blank = objects(&run, "\n\r\nx");
    assert_eq!(blank.len(), 3);
}

#[test]
fn every_task_prints_objects() {
    let object = |task: &str, model: &str, input: &str| {
        let model = fixture(&format!("text_tasks/{model}"));
        let run = ["run", task, "--model", model.to_str().unwrap(), "--json"];
        objects(&run, input).remove(0)
    };
    let embedding = object(
        "text-embedding",
        "text-embedding-mean",
        "The dog went home.",
    );
    assert_eq!(embedding["embedding"].as_array().unwrap().len(), 16);
    let masks = object("fill-mask", "fill-mask", "The [MASK] is good.");
    assert_eq!(masks["masks"][0].as_array().unwrap().len(), 5);
    let entities = object(
        "token-classification",
        "token-classification",
        "John Smith lives in London.",
    );
    assert!(entities["entities"][0]["label"].is_string());
    let answer = object(
        "question-answering",
        "question-answering",
        "Who?\tJohn lives in London.",
    );
    assert!(answer["answer"].is_string());
}

#[test]
fn image_tasks_take_paths() {
    let directory = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        let from = fixture("vit/image-classification").join(file);
        fs::copy(from, directory.path().join(file)).unwrap();
    }
    let processor = r#"{"image_processor_type": "ViTImageProcessor", "size": 24}"#;
    let path = directory.path().join("preprocessor_config.json");
    fs::write(path, processor).unwrap();
    let model = directory.path().to_str().unwrap();
    let files = ["rgb.png", "444.jpg", "lossy.webp"].map(|name| fixture("images/files").join(name));
    let files = files.map(|path| path.to_str().unwrap().to_owned());
    let run = ["run", "image-classification", "--model", model, "--json"];
    let single = objects(&[&run[..], &[&files[1]]].concat(), "");
    assert_eq!(single[0]["labels"].as_array().unwrap().len(), 5);
    let lines = objects(&run, &files.join("\n"));
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[1]["label"], single[0]["label"]);
    let best = objects(&[&run[..], &["--top-k", "1", &files[0]]].concat(), "");
    assert!(best[0]["label"].is_string() && best[0].get("labels").is_none());
    let run = [
        "run",
        "image-embedding",
        "--model",
        model,
        "--json",
        &files[2],
    ];
    let vector = objects(&run, "");
    assert_eq!(vector[0]["embedding"].as_array().unwrap().len(), 12);

    let run = ["run", "image-classification", "--model", model];
    let nowhere = "/no/such/picture.png";
    for run in [&run[..], &["run", "image-embedding", "--model", model]] {
        let json = [run, &["--json", &files[0], nowhere, &files[2]]].concat();
        let output = salamander(&json, b"");
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].contains(nowhere), "{text}");
        assert_eq!(lines[1], "error: 1 of 3 inputs could not be answered");
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        let lines: Vec<Value> = lines.collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[1]["input"], nowhere);
        assert!(lines[1]["error"].as_str().unwrap().contains("No such file"));
        for index in [0, 2] {
            let alone = objects(&[run, &["--json", &files[index]]].concat(), "");
            assert_eq!(lines[index], alone[0]);
        }
    }
    let text = fails(&[&run[..], &[nowhere]].concat(), b"");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("/no/such/picture.png"), "{text}");
    let config = directory.path().join("config.json");
    let text = fails(&[&run[..], &[config.to_str().unwrap()]].concat(), b"");
    assert!(text.contains("config.json: not a picture"), "{text}");
    let preset = ["--architecture", "torchvision/resnet18", &files[0]];
    let text = fails(&[&run[..], &preset].concat(), b"");
    assert!(
        text.contains("not the weights of ResNetForImageClassification"),
        "{text}"
    );
}

#[test]
fn tables_are_for_people() {
    let model = fixture("text_tasks/text-classification");
    let run = [
        "run",
        "text-classification",
        "--model",
        model.to_str().unwrap(),
        "--top-k",
        "0",
    ];
    let output = salamander(&[&run[..], &["The movie was great!"]].concat(), b"");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(
        text.lines()
            .next()
            .unwrap()
            .ends_with("The movie was great!"),
        "{text}"
    );
}

#[test]
fn forward_gives_the_tensors_of_the_reference() {
    for case in [
        "bert/model",
        "bert/pretraining",
        "bert/multiple-choice",
        "bert/question-answering",
        "resnet/backbone-features",
        "resnet/timm-d-bottleneck",
        "vit/masked-image-modeling",
        "vit/interpolate-larger",
        "vit/torchvision",
    ] {
        let case = fixture(case);
        let directory = tempfile::tempdir().unwrap();
        let golden = fs::read(case.join("golden.safetensors")).unwrap();
        let golden = safetensors::SafeTensors::deserialize(&golden).unwrap();
        let inputs: Vec<_> = golden
            .iter()
            .filter_map(|(name, view)| Some((name.strip_prefix("input.")?.to_owned(), view)))
            .collect();
        let input = directory.path().join("in.safetensors");
        safetensors::serialize_to_file(inputs, None, &input).unwrap();
        let output = directory.path().join("out.safetensors");
        let paths = [
            case.to_str().unwrap(),
            input.to_str().unwrap(),
            output.to_str().unwrap(),
        ];
        let arguments = [
            "forward", "--model", paths[0], "--inputs", paths[1], "--output", paths[2],
        ];
        let run = salamander(&arguments, b"");
        assert!(
            run.status.success(),
            "{}",
            String::from_utf8_lossy(&run.stderr)
        );
        let found = fs::read(output).unwrap();
        let found = safetensors::SafeTensors::deserialize(&found).unwrap();
        let expected = golden
            .iter()
            .filter_map(|(name, view)| Some((name.strip_prefix("output.")?, view)));
        let mut outputs = 0;
        for (name, view) in expected {
            outputs += 1;
            let found = found.tensor(name).unwrap();
            assert_eq!(found.shape(), view.shape());
            let floats = |bytes: &[u8]| -> Vec<f32> {
                bytes
                    .chunks(4)
                    .map(|x| f32::from_le_bytes(x.try_into().unwrap()))
                    .collect()
            };
            for (a, b) in floats(found.data()).iter().zip(floats(view.data())) {
                assert!((a - b).abs() < 1e-4, "{name}: {a} for {b}");
            }
        }
        assert_eq!(outputs, found.len());
    }
}

#[test]
fn inspect_lists_directories_and_files() {
    let case = fixture("bert/model");
    let text =
        String::from_utf8(salamander(&["inspect", case.to_str().unwrap()], b"").stdout).unwrap();
    for says in [
        "bert",
        "BertModel",
        "text-embedding",
        "hidden_size",
        "60 × 16",
        "F32",
    ] {
        assert!(text.contains(says), "{text} does not say {says}");
    }
    let file = case.join("model.safetensors");
    let output = salamander(&["inspect", "--json", file.to_str().unwrap()], b"");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["format"], "safetensors");
    let tensors = found["tensors"].as_array().unwrap();
    let parameters = tensors.iter().map(|tensor| {
        tensor["shape"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_u64().unwrap())
            .product::<u64>()
    });
    assert_eq!(
        found["parameters"].as_u64().unwrap(),
        parameters.sum::<u64>()
    );
}

#[test]
fn bad_input_is_an_error_that_says_where() {
    let model = fixture("text_tasks/text-classification");
    let model = model.to_str().unwrap();
    let run = ["run", "text-classification", "--model", model];
    let text = fails(&run, b"fine\nnot \xff\xfe fine\n");
    assert!(
        text.contains("standard input: line 2: byte 5 is not UTF-8"),
        "{text}"
    );
    let output = salamander(&[&run[..], &["--json"]].concat(), b"a\n\xff\nb\n");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3);
    let bad: Value = serde_json::from_str(lines[1]).unwrap();
    assert_eq!(bad["input"], "standard input: line 2");
    let good: Value = serde_json::from_str(lines[2]).unwrap();
    assert!(good["label"].is_string());
    let pairs = ["--pairs", "one text", "a\tpair"];
    let output = salamander(&[&run[..], &pairs].concat(), b"");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("\"one text\" has no tab"), "{text}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    let text = fails(&[&run[..], &["--file", "/no/such/file"]].concat(), b"");
    assert!(text.contains("/no/such/file"), "{text}");
    let text = fails(&[&run[..], &["--pairs", "one text"]].concat(), b"");
    assert!(text.contains("no tab"), "{text}");
    let text = fails(&[&run[..], &["--device", "abacus", "x"]].concat(), b"");
    assert!(text.contains("`abacus` is not a device"), "{text}");
    let text = fails(&[&run[..], &["--device", "flex:7", "x"]].concat(), b"");
    assert!(text.contains("not there"), "{text}");
    let text = fails(&["run", "fill-mask", "--model", model, "x"], b"");
    assert!(text.contains("missing     cls.predictions"), "{text}");
    let text = fails(&["inspect", "/no/such/directory"], b"");
    assert!(text.contains("/no/such/directory"), "{text}");
    let golden = fixture("bert/model/golden.safetensors");
    let case = fixture("bert/model");
    let paths = [case.to_str().unwrap(), golden.to_str().unwrap()];
    let arguments = [
        "forward", "--model", paths[0], "--inputs", paths[1], "--output", "/no/out",
    ];
    let text = fails(&arguments, b"");
    assert!(text.contains("input `input_ids`: is missing"), "{text}");
}

#[test]
fn a_line_without_an_answer_is_named_and_the_others_answered() {
    let fill = fixture("text_tasks/fill-mask");
    let classify = fixture("text_tasks/text-classification");
    for (arguments, input, words) in [
        (
            ["fill-mask", "--model", fill.to_str().unwrap(), "--top-k=1"],
            "a [MASK] dog\nno mask\n[MASK]\n\nthe [MASK]\n",
            [
                "line 2: option `text`: \"no mask\" has no [MASK]",
                "line 4: option `text`",
            ],
        ),
        (
            [
                "text-classification",
                "--model",
                classify.to_str().unwrap(),
                "--pairs",
            ],
            "a\tb\none\tand\ttwo\nc\td\n\ne\tf\n",
            [
                "line 2: \"one and two\" has 3 parts",
                "line 4: \"\" has no tab",
            ],
        ),
    ] {
        let run = [&["run", "--json"][..], &arguments].concat();
        let run = [&run[..1], &run[2..3], &run[1..2], &run[3..]].concat();
        let output = salamander(&run, input.as_bytes());
        assert_eq!(output.status.code(), Some(1));
        let errors = String::from_utf8(output.stderr).unwrap();
        for words in words {
            assert!(
                errors.contains(&format!("standard input: {words}")),
                "{errors}"
            );
        }
        assert!(
            errors.contains("2 of 5 inputs could not be answered"),
            "{errors}"
        );
        let text = String::from_utf8(output.stdout).unwrap();
        let answers: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let is_bad: Vec<bool> = answers
            .iter()
            .map(|answer| answer["error"].is_string())
            .collect();
        assert_eq!(is_bad, [false, true, false, true, false]);
    }
}

#[test]
fn a_reader_may_leave_at_any_time() {
    let whisper = fixture("whisper/generation");
    let model = fixture("text_tasks/text-embedding-mean");
    let (whisper, model) = (whisper.to_str().unwrap(), model.to_str().unwrap());
    for arguments in [
        &["inspect", "--json", whisper][..],
        &["inspect", whisper],
        &[
            "run",
            "text-embedding",
            "--model",
            model,
            "--json",
            "a",
            "b",
        ],
        &["scan", "--json", whisper],
        &["devices"],
    ] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_salamander"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{arguments:?}: {errors}");
        assert_eq!(errors, "", "{arguments:?}");
    }
}

#[test]
fn forecasts_go_on_from_a_table() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/forecast");
    let sample = model.join("sample.csv");
    let (model, sample) = (model.to_str().unwrap(), sample.to_str().unwrap());
    let run = ["run", "forecast", "--model", model, "--horizon", "4"];
    let arguments = [&run[..], &["--json", "--file", sample]].concat();
    // The sample has gaps, of which the answer says how many, too.
    let filled = " WARN 5 missing values in the last 336 steps were filled by interpolation (5 of `load_c`)\n";
    let steps = remarked_objects(&arguments, "", filled);
    assert_eq!(steps.len(), 4);
    assert_eq!(steps[0]["timestamp"], "2024-01-31 00:00:00");
    let temperature = &steps[3]["series"]["temperature"];
    assert!(temperature["mean"].is_f64());
    assert!(temperature["quantiles"]["0.9"].as_f64() > temperature["quantiles"]["0.1"].as_f64());
    // The same from standard input.
    let text = fs::read_to_string(sample).unwrap();
    let json = [&run[..], &["--json"]].concat();
    assert_eq!(remarked_objects(&json, &text, filled), steps);
    let output = salamander(&run, text.as_bytes());
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(table.lines().count(), 5, "{table}");
    assert!(
        table.starts_with("date") && table.contains("temperature"),
        "{table}"
    );

    let error = fails(&[&run[..], &["--column", "load"]].concat(), text.as_bytes());
    assert!(
        error.contains("standard input: has no column `load`; it has date, load_a"),
        "{error}"
    );
    let two = ["--column", "load_a", "--column", "load_b"];
    let error = fails(&[&run[..], &two].concat(), text.as_bytes());
    assert!(
        error.contains("has 2 series (load_a, load_b), the model takes 7"),
        "{error}"
    );
    let error = fails(&run, b"a,b\n1,2\n3\n");
    assert!(
        error.contains("standard input: line 3 has 1 cells"),
        "{error}"
    );
    let error = fails(&[&run[..], &["--quantile", "2"]].concat(), b"");
    assert!(
        error.contains("`quantiles`: 2 is not between 0 and 1"),
        "{error}"
    );
}

#[test]
fn forward_needs_no_configuration_where_the_weights_show_it() {
    let case = fixture("patchtst/original-default-from-shapes");
    let directory = tempfile::tempdir().unwrap();
    let weights = directory.path().join("model.safetensors");
    fs::copy(case.join("model.safetensors"), &weights).unwrap();
    let model = directory.path().to_str().unwrap();
    let none = [
        "forward", "--model", model, "--inputs", "x", "--output", "y",
    ];
    let named = [&none[..], &["--architecture", "patchtst/original"]].concat();
    for arguments in [&none[..], &named] {
        // The model opens: what is missing is the input.
        let error = fails(arguments, b"");
        assert!(error.starts_with("error: x: "), "{error}");
    }
    fs::copy(case.join("golden.safetensors"), &weights).unwrap();
    let error = fails(&none, b"");
    assert!(error.contains("has no config.json"), "{error}");
    assert!(error.contains("no architecture of the zoo"), "{error}");
}

#[test]
fn sound_files_become_text_subtitles_or_objects() {
    let model = fixture("whisper_generate");
    let sound = fixture("whisper_audio/sound.wav");
    let flac = fixture("whisper_audio/sound.flac");
    let (model, sound, flac) = (
        model.to_str().unwrap(),
        sound.to_str().unwrap(),
        flac.to_str().unwrap(),
    );
    let run = [
        "run",
        "speech-recognition",
        "--model",
        model,
        "--language",
        "en",
        "--temperature",
        "0",
    ];
    let answers = objects(&[&run[..], &["--json", sound, flac]].concat(), "");
    assert_eq!(answers.len(), 2);
    assert_eq!(answers[0]["segments"], answers[1]["segments"]);
    assert_eq!(answers[0]["language"], "en");
    let text = |format: &str| {
        let output = salamander(&[&run[..], &["--format", format, sound]].concat(), b"");
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let segments = answers[0]["segments"].as_array().unwrap();
    assert_eq!(text("text").lines().count(), segments.len());
    assert!(text("srt").starts_with("1\n00:00:00,"), "{}", text("srt"));
    assert!(text("vtt").starts_with("WEBVTT\n\n00:00:00."));
    let error = fails(&[&run[..], &[model]].concat(), b"");
    assert!(error.contains(model), "{error}");

    let run = [&run[..], &["--word-timestamps"]].concat();
    let answers = objects(&[&run[..], &["--json", sound]].concat(), "");
    let segments = answers[0]["segments"].as_array().unwrap();
    let words = segments.iter().map(|segment| segment["words"].as_array());
    let words: Vec<&Value> = words.flat_map(Option::unwrap).collect();
    let text = |format: &str| {
        let output = salamander(&[&run[..], &["--format", format, sound]].concat(), b"");
        String::from_utf8(output.stdout).unwrap()
    };
    let lines = text("text");
    let lines: Vec<Vec<&str>> = lines
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    assert_eq!(lines.len(), words.len());
    for (line, word) in lines.iter().zip(&words) {
        let time = |name: &str| format!("{:.2}", word[name].as_f64().unwrap());
        let expected = [&time("start"), &time("end"), word["text"].as_str().unwrap()];
        assert_eq!(line[..], expected);
    }
    assert_eq!(text("srt").matches("-->").count(), words.len());
    assert_eq!(text("vtt").matches("-->").count(), segments.len());
}

#[test]
fn a_converted_model_answers_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let source = fixture("../../assets/sentiment");
    let source = source.to_str().unwrap();
    let answer = |model: &str| {
        let run = [
            "run",
            "text-classification",
            "--model",
            model,
            "--json",
            "a fine film",
        ];
        objects(&run, "").remove(0)
    };
    for format in ["safetensors", "pytorch", "json", "native"] {
        let target = folder.path().join(format);
        let target = target.to_str().unwrap();
        let convert = [
            "convert",
            source,
            target,
            "--format",
            format,
            "--shard-size",
            "500KB",
        ];
        let output = salamander(&convert, b"");
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{errors}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("largest difference  0\n"), "{text}");
        assert_eq!(errors, "", "a pipe gets no progress");
        if format != "native" {
            assert_eq!(answer(target), answer(source), "{format}");
        }
    }
    let target = folder.path().join("half.safetensors");
    let target = target.to_str().unwrap();
    let convert = ["convert", source, target, "--dtype", "bf16", "--json"];
    let output = salamander(&convert, b"");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["to"], "safetensors");
    let largest = report["largest_difference"].as_f64().unwrap();
    assert!(largest > 0.0 && largest < 0.1);
    let tensors = report["tensors"].as_array().unwrap();
    let differences = tensors.iter().map(|t| t["difference"].as_f64().unwrap());
    assert_eq!(differences.fold(0.0, f64::max), largest);
    let again = fails(&["convert", source, target], b"");
    assert!(again.contains("is there already"), "{again}");
    let unknown = salamander(&["convert", source, target, "--dtype", "q3_k"], b"");
    assert!(!unknown.status.success());
}

#[test]
fn a_scan_fails_on_danger_alone() {
    let path = |name: &str| {
        fixture(&format!("scan/{name}"))
            .to_str()
            .unwrap()
            .to_owned()
    };
    let good = path("state_dict.pt");
    let output = salamander(&["scan", &good], b"");
    assert!(output.status.success());
    let report = objects(&["scan", &good, "--json"], "").remove(0);
    assert_eq!(
        (&report["dangerous"], &report["pickles"]),
        (&Value::Bool(false), &Value::from(1))
    );
    let bad = path("nested.pkl");
    let output = salamander(&["scan", &good, &bad], b"");
    assert!(!output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("danger") && text.contains("`os.system`"),
        "{text}"
    );
    let whole = fixture("scan");
    let error = fails(&["scan", whole.to_str().unwrap()], b"");
    assert!(error.contains("files are dangerous"), "{error}");
}

#[test]
fn devices_are_listed_with_what_is_missing() {
    let listed = objects(&["devices", "--json"], "");
    let of = |name: &str| {
        listed
            .iter()
            .find(|entry| entry["backend"] == name)
            .unwrap()
    };
    let flex = of("flex");
    assert_eq!(flex["linked"], true);
    assert_eq!(flex["devices"][0]["device"], "flex");
    assert!(
        flex["devices"][0]["dtypes"]
            .as_array()
            .unwrap()
            .contains(&"f32".into())
    );
    for entry in &listed {
        let found = !entry["devices"].as_array().unwrap().is_empty();
        assert_ne!(found, entry["absent"].is_string(), "{entry}");
    }
    let output = salamander(&["devices"], b"");
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && table.contains("by default"),
        "{table}"
    );
}
