//! The trunk, top-down.
//!
//! Shapes: `b` pictures in the batch, `c` channels, `h` rows, `w` columns.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{AvgPool2d, AvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn::nn::{Initializer, PaddingConfig2d};
use burn::tensor::{Device, Tensor};
use salamander_kernels as kernels;

use super::config::{ResNetConfig, Stem};
use crate::ConfigError;
use crate::blocks::{Activation, conv2d, max_pool2d, scaled, widened};

/// The convolutional trunk.
#[derive(Module, Debug)]
pub struct ResNet {
    stem: Vec<ConvNorm>,
    pool: Option<MaxPool2d>,
    stages: Vec<Stage>,
}

impl ResNet {
    /// An unfilled trunk.
    ///
    /// # Errors
    /// The configuration cannot be honoured.
    pub fn new(config: &ResNetConfig, device: &Device) -> Result<Self, ConfigError> {
        let activation = config.activation()?;
        let conv = |channels, kernel, stride| {
            ConvNorm::new(config, channels, kernel, stride, activation, device)
        };
        let (input, output, width) = (
            config.num_channels,
            config.embedding_size,
            config.stem_width,
        );
        let stem = match config.stem()? {
            Stem::Plain => vec![conv([input, output], 7, 2)],
            Stem::Deep => vec![
                conv([input, width], 3, 2),
                conv([width, width], 3, 1),
                conv([width, output], 3, 1),
            ],
            Stem::Cifar => vec![conv([input, output], 3, 1)],
        };
        let pool = MaxPool2dConfig::new([3, 3])
            .with_strides([2, 2])
            .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1));
        let mut stages = Vec::new();
        let mut channels = output;
        for (index, (&size, &depth)) in config.hidden_sizes.iter().zip(&config.depths).enumerate() {
            let halves = index > 0 || config.downsample_in_first_stage;
            let stride = if halves { 2 } else { 1 };
            stages.push(Stage::new(config, channels, size, stride, depth, device)?);
            channels = size;
        }
        Ok(Self {
            stem,
            pool: (config.stem()? != Stem::Cifar).then(|| pool.init()),
            stages,
        })
    }

    /// The last stage's features.
    ///
    /// # Shapes
    /// `[b, c, h, w]` → `[b, hidden, h', w']`
    pub fn forward(&self, pixels: Tensor<4>) -> Tensor<4> {
        let stem = self.embed(pixels);
        let stages = self.stages.iter();
        widened(stages.fold(stem, |features, stage| stage.forward(features)))
    }

    /// The features of the stem and of every stage, in order.
    ///
    /// # Shapes
    /// `[b, c, h, w]` → `stages + 1` times `[b, c', h', w']`
    pub fn features(&self, pixels: Tensor<4>) -> Vec<Tensor<4>> {
        let mut features = vec![self.embed(pixels)];
        for stage in &self.stages {
            let last = features[features.len() - 1].clone();
            features.push(stage.forward(last));
        }
        features.into_iter().map(widened).collect()
    }

    /// The same trunk with every norm folded into its convolution, which is one pass where five were.
    ///
    /// Norms with running statistics are linear maps of each channel, as their convolutions are.
    #[must_use]
    pub fn folded(mut self) -> Self {
        self.stem = self.stem.into_iter().map(ConvNorm::folded).collect();
        self.stages = self.stages.into_iter().map(Stage::folded).collect();
        self
    }

    fn embed(&self, pixels: Tensor<4>) -> Tensor<4> {
        let convs = self.stem.iter();
        let features = convs.fold(pixels, |features, conv| conv.forward(features));
        match &self.pool {
            Some(pool) => max_pool2d(pool, features),
            None => features,
        }
    }
}

/// The mean of each channel.
///
/// # Shapes
/// `[b, c, h, w]` → `[b, c]`
pub(super) fn pooled(features: Tensor<4>) -> Tensor<2> {
    let [batch, channels, height, width] = features.dims();
    let rows = features.reshape([batch, channels, height * width]);
    rows.mean_dim(2).reshape([batch, channels])
}

#[derive(Module, Debug)]
struct Stage {
    blocks: Vec<Block>,
}

impl Stage {
    fn new(
        config: &ResNetConfig,
        input: usize,
        output: usize,
        stride: usize,
        depth: usize,
        device: &Device,
    ) -> Result<Self, ConfigError> {
        let mut blocks = vec![Block::new(config, input, output, stride, device)?];
        for _ in 1..depth {
            blocks.push(Block::new(config, output, output, 1, device)?);
        }
        Ok(Self { blocks })
    }

    /// # Shapes
    /// `[b, c, h, w]` → `[b, c', h', w']`
    fn forward(&self, features: Tensor<4>) -> Tensor<4> {
        let blocks = self.blocks.iter();
        blocks.fold(features, |features, block| block.forward(features))
    }

