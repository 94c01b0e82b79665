//! One struct a reference class, wrapping the trunk.

use burn::module::{Module, Param};
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Int, Tensor};

use super::cache::Cache;
use super::config::WhisperConfig;
use super::model::{Decoder, Encoder, Tokens, Whisper};
use crate::ConfigError;
use crate::blocks::{linear_rows, matmul_rows};

/// `WhisperForConditionalGeneration`: a token for each token, the next one.
#[derive(Module, Debug)]
pub struct WhisperForConditionalGeneration {
    pub(super) model: Whisper,
    /// `[vocabulary, width]`, when it is not the token embeddings.
    proj_out: Option<Param<Tensor<2>>>,
}

impl WhisperForConditionalGeneration {
    /// An unfilled model; `tied` when the output layer is the token embeddings.
    ///
    /// # Errors
    /// The configuration cannot be honoured.
    pub fn new(config: &WhisperConfig, tied: bool, device: &Device) -> Result<Self, ConfigError> {
        let shape = [config.vocab_size, config.d_model];
        Ok(Self {
            model: Whisper::new(config, device)?,
            proj_out: (!tied).then(|| Initializer::Zeros.init(shape, device)),
        })
    }

    /// The trunk.
    pub fn trunk(&self) -> &Whisper {
        &self.model
    }

    /// # Shapes
    /// `[b, t]`, encoded `[b, s, width]` → `[b, t, vocabulary]`
    pub fn forward(&self, tokens: Tokens, encoded: Tensor<3>) -> Tensor<3> {
        self.logits(self.model.decode(tokens, encoded))
    }

    /// The logits of the next `t` tokens of each row, which join the cache.
    ///
    /// # Shapes
    /// `[r, t]` → `[r, t, vocabulary]`
    pub fn step(&self, ids: Tensor<2, Int>, cache: &mut Cache) -> Tensor<3> {
        self.logits(self.model.step(ids, cache))
    }

    /// # Shapes
    /// `[b, t, width]` → `[b, t, vocabulary]`
    pub fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        let words = self.proj_out.as_ref().map(Param::val);
        let words = words.unwrap_or_else(|| self.model.token_embeddings());
        matmul_rows(hidden, words.transpose())
    }
}

/// `WhisperForCausalLM`: the decoder with its output layer, which assists a larger model whose encoder it
/// shares.
#[derive(Module, Debug)]
pub struct WhisperForCausalLM {
    model: DecoderOnly,
    /// `[vocabulary, width]`, when it is not the token embeddings.
    proj_out: Option<Param<Tensor<2>>>,
}

#[derive(Module, Debug)]
struct DecoderOnly {
    decoder: Decoder,
}

impl WhisperForCausalLM {
    /// An unfilled model; `tied` when the output layer is the token embeddings.
    ///
    /// # Errors
    /// The configuration cannot be honoured.
    pub fn new(config: &WhisperConfig, tied: bool, device: &Device) -> Result<Self, ConfigError> {
        let shape = [config.vocab_size, config.d_model];
        let decoder = Decoder::new(config, device)?;
        Ok(Self {
            model: DecoderOnly { decoder },
            proj_out: (!tied).then(|| Initializer::Zeros.init(shape, device)),
        })
    }

    /// The decoder.
    pub fn decoder(&self) -> &Decoder {
        &self.model.decoder
    }

    /// Without encoder states, tokens look at each other only.
    ///
    /// # Shapes
    /// `[b, t]`, encoded `[b, s, width]` → `[b, t, vocabulary]`
    pub fn forward(&self, tokens: Tokens, encoded: Option<Tensor<3>>) -> Tensor<3> {
        let decoder = self.decoder();
        let words = self.proj_out.as_ref().map(Param::val);
        let words = words.unwrap_or_else(|| decoder.token_embeddings());
        matmul_rows(decoder.forward(tokens, encoded), words.transpose())
    }
}

/// `WhisperForAudioClassification`: a class for a recording, from the encoder alone.
#[derive(Module, Debug)]
pub struct WhisperForAudioClassification {
    pub(super) encoder: Encoder,
    layer_weights: Option<Param<Tensor<1>>>,
    projector: Linear,
    classifier: Linear,
}

impl WhisperForAudioClassification {
    /// An unfilled model of `classes` classes.
    ///
    /// # Errors
    /// The configuration cannot be honoured.
    pub fn new(
        config: &WhisperConfig,
        classes: usize,
        device: &Device,
    ) -> Result<Self, ConfigError> {
        let inner = config.classifier_proj_size;
        let layers = config.encoder_layers + 1;
        Ok(Self {
            encoder: Encoder::new(config, device)?,
            layer_weights: config
                .use_weighted_layer_sum
                .then(|| Initializer::Zeros.init([layers], device)),
            projector: LinearConfig::new(config.d_model, inner).init(device),
            classifier: LinearConfig::new(inner, classes).init(device),
        })
    }

    /// # Shapes
    /// `[b, m, f]` → `[b, classes]`
    pub fn forward(&self, features: Tensor<3>) -> Tensor<2> {
        let hidden = match &self.layer_weights {
            None => self.encoder.forward(features),
            Some(weights) => self.weighted(&weights.val(), features),
        };
        let projected = linear_rows(&self.projector, hidden);
        let [batch, _, width] = projected.dims();
        let pooled = projected.mean_dim(1).reshape([batch, width]);
        self.classifier.forward(pooled)
    }

    fn weighted(&self, weights: &Tensor<1>, features: Tensor<3>) -> Tensor<3> {
        let weights = softmax(weights.clone(), 0);
        let (mut states, last) = self.encoder.hidden_states(features);
        // What the reference calls the last hidden state is the one after the final norm.
        states.pop();
        states.push(last);
        let weighted = states.into_iter().enumerate().map(|(index, state)| {
            let weight = weights.clone().narrow(0, index, 1);
            state * weight.reshape([1, 1, 1])
        });
        weighted
            .reduce(|sum, state| sum + state)
            .unwrap_or_else(|| Tensor::zeros([0, 0, 0], &weights.device()))
    }
}
