//! Products in f32 with weights that are widened as they are used: those of f16, and those of bf16 and int8
//! where the CPU has no unit for them.
//!
//! A panel's numbers lie depth after depth, 32 columns each. It is widened once for many rows; a few meet its
//! numbers as they lie, since memory's speed limits them.

use std::marker::PhantomData;
use std::ops::Range;

use crate::activation::Activate;
use crate::aligned::Line;
use crate::gemm::{Ahead, Epilogue, Tile};
use crate::int4;
use crate::narrow::{Narrow, Precision, WIDTH};
use crate::simd::{Kernel, Vector};

/// Up to this many rows are multiplied by the weights as they are.
pub(crate) const FEW: usize = 8;

/// A kind of numbers.
trait Number {
    const BYTES: usize;
    /// `V::LANES` of them as floats.
    ///
    /// # Safety
    /// They are there, and the CPU has the instructions of `V`.
    unsafe fn load<V: Vector>(from: *const u8) -> V;
}

pub(crate) struct F16;
pub(crate) struct Bf16;
pub(crate) struct Int8;

/// A kind of weights that a few rows meet as they lie.
pub(crate) trait Weights {
    /// The sums of products of up to four rows by a panel, without the scales of columns.
    ///
    /// # Safety
    /// The CPU has the instructions of `V`; there are `count` rows of `k` floats, in int4 of whole blocks.
    unsafe fn weigh<V: Vector>(
        a: *const f32,
        stride: usize,
        count: usize,
        lines: &[Line],
        k: usize,
        to: &mut [[f32; WIDTH]],
    );
}

impl<N: Number> Weights for N {
    #[inline(always)]
    unsafe fn weigh<V: Vector>(
        a: *const f32,
        stride: usize,
        count: usize,
        lines: &[Line],
        k: usize,
        to: &mut [[f32; WIDTH]],
    ) {
        // SAFETY: the caller's.
        unsafe {
            match count {
                1 => weigh_rows::<V, N, 1, 4>(a, stride, lines, k, to),
                2 => weigh_rows::<V, N, 2, 2>(a, stride, lines, k, to),
                3 => weigh_rows::<V, N, 3, 1>(a, stride, lines, k, to),
                _ => weigh_rows::<V, N, 4, 1>(a, stride, lines, k, to),
            }
        }
    }
}

impl Number for F16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const u8) -> V {
        // SAFETY: the caller's.
        unsafe { V::load_f16(from.cast()) }
    }
}

impl Number for Bf16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const u8) -> V {
        // SAFETY: the caller's.
        unsafe { V::load_bf16(from.cast()) }
    }
}

impl Number for Int8 {
    const BYTES: usize = 1;
    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const u8) -> V {
        // SAFETY: the caller's.
        unsafe { V::load_int8(from.cast()) }
    }
}

/// Bytes of a number of a precision that is not int4.
pub(crate) fn size(precision: Precision) -> usize {
    match precision {
        Precision::Int8 => Int8::BYTES,
        _ => F16::BYTES,
    }
}

/// Writes a panel as `[k, WIDTH]` floats, and in int4 what its last block has.
pub(crate) struct Widen<'a> {
    pub(crate) b: &'a Narrow,
    pub(crate) panel: usize,
    pub(crate) wide: &'a mut [f32],
}

impl Kernel for Widen<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Self { b, panel, wide } = self;
        let lines = b.lines(panel);
        let [k, _] = b.shape();
        // SAFETY: the CPU has the instructions of `V`.
        unsafe {
            match b.precision() {
                Precision::Int4 => int4::widen::<V>(lines, wide),
                Precision::Int8 => widen::<V, Int8>(lines, k, b.scales(panel), wide),
                Precision::Bf16 => widen::<V, Bf16>(lines, k, None, wide),
                _ => widen::<V, F16>(lines, k, None, wide),
            }
        }
    }
}

/// # Safety
/// The CPU has the instructions of `V`.
#[inline(always)]
unsafe fn widen<V: Vector, N: Number>(
    lines: &[Line],
    k: usize,
    scales: Option<&[f32]>,
    wide: &mut [f32],
) {
    assert!(wide.len() >= k * WIDTH && size_of_val(lines) >= k * WIDTH * N::BYTES);
    assert!(scales.is_none_or(|scales| scales.len() == WIDTH));
    let from: *const u8 = lines.as_ptr().cast();
    // SAFETY: the caller's; `k` rows of `WIDTH` are on both sides.
    unsafe {
        for column in (0..WIDTH).step_by(V::LANES) {
            let mut scale = V::splat(1.0);
            if let Some(scales) = scales {
                scale = V::load(scales.as_ptr().add(column));
            }
            for row in 0..k {
                let place = row * WIDTH + column;
                let value = N::load::<V>(from.add(place * N::BYTES));
                value.mul(scale).store(wide.as_mut_ptr().add(place));
            }
        }
    }
}

/// Some rows by a widened panel.
pub(crate) struct Many<'a> {
    pub(crate) a: *const f32,
    pub(crate) wide: &'a [f32],
    pub(crate) b: &'a Narrow,
    pub(crate) panel: usize,
    pub(crate) epilogue: Epilogue<'a>,
    pub(crate) rows: Range<usize>,
    pub(crate) tile: usize,
    pub(crate) out: *mut f32,
}

