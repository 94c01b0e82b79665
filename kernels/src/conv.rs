//! Convolutions with bias, residual and activation in one pass: products of the patches of pictures, which are
//! never stored, and packed weights.
//!
//! Pictures have their channels last, so that a patch is a few stretches of memory and an output pixel a row
//! of the product.

use std::ops::Range;

use crate::activation::Activation;
use crate::folding::Folding;
use crate::gemm::{Epilogue, Packed, Rows, Stored, View, multiply, multiply_rows};
use crate::narrow::{self, Ending, Narrow, Numbers, NumbersMut, Precision, Unit};
use crate::simd::{Isa, Vector};
use crate::winograd::{self, Evaluated};

/// The settings of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Convolution {
    pub stride: [usize; 2],
    /// Zeros before and after, above and below being alike.
    pub padding: [usize; 2],
    pub dilation: [usize; 2],
    pub groups: usize,
}

/// The shape of a convolution in one or two dimensions; in one, heights are 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Shape {
    pub batch: usize,
    pub groups: usize,
    /// Channels of the input and of the output, of all groups.
    pub channels: [usize; 2],
    /// Height and width of the input.
    pub input: [usize; 2],
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    /// Zeros before and after, above and below being alike.
    pub padding: [usize; 2],
    pub dilation: [usize; 2],
}

impl Shape {
    /// Height and width of the output; `None` where the kernel does not fit or a stride is zero.
    pub fn output(&self) -> Option<[usize; 2]> {
        let mut output = [0; 2];
        for axis in 0..2 {
            let reach = self.dilation[axis] * self.kernel[axis].checked_sub(1)? + 1;
            let room = (self.input[axis] + 2 * self.padding[axis]).checked_sub(reach)?;
            output[axis] = room.checked_div(self.stride[axis])? + 1;
        }
        Some(output)
    }

    /// Shapes of one number share laid out weights, if all but batch and input is the same.
    #[cfg(feature = "flex")]
    pub(crate) fn layout(&self) -> [usize; 3] {
        // How squares lie on pixels depends on the padding.
        let odd = self.padding[0] % 2 + 2 * (self.padding[1] % 2);
        let folding = Folding::of(self).map_or(0, |_| 1 + odd);
        [self.groups, usize::from(winograd::suits(self)), folding]
    }

    /// Whether patches are the pixels as they lie.
    fn pixels(&self) -> bool {
        self.kernel == [1; 2] && self.stride == [1; 2] && self.padding == [0; 2]
    }

    /// The length of a patch.
    fn patch(&self) -> usize {
        self.channels[0] / self.groups * self.kernel[0] * self.kernel[1]
    }
}

/// The weights of a convolution, laid out for its shape.
#[derive(Debug)]
pub struct Weights(Layout);

#[derive(Debug)]
enum Layout {
    /// As long as patches, a matrix for each group.
    Patches(Vec<Packed>),
    Winograd(Evaluated),
    Narrow(Narrow, Option<Folding>),
}

impl Weights {
    /// Lays out `[outputs, inputs / groups, height, width]`, each output's multiplied by its `scale`.
    ///
    /// # Panics
    /// The weights or scales are of another length.
    pub fn new(isa: Isa, shape: &Shape, weights: &[f32], scale: Option<&[f32]>) -> Self {
        let (outputs, patch) = (shape.channels[1] / shape.groups, shape.patch());
        assert_eq!(weights.len(), shape.groups * outputs * patch);
        assert!(scale.is_none_or(|scale| scale.len() == shape.channels[1]));
        if winograd::suits(shape) {
            return Self(Layout::Winograd(Evaluated::new(isa, shape, weights, scale)));
        }
        let groups = weights.chunks_exact((outputs * patch).max(1)).enumerate();
        let groups = groups.map(|(group, weights)| {
            let scale = scale.map(|scale| &scale[group * outputs..][..outputs]);
            Packed::new(isa, view(&turned(shape, weights, scale), patch))
        });
        Self(Layout::Patches(groups.collect()))
    }

    /// Whether pictures may be of bf16, before and after.
    pub fn takes_bf16(&self) -> bool {
        matches!(&self.0, Layout::Narrow(narrow, _) if narrow.takes_bf16())
    }

    /// The same in fewer bits, for one group; `None` in f32, and where the CPU has no unit for it.
    ///
    /// # Panics
    /// As [`new`](Self::new), or the unit is not present.
    pub fn narrow(
        precision: Precision,
        unit: Unit,
        shape: &Shape,
        weights: &[f32],
        scale: Option<&[f32]>,
    ) -> Option<Self> {
        let (outputs, patch) = (shape.channels[1], shape.patch());
        let widened = matches!(unit.at(precision, patch), Unit::Widened(_));
        if shape.groups != 1 || patch == 0 || widened {
            return None;
        }
        assert_eq!(weights.len(), outputs * patch);
        assert!(scale.is_none_or(|scale| scale.len() == outputs));
        let tiles = precision == Precision::Bf16 && unit == Unit::Tiles;
        let folding = Folding::of(shape).filter(|_| tiles);
        let (turned, patch) = match folding {
            Some(folding) => (folding.turned(shape, weights, scale), folding.patch()),
            None => (turned(shape, weights, scale), patch),
        };
        let narrow = Narrow::new(precision, unit, view(&turned, patch))?;
        Some(Self(Layout::Narrow(narrow, folding)))
    }

