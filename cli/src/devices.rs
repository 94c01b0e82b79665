//! `salamander devices`.

use std::io::{self, Write};

use clap::Args;
use salamander::{BackendDevices, Device, DeviceInfo};

use crate::Failure;
use crate::output::{json_line, table};

#[derive(Args)]
pub(crate) struct Devices {
    /// Print one JSON object a backend and line
    #[arg(long)]
    json: bool,
}

impl Devices {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let survey = Device::survey();
        let mut out = io::stdout().lock();
        if self.json {
            for backend in &survey {
                json_line(&mut out, backend)?;
            }
            return Ok(());
        }
        let heads = ["device", "memory", "largest tensor", "types", "name"];
        let mut rows = vec![heads.map(str::to_owned).to_vec()];
        rows.extend(survey.iter().flat_map(rows_of));
        table(&mut out, &rows)?;
        match Device::from_env() {
            Ok(device) => writeln!(out, "\n{device} is taken by default")?,
            Err(error) => writeln!(out, "\nnone is taken by default: {error}")?,
        }
        Ok(())
    }
}

/// A row a device, or one that says why there is none.
fn rows_of(backend: &BackendDevices) -> Vec<Vec<String>> {
    if let Some(reason) = &backend.absent {
        let blank = String::new;
        return vec![vec![
            backend.backend.to_owned(),
            blank(),
            blank(),
            blank(),
            reason.clone(),
        ]];
    }
    backend.devices.iter().map(row).collect()
}

fn row(device: &DeviceInfo) -> Vec<String> {
    let size = |bytes: Option<u64>| bytes.map_or(String::new(), human);
    let software = if device.device.contains(':') && !device.gpu {
        ", which computes on the CPU"
    } else {
        ""
    };
    vec![
        device.device.clone(),
        size(device.memory),
        size(device.largest_tensor),
        device.dtypes.join(" "),
        format!("{}{software}", device.name),
    ]
}

fn human(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}
