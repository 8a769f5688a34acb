"""Federated training: clients keep their images, and send what their weights have become.

    python examples/federated.py

A server and its clients are processes that talk over torch.distributed (gloo). In every round each
client trains the global weights on its own images, and the server averages what comes back. What is
sent is compressed without loss, so that the server averages exactly the weights that the clients
have: they send a checksum along, and the server compares.

Both ends of every message hold the weights of the round before, and those have changed little. But
floats do not survive being told as a difference: g + (w - g) is not always w. The integers that
are the floats' bits do: both ends subtract and add them modulo 2**32, exactly, and where a weight
has changed by a few units in the last place the difference is a small number, whose upper bytes
compress to nothing. Differences of floats, averaged as such, would do as well; they are larger.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

import lmgc_torch
from lmgc_torch.distributed.exchange import exchange

# The benchmarks are scripts, not a package: their helpers are found by folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import datasets
import networks

Weights: TypeAlias = dict[str, Tensor]

SERVER = 0
WIDTH = 32
BATCH = 32
LEARNING_RATE = 0.02
TEST_IMAGES = 1000


@dataclass
class Round:
    """What a round came to; bytes are those of all clients, in both directions."""

    loss: float
    accuracy: float
    raw_bytes: int
    sent_bytes: int


# ---- messages ------------------------------------------------------------------------------------


def difference(weights: Weights, base: Weights) -> Weights:
    """Tells float32 weights by others: int32 of the same shapes, small where little has changed.

    The sign is moved to the last bit (0, -1, 1, -2, 2: 0, 1, 2, 3, 4), so that the upper bytes of
    small numbers are zero, whatever their sign.
    """
    result = {}
    for name, weight in weights.items():
        change = weight.view(torch.int32) - base[name].view(torch.int32)
        result[name] = (change << 1) ^ (change >> 31)
    return result


def restore(told: Weights, base: Weights) -> Weights:
    """Gives back the weights that `difference` has told, bit for bit."""
    result = {}
    for name, number in told.items():
        change = ((number >> 1) & 0x7FFFFFFF) ^ -(number & 1)
        result[name] = (base[name].view(torch.int32) + change).view(torch.float32)
    return result


def send(tensors: Mapping[str, Tensor], ranks: list[int]) -> int:
    """Sends tensors to some ranks, and returns the bytes of all those messages."""
    frame = lmgc_torch.compress(tensors, method="planes")
    exchange(dict.fromkeys(ranks, frame), [], device="cpu")
    return len(ranks) * frame.nbytes


def receive(ranks: list[int]) -> tuple[list[dict[str, Tensor]], int]:
    """Returns what each of some ranks has sent, and the bytes of all those messages."""
    frames = exchange({}, ranks, device="cpu")
    tensors = [cast(Weights, lmgc_torch.decompress(frames[rank])) for rank in ranks]
    return tensors, sum(frame.nbytes for frame in frames.values())


def checksum(weights: Weights) -> Tensor:
    """Returns the CRC-32 of all bits, int64 of shape []."""
    value = 0
    for weight in weights.values():
        value = zlib.crc32(weight.numpy().tobytes(), value)
    return torch.tensor(value)


# ---- training ------------------------------------------------------------------------------------


def new_model(channels: int, side: int) -> nn.Module:
    torch.manual_seed(0)
    return networks.convnet(channels, side, width=WIDTH)


def weights_of(model: nn.Module) -> Weights:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def train_one_epoch(model: nn.Module, images: Tensor, labels: Tensor, seed: int) -> float:
    """Trains on float32 images [N,C,H,W], and returns the mean loss."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9)
    losses = []
    for batch in torch.randperm(len(images), generator=generator).split(BATCH):
        loss = F.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    return (model(images).argmax(1) == labels).float().mean().item()


def average(weights: list[Weights]) -> Weights:
    """Returns the mean of the clients' weights, taken in float64 and in their order."""
    return {
        name: torch.stack([each[name] for each in weights]).double().mean(0).float()
        for name in weights[0]
    }


# ---- the two sides -------------------------------------------------------------------------------


