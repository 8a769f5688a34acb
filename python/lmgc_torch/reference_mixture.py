"""Contexts and tables of residuals in `lmgc_torch.reference`: docs/format.md, section 6.

Integers only, but for the table of the normal distribution, whose entries are far enough from
halves for any floating-point library to find them.
"""

import functools
import math
from dataclasses import dataclass

from lmgc_torch.reference_common import Table

__all__: list[str] = []  # for the reference only

ESCAPE, ZERO, MINUS_ZERO, ORIGIN = 0, 1, 2, 129  # symbols
EDGE, MIDDLE, VARIES = range(3)  # kinds of contexts


# ---- section 6.4: contexts -----------------------------------------------------------------------


def context_of(width: int, fraction: int, kind: int) -> int:
    down = 11 - min(max(width, -12), 11)
    if kind != VARIES:
        return down
    bits = min(down // 4, 3)
    return (0, 4, 12, 28)[bits] + ((down - 4 * bits) << bits) + (fraction >> (5 - bits))


def shape_of(context: int, kind: int) -> tuple[int, int]:
    """Returns the width of a context, and where in its bin the prediction lies, in 32nds."""
    if kind != VARIES:
        return 11 - context, 16 if kind == MIDDLE else 0
    bits = 0 if context < 4 else 1 if context < 12 else 2 if context < 28 else 3
    above, part = divmod(context - (0, 4, 12, 28)[bits], 1 << bits)
    return 11 - 4 * bits - above, (2 * part + 1) << (4 - bits)


CONTEXTS = {EDGE: 24, MIDDLE: 24, VARIES: 124}


# ---- section 6.5: tables -------------------------------------------------------------------------

WIDTHS = (-10, -6, -3, 0, 3, 6, 10, 15, -6, -6, -6, -6)
DISTANCES = (0, 0, 0, 0, 0, 0, 0, 0, 23170, 41706, 60242, 78778)
QUARTERS = (1073741824, 902905651, 759250125, 638450708)
PHI = [math.floor(2**23 * math.erfc(-i / 64 / math.sqrt(2)) + 0.5) for i in range(385)]


def phi(argument: int) -> int:
    step, fraction = divmod(abs(argument), 256)
    upper = 2**24
    if step < 384:
        upper = PHI[step] + ((PHI[step + 1] - PHI[step]) * fraction >> 8)
    return upper if argument >= 0 else 2**24 - upper


@functools.cache
def component_below(width: int, fraction: int, component: int) -> tuple[int, ...]:
    """Returns the probability below each edge of the bins -126 to 126, in 2^-25."""
    octaves, quarter = divmod(width + WIDTHS[component], 4)
    distance = DISTANCES[component]
    below = []
    for residual in range(-126, 128):
        edge = 32 * residual - fraction
        argument = abs(edge) * QUARTERS[quarter] >> (21 + octaves)
        argument = argument if edge >= 0 else -argument
        below.append(phi(argument - distance) + phi(argument + distance))
    return tuple(below)


@dataclass(frozen=True)
class Mixture:
    weights: tuple[int, ...]
    positive: int
    zero: int
    minus_zero: int

    def table(self, context: int, kind: int) -> Table:
        width, fraction = shape_of(context, kind)
        below = [0] * 254
        for component, weight in enumerate(self.weights):
            if weight:
                own = component_below(width, fraction, component)
                below = [sum_ + weight * p for sum_, p in zip(below, own, strict=True)]
        budget = 4096 - self.zero - self.minus_zero
        one = 255 * 127 * 2**25
        frequencies = [0] * 256
        for i in range(253):
            share = self.positive if i >= 126 else 254 - self.positive
            frequencies[i + 3] = ((below[i + 1] - below[i]) * share * budget + one // 2) // one
        while sum(frequencies) > budget - 1:
            frequencies[frequencies.index(max(frequencies))] -= 1
        frequencies[ESCAPE] = budget - sum(frequencies)
        frequencies[ZERO], frequencies[MINUS_ZERO] = self.zero, self.minus_zero
        return Table(frequencies)