    /// Those of fewer bits, if they are laid out for the shape, and how its pixels become squares.
    fn narrow_for(&self, shape: &Shape) -> Option<(&Narrow, Option<Folding>)> {
        let Layout::Narrow(narrow, folding) = &self.0 else {
            return None;
        };
        let patch = match folding {
            Some(folding) if Folding::of(shape) != Some(*folding) => return None,
            Some(folding) => folding.patch(),
            None => shape.patch(),
        };
        let fits = narrow.shape() == [patch, shape.channels[1]] && shape.groups == 1;
        fits.then_some((narrow, *folding))
    }
}

/// Weights in the order of patches of pictures whose channels are last.
fn turned(shape: &Shape, weights: &[f32], scale: Option<&[f32]>) -> Vec<f32> {
    let patch = shape.patch().max(1);
    let places = shape.kernel[0] * shape.kernel[1];
    let channels = patch / places.max(1);
    let mut turned = vec![0.0; weights.len()];
    let outputs = weights.chunks_exact(patch).enumerate();
    for ((output, from), to) in outputs.zip(turned.chunks_exact_mut(patch)) {
        let scale = scale.map_or(1.0, |scale| scale[output]);
        for place in 0..places {
            for channel in 0..channels {
                to[place * channels + channel] = scale * from[channel * places + place];
            }
        }
    }
    turned
}

/// Rows of weights as the columns of a matrix.
fn view(weights: &[f32], patch: usize) -> View<'_> {
    View {
        data: Stored::F32(weights),
        shape: [patch, weights.len() / patch.max(1)],
        strides: [1, patch],
    }
}

/// `act(weights ∗ input + bias + residual)`: `input` is `[batch, height, width, channels]`, `bias` one for
/// each output channel, `residual` and `out` are shaped as the output, channels last too.
///
/// # Panics
/// Lengths do not fit, or the weights are laid out for another shape.
pub fn convolve(
    shape: &Shape,
    input: &[f32],
    weights: &Weights,
    epilogue: Epilogue<'_>,
    out: &mut [f32],
) {
    let output = shape.output().unwrap_or_default();
    let [inputs, outputs] = shape.channels;
    let groups = shape.groups;
    assert!(inputs.is_multiple_of(groups) && outputs.is_multiple_of(groups));
    assert_eq!(
        input.len(),
        shape.batch * inputs * shape.input[0] * shape.input[1]
    );
    assert_eq!(out.len(), shape.batch * outputs * output[0] * output[1]);
    if out.is_empty() {
        return;
    }
    let weights = match &weights.0 {
        Layout::Patches(weights) => weights,
        Layout::Winograd(weights) => {
            assert!(weights.fits(shape), "weights of another shape");
            return weights.convolve(shape, input, epilogue, out);
        }
        Layout::Narrow(narrow, _) if shape.pixels() => {
            return narrow::multiply(input, narrow, epilogue, out);
        }
        Layout::Narrow(..) => {
            let (input, out) = (Numbers::F32(input), NumbersMut::F32(out));
            return convolve_narrow(shape, output, input, weights, epilogue.into(), out);
        }
    };
    let packed = [shape.patch(), outputs / groups];
    assert!(
        weights.len() == groups && weights.iter().all(|weights| weights.shape() == packed),
        "weights of another shape"
    );
    for (group, weights) in weights.iter().enumerate() {
        let first = group * outputs / groups;
        if shape.pixels() && groups == 1 {
            multiply(input, weights, epilogue, out);
            continue;
        }
        let patches = Floats {
            patches: Patches {
                shape: *shape,
                output,
                folding: None,
            },
            input: input.as_ptr().wrapping_add(group * inputs / groups),
        };
        // SAFETY: there is a patch for each pixel of the output, as long as the weights are deep.
        unsafe { multiply_rows(patches, weights, first, outputs, epilogue, out) };
    }
}

/// The same of pictures of which some are bf16.
///
/// # Panics
/// As [`convolve`], or the weights [do not take them](Weights::takes_bf16).
pub fn convolve_bf16(
    shape: &Shape,
    input: Numbers<'_>,
    weights: &Weights,
    bias: Option<&[f32]>,
    residual: Option<Numbers<'_>>,
    activation: Activation,
    out: NumbersMut<'_>,
) {
    let output = shape.output().unwrap_or_default();
    if shape.batch * output[0] * output[1] == 0 {
        return;
    }
    let ending = Ending {
        bias,
        residual,
        activation,
    };
    convolve_narrow(shape, output, input, weights, ending, out);
}

