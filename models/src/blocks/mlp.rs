use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

use super::linear::linear_to;
use super::{Activation, linear, linear_rows};

/// The two linear layers of a transformer's layer, with an activation between them.
#[derive(Module, Debug)]
pub struct Mlp {
    up: Linear,
    down: Linear,
    #[module(skip)]
    activation: Activation,
}

impl Mlp {
    /// An unfilled MLP of `width`, `inner` wide inside, with or without biases.
    pub fn new(
        width: usize,
        inner: usize,
        bias: bool,
        activation: Activation,
        device: &Device,
    ) -> Self {
        let linear = |from, to| LinearConfig::new(from, to).with_bias(bias).init(device);
        Self {
            up: linear(width, inner),
            down: linear(inner, width),
            activation,
        }
    }

    /// # Shapes
    /// `[batch, sequence, width]` → the same
    pub fn forward(&self, hidden: Tensor<3>) -> Tensor<3> {
        linear_rows(&self.down, self.inner(hidden))
    }

    /// The same, with `added` added.
    pub fn forward_sum(&self, hidden: Tensor<3>, added: Tensor<3>) -> Tensor<3> {
        let inner = self.inner(hidden);
        linear(&self.down, inner, Some(added), Activation::Linear)
    }

    /// What `down` takes alone.
    fn inner(&self, hidden: Tensor<3>) -> Tensor<3> {
        linear_to(&self.up, hidden, None, self.activation, true)
    }
}
