//! GGML's block types, and their values as `f32`.
//!
//! Layouts and the order of the arithmetic are those of `gguf/quants.py` in the `gguf` package 0.19, so that
//! the results are the same to the bit. `Q8_1` and `Q8_K`, which that package does not dequantize, follow
//! `ggml-quants.c`; `Q8_1` has its two half-precision numbers, not the two single ones of the package's table
//! of sizes. `quantize.rs` has the other direction.

use burn::tensor::{DType, TensorData};
use half::f16;
use rayon::prelude::*;

use super::quantize;
use crate::{Dtype, large};

/// How many blocks a thread takes at once.
const BLOCKS_AT_ONCE: usize = 256;

/// A type of tensor data.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(super) id: u32,
    pub(crate) name: &'static str,
    /// How many elements share a block, and how many bytes that takes.
    pub(crate) block: usize,
    pub(crate) size: usize,
    pub(crate) values: Values,
}

/// How the bytes become values.
#[derive(Debug)]
pub(crate) enum Values {
    /// They are values already.
    Plain(Dtype),
    /// Blocks become `f32`.
    Blocks(fn(&[u8], &mut [f32])),
    /// They are listed and not read.
    Listed,
}

const fn plain(id: u32, name: &'static str, size: usize, dtype: Dtype) -> Kind {
    Kind {
        id,
        name,
        block: 1,
        size,
        values: Values::Plain(dtype),
    }
}

/// A block type, whose function for one block is made into one for many.
macro_rules! blocks {
    ($id:literal, $name:literal, $block:literal, $size:literal, $decode:ident) => {
        Kind {
            id: $id,
            name: $name,
            block: $block,
            size: $size,
            values: Values::Blocks(|bytes, out| each::<$block, $size>(bytes, out, $decode)),
        }
    };
}

/// Decodes block after block, with the widest vectors that the processor has.
fn each<const BLOCK: usize, const SIZE: usize>(
    bytes: &[u8],
    out: &mut [f32],
    decode: impl Fn(&[u8], &mut [f32]),
) {
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            let out = out.chunks_exact_mut(BLOCK);
            for (block, out) in bytes.chunks_exact(SIZE).zip(out) {
                decode(block, out);
            }
        },
    );
}

const fn listed(id: u32, name: &'static str, block: usize, size: usize) -> Kind {
    Kind {
        id,
        name,
        block,
        size,
        values: Values::Listed,
    }
}

static KINDS: &[Kind] = &[
    plain(0, "F32", 4, Dtype::F32),
    plain(1, "F16", 2, Dtype::F16),
    blocks!(2, "Q4_0", 32, 18, q4_0),
    blocks!(3, "Q4_1", 32, 20, q4_1),
    blocks!(6, "Q5_0", 32, 22, q5_0),
    blocks!(7, "Q5_1", 32, 24, q5_1),
    blocks!(8, "Q8_0", 32, 34, q8_0),
    blocks!(9, "Q8_1", 32, 36, q8_1),
    blocks!(10, "Q2_K", 256, 84, q2_k),
    blocks!(11, "Q3_K", 256, 110, q3_k),
    blocks!(12, "Q4_K", 256, 144, q4_k),
    blocks!(13, "Q5_K", 256, 176, q5_k),
    blocks!(14, "Q6_K", 256, 210, q6_k),
    blocks!(15, "Q8_K", 256, 292, q8_k),
    listed(16, "IQ2_XXS", 256, 66),
    listed(17, "IQ2_XS", 256, 74),
    listed(18, "IQ3_XXS", 256, 98),
    listed(19, "IQ1_S", 256, 50),
    blocks!(20, "IQ4_NL", 32, 18, iq4_nl),
    listed(21, "IQ3_S", 256, 110),
    listed(22, "IQ2_S", 256, 82),
    blocks!(23, "IQ4_XS", 256, 136, iq4_xs),
    plain(24, "I8", 1, Dtype::I8),
    plain(25, "I16", 2, Dtype::I16),
    plain(26, "I32", 4, Dtype::I32),
    plain(27, "I64", 8, Dtype::I64),
    plain(28, "F64", 8, Dtype::F64),
    listed(29, "IQ1_M", 256, 56),
    plain(30, "BF16", 2, Dtype::BF16),
    blocks!(34, "TQ1_0", 256, 54, tq1_0),
    blocks!(35, "TQ2_0", 256, 66, tq2_0),
    blocks!(39, "MXFP4", 32, 17, mxfp4),
    listed(40, "NVFP4", 64, 36),
    listed(41, "Q1_0", 128, 18),
];

