use std::path::PathBuf;

use salamander_models::processing::image::ImageError;
use salamander_models::processing::series::SeriesError;
use salamander_models::processing::text::TextError;
use salamander_models::{ConfigError, InputError, LoadError};

use crate::DeviceError;
use salamander_importers::{FormatError, KeyReport};

/// Anything that can go wrong between opening a model and its answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such model here.
    #[error("{model}: {reason}")]
    NotFound {
        /// What was asked for.
        model: String,
        /// Where it was looked for, and what to do.
        reason: String,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A JSON file cannot be parsed.
    #[error("{}: not valid JSON: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A TOML file cannot be parsed.
    #[error("{}: not valid TOML: {reason}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// The device does not take the weights, or they cannot be loaded for a reason of no other kind.
    #[error("{}: the weights cannot be loaded: {reason}", directory.display())]
    NotLoaded {
        /// The model's directory.
        directory: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// A configuration has a value that cannot be honoured.
    #[error("{}: {source}", directory.display())]
    Config {
        /// The model's directory.
        directory: PathBuf,
        /// The field and the reason.
        source: ConfigError,
    },
    /// The weights cannot be read.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The weights are not the model's.
    #[error(transparent)]
    Keys(#[from] Box<KeyReport>),
    /// The tokenizer's files are not valid.
    #[error("{}: {source}", directory.display())]
    Tokenizer {
        /// The model's directory.
        directory: PathBuf,
        /// The file and the reason.
        source: TextError,
    },
    /// The text cannot be encoded.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A picture cannot be read or prepared.
    #[error("{name}: {source}")]
    Image {
        /// The file, or which picture of a batch, counted from 0.
        name: String,
        /// What is wrong with it.
        source: ImageError,
    },
    /// A file is no table of series.
    #[error("{}: {source}", path.display())]
    Series {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: SeriesError,
    },
    /// The model cannot take an input.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The network gives no output that a task needs.
    #[error("the network has no output `{name}`, which this task needs")]
    Output {
        /// The output's name.
        name: &'static str,
    },
    /// An option of a task has a value that makes no sense.
    #[error("option `{name}`: {reason}")]
    Option {
        /// The option.
        name: &'static str,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
    /// A sound file cannot be read.
    #[error(transparent)]
    AudioFile(#[from] crate::AudioFileError),
    /// A waveform cannot be made into frames.
    #[error("{}: {source}", directory.display())]
    Audio {
        /// The model's directory.
        directory: PathBuf,
        /// What is wrong.
        source: salamander_models::processing::audio::AudioError,
    },
    /// The device cannot be had.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The model cannot be fetched.
    #[cfg(feature = "hub")]
    #[error(transparent)]
    Hub(#[from] salamander_hub::Error),
}

impl Error {
    /// Puts the model's directory to an error of its files.
    pub(crate) fn load(directory: &std::path::Path) -> impl FnOnce(LoadError) -> Error {
        let directory = directory.to_owned();
        move |error| match error {
            LoadError::Config(source) => Error::Config { directory, source },
            LoadError::Format(error) => Error::Format(error),
            LoadError::Keys(report) => Error::Keys(report),
            other => Error::NotLoaded {
                directory,
                reason: other.to_string(),
            },
        }
    }

    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    }

    pub(crate) fn config(directory: &std::path::Path) -> impl FnOnce(ConfigError) -> Error {
        let load = Self::load(directory);
        move |error| load(error.into())
    }
}
