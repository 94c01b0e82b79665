//! The `config.json` of timm: an architecture's name, the arguments that changed it, and how its pictures are
//! prepared.
//!
//! Reference: `_parse_model_cfg` and `save_for_hf` of timm 1.0.31, `_update_default_model_kwargs`, and
//! `timm/data/{config,transforms_factory}.py`.

use salamander_importers::Checkpoint;
use serde_json::{Map, Value, json};

use crate::preset::{IMAGENET_MEAN, IMAGENET_STD, Preset, find_preset};
use crate::processing::image::TORCHVISION_TRANSFORMS;
use crate::{ConfigError, config::check_sizes};

/// The preset that a `config.json` of timm's names by its `architecture`, with what that file says of the
/// network, the classes and the pictures; nothing where the file is not timm's.
///
/// # Errors
/// The architecture is not a preset, or the file has values that cannot be honoured.
pub fn timm_preset(json: &Value, checkpoint: &Checkpoint) -> Option<Result<Preset, ConfigError>> {
    let architecture = json.get("architecture")?.as_str()?;
    if json.get("model_type").is_some_and(|model| !model.is_null()) {
        return None;
    }
    Some(preset(architecture, json, checkpoint))
}

/// Arguments that act in training, or while the reference builds the network.
const IDLE: &[&str] = &[
    "attn_drop_rate",
    "cache_dir",
    "checkpoint_path",
    "device",
    "drop_block_rate",
    "drop_path_rate",
    "drop_rate",
    "dtype",
    "exportable",
    "fix_init",
    "no_jit",
    "patch_drop_rate",
    "pool_include_prefix",
    "pos_drop_rate",
    "pretrained",
    "pretrained_strict",
    "proj_drop_rate",
    "scriptable",
    "strict_img_size",
    "weight_init",
    "zero_init_last",
];

fn preset(
    architecture: &str,
    json: &Value,
    checkpoint: &Checkpoint,
) -> Result<Preset, ConfigError> {
    let name = architecture.split('.').next().unwrap_or(architecture);
    let mut preset = find_preset(&format!("timm/{name}"), checkpoint)?;
    let file = Saved::new(json)?;
    for (name, value) in file.model_args.into_iter().flatten() {
        // The reference drops arguments that are `None`.
        if value.is_null() || IDLE.contains(&&name[..]) {
            continue;
        }
        let applied = match preset.config["model_type"].as_str() {
            Some("resnet") => resnet(&mut preset.config, name, value),
            _ => vit(&mut preset.config, name, value),
        };
        applied.map_err(|reason| ConfigError::new(format!("model_args.{name}"), reason))?;
    }
    let is_resnet = preset.config["model_type"] == "resnet";
    if is_resnet {
        finish_resnet(&mut preset.config);
    } else {
        finish_vit(&mut preset.config, &file)?;
    }
    let channels = file.channels()?;
    preset.config["num_channels"] = json!(channels);
    check_pool(&file, is_resnet)?;
    check_classes(&file, &preset, checkpoint)?;
    if let Some(labels) = file.labels(&preset.config)? {
        preset.config["id2label"] = labels;
    }
    if file.says_how_pictures_are_prepared() {
        preset.processor = file.processor()?;
    }
    Ok(preset)
}

/// The parts of a configuration.
struct Saved<'a> {
    root: &'a Value,
    /// How pictures are prepared and the network's borders: a part of its own, or in older files all there is.
    pretrained: &'a Value,
    model_args: Option<&'a Map<String, Value>>,
}

impl<'a> Saved<'a> {
    fn new(root: &'a Value) -> Result<Self, ConfigError> {
        let given = |name: &str| root.get(name).filter(|value| !value.is_null());
        let model_args = match given("model_args") {
            None => None,
            Some(Value::Object(arguments)) => Some(arguments),
            Some(other) => {
                let reason = format!("{other} is not an object of arguments");
                return Err(ConfigError::new("model_args", reason));
            }
        };
        Ok(Self {
            root,
            pretrained: given("pretrained_cfg").unwrap_or(root),
            model_args,
        })
    }

