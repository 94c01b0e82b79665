//! Attention whose products are of bf16, by tiles: queries, keys, values and weights are rounded to it, and all sums
//! are f32. Products of pairs (AVX512-BF16) would be no faster than those in f32.
//!
//! Keys and values are laid out as weights of bf16 are (`narrow.rs`), a head at a time: in panels of 32 keys
//! as deep as a head is wide, and of 32 of its columns as deep as there are keys.

use std::arch::x86_64::*;
use std::f32::consts::LOG2_E;
use std::ops::Range;

use super::Scores;
use crate::aligned::Line;
use crate::amx;
use crate::narrow::{ROWS, STEP, WIDTH, x86::Product, x86::mask};
use crate::simd::{Avx512, transposed};

/// With fewer queries, laying out keys and values takes longer than products in f32.
pub(super) const LEAST: usize = 8;

/// Numbers of a step's depth.
const DEPTH: usize = STEP / 2;
/// Bytes of a panel's step.
const PANEL: usize = STEP * WIDTH;

/// Some queries of a head.
pub(super) struct Head<'a> {
    pub(super) scores: Scores<'a>,
    pub(super) queries: Range<usize>,
    pub(super) scratch: &'a mut Vec<Line>,
    pub(super) out: *mut f32,
}

impl Head<'_> {
    /// # Safety
    /// The CPU has AVX512-BF16 and AMX; the rows of the work are in their data, and those of `out` there.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
    pub(super) unsafe fn run(self) {
        let work = *self.scores.work;
        let (keys, width, value_width) = (work.keys, work.width, work.value_width);
        let (key_panels, key_steps) = (keys.div_ceil(WIDTH), width.div_ceil(DEPTH));
        let (value_panels, value_steps) = (value_width.div_ceil(WIDTH), keys.div_ceil(DEPTH));
        // Rows whose distance is a multiple of some KiB would evict each other.
        let query_stride = key_steps * STEP + 64;
        let score_stride = key_panels * WIDTH + 16;
        let weight_stride = value_steps * STEP + 64;
        let sizes = [
            key_panels * key_steps * PANEL,
            value_panels * value_steps * PANEL,
            ROWS * query_stride,
            ROWS * score_stride * 4,
            ROWS * weight_stride,
            ROWS * WIDTH * 4,
            key_panels * WIDTH * 4,
        ];
        let needed = sizes.iter().sum::<usize>().div_ceil(size_of::<Line>());
        if self.scratch.len() < needed {
            self.scratch.resize(needed, Line([0; 64]));
        }
        // SAFETY: the caller's; the scratch has the sizes above, which are all of whole lines.
        unsafe {
            let mut at = self.scratch.as_mut_ptr().cast::<u8>();
            let [key, value, query, scores, weights, sums, allowed] = sizes.map(|size| {
                let part = at;
                at = at.add(size);
                part
            });
            let (scores, sums) = (scores.cast::<f32>(), sums.cast::<f32>());
            let mut hidden: *mut f32 = std::ptr::null_mut();
            if let Some(mask) = work.mask {
                hidden = allowed.cast();
                self.scores.hide(mask, self.queries.start, hidden);
            }
            let (from, stride) = self.scores.side(work.key);
            for panel in 0..key_panels {
                for half in [0, 16] {
                    let first = panel * WIDTH + half;
                    let count = keys.saturating_sub(first).min(16);
                    for step in 0..key_steps {
                        let depth = step * DEPTH..width.min((step + 1) * DEPTH);
                        let from = from.wrapping_add(first * stride + depth.start);
                        let to = key.add((panel * key_steps + step) * PANEL + half * STEP);
                        turn(from, stride, count, depth.len(), to);
                    }
                }
            }
            let (from, stride) = self.scores.side(work.value);
            for panel in 0..value_panels {
                for half in [0, 16] {
                    let column = panel * WIDTH + half;
                    let columns = mask(value_width.saturating_sub(column));
                    for pair in 0..value_steps * 16 {
                        let row = |key: usize| {
                            let columns = if key < keys { columns } else { 0 };
                            let from = from.wrapping_add(key * stride + column);
                            _mm512_maskz_loadu_ps(columns, from)
                        };
                        let line = interleave(row(2 * pair), row(2 * pair + 1));
                        let step = (panel * value_steps + pair / 16) * PANEL;
                        let to = value.add(step + half * STEP + pair % 16 * 64);
                        _mm512_store_si512(to.cast(), line);
                    }
                }
            }
            let (from, stride) = self.scores.side(work.query);
            let tiles = Some(amx::Tiles::configure());
            for first in self.queries.clone().step_by(ROWS) {
                let count = ROWS.min(self.queries.end - first);
                for row in 0..count {
                    let from = from.add((first + row) * stride);
                    for step in 0..key_steps {
                        let depth = width - step * DEPTH;
                        let line = round(from.add(step * DEPTH), depth);
                        let to = query.add(row * query_stride + step * STEP);
                        _mm512_store_si512(to.cast(), line);
                    }
                }
                let seen = self.scores.seen(first + count - 1);
                for panel in 0..seen.div_ceil(WIDTH) {
                    Product {
                        a: query,
                        a_stride: query_stride,
                        count,
                        b: key.add(panel * key_steps * PANEL),
                        steps: key_steps,
                        out: scores.add(panel * WIDTH),
                        out_stride: score_stride,
                    }
                    .run::<false>(tiles.as_ref(), true);
                }
                let mut factors = [0.0; ROWS];
                for row in 0..count {
                    let (scores, query) = (scores.add(row * score_stride), first + row);
                    // It is mostly the same for all queries.
                    if let Some(mask) = work.mask.filter(|mask| mask.strides[2] != 0) {
                        self.scores.hide(mask, query, hidden);
                    }
                    let own = self.scores.seen(query);
                    let plain = work.mask.is_none() && work.bias.is_none();
                    let factor = if plain && work.scale > 0.0 {
                        work.scale * LOG2_E
                    } else {
                        self.scores.scale::<Avx512>(scores, hidden, query);
                        1.0
                    };
                    let weights = weights.add(row * weight_stride);
                    factors[row] = weigh(scores, factor, own, seen, weights);
                }
                for panel in 0..value_panels {
                    Product {
                        a: weights,
                        a_stride: weight_stride,
                        count,
                        b: value.add(panel * value_steps * PANEL),
                        steps: seen.div_ceil(DEPTH),
                        out: sums,
                        out_stride: WIDTH,
                    }
                    .run::<false>(tiles.as_ref(), true);
                    let place = (self.scores.batch * work.queries + first) * work.heads;
                    let to = self.out.add((place + self.scores.head) * value_width);
                    for row in 0..count {
                        let factor = _mm512_set1_ps(factors[row]);
                        for half in [0, 16] {
                            let column = panel * WIDTH + half;
                            let columns = mask(value_width.saturating_sub(column));
                            let sum = _mm512_load_ps(sums.add(row * WIDTH + half));
                            let to = to.wrapping_add(row * work.heads * value_width + column);
                            _mm512_mask_storeu_ps(to, columns, _mm512_mul_ps(sum, factor));
                        }
                    }
                }
            }
        }
    }
}

