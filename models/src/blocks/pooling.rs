//! From token vectors to one vector a text, as sentence-transformers does it.
//!
//! Reference: `sentence_transformers/sentence_transformer/modules/{pooling,dense,normalize}.py` of
//! sentence-transformers 6.2.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};
use salamander_importers::{Checkpoint, KeyMap};
use serde::Deserialize;
use serde_json::Value;

use super::{Activation, LayerNorm};
use crate::config::{null_is_default, parse};
use crate::load::load;
use crate::{ConfigError, LoadError};

/// One way to make a vector of many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub enum Mode {
    /// The first token's.
    #[serde(rename = "cls")]
    Cls,
    /// The largest of each component.
    #[serde(rename = "max")]
    Max,
    /// The mean.
    #[serde(rename = "mean")]
    Mean,
    /// The sum over the square root of the count.
    #[serde(rename = "mean_sqrt_len_tokens")]
    MeanSqrtLen,
    /// The mean weighted by position.
    #[serde(rename = "weightedmean")]
    WeightedMean,
    /// The last token's.
    #[serde(rename = "lasttoken")]
    LastToken,
}

/// A pooling: one mode, or several whose vectors are concatenated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pooling {
    modes: Vec<Mode>,
    /// Whether the tokens of a prompt are pooled too.
    pub include_prompt: bool,
}

impl Default for Pooling {
    /// The mean over all tokens, which is what sentence-transformers does with a plain encoder.
    fn default() -> Self {
        Self {
            modes: vec![Mode::Mean],
            include_prompt: true,
        }
    }
}

/// `1_Pooling/config.json` of today (`pooling_mode`) and of before (a flag a mode).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PoolingConfig {
    pooling_mode: Option<OneOrMany>,
    #[serde(default, deserialize_with = "null_is_default")]
    pooling_mode_cls_token: bool,
    #[serde(default, deserialize_with = "null_is_default")]
    pooling_mode_max_tokens: bool,
    #[serde(default, deserialize_with = "null_is_default")]
    pooling_mode_mean_tokens: bool,
    #[serde(default, deserialize_with = "null_is_default")]
    pooling_mode_mean_sqrt_len_tokens: bool,
    #[serde(default, deserialize_with = "null_is_default")]
    pooling_mode_weightedmean_tokens: bool,
    #[serde(default, deserialize_with = "null_is_default")]
    pooling_mode_lasttoken: bool,
    include_prompt: Option<bool>,
    /// The width of a token's vector, which the network says itself.
    #[serde(default, rename = "embedding_dimension")]
    _width: Option<usize>,
    #[serde(default, rename = "word_embedding_dimension")]
    _width_before: Option<usize>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(Mode),
    Many(Vec<Mode>),
}

impl Pooling {
    /// Reads a parsed `1_Pooling/config.json`.
    ///
    /// # Errors
    /// A field is unknown or has the wrong type, or a mode is unknown.
    pub fn parse(json: &Value) -> Result<Self, ConfigError> {
        let config: PoolingConfig = parse(json)?;
        let modes = match config.pooling_mode {
            Some(OneOrMany::One(mode)) => vec![mode],
            Some(OneOrMany::Many(modes)) => modes,
            None => {
                let flags = [
                    (config.pooling_mode_cls_token, Mode::Cls),
                    (config.pooling_mode_max_tokens, Mode::Max),
                    (config.pooling_mode_mean_tokens, Mode::Mean),
                    (config.pooling_mode_mean_sqrt_len_tokens, Mode::MeanSqrtLen),
                    (config.pooling_mode_weightedmean_tokens, Mode::WeightedMean),
                    (config.pooling_mode_lasttoken, Mode::LastToken),
                ];
                let chosen = flags.iter().filter(|(on, _)| *on).map(|(_, mode)| *mode);
                let chosen: Vec<Mode> = chosen.collect();
                if chosen.is_empty() {
                    vec![Mode::Mean]
                } else {
                    chosen
                }
            }
        };
        if modes.is_empty() {
            return Err(ConfigError::new("pooling_mode", "no mode is chosen"));
        }
        Ok(Self {
            modes,
            include_prompt: config.include_prompt.unwrap_or(true),
        })
    }

    /// The modes, in the order in which their vectors are concatenated.
    pub fn modes(&self) -> &[Mode] {
        &self.modes
    }

