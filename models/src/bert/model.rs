//! The trunk, top-down.
//!
//! Shapes: `b` sequences in the batch, `s` tokens each, `h` heads of width `d`.

use burn::module::{Module, Param};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::{Bool, Device, Int, Tensor};

use super::config::{BertConfig, Positions};
use crate::ConfigError;
use crate::blocks::{Attention, LayerNorm, Mask, Mlp, embed, widened};

/// A batch of token sequences on a device.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// `[b, s]`
    pub input_ids: Tensor<2, Int>,
    /// The segment of each token, `[b, s]`; without it all are of segment 0.
    pub token_type_ids: Option<Tensor<2, Int>>,
    /// The position of each token, `[b, s]` or `[1, s]`; without it they count from 0.
    pub position_ids: Option<Tensor<2, Int>>,
    /// `true` where a token is padding, `[b, s]`; without it none is.
    pub padding: Option<Tensor<2, Bool>>,
}

/// The encoder, with its pooler if the checkpoint has one.
#[derive(Module, Debug)]
pub struct Bert {
    embeddings: Embeddings,
    layers: Vec<Layer>,
    pooler: Option<Linear>,
    #[module(skip)]
    causal: bool,
}

impl Bert {
    /// An unfilled trunk.
    ///
    /// # Errors
    /// The configuration cannot be honoured.
    pub fn new(config: &BertConfig, pooler: bool, device: &Device) -> Result<Self, ConfigError> {
        let layers = (0..config.num_hidden_layers).map(|_| Layer::new(config, device));
        let width = config.hidden_size;
        Ok(Self {
            embeddings: Embeddings::new(config, device)?,
            layers: layers.collect::<Result<_, _>>()?,
            pooler: pooler.then(|| LinearConfig::new(width, width).init(device)),
            causal: config.is_decoder,
        })
    }

    /// The last layer's hidden states.
    ///
    /// # Shapes
    /// `[b, s]` → `[b, s, hidden]`
    pub fn forward(&self, tokens: Tokens) -> Tensor<3> {
        let padding = tokens.padding.clone();
        let mask = self.mask(padding.as_ref());
        let embedded = self.embeddings.forward(tokens);
        let layers = self.layers.iter();
        layers.fold(embedded, |hidden, layer| layer.forward(hidden, mask))
    }

    /// The embeddings and every layer's hidden states, in order.
    ///
    /// # Shapes
    /// `[b, s]` → `layers + 1` times `[b, s, hidden]`
    pub fn hidden_states(&self, tokens: Tokens) -> Vec<Tensor<3>> {
        let padding = tokens.padding.clone();
        let mask = self.mask(padding.as_ref());
        let mut states = vec![self.embeddings.forward(tokens)];
        for layer in &self.layers {
            let hidden = states[states.len() - 1].clone();
            states.push(layer.forward(hidden, mask));
        }
        states
    }

    fn mask<'a>(&self, padding: Option<&'a Tensor<2, Bool>>) -> Mask<'a> {
        Mask {
            padding,
            causal: self.causal,
        }
    }

    /// The first token's hidden state through the pooler, if there is one.
    ///
    /// # Shapes
    /// `[b, s, hidden]` → `[b, hidden]`
    pub fn pool(&self, hidden: &Tensor<3>) -> Option<Tensor<2>> {
        let pooler = self.pooler.as_ref()?;
        let [batch, _, width] = hidden.dims();
        let first = hidden.clone().slice([0..batch, 0..1, 0..width]);
        Some(pooler.forward(first.reshape([batch, width])).tanh())
    }

    /// The word embeddings, `[vocabulary, hidden]`, which a tied output layer shares.
    pub(super) fn word_embeddings(&self) -> Tensor<2> {
        self.embeddings.word_embeddings.weight.val()
    }
}

#[derive(Module, Debug)]
struct Embeddings {
    word_embeddings: Embedding,
    token_type_embeddings: Embedding,
    position_embeddings: Option<Embedding>,
    norm: LayerNorm,
}

impl Embeddings {
    fn new(config: &BertConfig, device: &Device) -> Result<Self, ConfigError> {
        let table = |rows| EmbeddingConfig::new(rows, config.hidden_size).init(device);
        let absolute = config.positions()? == Positions::Absolute;
        Ok(Self {
            word_embeddings: table(config.vocab_size),
            token_type_embeddings: table(config.type_vocab_size),
            position_embeddings: absolute.then(|| table(config.max_position_embeddings)),
            norm: norm(config, device),
        })
    }

