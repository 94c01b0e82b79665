//! Vectors of f32 by instruction set, and the choice among them at run time.
//!
//! A kernel is written once over [`Vector`] and compiled for each set: [`Isa::run`] enters a function with
//! the set's features enabled, into which the kernel and its vectors are inlined.

use std::sync::OnceLock;

/// The environment variable that forces a path: `burn`, `plain`, `avx2`, `avx512` or, with tiles for what is
/// narrower than f32, `amx`.
pub const VARIABLE: &str = "SALAMANDER_KERNELS";

/// Whether the environment lets the tile unit be used.
pub(crate) fn tiles_allowed() -> bool {
    std::env::var(VARIABLE).map_or(true, |name| name != "avx512")
}

/// An instruction set that the kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Isa {
    /// What every CPU has; the compiler vectorises.
    Plain,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
}

impl Isa {
    /// The sets that this CPU has, the best last.
    pub fn present() -> Vec<Isa> {
        let mut present = vec![Isa::Plain];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
            {
                present.push(Isa::Avx2);
            }
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("fma")
            {
                present.push(Isa::Avx512);
            }
        }
        present
    }

    /// The best set present, or the one that the environment names where it is present; `None` when it
    /// asks for plain Burn.
    pub fn chosen() -> Option<Isa> {
        static CHOSEN: OnceLock<Option<Isa>> = OnceLock::new();
        *CHOSEN.get_or_init(|| {
            let present = Isa::present();
            let most = match std::env::var(VARIABLE).as_deref() {
                Ok("burn") => return None,
                Ok("plain") => Isa::Plain,
                Ok("avx2") => Isa::Avx2,
                _ => Isa::Avx512,
            };
            present.into_iter().rfind(|isa| isa.rank() <= most.rank())
        })
    }

    fn rank(self) -> u8 {
        match self {
            Isa::Plain => 0,
            Isa::Avx2 => 1,
            Isa::Avx512 => 2,
        }
    }

    /// Floats in a vector.
    pub fn lanes(self) -> usize {
        match self {
            Isa::Plain => Portable::LANES,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => x86::Avx2::LANES,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => x86::Avx512::LANES,
            #[cfg(not(target_arch = "x86_64"))]
            _ => Portable::LANES,
        }
    }

    /// The most rows of a tile of a matrix product whose sums stay in registers.
    pub fn rows(self) -> usize {
        match self {
            Isa::Plain => Portable::ROWS,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => x86::Avx2::ROWS,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => x86::Avx512::ROWS,
            #[cfg(not(target_arch = "x86_64"))]
            _ => Portable::ROWS,
        }
    }

    /// Runs a kernel with this set.
    ///
    /// # Safety
    /// The set is [present](Isa::present), and what the kernel asks of its fields holds.
    pub unsafe fn run<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: by this function's own contract.
        unsafe {
            match self {
                Isa::Plain => kernel.run::<Portable>(),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => x86::run_avx2(kernel),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => x86::run_avx512(kernel),
                #[cfg(not(target_arch = "x86_64"))]
                _ => kernel.run::<Portable>(),
            }
        }
    }
}

/// Work over vectors; `run` and all that it calls are `#[inline(always)]`.
pub trait Kernel {
    /// What it gives.
    type Output;

    /// # Safety
    /// The CPU has the instructions of `V`, and what the kernel says of its fields holds.
    unsafe fn run<V: Vector>(self) -> Self::Output;
}

