//! Norms of rows, with what is added to them before.

use rayon::prelude::*;

use crate::simd::{Isa, Kernel, Vector};

/// The parameters of a layer norm.
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm<'a> {
    /// What rows are multiplied by, `[width]`.
    pub gamma: &'a [f32],
    /// What is added then, `[width]`.
    pub beta: Option<&'a [f32]>,
    /// Added to the variance.
    pub epsilon: f32,
}

/// `out = norm(rows + residual)`, each `[rows, width]`.
///
/// # Panics
/// Lengths do not fit.
pub fn layer_norm(
    isa: Isa,
    norm: LayerNorm<'_>,
    rows: &[f32],
    residual: Option<&[f32]>,
    out: &mut [f32],
) {
    let width = norm.gamma.len();
    assert!(norm.beta.is_none_or(|beta| beta.len() == width));
    assert!(rows.len() == out.len() && residual.is_none_or(|other| other.len() == rows.len()));
    if out.is_empty() {
        return;
    }
    assert!(rows.len().is_multiple_of(width), "rows of another width");
    let work = |first: usize, out: &mut [f32]| {
        // SAFETY: `isa` is present, and the lengths are asserted above.
        unsafe {
            isa.run(Rows {
                norm,
                rows: rows.as_ptr().add(first),
                residual: residual.map_or(std::ptr::null(), |rows| rows.as_ptr().add(first)),
                out: out.as_mut_ptr(),
                count: out.len() / width,
            });
        }
    };
    let chunk = (1_usize << 14).div_ceil(width) * width;
    if out.len() <= chunk {
        work(0, out);
    } else {
        let chunks = out.par_chunks_mut(chunk).enumerate();
        chunks.for_each(|(index, out)| work(index * chunk, out));
    }
}

/// `out = (rows + residual) · scale + shift`, each `[rows, width]`: a batch norm by its statistics.
///
/// # Panics
/// Lengths do not fit.
pub fn scale_shift(
    isa: Isa,
    scale: &[f32],
    shift: &[f32],
    rows: &[f32],
    residual: Option<&[f32]>,
    out: &mut [f32],
) {
    let width = scale.len();
    assert!(shift.len() == width);
    assert!(rows.len() == out.len() && residual.is_none_or(|other| other.len() == rows.len()));
    if out.is_empty() {
        return;
    }
    assert!(rows.len().is_multiple_of(width), "rows of another width");
    let chunk = (1_usize << 14).div_ceil(width) * width;
    let chunks = out.par_chunks_mut(chunk).enumerate();
    chunks.for_each(|(index, out)| {
        let first = index * chunk;
        // SAFETY: `isa` is present, and the lengths are asserted above.
        unsafe {
            isa.run(Scaled {
                scale,
                shift,
                rows: rows.as_ptr().add(first),
                residual: residual.map_or(std::ptr::null(), |rows| rows.as_ptr().add(first)),
                out: out.as_mut_ptr(),
                count: out.len() / width,
            });
        }
    });
}

struct Scaled<'a> {
    scale: &'a [f32],
    shift: &'a [f32],
    rows: *const f32,
    residual: *const f32,
    out: *mut f32,
    count: usize,
}

impl Kernel for Scaled<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let width = self.scale.len();
        // SAFETY: `scale_shift` has checked the lengths.
        unsafe {
            for row in 0..self.count {
                let mut at = 0;
                while at < width {
                    let count = (width - at).min(V::LANES);
                    let place = row * width + at;
                    let mut value = V::load_some(self.rows.add(place), count);
                    if !self.residual.is_null() {
                        value = value.add(V::load_some(self.residual.add(place), count));
                    }
                    let scale = V::load_some(self.scale.as_ptr().add(at), count);
                    let shift = V::load_some(self.shift.as_ptr().add(at), count);
                    value
                        .fma(scale, shift)
                        .store_some(self.out.add(place), count);
                    at += V::LANES;
                }
            }
        }
    }
}

struct Rows<'a> {
    norm: LayerNorm<'a>,
    rows: *const f32,
    residual: *const f32,
    out: *mut f32,
    count: usize,
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let width = self.norm.gamma.len();
        let gamma = self.norm.gamma.as_ptr();
        let beta = self.norm.beta.map_or(std::ptr::null(), <[f32]>::as_ptr);
        // SAFETY: `layer_norm` has checked the lengths.
        unsafe {
            for row in 0..self.count {
                let (from, to) = (self.rows.add(row * width), self.out.add(row * width));
                let mut sum = V::splat(0.0);
                let mut at = 0;
                while at < width {
                    let count = (width - at).min(V::LANES);
                    let mut value = V::load_some(from.add(at), count);
                    if !self.residual.is_null() {
                        let residual = self.residual.add(row * width + at);
                        value = value.add(V::load_some(residual, count));
                    }
                    value.store_some(to.add(at), count);
                    sum = sum.add(value);
                    at += V::LANES;
                }
                let mean = V::splat(sum.sum() / width as f32);
                // The row is in the nearest cache: a second pass costs little and cancels nothing.
                let mut squares = V::splat(0.0);
                let mut at = 0;
                while at + V::LANES <= width {
                    let centred = V::load(to.add(at)).sub(mean);
                    squares = centred.fma(centred, squares);
                    at += V::LANES;
                }
                let mut squares = squares.sum();
                for at in at..width {
                    let centred = *to.add(at) - sum.sum() / width as f32;
                    squares += centred * centred;
                }
                let variance = squares / width as f32;
                let factor = V::splat(1.0 / (variance + self.norm.epsilon).sqrt());
                let mut at = 0;
                while at < width {
                    let count = (width - at).min(V::LANES);
                    let centred = V::load_some(to.add(at), count).sub(mean);
                    let gamma = V::load_some(gamma.add(at), count);
                    let scaled = centred.mul(factor);
                    let beta = if beta.is_null() {
                        V::splat(0.0)
                    } else {
                        V::load_some(beta.add(at), count)
                    };
                    scaled.fma(gamma, beta).store_some(to.add(at), count);
                    at += V::LANES;
                }
            }
        }
    }
}
