//! The products by the units of x86-64: tiles (AMX), pairs of bf16 and fours of bytes (AVX-512).

mod padded;

use std::arch::x86_64::*;
use std::ops::Range;

use rayon::prelude::*;

use super::{
    Ending, LINES, Line, Narrow, Numbers, NumbersMut, PICTURES, Precision, ROWS, Row, STEP, Tasks,
    Unit, WIDTH,
};
use crate::activation::apply;
use crate::amx;
use crate::conv::Patches;
use crate::simd::{Avx512, Vector};

/// # Safety
/// The unit of `b` is present, and lengths are as `narrow::multiply` asserts.
pub(super) unsafe fn multiply(
    a: Numbers<'_>,
    b: &Narrow,
    ending: Ending<'_>,
    out: NumbersMut<'_>,
    m: usize,
    few: bool,
    (lines, rows): &mut (Vec<Line>, Vec<Row>),
) {
    let k = b.k;
    // Rows whose distance is a multiple of some KiB would evict each other.
    let mut stride = b.steps * STEP + 64;
    if few {
        stride *= 4;
    }
    let as_they_lie = match a {
        Numbers::Bf16(a) if m.is_multiple_of(16) && (2 * k).is_multiple_of(STEP) => Some(a),
        _ => None,
    };
    let needed = match as_they_lie {
        Some(_) => 0,
        None => m.next_multiple_of(16) * stride,
    };
    let mut to = room(lines, needed);
    rows.clear();
    rows.resize(m, Row::default());
    // SAFETY: as the function's own; each row has its place in `lines`.
    let narrow = |index: usize, row: &mut Row| unsafe {
        let to = to.get().add(index * stride);
        let written = match a {
            Numbers::Bf16(a) => {
                copy(a.as_ptr().add(index * k).cast(), to, 2 * k);
                2 * k
            }
            Numbers::F32(a) => {
                let from = a.as_ptr().add(index * k);
                if few {
                    std::ptr::copy_nonoverlapping(from, to.cast(), k);
                    4 * k
                } else if b.precision == Precision::Bf16 {
                    row_to_bf16(from, k, to);
                    2 * k
                } else {
                    *row = row_to_int8(from, k, to);
                    k
                }
            }
        };
        to.add(written).write_bytes(0, stride - written);
    };
    if let Some(a) = as_they_lie {
        (to, stride) = (Bytes(a.as_ptr().cast_mut().cast()), 2 * k);
    } else if m * k < 1 << 17 {
        for (index, row) in rows.iter_mut().enumerate() {
            narrow(index, row);
        }
    } else {
        let rows = rows.par_iter_mut().enumerate().with_min_len(8);
        rows.for_each(|(index, row)| narrow(index, row));
    }
    let rows = &rows[..];
    let out = Out::of(out);
    Tasks::new(m, b.n.div_ceil(WIDTH), k).run(|range, panels| {
        let block = Block {
            a: to.get().wrapping_add(range.start * stride).cast_const(),
            stride,
            rows: &rows[range.clone()],
            b,
            ending,
            out,
            range,
            panels,
        };
        // SAFETY: as the function's own; no two tasks share an element of `out`.
        unsafe {
            match b.precision {
                _ if few => block.few(),
                Precision::Bf16 => block.bf16(),
                _ => block.int8(),
            }
        }
    });
}

