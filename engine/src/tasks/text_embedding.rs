use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use burn::tensor::Tensor;
use salamander_importers::Checkpoint;
use salamander_models::blocks::Pooling;
use salamander_models::blocks::pooling::{Dense, VectorNorm, normalize};
use salamander_models::processing::text::{Encoding, Truncation};
use salamander_models::{ConfigError, Task};
use serde_json::Value;

use super::batch::{Ordered, TextInput, TextModel};
use crate::sentence::{ModuleKind, SentenceClass, SentenceModel, TransformerSettings};
use crate::{Device, Error, ModelDir};

/// A text that is put before every text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Prompt {
    /// The one that the model names as its default, if it does.
    #[default]
    Default,
    /// One of the model's, by name: `query`, `document`, …
    Named(String),
    /// This one; an empty one for none.
    Text(String),
}

/// Options of [`TextEmbedding`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextEmbeddingOptions {
    /// What is put before every text.
    pub prompt: Prompt,
    /// Whether vectors are scaled to length 1 even if the model does not say so.
    pub normalize: bool,
    /// How many values of a vector are kept, of a model trained for that; by default what the model says. They are
    /// not scaled to length 1 after it unless `normalize` says so.
    pub truncate_dim: Option<usize>,
}

/// Makes a vector of a text, so that texts of similar meaning have similar vectors.
///
/// Reference: `SentenceTransformer.encode` of sentence-transformers 6.2. A model without `modules.json`
/// gets the mean of its tokens, as there.
#[derive(Debug, Clone)]
pub struct TextEmbedding {
    model: TextModel,
    pooling: Pooling,
    after: Arc<Vec<After>>,
    truncate_dim: Option<usize>,
    prompts: BTreeMap<String, String>,
    default_prompt: Option<String>,
    max_length: usize,
    options: TextEmbeddingOptions,
    prompt: String,
    prompt_tokens: usize,
}

/// A module behind the pooling.
#[derive(Debug)]
enum After {
    Dense(Box<Dense>),
    LayerNorm(VectorNorm),
    Normalize,
}

impl TextEmbedding {
    /// Opens a model directory, a hub id, or a GGUF file of a BERT.
    ///
    /// # Errors
    /// The model cannot be found, read or honoured, or has a module that is not supported.
    pub fn open(model: impl AsRef<Path>, device: &Device) -> Result<Self, Error> {
        let directory = ModelDir::find(model)?;
        let sentence = SentenceModel::read(&directory, SentenceClass::SentenceTransformer)?;
        let (transformer, settings) = match &sentence {
            Some(sentence) => (&sentence.transformer, sentence.settings.clone()),
            None => (&directory, TransformerSettings::default()),
        };
        let task = Task::TextEmbedding;
        let (model, config, _) = TextModel::open_with(transformer, &settings, task, device)?;
        let mut pooling = Pooling::default();
        let mut after = Vec::new();
        let hidden = config.get("hidden_size").and_then(Value::as_u64);
        let mut width = hidden.and_then(|hidden| usize::try_from(hidden).ok());
        for module in sentence.iter().flat_map(|sentence| &sentence.modules) {
            let folder = directory.folder().join(&module.folder);
            let fit = |field: &str, takes: usize| match width {
                Some(width) if width != takes => {
                    let reason = format!("{takes} is not the {width} values that come to it");
                    Err(Error::config(&folder)(ConfigError::new(field, reason)))
                }
                _ => Ok(()),
            };
            let weights =
                || -> Result<Checkpoint, Error> { Ok(device.weights(Checkpoint::open(&folder)?)) };
            match &module.kind {
                ModuleKind::Pooling(chosen) => {
                    width = width.map(|width| width.saturating_mul(chosen.modes().len()));
                    pooling = chosen.clone();
                }
                ModuleKind::Dense(settings) => {
                    let weights = weights()?;
                    let dense =
                        device.load(&folder, || Dense::load(settings, &weights, device.burn()))?;
                    let (takes, gives) = dense.widths();
                    fit("in_features", takes)?;
                    width = Some(gives);
                    after.push(After::Dense(Box::new(dense)));
                }
                ModuleKind::LayerNorm(settings) => {
                    let weights = weights()?;
                    let norm = device.load(&folder, || {
                        VectorNorm::load(settings, &weights, device.burn())
                    })?;
                    fit("dimension", norm.width())?;
                    after.push(After::LayerNorm(norm));
                }
                ModuleKind::Normalize => after.push(After::Normalize),
            }
        }
        let max_length = settings
            .max_length
            .map_or(model.max_length(), |length| model.positions().min(length));
        let embedding = Self {
            max_length,
            model,
            pooling,
            after: Arc::new(after),
            truncate_dim: sentence.as_ref().and_then(|sentence| sentence.truncate_dim),
            default_prompt: sentence
                .as_ref()
                .and_then(|sentence| sentence.default_prompt.clone()),
            prompts: sentence.map_or(BTreeMap::new(), |sentence| sentence.prompts),
            options: TextEmbeddingOptions::default(),
            prompt: String::new(),
            prompt_tokens: 0,
        };
        embedding.with_options(TextEmbeddingOptions::default())
    }

