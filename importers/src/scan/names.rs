//! What a pickle may name, and what it would do.
//!
//! The allow-list comes first, and what is on no list is not passed over: a module of Python's standard library is
//! dangerous unless its name is listed as data, and an unknown function is dangerous once it is called.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::pytorch;

/// What is known of a qualified name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Weights, arrays and plain values are made of it.
    Allowed,
    /// A class of a library of machine learning, which holds data.
    Library,
    /// A function of such a library; dangerous if it is called.
    LibraryFunction,
    /// What it does.
    Dangerous(&'static str),
    /// A class that no list has.
    UnknownClass,
    /// A function that no list has; dangerous if it is called.
    UnknownFunction,
}

const PROGRAMS: &str = "runs programs";
const CODE: &str = "runs code";
const NETWORK: &str = "reaches over the network";
const FILES: &str = "reads, writes or removes files";
const ATTRIBUTES: &str = "finds anything by its name";
const PICKLES: &str = "unpickles once more";
const STATE: &str = "changes the running program";
const IMPORTS: &str = "imports anything by its name";
const BUILTIN: &str = "is a builtin that no data is made of";
const STANDARD: &str = "is a part of Python's standard library that no data is made of";
const DOTTED: &str = "reaches through attributes for what its module merely imports";

/// Modules with everything below them; the longest that fits counts. `None` marks modules whose classes are data.
const MODULES: &[(&str, Option<&str>)] = &[
    // The standard library, as far as there is more to say than that it is not data.
    ("os", Some(PROGRAMS)),
    ("posix", Some(PROGRAMS)),
    ("nt", Some(PROGRAMS)),
    ("subprocess", Some(PROGRAMS)),
    ("_posixsubprocess", Some(PROGRAMS)),
    ("_winapi", Some(PROGRAMS)),
    ("commands", Some(PROGRAMS)),
    ("popen2", Some(PROGRAMS)),
    ("pty", Some(PROGRAMS)),
    ("pipes", Some(PROGRAMS)),
    ("platform", Some(PROGRAMS)),
    ("multiprocessing", Some(PROGRAMS)),
    ("_multiprocessing", Some(PROGRAMS)),
    ("asyncio", Some(PROGRAMS)),
    ("concurrent", Some(PROGRAMS)),
    ("webbrowser", Some(PROGRAMS)),
    // In two parts: its middle is the name of an architecture, of which none may stand in this crate.
    (concat!("antigravi", "ty"), Some(PROGRAMS)),
    ("pydoc", Some(PROGRAMS)),
    ("distutils", Some(PROGRAMS)),
    ("_distutils_hack", Some(PROGRAMS)),
    ("setuptools", Some(PROGRAMS)),
    ("pkg_resources", Some(PROGRAMS)),
    ("pip", Some(PROGRAMS)),
    ("ensurepip", Some(PROGRAMS)),
    ("venv", Some(PROGRAMS)),
    ("zipapp", Some(PROGRAMS)),
    ("test", Some(PROGRAMS)),
    ("uuid", Some(PROGRAMS)),
    ("_aix_support", Some(PROGRAMS)),
    ("_osx_support", Some(PROGRAMS)),
    ("_pyrepl", Some(PROGRAMS)),
    ("imaplib", Some(PROGRAMS)),
    ("turtledemo", Some(PROGRAMS)),
    ("builtins", Some(BUILTIN)),
    ("runpy", Some(CODE)),
    ("code", Some(CODE)),
    ("codeop", Some(CODE)),
    ("cmd", Some(CODE)),
    ("pdb", Some(CODE)),
    ("bdb", Some(CODE)),
    ("timeit", Some(CODE)),
    ("trace", Some(CODE)),
    ("profile", Some(CODE)),
    ("cProfile", Some(CODE)),
    ("doctest", Some(CODE)),
    ("unittest", Some(CODE)),
    ("idlelib", Some(CODE)),
    ("lib2to3", Some(CODE)),
    ("rlcompleter", Some(CODE)),
    ("sched", Some(CODE)),
    ("ctypes", Some(CODE)),
    ("_ctypes", Some(CODE)),
    ("cffi", Some(CODE)),
    ("marshal", Some(CODE)),
    ("types", Some(CODE)),
    ("new", Some(CODE)),
    ("imp", Some(CODE)),
    ("_imp", Some(CODE)),
    ("importlib", Some(IMPORTS)),
    ("_frozen_importlib", Some(IMPORTS)),
    ("_frozen_importlib_external", Some(IMPORTS)),
    ("zipimport", Some(IMPORTS)),
    ("pkgutil", Some(IMPORTS)),
    ("modulefinder", Some(IMPORTS)),
    ("ihooks", Some(IMPORTS)),
    ("socket", Some(NETWORK)),
    ("_socket", Some(NETWORK)),
    ("socketserver", Some(NETWORK)),
    ("ssl", Some(NETWORK)),
    ("_ssl", Some(NETWORK)),
    ("http", Some(NETWORK)),
    ("httplib", Some(NETWORK)),
    ("urllib", Some(NETWORK)),
    ("urllib2", Some(NETWORK)),
    ("ftplib", Some(NETWORK)),
    ("smtplib", Some(NETWORK)),
    ("smtpd", Some(NETWORK)),
    ("telnetlib", Some(NETWORK)),
    ("poplib", Some(NETWORK)),
    ("nntplib", Some(NETWORK)),
    ("xmlrpc", Some(NETWORK)),
    ("xmlrpclib", Some(NETWORK)),
    ("asyncore", Some(NETWORK)),
    ("asynchat", Some(NETWORK)),
    ("wsgiref", Some(NETWORK)),
    ("shutil", Some(FILES)),
    ("io", Some(FILES)),
    ("_io", Some(FILES)),
    ("_pyio", Some(FILES)),
    ("tempfile", Some(FILES)),
    ("pathlib", Some(FILES)),
    ("fileinput", Some(FILES)),
    ("linecache", Some(FILES)),
    ("logging", Some(FILES)),
    ("zipfile", Some(FILES)),
    ("tarfile", Some(FILES)),
    ("gzip", Some(FILES)),
    ("bz2", Some(FILES)),
    ("lzma", Some(FILES)),
    ("glob", Some(FILES)),
    ("mmap", Some(FILES)),
    ("dbm", Some(FILES)),
    ("sqlite3", Some(FILES)),
    ("_sqlite3", Some(FILES)),
    ("csv", Some(FILES)),
    ("mailbox", Some(FILES)),
    ("compileall", Some(FILES)),
    ("py_compile", Some(FILES)),
    ("operator", Some(ATTRIBUTES)),
    ("_operator", Some(ATTRIBUTES)),
    ("functools", Some(ATTRIBUTES)),
    ("_functools", Some(ATTRIBUTES)),
    ("inspect", Some(ATTRIBUTES)),
    ("pickle", Some(PICKLES)),
    ("_pickle", Some(PICKLES)),
    ("cPickle", Some(PICKLES)),
    ("shelve", Some(PICKLES)),
    ("sys", Some(STATE)),
    ("gc", Some(STATE)),
    ("signal", Some(STATE)),
    ("threading", Some(STATE)),
    ("_thread", Some(STATE)),
    ("thread", Some(STATE)),
    ("site", Some(STATE)),
    ("atexit", Some(STATE)),
    ("faulthandler", Some(STATE)),
    ("resource", Some(STATE)),
    ("copyreg", Some(STATE)),
    // Packages that do more than hold data.
    ("requests", Some(NETWORK)),
    ("aiohttp", Some(NETWORK)),
    ("httpx", Some(NETWORK)),
    ("urllib3", Some(NETWORK)),
    ("websocket", Some(NETWORK)),
    ("websockets", Some(NETWORK)),
    ("paramiko", Some(NETWORK)),
    ("boto3", Some(NETWORK)),
    ("gradio", Some(NETWORK)),
    ("huggingface_hub", Some(NETWORK)),
    ("pexpect", Some(PROGRAMS)),
    ("sh", Some(PROGRAMS)),
    ("plumbum", Some(PROGRAMS)),
    ("invoke", Some(PROGRAMS)),
    ("fabric", Some(PROGRAMS)),
    ("psutil", Some(PROGRAMS)),
    ("IPython", Some(CODE)),
    ("ipykernel", Some(CODE)),
    ("jinja2", Some(CODE)),
    ("mako", Some(CODE)),
    ("numexpr", Some(CODE)),
    ("sympy", Some(CODE)),
    ("hydra", Some(IMPORTS)),
    ("fire", Some(CODE)),
    ("dill", Some(PICKLES)),
    ("cloudpickle", Some(PICKLES)),
    ("jsonpickle", Some(PICKLES)),
    ("yaml", Some(PICKLES)),
    ("joblib", Some(PICKLES)),
    ("fsspec", Some(FILES)),
    ("h5py", Some(FILES)),
    ("torch.jit", Some(CODE)),
    ("torch.fx", Some(CODE)),
    ("torch.ops", Some(CODE)),
    ("torch._ops", Some(CODE)),
    ("torch.classes", Some(CODE)),
    ("torch.export", Some(CODE)),
    ("torch.package", Some(CODE)),
    ("torch.library", Some(CODE)),
    ("torch._dynamo", Some(CODE)),
    ("torch._export", Some(CODE)),
    ("torch._functorch", Some(CODE)),
    ("torch._inductor", Some(PROGRAMS)),
    ("torch._utils_internal", Some(PROGRAMS)),
    ("torch._sources", Some(CODE)),
    ("torch.testing", Some(CODE)),
    ("torch.onnx", Some(FILES)),
    ("torch.hub", Some(NETWORK)),
    ("torch.distributed", Some(NETWORK)),
    ("torch.distributed._shard", None),
    ("torch.distributed._tensor", None),
    ("torch.distributed.tensor", None),
    ("torch.distributed.checkpoint.metadata", None),
    ("torch.distributed.fsdp", None),
    ("torch.multiprocessing", Some(PROGRAMS)),
    ("torch.serialization", Some(PICKLES)),
    ("torch.storage", Some(PICKLES)),
    ("torch.utils", Some(CODE)),
    ("torch.utils.data", None),
    ("torch.utils.model_zoo", Some(NETWORK)),
    ("torch.utils.collect_env", Some(PROGRAMS)),
    ("torch.utils.cpp_extension", Some(PROGRAMS)),
    ("torch.utils._pytree", None),
    ("torch.utils.hooks", None),
    ("torch", None),
    ("torchvision.datasets", Some(FILES)),
    ("torchvision.io", Some(FILES)),
    ("torchvision", None),
    ("torchaudio.datasets", Some(FILES)),
    ("torchaudio", None),
    ("torchmetrics", None),
    ("numpy.f2py", Some(PROGRAMS)),
    ("numpy.distutils", Some(PROGRAMS)),
    ("numpy.testing", Some(CODE)),
    ("numpy.lib.npyio", Some(FILES)),
    ("numpy.lib._npyio_impl", Some(FILES)),
    ("numpy.lib._datasource", Some(FILES)),
    ("numpy.ctypeslib", Some(CODE)),
    ("numpy.core.memmap", Some(FILES)),
    ("numpy._core.memmap", Some(FILES)),
    ("numpy", None),
    ("scipy.io", Some(FILES)),
    ("scipy.datasets", Some(NETWORK)),
    ("scipy.weave", Some(CODE)),
    ("scipy", None),
    ("sklearn.datasets", Some(NETWORK)),
    ("sklearn.externals", Some(PICKLES)),
    ("sklearn", None),
    ("imblearn", None),
    ("pandas.io", Some(FILES)),
    ("pandas.core.computation", Some(CODE)),
    ("pandas.util", Some(CODE)),
    ("pandas", None),
    ("pyarrow", None),
    ("polars", None),
    ("xgboost", None),
    ("lightgbm", None),
    ("catboost", None),
    ("statsmodels", None),
    ("networkx", None),
    ("nltk.downloader", Some(NETWORK)),
    ("nltk.data", Some(PICKLES)),
    ("nltk", None),
    ("gensim", None),
    ("spacy", None),
    ("transformers.agents", Some(CODE)),
    ("transformers.tools", Some(CODE)),
    ("transformers.pipelines", Some(NETWORK)),
    ("transformers.utils", Some(NETWORK)),
    ("transformers.dynamic_module_utils", Some(IMPORTS)),
    ("transformers.file_utils", Some(NETWORK)),
    ("transformers.testing_utils", Some(PROGRAMS)),
    ("transformers.commands", Some(PROGRAMS)),
    ("transformers", None),
    ("accelerate.commands", Some(PROGRAMS)),
    ("accelerate.launchers", Some(PROGRAMS)),
    ("accelerate", None),
    ("peft", None),
    ("diffusers", None),
    ("sentence_transformers", None),
    ("tokenizers", None),
    ("timm", None),
    ("ultralytics", None),
    ("models.yolo", None),
    ("models.common", None),
    ("pytorch_lightning.cli", Some(CODE)),
    ("pytorch_lightning", None),
    ("lightning.pytorch.cli", Some(CODE)),
    ("lightning.pytorch", None),
    ("lightning.fabric", None),
    ("lightning_fabric", None),
    ("omegaconf", None),
    ("ml_dtypes", None),
    ("jax", None),
    ("jaxlib", None),
    ("flax", None),
    ("optax", None),
    ("tensorflow", Some(CODE)),
    ("tensorflow_core", Some(CODE)),
    ("keras", Some(CODE)),
    ("tf_keras", Some(CODE)),
    ("deepspeed", None),
    ("fairseq", None),
    ("detectron2", None),
    ("mmengine", None),
    ("mmcv", None),
];