    fn argument(&self, name: &str) -> Option<&'a Value> {
        let value = self.model_args?.get(name)?;
        Some(value).filter(|value| !value.is_null())
    }

    fn field(&self, name: &str) -> Option<&'a Value> {
        let value = self.pretrained.get(name)?;
        Some(value).filter(|value| !value.is_null())
    }

    /// A field of the file, or of its part that says it in older ones.
    fn anywhere(&self, name: &str) -> Option<&'a Value> {
        let root = self.root.get(name).filter(|value| !value.is_null());
        root.or_else(|| self.field(name))
    }

    fn refuse(&self, field: &str, reason: impl Into<String>) -> ConfigError {
        let nested = !std::ptr::eq(self.root, self.pretrained);
        let part = if nested { "pretrained_cfg." } else { "" };
        ConfigError::new(format!("{part}{field}"), reason)
    }

    /// Whether pictures of any size are taken, as far as the arguments say.
    fn is_dynamic(&self) -> bool {
        self.argument("dynamic_img_size") == Some(&json!(true))
            || self.argument("strict_img_size") == Some(&json!(false))
    }

    /// Whether `input_size` is the network's own size.
    fn is_fixed(&self) -> bool {
        self.field("fixed_input_size") == Some(&json!(true)) && !self.is_dynamic()
    }

    /// Channels, height and width of a picture.
    fn input_size(&self) -> Result<[u64; 3], ConfigError> {
        let mut size = [3, 224, 224];
        if let Some(value) = self.field("input_size") {
            let numbers = value.as_array().filter(|numbers| numbers.len() == 3);
            let numbers = numbers.map(|numbers| numbers.iter().map(Value::as_u64));
            let numbers: Option<Vec<u64>> = numbers.and_then(Iterator::collect);
            let found = numbers.and_then(|numbers| numbers.try_into().ok());
            size = found.ok_or_else(|| {
                let reason = format!("{value} is not channels, height and width");
                self.refuse("input_size", reason)
            })?;
        }
        if let Some(channels) = self.argument("in_chans") {
            size[0] = channels.as_u64().ok_or_else(|| {
                let reason = format!("{channels} is not a number of channels");
                ConfigError::new("model_args.in_chans", reason)
            })?;
        }
        if let Some(image) = self.argument("img_size")
            && self.is_fixed()
        {
            let [height, width] =
                pair(image).map_err(|reason| ConfigError::new("model_args.img_size", reason))?;
            size = [size[0], height, width];
        }
        let [channels, height, width] = size.map(|side| side as usize);
        let sides = [
            ("input_size", channels),
            ("input_size", height),
            ("input_size", width),
        ];
        check_sizes(&sides, 1 << 14)?;
        Ok(size)
    }

    fn channels(&self) -> Result<u64, ConfigError> {
        Ok(self.input_size()?[0])
    }

    /// The names of the classes, by number; nothing where the file has none.
    fn labels(&self, config: &Value) -> Result<Option<Value>, ConfigError> {
        let names = self.anywhere("label_names");
        let Some(names) = names.or_else(|| self.anywhere("labels")) else {
            return Ok(None);
        };
        let described = self.anywhere("label_descriptions");
        let text = |name: &Value| {
            // The names may be WordNet's ids, which the descriptions explain.
            let id = name
                .as_str()
                .map_or_else(|| name.to_string(), str::to_owned);
            let text = described.and_then(|all| all.get(&id));
            text.unwrap_or(name).clone()
        };
        let classes = config
            .get("num_labels")
            .and_then(Value::as_u64)
            .unwrap_or(0);
        match names {
            Value::Array(names) => Ok(Some(names.iter().map(text).collect())),
            // Those that have no name are not in it.
            Value::Object(names) => {
                let mut labels = vec![Value::Null; classes as usize];
                for (class, name) in names {
                    let place = class.trim().parse().ok();
                    let place = place.and_then(|class: usize| labels.get_mut(class));
                    *place.ok_or_else(|| {
                        let reason =
                            format!("\"{class}\" is not the number of one of {classes} classes");
                        ConfigError::new("label_names", reason)
                    })? = text(name);
                }
                Ok(Some(Value::Array(labels)))
            }
            other => {
                let reason = format!("{other} is neither a list nor an object of names");
                Err(ConfigError::new("label_names", reason))
            }
        }
    }

    /// Whether there is anything of it in the file. If not, what the preset says holds.
    fn says_how_pictures_are_prepared(&self) -> bool {
        const FIELDS: [&str; 6] = [
            "input_size",
            "interpolation",
            "crop_pct",
            "crop_mode",
            "mean",
            "std",
        ];
        FIELDS.iter().any(|field| self.field(field).is_some())
            || self.argument("in_chans").is_some()
    }

    /// `transforms_imagenet_eval`.
    fn processor(&self) -> Result<Value, ConfigError> {
        let [channels, height, width] = self.input_size()?;
        let percent = match self.field("crop_pct") {
            None => None,
            Some(value) => match value
                .as_f64()
                .filter(|percent| percent.is_finite() && *percent >= 0.0)
            {
                Some(percent) => Some(percent).filter(|percent| *percent > 0.0),
                None => {
                    let reason = format!("{value} is not the part that a crop keeps");
                    return Err(self.refuse("crop_pct", reason));
                }
            },
        };
        let percent = percent.unwrap_or(0.875);
        let name = self
            .field("interpolation")
            .map_or(Some("bicubic"), Value::as_str);
        let resample = match name {
            // What is random in training is this in evaluation.
            Some("bilinear" | "random") => 2,
            Some("bicubic" | "") => 3,
            Some("nearest") => 0,
            Some("lanczos") => 1,
            Some("box") => 4,
            Some("hamming") => 5,
            _ => {
                let reason = format!(
                    "{} is not a filter of Pillow's",
                    self.pretrained["interpolation"]
                );
                return Err(self.refuse("interpolation", reason));
            }
        };
        let mode = self
            .field("crop_mode")
            .map_or(Some("center"), Value::as_str);
        let mode = match mode {
            Some("center" | "") => "center",
            Some("squash") => "squash",
            Some("border") => "border",
            _ => {
                let reason = format!(
                    "{} is not one of center, squash, border",
                    self.pretrained["crop_mode"]
                );
                return Err(self.refuse("crop_mode", reason));
            }
        };
        let statistics = |name: &str, usual: [f64; 3]| match self.field(name) {
            None => Ok(json!(usual)),
            Some(Value::Array(numbers)) if numbers.is_empty() => Ok(json!(usual)),
            Some(value) => match value.as_array().map(Vec::len) {
                Some(count) if count as u64 == channels => Ok(value.clone()),
                _ => {
                    let reason = format!("{value} is not a number for each of {channels} channels");
                    Err(self.refuse(name, reason))
                }
            },
        };
        let (mean, std) = (
            statistics("mean", IMAGENET_MEAN)?,
            statistics("std", IMAGENET_STD)?,
        );
        let edge = |side: u64| (side as f64 / percent).floor() as u64;
        let (tall, wide) = (edge(height), edge(width));
        let size = match mode {
            "center" if tall == wide => json!({"shortest_edge": tall}),
            _ => json!({"height": tall, "width": wide}),
        };
        Ok(json!({
            "image_processor_type": TORCHVISION_TRANSFORMS,
            "size": size,
            "crop_mode": mode,
            "resample": resample,
            "do_center_crop": true,
            "crop_size": {"height": height, "width": width},
            "image_mean": mean,
            "image_std": std,
        }))
    }
}

