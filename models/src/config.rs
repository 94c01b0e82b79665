use std::collections::BTreeMap;

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
    id2label: BTreeMap<String, String>,
    #[serde(default)]
    num_labels: Option<usize>,
}

impl PretrainedConfig {
    /// Reads the common fields.
    ///
    /// # Errors
    /// A field has the wrong type, `id2label` is not numbered from 0, or the weights are quantized by a
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
        let config: Self = parse(json)?;
        for index in 0..config.id2label.len() {
            if !config.id2label.contains_key(&index.to_string()) {
                let reason = format!("has no entry for class {index}");
                return Err(ConfigError::new("id2label", reason));
            }
        }
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

    /// The class names in the order of the logits; the reference's `LABEL_0`, `LABEL_1`, … where the
    /// configuration names none, two classes where it does not even count them.
    pub fn labels(&self) -> Vec<String> {
        if self.id2label.is_empty() {
            // The count is a claim until the checkpoint's classifier confirms it.
            let count = self.num_labels.unwrap_or(2).min(1 << 16);
            return (0..count).map(|index| format!("LABEL_{index}")).collect();
        }
        (0..self.id2label.len())
            .filter_map(|index| self.id2label.get(&index.to_string()).cloned())
            .collect()
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
