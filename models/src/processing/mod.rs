//! Pre- and post-processing that several architectures share.

pub mod audio;
pub mod distribution;
pub mod image;
pub mod series;
pub mod text;
pub mod time;
pub(crate) mod vocabulary;
