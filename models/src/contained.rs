//! The files of a model directory that a weight file holds itself.
//!
//! whisper.cpp's files and GGUF's have sizes, vocabulary and settings beside the weights. Here they become what
//! a Hugging Face directory would have, so that everything behind works as from there.

use std::collections::{BTreeMap, HashMap};

use salamander_importers::sentencepiece::{Algorithm, Piece, PieceKind, SentencePieceModel};
use salamander_importers::{Checkpoint, Format};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::processing::vocabulary::{
    BertRules, Special, Unigram, added, around, byte_level, charsmap_flaw, sentencepiece_tokenizer,
    strips_accents, unigram, word_piece,
};
use crate::{ConfigError, bert, whisper};

/// Files by their names in a model directory.
pub type Files = BTreeMap<String, Vec<u8>>;

/// The files that the checkpoint holds, if it is of a kind that holds any.
///
/// # Errors
/// A value of its metadata cannot be honoured.
pub fn contained_files(checkpoint: &Checkpoint) -> Result<Option<Files>, ConfigError> {
    let metadata = Metadata::of(checkpoint);
    let files = match checkpoint.format {
        Format::Ggml if metadata.text("ggml.model") == Some("whisper") => {
            whisper::contained(checkpoint, &metadata)?
        }
        Format::Gguf | Format::SplitGguf
            if metadata.text("general.architecture") == Some("bert") =>
        {
            bert::contained(checkpoint, &metadata)?
        }
        _ => return Ok(None),
    };
    let files = files
        .into_iter()
        .map(|(name, json)| (name.to_owned(), json.to_string().into_bytes()));
    Ok(Some(files.collect()))
}

/// The `tokenizer.json` of a GGUF file, of whatever architecture, if it has a vocabulary.
///
/// # Errors
/// The vocabulary is of a kind that is not supported.
pub fn contained_tokenizer(checkpoint: &Checkpoint) -> Result<Option<Vec<u8>>, ConfigError> {
    let found = tokenizer(&Metadata::of(checkpoint))?;
    Ok(found.map(|(tokenizer, _)| tokenizer.to_string().into_bytes()))
}

/// The kind of a vocabulary, in GGUF.
const MODEL: &str = "tokenizer.ggml.model";
/// How a text is split before that, in GGUF.
const PRE: &str = "tokenizer.ggml.pre";
/// What llama.cpp writes before a WordPiece that begins a word, where `vocab.txt` has nothing.
const BEGIN: char = '\u{2581}';

/// The `tokenizer.json` and the `tokenizer_config.json` of GGUF's metadata, if it has a vocabulary.
pub(crate) fn tokenizer(metadata: &Metadata) -> Result<Option<(Value, Value)>, ConfigError> {
    let Some(model) = metadata.text(MODEL) else {
        return Ok(None);
    };
    let made = match model {
        "bert" => bert_tokenizer(&Vocabulary::read(metadata)?),
        "gpt2" => gpt2_tokenizer(&Vocabulary::read(metadata)?),
        "t5" => t5_tokenizer(&Vocabulary::read(metadata)?),
        "llama" => llama_tokenizer(&Vocabulary::read(metadata)?),
        other => {
            let reason = format!(
                "\"{other}\" is not \"bert\", the WordPiece of BERT, \"gpt2\", the byte-level BPE of GPT-2, \"t5\", \
                 SentencePiece's unigrams, or \"llama\", its BPE"
            );
            Err(ConfigError::within(PLACE, MODEL, reason))
        }
    };
    made.map(Some)
}

/// A vocabulary of GGUF, with the keys that are beside it.
struct Vocabulary<'a> {
    metadata: &'a Metadata<'a>,
    tokens: Vec<String>,
    kinds: Vec<PieceKind>,
}

impl<'a> Vocabulary<'a> {
    fn read(metadata: &'a Metadata<'a>) -> Result<Self, ConfigError> {
        const TYPES: &str = "tokenizer.ggml.token_type";
        let tokens: Vec<String> = metadata.get("tokenizer.ggml.tokens")?;
        let kinds: Option<Vec<i64>> = metadata.find(TYPES)?;
        let is_word = metadata.text(MODEL) == Some("bert");
        let kinds = kinds.unwrap_or_else(|| {
            // BERT's special tokens are in brackets, which its words never are.
            let special = |token: &str| {
                is_word && token.len() > 2 && token.starts_with('[') && token.ends_with(']')
            };
            let kind = |token: &String| if special(token) { 3 } else { 1 };
            tokens.iter().map(kind).collect()
        });
        if kinds.len() != tokens.len() {
            let reason = format!("{} types for {} tokens", kinds.len(), tokens.len());
            return Err(ConfigError::within(PLACE, TYPES, reason));
        }
        let kind = |kind: i64| match kind {
            0 | 1 => Ok(PieceKind::Normal),
            2 => Ok(PieceKind::Unknown),
            3 => Ok(PieceKind::Control),
            4 => Ok(PieceKind::UserDefined),
            5 => Ok(PieceKind::Unused),
            6 => Ok(PieceKind::Byte),
            other => {
                let reason = format!("{other} is not a known type of a token");
                Err(ConfigError::within(PLACE, TYPES, reason))
            }
        };
        Ok(Self {
            metadata,
            kinds: kinds.into_iter().map(kind).collect::<Result<_, _>>()?,
            tokens,
        })
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        self.metadata.find(&format!("tokenizer.ggml.{key}"))
    }

