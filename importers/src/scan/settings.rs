//! Texts beside weights: settings that name code, paths or templates, and scripts.

use super::json::{self, Failed, Json};
use super::names::{self, Judgement};
use super::{Place, keras, leads_out, template};
use crate::data::clip;

/// The longest text that is parsed as settings.
const LONGEST: usize = 64 << 20;

/// Looks through a text; says what it is, or that it is none.
pub(super) fn text(place: &mut Place<'_>, name: &str, bytes: &[u8]) -> Option<&'static str> {
    let ending = name
        .rsplit('.')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    let begins = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    let wide = matches!(
        bytes,
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [b'{', 0, ..] | [0, b'{', ..] | [0, 0, 0, b'{', ..]
    );
    let is_json = matches!(begins, Some(b'{' | b'[')) || bytes.starts_with(b"\xef\xbb\xbf") || wide;
    if is_json && bytes.len() <= LONGEST {
        let text = json::decode(bytes);
        match text.as_deref().map(json::parse) {
            Some(Ok(json)) => {
                settings(place, name, &json);
                keras::configuration(place, bytes);
                return Some("JSON");
            }
            Some(Err(Failed::TooDeep)) => {
                keras::configuration(place, bytes);
                return Some("JSON");
            }
            _ => {}
        }
    }
    let text = str::from_utf8(bytes).ok()?;
    match &ending[..] {
        "jinja" | "jinja2" | "j2" => {
            chat_template(place, 0, name, text);
            Some("a template of Jinja")
        }
        "yaml" | "yml" => {
            yaml(place, text);
            Some("YAML")
        }
        "py" => {
            place.notice(0, "is Python code, which runs if it is imported");
            Some("Python code")
        }
        "xml" | "svg" => {
            if let Some(at) = entity(text) {
                let what = "has an external entity, which XML readers may fetch";
                place.danger(at, what);
            }
            Some("XML")
        }
        _ => (!text.contains(is_binary)).then(|| {
            if text.contains("!!python/") {
                yaml(place, text);
            }
            "a text"
        }),
    }
}

/// Whether a character stands in no text.
fn is_binary(character: char) -> bool {
    character.is_control()
        && !matches!(character, '\n' | '\r' | '\t' | '\u{b}' | '\u{c}' | '\u{1b}')
}

fn entity(text: &str) -> Option<usize> {
    let at = text.find("<!ENTITY")?;
    let declared = text[at..].split('>').next()?;
    ["SYSTEM", "PUBLIC"]
        .iter()
        .any(|word| declared.contains(word))
        .then_some(at)
}

/// A template, judged under its name.
fn chat_template(place: &mut Place<'_>, at: usize, name: &str, text: &str) {
    for (inside, what) in template::dangers(text) {
        let what = format!("has a template that {what} (`{}`)", clip(name));
        place.danger(at + inside, what);
    }
}

fn settings(place: &mut Place<'_>, name: &str, root: &Json) {
    templates(place, root);
    let lower = name.to_ascii_lowercase();
    if lower.ends_with(".index.json") || root.get("weight_map").is_some() {
        let files = root
            .get("weight_map")
            .map(Json::members)
            .unwrap_or_default();
        for (tensor, file) in files {
            let file = file.text().unwrap_or_default();
            if let Some(where_to) = leads_out(file) {
                let what = format!(
                    "says that `{}` lies in `{}`, {where_to}",
                    clip(tensor),
                    clip(file)
                );
                place.danger(0, what);
            }
        }
    }
    if lower == "modules.json" {
        for module in root.items() {
            modules(place, module);
        }
    }
    remote_code(place, root);
    targets(place, root);
}

/// Chat templates and templates of tools: a text, texts by name, or a list of names and texts.
fn templates(place: &mut Place<'_>, root: &Json) {
    for (key, value) in root.members() {
        let named = key.contains("template");
        match value {
            Json::Text(text) if named => chat_template(place, 0, key, text),
            Json::List(items) if named => {
                for item in items {
                    if let Some(text) = item.text_of("template") {
                        chat_template(place, 0, key, text);
                    }
                }
            }
            Json::Object(members) if named => {
                for (name, value) in members {
                    if let Some(text) = value.text() {
                        chat_template(place, 0, name, text);
                    }
                }
            }
            _ => {}
        }
    }
}

/// A part of a model of sentence-transformers: a class by its name, and its folder.
fn modules(place: &mut Place<'_>, module: &Json) {
    if let Some(path) = module.text_of("path")
        && let Some(where_to) = leads_out(path)
    {
        place.danger(0, format!("has a module in `{}`, {where_to}", clip(path)));
    }
    let Some(class) = module.text_of("type") else {
        return;
    };
    if class.starts_with("sentence_transformers.") {
        return;
    }
    let (package, name) = class.rsplit_once('.').unwrap_or(("", class));
    match names::judge(package, name) {
        Judgement::Dangerous(does) => {
            let what = format!("has a module of the class `{}`, which {does}", clip(class));
            place.danger(0, what);
        }
        _ => {
            let what = format!(
                "has a module of the class `{}`, which is code of its own",
                clip(class)
            );
            place.warning(0, what);
        }
    }
}

/// Classes that come as code beside the weights.
fn remote_code(place: &mut Place<'_>, root: &Json) {
    let Some(map) = root.get("auto_map") else {
        return;
    };
    let mut named = Vec::new();
    for (_, value) in map.members() {
        named.extend(value.text());
        named.extend(value.items().iter().filter_map(Json::text));
    }
    named.extend(map.text());
    for class in named {
        let what = format!(
            "names the code `{}`, which runs where remote code is trusted",
            clip(class)
        );
        place.warning(0, what);
    }
}

/// Names that Hydra and NeMo import and call.
fn targets(place: &mut Place<'_>, root: &Json) {
    let mut open = vec![root];
    while let Some(json) = open.pop() {
        open.extend(json.items());
        for (key, value) in json.members() {
            if let ("_target_", Some(target)) = (&key[..], value.text()) {
                self::target(place, target);
            }
            open.push(value);
        }
    }
}

fn target(place: &mut Place<'_>, target: &str) {
    let target = target.trim().trim_matches(['\'', '"']);
    let (module, name) = target.rsplit_once('.').unwrap_or(("builtins", target));
    let danger = match names::judge(module, name) {
        Judgement::Dangerous(does) => Some(does),
        _ => None,
    };
    if let Some(does) = danger.filter(|_| !module.starts_with("torch.utils.")) {
        let what = format!("has `{}` called, which {does}", clip(target));
        place.danger(0, what);
    }
}

/// Tags that run Python when YAML is loaded, and what Hydra would call.
fn yaml(place: &mut Place<'_>, text: &str) {
    for tag in [
        "!!python/object/apply:",
        "!!python/object/new:",
        "!!python/object:",
        "!!python/name:",
        "!!python/module:",
        "tag:yaml.org,2002:python/",
    ] {
        for (at, _) in text.match_indices(tag) {
            let rest = &text[at + tag.len()..];
            let name: String = rest
                .chars()
                .take_while(|c| c.is_alphanumeric() || "._/:".contains(*c))
                .collect();
            let (module, last) = name.rsplit_once('.').unwrap_or((&name, ""));
            let what = format!(
                "has the tag `{}{}`, by which YAML runs Python",
                tag,
                clip(&name)
            );
            match names::judge(module, last) {
                Judgement::Allowed | Judgement::Library | Judgement::UnknownClass
                    if tag != "tag:yaml.org,2002:python/" =>
                {
                    place.warning(at, what);
                }
                _ => place.danger(at, what),
            }
        }
    }
    for line in text.lines() {
        if let Some((key, value)) = line.split_once(':')
            && key
                .trim()
                .trim_start_matches("- ")
                .trim_matches(['\'', '"'])
                == "_target_"
        {
            target(place, value.split(" #").next().unwrap_or(value));
        }
    }
}

/// The templates in a GGUF file's metadata, found by their keys wherever they lie.
pub(super) fn gguf(place: &mut Place<'_>, bytes: &[u8]) {
    const KEY: &[u8] = b"tokenizer.chat_template";
    /// The type of texts.
    const TEXT: u32 = 8;
    for at in memchr::memmem::find_iter(bytes, KEY) {
        let before = at.checked_sub(8).and_then(|begin| bytes.get(begin..at));
        let length = before.and_then(|length| length.first_chunk());
        let length = length.map_or(0, |length| u64::from_le_bytes(*length));
        let Some(length) = usize::try_from(length).ok().filter(|length| *length < 256) else {
            continue;
        };
        let value = at + length;
        let number = |at: usize| {
            bytes
                .get(at..)?
                .first_chunk()
                .map(|n| u32::from_le_bytes(*n))
        };
        if number(value) != Some(TEXT) {
            continue;
        }
        let size = bytes.get(value + 4..).and_then(|rest| rest.first_chunk());
        let size = size.map_or(0, |size| u64::from_le_bytes(*size));
        let begin = value + 12;
        let end = usize::try_from(size)
            .ok()
            .and_then(|size| begin.checked_add(size));
        let Some(text) = end.and_then(|end| bytes.get(begin..end)) else {
            continue;
        };
        let name = String::from_utf8_lossy(&bytes[at..value]).into_owned();
        chat_template(place, begin, &name, &String::from_utf8_lossy(text));
    }
}
