use std::collections::BTreeMap;

use salamander_importers::{Checkpoint, KeyReport, Mismatch};
use serde::Deserialize;
use serde_json::Value;

use crate::ConfigError;

/// The fields that every Hugging Face `config.json` may have, whatever the architecture.
///
/// Reference: `PreTrainedConfig` of transformers 5.23.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct PretrainedConfig {
    /// The architecture's name, for instance `bert`.
    #[serde(default)]
    pub model_type: Option<String>,
    /// The reference classes that the weights belong to.
    #[serde(default, deserialize_with = "null_is_default")]
    pub architectures: Vec<String>,
    /// `regression`, `single_label_classification` or `multi_label_classification`.
    #[serde(default)]
    pub problem_type: Option<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    id2label: Labels,
    #[serde(default)]
    num_labels: Option<usize>,
    /// How many names `id2label` has, where `num_labels` says otherwise and they are not taken.
    #[serde(skip)]
    unused_names: Option<usize>,
}

impl PretrainedConfig {
    /// Reads the common fields.
    ///
    /// # Errors
    /// A field has the wrong type, `id2label` leaves out a class, or the weights are quantized by a
    /// method that the zoo does not know.
    pub fn parse(json: &Value) -> Result<Self, ConfigError> {
        // MLX says in both fields what its reader has undone by now.
        let is_mlx = |method: &&Value| json.get("quantization") == Some(method);
        let method = json.get("quantization_config");
        if let Some(method) = method.filter(|q| !q.is_null() && !is_mlx(q)) {
            let method = method.get("quant_method").unwrap_or(method);
            return Err(ConfigError::new(
                "quantization_config",
                format!(
                    "weights quantized by {method} are not supported; use the unquantized model"
                ),
            ));
        }
        let mut config: Self = parse(json)?;
        config.check_labels()?;
        match &config.problem_type.as_deref() {
            None
            | Some("regression" | "single_label_classification" | "multi_label_classification") => {
                Ok(config)
            }
            Some(other) => Err(ConfigError::new(
                "problem_type",
                format!(
                    "\"{other}\" is not one of regression, single_label_classification, \
                     multi_label_classification"
                ),
            )),
        }
    }

    /// Checks that every class has its entry, and prefers the count to names that are not as many, as the reference
    /// does.
    fn check_labels(&mut self) -> Result<(), ConfigError> {
        let Labels(labels) = &self.id2label;
        if let Some(count) = self.num_labels
            && !labels.is_empty()
            && count != labels.len()
        {
            self.unused_names = Some(labels.len());
            self.id2label = Labels::default();
            return Ok(());
        }
        let expected = 0..labels.len() as u64;
        match expected
            .zip(labels.keys())
            .find(|(class, key)| class != *key)
        {
            None => Ok(()),
            Some((class, _)) => {
                let reason = format!(
                    "has no entry for class {class}, but one for a later class; number all classes from 0 on"
                );
                Err(ConfigError::new("id2label", reason))
            }
        }
    }

    /// What is odd about the classes, though the reference takes it.
    pub fn remark(&self) -> Option<String> {
        let (names, count) = (self.unused_names?, self.num_labels?);
        Some(format!(
            "config.json: `num_labels` is {count} and `id2label` has {names} names, so the classes are called LABEL_0, \
             LABEL_1, …"
        ))
    }

    /// Refuses a number of classes that is not that of the checkpoint's classifier, if that is all that is wrong.
    pub(crate) fn explain(
        &self,
        report: &KeyReport,
        checkpoint: &Checkpoint,
    ) -> Option<ConfigError> {
        let whole = report.missing.is_empty() && report.unexpected.is_empty();
        let labels = self.labels().len();
        let rows = |mismatch: &Mismatch| {
            let mut shape = checkpoint.get(&mismatch.key)?.shape.clone();
            let rows = std::mem::replace(shape.first_mut()?, labels);
            mismatch
                .expected
                .ends_with(&format!(" {shape:?}"))
                .then_some(rows)
        };
        let (first, others) = report.mismatched.split_first().filter(|_| whole)?;
        let classes = rows(first)?;
        if others.iter().any(|other| rows(other) != Some(classes)) {
            return None;
        }
        let found = format!("{} of {} has {classes}", first.key, report.file.display());
        Some(if self.id2label.0.is_empty() && self.num_labels.is_none() {
            let reason = format!(
                "is missing, which means {labels} classes, but {found}; add the names of all classes, or \
                 `\"num_labels\": {classes}`"
            );
            ConfigError::new("id2label", reason)
        } else if self.id2label.0.is_empty() {
            ConfigError::new("num_labels", format!("is {labels}, but {found}"))
        } else {
            ConfigError::new("id2label", format!("names {labels} classes, but {found}"))
        })
    }

    /// The class names in the order of the logits; the reference's `LABEL_0`, `LABEL_1`, … where the
    /// configuration names none, two classes where it does not even count them.
    pub fn labels(&self) -> Vec<String> {
        let nameless = |index| format!("LABEL_{index}");
        let Labels(labels) = &self.id2label;
        if labels.is_empty() {
            // The count is a claim until the checkpoint's classifier confirms it.
            let count = self.num_labels.unwrap_or(2).min(1 << 16);
            return (0..count as u64).map(nameless).collect();
        }
        let name = |(index, name): (&u64, &Option<String>)| {
            name.clone().unwrap_or_else(|| nameless(*index))
        };
        labels.iter().map(name).collect()
    }
}