    /// The token whose id a key says, or else the one that is usually called so.
    fn token(&self, key: &str, usual: &[&str]) -> Result<Option<Special>, ConfigError> {
        let key = format!("tokenizer.ggml.{key}");
        // Some writers put -1 for none.
        let id: Option<i64> = self.metadata.find(&key)?;
        let Some(id) = id.filter(|id| *id >= 0 && *id != i64::from(u32::MAX)) else {
            let find = |name: &&str| {
                let id = self.tokens.iter().position(|token| token == name)?;
                Some(((*name).to_owned(), id as u32))
            };
            return Ok(usual.iter().find_map(find));
        };
        let found = usize::try_from(id).ok().and_then(|id| self.tokens.get(id));
        match found {
            Some(token) => Ok(Some((token.clone(), id as u32))),
            None => Err(ConfigError::within(
                PLACE,
                &key,
                "names no token of the vocabulary",
            )),
        }
    }

    fn needed(&self, key: &str, usual: &[&str]) -> Result<Special, ConfigError> {
        self.token(key, usual)?.ok_or_else(|| {
            let key = format!("tokenizer.ggml.{key}");
            ConfigError::within(PLACE, &key, "names no token of the vocabulary")
        })
    }

    fn of_kinds(&self, kinds: &[PieceKind]) -> Vec<(Special, PieceKind)> {
        let all = self.tokens.iter().zip(&self.kinds).zip(0_u32..);
        all.filter(|((_, kind), _)| kinds.contains(kind))
            .map(|((token, kind), id)| ((token.clone(), id), *kind))
            .collect()
    }

    fn scores(&self) -> Result<Vec<f64>, ConfigError> {
        const SCORES: &str = "tokenizer.ggml.scores";
        let scores: Vec<f64> = self.metadata.get(SCORES)?;
        if scores.len() != self.tokens.len() {
            let reason = format!("{} scores for {} tokens", scores.len(), self.tokens.len());
            return Err(ConfigError::within(PLACE, SCORES, reason));
        }
        Ok(scores)
    }

    /// Refuses a splitting that is not among `known`.
    fn check_pre(&self, known: &[&str]) -> Result<(), ConfigError> {
        match self.metadata.text(PRE) {
            Some(pre) if !known.contains(&pre) => {
                let reason = format!("\"{pre}\" is not known; known are {}", known.join(", "));
                Err(ConfigError::within(PLACE, PRE, reason))
            }
            _ => Ok(()),
        }
    }

    /// What is put around a text: `begin` and `end` are the defaults, and a separator comes before the second
    /// text of a pair where the file or its pre-tokenizer says so.
    fn framed(
        &self,
        begin: bool,
        end: bool,
        separated: bool,
    ) -> Result<Option<Value>, ConfigError> {
        let begin = match self.flag("add_bos_token")?.unwrap_or(begin) {
            true => Some(self.needed("bos_token_id", &["<s>"])?),
            false => None,
        };
        let end = match self.flag("add_eos_token")?.unwrap_or(end) {
            true => Some(self.needed("eos_token_id", &["</s>"])?),
            false => None,
        };
        let separator = match self.flag("add_sep_token")?.unwrap_or(separated) {
            true => {
                let own = self.token("seperator_token_id", &[])?;
                own.or(self.token("eos_token_id", &["</s>"])?)
            }
            false => None,
        };
        Ok(around(begin.as_ref(), end.as_ref(), separator.as_ref(), 0))
    }

    /// Whether it is of an encoder, whose texts are between two tokens unless the file says otherwise.
    fn is_encoder(&self) -> bool {
        self.metadata.text("general.architecture") == Some("bert")
    }

