//! The names of a ResNet in Hugging Face's checkpoints, in torchvision's and timm's, and in those of the
//! CIFAR family.

use salamander_importers::{KeyMap, Row};
use serde_json::Value;

use super::config::{ResNetConfig, Stem};

/// Hugging Face's trunk, without its `resnet.`.
const HF: &[Row] = &[
    ("embedder.embedder", "stem.{i}"),
    (
        "encoder.stages.{s}.layers.{b}.layer.{c}",
        "stages.{s}.blocks.{b}.convs.{c}",
    ),
    (
        "encoder.stages.{s}.layers.{b}.shortcut",
        "stages.{s}.blocks.{b}.shortcut",
    ),
];

/// torchvision's, timm's and the CIFAR family's, which differ only where a row has alternatives.
const TORCHVISION: &[Row] = &[
    // A deep stem has the norm of its last convolution outside, where the others have their only one.
    ("conv1.0", "stem.0.convolution"),
    ("conv1", "stem.0.convolution"),
    ("conv1.1", "stem.0.normalization"),
    ("bn1", "stem.0.normalization"),
    ("conv1.3", "stem.1.convolution"),
    ("conv1.4", "stem.1.normalization"),
    ("conv1.6", "stem.2.convolution"),
    ("bn1", "stem.2.normalization"),
    (
        "layer{s+1}.{b}.conv{c+1}",
        "stages.{s}.blocks.{b}.convs.{c}.convolution",
    ),
    (
        "layer{s+1}.{b}.bn{c+1}",
        "stages.{s}.blocks.{b}.convs.{c}.normalization",
    ),
    // With a pooling before it, the convolution is the second and its norm the third.
    (
        "layer{s+1}.{b}.downsample.2",
        "stages.{s}.blocks.{b}.shortcut.normalization",
    ),
    (
        "layer{s+1}.{b}.downsample.1",
        "stages.{s}.blocks.{b}.shortcut.normalization",
    ),
    (
        "layer{s+1}.{b}.shortcut.1",
        "stages.{s}.blocks.{b}.shortcut.normalization",
    ),
    (
        "layer{s+1}.{b}.downsample.0",
        "stages.{s}.blocks.{b}.shortcut.convolution",
    ),
    (
        "layer{s+1}.{b}.downsample.1",
        "stages.{s}.blocks.{b}.shortcut.convolution",
    ),
    (
        "layer{s+1}.{b}.shortcut.0",
        "stages.{s}.blocks.{b}.shortcut.convolution",
    ),
];

const HEADS: &[Row] = &[
    ("classifier.1", "classifier"),
    ("fc", "classifier"),
    ("linear", "classifier"),
];

/// What a checkpoint may hold without every class needing it: counters, and heads.
const SUPERFLUOUS: &[&str] = &[
    "embedder.embedder.normalization.num_batches_tracked",
    "encoder.stages.{s}.layers.{b}.layer.{c}.normalization.num_batches_tracked",
    "encoder.stages.{s}.layers.{b}.shortcut.normalization.num_batches_tracked",
    "bn1.num_batches_tracked",
    "conv1.{i}.num_batches_tracked",
    "layer{s}.{b}.bn{c}.num_batches_tracked",
    "layer{s}.{b}.downsample.{i}.num_batches_tracked",
    "layer{s}.{b}.shortcut.{i}.num_batches_tracked",
    "classifier",
    "fc",
    "linear",
];

/// The keys whose rows count the classes, in the dialects that come without a configuration.
pub(super) const CLASSIFIERS: &[&str] = &[
    "fc.weight",
    "module.fc.weight",
    "linear.weight",
    "module.linear.weight",
];

/// How the tensors of a checkpoint are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    HuggingFace,
    Torchvision,
}

impl Dialect {
    fn rows(self) -> (&'static [Row], &'static [&'static str]) {
        match self {
            Self::HuggingFace => (HF, &["resnet.", ""]),
            Self::Torchvision => (TORCHVISION, &["", "module."]),
        }
    }

    /// The trunk alone.
    pub(super) fn trunk(self) -> KeyMap {
        let (rows, prefixes) = self.rows();
        KeyMap::new(rows, prefixes).ignore(SUPERFLUOUS)
    }

    /// A trunk in the field `resnet`, and a head beside it.
    pub(super) fn with_heads(self) -> KeyMap {
        let (rows, prefixes) = self.rows();
        KeyMap::new(HEADS, &["", "module."])
            .with("resnet.", rows, prefixes)
            .ignore(SUPERFLUOUS)
    }
}

/// The names as Hugging Face stores the class; `None` for timm's deep stems and the CIFAR family, which transformers
/// does not have.
pub(crate) fn hugging_face(json: &Value, class: &str) -> Option<KeyMap> {
    let config = ResNetConfig::parse(json).ok()?;
    if config.stem().ok()? != Stem::Plain || config.avg_down || config.zero_padded_shortcut {
        return None;
    }
    Some(match class {
        "ResNetModel" => KeyMap::new(HF, &[""]),
        _ => KeyMap::new(HEADS, &[""]).with("resnet.", HF, &["resnet."]),
    })
}
