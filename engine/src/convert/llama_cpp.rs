//! The metadata of a GGUF file.
//!
//! For BERT, GPT-2 and T5 it is what llama.cpp's `convert_hf_to_gguf.py` writes, so that llama.cpp can run the file; the keys
//! are those of <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use salamander_importers::gguf::{self, Metadata, Value as Typed};
use salamander_importers::{Dtype, Entry, Format};
use salamander_models::blocks::Pooling;
use salamander_models::blocks::pooling::Mode;
use serde_json::Value;

use super::Model;
use crate::Error;
use crate::sentence::{ModuleKind, SentenceClass, SentenceModel};

/// The version of the block types' layouts.
const QUANTIZATION_VERSION: u32 = 2;

/// The keys of the source where that is GGUF itself, those of llama.cpp where it has the architecture, and else
/// the source's as texts.
pub(super) fn metadata(
    model: &Model,
    has_llama_names: bool,
    tensors: &[(String, Entry)],
) -> Result<Metadata, Error> {
    let gguf = matches!(model.checkpoint.format, Format::Gguf | Format::SplitGguf);
    let mut metadata = match model.checkpoint.files.first() {
        Some(file) if gguf => gguf::metadata(file)?,
        _ => general(model, has_llama_names),
    };
    metadata.retain(|(key, _)| !key.starts_with("split."));
    match (model.family, &model.config) {
        _ if !has_llama_names => {}
        (Some(family), Some(config)) => {
            metadata.extend(family.keys(config));
            vocabulary(model, &mut metadata)?;
        }
        _ => {
            bert(model, &mut metadata);
            tokenizer(model, &mut metadata)?;
        }
    }
    let mut put = |key: &str, value: Typed| {
        metadata.retain(|(known, _)| known != key);
        metadata.push((key.to_owned(), value));
    };
    let dtypes = || tensors.iter().map(|(_, entry)| &entry.dtype);
    if let Some(file_type) = file_type(tensors) {
        put("general.file_type", Typed::u32(file_type));
    }
    if dtypes().any(|dtype| matches!(dtype, Dtype::Quantized(_))) {
        put(
            "general.quantization_version",
            Typed::u32(QUANTIZATION_VERSION),
        );
    }
    Ok(metadata)
}

fn general(model: &Model, has_llama_names: bool) -> Metadata {
    let config = model.config.as_ref();
    let text = |key: &str| config.and_then(|config| config.get(key)?.as_str());
    let architecture = match &model.known {
        Some(known) if has_llama_names => known.architecture.name,
        _ => text("model_type").unwrap_or("unknown"),
    };
    let mut metadata = vec![
        ("general.architecture".to_owned(), Typed::text(architecture)),
        ("general.type".to_owned(), Typed::text("model")),
    ];
    let path = model.directory.as_ref().map(|directory| directory.path());
    let folder = path.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    if let Some(name) = folder {
        metadata.push(("general.name".to_owned(), Typed::text(&name)));
    }
    if !has_llama_names {
        let own = model.checkpoint.metadata.iter();
        let own = own.filter(|(key, _)| !key.starts_with("pytorch."));
        metadata.extend(own.map(|(key, value)| (key.clone(), Typed::text(value))));
    }
    metadata
}

/// llama.cpp's number for the type that most of the matrices have.
fn file_type(tensors: &[(String, Entry)]) -> Option<u32> {
    let mut elements: Vec<(&Dtype, usize)> = Vec::new();
    for (_, entry) in tensors.iter().filter(|(_, entry)| entry.shape.len() > 1) {
        match elements
            .iter_mut()
            .find(|(dtype, _)| **dtype == entry.dtype)
        {
            Some((_, count)) => *count += entry.elements(),
            None => elements.push((&entry.dtype, entry.elements())),
        }
    }
    let (most, _) = elements.into_iter().max_by_key(|(_, count)| *count)?;
    Some(match most {
        Dtype::F32 => 0,
        Dtype::F16 => 1,
        Dtype::BF16 => 32,
        Dtype::Quantized(name) => match *name {
            "Q4_0" => 2,
            "Q4_1" => 3,
            "Q8_0" => 7,
            "Q5_0" => 8,
            "Q5_1" => 9,
            "Q4_K" => 14,
            "Q6_K" => 18,
            _ => return None,
        },
        _ => return None,
    })
}

