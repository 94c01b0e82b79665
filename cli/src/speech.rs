//! `salamander run speech-recognition`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use salamander::tasks::{
    SpeechRecognition, SpeechRecognitionOptions, SpeechTask, SpeechWord, Transcript,
};
use salamander::{Audio, Heard};
use serde::Serialize;

use crate::output::{BadInputs, json_line, remark};
use crate::{DeviceArgument, Failure};

#[derive(Args)]
pub(crate) struct Transcribe {
    /// The sound files: WAV, FLAC, MP3, OGG, Opus, WebM, AIFF or M4A; - for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// A model directory, or a hub id `owner/name[@revision]`
    #[arg(long, value_name = "DIR|ID")]
    model: PathBuf,
    #[command(flatten)]
    device: DeviceArgument,
    /// Print one JSON object a file
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// How to print
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// The language by name or code; by default the first window tells
    #[arg(long)]
    language: Option<String>,
    /// Write English, whatever is spoken
    #[arg(long)]
    translate: bool,
    /// How many sequences grow side by side, 1 is greedy; by default what the model says, or 1
    #[arg(long)]
    beams: Option<usize>,
    /// A temperature; may be given several times, to be tried in order
    #[arg(long, value_name = "NUMBER")]
    temperature: Vec<f32>,
    /// What drawing at a temperature starts from
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// A text to stand before the recording: names, spelling, style
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Let each window go on from what was said before
    #[arg(long)]
    condition_on_previous_text: bool,
    /// Ask for no times; the recording must fit one window
    #[arg(long)]
    no_timestamps: bool,
    /// Tell when each word begins and ends, in seconds: one a line, one an SRT subtitle, inside VTT's
    #[arg(long)]
    word_timestamps: bool,
    /// Try an answer again whose tokens compress better than this, or never: none
    #[arg(long, value_name = "RATIO|none", value_parser = threshold)]
    compression_ratio_threshold: Option<Threshold>,
    /// Try an answer again whose mean log-probability is below this, or never: none
    #[arg(long, value_name = "NUMBER|none", value_parser = threshold, allow_hyphen_values = true)]
    logprob_threshold: Option<Threshold>,
    /// Take such an answer for silence if the model gives that this probability; or never: none
    #[arg(long, value_name = "PROBABILITY|none", value_parser = threshold)]
    no_speech_threshold: Option<Threshold>,
    /// Make tokens that the text has already less likely, above 1; by default what the model says
    #[arg(long, value_name = "NUMBER")]
    repetition_penalty: Option<f32>,
    /// Let no group of so many tokens come twice; by default what the model says
    #[arg(long, value_name = "TOKENS")]
    no_repeat_ngram_size: Option<usize>,
    /// Among how many tokens to draw at a temperature, 0 for all; by default what the model says, or 50
    #[arg(long, value_name = "TOKENS")]
    top_k: Option<usize>,
    /// Draw from the likeliest tokens that make up this much together; by default what the model says
    #[arg(long, value_name = "PROBABILITY")]
    top_p: Option<f32>,
    /// The most tokens of a window
    #[arg(long, value_name = "TOKENS")]
    max_new_tokens: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Srt,
    Vtt,
}

/// A number, or none at all.
#[derive(Clone, Copy)]
struct Threshold(Option<f32>);

fn threshold(text: &str) -> Result<Threshold, String> {
    if text == "none" {
        return Ok(Threshold(None));
    }
    let number = text.parse().ok().filter(|number: &f32| number.is_finite());
    let number = number.ok_or("is neither a number nor none")?;
    Ok(Threshold(Some(number)))
}

#[derive(Serialize)]
struct Transcribed<'a> {
    file: &'a str,
    #[serde(flatten)]
    transcript: &'a Transcript,
}

