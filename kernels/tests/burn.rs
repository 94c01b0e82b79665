//! The functions over tensors against Burn's own operations, as whatever set of instructions is chosen.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used)]

use burn::tensor::module;
use burn::tensor::ops::{AttentionModuleOptions, ConvOptions, MaxPoolOptions};
use burn::tensor::{Bool, Device, Distribution, FloatDType, Tensor, Tolerance, activation};
use salamander_kernels::{Activation, Convolution, Isa};
use salamander_kernels::{
    Precision, attention, convolve, layer_norm, linear, max_pool, scale_shift, set_precision,
};

fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Uniform(-1.0, 1.0), &Device::flex())
}

/// Compares, unless the environment asks for plain Burn.
#[track_caller]
fn same<const D: usize>(found: Option<Tensor<D>>, expected: Tensor<D>) {
    if Isa::chosen().is_none() {
        assert!(found.is_none());
        return;
    }
    let found = found.unwrap();
    assert_eq!(found.dims(), expected.dims());
    let tolerance = Tolerance::<f32>::absolute(1e-4);
    found
        .into_data()
        .assert_approx_eq(&expected.into_data(), tolerance);
}

#[test]
fn linear_layers() {
    for [rows, k, n] in [
        [1, 5, 7],
        [3, 64, 33],
        [4, 17, 100],
        [130, 48, 70],
        [0, 3, 4],
    ] {
        let (input, bias, added) = (random([rows, k]), random([n]), random([rows, n]));
        // As checkpoints have it, and as Burn has it.
        for weight in [random([n, k]).transpose(), random([k, n])] {
            let product = input.clone().matmul(weight.clone());
            let expected = product + bias.clone().unsqueeze() + added.clone();
            for _ in 0..2 {
                let found = linear(
                    &input,
                    &weight,
                    Some(&bias),
                    Some(&added),
                    Activation::Gelu,
                    false,
                );
                same(found, activation::gelu(expected.clone()));
            }
        }
    }
}

/// Weights of f16 and bf16 are what they are in f32, whatever they are computed in.
#[test]
fn linear_layers_of_halves() {
    for half in [FloatDType::F16, FloatDType::BF16] {
        for precision in [
            Precision::F32,
            Precision::F16,
            Precision::Bf16,
            Precision::Int8,
            Precision::Int4,
        ] {
            for [rows, k, n] in [[1, 70, 33], [40, 17, 100]] {
                let (input, bias) = (random([rows, k]), random([n]));
                // Some rows of a checkpoint's, and as Burn has it.
                let part = random([n + 3, k]).cast(half).slice([2..n + 2, 0..k]);
                for weight in [part.transpose(), random([k, n]).cast(half)] {
                    let wide = weight.clone().cast(FloatDType::F32);
                    set_precision(&weight, precision);
                    set_precision(&wide, precision);
                    let product = |weight: &Tensor<2>| {
                        linear(&input, weight, Some(&bias), None, Activation::Tanh, false)
                    };
                    let expected = product(&wide).unwrap_or_else(|| input.clone());
                    same(product(&weight), expected);
                }
            }
        }
    }
}

#[test]
fn packed_weights_go_with_their_tensor() {
    // The second weight may take the first one's memory; what was packed of the first must not answer.
    for _ in 0..20 {
        let (input, weight) = (random([20, 40]), random([40, 50]));
        let expected = input.clone().matmul(weight.clone());
        same(
            linear(&input, &weight, None, None, Activation::None, false),
            expected,
        );
    }
}

#[test]
fn strided_inputs() {
    let (input, weight) = (random([30, 2, 12]).swap_dims(0, 1), random([12, 8]));
    let expected = input.clone().matmul(weight.clone().unsqueeze());
    same(
        linear(&input, &weight, None, None, Activation::None, false),
        expected,
    );
    let (part, norm) = (random([9, 30]).slice([2..7, 0..30]), random([30]));
    let expected = module::layer_norm(part.clone(), norm.clone(), None, 1e-5);
    same(layer_norm(&part, None, &norm, None, 1e-5), expected);
}

#[test]
fn norms() {
    let (rows, other) = (random([4, 6, 50]), random([4, 6, 50]));
    let (gamma, beta) = (random([50]), random([50]));
    let sum = rows.clone() + other.clone();
    let expected = module::layer_norm(sum.clone(), gamma.clone(), Some(beta.clone()), 1e-5);
    same(
        layer_norm(&rows, Some(&other), &gamma, Some(&beta), 1e-5),
        expected,
    );
    let expected = sum * gamma.clone().unsqueeze() + beta.clone().unsqueeze();
    same(scale_shift(&rows, Some(&other), &gamma, &beta), expected);
}

#[test]
fn attentions() {
    for (queries, keys, causal) in [(1, 40, false), (7, 7, true), (50, 61, false), (5, 9, true)] {
        let heads = |rows| random([2, rows, 3, 16]).swap_dims(1, 2);
        let (query, key, value) = (heads(queries), heads(keys), heads(keys));
        let mask: Tensor<4, Bool> = random([2, 1, 1, keys]).greater_elem(0.5);
        let bias = random([1, 3, queries, keys]);
        let options = AttentionModuleOptions {
            is_causal: causal,
            ..AttentionModuleOptions::default()
        };
        for (mask, bias) in [(None, None), (Some(mask), Some(bias))] {
            let [q, k, v] = [&query, &key, &value].map(Clone::clone);
            let expected = module::attention_fallback(q, k, v, mask.clone(), bias.clone(), options);
            let (mask, bias) = (mask.as_ref(), bias.as_ref());
            same(
                attention(
                    &query,
                    &key,
                    &value,
                    mask,
                    bias,
                    None,
                    causal,
                    Precision::F32,
                ),
                expected,
            );
        }
    }
}

#[test]
fn convolutions() {
    for (groups, size, stride) in [(1, 3, 1), (1, 1, 2), (2, 5, 2), (3, 3, 1)] {
        let (input, bias) = (random([2, 6, 15, 19]), random([24]));
        let (weight, scale) = (random([24, 6 / groups, size, size]), random([24]));
        let edge = size / 2;
        let options = ConvOptions::new([stride; 2], [edge; 2], [1; 2], groups);
        let scaled = weight.clone() * scale.clone().reshape([24, 1, 1, 1]);
        let expected = module::conv2d(input.clone(), scaled, Some(bias.clone()), options);
        let options = Convolution {
            stride: [stride; 2],
            padding: [edge; 2],
            dilation: [1; 2],
            groups,
        };
        let added = random(expected.dims());
        let found = convolve(
            &input,
            &weight,
            Some(&scale),
            Some(&bias),
            Some(&added),
            options,
            Activation::Relu,
            true,
        );
        same(found, activation::relu(expected + added));
    }
    // Burn's own is the better one where a group has few outputs.
    let (input, weight) = (random([1, 6, 8, 8]), random([6, 1, 3, 3]));
    let options = Convolution {
        stride: [1; 2],
        padding: [1; 2],
        dilation: [1; 2],
        groups: 6,
    };
    assert!(
        convolve(
            &input,
            &weight,
            None,
            None,
            None,
            options,
            Activation::None,
            false
        )
        .is_none()
    );
}

#[test]
fn pools() {
    let input = random([2, 3, 15, 19]);
    let options = MaxPoolOptions::new([3, 3]).with_stride([2, 2]);
    let expected = module::max_pool2d(input.clone(), options.with_padding([1, 1]));
    same(max_pool(&input, [[3, 3], [2, 2], [1, 1]]), expected);
}
