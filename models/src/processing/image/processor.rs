use serde_json::Value;

use super::resize::{Arithmetic, Filter, resize};
use super::{Image, ImageError, MOST_PIXELS};
use crate::ConfigError;

/// The `image_processor_type` of the presets: torchvision's evaluation transforms on Pillow's pictures,
/// which timm's are too.
pub const TORCHVISION_TRANSFORMS: &str = "ImageClassificationPreset";

/// Whose arithmetic. The differences are of the last bit of a byte, and of the last of a float.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// `TorchvisionBackend` of transformers 5.23, which a checkpoint's processor is where torchvision is
    /// installed.
    Torchvision,
    /// `PilBackend`, which it is elsewhere, and was before transformers 5.
    Pillow,
    /// torchvision's transforms on Pillow's pictures.
    Transforms,
}

/// What is done to the size of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    /// Exactly this height and width.
    Exact(usize, usize),
    /// The shorter side becomes this, the longer one follows.
    Shortest(usize),
    /// The same, unless the longer side would become more than `longest`; then it becomes that.
    Bounded { shortest: usize, longest: usize },
    /// As large as fits into this height and width.
    Within(usize, usize),
    /// timm's `ResizeKeepRatio`: as small as covers this height and width, or as large as fits.
    Kept {
        height: usize,
        width: usize,
        fits: bool,
    },
}

/// A prepared picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Pixels {
    /// The height.
    pub height: usize,
    /// The width.
    pub width: usize,
    /// `channels × height × width` values, the red ones first; the only channel of one is grey.
    pub values: Vec<f32>,
}

/// Prepares pictures as a checkpoint's `preprocessor_config.json` says: resize, crop, rescale, normalise.
///
/// Reference: `image_processing_backends.py` of transformers 5.23, and for the presets
/// `torchvision/transforms/_presets.py` of 0.29.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageProcessor {
    backend: Backend,
    resize: Option<(Size, Filter)>,
    crop: Option<(usize, usize)>,
    rescale: Option<f64>,
    normalize: Option<([f64; 3], [f64; 3])>,
    /// The height and width that are reached by zeros below and to the right of the normalised values.
    pad: Option<(usize, usize)>,
    /// The colour around a picture that is smaller than its crop.
    fill: [u8; 3],
    /// Whether the network takes grey pictures, of one channel.
    grey: bool,
}

/// What a class of the reference does where the file says nothing.
struct Defaults {
    size: Size,
    filter: Filter,
    crop: Option<(usize, usize)>,
    mean: [f64; 3],
    std: [f64; 3],
    /// What a size given as one number means.
    square: bool,
    /// Whether a small size is reached by a margin and a crop, as ConvNeXt's is.
    margin: bool,
}

const STANDARD: [f64; 3] = [0.5; 3];
const CLIP_MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
const CLIP_STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];

fn defaults(class: &str) -> Option<Defaults> {
    let name = [
        "ImageProcessorFast",
        "ImageProcessorPil",
        "ImageProcessor",
        "FeatureExtractor",
    ]
    .iter()
    .find_map(|ending| class.strip_suffix(ending))
    .unwrap_or(class);
    let base = Defaults {
        size: Size::Exact(224, 224),
        filter: Filter::Bilinear,
        crop: None,
        mean: STANDARD,
        std: STANDARD,
        square: true,
        margin: false,
    };
    Some(match name {
        "ViT" => base,
        "DeiT" => Defaults {
            size: Size::Exact(256, 256),
            filter: Filter::Bicubic,
            crop: Some((224, 224)),
            ..base
        },
        "ConvNext" => Defaults {
            size: Size::Shortest(384),
            filter: Filter::Bicubic,
            square: false,
            margin: true,
            ..base
        },
        "Bit" | "CLIP" => Defaults {
            size: Size::Shortest(224),
            filter: Filter::Bicubic,
            crop: Some((224, 224)),
            mean: CLIP_MEAN,
            std: CLIP_STD,
            square: false,
            ..base
        },
        TORCHVISION_TRANSFORMS => base,
        _ => return None,
    })
}

