use salamander_importers::Checkpoint;
use serde_json::{Map, Value, json};

use crate::ConfigError;
use crate::contained::{File, Metadata};
use crate::processing::vocabulary::{Special, byte_level};

/// The tokens between the languages and the timestamps, as `src/whisper.cpp` counts them.
const TASKS: [&str; 6] = [
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
];
/// The seconds between two timestamps.
const STEP: f64 = 0.02;
const END: &str = "<|endoftext|>";
/// A space as GPT-2's tokenizer shows it.
const SPACE: &str = "\u{120}";
/// How many tokens of text the English models have.
const ENGLISH: usize = 50_256;

/// Codes of the languages, in the order of their tokens; `yue` came with large-v3.
///
/// Reference: `LANGUAGES` of `whisper/tokenizer.py` of openai-whisper 20250625.
const LANGUAGES: [&str; 100] = [
    "en", "zh", "de", "es", "ru", "ko", "fr", "ja", "pt", "tr", "pl", "ca", "nl", "ar", "sv", "it",
    "id", "hi", "fi", "vi", "he", "uk", "el", "ms", "cs", "ro", "da", "hu", "ta", "no", "th", "ur",
    "hr", "bg", "lt", "la", "mi", "ml", "cy", "sk", "te", "fa", "lv", "bn", "sr", "az", "sl", "kn",
    "et", "mk", "br", "eu", "is", "hy", "ne", "mn", "bs", "kk", "sq", "sw", "gl", "mr", "pa", "si",
    "km", "sn", "yo", "so", "af", "oc", "ka", "be", "tg", "sd", "gu", "am", "yi", "lo", "uz", "fo",
    "ht", "ps", "tk", "nn", "mt", "sa", "lb", "my", "bo", "tl", "mg", "as", "tt", "haw", "ln",
    "ha", "ba", "jw", "su", "yue",
];

/// What a file of whisper.cpp holds beside its weights. Tokens are suppressed as whisper.cpp does by default:
/// control tokens, and a blank at the beginning.
pub(crate) fn contained(
    checkpoint: &Checkpoint,
    metadata: &Metadata,
) -> Result<Vec<File>, ConfigError> {
    const FIELDS: [&str; 10] = [
        "n_vocab",
        "n_audio_ctx",
        "n_audio_state",
        "n_audio_head",
        "n_audio_layer",
        "n_text_ctx",
        "n_text_state",
        "n_text_head",
        "n_text_layer",
        "n_mels",
    ];
    let mut config = json!({
        "model_type": "whisper",
        "architectures": ["WhisperForConditionalGeneration"],
    });
    for field in FIELDS {
        config[field] = Value::from(metadata.get::<usize>(field)?);
    }
    let (words, positions): (usize, usize) =
        (metadata.get("n_vocab")?, metadata.get("n_audio_ctx")?);
    let mut tokens: Vec<String> = metadata.get("tokenizer.ggml.tokens")?;
    // Converters of Hugging Face's checkpoints write the end of a text too.
    if tokens.last().is_some_and(|token| token == END) {
        tokens.pop();
    }
    let fixed = 2 + TASKS.len() + positions + 1;
    let languages = words
        .checked_sub(tokens.len())
        .and_then(|left| left.checked_sub(fixed));
    let languages = languages.filter(|count| *count <= LANGUAGES.len()).ok_or_else(|| {
        let reason = format!(
            "{words} tokens are not the {} of the file's vocabulary with the special ones and {positions} timestamps",
            tokens.len()
        );
        ConfigError::within("the file's header", "n_vocab", reason)
    })?;
    let mut names = vec![END.to_owned(), "<|startoftranscript|>".to_owned()];
    names.extend(
        LANGUAGES[..languages]
            .iter()
            .map(|code| format!("<|{code}|>")),
    );
    names.extend(TASKS.map(str::to_owned));
    names.extend((0..=positions).map(|step| format!("<|{:.2}|>", step as f64 * STEP)));
    let special: Vec<Special> = names.into_iter().zip(tokens.len() as u32..).collect();
    let id = |name: &str| {
        special
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, id)| *id)
    };
    let named = |name: &&(String, u32)| !name.0.contains('.') && name.0 != END;
    let control = special.iter().filter(named).map(|(_, id)| *id);
    let blank = tokens
        .iter()
        .position(|token| token == SPACE)
        .map(|id| id as u32);
    let generation = json!({
        "decoder_start_token_id": id("<|startoftranscript|>"),
        "eos_token_id": id(END),
        "pad_token_id": id(END),
        "no_timestamps_token_id": id("<|notimestamps|>"),
        "prev_sot_token_id": id("<|startofprev|>"),
        "max_initial_timestamp_index": 50,
        "is_multilingual": tokens.len() != ENGLISH,
        "lang_to_id": special[2..2 + languages].iter().map(|(name, id)| (name.clone(), Value::from(*id))).collect::<Map<_, _>>(),
        "task_to_id": {"translate": id("<|translate|>"), "transcribe": id("<|transcribe|>")},
        "suppress_tokens": control.collect::<Vec<u32>>(),
        "begin_suppress_tokens": blank.into_iter().chain(id(END)).collect::<Vec<u32>>(),
    });
    let is_time = |name: &str| name.contains('.');
    let tokenizer = byte_level(&tokens, None, &special, is_time);
    let mut files = vec![
        ("config.json", config),
        ("generation_config.json", generation),
        ("tokenizer.json", tokenizer),
    ];
    if let Some(filters) = checkpoint.get("mel_filters")
        && let [bins, spectrum] = filters.shape[..]
    {
        let frames = positions * 2;
        let processor = json!({
            "feature_extractor_type": "WhisperFeatureExtractor",
            "feature_size": bins,
            "n_fft": (spectrum.max(1) - 1) * 2,
            // A frame is a hundredth of a second.
            "chunk_length": frames / 100,
        });
        files.push(("preprocessor_config.json", processor));
    }
    Ok(files)
}