/// Plain single-precision numbers.
pub(crate) static F32: &Kind = &plain(0, "F32", 4, Dtype::F32);

/// Block types that are written, and how a block is made.
#[allow(clippy::type_complexity)]
static QUANTIZE: &[(&str, fn(&[f32], &mut [u8]))] = &[
    ("Q4_0", quantize::q4_0),
    ("Q4_1", quantize::q4_1),
    ("Q5_0", quantize::q5_0),
    ("Q5_1", quantize::q5_1),
    ("Q8_0", quantize::q8_0),
    ("Q4_K", quantize::q4_k),
    ("Q6_K", quantize::q6_k),
];

/// The block types that can be written.
pub fn quantized_types() -> impl Iterator<Item = Dtype> {
    QUANTIZE.iter().map(|(name, _)| Dtype::Quantized(name))
}

impl Kind {
    /// The type that data of `dtype` has in a file, if there is one.
    pub(super) fn of(dtype: &Dtype) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.dtype() == *dtype)
    }

    /// A block type that can be written.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        let (name, _) = QUANTIZE.iter().find(|(known, _)| *known == name)?;
        KINDS.iter().find(|kind| kind.name == *name)
    }

    /// How many bytes so many elements take, if rows of `row` divide into blocks.
    pub(crate) fn quantized_size(&self, elements: usize, row: usize) -> Option<usize> {
        let whole = row.is_multiple_of(self.block);
        whole.then(|| elements / self.block * self.size)
    }

    /// The blocks for `f32` data whose rows divide into them; empty for a type that is not written.
    pub(crate) fn quantize(&self, data: &TensorData) -> Vec<u8> {
        let values: &[f32] = data.as_slice().unwrap_or_default();
        let encode = QUANTIZE.iter().find(|(name, _)| *name == self.name);
        let Some((_, encode)) = encode else {
            return Vec::new();
        };
        let mut bytes = vec![0; values.len() / self.block * self.size];
        let blocks = bytes.par_chunks_mut(self.size * BLOCKS_AT_ONCE);
        let values = values.par_chunks(self.block * BLOCKS_AT_ONCE);
        blocks.zip(values).for_each(|(bytes, values)| {
            let values = values.chunks_exact(self.block);
            for (block, values) in bytes.chunks_exact_mut(self.size).zip(values) {
                encode(values, block);
            }
        });
        bytes
    }

    /// The values of blocks; zeros for a type that has none.
    pub(crate) fn dequantize(&self, bytes: &[u8], shape: Vec<usize>) -> TensorData {
        let count = bytes.len() / self.size * self.block;
        let values = large::floats(count, |values| {
            let Values::Blocks(decode) = self.values else {
                return;
            };
            let blocks = bytes.par_chunks(self.size * BLOCKS_AT_ONCE);
            let out = values.par_chunks_mut(self.block * BLOCKS_AT_ONCE);
            blocks
                .zip(out)
                .for_each(|(blocks, out)| decode(blocks, out));
        });
        TensorData::from_bytes(values, shape, DType::F32)
    }

    pub(crate) fn find(id: u32) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.id == id)
    }

    pub(crate) fn dtype(&self) -> Dtype {
        match &self.values {
            Values::Plain(dtype) => dtype.clone(),
            Values::Blocks(_) => Dtype::Quantized(self.name),
            Values::Listed => Dtype::Other(self.name.to_owned()),
        }
    }
}

/// The half-precision number at a place.
#[inline(always)]
fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

#[inline(always)]
fn q4_0(block: &[u8], out: &mut [f32]) {
    let d = half(block, 0);
    for (at, byte) in block[2..].iter().enumerate() {
        out[at] = d * (f32::from(byte & 15) - 8.0);
        out[at + 16] = d * (f32::from(byte >> 4) - 8.0);
    }
}

#[inline(always)]
fn q4_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half(block, 0), half(block, 2));
    for (at, byte) in block[4..].iter().enumerate() {
        out[at] = d * f32::from(byte & 15) + m;
        out[at + 16] = d * f32::from(byte >> 4) + m;
    }
}

