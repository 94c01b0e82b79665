//! Products of matrices whose right one is kept in f16, bf16, int8 or int4: a half, a quarter or a sixth of the
//! memory, and of the time where the CPU has units for them.
//!
//! In bf16 both sides are rounded to it, and products are summed in f32. In int8 a weight's column has a
//! scale, and each row of the left matrix is brought to unsigned bytes by a scale and a zero of its own as
//! it comes (dynamic quantization); sums are exact. Up to [`FEW`] rows in int8, which memory's speed limits,
//! stay in f32. On a CPU without such units, weights are [widened](crate::widened) as they are used and all
//! else is f32; with weights of f16 and int4 it is so everywhere. (AVX512-FP16 sums in f16, which ends at
//! 65,504 and would round every sum once more.)
//!
//! Weights lie in panels of 32 columns, and for units each panel in steps of 64 bytes of depth,
//! 32 bf16 or 64 bytes, as the tile unit wants them: first columns 0..16, then 16..32, in rows of 4 bytes of
//! depth of each column. The products of pairs (AVX512-BF16) and of fours (VNNI) take the same rows.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use crate::activation::Activation;
use crate::aligned::{Line, Lines};
use crate::conv::Patches;
use crate::gemm::{Epilogue, Shared, View};
use crate::simd::{Isa, Kernel, Vector};
use crate::{int4, widened};

/// What weights are kept in, and products computed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// Floats of 32 bits.
    #[default]
    F32,
    /// IEEE 754's floats of 16 bits.
    F16,
    /// The upper half of f32.
    Bf16,
    /// Bytes, with a scale for each column.
    Int8,
    /// Four bits, with a scale for each 32 of a column.
    Int4,
}

/// What computes products of narrow numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Weights are widened, and multiplied in f32.
    Widened(Isa),
    /// AVX512-BF16 or AVX512-VNNI.
    Dots,
    /// AMX.
    Tiles,
}

impl Unit {
    /// The units that this CPU has for a precision, the best last.
    pub fn present(precision: Precision) -> Vec<Unit> {
        let mut present: Vec<Unit> = Isa::present().into_iter().map(Unit::Widened).collect();
        #[cfg(target_arch = "x86_64")]
        if Isa::present().contains(&Isa::Avx512) {
            let bf16 = is_x86_feature_detected!("avx512bf16");
            let int8 = is_x86_feature_detected!("avx512vnni");
            let dots = match precision {
                Precision::F32 | Precision::F16 | Precision::Int4 => false,
                Precision::Bf16 => bf16,
                Precision::Int8 => int8,
            };
            if dots {
                present.push(Unit::Dots);
            }
            // Few rows are left to the other instructions.
            if dots && bf16 && int8 && crate::amx::present() {
                present.push(Unit::Tiles);
            }
        }
        present
    }

    /// The best unit for a precision that [`VARIABLE`](crate::VARIABLE) lets; `None` when it asks for plain
    /// Burn.
    pub fn chosen(precision: Precision) -> Option<Unit> {
        let most = Isa::chosen()?;
        let tiles = crate::simd::tiles_allowed();
        Unit::present(precision)
            .into_iter()
            .rfind(|unit| match *unit {
                Unit::Widened(isa) => isa == most,
                Unit::Dots => most == Isa::Avx512,
                Unit::Tiles => most == Isa::Avx512 && tiles,
            })
    }
}

/// Columns of a panel.
pub(crate) const WIDTH: usize = 32;
/// Bytes of depth of a step.
pub(crate) const STEP: usize = 64;
/// Rows that are computed at once.
pub(crate) const ROWS: usize = 32;
/// Up to this many rows, int8 weights meet rows in f32.
pub const FEW: usize = 4;
/// Beyond this depth sums of bytes could overflow.
const DEEPEST: usize = 1 << 16;

/// A matrix `[k, n]` in f16, bf16, int8 or int4, packed in panels.
#[derive(Debug)]
pub struct Narrow {
    data: Lines,
    precision: Precision,
    k: usize,
    n: usize,
    /// Of int4, blocks.
    steps: usize,
    /// Of a panel.
    lines: usize,
    unit: Unit,
    /// Of int8, for each column of the panels: what its bytes are multiplied by, and the sum of what they
    /// are then.
    scales: Vec<f32>,
    offsets: Vec<f32>,
}