/// The class that `AutoImageProcessor` takes for a model whose processor does not name its own.
fn class_of_model(config: &Value) -> Option<&str> {
    if let Some(class) = config.get("image_processor_type").and_then(Value::as_str) {
        return Some(class);
    }
    let model = config.get("model_type").and_then(Value::as_str);
    // Without a model_type its classes say what it would be.
    let architecture = config
        .get("architectures")
        .and_then(|names| names.get(0)?.as_str());
    let begins = |name: &str| architecture.is_some_and(|class| class.starts_with(name));
    match model {
        Some("vit") => Some("ViTImageProcessor"),
        Some("deit") => Some("DeiTImageProcessor"),
        Some("resnet") => Some("ConvNextImageProcessor"),
        Some(_) => None,
        None if begins("ViT") => Some("ViTImageProcessor"),
        None if begins("DeiT") => Some("DeiTImageProcessor"),
        None if begins("ResNet") => Some("ConvNextImageProcessor"),
        None => None,
    }
}

impl ImageProcessor {
    /// Reads a parsed `preprocessor_config.json`.
    ///
    /// # Errors
    /// The processor's class is not known, or a field has a value that cannot be honoured.
    pub fn parse(json: &Value) -> Result<Self, ConfigError> {
        Self::of_model(json, "preprocessor_config.json", &Value::Null)
    }

    /// Reads the processor of a model: the model's `config` says of which class it is where `json` does not, and
    /// how many channels a picture has. `file` is where `json` comes from, for errors.
    ///
    /// # Errors
    /// As [`ImageProcessor::parse`]; or the model takes neither one channel nor three, or one, and the processor has
    /// statistics for three.
    pub fn of_model(json: &Value, file: &'static str, config: &Value) -> Result<Self, ConfigError> {
        let grey = match config.get("num_channels").and_then(Value::as_u64) {
            None | Some(3) => false,
            Some(1) => true,
            Some(other) => {
                let reason = format!(
                    "{other} is not supported; pictures have 3 channels, or 1 if they are grey"
                );
                return Err(ConfigError::new("num_channels", reason));
            }
        };
        let processor = Self::read(&Fields(json), config);
        let processor = processor.map_err(|error| ConfigError { file, ..error })?;
        for (name, values) in [
            ("image_mean", processor.normalize.map(|(mean, _)| mean)),
            ("image_std", processor.normalize.map(|(_, std)| std)),
        ] {
            let Some(values) = values.filter(|_| grey) else {
                continue;
            };
            if values != [values[0]; 3] {
                let reason = format!(
                    "{values:?} is for three channels, but `num_channels` of config.json is 1; give one value"
                );
                return Err(ConfigError::within(file, name, reason));
            }
        }
        Ok(Self { grey, ..processor })
    }