/// Single names that differ from their modules.
const NAMES: &[(&str, &str, Judgement)] = &[
    ("builtins", "eval", Judgement::Dangerous(CODE)),
    ("builtins", "exec", Judgement::Dangerous(CODE)),
    ("builtins", "execfile", Judgement::Dangerous(CODE)),
    ("builtins", "compile", Judgement::Dangerous(CODE)),
    ("builtins", "apply", Judgement::Dangerous(CODE)),
    ("builtins", "map", Judgement::Dangerous(CODE)),
    ("builtins", "filter", Judgement::Dangerous(CODE)),
    ("builtins", "breakpoint", Judgement::Dangerous(CODE)),
    ("builtins", "type", Judgement::Dangerous(CODE)),
    ("builtins", "help", Judgement::Dangerous(CODE)),
    ("builtins", "__import__", Judgement::Dangerous(IMPORTS)),
    ("builtins", "__build_class__", Judgement::Dangerous(CODE)),
    ("builtins", "getattr", Judgement::Dangerous(ATTRIBUTES)),
    ("builtins", "setattr", Judgement::Dangerous(STATE)),
    ("builtins", "delattr", Judgement::Dangerous(STATE)),
    ("builtins", "globals", Judgement::Dangerous(ATTRIBUTES)),
    ("builtins", "locals", Judgement::Dangerous(ATTRIBUTES)),
    ("builtins", "vars", Judgement::Dangerous(ATTRIBUTES)),
    ("builtins", "open", Judgement::Dangerous(FILES)),
    ("builtins", "file", Judgement::Dangerous(FILES)),
    ("builtins", "exit", Judgement::Dangerous(STATE)),
    ("builtins", "quit", Judgement::Dangerous(STATE)),
    ("functools", "partial", Judgement::Dangerous(CODE)),
    ("functools", "reduce", Judgement::Dangerous(CODE)),
    ("types", "SimpleNamespace", Judgement::Allowed),
    ("uuid", "UUID", Judgement::Allowed),
    ("uuid", "SafeUUID", Judgement::Allowed),
    ("logging", "getLogger", Judgement::Allowed),
    ("logging.config", "listen", Judgement::Dangerous(NETWORK)),
    ("operator", "itemgetter", Judgement::Allowed),
    ("_operator", "itemgetter", Judgement::Allowed),
    ("copyreg", "_reconstructor", Judgement::Allowed),
    ("copyreg", "__newobj__", Judgement::Allowed),
    ("copyreg", "__newobj_ex__", Judgement::Allowed),
    (
        "joblib.numpy_pickle",
        "NumpyArrayWrapper",
        Judgement::Allowed,
    ),
    ("joblib.numpy_pickle", "NDArrayWrapper", Judgement::Allowed),
    ("joblib.numpy_pickle", "ZNDArrayWrapper", Judgement::Allowed),
    (
        "torch.utils.data._utils.collate",
        "default_collate",
        Judgement::Allowed,
    ),
    ("torch.storage", "_load_from_bytes", Judgement::Library),
    ("torch.storage", "TypedStorage", Judgement::Allowed),
    ("torch.storage", "_TypedStorage", Judgement::Allowed),
    ("torch.storage", "_UntypedStorage", Judgement::Allowed),
    ("torch", "load", Judgement::Dangerous(PICKLES)),
    ("torch", "save", Judgement::Dangerous(FILES)),
    ("torch", "from_file", Judgement::Dangerous(FILES)),
    ("torch", "compile", Judgement::Dangerous(CODE)),
    ("torch", "load_library", Judgement::Dangerous(CODE)),
    ("numpy", "load", Judgement::Dangerous(PICKLES)),
    ("numpy", "loadtxt", Judgement::Dangerous(FILES)),
    ("numpy", "genfromtxt", Judgement::Dangerous(FILES)),
    ("numpy", "fromfile", Judgement::Dangerous(FILES)),
    ("numpy", "fromregex", Judgement::Dangerous(FILES)),
    ("numpy", "memmap", Judgement::Dangerous(FILES)),
    ("numpy", "save", Judgement::Dangerous(FILES)),
    ("numpy", "savez", Judgement::Dangerous(FILES)),
    ("numpy", "savez_compressed", Judgement::Dangerous(FILES)),
    ("numpy", "savetxt", Judgement::Dangerous(FILES)),
    ("numpy", "DataSource", Judgement::Dangerous(FILES)),
    ("numpy", "vectorize", Judgement::Dangerous(CODE)),
    ("numpy", "apply_along_axis", Judgement::Dangerous(CODE)),
    ("numpy", "apply_over_axes", Judgement::Dangerous(CODE)),
    ("numpy", "piecewise", Judgement::Dangerous(CODE)),
    ("numpy", "fromfunction", Judgement::Dangerous(CODE)),
    (
        "numpy.core",
        "_ufunc_reconstruct",
        Judgement::Dangerous(IMPORTS),
    ),
    (
        "numpy._core",
        "_ufunc_reconstruct",
        Judgement::Dangerous(IMPORTS),
    ),
    ("pandas", "read_pickle", Judgement::Dangerous(PICKLES)),
    ("pandas", "eval", Judgement::Dangerous(CODE)),
    ("pandas", "HDFStore", Judgement::Dangerous(FILES)),
    ("pandas", "ExcelFile", Judgement::Dangerous(FILES)),
    ("pandas", "ExcelWriter", Judgement::Dangerous(FILES)),
    ("transformers", "pipeline", Judgement::Dangerous(NETWORK)),
    (
        "transformers.utils.generic",
        "PaddingStrategy",
        Judgement::Allowed,
    ),
    (
        "transformers.utils.generic",
        "ModelOutput",
        Judgement::Allowed,
    ),
    (
        "tensorflow.python.framework.dtypes",
        "as_dtype",
        Judgement::Allowed,
    ),
    (
        "tensorflow.python.framework.dtypes",
        "DType",
        Judgement::Allowed,
    ),
    (
        "tensorflow.python.framework.tensor_shape",
        "TensorShape",
        Judgement::Allowed,
    ),
    ("tensorflow", "io.write_file", Judgement::Dangerous(FILES)),
    ("tensorflow", "io.read_file", Judgement::Dangerous(FILES)),
    ("tensorflow.io", "write_file", Judgement::Dangerous(FILES)),
    ("tensorflow.io", "read_file", Judgement::Dangerous(FILES)),
    ("zoneinfo", "ZoneInfo._unpickle", Judgement::Allowed),
    ("zoneinfo", "ZoneInfo", Judgement::Allowed),
];