impl Narrow {
    /// Rounds and packs a matrix, in parallel; `None` for f32.
    ///
    /// # Panics
    /// The view reaches beyond its data, or the unit is not present.
    pub fn new(precision: Precision, unit: Unit, matrix: View<'_>) -> Option<Self> {
        matrix.check();
        let [k, n] = matrix.shape;
        assert!(Unit::present(precision).contains(&unit), "an absent unit");
        let unit = match unit {
            Unit::Dots | Unit::Tiles if precision == Precision::Int8 && k > DEEPEST => {
                Unit::Widened(Isa::Avx512)
            }
            unit => unit,
        };
        let bytes = k * widened::size(precision);
        let (steps, lines) = match (precision, unit) {
            (Precision::F32, _) => return None,
            (Precision::Int4, _) => {
                let blocks = k.div_ceil(int4::BLOCK);
                (blocks, blocks * int4::LINES)
            }
            (_, Unit::Widened(_)) => (k, (bytes * WIDTH).div_ceil(64)),
            _ => {
                let steps = bytes.div_ceil(STEP);
                (steps, steps * WIDTH)
            }
        };
        let panels = n.div_ceil(WIDTH);
        let mut data = Lines::zeros(panels * lines);
        let (mut scales, mut offsets) = (Vec::new(), Vec::new());
        if precision == Precision::Int8 {
            scales = vec![0.0; panels * WIDTH];
            offsets = vec![0.0; panels * WIDTH];
        }
        if k > 0 {
            let order = Order::of(precision, unit);
            let chunks = data.par_chunks_mut(lines).enumerate();
            match precision {
                Precision::Int4 => {
                    chunks.for_each(|(panel, packed)| int4::pack(matrix, panel * WIDTH, packed));
                }
                Precision::Int8 => {
                    let columns = scales
                        .par_chunks_mut(WIDTH)
                        .zip(offsets.par_chunks_mut(WIDTH));
                    chunks.zip(columns).for_each(|((panel, packed), columns)| {
                        pack_int8(matrix, panel * WIDTH, order, packed, columns);
                    });
                }
                _ => {
                    let round = if precision == Precision::Bf16 {
                        bf16
                    } else {
                        |x| half::f16::from_f32(x).to_bits()
                    };
                    chunks.for_each(|(panel, packed)| {
                        pack_halves(matrix, panel * WIDTH, order, round, packed);
                    });
                }
            }
        }
        Some(Self {
            data,
            precision,
            k,
            n,
            steps,
            lines,
            unit,
            scales,
            offsets,
        })
    }

    /// Rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        [self.k, self.n]
    }

    /// What it is in.
    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    /// Whether what it is multiplied by, and what comes of that, may be of bf16.
    pub fn takes_bf16(&self) -> bool {
        self.precision == Precision::Bf16 && !matches!(self.unit, Unit::Widened(_))
    }

    /// What computes products with it.
    pub fn unit(&self) -> Unit {
        self.unit
    }

    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.data[..]) + size_of_val(&self.scales[..]) + size_of_val(&self.offsets[..])
    }

    /// A panel.
    pub(crate) fn lines(&self, index: usize) -> &[Line] {
        &self.data[index * self.lines..(index + 1) * self.lines]
    }

    /// What a panel's bytes are multiplied by, in int8.
    pub(crate) fn scales(&self, panel: usize) -> Option<&[f32]> {
        self.scales.get(panel * WIDTH..(panel + 1) * WIDTH)
    }

    /// Where a panel begins.
    fn panel(&self, index: usize) -> *const u8 {
        self.lines(index).as_ptr().cast()
    }
}

/// The nearest bf16, ties to even.
fn bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// Calls `each` with the columns of a panel, the elements of one next to each other.
pub(crate) fn for_columns(matrix: View<'_>, first: usize, mut each: impl FnMut(usize, &[f32])) {
    let [k, n] = matrix.shape;
    let [row, column] = matrix.strides;
    let mut gathered = Vec::new();
    for index in 0..WIDTH.min(n - first) {
        let start = (first + index) * column;
        let values = &matrix.data[start..=start + (k - 1) * row];
        if row == 1 {
            each(index, values);
        } else {
            gathered.clear();
            gathered.extend(values.iter().step_by(row.max(1)).take(k));
            gathered.resize(k, values[0]);
            each(index, &gathered);
        }
    }
}

