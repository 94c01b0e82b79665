//! Elementwise activations, a vector at a time.

use crate::simd::{Isa, Kernel, Vector};

/// An activation that the kernels know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Activation {
    #[default]
    None,
    Relu,
    /// By the error function.
    Gelu,
    /// By a tanh.
    GeluTanh,
    /// `x · sigmoid(1.702 x)`.
    QuickGelu,
    Silu,
    Sigmoid,
    Tanh,
}

/// Applies an activation to `count` floats.
pub(crate) struct Activate {
    pub(crate) activation: Activation,
    pub(crate) from: *const f32,
    pub(crate) to: *mut f32,
    pub(crate) count: usize,
}

impl Kernel for Activate {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        // SAFETY: both pointers are valid for `count` floats.
        unsafe {
            match self.activation {
                Activation::None => self.each::<V, Same>(),
                Activation::Relu => self.each::<V, Relu>(),
                Activation::Gelu => self.each::<V, Gelu>(),
                Activation::GeluTanh => self.each::<V, GeluTanh>(),
                Activation::QuickGelu => self.each::<V, QuickGelu>(),
                Activation::Silu => self.each::<V, Silu>(),
                Activation::Sigmoid => self.each::<V, Sigmoid>(),
                Activation::Tanh => self.each::<V, Tanh>(),
            }
        }
    }
}

impl Activate {
    /// Applies an activation to `count` floats of each of some rows, in their place.
    ///
    /// # Safety
    /// The CPU has the instructions of `V`; there are such floats, from a row to the next `stride` apart.
    #[inline(always)]
    pub(crate) unsafe fn rows<V: Vector>(
        activation: Activation,
        first: *mut f32,
        stride: usize,
        rows: usize,
        count: usize,
    ) {
        if activation == Activation::None {
            return;
        }
        for row in 0..rows {
            // SAFETY: the caller's.
            unsafe {
                let at = first.add(row * stride);
                let row = Activate {
                    activation,
                    from: at,
                    to: at,
                    count,
                };
                row.run::<V>();
            }
        }
    }

    #[inline(always)]
    unsafe fn each<V: Vector, F: Function>(&self) {
        // SAFETY: the caller's.
        unsafe {
            let mut at = 0;
            while at + V::LANES <= self.count {
                F::of(V::load(self.from.add(at))).store(self.to.add(at));
                at += V::LANES;
            }
            if at < self.count {
                let rest = self.count - at;
                F::of(V::load_some(self.from.add(at), rest)).store_some(self.to.add(at), rest);
            }
        }
    }
}

/// A function of a vector. Closures would not do: they are not inlined for sure.
trait Function {
    /// # Safety
    /// The CPU has the instructions of `V`.
    unsafe fn of<V: Vector>(x: V) -> V;
}

macro_rules! functions {
    ($($name:ident: |$x:ident| $value:expr;)*) => {$(
        struct $name;

        impl Function for $name {
            #[inline(always)]
            #[allow(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]
            unsafe fn of<V: Vector>($x: V) -> V {
                // SAFETY: the caller's.
                $value
            }
        }
    )*};
}

functions! {
    Same: |x| x;
    Relu: |x| V::splat(0.0).max(x);
    Gelu: |x| gelu(x);
    GeluTanh: |x| {
        let inner = x.mul(x).mul(x).fma(V::splat(0.044_715), x);
        // ½ (1 + tanh z) is sigmoid(2z).
        x.mul(sigmoid(inner.mul(V::splat(2.0 * 0.797_884_6))))
    };
    QuickGelu: |x| x.mul(sigmoid(x.mul(V::splat(1.702))));
    Silu: |x| x.mul(sigmoid(x));
    Sigmoid: |x| sigmoid(x);
    Tanh: |x| tanh(x);
}

/// An activation of a vector.
#[inline(always)]
pub(crate) unsafe fn apply<V: Vector>(activation: Activation, x: V) -> V {
    // SAFETY: the caller's CPU has the instructions of `V`.
    unsafe {
        match activation {
            Activation::None => x,
            Activation::Relu => Relu::of(x),
            Activation::Gelu => Gelu::of(x),
            Activation::GeluTanh => GeluTanh::of(x),
            Activation::QuickGelu => QuickGelu::of(x),
            Activation::Silu => Silu::of(x),
            Activation::Sigmoid => Sigmoid::of(x),
            Activation::Tanh => Tanh::of(x),
        }
    }
}

