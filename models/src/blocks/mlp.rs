use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

use super::{Activation, linear_rows};

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
        let inner = self.activation.forward(linear_rows(&self.up, hidden));
        linear_rows(&self.down, inner)
    }
}
