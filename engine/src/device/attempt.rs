//! The one place where what goes wrong below Burn becomes an error.
//!
//! Backends panic where a driver is absent, where a device has no memory left or is lost, and where they
//! have a fault. Some of that comes back as an error of the next read instead.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use burn::tensor::TensorData;
use salamander_models::{LoadError, Value};

use super::{Device, DeviceError};
use crate::Error;

/// Runs `work`; a panic in it becomes its text.
pub(super) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        brief(text.unwrap_or("its driver failed"))
    })
}

impl Device {
    /// Runs `work` that computes on this device; a panic in it becomes an error.
    pub(crate) fn attempt<T>(&self, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        match caught(work) {
            Ok(result) => result,
            Err(text) => Err(self.failure(&text).into()),
        }
    }

    /// Loads a model of `directory` onto this device.
    pub(crate) fn load<T>(
        &self,
        directory: &Path,
        load: impl FnOnce() -> Result<T, LoadError>,
    ) -> Result<T, Error> {
        self.attempt(|| {
            load().map_err(|error| match error {
                LoadError::Device(reason) => self.failure(&reason).into(),
                other => Error::load(directory)(other),
            })
        })
    }

    /// Reads a tensor back to the host, as `f32`.
    pub(crate) fn read(&self, value: impl Into<Value>) -> Result<TensorData, DeviceError> {
        let read = value.into().try_into_data();
        read.map_err(|error| self.failure(&error.to_string()))
    }

    /// What an error's text says of the device.
    pub(crate) fn failure(&self, text: &str) -> DeviceError {
        let (device, reason) = (self.to_string(), brief(text));
        let lower = reason.to_lowercase();
        const NO_ROOM: [&str; 4] = [
            "out of memory",
            "out of device memory",
            "not enough memory",
            "allocate",
        ];
        if !NO_ROOM.iter().any(|sign| lower.contains(sign)) {
            return DeviceError::Failed { device, reason };
        }
        DeviceError::OutOfMemory {
            device,
            bytes: largest_number(&reason),
            reason,
        }
    }
}

/// What a backend said, on one line and without its backtrace.
fn brief(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let is_trace = |line: &str| {
        let numbered = line.split_once(": ");
        line.to_lowercase().contains("backtrace")
            || numbered.is_some_and(|(number, _)| number.parse::<usize>().is_ok())
    };
    let said: Vec<&str> = lines
        .take_while(|line| !is_trace(line))
        .filter(|line| !line.starts_with("Caused by"))
        .collect();
    said.join(": ")
}

/// The bytes that a message of an allocation names.
fn largest_number(text: &str) -> Option<u64> {
    let digits = text.split(|c: char| !c.is_ascii_digit());
    digits.filter_map(|digits| digits.parse().ok()).max()
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::super::{Device, DeviceError};
    use crate::Error;

    #[test]
    fn what_panics_below_is_an_error_that_names_the_device() {
        let device = Device::flex();
        let said = "out of device memory allocating 4096 bytes\n   0: std::backtrace::create";
        let error = device.attempt(|| -> Result<(), Error> { std::panic::panic_any(said) });
        let expected = DeviceError::OutOfMemory {
            device: "flex".to_owned(),
            bytes: Some(4096),
            reason: "out of device memory allocating 4096 bytes".to_owned(),
        };
        assert!(
            matches!(&error, Err(Error::Device(found)) if *found == expected),
            "{error:?}"
        );
        let error = device.attempt(|| -> Result<(), Error> { std::panic::panic_any("lost") });
        assert!(
            matches!(&error, Err(Error::Device(DeviceError::Failed { reason, .. })) if reason == "lost"),
            "{error:?}"
        );
    }
}
