//! Products of matrices, the right one packed once: `act(A · B + bias + residual)` in one pass.
//!
//! The right matrix is cut into panels of two vectors' width, so that a tile of the product needs two
//! loads and a broadcast for each row of `A` at every step, with all its sums in registers. The left one
//! is read as it lies.

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::ops::Range;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use crate::activation::{Activate, Activation};
use crate::aligned::Aligned;
use crate::attention::dot;
use crate::simd::{Isa, Kernel, Vector};

/// A matrix `[k, n]`, packed in panels.
#[derive(Debug)]
pub struct Packed {
    data: Aligned,
    k: usize,
    n: usize,
    isa: Isa,
}

/// Elements of a matrix, as they are stored.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub enum Stored<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
}

impl Stored<'_> {
    fn len(self) -> usize {
        match self {
            Stored::F32(data) => data.len(),
            Stored::F16(data) => data.len(),
            Stored::Bf16(data) => data.len(),
        }
    }

    /// Reads elements that are `stride` apart.
    pub(crate) fn read(self, start: usize, stride: usize, to: &mut [f32]) {
        let range = start..start + to.len();
        let places = to.iter_mut().enumerate();
        let places = places.map(|(index, value)| (start + index * stride, value));
        match self {
            Stored::F16(data) if stride == 1 => data[range].convert_to_f32_slice(to),
            Stored::Bf16(data) if stride == 1 => data[range].convert_to_f32_slice(to),
            Stored::F32(data) => places.for_each(|(place, value)| *value = data[place]),
            Stored::F16(data) => places.for_each(|(place, value)| *value = data[place].to_f32()),
            Stored::Bf16(data) => places.for_each(|(place, value)| *value = data[place].to_f32()),
        }
    }

    /// A vector of elements.
    ///
    /// # Safety
    /// They are there, and the CPU has the instructions of `V`.
    #[inline(always)]
    unsafe fn load<V: Vector>(self, start: usize) -> V {
        // SAFETY: the caller's.
        unsafe {
            match self {
                Stored::F32(data) => V::load(data.as_ptr().add(start)),
                Stored::F16(data) => V::load_f16(data.as_ptr().add(start).cast()),
                Stored::Bf16(data) => V::load_bf16(data.as_ptr().add(start).cast()),
            }
        }
    }

    /// Where an element is, or would be.
    fn place(self, index: usize) -> *const u8 {
        match self {
            Stored::F32(data) => data.as_ptr().wrapping_add(index).cast(),
            Stored::F16(data) => data.as_ptr().wrapping_add(index).cast(),
            Stored::Bf16(data) => data.as_ptr().wrapping_add(index).cast(),
        }
    }
}

/// Where a matrix's elements are: `data[row · strides[0] + column · strides[1]]`.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The elements.
    pub data: Stored<'a>,
    /// Rows and columns.
    pub shape: [usize; 2],
    /// Of a row and a column.
    pub strides: [usize; 2],
}

impl View<'_> {
    /// Asserts that every element is in `data`.
    pub(crate) fn check(&self) {
        let [rows, columns] = self.shape;
        if rows > 0 && columns > 0 {
            let last = (rows - 1) * self.strides[0] + (columns - 1) * self.strides[1];
            assert!(last < self.data.len(), "a view beyond its data");
        }
    }
}

impl Packed {
    /// Packs a matrix, in parallel.
    ///
    /// # Panics
    /// The view reaches beyond its data, or the set is not present.
    pub fn new(isa: Isa, matrix: View<'_>) -> Self {
        matrix.check();
        assert!(Isa::present().contains(&isa), "an absent set");
        let [k, n] = matrix.shape;
        let width = 2 * isa.lanes();
        let mut data = Aligned::zeros(k * n.next_multiple_of(width));
        if k > 0 {
            let panels = data.par_chunks_mut(k * width).enumerate();
            panels.for_each(|(panel, packed)| {
                let first = panel * width;
                // SAFETY: the caller says that `isa` is present; the view is checked.
                unsafe {
                    isa.run(PackPanel {
                        matrix,
                        first,
                        packed,
                    });
                }
            });
        }
        Self { data, k, n, isa }
    }

