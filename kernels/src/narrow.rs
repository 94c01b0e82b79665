//! Products of matrices whose right one is kept in f16, bf16, int8 or int4: a half, a quarter or a sixth of the
//! memory, and of the time where the CPU has units for them.
//!
//! In bf16 both sides are rounded to it, and products are summed in f32. In int8 a weight's column has a
//! scale, and each row of the left matrix is brought to unsigned bytes by a scale and a zero of its own as
//! it comes (dynamic quantization); sums are exact. Up to [`FEW`] rows in int8, which memory's speed limits,
//! stay in f32. On a CPU without such units, weights are widened as they are used and all
//! else is f32; with weights of f16 and int4 it is so everywhere. (AVX512-FP16 sums in f16, which ends at
//! 65,504 and would round every sum once more.)
//!
//! Weights lie in panels of 32 columns, and for units each panel in steps of 64 bytes of depth,
//! 32 bf16 or 64 bytes, as the tile unit wants them: first columns 0..16, then 16..32, in rows of 4 bytes of
//! depth of each column. The products of pairs (AVX512-BF16) and of fours (VNNI) take the same rows.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

use crate::activation::Activation;
use crate::aligned::{Line, Lines};
use crate::conv::Patches;
use crate::gemm::{Epilogue, Shared, Stored, View};
use crate::int4::{self, Int4};
use crate::simd::{Isa, Kernel, Vector};
use crate::widened::{self, Bf16, F16, Int8, Weights};

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

    /// The unit for a depth, which sums of bytes might overflow.
    pub(crate) fn at(self, precision: Precision, depth: usize) -> Self {
        match self {
            Unit::Dots | Unit::Tiles if precision == Precision::Int8 && depth > DEEPEST => {
                Unit::Widened(Isa::Avx512)
            }
            unit => unit,
        }
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
        let unit = unit.at(precision, k);
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
            let order = Order::of(unit);
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
    let mut gathered = vec![0.0; k];
    for index in 0..WIDTH.min(n - first) {
        let start = (first + index) * column;
        match matrix.data {
            Stored::F32(data) if row == 1 => each(index, &data[start..start + k]),
            data => {
                data.read(start, row, &mut gathered);
                each(index, &gathered);
            }
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
    fn of(unit: Unit) -> Self {
        match unit {
            Unit::Widened(_) => Self::Depths,
            Unit::Dots | Unit::Tiles => Self::Fours,
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

/// The same of numbers that may be of bf16 where the weights [let](Narrow::takes_bf16).
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
        let few = FewRows {
            isa,
            tasks,
            b,
            epilogue,
            out,
        };
        return match b.precision {
            Precision::Int4 => int4::with_rows(a, k, |a, stride| few.run::<Int4>(a, stride)),
            Precision::Int8 => few.run::<Int8>(a, k),
            Precision::Bf16 => few.run::<Bf16>(a, k),
            _ => few.run::<F16>(a, k),
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

/// A product of a few rows.
struct FewRows<'a> {
    isa: Isa,
    tasks: Tasks,
    b: &'a Narrow,
    epilogue: Epilogue<'a>,
    out: Shared,
}

impl FewRows<'_> {
    /// Of rows that are `stride` apart, by weights of a kind.
    fn run<W: Weights>(&self, a: &[f32], stride: usize) {
        self.tasks.run(|rows, panels| {
            for panel in panels {
                // SAFETY: the set is present, and `multiply_numbers` has checked the lengths; no two tasks share
                // an element of `out`.
                unsafe {
                    self.isa.run(widened::Few::<W> {
                        kind: PhantomData,
                        a: a[rows.start * stride..].as_ptr(),
                        stride,
                        rows: rows.len(),
                        b: self.b,
                        panel,
                        epilogue: self.epilogue,
                        out: self.out.get(),
                    });
                }
            }
        });
    }
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
pub(crate) mod x86;
