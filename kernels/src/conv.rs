//! Convolutions with bias, residual and activation in one pass, over pictures as they lie.
//!
//! A convolution is the product of its weights, `[out, in · kernel]`, and the patches of the picture,
//! `[in · kernel, pixels]`, which are gathered a few pixels at a time. Where pictures are large and weights
//! small, vectors run along the pixels and a panel of patches meets all weights. Where pictures are small
//! and weights large, vectors run along the outputs, and each panel of weights meets all patches.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use crate::activation::{Activate, Activation};
use crate::aligned::Aligned;
use crate::gemm::{Ahead, Packed, Shared, Tile, View};
use crate::simd::{Isa, Kernel, Vector};

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

    /// The same with a picture's rows as one, where each output pixel comes from the input pixel in its place.
    fn flat(&self) -> Option<Self> {
        let alike = self.kernel == [1; 2] && self.stride == [1; 2] && self.padding == [0; 2];
        alike.then(|| Self {
            input: [1, self.input[0] * self.input[1]],
            ..*self
        })
    }

    /// The length of a patch.
    fn patch(&self) -> usize {
        self.channels[0] / self.groups * self.kernel[0] * self.kernel[1]
    }

    /// Whether weights are so many that vectors run along the outputs.
    pub(crate) fn by_output(&self) -> bool {
        let [height, width] = self.output().unwrap_or_default();
        let outputs = self.channels[1] / self.groups;
        height * width <= 256 && outputs >= 64
    }
}

/// The weights of a convolution, laid out for its shape.
#[derive(Debug)]
pub struct Weights {
    layout: Layout,
    isa: Isa,
    by_output: bool,
    /// Outputs of a group, and the length of a patch.
    shape: [usize; 2],
    groups: usize,
}

#[derive(Debug)]
enum Layout {
    /// For each group panels of outputs.
    Panels(Vec<Packed>),
    /// For each group, for each tile of outputs, the outputs' weights side by side.
    Tiles(Aligned),
}

impl Weights {
    /// Lays out `[outputs, patch]`, row after row.
    ///
    /// # Panics
    /// The weights are of another length.
    pub fn new(isa: Isa, shape: &Shape, weights: &[f32]) -> Self {
        let (outputs, patch) = (shape.channels[1] / shape.groups, shape.patch());
        assert_eq!(weights.len(), shape.groups * outputs * patch);
        let by_output = shape.by_output();
        let groups = weights.chunks(outputs * patch).take(shape.groups);
        let layout = if by_output {
            let pack = |data| {
                let view = View {
                    data,
                    shape: [patch, outputs],
                    strides: [1, patch],
                };
                Packed::new(isa, view)
            };
            Layout::Panels(groups.map(pack).collect())
        } else {
            let mut tiles = Aligned::zeros(weights.len());
            for (group, from) in groups.enumerate() {
                for tile in Tiles::new(outputs, isa.rows()).iter() {
                    let start = (group * outputs + tile.start) * patch;
                    for (row, output) in tile.clone().enumerate() {
                        for k in 0..patch {
                            tiles[start + k * tile.len() + row] = from[output * patch + k];
                        }
                    }
                }
            }
            Layout::Tiles(tiles)
        };
        Self {
            layout,
            isa,
            by_output,
            shape: [outputs, patch],
            groups: shape.groups,
        }
    }

    /// Whether the layout is the one for `shape`.
    pub fn fits(&self, shape: &Shape) -> bool {
        let outputs = shape.channels[1] / shape.groups.max(1);
        self.by_output == shape.by_output()
            && self.groups == shape.groups
            && self.shape == [outputs, shape.patch()]
    }
}

/// A count cut into parts of at most `most`, as alike as can be.
struct Tiles {
    count: usize,
    parts: usize,
}

impl Tiles {
    fn new(count: usize, most: usize) -> Self {
        Self {
            count,
            parts: count.div_ceil(most),
        }
    }

    fn get(&self, index: usize) -> Range<usize> {
        index * self.count / self.parts..(index + 1) * self.count / self.parts
    }

    fn iter(&self) -> impl Iterator<Item = Range<usize>> {
        (0..self.parts).map(|index| self.get(index))
    }
}

