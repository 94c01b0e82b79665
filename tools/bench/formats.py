"""Time reading a BERT-base of 440 MB in each format, and converting it, beside the reference libraries.

Run from anywhere: `python tools/bench/formats.py [--only times,memory] [--folder DIR] [--runs N] [--json FILE] [--write
docs/benchmarks-formats.md]`. It builds `benches/formats.rs` and the command itself, and makes the files in DIR, or a
temporary folder, which takes 8 GB. Needs gguf, h5py, numpy, safetensors, torch and transformers. The files are in the
page cache: what is timed is the work, not the disk. Parts that were measured before are kept in FILE, so that they need
not be measured at once.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import gguf
import h5py
import numpy as np
import torch
from gguf.quants import dequantize
from report import cpu
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

ROOT = Path(__file__).resolve().parents[2]
MEGABYTE = 1e6
PARTS = ("times", "memory")
LARGEST = 30522 * 768 * 4
# How the model is converted for its peak memory: from what, and the options.
CONVERSIONS = {
    "safetensors to PyTorch": ("safetensors", ["--format", "pytorch"]),
    "safetensors to f16": ("safetensors", ["--dtype", "f16"]),
    "safetensors to GGUF Q4_K": ("safetensors", ["--format", "gguf", "--dtype", "q4_k"]),
    "safetensors to GGUF Q6_K": ("safetensors", ["--format", "gguf", "--dtype", "q6_k"]),
    "safetensors to burnpack": ("safetensors", ["--format", "burnpack"]),
    "safetensors to npz": ("safetensors", ["--format", "npz"]),
    "safetensors to TensorFlow": ("safetensors", ["--format", "tensorflow"]),
    "safetensors to JSON": ("safetensors", ["--format", "json"]),
    "safetensors to JSON, Zstandard": ("safetensors", ["--format", "json", "--compress", "zstd"]),
    "safetensors, sharded": ("safetensors", ["--shard-size", "100MB"]),
    "safetensors to native": ("safetensors", ["--format", "native"]),
    ".bin to safetensors": ("torch", []),
    "npz to safetensors": ("npz", []),
    "burnpack to safetensors": ("burnpack", []),
    "HDF5 to safetensors": ("model.h5", []),
    "GGUF Q4_K to safetensors": ("q4_k.gguf", ["--dtype", "f32"]),
}


def build() -> tuple[Path, Path]:
    """Build the benchmark and the command, and find them."""
    command = ["cargo", "build", "--release", "--workspace", "--bench", "formats", "--bin", "salamander",
               "--message-format", "json"]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = {}
    for line in output.splitlines():
        message = json.loads(line)
        if message.get("executable"):
            found[message["target"]["name"]] = Path(message["executable"])
    return found["formats"], found["salamander"]


def make(folder: Path, command: Path) -> None:
    """Write the model in every format, what torch writes by torch, the others by the command."""
    source = folder / "safetensors"
    if not (source / "model.safetensors").exists():
        torch.manual_seed(0)
        model = BertModel(BertConfig())
        model.save_pretrained(source)
        (folder / "torch").mkdir(exist_ok=True)
        model.config.save_pretrained(folder / "torch")
        torch.save(model.state_dict(), folder / "torch" / "pytorch_model.bin")
    for name, options in {
        "pytorch": ["--format", "pytorch"],
        "npz": ["--format", "npz"],
        "burnpack": ["--format", "burnpack"],
        "f16": ["--dtype", "f16"],
    }.items():
        if not (folder / name).exists():
            subprocess.run([command, "convert", source, folder / name, *options], check=True, stdout=subprocess.DEVNULL)
    if not (folder / "model.h5").exists():
        with h5py.File(folder / "model.h5", "w") as file:
            for name, tensor in load_file(source / "model.safetensors").items():
                file[name.replace(".", "/")] = tensor.numpy()
    for name in ("q4_k", "q8_0"):
        if not (folder / f"{name}.gguf").exists():
            subprocess.run([command, "convert", source, folder / f"{name}.gguf", "--dtype", name], check=True,
                           stdout=subprocess.DEVNULL)


def ours(benchmark: Path, runs: int, *arguments: object) -> float:
    """The median of a few runs in one process, after one that is not counted."""
    process = subprocess.run([benchmark, *map(str, arguments)], input="\n" * runs, check=True, stdout=subprocess.PIPE,
                             text=True, env=os.environ | {"SALAMANDER_DEVICE": "flex"})
    times = [json.loads(line)["seconds"] for line in process.stdout.splitlines() if line.startswith("{")]
    return statistics.median(times[1:])


def theirs(runs: int, call) -> float:  # noqa: ANN001
    """The same of a function."""
    call()
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def peak(command: list[object]) -> int:
    """The most memory that a command held, in bytes; a child of this large process would inherit its peak."""
    measure = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
    measure += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    small = [sys.executable, "-S", "-c", measure, *map(str, command)]
    return int(subprocess.run(small, check=True, stdout=subprocess.PIPE, text=True).stdout) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: text.split(","), default=PARTS, help=f"of {','.join(PARTS)}")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, help="where measurements are kept")
    parser.add_argument("--write", type=Path, help="where to write the tables, as Markdown")
    parser.add_argument("--make-only", action="store_true")
    parser.add_argument("--bench", type=Path, help="the built benchmark; with --command, nothing is built")
    parser.add_argument("--command", type=Path, help="the built command")
    arguments = parser.parse_args()
    if unknown := set(arguments.only) - set(PARTS):
        parser.error(f"--only: no such part: {', '.join(sorted(unknown))}")
    torch.set_num_threads(arguments.threads)
    os.environ["RAYON_NUM_THREADS"] = str(arguments.threads)
    if arguments.bench and arguments.command:
        benchmark, command = arguments.bench, arguments.command
    else:
        benchmark, command = build()
    found = {}
    if arguments.json and arguments.json.exists():
        found = json.loads(arguments.json.read_text())
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        make(folder, command)
        if arguments.make_only:
            return
        if "times" in arguments.only:
            found["times"] = times(folder, benchmark, arguments.runs)
        if "memory" in arguments.only:
            found["memory"] = memory(folder, command)
    found["surroundings"] = surroundings(arguments.threads)
    text = "\n".join(tables(found))
    print(text)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    if arguments.write:
        arguments.write.write_text(f"# Benchmarks of formats\n\n{text}\n")


def times(folder: Path, benchmark: Path, runs: int) -> list[dict]:
    """Our times beside the reference libraries'."""
    rows: list[tuple[str, float, str, float]] = []
    source = folder / "safetensors" / "model.safetensors"
    plain = ours(benchmark, runs, "bytes", source)
    for name in ("safetensors", "burnpack", "pytorch", "npz", "f16"):
        rows.append((f"load {name}", ours(benchmark, runs, "load", folder / name), "reading the f32 file", plain))
    model = BertModel(BertConfig())
    file = folder / "torch" / "pytorch_model.bin"

    def by_torch() -> None:
        model.load_state_dict(torch.load(file, weights_only=True))

    rows.append(("load torch's .bin", ours(benchmark, runs, "load", folder / "torch"), "torch.load + load_state_dict",
                 theirs(runs, by_torch)))

    def by_safetensors() -> None:
        model.load_state_dict(load_file(source))

    rows.append(("load safetensors", ours(benchmark, runs, "load", folder / "safetensors"), "load_file + load_state_dict",
                 theirs(runs, by_safetensors)))
    for name in ("q4_k", "q8_0"):
        path = folder / f"{name}.gguf"
        reader = gguf.GGUFReader(path)

        def by_gguf(reader: gguf.GGUFReader = reader) -> None:
            for tensor in reader.tensors:
                np.asarray(dequantize(tensor.data, tensor.tensor_type))

        rows.append((f"dequantize {name}", ours(benchmark, runs, "read", path), "gguf", theirs(max(1, runs // 3), by_gguf)))
    fields = ("what", "seconds", "reference", "reference_seconds")
    return [dict(zip(fields, row, strict=True)) for row in rows]


def memory(folder: Path, command: Path) -> dict[str, dict[str, float]]:
    """The most memory that each conversion held, and how long it took with reading back."""
    found = {}
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        for number, (name, (source, options)) in enumerate(CONVERSIONS.items()):
            target = Path(temporary) / str(number)
            begin = time.perf_counter()
            used = peak([command, "convert", folder / source, target, *options])
            found[name] = {"bytes": used, "seconds": time.perf_counter() - begin}
            subprocess.run(["rm", "-r", target], check=True)
            print(f"{name}: {used / MEGABYTE:.1f} MB", file=sys.stderr)
    return found


def surroundings(threads: int) -> dict[str, object]:
    """What the numbers depend on besides the code."""
    rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return {"cpu": cpu(), "threads": threads, "compiler": rustc, "torch": torch.__version__, "gguf": version("gguf"),
            "safetensors": version("safetensors"), "numpy": np.__version__}  # fmt: skip


def tables(found: dict) -> list[str]:
    """The measurements as Markdown."""
    lines = ["`python tools/bench/formats.py --write docs/benchmarks-formats.md` measures and writes this, with a BERT-base of",
             "440 MB in every format. Files are in the page cache.", ""]  # fmt: skip
    if rows := found.get("times"):
        lines += ["| work | ours | reference | its time | times as fast |", "|---|---:|---|---:|---:|"]
        for row in rows:
            mine, other = row["seconds"], row["reference_seconds"]
            lines.append(f"| {row['what']} | {mine * 1e3:.1f} ms | {row['reference']} | {other * 1e3:.1f} ms "
                         f"| {other / mine:.2f} |")  # fmt: skip
        lines.append("")
    if rows := found.get("memory"):
        limit = (LARGEST + 100 * MEGABYTE) / MEGABYTE
        lines += [f"The largest tensor and 100 MB are {limit:.1f} MB, which no conversion may exceed. Times include reading back.",
                  "", "| conversion | peak memory | time |", "|---|---:|---:|"]  # fmt: skip
        for name, used in rows.items():
            lines.append(f"| {name} | {used['bytes'] / MEGABYTE:.1f} MB | {used['seconds']:.1f} s |")
        lines.append("")
    lines.append(", ".join(f"{name} {value}" for name, value in found["surroundings"].items()) + ".")
    return lines


if __name__ == "__main__":
    sys.exit(main())