/// In which order a panel's numbers lie.
#[derive(Clone, Copy)]
enum Order {
    /// Four bytes of a column's depth, then those of the next column, as the units want them.
    Fours,
    /// A number of each column.
    Depths,
}

impl Order {
    fn of(precision: Precision, unit: Unit) -> Self {
        match (precision, unit) {
            (Precision::F16, _) | (_, Unit::Widened(_)) => Self::Depths,
            _ => Self::Fours,
        }
    }

    /// Writes the numbers of a column, of `SIZE` bytes each; the vector is filled up with zeros.
    fn put<const SIZE: usize>(self, packed: &mut [Line], column: usize, bytes: &mut Vec<u8>) {
        match self {
            Self::Fours => {
                bytes.resize(bytes.len().next_multiple_of(4), 0);
                for (index, four) in bytes.as_chunks::<4>().0.iter().enumerate() {
                    let line = index / 16 * WIDTH + column / 16 * 16 + index % 16;
                    let at = column % 16 * 4;
                    packed[line].0[at..at + 4].copy_from_slice(four);
                }
            }
            Self::Depths => {
                for (index, number) in bytes.as_chunks::<SIZE>().0.iter().enumerate() {
                    let at = (index * WIDTH + column) * SIZE;
                    packed[at / 64].0[at % 64..at % 64 + SIZE].copy_from_slice(number);
                }
            }
        }
    }
}

fn pack_halves(
    matrix: View<'_>,
    first: usize,
    order: Order,
    round: impl Fn(f32) -> u16,
    packed: &mut [Line],
) {
    let mut rounded = Vec::with_capacity(2 * matrix.shape[0] + 3);
    for_columns(matrix, first, |column, values| {
        rounded.clear();
        rounded.extend(values.iter().flat_map(|value| round(*value).to_le_bytes()));
        order.put::<2>(packed, column, &mut rounded);
    });
}

fn pack_int8(
    matrix: View<'_>,
    first: usize,
    order: Order,
    packed: &mut [Line],
    (scales, offsets): (&mut [f32], &mut [f32]),
) {
    let isa = Isa::present().pop().unwrap_or(Isa::Plain);
    let mut rounded: Vec<u8> = Vec::with_capacity(matrix.shape[0] + 3);
    for_columns(matrix, first, |column, values| {
        // SAFETY: `isa` is present.
        let (most, poison) = unsafe { isa.run(Reach(values)) };
        let scale = if most > 0.0 { most / 127.0 } else { 1.0 };
        // What is not a number shall not pass for one.
        scales[column] = scale + poison;
        // Adding 1.5 · 2^23 leaves the nearest integer in the lowest bits.
        const MAGIC: f32 = 12_582_912.0;
        let factor = 1.0 / scale;
        rounded.clear();
        rounded.extend(
            values
                .iter()
                .map(|value| (value * factor + MAGIC).to_bits() as u8),
        );
        let sum: i32 = rounded.iter().map(|value| i32::from(*value as i8)).sum();
        offsets[column] = scale * sum as f32;
        order.put::<1>(packed, column, &mut rounded);
    });
}

/// The greatest size of an element, and NaN if one is not finite, else zero.
struct Reach<'a>(&'a [f32]);

impl Kernel for Reach<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    unsafe fn run<V: Vector>(self) -> (f32, f32) {
        // SAFETY: the loads are within the slice.
        unsafe {
            let zero = V::splat(0.0);
            let (mut most, mut poison) = (zero, zero);
            let mut at = 0;
            while at < self.0.len() {
                let count = (self.0.len() - at).min(V::LANES);
                let value = V::load_some(self.0.as_ptr().add(at), count);
                most = value.max(most).max(zero.sub(value));
                poison = value.fma(zero, poison);
                at += V::LANES;
            }
            (most.greatest(), poison.sum())
        }
    }
}

thread_local! {
    /// The left matrix as the unit wants it, and what is needed of its rows.
    static LINES: RefCell<(Vec<Line>, Vec<Row>)> = const { RefCell::new((Vec::new(), Vec::new())) };
    /// Pictures as the unit wants them, and how they became bytes.
    static PICTURES: RefCell<(Vec<Line>, Vec<Row>)> = const { RefCell::new((Vec::new(), Vec::new())) };
    /// A widened panel.
    static WIDE: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// How a row became bytes: `x ≈ scale · (byte - zero)`.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    scale: f32,
    zero: i32,
}

