use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;

use burn::tensor::{Device as BurnDevice, Tensor};
use salamander_importers::{Checkpoint, Dtype};

/// The environment variable that chooses the device of [`Device::from_env`].
const VARIABLE: &str = "SALAMANDER_DEVICE";

/// Where a model runs: a backend that is linked into this program, and one of its devices.
///
/// It is written `flex`, `wgpu`, `cuda:1`, …; see [`Device::from_str`]. What it prints is what runs.
#[derive(Clone, Debug)]
pub struct Device {
    backend: Backend,
    index: Option<usize>,
    burn: BurnDevice,
    dtype: Dtype,
}

/// A device that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The name is not a device's.
    #[error(
        "`{name}` is not a device; known are auto, {known}, with `:INDEX` for one of several GPUs"
    )]
    Unknown {
        /// What was asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The backend is not part of this program.
    #[error(
        "device `{name}` is not linked into this program, which has {linked}; build with `--features {name}`"
    )]
    NotLinked {
        /// The backend.
        name: &'static str,
        /// The backends that are linked.
        linked: String,
    },
    /// The backend is linked, but this machine has no such device.
    #[error("device `{name}` is not there: {reason}")]
    Absent {
        /// What was asked for.
        name: String,
        /// Why it cannot be used, and what there is.
        reason: String,
    },
    /// The device does not compute in that type.
    #[error("device `{name}` does not compute in {dtype}; known are {known}")]
    Dtype {
        /// The device.
        name: String,
        /// What was asked for.
        dtype: String,
        /// The types there are.
        known: &'static str,
    },
}

macro_rules! backends {
    ($($variant:ident $name:literal $feature:literal $gpu:literal;)*) => {
        /// The backends, best first.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Backend { $($variant),* }

        const BACKENDS: &[Backend] = &[$(Backend::$variant),*];

        impl Backend {
            fn name(self) -> &'static str {
                match self { $(Backend::$variant => $name),* }
            }

            /// Whether the Cargo feature is on.
            fn linked(self) -> bool {
                match self { $(Backend::$variant => cfg!(feature = $feature)),* }
            }

            /// Whether a machine can have several of its devices.
            fn is_gpu(self) -> bool {
                match self { $(Backend::$variant => $gpu),* }
            }
        }
    };
}

backends! {
    Cuda "cuda" "cuda" true;
    Metal "metal" "metal" true;
    Rocm "rocm" "rocm" true;
    Vulkan "vulkan" "vulkan" true;
    Wgpu "wgpu" "wgpu" true;
    Flex "flex" "flex" false;
    Cpu "cpu" "cpu" false;
    NdArray "ndarray" "ndarray" false;
}

impl Backend {
    /// The devices of this backend that the machine has; a driver that is not there may panic.
    fn devices(self) -> Vec<BurnDevice> {
        match self {
            #[cfg(feature = "cuda")]
            Backend::Cuda => list(burn::tensor::DeviceType::Cuda),
            #[cfg(feature = "metal")]
            Backend::Metal => list(burn::tensor::DeviceType::Metal),
            #[cfg(feature = "rocm")]
            Backend::Rocm => list(burn::tensor::DeviceType::Rocm),
            #[cfg(feature = "vulkan")]
            Backend::Vulkan => list(burn::tensor::DeviceType::Vulkan),
            #[cfg(feature = "wgpu")]
            Backend::Wgpu => list(burn::tensor::DeviceType::Wgpu),
            #[cfg(feature = "flex")]
            Backend::Flex => vec![BurnDevice::flex()],
            #[cfg(feature = "cpu")]
            Backend::Cpu => vec![BurnDevice::cpu()],
            // Deprecated upstream in favour of flex, and kept as long as it is there.
            #[cfg(feature = "ndarray")]
            #[allow(deprecated)]
            Backend::NdArray => vec![BurnDevice::ndarray()],
            #[allow(unreachable_patterns)]
            _ => Vec::new(),
        }
    }

