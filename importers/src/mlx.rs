//! MLX's weights that are quantized in groups, in safetensors or NumPy archives.
//!
//! Reference: `mlx.core.quantize` and `mlx.nn.quantize` of MLX 0.32. A layer `NAME` has `NAME.weight`, words of 32
//! bits that hold the numbers of a row one after the other, lowest bits first, and for each group of a row
//! `NAME.scales` and `NAME.biases`; a number is `scale · q + bias`. How many bits and how large the groups are is in
//! `quantization` of the `config.json` beside, for all layers or by a layer's name.

use std::path::Path;

use burn::tensor::TensorData;
use half::{bf16, f16};
use serde_json::Value;

use crate::checkpoint::{Checkpoint, Dtype, Entry, Layout};
use crate::data::clip;
use crate::error::FormatError;

/// Where MLX's own writers say that a file is theirs.
const FORMAT: (&str, &str) = ("format", "mlx");

/// The checkpoint with its quantized layers as one tensor each; one without them as it is.
///
/// # Errors
/// A layer's tensors do not fit each other, or nothing says how it was quantized.
pub(crate) fn folded(path: &Path, mut checkpoint: Checkpoint) -> Result<Checkpoint, FormatError> {
    let is_mlx = checkpoint
        .metadata
        .get(FORMAT.0)
        .is_some_and(|format| format == FORMAT.1);
    let layers: Vec<String> = checkpoint
        .iter()
        .filter(|(_, entry)| entry.dtype == Dtype::U32)
        .filter_map(|(name, _)| name.strip_suffix(".weight").map(str::to_owned))
        .filter(|name| checkpoint.get(&format!("{name}.scales")).is_some())
        .collect();
    if !layers.is_empty() {
        let settings = Settings::beside(path)?;
        for layer in layers {
            let holder = checkpoint.holder(checkpoint.get(&format!("{layer}.weight")));
            let refuse = |reason: String| FormatError::Tensor {
                path: holder.clone(),
                tensor: clip(&layer),
                offset: None,
                reason,
            };
            let mut part = |leaf: &str| checkpoint.take(&format!("{layer}.{leaf}"));
            let (Some(weight), Some(scales)) = (part("weight"), part("scales")) else {
                continue;
            };
            let biases = part("biases").ok_or_else(|| {
                refuse("it has scales and no biases; of MLX's modes only affine is read".to_owned())
            })?;
            let file = weight.file.clone();
            let mut entry = settings
                .of(&layer)
                .and_then(|groups| groups.entry(weight, scales, biases))
                .map_err(refuse)?;
            entry.file = file;
            checkpoint.put(format!("{layer}.weight"), entry);
        }
    }
    if is_mlx {
        checkpoint.lay_out(|name, entry| {
            if name.ends_with(".weight") && entry.shape.len() > 2 {
                Layout::ChannelsLast
            } else {
                entry.layout
            }
        });
    }
    Ok(checkpoint)
}

/// `quantization` of `config.json`.
struct Settings(Option<Value>);

/// How the numbers of a layer are grouped.
#[derive(Debug, Clone, Copy)]
struct Groups {
    size: usize,
    bits: usize,
}

