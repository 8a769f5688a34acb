"""Trains the bundled prior of residual digits: ``python -m lmgc_torch.priors.train_residual``.

It learns from gradients of networks that no report measures (``python benchmarks/gradients.py --set
train`` captures them): from the symbols and the context features of their residuals and factors, as
method `lm` codes them. The distributions of the components are Gaussians, whose means and widths
are learned with the network; the loss is the code length that the exported tables give. Number of
steps, threads, seed and sums are fixed: the same torch, kind of CPU and data give the same file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from lmgc_torch import _library
from lmgc_torch.priors import residual, training
from lmgc_torch.priors.residual import COMPONENTS, CONTEXTS, INPUTS, ONE, TOP, ResidualPrior
from lmgc_torch.priors.training import (
    HALF_SCALE,
    IntegerNetwork,
    Samples,
    gradients_of,
    join,
    save,
)

HIDDEN = (64, 32)

STEPS_PER_MINUTE = 1600  # on one CPU core that also does other things; alone, 4 times as many
BATCH = 4096
RATE = 16e-3
ELEMENTS_PER_FILE = 300_000  # so that small networks are not drowned
ELEMENTS_WITHOUT_PREDICTION = ELEMENTS_PER_FILE // 4  # most residuals of such a kind do not pay
ORIGIN = 129  # the symbol of residual 0
MOST = 126  # in both directions
LEAST_PROBABILITY = 2.0**-20  # what the integers leave of an impossible symbol

# Where the components start: means, and widths in octaves, both relative to the context's width.
MEANS = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -0.6, 0.6, -1.2, 1.2)
WIDTHS = (-3.6, -1.7, -0.9, -0.3, 0.4, 1.7, -0.6, -0.6, 0.0, 0.0)

NAMES = residual.CONTEXT_FEATURES[2:]  # of the network's inputs
FRACTION, FACTOR = NAMES.index("fraction"), NAMES.index("factor")

# -1 for features of which a mirrored element has the negative.
SIGNS = torch.tensor(
    [
        -1 if name.endswith(".value") or name in ("fraction", "prediction", "adaptive") else 1
        for name in NAMES
    ],
    dtype=torch.int8,
)


# ---- contexts ------------------------------------------------------------------------------------


def shape_of(context: int) -> tuple[int, int]:
    """A context's typical width, in quarter octaves, and fraction, in 32nds (docs/format.md)."""
    if context >= 124:
        return 11 - (context - 124), 0
    bits, first = next((b, f) for b, f in ((3, 28), (2, 12), (1, 4), (0, 0)) if context >= f)
    above, part = divmod(context - first, 1 << bits)
    return 11 - 4 * bits - above, (2 * part + 1) << (4 - bits)


SHAPES = torch.tensor([shape_of(context) for context in range(CONTEXTS)])