    /// Rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        [self.k, self.n]
    }

    /// Where a panel begins.
    pub(crate) fn panel(&self, index: usize) -> *const f32 {
        self.data[index * 2 * self.isa.lanes() * self.k..].as_ptr()
    }

    /// What to prefetch with tile `index` of `tiles` at a panel, where `together` panels are used at once:
    /// the first tile its own panel's rest, and the others in parts that of the next turn.
    pub(crate) fn ahead(
        &self,
        panel: usize,
        together: usize,
        depth: Range<usize>,
        index: usize,
        tiles: usize,
    ) -> Ahead {
        let width = 2 * self.isa.lanes();
        let next = panel + together;
        let at = |panel: usize| self.panel(panel).wrapping_add(depth.start * width);
        if index == 0 {
            Ahead::further(at(panel), width * size_of::<f32>())
        } else if next * width < self.n {
            let bytes = depth.len() * width * size_of::<f32>();
            Ahead::new(at(next), bytes, index - 1, tiles - 1, depth.len())
        } else {
            Ahead::none(at(panel))
        }
    }

    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.data[..])
    }
}

/// Packs the columns of a panel, of which those beyond the matrix stay what they are.
struct PackPanel<'a> {
    matrix: View<'a>,
    first: usize,
    packed: &'a mut [f32],
}

impl Kernel for PackPanel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        /// How many elements of a column ahead memory is asked for.
        const AHEAD: usize = 256;
        let View {
            data,
            shape: [k, n],
            strides: [row_stride, column_stride],
        } = self.matrix;
        let width = 2 * V::LANES;
        let columns = width.min(n - self.first);
        assert!(self.packed.len() >= k * width);
        let mut tile = [0.0; MOST_LANES * MOST_LANES];
        // Squares of vectors, of which both sides are in the nearest cache.
        for depth in (0..k).step_by(V::LANES) {
            let rows = V::LANES.min(k - depth);
            for side in (0..columns).step_by(V::LANES) {
                let some = V::LANES.min(columns - side);
                let from = depth * row_stride + (self.first + side) * column_stride;
                let to = &mut self.packed[depth * width + side..];
                let whole = rows == V::LANES && some == V::LANES;
                if whole && row_stride == 1 {
                    // SAFETY: the CPU has the instructions; the square is within the view, which was checked, and
                    // within the panel.
                    unsafe {
                        let places = (0..V::LANES).map(|column| from + column * column_stride);
                        for place in places.clone() {
                            V::prefetch_near(data.place(place + AHEAD));
                        }
                        let to = to.as_mut_ptr();
                        if let Stored::F32(data) = data {
                            V::transpose(data.as_ptr().add(from), column_stride, to, width);
                        } else {
                            for (column, place) in places.enumerate() {
                                let wide = tile.as_mut_ptr().add(column * V::LANES);
                                data.load::<V>(place).store(wide);
                            }
                            V::transpose(tile.as_ptr(), V::LANES, to, width);
                        }
                    }
                } else if some == V::LANES && column_stride == 1 {
                    for row in 0..rows {
                        // SAFETY: as above.
                        unsafe {
                            let row_of = data.load::<V>(from + row * row_stride);
                            row_of.store(to.as_mut_ptr().add(row * width));
                        }
                    }
                } else {
                    for row in 0..rows {
                        let to = &mut to[row * width..][..some];
                        data.read(from + row * row_stride, column_stride, to);
                    }
                }
            }
        }
    }
}

/// What is added to a product, and what is made of the sum.
#[derive(Debug, Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// One for each column, `[n]`.
    pub bias: Option<&'a [f32]>,
    /// `[m, n]`, row after row.
    pub residual: Option<&'a [f32]>,
    /// Applied to the sum.
    pub activation: Activation,
}

