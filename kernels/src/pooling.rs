//! Max pooling of pictures that have their channels last.

use std::ops::Range;

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

    /// What an output's window covers of the input.
    fn reach(&self, axis: usize, at: usize) -> Range<usize> {
        let begin = at * self.stride[axis];
        let end = (begin + self.kernel[axis]).saturating_sub(self.padding[axis]);
        begin.saturating_sub(self.padding[axis])..end.min(self.input[axis])
    }
}

/// The greatest value of each window for each of the channels: `[batch, height, width, channels]`.
///
/// # Panics
/// Lengths do not fit, or the window has no output.
pub fn max_pool(isa: Isa, window: &Window, channels: usize, pictures: &[f32], out: &mut [f32]) {
    for_lines(window, channels, pictures, out, |picture, y, out| {
        // SAFETY: `isa` is present; lengths are those of a picture and of a line.
        unsafe {
            isa.run(Line {
                window,
                channels,
                y,
                picture,
                out,
            });
        }
    });
}

/// The same of bf16, as its bits.
///
/// # Panics
/// As [`max_pool`].
pub fn max_pool_bf16(
    isa: Isa,
    window: &Window,
    channels: usize,
    pictures: &[u16],
    out: &mut [u16],
) {
    for_lines(window, channels, pictures, out, |picture, y, out| {
        // SAFETY: `isa` is present.
        unsafe {
            isa.run(LineOfBf16 {
                window,
                channels,
                y,
                picture,
                out,
            });
        }
    });
}

/// Calls `each` with the picture, the number and the place of every row of the output.
fn for_lines<T: Send + Sync>(
    window: &Window,
    channels: usize,
    pictures: &[T],
    out: &mut [T],
    each: impl Fn(&[T], usize, &mut [T]) + Sync,
) {
    if out.is_empty() {
        return;
    }
    let [rows, columns] = window.output().unwrap_or_default();
    let size = window.input[0] * window.input[1] * channels;
    assert!(rows > 0 && out.len().is_multiple_of(rows * columns * channels));
    assert_eq!(
        pictures.len(),
        out.len() / (rows * columns * channels) * size
    );
    let lines = out.par_chunks_mut(columns * channels).enumerate();
    lines.with_min_len(4).for_each(|(line, out)| {
        each(&pictures[line / rows * size..][..size], line % rows, out);
    });
}

/// A row of the output.
struct Line<'a> {
    window: &'a Window,
    channels: usize,
    y: usize,
    picture: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Line<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let width = self.window.input[1];
        let (picture, out) = (self.picture.as_ptr(), self.out.as_mut_ptr());
        for x in 0..self.out.len() / self.channels {
            let mut channel = 0;
            while channel < self.channels {
                let count = (self.channels - channel).min(V::LANES);
                // SAFETY: windows are clipped to the picture.
                unsafe {
                    let mut most = V::splat(f32::NEG_INFINITY);
                    for row in self.window.reach(0, self.y) {
                        for column in self.window.reach(1, x) {
                            let at = (row * width + column) * self.channels + channel;
                            most = V::load_some(picture.add(at), count).max(most);
                        }
                    }
                    let at = x * self.channels + channel;
                    most.store_some(out.add(at), count);
                }
                channel += V::LANES;
            }
        }
    }
}

/// The same of bf16.
struct LineOfBf16<'a> {
    window: &'a Window,
    channels: usize,
    y: usize,
    picture: &'a [u16],
    out: &'a mut [u16],
}

impl Kernel for LineOfBf16<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        const LEAST: u16 = 0xff80;
        let width = self.window.input[1];
        for (x, out) in self.out.chunks_exact_mut(self.channels).enumerate() {
            out.fill(ordered(LEAST) as u16);
            for row in self.window.reach(0, self.y) {
                for column in self.window.reach(1, x) {
                    let at = (row * width + column) * self.channels;
                    let pixel = &self.picture[at..][..self.channels];
                    for (most, value) in out.iter_mut().zip(pixel) {
                        *most = (*most as i16).max(ordered(*value)) as u16;
                    }
                }
            }
            for most in out {
                *most = ordered(*most) as u16;
            }
        }
    }
}

/// An integer that is greater where the bf16 of these bits is; and the other way.
#[inline(always)]
fn ordered(bits: u16) -> i16 {
    let bits = bits as i16;
    bits ^ (bits >> 15 & 0x7fff)
}
