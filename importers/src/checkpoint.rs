use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{BoolStore, Bytes, DType, TensorData};
use indexmap::IndexMap;

use crate::float8::Float8;
use crate::key_map::Source;
use crate::onnx::{Flow, Joint};
use crate::{FormatError, data, detect, gguf, map, sharded, tensorflow};

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
    /// A float of eight bits; read as `f32`.
    F8(Float8),
    /// Numbers of few bits, mostly in blocks that share scales, by the format's name of the type; read as
    /// `f32`.
    Quantized(&'static str),
    /// A type that can be listed but not read, by its name in the file.
    Other(String),
}

impl Dtype {
    /// Weights of four bits, each 32 of a row of `[out, in]` with a scale: a type to compute in.
    pub const INT4: Dtype = Dtype::Quantized("int4");

    /// The Burn type that the data is read as, with the same bytes unless that is wider; `None` for
    /// [`Dtype::Other`].
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
            Dtype::F8(_) | Dtype::Quantized(_) => DType::F32,
            Dtype::Other(_) => return None,
        })
    }

    /// Whether its values are texts, which no format of weights holds.
    pub fn is_text(&self) -> bool {
        matches!(self, Dtype::Other(name) if name == "string")
    }

    /// Whether its values are floats once they are read.
    pub fn is_float(&self) -> bool {
        self.to_burn().is_some_and(|dtype| dtype.is_float())
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dtype::Bool => f.pad("BOOL"),
            Dtype::F8(float) => f.pad(float.name()),
            Dtype::Quantized(name) => f.pad(name),
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
    /// One file that `torch.save` wrote, in any of its containers.
    PyTorch,
    /// Several PyTorch files under a `*.index.json`.
    ShardedPyTorch,
    /// An archive that TorchScript wrote; its code is ignored.
    TorchScript,
    /// One GGUF file.
    Gguf,
    /// Several GGUF files that are parts of one.
    SplitGguf,
    /// One NumPy array.
    Npy,
    /// An archive of NumPy arrays.
    Npz,
    /// A JSON state dictionary, its tensors in base64; perhaps compressed.
    Json,
    /// A JSON model, its tensors as numbers; perhaps compressed.
    JsonModel,
    /// A YAML model, its tensors as numbers; perhaps compressed.
    YamlModel,
    /// Burn's own records.
    Burnpack,
    /// An exported model, with the files of its external data.
    Onnx,
    /// One MessagePack file that Flax wrote.
    Flax,
    /// Several such files under a `*.index.json`.
    ShardedFlax,
    /// A file of GGML's before GGUF.
    Ggml,
    /// A TensorFlow checkpoint: an index and shards.
    TensorFlow,
    /// A TensorFlow checkpoint of the first version, in one file.
    TensorFlowV1,
    /// The constants of a TensorFlow graph.
    TensorFlowGraph,
    /// The variables of a SavedModel, or the constants of its graph.
    SavedModel,
    /// An HDF5 file, of Keras or another.
    Hdf5,
    /// Several HDF5 files under a `*.index.json` or Keras' `*.weights.json`.
    ShardedHdf5,
    /// A Keras archive.
    Keras,
    /// One TFLite model.
    TfLite,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Format::Safetensors => "safetensors",
            Format::ShardedSafetensors => "safetensors, sharded",
            Format::PyTorch => "PyTorch",
            Format::ShardedPyTorch => "PyTorch, sharded",
            Format::TorchScript => "TorchScript",
            Format::Gguf => "GGUF",
            Format::SplitGguf => "GGUF, split",
            Format::Npy => "NumPy",
            Format::Npz => "NumPy archive",
            Format::Json => "JSON state dictionary",
            Format::JsonModel => "JSON model",
            Format::YamlModel => "YAML model",
            Format::Burnpack => "burnpack",
            Format::Onnx => "ONNX",
            Format::Flax => "Flax msgpack",
            Format::ShardedFlax => "Flax msgpack, sharded",
            Format::Ggml => "GGML",
            Format::TensorFlow => "TensorFlow checkpoint",
            Format::TensorFlowV1 => "TensorFlow checkpoint, version 1",
            Format::TensorFlowGraph => "TensorFlow graph",
            Format::SavedModel => "TensorFlow SavedModel",
            Format::Hdf5 => "HDF5",
            Format::ShardedHdf5 => "HDF5, sharded",
            Format::Keras => "Keras archive",
            Format::TfLite => "TFLite",
        })
    }
}

