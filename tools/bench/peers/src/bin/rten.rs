//! Networks in ONNX by rten.

use std::sync::Arc;

use rten::{Model, ModelOptions, NodeId, RunOptions, ThreadPool, Value, ValueOrView};
use rten_tensor::prelude::*;
use rten_tensor::{NdTensor, TensorView};
use salamander_bench_peers::{
    Arguments, Part, Result, Tensor, Tensors, found, likeliest, measure, print_class,
};

fn main() -> Result<()> {
    let (arguments, inputs) = salamander_bench_peers::start()?;
    let pool = Arc::new(ThreadPool::with_num_threads(arguments.threads));
    let networks = arguments.onnx.iter().map(|path| Network::open(path, &pool));
    let networks = networks.collect::<Result<Vec<_>>>()?;
    match (arguments.part, &networks[..]) {
        (Part::Generate, [encoder, first, step]) => {
            generate(&arguments, &inputs, encoder, first, step)
        }
        (Part::Forward | Part::Encode, [network]) => forward(&arguments, &inputs, network),
        (Part::Start, [network]) => {
            let outputs = network.run([("input_ids", value(&inputs["input_ids"]).into())])?;
            let logits: TensorView<f32> = outputs.first().ok_or("no output")?.try_into()?;
            print_class(&arguments, &logits.to_vec())
        }
        _ => Err("--onnx: three networks for `generate`, one for the others".into()),
    }
}

fn forward(arguments: &Arguments, inputs: &Tensors, network: &Network) -> Result<()> {
    let inputs: Vec<_> = inputs
        .iter()
        .map(|(name, tensor)| (name, value(tensor)))
        .collect();
    let work = || {
        network.run(
            inputs
                .iter()
                .map(|(name, value)| (name.as_str(), value.into())),
        )
    };
    measure(arguments, work, |outputs| {
        let output: TensorView<f32> = outputs.first().ok_or("no output")?.try_into()?;
        let output = Tensor::Floats(output.shape().to_vec(), output.to_vec());
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
    let features = value(&inputs["input_features"]);
    let prompt = value(&inputs["decoder_input_ids"]);
    let work = || {
        let mut encoded = encoder.run([("input_features", (&features).into())])?;
        let encoded = encoded.remove(0);
        // The logits, then the decoder's own keys and values, then those of the encoder's output.
        let mut outputs =
            first.run([("input_ids", (&prompt).into()), ("encoded", encoded.into())])?;
        let crossed = outputs.split_off(1 + (outputs.len() - 1) / 2);
        let mut tokens = Vec::with_capacity(arguments.tokens);
        loop {
            let past = outputs.split_off(1);
            let logits: TensorView<f32> = (&outputs[0]).try_into()?;
            let row = logits.size(1) - 1;
            let token = likeliest(&logits.slice((0, row)).to_vec());
            tokens.push(token);
            if tokens.len() == arguments.tokens {
                return Ok(tokens);
            }
            let token = Value::from(NdTensor::from([[token as i32]]));
            let mut values: Vec<ValueOrView<'_>> = vec![token.into()];
            for value in past {
                values.push(value.into());
            }
            for value in &crossed {
                values.push(value.into());
            }
            let names = step.inputs.iter().map(|(name, _)| name.as_str());
            outputs = step.run(names.zip(values))?;
        }
    };
    measure(arguments, work, |tokens| Ok(found(tokens)))
}

struct Network {
    model: Model,
    inputs: Vec<(String, NodeId)>,
    pool: Arc<ThreadPool>,
}

impl Network {
    fn open(path: &std::path::Path, pool: &Arc<ThreadPool>) -> Result<Self> {
        let mut options = ModelOptions::with_all_ops();
        options.prepack_weights(true);
        let model = options.load_file(path)?;
        let inputs = model.input_ids().iter().map(|id| {
            let name = model
                .node_info(*id)
                .and_then(|node| node.name().map(str::to_owned));
            Ok((name.ok_or("an input without a name")?, *id))
        });
        let inputs = inputs.collect::<Result<_>>()?;
        let pool = Arc::clone(pool);
        Ok(Self {
            model,
            inputs,
            pool,
        })
    }

    /// All outputs, in the network's order.
    fn run<'a>(
        &self,
        inputs: impl IntoIterator<Item = (&'a str, ValueOrView<'a>)>,
    ) -> Result<Vec<Value>> {
        let inputs = inputs
            .into_iter()
            .map(|(name, value)| Ok((self.model.node_id(name)?, value)));
        let mut options = RunOptions::default();
        options.thread_pool = Some(Arc::clone(&self.pool));
        let inputs = inputs.collect::<Result<_>>()?;
        Ok(self
            .model
            .run(inputs, self.model.output_ids(), Some(options))?)
    }
}

/// rten has integers of 32 bits.
fn value(tensor: &Tensor) -> Value {
    match tensor {
        Tensor::Floats(shape, values) => {
            rten_tensor::Tensor::from_data(shape, values.clone()).into()
        }
        Tensor::Ids(shape, values) => {
            let values: Vec<i32> = values.iter().map(|id| *id as i32).collect();
            rten_tensor::Tensor::from_data(shape, values).into()
        }
    }
}
