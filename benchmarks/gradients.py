"""Captures real gradients: trains a network and keeps the raw gradient of chosen steps.

The protocol is LM-GC's: SGD with learning rate 0.1, momentum 0.9, weight decay 5e-4, a cosine
schedule, batch 128; character models take AdamW with learning rate 1e-3 and 16 x 128 characters.

    python benchmarks/gradients.py --set demo --out benchmarks/data/demo

writes one ``{name}.pt`` per captured step, ``{parameter name: tensor}``, as soon as it exists, and
``manifest.json``, which says how each came about. The bits depend on torch's version, the processor
and the number of threads, too.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import torch
import torch.nn.functional as F
from networks import NETWORKS
from torch import Tensor, nn

SCHEDULE_STEPS = 7800  # 200 epochs of 5000 images in batches of 128, as LM-GC trains
CONTEXT = 128  # characters in one sample of text
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Gradients = dict[str, Tensor]
OnStep = Callable[[int, Gradients], None]  # gets the step and its gradients


# name: (network, its own arguments)
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "convnet64x3": ("convnet", {"width": 64}),
    "convnet80x3": ("convnet", {"width": 80}),
    "convnet96x3": ("convnet", {"width": 96}),
    "convnet128x3": ("convnet", {"width": 128}),
    "convnet160x3": ("convnet", {"width": 160}),
    "convnet160x2": ("convnet", {"width": 160, "depth": 2}),
    "convnet96x4": ("convnet", {"width": 96, "depth": 4}),
    "convnet160x4": ("convnet", {"width": 160, "depth": 4}),
    "gpt128x1": ("gpt", {"width": 128, "depth": 1}),
    "gpt128x3": ("gpt", {"width": 128, "depth": 3}),
    "gpt160x2": ("gpt", {"width": 160, "depth": 2}),
    "gpt192x2": ("gpt", {"width": 192, "depth": 2}),
    "gpt256x1": ("gpt", {"width": 256, "depth": 1}),
    "gpt384x1": ("gpt", {"width": 384, "depth": 1, "heads": 6}),
    "vit160x2": ("vit", {"width": 160, "depth": 2}),
    "vit192x2": ("vit", {"width": 192, "depth": 2}),
    "vit320x1": ("vit", {"width": 320, "depth": 1, "heads": 5}),
    "mlp192x3": ("mlp", {"width": 192, "depth": 3}),
    "mlp320x2": ("mlp", {"width": 320, "depth": 2}),
    "resnet10x32": ("resnet", {"width": 32, "blocks": [1, 1, 1, 1]}),
    "resnet14x24": ("resnet", {"width": 24, "blocks": [2, 2, 2]}),
    "resnet18": ("resnet", {}),
    "vgg11x32": ("vgg", {"width": 32, "layers": 11}),
    "vgg16": ("vgg", {}),
}


class Run(NamedTuple):
    """One training run and the steps (0 is the first) whose gradients are kept."""

    model: str
    dataset: str
    dtype: str
    steps: tuple[int, ...]
    seed: int
    limit_mb: float = 4.0  # of each file: whole tensors are left out beyond it

    def stem(self, step: int) -> str:
        """Returns the file name of a kept step, without its ending."""
        return f"{self.model}_{self.dataset}_{self.dtype}_step{step}"


# `report` and `train` share neither a model nor a seed, so that what a prior learns from one is
# never what it is measured on. With most seeds the learning rate kills channels of a ConvNet within
# a few steps, and rows of zeros say little about a compressor: these seeds begin dense.
SETS: dict[str, list[Run]] = {
    "demo": [
        Run("convnet64x3", "cifar10", "fp32", (15,), 7),
        Run("gpt128x1", "text", "bf16", (15,), 8),
    ],
    "report": [
        Run("convnet128x3", "cifar10", "fp32", (20, 200), 118),
        Run("convnet128x3", "cifar10", "bf16", (20, 200), 116),
        Run("gpt192x2", "text", "fp32", (20, 50), 103),
        Run("gpt192x2", "text", "bf16", (20, 50), 104),
        Run("vit192x2", "cifar10", "fp32", (20,), 105),
        Run("vit192x2", "cifar10", "bf16", (20,), 106),
        Run("resnet18", "cifar10", "fp32", (20,), 107, 8.0),
        Run("vgg16", "cifar10", "fp32", (20,), 108, 8.0),
        Run("vgg16", "cifar10", "bf16", (60,), 109, 8.0),
        Run("resnet18", "cifar10", "bf16", (60,), 110, 8.0),
        Run("vit192x2", "cifar10", "fp32", (200,), 111),
        Run("gpt192x2", "text", "fp32", (300,), 112),
    ],
    "train": [
        Run("convnet96x3", "cifar10", "fp32", (3, 30, 150), 1),
        Run("convnet96x3", "mnist", "bf16", (10, 80), 2),
        Run("gpt160x2", "text", "fp32", (5, 60), 3),
        Run("gpt160x2", "text", "bf16", (30, 120), 4),
        Run("convnet160x2", "cifar10", "bf16", (5, 15), 52),
        Run("convnet160x3", "cifar10", "bf16", (12, 60), 18),
        Run("convnet80x3", "mnist", "fp32", (15, 100), 19),
        Run("vit160x2", "cifar10", "fp32", (8, 60), 6),
        Run("mlp320x2", "mnist", "fp32", (10, 300), 9),
        Run("mlp192x3", "cifar10", "bf16", (50,), 10),
        Run("convnet96x4", "mnist", "fp32", (1, 50), 11),
        Run("resnet10x32", "cifar10", "fp32", (6, 40), 12),
        Run("vgg11x32", "cifar10", "fp32", (12, 80), 13),
        Run("vit320x1", "cifar10", "bf16", (15,), 14),
        Run("gpt384x1", "text", "fp32", (12,), 15),
        Run("gpt128x3", "text", "bf16", (300,), 20),
        Run("resnet14x24", "cifar10", "bf16", (10, 60), 16),
        Run("convnet160x4", "cifar10", "fp32", (25,), 17),
    ],
}


def capture(
    network: str,
    dataset: str,
    *,
    steps: tuple[int, ...],
    dtype: str = "fp32",
    seed: int = 0,
    batch: int | None = None,
    options: dict[str, Any] | None = None,
    on_step: OnStep | None = None,
    folder: Path = datasets.DATA,
) -> dict[int, Gradients]:
    """Trains a network and returns the raw gradients before the optimiser's step.

    Args:
        network: a name in ``networks.NETWORKS``.
        dataset: "cifar10", "mnist" or "text" ("text" goes with "gpt").
        steps: the optimiser steps to keep, counted from 0; training stops after the last.
        dtype: "fp32" or "bf16", of parameters, activations and gradients alike.
        seed: of initialisation and batches; the same seed and thread count give the same bits.
        batch: samples per step; 128 images or 16 pieces of text of 128 characters by default.
        options: the network's own arguments (width, depth, ...).
        on_step: called with (step, gradients) as soon as a kept step is done.
        folder: where the samples may lie, see ``datasets``.

    Returns:
        {step: {parameter name: gradient}}, detached copies in ``dtype``.
    """
    torch.manual_seed(seed)
    model, losses = task(network, dataset, DTYPES[dtype], seed, batch, options or {}, folder)
    optimizer = optimizer_of(network, model)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, SCHEDULE_STEPS)

    kept: dict[int, Gradients] = {}
    for step in range(max(steps) + 1):
        optimizer.zero_grad()
        next(losses).backward()
        if step in steps:
            kept[step] = {
                name: parameter.grad.detach().clone()
                for name, parameter in model.named_parameters()
                if parameter.grad is not None
            }
            if on_step is not None:
                on_step(step, kept[step])
        optimizer.step()
        schedule.step()
    return kept


def capture_ranks(
    name: str, dtype: str, steps: tuple[int, ...], seed: int, ranks: int
) -> dict[int, list[Gradients]]:
    """Trains a network of ``MODELS`` on the batches of several ranks, with their average gradient.

    Returns:
        {step: the gradients of each rank, and last their average}.
    """
    network, options = MODELS[name]
    torch.manual_seed(seed)
    dataset = "text" if network == "gpt" else "cifar10"
    net, losses = task(network, dataset, DTYPES[dtype], seed, None, options, datasets.DATA)
    optimizer = optimizer_of(network, net)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, SCHEDULE_STEPS)
    kept = {}
    for step in range(max(steps) + 1):
        own: list[Gradients] = []
        for _ in range(ranks):
            optimizer.zero_grad()
            next(losses).backward()
            own.append(
                {
                    n: p.grad.detach().clone()
                    for n, p in net.named_parameters()
                    if p.grad is not None
                }
            )
        average = {n: torch.stack([g[n] for g in own]).sum(0) / ranks for n in own[0]}
        for n, parameter in net.named_parameters():
            parameter.grad = average[n].clone() if n in average else None
        if step in steps:
            kept[step] = [*own, average]
        optimizer.step()
        schedule.step()
    return kept


def capture_run(run: Run, on_step: OnStep | None = None) -> dict[int, Gradients]:
    """Captures what a run of ``SETS`` describes, see ``capture``."""
    network, options = MODELS[run.model]
    return capture(
        network,
        run.dataset,
        steps=run.steps,
        dtype=run.dtype,
        seed=run.seed,
        options=options,
        on_step=on_step,
    )


def optimizer_of(network: str, model: nn.Module) -> torch.optim.Optimizer:
    """Returns the optimizer that the protocol has for a network."""
    if network == "gpt":
        return torch.optim.AdamW(model.parameters(), lr=1e-3)
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)


def task(
    network: str,
    dataset: str,
    dtype: torch.dtype,
    seed: int,
    batch: int | None,
    options: dict[str, Any],
    folder: Path,
) -> tuple[nn.Module, Iterator[Tensor]]:
    """Returns the model and an endless stream of its losses, one per random batch."""
    generator = torch.Generator().manual_seed(seed)
    if dataset == "text":
        # Characters that never occur would be rows of zeros in every embedding gradient.
        alphabet, characters = torch.unique(datasets.text(folder), return_inverse=True)
        model = NETWORKS[network](len(alphabet), CONTEXT, **options).to(dtype)
        return model, text_losses(model, characters, batch or 16, generator)
    images, labels = datasets.images(dataset, folder)
    model = NETWORKS[network](images.shape[1], images.shape[2], **options).to(dtype)
    return model, image_losses(model, images.to(dtype), labels, batch or 128, generator)


def image_losses(
    model: nn.Module, images: Tensor, labels: Tensor, batch: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Yields losses on images [N,C,H,W], shuffled anew each epoch, whole batches only."""
    while True:
        order = torch.randperm(len(images), generator=generator)
        for index in order[: len(order) // batch * batch].split(batch):
            yield F.cross_entropy(model(images[index]), labels[index])


def text_losses(
    model: nn.Module, characters: Tensor, batch: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Yields next-character losses on random pieces of characters, int64 [N]."""
    while True:
        starts = torch.randint(len(characters) - CONTEXT, (batch, 1), generator=generator)
        pieces = characters[starts + torch.arange(CONTEXT + 1)]  # [batch, CONTEXT + 1]
        logits = model(pieces[:, :-1])
        yield F.cross_entropy(logits.flatten(0, 1), pieces[:, 1:].flatten())


def sample(gradients: Gradients, limit_mb: float, seed: int) -> Gradients:
    """Keeps whole tensors, drawn at random, up to ``limit_mb`` (10^6 bytes), in their order."""
    names = list(gradients)
    random.Random(seed).shuffle(names)
    room, chosen = limit_mb * 1e6, set()
    for name in names:
        if gradients[name].nbytes <= room:
            room -= gradients[name].nbytes
            chosen.add(name)
    return {name: gradient for name, gradient in gradients.items() if name in chosen}


def write_set(name: str, out: Path) -> list[Path]:
    """Captures every run of a set into ``out`` and returns the files, one per kept step.

    Runs that the folder's manifest already holds, the same in every respect, are not repeated.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / "manifest.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    manifest: dict[str, Any] = {}
    for run in SETS[name]:
        manifest |= _finished(run, out, known) or _write_run(run, out)
        _replace(path, json.dumps(known | manifest, indent=2).encode())
    _replace(path, json.dumps(manifest, indent=2).encode())
    return [out / f"{stem}.pt" for stem in manifest]


def _finished(run: Run, out: Path, known: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the manifest's entries of a run whose files are all there, else None."""
    for step in run.steps:
        stem = run.stem(step)
        same = _origin(run, step).items() <= known.get(stem, {}).items()
        if not same or not (out / f"{stem}.pt").is_file():
            return None
    return {run.stem(step): known[run.stem(step)] for step in run.steps}


def _write_run(run: Run, out: Path) -> dict[str, Any]:
    """Captures one run, writes each file as soon as it exists, and returns manifest entries."""
    entries: dict[str, Any] = {}
    start = time.perf_counter()

    def save(step: int, gradients: Gradients) -> None:
        stem, kept = run.stem(step), sample(gradients, run.limit_mb, run.seed)
        content = io.BytesIO()
        torch.save(kept, content)
        _replace(out / f"{stem}.pt", content.getvalue())
        entries[stem] = _origin(run, step) | _sizes(gradients, kept)
        seconds = time.perf_counter() - start
        print(f"{stem}: {entries[stem]['bytes'] / 1e6:.2f} MB, {seconds:.1f} s", flush=True)

    capture_run(run, save)
    return entries


def _origin(run: Run, step: int) -> dict[str, Any]:
    """Returns what the manifest says about how a file came about."""
    network, options = MODELS[run.model]
    return {
        "network": network,
        "options": options,
        "dataset": run.dataset,
        "source": datasets.source(run.dataset),
        "dtype": run.dtype,
        "seed": run.seed,
        "step": step,
        "limit_mb": run.limit_mb,
    }


def _sizes(whole: Gradients, kept: Gradients) -> dict[str, Any]:
    """Returns what the manifest says about a file's content."""
    elements = sum(gradient.numel() for gradient in kept.values())
    zeros = sum(int((gradient == 0).sum()) for gradient in kept.values())
    return {
        "tensors": len(kept),
        "bytes": sum(gradient.nbytes for gradient in kept.values()),
        "zeros": round(zeros / max(1, elements), 4),
        "whole_tensors": len(whole),
        "whole_bytes": sum(gradient.nbytes for gradient in whole.values()),
    }


def _replace(path: Path, content: bytes) -> None:
    """Writes a file beside its final name and renames it: readers never see half of it."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(content)
    temporary.replace(path)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--set", choices=SETS, default="demo", help="which runs to capture")
    parser.add_argument("--out", type=Path, help="folder to write to (benchmarks/data/SET)")
    parser.add_argument("--threads", type=int, help="threads of torch (its own default)")
    parsed = parser.parse_args(arguments)
    if parsed.threads:
        torch.set_num_threads(parsed.threads)
    write_set(parsed.set, parsed.out or Path(__file__).parent / "data" / parsed.set)
    return 0


if __name__ == "__main__":
    sys.exit(main())
