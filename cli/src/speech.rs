//! `salamander run speech-recognition`.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use salamander::Audio;
use salamander::tasks::{
    SpeechRecognition, SpeechRecognitionOptions, SpeechTask, SpeechWord, Transcript,
};
use serde::Serialize;

use crate::output::{json_line, remark};
use crate::{DeviceArgument, Failure};

#[derive(Args)]
pub(crate) struct Transcribe {
    /// The sound files: WAV, FLAC, MP3, OGG or M4A
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
    /// How many sequences grow side by side; 1 is greedy
    #[arg(long, default_value_t = 1)]
    beams: usize,
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
        let words = self.word_timestamps;
        let defaults = SpeechRecognitionOptions::default();
        let options = SpeechRecognitionOptions {
            language: self.language,
            task: self.translate.then_some(SpeechTask::Translate),
            timestamps: !self.no_timestamps,
            word_timestamps: words,
            beams: self.beams,
            temperatures: if self.temperature.is_empty() {
                defaults.temperatures.clone()
            } else {
                self.temperature
            },
            seed: self.seed,
            prompt: self.prompt,
            condition_on_previous_text: self.condition_on_previous_text,
            max_new_tokens: self.max_new_tokens,
            ..defaults
        };
        let task = SpeechRecognition::open(&self.model, &device)?.with_options(options)?;
        let several = self.files.len() > 1;
        for file in &self.files {
            let audio = Audio::open(file, task.sampling_rate())?;
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
                                for SpeechWord { start, end, text } in &segment.words {
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
        }
        Ok(())
    }
}
