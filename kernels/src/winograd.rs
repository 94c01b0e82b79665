//! Convolutions of 3 × 3 at stride 1 with a quarter of the multiplications: Winograd's F(4×4, 3×3), after Lavin
//! and Gray, <https://arxiv.org/abs/1509.09308>.
//!
//! A kernel and each square of six by six pixels are taken as polynomials and evaluated at the 36 pairs of the points
//! 0, ±√½, ±√2 and ∞, of which rounding suffers least. At each pair the sum over channels is a product of matrices. What
//! comes out is evaluated back into four by four pixels.

use std::cell::RefCell;
use std::f64::consts::{FRAC_1_SQRT_2, SQRT_2};
use std::ops::Range;

use rayon::prelude::*;

use crate::activation::{Activate, Activation};
use crate::aligned::Aligned;
use crate::conv::Shape;
use crate::gemm::{Epilogue, Matrix, Packed, Shared, Stored, View, multiply_block};
use crate::simd::{Isa, Kernel, Vector};

/// Pixels of the input and of the output, along a side of a square.
const SIDE: usize = 6;
const INNER: usize = 4;
/// Pairs of points.
const POINTS: usize = SIDE * SIDE;
/// Channels are a multiple of it, and so of all vectors.
const CHANNELS: usize = 16;
/// With fewer channels, evaluating takes longer than it saves.
const LEAST_CHANNELS: usize = 32;
/// With fewer squares, reading the weights, which are four times as large, takes longer than multiplying.
const LEAST_SQUARES: usize = 32;
/// How many floats of evaluated squares a thread takes at once: they stay in the second cache.
const CACHE: usize = 1 << 17;
/// Up to as many evaluated weights, each thread reads them all.
const LIGHT: usize = 1 << 20;

/// Weights at all points.
#[derive(Debug)]
pub(crate) struct Evaluated {
    isa: Isa,
    channels: [usize; 2],
    /// By stretches of output channels, each `[inputs, points · columns]`.
    stretches: Vec<Packed>,
    /// Output channels in a stretch, the last filled up with zeros.
    columns: usize,
}

/// Whether a convolution is faster this way.
pub(crate) fn suits(shape: &Shape) -> bool {
    let wide = |channels| channels >= LEAST_CHANNELS;
    possible(shape)
        && shape.channels.into_iter().all(wide)
        && Squares::of(shape).is_some_and(|squares| squares.count() >= LEAST_SQUARES)
}

fn possible(shape: &Shape) -> bool {
    let whole = |channels: usize| channels.is_multiple_of(CHANNELS);
    shape.kernel == [3; 2]
        && [shape.stride, shape.dilation] == [[1; 2]; 2]
        && shape.groups == 1
        && shape.channels.into_iter().all(whole)
}

impl Evaluated {
    /// Evaluates `[outputs, inputs, 3, 3]`, each output's multiplied by its `scale`.
    pub(crate) fn new(isa: Isa, shape: &Shape, weights: &[f32], scale: Option<&[f32]>) -> Self {
        let [inputs, outputs] = shape.channels;
        let panel = 2 * isa.lanes();
        let columns = (2 * panel).min(outputs.next_multiple_of(panel));
        let stretch = |first: usize| {
            let width = POINTS * columns;
            let mut matrix = vec![0.0; inputs * width];
            let rows = matrix.par_chunks_exact_mut(width).enumerate();
            rows.for_each(|(input, row)| {
                for column in 0..columns.min(outputs - first) {
                    let kernel = &weights[((first + column) * inputs + input) * 9..][..9];
                    let scale = scale.map_or(1.0, |scale| f64::from(scale[first + column]));
                    for (point, value) in evaluate_kernel(kernel).into_iter().enumerate() {
                        row[point * columns + column] = (scale * value) as f32;
                    }
                }
            });
            let view = View {
                data: Stored::F32(&matrix),
                shape: [inputs, width],
                strides: [width, 1],
            };
            Packed::new(isa, view)
        };
        Self {
            isa,
            channels: shape.channels,
            stretches: (0..outputs).step_by(columns).map(stretch).collect(),
            columns,
        }
    }

    pub(crate) fn fits(&self, shape: &Shape) -> bool {
        self.channels == shape.channels && possible(shape)
    }