/// How the axes of a linear or convolution layer's weight lie, as its framework has them.
///
/// A fused projection's blocks are along the axis of the outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Layout {
    /// PyTorch's `[out, in]` and `[out, in, spatial…]`.
    #[default]
    OutIn,
    /// TensorFlow's, Keras's and Flax's `[in, out]` and `[spatial…, in, out]`: what they call a kernel.
    InOut,
    /// MLX's and TFLite's `[out, in]` and `[out, spatial…, in]`.
    ChannelsLast,
}

impl Layout {
    /// For each axis of PyTorch's order, which stored axis it is.
    pub(crate) fn axes(self, rank: usize) -> Vec<usize> {
        match (self, rank) {
            (Self::OutIn, _) | (_, 0 | 1) => (0..rank).collect(),
            (Self::InOut, _) => [rank - 1, rank - 2]
                .into_iter()
                .chain(0..rank - 2)
                .collect(),
            (Self::ChannelsLast, _) => [0, rank - 1].into_iter().chain(1..rank - 1).collect(),
        }
    }
}

/// Where the graph of an exported model takes a tensor.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Which graph, of several that run one after the other.
    pub(crate) graph: usize,
    /// Where the result of what takes it meets another.
    pub(crate) joint: Joint,
    pub(crate) flow: Arc<Flow>,
    /// What the node takes it as, by PyTorch's name, where that is known.
    pub(crate) leaf: Option<&'static str>,
    /// Whether the node is a norm.
    pub(crate) norm: bool,
    /// Of a convolution's bias, the shape of its weight.
    pub(crate) beside: Option<Vec<usize>>,
}

impl Place {
    /// Whether the graph needs it before the other; neither may be.
    pub(crate) fn is_before(&self, other: &Self) -> bool {
        self.graph < other.graph
            || self.graph == other.graph && self.flow.is_before(self.joint, other.joint)
    }
}

type Read = dyn Fn() -> Result<TensorData, FormatError> + Send + Sync;
type Stored = dyn Fn() -> Result<Bytes, FormatError> + Send + Sync;

