"""What was measured: kept as JSON, shown as Markdown."""

import json
import math
import os
import platform
import statistics
import subprocess
import sys
import textwrap
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HEAD = """# Benchmarks

`python tools/bench/run.py --write docs/benchmarks.md` measures and writes this.

Every side is a process of its own with the same weights, inputs and number of threads, and all must agree on the
outputs. They take turns: in each turn a side runs once unmeasured, so that it finds its caches as it left them, and
then twice. The figures are medians; less is better. Memory is the most that a side's process had resident, with what
it took to load or compile. The last column is ours over the best peer's; an empty cell is what a peer cannot run.
Weights are random but for MiniLM's.
"""
# What is to be said of a peer that has been measured.
NOTES = {
    "PyTorch": "PyTorch runs eagerly; in bf16 its model is converted.",
    "compiled": '"compiled" is PyTorch\'s `torch.compile` with weights frozen.',
    "ONNX Runtime": "ONNX Runtime runs an export for one shape, in int8 with its dynamic quantization.",
    "OpenVINO": "OpenVINO runs the same export in f32, and is told when to compute in bf16.",
    "tract": "tract runs that export too.",
    "rten": "rten runs that export too, in int8 ONNX Runtime's quantized one.",
    "candle": "candle is candle-transformers, whose Whisper decodes all tokens again at every step.",
}
TOKENS_NOTE = (
    "For tokens, exports are of Whisper's encoder and decoder with its keys and values as inputs. In bf16 and int8 "
    "tokens are not compared: where two are about as likely, rounding decides."
)
PACKAGES = ("torch", "transformers", "sentence-transformers", "onnxruntime", "openvino")
IN_RUST = ("candle", "rten", "tract")
THREADS = {1: "one thread", 2: "two threads"}
TITLES = {"networks": "", "memory": "Memory", "start": "Opening and starting", "linear": "Linear layers"}


class Report:
    """Rows by type, threads and work. Rows of another time are kept until they are measured again."""

    def __init__(self, path: Path | None, peers: dict[str, str]):
        self.path = path
        self.about = surroundings(peers)
        self.rows: list[dict] = []
        if path and path.exists():
            kept = json.loads(path.read_text())
            if kept["surroundings"] != self.about:
                raise SystemExit(f"{path} was measured with other versions or elsewhere: give another file")
            self.rows = kept["rows"]

    def add(self, key: dict, unit: str, ours: list[float], peers: dict[str, list[float]], worst: float = 0.0) -> None:
        """Take in a row, and show it."""
        one = statistics.median(ours)
        medians = {peer: statistics.median(runs) for peer, runs in peers.items()}
        ratio = one / min(medians.values()) if medians else None
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        row = key | dict(
            unit=unit, ours=one, peers=medians, ratio=ratio, worst=worst, load=load, ours_runs=ours, peer_runs=peers
        )
        same = [index for index, other in enumerate(self.rows) if all(other[name] == key[name] for name in key)]
        if same:
            self.rows[same[0]] = row
        else:
            self.rows.append(row)
        others = ", ".join(f"{peer} {median:.4g}" for peer, median in medians.items())
        said = f"{key['work']}, {key['dtype']}, {key['threads']} threads: {one:.4g} {unit}; {others}"
        print(said + (f"; ratio {ratio:.3g}" if ratio else ""), file=sys.stderr)
        if self.path:
            part = self.path.with_suffix(".part")
            part.write_text(json.dumps({"surroundings": self.about, "rows": self.rows}, indent=1) + "\n")
            part.rename(self.path)

    def markdown(self, works: list[str]) -> str:
        """All tables, their rows in the order of `works`."""
        measured = {peer for row in self.rows for peer in row["peers"]}
        notes = [*(note for peer, note in NOTES.items() if peer in measured), TOKENS_NOTE]
        about = [f"{name} {value}" for name, value in self.about.items() if name not in IN_RUST or name in measured]
        text = [HEAD, textwrap.fill(" ".join(notes), 119), "", ", ".join(about) + "."]
        rows = sorted(self.rows, key=lambda row: works.index(row["work"]))
        for dtype, threads in dict.fromkeys((row["dtype"], row["threads"]) for row in self.rows):
            here = [row for row in rows if (row["dtype"], row["threads"]) == (dtype, threads)]
            text.append(f"\n## {dtype}, {THREADS.get(threads, f'{threads} threads')}\n")
            for group, title in TITLES.items():
                chosen = [row for row in here if row["group"] == group]
                if chosen:
                    text += [f"### {title}\n"] if title else []
                    text += [table(chosen), "", *remarks(group, chosen)]
        return "\n".join(text).rstrip() + "\n"


def remarks(group: str, rows: list[dict]) -> list[str]:
    """What is to be said beneath a table."""
    ratios = [row["ratio"] for row in rows if row["ratio"]]
    worst = max(row["worst"] for row in rows)
    said = []
    if group in ("networks", "memory", "linear") and ratios:
        said.append(f"Geometric mean of the last column: {math.exp(statistics.fmean(map(math.log, ratios))):.2f}.")
    if worst:
        said.append(f"Outputs agree within {worst:.1e} of the largest value.")
    return [" ".join(said), ""] if said else []


def table(rows: list[dict]) -> str:
    """The rows as Markdown."""
    names = list(dict.fromkeys(peer for row in rows for peer in row["peers"]))
    lines = [f"| work | ours | {' | '.join(names)} | ours / best |", f"|---|{'---:|' * (len(names) + 2)}"]
    for row in rows:
        peers = (quantity(row["peers"][name], row["unit"]) if name in row["peers"] else "" for name in names)
        ratio = f"{row['ratio']:.2f}" if row["ratio"] else ""
        lines.append(f"| {row['work']} | {quantity(row['ours'], row['unit'])} | {' | '.join(peers)} | {ratio} |")
    return "\n".join(lines)


def quantity(value: float, unit: str) -> str:
    """A number with its unit, short."""
    if unit == "s" and value < 1:
        value, unit = value * 1e3, "ms"
    digits = 0 if value >= 1000 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} {unit}"


def surroundings(peers: dict[str, str]) -> dict[str, object]:
    """What the numbers depend on besides the code; `peers` are versions of those in Rust."""
    about = {"cpu": cpu(), "cores": os.cpu_count(), "python": platform.python_version()}
    about["rustc"] = subprocess.run(["rustc", "--version"], capture_output=True, text=True).stdout.split()[1]
    for package in PACKAGES:
        try:
            about[package] = version(package)
        except PackageNotFoundError:
            print(f"there is no {package}", file=sys.stderr)
    return about | peers


def cpu() -> str:
    """The name of the CPU."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