    fn folded(mut self) -> Self {
        self.blocks = self.blocks.into_iter().map(Block::folded).collect();
        self
    }
}

/// Two convolutions, or three around a narrow middle, and a way past them.
#[derive(Module, Debug)]
struct Block {
    convs: Vec<ConvNorm>,
    shortcut: Option<ConvNorm>,
    /// What halves the picture before the shortcut's convolution, where that does not do it itself.
    shortcut_pool: Option<AvgPool2d>,
    #[module(skip)]
    padding: Option<Padding>,
    #[module(skip)]
    activation: Activation,
}

/// A shortcut without parameters.
///
/// Reference: `BasicBlock` with option A of akamaster/pytorch_resnet_cifar10 at d5489e8.
#[derive(Debug, Clone, Copy)]
struct Padding {
    stride: usize,
    /// Channels of zeros before and after.
    channels: (usize, usize),
}

impl Block {
    fn new(
        config: &ResNetConfig,
        input: usize,
        output: usize,
        stride: usize,
        device: &Device,
    ) -> Result<Self, ConfigError> {
        // The reference hands `hidden_act` to the block's end alone.
        let conv = |channels, kernel, stride, last: bool| {
            let activation = if last {
                Activation::Linear
            } else {
                Activation::Relu
            };
            ConvNorm::new(config, channels, kernel, stride, activation, device)
        };
        let convs = if config.bottleneck()? {
            let inner = output / 4;
            let (first, second) = if config.downsample_in_bottleneck {
                (stride, 1)
            } else {
                (1, stride)
            };
            vec![
                conv([input, inner], 1, first, false),
                conv([inner, inner], 3, second, false),
                conv([inner, output], 1, 1, true),
            ]
        } else {
            vec![
                conv([input, output], 3, stride, false),
                conv([output, output], 3, 1, true),
            ]
        };
        let changes = input != output || stride != 1;
        let projects = changes && !config.zero_padded_shortcut;
        let pools = projects && config.avg_down && stride != 1;
        let pool = AvgPool2dConfig::new([stride, stride])
            .with_strides([stride, stride])
            .with_ceil_mode(true)
            .with_count_include_pad(false);
        let added = output.saturating_sub(input);
        Ok(Self {
            convs,
            shortcut: projects
                .then(|| conv([input, output], 1, if pools { 1 } else { stride }, true)),
            shortcut_pool: pools.then(|| pool.init()),
            padding: (changes && config.zero_padded_shortcut).then_some(Padding {
                stride,
                channels: (added / 2, added - added / 2),
            }),
            activation: config.activation()?,
        })
    }

    /// # Shapes
    /// `[b, c, h, w]` → `[b, c', h', w']`
    fn forward(&self, features: Tensor<4>) -> Tensor<4> {
        let past = self.past(features.clone());
        let Some((last, convs)) = self.convs.split_last() else {
            return past;
        };
        let convs = convs.iter();
        let inner = convs.fold(features, |features, conv| conv.forward(features));
        last.forward_sum(inner, past, self.activation)
    }

    /// What goes past the convolutions, in their output's shape.
    fn past(&self, features: Tensor<4>) -> Tensor<4> {
        if let Some(Padding { stride, channels }) = self.padding {
            let stride = stride as isize;
            let thinned = widened(features).slice(burn::tensor::s![.., .., ..;stride, ..;stride]);
            return thinned.pad([(0, 0), channels, (0, 0), (0, 0)], 0.0);
        }
        let features = match &self.shortcut_pool {
            Some(pool) => pool.forward(widened(features)),
            None => features,
        };
        match &self.shortcut {
            Some(conv) => conv.forward(features),
            None => features,
        }
    }

    fn folded(mut self) -> Self {
        self.convs = self.convs.into_iter().map(ConvNorm::folded).collect();
        self.shortcut = self.shortcut.map(ConvNorm::folded);
        self
    }
}

/// A convolution, its norm until it is folded in, and an activation.
#[derive(Module, Debug)]
struct ConvNorm {
    convolution: Conv2d,
    normalization: Option<Norm>,
    /// What the folded norm multiplies each output channel's weights with, where they stay as they are.
    scale: Option<Param<Tensor<1>>>,
    #[module(skip)]
    activation: Activation,
}

impl ConvNorm {
    fn new(
        config: &ResNetConfig,
        channels: [usize; 2],
        kernel: usize,
        stride: usize,
        activation: Activation,
        device: &Device,
    ) -> Self {
        let edge = kernel / 2;
        let convolution = Conv2dConfig::new(channels, [kernel, kernel])
            .with_stride([stride, stride])
            .with_padding(PaddingConfig2d::Explicit(edge, edge, edge, edge))
            .with_bias(config.folded);
        Self {
            convolution: convolution.init(device),
            normalization: (!config.folded).then(|| Norm::new(channels[1], device)),
            scale: None,
            activation,
        }
    }

