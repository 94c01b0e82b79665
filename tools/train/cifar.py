#!/usr/bin/env python3
"""Train the small image classifier of `assets/cifar10` on CIFAR-10.

The network is that of akamaster/pytorch_resnet_cifar10 with projecting shortcuts (option B), here 16, 64 and 128
channels wide with two blocks a stage. It learns from shifted and mirrored pictures by SGD with one cycle of the
learning rate, in bfloat16 where autocast allows it. The last 200 training pictures of each class are held out; the
epoch that is best on them is kept, rounded to float16 and written as a model directory. The test pictures are looked
at once, at the end. Everything runs on one CPU thread.

Both splits are read as JPEG files joined end to end (`train.bin`, `test.bin`) beside tables of their places and labels
(`train.csv`, `test.csv`: offset, length, label). Each epoch is kept in `--checkpoint`, from which a run that was cut
off goes on.

    python tools/train/cifar.py cifar10/jpeg --checkpoint cifar.pt --out assets/cifar10
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import ViTImageProcessor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))
from common import read_pictures  # noqa: E402
from resnet import Cifar, load_cifar  # noqa: E402

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
HELD_OUT = 200
SHIFT = 4

Data = tuple[Tensor, Tensor]


def hold_out(data: Data) -> tuple[Data, Data]:
    """All but the last `HELD_OUT` pictures of each class, and those."""
    pictures, labels = data
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(len(CLASSES)):
        held[(labels == label).nonzero()[-HELD_OUT:, 0]] = True
    return (pictures[~held], labels[~held]), (pictures[held], labels[held])


def normalise(pictures: Tensor) -> Tensor:
    """What the network gets of bytes."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    values = (pictures.float() / 255 - mean) / std
    return values.contiguous(memory_format=torch.channels_last)


def shift_and_mirror(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Each picture moved by up to `SHIFT` pixels, its edge reflected, and half of them mirrored."""
    count, _, height, width = pictures.shape
    padded = functional.pad(pictures.float(), [SHIFT] * 4, mode="reflect")

    def places(size: int) -> Tensor:
        begin = torch.randint(2 * SHIFT + 1, (count, 1), generator=generator)
        return begin + torch.arange(size)

    rows, columns = places(height), places(width)
    mirrored = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    of = torch.arange(count)[:, None, None]
    # Indices around a slice put the sliced axis last.
    return padded[of, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@torch.no_grad()
def logits(model: nn.Module, pictures: Tensor, batch: int = 250) -> Tensor:
    """The answers in float32."""
    model.eval()
    return torch.cat([model(normalise(block)) for block in pictures.split(batch)])


def accuracy(model: nn.Module, data: Data) -> float:
    """The share of the pictures that the model labels right."""
    pictures, labels = data
    return (logits(model, pictures).argmax(1) == labels).double().mean().item()


def network(arguments: argparse.Namespace) -> nn.Module:
    """The untrained network; the second norm of each block starts at zero, so that blocks start as their shortcuts."""
    torch.manual_seed(arguments.seed)
    model = Cifar(arguments.widths, arguments.depth, "B")
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif name.endswith("bn2"):
            nn.init.zeros_(module.weight)
    return model.to(memory_format=torch.channels_last)


def train(arguments: argparse.Namespace, data: Data, valid: Data) -> nn.Module:
    """The model after its best epoch."""
    model = network(arguments)
    pictures, labels = data
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": arguments.decay},
            {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
        ],
        lr=arguments.rate,
        momentum=0.9,
        nesterov=True,
    )
    steps = arguments.epochs * (len(labels) // arguments.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, arguments.rate, total_steps=steps, pct_start=0.2, cycle_momentum=False
    )
    generator = torch.Generator().manual_seed(arguments.seed)
    best, kept, first = 0.0, model.state_dict(), 0
    if arguments.checkpoint.exists():
        state = torch.load(arguments.checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        generator.set_state(state["generator"])
        best, kept, first = state["best"], state["kept"], state["epoch"]
    for epoch in range(first, arguments.epochs):
        start, busy, total, right = time.time(), time.process_time(), 0.0, 0
        model.train()
        order = torch.randperm(len(labels), generator=generator)
        batches = order[: len(order) // arguments.batch * arguments.batch].split(arguments.batch)
        for index, indices in enumerate(batches):
            inputs = normalise(shift_and_mirror(pictures[indices], generator))
            with torch.autocast("cpu", torch.bfloat16, enabled=arguments.bf16):
                output = model(inputs)
            loss = functional.cross_entropy(output.float(), labels[indices], label_smoothing=arguments.smoothing)
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            total += loss.item()
            right += (output.argmax(1) == labels[indices]).sum().item()
            if (index + 1) % 100 == 0:
                print(f"  {index + 1} of {len(batches)}: loss {total / (index + 1):.4f}", flush=True)
        score = accuracy(model, valid)
        print(
            f"epoch {epoch + 1}: loss {total / len(batches):.4f} training {right / len(order):.4f} "
            f"validation {score:.4f} ({time.time() - start:.0f} s, {time.process_time() - busy:.0f} s of CPU)",
            flush=True,
        )
        if score > best:
            best, kept = score, {name: tensor.clone() for name, tensor in model.state_dict().items()}
        temporary = arguments.checkpoint.with_suffix(".tmp")
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "generator": generator.get_state(),
            "best": best,
            "kept": kept,
            "epoch": epoch + 1,
        }
        torch.save(state, temporary)
        temporary.replace(arguments.checkpoint)
    model.load_state_dict(kept)
    return model


def export(model: nn.Module, arguments: argparse.Namespace) -> None:
    """Write the model directory."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    state = {name: t.half().contiguous() for name, t in model.state_dict().items() if t.is_floating_point()}
    save_file(state, arguments.out / "model.safetensors", {"format": "pt"})
    config = {
        "architectures": ["ResNetForImageClassification"],
        "model_type": "resnet",
        "num_channels": 3,
        "embedding_size": arguments.widths[0],
        "hidden_sizes": arguments.widths,
        "depths": [arguments.depth] * 3,
        "layer_type": "basic",
        "hidden_act": "relu",
        "stem_type": "cifar",
        "zero_padded_shortcut": False,
        "id2label": {str(index): name for index, name in enumerate(CLASSES)},
        "label2id": {name: index for index, name in enumerate(CLASSES)},
        "dtype": "float16",
    }
    (arguments.out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    size = {"height": 32, "width": 32}
    ViTImageProcessor(size=size, image_mean=list(MEAN), image_std=list(STD)).save_pretrained(arguments.out)


def main() -> None:
    """Train, write the model, print its scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="directory of train.bin, train.csv, test.bin and test.csv")
    parser.add_argument("--checkpoint", type=Path, required=True, help="where the state of each epoch is kept")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--widths", type=int, nargs=3, default=[16, 64, 128], help="channels of each stage")
    parser.add_argument("--depth", type=int, default=2, help="blocks a stage")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--rate", type=float, default=0.2)
    parser.add_argument("--decay", type=float, default=5e-4)
    parser.add_argument("--smoothing", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data, valid = hold_out(read_pictures(arguments.data, "train"))
    model = train(arguments, data, valid)
    export(model, arguments)
    model = load_cifar(arguments.out)
    print(f"float16: validation {accuracy(model, valid):.4f}")
    print(f"float16: test {accuracy(model, read_pictures(arguments.data, 'test')):.4f}")


if __name__ == "__main__":
    main()