impl Settings {
    fn beside(path: &Path) -> Result<Self, FormatError> {
        let file = path.with_file_name("config.json");
        let text = match std::fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self(None)),
            Err(error) => return Err(FormatError::io(&file)(error)),
        };
        let mut json: Value =
            serde_json::from_slice(&text).map_err(|error| FormatError::Malformed {
                path: file,
                format: "JSON",
                offset: None,
                reason: error.to_string(),
            })?;
        Ok(Self(json.get_mut("quantization").map(Value::take)))
    }

    fn of(&self, layer: &str) -> Result<Groups, String> {
        let Some(settings) = &self.0 else {
            return Err(
                "its weight is quantized by MLX, and no `quantization` in a config.json beside it says how; the same \
                 shapes have groups of 32, 64 or 128 numbers of different bits"
                    .to_owned(),
            );
        };
        let own = settings.get(layer).filter(|own| own.is_object());
        let number = |name: &str, usual: usize| {
            let found = own.and_then(|own| own.get(name)).or(settings.get(name));
            match found {
                None => Ok(usual),
                Some(value) => value
                    .as_u64()
                    .and_then(|value| usize::try_from(value).ok())
                    .ok_or_else(|| format!("`{name}` of `quantization` is {value}")),
            }
        };
        let mode = own.and_then(|own| own.get("mode")).or(settings.get("mode"));
        if let Some(mode) = mode
            .and_then(Value::as_str)
            .filter(|mode| *mode != "affine")
        {
            return Err(format!(
                "it is quantized in the mode {mode}; only affine is read"
            ));
        }
        let groups = Groups {
            size: number("group_size", 64)?,
            bits: number("bits", 4)?,
        };
        if !matches!(groups.bits, 2..=6 | 8) || !matches!(groups.size, 1..=4096) {
            return Err(format!(
                "groups of {} numbers of {} bits are not MLX's",
                groups.size, groups.bits
            ));
        }
        Ok(groups)
    }
}

impl Groups {
    fn entry(self, weight: Entry, scales: Entry, biases: Entry) -> Result<Entry, String> {
        let Self { size, bits } = self;
        let mut shape = weight.shape.clone();
        let words = shape.last().copied().unwrap_or(0);
        let columns = words
            .checked_mul(32)
            .map_or(0, |bits_of_row| bits_of_row / bits);
        let mut groups = shape.clone();
        if let (Some(last), Some(group)) = (shape.last_mut(), groups.last_mut()) {
            *last = columns;
            *group = columns / size;
        }
        let is_float = scales.dtype.to_burn().is_some_and(|dtype| dtype.is_float());
        if words * 32 != columns * bits
            || !columns.is_multiple_of(size)
            || scales.shape != groups
            || biases.shape != groups
            || biases.dtype != scales.dtype
            || !is_float
        {
            return Err(format!(
                "{:?} words of {bits} bits in groups of {size} have {groups:?} scales and biases, not {:?} of {} and {:?} of {}",
                weight.shape, scales.shape, scales.dtype, biases.shape, biases.dtype
            ));
        }
        let name = match bits {
            2 => "MLX Q2",
            3 => "MLX Q3",
            4 => "MLX Q4",
            5 => "MLX Q5",
            6 => "MLX Q6",
            _ => "MLX Q8",
        };
        let bytes = weight.bytes + scales.bytes + biases.bytes;
        let sizes = shape.clone();
        let read = move || {
            let (words, scales, biases) = (weight.read()?, scales.read()?, biases.read()?);
            let round: fn(f32) -> f32 = match scales.dtype() {
                burn::tensor::DType::F16 => |value| f16::from_f32(value).to_f32(),
                burn::tensor::DType::BF16 => |value| bf16::from_f32(value).to_f32(),
                _ => |value| value,
            };
            let floats = |data: &TensorData| data.iter::<f32>().collect::<Vec<f32>>();
            let (scales, biases) = (floats(&scales), floats(&biases));
            let words = words.as_bytes();
            let row = columns * bits / 8;
            let mask = (1_u32 << bits) - 1;
            let mut values = Vec::with_capacity(scales.len() * size);
            for (group, (scale, bias)) in scales.iter().zip(&biases).enumerate() {
                let begin = group * size;
                let bytes = words.get(begin / columns * row..).unwrap_or_default();
                for column in begin % columns..begin % columns + size {
                    let bit = column * bits;
                    let byte = |at: usize| u32::from(bytes.get(at).copied().unwrap_or(0));
                    let pair = byte(bit / 8) | byte(bit / 8 + 1) << 8;
                    let number = pair >> (bit % 8) & mask;
                    values.push(round(round(scale * number as f32) + bias));
                }
            }
            Ok(TensorData::new(values, sizes.clone()))
        };
        Ok(Entry::new(Dtype::Quantized(name), shape, bytes, read))
    }
}
