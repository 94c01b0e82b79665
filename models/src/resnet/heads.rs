//! One struct a reference class, wrapping the trunk.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

use super::config::ResNetConfig;
use super::model::{ResNet, pooled};
use crate::{ConfigError, Outputs};

/// A reference class: a trunk and what its outputs are called.
pub(super) trait Head: Module + Sync {
    fn trunk(&self) -> &ResNet;

    /// With the norms folded into the convolutions.
    fn folded(self) -> Self;

    fn outputs(&self, pixels: Tensor<4>) -> Outputs;
}

impl Head for ResNet {
    fn trunk(&self) -> &ResNet {
        self
    }

    fn folded(self) -> Self {
        ResNet::folded(self)
    }

    fn outputs(&self, pixels: Tensor<4>) -> Outputs {
        let features = self.forward(pixels);
        let pooled = pooled(features.clone());
        let [batch, channels] = pooled.dims();
        Outputs::new()
            .with("last_hidden_state", features)
            .with("pooler_output", pooled.reshape([batch, channels, 1, 1]))
    }
}

/// `ResNetForImageClassification`: a class for the picture, from the mean of its features.
#[derive(Module, Debug)]
pub struct ResNetForImageClassification {
    resnet: ResNet,
    classifier: Linear,
}

impl ResNetForImageClassification {
    /// An unfilled model of `classes` classes.
    ///
    /// # Errors
    /// The configuration cannot be honoured.
    pub fn new(
        config: &ResNetConfig,
        classes: usize,
        device: &Device,
    ) -> Result<Self, ConfigError> {
        let width = config.hidden_sizes.last().copied().unwrap_or_default();
        Ok(Self {
            resnet: ResNet::new(config, device)?,
            classifier: LinearConfig::new(width, classes).init(device),
        })
    }

    /// # Shapes
    /// `[b, c, h, w]` → `[b, classes]`
    pub fn forward(&self, pixels: Tensor<4>) -> Tensor<2> {
        self.classifier.forward(pooled(self.resnet.forward(pixels)))
    }
}

impl Head for ResNetForImageClassification {
    fn trunk(&self) -> &ResNet {
        &self.resnet
    }

    fn folded(mut self) -> Self {
        self.resnet = self.resnet.folded();
        self
    }

    fn outputs(&self, pixels: Tensor<4>) -> Outputs {
        Outputs::new().with("logits", self.forward(pixels))
    }
}

/// `ResNetBackbone`: the features of chosen stages, for a detector or the like.
#[derive(Module, Debug)]
pub struct ResNetBackbone {
    resnet: ResNet,
    #[module(skip)]
    stages: Vec<usize>,
}

impl ResNetBackbone {
    /// An unfilled model.
    ///
    /// # Errors
    /// The configuration cannot be honoured.
    pub fn new(config: &ResNetConfig, device: &Device) -> Result<Self, ConfigError> {
        Ok(Self {
            resnet: ResNet::new(config, device)?,
            stages: config.outputs()?,
        })
    }

    /// The features in the order of the stages, as the reference gives them.
    ///
    /// # Shapes
    /// `[b, c, h, w]` → one `[b, c', h', w']` a stage
    pub fn forward(&self, pixels: Tensor<4>) -> Vec<Tensor<4>> {
        let features = self.resnet.features(pixels).into_iter().enumerate();
        features
            .filter(|(index, _)| self.stages.contains(index))
            .map(|(_, features)| features)
            .collect()
    }
}

impl Head for ResNetBackbone {
    fn trunk(&self) -> &ResNet {
        &self.resnet
    }

    fn folded(mut self) -> Self {
        self.resnet = self.resnet.folded();
        self
    }

    fn outputs(&self, pixels: Tensor<4>) -> Outputs {
        let maps = self.forward(pixels).into_iter().enumerate();
        maps.fold(Outputs::new(), |outputs, (index, map)| {
            outputs.with(format!("feature_maps.{index}"), map)
        })
    }
}