/// One number for both sides, or height and width.
fn pair(value: &Value) -> Result<[u64; 2], String> {
    let pair = match value {
        Value::Array(sides) if sides.len() == 2 => sides[0].as_u64().zip(sides[1].as_u64()),
        other => other.as_u64().map(|side| (side, side)),
    };
    let (height, width) =
        pair.ok_or_else(|| format!("{value} is not a size, or a height and a width"))?;
    Ok([height, width])
}

fn count(value: &Value) -> Result<u64, String> {
    let number = value
        .as_u64()
        .filter(|number| (1..1 << 24).contains(number));
    number.ok_or_else(|| format!("{value} is not a number from 1 on"))
}

fn counts(value: &Value) -> Result<Vec<u64>, String> {
    let numbers = value.as_array().map(|numbers| numbers.iter().map(count));
    numbers
        .ok_or_else(|| format!("{value} is not a list of numbers"))?
        .collect()
}

fn flag(value: &Value) -> Result<bool, String> {
    let flag = value.as_bool();
    flag.ok_or_else(|| format!("{value} is not true or false"))
}

/// Refuses any value but those that change nothing.
fn only(value: &Value, neutral: &[Value]) -> Result<(), String> {
    if neutral.contains(value) {
        return Ok(());
    }
    let known = neutral.first().map(Value::to_string).unwrap_or_default();
    Err(format!("{value} is not supported; {known} is"))
}

