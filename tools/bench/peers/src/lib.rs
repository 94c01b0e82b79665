//! What the peers share: their arguments, the tensors of files, and the protocol of `benches/zoo.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Write, stdin, stdout};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Parser, ValueEnum};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use tokenizers::Tokenizer;

pub type Error = Box<dyn std::error::Error + Send + Sync>;
pub type Result<T> = std::result::Result<T, Error>;

/// Times a network: one run for each line of standard input, a JSON line a run. One run before is not measured.
#[derive(Parser)]
pub struct Arguments {
    /// What to run
    pub part: Part,
    /// A model directory
    #[arg(long)]
    pub model: PathBuf,
    /// The inputs, as safetensors
    #[arg(long)]
    pub inputs: Option<PathBuf>,
    /// Where to write the outputs, as safetensors
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// What `start` classifies
    #[arg(long, default_value = "")]
    pub text: String,
    /// The exported network; for `generate` its encoder, its decoder's first step, and its decoder's further ones
    #[arg(long)]
    pub onnx: Vec<PathBuf>,
    /// What the output is called
    #[arg(long, default_value = "last_hidden_state")]
    pub output: String,
    /// How many tokens `generate` adds
    #[arg(long, default_value_t = 100)]
    pub tokens: usize,
    /// How many threads to compute on
    #[arg(long)]
    pub threads: usize,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Part {
    /// The network
    Forward,
    /// Whisper's encoder
    Encode,
    /// Whisper's encoder and then its decoder, token by token, always the likeliest
    Generate,
    /// The class of a text, printed once
    Start,
}

/// A tensor of a file, in C order.
#[derive(Clone)]
pub enum Tensor {
    Floats(Vec<usize>, Vec<f32>),
    Ids(Vec<usize>, Vec<i64>),
}

pub type Tensors = BTreeMap<String, Tensor>;

impl Tensor {
    pub fn floats(&self) -> Result<(&[usize], &[f32])> {
        match self {
            Tensor::Floats(shape, values) => Ok((shape, values)),
            Tensor::Ids(..) => Err("floats are wanted and ids are given".into()),
        }
    }

    pub fn ids(&self) -> Result<(&[usize], &[i64])> {
        match self {
            Tensor::Ids(shape, values) => Ok((shape, values)),
            Tensor::Floats(..) => Err("ids are wanted and floats are given".into()),
        }
    }
}

/// Parses the arguments, and reads the inputs.
pub fn start() -> Result<(Arguments, Tensors)> {
    let arguments = Arguments::parse();
    let mut inputs = match &arguments.inputs {
        Some(path) => read(path)?,
        None => Tensors::new(),
    };
    match arguments.part {
        Part::Encode => drop(inputs.remove("decoder_input_ids")),
        Part::Start => drop(inputs.insert("input_ids".to_owned(), ids(&arguments)?)),
        Part::Forward | Part::Generate => {}
    }
    Ok((arguments, inputs))
}

/// The text's tokens.
fn ids(arguments: &Arguments) -> Result<Tensor> {
    let tokenizer = Tokenizer::from_file(arguments.model.join("tokenizer.json"))?;
    let encoding = tokenizer.encode(&arguments.text[..], true)?;
    let ids: Vec<_> = encoding.get_ids().iter().map(|id| i64::from(*id)).collect();
    Ok(Tensor::Ids(vec![1, ids.len()], ids))
}

/// Prints what the likeliest class is called.
pub fn print_class(arguments: &Arguments, logits: &[f32]) -> Result<()> {
    let config: Value = serde_json::from_slice(&fs::read(arguments.model.join("config.json"))?)?;
    println!("{}", config["id2label"][likeliest(logits).to_string()]);
    Ok(())
}

fn read(path: &Path) -> Result<Tensors> {
    let bytes = fs::read(path)?;
    let file = SafeTensors::deserialize(&bytes)?;
    let read = file.iter().map(|(name, view)| {
        let shape = view.shape().to_vec();
        let tensor = match view.dtype() {
            Dtype::F32 => Tensor::Floats(shape, numbers(view.data(), f32::from_le_bytes)),
            Dtype::I64 => Tensor::Ids(shape, numbers(view.data(), i64::from_le_bytes)),
            other => return Err(format!("{name} is of type {other}").into()),
        };
        Ok((name.to_owned(), tensor))
    });
    read.collect()
}

fn numbers<T, const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (chunks, _) = bytes.as_chunks();
    chunks.iter().map(|chunk| number(*chunk)).collect()
}

fn write(path: &Path, tensors: &Tensors) -> Result<()> {
    let bytes: Vec<_> = tensors.values().map(Tensor::bytes).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, tensor), bytes)| {
        let (dtype, shape) = match tensor {
            Tensor::Floats(shape, _) => (Dtype::F32, shape),
            Tensor::Ids(shape, _) => (Dtype::I64, shape),
        };
        Ok((name, TensorView::new(dtype, shape.clone(), bytes)?))
    });
    let views = views.collect::<Result<Vec<_>>>()?;
    Ok(safetensors::serialize_to_file(views, None, path)?)
}

impl Tensor {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Tensor::Floats(_, values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Tensor::Ids(_, values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }
}

/// Runs `work` once for warming up, writes what `tensors` makes of it, then runs it once a line.
pub fn measure<T>(
    arguments: &Arguments,
    mut work: impl FnMut() -> Result<T>,
    tensors: impl FnOnce(T) -> Result<Tensors>,
) -> Result<()> {
    let outputs = tensors(work()?)?;
    if let Some(path) = &arguments.out {
        write(path, &outputs)?;
    }
    drop(outputs);
    for line in stdin().lines() {
        line?;
        let start = Instant::now();
        let outputs = work()?;
        let seconds = start.elapsed().as_secs_f64();
        drop(outputs);
        println!(
            "{}",
            json!({"seconds": seconds, "peak_bytes": peak_bytes()})
        );
        stdout().flush()?;
    }
    Ok(())
}

/// The outputs of `generate`.
pub fn found(tokens: Vec<i64>) -> Tensors {
    let shape = vec![1, tokens.len()];
    Tensors::from([("tokens".to_owned(), Tensor::Ids(shape, tokens))])
}

/// Which of the last row's logits is largest, the first of equals.
pub fn likeliest(logits: &[f32]) -> i64 {
    let mut best = 0;
    for (index, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = index;
        }
    }
    best as i64
}

/// The most memory that this process has had resident, where `/proc` tells.
fn peak_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}