    /// Pools the tokens of each text.
    ///
    /// `lengths` counts the tokens of each text before its padding, which is on the right; the first
    /// `prompt` of them are left out.
    ///
    /// # Shapes
    /// `[b, s, hidden]` → `[b, modes · hidden]`
    pub fn forward(&self, hidden: Tensor<3>, lengths: &[usize], prompt: usize) -> Tensor<2> {
        let [batch, sequence, width] = hidden.dims();
        let device = hidden.device();
        let prompt = if self.include_prompt { 0 } else { prompt };
        // A text with nothing beyond its prompt has no vector to pool; its first token then stands for it,
        // as the reference's argmax over an empty mask does.
        let first = |length: usize| if prompt < length { prompt } else { 0 };
        let pooled = |position: usize, length: usize| (prompt..length).contains(&position);
        let table = |value: &dyn Fn(usize, usize) -> f32| -> Tensor<3> {
            let values: Vec<f32> = lengths
                .iter()
                .flat_map(|&length| (0..sequence).map(move |position| value(position, length)))
                .collect();
            Tensor::from_data(TensorData::new(values, [batch, sequence, 1]), &device)
        };
        let indicator = |on: bool| if on { 1.0 } else { 0.0 };
        let sum = |weights: &Tensor<3>| -> Tensor<2> {
            (hidden.clone() * weights.clone())
                .sum_dim(1)
                .reshape([batch, width])
        };
        let total = |weights: &Tensor<3>| -> Tensor<2> {
            weights
                .clone()
                .sum_dim(1)
                .reshape([batch, 1])
                .clamp_min(1e-9)
        };
        let vectors = self.modes.iter().map(|mode| match mode {
            Mode::Cls => sum(&table(&|position, length| {
                indicator(position == first(length))
            })),
            Mode::LastToken => sum(&table(&|position, length| {
                indicator(position + 1 == length)
            })),
            Mode::Max => {
                let lowest = table(&|position, length| {
                    if pooled(position, length) {
                        0.0
                    } else {
                        f32::NEG_INFINITY
                    }
                });
                (hidden.clone() + lowest).max_dim(1).reshape([batch, width])
            }
            Mode::Mean | Mode::MeanSqrtLen => {
                let mask = table(&|position, length| indicator(pooled(position, length)));
                let count = total(&mask);
                let count = if *mode == Mode::Mean {
                    count
                } else {
                    count.sqrt()
                };
                sum(&mask) / count
            }
            Mode::WeightedMean => {
                let weights = table(&|position, length| {
                    indicator(pooled(position, length)) * (position + 1) as f32
                });
                sum(&weights) / total(&weights)
            }
        });
        Tensor::cat(vectors.collect(), 1)
    }
}

/// A linear layer after the pooling.
#[derive(Module, Debug)]
pub struct Dense {
    linear: Linear,
    residual: Option<Linear>,
    #[module(skip)]
    activation: Activation,
    use_residual: bool,
    #[module(skip)]
    widths: (usize, usize),
}

#[derive(Deserialize)]
struct DenseConfig {
    in_features: usize,
    out_features: usize,
    #[serde(default = "yes")]
    bias: bool,
    #[serde(default = "tanh")]
    activation_function: String,
    #[serde(default)]
    use_residual: bool,
}

fn yes() -> bool {
    true
}

fn tanh() -> String {
    "torch.nn.Tanh".to_owned()
}

/// Refuses a module that reads or writes anything but the pooled vector.
///
/// # Errors
/// `module_input_name` or `module_output_name` is another.
pub fn check_names(json: &Value) -> Result<(), ConfigError> {
    for field in ["module_input_name", "module_output_name"] {
        let name = json.get(field).unwrap_or(&Value::Null);
        if !name.is_null() && name != "sentence_embedding" {
            let reason = format!("{name} is not supported; only \"sentence_embedding\" is");
            return Err(ConfigError::new(field, reason));
        }
    }
    Ok(())
}

impl Dense {
    /// Builds and fills it from a parsed `2_Dense/config.json` and the weights beside it.
    ///
    /// # Errors
    /// The configuration cannot be honoured, or the checkpoint does not hold its weights.
    pub fn load(json: &Value, checkpoint: &Checkpoint, device: &Device) -> Result<Self, LoadError> {
        let config: DenseConfig = parse(json)?;
        check_names(json)?;
        let activation = Activation::of_torch("activation_function", &config.activation_function)?;
        let (input, output) = (config.in_features, config.out_features);
        let projected = config.use_residual && input != output;
        let module = Self {
            linear: LinearConfig::new(input, output)
                .with_bias(config.bias)
                .init(device),
            residual: projected.then(|| {
                LinearConfig::new(input, output)
                    .with_bias(false)
                    .init(device)
            }),
            activation,
            use_residual: config.use_residual,
            widths: (input, output),
        };
        let map = KeyMap::new(&[], &[""]);
        Ok(load(module, "Dense", &map, checkpoint)?)
    }

    /// The widths of its input and of its output.
    pub fn widths(&self) -> (usize, usize) {
        self.widths
    }

    /// # Shapes
    /// `[b, in]` → `[b, out]`
    pub fn forward(&self, input: Tensor<2>) -> Tensor<2> {
        let output = self.activation.forward(self.linear.forward(input.clone()));
        match (&self.residual, self.use_residual) {
            (Some(projection), _) => output + projection.forward(input),
            (None, true) => output + input,
            (None, false) => output,
        }
    }
}

/// A layer norm after the pooling.
#[derive(Module, Debug)]
pub struct VectorNorm {
    norm: LayerNorm,
    #[module(skip)]
    width: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VectorNormConfig {
    dimension: usize,
}

impl VectorNorm {
    /// Builds and fills it from a parsed `2_LayerNorm/config.json` and the weights beside it.
    ///
    /// # Errors
    /// The configuration cannot be honoured, or the checkpoint does not hold its weights.
    pub fn load(json: &Value, checkpoint: &Checkpoint, device: &Device) -> Result<Self, LoadError> {
        let config: VectorNormConfig = parse(json)?;
        let module = Self {
            norm: LayerNorm::new(config.dimension, 1e-5, device),
            width: config.dimension,
        };
        let map = KeyMap::new(&[], &[""]);
        Ok(load(module, "LayerNorm", &map, checkpoint)?)
    }

    /// The width of its input.
    pub fn width(&self) -> usize {
        self.width
    }

    /// # Shapes
    /// `[b, width]` → the same
    pub fn forward(&self, rows: Tensor<2>) -> Tensor<2> {
        self.norm.forward(rows)
    }
}

/// Scales each row to length 1.
///
/// # Shapes
/// `[b, width]` → the same
pub fn normalize(rows: Tensor<2>) -> Tensor<2> {
    // torch.nn.functional.normalize's guard against a row of zeros.
    let length = (rows.clone() * rows.clone())
        .sum_dim(1)
        .sqrt()
        .clamp_min(1e-12);
    rows / length
}
