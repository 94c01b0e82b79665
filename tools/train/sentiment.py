#!/usr/bin/env python3
"""Train the small English sentiment classifier of `assets/sentiment` on SST-2.

1. Fine-tune all-MiniLM-L6-v2 (BERT, 6 layers) as the teacher.
2. Cut it to a student: some of the layers, the feed-forward units that matter most to the
   teacher's loss, and the WordPiece tokens that English reviews use.
3. Distil: the student learns the teacher's logits on randomly edited training phrases.
4. Keep the epoch that is best on the validation split, round it to float16, and write an
   ordinary Hugging Face `BertForSequenceClassification` directory.

The teacher is stored in `--teacher` and reused when that directory already holds one.
Everything runs on the CPU.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch.nn import functional as F
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
JOINERS = [" ", " , ", " . ", " but ", " and ", " , but ", " ; ", " ! "]
MAX_TOKENS = 512

Sample = tuple[str, int]
Edit = Callable[[str, random.Random], str]


def read_tsv(path: Path) -> list[Sample]:
    """Read `sentence<TAB>label` lines below a header."""
    lines = path.read_text(encoding="utf-8").split("\n")[1:]
    rows = [line.rsplit("\t", 1) for line in lines if line]
    return [(text.strip(), int(label)) for text, label in rows]


def detokenise(text: str) -> str:
    """Undo Penn Treebank spacing: `it 's fun , really .` becomes `it's fun, really.`"""
    for old, new in (("-lrb-", "("), ("-rrb-", ")"), ("``", '"'), ("''", '"')):
        text = text.replace(old, new)
    text = re.sub(r" (n't|'(?:s|re|ve|ll|d|m))\b", r"\1", text)
    text = re.sub(r" ([.,;:!?)%])", r"\1", text)
    return re.sub(r"([($]) ", r"\1", text)


def sometimes_detokenise(text: str, rng: random.Random) -> str:
    """Detokenise half of the time."""
    return detokenise(text) if rng.random() < 0.5 else text


def make_edit(texts: list[str], words: list[str]) -> Edit:
    """Return the random edit for distillation: append other phrases, swap and drop words."""

    def edit(text: str, rng: random.Random) -> str:
        while rng.random() < 0.3:
            text += rng.choice(JOINERS) + rng.choice(texts)
        if rng.random() < 0.5:
            kept = [w for w in text.split() if rng.random() > 0.05]
            text = " ".join(rng.choice(words) if rng.random() < 0.1 else w for w in kept) or text
        return sometimes_detokenise(text, rng)

    return edit


def load_tokenizer(directory: Path) -> Tokenizer:
    """Load tokenizer.json without its stored padding, truncating at the model's limit."""
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer


def encode(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    """Token ids of each text, special tokens included."""
    return [e.ids for e in tokenizer.encode_batch(texts)]


def bucket(ids: list[list[int]], size: int, rng: random.Random) -> Iterator[list[int]]:
    """Yield shuffled batches of row numbers whose rows are of similar length."""
    order = list(range(len(ids)))
    rng.shuffle(order)
    pool = 50 * size
    batches: list[list[int]] = []
    for start in range(0, len(order), pool):
        rows = sorted(order[start : start + pool], key=lambda i: len(ids[i]))
        batches += [rows[i : i + size] for i in range(0, len(rows), size)]
    rng.shuffle(batches)
    yield from batches


def forward(model: BertForSequenceClassification, rows: list[list[int]]) -> torch.Tensor:
    """Logits of a batch; rows are padded with token 0, which is [PAD] in every vocabulary here."""
    width = max(map(len, rows))
    ids = torch.tensor([r + [0] * (width - len(r)) for r in rows])
    mask = torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in rows])
    return model(input_ids=ids, attention_mask=mask).logits


@torch.inference_mode()
def accuracy(
    model: BertForSequenceClassification, tokenizer: Tokenizer, samples: list[Sample]
) -> float:
    """Share of the samples that the model labels right."""
    model.eval()
    ids = encode(tokenizer, [text for text, _ in samples])
    right = 0
    for batch in bucket(ids, 128, random.Random(0)):
        guess = forward(model, [ids[i] for i in batch]).argmax(-1)
        right += int((guess == torch.tensor([samples[i][1] for i in batch])).sum())
    return right / len(samples)


