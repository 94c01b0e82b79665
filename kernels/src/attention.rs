//! Attention over heads as they lie, without copies of queries, keys, values or scores.
//!
//! Keys are packed a head at a time; then a few queries at once get their scores, which stay in the
//! nearest caches until the values are summed by them.

use std::cell::RefCell;
use std::f32::consts::LOG2_E;
use std::ops::Range;

use rayon::prelude::*;

use crate::activation::exp2;
use crate::aligned::Line;
use crate::gemm::{Ahead, COPY_STRIDE, DEPTH, MOST_ROWS, Shared, Tile};
use crate::narrow::Unit;
use crate::simd::{Isa, Kernel, Vector};

#[cfg(target_arch = "x86_64")]
mod bf16;

/// `[batch, heads, rows, width]` floats, those of a row next to each other.
#[derive(Debug, Clone, Copy)]
pub struct Heads<'a> {
    /// The elements, the first of them first.
    pub data: &'a [f32],
    /// Of a sequence, a head and a row.
    pub strides: [usize; 3],
}

/// `[batch, heads, queries, keys]` elements, which may be broadcast by strides of zero.
#[derive(Debug, Clone, Copy)]
pub struct Grid<'a, T> {
    /// The elements, the first of them first.
    pub data: &'a [T],
    /// Of each dimension.
    pub strides: [usize; 4],
}

/// An attention: queries and keys are of the same width.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// Sequences.
    pub batch: usize,
    /// Heads.
    pub heads: usize,
    /// Rows of `query`.
    pub queries: usize,
    /// Rows of `key` and `value`.
    pub keys: usize,
    /// Of `query` and `key`.
    pub width: usize,
    /// Of `value`.
    pub value_width: usize,
    #[allow(missing_docs)]
    pub query: Heads<'a>,
    #[allow(missing_docs)]
    pub key: Heads<'a>,
    #[allow(missing_docs)]
    pub value: Heads<'a>,
    /// Not zero where a query does not see a key.
    pub mask: Option<Grid<'a, u8>>,
    /// Added to the scores.
    pub bias: Option<Grid<'a, f32>>,
    /// What scores are multiplied by.
    pub scale: f32,
    /// Whether a query sees no key after its own, the last query's being the last key.
    pub causal: bool,
}

fn reach(shape: &[usize], strides: &[usize]) -> usize {
    if shape.contains(&0) {
        return 0;
    }
    let last: usize = shape
        .iter()
        .zip(strides)
        .map(|(size, stride)| (size - 1) * stride)
        .sum();
    last + 1
}

/// Writes `softmax(scale · query · keyᵀ + bias) · value` as `[batch, queries, heads, value_width]`.
///
/// A query that sees no key gets zeros. Products are of bf16 where `unit` is [`Unit::Tiles`] and queries are not
/// few.
///
/// # Panics
/// The shapes reach beyond the data, `out` has another length, or the unit is not present.
pub fn attend(isa: Isa, unit: Option<Unit>, work: &Attention<'_>, out: &mut [f32]) {
    let Attention {
        batch,
        heads,
        queries,
        keys,
        width,
        value_width,
        ..
    } = *work;
    for (side, rows, width) in [
        (work.query, queries, width),
        (work.key, keys, width),
        (work.value, keys, value_width),
    ] {
        let [a, b, c] = side.strides;
        let shape = [batch, heads, rows, width];
        assert!(
            reach(&shape, &[a, b, c, 1]) <= side.data.len(),
            "heads beyond their data"
        );
    }
    let grid = [batch, heads, queries, keys];
    assert!(
        work.mask
            .is_none_or(|mask| reach(&grid, &mask.strides) <= mask.data.len())
    );
    assert!(
        work.bias
            .is_none_or(|bias| reach(&grid, &bias.strides) <= bias.data.len())
    );
    assert_eq!(out.len(), batch * queries * heads * value_width);
    if out.is_empty() {
        return;
    }
    if keys == 0 {
        out.fill(0.0);
        return;
    }
    #[cfg(target_arch = "x86_64")]
    let tiles = unit == Some(Unit::Tiles) && queries >= bf16::LEAST;
    #[cfg(target_arch = "x86_64")]
    assert!(!tiles || crate::amx::present(), "absent tiles");
    // A head is one task, unless there are too few heads to keep all threads busy.
    let threads = rayon::current_num_threads();
    let (all, tile) = (batch * heads, isa.rows());
    let parts = if all % threads == 0 || all >= 8 * threads {
        1
    } else {
        (4 * threads).div_ceil(all).min(queries.div_ceil(4 * tile))
    };
    let out = Shared(out.as_mut_ptr());
    let task = |index: usize| {
        let (head, part) = (index / parts, index % parts);
        let scores = Scores {
            work,
            batch: head / heads,
            head: head % heads,
        };
        let queries = part * queries / parts..(part + 1) * queries / parts;
        #[cfg(target_arch = "x86_64")]
        if tiles {
            return LINES.with_borrow_mut(|scratch| {
                let head = bf16::Head {
                    scores,
                    queries,
                    scratch,
                    out: out.get(),
                };
                // SAFETY: tiles are present, and with them AVX512-BF16; the lengths are asserted above; no two tasks
                // share a query of a head.
                unsafe { head.run() }
            });
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let head = Head {
                scores,
                queries,
                scratch,
                out: out.get(),
                tile,
            };
            // SAFETY: `isa` is present; the rest as above.
            unsafe { isa.run(head) }
        });
    };
    let flops = all * queries * keys * (width + value_width);
    if flops < 1 << 15 {
        (0..all * parts).for_each(task);
    } else {
        (0..all * parts).into_par_iter().for_each(task);
    }
}

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    #[cfg(target_arch = "x86_64")]
    static LINES: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// Some queries of a head.
