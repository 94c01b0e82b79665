use serde::Deserialize;
use serde_json::Value;

use crate::ConfigError;
use crate::blocks::Activation;
use crate::config::{check_counts, check_sizes, parse};

/// `config.json` of a ResNet, with the reference's field names and defaults.
///
/// The last fields are timm's arguments of the same names; Hugging Face's checkpoints do not have them.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct ResNetConfig {
    /// The number of channels of a picture.
    pub num_channels: usize,
    /// The number of channels of the stem.
    pub embedding_size: usize,
    /// The number of channels of each stage.
    pub hidden_sizes: Vec<usize>,
    /// The number of blocks of each stage.
    pub depths: Vec<usize>,
    /// `basic` or `bottleneck`.
    pub layer_type: String,
    /// The activation of the stem and after each sum; inside a block it is always `relu`.
    pub hidden_act: String,
    /// Whether the first stage halves the picture too.
    pub downsample_in_first_stage: bool,
    /// Whether a bottleneck halves the picture in its first convolution (v1) and not in its second (v1.5).
    pub downsample_in_bottleneck: bool,
    /// The stages that a backbone gives, by name: `stem`, `stage1`, …
    pub out_features: Option<Vec<String>>,
    /// The same by number; negative ones count from the end.
    pub out_indices: Option<Vec<i64>>,
    /// Empty for a convolution of 7 × 7, `deep` for three of 3 × 3, `cifar` for one of 3 × 3 that keeps the
    /// size.
    pub stem_type: String,
    /// The number of channels inside a deep stem.
    pub stem_width: usize,
    /// Whether a shortcut halves the picture by its mean and not by a stride.
    pub avg_down: bool,
    /// Whether a shortcut has no parameters: every second pixel, and channels of zeros.
    pub zero_padded_shortcut: bool,
    /// Whether the checkpoint has its norms folded into the convolutions; the checkpoint says so.
    #[serde(skip)]
    pub folded: bool,
}

impl Default for ResNetConfig {
    fn default() -> Self {
        Self {
            num_channels: 3,
            embedding_size: 64,
            hidden_sizes: vec![256, 512, 1024, 2048],
            depths: vec![3, 4, 6, 3],
            layer_type: "bottleneck".to_owned(),
            hidden_act: "relu".to_owned(),
            downsample_in_first_stage: false,
            downsample_in_bottleneck: false,
            out_features: None,
            out_indices: None,
            stem_type: String::new(),
            stem_width: 32,
            avg_down: false,
            zero_padded_shortcut: false,
            folded: false,
        }
    }
}

/// What a picture goes through first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stem {
    /// A convolution of 7 × 7 and a pooling, each of which halves.
    Plain,
    /// Three convolutions of 3 × 3 and a pooling.
    Deep,
    /// One convolution of 3 × 3.
    Cifar,
}

impl ResNetConfig {
    /// Reads and checks a parsed `config.json`.
    ///
    /// # Errors
    /// A field has the wrong type or a value that cannot be honoured.
    pub fn parse(json: &Value) -> Result<Self, ConfigError> {
        let config: Self = parse(json)?;
        config.activation()?;
        config.bottleneck()?;
        config.stem()?;
        if config.hidden_sizes.is_empty() || config.hidden_sizes.len() != config.depths.len() {
            let reason = format!(
                "{} stages, but `hidden_sizes` has {}",
                config.depths.len(),
                config.hidden_sizes.len()
            );
            return Err(ConfigError::new("depths", reason));
        }
        let single = [
            ("num_channels", config.num_channels),
            ("embedding_size", config.embedding_size),
            ("stem_width", config.stem_width),
        ];
        let sizes = config
            .hidden_sizes
            .iter()
            .map(|size| ("hidden_sizes", *size));
        let depths = config.depths.iter().map(|depth| ("depths", *depth));
        let all: Vec<(&str, usize)> = single.into_iter().chain(sizes).chain(depths).collect();
        check_sizes(&all, 1 << 24)?;
        let reduction = if config.bottleneck()? { 4 } else { 1 };
        if let Some(size) = config.hidden_sizes.iter().find(|size| **size < reduction) {
            let reason = format!("{size} is too narrow for a bottleneck, which divides it by 4");
            return Err(ConfigError::new("hidden_sizes", reason));
        }
        config.outputs()?;
        Ok(config)
    }

    /// Checks, before anything is built, that the checkpoint has as many tensors as blocks are claimed.
    pub(super) fn check_depth(&self, tensors: usize) -> Result<(), ConfigError> {
        let blocks = self
            .depths
            .iter()
            .fold(0, |sum: usize, depth| sum.saturating_add(*depth));
        check_counts(&[("depths", blocks)], tensors)
    }

    pub(super) fn activation(&self) -> Result<Activation, ConfigError> {
        Activation::parse("hidden_act", &self.hidden_act)
    }

    pub(super) fn bottleneck(&self) -> Result<bool, ConfigError> {
        match &self.layer_type[..] {
            "bottleneck" => Ok(true),
            "basic" => Ok(false),
            other => {
                let reason = format!("\"{other}\" is not one of basic, bottleneck");
                Err(ConfigError::new("layer_type", reason))
            }
        }
    }

    pub(super) fn stem(&self) -> Result<Stem, ConfigError> {
        match &self.stem_type[..] {
            "" => Ok(Stem::Plain),
            "deep" => Ok(Stem::Deep),
            "cifar" => Ok(Stem::Cifar),
            other => {
                let reason = format!("\"{other}\" is not one of \"\", deep, cifar");
                Err(ConfigError::new("stem_type", reason))
            }
        }
    }

    /// The stages that a backbone gives, 0 for the stem; without any named, the last.
    pub(super) fn outputs(&self) -> Result<Vec<usize>, ConfigError> {
        let stages = self.depths.len() + 1;
        match (&self.out_features, &self.out_indices) {
            (Some(names), _) => {
                let index = |name: &String| {
                    let number = name.strip_prefix("stage").and_then(|n| n.parse().ok());
                    let found = if name == "stem" { Some(0) } else { number };
                    let found = found.filter(|index| (*index == 0) == (name == "stem"));
                    found.filter(|index| *index < stages).ok_or_else(|| {
                        let reason =
                            format!("\"{name}\" is not stem, stage1 … stage{}", stages - 1);
                        ConfigError::new("out_features", reason)
                    })
                };
                names.iter().map(index).collect()
            }
            (None, Some(indices)) => {
                let count = stages as i64;
                let index = |index: &i64| {
                    if (-count..count).contains(index) {
                        return Ok(index.rem_euclid(count) as usize);
                    }
                    let reason = format!("{index} is not between {} and {}", -count, count - 1);
                    Err(ConfigError::new("out_indices", reason))
                };
                indices.iter().map(index).collect()
            }
            (None, None) => Ok(vec![stages - 1]),
        }
    }
}
