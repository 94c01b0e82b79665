//! `f32` to GGML's block types.
//!
//! `Q4_0`, `Q4_1`, `Q5_0`, `Q5_1` and `Q8_0` give the bytes of `gguf/quants.py` in the `gguf` package 0.19, `Q4_K`
//! and `Q6_K` those of `quantize_row_q4_K_ref` and `quantize_row_q6_K_ref` in `ggml-quants.c` at ggml's
//! commit d99724f: the same arithmetic in `f32`, in the same order.

use half::f16;

use super::quants::scale_min;

/// A number in half precision.
fn half(value: f32) -> [u8; 2] {
    f16::from_f32(value).to_le_bytes()
}

/// The value of the largest magnitude, the first of equals.
fn extreme(values: &[f32]) -> f32 {
    let mut found = 0.0f32;
    for value in values {
        if value.abs() > found.abs() {
            found = *value;
        }
    }
    found
}

fn bounds(values: &[f32]) -> (f32, f32) {
    let least = values.iter().copied().fold(f32::INFINITY, f32::min);
    let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    (least, most)
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// Puts the low halves of 32 numbers into 16 bytes, the first half of them in the low bits.
fn pack_low(numbers: &[u8; 32], out: &mut [u8]) {
    for (at, byte) in out.iter_mut().enumerate().take(16) {
        *byte = numbers[at] & 15 | numbers[at + 16] << 4;
    }
}

/// Puts the fifth bits of 32 numbers into 4 bytes.
fn pack_fifth(numbers: &[u8; 32], out: &mut [u8]) {
    for (at, number) in numbers.iter().enumerate() {
        out[at / 8] |= (number >> 4) << (at % 8);
    }
}

fn around_zero(values: &[f32], most: u8) -> (f32, [u8; 32]) {
    let middle = f32::from(most / 2 + 1);
    let scale = extreme(values) / -middle;
    let inverse = inverse(scale);
    let mut numbers = [0; 32];
    for (number, value) in numbers.iter_mut().zip(values) {
        *number = ((value * inverse + (middle + 0.5)) as u8).min(most);
    }
    (scale, numbers)
}

fn above_least(values: &[f32], most: u8) -> (f32, f32, [u8; 32]) {
    let (least, greatest) = bounds(values);
    let scale = (greatest - least) / f32::from(most);
    let inverse = inverse(scale);
    let mut numbers = [0; 32];
    for (number, value) in numbers.iter_mut().zip(values) {
        *number = (((value - least) * inverse + 0.5) as u8).min(most);
    }
    (scale, least, numbers)
}

pub(super) fn q4_0(values: &[f32], out: &mut [u8]) {
    let (scale, numbers) = around_zero(values, 15);
    out[..2].copy_from_slice(&half(scale));
    pack_low(&numbers, &mut out[2..]);
}

pub(super) fn q4_1(values: &[f32], out: &mut [u8]) {
    let (scale, least, numbers) = above_least(values, 15);
    out[..2].copy_from_slice(&half(scale));
    out[2..4].copy_from_slice(&half(least));
    pack_low(&numbers, &mut out[4..]);
}

pub(super) fn q5_0(values: &[f32], out: &mut [u8]) {
    let (scale, numbers) = around_zero(values, 31);
    out[..2].copy_from_slice(&half(scale));
    pack_fifth(&numbers, &mut out[2..6]);
    pack_low(&numbers, &mut out[6..]);
}

pub(super) fn q5_1(values: &[f32], out: &mut [u8]) {
    let (scale, least, numbers) = above_least(values, 31);
    out[..2].copy_from_slice(&half(scale));
    out[2..4].copy_from_slice(&half(least));
    pack_fifth(&numbers, &mut out[4..8]);
    pack_low(&numbers, &mut out[8..]);
}

pub(super) fn q8_0(values: &[f32], out: &mut [u8]) {
    let scale = extreme(values).abs() / 127.0;
    let inverse = inverse(scale);
    out[..2].copy_from_slice(&half(scale));
    for (byte, value) in out[2..].iter_mut().zip(values) {
        *byte = ((value * inverse).round() as i8).cast_unsigned();
    }
}

/// Below this a group counts as nothing.
const NOTHING: f32 = 1e-15;

/// The nearest integer, ties to even, of a number below 2^22: adding 1.5 · 2^23 leaves it in the low bits.
fn nearest(value: f32) -> i32 {
    let shifted = value + 12_582_912.0;
    ((shifted.to_bits() & 0x007f_ffff) as i32) - 0x0040_0000
}

/// The scale and the minimum, negated, of a run of 32 numbers from 0 to 15 with the least weighted square
/// error among 21 tries; and the numbers.
fn scale_and_min(values: &[f32], weights: &[f32; 32], numbers: &mut [u8]) -> (f32, f32) {
    const MOST: i32 = 15;
    const TRIES: u8 = 20;
    let (mut least, mut most) = (values[0], values[0]);
    let mut sum_w = weights[0];
    let mut sum_x = sum_w * values[0];
    for (value, weight) in values.iter().zip(weights).skip(1) {
        if *value < least {
            least = *value;
        }
        if *value > most {
            most = *value;
        }
        sum_w += weight;
        sum_x += weight * value;
    }
    if least > 0.0 {
        least = 0.0;
    }
    if most == least {
        numbers.fill(0);
        return (0.0, -least);
    }
    let number = |inverse: f32, value: f32, least: f32| {
        nearest(inverse * (value - least)).clamp(0, MOST) as u8
    };
    let error = |numbers: &[u8], scale: f32, least: f32| {
        let mut error = 0.0f32;
        for ((number, value), weight) in numbers.iter().zip(values).zip(weights) {
            let apart = scale * f32::from(*number) + least - value;
            error += weight * (apart * apart);
        }
        error
    };
    let inverse = MOST as f32 / (most - least);
    let mut scale = 1.0 / inverse;
    for (out, value) in numbers.iter_mut().zip(values) {
        *out = number(inverse, *value, least);
    }
    let mut best = error(numbers, scale, least);
    for step in 0..=TRIES {
        let inverse = (-1.0 + 0.1 * f32::from(step) + MOST as f32) / (most - least);
        let mut tried = [0u8; 32];
        let (mut sum_l, mut sum_l2, mut sum_xl) = (0.0f32, 0.0f32, 0.0f32);
        for ((out, value), weight) in tried.iter_mut().zip(values).zip(weights) {
            *out = number(inverse, *value, least);
            let l = f32::from(*out);
            sum_l += weight * l;
            sum_l2 += weight * l * l;
            sum_xl += weight * l * value;
        }
        let determinant = sum_w * sum_l2 - sum_l * sum_l;
        if determinant > 0.0 {
            let mut this_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
            let mut this_least = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
            if this_least > 0.0 {
                this_least = 0.0;
                this_scale = sum_xl / sum_l2;
            }
            let tried_error = error(&tried, this_scale, this_least);
            if tried_error < best {
                numbers.copy_from_slice(&tried);
                best = tried_error;
                scale = this_scale;
                least = this_least;
            }
        }
    }
    (scale, -least)
}

pub(super) fn q4_k(values: &[f32], out: &mut [u8]) {
    let mut numbers = [0u8; 256];
    let (mut scales, mut mins) = ([0.0f32; 8], [0.0f32; 8]);
    let (mut max_scale, mut max_min) = (0.0f32, 0.0f32);
    for (run, values) in values.chunks_exact(32).enumerate() {
        let mut sum = 0.0f32;
        for value in values {
            sum += value * value;
        }
        let average = (sum / 32.0).sqrt();
        let mut weights = [0.0f32; 32];
        for (weight, value) in weights.iter_mut().zip(values) {
            *weight = average + value.abs();
        }
        let numbers = &mut numbers[run * 32..][..32];
        (scales[run], mins[run]) = scale_and_min(values, &weights, numbers);
        if scales[run] > max_scale {
            max_scale = scales[run];
        }
        if mins[run] > max_min {
            max_min = mins[run];
        }
    }
    let of_63 = |most: f32| if most > 0.0 { 63.0 / most } else { 0.0 };
    let (inverse_scale, inverse_min) = (of_63(max_scale), of_63(max_min));
    out[..2].copy_from_slice(&half(max_scale / 63.0));
    out[2..4].copy_from_slice(&half(max_min / 63.0));
    let packed = &mut out[4..16];
    for run in 0..8 {
        let scale = (nearest(inverse_scale * scales[run]) as u8).min(63);
        let min = (nearest(inverse_min * mins[run]) as u8).min(63);
        if run < 4 {
            packed[run] = scale;
            packed[run + 4] = min;
        } else {
            packed[run + 4] = scale & 15 | (min & 15) << 4;
            packed[run - 4] |= (scale >> 4) << 6;
            packed[run] |= (min >> 4) << 6;
        }
    }
    // Once more, with the scales as they can be stored.
    let d = f16::from_le_bytes([out[0], out[1]]).to_f32();
    let least = f16::from_le_bytes([out[2], out[3]]).to_f32();
    for (run, values) in values.chunks_exact(32).enumerate() {
        let (scale, min) = scale_min(&out[4..16], run);
        let (scale, min) = (d * scale, least * min);
        if scale == 0.0 {
            continue;
        }
        for (number, value) in numbers[run * 32..].iter_mut().zip(values) {
            *number = nearest((value + min) / scale).clamp(0, 15) as u8;
        }
    }
    for (bytes, numbers) in out[16..].chunks_exact_mut(32).zip(numbers.chunks_exact(64)) {
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = numbers[at] | numbers[at + 32] << 4;
        }
    }
}

