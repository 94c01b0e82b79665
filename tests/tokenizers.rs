//! Tokenizers as people lay out their files, against transformers: `tools/fixtures/tokenizer_files.py`.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use salamander::importers::Checkpoint;
use salamander::models::contained_tokenizer;
use salamander::models::processing::text::{TextTokenizer, TokenizerFiles, Truncation};
use salamander::tasks::SpeechRecognition;
use salamander::{Device, ModelDir};
use serde_json::{Value, json};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers")
}

/// The tokenizer of a file of GGUF.
fn of_gguf(path: &Path) -> Result<TextTokenizer, String> {
    let checkpoint = Checkpoint::open(path).map_err(|error| error.to_string())?;
    let made = contained_tokenizer(&checkpoint).map_err(|error| error.to_string())?;
    let files = TokenizerFiles {
        tokenizer: made,
        ..TokenizerFiles::default()
    };
    TextTokenizer::new(&files).map_err(|error| error.to_string())
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn every_layout_gives_the_reference_tokens() {
    let mut wrong = BTreeMap::new();
    let mut checked = 0;
    for item in fs::read_dir(fixtures()).unwrap() {
        let path = item.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let gguf = path.join("model.gguf");
        let tokenizer = match gguf.exists() {
            true => of_gguf(&gguf),
            false => ModelDir::find(&path)
                .and_then(|directory| directory.tokenizer())
                .map_err(|error| error.to_string()),
        };
        let tokenizer = match tokenizer {
            Ok(tokenizer) => tokenizer,
            Err(error) => {
                wrong.insert(name, vec![error]);
                continue;
            }
        };
        for case in read(&path.join("cases.json")).as_array().unwrap() {
            let found =
                tokenizer.encode(case["text"].as_str().unwrap(), case["pair"].as_str(), None);
            let found = &found.unwrap()[0];
            let found = json!({
                "text": case["text"],
                "pair": case["pair"],
                "ids": found.get_ids(),
                "types": found.get_type_ids(),
                "offsets": found.get_offsets(),
            });
            checked += 1;
            if found != *case {
                let list = wrong.entry(name.clone()).or_insert_with(Vec::new);
                list.push(format!("{found}\n  for {case}"));
            }
        }
    }
    for (name, list) in &wrong {
        let shown: Vec<&str> = list.iter().take(2).map(|text| &text[..]).collect();
        eprintln!("{name}: {} wrong\n  {}", list.len(), shown.join("\n  "));
    }
    assert!(wrong.is_empty());
    assert!(checked > 500, "{checked}");
}

#[test]
fn a_whisper_with_slow_tokenizer_files_transcribes() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/speech");
    let folder = std::env::temp_dir().join(format!("salamander-slow-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    for name in [
        "config.json",
        "generation_config.json",
        "preprocessor_config.json",
        "tokenizer_config.json",
        "model.safetensors",
    ] {
        fs::copy(source.join(name), folder.join(name)).unwrap();
    }
    let made = read(&source.join("tokenizer.json"));
    let write = |name: &str, bytes: String| fs::write(folder.join(name), bytes).unwrap();
    let added = made["added_tokens"].as_array().unwrap().iter();
    let added = added.map(|token| {
        (
            token["content"].as_str().unwrap().to_owned(),
            token["id"].clone(),
        )
    });
    let added: serde_json::Map<String, Value> = added.collect();
    let mut ids = made["model"]["vocab"].as_object().unwrap().clone();
    ids.retain(|token, _| !added.contains_key(token));
    write("vocab.json", json!(ids).to_string());
    write("added_tokens.json", json!(added).to_string());
    let merges = made["model"]["merges"].as_array().unwrap().iter();
    let merges = merges.map(|pair| match pair.as_array() {
        Some(pair) => format!(
            "{} {}",
            pair[0].as_str().unwrap(),
            pair[1].as_str().unwrap()
        ),
        None => pair.as_str().unwrap().to_owned(),
    });
    write(
        "merges.txt",
        format!("#version: 0.2\n{}\n", merges.collect::<Vec<_>>().join("\n")),
    );
    let tokens = |folder: &Path| {
        let tokenizer = ModelDir::find(folder).unwrap().tokenizer().unwrap();
        let text = "<|startoftranscript|> can you start a timer, d\u{e9}j\u{e0} vu<|0.02|>";
        let ids = tokenizer.pieces(text).unwrap();
        (tokenizer.decode(&ids, true).unwrap(), ids)
    };
    assert_eq!(tokens(&folder), tokens(&source));
    let device = Device::from_env().unwrap();
    let model = SpeechRecognition::open(&folder, &device).unwrap();
    let text = model.run(source.join("sample.flac")).unwrap().text;
    assert_eq!(text.trim(), "can you start a timer for thirty minutes");
    fs::remove_dir_all(&folder).unwrap();
}

fn files(class: &str) -> TokenizerFiles {
    TokenizerFiles {
        vocabulary: Some(b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n".to_vec()),
        config: Some(json!({"tokenizer_class": class})),
        model_config: Some(json!({"model_type": "bert"})),
        ..TokenizerFiles::default()
    }
}

#[test]
fn a_class_that_splits_in_its_own_way_is_refused_by_name() {
    for class in [
        "BertJapaneseTokenizer",
        "PhobertTokenizer",
        "CanineTokenizer",
        "EsmTokenizer",
        "RoFormerTokenizerFast",
        "CharacterBertTokenizer",
        "PreTrainedTokenizerFast",
        "XLMRobertaTokenizer",
    ] {
        let error = TextTokenizer::new(&files(class)).unwrap_err().to_string();
        let named = error.contains(class) || error.contains("sentencepiece.bpe.model");
        assert!(named, "{class}: {error}");
    }
    assert!(TextTokenizer::new(&files("BertTokenizerFast")).is_ok());
    let mut files = files("");
    files.vocabulary = None;
    let error = TextTokenizer::new(&files).unwrap_err().to_string();
    assert!(error.contains("vocab.txt"), "{error}");
}

#[test]
fn settings_of_lengths_and_sides_are_followed() {
    let files = |config: Value| TokenizerFiles {
        config: Some(config),
        ..files("BertTokenizer")
    };
    let older = TextTokenizer::new(&files(json!({"max_len": 7}))).unwrap();
    assert_eq!(older.max_length(), Some(7));
    let left = TextTokenizer::new(&files(json!({"truncation_side": "left"}))).unwrap();
    let cut = left
        .encode("a ? a a", None, Some(Truncation::to(4)))
        .unwrap();
    assert_eq!(cut[0].get_ids(), [2, 5, 5, 3]);
    let error = TextTokenizer::new(&files(json!({"truncation_side": "top"}))).unwrap_err();
    assert!(error.to_string().contains("\"top\""), "{error}");
    let wrong = json!({"added_tokens_decoder": {"six": {"content": "b"}}});
    let error = TextTokenizer::new(&files(wrong)).unwrap_err();
    assert!(error.to_string().contains("`six`"), "{error}");
}

#[test]
fn a_broken_map_of_characters_is_refused() {
    let folder = fixtures().join("xlm-roberta-json");
    let text = fs::read_to_string(folder.join("tokenizer.json")).unwrap();
    let whole: Value = serde_json::from_str(&text).unwrap();
    let map = whole["normalizer"]["precompiled_charsmap"]
        .as_str()
        .unwrap();
    // The length of the trie, a unit that leads out of it, and nothing.
    let huge = format!("////{}", &map[4..]);
    let out = format!("{}////{}", &map[..8], &map[12..]);
    for broken in [&huge, &out, "", "!!"] {
        let files = TokenizerFiles {
            tokenizer: Some(text.replace(map, broken).into_bytes()),
            ..TokenizerFiles::default()
        };
        let error = TextTokenizer::new(&files).unwrap_err().to_string();
        assert!(error.contains("precompiled_charsmap"), "{error}");
    }
}

/// A file of GGUF with keys of texts and of lists of texts.
fn gguf(keys: &[(&str, &[&str])]) -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3_u32.to_le_bytes());
    bytes.extend(0_u64.to_le_bytes());
    bytes.extend((keys.len() as u64).to_le_bytes());
    let put = |bytes: &mut Vec<u8>, text: &str| {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
    };
    for (key, texts) in keys {
        put(&mut bytes, key);
        if !key.ends_with("tokens") {
            bytes.extend(8_u32.to_le_bytes());
            put(&mut bytes, texts[0]);
            continue;
        }
        bytes.extend(9_u32.to_le_bytes());
        bytes.extend(8_u32.to_le_bytes());
        bytes.extend((texts.len() as u64).to_le_bytes());
        for text in *texts {
            put(&mut bytes, text);
        }
    }
    bytes
}

