//! Models that other libraries know by a name and not by a configuration beside the weights.

use salamander_importers::Checkpoint;
use serde_json::{Value, json};

use crate::architecture::within;
use crate::{ARCHITECTURES, ConfigError};

/// What a name such as `torchvision/resnet50` stands for.
#[derive(Debug, Clone, PartialEq)]
pub struct Preset {
    /// The library, a slash, and the library's name for it.
    pub name: String,
    /// The configuration, in the fields of a Hugging Face `config.json`.
    pub config: Value,
    /// How pictures are prepared, in the fields of a `preprocessor_config.json`.
    pub processor: Value,
    /// The checkpoint keys that may hold the classifier, whose rows count the classes.
    pub classifiers: &'static [&'static str],
}

/// The preset of that name, with as many classes as the checkpoint's classifier has.
///
/// # Errors
/// There is none of that name.
pub fn find_preset(name: &str, checkpoint: &Checkpoint) -> Result<Preset, ConfigError> {
    let all = ARCHITECTURES
        .iter()
        .flat_map(|a| (a.presets)().into_iter().map(move |preset| (a, preset)));
    let mut known = Vec::new();
    for (architecture, mut preset) in all {
        if preset.name == name {
            let seen = within(architecture, &preset.config, checkpoint);
            let checkpoint =
                &seen.map_err(|error| ConfigError::new("architecture", error.to_string()))?;
            if preset.config.get("num_labels") == Some(&json!(IMAGENET_CLASSES)) {
                preset.config["id2label"] = numbered(IMAGENET_NAMES.lines());
            }
            let mut keys = preset.classifiers.iter();
            let classifier = keys.find_map(|key| checkpoint.get(key));
            if let Some(classes) = classifier.and_then(|entry| entry.shape.first()) {
                preset.config["num_labels"] = json!(classes);
                let names = preset.config.get("id2label").and_then(Value::as_object);
                // Fine-tuned for other classes, whose names nobody knows.
                if names.is_some_and(|names| names.len() != *classes) {
                    preset.config["id2label"] = Value::Null;
                }
            }
            return Ok(preset);
        }
        known.push(preset.name);
    }
    let nearest = nearest(known.into_iter(), name);
    let reason = format!(
        "\"{name}\" is not a preset; the nearest is {}",
        nearest.as_deref().unwrap_or("none")
    );
    Err(ConfigError::new("architecture", reason))
}

/// The name that is most like the one that was asked for, if any is like it.
pub fn nearest(names: impl Iterator<Item = String>, wanted: &str) -> Option<String> {
    /// Where names begin to look like another's misspelling.
    const LIKE: f64 = 0.8;
    let like = names.map(|name| (strsim::jaro_winkler(&name, wanted), name));
    let best = like.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= LIKE).then_some(best.1)
}

/// The configuration's `id2label` of these names.
pub(crate) fn numbered<'a>(names: impl Iterator<Item = &'a str>) -> Value {
    let names = names.enumerate();
    let names = names.map(|(index, name)| (index.to_string(), json!(name)));
    Value::Object(names.collect())
}

/// The classes of ImageNet's challenge of 2012, which every preset with as many was trained on.
pub(crate) const IMAGENET_CLASSES: usize = 1000;
/// Their names, a line each: `torchvision.models._meta` of 0.29, which tells both cranes and maillots apart.
/// `tools/fixtures/presets.py` writes them.
const IMAGENET_NAMES: &str = include_str!("imagenet.txt");

/// The mean of ImageNet's pictures, a channel.
pub(crate) const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
/// Their standard deviation.
pub(crate) const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];

/// Pictures as timm prepares them for evaluation: the shorter side to `side / percent`, then the middle.
pub(crate) fn cropped(
    side: u64,
    percent: f64,
    resample: u64,
    mean: [f64; 3],
    std: [f64; 3],
) -> Value {
    // timm 1.0: `math.floor(x / crop_pct)`.
    resized(
        (side as f64 / percent).floor() as u64,
        side,
        resample,
        mean,
        std,
    )
}

/// Pictures as torchvision prepares them for evaluation: the shorter side to `edge`, then the middle.
pub(crate) fn resized(edge: u64, side: u64, resample: u64, mean: [f64; 3], std: [f64; 3]) -> Value {
    json!({
        "image_processor_type": crate::processing::image::TORCHVISION_TRANSFORMS,
        "size": {"shortest_edge": edge},
        "resample": resample,
        "do_center_crop": true,
        "crop_size": {"height": side, "width": side},
        "image_mean": mean,
        "image_std": std,
    })
}