/// One tensor of a checkpoint: what it is, and how to read it.
#[derive(Clone)]
pub struct Entry {
    /// The element type as stored.
    pub dtype: Dtype,
    /// The shape as stored.
    pub shape: Vec<usize>,
    /// The size of the data in the file, in bytes.
    pub bytes: usize,
    /// How its axes lie, which is PyTorch's way for all but the weights of linear and convolution layers.
    pub layout: Layout,
    /// Whether an exporter made its name up, as it does for what it computed from constants. Such a tensor
    /// may stay unused.
    pub generated: bool,
    /// Where a graph takes it, as far as it has one.
    pub(crate) place: Option<Place>,
    /// Its name in the file, where it is known by another.
    own: Option<Arc<str>>,
    /// Whether it is outside of the prefix that names are looked for under, so that it may stay unused.
    pub(crate) outside: bool,
    /// The file that it is in, where the checkpoint is in several.
    pub(crate) file: Option<Arc<Path>>,
    read: Arc<Read>,
    stored: Option<Arc<Stored>>,
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
            layout: Layout::default(),
            generated: false,
            place: None,
            own: None,
            outside: false,
            file: None,
            read: Arc::new(read),
            stored: None,
        }
    }

    /// Adds a way to the bytes as they are stored, little-endian and in row-major order, for a type that is
    /// not read as itself.
    #[must_use]
    pub(crate) fn with_stored(
        mut self,
        stored: impl Fn() -> Result<Bytes, FormatError> + Send + Sync + 'static,
    ) -> Self {
        self.stored = Some(Arc::new(stored));
        self
    }

    /// A tensor that no file holds, since it follows from others: of `i64`, or else of `f32`.
    pub fn computed(data: TensorData) -> Self {
        let (dtype, data) = match data.dtype() {
            DType::I64 => (Dtype::I64, data),
            _ => (Dtype::F32, data.convert::<f32>()),
        };
        let (shape, bytes) = (data.shape().to_vec(), data.as_bytes().len());
        Self::new(dtype, shape, bytes, move || Ok(data.clone()))
    }

    /// The same entry, which the file has under this name, or under the one that was said so before.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.own.get_or_insert_with(|| name.into());
        self
    }

    /// The same entry, which is in one of several files.
    #[must_use]
    pub(crate) fn in_file(mut self, file: &Arc<Path>) -> Self {
        self.file = Some(file.clone());
        self
    }

    /// The name in the file, where it is known by another.
    pub fn own_name(&self) -> Option<&str> {
        self.own.as_deref()
    }

    /// Whether it is outside of the [`prefix`](Checkpoint::prefix) that names are looked for under.
    pub fn is_outside(&self) -> bool {
        self.outside
    }

    /// The same entry, whose axes lie as `layout` says.
    #[must_use]
    pub(crate) fn with_layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    /// The same entry, whose name an exporter made up if that is true.
    #[must_use]
    pub(crate) fn with_generated(mut self, generated: bool) -> Self {
        self.generated = generated;
        self
    }

    /// The same entry at its place in a graph.
    #[must_use]
    pub(crate) fn at(mut self, place: Option<Place>) -> Self {
        self.place = place;
        self
    }

    /// What the graph of an exported model takes it as, by the name that PyTorch gives such a parameter, for
    /// instance `running_mean`.
    pub fn taken_as(&self) -> Option<&'static str> {
        self.place.as_ref().and_then(|place| place.leaf)
    }

    /// Reads the data, in the stored type and shape; quantized data and floats of eight bits become `f32`.
    /// Mapped files are not copied.
    ///
    /// # Errors
    /// The element type cannot be read, or the bytes are not of that type.
    pub fn read(&self) -> Result<TensorData, FormatError> {
        (self.read)()
    }

    /// The data in the stored type, [`Entry::dtype`], as little-endian bytes in row-major order. Mapped files
    /// are not copied.
    ///
    /// # Errors
    /// The bytes are not of that type, or no bytes of a type that cannot be read are known.
    pub fn stored(&self) -> Result<Bytes, FormatError> {
        match &self.stored {
            Some(stored) => stored(),
            None => Ok(self.read()?.into_bytes()),
        }
    }

    /// Whether [`Entry::stored`] gives bytes of [`Entry::dtype`].
    pub(crate) fn is_stored(&self) -> bool {
        let same = !matches!(
            self.dtype,
            Dtype::F8(_) | Dtype::Quantized(_) | Dtype::Other(_)
        );
        same || self.stored.is_some()
    }

    /// The shape in the order that PyTorch has the axes in.
    pub fn out_in_shape(&self) -> Vec<usize> {
        let axes = self.layout.axes(self.shape.len());
        axes.into_iter().map(|axis| self.shape[axis]).collect()
    }

    /// Reads the data with its axes in the order that PyTorch has them in.
    ///
    /// # Errors
    /// As [`Entry::read`].
    pub fn read_out_in(&self) -> Result<TensorData, FormatError> {
        let data = self.read()?;
        let axes = self.layout.axes(data.shape().len());
        Ok(data::permuted(data, &axes))
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
    /// The names of other weights in the directory that was opened, which come after these in the order of
    /// [`Checkpoint::open`].
    pub passed_over: Vec<String>,
    /// The names of tensors in the files that are not among these: a training's state, texts, and constants of graphs.
    pub left_out: Vec<String>,
    /// The string metadata that the format carries.
    pub metadata: BTreeMap<String, String>,
    pub(crate) prefix: Option<String>,
    entries: IndexMap<String, Entry>,
    trace: Option<Arc<Trace>>,
    compute: Dtype,
}

/// Where [`load`](crate::load) would have put a checkpoint's tensors.
#[derive(Debug, Default)]
pub struct Trace(Mutex<Vec<Placement>>);

/// One parameter and what fills it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The parameter's path in the module, the last segment as checkpoints call it.
    pub parameter: String,
    /// The tensor that fills it, or some rows of it.
    pub source: Source,
    /// What it is a parameter of.
    pub layer: Layer,
    /// How the tensor's axes lie, which of a convolution's weight the module may show first.
    pub layout: Layout,
}

/// The layers whose parameters other frameworks name or lay out in their own way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Layer {
    Linear,
    Convolution,
    Norm,
    Other,
}

