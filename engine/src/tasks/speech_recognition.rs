use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use salamander_models::processing::audio::{Features, LogMel, LogMelConfig};
use salamander_models::processing::text::TextTokenizer;
use salamander_models::whisper::{self, WhisperConfig, WhisperForConditionalGeneration};
use salamander_models::{ConfigError, detect, find};
use serde::Serialize;

use super::warm_up::warm_up;
use crate::generate::{
    GenerationConfig, Prompt, Recording, Request, SearchOptions, Segment, Transcriber,
    language_name, words,
};
use crate::{Audio, AudioWarning, Device, Error, Heard, ModelDir};

/// Whether speech is written in its own language or in English.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpeechTask {
    /// In its own.
    Transcribe,
    /// In English.
    Translate,
}

/// Options of [`SpeechRecognition`].
#[derive(Debug, Clone, PartialEq)]
pub struct SpeechRecognitionOptions {
    /// The language by its name or code; without it the first window tells.
    pub language: Option<String>,
    /// What to write; without it what the checkpoint says, or else a transcript.
    pub task: Option<SpeechTask>,
    /// Whether the model tells times. Without, a recording is one segment, and must fit one window.
    pub timestamps: bool,
    /// Whether segments tell the times of their words. The checkpoint's `generation_config.json` must say
    /// which attention heads show them, `alignment_heads`.
    pub word_timestamps: bool,
    /// How many sequences grow side by side at temperature 0; 1 is greedy.
    pub beams: usize,
    /// Above 0 longer beams win, below shorter ones.
    pub length_penalty: f32,
    /// Whether a beam search ends as soon as as many sequences as beams have ended.
    pub early_stopping: bool,
    /// Tried in order until an answer passes the thresholds; above 0 tokens are drawn.
    pub temperatures: Vec<f32>,
    /// Among how many tokens is drawn; 0 for all.
    pub top_k: usize,
    /// Tokens are drawn from the likeliest that make up this much together, 1 for all; without it what the
    /// checkpoint says, or else all.
    pub top_p: Option<f32>,
    /// By how much a token that the text has already is less likely, above 1, or more likely, below 1; without it
    /// what the checkpoint says, or else 1, which changes nothing. Timestamps are tokens, too.
    pub repetition_penalty: Option<f32>,
    /// How many tokens in a row do not come twice, counting the prompt; 0 for any. Without it what the checkpoint
    /// says, or else 0.
    pub no_repeat_ngram_size: Option<usize>,
    /// What the drawing starts from: the same seed gives the same text.
    pub seed: u64,
    /// An answer whose tokens compress better than this repeats itself and is tried again.
    pub compression_ratio_threshold: Option<f32>,
    /// An answer whose mean log-probability is below this is tried again.
    pub logprob_threshold: Option<f32>,
    /// Such an answer is silence if the model gives that this probability or more.
    pub no_speech_threshold: Option<f32>,
    /// Whether each window goes on from what was said before.
    pub condition_on_previous_text: bool,
    /// A text that stands before the first window: names, spelling, style.
    pub prompt: Option<String>,
    /// Whether the prompt stands before every window; needs `condition_on_previous_text`.
    pub prompt_every_window: bool,
    /// The most tokens of a window; by default as many as the model takes.
    pub max_new_tokens: Option<usize>,
}