    fn read(fields: &Fields<'_>, config: &Value) -> Result<Self, ConfigError> {
        let mut class = None;
        for name in ["image_processor_type", "feature_extractor_type"] {
            class = class.or(fields.get(name).and_then(Value::as_str));
        }
        let class = class.or_else(|| class_of_model(config)).ok_or_else(|| {
            refuse(
                "image_processor_type",
                "is missing; it names the reference's class, and `model_type` of config.json does not tell it either",
            )
        })?;
        let defaults = defaults(class).ok_or_else(|| {
            let reason =
                format!("\"{class}\" is not supported; ViT, DeiT, ConvNext, Bit and CLIP's are");
            refuse("image_processor_type", reason)
        })?;
        let backend = if class == TORCHVISION_TRANSFORMS {
            Backend::Transforms
        } else if class.ends_with("Pil") {
            Backend::Pillow
        } else {
            Backend::Torchvision
        };
        // Without a size the reference pads to the largest picture of a batch, which alters none that is
        // prepared alone, as each is here.
        let pad = match fields.size("pad_size", true)? {
            _ if !fields.flag("do_pad", false)? => None,
            None => None,
            Some(Size::Exact(height, width)) => Some((height, width)),
            Some(_) => return Err(refuse("pad_size", "has no height and width")),
        };
        let filter = match fields.number("resample")? {
            None => defaults.filter,
            Some(number) => Some(number)
                .filter(|number| number.fract() == 0.0 && *number >= 0.0)
                .and_then(|number| Filter::from_number(number as u64))
                .ok_or_else(|| {
                    refuse("resample", format!("{number} is not a filter of Pillow's"))
                })?,
        };
        let square = fields.flag("default_to_square", defaults.square)?;
        let mut size = fields.size("size", square)?.unwrap_or(defaults.size);
        let mut crop = match fields.size("crop_size", true)? {
            None => defaults.crop,
            Some(Size::Exact(height, width)) => Some((height, width)),
            Some(Size::Shortest(side)) => Some((side, side)),
            Some(_) => return Err(refuse("crop_size", "has no height and width")),
        };
        let resizes = fields.flag("do_resize", true)?;
        if !fields.flag("do_center_crop", defaults.crop.is_some())? {
            crop = None;
        } else if crop.is_none() {
            return Err(refuse("crop_size", "is missing, and there is no default"));
        }
        if defaults.margin && resizes {
            // The reference looks at no other edge here.
            let (Size::Shortest(side) | Size::Bounded { shortest: side, .. }) = size else {
                return Err(refuse("size", "has no shortest_edge"));
            };
            if side < 384 {
                let percent = fields.number("crop_pct")?.unwrap_or(224.0 / 256.0);
                let edge = (side as f64 / percent) as usize;
                size = checked("crop_pct", edge).map(|()| Size::Shortest(edge))?;
                // The reference would crop once more; the inner crop is what counts.
                crop = match crop {
                    None => Some((side, side)),
                    Some(_) => return Err(refuse("do_center_crop", "true is not supported")),
                };
            } else {
                size = Size::Exact(side, side);
            }
        }
        let rescale = match fields.flag("do_rescale", true)? {
            true => Some(fields.number("rescale_factor")?.unwrap_or(1.0 / 255.0)),
            false => None,
        };
        let normalize = match fields.flag("do_normalize", true)? {
            true => Some((
                fields.channels("image_mean")?.unwrap_or(defaults.mean),
                fields.channels("image_std")?.unwrap_or(defaults.std),
            )),
            false => None,
        };
        if let Some((_, std)) = normalize
            && std.contains(&0.0)
        {
            return Err(refuse(
                "image_std",
                "holds 0, which nothing can be divided by",
            ));
        }
        let mut fill = [0; 3];
        if let (Some(mode), Size::Exact(height, width)) =
            (fields.get("crop_mode").and_then(Value::as_str), size)
            && backend == Backend::Transforms
            && mode != "squash"
        {
            let fits = mode == "border";
            size = Size::Kept {
                height,
                width,
                fits,
            };
            if let Some((mean, _)) = normalize.filter(|_| fits) {
                fill = mean.map(|mean| (255.0 * mean).round_ties_even().clamp(0.0, 255.0) as u8);
            }
        }
        let processor = Self {
            fill,
            grey: false,
            backend,
            resize: resizes.then_some((size, filter)),
            crop,
            rescale,
            normalize,
            pad,
        };
        if backend == Backend::Torchvision && matches!(filter, Filter::Box | Filter::Hamming) {
            let reason = "box and hamming are Pillow's alone; the reference fails on them";
            return Err(refuse("resample", reason));
        }
        Ok(processor)
    }

    /// The same steps in another arithmetic.
    #[must_use]
    pub fn with_backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// Prepares a picture.
    ///
    /// # Errors
    /// It would become larger than is taken, or is larger than what it should be padded to.
    pub fn process(&self, image: &Image) -> Result<Pixels, ImageError> {
        let image = match self.grey {
            true => self.frame(&grey(image))?,
            false => self.frame(image)?,
        };
        let (height, width) = self.pad.unwrap_or((image.height, image.width));
        if image.height > height || image.width > width {
            return Err(ImageError::Size {
                width: image.width as u64,
                height: image.height as u64,
                reason: format!("are more than the {width} × {height} of `pad_size`"),
            });
        }
        let plane = height * width;
        let mut values = vec![0.0; self.channels() * plane];
        for (channel, values) in values.chunks_exact_mut(plane.max(1)).enumerate() {
            // There are only 256 of them.
            let table = self.table(channel);
            let rows = image.pixels.chunks_exact(image.width * 3);
            for (values, bytes) in values.chunks_exact_mut(width).zip(rows) {
                let bytes = bytes[channel..].iter().step_by(3);
                for (value, byte) in values.iter_mut().zip(bytes) {
                    *value = table[usize::from(*byte)];
                }
            }
        }
        Ok(Pixels {
            height,
            width,
            values,
        })
    }

    /// How many channels its pixels have.
    pub fn channels(&self) -> usize {
        if self.grey { 1 } else { 3 }
    }

    /// Resizes and crops a picture, which stays one of bytes.
    ///
    /// # Errors
    /// It would become larger than is taken.
    pub fn frame(&self, image: &Image) -> Result<Image, ImageError> {
        let arithmetic = match self.backend {
            Backend::Torchvision => Arithmetic::Torch,
            Backend::Pillow | Backend::Transforms => Arithmetic::Pillow,
        };
        let resized = match self.resize {
            None => image.clone(),
            Some((size, filter)) => {
                let (height, width) = size.of(image);
                resize(image, width, height, filter, arithmetic)?
            }
        };
        Ok(match self.crop {
            None => resized,
            Some((height, width)) => self.crop(&resized, height, width),
        })
    }