def mirror_of(context: int) -> int:
    """The context of an element whose prediction has the other sign."""
    width, fraction = shape_of(context)
    return next(
        other
        for other in range(context // 124 * 124, CONTEXTS)
        if shape_of(other) == (width, (32 - fraction) % 32)
    )


MIRRORS = torch.tensor([mirror_of(context) for context in range(CONTEXTS)])


# ---- samples -------------------------------------------------------------------------------------


def streams_of(tensor: Tensor, method: str) -> Iterator[Samples]:
    """Returns the coded matrices of a gradient, element by element.

    Inputs are context features from index 2 on, facts are context and symbol.
    """
    names = list(residual.CONTEXT_FEATURES)
    for symbols, features in zip(
        *_library.ops().residual_features(tensor, names, method), strict=True
    ):
        facts = torch.stack([features[:, 1], symbols.to(torch.int16)], 1)
        yield Samples(features[:, 2:].to(torch.int8), facts)


def load(folder: Path, generator: torch.Generator) -> Samples:
    """Returns random elements of every file, as many of each."""
    parts = []
    for path in sorted(folder.glob("*.pt")):
        gradients = gradients_of(path)
        sets = [(gradients, 1)]
        if gradients[0].dtype == torch.float32:
            sets.append(([(gradient * HALF_SCALE).half() for gradient in gradients], 10))
        for tensors, less in sets:
            parts += some_elements(tensors, "lowrank", ELEMENTS_PER_FILE // less, generator)
            parts += some_elements(tensors, "scale", ELEMENTS_WITHOUT_PREDICTION // less, generator)
    return join(parts)


def some_elements(
    tensors: list[Tensor], method: str, count: int, generator: torch.Generator
) -> list[Samples]:
    """Returns about `count` random elements, from each stream in proportion."""
    streams = [stream for tensor in tensors for stream in streams_of(tensor, method)]
    share = min(1.0, count / max(1, sum(len(stream.facts) for stream in streams)))
    parts = []
    for stream in streams:
        chosen = torch.randperm(len(stream.facts), generator=generator)
        parts.append(stream.at(chosen[: math.ceil(share * len(stream.facts))]))
    return parts


def mirrored(samples: Samples) -> Samples:
    """Flips the signs of all elements but zeros."""
    inputs = samples.inputs * SIGNS
    context, symbol = samples.facts.long().unbind(1)
    is_factor = inputs[:, FACTOR] > 0  # rounded to the middle of a bin, which stays where it is
    inputs[:, FRACTION] *= torch.where(is_factor, -1, 1).to(torch.int8)
    at_edge = (context >= 124).long()  # residuals r and -1 - r change places, not r and -r
    other = 2 * ORIGIN - at_edge - symbol
    other = torch.where(other < ORIGIN - MOST, 0, other)  # beyond the last bin: an escape
    other = torch.where(symbol < ORIGIN - MOST, symbol, other)
    context = torch.where(is_factor, context, MIRRORS[context])
    return Samples(inputs, torch.stack([context, other], 1).to(torch.int16))


# ---- network -------------------------------------------------------------------------------------


class Network(IntegerNetwork):
    """ResidualPrior's network and distributions in floating point."""

    def __init__(self) -> None:
        super().__init__((INPUTS, *HIDDEN, COMPONENTS + 2))
        self.means = nn.Parameter(torch.tensor(MEANS))
        self.widths = nn.Parameter(torch.tensor(WIDTHS))
        with torch.no_grad():
            self.head.bias[COMPONENTS:] = -3.0  # zeros are rare where nothing speaks for them

    def weights(self, inputs: Tensor) -> Tensor:
        """The components' weights [B, COMPONENTS + 2], the best of each element about 1."""
        score = self.outputs(inputs.float())
        below = (score - score.detach().amax(1, keepdim=True)).clamp(min=-TOP)
        whole = below.detach().floor()
        return torch.exp2(whole) * (1 + below - whole)  # as the integers have it

    def bits(self, samples: Samples) -> Tensor:
        """Code length [B] of the symbols."""
        weights = self.weights(samples.inputs)
        context, symbol = samples.facts[:, 0].long(), samples.facts[:, 1].long()
        width, fraction = SHAPES[context].float().unbind(1)
        unit = torch.exp2(-width / 4)
        lower = torch.where(symbol == 0, -MOST, symbol - ORIGIN) - fraction / 32
        upper = torch.where(symbol == 0, MOST + 1, symbol - ORIGIN + 1) - fraction / 32
        inside = self.between((lower * unit)[:, None], (upper * unit)[:, None])
        own = torch.where((symbol == 0)[:, None], 1 - inside, inside)
        residuals = (weights[:, :COMPONENTS] * own).sum(1)
        is_zero = (symbol == 1) | (symbol == 2)
        zero = (COMPONENTS - 1 + symbol).clamp(COMPONENTS, COMPONENTS + 1)
        zeros = weights.gather(1, zero[:, None])
        probability = torch.where(is_zero, zeros[:, 0], residuals) / weights.sum(1)
        return -torch.log2(probability + LEAST_PROBABILITY)

    def between(self, lower: Tensor, upper: Tensor) -> Tensor:
        """The components' probabilities between two places, in the context's widths."""
        inverse = torch.exp2(-self.widths) * math.sqrt(0.5)
        a, b = (lower - self.means) * inverse, (upper - self.means) * inverse
        above = a > 0  # differences of small numbers, not of numbers near 1
        a, b = torch.where(above, -b, a), torch.where(above, -a, b)
        return 0.5 * (torch.erfc(-b) - torch.erfc(-a))

    def table(self) -> Tensor:
        """The components' distributions in integers, as ResidualPrior takes them."""
        edges = torch.arange(-MOST, MOST + 2).double() - SHAPES[:, 1:].double() / 32
        edges = edges * torch.exp2(-SHAPES[:, :1].double() / 4)  # [CONTEXTS, 2 MOST + 2]
        means, widths = self.means.detach().double(), self.widths.detach().double()
        argument = (edges[:, None] - means[:, None]) * torch.exp2(-widths)[:, None] * math.sqrt(0.5)
        below, above = 0.5 * torch.erfc(-argument), 0.5 * torch.erfc(argument)
        inside = torch.where(argument[:, :, 1:] > 0, -above.diff(dim=2), below.diff(dim=2))
        table = torch.zeros(CONTEXTS, COMPONENTS, 256, dtype=torch.float64)
        table[:, :, 0] = below[:, :, 0] + above[:, :, -1]
        table[:, :, ORIGIN - MOST :] = inside
        table = (table * ONE).round().int()
        best = table.argmax(2, keepdim=True)
        table.scatter_add_(2, best, ONE - table.sum(2, keepdim=True, dtype=torch.int32))
        certain = (table == ONE).any(2)  # more than 16 bits hold
        table -= (table == ONE).int()
        table[:, :, 0] += certain.int()
        return table.view(CONTEXTS, COMPONENTS, 16, 16).transpose(1, 2)

    def exported(self) -> ResidualPrior:
        """The prior in integers."""
        hidden1, hidden2, head = (layer.exported() for layer in self.layers)
        return ResidualPrior(hidden1, hidden2, head, self.table())


def train(samples: Samples, steps: int, generator: torch.Generator) -> Network:
    """Trains for a number of steps."""
    network = Network()

    def bits() -> Tensor:
        return network.bits(training.drawn(samples, mirrored, BATCH, generator))

    training.fit(network, bits, steps, RATE)
    return network


# ---- report --------------------------------------------------------------------------------------


def code_length(prior: ResidualPrior, samples: Samples) -> float:
    """Bits of all symbols by the integers of the prior."""
    total = 0.0
    for first in range(0, len(samples.facts), 1 << 16):
        part = samples.at(slice(first, first + (1 << 16)))
        features = torch.zeros(len(part.facts), 2, INPUTS + 2)
        features[:, 1, 0] = 1.0
        features[:, :, 1] = part.facts[:, :1].float()
        features[:, :, 2:] = part.inputs[:, None].float()
        high, low = (part.facts[:, 1] >> 4).long(), (part.facts[:, 1] & 15).long()
        tokens = torch.stack([torch.full_like(high, 16), high], 1)
        with torch.no_grad():
            logits = prior(tokens, features)[:, :, :16] * (math.log(2) / 256)
        own = torch.log_softmax(logits, 2).gather(2, torch.stack([high, low], 1)[:, :, None])
        total -= float(own.sum(dtype=torch.float64)) / math.log(2)
    return total


def report(prior: ResidualPrior, folder: Path) -> None:
    """Prints the code length of each file's digits, in bits each and in % of raw."""
    print("\nbits of a residual's and of a factor entry's digits; all of them in % of raw")
    for path in sorted(folder.glob("*.pt")):
        for method in ("lowrank", "scale"):
            bits, counts, raw = [0.0, 0.0], [0, 0], 0
            for tensor in gradients_of(path):
                raw += tensor.numel() * 8 * tensor.element_size()
                for stream in streams_of(tensor, method):
                    is_factor = int(stream.inputs[0, FACTOR] > 0)
                    bits[is_factor] += code_length(prior, stream)
                    counts[is_factor] += len(stream.facts)
            means = " ".join(f"{b / max(c, 1):7.3f}" for b, c in zip(bits, counts, strict=True))
            print(f"{path.stem:40} {method:8} {means} bits {100 * sum(bits) / raw:6.2f} %")


def main(arguments: list[str] | None = None) -> int:
    """Trains, reports and writes; returns the exit code."""
    options = training.parse(
        "lmgc_torch.priors.train_residual",
        "the bundled prior of residual digits",
        "residual",
        STEPS_PER_MINUTE,
        arguments,
    )
    if not training.has_data(options.data):
        return 1
    generator = training.repeatable(options.seed)
    samples = load(options.data, generator)
    print(f"{len(samples.facts)} elements from {options.data}", flush=True)
    prior = train(samples, options.steps, generator).exported()
    save(prior, options.out)
    print(f"wrote {options.out}, {options.out.stat().st_size} bytes")
    report(prior, options.data)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
