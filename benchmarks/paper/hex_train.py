"""Trains the small transformer on hexadecimal text of gradients that the report never measures.

    python benchmarks/paper/hex_train.py --out prior.pt

`run.py` does the same where no weights are cached.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from paper import lossy
from paper.hex_model import BOS, VOCAB, HexTransformer, save_prior
from paper.hex_text import SEPARATOR_ID, Text, Vocabulary
from torch import Tensor

import lmgc_torch

BATCH_TOKENS = 4096
LENGTHS = {256: 2, 512: 10, 1024: 2, 2048: 1, 4096: 0.5}  # tokens of a window, and how often
PEAK_RATE = 3e-3
IGNORED = -100  # targets that cost nothing: separators
OnStep = Callable[[int, float], None]


def random_text(chooser: random.Random, in_bytes: bool) -> Text:
    """Draws a way to write numbers; those of most cells more often than others."""
    order = chooser.choices(["big", "little"], [6, 1])[0]
    if in_bytes:
        return Text("iso-8859-1", None, order)
    names = ["none", "space", "comma", "comma_space", "semicolon", "0x"]
    separator = chooser.choices(names, [3, 4, 1, 1, 1, 1])[0]
    group = chooser.choices([1, 2, 3, 4, 8, None], [2, 2, 2, 10, 2, 1])[0]
    return Text(separator, group, order)


def random_elements(chooser: random.Random, vectors: list[Tensor], tokens: int) -> Tensor:
    """Draws the elements of a window: floats, or bytes of what the lossy codecs make of them."""
    vector = chooser.choice(vectors)
    kind = chooser.choices(["fp32", "quantized", "sparse", "runs"], [14, 4, 2, 1])[0]
    floats = min(vector.numel(), 1 << 13 if kind != "fp32" else tokens // 4)
    start = chooser.randrange(vector.numel() - floats + 1)
    piece = vector[start : start + floats]
    if kind == "quantized":
        return lossy.quantize(piece, chooser.choice([1, 8, 16])).payload
    if kind == "sparse":
        return lossy.top_k(piece, chooser.choice([0.02, 0.1, 0.3])).payload
    if kind == "runs":
        return lossy.run_length(lossy.big_endian(piece))
    return piece


def batch(
    chooser: random.Random, vectors: list[Tensor], vocabulary: Vocabulary
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns tokens int64 [B, T], targets [B, T] (index of a symbol or ``IGNORED``), symbols."""
    in_bytes = chooser.random() < 0.1
    time = chooser.choices(list(LENGTHS), list(LENGTHS.values()))[0]
    rows, targets = [], []
    while len(rows) < max(1, BATCH_TOKENS // time):
        text = random_text(chooser, in_bytes)
        elements = random_elements(chooser, vectors, time)
        start = chooser.randrange(max(1, elements.numel() - time // elements.element_size()))
        piece = elements[start : start + time]
        tokens = lmgc_torch.tokenize(piece, **text.options)[:time].long()
        if len(tokens) < time:  # too few bytes: another draw
            continue
        targets.append(torch.where(tokens == SEPARATOR_ID, IGNORED, tokens))
        ids = vocabulary.ids(text, tokens)
        rows.append(torch.cat([torch.tensor([BOS]), ids[:-1]]))
    return torch.stack(rows), torch.stack(targets), vocabulary.symbols(text)


def train(
    vectors: list[Tensor],
    path: Path,
    *,
    steps: int,
    width: int = 128,
    depth: int = 2,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> dict[str, float]:
    """Trains a model and writes it as a TorchScript prior.

    Args:
        vectors: float32 gradients, one vector a run.
        path: the prior's file.
        steps: optimiser steps of ``BATCH_TOKENS`` tokens.
        width: of the model.
        depth: its layers.
        seed: of initialisation and batches.
        on_step: called with (step, loss in nats a symbol) after each step.

    Returns:
        Facts for the report: parameters, tokens seen, seconds.
    """
    torch.manual_seed(seed)
    chooser, vocabulary = random.Random(seed), Vocabulary(VOCAB)
    model = HexTransformer(width, depth)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_RATE, total_steps=steps + 1, pct_start=0.1
    )
    start, tokens_seen = time.perf_counter(), 0
    for step in range(steps):
        tokens, targets, symbols = batch(chooser, vectors, vocabulary)
        logits = model(tokens, tokens)[:, :, symbols]
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        tokens_seen += tokens.numel()
        if on_step is not None:
            on_step(step, loss.item())
    save_prior(model, path)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokens": tokens_seen,
        "seconds": time.perf_counter() - start,
    }
