use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{BoolStore, DType, TensorData};
use indexmap::IndexMap;

use crate::{FormatError, safetensors};

/// The element type of a stored tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Dtype {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
    /// A type that can be listed but not read, by its name in the file.
    Other(String),
}

impl Dtype {
    /// The Burn type with the same bytes, or `None` for [`Dtype::Other`].
    pub fn to_burn(&self) -> Option<DType> {
        Some(match self {
            Dtype::F64 => DType::F64,
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::I64 => DType::I64,
            Dtype::I32 => DType::I32,
            Dtype::I16 => DType::I16,
            Dtype::I8 => DType::I8,
            Dtype::U64 => DType::U64,
            Dtype::U32 => DType::U32,
            Dtype::U16 => DType::U16,
            Dtype::U8 => DType::U8,
            Dtype::Bool => DType::Bool(BoolStore::Native),
            Dtype::Other(_) => return None,
        })
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dtype::Bool => f.pad("BOOL"),
            Dtype::Other(name) => f.pad(name),
            known => f.pad(&format!("{known:?}")),
        }
    }
}

/// The file format of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// One safetensors file.
    Safetensors,
    /// Several safetensors files under a `*.safetensors.index.json`.
    ShardedSafetensors,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Format::Safetensors => "safetensors",
            Format::ShardedSafetensors => "safetensors, sharded",
        })
    }
}

type Read = dyn Fn() -> Result<TensorData, FormatError> + Send + Sync;

/// One tensor of a checkpoint: what it is, and how to read it.
#[derive(Clone)]
pub struct Entry {
    /// The element type as stored.
    pub dtype: Dtype,
    /// The shape as stored.
    pub shape: Vec<usize>,
    /// The size of the data in the file, in bytes.
    pub bytes: usize,
    read: Arc<Read>,
}

impl Entry {
    pub(crate) fn new(
        dtype: Dtype,
        shape: Vec<usize>,
        bytes: usize,
        read: impl Fn() -> Result<TensorData, FormatError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            dtype,
            shape,
            bytes,
            read: Arc::new(read),
        }
    }

    /// Reads the data, in the stored type and shape. Mapped files are not copied.
    ///
    /// # Errors
    /// The element type cannot be read, or the bytes are not of that type.
    pub fn read(&self) -> Result<TensorData, FormatError> {
        (self.read)()
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.dtype, self.shape)
    }
}

/// Named tensors of any format, listed without reading their data.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The format it was found in.
    pub format: Format,
    /// The files that hold it: the weights, after the index if there is one.
    pub files: Vec<PathBuf>,
    /// The string metadata that the format carries.
    pub metadata: BTreeMap<String, String>,
    entries: IndexMap<String, Entry>,
}

impl Checkpoint {
    /// Opens a weight file, or the weights of a model directory.
    ///
    /// In a directory, in this order: `model.safetensors`, `model.safetensors.index.json`, and the only
    /// `*.safetensors` or `*.safetensors.index.json` that is there.
    ///
    /// # Errors
    /// Nothing readable is there, or a file is truncated, corrupt or of another format.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, FormatError> {
        let path = path.as_ref();
        let metadata = std::fs::metadata(path).map_err(FormatError::io(path))?;
        if metadata.is_dir() {
            return Self::open(&weights_in(path)?);
        }
        if path.to_string_lossy().ends_with(".index.json") {
            safetensors::open_sharded(path)
        } else {
            safetensors::open(path)
        }
    }

    pub(crate) fn new(
        format: Format,
        files: Vec<PathBuf>,
        metadata: BTreeMap<String, String>,
        entries: IndexMap<String, Entry>,
    ) -> Self {
        Self {
            format,
            files,
            metadata,
            entries,
        }
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// All tensors, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(name, entry)| (&name[..], entry))
    }

    /// The number of tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no tensor at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn into_entries(self) -> IndexMap<String, Entry> {
        self.entries
    }
}

fn weights_in(directory: &Path) -> Result<PathBuf, FormatError> {
    for name in ["model.safetensors", "model.safetensors.index.json"] {
        let path = directory.join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    let mut files = Vec::new();
    let mut others = Vec::new();
    for item in std::fs::read_dir(directory).map_err(FormatError::io(directory))? {
        let path = item.map_err(FormatError::io(directory))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".safetensors.index.json") {
            return Ok(path);
        } else if name.ends_with(".safetensors") {
            files.push(path);
        } else if [".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack"]
            .iter()
            .any(|ending| name.ends_with(ending))
        {
            others.push(name.into_owned());
        }
    }
    let reason = match (files.len(), others.is_empty()) {
        (1, _) => return Ok(files.remove(0)),
        (0, true) => "no weights in this directory".to_owned(),
        (0, false) => {
            others.sort();
            format!(
                "no safetensors file in this directory, only {}",
                others.join(", ")
            )
        }
        (count, _) => format!("{count} safetensors files in this directory and no index"),
    };
    Err(FormatError::NoWeights {
        path: directory.to_owned(),
        reason,
    })
}