/// `act(weights ∗ input + bias + residual)`: `input` is `[batch, channels, height, width]`, `bias` one for
/// each output channel, `residual` and `out` are shaped as the output.
///
/// # Panics
/// Lengths do not fit, or the weights are laid out for another shape.
pub fn convolve(
    shape: &Shape,
    input: &[f32],
    weights: &Weights,
    bias: Option<&[f32]>,
    residual: Option<&[f32]>,
    activation: Activation,
    out: &mut [f32],
) {
    assert!(weights.fits(shape), "weights of another shape");
    let [height, width] = shape.output().unwrap_or_default();
    let [inputs, outputs] = shape.channels;
    assert!(inputs.is_multiple_of(shape.groups) && outputs.is_multiple_of(shape.groups));
    assert_eq!(
        input.len(),
        shape.batch * inputs * shape.input[0] * shape.input[1]
    );
    assert_eq!(out.len(), shape.batch * outputs * height * width);
    assert!(bias.is_none_or(|bias| bias.len() == outputs));
    assert!(residual.is_none_or(|residual| residual.len() == out.len()));
    if out.is_empty() {
        return;
    }
    let flat = shape.flat();
    let shape = flat.as_ref().unwrap_or(shape);
    let [rows, columns] = shape.output().unwrap_or_default();
    let work = Work {
        shape,
        input,
        weights,
        bias,
        residual,
        activation,
        out: Shared(out.as_mut_ptr()),
        pixels: rows * columns,
        columns,
        patch: shape.patch(),
        outputs: outputs / shape.groups,
        taps: Taps::new(shape, columns),
    };
    match &weights.layout {
        Layout::Tiles(tiles) => work.along_pixels(tiles),
        Layout::Panels(panels) => work.along_outputs(panels),
    }
}

/// For each place in the kernel, which output columns have an input pixel there.
struct Taps(Vec<Tap>);

struct Tap {
    /// Of the input row, against the output row times the stride less the padding.
    row: usize,
    /// Output columns whose input column is in the picture.
    columns: Range<usize>,
    /// The input column of the first of them.
    first: usize,
}

impl Taps {
    fn new(shape: &Shape, columns: usize) -> Self {
        let mut taps = Vec::with_capacity(shape.kernel[0] * shape.kernel[1]);
        let (stride, padding) = (shape.stride[1], shape.padding[1]);
        for y in 0..shape.kernel[0] {
            for x in 0..shape.kernel[1] {
                let offset = x * shape.dilation[1];
                let start = padding.saturating_sub(offset).div_ceil(stride).min(columns);
                let end = (shape.input[1] + padding)
                    .saturating_sub(offset)
                    .div_ceil(stride);
                let end = end.clamp(start, columns);
                taps.push(Tap {
                    row: y * shape.dilation[0],
                    columns: start..end,
                    first: (start * stride + offset).saturating_sub(padding),
                });
            }
        }
        Self(taps)
    }
}

struct Work<'a> {
    shape: &'a Shape,
    input: &'a [f32],
    weights: &'a Weights,
    bias: Option<&'a [f32]>,
    residual: Option<&'a [f32]>,
    activation: Activation,
    out: Shared,
    /// Of an output picture.
    pixels: usize,
    /// Of an output row.
    columns: usize,
    patch: usize,
    /// Of a group.
    outputs: usize,
    taps: Taps,
}

thread_local! {
    static SCRATCH: RefCell<Aligned> = RefCell::default();
}

impl Work<'_> {
    fn along_pixels(&self, weights: &[f32]) {
        let isa = self.weights.isa;
        let width = 2 * isa.lanes();
        let panels = self.pixels.div_ceil(width);
        let all = self.shape.batch * self.shape.groups;
        let task = |index: usize| {
            let (picture, panel) = (index / panels, index % panels);
            let first = panel * width;
            SCRATCH.with_borrow_mut(|scratch| {
                scratch.reserve(self.patch * width);
                // SAFETY: `isa` is present; `convolve` has checked all lengths; no two tasks share a pixel
                // of a group of a picture.
                unsafe {
                    isa.run(Pixels {
                        work: self,
                        weights,
                        batch: picture / self.shape.groups,
                        group: picture % self.shape.groups,
                        pixels: first..(first + width).min(self.pixels),
                        patches: scratch.as_mut_ptr(),
                    });
                }
            });
        };
        (0..all * panels).into_par_iter().for_each(task);
    }

    fn along_outputs(&self, weights: &[Packed]) {
        let isa = self.weights.isa;
        let tiles = Tiles::new(self.pixels, isa.rows());
        let groups = self.shape.groups;
        let size = self.pixels * self.patch;
        let mut patches = SCRATCH.take();
        patches.reserve(self.shape.batch * groups * size);
        let shared = Shared(patches.as_mut_ptr());
        let gather = |index: usize| {
            let (picture, tile) = (index / tiles.parts, index % tiles.parts);
            let pixels = tiles.get(tile);
            // SAFETY: `isa` is present; no two tasks share a tile of a picture, and all of them fit.
            unsafe {
                let to = shared.get().add(picture * size + pixels.start * self.patch);
                isa.run(Gather {
                    work: self,
                    batch: picture / groups,
                    group: picture % groups,
                    stride: pixels.len(),
                    pixels,
                    to,
                });
            }
        };
        (0..self.shape.batch * groups * tiles.parts)
            .into_par_iter()
            .for_each(gather);
        // Panels that stay in the second cache, and pictures that use them one after the other.
        let threads = rayon::current_num_threads();
        let panels = self.outputs.div_ceil(2 * isa.lanes());
        let most = ((1 << 18) / (2 * isa.lanes() * self.patch).max(1)).max(1);
        let wanted = (2 * threads).div_ceil(self.shape.batch * groups);
        let sets = Tiles::new(panels, most.min(panels.div_ceil(wanted)));
        let blocks = (2 * threads).div_ceil(sets.parts * groups);
        let blocks = Tiles::new(self.shape.batch, self.shape.batch.div_ceil(blocks));
        let task = |index: usize| {
            let (block, set) = (index / sets.parts / groups, index % sets.parts);
            let group = index / sets.parts % groups;
            for batch in blocks.get(block) {
                // SAFETY: `isa` is present; `convolve` has checked all lengths; the patches are gathered;
                // no two tasks share an output of a picture.
                unsafe {
                    isa.run(Outputs {
                        work: self,
                        weights: &weights[group],
                        batch,
                        group,
                        panels: sets.get(set),
                        tiles: &tiles,
                        patches: shared.get().add((batch * groups + group) * size),
                    });
                }
            }
        };
        (0..blocks.parts * groups * sets.parts)
            .into_par_iter()
            .with_max_len(1)
            .for_each(task);
        SCRATCH.set(patches);
    }
}