/// The scale of a run of 16 numbers from -32 to 31 with the least square error, weighted by the squares,
/// among 19 tries; and the numbers, 32 added.
fn scale_around_zero(values: &[f32], numbers: &mut [u8]) -> f32 {
    const MIDDLE: i32 = 32;
    let extreme = extreme(values);
    if extreme.abs() < NOTHING {
        numbers.fill(0);
        return 0.0;
    }
    let number = |inverse: f32, value: f32| nearest(inverse * value).clamp(-MIDDLE, MIDDLE - 1);
    let sums = |inverse: f32| {
        let (mut sum_lx, mut sum_l2) = (0.0f32, 0.0f32);
        for value in values {
            let l = number(inverse, *value) as f32;
            let weight = value * value;
            sum_lx += weight * value * l;
            sum_l2 += weight * l * l;
        }
        (sum_lx, sum_l2)
    };
    let mut keep = |inverse: f32| {
        for (out, value) in numbers.iter_mut().zip(values) {
            *out = (number(inverse, *value) + MIDDLE) as u8;
        }
    };
    let inverse = -(MIDDLE as f32) / extreme;
    keep(inverse);
    let (sum_lx, sum_l2) = sums(inverse);
    let mut scale = if sum_l2 == 0.0 { 0.0 } else { sum_lx / sum_l2 };
    let mut best = scale * sum_lx;
    for step in -9..=9i8 {
        if step == 0 {
            continue;
        }
        let inverse = -(MIDDLE as f32 + 0.1 * f32::from(step)) / extreme;
        let (sum_lx, sum_l2) = sums(inverse);
        if sum_l2 > 0.0 && sum_lx * sum_lx > best * sum_l2 {
            keep(inverse);
            scale = sum_lx / sum_l2;
            best = scale * sum_lx;
        }
    }
    scale
}

