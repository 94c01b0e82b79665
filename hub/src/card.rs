//! Model cards: a README whose front matter is YAML, as the hub has them
//! (<https://huggingface.co/docs/hub/model-cards>, as of huggingface_hub 2.4).
//!
//! What a card has beyond the fields that are known here stays as it is written, to the letter.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Error;

/// Longer front matter than any card has.
const LONGEST: usize = 1 << 20;

/// A model card: the keys of its front matter in their order, and its text in Markdown.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ModelCard {
    /// Each key with its lines as they are written.
    keys: Vec<(String, String)>,
    /// The values of all of them.
    values: BTreeMap<String, Value>,
    /// What is written before the first key, such as remarks.
    preamble: String,
    /// The text after the front matter.
    pub body: String,
}

/// What a card says, of the fields that are known here.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CardDetails {
    /// The model's name: the title of the text.
    pub name: String,
    /// The text below the title.
    pub description: String,
    /// Who made it.
    pub authors: Vec<String>,
    /// The license's name, as the hub writes it: `apache-2.0`.
    pub license: Option<String>,
    /// The task, such as `text-classification`.
    pub task: Option<String>,
    /// What it was trained on: a name and a description each.
    pub training_data: Vec<TrainingData>,
    /// How well it does.
    pub metrics: Vec<Metric>,
    /// What it is not good for.
    pub limitations: Vec<String>,
    /// How close it is to its reference implementation.
    pub parity: Vec<Parity>,
}

/// Data that a model was trained on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainingData {
    /// Its name, on the hub if it is there.
    pub name: String,
    /// What it is; may be empty.
    pub description: String,
}

/// A figure of how well a model does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Its name: `accuracy`.
    pub name: String,
    /// The figure.
    pub value: f64,
    /// What it was measured on; may be empty.
    pub dataset: String,
}

/// How far a model is from its reference implementation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parity {
    /// The reference and its version: `transformers 5.23`.
    pub reference: String,
    /// What was compared: `logits`.
    pub compared: String,
    /// The largest absolute difference.
    pub difference: f64,
}

