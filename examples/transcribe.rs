//! Speech in, text with times out.
//!
//! ```sh
//! cargo run --release --example transcribe -- --model DIR speech.flac
//! ```
//!
//! `--model` takes a Whisper's directory, or with `--features hub` a hub id such as `openai/whisper-tiny`.
//! A small model that ships with the repository comes later.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::PathBuf;

use clap::Parser;
use salamander::tasks::{SpeechRecognition, SpeechRecognitionOptions};
use salamander::{Audio, Device};

/// Writes what is said in a sound file.
#[derive(Parser)]
struct Arguments {
    /// A WAV, FLAC, MP3, OGG or M4A file
    file: PathBuf,
    /// A model directory or a hub id
    #[arg(long)]
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
