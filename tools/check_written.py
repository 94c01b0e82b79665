"""Read with the reference libraries what Salamander has written, and compare it.

Run as `python tools/check_written.py FOLDER`; the test `the_reference_libraries_read_what_is_written` of
`importers/tests/write.rs` fills the folder and calls this. `reference.safetensors` has the values, `model.*` the same in
other formats, `quantized.gguf` blocks, and `dequantized.safetensors` what Salamander reads in those. Needs ml-dtypes,
numpy and safetensors. What gguf, mlx, tensorflow, torch and yaml read is compared where they are installed.
"""

import base64
import json
import os
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors import deserialize, safe_open

Arrays = dict[str, np.ndarray]
TYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "I64": np.int64, "I32": np.int32,
    "I16": np.int16, "I8": np.int8, "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
    "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2, "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz, "F8_E8M0": ml_dtypes.float8_e8m0fnu,
}  # fmt: skip


def array(dtype: str, shape: list[int], raw: bytes) -> np.ndarray:
    """The array of these bytes."""
    return np.frombuffer(raw, TYPES[dtype]).reshape(shape)


def check(what: str, found: Arrays, expected: Arrays, widened: bool = False) -> None:
    """Compare types, shapes and bytes; `widened` arrays have the type that the format has in place of theirs."""
    assert found.keys() == expected.keys(), (what, found.keys() ^ expected.keys())
    for name, value in found.items():
        wanted = expected[name]
        if widened and value.dtype != wanted.dtype:
            wanted = wanted.astype(np.float32).astype(value.dtype) if wanted.dtype.kind == "V" else wanted.astype(value.dtype)
            if value.dtype.kind == "f":
                # Which of the many that are no numbers it is, is left to the machine.
                value, wanted = (np.where(np.isnan(x), x.dtype.type(-1.25), x) for x in (value, wanted))
        same = value.dtype == wanted.dtype and value.shape == wanted.shape and value.tobytes() == wanted.tobytes()
        assert same, (what, name, value, wanted)
    print(f"{what}: {len(found)} tensors are the same")


def sharded(folder: Path, index: str, load) -> Arrays:  # noqa: ANN001
    """Load a set through its index, as transformers does."""
    parsed = json.loads((folder / index).read_text())
    found: Arrays = {}
    for shard in sorted(set(parsed["weight_map"].values())):
        arrays = load(folder / shard)
        assert all(parsed["weight_map"][name] == shard for name in arrays)
        found |= arrays
    assert parsed["metadata"]["total_size"] == sum(value.nbytes for value in found.values())
    return found


def by_safetensors(path: Path) -> Arrays:
    """What the package finds in one file."""
    tensors = deserialize(path.read_bytes())
    return {name: array(tensor["dtype"], tensor["shape"], bytes(tensor["data"])) for name, tensor in tensors}


def safetensors(folder: Path, expected: Arrays) -> None:
    """The metadata, and a set of files."""
    with safe_open(folder / "reference.safetensors", "np") as file:
        metadata = file.metadata()
    assert metadata["license"] == "MIT" and metadata["format"] == "pt", metadata
    check("safetensors, sharded", sharded(folder, "model.safetensors.index.json", by_safetensors), expected)


def numpy(folder: Path, expected: Arrays) -> None:
    """An archive."""
    with np.load(folder / "model.npz", allow_pickle=False) as arrays:
        check("numpy.load", {name: arrays[name] for name in arrays}, expected, widened=True)


def text(folder: Path, expected: Arrays) -> None:
    """A state dictionary in JSON, and a model."""
    parsed = json.loads((folder / "model.json").read_text())
    assert parsed["version"] == "1.0" and parsed["metadata"]["license"] == "MIT"
    found = {}
    for name, tensor in parsed["tensors"].items():
        found[name] = array(tensor["dtype"].upper(), tensor["shape"], base64.b64decode(tensor["data"], validate=True))
    check("JSON", found, expected)
    parsed_model("JSON model", json.loads((folder / "numbers.json").read_text()), expected)


