//! Attention over heads as they lie, without copies of queries, keys, values or scores.
//!
//! Keys are packed a head at a time; then a few queries at once get their scores, which stay in the
//! nearest caches until the values are summed by them.

use std::cell::RefCell;

use rayon::prelude::*;

use crate::activation::exp;
use crate::gemm::{Ahead, Shared, Tile};
use crate::simd::{Isa, Kernel, Vector};

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
/// A query that sees no key gets zeros.
///
/// # Panics
/// The shapes reach beyond the data, or `out` has another length.
pub fn attend(isa: Isa, work: &Attention<'_>, out: &mut [f32]) {
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
        SCRATCH.with_borrow_mut(|scratch| {
            // SAFETY: `isa` is present; the lengths are asserted above; no two tasks share a query of a
            // head.
            unsafe {
                isa.run(Head {
                    work,
                    batch: head / heads,
                    head: head % heads,
                    first: part * queries / parts,
                    end: (part + 1) * queries / parts,
                    scratch,
                    out: out.get(),
                    tile,
                });
            }
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
}

/// Some queries of a head.
struct Head<'a> {
    work: &'a Attention<'a>,
    batch: usize,
    head: usize,
    first: usize,
    end: usize,
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
        let Attention {
            heads,
            queries,
            keys,
            width,
            value_width,
            ..
        } = *self.work;
        let panel = 2 * V::LANES;
        let panels = keys.div_ceil(panel);
        let value_panels = value_width.div_ceil(panel);
        let few = self.end - self.first <= FEW;
        let copies = !value_width.is_multiple_of(panel);
        let row = panels * panel;
        let sizes = [
            if few { 0 } else { row * width },
            if copies {
                keys * value_panels * panel
            } else {
                0
            },
            self.tile * row,
            if self.work.mask.is_some() { row } else { 0 },
        ];
        let needed: usize = sizes.iter().sum();
        if self.scratch.len() < needed {
            self.scratch.resize(needed, 0.0);
        }
        // SAFETY: `attend` has checked that all rows are in their data; the scratch has the sizes above.
        unsafe {
            let [query, key, value] =
                [self.work.query, self.work.key, self.work.value].map(|side| {
                    let at = self.batch * side.strides[0] + self.head * side.strides[1];
                    (side.data.as_ptr().add(at), side.strides[2])
                });
            let packed_keys = self.scratch.as_mut_ptr();
            let packed_values = packed_keys.add(sizes[0]);
            let scores = packed_values.add(sizes[1]);
            let mut allowed = std::ptr::null_mut();
            if let Some(mask) = self.work.mask {
                allowed = scores.add(sizes[2]);
                self.hide(mask, self.first, allowed);
            }
            if !few {
                for first in (0..keys).step_by(panel) {
                    let to = packed_keys.add(first * width);
                    let columns = panel.min(keys - first);
                    for column in 0..columns {
                        let from = key.0.add((first + column) * key.1);
                        for k in 0..width {
                            *to.add(k * panel + column) = *from.add(k);
                        }
                    }
                    for k in 0..width {
                        for column in columns..panel {
                            *to.add(k * panel + column) = 0.0;
                        }
                    }
                }
            }
            if copies {
                for index in 0..value_panels {
                    let columns = panel.min(value_width - index * panel);
                    for row in 0..keys {
                        let from = value.0.add(row * value.1 + index * panel);
                        let to = packed_values.add((index * keys + row) * panel);
                        std::ptr::copy_nonoverlapping(from, to, columns);
                        for column in columns..panel {
                            *to.add(column) = 0.0;
                        }
                    }
                }
            }
            let mut first = self.first;
            while first < self.end {
                let rows = self.tile.min(self.end - first);
                let from = query.0.add(first * query.1);
                // Keys that the last of these queries sees.
                let seen = if self.work.causal {
                    (first + rows + keys).saturating_sub(queries).min(keys)
                } else {
                    keys
                };
                if few {
                    for at in 0..rows {
                        let from = from.add(at * query.1);
                        for index in 0..seen {
                            let score = dot::<V>(from, key.0.add(index * key.1), width);
                            *scores.add(at * row + index) = score;
                        }
                    }
                } else {
                    for index in 0..seen.div_ceil(panel) {
                        Tile {
                            a: from,
                            a_stride: query.1,
                            a_step: 1,
                            b: packed_keys.add(index * panel * width),
                            b_stride: panel,
                            k: width,
                            ahead: Ahead::none(from),
                            columns: panel,
                            bias: std::ptr::null(),
                            relu: false,
                            residual: std::ptr::null(),
                            out: scores.add(index * panel),
                            out_stride: row,
                        }
                        .run_rows::<V>(rows);
                    }
                }
                let mut factors = [0.0; 16];
                for at in 0..rows {
                    let (scores, query) = (scores.add(at * row), first + at);
                    // It is mostly the same for all queries.
                    if let Some(mask) = self.work.mask.filter(|mask| mask.strides[2] != 0) {
                        self.hide(mask, query, allowed);
                    }
                    factors[at] = self.weigh::<V>(scores, allowed, query, seen);
                }
                let to = (self.batch * queries + first) * heads + self.head;
                let to = self.out.add(to * value_width);
                for index in 0..value_panels {
                    let (b, b_stride) = if copies {
                        (packed_values.add(index * keys * panel).cast_const(), panel)
                    } else {
                        (value.0.add(index * panel), value.1)
                    };
                    let columns = panel.min(value_width - index * panel);
                    let to = to.add(index * panel);
                    Tile {
                        a: scores,
                        a_stride: row,
                        a_step: 1,
                        b,
                        b_stride,
                        k: seen,
                        ahead: Ahead::none(b),
                        columns,
                        bias: std::ptr::null(),
                        relu: false,
                        residual: std::ptr::null(),
                        out: to,
                        out_stride: heads * value_width,
                    }
                    .run_rows::<V>(rows);
                    for at in 0..rows {
                        let to = to.add(at * heads * value_width);
                        let factor = V::splat(factors[at]);
                        let mut column = 0;
                        while column < columns {
                            let count = (columns - column).min(V::LANES);
                            let sum = V::load_some(to.add(column), count);
                            sum.mul(factor).store_some(to.add(column), count);
                            column += V::LANES;
                        }
                    }
                }
                first += rows;
            }
        }
    }
}

