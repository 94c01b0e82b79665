use std::collections::{BTreeMap, BTreeSet};

use salamander_models::ConfigError;
use salamander_models::processing::text::{TextError, TextTokenizer};
use serde::Deserialize;
use serde_json::Value;

/// The fields of `generation_config.json` that change what a Whisper generates.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct GenerationConfig {
    pub(crate) decoder_start_token_id: Option<u32>,
    pub(crate) eos_token_id: Option<u32>,
    pub(crate) pad_token_id: Option<u32>,
    pub(crate) max_length: Option<usize>,
    pub(crate) suppress_tokens: Option<Vec<i64>>,
    pub(crate) begin_suppress_tokens: Option<Vec<i64>>,
    pub(crate) forced_decoder_ids: Option<Vec<(usize, Option<u32>)>>,
    pub(crate) lang_to_id: Option<BTreeMap<String, u32>>,
    pub(crate) task_to_id: Option<BTreeMap<String, u32>>,
    pub(crate) is_multilingual: Option<bool>,
    pub(crate) language: Option<String>,
    pub(crate) task: Option<String>,
    pub(crate) no_timestamps_token_id: Option<u32>,
    pub(crate) max_initial_timestamp_index: Option<u32>,
    pub(crate) prev_sot_token_id: Option<u32>,
    pub(crate) top_k: Option<usize>,
    /// The decoder layers and heads whose attention tells where a token is spoken.
    pub(crate) alignment_heads: Option<Vec<[usize; 2]>>,
    no_repeat_ngram_size: Option<usize>,
    repetition_penalty: Option<f64>,
    top_p: Option<f64>,
}

impl GenerationConfig {
    /// Reads `generation_config.json`; what it does not say, `config.json` may, as in older checkpoints.
    ///
    /// # Errors
    /// A field has the wrong type or a value that cannot be honoured.
    pub(crate) fn parse(generation: Option<&Value>, config: &Value) -> Result<Self, ConfigError> {
        let read = |json: &Value| {
            Self::deserialize(json)
                .map_err(|error| ConfigError::new("generation_config.json", error.to_string()))
        };
        let older = read(config)?;
        let mut found = match generation {
            Some(json) => read(json)?,
            None => older.clone(),
        };
        found.decoder_start_token_id = found
            .decoder_start_token_id
            .or(older.decoder_start_token_id);
        found.eos_token_id = found.eos_token_id.or(older.eos_token_id);
        found.pad_token_id = found.pad_token_id.or(older.pad_token_id);
        found.forced_decoder_ids = found.forced_decoder_ids.or(older.forced_decoder_ids);
        let neutral = [
            (
                "no_repeat_ngram_size",
                found.no_repeat_ngram_size.unwrap_or(0) as f64,
                0.0,
            ),
            (
                "repetition_penalty",
                found.repetition_penalty.unwrap_or(1.0),
                1.0,
            ),
            ("top_p", found.top_p.unwrap_or(1.0), 1.0),
        ];
        for (field, value, neutral) in neutral {
            if value != neutral {
                let reason = format!("{value} is not supported, only {neutral}");
                return Err(ConfigError::new(field, reason));
            }
        }
        Ok(found)
    }

    /// Fills in what a directory without `generation_config.json` leaves open, by the names that the
    /// special tokens have in the tokenizer.
    pub(crate) fn complete(&mut self, tokenizer: &TextTokenizer) {
        let id = |name: &str| tokenizer.token_to_id(name);
        let set = |field: &mut Option<u32>, name: &str| *field = field.or_else(|| id(name));
        set(&mut self.decoder_start_token_id, "<|startoftranscript|>");
        set(&mut self.eos_token_id, "<|endoftext|>");
        set(&mut self.no_timestamps_token_id, "<|notimestamps|>");
        set(&mut self.prev_sot_token_id, "<|startofprev|>");
        // English-only models have the same tokens without their meaning; their words are GPT-2's.
        if self.is_multilingual.is_none() {
            self.is_multilingual = id("<|endoftext|>").map(|end| end != 50_256);
        }
        if self.is_multilingual == Some(false) {
            return;
        }
        if self.lang_to_id.is_none() {
            let codes = super::languages::codes().filter_map(|code| {
                let name = format!("<|{code}|>");
                Some((name.clone(), id(&name)?))
            });
            self.lang_to_id = Some(codes.collect()).filter(|map: &BTreeMap<_, _>| !map.is_empty());
        }
        if self.task_to_id.is_none() {
            let tasks = ["transcribe", "translate"];
            let tasks = tasks.map(|task| Some((task.to_owned(), id(&format!("<|{task}|>"))?)));
            self.task_to_id = tasks.into_iter().collect();
        }
    }

    /// Fills in what OpenAI's package does with its own checkpoints, which say nothing of it. The encoder of a
    /// window has `window_positions`.
    ///
    /// Reference: the defaults of `DecodingOptions` of openai-whisper 20250625.
    ///
    /// # Errors
    /// The tokenizer refuses a text.
    pub(crate) fn complete_as_openai(
        &mut self,
        tokenizer: &TextTokenizer,
        window_positions: usize,
    ) -> Result<(), TextError> {
        let mut suppressed = non_speech(tokenizer)?;
        let marks = [
            "startoftranscript",
            "translate",
            "transcribe",
            "startoflm",
            "startofprev",
        ];
        let marks = marks.iter().chain(&["nospeech", "nocaptions"]);
        suppressed.extend(marks.filter_map(|mark| tokenizer.token_to_id(&format!("<|{mark}|>"))));
        let suppressed = suppressed.into_iter().map(i64::from).collect();
        self.suppress_tokens.get_or_insert(suppressed);
        let blank = tokenizer.pieces(" ")?.into_iter().chain(self.eos_token_id);
        let blank = blank.map(i64::from).collect();
        self.begin_suppress_tokens.get_or_insert(blank);
        // A second; the package takes every window for 30 seconds.
        let second = (window_positions as f64 / 30.0).round_ties_even();
        self.max_initial_timestamp_index
            .get_or_insert(second as u32);
        Ok(())
    }
}

/// Tokens of what is written and not spoken: brackets, quotes, notes of music.
///
/// Reference: `Tokenizer.non_speech_tokens` of openai-whisper 20250625.
fn non_speech(tokenizer: &TextTokenizer) -> Result<BTreeSet<u32>, TextError> {
    const NOTES: &str = "♩♪♫♬♭♮♯";
    const ONES: &str = "\"#()*+/:;<=>@[\\]^_`{|}~「」『』";
    const SEVERAL: &str = "<< >> <<< >>> -- --- -( -[ (' (\" (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪";
    let mut found = BTreeSet::new();
    // Within a word both may stand.
    for text in [" -", " '"] {
        found.extend(tokenizer.pieces(text)?.first());
    }
    let notes = NOTES.chars().map(|note| (note.to_string(), true));
    let ones = ONES.chars().map(|one| (one.to_string(), false));
    let several = SEVERAL.split(' ').map(|text| (text.to_owned(), false));
    for (symbol, note) in notes.chain(ones).chain(several) {
        for text in [format!(" {symbol}"), symbol] {
            let pieces = tokenizer.pieces(&text)?;
            // Notes are several tokens, of which the first begins nothing that is spoken.
            if pieces.len() == 1 || note {
                found.extend(pieces.first());
            }
        }
    }
    Ok(found)
}