impl Trace {
    /// All placements, in the module's order; none if no load came as far as knowing them.
    pub fn placements(&self) -> Vec<Placement> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn record(&self, placements: Vec<Placement>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = placements;
    }
}

impl Checkpoint {
    /// The same checkpoint for finding out where a module would put its tensors: [`load`](crate::load) fails
    /// as soon as it knows, before it reads any.
    pub fn traced(&self) -> (Checkpoint, Arc<Trace>) {
        let trace = Arc::new(Trace::default());
        let checkpoint = Checkpoint {
            trace: Some(trace.clone()),
            ..self.clone()
        };
        (checkpoint, trace)
    }

    pub(crate) fn trace(&self) -> Option<&Trace> {
        self.trace.as_deref()
    }

    /// Opens a weight file, or the weights of a model directory.
    ///
    /// The format of a file is found from its content, and from its name where the content says nothing.
    ///
    /// In a directory, the first of these is taken that is there:
    ///
    /// 1. `model.safetensors`, `model.safetensors.index.json`, another `*.safetensors.index.json`, the only
    ///    `*.safetensors`;
    /// 2. `pytorch_model.bin`, `pytorch_model.bin.index.json`, another `*.bin.index.json`, the only file that
    ///    ends in `.pt`, `.pth`, `.bin`, `.th` or `.ckpt`;
    /// 3. the only `*.gguf`, or the parts of one;
    /// 4. `weights.npz`, `model.npz`, the only `*.npz`, then the only `*.npy`;
    /// 5. `saved_model.pb`, `variables/variables.index`, `checkpoint`, the only `*.index`;
    /// 6. `tf_model.h5`, `tf_model.h5.index.json`, a `*.weights.json`, the only file that ends in `.keras`, `.h5` or `.hdf5`;
    /// 7. the only `*.pb`, then the only `*.tflite`;
    /// 8. `model.onnx`, `encoder_model.onnx` with its decoder, the only `*.onnx`, last of all the same in the folder
    ///    `onnx`;
    /// 9. `flax_model.msgpack`, `flax_model.msgpack.index.json`, the only `*.msgpack`;
    /// 10. `model.bpk`, the only `*.bpk`;
    /// 11. `model.json`, `model.yaml` or `model.yml`, perhaps with `.gz` or `.zst` behind.
    ///
    /// A TensorFlow checkpoint may be named by its prefix, `model.ckpt-100`, which is no file.
    ///
    /// # Errors
    /// Nothing readable is there, or a file is truncated, corrupt or of another format.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, FormatError> {
        let path = path.as_ref();
        let named = tensorflow::named(path);
        let metadata = std::fs::metadata(&named).map_err(FormatError::io(path))?;
        if metadata.is_dir() {
            let taken = weights_in(path)?;
            let mut checkpoint = detect::open(&taken)?.unwrapped();
            checkpoint.passed_over = passed_over(path, &taken, &checkpoint.files)?;
            if !checkpoint.passed_over.is_empty() {
                tracing::info!(
                    "{} is taken, and not {}",
                    taken.display(),
                    checkpoint.passed_over.join(", ")
                );
            }
            return Ok(checkpoint);
        }
        Ok(detect::open(&named)?.unwrapped())
    }

    /// The file that stands for a TensorFlow checkpoint where its prefix or a shard of it is named, its index; any other
    /// path as it is.
    pub fn file(path: &Path) -> PathBuf {
        tensorflow::named(path)
    }

    /// A checkpoint of the same files with other tensors.
    #[must_use]
    pub fn with_entries(&self, entries: impl IntoIterator<Item = (String, Entry)>) -> Self {
        Self {
            entries: entries.into_iter().collect(),
            ..self.clone()
        }
    }

    /// The same checkpoint with a tensor of floats that no file holds, since it follows from the others. It may stay
    /// unused.
    #[must_use]
    pub fn with_computed(&self, name: &str, values: Vec<f32>, shape: Vec<usize>) -> Self {
        let entry = Entry::computed(TensorData::new(values, shape));
        let mut checkpoint = self.clone();
        checkpoint.put(name.to_owned(), entry.with_generated(true));
        checkpoint
    }

    /// Lets go of the memory that mapped files take by having been read; reading them again brings it back.
    pub fn release(&self) {
        self.files.iter().for_each(|file| map::release_file(file));
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
            passed_over: Vec::new(),
            left_out: Vec::new(),
            metadata,
            prefix: None,
            entries,
            trace: None,
            compute: Dtype::F32,
        }
    }

    /// The type that products with its weights are to be computed in.
    pub fn compute_dtype(&self) -> &Dtype {
        &self.compute
    }

    /// The same checkpoint for computing in another type than [`Dtype::F32`], where that is known how.
    #[must_use]
    pub fn computed_in(self, dtype: Dtype) -> Self {
        Self {
            compute: dtype,
            ..self
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

    /// What holds all of these tensors: their file, or if they are in several the index of these, or the directory where
    /// there is none.
    pub(crate) fn holder<'a>(&self, entries: impl IntoIterator<Item = &'a Entry>) -> PathBuf {
        let mut entries = entries.into_iter().map(|entry| entry.file.as_deref());
        if let Some(Some(first)) = entries.next()
            && entries.all(|file| file == Some(first))
        {
            return first.to_owned();
        }
        let Some((first, others)) = self.files.split_first() else {
            return PathBuf::new();
        };
        let mut files = self
            .entries
            .values()
            .filter_map(|entry| entry.file.as_deref());
        // An index holds no tensor.
        match first.parent() {
            Some(directory) if !others.is_empty() && files.any(|file| file == first) => {
                let own = directory.as_os_str().is_empty();
                if own { Path::new(".") } else { directory }.to_owned()
            }
            _ => first.clone(),
        }
    }

    /// Whether there is no tensor at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Lets tensors of these names stay unused.
    pub(crate) fn make_optional(&mut self, is: impl Fn(&str) -> bool) {
        let entries = self.entries.iter_mut();
        for (_, entry) in entries.filter(|(name, _)| is(name)) {
            entry.outside = true;
        }
    }

    /// Takes the tensor of that name out.
    pub(crate) fn take(&mut self, name: &str) -> Option<Entry> {
        self.entries.shift_remove(name)
    }

    pub(crate) fn put(&mut self, name: String, entry: Entry) {
        self.entries.insert(name, entry);
    }

    /// Gives every tensor the layout that `of` says.
    pub(crate) fn lay_out(&mut self, of: impl Fn(&str, &Entry) -> Layout) {
        for (name, entry) in &mut self.entries {
            entry.layout = of(name, entry);
        }
    }

    pub(crate) fn into_entries(self) -> IndexMap<String, Entry> {
        self.entries
    }
}