    /// The settings that name the special tokens. The pipeline is what `tokenizer.json` says.
    fn settings(&self) -> Result<Value, ConfigError> {
        const ROLES: [(&str, &str, &[&str]); 7] = [
            ("bos_token", "bos_token_id", &[]),
            ("eos_token", "eos_token_id", &[]),
            ("unk_token", "unknown_token_id", &["<unk>"]),
            ("sep_token", "seperator_token_id", &[]),
            ("pad_token", "padding_token_id", &["<pad>"]),
            ("cls_token", "cls_token_id", &[]),
            ("mask_token", "mask_token_id", &["<mask>"]),
        ];
        let mut settings = json!({"tokenizer_class": "PreTrainedTokenizerFast"});
        for (role, key, usual) in ROLES {
            if let Some((token, _)) = self.token(key, usual)? {
                settings[role] = token.into();
            }
        }
        Ok(settings)
    }

    /// Lets the mask take the space before it, as RoBERTa's does.
    fn join_mask(&self, tokenizer: &mut Value) -> Result<(), ConfigError> {
        let mask = self.token("mask_token_id", &["<mask>"])?;
        let added = tokenizer.get_mut("added_tokens");
        for token in added.and_then(Value::as_array_mut).into_iter().flatten() {
            if mask
                .as_ref()
                .is_some_and(|(mask, _)| token["content"] == mask[..])
            {
                token["lstrip"] = true.into();
            }
        }
        Ok(())
    }
}

fn bert_tokenizer(vocabulary: &Vocabulary) -> Result<(Value, Value), ConfigError> {
    // All of them split alike.
    vocabulary.check_pre(&[
        "default",
        "bert-bge",
        "bert-bge-large",
        "jina-v1-en",
        "jina-v2-en",
    ])?;
    let mut tokens = vocabulary.tokens.clone();
    let doubled = tokens.iter().filter(|token| {
        let mut begins = token.chars();
        begins.next() == Some(BEGIN) && begins.next() == Some(BEGIN)
    });
    if doubled.count() * 10 > tokens.len() {
        let reason = "\"bert\" is the WordPiece of BERT, but the tokens are SentencePiece's, written as WordPiece; \
                      convert the model again with its SentencePiece vocabulary, as \"t5\"";
        return Err(ConfigError::within(PLACE, MODEL, reason));
    }
    for (token, kind) in tokens.iter_mut().zip(&vocabulary.kinds) {
        if let Some(word) = token
            .strip_prefix(BEGIN)
            .filter(|_| *kind != PieceKind::Control)
        {
            *token = word.to_owned();
        } else if matches!(kind, PieceKind::Normal | PieceKind::Unused) && !token.is_empty() {
            token.insert_str(0, "##");
        }
    }
    let vocabulary = &Vocabulary {
        metadata: vocabulary.metadata,
        kinds: vocabulary.kinds.clone(),
        tokens,
    };
    let added = vocabulary.of_kinds(&[
        PieceKind::Unknown,
        PieceKind::Control,
        PieceKind::UserDefined,
    ]);
    let added: Vec<(Special, bool)> = added
        .into_iter()
        .map(|(token, kind)| (token, kind != PieceKind::UserDefined))
        .collect();
    let unknown = vocabulary.needed("unknown_token_id", &["[UNK]"])?;
    let cls = vocabulary.token("cls_token_id", &[])?;
    let cls = match cls {
        Some(cls) => cls,
        None => vocabulary.needed("bos_token_id", &["[CLS]"])?,
    };
    let sep = vocabulary.needed("seperator_token_id", &["[SEP]"])?;
    let rules = bert_rules(vocabulary)?;
    let tokenizer = word_piece(&vocabulary.tokens, &added, rules, [&unknown, &cls, &sep]);
    let mut settings = json!({
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": rules.lowercase,
        "strip_accents": rules.strip_accents,
        "tokenize_chinese_chars": true,
        "unk_token": unknown.0,
        "cls_token": cls.0,
        "sep_token": sep.0,
    });
    for (role, key, usual) in [
        ("pad_token", "padding_token_id", "[PAD]"),
        ("mask_token", "mask_token_id", "[MASK]"),
    ] {
        if let Some((token, _)) = vocabulary.token(key, &[usual])? {
            settings[role] = token.into();
        }
    }
    Ok((tokenizer, settings))
}