/// # Safety
/// As [`multiply`], and lengths are as `narrow::multiply_patches` asserts.
pub(super) unsafe fn multiply_patches(
    patches: Patches,
    pictures: Numbers<'_>,
    b: &Narrow,
    ending: Ending<'_>,
    out: NumbersMut<'_>,
) {
    let bf16 = b.precision == Precision::Bf16;
    if bf16 && b.unit == Unit::Tiles && padded::suits(&patches) {
        // SAFETY: as the function's own.
        unsafe { padded::multiply(patches, pictures, b, ending, Out::of(out)) };
        return;
    }
    let count = patches.of_picture();
    let m = patches.shape.batch * count;
    let size = if bf16 { 2 } else { 1 };
    let (mut pixels, mut scales) = PICTURES.take();
    scales.clear();
    let to = match pictures {
        // As they lie.
        Numbers::Bf16(pictures) => {
            scales.resize(patches.shape.batch, Row::default());
            Bytes(pictures.as_ptr().cast_mut().cast())
        }
        Numbers::F32(pictures) => {
            let to = room(&mut pixels, pictures.len() * size);
            // SAFETY: as the function's own; there is room for all numbers.
            unsafe { narrow_pictures(bf16, pictures, patches.shape.batch, to, &mut scales) };
            to
        }
    };
    let out = Out::of(out);
    let by_picture = &scales[..];
    let bytes = b.k * size;
    // Rows that lie as the unit wants them, but for the last, which others would have to follow.
    let as_they_lie = patches.are_pixels() && bytes.is_multiple_of(STEP);
    let stride = b.steps * STEP + 64;
    Tasks::of_patches(m, b.n.div_ceil(WIDTH), stride).run(|range, panels| {
        let (mut lines, mut rows) = LINES.take();
        rows.clear();
        rows.extend(range.clone().map(|row| by_picture[row / count]));
        let (mut a, mut distance) = (to.get().wrapping_add(range.start * bytes), bytes);
        if !as_they_lie || !range.len().is_multiple_of(16) {
            let needed = range.len().next_multiple_of(16) * stride;
            (a, distance) = (room(&mut lines, needed).get(), stride);
            for (index, row) in range.clone().enumerate() {
                let zero = rows[index].zero as u8;
                // SAFETY: stretches are inside the pictures, and each row has its place in `lines`.
                unsafe {
                    let mut at = a.add(index * stride);
                    patches.stretches(row, 0..b.k, |from, count| {
                        let bytes = count * size;
                        match from {
                            Some(from) => copy(to.get().add(from * size), at, bytes),
                            None if count == 0 => {}
                            // As bytes, zero is what stands for it.
                            None => at.write_bytes(zero, bytes),
                        }
                        at = at.add(bytes);
                    });
                    at.write_bytes(0, stride - bytes);
                }
            }
        }
        let block = Block {
            a,
            stride: distance,
            rows: &rows,
            b,
            ending,
            out,
            range,
            panels,
        };
        // SAFETY: as the function's own; no two tasks share an element of `out`.
        unsafe {
            if bf16 {
                block.bf16();
            } else {
                block.int8();
            }
        }
        LINES.set((lines, rows));
    });
    PICTURES.set((pixels, scales));
}

/// Brings pictures to bf16, or to bytes by a scale and a zero of each.
///
/// # Safety
/// As [`row_to_bf16`] or [`row_to_int8`], and there is room for all numbers.
unsafe fn narrow_pictures(
    bf16: bool,
    pictures: &[f32],
    batch: usize,
    to: Bytes,
    scales: &mut Vec<Row>,
) {
    if bf16 {
        scales.resize(batch, Row::default());
        // Small enough for the second cache.
        let pieces = pictures.par_chunks(1 << 13).enumerate();
        // SAFETY: as the function's own; each number has its place.
        pieces.for_each(|(index, piece)| unsafe {
            row_to_bf16(piece.as_ptr(), piece.len(), to.get().add((index << 13) * 2));
        });
        return;
    }
    let picture = pictures.len() / batch.max(1);
    for (index, floats) in pictures.chunks_exact(picture.max(1)).enumerate() {
        let pieces = || floats.par_chunks(1 << 13).enumerate();
        // SAFETY: as the function's own.
        let reach = pieces().map(|(_, piece)| unsafe { reach(piece.as_ptr(), piece.len()) });
        let row = to_row(reach.reduce(
            || [0.0; 3],
            |[a, b, c], [d, e, f]| [a.min(d), b.max(e), c + f],
        ));
        scales.push(row);
        // SAFETY: as above; each number has its place.
        pieces().for_each(|(part, piece)| unsafe {
            let at = index * picture + (part << 13);
            bytes_by(row, piece.as_ptr(), piece.len(), to.get().add(at));
        });
    }
}

/// # Safety
/// The CPU has AVX-512; the pointers are valid for `count` bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn copy(from: *const u8, to: *mut u8, count: usize) {
    let mut at = 0;
    while at < count {
        let some = u64::MAX >> (64 - (count - at).min(64));
        // SAFETY: masked to what is there.
        unsafe {
            let bytes = _mm512_maskz_loadu_epi8(some, from.add(at).cast());
            _mm512_mask_storeu_epi8(to.add(at).cast(), some, bytes);
        }
        at += 64;
    }
}