    /// # Shapes
    /// `[b, s]` → `[b, s, hidden]`
    fn forward(&self, tokens: Tokens) -> Tensor<3> {
        let [_, sequence] = tokens.input_ids.dims();
        let words = embed(&self.word_embeddings, tokens.input_ids);
        let types = match tokens.token_type_ids {
            Some(ids) => embed(&self.token_type_embeddings, ids),
            None => rows(&self.token_type_embeddings.weight, 1),
        };
        let embedded = words + types;
        let embedded = match (&self.position_embeddings, tokens.position_ids) {
            (None, _) => embedded,
            (Some(table), Some(ids)) => embedded + embed(table, ids),
            (Some(table), None) => embedded + rows(&table.weight, sequence),
        };
        self.norm.forward(embedded)
    }
}

/// The first `count` rows of a table, `[1, count, hidden]`.
fn rows(table: &Param<Tensor<2>>, count: usize) -> Tensor<3> {
    let table = table.val();
    let [_, width] = table.dims();
    widened(table.slice([0..count, 0..width]).unsqueeze())
}

#[derive(Module, Debug)]
struct Layer {
    attention: Attention,
    distances: Option<Distances>,
    attention_norm: LayerNorm,
    mlp: Mlp,
    mlp_norm: LayerNorm,
}

impl Layer {
    fn new(config: &BertConfig, device: &Device) -> Result<Self, ConfigError> {
        Ok(Self {
            attention: Attention::new(
                config.hidden_size,
                config.num_attention_heads,
                [true; 3],
                device,
            ),
            distances: Distances::new(config, device)?,
            attention_norm: norm(config, device),
            mlp: Mlp::new(
                config.hidden_size,
                config.intermediate_size,
                true,
                config.activation()?,
                device,
            ),
            mlp_norm: norm(config, device),
        })
    }

    /// # Shapes
    /// `[b, s, hidden]` → the same
    fn forward(&self, hidden: Tensor<3>, mask: Mask<'_>) -> Tensor<3> {
        let query = self.attention.query(hidden.clone());
        let (key, value) = self.attention.key_value(hidden.clone());
        let distances = self.distances.as_ref();
        let bias = distances.map(|distances| distances.forward(&query, &key));
        let attended = self.attention.attend(query, key, value, mask, bias);
        let hidden = self.attention_norm.forward_sum(attended, hidden);
        let mixed = self.mlp.forward(hidden.clone());
        self.mlp_norm.forward_sum(mixed, hidden)
    }
}

/// What the distance between two tokens adds to their score.
///
/// Reference: `BertSelfAttention.forward` of transformers 4.46; later versions ignore
/// `position_embedding_type`.
#[derive(Module, Debug)]
struct Distances {
    embedding: Embedding,
    /// Whether keys are multiplied with it too.
    by_key: bool,
}

impl Distances {
    fn new(config: &BertConfig, device: &Device) -> Result<Option<Self>, ConfigError> {
        let distances = 2 * config.max_position_embeddings - 1;
        let width = config.hidden_size / config.num_attention_heads;
        let by_key = match config.positions()? {
            Positions::Absolute => return Ok(None),
            Positions::RelativeKey => false,
            Positions::RelativeKeyQuery => true,
        };
        Ok(Some(Self {
            embedding: EmbeddingConfig::new(distances, width).init(device),
            by_key,
        }))
    }

    /// # Shapes
    /// `[b, h, s, d]` twice → `[b, h, s, s]`
    fn forward(&self, query: &Tensor<4>, key: &Tensor<4>) -> Tensor<4> {
        let [_, _, sequence, width] = query.dims();
        let [distances, _] = self.embedding.weight.dims();
        let farthest = distances.div_ceil(2) - 1;
        let places = Tensor::<1, Int>::arange(0..sequence as i64, &query.device());
        let left = places.clone().reshape([sequence, 1]);
        let indices = left - places.reshape([1, sequence]) + farthest as i64;
        // [left, right, d]
        let indices = indices.reshape([1, sequence * sequence]);
        let vectors = embed(&self.embedding, indices).reshape([sequence, sequence, width]);
        // Scores at [s, b·h, s], for each position of `side` against every partner of `vectors`.
        let score = |side: &Tensor<4>, vectors: Tensor<3>| {
            let [batch, heads, _, _] = side.dims();
            let rows = side.clone().permute([2, 0, 1, 3]);
            let rows = rows.reshape([sequence, batch * heads, width]);
            let scores = rows.matmul(vectors.swap_dims(1, 2));
            scores.reshape([sequence, batch, heads, sequence])
        };
        let by_query = score(query, vectors.clone()).permute([1, 2, 0, 3]);
        let scores = if self.by_key {
            let by_key = score(key, vectors.swap_dims(0, 1)).permute([1, 2, 3, 0]);
            by_query + by_key
        } else {
            by_query
        };
        scores / (width as f64).sqrt()
    }
}

pub(super) fn norm(config: &BertConfig, device: &Device) -> LayerNorm {
    LayerNorm::new(config.hidden_size, config.layer_norm_eps, device)
}
