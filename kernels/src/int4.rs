//! Weights of four bits, in blocks of 32 of a column's depth that share a scale, for rows in f32.
//!
//! A weight is a multiple of its block's scale, from -8 to 7, as GGUF's Q4_0 chooses it: the number of the
//! greatest size becomes -8. Weights that came out of Q4_0 therefore stay what they are. This is for what
//! memory's speed limits, one row or a few by large weights; for more rows the weights are widened, and the
//! product takes as long as in f32.
//!
//! A block of a panel is its columns' scales in f32, and then four lines of depth: eight numbers of each
//! column in one word, the first lowest.

use std::cell::RefCell;

use crate::aligned::Line;
use crate::gemm::View;
use crate::narrow::{WIDTH, for_columns};
use crate::simd::Vector;
use crate::widened::Weights;

/// Numbers that share a scale.
pub(crate) const BLOCK: usize = 32;
/// Numbers in a word.
const EIGHT: usize = 8;
/// Lines of a block of a panel: the scales', and those of the words.
pub(crate) const LINES: usize = WIDTH / 16 * (1 + BLOCK / EIGHT);
/// Words in which every number is zero.
const ZEROS: [u8; 64] = [0x88; 64];

pub(crate) fn pack(matrix: View<'_>, first: usize, packed: &mut [Line]) {
    for block in packed.chunks_exact_mut(LINES) {
        block[WIDTH / 16..].fill(Line(ZEROS));
    }
    for_columns(matrix, first, |column, values| {
        let place = |line: usize| (line * WIDTH + column) / 16;
        let bytes = column % 16 * 4..column % 16 * 4 + 4;
        for (values, block) in values.chunks(BLOCK).zip(packed.chunks_exact_mut(LINES)) {
            let (scale, factor) = scale(values);
            block[place(0)].0[bytes.clone()].copy_from_slice(&scale.to_le_bytes());
            for (index, values) in values.chunks(EIGHT).enumerate() {
                let number = |value: &f32| (f64::from(*value) * factor + 8.5) as u32;
                let words = values.iter().enumerate();
                let word = words.fold(0x8888_8888, |word: u32, (at, value)| {
                    word & !(15 << (4 * at)) | number(value).min(15) << (4 * at)
                });
                block[place(1 + index)].0[bytes.clone()].copy_from_slice(&word.to_le_bytes());
            }
        }
    });
}

/// What the numbers of a block are multiples of, and its inverse.
fn scale(values: &[f32]) -> (f32, f64) {
    let greatest = values.iter().fold(
        0.0_f32,
        |most, x| if x.abs() > most.abs() { *x } else { most },
    );
    let scale = greatest / -8.0;
    // What is not a number shall not pass for one.
    let poison: f32 = values.iter().map(|x| x * 0.0).sum();
    let factor = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    (scale + poison, f64::from(factor))
}

/// Writes a panel as `[k, WIDTH]` floats, and some of its last block.
///
/// # Safety
/// The CPU has the instructions of `V`.
#[inline(always)]
pub(crate) unsafe fn widen<V: Vector>(lines: &[Line], wide: &mut [f32]) {
    let blocks = lines.len() / LINES;
    assert!(wide.len() >= blocks * BLOCK * WIDTH);
    // SAFETY: the caller's; the lines and what is written are within the slices.
    unsafe {
        for block in 0..blocks {
            let scales: *const f32 = lines.as_ptr().add(block * LINES).cast();
            let words = scales.add(WIDTH).cast::<u32>();
            let to = wide.as_mut_ptr().add(block * BLOCK * WIDTH);
            for at in (0..WIDTH).step_by(V::LANES) {
                let scale = V::load(scales.add(at));
                for eight in 0..BLOCK / EIGHT {
                    let numbers = V::nibbles(words.add(eight * WIDTH + at));
                    for (index, number) in numbers.into_iter().enumerate() {
                        let row = eight * EIGHT + index;
                        number.mul(scale).store(to.add(row * WIDTH + at));
                    }
                }
            }
        }
    }
}