    /// Opens one of its devices and computes with it once.
    fn open(self, index: Option<usize>) -> Result<Device, DeviceError> {
        if !self.linked() {
            let linked: Vec<_> = BACKENDS
                .iter()
                .filter(|b| b.linked())
                .map(|b| b.name())
                .collect();
            return Err(DeviceError::NotLinked {
                name: self.name(),
                linked: if linked.is_empty() {
                    "no backend at all".to_owned()
                } else {
                    linked.join(", ")
                },
            });
        }
        let absent = |reason: String| DeviceError::Absent {
            name: match index {
                Some(index) => format!("{}:{index}", self.name()),
                None => self.name().to_owned(),
            },
            reason,
        };
        // Drivers that are absent or broken make the backends panic; to the caller that is one more
        // reason why the device cannot be had.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let devices = self.devices();
            let count = devices.len();
            let burn = devices.into_iter().nth(index.unwrap_or(0)).ok_or(count)?;
            let sum = Tensor::<1>::from_floats([1.0, 2.0], &burn).sum();
            drop(sum.into_data());
            Ok::<_, usize>(burn)
        }));
        match opened {
            Ok(Ok(burn)) => Ok(Device {
                backend: self,
                index: self.is_gpu().then(|| index.unwrap_or(0)),
                burn,
                dtype: Dtype::F32,
            }),
            Ok(Err(count)) => Err(absent(format!(
                "this machine has {count} of this kind, counted from 0"
            ))),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                Err(absent(text.unwrap_or("its driver failed").to_owned()))
            }
        }
    }
}

#[cfg(any(
    feature = "cuda",
    feature = "metal",
    feature = "rocm",
    feature = "vulkan",
    feature = "wgpu"
))]
fn list(kind: burn::tensor::DeviceType) -> Vec<BurnDevice> {
    BurnDevice::enumerate(kind).into_vec()
}

impl Device {
    /// The device that the environment variable `SALAMANDER_DEVICE` names, or [`Device::best`].
    ///
    /// # Errors
    /// The variable names a device that cannot be had, or there is none at all.
    pub fn from_env() -> Result<Self, DeviceError> {
        match std::env::var(VARIABLE) {
            Ok(name) if !name.is_empty() => name.parse(),
            _ => Self::best(),
        }
    }

    /// The best device that is linked and there: a GPU before the CPU.
    ///
    /// # Errors
    /// No backend is linked, or none of its devices is there.
    pub fn best() -> Result<Self, DeviceError> {
        let linked = BACKENDS.iter().filter(|backend| backend.linked());
        let mut error = None;
        for backend in linked {
            match backend.open(None) {
                Ok(device) => return Ok(device),
                Err(absent) => error = Some(absent),
            }
        }
        Err(error.unwrap_or(DeviceError::NotLinked {
            name: Backend::Flex.name(),
            linked: "no backend at all".to_owned(),
        }))
    }

    /// The CPU, by Burn's pure-Rust backend.
    #[cfg(feature = "flex")]
    pub fn flex() -> Self {
        Self {
            backend: Backend::Flex,
            index: None,
            burn: BurnDevice::flex(),
            dtype: Dtype::F32,
        }
    }

    /// The GPU of that index, by WebGPU.
    ///
    /// # Errors
    /// The backend is not linked, or the machine has no such GPU.
    pub fn wgpu(index: usize) -> Result<Self, DeviceError> {
        Backend::Wgpu.open(Some(index))
    }

    /// The NVIDIA GPU of that index.
    ///
    /// # Errors
    /// The backend is not linked, or the machine has no such GPU.
    pub fn cuda(index: usize) -> Result<Self, DeviceError> {
        Backend::Cuda.open(Some(index))
    }

