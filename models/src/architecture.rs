use std::fmt;

use burn::tensor::Device;
use salamander_importers::{Checkpoint, FormatError, release};
use salamander_kernels::after_packing;
use serde_json::{Map, Value};

use crate::detect::Field;
use crate::processing::distribution::Family;
use crate::{
    ARCHITECTURES, ConfigError, InputError, Inputs, LoadError, Outputs, Preset, PretrainedConfig,
};

/// What an application wants of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Task {
    /// A text's classes.
    TextClassification,
    /// The classes of spans of a text.
    TokenClassification,
    /// The words for a `[MASK]`.
    FillMask,
    /// The span of a context that answers a question.
    QuestionAnswering,
    /// A text's vector.
    TextEmbedding,
    /// A picture's classes.
    ImageClassification,
    /// A picture's vector.
    ImageEmbedding,
    /// How series go on.
    Forecast,
    /// What is said in a recording.
    SpeechRecognition,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Task::TextClassification => "text-classification",
            Task::TokenClassification => "token-classification",
            Task::FillMask => "fill-mask",
            Task::QuestionAnswering => "question-answering",
            Task::TextEmbedding => "text-embedding",
            Task::ImageClassification => "image-classification",
            Task::ImageEmbedding => "image-embedding",
            Task::Forecast => "forecast",
            Task::SpeechRecognition => "speech-recognition",
        })
    }
}

/// A class of the reference implementation: a trunk with or without a head.
#[derive(Debug, Clone, Copy)]
pub struct Class {
    /// The name as it stands in `config.json`'s `architectures`.
    pub name: &'static str,
    /// The task that the class serves, if the engine has one for it.
    pub task: Option<Task>,
}

impl Class {
    /// The class `name`, which serves `task`.
    pub const fn new(name: &'static str, task: Option<Task>) -> Self {
        Self { name, task }
    }
}

/// An entry of the zoo.
#[derive(Debug, Clone, Copy)]
pub struct Architecture {
    /// The name, which is also the folder's.
    pub name: &'static str,
    /// The paper.
    pub paper: &'static str,
    /// The values of `config.json`'s `model_type` that mean this architecture.
    pub model_types: &'static [&'static str],
    /// The reference classes it answers for; the first is the trunk.
    pub classes: &'static [Class],
    /// Builds one of its classes.
    pub load: Load,
    /// Says what a checkpoint shows, if its names are this architecture's.
    pub detect: Detect,
    /// The models that other libraries know by name, whose checkpoints come without a configuration.
    pub presets: fn() -> Vec<Preset>,
}

/// Reads a dialect and the fields of a configuration from the names and shapes of a checkpoint's tensors. What
/// is given already may help to find the rest.
pub type Detect = fn(&Checkpoint, &Map<String, Value>) -> Option<(&'static str, Vec<Field>)>;

/// Builds and fills the class of that name from a parsed `config.json` and a checkpoint.
pub type Load = fn(&Value, &str, &Checkpoint, &Device) -> Result<Box<dyn Model>, LoadError>;

/// A loaded network behind the names of its reference class.
pub trait Model: fmt::Debug + Send + Sync {
    /// Runs the network.
    ///
    /// # Errors
    /// An input is missing, unknown, of the wrong shape or type, or indexes beyond a table.
    fn forward(&self, inputs: Inputs) -> Result<Outputs, InputError>;

    /// Runs the trunk and gives what stands between its parts, in order and by name, so that a difference
    /// from the reference names the part: `embeddings`, `layer.0`, …
    ///
    /// # Errors
    /// As [`Model::forward`].
    fn intermediates(&self, inputs: Inputs) -> Result<Vec<(String, crate::Value)>, InputError>;

    /// The longest sequence it can take, in tokens, if it takes sequences.
    fn max_length(&self) -> Option<usize> {
        None
    }

    /// What it forecasts, if it forecasts series.
    fn forecasts(&self) -> Option<Forecasts> {
        None
    }
}

/// What a model that forecasts series takes and gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forecasts {
    /// The number of past steps that it takes.
    pub context: usize,
    /// The number of steps that it forecasts at once.
    pub horizon: usize,
    /// The number of series that it takes, if that is fixed.
    pub channels: Option<usize>,
    /// The distribution whose parameters it gives for each value; without one it gives the value.
    pub family: Option<Family>,
    /// Whether the input `past_observed_mask` says which values are missing: they are left out of the
    /// scaling, but the network sees what stands for them.
    pub missing: bool,
    /// Whether adding a number to a window adds it to the forecast, and nothing else; counts are forecast
    /// as if nothing had been added.
    pub centres: bool,
}

/// The architecture that a configuration names by its `model_type`, or by a class in `architectures`.
///
/// # Errors
/// It names none, or one that the zoo does not have.
pub fn find(config: &PretrainedConfig) -> Result<&'static Architecture, ConfigError> {
    let known = || {
        let names: Vec<&str> = ARCHITECTURES
            .iter()
            .flat_map(|a| a.model_types)
            .copied()
            .collect();
        names.join(", ")
    };
    if let Some(model_type) = &config.model_type {
        return ARCHITECTURES
            .iter()
            .find(|architecture| architecture.model_types.contains(&&model_type[..]))
            .ok_or_else(|| {
                let reason = format!("\"{model_type}\" is not in the zoo; known are {}", known());
                ConfigError::new("model_type", reason)
            });
    }
    let has = |architecture: &Architecture| {
        let mut classes = architecture.classes.iter();
        classes.any(|class| config.architectures.iter().any(|name| name == class.name))
    };
    ARCHITECTURES
        .iter()
        .find(|architecture| has(architecture))
        .ok_or_else(|| ConfigError::new("model_type", format!("is missing; known are {}", known())))
}

