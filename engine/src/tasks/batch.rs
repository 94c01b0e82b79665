//! What every text task shares: a tokenizer, a network, and batches of similar length.

use std::borrow::Borrow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use burn::tensor::TensorData;
use salamander_models::processing::text::{Encoding, TextTokenizer, Truncation};
use salamander_models::{Inputs, Model, Outputs, PretrainedConfig, Task, open};

use crate::clock::Instant;
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
        let checkpoint = directory.checkpoint()?;
        let config = directory.config_for(&checkpoint)?;
        let common = directory.common_config(&config)?;
        let tokenizer = directory.tokenizer()?;
        let model = device.load(directory.path(), || {
            open(&config, task, &checkpoint, device.burn())
        })?;
        let text_model = Self {
            model: model.into(),
            tokenizer: Arc::new(tokenizer),
            device: device.clone(),
            batch_tokens: BATCH_TOKENS,
        };
        Ok((text_model, common))
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
        let mut rest = &order[..];
        while !rest.is_empty() {
            // Ascending lengths: the last of a batch is its longest.
            let count = (1..rest.len())
                .find(|&count| (count + 1) * length(rest[count]) > self.batch_tokens)
                .unwrap_or(rest.len());
            let (batch, later) = rest.split_at(count);
            let rows: Vec<&Encoding> = batch
                .iter()
                .map(|&index| encodings[index].borrow())
                .collect();
            take(batch, self.model.forward(self.inputs(&rows))?)?;
            rest = later;
        }
        Ok(())
    }

    /// Runs the network on rows of nothing, of a few lengths, and says how long that took.
    pub(super) fn warm_up(&self) -> Result<Duration, Error> {
        const LENGTHS: [usize; 3] = [8, 32, 128];
        let begin = Instant::now();
        let longest = self.max_length();
        for length in LENGTHS.map(|length| length.min(longest)) {
            let ids = TensorData::new(vec![0_i64; length], [1, length]);
            let inputs = Inputs::new().with("input_ids", ids);
            self.device.attempt(|| {
                let read = self.model.forward(inputs)?.try_into_data();
                read.map_err(|error| self.device.failure(&error.to_string()))?;
                Ok(())
            })?;
        }
        Ok(begin.elapsed())
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
