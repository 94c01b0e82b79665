//! `salamander run TASK`.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use salamander::Device;
use salamander::tasks::{
    Aggregation, Answer, ClassificationFunction, Entity, Fill, FillMask, FillMaskOptions,
    ImageClassification, ImageClassificationOptions, ImageEmbedding, ImageEmbeddingOptions, Label,
    Prompt, QuestionAnswering, QuestionAnsweringOptions, TextClassification,
    TextClassificationOptions, TextEmbedding, TextEmbeddingOptions, TextInput, TokenClassification,
    TokenClassificationOptions,
};
use serde::Serialize;

use crate::input::{Answered, Input, run_good};
use crate::output::{excerpt, json_line, remark, table};
use crate::{DeviceArgument, Failure};

#[derive(Subcommand)]
pub(crate) enum Run {
    /// Say which classes a text belongs to
    #[command(visible_alias = "sentiment-analysis")]
    TextClassification(Classify),
    /// Find the names, places and other spans of a text
    #[command(visible_alias = "ner")]
    TokenClassification(Tag),
    /// Find the words for the masks of a text
    FillMask(Mask),
    /// Find the span of a context that answers a question; a line is a question, a tab and its context
    QuestionAnswering(Ask),
    /// Make a vector of a text
    #[command(visible_alias = "feature-extraction")]
    TextEmbedding(Embed),
    /// Say what a picture shows; each text is the path of a PNG, JPEG, WebP, GIF, BMP or TIFF file
    ImageClassification(Recognize),
    /// Make a vector of a picture; each text is the path of a file
    #[command(visible_alias = "image-feature-extraction")]
    ImageEmbedding(EmbedImage),
    /// Say how the time series of a CSV file go on
    Forecast(crate::forecast::Forecast),
    /// Write what is said in sound files
    #[command(visible_alias = "transcribe")]
    SpeechRecognition(crate::speech::Transcribe),
}

/// What every task takes.
#[derive(Args)]
struct Common {
    /// A model directory, or a hub id `owner/name[@revision]`
    #[arg(long, value_name = "DIR|ID")]
    model: PathBuf,
    #[command(flatten)]
    device: DeviceArgument,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    input: Input,
}

impl Run {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self {
            Run::TextClassification(task) => task.run(),
            Run::TokenClassification(task) => task.run(),
            Run::FillMask(task) => task.run(),
            Run::QuestionAnswering(task) => task.run(),
            Run::TextEmbedding(task) => task.run(),
            Run::ImageClassification(task) => task.run(),
            Run::ImageEmbedding(task) => task.run(),
            Run::Forecast(task) => task.run(),
            Run::SpeechRecognition(task) => task.run(),
        }
    }
}

impl Common {
    fn open(&self) -> Result<Device, Failure> {
        let device = self.device.open()?;
        remark(&format!("{} on {device}", self.model.display()));
        Ok(device)
    }

    /// Answers block by block, as objects or as rows.
    fn answer<A, J: Serialize>(
        self,
        run: impl FnMut(&[String]) -> Result<Vec<Answered<A>>, Failure>,
        object: impl Fn(A) -> J,
        rows_of: impl Fn(&str, A) -> Vec<Vec<String>>,
    ) -> Result<(), Failure> {
        let json = self.json;
        let print = |out: &mut dyn Write, texts: &[String], answers: Vec<A>| {
            if json {
                for answer in answers {
                    json_line(out, &object(answer))?;
                }
            } else {
                let rows = texts.iter().zip(answers);
                let rows = rows.flat_map(|(text, answer)| rows_of(text, answer));
                table(out, &rows.collect::<Vec<_>>())?;
            }
            Ok(())
        };
        self.input.for_each_block(json, run, print)
    }
}

/// The answers of a task, whose bad inputs end nothing.
fn each<A>(answers: Vec<Result<A, salamander::Error>>) -> Result<Vec<Answered<A>>, Failure> {
    let answers = answers.into_iter();
    Ok(answers
        .map(|answer| answer.map_err(Failure::from))
        .collect())
}

