//! Keras' configurations: what they would have Keras import, run and read.
//!
//! A configuration is parsed wherever it lies: as `config.json` of an archive, in an attribute of HDF5, in the
//! metadata of a SavedModel. Objects are judged wherever they are nested.

use base64::Engine;
use bytes::Bytes;

use super::json::{self, Failed, Json};
use super::names::{self, Judgement};
use super::{Place, leads_out};
use crate::data::clip;

/// Packages whose layers and functions a configuration may name.
const PACKAGES: &[&str] = &[
    "keras",
    "tf_keras",
    "keras_core",
    "keras_hub",
    "keras_nlp",
    "keras_cv",
    "keras_tuner",
    "tensorflow",
    "tensorflow_core",
    "tensorflow_addons",
    "tensorflow_probability",
    "tensorflow_text",
    "tensorflow_model_optimization",
    "tensorflow_decision_forests",
    "tensorflow_hub",
];

/// Their parts whose functions fetch, load, write or loosen checks.
const REACHING: &[&str] = &[
    "utils",
    "config",
    "saving",
    "models",
    "callbacks",
    "datasets",
    "preprocessing",
    "export",
    "legacy",
    "io",
    "saved_model",
    "compat",
    "debugging",
    "distribution",
    "experimental",
    "python",
    "data",
    "engine",
];

/// Keys whose values are names of files.
const PATHS: &[&str] = &[
    "vocabulary",
    "vocabulary_path",
    "vocab_file",
    "merges",
    "merges_file",
    "idf_weights",
    "proto",
    "filepath",
    "file_path",
    "filename",
    "fname",
    "path",
    "handle",
    "origin",
    "checkpoint",
    "weights_path",
];

/// Judges the configuration in a whole text.
pub(super) fn configuration(place: &mut Place<'_>, bytes: &[u8]) {
    let parsed = json::decode(bytes).ok_or(Failed::Malformed);
    match parsed.and_then(|text| json::parse(&text)) {
        Ok(json) => walk(place, 0, &json),
        Err(Failed::TooDeep) => place.danger(0, "has a configuration that nests without end"),
        Err(Failed::Malformed) => {}
    }
}

/// Judges all configurations among other bytes.
pub(super) fn in_bytes(place: &mut Place<'_>, bytes: &[u8]) {
    /// A run is a stretch without control characters; a text in it may be tried so often.
    const MOST_TRIES: usize = 64;
    let (mut at, mut run, mut failures) = (0, 0, 0);
    while let Some(found) = memchr::memmem::find(&bytes[at..], b"{") {
        let begin = at + found;
        at = begin + 1;
        let next = bytes[begin + 1..]
            .iter()
            .find(|byte| !byte.is_ascii_whitespace());
        if next != Some(&b'"') {
            continue;
        }
        if begin >= run {
            failures = 0;
            run = bytes[begin..]
                .iter()
                .position(|byte| matches!(byte, 0..9 | 11 | 12 | 14..32 | 127))
                .map_or(bytes.len(), |length| begin + length);
        }
        if run - begin < 16 {
            continue;
        }
        match json::parse_prefix(&bytes[begin..run]) {
            Ok((json, length)) => {
                walk(place, begin, &json);
                at = begin + length;
            }
            Err(Failed::TooDeep) => {
                place.danger(begin, "has a configuration that nests without end");
                at = run;
            }
            Err(Failed::Malformed) => {
                failures += 1;
                if failures > MOST_TRIES {
                    at = run;
                }
            }
        }
    }
}

fn walk(place: &mut Place<'_>, at: usize, root: &Json) {
    let mut open = vec![root];
    while let Some(json) = open.pop() {
        open.extend(json.items().iter().rev());
        let members = json.members();
        if !members.is_empty() {
            object(place, at, json);
        }
        for (key, value) in members.iter().rev() {
            match value {
                Json::Text(text) => self::text(place, at, key, text, json),
                Json::Bool(false) if key == "safe_mode" => {
                    place.danger(at, "asks Keras to leave its safe mode");
                }
                other => open.push(other),
            }
        }
        for item in json.items() {
            if let Json::Text(text) = item {
                wrapped(place, at, text);
            }
        }
    }
}