/// What llama.cpp must know of a BERT.
fn bert(model: &Model, metadata: &mut Metadata) {
    let Some(config) = &model.config else {
        return;
    };
    let number = |key: &str| {
        let number = config.get(key)?.as_u64()?;
        u32::try_from(number).ok()
    };
    let mut put = |key: &str, value: Option<Typed>| {
        if let Some(value) = value {
            metadata.push((format!("bert.{key}"), value));
        }
    };
    put("block_count", number("num_hidden_layers").map(Typed::u32));
    put(
        "context_length",
        number("max_position_embeddings").map(Typed::u32),
    );
    put("embedding_length", number("hidden_size").map(Typed::u32));
    put(
        "feed_forward_length",
        number("intermediate_size").map(Typed::u32),
    );
    put(
        "attention.head_count",
        number("num_attention_heads").map(Typed::u32),
    );
    let epsilon = config.get("layer_norm_eps").and_then(Value::as_f64);
    // What BERT has where its configuration does not say.
    let epsilon = epsilon.unwrap_or(1e-12);
    put(
        "attention.layer_norm_epsilon",
        Some(Typed::f32(epsilon as f32)),
    );
    put("attention.causal", Some(Typed::bool(false)));
    put("pooling_type", pooling(model).map(Typed::u32));
    let labels = config.get("id2label").and_then(Value::as_object);
    if let Some(labels) = labels
        && model
            .known
            .as_ref()
            .is_some_and(|known| known.class.ends_with("SequenceClassification"))
    {
        let mut labels: Vec<(u64, &str)> = labels
            .iter()
            .filter_map(|(id, label)| Some((id.parse().ok()?, label.as_str()?)))
            .collect();
        labels.sort_unstable();
        let labels = Typed::texts(labels.into_iter().map(|(_, label)| label));
        put("classifier.output_labels", Some(labels));
    }
}

/// llama.cpp's number for the classifier's answer in place of a vector.
const RANK: u32 = 4;

/// llama.cpp's number for how sentence-transformers pools, or for a classifier.
fn pooling(model: &Model) -> Option<u32> {
    if is_classifier(model) {
        return Some(RANK);
    }
    let sentence = sentence(model).ok()??;
    let mut modules = sentence.modules.iter();
    modules.find_map(|module| match &module.kind {
        ModuleKind::Pooling(pooling) => pooling_type(pooling),
        _ => None,
    })
}

fn is_classifier(model: &Model) -> bool {
    let class = model.known.as_ref().map(|known| known.class);
    class == Some("BertForSequenceClassification")
}

fn sentence(model: &Model) -> Result<Option<SentenceModel>, Error> {
    match &model.directory {
        Some(directory) => SentenceModel::read(directory, SentenceClass::SentenceTransformer),
        None => Ok(None),
    }
}

fn pooling_type(pooling: &Pooling) -> Option<u32> {
    match pooling.modes() {
        [Mode::Mean] => Some(1),
        [Mode::Cls] => Some(2),
        [Mode::LastToken] => Some(3),
        _ => None,
    }
}

/// What sentence-transformers does with the network's output and GGUF has no keys for.
pub(super) fn left_behind(model: &Model) -> Vec<String> {
    let mut remarks = Vec::new();
    let mut say = |what: String| remarks.push(format!("GGUF does not hold {what}"));
    if is_classifier(model) {
        let config = model.config.as_ref().unwrap_or(&Value::Null);
        let section = config.pointer("/sentence_transformers/activation_fn");
        let activation = section.or(config.get("sbert_ce_default_activation_function"));
        if let Some(class) = activation.and_then(Value::as_str) {
            say(format!("the activation of this cross-encoder, {class}"));
        }
        return remarks;
    }
    let sentence = match sentence(model) {
        Ok(None) => return remarks,
        Ok(Some(sentence)) => sentence,
        Err(error) => {
            say(format!(
                "what modules.json says, and neither is it understood: {error}"
            ));
            return remarks;
        }
    };
    for module in &sentence.modules {
        let folder = &module.folder;
        match &module.kind {
            ModuleKind::Pooling(pooling) => {
                if pooling_type(pooling).is_none() {
                    let modes = pooling.modes();
                    say(format!(
                        "the pooling of {folder}, {modes:?}; vectors made of the file are others"
                    ));
                }
                if !pooling.include_prompt {
                    say(format!("that {folder} leaves the tokens of a prompt out"));
                }
            }
            ModuleKind::Dense(_) => {
                say(format!(
                    "the Dense layer of {folder}; vectors made of the file are without it"
                ));
            }
            ModuleKind::LayerNorm(_) => {
                say(format!(
                    "the layer norm of {folder}; vectors made of the file are without it"
                ));
            }
            ModuleKind::Normalize => {
                say("that vectors are scaled to length 1; `--normalize` says it".to_owned());
            }
        }
    }
    let mut prompts = sentence.prompts.iter().filter(|(_, text)| !text.is_empty());
    let names: Vec<&str> = prompts.by_ref().map(|(name, _)| &name[..]).collect();
    if !names.is_empty() {
        say(format!(
            "the prompts {}; `--prompt` gives a text",
            names.join(", ")
        ));
    }
    if let Some(name) = &sentence.default_prompt {
        say(format!("that \"{name}\" is the prompt by default"));
    }
    if let Some(kept) = sentence.truncate_dim {
        say(format!(
            "that {kept} values of a vector are kept; `--truncate-dim` says it"
        ));
    }
    if let Some(length) = sentence.settings.max_length {
        say(format!("that texts are cut to {length} tokens"));
    }
    if sentence.settings.lower_case {
        say("that sentence_bert_config.json lowercases texts".to_owned());
    }
    remarks
}

