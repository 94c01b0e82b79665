use std::path::{Path, PathBuf};

use crate::report::KeyReport;

/// A weight file that cannot be read, with the place and the reason.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is not what its format demands.
    #[error("{}: not a valid {format} file: {reason}{}; fetch or export the file again", path.display(), at(*offset))]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The format that was expected.
        format: &'static str,
        /// Where in the file, in bytes, if it is known.
        offset: Option<u64>,
        /// What is wrong there.
        reason: String,
    },
    /// A tensor of the file cannot be used.
    #[error("{}: tensor `{tensor}`{}: {reason}", path.display(), at(*offset))]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// Where its data begins, in bytes, if it is known.
        offset: Option<u64>,
        /// What is wrong with it.
        reason: String,
    },
    /// An index names a shard that is not there.
    #[error("{}: names the shard `{shard}` for tensor `{tensor}`, but there is no such file beside it; fetch the missing shard", path.display())]
    MissingShard {
        /// The index file.
        path: PathBuf,
        /// The shard's file name.
        shard: String,
        /// The first tensor that is said to lie in it.
        tensor: String,
    },
    /// A traced checkpoint is not loaded; its trace says what would have been.
    #[error("the checkpoint is traced, not loaded")]
    Traced,
    /// Tensors that belong to a model, and are not its parameters.
    #[error("{}: {reason}", path.display())]
    NotAModel {
        /// The file; of several the one that holds them, or their index, or the directory.
        path: PathBuf,
        /// What they are, and what to do.
        reason: String,
    },
    /// A model's names stand under several prefixes.
    #[error("{}: the model's names stand under each of {}; say with `--prefix`, or `Device::with_prefix`, which are meant", path.display(), quoted(prefixes))]
    Prefixes {
        /// The file; of several the one that holds them, or their index, or the directory.
        path: PathBuf,
        /// The prefixes.
        prefixes: Vec<String>,
    },
    /// The path holds no weights in a format that can be read.
    #[error("{}: {reason}; weights are looked for as one `*.safetensors`, `*.bin`, `*.pt`, `*.pth`, `*.gguf`, `*.npz`, `*.h5`, `*.pb` or `*.tflite` file, as several under a `*.index.json`, or as a TensorFlow checkpoint", path.display())]
    NoWeights {
        /// The file or directory.
        path: PathBuf,
        /// What was found instead.
        reason: String,
    },
}

impl FormatError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> FormatError {
        let path = path.to_owned();
        move |source| FormatError::Io { path, source }
    }
}

fn quoted(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

fn at(offset: Option<u64>) -> String {
    offset.map_or_else(String::new, |offset| format!(" at byte {offset}"))
}

/// A checkpoint that could not be loaded into a module.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The checkpoint's tensors are not the module's.
    #[error(transparent)]
    Keys(#[from] Box<KeyReport>),
    /// The device did not take the tensors.
    #[error("{0}")]
    Device(String),
}