pub(super) fn q6_k(values: &[f32], out: &mut [u8]) {
    let mut numbers = [0u8; 256];
    let mut scales = [0.0f32; 16];
    let (mut max_scale, mut max_size) = (0.0f32, 0.0f32);
    for (run, values) in values.chunks_exact(16).enumerate() {
        scales[run] = scale_around_zero(values, &mut numbers[run * 16..][..16]);
        if scales[run].abs() > max_size {
            max_size = scales[run].abs();
            max_scale = scales[run];
        }
    }
    out.fill(0);
    if max_size < NOTHING {
        return;
    }
    let inverse = -128.0 / max_scale;
    let d = half(1.0 / inverse);
    out[208..].copy_from_slice(&d);
    let d = f16::from_le_bytes(d).to_f32();
    for (run, values) in values.chunks_exact(16).enumerate() {
        let scale = nearest(inverse * scales[run]).min(127) as i8;
        out[192 + run] = scale.cast_unsigned();
        let scale = d * f32::from(scale);
        if scale == 0.0 {
            continue;
        }
        for (number, value) in numbers[run * 16..].iter_mut().zip(values) {
            *number = (nearest(value / scale).clamp(-32, 31) + 32) as u8;
        }
    }
    for (part, numbers) in numbers.chunks_exact(128).enumerate() {
        for at in 0..32 {
            let four = [0, 32, 64, 96].map(|from| numbers[at + from]);
            let low = four.map(|number| number & 15);
            out[part * 64 + at] = low[0] | low[2] << 4;
            out[part * 64 + 32 + at] = low[1] | low[3] << 4;
            out[128 + part * 32 + at] =
                four[0] >> 4 | (four[1] >> 4) << 2 | (four[2] >> 4) << 4 | (four[3] >> 4) << 6;
        }
    }
}
