//! The fast paths over tensors of Burn's `flex` backend. Each gives `None` where it does not apply: on
//! another device, for another type, or when the environment asks for plain Burn.

use std::sync::LazyLock;

use burn::tensor::{Bool, DType, Device, FloatDType, Shape, Tensor};
use burn_flex::{Flex, FlexTensor, Layout};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::activation::{self, Activation};
use crate::attention::{self, Attention, Grid, Heads};
use crate::conv::{self, Convolution, Weights};
use crate::gemm::{self, Epilogue, Packed, Stored, View};
use crate::narrow::{self, Ending, Narrow, Numbers, NumbersMut, Precision, Unit};
use crate::norm;
use crate::packs::{self, Packs};
use crate::pool::{self, Floats};
use crate::pooling;
use crate::simd::Isa;

/// An f32 tensor in this machine's memory.
fn floats<const D: usize>(tensor: &Tensor<D>) -> Option<FlexTensor> {
    let tensor = tensor.clone().try_into_primitive::<Flex>().ok()?;
    (tensor.dtype() == DType::F32).then_some(tensor)
}

/// The same, its elements one after the other.
fn contiguous<const D: usize>(tensor: &Tensor<D>) -> Option<FlexTensor> {
    let tensor = floats(tensor)?;
    if tensor.is_contiguous() {
        return Some(tensor);
    }
    Some(tensor.to_contiguous())
}

fn slice(tensor: &FlexTensor) -> Option<&[f32]> {
    tensor.as_slice::<f32>()
}

fn tensor<const D: usize>(floats: Floats, shape: Shape) -> Tensor<D> {
    Tensor::from_primitive::<Flex>(pool::tensor(floats, shape))
}

/// The strides of a tensor, if none goes backwards.
fn strides<const D: usize>(tensor: &FlexTensor) -> Option<[usize; D]> {
    let strides = tensor.layout().strides();
    let strides: Option<Vec<usize>> = strides.iter().map(|&s| usize::try_from(s).ok()).collect();
    strides?.try_into().ok()
}

/// A tensor of f32, f16 or bf16 in this machine's memory.
fn any_floats<const D: usize>(tensor: &Tensor<D>) -> Option<FlexTensor> {
    let tensor = tensor.clone().try_into_primitive::<Flex>().ok()?;
    matches!(tensor.dtype(), DType::F32 | DType::F16 | DType::BF16).then_some(tensor)
}

/// Whether a tensor is one that is computed with here: on `flex`, f32 or the weight of a linear layer.
pub fn takes<const D: usize>(tensor: &Tensor<D>) -> bool {
    any_floats(tensor).is_some()
}

/// Whether [`linear`] takes weights of f16 and bf16 on a device.
pub fn takes_halves(device: &Device) -> bool {
    Isa::chosen().is_some() && takes(&Tensor::<1>::empty([1], device))
}

/// Sets what products with a weight are computed in, by [`linear`] and [`convolve`], from now on.
///
/// It holds for all views of the tensor's memory, such as its transposed one, and as long as that memory.
/// Convolutions stay in f32 in f16 and int4, on CPUs without a unit for the precision, and in groups.
pub fn set_precision<const D: usize>(weight: &Tensor<D>, precision: Precision) {
    if let Some(weight) = any_floats(weight) {
        packs::set_precision(&weight, precision);
    }
}

/// What products with a weight are computed in.
pub fn precision<const D: usize>(weight: &Tensor<D>) -> Precision {
    any_floats(weight).map_or(Precision::F32, |weight| packs::precision(&weight))
}

/// The layout of a linear layer's weights.
const LINEAR: [usize; 3] = [0; 3];
/// Weights of so many bytes are not left in memory for their second use.
const LARGE: usize = 1 << 20;
/// Up to this many rows are multiplied by the weights as they lie, which memory's speed limits anyway.
const FEW: usize = 4;

