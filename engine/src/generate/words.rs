//! Tokens to words.
//!
//! Reference: `_combine_tokens_into_words` of transformers 5.23; `split_to_word_tokens` and
//! `merge_punctuations` of openai-whisper 20250625 do the same, but for `¡`, which they leave alone.

use std::ops::Range;

/// A word and which of the tokens it is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    /// With the space before it.
    pub(crate) text: String,
    pub(crate) tokens: Range<usize>,
}

/// The codes of languages that put no spaces between words: every character is one there.
const WITHOUT_SPACES: &[&str] = &["zh", "ja", "th", "lo", "my", "yue"];

/// What is a word of its own, until it joins a neighbour.
const PUNCTUATION: &str = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";
/// What joins the word behind it.
const PREPENDED: &str = "\"'“¡¿([{-";
/// What joins the word before it.
const APPENDED: &str = "\"'.。,，!！?？:：”)]}、";

/// Groups the tokens of a text by word; without a language it is taken for English.
pub(crate) fn words<E>(
    tokens: &[u32],
    language: Option<&str>,
    decode: impl Fn(&[u32]) -> Result<String, E>,
) -> Result<Vec<Word>, E> {
    let mut words = split_on_unicode(tokens, decode)?;
    if !language.is_some_and(|code| WITHOUT_SPACES.contains(&code)) {
        words = join_at_spaces(words);
    }
    merge_punctuation(&mut words);
    words.retain(|word| !word.text.is_empty());
    Ok(words)
}

/// The shortest groups of tokens whose bytes are whole characters.
fn split_on_unicode<E>(
    tokens: &[u32],
    decode: impl Fn(&[u32]) -> Result<String, E>,
) -> Result<Vec<Word>, E> {
    // What bytes that are no character become.
    const REPLACEMENT: char = '\u{fffd}';
    let whole: Vec<char> = decode(tokens)?.chars().collect();
    let mut words: Vec<Word> = Vec::new();
    let (mut start, mut offset) = (0, 0);
    for end in 1..=tokens.len() {
        let text = decode(&tokens[start..end])?;
        let broken = text.chars().position(|letter| letter == REPLACEMENT);
        // It may stand in the text itself, and then nothing that follows repairs it.
        let stays = |place: usize| whole.get(offset + place).is_none_or(|c| *c == REPLACEMENT);
        if broken.is_none_or(stays) {
            offset += text.chars().count();
            words.push(Word {
                text,
                tokens: start..end,
            });
            start = end;
        }
    }
    Ok(words)
}

/// A word begins with a space, or is punctuation.
fn join_at_spaces(parts: Vec<Word>) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    for part in parts {
        let begins = part.text.starts_with(' ') || PUNCTUATION.contains(part.text.trim());
        match words.last_mut() {
            Some(word) if !begins => {
                word.text.push_str(&part.text);
                word.tokens.end = part.tokens.end;
            }
            _ => words.push(part),
        }
    }
    words
}

/// Joins punctuation with its neighbours, and leaves nothing where it was.
fn merge_punctuation(words: &mut [Word]) {
    let mut behind = words.len().saturating_sub(1);
    for index in (0..behind).rev() {
        let text = &words[index].text;
        if text.starts_with(' ') && PREPENDED.contains(text.trim()) {
            let before = take(&mut words[index]);
            let word = &mut words[behind];
            word.text.insert_str(0, &before.text);
            word.tokens.start = before.tokens.start;
        } else {
            behind = index;
        }
    }
    let mut before = 0;
    for index in 1..words.len() {
        let joins = APPENDED.contains(&words[index].text);
        if joins && !words[before].text.ends_with(' ') {
            let after = take(&mut words[index]);
            let word = &mut words[before];
            word.text.push_str(&after.text);
            if !after.tokens.is_empty() {
                word.tokens.end = after.tokens.end;
            }
        } else {
            before = index;
        }
    }
}

/// The word, of which nothing is left.
fn take(word: &mut Word) -> Word {
    let rest = Word {
        text: String::new(),
        tokens: word.tokens.end..word.tokens.end,
    };
    std::mem::replace(word, rest)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use salamander_models::processing::text::{TextTokenizer, TokenizerFiles};
    use serde_json::{Value, json};

    use super::words;

    #[test]
    fn words_are_the_references() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/whisper_words");
        let files = TokenizerFiles {
            tokenizer: Some(std::fs::read(folder.join("tokenizer.json")).unwrap()),
            ..TokenizerFiles::default()
        };
        let tokenizer = TextTokenizer::new(&files).unwrap();
        let cases = std::fs::read(folder.join("words.json")).unwrap();
        let cases: Vec<Value> = serde_json::from_slice(&cases).unwrap();
        for case in cases {
            let tokens: Vec<u32> = serde_json::from_value(case["tokens"].clone()).unwrap();
            let language = case["language"].as_str();
            let found = words(&tokens, language, |ids| tokenizer.decode(ids, false)).unwrap();
            let found: Vec<Value> = found
                .into_iter()
                .map(|word| json!([word.text, word.tokens.collect::<Vec<_>>()]))
                .collect();
            assert_eq!(Value::Array(found), case["words"], "{case}");
        }
    }
}
