//! Pictures in, labels out.
//!
//! ```sh
//! cargo run --release --example image-classify
//! cargo run --release --example image-classify -- --model path/to/resnet-50 dog.jpg
//! cargo run --release --example image-classify -- --model resnet50.safetensors \
//!     --architecture torchvision/resnet50 dog.jpg
//! ```
//!
//! Without arguments it runs the classifier of CIFAR-10's ten classes that comes with the repository on the
//! sample pictures that come with it. `--model` takes a directory, or with `--features hub` a hub id such as
//! `microsoft/resnet-50`; with `--architecture` it may be weights without a configuration.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use salamander::Device;
use salamander::tasks::{ImageClassification, ImageClassificationOptions};

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/cifar10");
const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/cifar10/samples");

/// Says what pictures show.
#[derive(Parser)]
struct Arguments {
    /// The files: PNG, JPEG, WebP, GIF, BMP or TIFF; without any, the sample pictures
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// A model directory or a hub id
    #[arg(long, default_value = SHIPPED, hide_default_value = true)]
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
    let files = match arguments.files.is_empty() {
        true => samples()?,
        false => arguments.files,
    };
    let classify = match &arguments.architecture {
        Some(name) => ImageClassification::open_as(&arguments.model, name, &device)?,
        None => ImageClassification::open(&arguments.model, &device)?,
    };
    let classify = classify.with_options(ImageClassificationOptions {
        top_k: Some(3),
        ..ImageClassificationOptions::default()
    });
    let answers = classify.run_batch(&files)?;
    for (file, labels) in files.iter().zip(answers) {
        println!("{}", file.display());
        for label in labels {
            println!("  {:.4}  {}", label.score, label.name);
        }
    }
    println!("on {}", classify.device());
    Ok(())
}

/// The sample pictures, named relative to the working directory where they lie below it.
fn samples() -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let here = std::env::current_dir()?;
    let mut files = Vec::new();
    for entry in fs::read_dir(SAMPLES)? {
        let path = entry?.path();
        let short = path.strip_prefix(&here).map(Path::to_owned);
        files.push(short.unwrap_or(path));
    }
    files.sort();
    Ok(files)
}
