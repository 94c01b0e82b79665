use salamander_importers::Checkpoint;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::detect;
use crate::ConfigError;
use crate::blocks::Activation;
use crate::config::{
    check_counts, check_epsilon, check_heads, check_sizes, null_is_default, parse,
};
use crate::detect::{complete, complete_all};
use crate::processing::distribution::Family;

/// `config.json` of a PatchTST, with the reference's field names and defaults.
///
/// Fields that act only in training (dropout, initialisation) are not read, nor is
/// `positional_encoding_type`'s formula: the checkpoint holds the encodings.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct PatchTstConfig {
    /// The number of series.
    pub num_input_channels: usize,
    /// The number of past steps.
    pub context_length: usize,
    /// The distribution of the head where `loss` is `nll`: `student_t`, `normal`, `negative_binomial`.
    pub distribution_output: String,
    /// `mse` for a head that gives values; anything else for one that gives a distribution.
    pub loss: Option<String>,
    /// The number of steps in a patch.
    pub patch_length: usize,
    /// The number of steps from a patch to the next.
    pub patch_stride: usize,
    /// The number of encoder layers.
    pub num_hidden_layers: usize,
    /// The width of a hidden state.
    pub d_model: usize,
    /// The number of attention heads; divides `d_model`.
    pub num_attention_heads: usize,
    /// Whether all series share the patch embedding.
    pub share_embedding: bool,
    /// Whether series attend to each other.
    pub channel_attention: bool,
    /// The width inside the MLP.
    pub ffn_dim: usize,
    /// `batchnorm` or `layernorm`.
    pub norm_type: String,
    /// ε of every norm.
    pub norm_eps: f64,
    /// Whether the MLP has biases.
    pub bias: bool,
    /// The activation of the MLP.
    pub activation_function: String,
    /// Whether norms stand before attention and MLP, instead of after the residual sum.
    pub pre_norm: bool,
    /// `random` or `sincos`; the checkpoint holds either.
    pub positional_encoding_type: String,
    /// Whether a class token stands before the patches.
    pub use_cls_token: bool,
    /// Whether all series share the prediction head.
    pub share_projection: bool,
    #[serde(deserialize_with = "scaling")]
    scaling: Scaling,
    #[serde(deserialize_with = "null_is_default")]
    do_mask_input: bool,
    mask_type: String,
    random_mask_ratio: f64,
    num_forecast_mask_patches: Option<MaskedPatches>,
    unmasked_channel_indices: Option<Vec<usize>>,
    /// What a masked patch is filled with.
    pub mask_value: f64,
    /// `mean`, `max` or nothing.
    pub pooling_type: Option<String>,
    /// The number of future steps.
    pub prediction_length: usize,
    /// The number of classes, or of values to regress.
    pub num_targets: usize,
    /// What a regression's values are bounded to.
    pub output_range: Option<[f64; 2]>,
    /// How many samples a forecast by sampling draws.
    pub num_parallel_samples: usize,
    minimum_scale: Option<f64>,
    default_scale: Option<f64>,
    scaling_dim: usize,
    keepdim: bool,
}

impl Default for PatchTstConfig {
    fn default() -> Self {
        Self {
            num_input_channels: 1,
            context_length: 32,
            distribution_output: "student_t".to_owned(),
            loss: Some("mse".to_owned()),
            patch_length: 1,
            patch_stride: 1,
            num_hidden_layers: 3,
            d_model: 128,
            num_attention_heads: 4,
            share_embedding: true,
            channel_attention: false,
            ffn_dim: 512,
            norm_type: "batchnorm".to_owned(),
            norm_eps: 1e-5,
            bias: true,
            activation_function: "gelu".to_owned(),
            pre_norm: true,
            positional_encoding_type: "sincos".to_owned(),
            use_cls_token: false,
            share_projection: true,
            scaling: Scaling::Std,
            do_mask_input: false,
            mask_type: "random".to_owned(),
            random_mask_ratio: 0.5,
            num_forecast_mask_patches: Some(MaskedPatches::Several(vec![2])),
            unmasked_channel_indices: None,
            mask_value: 0.0,
            pooling_type: Some("mean".to_owned()),
            prediction_length: 24,
            num_targets: 1,
            output_range: None,
            num_parallel_samples: 100,
            minimum_scale: None,
            default_scale: None,
            scaling_dim: 1,
            keepdim: true,
        }
    }
}