/// Names of the standard library that are values, or make nothing but values.
const VALUES: &[(&str, &[&str])] = &[
    (
        "builtins",
        &[
            "complex",
            "int",
            "long",
            "float",
            "str",
            "unicode",
            "bool",
            "bytes",
            "bytearray",
            "list",
            "dict",
            "set",
            "tuple",
            "frozenset",
            "object",
            "slice",
            "range",
            "xrange",
            "iter",
            "Ellipsis",
            "NotImplemented",
            "None",
            "True",
            "False",
            "NoneType",
            "basestring",
            "memoryview",
            "reversed",
            "enumerate",
            "property",
            "staticmethod",
            "classmethod",
            "min",
            "max",
            "abs",
            "sum",
            "len",
            "round",
            "sorted",
            "zip",
            "hash",
            "pow",
            "divmod",
        ],
    ),
    (
        "collections",
        &[
            "OrderedDict",
            "defaultdict",
            "Counter",
            "deque",
            "UserDict",
            "UserList",
            "UserString",
            "ChainMap",
        ],
    ),
    (
        "datetime",
        &["datetime", "date", "time", "timedelta", "timezone"],
    ),
    (
        "_datetime",
        &["datetime", "date", "time", "timedelta", "timezone"],
    ),
    ("decimal", &["Decimal"]),
    ("_decimal", &["Decimal"]),
    ("fractions", &["Fraction"]),
    (
        "pathlib",
        &[
            "Path",
            "PosixPath",
            "WindowsPath",
            "PurePath",
            "PurePosixPath",
            "PureWindowsPath",
        ],
    ),
    (
        "pathlib._local",
        &[
            "Path",
            "PosixPath",
            "WindowsPath",
            "PurePath",
            "PurePosixPath",
            "PureWindowsPath",
        ],
    ),
    (
        "ipaddress",
        &["IPv4Address", "IPv6Address", "IPv4Network", "IPv6Network"],
    ),
    ("array", &["array", "_array_reconstructor"]),
    ("random", &["Random"]),
    ("re", &["_compile", "RegexFlag"]),
    ("regex._regex_core", &["Pattern"]),
    ("regex", &["_compile"]),
    ("regex.regex", &["_compile"]),
    ("itertools", &["count", "repeat"]),
    ("argparse", &["Namespace"]),
    ("string", &["Template"]),
    ("time", &["struct_time"]),
    ("enum", &["Enum", "IntEnum", "Flag", "IntFlag", "StrEnum"]),
    (
        "math",
        &[
            "sqrt", "exp", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "tanh", "floor",
            "ceil", "pow", "fabs",
        ],
    ),
    (
        "typing",
        &[
            "Any", "List", "Dict", "Optional", "Union", "Tuple", "Set", "Callable", "Sequence",
            "Literal",
        ],
    ),
    ("_codecs", &["encode"]),
    ("dataclasses", &["_MISSING_TYPE"]),
    ("calendar", &["Month", "Day"]),
    ("queue", &["Queue"]),
];

