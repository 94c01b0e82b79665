//! What a checkpoint shows of a ResNet.

use salamander_importers::Checkpoint;
use serde_json::{Map, Value, json};

use super::keys::Dialect;
use crate::detect::{Evidence, Field, HUGGING_FACE};

pub(super) fn detect(
    checkpoint: &Checkpoint,
    _given: &Map<String, Value>,
) -> Option<(&'static str, Vec<Field>)> {
    let dialect = super::dialect(checkpoint);
    let mut found = Evidence::new(checkpoint, dialect.with_heads());
    let stem = found.find("resnet.stem.0.convolution.weight")?;
    let first = "resnet.stages.0.blocks.0.convs.";
    found.find(&format!("{first}0.normalization.running_mean"))?;
    let &[_, channels, kernel, _] = stem.shape else {
        return None;
    };
    let last = found.find("resnet.stem.2.convolution.weight");
    let deep = last.is_some_and(|last| last.key != stem.key);
    let cifar = kernel == 3 && !deep;
    let by = format!("`{}` is there", stem.key);
    found.shown("model_type", "resnet", by);
    class(&mut found, dialect);
    found.shown("num_channels", channels, &stem);
    if deep {
        found.shown("stem_type", "deep", "the stem has three convolutions");
        found.shown("stem_width", stem.shape[0], &stem);
        found.size("embedding_size", "resnet.stem.2.convolution.weight", 0);
    } else {
        if cifar {
            found.shown("stem_type", "cifar", &stem);
        }
        found.shown("embedding_size", stem.shape[0], &stem);
    }
    let bottleneck = found.find(&format!("{first}2.convolution.weight"));
    match bottleneck {
        Some(third) => {
            let by = format!("`{}` is there", third.key);
            found.shown("layer_type", "bottleneck", by);
        }
        None => {
            let by = "a block has two convolutions";
            found.shown("layer_type", "basic", by);
        }
    }
    let last = if found.has(&format!("{first}2.convolution.weight")) {
        2
    } else {
        1
    };
    let mut depths = Vec::new();
    let mut sizes = Vec::new();
    while let Some(norm) = found.find(&format!(
        "resnet.stages.{}.blocks.0.convs.{last}.normalization.running_mean",
        depths.len()
    )) {
        let stage = format!("resnet.stages.{}.blocks.", depths.len());
        depths.push(found.count(&stage, ".convs.0.convolution.weight"));
        sizes.push(norm.shape.first().copied().unwrap_or_default());
    }
    found.shown(
        "hidden_sizes",
        sizes,
        "the norms that end a stage's first block",
    );
    let by = format!("{} stages", depths.len());
    found.shown("depths", depths, by);
    if dialect == Dialect::Torchvision {
        let shortcut = "resnet.stages.1.blocks.0.shortcut.convolution.weight";
        match found.find(shortcut) {
            Some(shortcut) if shortcut.key.ends_with("downsample.1.weight") => {
                let by = format!("`{}` is a convolution", shortcut.key);
                found.shown("avg_down", true, by);
            }
            Some(_) => {}
            None => {
                let by = "the second stage has no shortcut convolution";
                found.shown("zero_padded_shortcut", true, by);
            }
        }
    }
    let why = "the published weights halve the picture in the second convolution of a bottleneck";
    found.usual("downsample_in_bottleneck", false, why);
    let name = match dialect {
        Dialect::HuggingFace => HUGGING_FACE,
        Dialect::Torchvision if cifar => "cifar",
        // A plain stem has the same names in timm.
        Dialect::Torchvision if deep => "timm",
        Dialect::Torchvision => "torchvision",
    };
    Some((name, found.fields()))
}

fn class(found: &mut Evidence, dialect: Dialect) {
    match found.find("classifier.bias") {
        Some(classifier) => {
            let by = format!("`{}` is there", classifier.key);
            found.shown("architectures", json!(["ResNetForImageClassification"]), by);
            found.size("num_labels", "classifier.bias", 0);
        }
        None => {
            // A backbone has the same tensors.
            let by = match dialect {
                Dialect::HuggingFace => "there is no `classifier.1.bias`",
                Dialect::Torchvision => "there is no `fc.bias` or `linear.bias`",
            };
            found.shown("architectures", json!(["ResNetModel"]), by);
        }
    }
}
