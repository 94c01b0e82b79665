//! Writing weights: one interface to every format that can be written.
//!
//! What is written is a [`Checkpoint`]: names, types and shapes are known, and data is read one tensor at a
//! time as its turn comes, whether it comes out of a file unchanged or through [`Entry::cast`] and
//! [`Entry::block`]. Files get their names when they are whole, and an index after what it names.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::checkpoint::{Checkpoint, Dtype, Entry};
use crate::error::FormatError;
use crate::{burnpack, gguf, json, model_text, numpy, pytorch, safetensors, sharded, tensorflow};

/// A format that can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteFormat {
    /// safetensors, in several files beyond [`WriteOptions::shard_size`].
    Safetensors,
    /// What `torch.load(weights_only=True)` reads, in several files likewise.
    PyTorch,
    /// GGUF, version 3.
    Gguf,
    /// One NumPy array.
    Npy,
    /// An archive of NumPy arrays.
    Npz,
    /// A JSON state dictionary, its tensors in base64.
    Json,
    /// A JSON model, its tensors as numbers.
    JsonModel,
    /// A YAML model, its tensors as numbers.
    YamlModel,
    /// Burn's own records.
    Burnpack,
    /// A TensorFlow checkpoint of the second version: an index, and a shard of data beside it.
    TensorFlow,
}

/// A format's row: its name, the endings of its files, what it holds, and how it is written.
pub(crate) struct Writer {
    pub(crate) name: &'static str,
    pub(crate) endings: &'static [&'static str],
    /// Whether tensors of that type can be in it.
    pub(crate) holds: fn(&Dtype) -> bool,
    pub(crate) write: fn(&Job<'_>) -> Result<Vec<PathBuf>, FormatError>,
}

impl WriteFormat {
    /// Every format that can be written.
    pub const ALL: &[WriteFormat] = &[
        WriteFormat::Safetensors,
        WriteFormat::PyTorch,
        WriteFormat::Gguf,
        WriteFormat::Npz,
        WriteFormat::Npy,
        WriteFormat::Json,
        WriteFormat::JsonModel,
        WriteFormat::YamlModel,
        WriteFormat::Burnpack,
        WriteFormat::TensorFlow,
    ];

    fn writer(self) -> &'static Writer {
        match self {
            WriteFormat::Safetensors => &safetensors::WRITER,
            WriteFormat::PyTorch => &pytorch::WRITER,
            WriteFormat::Gguf => &gguf::WRITER,
            WriteFormat::Npy => &numpy::NPY,
            WriteFormat::Npz => &numpy::NPZ,
            WriteFormat::Json => &json::WRITER,
            WriteFormat::JsonModel => &model_text::JSON,
            WriteFormat::YamlModel => &model_text::YAML,
            WriteFormat::Burnpack => &burnpack::WRITER,
            WriteFormat::TensorFlow => &tensorflow::WRITER,
        }
    }

    /// Its name, as an option would give it.
    pub fn name(self) -> &'static str {
        self.writer().name
    }

    /// The format of that name.
    pub fn find(name: &str) -> Option<Self> {
        let mut all = Self::ALL.iter().copied();
        all.find(|format| format.name() == name)
    }

    /// The format that a file's name ends in, and the compression behind it.
    pub fn of_path(path: &Path) -> Option<(Self, Option<Compression>)> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let compression = Compression::ALL
            .into_iter()
            .find(|compression| name.ends_with(compression.ending()));
        let name = compression
            .and_then(|compression| name.strip_suffix(compression.ending()))
            .unwrap_or(&name);
        let format = Self::ALL.iter().find(|format| {
            let mut endings = format.writer().endings.iter();
            endings.any(|ending| name.ends_with(ending))
        })?;
        (compression.is_none() || format.is_text()).then_some((*format, compression))
    }

    /// Whether it is text, which alone is worth compressing.
    pub fn is_text(self) -> bool {
        matches!(
            self,
            WriteFormat::Json | WriteFormat::JsonModel | WriteFormat::YamlModel
        )
    }

    /// The usual name of its file in a directory.
    pub fn usual_name(self, compression: Option<Compression>) -> String {
        let name = match self {
            WriteFormat::Safetensors => "model.safetensors",
            WriteFormat::PyTorch => "pytorch_model.bin",
            WriteFormat::Gguf => "model.gguf",
            WriteFormat::Npy => "model.npy",
            WriteFormat::Npz => "model.npz",
            WriteFormat::Json | WriteFormat::JsonModel => "model.json",
            WriteFormat::YamlModel => "model.yaml",
            WriteFormat::Burnpack => "model.bpk",
            WriteFormat::TensorFlow => "model.ckpt.index",
        };
        let ending = compression.map_or("", Compression::ending);
        format!("{name}{ending}")
    }

    /// The file that stands for weights that are called so: a TensorFlow checkpoint may be named by its prefix.
    pub fn file_named(self, path: &Path) -> PathBuf {
        match self {
            WriteFormat::TensorFlow => tensorflow::index_of(path),
            _ => path.to_owned(),
        }
    }

    /// Whether tensors of that type can be in it.
    pub fn holds(self, dtype: &Dtype) -> bool {
        (self.writer().holds)(dtype)
    }

    /// Why a tensor of a type that the format holds cannot be in it nevertheless, if it cannot.
    pub fn refusal(self, name: &str, entry: &Entry) -> Option<String> {
        match self {
            WriteFormat::Gguf => gguf::refusal(name, entry),
            _ => None,
        }
    }

    /// The type that stands in for one that the format cannot hold: the first that holds all of its values,
    /// and for the widest the nearest. `None` if there is none.
    pub fn substitute(self, dtype: &Dtype) -> Option<Dtype> {
        let wider: &[Dtype] = match dtype {
            Dtype::Bool => &[Dtype::U8, Dtype::I8],
            Dtype::U8 => &[Dtype::I16, Dtype::I32, Dtype::I64],
            Dtype::I8 => &[Dtype::I16, Dtype::I32, Dtype::I64],
            Dtype::I16 | Dtype::U16 => &[Dtype::I32, Dtype::I64],
            Dtype::U32 | Dtype::I32 => &[Dtype::I64],
            Dtype::F8(_) | Dtype::Quantized(_) | Dtype::F16 | Dtype::BF16 | Dtype::F64 => {
                &[Dtype::F32]
            }
            _ => &[],
        };
        // A model as text has no numbers but `f32`.
        let last = (self.is_text() && dtype.to_burn().is_some()).then_some(Dtype::F32);
        let mut found = wider.iter().cloned().chain(last);
        found.find(|dtype| self.holds(dtype))
    }
}