/// Modules of the standard library, of any version since Python 2, that the table above does not have.
const STANDARD_MODULES: &[&str] = &[
    "abc",
    "aifc",
    "anydbm",
    "argparse",
    "array",
    "ast",
    "audioop",
    "base64",
    "binascii",
    "bisect",
    "calendar",
    "cgi",
    "cgitb",
    "chunk",
    "cmath",
    "codecs",
    "collections",
    "colorsys",
    "compiler",
    "configparser",
    "contextlib",
    "contextvars",
    "copy",
    "crypt",
    "curses",
    "dataclasses",
    "datetime",
    "decimal",
    "difflib",
    "dis",
    "dummy_thread",
    "dummy_threading",
    "email",
    "encodings",
    "enum",
    "errno",
    "exceptions",
    "fcntl",
    "filecmp",
    "fnmatch",
    "formatter",
    "fractions",
    "genericpath",
    "getopt",
    "getpass",
    "gettext",
    "graphlib",
    "grp",
    "hashlib",
    "heapq",
    "hmac",
    "html",
    "imghdr",
    "ipaddress",
    "itertools",
    "json",
    "keyword",
    "lib2to3",
    "locale",
    "macpath",
    "mailcap",
    "math",
    "mimetypes",
    "msilib",
    "msvcrt",
    "netrc",
    "nis",
    "ntpath",
    "nturl2path",
    "numbers",
    "opcode",
    "optparse",
    "ossaudiodev",
    "parser",
    "pickletools",
    "plistlib",
    "posixpath",
    "posixfile",
    "pprint",
    "pstats",
    "pwd",
    "pyclbr",
    "pydoc_data",
    "pyexpat",
    "queue",
    "quopri",
    "random",
    "re",
    "readline",
    "reprlib",
    "secrets",
    "select",
    "selectors",
    "shlex",
    "sndhdr",
    "spwd",
    "sre_compile",
    "sre_constants",
    "sre_parse",
    "stat",
    "statistics",
    "string",
    "stringprep",
    "struct",
    "sunau",
    "symbol",
    "symtable",
    "sysconfig",
    "syslog",
    "tabnanny",
    "termios",
    "textwrap",
    "this",
    "time",
    "tkinter",
    "token",
    "tokenize",
    "tomllib",
    "traceback",
    "tracemalloc",
    "tty",
    "turtle",
    "typing",
    "unicodedata",
    "user",
    "uu",
    "warnings",
    "wave",
    "weakref",
    "whichdb",
    "winreg",
    "winsound",
    "xdrlib",
    "xml",
    "zlib",
    "zoneinfo",
    "_codecs",
    "_collections",
    "_csv",
    "_ctypes_test",
    "_datetime",
    "_decimal",
    "_elementtree",
    "_interpreters",
    "_interpchannels",
    "_json",
    "_lsprof",
    "_lzma",
    "_bz2",
    "_random",
    "_sitebuiltins",
    "_sre",
    "_struct",
    "_testcapi",
    "_testinternalcapi",
    "_tkinter",
    "_weakref",
    "_xxsubinterpreters",
    "_uuid",
    "_warnings",
    "_queue",
    "_heapq",
    "_bootsubprocess",
];