#[derive(Clone, Copy)]
struct Bytes(*mut u8);

// SAFETY: each row is written by one task, and read only when all are written.
unsafe impl Send for Bytes {}
// SAFETY: as above.
unsafe impl Sync for Bytes {}

impl Bytes {
    fn get(self) -> *mut u8 {
        self.0
    }
}

/// Room for some bytes, for which lines are added where they are too few.
fn room(lines: &mut Vec<Line>, bytes: usize) -> Bytes {
    let needed = bytes.div_ceil(64);
    if lines.len() < needed {
        lines.resize(needed, Line([0; 64]));
    }
    Bytes(lines.as_mut_ptr().cast())
}

/// The first numbers of a vector.
pub(crate) fn mask(count: usize) -> __mmask16 {
    ((1_u32 << count.min(16)) - 1) as __mmask16
}

/// # Safety
/// The CPU has AVX512-BF16; the pointers are valid for `k` numbers.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn row_to_bf16(from: *const f32, k: usize, to: *mut u8) {
    let mut at = 0;
    while at < k {
        let some = mask(k - at);
        // SAFETY: masked to what is there.
        unsafe {
            let floats = _mm512_maskz_loadu_ps(some, from.add(at));
            let rounded: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(floats));
            _mm256_mask_storeu_epi16(to.add(2 * at).cast(), some, rounded);
        }
        at += 16;
    }
}

/// # Safety
/// The CPU has AVX-512; the pointers are valid for `k` numbers.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn row_to_int8(from: *const f32, k: usize, to: *mut u8) -> Row {
    // SAFETY: the caller's.
    unsafe {
        let row = to_row(reach(from, k));
        bytes_by(row, from, k, to);
        row
    }
}

/// The least and the greatest of some numbers and zero, and NaN if one is not finite, else zero.
///
/// # Safety
/// As [`row_to_int8`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn reach(from: *const f32, k: usize) -> [f32; 3] {
    let zero = _mm512_setzero_ps();
    let (mut least, mut most, mut poison) = (zero, zero, zero);
    let mut at = 0;
    while at < k {
        // SAFETY: masked to what is there.
        let floats = unsafe { _mm512_maskz_loadu_ps(mask(k - at), from.add(at)) };
        least = _mm512_min_ps(least, floats);
        most = _mm512_max_ps(most, floats);
        poison = _mm512_fmadd_ps(floats, zero, poison);
        at += 16;
    }
    [
        _mm512_reduce_min_ps(least),
        _mm512_reduce_max_ps(most),
        _mm512_reduce_add_ps(poison),
    ]
}

fn to_row([least, most, poison]: [f32; 3]) -> Row {
    let scale = (most - least) / 255.0;
    let scale = if scale > 0.0 { scale } else { 1.0 };
    Row {
        // What is not a number shall not pass for one.
        scale: scale + poison,
        zero: (-least / scale).round_ties_even() as i32,
    }
}

/// # Safety
/// As [`row_to_int8`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn bytes_by(row: Row, from: *const f32, k: usize, to: *mut u8) {
    let factor = _mm512_set1_ps(1.0 / row.scale);
    let zero = _mm512_set1_epi32(row.zero);
    let mut at = 0;
    while at < k {
        let some = mask(k - at);
        // SAFETY: masked to what is there.
        unsafe {
            let floats = _mm512_maskz_loadu_ps(some, from.add(at));
            let whole = _mm512_cvtps_epi32(_mm512_mul_ps(floats, factor));
            let whole = _mm512_add_epi32(whole, zero);
            let whole = _mm512_max_epi32(whole, _mm512_setzero_si512());
            _mm512_mask_cvtusepi32_storeu_epi8(to.add(at).cast(), some, whole);
        }
        at += 16;
    }
}

/// Steps of depth that are taken at once: what they need of a panel and of some rows stays in the nearest
/// cache.
const DEPTH: usize = 8;
/// The bytes of panels that pass rows one after the other, which stay in the second cache.
const TOGETHER: usize = 3 << 18;