/// The five bits of element `at`, of which the fifth lies apart.
fn five_bits(high: &[u8], low: &[u8], at: usize) -> u8 {
    let low = low[at % 16] >> (at / 16 * 4) & 15;
    low | (high[at / 8] >> (at % 8) & 1) << 4
}

#[inline(always)]
fn q5_0(block: &[u8], out: &mut [f32]) {
    let d = half(block, 0);
    for (at, out) in out.iter_mut().enumerate() {
        *out = d * (f32::from(five_bits(&block[2..6], &block[6..], at)) - 16.0);
    }
}

#[inline(always)]
fn q5_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half(block, 0), half(block, 2));
    for (at, out) in out.iter_mut().enumerate() {
        *out = d * f32::from(five_bits(&block[4..8], &block[8..], at)) + m;
    }
}

#[inline(always)]
fn eight_bits(d: f32, bytes: &[u8], out: &mut [f32]) {
    for (out, byte) in out.iter_mut().zip(bytes) {
        *out = d * f32::from(byte.cast_signed());
    }
}

#[inline(always)]
fn q8_0(block: &[u8], out: &mut [f32]) {
    eight_bits(half(block, 0), &block[2..], out);
}

#[inline(always)]
fn q8_1(block: &[u8], out: &mut [f32]) {
    eight_bits(half(block, 0), &block[4..], out);
}

#[inline(always)]
fn q8_k(block: &[u8], out: &mut [f32]) {
    let d = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
    eight_bits(d, &block[4..260], out);
}

/// Two bits each: 32 bytes hold 128 elements, a run of 32 in each pair of bits.
fn two_bits(bytes: &[u8], run: usize, at: usize) -> u8 {
    bytes[run / 4 * 32 + at] >> (run % 4 * 2) & 3
}

#[inline(always)]
fn q2_k(block: &[u8], out: &mut [f32]) {
    let (scales, rest) = block.split_at(16);
    let (d, min) = (half(rest, 64), half(rest, 66));
    for (run, out) in out.chunks_exact_mut(32).enumerate() {
        for (at, out) in out.iter_mut().enumerate() {
            let scale = scales[run * 2 + at / 16];
            let (d, m) = (d * f32::from(scale & 15), min * f32::from(scale >> 4));
            *out = d * f32::from(two_bits(rest, run, at)) - m;
        }
    }
}

#[inline(always)]
fn q3_k(block: &[u8], out: &mut [f32]) {
    let (high, rest) = block.split_at(32);
    let (low, rest) = rest.split_at(64);
    let d = half(rest, 12);
    let mut scales = [0.0; 16];
    for (at, scale) in scales.iter_mut().enumerate() {
        let low = rest[at % 8] >> (at / 8 * 4) & 15;
        let high = rest[8 + at % 4] >> (at / 4 * 2) & 3;
        *scale = d * (f32::from(low | high << 4) - 32.0);
    }
    for (run, out) in out.chunks_exact_mut(32).enumerate() {
        for (at, out) in out.iter_mut().enumerate() {
            // The third bit is stored inverted: where it is clear, four are taken off.
            let less = if high[at] >> run & 1 == 0 { 4.0 } else { 0.0 };
            let q = f32::from(two_bits(low, run, at)) - less;
            *out = scales[run * 2 + at / 16] * q;
        }
    }
}

/// The six-bit scale and minimum of a run of 32, out of twelve bytes for eight runs.
#[inline(always)]
pub(super) fn scale_min(packed: &[u8], run: usize) -> (f32, f32) {
    let (scale, min) = if run < 4 {
        (packed[run] & 63, packed[run + 4] & 63)
    } else {
        let both = packed[run + 4];
        (
            both & 15 | packed[run - 4] >> 2 & 48,
            both >> 4 | packed[run] >> 2 & 48,
        )
    };
    (f32::from(scale), f32::from(min))
}

#[inline(always)]
fn q4_k(block: &[u8], out: &mut [f32]) {
    let (d, min) = (half(block, 0), half(block, 2));
    for (run, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, m) = scale_min(&block[4..16], run);
        let (d, m) = (d * scale, min * m);
        let (bytes, shift) = (&block[16 + run / 2 * 32..][..32], run % 2 * 4);
        for (out, byte) in out.iter_mut().zip(bytes) {
            *out = d * f32::from(byte >> shift & 15) - m;
        }
    }
}