/// `out = act(a · b + bias + residual)` of `a` `[m, k]`, row after row.
///
/// # Panics
/// Lengths and shapes do not fit.
pub fn multiply(a: &[f32], b: &Packed, epilogue: Epilogue<'_>, out: &mut [f32]) {
    let (k, n) = (b.k, b.n);
    if n == 0 || out.is_empty() {
        return;
    }
    let m = out.len() / n;
    assert!(
        out.len() == m * n && a.len() == m * k,
        "shapes of a product"
    );
    let left = Matrix {
        data: a.as_ptr(),
        columns: k,
    };
    // SAFETY: the matrix has `m` rows of the depth of `b`.
    unsafe { multiply_rows(left, b, 0, n, epilogue, out) };
}

/// The same for rows that need not lie in memory, into the columns from `first` of an output of `stride` columns.
///
/// # Panics
/// Lengths and shapes do not fit.
///
/// # Safety
/// `left` has as many rows as `out`, each as long as `b` is deep.
pub(crate) unsafe fn multiply_rows<R: Rows>(
    left: R,
    b: &Packed,
    first: usize,
    stride: usize,
    epilogue: Epilogue<'_>,
    out: &mut [f32],
) {
    if out.is_empty() {
        return;
    }
    assert!(first + b.n <= stride);
    let m = out.len() / stride;
    assert!(out.len() == m * stride);
    assert!(epilogue.bias.is_none_or(|bias| bias.len() == stride));
    assert!(epilogue.residual.is_none_or(|rows| rows.len() == out.len()));
    let isa = b.isa;
    let panels = b.n.div_ceil(2 * isa.lanes());
    let out = Shared(out.as_mut_ptr());
    Tasks::new(m, panels, b.k, isa).run(|rows, panels| {
        // SAFETY: `isa` packed `b`, so it is present. The rows are the caller's; `bias` and `residual` have
        // the lengths asserted above, and no two tasks share an element of `out`.
        unsafe {
            isa.run(Block {
                left,
                b,
                epilogue,
                out: out.get(),
                first,
                stride,
                rows,
                panels,
            });
        }
    });
}

thread_local! {
    /// Panels that are forgotten.
    static PANELS: RefCell<Aligned> = RefCell::default();
}

/// The same as [`multiply`], to the last bit, by a matrix of which a panel is packed when it is needed and then
/// forgotten: less work than packing all of it, if it is used once.
///
/// # Panics
/// Lengths and shapes do not fit, the view reaches beyond its data, or the set is not present.
pub fn multiply_once(isa: Isa, a: &[f32], b: View<'_>, epilogue: Epilogue<'_>, out: &mut [f32]) {
    b.check();
    assert!(Isa::present().contains(&isa), "an absent set");
    let [k, n] = b.shape;
    if n == 0 || out.is_empty() {
        return;
    }
    let m = out.len() / n;
    assert!(
        out.len() == m * n && a.len() == m * k,
        "shapes of a product"
    );
    assert!(epilogue.bias.is_none_or(|bias| bias.len() == n));
    assert!(epilogue.residual.is_none_or(|rows| rows.len() == m * n));
    let left = Matrix {
        data: a.as_ptr(),
        columns: k,
    };
    let width = 2 * isa.lanes();
    // They stay in the second cache until they are used.
    let together = (CACHE / 4 / (width * k).max(1)).max(1);
    let out = Shared(out.as_mut_ptr());
    Tasks::new(m, n.div_ceil(width), k, isa).run(|rows, panels| {
        let mut data = PANELS.take();
        data.reserve(together.min(panels.len()) * width * k);
        let mut some = Packed { data, k, n, isa };
        for start in panels.clone().step_by(together) {
            let count = together.min(panels.end - start);
            let first = start * width;
            some.n = (count * width).min(n - first);
            // SAFETY: the set is present; the view and the lengths are checked above, and no two tasks share an
            // element of `out`.
            unsafe {
                for panel in 0..count {
                    isa.run(PackPanel {
                        matrix: b,
                        first: first + panel * width,
                        packed: &mut some.data[panel * k * width..][..k * width],
                    });
                }
                isa.run(Block {
                    left,
                    b: &some,
                    epilogue,
                    out: out.get(),
                    first,
                    stride: n,
                    rows: rows.clone(),
                    panels: 0..count,
                });
            }
        }
        PANELS.set(some.data);
    });
}

