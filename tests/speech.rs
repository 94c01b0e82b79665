//! Speech recognition from samples to text, against the reference on a tiny random model.
//!
//! `tools/fixtures/{whisper_generate,whisper_openai,whisper_words}.py` make the fixtures.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{Int, Tensor};
use salamander::importers::Checkpoint;
use salamander::models::{detect, whisper};
use salamander::tasks::{SpeechRecognition, SpeechRecognitionOptions, SpeechTask};
use salamander::{Audio, Device};
use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn open() -> SpeechRecognition {
    SpeechRecognition::open(fixture("whisper_generate"), &Device::from_env().unwrap()).unwrap()
}

/// As the fixtures were made: one temperature and no thresholds.
fn plain() -> SpeechRecognitionOptions {
    SpeechRecognitionOptions {
        language: Some("english".to_owned()),
        task: Some(SpeechTask::Transcribe),
        temperatures: vec![0.0],
        compression_ratio_threshold: None,
        logprob_threshold: None,
        no_speech_threshold: None,
        ..SpeechRecognitionOptions::default()
    }
}

fn sound() -> Audio {
    Audio::open(fixture("whisper_audio/sound.wav"), 16_000).unwrap()
}

#[test]
fn segments_are_the_references() {
    let transcribe = open().with_options(plain()).unwrap();
    let text = fs::read(fixture("whisper_generate/sound.json")).unwrap();
    let expected: Vec<Value> = serde_json::from_slice(&text).unwrap();
    for times in [1, 3] {
        let audio = Audio {
            samples: sound().samples.repeat(times),
            rate: 16_000,
        };
        let mut seen = Vec::new();
        let mut done = 0.0;
        let transcript = transcribe
            .run_audio(&audio, |progress| {
                assert!(progress.seconds >= done && progress.seconds <= progress.total);
                done = progress.seconds;
                seen.extend_from_slice(progress.segments);
            })
            .unwrap();
        assert_eq!(seen, transcript.segments);
        assert_eq!(transcript.language.as_deref(), Some("en"));
        let total = audio.seconds();
        let expected: Vec<&Value> = expected.iter().filter(|s| s["times"] == times).collect();
        assert_eq!(transcript.segments.len(), expected.len(), "{times}");
        for (found, expected) in transcript.segments.iter().zip(expected) {
            assert_eq!(expected["text"], found.text);
            // Times beyond the end of the sound are the end of the sound.
            for (found, name) in [(found.start, "start"), (found.end, "end")] {
                let expected = expected[name].as_f64().unwrap().min(total);
                assert!(
                    (found - expected).abs() < 1e-6,
                    "{name}: {found}, not {expected}"
                );
            }
        }
    }
}

/// A `.pt` and a tokenizer are all there is: sizes and rules are those of OpenAI's package.
#[test]
fn openais_checkpoint_needs_no_configuration() {
    let (model, device) = (fixture("whisper_openai/model"), Device::from_env().unwrap());
    let checkpoint = Checkpoint::open(&model).unwrap();
    let nothing = Value::Null;
    let detected = detect(&checkpoint, &nothing).unwrap();
    let config = detected.config(&nothing).unwrap();
    let (network, config) = whisper::open(&config, &checkpoint, device.burn()).unwrap();
    assert_eq!(
        (
            config.encoder_attention_heads,
            config.decoder_attention_heads
        ),
        (3, 2)
    );
    let golden = Checkpoint::open(fixture("whisper_openai/golden.safetensors")).unwrap();
    let read = |name: &str| golden.get(name).unwrap().read().unwrap();
    let mel = Tensor::<3>::from_data(read("mel"), device.burn());
    let tokens = Tensor::<2, Int>::from_data(read("tokens"), device.burn());
    let logits = network.forward(tokens.into(), network.trunk().encode(mel));
    let expected = Tensor::<3>::from_data(read("logits"), device.burn());
    let largest = expected.clone().abs().max().into_scalar::<f32>();
    let worst = (logits - expected).abs().max().into_scalar::<f32>();
    // The reference itself is that far from its result in f64.
    assert!(worst < 2e-5 * largest, "differs by {worst} of {largest}");

    let text = fs::read(fixture("whisper_openai/decoded.json")).unwrap();
    let decoded: Vec<Value> = serde_json::from_slice(&text).unwrap();
    assert_eq!(decoded.len(), 6);
    for case in decoded {
        let mut audio = sound();
        match case["sound"].as_str().unwrap() {
            "backwards" => audio.samples.reverse(),
            "half" => drop(audio.samples.drain(..8_000)),
            _ => {}
        }
        let options = SpeechRecognitionOptions {
            language: case["asked"].as_str().map(str::to_owned),
            task: None,
            max_new_tokens: Some(30),
            ..plain()
        };
        let transcribe = SpeechRecognition::open(&model, &device).unwrap();
        let transcribe = transcribe.with_options(options).unwrap();
        let transcript = transcribe.run_audio(&audio, |_| {}).unwrap();
        assert_eq!(transcript.language.as_deref(), case["language"].as_str());
        assert_eq!(transcript.segments.len(), 1);
        assert_eq!(
            serde_json::json!(transcript.segments[0].tokens),
            case["tokens"],
            "{case}"
        );
    }
}