#[inline(always)]
unsafe fn prefetch(line: *const u8) {
    // SAFETY: the caller's CPU has the instruction, which fails for no address.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(line.cast()) };
}

/// Sums of some rows by a panel.
#[derive(Clone)]
#[repr(C, align(64))]
struct Sums([f32; ROWS * WIDTH]);

/// Where a product goes.
#[derive(Clone, Copy)]
enum Out {
    F32(*mut f32),
    Bf16(*mut u16),
}

impl Out {
    fn of(numbers: NumbersMut<'_>) -> Self {
        match numbers {
            NumbersMut::F32(out) => Self::F32(out.as_mut_ptr()),
            NumbersMut::Bf16(out) => Self::Bf16(out.as_mut_ptr()),
        }
    }
}

// SAFETY: no two tasks write the same element.
unsafe impl Send for Out {}
// SAFETY: as above.
unsafe impl Sync for Out {}

struct Block<'a> {
    /// The first row of the range.
    a: *const u8,
    stride: usize,
    /// Of the range.
    rows: &'a [Row],
    b: &'a Narrow,
    ending: Ending<'a>,
    out: Out,
    range: Range<usize>,
    panels: Range<usize>,
}

impl Block<'_> {
    /// # Safety
    /// The CPU has AVX512-BF16, and AMX if `b` is packed for it; the pointers are valid for the ranges.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
    unsafe fn bf16(&self) {
        // SAFETY: the caller's.
        unsafe { self.all::<false>() };
    }

    /// # Safety
    /// The CPU has AVX512-VNNI, and AMX if `b` is packed for it; the pointers are valid for the ranges.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
    unsafe fn int8(&self) {
        // SAFETY: the caller's.
        unsafe { self.all::<true>() };
    }

    #[inline(always)]
    unsafe fn all<const INT: bool>(&self) {
        // The tiles' least is 16 rows.
        let tiled = self.b.unit == Unit::Tiles && self.range.len() > 4;
        let steps = self.b.steps;
        // SAFETY: the caller's; tiles are there where `b` is packed for them.
        unsafe {
            let tiles = tiled.then(|| amx::Tiles::configure());
            if steps <= DEPTH || !tiled {
                self.by_rows::<INT>(tiles.as_ref());
            } else {
                self.by_panels::<INT>(tiles.as_ref());
            }
        }
    }

    /// Rows stay in the nearest cache, and all panels pass them.
    #[inline(always)]
    unsafe fn by_rows<const INT: bool>(&self, tiles: Option<&amx::Tiles>) {
        let mut sums = Sums([0.0; ROWS * WIDTH]);
        let sums = sums.0.as_mut_ptr();
        for panels in self.together() {
            let mut first = self.range.start;
            while first < self.range.end {
                let count = ROWS.min(self.range.end - first);
                for panel in panels.clone() {
                    // SAFETY: the caller's.
                    unsafe {
                        if first == self.range.start {
                            self.prefetch_after(panel);
                        }
                        Product {
                            a: self.a.add((first - self.range.start) * self.stride),
                            a_stride: self.stride,
                            count,
                            b: self.b.panel(panel),
                            steps: self.b.steps,
                            out: sums,
                            out_stride: WIDTH,
                        }
                        .run::<INT>(tiles, true);
                        self.finish::<INT>(sums, panel, first, count);
                    }
                }
                first += count;
            }
        }
    }

    /// The panels, as many at once as stay in the second cache while all rows pass them.
    fn together(&self) -> impl Iterator<Item = Range<usize>> {
        let count = (TOGETHER / (self.b.lines * 64).max(1)).max(1);
        let Range { start, end } = self.panels;
        let starts = (start..end).step_by(count);
        starts.map(move |first| first..end.min(first + count))
    }

    /// Has the panel after this one brought into the second cache, if there is one.
    #[inline(always)]
    unsafe fn prefetch_after(&self, panel: usize) {
        let lines = self.b.lines;
        let next = self.b.panel(panel).wrapping_add(lines * 64);
        for line in 0..lines {
            // SAFETY: the caller's; what is prefetched need not be there.
            unsafe { prefetch(next.wrapping_add(line * 64)) };
        }
    }

    /// A part of a panel stays in the nearest cache, and all rows pass it.
    #[inline(always)]
    unsafe fn by_panels<const INT: bool>(&self, tiles: Option<&amx::Tiles>) {
        let groups = self.range.len().div_ceil(ROWS);
        let mut sums = vec![Sums([0.0; ROWS * WIDTH]); groups];
        let sums: *mut f32 = sums.as_mut_ptr().cast();
        let depths = self.b.steps.div_ceil(DEPTH);
        for panel in self.panels.clone() {
            for depth in 0..depths {
                let from = depth * self.b.steps / depths;
                let steps = (depth + 1) * self.b.steps / depths - from;
                // SAFETY: the caller's; what is prefetched need not be there.
                unsafe {
                    let b = self.b.panel(panel).add(from * STEP * WIDTH);
                    let next = b.wrapping_add(steps * STEP * WIDTH);
                    for group in 0..groups {
                        let first = self.range.start + group * ROWS;
                        let count = ROWS.min(self.range.end - first);
                        let row = first - self.range.start;
                        let sums = sums.add(group * ROWS * WIDTH);
                        let lines = steps * WIDTH;
                        for line in group * lines / groups..(group + 1) * lines / groups {
                            prefetch(next.wrapping_add(line * 64));
                        }
                        Product {
                            a: self.a.add(row * self.stride + from * STEP),
                            a_stride: self.stride,
                            count,
                            b,
                            steps,
                            out: sums,
                            out_stride: WIDTH,
                        }
                        .run::<INT>(tiles, depth == 0);
                        if depth == depths - 1 {
                            self.finish::<INT>(sums, panel, first, count);
                        }
                    }
                }
            }
        }
    }

    /// Scales, adds, applies the activation and writes.
    #[inline(always)]
    unsafe fn finish<const INT: bool>(
        &self,
        sums: *const f32,
        panel: usize,
        first: usize,
        count: usize,
    ) {
        let n = self.b.n;
        let column = panel * WIDTH;
        let columns = WIDTH.min(n - column);
        // SAFETY: the caller's; what is beyond the columns is masked, or is there in the panel.
        unsafe {
            let zero = _mm512_setzero_ps();
            let [mut scales, mut offsets, mut bias] = [[zero; 2]; 3];
            let some = [mask(columns), mask(columns.saturating_sub(16))];
            for side in 0..2 {
                let at = column + 16 * side;
                if INT {
                    scales[side] = _mm512_loadu_ps(self.b.scales.as_ptr().add(at));
                    offsets[side] = _mm512_loadu_ps(self.b.offsets.as_ptr().add(at));
                }
                if let Some(all) = self.ending.bias {
                    let all = all.as_ptr().wrapping_add(at);
                    bias[side] = _mm512_maskz_loadu_ps(some[side], all);
                }
            }
            for row in 0..count {
                let place = (first + row) * n + column;
                let mut values = [zero; 2];
                for side in 0..2 {
                    let sum = _mm512_loadu_ps(sums.add(row * WIDTH + 16 * side));
                    values[side] = if INT {
                        let Row { scale, zero } = self.rows[first - self.range.start + row];
                        let floats = _mm512_cvtepi32_ps(_mm512_castps_si512(sum));
                        let scaled = _mm512_mul_ps(floats, scales[side]);
                        let zero = _mm512_set1_ps(zero as f32);
                        let centred = _mm512_fnmadd_ps(zero, offsets[side], scaled);
                        _mm512_fmadd_ps(centred, _mm512_set1_ps(scale), bias[side])
                    } else {
                        _mm512_add_ps(sum, bias[side])
                    };
                }
                match self.ending.residual {
                    Some(Numbers::F32(rows)) => {
                        for side in 0..2 {
                            let rows = rows.as_ptr().wrapping_add(place + 16 * side);
                            let added = _mm512_maskz_loadu_ps(some[side], rows);
                            values[side] = _mm512_add_ps(values[side], added);
                        }
                    }
                    Some(Numbers::Bf16(rows)) => {
                        let rows = rows.as_ptr().add(place).cast();
                        let all = u32::from(some[1]) << 16 | u32::from(some[0]);
                        let halves = _mm512_maskz_loadu_epi16(all, rows);
                        let near = _mm512_castsi512_si256(halves);
                        let far = _mm512_extracti64x4_epi64::<1>(halves);
                        let halves = [near, far];
                        for side in 0..2 {
                            let words = _mm512_cvtepu16_epi32(halves[side]);
                            let added = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(words));
                            values[side] = _mm512_add_ps(values[side], added);
                        }
                    }
                    None => {}
                }
                // Not by `map`: what it calls is compiled without the instructions.
                let Avx512(near) = apply(self.ending.activation, Avx512(values[0]));
                let Avx512(far) = apply(self.ending.activation, Avx512(values[1]));
                match self.out {
                    Out::F32(out) => {
                        _mm512_mask_storeu_ps(out.add(place), some[0], near);
                        let far_out = out.wrapping_add(place + 16);
                        _mm512_mask_storeu_ps(far_out, some[1], far);
                    }
                    Out::Bf16(out) => {
                        let all = u32::from(some[1]) << 16 | u32::from(some[0]);
                        let rounded: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(far, near));
                        _mm512_mask_storeu_epi16(out.add(place).cast(), all, rounded);
                    }
                }
            }
        }
    }

    /// Few rows in f32 by weights of int8.
    ///
    /// # Safety
    /// The CPU has AVX-512; the pointers are valid for the ranges; there are at most four rows.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    unsafe fn few(&self) {
        let mut sums = Sums([0.0; ROWS * WIDTH]);
        let to = sums.0.as_mut_ptr();
        // SAFETY: the caller's.
        unsafe {
            for panel in self.panels.clone() {
                let b = self.b.panel(panel);
                let a = self.a.cast();
                let (stride, steps) = (self.stride / 4, self.b.steps);
                let count = self.range.len();
                match count {
                    1 => weigh::<1>(a, stride, b, steps, to),
                    2 => weigh::<2>(a, stride, b, steps, to),
                    3 => weigh::<3>(a, stride, b, steps, to),
                    _ => weigh::<4>(a, stride, b, steps, to),
                }
                let scales = self.b.scales.as_ptr().add(panel * WIDTH);
                for row in 0..count {
                    for at in [0, 16] {
                        let sums = to.add(row * WIDTH + at);
                        let sum = Avx512::load(sums).mul(Avx512::load(scales.add(at)));
                        sum.store(sums);
                    }
                }
                self.finish::<false>(to, panel, self.range.start, count);
            }
        }
    }
}

