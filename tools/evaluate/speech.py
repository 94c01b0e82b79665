#!/usr/bin/env python3
"""Transcribe recordings with transformers in float32: the reference for the speech model.

The folder is one of `tools/train/commands.py`. Writes one JSON line per recording and prints the word error
rate. Segments that begin after a recording's end are left out: the reference may go on to decode the padding.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import jiwer
import soundfile
import torch
from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration


class Reference:
    """The model with its front end and tokenizer."""

    def __init__(self, directory: Path) -> None:
        self.model = WhisperForConditionalGeneration.from_pretrained(directory, dtype=torch.float32)
        self.model.eval()
        self.extract = WhisperFeatureExtractor.from_pretrained(directory)
        self.tokenizer = AutoTokenizer.from_pretrained(directory)

    @torch.inference_mode()
    def __call__(self, path: Path, timestamps: bool = True) -> list[dict]:
        """The segments of a recording, decoded greedily."""
        samples, rate = soundfile.read(path, dtype="float32")
        assert rate == self.extract.sampling_rate and samples.ndim == 1
        long = len(samples) > self.extract.n_samples
        options = {"truncation": False, "padding": "longest"} if long else {}
        features = self.extract(
            samples, sampling_rate=rate, return_tensors="pt", **options
        ).input_features
        output = self.model.generate(
            features,
            return_segments=True,
            return_timestamps=timestamps,
            language="en",
            task="transcribe",
        )
        found = []
        for segment in output["segments"][0]:
            if segment["start"] >= len(samples) / rate:
                continue
            tokens = segment["tokens"].tolist()
            end = self.model.config.eos_token_id
            text = self.tokenizer.decode([t for t in tokens if t < end])
            times = {name: float(segment[name]) for name in ("start", "end")}
            found.append(times | {"text": text, "tokens": tokens})
        return found


def words(text: str) -> str:
    """Lower case, and nothing but letters, digits, apostrophes and single spaces."""
    return " ".join(re.sub(r"[^\w']|_", " ", text.lower()).split())


def main() -> None:
    """Transcribe every recording, one at a time."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=Path("assets/speech"))
    parser.add_argument("--data", type=Path, required=True, help="recordings and transcripts.tsv")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines to write")
    args = parser.parse_args()

    reference = Reference(args.model)
    expected, found = [], []
    with args.out.open("w", encoding="utf-8") as out:
        for line in (args.data / "transcripts.tsv").read_text("utf-8").splitlines():
            name, said = line.split("\t")[:2]
            segments = reference(args.data / name)
            text = "".join(segment["text"] for segment in segments).strip()
            expected.append(words(said))
            found.append(words(text))
            tokens = [token for segment in segments for token in segment["tokens"]]
            out.write(json.dumps({"file": name, "text": text, "tokens": tokens}) + "\n")
    measured = jiwer.process_words(expected, found)
    print(f"word error rate {100 * measured.wer:.2f} %, {len(found)} recordings")


if __name__ == "__main__":
    main()
