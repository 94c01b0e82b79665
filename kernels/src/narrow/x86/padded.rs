//! Convolutions by tiles that read their pictures where they lie.

use std::arch::x86_64::*;

use rayon::prelude::*;

use super::{
    Block, Bytes, Ending, Line, Narrow, Numbers, Out, PICTURES, ROWS, STEP, Sums, Tasks, WIDTH,
    copy, mask, room, row_to_bf16,
};
use crate::amx;
use crate::conv::Patches;
use crate::folding::Folding;

/// Pictures of bf16 between zeros, so that 16 pixels of an output's row meet what any part of a kernel is
/// multiplied by at a constant distance, and no patch is copied.
struct Padded {
    from: Bytes,
    batch: usize,
    /// Height and width of the output.
    output: [usize; 2],
    /// Rows of a picture, with those of zeros.
    rows: usize,
    /// Bytes of a row and of a pixel.
    row: usize,
    pixel: usize,
    /// Parts of a kernel, below and beside each other, and the bytes from one to the next.
    parts: [usize; 2],
    distances: [usize; 2],
    /// Of a part.
    steps: usize,
}

/// Whether pictures can be read where they lie, and it is worth it: parts of kernels are whole steps, rows have not
/// much less than 16 pixels, and kernels do not pass over pixels, which would be copied for nothing.
pub(super) fn suits(patches: &Patches) -> bool {
    let shape = &patches.shape;
    let whole = shape.groups == 1
        && shape.kernel != [1, 1]
        && shape.stride == [1, 1]
        && shape.channels[0] > 0
        && shape.channels[0].is_multiple_of(STEP / 2)
        && patches.output[1] >= 12;
    whole || patches.folding.is_some()
}

/// # Safety
/// As [`multiply_patches`](super::multiply_patches); the weights are for tiles of bf16, and the patches [suit](suits).
pub(super) unsafe fn multiply(
    patches: Patches,
    pictures: Numbers<'_>,
    b: &Narrow,
    ending: Ending<'_>,
    out: Out,
) {
    let (mut pixels, scales) = PICTURES.take();
    let padded = match patches.folding {
        Some(folding) => Padded::folded(&patches, folding, pictures, &mut pixels),
        None => Padded::between_zeros(&patches, pictures, &mut pixels),
    };
    let m = 16 * padded.count();
    Tasks::of_patches(m, b.n.div_ceil(WIDTH), b.steps * STEP).run(|range, panels| {
        let block = Block {
            a: std::ptr::null(),
            stride: padded.pixel,
            rows: &[],
            b,
            ending,
            out,
            range,
            panels,
        };
        // SAFETY: as the function's own; no two tasks share an element of `out`.
        unsafe { block.padded(&padded) };
    });
    PICTURES.set((pixels, scales));
}

impl Padded {
    /// Pixels as they are.
    fn between_zeros(patches: &Patches, pictures: Numbers<'_>, to: &mut Vec<Line>) -> Self {
        let shape = &patches.shape;
        let [height, width] = shape.input;
        let [above, beside] = shape.padding;
        let numbers = width * shape.channels[0];
        let pixel = 2 * shape.channels[0];
        let (rows, row) = (height + 2 * above, (width + 2 * beside) * pixel);
        let padded = Self {
            from: room(to, shape.batch * rows * row + 16 * pixel),
            batch: shape.batch,
            output: patches.output,
            rows,
            row,
            pixel,
            parts: shape.kernel,
            distances: [shape.dilation[0] * row, shape.dilation[1] * pixel],
            steps: pixel / STEP,
        };
        padded.fill(|picture, y, to| {
            // SAFETY: the caller of `multiply` has the instructions; the row is read inside the pictures, and has
            // its place.
            unsafe {
                if y < above || y >= above + height {
                    return to.write_bytes(0, row);
                }
                let from = (picture * height + y - above) * numbers;
                let inner = to.add(beside * pixel);
                to.write_bytes(0, beside * pixel);
                match pictures {
                    Numbers::F32(all) => row_to_bf16(all.as_ptr().add(from), numbers, inner),
                    Numbers::Bf16(all) => copy(all.as_ptr().add(from).cast(), inner, 2 * numbers),
                }
                inner.add(2 * numbers).write_bytes(0, beside * pixel);
            }
        });
        padded
    }

    /// Squares of two by two pixels as one.
    fn folded(
        patches: &Patches,
        folding: Folding,
        pictures: Numbers<'_>,
        to: &mut Vec<Line>,
    ) -> Self {
        let shape = &patches.shape;
        let [height, width] = shape.input;
        let columns = patches.output[1] + folding.kernel[1] - 1;
        let rows = patches.output[0] + folding.kernel[0] - 1;
        let pixel = 2 * Folding::CHANNELS;
        let row = columns * pixel;
        let padded = Self {
            from: room(to, shape.batch * rows * row + 16 * pixel),
            batch: shape.batch,
            output: patches.output,
            rows,
            row,
            pixel,
            parts: [folding.kernel[0], 1],
            distances: [row, 0],
            steps: folding.kernel[1] * pixel / STEP,
        };
        let [above, beside] = folding.padding;
        padded.fill(|picture, y, to| {
            let rows = [0, 1].map(|below| {
                let y = (2 * y + below).wrapping_sub(2 * above);
                (y < height).then(|| (picture * height + y) * width * shape.channels[0])
            });
            let squares = Squares {
                rows,
                width,
                channels: shape.channels[0],
                beside,
                columns,
            };
            // SAFETY: as in `between_zeros`.
            unsafe {
                match pictures {
                    Numbers::F32(all) => squares.of_floats(all.as_ptr(), to),
                    Numbers::Bf16(all) => squares.of_bf16(all.as_ptr(), to),
                }
            }
        });
        padded
    }

