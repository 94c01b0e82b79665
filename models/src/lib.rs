//! The model zoo: one folder an architecture, written over Burn's `Tensor` and `Device`.
//!
//! Nothing here opens a file or a socket or names a backend: configurations come as parsed JSON,
//! weights as a [`Checkpoint`](salamander_importers::Checkpoint), tokenizers as bytes.

mod architecture;
pub mod bert;
pub mod blocks;
mod config;
mod contained;
mod detect;
mod error;
mod family;
mod load;
mod naming;
pub mod patchtst;
mod preset;
pub mod processing;
pub mod resnet;
mod tensors;
mod timm;
pub mod vit;
pub mod whisper;

pub use architecture::{
    Architecture, Class, Detect, Forecasts, Load, Model, Task, find, open, open_class, seen_through,
};
pub use config::PretrainedConfig;
pub use contained::{Files, contained_files, contained_tokenizer};
pub use detect::{Detected, Field, Finding, detect};
pub use error::{ConfigError, InputError, LoadError};
pub use family::Family;
pub use naming::{Naming, completed_for_hugging_face, in_hugging_face, naming};
pub use preset::{Preset, find_preset, nearest};
pub use salamander_kernels::awake;
pub use tensors::{Inputs, Outputs, Value};
pub use timm::timm_preset;

/// Every architecture of the zoo.
pub const ARCHITECTURES: &[Architecture] = &[
    bert::ARCHITECTURE,
    patchtst::ARCHITECTURE,
    resnet::ARCHITECTURE,
    vit::ARCHITECTURE,
    whisper::ARCHITECTURE,
];
