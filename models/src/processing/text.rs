//! Text to tokens and back, as the reference's fast tokenizers do it.

use std::collections::BTreeMap;

use serde_json::Value;
use tokenizers::normalizers::{Lowercase, Sequence};
use tokenizers::utils::truncation::{TruncationDirection, TruncationParams, truncate_encodings};
use tokenizers::{
    Decoder, InputSequence, ModelWrapper, NormalizerWrapper, PostProcessor, PostProcessorWrapper,
    PreTokenizerWrapper, Tokenizer,
};

use super::tokenizer_build::{CONFIG, JSON, assemble};
use super::tokenizer_class::{Settings, invalid, resolve};

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
    /// `vocab.json` of a BPE tokenizer, likewise.
    pub ids: Option<Vec<u8>>,
    /// `merges.txt` of a BPE tokenizer, likewise.
    pub merges: Option<Vec<u8>>,
    /// SentencePiece models by their file names, [`SENTENCEPIECE_FILES`], likewise.
    pub sentencepiece: BTreeMap<&'static str, Vec<u8>>,
    /// `tokenizer_config.json`.
    pub config: Option<Value>,
    /// `special_tokens_map.json`.
    pub special_tokens: Option<Value>,
    /// `added_tokens.json`.
    pub added_tokens: Option<Value>,
    /// The model's own `config.json`, which may name the tokenizer's class, and whose `model_type` has one.
    pub model_config: Option<Value>,
}

