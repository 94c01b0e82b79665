//! Models that other libraries know by a name and not by a configuration beside the weights.

use salamander_importers::Checkpoint;
use serde_json::{Map, Value, json};

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
    let like = |known: &String| strsim::jaro_winkler(known, name);
    let nearest = known.iter().max_by(|a, b| like(a).total_cmp(&like(b)));
    let reason = format!(
        "\"{name}\" is not a preset; the nearest is {}",
        nearest.map_or("none", |name| &name[..])
    );
    Err(ConfigError::new("architecture", reason))
}

/// The preset that a `config.json` of timm's names by its `architecture`, with what that file says of the
/// classes and the pictures; nothing where the file is not timm's.
///
/// # Errors
/// The architecture is not a preset, or the file has `model_args` that change it.
pub fn timm_preset(json: &Value, checkpoint: &Checkpoint) -> Option<Result<Preset, ConfigError>> {
    let architecture = json.get("architecture")?.as_str()?;
    if json.get("model_type").is_some_and(|model| !model.is_null()) {
        return None;
    }
    Some(timm(architecture, json, checkpoint))
}

fn timm(architecture: &str, json: &Value, checkpoint: &Checkpoint) -> Result<Preset, ConfigError> {
    let name = architecture.split('.').next().unwrap_or(architecture);
    let mut preset = find_preset(&format!("timm/{name}"), checkpoint)?;
    let empty = Map::new();
    let arguments = json.get("model_args").and_then(Value::as_object);
    for (argument, value) in arguments.unwrap_or(&empty) {
        match &argument[..] {
            "img_size" => preset.config["image_size"] = value.clone(),
            "num_classes" => {}
            other => {
                let reason = format!("{value} is not supported; remove it if it is the default");
                return Err(ConfigError::new(format!("model_args.{other}"), reason));
            }
        }
    }
    if let Some(names) = json.get("label_names").and_then(Value::as_array) {
        let described = json.get("label_descriptions");
        let labels = names.iter().enumerate().map(|(index, name)| {
            // The names may be WordNet's ids, which the descriptions explain.
            let id = name.as_str().unwrap_or_default();
            let text = described.and_then(|all| all.get(id)).unwrap_or(name);
            (index.to_string(), text.clone())
        });
        preset.config["id2label"] = Value::Object(labels.collect());
    }
    let pretrained = json.get("pretrained_cfg").unwrap_or(json);
    let field = |name: &str| pretrained.get(name).filter(|value| !value.is_null());
    let number = |name: &str| field(name).and_then(Value::as_f64);
    let size = field("input_size").and_then(Value::as_array);
    let side = size.and_then(|size| size.get(1)?.as_u64());
    if let Some(side) = side {
        let percent = number("crop_pct").unwrap_or(0.875);
        let mean = field("mean").cloned();
        let std = field("std").cloned();
        let resample = field("interpolation").and_then(Value::as_str);
        let resample = match resample.unwrap_or("bilinear") {
            "bicubic" => 3,
            "bilinear" | "random" => 2,
            "nearest" => 0,
            "lanczos" => 1,
            "box" => 4,
            "hamming" => 5,
            other => {
                let reason = format!("\"{other}\" is not a filter of Pillow's");
                return Err(ConfigError::new("pretrained_cfg.interpolation", reason));
            }
        };
        if let Some(mode) = field("crop_mode").and_then(Value::as_str)
            && mode != "center"
        {
            let reason = format!("\"{mode}\" is not supported; center is");
            return Err(ConfigError::new("pretrained_cfg.crop_mode", reason));
        }
        let processor = cropped(side, percent, resample, [0.0; 3], [0.0; 3]);
        let (mean, std) = (
            mean.unwrap_or_else(|| json!(IMAGENET_MEAN)),
            std.unwrap_or_else(|| json!(IMAGENET_STD)),
        );
        preset.processor = processor;
        preset.processor["image_mean"] = mean;
        preset.processor["image_std"] = std;
    }
    Ok(preset)
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