/// `out = a · b` over some panels of `b`, on this thread alone. `out` has all of its columns.
///
/// # Safety
/// `left` and `out` have `rows` rows, those of `left` as long as `b` is deep.
pub(crate) unsafe fn multiply_block(
    left: Matrix,
    b: &Packed,
    rows: usize,
    panels: Range<usize>,
    out: *mut f32,
) {
    // SAFETY: `isa` packed `b`, so it is present; the rest is the caller's.
    unsafe {
        b.isa.run(Block {
            left,
            b,
            epilogue: Epilogue::default(),
            out,
            first: 0,
            stride: b.n,
            rows: 0..rows,
            panels,
        });
    }
}

/// The rows of the left matrix of a product.
pub(crate) trait Rows: Copy + Send + Sync {
    /// Copies a part of a row.
    ///
    /// # Safety
    /// The row exists and has the part, for which there is room at `to`.
    unsafe fn copy<V: Vector>(&self, row: usize, part: Range<usize>, to: *mut f32);
}

/// Rows one after the other.
#[derive(Clone, Copy)]
pub(crate) struct Matrix {
    pub(crate) data: *const f32,
    pub(crate) columns: usize,
}

// SAFETY: it is only read, while whoever made it holds the data.
unsafe impl Send for Matrix {}
// SAFETY: as above.
unsafe impl Sync for Matrix {}

impl Rows for Matrix {
    #[inline(always)]
    unsafe fn copy<V: Vector>(&self, row: usize, part: Range<usize>, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe {
            let from = self.data.add(row * self.columns + part.start);
            std::ptr::copy_nonoverlapping(from, to, part.len());
        }
    }
}

/// The same as [`multiply`] for few rows and a right matrix given as `[n, k]`, row after row; the shape is
/// `[m, k, n]`.
///
/// # Panics
/// Lengths and shapes do not fit.
pub fn multiply_few(
    isa: Isa,
    a: &[f32],
    b: &[f32],
    [m, k, n]: [usize; 3],
    epilogue: Epilogue<'_>,
    out: &mut [f32],
) {
    if out.is_empty() {
        return;
    }
    assert!(a.len() == m * k && out.len() == m * n && b.len() >= n * k);
    assert!(epilogue.bias.is_none_or(|bias| bias.len() == n));
    assert!(epilogue.residual.is_none_or(|rows| rows.len() == m * n));
    let threads = rayon::current_num_threads();
    let small = n * k < 1 << 15;
    let tasks = if small { 1 } else { (4 * threads).min(n) };
    let out = Shared(out.as_mut_ptr());
    let work = |task: usize| {
        // SAFETY: `isa` is present; the lengths are asserted above; no two tasks share a column.
        unsafe {
            isa.run(Columns {
                a: a.as_ptr(),
                b: b.as_ptr(),
                m,
                k,
                n,
                columns: task * n / tasks..(task + 1) * n / tasks,
                epilogue,
                out: out.get(),
            });
        }
    };
    if tasks == 1 {
        work(0);
    } else {
        (0..tasks).into_par_iter().with_max_len(1).for_each(work);
    }
}

/// Some columns of a product of few rows.
struct Columns<'a> {
    a: *const f32,
    b: *const f32,
    m: usize,
    k: usize,
    n: usize,
    columns: Range<usize>,
    epilogue: Epilogue<'a>,
    out: *mut f32,
}

