#!/usr/bin/env python3
"""Train the small Whisper of `assets/speech` on spoken commands that espeak-ng speaks.

1. Speak some ten thousand sentences of `commands.py` in many voices, and put a part of them into rooms.
2. Put them into windows of six seconds: one sentence or several, cut at the window's end or begun before it,
   with silence, noise and other loudness; some windows have no speech at all.
3. Train an ordinary `WhisperForConditionalGeneration`: language, task, timestamps, no speech, text before.
   A CTC loss over letters helps the encoder, above all in the beginning; its layer is dropped at the end.
   The first part of the steps hears half windows, which cost less than half.
4. Round to float16 and write a Hugging Face directory.

A run that was cut goes on from `--cache`. Everything runs on one CPU thread, in bfloat16.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from commands import RATE, Speaker, Voice, is_held_out, random_noise, random_room, sentence
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from torch.nn import functional as F
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

SECONDS = 6
TICK = 0.02
END, START, ENGLISH, TRANSLATE, TRANSCRIBE = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|translate|>",
    "<|transcribe|>",
)
BEFORE, NO_SPEECH, NO_TIMES = "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"
SPECIAL = [END, START, ENGLISH, TRANSLATE, TRANSCRIBE, "<|startoflm|>", BEFORE, NO_SPEECH, NO_TIMES]
TIMES = [f"<|{tick * TICK:.2f}|>" for tick in range(round(SECONDS / TICK) + 1)]
LETTERS = " abcdefghijklmnopqrstuvwxyz'"
POSITIONS = 96
GROUP = 8
IGNORE = -100


# Speech


@dataclass
class Corpus:
    """Spoken sentences; every `GROUP` in a row are of one voice."""

    samples: list[np.ndarray]
    texts: list[str]
    words: list[list[tuple[float, float]] | None]
    noises: np.ndarray

    def save(self, path: Path) -> None:
        """Store the speech as 16-bit samples."""
        table = {"texts": self.texts, "words": self.words, "sizes": [len(s) for s in self.samples]}
        (path / "speech.json").write_text(json.dumps(table))
        np.save(path / "noises.npy", self.noises)
        np.save(path / "speech.npy", np.concatenate(self.samples))

    @staticmethod
    def load(path: Path) -> Corpus:
        """Map what `save` stored."""
        table = json.loads((path / "speech.json").read_text())
        flat = np.load(path / "speech.npy", mmap_mode="r")
        samples = np.split(flat, np.cumsum(table["sizes"])[:-1])
        return Corpus(samples, table["texts"], table["words"], np.load(path / "noises.npy"))


def speak_corpus(count: int, seed: int, held_out: bool = False) -> Corpus:
    """Speak `count` sentences: the held-out ones in unheard voices, or the others."""
    rng, noise_rng = random.Random(seed), np.random.default_rng(seed)
    speaker = Speaker()
    samples, texts, words = [], [], []
    seen: dict[str, int] = {}
    voice = Voice.heard(rng)
    while len(texts) < count:
        text = sentence(rng)
        # Short sentences come up again and again; a few dozen voices are enough.
        seen[text] = seen.get(text, 0) + 1
        if is_held_out(text) != held_out or seen[text] > max(8, count // 300):
            continue
        if len(texts) % GROUP == 0:
            voice = Voice.unheard(rng) if held_out else Voice.heard(rng)
        speech = speaker.speak(text, voice, rng.choice(["", "", ".", ".", "?", "!", ","]))
        spoken = random_room(speech.samples, noise_rng)
        samples.append(np.round(spoken * 32767).astype(np.int16))
        texts.append(text)
        words.append(speech.words)
    babble = [s.astype(np.float32) / 32767 for s in samples[:200]]
    noises = [random_noise((SECONDS + 1) * RATE, noise_rng, babble) for _ in range(160)]
    return Corpus(samples, texts, words, np.stack(noises).astype(np.float16))


# Tokens


def build_tokenizer(texts: list[str]) -> Tokenizer:
    """Byte-level BPE on the grammar, and Whisper's special tokens after it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        min_frequency=5,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((" " + text for text in texts), trainer)
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens(TIMES)
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL}
    prompt = [START, ENGLISH, TRANSCRIBE, NO_TIMES]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{' '.join(prompt)} $A {END}",
        pair=f"{' '.join(prompt)} $A $B {END}",
        special_tokens=[(token, ids[token]) for token in [*prompt, END]],
    )
    return tokenizer


