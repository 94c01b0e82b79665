//! What an application calls: choose a [`Device`], open a task, run it.
//!
//! Every task has `open` (a model directory or a hub id), `run` for one input and `run_batch` for many,
//! and can be used from several threads at once.

mod audio;
mod clock;
mod convert;
mod device;
mod error;
mod forward;
mod generate;
mod inspect;
mod model_dir;
pub mod native;
mod sentence;
mod source;
pub mod tasks;
mod threads;
#[cfg(feature = "hub")]
pub mod torch_hub;

pub use audio::{Audio, AudioFileError, AudioWarning, Heard};
pub use convert::{Conversion, ConvertOptions, Converted, Progress, convert, dtype_named};
pub use device::{BackendDevices, Device, DeviceError, DeviceInfo};
pub use error::Error;
pub use forward::Network;
pub use inspect::{DetectedField, Detection, Inspection, TensorInfo, inspect, inspect_under};
pub use model_dir::ModelDir;
#[cfg(feature = "hub")]
pub use salamander_hub as hub;
pub use salamander_importers as importers;
pub use salamander_models as models;
pub use threads::set_threads;