impl ModelCard {
    /// Reads a card. Without front matter, all of it is text.
    ///
    /// # Errors
    /// The front matter is not a YAML mapping.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
        let Some(rest) = text.strip_prefix("---\n") else {
            return Ok(Self {
                body: text,
                ..Self::default()
            });
        };
        let malformed = |reason: String| Error::Malformed {
            id: "the model card".to_owned(),
            file: "README.md".to_owned(),
            reason: format!("its front matter is not YAML: {reason}"),
        };
        let (front, body) = if let Some(body) = rest.strip_prefix("---\n") {
            ("", body)
        } else {
            let end = rest.find("\n---\n").map(|at| (at + 1, at + 5));
            let end = end.or_else(|| {
                let at = rest.len().checked_sub(4)?;
                rest.ends_with("\n---").then_some((at + 1, rest.len()))
            });
            let (at, after) = end.ok_or_else(|| malformed("there is no closing ---".to_owned()))?;
            (&rest[..at], &rest[after..])
        };
        if front.len() > LONGEST {
            return Err(malformed(format!("{} bytes are too many", front.len())));
        }
        let values: Option<BTreeMap<String, Value>> = match front.trim() {
            "" => None,
            _ => serde_saphyr::from_str(front)
                .map_err(|error| malformed(error.to_string().replace('\n', " ")))?,
        };
        let values = values.unwrap_or_default();
        let mut card = Self {
            keys: Vec::new(),
            values,
            preamble: String::new(),
            body: body.to_owned(),
        };
        for line in front.split_inclusive('\n') {
            if let Some(key) = card.key_of(line) {
                card.keys.push((key, line.to_owned()));
            } else if let Some((_, lines)) = card.keys.last_mut() {
                lines.push_str(line);
            } else {
                card.preamble.push_str(line);
            }
        }
        // A front matter that is one flow mapping, or has keys over several lines, is written anew.
        let found: Vec<&String> = card.keys.iter().map(|(key, _)| key).collect();
        if found.len() != card.values.len() {
            let anew = card.values.iter();
            let anew = anew.map(|(key, value)| Ok((key.clone(), yaml(key, value)?)));
            card.keys = anew.collect::<Result<_, Error>>()?;
            card.preamble.clear();
        }
        Ok(card)
    }

    /// The key that a line begins with.
    fn key_of(&self, line: &str) -> Option<String> {
        if line.starts_with([' ', '\t', '-', '#', '\n']) {
            return None;
        }
        let (key, rest) = line.split_once(':')?;
        let key = key.trim().trim_matches(['"', '\'']).to_owned();
        (rest.starts_with([' ', '\t', '\n']) && self.values.contains_key(&key)).then_some(key)
    }

    /// The keys of the front matter in their order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|(key, _)| key.as_str())
    }

    /// The value of a key of the front matter.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// Sets a key of the front matter; the others stay as they are written.
    ///
    /// # Errors
    /// The value cannot be written as YAML.
    pub fn set(&mut self, key: &str, value: Value) -> Result<(), Error> {
        let lines = yaml(key, &value)?;
        match self.keys.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = lines,
            None => self.keys.push((key.to_owned(), lines)),
        }
        self.values.insert(key.to_owned(), value);
        Ok(())
    }

    /// Removes a key of the front matter.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        self.keys.retain(|(name, _)| name != key);
        self.values.remove(key)
    }

    /// The card as a README.
    pub fn to_markdown(&self) -> String {
        if self.keys.is_empty() && self.preamble.is_empty() {
            return self.body.clone();
        }
        let mut text = format!("---\n{}", self.preamble);
        for (_, lines) in &self.keys {
            text += lines;
            if !lines.ends_with('\n') {
                text.push('\n');
            }
        }
        text + "---\n" + &self.body
    }

    /// What the card says. Of a card that was not made by [`CardDetails::to_card`], what can be found.
    pub fn details(&self) -> CardDetails {
        let text = |key: &str| self.get(key).and_then(Value::as_str).map(str::to_owned);
        let sections = sections(&self.body);
        let section = |name: &str| {
            let found = sections.iter().find(|(title, _)| title == name);
            found.map_or("", |(_, text)| text.as_str())
        };
        let mut training_data: Vec<TrainingData> = bullets(section("Training data"))
            .map(|item| match item.split_once(": ") {
                Some((name, description)) => TrainingData {
                    name: name.trim_matches('*').to_owned(),
                    description: description.to_owned(),
                },
                None => TrainingData {
                    name: item.trim_matches('*').to_owned(),
                    description: String::new(),
                },
            })
            .collect();
        if training_data.is_empty() {
            let named = texts(self.get("datasets"));
            training_data = named
                .map(|name| TrainingData {
                    name,
                    description: String::new(),
                })
                .collect();
        }
        let parity = rows(section("Parity")).filter_map(|row| {
            let [reference, compared, difference] = <[String; 3]>::try_from(row).ok()?;
            Some(Parity {
                reference,
                compared,
                difference: difference.parse().ok()?,
            })
        });
        CardDetails {
            name: title(&self.body).unwrap_or_default(),
            description: sections
                .first()
                .filter(|(title, _)| title.is_empty())
                .map(|(_, text)| text.trim().to_owned())
                .unwrap_or_default(),
            authors: bullets(section("Authors")).map(str::to_owned).collect(),
            license: text("license"),
            task: text("pipeline_tag"),
            training_data,
            metrics: self.metrics(),
            limitations: bullets(section("Limitations")).map(str::to_owned).collect(),
            parity: parity.collect(),
        }
    }

    /// The figures of `model-index`.
    fn metrics(&self) -> Vec<Metric> {
        let list = |value: &Value, key: &str| {
            let list = value.get(key).and_then(Value::as_array);
            list.cloned().unwrap_or_default()
        };
        let models = self.get("model-index").and_then(Value::as_array);
        let mut metrics = Vec::new();
        for model in models.into_iter().flatten() {
            for result in list(model, "results") {
                let dataset = result["dataset"]["name"].as_str().unwrap_or_default();
                for metric in list(&result, "metrics") {
                    let name = metric["name"].as_str().or(metric["type"].as_str());
                    // Some cards write the figure as a text.
                    let value = &metric["value"];
                    let value = value
                        .as_f64()
                        .or_else(|| value.as_str()?.trim_end_matches('%').trim().parse().ok());
                    if let (Some(name), Some(value)) = (name, value) {
                        metrics.push(Metric {
                            name: name.to_owned(),
                            value,
                            dataset: dataset.to_owned(),
                        });
                    }
                }
            }
        }
        metrics
    }
}

