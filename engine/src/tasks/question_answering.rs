use std::path::Path;
use std::time::Duration;

use salamander_models::Task;
use salamander_models::processing::text::{Encoding, Truncation, TruncationStrategy};
use serde::Serialize;

use super::batch::{Ordered, Rows, TextModel};
use super::scores::{softmax, top};
use crate::{Device, Error};

/// Options of [`QuestionAnswering`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuestionAnsweringOptions {
    /// How many answers there are at most.
    pub top_k: usize,
    /// The most tokens of an answer.
    pub max_answer_len: usize,
    /// The most tokens of a window; by default what the tokenizer allows, at most 384.
    pub max_seq_len: Option<usize>,
    /// How many tokens neighbouring windows share; by default half a window, at most 128.
    pub doc_stride: Option<usize>,
    /// Whether "there is no answer" is an answer, which is then empty.
    pub handle_impossible_answer: bool,
    /// Whether an answer is widened to whole words.
    pub align_to_words: bool,
}

impl Default for QuestionAnsweringOptions {
    fn default() -> Self {
        Self {
            top_k: 1,
            max_answer_len: 15,
            max_seq_len: None,
            doc_stride: None,
            handle_impossible_answer: false,
            align_to_words: true,
        }
    }
}

/// A span of the context.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// The product of the probabilities that it begins and ends there.
    pub score: f32,
    /// The first character in the context.
    pub start: usize,
    /// The character after the last.
    pub end: usize,
    /// The text; empty for "there is no answer".
    #[serde(rename = "answer")]
    pub text: String,
}

/// Finds the span of a text that answers a question; long texts are read in overlapping windows.
///
/// Reference: `QuestionAnsweringPipeline` of transformers 4.46, the version before equal answers were
/// merged by adding their scores; 5.x has no such pipeline.
#[derive(Debug, Clone)]
pub struct QuestionAnswering {
    model: TextModel,
    options: QuestionAnsweringOptions,
}

/// A candidate of one window.
#[derive(Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
    score: f32,
}

impl QuestionAnswering {
    /// Opens a model directory, or a hub id.
    ///
    /// # Errors
    /// The model cannot be found, read or honoured, or does not answer questions.
    pub fn open(model: impl AsRef<Path>, device: &Device) -> Result<Self, Error> {
        let (model, _) = TextModel::open(model.as_ref(), Task::QuestionAnswering, device)?;
        Ok(Self {
            model,
            options: QuestionAnsweringOptions::default(),
        })
    }