impl Default for SpeechRecognitionOptions {
    /// The thresholds that the reference recommends for long recordings. [`SpeechRecognition::options`] of a model
    /// that has just been opened has those of its checkpoint instead, if that has any.
    fn default() -> Self {
        Self {
            language: None,
            task: None,
            timestamps: true,
            word_timestamps: false,
            beams: 1,
            length_penalty: 1.0,
            early_stopping: false,
            temperatures: vec![0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
            top_k: 50,
            top_p: None,
            repetition_penalty: None,
            no_repeat_ngram_size: None,
            seed: 0,
            compression_ratio_threshold: Some(1.35),
            logprob_threshold: Some(-1.0),
            no_speech_threshold: Some(0.6),
            condition_on_previous_text: false,
            prompt: None,
            prompt_every_window: false,
            max_new_tokens: None,
        }
    }
}

impl SpeechRecognitionOptions {
    fn check(&self) -> Result<(), Error> {
        let refuse = |name, reason: &str| {
            Err(Error::Option {
                name,
                reason: reason.to_owned(),
            })
        };
        if self.beams == 0 || self.beams > 64 {
            return refuse("beams", "is not between 1 and 64");
        }
        let wild = |value: &f32| !(0.0..=10.0).contains(value);
        if self.temperatures.is_empty() || self.temperatures.iter().any(wild) {
            return refuse("temperatures", "are not one or more between 0 and 10");
        }
        if !self.length_penalty.is_finite() {
            return refuse("length_penalty", "is not a number");
        }
        if self.no_speech_threshold.is_some() && self.logprob_threshold.is_none() {
            return refuse(
                "no_speech_threshold",
                "looks at answers below logprob_threshold; set that too",
            );
        }
        if self.prompt_every_window && !self.condition_on_previous_text {
            return refuse(
                "prompt_every_window",
                "needs condition_on_previous_text; without, it does so anyway",
            );
        }
        if self
            .repetition_penalty
            .is_some_and(|by| !(by.is_finite() && by > 0.0))
        {
            return refuse("repetition_penalty", "is not a number above 0");
        }
        if self
            .top_p
            .is_some_and(|share| !(0.0..=1.0).contains(&share))
        {
            return refuse("top_p", "is not between 0 and 1");
        }
        if self.max_new_tokens == Some(0) {
            return refuse("max_new_tokens", "is 0");
        }
        Ok(())
    }
}

/// A word of a segment; in languages without spaces, a character.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SpeechWord {
    /// Where it begins, in seconds.
    pub start: f64,
    /// Where it ends, in seconds.
    pub end: f64,
    /// The word, with the space before it and the punctuation around it.
    pub text: String,
}

/// A stretch of speech.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SpeechSegment {
    /// Where it begins, in seconds.
    pub start: f64,
    /// Where it ends, in seconds.
    pub end: f64,
    /// What is said.
    pub text: String,
    /// Its words, if their times were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<SpeechWord>,
    /// Its tokens, timestamps included.
    pub tokens: Vec<u32>,
    /// The temperature at which its window was decoded.
    pub temperature: f32,
    /// The mean log-probability of its window's tokens.
    pub mean_logprob: f32,
    /// How many times smaller its window's tokens become by compression.
    pub compression_ratio: f32,
    /// The probability that nobody speaks in its window; 0 without a threshold for it.
    pub no_speech_probability: f32,
}

/// What is said in a recording.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Transcript {
    /// All of it.
    pub text: String,
    /// The language's code, if the model has several.
    pub language: Option<String>,
    /// Its stretches, in order; one of which nothing is said is none.
    pub segments: Vec<SpeechSegment>,
    /// What of the sound file was not heard.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<AudioWarning>,
}

impl Transcript {
    /// As SubRip subtitles: one a segment; or one a word, if the words have times, since there can be no
    /// times within a subtitle.
    pub fn to_srt(&self) -> String {
        let mut out = String::new();
        let mut count = 0;
        let mut put = |start: f64, end: f64, text: &str| {
            let (start, end) = (clock(start, ','), clock(end, ','));
            let text = subtitle(&text.replace("-->", "->"));
            if text.is_empty() {
                return;
            }
            count += 1;
            // Writing to a string does not fail.
            let _ = write!(out, "{count}\n{start} --> {end}\n{text}\n\n");
        };
        for segment in &self.segments {
            if segment.words.is_empty() {
                put(segment.start, segment.end, &segment.text);
            }
            for word in &segment.words {
                put(word.start, word.end, &word.text);
            }
        }
        out
    }

    /// As WebVTT subtitles, one a segment. Words that have times begin with them, as in karaoke.
    pub fn to_vtt(&self) -> String {
        let mut out = String::from("WEBVTT\n\n");
        for segment in &self.segments {
            let (start, end) = (clock(segment.start, '.'), clock(segment.end, '.'));
            let text = subtitle(&segment.vtt_text());
            if segment.text.trim().is_empty() {
                continue;
            }
            let _ = write!(out, "{start} --> {end}\n{text}\n\n");
        }
        out
    }
}

