//! Which devices there are, and what they are like.

use burn::tensor::{DType, Device as BurnDevice};
use serde::Serialize;

use super::attempt::caught;
use super::{Backend, DeviceError};

/// A backend, and its devices on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackendDevices {
    /// The backend's name, which is also its Cargo feature's.
    pub backend: &'static str,
    /// Whether it is part of this program.
    pub linked: bool,
    /// Its devices here, best first.
    pub devices: Vec<DeviceInfo>,
    /// Why it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absent: Option<String>,
}

/// A device, as its driver describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceInfo {
    /// What chooses it: `flex`, `wgpu:0`, …
    pub device: String,
    /// The processor's name.
    pub name: String,
    /// Whether it is a GPU; a driver that computes on the CPU is none.
    pub gpu: bool,
    /// Its memory in bytes, where the backend says.
    pub memory: Option<u64>,
    /// The most bytes that one tensor can have, where that is less than the memory.
    pub largest_tensor: Option<u64>,
    /// The types that it computes with.
    pub dtypes: Vec<&'static str>,
}

const DTYPES: &[(DType, &str)] = &[
    (DType::F64, "f64"),
    (DType::F32, "f32"),
    (DType::F16, "f16"),
    (DType::BF16, "bf16"),
    (DType::I64, "i64"),
    (DType::I32, "i32"),
    (DType::I8, "i8"),
    (DType::U8, "u8"),
];

impl Backend {
    pub(super) fn survey(self) -> BackendDevices {
        let mut survey = BackendDevices {
            backend: self.name(),
            linked: self.linked(),
            devices: Vec::new(),
            absent: None,
        };
        if !self.linked() {
            survey.absent = Some("not linked into this program".to_owned());
            return survey;
        }
        let count = match self.devices() {
            Ok(devices) => devices.len(),
            Err(reason) => {
                survey.absent = Some(reason);
                return survey;
            }
        };
        for index in 0..count {
            match self.open(Some(index)) {
                Ok(device) => survey.devices.push(device.info()),
                Err(DeviceError::Absent { reason, .. }) => survey.absent = Some(reason),
                Err(error) => survey.absent = Some(error.to_string()),
            }
        }
        if survey.devices.is_empty() {
            let none = || "this machine has none".to_owned();
            survey.absent.get_or_insert_with(none);
        } else {
            survey.absent = None;
        }
        survey
    }
}

/// What a device says of itself.
pub(super) fn describe(device: String, burn: &BurnDevice) -> DeviceInfo {
    let supported = DTYPES.iter().filter(|(dtype, _)| {
        let supports = caught(|| burn.supports_dtype(*dtype));
        supports.unwrap_or(false)
    });
    let dtypes = supported.map(|(_, name)| *name).collect();
    let properties = properties(burn);
    let on_cpu = properties.is_none() || is_software(burn);
    let (processor, host) = if on_cpu { host() } else { Default::default() };
    let (name, memory, largest_tensor) = match properties {
        Some((name, memory, largest)) => (name, memory.or(host), largest),
        None => (processor, host, None),
    };
    let less = |largest: &u64| memory.is_none_or(|memory| *largest < memory);
    DeviceInfo {
        device,
        name,
        gpu: !on_cpu,
        memory,
        largest_tensor: largest_tensor.filter(less),
        dtypes,
    }
}

/// The processor's name, and the machine's memory in bytes where it is known.
fn host() -> (String, Option<u64>) {
    use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};
    let kind = RefreshKind::nothing()
        .with_memory(MemoryRefreshKind::nothing().with_ram())
        .with_cpu(CpuRefreshKind::nothing());
    let system = System::new_with_specifics(kind);
    let brand = system.cpus().first().map_or("", |cpu| cpu.brand()).trim();
    let name = if brand.is_empty() { "CPU" } else { brand };
    let memory = system.total_memory();
    (name.to_owned(), (memory > 0).then_some(memory))
}

#[cfg(any(
    feature = "cpu",
    feature = "cuda",
    feature = "metal",
    feature = "rocm",
    feature = "vulkan",
    feature = "wgpu"
))]
mod cube {
    use burn::backend::{CubeDevice, DispatchDevice};
    use burn::tensor::Device as BurnDevice;

    use super::caught;

    fn of(device: &BurnDevice) -> Option<&CubeDevice> {
        match device.as_dispatch() {
            DispatchDevice::Cube(device) => Some(device),
            #[allow(unreachable_patterns)]
            _ => None,
        }
    }

    /// Name, memory and largest buffer.
    pub(in super::super) fn properties(
        device: &BurnDevice,
    ) -> Option<(String, Option<u64>, Option<u64>)> {
        let device = of(device)?;
        let read = caught(|| {
            let client = device.client();
            let properties = client.properties();
            let memory = &properties.memory;
            (
                properties.identity.name.clone(),
                memory.max_memory(),
                Some(memory.max_page_size),
            )
        });
        read.ok()
    }

    /// WebGPU's kinds of adapters, best first.
    #[cfg(any(feature = "metal", feature = "vulkan", feature = "wgpu"))]
    pub(in super::super) fn rank(device: &BurnDevice) -> usize {
        use burn::backend::WgpuDeviceKind as Kind;
        match of(device) {
            Some(CubeDevice::Wgpu(device)) => match device.kind {
                Kind::DiscreteGpu(_) => 0,
                Kind::IntegratedGpu(_) => 1,
                Kind::VirtualGpu(_) => 2,
                Kind::Cpu => 4,
                _ => 3,
            },
            _ => 0,
        }
    }

    /// Whether it is a driver that computes on the CPU.
    #[cfg(any(feature = "metal", feature = "vulkan", feature = "wgpu"))]
    pub(in super::super) fn is_software(device: &BurnDevice) -> bool {
        rank(device) == 4
    }
}

#[cfg(any(
    feature = "cpu",
    feature = "cuda",
    feature = "metal",
    feature = "rocm",
    feature = "vulkan",
    feature = "wgpu"
))]
use cube::properties;

#[cfg(any(feature = "metal", feature = "vulkan", feature = "wgpu"))]
pub(super) use cube::{is_software, rank};

#[cfg(not(any(
    feature = "cpu",
    feature = "cuda",
    feature = "metal",
    feature = "rocm",
    feature = "vulkan",
    feature = "wgpu"
)))]
fn properties(_: &BurnDevice) -> Option<(String, Option<u64>, Option<u64>)> {
    None
}

#[cfg(not(any(feature = "metal", feature = "vulkan", feature = "wgpu")))]
pub(super) fn rank(_: &BurnDevice) -> usize {
    0
}

#[cfg(not(any(feature = "metal", feature = "vulkan", feature = "wgpu")))]
pub(super) fn is_software(_: &BurnDevice) -> bool {
    false
}
