//! The trunk, top-down: encoder, decoder, their layers, attention.
//!
//! Shapes: `b` recordings in the batch, `m` mel bins, `f` frames, `s` = `f / 2` encoder positions, `r` rows
//! of tokens (`b` times the beams), `t` tokens each, `h` heads of width `d`.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv1d, Conv1dConfig};
use burn::nn::{Embedding, EmbeddingConfig, Initializer, PaddingConfig1d};
use burn::tensor::activation::softmax;
use burn::tensor::{Bool, Device, Int, Tensor};

use super::cache::{Cache, CrossKeys, LayerCache, OwnKeys};
use super::config::WhisperConfig;
use crate::ConfigError;
use crate::blocks::{Activation, Attention, LayerNorm, Mask, Mlp, conv1d, embed};

/// A batch of token sequences on a device.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// `[b, t]`
    pub ids: Tensor<2, Int>,
    /// The position of each token, `[b, t]` or `[1, t]`; without it they count from 0.
    pub positions: Option<Tensor<2, Int>>,
    /// `true` where a token is padding, `[b, t]`; without it none is.
    pub padding: Option<Tensor<2, Bool>>,
}

impl From<Tensor<2, Int>> for Tokens {
    fn from(ids: Tensor<2, Int>) -> Self {
        Self {
            ids,
            positions: None,
            padding: None,
        }
    }
}

/// The encoder and the decoder.
#[derive(Module, Debug)]
pub struct Whisper {
    pub(super) encoder: Encoder,
    pub(super) decoder: Decoder,
}

impl Whisper {
    /// An unfilled trunk.
    ///
    /// # Errors
    /// The configuration cannot be honoured.
    pub fn new(config: &WhisperConfig, device: &Device) -> Result<Self, ConfigError> {
        Ok(Self {
            encoder: Encoder::new(config, device)?,
            decoder: Decoder::new(config, device)?,
        })
    }

    /// The encoder's last hidden states of a window of log-mel frames.
    ///
    /// # Shapes
    /// `[b, m, f]` → `[b, s, width]`; `f` is [`WhisperConfig::window_frames`]
    pub fn encode(&self, features: Tensor<3>) -> Tensor<3> {
        self.encoder.forward(features)
    }

    /// The decoder's last hidden states of whole sequences.
    ///
    /// # Shapes
    /// `[b, t]`, encoded `[b, s, width]` → `[b, t, width]`
    pub fn decode(&self, tokens: Tokens, encoded: Tensor<3>) -> Tensor<3> {
        self.decoder.forward(tokens, Some(encoded))
    }

    /// A cache for decoding step by step: `beams` rows of up to `capacity` tokens for each recording. What
    /// the decoder asks of the recording is computed here, once.
    ///
    /// # Shapes
    /// encoded `[b, s, width]`
    pub fn cache(&self, encoded: Tensor<3>, beams: usize, capacity: usize) -> Cache {
        self.decoder.cache(encoded, beams, capacity)
    }

    /// The hidden states of the next `t` tokens of each row, which join the cache.
    ///
    /// Tokens beyond the cache's capacity push nothing out: the caller asks
    /// [`Cache::room`](super::Cache::room) first.
    ///
    /// # Shapes
    /// `[r, t]` → `[r, t, width]`
    pub fn step(&self, ids: Tensor<2, Int>, cache: &mut Cache) -> Tensor<3> {
        self.decoder.step(ids, cache)
    }

    /// How much each token of whole sequences looks at each encoder position, by each of `heads`: a decoder
    /// layer, and a head of it. There must be one, and the decoder must have them.
    ///
    /// # Shapes
    /// `[b, t]`, encoded `[b, s, width]` → `[b, heads, t, s]`
    pub fn cross_attentions(
        &self,
        tokens: Tokens,
        encoded: Tensor<3>,
        heads: &[[usize; 2]],
    ) -> Tensor<4> {
        self.decoder.cross_attentions(tokens, encoded, heads)
    }

    /// The token embeddings, `[vocabulary, width]`, which a tied output layer shares.
    pub(super) fn token_embeddings(&self) -> Tensor<2> {
        self.decoder.token_embeddings()
    }
}

/// Two convolutions, which halve the frames, and transformer layers.
#[derive(Module, Debug)]
pub struct Encoder {
    conv1: Conv1d,
    conv2: Conv1d,
    position_embeddings: Param<Tensor<2>>,
    layers: Vec<EncoderLayer>,
    norm: LayerNorm,
}

