use serde::Deserialize;
use serde_json::Value;

use crate::ConfigError;
use crate::blocks::Activation;
use crate::config::{check_counts, check_epsilon, check_heads, check_sizes, parse};

/// `config.json` of a BERT, with the reference's field names and defaults.
///
/// Fields that act only in training (dropout, initialisation) or only on speed (`use_cache`,
/// `chunk_size_feed_forward`) are not read.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct BertConfig {
    /// The number of word pieces.
    pub vocab_size: usize,
    /// The width of a hidden state.
    pub hidden_size: usize,
    /// The number of encoder layers.
    pub num_hidden_layers: usize,
    /// The number of attention heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// The width inside the MLP.
    pub intermediate_size: usize,
    /// The activation of the MLP and of the masked-language head.
    pub hidden_act: String,
    /// The longest sequence.
    pub max_position_embeddings: usize,
    /// The number of segments.
    pub type_vocab_size: usize,
    /// ε of every layer norm.
    pub layer_norm_eps: f64,
    /// `absolute`, `relative_key` or `relative_key_query`.
    pub position_embedding_type: String,
    /// Whether a position sees only those before it.
    pub is_decoder: bool,
    /// Whether the masked-language head shares the word embeddings.
    pub tie_word_embeddings: bool,
    add_cross_attention: bool,
    pruned_heads: serde_json::Map<String, Value>,
}

impl Default for BertConfig {
    fn default() -> Self {
        Self {
            vocab_size: 30522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: "gelu".to_owned(),
            max_position_embeddings: 512,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            position_embedding_type: "absolute".to_owned(),
            is_decoder: false,
            tie_word_embeddings: true,
            add_cross_attention: false,
            pruned_heads: serde_json::Map::new(),
        }
    }
}

/// How a sequence's order enters the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Positions {
    /// A vector a position, added to the word's.
    Absolute,
    /// A vector a distance, multiplied with the queries.
    RelativeKey,
    /// The same, multiplied with the queries and the keys.
    RelativeKeyQuery,
}

impl BertConfig {
    /// Reads and checks a parsed `config.json`.
    ///
    /// # Errors
    /// A field has the wrong type or a value that cannot be honoured.
    pub fn parse(json: &Value) -> Result<Self, ConfigError> {
        let config: Self = parse(json)?;
        config.activation()?;
        config.positions()?;
        let positive = [
            ("vocab_size", config.vocab_size),
            ("hidden_size", config.hidden_size),
            ("num_attention_heads", config.num_attention_heads),
            ("intermediate_size", config.intermediate_size),
            ("max_position_embeddings", config.max_position_embeddings),
            ("type_vocab_size", config.type_vocab_size),
        ];
        check_sizes(&positive, 1 << 31)?;
        check_heads(
            ("num_attention_heads", config.num_attention_heads),
            ("hidden_size", config.hidden_size),
        )?;
        check_epsilon("layer_norm_eps", config.layer_norm_eps)?;
        if config.add_cross_attention {
            let reason =
                "cross attention is not supported by bert; only encoders and plain decoders are";
            return Err(ConfigError::new("add_cross_attention", reason));
        }
        if !config.pruned_heads.is_empty() {
            let reason = "pruned heads are not supported; save the model with all heads";
            return Err(ConfigError::new("pruned_heads", reason));
        }
        Ok(config)
    }

    /// Checks, before anything is built, that the checkpoint has as many tensors as layers are claimed.
    pub(super) fn check_depth(&self, tensors: usize) -> Result<(), ConfigError> {
        check_counts(&[("num_hidden_layers", self.num_hidden_layers)], tensors)
    }

    pub(super) fn activation(&self) -> Result<Activation, ConfigError> {
        Activation::parse("hidden_act", &self.hidden_act)
    }

    pub(super) fn positions(&self) -> Result<Positions, ConfigError> {
        match &self.position_embedding_type[..] {
            "absolute" => Ok(Positions::Absolute),
            "relative_key" => Ok(Positions::RelativeKey),
            "relative_key_query" => Ok(Positions::RelativeKeyQuery),
            other => Err(ConfigError::new(
                "position_embedding_type",
                format!("\"{other}\" is not one of absolute, relative_key, relative_key_query"),
            )),
        }
    }
}
