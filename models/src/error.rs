use salamander_importers::{FormatError, KeyReport};

/// A value of `config.json`, or of another file of settings, that cannot be honoured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: `{field}`: {reason}")]
pub struct ConfigError {
    /// The file's name.
    pub file: &'static str,
    /// The field, dotted where it is nested.
    pub field: String,
    /// What is wrong with its value, and what would be right.
    pub reason: String,
}

impl ConfigError {
    /// A refusal of the field of `config.json`.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::within("config.json", field, reason)
    }

    /// A refusal of the field of another file.
    pub fn within(file: &'static str, field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            file,
            field: field.into(),
            reason: reason.into(),
        }
    }
}

/// A model that could not be built from its configuration and checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The configuration is not one that the zoo can honour.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The checkpoint's tensors are not the model's.
    #[error(transparent)]
    Keys(#[from] Box<KeyReport>),
    /// The device did not take the tensors.
    #[error("{0}")]
    Device(String),
    /// The weights cannot be loaded for another reason.
    #[error("{0}")]
    Other(String),
}

impl From<salamander_importers::LoadError> for LoadError {
    fn from(error: salamander_importers::LoadError) -> Self {
        match error {
            salamander_importers::LoadError::Format(error) => Self::Format(error),
            salamander_importers::LoadError::Keys(report) => Self::Keys(report),
            salamander_importers::LoadError::Device(reason) => Self::Device(reason),
            // The enum is open: what it may grow is still a failed load of this checkpoint.
            other => Self::Other(other.to_string()),
        }
    }
}

/// An input tensor that a model cannot take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("input `{name}`: {reason}")]
pub struct InputError {
    /// The input's name.
    pub name: String,
    /// What is wrong with it, and what would be right.
    pub reason: String,
}

impl InputError {
    /// A refusal of the input `name`.
    pub fn new(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            reason: reason.into(),
        }
    }
}