const UNKNOWN: &str = "is not supported";

/// What an argument of timm's `ResNet` changes.
fn resnet(config: &mut Value, name: &str, value: &Value) -> Result<(), String> {
    match name {
        // See `check_pool`, `check_classes` and `Saved::input_size`.
        "global_pool" | "num_classes" | "in_chans" => {}
        "layers" => config["depths"] = json!(counts(value)?),
        "channels" => {
            let expansion = if config["layer_type"] == "bottleneck" {
                4
            } else {
                1
            };
            let channels = counts(value)?
                .into_iter()
                .map(|channels| channels * expansion);
            config["hidden_sizes"] = channels.collect();
        }
        "stem_type" => {
            only(value, &[json!(""), json!("deep")])?;
            config["stem_type"] = value.clone();
        }
        "stem_width" => config["stem_width"] = json!(count(value)?),
        "avg_down" => config["avg_down"] = json!(flag(value)?),
        "output_stride" => only(value, &[json!(32)])?,
        "cardinality" | "block_reduce_first" | "down_kernel_size" => only(value, &[json!(1)])?,
        "base_width" => only(value, &[json!(64)])?,
        "replace_stem_pool" | "features_only" | "pruned" => only(value, &[json!(false)])?,
        "act_layer" => only(value, &[json!("relu"), json!("")])?,
        "norm_layer" => only(
            value,
            &[json!("batchnorm2d"), json!("batchnorm"), json!("")],
        )?,
        "aa_layer" => only(value, &[json!("")])?,
        "block_args" => only(value, &[json!({})])?,
        _ => return Err(format!("{value} {UNKNOWN}")),
    }
    Ok(())
}

/// What follows from several arguments.
fn finish_resnet(config: &mut Value) {
    let width = config
        .get("stem_width")
        .and_then(Value::as_u64)
        .unwrap_or(64);
    config["stem_width"] = json!(width);
    // A stem of one convolution has 64 channels whatever its width is said to be.
    let deep = config["stem_type"] == "deep";
    config["embedding_size"] = json!(if deep { 2 * width } else { 64 });
}

/// What an argument of timm's `VisionTransformer` changes.
fn vit(config: &mut Value, name: &str, value: &Value) -> Result<(), String> {
    match name {
        "global_pool" | "num_classes" | "in_chans" | "img_size" | "dynamic_img_size" => {}
        "patch_size" => config["patch_size"] = json!(pair(value)?),
        "embed_dim" => config["hidden_size"] = json!(count(value)?),
        "depth" => config["num_hidden_layers"] = json!(count(value)?),
        "num_heads" => config["num_attention_heads"] = json!(count(value)?),
        "mlp_ratio" => {
            let ratio = value.as_f64().filter(|ratio| *ratio > 0.0 && *ratio < 1e6);
            let ratio = ratio.ok_or_else(|| format!("{value} is not a positive number"))?;
            config["mlp_ratio"] = json!(ratio);
        }
        "qkv_bias" => config["qkv_bias"] = json!(flag(value)?),
        "act_layer" => {
            // timm's names; its `gelu_tanh` is the reference's of another name.
            let known = match value.as_str() {
                Some("" | "gelu") => "gelu",
                Some("gelu_tanh") => "gelu_pytorch_tanh",
                Some("quick_gelu") => "quick_gelu",
                Some("relu") => "relu",
                Some("silu" | "swish") => "silu",
                _ => {
                    return Err(format!(
                        "{value} {UNKNOWN}; gelu, gelu_tanh, quick_gelu, relu and silu are"
                    ));
                }
            };
            config["hidden_act"] = json!(known);
        }
        "qk_norm" | "scale_attn_norm" | "scale_mlp_norm" | "no_embed_class" | "pre_norm"
        | "fc_norm" | "dynamic_img_pad" | "features_only" | "pruned" | "use_naflex" => {
            only(value, &[json!(false)])?
        }
        "proj_bias" | "class_token" | "final_norm" => only(value, &[json!(true)])?,
        "init_values" => only(value, &[Value::Null, json!(0), json!(0.0), json!(false)])?,
        "reg_tokens" => only(value, &[json!(0)])?,
        "pos_embed" => only(value, &[json!("learn")])?,
        "norm_layer" => only(value, &[json!("layernorm"), json!("")])?,
        "embed_norm_layer" => only(value, &[json!("")])?,
        _ => return Err(format!("{value} {UNKNOWN}")),
    }
    Ok(())
}

