use std::path::Path;
use std::time::Duration;

use salamander_models::Task;
use salamander_models::processing::text::{Encoding, Truncation, TruncationStrategy};

use super::batch::{Ordered, Rows, TextInput, TextModel};
use super::scores::{Classes, ClassificationFunction, Label};
use crate::{Device, Error};

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
    classes: Classes,
    options: TextClassificationOptions,
}

impl TextClassification {
    /// Opens a model directory, or a hub id.
    ///
    /// # Errors
    /// The model cannot be found, read or honoured, or is no text classifier.
    pub fn open(model: impl AsRef<Path>, device: &Device) -> Result<Self, Error> {
        let (model, config) = TextModel::open(model.as_ref(), Task::TextClassification, device)?;
        Ok(Self {
            model,
            classes: Classes::new(&config),
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
        &self.classes.labels
    }

    /// Runs the network on texts of 8, 32 and 128 tokens, so that a GPU has compiled and tuned its kernels before the first
    /// answer, and says how long that took.
    ///
    /// # Errors
    /// The device fails.
    pub fn warm_up(&self) -> Result<Duration, Error> {
        self.model.warm_up()
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
            let mut logits = Rows::take(&mut outputs, "logits", batch.len(), self.device())?;
            let (function, top_k) = (self.options.function, self.options.top_k);
            for (row, &index) in batch.iter().enumerate() {
                let answer = self.classes.answer(logits.row(row), function, top_k);
                answers.put(index, answer);
            }
            Ok(())
        })?;
        Ok(answers.finish())
    }
}
