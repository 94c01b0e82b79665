//! What may be named in a pickle, and what it would do.

use crate::pytorch;

pub(super) enum Judgement {
    /// Weights are made of it.
    Weights,
    /// What it does.
    Dangerous(&'static str),
    /// It may do anything.
    Foreign,
}

const PROGRAMS: &str = "runs programs";
const CODE: &str = "runs code";
const NETWORK: &str = "reaches over the network";
const FILES: &str = "reads, writes or removes files";
const ATTRIBUTES: &str = "finds anything by its name";
const PICKLES: &str = "unpickles once more";
const STATE: &str = "changes the running program";

/// Modules, with all below them; the longest that fits counts.
const MODULES: &[(&str, &str)] = &[
    ("os", PROGRAMS),
    ("posix", PROGRAMS),
    ("nt", PROGRAMS),
    ("subprocess", PROGRAMS),
    ("_posixsubprocess", PROGRAMS),
    ("commands", PROGRAMS),
    ("popen2", PROGRAMS),
    ("pty", PROGRAMS),
    ("platform", PROGRAMS),
    ("multiprocessing", PROGRAMS),
    ("asyncio", PROGRAMS),
    ("webbrowser", PROGRAMS),
    ("pydoc", PROGRAMS),
    ("distutils", PROGRAMS),
    ("setuptools", PROGRAMS),
    ("pip", PROGRAMS),
    ("ensurepip", PROGRAMS),
    ("venv", PROGRAMS),
    ("test.support", PROGRAMS),
    ("uuid", PROGRAMS),
    ("imaplib", PROGRAMS),
    ("torch.utils.collect_env", PROGRAMS),
    ("torch.utils.cpp_extension", PROGRAMS),
    ("torch.utils._config_module", CODE),
    ("torch._inductor", PROGRAMS),
    ("numpy.f2py", PROGRAMS),
    ("numpy.distutils", PROGRAMS),
    ("numpy.testing._private.utils", CODE),
    ("builtins", CODE),
    ("__builtin__", CODE),
    ("__builtins__", CODE),
    ("runpy", CODE),
    ("code", CODE),
    ("codeop", CODE),
    ("pdb", CODE),
    ("bdb", CODE),
    ("timeit", CODE),
    ("trace", CODE),
    ("profile", CODE),
    ("cProfile", CODE),
    ("doctest", CODE),
    ("idlelib", CODE),
    ("lib2to3", CODE),
    ("ctypes", CODE),
    ("_ctypes", CODE),
    ("cffi", CODE),
    ("marshal", CODE),
    ("types", CODE),
    ("imp", CODE),
    ("importlib", CODE),
    ("_frozen_importlib", CODE),
    ("zipimport", CODE),
    ("pkgutil", CODE),
    ("torch.jit", CODE),
    ("torch.fx", CODE),
    ("torch.ops", CODE),
    ("torch._dynamo", CODE),
    ("torch.hub", NETWORK),
    ("torch.distributed", NETWORK),
    ("socket", NETWORK),
    ("_socket", NETWORK),
    ("ssl", NETWORK),
    ("http", NETWORK),
    ("httplib", NETWORK),
    ("urllib", NETWORK),
    ("urllib2", NETWORK),
    ("requests", NETWORK),
    ("aiohttp", NETWORK),
    ("ftplib", NETWORK),
    ("smtplib", NETWORK),
    ("telnetlib", NETWORK),
    ("poplib", NETWORK),
    ("xmlrpc", NETWORK),
    ("shutil", FILES),
    ("io", FILES),
    ("_io", FILES),
    ("tempfile", FILES),
    ("pathlib", FILES),
    ("fileinput", FILES),
    ("linecache", FILES),
    ("logging", FILES),
    ("zipfile", FILES),
    ("tarfile", FILES),
    ("sqlite3", FILES),
    ("operator", ATTRIBUTES),
    ("_operator", ATTRIBUTES),
    ("functools", ATTRIBUTES),
    ("_functools", ATTRIBUTES),
    ("inspect", ATTRIBUTES),
    ("pickle", PICKLES),
    ("_pickle", PICKLES),
    ("cPickle", PICKLES),
    ("dill", PICKLES),
    ("cloudpickle", PICKLES),
    ("joblib", PICKLES),
    ("shelve", PICKLES),
    ("torch.storage", PICKLES),
    ("sys", STATE),
    ("gc", STATE),
    ("signal", STATE),
    ("threading", STATE),
    ("_thread", STATE),
    ("site", STATE),
    ("copyreg", STATE),
    ("copy_reg", STATE),
];

/// Single names in modules that are harmless otherwise.
const NAMES: &[(&str, &str, &str)] = &[
    ("torch", "load", PICKLES),
    ("torch.serialization", "load", PICKLES),
    ("torch", "compile", CODE),
    ("numpy", "load", PICKLES),
    ("numpy", "fromfile", FILES),
    ("numpy", "save", FILES),
    ("builtins", "getattr", ATTRIBUTES),
    ("__builtin__", "getattr", ATTRIBUTES),
    ("builtins", "open", FILES),
    ("__builtin__", "open", FILES),
];

pub(super) fn judge(module: &str, name: &str) -> Judgement {
    if pytorch::is_known(module, name) {
        return Judgement::Weights;
    }
    let named = NAMES.iter().find(|(m, n, _)| *m == module && *n == name);
    if let Some((_, _, does)) = named {
        return Judgement::Dangerous(does);
    }
    let below = |known: &str| {
        let rest = module.strip_prefix(known);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let found = MODULES.iter().filter(|(known, _)| below(known));
    match found.max_by_key(|(known, _)| known.len()) {
        Some((_, does)) => Judgement::Dangerous(does),
        None => Judgement::Foreign,
    }
}

/// Whether a full name is none that weights are made of.
pub(super) fn is_foreign(full: &str) -> bool {
    let (module, name) = full.rsplit_once('.').unwrap_or(("", full));
    !matches!(judge(module, name), Judgement::Weights)
}