/// `out = act(a · b + bias + residual)` of `a` `[m, k]`, row after row.
///
/// # Panics
/// Lengths and shapes do not fit.
pub fn multiply(a: &[f32], b: &Narrow, epilogue: Epilogue<'_>, out: &mut [f32]) {
    multiply_numbers(Numbers::F32(a), b, epilogue.into(), NumbersMut::F32(out));
}

/// The same of numbers that may be of bf16 where [`b`](Narrow::takes_bf16) lets.
///
/// # Panics
/// Lengths, shapes and types do not fit.
pub fn multiply_numbers(a: Numbers<'_>, b: &Narrow, ending: Ending<'_>, out: NumbersMut<'_>) {
    let (k, n) = (b.k, b.n);
    if n == 0 || out.len() == 0 {
        return;
    }
    let m = out.len() / n;
    assert!(
        out.len() == m * n && a.len() == m * k,
        "shapes of a product"
    );
    assert!(ending.bias.is_none_or(|bias| bias.len() == n));
    assert!(ending.residual.is_none_or(|rows| rows.len() == m * n));
    let panels = n.div_ceil(WIDTH);
    let few = m <= FEW && b.precision == Precision::Int8;
    let Unit::Widened(isa) = b.unit else {
        let floats = matches!((a, &out), (Numbers::F32(_), NumbersMut::F32(_)));
        assert!(floats || b.takes_bf16(), "types of a product");
        let mut lines = LINES.take();
        // SAFETY: `b` was packed for a unit that is present; lengths and types are asserted above.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            x86::multiply(a, b, ending, out, m, few, &mut lines);
        }
        LINES.set(lines);
        return;
    };
    let (a, out) = (a.floats(), out.floats());
    let epilogue = Epilogue {
        bias: ending.bias,
        residual: ending.residual.map(Numbers::floats),
        activation: ending.activation,
    };
    let tasks = Tasks::new(m, panels, k);
    let out = Shared(out.as_mut_ptr());
    if m <= widened::FEW {
        let work = |a: &[f32], stride: usize| {
            tasks.run(|rows, panels| {
                for panel in panels {
                    // SAFETY: `isa` is present; lengths are asserted above; no two tasks share an element
                    // of `out`.
                    unsafe {
                        isa.run(widened::Few {
                            a: a[rows.start * stride..].as_ptr(),
                            stride,
                            rows: rows.len(),
                            b,
                            panel,
                            epilogue,
                            out: out.get(),
                        });
                    }
                }
            });
        };
        return match b.precision {
            Precision::Int4 => int4::with_rows(a, k, work),
            _ => work(a, k),
        };
    }
    tasks.run(|rows, panels| {
        WIDE.with_borrow_mut(|wide| {
            let depth = k.next_multiple_of(int4::BLOCK);
            wide.resize(wide.len().max(depth * WIDTH), 0.0);
            for panel in panels {
                // SAFETY: `isa` is present; lengths are asserted above; no two tasks share an element of
                // `out`.
                unsafe {
                    isa.run(widened::Widen { b, panel, wide });
                    isa.run(widened::Many {
                        a: a.as_ptr(),
                        wide,
                        b,
                        panel,
                        epilogue,
                        rows: rows.clone(),
                        tile: isa.rows(),
                        out: out.get(),
                    });
                }
            }
        });
    });
}

/// Floats, or bf16 as their bits.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub enum Numbers<'a> {
    F32(&'a [f32]),
    Bf16(&'a [u16]),
}

impl<'a> Numbers<'a> {
    /// # Panics
    /// They are of bf16.
    #[allow(clippy::panic)]
    fn floats(self) -> &'a [f32] {
        match self {
            Numbers::F32(numbers) => numbers,
            Numbers::Bf16(_) => panic!("types of a product"),
        }
    }

    fn len(&self) -> usize {
        match self {
            Numbers::F32(numbers) => numbers.len(),
            Numbers::Bf16(numbers) => numbers.len(),
        }
    }
}

/// The same to be written.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum NumbersMut<'a> {
    F32(&'a mut [f32]),
    Bf16(&'a mut [u16]),
}

impl<'a> NumbersMut<'a> {
    /// # Panics
    /// They are of bf16.
    #[allow(clippy::panic)]
    fn floats(self) -> &'a mut [f32] {
        match self {
            NumbersMut::F32(numbers) => numbers,
            NumbersMut::Bf16(_) => panic!("types of a product"),
        }
    }

    fn len(&self) -> usize {
        match self {
            NumbersMut::F32(numbers) => numbers.len(),
            NumbersMut::Bf16(numbers) => numbers.len(),
        }
    }
}