/// The names of classes by their numbers; a class may have none.
#[derive(Debug, Clone, Default)]
struct Labels(BTreeMap<u64, Option<String>>);

impl<'de> Deserialize<'de> for Labels {
    /// From an object whose keys are numbers, or from a list. Names are mostly strings; of whatever else a file has,
    /// the JSON text is the name.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let name = |value: Value| match value {
            Value::Null => None,
            Value::String(text) => Some(text),
            other => Some(other.to_string()),
        };
        let labels = match Value::deserialize(deserializer)? {
            Value::Array(names) => (0..).zip(names.into_iter().map(name)).collect(),
            Value::Object(entries) => {
                let entry = |(key, value): (String, Value)| match key.trim().parse() {
                    Ok(class) => Ok((class, name(value))),
                    Err(_) => Err(D::Error::custom(format!(
                        "\"{key}\" is not the number of a class; the keys are 0, 1, … and the values the names"
                    ))),
                };
                entries.into_iter().map(entry).collect::<Result<_, _>>()?
            }
            other => {
                return Err(D::Error::custom(format!(
                    "{other} is not an object of classes' numbers and names"
                )));
            }
        };
        Ok(Self(labels))
    }
}

/// Deserializes `json`, naming the field that does not fit.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(json: &Value) -> Result<T, ConfigError> {
    serde_path_to_error::deserialize(json).map_err(|error| {
        let field = error.path().to_string();
        ConfigError::new(field, error.into_inner().to_string())
    })
}

/// Refuses sizes of 0, and those beyond `largest`, which no checkpoint can hold: products of them must not
/// overflow.
pub(crate) fn check_sizes(sizes: &[(&str, usize)], largest: usize) -> Result<(), ConfigError> {
    let wrong = |(_, size): &&(&str, usize)| *size == 0 || *size > largest;
    let Some((field, size)) = sizes.iter().find(wrong) else {
        return Ok(());
    };
    let reason = format!("{size} is not between 1 and {largest}");
    Err(ConfigError::new(*field, reason))
}

/// Refuses heads that do not divide the width, which the configuration's `width_field` says.
pub(crate) fn check_heads(
    (field, heads): (&str, usize),
    (width_field, width): (&str, usize),
) -> Result<(), ConfigError> {
    if width.is_multiple_of(heads) {
        return Ok(());
    }
    let reason = format!("{heads} heads do not divide `{width_field}` {width}");
    Err(ConfigError::new(field, reason))
}

/// Refuses an ε that is not a number from 0 on.
pub(crate) fn check_epsilon(field: &str, epsilon: f64) -> Result<(), ConfigError> {
    if epsilon.is_finite() && epsilon >= 0.0 {
        return Ok(());
    }
    let reason = format!("{epsilon} is not a positive number");
    Err(ConfigError::new(field, reason))
}

/// Refuses, before anything is built, more layers or other parts than the checkpoint has tensors.
pub(crate) fn check_counts(claims: &[(&str, usize)], tensors: usize) -> Result<(), ConfigError> {
    let Some((field, count)) = claims.iter().find(|(_, count)| *count > tensors) else {
        return Ok(());
    };
    let reason = format!("{count} cannot come from a checkpoint of {tensors} tensors");
    Err(ConfigError::new(*field, reason))
}

/// JSON's `null` counts as absent, as it does in Python's `None`.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::PretrainedConfig;

    #[test]
    fn labels_are_text_whatever_the_file_has() {
        for (fields, expected) in [
            (json!({}), &["LABEL_0", "LABEL_1"][..]),
            (
                json!({"id2label": null, "num_labels": 3}),
                &["LABEL_0", "LABEL_1", "LABEL_2"],
            ),
            (json!({"id2label": {}, "num_labels": 1}), &["LABEL_0"]),
            (json!({"id2label": {"0": 0}}), &["0"]),
            (
                json!({"id2label": {"0": 1.5, "1": true, "2": null, "3": "x"}}),
                &["1.5", "true", "LABEL_2", "x"],
            ),
            (
                json!({"id2label": {"1": "b", "0": "a", "10": "k", "2": "c", "3": "d", "4": "e", "5": "f", "6": "g",
                "7": "h", "8": "i", "9": "j"}}),
                &["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"],
            ),
            (json!({"id2label": ["a", 7]}), &["a", "7"]),
            // The reference's choice between the two.
            (
                json!({"id2label": {"0": "a", "1": "b"}, "num_labels": 1}),
                &["LABEL_0"],
            ),
        ] {
            let config = PretrainedConfig::parse(&fields).unwrap();
            assert_eq!(config.labels(), expected, "{fields}");
            assert_eq!(
                config.remark().is_some(),
                fields["num_labels"] == 1 && fields["id2label"]["0"] == "a"
            );
        }
    }

    #[test]
    fn labels_that_are_no_list_are_refused() {
        for (labels, reason) in [
            (json!({"0": "a", "2": "c"}), "no entry for class 1"),
            (json!({"1": "b"}), "no entry for class 0"),
            (json!({"cat": 0}), "\"cat\" is not the number of a class"),
            (json!("cat"), "\"cat\" is not an object"),
        ] {
            let error = PretrainedConfig::parse(&json!({"id2label": labels})).unwrap_err();
            assert_eq!(error.field, "id2label");
            assert!(error.reason.contains(reason), "{error}");
        }
    }
}