/// What SentencePiece's models are called in a model directory.
pub const SENTENCEPIECE_FILES: [&str; 5] = [
    "sentencepiece.bpe.model",
    "spiece.model",
    "spm.model",
    "sentencepiece.model",
    "tokenizer.model",
];

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
    /// Without what comes around a text, which [`Self::frame`] puts there once.
    tokenizer: Tokenizer,
    processor: Option<PostProcessorWrapper>,
    direction: TruncationDirection,
    max_length: Option<usize>,
    continuing_prefix: bool,
    /// Whether the texts of a pair are told apart by their segments.
    segments: bool,
    /// Whether the tokens of a text up to a space are the same whatever comes behind it, and its beginning is kept.
    is_local: bool,
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
    /// Builds a tokenizer from the files of a model directory, as the reference's `AutoTokenizer` does: the
    /// class that `tokenizer_config.json`, else `config.json`, else the model's type names builds its pipeline
    /// from the vocabulary and the settings.
    ///
    /// # Errors
    /// There is no vocabulary, the class is not supported, or a file is not valid.
    pub fn new(files: &TokenizerFiles) -> Result<Self, TextError> {
        let (class, build) = resolve(files)?;
        let (mut tokenizer, settings) = assemble(files, build)?;
        if settings.flag("split_special_tokens") == Some(true) {
            tokenizer.set_encode_special_tokens(true);
        }
        // Lengths are decided by the task, not by what the tokenizer was last used for.
        let truncation = tokenizer.get_truncation().map(|params| params.direction);
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|error| invalid(JSON, error))?;
        let id = |name: &str, usual: [&str; 2]| match settings.content(name) {
            Some(content) => tokenizer.token_to_id(content),
            None => usual.iter().find_map(|token| tokenizer.token_to_id(token)),
        };
        let special = Special {
            pad: id("pad_token", ["[PAD]", "<pad>"]),
            unknown: id("unk_token", ["[UNK]", "<unk>"]),
            cls: id("cls_token", ["[CLS]", "<s>"]),
            mask: id("mask_token", ["[MASK]", "<mask>"]),
        };
        let continuing_prefix = match tokenizer.get_model() {
            ModelWrapper::WordPiece(model) => !model.continuing_subword_prefix.is_empty(),
            ModelWrapper::BPE(model) => model
                .continuing_subword_prefix
                .as_ref()
                .is_some_and(|p| !p.is_empty()),
            _ => false,
        };
        let side = |name: &str| match settings.fields.get(name).and_then(Value::as_str) {
            Some("left") => Ok(Some(TruncationDirection::Left)),
            Some("right") => Ok(Some(TruncationDirection::Right)),
            None => Ok(None),
            Some(other) => {
                let reason = format!("{name} is \"{other}\", not \"left\" or \"right\"");
                Err(invalid(CONFIG, reason))
            }
        };
        if side("padding_side")? == Some(TruncationDirection::Left) {
            tracing::warn!(
                "{CONFIG}: padding_side \"left\" is not followed; texts are padded on the right, where padding \
                 does not move them"
            );
        }
        let inputs = settings.fields.get("model_input_names");
        let segments = match inputs.and_then(Value::as_array) {
            Some(names) => names.iter().any(|name| name == "token_type_ids"),
            None => settings.build.has_segments(class.as_deref()),
        };
        let processor = tokenizer.get_post_processor().cloned();
        tokenizer.with_post_processor(None::<PostProcessorWrapper>);
        let direction = side("truncation_side")?.or(truncation);
        let direction = direction.unwrap_or(TruncationDirection::Right);
        Ok(Self {
            processor,
            direction,
            max_length: max_length(&settings),
            continuing_prefix,
            segments,
            is_local: direction == TruncationDirection::Right && splits_at_spaces(&tokenizer),
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
        let processor = self.processor.as_ref();
        processor.map_or(0, |processor| processor.added_tokens(pair))
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
        let (first, mut second) = self.beginnings(text, pair, truncation)?;
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

    /// A text or a pair without special tokens, of long texts only as much as truncation can leave.
    fn beginnings(
        &self,
        text: &str,
        pair: Option<&str>,
        truncation: Option<Truncation>,
    ) -> Result<(Encoding, Option<Encoding>), TextError> {
        let longest_first = TruncationStrategy::LongestFirst;
        let most = truncation
            .filter(|truncation| {
                let one = truncation.windows.is_none() && self.is_local;
                one && (pair.is_none() || truncation.strategy == longest_first)
            })
            .map(|truncation| truncation.max_length);
        let beginning = |text: &str| -> Result<(Encoding, bool), TextError> {
            match most.and_then(|most| self.beginning(text, most).transpose()) {
                Some(encoding) => Ok((encoding?, false)),
                None => Ok((self.unframed(text)?, true)),
            }
        };
        let (mut first, first_whole) = beginning(text)?;
        let Some(pair) = pair else {
            return Ok((first, None));
        };
        let (mut second, second_whole) = beginning(pair)?;
        // Which of two is the longer decides what is left of both, unless one of them is within the limit.
        let within = |encoding: &Encoding, whole: bool| {
            whole && most.is_some_and(|most| encoding.len() < most)
        };
        if !within(&first, first_whole) && !within(&second, second_whole) {
            if !first_whole {
                first = self.unframed(text)?;
            }
            if !second_whole {
                second = self.unframed(pair)?;
            }
        }
        Ok((first, Some(second)))
    }

    /// The first tokens of a text, at least `most`; `None` where it is not long enough to be worth it.
    fn beginning(&self, text: &str, most: usize) -> Result<Option<Encoding>, TextError> {
        // Words are seldom longer, and a second look costs little.
        let mut size = most.saturating_mul(16).max(1 << 10);
        while size < text.len() {
            let from = text.ceil_char_boundary(size);
            // Only between words is it the same as the beginning of the tokens of all.
            let Some(space) = text[from..].find(char::is_whitespace) else {
                return Ok(None);
            };
            let encoding = self.unframed(&text[..from + space])?;
            if encoding.len() >= most {
                return Ok(Some(encoding));
            }
            size = (from + space).saturating_mul(4);
        }
        Ok(None)
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
            if truncation.windows.is_none() {
                // What is cut off a long text is far larger than what is left, and of a pair the special tokens would
                // be put around each part of the one with each of the other.
                first.take_overflowing();
                second
                    .iter_mut()
                    .for_each(|second| drop(second.take_overflowing()));
            }
        }
        let framed = match &self.processor {
            Some(processor) => processor.process(first, second, true),
            None => self.tokenizer.post_process(first, second, true),
        };
        let mut encoding = framed.map_err(|error| TextError::Encode(error.to_string()))?;
        let windows = encoding.take_overflowing();
        let mut windows: Vec<Encoding> = std::iter::once(encoding).chain(windows).collect();
        if !self.segments {
            for window in &mut windows {
                window.set_type_ids(vec![0; window.len()]);
            }
        }
        Ok(windows)
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

/// Whether a tokenizer is BERT's, which looks at one word at a time.
fn splits_at_spaces(tokenizer: &Tokenizer) -> bool {
    fn is_of_characters(normalizer: &NormalizerWrapper) -> bool {
        match normalizer {
            NormalizerWrapper::BertNormalizer(_) | NormalizerWrapper::Lowercase(_) => true,
            NormalizerWrapper::Sequence(steps) => steps.as_ref().iter().all(is_of_characters),
            _ => false,
        }
    }
    let splits = matches!(
        tokenizer.get_pre_tokenizer(),
        Some(PreTokenizerWrapper::BertPreTokenizer(_))
    );
    let added = tokenizer.get_added_tokens_decoder();
    splits
        && tokenizer.get_normalizer().is_none_or(is_of_characters)
        && !added
            .values()
            .any(|token| token.content.contains(char::is_whitespace))
}

/// `model_max_length`, or `max_len` as it was called before, unless it is the reference's way to say that
/// there is none (10³⁰).
fn max_length(settings: &Settings) -> Option<usize> {
    const NONE: f64 = 1e9;
    let fields = &settings.fields;
    let length = fields
        .get("model_max_length")
        .or_else(|| fields.get("max_len"));
    let length = length?.as_f64()?;
    (1.0..NONE).contains(&length).then_some(length as usize)
}