class Words:
    """Token ids of texts and marks."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.id = {token: tokenizer.token_to_id(token) for token in SPECIAL}
        self.first_time = tokenizer.token_to_id(TIMES[0])
        self.known: dict[str, list[int]] = {}

    def text(self, text: str) -> list[int]:
        """The tokens of a text with a space before it."""
        if not text:
            return []
        if text not in self.known:
            self.known[text] = self.tokenizer.encode(" " + text, add_special_tokens=False).ids
        return self.known[text]

    def time(self, seconds: float) -> int:
        """The timestamp."""
        return self.first_time + min(max(round(seconds / TICK), 0), len(TIMES) - 1)


# Windows


@dataclass
class Window:
    """What is heard, and what is to be written."""

    samples: np.ndarray
    tokens: list[int]
    targets: list[int]
    letters: str | None
    """For CTC; None where the text is not known to the end."""
    blank_from: int | None
    """The frame from which on there is no recording: a long one's last window ends in zeros."""


@dataclass
class Piece:
    """A sentence, or what of it is in the window."""

    begin: float
    end: float
    text: str
    cut: bool


def whole_words(words: list[tuple[float, float]], text: str, first: float, last: float) -> str:
    """The words of which most is between `first` and `last`, in seconds."""
    inside = [
        word
        for word, (begin, end) in zip(text.split(), words, strict=True)
        if begin >= first - 0.3 * (end - begin) and end <= last + 0.3 * (end - begin)
    ]
    return " ".join(inside)


def random_window(corpus: Corpus, words: Words, seconds: float, rng: random.Random) -> Window:
    """A window as the sliding of a long recording, or a short recording, shows it."""
    size = round(seconds * RATE)
    samples = np.zeros(size, np.float32)
    pieces: list[Piece] = []
    spoken_to = 0.0
    known = True
    if rng.random() > 0.04:
        low, high = rng.choices([(0.0, 0.6), (0.6, 2.0), (2.0, seconds)], [85, 10, 5])[0]
        at = rng.uniform(low, high)
        index = rng.randrange(len(corpus.texts))
        most = 1 if rng.random() < 0.4 else 99
        gain = 1.0
        while at < seconds - 0.1 and len(pieces) < most:
            speech = corpus.samples[index].astype(np.float32) / 32767 * gain
            text, times = corpus.texts[index], corpus.words[index]
            if not pieces and times and len(times) > 2 and rng.random() < 0.12:
                # The window begins within a sentence, within a word even.
                word = rng.randrange(1, len(times))
                before = times[word - 1]
                skip = times[word][0] - rng.uniform(0.0, 0.3) * (before[1] - before[0])
                text = " ".join(text.split()[word:])
                times = [(begin - skip, end - skip) for begin, end in times[word:]]
                speech = speech[round(skip * RATE) :]
                at = 0.0
            start = round(at * RATE)
            end = at + len(speech) / RATE
            cut = end > seconds
            if cut:
                text = whole_words(times, text, 0.0, seconds - at) if times else ""
                # Speech whose words are not known would be heard and not written.
                if not times and not pieces:
                    at = 0.0
                    index = rng.randrange(len(corpus.texts))
                    continue
                known = known and times is not None
            count = min(len(speech), size - start)
            samples[start : start + count] += speech[:count]
            spoken_to = min(end, seconds)
            pieces.append(Piece(at, spoken_to, text, cut))
            at = end + (rng.uniform(0.12, 1.0) if rng.random() < 0.9 else rng.uniform(1.0, 2.5))
            if rng.random() < 0.7:
                group = index // GROUP * GROUP
                index = min(group + rng.randrange(GROUP), len(corpus.texts) - 1)
            else:
                index = rng.randrange(len(corpus.texts))
                gain = rng.uniform(0.6, 1.2)

    # The recording may end before the window does.
    recorded = seconds
    if rng.random() < 0.5:
        recorded = min(seconds, spoken_to + rng.uniform(0.0, 1.0))
        if not pieces:
            recorded = rng.uniform(0.5, seconds)
    samples *= 10 ** rng.uniform(-1.0, 0.25)
    if rng.random() < 0.75:
        level = math.sqrt(float(np.mean(samples[samples != 0.0] ** 2))) if pieces else 0.05
        level *= 10 ** (-rng.uniform(5, 45) / 20)
        noise = corpus.noises[rng.randrange(len(corpus.noises))]
        offset = rng.randrange(len(noise) - size)
        count = round(recorded * RATE)
        samples[:count] += noise[offset : offset + count] * np.float32(level)
    np.clip(samples, -1, 1, out=samples)

    with_times = rng.random() < 0.5
    if not with_times and not known:
        with_times = True
    tokens = [words.id[START], words.id[ENGLISH], words.id[TRANSCRIBE]]
    if with_times:
        if not pieces:
            tokens.append(words.time(0.0))
        for index, piece in enumerate(pieces):
            tokens.append(words.time(piece.begin))
            if not piece.cut:
                tokens += [*words.text(piece.text), words.time(piece.end)]
            elif index == 0:
                # Nothing else is in the window: what is heard of it counts.
                tokens += words.text(piece.text)
    else:
        tokens.append(words.id[NO_TIMES])
        for piece in pieces:
            tokens += words.text(piece.text)
    tokens.append(words.id[END])
    targets = tokens[1:]
    if not pieces:
        targets[0] = words.id[NO_SPEECH]
    tokens.pop()
    if rng.random() < 0.12:
        before = [words.id[BEFORE], *random_history(corpus, words, rng)]
        targets = [IGNORE] * len(before) + targets
        tokens = before + tokens
    letters = " ".join(piece.text for piece in pieces if piece.text) if known else None
    blank = None
    if recorded < seconds and rng.random() < 0.5:
        blank = math.ceil(recorded * 100)
    return Window(samples, tokens, targets, letters, blank)


