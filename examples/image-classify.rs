//! Pictures in, labels out.
//!
//! ```sh
//! cargo run --release --example image-classify -- --model path/to/resnet-50 dog.jpg
//! cargo run --release --example image-classify -- --model resnet50.safetensors \
//!     --architecture torchvision/resnet50 dog.jpg
//! ```
//!
//! No image classifier comes with the repository yet, so `--model` is needed: a directory, or with
//! `--features hub` a hub id such as `microsoft/resnet-50`. With `--architecture` it may be weights without a
//! configuration.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::PathBuf;

use clap::Parser;
use salamander::Device;
use salamander::tasks::{ImageClassification, ImageClassificationOptions};

/// Says what pictures show.
#[derive(Parser)]
struct Arguments {
    /// The files: PNG, JPEG, WebP, GIF, BMP or TIFF
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// A model directory or a hub id
    #[arg(long)]
    model: PathBuf,
    /// The model's name in another library, for weights without a config.json
    #[arg(long)]
    architecture: Option<String>,
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
    let classify = match &arguments.architecture {
        Some(name) => ImageClassification::open_as(&arguments.model, name, &device)?,
        None => ImageClassification::open(&arguments.model, &device)?,
    };
    let classify = classify.with_options(ImageClassificationOptions {
        top_k: Some(5),
        ..ImageClassificationOptions::default()
    });
    let answers = classify.run_batch(&arguments.files)?;
    for (file, labels) in arguments.files.iter().zip(answers) {
        println!("{}", file.display());
        for label in labels {
            println!("  {:.4}  {}", label.score, label.name);
        }
    }
    println!("on {}", classify.device());
    Ok(())
}