impl Transcribe {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let device = self.device.open()?;
        remark(&format!("{} on {device}", self.model.display()));
        let task = SpeechRecognition::open(&self.model, &device)?;
        let words = self.word_timestamps;
        let defaults = task.options().clone();
        let or = |given: Option<Threshold>, default| given.map_or(default, |given| given.0);
        let logprob_threshold = or(self.logprob_threshold, defaults.logprob_threshold);
        let no_speech_threshold = match self.no_speech_threshold {
            // It says something of answers below the other only.
            None => defaults
                .no_speech_threshold
                .filter(|_| logprob_threshold.is_some()),
            Some(given) => given.0,
        };
        let options = SpeechRecognitionOptions {
            language: self.language.clone(),
            task: self.translate.then_some(SpeechTask::Translate),
            timestamps: !self.no_timestamps,
            word_timestamps: words,
            beams: self.beams.unwrap_or(defaults.beams),
            temperatures: if self.temperature.is_empty() {
                defaults.temperatures.clone()
            } else {
                self.temperature.clone()
            },
            seed: self.seed,
            compression_ratio_threshold: or(
                self.compression_ratio_threshold,
                defaults.compression_ratio_threshold,
            ),
            logprob_threshold,
            no_speech_threshold,
            repetition_penalty: self.repetition_penalty,
            no_repeat_ngram_size: self.no_repeat_ngram_size,
            top_k: self.top_k.unwrap_or(defaults.top_k),
            top_p: self.top_p,
            prompt: self.prompt.clone(),
            condition_on_previous_text: self.condition_on_previous_text
                || defaults.condition_on_previous_text,
            max_new_tokens: self.max_new_tokens,
            ..defaults
        };
        let task = task.with_options(options)?;
        let mut bad = BadInputs::new(self.json);
        for file in &self.files {
            let Err(failure) = self.transcribe(&task, file) else {
                continue;
            };
            // What is wrong with a file says nothing of the others.
            if !matches!(
                failure.downcast_ref(),
                Some(salamander::Error::AudioFile(_) | salamander::Error::Option { .. })
            ) {
                return Err(failure);
            }
            let file = file.to_string_lossy();
            bad.add(&mut io::stdout().lock(), &file, failure.as_ref())?;
        }
        bad.finish(self.files.len())
    }

    fn transcribe(&self, task: &SpeechRecognition, file: &Path) -> Result<(), Failure> {
        let (words, several) = (self.word_timestamps, self.files.len() > 1);
        let heard = match file == Path::new("-") {
            true => Audio::from_reader("standard input", io::stdin().lock(), task.sampling_rate()),
            false => Audio::listen(file, task.sampling_rate()),
        };
        let Heard { audio, warnings } = heard.map_err(salamander::Error::from)?;
        let bar = ProgressBar::new(audio.seconds().ceil() as u64);
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} s {eta} left") {
            bar.set_style(style);
        }
        let plain = !self.json && self.format == Format::Text;
        let mut printed = Ok(());
        if plain && several {
            writeln!(io::stdout(), "{}", file.display())?;
        }
        let transcript = task.run_audio(&audio, |progress| {
            bar.set_position(progress.seconds as u64);
            if plain && printed.is_ok() {
                let mut out = io::stdout().lock();
                printed = bar.suspend(|| {
                    for segment in progress.segments {
                        if words {
                            let spoken = segment.words.iter().filter(|w| !w.text.trim().is_empty());
                            for SpeechWord { start, end, text } in spoken {
                                writeln!(out, "{start:>8.2} {end:>8.2}  {}", text.trim())?;
                            }
                        } else {
                            writeln!(out, "{}", segment.text.trim())?;
                        }
                    }
                    out.flush()
                });
            }
        })?;
        bar.finish_and_clear();
        printed?;
        let transcript = Transcript {
            warnings,
            ..transcript
        };
        let mut out = io::stdout().lock();
        if self.json {
            let file = file.to_string_lossy();
            json_line(
                &mut out,
                &Transcribed {
                    file: &file,
                    transcript: &transcript,
                },
            )?;
        } else {
            match self.format {
                Format::Text => {}
                Format::Srt => write!(out, "{}", transcript.to_srt())?,
                Format::Vtt => write!(out, "{}", transcript.to_vtt())?,
            }
        }
        out.flush()?;
        Ok(())
    }
}