    /// The same model with other options.
    ///
    /// # Errors
    /// The model has no prompt of that name, or vectors would have no values.
    pub fn with_options(mut self, options: TextEmbeddingOptions) -> Result<Self, Error> {
        if options.truncate_dim == Some(0) {
            return Err(Error::Option {
                name: "truncate_dim",
                reason: "0 values are no vector".to_owned(),
            });
        }
        let named = |name: &str| {
            self.prompts.get(name).cloned().ok_or_else(|| {
                let known: Vec<&str> = self.prompts.keys().map(|name| &name[..]).collect();
                let reason = match known[..] {
                    [] => format!("the model has no prompts, and none of the name \"{name}\""),
                    _ => format!("\"{name}\" is not one of the model's: {}", known.join(", ")),
                };
                Error::Option {
                    name: "prompt",
                    reason,
                }
            })
        };
        self.prompt = match (&options.prompt, &self.default_prompt) {
            (Prompt::Text(text), _) => text.clone(),
            (Prompt::Named(name), _) | (Prompt::Default, Some(name)) => named(name)?,
            (Prompt::Default, None) => String::new(),
        };
        self.prompt_tokens = if self.prompt.is_empty() {
            0
        } else {
            let prompt = self
                .model
                .encode(self.prompt[..].into(), Truncation::to(self.max_length))?;
            // The special token at its end belongs to the text when both stand together.
            let ends_special = prompt.get_special_tokens_mask().last() == Some(&1);
            prompt.len() - usize::from(ends_special)
        };
        self.options = options;
        Ok(self)
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

    /// The names and texts of the model's prompts.
    pub fn prompts(&self) -> &BTreeMap<String, String> {
        &self.prompts
    }

    /// The vector of a text.
    ///
    /// # Errors
    /// The text cannot be encoded.
    pub fn run(&self, text: &str) -> Result<Vec<f32>, Error> {
        Ok(self.run_batch(&[text])?.swap_remove(0))
    }

    /// The vectors of many texts, in their order.
    ///
    /// # Errors
    /// A text cannot be encoded.
    pub fn run_batch<S: AsRef<str>>(&self, texts: &[S]) -> Result<Vec<Vec<f32>>, Error> {
        let encoded = texts.iter().map(|text| self.encode(text.as_ref()));
        let encodings: Vec<Encoding> = encoded.collect::<Result<_, _>>()?;
        let mut answers = Ordered::new(encodings.len());
        self.model.forward(&encodings, |batch, mut outputs| {
            const HIDDEN: &str = "last_hidden_state";
            let hidden = outputs
                .remove(HIDDEN)
                .and_then(|value| value.try_into().ok());
            let hidden: Tensor<3> = hidden.ok_or(Error::Output { name: HIDDEN })?;
            let lengths: Vec<usize> = batch.iter().map(|&index| encodings[index].len()).collect();
            let mut vectors = self.pooling.forward(hidden, &lengths, self.prompt_tokens);
            for module in self.after.iter() {
                vectors = match module {
                    After::Dense(dense) => dense.forward(vectors),
                    After::LayerNorm(norm) => norm.forward(vectors),
                    After::Normalize => normalize(vectors),
                };
            }
            if let Some(kept) = self.options.truncate_dim.or(self.truncate_dim) {
                let [_, width] = vectors.dims();
                vectors = vectors.narrow(1, 0, kept.min(width));
            }
            if self.options.normalize {
                vectors = normalize(vectors);
            }
            let [_, width] = vectors.dims();
            let values: Vec<f32> = self.device().read(vectors)?.iter::<f32>().collect();
            for (vector, &index) in values.chunks(width.max(1)).zip(batch) {
                answers.put(index, vector.to_vec());
            }
            Ok(())
        })?;
        Ok(answers.finish())
    }

    fn encode(&self, text: &str) -> Result<Encoding, Error> {
        if self.prompt.is_empty() {
            return self
                .model
                .encode(TextInput::from(text), Truncation::to(self.max_length));
        }
        let prompted = format!("{}{text}", self.prompt);
        self.model
            .encode(TextInput::from(&prompted), Truncation::to(self.max_length))
    }
}
