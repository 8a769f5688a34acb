"""Trains the bundled portable prior anew: ``python -m lmgc_torch.priors.train``.

It learns from gradients of networks that no report measures (``python benchmarks/gradients.py --set
train`` captures them), in floating point with the network's own rounding (straight-through
gradients), then writes the integers as TorchScript. The number of steps is fixed, threads, seed and
sums are too: the same torch, kind of CPU and data give the same file.
"""

from __future__ import annotations

import argparse
import io
import math
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmgc_torch import _library, priors
from lmgc_torch.priors import model
from lmgc_torch.priors.model import BINS, OCTAVES_BELOW, SLOPES, UNITS, HexPrior, IntegerLinear

DATA = Path("benchmarks/data/train")
HIDDEN = (96, 64)
ACTIVATION = 64  # integer steps in an activation of 1
SCORE = ACTIVATION / UNITS  # octaves in a head output of 1

STEPS_PER_MINUTE = 2000  # on one CPU core that also does other things; alone, 7000
BATCH = 2048
RATE = 4e-3
ROUNDED = 0.3  # the last part of the training, with rounded weights and activations
ELEMENTS_PER_FILE = 300_000  # so that small networks are not drowned
LANE_ELEMENTS = 2048
HALF_SCALE = 1024.0  # loss scale of the float16 copies of some files
THREADS = 1  # more gain little, and sums then depend on how many there are
WRITERS_OWN = ("version", "byteorder", ".data/serialization_id")  # records of a TorchScript file


class Samples(NamedTuple):
    """Elements with what the network may know of them, as small integers."""

    neighbours: Tensor  # [N, 32] int8: context features from index 6 on
    facts: Tensor  # [N, 8] int16: context features 1 to 5, then sign, exponent field, mantissa top

    def at(self, index: Tensor | slice) -> Samples:
        """Returns some of the elements."""
        return Samples(self.neighbours[index], self.facts[index])

    def features(self) -> Tensor:
        """The context features [N, F] of the elements' first digits."""
        digit = torch.zeros(len(self.facts), 1)
        return torch.cat([digit, self.facts[:, :5].float(), self.neighbours.float()], 1)


def samples_of(tensor: Tensor, lane_elements: int) -> Samples:
    """Returns all elements of a gradient."""
    names = list(model.CONTEXT_FEATURES[1:])
    features = _library.ops().context_features(tensor, names, lane_elements)
    exponent_bits, mantissa_bits = int(features[0, 0]), int(features[0, 1])
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    words = tensor.contiguous().view(integers).flatten().long()
    sign = (words < 0).long()
    exponent = (words >> mantissa_bits) & ((1 << exponent_bits) - 1)
    mantissa = (words >> (mantissa_bits - 3)) & 7
    targets = torch.stack([sign, exponent, mantissa], 1)
    facts = torch.cat([features[:, :5].to(torch.int16), targets.to(torch.int16)], 1)
    return Samples(features[:, 5:].to(torch.int8), facts)