    /// Calls `row` with the index of each picture, that of each of its rows, and where it is to be.
    fn fill(&self, row: impl Fn(usize, usize, *mut u8) + Sync) {
        let rows = (0..self.batch * self.rows).into_par_iter();
        let least = (1 << 15) / self.row.max(1) + 1;
        rows.with_min_len(least).for_each(|index| {
            let to = self.from.get().wrapping_add(index * self.row);
            row(index / self.rows, index % self.rows, to);
        });
    }

    /// How many sixteens of pixels there are, the last of each row not whole.
    fn count(&self) -> usize {
        self.batch * self.output[0] * self.of_row()
    }

    fn of_row(&self) -> usize {
        self.output[1].div_ceil(16)
    }

    /// Where what the first parts of kernels meet begins, the first pixel of the output, and how many there are.
    fn sixteen(&self, index: usize) -> (*const u8, usize, usize) {
        let [height, width] = self.output;
        let (row, x) = (index / self.of_row(), index % self.of_row() * 16);
        let (picture, y) = (row / height, row % height);
        let from = (picture * self.rows + y) * self.row + x * self.pixel;
        let from = self.from.get().wrapping_add(from).cast_const();
        (from, row * width + x, (width - x).min(16))
    }
}

/// A row of squares.
struct Squares {
    /// Where its two rows begin, unless they are beyond the picture.
    rows: [Option<usize>; 2],
    /// Pixels of a row, and channels of a pixel.
    width: usize,
    channels: usize,
    /// Squares before the picture, and all.
    beside: usize,
    columns: usize,
}

impl Squares {
    /// For each square where its rows are, and the first numbers of each that there are.
    #[inline(always)]
    fn each(&self, mut each: impl FnMut(usize, [usize; 2], [__mmask16; 2])) {
        for column in 0..self.columns {
            let x = (2 * column).wrapping_sub(2 * self.beside);
            let pixels = match x < self.width {
                true => (self.width - x).min(2),
                false => 0,
            };
            let some = mask(pixels * self.channels);
            let at = self.rows.map(|row| {
                row.unwrap_or_default()
                    .wrapping_add(x.wrapping_mul(self.channels))
            });
            let masks = self.rows.map(|row| if row.is_some() { some } else { 0 });
            each(column, at, masks);
        }
    }

    /// # Safety
    /// The CPU has AVX512-BF16; the rows are there, and there is room for the squares.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
    unsafe fn of_floats(&self, from: *const f32, to: *mut u8) {
        let two = 2 * self.channels;
        self.each(|column, [above, below], [first, second]| {
            // SAFETY: the caller's; what is masked is not read.
            unsafe {
                let near = _mm512_maskz_loadu_ps(first, from.wrapping_add(above));
                let below = from.wrapping_add(below).wrapping_sub(two);
                let all = _mm512_mask_loadu_ps(near, second << two, below);
                let rounded: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(all));
                _mm256_storeu_si256(to.add(column * 32).cast(), rounded);
            }
        });
    }

    /// # Safety
    /// The CPU has AVX-512; the rows are there, and there is room for the squares.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    unsafe fn of_bf16(&self, from: *const u16, to: *mut u8) {
        let two = 2 * self.channels;
        self.each(|column, [above, below], [first, second]| {
            // SAFETY: the caller's; what is masked is not read.
            unsafe {
                let near = _mm256_maskz_loadu_epi16(first, from.wrapping_add(above).cast());
                let below = from.wrapping_add(below).wrapping_sub(two);
                let all = _mm256_mask_loadu_epi16(near, second << two, below.cast());
                _mm256_storeu_si256(to.add(column * 32).cast(), all);
            }
        });
    }
}

impl Block<'_> {
    /// The products of pixels, sixteens of which are the range.
    ///
    /// # Safety
    /// The CPU has AMX, for which `b` is packed; the pictures are there.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
    unsafe fn padded(&self, pictures: &Padded) {
        let [height, width] = pictures.parts;
        let steps = pictures.steps;
        let mut sums = Sums([0.0; ROWS * WIDTH]);
        let sums = sums.0.as_mut_ptr();
        let sixteens = self.range.start / 16..self.range.end / 16;
        // SAFETY: the caller's.
        unsafe {
            let tiles = &amx::Tiles::configure();
            for panels in self.together() {
                for index in sixteens.clone().step_by(2) {
                    let two = index + 1 < sixteens.end;
                    let (near, first, count) = pictures.sixteen(index);
                    let (far, second, others) = pictures.sixteen(index + usize::from(two));
                    for panel in panels.clone() {
                        let mut b = self.b.panel(panel);
                        if index == sixteens.start {
                            self.prefetch_after(panel);
                        }
                        amx::clear(tiles);
                        for part in 0..height * width {
                            let [down, right] = pictures.distances;
                            let part = part / width * down + part % width * right;
                            let [near, far] = [near.add(part), far.add(part)];
                            if two {
                                amx::bf16_32(tiles, [near, far], self.stride, b, steps);
                            } else {
                                amx::bf16_16(tiles, near, self.stride, b, steps);
                            }
                            b = b.add(steps * STEP * WIDTH);
                        }
                        if two {
                            amx::store_32(tiles, sums, 4 * WIDTH);
                            let lower = sums.add(16 * WIDTH);
                            self.finish::<false>(lower, panel, second, others);
                        } else {
                            amx::store_16(tiles, sums, 4 * WIDTH);
                        }
                        self.finish::<false>(sums, panel, first, count);
                    }
                }
            }
        }
    }
}