/// `act(input · weight + bias + residual)` over the last dimension.
///
/// # Types
/// Of the weight f32, f16 or bf16, of the input f32 or bf16, of bias and residual f32. The output is bf16 where it
/// `may` be and what it is computed in is, else f32.
pub fn linear<const D: usize>(
    input: &Tensor<D>,
    weight: &Tensor<2>,
    bias: Option<&Tensor<1>>,
    residual: Option<&Tensor<D>>,
    activation: Activation,
    may: bool,
) -> Option<Tensor<D>> {
    let isa = Isa::chosen()?;
    let weight = any_floats(weight)?;
    let mut input = any_floats(input).filter(|input| input.dtype() != DType::F16)?;
    if !input.is_contiguous() {
        input = input.to_contiguous();
    }
    let bias = match bias {
        Some(bias) => Some(contiguous(bias)?),
        None => None,
    };
    let residual = match residual {
        Some(residual) => Some(contiguous(residual)?),
        None => None,
    };
    let [k, n] = weight.layout().shape().dims();
    let weight_strides = strides::<2>(&weight)?;
    let mut shape = input.layout().shape().clone();
    if shape[D - 1] != k || D < 2 {
        return None;
    }
    shape[D - 1] = n;
    let count = shape.num_elements();
    let rows = count / n.max(1);
    let bias = bias.as_ref().and_then(slice);
    let residual = residual.as_ref().and_then(slice);
    let precision = packs::precision(&weight);
    if precision != Precision::F32 {
        static PACKS: LazyLock<Packs<Option<Narrow>>> = LazyLock::new(Packs::default);
        let unit = Unit::chosen(precision)?;
        let packed = PACKS.get(&weight, None, (LINEAR, precision), || {
            Narrow::new(precision, unit, view(&weight, [k, n], weight_strides))
        });
        let packed = packed.as_ref().as_ref()?;
        if !packed.takes_bf16() {
            input = widened::<D>(input)?;
        }
        let from = numbers(&input)?;
        let ending = Ending {
            bias,
            residual: residual.map(Numbers::F32),
            activation,
        };
        if let Some(mut out) = (may && packed.takes_bf16())
            .then(|| halves(count))
            .flatten()
        {
            let to = NumbersMut::Bf16(bytemuck::cast_slice_mut(&mut out));
            narrow::multiply_numbers(from, packed, ending, to);
            return Some(tensor_of_bf16(out, shape));
        }
        let mut out = pool::take(count);
        narrow::multiply_numbers(from, packed, ending, NumbersMut::F32(&mut out));
        return Some(tensor(out, shape));
    }
    let input = widened::<D>(input)?;
    let from = slice(&input)?;
    let mut out = pool::take(count);
    let epilogue = Epilogue {
        bias,
        residual,
        activation,
    };
    if rows <= FEW && weight_strides == [1, k] && weight.dtype() == DType::F32 {
        let weight = &weight.storage::<f32>()[weight.layout().start_offset()..];
        gemm::multiply_few(isa, from, weight, [rows, k, n], epilogue, &mut out);
    } else {
        static PACKS: LazyLock<Packs<Packed>> = LazyLock::new(Packs::default);
        let view = view(&weight, [k, n], weight_strides);
        let packed = PACKS.get_again(&weight, (LINEAR, precision), || Packed::new(isa, view));
        match packed {
            Some(packed) => gemm::multiply(from, &packed, epilogue, &mut out),
            None => {
                gemm::multiply_once(isa, from, view, epilogue, &mut out);
                packs::let_go(&weight, LARGE);
            }
        }
    }
    Some(tensor(out, shape))
}

/// A weight of f32, f16 or bf16.
fn view(weight: &FlexTensor, shape: [usize; 2], strides: [usize; 2]) -> View<'_> {
    let start = weight.layout().start_offset();
    View {
        data: match weight.dtype() {
            DType::F16 => Stored::F16(&weight.storage::<f16>()[start..]),
            DType::BF16 => Stored::Bf16(&weight.storage::<bf16>()[start..]),
            _ => Stored::F32(&weight.storage::<f32>()[start..]),
        },
        shape,
        strides,
    }
}

/// An activation of every element.
pub fn activate<const D: usize>(input: &Tensor<D>, activation: Activation) -> Option<Tensor<D>> {
    let isa = Isa::chosen()?;
    let input = contiguous(input)?;
    let from = slice(&input)?;
    let mut out = pool::take(from.len());
    activation::activate(isa, activation, from, &mut out);
    Some(tensor(out, input.layout().shape().clone()))
}

