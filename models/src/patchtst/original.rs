//! PatchTST as its authors' repository trains it.
//!
//! It differs from the transformers class in its scaling (optionally affine, by the mean or the last
//! value), its padding at the end, the attention scores that every layer adds to the next one's, and in
//! what stands before a norm.
//!
//! Shapes: `b` windows, `t` steps, `c` series, `n` patches of `p` steps, `d` the width.

use burn::module::{Initializer, Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use salamander_importers::Checkpoint;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::config::NormType;
use super::detect;
use super::model::Norm;
use crate::blocks::{Activation, Attention, Mask, Mlp};
use crate::config::{check_counts, check_heads, check_sizes, parse};
use crate::detect::{Field, complete};
use crate::{ConfigError, LoadError};

/// ε of the scaling and of every norm.
const EPSILON: f64 = 1e-5;

/// The arguments of `run_longExp.py` that change the numbers, with their names there.
///
/// What is absent is read from the checkpoint's names and shapes; what those do not show has the
/// script's default.
#[derive(Debug, Clone, Deserialize)]
pub struct OriginalConfig {
    /// The number of past steps.
    pub seq_len: usize,
    /// The number of future steps.
    pub pred_len: usize,
    /// The number of series; without it any number is taken.
    #[serde(default)]
    pub enc_in: Option<usize>,
    /// The width of a hidden state.
    pub d_model: usize,
    /// The number of attention heads; divides `d_model`.
    pub n_heads: usize,
    /// The number of encoder layers.
    pub e_layers: usize,
    /// The width inside the MLP.
    pub d_ff: usize,
    /// The number of steps in a patch.
    pub patch_len: usize,
    /// The number of steps from a patch to the next.
    pub stride: usize,
    /// `end`, or nothing.
    pub padding_patch: Option<String>,
    /// Whether windows are scaled at all.
    #[serde(deserialize_with = "flag")]
    pub revin: bool,
    /// Whether the scaling has learned gains and offsets.
    #[serde(deserialize_with = "flag")]
    pub affine: bool,
    /// Whether the last value is subtracted, instead of the mean.
    #[serde(deserialize_with = "flag")]
    pub subtract_last: bool,
    /// Whether trend and rest have networks of their own.
    #[serde(deserialize_with = "flag")]
    pub decomposition: bool,
    /// The width of the average that is the trend.
    pub kernel_size: usize,
    /// Whether every series has a head of its own.
    #[serde(deserialize_with = "flag")]
    pub individual: bool,
    /// Whether attention scores are added to those of the next layer.
    #[serde(deserialize_with = "flag")]
    pub res_attention: bool,
    /// Whether norms stand before attention and MLP.
    #[serde(deserialize_with = "flag")]
    pub pre_norm: bool,
    /// The kind of positional encoding; some kinds are one number a patch.
    pub pe: Option<String>,
    /// `gelu` or `relu`.
    pub act: String,
    /// `BatchNorm` or anything else for a layer norm.
    pub norm: String,
}

/// The script's flags are 0 and 1.
fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Bool(flag) => Ok(flag),
        Value::Number(number) if number.as_u64() == Some(0) => Ok(false),
        Value::Number(number) if number.as_u64() == Some(1) => Ok(true),
        other => {
            let reason = format!("{other} is not one of 0, 1, false, true");
            Err(serde::de::Error::custom(reason))
        }
    }
}

impl OriginalConfig {
    /// Reads and checks the arguments, completed by what the checkpoint shows.
    ///
    /// # Errors
    /// An argument has the wrong type or a value that cannot be honoured, the checkpoint is not of this
    /// layout, or its data cannot be read.
    pub fn parse(json: &Value, checkpoint: &Checkpoint) -> Result<Self, LoadError> {
        let Value::Object(given) = json else {
            return Err(ConfigError::new("", "is not an object").into());
        };
        let Some(fields) = detect::original(checkpoint, given) else {
            let reason = "patchtst/original needs `backbone.W_P.weight` and `backbone.W_pos`, which the checkpoint lacks";
            return Err(ConfigError::new("architectures", reason).into());
        };
        let mut json = complete(given, &fields);
        // The reference drops its argument `norm` on the way: only the checkpoint tells.
        let norm = fields.iter().find(|field| field.name == "norm");
        if let Some(value) = norm.and_then(Field::value) {
            json.insert("norm".to_owned(), value.clone());
        }
        let config: Self = parse(&json.into())?;
        config.check(checkpoint)?;
        Ok(config)
    }

