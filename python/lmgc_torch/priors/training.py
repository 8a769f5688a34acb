"""What the trainings of the bundled priors share: integer layers, steps, files, command lines."""

from __future__ import annotations

import argparse
import io
import math
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmgc_torch import priors
from lmgc_torch.priors.model import UNITS, IntegerLinear

__all__: list[str] = []  # for trainings only

DATA = Path("benchmarks/data/train")
ACTIVATION = 64  # integer steps in an activation of 1
SCORE = ACTIVATION / UNITS  # octaves in a head output of 1
ROUNDED = 0.3  # the last part of the training, with rounded weights and activations
HALF_SCALE = 1024.0  # loss scale of the float16 copies of some files
THREADS = 1  # more gain little, and sums then depend on how many there are
WRITERS_OWN = ("version", "byteorder", ".data/serialization_id")  # records of a TorchScript file


# ---- samples -------------------------------------------------------------------------------------


class Samples(NamedTuple):
    """Elements with what a network may know of them, as small integers."""

    inputs: Tensor  # [N, I] int8: context features
    facts: Tensor  # [N, J] int16: others, and what is coded

    def at(self, index: Tensor | slice) -> Samples:
        """Returns some of the elements."""
        if isinstance(index, slice):
            return Samples(self.inputs[index], self.facts[index])
        return Samples(self.inputs.index_select(0, index), self.facts.index_select(0, index))


def join(parts: Sequence[Samples]) -> Samples:
    """Puts samples behind each other."""
    return Samples(torch.cat([p.inputs for p in parts]), torch.cat([p.facts for p in parts]))


def drawn(
    samples: Samples,
    mirrored: Callable[[Samples], Samples],
    count: int,
    generator: torch.Generator,
) -> Samples:
    """Draws a batch, half of it mirrored: the density of gradients is symmetric."""
    batch = samples.at(torch.randint(len(samples.facts), (count,), generator=generator))
    half = count // 2
    return join([mirrored(batch.at(slice(half))), batch.at(slice(half, count))])


# ---- layers --------------------------------------------------------------------------------------


