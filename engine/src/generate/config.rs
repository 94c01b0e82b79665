use std::collections::{BTreeMap, BTreeSet};

use salamander_models::ConfigError;
use salamander_models::processing::text::{TextError, TextTokenizer};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// The fields of `generation_config.json` that change what a Whisper generates.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct GenerationConfig {
    #[serde(deserialize_with = "single")]
    pub(crate) decoder_start_token_id: Option<u32>,
    #[serde(deserialize_with = "single")]
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
    /// The decoder layers and heads whose attention tells where a token is spoken.
    pub(crate) alignment_heads: Option<Vec<[usize; 2]>>,
    pub(crate) num_beams: Option<usize>,
    pub(crate) length_penalty: Option<f32>,
    #[serde(deserialize_with = "early")]
    pub(crate) early_stopping: Option<bool>,
    pub(crate) top_k: Option<usize>,
    pub(crate) top_p: Option<f32>,
    pub(crate) repetition_penalty: Option<f32>,
    pub(crate) no_repeat_ngram_size: Option<usize>,
    pub(crate) compression_ratio_threshold: Option<f32>,
    pub(crate) logprob_threshold: Option<f32>,
    pub(crate) no_speech_threshold: Option<f32>,
    pub(crate) condition_on_prev_tokens: Option<bool>,
}

/// A number, or the only one of a list.
fn single<'de, D: Deserializer<'de>>(json: D) -> Result<Option<u32>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(u32),
        Many(Vec<u32>),
    }
    match Option::<OneOrMany>::deserialize(json)? {
        None => Ok(None),
        Some(OneOrMany::One(id)) => Ok(Some(id)),
        Some(OneOrMany::Many(ids)) => match ids[..] {
            [id] => Ok(Some(id)),
            _ => Err(serde::de::Error::custom(format!(
                "{} tokens are not supported, only one",
                ids.len()
            ))),
        },
    }
}

/// A truth value; the third, `"never"`, is another algorithm.
fn early<'de, D: Deserializer<'de>>(json: D) -> Result<Option<bool>, D::Error> {
    match Value::deserialize(json)? {
        Value::Null => Ok(None),
        Value::Bool(early) => Ok(Some(early)),
        other => Err(serde::de::Error::custom(format!(
            "{other} is not supported, only true and false"
        ))),
    }
}

/// What changes the reference's tokens and is not done here, with the number besides `null` and `false` that
/// changes nothing.
///
/// Reference: `GenerationMixin._get_logits_processor` and `_get_stopping_criteria` of transformers 5.23, and what
/// its fourth version had besides.
const UNSUPPORTED: &[(&str, Option<f64>)] = &[
    ("bad_words_ids", None),
    ("constraints", None),
    ("diversity_penalty", Some(0.0)),
    ("encoder_no_repeat_ngram_size", Some(0.0)),
    ("encoder_repetition_penalty", Some(1.0)),
    ("epsilon_cutoff", Some(0.0)),
    ("eta_cutoff", Some(0.0)),
    ("exponential_decay_length_penalty", None),
    ("force_words_ids", None),
    ("forced_bos_token_id", None),
    ("forced_eos_token_id", None),
    ("guidance_scale", Some(1.0)),
    ("max_time", None),
    ("min_length", Some(0.0)),
    ("min_new_tokens", Some(0.0)),
    ("min_p", Some(0.0)),
    ("num_beam_groups", Some(1.0)),
    ("num_return_sequences", Some(1.0)),
    ("penalty_alpha", Some(0.0)),
    ("renormalize_logits", None),
    ("sequence_bias", None),
    ("stop_strings", None),
    ("top_h", None),
    ("typical_p", Some(1.0)),
    ("watermarking_config", None),
];

/// The file's name in errors.
const FILE: &str = "generation_config.json";

impl GenerationConfig {
    /// Reads `generation_config.json`; what it does not say, `config.json` may, as in older checkpoints.
    ///
    /// # Errors
    /// A field has the wrong type or a value that cannot be honoured.
    pub(crate) fn parse(generation: Option<&Value>, config: &Value) -> Result<Self, ConfigError> {
        let older = Self::read("config.json", config, generation.is_none())?;
        let Some(json) = generation else {
            return Ok(older);
        };
        let found = Self::read(FILE, json, true)?;
        // Files of transformers before 4.27 know nothing of times. Whoever wrote one took the rest from
        // config.json, or left it there.
        let old = found.no_timestamps_token_id.is_none();
        let or_older = |given: Option<Vec<i64>>, field: &str, older: Option<Vec<i64>>| {
            given.or(older.filter(|_| old && json.get(field).is_none()))
        };
        Ok(Self {
            decoder_start_token_id: found
                .decoder_start_token_id
                .or(older.decoder_start_token_id),
            eos_token_id: found.eos_token_id.or(older.eos_token_id),
            pad_token_id: found.pad_token_id.or(older.pad_token_id),
            forced_decoder_ids: found.forced_decoder_ids.or(older.forced_decoder_ids),
            suppress_tokens: or_older(
                found.suppress_tokens,
                "suppress_tokens",
                older.suppress_tokens,
            ),
            begin_suppress_tokens: or_older(
                found.begin_suppress_tokens,
                "begin_suppress_tokens",
                older.begin_suppress_tokens,
            ),
            max_length: found.max_length.or(older.max_length.filter(|_| old)),
            ..found
        })
    }

    fn read(file: &'static str, json: &Value, followed: bool) -> Result<Self, ConfigError> {
        let found: Self = serde_path_to_error::deserialize(json).map_err(|error| {
            let field = error.path().to_string();
            ConfigError::within(file, field, error.into_inner().to_string())
        })?;
        let refuse = |field: &str, reason: String| Err(ConfigError::within(file, field, reason));
        if !followed {
            return Ok(found);
        }
        for (field, neutral) in UNSUPPORTED {
            let value = json.get(*field).unwrap_or(&Value::Null);
            let nothing = match value {
                Value::Null | Value::Bool(false) => true,
                Value::Number(number) => neutral.is_some() && number.as_f64() == *neutral,
                Value::Array(list) => list.is_empty(),
                Value::Object(map) => map.is_empty(),
                Value::Bool(true) | Value::String(_) => false,
            };
            if !nothing {
                let neutral = neutral.map_or("null".to_owned(), |neutral| neutral.to_string());
                let reason = format!("{value} is not supported, only {neutral}");
                return refuse(field, reason);
            }
        }
        if let Some(penalty) = found.repetition_penalty
            && !(penalty.is_finite() && penalty > 0.0)
        {
            return refuse("repetition_penalty", format!("{penalty} is not above 0"));
        }
        if let Some(top_p) = found.top_p
            && !(0.0..=1.0).contains(&top_p)
        {
            return refuse("top_p", format!("{top_p} is not between 0 and 1"));
        }
        Ok(found)
    }

    /// Fills in what a directory without `generation_config.json`, or with an incomplete one, leaves open, by the
    /// names that the special tokens have in the tokenizer.
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