impl Encoder {
    /// An unfilled encoder.
    ///
    /// # Errors
    /// The configuration cannot be honoured.
    pub fn new(config: &WhisperConfig, device: &Device) -> Result<Self, ConfigError> {
        let width = config.d_model;
        let conv = |channels, stride| {
            Conv1dConfig::new(channels, width, 3)
                .with_stride(stride)
                .with_padding(PaddingConfig1d::Explicit(1, 1))
                .init(device)
        };
        let layers = (0..config.encoder_layers).map(|_| EncoderLayer::new(config, device));
        Ok(Self {
            conv1: conv(config.num_mel_bins, 1),
            conv2: conv(width, 2),
            position_embeddings: Initializer::Zeros
                .init([config.max_source_positions, width], device),
            layers: layers.collect::<Result<_, _>>()?,
            norm: norm(config, device),
        })
    }

    /// # Shapes
    /// `[b, m, f]` → `[b, s, width]`
    pub fn forward(&self, features: Tensor<3>) -> Tensor<3> {
        let embedded = self.embed(features);
        let hidden = self
            .layers
            .iter()
            .fold(embedded, |hidden, layer| layer.forward(hidden));
        self.norm.forward(hidden)
    }

    /// The embedded frames, every layer's hidden states, and the last ones after the final norm.
    ///
    /// # Shapes
    /// `[b, m, f]` → `layers + 1` times `[b, s, width]`, `[b, s, width]`
    pub fn hidden_states(&self, features: Tensor<3>) -> (Vec<Tensor<3>>, Tensor<3>) {
        let mut states = vec![self.embed(features)];
        for layer in &self.layers {
            states.push(layer.forward(states[states.len() - 1].clone()));
        }
        let last = self.norm.forward(states[states.len() - 1].clone());
        (states, last)
    }

    /// # Shapes
    /// `[b, m, f]` → `[b, s, width]`
    fn embed(&self, features: Tensor<3>) -> Tensor<3> {
        // Always GELU, whatever `activation_function` says.
        let hidden = conv1d(&self.conv1, features, Activation::Gelu);
        let hidden = conv1d(&self.conv2, hidden, Activation::Gelu);
        hidden.swap_dims(1, 2) + self.position_embeddings.val().unsqueeze()
    }
}

#[derive(Module, Debug)]
struct EncoderLayer {
    attention: Attention,
    attention_norm: LayerNorm,
    mlp: Mlp,
    mlp_norm: LayerNorm,
}

impl EncoderLayer {
    fn new(config: &WhisperConfig, device: &Device) -> Result<Self, ConfigError> {
        let width = config.d_model;
        Ok(Self {
            attention: Attention::new(width, config.encoder_attention_heads, BIASES, device),
            attention_norm: norm(config, device),
            mlp: Mlp::new(
                width,
                config.encoder_ffn_dim,
                true,
                config.activation()?,
                device,
            ),
            mlp_norm: norm(config, device),
        })
    }

    /// # Shapes
    /// `[b, s, width]` → the same
    fn forward(&self, hidden: Tensor<3>) -> Tensor<3> {
        let normed = self.attention_norm.forward(hidden.clone());
        let hidden = self.attention.forward_sum(normed, Mask::default(), hidden);
        let normed = self.mlp_norm.forward(hidden.clone());
        self.mlp.forward_sum(normed, hidden)
    }
}

/// Transformer layers over tokens, which also look at the encoder's states.
#[derive(Module, Debug)]
pub struct Decoder {
    token_embeddings: Embedding,
    position_embeddings: Param<Tensor<2>>,
    layers: Vec<DecoderLayer>,
    norm: LayerNorm,
}

impl Decoder {
    /// An unfilled decoder.
    ///
    /// # Errors
    /// The configuration cannot be honoured.
    pub fn new(config: &WhisperConfig, device: &Device) -> Result<Self, ConfigError> {
        let width = config.d_model;
        let layers = (0..config.decoder_layers).map(|_| DecoderLayer::new(config, device));
        Ok(Self {
            token_embeddings: EmbeddingConfig::new(config.vocab_size, width).init(device),
            position_embeddings: Initializer::Zeros
                .init([config.max_target_positions, width], device),
            layers: layers.collect::<Result<_, _>>()?,
            norm: norm(config, device),
        })
    }

