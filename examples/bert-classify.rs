//! Text in, label out.
//!
//! ```sh
//! cargo run --release --example bert-classify -- "a warm, funny, engaging film"
//! ```
//!
//! Without `--model` it runs the sentiment classifier that comes with the repository. `--model` takes a
//! directory, or with `--features hub` a hub id such as
//! `distilbert/distilbert-base-uncased-finetuned-sst-2-english`.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::PathBuf;

use clap::Parser;
use salamander::Device;
use salamander::tasks::TextClassification;

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/sentiment");

/// Says which classes a text belongs to.
#[derive(Parser)]
struct Arguments {
    /// The texts
    #[arg(required = true, value_name = "TEXT")]
    texts: Vec<String>,
    /// A model directory or a hub id
    #[arg(long, default_value = SHIPPED, hide_default_value = true)]
    model: PathBuf,
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
    let classify = TextClassification::open(&arguments.model, &device)?;
    let answers = classify.run_batch(&arguments.texts)?;
    for (text, labels) in arguments.texts.iter().zip(answers) {
        println!("{text}");
        for label in labels {
            println!("  {:<10} {:.4}", label.name, label.score);
        }
    }
    println!("on {}", classify.device());
    Ok(())
}
