use burn::module::Param;
use burn::nn::conv::{Conv1d, Conv2d};
use burn::nn::pool::MaxPool2d;
use burn::nn::{PaddingConfig1d, PaddingConfig2d};
use burn::tensor::{DType, Tensor};
use salamander_kernels as kernels;
use salamander_kernels::Convolution;

use super::Activation;

/// A convolution, whose weights are multiplied by `scale`, and what follows: the sum with another tensor, an
/// activation. The output may be of bf16 where that is `allowed` and the weights are computed in it.
///
/// # Shapes
/// `[out]`, `[b, in, h, w]`, added as the output → `[b, out, h', w']`
pub fn conv2d(
    layer: &Conv2d,
    scale: Option<Tensor<1>>,
    input: Tensor<4>,
    added: Option<Tensor<4>>,
    activation: Activation,
    allowed: bool,
) -> Tensor<4> {
    let padding = even(&layer.padding);
    let fast = padding
        .zip(activation.kernel())
        .and_then(|(padding, known)| {
            let options = Convolution {
                stride: layer.stride,
                padding,
                dilation: layer.dilation,
                groups: layer.groups,
            };
            let bias = layer.bias.as_ref().map(|bias| bias.val());
            let weight = layer.weight.val();
            kernels::convolve(
                &input,
                &weight,
                scale.as_ref(),
                bias.as_ref(),
                added.as_ref(),
                options,
                known,
                allowed,
            )
        });
    fast.unwrap_or_else(|| {
        let scaled = scale.map(|scale| scaled(layer.clone(), scale));
        let layer = scaled.as_ref().unwrap_or(layer);
        // On GPUs weights may be in half of f32's bits.
        let output = layer.forward(input.cast(layer.weight.dtype()));
        let (output, added) = (widened(output), added.map(widened));
        activation.forward(match added {
            Some(added) => output + added,
            None => output,
        })
    })
}

/// A tensor that may be of another type, in f32.
pub fn widened<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    match tensor.dtype() {
        DType::F32 => tensor,
        _ => tensor.cast(DType::F32),
    }
}

/// The same layer, the weights of each output channel multiplied by its scale `[out]`.
pub fn scaled(mut layer: Conv2d, scale: Tensor<1>) -> Conv2d {
    let [channels] = scale.dims();
    let weight = layer.weight.val() * scale.reshape([channels, 1, 1, 1]);
    layer.weight = Param::initialized(layer.weight.id, weight);
    layer
}

/// A padding that is the same on either side.
fn even(padding: &PaddingConfig2d) -> Option<[usize; 2]> {
    match *padding {
        PaddingConfig2d::Valid => Some([0, 0]),
        PaddingConfig2d::Explicit(top, left, bottom, right) if top == bottom && left == right => {
            Some([top, left])
        }
        _ => None,
    }
}

/// The same along one dimension.
///
/// # Shapes
/// `[b, in, l]` → `[b, out, l']`
pub fn conv1d(layer: &Conv1d, input: Tensor<3>, activation: Activation) -> Tensor<3> {
    let padding = match layer.padding {
        PaddingConfig1d::Valid => Some(0),
        PaddingConfig1d::Explicit(left, right) if left == right => Some(left),
        _ => None,
    };
    let fast = padding
        .zip(activation.kernel())
        .and_then(|(padding, known)| {
            let options = Convolution {
                stride: [1, layer.stride],
                padding: [0, padding],
                dilation: [1, layer.dilation],
                groups: layer.groups,
            };
            let bias = layer.bias.as_ref().map(|bias| bias.val());
            let weight = layer.weight.val().unsqueeze_dim(2);
            // By way of `[b, l, channels]`, as the kernel lays it out, so that no dimension is copied.
            let input = input.clone().swap_dims(1, 2).unsqueeze_dim::<4>(1);
            let input = input.permute([0, 3, 1, 2]);
            let output = kernels::convolve(
                &input,
                &weight,
                None,
                bias.as_ref(),
                None,
                options,
                known,
                false,
            )?;
            let output = output.permute([0, 2, 3, 1]).squeeze_dim::<3>(1);
            Some(output.swap_dims(1, 2))
        });
    fast.unwrap_or_else(|| {
        let output = layer.forward(input.cast(layer.weight.dtype()));
        activation.forward(widened(output))
    })
}

/// The greatest value of each window.
///
/// # Shapes
/// `[b, c, h, w]` → `[b, c, h', w']`
pub fn max_pool2d(layer: &MaxPool2d, input: Tensor<4>) -> Tensor<4> {
    let padding = even(&layer.padding);
    let plain = layer.dilation == [1, 1] && !layer.ceil_mode;
    let fast = padding.filter(|_| plain);
    let fast = fast
        .and_then(|padding| kernels::max_pool(&input, [layer.kernel_size, layer.stride, padding]));
    fast.unwrap_or_else(|| layer.forward(widened(input)))
}
