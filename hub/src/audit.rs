//! A record of what was fetched, verified and opened: one JSON object a line.

use std::fs::{self, File};
use std::io::Write;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::{Error, Hub};

impl Hub {
    /// Adds a line to the audit file, if there is one, with the time.
    pub(crate) fn record(&self, event: &Value) -> Result<(), Error> {
        let Some(path) = &self.audit else {
            return Ok(());
        };
        let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let mut line = json!({"time": time, "process": std::process::id()});
        if let (Some(line), Some(event)) = (line.as_object_mut(), event.as_object()) {
            line.extend(event.clone());
        }
        let text = format!("{line}\n");
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(Error::io("audit", path))?;
        }
        // One write at the end of the file: lines of several processes do not mix.
        File::options()
            .append(true)
            .create(true)
            .open(path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(Error::io("audit", path))
    }
}
