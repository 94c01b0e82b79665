mod attempt;
mod driver;
mod present;

use std::fmt;
use std::str::FromStr;
use std::sync::Once;

use burn::tensor::{Device as BurnDevice, FloatDType, Tensor};
use salamander_importers::{Checkpoint, Dtype};
use salamander_models::{InputError, Inputs, Model, Outputs, awake};

pub use present::{BackendDevices, DeviceInfo};

use crate::source::under;
use attempt::caught;

/// The environment variable that chooses the device of [`Device::from_env`].
const VARIABLE: &str = "SALAMANDER_DEVICE";

/// Where a model runs: a backend that is linked into this program, and one of its devices.
///
/// It is written `flex`, `wgpu`, `cuda:1`, …; see [`Device::from_str`]. What it prints is what runs.
#[derive(Clone, Debug)]
pub struct Device {
    backend: Backend,
    /// Which of the backend's devices; none is the CPU, or a device that the application brought.
    index: Option<usize>,
    burn: BurnDevice,
    dtype: Dtype,
    /// What stands before the names of a model's tensors, where it was said.
    prefix: Option<String>,
}

/// A device that cannot be had, or fails.
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
    /// The name is a kind of device, and no backend that is linked has that kind.
    #[error("`{name}` is {kind}, of which this program has none; it has {linked}: {remedy}")]
    NoneOfKind {
        /// What was asked for.
        name: String,
        /// What that is.
        kind: &'static str,
        /// The backends that are linked.
        linked: String,
        /// What to do.
        remedy: &'static str,
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
    /// It has no room for what was asked of it. Smaller batches need less; another device may have more.
    #[error(
        "device `{device}` is out of memory: {}{reason}",
        bytes.map(|bytes| format!("{bytes} bytes were asked for: ")).unwrap_or_default()
    )]
    OutOfMemory {
        /// The device.
        device: String,
        /// The bytes that were asked for at once, where the backend says.
        bytes: Option<u64>,
        /// What the backend said.
        reason: String,
    },
    /// It failed while it computed: it was lost, or its backend has a fault. What was opened on it is to be
    /// dropped; the process can go on, on another device.
    #[error("device `{device}` failed: {reason}")]
    Failed {
        /// The device.
        device: String,
        /// What the backend said.
        reason: String,
    },
    /// The name is none of a type to compute in.
    #[error("`{name}` is not a type to compute in; known are {known}")]
    UnknownDtype {
        /// What was asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The device does not compute in that type.
    #[error("device `{name}` does not compute in {dtype}; known are {known}")]
    Dtype {
        /// The device.
        name: String,
        /// What was asked for.
        dtype: String,
        /// The types there are.
        known: String,
    },
}

macro_rules! backends {
    ($($variant:ident $name:literal $gpu:literal;)*) => {
        /// The backends, best first. Each has a Cargo feature of its name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Backend { $($variant),* }

        const BACKENDS: &[Backend] = &[$(Backend::$variant),*];

        impl Backend {
            fn name(self) -> &'static str {
                match self { $(Backend::$variant => $name),* }
            }

            fn linked(self) -> bool {
                match self { $(Backend::$variant => cfg!(feature = $name)),* }
            }

            /// Whether a machine can have several of its devices.
            fn is_gpu(self) -> bool {
                match self { $(Backend::$variant => $gpu),* }
            }
        }
    };
}

backends! {
    Cuda "cuda" true;
    Metal "metal" true;
    Rocm "rocm" true;
    Vulkan "vulkan" true;
    Wgpu "wgpu" true;
    Flex "flex" false;
    Cpu "cpu" false;
    NdArray "ndarray" false;
}

impl Backend {
    /// The devices of this backend that the machine has, best first, or why they cannot be had. Without a
    /// driver a backend may panic.
    fn devices(self) -> Result<Vec<BurnDevice>, String> {
        if self == Backend::Cuda {
            driver::cuda()?;
        }
        let mut devices = caught(|| match self {
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
        })?;
        devices.sort_by_key(present::rank);
        Ok(devices)
    }

    /// What its device of that index is called.
    fn device_name(self, index: Option<usize>) -> String {
        match index {
            Some(index) => format!("{}:{index}", self.name()),
            None => self.name().to_owned(),
        }
    }

