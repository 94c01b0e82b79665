"""The side of a peer in Python: what `benches/zoo.rs` does, by the same protocol."""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import networks

SENTENCE = "a warm, funny, engaging film"
# A linear layer takes too little time to be measured once.
LINEAR_TIMES = 20


class Torch:
    """PyTorch, eager or compiled."""

    def __init__(self, arguments: argparse.Namespace):
        import torch

        torch.set_num_threads(arguments.threads)
        torch.set_grad_enabled(False)
        self.arguments = arguments
        self.compiled = arguments.framework == "compiled"

    def load(self) -> None:
        """Open the network, then its tokenizer, and embed one sentence; once."""
        from transformers import AutoModel, AutoTokenizer

        start = time.perf_counter()
        model = AutoModel.from_pretrained(self.arguments.model)
        opened = time.perf_counter() - start
        tokenizer = AutoTokenizer.from_pretrained(self.arguments.model)
        model(**tokenizer(SENTENCE, return_tensors="pt")).last_hidden_state.mean(1)
        show(seconds=opened, answer_seconds=time.perf_counter() - start)

    def start(self) -> None:
        """Print the class of a text."""
        from transformers import pipeline

        classify = pipeline("text-classification", str(self.arguments.model), device="cpu")
        print(classify(self.arguments.text)[0]["label"])

    def forward(self) -> None:
        """Run the network on the tensors of a file."""
        model, inputs = self.ready(networks.open_model(self.arguments.model), read(self.arguments.inputs))
        output = self.arguments.output
        self.measure(lambda: {output: model(**inputs)[output].float()})

    def encode(self) -> None:
        """Run Whisper's encoder."""
        inputs = read(self.arguments.inputs)
        del inputs["decoder_input_ids"]
        encoder, inputs = self.ready(networks.open_model(self.arguments.model).get_encoder(), inputs)
        self.measure(lambda: {"last_hidden_state": encoder(**inputs).last_hidden_state.float()})

    def generate(self) -> None:
        """Run Whisper's encoder, then its decoder token by token, always the likeliest."""
        import torch
        from transformers.modeling_outputs import BaseModelOutput

        model = networks.open_model(self.arguments.model)
        encoder, inputs = self.ready(model.get_encoder(), read(self.arguments.inputs))
        model, _ = self.ready(model, {})

        def work() -> dict:
            encoded = BaseModelOutput(encoder(inputs["input_features"]).last_hidden_state)
            ids, cache, found = inputs["decoder_input_ids"], None, []
            for _ in range(self.arguments.tokens):
                step = model(
                    encoder_outputs=encoded, decoder_input_ids=ids, past_key_values=cache, use_cache=True
                )  # fmt: skip
                cache = step.past_key_values
                ids = step.logits[:, -1:].argmax(-1)
                found.append(ids)
            return {"tokens": torch.cat(found, 1)}

        self.measure(work)

    def sentences(self) -> None:
        """Embed the lines of a file."""
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(self.arguments.model), device="cpu", local_files_only=True)
        lines = self.arguments.file.read_text(encoding="utf-8").splitlines()
        options = dict(batch_size=32, show_progress_bar=False, convert_to_tensor=True)
        self.measure(lambda: {"embeddings": model.encode(lines, **options)})

    def linear(self) -> None:
        """Run a linear layer."""
        import torch

        tensors = read(self.arguments.inputs)
        layer, given = torch.nn.functional.linear, (tensors["input"], tensors["weight"], tensors["bias"])
        if self.arguments.framework == "onednn":
            layer = torch.ops.mkldnn._linear_pointwise
            packed = torch.ops.mkldnn._reorder_linear_weight(tensors["weight"].to_mkldnn(), len(tensors["input"]))
            given = (tensors["input"], packed, tensors["bias"], "none", [], "")
        self.measure(lambda: {"output": [layer(*given) for _ in range(LINEAR_TIMES)][-1]})

    def ready(self, model, inputs: dict) -> tuple:
        """The model and its inputs in the type to compute in; the model compiled if it is to be."""
        import torch

        if self.arguments.dtype == "bf16":
            model = model.to(torch.bfloat16)
            inputs = {name: value.bfloat16() if value.is_floating_point() else value for name, value in inputs.items()}
        if self.compiled:
            import torch._inductor.config

            # Weights become constants, which are then packed, and batch norm is folded into them.
            torch._inductor.config.freezing = True
            model = torch.compile(model)
        return model, inputs

    def measure(self, work: Callable[[], dict]) -> None:
        """As below; what is compiled may be compiled again when it sees another shape."""
        for _ in range(2 if self.compiled else 0):
            work()
        measure(self.arguments, work)


