use std::path::Path;

use salamander_models::processing::text::{Encoding, Truncation, TruncationStrategy};
use salamander_models::{PretrainedConfig, Task};
use serde::Serialize;

use super::batch::{Ordered, Rows, TextInput, TextModel};
use super::scores::{sigmoid, softmax};
use crate::{Device, Error};

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

/// Options of [`TextClassification`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextClassificationOptions {
    /// How many classes an answer has at most; all of them by default.
    pub top_k: Option<usize>,
    /// How logits become scores; by default what the model's `problem_type` and number of classes say.
    pub function: Option<ClassificationFunction>,
    /// The most tokens of a text; by default as many as the network takes.
    pub max_length: Option<usize>,
    /// Which text of a pair is shortened; by default the longer one.
    pub truncation: Option<TruncationStrategy>,
}

/// Says which classes a text belongs to.
///
/// Reference: `TextClassificationPipeline` of transformers 5.23. Longer texts than the network takes,
/// which the reference fails on, are cut at the end.
#[derive(Debug, Clone)]
pub struct TextClassification {
    model: TextModel,
    labels: Vec<String>,
    function: ClassificationFunction,
    options: TextClassificationOptions,
}

impl TextClassification {
    /// Opens a model directory, or a hub id.
    ///
    /// # Errors
    /// The model cannot be found, read or honoured, or is no text classifier.
    pub fn open(model: impl AsRef<Path>, device: &Device) -> Result<Self, Error> {
        let (model, config) = TextModel::open(model.as_ref(), Task::TextClassification, device)?;
        let labels = config.labels();
        Ok(Self {
            model,
            function: function(&config, labels.len()),
            labels,
            options: TextClassificationOptions::default(),
        })
    }

    /// The same model with other options.
    #[must_use]
    pub fn with_options(mut self, options: TextClassificationOptions) -> Self {
        self.options = options;
        self
    }

    /// The names of all classes.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The device that runs it.
    pub fn device(&self) -> &Device {
        &self.model.device
    }

    /// Classifies a text, or a pair of texts; the likeliest class comes first.
    ///
    /// # Errors
    /// The text cannot be encoded.
    pub fn run<'a>(&self, input: impl Into<TextInput<'a>>) -> Result<Vec<Label>, Error> {
        Ok(self.run_batch([input])?.swap_remove(0))
    }

    /// Classifies many texts; the answers come in their order.
    ///
    /// # Errors
    /// A text cannot be encoded.
    pub fn run_batch<'a, I>(&self, inputs: I) -> Result<Vec<Vec<Label>>, Error>
    where
        I: IntoIterator,
        I::Item: Into<TextInput<'a>>,
    {
        let truncation = Truncation {
            max_length: self.options.max_length.unwrap_or(usize::MAX),
            strategy: self.options.truncation.unwrap_or_default(),
            windows: None,
        };
        let encodings: Vec<Encoding> = inputs
            .into_iter()
            .map(|input| self.model.encode(input.into(), truncation))
            .collect::<Result<_, _>>()?;
        let mut answers = Ordered::new(encodings.len());
        self.model.forward(&encodings, |batch, mut outputs| {
            let mut logits = Rows::take(&mut outputs, "logits", batch.len())?;
            for (row, &index) in batch.iter().enumerate() {
                answers.put(index, self.answer(logits.row(row)));
            }
            Ok(())
        })?;
        Ok(answers.finish())
    }

    fn answer(&self, logits: &mut [f32]) -> Vec<Label> {
        match self.options.function.unwrap_or(self.function) {
            ClassificationFunction::Softmax => softmax(logits),
            ClassificationFunction::Sigmoid => sigmoid(logits),
            ClassificationFunction::None => {}
        }
        let count = self.options.top_k.unwrap_or(usize::MAX);
        let best = super::scores::top(logits, count).into_iter();
        best.map(|class| Label {
            name: self.labels[class].clone(),
            score: logits[class],
        })
        .collect()
    }
}

/// What the model was trained with.
pub(super) fn function(config: &PretrainedConfig, classes: usize) -> ClassificationFunction {
    match config.problem_type.as_deref() {
        Some("regression") => ClassificationFunction::None,
        Some("multi_label_classification") => ClassificationFunction::Sigmoid,
        _ if classes == 1 => ClassificationFunction::Sigmoid,
        _ => ClassificationFunction::Softmax,
    }
}
