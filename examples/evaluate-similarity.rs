//! Measures how well a model's vectors agree with people's scores of similarity.
//!
//! ```sh
//! cargo run --release --example evaluate-similarity -- --model DIR sts-test.csv
//! ```
//!
//! The file is the STS benchmark's: columns split by tabs, the score in the fifth, the two sentences in
//! the sixth and seventh. Prints Spearman's and Pearson's correlation with the cosine of the two vectors.
//! `--expect` compares the vectors with another implementation's: a safetensors file with the tensors
//! `first` and `second`, a row a pair.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use salamander::Device;
use salamander::importers::Checkpoint;
use salamander::tasks::TextEmbedding;

/// Measures the correlation of a model's vectors with people's scores.
#[derive(Parser)]
struct Arguments {
    /// The pairs of sentences with their scores
    #[arg(value_name = "CSV")]
    data: PathBuf,
    /// A model directory or a hub id
    #[arg(long)]
    model: PathBuf,
    /// flex, wgpu, cuda:0, …, or auto
    #[arg(long)]
    device: Option<String>,
    /// Compare with the vectors of another implementation
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
}

/// How many pairs are run together.
const BLOCK: usize = 128;

struct Pair {
    score: f64,
    first: String,
    second: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let device = match arguments.device {
        Some(name) => name.parse()?,
        None => Device::from_env()?,
    };
    let embed = TextEmbedding::open(&arguments.model, &device)?;
    let pairs = read(&arguments.data)?;

    let bar = ProgressBar::new(pairs.len() as u64);
    bar.set_style(ProgressStyle::with_template(
        "{bar:40} {pos}/{len} {per_sec} {eta} left",
    )?);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for block in pairs.chunks(BLOCK) {
        let texts = |side: fn(&Pair) -> &str| block.iter().map(side).collect::<Vec<_>>();
        first.extend(embed.run_batch(&texts(|pair| &pair.first))?);
        second.extend(embed.run_batch(&texts(|pair| &pair.second))?);
        bar.inc(block.len() as u64);
    }
    bar.finish_and_clear();

    let cosines: Vec<f64> = first
        .iter()
        .zip(&second)
        .map(|(a, b)| cosine(a, b))
        .collect();
    let scores: Vec<f64> = pairs.iter().map(|pair| pair.score).collect();
    println!("pairs    {} on {device}", pairs.len());
    println!("spearman {:.6}", pearson(&ranks(&cosines), &ranks(&scores)));
    println!("pearson  {:.6}", pearson(&cosines, &scores));

    if let Some(path) = arguments.expect {
        let expected = Checkpoint::open(&path)?;
        let mut distance: f32 = 0.0;
        for (name, found) in [("first", &first), ("second", &second)] {
            let entry = expected
                .get(name)
                .ok_or_else(|| format!("{}: no `{name}`", path.display()))?;
            let data = entry.read()?;
            let values = data.iter::<f32>();
            let found = found.iter().flatten();
            distance = found
                .zip(values)
                .map(|(a, b)| (a - b).abs())
                .fold(distance, f32::max);
        }
        println!("largest difference of a component {distance:.1e}");
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<Pair>, Box<dyn Error>> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut pairs = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let place = || format!("{}: line {}", path.display(), index + 1);
        let columns: Vec<&str> = line.split('\t').collect();
        let [_, _, _, _, score, first, second, ..] = columns[..] else {
            return Err(format!("{}: {} columns, not 7", place(), columns.len()).into());
        };
        pairs.push(Pair {
            score: score
                .parse()
                .map_err(|error| format!("{}: {error}", place()))?,
            first: first.to_owned(),
            second: second.to_owned(),
        });
    }
    Ok(pairs)
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(x, y)| f64::from(*x) * f64::from(*y))
            .sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        a.iter()
            .zip(b)
            .map(|(x, y)| f(x - mean_a, y - mean_b))
            .sum()
    };
    sum(&|x, y| x * y) / (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt()
}

/// Ranks, with the mean rank for equals.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let equals = order[start..]
            .iter()
            .take_while(|&&i| values[i] == values[order[start]]);
        let end = start + equals.count();
        for &index in &order[start..end] {
            ranks[index] = (start + end - 1) as f64 / 2.0;
        }
        start = end;
    }
    ranks
}