/// How a window of the past is brought to a common scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scaling {
    /// By its mean and standard deviation.
    Std,
    /// By its mean absolute value.
    Mean,
    None,
}

/// The reference takes `"mean"`, `true`, `"std"`, and everything else as no scaling at all.
fn scaling<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Scaling, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Bool(true) => Scaling::Mean,
        Value::String(name) if name == "mean" => Scaling::Mean,
        Value::String(name) if name == "std" => Scaling::Std,
        Value::Bool(false) | Value::Null => Scaling::None,
        other => {
            let reason = format!("{other} is not one of \"std\", \"mean\", true, false, null");
            return Err(serde::de::Error::custom(reason));
        }
    })
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum MaskedPatches {
    One(usize),
    Several(Vec<usize>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NormType {
    Batch,
    Layer,
}

/// How the patches of a series become one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pooling {
    /// The class token's state.
    ClassToken,
    Mean,
    Max,
    /// All of them, one after the other.
    Flatten,
}

/// Which patches are hidden from the network.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Masking {
    None,
    /// Those that the input `mask` names, since the reference draws them at random.
    Given,
    /// The last ones of every series but some.
    Last {
        patches: usize,
        except: Vec<usize>,
    },
    /// None, but the outputs speak of a mask.
    Nothing,
}

impl PatchTstConfig {
    /// Reads and checks a parsed `config.json`. What it does not say and the checkpoint shows (modes,
    /// widths, depth, the head's kind) is taken from there instead of the reference's default.
    ///
    /// # Errors
    /// A field has the wrong type or a value that cannot be honoured, or is needed and absent.
    pub fn parse(json: &Value, checkpoint: &Checkpoint) -> Result<Self, ConfigError> {
        let Value::Object(given) = json else {
            return Err(ConfigError::new("", "is not an object"));
        };
        // Other tensors are not the weights of this architecture, which the load will say better.
        let fields = detect::fields(checkpoint, given).unwrap_or_default();
        let json = if given.contains_key("model_type") {
            complete(given, &fields)
        } else {
            complete_all(given, &fields)?
        };
        let config: Self = parse(&json.into())?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let sizes = [
            ("num_input_channels", self.num_input_channels),
            ("context_length", self.context_length),
            ("patch_length", self.patch_length),
            ("patch_stride", self.patch_stride),
            ("d_model", self.d_model),
            ("num_attention_heads", self.num_attention_heads),
            ("ffn_dim", self.ffn_dim),
            ("prediction_length", self.prediction_length),
            ("num_targets", self.num_targets),
        ];
        // There are products of three of them.
        check_sizes(&sizes, 1 << 20)?;
        if self.context_length <= self.patch_length {
            let reason = format!(
                "{} is not longer than a patch of {}",
                self.context_length, self.patch_length
            );
            return Err(ConfigError::new("context_length", reason));
        }
        check_heads(
            ("num_attention_heads", self.num_attention_heads),
            ("d_model", self.d_model),
        )?;
        check_epsilon("norm_eps", self.norm_eps)?;
        if self.scaling_dim != 1 {
            let reason = format!(
                "{} is not supported; series are scaled along time, 1",
                self.scaling_dim
            );
            return Err(ConfigError::new("scaling_dim", reason));
        }
        if !self.keepdim {
            return Err(ConfigError::new(
                "keepdim",
                "false is not supported; only true is",
            ));
        }
        self.activation()?;
        self.norm()?;
        self.pooling()?;
        self.family()?;
        one_of(
            "positional_encoding_type",
            &self.positional_encoding_type,
            &["random", "sincos"],
        )?;
        Ok(())
    }

    /// Checks, before anything is built, that the checkpoint has as many tensors as are claimed.
    pub(super) fn check_depth(&self, tensors: usize) -> Result<(), ConfigError> {
        let per_channel = !self.share_embedding || !self.share_projection;
        let channels = if per_channel {
            self.num_input_channels
        } else {
            1
        };
        let claims = [
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_input_channels", channels),
        ];
        check_counts(&claims, tensors)
    }

    /// The number of patches; steps at the beginning that fill none are left out.
    pub fn patches(&self) -> usize {
        (self.context_length - self.patch_length) / self.patch_stride + 1
    }

    /// The number of states of a series: its patches, and the class token.
    pub(super) fn states(&self) -> usize {
        self.patches() + usize::from(self.use_cls_token)
    }