/// Gathers the patches of some pixels: `[patch, stride]`.
struct Gather<'a> {
    work: &'a Work<'a>,
    batch: usize,
    group: usize,
    pixels: Range<usize>,
    stride: usize,
    to: *mut f32,
}

impl Kernel for Gather<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Work { shape, columns, .. } = *self.work;
        let [height, width] = shape.input;
        let inputs = shape.channels[0] / shape.groups;
        let plane = height * width;
        let start = (self.batch * shape.channels[0] + self.group * inputs) * plane;
        let places = self.work.taps.0.len();
        // SAFETY: taps and rows are inside the picture, and the patches fit `to`.
        unsafe {
            let from = self.work.input.as_ptr().add(start);
            for (place, tap) in self.work.taps.0.iter().enumerate() {
                let mut pixel = self.pixels.start;
                while pixel < self.pixels.end {
                    // The pixels of one output row.
                    let (y, x) = (pixel / columns, pixel % columns);
                    let count = (columns - x).min(self.pixels.end - pixel);
                    let at = pixel - self.pixels.start;
                    let row = y * shape.stride[0] + tap.row;
                    let inside = row >= shape.padding[0] && row - shape.padding[0] < height;
                    let begin = tap.columns.start.clamp(x, x + count);
                    let end = if inside {
                        tap.columns.end.clamp(begin, x + count)
                    } else {
                        begin
                    };
                    let begin = if inside { begin } else { x };
                    let end = if inside { end } else { x };
                    let source = if inside && end > begin {
                        let column = tap.first + (begin - tap.columns.start) * shape.stride[1];
                        from.add((row - shape.padding[0]) * width + column)
                    } else {
                        from
                    };
                    let last_row = place + shape.kernel[1] == places;
                    for channel in 0..inputs {
                        let to = self.to.add((channel * places + place) * self.stride + at);
                        fill::<V>(to, begin - x);
                        if last_row {
                            // What the next pixels need of this channel.
                            let next =
                                source.wrapping_add(channel * plane + count * shape.stride[1]);
                            V::prefetch(next.cast());
                            V::prefetch(next.wrapping_add(V::LANES).cast());
                        }
                        let source = source.wrapping_add(channel * plane);
                        let to_inside = to.add(begin - x);
                        let length = end - begin;
                        if shape.stride[1] == 1 && length == 2 * V::LANES {
                            V::load(source).store(to_inside);
                            V::load(source.add(V::LANES)).store(to_inside.add(V::LANES));
                            continue;
                        }
                        let mut done = 0;
                        while done < length {
                            let some = (length - done).min(V::LANES);
                            let values = if shape.stride[1] == 1 {
                                V::load_some(source.add(done), some)
                            } else {
                                V::load_apart(
                                    source.add(done * shape.stride[1]),
                                    shape.stride[1],
                                    some,
                                )
                            };
                            values.store_some(to_inside.add(done), some);
                            done += V::LANES;
                        }
                        fill::<V>(to.add(end - x), x + count - end);
                    }
                    pixel += count;
                }
            }
        }
    }
}

/// Writes `count` zeros.
#[inline(always)]
unsafe fn fill<V: Vector>(to: *mut f32, count: usize) {
    // SAFETY: the caller's.
    unsafe {
        let mut at = 0;
        while at < count {
            V::splat(0.0).store_some(to.add(at), (count - at).min(V::LANES));
            at += V::LANES;
        }
    }
}