/// Builds and fills the class that serves `task`: the one that `architectures` names if that does, else
/// the architecture's own.
///
/// # Errors
/// The configuration cannot be honoured, the architecture has no head for the task, or the checkpoint
/// does not hold what the class needs.
pub fn open(
    config: &Value,
    task: Task,
    checkpoint: &Checkpoint,
    device: &Device,
) -> Result<Box<dyn Model>, LoadError> {
    after_packing(release);
    let common = PretrainedConfig::parse(config)?;
    let architecture = find(&common)?;
    let serving = || {
        architecture
            .classes
            .iter()
            .filter(|class| class.task == Some(task))
    };
    let named = serving().find(|class| common.architectures.iter().any(|name| name == class.name));
    let class = named.or(serving().next()).ok_or_else(|| {
        let reason = format!("{} has no head for {task}", architecture.name);
        ConfigError::new("model_type", reason)
    })?;
    let checkpoint = &prepared(architecture, config, checkpoint)?;
    let loaded = (architecture.load)(config, class.name, checkpoint, device);
    let tasks = |instead: Vec<&Class>| {
        let tasks = instead.into_iter().filter_map(|class| class.task);
        let mut tasks: Vec<String> = tasks.map(|task| task.to_string()).collect();
        tasks.dedup();
        tasks
    };
    let loaded = loaded
        .map_err(|error| with_instead(error, architecture, config, checkpoint, device, tasks));
    loaded.map_err(|error| explained(error, &common, checkpoint))
}

/// An error that blames the classifier's weights for what the configuration says of classes blames that instead.
fn explained(error: LoadError, common: &PretrainedConfig, checkpoint: &Checkpoint) -> LoadError {
    let explanation = match &error {
        LoadError::Keys(report) => common.explain(report, checkpoint),
        _ => None,
    };
    explanation.map_or(error, LoadError::Config)
}

/// A checkpoint under PyTorch's names, and from under what stands before them.
fn prepared(
    architecture: &Architecture,
    config: &Value,
    checkpoint: &Checkpoint,
) -> Result<Checkpoint, LoadError> {
    checkpoint.refuse_parts()?;
    Ok(within(
        architecture,
        config,
        &checkpoint.clone().in_pytorch_layout(),
    )?)
}

/// The checkpoint from under the prefix that this architecture's names stand under, as a trainer's attribute.
///
/// # Errors
/// There are several.
pub(crate) fn within(
    architecture: &Architecture,
    config: &Value,
    checkpoint: &Checkpoint,
) -> Result<Checkpoint, FormatError> {
    let empty = Map::new();
    let fields = config.as_object().unwrap_or(&empty);
    checkpoint.seen_through(0.0, |seen| (architecture.detect)(seen, fields).is_some())
}

/// The checkpoint from under the prefix that the names of the configuration's architecture stand under, if they stand
/// under one; else unchanged.
///
/// # Errors
/// There are several.
pub fn seen_through(config: &Value, checkpoint: &Checkpoint) -> Result<Checkpoint, FormatError> {
    let found = PretrainedConfig::parse(config).and_then(|common| find(&common));
    match found {
        Ok(architecture) => within(architecture, config, checkpoint),
        Err(_) => Ok(checkpoint.clone()),
    }
}

/// The error, with what else the checkpoint can be opened as where it lacks tensors of this class.
fn with_instead(
    error: LoadError,
    architecture: &Architecture,
    config: &Value,
    checkpoint: &Checkpoint,
    device: &Device,
    say: impl Fn(Vec<&'static Class>) -> Vec<String>,
) -> LoadError {
    let LoadError::Keys(mut report) = error else {
        return error;
    };
    if !report.missing.is_empty() {
        let fits = |class: &&Class| {
            let (traced, trace) = checkpoint.traced();
            let loaded = (architecture.load)(config, class.name, &traced, device);
            loaded.is_err() && !trace.placements().is_empty()
        };
        report.instead = say(architecture.classes.iter().filter(fits).collect());
    }
    LoadError::Keys(report)
}

/// Builds and fills a class by its name, or by default the one that `architectures` names first, or the
/// trunk where it names none. Gives the class's name too.
///
/// # Errors
/// The configuration cannot be honoured, the architecture has no such class, or the checkpoint does not
/// hold what the class needs.
pub fn open_class(
    config: &Value,
    class: Option<&str>,
    checkpoint: &Checkpoint,
    device: &Device,
) -> Result<(&'static str, Box<dyn Model>), LoadError> {
    after_packing(release);
    let mut common = PretrainedConfig::parse(config)?;
    if common.model_type.is_none() {
        // Without a configuration the class says which architecture is meant.
        common.architectures.extend(class.map(str::to_owned));
    }
    let architecture = find(&common)?;
    let name = class.or(common.architectures.first().map(|name| &name[..]));
    let class = match name {
        None => &architecture.classes[0],
        Some(name) => {
            let mut classes = architecture.classes.iter();
            classes.find(|class| class.name == name).ok_or_else(|| {
                let known: Vec<&str> = architecture.classes.iter().map(|c| c.name).collect();
                let reason = format!("\"{name}\" is not one of {}", known.join(", "));
                ConfigError::new("architectures", reason)
            })?
        }
    };
    let checkpoint = prepared(architecture, config, checkpoint)?;
    let model = (architecture.load)(config, class.name, &checkpoint, device);
    let classes = |instead: Vec<&Class>| {
        let names = instead.into_iter().map(|class| class.name.to_owned());
        names.collect()
    };
    let model = model
        .map_err(|error| with_instead(error, architecture, config, &checkpoint, device, classes))
        .map_err(|error| explained(error, &common, &checkpoint))?;
    Ok((class.name, model))
}