/// A vector of f32.
///
/// # Safety
/// All functions need a CPU that has the instructions. The pointers of `load` and `store` are valid for
/// `LANES` floats, those of the `_some` for `count`, of any alignment.
#[allow(clippy::missing_safety_doc, missing_docs)]
pub trait Vector: Copy {
    const LANES: usize;
    /// The most rows of a tile of a matrix product whose sums stay in registers.
    const ROWS: usize;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    /// The first `count` lanes, zero in the others.
    unsafe fn load_some(from: *const f32, count: usize) -> Self;
    /// `count` floats, `stride` apart.
    #[inline(always)]
    unsafe fn load_apart(from: *const f32, stride: usize, count: usize) -> Self {
        let mut lanes = [0.0; 16];
        for (index, lane) in lanes.iter_mut().enumerate().take(count.min(Self::LANES)) {
            // SAFETY: the caller's.
            *lane = unsafe { *from.add(index * stride) };
        }
        // SAFETY: no vector is wider than the array.
        unsafe { Self::load(lanes.as_ptr()) }
    }
    /// Asks the second cache for what will be loaded from there, if anything is.
    #[inline(always)]
    fn prefetch(_from: *const u8) {}
    /// The same of the nearest cache.
    #[inline(always)]
    fn prefetch_near(_from: *const u8) {}
    unsafe fn store(self, to: *mut f32);
    unsafe fn store_some(self, to: *mut f32, count: usize);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    /// `self · factor + addend`.
    unsafe fn fma(self, factor: Self, addend: Self) -> Self;
    /// The greater one; `other` where either is NaN.
    unsafe fn max(self, other: Self) -> Self;
    /// The lesser one; `other` where either is NaN.
    unsafe fn min(self, other: Self) -> Self;
    /// Rounds to the nearest integer.
    unsafe fn round(self) -> Self;
    /// `self · 2^power` of integers between -126 and 127.
    unsafe fn times_exp2(self, power: Self) -> Self;
    unsafe fn sum(self) -> f32;
    unsafe fn greatest(self) -> f32;
    /// The eight times four bits of each of `LANES` words, the lowest first, less eight.
    unsafe fn nibbles(from: *const u32) -> [Self; 8];
    /// The floats that the bits of `LANES` f16 stand for.
    unsafe fn load_f16(from: *const u16) -> Self;
    /// The same of bf16.
    unsafe fn load_bf16(from: *const u16) -> Self;
    /// `LANES` bytes as floats.
    unsafe fn load_int8(from: *const i8) -> Self;
    /// Writes `LANES` rows of as many floats as columns; rows are `stride` apart, and `to_stride` where they go.
    #[inline(always)]
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, to_stride: usize) {
        for row in 0..Self::LANES {
            for column in 0..Self::LANES {
                // SAFETY: the caller's.
                unsafe { *to.add(column * to_stride + row) = *from.add(row * stride + column) };
            }
        }
    }
}

/// Eight floats that the compiler makes what it can of.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; 8]);

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let mut result = self.0;
        for (a, b) in result.iter_mut().zip(other.0) {
            *a = f(*a, b);
        }
        Self(result)
    }
}

