"""The gradients of the report: the runs that are measured, those that train the model, and slices.

A *draw* is one training run with its own seed, three of its steps, and runs of consecutive floats
at random places of them. Training runs share neither a width nor a seed with the draws.
"""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import gradients
import torch
from torch import Tensor

RUN_FLOATS = 1024  # of a slice that lie side by side in the gradient: 8 windows of 1024 digits
NOWHERE = Path("/nonexistent")  # makes `datasets` take the samples that come with scikit-learn


@dataclass(frozen=True)
class Source:
    """What is trained: a network of ``networks.NETWORKS`` on samples of ``datasets``."""

    network: str
    samples: str
    options: tuple[tuple[str, Any], ...] = ()
    packaged: bool = False  # samples that come with a Python package, even if better ones are there

    @property
    def folder(self) -> Path:
        return NOWHERE if self.packaged else datasets.DATA

    @property
    def origin(self) -> str:
        """Where the samples come from."""
        return datasets.source(self.samples, self.folder)


@dataclass(frozen=True)
class Run:
    """One training run: its source, seed, and the steps whose gradients are kept."""

    source: Source
    seed: int
    steps: tuple[int, ...]


CONVNET = (("width", 128), ("depth", 3))
SOURCES = {
    "cifar10": Source("convnet", "cifar10", CONVNET),
    "mnist": Source("convnet", "mnist", CONVNET),
    "digits": Source("convnet", "mnist", CONVNET, packaged=True),
    "text": Source("gpt", "text", (("width", 192), ("depth", 2))),
}
TITLES = {
    "cifar10": "ConvNet, CIFAR-10",
    "mnist": "ConvNet, MNIST",
    "digits": "ConvNet, scikit-learn digits",
    "text": "GPT, text",
}
TRAINING = [
    Source("convnet", "cifar10", (("width", 64), ("depth", 3))),
    Source("convnet", "mnist", (("width", 48), ("depth", 3))),
    Source("convnet", "mnist", (("width", 80), ("depth", 2)), packaged=True),
    Source("mlp", "mnist", (("width", 192), ("depth", 3))),
    Source("vit", "cifar10", (("width", 96), ("depth", 1))),
    Source("gpt", "text", (("width", 128), ("depth", 1))),
]


def capture(run: Run, path: Path) -> Path:
    """Trains and writes {step: {parameter: gradient}} to a file, unless it is there already."""
    note = path.with_suffix(".json")
    origin = json.loads(json.dumps(asdict(run) | {"origin": run.source.origin}))
    if path.is_file() and note.is_file() and json.loads(note.read_text()) == origin:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.redirect_stderr(io.StringIO()):  # the report says where samples come from
        kept = gradients.capture(
            run.source.network,
            run.source.samples,
            steps=run.steps,
            seed=run.seed,
            options=dict(run.source.options),
            folder=run.source.folder,
        )
    torch.save(kept, path)
    note.write_text(json.dumps(origin))
    return path


def load(path: Path) -> dict[int, dict[str, Tensor]]:
    """Reads what ``capture`` wrote."""
    kept: dict[int, dict[str, Tensor]] = torch.load(path, weights_only=True)
    return kept


def flat(kept: dict[int, dict[str, Tensor]]) -> Tensor:
    """All gradients of a run as one vector: step by step, parameters in their order."""
    return torch.cat([tensor.flatten() for step in kept.values() for tensor in step.values()])


def slices(vector: Tensor, floats: int, seed: int) -> Tensor:
    """Draws runs of ``RUN_FLOATS`` consecutive floats, at random and without overlap.

    Args:
        vector: float32 [N].
        floats: how many in all; fewer if the vector is shorter.
        seed: of the places.

    Returns:
        The runs in the order of their places, float32 [floats].
    """
    count = min(floats, vector.numel() // RUN_FLOATS * RUN_FLOATS) // RUN_FLOATS
    if count == 0:
        return vector[:floats].clone()
    generator = torch.Generator().manual_seed(seed)
    places = torch.randperm(vector.numel() // RUN_FLOATS, generator=generator)[:count]
    return (
        vector.view(-1)[: vector.numel() // RUN_FLOATS * RUN_FLOATS]
        .view(-1, RUN_FLOATS)[places.sort().values]
        .flatten()
    )