impl Head<'_> {
    /// Turns a query's scores for `seen` keys into `e^(score - greatest)`; gives what makes their sum 1. `allowed` is
    /// null without a mask.
    #[inline(always)]
    unsafe fn weigh<V: Vector>(
        &self,
        scores: *mut f32,
        allowed: *const f32,
        query: usize,
        seen: usize,
    ) -> f32 {
        let Attention {
            queries,
            keys,
            scale,
            causal,
            ..
        } = *self.work;
        let own = if causal {
            (query + 1 + keys).saturating_sub(queries).min(keys)
        } else {
            keys
        };
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
                    *scores.add(at) = *scores.add(at) * scale + bias;
                }
            }
            let factor = V::splat(if self.work.bias.is_some() { 1.0 } else { scale });
            let mut greatest = nothing;
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
                greatest = greatest.max(score);
                at += V::LANES;
            }
            let most = greatest.greatest();
            if most == f32::NEG_INFINITY {
                for at in 0..seen {
                    *scores.add(at) = 0.0;
                }
                return 0.0;
            }
            let most = V::splat(most);
            let mut sum = V::splat(0.0);
            let mut at = 0;
            while at < own {
                // Below all that `exp` can give is nothing, as a masked key is.
                let weight = exp(V::load(scores.add(at)).sub(most));
                sum = sum.add(weight);
                weight.store(scores.add(at));
                at += V::LANES;
            }
            for at in own..seen {
                *scores.add(at) = 0.0;
            }
            1.0 / sum.sum()
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