    /// Without encoder states, tokens look at each other only.
    ///
    /// # Shapes
    /// `[b, t]`, encoded `[b, s, width]` → `[b, t, width]`
    pub fn forward(&self, tokens: Tokens, encoded: Option<Tensor<3>>) -> Tensor<3> {
        let (_, last) = self.hidden_states(tokens, encoded);
        last
    }

    /// The embeddings, every layer's hidden states, and the last ones after the final norm.
    ///
    /// # Shapes
    /// `[b, t]`, encoded `[b, s, width]` → `layers + 1` times `[b, t, width]`, `[b, t, width]`
    pub fn hidden_states(
        &self,
        tokens: Tokens,
        encoded: Option<Tensor<3>>,
    ) -> (Vec<Tensor<3>>, Tensor<3>) {
        let padding = tokens.padding.clone();
        let mut states = vec![self.embed(tokens)];
        for layer in &self.layers {
            let hidden = states[states.len() - 1].clone();
            states.push(layer.forward(hidden, padding.as_ref(), encoded.clone()));
        }
        let last = self.norm.forward(states[states.len() - 1].clone());
        (states, last)
    }

    fn cross_attentions(
        &self,
        tokens: Tokens,
        encoded: Tensor<3>,
        heads: &[[usize; 2]],
    ) -> Tensor<4> {
        let padding = tokens.padding.clone();
        let mut hidden = self.embed(tokens);
        let mut weights: Vec<(usize, Tensor<4>)> = Vec::with_capacity(heads.len());
        for (index, layer) in self.layers.iter().enumerate() {
            let attended = layer.attend(hidden, padding.as_ref());
            let cross = layer.cross_keys(encoded.clone());
            let asked = heads.iter().enumerate();
            let asked = asked.filter(|(_, [layer, _])| *layer == index);
            weights.extend(asked.map(|(place, [_, head])| {
                let weights = layer.cross_weights(attended.clone(), &cross, *head);
                (place, weights)
            }));
            if weights.len() == heads.len() {
                break;
            }
            hidden = layer.look(attended, &cross, 1);
        }
        weights.sort_by_key(|(place, _)| *place);
        let weights = weights.into_iter().map(|(_, weights)| weights);
        Tensor::cat(weights.collect(), 1)
    }

    pub(super) fn token_embeddings(&self) -> Tensor<2> {
        self.token_embeddings.weight.val()
    }

    fn cache(&self, encoded: Tensor<3>, beams: usize, capacity: usize) -> Cache {
        let [recordings, _, _] = encoded.dims();
        let capacity = capacity.min(self.position_embeddings.val().dims()[0]);
        let layers = self.layers.iter().map(|layer| {
            let [heads, width] = layer.attention.heads();
            let shape = [recordings * beams, heads, capacity, width];
            LayerCache {
                cross: layer.cross_keys(encoded.clone()),
                own: OwnKeys::new(shape, &encoded.device()),
            }
        });
        Cache::new(layers.collect(), beams, capacity)
    }

    fn step(&self, ids: Tensor<2, Int>, cache: &mut Cache) -> Tensor<3> {
        let [_, new] = ids.dims();
        let start = cache.length();
        let mut hidden = embed(&self.token_embeddings, ids) + self.positions(start, new);
        let beams = cache.beams();
        for (layer, cache) in self.layers.iter().zip(cache.layers_mut()) {
            hidden = layer.step(hidden, cache, start, beams);
        }
        cache.advance(new);
        self.norm.forward(hidden)
    }

    /// # Shapes
    /// `[b, t]` → `[b, t, width]`
    fn embed(&self, tokens: Tokens) -> Tensor<3> {
        let [_, length] = tokens.ids.dims();
        let words = embed(&self.token_embeddings, tokens.ids);
        words
            + match tokens.positions {
                None => self.positions(0, length),
                Some(positions) => {
                    let [rows, length] = positions.dims();
                    let table = self.position_embeddings.val();
                    let [_, width] = table.dims();
                    let chosen = table.select(0, positions.reshape([rows * length]));
                    chosen.reshape([rows, length, width])
                }
            }
    }

    /// # Shapes
    /// `[1, count, width]`
    fn positions(&self, start: usize, count: usize) -> Tensor<3> {
        let table = self.position_embeddings.val();
        let [_, width] = table.dims();
        table.slice([start..start + count, 0..width]).unsqueeze()
    }
}

#[derive(Module, Debug)]
struct DecoderLayer {
    attention: Attention,
    attention_norm: LayerNorm,
    cross_attention: Attention,
    cross_attention_norm: LayerNorm,
    mlp: Mlp,
    mlp_norm: LayerNorm,
}

