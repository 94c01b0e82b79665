//! Max pooling of pictures as they lie.

use std::cell::RefCell;

use rayon::prelude::*;

use crate::simd::{Isa, Kernel, Vector};

/// Windows over pictures; what is outside never wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Window {
    /// Height and width of the input.
    pub input: [usize; 2],
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    /// Before and after, above and below being alike; less than the kernel.
    pub padding: [usize; 2],
}

impl Window {
    /// Height and width of the output; `None` where no window fits or one would be all padding.
    pub fn output(&self) -> Option<[usize; 2]> {
        let mut output = [0; 2];
        for axis in 0..2 {
            if self.padding[axis] >= self.kernel[axis] || self.input[axis] == 0 {
                return None;
            }
            let room = self.input[axis] + 2 * self.padding[axis];
            output[axis] = room
                .checked_sub(self.kernel[axis])?
                .checked_div(self.stride[axis])?
                + 1;
        }
        Some(output)
    }
}

/// The greatest value of each window of each plane.
///
/// # Panics
/// Lengths do not fit, or the window has no output.
pub fn max_pool(isa: Isa, window: &Window, planes: &[f32], out: &mut [f32]) {
    let output = window.output().unwrap_or_default();
    let (size, out_size) = (window.input[0] * window.input[1], output[0] * output[1]);
    assert!(out_size > 0 && out.len().is_multiple_of(out_size));
    assert_eq!(planes.len(), out.len() / out_size * size);
    let pairs = planes.par_chunks(size).zip(out.par_chunks_mut(out_size));
    pairs.with_min_len(4).for_each(|(plane, out)| {
        ROW.with_borrow_mut(|row| {
            row.clear();
            row.resize(window.input[1] + 2 * window.padding[1], f32::NEG_INFINITY);
            // SAFETY: `isa` is present; the lengths are asserted above.
            unsafe {
                isa.run(Plane {
                    window,
                    output,
                    plane: plane.as_ptr(),
                    row: row.as_mut_ptr(),
                    out: out.as_mut_ptr(),
                });
            }
        });
    });
}

thread_local! {
    static ROW: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

struct Plane<'a> {
    window: &'a Window,
    output: [usize; 2],
    plane: *const f32,
    /// As wide as the input with its padding.
    row: *mut f32,
    out: *mut f32,
}

impl Kernel for Plane<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Window {
            input,
            kernel,
            stride,
            padding,
        } = *self.window;
        let [height, width] = input;
        // SAFETY: windows are clipped to the picture, and the row has room for the padding.
        unsafe {
            for y in 0..self.output[0] {
                let start = (y * stride[0]).saturating_sub(padding[0]);
                let end = (y * stride[0] + kernel[0])
                    .saturating_sub(padding[0])
                    .min(height);
                let mut x = 0;
                while x < width {
                    let count = (width - x).min(V::LANES);
                    let mut most = V::splat(f32::NEG_INFINITY);
                    for row in start..end {
                        most = V::load_some(self.plane.add(row * width + x), count).max(most);
                    }
                    most.store_some(self.row.add(padding[1] + x), count);
                    x += V::LANES;
                }
                let out = self.out.add(y * self.output[1]);
                let mut x = 0;
                while x < self.output[1] {
                    let count = (self.output[1] - x).min(V::LANES);
                    let mut most = V::splat(f32::NEG_INFINITY);
                    for tap in 0..kernel[1] {
                        let from = self.row.add(x * stride[1] + tap);
                        most = V::load_apart(from, stride[1], count).max(most);
                    }
                    most.store_some(out.add(x), count);
                    x += V::LANES;
                }
            }
        }
    }
}