    pub(super) fn activation(&self) -> Result<Activation, ConfigError> {
        Activation::parse("activation_function", &self.activation_function)
    }

    pub(super) fn norm(&self) -> Result<NormType, ConfigError> {
        one_of("norm_type", &self.norm_type, &["batchnorm", "layernorm"])?;
        Ok(if self.norm_type == "batchnorm" {
            NormType::Batch
        } else {
            NormType::Layer
        })
    }

    pub(super) fn pooling(&self) -> Result<Pooling, ConfigError> {
        let pooling = match self.pooling_type.as_deref() {
            None => Pooling::Flatten,
            Some("mean") => Pooling::Mean,
            Some("max") => Pooling::Max,
            Some(other) => {
                let reason = format!("\"{other}\" is not one of \"mean\", \"max\", null");
                return Err(ConfigError::new("pooling_type", reason));
            }
        };
        Ok(if self.use_cls_token {
            Pooling::ClassToken
        } else {
            pooling
        })
    }

    /// The distribution of the head, if it has one.
    ///
    /// # Errors
    /// It is none that is known.
    pub fn family(&self) -> Result<Option<Family>, ConfigError> {
        if self.loss.as_deref() == Some("mse") {
            return Ok(None);
        }
        match &self.distribution_output[..] {
            "student_t" => Ok(Some(Family::StudentT)),
            "normal" => Ok(Some(Family::Normal)),
            "negative_binomial" => Ok(Some(Family::NegativeBinomial)),
            other => {
                let reason =
                    format!("\"{other}\" is not one of student_t, normal, negative_binomial");
                Err(ConfigError::new("distribution_output", reason))
            }
        }
    }

    pub(super) fn scaling(&self) -> Scaling {
        self.scaling
    }

    /// The smallest scale, and the scale of a series that was never observed.
    pub(super) fn scale_limits(&self) -> (f64, Option<f64>) {
        let smallest = match self.scaling {
            Scaling::Mean => 1e-10,
            Scaling::Std | Scaling::None => 1e-5,
        };
        (self.minimum_scale.unwrap_or(smallest), self.default_scale)
    }

    /// Which patches are hidden; `always` for the class that is there to fill them in.
    pub(super) fn masking(&self, always: bool) -> Result<Masking, ConfigError> {
        if !(self.do_mask_input || always) {
            return Ok(Masking::None);
        }
        let except = self.unmasked_channel_indices.clone().unwrap_or_default();
        if let Some(index) = except
            .iter()
            .find(|index| **index >= self.num_input_channels)
        {
            let reason = format!("{index} is not one of {} channels", self.num_input_channels);
            return Err(ConfigError::new("unmasked_channel_indices", reason));
        }
        one_of("mask_type", &self.mask_type, &["random", "forecast"])?;
        if self.mask_type == "random" {
            if !(0.0..1.0).contains(&self.random_mask_ratio) {
                let reason = format!("{} is not between 0 and 1", self.random_mask_ratio);
                return Err(ConfigError::new("random_mask_ratio", reason));
            }
            let patches = self.patches();
            let kept = (patches as f64 * (1.0 - self.random_mask_ratio)) as usize;
            return Ok(if kept == patches {
                Masking::Nothing
            } else {
                Masking::Given
            });
        }
        let counts = match &self.num_forecast_mask_patches {
            None => Vec::new(),
            Some(MaskedPatches::One(count)) => vec![*count],
            Some(MaskedPatches::Several(counts)) => counts.clone(),
        };
        if let Some(count) = counts.iter().find(|c| **c == 0 || **c >= self.patches()) {
            let reason = format!("{count} is not between 1 and {}", self.patches() - 1);
            return Err(ConfigError::new("num_forecast_mask_patches", reason));
        }
        match counts[..] {
            [] => Err(ConfigError::new(
                "num_forecast_mask_patches",
                "names no count",
            )),
            [patches] => Ok(Masking::Last { patches, except }),
            _ => Ok(Masking::Given),
        }
    }
}

fn one_of(field: &str, value: &str, known: &[&str]) -> Result<(), ConfigError> {
    if known.contains(&value) {
        return Ok(());
    }
    let reason = format!("\"{value}\" is not one of {}", known.join(", "));
    Err(ConfigError::new(field, reason))
}
