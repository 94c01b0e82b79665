//! Convolutions of few channels by strides of two, such as a residual network's first, as ones by strides of one
//! over squares of two by two pixels (space to depth).
//!
//! A square is a pixel of 16 channels: those of its pixels, row by row, and zeros. What a row of a kernel meets then
//! lies in one stretch, in whole steps of the tile unit.

use crate::conv::Shape;

/// How a convolution becomes one over squares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Folding {
    /// The kernel's height and width, in squares.
    pub(crate) kernel: [usize; 2],
    /// Squares of zeros above and beside a picture.
    pub(crate) padding: [usize; 2],
}

impl Folding {
    /// Channels of a square.
    pub(crate) const CHANNELS: usize = 16;

    /// `None` where it does not apply.
    pub(crate) fn of(shape: &Shape) -> Option<Self> {
        let padding = shape.padding.map(|padding| padding.div_ceil(2));
        let kernel = [0, 1].map(|axis| {
            let before = 2 * padding[axis] - shape.padding[axis];
            (before + shape.kernel[axis]).div_ceil(2)
        });
        let suits = [shape.stride, shape.dilation] == [[2, 2], [1, 1]]
            && shape.groups == 1
            && (1..=4).contains(&shape.channels[0])
            && shape.kernel.iter().all(|side| *side > 1)
            // Rows of kernels are whole steps.
            && kernel[1].is_multiple_of(2);
        suits.then_some(Self { kernel, padding })
    }

    /// The length of what an output pixel meets.
    pub(crate) fn patch(&self) -> usize {
        self.kernel[0] * self.kernel[1] * Self::CHANNELS
    }

    /// Weights `[outputs, inputs, height, width]` in the order of squares, each output's multiplied by its `scale`.
    pub(crate) fn turned(&self, shape: &Shape, weights: &[f32], scale: Option<&[f32]>) -> Vec<f32> {
        let ([inputs, outputs], [height, width]) = (shape.channels, shape.kernel);
        let before = [0, 1].map(|axis| 2 * self.padding[axis] - shape.padding[axis]);
        let mut turned = vec![0.0; outputs * self.patch()];
        let kernels = weights.chunks_exact(inputs * height * width).enumerate();
        for ((output, from), to) in kernels.zip(turned.chunks_exact_mut(self.patch())) {
            let scale = scale.map_or(1.0, |scale| scale[output]);
            for (index, value) in from.iter().enumerate() {
                let (channel, place) = (index / (height * width), index % (height * width));
                let (y, x) = (before[0] + place / width, before[1] + place % width);
                let square = y / 2 * self.kernel[1] + x / 2;
                let pixel = y % 2 * 2 + x % 2;
                to[square * Self::CHANNELS + pixel * inputs + channel] = scale * value;
            }
        }
        turned
    }
}
