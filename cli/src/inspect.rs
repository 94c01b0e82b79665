//! `salamander inspect`.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use salamander::{Inspection, inspect_under};

use crate::Failure;
use crate::output::table;

#[derive(Args)]
pub(crate) struct Inspect {
    /// A model directory, a weight file, or a hub id
    #[arg(value_name = "DIR|FILE|ID")]
    path: PathBuf,
    /// What stands before the names of the model's tensors, such as `student.`
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// Print everything as one JSON object
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let found = inspect_under(&self.path, self.prefix.as_deref())?;
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, &found)?;
            writeln!(out)?;
        } else {
            print(&mut out, &found)?;
        }
        Ok(())
    }
}

fn print(out: &mut dyn Write, found: &Inspection) -> Result<(), Failure> {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![row("path", found.path.display().to_string())];
    match (found.architecture, &found.refused) {
        (Some(architecture), _) => rows.push(row("architecture", architecture.to_owned())),
        (None, Some(reason)) => rows.push(row("architecture", format!("none: {reason}"))),
        (None, None) => {}
    }
    if let Some(detected) = &found.detected {
        let names = format!("{}'s names; no configuration", detected.dialect);
        rows.push(row("found by", names));
        if !detected.presets.is_empty() {
            rows.push(row("like", detected.presets.join(", ")));
        }
    }
    if !found.classes.is_empty() {
        rows.push(row("class", found.classes.join(", ")));
    }
    if !found.tasks.is_empty() {
        rows.push(row("tasks", found.tasks.join(", ")));
    }
    for shortcoming in &found.shortcomings {
        rows.push(row("hardware", shortcoming.clone()));
    }
    rows.push(row("format", found.format.clone()));
    for file in &found.files {
        rows.push(row("file", file.display().to_string()));
    }
    if !found.passed_over.is_empty() {
        rows.push(row("passed over", found.passed_over.join(", ")));
    }
    for (key, value) in &found.metadata {
        rows.push(row("metadata", clipped(&format!("{key} = {value}"))));
    }
    rows.push(row("tensors", found.tensors.len().to_string()));
    rows.push(row("parameters", thousands(found.parameters)));
    rows.push(row("bytes", thousands(found.bytes)));
    table(out, &rows)?;
    if let Some(serde_json::Value::Object(config)) = &found.config {
        writeln!(out, "\nconfiguration")?;
        let fields = config
            .iter()
            .map(|(name, value)| row(&format!("  {name}"), clipped(&value.to_string())));
        table(out, &fields.collect::<Vec<_>>())?;
    }
    if let Some(detected) = &found.detected {
        writeln!(out, "\nwhat the weights show")?;
        let fields = detected.fields.iter().map(|field| {
            let value = field
                .value
                .as_ref()
                .map_or("?".to_owned(), ToString::to_string);
            vec![format!("  {}", field.name), value, field.by.clone()]
        });
        table(out, &fields.collect::<Vec<_>>())?;
    }
    writeln!(out, "\ntensors")?;
    let tensors = found.tensors.iter().map(|tensor| {
        let shape: Vec<String> = tensor.shape.iter().map(usize::to_string).collect();
        let shape = if shape.is_empty() {
            "scalar".to_owned()
        } else {
            shape.join(" × ")
        };
        vec![format!("  {}", tensor.name), tensor.dtype.clone(), shape]
    });
    table(out, &tensors.collect::<Vec<_>>())?;
    Ok(())
}

/// `22713216` as `22,713,216`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A text of the file on one line: a vocabulary is metadata too, as are a thousand classes, and so is whatever moves
/// the cursor.
fn clipped(text: &str) -> String {
    const MOST: usize = 200;
    let plain = |letter: char| if letter.is_control() { ' ' } else { letter };
    let mut shown: String = text.chars().take(MOST).map(plain).collect();
    if text.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    #[test]
    fn digits_are_grouped_from_the_right() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (22_713_216, "22,713,216"),
        ] {
            assert_eq!(super::thousands(number), text);
        }
    }
}
