"""Trains the bundled portable prior anew: ``python -m lmgc_torch.priors.train``.

It learns from gradients of networks that no report measures (``python benchmarks/gradients.py --set
train`` captures them), in floating point with the network's own rounding (straight-through
gradients), then writes the integers as TorchScript. The number of steps is fixed, threads, seed and
sums are too: the same torch, kind of CPU and data give the same file.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from lmgc_torch import _library
from lmgc_torch.priors import model, training
from lmgc_torch.priors.model import BINS, OCTAVES_BELOW, SLOPES, HexPrior
from lmgc_torch.priors.training import (
    HALF_SCALE,
    IntegerNetwork,
    Samples,
    gradients_of,
    join,
    log2_sum,
    save,
)

HIDDEN = (96, 64)

STEPS_PER_MINUTE = 2000  # on one CPU core that also does other things; alone, 7000
BATCH = 2048
RATE = 4e-3
ELEMENTS_PER_FILE = 300_000  # so that small networks are not drowned
LANE_ELEMENTS = 2048


def samples_of(tensor: Tensor, lane_elements: int) -> Samples:
    """Returns all elements of a gradient.

    Their inputs are context features from index 6 on, their facts context features 1 to 5, then
    sign, exponent field and the mantissa's top.
    """
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
        gradients = gradients_of(path)
        parts.append(some_elements(gradients, ELEMENTS_PER_FILE, generator))
        if gradients[0].dtype == torch.float32:
            halves = [(gradient * HALF_SCALE).half() for gradient in gradients]
            parts.append(some_elements(halves, ELEMENTS_PER_FILE // 10, generator))
    return join(parts)


def features_of(samples: Samples) -> Tensor:
    """The context features [N, F] of the elements' first digits."""
    digit = torch.zeros(len(samples.facts), 1)
    return torch.cat([digit, samples.facts[:, :5].float(), samples.inputs.float()], 1)


def some_elements(tensors: list[Tensor], count: int, generator: torch.Generator) -> Samples:
    """Returns about `count` random elements, from each tensor in proportion."""
    share = min(1.0, count / sum(tensor.numel() for tensor in tensors))
    parts = []
    for tensor in tensors:
        chosen = torch.randperm(tensor.numel(), generator=generator)
        chosen = chosen[: math.ceil(share * tensor.numel())]
        parts.append(samples_of(tensor, LANE_ELEMENTS).at(chosen))
    return join(parts)


def mirrored(samples: Samples) -> Samples:
    """Flips all signs."""
    inputs, facts = samples.inputs.clone(), samples.facts.clone()
    inputs[:, 16:] *= -1
    is_zero = (facts[:, 6] == 0) & (facts[:, 7] == 0)
    facts[:, 5] = torch.where(is_zero, facts[:, 5], 1 - facts[:, 5])
    return Samples(inputs, facts)


class Network(IntegerNetwork):
    """HexPrior's network in floating point."""

    def __init__(self) -> None:
        super().__init__((model.INPUTS, *HIDDEN, 2 * BINS))
        # Log-probability of the top mantissa bits in each bin, and how it turns with the slope.
        self.mantissa = nn.Parameter(torch.zeros(BINS + 1, 8))
        self.tilt = nn.Parameter(torch.zeros(8))

    def scores(self, features: Tensor) -> Tensor:
        """log2 of the bins' weights [B, 2 BINS], from context features [B, F]."""
        return self.outputs(model.network_inputs(features))

    def bits(self, samples: Samples) -> Tensor:
        """Code length [B] of sign, exponent and three mantissa bits."""
        score = self.scores(features_of(samples))
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
        hidden1, hidden2, head = (layer.exported() for layer in self.layers)
        return HexPrior(hidden1, hidden2, head, table.round())


def train(samples: Samples, steps: int, generator: torch.Generator) -> Network:
    """Trains for a number of steps."""
    network = Network()

    def bits() -> Tensor:
        return network.bits(training.drawn(samples, mirrored, BATCH, generator))

    training.fit(network, bits, steps, RATE)
    return network


def report(network: Network, folder: Path) -> None:
    """Prints the code length of each file, in bits and in % of raw, as far as the network codes."""
    print("\nbits of sign, exponent and 3 mantissa bits; % of raw with the bits that stay raw")
    for path in sorted(folder.glob("*.pt")):
        bits = tail = raw = elements = 0.0
        for tensor in gradients_of(path):
            samples = samples_of(tensor, 4096)
            with torch.no_grad():
                for first in range(0, tensor.numel(), 1 << 16):
                    part = samples.at(slice(first, first + (1 << 16)))
                    bits += float(network.bits(part).sum())
            tail += int((tensor != 0).sum()) * (int(samples.facts[0, 1]) - 3)  # none of zeros
            raw += tensor.numel() * 8 * tensor.element_size()
            elements += tensor.numel()
        print(f"{path.stem:45} {bits / elements:7.3f} bits {100 * (bits + tail) / raw:7.2f} %")


def main(arguments: list[str] | None = None) -> int:
    """Trains, reports and writes; returns the exit code."""
    options = training.parse(
        "lmgc_torch.priors.train",
        "the bundled portable prior",
        "default",
        STEPS_PER_MINUTE,
        arguments,
    )
    if not training.has_data(options.data):
        return 1
    generator = training.repeatable(options.seed)
    samples = load(options.data, generator)
    print(f"{len(samples.facts)} elements from {options.data}", flush=True)
    network = train(samples, options.steps, generator)
    save(network.exported(), options.out)
    print(f"wrote {options.out}, {options.out.stat().st_size} bytes")
    report(network, options.data)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
