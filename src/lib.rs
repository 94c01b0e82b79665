//! Salamander runs models: weights in any framework's format come in, a typed task comes out, and it
//! runs unchanged on the CPU or a GPU, without Python and without C.
//!
//! ```no_run
//! use salamander::{Device, tasks::TextClassification};
//!
//! fn main() -> Result<(), salamander::Error> {
//!     let device = Device::from_env()?;
//!     let classify = TextClassification::open("assets/sentiment", &device)?;
//!     for label in classify.run("a warm, funny, engaging film")? {
//!         println!("{} {:.3}", label.name, label.score);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! [`tasks`] are what an application calls; a [`Device`] says where they run. [`Network`] is the bare
//! network behind a task, [`models`] the zoo and [`importers`] the weight formats.
//!
//! # Features
//!
//! Each links one of Burn's backends; several can live in one binary.
//!
//! | feature | runs on | needs |
//! |---|---|---|
//! | `flex` (default) | the CPU | nothing |
//! | `wgpu` | GPUs, by WebGPU shaders | a driver |
//! | `vulkan` | GPUs, by Vulkan | a driver |
//! | `metal` | Apple's GPUs | macOS |
//! | `cuda` | NVIDIA's GPUs | CUDA; downloads LLVM when built |
//! | `rocm` | AMD's GPUs | ROCm; downloads LLVM when built |
//! | `cpu` | the CPU, by CubeCL | downloads LLVM when built |
//! | `ndarray` | the CPU, by ndarray | nothing |
//!
//! `hub` lets every `open` take a hub id, and brings in TLS, which needs a C compiler when built.

pub use salamander_engine::*;
