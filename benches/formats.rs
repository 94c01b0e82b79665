//! Times reading weights, a JSON line a run; `tools/bench/formats.py` makes the files and sets the times against
//! the reference libraries'.
//!
//! ```sh
//! cargo bench --bench formats -- load MODEL
//! ```
//!
//! With a file it is measured once. Without, each line of standard input starts a run, so that a driver can take
//! turns between this program and another. Without a subcommand it loads the model that comes with the repository.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::fs::File;
use std::io::{Read, Write, stdin, stdout};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Parser, Subcommand};
use salamander::importers::Checkpoint;
use salamander::{Device, Network};
use serde_json::json;

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/sentiment");

/// Times reading weights on the CPU.
#[derive(Parser)]
#[command(name = "formats")]
struct Arguments {
    #[command(subcommand)]
    work: Option<Work>,
}

#[derive(Subcommand)]
enum Work {
    /// Opens a model directory as a network, and touches every page of its weights
    Load { model: PathBuf },
    /// Reads every tensor of a weight file, dequantized where it is quantized
    Read { file: PathBuf },
    /// Reads a file's bytes, as the least that reading can take
    Bytes { file: PathBuf },
}

fn main() -> Result<(), Box<dyn Error>> {
    // Cargo itself asks for benchmarks with `--bench`.
    let own = std::env::args().filter(|argument| argument != "--bench");
    let arguments = Arguments::parse_from(own);
    let work = arguments.work.unwrap_or(Work::Load {
        model: SHIPPED.into(),
    });
    let mut line = String::new();
    let mut first = true;
    while first || stdin().read_line(&mut line)? > 0 {
        first = false;
        let begin = Instant::now();
        let bytes = match &work {
            Work::Load { model } => load(model)?,
            Work::Read { file } => read(file)?,
            Work::Bytes { file } => bytes(file)?,
        };
        let seconds = begin.elapsed().as_secs_f64();
        println!("{}", json!({"seconds": seconds, "bytes": bytes}));
        stdout().flush()?;
        line.clear();
    }
    Ok(())
}

fn load(model: &Path) -> Result<usize, Box<dyn Error>> {
    let network = Network::open(model, None, &Device::from_env()?)?;
    // A mapped tensor is not read before it is used: what is timed is to have read it.
    let touched = touch(&Checkpoint::open(model)?)?;
    drop(network);
    Ok(touched)
}

fn read(file: &Path) -> Result<usize, Box<dyn Error>> {
    touch(&Checkpoint::open(file)?)
}

/// Reads a byte of every page of every tensor.
fn touch(checkpoint: &Checkpoint) -> Result<usize, Box<dyn Error>> {
    let (mut total, mut sum) = (0, 0u64);
    for (_, entry) in checkpoint.iter() {
        let data = entry.read()?;
        let bytes = data.as_bytes();
        total += bytes.len();
        sum += bytes
            .iter()
            .step_by(4096)
            .map(|byte| u64::from(*byte))
            .sum::<u64>();
    }
    std::hint::black_box(sum);
    Ok(total)
}

fn bytes(file: &Path) -> Result<usize, Box<dyn Error>> {
    let mut file = File::open(file)?;
    let mut all = Vec::with_capacity(usize::try_from(file.metadata()?.len())?);
    file.read_to_end(&mut all)?;
    Ok(std::hint::black_box(all).len())
}
