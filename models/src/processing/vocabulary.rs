//! `tokenizer.json` made of the bare vocabularies that weight files hold.

use std::collections::HashMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use salamander_importers::sentencepiece::{Algorithm, PieceKind, SentencePieceModel};
use serde_json::{Map, Value, json};
use tokenizers::normalizers::{BertNormalizer, NFD};
use tokenizers::{NormalizedString, Normalizer};

pub(crate) use super::charsmap::flaw as charsmap_flaw;
pub(crate) use super::tokenizer_class::around;
use super::tokenizer_class::{Part, byte_level as byte_level_step, template};

/// A token that stands for itself, and its id.
pub(crate) type Special = (String, u32);

/// Bytes as `tokenizer.json` has them.
pub(crate) fn base64(bytes: &[u8]) -> Value {
    BASE64_STANDARD.encode(bytes).into()
}

/// Bytes of a text as `tokenizer.json` has them.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(text).ok()
}

pub(crate) fn added(special: &[Special], in_text: impl Fn(&str) -> bool) -> Vec<Value> {
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
        "pre_tokenizer": byte_level_step(false),
        "post_processor": null,
        "decoder": byte_level_step(true),
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
    /// Whether what is unknown becomes the tokens of its bytes.
    pub(crate) byte_fallback: bool,
    /// Whether texts are split at any white space first, as XLM-RoBERTa's are.
    pub(crate) split: bool,
}

/// SentencePiece's unigrams, whose tokens show a space by `\u{2581}`.
pub(crate) fn unigram(
    tokens: &[String],
    scores: &[f64],
    special: &[Special],
    in_text: impl Fn(&str) -> bool,
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
        let characters = base64(&rules.characters);
        normalizers.push(json!({"type": "Precompiled", "precompiled_charsmap": characters}));
    }
    if rules.one_space && !rules.split {
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
    let pre_tokenizer = match rules.one_space && rules.split {
        true => json!({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, spaces]}),
        false => spaces.clone(),
    };
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added(special, in_text),
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": pre_tokenizer,
        "post_processor": null,
        "decoder": spaces,
        "model": {
            "type": "Unigram", "unk_id": unknown, "vocab": vocabulary, "byte_fallback": rules.byte_fallback,
        },
    })
}

/// The tokenizer of a SentencePiece model by itself. With `legacy` each text between added tokens begins with
/// a space, otherwise only the first.
///
/// Reference: `SpmConverter.build_tokenizer_from_spm_proto` of transformers 5.24.
pub(crate) fn sentencepiece_tokenizer(
    model: &SentencePieceModel,
    legacy: bool,
) -> Result<Value, String> {
    let of_kind = |kind: PieceKind| {
        let pieces = model.pieces.iter();
        pieces.filter(move |piece| piece.kind == kind)
    };
    let mut symbols: Vec<&str> = of_kind(PieceKind::UserDefined)
        .map(|piece| &piece.text[..])
        .filter(|text| !text.is_empty())
        .collect();
    let vocabulary = match model.algorithm {
        Algorithm::Unigram => {
            let pieces = model.pieces.iter();
            let pieces: Vec<Value> = pieces
                .map(|piece| json!([piece.text, piece.score]))
                .collect();
            json!({
                "type": "Unigram", "unk_id": model.unknown, "vocab": pieces,
                "byte_fallback": model.byte_fallback,
            })
        }
        Algorithm::Bpe => {
            let ids = model.pieces.iter().zip(0_u32..);
            let ids: Map<String, Value> = ids
                .map(|(piece, id)| (piece.text.clone(), Value::from(id)))
                .collect();
            json!({
                "type": "BPE", "dropout": null, "unk_token": model.unknown_text, "fuse_unk": true,
                "continuing_subword_prefix": null, "end_of_word_suffix": null,
                "byte_fallback": model.byte_fallback, "ignore_merges": !symbols.is_empty(),
                "vocab": ids, "merges": merges(model),
            })
        }
        other => return Err(format!("its algorithm {other:?} is not supported")),
    };
    let replace = |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
    let mut normalizers = Vec::new();
    if !model.charsmap.is_empty() {
        let characters = base64(&model.charsmap);
        normalizers.push(json!({"type": "Precompiled", "precompiled_charsmap": characters}));
    }
    if model.remove_extra_whitespaces {
        normalizers.push(replace(json!({"Regex": r"\A +| +\z"}), ""));
        normalizers.push(replace(json!({"Regex": " {2,}"}), " "));
    }
    if model.escape_whitespaces {
        normalizers.push(replace(json!({"String": " "}), "\u{2581}"));
    }
    let mut steps = Vec::new();
    if model.add_dummy_prefix {
        if legacy {
            // The step below puts no space before one that is there.
            normalizers.push(replace(json!({"Regex": "\\A\u{2581}"}), "\u{2581}\u{2581}"));
        }
        let scheme = if legacy { "always" } else { "first" };
        steps.push(json!({
            "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme, "split": false,
        }));
    }
    if !symbols.is_empty() {
        symbols.sort_by_key(|symbol| std::cmp::Reverse(symbol.chars().count()));
        let symbols: Vec<String> = symbols.into_iter().map(escaped).collect();
        steps.push(json!({
            "type": "Split", "pattern": {"Regex": symbols.join("|")}, "behavior": "Isolated", "invert": false,
        }));
    }
    let mut decoders = vec![replace(json!({"String": "\u{2581}"}), " ")];
    if model.byte_fallback {
        decoders.push(json!({"type": "ByteFallback"}));
    }
    if model.add_dummy_prefix || model.byte_fallback {
        decoders.push(json!({"type": "Fuse"}));
    }
    if model.add_dummy_prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let pre_tokenizer = match steps.is_empty() {
        true => Value::Null,
        false => json!({"type": "Sequence", "pretokenizers": steps}),
    };
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": pre_tokenizer,
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": vocabulary,
    }))
}

