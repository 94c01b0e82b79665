//! Text to tokens and back, as the reference's fast tokenizers do it.

use ahash::AHashMap;
use serde_json::Value;
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::{BertNormalizer, Lowercase, Sequence};
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::utils::truncation::{TruncationDirection, TruncationParams, truncate_encodings};
use tokenizers::{
    AddedToken, Decoder, InputSequence, ModelWrapper, NormalizerWrapper, PostProcessor, Tokenizer,
};

pub use tokenizers::Encoding;
pub use tokenizers::utils::truncation::TruncationStrategy;

/// A tokenizer that could not be built, or a text that it could not take.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// A tokenizer file is not valid.
    #[error("{file}: {reason}")]
    File {
        /// The file's name.
        file: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The text cannot be encoded as asked.
    #[error("{0}")]
    Encode(String),
}

/// The contents of the files that describe a tokenizer.
#[derive(Debug, Clone, Default)]
pub struct TokenizerFiles {
    /// `tokenizer.json`.
    pub tokenizer: Option<Vec<u8>>,
    /// `vocab.txt` of a WordPiece tokenizer, used where there is no `tokenizer.json`.
    pub vocabulary: Option<Vec<u8>>,
    /// `tokenizer_config.json`.
    pub config: Option<Value>,
    /// `special_tokens_map.json`.
    pub special_tokens: Option<Value>,
}

/// How a text that is too long is shortened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncation {
    /// The most tokens, special ones included.
    pub max_length: usize,
    /// Which text of a pair is shortened.
    pub strategy: TruncationStrategy,
    /// With a number, what is cut off comes as further windows, which share that many tokens.
    pub windows: Option<usize>,
}

impl Truncation {
    /// Shortens the longer text first, to `max_length` tokens.
    pub fn to(max_length: usize) -> Self {
        Self {
            max_length,
            strategy: TruncationStrategy::LongestFirst,
            windows: None,
        }
    }
}

/// A tokenizer with the settings of its checkpoint.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    direction: TruncationDirection,
    max_length: Option<usize>,
    continuing_prefix: bool,
    special: Special,
}

/// The special tokens' ids, where the vocabulary has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Special {
    pub pad: Option<u32>,
    pub unknown: Option<u32>,
    pub cls: Option<u32>,
    pub mask: Option<u32>,
}

