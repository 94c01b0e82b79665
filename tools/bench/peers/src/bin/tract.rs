//! Networks in ONNX by tract.

use std::path::Path;
use std::sync::Arc;

use salamander_bench_peers::{
    Arguments, Part, Result, Tensor, Tensors, found, likeliest, measure, print_class,
};
use tract_linalg::multithread::{Executor, set_default_executor};
use tract_onnx::prelude::{
    self as tract, Framework, InferenceModelExt, IntoRunnable, TValue, TVec, TypedRunnableModel,
};

type Network = Arc<TypedRunnableModel>;

fn main() -> Result<()> {
    let (arguments, inputs) = salamander_bench_peers::start()?;
    if arguments.threads > 1 {
        set_default_executor(Executor::multithread(arguments.threads));
    }
    let networks = arguments.onnx.iter().map(|path| open(path));
    let networks = networks.collect::<Result<Vec<_>>>()?;
    match (arguments.part, &networks[..]) {
        (Part::Generate, [encoder, first, step]) => {
            generate(&arguments, &inputs, encoder, first, step)
        }
        (Part::Forward | Part::Encode, [network]) => forward(&arguments, &inputs, network),
        (Part::Start, [network]) => {
            let outputs = network.run(TVec::from_iter([value(&inputs["input_ids"])?]))?;
            let logits = outputs.first().ok_or("no output")?;
            print_class(&arguments, logits.try_as_plain_ram()?.as_slice()?)
        }
        _ => Err("--onnx: three networks for `generate`, one for the others".into()),
    }
}

fn open(path: &Path) -> Result<Network> {
    let model = tract_onnx::onnx().model_for_path(path)?;
    Ok(model.into_optimized()?.into_runnable()?)
}

fn forward(arguments: &Arguments, inputs: &Tensors, network: &Network) -> Result<()> {
    let inputs: TVec<TValue> = inputs.values().map(value).collect::<Result<_>>()?;
    let work = || Ok(network.run(inputs.clone())?);
    measure(arguments, work, |outputs| {
        let output = outputs.first().ok_or("no output")?;
        let values = output
            .to_plain_array_view::<f32>()?
            .iter()
            .copied()
            .collect();
        let output = Tensor::Floats(output.shape().to_vec(), values);
        Ok(Tensors::from([(arguments.output.clone(), output)]))
    })
}

fn generate(
    arguments: &Arguments,
    inputs: &Tensors,
    encoder: &Network,
    first: &Network,
    step: &Network,
) -> Result<()> {
    let features = value(&inputs["input_features"])?;
    let prompt = value(&inputs["decoder_input_ids"])?;
    let work = || {
        let mut encoded = encoder.run(TVec::from_iter([features.clone()]))?;
        // The logits, then the decoder's own keys and values, then those of the encoder's output.
        let mut outputs = first.run(TVec::from_iter([prompt.clone(), encoded.remove(0)]))?;
        let crossed: TVec<TValue> = outputs.drain(1 + (outputs.len() - 1) / 2..).collect();
        let mut tokens = Vec::with_capacity(arguments.tokens);
        loop {
            let logits = outputs.remove(0);
            let width = logits.shape()[2];
            let logits = logits.try_as_plain_ram()?.as_slice::<f32>()?;
            let token = likeliest(&logits[logits.len() - width..]);
            tokens.push(token);
            if tokens.len() == arguments.tokens {
                return Ok(tokens);
            }
            let token = value(&Tensor::Ids(vec![1, 1], vec![token]))?;
            let inputs = std::iter::once(token)
                .chain(outputs)
                .chain(crossed.iter().cloned());
            outputs = step.run(inputs.collect())?;
        }
    };
    measure(arguments, work, |tokens| Ok(found(tokens)))
}

fn value(tensor: &Tensor) -> Result<TValue> {
    let tensor = match tensor {
        Tensor::Floats(shape, values) => tract::Tensor::from_shape(shape, values)?,
        Tensor::Ids(shape, values) => tract::Tensor::from_shape(shape, values)?,
    };
    Ok(tensor.into())
}
