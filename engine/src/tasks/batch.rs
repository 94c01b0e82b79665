//! What every text task shares: a tokenizer, a network, and batches of similar length.

use std::borrow::Borrow;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use burn::tensor::TensorData;
use salamander_models::processing::text::{Encoding, TextTokenizer, Truncation};
use salamander_models::{Inputs, Model, Outputs, PretrainedConfig, Task, open};
use serde_json::Value;

use super::warm_up::warm_up;
use crate::model_dir::replace;
use crate::sentence::TransformerSettings;
use crate::{Device, Error, ModelDir};

/// A text, or a pair of texts that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextInput<'a> {
    /// The text.
    pub text: &'a str,
    /// The second text of a pair.
    pub pair: Option<&'a str>,
}

impl<'a> From<&'a str> for TextInput<'a> {
    fn from(text: &'a str) -> Self {
        Self { text, pair: None }
    }
}

impl<'a> From<&'a String> for TextInput<'a> {
    fn from(text: &'a String) -> Self {
        Self::from(&text[..])
    }
}

impl<'a> From<(&'a str, &'a str)> for TextInput<'a> {
    fn from((text, pair): (&'a str, &'a str)) -> Self {
        Self {
            text,
            pair: Some(pair),
        }
    }
}

/// The most tokens of one batch by default, padding included: enough to keep two cores busy, few enough that the
/// activations of a layer stay near the caches.
const BATCH_TOKENS: usize = 2048;

/// What running the network once costs, in tokens: its weights pass through the caches.
const RUN_TOKENS: usize = 24;

/// Cuts ascending lengths into batches of at most `most` tokens, or one sequence, padding included, so that
/// runs and tokens cost the least together.
fn batches(lengths: &[usize], most: usize) -> Vec<Range<usize>> {
    // For each count of sequences, the least cost of them and where their last batch begins.
    let mut best: Vec<(usize, usize)> = vec![(0, 0)];
    for (last, length) in lengths.iter().enumerate() {
        let mut found = (usize::MAX, last);
        for first in (0..=last).rev() {
            let tokens = (last + 1 - first).saturating_mul(*length);
            if tokens > most && first < last {
                break;
            }
            let cost = best[first]
                .0
                .saturating_add(RUN_TOKENS)
                .saturating_add(tokens);
            if cost < found.0 {
                found = (cost, first);
            }
        }
        best.push(found);
    }
    let mut cut = Vec::new();
    let mut end = lengths.len();
    while end > 0 {
        let first = best[end].1;
        cut.push(first..end);
        end = first;
    }
    cut.reverse();
    cut
}

/// A tokenizer and a network.
#[derive(Debug, Clone)]
pub(super) struct TextModel {
    model: Arc<dyn Model>,
    pub(super) tokenizer: Arc<TextTokenizer>,
    pub(super) device: Device,
    /// The most tokens of one batch, padding included.
    pub(super) batch_tokens: usize,
}

impl TextModel {
    /// Opens the class of a model directory or hub id that serves `task`.
    pub(super) fn open(
        model: &Path,
        task: Task,
        device: &Device,
    ) -> Result<(Self, PretrainedConfig), Error> {
        let directory = ModelDir::find(model)?;
        let settings = TransformerSettings::default();
        let (model, _, common) = Self::open_with(&directory, &settings, task, device)?;
        Ok((model, common))
    }