    /// As [`conv::convolve`](crate::conv::convolve), which has checked the lengths, for a shape that [`suits`].
    pub(crate) fn convolve(
        &self,
        shape: &Shape,
        input: &[f32],
        epilogue: Epilogue<'_>,
        out: &mut [f32],
    ) {
        let Some(squares) = Squares::of(shape) else {
            return;
        };
        let work = Work {
            weights: self,
            squares,
            input: Input(input.as_ptr()),
            epilogue,
            out: Shared(out.as_mut_ptr()),
        };
        let (count, threads) = (squares.count(), rayon::current_num_threads());
        let floats = POINTS * self.channels[0];
        let part = |index: usize, parts: usize| index * count / parts..(index + 1) * count / parts;
        if floats * self.channels[1] <= LIGHT || threads == 1 {
            let most = (CACHE / floats).max(48);
            let parts = count.div_ceil(most).max((count / 24).min(4 * threads));
            let parts = parts.next_multiple_of(threads);
            (0..parts).into_par_iter().with_max_len(1).for_each(|task| {
                let part = part(task, parts);
                scratch(part.len() * floats, |values| {
                    work.evaluate(part.clone(), part.len(), values.as_mut_ptr());
                    for stretch in 0..self.stretches.len() {
                        work.multiply(part.clone(), part.len(), values.as_ptr(), stretch);
                    }
                });
            });
            return;
        }
        // Each weight is read by one thread, once for all squares of a piece.
        scratch(count * floats, |values| {
            let pieces = (4 * threads).min(count);
            let values = Shared(values.as_mut_ptr());
            (0..pieces)
                .into_par_iter()
                .with_max_len(1)
                .for_each(|task| {
                    let piece = part(task, pieces);
                    let to = values.get().wrapping_add(piece.start * self.channels[0]);
                    work.evaluate(piece, count, to);
                });
            let stretches = self.stretches.len();
            let pieces = (2 * threads).div_ceil(stretches).max(count.div_ceil(128));
            let pieces = pieces.min(count / 8).max(1);
            (0..stretches * pieces)
                .into_par_iter()
                .with_max_len(1)
                .for_each(|task| {
                    let piece = part(task % pieces, pieces);
                    let from = values.get().wrapping_add(piece.start * self.channels[0]);
                    work.multiply(piece, count, from, task / pieces);
                });
        });
    }
}

/// Where the squares of a batch of pictures are.
#[derive(Clone, Copy)]
struct Squares {
    shape: Shape,
    /// Height and width.
    output: [usize; 2],
    /// Squares in a column and in a row of a picture.
    grid: [usize; 2],
}

impl Squares {
    fn of(shape: &Shape) -> Option<Self> {
        let output = shape.output()?;
        Some(Self {
            shape: *shape,
            output,
            grid: output.map(|side| side.div_ceil(INNER)),
        })
    }

    fn count(&self) -> usize {
        self.shape.batch * self.grid[0] * self.grid[1]
    }

    /// The picture, and where in the output the square begins.
    fn place(&self, square: usize) -> (usize, [usize; 2]) {
        let [rows, columns] = self.grid;
        let (row, column) = (square / columns % rows, square % columns);
        (square / (rows * columns), [row * INNER, column * INNER])
    }
}

/// A convolution on its way.
#[derive(Clone, Copy)]
struct Work<'a> {
    weights: &'a Evaluated,
    squares: Squares,
    input: Input,
    epilogue: Epilogue<'a>,
    out: Shared,
}

#[derive(Clone, Copy)]
struct Input(*const f32);

// SAFETY: it is only read, while `convolve` holds the input.
unsafe impl Send for Input {}
// SAFETY: as above.
unsafe impl Sync for Input {}

