#!/usr/bin/env python3
"""Write the weights of a PatchTST checkpoint of the authors' repository (`checkpoint.pth`) as safetensors.

    python tools/convert/patchtst.py checkpoint.pth out/model.safetensors

The directory can then be opened by `--architecture patchtst/original`; arguments of the training that the shapes do
not show and that are not the script's defaults belong into a `config.json` beside it, under their names there.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file


def main() -> None:
    """Convert one file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    weights = torch.load(arguments.checkpoint, map_location="cpu", weights_only=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous().clone() for name, tensor in weights.items()}, arguments.out, {"format": "pt"})


if __name__ == "__main__":
    main()
