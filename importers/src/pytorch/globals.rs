//! The names that a pickle of weights may use, and what they stand for.

use std::fmt;

use crate::Dtype;
use crate::float8::Float8;

/// The element type of a storage or tensor: a row of the table below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element(&'static Row);

#[derive(Debug, PartialEq, Eq)]
struct Row {
    /// PyTorch's name of the type.
    name: &'static str,
    /// Its other name, if it has one.
    alias: &'static str,
    /// Its class of storage, without the `Storage`; newer types have none.
    class: &'static str,
    size: usize,
    dtype: Dtype,
    /// Its name in safetensors, for a type that is listed and not read.
    listed: &'static str,
}

const fn row(
    name: &'static str,
    alias: &'static str,
    class: &'static str,
    size: usize,
    dtype: Dtype,
) -> Row {
    Row {
        name,
        alias,
        class,
        size,
        dtype,
        listed: "",
    }
}

const fn listed(
    name: &'static str,
    alias: &'static str,
    class: &'static str,
    size: usize,
    listed: &'static str,
) -> Row {
    Row {
        name,
        alias,
        class,
        size,
        dtype: Dtype::U8,
        listed,
    }
}

/// Integers that stand for floats by a scale and a zero point, which a tensor has and a storage has not.
const fn quantized(name: &'static str, class: &'static str, size: usize) -> Row {
    Row {
        name,
        alias: "",
        class,
        size,
        dtype: Dtype::Quantized(name),
        listed: "",
    }
}

static ROWS: &[Row] = &[
    row("float64", "double", "Double", 8, Dtype::F64),
    row("float32", "float", "Float", 4, Dtype::F32),
    row("float16", "half", "Half", 2, Dtype::F16),
    row("bfloat16", "", "BFloat16", 2, Dtype::BF16),
    row("int64", "long", "Long", 8, Dtype::I64),
    row("int32", "int", "Int", 4, Dtype::I32),
    row("int16", "short", "Short", 2, Dtype::I16),
    row("int8", "", "Char", 1, Dtype::I8),
    row("uint64", "", "", 8, Dtype::U64),
    row("uint32", "", "", 4, Dtype::U32),
    row("uint16", "", "", 2, Dtype::U16),
    row("uint8", "", "Byte", 1, Dtype::U8),
    row("bool", "", "Bool", 1, Dtype::Bool),
    listed("complex32", "chalf", "", 4, "C32"),
    listed("complex64", "cfloat", "ComplexFloat", 8, "C64"),
    listed("complex128", "cdouble", "ComplexDouble", 16, "C128"),
    listed("float8_e4m3fn", "", "", 1, "F8_E4M3"),
    listed("float8_e5m2", "", "", 1, "F8_E5M2"),
    listed("float8_e4m3fnuz", "", "", 1, "F8_E4M3FNUZ"),
    listed("float8_e5m2fnuz", "", "", 1, "F8_E5M2FNUZ"),
    listed("float8_e8m0fnu", "", "", 1, "F8_E8M0"),
    quantized("qint8", "QInt8", 1),
    quantized("quint8", "QUInt8", 1),
    quantized("qint32", "QInt32", 4),
    quantized("quint4x2", "QUInt4x2", 1),
    quantized("quint2x4", "QUInt2x4", 1),
];

impl Element {
    pub(super) fn size(self) -> usize {
        self.0.size
    }

    pub(super) fn dtype(self) -> Dtype {
        match self.0.listed {
            "" => self.0.dtype.clone(),
            name => Float8::find(name).map_or(Dtype::Other(name.to_owned()), Dtype::F8),
        }
    }

    /// The type of elements of a tensor.
    pub(super) fn of_dtype(dtype: &Dtype) -> Option<Self> {
        ROWS.iter().map(Self).find(|row| row.dtype() == *dtype)
    }

    /// PyTorch's name of the type, and of its class of storage if it has one.
    pub(super) fn names(self) -> (&'static str, Option<&'static str>) {
        let class = Some(self.0.class).filter(|class| !class.is_empty());
        (self.0.name, class)
    }

    /// The type of bytes, which a storage without a type has.
    pub(super) fn byte() -> Self {
        Self(
            ROWS.iter()
                .find(|row| row.name == "uint8")
                .unwrap_or(&ROWS[0]),
        )
    }

