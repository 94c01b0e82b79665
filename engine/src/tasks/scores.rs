//! From logits to scores, in the reference's precision.

use salamander_models::blocks::Activation;
use salamander_models::{ConfigError, PretrainedConfig};
use serde::Serialize;

/// A class and how likely it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Label {
    /// The class's name, as in the model's `id2label`.
    #[serde(rename = "label")]
    pub name: String,
    /// A probability; the bare number where the model is a regression.
    pub score: f32,
}

/// How logits become scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClassificationFunction {
    /// One of the classes applies: the scores sum to 1.
    Softmax,
    /// Any of the classes may apply: each score is a probability of its own.
    Sigmoid,
    /// The logits themselves.
    None,
}

/// The classes of a model, and how it was trained to tell them.
#[derive(Debug, Clone)]
pub(super) struct Classes {
    pub(super) labels: Vec<String>,
    function: ClassificationFunction,
}

impl Classes {
    /// The classes that a configuration names.
    pub(super) fn new(config: &PretrainedConfig) -> Self {
        let labels = config.labels();
        let function = match config.problem_type.as_deref() {
            Some("regression") => ClassificationFunction::None,
            Some("multi_label_classification") => ClassificationFunction::Sigmoid,
            _ if labels.len() == 1 => ClassificationFunction::Sigmoid,
            _ => ClassificationFunction::Softmax,
        };
        Self { labels, function }
    }

    /// Scores as the cross-encoder of that activation does, a class of PyTorch: by default the sigmoid of a single
    /// logit, and the logits themselves of several. Gives an activation that is no function of this task, after which
    /// nothing is left to do.
    pub(super) fn activate(
        &mut self,
        class: Option<&str>,
    ) -> Result<Option<Activation>, ConfigError> {
        let usual = match self.labels.len() {
            1 => ClassificationFunction::Sigmoid,
            _ => ClassificationFunction::None,
        };
        self.function = usual;
        let Some(class) = class else {
            return Ok(None);
        };
        if !class.starts_with("torch.") {
            tracing::warn!(
                "the activation \"{class}\" is code of the model's own, which is not run; the usual one takes its place"
            );
            return Ok(None);
        }
        if ["torch.nn.Softmax", "torch.nn.modules.activation.Softmax"].contains(&class) {
            self.function = ClassificationFunction::Softmax;
            return Ok(None);
        }
        let activation = Activation::of_torch("activation_fn", class)?;
        self.function = match activation {
            Activation::Sigmoid => ClassificationFunction::Sigmoid,
            _ => ClassificationFunction::None,
        };
        let applied = [Activation::Sigmoid, Activation::Linear].contains(&activation);
        Ok((!applied).then_some(activation))
    }

    /// At most `top_k` classes of a row of logits, the likeliest first; by the model's own function, unless
    /// another is asked for.
    pub(super) fn answer(
        &self,
        logits: &mut [f32],
        function: Option<ClassificationFunction>,
        top_k: Option<usize>,
    ) -> Vec<Label> {
        match function.unwrap_or(self.function) {
            ClassificationFunction::Softmax => softmax(logits),
            ClassificationFunction::Sigmoid => sigmoid(logits),
            ClassificationFunction::None => {}
        }
        let best = top(logits, top_k.unwrap_or(usize::MAX)).into_iter();
        best.map(|class| Label {
            name: self.labels[class].clone(),
            score: logits[class],
        })
        .collect()
    }
}

/// Turns logits into probabilities that sum to 1.
pub(super) fn softmax(logits: &mut [f32]) {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for logit in logits.iter_mut() {
        *logit = (*logit - highest).exp();
        sum += *logit;
    }
    for logit in logits {
        *logit /= sum;
    }
}

/// Turns each logit into a probability of its own.
pub(super) fn sigmoid(logits: &mut [f32]) {
    for logit in logits {
        *logit = 1.0 / (1.0 + (-*logit).exp());
    }
}

/// The index of the largest value, the first among equals; 0 of nothing.
pub(super) fn argmax(values: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best
}

/// The indices of the `count` largest values, largest first, the earlier among equals first.
pub(super) fn top(values: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    let by_score = |a: &usize, b: &usize| values[*b].total_cmp(&values[*a]).then(a.cmp(b));
    if count < order.len() {
        order.select_nth_unstable_by(count, by_score);
        order.truncate(count);
    }
    order.sort_by(by_score);
    order
}

#[cfg(test)]
mod tests {
    use super::{argmax, softmax, top};

    #[test]
    fn ties_go_to_the_earlier() {
        let values = [0.5, 2.0, -1.0, 2.0, 0.5];
        assert_eq!(argmax(&values), 1);
        assert_eq!(top(&values, 3), [1, 3, 0]);
        assert_eq!(top(&values, 9), [1, 3, 0, 4, 2]);
        assert_eq!(top(&values, 0), [0; 0]);
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let mut values = [1000.0, 999.0];
        softmax(&mut values);
        assert!((values[0] - 0.731_058_6).abs() < 1e-6);
    }
}