/// Sums of the products of up to 32 rows by a panel, or by a part of its depth.
pub(crate) struct Product {
    /// Rows, `a_stride` bytes apart: `count` of them, and for tiles as many as make 16 or 32.
    pub(crate) a: *const u8,
    pub(crate) a_stride: usize,
    pub(crate) count: usize,
    pub(crate) b: *const u8,
    pub(crate) steps: usize,
    /// As many rows of 32 sums, `out_stride` sums apart.
    pub(crate) out: *mut f32,
    pub(crate) out_stride: usize,
}

impl Product {
    /// What is in `out` is added to by tiles, unless it is `fresh`; without tiles it is always fresh.
    ///
    /// # Safety
    /// The CPU has the instructions; the pointers are valid for the shapes.
    #[inline(always)]
    pub(crate) unsafe fn run<const INT: bool>(&self, tiles: Option<&amx::Tiles>, fresh: bool) {
        let Self {
            a,
            a_stride,
            count,
            b,
            steps,
            out,
            out_stride,
        } = *self;
        // SAFETY: the caller's.
        unsafe {
            if let Some(tiles) = tiles {
                let pair = [a, a.wrapping_add(16 * a_stride)];
                let (two, out_stride) = (count > 16, 4 * out_stride);
                match (fresh, two) {
                    (true, _) => amx::clear(tiles),
                    (false, true) => amx::load_32(tiles, out, out_stride),
                    (false, false) => amx::load_16(tiles, out, out_stride),
                }
                match (INT, two) {
                    (false, true) => amx::bf16_32(tiles, pair, a_stride, b, steps),
                    (false, false) => amx::bf16_16(tiles, a, a_stride, b, steps),
                    (true, true) => amx::int8_32(tiles, pair, a_stride, b, steps),
                    (true, false) => amx::int8_16(tiles, a, a_stride, b, steps),
                }
                return match two {
                    true => amx::store_32(tiles, out, out_stride),
                    false => amx::store_16(tiles, out, out_stride),
                };
            }
            let mut done = 0;
            while done < count {
                let a = a.add(done * a_stride);
                let to = out.add(done * out_stride);
                done += match count - done {
                    8.. => dots::<8, INT>(a, a_stride, b, steps, to, out_stride),
                    4.. => dots::<4, INT>(a, a_stride, b, steps, to, out_stride),
                    2.. => dots::<2, INT>(a, a_stride, b, steps, to, out_stride),
                    _ => dots::<1, INT>(a, a_stride, b, steps, to, out_stride),
                };
            }
        }
    }
}