    /// The middle of a picture, with a border where it is too small.
    fn crop(&self, image: &Image, height: usize, width: usize) -> Image {
        // How far the output's edge lies inside the picture; negative where it lies outside.
        let offset = |old: usize, new: usize| -> i64 {
            let missing = new.saturating_sub(old) as i64;
            let spare = old.saturating_sub(new) as i64;
            match self.backend {
                _ if spare > 0 && self.backend == Backend::Transforms => round_half_even(spare),
                Backend::Torchvision | Backend::Transforms => spare / 2 - missing / 2,
                // `center_crop` of numpy arrays rounds the margin the other way.
                Backend::Pillow => spare / 2 - (missing + 1) / 2,
            }
        };
        let (top, left) = (offset(image.height, height), offset(image.width, width));
        let mut pixels = match self.fill {
            [0, 0, 0] => vec![0; height * width * 3],
            fill => fill.repeat(height * width),
        };
        let begin = (-left).max(0) as usize;
        let source = left.max(0) as usize;
        let count = (image.width - source).min(width - begin);
        for (row, out) in pixels.chunks_exact_mut(width * 3).enumerate() {
            let row = row as i64 + top;
            if !(0..image.height as i64).contains(&row) {
                continue;
            }
            let from = (row as usize * image.width + source) * 3;
            let values = &image.pixels[from..from + count * 3];
            out[begin * 3..][..count * 3].copy_from_slice(values);
        }
        Image {
            width,
            height,
            pixels,
        }
    }

    /// What each byte of a channel becomes.
    fn table(&self, channel: usize) -> [f32; 256] {
        let of = |byte: usize| {
            let value = byte as f32;
            let normalize = |value: f32| match self.normalize {
                Some((mean, std)) => (value - mean[channel] as f32) / std[channel] as f32,
                None => value,
            };
            match (self.backend, self.rescale, self.normalize) {
                // The reference folds the one into the other.
                (Backend::Torchvision, Some(factor), Some((mean, std))) => {
                    let inverse = (1.0 / factor) as f32;
                    let (mean, std) = (mean[channel] as f32, std[channel] as f32);
                    (value - mean * inverse) / (std * inverse)
                }
                (Backend::Torchvision, Some(factor), None) => value * factor as f32,
                (Backend::Pillow, Some(factor), _) => normalize((byte as f64 * factor) as f32),
                (Backend::Transforms, Some(_), _) => normalize(value / 255.0),
                (_, None, _) => normalize(value),
            }
        };
        std::array::from_fn(of)
    }
}

impl Size {
    /// Height and width of what a picture becomes.
    fn of(self, image: &Image) -> (usize, usize) {
        match self {
            Size::Exact(height, width) => (height, width),
            Size::Shortest(short) => {
                // As the reference computes it, in double precision and cut off.
                let long = |old_long: usize, old_short: usize| {
                    (short as f64 * old_long as f64 / old_short as f64) as usize
                };
                if image.width <= image.height {
                    (long(image.height, image.width), short)
                } else {
                    (short, long(image.width, image.height))
                }
            }
            // `get_size_with_aspect_ratio`: rounded, but the other side from what was not.
            Size::Bounded { shortest, longest } => {
                let old_short = image.width.min(image.height);
                let old_long = image.width.max(image.height);
                let ratio = old_long as f64 / old_short as f64;
                let bound = (ratio * shortest as f64 > longest as f64)
                    .then(|| longest as f64 * old_short as f64 / old_long as f64);
                let short = bound.map_or(shortest, |bound| bound.round_ties_even() as usize);
                let exact = bound.unwrap_or(shortest as f64);
                let long = (exact * old_long as f64 / old_short as f64) as usize;
                if old_short == short {
                    (image.height, image.width)
                } else if image.width < image.height {
                    (long, short)
                } else {
                    (short, long)
                }
            }
            // `get_image_size_for_max_height_width`.
            Size::Within(height, width) => {
                let (old_height, old_width) = (image.height as f64, image.width as f64);
                let scale = (height as f64 / old_height).min(width as f64 / old_width);
                ((old_height * scale) as usize, (old_width * scale) as usize)
            }
            Size::Kept {
                height,
                width,
                fits,
            } => {
                let (old_height, old_width) = (image.height as f64, image.width as f64);
                let (tall, wide) = (old_height / height as f64, old_width / width as f64);
                let ratio = if fits { tall.max(wide) } else { tall.min(wide) };
                let side = |old: f64| (old / ratio).round_ties_even() as usize;
                (side(old_height), side(old_width))
            }
        }
    }
}