impl Kernel for Columns<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        const GROUP: usize = 4;
        let Range { start, end } = self.columns;
        // SAFETY: `multiply_few` has checked the lengths.
        unsafe {
            for row in 0..self.m {
                let a = self.a.add(row * self.k);
                let out = self.out.add(row * self.n);
                let mut column = start;
                while column < end {
                    let count = GROUP.min(end - column);
                    let mut results = [0.0; GROUP];
                    if count == GROUP {
                        let mut sums = [V::splat(0.0); GROUP];
                        let b = self.b.add(column * self.k);
                        let mut at = 0;
                        while at + V::LANES <= self.k {
                            let factor = V::load(a.add(at));
                            for index in 0..GROUP {
                                let b = V::load(b.add(index * self.k + at));
                                sums[index] = factor.fma(b, sums[index]);
                            }
                            at += V::LANES;
                        }
                        if at < self.k {
                            let rest = self.k - at;
                            let factor = V::load_some(a.add(at), rest);
                            for index in 0..GROUP {
                                let b = V::load_some(b.add(index * self.k + at), rest);
                                sums[index] = factor.fma(b, sums[index]);
                            }
                        }
                        for index in 0..GROUP {
                            results[index] = sums[index].sum();
                        }
                    } else {
                        for index in 0..count {
                            let b = self.b.add((column + index) * self.k);
                            results[index] = dot::<V>(a, b, self.k);
                        }
                    }
                    for index in 0..count {
                        let place = column + index;
                        let mut value = results[index];
                        if let Some(bias) = self.epilogue.bias {
                            value += *bias.as_ptr().add(place);
                        }
                        if let Some(residual) = self.epilogue.residual {
                            value += *residual.as_ptr().add(row * self.n + place);
                        }
                        *out.add(place) = value;
                    }
                    column += count;
                }
                Activate {
                    activation: self.epilogue.activation,
                    from: out.add(start),
                    to: out.add(start),
                    count: end - start,
                }
                .run::<V>();
            }
        }
    }
}

/// A pointer that tasks share, each writing elements of its own.
#[derive(Clone, Copy)]
pub(crate) struct Shared(pub(crate) *mut f32);

// SAFETY: whoever makes one sees to it that no two tasks touch the same element.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(crate) fn get(self) -> *mut f32 {
        self.0
    }
}

/// How a product is cut into blocks for the threads.
struct Tasks {
    m: usize,
    panels: usize,
    row_blocks: usize,
    panel_blocks: usize,
}

impl Tasks {
    fn new(m: usize, panels: usize, k: usize, isa: Isa) -> Self {
        let threads = rayon::current_num_threads();
        let tile = isa.rows();
        let small = m * panels * k < 1 << 16;
        let wanted = if threads == 1 || small {
            1
        } else {
            4 * threads
        };
        // A block of rows of at most 1 MiB.
        let rows = ((1 << 18) / k.max(1)).clamp(4 * tile, 1024);
        let mut row_blocks = m.div_ceil(rows);
        if 2 * isa.lanes() * panels * k <= CACHE {
            // All panels stay in the second cache, so that each row is copied only once.
            row_blocks = row_blocks.max(wanted.min(m / (2 * tile))).max(1);
        }
        let panel_blocks = wanted.div_ceil(row_blocks).min(panels);
        Self {
            m,
            panels,
            row_blocks,
            panel_blocks,
        }
    }

    /// Calls `work` with the rows and panels of each block.
    fn run(&self, work: impl Fn(Range<usize>, Range<usize>) + Sync) {
        let part = |index: usize, parts: usize, whole: usize| {
            index * whole / parts..(index + 1) * whole / parts
        };
        let task = |index: usize| {
            let rows = part(index / self.panel_blocks, self.row_blocks, self.m);
            work(
                rows,
                part(index % self.panel_blocks, self.panel_blocks, self.panels),
            );
        };
        match self.row_blocks * self.panel_blocks {
            1 => task(0),
            count => (0..count).into_par_iter().with_max_len(1).for_each(task),
        }
    }
}

