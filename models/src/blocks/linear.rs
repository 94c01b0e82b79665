use burn::nn::Linear;
use burn::tensor::Tensor;

/// A linear layer over the rows of a batch of sequences.
///
/// One product of `batch × sequence` rows is faster than a product a sequence, which is what a rank-3
/// input can become.
///
/// # Shapes
/// `[batch, sequence, in]` → `[batch, sequence, out]`
pub fn linear_rows(linear: &Linear, input: Tensor<3>) -> Tensor<3> {
    let [batch, sequence, width] = input.dims();
    let output = linear.forward(input.reshape([batch * sequence, width]));
    let [_, width] = output.dims();
    output.reshape([batch, sequence, width])
}
