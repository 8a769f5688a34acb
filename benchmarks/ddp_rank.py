"""What one rank of ``ddp.py`` does: it trains the same network through every communication in turn.

Each communication has a copy of the network, of its optimiser and of the rank's stream of batches,
all alike at the start. After a warm-up of each, blocks of a few steps alternate, in reverse order
every other time, in the same processes: whatever the machine does meanwhile, it does to all of
them. The process reads a ``Cell`` as JSON, trains, and writes what it measured as JSON.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import torch
import torch.distributed as dist
from gradients import CONTEXT, DTYPES, image_losses, text_losses
from measure import identical
from networks import NETWORKS
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

IMAGES = 5000  # of the data set that are used, as LM-GC does
POWERSGD_BUCKET_MB = 25.0  # DDP's default
EVALUATIONS = 8  # batches of the loss at the end
SEED = 2024
TIMEOUT = timedelta(minutes=3)

COMPUTE, PLAIN = "compute", "plain"
LOSSY = ("bf16", "powersgd")  # hooks of torch, for fp32
METHODS = ("auto", "planes", "scale", "lowrank", "past", "raw")  # of our hook
MATCHED = "auto, matched"  # ours, with plain's bits whatever the number of ranks
COMMUNICATIONS = (COMPUTE, PLAIN, *LOSSY, *METHODS, MATCHED)


class Workload(NamedTuple):
    """What is trained; ``batch`` is what each rank takes a step."""

    network: str
    dataset: str
    dtype: str
    batch: int
    options: dict[str, Any]

    def model(self) -> nn.Module:
        """Builds the network, with the same weights on every call."""
        torch.manual_seed(SEED)
        if self.dataset == "text":
            sizes = len(_characters()[0]), CONTEXT
        else:
            sizes = datasets.SIZES[self.dataset]
        return NETWORKS[self.network](*sizes, **self.options).to(DTYPES[self.dtype])

    def losses(self, model: nn.Module, stream: int) -> Iterator[Tensor]:
        """Returns an endless stream of losses of random batches; streams differ by number."""
        generator = torch.Generator().manual_seed(SEED + 1 + stream)
        if self.dataset == "text":
            return text_losses(model, _characters()[1], self.batch, generator)
        images, labels = _images(self.dataset)
        return image_losses(model, images.to(DTYPES[self.dtype]), labels, self.batch, generator)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Returns AdamW for text, SGD for images: slower than LM-GC's, which kills channels."""
        if self.dataset == "text":
            return torch.optim.AdamW(model.parameters(), lr=1e-3)
        return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)


GPT = {"width": 256, "depth": 6}
WORKLOADS = {
    "gpt_fp32": Workload("gpt", "text", "fp32", 4, GPT),
    "gpt_bf16": Workload("gpt", "text", "bf16", 4, GPT),
    "convnet_fp32": Workload("convnet", "cifar10", "fp32", 16, {"width": 256}),
    "tiny_fp32": Workload("gpt", "text", "fp32", 1, {"width": 96, "depth": 1}),
}


@lru_cache(maxsize=1)
def _characters() -> tuple[Tensor, Tensor]:
    """Returns the characters that occur, and the text as their numbers."""
    alphabet, characters = torch.unique(datasets.text(), return_inverse=True)
    return alphabet, characters


@lru_cache(maxsize=1)
def _images(name: str) -> tuple[Tensor, Tensor]:
    images, labels = datasets.images(name)
    return images[:IMAGES].clone(), labels[:IMAGES].clone()


@dataclass(frozen=True)
class Cell:
    """One cell of the grid; its communications run side by side."""

    workload: str
    ranks: int
    mbit: float | None  # None: loopback, without a limit
    communications: tuple[str, ...]
    warmup: int  # steps of each communication that are not counted, in one turn
    steps: int  # that are, at least
    block: int  # steps in a turn: then the next communication has its own
    bucket_mb: float = 25  # of DDP's buckets, in MiB

    @property
    def turns(self) -> list[int]:
        """The steps of each turn of a communication; the first one is the warm-up."""
        return [self.warmup] + [self.block] * math.ceil(self.steps / self.block)


@dataclass
class Measured:
    """What one rank saw of one communication."""

    seconds: list[float] = field(default_factory=list)  # of every step, those of the warm-up too
    sent_bytes: int = 0  # through the interface, in the counted steps
    received_bytes: int = 0
    loss: float = 0.0  # after the last step, on batches that are the same for all
    identical: bool | None = None  # whether the weights are those of "plain", bit for bit
    statistics: dict[str, Any] | None = None  # our hook's own