    /// Whether several values are in one byte.
    pub(super) fn is_packed(self) -> bool {
        matches!(self.0.name, "quint4x2" | "quint2x4")
    }

    /// Whether a value's sign is a bit of its own.
    pub(super) fn is_signed_by_a_bit(self) -> bool {
        let name = self.0.name;
        name.starts_with("float") || name.starts_with("bfloat") || name.starts_with("complex")
    }

    /// The size of what a machine of the other byte order turns around: half of a complex number.
    pub(super) fn word(self) -> usize {
        if self.0.name.starts_with("complex") {
            self.0.size / 2
        } else {
            self.0.size
        }
    }

    fn of_class(class: &str) -> Option<Self> {
        let row = ROWS
            .iter()
            .find(|row| !class.is_empty() && row.class == class);
        row.map(Self)
    }
}

/// Classes in modules that do more than hold values, whose objects do nothing when they are made.
static INERT: &[(&str, &[&str])] = &[
    (
        "builtins",
        &[
            "bytearray",
            "complex",
            "range",
            "slice",
            "type",
            "Ellipsis",
            "NotImplemented",
        ],
    ),
    (
        "__builtin__",
        &[
            "bytearray",
            "complex",
            "long",
            "slice",
            "type",
            "unicode",
            "xrange",
        ],
    ),
    ("functools", &["partial"]),
    ("pathlib", PATHS),
    ("pathlib._local", PATHS),
    ("types", &["NoneType"]),
    ("uuid", &["UUID", "SafeUUID"]),
    ("torch.distributed.device_mesh", &["DeviceMesh"]),
    ("torch.distributed.tensor", &["DTensor"]),
    ("torch.distributed._tensor", &["DTensor"]),
    ("torch.distributed._tensor.api", &["DTensor"]),
    ("torch.distributed.tensor._api", &["DTensor"]),
    (
        "torch.distributed.tensor._dtensor_spec",
        &["DTensorSpec", "TensorMeta"],
    ),
    ("torch.distributed._tensor.placement_types", PLACEMENTS),
    ("torch.distributed.tensor.placement_types", PLACEMENTS),
    ("torch.distributed.remote_device", &["_remote_device"]),
    ("torch.distributed._shard.metadata", &["ShardMetadata"]),
    ("torch.distributed._shard.sharded_tensor.shard", &["Shard"]),
    (
        "torch.distributed._shard.sharded_tensor.api",
        &["ShardedTensor"],
    ),
    (
        "torch.distributed._shard.sharded_tensor.metadata",
        &[
            "ShardedTensorMetadata",
            "TensorProperties",
            "MEM_FORMAT_ENCODING",
        ],
    ),
    (
        "torch.distributed.checkpoint.metadata",
        &[
            "BytesStorageMetadata",
            "ChunkStorageMetadata",
            "Metadata",
            "MetadataIndex",
            "StorageMeta",
            "TensorProperties",
            "TensorStorageMetadata",
            "_MEM_FORMAT_ENCODING",
        ],
    ),
    (
        "torch.distributed.checkpoint.filesystem",
        &["_StorageInfo", "_StoragePrefix"],
    ),
];

const PATHS: &[&str] = &[
    "Path",
    "PosixPath",
    "PurePath",
    "PurePosixPath",
    "PureWindowsPath",
    "WindowsPath",
];
const PLACEMENTS: &[&str] = &[
    "DTensorSpec",
    "Partial",
    "Replicate",
    "Shard",
    "TensorMeta",
    "_StridedShard",
];

fn is_inert(module: &str, name: &str) -> bool {
    INERT
        .iter()
        .any(|(known, names)| *known == module && names.contains(&name))
}