/// An object with a class, as far as it is one. Repeated keys are judged each, since readers differ.
fn object(place: &mut Place<'_>, at: usize, json: &Json) {
    let all = |wanted: &str| -> Vec<String> {
        let members = json.members().iter().filter(|(key, _)| key == wanted);
        members
            .filter_map(|(_, value)| value.text().map(str::to_owned))
            .collect()
    };
    let (classes, modules) = (all("class_name"), all("module"));
    let registered = all("registered_name");
    for class in &classes {
        let bare = class.rsplit(['>', '.']).next().unwrap_or(class);
        match bare {
            "Lambda" => place.danger(at, "has a Lambda layer, whose code Keras runs"),
            "__lambda__" => {
                place.danger(
                    at,
                    "has a function as marshalled code (`__lambda__`), which Keras runs",
                );
            }
            "TFSMLayer" => {
                let path = json
                    .get("config")
                    .and_then(|config| config.text_of("filepath"));
                let what = format!(
                    "has a TFSMLayer, which runs the SavedModel in `{}`",
                    clip(path.unwrap_or_default())
                );
                place.danger(at, what);
            }
            "TorchModuleWrapper" => {
                place.danger(
                    at,
                    "has a TorchModuleWrapper, which unpickles a module of PyTorch",
                );
            }
            _ => {}
        }
        for module in &modules {
            self::module(place, at, module, class, json);
        }
        if modules.is_empty() && class == "function" {
            function(place, at, "builtins", json);
        }
    }
    if classes.is_empty() && !registered.is_empty() {
        for module in &modules {
            self::module(place, at, module, &registered[0], json);
        }
    }
    // A Lambda layer of older versions names the module of its function.
    if classes.is_empty()
        && json.text_of("function_type").is_some()
        && json.get("function").is_some()
    {
        place.danger(at, "has the function of a Lambda layer, which Keras runs");
    }
}

/// What a class or function of a module is.
fn module(place: &mut Place<'_>, at: usize, module: &str, class: &str, json: &Json) {
    if class == "function" || class == "builtin_function_or_method" {
        function(place, at, module, json);
        return;
    }
    let (top, rest) = module.split_once('.').unwrap_or((module, ""));
    if PACKAGES.contains(&top) {
        let last = class.rsplit(['>', '.']).next().unwrap_or(class);
        let is_class = last.trim_start_matches('_').starts_with(char::is_uppercase);
        if !is_class && reaches(rest) {
            let what = format!("has Keras call `{}.{}`", clip(module), clip(class));
            place.danger(at, what);
        }
        return;
    }
    if module == "builtins" {
        if let Some(does) = names::builtin(class) {
            let what = format!("has Keras use `builtins.{}`, which {does}", clip(class));
            place.danger(at, what);
        }
        return;
    }
    judged(place, at, module, class);
}

fn judged(place: &mut Place<'_>, at: usize, module: &str, name: &str) {
    let full = format!("{}.{}", clip(module), clip(name));
    match names::judge(module, name) {
        Judgement::Allowed => {}
        Judgement::Dangerous(does) => {
            place.danger(at, format!("has Keras import `{full}`, which {does}"));
        }
        Judgement::LibraryFunction => {
            let what = format!("has Keras import `{full}`, a function from outside of Keras");
            place.danger(at, what);
        }
        Judgement::Library | Judgement::UnknownClass | Judgement::UnknownFunction => {
            let what = format!("has Keras import `{full}`, which is code from outside of Keras");
            place.warning(at, what);
        }
    }
}