/// NumPy's and SciPy's functions that pickles call to make arrays and generators, and mathematical functions that
/// estimators refer to.
const NUMPY: &[(&str, &[&str])] = &[
    ("numpy.core.multiarray", &["_reconstruct", "scalar"]),
    ("numpy._core.multiarray", &["_reconstruct", "scalar"]),
    ("numpy.core.numeric", &["_frombuffer"]),
    ("numpy._core.numeric", &["_frombuffer"]),
    ("numpy.core._internal", &["_convert_to_stringdtype_kwargs"]),
    ("numpy._core._internal", &["_convert_to_stringdtype_kwargs"]),
    ("numpy.ma.core", &["_mareconstruct"]),
    (
        "numpy.random._pickle",
        &[
            "__randomstate_ctor",
            "__generator_ctor",
            "__bit_generator_ctor",
        ],
    ),
    ("numpy.random", &["__RandomState_ctor"]),
    (
        "numpy",
        &[
            "ndarray",
            "dtype",
            "matrix",
            "recarray",
            "record",
            "poly1d",
            "generic",
            "number",
            "integer",
            "signedinteger",
            "unsignedinteger",
            "inexact",
            "floating",
            "bool",
            "bool_",
            "int8",
            "int16",
            "int32",
            "int64",
            "uint8",
            "uint16",
            "uint32",
            "uint64",
            "intc",
            "uintc",
            "int_",
            "uint",
            "intp",
            "uintp",
            "byte",
            "ubyte",
            "short",
            "ushort",
            "longlong",
            "ulonglong",
            "half",
            "float16",
            "float32",
            "float64",
            "float128",
            "longdouble",
            "single",
            "double",
            "float_",
            "csingle",
            "cdouble",
            "complex64",
            "complex128",
            "complex256",
            "clongdouble",
            "str_",
            "bytes_",
            "void",
            "object_",
            "unicode_",
            "string_",
            "datetime64",
            "timedelta64",
            "exp",
            "expm1",
            "log",
            "log1p",
            "log2",
            "log10",
            "sqrt",
            "square",
            "cbrt",
            "sin",
            "cos",
            "tan",
            "tanh",
            "abs",
            "absolute",
            "sign",
            "mean",
            "median",
            "sum",
            "min",
            "max",
            "argmax",
            "argmin",
            "std",
            "var",
            "prod",
            "add",
            "subtract",
            "multiply",
            "divide",
            "true_divide",
            "power",
            "maximum",
            "minimum",
            "nanmean",
            "nanmedian",
            "amax",
            "amin",
            "clip",
            "isnan",
            "inf",
            "nan",
        ],
    ),
];

