use std::path::Path;
use std::time::Duration;

use burn::tensor::Tensor;
use salamander_models::Task;
use salamander_models::blocks::Activation;
use salamander_models::processing::text::{Encoding, Truncation, TruncationStrategy};
use serde_json::Value;

use super::batch::{Ordered, Rows, TextInput, TextModel};
use super::scores::{Classes, ClassificationFunction, Label};
use crate::sentence::{SentenceClass, SentenceModel, TransformerSettings};
use crate::{Device, Error, ModelDir};

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
/// which the reference fails on, are cut at the end. Cross-encoders score as `CrossEncoder.predict` of
/// sentence-transformers 6.2 does: by the activation that their configuration names.
#[derive(Debug, Clone)]
pub struct TextClassification {
    model: TextModel,
    classes: Classes,
    /// What a cross-encoder makes of its logits, where it is none of the task's functions.
    activation: Option<Activation>,
    /// The most tokens of a text by the model's own settings.
    limit: usize,
    /// What a cross-encoder has put before every text.
    prompt: String,
    options: TextClassificationOptions,
}

/// The activation that a configuration names, if it is a cross-encoder's, as a class of PyTorch.
fn cross_encoder(config: &Value, named: Option<String>, marked: bool) -> Option<Option<String>> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let section = config
        .get("sentence_transformers")
        .filter(|section| section.is_object());
    let of_section = section.and_then(|section| section.get("activation_fn"));
    // What was written before version 4.
    let before = config.get("sbert_ce_default_activation_function");
    let before = before.filter(|value| !value.is_null());
    if !marked && section.is_none() && before.is_none() {
        return None;
    }
    Some(named.or_else(|| of_section.or(before).and_then(text)))
}

impl TextClassification {
    /// Opens a model directory, or a hub id.
    ///
    /// # Errors
    /// The model cannot be found, read or honoured, or is no text classifier.
    pub fn open(model: impl AsRef<Path>, device: &Device) -> Result<Self, Error> {
        let directory = ModelDir::find(model)?;
        let class = SentenceClass::CrossEncoder;
        let marked = directory.json("config_sentence_transformers.json")?;
        let marked = marked.is_some_and(|config| config["model_type"] == "CrossEncoder");
        let sentence = match marked {
            true => SentenceModel::read(&directory, class)?,
            false => None,
        };
        let (transformer, settings) = match &sentence {
            Some(sentence) => (&sentence.transformer, sentence.settings.clone()),
            None => (&directory, TransformerSettings::default()),
        };
        let task = Task::TextClassification;
        let (model, config, common) = TextModel::open_with(transformer, &settings, task, device)?;
        let mut classes = Classes::new(&common);
        let named = sentence
            .as_ref()
            .and_then(|sentence| sentence.activation.clone());
        let mut limit = usize::MAX;
        let mut activation = None;
        if let Some(named) = cross_encoder(&config, named, sentence.is_some()) {
            limit = settings.max_length.unwrap_or(model.max_length());
            activation = classes
                .activate(named.as_deref())
                .map_err(Error::config(directory.folder()))?;
        }
        let prompt = sentence.as_ref().and_then(|sentence| {
            let name = sentence.default_prompt.as_ref()?;
            sentence.prompts.get(name).cloned()
        });
        Ok(Self {
            model,
            classes,
            activation,
            limit,
            prompt: prompt.unwrap_or_default(),
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
            max_length: self.options.max_length.unwrap_or(self.limit),
            strategy: self.options.truncation.unwrap_or_default(),
            windows: None,
        };
        let encodings: Vec<Encoding> = inputs
            .into_iter()
            .map(|input| {
                let input = input.into();
                if self.prompt.is_empty() {
                    return self.model.encode(input, truncation);
                }
                let text = format!("{}{}", self.prompt, input.text);
                let input = TextInput {
                    text: &text,
                    pair: input.pair,
                };
                self.model.encode(input, truncation)
            })
            .collect::<Result<_, _>>()?;
        let mut answers = Ordered::new(encodings.len());
        self.model.forward(&encodings, |batch, mut outputs| {
            const LOGITS: &str = "logits";
            let (function, top_k) = (self.options.function, self.options.top_k);
            if let (Some(activation), None) = (self.activation, function) {
                let logits = outputs.remove(LOGITS);
                let logits = logits.and_then(|logits| Tensor::<2>::try_from(logits).ok());
                let logits = logits.ok_or(Error::Output { name: LOGITS })?;
                outputs = outputs.with(LOGITS, activation.forward(logits));
            }
            let mut logits = Rows::take(&mut outputs, LOGITS, batch.len(), self.device())?;
            for (row, &index) in batch.iter().enumerate() {
                let answer = self.classes.answer(logits.row(row), function, top_k);
                answers.put(index, answer);
            }
            Ok(())
        })?;
        Ok(answers.finish())
    }
}
