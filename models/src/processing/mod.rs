//! Pre- and post-processing that several architectures share.

pub mod audio;
mod axis;
mod charsmap;
pub mod distribution;
pub mod frequency;
pub mod image;
pub mod missing;
pub mod series;
pub mod text;
pub mod time;
mod tokenizer_build;
mod tokenizer_class;
pub(crate) mod vocabulary;