impl CardDetails {
    /// A card that says this.
    ///
    /// # Errors
    /// There is no name, or a figure is not finite.
    pub fn to_card(&self) -> Result<ModelCard, Error> {
        let refuse = |option: &str, reason: &str| Error::Refused {
            option: option.to_owned(),
            reason: reason.to_owned(),
        };
        if self.name.trim().is_empty() {
            return Err(refuse("name", "a card needs one; give the model's name"));
        }
        let figures = self.metrics.iter().map(|metric| metric.value);
        let figures = figures.chain(self.parity.iter().map(|parity| parity.difference));
        if figures.clone().any(|figure| !figure.is_finite()) {
            return Err(refuse("a figure", "it is not finite; leave it out"));
        }
        let mut card = ModelCard::default();
        if let Some(license) = &self.license {
            card.set("license", json!(license))?;
        }
        card.set("library_name", json!("salamander"))?;
        if let Some(task) = &self.task {
            card.set("pipeline_tag", json!(task))?;
        }
        if !self.training_data.is_empty() {
            let names: Vec<_> = self.training_data.iter().map(|data| &data.name).collect();
            card.set("datasets", json!(names))?;
        }
        if !self.metrics.is_empty() {
            card.set("model-index", self.model_index())?;
        }

        let mut body = format!("\n# {}\n", line(&self.name));
        if !self.description.is_empty() {
            body += &format!("\n{}\n", self.description.trim());
        }
        let list = |title: &str, items: Vec<String>| {
            let items: String = items
                .iter()
                .map(|item| format!("- {}\n", line(item)))
                .collect();
            match &items[..] {
                "" => String::new(),
                items => format!("\n## {title}\n\n{items}"),
            }
        };
        body += &list("Authors", self.authors.clone());
        let data = self
            .training_data
            .iter()
            .map(|data| match &data.description[..] {
                "" => format!("**{}**", data.name),
                description => format!("**{}**: {description}", data.name),
            });
        body += &list("Training data", data.collect());
        let table = |title: &str, head: [&str; 3], rows: Vec<[String; 3]>| {
            if rows.is_empty() {
                return String::new();
            }
            let row = |cells: &[String; 3]| {
                let cells = cells.each_ref().map(|cell| line(cell).replace('|', "\\|"));
                format!("| {} |\n", cells.join(" | "))
            };
            let rows: String = rows.iter().map(row).collect();
            format!(
                "\n## {title}\n\n| {} |\n|---|---|---|\n{rows}",
                head.join(" | ")
            )
        };
        let metrics = self.metrics.iter();
        let metrics = metrics.map(|m| [m.name.clone(), m.dataset.clone(), m.value.to_string()]);
        body += &table("Metrics", ["metric", "on", "value"], metrics.collect());
        body += &list("Limitations", self.limitations.clone());
        let parity = self.parity.iter();
        let parity = parity.map(|p| {
            [
                p.reference.clone(),
                p.compared.clone(),
                p.difference.to_string(),
            ]
        });
        let head = ["reference", "compared", "largest difference"];
        body += &table("Parity", head, parity.collect());
        card.body = body;
        Ok(card)
    }

    fn model_index(&self) -> Value {
        let task = self.task.as_deref().unwrap_or("other");
        let mut results: Vec<(String, Vec<Value>)> = Vec::new();
        for metric in &self.metrics {
            let kind = slug(&metric.name);
            let value = json!({"type": kind, "name": metric.name, "value": metric.value});
            match results
                .iter_mut()
                .find(|(dataset, _)| *dataset == metric.dataset)
            {
                Some((_, metrics)) => metrics.push(value),
                None => results.push((metric.dataset.clone(), vec![value])),
            }
        }
        let results = results.into_iter().map(|(dataset, metrics)| {
            json!({
                "task": {"type": task},
                "dataset": {"type": slug(&dataset), "name": dataset},
                "metrics": metrics,
            })
        });
        json!([{"name": self.name, "results": results.collect::<Vec<_>>()}])
    }
}