impl TextTokenizer {
    /// Builds a tokenizer from the files of a model directory.
    ///
    /// # Errors
    /// There is neither `tokenizer.json` nor `vocab.txt`, or a file is not valid.
    pub fn new(files: &TokenizerFiles) -> Result<Self, TextError> {
        let null = Value::Null;
        let config = files.config.as_ref().unwrap_or(&null);
        let special_tokens = files.special_tokens.as_ref().unwrap_or(&null);
        let token = |name: &str, default: &str| {
            let found = [config, special_tokens].into_iter().find_map(|map| {
                let entry = map.get(name)?;
                entry.as_str().or_else(|| entry.get("content")?.as_str())
            });
            found.unwrap_or(default).to_owned()
        };
        let mut tokenizer = match (&files.tokenizer, &files.vocabulary) {
            (Some(json), _) => from_json(json, config)?,
            (None, Some(vocabulary)) => from_vocabulary(vocabulary, config, &token)?,
            (None, None) => {
                return Err(TextError::File {
                    file: "tokenizer.json",
                    reason: "is missing, and so is vocab.txt; a text model needs one of them"
                        .to_owned(),
                });
            }
        };
        // Lengths are decided by the task, not by what the tokenizer was last used for.
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|error| invalid("tokenizer.json", error))?;
        let id = |name: &str, default: &str| tokenizer.token_to_id(&token(name, default));
        let special = Special {
            pad: id("pad_token", "[PAD]"),
            unknown: id("unk_token", "[UNK]"),
            cls: id("cls_token", "[CLS]"),
            mask: id("mask_token", "[MASK]"),
        };
        let continuing_prefix = match tokenizer.get_model() {
            ModelWrapper::WordPiece(model) => !model.continuing_subword_prefix.is_empty(),
            ModelWrapper::BPE(model) => model
                .continuing_subword_prefix
                .as_ref()
                .is_some_and(|p| !p.is_empty()),
            _ => false,
        };
        let left = config.get("truncation_side").and_then(Value::as_str) == Some("left");
        Ok(Self {
            direction: if left {
                TruncationDirection::Left
            } else {
                TruncationDirection::Right
            },
            max_length: max_length(config),
            continuing_prefix,
            special,
            tokenizer,
        })
    }

    /// The same tokenizer, which lowercases every text first.
    ///
    /// # Errors
    /// The tokenizer cannot be changed.
    pub fn lowercased(mut self) -> Result<Self, TextError> {
        let mut normalizers = vec![NormalizerWrapper::Lowercase(Lowercase)];
        normalizers.extend(self.tokenizer.get_normalizer().cloned());
        self.tokenizer
            .with_normalizer(Some(Sequence::new(normalizers)))
            .map_err(|error| invalid("tokenizer.json", error))?;
        Ok(self)
    }

    /// The most tokens that the checkpoint's tokenizer lets through, special ones included.
    pub fn max_length(&self) -> Option<usize> {
        self.max_length
    }

    /// The special tokens.
    pub fn special(&self) -> Special {
        self.special
    }

    /// Whether pieces inside a word are marked, as WordPiece's `##` does.
    pub fn marks_continuation(&self) -> bool {
        self.continuing_prefix
    }

    /// The number of special tokens around a text or a pair.
    pub fn added_tokens(&self, pair: bool) -> usize {
        self.tokenizer
            .get_post_processor()
            .map_or(0, |processor| processor.added_tokens(pair))
    }

    /// Encodes a text or a pair, with special tokens. Offsets count characters.
    ///
    /// Gives one window, or as many as the text needs if the truncation asks for them.
    ///
    /// # Errors
    /// The truncation leaves no room for the text.
    pub fn encode(
        &self,
        text: &str,
        pair: Option<&str>,
        truncation: Option<Truncation>,
    ) -> Result<Vec<Encoding>, TextError> {
        let first = self.unframed(text)?;
        let mut second = pair.map(|pair| self.unframed(pair)).transpose()?;
        if let Some(second) = &mut second {
            // Windows after the first keep what they have now.
            second.set_type_ids(vec![1; second.len()]);
        }
        self.frame(first, second, truncation)
    }

    /// Encodes a text that is already split into words. Offsets count characters within each word.
    ///
    /// # Errors
    /// The truncation leaves no room for the text.
    pub fn encode_words(
        &self,
        words: &[&str],
        truncation: Option<Truncation>,
    ) -> Result<Vec<Encoding>, TextError> {
        let words = self.unframed(words)?;
        self.frame(words, None, truncation)
    }

    /// Without special tokens.
    fn unframed<'a>(&self, input: impl Into<InputSequence<'a>>) -> Result<Encoding, TextError> {
        self.tokenizer
            .encode_char_offsets(input.into(), false)
            .map_err(|error| TextError::Encode(error.to_string()))
    }

    /// Truncates and puts the special tokens around.
    fn frame(
        &self,
        mut first: Encoding,
        mut second: Option<Encoding>,
        truncation: Option<Truncation>,
    ) -> Result<Vec<Encoding>, TextError> {
        if let Some(truncation) = truncation {
            (first, second) = self.truncate(first, second, truncation)?;
        }
        let mut encoding = self
            .tokenizer
            .post_process(first, second, true)
            .map_err(|error| TextError::Encode(error.to_string()))?;
        let windows = match truncation.and_then(|truncation| truncation.windows) {
            Some(_) => encoding.take_overflowing(),
            None => Vec::new(),
        };
        Ok(std::iter::once(encoding).chain(windows).collect())
    }

    fn truncate(
        &self,
        first: Encoding,
        second: Option<Encoding>,
        truncation: Truncation,
    ) -> Result<(Encoding, Option<Encoding>), TextError> {
        let added = self.added_tokens(second.is_some());
        let kept = match truncation.strategy {
            TruncationStrategy::LongestFirst => 0,
            TruncationStrategy::OnlyFirst => second.as_ref().map_or(0, Encoding::len),
            TruncationStrategy::OnlySecond => first.len(),
        };
        let stride = truncation.windows.unwrap_or(0);
        let room = truncation.max_length.saturating_sub(added + kept);
        let total = first.len() + second.as_ref().map_or(0, Encoding::len);
        let cramped =
            truncation.max_length < added || (truncation.windows.is_some() && room <= stride);
        if total + added > truncation.max_length && cramped {
            return Err(TextError::Encode(format!(
                "{} tokens leave no room for the text: {added} are special, {kept} are of the other text and \
                 {stride} shared between windows",
                truncation.max_length
            )));
        }
        let params = TruncationParams {
            direction: self.direction,
            max_length: truncation.max_length.saturating_sub(added),
            strategy: truncation.strategy,
            stride,
        };
        truncate_encodings(first, second, &params)
            .map_err(|error| TextError::Encode(error.to_string()))
    }

    /// The id of a token of the vocabulary.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// The pieces of a text, without special tokens.
    ///
    /// # Errors
    /// The tokenizer refuses the text.
    pub fn pieces(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let encoding = self
            .tokenizer
            .encode_fast(text, false)
            .map_err(|error| TextError::Encode(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of ids.
    ///
    /// # Errors
    /// The tokenizer cannot decode them.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TextError> {
        self.tokenizer
            .decode(ids, skip_special)
            .map_err(|error| TextError::Encode(error.to_string()))
    }

    /// The text of tokens.
    ///
    /// # Errors
    /// The tokenizer cannot decode them.
    pub fn join(&self, tokens: Vec<String>) -> Result<String, TextError> {
        match self.tokenizer.get_decoder() {
            Some(decoder) => decoder
                .decode(tokens)
                .map_err(|error| TextError::Encode(error.to_string())),
            None => Ok(tokens.join(" ")),
        }
    }
}

fn invalid(file: &'static str, error: impl ToString) -> TextError {
    TextError::File {
        file,
        reason: error.to_string(),
    }
}

/// `model_max_length`, unless it is the reference's way to say that there is none (10³⁰).
fn max_length(config: &Value) -> Option<usize> {
    const NONE: f64 = 1e9;
    let length = config.get("model_max_length")?.as_f64()?;
    (1.0..NONE).contains(&length).then_some(length as usize)
}

fn from_json(json: &[u8], config: &Value) -> Result<Tokenizer, TextError> {
    let mut tokenizer =
        Tokenizer::from_bytes(json).map_err(|error| invalid("tokenizer.json", error))?;
    // transformers' BertTokenizer lets its own settings override those of the file.
    let class = config.get("tokenizer_class").and_then(Value::as_str);
    if class.is_some_and(|class| class.starts_with("BertTokenizer"))
        && let Some(NormalizerWrapper::BertNormalizer(normalizer)) = tokenizer.get_normalizer()
    {
        let normalizer = bert_normalizer(config, *normalizer);
        tokenizer
            .with_normalizer(Some(normalizer))
            .map_err(|error| invalid("tokenizer.json", error))?;
    }
    Ok(tokenizer)
}

/// `base` with what `tokenizer_config.json` says.
fn bert_normalizer(config: &Value, mut base: BertNormalizer) -> BertNormalizer {
    let flag = |name: &str| config.get(name).and_then(Value::as_bool);
    base.lowercase = flag("do_lower_case").unwrap_or(base.lowercase);
    base.handle_chinese_chars = flag("tokenize_chinese_chars").unwrap_or(base.handle_chinese_chars);
    if config.get("strip_accents").is_some() {
        base.strip_accents = flag("strip_accents");
    }
    base
}

/// The tokenizer of a BERT that comes with a `vocab.txt` alone.
fn from_vocabulary(
    vocabulary: &[u8],
    config: &Value,
    token: &dyn Fn(&str, &str) -> String,
) -> Result<Tokenizer, TextError> {
    const FILE: &str = "vocab.txt";
    let text = std::str::from_utf8(vocabulary).map_err(|error| invalid(FILE, error))?;
    let tokens = text.lines().enumerate();
    let vocabulary: AHashMap<String, u32> = tokens
        .map(|(id, token)| (token.to_owned(), id as u32))
        .collect();
    let unknown = token("unk_token", "[UNK]");
    let model = WordPiece::builder()
        .vocab(vocabulary)
        .unk_token(unknown.clone())
        .build()
        .map_err(|error| invalid(FILE, error))?;
    let mut tokenizer = Tokenizer::new(model);
    let special = |name: &str, default: &str| {
        let text = token(name, default);
        let id = tokenizer
            .token_to_id(&text)
            .ok_or_else(|| invalid(FILE, format!("has no `{text}`, which {name} names")))?;
        Ok::<_, TextError>((text, id))
    };
    let (cls, sep) = (
        special("cls_token", "[CLS]")?,
        special("sep_token", "[SEP]")?,
    );
    special("unk_token", "[UNK]")?;
    let processor = TemplateProcessing::builder()
        .try_single(format!("{}:0 $A:0 {}:0", cls.0, sep.0))
        .map_err(|error| invalid(FILE, error))?
        .try_pair(format!("{c}:0 $A:0 {s}:0 $B:1 {s}:1", c = cls.0, s = sep.0))
        .map_err(|error| invalid(FILE, error))?
        .special_tokens(vec![cls.clone(), sep.clone()])
        .build()
        .map_err(|error| invalid(FILE, error))?;
    let normalizer = bert_normalizer(config, BertNormalizer::default());
    let others = [
        token("pad_token", "[PAD]"),
        token("mask_token", "[MASK]"),
        unknown,
    ];
    let added = [cls.0, sep.0].into_iter().chain(others);
    let added: Vec<AddedToken> = added
        .filter(|token| tokenizer.token_to_id(token).is_some())
        .map(|token| AddedToken::from(token, true))
        .collect();
    tokenizer
        .with_normalizer(Some(normalizer))
        .map_err(|error| invalid(FILE, error))?
        .with_pre_tokenizer(Some(BertPreTokenizer))
        .with_post_processor(Some(processor))
        .with_decoder(Some(WordPieceDecoder::default()));
    tokenizer
        .add_special_tokens(added)
        .map_err(|error| invalid(FILE, error))?;
    Ok(tokenizer)
}