struct Head<'a> {
    scores: Scores<'a>,
    queries: Range<usize>,
    scratch: &'a mut Vec<f32>,
    out: *mut f32,
    tile: usize,
}

/// Up to this many queries, keys are read as they lie.
const FEW: usize = 3;

impl Kernel for Head<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let work = *self.scores.work;
        let Attention {
            heads,
            queries,
            keys,
            width,
            value_width,
            ..
        } = work;
        let panel = 2 * V::LANES;
        let value_panels = value_width.div_ceil(panel);
        let few = self.queries.len() <= FEW;
        let copies = !few || !value_width.is_multiple_of(panel);
        let row = keys.next_multiple_of(panel);
        let sizes = [
            if few { 0 } else { row * width },
            if copies {
                keys * value_panels * panel
            } else {
                0
            },
            self.tile * row,
            self.tile * COPY_STRIDE,
            if work.mask.is_some() { row } else { 0 },
        ];
        let needed: usize = sizes.iter().sum();
        if self.scratch.len() < needed {
            self.scratch.resize(needed, 0.0);
        }
        // SAFETY: `attend` has checked that all rows are in their data; the scratch has the sizes above.
        unsafe {
            let [query, key, value] =
                [work.query, work.key, work.value].map(|side| self.scores.side(side));
            let mut at = self.scratch.as_mut_ptr();
            let [packed_keys, packed_values, scores, block, hidden] = sizes.map(|size| {
                let part = at;
                at = at.add(size);
                part
            });
            let mut allowed = std::ptr::null_mut();
            if let Some(mask) = work.mask {
                allowed = hidden;
                self.scores.hide(mask, self.queries.start, allowed);
            }
            if !few {
                pack_keys::<V>(key, [keys, width], packed_keys);
            }
            if copies {
                pack_values::<V>(value, [keys, value_width], packed_values);
            }
            let mut first = self.queries.start;
            while first < self.queries.end {
                let rows = self.tile.min(self.queries.end - first);
                let from = query.0.add(first * query.1);
                let seen = self.scores.seen(first + rows - 1);
                if few {
                    for at in 0..rows {
                        let from = from.add(at * query.1);
                        for index in 0..seen {
                            let score = dot::<V>(from, key.0.add(index * key.1), width);
                            *scores.add(at * row + index) = score;
                        }
                    }
                } else {
                    for start in (0..width.max(1)).step_by(DEPTH) {
                        let depth = DEPTH.min(width - start);
                        for at in 0..rows {
                            let from = from.add(at * query.1 + start);
                            from.copy_to_nonoverlapping(block.add(at * COPY_STRIDE), depth);
                        }
                        for index in 0..seen.div_ceil(panel) {
                            let out = scores.add(index * panel);
                            Tile {
                                a: block,
                                a_stride: COPY_STRIDE,
                                a_step: 1,
                                b: packed_keys.add(index * panel * width + start * panel),
                                b_stride: panel,
                                k: depth,
                                ahead: Ahead::none(block),
                                columns: panel,
                                bias: std::ptr::null(),
                                relu: false,
                                residual: if start > 0 { out } else { std::ptr::null() },
                                out,
                                out_stride: row,
                            }
                            .run_rows::<V>(rows);
                        }
                    }
                }
                let mut greatest = [0.0; MOST_ROWS];
                for at in 0..rows {
                    let (scores, query) = (scores.add(at * row), first + at);
                    // It is mostly the same for all queries.
                    if let Some(mask) = work.mask.filter(|mask| mask.strides[2] != 0) {
                        self.scores.hide(mask, query, allowed);
                    }
                    greatest[at] = self.scores.scale::<V>(scores, allowed, query);
                }
                let mut sums = [0.0; MOST_ROWS];
                let to = (self.scores.batch * queries + first) * heads + self.scores.head;
                let to = self.out.add(to * value_width);
                let out_stride = heads * value_width;
                // Once where no key is seen, for the zeros.
                for start in (0..seen.max(1)).step_by(DEPTH) {
                    let depth = DEPTH.min(seen - start);
                    for at in 0..rows {
                        let scores = scores.add(at * row + start);
                        let own = self.scores.seen(first + at).saturating_sub(start);
                        let weights = block.add(at * COPY_STRIDE);
                        sums[at] += weigh::<V>(scores, greatest[at], own, depth, weights);
                    }
                    for index in 0..value_panels {
                        let (b, b_stride) = if copies {
                            let values = packed_values.add((index * keys + start) * panel);
                            (values.cast_const(), panel)
                        } else {
                            (value.0.add(start * value.1 + index * panel), value.1)
                        };
                        let out = to.add(index * panel);
                        Tile {
                            a: block,
                            a_stride: COPY_STRIDE,
                            a_step: 1,
                            b,
                            b_stride,
                            k: depth,
                            ahead: Ahead::none(b),
                            columns: panel.min(value_width - index * panel),
                            bias: std::ptr::null(),
                            relu: false,
                            residual: if start > 0 { out } else { std::ptr::null() },
                            out,
                            out_stride,
                        }
                        .run_rows::<V>(rows);
                    }
                }
                for at in 0..rows {
                    // Nothing is seen, or what is seen is no number.
                    let sum = if sums[at] == 0.0 { 1.0 } else { sums[at] };
                    let to = to.add(at * out_stride);
                    let factor = V::splat(1.0 / sum);
                    for column in (0..value_width).step_by(V::LANES) {
                        let count = (value_width - column).min(V::LANES);
                        let sum = V::load_some(to.add(column), count);
                        sum.mul(factor).store_some(to.add(column), count);
                    }
                }
                first += rows;
            }
        }
    }
}