    fn check(&self, checkpoint: &Checkpoint) -> Result<(), ConfigError> {
        let sizes = [
            ("seq_len", self.seq_len),
            ("pred_len", self.pred_len),
            ("enc_in", self.enc_in.unwrap_or(1)),
            ("d_model", self.d_model),
            ("n_heads", self.n_heads),
            ("d_ff", self.d_ff),
            ("patch_len", self.patch_len),
            ("stride", self.stride),
            ("kernel_size", self.kernel_size),
        ];
        check_sizes(&sizes, 1 << 20)?;
        if self.seq_len < self.patch_len {
            let reason = format!(
                "{} is shorter than a patch of {}",
                self.seq_len, self.patch_len
            );
            return Err(ConfigError::new("seq_len", reason));
        }
        check_heads(("n_heads", self.n_heads), ("d_model", self.d_model))?;
        if self.kernel_size.is_multiple_of(2) {
            let reason = format!("{} is even; the average needs a middle", self.kernel_size);
            return Err(ConfigError::new("kernel_size", reason));
        }
        let claims = [
            ("e_layers", self.e_layers),
            ("enc_in", self.own_heads().unwrap_or(1)),
        ];
        check_counts(&claims, checkpoint.len())?;
        if (self.individual || (self.revin && self.affine)) && self.enc_in.is_none() {
            return Err(ConfigError::new(
                "enc_in",
                "is missing, and the checkpoint does not show it",
            ));
        }
        if let Some(other) = self
            .padding_patch
            .as_deref()
            .filter(|p| !["end", "None"].contains(p))
        {
            let reason = format!("\"{other}\" is not one of \"end\", \"None\", null");
            return Err(ConfigError::new("padding_patch", reason));
        }
        self.activation()?;
        Ok(())
    }

    fn padded(&self) -> bool {
        self.padding_patch.as_deref() == Some("end")
    }

    /// The number of heads where every series has one.
    fn own_heads(&self) -> Option<usize> {
        self.enc_in.filter(|_| self.individual)
    }

    fn patches(&self) -> usize {
        (self.seq_len - self.patch_len) / self.stride + 1 + usize::from(self.padded())
    }

    /// The width of a positional encoding.
    fn positions(&self) -> usize {
        match self.pe.as_deref() {
            Some("zero" | "normal" | "gauss" | "uniform" | "lin1d" | "exp1d") => 1,
            _ => self.d_model,
        }
    }

    fn activation(&self) -> Result<Activation, ConfigError> {
        match &self.act.to_lowercase()[..] {
            name @ ("gelu" | "relu") => Activation::parse("act", name),
            other => {
                let reason = format!("\"{other}\" is not one of gelu, relu");
                Err(ConfigError::new("act", reason))
            }
        }
    }

    fn norm(&self) -> NormType {
        if self.norm.to_lowercase().contains("batch") {
            NormType::Batch
        } else {
            NormType::Layer
        }
    }
}

/// The whole model: one network, or one for the trend and one for the rest.
#[derive(Module, Debug)]
pub struct Original {
    whole: Option<Backbone>,
    trend: Option<Backbone>,
    residual: Option<Backbone>,
    kernel: usize,
}

impl Original {
    /// An unfilled model.
    ///
    /// # Errors
    /// The arguments cannot be honoured.
    pub fn new(config: &OriginalConfig, device: &Device) -> Result<Self, ConfigError> {
        let backbone = |wanted: bool| wanted.then(|| Backbone::new(config, device)).transpose();
        let split = config.decomposition;
        Ok(Self {
            whole: backbone(!split)?,
            trend: backbone(split)?,
            residual: backbone(split)?,
            kernel: config.kernel_size,
        })
    }

    /// # Shapes
    /// `[b, t, c]` → `[b, horizon, c]`
    pub fn forward(&self, past: Tensor<3>) -> Tensor<3> {
        let series = past.swap_dims(1, 2);
        let forecast = match (&self.whole, &self.trend, &self.residual) {
            (None, Some(trend), Some(residual)) => {
                let smooth = moving_average(series.clone(), self.kernel);
                residual.forward(series - smooth.clone()) + trend.forward(smooth)
            }
            (Some(whole), _, _) => whole.forward(series),
            // `new` makes one or two of them.
            _ => series,
        };
        forecast.swap_dims(1, 2)
    }

    /// The embedded patches and every layer's hidden states of the network, or of the trend's.
    ///
    /// # Shapes
    /// `[b, t, c]` → `layers + 1` times `[b, c, n, d]`
    pub fn hidden_states(&self, past: Tensor<3>) -> Vec<Tensor<4>> {
        let series = past.swap_dims(1, 2);
        match (&self.whole, &self.trend) {
            (Some(whole), _) => whole.hidden_states(series),
            (None, Some(trend)) => trend.hidden_states(moving_average(series, self.kernel)),
            (None, None) => Vec::new(),
        }
    }
}