/// The sums of products of `COUNT` rows by a panel.
#[inline(always)]
unsafe fn dots<const COUNT: usize, const INT: bool>(
    a: *const u8,
    stride: usize,
    b: *const u8,
    steps: usize,
    to: *mut f32,
    to_stride: usize,
) -> usize {
    // SAFETY: the caller's; vectors of numbers have no invalid bits.
    unsafe {
        let mut left = [_mm512_setzero_si512(); COUNT];
        let mut right = [_mm512_setzero_si512(); COUNT];
        for step in 0..steps {
            for four in 0..16 {
                let b = b.add(step * STEP * WIDTH + four * 64);
                let near = _mm512_loadu_si512(b.cast());
                let far = _mm512_loadu_si512(b.add(amx::TILE).cast());
                for row in 0..COUNT {
                    let a = a.add(row * stride + step * STEP + four * 4);
                    let factor = _mm512_set1_epi32(a.cast::<i32>().read_unaligned());
                    if INT {
                        left[row] = _mm512_dpbusd_epi32(left[row], factor, near);
                        right[row] = _mm512_dpbusd_epi32(right[row], factor, far);
                    } else {
                        let factor: __m512bh = std::mem::transmute(factor);
                        let product = |sum: __m512i, b: __m512i| {
                            let b: __m512bh = std::mem::transmute(b);
                            let sum = _mm512_dpbf16_ps(_mm512_castsi512_ps(sum), factor, b);
                            _mm512_castps_si512(sum)
                        };
                        left[row] = product(left[row], near);
                        right[row] = product(right[row], far);
                    }
                }
            }
        }
        for row in 0..COUNT {
            _mm512_storeu_si512(to.add(row * to_stride).cast(), left[row]);
            _mm512_storeu_si512(to.add(row * to_stride + 16).cast(), right[row]);
        }
    }
    COUNT
}

