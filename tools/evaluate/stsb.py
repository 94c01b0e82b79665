"""Print the correlation of sentence-transformers' cosine similarities with the judgements of an STS benchmark file.

`python tools/evaluate/stsb.py --model DIR --data sts-test.csv [--out FILE.safetensors]`; the file written by `--out`
holds `first` and `second` (the embeddings of the two sentences of each row), `cosine` and `gold`.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from scipy.stats import pearsonr, spearmanr
from sentence_transformers import SentenceTransformer

SCORE, FIRST, SECOND = 4, 5, 6


def read(path: Path) -> list[tuple[float, str, str]]:
    """The judgement and the two sentences of each row; tabs separate the columns and nothing is quoted."""
    rows = (line.split("\t") for line in path.read_text(encoding="utf-8").split("\n") if line.strip())
    return [(float(row[SCORE]), row[FIRST].strip(), row[SECOND].strip()) for row in rows]


def main() -> None:
    """Embed, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="folder of a sentence-transformers model")
    parser.add_argument("--data", required=True, type=Path, help="an STS benchmark file")
    parser.add_argument("--out", type=Path, help="where to write the embeddings")
    arguments = parser.parse_args()

    gold, first, second = zip(*read(arguments.data), strict=True)
    model = SentenceTransformer(arguments.model, device="cpu", local_files_only=True)
    one, two = (model.encode(list(sentences), convert_to_tensor=True) for sentences in (first, second))
    cosine = torch.nn.functional.cosine_similarity(one, two)
    print(f"rows     {len(gold)}")
    print(f"spearman {spearmanr(cosine.numpy(), gold).statistic:.6f}")
    print(f"pearson  {pearsonr(cosine.double().numpy(), gold).statistic:.6f}")
    if arguments.out:
        tensors = {"first": one, "second": two, "cosine": cosine, "gold": torch.tensor(gold)}
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, arguments.out)


if __name__ == "__main__":
    main()
