//! Convolutions by tiles that read their pictures where they lie.

use rayon::prelude::*;

use super::{
    Block, Bytes, Ending, Narrow, Numbers, Out, PICTURES, ROWS, STEP, Sums, Tasks, WIDTH, copy,
    room, row_to_bf16,
};
use crate::amx;
use crate::conv::Patches;

/// Pictures of bf16 between zeros, so that 16 pixels of an output's row meet what any part of a kernel is
/// multiplied by at a constant distance, and no patch is copied.
pub(super) struct Padded {
    patches: Patches,
    from: Bytes,
    /// Bytes of a pixel and of a row.
    pixel: usize,
    row: usize,
}

impl Padded {
    /// Whether it is worth it: parts of kernels are whole steps, rows have not much less than 16 pixels, and
    /// kernels do not pass over pixels, which would be copied for nothing.
    pub(super) fn suits(patches: &Patches) -> bool {
        let shape = &patches.shape;
        shape.groups == 1
            && shape.kernel != [1, 1]
            && shape.stride == [1, 1]
            && shape.channels[0] > 0
            && shape.channels[0].is_multiple_of(STEP / 2)
            && patches.output[1] >= 12
    }

    /// How many sixteens of pixels there are, the last of each row not whole.
    fn count(&self) -> usize {
        self.patches.shape.batch * self.patches.output[0] * self.of_row()
    }

    fn of_row(&self) -> usize {
        self.patches.output[1].div_ceil(16)
    }

    /// Where what the first parts of kernels meet begins, the first pixel of the output, and how many there are.
    fn sixteen(&self, index: usize) -> (*const u8, usize, usize) {
        let [height, width] = self.patches.output;
        let shape = &self.patches.shape;
        let (row, x) = (index / self.of_row(), index % self.of_row() * 16);
        let (picture, y) = (row / height, row % height);
        let top = picture * (shape.input[0] + 2 * shape.padding[0]) + y;
        let from = top * self.row + x * self.pixel;
        let from = self.from.get().wrapping_add(from).cast_const();
        (from, row * width + x, (width - x).min(16))
    }
}

/// # Safety
/// As [`multiply_patches`](super::multiply_patches); the weights are for tiles of bf16, and pictures
/// [suit](Padded::suits).
pub(super) unsafe fn multiply(
    patches: Patches,
    pictures: Numbers<'_>,
    b: &Narrow,
    ending: Ending<'_>,
    out: Out,
) {
    let shape = &patches.shape;
    let [height, width] = shape.input;
    let [above, beside] = shape.padding;
    let numbers = width * shape.channels[0];
    let pixel = 2 * shape.channels[0];
    let (rows, row) = (height + 2 * above, (width + 2 * beside) * pixel);
    // A row's last sixteen may reach beyond it.
    let beyond = 16 * pixel;
    let (mut pixels, scales) = PICTURES.take();
    let to = room(&mut pixels, shape.batch * rows * row + beyond);
    let fill = |index: usize| {
        let (picture, y) = (index / rows, index % rows);
        // SAFETY: each row has its place in `pixels`, and is read inside the pictures.
        unsafe {
            let to = to.get().add(index * row);
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
    };
    let rows = (0..shape.batch * rows).into_par_iter();
    rows.with_min_len((1 << 15) / row + 1).for_each(fill);
    let padded = Padded {
        patches,
        from: to,
        pixel,
        row,
    };
    let m = 16 * padded.count();
    let stride = b.steps * STEP;
    Tasks::of_patches(m, b.n.div_ceil(WIDTH), stride).run(|range, panels| {
        let block = Block {
            a: std::ptr::null(),
            stride: pixel,
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

impl Block<'_> {
    /// The products of pixels, sixteens of which are the range.
    ///
    /// # Safety
    /// The CPU has AMX, for which `b` is packed; the pictures are there.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
    unsafe fn padded(&self, pictures: &Padded) {
        let shape = &pictures.patches.shape;
        let [height, width] = shape.kernel;
        // Of a part of a kernel.
        let steps = pictures.pixel / STEP;
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
                            let down = part / width * shape.dilation[0] * pictures.row;
                            let right = part % width * shape.dilation[1] * pictures.pixel;
                            let [near, far] = [near.add(down + right), far.add(down + right)];
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
