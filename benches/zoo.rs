//! Times the zoo, a JSON line a run; `tools/bench/run.py` sets the times against its peers'.
//!
//! ```sh
//! cargo bench --bench zoo -- forward --model DIR --inputs FILE --runs 5
//! ```
//!
//! With `--runs` it measures that many runs. Without, each line of standard input starts one, so that a
//! driver can take turns between this program and another. One run goes before them, which packs weights, or compiles
//! and tunes a GPU's kernels; its time is told apart, as `first_seconds`.
//! Without a subcommand it measures short forwards of the sentiment model that comes with the repository.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::{Write, stdin, stdout};
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::{Int, Tensor, TensorData};
use clap::{Args, Parser, Subcommand};
use salamander::importers::{Checkpoint, safetensors};
use salamander::models::blocks::{self, Activation};
use salamander::models::{Inputs, awake, whisper};
use salamander::tasks::TextEmbedding;
use salamander::{Device, Network};
use serde_json::{Value, json};

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/sentiment");

/// Times the zoo on the device that `SALAMANDER_DEVICE` names, or the best.
#[derive(Parser)]
#[command(name = "zoo")]
struct Arguments {
    #[command(subcommand)]
    work: Option<Work>,
    /// What linear layers are computed in: f32, f16, bf16, int8 or int4
    #[arg(long, global = true, default_value = "f32")]
    dtype: String,
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
    /// Runs the network on the tensors of a file
    Forward {
        /// Its inputs, as safetensors
        #[arg(long)]
        inputs: PathBuf,
        #[command(flatten)]
        common: Common,
    },
    /// Runs Whisper's encoder on the `input_features` of a file
    Encode {
        /// Its inputs, as safetensors
        #[arg(long)]
        inputs: PathBuf,
        #[command(flatten)]
        common: Common,
    },
    /// Runs Whisper's encoder and then its decoder, token by token, always the likeliest
    Generate {
        /// Its inputs, as safetensors: `input_features` and the first `decoder_input_ids`
        #[arg(long)]
        inputs: PathBuf,
        /// How many tokens
        #[arg(long, default_value_t = 100)]
        tokens: usize,
        #[command(flatten)]
        common: Common,
    },
    /// Runs a linear layer in f32 on the `input`, `weight` and `bias` of a file
    Linear {
        /// These, as safetensors
        #[arg(long)]
        inputs: PathBuf,
        /// How often a run is to do so
        #[arg(long, default_value_t = 20)]
        times: usize,
        #[command(flatten)]
        runs: Runs,
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
    #[command(flatten)]
    runs: Runs,
}

#[derive(Args)]
struct Runs {
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
    let arguments = Arguments::parse_from(arguments);
    let device = Device::from_env()?.with_dtype(Device::dtype_named(&arguments.dtype)?)?;
    match arguments.work {
        Some(Work::Load { model, text }) => load(&model, &text, &device),
        Some(Work::Forward { inputs, common }) => {
            let network = Network::open(&common.model, None, &device)?;
            let inputs = tensors(&inputs)?;
            measure(&common.runs, || {
                let inputs = inputs.clone().into_iter().collect::<Inputs>();
                Ok(network.forward(inputs)?)
            })
        }
        Some(Work::Encode { inputs, common }) => {
            let (model, features, _) = open_whisper(&common.model, &inputs, &device)?;
            measure(&common.runs, || {
                let features = features.clone();
                let encoded = awake(|| model.trunk().encode(features).into_data());
                Ok(Outputs::from([("last_hidden_state".to_owned(), encoded)]))
            })
        }
        Some(Work::Generate {
            inputs,
            tokens,
            common,
        }) => {
            let (model, features, prompt) = open_whisper(&common.model, &inputs, &device)?;
            measure(&common.runs, || {
                let features = features.clone();
                let encoded = awake(|| model.trunk().encode(features));
                let mut cache = model.trunk().cache(encoded, 1, 448);
                let mut ids: Tensor<2, Int> = Tensor::from_data(prompt.clone(), device.burn());
                let mut found = Vec::with_capacity(tokens);
                for _ in 0..tokens {
                    ids = awake(|| {
                        let logits = model.step(ids, &mut cache);
                        let [_, length, _] = logits.dims();
                        logits.narrow(1, length - 1, 1).argmax(2).squeeze_dim(2)
                    });
                    found.push(ids.clone().into_data().iter::<i64>().next().unwrap_or(0));
                }
                let found = TensorData::new(found, [1, tokens]);
                Ok(Outputs::from([("tokens".to_owned(), found)]))
            })
        }
        Some(Work::Linear {
            inputs,
            times,
            runs,
        }) => linear(&inputs, times, &runs, &device),
        Some(Work::Sentences { file, common }) => sentences(&file, &common, &device),
        None => {
            let network = Network::open(SHIPPED, None, &device)?;
            let ids: Vec<i64> = (0..128).map(|i| i * 7919 % 1000).collect();
            let ids = TensorData::new(ids, [1, 128]);
            let runs = Runs {
                runs: Some(5),
                out: None,
            };
            measure(&runs, || {
                Ok(network.forward(Inputs::new().with("input_ids", ids.clone()))?)
            })
        }
    }
}

/// The tensors of a safetensors file.
fn tensors(path: &Path) -> Result<Outputs, Box<dyn Error>> {
    let file = Checkpoint::open(path)?;
    let read = file
        .iter()
        .map(|(name, entry)| Ok((name.to_owned(), entry.read()?)));
    read.collect()
}

type Opened = (
    whisper::WhisperForConditionalGeneration,
    Tensor<3>,
    TensorData,
);

fn open_whisper(model: &Path, inputs: &Path, device: &Device) -> Result<Opened, Box<dyn Error>> {
    let config = serde_json::from_str(&fs::read_to_string(model.join("config.json"))?)?;
    let (model, _) = whisper::open(
        &config,
        &Checkpoint::open(model)?.computed_in(device.dtype().clone()),
        device.burn(),
    )?;
    let mut inputs = tensors(inputs)?;
    let mut take = |name: &str| inputs.remove(name).ok_or(format!("no {name}"));
    let features = Tensor::from_data(take("input_features")?, device.burn());
    Ok((model, features, take("decoder_input_ids")?))
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

fn sentences(file: &Path, common: &Common, device: &Device) -> Result<(), Box<dyn Error>> {
    let embedding = TextEmbedding::open(&common.model, device)?;
    let text = fs::read_to_string(file)?;
    let lines: Vec<&str> = text.lines().collect();
    measure(&common.runs, || {
        let vectors = embedding.run_batch(&lines)?;
        let shape = [vectors.len(), vectors.first().map_or(0, Vec::len)];
        let vectors = TensorData::new(vectors.concat(), shape);
        Ok(Outputs::from([("embeddings".to_owned(), vectors)]))
    })
}

fn linear(inputs: &Path, times: usize, runs: &Runs, device: &Device) -> Result<(), Box<dyn Error>> {
    let mut tensors = tensors(inputs)?;
    let mut take = |name: &str| tensors.remove(name).ok_or(format!("no {name}"));
    let weight: Tensor<2> = Tensor::from_data(take("weight")?, device.burn());
    let bias: Tensor<1> = Tensor::from_data(take("bias")?, device.burn());
    let input: Tensor<2> = Tensor::from_data(take("input")?, device.burn());
    let layer = Linear {
        // Read by its strides, as PyTorch's weights are.
        weight: Param::from_tensor(weight.transpose()),
        bias: Some(Param::from_tensor(bias)),
    };
    let once = || blocks::linear(&layer, input.clone(), None, Activation::Linear);
    measure(runs, || {
        let output = awake(|| {
            (1..times).for_each(|_| drop(once()));
            once().into_data()
        });
        Ok(Outputs::from([("output".to_owned(), output)]))
    })
}

/// Runs `work` once for warming up, writes its outputs if that is asked for, then runs it as often as
/// `runs` says, with a line each.
fn measure(
    runs: &Runs,
    work: impl Fn() -> Result<Outputs, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let outputs = work()?;
    let first = start.elapsed().as_secs_f64();
    if let Some(path) = &runs.out {
        safetensors::write(path, &outputs, BTreeMap::new())?;
    }
    drop(outputs);
    let once = || {
        let start = Instant::now();
        let outputs = work()?;
        let seconds = start.elapsed().as_secs_f64();
        drop(outputs);
        print(json!({"seconds": seconds, "first_seconds": first, "peak_bytes": peak_bytes()}))
    };
    match runs.runs {
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