/// The layer norm of `input + residual` over the last dimension.
pub fn layer_norm<const D: usize>(
    input: &Tensor<D>,
    residual: Option<&Tensor<D>>,
    gamma: &Tensor<1>,
    beta: Option<&Tensor<1>>,
    epsilon: f64,
) -> Option<Tensor<D>> {
    let isa = Isa::chosen()?;
    let input = contiguous(input)?;
    let gamma = contiguous(gamma)?;
    let beta = match beta {
        Some(beta) => Some(contiguous(beta)?),
        None => None,
    };
    let residual = match residual {
        Some(residual) => Some(contiguous(residual)?),
        None => None,
    };
    let from = slice(&input)?;
    let norm = norm::LayerNorm {
        gamma: slice(&gamma)?,
        beta: beta.as_ref().and_then(slice),
        epsilon: epsilon as f32,
    };
    let mut out = pool::take(from.len());
    norm::layer_norm(isa, norm, from, residual.as_ref().and_then(slice), &mut out);
    Some(tensor(out, input.layout().shape().clone()))
}

/// `(input + residual) · scale + shift` over the last dimension.
pub fn scale_shift<const D: usize>(
    input: &Tensor<D>,
    residual: Option<&Tensor<D>>,
    scale: &Tensor<1>,
    shift: &Tensor<1>,
) -> Option<Tensor<D>> {
    let isa = Isa::chosen()?;
    let input = contiguous(input)?;
    let (scale, shift) = (contiguous(scale)?, contiguous(shift)?);
    let residual = match residual {
        Some(residual) => Some(contiguous(residual)?),
        None => None,
    };
    let from = slice(&input)?;
    let residual = residual.as_ref().and_then(slice);
    let mut out = pool::take(from.len());
    norm::scale_shift(
        isa,
        slice(&scale)?,
        slice(&shift)?,
        from,
        residual,
        &mut out,
    );
    Some(tensor(out, input.layout().shape().clone()))
}

/// Attention as `burn::tensor::module::attention` has it, except for a softcap.
///
/// In bf16 and int8 its products are of bf16, where the CPU has tiles (AMX).
///
/// # Shapes
/// `[b, h, q, d]`, `[b, h, k, d]`, `[b, h, k, v]`, mask and bias broadcast to `[b, h, q, k]` →
/// `[b, h, q, v]`, laid out as `[b, q, h, v]`
pub fn attention(
    query: &Tensor<4>,
    key: &Tensor<4>,
    value: &Tensor<4>,
    mask: Option<&Tensor<4, Bool>>,
    bias: Option<&Tensor<4>>,
    scale: Option<f64>,
    causal: bool,
    precision: Precision,
) -> Option<Tensor<4>> {
    let isa = Isa::chosen()?;
    let unit = match precision {
        Precision::Bf16 | Precision::Int8 => Unit::chosen(Precision::Bf16),
        Precision::F32 | Precision::F16 | Precision::Int4 => None,
    };
    let rows = |tensor: &Tensor<4>| {
        let tensor = floats(tensor)?;
        let close = tensor.layout().shape()[3] <= 1 || tensor.layout().strides()[3] == 1;
        let forward = tensor.layout().strides().iter().all(|stride| *stride >= 0);
        Some(if close && forward {
            tensor
        } else {
            tensor.to_contiguous()
        })
    };
    let (query, key, value) = (rows(query)?, rows(key)?, rows(value)?);
    let [batch, heads, queries, width] = query.layout().shape().dims();
    let [key_batch, key_heads, keys, key_width] = key.layout().shape().dims();
    let [value_batch, value_heads, value_rows, value_width] = value.layout().shape().dims();
    if [key_batch, key_heads, key_width] != [batch, heads, width]
        || [value_batch, value_heads, value_rows] != [batch, heads, keys]
    {
        return None;
    }
    let grid = [batch, heads, queries, keys];
    let mask = match mask {
        Some(mask) => {
            let mask = mask
                .clone()
                .expand(grid)
                .try_into_primitive::<Flex>()
                .ok()?;
            let DType::Bool(store) = mask.dtype() else {
                return None;
            };
            let bytes = matches!(store, burn_std::BoolStore::Native | burn_std::BoolStore::U8);
            Some(bytes.then_some(mask)?)
        }
        None => None,
    };
    let bias = match bias {
        Some(bias) => Some(floats(&bias.clone().expand(grid))?),
        None => None,
    };
    let work = Attention {
        batch,
        heads,
        queries,
        keys,
        width,
        value_width,
        query: by_head(&query)?,
        key: by_head(&key)?,
        value: by_head(&value)?,
        mask: match &mask {
            Some(mask) => Some(Grid {
                data: mask.storage::<u8>().get(mask.layout().start_offset()..)?,
                strides: strides(mask)?,
            }),
            None => None,
        },
        bias: match &bias {
            Some(bias) => Some(Grid {
                data: bias.storage::<f32>().get(bias.layout().start_offset()..)?,
                strides: strides(bias)?,
            }),
            None => None,
        },
        scale: scale.unwrap_or_else(|| 1.0 / (width as f64).sqrt()) as f32,
        causal,
    };
    let mut out = pool::take(batch * queries * heads * value_width);
    attention::attend(isa, unit, &work, &mut out);
    let shape = Shape::new([batch, heads, queries, value_width]);
    let [row, head] = [heads * value_width, value_width];
    let strides = [queries * row, head, row, 1].map(|stride| stride as isize);
    let layout = Layout::new(shape, strides.to_vec(), 0);
    let out = FlexTensor::new(pool::bytes(out), layout, DType::F32);
    Some(Tensor::from_primitive::<Flex>(out))
}

