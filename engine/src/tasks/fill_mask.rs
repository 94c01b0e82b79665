use std::path::Path;
use std::time::Duration;

use salamander_models::Task;
use salamander_models::processing::text::{Encoding, Truncation};
use serde::Serialize;

use super::batch::{Ordered, Rows, TextModel};
use super::scores::{softmax, top};
use crate::{Device, Error};

/// Options of [`FillMask`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FillMaskOptions {
    /// How many words an answer has at most.
    pub top_k: usize,
    /// The only words to choose from, if there are any; a word that the vocabulary lacks stands for its
    /// first piece.
    pub targets: Vec<String>,
    /// The most tokens of a text; by default as many as the network takes.
    pub max_length: Option<usize>,
}

impl Default for FillMaskOptions {
    fn default() -> Self {
        Self {
            top_k: 5,
            targets: Vec::new(),
            max_length: None,
        }
    }
}

/// A word for a mask.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fill {
    /// Its probability among all words.
    pub score: f32,
    /// Its id in the vocabulary.
    pub token: u32,
    /// Its text; a piece inside a word keeps its mark.
    pub token_str: String,
    /// The whole text with the word in it.
    pub sequence: String,
}

/// Finds the words for the `[MASK]`s of a text.
///
/// Reference: `FillMaskPipeline` of transformers 5.23. Longer texts than the network takes, which the
/// reference fails on, are cut at the end.
#[derive(Debug, Clone)]
pub struct FillMask {
    model: TextModel,
    mask: u32,
    options: FillMaskOptions,
    targets: Vec<u32>,
}

impl FillMask {
    /// Opens a model directory, or a hub id.
    ///
    /// # Errors
    /// The model cannot be found, read or honoured, is no masked language model, or its tokenizer has no
    /// mask.
    pub fn open(model: impl AsRef<Path>, device: &Device) -> Result<Self, Error> {
        let path = model.as_ref();
        let (mut model, _) = TextModel::open(path, Task::FillMask, device)?;
        // Each token's answer is as wide as the vocabulary.
        model.batch_tokens = 256;
        let mask = model
            .tokenizer
            .special()
            .mask
            .ok_or_else(|| Error::NotFound {
                model: path.display().to_string(),
                reason: "its tokenizer has no mask token".to_owned(),
            })?;
        Ok(Self {
            model,
            mask,
            options: FillMaskOptions::default(),
            targets: Vec::new(),
        })
    }

    /// The same model with other options.
    ///
    /// # Errors
    /// No target is anything that the tokenizer knows.
    pub fn with_options(mut self, options: FillMaskOptions) -> Result<Self, Error> {
        self.targets.clear();
        for target in &options.targets {
            let id = match self.model.tokenizer.token_to_id(target) {
                Some(id) => Some(id),
                None => self.model.tokenizer.pieces(target)?.first().copied(),
            };
            self.targets
                .extend(id.filter(|id| !self.targets.contains(id)));
        }
        if self.targets.is_empty() && !options.targets.is_empty() {
            return Err(Error::Option {
                name: "targets",
                reason: "none of them is anything but blank to the tokenizer".to_owned(),
            });
        }
        self.options = options;
        Ok(self)
    }

    /// The text of the mask, to be written where a word is wanted.
    pub fn mask_token(&self) -> Result<String, Error> {
        Ok(self.model.tokenizer.decode(&[self.mask], false)?)
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

    /// Finds the words for each mask of a text, the likeliest first.
    ///
    /// # Errors
    /// The text has no mask, or cannot be encoded.
    pub fn run(&self, text: &str) -> Result<Vec<Vec<Fill>>, Error> {
        Ok(self.run_batch(&[text])?.swap_remove(0))
    }

    /// Finds the words for each mask of many texts; the answers come in their order.
    ///
    /// # Errors
    /// A text has no mask, or cannot be encoded.
    pub fn run_batch<S: AsRef<str>>(&self, texts: &[S]) -> Result<Vec<Vec<Vec<Fill>>>, Error> {
        let max_length = self.options.max_length.unwrap_or(usize::MAX);
        let mut encodings = Vec::new();
        for text in texts {
            let encoding = self
                .model
                .encode(text.as_ref().into(), Truncation::to(max_length))?;
            if !encoding.get_ids().contains(&self.mask) {
                let shown: String = text.as_ref().chars().take(60).collect();
                return Err(Error::Option {
                    name: "text",
                    reason: format!(
                        "\"{shown}\" has no {} within the first {} tokens",
                        self.mask_token()?,
                        max_length.min(self.model.positions())
                    ),
                });
            }
            encodings.push(encoding);
        }
        let mut answers = Ordered::new(encodings.len());
        self.model.forward(&encodings, |batch, mut outputs| {
            let mut logits = Rows::take(&mut outputs, "logits", batch.len(), self.device())?;
            let longest = batch
                .iter()
                .map(|&index| encodings[index].len())
                .max()
                .unwrap_or(1);
            for (row, &index) in batch.iter().enumerate() {
                let logits = logits.row(row);
                let words = logits.len() / longest;
                let encoding = &encodings[index];
                let masks = encoding.get_ids().iter().enumerate();
                let masks: Vec<usize> = masks
                    .filter(|(_, id)| **id == self.mask)
                    .map(|(at, _)| at)
                    .collect();
                let fills = masks.iter().map(|&at| {
                    let logits = &mut logits[at * words..(at + 1) * words];
                    self.fills(encoding, at, masks.len() == 1, logits)
                });
                answers.put(index, fills.collect::<Result<_, _>>()?);
            }
            Ok(())
        })?;
        Ok(answers.finish())
    }

    /// The best words for the mask at `position`.
    fn fills(
        &self,
        encoding: &Encoding,
        position: usize,
        single: bool,
        logits: &mut [f32],
    ) -> Result<Vec<Fill>, Error> {
        softmax(logits);
        let best: Vec<usize> = if self.targets.is_empty() {
            top(logits, self.options.top_k)
        } else {
            let scores: Vec<f32> = self.targets.iter().map(|&id| logits[id as usize]).collect();
            let best = top(&scores, self.options.top_k).into_iter();
            best.map(|target| self.targets[target] as usize).collect()
        };
        let tokenizer = &self.model.tokenizer;
        let pad = tokenizer.special().pad;
        let fills = best.into_iter().map(|word| {
            let token = word as u32;
            let mut ids = encoding.get_ids().to_vec();
            ids[position] = token;
            ids.retain(|id| Some(*id) != pad);
            Ok(Fill {
                score: logits[word],
                token,
                token_str: tokenizer.decode(&[token], false)?,
                // With several masks the others are shown, for the text would read oddly without.
                sequence: tokenizer.decode(&ids, single)?,
            })
        });
        fills.collect()
    }
}