    /// The names of the backends that this program has.
    pub fn linked() -> Vec<&'static str> {
        let linked = BACKENDS.iter().filter(|backend| backend.linked());
        linked.map(|backend| backend.name()).collect()
    }

    /// Whether it is the CPU.
    pub fn is_cpu(&self) -> bool {
        !self.backend.is_gpu()
    }

    /// The same device for opening models whose linear layers it computes in another type than f32: on `flex`
    /// in [`Dtype::BF16`], whose weights take half the memory, or [`Dtype::I8`], whose take a quarter and whose
    /// inputs are quantized row by row as they come.
    ///
    /// Everything else stays in f32. Both are for models that were trained in f32 or bf16, and cost a little of
    /// their accuracy; how much less time they take depends on what the CPU has: AMX, AVX512-BF16 and
    /// AVX512-VNNI are used, and without them only the memory is less.
    ///
    /// # Errors
    /// The device does not compute in that type.
    pub fn with_dtype(self, dtype: Dtype) -> Result<Self, DeviceError> {
        let (narrow, known) = match self.backend {
            Backend::Flex => (true, "f32, bf16, int8"),
            _ => (false, "f32"),
        };
        match dtype {
            Dtype::F32 => {}
            Dtype::BF16 | Dtype::I8 if narrow => {}
            other => {
                return Err(DeviceError::Dtype {
                    name: self.to_string(),
                    dtype: compute_name(&other),
                    known,
                });
            }
        }
        Ok(Self { dtype, ..self })
    }

    /// The type that it computes linear layers in.
    pub fn dtype(&self) -> &Dtype {
        &self.dtype
    }

    /// A checkpoint for models on this device.
    pub(crate) fn weights(&self, checkpoint: Checkpoint) -> Checkpoint {
        checkpoint.computed_in(self.dtype.clone())
    }

    /// Burn's handle, for code that works with tensors.
    pub fn burn(&self) -> &BurnDevice {
        &self.burn
    }
}

/// What a type to compute in is called.
fn compute_name(dtype: &Dtype) -> String {
    match dtype {
        Dtype::I8 => "int8".to_owned(),
        other => other.to_string().to_lowercase(),
    }
}

impl FromStr for Device {
    type Err = DeviceError;

    /// Opens the device that is written `BACKEND`, `BACKEND:INDEX` for one of several GPUs, or `auto`
    /// for [`Device::best`].
    fn from_str(text: &str) -> Result<Self, DeviceError> {
        if text == "auto" {
            return Self::best();
        }
        let unknown = || DeviceError::Unknown {
            name: text.to_owned(),
            known: BACKENDS
                .iter()
                .map(|b| b.name())
                .collect::<Vec<_>>()
                .join(", "),
        };
        let (name, index) = match text.split_once(':') {
            Some((name, index)) => (name, Some(index.parse::<usize>().map_err(|_| unknown())?)),
            None => (text, None),
        };
        let backend = BACKENDS.iter().find(|backend| backend.name() == name);
        backend.ok_or_else(unknown)?.open(index)
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            Some(index) => write!(f, "{}:{index}", self.backend.name())?,
            None => f.pad(self.backend.name())?,
        }
        match &self.dtype {
            Dtype::F32 => Ok(()),
            dtype => write!(f, " in {}", compute_name(dtype)),
        }
    }
}

#[cfg(test)]
mod tests {
    use salamander_importers::Dtype;

    use super::{Device, DeviceError};

    #[test]
    fn names_that_are_none_say_what_there_is() {
        for name in ["", "gpu", "cuda:", "cuda:x", "flex:-1"] {
            let error = name.parse::<Device>().unwrap_err();
            assert!(
                matches!(error, DeviceError::Unknown { .. }),
                "{name}: {error}"
            );
        }
    }

    #[cfg(not(feature = "rocm"))]
    #[test]
    fn an_unlinked_backend_names_its_feature() {
        let error = "rocm".parse::<Device>().unwrap_err().to_string();
        assert!(error.contains("--features rocm"), "{error}");
    }

    #[cfg(feature = "flex")]
    #[test]
    fn types_that_it_does_not_compute_in_are_refused() {
        let device = Device::flex().with_dtype(Dtype::BF16).unwrap();
        assert_eq!(device.to_string(), "flex in bf16");
        let error = device.with_dtype(Dtype::F16).unwrap_err().to_string();
        assert!(error.contains("f16") && error.contains("int8"), "{error}");
    }

    #[cfg(feature = "flex")]
    #[test]
    fn there_is_one_cpu() {
        assert_eq!("flex".parse::<Device>().unwrap().to_string(), "flex");
        let error = "flex:1".parse::<Device>().unwrap_err();
        assert!(matches!(error, DeviceError::Absent { .. }), "{error}");
    }
}