/// A key and its value as lines of YAML.
fn yaml(key: &str, value: &Value) -> Result<String, Error> {
    serde_saphyr::to_string(&BTreeMap::from([(key, value)]))
        .map(|text| format!("{}\n", text.trim_end()))
        .map_err(|error| Error::Refused {
            option: key.to_owned(),
            reason: format!("it cannot be written as YAML: {error}"),
        })
}

/// On one line.
fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn slug(text: &str) -> String {
    let letter = |c: char| {
        if c.is_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    let slug: String = text.chars().map(letter).collect();
    match slug.trim_matches('-') {
        "" => "other".to_owned(),
        slug => slug.to_owned(),
    }
}

fn texts(value: Option<&Value>) -> impl Iterator<Item = String> {
    let list = match value {
        Some(Value::Array(list)) => list.clone(),
        Some(text @ Value::String(_)) => vec![text.clone()],
        _ => Vec::new(),
    };
    list.into_iter()
        .filter_map(|value| value.as_str().map(str::to_owned))
}

fn title(body: &str) -> Option<String> {
    let mut lines = body.lines().filter_map(|line| line.strip_prefix("# "));
    lines.next().map(|title| title.trim().to_owned())
}

/// The parts of a text by their headings of the second level; the first is what is below the title.
fn sections(body: &str) -> Vec<(String, String)> {
    let mut sections = vec![(String::new(), String::new())];
    let mut is_code = false;
    let mut has_title = false;
    for line in body.lines() {
        is_code ^= line.trim_start().starts_with("```");
        match line.strip_prefix("## ") {
            Some(title) if !is_code => sections.push((title.trim().to_owned(), String::new())),
            _ if !is_code && !has_title && line.starts_with("# ") => has_title = true,
            _ => {
                if let Some((_, text)) = sections.last_mut() {
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
    }
    sections
}

fn bullets(text: &str) -> impl Iterator<Item = &str> {
    let items = text.lines().filter_map(|line| line.strip_prefix("- "));
    items.map(str::trim)
}

/// The rows of a table, without its head.
fn rows(text: &str) -> impl Iterator<Item = Vec<String>> {
    let rows = text.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| {
        let inner = row.trim().trim_start_matches('|').replace("\\|", "\u{0}");
        let inner = inner.strip_suffix('|').unwrap_or(&inner).to_owned();
        let cells = inner
            .split('|')
            .map(|cell| cell.trim().replace('\u{0}', "|"));
        cells.collect()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{CardDetails, Metric, ModelCard, Parity, TrainingData};

    const HUB: &str = "---\n# a remark\nlanguage:\n- en\n- \"no\"\nlicense: apache-2.0\nversion: 1.10\ncustom: {a: [1, 2], b: ~}\ntext: |\n  key: not one\n\n  more\nmodel-index:\n- name: m\n  results:\n  - task:\n      type: text-classification\n    dataset:\n      name: glue\n      type: glue\n    metrics:\n    - type: accuracy\n      value: 0.91\n    - type: f1\n      value: '88.5'\n---\n\n# A title\n\nSome *text*.\n\n```\n## no heading\n```\n\n## Limitations\n\n- English only\n";

    #[test]
    fn what_is_not_changed_stays_to_the_letter() {
        let mut card = ModelCard::parse(HUB).unwrap();
        assert_eq!(card.to_markdown(), HUB);
        let keys: Vec<_> = card.keys().collect();
        let expected = [
            "language",
            "license",
            "version",
            "custom",
            "text",
            "model-index",
        ];
        assert_eq!(keys, expected);
        assert_eq!(card.get("language"), Some(&json!(["en", "no"])));
        assert_eq!(card.get("custom"), Some(&json!({"a": [1, 2], "b": null})));

        card.set("license", json!("mit")).unwrap();
        card.set("tags", json!(["new", "yes: no"])).unwrap();
        card.remove("text");
        let text = card.to_markdown();
        assert!(
            text.contains("# a remark\nlanguage:\n- en\n- \"no\"\n"),
            "{text}"
        );
        assert!(
            text.contains("version: 1.10\ncustom: {a: [1, 2], b: ~}\n"),
            "{text}"
        );
        assert!(!text.contains("not one"), "{text}");
        let again = ModelCard::parse(&text).unwrap();
        assert_eq!(again.get("license"), Some(&json!("mit")));
        assert_eq!(again.get("tags"), Some(&json!(["new", "yes: no"])));
        assert_eq!(again.body, card.body);
    }

    #[test]
    fn a_hubs_card_says_what_is_known() {
        let details = ModelCard::parse(HUB).unwrap().details();
        assert_eq!(details.name, "A title");
        assert!(details.description.starts_with("Some *text*."));
        assert_eq!(details.license.as_deref(), Some("apache-2.0"));
        assert_eq!(details.limitations, ["English only"]);
        let metric = |name: &str, value| Metric {
            name: name.to_owned(),
            value,
            dataset: "glue".to_owned(),
        };
        assert_eq!(
            details.metrics,
            [metric("accuracy", 0.91), metric("f1", 88.5)]
        );
    }

    #[test]
    fn details_become_a_card_and_come_back() {
        let details = CardDetails {
            name: "Tiny | model".to_owned(),
            description: "A model.\n\nOf two paragraphs.".to_owned(),
            authors: vec!["A <a@b.c>".to_owned(), "B".to_owned()],
            license: Some("mit".to_owned()),
            task: Some("text-classification".to_owned()),
            training_data: vec![
                TrainingData {
                    name: "sst2".to_owned(),
                    description: "60,614 phrases: films".to_owned(),
                },
                TrainingData {
                    name: "other".to_owned(),
                    description: String::new(),
                },
            ],
            metrics: vec![
                Metric {
                    name: "accuracy".to_owned(),
                    value: 0.8211,
                    dataset: "sst2 dev".to_owned(),
                },
                Metric {
                    name: "F1 | macro".to_owned(),
                    value: 0.5,
                    dataset: "sst2 dev".to_owned(),
                },
            ],
            limitations: vec!["Short texts only".to_owned()],
            parity: vec![Parity {
                reference: "transformers 5.23".to_owned(),
                compared: "logits | f32".to_owned(),
                difference: 1.5e-6,
            }],
        };
        let text = details.to_card().unwrap().to_markdown();
        let card = ModelCard::parse(&text).unwrap();
        assert_eq!(card.details(), details, "{text}");
        assert_eq!(card.to_markdown(), text);
        assert!(CardDetails::default().to_card().is_err());
        let mut bad = details.clone();
        bad.metrics[0].value = f64::NAN;
        assert!(bad.to_card().is_err());
    }

    #[test]
    fn front_matter_is_absent_empty_or_refused() {
        let plain = "# Only text\n";
        assert_eq!(ModelCard::parse(plain).unwrap().to_markdown(), plain);
        assert_eq!(ModelCard::parse("---\n---\ntext").unwrap().body, "text");
        for text in [
            "---\nlicense: mit\n",
            "---\n- a\n- b\n---\n",
            "---\na: [1\n---\n",
        ] {
            let error = ModelCard::parse(text).unwrap_err().to_string();
            assert!(error.contains("README.md"), "{error}");
        }
        let deep = format!("---\na: {}1{}\n---\n", "[".repeat(5000), "]".repeat(5000));
        assert!(ModelCard::parse(&deep).is_err());
        let bomb = "---\na: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n---\n";
        assert!(ModelCard::parse(bomb).is_err());
        let flow = ModelCard::parse("---\n{license: mit, tags: [a]}\n---\nx").unwrap();
        assert_eq!(flow.get("license"), Some(&json!("mit")));
        assert_eq!(
            ModelCard::parse(&flow.to_markdown()).unwrap().get("tags"),
            Some(&json!(["a"]))
        );
    }
}