/// What a name in a pickle stands for. Any other is kept as a name, and what is made by it stays unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    /// A type of elements, `torch.float32`.
    Type(Element),
    /// A class of storage, `torch.FloatStorage`.
    Storage(Element),
    UntypedStorage,
    /// A class of tensors.
    Tensor,
    RebuildTensor,
    RebuildTensorV2,
    /// The one with a type of its own, over a storage of bytes.
    RebuildTensorV3,
    RebuildParameter,
    RebuildFromType,
    RebuildSparse,
    RebuildQuantized,
    RebuildNested,
    RebuildMeta,
    /// A subclass that keeps its data in other tensors.
    RebuildWrapper,
    /// A tensor of a device that had none of the CPU's storages.
    RebuildOnDevice,
    /// How quantized values are scaled: for each channel, or for the tensor.
    Scheme(bool),
    /// A storage by the bytes of a file of its own, as plain pickles have it.
    LoadFromBytes,
    Size,
    Device,
    Layout,
    Dictionary,
    DefaultDictionary,
    List,
    Set,
    /// A plain type as a value, such as what a `defaultdict` fills in.
    Plain,
    /// Called, it gives no bytes, which protocol 2 has no other way to write.
    PlainBytes,
    Namespace,
    Deque,
    /// `copyreg._reconstructor` and `copyreg.__newobj__`: an instance of the class that comes first.
    Reconstruct,
    /// A class of the standard library whose objects are values and do nothing; they are left unread.
    Inert,
    /// Bytes under protocol 2: `_codecs.encode(text, "latin1")`.
    Encode,
    NumpyType,
    NumpyScalar,
    NumpyArray,
    /// A class that TorchScript has compiled; only its attributes are read.
    ScriptClass,
    /// TorchScript's marks around a list or dictionary.
    ScriptValue,
}

impl Global {
    pub(super) fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("torch._utils", "_rebuild_tensor") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensorV2,
            ("torch._utils", "_rebuild_tensor_v3") => Self::RebuildTensorV3,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                Self::RebuildParameter
            }
            ("torch._tensor", "_rebuild_from_type_v2" | "_rebuild_from_type") => {
                Self::RebuildFromType
            }
            ("torch._utils", "_rebuild_sparse_tensor" | "_rebuild_sparse_csr_tensor") => {
                Self::RebuildSparse
            }
            ("torch._utils", "_rebuild_qtensor") => Self::RebuildQuantized,
            ("torch._utils", "_rebuild_nested_tensor") => Self::RebuildNested,
            ("torch._utils", "_rebuild_meta_tensor_no_storage") => Self::RebuildMeta,
            ("torch._utils", "_rebuild_wrapper_subclass") => Self::RebuildWrapper,
            (
                "torch._utils",
                "_rebuild_device_tensor_from_numpy"
                | "_rebuild_device_tensor_from_cpu_tensor"
                | "_rebuild_xla_tensor",
            ) => Self::RebuildOnDevice,
            ("torch.storage", "_load_from_bytes") => Self::LoadFromBytes,
            ("torch", "per_tensor_affine") => Self::Scheme(false),
            ("torch", "per_channel_affine" | "per_channel_affine_float_qparams") => {
                Self::Scheme(true)
            }
            // NumPy's types that the package `ml_dtypes` adds have the names of PyTorch's.
            ("ml_dtypes", name) => {
                let row = ROWS.iter().find(|row| row.name == name);
                return row.map(|row| Self::Type(Element(row)));
            }
            ("torch", "Tensor") | ("torch.nn.parameter", "Parameter" | "Buffer") => Self::Tensor,
            ("torch", "Size") => Self::Size,
            ("torch", "device") => Self::Device,
            ("torch.serialization", "_get_layout") => Self::Layout,
            ("torch", "UntypedStorage") | ("torch.storage", "UntypedStorage") => {
                Self::UntypedStorage
            }
            ("torch" | "torch.cuda", _) => return Self::of_torch(name),
            ("collections", "OrderedDict" | "Counter") => Self::Dictionary,
            ("collections", "defaultdict") => Self::DefaultDictionary,
            ("builtins" | "__builtin__", "dict") => Self::Dictionary,
            ("builtins" | "__builtin__", "list" | "tuple") => Self::List,
            ("builtins" | "__builtin__", "set" | "frozenset") => Self::Set,
            ("builtins" | "__builtin__", "bytes") => Self::PlainBytes,
            ("builtins" | "__builtin__", "int" | "float" | "str" | "bool" | "object") => {
                Self::Plain
            }
            ("argparse", "Namespace") | ("types", "SimpleNamespace") => Self::Namespace,
            ("collections", "deque") => Self::Deque,
            ("copyreg" | "copy_reg", "_reconstructor" | "__newobj__") => Self::Reconstruct,
            _ if is_inert(module, name) => Self::Inert,
            ("_codecs", "encode") => Self::Encode,
            ("numpy", "dtype") => Self::NumpyType,
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Self::NumpyScalar,
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct")
            | ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer")
            | ("numpy", "ndarray" | "matrix" | "memmap")
            | ("numpy.matrixlib.defmatrix", "matrix") => Self::NumpyArray,
            (
                "torch.jit._pickle",
                "build_intlist" | "build_doublelist" | "build_boollist" | "build_tensorlist"
                | "restore_type_tag",
            ) => Self::ScriptValue,
            _ if module == "__torch__" || module.starts_with("__torch__.") => Self::ScriptClass,
            _ => return None,
        })
    }

    fn of_torch(name: &str) -> Option<Self> {
        if let Some(class) = name.strip_suffix("Storage") {
            return Element::of_class(class).map(Self::Storage);
        }
        if let Some(class) = name.strip_suffix("Tensor") {
            return Element::of_class(class).map(|_| Self::Tensor);
        }
        let named = |row: &&Row| !name.is_empty() && (row.name == name || row.alias == name);
        ROWS.iter().find(named).map(|row| Self::Type(Element(row)))
    }

    /// Whether it makes a tensor.
    pub(super) fn rebuilds(self) -> bool {
        matches!(
            self,
            Self::RebuildTensor
                | Self::RebuildTensorV2
                | Self::RebuildTensorV3
                | Self::RebuildParameter
                | Self::RebuildFromType
                | Self::RebuildSparse
                | Self::RebuildQuantized
                | Self::RebuildNested
                | Self::RebuildMeta
                | Self::RebuildWrapper
                | Self::RebuildOnDevice
        )
    }
}

