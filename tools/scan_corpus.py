"""Write a corpus of dangerous and harmless files, by which the scanner is measured.

Run from the repository root: `python tools/scan_corpus.py OUT`. It writes the files to the folder `OUT` with
`manifest.json`, which says of each whether it is dangerous and what the report must say, and all of it in one piece to
`tests/fixtures/scan/corpus.gz`. Needs torch 2.15, numpy, h5py, joblib, keras, onnx, pandas, safetensors, scikit-learn,
tensorflow and tokenizers.

Nothing is opened here, and what a dangerous file would run is harmless: it prints, or calls with `true`.
"""

import base64
import bz2
import gzip
import io
import json
import lzma
import marshal
import os
import pickle
import random
import struct
import sys
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
REPOSITORY = Path(__file__).resolve().parents[1]
FILES: dict[str, tuple[bytes, bool, list[str]]] = {}
LARGEST = 96 << 10


def put(name: str, content: bytes | str, *says: str, dangerous: bool = True) -> None:
    """Add a file, and what the report must say of it."""
    if isinstance(content, str):
        content = content.encode()
    assert name not in FILES, name
    assert len(content) <= LARGEST, (name, len(content))
    FILES[name] = (content, dangerous, list(says))


def fine(name: str, content: bytes | str) -> None:
    """Add a file that is harmless."""
    put(name, content, dangerous=False)


# Pickles, one opcode at a time.

