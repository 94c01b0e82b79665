//! Whisper: speech to text in many languages, by an encoder of log-mel frames and a decoder of tokens.
//!
//! - Paper: Radford et al., *Robust Speech Recognition via Large-Scale Weak Supervision*,
//!   <https://arxiv.org/abs/2212.04356>
//! - Reference: `src/transformers/models/whisper/modeling_whisper.py` of transformers 5.23
//! - Checkpoints: Hugging Face's, with or without `model.`, with or without the tied output layer; OpenAI's
//!   names (`encoder.blocks.0.attn.query`), sizes from OpenAI's `dims` or from the tensors; mlx-examples' at
//!   commit 7ddca42, whose names are OpenAI's but for the MLPs and which do not store the encoder's positions
//! - Refused: activations other than the reference's elementwise ones
//!
//! [`WhisperConfig`] → [`Whisper`] (the trunk) → one struct a head. [`Cache`] serves decoding step by step.

mod cache;
mod config;
mod contained;
mod detect;
mod heads;
pub(crate) mod keys;
mod model;

use std::borrow::Cow;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use salamander_importers::{Checkpoint, FormatError};

use crate::architecture::within;
use crate::detect::complete;
use crate::load::load;
use crate::tensors::{Ints, named};
use crate::{
    Architecture, Class, InputError, Inputs, LoadError, Model, Outputs, PretrainedConfig, Task,
    Value,
};

pub use cache::Cache;
pub(crate) use contained::contained;

pub use config::WhisperConfig;
pub use heads::{
    WhisperForAudioClassification, WhisperForCausalLM, WhisperForConditionalGeneration,
};
pub use model::{Decoder, Encoder, Tokens, Whisper};

/// The dialect of the checkpoints of the package `openai-whisper`.
pub const OPENAI: &str = "OpenAI";

/// Whisper's entry in the registry.
pub const ARCHITECTURE: Architecture = Architecture {
    name: "whisper",
    paper: "https://arxiv.org/abs/2212.04356",
    model_types: &["whisper"],
    classes: &[
        Class::new("WhisperModel", None),
        Class::new(
            "WhisperForConditionalGeneration",
            Some(Task::SpeechRecognition),
        ),
        Class::new("WhisperForAudioClassification", None),
        Class::new("WhisperForCausalLM", None),
    ],
    load: load_class,
    detect: detect::detect,
    presets: Vec::new,
};

fn load_class(
    json: &serde_json::Value,
    class: &str,
    checkpoint: &Checkpoint,
    device: &Device,
) -> Result<Box<dyn Model>, LoadError> {
    let (config, openai) = configuration(json, checkpoint)?;
    let checkpoint = &*with_positions(&config, checkpoint);
    match class {
        "WhisperModel" => serve(
            load(
                Whisper::new(&config, device)?,
                class,
                &keys::trunk(openai),
                checkpoint,
            )?,
            &config,
            device,
        ),
        "WhisperForAudioClassification" => {
            let classes = PretrainedConfig::parse(json)?.labels().len();
            serve(
                load(
                    WhisperForAudioClassification::new(&config, classes, device)?,
                    class,
                    &keys::classification(),
                    checkpoint,
                )?,
                &config,
                device,
            )
        }
        "WhisperForCausalLM" => {
            let tied = openai || tied(&config, checkpoint)?;
            let module = WhisperForCausalLM::new(&config, tied, device)?;
            let module = load(module, class, &keys::decoder(openai), checkpoint)?;
            Ok(Box::new(ServedDecoder {
                module,
                config,
                device: device.clone(),
            }))
        }
        _ => serve(open(json, checkpoint, device)?.0, &config, device),
    }
}

/// Builds and fills the class that transcribes, for those who decode step by step.
///
/// # Errors
/// The configuration cannot be honoured, or the checkpoint does not hold what the class needs.
pub fn open(
    json: &serde_json::Value,
    checkpoint: &Checkpoint,
    device: &Device,
) -> Result<(WhisperForConditionalGeneration, WhisperConfig), LoadError> {
    salamander_kernels::after_packing(salamander_importers::release);
    let seen = within(&ARCHITECTURE, json, checkpoint)?;
    let (config, openai) = configuration(json, &seen)?;
    let checkpoint = &*with_positions(&config, &seen);
    let tied = openai || tied(&config, checkpoint)?;
    let module = WhisperForConditionalGeneration::new(&config, tied, device)?;
    let name = "WhisperForConditionalGeneration";
    let module = load(module, name, &keys::generation(openai), checkpoint)?;
    Ok((module, config))
}