    /// The same with the settings of sentence-transformers, and with the whole configuration.
    pub(super) fn open_with(
        directory: &ModelDir,
        settings: &TransformerSettings,
        task: Task,
        device: &Device,
    ) -> Result<(Self, Value, PretrainedConfig), Error> {
        let checkpoint = device.weights(directory.checkpoint()?);
        let mut config = directory.config_for(&checkpoint)?;
        replace(&mut config, &settings.config);
        let common = directory.common_config(&config)?;
        // Each takes about as long as the other.
        let open_tokenizer = || -> Result<TextTokenizer, Error> {
            let tokenizer = directory.tokenizer_with(&settings.tokenizer)?;
            Ok(match settings.lower_case {
                true => tokenizer.lowercased()?,
                false => tokenizer,
            })
        };
        let mut tokenizer = None;
        let model = rayon::in_place_scope(|scope| {
            scope.spawn(|_| tokenizer = Some(open_tokenizer()));
            device.load(directory.path(), || {
                open(&config, task, &checkpoint, device.burn())
            })
        });
        // A model that cannot run at all says so before its tokenizer's files are blamed.
        let model = model?;
        let tokenizer = tokenizer.unwrap_or_else(open_tokenizer)?;
        let text_model = Self {
            model: model.into(),
            tokenizer: Arc::new(tokenizer),
            device: device.clone(),
            batch_tokens: BATCH_TOKENS,
        };
        Ok((text_model, config, common))
    }

    /// The most tokens that the network takes.
    pub(super) fn positions(&self) -> usize {
        self.model.max_length().unwrap_or(usize::MAX)
    }

    /// The most tokens that both the tokenizer's configuration and the network let through.
    pub(super) fn max_length(&self) -> usize {
        let positions = self.positions();
        self.tokenizer
            .max_length()
            .map_or(positions, |length| length.min(positions))
    }

    /// Encodes one window, shortened to what the network takes or less.
    pub(super) fn encode(
        &self,
        input: TextInput<'_>,
        truncation: Truncation,
    ) -> Result<Encoding, Error> {
        let truncation = Truncation {
            max_length: truncation.max_length.min(self.positions()),
            ..truncation
        };
        let mut windows = self
            .tokenizer
            .encode(input.text, input.pair, Some(truncation))?;
        Ok(windows.swap_remove(0))
    }

    /// Runs the network over all encodings, in batches of similar length, and hands each batch's outputs
    /// over with the indices of its encodings.
    pub(super) fn forward<E: Borrow<Encoding>>(
        &self,
        encodings: &[E],
        take: impl FnMut(&[usize], Outputs) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.device.attempt(|| self.batches(encodings, take))
    }

    fn batches<E: Borrow<Encoding>>(
        &self,
        encodings: &[E],
        mut take: impl FnMut(&[usize], Outputs) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let length = |index: usize| encodings[index].borrow().len();
        let mut order: Vec<usize> = (0..encodings.len()).collect();
        order.sort_by_key(|&index| length(index));
        let lengths: Vec<usize> = order.iter().map(|&index| length(index)).collect();
        for range in batches(&lengths, self.batch_tokens) {
            let batch = &order[range];
            let rows: Vec<&Encoding> = batch
                .iter()
                .map(|&index| encodings[index].borrow())
                .collect();
            let inputs = self.inputs(&rows);
            take(batch, self.device.forward(&*self.model, inputs)?)?;
        }
        Ok(())
    }

    /// Runs the network on rows of nothing, of a few lengths, and says how long that took.
    pub(super) fn warm_up(&self) -> Result<Duration, Error> {
        const LENGTHS: [usize; 3] = [8, 32, 128];
        let longest = self.max_length();
        warm_up(|| {
            let mut lengths = LENGTHS.into_iter();
            lengths.try_for_each(|length| {
                let length = length.min(longest);
                let ids = TensorData::new(vec![0_i64; length], [1, length]);
                let inputs = Inputs::new().with("input_ids", ids);
                self.device.attempt(|| {
                    let read = self.model.forward(inputs)?.try_into_data();
                    read.map_err(|error| self.device.failure(&error.to_string()))?;
                    Ok(())
                })
            })
        })
    }