/// A block of a product.
struct Block<'a, R> {
    left: R,
    b: &'a Packed,
    epilogue: Epilogue<'a>,
    out: *mut f32,
    /// The column of the output where the product begins, and how many columns the output has.
    first: usize,
    stride: usize,
    rows: Range<usize>,
    panels: Range<usize>,
}

impl<R: Rows> Kernel for Block<'_, R> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let k = self.b.k;
        let width = 2 * V::LANES;
        let tile = self.b.isa.rows();
        let count = self.rows.len();
        let tiles = count.div_ceil(tile);
        let depths = k.div_ceil(DEPTH).max(1);
        let mut copy = MaybeUninit::<[f32; MOST_ROWS * COPY_STRIDE]>::uninit();
        let copy = copy.as_mut_ptr().cast::<f32>();
        // SAFETY: rows and panels are those of the matrices, whose lengths `multiply` has checked; a part
        // of the depth is at most `DEPTH`, and of `copy` only what was written is read.
        unsafe {
            for depth in 0..depths {
                let (from, to) = (depth * k / depths, (depth + 1) * k / depths);
                let together = (CACHE / (width * (to - from).max(1))).max(1);
                let mut panels = self.panels.clone();
                while !panels.is_empty() {
                    let some = panels.start..panels.end.min(panels.start + together);
                    panels.start = some.end;
                    for index in 0..tiles {
                        let first = self.rows.start + index * count / tiles;
                        let rows = self.rows.start + (index + 1) * count / tiles - first;
                        for row in 0..rows {
                            self.left
                                .copy::<V>(first + row, from..to, copy.add(row * COPY_STRIDE));
                        }
                        for panel in some.clone() {
                            let ahead = self.b.ahead(panel, some.len(), from..to, index, tiles);
                            let rows = first..first + rows;
                            self.tile::<V>(panel, rows, from..to, copy, ahead);
                        }
                    }
                }
            }
        }
    }
}

impl<R: Rows> Block<'_, R> {
    /// One tile of the block over a part of the depth.
    #[inline(always)]
    unsafe fn tile<V: Vector>(
        &self,
        panel: usize,
        rows: Range<usize>,
        depth: Range<usize>,
        a: *const f32,
        ahead: Ahead,
    ) {
        let (k, n) = (self.b.k, self.b.n);
        let width = 2 * V::LANES;
        let column = panel * width;
        let columns = width.min(n - column);
        let at = rows.start * self.stride + self.first + column;
        let last = depth.end == k;
        // SAFETY: the caller's.
        unsafe {
            let out = self.out.add(at);
            let (mut bias, mut residual) = (std::ptr::null(), std::ptr::null());
            if depth.start > 0 {
                residual = out.cast_const();
            } else {
                if let Some(all) = self.epilogue.bias {
                    bias = all.as_ptr().add(self.first + column);
                }
                if let Some(all) = self.epilogue.residual {
                    residual = all.as_ptr().add(at);
                }
            }
            Tile {
                a,
                a_stride: COPY_STRIDE,
                a_step: 1,
                b: self.b.data.as_ptr().add(column * k + depth.start * width),
                b_stride: width,
                k: depth.len(),
                ahead,
                columns,
                bias,
                relu: last && self.epilogue.activation == Activation::Relu,
                residual,
                out,
                out_stride: self.stride,
            }
            .run_rows::<V>(rows.len());
            let activation = self.epilogue.activation;
            if last && activation != Activation::Relu {
                Activate::rows::<V>(activation, out, self.stride, rows.len(), columns);
            }
        }
    }
}

/// How deep a tile goes before the next one's turn: its rows of `A` stay in the nearest cache.
pub(crate) const DEPTH: usize = 768;
/// From a row of a copy to the next. A constant, or the rows' places would not all stay in registers; and not
/// a multiple of some KiB, or the rows would evict each other.
pub(crate) const COPY_STRIDE: usize = DEPTH + MOST_LANES;
/// How many floats of panels are used again and again: they stay in the second cache.
const CACHE: usize = 1 << 18;

