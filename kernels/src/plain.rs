//! The functions over tensors in a build without the `flex` backend: nothing applies.

use burn::tensor::{Bool, Device, Tensor};

use crate::activation::Activation;
use crate::conv::Convolution;
use crate::narrow::Precision;

/// Sets what to do with the bytes of weights that have been packed: there are none.
pub fn after_packing(_: fn(&[u8])) {}

/// Whether a tensor is one that is computed with here: none is.
pub fn takes<const D: usize>(_: &Tensor<D>) -> bool {
    false
}

/// Whether [`linear`] takes weights of f16 and bf16 on a device: on none.
pub fn takes_halves(_: &Device) -> bool {
    false
}

/// Sets what products with a weight are computed in: by Burn, in f32.
pub fn set_precision<const D: usize>(_: &Tensor<D>, _: Precision) {}

/// What products with a weight are computed in.
pub fn precision<const D: usize>(_: &Tensor<D>) -> Precision {
    Precision::F32
}

/// `act(input · weight + bias + residual)` over the last dimension.
pub fn linear<const D: usize>(
    _: &Tensor<D>,
    _: &Tensor<2>,
    _: Option<&Tensor<1>>,
    _: Option<&Tensor<D>>,
    _: Activation,
    _: bool,
) -> Option<Tensor<D>> {
    None
}

/// An activation of every element.
pub fn activate<const D: usize>(_: &Tensor<D>, _: Activation) -> Option<Tensor<D>> {
    None
}

/// The layer norm of `input + residual` over the last dimension.
pub fn layer_norm<const D: usize>(
    _: &Tensor<D>,
    _: Option<&Tensor<D>>,
    _: &Tensor<1>,
    _: Option<&Tensor<1>>,
    _: f64,
) -> Option<Tensor<D>> {
    None
}

/// `(input + residual) · scale + shift` over the last dimension.
pub fn scale_shift<const D: usize>(
    _: &Tensor<D>,
    _: Option<&Tensor<D>>,
    _: &Tensor<1>,
    _: &Tensor<1>,
) -> Option<Tensor<D>> {
    None
}

/// Attention as `burn::tensor::module::attention` has it, except for a softcap.
pub fn attention(
    _: &Tensor<4>,
    _: &Tensor<4>,
    _: &Tensor<4>,
    _: Option<&Tensor<4, Bool>>,
    _: Option<&Tensor<4>>,
    _: Option<f64>,
    _: bool,
    _: Precision,
) -> Option<Tensor<4>> {
    None
}

/// The greatest value of each window, by kernel, stride and padding.
pub fn max_pool(_: &Tensor<4>, _: [[usize; 2]; 3]) -> Option<Tensor<4>> {
    None
}

/// `act(scale · weight ∗ input + bias + residual)`.
pub fn convolve(
    _: &Tensor<4>,
    _: &Tensor<4>,
    _: Option<&Tensor<1>>,
    _: Option<&Tensor<1>>,
    _: Option<&Tensor<4>>,
    _: Convolution,
    _: Activation,
    _: bool,
) -> Option<Tensor<4>> {
    None
}
