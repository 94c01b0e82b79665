//! The zoo by candle-transformers, from the same safetensors.

use std::fs;

use candle_core::{D, DType, Device, IndexOp, Module};
use candle_nn::VarBuilder;
use candle_transformers::models::{bert, resnet, vit, whisper};
use salamander_bench_peers::{
    Arguments, Part, Result, Tensor, Tensors, found, measure, print_class,
};
use serde_json::Value;

fn main() -> Result<()> {
    // It computes on rayon's threads, which `RAYON_NUM_THREADS` counts.
    let (arguments, inputs) = salamander_bench_peers::start()?;
    let config: Value = serde_json::from_slice(&fs::read(arguments.model.join("config.json"))?)?;
    let file = arguments.model.join("model.safetensors");
    // SAFETY: nothing changes the file meanwhile.
    let weights =
        unsafe { VarBuilder::from_mmaped_safetensors(&[file], DType::F32, &Device::Cpu)? };
    match config["model_type"].as_str().unwrap_or_default() {
        "bert" if arguments.part == Part::Start => classify(&arguments, &inputs, config, weights),
        "bert" => {
            let model = bert::BertModel::load(weights, &serde_json::from_value(config)?)?;
            let ids = tensor(&inputs["input_ids"])?;
            let types = ids.zeros_like()?;
            let work = || Ok(model.forward(&ids, &types, None)?);
            measure(&arguments, work, |output| outputs(&arguments, output))
        }
        "vit" => {
            let (config, labels) = (serde_json::from_value(config)?, 1000);
            let model = vit::Model::new(&config, labels, weights)?;
            let pixels = tensor(&inputs["pixel_values"])?;
            let work = || Ok(model.forward(&pixels)?);
            measure(&arguments, work, |output| outputs(&arguments, output))
        }
        "resnet" => {
            let weights = weights.rename_f(resnet_name);
            let model = match config["layer_type"].as_str() {
                Some("basic") => resnet::resnet18(1000, weights)?,
                _ => resnet::resnet50(1000, weights)?,
            };
            let pixels = tensor(&inputs["pixel_values"])?;
            let work = || Ok(model.forward(&pixels)?);
            measure(&arguments, work, |output| outputs(&arguments, output))
        }
        "whisper" => run_whisper(&arguments, &inputs, config, weights),
        other => Err(format!("candle-transformers has no {other}").into()),
    }
}

/// candle-transformers' BERT has no head for classes.
fn classify(
    arguments: &Arguments,
    inputs: &Tensors,
    config: Value,
    weights: VarBuilder<'_>,
) -> Result<()> {
    let config: bert::Config = serde_json::from_value(config)?;
    let width = config.hidden_size;
    let model = bert::BertModel::load(weights.pp("bert"), &config)?;
    let pooler = candle_nn::linear(width, width, weights.pp("bert.pooler.dense"))?;
    let classifier = candle_nn::linear(width, 2, weights.pp("classifier"))?;
    let ids = tensor(&inputs["input_ids"])?;
    let hidden = model.forward(&ids, &ids.zeros_like()?, None)?;
    let pooled = pooler.forward(&hidden.i((.., 0))?)?.tanh()?;
    let logits = classifier.forward(&pooled)?.flatten_all()?.to_vec1()?;
    print_class(arguments, &logits)
}

/// The reference's name of a tensor that torchvision and candle call `name`.
fn resnet_name(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    let kind = |part: &str| {
        if part.starts_with("conv") {
            "convolution"
        } else {
            "normalization"
        }
    };
    match parts[..] {
        ["fc", field] => format!("classifier.1.{field}"),
        [part, field] => format!("resnet.embedder.embedder.{}.{field}", kind(part)),
        [stage, block, ref rest @ ..] => {
            let stage = stage.trim_start_matches("layer").parse().unwrap_or(0) - 1;
            let block = format!("resnet.encoder.stages.{stage}.layers.{block}");
            match rest {
                ["downsample", "0", field] => format!("{block}.shortcut.convolution.{field}"),
                ["downsample", _, field] => format!("{block}.shortcut.normalization.{field}"),
                [part, field] => {
                    let index = part
                        .trim_start_matches(char::is_alphabetic)
                        .parse()
                        .unwrap_or(0)
                        - 1;
                    format!("{block}.layer.{index}.{}.{field}", kind(part))
                }
                _ => name.to_owned(),
            }
        }
        _ => name.to_owned(),
    }
}

/// As in candle's example, every step decodes all tokens again; only what is made of the audio is kept.
fn run_whisper(
    arguments: &Arguments,
    inputs: &Tensors,
    mut config: Value,
    weights: VarBuilder<'_>,
) -> Result<()> {
    if config["suppress_tokens"].is_null() {
        config["suppress_tokens"] = Value::Array(Vec::new());
    }
    let mut model = whisper::model::Whisper::load(&weights, serde_json::from_value(config)?)?;
    let features = tensor(&inputs["input_features"])?;
    if arguments.part == Part::Encode {
        let work = || Ok(model.encoder.forward(&features, true)?);
        return measure(arguments, work, |output| outputs(arguments, output));
    }
    let (_, prompt) = inputs["decoder_input_ids"].ids()?;
    let work = || {
        let encoded = model.encoder.forward(&features, true)?;
        let mut tokens = prompt.to_vec();
        for step in 0..arguments.tokens {
            let ids = candle_core::Tensor::new(&tokens[..], &Device::Cpu)?.unsqueeze(0)?;
            let hidden = model.decoder.forward(&ids, &encoded, step == 0)?;
            let last = hidden.narrow(1, tokens.len() - 1, 1)?;
            let logits = model.decoder.final_linear(&last)?;
            let token: u32 = logits
                .argmax(D::Minus1)?
                .flatten_all()?
                .get(0)?
                .to_scalar()?;
            tokens.push(token.into());
        }
        Ok(tokens.split_off(prompt.len()))
    };
    measure(arguments, work, |tokens| Ok(found(tokens)))
}

fn tensor(tensor: &Tensor) -> Result<candle_core::Tensor> {
    Ok(match tensor {
        Tensor::Floats(shape, values) => {
            candle_core::Tensor::from_slice(values, &shape[..], &Device::Cpu)?
        }
        Tensor::Ids(shape, values) => {
            candle_core::Tensor::from_slice(values, &shape[..], &Device::Cpu)?
        }
    })
}

fn outputs(arguments: &Arguments, output: candle_core::Tensor) -> Result<Tensors> {
    let values = output.flatten_all()?.to_vec1()?;
    let output = Tensor::Floats(output.dims().to_vec(), values);
    Ok(Tensors::from([(arguments.output.clone(), output)]))
}
