//! Measures the word error rate of a speech recogniser on recordings with transcripts.
//!
//! ```sh
//! cargo run --release --example evaluate-speech -- recordings/
//! ```
//!
//! The folder has the recordings and a `transcripts.tsv`: on each line a file's name, a tab and what is said
//! in it, and perhaps another tab and the name of the group it belongs to. Before words are compared, texts
//! are lower-cased and whatever is neither letter, digit nor apostrophe parts words.
//!
//! `--predictions` writes one JSON object a recording, to be held against another implementation's; `--expect`
//! reads such a file and counts the recordings whose tokens differ.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use salamander::Device;
use salamander::tasks::{SpeechRecognition, SpeechRecognitionOptions};
use serde::{Deserialize, Serialize};

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/speech");

/// Measures the word error rate of a speech recogniser.
#[derive(Parser)]
struct Arguments {
    /// The recordings and their transcripts.tsv
    folder: PathBuf,
    /// A model directory or a hub id
    #[arg(long, default_value = SHIPPED, hide_default_value = true)]
    model: PathBuf,
    /// The language by name or code; by default the first window of each recording tells
    #[arg(long)]
    language: Option<String>,
    /// flex, wgpu, cuda:0, …, or auto
    #[arg(long)]
    device: Option<String>,
    /// Write the answers here, one JSON object a line
    #[arg(long, value_name = "FILE")]
    predictions: Option<PathBuf>,
    /// Compare with the answers of another implementation, one JSON object with `file` and `tokens` a line
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
}

/// How many recordings are run together.
const BLOCK: usize = 8;

/// A line of `transcripts.tsv`.
struct Recording {
    file: String,
    words: Vec<String>,
    group: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    file: String,
    text: String,
    tokens: Vec<u32>,
}

/// Words of transcripts, and how many of them were heard wrong.
#[derive(Default)]
struct Count {
    recordings: usize,
    words: usize,
    errors: usize,
}

impl Count {
    fn add(&mut self, words: usize, errors: usize) {
        self.recordings += 1;
        self.words += words;
        self.errors += errors;
    }

    fn rate(&self) -> f64 {
        100.0 * self.errors as f64 / self.words.max(1) as f64
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let device = match arguments.device {
        Some(name) => name.parse()?,
        None => Device::from_env()?,
    };
    // No drawing of tokens: an answer is the same every time and everywhere.
    let options = SpeechRecognitionOptions {
        language: arguments.language,
        temperatures: vec![0.0],
        compression_ratio_threshold: None,
        logprob_threshold: None,
        no_speech_threshold: None,
        ..SpeechRecognitionOptions::default()
    };
    let transcribe = SpeechRecognition::open(&arguments.model, &device)?.with_options(options)?;
    let recordings = read(&arguments.folder.join("transcripts.tsv"))?;

    let bar = ProgressBar::new(recordings.len() as u64);
    bar.set_style(ProgressStyle::with_template(
        "{bar:40} {pos}/{len} {per_sec} {eta} left {msg}",
    )?);
    let mut answers: Vec<Answer> = Vec::new();
    let mut all = Count::default();
    let mut groups: BTreeMap<&str, Count> = BTreeMap::new();
    for block in recordings.chunks(BLOCK) {
        let paths = block.iter().map(|r| arguments.folder.join(&r.file));
        let transcripts = transcribe.run_batch(&paths.collect::<Vec<_>>())?;
        for (recording, transcript) in block.iter().zip(transcripts) {
            let errors = distance(&words(&transcript.text), &recording.words);
            all.add(recording.words.len(), errors);
            if let Some(group) = &recording.group {
                let count = groups.entry(group).or_default();
                count.add(recording.words.len(), errors);
            }
            let segments = transcript.segments.iter();
            answers.push(Answer {
                file: recording.file.clone(),
                tokens: segments.flat_map(|s| s.tokens.clone()).collect(),
                text: transcript.text,
            });
        }
        bar.inc(block.len() as u64);
        bar.set_message(format!("{:.2} % of words wrong", all.rate()));
    }
    bar.finish_and_clear();

    for (group, count) in &groups {
        let (rate, errors, words) = (count.rate(), count.errors, count.words);
        let recordings = count.recordings;
        println!("{group}: {rate:.2} % ({errors} of {words} words, {recordings} recordings)");
    }
    let (rate, errors, words) = (all.rate(), all.errors, all.words);
    let recordings = all.recordings;
    println!(
        "word error rate {rate:.2} % ({errors} of {words} words, {recordings} recordings) on {device}"
    );

    if let Some(path) = arguments.predictions {
        let mut out = BufWriter::new(fs::File::create(path)?);
        for answer in &answers {
            writeln!(out, "{}", serde_json::to_string(answer)?)?;
        }
        out.flush()?;
    }
    if let Some(path) = arguments.expect {
        let text =
            fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut expected: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for line in text.lines() {
            let answer: Answer = serde_json::from_str(line)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            expected.insert(answer.file, answer.tokens);
        }
        let mut differ = 0;
        for answer in &answers {
            let Some(tokens) = expected.get(&answer.file) else {
                return Err(format!("{}: lacks {}", path.display(), answer.file).into());
            };
            if *tokens != answer.tokens {
                differ += 1;
                println!("{}: {:?} for {tokens:?}", answer.file, answer.tokens);
            }
        }
        println!("{differ} of {} recordings differ", answers.len());
    }
    Ok(())
}

/// The lines of a `transcripts.tsv`.
fn read(path: &Path) -> Result<Vec<Recording>, Box<dyn Error>> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut recordings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut fields = line.split('\t');
        let (Some(file), Some(said)) = (fields.next(), fields.next()) else {
            return Err(format!("{}: line {}: no tab", path.display(), index + 1).into());
        };
        recordings.push(Recording {
            file: file.to_owned(),
            words: words(said),
            group: fields.next().map(str::to_owned),
        });
    }
    Ok(recordings)
}

/// The words of a text, in lower case and without punctuation.
fn words(text: &str) -> Vec<String> {
    let text = text.to_lowercase();
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '\'');
    words
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The fewest words to insert, to drop or to change that make `found` into `expected`.
fn distance(found: &[String], expected: &[String]) -> usize {
    let mut row: Vec<usize> = (0..=found.len()).collect();
    for (done, word) in expected.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = done + 1;
        for (at, other) in found.iter().enumerate() {
            let changed = diagonal + usize::from(word != other);
            diagonal = row[at + 1];
            row[at + 1] = changed.min(diagonal + 1).min(row[at] + 1);
        }
    }
    row[found.len()]
}