/// The average of `kernel` steps around each, the ends repeated.
///
/// # Shapes
/// `[b, c, t]` → the same
fn moving_average(series: Tensor<3>, kernel: usize) -> Tensor<3> {
    let [batch, channels, steps] = series.dims();
    let side = (kernel - 1) / 2;
    if side == 0 {
        return series;
    }
    let edge = |step| {
        series
            .clone()
            .narrow(2, step, 1)
            .expand([batch, channels, side])
    };
    let padded = Tensor::cat(vec![edge(0), series.clone(), edge(steps - 1)], 2);
    let windows: Tensor<4> = padded.unfold(2, kernel, 1);
    windows.mean_dim(3).reshape([batch, channels, steps])
}

#[derive(Module, Debug)]
struct Backbone {
    embedding: Linear,
    /// One row a patch, as wide as a state or one wide.
    positions: Param<Tensor<2>>,
    layers: Vec<Layer>,
    /// One, or one a series.
    heads: Vec<Linear>,
    revin_weight: Option<Param<Tensor<1>>>,
    revin_bias: Option<Param<Tensor<1>>>,
    revin: bool,
    subtract_last: bool,
    padded: bool,
    patch: usize,
    stride: usize,
}

impl Backbone {
    fn new(config: &OriginalConfig, device: &Device) -> Result<Self, ConfigError> {
        let (width, patches) = (config.d_model, config.patches());
        let layers = (0..config.e_layers).map(|_| Layer::new(config, device));
        let head = || LinearConfig::new(width * patches, config.pred_len).init(device);
        let affine = config.enc_in.filter(|_| config.revin && config.affine);
        Ok(Self {
            embedding: LinearConfig::new(config.patch_len, width).init(device),
            positions: Initializer::Zeros.init([patches, config.positions()], device),
            layers: layers.collect::<Result<_, _>>()?,
            heads: (0..config.own_heads().unwrap_or(1))
                .map(|_| head())
                .collect(),
            revin_weight: affine.map(|c| Initializer::Ones.init([c], device)),
            revin_bias: affine.map(|c| Initializer::Zeros.init([c], device)),
            revin: config.revin,
            subtract_last: config.subtract_last,
            padded: config.padded(),
            patch: config.patch_len,
            stride: config.stride,
        })
    }

    /// # Shapes
    /// `[b, c, t]` → `[b, c, horizon]`
    fn forward(&self, series: Tensor<3>) -> Tensor<3> {
        let (series, loc, scale) = self.normalize(series);
        let mut states = self.encode(series);
        let Some(hidden) = states.pop() else {
            return loc;
        };
        let [batch, channels, patches, width] = hidden.dims();
        // The width stands before the patches in the head's rows.
        let rows = hidden
            .swap_dims(2, 3)
            .reshape([batch, channels, width * patches]);
        let forecast = match &self.heads[..] {
            [shared] => {
                let rows = shared.forward(rows.reshape([batch * channels, width * patches]));
                let [_, horizon] = rows.dims();
                rows.reshape([batch, channels, horizon])
            }
            own => {
                let series = own.iter().enumerate().map(|(channel, head)| {
                    let rows = rows.clone().narrow(1, channel, 1);
                    let rows = head.forward(rows.reshape([batch, width * patches]));
                    let [_, horizon] = rows.dims();
                    rows.reshape([batch, 1, horizon])
                });
                Tensor::cat(series.collect(), 1)
            }
        };
        let forecast = match (&self.revin_weight, &self.revin_bias) {
            (Some(weight), Some(bias)) => {
                let weight = across(weight) + EPSILON * EPSILON;
                (forecast - across(bias)) / weight
            }
            _ => forecast,
        };
        forecast * scale + loc
    }

    /// # Shapes
    /// `[b, c, t]` → `layers + 1` times `[b, c, n, d]`
    fn hidden_states(&self, series: Tensor<3>) -> Vec<Tensor<4>> {
        self.encode(self.normalize(series).0)
    }