#[inline(always)]
fn q5_k(block: &[u8], out: &mut [f32]) {
    let (d, min) = (half(block, 0), half(block, 2));
    let high = &block[16..48];
    for (run, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, m) = scale_min(&block[4..16], run);
        let (d, m) = (d * scale, min * m);
        let (bytes, shift) = (&block[48 + run / 2 * 32..][..32], run % 2 * 4);
        for ((out, byte), high) in out.iter_mut().zip(bytes).zip(high) {
            *out = d * f32::from(byte >> shift & 15 | (high >> run & 1) << 4) - m;
        }
    }
}

#[inline(always)]
fn q6_k(block: &[u8], out: &mut [f32]) {
    let (low, rest) = block.split_at(128);
    let (high, rest) = rest.split_at(64);
    let d = half(rest, 16);
    for (part, out) in out.chunks_exact_mut(128).enumerate() {
        let (low, high) = (&low[part * 64..][..64], &high[part * 32..][..32]);
        for (run, out) in out.chunks_exact_mut(32).enumerate() {
            let low = &low[run % 2 * 32..][..32];
            let (low_shift, high_shift) = (run / 2 * 4, run * 2);
            for (half, out) in out.chunks_exact_mut(16).enumerate() {
                let scale = d * f32::from(rest[part * 8 + run * 2 + half].cast_signed());
                let bytes = low[half * 16..].iter().zip(&high[half * 16..]);
                for (out, (low, high)) in out.iter_mut().zip(bytes) {
                    let q = low >> low_shift & 15 | (high >> high_shift & 3) << 4;
                    *out = scale * (f32::from(q) - 32.0);
                }
            }
        }
    }
}

/// Five or four digits of base three in a byte, taken from the top by a multiplication that overflows.
fn ternary(byte: u8, digit: usize) -> f32 {
    const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
    let shifted = byte.wrapping_mul(POWERS[digit]);
    f32::from(((u16::from(shifted) * 3) >> 8) as u8) - 1.0
}

#[inline(always)]
fn tq1_0(block: &[u8], out: &mut [f32]) {
    let d = half(block, 52);
    let mut at = 0;
    for (bytes, digits) in [(&block[..32], 5), (&block[32..48], 5), (&block[48..52], 4)] {
        for digit in 0..digits {
            for byte in bytes {
                out[at] = d * ternary(*byte, digit);
                at += 1;
            }
        }
    }
}

#[inline(always)]
fn tq2_0(block: &[u8], out: &mut [f32]) {
    let d = half(block, 64);
    for (run, out) in out.chunks_exact_mut(32).enumerate() {
        for (at, out) in out.iter_mut().enumerate() {
            *out = d * (f32::from(two_bits(block, run, at)) - 1.0);
        }
    }
}

/// Four-bit places in a table: 16 bytes hold 32 elements, the first half in the low bits.
fn table(d: f32, values: &[i8; 16], bytes: &[u8], out: &mut [f32]) {
    for (at, byte) in bytes.iter().enumerate() {
        out[at] = d * f32::from(values[usize::from(byte & 15)]);
        out[at + 16] = d * f32::from(values[usize::from(byte >> 4)]);
    }
}

/// The values of a four-bit float, doubled.
const E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];
const NON_LINEAR: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

#[inline(always)]
fn mxfp4(block: &[u8], out: &mut [f32]) {
    // Half of the power of two that the byte is the exponent of, since the table is doubled.
    let exponent = u32::from(block[0]);
    let bits = if exponent < 2 {
        0x0020_0000 << exponent
    } else {
        (exponent - 1) << 23
    };
    table(f32::from_bits(bits), &E2M1, &block[1..], out);
}

#[inline(always)]
fn iq4_nl(block: &[u8], out: &mut [f32]) {
    table(half(block, 0), &NON_LINEAR, &block[2..], out);
}

#[inline(always)]
fn iq4_xs(block: &[u8], out: &mut [f32]) {
    let d = half(block, 0);
    let high = u16::from_le_bytes([block[2], block[3]]);
    for (run, out) in out.chunks_exact_mut(32).enumerate() {
        let low = block[4 + run / 2] >> (run % 2 * 4) & 15;
        let scale = low | ((high >> (2 * run) & 3) as u8) << 4;
        let d = d * (f32::from(scale) - 32.0);
        table(d, &NON_LINEAR, &block[8 + run * 16..][..16], out);
    }
}