impl DecoderLayer {
    fn new(config: &WhisperConfig, device: &Device) -> Result<Self, ConfigError> {
        let (width, heads) = (config.d_model, config.decoder_attention_heads);
        Ok(Self {
            attention: Attention::new(width, heads, BIASES, device),
            attention_norm: norm(config, device),
            cross_attention: Attention::new(width, heads, BIASES, device),
            cross_attention_norm: norm(config, device),
            mlp: Mlp::new(
                width,
                config.decoder_ffn_dim,
                true,
                config.activation()?,
                device,
            ),
            mlp_norm: norm(config, device),
        })
    }

    /// # Shapes
    /// `[b, t, width]`, padding `[b, t]`, encoded `[b, s, width]` → `[b, t, width]`
    fn forward(
        &self,
        hidden: Tensor<3>,
        padding: Option<&Tensor<2, Bool>>,
        encoded: Option<Tensor<3>>,
    ) -> Tensor<3> {
        let hidden = self.attend(hidden, padding);
        match encoded {
            Some(encoded) => self.look(hidden, &self.cross_keys(encoded), 1),
            None => self.mix(hidden),
        }
    }

    /// One step: `t` new tokens after the `start` that the cache holds.
    ///
    /// # Shapes
    /// `[r, t, width]` → the same
    fn step(
        &self,
        hidden: Tensor<3>,
        cache: &mut LayerCache,
        start: usize,
        beams: usize,
    ) -> Tensor<3> {
        let normed = self.attention_norm.forward(hidden.clone());
        let query = self.attention.query(normed.clone());
        let (key, value) = self.attention.key_value(normed);
        let (key, value) = cache.own.append(start, key, value);
        let mask = Mask {
            padding: None,
            causal: true,
        };
        let hidden = self.attention.attend_sum(query, key, value, mask, hidden);
        self.look(hidden, &cache.cross, beams)
    }

    /// The part of a layer in which tokens look at each other.
    fn attend(&self, hidden: Tensor<3>, padding: Option<&Tensor<2, Bool>>) -> Tensor<3> {
        let normed = self.attention_norm.forward(hidden.clone());
        let mask = Mask {
            padding,
            causal: true,
        };
        self.attention.forward_sum(normed, mask, hidden)
    }

    /// The part of a layer in which tokens look at the recording, and the MLP.
    fn look(&self, hidden: Tensor<3>, cross: &CrossKeys, beams: usize) -> Tensor<3> {
        let [rows, length, width] = hidden.dims();
        let normed = self.cross_attention_norm.forward(hidden.clone());
        // The beams of a recording are asked together: they share its keys.
        let together = [rows / beams, beams * length, width];
        let query = self.cross_attention.query(normed.reshape(together));
        let (key, value) = (cross.key.clone(), cross.value.clone());
        let added = hidden.reshape(together);
        let attention = &self.cross_attention;
        let hidden = attention.attend_sum(query, key, value, Mask::default(), added);
        self.mix(hidden.reshape([rows, length, width]))
    }

    fn mix(&self, hidden: Tensor<3>) -> Tensor<3> {
        let normed = self.mlp_norm.forward(hidden.clone());
        self.mlp.forward_sum(normed, hidden)
    }

    fn cross_keys(&self, encoded: Tensor<3>) -> CrossKeys {
        let (key, value) = self.cross_attention.key_value(encoded);
        CrossKeys { key, value }
    }

    /// How much tokens look at the recording by one head.
    ///
    /// # Shapes
    /// `[b, t, width]` → `[b, 1, t, s]`
    fn cross_weights(&self, hidden: Tensor<3>, cross: &CrossKeys, head: usize) -> Tensor<4> {
        let normed = self.cross_attention_norm.forward(hidden);
        let query = self.cross_attention.query(normed).narrow(1, head, 1);
        let key = cross.key.clone().narrow(1, head, 1);
        let [_, _, _, width] = query.dims();
        let scores = (query / (width as f64).sqrt()).matmul(key.swap_dims(2, 3));
        softmax(scores, 3)
    }
}

/// Keys have no bias.
const BIASES: [bool; 3] = [true, false, true];

fn norm(config: &WhisperConfig, device: &Device) -> LayerNorm {
    // PyTorch's default, which the reference does not let a configuration change.
    LayerNorm::new(config.d_model, 1e-5, device)
}