impl Work<'_> {
    /// Evaluates squares into `[points, all, inputs]`, of which `to` is the first square's place.
    fn evaluate(&self, squares: Range<usize>, all: usize, to: *mut f32) {
        let inputs = self.weights.channels[0];
        scratch(inputs, |zeros| {
            zeros[..inputs].fill(0.0);
            // SAFETY: the weights are for a set that is present; there is room at `to`, as those who call it see to.
            unsafe {
                self.weights.isa.run(Evaluate {
                    work: self,
                    squares,
                    all,
                    zeros: zeros.as_ptr(),
                    to,
                });
            }
        });
    }

    /// The output's pixels of some squares, for a stretch of its channels.
    fn multiply(&self, squares: Range<usize>, all: usize, values: *const f32, stretch: usize) {
        let Evaluated {
            isa,
            channels: [inputs, outputs],
            stretches,
            columns,
        } = self.weights;
        let packed = &stretches[stretch];
        scratch(squares.len() * POINTS * columns, |products| {
            let panels = columns / (2 * isa.lanes());
            for point in 0..POINTS {
                let left = Matrix {
                    data: values.wrapping_add(point * all * inputs),
                    columns: *inputs,
                };
                let panels = point * panels..(point + 1) * panels;
                // SAFETY: there are values of all squares at each point; the products have a row for each square.
                unsafe {
                    multiply_block(left, packed, squares.len(), panels, products.as_mut_ptr());
                }
            }
            let first = stretch * columns;
            // SAFETY: no two tasks share a square's channel; the rest is as above.
            unsafe {
                isa.run(Finish {
                    work: self,
                    squares: squares.clone(),
                    products: products.as_ptr(),
                    channels: first..(first + columns).min(*outputs),
                });
            }
        });
    }
}

struct Evaluate<'a> {
    work: &'a Work<'a>,
    squares: Range<usize>,
    all: usize,
    /// As many as a pixel has channels, for those beside the picture.
    zeros: *const f32,
    to: *mut f32,
}

impl Kernel for Evaluate<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let squares = &self.work.squares;
        let shape = &squares.shape;
        let inputs = shape.channels[0];
        let apart = self.all * inputs;
        for (index, square) in self.squares.enumerate() {
            let (picture, [top, left]) = squares.place(square);
            let mut pixels = [self.zeros; POINTS];
            for (place, pixel) in pixels.iter_mut().enumerate() {
                let y = (top + place / SIDE).wrapping_sub(shape.padding[0]);
                let x = (left + place % SIDE).wrapping_sub(shape.padding[1]);
                if y < shape.input[0] && x < shape.input[1] {
                    let at = (picture * shape.input[0] + y) * shape.input[1] + x;
                    *pixel = self.work.input.0.wrapping_add(at * inputs);
                }
            }
            let to = self.to.wrapping_add(index * inputs);
            for channel in (0..inputs).step_by(V::LANES) {
                // SAFETY: pixels have all channels, whose count is a multiple of the lanes.
                unsafe {
                    let mut half = [V::splat(0.0); POINTS];
                    for row in 0..SIDE {
                        let mut line = [V::splat(0.0); SIDE];
                        for column in 0..SIDE {
                            line[column] = V::load(pixels[row * SIDE + column].add(channel));
                        }
                        half[row * SIDE..][..SIDE].copy_from_slice(&evaluate(line));
                    }
                    for column in 0..SIDE {
                        let mut line = [V::splat(0.0); SIDE];
                        for row in 0..SIDE {
                            line[row] = half[row * SIDE + column];
                        }
                        for (row, value) in evaluate(line).into_iter().enumerate() {
                            value.store(to.add((row * SIDE + column) * apart + channel));
                        }
                    }
                }
            }
        }
    }
}

/// Pixels along a line at the six points: their products with the polynomials that are zero at all other points.
#[inline(always)]
unsafe fn evaluate<V: Vector>(line: [V; SIDE]) -> [V; SIDE] {
    let [a, b, c, d, e, f] = line;
    // SAFETY: the caller's.
    unsafe {
        let constant = |value: f64| V::splat(value as f32);
        let half = e.sub(c.add(c));
        let odd = d.sub(b.add(b));
        let two = constant(-0.5).fma(c, e);
        let other = constant(-0.5).fma(b, d);
        [
            constant(-2.5).fma(c, a.add(e)),
            constant(FRAC_1_SQRT_2).fma(odd, half),
            constant(-FRAC_1_SQRT_2).fma(odd, half),
            constant(SQRT_2).fma(other, two),
            constant(-SQRT_2).fma(other, two),
            constant(-2.5).fma(d, b.add(f)),
        ]
    }
}

