"""Read with the reference libraries what Salamander has written, and compare it.

Run as `python tools/check_written.py FOLDER`; the test `the_reference_libraries_read_what_is_written` of
`importers/tests/write.rs` fills the folder and calls this. `reference.safetensors` has the values, `model.*` the same in
other formats, `quantized.gguf` blocks, and `dequantized.safetensors` what Salamander reads in those. Needs gguf, numpy,
safetensors and torch.
"""

import base64
import json
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf.quants import dequantize
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor


def same(found: Tensor, expected: Tensor) -> bool:
    """Compare type, shape and bytes."""
    raw = [x.contiguous().reshape(-1).view(torch.uint8) for x in (found, expected)]
    return found.dtype == expected.dtype and found.shape == expected.shape and torch.equal(*raw)


def check(what: str, found: dict[str, Tensor], expected: dict[str, Tensor], widened: bool = False) -> None:
    """Compare all tensors; `widened` ones have the type that the format has in place of theirs."""
    assert found.keys() == expected.keys(), (what, found.keys() ^ expected.keys())
    for name, tensor in found.items():
        wanted = expected[name]
        if widened and tensor.dtype != wanted.dtype:
            wanted = wanted.to(tensor.dtype)
            # Which of the many that are no numbers it is, is left to the machine.
            if tensor.is_floating_point():
                tensor, wanted = tensor.nan_to_num(nan=-1.25), wanted.nan_to_num(nan=-1.25)
        assert same(tensor, wanted), (what, name, tensor, wanted)
    print(f"{what}: {len(found)} tensors are the same")


def sharded(folder: Path, index: str, load) -> dict[str, Tensor]:  # noqa: ANN001
    """Load a set through its index, as transformers does."""
    parsed = json.loads((folder / index).read_text())
    found: dict[str, Tensor] = {}
    for shard in sorted(set(parsed["weight_map"].values())):
        tensors = load(folder / shard)
        assert all(parsed["weight_map"][name] == shard for name in tensors)
        found |= tensors
    assert parsed["metadata"]["total_size"] == sum(t.nbytes for t in found.values())
    return found


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    expected = load_file(folder / "reference.safetensors")
    with safe_open(folder / "reference.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["license"] == "MIT" and metadata["format"] == "pt", metadata

    check("safetensors, sharded", sharded(folder, "model.safetensors.index.json", load_file), expected)
    check("torch.load", torch.load(folder / "model.pt", weights_only=True), expected)
    check("torch.load, mapped", torch.load(folder / "model.pt", weights_only=True, mmap=True), expected)
    module = torch.nn.ParameterDict(
        {name: torch.nn.Parameter(torch.zeros_like(t), False) for name, t in expected.items() if t.dtype == torch.float32}
    )
    module.load_state_dict({name: torch.load(folder / "model.pt", weights_only=True)[name] for name in module.state_dict()})
    shards = sharded(folder, "pytorch_model.bin.index.json", lambda p: torch.load(p, weights_only=True))
    check("torch.load, sharded", shards, expected)

    with np.load(folder / "model.npz", allow_pickle=False) as arrays:
        found = {name: torch.from_numpy(arrays[name].copy()) for name in arrays}
    check("numpy.load", found, expected, widened=True)

    parsed = json.loads((folder / "model.json").read_text())
    assert parsed["version"] == "1.0" and parsed["metadata"]["license"] == "MIT"
    names = {"f64": torch.float64, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, "i64": torch.int64,
             "i32": torch.int32, "i16": torch.int16, "i8": torch.int8, "u64": torch.uint64, "u32": torch.uint32,
             "u16": torch.uint16, "u8": torch.uint8, "bool": torch.bool, "f8_e4m3": torch.float8_e4m3fn,
             "f8_e5m2": torch.float8_e5m2, "f8_e4m3fnuz": torch.float8_e4m3fnuz, "f8_e5m2fnuz": torch.float8_e5m2fnuz,
             "f8_e8m0": torch.float8_e8m0fnu}
    found = {}
    for name, tensor in parsed["tensors"].items():
        raw = bytearray(base64.b64decode(tensor["data"], validate=True))
        flat = torch.frombuffer(raw, dtype=torch.uint8) if raw else torch.empty(0, dtype=torch.uint8)
        found[name] = flat.view(names[tensor["dtype"]]).reshape(tensor["shape"])
    check("JSON", found, expected)

    reader = gguf.GGUFReader(folder / "model.gguf")
    assert reader.fields["license"].contents() == "MIT"
    found = {}
    for tensor in reader.tensors:
        data = tensor.data
        if tensor.tensor_type == gguf.GGMLQuantizationType.BF16:
            found[tensor.name] = torch.from_numpy(data.copy()).view(torch.bfloat16).reshape(data.shape[:-1] + (-1,))
        else:
            found[tensor.name] = torch.from_numpy(data.copy())
        wanted = expected[tensor.name]
        # The package has no tensors without a dimension.
        found[tensor.name] = found[tensor.name].reshape(wanted.shape)
    held = {name: tensor for name, tensor in expected.items() if tensor.dtype != torch.uint64}
    check("GGUFReader", found, held, widened=True)

    ours = load_file(folder / "dequantized.safetensors")
    found = {}
    for tensor in gguf.GGUFReader(folder / "quantized.gguf").tensors:
        found[tensor.name] = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type))
    check("gguf.dequantize", found, ours)


if __name__ == "__main__":
    main()