#[test]
fn a_vocabulary_of_gguf_that_is_not_known_is_refused_by_name() {
    let folder = std::env::temp_dir().join(format!("salamander-tokenizers-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let words: &[&str] = &[
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "\u{2581}\u{2581}a",
        "\u{2581}\u{2581}b",
    ];
    let plain: &[&str] = &["[PAD]", "[UNK]", "[CLS]", "[SEP]", "\u{2581}a", "A"];
    for (model, pre, tokens, expected) in [
        ("rwkv", "default", plain, "\"rwkv\""),
        ("plamo2", "default", plain, "\"plamo2\""),
        ("gpt2", "llama-bpe", plain, "\"llama-bpe\""),
        ("bert", "whitespace", plain, "\"whitespace\""),
        ("t5", "jina-v2-de", plain, "\"jina-v2-de\""),
        ("bert", "default", words, "SentencePiece"),
        ("bert", "default", plain, ""),
    ] {
        let path = folder.join("model.gguf");
        let keys: [(&str, &[&str]); 3] = [
            ("tokenizer.ggml.model", &[model]),
            ("tokenizer.ggml.pre", &[pre]),
            ("tokenizer.ggml.tokens", tokens),
        ];
        fs::write(&path, gguf(&keys)).unwrap();
        match of_gguf(&path) {
            Ok(_) => assert_eq!(expected, "", "{model} {pre}"),
            Err(error) => assert!(!expected.is_empty() && error.contains(expected), "{error}"),
        }
    }
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn capitals_are_of_the_vocabulary_and_of_what_the_maker_says() {
    let folder = std::env::temp_dir().join(format!("salamander-cased-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let letters: Vec<String> = ('a'..='z').map(|c| format!("\u{2581}{c}")).collect();
    let mut tokens = vec![
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "\u{2581}\u{211d}",
        "\u{211d}",
    ];
    tokens.extend(letters.iter().map(|token| &token[..]));
    let path = folder.join("model.gguf");
    let lowers = |name: &str, tokens: &[&str]| {
        let keys: [(&str, &[&str]); 4] = [
            ("general.name", &[name]),
            ("tokenizer.ggml.model", &["bert"]),
            ("tokenizer.ggml.pre", &["default"]),
            ("tokenizer.ggml.tokens", tokens),
        ];
        fs::write(&path, gguf(&keys)).unwrap();
        let tokenizer = of_gguf(&path).unwrap();
        tokenizer.pieces("a").unwrap() == tokenizer.pieces("A").unwrap()
    };
    assert!(lowers("tiny", &tokens));
    assert!(!lowers("Bert Base Cased", &tokens));
    tokens.extend(["\u{2581}Paris", "\u{2581}London", "\u{2581}Rome"]);
    assert!(!lowers("tiny", &tokens));
    assert!(lowers("bert-base-uncased", &tokens));
    fs::remove_dir_all(&folder).unwrap();
}
