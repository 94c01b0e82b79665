use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::module;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, Device, Tensor};
use salamander_kernels as kernels;

use super::{Activation, linear, linear_rows};

/// Which tokens a token looks at; by default all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mask<'a> {
    /// `true` where a token is padding, at which none looks, `[b, s]`.
    pub padding: Option<&'a Tensor<2, Bool>>,
    /// Whether tokens look at none after themselves. The last of them stands at the last of those that
    /// are looked at.
    pub causal: bool,
}

/// Scaled dot-product attention of several heads, with its projections.
///
/// Shapes: `b` sequences of `t` tokens, which look at `s` tokens; `h` heads of width `d`.
#[derive(Module, Debug)]
pub struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    heads: usize,
}

impl Attention {
    /// An unfilled attention; `biases` of queries, keys and values.
    pub fn new(width: usize, heads: usize, biases: [bool; 3], device: &Device) -> Self {
        let linear = |bias| LinearConfig::new(width, width).with_bias(bias).init(device);
        let [query, key, value] = biases;
        Self {
            query: linear(query),
            key: linear(key),
            value: linear(value),
            output: linear(true),
            heads,
        }
    }

    /// Attention among the tokens of each sequence.
    ///
    /// # Shapes
    /// `[b, t, width]` → the same
    pub fn forward(&self, hidden: Tensor<3>, mask: Mask<'_>) -> Tensor<3> {
        let query = self.query(hidden.clone());
        let (key, value) = self.key_value(hidden);
        self.attend(query, key, value, mask, None)
    }

    /// The same, with `added` added.
    pub fn forward_sum(&self, hidden: Tensor<3>, mask: Mask<'_>, added: Tensor<3>) -> Tensor<3> {
        let query = self.query(hidden.clone());
        let (key, value) = self.key_value(hidden);
        self.attend_sum(query, key, value, mask, added)
    }

    /// # Shapes
    /// `[b, t, width]` → `[b, h, t, d]`
    pub fn query(&self, hidden: Tensor<3>) -> Tensor<4> {
        self.split(linear_rows(&self.query, hidden))
    }

    /// # Shapes
    /// `[b, s, width]` → twice `[b, h, s, d]`
    pub fn key_value(&self, hidden: Tensor<3>) -> (Tensor<4>, Tensor<4>) {
        let key = self.split(linear_rows(&self.key, hidden.clone()));
        (key, self.split(linear_rows(&self.value, hidden)))
    }

    /// What the tokens make of what they look at; `bias` is added to their scores.
    ///
    /// # Shapes
    /// `[b, h, t, d]`, twice `[b, h, s, d]`, bias `[b, h, t, s]` → `[b, t, width]`
    pub fn attend(
        &self,
        query: Tensor<4>,
        key: Tensor<4>,
        value: Tensor<4>,
        mask: Mask<'_>,
        bias: Option<Tensor<4>>,
    ) -> Tensor<3> {
        self.project(self.look(query, key, value, mask, bias))
    }

    /// The same without a bias, with `added` `[b, t, width]` added.
    pub fn attend_sum(
        &self,
        query: Tensor<4>,
        key: Tensor<4>,
        value: Tensor<4>,
        mask: Mask<'_>,
        added: Tensor<3>,
    ) -> Tensor<3> {
        let joined = join(self.look(query, key, value, mask, None));
        linear(&self.output, joined, Some(added), Activation::Linear)
    }

    /// The output projection of all heads.
    ///
    /// # Shapes
    /// `[b, h, t, d]` → `[b, t, width]`
    pub fn project(&self, context: Tensor<4>) -> Tensor<3> {
        linear_rows(&self.output, join(context))
    }

    /// The number of heads, and their width.
    pub fn heads(&self) -> [usize; 2] {
        let [width, _] = self.query.weight.val().dims();
        [self.heads, width / self.heads]
    }

    fn split(&self, projected: Tensor<3>) -> Tensor<4> {
        let [batch, tokens, width] = projected.dims();
        let heads = [batch, tokens, self.heads, width / self.heads];
        projected.reshape(heads).swap_dims(1, 2)
    }

    /// `softmax(query · keyᵀ / √d + bias) · value`, where the mask lets.
    fn look(
        &self,
        query: Tensor<4>,
        key: Tensor<4>,
        value: Tensor<4>,
        mask: Mask<'_>,
        bias: Option<Tensor<4>>,
    ) -> Tensor<4> {
        let padding = mask.padding.map(|padding| {
            let [batch, tokens] = padding.dims();
            padding.clone().reshape([batch, 1, 1, tokens])
        });
        let (hidden, added) = (padding.as_ref(), bias.as_ref());
        let precision = kernels::precision(&self.output.weight.val());
        let causal = mask.causal;
        let fast = kernels::attention(&query, &key, &value, hidden, added, None, causal, precision);
        fast.unwrap_or_else(|| {
            // Naming the scale that is taken anyway keeps GPUs from their flash kernels, which give wrong numbers
            // (docs/wgpu.md, https://github.com/tracel-ai/burn/issues/4325).
            let [.., width] = query.dims();
            let options = AttentionModuleOptions {
                scale: Some((width as f64).sqrt().recip()),
                is_causal: causal,
                ..AttentionModuleOptions::default()
            };
            module::attention(query, key, value, padding, bias, options)
        })
    }
}

/// `[b, h, t, d]` → `[b, t, h · d]`
fn join(context: Tensor<4>) -> Tensor<3> {
    let [batch, heads, tokens, width] = context.dims();
    let rows = context.swap_dims(1, 2);
    rows.reshape([batch, tokens, heads * width])
}
