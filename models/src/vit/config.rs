use serde::Deserialize;
use serde_json::Value;

use crate::ConfigError;
use crate::blocks::Activation;
use crate::config::{check_counts, check_epsilon, check_heads, check_sizes, parse};

/// `config.json` of a ViT or a DeiT, with the reference's field names and defaults.
///
/// Fields that act only in training (dropout, initialisation) are not read.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct VitConfig {
    /// `vit`, or `deit`, which has a distillation token.
    pub model_type: Option<String>,
    /// The width of a hidden state.
    pub hidden_size: usize,
    /// The number of encoder layers.
    pub num_hidden_layers: usize,
    /// The number of attention heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// The width inside the MLP.
    pub intermediate_size: usize,
    /// The activation of the MLP.
    pub hidden_act: String,
    /// ε of every layer norm.
    pub layer_norm_eps: f64,
    /// The size of a picture.
    pub image_size: Sides,
    /// The size of a patch.
    pub patch_size: Sides,
    /// The number of channels of a picture.
    pub num_channels: usize,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
    /// How many pixels a side the masked-image head makes of a patch.
    pub encoder_stride: usize,
    /// The width of the pooler's output; that of a hidden state where it is absent.
    pub pooler_output_size: Option<usize>,
    /// The activation of the pooler.
    pub pooler_act: String,
    head_dim: Option<usize>,
}

/// A height and a width, given as two numbers or as one for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Sides {
    /// A square.
    Square(usize),
    /// Height, width.
    Pair([usize; 2]),
}

impl Sides {
    /// Height, width.
    pub fn get(self) -> [usize; 2] {
        match self {
            Sides::Square(side) => [side, side],
            Sides::Pair(sides) => sides,
        }
    }
}

impl Default for VitConfig {
    fn default() -> Self {
        Self {
            model_type: None,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: "gelu".to_owned(),
            layer_norm_eps: 1e-12,
            image_size: Sides::Square(224),
            patch_size: Sides::Square(16),
            num_channels: 3,
            qkv_bias: true,
            encoder_stride: 16,
            pooler_output_size: None,
            pooler_act: "tanh".to_owned(),
            head_dim: None,
        }
    }
}

impl VitConfig {
    /// Reads and checks a parsed `config.json`.
    ///
    /// # Errors
    /// A field has the wrong type or a value that cannot be honoured.
    pub fn parse(json: &Value) -> Result<Self, ConfigError> {
        let config: Self = parse(json)?;
        config.activation()?;
        config.pooler_activation()?;
        let ([height, width], [patch_height, patch_width]) =
            (config.image_size.get(), config.patch_size.get());
        let positive = [
            ("hidden_size", config.hidden_size),
            ("num_attention_heads", config.num_attention_heads),
            ("intermediate_size", config.intermediate_size),
            ("num_channels", config.num_channels),
            ("encoder_stride", config.encoder_stride),
            ("patch_size", patch_height.min(patch_width)),
            ("patch_size", patch_height.max(patch_width)),
            ("image_size", height.max(width)),
            ("pooler_output_size", config.pooler_width()),
        ];
        check_sizes(&positive, 1 << 24)?;
        if height < patch_height || width < patch_width {
            let reason = format!(
                "{height} × {width} has no room for a patch of {patch_height} × {patch_width}"
            );
            return Err(ConfigError::new("image_size", reason));
        }
        let heads = config.num_attention_heads;
        check_heads(
            ("num_attention_heads", heads),
            ("hidden_size", config.hidden_size),
        )?;
        if let Some(width) = config.head_dim
            && width * heads != config.hidden_size
        {
            let reason = format!("{width} is not `hidden_size` over `num_attention_heads`");
            return Err(ConfigError::new("head_dim", reason));
        }
        check_epsilon("layer_norm_eps", config.layer_norm_eps)?;
        Ok(config)
    }

    /// Checks, before anything is built, that the checkpoint has as many tensors as layers are claimed.
    pub(super) fn check_depth(&self, tensors: usize) -> Result<(), ConfigError> {
        check_counts(&[("num_hidden_layers", self.num_hidden_layers)], tensors)
    }

    pub(super) fn activation(&self) -> Result<Activation, ConfigError> {
        Activation::parse("hidden_act", &self.hidden_act)
    }

    pub(super) fn pooler_activation(&self) -> Result<Activation, ConfigError> {
        Activation::parse("pooler_act", &self.pooler_act)
    }

    pub(super) fn pooler_width(&self) -> usize {
        // The reference takes 0 for absent too.
        let width = self.pooler_output_size.filter(|width| *width > 0);
        width.unwrap_or(self.hidden_size)
    }

    /// Whether there is a distillation token behind the class token.
    pub(super) fn distilled(&self) -> bool {
        self.model_type.as_deref() == Some("deit")
    }

    /// The rows and columns of patches of a picture of the configured size.
    pub(super) fn grid(&self) -> [usize; 2] {
        let ([height, width], [patch_height, patch_width]) =
            (self.image_size.get(), self.patch_size.get());
        [height / patch_height, width / patch_width]
    }
}