    /// The rows as tensors, padded on the right.
    fn inputs(&self, rows: &[&Encoding]) -> Inputs {
        let longest = rows.iter().map(|row| row.len()).max().unwrap_or(0);
        let pad = i64::from(self.tokenizer.special().pad.unwrap_or(0));
        let table = |filler: i64, values: fn(&Encoding) -> &[u32]| {
            let mut table = vec![filler; rows.len() * longest];
            for (row, encoding) in table.chunks_mut(longest.max(1)).zip(rows) {
                for (cell, value) in row.iter_mut().zip(values(encoding)) {
                    *cell = i64::from(*value);
                }
            }
            TensorData::new(table, [rows.len(), longest])
        };
        let mut inputs = Inputs::new().with("input_ids", table(pad, Encoding::get_ids));
        if rows.iter().any(|row| row.len() < longest) {
            inputs = inputs.with("attention_mask", table(0, Encoding::get_attention_mask));
        }
        // All of segment 0 is what a network takes without being told.
        if rows
            .iter()
            .any(|row| row.get_type_ids().iter().any(|&id| id != 0))
        {
            inputs = inputs.with("token_type_ids", table(0, Encoding::get_type_ids));
        }
        inputs
    }
}

/// An output read back to the host: `rows` times `width` values.
pub(super) struct Rows {
    values: Vec<f32>,
    width: usize,
}

impl Rows {
    /// Takes the output `name` of a batch of `rows` sequences, which `device` computed.
    pub(super) fn take(
        outputs: &mut Outputs,
        name: &'static str,
        rows: usize,
        device: &Device,
    ) -> Result<Self, Error> {
        let data = outputs.remove(name).ok_or(Error::Output { name })?;
        let values: Vec<f32> = device.read(data)?.iter::<f32>().collect();
        let width = values.len() / rows.max(1);
        Ok(Self { values, width })
    }

    /// The values of one sequence.
    pub(super) fn row(&mut self, index: usize) -> &mut [f32] {
        &mut self.values[index * self.width..(index + 1) * self.width]
    }
}

/// Puts answers that came batch by batch back into the order of their inputs.
pub(super) struct Ordered<T>(Vec<Option<T>>);

impl<T> Ordered<T> {
    pub(super) fn new(count: usize) -> Self {
        Self((0..count).map(|_| None).collect())
    }

    pub(super) fn put(&mut self, index: usize, value: T) {
        self.0[index] = Some(value);
    }

    pub(super) fn finish(self) -> Vec<T> {
        self.0.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{BATCH_TOKENS, batches};

    /// Lengths as of sentences: most are short, some are long.
    fn mixed(count: usize) -> Vec<usize> {
        let mut state = 1_u64;
        let mut uniform = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let mut lengths: Vec<usize> = (0..count)
            .map(|_| {
                let normal: f64 = (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
                ((3.0 + 0.8 * normal).exp() as usize).clamp(3, 256)
            })
            .collect();
        lengths.sort_unstable();
        lengths
    }

    #[test]
    fn padding_of_mixed_lengths_is_at_most_a_twentieth() {
        for count in [256, 1000, 5000] {
            let lengths = mixed(count);
            let batches = batches(&lengths, BATCH_TOKENS);
            let padded = batches
                .iter()
                .map(|range| range.len() * lengths[range.end - 1]);
            let (padded, tokens) = (padded.sum::<usize>(), lengths.iter().sum::<usize>());
            let wasted = 1.0 - tokens as f64 / padded as f64;
            assert!(
                wasted <= 0.05,
                "{wasted} of the tokens of {count} are padding"
            );
            assert!(
                batches.len() * 4 < count,
                "{} runs for {count}",
                batches.len()
            );
        }
    }

    #[test]
    fn batches_hold_all_and_keep_to_their_size() {
        for lengths in [
            vec![],
            vec![0, 0, 7],
            vec![10_000],
            vec![1, 2, 3000, 3000],
            mixed(300),
        ] {
            let mut next = 0;
            for range in batches(&lengths, BATCH_TOKENS) {
                assert_eq!(range.start, next);
                assert!(range.end > next);
                next = range.end;
                let tokens = range.len() * lengths[range.end - 1];
                assert!(tokens <= BATCH_TOKENS || range.len() == 1);
            }
            assert_eq!(next, lengths.len());
        }
    }
}