/// Writes keys as panels of as many columns.
///
/// # Safety
/// The CPU has the instructions of `V`; there are as many rows, and room for them.
#[inline(always)]
unsafe fn pack_keys<V: Vector>(
    (from, stride): (*const f32, usize),
    [keys, width]: [usize; 2],
    to: *mut f32,
) {
    let panel = 2 * V::LANES;
    let whole = width / V::LANES * V::LANES;
    // SAFETY: the caller's.
    unsafe {
        for first in (0..keys.next_multiple_of(panel)).step_by(V::LANES) {
            let to = to.add(first / panel * panel * width + first % panel);
            let count = keys.saturating_sub(first).min(V::LANES);
            let mut done = 0;
            if count == V::LANES {
                for k in (0..whole).step_by(V::LANES) {
                    let from = from.add(first * stride + k);
                    V::transpose(from, stride, to.add(k * panel), panel);
                }
                done = whole;
            }
            for k in done..width {
                for column in 0..V::LANES {
                    *to.add(k * panel + column) = if column < count {
                        *from.add((first + column) * stride + k)
                    } else {
                        0.0
                    };
                }
            }
        }
    }
}

/// Writes values as panels of some columns.
///
/// # Safety
/// As [`pack_keys`].
#[inline(always)]
unsafe fn pack_values<V: Vector>(
    (from, stride): (*const f32, usize),
    [keys, width]: [usize; 2],
    to: *mut f32,
) {
    let panel = 2 * V::LANES;
    // SAFETY: the caller's.
    unsafe {
        for first in (0..width.next_multiple_of(panel)).step_by(V::LANES) {
            let count = width.saturating_sub(first).min(V::LANES);
            let to = to.add(first / panel * panel * keys + first % panel);
            for row in 0..keys {
                let values = V::load_some(from.wrapping_add(row * stride + first), count);
                values.store(to.add(row * panel));
            }
        }
    }
}