fn finish_vit(config: &mut Value, file: &Saved<'_>) -> Result<(), ConfigError> {
    if let Some(ratio) = config.get("mlp_ratio").and_then(Value::as_f64)
        && let Some(width) = config["hidden_size"].as_u64()
    {
        config["intermediate_size"] = json!((width as f64 * ratio) as u64);
    } else if let Some(width) = config["hidden_size"].as_u64() {
        config["intermediate_size"] = json!(4 * width);
    }
    let [_, height, width] = file.input_size()?;
    if let Some(size) = file.argument("img_size") {
        let size = pair(size).map_err(|reason| ConfigError::new("model_args.img_size", reason))?;
        config["image_size"] = json!(size);
        if file.is_dynamic() && file.says_how_pictures_are_prepared() && size != [height, width] {
            let reason = format!(
                "{size:?} is not the height and width of `input_size`, {height} × {width}, and resampling the \
                 positions for that is not supported; save the model with one size for both"
            );
            return Err(ConfigError::new("model_args.img_size", reason));
        }
    } else if file.is_fixed() {
        config["image_size"] = json!([height, width]);
    }
    Ok(())
}

/// Refuses any pooling but that of the preset.
fn check_pool(file: &Saved<'_>, is_resnet: bool) -> Result<(), ConfigError> {
    let own = if is_resnet { "avg" } else { "token" };
    for (field, pool) in [
        ("model_args.global_pool", file.argument("global_pool")),
        (
            "global_pool",
            file.root.get("global_pool").filter(|pool| !pool.is_null()),
        ),
    ] {
        let Some(pool) = pool else { continue };
        // Without a classifier nothing may be pooled, and the class token is there all the same.
        let bare =
            !is_resnet && pool == "" && file.classes().map(|(_, classes)| classes) == Some(0);
        if pool != own && !bare {
            let reason = format!("{pool} is not supported; \"{own}\" is");
            return Err(ConfigError::new(field, reason));
        }
    }
    Ok(())
}

impl<'a> Saved<'a> {
    /// How many classes there are, and which field says so.
    fn classes(&self) -> Option<(&'static str, u64)> {
        let fields = [
            ("model_args.num_classes", self.argument("num_classes")),
            ("num_classes", self.root.get("num_classes")),
            ("pretrained_cfg.num_classes", self.field("num_classes")),
        ];
        fields
            .into_iter()
            .find_map(|(field, value)| Some((field, value?.as_u64()?)))
    }
}

/// Refuses a count of classes that the classifier contradicts.
fn check_classes(
    file: &Saved<'_>,
    preset: &Preset,
    checkpoint: &Checkpoint,
) -> Result<(), ConfigError> {
    let Some((field, classes)) = file.classes() else {
        return Ok(());
    };
    let mut keys = preset.classifiers.iter();
    let found = keys.find_map(|key| Some((key, checkpoint.get(key)?.shape.first()?)));
    match found {
        Some((key, rows)) if *rows as u64 != classes => Err(ConfigError::new(
            field,
            format!("is {classes}, but {key} of the checkpoint has {rows}"),
        )),
        _ => Ok(()),
    }
}
