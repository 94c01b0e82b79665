//! `salamander card`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use salamander::hub::card::{CardDetails, ModelCard};
use serde_json::{Value, json};

use crate::Failure;
use crate::output::{excerpt, json_line, table};

#[derive(Args)]
pub(crate) struct Card {
    /// A hub id, a model directory, or a README; with --new the file to write, or `-`
    #[arg(value_name = "ID|DIR|FILE")]
    model: String,
    /// Print what the card says as one JSON object, which --new takes
    #[arg(long)]
    json: bool,
    /// Set a key of the front matter, and write the card; the value is JSON, or else a text
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Remove a key of the front matter, and write the card
    #[arg(long, value_name = "KEY")]
    unset: Vec<String>,
    /// Write a new card from a JSON file with `name`, `description`, `authors`, `license`, `task`, `training_data`,
    /// `metrics`, `limitations` and `parity`
    #[arg(long, value_name = "JSON", conflicts_with_all = ["json", "set", "unset"])]
    new: Option<PathBuf>,
}

impl Card {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        if let Some(details) = &self.new {
            let name = details.display();
            let text = fs::read_to_string(details).map_err(|error| format!("{name}: {error}"))?;
            let details: CardDetails =
                serde_json::from_str(&text).map_err(|error| format!("{name}: {error}"))?;
            let markdown = details.to_card()?.to_markdown();
            if self.model == "-" {
                out.write_all(markdown.as_bytes())?;
            } else {
                write(Path::new(&self.model), &markdown)?;
            }
            return Ok(());
        }
        let path = self.find()?;
        let name = path.display().to_string();
        let text = fs::read_to_string(&path).map_err(|error| format!("{name}: {error}"))?;
        let mut card = ModelCard::parse(&text).map_err(|error| format!("{name}: {error}"))?;
        if !self.set.is_empty() || !self.unset.is_empty() {
            for setting in &self.set {
                let (key, value) = setting
                    .split_once('=')
                    .ok_or_else(|| format!("--set {setting}: write KEY=VALUE"))?;
                let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
                card.set(key, value)?;
            }
            for key in &self.unset {
                card.remove(key);
            }
            if !Path::new(&self.model).exists() {
                return Err(
                    "a card in the cache is the hub's; copy it to a file to change it".into(),
                );
            }
            return write(&path, &card.to_markdown());
        }
        let details = card.details();
        if self.json {
            let mut object = serde_json::to_value(&details)?;
            let front = card
                .keys()
                .filter_map(|key| Some((key.to_owned(), card.get(key)?.clone())));
            object["front_matter"] = Value::Object(front.collect());
            return json_line(&mut out, &object);
        }
        table(&mut out, &rows(&card, &details))?;
        Ok(())
    }

    fn find(&self) -> Result<PathBuf, Failure> {
        let path = PathBuf::from(&self.model);
        if path.is_dir() {
            return Ok(path.join("README.md"));
        }
        if path.exists() {
            return Ok(path);
        }
        let hub = salamander::hub::default()?;
        Ok(hub
            .fetch_files(&self.model, &["README.md"])?
            .join("README.md"))
    }
}

/// Replaces a file at once.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let name = path.display();
    let partial = path.with_extension("md.partial");
    let written = fs::write(&partial, text).and_then(|()| fs::rename(&partial, path));
    written.map_err(|error| format!("{name}: {error}").into())
}

fn rows(card: &ModelCard, details: &CardDetails) -> Vec<Vec<String>> {
    let row = |name: &str, value: &str| vec![name.to_owned(), excerpt(value)];
    let mut rows = vec![row("name", &details.name)];
    let description = details
        .description
        .lines()
        .find(|line| !line.trim().is_empty());
    rows.extend(description.map(|text| row("description", text)));
    rows.extend(details.authors.iter().map(|author| row("author", author)));
    rows.extend(
        details
            .license
            .iter()
            .map(|license| row("license", license)),
    );
    rows.extend(details.task.iter().map(|task| row("task", task)));
    for data in &details.training_data {
        let text = format!("{} {}", data.name, data.description);
        rows.push(row("training data", text.trim()));
    }
    for metric in &details.metrics {
        let on = match &metric.dataset[..] {
            "" => String::new(),
            dataset => format!(" on {dataset}"),
        };
        rows.push(row(
            "metric",
            &format!("{} {}{on}", metric.name, metric.value),
        ));
    }
    rows.extend(
        details
            .limitations
            .iter()
            .map(|text| row("limitation", text)),
    );
    for parity in &details.parity {
        let (reference, compared) = (&parity.reference, &parity.compared);
        rows.push(row(
            "parity",
            &format!("{compared} to {reference}: {}", parity.difference),
        ));
    }
    let known = ["license", "pipeline_tag", "datasets", "model-index"];
    for key in card.keys().filter(|key| !known.contains(key)) {
        if let Some(value) = card.get(key) {
            let text = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            rows.push(row(key, &text));
        }
    }
    rows
}