/// Whether a model tells capitals and accents apart: as the file says, or else by its vocabulary. A vocabulary
/// that was learnt from texts in lower case has hardly a token that lower case would change, and one that was
/// learnt without accents hardly one with them.
fn bert_rules(vocabulary: &Vocabulary) -> Result<BertRules, ConfigError> {
    let normal = vocabulary.tokens.iter().zip(&vocabulary.kinds);
    let normal =
        normal.filter(|(token, kind)| **kind == PieceKind::Normal && !token.starts_with('['));
    let (mut letters, mut capitals, mut words, mut accents) = (0_usize, 0_usize, 0_usize, 0_usize);
    let mut accented = Accented::default();
    for (token, _) in normal {
        let is_letter = |c: char| !c.to_lowercase().eq([c]) || !c.to_uppercase().eq([c]);
        letters += usize::from(token.chars().any(is_letter));
        capitals += usize::from(token.chars().any(|c| !c.to_lowercase().eq([c])));
        words += usize::from(token.chars().any(char::is_alphabetic));
        accents += usize::from(token.chars().any(|c| accented.has(c)));
    }
    let says = |word: &str| {
        let keys = ["general.name", "general.basename", "general.finetune"];
        let texts = keys.iter().filter_map(|key| vocabulary.metadata.text(key));
        let mut words = texts.flat_map(|text| text.split(|c: char| !c.is_alphanumeric()));
        words.any(|found| found.eq_ignore_ascii_case(word))
    };
    let by_vocabulary = || match (says("uncased"), says("cased")) {
        (true, false) => true,
        (false, true) => false,
        _ => capitals * 20 < letters.max(1),
    };
    let lowercase = vocabulary.flag("normalizer.lowercase")?;
    let lowercase = lowercase.unwrap_or_else(by_vocabulary);
    let strip_accents = vocabulary.flag("normalizer.strip_accents")?;
    let keeps = lowercase && accents * 100 >= words.max(1);
    Ok(BertRules {
        lowercase,
        strip_accents: strip_accents.or(keeps.then_some(false)),
    })
}

/// Which characters have accents that BERT would strip.
#[derive(Default)]
struct Accented(HashMap<char, bool>);

impl Accented {
    fn has(&mut self, c: char) -> bool {
        if c.is_ascii() {
            return false;
        }
        *self.0.entry(c).or_insert_with(|| strips_accents(c))
    }
}

fn gpt2_tokenizer(vocabulary: &Vocabulary) -> Result<(Value, Value), ConfigError> {
    /// Those that split as RoBERTa does, where a pair has a separator as well.
    const SEPARATED: [&str; 2] = ["jina-v2-code", "roberta-bpe"];
    // Other models split texts before the merges in other ways.
    vocabulary.check_pre(&[
        "gpt-2",
        "default",
        "phi-2",
        "jina-v2-es",
        "jina-v2-de",
        "jina-v2-code",
        "roberta-bpe",
    ])?;
    if vocabulary.metadata.text(PRE) == Some("default") {
        tracing::warn!("{PRE} of {PLACE} is \"default\"; texts are split as GPT-2 does");
    }
    let separated = vocabulary
        .metadata
        .text(PRE)
        .is_some_and(|pre| SEPARATED.contains(&pre));
    let special = vocabulary.of_kinds(&[
        PieceKind::Control,
        PieceKind::UserDefined,
        PieceKind::Unknown,
    ]);
    let in_text = |content: &str| {
        let mut special = special.iter().filter(|((token, _), _)| token == content);
        special.any(|(_, kind)| *kind == PieceKind::UserDefined)
    };
    let tokens: Vec<Special> = special.iter().map(|(token, _)| token.clone()).collect();
    let merges: Vec<String> = vocabulary.metadata.get("tokenizer.ggml.merges")?;
    let mut tokenizer = byte_level(&vocabulary.tokens, Some(merges), &tokens, in_text);
    if vocabulary.flag("add_space_prefix")? == Some(true) {
        tokenizer["pre_tokenizer"]["add_prefix_space"] = true.into();
    }
    let encoder = vocabulary.is_encoder();
    if let Some(processor) = vocabulary.framed(encoder, encoder, separated)? {
        // The first step leaves spaces out of the places of tokens, as RoBERTa's own processor does.
        let trim = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        tokenizer["post_processor"] = json!({"type": "Sequence", "processors": [trim, processor]});
    }
    if encoder {
        vocabulary.join_mask(&mut tokenizer)?;
    }
    Ok((tokenizer, vocabulary.settings()?))
}