impl SpeechSegment {
    /// The text in WebVTT's letters, with the times of words where they lie within the segment and go on.
    fn vtt_text(&self) -> String {
        let escape = |text: &str| {
            let text = text.replace('&', "&amp;");
            text.replace('<', "&lt;").replace('>', "&gt;")
        };
        if self.words.is_empty() {
            return escape(&self.text);
        }
        let mut latest = clock(self.start, '.');
        let end = clock(self.end, '.');
        let mut text = String::new();
        for word in &self.words {
            let bare = word.text.trim_start();
            let (space, _) = word.text.split_at(word.text.len() - bare.len());
            text.push_str(space);
            let time = clock(word.start, '.');
            // Equally long, so that they compare as texts.
            if latest < time && time < end {
                let _ = write!(text, "<{time}>");
                latest = time;
            }
            text.push_str(&escape(bare));
        }
        text
    }
}

/// An empty line would end the subtitle.
fn subtitle(text: &str) -> String {
    let lines = text.trim().lines().filter(|line| !line.trim().is_empty());
    lines.collect::<Vec<_>>().join("\n")
}

/// `00:01:02,345`
fn clock(seconds: f64, point: char) -> String {
    let milliseconds = (seconds.max(0.0) * 1000.0).round() as u64;
    let (seconds, milliseconds) = (milliseconds / 1000, milliseconds % 1000);
    let (minutes, seconds) = (seconds / 60, seconds % 60);
    let (hours, minutes) = (minutes / 60, minutes % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}{point}{milliseconds:03}")
}

/// How many recordings are transcribed side by side.
const BATCH: usize = 8;

/// How far a recording is transcribed.
#[derive(Debug, Clone, Copy)]
pub struct SpeechProgress<'a> {
    /// The seconds that are done.
    pub seconds: f64,
    /// The seconds there are.
    pub total: f64,
    /// The segments found since the last call.
    pub segments: &'a [SpeechSegment],
}

/// Writes what is said in a recording.
///
/// Reference: `WhisperForConditionalGeneration.generate` of transformers 5.23 with its sequential algorithm
/// for long recordings; words are those of its pipeline with `return_timestamps="word"` and
/// `return_language=True`. It departs in that padding after a short recording is not decoded, and that an
/// empty recording has an empty transcript.
#[derive(Debug, Clone)]
pub struct SpeechRecognition {
    model: Arc<WhisperForConditionalGeneration>,
    config: Arc<WhisperConfig>,
    generation: Arc<GenerationConfig>,
    tokenizer: Arc<TextTokenizer>,
    front_end: Arc<LogMel>,
    device: Device,
    options: SpeechRecognitionOptions,
}