def short(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def binunicode(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def protocol0(module: str, name: str, argument: str) -> bytes:
    return f"c{module}\n{name}\n(S'{argument}'\ntR.".encode()


def protocol0_unicode(module: str, name: str, argument: str) -> bytes:
    return f"c{module}\n{name}\np0\n(V{argument}\np1\ntp2\nRp3\n.".encode()


def protocol2(module: str, name: str, argument: str) -> bytes:
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + binunicode(argument) + b"\x85R."


def protocol4(module: str, name: str, argument: str) -> bytes:
    inner = short(module) + b"\x94" + short(name) + b"\x94\x93\x94" + short(argument) + b"\x94\x85\x94R\x94."
    return b"\x80\x04\x95" + struct.pack("<Q", len(inner)) + inner


def memoized(module: str, name: str, argument: str) -> bytes:
    return b"\x80\x04" + short(name) + b"q\x05" + b"0" + short(module) + b"\x94" + b"0h\x01h\x05\x93" + short(argument) + b"\x85R."


def instance(module: str, name: str, argument: str) -> bytes:
    return f"(S'{argument}'\ni{module}\n{name}\n.".encode()


def opcode_object(module: str, name: str, argument: str) -> bytes:
    return b"\x80\x02(c" + f"{module}\n{name}\n".encode() + binunicode(argument) + b"o."


def newobj(module: str, name: str, argument: str) -> bytes:
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + binunicode(argument) + b"\x85\x81."


def newobj_ex(module: str, name: str, argument: str) -> bytes:
    return b"\x80\x04" + short(module) + short(name) + b"\x93" + short(argument) + b"\x85}\x92."


def escaped(module: str, name: str, argument: str) -> bytes:
    """Texts in escapes, which Python decodes."""
    def spell(text: str) -> bytes:
        return "".join(f"\\u{ord(c):04x}" for c in text).encode()
    return b"V" + spell(module) + b"\nV" + spell(name) + b"\n\x93(V" + argument.encode() + b"\ntR."


def quoted(module: str, name: str, argument: str) -> bytes:
    def spell(text: str) -> bytes:
        return "".join(f"\\x{ord(c):02x}" for c in text).encode()
    return b"S'" + spell(module) + b"'\nS'" + spell(name) + b"'\n\x93(S'" + argument.encode() + b"'\ntR."


def in_state(module: str, name: str, argument: str) -> bytes:
    """Within an honest dictionary, behind many values."""
    return (b"\x80\x02}q\x00(" + b"".join(binunicode(f"k{n}") + b"K" + bytes([n]) for n in range(60))
            + binunicode("x") + b"c" + f"{module}\n{name}\n".encode() + binunicode(argument) + b"\x85Ru.")


ENCODINGS = [protocol0, protocol2, protocol4, memoized, instance, opcode_object, newobj, newobj_ex, escaped, quoted,
             in_state, protocol0_unicode]
NAMES = [
    ("os", "system"), ("posix", "system"), ("nt", "system"), ("os", "execv"), ("os", "popen"), ("os", "remove"),
    ("subprocess", "run"), ("subprocess", "Popen"), ("subprocess", "check_output"), ("subprocess", "getoutput"),
    ("pty", "spawn"), ("platform", "popen"), ("commands", "getoutput"), ("popen2", "popen2"), ("asyncio", "create_subprocess_shell"),
    ("asyncio.unix_events", "_UnixSubprocessTransport._start"), ("multiprocessing.util", "spawnv_passfds"), ("_posixsubprocess", "fork_exec"),
    ("webbrowser", "open"), ("pydoc", "pipepager"), ("distutils.spawn", "spawn"), ("distutils.file_util", "write_file"),
    ("setuptools._distutils.spawn", "spawn"), ("pip", "main"), ("pip._internal", "main"), ("ensurepip", "_run_pip"), ("venv", "create"),
    ("test.support.script_helper", "assert_python_ok"), ("uuid", "_get_command_stdout"), ("imaplib", "IMAP4_stream"),
    ("_osx_support", "_read_output"), ("_aix_support", "_read_cmd_output"), ("_pyrepl.pager", "pipe_pager"),
    ("builtins", "eval"), ("builtins", "exec"), ("__builtin__", "eval"), ("__builtin__", "execfile"), ("builtins", "compile"),
    ("builtins", "__import__"), ("builtins", "open"), ("builtins", "print"), ("builtins", "getattr"), ("builtins", "breakpoint"),
    ("runpy", "run_path"), ("runpy", "_run_code"), ("code", "InteractiveInterpreter"), ("code", "interact"), ("codeop", "compile_command"),
    ("pdb", "run"), ("bdb", "Bdb"), ("timeit", "timeit"), ("trace", "Trace"), ("profile", "run"), ("cProfile", "run"), ("cProfile", "runctx"),
    ("doctest", "debug_script"), ("idlelib.pyshell", "ModifiedInterpreter"), ("idlelib.autocomplete", "AutoComplete.get_entity"),
    ("lib2to3.pgen2.grammar", "Grammar.loads"), ("lib2to3.pgen2.pgen", "ParserGenerator.make_label"), ("ctypes", "CDLL"),
    ("_ctypes", "dlopen"), ("marshal", "loads"), ("types", "FunctionType"), ("types", "CodeType"), ("imp", "load_source"),
    ("importlib", "import_module"), ("importlib.machinery", "SourceFileLoader"), ("zipimport", "zipimporter"), ("pkgutil", "resolve_name"),
    ("sys", "modules"), ("sys", "setprofile"), ("site", "main"), ("gc", "get_objects"), ("signal", "signal"), ("threading", "Thread"),
    ("socket", "create_connection"), ("socket", "getaddrinfo"), ("ssl", "get_server_certificate"), ("http.client", "HTTPSConnection"),
    ("urllib.request", "urlopen"), ("urllib2", "urlopen"), ("smtplib", "SMTP"), ("ftplib", "FTP"), ("telnetlib", "Telnet"),
    ("xmlrpc.client", "ServerProxy"), ("requests", "get"), ("requests.api", "post"), ("aiohttp.client", "ClientSession"), ("httpx", "get"),
    ("shutil", "rmtree"), ("shutil", "move"), ("pathlib", "Path.write_text"), ("pathlib", "Path.unlink"), ("io", "FileIO"), ("_io", "open"),
    ("tempfile", "mktemp"), ("fileinput", "input"), ("linecache", "getlines"), ("zipfile", "ZipFile"), ("tarfile", "open"), ("sqlite3", "connect"),
    ("logging.config", "listen"), ("logging", "FileHandler"), ("operator", "attrgetter"), ("operator", "methodcaller"), ("_operator", "methodcaller"),
    ("functools", "partial"), ("functools", "reduce"), ("inspect", "getattr_static"), ("pickle", "loads"), ("_pickle", "loads"), ("cPickle", "loads"),
    ("dill", "loads"), ("cloudpickle", "loads"), ("cloudpickle.cloudpickle", "subimport"), ("joblib", "load"), ("shelve", "open"),
    ("numpy", "load"), ("numpy", "fromfile"), ("numpy.testing._private.utils", "runstring"), ("numpy.f2py.crackfortran", "getlincoef"),
    ("numpy.f2py.crackfortran", "myeval"), ("numpy.core", "_ufunc_reconstruct"), ("numpy.distutils.exec_command", "exec_command"),
    ("pandas", "read_pickle"), ("pandas.io.pickle", "read_pickle"), ("pandas.core.computation.eval", "eval"),
    ("torch", "load"), ("torch.serialization", "load"), ("torch.hub", "load"), ("torch.hub", "load_state_dict_from_url"), ("torch.utils.model_zoo", "load_url"),
    ("torch.jit", "load"), ("torch.jit.unsupported_tensor_ops", "execWrapper"), ("torch.fx.experimental.symbolic_shapes", "ShapeEnv.evaluate_guards_expression"),
    ("torch._inductor.codecache", "compile_file"), ("torch._dynamo.guards", "GuardBuilder.get"), ("torch.utils._config_module", "load_config"),
    ("torch.utils.collect_env", "run"), ("torch.utils.bottleneck.__main__", "run_cprofile"), ("torch.utils.data.datapipes.utils.decoder", "basichandlers"),
    ("torch.distributed.elastic.multiprocessing.api", "start_processes"), ("torch", "serialization.os.system"), ("numpy", "os"), ("torch.storage", "pickle.loads"),
    ("tensorflow.io", "write_file"), ("tensorflow", "load_library"), ("keras.models", "load_model"), ("transformers.dynamic_module_utils", "get_class_from_dynamic_module"),
    ("transformers.utils.hub", "cached_file"), ("transformers", "pipeline"), ("IPython", "start_ipython"), ("yaml", "unsafe_load"), ("jinja2", "Template"),
    ("sympy", "sympify"), ("copy_reg", "add_extension"), ("some_package.tools", "run_command"), ("scipy.io", "loadmat"), ("nltk.data", "load"),
]
ENDINGS = ["pkl", "bin", "pt", "pth", "ckpt", "joblib", "dat", "data", "pth.tar", "model", "npy", "txt", "weights", "pickle", "h5", "safetensors", "png", "json"]


def names() -> None:
    """Every name in one of the ways in which it may be written, under any ending and none."""
    for place, (module, name) in enumerate(NAMES):
        encoding = ENCODINGS[place % len(ENCODINGS)]
        # Names with dots are attributes of attributes from protocol 4 on.
        if "." in name:
            encoding = protocol4
        ending = ENDINGS[place % len(ENDINGS)]
        # Old protocols have no mark: their names matter.
        file = f"names/{place:03}_{encoding.__name__}" + ("" if place % 7 == 3 else f".{ending}")
        says = f"`{module}.{name}`"
        put(file, encoding(module, name, "true"), says)


BAD = protocol2("os", "system", "true")
PRINT = protocol2("builtins", "print", "hello")
OLD = protocol0("posix", "system", "echo")
HONEST = pickle.dumps({"a": [1, 2.0, "x"], "b": (None, True)}, 2)


def tricks() -> None:
    """Pickles that are hard to follow."""
    put("tricks/second.bin", HONEST + BAD, "the next pickle", "`os.system`")
    put("tricks/third.bin", HONEST * 2 + PRINT, "`builtins.print`")
    put("tricks/behind.bin", HONEST + bytes(99) + BAD + bytes(9), "a pickle among other bytes", "`os.system`")
    put("tricks/behind_old.bin", HONEST + b"\xff" * 50 + OLD, "`posix.system`")
    put("tricks/far.dat", random.Random(1).randbytes(20000) + BAD + random.Random(2).randbytes(5000), "`os.system`")
    put("tricks/far_old.dat", random.Random(3).randbytes(20000) + b"\n" + OLD + random.Random(4).randbytes(500), "`posix.system`")
    put("tricks/far_stack.dat", random.Random(5).randbytes(9000) + protocol4("os", "system", "true")[11:] + bytes(9), "`os.system`")
    put("tricks/broken.bin", BAD[:-1] + b"\xff\xfe", "calls `os.system`", "broken")
    put("tricks/unended.bin", BAD[:-1], "calls `os.system`", "does not end")
    put("tricks/after_broken.bin", b"\x80\x02\xfe" + BAD[2:], "calls `os.system`")
    put("tricks/crlf.bin", b"cos\r\nsystem\r\n(S'true'\ntR.", "system")
    put("tricks/latin1", b"V\xff\n0cbuiltins\nprint\n(Vhello\ntR0N.", "`builtins.print`")
    put("tricks/latin1.pth.tar", b"V\xff\xfe\xe9\n0" + OLD, "`posix.system`")
    put("tricks/number_line.bin", b"I 12_3\n0" + OLD, "`posix.system`")
    put("tricks/put_line.bin", b"cos\nsystem\np 0_1\n0g1\n(S'true'\ntR.", "`os.system`")
    put("tricks/long_line.bin", b"\x80\x02V" + b"a" * 40000 + b"\n0" + BAD[2:], "`os.system`")
    hidden = b"cbuiltins\nprint\n(Vhello\ntR0"
    frame = (b"\x80\x02NV" + b"a" * 8000 + b"\n0(\x95" + struct.pack("<Q", 2) + b"B\x07\x01\x00\x00\x00\x00"
             + (hidden + b"(").ljust(261, b"N") + b"1}.")
    put("tricks/short_frame.pkl", frame, "`builtins.print`")
    put("tricks/long_frame.pkl", b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + BAD[2:], "`os.system`")
    nested = b"\x80\x04c_pickle\nloads\nC" + bytes([len(BAD)]) + BAD + b"\x85R."
    put("tricks/nested.pkl", nested, "a pickle in a pickle", "calls `os.system`")
    put("tricks/nested_alone.pkl", b"\x80\x04}" + short("data") + b"C" + bytes([len(BAD)]) + BAD + b"s.", "a pickle in a pickle")
    put("tricks/storage.pkl", b"\x80\x02ctorch.storage\n_load_from_bytes\nC" + bytes([len(BAD)]) + BAD + b"\x85R.", "`os.system`")
    put("tricks/extension.pkl", b"\x80\x02\x82\x05)R.", "extension code 5")
    put("tricks/extension4.pkl", b"\x80\x02\x84\x05\x00\x01\x00)R.", "extension code")
    put("tricks/build_partial.pkl", b"\x80\x02cfunctools\npartial\n)R}b.", "sets the state of `functools.partial`")
    put("tricks/build_class.pkl", b"\x80\x02ccollections\nOrderedDict\n}" + binunicode("x") + b"K\x01sb.", "changes `collections.OrderedDict`")
    put("tricks/set_items.pkl", b"\x80\x02csys\nmodules\n" + binunicode("os") + b"Ns.", "`sys.modules`")
    put("tricks/no_mark.pkl", b"\x80\x02" + b"K\x01" * 50 + b"cos\nsystem\n" + binunicode("true") + b"\x85R.", "`os.system`")
    put("tricks/many_marks.pkl", b"\x80\x02" + b"(" * 5000 + BAD[2:], "`os.system`")
    put("tricks/many_protos.pkl", b"\x80\x02" * 20000 + BAD, "`os.system`")
    put("tricks/dup.pkl", b"\x80\x02cos\nsystem\n2" + binunicode("true") + b"\x85R.", "`os.system`")
    put("tricks/tuple_memo.pkl", b"\x80\x04" + short("os") + short("system") + b"\x93\x940h\x00" + short("true") + b"\x85R.", "`os.system`")
    chain = (b"\x80\x04cbuiltins\ngetattr\ncbuiltins\n__import__\n" + short("os") + b"\x85R" + short("system") + b"\x86R" + short("true") + b"\x85R.")
    put("tricks/getattr.pkl", chain, "calls `builtins.__import__` with ('os')", "calls what `builtins.getattr` gives")
    built = (b"\x80\x04cbuiltins\ngetattr\n" + short("") + short("join") + b"\x86R](" + short("o") + short("s") + b"e\x85R" + short("system")
             + b"\x93" + short("true") + b"\x85R.")
    put("tricks/built.pkl", built, "put together while it is unpickled")
    encoded = b"\x80\x02c_codecs\nencode\n" + binunicode("os") + binunicode("latin1") + b"\x86R" + binunicode("system") + b"\x93)R."
    put("tricks/encoded.pkl", encoded, "put together while it is unpickled")
    dunder = b"\x80\x04cbuiltins\ngetattr\nccollections\nOrderedDict\n" + short("__init__") + b"\x86R."
    put("tricks/dunder.pkl", dunder, "calls `builtins.getattr`")
    put("tricks/reconstructor.pkl", b"\x80\x02ccopy_reg\n_reconstructor\ncsubprocess\nPopen\nc__builtin__\nobject\nN\x87R}b.", "`subprocess.Popen`")
    put("tricks/default.pkl", b"\x80\x02ccollections\ndefaultdict\ncos\nabort\n\x85R.", "`os.abort`")
    put("tricks/unknown_called.pkl", protocol2("helper_tools.files", "fetch_all", "x"), "calls `helper_tools.files.fetch_all`")
    header = "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + "\n"
    objects = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
    put("tricks/objects.npy", objects + BAD, "array of Python objects", "`os.system`")
    put("tricks/objects_old.npy", objects + OLD, "`posix.system`")


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        for name, content in members.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = method
            file.writestr(info, content)
    return out.getvalue()


def tarred(members: dict[str, bytes], mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=tarfile.GNU_FORMAT) as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return out.getvalue()


def linked(name: str, target: str, kind: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as file:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        file.addfile(info)
    return out.getvalue()


def zstd(content: bytes) -> bytes:
    """A Zstandard frame of one raw block."""
    return (b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", len(content)) + struct.pack("<I", len(content) << 3 | 1)[:3] + content)


def packed() -> None:
    """Pickles in whatever packs them, and archives that lie."""
    put("packed/pickle.pkl.gz", gzip.compress(BAD, mtime=0), "`os.system`")
    put("packed/old.gz", gzip.compress(OLD, mtime=0), "`posix.system`")
    put("packed/renamed.bin", gzip.compress(PRINT, mtime=0), "`builtins.print`")
    put("packed/zlib.joblib", zlib.compress(BAD), "`os.system`")
    put("packed/pickle.bz2", bz2.compress(BAD), "`os.system`")
    put("packed/pickle.xz", lzma.compress(BAD), "`os.system`")
    put("packed/pickle.lzma", lzma.compress(BAD, format=lzma.FORMAT_ALONE), "`os.system`")
    put("packed/pickle.zst", zstd(BAD), "`os.system`")
    put("packed/twice.xz", lzma.compress(gzip.compress(OLD, mtime=0)), "`posix.system`")
    put("packed/model.tar", tarred({"config.json": b"{}", "weights.pkl": BAD}), "weights.pkl", "`os.system`")
    put("packed/model.tar.gz", gzip.compress(tarred({"weights": OLD}), mtime=0), "`posix.system`")
    put("packed/model.nemo", tarred({"./model_config.yaml": b"model:\n  _target_: os.system\n", "./model_weights.ckpt": archive({"archive/data.pkl": HONEST})}), "`os.system`")
    put("packed/nemo_weights.nemo", tarred({"./model_weights.ckpt": archive({"archive/data.pkl": BAD})}), "`os.system`")
    put("packed/escape.tar", tarred({"../../evil.py": b"print()"}), "a path out of its folder")
    put("packed/absolute.tar", tarred({"/etc/cron.d/x": b"x"}), "an absolute path")
    put("packed/symlink.tar", linked("weights", "/etc/passwd", tarfile.SYMTYPE), "links `weights` to `/etc/passwd`")
    put("packed/hardlink.tar", linked("weights", "../../secret", tarfile.LNKTYPE), "links `weights`")
    put("packed/device.tar", linked("weights", "", tarfile.CHRTYPE), "a device or a pipe")
    for label, method in [("stored", 0), ("deflated", 8), ("bzip2", 12)]:
        put(f"packed/{label}.pt", archive({"archive/data.pkl": BAD * 3, "archive/version": b"3\n"}, method), "archive/data.pkl", "`os.system`")
    put("packed/other_name.pt", archive({"archive/data.pkl": HONEST, "archive/data/0": BAD}), "archive/data/0", "`os.system`")
    put("packed/other_folder.pt", archive({"archive/data.pkl": HONEST, "other/data.pkl": BAD}), "other/data.pkl", "`os.system`")
    put("packed/old_member.pt", archive({"archive/data.pkl": HONEST, "archive/extra": OLD}), "`posix.system`")
    put("packed/zip_in_zip.bin", archive({"inner.zip": archive({"x": BAD})}), "`os.system`")
    put("packed/gz_in_zip.zip", archive({"inner.gz": gzip.compress(BAD, mtime=0)}), "`os.system`")
    put("packed/arrays.npz", archive({"a.npy": FILES["tricks/objects.npy"][0]}, 8), "a.npy", "`os.system`")
    put("packed/escape.pt", archive({"../../x.py": b"print()", "archive/data.pkl": HONEST}), "a path out of its folder")
    put("packed/absolute.zip", archive({"/tmp/x": b"x"}), "an absolute path")
    put("packed/library.pt2", archive({"m/data/aotinductor/model.so": b"\x7fELF\x02\x01\x01" + bytes(60), "m/version": b"0"}), "a program (ELF)")
    put("packed/torchscript.pt", archive({"m/code/__torch__.py": b"def f():\n  torch.from_file('/etc/passwd')\n", "m/data.pkl": HONEST}), "torch.from_file")
    whole = archive({"archive/data.pkl": HONEST, "archive/version": b"3\n"})
    central = whole.index(b"PK\x01\x02")
    first = bytearray(whole)

    def changed(at: int, content: bytes) -> bytes:
        other = bytearray(first)
        other[at:at + len(content)] = content
        return bytes(other)

    put("packed/flag_local.pt", changed(6, b"\x01"), "in one place only that it is encrypted")
    put("packed/flag_directory.pt", changed(central + 8, b"\x01"), "in one place only that it is encrypted")
    both = bytearray(changed(6, b"\x01"))
    both[central + 8] = 1
    put("packed/flag_both.pt", bytes(both), "that it is encrypted, which it is not")
    put("packed/two_crcs.pt", changed(14, b"\x01\x02\x03\x04"), "two checksums")
    put("packed/two_sizes.pt", changed(18, struct.pack("<II", 3, 3)), "two sizes")
    put("packed/two_names.pt", changed(central + 46, b"hcra"), "calls itself")
    put("packed/two_methods.pt", changed(central + 10, b"\x08"), "two ways")
    method = bytearray(changed(8, b"\x63"))
    method[central + 10] = 0x63
    put("packed/method.pt", bytes(method), "compressed by method 99, which it is not")
    put("packed/trailing.pt", whole + b"more", "bytes behind its end")
    cut = archive({"archive/data.pkl": BAD})
    put("packed/truncated.pt", cut[:cut.index(b"PK\x01\x02")], "has no directory", "`os.system`")
    twice = archive({"archive/data.pkl": HONEST, "archive/data.pkx": BAD}).replace(b"data.pkx", b"data.pkl")
    put("packed/twice.pt", twice, "twice", "`os.system`")
    put("packed/unlisted.pt", unlisted(), "that its directory does not list", "`os.system`")
    put("packed/crc.pt", archive({"archive/data.pkl": BAD}).replace(struct.pack("<I", zlib.crc32(BAD)), b"\x01\x02\x03\x04"), "`os.system`")
    overlap = bytearray(archive({"a": HONEST, "b": HONEST}))
    record = overlap.index(b"PK\x01\x02", overlap.index(b"PK\x01\x02") + 4)
    overlap[record + 42:record + 46] = bytes(4)
    put("packed/overlap.zip", bytes(overlap), "lie in each other")
    link = zipfile.ZipInfo("weights")
    link.external_attr = 0o120777 << 16
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr(link, "/etc/passwd")
    put("packed/symlink.zip", out.getvalue(), "links `weights` to `/etc/passwd`")


def unlisted() -> bytes:
    """A member before the first that the directory lists."""
    bad, honest = archive({"archive/data.pkl": BAD}), archive({"archive/data.pkl": HONEST})
    local = bad[:bad.index(b"PK\x01\x02")]
    at = honest.index(b"PK\x01\x02")
    directory = bytearray(honest[at:])
    struct.pack_into("<I", directory, 42, len(local))
    end = directory.index(b"PK\x05\x06")
    struct.pack_into("<I", directory, end + 16, len(local) + at)
    return local + honest[:at] + bytes(directory)


def safetensors(header: dict | str, data: bytes) -> bytes:
    text = header if isinstance(header, str) else json.dumps(header)
    text += " " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text.encode() + data


def tensor(begin: int, end: int) -> dict:
    return {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}


PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
GGUF = b"GGUF" + struct.pack("<IQQ", 3, 0, 0)


def gguf(pairs: dict[str, str]) -> bytes:
    out = b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs))
    for key, value in pairs.items():
        key, value = key.encode(), value.encode()
        out += struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(value)) + value
    return out + bytes(-len(out) % 32)


def polyglots() -> None:
    """Files that are two things at once."""
    data = b"cbuiltins\nprint\n(Vhello\ntR0}."
    data += b" " * (-len(data) % 4)
    for label, size in [("wide", 0xff56), ("utf8", 0x156)]:
        text = '{"w":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}' % (len(data), len(data))
        text += " " * (size - len(text) - 2) + "\n}"
        put(f"polyglots/{label}.safetensors", struct.pack("<Q", size) + text.encode() + data, "safetensors and a pickle at once", "`builtins.print`")
    put("polyglots/tail.safetensors", safetensors({"w": tensor(0, 4)}, bytes(4) + BAD), "behind its tensors", "`os.system`")
    put("polyglots/gap.safetensors", safetensors({"w": tensor(8, 12)}, bytes(12)), "that no tensor covers")
    put("polyglots/extra.safetensors", safetensors({"w": tensor(0, 4)}, bytes(4) + b"hidden"), "behind its tensors that none covers")
    put("polyglots/overlap.safetensors", safetensors({"a": tensor(0, 8), "b": tensor(4, 12)}, bytes(12)), "lie in another tensor")
    put("polyglots/twice.safetensors", safetensors('{"w":%s,"w":%s}' % (json.dumps(tensor(0, 4)), json.dumps(tensor(0, 4))), bytes(4)), "lists `w` twice")
    put("polyglots/shape.safetensors", safetensors({"w": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}, bytes(4)), "a shape that takes 36")
    put("polyglots/huge.safetensors", struct.pack("<Q", 1 << 40) + b"{}", "claims a header")
    put("polyglots/data.safetensors", safetensors({"w": tensor(0, len(BAD))}, BAD), "`os.system`")
    put("polyglots/tail.gguf", GGUF + bytes(8) + BAD, "`os.system`")
    put("polyglots/zip.gguf", GGUF + bytes(8) + archive({"x": HONEST}), "two files at once")
    put("polyglots/zip.safetensors", safetensors({"w": tensor(0, 4)}, bytes(4)) + archive({"data.pkl": BAD}), "`os.system`")
    put("polyglots/picture.png", PNG + archive({"model/data.pkl": BAD}), "two files at once", "`os.system`")
    put("polyglots/picture_zip.png", PNG + archive({"notes.txt": b"hello"}), "two files at once")
    put("polyglots/picture_pickle.png", PNG + BAD, "`os.system`")
    put("polyglots/text.md", "# A model\n\n" + "Nothing here.\n" * 20 + OLD.decode(), "`posix.system`")
    put("polyglots/pickle_zip.bin", HONEST + archive({"archive/data.pkl": HONEST}), "two files at once")
    put("polyglots/elf.bin", b"\x7fELF\x02\x01\x01" + bytes(100), "a program (ELF)")
    put("polyglots/pe.pth", b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0" + bytes(40), "a program (PE)")
    put("polyglots/macho.safetensors", b"\xcf\xfa\xed\xfe" + bytes(100), "a program (Mach-O)")
    put("polyglots/ape.gguf", b"MZqFpD='\n" + bytes(100), "a program for several systems")
    put("polyglots/script.bin", b"#!/bin/sh\necho hello\n", "a script")
    put("polyglots/compiled.pt", b"\xa7\x0d\x0d\x0a" + bytes(12) + marshal.dumps(compile("print()", "x", "exec")), "compiled Python")
    import h5py
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.h5"
        with h5py.File(path, "w") as file:
            file["x"] = [1.0]
        whole = path.read_bytes()
    put("polyglots/zip.h5", whole + archive({"data.pkl": BAD}), "two files at once", "`os.system`")
    put("polyglots/tail.h5", whole + BAD, "`os.system`")


LAMBDA = {"module": "keras.layers", "class_name": "Lambda",
          "config": {"name": "l", "function": {"class_name": "__lambda__", "config": {"code": "4wEAAAAA", "defaults": None, "closure": None}}}}


def dense(**config: object) -> dict:
    return {"module": "keras.layers", "class_name": "Dense", "config": {"name": "d", "units": 2, **config}}


def model(*layers: dict) -> dict:
    return {"module": "keras", "class_name": "Functional", "config": {"name": "m", "layers": list(layers)}}


def function(module: str, name: str) -> dict:
    return {"module": module, "class_name": "function", "config": name, "registered_name": "function"}


def keras_archive(config: bytes | str) -> bytes:
    return archive({"metadata.json": b'{"keras_version": "3.8.0"}', "config.json": config if isinstance(config, bytes) else config.encode()})


def keras_h5(attributes: dict[str, str]) -> bytes:
    import h5py
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.h5"
        with h5py.File(path, "w") as file:
            for key, value in attributes.items():
                file.attrs[key] = value
            file["model_weights/d/w"] = [1.0]
        return path.read_bytes()


CONFIGURATIONS: dict[str, tuple[dict, str]] = {
    "lambda": (model(LAMBDA), "a Lambda layer"),
    "marshalled": (model(dense(activation={"class_name": "__lambda__", "config": {"code": "4wEAAAAA"}})), "`__lambda__`"),
    "subprocess": (dense(units=function("subprocess", "run")), "`subprocess.run`"),
    "os": (model(dense(activation=function("os", "system"))), "`os.system`"),
    "eval": (model(dense(activation=function("builtins", "eval"))), "`builtins.eval`"),
    "importlib": (model({"module": "importlib", "class_name": "import_module", "config": {"name": "os"}}), "`importlib.import_module`"),
    "get_file": (model(dense(activation=function("keras.utils", "get_file"))), "`keras.utils.get_file`"),
    "unsafe": (model(dense(activation=function("keras.config", "enable_unsafe_deserialization"))), "enable_unsafe_deserialization"),
    "load_model": (model(dense(activation=function("keras.saving", "load_model"))), "`keras.saving.load_model`"),
    "own_function": (model(dense(activation=function("helper_tools", "run"))), "`helper_tools.run`"),
    "safe_mode": (model(dense(safe_mode=False)), "safe mode"),
    "vocabulary": (model({"module": "keras.layers", "class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}}), "its vocabulary from `/etc/passwd`"),
    "vocabulary_up": (model({"module": "keras.layers", "class_name": "TextVectorization", "config": {"vocabulary": "../../secret.txt"}}), "its vocabulary from"),
    "vocabulary_url": (model({"module": "keras.layers", "class_name": "IntegerLookup", "config": {"vocabulary": "https://example.org/v"}}), "an address"),
    "saved_model": (model({"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "/tmp/x"}}), "TFSMLayer"),
    "torch": (model({"module": "keras.layers", "class_name": "TorchModuleWrapper", "config": {"module": "gAJ9cQAu"}}), "TorchModuleWrapper"),
    "pickle": (model(dense(extra=base64.b64encode(BAD).decode())), "`os.system`"),
    "code": (model(dense(extra=base64.b64encode(marshal.dumps(compile("1", "x", "eval"))).decode())), "marshalled code"),
    "deep": (model(dense(a={"b": [{"c": {"d": [LAMBDA]}}]})), "a Lambda layer"),
    "text": (model(dense(inner=json.dumps(LAMBDA))), "a Lambda layer"),
}


def keras() -> None:
    """Configurations of Keras, in archives and in HDF5."""
    for label, (config, says) in CONFIGURATIONS.items():
        put(f"keras/{label}.keras", keras_archive(json.dumps(config, separators=(",", ":"))), says)
        put(f"keras/{label}.h5", keras_h5({"model_config": json.dumps(config)}), says)
    spelled = json.dumps(model(LAMBDA)).replace('"class_name"', '"\\u0063lass_name"').replace('"Lambda"', '"\\u004cambda"')
    put("keras/escaped.keras", keras_archive(spelled), "a Lambda layer")
    put("keras/escaped.h5", keras_h5({"model_config": spelled}), "a Lambda layer")
    put("keras/nan.keras", keras_archive(json.dumps(model(dense(x=float("nan"), y=float("-inf")), LAMBDA))), "a Lambda layer")
    put("keras/utf16.keras", keras_archive(json.dumps(model(LAMBDA)).encode("utf-16")), "a Lambda layer")
    put("keras/utf32.keras", keras_archive(json.dumps(model(LAMBDA)).encode("utf-32-le")), "a Lambda layer")
    put("keras/twice.keras", keras_archive('{"class_name": "Lambda", "class_name": "Dense", "config": {}}'), "a Lambda layer")
    put("keras/training.h5", keras_h5({"training_config": json.dumps({"loss": function("os", "system")})}), "`os.system`")
    put("keras/weights_pickle.keras", archive({"config.json": json.dumps(model(dense())).encode(), "assets/x": BAD}), "`os.system`")
    metadata = json.dumps(LAMBDA | {"name": "l"}).encode()
    node = b"\x10\x00\x1a\x04root\x22\x05model\x2a" + varint(len(metadata)) + metadata
    put("keras/saved/keras_metadata.pb", b"\x0a" + varint(len(node)) + node, "a Lambda layer")


def varint(number: int) -> bytes:
    out = b""
    while number >= 0x80:
        out += bytes([number & 0x7f | 0x80])
        number >>= 7
    return out + bytes([number])


def hdf5() -> None:
    """Links and data outside of a file."""
    import h5py
    import numpy as np

    def made(build, **options: object) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a.h5"
            with h5py.File(path, "w", **options) as file:
                build(file)
            return path.read_bytes()

    def link(file):
        file["x"] = h5py.ExternalLink("/etc/passwd", "/data")

    def relative(file):
        file["x"] = h5py.ExternalLink("other.h5", "/data")

    def storage(file):
        file.create_dataset("w", (8,), dtype="u1", external=[("/etc/passwd", 0, 8)])

    def virtual(file):
        layout = h5py.VirtualLayout(shape=(4,), dtype="f4")
        layout[:] = h5py.VirtualSource("/etc/secret.h5", "w", shape=(4,))
        file.create_virtual_dataset("w", layout)

    def many(file):
        for number in range(40):
            file[f"x{number}"] = h5py.ExternalLink("other.h5", f"/data{number}")

    put("hdf5/link.h5", made(link), "to `/data` of the file `/etc/passwd`")
    put("hdf5/relative.hdf5", made(relative), "of the file `other.h5`")
    put("hdf5/latest.h5", made(link, libver="latest"), "of the file `/etc/passwd`")
    put("hdf5/many.h5", made(many, libver="latest"), "of the file `other.h5`")
    put("hdf5/storage.h5", made(storage), "keeps data in the file `/etc/passwd`")
    put("hdf5/storage_latest.h5", made(storage, libver="latest"), "keeps data in the file `/etc/passwd`")
    put("hdf5/virtual.h5", made(virtual, libver="latest"), "in the file `/etc/secret.h5`")
    put("hdf5/block.h5", b"GIF89a".ljust(512, b"x") + made(lambda file: file.create_dataset("w", data=np.ones(3))), "two files at once")


TEMPLATES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__ }}",
    "{{ cycler.__init__.__globals__.os.popen('true').read() }}",
    "{{ lipsum.__globals__['os'] }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ messages|attr('__class__') }}",
    "{{ messages|attr('__cla' ~ 'ss__') }}",
    "{{ messages|attr(x) }}",
    "{{ messages['__class__'] }}",
    "{{ messages['__cla' + 'ss__'] }}",
    "{{ messages['\\x5f\\x5fclass\\x5f\\x5f'] }}",
    "{{ messages['__ssalc__'|reverse] }}",
    "{{ messages|map(attribute='__class__')|list }}",
    "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if x %}{{ self.__init__ }}{% endif %}",
    "{{ '{0.__class__}'.format(messages) }}",
    "{% set a = dict(__class__=1)|join %}{{ messages[a] }}",
    "{{ messages[('_'*2) ~ 'globals' ~ ('_'*2)] }}",
    "{{ raise_exception.func_globals }}",
]


def templates() -> None:
    """Chat templates in every place that has one."""
    for number, template in enumerate(TEMPLATES):
        says = "has a template that"
        match number % 5:
            case 0:
                put(f"templates/{number}/tokenizer_config.json", json.dumps({"chat_template": template}), says)
            case 1:
                put(f"templates/{number}/chat_template.jinja", template, says)
            case 2:
                put(f"templates/{number}/model.gguf", gguf({"general.architecture": "llama", "tokenizer.chat_template": template}), says)
            case 3:
                put(f"templates/{number}/tokenizer_config.json",
                    json.dumps({"chat_template": [{"name": "default", "template": "{{ 'a' }}"}, {"name": "tool_use", "template": template}]}), says)
            case 4:
                put(f"templates/{number}/chat_template.json", json.dumps({"chat_template": template}), says)
    put("templates/named.gguf", gguf({"tokenizer.chat_template.tool_use": TEMPLATES[0]}), "has a template that")
    put("templates/model.tar", tarred({"tokenizer_config.json": json.dumps({"chat_template": TEMPLATES[1]}).encode()}), "has a template that")


def graphs() -> None:
    """Graphs, and settings that name code or paths."""
    for name, does in [("ReadFile", "reads files"), ("WriteFile", "writes files"), ("PyFunc", "runs Python"), ("EagerPyFunc", "runs Python"),
                       ("MatchingFiles", "lists files"), ("TFRecordDataset", "reads files"), ("DebugIdentityV2", "writes files")]:
        node = b"\x0a\x01x\x12" + bytes([len(name)]) + name.encode()
        put(f"graphs/{name}/saved_model.pb", b"\x0a" + bytes([len(node)]) + node, f"`{name}`, which {does}")
    node = b"\x0a\x01x\x12\x09WriteFile"
    put("graphs/renamed.bin", b"\x0a" + bytes([len(node)]) + node + bytes(9), "`WriteFile`, which writes files")
    put("graphs/graph.pbtxt", 'node {\n  name: "x"\n  op: "ReadFile"\n}\n', "`ReadFile`")
    import onnx
    from onnx import TensorProto, helper

    def external(location: str) -> bytes:
        weight = TensorProto(name="w", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
        weight.external_data.add(key="location", value=location)
        x = helper.make_tensor_value_info("x", 1, [4])
        y = helper.make_tensor_value_info("y", 1, [4])
        graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [weight])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()

    put("graphs/absolute.onnx", external("/etc/passwd"), "keeps data in `/etc/passwd`")
    put("graphs/up.onnx", external("../../secret.bin"), "a path out of its folder")
    fine("harmless/onnx/external.onnx", external("weights.bin"))
    put("settings/model.safetensors.index.json", json.dumps({"weight_map": {"w": "../../other.safetensors"}}), "a path out of its folder")
    put("settings/pytorch_model.bin.index.json", json.dumps({"weight_map": {"w": "/etc/passwd"}}), "an absolute path")
    put("settings/modules.json", json.dumps([{"idx": 0, "name": "0", "path": "", "type": "os.system"}]), "`os.system`")
    put("settings/path/modules.json", json.dumps([{"path": "../../x", "type": "sentence_transformers.models.Dense"}]), "a path out of its folder")
    put("settings/hydra.json", json.dumps({"model": {"_target_": "subprocess.Popen", "args": ["true"]}}), "`subprocess.Popen` called")
    put("settings/hydra.yaml", "model:\n  _target_: builtins.exec\n  _args_: ['pass']\n", "`builtins.exec` called")
    put("settings/apply.yaml", "x: !!python/object/apply:os.system ['true']\n", "by which YAML runs Python")
    put("settings/new.yml", "x: !!python/object/new:subprocess.Popen [['true']]\n", "by which YAML runs Python")
    put("settings/name.yaml", "x: !!python/name:os.system\n", "by which YAML runs Python")
    put("settings/model.xml", '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY y SYSTEM "file:///etc/passwd">]><net>&y;</net>', "an external entity")


# What people have.

CHATS = {
    "chatml": "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "llama2": "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    "llama3": "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}",
    "gemma": "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}",
    "tools": "{%- set ns = namespace(found=false, index=0) %}{%- for message in messages %}{%- if message.tool_calls is defined and message.tool_calls is not none %}{%- set ns.found = true %}{{- tools | tojson(indent=4) }}{%- endif %}{%- endfor %}{{- strftime_now('%d %b %Y') }}",
    "think": "{%- if '</think>' in content %}{%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}{%- endif %}{% generation %}{{ content }}{% endgeneration %}",
    "macro": "{%- macro render(items) %}{%- for k, v in items.items() %}{{ k }}: {{ v | map(attribute='name') | join(', ') }}{%- endfor %}{%- endmacro %}{{ render({'a': messages}) }}",
    "nllb": "{{ '__en__' ~ ' ' ~ messages[0].content ~ ' </s> __fr__' }}",
    "loop": "{# uses __class__ nowhere #}{% for m in messages[::-1] %}{% if loop.first %}{{ loop.index }}{% endif %}{{ m.content|replace('\\n', ' ') }}{% endfor %}",
    "mistral": "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}",
}


def harmless() -> None:
    """Values, arrays, objects and files of the libraries."""
    import collections
    import datetime
    import decimal
    import pathlib
    import uuid
    from argparse import Namespace

    import numpy as np

    random_values = np.random.default_rng(0)
    values: dict[str, object] = {
        "numbers": [1, 2.5, -3, 10**40, 1 + 2j], "nested": {"a": [1, {"b": (None, True, b"z")}], 3: {4, 5}},
        "texts": ["a", "ä", "日本", "x" * 300], "loop": None, "empty": {}, "bytes": b"\x80\x02not a pickle", "bytearray": bytearray(b"abc"),
        "ordered": collections.OrderedDict(a=1), "counter": collections.Counter("hello"), "deque": collections.deque([1, 2]),
        "defaults": collections.defaultdict(list, {"x": [1]}), "dates": [datetime.datetime(2024, 1, 2, 3), datetime.date(2024, 1, 2), datetime.timedelta(1)],
        "decimal": decimal.Decimal("1.5"), "path": pathlib.PurePosixPath("/data/x"), "uuid": uuid.UUID(int=5), "namespace": Namespace(lr=0.1, name="x"),
        "types": [int, str, float, list], "array": np.arange(12.0).reshape(3, 4), "arrays": {"w": random_values.standard_normal((4, 4)).astype("f4"), "n": np.int64(3)},
        "strings": np.array(["a", "bc"]), "dtypes": [np.dtype("f4"), np.float32], "generator": np.random.RandomState(0), "masked": np.ma.array([1, 2], mask=[0, 1]),
        "error": ValueError("no"), "range": range(5), "slice": slice(1, 2), "frozen": frozenset([1]), "objects": np.array([{"a": 1}, None], dtype=object),
    }
    looped: list = []
    looped.append(looped)
    values["loop"] = looped
    for place, (name, value) in enumerate(values.items()):
        for protocol in [(place % 3), 2 + place % 4]:
            if protocol == 0 and name in ("generator",):
                continue
            file = f"harmless/pickle/{name}_{protocol}.{['pkl', 'bin', 'dat', 'pickle'][protocol % 4]}"
            if file not in FILES:
                fine(file, pickle.dumps(value, protocol))
    fine("harmless/pickle/several.pkl", b"".join(pickle.dumps(value, 2) for value in ([1], {"a": 2}, "x")))
    fine("harmless/pickle/truncated.pkl", pickle.dumps(values["arrays"], 4)[:-20])
    fine("harmless/pickle/unknown_class.pkl", b"\x80\x02c__main__\nSettings\n)\x81}" + binunicode("lr") + b"G?\xb9\x99\x99\x99\x99\x99\x9asb.")
    fine("harmless/pickle/yolo.pt", b"\x80\x02cultralytics.nn.tasks\nDetectionModel\n)\x81}" + binunicode("yaml") + b"}sb.")
    fine("harmless/pickle/arguments.bin", b"\x80\x02ctransformers.training_args\nTrainingArguments\n)\x81}" + binunicode("lr") + b"K\x01sb.")
    fine("harmless/pickle/enum.bin", b"\x80\x04cbuiltins\ngetattr\n" + short("transformers.trainer_utils") + short("IntervalStrategy") + b"\x93" + short("NO") + b"\x86R.")
    out = io.BytesIO()
    np.save(out, values["arrays"]["w"])
    fine("harmless/numpy/array.npy", out.getvalue())
    out = io.BytesIO()
    np.save(out, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    fine("harmless/numpy/objects.npy", out.getvalue())
    for label, save in [("stored", np.savez), ("deflated", np.savez_compressed)]:
        out = io.BytesIO()
        save(out, a=values["array"], zeros=np.zeros(5000))
        fine(f"harmless/numpy/{label}.npz", out.getvalue())
    out = io.BytesIO()
    np.savez_compressed(out, zeros=np.zeros(1 << 21, "u1"))
    fine("harmless/numpy/zeros.npz", out.getvalue())
    fine("harmless/numpy/raw.bin", random_values.standard_normal(3000).astype("f4").tobytes())
    fine("harmless/numpy/marks.bin", b"\x80\x02" * 3000)
    fine("harmless/numpy/ones.dat", b"\x01" * 3000)
    libraries(values)
    packages()
    texts()


def libraries(values: dict) -> None:
    """What libraries save."""
    import joblib
    import numpy as np
    import pandas as pd
    import torch
    from safetensors.torch import save as save_safetensors
    from sklearn.cluster import KMeans
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    torch.manual_seed(0)

    def saved(value: object, **options: object) -> bytes:
        out = io.BytesIO()
        torch.save(value, out, **options)
        return out.getvalue()

    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.BatchNorm1d(4), torch.nn.Conv1d(1, 1, 3))
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(2, 1, 3)[:, 0])if False else None
    state = net.state_dict()
    fine("harmless/torch/state.pt", saved(state))
    fine("harmless/torch/legacy.pth", saved(state, _use_new_zipfile_serialization=False))
    fine("harmless/torch/state_dict.bin", saved({"state_dict": state, "epoch": 3, "x": complex(1, 2), "args": values["namespace"]}))
    fine("harmless/torch/checkpoint.ckpt", saved({"model": state, "optimizer": optimizer.state_dict(), "when": values["dates"], "np": values["arrays"]}))
    fine("harmless/torch/module.pth", saved(net))
    fine("harmless/torch/module_legacy.pth", saved(net, _use_new_zipfile_serialization=False))
    fine("harmless/torch/renamed.dat", saved(state))
    fine("harmless/torch/optimizer.pt", saved(optimizer))
    for dtype in ["float16", "bfloat16", "int8", "bool", "complex64"]:
        fine(f"harmless/torch/{dtype}.pt", saved(torch.ones(3, dtype=getattr(torch, dtype))))
    fine("harmless/torch/sparse.pt", saved(torch.eye(3).to_sparse()))
    fine("harmless/torch/quantized.pt", saved(torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)))
    fine("harmless/torch/parameter.pt", saved(torch.nn.Parameter(torch.ones(2))))
    fine("harmless/torch/dataset.pt", saved(torch.utils.data.TensorDataset(torch.ones(2))))
    fine("harmless/torch/pickled.pkl", pickle.dumps(state))
    fine("harmless/torch/scheduler.pt", saved(torch.optim.lr_scheduler.StepLR(optimizer, 3).state_dict()))
    for label, script in [("scripted", torch.jit.script(net)), ("traced", torch.jit.trace(torch.nn.Linear(3, 4), torch.ones(1, 3)))]:
        out = io.BytesIO()
        torch.jit.save(script, out)
        fine(f"harmless/torch/{label}.pt", out.getvalue())
    fine("harmless/safetensors/state.safetensors", save_safetensors({k: v.contiguous() for k, v in state.items()}, {"format": "pt"}))
    fine("harmless/safetensors/empty.safetensors", save_safetensors({}))
    fine("harmless/safetensors/truncated.safetensors", save_safetensors({"w": torch.ones(100)})[:-50])
    fine("harmless/safetensors/types.safetensors", save_safetensors({"a": torch.ones(3, dtype=torch.bfloat16), "b": torch.ones(2, dtype=torch.int64), "c": torch.ones(0)}))
    x, y = np.random.default_rng(1).standard_normal((20, 3)), np.arange(20) % 2
    estimators = {
        "logistic": LogisticRegression().fit(x, y), "forest": RandomForestClassifier(2, max_depth=2, random_state=0).fit(x, y),
        "neighbors": KNeighborsClassifier(algorithm="kd_tree").fit(x, y), "kmeans": KMeans(2, n_init=1, random_state=0).fit(x),
        "pipeline": make_pipeline(StandardScaler(), FunctionTransformer(np.log1p), LogisticRegression()),
        "tfidf": TfidfVectorizer().fit(["a cat sat", "on a mat"]),
    }
    for label, estimator in estimators.items():
        fine(f"harmless/sklearn/{label}.pkl", pickle.dumps(estimator))
        out = io.BytesIO()
        joblib.dump(estimator, out)
        fine(f"harmless/sklearn/{label}.joblib", out.getvalue())
    for compress in ["zlib", "gzip", "bz2", "xz", "lzma"]:
        out = io.BytesIO()
        joblib.dump(values["arrays"], out, compress=(compress, 3))
        fine(f"harmless/sklearn/arrays_{compress}.joblib", out.getvalue())
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"], "t": pd.to_datetime(["2024-01-01", "2024-01-02"])})
    fine("harmless/pandas/frame.pkl", pickle.dumps(frame))
    fine("harmless/pandas/series.pkl", pickle.dumps(pd.Series([1.0, None], index=pd.date_range("2024", periods=2))))
    fine("harmless/pandas/categories.pkl", pickle.dumps(pd.Categorical(["a", "b", "a"])))


def packages() -> None:
    """Models of Keras, TensorFlow, ONNX and others."""
    import h5py
    import keras
    import onnx
    import tensorflow as tf
    from onnx import helper

    small = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="relu", kernel_regularizer="l2"), keras.layers.BatchNormalization(), keras.layers.Dropout(0.1)])
    small.compile("adam", "mse", metrics=["mae"])
    lookup = keras.Sequential([keras.Input((1,), dtype="string"), keras.layers.StringLookup(vocabulary=["a", "b"]), keras.layers.Embedding(4, 2)])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for label, network in [("dense", small), ("lookup", lookup)]:
            network.save(root / f"{label}.keras")
            fine(f"harmless/keras/{label}.keras", (root / f"{label}.keras").read_bytes())
        small.save(root / "dense.h5")
        fine("harmless/keras/dense.h5", (root / "dense.h5").read_bytes())
        small.save_weights(root / "dense.weights.h5")
        fine("harmless/keras/dense.weights.h5", (root / "dense.weights.h5").read_bytes())
        with h5py.File(root / "groups.h5", "w") as file:
            for number in range(5):
                file[f"g{number}/w"] = [1.0, 2.0]
            file["soft"] = h5py.SoftLink("/g0/w")
            file.create_dataset("packed", data=[[1.0] * 50] * 50, compression="gzip", chunks=(10, 50))
        fine("harmless/hdf5/groups.h5", (root / "groups.h5").read_bytes())
        with h5py.File(root / "latest.h5", "w", libver="latest") as file:
            file["w"] = [1.0, 2.0]
        fine("harmless/hdf5/latest.hdf5", (root / "latest.h5").read_bytes())

        class Module(tf.Module):
            @tf.function(input_signature=[tf.TensorSpec([None, 2])])
            def __call__(self, x):
                return x * 2.0

        tf.saved_model.save(Module(), str(root / "saved"))
        for path in sorted((root / "saved").rglob("*")):
            if path.is_file() and path.stat().st_size and path.stat().st_size < LARGEST:
                fine(f"harmless/saved_model/{path.relative_to(root / 'saved')}", path.read_bytes())
        tf.train.Checkpoint(x=tf.Variable([1.0, 2.0])).write(str(root / "ckpt"))
        for path in sorted(root.glob("ckpt.*")):
            fine(f"harmless/tensorflow/{path.name}", path.read_bytes())
        converter = tf.lite.TFLiteConverter.from_keras_model(small)
        try:
            lite = converter.convert()
            fine("harmless/tflite/dense.tflite", lite)
            fine("harmless/tflite/labels.tflite", lite + archive({"labels.txt": b"a\nb\n"}))
        except Exception as error:  # noqa: BLE001
            print("no TensorFlow Lite:", error)
    x, y = helper.make_tensor_value_info("x", 1, [2]), helper.make_tensor_value_info("y", 1, [2])
    weight = helper.make_tensor("w", 1, [2], [1.0, 2.0])
    for label, domain in [("add", ""), ("own", "my.domain")]:
        node = helper.make_node("Add", ["x", "w"], ["y"], domain=domain)
        opsets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
        network = helper.make_model(helper.make_graph([node], "g", [x], [y], [weight]), opset_imports=opsets)
        fine(f"harmless/onnx/{label}.onnx", network.SerializeToString())
    fine("harmless/keras/custom.keras", keras_archive(json.dumps(model(dense(activation={"module": "builtins", "class_name": "function", "config": "my_activation", "registered_name": "function"}), {"module": "my_layers", "class_name": "Attention", "config": {}, "registered_name": "my_layers>Attention"}))))
    fine("harmless/keras/infinity.keras", keras_archive(json.dumps(model(dense(low=float("-inf"), high=float("nan"))))))


