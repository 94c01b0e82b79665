//! Pre- and post-processing that several architectures share.

pub mod distribution;
pub mod series;
pub mod text;
pub mod time;