fn convolve_narrow(
    shape: &Shape,
    output: [usize; 2],
    input: Numbers<'_>,
    weights: &Weights,
    ending: Ending<'_>,
    out: NumbersMut<'_>,
) {
    let fitting = weights.narrow_for(shape);
    assert!(fitting.is_some(), "weights of another shape");
    if let Some((weights, folding)) = fitting {
        let patches = Patches {
            shape: *shape,
            output,
            folding,
        };
        narrow::multiply_patches(patches, input, weights, ending, out);
    }
}

/// The patches of pictures as the rows of a matrix: `[batch · height · width, kernel · channels]`.
#[derive(Clone, Copy)]
pub(crate) struct Patches {
    pub(crate) shape: Shape,
    /// Height and width.
    pub(crate) output: [usize; 2],
    /// How pixels become squares, for which the weights are laid out.
    pub(crate) folding: Option<Folding>,
}

impl Patches {
    /// How many there are of a picture.
    pub(crate) fn of_picture(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Whether they are the pixels, one after the other.
    pub(crate) fn are_pixels(&self) -> bool {
        let shape = &self.shape;
        let ones = [shape.kernel, shape.stride] == [[1, 1]; 2];
        ones && shape.padding == [0, 0] && shape.groups == 1
    }

    /// Calls `each` with what a part of a patch consists of, one after the other: where in the pictures a
    /// stretch begins, or `None` for zeros beside a picture, and its length.
    #[inline(always)]
    pub(crate) fn stretches(
        &self,
        row: usize,
        part: Range<usize>,
        mut each: impl FnMut(Option<usize>, usize),
    ) {
        let shape = &self.shape;
        let [height, width] = self.output;
        let all = shape.channels[0];
        let channels = all / shape.groups;
        let (batch, y, x) = (row / (height * width), row / width % height, row % width);
        // Pixels beside one another in the picture and the patch are one stretch.
        let together = if shape.dilation[1] == 1 && shape.groups == 1 {
            shape.kernel[1]
        } else {
            1
        };
        let length = together * channels;
        let (place, mut begin) = (part.start / length * together, part.start % length);
        let (mut ky, mut kx) = (place / shape.kernel[1], place % shape.kernel[1]);
        let mut rest = part.len();
        while rest > 0 {
            let end = length.min(begin + rest);
            let top = (y * shape.stride[0] + ky * shape.dilation[0]).wrapping_sub(shape.padding[0]);
            let left = x * shape.stride[1] + kx * shape.dilation[1];
            // Of the stretch, what is inside the picture.
            let (mut from, mut until) = (0, 0);
            if top < shape.input[0] {
                let pixels = |column: usize| column.saturating_sub(left).min(together) * channels;
                from = pixels(shape.padding[1]).clamp(begin, end);
                until = pixels(shape.padding[1] + shape.input[1]).clamp(from, end);
            }
            if until == from {
                (from, until) = (begin, begin);
            }
            each(None, from - begin);
            if until > from {
                let pixel = (batch * shape.input[0] + top) * shape.input[1] + left;
                let at = (pixel * all + from).wrapping_sub(shape.padding[1] * all);
                each(Some(at), until - from);
            }
            each(None, end - until);
            rest -= end - begin;
            begin = 0;
            kx += together;
            if kx == shape.kernel[1] {
                (ky, kx) = (ky + 1, 0);
            }
        }
    }
}

/// Patches of f32.
#[derive(Clone, Copy)]
struct Floats {
    patches: Patches,
    /// The first channel of the group.
    input: *const f32,
}

// SAFETY: it is only read, while `convolve` holds the input.
unsafe impl Send for Floats {}
// SAFETY: as above.
unsafe impl Sync for Floats {}

impl Rows for Floats {
    #[inline(always)]
    unsafe fn copy<V: Vector>(&self, row: usize, part: Range<usize>, mut to: *mut f32) {
        self.patches.stretches(row, part, |from, count| {
            // SAFETY: stretches are inside the pictures, and the caller has room for all of them.
            unsafe {
                match from {
                    Some(from) => copy_short::<V>(self.input.wrapping_add(from), to, count),
                    None => fill::<V>(to, count),
                }
                to = to.add(count);
            }
        });
    }
}

/// Copies a few vectors of floats, for which a call would take longer.
#[inline(always)]
unsafe fn copy_short<V: Vector>(from: *const f32, to: *mut f32, count: usize) {
    let mut at = 0;
    // SAFETY: the caller's.
    unsafe {
        while at + V::LANES <= count {
            V::load(from.add(at)).store(to.add(at));
            at += V::LANES;
        }
        if at < count {
            V::load_some(from.add(at), count - at).store_some(to.add(at), count - at);
        }
    }
}

/// Writes `count` zeros.
#[inline(always)]
unsafe fn fill<V: Vector>(to: *mut f32, count: usize) {
    let mut at = 0;
    // SAFETY: the caller's.
    unsafe {
        while at < count {
            V::splat(0.0).store_some(to.add(at), (count - at).min(V::LANES));
            at += V::LANES;
        }
    }
}
