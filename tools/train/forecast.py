#!/usr/bin/env python3
"""Train the small PatchTST of `assets/forecast` on ETTh1.

The split (12, 4 and 4 months), the standardisation by the training months and the sizes (16 wide, 4 heads, 3 layers,
patches of 16 every 8 hours) are those of PatchTST/42 in the paper. The class is transformers' `PatchTSTForPrediction`;
with `--loss nll` its head gives a Student-t distribution, so that a forecast has intervals. The epoch that is best on
the validation months is kept. Everything runs on one CPU thread.

    python tools/train/forecast.py ETTh1.csv --out assets/forecast
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PatchTSTConfig, PatchTSTForPrediction

MONTH = 30 * 24
# The first row of the training, validation and test months, and the end.
BORDERS = (0, 12 * MONTH, 16 * MONTH, 20 * MONTH)


def read(path: Path) -> Tensor:
    """All columns but the date, standardised by the training months: `[rows, channels]`."""
    table = np.genfromtxt(path, delimiter=",", skip_header=1)[:, 1:]
    train = table[: BORDERS[1]]
    return torch.tensor((table - train.mean(0)) / train.std(0), dtype=torch.float32)


def windows(series: Tensor, split: int, past: int, future: int) -> Tensor:
    """Every window of a split whose targets lie in it: `[windows, past + future, channels]`."""
    first = BORDERS[split] - (past if split else 0)
    return series[first : BORDERS[split + 1]].unfold(0, past + future, 1).transpose(1, 2)


@torch.no_grad()
def evaluate(model: PatchTSTForPrediction, data: Tensor, batch: int = 256) -> dict[str, float]:
    """Mean squared, mean absolute error and negative log likelihood (0 without a distribution) over all windows."""
    model.eval()
    past, sums, count = model.config.context_length, [0.0, 0.0, 0.0], 0
    for block in data.split(batch):
        target = block[:, past:]
        out = model(past_values=block[:, :past])
        point, nll = out.prediction_outputs, 0.0
        if model.distribution_output is not None:
            nll = nll_loss(model, out, target).item() * target.numel()
            point = mean(model, out)
        error = (point - target).double()
        sums = [a + b for a, b in zip(sums, ((error**2).sum().item(), error.abs().sum().item(), nll))]
        count += target.numel()
    return dict(zip(("mse", "mae", "nll"), (s / count for s in sums)))


def mean(model: PatchTSTForPrediction, out: object) -> Tensor:
    """The mean of the Student-t distribution, in the units of the input."""
    _, loc, _ = out.prediction_outputs
    return loc * out.scale + out.loc


def nll_loss(model: PatchTSTForPrediction, out: object, target: Tensor) -> Tensor:
    """The mean negative log likelihood of each value.

    The reference's own loss sums over the series and adds the logarithms of their scales, which no weight moves; the
    mean over single values is easier to read.
    """
    df, loc, scale = out.prediction_outputs
    standard = (target - out.loc) / out.scale
    return -torch.distributions.StudentT(df, loc, scale).log_prob(standard).mean()


def train(arguments: argparse.Namespace, series: Tensor) -> PatchTSTForPrediction:
    """The model after its best epoch."""
    torch.manual_seed(arguments.seed)
    model = PatchTSTForPrediction(
        PatchTSTConfig(
            num_input_channels=series.shape[1],
            context_length=arguments.context,
            prediction_length=arguments.horizon,
            patch_length=16,
            patch_stride=8,
            d_model=16,
            num_attention_heads=4,
            num_hidden_layers=3,
            ffn_dim=128,
            path_dropout=0.3,
            ff_dropout=0.3,
            positional_dropout=0.3,
            pre_norm=False,
            pooling_type=None,
            scaling="std",
            positional_encoding_type="random",
            loss=arguments.loss,
            distribution_output="student_t",
        )
    )
    with torch.no_grad():
        model.model.encoder.positional_encoder.position_enc.uniform_(-0.02, 0.02)
    data = windows(series, 0, arguments.context, arguments.horizon)
    valid = windows(series, 1, arguments.context, arguments.horizon)
    steps = arguments.epochs * (len(data) // arguments.batch)
    optimizer = torch.optim.Adam(model.parameters(), lr=arguments.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, arguments.rate, total_steps=steps, pct_start=0.3)
    best, kept, start = float("inf"), model.state_dict(), time.time()
    measure = "mse" if arguments.loss == "mse" else "nll"
    for epoch in range(arguments.epochs):
        model.train()
        order = torch.randperm(len(data))
        for indices in order.split(arguments.batch):
            if len(indices) < arguments.batch:
                continue
            block = data[indices]
            past, future = block[:, : arguments.context], block[:, arguments.context :]
            out = model(past_values=past)
            if arguments.loss == "mse":
                loss = torch.nn.functional.mse_loss(out.prediction_outputs, future)
            else:
                loss = nll_loss(model, out, future)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        scores = evaluate(model, valid)
        if scores[measure] < best:
            best, kept = scores[measure], {name: t.clone() for name, t in model.state_dict().items()}
        text = " ".join(f"{name} {value:.4f}" for name, value in scores.items())
        print(f"epoch {epoch + 1:3} {time.time() - start:5.0f} s  validation {text}", flush=True)
        if time.time() - start > 60 * arguments.minutes:
            break
    model.load_state_dict(kept)
    return model


def main() -> None:
    """Train, write the model, print the test scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="ETTh1.csv of zhouhaoyi/ETDataset")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--loss", choices=("mse", "nll"), default="nll")
    parser.add_argument("--context", type=int, default=336)
    parser.add_argument("--horizon", type=int, default=96)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--seed", type=int, default=2021)
    parser.add_argument("--evaluate", action="store_true", help="only score the model that is in --out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    series = read(arguments.data)
    if not arguments.evaluate:
        model = train(arguments, series)
        model.save_pretrained(arguments.out)
        (arguments.out / "generation_config.json").unlink(missing_ok=True)
    model = PatchTSTForPrediction.from_pretrained(arguments.out)
    for name, split in (("validation", 1), ("test", 2)):
        scores = evaluate(model, windows(series, split, model.config.context_length, model.config.prediction_length))
        print(name, " ".join(f"{name} {value:.6f}" for name, value in scores.items()))


if __name__ == "__main__":
    main()
