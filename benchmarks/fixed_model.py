"""A model in NumPy of what methods `scale` and `lowrank` do to a matrix, to study their parts.

It follows csrc/core/fixed.h and csrc/ops/low_rank.cpp, with exact singular vectors and the ideal
code lengths of the residuals, under mixtures that it fits as the encoder does. docs/lowrank.md has
the mathematics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

MOST_RESIDUAL = 126
WIDTHS = range(-12, 12)  # of residuals, in quarter octaves of bins
MOST_OCTAVES = 24
# Components of the mixture: width in quarter octaves above the residual's, distance from the
# prediction in standard deviations of the component.
COMPONENTS = [(width, 0.0) for width in (-10, -6, -3, 0, 3, 6, 10, 15)]
COMPONENTS += [(-6, distance / 2**14) for distance in (23170, 41706, 60242, 78778)]
BITS_OF_A_LINE = 3  # of a scale or a weight, about
FORMATS = {torch.float32: (23, -126, 32), torch.bfloat16: (7, -126, 16)}


class Format(NamedTuple):
    """What of a float format matters here."""

    mantissa: int
    least: int  # exponent of the smallest normal number
    bits: int

    @classmethod
    def of(cls, tensor: Tensor) -> Format:
        """Returns the format of a tensor of fp32 or bf16."""
        return cls(*FORMATS[tensor.dtype])


def live_matrix(tensor: Tensor) -> Floats:
    """Returns a tensor as dimension 0 by the rest, without lines of zeros."""
    matrix = tensor.double().reshape(tensor.shape[0], -1).numpy()
    return matrix[(matrix != 0).any(1)][:, (matrix != 0).any(0)]


def floor_log2(values: Floats) -> Integers:
    """Returns floor(log2 |x|), of zeros -1."""
    return np.asarray(np.frexp(np.where(values != 0, values, 1))[1] - 1, np.int64)


def levels(squares: Floats, rounds: int = 3) -> tuple[Floats, Floats]:
    """Returns log2 of row and column root mean squares, found by turns: (rows, 1), (1, columns)."""
    rows, columns = np.ones((len(squares), 1)), np.ones((1, squares.shape[1]))
    for _ in range(rounds):
        rows = np.maximum((squares / columns).mean(1, keepdims=True), 1e-60)
        columns = np.maximum((squares / rows).mean(0, keepdims=True), 1e-60)
    return np.log2(rows) / 2, np.log2(columns) / 2


# ---- elements ------------------------------------------------------------------------------------


@dataclass
class Elements:
    """The elements of a matrix as residuals in bins. Arrays have one entry an element."""

    width: Integers  # of the residual, in quarter octaves
    fraction: Integers  # 32nds of a bin, where the prediction lies
    residual: Integers  # bins
    tail: Integers  # bits left inside the bin
    zero: npt.NDArray[np.bool_]
    escape: npt.NDArray[np.bool_]  # neither a zero nor a residual that has a symbol
    scale_bits: float


def split(matrix: Floats, prediction: Floats, fmt: Format) -> Elements:
    """Returns what the serializer makes of a matrix under a prediction, as csrc/core/fixed.h."""
    rows, columns = levels((matrix - prediction) ** 2)
    scale = np.rint(4 * rows).astype(np.int64) + np.rint(4 * columns).astype(np.int64)
    quantum = np.maximum((scale >> 2) - 2, fmt.least - fmt.mantissa)
    ulp = floor_log2(prediction) - fmt.mantissa
    quantum = np.where(prediction != 0, np.maximum(quantum, ulp), quantum)
    place, fraction = _bin(prediction, quantum)
    own, _ = _bin(matrix, quantum)
    exponent = np.maximum(floor_log2(matrix), fmt.least)
    near = (own == 0) | (own == -1)
    down = np.maximum(quantum - exponent + fmt.mantissa, 0)
    octaves = np.maximum(quantum - 1 - exponent, 0)
    tail = np.where(near & (quantum > fmt.least), octaves + 1 + fmt.mantissa, down)
    zero, residual = matrix == 0, own - place
    far = (np.abs(residual) > MOST_RESIDUAL) | (near & (octaves > MOST_OCTAVES))
    escape = ~zero & far
    width = np.clip(scale - 4 * quantum, WIDTHS[0], WIDTHS[-1])
    bits = BITS_OF_A_LINE * (rows.size + columns.size)
    parts = (width, fraction, residual, np.where(escape, fmt.bits, tail), zero, escape)
    return Elements(*(part.ravel() for part in parts), float(bits))


def _bin(values: Floats, quantum: Integers) -> tuple[Integers, Integers]:
    """Returns the numbers of the bins of values, and where in them they lie, in 32nds."""
    scaled = np.ldexp(np.abs(values), -quantum.astype(np.int32))
    whole = np.floor(np.minimum(scaled, 2.0**50))
    number, fraction = whole.astype(np.int64), np.floor(32 * (scaled - whole)).astype(np.int64)
    negative = values < 0
    return np.where(negative, -1 - number, number), np.where(negative, 31 - fraction, fraction) & 31


# ---- code lengths --------------------------------------------------------------------------------


def probabilities(width: int, fraction: float) -> Floats:
    """Returns the probability of each residual by component: (components, 253)."""
    edges = np.arange(-MOST_RESIDUAL, MOST_RESIDUAL + 2) - fraction
    below = []
    for extra, distance in COMPONENTS:
        z = edges * 2.0 ** (-(width + extra) / 4)
        both = [torch.special.ndtr(torch.from_numpy(z + d)).numpy() for d in (-distance, distance)]
        below.append((both[0] + both[1]) / 2)
    return np.diff(np.array(below), axis=1)


@dataclass
class Context:
    """The residuals that share a table: counts and ideal probabilities, both of 253 residuals."""

    width: int
    counts: Floats
    probability: Floats


def fit_contexts(elements: Elements, predicted: bool, iterations: int = 40) -> list[Context]:
    """Returns the contexts of a stream, under the mixture that suits them best.

    Args:
        elements: the stream.
        predicted: whether the prediction's place in its bin tells contexts apart.
        iterations: of expectation maximisation.
    """
    told = ~elements.zero & ~elements.escape
    width, residual = elements.width[told], elements.residual[told]
    bits = np.where(width >= 8, 0, np.where(width >= 4, 1, np.where(width >= 0, 2, 3)))
    part = elements.fraction[told] >> (5 - bits) if predicted else np.zeros_like(width)
    contexts, shares = [], []
    for own in WIDTHS:
        for index in range(1 << (0 if not predicted else 3 - min(3, max(0, own // 4 + 1)))):
            chosen = (width == own) & (part == index)
            if not chosen.any():
                continue
            at = residual[chosen] + MOST_RESIDUAL
            counts = np.bincount(at, minlength=2 * MOST_RESIDUAL + 1).astype(float)
            parts = 1 << (3 - min(3, max(0, own // 4 + 1)))
            shares.append(probabilities(own, (2 * index + 1) / (2 * parts) if predicted else 0))
            contexts.append(Context(own, counts, counts))
    weights = np.full(len(COMPONENTS), 1 / len(COMPONENTS))
    for _ in range(iterations if contexts else 0):
        sums = np.zeros_like(weights)
        for context, share in zip(contexts, shares, strict=True):
            mean = np.maximum(weights @ share, 1e-300)
            sums += weights * (share @ (context.counts / mean))
        weights = sums / sums.sum()
    floor = 2.0**-13  # a residual without a frequency of its own escapes, for about 20 bits
    for context, share in zip(contexts, shares, strict=True):
        context.probability = np.maximum(weights @ share, floor / 100)
    return contexts


def kinds_bits(elements: Elements) -> float:
    """Returns the bits that tell zeros, escapes and residuals apart."""
    counts = np.array([elements.zero.sum(), elements.escape.sum()], float)
    counts = np.append(counts, elements.zero.size - counts.sum())
    share = counts[counts > 0] / elements.zero.size
    return float(-(counts[counts > 0] * np.log2(share)).sum())


def tail_bits(elements: Elements) -> float:
    """Returns the raw bits that follow the symbols."""
    return float(elements.tail[~elements.zero].sum())


def two_digits_bits(contexts: list[Context]) -> float:
    """Returns the ideal length of all residuals, each bin with a probability of its own."""
    return sum(float(-(c.counts * np.log2(c.probability)).sum()) for c in contexts)


def one_digit_bits(contexts: list[Context], cells: int) -> float:
    """Returns the ideal length of all residuals as one of ``cells`` cells, and the place in it.

    A cell is a run of 2^n bins, which n raw bits tell apart; what lies outside of all cells is one
    of them, too, and is followed by a byte. Each width has the cells that suit it best, found by
    dynamic programming.
    """
    widths = sorted({context.width for context in contexts})
    return sum(_best_cells([c for c in contexts if c.width == width], cells) for width in widths)


def _best_cells(contexts: list[Context], cells: int) -> float:
    """Returns the least length of contexts that share a division into cells."""
    sums = [np.cumsum([getattr(c, key) for c in contexts], 1) for key in ("counts", "probability")]
    many, likely = (np.pad(array, ((0, 0), (1, 0))) for array in sums)
    edges = many.shape[1]

    def cost(step: int, bits: int) -> Floats:
        """Returns the lengths of the cells of ``step`` bins, by their first bin."""
        p = np.maximum(likely[:, step:] - likely[:, :-step], 1e-30)
        n: Floats = many[:, step:] - many[:, :-step]
        return np.asarray((n * (bits - np.log2(p))).sum(0))

    costs = [(1 << bits, cost(1 << bits, bits)) for bits in range(7)]
    least = np.inf
    for first in range(MOST_RESIDUAL - 64, MOST_RESIDUAL + 1, 2):
        reached = np.full(edges, np.inf)
        reached[first] = 0
        for _ in range(cells - 1):
            before = reached.copy()
            for step, lengths in costs:
                np.minimum(reached[step:], before[:-step] + lengths, out=reached[step:])
        outside = many[:, -1:] - many + many[:, first, None]
        p = np.maximum(likely[:, -1:] - likely + likely[:, first, None], 1e-30)
        least = min(least, float((reached + (outside * (8 - np.log2(p))).sum(0))[first:].min()))
    return least
