//! The trunk, top-down.
//!
//! Shapes: `b` sequences in the batch, `s` tokens each, `h` heads of width `d`.

use burn::module::{Module, Param};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::{Bool, Device, Int, Tensor};

use super::config::{BertConfig, Positions};
use crate::ConfigError;
use crate::blocks::{LayerNorm, Mlp, attention, linear_rows};

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
        let embedded = self.embeddings.forward(tokens);
        self.layers.iter().fold(embedded, |hidden, layer| {
            layer.forward(hidden, padding.as_ref(), self.causal)
        })
    }

    /// The embeddings and every layer's hidden states, in order.
    ///
    /// # Shapes
    /// `[b, s]` → `layers + 1` times `[b, s, hidden]`
    pub fn hidden_states(&self, tokens: Tokens) -> Vec<Tensor<3>> {
        let padding = tokens.padding.clone();
        let mut states = vec![self.embeddings.forward(tokens)];
        for layer in &self.layers {
            let hidden = states[states.len() - 1].clone();
            states.push(layer.forward(hidden, padding.as_ref(), self.causal));
        }
        states
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
        let words = self.word_embeddings.forward(tokens.input_ids);
        let types = match tokens.token_type_ids {
            Some(ids) => self.token_type_embeddings.forward(ids),
            None => rows(&self.token_type_embeddings.weight, 1),
        };
        let embedded = words + types;
        let embedded = match (&self.position_embeddings, tokens.position_ids) {
            (None, _) => embedded,
            (Some(table), Some(ids)) => embedded + table.forward(ids),
            (Some(table), None) => embedded + rows(&table.weight, sequence),
        };
        self.norm.forward(embedded)
    }
}

/// The first `count` rows of a table, `[1, count, hidden]`.
fn rows(table: &Param<Tensor<2>>, count: usize) -> Tensor<3> {
    let table = table.val();
    let [_, width] = table.dims();
    table.slice([0..count, 0..width]).unsqueeze()
}

#[derive(Module, Debug)]
struct Layer {
    attention: SelfAttention,
    attention_norm: LayerNorm,
    mlp: Mlp,
    mlp_norm: LayerNorm,
}

impl Layer {
    fn new(config: &BertConfig, device: &Device) -> Result<Self, ConfigError> {
        Ok(Self {
            attention: SelfAttention::new(config, device)?,
            attention_norm: norm(config, device),
            mlp: Mlp::new(
                config.hidden_size,
                config.intermediate_size,
                config.activation()?,
                device,
            ),
            mlp_norm: norm(config, device),
        })
    }

    /// # Shapes
    /// `[b, s, hidden]` → the same
    fn forward(
        &self,
        hidden: Tensor<3>,
        padding: Option<&Tensor<2, Bool>>,
        causal: bool,
    ) -> Tensor<3> {
        let attended = self.attention.forward(hidden.clone(), padding, causal);
        let hidden = self.attention_norm.forward_sum(attended, hidden);
        let mixed = self.mlp.forward(hidden.clone());
        self.mlp_norm.forward_sum(mixed, hidden)
    }
}

#[derive(Module, Debug)]
struct SelfAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    distance_embedding: Option<Embedding>,
    #[module(skip)]
    positions: Positions,
    heads: usize,
}

impl SelfAttention {
    fn new(config: &BertConfig, device: &Device) -> Result<Self, ConfigError> {
        let width = config.hidden_size;
        let heads = config.num_attention_heads;
        let linear = || LinearConfig::new(width, width).init(device);
        let positions = config.positions()?;
        let distances = EmbeddingConfig::new(2 * config.max_position_embeddings - 1, width / heads);
        Ok(Self {
            query: linear(),
            key: linear(),
            value: linear(),
            output: linear(),
            distance_embedding: (positions != Positions::Absolute).then(|| distances.init(device)),
            positions,
            heads,
        })
    }

    /// # Shapes
    /// `[b, s, hidden]`, padding `[b, s]` → `[b, s, hidden]`
    fn forward(
        &self,
        hidden: Tensor<3>,
        padding: Option<&Tensor<2, Bool>>,
        causal: bool,
    ) -> Tensor<3> {
        let [batch, sequence, width] = hidden.dims();
        let split = |projection: &Linear| {
            let projected = linear_rows(projection, hidden.clone());
            let heads = [batch, sequence, self.heads, width / self.heads];
            projected.reshape(heads).swap_dims(1, 2)
        };
        let (query, key, value) = (split(&self.query), split(&self.key), split(&self.value));
        let bias = self
            .distance_embedding
            .as_ref()
            .map(|table| self.distance_bias(table, &query, &key));
        let mask = padding.map(|padding| padding.clone().reshape([batch, 1, 1, sequence]));
        let context = attention(query, key, value, mask, bias, causal);
        let context = context.swap_dims(1, 2).reshape([batch, sequence, width]);
        linear_rows(&self.output, context)
    }

    /// What the distance between two tokens adds to their score.
    ///
    /// Reference: `BertSelfAttention.forward` of transformers 4.46; later versions ignore
    /// `position_embedding_type`.
    ///
    /// # Shapes
    /// `[b, h, s, d]` twice → `[b, h, s, s]`
    fn distance_bias(&self, table: &Embedding, query: &Tensor<4>, key: &Tensor<4>) -> Tensor<4> {
        let [_, _, sequence, width] = query.dims();
        let [distances, _] = table.weight.dims();
        let farthest = distances.div_ceil(2) - 1;
        let indices: Vec<i64> = (0..sequence)
            .flat_map(|left| (0..sequence).map(move |right| (left + farthest - right) as i64))
            .collect();
        let device = query.device();
        let indices = Tensor::<1, Int>::from_data(&indices[..], &device);
        // [left, right, d]
        let vectors = table
            .forward(indices.reshape([1, sequence * sequence]))
            .reshape([sequence, sequence, width]);
        // Scores at [s, b·h, s], for each position of `side` against every partner of `vectors`.
        let score = |side: &Tensor<4>, vectors: Tensor<3>| {
            let [batch, heads, _, _] = side.dims();
            let rows = side.clone().permute([2, 0, 1, 3]);
            let rows = rows.reshape([sequence, batch * heads, width]);
            let scores = rows.matmul(vectors.swap_dims(1, 2));
            scores.reshape([sequence, batch, heads, sequence])
        };
        let by_query = score(query, vectors.clone()).permute([1, 2, 0, 3]);
        let scores = if self.positions == Positions::RelativeKeyQuery {
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