    /// # Shapes
    /// `[b, c, h, w]` → `[b, c', h', w']`
    fn forward(&self, features: Tensor<4>) -> Tensor<4> {
        let Some(norm) = &self.normalization else {
            return self.convolve(features, None, self.activation);
        };
        let features = self.convolve(features, None, Activation::Linear);
        self.activation.forward(norm.forward(features))
    }

    /// The same, with `added` added before another activation.
    fn forward_sum(
        &self,
        features: Tensor<4>,
        added: Tensor<4>,
        activation: Activation,
    ) -> Tensor<4> {
        let Some(norm) = &self.normalization else {
            return self.convolve(features, Some(added), activation);
        };
        let features = self.convolve(features, None, Activation::Linear);
        activation.forward(norm.forward(features) + added)
    }

    fn convolve(
        &self,
        features: Tensor<4>,
        added: Option<Tensor<4>>,
        activation: Activation,
    ) -> Tensor<4> {
        let scale = self.scale.as_ref().map(Param::val);
        conv2d(
            &self.convolution,
            scale,
            features,
            added,
            activation,
            self.normalization.is_none(),
        )
    }

    fn folded(mut self) -> Self {
        let Some(norm) = self.normalization.take() else {
            return self;
        };
        let (scale, shift) = norm.affine();
        if kernels::takes(&self.convolution.weight.val()) {
            // Multiplied where they are packed, so that no copy of them stays beside the file.
            self.scale = Some(Param::initialized(norm.weight.id, scale));
        } else {
            self.convolution = scaled(self.convolution, scale);
        }
        self.convolution.bias = Some(Param::initialized(norm.bias.id, shift));
        self
    }
}

/// ε of every norm: PyTorch's default, which no ResNet changes.
pub(super) const EPSILON: f64 = 1e-5;

/// A batch norm with its running statistics.
#[derive(Module, Debug)]
struct Norm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    running_mean: Param<Tensor<1>>,
    running_var: Param<Tensor<1>>,
}

impl Norm {
    fn new(channels: usize, device: &Device) -> Self {
        let ones = || Initializer::Ones.init([channels], device);
        let zeros = || Initializer::Zeros.init([channels], device);
        Self {
            weight: ones(),
            bias: zeros(),
            running_mean: zeros(),
            running_var: ones(),
        }
    }

    /// What each channel is multiplied with, and what is added then.
    ///
    /// # Shapes
    /// `[c]`, `[c]`
    fn affine(&self) -> (Tensor<1>, Tensor<1>) {
        let deviation = (self.running_var.val() + EPSILON).sqrt();
        let scale = self.weight.val() / deviation;
        let shift = self.bias.val() - self.running_mean.val() * scale.clone();
        (scale, shift)
    }

    /// # Shapes
    /// `[b, c, h, w]` → the same
    fn forward(&self, features: Tensor<4>) -> Tensor<4> {
        let (scale, shift) = self.affine();
        let [channels] = scale.dims();
        let shape = [1, channels, 1, 1];
        features * scale.reshape(shape) + shift.reshape(shape)
    }
}

#[cfg(test)]
mod tests {
    use burn::module::{ModuleMapper, Param};
    use burn::tensor::{Distribution, Tensor};

    use super::*;

    /// Draws every parameter anew, so that each one matters.
    struct Randomize;

    impl ModuleMapper for Randomize {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (id, value, _) = param.consume();
            // Positive, as variances are.
            let drawn = value.random_like(Distribution::Uniform(0.1, 1.0));
            Param::initialized(id, drawn)
        }
    }

    #[test]
    fn folding_changes_nothing() {
        let device = Device::default();
        let basic = ResNetConfig {
            hidden_sizes: vec![8, 12],
            depths: vec![1, 2],
            embedding_size: 8,
            layer_type: "basic".to_owned(),
            ..ResNetConfig::default()
        };
        let deep = ResNetConfig {
            layer_type: "bottleneck".to_owned(),
            stem_type: "deep".to_owned(),
            stem_width: 4,
            avg_down: true,
            ..basic.clone()
        };
        let cifar = ResNetConfig {
            stem_type: "cifar".to_owned(),
            zero_padded_shortcut: true,
            ..basic.clone()
        };
        for config in [basic, deep, cifar] {
            let trunk = ResNet::new(&config, &device).unwrap().map(&mut Randomize);
            let pixels = Tensor::random([2, 3, 33, 35], Distribution::Normal(0.0, 1.0), &device);
            let before = trunk.features(pixels.clone());
            let folded = trunk.folded();
            let norms = format!("{folded:?}").matches("running_var").count();
            assert_eq!(norms, 0);
            for (before, after) in before.into_iter().zip(folded.features(pixels)) {
                let largest = before.clone().abs().max().into_scalar::<f32>();
                let difference = (before - after).abs().max().into_scalar::<f32>();
                assert!(difference <= 1e-5 * largest, "{difference} of {largest}");
            }
        }
    }
}