/// A copy of the model, which may be changed.
fn copied() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for item in fs::read_dir(fixture("whisper_generate")).unwrap() {
        let path = item.unwrap().path();
        fs::copy(&path, directory.path().join(path.file_name().unwrap())).unwrap();
    }
    directory
}

/// Writes a field of a JSON file.
fn set(path: &Path, field: &str, value: Value) {
    let mut json: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    json[field] = value;
    fs::write(path, json.to_string()).unwrap();
}

#[test]
fn words_and_their_times_are_the_references() {
    let directory = copied();
    let tokenizer = "tokenizer.json";
    fs::copy(
        fixture("whisper_words").join(tokenizer),
        directory.path().join(tokenizer),
    )
    .unwrap();
    let device = Device::from_env().unwrap();
    let options = SpeechRecognitionOptions {
        word_timestamps: true,
        ..plain()
    };
    let text = fs::read(fixture("whisper_words/sound.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_slice(&text).unwrap();
    for case in cases {
        let settings = directory.path().join("generation_config.json");
        set(
            &settings,
            "alignment_heads",
            case["alignment_heads"].clone(),
        );
        let transcribe = SpeechRecognition::open(directory.path(), &device).unwrap();
        let transcribe = transcribe.with_options(options.clone()).unwrap();
        let audio = Audio {
            samples: sound()
                .samples
                .repeat(case["times"].as_u64().unwrap() as usize),
            rate: 16_000,
        };
        let transcript = transcribe.run_audio(&audio, |_| {}).unwrap();
        let found = transcript.segments.iter().flat_map(|s| &s.words);
        let found: Vec<Value> = found
            .map(|word| serde_json::json!([word.text, word.start, word.end]))
            .collect();
        assert_eq!(Value::Array(found), case["words"]);
        for segment in &transcript.segments {
            let words: String = segment.words.iter().map(|word| &word.text[..]).collect();
            assert_eq!(words, segment.text);
        }
    }
}

#[test]
fn words_have_no_times_without_heads_that_show_them() {
    let directory = copied();
    for (heads, says) in [
        (Value::Null, "has no `alignment_heads`"),
        (serde_json::json!([]), "names 0 `alignment_heads`"),
        (
            serde_json::json!(vec![[0, 1]; 5]),
            "names 5 `alignment_heads`",
        ),
        (
            serde_json::json!([[0, 1], [2, 0]]),
            "head 0 of layer 2 in `alignment_heads`",
        ),
        (
            serde_json::json!([[0, 2]]),
            "head 2 of layer 0 in `alignment_heads`",
        ),
    ] {
        let settings = directory.path().join("generation_config.json");
        set(&settings, "alignment_heads", heads);
        let model = SpeechRecognition::open(directory.path(), &Device::from_env().unwrap());
        let options = SpeechRecognitionOptions {
            word_timestamps: true,
            ..plain()
        };
        let transcribe = model.unwrap().with_options(options).unwrap();
        let error = transcribe.run_audio(&sound(), |_| {}).unwrap_err();
        let error = error.to_string();
        for says in ["`word_timestamps`", says] {
            assert!(error.contains(says), "{error} does not say {says}");
        }
    }
}

#[test]
fn the_same_seed_draws_the_same_text() {
    let draw = |seed| {
        let options = SpeechRecognitionOptions {
            temperatures: vec![1.0],
            seed,
            ..plain()
        };
        let transcribe = open().with_options(options).unwrap();
        transcribe.run_audio(&sound(), |_| {}).unwrap()
    };
    assert_eq!(draw(7), draw(7));
    assert_ne!(draw(7).text, draw(8).text);
}

#[test]
fn an_answer_that_fails_the_thresholds_is_tried_hotter() {
    let options = SpeechRecognitionOptions {
        temperatures: vec![0.0, 0.3, 0.9],
        logprob_threshold: Some(0.0),
        ..plain()
    };
    let transcribe = open().with_options(options.clone()).unwrap();
    let transcript = transcribe.run_audio(&sound(), |_| {}).unwrap();
    assert!(transcript.segments.iter().all(|s| s.temperature == 0.9));
    let silent = SpeechRecognitionOptions {
        no_speech_threshold: Some(0.0),
        ..options
    };
    let transcribe = open().with_options(silent).unwrap();
    let transcript = transcribe.run_audio(&sound(), |_| {}).unwrap();
    assert_eq!(transcript.segments, []);
}

#[test]
fn short_and_silent_sounds_have_transcripts() {
    let options = SpeechRecognitionOptions {
        word_timestamps: true,
        ..plain()
    };
    let transcribe = open().with_options(options).unwrap();
    for (samples, rate) in [
        (vec![], 16_000),
        (vec![0.1; 16], 16_000),
        (vec![0.0; 30_000], 16_000),
        (vec![0.0; 44_100], 44_100),
        (vec![f32::NAN; 4_000], 16_000),
    ] {
        let audio = Audio { samples, rate };
        let transcript = transcribe.run_audio(&audio, |_| {}).unwrap();
        let seconds = audio.seconds();
        assert!(transcript.segments.iter().all(|s| s.end <= seconds + 1e-4));
        let ends = transcript.segments.iter().flat_map(|s| &s.words);
        assert!(ends.map(|word| word.end).all(|end| end <= seconds + 1e-4));
    }
}

#[test]
fn options_that_make_no_sense_are_refused_by_name() {
    let defaults = SpeechRecognitionOptions::default;
    for (options, says) in [
        (
            SpeechRecognitionOptions {
                beams: 0,
                ..defaults()
            },
            "`beams`",
        ),
        (
            SpeechRecognitionOptions {
                temperatures: vec![],
                ..defaults()
            },
            "`temperatures`",
        ),
        (
            SpeechRecognitionOptions {
                logprob_threshold: None,
                ..defaults()
            },
            "`no_speech_threshold`",
        ),
        (
            SpeechRecognitionOptions {
                prompt_every_window: true,
                ..defaults()
            },
            "`prompt_every_window`",
        ),
    ] {
        let error = open().with_options(options).unwrap_err().to_string();
        assert!(error.contains(says), "{error} does not say {says}");
    }
    for (options, says) in [
        (
            SpeechRecognitionOptions {
                language: Some("klingon".to_owned()),
                ..defaults()
            },
            "\"klingon\" is not known; there are en, fr",
        ),
        (
            SpeechRecognitionOptions {
                max_new_tokens: Some(58),
                ..plain()
            },
            "`max_new_tokens`",
        ),
        (
            SpeechRecognitionOptions {
                prompt: Some("w1 ".repeat(80)),
                ..plain()
            },
            "`prompt`",
        ),
    ] {
        let transcribe = open().with_options(options).unwrap();
        let error = transcribe.run_audio(&sound(), |_| {}).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(says), "{error} does not say {says}");
    }
    let untimed = SpeechRecognitionOptions {
        timestamps: false,
        ..plain()
    };
    let transcribe = open().with_options(untimed).unwrap();
    let long = Audio {
        samples: sound().samples.repeat(2),
        rate: 16_000,
    };
    let error = transcribe.run_audio(&long, |_| {}).unwrap_err().to_string();
    assert!(error.contains("`timestamps`"), "{error}");
}

#[test]
fn files_that_do_not_fit_the_network_are_refused() {
    let directory = copied();
    let refused = |file: &str, changes: &[(&str, Value)], says: &str| {
        let path = directory.path().join(file);
        let before = fs::read(&path).unwrap();
        let mut json: Value = serde_json::from_slice(&before).unwrap();
        for (field, value) in changes {
            json[field] = value.clone();
        }
        fs::write(&path, json.to_string()).unwrap();
        let opened = SpeechRecognition::open(directory.path(), &Device::from_env().unwrap());
        let error = opened.unwrap_err().to_string();
        assert!(error.contains(says), "{error} does not say {says}");
        assert!(
            error.contains(directory.path().to_str().unwrap()),
            "{error}"
        );
        fs::write(&path, before).unwrap();
    };
    let preprocessor = "preprocessor_config.json";
    refused(
        preprocessor,
        &[("feature_size", 80.into())],
        "`num_mel_bins`",
    );
    refused(
        preprocessor,
        &[("chunk_length", 30.into())],
        "`max_source_positions`",
    );
    refused(preprocessor, &[("dither", 0.5.into())], "`dither`: 0.5");
    refused(
        "config.json",
        &[("num_mel_bins", 0.into())],
        "`num_mel_bins`: 0",
    );
    refused(
        "config.json",
        &[("encoder_layers", 100_000.into())],
        "`encoder_layers`",
    );
    refused(
        "config.json",
        &[("activation_function", "sine".into())],
        "`activation_function`: \"sine\"",
    );
    refused(
        "config.json",
        &[("model_type", "bert".into())],
        "no head for speech-recognition",
    );
    refused(
        "generation_config.json",
        &[("typical_p", 0.5.into())],
        "`typical_p`: 0.5",
    );
    // A missing generation_config.json is made up for from the tokenizer.
    fs::remove_file(directory.path().join("generation_config.json")).unwrap();
    let opened = SpeechRecognition::open(directory.path(), &Device::from_env().unwrap());
    assert!(opened.unwrap().with_options(plain()).is_ok());
}

#[test]
fn an_incomplete_generation_config_is_completed() {
    let complete = open().with_options(plain()).unwrap();
    let expected = complete.run_audio(&sound(), |_| {}).unwrap();
    let directory = copied();
    let settings = directory.path().join("generation_config.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&settings).unwrap()).unwrap();
    let fields = json.as_object_mut().unwrap();
    for field in [
        "no_timestamps_token_id",
        "lang_to_id",
        "task_to_id",
        "is_multilingual",
        "alignment_heads",
        "prev_sot_token_id",
    ] {
        assert!(fields.remove(field).is_some(), "{field}");
    }
    fields.insert("new_field_of_a_later_version".to_owned(), true.into());
    fs::write(&settings, json.to_string()).unwrap();
    let opened = SpeechRecognition::open(directory.path(), &Device::from_env().unwrap()).unwrap();
    let options = SpeechRecognitionOptions {
        prompt: None,
        ..plain()
    };
    let found = opened.with_options(options).unwrap();
    assert_eq!(found.run_audio(&sound(), |_| {}).unwrap(), expected);
}

#[test]
fn generation_settings_are_followed_or_refused_by_name() {
    let directory = copied();
    let settings = directory.path().join("generation_config.json");
    let before = fs::read(&settings).unwrap();
    let with = |field: &str, value: Value| {
        fs::write(&settings, &before).unwrap();
        set(&settings, field, value);
        SpeechRecognition::open(directory.path(), &Device::from_env().unwrap())
    };
    let text = |task: SpeechRecognition, options: SpeechRecognitionOptions| {
        let task = task.with_options(options).unwrap();
        task.run_audio(&sound(), |_| {}).unwrap().segments
    };
    let neutral = text(open(), plain());
    for (field, value, options) in [
        (
            "repetition_penalty",
            serde_json::json!(1.5),
            SpeechRecognitionOptions {
                repetition_penalty: Some(1.5),
                ..plain()
            },
        ),
        (
            "no_repeat_ngram_size",
            serde_json::json!(2),
            SpeechRecognitionOptions {
                no_repeat_ngram_size: Some(2),
                ..plain()
            },
        ),
    ] {
        let by_option = text(open(), options);
        assert_ne!(by_option, neutral, "{field}");
        assert_eq!(
            text(with(field, value).unwrap(), plain()),
            by_option,
            "{field}"
        );
    }
    let opened = with("no_speech_threshold", serde_json::json!(0.25)).unwrap();
    assert_eq!(opened.options().no_speech_threshold, Some(0.25));
    let opened = with("num_beams", serde_json::json!(3)).unwrap();
    assert_eq!(opened.options().beams, 3);
    assert_eq!(
        text(
            with("eos_token_id", serde_json::json!([80])).unwrap(),
            plain()
        ),
        neutral
    );
    for (field, value) in [
        ("min_p", serde_json::json!(0.1)),
        ("bad_words_ids", serde_json::json!([[1]])),
        ("top_p", serde_json::json!(1.5)),
        ("repetition_penalty", serde_json::json!(0.0)),
        ("num_beams", serde_json::json!("three")),
        ("eos_token_id", serde_json::json!([80, 81])),
        ("early_stopping", serde_json::json!("never")),
    ] {
        let error = with(field, value).unwrap_err().to_string();
        let says = format!("generation_config.json: `{field}`: ");
        assert!(error.contains(&says), "{error} does not say {says}");
    }
}