def random_history(corpus: Corpus, words: Words, rng: random.Random) -> list[int]:
    """What may have been said before the window, with timestamps or as a plain text."""
    history: list[int] = []
    with_times, at = rng.random() < 0.5, 0.0
    for _ in range(rng.randint(1, 4)):
        text = words.text(rng.choice(corpus.texts))
        if with_times:
            begin = at + rng.uniform(0.1, 0.6)
            at = begin + 0.2 * len(text)
            history += [words.time(begin), *text, words.time(at)]
        else:
            history += text
    return history[-(POSITIONS // 2 - 1) :]


class FrontEnd:
    """Log-mel frames of a batch, as `WhisperFeatureExtractor` makes them."""

    def __init__(self) -> None:
        extractor = WhisperFeatureExtractor(chunk_length=SECONDS)
        self.filters = torch.tensor(extractor.mel_filters, dtype=torch.float32)
        self.hann = torch.hann_window(400)

    def __call__(self, windows: list[Window], rng: random.Random) -> torch.Tensor:
        """`[batch, bins, frames]`, with some bands and moments masked."""
        wave = torch.from_numpy(np.stack([window.samples for window in windows]))
        spectrum = torch.stft(wave, 400, 160, window=self.hann, return_complex=True)
        power = torch.view_as_real(spectrum)[..., :-1, :].square().sum(-1)
        log = (self.filters.T @ power).clamp(min=1e-10).log10()
        # In a long recording something else may be the loudest.
        louder = [rng.uniform(0.0, 0.8) if rng.random() < 0.2 else 0.0 for _ in windows]
        highest = log.amax((1, 2), keepdim=True) + torch.tensor(louder)[:, None, None]
        features = (log.maximum(highest - 8.0) + 4.0) / 4.0
        for row, window in zip(features, windows, strict=True):
            if rng.random() < 0.5:
                for _ in range(rng.randint(0, 2)):
                    width, low = rng.randint(1, 10), rng.randrange(70)
                    row[low : low + width] = row.mean()
                for _ in range(rng.randint(0, 2)):
                    width, first = rng.randint(1, 15), rng.randrange(row.shape[1] - 15)
                    row[:, first : first + width] = row.mean()
            if window.blank_from is not None:
                row[:, window.blank_from :] = 0.0
        return features


# The model


class Softmax(torch.autograd.Function):
    """A softmax whose backward pass is quick in bfloat16 on a CPU."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, scores: torch.Tensor) -> torch.Tensor:
        weights = torch.softmax(scores, -1)
        ctx.save_for_backward(weights)
        return weights

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: torch.Tensor) -> torch.Tensor:
        (weights,) = ctx.saved_tensors
        product = grad * weights
        return product.addcmul_(weights, product.sum(-1, keepdim=True), value=-1)


def plain_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float = 1.0,
    **_rest: object,
) -> tuple[torch.Tensor, None]:
    """Attention as two matrix products, which take AMX; the fused kernel's backward pass is slow on a CPU."""
    scores = torch.matmul(query * scaling, key.transpose(2, 3))
    length = query.shape[2]
    if module.is_causal and length > 1:
        scores = scores + torch.full((length, key.shape[2]), -1e4, dtype=scores.dtype).triu(1)
    elif mask is not None:
        scores = scores + mask
    return torch.matmul(Softmax.apply(scores), value).transpose(1, 2).contiguous(), None


ALL_ATTENTION_FUNCTIONS.register("plain", plain_attention)


def build_model(words: Words, attention: str = "plain") -> WhisperForConditionalGeneration:
    """An untrained Whisper."""
    end, start = words.id[END], words.id[START]
    config = WhisperConfig(
        vocab_size=words.first_time + len(TIMES),
        d_model=160,
        encoder_layers=4,
        decoder_layers=2,
        encoder_attention_heads=5,
        decoder_attention_heads=5,
        encoder_ffn_dim=640,
        decoder_ffn_dim=640,
        max_source_positions=SECONDS * 50,
        max_target_positions=POSITIONS,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=start,
        suppress_tokens=None,
        begin_suppress_tokens=None,
        dropout=0.0,
    )
    model = WhisperForConditionalGeneration._from_config(config, attn_implementation=attention)
    special = [words.id[t] for t in (START, TRANSLATE, TRANSCRIBE, "<|startoflm|>", BEFORE, NO_SPEECH)]
    model.generation_config = GenerationConfig(
        bos_token_id=end,
        pad_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=start,
        max_length=POSITIONS,
        suppress_tokens=sorted(special),
        begin_suppress_tokens=[words.tokenizer.token_to_id("Ġ")],
        is_multilingual=True,
        lang_to_id={ENGLISH: words.id[ENGLISH]},
        task_to_id={"transcribe": words.id[TRANSCRIBE], "translate": words.id[TRANSLATE]},
        no_timestamps_token_id=words.id[NO_TIMES],
        prev_sot_token_id=words.id[BEFORE],
        max_initial_timestamp_index=len(TIMES) - 1,
        return_timestamps=False,
    )
    return model


def encode(model: WhisperForConditionalGeneration, features: torch.Tensor) -> torch.Tensor:
    """The encoder's output for windows as long as the features are."""
    encoder = model.model.encoder
    hidden = F.gelu(encoder.conv2(F.gelu(encoder.conv1(features)))).transpose(1, 2)
    hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
    for layer in encoder.layers:
        hidden = layer(hidden, None)
    return encoder.layer_norm(hidden)


def losses(
    model: WhisperForConditionalGeneration,
    letters: nn.Linear,
    features: torch.Tensor,
    windows: list[Window],
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of the next tokens, and the CTC loss of the letters."""
    encoded = encode(model, features)
    width = max(len(window.tokens) for window in windows)
    end = model.config.eos_token_id
    tokens = torch.tensor([w.tokens + [end] * (width - len(w.tokens)) for w in windows])
    targets = torch.tensor([w.targets + [IGNORE] * (width - len(w.targets)) for w in windows])
    hidden = model.model.decoder(input_ids=tokens, encoder_hidden_states=encoded, use_cache=False)
    logits = model.proj_out(hidden.last_hidden_state).float()
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE)

    known = [i for i, window in enumerate(windows) if window.letters is not None]
    spelt = [[LETTERS.index(c) + 1 for c in windows[i].letters or ""] for i in known]
    chances = letters(encoded[known]).float().log_softmax(-1).transpose(0, 1)
    ctc = F.ctc_loss(
        chances,
        torch.tensor([letter for text in spelt for letter in text]),
        torch.full((len(known),), chances.shape[0]),
        torch.tensor([len(text) for text in spelt]),
        reduction="sum",
        zero_infinity=True,
    )
    return loss, ctc / max(1, sum(map(len, spelt)))


def word_errors(found: list[str], expected: list[str]) -> int:
    """The fewest words to insert, drop or change."""
    row = list(range(len(found) + 1))
    for i, word in enumerate(expected, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(found, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1]


@torch.inference_mode()
def evaluate(
    model: WhisperForConditionalGeneration, words: Words, corpus: Corpus, count: int
) -> float:
    """Word error rate on windows of held-out sentences in unheard voices, greedily, without timestamps."""
    rng = random.Random(5)
    windows: list[Window] = []
    while len(windows) < count:
        window = random_window(corpus, words, SECONDS, rng)
        if window.letters:
            windows.append(window)
    quiet = random.Random(6)
    quiet.random = lambda: 1.0
    features = FrontEnd()(windows, quiet)
    encoded = encode(model, features.to(model.dtype))
    prompt = [words.id[t] for t in (START, ENGLISH, TRANSCRIBE, NO_TIMES)]
    tokens = torch.tensor([prompt] * count)
    for _ in range(40):
        hidden = model.model.decoder(
            input_ids=tokens, encoder_hidden_states=encoded, use_cache=False
        ).last_hidden_state[:, -1]
        following = model.proj_out(hidden).argmax(-1)
        following[(tokens[:, 1:] == words.id[END]).any(1)] = words.id[END]
        tokens = torch.cat([tokens, following[:, None]], 1)
        if (following == words.id[END]).all():
            break
    wrong = total = 0
    for row, window in zip(tokens.tolist(), windows, strict=True):
        text = words.tokenizer.decode([i for i in row if i < words.id[END]])
        expected = (window.letters or "").split()
        wrong += word_errors(text.split(), expected)
        total += len(expected)
    return wrong / total


def train(args: argparse.Namespace, corpus: Corpus, valid: Corpus, words: Words) -> dict:
    """The trained weights in float32. Goes on from the last checkpoint in the cache."""
    torch.manual_seed(args.seed)
    model = build_model(words)
    letters = nn.Linear(model.config.d_model, len(LETTERS) + 1)
    both = nn.ModuleList([model, letters])
    # The weights proper are in float32; the passes run in a bfloat16 copy of them.
    master = {n: p.detach().clone() for n, p in both.named_parameters() if p.requires_grad}
    both.to(torch.bfloat16).train()
    params = dict(both.named_parameters())
    optimizer = torch.optim.AdamW(
        master.values(), lr=args.lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    first_step = 0
    checkpoint = args.cache / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        first_step = state["step"]
        for name, value in state["master"].items():
            master[name].copy_(value)
        optimizer.load_state_dict(state["optimizer"])
        print(f"goes on from step {first_step}", flush=True)
    with torch.no_grad():
        for name, value in master.items():
            params[name].copy_(value)

    front_end = FrontEnd()
    short = round(args.short * args.steps)
    sums, since = [0.0, 0.0, 0], time.time()
    for step in range(first_step, args.steps):
        rng = random.Random(args.seed * 1_000_003 + step)
        seconds = SECONDS / 2 if step < short else SECONDS
        windows = [random_window(corpus, words, seconds, rng) for _ in range(args.batch)]
        features = front_end(windows, rng).to(torch.bfloat16)
        loss, ctc = losses(model, letters, features, windows)
        progress = step / args.steps
        weight = 0.5 * (1.0 - progress)
        (loss + weight * ctc).backward()
        rate = min((step + 1) / args.warmup, 0.5 * (1.0 + math.cos(math.pi * progress)))
        for group in optimizer.param_groups:
            group["lr"] = args.lr * max(rate, 0.01)
        with torch.no_grad():
            for name, value in master.items():
                value.grad = params[name].grad.float()
                params[name].grad = None
            torch.nn.utils.clip_grad_norm_(master.values(), 1.0)
            optimizer.step()
            for name, value in master.items():
                params[name].copy_(value)
        sums = [sums[0] + loss.item(), sums[1] + ctc.item(), sums[2] + 1]
        done = step + 1
        if done % 25 == 0:
            seconds_a_step = (time.time() - since) / sums[2]
            print(
                f"step {done}: loss {sums[0] / sums[2]:.3f} ctc {sums[1] / sums[2]:.3f} "
                f"({seconds_a_step:.2f} s a step)",
                flush=True,
            )
            sums, since = [0.0, 0.0, 0], time.time()
        if done % 250 == 0 or done == args.steps:
            model.eval()
            rate = evaluate(model, words, valid, 100)
            model.train()
            print(f"step {done}: word error rate {rate:.4f}", flush=True)
            state = {"step": done, "master": master, "optimizer": optimizer.state_dict()}
            torch.save(state, checkpoint.with_suffix(".part"))
            checkpoint.with_suffix(".part").rename(checkpoint)
            since = time.time()
    return {name.removeprefix("0."): value for name, value in master.items() if name.startswith("0.")}


@torch.inference_mode()
def alignment_heads(
    model: WhisperForConditionalGeneration, words: Words, corpus: Corpus, count: int = 100
) -> list[list[int]]:
    """The heads that look at a word where it is spoken, by which words are timed: layer and head of each.

    A head's share is what it gives to the time of the word whose tokens are about to be written. Those with nearly the
    share of the best are taken.
    """
    front_end, quiet = FrontEnd(), random.Random(0)
    quiet.random = lambda: 1.0
    prompt = [words.id[t] for t in (START, ENGLISH, TRANSCRIBE, NO_TIMES)]
    shares, total = torch.zeros(2, 5), 0
    for index in [i for i, times in enumerate(corpus.words) if times and len(times) > 3][:count]:
        before = 0.4
        samples = np.zeros(SECONDS * RATE, np.float32)
        speech = corpus.samples[index].astype(np.float32)[: len(samples) - round(before * RATE)]
        samples[round(before * RATE) :][: len(speech)] = speech / 32767
        features = front_end([Window(samples, [], [], None, None)], quiet)
        text = words.text(corpus.texts[index])
        output = model(
            input_features=features, decoder_input_ids=torch.tensor([prompt + text]), output_attentions=True
        )
        attention = torch.stack(output.cross_attentions)[:, 0]
        word = -1
        for at, token in enumerate(text):
            word += words.tokenizer.id_to_token(token).startswith("Ġ")
            begin, end = (round((before + t) / TICK) for t in corpus.words[index][word])
            shares += attention[:, :, len(prompt) - 1 + at, begin : end + 1].sum(-1)
            total += 1
    shares /= total
    print(f"share of attention on the word: {shares.tolist()}", flush=True)
    return (shares > 0.85 * shares.max()).nonzero().tolist()


def export(weights: dict, words: Words, corpus: Corpus, out: Path) -> None:
    """Write the model in float16, its tokenizer, and the settings of its front end."""
    model = build_model(words, "eager").eval()
    missing = model.load_state_dict(weights, strict=False).missing_keys
    assert set(missing) <= {"proj_out.weight", "model.encoder.embed_positions.weight"}, missing
    model.generation_config.alignment_heads = alignment_heads(model, words, corpus)
    model.half().save_pretrained(out)
    WhisperFeatureExtractor(chunk_length=SECONDS).save_pretrained(out)
    words.tokenizer.save(str(out / "tokenizer.json"))
    names = {name: END for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    settings = {
        "tokenizer_class": "WhisperTokenizer",
        "model_max_length": POSITIONS,
        "additional_special_tokens": SPECIAL[1:],
        **names,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def main() -> None:
    """Run the four steps."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cache", type=Path, required=True, help="where speech and checkpoints are kept")
    parser.add_argument("--out", type=Path, required=True, help="directory of the result")
    parser.add_argument("--sentences", type=int, default=16_000)
    parser.add_argument("--steps", type=int, default=4600)
    parser.add_argument("--short", type=float, default=0.74, help="share of the steps on half windows")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--warmup", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.set_num_threads(1)
    args.cache.mkdir(parents=True, exist_ok=True)
    start = time.time()
    if not (args.cache / "speech.npy").exists():
        speak_corpus(args.sentences, args.seed).save(args.cache)
    corpus = Corpus.load(args.cache)
    valid = speak_corpus(200, args.seed + 1, held_out=True)
    hours = sum(map(len, corpus.samples)) / RATE / 3600
    print(f"{len(corpus.texts)} sentences, {hours:.1f} hours ({time.time() - start:.0f} s)", flush=True)
    if not (args.cache / "tokenizer.json").exists():
        build_tokenizer(corpus.texts).save(str(args.cache / "tokenizer.json"))
    words = Words(Tokenizer.from_file(str(args.cache / "tokenizer.json")))
    weights = train(args, corpus, valid, words)
    export(weights, words, corpus, args.out)


if __name__ == "__main__":
    main()
