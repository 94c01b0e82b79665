//! Max pooling of pictures that have their channels last.

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

/// The greatest value of each window for each of the channels: `[batch, height, width, channels]`.
///
/// # Panics
/// Lengths do not fit, or the window has no output.
pub fn max_pool(isa: Isa, window: &Window, channels: usize, pictures: &[f32], out: &mut [f32]) {
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
        let picture = &pictures[line / rows * size..][..size];
        // SAFETY: `isa` is present; the lengths are asserted above.
        unsafe {
            isa.run(Line {
                window,
                channels,
                y: line % rows,
                columns,
                picture: picture.as_ptr(),
                out: out.as_mut_ptr(),
            });
        }
    });
}

/// A row of the output.
struct Line<'a> {
    window: &'a Window,
    channels: usize,
    y: usize,
    columns: usize,
    picture: *const f32,
    out: *mut f32,
}

impl Kernel for Line<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Window {
            input,
            kernel,
            stride,
            padding,
        } = *self.window;
        let reach = |axis: usize, at: usize| {
            let begin = at * stride[axis];
            let end = (begin + kernel[axis]).saturating_sub(padding[axis]);
            begin.saturating_sub(padding[axis])..end.min(input[axis])
        };
        for x in 0..self.columns {
            let mut channel = 0;
            while channel < self.channels {
                let count = (self.channels - channel).min(V::LANES);
                // SAFETY: windows are clipped to the picture.
                unsafe {
                    let mut most = V::splat(f32::NEG_INFINITY);
                    for row in reach(0, self.y) {
                        for column in reach(1, x) {
                            let at = (row * input[1] + column) * self.channels + channel;
                            most = V::load_some(self.picture.add(at), count).max(most);
                        }
                    }
                    let at = x * self.channels + channel;
                    most.store_some(self.out.add(at), count);
                }
                channel += V::LANES;
            }
        }
    }
}