impl SpeechRecognition {
    /// Opens a model directory, a hub id, or a `.bin` of whisper.cpp, whose vocabulary and mel filters are
    /// taken.
    ///
    /// A directory with nothing but weights and a `tokenizer.json` will do: OpenAI's `.pt` files hold the sizes,
    /// and what their package does by default is done.
    ///
    /// # Errors
    /// The model cannot be found, read or honoured, or is no speech recogniser.
    pub fn open(model: impl AsRef<Path>, device: &Device) -> Result<Self, Error> {
        let directory = ModelDir::find(model)?;
        let checkpoint = device.weights(directory.checkpoint()?);
        let json = directory.config_for(&checkpoint)?;
        let refuse = |field: &str, reason: String| {
            Error::config(directory.path())(ConfigError::new(field, reason))
        };
        let architecture =
            find(&directory.common_config(&json)?).map_err(Error::config(directory.path()))?;
        if architecture.name != whisper::ARCHITECTURE.name {
            let reason = format!("{} has no head for speech-recognition", architecture.name);
            return Err(refuse("model_type", reason));
        }
        let tokenizer = directory.tokenizer()?;
        let (model, config) = device.load(directory.path(), || {
            whisper::open(&json, &checkpoint, device.burn())
        })?;
        let settings = directory.json("generation_config.json")?;
        let mut generation = GenerationConfig::parse(settings.as_ref(), &json)
            .map_err(Error::config(directory.path()))?;
        generation.complete(&tokenizer);
        if settings.is_none() {
            let detected = detect(&checkpoint, &json);
            if detected.is_ok_and(|found| found.dialect == whisper::OPENAI) {
                generation.complete_as_openai(&tokenizer, config.max_source_positions)?;
            }
        }
        let audio = |source| Error::Audio {
            directory: directory.path().to_owned(),
            source,
        };
        let processor = match directory.json("preprocessor_config.json")? {
            Some(json) => Some(json),
            // Newer checkpoints keep all processors in one file.
            None => directory
                .json("processor_config.json")?
                .and_then(|mut json| json.get_mut("feature_extractor").map(|part| part.take())),
        };
        let front_end = match processor {
            Some(json) => LogMelConfig::parse(&json).map_err(audio)?,
            None => {
                let defaults = LogMelConfig::default();
                let second = defaults.sampling_rate as usize / defaults.hop_length;
                LogMelConfig {
                    feature_size: config.num_mel_bins,
                    chunk_length: config.window_frames() / second,
                    ..defaults
                }
            }
        };
        let pairs = [
            ("num_mel_bins", config.num_mel_bins, front_end.feature_size),
            (
                "max_source_positions",
                config.window_frames(),
                front_end.window_frames(),
            ),
        ];
        for (field, network, processor) in pairs {
            if network != processor {
                let reason = format!(
                    "asks for {network} rows or frames, preprocessor_config.json makes {processor}"
                );
                return Err(refuse(field, reason));
            }
        }
        let mut front_end = LogMel::new(front_end).map_err(audio)?;
        if let Some(filters) = checkpoint.get("mel_filters") {
            let filters = filters.read()?;
            let rows: Vec<f32> = filters.iter::<f32>().collect();
            front_end = front_end.with_filters(&rows).map_err(audio)?;
        }
        let mut options = SpeechRecognitionOptions::default();
        let given = &generation;
        options.beams = given.num_beams.unwrap_or(options.beams);
        options.length_penalty = given.length_penalty.unwrap_or(options.length_penalty);
        options.early_stopping = given.early_stopping.unwrap_or(options.early_stopping);
        options.top_k = given.top_k.unwrap_or(options.top_k);
        options.condition_on_previous_text = given
            .condition_on_prev_tokens
            .unwrap_or(options.condition_on_previous_text);
        for (option, given) in [
            (
                &mut options.compression_ratio_threshold,
                given.compression_ratio_threshold,
            ),
            (&mut options.logprob_threshold, given.logprob_threshold),
            (&mut options.no_speech_threshold, given.no_speech_threshold),
        ] {
            *option = given.or(*option);
        }
        if let Err(Error::Option { name, reason }) = options.check() {
            let refused = ConfigError::within("generation_config.json", name, reason);
            return Err(Error::config(directory.path())(refused));
        }
        Ok(Self {
            model: Arc::new(model),
            config: Arc::new(config),
            generation: Arc::new(generation),
            tokenizer: Arc::new(tokenizer),
            front_end: Arc::new(front_end),
            device: device.clone(),
            options,
        })
    }

    /// The options: after [`SpeechRecognition::open`] the defaults with what the checkpoint's
    /// `generation_config.json` says of beams, thresholds, drawing and going on from what was said.
    pub fn options(&self) -> &SpeechRecognitionOptions {
        &self.options
    }

    /// The same model with other options.
    ///
    /// # Errors
    /// An option has a value that makes no sense.
    pub fn with_options(mut self, options: SpeechRecognitionOptions) -> Result<Self, Error> {
        options.check()?;
        self.options = options;
        Ok(self)
    }

    /// The samples a second that the model hears; other rates are converted.
    pub fn sampling_rate(&self) -> u32 {
        self.front_end.config().sampling_rate
    }

    /// Runs the network on a second of silence, so that a GPU has compiled and tuned its kernels before the first
    /// answer, and says how long that took.
    ///
    /// # Errors
    /// The device fails.
    pub fn warm_up(&self) -> Result<Duration, Error> {
        let options = SpeechRecognitionOptions {
            // Enough for the kernels of the prompt and of a step.
            max_new_tokens: Some(4),
            temperatures: vec![0.0],
            ..self.options.clone()
        };
        let rate = self.sampling_rate();
        let silence = Audio {
            samples: vec![0.0; rate as usize],
            rate,
        };
        let task = self.clone().with_options(options)?;
        warm_up(|| task.run_audio(&silence, |_| {}).map(drop))
    }

