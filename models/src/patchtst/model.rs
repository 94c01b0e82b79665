//! The trunk, top-down.
//!
//! Shapes: `b` windows in the batch, `t` steps of `c` series each, `n` patches of `p` steps, `s` states
//! (the patches, and the class token), `d` the width.

use std::sync::OnceLock;

use burn::module::{Initializer, Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

use super::config::{NormType, PatchTstConfig, Scaling};
use crate::ConfigError;
use crate::blocks::{Activation, Attention, LayerNorm, Mask, Mlp, linear, scale_shift};

/// A window of the past on a device.
#[derive(Debug, Clone)]
pub struct Past {
    /// `[b, t, c]`
    pub values: Tensor<3>,
    /// 1 where a value was observed, 0 where it is missing, `[b, t, c]`; without it all were observed.
    pub observed: Option<Tensor<3>>,
}

/// A window of the past, brought to a common scale and cut into patches.
#[derive(Debug, Clone)]
pub struct Patched {
    /// `[b, c, n, p]`
    pub patches: Tensor<4>,
    /// What was subtracted, `[b, 1, c]`.
    pub loc: Tensor<3>,
    /// What was divided by, `[b, 1, c]`.
    pub scale: Tensor<3>,
}

/// The encoder, with what comes before it.
#[derive(Module, Debug)]
pub struct PatchTst {
    /// One, or one a series.
    embeddings: Vec<Linear>,
    position_enc: Param<Tensor<2>>,
    cls_token: Option<Param<Tensor<4>>>,
    layers: Vec<Layer>,
    #[module(skip)]
    scaler: Scaler,
    patch: usize,
    stride: usize,
}

impl PatchTst {
    /// An unfilled trunk.
    ///
    /// # Errors
    /// The configuration cannot be honoured.
    pub fn new(config: &PatchTstConfig, device: &Device) -> Result<Self, ConfigError> {
        let width = config.d_model;
        let embeddings = if config.share_embedding {
            1
        } else {
            config.num_input_channels
        };
        let embedding = || LinearConfig::new(config.patch_length, width).init(device);
        let layers = (0..config.num_hidden_layers).map(|_| Layer::new(config, device));
        let zeros = Initializer::Zeros;
        Ok(Self {
            embeddings: (0..embeddings).map(|_| embedding()).collect(),
            position_enc: zeros.init([config.states(), width], device),
            cls_token: config
                .use_cls_token
                .then(|| zeros.init([1, 1, 1, width], device)),
            layers: layers.collect::<Result<_, _>>()?,
            scaler: Scaler::new(config),
            patch: config.patch_length,
            stride: config.patch_stride,
        })
    }

    /// Scales a window and cuts it into patches.
    ///
    /// # Shapes
    /// `[b, t, c]` → `[b, c, n, p]`, `[b, 1, c]`, `[b, 1, c]`
    pub fn patch(&self, past: Past) -> Patched {
        let (values, loc, scale) = self.scaler.forward(past);
        let [_, steps, _] = values.dims();
        // Steps that fill no patch are the oldest.
        let unused = (steps - self.patch) % self.stride;
        let series = values.swap_dims(1, 2).narrow(2, unused, steps - unused);
        Patched {
            patches: series.unfold(2, self.patch, self.stride),
            loc,
            scale,
        }
    }

    /// The embedded patches and every layer's hidden states, in order.
    ///
    /// # Shapes
    /// `[b, c, n, p]` → `layers + 1` times `[b, c, s, d]`
    pub fn hidden_states(&self, patches: Tensor<4>) -> Vec<Tensor<4>> {
        let mut states = vec![self.embed(patches)];
        for layer in &self.layers {
            let hidden = states[states.len() - 1].clone();
            states.push(layer.forward(hidden));
        }
        states
    }

    /// The last layer's hidden states.
    ///
    /// # Shapes
    /// `[b, c, n, p]` → `[b, c, s, d]`
    pub fn forward(&self, patches: Tensor<4>) -> Tensor<4> {
        let embedded = self.embed(patches);
        let layers = self.layers.iter();
        layers.fold(embedded, |hidden, layer| layer.forward(hidden))
    }

    /// # Shapes
    /// `[b, c, n, p]` → `[b, c, s, d]`
    fn embed(&self, patches: Tensor<4>) -> Tensor<4> {
        let [batch, channels, count, length] = patches.dims();
        let embed = |layer: &Linear, patches: Tensor<4>| {
            let [batch, channels, _, _] = patches.dims();
            let rows = patches.reshape([batch * channels * count, length]);
            let embedded = linear(layer, rows, None, Activation::Linear);
            let [_, width] = embedded.dims();
            embedded.reshape([batch, channels, count, width])
        };
        let embedded = match &self.embeddings[..] {
            [shared] => embed(shared, patches),
            own => {
                let own = own.iter().enumerate();
                let series = own.map(|(c, layer)| embed(layer, patches.clone().narrow(1, c, 1)));
                Tensor::cat(series.collect(), 1)
            }
        };
        let positions = self.position_enc.val();
        let [states, width] = positions.dims();
        let Some(token) = &self.cls_token else {
            return embedded + positions.reshape([1, 1, states, width]);
        };
        let first = positions.clone().narrow(0, 0, 1);
        let token = token.val() + first.reshape([1, 1, 1, width]);
        let rest = positions.narrow(0, 1, states - 1);
        let embedded = embedded + rest.reshape([1, 1, states - 1, width]);
        let token = token.expand([batch, channels, 1, width]);
        Tensor::cat(vec![token, embedded], 2)
    }
}

/// Brings windows to a common scale.
#[derive(Debug, Clone, Copy)]
struct Scaler {
    scaling: Scaling,
    minimum: f64,
    unobserved: Option<f64>,
}

impl Scaler {
    fn new(config: &PatchTstConfig) -> Self {
        let (minimum, unobserved) = config.scale_limits();
        Self {
            scaling: config.scaling(),
            minimum,
            unobserved,
        }
    }

    /// # Shapes
    /// `[b, t, c]` → `[b, t, c]`, loc `[b, 1, c]`, scale `[b, 1, c]`
    fn forward(&self, past: Past) -> (Tensor<3>, Tensor<3>, Tensor<3>) {
        let Past { values, observed } = past;
        let [batch, _, channels] = values.dims();
        if self.scaling == Scaling::None {
            let device = values.device();
            let shape = [batch, 1, channels];
            return (
                values,
                Tensor::zeros(shape, &device),
                Tensor::ones(shape, &device),
            );
        }
        let observed = observed.unwrap_or_else(|| values.ones_like());
        let total = observed.clone().sum_dim(1);
        let count = total.clone().clamp_min(1.0);
        if self.scaling == Scaling::Std {
            let mean = |values: Tensor<3>| (values * observed.clone()).sum_dim(1) / count.clone();
            let loc = mean(values.clone());
            let centred = values - loc.clone();
            // Far from zero a mean loses digits that the deviations still have.
            let rest = mean(centred.clone());
            let (loc, centred) = (loc + rest.clone(), centred - rest);
            let variance = (centred.clone() * observed).square().sum_dim(1) / count;
            let scale = (variance + self.minimum).sqrt();
            return (centred / scale.clone(), loc, scale);
        }
        let sum = (values.clone() * observed).abs().sum_dim(1);
        let scale = sum.clone() / count;
        // A series without observations takes the scale of the others of its channel in the batch.
        let fallback = match self.unobserved {
            Some(scale) => sum.ones_like() * scale,
            None => {
                let total = total.clone().sum_dim(0).clamp_min(1.0);
                (sum.sum_dim(0) / total).expand([batch, 1, channels])
            }
        };
        let scale = scale.mask_where(total.lower_equal_elem(0.0), fallback);
        let scale = scale.clamp_min(self.minimum);
        (values / scale.clone(), scale.zeros_like(), scale)
    }
}

#[derive(Module, Debug)]
struct Layer {
    attention: Attention,
    attention_norm: Norm,
    /// After the same attention across series.
    channel_norm: Option<Norm>,
    mlp: Mlp,
    mlp_norm: Norm,
    pre_norm: bool,
}

impl Layer {
    fn new(config: &PatchTstConfig, device: &Device) -> Result<Self, ConfigError> {
        let norm = || Norm::new(config.norm()?, config.d_model, config.norm_eps, device);
        Ok(Self {
            attention: Attention::new(
                config.d_model,
                config.num_attention_heads,
                [true; 3],
                device,
            ),
            attention_norm: norm()?,
            channel_norm: config.channel_attention.then(norm).transpose()?,
            mlp: Mlp::new(
                config.d_model,
                config.ffn_dim,
                config.bias,
                config.activation()?,
                device,
            ),
            mlp_norm: norm()?,
            pre_norm: config.pre_norm,
        })
    }

    /// # Shapes
    /// `[b, c, s, d]` → the same
    fn forward(&self, hidden: Tensor<4>) -> Tensor<4> {
        let [batch, channels, states, width] = hidden.dims();
        let attend = |rows: Tensor<3>| self.attention.forward(rows, Mask::default());
        let rows = hidden.reshape([batch * channels, states, width]);
        let mut rows = self.residual(&self.attention_norm, rows, attend);
        if let Some(norm) = &self.channel_norm {
            let across = rows
                .reshape([batch, channels, states, width])
                .swap_dims(1, 2);
            let across = across.reshape([batch * states, channels, width]);
            let across = self.residual(norm, across, attend);
            let along = across
                .reshape([batch, states, channels, width])
                .swap_dims(1, 2);
            rows = along.reshape([batch * channels, states, width]);
        }
        let rows = self.residual(&self.mlp_norm, rows, |rows| self.mlp.forward(rows));
        rows.reshape([batch, channels, states, width])
    }

    fn residual(
        &self,
        norm: &Norm,
        rows: Tensor<3>,
        part: impl FnOnce(Tensor<3>) -> Tensor<3>,
    ) -> Tensor<3> {
        if self.pre_norm {
            rows.clone() + part(norm.forward(rows))
        } else {
            norm.forward_sum(part(rows.clone()), rows)
        }
    }
}

/// A norm over the width.
#[derive(Module, Debug)]
pub(super) enum Norm {
    Batch(BatchNorm),
    Layer(LayerNorm),
}

impl Norm {
    pub(super) fn new(
        kind: NormType,
        width: usize,
        epsilon: f64,
        device: &Device,
    ) -> Result<Self, ConfigError> {
        Ok(match kind {
            NormType::Batch => Norm::Batch(BatchNorm::new(width, epsilon, device)),
            NormType::Layer => Norm::Layer(LayerNorm::new(width, epsilon, device)),
        })
    }

    /// # Shapes
    /// `[rows, s, d]` → the same
    pub(super) fn forward(&self, rows: Tensor<3>) -> Tensor<3> {
        match self {
            Norm::Batch(norm) => norm.forward(rows, None),
            Norm::Layer(norm) => norm.forward(rows),
        }
    }

    /// The norm of a sum.
    fn forward_sum(&self, rows: Tensor<3>, other: Tensor<3>) -> Tensor<3> {
        match self {
            Norm::Batch(norm) => norm.forward(rows, Some(other)),
            Norm::Layer(norm) => norm.forward_sum(rows, other),
        }
    }
}

/// A batch norm by its running statistics, over the last dimension.
///
/// Burn's own wants the width in the second dimension, which would take a copy there and back.
#[derive(Module, Debug)]
pub(super) struct BatchNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    running_mean: Param<Tensor<1>>,
    running_var: Param<Tensor<1>>,
    epsilon: f64,
    /// What rows are multiplied by and what is added then, known from the first call on.
    #[module(skip)]
    affine: Box<OnceLock<[Tensor<1>; 2]>>,
}

impl BatchNorm {
    fn new(width: usize, epsilon: f64, device: &Device) -> Self {
        Self {
            weight: Initializer::Ones.init([width], device),
            bias: Initializer::Zeros.init([width], device),
            running_mean: Initializer::Zeros.init([width], device),
            running_var: Initializer::Ones.init([width], device),
            epsilon,
            affine: Box::default(),
        }
    }

    fn forward(&self, rows: Tensor<3>, added: Option<Tensor<3>>) -> Tensor<3> {
        let [gain, shift] = self.affine.get_or_init(|| {
            let gain = self.weight.val() / (self.running_var.val() + self.epsilon).sqrt();
            let shift = self.bias.val() - self.running_mean.val() * gain.clone();
            [gain, shift]
        });
        scale_shift(rows, added, gain.clone(), shift.clone())
    }
}