def fit(
    model: BertForSequenceClassification,
    tokenizer: Tokenizer,
    train: list[Sample],
    valid: list[Sample],
    edit: Edit,
    loss_of: Callable[[torch.Tensor, list[str], list[int]], torch.Tensor],
    args: argparse.Namespace,
    epochs: int,
    lr: float,
) -> None:
    """Train in place and leave the weights of the epoch with the best validation accuracy.

    `loss_of(logits, texts, labels)` is called once per batch with the edited texts.
    """
    rng = random.Random(args.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01, fused=True)
    total = epochs * (-(-len(train) // args.batch))
    warmup = total // 20
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda n: min((n + 1) / warmup, max(0.0, (total - n) / (total - warmup)))
    )
    best, best_state = -1.0, {}
    for epoch in range(epochs):
        start, sum_loss, steps = time.time(), 0.0, 0
        texts = [edit(text, rng) for text, _ in train]
        ids = encode(tokenizer, texts)
        model.train()
        for batch in bucket(ids, args.batch, rng):
            with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
                logits = forward(model, [ids[i] for i in batch]).float()
                loss = loss_of(logits, [texts[i] for i in batch], [train[i][1] for i in batch])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            sum_loss, steps = sum_loss + loss.item(), steps + 1
        score = accuracy(model, tokenizer, valid)
        seconds = time.time() - start
        print(
            f"epoch {epoch + 1}: loss {sum_loss / steps:.4f} valid {score:.4f} ({seconds:.0f} s)",
            flush=True,
        )
        if score > best:
            best, best_state = score, {k: v.clone() for k, v in model.state_dict().items()}
    model.load_state_dict(best_state)


def train_teacher(
    train: list[Sample], valid: list[Sample], args: argparse.Namespace
) -> BertForSequenceClassification:
    """Fine-tune all six layers on the labels, or load the result of an earlier run."""
    if (args.teacher / "model.safetensors").exists():
        return BertForSequenceClassification.from_pretrained(args.teacher).eval()
    model = BertForSequenceClassification.from_pretrained(
        args.base, num_labels=2, attn_implementation="eager"
    )
    fit(
        model,
        load_tokenizer(args.base),
        train,
        valid,
        sometimes_detokenise,
        lambda logits, _, labels: F.cross_entropy(logits, torch.tensor(labels)),
        args,
        args.teacher_epochs,
        args.teacher_lr,
    )
    model.save_pretrained(args.teacher)
    return model.eval()


def is_basic(token: str) -> bool:
    """Whether a token is a single character (or continuation) that plain English text needs."""
    char = token.removeprefix("##")
    if len(char) != 1:
        return False
    if char.isascii():
        return True
    latin = unicodedata.name(char, "").startswith("LATIN")
    return latin or (token == char and unicodedata.category(char)[0] in "PS")


def prune_vocabulary(
    base: Tokenizer, texts: list[str], min_count: int, common: int
) -> tuple[list[str], list[int]]:
    """Choose the tokens to keep; return them with their ids in the base vocabulary.

    Kept: special tokens, single characters, tokens seen `min_count` times in the texts, and the
    `common` first words of the base vocabulary, which is ordered by frequency.
    """
    old = base.get_vocab()
    counts: Counter[str] = Counter()
    for variant in (texts, [detokenise(t) for t in texts]):
        for encoding in base.encode_batch(variant):
            counts.update(encoding.tokens)
    ordered = sorted(old, key=old.__getitem__)
    words = [t for t in ordered if t.isascii() and t.isalpha() and len(t) > 1][:common]
    keep = set(words) | {t for t in ordered if counts[t] >= 2 * min_count or is_basic(t)}
    tokens = SPECIAL + [t for t in ordered if t in keep and t not in SPECIAL]
    return tokens, [old[t] for t in tokens]


def pruned_tokenizer(base: Tokenizer, tokens: list[str]) -> Tokenizer:
    """The base tokenizer with its vocabulary replaced by `tokens`, numbered in order."""
    spec = json.loads(base.to_str())
    spec["padding"] = spec["truncation"] = None
    spec["model"]["vocab"] = {token: i for i, token in enumerate(tokens)}
    for added in spec["added_tokens"]:
        added["id"] = tokens.index(added["content"])
    for token, special in spec["post_processor"]["special_tokens"].items():
        special["ids"] = [tokens.index(token)]
    return Tokenizer.from_str(json.dumps(spec))


def rank_units(
    teacher: BertForSequenceClassification,
    tokenizer: Tokenizer,
    samples: list[Sample],
) -> list[torch.Tensor]:
    """For each layer, its feed-forward units from most to least important to the loss.

    Importance is first order: |activation * gradient|, summed over a text, then over the texts.
    """
    layers = teacher.bert.encoder.layer
    outputs: dict[int, torch.Tensor] = {}

    def keep(index: int) -> Callable[..., None]:
        def hook(_module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> None:
            output.retain_grad()
            outputs[index] = output

        return hook

    handles = [
        layer.intermediate.register_forward_hook(keep(i)) for i, layer in enumerate(layers)
    ]
    score = torch.zeros(len(layers), teacher.config.intermediate_size)
    ids = encode(tokenizer, [text for text, _ in samples])
    for batch in bucket(ids, 64, random.Random(0)):
        logits = forward(teacher, [ids[i] for i in batch])
        labels = torch.tensor([samples[i][1] for i in batch])
        F.cross_entropy(logits, labels, reduction="sum").backward()
        for i, output in outputs.items():
            score[i] += (output * output.grad).sum(1).abs().sum(0).detach()
    for handle in handles:
        handle.remove()
    teacher.zero_grad()
    return list(score.argsort(-1, descending=True))


def cut(
    teacher: BertForSequenceClassification,
    layers: list[int],
    units: list[torch.Tensor],
    token_ids: list[int],
) -> BertForSequenceClassification:
    """Copy the kept layers, feed-forward units and tokens of the teacher into a smaller model."""
    config = BertConfig.from_dict(
        teacher.config.to_dict()
        | {
            "num_hidden_layers": len(layers),
            "intermediate_size": len(units[0]),
            "vocab_size": len(token_ids),
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "id2label": {0: "NEGATIVE", 1: "POSITIVE"},
            "label2id": {"NEGATIVE": 0, "POSITIVE": 1},
            "problem_type": "single_label_classification",
        }
    )
    student = BertForSequenceClassification._from_config(config, attn_implementation="eager")
    source = teacher.state_dict()
    state = {}
    for name, shape in ((n, p.shape) for n, p in student.state_dict().items()):
        match = re.match(r"bert\.encoder\.layer\.(\d+)\.(.*)", name)
        if match:
            layer, rest = layers[int(match[1])], match[2]
            value = source[f"bert.encoder.layer.{layer}.{rest}"]
            if rest.startswith("intermediate"):
                value = value[units[layer]]
            elif rest == "output.dense.weight":
                value = value[:, units[layer]]
        elif name.endswith("word_embeddings.weight"):
            value = source[name][token_ids]
        else:
            value = source[name]
        assert value.shape == shape, name
        state[name] = value
    student.load_state_dict(state)
    return student


def export(model: BertForSequenceClassification, tokenizer: Tokenizer, out: Path) -> None:
    """Write the model in float16 with its tokenizer."""
    model.half().save_pretrained(out)
    BertTokenizerFast(tokenizer_object=tokenizer, model_max_length=MAX_TOKENS).save_pretrained(out)


def main() -> None:
    """Run the four steps."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="train.tsv and valid.tsv")
    parser.add_argument("--base", type=Path, required=True, help="all-MiniLM-L6-v2 directory")
    parser.add_argument("--teacher", type=Path, required=True, help="where the teacher is kept")
    parser.add_argument("--out", type=Path, required=True, help="directory of the result")
    parser.add_argument("--layers", type=int, nargs="+", default=[0, 2, 5], help="layers to keep")
    parser.add_argument("--units", type=int, default=768, help="feed-forward units to keep")
    parser.add_argument("--min-count", type=int, default=20, help="keep tokens seen this often")
    parser.add_argument("--common", type=int, default=2000, help="keep this many common words")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--teacher-epochs", type=int, default=3)
    parser.add_argument("--teacher-lr", type=float, default=5e-5)
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    train = read_tsv(args.data / "train.tsv")
    valid = read_tsv(args.data / "valid.tsv")
    texts = [text for text, _ in train]

    base = load_tokenizer(args.base)
    teacher = train_teacher(train, valid, args)
    print(f"teacher: valid {accuracy(teacher, base, valid):.4f}", flush=True)

    tokens, token_ids = prune_vocabulary(base, texts, args.min_count, args.common)
    tokenizer = pruned_tokenizer(base, tokens)
    tokenizer.enable_truncation(MAX_TOKENS)
    sample = random.Random(args.seed).sample(train, 4096)
    units = [order[: args.units] for order in rank_units(teacher, base, sample)]
    student = cut(teacher, args.layers, units, token_ids)
    size = sum(p.numel() for p in student.parameters())
    print(f"student: {len(tokens)} tokens, {size} parameters", flush=True)

    def distil(logits: torch.Tensor, batch: list[str], _labels: list[int]) -> torch.Tensor:
        with torch.no_grad():
            target = forward(teacher, encode(base, batch)).float()
        return F.mse_loss(logits, target)

    words = [t for t in tokens if t.isascii() and t.isalpha() and len(t) > 1]
    edit = make_edit(texts, words)
    fit(student, tokenizer, train, valid, edit, distil, args, args.epochs, args.lr)
    export(student, tokenizer, args.out)
    exported = BertForSequenceClassification.from_pretrained(args.out, dtype=torch.float32)
    print(f"exported float16: valid {accuracy(exported, load_tokenizer(args.out), valid):.4f}")


if __name__ == "__main__":
    main()
