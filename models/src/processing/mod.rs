//! Pre- and post-processing that several architectures share.

pub mod distribution;
pub mod image;
pub mod text;