impl fmt::Display for Global {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Type(element) => return write!(f, "torch.{}", element.0.name),
            Self::Storage(element) => return write!(f, "torch.{}Storage", element.0.class),
            Self::UntypedStorage => "torch.storage.UntypedStorage",
            Self::Tensor => "torch.Tensor",
            Self::RebuildTensor => "torch._utils._rebuild_tensor",
            Self::RebuildTensorV2 => "torch._utils._rebuild_tensor_v2",
            Self::RebuildTensorV3 => "torch._utils._rebuild_tensor_v3",
            Self::RebuildParameter => "torch._utils._rebuild_parameter",
            Self::RebuildFromType => "torch._tensor._rebuild_from_type_v2",
            Self::RebuildSparse => "torch._utils._rebuild_sparse_tensor",
            Self::RebuildQuantized => "torch._utils._rebuild_qtensor",
            Self::RebuildNested => "torch._utils._rebuild_nested_tensor",
            Self::RebuildMeta => "torch._utils._rebuild_meta_tensor_no_storage",
            Self::RebuildWrapper => "torch._utils._rebuild_wrapper_subclass",
            Self::RebuildOnDevice => "torch._utils._rebuild_device_tensor_from_numpy",
            Self::Scheme(false) => "torch.per_tensor_affine",
            Self::Scheme(true) => "torch.per_channel_affine",
            Self::LoadFromBytes => "torch.storage._load_from_bytes",
            Self::Size => "torch.Size",
            Self::Device => "torch.device",
            Self::Layout => "torch.serialization._get_layout",
            Self::Dictionary => "collections.OrderedDict",
            Self::DefaultDictionary => "collections.defaultdict",
            Self::List => "builtins.list",
            Self::Set => "builtins.set",
            Self::Plain => "builtins.object",
            Self::PlainBytes => "builtins.bytes",
            Self::Namespace => "argparse.Namespace",
            Self::Deque => "collections.deque",
            Self::Reconstruct => "copyreg._reconstructor",
            Self::Inert => "builtins.object",
            Self::Encode => "_codecs.encode",
            Self::NumpyType => "numpy.dtype",
            Self::NumpyScalar => "numpy.core.multiarray.scalar",
            Self::NumpyArray => "numpy.ndarray",
            Self::ScriptClass => "__torch__",
            Self::ScriptValue => "torch.jit._pickle",
        })
    }
}