def load(folder: Path, generator: torch.Generator) -> Samples:
    """Returns at most ELEMENTS_PER_FILE random elements of every file."""
    parts = []
    for path in sorted(folder.glob("*.pt")):
        gradients = list(torch.load(path, map_location="cpu", weights_only=True).values())
        parts.append(some_elements(gradients, ELEMENTS_PER_FILE, generator))
        if gradients[0].dtype == torch.float32:
            halves = [(gradient * HALF_SCALE).half() for gradient in gradients]
            parts.append(some_elements(halves, ELEMENTS_PER_FILE // 10, generator))
    return join(parts)


def some_elements(tensors: list[Tensor], count: int, generator: torch.Generator) -> Samples:
    """Returns about `count` random elements, from each tensor in proportion."""
    share = min(1.0, count / sum(tensor.numel() for tensor in tensors))
    parts = []
    for tensor in tensors:
        chosen = torch.randperm(tensor.numel(), generator=generator)
        chosen = chosen[: math.ceil(share * tensor.numel())]
        parts.append(samples_of(tensor, LANE_ELEMENTS).at(chosen))
    return join(parts)


def join(parts: list[Samples]) -> Samples:
    """Puts samples behind each other."""
    return Samples(torch.cat([p.neighbours for p in parts]), torch.cat([p.facts for p in parts]))


def mirrored(samples: Samples) -> Samples:
    """Flips all signs: the density of gradients is symmetric."""
    neighbours, facts = samples.neighbours.clone(), samples.facts.clone()
    neighbours[:, 16:] *= -1
    is_zero = (facts[:, 6] == 0) & (facts[:, 7] == 0)
    facts[:, 5] = torch.where(is_zero, facts[:, 5], 1 - facts[:, 5])
    return Samples(neighbours, facts)


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


class Network(nn.Module):
    """HexPrior's network in floating point."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden1 = RoundedLinear(model.INPUTS, HIDDEN[0])
        self.hidden2 = RoundedLinear(HIDDEN[0], HIDDEN[1])
        self.head = RoundedLinear(HIDDEN[1], 2 * BINS)
        # Log-probability of the top mantissa bits in each bin, and how it turns with the slope.
        self.mantissa = nn.Parameter(torch.zeros(BINS + 1, 8))
        self.tilt = nn.Parameter(torch.zeros(8))

    def round(self) -> None:
        """Computes with rounded weights and activations from now on."""
        for layer in (self.hidden1, self.hidden2, self.head):
            layer.rounded = True

    def scores(self, features: Tensor) -> Tensor:
        """log2 of the bins' weights [B, 2 BINS], from context features [B, F]."""
        x = model.network_inputs(features) / ACTIVATION
        x = self.hidden1(x).clamp(0, 127 / ACTIVATION)
        x = self.hidden2(x).clamp(0, 127 / ACTIVATION)
        score: Tensor = self.head(x) * SCORE
        return score

    def bits(self, samples: Samples) -> Tensor:
        """Code length [B] of sign, exponent and three mantissa bits."""
        score = self.scores(samples.features())
        mantissa_bits, reference, sign, exponent, top = (
            samples.facts[:, i].long() for i in (1, 2, 5, 6, 7)
        )
        lowest = (reference >> 3) - OCTAVES_BELOW - 1  # bin i holds exponent lowest + i
        bin_ = torch.where(exponent == 0, 0, (exponent - lowest).clamp(1, BINS - 1))
        own = score.gather(1, (sign * BINS + bin_)[:, None])[:, 0]

        # Small scales: zero and subnormals own all bins that lie below the smallest exponent.
        low = torch.nonzero((bin_ == 0) & (lowest < 0))[:, 0]
        if len(low) > 0:
            owned = lowest[low, None] + torch.arange(BINS) < 1
            owned[:, 0] = True
            scores = score[low].view(-1, 2, BINS)[torch.arange(len(low)), sign[low]]
            own = own.index_put((low,), log2_sum(scores.masked_fill(~owned, -1e4)))
        bits = log2_sum(score) - own

        above = score.gather(1, (sign * BINS + (bin_ + 1).clamp(max=BINS - 1))[:, None])
        below = score.gather(1, (sign * BINS + (bin_ - 1).clamp(min=1))[:, None])
        slope = ((above - below)[:, 0].clamp(-8, 8) - 2) * (bin_ > 0)  # 2: of an even density
        is_half = mantissa_bits == 10
        row = torch.where((bin_ == 0) & is_half, BINS, bin_)
        logits = (self.mantissa[row] + slope[:, None] * self.tilt) / math.log(2)
        top_bits = log2_sum(logits) - logits.gather(1, top[:, None])[:, 0]
        return bits + top_bits

    def exported(self) -> HexPrior:
        """The prior in integers."""
        slope = torch.arange(SLOPES) * 0.5 - (SLOPES // 4) - 2  # of `rise`, in octaves
        logits = self.mantissa[:, None] + slope[:, None] * self.tilt  # [BINS + 1, SLOPES, 8]
        logits[[0, BINS]] = self.mantissa[[0, BINS], None]
        table = torch.log_softmax(logits.detach().double(), 2) / math.log(2) * 256
        hidden1, hidden2, head = (x.exported() for x in (self.hidden1, self.hidden2, self.head))
        return HexPrior(hidden1, hidden2, head, table.round())


def log2_sum(x: Tensor) -> Tensor:
    """log2 of the row sums of 2**x."""
    return torch.logsumexp(x * math.log(2), 1) / math.log(2)


def train(samples: Samples, steps: int, generator: torch.Generator) -> Network:
    """Trains for a number of steps; prints the mean code length now and then."""
    network = Network()
    optimizer = torch.optim.Adam(network.parameters(), RATE, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, total_steps=steps, pct_start=0.1
    )
    started, mean = time.monotonic(), 0.0
    for step in range(steps):
        if step == int(steps * (1 - ROUNDED)):
            network.round()
        batch = samples.at(torch.randint(len(samples.facts), (BATCH,), generator=generator))
        half = BATCH // 2
        batch = join([mirrored(batch.at(slice(half))), batch.at(slice(half, BATCH))])
        loss = network.bits(batch).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        mean += (loss.item() - mean) * max(0.005, 1 / (step + 1))
        if (step + 1) % 1000 == 0 or step + 1 == steps:
            seconds = time.monotonic() - started
            print(f"step {step + 1:6} of {steps}: {mean:.4f} bits, {seconds:.0f} s", flush=True)
    return network


def report(network: Network, folder: Path) -> None:
    """Prints the code length of each file, in bits and in % of raw, as far as the network codes."""
    print("\nbits of sign, exponent and 3 mantissa bits; % of raw with the bits that stay raw")
    for path in sorted(folder.glob("*.pt")):
        bits = tail = raw = elements = 0.0
        for tensor in torch.load(path, map_location="cpu", weights_only=True).values():
            samples = samples_of(tensor, 4096)
            with torch.no_grad():
                for first in range(0, tensor.numel(), 1 << 16):
                    part = samples.at(slice(first, first + (1 << 16)))
                    bits += float(network.bits(part).sum())
            tail += int((tensor != 0).sum()) * (int(samples.facts[0, 1]) - 3)  # none of zeros
            raw += tensor.numel() * 8 * tensor.element_size()
            elements += tensor.numel()
        print(f"{path.stem:45} {bits / elements:7.3f} bits {100 * (bits + tail) / raw:7.2f} %")


def save(prior: HexPrior, file: Path) -> None:
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


def main(arguments: list[str] | None = None) -> int:
    """Trains, reports and writes; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m lmgc_torch.priors.train", description="Trains the bundled portable prior."
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder of {name: gradient} files")
    parser.add_argument("--out", type=Path, default=priors.FOLDER / "default.pt")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--minutes", type=float, default=15, help=f"in units of {STEPS_PER_MINUTE} training steps"
    )
    options = parser.parse_args(arguments)
    if not any(options.data.glob("*.pt")):
        print(
            f"There are no gradients in {options.data}. Capture them with\n"
            f"    python benchmarks/gradients.py --set train --out {options.data}",
            file=sys.stderr,
        )
        return 1
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)

    samples = load(options.data, generator)
    print(f"{len(samples.facts)} elements from {options.data}", flush=True)
    network = train(samples, max(1, round(options.minutes * STEPS_PER_MINUTE)), generator)
    save(network.exported(), options.out)
    print(f"wrote {options.out}, {options.out.stat().st_size} bytes")
    report(network, options.data)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
