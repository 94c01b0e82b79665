//! `tokenizer.json` made of the bare vocabularies that weight files hold.

use std::collections::HashMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

/// A token that stands for itself, and its id.
pub(crate) type Special = (String, u32);

fn added(special: &[Special], in_text: impl Fn(&str) -> bool) -> Vec<Value> {
    let token = |(content, id): &Special| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": !in_text(content),
        })
    };
    special.iter().map(token).collect()
}

/// GPT-2's byte-level BPE. Without merges, ids are ranks: the tokens of two parts with the lowest rank are
/// joined first.
///
/// `tokens` show bytes by GPT-2's characters; an empty one has no use. Special tokens that `in_text` names
/// belong to the text.
pub(crate) fn byte_level(
    tokens: &[String],
    merges: Option<Vec<String>>,
    special: &[Special],
    in_text: impl Fn(&str) -> bool,
) -> Value {
    let ranks: HashMap<&str, usize> = tokens
        .iter()
        .enumerate()
        .filter(|(_, token)| !token.is_empty())
        .map(|(id, token)| (&token[..], id))
        .collect();
    let merges = merges.unwrap_or_else(|| {
        let pairs = tokens
            .iter()
            .enumerate()
            .filter_map(|(id, token)| parts(token, id, &ranks));
        pairs
            .filter(|(left, right)| ranks.contains_key(left) && ranks.contains_key(right))
            .map(|(left, right)| format!("{left} {right}"))
            .collect()
    });
    let known = tokens
        .iter()
        .enumerate()
        .filter(|(_, token)| !token.is_empty());
    let known = known.map(|(id, token)| (token.clone(), Value::from(id)));
    let mut vocabulary: Map<String, Value> = known.collect();
    for (content, id) in special {
        vocabulary.insert(content.clone(), Value::from(*id));
    }
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added(special, in_text),
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocabulary, "merges": merges,
        },
    })
}

/// The two tokens whose join a token is: what joining by rank leaves when the token itself is not there yet.
fn parts<'a>(
    token: &'a str,
    id: usize,
    ranks: &HashMap<&str, usize>,
) -> Option<(&'a str, &'a str)> {
    /// Longer tokens, which no vocabulary has, would take long.
    const LONGEST: usize = 512;
    let mut ends: Vec<usize> = token.char_indices().map(|(at, _)| at).skip(1).collect();
    ends.push(token.len());
    if ends.len() < 2 || ends.len() > LONGEST {
        return None;
    }
    while ends.len() > 2 {
        let begin = |part: usize| if part == 0 { 0 } else { ends[part - 1] };
        let join = |part: usize| {
            let rank = ranks.get(&token[begin(part)..ends[part + 1]])?;
            (*rank < id).then_some((*rank, part))
        };
        let (_, part) = (0..ends.len() - 1).filter_map(join).min()?;
        ends.remove(part);
    }
    Some(token.split_at(ends[0]))
}

/// How SentencePiece prepares a text for unigrams.
pub(crate) struct Unigram {
    /// Its compiled map of characters; none where it is empty.
    pub(crate) characters: Vec<u8>,
    /// Whether a text begins with a space.
    pub(crate) prefix_space: bool,
    /// Whether spaces around a text are taken off, and several within are one.
    pub(crate) one_space: bool,
    /// What ends a text.
    pub(crate) end: Option<Special>,
}

/// SentencePiece's unigrams, whose tokens show a space by `\u{2581}`.
pub(crate) fn unigram(
    tokens: &[String],
    scores: &[f64],
    special: &[Special],
    unknown: u32,
    rules: &Unigram,
) -> Value {
    let vocabulary: Vec<Value> = tokens
        .iter()
        .zip(scores)
        .map(|(token, score)| json!([token, score]))
        .collect();
    let mut normalizers = Vec::new();
    if !rules.characters.is_empty() {
        let characters = BASE64_STANDARD.encode(&rules.characters);
        normalizers.push(json!({"type": "Precompiled", "precompiled_charsmap": characters}));
    }
    if rules.one_space {
        normalizers.push(json!({"type": "Strip", "strip_left": true, "strip_right": true}));
        normalizers.push(json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}));
    }
    let scheme = if rules.prefix_space {
        "always"
    } else {
        "never"
    };
    let spaces = json!({
        "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme, "split": true,
    });
    let sequence = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    let post_processor = rules.end.as_ref().map(|(content, id)| {
        let end = json!({"SpecialToken": {"id": content, "type_id": 0}});
        let token = json!({"id": content, "ids": [id], "tokens": [content]});
        json!({
            "type": "TemplateProcessing",
            "single": [sequence("A"), end],
            "pair": [sequence("A"), end, sequence("B"), end],
            "special_tokens": Map::from_iter([(content.clone(), token)]),
        })
    });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added(special, |_| false),
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": spaces,
        "post_processor": post_processor,
        "decoder": spaces,
        "model": {"type": "Unigram", "unk_id": unknown, "vocab": vocabulary, "byte_fallback": false},
    })
}

