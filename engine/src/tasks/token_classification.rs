use std::path::Path;
use std::time::Duration;

use salamander_models::Task;
use salamander_models::processing::text::{Encoding, Truncation, TruncationStrategy};
use serde::Serialize;

use super::batch::{Ordered, Rows, TextModel};
use super::scores::{argmax, softmax};
use crate::{Device, Error};

/// How tokens become entities; the reference's `aggregation_strategy`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Aggregation {
    /// Every token is an entity of its own.
    None,
    /// Neighbouring tokens of one label are an entity; a word may fall apart.
    #[default]
    Simple,
    /// A word has the label of its first token.
    First,
    /// A word has the label whose score, averaged over its tokens, is highest.
    Average,
    /// A word has the label of its surest token.
    Max,
}

/// Options of [`TokenClassification`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenClassificationOptions {
    /// How tokens become entities.
    pub aggregation: Aggregation,
    /// Labels that are left out of the answer: whole ones (`B-PER`) without aggregation, the part after
    /// the `B-` or `I-` with it.
    pub ignore_labels: Vec<String>,
    /// With a number, a text that is too long is read in windows that share that many tokens; otherwise
    /// it is cut at the end.
    pub stride: Option<usize>,
}

impl Default for TokenClassificationOptions {
    fn default() -> Self {
        Self {
            aggregation: Aggregation::default(),
            ignore_labels: vec!["O".to_owned()],
            stride: None,
        }
    }
}

/// A span of a text and what it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entity {
    /// The label, without its `B-` or `I-` where tokens are aggregated.
    pub label: String,
    /// How sure the model is, averaged over the entity's parts.
    pub score: f32,
    /// The entity's text as the tokenizer spells it.
    pub word: String,
    /// The first character in the text.
    pub start: usize,
    /// The character after the last.
    pub end: usize,
    /// The token's place in the sequence, where tokens are not aggregated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
}

/// Finds the names, places and other spans of a text.
///
/// Reference: `TokenClassificationPipeline` of transformers 5.23.
#[derive(Debug, Clone)]
pub struct TokenClassification {
    model: TextModel,
    labels: Vec<String>,
    options: TokenClassificationOptions,
}

/// A text's windows, and its characters for slices by character offset.
struct Prepared {
    characters: Vec<char>,
    /// The first character of each word, where the text came as words.
    words: Option<Vec<usize>>,
    windows: Vec<Encoding>,
}

/// A token that is not special, or several merged to a word.
struct Part {
    word: String,
    scores: Vec<f32>,
    start: usize,
    end: usize,
    index: usize,
    is_subword: bool,
}

/// A part with its label.
struct Labelled {
    label: usize,
    score: f32,
    word: String,
    start: usize,
    end: usize,
    index: usize,
}

impl TokenClassification {
    /// Opens a model directory, or a hub id.
    ///
    /// # Errors
    /// The model cannot be found, read or honoured, or is no token classifier.
    pub fn open(model: impl AsRef<Path>, device: &Device) -> Result<Self, Error> {
        let (model, config) = TextModel::open(model.as_ref(), Task::TokenClassification, device)?;
        Ok(Self {
            model,
            labels: config.labels(),
            options: TokenClassificationOptions::default(),
        })
    }

    /// The same model with other options.
    ///
    /// # Errors
    /// A stride leaves a window nothing of its own, or comes without aggregation.
    pub fn with_options(mut self, options: TokenClassificationOptions) -> Result<Self, Error> {
        if let Some(stride) = options.stride {
            let refuse = |reason: String| {
                Err(Error::Option {
                    name: "stride",
                    reason,
                })
            };
            let room = self
                .model
                .max_length()
                .saturating_sub(self.model.tokenizer.added_tokens(false));
            if stride >= room {
                return refuse(format!(
                    "{stride} is not below the {room} tokens of a window"
                ));
            }
            if options.aggregation == Aggregation::None {
                return refuse("needs an aggregation, for windows overlap".to_owned());
            }
        }
        self.options = options;
        Ok(self)
    }