/// The sums of products of `COUNT` rows of floats by a panel of bytes, without the scales.
#[inline(always)]
unsafe fn weigh<const COUNT: usize>(
    a: *const f32,
    stride: usize,
    b: *const u8,
    steps: usize,
    to: *mut f32,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut left = [_mm512_setzero_ps(); COUNT];
        let mut right = [_mm512_setzero_ps(); COUNT];
        for step in 0..steps {
            for four in 0..16 {
                let b = b.add(step * STEP * WIDTH + four * 64);
                let near = _mm512_loadu_si512(b.cast());
                let far = _mm512_loadu_si512(b.add(amx::TILE).cast());
                let a = a.add(step * STEP + four * 4);
                macro_rules! byte {
                    ($($index:literal: $shift:literal)*) => {$({
                        let near = _mm512_srai_epi32::<24>(_mm512_slli_epi32::<$shift>(near));
                        let far = _mm512_srai_epi32::<24>(_mm512_slli_epi32::<$shift>(far));
                        let (near, far) = (_mm512_cvtepi32_ps(near), _mm512_cvtepi32_ps(far));
                        for row in 0..COUNT {
                            let factor = _mm512_set1_ps(*a.add(row * stride + $index));
                            left[row] = _mm512_fmadd_ps(factor, near, left[row]);
                            right[row] = _mm512_fmadd_ps(factor, far, right[row]);
                        }
                    })*};
                }
                byte!(0: 24 1: 16 2: 8 3: 0);
            }
        }
        for row in 0..COUNT {
            _mm512_storeu_ps(to.add(row * WIDTH), left[row]);
            _mm512_storeu_ps(to.add(row * WIDTH + 16), right[row]);
        }
    }
}
