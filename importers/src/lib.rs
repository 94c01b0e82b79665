//! Bytes to named tensors, and named tensors into Burn modules.
//!
//! A [`Checkpoint`] lists what a weight file holds without reading the data. A [`KeyMap`] says how the
//! names of a checkpoint and of a module correspond. [`load`] lays module, map and checkpoint over each
//! other, and either fills every parameter or gives one [`KeyReport`] that names everything that does
//! not fit.
//!
//! This crate knows no architecture and opens no socket.

mod checkpoint;
mod data;
mod detect;
mod error;
pub mod gguf;
pub mod hdf5;
mod key_map;
mod load;
mod map;
pub mod numpy;
mod proto;
pub mod pytorch;
mod pytorch_layout;
mod report;
pub mod safetensors;
mod sharded;
pub mod tensorflow;
pub mod tflite;
mod zip;

pub use checkpoint::{Checkpoint, Dtype, Entry, Format};
pub use error::{FormatError, LoadError};
pub use key_map::{Block, KeyMap, Row, Source};
pub use load::load;
pub use report::{KeyReport, Mismatch, Missing, Unexpected};