/// The vocabulary of byte-level BPE or of unigrams, with its merges or scores.
fn vocabulary(model: &Model, metadata: &mut Metadata) -> Result<(), Error> {
    let Some(directory) = &model.directory else {
        return Ok(());
    };
    let Some(file) = directory.json("tokenizer.json")? else {
        return Ok(());
    };
    let at = |pointer: &str| file.pointer(pointer);
    let list = |pointer: &str| at(pointer).and_then(Value::as_array).map(|list| &list[..]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut tokens: BTreeMap<usize, (String, f32)> = BTreeMap::new();
    let unigrams = list("/model/vocab");
    for (id, pair) in unigrams.into_iter().flatten().enumerate() {
        let score = pair.get(1).and_then(Value::as_f64).unwrap_or_default();
        let token = pair.get(0).map(text).unwrap_or_default();
        tokens.insert(id, (token, score as f32));
    }
    let ranks = at("/model/vocab").and_then(Value::as_object);
    for (token, id) in ranks.into_iter().flatten() {
        let id = id.as_u64().and_then(|id| usize::try_from(id).ok());
        tokens.extend(id.map(|id| (id, (token.clone(), 0.0))));
    }
    let mut special = BTreeSet::new();
    for token in list("/added_tokens").into_iter().flatten() {
        let id = token.get("id").and_then(Value::as_u64);
        let Some(id) = id.and_then(|id| usize::try_from(id).ok()) else {
            continue;
        };
        let score = tokens.get(&id).map_or(0.0, |(_, score)| *score);
        tokens.insert(
            id,
            (token.get("content").map(text).unwrap_or_default(), score),
        );
        special.insert(id);
    }
    let config = model.config.as_ref();
    let field = |key: &str| config.and_then(|config| config.get(key)?.as_u64());
    let most = tokens.keys().next_back().map_or(0, |id| id + 1);
    // No vocabulary is larger than the table that its tokens index.
    let count = field("vocab_size").map_or(most, |size| usize::try_from(size).unwrap_or(0));
    let count = count.min(1 << 24);
    let of = |id: usize| tokens.get(&id);
    let texts: Vec<String> = (0..count)
        .map(|id| of(id).map_or_else(|| format!("[PAD{id}]"), |(token, _)| token.clone()))
        .collect();
    let unknown = at("/model/unk_id").and_then(Value::as_u64);
    let kinds = (0..count).map(|id| match of(id) {
        None => UNUSED,
        Some(_) if unknown == Some(id as u64) => UNKNOWN,
        Some(_) if special.contains(&id) => CONTROL,
        Some(_) => NORMAL,
    });
    let mut put = |key: &str, value: Typed| metadata.push((format!("tokenizer.ggml.{key}"), value));
    let is_unigram = unigrams.is_some();
    put("model", Typed::text(if is_unigram { "t5" } else { "gpt2" }));
    put(
        "pre",
        Typed::text(if is_unigram { "default" } else { "gpt-2" }),
    );
    put("tokens", Typed::texts(texts.iter().map(|text| &text[..])));
    put("token_type", Typed::i32s(kinds));
    if is_unigram {
        let scores = (0..count).map(|id| of(id).map_or(-1000.0, |(_, score)| *score));
        put("scores", Typed::f32s(scores));
        let one = at("/normalizer").into_iter();
        let several = list("/normalizer/normalizers").into_iter().flatten();
        let mut characters = one.chain(several).filter_map(|step| {
            let map = step.get("precompiled_charsmap")?.as_str()?;
            BASE64_STANDARD.decode(map).ok()
        });
        if let Some(characters) = characters.next() {
            put("precompiled_charsmap", Typed::u8s(&characters));
        }
        put("add_space_prefix", Typed::bool(true));
        put("remove_extra_whitespaces", Typed::bool(true));
        put("add_bos_token", Typed::bool(false));
        put("add_eos_token", Typed::bool(true));
    } else {
        let merges = list("/model/merges").into_iter().flatten();
        // A merge is a text with a space in it, or the two parts.
        let merges: Vec<String> = merges
            .map(|merge| match merge.as_array() {
                Some(parts) => parts.iter().map(text).collect::<Vec<_>>().join(" "),
                None => text(merge),
            })
            .collect();
        put(
            "merges",
            Typed::texts(merges.iter().map(|merge| &merge[..])),
        );
    }
    for (key, name) in [
        ("bos_token_id", "bos"),
        ("eos_token_id", "eos"),
        ("pad_token_id", "padding"),
    ] {
        if let Some(id) = field(key).and_then(|id| u32::try_from(id).ok()) {
            put(&format!("{name}_token_id"), Typed::u32(id));
        }
    }
    if let Some(unknown) = unknown.and_then(|id| u32::try_from(id).ok()) {
        put("unknown_token_id", Typed::u32(unknown));
    }
    Ok(())
}

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const UNUSED: i32 = 5;

/// The vocabulary, where beginnings of words have a space before them and their continuations none.
fn tokenizer(model: &Model, metadata: &mut Metadata) -> Result<(), Error> {
    let Some(directory) = &model.directory else {
        return Ok(());
    };
    let file = directory.json("tokenizer.json")?;
    let mut tokens: Vec<(u64, String)> = Vec::new();
    let mut special: Vec<String> = Vec::new();
    match &file {
        Some(file) => {
            let vocabulary = file.pointer("/model/vocab").and_then(Value::as_object);
            for (token, id) in vocabulary.into_iter().flatten() {
                tokens.extend(id.as_u64().map(|id| (id, token.clone())));
            }
            let added = file.get("added_tokens").and_then(Value::as_array);
            for token in added.into_iter().flatten() {
                let text = token.get("content").and_then(Value::as_str).unwrap_or("");
                if let Some(id) = token.get("id").and_then(Value::as_u64) {
                    tokens.retain(|(known, _)| *known != id);
                    tokens.push((id, text.to_owned()));
                }
                if token.get("special").and_then(Value::as_bool) == Some(true) {
                    special.push(text.to_owned());
                }
            }
        }
        None => {
            let Some(vocabulary) = directory.read("vocab.txt")? else {
                return Ok(());
            };
            let text = String::from_utf8_lossy(&vocabulary).into_owned();
            tokens.extend((0..).zip(text.lines().map(str::to_owned)));
            special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
                .map(str::to_owned)
                .to_vec();
        }
    }
    let config = model.config.as_ref();
    let field = |key: &str| config.and_then(|config| config.get(key)?.as_u64());
    let most = tokens.iter().map(|(id, _)| id + 1).max().unwrap_or(0);
    // No vocabulary is larger than the table that its tokens index.
    let count = field("vocab_size").unwrap_or(most);
    let count = usize::try_from(count).unwrap_or(0).min(1 << 24);
    let mut texts: Vec<String> = (0..count).map(|id| format!("[PAD{id}]")).collect();
    let mut kinds = vec![UNUSED; count];
    let mut ids: Vec<(&str, u32)> = Vec::new();
    for (id, token) in &tokens {
        let place = usize::try_from(*id).unwrap_or(usize::MAX);
        let (Some(text), Some(kind)) = (texts.get_mut(place), kinds.get_mut(place)) else {
            continue;
        };
        let key = match &token[..] {
            "[CLS]" => Some("cls_token_id"),
            "[SEP]" => Some("seperator_token_id"),
            "[PAD]" => Some("padding_token_id"),
            "[UNK]" => Some("unknown_token_id"),
            "[MASK]" => Some("mask_token_id"),
            _ => None,
        };
        ids.extend(key.map(|key| (key, place as u32)));
        *kind = if special.contains(token) {
            CONTROL
        } else {
            NORMAL
        };
        *text = match token.strip_prefix("##") {
            _ if *kind == CONTROL => token.clone(),
            Some(inner) => inner.to_owned(),
            None => format!("\u{2581}{token}"),
        };
    }
    let mut put = |key: &str, value: Typed| metadata.push((format!("tokenizer.ggml.{key}"), value));
    let types = field("type_vocab_size").unwrap_or(1);
    put(
        "token_type_count",
        Typed::u32(u32::try_from(types).unwrap_or(1)),
    );
    put("model", Typed::text("bert"));
    put("pre", Typed::text("default"));
    put("tokens", Typed::texts(texts.iter().map(|text| &text[..])));
    put("token_type", Typed::i32s(kinds.into_iter()));
    ids.sort_unstable();
    for (key, id) in ids {
        put(key, Typed::u32(id));
    }
    Ok(())
}