/// How functions are called that libraries unpickle their own objects by.
fn rebuilds(name: &str) -> bool {
    name == "newObj"
        || ["__pyx_unpickle_", "_unpickle_", "_rebuild_", "_reconstruct"]
            .iter()
            .any(|begins| name.starts_with(begins))
        || name == "_new_Index"
        || name == "_new_DatetimeIndex"
        || name == "_new_PeriodIndex"
        || name == "_unpickle"
}

static TABLE: LazyLock<HashMap<&str, Option<&str>>> =
    LazyLock::new(|| MODULES.iter().copied().collect());
static SINGLE: LazyLock<HashMap<(&str, &str), Judgement>> = LazyLock::new(|| {
    let mut single: HashMap<_, _> = HashMap::new();
    for (module, names) in VALUES.iter().chain(NUMPY) {
        single.extend(
            names
                .iter()
                .map(|name| ((*module, *name), Judgement::Allowed)),
        );
    }
    single.extend(
        NAMES
            .iter()
            .map(|(module, name, judged)| ((*module, *name), *judged)),
    );
    single
});

/// SciPy's classes in small letters.
fn is_small_class(module: &str, name: &str) -> bool {
    module.starts_with("scipy.")
        && (["_matrix", "_array", "_gen", "_frozen"]
            .iter()
            .any(|ends| name.ends_with(ends))
            || matches!(
                name,
                "interp1d" | "interp2d" | "cKDTree" | "rv_discrete" | "rv_continuous"
            ))
}