    /// The device that runs it.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Transcribes a sound file. What of it cannot be heard is among the transcript's warnings.
    ///
    /// # Errors
    /// The file cannot be read, or an option does not fit the model.
    pub fn run(&self, file: impl AsRef<Path>) -> Result<Transcript, Error> {
        let Heard { audio, warnings } = Audio::listen(file, self.sampling_rate())?;
        let transcript = self.run_audio(&audio, |_| {})?;
        Ok(Transcript {
            warnings,
            ..transcript
        })
    }

    /// Transcribes many sound files, several side by side; the answers come in their order, and are those that
    /// each file has alone.
    ///
    /// # Errors
    /// As [`SpeechRecognition::run`].
    pub fn run_batch<P: AsRef<Path>>(&self, files: &[P]) -> Result<Vec<Transcript>, Error> {
        let mut transcripts = Vec::with_capacity(files.len());
        for files in files.chunks(BATCH) {
            let (mut audios, mut warnings) = (Vec::new(), Vec::new());
            for file in files {
                let heard = Audio::listen(file, self.sampling_rate())?;
                audios.push(heard.audio);
                warnings.push(heard.warnings);
            }
            let found = self.run_audios(&audios, |_, _| ControlFlow::Continue(()))?;
            let found = found.into_iter().zip(warnings);
            transcripts.extend(found.map(|(transcript, warnings)| Transcript {
                warnings,
                ..transcript
            }));
        }
        Ok(transcripts)
    }