class Side:
    """A network that is trained through one communication."""

    def __init__(self, workload: Workload, communication: str, rank: int, bucket_mb: float) -> None:
        self.model = workload.model()
        self.optimizer = workload.optimizer(self.model)
        self.state: Any = None
        wrapped = self.model
        if communication != COMPUTE:
            # PowerSGD's chained all-reduces of several buckets come in another order on each rank,
            # which gloo does not survive.
            size = POWERSGD_BUCKET_MB if communication == "powersgd" else bucket_mb
            wrapped = DistributedDataParallel(self.model, bucket_cap_mb=size)
            self._register(wrapped, communication)
        self.losses = workload.losses(wrapped, rank)

    def _register(self, model: DistributedDataParallel, communication: str) -> None:
        if communication == "bf16":
            model.register_comm_hook(None, bf16_compress_hook)
        elif communication == "powersgd":
            state = PowerSGDState(None, matrix_approximation_rank=4, start_powerSGD_iter=2)
            model.register_comm_hook(state, powerSGD_hook)
        elif communication != PLAIN:
            import lmgc_torch.distributed as lmgc_dist

            method, _, matched = communication.partition(", ")
            self.state = lmgc_dist.CompressedAllReduceState(
                method=method, match_backend=bool(matched)
            )
            model.register_comm_hook(self.state, lmgc_dist.compressed_allreduce_hook)

    def step(self) -> float:
        """Trains one step and returns the seconds it took."""
        start = time.perf_counter()
        self.optimizer.zero_grad()
        next(self.losses).backward()
        self.optimizer.step()
        return time.perf_counter() - start

    def weights(self) -> list[Tensor]:
        return [parameter.detach() for parameter in self.model.parameters()]

    def close(self) -> None:
        if self.state is not None:
            self.state.close()


def counters(interface: str) -> tuple[int, int]:
    """Reads how many bytes an interface has sent and received."""
    folder = Path("/sys/class/net") / interface / "statistics"
    sent, received = (int((folder / f"{way}_bytes").read_text()) for way in ("tx", "rx"))
    return sent, received


def train(cell: Cell, rank: int, interface: str) -> dict[str, Measured]:
    """Trains through every communication of a cell, within a process group that is there."""
    workload = WORKLOADS[cell.workload]
    names = list(cell.communications)
    sides = {name: Side(workload, name, rank, cell.bucket_mb) for name in names}
    measured = {name: Measured() for name in names}
    for turn, steps in enumerate(cell.turns):
        for name in names if turn % 2 == 0 else reversed(names):
            dist.barrier()
            before = counters(interface)
            measured[name].seconds += [sides[name].step() for _ in range(steps)]
            dist.barrier()
            after = counters(interface)
            if turn > 0:
                measured[name].sent_bytes += after[0] - before[0]
                measured[name].received_bytes += after[1] - before[1]
    for name, side in sides.items():
        result = measured[name]
        result.loss = evaluate(workload, side.model)
        if PLAIN in sides and name not in (COMPUTE, PLAIN):
            result.identical = identical(side.weights(), sides[PLAIN].weights())
        if side.state is not None:
            result.statistics = plain_data(side.state.compression_stats())
        side.close()
    return measured


@torch.no_grad()
def evaluate(workload: Workload, model: nn.Module) -> float:
    """Returns the mean loss on batches of a stream that no rank trains on."""
    losses = workload.losses(model, -1)
    return sum(float(next(losses)) for _ in range(EVALUATIONS)) / EVALUATIONS


def plain_data(value: Any) -> Any:
    """Turns objects with attributes into dicts that JSON can hold, properties included."""
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    if isinstance(value, dict):
        return {str(key): plain_data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)) and not hasattr(value, "_fields"):
        return [plain_data(item) for item in value]
    names = [name for name in dir(value) if not name.startswith("_")]
    items = {name: getattr(value, name) for name in names}
    return {name: plain_data(item) for name, item in items.items() if not callable(item)}


def end_with_parent() -> None:
    """Ends this process when its standard input closes: when the one that started it is gone."""

    def watch() -> None:
        with suppress(OSError):
            while os.read(0, 1):
                pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(arguments: list[str]) -> int:
    """Takes the cell, the rank, the interface and the file to write; the rest is environment."""
    end_with_parent()
    text, rank, interface, out = arguments
    cell = Cell(**json.loads(text))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=int(rank), world_size=cell.ranks, timeout=TIMEOUT)
    measured = train(cell, int(rank), interface)
    dist.barrier()
    dist.destroy_process_group()
    Path(out).write_text(json.dumps({name: asdict(one) for name, one in measured.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