/// A function by its name, which stands in the configuration or is registered.
fn function(place: &mut Place<'_>, at: usize, module: &str, json: &Json) {
    let config = json.get("config");
    let named = config.and_then(|config| config.text().or_else(|| config.text_of("name")));
    let registered = json
        .text_of("registered_name")
        .filter(|name| *name != "function");
    for name in named.into_iter().chain(registered) {
        let name = name.rsplit('>').next().unwrap_or(name);
        let (top, rest) = module.split_once('.').unwrap_or((module, ""));
        if module == "builtins" {
            match names::builtin(name) {
                Some(does) => {
                    let what = format!("has Keras use `builtins.{}`, which {does}", clip(name));
                    place.danger(at, what);
                }
                // A function of one's own, which the reader has to give.
                None => place.notice(at, format!("needs the function `{}`", clip(name))),
            }
        } else if PACKAGES.contains(&top) {
            if reaches(rest) || reaches_by_name(name) {
                let what = format!("has Keras call `{}.{}`", clip(module), clip(name));
                place.danger(at, what);
            }
        } else {
            match names::judge(module, name) {
                Judgement::Dangerous(_) => judged(place, at, module, name),
                _ => {
                    let what = format!(
                        "has Keras import the function `{}.{}`, which is code from outside of Keras",
                        clip(module),
                        clip(name)
                    );
                    place.danger(at, what);
                }
            }
        }
    }
}

/// Whether a module below Keras' own is one whose functions reach beyond the model.
fn reaches(below: &str) -> bool {
    below.split('.').any(|part| REACHING.contains(&part))
}

fn reaches_by_name(name: &str) -> bool {
    let name = name.rsplit('.').next().unwrap_or(name);
    [
        "load",
        "save",
        "get_file",
        "read",
        "write",
        "py_function",
        "numpy_function",
        "enable_",
        "disable_",
        "exec",
        "eval",
    ]
    .iter()
    .any(|begins| name.starts_with(begins))
}

fn text(place: &mut Place<'_>, at: usize, key: &str, text: &str, of: &Json) {
    wrapped(place, at, text);
    // A layer that is nested as a text.
    if text.trim_start().starts_with('{')
        && text.contains("class_name")
        && let Ok(json) = json::parse(text)
    {
        place.within(at, key, |place| walk(place, 0, &json));
    }
    if !PATHS.contains(&key) {
        return;
    }
    if let Some(where_to) = leads_out(text) {
        let what = match key {
            "vocabulary" | "vocabulary_path" | "vocab_file" | "idf_weights" => format!(
                "has a layer read its vocabulary from `{}`, {where_to}",
                clip(text)
            ),
            _ => format!("has a layer read `{}`, {where_to}", clip(text)),
        };
        place.danger(at, what);
    } else if key == "vocabulary" && of.get("vocabulary").is_some() && !text.is_empty() {
        let what = format!("has a layer read its vocabulary from `{}`", clip(text));
        place.notice(at, what);
    }
}

/// Pickles and marshalled code that are wrapped in a text.
fn wrapped(place: &mut Place<'_>, at: usize, text: &str) {
    let text = text.trim();
    // A pickle of protocol 2 and up begins as `gA`, code as `4w` or `Yw`.
    if text.len() < 8
        || !["gA", "4w", "Yw"]
            .iter()
            .any(|begins| text.starts_with(begins))
    {
        return;
    }
    let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let compact = compact.trim_end_matches('=');
    let Ok(bytes) = base64::engine::general_purpose::STANDARD_NO_PAD.decode(compact) else {
        return;
    };
    if super::pickle::is_marked(&bytes) && bytes.len() > 4 {
        place.unpacked(at, "a pickle in base64", &Bytes::from(bytes));
    } else if matches!(bytes[..], [0xe3 | 0x63, 0..64, 0, 0, 0, _, ..]) {
        place.danger(at, "has marshalled code in base64");
    }
}