fn by_head(tensor: &FlexTensor) -> Option<Heads<'_>> {
    let [a, b, c, _] = strides::<4>(tensor)?;
    Some(Heads {
        data: tensor
            .storage::<f32>()
            .get(tensor.layout().start_offset()..)?,
        strides: [a, b, c],
    })
}

/// A picture of f32 or bf16 with its channels last, which those that the kernels make have anyway.
///
/// # Shapes
/// `[b, c, h, w]` → `[b, h, w, c]`
fn channels_last(pictures: &Tensor<4>) -> Option<FlexTensor> {
    let pictures = pictures.clone().permute([0, 2, 3, 1]);
    let pictures = pictures.try_into_primitive::<Flex>().ok()?;
    matches!(pictures.dtype(), DType::F32 | DType::BF16).then(|| pictures.to_contiguous())
}

fn numbers(tensor: &FlexTensor) -> Option<Numbers<'_>> {
    match tensor.dtype() {
        DType::BF16 => {
            let numbers = tensor.as_slice::<bf16>()?;
            Some(Numbers::Bf16(numbers.reinterpret_cast()))
        }
        _ => slice(tensor).map(Numbers::F32),
    }
}

/// The other way, without moving anything.
fn pictures(floats: Floats, shape: [usize; 4]) -> Tensor<4> {
    tensor::<4>(floats, Shape::new(shape)).permute([0, 3, 1, 2])
}

/// The greatest value of each window, by kernel, stride and padding.
///
/// # Shapes
/// `[b, c, h, w]` → `[b, c, h', w']`
pub fn max_pool(input: &Tensor<4>, window: [[usize; 2]; 3]) -> Option<Tensor<4>> {
    let isa = Isa::chosen()?;
    let input = channels_last(input)?;
    let [batch, height, width, channels] = input.layout().shape().dims();
    let [kernel, stride, padding] = window;
    let window = pooling::Window {
        input: [height, width],
        kernel,
        stride,
        padding,
    };
    let [height, width] = window.output()?;
    let shape = [batch, height, width, channels];
    match numbers(&input)? {
        Numbers::F32(from) => {
            let mut out = pool::take(shape.iter().product());
            pooling::max_pool(isa, &window, channels, from, &mut out);
            Some(pictures(out, shape))
        }
        Numbers::Bf16(from) => {
            let mut out = halves(shape.iter().product())?;
            let to = bytemuck::cast_slice_mut(&mut out);
            pooling::max_pool_bf16(isa, &window, channels, from, to);
            Some(pictures_of_bf16(out, shape))
        }
    }
}

/// The memory of an even number of bf16.
fn halves(count: usize) -> Option<Floats> {
    count.is_multiple_of(2).then(|| pool::take(count / 2))
}

fn tensor_of_bf16<const D: usize>(halves: Floats, shape: Shape) -> Tensor<D> {
    let tensor = FlexTensor::new(pool::bytes(halves), Layout::contiguous(shape), DType::BF16);
    Tensor::from_primitive::<Flex>(tensor)
}