/// All outputs of a group at a panel of pixels.
struct Pixels<'a> {
    work: &'a Work<'a>,
    weights: &'a [f32],
    batch: usize,
    group: usize,
    pixels: Range<usize>,
    patches: *mut f32,
}

impl Kernel for Pixels<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let work = self.work;
        let width = 2 * V::LANES;
        let columns = self.pixels.len();
        // SAFETY: as `along_pixels` says.
        unsafe {
            Gather {
                work,
                batch: self.batch,
                group: self.group,
                pixels: self.pixels.clone(),
                stride: width,
                to: self.patches,
            }
            .run::<V>();
            let first = self.group * work.outputs;
            for tile in Tiles::new(work.outputs, work.weights.isa.rows()).iter() {
                let output = first + tile.start;
                let at = (self.batch * work.shape.channels[1] + output) * work.pixels;
                let at = at + self.pixels.start;
                let out = work.out.get().add(at);
                let a = self.weights.as_ptr().add(output * work.patch);
                Tile {
                    a,
                    a_stride: 1,
                    a_step: tile.len(),
                    b: self.patches,
                    b_stride: width,
                    k: work.patch,
                    ahead: Ahead::further(a, tile.len() * size_of::<f32>()),
                    columns,
                    bias: work
                        .bias
                        .map_or(std::ptr::null(), |bias| bias.as_ptr().add(output)),
                    row_bias: true,
                    relu: work.activation == Activation::Relu,
                    residual: match work.residual {
                        Some(residual) => residual.as_ptr().add(at),
                        None => std::ptr::null(),
                    },
                    out,
                    out_stride: work.pixels,
                }
                .run_rows::<V>(tile.len());
                if !matches!(work.activation, Activation::None | Activation::Relu) {
                    for row in 0..tile.len() {
                        let out = out.add(row * work.pixels);
                        Activate {
                            activation: work.activation,
                            from: out,
                            to: out,
                            count: columns,
                        }
                        .run::<V>();
                    }
                }
            }
        }
    }
}

/// Some panels of outputs at all pixels of a picture.
struct Outputs<'a> {
    work: &'a Work<'a>,
    weights: &'a Packed,
    batch: usize,
    group: usize,
    panels: Range<usize>,
    tiles: &'a Tiles,
    patches: *const f32,
}

impl Kernel for Outputs<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        // SAFETY: as `along_outputs` says.
        unsafe {
            for (index, tile) in self.tiles.iter().enumerate() {
                for panel in self.panels.clone() {
                    self.tile::<V>(panel, index, tile.clone());
                }
            }
        }
    }
}

impl Outputs<'_> {
    #[inline(always)]
    unsafe fn tile<V: Vector>(&self, panel: usize, index: usize, pixels: Range<usize>) {
        let work = self.work;
        let width = 2 * V::LANES;
        let first = panel * width;
        let columns = width.min(work.outputs - first);
        let output = self.group * work.outputs + first;
        let count = pixels.len();
        let mut sums = [0.0; 32 * 16];
        // SAFETY: the caller's; a tile is at most 14 rows of 32 columns.
        unsafe {
            Tile {
                a: self.patches.add(pixels.start * work.patch),
                a_stride: 1,
                a_step: count,
                b: self.weights.panel(panel),
                b_stride: width,
                k: work.patch,
                ahead: self.weights.ahead(
                    panel,
                    self.panels.len(),
                    0..work.patch,
                    index,
                    self.tiles.parts,
                ),
                columns: width,
                bias: std::ptr::null(),
                row_bias: false,
                relu: false,
                residual: std::ptr::null(),
                out: sums.as_mut_ptr(),
                out_stride: width,
            }
            .run_rows::<V>(count);
            for column in 0..columns {
                let at = (self.batch * work.shape.channels[1] + output + column) * work.pixels;
                let at = at + pixels.start;
                let bias = work.bias.map_or(0.0, |bias| bias[output + column]);
                let mut done = 0;
                while done < count {
                    let some = (count - done).min(V::LANES);
                    let from = sums.as_ptr().add(done * width + column);
                    let mut value = V::load_apart(from, width, some).add(V::splat(bias));
                    if let Some(residual) = work.residual {
                        let residual = residual.as_ptr().add(at + done);
                        value = value.add(V::load_some(residual, some));
                    }
                    value.store_some(work.out.get().add(at + done), some);
                    done += V::LANES;
                }
                if work.activation != Activation::None {
                    let out = work.out.get().add(at);
                    Activate {
                        activation: work.activation,
                        from: out,
                        to: out,
                        count,
                    }
                    .run::<V>();
                }
            }
        }
    }
}