    /// The names of all classes.
    pub fn labels(&self) -> &[String] {
        &self.labels
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

    /// Finds the entities of a text.
    ///
    /// # Errors
    /// The text cannot be encoded.
    pub fn run(&self, text: &str) -> Result<Vec<Entity>, Error> {
        Ok(self.run_batch(&[text])?.swap_remove(0))
    }

    /// Finds the entities of many texts; the answers come in their order.
    ///
    /// # Errors
    /// A text cannot be encoded.
    pub fn run_batch<S: AsRef<str>>(&self, texts: &[S]) -> Result<Vec<Vec<Entity>>, Error> {
        let prepared = texts.iter().map(|text| {
            let text = text.as_ref();
            Ok(Prepared {
                characters: text.chars().collect(),
                words: None,
                windows: self
                    .model
                    .tokenizer
                    .encode(text, None, Some(self.truncation()))?,
            })
        });
        self.answer(prepared.collect::<Result<_, Error>>()?)
    }

    /// Finds the entities of a text that is already split into words, with offsets into the words joined
    /// by spaces.
    ///
    /// # Errors
    /// The words cannot be encoded.
    pub fn run_words(&self, words: &[&str]) -> Result<Vec<Entity>, Error> {
        let mut starts = Vec::new();
        let mut next = 0;
        for word in words {
            starts.push(next);
            next += word.chars().count() + 1;
        }
        let prepared = Prepared {
            characters: words.join(" ").chars().collect(),
            words: Some(starts),
            windows: self
                .model
                .tokenizer
                .encode_words(words, Some(self.truncation()))?,
        };
        Ok(self.answer(vec![prepared])?.swap_remove(0))
    }

    fn truncation(&self) -> Truncation {
        Truncation {
            max_length: self.model.max_length(),
            strategy: TruncationStrategy::LongestFirst,
            windows: self.options.stride,
        }
    }

    fn answer(&self, texts: Vec<Prepared>) -> Result<Vec<Vec<Entity>>, Error> {
        // Windows of all texts run together, so that a batch is full.
        let windows: Vec<(usize, &Encoding)> = texts
            .iter()
            .enumerate()
            .flat_map(|(text, prepared)| prepared.windows.iter().map(move |window| (text, window)))
            .collect();
        let encodings: Vec<&Encoding> = windows.iter().map(|(_, window)| *window).collect();
        let mut found = Ordered::new(windows.len());
        self.model.forward(&encodings, |batch, mut outputs| {
            let mut logits = Rows::take(&mut outputs, "logits", batch.len(), self.device())?;
            for (row, &index) in batch.iter().enumerate() {
                let (text, window) = windows[index];
                let entities = self.entities(&texts[text], window, logits.row(row))?;
                found.put(index, entities);
            }
            Ok(())
        })?;
        let mut found = found.finish().into_iter();
        let answers = texts.iter().map(|text| {
            let windows = text.windows.len();
            let entities: Vec<Entity> = found.by_ref().take(windows).flatten().collect();
            if windows > 1 {
                resolve_overlaps(entities)
            } else {
                entities
            }
        });
        Ok(answers.collect())
    }

    /// The entities of one window.
    fn entities(
        &self,
        text: &Prepared,
        window: &Encoding,
        logits: &mut [f32],
    ) -> Result<Vec<Entity>, Error> {
        let parts = self.parts(text, window, logits);
        let aggregation = self.options.aggregation;
        let labelled = match aggregation {
            Aggregation::None | Aggregation::Simple => {
                parts.into_iter().map(Part::labelled).collect()
            }
            _ => self.words(parts)?,
        };
        let ignored = |label: &str| self.options.ignore_labels.iter().any(|name| name == label);
        if aggregation == Aggregation::None {
            let entities = labelled.into_iter().map(|part| Entity {
                label: self.labels[part.label].clone(),
                score: part.score,
                word: part.word,
                start: part.start,
                end: part.end,
                index: Some(part.index),
            });
            return Ok(entities.filter(|entity| !ignored(&entity.label)).collect());
        }
        let mut entities = self.groups(labelled)?;
        entities.retain(|entity| !ignored(&entity.label));
        Ok(entities)
    }

    /// The tokens of a window that are text, with their scores.
    fn parts(&self, text: &Prepared, window: &Encoding, logits: &mut [f32]) -> Vec<Part> {
        let classes = self.labels.len();
        let unknown = self.model.tokenizer.special().unknown;
        let mut parts = Vec::new();
        for (index, scores) in logits
            .chunks_mut(classes.max(1))
            .take(window.len())
            .enumerate()
        {
            if window.get_special_tokens_mask()[index] != 0 {
                continue;
            }
            softmax(scores);
            let word = &window.get_tokens()[index];
            let (mut start, mut end) = window.get_offsets()[index];
            if let (Some(words), Some(of)) = (&text.words, window.get_word_ids()[index]) {
                start += words[of as usize];
                end += words[of as usize];
            }
            let slice: String = text.characters[start..end].iter().collect();
            let is_subword = if self.model.tokenizer.marks_continuation() {
                // A marked piece is longer than its text. So is one whose accents were stripped shorter;
                // the reference takes that for a piece too.
                word.chars().count() != end - start
            } else {
                let before = start.saturating_sub(1)..(start + 1).min(text.characters.len());
                start > 0 && !text.characters[before].contains(&' ')
            };
            let is_unknown = Some(window.get_ids()[index]) == unknown;
            parts.push(Part {
                word: if is_unknown { slice } else { word.clone() },
                scores: scores.to_vec(),
                start,
                end,
                index,
                is_subword: is_subword && !is_unknown,
            });
        }
        parts
    }

    /// Merges the pieces of each word, so that they agree on a label.
    fn words(&self, parts: Vec<Part>) -> Result<Vec<Labelled>, Error> {
        let mut words: Vec<Vec<Part>> = Vec::new();
        for part in parts {
            match words.last_mut() {
                Some(word) if part.is_subword => word.push(part),
                _ => words.push(vec![part]),
            }
        }
        words.into_iter().map(|word| self.word(word)).collect()
    }

    fn word(&self, parts: Vec<Part>) -> Result<Labelled, Error> {
        let highest = |part: &Part| part.scores[argmax(&part.scores)];
        let scores = match self.options.aggregation {
            Aggregation::Max => {
                let mut surest = &parts[0];
                for part in &parts {
                    if highest(part) > highest(surest) {
                        surest = part;
                    }
                }
                surest.scores.clone()
            }
            Aggregation::Average => {
                let count = parts.len() as f32;
                let mean =
                    |class: usize| parts.iter().map(|part| part.scores[class]).sum::<f32>() / count;
                (0..self.labels.len()).map(mean).collect()
            }
            _ => parts[0].scores.clone(),
        };
        let whole = Part {
            scores,
            start: parts[0].start,
            end: parts[parts.len() - 1].end,
            index: parts[0].index,
            is_subword: false,
            word: self.join(parts.into_iter().map(|part| part.word).collect())?,
        };
        Ok(whole.labelled())
    }

    /// Groups neighbours of one label: a `B-` begins a new entity, anything else continues one.
    fn groups(&self, parts: Vec<Labelled>) -> Result<Vec<Entity>, Error> {
        let mut groups: Vec<Vec<Labelled>> = Vec::new();
        for part in parts {
            let (begins, tag) = split_label(&self.labels[part.label]);
            let continues = groups
                .last()
                .and_then(|group| group.last())
                .is_some_and(|last| !begins && split_label(&self.labels[last.label]).1 == tag);
            match groups.last_mut() {
                Some(group) if continues => group.push(part),
                _ => groups.push(vec![part]),
            }
        }
        groups.into_iter().map(|group| self.group(group)).collect()
    }

    fn group(&self, parts: Vec<Labelled>) -> Result<Entity, Error> {
        let first = &self.labels[parts[0].label];
        // The reference cuts here at any dash, not only behind a B or an I.
        let label = first
            .split_once('-')
            .map_or(&first[..], |(_, rest)| rest)
            .to_owned();
        Ok(Entity {
            label,
            score: parts.iter().map(|part| part.score).sum::<f32>() / parts.len() as f32,
            start: parts[0].start,
            end: parts[parts.len() - 1].end,
            index: None,
            word: self.join(parts.into_iter().map(|part| part.word).collect())?,
        })
    }

    fn join(&self, tokens: Vec<String>) -> Result<String, Error> {
        Ok(self.model.tokenizer.join(tokens)?)
    }
}

impl Part {
    fn labelled(self) -> Labelled {
        let label = argmax(&self.scores);
        Labelled {
            label,
            score: self.scores[label],
            word: self.word,
            start: self.start,
            end: self.end,
            index: self.index,
        }
    }
}

/// Whether a label begins an entity, and of what kind it is.
fn split_label(label: &str) -> (bool, &str) {
    match label.strip_prefix("B-") {
        Some(tag) => (true, tag),
        None => (false, label.strip_prefix("I-").unwrap_or(label)),
    }
}

/// Of entities that overlap, keeps the longer, and of equally long ones the surer.
fn resolve_overlaps(mut entities: Vec<Entity>) -> Vec<Entity> {
    entities.sort_by_key(|entity| entity.start);
    let mut kept: Vec<Entity> = Vec::new();
    for entity in entities {
        let Some(previous) = kept
            .last_mut()
            .filter(|previous| entity.start < previous.end)
        else {
            kept.push(entity);
            continue;
        };
        let (length, before) = (entity.end - entity.start, previous.end - previous.start);
        if length > before || (length == before && entity.score > previous.score) {
            *previous = entity;
        }
    }
    kept
}
