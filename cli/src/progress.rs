//! Bars for what is fetched, on a terminal.

use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::sync::Mutex;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use salamander::hub::{Event, Hub, Progress, Wait};

/// The environment's hub, with bars; it becomes the one that every `--model` uses.
pub(crate) fn install() {
    // What is wrong with the environment is told when the hub is needed.
    if let Ok(mut hub) = Hub::from_env() {
        hub.progress = bars();
        salamander::hub::set_default(hub);
    }
}

/// A bar for each file, or nothing outside a terminal.
pub(crate) fn bars() -> Progress {
    if !io::stderr().is_terminal() {
        return Progress::default();
    }
    let all = MultiProgress::new();
    let bars: Mutex<HashMap<String, ProgressBar>> = Mutex::default();
    Progress::new(move |event| {
        let Ok(mut bars) = bars.lock() else { return };
        match event {
            Event::Started { file, bytes, done } => {
                let bar = bars
                    .entry(file.to_owned())
                    .or_insert_with(|| all.add(bar(file, bytes)));
                bar.set_position(done);
            }
            Event::Advanced { file, done } => {
                if let Some(bar) = bars.get(file) {
                    bar.set_position(done);
                    bar.set_message("");
                }
            }
            Event::Waiting { file, wait } => {
                let said = match wait {
                    Wait::Retry(delay) => format!("trying again in {} s", delay.as_secs().max(1)),
                    _ => "another process fetches it".to_owned(),
                };
                let bar = bars
                    .entry(file.to_owned())
                    .or_insert_with(|| all.add(bar(file, None)));
                bar.set_message(said);
            }
            Event::Finished { file } => {
                if let Some(bar) = bars.remove(file) {
                    bar.finish_and_clear();
                }
            }
            _ => {}
        }
    })
}

fn bar(file: &str, bytes: Option<u64>) -> ProgressBar {
    let (bar, template) = match bytes {
        Some(bytes) => (
            ProgressBar::new(bytes),
            "{prefix} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}",
        ),
        None => (ProgressBar::no_length(), "{prefix} {spinner} {bytes} {msg}"),
    };
    let bar = bar.with_prefix(crate::output::excerpt(file));
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
