//! What CPUs compute fast for the model zoo.
//!
//! The functions over tensors give `None` where there is nothing faster than plain Burn: on another
//! device than `flex`, for other types than f32, or when the environment says so ([`VARIABLE`]). The
//! caller then does the same with Burn's own operations, which are also what the tests compare with.
//!
//! Beneath are kernels over slices, each written once over the vectors of an instruction set and compiled
//! for all of them; the one to run is chosen by what the CPU has.

// The crate's purpose; every block says why it is sound.
#![allow(unsafe_code)]
// A kernel walks several slices by one counter, and the constants are those of its polynomials.
#![allow(
    clippy::approx_constant,
    clippy::excessive_precision,
    clippy::needless_range_loop,
    clippy::too_many_arguments,
    clippy::type_complexity
)]

pub mod activation;
mod aligned;
#[cfg(target_arch = "x86_64")]
mod amx;
pub mod attention;
pub mod conv;
#[cfg(feature = "flex")]
mod flex;
mod folding;
pub mod gemm;
mod int4;
pub mod narrow;
pub mod norm;
#[cfg(feature = "flex")]
mod packs;
#[cfg(not(feature = "flex"))]
mod plain;
#[cfg(feature = "flex")]
mod pool;
pub mod pooling;
mod simd;
mod threads;
mod widened;
mod winograd;

pub use activation::Activation;
pub use conv::Convolution;
#[cfg(feature = "flex")]
pub use flex::{
    activate, attention, convolve, layer_norm, linear, max_pool, precision, scale_shift,
    set_precision, takes, takes_halves,
};
pub use narrow::Precision;
#[cfg(feature = "flex")]
pub use packs::after_packing;
#[cfg(not(feature = "flex"))]
pub use plain::{
    activate, after_packing, attention, convolve, layer_norm, linear, max_pool, precision,
    scale_shift, set_precision, takes, takes_halves,
};
pub use simd::{Isa, VARIABLE};
pub use threads::awake;
