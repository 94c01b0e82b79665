//! Pre- and post-processing that several architectures share.

pub mod audio;
pub mod text;