    /// Opens one of its devices and computes with it once.
    fn open(self, index: Option<usize>) -> Result<Device, DeviceError> {
        if !self.linked() {
            return Err(DeviceError::NotLinked {
                name: self.name(),
                linked: linked_names(),
            });
        }
        let absent = |reason: String| DeviceError::Absent {
            name: self.device_name(index),
            reason,
        };
        let devices = self.devices().map_err(absent)?;
        let count = devices.len();
        let Some(burn) = devices.into_iter().nth(index.unwrap_or(0)) else {
            return Err(absent(format!(
                "this machine has {count} of this kind, counted from 0"
            )));
        };
        computes(&burn).map_err(absent)?;
        Ok(Device {
            backend: self,
            index: self.is_gpu().then(|| index.unwrap_or(0)),
            burn,
            dtype: Dtype::F32,
            prefix: None,
        })
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

/// Whether a device adds two numbers.
fn computes(device: &BurnDevice) -> Result<(), String> {
    let sum = caught(|| {
        let numbers = Tensor::<1>::from_floats([1.0, 2.0], device);
        numbers.add_scalar(3.0).try_into_data()
    })?;
    let sum = sum.map_err(|error| error.to_string())?;
    let sum: Vec<f32> = sum.iter::<f32>().collect();
    match sum[..] {
        [4.0, 5.0] => Ok(()),
        _ => Err(format!("it computes [1, 2] + 3 as {sum:?}")),
    }
}

fn linked_names() -> String {
    let linked = Device::linked();
    if linked.is_empty() {
        "no backend at all".to_owned()
    } else {
        linked.join(", ")
    }
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

    /// The best device that is linked and there: a GPU before the CPU, and that before a GPU driver that
    /// computes on the CPU. A program that could use a GPU and finds none warns once, by `tracing`.
    ///
    /// # Errors
    /// No backend is linked, or none of its devices is there.
    pub fn best() -> Result<Self, DeviceError> {
        static WARNED: Once = Once::new();
        let (mut software, mut missed, mut error) = (None, Vec::new(), None);
        for backend in BACKENDS.iter().filter(|backend| backend.linked()) {
            match backend.open(None) {
                Ok(device) if present::is_software(&device.burn) => {
                    missed.push(format!("{device} computes on the CPU"));
                    software.get_or_insert(device);
                }
                Ok(device) => {
                    if !missed.is_empty() && device.is_cpu() {
                        WARNED.call_once(|| {
                            let missed = missed.join("; ");
                            tracing::warn!("no GPU can be used, so {device} is: {missed}");
                        });
                    }
                    return Ok(device);
                }
                Err(absent) => {
                    missed.push(absent.to_string());
                    error = Some(absent);
                }
            }
        }
        software.ok_or_else(|| {
            error.unwrap_or(DeviceError::NotLinked {
                name: Backend::Flex.name(),
                linked: linked_names(),
            })
        })
    }

    /// Every backend that is known, whether it is linked, and which of its devices this machine has. It
    /// opens each of them.
    pub fn survey() -> Vec<BackendDevices> {
        BACKENDS.iter().map(|backend| backend.survey()).collect()
    }

    /// The CPU, by Burn's pure-Rust backend.
    #[cfg(feature = "flex")]
    pub fn flex() -> Self {
        Self {
            backend: Backend::Flex,
            index: None,
            burn: BurnDevice::flex(),
            dtype: Dtype::F32,
            prefix: None,
        }
    }

    /// The GPU of that index, by WebGPU.
    ///
    /// # Errors
    /// The backend is not linked, or the machine has no such GPU.
    pub fn wgpu(index: usize) -> Result<Self, DeviceError> {
        Backend::Wgpu.open(Some(index))
    }

    /// The GPU that an application draws with already, so that both share its memory and its driver's
    /// state. Register a setup once, and clone the device.
    ///
    /// # Errors
    /// The handles do not belong together, or the device has too few of the limits that computing needs:
    /// an application asks its adapter for all of its limits and features.
    #[cfg(feature = "wgpu")]
    pub fn shared_wgpu(setup: burn::tensor::wgpu::WgpuSetup) -> Result<Self, DeviceError> {
        let absent = |reason: String| DeviceError::Absent {
            name: Backend::Wgpu.name().to_owned(),
            reason,
        };
        let options = BurnDevice::wgpu_options().setup(setup);
        let burn = caught(|| options.init().map_err(|error| error.to_string()));
        let burn = burn.and_then(|result| result).map_err(absent)?;
        computes(&burn).map_err(absent)?;
        Ok(Self {
            backend: Backend::Wgpu,
            index: None,
            burn,
            dtype: Dtype::F32,
            prefix: None,
        })
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

    /// Whether it is the CPU by one of the CPU's own backends.
    pub fn is_cpu(&self) -> bool {
        !self.backend.is_gpu()
    }

    /// Its name, memory and types.
    pub fn info(&self) -> DeviceInfo {
        present::describe(self.backend.device_name(self.index), &self.burn)
    }

    /// The types that devices may compute in, by what they are called.
    pub const DTYPES: [(&str, Dtype); 5] = [
        ("f32", Dtype::F32),
        ("f16", Dtype::F16),
        ("bf16", Dtype::BF16),
        ("int8", Dtype::I8),
        ("int4", Dtype::INT4),
    ];

    /// The one of [`DTYPES`](Self::DTYPES) that is called so, whether or not a device computes in it.
    ///
    /// # Errors
    /// None is.
    pub fn dtype_named(name: &str) -> Result<Dtype, DeviceError> {
        let mut known = Self::DTYPES.into_iter();
        let found = known.find(|(known, _)| *known == name);
        found
            .map(|(_, dtype)| dtype)
            .ok_or_else(|| DeviceError::UnknownDtype {
                name: name.to_owned(),
                known: Self::DTYPES.map(|(name, _)| name).join(", "),
            })
    }

    /// The same device for opening models whose linear layers and convolutions it computes in another type than
    /// f32: on `flex` in [`Dtype::BF16`], whose weights take half the memory, [`Dtype::I8`], whose take a quarter
    /// and whose inputs are quantized as they come, row by row or picture by picture, [`Dtype::F16`], whose linear
    /// weights take half, or [`Dtype::INT4`], whose linear weights take a sixth.
    ///
    /// Everything else stays in f32, but for attention's products, which are of bf16 in the first two where the CPU
    /// has AMX. All cost a little of a model's accuracy, f16 the least, int4 more than a little of small models'.
    /// How much less time bf16 and int8 take depends on
    /// what the CPU has: AMX, AVX512-BF16 and AVX512-VNNI are used, and without them only the memory is less.
    /// f16 and int4 are for generating text, a token at a time, which reads all weights for each; longer inputs
    /// take as long as in f32.
    ///
    /// On a GPU it is [`Dtype::F16`] or [`Dtype::BF16`], where the device has it, for convolutions and for the
    /// linear layers of attention and MLPs.
    ///
    /// # Errors
    /// The device does not compute in that type.
    pub fn with_dtype(self, dtype: Dtype) -> Result<Self, DeviceError> {
        let mut known = Self::DTYPES.into_iter();
        if known.any(|(_, known)| known == dtype) && self.computes_in(&dtype) {
            return Ok(Self { dtype, ..self });
        }
        let known = Self::DTYPES.into_iter();
        let known = known.filter(|(_, known)| self.computes_in(known));
        Err(DeviceError::Dtype {
            name: self.backend.device_name(self.index),
            dtype: compute_name(&dtype),
            known: known.map(|(name, _)| name).collect::<Vec<_>>().join(", "),
        })
    }

    /// The same device for opening models whose tensors' names stand under `prefix`, such as `student.` or
    /// `ema.module.`, which is taken off them.
    ///
    /// What wrappers of PyTorch and trainers add is seen through without: this is for files in which several models'
    /// names stand, or a part of one is meant. A dot at its end may be left out. Tensors outside of it are used where
    /// the model has a place for their whole names, and stay unread otherwise.
    #[must_use]
    pub fn with_prefix(self, prefix: impl Into<String>) -> Self {
        let prefix = prefix.into();
        Self {
            prefix: (!prefix.is_empty()).then_some(prefix),
            ..self
        }
    }

    /// What names are to stand under.
    pub(crate) fn prefix(&self) -> Option<&str> {
        self.prefix.as_deref()
    }

    /// Whether it has one of [`DTYPES`](Self::DTYPES).
    fn computes_in(&self, dtype: &Dtype) -> bool {
        let has = |dtype| {
            let has = caught(|| self.burn.supports_dtype(dtype));
            self.backend.is_gpu() && has.unwrap_or(false)
        };
        match dtype {
            Dtype::F32 => true,
            _ if self.backend == Backend::Flex => true,
            Dtype::F16 => has(FloatDType::F16),
            Dtype::BF16 => has(FloatDType::BF16),
            _ => false,
        }
    }

    /// The type that it computes linear layers in.
    pub fn dtype(&self) -> &Dtype {
        &self.dtype
    }

    /// A checkpoint for models on this device.
    pub(crate) fn weights(&self, checkpoint: Checkpoint) -> Checkpoint {
        under(checkpoint, self.prefix()).computed_in(self.dtype.clone())
    }

    /// Runs a model on this device.
    pub(crate) fn forward(&self, model: &dyn Model, inputs: Inputs) -> Result<Outputs, InputError> {
        self.compute(|| model.forward(inputs))
    }

    /// Does what this device is to compute in one go, with its threads awake.
    pub(crate) fn compute<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match self.backend {
            Backend::Flex => awake(work),
            _ => work(),
        }
    }

    /// Burn's handle, for code that works with tensors.
    pub fn burn(&self) -> &BurnDevice {
        &self.burn
    }
}

/// What a type to compute in is called.
fn compute_name(dtype: &Dtype) -> String {
    let known = Device::DTYPES.iter().find(|(_, known)| known == dtype);
    known.map_or_else(
        || dtype.to_string().to_lowercase(),
        |(name, _)| (*name).to_owned(),
    )
}

/// What people call a kind of device that backends of other names have, best first.
fn common_name(name: &str) -> Option<(&'static str, &'static str, &'static [Backend])> {
    const GPU: &str = "build with the feature of one of cuda, metal, rocm, vulkan, wgpu";
    Some(match name {
        // CubeCL's CPU backend has that very name, and keeps it where it is linked.
        "cpu" => (
            "the CPU",
            "build with `--features flex`",
            &[Backend::Cpu, Backend::Flex, Backend::NdArray],
        ),
        "gpu" => (
            "a GPU",
            GPU,
            &[
                Backend::Cuda,
                Backend::Metal,
                Backend::Rocm,
                Backend::Vulkan,
                Backend::Wgpu,
            ],
        ),
        "mps" => (
            "an Apple GPU",
            "build with `--features metal`",
            &[Backend::Metal, Backend::Wgpu],
        ),
        "webgpu" => (
            "a GPU by WebGPU",
            "build with `--features wgpu`",
            &[Backend::Wgpu],
        ),
        "hip" => (
            "an AMD GPU",
            "build with `--features rocm`",
            &[Backend::Rocm],
        ),
        _ => return None,
    })
}

/// The first device that can be had and is not a driver on the CPU, or why there is none.
fn first_of(
    devices: impl Iterator<Item = Result<Device, DeviceError>>,
) -> Result<Device, DeviceError> {
    let mut reasons = Vec::new();
    let mut last = None;
    for device in devices {
        match device {
            Ok(device) if device.is_cpu() || !present::is_software(&device.burn) => {
                return Ok(device);
            }
            Ok(device) => {
                let reason = "it computes on the CPU".to_owned();
                reasons.push(format!("{device}: {reason}"));
                last = Some(DeviceError::Absent {
                    name: device.to_string(),
                    reason,
                });
            }
            Err(error) => {
                reasons.push(error.to_string());
                last = Some(error);
            }
        }
    }
    Err(match last {
        Some(DeviceError::Absent { name, .. }) if reasons.len() > 1 => DeviceError::Absent {
            name,
            reason: reasons.join("; "),
        },
        Some(error) => error,
        None => DeviceError::NotLinked {
            name: Backend::Flex.name(),
            linked: linked_names(),
        },
    })
}

impl FromStr for Device {
    type Err = DeviceError;

    /// Opens the device that is written `BACKEND`, `BACKEND:INDEX` for one of several GPUs, or `auto`
    /// for [`Device::best`]. `cpu` is CubeCL's backend where that is linked, and else `flex`. `gpu` is the best GPU,
    /// or an error where there is none; `mps`, `webgpu` and `hip` are Metal's, WebGPU's and ROCm's. `flex in bf16` as by [`with_dtype`](Self::with_dtype), and so on.
    fn from_str(text: &str) -> Result<Self, DeviceError> {
        if let Some((text, name)) = text.split_once(" in ") {
            let device: Self = text.parse()?;
            return device.with_dtype(Self::dtype_named(name)?);
        }
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
        if let Some((kind, remedy, backends)) = common_name(name) {
            let linked = backends.iter().copied().filter(|backend| backend.linked());
            let mut opened = linked.map(|backend| backend.open(index)).peekable();
            if opened.peek().is_none() {
                return Err(DeviceError::NoneOfKind {
                    name: text.to_owned(),
                    kind,
                    linked: linked_names(),
                    remedy,
                });
            }
            return first_of(opened);
        }
        let backend = BACKENDS.iter().find(|backend| backend.name() == name);
        backend.ok_or_else(unknown)?.open(index)
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut name = self.backend.device_name(self.index);
        if self.dtype != Dtype::F32 {
            name = format!("{name} in {}", compute_name(&self.dtype));
        }
        f.pad(&name)
    }
}

#[cfg(test)]
mod tests {
    use salamander_importers::Dtype;

    use super::{Device, DeviceError};

    #[test]
    fn names_that_are_none_say_what_there_is() {
        for name in ["", "tpu", "cuda:", "cuda:x", "flex:-1", "CPU "] {
            let error = name.parse::<Device>().unwrap_err();
            assert!(
                matches!(error, DeviceError::Unknown { .. }),
                "{name}: {error}"
            );
        }
    }

    #[cfg(all(feature = "flex", not(feature = "cpu")))]
    #[test]
    fn the_cpu_goes_by_the_name_that_everyone_types() {
        assert_eq!("cpu".parse::<Device>().unwrap().to_string(), "flex");
        assert_eq!(
            "cpu in bf16".parse::<Device>().unwrap().to_string(),
            "flex in bf16"
        );
        let error = "cpu:1".parse::<Device>().unwrap_err();
        assert!(matches!(error, DeviceError::Absent { .. }), "{error}");
    }

    #[test]
    fn kinds_of_devices_are_devices_of_that_kind_or_errors() {
        for (name, feature) in [
            ("gpu", ""),
            ("mps", "metal"),
            ("webgpu", "wgpu"),
            ("hip", "rocm"),
        ] {
            match name.parse::<Device>() {
                Ok(device) => assert!(!device.is_cpu(), "{name}: {device}"),
                Err(DeviceError::Absent { .. }) => {}
                Err(error) => {
                    assert!(
                        matches!(error, DeviceError::NoneOfKind { .. }),
                        "{name}: {error}"
                    );
                    let text = error.to_string();
                    let linked = Device::linked().join(", ");
                    assert!(text.contains(feature) && text.contains(&linked), "{text}");
                }
            }
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
        for name in [
            "flex in f16",
            "flex in bf16",
            "flex in int8",
            "flex in int4",
        ] {
            assert_eq!(name.parse::<Device>().unwrap().to_string(), name);
        }
        let error = "flex in f64".parse::<Device>().unwrap_err().to_string();
        assert!(error.contains("f64") && error.contains("int4"), "{error}");
        let error = device.with_dtype(Dtype::F64).unwrap_err().to_string();
        assert!(
            error.ends_with("in f64; known are f32, f16, bf16, int8, int4"),
            "{error}"
        );
    }

    #[cfg(feature = "flex")]
    #[test]
    fn there_is_one_cpu() {
        assert_eq!("flex".parse::<Device>().unwrap().to_string(), "flex");
        let error = "flex:1".parse::<Device>().unwrap_err();
        assert!(matches!(error, DeviceError::Absent { .. }), "{error}");
    }

    #[cfg(feature = "wgpu")]
    #[test]
    fn an_index_beyond_the_last_gpu_is_an_error() {
        let error = "wgpu:99".parse::<Device>().unwrap_err();
        assert!(error.to_string().contains("wgpu:99"), "{error}");
        assert!(matches!(error, DeviceError::Absent { .. }), "{error}");
    }

    #[test]
    fn a_survey_names_every_backend_and_opens_what_it_lists() {
        let survey = Device::survey();
        assert!(survey.iter().any(|entry| entry.backend == "cuda"));
        for entry in survey {
            assert_eq!(
                entry.devices.is_empty(),
                entry.absent.is_some(),
                "{entry:?}"
            );
            assert_eq!(entry.linked, Device::linked().contains(&entry.backend));
            for device in entry.devices {
                let opened: Device = device.device.parse().unwrap();
                assert_eq!(opened.info(), device);
                assert!(device.dtypes.contains(&"f32"), "{device:?}");
            }
        }
    }
}