def serve(model: nn.Module, clients: int, rounds: int, test: tuple[Tensor, Tensor]) -> list[Round]:
    """The server: hands out the global weights, collects what they became, averages."""
    ranks = list(range(1, clients + 1))
    weights = weights_of(model)
    raw_bytes = 2 * clients * sum(weight.nbytes for weight in weights.values())
    history: list[Round] = []
    print(f"{'round':>5} {'loss':>8} {'accuracy':>9} {'raw MB':>8} {'sent MB':>8} {'ratio':>8}")
    message = weights  # the clients know nothing yet
    for number in range(1, rounds + 1):
        sent = send(message, ranks)
        answers, received = receive(ranks)
        losses = [answer.pop("loss").item() for answer in answers]
        sums = [answer.pop("checksum") for answer in answers]
        trained = [restore(answer, weights) for answer in answers]
        if any(not torch.equal(checksum(w), s) for w, s in zip(trained, sums, strict=True)):
            raise RuntimeError("what came back is not what the clients have")
        following = average(trained)
        message, weights = difference(following, weights), following

        model.load_state_dict(weights)
        row = Round(sum(losses) / clients, accuracy(model, *test), raw_bytes, sent + received)
        history.append(row)
        print(
            f"{number:5} {row.loss:8.4f} {100 * row.accuracy:7.1f} % {row.raw_bytes / 1e6:8.2f} "
            f"{row.sent_bytes / 1e6:8.2f} {100 * row.sent_bytes / row.raw_bytes:6.1f} %",
            flush=True,
        )
    return history


def take_part(model: nn.Module, rank: int, rounds: int, images: Tensor, labels: Tensor) -> None:
    """A client: trains what it is handed on its own images, and tells what has become of it."""
    weights: Weights = {}
    for number in range(1, rounds + 1):
        (message,), _ = receive([SERVER])
        weights = restore(message, weights) if weights else message
        model.load_state_dict(weights)
        loss = train_one_epoch(model, images, labels, seed=1000 * number + rank)
        trained = weights_of(model)
        answer = difference(trained, weights)
        send(answer | {"loss": torch.tensor(loss), "checksum": checksum(trained)}, [SERVER])


def run(rank: int, clients: int, rounds: int, images: Tensor, labels: Tensor) -> list[Round]:
    """Rank 0 is the server and tests on the first images; the others share the rest."""
    model = new_model(images.shape[1], images.shape[2])
    if rank == SERVER:
        return serve(model, clients, rounds, (images[:TEST_IMAGES], labels[:TEST_IMAGES]))
    mine = slice(TEST_IMAGES + rank - 1, None, clients)
    take_part(model, rank, rounds, images[mine], labels[mine])
    return []


def process(
    rank: int, rendezvous: str, clients: int, rounds: int, images: Tensor, labels: Tensor
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=clients + 1
    )
    history = run(rank, clients, rounds, images, labels)
    if rank == SERVER:
        raw, sent = sum(row.raw_bytes for row in history), sum(row.sent_bytes for row in history)
        print(
            f"\n{(raw - sent) / 1e6:.2f} of {raw / 1e6:.2f} MB saved. The server has had the bits "
            f"of every client's weights, {clients * rounds} times."
        )
    dist.destroy_process_group()


def main(arguments: list[str] | None = None) -> int:
    """Starts a server and its clients."""
    parser = argparse.ArgumentParser(description="Federated training with compressed weights.")
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--images", type=int, default=3000, help="of all clients together")
    options = parser.parse_args(arguments)

    images, labels = datasets.images("mnist")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    some = order[: TEST_IMAGES + options.images]
    images, labels = images[some], labels[some]
    print(
        f"{options.clients} clients share {len(images) - TEST_IMAGES} images of "
        f"{datasets.source('mnist')}; {TEST_IMAGES} others test the global weights"
    )
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(
            process,
            (f"{folder}/rendezvous", options.clients, options.rounds, images, labels),
            nprocs=options.clients + 1,
        )
    print(f"{time.perf_counter() - start:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
