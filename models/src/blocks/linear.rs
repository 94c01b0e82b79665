use burn::nn::Linear;
use burn::tensor::{DType, Tensor};
use salamander_kernels as kernels;

use super::Activation;

/// Up to this many rows the product is computed transposed.
///
/// A weight is a `[out, in]` tensor read by its strides as `[in, out]`. For few rows a matrix product
/// walks such a weight slowly; as the left operand of `(W xᵀ)ᵀ` it is walked as it lies. Measured on
/// `flex`: 128 rows of 3072 → 768 take half the time; from some 500 rows on it would be slower.
const FEW_ROWS: usize = 128;

/// A linear layer over the rows of a batch of sequences.
///
/// # Shapes
/// `[batch, sequence, in]` → `[batch, sequence, out]`
pub fn linear_rows(layer: &Linear, input: Tensor<3>) -> Tensor<3> {
    linear(layer, input, None, Activation::Linear)
}

/// A linear layer over the last dimension, and what follows: the sum with another tensor, an activation.
///
/// # Shapes
/// `[…, in]`, added `[…, out]` → `[…, out]`
pub fn linear<const D: usize>(
    layer: &Linear,
    input: Tensor<D>,
    added: Option<Tensor<D>>,
    activation: Activation,
) -> Tensor<D> {
    linear_to(layer, input, added, activation, false)
}

/// The same for what another linear layer takes: input and output may be of bf16, the output where that is `allowed`
/// and the weights are computed in it. Such a layer would round its input to bf16 anyway.
pub(super) fn linear_to<const D: usize>(
    layer: &Linear,
    input: Tensor<D>,
    added: Option<Tensor<D>>,
    activation: Activation,
    allowed: bool,
) -> Tensor<D> {
    let weight = layer.weight.val();
    let bias = layer.bias.as_ref().map(|bias| bias.val());
    let known = activation.kernel();
    let joined = known.unwrap_or(kernels::Activation::None);
    let (bias, sum) = (bias.as_ref(), added.as_ref());
    let allowed = allowed && known.is_some();
    let fast = kernels::linear(&input, &weight, bias, sum, joined, allowed);
    if let Some(output) = fast {
        return match known {
            Some(_) => output,
            None => activation.forward(output),
        };
    }
    let mut shape = input.dims();
    let rows = shape[..D - 1].iter().product();
    // On GPUs weights may be in half of f32's bits.
    let input = input.reshape([rows, shape[D - 1]]).cast(weight.dtype());
    let output = plain(layer, input).cast(DType::F32);
    shape[D - 1] = output.dims()[1];
    let output = output.reshape(shape);
    activation.forward(match added {
        Some(added) => output + added,
        None => output,
    })
}

/// Rows times a matrix of weights, such as embeddings that an output layer shares.
///
/// # Shapes
/// `[batch, sequence, in]`, `[in, out]` → `[batch, sequence, out]`
pub fn matmul_rows(input: Tensor<3>, weight: Tensor<2>) -> Tensor<3> {
    let none = kernels::Activation::None;
    kernels::linear(&input, &weight, None, None, none, false).unwrap_or_else(|| {
        let [batch, sequence, width] = input.dims();
        let [_, out] = weight.dims();
        let product = input.reshape([batch * sequence, width]).matmul(weight);
        product.reshape([batch, sequence, out])
    })
}

/// The layer by Burn's operations.
///
/// One product of `batch × sequence` rows is faster than a product a sequence, which is what a rank-3
/// input can become.
fn plain(layer: &Linear, input: Tensor<2>) -> Tensor<2> {
    let [rows, _] = input.dims();
    if rows > FEW_ROWS {
        return layer.forward(input);
    }
    let product = layer.weight.val().transpose().matmul(input.transpose());
    match &layer.bias {
        Some(bias) => product.transpose() + bias.val().unsqueeze(),
        None => product.transpose(),
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::LinearConfig;
    use burn::tensor::{Device, Distribution, Tensor, Tolerance};

    use super::{FEW_ROWS, linear_rows, plain};

    #[test]
    fn few_and_many_rows_agree() {
        let device = Device::flex();
        for bias in [true, false] {
            let linear = LinearConfig::new(24, 40).with_bias(bias).init(&device);
            let rows = 2 * FEW_ROWS;
            let shape = [2, FEW_ROWS, 24];
            let input = Tensor::<3>::random(shape, Distribution::Uniform(-1.0, 1.0), &device);
            let many = plain(&linear, input.clone().reshape([rows, 24]));
            let fast = linear_rows(&linear, input.clone());
            assert_eq!(fast.dims(), [2, FEW_ROWS, 40]);
            let few = input.split(1, 0).into_iter();
            let few = few.map(|half| plain(&linear, half.reshape([FEW_ROWS, 24])));
            let few = Tensor::cat(few.collect(), 0);
            let tolerance = Tolerance::<f32>::absolute(1e-5);
            let many = many.into_data();
            many.assert_approx_eq(&few.into_data(), tolerance);
            many.assert_approx_eq(&fast.reshape([rows, 40]).into_data(), tolerance);
        }
    }
}
