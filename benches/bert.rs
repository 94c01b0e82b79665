//! Times BERT, a JSON line a run; `tools/bench/bert.py` sets the times against PyTorch's.
//!
//! ```sh
//! cargo bench --bench bert -- forward --model DIR --batch 1 --sequence 128 --runs 5
//! ```
//!
//! With `--runs` it measures that many runs. Without, each line of standard input starts one, so that a
//! driver can take turns between this program and another. One run before the first is not measured.
//! Without a subcommand it measures short forwards of the model that `SALAMANDER_BENCH_MODEL` names, or
//! of the one that comes with the repository.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::{Write, stdin, stdout};
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::tensor::TensorData;
use clap::{Args, CommandFactory, Parser, Subcommand};
use salamander::importers::safetensors;
use salamander::models::Inputs;
use salamander::tasks::TextEmbedding;
use salamander::{Device, Network};
use serde_json::{Value, json};

const VARIABLE: &str = "SALAMANDER_BENCH_MODEL";
const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/sentiment");

/// Times BERT on the device that `SALAMANDER_DEVICE` names, or the best.
#[derive(Parser)]
#[command(name = "bert")]
struct Arguments {
    #[command(subcommand)]
    work: Option<Work>,
}

#[derive(Subcommand)]
enum Work {
    /// Opens the network, then opens it with its tokenizer and embeds one sentence; once
    Load {
        /// A model directory
        #[arg(long)]
        model: PathBuf,
        /// The sentence
        #[arg(long, default_value = "a warm, funny, engaging film")]
        text: String,
    },
    /// Runs the network on sequences of one length
    Forward {
        #[arg(long, default_value_t = 1)]
        batch: usize,
        #[arg(long, default_value_t = 128)]
        sequence: usize,
        #[command(flatten)]
        common: Common,
    },
    /// Embeds the lines of a file
    Sentences {
        /// A text file
        #[arg(long)]
        file: PathBuf,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Args)]
struct Common {
    /// A model directory
    #[arg(long)]
    model: PathBuf,
    /// How many runs to measure; by default one for each line of standard input
    #[arg(long)]
    runs: Option<usize>,
    /// Where to write the outputs, as safetensors
    #[arg(long)]
    out: Option<PathBuf>,
}

type Outputs = BTreeMap<String, TensorData>;

fn main() -> Result<(), Box<dyn Error>> {
    // What cargo adds to a benchmark's arguments.
    let arguments = std::env::args().filter(|argument| argument != "--bench");
    let device = Device::from_env()?;
    match Arguments::parse_from(arguments).work {
        Some(Work::Load { model, text }) => load(&model, &text, &device),
        Some(Work::Forward {
            batch,
            sequence,
            common,
        }) => forward(batch, sequence, &common, &device),
        Some(Work::Sentences { file, common }) => sentences(&file, &common, &device),
        None => {
            let model = std::env::var_os(VARIABLE).map_or(SHIPPED.into(), PathBuf::from);
            if !model.join("config.json").exists() {
                println!("no model in {}; set {VARIABLE}\n", model.display());
                return Ok(Arguments::command().print_help()?);
            }
            let common = Common {
                model,
                runs: Some(5),
                out: None,
            };
            forward(1, 128, &common, &device)?;
            forward(8, 128, &common, &device)
        }
    }
}

fn load(model: &Path, text: &str, device: &Device) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    drop(Network::open(model, None, device)?);
    let opened = start.elapsed().as_secs_f64();
    let start = Instant::now();
    TextEmbedding::open(model, device)?.run(text)?;
    let answered = start.elapsed().as_secs_f64();
    print(json!({"seconds": opened, "answer_seconds": answered, "peak_bytes": peak_bytes()}))
}

fn forward(
    batch: usize,
    sequence: usize,
    common: &Common,
    device: &Device,
) -> Result<(), Box<dyn Error>> {
    let network = Network::open(&common.model, None, device)?;
    // Any ids do that a peer can repeat and that every vocabulary has.
    let ids: Vec<i64> = (0..batch * sequence)
        .map(|i| (i * 7919 % 1000) as i64)
        .collect();
    let ids = TensorData::new(ids, [batch, sequence]);
    measure(common, || {
        Ok(network.forward(Inputs::new().with("input_ids", ids.clone()))?)
    })
}

fn sentences(file: &Path, common: &Common, device: &Device) -> Result<(), Box<dyn Error>> {
    let embedding = TextEmbedding::open(&common.model, device)?;
    let text = fs::read_to_string(file)?;
    let lines: Vec<&str> = text.lines().collect();
    measure(common, || {
        let vectors = embedding.run_batch(&lines)?;
        let shape = [vectors.len(), vectors.first().map_or(0, Vec::len)];
        let vectors = TensorData::new(vectors.concat(), shape);
        Ok(Outputs::from([("embeddings".to_owned(), vectors)]))
    })
}

/// Runs `work` once for warming up, writes its outputs if that is asked for, then runs it as often as
/// `common` says, with a line each.
fn measure(
    common: &Common,
    work: impl Fn() -> Result<Outputs, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let outputs = work()?;
    if let Some(path) = &common.out {
        safetensors::write(path, &outputs, BTreeMap::new())?;
    }
    drop(outputs);
    let once = || {
        let start = Instant::now();
        let outputs = work()?;
        let seconds = start.elapsed().as_secs_f64();
        drop(outputs);
        print(json!({"seconds": seconds, "peak_bytes": peak_bytes()}))
    };
    match common.runs {
        Some(runs) => (0..runs).try_for_each(|_| once()),
        None => stdin().lines().try_for_each(|line| {
            line?;
            once()
        }),
    }
}

fn print(line: Value) -> Result<(), Box<dyn Error>> {
    println!("{line}");
    Ok(stdout().flush()?)
}

/// The most memory that this process has had resident, mapped files included, where `/proc` tells.
fn peak_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}