/// How many steps of the depth before they are used panels are fetched from the second cache to the nearest.
const NEAR: usize = 10;

/// What to prefetch while a tile is computed: weights come from memory, which takes longer than computing
/// with them when rows are few, and the processor's own prefetching stops at every page.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    from: *const u8,
    /// Bytes, at every step of the depth.
    step: usize,
}

impl Ahead {
    /// The part `index` of `parts` of `bytes` bytes from `from`, over a depth of `k`.
    pub(crate) fn new(
        from: *const f32,
        bytes: usize,
        index: usize,
        parts: usize,
        k: usize,
    ) -> Self {
        let start = index * bytes / parts;
        Self {
            from: from.cast::<u8>().wrapping_add(start),
            step: (bytes / parts).div_ceil(k.max(1)),
        }
    }

    /// What `from` goes on with some pages later, as quickly as it is read.
    pub(crate) fn further(from: *const f32, step: usize) -> Self {
        Self {
            from: from.cast::<u8>().wrapping_add(1 << 12),
            step,
        }
    }

    /// Nothing but what is there.
    pub(crate) fn none(near: *const f32) -> Self {
        Self {
            from: near.cast(),
            step: 0,
        }
    }
}

/// A few rows by two vectors of a product.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    pub(crate) a: *const f32,
    /// From a row to the next, and from a column to the next.
    pub(crate) a_stride: usize,
    pub(crate) a_step: usize,
    /// Rows of two full vectors, or of one where `columns` is no more.
    pub(crate) b: *const f32,
    pub(crate) b_stride: usize,
    pub(crate) k: usize,
    /// What later tiles need, and how many bytes of it are prefetched at each step.
    pub(crate) ahead: Ahead,
    /// How many of the columns are written.
    pub(crate) columns: usize,
    /// Null where there is none; one for each column.
    pub(crate) bias: *const f32,
    /// Whether what is below zero becomes zero.
    pub(crate) relu: bool,
    /// Null where there is none; laid out as `out`.
    pub(crate) residual: *const f32,
    pub(crate) out: *mut f32,
    pub(crate) out_stride: usize,
}

impl Tile {
    /// # Safety
    /// The pointers are valid for the shapes.
    #[inline(always)]
    pub(crate) unsafe fn run_rows<V: Vector>(&self, rows: usize) {
        // SAFETY: the caller's.
        unsafe {
            if self.columns <= V::LANES {
                self.dispatch::<V, false>(rows);
            } else {
                self.dispatch::<V, true>(rows);
            }
        }
    }

    #[inline(always)]
    unsafe fn dispatch<V: Vector, const WIDE: bool>(&self, rows: usize) {
        // SAFETY: the caller's.
        unsafe {
            // Those that a set never takes are not compiled for it.
            match rows {
                1 => self.run::<V, 1, WIDE>(),
                2 => self.run::<V, 2, WIDE>(),
                3 => self.run::<V, 3, WIDE>(),
                4 => self.run::<V, 4, WIDE>(),
                5 if V::ROWS >= 5 => self.run::<V, 5, WIDE>(),
                6 if V::ROWS >= 6 => self.run::<V, 6, WIDE>(),
                7 if V::ROWS >= 7 => self.run::<V, 7, WIDE>(),
                8 if V::ROWS >= 8 => self.run::<V, 8, WIDE>(),
                9 if V::ROWS >= 9 => self.run::<V, 9, WIDE>(),
                10 if V::ROWS >= 10 => self.run::<V, 10, WIDE>(),
                11 if V::ROWS >= 11 => self.run::<V, 11, WIDE>(),
                12 if V::ROWS >= 12 => self.run::<V, 12, WIDE>(),
                13 if V::ROWS >= 13 => self.run::<V, 13, WIDE>(),
                14 if V::ROWS >= 14 => self.run::<V, 14, WIDE>(),
                _ => {}
            }
        }
    }

