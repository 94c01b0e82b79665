//! The trunk, top-down.
//!
//! Shapes: `b` pictures in the batch, `c` channels, `p` patches, `t` tokens: the class token, the
//! distillation token if there is one, and the patches.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};

use super::config::VitConfig;
use crate::ConfigError;
use crate::blocks::{Activation, Attention, LayerNorm, Mask, Mlp, conv2d};

/// A batch of pictures on a device.
#[derive(Debug, Clone)]
pub struct Pictures {
    /// `[b, c, h, w]`
    pub pixels: Tensor<4>,
    /// 1 for each patch that is hidden, 0 for the others, `[b, p]`; without it none is.
    pub masked: Option<Tensor<2>>,
    /// Whether position embeddings are stretched to pictures of another size.
    pub interpolate: bool,
}

/// The encoder, with its pooler if the checkpoint has one.
#[derive(Module, Debug)]
pub struct Vit {
    embeddings: Embeddings,
    layers: Vec<Layer>,
    norm: LayerNorm,
    pooler: Option<Linear>,
    #[module(skip)]
    pooler_activation: Activation,
}

impl Vit {
    /// An unfilled trunk; with a token for hidden patches where `masks`.
    ///
    /// # Errors
    /// The configuration cannot be honoured.
    pub fn new(
        config: &VitConfig,
        pooler: bool,
        masks: bool,
        device: &Device,
    ) -> Result<Self, ConfigError> {
        let layers = (0..config.num_hidden_layers).map(|_| Layer::new(config, device));
        let pooled = LinearConfig::new(config.hidden_size, config.pooler_width());
        Ok(Self {
            embeddings: Embeddings::new(config, masks, device),
            layers: layers.collect::<Result<_, _>>()?,
            norm: norm(config, device),
            pooler: pooler.then(|| pooled.init(device)),
            pooler_activation: config.pooler_activation()?,
        })
    }

    /// The last layer's hidden states, normed.
    ///
    /// # Shapes
    /// `[b, c, h, w]` → `[b, t, hidden]`
    pub fn forward(&self, pictures: Pictures) -> Tensor<3> {
        let embedded = self.embeddings.forward(pictures);
        let layers = self.layers.iter();
        let hidden = layers.fold(embedded, |hidden, layer| layer.forward(hidden));
        self.norm.forward(hidden)
    }

    /// The embeddings and every layer's hidden states, in order, before the norm.
    ///
    /// # Shapes
    /// `[b, c, h, w]` → `layers + 1` times `[b, t, hidden]`
    pub fn hidden_states(&self, pictures: Pictures) -> Vec<Tensor<3>> {
        let mut states = vec![self.embeddings.forward(pictures)];
        for layer in &self.layers {
            let hidden = states[states.len() - 1].clone();
            states.push(layer.forward(hidden));
        }
        states
    }

    /// The class token's hidden state through the pooler, if there is one.
    ///
    /// # Shapes
    /// `[b, t, hidden]` → `[b, pooled]`
    pub fn pool(&self, hidden: &Tensor<3>) -> Option<Tensor<2>> {
        let pooler = self.pooler.as_ref()?;
        let pooled = pooler.forward(token(hidden, 0));
        Some(self.pooler_activation.forward(pooled))
    }
}

/// One token's hidden state.
///
/// # Shapes
/// `[b, t, hidden]` → `[b, hidden]`
pub(super) fn token(hidden: &Tensor<3>, index: usize) -> Tensor<2> {
    let [batch, _, width] = hidden.dims();
    let token = hidden.clone().slice([0..batch, index..index + 1, 0..width]);
    token.reshape([batch, width])
}

#[derive(Module, Debug)]
struct Embeddings {
    cls_token: Param<Tensor<3>>,
    distillation_token: Option<Param<Tensor<3>>>,
    mask_token: Option<Param<Tensor<3>>>,
    position_embeddings: Param<Tensor<3>>,
    projection: Conv2d,
    /// The rows and columns of patches that the positions are for.
    grid: [usize; 2],
}

impl Embeddings {
    fn new(config: &VitConfig, masks: bool, device: &Device) -> Self {
        let width = config.hidden_size;
        let token = || Initializer::Zeros.init([1, 1, width], device);
        let patch = config.patch_size.get();
        let [rows, columns] = config.grid();
        let special = if config.distilled() { 2 } else { 1 };
        let positions = [1, rows * columns + special, width];
        let projection = Conv2dConfig::new([config.num_channels, width], patch).with_stride(patch);
        Self {
            cls_token: token(),
            distillation_token: config.distilled().then(token),
            mask_token: masks.then(token),
            position_embeddings: Initializer::Zeros.init(positions, device),
            projection: projection.init(device),
            grid: [rows, columns],
        }
    }