/// Python 2's names of modules that were renamed.
fn renamed(module: &str) -> &str {
    match module {
        "__builtin__" | "__builtins__" | "builtin" => "builtins",
        "copy_reg" => "copyreg",
        other => other,
    }
}

/// Judges what `module.name` is.
pub(super) fn judge(module: &str, name: &str) -> Judgement {
    if pytorch::is_known(module, name) {
        return Judgement::Allowed;
    }
    let module = renamed(module.trim_end_matches('\r'));
    let name = name.trim_end_matches('\r');
    if let Some(judged) = SINGLE.get(&(module, name)) {
        return *judged;
    }
    let exception = |name: &str| {
        [
            "Error",
            "Exception",
            "Warning",
            "Interrupt",
            "Exit",
            "StopIteration",
        ]
        .iter()
        .any(|ends| name.ends_with(ends))
    };
    if matches!(module, "builtins" | "exceptions") && exception(name) {
        return Judgement::Allowed;
    }
    let known = prefix(module);
    // Python walks the attributes of a dotted name: `torch` has an `os` among them.
    if let Some((first, rest)) = name.split_once('.') {
        let nested = std::iter::once(first)
            .chain(rest.split('.'))
            .all(is_class_name);
        return match known {
            Some(Some(does)) => Judgement::Dangerous(does),
            _ if nested => judge(module, first),
            Some(None) => Judgement::Dangerous(DOTTED),
            None if first.is_empty() || hides(name) => Judgement::Dangerous(DOTTED),
            None => Judgement::UnknownFunction,
        };
    }
    // `numpy.os` is the module, and so is anything that another module merely imports.
    if (known.is_some() || is_standard(module)) && (is_standard(name) || TABLE.contains_key(name)) {
        return Judgement::Dangerous(DOTTED);
    }
    match known {
        Some(Some(does)) => Judgement::Dangerous(does),
        Some(None) if rebuilds(name) || is_class_name(name) || is_small_class(module, name) => {
            Judgement::Library
        }
        Some(None) => Judgement::LibraryFunction,
        None if is_standard(module) => Judgement::Dangerous(STANDARD),
        None if is_class_name(name) => Judgement::UnknownClass,
        None => Judgement::UnknownFunction,
    }
}

