use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ConfigError;
use crate::blocks::Activation;
use crate::config::{check_counts, check_heads, check_sizes, parse};

/// `config.json` of a Whisper, with the reference's field names and defaults.
///
/// Fields that act only in training (dropout, layer drop, SpecAugment, initialisation) or only on speed
/// (`use_cache`) are not read, nor is `scale_embedding`, which the reference ignores.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default)]
pub struct WhisperConfig {
    /// The number of tokens.
    pub vocab_size: usize,
    /// The number of mel bins of a frame: 80, or 128 since large-v3.
    pub num_mel_bins: usize,
    /// The width of a hidden state.
    pub d_model: usize,
    /// The number of encoder layers.
    pub encoder_layers: usize,
    /// The number of attention heads in the encoder; divides `d_model`.
    pub encoder_attention_heads: usize,
    /// The width inside the encoder's MLPs.
    pub encoder_ffn_dim: usize,
    /// The number of decoder layers.
    pub decoder_layers: usize,
    /// The number of attention heads in the decoder; divides `d_model`.
    pub decoder_attention_heads: usize,
    /// The width inside the decoder's MLPs.
    pub decoder_ffn_dim: usize,
    /// The activation of the MLPs; the convolutions always use GELU.
    pub activation_function: String,
    /// The number of encoder positions, half the frames of a window.
    pub max_source_positions: usize,
    /// The longest sequence of tokens.
    pub max_target_positions: usize,
    /// Whether the output layer is the token embeddings.
    pub tie_word_embeddings: bool,
    /// Whether the audio classifier reads a weighted sum of all layers instead of the last.
    pub use_weighted_layer_sum: bool,
    /// The width before the audio classifier's pooling.
    pub classifier_proj_size: usize,
    /// The width of the median filter over attention weights, by which words are aligned; odd.
    pub median_filter_width: usize,
}

impl Default for WhisperConfig {
    fn default() -> Self {
        Self {
            vocab_size: 51865,
            num_mel_bins: 80,
            d_model: 384,
            encoder_layers: 4,
            encoder_attention_heads: 6,
            encoder_ffn_dim: 1536,
            decoder_layers: 4,
            decoder_attention_heads: 6,
            decoder_ffn_dim: 1536,
            activation_function: "gelu".to_owned(),
            max_source_positions: 1500,
            max_target_positions: 448,
            tie_word_embeddings: true,
            use_weighted_layer_sum: false,
            classifier_proj_size: 256,
            median_filter_width: 7,
        }
    }
}

/// The `dims` of OpenAI's checkpoints.
#[derive(Debug, Clone, Deserialize)]
struct Dimensions {
    n_mels: usize,
    n_audio_ctx: usize,
    n_audio_state: usize,
    n_audio_head: usize,
    n_audio_layer: usize,
    n_vocab: usize,
    n_text_ctx: usize,
    n_text_state: usize,
    n_text_head: usize,
    n_text_layer: usize,
}

impl From<Dimensions> for WhisperConfig {
    fn from(dims: Dimensions) -> Self {
        Self {
            vocab_size: dims.n_vocab,
            num_mel_bins: dims.n_mels,
            d_model: dims.n_audio_state,
            encoder_layers: dims.n_audio_layer,
            encoder_attention_heads: dims.n_audio_head,
            encoder_ffn_dim: dims.n_audio_state.saturating_mul(4),
            decoder_layers: dims.n_text_layer,
            decoder_attention_heads: dims.n_text_head,
            decoder_ffn_dim: dims.n_text_state.saturating_mul(4),
            max_source_positions: dims.n_audio_ctx,
            max_target_positions: dims.n_text_ctx,
            ..Self::default()
        }
    }
}

impl WhisperConfig {
    /// Reads and checks a parsed `config.json`: Hugging Face's fields, or OpenAI's `dims` (`n_mels`, …).
    ///
    /// # Errors
    /// A field has the wrong type or a value that cannot be honoured.
    pub fn parse(json: &Value) -> Result<Self, ConfigError> {
        let dims = json.get("dims").unwrap_or(json);
        let config: Self = if dims.get("n_mels").is_some() {
            let parsed: Dimensions = parse(dims)?;
            if parsed.n_text_state != parsed.n_audio_state {
                let (text, audio) = (parsed.n_text_state, parsed.n_audio_state);
                let reason = format!("{text} is not `n_audio_state` {audio}");
                return Err(ConfigError::new("n_text_state", reason));
            }
            parsed.into()
        } else {
            parse(json)?
        };
        config.check()
    }

    /// A configuration with OpenAI's `dims` as transformers has it; `None` for another.
    pub(super) fn hugging_face(json: &Value) -> Option<Value> {
        json.get("dims").unwrap_or(json).get("n_mels")?;
        let mut fields = json.as_object()?.clone();
        fields.remove("dims");
        fields.retain(|name, _| !name.starts_with("n_"));
        let class = serde_json::json!(["WhisperForConditionalGeneration"]);
        fields.entry("architectures").or_insert(class);
        let parsed = serde_json::to_value(Self::parse(json).ok()?).ok()?;
        for (name, value) in parsed.as_object()? {
            fields.entry(name).or_insert_with(|| value.clone());
        }
        Some(Value::Object(fields))
    }

    fn check(self) -> Result<Self, ConfigError> {
        self.activation()?;
        let positive = [
            ("vocab_size", self.vocab_size),
            ("num_mel_bins", self.num_mel_bins),
            ("d_model", self.d_model),
            ("encoder_attention_heads", self.encoder_attention_heads),
            ("encoder_ffn_dim", self.encoder_ffn_dim),
            ("decoder_attention_heads", self.decoder_attention_heads),
            ("decoder_ffn_dim", self.decoder_ffn_dim),
            ("max_source_positions", self.max_source_positions),
            ("max_target_positions", self.max_target_positions),
            ("classifier_proj_size", self.classifier_proj_size),
            ("median_filter_width", self.median_filter_width),
        ];
        check_sizes(&positive, 1 << 31)?;
        let heads = [
            ("encoder_attention_heads", self.encoder_attention_heads),
            ("decoder_attention_heads", self.decoder_attention_heads),
        ];
        for heads in heads {
            check_heads(heads, ("d_model", self.d_model))?;
        }
        if self.median_filter_width.is_multiple_of(2) {
            let reason = format!("{} is not odd", self.median_filter_width);
            return Err(ConfigError::new("median_filter_width", reason));
        }
        Ok(self)
    }

    /// Checks, before anything is built, that the checkpoint has as many tensors as layers are claimed.
    pub(super) fn check_depth(&self, tensors: usize) -> Result<(), ConfigError> {
        let claims = [
            ("encoder_layers", self.encoder_layers),
            ("decoder_layers", self.decoder_layers),
        ];
        check_counts(&claims, tensors)
    }

    pub(super) fn activation(&self) -> Result<Activation, ConfigError> {
        Activation::parse("activation_function", &self.activation_function)
    }

    /// The mel frames of a window, which the convolutions halve.
    pub fn window_frames(&self) -> usize {
        self.max_source_positions * 2
    }
}
