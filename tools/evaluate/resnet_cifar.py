"""Prepare the local check of trained CIFAR ResNets (tests/resnet_cifar.rs) and print the reference's accuracy.

    python tools/evaluate/resnet_cifar.py WEIGHTS POOL OUT

WEIGHTS holds `resnet20-*.th` and `resnet56-*.th` of akamaster/pytorch_resnet_cifar10, POOL is an `.npz` of lossless test
pictures and labels. OUT gets the weights as safetensors, and the pictures with their labels and the reference's logits;
`SALAMANDER_RESNET_CIFAR=OUT` makes the test run on them.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))
from resnet import Cifar  # noqa: E402

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def main(weights: Path, pool: Path, out: Path) -> None:
    """Convert, run and count."""
    torch.set_grad_enabled(False)
    out.mkdir(parents=True, exist_ok=True)
    arrays = np.load(pool)
    pictures = next(arrays[key] for key in arrays.files if arrays[key].ndim == 4)
    labels = next(arrays[key] for key in arrays.files if arrays[key].ndim == 1 and arrays[key].dtype.kind in "iu")
    if pictures.shape[1] == 3:
        pictures = pictures.transpose(0, 2, 3, 1)
    pictures = torch.from_numpy(np.ascontiguousarray(pictures))
    assert pictures.dtype == torch.uint8, pictures.dtype
    tensors = {"pictures": pictures, "labels": torch.from_numpy(labels.astype(np.int64))}
    inputs = (pictures.permute(0, 3, 1, 2).float() / 255 - MEAN) / STD
    for depth in (20, 56):
        file = next(weights.glob(f"resnet{depth}-*.th"))
        state = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
        save_file({k: v.contiguous() for k, v in state.items()}, out / f"resnet{depth}.safetensors")
        model = Cifar([16, 32, 64], (depth - 2) // 6)
        model.load_state_dict({k.removeprefix("module."): v for k, v in state.items()}, strict=False)
        logits = model.eval()(inputs)
        tensors[f"logits{depth}"] = logits
        right = (logits.argmax(1) == tensors["labels"]).float().mean().item()
        print(f"resnet{depth}: {100 * right:.1f} % of {len(labels)} right")
    save_file(tensors, out / "pool.safetensors")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