/// Whether a name goes through attributes that every object has.
fn hides(name: &str) -> bool {
    name.split('.').any(|part| part.starts_with("__"))
}

/// What the longest listed module says that `module` is in.
fn prefix(module: &str) -> Option<Option<&'static str>> {
    let mut part = module;
    loop {
        if let Some(found) = TABLE.get(part) {
            return Some(*found);
        }
        part = &part[..part.rfind('.')?];
    }
}

fn is_standard(module: &str) -> bool {
    let top = module.split('.').next().unwrap_or_default();
    STANDARD_MODULES.contains(&top)
}

/// Whether it is written as classes are: `TrainingArguments`, `_Node`, `FloatStorage`.
fn is_class_name(name: &str) -> bool {
    name.trim_start_matches('_')
        .starts_with(|first: char| first.is_uppercase())
}

/// Whether a name is known for what it does, so that it means a pickle wherever it stands.
pub(super) fn is_known_danger(module: &str, name: &str) -> bool {
    matches!(judge(module, name), Judgement::Dangerous(does) if does != DOTTED)
}

/// What a builtin function does that no configuration needs; `None` if Python has no such builtin.
pub(super) fn builtin(name: &str) -> Option<&'static str> {
    const OTHERS: [&str; 14] = [
        "print",
        "input",
        "dir",
        "callable",
        "chr",
        "id",
        "isinstance",
        "issubclass",
        "next",
        "ord",
        "repr",
        "super",
        "format",
        "hasattr",
    ];
    match SINGLE.get(&("builtins", name)) {
        Some(Judgement::Dangerous(does)) => Some(does),
        Some(_) => None,
        None => OTHERS.contains(&name).then_some(BUILTIN),
    }
}

/// Whether a reader should refuse a pickle for a name alone, although it calls nothing: it is of something that could do
/// harm, or is no name at all.
pub(crate) fn is_dangerous(module: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '<' | '>');
    let is_special = |part: &str| part.starts_with("__") && part.ends_with("__");
    !module.chars().chain(name.chars()).all(is_word)
        || name.split('.').any(is_special)
        || matches!(judge(module, name), Judgement::Dangerous(_))
}

#[cfg(test)]
mod tests {
    use super::{Judgement, is_known_danger, judge};

    #[test]
    fn names_are_judged_by_the_longest_module() {
        for (module, name) in [
            ("os", "system"),
            ("posix", "system"),
            ("__builtin__", "eval"),
            ("builtins", "print"),
            ("torch.utils.model_zoo", "load_url"),
            ("numpy.testing._private.utils", "runstring"),
            ("numpy._core", "_ufunc_reconstruct"),
            ("torch", "serialization.os.system"),
            ("numpy", "os"),
            ("json", "loads"),
            ("torch.jit.unsupported_tensor_ops", "execWrapper"),
        ] {
            assert!(
                matches!(judge(module, name), Judgement::Dangerous(_)),
                "{module}.{name}"
            );
        }
        for (module, name) in [
            ("__builtin__", "complex"),
            ("collections", "OrderedDict"),
            ("exceptions", "ValueError"),
            ("numpy.core.multiarray", "_reconstruct"),
            ("pathlib", "PosixPath"),
            ("zoneinfo", "ZoneInfo._unpickle"),
        ] {
            assert_eq!(judge(module, name), Judgement::Allowed, "{module}.{name}");
        }
        assert_eq!(
            judge("torch.nn.modules.linear", "Linear"),
            Judgement::Library
        );
        assert_eq!(
            judge("sklearn.neighbors._kd_tree", "newObj"),
            Judgement::Library
        );
        assert_eq!(judge("__main__", "Settings"), Judgement::UnknownClass);
        assert_eq!(judge("__main__", "run"), Judgement::UnknownFunction);
        assert!(is_known_danger("nt", "system") && !is_known_danger("at", "dog"));
    }
}
