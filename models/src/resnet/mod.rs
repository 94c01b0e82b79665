//! ResNet: convolutional networks of residual blocks, for pictures.
//!
//! - Paper: He et al., *Deep Residual Learning for Image Recognition*, <https://arxiv.org/abs/1512.03385>;
//!   the deep stems and averaging shortcuts of timm's `c`, `s` and `d` are He et al., *Bag of Tricks for
//!   Image Classification with Convolutional Neural Networks*, <https://arxiv.org/abs/1812.01187>
//! - Reference: `src/transformers/models/resnet/modeling_resnet.py` of transformers 5.23,
//!   `torchvision/models/resnet.py` of 0.29, `timm/models/resnet.py` of 1.0.31, and `resnet.py` of
//!   akamaster/pytorch_resnet_cifar10 at d5489e8
//! - Checkpoints: Hugging Face's with or without `resnet.`; torchvision's, timm's and the CIFAR family's
//!   with or without `module.`, found by the names of their tensors; exported ones, whose norms are folded
//!   into the convolutions
//! - Refused: what has groups, other widths, attention or anti-aliasing (ResNeXt, SE-ResNet, …)
//!
//! Norms are folded into their convolutions once, at load. [`ResNetConfig`] → [`ResNet`] (the trunk) → one
//! struct a head.

mod config;
mod detect;
mod heads;
pub(crate) mod keys;
mod model;
mod presets;

use burn::tensor::{Device, Tensor, TensorData};
use salamander_importers::{Checkpoint, Entry, Format, KeyMap};

use crate::load::load_then;
use crate::{
    Architecture, Class, InputError, Inputs, LoadError, Model, Outputs, PretrainedConfig, Task,
    Value,
};
use heads::Head;
use keys::Dialect;
use model::EPSILON;

pub use config::ResNetConfig;
pub use heads::{ResNetBackbone, ResNetForImageClassification};
pub use model::ResNet;

/// ResNet's entry in the registry.
pub const ARCHITECTURE: Architecture = Architecture {
    name: "resnet",
    paper: "https://arxiv.org/abs/1512.03385",
    model_types: &["resnet"],
    classes: &[
        Class::new("ResNetModel", Some(Task::ImageEmbedding)),
        Class::new(
            "ResNetForImageClassification",
            Some(Task::ImageClassification),
        ),
        Class::new("ResNetBackbone", None),
    ],
    load: load_class,
    detect: detect::detect,
    presets: presets::presets,
};

fn load_class(
    json: &serde_json::Value,
    class: &str,
    checkpoint: &Checkpoint,
    device: &Device,
) -> Result<Box<dyn Model>, LoadError> {
    let mut config = ResNetConfig::parse(json)?;
    config.check_depth(checkpoint.len())?;
    let dialect = dialect(checkpoint);
    config.folded = is_folded(checkpoint, dialect);
    let loader = Loader {
        class,
        checkpoint,
        device,
        config: &config,
    };
    match class {
        "ResNetModel" => loader.fill(ResNet::new(&config, device)?, &dialect.trunk()),
        "ResNetBackbone" => {
            loader.fill(ResNetBackbone::new(&config, device)?, &dialect.with_heads())
        }
        // ResNetForImageClassification.
        _ => {
            let classes = PretrainedConfig::parse(json)?.labels().len();
            let module = ResNetForImageClassification::new(&config, classes, device)?;
            loader.fill(module, &dialect.with_heads())
        }
    }
}

/// Every dialect but Hugging Face's begins its first stage with `layer1`.
fn dialect(checkpoint: &Checkpoint) -> Dialect {
    let mut names = checkpoint.iter().map(|(name, _)| name);
    let has = |name: &str| name.split('.').any(|level| level == "layer1");
    if names.any(has) {
        Dialect::Torchvision
    } else {
        Dialect::HuggingFace
    }
}

/// Whether the norms are in their convolutions already, as in exported models.
fn is_folded(checkpoint: &Checkpoint, dialect: Dialect) -> bool {
    let holds = |path: &str| {
        let mut keys = dialect.trunk().candidates(path).into_iter();
        keys.any(|key| checkpoint.get(&key).is_some())
    };
    // Where names are lost, the graph has no node that would take running statistics.
    let nameless = checkpoint.format == Format::Onnx
        && !checkpoint.iter().any(|(key, entry)| {
            key.ends_with("running_var") || entry.taken_as() == Some("running_var")
        });
    nameless || (holds("stem.0.convolution.bias") && !holds("stem.0.normalization.weight"))
}

/// The norm behind the convolution of `layer`, whose bias is all that is left of it once it was folded in: one that adds
/// that bias and changes nothing else. Hugging Face's convolutions have none.
pub(crate) fn identity_norm(layer: &str, bias: Entry) -> [(String, Entry); 4] {
    let shape = bias.shape.clone();
    let filled = |value: f32| {
        let values = vec![value; bias.elements()];
        Entry::computed(TensorData::new(values, shape.clone()))
    };
    let norm = |leaf: &str| format!("{layer}.normalization.{leaf}");
    [
        (norm("weight"), filled(1.0)),
        (norm("running_mean"), filled(0.0)),
        // The norm adds its ε to this before it divides.
        (norm("running_var"), filled((1.0 - EPSILON) as f32)),
        (norm("bias"), bias),
    ]
}

/// What building any of the classes needs.
struct Loader<'a> {
    class: &'a str,
    checkpoint: &'a Checkpoint,
    device: &'a Device,
    config: &'a ResNetConfig,
}

impl Loader<'_> {
    fn fill<M: Head + 'static>(
        &self,
        module: M,
        map: &KeyMap,
    ) -> Result<Box<dyn Model>, LoadError> {
        Ok(Box::new(Served {
            module: load_then(module, self.class, map, self.checkpoint, M::folded)?,
            channels: self.config.num_channels,
            device: self.device.clone(),
        }))
    }
}

/// A loaded class on its device.
#[derive(Debug)]
struct Served<M> {
    module: M,
    channels: usize,
    device: Device,
}

impl<M> Served<M> {
    fn pixels(&self, mut inputs: Inputs) -> Result<Tensor<4>, InputError> {
        let pixels = inputs.pixels(self.channels, &self.device)?;
        inputs.finish(&["pixel_values"])?;
        Ok(pixels)
    }
}

impl<M: Head> Model for Served<M> {
    fn forward(&self, inputs: Inputs) -> Result<Outputs, InputError> {
        Ok(self.module.outputs(self.pixels(inputs)?))
    }

    fn intermediates(&self, inputs: Inputs) -> Result<Vec<(String, Value)>, InputError> {
        let features = self.module.trunk().features(self.pixels(inputs)?);
        let names = (0..).map(|stage| format!("stage.{stage}"));
        let names = std::iter::once("stem".to_owned()).chain(names);
        Ok(names.zip(features.into_iter().map(Value::from)).collect())
    }
}
