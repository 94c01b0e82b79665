//! Speech in, text with times out.
//!
//! ```sh
//! cargo run --release --example transcribe
//! cargo run --release --example transcribe -- --model openai/whisper-tiny speech.flac
//! ```
//!
//! Without `--model` the small Whisper in `assets/speech`, which knows spoken numbers and household commands;
//! without a file a recording that lies there too. A hub id needs `--features hub`.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::PathBuf;

use clap::Parser;
use salamander::tasks::{SpeechRecognition, SpeechRecognitionOptions};
use salamander::{Audio, Device};

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/speech");
const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/speech/sample.flac");

/// Writes what is said in a sound file.
#[derive(Parser)]
struct Arguments {
    /// A WAV, FLAC, MP3, OGG or M4A file
    #[arg(default_value = SAMPLE, hide_default_value = true)]
    file: PathBuf,
    /// A model directory or a hub id
    #[arg(long, default_value = SHIPPED, hide_default_value = true)]
    model: PathBuf,
    /// The language by name or code; by default the first window tells
    #[arg(long)]
    language: Option<String>,
    /// flex, wgpu, cuda:0, …, or auto
    #[arg(long)]
    device: Option<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let device = match arguments.device {
        Some(name) => name.parse()?,
        None => Device::from_env()?,
    };
    let options = SpeechRecognitionOptions {
        language: arguments.language,
        ..SpeechRecognitionOptions::default()
    };
    let transcribe = SpeechRecognition::open(&arguments.model, &device)?.with_options(options)?;
    let audio = Audio::open(&arguments.file, transcribe.sampling_rate())?;
    // Segments are printed as they are found.
    let transcript = transcribe.run_audio(&audio, |progress| {
        for segment in progress.segments {
            println!(
                "[{:7.2} → {:7.2}] {}",
                segment.start,
                segment.end,
                segment.text.trim()
            );
        }
    })?;
    let language = transcript.language.as_deref().unwrap_or("en");
    println!(
        "{:.1} seconds of {language} on {}",
        audio.seconds(),
        transcribe.device()
    );
    Ok(())
}