/// The merges that the scores of pieces mean, the best first.
fn merges(model: &SentencePieceModel) -> Vec<Value> {
    /// Longer pieces, which no vocabulary has, would take long.
    const LONGEST: usize = 512;
    let normal = model.pieces.iter().zip(0_u32..);
    let normal = normal.filter(|(piece, _)| piece.kind == PieceKind::Normal);
    let ids: HashMap<&str, (f32, u32)> = normal
        .map(|(piece, id)| (&piece.text[..], (piece.score, id)))
        .collect();
    let mut ranked = Vec::new();
    for (text, (score, id)) in &ids {
        if text.len() > LONGEST {
            continue;
        }
        for (at, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(at);
            if ids.contains_key(left) && ids.contains_key(right) {
                ranked.push((-score, *id, left, right));
            }
        }
    }
    ranked.sort_by(|a, b| {
        let scores = a.0.total_cmp(&b.0);
        scores.then_with(|| (a.1, a.2, a.3).cmp(&(b.1, b.2, b.3)))
    });
    let pairs = ranked.into_iter();
    pairs
        .map(|(_, _, left, right)| json!([left, right]))
        .collect()
}

/// A text as a regular expression that matches it alone.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// Whether BERT strips an accent of a character.
pub(crate) fn strips_accents(c: char) -> bool {
    let made = |normalizer: &dyn Fn(&mut NormalizedString) -> tokenizers::Result<()>| {
        let mut text = NormalizedString::from(c.to_string());
        normalizer(&mut text).map(|()| text.get().to_owned()).ok()
    };
    let stripped = BertNormalizer::new(false, false, Some(true), false);
    made(&|text| stripped.normalize(text)) != made(&|text| NFD.normalize(text))
}

/// How BERT prepares a text for WordPiece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BertRules {
    pub(crate) lowercase: bool,
    /// By default accents go where capitals do.
    pub(crate) strip_accents: Option<bool>,
}

/// BERT's WordPiece, of tokens as `vocab.txt` has them. Of `added`, those are special for which the flag holds.
pub(crate) fn word_piece(
    tokens: &[String],
    added_tokens: &[(Special, bool)],
    rules: BertRules,
    [unknown, cls, sep]: [&Special; 3],
) -> Value {
    let vocabulary: Map<String, Value> = tokens
        .iter()
        .enumerate()
        .map(|(id, token)| (token.clone(), Value::from(id)))
        .collect();
    let added_tokens = added_tokens.iter().map(|((content, id), special)| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": !special, "special": special,
        })
    });
    let single = [Part::Token(cls, 0), Part::A, Part::Token(sep, 0)];
    let [first, text, end] = single;
    let pair = [first, text, end, Part::B(1), Part::Token(sep, 1)];
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens.collect::<Vec<_>>(),
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": rules.strip_accents, "lowercase": rules.lowercase,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": template(&single, &pair),
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

    use super::{BertRules, Special, byte_level, word_piece};
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
            let added = special.clone().map(|token| (token, true));
            let rules = BertRules {
                lowercase: true,
                strip_accents: None,
            };
            let made = word_piece(&tokens, &added, rules, [unknown, cls, sep]);
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
