//! Bytes to named tensors, and named tensors into Burn modules.
//!
//! A [`Checkpoint`] lists what a weight file holds without reading the data. A [`KeyMap`] says how the
//! names of a checkpoint and of a module correspond. [`load`] lays module, map and checkpoint over each
//! other, and either fills every parameter or gives one [`KeyReport`] that names everything that does
//! not fit. [`write`](fn@write) writes a checkpoint in any of the [`WriteFormat`]s, one tensor at a time.
//!
//! This crate knows no architecture and opens no socket.

pub mod burnpack;
mod change;
mod checkpoint;
mod compress;
mod data;
mod detect;
mod error;
pub mod flax;
mod float8;
pub mod ggml;
pub mod gguf;
pub mod hdf5;
pub mod json;
mod key_map;
mod large;
mod load;
mod map;
mod mlx;
pub mod model_text;
pub mod numpy;
pub mod onnx;
mod prefix;
mod protobuf;
pub mod pytorch;
mod pytorch_layout;
mod report;
pub mod safetensors;
pub mod scan;
pub mod sentencepiece;
mod sharded;
pub mod tensorflow;
pub mod tflite;
mod verify;
mod write;
mod zip;

pub use change::{Difference, difference};
pub use checkpoint::{Checkpoint, Dtype, Entry, Format, Layer, Layout, Placement, Trace};
pub use error::{FormatError, LoadError};
pub use float8::Float8;
pub use key_map::{Block, KeyMap, Row, Source, rename};
pub use load::{load, load_keeping};
pub use map::release;
pub use report::{Ambiguous, KeyReport, Mismatch, Missing, Unexpected};
pub use verify::verify;
pub use write::{Compression, WriteFormat, WriteOptions, write};