/// A line as a text, or as a pair split at the tab.
fn pair<'a>(line: &'a str, what: &str) -> Result<(&'a str, &'a str), Failure> {
    line.split_once('\t')
        .ok_or_else(|| format!("\"{}\" has no tab between {what}", excerpt(line)).into())
}

/// A line as a pair of texts, neither of which has a tab.
fn two_texts(line: &str) -> Result<(&str, &str), Failure> {
    match line.matches('\t').count() {
        0 | 1 => pair(line, "its two texts"),
        tabs => {
            let parts = tabs + 1;
            Err(format!(
                "\"{}\" has {parts} parts between tabs; a pair has two",
                excerpt(line)
            )
            .into())
        }
    }
}

#[derive(Args)]
pub(crate) struct Classify {
    #[command(flatten)]
    common: Common,
    /// How many classes to show at most; 0 for all
    #[arg(long, default_value_t = 1)]
    top_k: usize,
    /// How logits become scores; by default what the model was trained with
    #[arg(long, value_enum)]
    function: Option<Function>,
    /// Cut texts to this many tokens; by default to what the network takes
    #[arg(long, value_name = "TOKENS")]
    max_length: Option<usize>,
    /// Each text is a pair, with a tab between the two
    #[arg(long)]
    pairs: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Function {
    Softmax,
    Sigmoid,
    None,
}

impl Function {
    fn of_task(self) -> ClassificationFunction {
        match self {
            Function::Softmax => ClassificationFunction::Softmax,
            Function::Sigmoid => ClassificationFunction::Sigmoid,
            Function::None => ClassificationFunction::None,
        }
    }
}

#[derive(Serialize)]
struct Classified {
    #[serde(flatten)]
    best: Option<Label>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    labels: Vec<Label>,
}

impl Classify {
    fn run(self) -> Result<(), Failure> {
        let device = self.common.open()?;
        let options = TextClassificationOptions {
            top_k: (self.top_k > 0).then_some(self.top_k),
            function: self.function.map(Function::of_task),
            max_length: self.max_length,
            truncation: None,
        };
        let task = TextClassification::open(&self.common.model, &device)?.with_options(options);
        let (pairs, several) = (self.pairs, self.top_k != 1);
        self.common.answer(
            |texts| {
                let prepare = |text| match pairs {
                    true => Ok(TextInput::from(two_texts(text)?)),
                    false => Ok(TextInput::from(text)),
                };
                run_good(texts, prepare, |inputs| Ok(task.run_batch(inputs)?))
            },
            |labels| Classified {
                best: labels.first().cloned(),
                labels: if several { labels } else { Vec::new() },
            },
            label_rows,
        )
    }
}

/// A row a class, the first with what was classified.
fn label_rows(text: &str, labels: Vec<Label>) -> Vec<Vec<String>> {
    let rows = labels.into_iter().enumerate().map(|(index, label)| {
        let text = if index == 0 {
            excerpt(text)
        } else {
            String::new()
        };
        vec![label.name, format!("{:.4}", label.score), text]
    });
    rows.collect()
}

#[derive(Args)]
pub(crate) struct Tag {
    #[command(flatten)]
    common: Common,
    /// How tokens become entities
    #[arg(long, value_enum, default_value = "simple")]
    aggregation_strategy: Strategy,
    /// A label to leave out; may be given several times
    #[arg(long, value_name = "LABEL", default_value = "O")]
    ignore_label: Vec<String>,
    /// Read long texts in windows that share this many tokens, instead of cutting them
    #[arg(long, value_name = "TOKENS")]
    stride: Option<usize>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Strategy {
    None,
    Simple,
    First,
    Average,
    Max,
}

#[derive(Serialize)]
struct Tagged {
    entities: Vec<Entity>,
}

impl Tag {
    fn run(self) -> Result<(), Failure> {
        let device = self.common.open()?;
        let options = TokenClassificationOptions {
            aggregation: match self.aggregation_strategy {
                Strategy::None => Aggregation::None,
                Strategy::Simple => Aggregation::Simple,
                Strategy::First => Aggregation::First,
                Strategy::Average => Aggregation::Average,
                Strategy::Max => Aggregation::Max,
            },
            ignore_labels: self.ignore_label,
            stride: self.stride,
        };
        let task = TokenClassification::open(&self.common.model, &device)?.with_options(options)?;
        self.common.answer(
            |texts| run_good(texts, Ok, |texts| Ok(task.run_batch(&texts)?)),
            |entities| Tagged { entities },
            |text, entities| {
                let mut rows = vec![vec![excerpt(text)]];
                rows.extend(entities.into_iter().map(|entity| {
                    let place = format!("{}..{}", entity.start, entity.end);
                    let score = format!("{:.4}", entity.score);
                    vec![format!("  {}", entity.label), score, place, entity.word]
                }));
                rows
            },
        )
    }
}

#[derive(Args)]
pub(crate) struct Mask {
    #[command(flatten)]
    common: Common,
    /// How many words to show at most for each mask
    #[arg(long, default_value_t = 5)]
    top_k: usize,
    /// A word to choose from; may be given several times
    #[arg(long, value_name = "WORD")]
    target: Vec<String>,
}

#[derive(Serialize)]
struct Filled {
    masks: Vec<Vec<Fill>>,
}

impl Mask {
    fn run(self) -> Result<(), Failure> {
        let device = self.common.open()?;
        let options = FillMaskOptions {
            top_k: self.top_k,
            targets: self.target,
            ..FillMaskOptions::default()
        };
        let task = FillMask::open(&self.common.model, &device)?.with_options(options)?;
        self.common.answer(
            |texts| run_good(texts, Ok, |texts| Ok(task.run_batch(&texts)?)),
            |masks| Filled { masks },
            |_, masks| {
                let fills = masks.into_iter().flatten();
                let row = |fill: Fill| {
                    vec![
                        fill.token_str,
                        format!("{:.4}", fill.score),
                        excerpt(&fill.sequence),
                    ]
                };
                fills.map(row).collect()
            },
        )
    }
}

#[derive(Args)]
pub(crate) struct Ask {
    #[command(flatten)]
    common: Common,
    /// How many answers to show at most
    #[arg(long, default_value_t = 1)]
    top_k: usize,
    /// The most tokens of an answer
    #[arg(long, value_name = "TOKENS", default_value_t = 15)]
    max_answer_len: usize,
    /// The most tokens of a window of the context; by default what the tokenizer allows, at most 384
    #[arg(long, value_name = "TOKENS")]
    max_seq_len: Option<usize>,
    /// How many tokens neighbouring windows share; by default half a window, at most 128
    #[arg(long, value_name = "TOKENS")]
    doc_stride: Option<usize>,
    /// Allow the empty answer
    #[arg(long)]
    handle_impossible_answer: bool,
    /// Do not widen answers to whole words
    #[arg(long)]
    no_align_to_words: bool,
}

#[derive(Serialize)]
struct Found {
    #[serde(flatten)]
    best: Option<Answer>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    answers: Vec<Answer>,
}

impl Ask {
    fn run(self) -> Result<(), Failure> {
        let device = self.common.open()?;
        let options = QuestionAnsweringOptions {
            top_k: self.top_k,
            max_answer_len: self.max_answer_len,
            max_seq_len: self.max_seq_len,
            doc_stride: self.doc_stride,
            handle_impossible_answer: self.handle_impossible_answer,
            align_to_words: !self.no_align_to_words,
        };
        let task = QuestionAnswering::open(&self.common.model, &device)?.with_options(options)?;
        let several = self.top_k != 1;
        self.common.answer(
            |lines| {
                let prepare = |line| pair(line, "the question and its context");
                run_good(lines, prepare, |inputs| Ok(task.run_batch(&inputs)?))
            },
            |answers| Found {
                best: answers.first().cloned(),
                answers: if several { answers } else { Vec::new() },
            },
            |_, answers| {
                let row = |answer: Answer| {
                    let place = format!("{}..{}", answer.start, answer.end);
                    vec![format!("{:.4}", answer.score), place, answer.text]
                };
                answers.into_iter().map(row).collect()
            },
        )
    }
}

#[derive(Args)]
pub(crate) struct Embed {
    #[command(flatten)]
    common: Common,
    /// One of the model's prompts, by name, to put before every text
    #[arg(long, value_name = "NAME", conflicts_with = "prompt")]
    prompt_name: Option<String>,
    /// A text to put before every text
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Scale vectors to length 1 even if the model does not say so
    #[arg(long)]
    normalize: bool,
    /// Keep so many values of a vector; by default as many as the model says
    #[arg(long, value_name = "COUNT")]
    truncate_dim: Option<usize>,
}

#[derive(Serialize)]
struct Embedded {
    embedding: Vec<f32>,
}

impl Embed {
    fn run(self) -> Result<(), Failure> {
        let device = self.common.open()?;
        let options = TextEmbeddingOptions {
            prompt: match (self.prompt, self.prompt_name) {
                (Some(text), _) => Prompt::Text(text),
                (None, Some(name)) => Prompt::Named(name),
                (None, None) => Prompt::Default,
            },
            normalize: self.normalize,
            truncate_dim: self.truncate_dim,
        };
        let task = TextEmbedding::open(&self.common.model, &device)?.with_options(options)?;
        self.common.answer(
            |texts| run_good(texts, Ok, |texts| Ok(task.run_batch(&texts)?)),
            |embedding| Embedded { embedding },
            vector_rows,
        )
    }
}

/// One row: how long the vector is, how it begins, and what it is of.
fn vector_rows(text: &str, vector: Vec<f32>) -> Vec<Vec<String>> {
    let shown = vector.iter().take(4).map(|value| format!("{value:+.4}"));
    let shown: Vec<String> = shown.collect();
    let size = format!("{} values", vector.len());
    vec![vec![size, format!("{} …", shown.join(" ")), excerpt(text)]]
}

/// What every image task takes beside [`Common`].
#[derive(Args)]
struct Preset {
    /// For weights without a config.json, the model's name in another library: torchvision/resnet50,
    /// timm/vit_base_patch16_224, cifar/resnet20, …
    #[arg(long, value_name = "NAME")]
    architecture: Option<String>,
}

#[derive(Args)]
pub(crate) struct Recognize {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    preset: Preset,
    /// How many classes to show at most; 0 for all
    #[arg(long, default_value_t = 5)]
    top_k: usize,
    /// How logits become scores; by default what the model was trained with
    #[arg(long, value_enum)]
    function: Option<Function>,
}

impl Recognize {
    fn run(self) -> Result<(), Failure> {
        let device = self.common.open()?;
        let options = ImageClassificationOptions {
            top_k: (self.top_k > 0).then_some(self.top_k),
            function: self.function.map(Function::of_task),
        };
        let model = &self.common.model;
        let task = match &self.preset.architecture {
            Some(name) => ImageClassification::open_as(model, name, &device)?,
            None => ImageClassification::open(model, &device)?,
        };
        let task = task.with_options(options);
        let several = self.top_k != 1;
        self.common.answer(
            |paths| each(task.run_each(paths)?),
            |labels| Classified {
                best: labels.first().cloned(),
                labels: if several { labels } else { Vec::new() },
            },
            label_rows,
        )
    }
}

#[derive(Args)]
pub(crate) struct EmbedImage {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    preset: Preset,
    /// Scale vectors to length 1
    #[arg(long)]
    normalize: bool,
}

impl EmbedImage {
    fn run(self) -> Result<(), Failure> {
        let device = self.common.open()?;
        let options = ImageEmbeddingOptions {
            normalize: self.normalize,
        };
        let model = &self.common.model;
        let task = match &self.preset.architecture {
            Some(name) => ImageEmbedding::open_as(model, name, &device)?,
            None => ImageEmbedding::open(model, &device)?,
        };
        let task = task.with_options(options);
        self.common.answer(
            |paths| each(task.run_each(paths)?),
            |embedding| Embedded { embedding },
            vector_rows,
        )
    }
}
