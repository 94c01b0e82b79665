use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use burn::tensor::Tensor;
use salamander_importers::Checkpoint;
use salamander_models::blocks::Pooling;
use salamander_models::blocks::pooling::{Dense, normalize};
use salamander_models::processing::text::{Encoding, Truncation};
use salamander_models::{ConfigError, Task};
use serde_json::Value;

use super::batch::{Ordered, TextInput, TextModel};
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
    Normalize,
}

impl TextEmbedding {
    /// Opens a model directory, a hub id, or a GGUF file of a BERT.
    ///
    /// # Errors
    /// The model cannot be found, read or honoured, or has a module that is not supported.
    pub fn open(model: impl AsRef<Path>, device: &Device) -> Result<Self, Error> {
        let directory = ModelDir::find(model)?;
        let modules = Modules::read(&directory, device)?;
        let (mut model, _) = TextModel::open(&modules.transformer, Task::TextEmbedding, device)?;
        let settings = ModelDir::find(&modules.transformer)?;
        let settings = settings
            .json("sentence_bert_config.json")?
            .unwrap_or(Value::Null);
        if settings.get("do_lower_case").and_then(Value::as_bool) == Some(true) {
            let tokenizer = model.tokenizer.as_ref().clone().lowercased()?;
            model.tokenizer = Arc::new(tokenizer);
        }
        let max_length = settings.get("max_seq_length").and_then(Value::as_u64);
        let prompts = directory
            .json("config_sentence_transformers.json")?
            .unwrap_or(Value::Null);
        let texts = prompts
            .get("prompts")
            .and_then(Value::as_object)
            .into_iter()
            .flatten();
        let texts =
            texts.filter_map(|(name, text)| Some((name.clone(), text.as_str()?.to_owned())));
        let default = prompts.get("default_prompt_name").and_then(Value::as_str);
        let embedding = Self {
            max_length: max_length.map_or(model.max_length(), |length| {
                model.positions().min(length as usize)
            }),
            model,
            pooling: modules.pooling,
            after: Arc::new(modules.after),
            prompts: texts.collect(),
            default_prompt: default.map(str::to_owned),
            options: TextEmbeddingOptions::default(),
            prompt: String::new(),
            prompt_tokens: 0,
        };
        embedding.with_options(TextEmbeddingOptions::default())
    }

    /// The same model with other options.
    ///
    /// # Errors
    /// The model has no prompt of that name.
    pub fn with_options(mut self, options: TextEmbeddingOptions) -> Result<Self, Error> {
        let named = |name: &str| {
            self.prompts.get(name).cloned().ok_or_else(|| {
                let known: Vec<&str> = self.prompts.keys().map(|name| &name[..]).collect();
                Error::Option {
                    name: "prompt",
                    reason: format!("\"{name}\" is not one of the model's: {}", known.join(", ")),
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
                    After::Normalize => normalize(vectors),
                };
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

/// What `modules.json` strings together.
struct Modules {
    transformer: PathBuf,
    pooling: Pooling,
    after: Vec<After>,
}

impl Modules {
    fn read(directory: &ModelDir, device: &Device) -> Result<Self, Error> {
        let mut modules = Self {
            transformer: directory.path().to_owned(),
            pooling: Pooling::default(),
            after: Vec::new(),
        };
        let Some(json) = directory.json("modules.json")? else {
            return Ok(modules);
        };
        let refuse = |field: &str, reason: String| {
            let path = directory.folder().join("modules.json");
            Error::config(&path)(ConfigError::new(field, reason))
        };
        let listed = json.as_array().map_or(&[][..], |list| list);
        let mut pooled = false;
        for module in listed {
            let text = |name: &str| module.get(name).and_then(Value::as_str).unwrap_or_default();
            let relative = Path::new(text("path"));
            if relative
                .components()
                .any(|part| !matches!(part, Component::Normal(_)))
            {
                let reason = format!(
                    "\"{}\" leads out of the model's directory",
                    relative.display()
                );
                return Err(refuse("path", reason));
            }
            let path = match text("path") {
                // The directory itself, or the weights that were named.
                "" => directory.path().to_owned(),
                _ => directory.folder().join(relative),
            };
            let settings = || -> Result<Value, Error> {
                let name = relative.join("config.json");
                let name = name.to_string_lossy();
                Ok(directory
                    .json(&name)?
                    .unwrap_or_else(|| Value::Object(Default::default())))
            };
            match text("type").rsplit('.').next().unwrap_or_default() {
                "Transformer" => modules.transformer = path,
                "Pooling" => {
                    modules.pooling = Pooling::parse(&settings()?).map_err(Error::config(&path))?;
                    pooled = true;
                }
                "Dense" if pooled => {
                    let checkpoint = device.weights(Checkpoint::open(&path)?);
                    let settings = settings()?;
                    let dense = device
                        .load(&path, || Dense::load(&settings, &checkpoint, device.burn()))?;
                    modules.after.push(After::Dense(Box::new(dense)));
                }
                "Normalize" if pooled => modules.after.push(After::Normalize),
                // Dropout acts only in training.
                "Dropout" => {}
                other => {
                    let reason = format!(
                        "\"{other}\" is not supported here; a Transformer, a Pooling, then Dense and Normalize are"
                    );
                    return Err(refuse("type", reason));
                }
            }
        }
        Ok(modules)
    }
}
