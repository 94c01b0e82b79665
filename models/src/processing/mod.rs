//! Pre- and post-processing that several architectures share.

pub mod distribution;
pub mod text;