/// The configuration, and whether the checkpoint bears OpenAI's names.
fn configuration(
    json: &serde_json::Value,
    checkpoint: &Checkpoint,
) -> Result<(WhisperConfig, bool), LoadError> {
    let openai = keys::is_openai(checkpoint);
    let config = match json {
        serde_json::Value::Object(given) if openai => {
            let detected = detect::detect(checkpoint, given);
            let fields = detected.map_or(Vec::new(), |(_, fields)| fields);
            WhisperConfig::parse(&complete(given, &fields).into())?
        }
        _ => WhisperConfig::parse(json)?,
    };
    config.check_depth(checkpoint.len())?;
    Ok((config, openai))
}

/// The checkpoint with the encoder's positions, which mlx-examples' Whispers leave out: sinusoids, as `sinusoids` of
/// openai-whisper computes them.
fn with_positions<'a>(config: &WhisperConfig, checkpoint: &'a Checkpoint) -> Cow<'a, Checkpoint> {
    const NAME: &str = "encoder.positional_embedding";
    /// More numbers than any model has.
    const MOST: usize = 1 << 24;
    let (width, positions) = (config.d_model, config.max_source_positions);
    let layer = checkpoint.get("encoder.conv2.bias");
    let is_as_wide = layer.is_some_and(|bias| bias.shape == [width]);
    if !keys::is_openai(checkpoint)
        || checkpoint.get(NAME).is_some()
        || !is_as_wide
        || width < 4
        || positions.saturating_mul(width) > MOST
    {
        return Cow::Borrowed(checkpoint);
    }
    let half = width / 2;
    let step = (10_000_f64.ln() / (half as f64 - 1.0)) as f32;
    let scales = (0..half).map(|place| f64::from(-step * place as f32).exp() as f32);
    let scales: Vec<f32> = scales.collect();
    let mut values = Vec::with_capacity(positions * width);
    for position in 0..positions {
        let angles = scales.iter().map(|scale| position as f32 * scale);
        let angles = angles.map(f64::from);
        values.extend(angles.clone().map(|angle| angle.sin() as f32));
        values.extend(angles.map(|angle| angle.cos() as f32));
    }
    Cow::Owned(checkpoint.with_computed(NAME, values, vec![positions, half * 2]))
}

/// Configuration and checkpoint as transformers has them: its fields in place of `dims`, and nothing left out.
pub(crate) fn hugging_face(
    json: serde_json::Value,
    checkpoint: Checkpoint,
) -> (serde_json::Value, Checkpoint) {
    let Ok((config, _)) = configuration(&json, &checkpoint) else {
        return (json, checkpoint);
    };
    let checkpoint = with_positions(&config, &checkpoint).into_owned();
    (
        WhisperConfig::hugging_face(&json).unwrap_or(json),
        checkpoint,
    )
}

/// Whether the output layer is the token embeddings: the configuration says so, and the checkpoint does
/// not hold a different one. The reference decides the same way.
fn tied(config: &WhisperConfig, checkpoint: &Checkpoint) -> Result<bool, FormatError> {
    let names = [
        "model.decoder.embed_tokens.weight",
        "decoder.embed_tokens.weight",
    ];
    let words = names.iter().find_map(|name| checkpoint.get(name));
    match (
        config.tie_word_embeddings,
        checkpoint.get("proj_out.weight"),
        words,
    ) {
        (true, Some(head), Some(words)) => Ok(head.out_in_shape() == words.shape
            && head.read_out_in()?.as_bytes() == words.read()?.as_bytes()),
        (tied, _, _) => Ok(tied),
    }
}

fn serve<M: Head>(
    module: M,
    config: &WhisperConfig,
    device: &Device,
) -> Result<Box<dyn Model>, LoadError> {
    Ok(Box::new(Served {
        module,
        config: config.clone(),
        device: device.clone(),
    }))
}

/// A reference class: which inputs it takes and what it makes of them.
trait Head: Module + Sync + 'static {
    /// Whether it has a decoder.
    const DECODES: bool = true;

    fn encoder(&self) -> &Encoder;

    fn decoder(&self) -> Option<&Decoder>;

    fn outputs(&self, features: Tensor<3>, tokens: Option<Tokens>) -> Outputs;
}

impl Head for Whisper {
    fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    fn decoder(&self) -> Option<&Decoder> {
        Some(&self.decoder)
    }

    fn outputs(&self, features: Tensor<3>, tokens: Option<Tokens>) -> Outputs {
        let encoded = self.encode(features);
        let outputs = Outputs::new().with("encoder_last_hidden_state", encoded.clone());
        match tokens {
            Some(tokens) => outputs.with("last_hidden_state", self.decode(tokens, encoded)),
            None => outputs,
        }
    }
}

impl Head for WhisperForConditionalGeneration {
    fn encoder(&self) -> &Encoder {
        &self.model.encoder
    }

    fn decoder(&self) -> Option<&Decoder> {
        Some(&self.model.decoder)
    }