fn pictures_of_bf16(halves: Floats, shape: [usize; 4]) -> Tensor<4> {
    tensor_of_bf16::<4>(halves, Shape::new(shape)).permute([0, 3, 1, 2])
}

/// With fewer outputs in a group, vectors would be mostly empty.
const LEAST_OUTPUTS: usize = 8;

/// `act(scale · weight ∗ input + bias + residual)`; `None` for groups of few channels too.
///
/// # Shapes
/// `[b, in, h, w]`, `[out, in / groups, kh, kw]`, twice `[out]`, as the output → `[b, out, h', w']`, laid out as
/// `[b, h', w', out]`
///
/// # Types
/// Of input and residual f32 or bf16. The output is bf16 where it `may` be and the weights are, else f32.
pub fn convolve(
    input: &Tensor<4>,
    weight: &Tensor<4>,
    scale: Option<&Tensor<1>>,
    bias: Option<&Tensor<1>>,
    residual: Option<&Tensor<4>>,
    options: Convolution,
    activation: Activation,
    may: bool,
) -> Option<Tensor<4>> {
    static PACKS: LazyLock<Packs<Weights>> = LazyLock::new(Packs::default);
    let isa = Isa::chosen()?;
    let weight = contiguous(weight)?;
    let [outputs, depth, kernel_height, kernel_width] = weight.layout().shape().dims();
    let groups = options.groups;
    if groups == 0 || depth == 0 || (groups > 1 && outputs / groups < LEAST_OUTPUTS) {
        return None;
    }
    let mut input = channels_last(input)?;
    let scale = match scale {
        Some(scale) => Some(contiguous(scale)?),
        None => None,
    };
    let bias = match bias {
        Some(bias) => Some(contiguous(bias)?),
        None => None,
    };
    let mut residual = match residual {
        Some(residual) => Some(channels_last(residual)?),
        None => None,
    };
    let [batch, height, width, inputs] = input.layout().shape().dims();
    let shape = conv::Shape {
        batch,
        groups,
        channels: [inputs, outputs],
        input: [height, width],
        kernel: [kernel_height, kernel_width],
        stride: options.stride,
        padding: options.padding,
        dilation: options.dilation,
    };
    if inputs != depth * groups || !outputs.is_multiple_of(groups) {
        return None;
    }
    let [height, width] = shape.output()?;
    let precision = packs::precision(&weight);
    let variant = (shape.layout(), precision);
    let packed = PACKS.get(&weight, scale.as_ref(), variant, || {
        let weights = slice(&weight).unwrap_or_default();
        let scale = scale.as_ref().and_then(slice);
        let narrow = Unit::chosen(precision)
            .and_then(|unit| Weights::narrow(precision, unit, &shape, weights, scale));
        narrow.unwrap_or_else(|| Weights::new(isa, &shape, weights, scale))
    });
    let count = batch * outputs * height * width;
    let bias = bias.as_ref().and_then(slice);
    let shape_last = [batch, height, width, outputs];
    if packed.takes_bf16() {
        let residual = residual.as_ref().and_then(numbers);
        let input = numbers(&input)?;
        let run = |out| {
            conv::convolve_bf16(&shape, input, &packed, bias, residual, activation, out);
        };
        if let Some(mut out) = may.then(|| halves(count)).flatten() {
            run(NumbersMut::Bf16(bytemuck::cast_slice_mut(&mut out)));
            return Some(pictures_of_bf16(out, shape_last));
        }
        let mut out = pool::take(count);
        run(NumbersMut::F32(&mut out));
        return Some(pictures(out, shape_last));
    }
    input = widened::<4>(input)?;
    residual = match residual {
        Some(residual) => Some(widened::<4>(residual)?),
        None => None,
    };
    let mut out = pool::take(count);
    let epilogue = Epilogue {
        bias,
        residual: residual.as_ref().and_then(slice),
        activation,
    };
    conv::convolve(&shape, slice(&input)?, &packed, epilogue, &mut out);
    Some(pictures(out, shape_last))
}

/// The same numbers in f32.
fn widened<const D: usize>(tensor: FlexTensor) -> Option<FlexTensor> {
    if tensor.dtype() == DType::F32 {
        return Some(tensor);
    }
    let tensor = Tensor::<D>::from_primitive::<Flex>(tensor).cast(FloatDType::F32);
    contiguous(&tensor)
}