    /// # Shapes
    /// `[b, c, t]` → the same, loc `[b, c, 1]`, scale `[b, c, 1]`
    fn normalize(&self, series: Tensor<3>) -> (Tensor<3>, Tensor<3>, Tensor<3>) {
        let [batch, channels, steps] = series.dims();
        if !self.revin {
            let device = series.device();
            let shape = [batch, channels, 1];
            return (
                series,
                Tensor::zeros(shape, &device),
                Tensor::ones(shape, &device),
            );
        }
        let mean = series.clone().mean_dim(2);
        let centred = series.clone() - mean.clone();
        // Far from zero a mean loses digits that the deviations still have.
        let rest = centred.clone().mean_dim(2);
        let (mean, centred) = (mean + rest.clone(), centred - rest);
        let scale = (centred.clone().square().mean_dim(2) + EPSILON).sqrt();
        let (loc, centred) = if self.subtract_last {
            let last = series.clone().narrow(2, steps - 1, 1);
            (last.clone(), series - last)
        } else {
            (mean, centred)
        };
        let scaled = centred / scale.clone();
        let scaled = match (&self.revin_weight, &self.revin_bias) {
            (Some(weight), Some(bias)) => scaled * across(weight) + across(bias),
            _ => scaled,
        };
        (scaled, loc, scale)
    }

    fn encode(&self, series: Tensor<3>) -> Vec<Tensor<4>> {
        let [batch, channels, steps] = series.dims();
        let series = if self.padded {
            let last = series.clone().narrow(2, steps - 1, 1);
            let padding = last.expand([batch, channels, self.stride]);
            Tensor::cat(vec![series, padding], 2)
        } else {
            series
        };
        let patches: Tensor<4> = series.unfold(2, self.patch, self.stride);
        let [_, _, count, length] = patches.dims();
        let rows = patches.reshape([batch * channels * count, length]);
        let rows = self.embedding.forward(rows);
        let [_, width] = rows.dims();
        let rows = rows.reshape([batch * channels, count, width]);
        let mut rows = rows + self.positions.val().unsqueeze::<3>();
        let shape = [batch, channels, count, width];
        let mut states = vec![rows.clone().reshape(shape)];
        let mut scores = None;
        for layer in &self.layers {
            (rows, scores) = layer.forward(rows, scores);
            states.push(rows.clone().reshape(shape));
        }
        states
    }
}

/// A number for each series, over windows and steps.
fn across(parameter: &Param<Tensor<1>>) -> Tensor<3> {
    let values = parameter.val();
    let [channels] = values.dims();
    values.reshape([1, channels, 1])
}

#[derive(Module, Debug)]
struct Layer {
    attention: Attention,
    attention_norm: Norm,
    mlp: Mlp,
    mlp_norm: Norm,
    pre_norm: bool,
    residual_scores: bool,
}

impl Layer {
    fn new(config: &OriginalConfig, device: &Device) -> Result<Self, ConfigError> {
        let norm = || Norm::new(config.norm(), config.d_model, EPSILON, device);
        Ok(Self {
            attention: Attention::new(config.d_model, config.n_heads, [true; 3], device),
            attention_norm: norm()?,
            mlp: Mlp::new(
                config.d_model,
                config.d_ff,
                true,
                config.activation()?,
                device,
            ),
            mlp_norm: norm()?,
            pre_norm: config.pre_norm,
            residual_scores: config.res_attention,
        })
    }

    /// # Shapes
    /// `[rows, n, d]`, scores `[rows, heads, n, n]` → the same
    fn forward(
        &self,
        rows: Tensor<3>,
        before: Option<Tensor<4>>,
    ) -> (Tensor<3>, Option<Tensor<4>>) {
        // Here the residual sum starts from the normed rows.
        let rows = self.norm_if(self.pre_norm, &self.attention_norm, rows);
        let (attended, scores) = if self.residual_scores {
            let (attended, scores) = self.attend(rows.clone(), before);
            (attended, Some(scores))
        } else {
            (self.attention.forward(rows.clone(), Mask::default()), None)
        };
        let rows = self.norm_if(!self.pre_norm, &self.attention_norm, rows + attended);
        let rows = self.norm_if(self.pre_norm, &self.mlp_norm, rows);
        let mixed = self.mlp.forward(rows.clone());
        (
            self.norm_if(!self.pre_norm, &self.mlp_norm, rows + mixed),
            scores,
        )
    }

    fn norm_if(&self, here: bool, norm: &Norm, rows: Tensor<3>) -> Tensor<3> {
        if here { norm.forward(rows) } else { rows }
    }

    /// Attention whose scores add to those of the layer before.
    fn attend(&self, rows: Tensor<3>, before: Option<Tensor<4>>) -> (Tensor<3>, Tensor<4>) {
        let query = self.attention.query(rows.clone());
        let (key, value) = self.attention.key_value(rows);
        let [_, _, _, width] = query.dims();
        let scores = query.matmul(key.swap_dims(2, 3)) / (width as f64).sqrt();
        let scores = match before {
            Some(before) => scores + before,
            None => scores,
        };
        let context = softmax(scores.clone(), 3).matmul(value);
        (self.attention.project(context), scores)
    }
}