    fn outputs(&self, features: Tensor<3>, tokens: Option<Tokens>) -> Outputs {
        let encoded = self.model.encode(features);
        let outputs = Outputs::new().with("encoder_last_hidden_state", encoded.clone());
        match tokens {
            Some(tokens) => outputs.with("logits", self.forward(tokens, encoded)),
            None => outputs,
        }
    }
}

impl Head for WhisperForAudioClassification {
    const DECODES: bool = false;

    fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    fn decoder(&self) -> Option<&Decoder> {
        None
    }

    fn outputs(&self, features: Tensor<3>, _tokens: Option<Tokens>) -> Outputs {
        Outputs::new().with("logits", self.forward(features))
    }
}

/// A loaded class on its device.
#[derive(Debug)]
struct Served<M> {
    module: M,
    config: WhisperConfig,
    device: Device,
}

impl<M: Head> Served<M> {
    /// The checked inputs on the device.
    fn check(&self, mut inputs: Inputs) -> Result<(Tensor<3>, Option<Tokens>), InputError> {
        let features: Tensor<3> = inputs
            .floats("input_features", &self.device)?
            .ok_or_else(|| InputError::new("input_features", "is missing"))?;
        let [batch, bins, frames] = features.dims();
        let window = [self.config.num_mel_bins, self.config.window_frames()];
        if [bins, frames] != window || batch == 0 {
            let reason = format!(
                "has the shape {:?}, not [batch, {}, {}]; pad or cut to a whole window",
                features.dims(),
                window[0],
                window[1]
            );
            return Err(InputError::new("input_features", reason));
        }
        // The reference takes a mask of frames too, and uses it in training only.
        let _: Option<Ints<2>> = inputs.ints("attention_mask", 0..2)?;
        let names = [
            "decoder_input_ids",
            "decoder_attention_mask",
            "decoder_position_ids",
        ];
        let mut known = vec!["input_features", "attention_mask"];
        let tokens = if M::DECODES {
            known.extend(names);
            Some(tokens(&mut inputs, names, &self.config, &self.device)?)
        } else {
            None
        };
        inputs.finish(&known)?;
        if let Some(tokens) = &tokens {
            same_batch(names[0], tokens, batch)?;
        }
        Ok((features, tokens))
    }
}

/// The checked tokens on a device, from the inputs of those names: ids, mask, positions.
fn tokens(
    inputs: &mut Inputs,
    names: [&str; 3],
    config: &WhisperConfig,
    device: &Device,
) -> Result<Tokens, InputError> {
    let most = config.max_target_positions;
    let [ids_name, mask_name, positions_name] = names;
    let ids: Ints<2> = inputs
        .ints(ids_name, 0..config.vocab_size as i64)?
        .ok_or_else(|| InputError::new(ids_name, "is missing"))?;
    let [rows, length] = ids.shape;
    if rows == 0 || length == 0 || length > most {
        let reason = format!(
            "has the shape {:?}; rows of 1 to {most} tokens are needed",
            ids.shape
        );
        return Err(InputError::new(ids_name, reason));
    }
    let like_ids = |name: &str, shape: [usize; 2]| {
        if shape == ids.shape {
            return Ok(());
        }
        let reason = format!("has the shape {shape:?}, not {:?}", ids.shape);
        Err(InputError::new(name, reason))
    };
    let mask: Option<Ints<2>> = inputs.ints(mask_name, 0..2)?;
    if let Some(mask) = &mask {
        like_ids(mask_name, mask.shape)?;
    }
    let positions: Option<Ints<2>> = inputs.ints(positions_name, 0..most as i64)?;
    if let Some(positions) = &positions
        && positions.shape != [1, length]
    {
        like_ids(positions_name, positions.shape)?;
    }
    Ok(Tokens {
        ids: ids.to_tensor(device),
        positions: positions.map(|positions| positions.to_tensor(device)),
        padding: mask.and_then(|mask| mask.padding(device)),
    })
}

fn same_batch(name: &str, tokens: &Tokens, batch: usize) -> Result<(), InputError> {
    let [rows, _] = tokens.ids.dims();
    if rows == batch {
        return Ok(());
    }
    let reason = format!("has {rows} rows for {batch} recordings");
    Err(InputError::new(name, reason))
}

impl<M: Head> Model for Served<M> {
    fn forward(&self, inputs: Inputs) -> Result<Outputs, InputError> {
        let (features, tokens) = self.check(inputs)?;
        Ok(self.module.outputs(features, tokens))
    }