    /// With one vector of columns, or two where `WIDE`.
    #[inline(always)]
    unsafe fn run<V: Vector, const ROWS: usize, const WIDE: bool>(&self) {
        // SAFETY: the caller's.
        unsafe {
            let mut lefts = [V::splat(0.0); ROWS];
            let mut rights = [V::splat(0.0); ROWS];
            let (mut a, mut b) = (self.a, self.b);
            let mut ahead = self.ahead.from;
            for _ in 0..self.k {
                V::prefetch(ahead);
                ahead = ahead.wrapping_add(self.ahead.step);
                V::prefetch_near(b.wrapping_add(NEAR * self.b_stride).cast());
                if WIDE && V::LANES == MOST_LANES {
                    let right = b.wrapping_add(NEAR * self.b_stride + V::LANES);
                    V::prefetch_near(right.cast());
                }
                let left = V::load(b);
                let right = if WIDE { V::load(b.add(V::LANES)) } else { left };
                for row in 0..ROWS {
                    let factor = V::splat(*a.add(row * self.a_stride));
                    lefts[row] = factor.fma(left, lefts[row]);
                    if WIDE {
                        rights[row] = factor.fma(right, rights[row]);
                    }
                }
                a = a.add(self.a_step);
                b = b.add(self.b_stride);
            }
            let width = if WIDE { 2 * V::LANES } else { V::LANES };
            if self.columns == width {
                if !self.bias.is_null() {
                    let left = V::load(self.bias);
                    let right = if WIDE {
                        V::load(self.bias.add(V::LANES))
                    } else {
                        left
                    };
                    for row in 0..ROWS {
                        lefts[row] = lefts[row].add(left);
                        rights[row] = rights[row].add(right);
                    }
                }
                if !self.residual.is_null() {
                    for row in 0..ROWS {
                        let from = self.residual.add(row * self.out_stride);
                        lefts[row] = lefts[row].add(V::load(from));
                        if WIDE {
                            rights[row] = rights[row].add(V::load(from.add(V::LANES)));
                        }
                    }
                }
                if self.relu {
                    // In this order a NaN stays one.
                    for row in 0..ROWS {
                        lefts[row] = V::splat(0.0).max(lefts[row]);
                        rights[row] = V::splat(0.0).max(rights[row]);
                    }
                }
                for row in 0..ROWS {
                    let to = self.out.add(row * self.out_stride);
                    lefts[row].store(to);
                    if WIDE {
                        rights[row].store(to.add(V::LANES));
                    }
                }
                return;
            }
            // By way of memory: a loop as large as the one that follows is not unrolled, and what it
            // indexes would not have stayed in registers above.
            let mut sums = [0.0; 2 * MOST_LANES * MOST_ROWS];
            let to = sums.as_mut_ptr();
            for row in 0..ROWS {
                lefts[row].store(to.add(2 * V::LANES * row));
                if WIDE {
                    rights[row].store(to.add(2 * V::LANES * row + V::LANES));
                }
            }
            self.finish::<V>(to, ROWS);
        }
    }

    #[inline(always)]
    unsafe fn finish<V: Vector>(&self, sums: *const f32, rows: usize) {
        // SAFETY: the caller's.
        unsafe {
            for row in 0..rows {
                let mut at = 0;
                while at < self.columns {
                    let count = (self.columns - at).min(V::LANES);
                    let place = row * self.out_stride + at;
                    let mut value = V::load(sums.add(2 * V::LANES * row + at));
                    if !self.bias.is_null() {
                        value = value.add(V::load_some(self.bias.add(at), count));
                    }
                    if !self.residual.is_null() {
                        value = value.add(V::load_some(self.residual.add(place), count));
                    }
                    if self.relu {
                        value = V::splat(0.0).max(value);
                    }
                    value.store_some(self.out.add(place), count);
                    at += V::LANES;
                }
            }
        }
    }
}

/// Of all instruction sets.
const MOST_LANES: usize = 16;
pub(crate) const MOST_ROWS: usize = 14;