/// How a text is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Gzip, Self::Zstd];

    /// What a file's name ends in.
    pub fn ending(self) -> &'static str {
        match self {
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
        }
    }

    /// Its name, as an option would give it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// What may be chosen about how weights are written.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// The most bytes of tensors in one file, for the formats that have an index; one file if `None`. A
    /// tensor that is larger has a file for itself.
    pub shard_size: Option<u64>,
    /// How a text is compressed.
    pub compression: Option<Compression>,
    /// Whether a text is indented.
    pub pretty: bool,
    /// The typed metadata of a GGUF file, in place of the checkpoint's.
    pub gguf: Option<gguf::Metadata>,
}

/// Writes a checkpoint to `path`, in several files beside it if it is sharded, and gives the files. `wrote` is
/// told each tensor's name and size once it is written.
///
/// # Errors
/// The format cannot hold a tensor, a tensor cannot be read, or a file cannot be written. Then no file has
/// been renamed into place.
pub fn write(
    checkpoint: &Checkpoint,
    path: &Path,
    format: WriteFormat,
    options: &WriteOptions,
    wrote: &dyn Fn(&str, usize),
) -> Result<Vec<PathBuf>, FormatError> {
    let job = Job {
        checkpoint,
        tensors: checkpoint.iter().collect(),
        metadata: own_metadata(checkpoint),
        path,
        options,
        wrote,
    };
    for (name, entry) in &job.tensors {
        if !format.holds(&entry.dtype) || !entry.is_stored() {
            let reason = format!(
                "{} does not hold the type {}; give another type",
                format.name(),
                entry.dtype
            );
            return Err(job.refuse(name, reason));
        }
    }
    (format.writer().write)(&job)
}

/// Some tensors that go into one file.
pub(crate) struct Job<'a> {
    pub(crate) checkpoint: &'a Checkpoint,
    pub(crate) tensors: Vec<(&'a str, &'a Entry)>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) path: &'a Path,
    pub(crate) options: &'a WriteOptions,
    wrote: &'a dyn Fn(&str, usize),
}