thread_local! {
    /// The rows, each as long as the blocks.
    static ROWS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Calls `work` with rows of `k` numbers that are filled up to whole blocks, and their distance.
pub(crate) fn with_rows<T>(a: &[f32], k: usize, work: impl FnOnce(&[f32], usize) -> T) -> T {
    if k == 0 || k.is_multiple_of(BLOCK) {
        return work(a, k);
    }
    let stride = k.next_multiple_of(BLOCK);
    let mut rows = ROWS.take();
    rows.clear();
    for row in a.chunks_exact(k) {
        rows.extend_from_slice(row);
        rows.resize(rows.len().next_multiple_of(stride), 0.0);
    }
    let result = work(&rows, stride);
    ROWS.set(rows);
    result
}

/// Weights as [`pack`] leaves them.
pub(crate) struct Int4;

impl Weights for Int4 {
    #[inline(always)]
    unsafe fn weigh<V: Vector>(
        a: *const f32,
        stride: usize,
        count: usize,
        lines: &[Line],
        _: usize,
        to: &mut [[f32; WIDTH]],
    ) {
        // SAFETY: the caller's.
        unsafe {
            match count {
                1 => weigh_rows::<V, 1, 2>(a, stride, lines, to),
                2 => weigh_rows::<V, 2, 2>(a, stride, lines, to),
                3 => weigh_rows::<V, 3, 1>(a, stride, lines, to),
                _ => weigh_rows::<V, 4, 1>(a, stride, lines, to),
            }
        }
    }
}

/// Each block's sums are in `CHAINS` parts, which need not wait for each other.
///
/// # Safety
/// As of [`Weights::weigh`].
#[inline(always)]
unsafe fn weigh_rows<V: Vector, const COUNT: usize, const CHAINS: usize>(
    a: *const f32,
    stride: usize,
    lines: &[Line],
    to: &mut [[f32; WIDTH]],
) {
    // SAFETY: the caller's; the lines are read within their slice.
    unsafe {
        let mut column = 0;
        while column < WIDTH {
            let mut sums = [[V::splat(0.0); 2]; COUNT];
            for (block, lines) in lines.chunks_exact(LINES).enumerate() {
                let scales: *const f32 = lines.as_ptr().cast::<f32>().add(column);
                let words = scales.add(WIDTH).cast::<u32>();
                V::prefetch(lines.as_ptr().wrapping_add(4 * LINES).cast());
                let mut parts = [[[V::splat(0.0); CHAINS]; 2]; COUNT];
                for eight in 0..BLOCK / EIGHT {
                    let a = a.add(block * BLOCK + eight * EIGHT);
                    let words = words.add(eight * WIDTH);
                    let near = V::nibbles(words);
                    let far = V::nibbles(words.add(V::LANES));
                    for index in 0..EIGHT {
                        for row in 0..COUNT {
                            let factor = V::splat(*a.add(row * stride + index));
                            let [left, right] = &mut parts[row];
                            let chain = index % CHAINS;
                            left[chain] = near[index].fma(factor, left[chain]);
                            right[chain] = far[index].fma(factor, right[chain]);
                        }
                    }
                }
                let scales = [V::load(scales), V::load(scales.add(V::LANES))];
                for row in 0..COUNT {
                    for side in 0..2 {
                        let mut part = parts[row][side][0];
                        for chain in 1..CHAINS {
                            part = part.add(parts[row][side][chain]);
                        }
                        sums[row][side] = part.fma(scales[side], sums[row][side]);
                    }
                }
            }
            for row in 0..COUNT {
                let to = to[row].as_mut_ptr().add(column);
                sums[row][0].store(to);
                sums[row][1].store(to.add(V::LANES));
            }
            column += 2 * V::LANES;
        }
    }
}