    /// # Shapes
    /// `[b, c, h, w]` → `[b, t, hidden]`
    fn forward(&self, pictures: Pictures) -> Tensor<3> {
        let patches = conv2d(
            &self.projection,
            None,
            pictures.pixels,
            None,
            Activation::Linear,
            false,
        );
        let [batch, width, rows, columns] = patches.dims();
        // In this order nothing is copied where a picture's channels are last.
        let mut patches = patches.permute([0, 2, 3, 1]).flatten::<3>(1, 2);
        if let (Some(token), Some(masked)) = (&self.mask_token, pictures.masked) {
            let masked = masked.reshape([batch, rows * columns, 1]);
            let shown = masked.clone().neg() + 1.0;
            patches = patches * shown + token.val() * masked;
        }
        let mut tokens = vec![self.cls_token.val()];
        tokens.extend(self.distillation_token.iter().map(Param::val));
        let special = tokens.len();
        let mut parts: Vec<Tensor<3>> = tokens
            .into_iter()
            .map(|token| token.expand([batch, 1, width]))
            .collect();
        parts.push(patches);
        let positions = if pictures.interpolate {
            self.interpolated(special, [rows, columns])
        } else {
            self.position_embeddings.val()
        };
        Tensor::cat(parts, 1) + positions
    }

    /// The position embeddings stretched to another grid, by PyTorch's bicubic interpolation.
    ///
    /// Two products with the weights of either axis, which every device computes alike.
    ///
    /// # Shapes
    /// `[1, t', hidden]`
    fn interpolated(&self, special: usize, grid: [usize; 2]) -> Tensor<3> {
        let positions = self.position_embeddings.val();
        if grid == self.grid {
            return positions;
        }
        let [_, count, width] = positions.dims();
        let device = positions.device();
        let ([old_rows, old_columns], [rows, columns]) = (self.grid, grid);
        let tokens = positions.clone().slice([0..1, 0..special, 0..width]);
        let patches = positions.slice([0..1, special..count, 0..width]);
        let patches = patches.reshape([old_rows, old_columns * width]);
        let stretched = bicubic(old_rows, rows, &device).matmul(patches);
        let stretched = stretched.reshape([rows, old_columns, width]);
        let across = bicubic(old_columns, columns, &device).unsqueeze::<3>();
        let stretched = across
            .expand([rows, columns, old_columns])
            .matmul(stretched);
        let stretched = stretched.reshape([1, rows * columns, width]);
        Tensor::cat(vec![tokens, stretched], 1)
    }
}

/// The weights of PyTorch's bicubic interpolation without aligned corners or antialiasing.
///
/// Reference: `upsample_bicubic2d` of PyTorch 2.15.
///
/// # Shapes
/// `[new, old]`
fn bicubic(old: usize, new: usize, device: &Device) -> Tensor<2> {
    const A: f64 = -0.75;
    let near = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let scale = old as f64 / new as f64;
    let mut weights = vec![0.0_f32; old * new];
    for (output, row) in weights.chunks_mut(old.max(1)).enumerate() {
        let centre = (output as f64 + 0.5) * scale - 0.5;
        let first = centre.floor();
        let t = centre - first;
        let taps = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
        for (offset, weight) in (-1..).zip(taps) {
            // Beyond the edge, the edge itself counts.
            let input = (first as i64 + offset).clamp(0, old as i64 - 1);
            row[input as usize] += weight as f32;
        }
    }
    Tensor::from_data(TensorData::new(weights, [new, old]), device)
}

#[derive(Module, Debug)]
struct Layer {
    attention_norm: LayerNorm,
    attention: Attention,
    mlp_norm: LayerNorm,
    mlp: Mlp,
}

impl Layer {
    fn new(config: &VitConfig, device: &Device) -> Result<Self, ConfigError> {
        Ok(Self {
            attention_norm: norm(config, device),
            attention: Attention::new(
                config.hidden_size,
                config.num_attention_heads,
                [config.qkv_bias; 3],
                device,
            ),
            mlp_norm: norm(config, device),
            mlp: Mlp::new(
                config.hidden_size,
                config.intermediate_size,
                true,
                config.activation()?,
                device,
            ),
        })
    }

    /// # Shapes
    /// `[b, t, hidden]` → the same
    fn forward(&self, hidden: Tensor<3>) -> Tensor<3> {
        let normed = self.attention_norm.forward(hidden.clone());
        let hidden = self.attention.forward_sum(normed, Mask::default(), hidden);
        let normed = self.mlp_norm.forward(hidden.clone());
        self.mlp.forward_sum(normed, hidden)
    }
}

fn norm(config: &VitConfig, device: &Device) -> LayerNorm {
    LayerNorm::new(config.hidden_size, config.layer_norm_eps, device)
}