class Onnx:
    """A runtime of exported networks; each network takes arrays and gives arrays, in its own order."""

    def __init__(self, arguments: argparse.Namespace):
        self.arguments = arguments
        opened = self.onnxruntime if arguments.framework == "onnxruntime" else self.openvino
        self.networks = [opened(path) for path in arguments.onnx]

    def onnxruntime(self, path: str) -> Callable:
        """A network of ONNX Runtime."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.arguments.threads
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [given.name for given in session.get_inputs()]
        return lambda *arrays: session.run(None, dict(zip(names, arrays, strict=True)))

    def openvino(self, path: str) -> Callable:
        """A network of OpenVINO."""
        import openvino

        settings = {
            "INFERENCE_PRECISION_HINT": self.arguments.dtype,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self.arguments.threads,
        }
        request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()
        return lambda *arrays: list(request.infer(list(arrays), share_inputs=True).values())

    def start(self) -> None:
        """Print the class of a text."""
        import numpy as np
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self.arguments.model / "tokenizer.json"))
        (network,) = self.networks
        (logits,) = network(np.array([tokenizer.encode(self.arguments.text).ids]))
        print(json.loads((self.arguments.model / "config.json").read_text())["id2label"][str(logits.argmax())])

    def forward(self) -> None:
        """Run the network on the tensor of a file."""
        import torch

        tensors = read(self.arguments.inputs)
        tensors.pop("decoder_input_ids", None)
        arrays = [tensor.numpy() for tensor in tensors.values()]
        (network,) = self.networks
        self.measure(lambda: {self.arguments.output: torch.from_numpy(network(*arrays)[0]).float()})

    encode = forward

    def generate(self) -> None:
        """Run Whisper's encoder, then its decoder token by token, always the likeliest."""
        import numpy as np
        import torch

        inputs = {name: tensor.numpy() for name, tensor in read(self.arguments.inputs).items()}
        encoder, first, step = self.networks

        def work() -> dict:
            (encoded,) = encoder(inputs["input_features"])
            logits, *state = first(inputs["decoder_input_ids"], encoded)
            past, crossed = state[: len(state) // 2], state[len(state) // 2 :]
            found = [logits[0, -1].argmax()]
            while len(found) < self.arguments.tokens:
                logits, *past = step(np.array([found[-1:]]), *past, *crossed)
                found.append(logits[0, -1].argmax())
            return {"tokens": torch.tensor([found])}

        self.measure(work)

    def measure(self, work: Callable[[], dict]) -> None:
        """As below."""
        measure(self.arguments, work)


def read(path: Path) -> dict:
    """The tensors of a file."""
    from safetensors.torch import load_file

    return load_file(path)


def measure(arguments: argparse.Namespace, work: Callable[[], dict]) -> None:
    """Warm up, write the outputs, then run once a line."""
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in work().items()}, arguments.out)
    for _ in sys.stdin:
        start = time.perf_counter()
        work()
        show(seconds=time.perf_counter() - start)


def show(**values: float) -> None:
    """Print a line, with the most memory that the process has had."""
    print(json.dumps(values | {"peak_bytes": peak_bytes()}), flush=True)


def peak_bytes() -> int | None:
    """The most memory that this process has had resident, where `/proc` tells."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part")
    parser.add_argument("--framework", choices=("pytorch", "compiled", "onednn", "onnxruntime", "openvino"))
    parser.add_argument("--dtype", default="f32")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--tokens", type=int, default=networks.TOKENS)
    parser.add_argument("--onnx", action="append", default=[])
    for option in ("model", "file", "out", "inputs"):
        parser.add_argument(f"--{option}", type=Path)
    for option in ("output", "text"):
        parser.add_argument(f"--{option}")
    arguments = parser.parse_args()
    side = Onnx if arguments.framework in ("onnxruntime", "openvino") else Torch
    getattr(side(arguments), arguments.part)()


if __name__ == "__main__":
    main()