    /// The same model with other options.
    ///
    /// # Errors
    /// A window would be longer than the model takes, or not longer than what it shares.
    pub fn with_options(mut self, options: QuestionAnsweringOptions) -> Result<Self, Error> {
        if let Some(length) = options
            .max_seq_len
            .filter(|&length| length > self.model.positions())
        {
            return Err(Error::Option {
                name: "max_seq_len",
                reason: format!(
                    "{length} is more than the {} of the model",
                    self.model.positions()
                ),
            });
        }
        self.options = options;
        let Truncation {
            max_length,
            windows,
            ..
        } = self.truncation();
        if windows.is_some_and(|stride| stride >= max_length) {
            return Err(Error::Option {
                name: "doc_stride",
                reason: format!("is not below the {max_length} tokens of a window"),
            });
        }
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

    /// Answers a question from a context; the best answer comes first.
    ///
    /// # Errors
    /// The question leaves no room for the context.
    pub fn run(&self, question: &str, context: &str) -> Result<Vec<Answer>, Error> {
        Ok(self.run_batch(&[(question, context)])?.swap_remove(0))
    }

    /// Answers many questions, each from its context; the answers come in their order.
    ///
    /// # Errors
    /// A question leaves no room for its context.
    pub fn run_batch<Q, C>(&self, inputs: &[(Q, C)]) -> Result<Vec<Vec<Answer>>, Error>
    where
        Q: AsRef<str>,
        C: AsRef<str>,
    {
        let truncation = self.truncation();
        let encoded = inputs.iter().map(|(question, context)| {
            let tokenizer = &self.model.tokenizer;
            tokenizer.encode(question.as_ref(), Some(context.as_ref()), Some(truncation))
        });
        let windows: Vec<Vec<Encoding>> = encoded.collect::<Result<_, _>>()?;
        let flat: Vec<&Encoding> = windows.iter().flatten().collect();
        let mut found = Ordered::new(flat.len());
        self.model.forward(&flat, |batch, mut outputs| {
            let mut starts = Rows::take(&mut outputs, "start_logits", batch.len(), self.device())?;
            let mut ends = Rows::take(&mut outputs, "end_logits", batch.len(), self.device())?;
            for (row, &index) in batch.iter().enumerate() {
                let length = flat[index].len();
                let (starts, ends) = (&mut starts.row(row)[..length], &mut ends.row(row)[..length]);
                found.put(index, self.spans(flat[index], starts, ends));
            }
            Ok(())
        })?;
        let mut found = found.finish().into_iter();
        let answers = inputs.iter().zip(&windows).map(|((_, context), windows)| {
            let spans: Vec<_> = windows.iter().zip(found.by_ref()).collect();
            self.answers(context.as_ref(), spans)
        });
        Ok(answers.collect())
    }

    fn truncation(&self) -> Truncation {
        let default = self.model.max_length().min(384);
        let max_length = self.options.max_seq_len.unwrap_or(default);
        let stride = self.options.doc_stride.unwrap_or((max_length / 2).min(128));
        Truncation {
            max_length,
            strategy: TruncationStrategy::OnlySecond,
            windows: Some(stride),
        }
    }

    /// The best spans of one window, and the score of "there is no answer".
    fn spans(&self, window: &Encoding, starts: &mut [f32], ends: &mut [f32]) -> (Vec<Span>, f32) {
        /// What the reference puts where no answer can be, before the softmax.
        const IMPOSSIBLE: f32 = -10000.0;
        let cls = self.model.tokenizer.special().cls;
        let sequences = window.get_sequence_ids();
        let allowed = |at: usize| sequences[at] == Some(1) || Some(window.get_ids()[at]) == cls;
        for at in (0..window.len()).filter(|&at| !allowed(at)) {
            starts[at] = IMPOSSIBLE;
            ends[at] = IMPOSSIBLE;
        }
        softmax(starts);
        softmax(ends);
        let null = starts[0] * ends[0];
        starts[0] = 0.0;
        ends[0] = 0.0;

        let mut spans = Vec::new();
        for (start, &begins) in starts.iter().enumerate() {
            let reach = (start + self.options.max_answer_len).min(ends.len());
            for (end, &stops) in ends.iter().enumerate().take(reach).skip(start) {
                let score = begins * stops;
                spans.push(Span { start, end, score });
            }
        }
        let scores: Vec<f32> = spans.iter().map(|span| span.score).collect();
        let best = top(&scores, self.options.top_k)
            .into_iter()
            .map(|index| spans[index]);
        (
            best.filter(|span| allowed(span.start) && allowed(span.end))
                .collect(),
            null,
        )
    }

    /// The best answers of all windows.
    fn answers(&self, context: &str, windows: Vec<(&Encoding, (Vec<Span>, f32))>) -> Vec<Answer> {
        let characters: Vec<char> = context.chars().collect();
        let mut answers = Vec::new();
        let mut lowest_null = f32::INFINITY;
        for (window, (spans, null)) in windows {
            lowest_null = lowest_null.min(null);
            for span in spans {
                let (start, end) = self.characters(window, span);
                let slice = characters.get(start..end).unwrap_or_default();
                answers.push(Answer {
                    score: span.score,
                    start,
                    end,
                    text: slice.iter().collect(),
                });
            }
        }
        if self.options.handle_impossible_answer {
            answers.push(Answer {
                score: lowest_null,
                start: 0,
                end: 0,
                text: String::new(),
            });
        }
        answers.sort_by(|a, b| b.score.total_cmp(&a.score));
        answers.truncate(self.options.top_k);
        answers
    }

    /// The characters of a span, of whole words if that is asked for and the tokenizer knows words.
    fn characters(&self, window: &Encoding, span: Span) -> (usize, usize) {
        let word = |token| {
            let (_, word) = window.token_to_word(token)?;
            window.word_to_chars(word, 1)
        };
        if self.options.align_to_words
            && let (Some((start, _)), Some((_, end))) = (word(span.start), word(span.end))
        {
            return (start, end);
        }
        let offsets = window.get_offsets();
        (offsets[span.start].0, offsets[span.end].1)
    }
}