impl Vector for Portable {
    const LANES: usize = 8;
    const ROWS: usize = 4;
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 8])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { from.cast::<[f32; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_some(from: *const f32, count: usize) -> Self {
        let mut lanes = [0.0; 8];
        // SAFETY: the caller's.
        unsafe { std::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), count.min(8)) };
        Self(lanes)
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn store_some(self, to: *mut f32, count: usize) {
        // SAFETY: the caller's.
        unsafe { std::ptr::copy_nonoverlapping(self.0.as_ptr(), to, count.min(8)) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn fma(self, factor: Self, addend: Self) -> Self {
        // Two roundings: without the instruction, one would be a call.
        self.zip(factor, |a, b| a * b).zip(addend, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        // Adding and taking away 1.5 · 2^23 leaves an integer, for what is small beside it.
        const MAGIC: f32 = 12_582_912.0;
        self.zip(self, |a, _| (a + MAGIC) - MAGIC)
    }
    #[inline(always)]
    unsafe fn times_exp2(self, power: Self) -> Self {
        self.zip(power, |a, n| {
            a * f32::from_bits(((n as i32 + 127) as u32) << 23)
        })
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let [a, b, c, d, e, f, g, h] = self.0;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }
    #[inline(always)]
    unsafe fn greatest(self) -> f32 {
        self.0
            .into_iter()
            .fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a })
    }
    #[inline(always)]
    unsafe fn nibbles(from: *const u32) -> [Self; 8] {
        // SAFETY: the caller's.
        let words = unsafe { from.cast::<[u32; 8]>().read_unaligned() };
        std::array::from_fn(|index| Self(words.map(|word| (word >> (4 * index) & 15) as f32 - 8.0)))
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        // SAFETY: the caller's.
        let halves = unsafe { from.cast::<[u16; 8]>().read_unaligned() };
        Self(halves.map(|half| {
            let bits = u32::from(half);
            // What is not finite has all bits of the exponent, in f32 too.
            let special = if bits & 0x7c00 == 0x7c00 {
                0x7f80_0000
            } else {
                0
            };
            // The exponents' biases differ by 112, and multiplying takes the smallest numbers along.
            let size = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits((127 + 112) << 23);
            f32::from_bits(size.to_bits() | special | (bits & 0x8000) << 16)
        }))
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self {
        // SAFETY: the caller's.
        let halves = unsafe { from.cast::<[u16; 8]>().read_unaligned() };
        Self(halves.map(|half| f32::from_bits(u32::from(half) << 16)))
    }
    #[inline(always)]
    unsafe fn load_int8(from: *const i8) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { from.cast::<[i8; 8]>().read_unaligned() }.map(f32::from))
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx512, transposed};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Kernel, Vector};

    /// A macro of a shift at those of a word's eight times four bits.
    macro_rules! shifted {
        ($bits:ident) => {
            [
                $bits!(0),
                $bits!(4),
                $bits!(8),
                $bits!(12),
                $bits!(16),
                $bits!(20),
                $bits!(24),
                $bits!(28),
            ]
        };
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) unsafe fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
        // SAFETY: the caller's.
        unsafe { kernel.run::<Avx2>() }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) unsafe fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
        // SAFETY: the caller's.
        unsafe { kernel.run::<Avx512>() }
    }

    #[derive(Clone, Copy)]
    pub(super) struct Avx2(__m256);

    #[inline(always)]
    unsafe fn mask8(count: usize) -> __m256i {
        // SAFETY: the caller's CPU has AVX2.
        unsafe {
            let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            _mm256_cmpgt_epi32(_mm256_set1_epi32(count.min(8) as i32), lanes)
        }
    }

    // SAFETY of every block below: the caller's CPU has AVX2, FMA and F16C, and its pointers are valid.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Vector for Avx2 {
        const LANES: usize = 8;
        const ROWS: usize = 6;
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            unsafe { Self(_mm256_set1_ps(value)) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { Self(_mm256_loadu_ps(from)) }
        }
        #[inline(always)]
        unsafe fn load_some(from: *const f32, count: usize) -> Self {
            unsafe { Self(_mm256_maskload_ps(from, mask8(count))) }
        }
        #[inline(always)]
        fn prefetch(from: *const u8) {
            // SAFETY: a prefetch of any address is allowed.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
        }
        #[inline(always)]
        fn prefetch_near(from: *const u8) {
            // SAFETY: as above.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm256_storeu_ps(to, self.0) }
        }
        #[inline(always)]
        unsafe fn store_some(self, to: *mut f32, count: usize) {
            unsafe { _mm256_maskstore_ps(to, mask8(count), self.0) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            unsafe { Self(_mm256_add_ps(self.0, other.0)) }
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            unsafe { Self(_mm256_sub_ps(self.0, other.0)) }
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            unsafe { Self(_mm256_mul_ps(self.0, other.0)) }
        }
        #[inline(always)]
        unsafe fn div(self, other: Self) -> Self {
            unsafe { Self(_mm256_div_ps(self.0, other.0)) }
        }
        #[inline(always)]
        unsafe fn fma(self, factor: Self, addend: Self) -> Self {
            unsafe { Self(_mm256_fmadd_ps(self.0, factor.0, addend.0)) }
        }
        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            unsafe { Self(_mm256_max_ps(self.0, other.0)) }
        }
        #[inline(always)]
        unsafe fn min(self, other: Self) -> Self {
            unsafe { Self(_mm256_min_ps(self.0, other.0)) }
        }
        #[inline(always)]
        unsafe fn round(self) -> Self {
            const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
            unsafe { Self(_mm256_round_ps::<NEAREST>(self.0)) }
        }
        #[inline(always)]
        unsafe fn times_exp2(self, power: Self) -> Self {
            unsafe {
                let biased = _mm256_add_epi32(_mm256_cvtps_epi32(power.0), _mm256_set1_epi32(127));
                let factor = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased));
                Self(_mm256_mul_ps(self.0, factor))
            }
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            unsafe {
                let halves = _mm_add_ps(
                    _mm256_castps256_ps128(self.0),
                    _mm256_extractf128_ps::<1>(self.0),
                );
                let pairs = _mm_add_ps(halves, _mm_movehl_ps(halves, halves));
                _mm_cvtss_f32(_mm_add_ss(pairs, _mm_shuffle_ps::<1>(pairs, pairs)))
            }
        }
        #[inline(always)]
        unsafe fn greatest(self) -> f32 {
            unsafe {
                let halves = _mm_max_ps(
                    _mm256_castps256_ps128(self.0),
                    _mm256_extractf128_ps::<1>(self.0),
                );
                let pairs = _mm_max_ps(halves, _mm_movehl_ps(halves, halves));
                _mm_cvtss_f32(_mm_max_ss(pairs, _mm_shuffle_ps::<1>(pairs, pairs)))
            }
        }
        #[inline(always)]
        unsafe fn nibbles(from: *const u32) -> [Self; 8] {
            unsafe {
                let words = _mm256_loadu_si256(from.cast());
                macro_rules! nibble {
                    ($shift:literal) => {{
                        let low = _mm256_set1_epi32(15);
                        let number = _mm256_and_si256(_mm256_srli_epi32::<$shift>(words), low);
                        let float = _mm256_cvtepi32_ps(number);
                        Self(_mm256_sub_ps(float, _mm256_set1_ps(8.0)))
                    }};
                }
                shifted!(nibble)
            }
        }
        #[inline(always)]
        unsafe fn load_f16(from: *const u16) -> Self {
            unsafe { Self(_mm256_cvtph_ps(_mm_loadu_si128(from.cast()))) }
        }
        #[inline(always)]
        unsafe fn load_bf16(from: *const u16) -> Self {
            unsafe {
                let words = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
                Self(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(words)))
            }
        }
        #[inline(always)]
        unsafe fn load_int8(from: *const i8) -> Self {
            unsafe {
                let bytes = _mm_loadl_epi64(from.cast());
                Self(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)))
            }
        }
        #[inline(always)]
        unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, to_stride: usize) {
            unsafe {
                let row = |row: usize| _mm256_loadu_ps(from.add(row * stride));
                // Pairs of rows, fours of them, and halves.
                for half in [0, 4] {
                    let (a, b, c, d) = (row(half), row(half + 1), row(half + 2), row(half + 3));
                    let (low, high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
                    let (below, above) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
                    for (column, fours) in [
                        _mm256_shuffle_ps::<0x44>(low, below),
                        _mm256_shuffle_ps::<0xee>(low, below),
                        _mm256_shuffle_ps::<0x44>(high, above),
                        _mm256_shuffle_ps::<0xee>(high, above),
                    ]
                    .into_iter()
                    .enumerate()
                    {
                        let to = to.add(column * to_stride + half);
                        _mm_storeu_ps(to, _mm256_castps256_ps128(fours));
                        _mm_storeu_ps(to.add(4 * to_stride), _mm256_extractf128_ps::<1>(fours));
                    }
                }
            }
        }
    }

    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(pub(crate) __m512);

    #[inline(always)]
    fn mask16(count: usize) -> __mmask16 {
        ((1_u32 << count.min(16)) - 1) as __mmask16
    }

    // SAFETY of every block below: the caller's CPU has AVX-512, and its pointers are valid.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Vector for Avx512 {
        const LANES: usize = 16;
        const ROWS: usize = 14;
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            unsafe { Self(_mm512_set1_ps(value)) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { Self(_mm512_loadu_ps(from)) }
        }
        #[inline(always)]
        unsafe fn load_some(from: *const f32, count: usize) -> Self {
            unsafe { Self(_mm512_maskz_loadu_ps(mask16(count), from)) }
        }
        #[inline(always)]
        unsafe fn load_apart(from: *const f32, stride: usize, count: usize) -> Self {
            unsafe {
                if stride == 2 {
                    let reach = 2 * count.min(16) - 1;
                    let near = _mm512_maskz_loadu_ps(mask16(reach), from);
                    let far = if reach > 16 {
                        _mm512_maskz_loadu_ps(mask16(reach - 16), from.add(16))
                    } else {
                        _mm512_setzero_ps()
                    };
                    let even = _mm512_setr_epi32(
                        0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30,
                    );
                    return Self(_mm512_permutex2var_ps(near, even, far));
                }
                let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
                let places = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(stride as i32));
                Self(_mm512_mask_i32gather_ps::<4>(
                    _mm512_setzero_ps(),
                    mask16(count),
                    places,
                    from,
                ))
            }
        }
        #[inline(always)]
        fn prefetch(from: *const u8) {
            // SAFETY: a prefetch of any address is allowed.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
        }
        #[inline(always)]
        fn prefetch_near(from: *const u8) {
            // SAFETY: as above.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm512_storeu_ps(to, self.0) }
        }
        #[inline(always)]
        unsafe fn store_some(self, to: *mut f32, count: usize) {
            unsafe { _mm512_mask_storeu_ps(to, mask16(count), self.0) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            unsafe { Self(_mm512_add_ps(self.0, other.0)) }
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            unsafe { Self(_mm512_sub_ps(self.0, other.0)) }
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            unsafe { Self(_mm512_mul_ps(self.0, other.0)) }
        }
        #[inline(always)]
        unsafe fn div(self, other: Self) -> Self {
            unsafe { Self(_mm512_div_ps(self.0, other.0)) }
        }
        #[inline(always)]
        unsafe fn fma(self, factor: Self, addend: Self) -> Self {
            unsafe { Self(_mm512_fmadd_ps(self.0, factor.0, addend.0)) }
        }
        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            unsafe { Self(_mm512_max_ps(self.0, other.0)) }
        }
        #[inline(always)]
        unsafe fn min(self, other: Self) -> Self {
            unsafe { Self(_mm512_min_ps(self.0, other.0)) }
        }
        #[inline(always)]
        unsafe fn round(self) -> Self {
            const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
            unsafe { Self(_mm512_roundscale_ps::<NEAREST>(self.0)) }
        }
        #[inline(always)]
        unsafe fn times_exp2(self, power: Self) -> Self {
            unsafe { Self(_mm512_scalef_ps(self.0, power.0)) }
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            unsafe { _mm512_reduce_add_ps(self.0) }
        }
        #[inline(always)]
        unsafe fn greatest(self) -> f32 {
            unsafe { _mm512_reduce_max_ps(self.0) }
        }
        #[inline(always)]
        unsafe fn nibbles(from: *const u32) -> [Self; 8] {
            unsafe {
                let words = _mm512_loadu_si512(from.cast());
                // The instruction takes the lowest four bits of a word.
                let numbers = _mm512_setr_ps(
                    -8.0, -7.0, -6.0, -5.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0,
                    6.0, 7.0,
                );
                macro_rules! nibble {
                    ($shift:literal) => {
                        Self(_mm512_permutexvar_ps(
                            _mm512_srli_epi32::<$shift>(words),
                            numbers,
                        ))
                    };
                }
                shifted!(nibble)
            }
        }
        #[inline(always)]
        unsafe fn load_f16(from: *const u16) -> Self {
            unsafe { Self(_mm512_cvtph_ps(_mm256_loadu_si256(from.cast()))) }
        }
        #[inline(always)]
        unsafe fn load_bf16(from: *const u16) -> Self {
            unsafe {
                let words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
                Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(words)))
            }
        }
        #[inline(always)]
        unsafe fn load_int8(from: *const i8) -> Self {
            unsafe {
                let bytes = _mm_loadu_si128(from.cast());
                Self(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)))
            }
        }
        #[inline(always)]
        unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, to_stride: usize) {
            unsafe {
                let mut rows = [_mm512_setzero_si512(); 16];
                for row in 0..16 {
                    rows[row] = _mm512_loadu_si512(from.add(row * stride).cast());
                }
                for (row, values) in transposed(rows).into_iter().enumerate() {
                    _mm512_storeu_si512(to.add(row * to_stride).cast(), values);
                }
            }
        }
    }

    /// 16 rows of words of 32 bits as columns.
    ///
    /// # Safety
    /// The CPU has AVX-512.
    #[inline(always)]
    pub(crate) unsafe fn transposed(rows: [__m512i; 16]) -> [__m512i; 16] {
        // SAFETY: the caller's.
        unsafe {
            // Pairs of rows, fours of them, then blocks of four rows, and pairs of blocks.
            let mut fours = rows;
            for four in 0..4 {
                let [a, b, c, d] = [0, 1, 2, 3].map(|row| rows[4 * four + row]);
                let (low, high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
                let (below, above) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
                fours[four] = _mm512_unpacklo_epi64(low, below);
                fours[4 + four] = _mm512_unpackhi_epi64(low, below);
                fours[8 + four] = _mm512_unpacklo_epi64(high, above);
                fours[12 + four] = _mm512_unpackhi_epi64(high, above);
            }
            let mut columns = rows;
            for column in 0..4 {
                let [a, b, c, d] = [0, 1, 2, 3].map(|four| fours[4 * column + four]);
                let even = _mm512_shuffle_i32x4::<0x88>(a, b);
                let odd = _mm512_shuffle_i32x4::<0xdd>(a, b);
                let later = _mm512_shuffle_i32x4::<0x88>(c, d);
                let last = _mm512_shuffle_i32x4::<0xdd>(c, d);
                columns[column] = _mm512_shuffle_i32x4::<0x88>(even, later);
                columns[4 + column] = _mm512_shuffle_i32x4::<0x88>(odd, last);
                columns[8 + column] = _mm512_shuffle_i32x4::<0xdd>(even, later);
                columns[12 + column] = _mm512_shuffle_i32x4::<0xdd>(odd, last);
            }
            columns
        }
    }
}