class RoundedLinear(nn.Linear):
    """A linear layer that, once `rounded`, computes with the weights `exported` will have."""

    rounded = False

    def shifts(self) -> Tensor:
        """The largest powers of two that keep each output's weights within +-127."""
        most = self.weight.detach().abs().amax(1)
        return torch.floor(torch.log2(127 / most)).clamp(0, 12)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, in] to [B, out]."""
        if not self.rounded:
            return super().forward(x)
        scale = torch.exp2(self.shifts())
        weight = (self.weight * scale[:, None]).round().clamp(-127, 127) / scale[:, None]
        bias = (self.bias * scale * ACTIVATION).round() / (scale * ACTIVATION)
        weight = self.weight + (weight - self.weight).detach()
        return rounded_down(F.linear(x, weight, self.bias + (bias - self.bias).detach()))

    def exported(self) -> IntegerLinear:
        """The layer on integers, in which 1 is ACTIVATION."""
        shift = self.shifts()
        scale = torch.exp2(shift)
        weight = (self.weight.detach() * scale[:, None]).round().clamp(-127, 127)
        bias = (self.bias.detach() * scale * ACTIVATION).round()
        return IntegerLinear(weight, bias, shift)


def rounded_down(x: Tensor) -> Tensor:
    """Rounds to whole activation steps; the gradient passes."""
    return x + (torch.floor(x * ACTIVATION) / ACTIVATION - x).detach()


def log2_sum(x: Tensor) -> Tensor:
    """log2 of the row sums of 2**x."""
    return torch.logsumexp(x * math.log(2), 1) / math.log(2)


class IntegerNetwork(nn.Module):
    """Three layers that become integers.

    Args:
        sizes: Inputs, first and second hidden layer, outputs.
    """

    def __init__(self, sizes: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.hidden1 = RoundedLinear(sizes[0], sizes[1])
        self.hidden2 = RoundedLinear(sizes[1], sizes[2])
        self.head = RoundedLinear(sizes[2], sizes[3])

    @property
    def layers(self) -> tuple[RoundedLinear, RoundedLinear, RoundedLinear]:
        """The layers in order."""
        return self.hidden1, self.hidden2, self.head

    def round(self) -> None:
        """Computes with rounded weights and activations from now on."""
        for layer in self.layers:
            layer.rounded = True

    def outputs(self, x: Tensor) -> Tensor:
        """Maps integers [B, in] to octaves [B, out]."""
        x = x / ACTIVATION
        x = self.hidden1(x).clamp(0, 127 / ACTIVATION)
        x = self.hidden2(x).clamp(0, 127 / ACTIVATION)
        score: Tensor = self.head(x) * SCORE
        return score


# ---- steps ---------------------------------------------------------------------------------------


def fit(network: IntegerNetwork, bits: Callable[[], Tensor], steps: int, rate: float) -> None:
    """Trains for a number of steps; prints the mean code length now and then.

    Args:
        network: What is trained, in place.
        bits: Draws a batch and returns its elements' code lengths.
        steps: How often.
        rate: The highest learning rate.
    """
    optimizer = torch.optim.Adam(network.parameters(), rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, pct_start=0.1
    )
    started, mean = time.monotonic(), 0.0
    for step in range(steps):
        if step == int(steps * (1 - ROUNDED)):
            network.round()
        loss = bits().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        mean += (loss.item() - mean) * max(0.005, 1 / (step + 1))
        if (step + 1) % 1000 == 0 or step + 1 == steps:
            seconds = time.monotonic() - started
            print(f"step {step + 1:6} of {steps}: {mean:.4f} bits, {seconds:.0f} s", flush=True)


# ---- files ---------------------------------------------------------------------------------------


def gradients_of(path: Path) -> list[Tensor]:
    """Returns the gradients of a captured file."""
    return list(torch.load(path, map_location="cpu", weights_only=True).values())


def save(prior: nn.Module, file: Path) -> None:
    """Writes the prior as TorchScript: the same prior gives the same bytes, wherever it is made."""
    with warnings.catch_warnings():
        # The contract of priors is TorchScript, which needs no Python where it runs.
        warnings.filterwarnings("ignore", message=".*torch.jit.*", category=DeprecationWarning)
        scripted: Any = torch.jit.script(prior.eval())
        reader = torch._C.PyTorchFileReader(io.BytesIO(scripted.save_to_buffer()))
    written = io.BytesIO()  # not the file, whose name would be in it
    writer = torch._C.PyTorchFileWriter(written)
    for name in reader.get_all_records():
        # Debug records name this machine's folders; the writer adds the other ones itself.
        if not name.endswith(".debug_pkl") and name not in WRITERS_OWN:
            data = reader.get_record(name)
            writer.write_record(name, data, len(data))
    writer.write_end_of_file()
    file.write_bytes(written.getvalue())


# ---- command lines -------------------------------------------------------------------------------


def parse(
    program: str, what: str, bundled: str, steps_per_minute: int, arguments: list[str] | None
) -> argparse.Namespace:
    """Reads a training's command line.

    Args:
        program: The module's name.
        what: What it trains.
        bundled: The name of the prior that it replaces unless it is told another file.
        steps_per_minute: How many steps a minute of `--minutes` stands for.
        arguments: The command line; None is the process's own.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=f"Trains {what}.")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of {name: gradient} files")
    parser.add_argument("--out", type=Path, default=priors.FOLDER / f"{bundled}.pt")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--minutes", type=float, default=15, help=f"in units of {steps_per_minute} training steps"
    )
    options = parser.parse_args(arguments)
    options.steps = max(1, round(options.minutes * steps_per_minute))
    return options


def has_data(folder: Path) -> bool:
    """Returns whether there is something to train on, and says how to get it if not."""
    if any(folder.glob("*.pt")):
        return True
    print(
        f"There are no gradients in {folder}. Capture them with\n"
        f"    python benchmarks/gradients.py --set train --out {folder}",
        file=sys.stderr,
    )
    return False


def repeatable(seed: int) -> torch.Generator:
    """Makes what follows give the same numbers each time; returns the generator of samples."""
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)
