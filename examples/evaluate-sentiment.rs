//! Measures the accuracy of a text classifier on labelled sentences.
//!
//! ```sh
//! cargo run --release --example evaluate-sentiment -- dev.tsv
//! ```
//!
//! The file has a header, then a sentence, a tab and the number of its class on each line, as GLUE's SST-2
//! has. `--predictions` writes one JSON object a sentence, to be held against another implementation's;
//! `--expect` reads such a file and counts the sentences whose label differs.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use salamander::Device;
use salamander::tasks::{Label, TextClassification};

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/sentiment");

/// Measures the accuracy of a text classifier.
#[derive(Parser)]
struct Arguments {
    /// The labelled sentences
    #[arg(value_name = "TSV")]
    data: PathBuf,
    /// A model directory or a hub id
    #[arg(long, default_value = SHIPPED, hide_default_value = true)]
    model: PathBuf,
    /// flex, wgpu, cuda:0, …, or auto
    #[arg(long)]
    device: Option<String>,
    /// Write the answers here, one JSON object a line
    #[arg(long, value_name = "FILE")]
    predictions: Option<PathBuf>,
    /// Compare with the answers of another implementation, one JSON object with a `label` a line
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
}

/// How many sentences are run together.
const BLOCK: usize = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let device = match arguments.device {
        Some(name) => name.parse()?,
        None => Device::from_env()?,
    };
    let classify = TextClassification::open(&arguments.model, &device)?;
    let sentences = read(&arguments.data, classify.labels().len())?;

    let bar = ProgressBar::new(sentences.len() as u64);
    bar.set_style(ProgressStyle::with_template(
        "{bar:40} {pos}/{len} {per_sec} {eta} left",
    )?);
    let mut answers: Vec<Label> = Vec::new();
    for block in sentences.chunks(BLOCK) {
        let texts = block.iter().map(|(text, _)| text);
        answers.extend(
            classify
                .run_batch(texts)?
                .into_iter()
                .map(|mut labels| labels.swap_remove(0)),
        );
        bar.inc(block.len() as u64);
    }
    bar.finish_and_clear();

    let names = classify.labels();
    let pairs = sentences.iter().zip(&answers);
    let right = pairs
        .filter(|((_, class), answer)| names[*class] == answer.name)
        .count();
    let share = 100.0 * right as f64 / sentences.len().max(1) as f64;
    println!(
        "accuracy {share:.2} % ({right} of {}) on {device}",
        sentences.len()
    );

    if let Some(path) = arguments.predictions {
        let mut out = BufWriter::new(fs::File::create(path)?);
        for answer in &answers {
            writeln!(out, "{}", serde_json::to_string(answer)?)?;
        }
        out.flush()?;
    }
    if let Some(path) = arguments.expect {
        let text = fs::read_to_string(&path)?;
        let expected: Vec<serde_json::Value> = text
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?;
        if expected.len() != answers.len() {
            let (found, needed) = (expected.len(), answers.len());
            return Err(format!("{}: {found} answers, not {needed}", path.display()).into());
        }
        let pairs = expected.iter().zip(&answers);
        let differ = pairs
            .clone()
            .filter(|(e, a)| e["label"] != a.name[..])
            .count();
        let scores = pairs.filter_map(|(e, a)| Some((e["score"].as_f64()?, f64::from(a.score))));
        let distance = scores.map(|(e, a)| (e - a).abs()).fold(0.0, f64::max);
        println!("{differ} labels differ; largest difference of a score {distance:.1e}");
    }
    Ok(())
}

/// Sentences with the number of their class.
fn read(path: &Path, classes: usize) -> Result<Vec<(String, usize)>, Box<dyn Error>> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut sentences = Vec::new();
    for (index, line) in text.lines().enumerate().skip(1) {
        let place = || format!("{}: line {}", path.display(), index + 1);
        let (sentence, class) = line
            .rsplit_once('\t')
            .ok_or_else(|| format!("{}: no tab", place()))?;
        let class: usize = class
            .trim()
            .parse()
            .map_err(|error| format!("{}: {error}", place()))?;
        if class >= classes {
            return Err(format!("{}: class {class} of {classes}", place()).into());
        }
        sentences.push((sentence.to_owned(), class));
    }
    Ok(sentences)
}
