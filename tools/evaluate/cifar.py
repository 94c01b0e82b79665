#!/usr/bin/env python3
"""Label the test pictures of CIFAR-10 with PyTorch in float32: the reference for the image classifier.

Writes one JSON line a picture and prints the accuracy. `--pixels` also writes the pictures as Pillow decodes them, in
the format of CIFAR-10's binary version, so that both sides can be given the same bytes.

    python tools/evaluate/cifar.py cifar10/jpeg --out reference.jsonl --pixels pillow.bin
    cargo run --release --example evaluate-images -- pillow.bin --expect reference.jsonl
    cargo run --release --example evaluate-images -- cifar10/jpeg/test.csv --expect reference.jsonl
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from transformers import AutoImageProcessor

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "fixtures"))
from common import read_pictures  # noqa: E402
from resnet import load_cifar  # noqa: E402


@torch.inference_mode()
def main() -> None:
    """Evaluate the model on every picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="directory of test.bin and test.csv")
    parser.add_argument("--model", type=Path, default=ROOT / "assets" / "cifar10", help="model directory")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines to write")
    parser.add_argument("--pixels", type=Path, help="decoded pictures to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    names = json.loads((arguments.model / "config.json").read_text(encoding="utf-8"))["id2label"]
    processor = AutoImageProcessor.from_pretrained(arguments.model)
    model = load_cifar(arguments.model)
    pictures, labels = read_pictures(arguments.data, "test")
    right = 0
    with arguments.out.open("w", encoding="utf-8") as out:
        for block, expected in zip(pictures.split(250), labels.split(250)):
            logits = model(processor(list(block), return_tensors="pt")["pixel_values"])
            best = logits.argmax(-1)
            right += int((best == expected).sum())
            scores = logits.softmax(-1)
            for row, index in enumerate(best.tolist()):
                line = {"label": names[str(index)], "score": scores[row, index].item(), "logits": logits[row].tolist()}
                out.write(json.dumps(line) + "\n")
    print(f"accuracy {right / len(labels):.4f} ({right} of {len(labels)})")
    if arguments.pixels is not None:
        rows = torch.cat([labels[:, None].to(torch.uint8), pictures.flatten(1)], 1)
        arguments.pixels.write_bytes(rows.numpy().tobytes())


if __name__ == "__main__":
    main()