/// Writes `2^(score - greatest)` of `own` scores, and zeros up to `seen`; gives their sum.
///
/// # Safety
/// The CPU has the instructions of `V`; scores are some vectors, those from `own` on infinitely small.
#[inline(always)]
unsafe fn weigh<V: Vector>(
    scores: *const f32,
    greatest: f32,
    own: usize,
    seen: usize,
    to: *mut f32,
) -> f32 {
    // SAFETY: the caller's.
    unsafe {
        let zero = V::splat(0.0);
        let own = if greatest == f32::NEG_INFINITY {
            0
        } else {
            own.min(seen)
        };
        let most = V::splat(greatest);
        let mut sum = zero;
        for at in (0..own).step_by(V::LANES) {
            // Below all that `exp2` can give is nothing, as a masked key is.
            let weight = exp2(V::load(scores.add(at)).sub(most));
            sum = sum.add(weight);
            weight.store(to.add(at));
        }
        for at in (own..seen).step_by(V::LANES) {
            zero.store_some(to.add(at), seen - at);
        }
        sum.sum()
    }
}

/// The scores of a head's queries.
#[derive(Clone, Copy)]
struct Scores<'a> {
    work: &'a Attention<'a>,
    batch: usize,
    head: usize,
}

impl Scores<'_> {
    /// The head's first row of a side, and from a row to the next.
    fn side(&self, side: Heads<'_>) -> (*const f32, usize) {
        let at = self.batch * side.strides[0] + self.head * side.strides[1];
        (side.data.as_ptr().wrapping_add(at), side.strides[2])
    }

    /// How many keys a query sees, if no mask hides them.
    fn seen(&self, query: usize) -> usize {
        let Attention {
            queries,
            keys,
            causal,
            ..
        } = *self.work;
        if causal {
            (query + 1 + keys).saturating_sub(queries).min(keys)
        } else {
            keys
        }
    }

    /// Scales a query's scores, adds the bias, hides what the mask does, and makes powers of `e` such of two; gives
    /// the greatest. `allowed` is null without a mask.
    #[inline(always)]
    unsafe fn scale<V: Vector>(&self, scores: *mut f32, allowed: *const f32, query: usize) -> f32 {
        let own = self.seen(query);
        let scale = self.work.scale * LOG2_E;
        // SAFETY: the caller's; a row of scores and one of the mask are some panels, so that their last vectors are
        // whole.
        unsafe {
            let nothing = V::splat(f32::NEG_INFINITY);
            if let Some(bias) = self.work.bias {
                let place = [self.batch, self.head, query, 0];
                let start: usize = place.iter().zip(bias.strides).map(|(a, b)| a * b).sum();
                let step = bias.strides[3];
                for at in 0..own {
                    let bias = *bias.data.as_ptr().add(start + at * step);
                    *scores.add(at) = *scores.add(at) * scale + bias * LOG2_E;
                }
            }
            let factor = V::splat(if self.work.bias.is_some() { 1.0 } else { scale });
            // Two by turns, since each waits for its last.
            let mut greatest = [nothing; 2];
            let mut at = 0;
            while at < own {
                let mut score = V::load(scores.add(at)).mul(factor);
                if !allowed.is_null() {
                    score = score.min(V::load(allowed.add(at)));
                }
                score.store(scores.add(at));
                let count = own - at;
                if count < V::LANES {
                    nothing.store_some(scores.add(own), V::LANES - count);
                    score = V::load(scores.add(at));
                }
                let [next, last] = greatest;
                greatest = [last, next.max(score)];
                at += V::LANES;
            }
            greatest[0].max(greatest[1]).greatest()
        }
    }

    /// Writes what a query's scores may be at most: nothing where the mask hides a key.
    unsafe fn hide(&self, mask: Grid<'_, u8>, query: usize, allowed: *mut f32) {
        let place = [self.batch, self.head, query, 0];
        let start: usize = place.iter().zip(mask.strides).map(|(a, b)| a * b).sum();
        for at in 0..self.work.keys {
            // SAFETY: `attend` has checked the mask's reach; there is room for all keys.
            unsafe {
                let hidden = *mask.data.as_ptr().add(start + at * mask.strides[3]) != 0;
                *allowed.add(at) = if hidden {
                    f32::NEG_INFINITY
                } else {
                    f32::INFINITY
                };
            }
        }
    }
}

/// The sum of the products of two rows.
#[inline(always)]
pub(crate) unsafe fn dot<V: Vector>(a: *const f32, b: *const f32, count: usize) -> f32 {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [V::splat(0.0); 2];
        let mut at = 0;
        while at + 2 * V::LANES <= count {
            sums[0] = V::load(a.add(at)).fma(V::load(b.add(at)), sums[0]);
            let next = at + V::LANES;
            sums[1] = V::load(a.add(next)).fma(V::load(b.add(next)), sums[1]);
            at += 2 * V::LANES;
        }
        while at < count {
            let rest = (count - at).min(V::LANES);
            sums[0] = V::load_some(a.add(at), rest).fma(V::load_some(b.add(at), rest), sums[0]);
            at += V::LANES;
        }
        sums[0].add(sums[1]).sum()
    }
}