/// Pillow's `convert("L")`, in all three channels.
fn grey(image: &Image) -> Image {
    let luma = image.pixels.chunks_exact(3).flat_map(|pixel| {
        let [red, green, blue] = [0, 1, 2].map(|channel| u32::from(pixel[channel]));
        let luma = (red * 19_595 + green * 38_470 + blue * 7_471 + 0x8000) >> 16;
        [luma as u8; 3]
    });
    Image {
        pixels: luma.collect(),
        ..*image
    }
}

/// Half of a number as Python rounds it: halves go to the even side.
fn round_half_even(number: i64) -> i64 {
    let half = number / 2;
    half + i64::from(number % 2 == 1 && half % 2 == 1)
}

fn refuse(field: &str, reason: impl Into<String>) -> ConfigError {
    ConfigError::within("preprocessor_config.json", field, reason)
}

/// A side that a picture may have.
fn checked(field: &str, side: usize) -> Result<(), ConfigError> {
    let most = MOST_PIXELS.isqrt() as usize;
    if (1..=most).contains(&side) {
        return Ok(());
    }
    Err(refuse(field, format!("{side} is not between 1 and {most}")))
}

/// The fields of a file, where `null` counts as absent.
struct Fields<'a>(&'a Value);

impl Fields<'_> {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn flag(&self, name: &str, default: bool) -> Result<bool, ConfigError> {
        match self.get(name) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(refuse(name, format!("{other} is not true or false"))),
        }
    }

    fn number(&self, name: &str) -> Result<Option<f64>, ConfigError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match value.as_f64().filter(|number| number.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => Err(refuse(name, format!("{value} is not a number"))),
        }
    }

    /// Three numbers, or one for all channels, alone or in a list.
    fn channels(&self, name: &str) -> Result<Option<[f64; 3]>, ConfigError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        if let Some(number) = value.as_f64() {
            return Ok(Some([number; 3]));
        }
        let numbers = value.as_array().map(|list| list.iter().map(Value::as_f64));
        let numbers: Option<Vec<f64>> = numbers.and_then(Iterator::collect);
        let numbers = numbers.and_then(|numbers| match numbers[..] {
            [number] => Some([number; 3]),
            _ => numbers.try_into().ok(),
        });
        match numbers {
            Some(numbers) => Ok(Some(numbers)),
            None => {
                let reason = format!("{value} is neither three numbers nor one for all channels");
                Err(refuse(name, reason))
            }
        }
    }

    /// A size as an object, a number, or a pair of height and width.
    fn size(&self, name: &str, square: bool) -> Result<Option<Size>, ConfigError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let invalid = || {
            let reason = format!(
                "{value} is not height and width, shortest_edge perhaps with longest_edge, or max_height \
                 and max_width"
            );
            refuse(name, reason)
        };
        let side = |value: &Value| {
            let side = value.as_u64().ok_or_else(invalid)? as usize;
            checked(name, side).map(|()| side)
        };
        let size = match value {
            Value::Number(_) if square => Size::Exact(side(value)?, side(value)?),
            Value::Number(_) => Size::Shortest(side(value)?),
            Value::Array(pair) if pair.len() == 2 => Size::Exact(side(&pair[0])?, side(&pair[1])?),
            Value::Object(fields) => {
                let keys = [
                    "height",
                    "width",
                    "shortest_edge",
                    "longest_edge",
                    "max_height",
                    "max_width",
                ];
                let given = keys.map(|key| fields.get(key).filter(|value| !value.is_null()));
                match given {
                    [Some(height), Some(width), None, None, None, None] => {
                        Size::Exact(side(height)?, side(width)?)
                    }
                    [None, None, Some(shortest), None, None, None] => {
                        Size::Shortest(side(shortest)?)
                    }
                    [None, None, Some(shortest), Some(longest), None, None] => Size::Bounded {
                        shortest: side(shortest)?,
                        longest: side(longest)?,
                    },
                    [None, None, None, None, Some(height), Some(width)] => {
                        Size::Within(side(height)?, side(width)?)
                    }
                    _ => return Err(invalid()),
                }
            }
            _ => return Err(invalid()),
        };
        Ok(Some(size))
    }
}
