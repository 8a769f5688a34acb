"""What is known of the integer factors in frames of method `lowrank`: read, and their length.

Lengths are ideal ones under the tables of docs/format.md, section 6.5; those of lines of integers
are exact.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import fixed_model as model
import numpy as np
import torch
from fixed_model import Floats, Integers
from torch import Tensor

from lmgc_torch import compress
from lmgc_torch.reference_common import AdaptiveRice
from lmgc_torch.reference_fixed import BY_DIMENSION_1, FixedSection
from lmgc_torch.reference_frame import read_header

EM_STEPS = 25
MOST_EXACT_LINES = 256


class Sent(NamedTuple):
    """One of the two integer matrices of a frame's prediction."""

    entries: Integers  # (lines, components)
    component_widths: Integers  # quarter octaves
    line_widths: Integers  # half octaves


@dataclass
class Frame:
    """A matrix, and what its frame says of it."""

    matrix: Floats  # live
    weights: tuple[Integers, Integers]  # of rows and of columns
    scales: tuple[Integers, Integers]
    factors: tuple[Sent, Sent]  # u, v
    powers: Floats
    factor_bits: float  # of the factors' symbols, from the frame
    section: FixedSection
    bits: int  # of the section

    def view(self, tensor: Tensor) -> Floats:
        """Returns another tensor of the same shape as this one's live matrix."""
        if self.section.flags & BY_DIMENSION_1:
            tensor = tensor.transpose(0, 1)
        matrix = tensor.double().reshape(tensor.shape[0], -1).numpy()
        return matrix[np.ix_(self.section.live_rows, self.section.live_columns)]

    def weighted(self, tensor: Tensor) -> Floats:
        """Returns the same divided by this frame's weights."""
        rows, columns = self.weights
        return self.view(tensor) * np.exp2(-rows[:, None] - columns)


def frame_of(tensor: Tensor) -> Frame | None:
    """Returns what the encoder makes of a tensor; None where it takes no prediction."""
    frame = compress(tensor, method="lowrank").numpy().tobytes()
    header = read_header(frame)
    (record,) = header.records
    if record.method != "lowrank":
        return None
    section = FixedSection(frame[header.size :], record.sizes, record.element, predicted=True)
    predicted = section.low_rank
    assert predicted is not None
    sent, factor_bits = [], 0
    for factor in (predicted.u, predicted.v):
        factor.read_body(section.fields)
        own = (factor.entries, factor.component_widths, factor.line_widths)
        sent.append(Sent(*(np.array(part, np.int64) for part in own)))
        factor_bits += sum(16 * w + 8 * (e + t) for w, e, t in factor.digits.blocks)
    weights = np.array(predicted.row_weights), np.array(predicted.column_weights)
    rows, columns = np.array(section.row_scales), np.array(section.column_scales)
    scales = rows - 4 * weights[0], columns - 4 * weights[1] if len(columns) else columns
    powers = np.exp2(np.array(predicted.exponents, float))
    result = Frame(
        np.empty(0), weights, scales, (sent[0], sent[1]), powers, factor_bits, section,
        8 * record.section_size,
    )  # fmt: skip
    result.matrix = result.view(tensor)
    return result


# ---- code lengths --------------------------------------------------------------------------------


def line_bits(values: Iterable[int]) -> int:
    """Returns the bits of a line of integers in docs/format.md, section 6.3."""
    line = [int(value) for value in values]
    if not line:
        return 0
    middle = round(float(np.median(line)))
    return 17 + min(_rice_bits(line, [middle] * len(line)), _rice_bits(line, [line[0], *line]))


def _rice_bits(line: list[int], predicted: list[int]) -> int:
    code, bits = AdaptiveRice(), 0
    for value, guess in zip(line, predicted, strict=False):
        difference = value - guess
        number = 2 * difference if difference >= 0 else -2 * difference - 1
        k = code.parameter()
        bits += (number >> k) + 1 + k if number >> k < 24 else 24 + 17
        code.update(number)
    return bits


@functools.cache
def _probabilities(width: int, fraction: float) -> Floats:
    return model.probabilities(width, fraction)