    fn intermediates(&self, inputs: Inputs) -> Result<Vec<(String, Value)>, InputError> {
        let (features, tokens) = self.check(inputs)?;
        let (states, encoded) = self.module.encoder().hidden_states(features);
        let mut parts: Vec<_> = named("encoder.", states).collect();
        if let (Some(decoder), Some(tokens)) = (self.module.decoder(), tokens) {
            let (states, _) = decoder.hidden_states(tokens, Some(encoded));
            parts.extend(named("decoder.", states));
        }
        Ok(parts)
    }

    fn max_length(&self) -> Option<usize> {
        M::DECODES.then_some(self.config.max_target_positions)
    }
}

/// A loaded decoder without its encoder.
#[derive(Debug)]
struct ServedDecoder {
    module: WhisperForCausalLM,
    config: WhisperConfig,
    device: Device,
}

impl ServedDecoder {
    /// The checked inputs on the device.
    fn check(&self, mut inputs: Inputs) -> Result<(Tokens, Option<Tensor<3>>), InputError> {
        let names = ["input_ids", "attention_mask", "position_ids"];
        let tokens = tokens(&mut inputs, names, &self.config, &self.device)?;
        let name = "encoder_outputs";
        let encoded: Option<Tensor<3>> = inputs.floats(name, &self.device)?;
        inputs.finish(&[names[0], names[1], names[2], name])?;
        if let Some(encoded) = &encoded {
            let [batch, positions, width] = encoded.dims();
            if positions == 0 || width != self.config.d_model {
                let reason = format!(
                    "has the shape {:?}, not [batch, positions, {}]",
                    encoded.dims(),
                    self.config.d_model
                );
                return Err(InputError::new(name, reason));
            }
            same_batch(names[0], &tokens, batch)?;
        }
        Ok((tokens, encoded))
    }
}

impl Model for ServedDecoder {
    fn forward(&self, inputs: Inputs) -> Result<Outputs, InputError> {
        let (tokens, encoded) = self.check(inputs)?;
        Ok(Outputs::new().with("logits", self.module.forward(tokens, encoded)))
    }

    fn intermediates(&self, inputs: Inputs) -> Result<Vec<(String, Value)>, InputError> {
        let (tokens, encoded) = self.check(inputs)?;
        let (states, _) = self.module.decoder().hidden_states(tokens, encoded);
        Ok(named("decoder.", states).collect())
    }

    fn max_length(&self) -> Option<usize> {
        Some(self.config.max_target_positions)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, Int, Tensor};

    use super::{WhisperConfig, WhisperForConditionalGeneration};

    fn tiny() -> WhisperConfig {
        WhisperConfig {
            vocab_size: 40,
            num_mel_bins: 8,
            d_model: 16,
            encoder_layers: 2,
            encoder_attention_heads: 4,
            encoder_ffn_dim: 24,
            decoder_layers: 2,
            decoder_attention_heads: 4,
            decoder_ffn_dim: 24,
            max_source_positions: 10,
            max_target_positions: 24,
            ..WhisperConfig::default()
        }
    }

    fn near(a: Tensor<3>, b: Tensor<3>) {
        assert_eq!(a.dims(), b.dims());
        let worst = (a - b).abs().max().into_scalar::<f32>();
        assert!(worst < 1e-5, "differs by {worst}");
    }

    #[test]
    fn steps_through_a_cache_give_what_the_whole_sequence_gives() {
        let device = Device::flex();
        let model = WhisperForConditionalGeneration::new(&tiny(), true, &device).unwrap();
        let features = Tensor::random([2, 8, 20], Distribution::Normal(0.0, 1.0), &device);
        let encoded = model.trunk().encode(features);
        // Two recordings of two beams each.
        let rows: Vec<i64> = (0..4 * 9)
            .map(|index| (index * 7 + index / 5) % 40)
            .collect();
        let ids = Tensor::<1, Int>::from_data(&rows[..], &device).reshape([4, 9]);
        let beams = encoded
            .clone()
            .select(0, Tensor::from_data([0, 0, 1, 1], &device));
        let whole = model.forward(ids.clone().into(), beams.clone());

        let mut cache = model.trunk().cache(encoded, 2, 24);
        let mut parts = Vec::new();
        for (start, end) in [(0, 4), (4, 5), (5, 7), (7, 9)] {
            parts.push(model.step(ids.clone().slice([0..4, start..end]), &mut cache));
        }
        assert_eq!((cache.length(), cache.room()), (9, 15));
        near(Tensor::cat(parts, 1), whole);

        // The beams of each recording change places.
        let order = Tensor::from_data([1, 0, 2, 2], &device);
        cache.reorder(&order);
        let next = Tensor::from_data([[3], [4], [5], [6]], &device);
        let stepped = model.step(next.clone(), &mut cache);
        let longer = Tensor::cat(vec![ids.select(0, order), next], 1);
        let whole = model.forward(longer.into(), beams);
        near(stepped, whole.slice([0..4, 9..10]));
    }
}