/// Back from the points to pixels along a line.
#[inline(always)]
unsafe fn interpolate<V: Vector>(line: [V; SIDE]) -> [V; INNER] {
    let [a, b, c, d, e, f] = line;
    // SAFETY: the caller's.
    unsafe {
        let constant = |value: f64| V::splat(value as f32);
        let (near, far) = (b.add(c), d.add(e));
        let (near_odd, far_odd) = (b.sub(c), d.sub(e));
        let cubes = constant(FRAC_1_SQRT_2 / 2.0).fma(near_odd, f);
        [
            a.add(near).add(far),
            constant(FRAC_1_SQRT_2).fma(near_odd, constant(SQRT_2).mul(far_odd)),
            constant(0.5).fma(near, far.add(far)),
            constant(2.0 * SQRT_2).fma(far_odd, cubes),
        ]
    }
}

/// A kernel at all pairs of points.
fn evaluate_kernel(kernel: &[f32]) -> [f64; POINTS] {
    let line = |[a, b, c]: [f64; 3]| {
        let at = |point: f64, factor: f64| factor * (a + point * (b + point * c));
        [
            a,
            at(FRAC_1_SQRT_2, -2.0 / 3.0),
            at(-FRAC_1_SQRT_2, -2.0 / 3.0),
            at(SQRT_2, 1.0 / 6.0),
            at(-SQRT_2, 1.0 / 6.0),
            c,
        ]
    };
    let rows =
        [0, 1, 2].map(|row| line([0, 1, 2].map(|column| f64::from(kernel[3 * row + column]))));
    let mut points = [0.0; POINTS];
    for column in 0..SIDE {
        for (row, value) in line(rows.map(|row| row[column])).into_iter().enumerate() {
            points[row * SIDE + column] = value;
        }
    }
    points
}

struct Finish<'a> {
    work: &'a Work<'a>,
    squares: Range<usize>,
    /// `[squares, points, columns]`
    products: *const f32,
    channels: Range<usize>,
}

impl Kernel for Finish<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Work {
            weights,
            squares,
            epilogue,
            out,
            ..
        } = self.work;
        let [height, width] = squares.output;
        let [_, outputs] = weights.channels;
        let columns = weights.columns;
        let null = std::ptr::null();
        let bias = epilogue.bias.map_or(null, <[f32]>::as_ptr);
        let residual = epilogue.residual.map_or(null, <[f32]>::as_ptr);
        for (index, square) in self.squares.enumerate() {
            let (picture, [top, left]) = squares.place(square);
            for channel in self.channels.clone().step_by(V::LANES) {
                let from = index * POINTS * columns + channel - self.channels.start;
                // SAFETY: what is read and written are pixels of the output, bias and residual as long as it and
                // its channels, whose count is a multiple of the lanes.
                unsafe {
                    let from = self.products.add(from);
                    let mut half = [V::splat(0.0); SIDE * INNER];
                    for row in 0..SIDE {
                        let mut line = [V::splat(0.0); SIDE];
                        for column in 0..SIDE {
                            line[column] = V::load(from.add((row * SIDE + column) * columns));
                        }
                        half[row * INNER..][..INNER].copy_from_slice(&interpolate(line));
                    }
                    let shift = if bias.is_null() {
                        V::splat(0.0)
                    } else {
                        V::load(bias.add(channel))
                    };
                    for column in 0..INNER.min(width - left) {
                        let mut line = [V::splat(0.0); SIDE];
                        for row in 0..SIDE {
                            line[row] = half[row * INNER + column];
                        }
                        let pixels = interpolate(line);
                        for row in 0..INNER.min(height - top) {
                            let pixel = (picture * height + top + row) * width + left + column;
                            let at = pixel * outputs + channel;
                            let mut value = pixels[row].add(shift);
                            if !residual.is_null() {
                                value = value.add(V::load(residual.add(at)));
                            }
                            if epilogue.activation == Activation::Relu {
                                value = V::splat(0.0).max(value);
                            }
                            let to = out.get().add(at);
                            value.store(to);
                            if !matches!(epilogue.activation, Activation::None | Activation::Relu) {
                                Activate {
                                    activation: epilogue.activation,
                                    from: to,
                                    to,
                                    count: V::LANES,
                                }
                                .run::<V>();
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Lends `count` floats of any value, which stay with the thread.
fn scratch<R>(count: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    thread_local! {
        static KEPT: RefCell<Vec<Aligned>> = const { RefCell::new(Vec::new()) };
    }
    let mut floats = KEPT.with_borrow_mut(Vec::pop).unwrap_or_default();
    floats.reserve(count);
    let result = work(&mut floats);
    KEPT.with_borrow_mut(|kept| kept.push(floats));
    result
}