def texts() -> None:
    """What lies beside weights, and what cannot be read."""
    for label, template in CHATS.items():
        fine(f"harmless/templates/{label}/tokenizer_config.json", json.dumps({"chat_template": template, "tokenizer_class": "LlamaTokenizer", "eos_token": "</s>"}))
    fine("harmless/templates/chat_template.jinja", CHATS["tools"])
    fine("harmless/templates/chat_template.json", json.dumps({"chat_template": CHATS["llama3"]}))
    fine("harmless/templates/model.gguf", gguf({"general.architecture": "llama", "tokenizer.chat_template": CHATS["chatml"], "general.name": "x"}))
    fine("harmless/templates/plain.gguf", gguf({"general.architecture": "bert"}))
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "a" * 64 + "\nsize 438007537\n"
    for name in ["model.safetensors", "pytorch_model.bin", "model.onnx", "model.gguf", "tf_model.h5"]:
        fine(f"harmless/pointers/{name}", pointer)
    page = "<!DOCTYPE html>\n<html><head><title>Not found</title></head><body>404</body></html>\n"
    for name in ["model.safetensors", "pytorch_model.bin", "model.keras"]:
        fine(f"harmless/pages/{name}", page)
    fine("harmless/texts/README.md", "---\nlicense: mit\n---\n# A model\n\n```python\nimport os\nos.system('true')\n```\n\ncos\nsystem\nis a word\n")
    fine("harmless/texts/vocab.txt", "\n".join(["[PAD]", "[UNK]", "cos", "system", "ios", "android", "(", ")", ".", "t", "R", "cio", "open", "code", "interact", "##s"] * 20))
    fine("harmless/texts/words.txt", "cos\nsystem\nsin\ntan\n")
    fine("harmless/texts/merges.txt", "#version: 0.2\nĠ t\nh e\nc os\ni os\n" * 10)
    fine("harmless/texts/vocab.json", json.dumps({word: n for n, word in enumerate(["os", "system", "__class__", "__globals__", "eval"])}))
    fine("harmless/texts/config.json", json.dumps({"model_type": "bert", "architectures": ["BertModel"], "id2label": {"0": "a"}}))
    fine("harmless/texts/remote/config.json", json.dumps({"auto_map": {"AutoModel": "modeling_own.OwnModel"}, "model_type": "own"}))
    fine("harmless/texts/remote/modeling_own.py", "import torch\n\n\nclass OwnModel(torch.nn.Module):\n    pass\n")
    fine("harmless/texts/modules.json", json.dumps([{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}, {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]))
    fine("harmless/texts/model.safetensors.index.json", json.dumps({"metadata": {"total_size": 4}, "weight_map": {"w": "model-00001-of-00001.safetensors"}}))
    fine("harmless/texts/config.yaml", "model:\n  _target_: torch.nn.Linear\n  in_features: 3\nlr: 1e-3\n")
    fine("harmless/texts/generation_config.json", json.dumps({"eos_token_id": 2, "transformers_version": "4.40.0"}))
    fine("harmless/texts/special_tokens_map.json", "\ufeff" + json.dumps({"eos_token": "</s>"}))
    fine("harmless/texts/run.sh", "#!/bin/sh\npython train.py\n")
    fine("harmless/texts/data.csv", "a,b\n1,2\n")
    fine("harmless/texts/model.txt", "tree\nversion=v4\nnum_class=1\n")
    fine("harmless/texts/.gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n")
    fine("harmless/texts/empty.bin", b"")
    fine("harmless/texts/openvino_model.xml", '<?xml version="1.0"?><net name="m" version="11"><layers><layer id="0" name="x" type="Parameter"/></layers></net>')
    noise = random.Random(9)
    fine("harmless/other/openvino_model.bin", struct.pack("<200f", *[noise.gauss(0, 1) for _ in range(200)]))
    ct2 = struct.pack("<I", 6) + struct.pack("<H", 12) + b"WhisperSpec\0" + struct.pack("<I", 3) + struct.pack("<I", 1) + struct.pack("<100f", *[noise.gauss(0, 1) for _ in range(100)])
    fine("harmless/other/ct2_model.bin", ct2)
    fine("harmless/other/flax_model.msgpack", b"\x81\xa6params\x81\xa1w\xc7\x08\x01\x93\x91\x02\xa7float32\xc4\x08" + bytes(8))
    fine("harmless/other/model.mlmodel", b"\x08\x04\x12\x10\x0a\x06\x0a\x01x\x1a\x01\x00R\x06\x0a\x01y\x1a\x01\x00")
    fine("harmless/other/picture.png", PNG)
    fine("harmless/other/sound.wav", b"RIFF" + struct.pack("<I", 36 + 200) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16) + b"data" + struct.pack("<I", 200) + bytes(200))
    fine("harmless/other/picture.jpg", b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00\xff\xd9")
    fine("harmless/other/vocab.txt.gz", gzip.compress(b'"bpe_simple_vocab_16e6.txt#version: 0.2\ni n\nt h\n', mtime=0))
    fine("harmless/other/tokens.bz2", bz2.compress(b"a b c\n" * 100))
    fine("harmless/other/tokens.xz", lzma.compress(b"a b c\n" * 100))
    fine("harmless/other/tokens.zst", zstd(b"a b c\n" * 100))
    fine("harmless/other/archive.7z", b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(40))
    fine("harmless/other/archive.rar", b"Rar!\x1a\x07\x01\x00" + bytes(40))
    fine("harmless/other/files.zip", archive({"config.json": b"{}", "folder/": b"", "vocab.txt": b"a\nb\n"}, 8))
    fine("harmless/other/files.tar.gz", gzip.compress(tarred({"config.json": b"{}", "vocab.txt": b"a\nb\n"}), mtime=0))
    fine("harmless/other/model.nemo", tarred({"./model_config.yaml": b"target: nemo.collections.asr.models.EncDecCTCModel\n", "./model_weights.ckpt": archive({"a/data.pkl": HONEST})}))
    fine("harmless/other/padded.zip", archive({"a": b"b"}) + bytes(64))
    fine("harmless/other/truncated.pt", archive({"a/data.pkl": HONEST, "a/data/0": bytes(400)})[:-200])
    fine("harmless/other/empty.npz", b"PK\x05\x06" + bytes(18))
    fine("harmless/other/spiece.model", b"\x0a\x0e\x0a\x05<unk>\x15\x00\x00\x00\x00\x18\x02\x0a\x08\x0a\x03<s>\x18\x03")
    for path in ["sentiment/config.json", "sentiment/tokenizer.json", "sentiment/vocab.txt", "speech/generation_config.json", "speech/tokenizer_config.json"]:
        source = REPOSITORY / "assets" / path
        if source.is_file() and source.stat().st_size <= LARGEST:
            fine(f"harmless/shipped/{path.replace('/', '_')}", source.read_bytes())


def main() -> None:
    """Make everything, and write it."""
    out = Path(sys.argv[1])
    names()
    tricks()
    packed()
    polyglots()
    keras()
    hdf5()
    templates()
    graphs()
    harmless()
    manifest = [{"name": name, "size": len(content), "dangerous": bad, "says": says} for name, (content, bad, says) in FILES.items()]
    for name, (content, _, _) in FILES.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    whole = json.dumps(manifest, separators=(",", ":")).encode() + b"\n" + b"".join(content for content, _, _ in FILES.values())
    packed_corpus = gzip.compress(whole, 9, mtime=0)
    (REPOSITORY / "tests" / "fixtures" / "scan" / "corpus.gz").write_bytes(packed_corpus)
    bad = sum(entry["dangerous"] for entry in manifest)
    print(f"{bad} dangerous, {len(manifest) - bad} harmless, {len(packed_corpus)} bytes")


if __name__ == "__main__":
    main()