/// What is added to products, and what is made of the sum.
#[derive(Debug, Clone, Copy)]
pub struct Ending<'a> {
    /// One for each column.
    pub bias: Option<&'a [f32]>,
    /// As the output.
    pub residual: Option<Numbers<'a>>,
    /// Applied to the sum.
    pub activation: Activation,
}

impl<'a> From<Epilogue<'a>> for Ending<'a> {
    fn from(epilogue: Epilogue<'a>) -> Self {
        Self {
            bias: epilogue.bias,
            residual: epilogue.residual.map(Numbers::F32),
            activation: epilogue.activation,
        }
    }
}

/// The same of the patches of pictures. In int8, a picture has one scale and one zero, and all else is f32.
///
/// # Panics
/// Lengths, shapes and types do not fit, or the unit of `b` is [`Unit::Widened`].
pub(crate) fn multiply_patches(
    patches: Patches,
    pictures: Numbers<'_>,
    b: &Narrow,
    ending: Ending<'_>,
    out: NumbersMut<'_>,
) {
    let m = patches.shape.batch * patches.of_picture();
    let [height, width] = patches.shape.input;
    let pixels = patches.shape.batch * height * width;
    assert_eq!(pictures.len(), pixels * patches.shape.channels[0]);
    assert_eq!(out.len(), m * b.n);
    assert!(ending.bias.is_none_or(|bias| bias.len() == b.n));
    assert!(ending.residual.is_none_or(|rows| rows.len() == out.len()));
    assert!(!matches!(b.unit, Unit::Widened(_)), "no unit for patches");
    let floats = matches!(pictures, Numbers::F32(_)) && matches!(out, NumbersMut::F32(_));
    assert!(floats || b.takes_bf16(), "types of a product");
    // SAFETY: `b` was packed for a unit that is present; lengths and types are asserted above.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        x86::multiply_patches(patches, pictures, b, ending, out);
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
    fn new(m: usize, panels: usize, k: usize) -> Self {
        let threads = rayon::current_num_threads();
        // Rows that stay in the second cache while panels pass.
        let rows = ((1 << 18) / k.max(1)).clamp(4 * ROWS, 1024);
        let row_blocks = m.div_ceil(rows);
        let small = m * panels * WIDTH * k < 1 << 18;
        let wanted = if threads == 1 || small {
            1
        } else {
            4 * threads
        };
        Self {
            m,
            panels,
            row_blocks,
            panel_blocks: wanted.div_ceil(row_blocks).min(panels),
        }
    }

    /// With rows that are made for each block, of `stride` bytes each.
    fn of_patches(m: usize, panels: usize, stride: usize) -> Self {
        let threads = rayon::current_num_threads();
        let groups = m.div_ceil(ROWS);
        let rows = ((1 << 19) / stride).clamp(ROWS, 1024);
        let row_blocks = m.div_ceil(rows).max((4 * threads).min(groups / 2)).max(1);
        Self {
            m,
            panels,
            row_blocks,
            panel_blocks: (2 * threads).div_ceil(row_blocks).min(panels),
        }
    }

    fn run(&self, work: impl Fn(Range<usize>, Range<usize>) + Sync) {
        let groups = self.m.div_ceil(ROWS);
        let part = |index: usize, parts: usize, whole: usize| {
            index * whole / parts..(index + 1) * whole / parts
        };
        let task = |index: usize| {
            let rows = part(index / self.panel_blocks, self.row_blocks, groups);
            let panels = part(index % self.panel_blocks, self.panel_blocks, self.panels);
            work(rows.start * ROWS..(rows.end * ROWS).min(self.m), panels);
        };
        match self.row_blocks * self.panel_blocks {
            1 => task(0),
            count => (0..count).into_par_iter().with_max_len(1).for_each(task),
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod x86 {
    use std::arch::x86_64::*;
    use std::ops::Range;

    use rayon::prelude::*;

    use super::{
        Ending, LINES, Line, Narrow, Numbers, NumbersMut, PICTURES, Precision, ROWS, Row, STEP,
        Tasks, Unit, WIDTH,
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
            None => m.next_multiple_of(16) * stride / 64,
        };
        if lines.len() < needed {
            lines.resize(needed, Line([0; 64]));
        }
        rows.clear();
        rows.resize(m, Row::default());
        let mut to = Bytes(lines.as_mut_ptr().cast());
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
        if bf16 && b.unit == Unit::Tiles && Padded::suits(&patches) {
            // SAFETY: as the function's own.
            unsafe { multiply_padded(patches, pictures, b, ending, Out::of(out)) };
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
                let needed = (pictures.len() * size).div_ceil(64);
                if pixels.len() < needed {
                    pixels.resize(needed, Line([0; 64]));
                }
                let to = Bytes(pixels.as_mut_ptr().cast());
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
                let needed = range.len().next_multiple_of(16) * stride / 64;
                if lines.len() < needed {
                    lines.resize(needed, Line([0; 64]));
                }
                (a, distance) = (lines.as_mut_ptr().cast(), stride);
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

    /// Pictures of bf16 between zeros, so that 16 pixels of an output's row meet what any part of a kernel is
    /// multiplied by at a constant distance, and no patch is copied.
    struct Padded {
        patches: Patches,
        from: Bytes,
        /// Bytes of a pixel and of a row.
        pixel: usize,
        row: usize,
    }

    impl Padded {
        /// Whether it is worth it: parts of kernels are whole steps, rows have not much less than 16 pixels, and
        /// kernels do not pass over pixels, which would be copied for nothing.
        fn suits(patches: &Patches) -> bool {
            let shape = &patches.shape;
            shape.groups == 1
                && shape.kernel != [1, 1]
                && shape.stride == [1, 1]
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
    /// As [`multiply_patches`]; the weights are for tiles of bf16, and pictures [suit](Padded::suits).
    unsafe fn multiply_padded(
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
        let needed = (shape.batch * rows * row + beyond).div_ceil(64);
        if pixels.len() < needed {
            pixels.resize(needed, Line([0; 64]));
        }
        let to = Bytes(pixels.as_mut_ptr().cast());
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
            let steps = self.b.steps;
            let bytes = steps * STEP * WIDTH;
            let together = (TOGETHER / bytes.max(1)).max(1);
            let mut sums = Sums([0.0; ROWS * WIDTH]);
            let sums = sums.0.as_mut_ptr();
            let mut begin = self.panels.start;
            while begin < self.panels.end {
                let end = self.panels.end.min(begin + together);
                let mut first = self.range.start;
                while first < self.range.end {
                    let count = ROWS.min(self.range.end - first);
                    for panel in begin..end {
                        // SAFETY: the caller's; what is prefetched need not be there.
                        unsafe {
                            let b = self.b.panel(panel);
                            if first == self.range.start {
                                for line in 0..bytes / 64 {
                                    prefetch(b.wrapping_add(bytes + line * 64));
                                }
                            }
                            Product {
                                a: self.a.add((first - self.range.start) * self.stride),
                                a_stride: self.stride,
                                count,
                                b,
                                steps,
                                out: sums,
                                out_stride: WIDTH,
                            }
                            .run::<INT>(tiles, true);
                            self.finish::<INT>(sums, panel, first, count);
                        }
                    }
                    first += count;
                }
                begin = end;
            }
        }

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
            let bytes = self.b.steps * STEP * WIDTH;
            let together = (TOGETHER / bytes.max(1)).max(1);
            let mut sums = Sums([0.0; ROWS * WIDTH]);
            let sums = sums.0.as_mut_ptr();
            let sixteens = self.range.start / 16..self.range.end / 16;
            // SAFETY: the caller's; what is prefetched need not be there.
            unsafe {
                let tiles = &amx::Tiles::configure();
                let mut begin = self.panels.start;
                while begin < self.panels.end {
                    let end = self.panels.end.min(begin + together);
                    for index in sixteens.clone().step_by(2) {
                        let two = index + 1 < sixteens.end;
                        let (near, first, count) = pictures.sixteen(index);
                        let (far, second, others) = pictures.sixteen(index + usize::from(two));
                        for panel in begin..end {
                            let mut b = self.b.panel(panel);
                            if index == sixteens.start {
                                for line in 0..bytes / 64 {
                                    prefetch(b.wrapping_add(bytes + line * 64));
                                }
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
                    begin = end;
                }
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
                            let rounded: __m512i =
                                std::mem::transmute(_mm512_cvtne2ps_pbh(far, near));
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
}