/// `e^x`, within 2 units in the last place; 0 below -87.3, the largest power of two above 88.
///
/// NaN stays NaN. By `2^n · e^r` with `|r| ≤ ½ ln 2` and a polynomial of degree 6 in `r` (Cephes' `expf`).
#[inline(always)]
pub(crate) unsafe fn exp<V: Vector>(x: V) -> V {
    // SAFETY: the caller's CPU has the instructions of `V`.
    unsafe {
        let x = V::splat(-87.3).max(V::splat(88.0).min(x));
        let n = x.mul(V::splat(std::f32::consts::LOG2_E)).round();
        let r = n.fma(V::splat(-0.693_359_4), x);
        let r = n.fma(V::splat(2.121_944_4e-4), r);
        let mut p = V::splat(1.987_569_1e-4);
        for coefficient in [
            1.398_2e-3,
            8.333_452e-3,
            4.166_579_6e-2,
            1.666_666_6e-1,
            0.5,
        ] {
            p = p.fma(r, V::splat(coefficient));
        }
        let p = p.mul(r).fma(r, r).add(V::splat(1.0));
        p.times_exp2(n)
    }
}

/// `2^x` of what is not above 127, within 2 units in the last place; not below `2^-126`. NaN stays NaN.
#[inline(always)]
pub(crate) unsafe fn exp2<V: Vector>(x: V) -> V {
    // SAFETY: the caller's CPU has the instructions of `V`.
    unsafe {
        let x = V::splat(-126.0).max(x);
        let n = x.round();
        let r = x.sub(n);
        // The polynomial of the fifth degree whose relative error is least, of those that give 1 of 0.
        let mut p = V::splat(1.326_472_7e-3);
        for coefficient in [9.671_513e-3, 5.550_733_6e-2, 0.240_222_42, 0.693_147, 1.0] {
            p = p.fma(r, V::splat(coefficient));
        }
        p.times_exp2(n)
    }
}

#[inline(always)]
unsafe fn sigmoid<V: Vector>(x: V) -> V {
    // SAFETY: the caller's CPU has the instructions of `V`.
    unsafe {
        let one = V::splat(1.0);
        one.div(one.add(exp(V::splat(0.0).sub(x))))
    }
}

/// The rational interpolant of Eigen's `ptanh_float`.
#[inline(always)]
unsafe fn tanh<V: Vector>(x: V) -> V {
    const LIMIT: f32 = 7.905_311_1;
    // SAFETY: the caller's CPU has the instructions of `V`.
    unsafe {
        let x = V::splat(-LIMIT).max(V::splat(LIMIT).min(x));
        let square = x.mul(x);
        let mut p = V::splat(-2.760_768_5e-16);
        for coefficient in [
            2.000_187_9e-13,
            -8.604_672e-11,
            5.122_297e-8,
            1.485_722_4e-5,
            6.372_619e-4,
            4.893_524_6e-3,
        ] {
            p = p.fma(square, V::splat(coefficient));
        }
        let mut q = V::splat(1.198_258_4e-6);
        for coefficient in [1.185_347_1e-4, 2.268_434_6e-3, 4.893_525e-3] {
            q = q.fma(square, V::splat(coefficient));
        }
        x.mul(p).div(q)
    }
}

/// `½ x (1 + erf(x / √2))`, with the rational interpolant of Eigen and XLA for the error function.
#[inline(always)]
unsafe fn gelu<V: Vector>(x: V) -> V {
    const LIMIT: f32 = 3.743_921_2;
    // SAFETY: the caller's CPU has the instructions of `V`.
    unsafe {
        let z = x.mul(V::splat(std::f32::consts::FRAC_1_SQRT_2));
        let z = V::splat(-LIMIT).max(V::splat(LIMIT).min(z));
        let square = z.mul(z);
        let mut p = V::splat(2.290_506_6e-4);
        for coefficient in [3.408_291e-3, 5.095_569_5e-2, 0.185_208_32, 1.128_379_1] {
            p = p.fma(square, V::splat(coefficient));
        }
        let mut q = V::splat(-1.179_160_3e-7);
        for coefficient in [
            2.354_796_6e-5,
            1.017_962_5e-3,
            1.407_047e-2,
            0.110_985_05,
            0.497_469_25,
            1.0,
        ] {
            q = q.fma(square, V::splat(coefficient));
        }
        let erf = z.mul(p).div(q);
        let half = x.mul(V::splat(0.5));
        half.fma(erf, half)
    }
}

/// Applies an activation to every float, in parallel.
///
/// # Panics
/// The lengths differ.
pub fn activate(isa: Isa, activation: Activation, from: &[f32], to: &mut [f32]) {
    use rayon::prelude::*;
    assert_eq!(from.len(), to.len());
    let work = |from: &[f32], to: &mut [f32]| {
        // SAFETY: `isa` is present, and the slices are of one length.
        unsafe {
            isa.run(Activate {
                activation,
                from: from.as_ptr(),
                to: to.as_mut_ptr(),
                count: to.len(),
            });
        }
    };
    const CHUNK: usize = 1 << 14;
    if from.len() <= CHUNK {
        work(from, to);
    } else {
        let chunks = from.par_chunks(CHUNK).zip(to.par_chunks_mut(CHUNK));
        chunks.for_each(|(from, to)| work(from, to));
    }
}
