use burn::module::{Initializer, Module, Param};
use burn::tensor::module::layer_norm;
use burn::tensor::{Device, Tensor};
use salamander_kernels as kernels;

/// Layer norm over the last dimension.
#[derive(Module, Debug)]
pub struct LayerNorm {
    gamma: Param<Tensor<1>>,
    beta: Param<Tensor<1>>,
    epsilon: f64,
}

impl LayerNorm {
    /// An unfilled norm of `width`.
    pub fn new(width: usize, epsilon: f64, device: &Device) -> Self {
        Self {
            gamma: Initializer::Ones.init([width], device),
            beta: Initializer::Zeros.init([width], device),
            epsilon,
        }
    }

    /// # Shapes
    /// `[…, width]` → the same
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        let (gamma, beta) = (self.gamma.val(), self.beta.val());
        let fast = kernels::layer_norm(&input, None, &gamma, Some(&beta), self.epsilon);
        fast.unwrap_or_else(|| layer_norm(input, gamma, Some(beta), self.epsilon))
    }

    /// The norm of a sum.
    ///
    /// # Shapes
    /// `[…, width]` twice → the same
    pub fn forward_sum<const D: usize>(&self, input: Tensor<D>, other: Tensor<D>) -> Tensor<D> {
        let (gamma, beta) = (self.gamma.val(), self.beta.val());
        let fast = kernels::layer_norm(&input, Some(&other), &gamma, Some(&beta), self.epsilon);
        fast.unwrap_or_else(|| layer_norm(input + other, gamma, Some(beta), self.epsilon))
    }
}

/// `(rows + added) · scale + shift`, as a batch norm of the last dimension is by its statistics.
///
/// # Shapes
/// `[…, width]`, added the same, `[width]` twice → `[…, width]`
pub fn scale_shift<const D: usize>(
    rows: Tensor<D>,
    added: Option<Tensor<D>>,
    scale: Tensor<1>,
    shift: Tensor<1>,
) -> Tensor<D> {
    kernels::scale_shift(&rows, added.as_ref(), &scale, &shift).unwrap_or_else(|| {
        let sum = match added {
            Some(added) => rows + added,
            None => rows,
        };
        sum * scale.unsqueeze() + shift.unsqueeze()
    })
}
