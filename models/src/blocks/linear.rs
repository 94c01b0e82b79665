use burn::nn::Linear;
use burn::tensor::Tensor;

/// Up to this many rows the product is computed transposed.
///
/// A weight is a `[out, in]` tensor read by its strides as `[in, out]`. For few rows a matrix product
/// walks such a weight slowly; as the left operand of `(W xᵀ)ᵀ` it is walked as it lies. Measured on
/// `flex`: 128 rows of 3072 → 768 take half the time; from some 500 rows on it would be slower.
const FEW_ROWS: usize = 128;

/// A linear layer over the rows of a batch of sequences.
///
/// One product of `batch × sequence` rows is faster than a product a sequence, which is what a rank-3
/// input can become.
///
/// # Shapes
/// `[batch, sequence, in]` → `[batch, sequence, out]`
pub fn linear_rows(linear: &Linear, input: Tensor<3>) -> Tensor<3> {
    let [batch, sequence, width] = input.dims();
    let rows = batch * sequence;
    let input = input.reshape([rows, width]);
    let output = if rows <= FEW_ROWS {
        let product = linear.weight.val().transpose().matmul(input.transpose());
        match &linear.bias {
            Some(bias) => product.transpose() + bias.val().unsqueeze(),
            None => product.transpose(),
        }
    } else {
        linear.forward(input)
    };
    let [_, width] = output.dims();
    output.reshape([batch, sequence, width])
}

#[cfg(test)]
mod tests {
    use burn::nn::LinearConfig;
    use burn::tensor::{Device, Distribution, Tensor, Tolerance};

    use super::{FEW_ROWS, linear_rows};

    #[test]
    fn few_and_many_rows_agree() {
        let device = Device::flex();
        for bias in [true, false] {
            let linear = LinearConfig::new(24, 40).with_bias(bias).init(&device);
            let rows = 2 * FEW_ROWS;
            let shape = [2, FEW_ROWS, 24];
            let input = Tensor::<3>::random(shape, Distribution::Uniform(-1.0, 1.0), &device);
            let many = linear_rows(&linear, input.clone());
            assert_eq!(many.dims(), [2, rows / 2, 40]);
            let few = input.split(1, 0);
            let few = few.into_iter().map(|half| linear_rows(&linear, half));
            let few = Tensor::cat(few.collect(), 0);
            let tolerance = Tolerance::<f32>::absolute(1e-5);
            many.into_data()
                .assert_approx_eq(&few.into_data(), tolerance);
        }
    }
}