/// BERT's WordPiece, of tokens as `vocab.txt` has them.
pub(crate) fn word_piece(
    tokens: &[String],
    special: &[Special],
    lowercase: bool,
    [unknown, cls, sep]: [&Special; 3],
) -> Value {
    let vocabulary: Map<String, Value> = tokens
        .iter()
        .enumerate()
        .map(|(id, token)| (token.clone(), Value::from(id)))
        .collect();
    let token = |(content, _): &Special, segment: u32| json!({"SpecialToken": {"id": content, "type_id": segment}});
    let text = |id: &str, segment: u32| json!({"Sequence": {"id": id, "type_id": segment}});
    let named = |(content, id): &Special| {
        (
            content.clone(),
            json!({"id": content, "ids": [id], "tokens": [content]}),
        )
    };
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added(special, |_| false),
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": lowercase,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [token(cls, 0), text("A", 0), token(sep, 0)],
            "pair": [token(cls, 0), text("A", 0), token(sep, 0), text("B", 1), token(sep, 1)],
            "special_tokens": Map::from_iter([named(cls), named(sep)]),
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": unknown.0, "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary,
        },
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Special, byte_level, word_piece};
    use crate::processing::text::{TextTokenizer, TokenizerFiles};

    /// Holds a tokenizer against llama.cpp's texts and ids.
    fn check(tokenizer: serde_json::Value, folder: &Path, name: &str) {
        let read = |ending: &str| {
            let path = folder.join(format!("gguf/ggml-vocab-{name}.gguf.{ending}"));
            std::fs::read_to_string(path).unwrap()
        };
        let tokenizer = TextTokenizer::new(&TokenizerFiles {
            tokenizer: Some(tokenizer.to_string().into_bytes()),
            ..TokenizerFiles::default()
        });
        let tokenizer = tokenizer.unwrap();
        let (texts, ids) = (read("inp"), read("out"));
        let texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
        let mut checked = 0;
        for (text, ids) in texts.iter().zip(ids.lines()) {
            let ids: Vec<u32> = ids
                .split_whitespace()
                .map(|id| id.parse().unwrap())
                .collect();
            assert_eq!(tokenizer.pieces(text).unwrap(), ids, "{text:?}");
            checked += 1;
        }
        assert!(checked > 30);
    }

    #[test]
    fn gpt2_and_bert_vocabularies_give_llama_cpps_tokens() {
        let folder = std::env::var_os("SALAMANDER_DATA");
        let words = std::env::var_os("SALAMANDER_MINILM");
        if let Some(folder) = &folder {
            let ranks = Path::new(folder).join("whisper/gpt2.tiktoken");
            let ranks = std::fs::read_to_string(ranks).unwrap();
            let tokens: Vec<String> = ranks
                .lines()
                .map(|line| shown(&base64(line.split(' ').next().unwrap())))
                .collect();
            let special: [Special; 1] = [("<|endoftext|>".to_owned(), 50256)];
            let made = byte_level(&tokens, None, &special, |_| false);
            check(made, Path::new(folder), "gpt-2");
        }
        if let (Some(folder), Some(words)) = (&folder, &words) {
            let words = std::fs::read_to_string(Path::new(words).join("vocab.txt")).unwrap();
            let tokens: Vec<String> = words.lines().map(str::to_owned).collect();
            let id = |name: &str| {
                let id = tokens.iter().position(|token| token == name).unwrap();
                (name.to_owned(), id as u32)
            };
            let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(id);
            let [_, unknown, cls, sep, _] = &special;
            let made = word_piece(&tokens, &special, true, [unknown, cls, sep]);
            check(made, Path::new(folder), "bert-bge");
        }
    }

    /// Bytes by GPT-2's characters.
    fn shown(bytes: &[u8]) -> String {
        let seen = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        let show = |byte: &u8| match seen(*byte) {
            true => char::from(*byte),
            false => {
                let unseen = (0..*byte).filter(|other| !seen(*other)).count();
                char::from_u32(256 + unseen as u32).unwrap()
            }
        };
        bytes.iter().map(show).collect()
    }

    fn base64(text: &str) -> Vec<u8> {
        const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let digits = text
            .bytes()
            .filter_map(|c| DIGITS.iter().position(|digit| *digit == c));
        let bits: Vec<u8> = digits
            .flat_map(|digit| (0..6).rev().map(move |bit| (digit >> bit & 1) as u8))
            .collect();
        let bytes = bits.chunks_exact(8);
        bytes
            .map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | bit))
            .collect()
    }
}