/// A kind of weight files in a directory: their usual names, the endings of an index and of a file.
struct Kind {
    usual: &'static [&'static str],
    index: &'static [&'static str],
    endings: &'static [&'static str],
}

/// Best first.
const KINDS: &[Kind] = &[
    Kind {
        usual: &["model.safetensors", "model.safetensors.index.json"],
        index: &[".safetensors.index.json"],
        endings: &[".safetensors"],
    },
    Kind {
        usual: &["pytorch_model.bin", "pytorch_model.bin.index.json"],
        index: &[".bin.index.json", ".pt.index.json", ".pth.index.json"],
        endings: &[".pt", ".pth", ".bin", ".th", ".ckpt"],
    },
    Kind {
        usual: &[],
        index: &[],
        endings: &[".gguf"],
    },
    Kind {
        usual: &["weights.npz", "model.npz"],
        index: &[],
        endings: &[".npz"],
    },
    Kind {
        usual: &[],
        index: &[],
        endings: &[".npy"],
    },
    Kind {
        usual: &["saved_model.pb", tensorflow::VARIABLES, "checkpoint"],
        index: &[],
        endings: &[".index"],
    },
    Kind {
        usual: &["tf_model.h5", "tf_model.h5.index.json"],
        index: &[".h5.index.json", sharded::KERAS],
        endings: &[".keras", ".h5", ".hdf5"],
    },
    Kind {
        usual: &[],
        index: &[],
        endings: &[".pb"],
    },
    Kind {
        usual: &[],
        index: &[],
        endings: &[".tflite"],
    },
    Kind {
        usual: &["model.onnx", "encoder_model.onnx"],
        index: &[],
        endings: &[".onnx"],
    },
    Kind {
        usual: &["flax_model.msgpack", "flax_model.msgpack.index.json"],
        index: &[".msgpack.index.json"],
        endings: &[".msgpack"],
    },
    Kind {
        usual: &["model.bpk"],
        index: &[],
        endings: &[".bpk"],
    },
    Kind {
        usual: &[
            "model.json",
            "model.json.gz",
            "model.json.zst",
            "model.yaml",
            "model.yaml.gz",
            "model.yaml.zst",
            "model.yml",
        ],
        index: &[],
        endings: &[],
    },
];