/// Up to 32 floats as bf16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn round(from: *const f32, count: usize) -> __m512i {
    // SAFETY: masked to what is there; vectors of numbers have no invalid bits.
    unsafe {
        let low = _mm512_maskz_loadu_ps(mask(count), from);
        let high = mask(count.saturating_sub(16));
        let high = _mm512_maskz_loadu_ps(high, from.wrapping_add(16));
        std::mem::transmute(_mm512_cvtne2ps_pbh(high, low))
    }
}

/// Two rows of 16 floats as bf16, taking turns.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
fn interleave(even: __m512, odd: __m512) -> __m512i {
    // SAFETY: vectors of numbers have no invalid bits.
    let rows: __m512i = unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(odd, even)) };
    // Words of 32 bits with the places of two numbers, `i` and `16 + i`.
    let first = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    let second = _mm512_slli_epi32::<16>(_mm512_add_epi32(first, _mm512_set1_epi32(16)));
    _mm512_permutexvar_epi16(_mm512_or_si512(first, second), rows)
}

/// Writes `count` rows of up to 32 floats, `stride` apart, as 16 columns of bf16: pair by pair of their depth.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn turn(from: *const f32, stride: usize, count: usize, depth: usize, to: *mut u8) {
    // SAFETY: the caller's; rows that are not there are not loaded.
    unsafe {
        let mut rows = [_mm512_setzero_si512(); 16];
        for row in 0..count {
            rows[row] = round(from.wrapping_add(row * stride), depth);
        }
        for (index, values) in transposed(rows).into_iter().enumerate() {
            _mm512_store_si512(to.add(index * 64).cast(), values);
        }
    }
}

/// Writes `2^(factor · (score - greatest))` of a query's `own` scores, and zeros for those up to `seen` and to the
/// step's end; gives what makes their sum 1.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn weigh(scores: *const f32, factor: f32, own: usize, seen: usize, to: *mut u8) -> f32 {
    let nothing = _mm512_set1_ps(f32::NEG_INFINITY);
    // SAFETY: the caller's; masked to what is there.
    unsafe {
        let mut greatest = nothing;
        for at in (0..own).step_by(16) {
            let score = _mm512_mask_loadu_ps(nothing, mask(own - at), scores.add(at));
            greatest = _mm512_max_ps(greatest, score);
        }
        let most = _mm512_reduce_max_ps(greatest);
        if most == f32::NEG_INFINITY {
            to.write_bytes(0, seen.next_multiple_of(DEPTH) * 2);
            return 0.0;
        }
        let factor = _mm512_set1_ps(factor);
        let most = _mm512_mul_ps(_mm512_set1_ps(most), factor);
        let mut sum = _mm512_setzero_ps();
        for at in (0..seen).step_by(DEPTH) {
            let half = |at: usize| {
                let some = mask(own.saturating_sub(at));
                let score = _mm512_maskz_loadu_ps(some, scores.wrapping_add(at));
                let power = _mm512_fmsub_ps(score, factor, most);
                exp2(some, power)
            };
            let (low, high) = (half(at), half(at + 16));
            sum = _mm512_add_ps(sum, _mm512_add_ps(low, high));
            let rounded: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(high, low));
            _mm512_store_si512(to.add(2 * at).cast(), rounded);
        }
        1.0 / _mm512_reduce_add_ps(sum)
    }
}

/// `2^x`, within 8e-5 of itself, which is little beside what bf16 rounds.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
fn exp2(some: __mmask16, x: __m512) -> __m512 {
    // Of what is infinitely small, the rest would be no number; in this order a NaN stays one.
    let x = _mm512_max_ps(_mm512_set1_ps(-200.0), x);
    let whole = _mm512_roundscale_ps::<0>(x);
    let rest = _mm512_sub_ps(x, whole);
    // The polynomial of the third degree whose relative error is least.
    let mut power = _mm512_set1_ps(0.055_171_67);
    for coefficient in [0.242_611_12, 0.693_260_99, 0.999_928_07] {
        power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(coefficient));
    }
    _mm512_maskz_scalef_ps(some, power, whole)
}