/// SentencePiece's unigrams, of T5 or of XLM-RoBERTa.
fn t5_tokenizer(vocabulary: &Vocabulary) -> Result<(Value, Value), ConfigError> {
    const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";
    vocabulary.check_pre(&["default"])?;
    let scores = vocabulary.scores()?;
    let special = vocabulary.of_kinds(&[
        PieceKind::Unknown,
        PieceKind::Control,
        PieceKind::UserDefined,
    ]);
    let in_text = |content: &str| {
        let mut special = special.iter().filter(|((token, _), _)| token == content);
        special.any(|(_, kind)| *kind == PieceKind::UserDefined)
    };
    let tokens: Vec<Special> = special.iter().map(|(token, _)| token.clone()).collect();
    let unknown = vocabulary.needed("unknown_token_id", &["<unk>"])?;
    let bytes: Option<Vec<i64>> = vocabulary.metadata.find(CHARSMAP)?;
    // Writers without unsigned bytes write signed ones.
    let characters: Vec<u8> = bytes
        .unwrap_or_default()
        .into_iter()
        .map(|byte| byte as u8)
        .collect();
    if let Some(flaw) = charsmap_flaw(&characters).filter(|_| !characters.is_empty()) {
        return Err(ConfigError::within(PLACE, CHARSMAP, flaw));
    }
    let encoder = vocabulary.is_encoder();
    let rules = Unigram {
        characters,
        prefix_space: vocabulary.flag("add_space_prefix")?.unwrap_or(true),
        one_space: vocabulary.flag("remove_extra_whitespaces")?.unwrap_or(true),
        byte_fallback: vocabulary.kinds.contains(&PieceKind::Byte),
        split: encoder,
    };
    let mut tokenizer = unigram(
        &vocabulary.tokens,
        &scores,
        &tokens,
        in_text,
        unknown.1,
        &rules,
    );
    // XLM-RoBERTa's pairs have two separators; T5's have one.
    let processor = vocabulary.framed(encoder, true, encoder)?;
    tokenizer["post_processor"] = processor.unwrap_or(Value::Null);
    if encoder {
        vocabulary.join_mask(&mut tokenizer)?;
    }
    Ok((tokenizer, vocabulary.settings()?))
}

/// SentencePiece's BPE, of LLaMA.
fn llama_tokenizer(vocabulary: &Vocabulary) -> Result<(Value, Value), ConfigError> {
    vocabulary.check_pre(&["default"])?;
    let pieces = vocabulary.tokens.iter().zip(vocabulary.scores()?);
    let pieces = pieces
        .zip(&vocabulary.kinds)
        .map(|((text, score), kind)| Piece {
            text: text.clone(),
            score: score as f32,
            kind: *kind,
        });
    let unknown = vocabulary.needed("unknown_token_id", &["<unk>"])?;
    let model = SentencePieceModel {
        pieces: pieces.collect(),
        algorithm: Algorithm::Bpe,
        unknown: unknown.1 as i32,
        begin: None,
        end: None,
        unknown_text: unknown.0,
        byte_fallback: vocabulary.kinds.contains(&PieceKind::Byte),
        space_as_suffix: false,
        charsmap: Vec::new(),
        add_dummy_prefix: vocabulary.flag("add_space_prefix")?.unwrap_or(true),
        remove_extra_whitespaces: vocabulary
            .flag("remove_extra_whitespaces")?
            .unwrap_or(false),
        escape_whitespaces: true,
    };
    let made = sentencepiece_tokenizer(&model, true);
    let mut tokenizer = made.map_err(|reason| ConfigError::within(PLACE, MODEL, reason))?;
    let special = vocabulary.of_kinds(&[PieceKind::Unknown, PieceKind::Control]);
    let special: Vec<Special> = special.into_iter().map(|(token, _)| token).collect();
    tokenizer["added_tokens"] = added(&special, |_| false).into();
    let processor = vocabulary.framed(true, false, false)?;
    tokenizer["post_processor"] = processor.unwrap_or(Value::Null);
    Ok((tokenizer, vocabulary.settings()?))
}

/// What an error calls the place of a key.
const PLACE: &str = "the file's metadata";

/// A file's name and its JSON.
pub(crate) type File = (&'static str, Value);

/// The metadata of a weight file.
pub(crate) struct Metadata<'a>(&'a BTreeMap<String, String>);

impl<'a> Metadata<'a> {
    pub(crate) fn of(checkpoint: &'a Checkpoint) -> Self {
        Self(&checkpoint.metadata)
    }

    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|text| &text[..])
    }

    /// The value under a key, if it is there.
    pub(crate) fn find<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, ConfigError> {
        let parse = |text: &str| {
            serde_json::from_str(text)
                .map_err(|error| ConfigError::within(PLACE, key, error.to_string()))
        };
        self.text(key).map(parse).transpose()
    }

    /// The value under a key.
    pub(crate) fn get<T: DeserializeOwned>(&self, key: &str) -> Result<T, ConfigError> {
        self.find(key)?.ok_or_else(|| {
            ConfigError::within(
                "the file's metadata",
                key,
                "is missing; convert the model anew",
            )
        })
    }
}