/// Files that Hugging Face's trainers and TensorFlow leave beside the weights, under the same endings.
const BESIDE: [&str; 5] = [
    "fingerprint.pb",
    "training_args.bin",
    "optimizer.pt",
    "scheduler.pt",
    "scaler.pt",
];

/// The names of the files in a directory.
fn names_in(directory: &Path) -> Result<Vec<String>, FormatError> {
    let mut names = Vec::new();
    for item in std::fs::read_dir(directory).map_err(FormatError::io(directory))? {
        let path = item.map_err(FormatError::io(directory))?.path();
        if path.is_file() {
            names.push(
                path.file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
            );
        }
    }
    names.sort();
    Ok(names)
}

/// The weights in a directory that were not taken: of each kind the index, or all where there is none.
fn passed_over(
    directory: &Path,
    taken: &Path,
    files: &[PathBuf],
) -> Result<Vec<String>, FormatError> {
    let names = names_in(directory)?;
    let taken = files.iter().map(PathBuf::as_path).chain([taken]);
    let taken: Vec<_> = taken.filter_map(Path::file_name).collect();
    let mut found = Vec::new();
    for kind in KINDS {
        let ends =
            |name: &str, endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
        let index = names.iter().filter(|name| ends(name, kind.index));
        let index: Vec<&String> = index.collect();
        let of_kind = |name: &&String| kind.usual.contains(&&name[..]) || ends(name, kind.endings);
        let all = match index.is_empty() {
            true => names.iter().filter(of_kind).collect(),
            false => index,
        };
        let others = all.into_iter().filter(|name| {
            !BESIDE.contains(&&name[..]) && !taken.contains(&std::ffi::OsStr::new(&name[..]))
        });
        found.extend(others.cloned());
    }
    Ok(found)
}

fn weights_in(directory: &Path) -> Result<PathBuf, FormatError> {
    let names = names_in(directory)?;
    let refuse = |reason| {
        Err(FormatError::NoWeights {
            path: directory.to_owned(),
            reason,
        })
    };
    for kind in KINDS {
        let usual = kind
            .usual
            .iter()
            .find(|usual| directory.join(usual).is_file());
        if let Some(usual) = usual {
            return Ok(directory.join(usual));
        }
        let ends =
            |name: &String, endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
        if let Some(index) = names.iter().find(|name| ends(name, kind.index)) {
            return Ok(directory.join(index));
        }
        let found: Vec<&str> = names
            .iter()
            .filter(|name| ends(name, kind.endings) && !BESIDE.contains(&&name[..]))
            .map(|name| &name[..])
            .collect();
        match found[..] {
            [] => {}
            [only] => return Ok(directory.join(only)),
            [first, ..] if one_split(&found) => return Ok(directory.join(first)),
            _ => {
                let shown = found[..found.len().min(8)].join(", ");
                return refuse(format!(
                    "several weight files and no index ({shown}); name one of them"
                ));
            }
        }
    }
    // Hugging Face's repositories have exports in a folder of their own.
    let exports = directory.join("onnx");
    if exports.is_dir() && directory.file_name() != Some("onnx".as_ref()) {
        return weights_in(&exports);
    }
    if names.iter().any(|name| name.ends_with(".distcp")) {
        let reason = "this is a distributed checkpoint of PyTorch (`.distcp`), which is not read; make one file of it \
                      with `python -m torch.distributed.checkpoint.format_utils dcp_to_torch DIRECTORY weights.pt`";
        return refuse(reason.to_owned());
    }
    refuse("no weights in this directory".to_owned())
}

/// Whether all names are parts of one GGUF file.
fn one_split(names: &[&str]) -> bool {
    let stem = |name: &str| gguf::part(name).map(|(stem, _, count)| (stem.to_owned(), count));
    let first = names.first().and_then(|name| stem(name));
    first.is_some() && names.iter().all(|name| stem(name) == first)
}