    /// Transcribes a waveform, and tells of segments as they are found.
    ///
    /// An hour takes some 350 MB beside the model: its samples, and its frames of 80 bins.
    ///
    /// # Errors
    /// An option does not fit the model.
    pub fn run_audio(
        &self,
        audio: &Audio,
        mut progress: impl FnMut(SpeechProgress<'_>),
    ) -> Result<Transcript, Error> {
        self.run_audio_while(audio, |found| {
            progress(found);
            ControlFlow::Continue(())
        })
    }

    /// The same, but it ends where `progress` says so, with what has been said until then. It is asked after
    /// each window.
    ///
    /// # Errors
    /// As [`SpeechRecognition::run_audio`].
    pub fn run_audio_while(
        &self,
        audio: &Audio,
        mut progress: impl FnMut(SpeechProgress<'_>) -> ControlFlow<()>,
    ) -> Result<Transcript, Error> {
        let audios = std::slice::from_ref(audio);
        let mut transcripts = self.run_audios(audios, |_, found| progress(found))?;
        Ok(transcripts.swap_remove(0))
    }

    /// Transcribes waveforms side by side, and tells of segments as they are found, with the waveform's index,
    /// until it is told to break.
    fn run_audios(
        &self,
        audios: &[Audio],
        mut progress: impl FnMut(usize, SpeechProgress<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<Transcript>, Error> {
        let mut transcripts = vec![Transcript::default(); audios.len()];
        let mut heard = Vec::new();
        for (index, audio) in audios.iter().enumerate() {
            if !audio.samples.is_empty() {
                heard.push((index, self.features(audio)?));
            }
        }
        let recordings: Vec<Recording<'_>> = heard
            .iter()
            .map(|(_, (features, content))| Recording {
                features,
                content: *content,
            })
            .collect();
        let transcriber = Transcriber {
            model: &self.model,
            config: &self.config,
            generation: &self.generation,
            device: &self.device,
        };
        let request = self.request()?;
        self.device.attempt(|| {
            transcriber.run(&recordings, &request, |row, found, language, seconds| {
                let index = heard[row].0;
                let total = audios[index].seconds();
                let language = language.and_then(|id| self.language(id));
                let transcript = &mut transcripts[index];
                transcript.language = language.map(str::to_owned);
                let segments = &mut transcript.segments;
                let first = segments.len();
                for segment in found {
                    let segment = self.segment(segment, language, total)?;
                    // Silence has times and no words.
                    if !segment.text.trim().is_empty() {
                        segments.push(segment);
                    }
                }
                let segments = &segments[first..];
                let seconds = seconds.min(total);
                let found = SpeechProgress {
                    seconds,
                    total,
                    segments,
                };
                Ok(progress(index, found))
            })
        })?;
        for transcript in &mut transcripts {
            transcript.text = transcript.segments.iter().map(|s| &s.text[..]).collect();
            transcript.text = transcript.text.trim().to_owned();
        }
        Ok(transcripts)
    }

    /// The frames of a waveform, and how many of them are not padding.
    fn features(&self, audio: &Audio) -> Result<(Features, usize), Error> {
        let resampled;
        let samples = if audio.rate == self.sampling_rate() {
            &audio.samples
        } else {
            resampled = audio.clone().resampled(self.sampling_rate())?;
            &resampled.samples
        };
        let settings = self.front_end.config();
        let features = if samples.len() <= settings.window_samples() {
            self.front_end.window(samples)
        } else {
            self.front_end.frames(samples)
        };
        let features = features.map_err(|error| Error::Option {
            name: "audio",
            reason: error.to_string(),
        })?;
        Ok((features, samples.len().div_ceil(settings.hop_length)))
    }

    /// The code of the language whose token has that id.
    fn language(&self, id: u32) -> Option<&str> {
        let mut known = self.generation.lang_to_id.iter().flatten();
        let (token, _) = known.find(|(_, known)| **known == id)?;
        Some(token.trim_matches(['<', '|', '>']))
    }

    fn request(&self) -> Result<Request, Error> {
        let options = &self.options;
        let settings = &self.generation;
        // Left to itself, a model that the checkpoint says nothing of may choose to translate.
        let open = settings.is_multilingual != Some(false)
            && settings.task_to_id.is_some()
            && settings.task.is_none()
            && settings.forced_decoder_ids.is_none();
        let task = match options.task {
            Some(SpeechTask::Transcribe) => Some("transcribe"),
            Some(SpeechTask::Translate) => Some("translate"),
            None => open.then_some("transcribe"),
        };
        let prompt = match &options.prompt {
            None => None,
            Some(text) => {
                let start = settings.prev_sot_token_id.ok_or_else(|| Error::Option {
                    name: "prompt",
                    reason: "the checkpoint names no `prev_sot_token_id`".to_owned(),
                })?;
                let mut tokens = vec![start];
                tokens.extend(self.tokenizer.pieces(&format!(" {}", text.trim()))?);
                Some(Prompt {
                    tokens,
                    every: options.prompt_every_window,
                })
            }
        };
        Ok(Request {
            language: options.language.clone(),
            task,
            timestamps: options.timestamps,
            token_times: options.word_timestamps,
            max_new_tokens: options.max_new_tokens,
            search: SearchOptions {
                beams: options.beams,
                length_penalty: options.length_penalty,
                early_stopping: options.early_stopping,
                top_k: options.top_k,
                top_p: options.top_p.or(settings.top_p).unwrap_or(1.0),
            },
            repetition_penalty: options
                .repetition_penalty
                .or(settings.repetition_penalty)
                .unwrap_or(1.0),
            no_repeat_ngram_size: options
                .no_repeat_ngram_size
                .or(settings.no_repeat_ngram_size)
                .unwrap_or(0),
            temperatures: options.temperatures.clone(),
            seed: options.seed,
            compression_ratio: options.compression_ratio_threshold,
            logprob: options.logprob_threshold,
            no_speech: options.no_speech_threshold,
            condition: options.condition_on_previous_text,
            prompt,
        })
    }

    fn segment(
        &self,
        segment: &Segment,
        language: Option<&str>,
        total: f64,
    ) -> Result<SpeechSegment, Error> {
        // Everything from the end of text on is a mark, not a word.
        let end = self.generation.eos_token_id.unwrap_or(u32::MAX);
        let is_text = |token: &u32| *token < end;
        let tokens: Vec<u32> = segment.tokens.iter().copied().filter(is_text).collect();
        let mut timed = Vec::new();
        if !segment.times.is_empty() {
            let places = segment.tokens.iter().enumerate();
            let places = places.filter(|(_, token)| is_text(token));
            let places: Vec<usize> = places.map(|(place, _)| place).collect();
            let time = |place: usize| (segment.times[place] * 100.0).round() / 100.0;
            for word in words(&tokens, language, |ids| self.tokenizer.decode(ids, false))? {
                let (first, last) = (places[word.tokens.start], places[word.tokens.end - 1]);
                timed.push(SpeechWord {
                    // A token begins where the one before it ends.
                    start: if first == 0 {
                        segment.start
                    } else {
                        time(first - 1)
                    },
                    end: time(last),
                    text: word.text,
                });
            }
        }
        Ok(SpeechSegment {
            start: segment.start.min(total),
            end: segment.end.min(total),
            text: self.tokenizer.decode(&tokens, true)?,
            words: timed,
            tokens: segment.tokens.clone(),
            temperature: segment.temperature,
            mean_logprob: segment.mean_logprob,
            compression_ratio: segment.compression_ratio,
            no_speech_probability: segment.no_speech,
        })
    }
}

/// The English name of a language by its code.
pub fn speech_language(code: &str) -> Option<&'static str> {
    language_name(code)
}

#[cfg(test)]
mod tests {
    use super::{SpeechSegment, SpeechWord, Transcript, clock};

    fn transcript(text: &str, words: &[(f64, f64, &str)]) -> Transcript {
        let words = words.iter().map(|&(start, end, text)| SpeechWord {
            start,
            end,
            text: text.to_owned(),
        });
        Transcript {
            text: String::new(),
            language: None,
            warnings: Vec::new(),
            segments: vec![SpeechSegment {
                start: 0.0,
                end: 1.5,
                text: text.to_owned(),
                words: words.collect(),
                tokens: Vec::new(),
                temperature: 0.0,
                mean_logprob: 0.0,
                compression_ratio: 1.0,
                no_speech_probability: 0.0,
            }],
        }
    }

    #[test]
    fn subtitles_have_clocks_and_no_stray_arrows() {
        assert_eq!(clock(3_725.5, ','), "01:02:05,500");
        assert_eq!(clock(0.999_6, '.'), "00:00:01.000");
        let transcript = transcript(" one --> two\n\nthree & <4>", &[]);
        assert_eq!(
            transcript.to_srt(),
            "1\n00:00:00,000 --> 00:00:01,500\none -> two\nthree & <4>\n\n"
        );
        assert_eq!(
            transcript.to_vtt(),
            "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\n\
             one --&gt; two\nthree &amp; &lt;4&gt;\n\n"
        );
    }

    #[test]
    fn silence_has_no_subtitle() {
        let mut silent = transcript(" ", &[]);
        assert_eq!(silent.to_srt(), "");
        assert_eq!(silent.to_vtt(), "WEBVTT\n\n");
        // The numbers of those that are there have no gap.
        silent.segments.extend(transcript(" one", &[]).segments);
        assert!(silent.to_srt().starts_with("1\n"), "{}", silent.to_srt());
        assert_eq!(silent.to_srt().matches("-->").count(), 1);
        assert_eq!(silent.to_vtt().matches("-->").count(), 1);
        let words = transcript(" a", &[(0.0, 0.1, " "), (0.1, 0.2, " a")]);
        assert_eq!(words.to_srt().matches("-->").count(), 1);
    }

    #[test]
    fn subtitles_of_words_tell_their_times() {
        let words = [
            (0.0, 0.5, " one"),
            (0.5, 0.5, " <"),
            (0.5, 1.0, "two"),
            (0.4, 1.6, "\n"),
            (1.6, 1.7, " three"),
        ];
        let transcript = transcript(" one <two\n three", &words);
        assert_eq!(
            transcript.to_srt().lines().take(7).collect::<Vec<_>>(),
            [
                "1",
                "00:00:00,000 --> 00:00:00,500",
                "one",
                "",
                "2",
                "00:00:00,500 --> 00:00:00,500",
                "<"
            ]
        );
        assert_eq!(
            transcript.to_vtt(),
            "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\n\
             one <00:00:00.500>&lt;two\n three\n\n"
        );
    }
}