impl Kernel for Many<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let [k, n] = self.b.shape();
        let mut first = self.rows.start;
        // SAFETY: `narrow::multiply` has checked the lengths, and the panel is widened.
        unsafe {
            while first < self.rows.end {
                let rows = self.tile.min(self.rows.end - first);
                let mut at = 0;
                while at < WIDTH {
                    let column = self.panel * WIDTH + at;
                    if column >= n {
                        break;
                    }
                    let columns = (2 * V::LANES).min(n - column);
                    let place = first * n + column;
                    let bias = self.epilogue.bias;
                    let residual = self.epilogue.residual;
                    let out = self.out.add(place);
                    Tile {
                        a: self.a.add(first * k),
                        a_stride: k,
                        a_step: 1,
                        b: self.wide.as_ptr().add(at),
                        b_stride: WIDTH,
                        k,
                        ahead: Ahead::none(self.wide.as_ptr().add(at)),
                        columns,
                        relu: false,
                        bias: bias.map_or(std::ptr::null(), |bias| bias.as_ptr().add(column)),
                        residual: residual
                            .map_or(std::ptr::null(), |rows| rows.as_ptr().add(place)),
                        out,
                        out_stride: n,
                    }
                    .run_rows::<V>(rows);
                    Activate::rows::<V>(self.epilogue.activation, out, n, rows, columns);
                    at += 2 * V::LANES;
                }
                first += rows;
            }
        }
    }
}

/// A few rows by a panel. One kernel for all kinds of weights would be slower: the compiler gives up on it.
pub(crate) struct Few<'a, W> {
    pub(crate) kind: PhantomData<W>,
    /// Rows of `k` floats, in int4 of whole blocks, `stride` apart.
    pub(crate) a: *const f32,
    pub(crate) stride: usize,
    pub(crate) rows: usize,
    pub(crate) b: &'a Narrow,
    pub(crate) panel: usize,
    pub(crate) epilogue: Epilogue<'a>,
    pub(crate) out: *mut f32,
}

impl<W: Weights> Kernel for Few<'_, W> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        const GROUP: usize = 4;
        let [k, n] = self.b.shape();
        let column = self.panel * WIDTH;
        let lines = self.b.lines(self.panel);
        // SAFETY: `narrow::multiply` has checked the lengths.
        unsafe {
            let mut first = 0;
            while first < self.rows {
                let count = GROUP.min(self.rows - first);
                let mut sums = [[0.0; WIDTH]; GROUP];
                let a = self.a.add(first * self.stride);
                W::weigh::<V>(a, self.stride, count, lines, k, &mut sums);
                let scales = self.b.scales(self.panel);
                for (row, sums) in sums.iter().enumerate().take(count) {
                    let mut at = 0;
                    while at < WIDTH.min(n - column) {
                        let some = V::LANES.min(n - column - at);
                        let mut value = V::load(sums.as_ptr().add(at));
                        if let Some(scales) = scales {
                            value = value.mul(V::load(scales.as_ptr().add(at)));
                        }
                        if let Some(bias) = self.epilogue.bias {
                            let bias = bias.as_ptr().add(column + at);
                            value = value.add(V::load_some(bias, some));
                        }
                        let place = (first + row) * n + column + at;
                        if let Some(residual) = self.epilogue.residual {
                            let residual = residual.as_ptr().add(place);
                            value = value.add(V::load_some(residual, some));
                        }
                        value.store_some(self.out.add(place), some);
                        at += V::LANES;
                    }
                }
                let out = self.out.add(first * n + column);
                let columns = WIDTH.min(n - column);
                Activate::rows::<V>(self.epilogue.activation, out, n, count, columns);
                first += count;
            }
        }
    }
}

/// Each row's sums are in `CHAINS` parts, which need not wait for each other.
///
/// # Safety
/// As of [`Weights::weigh`].
#[inline(always)]
unsafe fn weigh_rows<V: Vector, N: Number, const COUNT: usize, const CHAINS: usize>(
    a: *const f32,
    stride: usize,
    lines: &[Line],
    k: usize,
    to: &mut [[f32; WIDTH]],
) {
    assert!(size_of_val(lines) >= k * WIDTH * N::BYTES && to.len() >= COUNT);
    let from: *const u8 = lines.as_ptr().cast();
    // SAFETY: the caller's; the numbers are read within their slice.
    unsafe {
        let mut column = 0;
        while column < WIDTH {
            let mut sums = [[[V::splat(0.0); CHAINS]; 2]; COUNT];
            // Not a closure, which would be compiled without the instructions.
            macro_rules! step {
                ($depth:expr, $chain:expr) => {{
                    let at = from.add(($depth * WIDTH + column) * N::BYTES);
                    V::prefetch(at.wrapping_add(4096));
                    let near = N::load::<V>(at);
                    let far = N::load::<V>(at.add(V::LANES * N::BYTES));
                    for row in 0..COUNT {
                        let factor = V::splat(*a.add(row * stride + $depth));
                        let [left, right] = &mut sums[row];
                        left[$chain] = near.fma(factor, left[$chain]);
                        right[$chain] = far.fma(factor, right[$chain]);
                    }
                }};
            }
            let whole = k / CHAINS * CHAINS;
            let mut depth = 0;
            while depth < whole {
                for chain in 0..CHAINS {
                    step!(depth + chain, chain);
                }
                depth += CHAINS;
            }
            for depth in whole..k {
                step!(depth, 0);
            }
            for row in 0..COUNT {
                for side in 0..2 {
                    let mut sum = sums[row][side][0];
                    for chain in 1..CHAINS {
                        sum = sum.add(sums[row][side][chain]);
                    }
                    sum.store(to[row].as_mut_ptr().add(column + side * V::LANES));
                }
            }
            column += 2 * V::LANES;
        }
    }
}
