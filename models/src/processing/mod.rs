//! Pre- and post-processing that several architectures share.

pub mod audio;
mod axis;
pub mod distribution;
pub mod frequency;
pub mod image;
pub mod missing;
pub mod series;
pub mod text;
pub mod time;
pub(crate) mod vocabulary;