impl<'a> Job<'a> {
    /// The same with some of the tensors, into another file.
    pub(crate) fn part(&self, tensors: &[(&'a str, &'a Entry)], path: &'a Path) -> Job<'a> {
        Job {
            tensors: tensors.to_vec(),
            metadata: self.metadata.clone(),
            path,
            ..*self
        }
    }

    pub(crate) fn refuse(&self, tensor: &str, reason: String) -> FormatError {
        FormatError::Tensor {
            path: self.path.to_owned(),
            tensor: tensor.to_owned(),
            offset: None,
            reason,
        }
    }

    /// The bytes of a tensor, as many as its entry says.
    pub(crate) fn bytes(
        &self,
        name: &str,
        entry: &Entry,
    ) -> Result<burn::tensor::Bytes, FormatError> {
        let bytes = entry.stored()?;
        if bytes.len() == entry.bytes {
            return Ok(bytes);
        }
        let reason = format!("it has {} bytes, not {}", bytes.len(), entry.bytes);
        Err(self.refuse(name, reason))
    }

    /// Says that a tensor is written, and gives its memory back.
    pub(crate) fn wrote(&self, name: &str, entry: &Entry) {
        (self.wrote)(name, entry.bytes);
        self.checkpoint.release();
    }

    /// Writes a tensor's bytes to a file.
    pub(crate) fn copy(
        &self,
        name: &str,
        entry: &Entry,
        out: &mut Draft,
    ) -> Result<(), FormatError> {
        out.write(&self.bytes(name, entry)?)?;
        self.wrote(name, entry);
        Ok(())
    }
}

/// What a checkpoint's file itself says: not what its reader noted, nor what an index counts.
fn own_metadata(checkpoint: &Checkpoint) -> BTreeMap<String, String> {
    let own = checkpoint
        .metadata
        .iter()
        .filter(|(key, _)| !key.starts_with("pytorch.") && !sharded::COUNTS.contains(&&key[..]));
    own.map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// A file that is being written beside the place that it is for.
pub(crate) struct Draft {
    path: PathBuf,
    temporary: PathBuf,
    file: Option<BufWriter<File>>,
}

impl Draft {
    pub(crate) fn create(path: &Path) -> Result<Self, FormatError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}-{count}.part", std::process::id()));
        let temporary = path.with_file_name(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&temporary)
            .map_err(FormatError::io(path))?;
        Ok(Self {
            path: path.to_owned(),
            temporary,
            file: Some(BufWriter::with_capacity(1 << 20, file)),
        })
    }

    /// Where it is until it is whole.
    pub(crate) fn temporary(&self) -> &Path {
        &self.temporary
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        let path = &self.path;
        let file = self.file.as_mut();
        file.map_or(Ok(()), |file| file.write_all(bytes))
            .map_err(FormatError::io(path))
    }

    /// Zeros up to the next multiple; `at` is how much there is already.
    pub(crate) fn pad(&mut self, at: u64, alignment: u64) -> Result<u64, FormatError> {
        let padding = at.next_multiple_of(alignment) - at;
        self.write(&vec![0; padding as usize])?;
        Ok(at + padding)
    }

    /// Writes over what is at a place, and goes back to the end.
    pub(crate) fn rewrite(&mut self, at: u64, bytes: &[u8]) -> Result<(), FormatError> {
        let path = &self.path;
        let Some(file) = self.file.as_mut() else {
            return Ok(());
        };
        let mut patch = || {
            file.seek(SeekFrom::Start(at))?;
            file.write_all(bytes)?;
            file.seek(SeekFrom::End(0))
        };
        patch().map(|_| ()).map_err(FormatError::io(path))
    }

    /// Writes it out; it keeps its temporary name.
    pub(crate) fn finish(mut self) -> Result<Whole, FormatError> {
        if let Some(mut file) = self.file.take() {
            file.flush().map_err(FormatError::io(&self.path))?;
        }
        Ok(Whole(self))
    }

    /// Writes it out and gives it its name.
    pub(crate) fn place(self) -> Result<PathBuf, FormatError> {
        self.finish()?.place()
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_mut().map_or(Ok(0), |file| file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), BufWriter::flush)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After a renaming there is nothing, which is no error.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// A whole file that waits for its name.
pub(crate) struct Whole(Draft);

impl Whole {
    /// Where it is until then.
    pub(crate) fn temporary(&self) -> &Path {
        self.0.temporary()
    }

    /// Gives it its name, in place of another file of that name.
    pub(crate) fn place(self) -> Result<PathBuf, FormatError> {
        let Draft {
            path, temporary, ..
        } = &self.0;
        fs::rename(temporary, path).map_err(FormatError::io(path))?;
        Ok(path.clone())
    }
}