def entry_bits(entries: Integers, means: Floats | None, widths: Integers) -> float:
    """Returns the ideal length of integers, under the mixture that suits them best.

    Args:
        entries: the integers.
        means: what each is predicted to be; None: zero.
        widths: standard deviations, in quarter octaves, as those of factors.
    """
    tails = np.clip(-((11 - widths) // 4), 0, 30)
    own = np.maximum(widths - 4 * tails, -12)
    half = (1 << tails) >> 1
    place, part = 0 * entries, np.full(entries.shape, 0)
    parts = np.ones_like(part)
    if means is not None:
        at = (means + half + 0.5) / (1 << tails)
        place = np.floor(at).astype(np.int64)
        parts = np.where(means == 0, 1, 1 << np.clip(3 - own // 4, 0, 3))
        part = np.floor((at - place) * parts).astype(np.int64)
    residual = ((entries + half) >> tails) - place
    far = np.abs(residual) > model.MOST_RESIDUAL
    bits = float(tails[~far].sum()) + (12 + 8 + 32) * float(far.sum())
    keys = np.stack([own, part, parts], -1)[~far]
    contexts, index = np.unique(keys, axis=0, return_inverse=True)
    side = 2 * model.MOST_RESIDUAL + 1
    flat = index.ravel() * side + residual[~far] + model.MOST_RESIDUAL
    counts = np.bincount(flat, minlength=side * len(contexts)).reshape(-1, side)
    shares = np.stack([_probabilities(int(w), (2 * p + 1) / (2 * n)) for w, p, n in contexts])
    mixture = np.full(shares.shape[1], 1 / shares.shape[1])
    for _ in range(EM_STEPS):
        mean = np.maximum(np.einsum("k,cks->cs", mixture, shares), 1e-300)
        mixture = mixture * np.einsum("cks,cs->k", shares, counts / mean)
        mixture /= mixture.sum()
    mean = np.maximum(np.einsum("k,cks->cs", mixture, shares), 2.0**-20)
    return bits - float((counts * np.log2(mean)).sum())


def widths_of(sent: Sent) -> Integers:
    return sent.component_widths + 2 * sent.line_widths[:, None]


def side_bits(sent: Sent) -> int:
    """Returns the bits of a factor's widths."""
    lines = sent.line_widths if sent.line_widths.any() else []
    return line_bits(sent.component_widths) + line_bits(lines)


def factor_bits(sent: Sent) -> float:
    """Returns the ideal length of a factor as the codec has it: its widths, and its entries."""
    return side_bits(sent) + entry_bits(sent.entries, None, widths_of(sent))


def quarters(deviation: Floats) -> Integers:
    return np.rint(4 * np.log2(np.maximum(deviation, 2.0**-3))).astype(np.int64)


def plain(entries: Floats) -> Sent:
    """Returns integers with the widths that suit them, of lines only where they pay."""
    entries = np.asarray(entries, np.int64)
    squares = entries.astype(float) ** 2 + 1 / 16
    columns = quarters(np.sqrt(squares.mean(0)))
    rows = np.rint(np.log2((squares * np.exp2(-columns / 2)).mean(1))).astype(np.int64)
    if not (rows**2).sum() * entries.shape[1] > 12 * len(rows):
        rows = np.zeros_like(rows)
    return Sent(entries, columns, rows)


# ---- entries given those before them -------------------------------------------------------------


def groups(count: int) -> list[slice]:
    """Returns octaves of indices: 0, 1, 2 to 3, 4 to 7, ..."""
    edges = [0, *(1 << k for k in range(count.bit_length()) if 1 << k < count), count]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def conditional_saving(sent: Sent, basis: Floats | None, earlier: bool = False) -> float:
    """Returns the bits that a factor saves if each entry is told given those before it.

    A component's covariance is diagonal in the past vectors, with one variance an octave of them,
    which is sent. Nothing else is: it is the least that the past vectors leave to be told. Long
    factors are judged by every fourth of their components.

    Args:
        sent: the factor.
        basis: past vectors, (lines, count), orthonormal.
        earlier: whether a component also knows that it is orthogonal to those before it.
    """
    spread = np.exp2(sent.line_widths / 2)[:, None]
    x = sent.entries / spread
    order = np.argsort(-(x**2).sum(0), kind="stable")
    picked = order[:: 1 if len(x) <= MOST_EXACT_LINES else 4]
    own = np.linalg.qr((sent.entries * spread)[:, order])[0] if earlier else None
    basis = np.zeros((len(x), 0)) if basis is None else basis
    parts = groups(basis.shape[1])
    levels = np.zeros((len(parts) + 2, len(picked)), np.int64)
    means, widths = np.zeros_like(x), np.zeros(x.shape, np.int64)
    unit = torch.eye(len(x), dtype=torch.float64)
    for at, component in enumerate(picked):
        index = int(np.flatnonzero(order == component)[0])
        value, vectors = x[:, component], basis
        before = own[:, :index] if own is not None else np.zeros((len(x), 0))
        inside = before.T @ value
        value = value - before @ inside
        vectors = vectors - before @ (before.T @ vectors)
        kept = (vectors**2).sum(0)
        seen = (vectors.T @ value) ** 2
        energy = [seen[p].sum() / max((kept[p] ** 2).sum(), 1e-9) for p in parts]
        free = len(x) - index * (own is not None)
        left = max(free - kept.sum(), 1.0)
        rest = np.maximum((value**2).sum() - (seen / np.maximum(kept, 1e-9)).sum(), 0) / left
        leak = (inside**2).sum() / max(index, 1)
        level = quarters(np.sqrt(np.array([*energy, rest, leak])))
        levels[:, at] = level
        variance = np.exp2(level / 2)
        each = np.concatenate(
            [np.full(p.stop - p.start, v) for p, v in zip(parts, variance, strict=False)]
            or [np.zeros(0)]
        )
        covariance = variance[-2] * unit.numpy() + (vectors * (each - variance[-2])) @ vectors.T
        if index and own is not None:
            covariance += (before * (variance[-1] - variance[-2])) @ before.T
        # Where neither says anything the entries still have what rounding makes of them.
        lower, failed = torch.linalg.cholesky_ex(torch.from_numpy(covariance) + 1e-3 * unit)
        if failed.item():
            raise ArithmeticError("a covariance is not positive definite")
        target = torch.from_numpy(x[:, component, None])
        fresh = torch.linalg.solve_triangular(lower, target, upper=False)
        deviation = lower.diagonal().numpy()
        means[:, component] = (target - lower.diagonal()[:, None] * fresh).numpy()[:, 0]
        widths[:, component] = quarters(deviation * spread[:, 0])
    told = levels if earlier else levels[:-1]
    side = sum(line_bits(line) for line in told)
    own_entries = sent.entries[:, picked]
    bits = side + entry_bits(own_entries, (means * spread)[:, picked], widths[:, picked])
    now = line_bits(sent.component_widths[picked])
    now += entry_bits(own_entries, None, widths_of(sent)[:, picked])
    return (now - bits) * len(order) / len(picked)