def yaml(folder: Path, expected: Arrays) -> None:
    """A model."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    parsed_model("YAML model", yaml.load((folder / "model.yaml").read_text(), loader), expected)


def parsed_model(what: str, model: dict, expected: Arrays) -> None:
    """Numbers one after the other, of the tensors whose values all are numbers."""
    # YAML 1.1 takes a number without a dot for a text.
    data, found = np.array([float(number) for number in model["data"]]).astype(np.float32), {}
    for parameter in model["parameters"]:
        count = int(np.prod(parameter["shape"], dtype=np.int64))
        found[parameter["name"]], data = data[:count].reshape(parameter["shape"]), data[count:]
    assert len(data) == 0 and len(found) > 5
    check(what, found, {name: expected[name] for name in found}, widened=True)


def torch(folder: Path, expected: Arrays) -> None:
    """One file, read and mapped, and a set of them."""
    import torch

    torch.set_num_threads(1)
    names = {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E4M3FNUZ": "float8_e4m3fnuz",
             "F8_E5M2FNUZ": "float8_e5m2fnuz", "F8_E8M0": "float8_e8m0fnu", "BOOL": "bool"}  # fmt: skip
    of_torch = {getattr(torch, names.get(name, np.dtype(kind).name)): name for name, kind in TYPES.items()}

    def load(path: Path, **options: bool) -> Arrays:
        tensors = torch.load(path, weights_only=True, **options)
        raw = {name: tensor.contiguous().reshape(-1).view(torch.uint8) for name, tensor in tensors.items()}
        return {name: array(of_torch[tensors[name].dtype], list(tensors[name].shape), raw[name].numpy().tobytes())
                for name in tensors}  # fmt: skip

    check("torch.load", load(folder / "model.pt"), expected)
    check("torch.load, mapped", load(folder / "model.pt", mmap=True), expected)
    check("torch.load, sharded", sharded(folder, "pytorch_model.bin.index.json", load), expected)
    tensors = torch.load(folder / "model.pt", weights_only=True)
    module = torch.nn.ParameterDict(
        {name: torch.nn.Parameter(torch.zeros_like(t), False) for name, t in tensors.items() if t.dtype == torch.float32}
    )
    module.load_state_dict({name: tensors[name] for name in module.state_dict()})


def gguf(folder: Path, expected: Arrays) -> None:
    """Plain types, and blocks."""
    import gguf
    from gguf.quants import dequantize

    reader = gguf.GGUFReader(folder / "model.gguf")
    assert reader.fields["license"].contents() == "MIT"
    held = {name: value for name, value in expected.items() if value.dtype != np.uint64}
    found = {}
    for tensor in reader.tensors:
        brain = tensor.tensor_type == gguf.GGMLQuantizationType.BF16
        data = tensor.data.view(ml_dtypes.bfloat16) if brain else tensor.data
        # The package has no tensors without a dimension.
        found[tensor.name] = data.reshape(held[tensor.name].shape)
    check("GGUFReader", found, held, widened=True)
    found = {}
    for tensor in gguf.GGUFReader(folder / "quantized.gguf").tensors:
        found[tensor.name] = dequantize(tensor.data, tensor.tensor_type)
    check("gguf.dequantize", found, by_safetensors(folder / "dequantized.safetensors"))


def tensorflow(folder: Path, expected: Arrays) -> None:
    """A checkpoint of the second version."""
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    import tensorflow as tf

    prefix = str(folder / "model.ckpt")
    listed = dict(tf.train.list_variables(prefix))
    assert listed == {name: list(value.shape) for name, value in expected.items()}, listed
    reader = tf.train.load_checkpoint(prefix)
    found = {name: np.asarray(reader.get_tensor(name)) for name in listed}
    check("tf.train.load_checkpoint", found, expected, widened=True)


def mlx(folder: Path, expected: Arrays) -> None:
    """An archive, and the types of safetensors that MLX has."""
    import mlx.core as mx

    def values(arrays: dict) -> Arrays:
        # NumPy has no name for bfloat16.
        is_brain = {name: value.dtype == mx.bfloat16 for name, value in arrays.items()}
        return {name: np.array(value.view(mx.uint16)).view(ml_dtypes.bfloat16) if is_brain[name] else np.array(value)
                for name, value in arrays.items()}  # fmt: skip

    check("mlx, npz", values(mx.load(str(folder / "model.npz"))), expected, widened=True)
    found = values(mx.load(str(folder / "plain.safetensors")))
    check("mlx, safetensors", found, {name: expected[name] for name in found})


def main() -> None:
    folder = Path(sys.argv[1])
    expected = by_safetensors(folder / "reference.safetensors")
    for section in (safetensors, numpy, text, yaml, torch, gguf, tensorflow, mlx):
        try:
            section(folder, expected)
        except ModuleNotFoundError as error:
            print(f"skipped: {error.name} is not installed")


if __name__ == "__main__":
    main()
