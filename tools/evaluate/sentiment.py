#!/usr/bin/env python3
"""Label a TSV file with transformers in float32: the reference for the sentiment model.

Writes one JSON line per sentence and prints the accuracy.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer


def main() -> None:
    """Evaluate the model on every sentence, one at a time and without padding."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="model directory")
    parser.add_argument("--data", type=Path, required=True, help="sentence<TAB>label, with header")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines to write")
    args = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForSequenceClassification.from_pretrained(args.model, dtype=torch.float32)
    model.eval()
    rows = [r.rsplit("\t", 1) for r in args.data.read_text("utf-8").split("\n")[1:] if r]
    right = 0
    with args.out.open("w", encoding="utf-8") as out, torch.inference_mode():
        for text, label in rows:
            logits = model(**tokenizer(text, truncation=True, return_tensors="pt")).logits[0]
            best = int(logits.argmax())
            right += best == int(label)
            line = {
                "label": model.config.id2label[best],
                "score": logits.softmax(-1)[best].item(),
                "logits": logits.tolist(),
            }
            out.write(json.dumps(line) + "\n")
    print(f"accuracy {right / len(rows):.4f} ({right} of {len(rows)})")


if __name__ == "__main__":
    main()
