"""Methods `scale` and `lowrank` of `lmgc_torch.reference`: docs/format.md, section 6."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from lmgc_torch.reference_common import (
    WHOLE,
    BitReader,
    ByteReader,
    ElementType,
    Matrix,
    Spare,
    read_line,
    refuse,
)
from lmgc_torch.reference_factors import Digits, LowRank, PastFactor, read_flags
from lmgc_torch.reference_mixture import (
    EDGE,
    ESCAPE,
    MINUS_ZERO,
    ORIGIN,
    VARIES,
    ZERO,
    context_of,
)

__all__: list[str] = []  # for the reference only

# ---- section 6.8: elements -----------------------------------------------------------------------


class Float(NamedTuple):
    """What of a float's format the serializer needs."""

    bits: int
    mantissa: int
    bias: int

    @property
    def least(self) -> int:
        """The exponent of the smallest normal number."""
        return 1 - self.bias


class Bin(NamedTuple):
    quantum: int
    context: int
    place: int
    width: int
    fraction: int


def bin_of(value: int, exponent: int, scale: int, kind: int, form: Float) -> Bin:
    quantum = max(scale // 4 - 2, form.least - form.mantissa)
    place = fraction = 0
    if value:
        quantum = max(quantum, abs(value).bit_length() - 1 + exponent - form.mantissa)
        thirty_seconds = abs(value) << 5
        down = quantum - exponent
        thirty_seconds = thirty_seconds >> down if down >= 0 else thirty_seconds << -down
        place, fraction = divmod(thirty_seconds, 32)
        if value < 0:
            place, fraction = -1 - place, 31 - fraction
    width = scale - 4 * quantum
    return Bin(quantum, context_of(width, fraction, kind), place, width, fraction)


def join(symbol: int, own: Bin, form: Float, tail: BitReader) -> int:
    """Returns an element's word."""
    sign = 1 << (form.bits - 1)
    if symbol in (ZERO, MINUS_ZERO):
        return 0 if symbol == ZERO else sign
    if symbol == ESCAPE:
        return tail.bits(form.bits)
    place = own.place + symbol - ORIGIN
    n = place if place >= 0 else -1 - place
    reach = own.quantum - form.least
    if n == 0 and reach > 0:
        octaves = 0
        while octaves < min(reach, 24) and tail.bits(1) == 0:
            octaves += 1
        significand = tail.bits(form.mantissa) | (octaves < reach) << form.mantissa
        exponent = form.least if octaves == reach else own.quantum - 1 - octaves
    else:
        exponent = form.least if n == 0 else max(own.quantum + n.bit_length() - 1, form.least)
        up = own.quantum - exponent + form.mantissa
        significand = n << up | tail.bits(up) if up >= 0 else n >> -up
    normal = significand >> form.mantissa
    field = exponent + form.bias if normal else 0
    magnitude = field << form.mantissa | significand % (1 << form.mantissa)
    return magnitude % sign + (sign if place < 0 else 0)


# ---- section 6.10: short floats ------------------------------------------------------------------


def lengthen(word: int, form: Float, spare: Spare) -> int:
    """Returns the word of the element type that a word of a short format stands for."""
    sign = 1 << (form.bits - 1)
    magnitude, p, long_p = word % sign, form.mantissa, form.mantissa + spare.bits
    if magnitude >> p > 0 or spare.exponents == 0:
        result = (magnitude << spare.bits) + (spare.exponents << long_p)
    elif magnitude == 0:
        result = 0
    else:
        down = p + 1 - magnitude.bit_length()
        if down <= spare.exponents:
            result = (magnitude << (spare.bits + down)) % (1 << long_p)
            result += (spare.exponents - down + 1) << long_p
        else:
            result = magnitude << (spare.bits + spare.exponents)
    long_sign = sign << spare.bits
    return result % long_sign + (long_sign if word >= sign else 0)


# ---- section 6.2: section ------------------------------------------------------------------------

BY_DIMENSION_1, DEAD_LINES, COLUMN_SCALES = 1, 2, 4  # and 8 and 16: line widths of factors
PROJECTIONS = 64  # method lowrank only


class Section:
    """Reads flags and side information when it is made: what method lm shares with these two.

    Attributes:
        flags: The section's flags.
        low_rank: The prediction of method lowrank.
        kind: Of the residuals' contexts.
        form: The elements' format.
    """

    low_rank: LowRank | None = None

    def __init__(
        self,
        fields: ByteReader,
        flags: int,
        sizes: Sequence[int],
        element: ElementType,
        predicted: bool,
        spare: Spare,
    ) -> None:
        self.fields, self.flags = fields, flags
        self.sizes, self.element, self.spare = sizes, element, spare
        bias = 2 ** (element.exponent_bits - 1) - 1 - spare.exponents
        mantissa = element.mantissa_bits - spare.bits
        self.form = Float(1 + element.exponent_bits + mantissa, mantissa, bias)
        self.kind = VARIES if predicted else EDGE
        rank = fields.varint() if predicted else 0
        counts = (0, 0)
        if flags & PROJECTIONS:
            counts = fields.varint(), fields.varint()
        side = BitReader(ByteReader(fields.take(fields.varint())))
        self.check_flags(predicted)
        self.find_lines(side)
        if self.elements == 0:
            if predicted:
                refuse("nothing is left to predict")
            side.end()
            return
        rows, columns = len(self.live_rows), len(self.live_columns)
        if predicted:
            self.low_rank = LowRank(side, rows, columns, rank, self.flags)
            if self.flags & PROJECTIONS:
                self.low_rank.read_projections(side, counts)
        self.row_scales = read_line(side, rows)
        self.column_scales = read_line(side, columns if self.flags & COLUMN_SCALES else 0)
        side.end()
        if self.low_rank:
            self.add_weights(self.low_rank)

    def check_flags(self, predicted: bool) -> None:
        flat = Matrix(self.sizes).flat
        if self.flags & ~(31 + PROJECTIONS if predicted else 7) or (
            flat and (self.flags or predicted)
        ):
            refuse("flags that are unknown, or do not suit the tensor or the method")
        if self.flags & BY_DIMENSION_1 and (len(self.sizes) < 3 or self.sizes[1] < 2):
            refuse("there is no view by dimension 1")

    def find_lines(self, side: BitReader) -> None:
        """Finds the rows and the columns that are not dead."""
        matrix = Matrix(self.sizes)
        self.all_elements = math.prod(self.sizes)
        rows, self.columns = matrix.rows, matrix.columns
        if self.flags & BY_DIMENSION_1:
            rows, self.columns = self.sizes[1], self.all_elements // self.sizes[1]
        self.live_rows: Sequence[int] = range(rows)
        self.live_columns: Sequence[int] = range(self.columns)
        self.elements = self.all_elements
        if self.flags & DEAD_LINES:
            dead_rows, dead_columns = read_flags(side, rows), read_flags(side, self.columns)
            self.live_rows = [row for row in self.live_rows if not dead_rows[row]]
            self.live_columns = [column for column in self.live_columns if not dead_columns[column]]
            self.elements = len(self.live_rows) * len(self.live_columns)

    def add_weights(self, low_rank: LowRank) -> None:
        for scales, weights in (
            (self.row_scales, low_rank.row_weights),
            (self.column_scales, low_rank.column_weights),
        ):
            for i in range(len(scales)):
                scales[i] += 4 * weights[i]
                if not -(2**15) <= scales[i] < 2**15:
                    refuse("a scale is out of its range")

    def scale(self, row: int, column: int) -> int:
        return self.row_scales[row] + (self.column_scales[column] if self.column_scales else 0)

    def bin_of(self, row: int, column: int) -> Bin:
        value, exponent = self.low_rank.prediction(row, column) if self.low_rank else (0, 0)
        return bin_of(value, exponent, self.scale(row, column), self.kind, self.form)

    def tensor(self, live_words: Iterable[int]) -> bytes:
        """Returns the tensor's bytes, from the words of the live matrix."""
        if self.fields.left():
            refuse("the section goes on behind its last body")
        words = [0] * self.all_elements
        for i, word in enumerate(live_words):
            row, column = divmod(i, len(self.live_columns))
            index = self.index(self.live_rows[row], self.live_columns[column])
            words[index] = lengthen(word, self.form, self.spare)
        return b"".join(word.to_bytes(self.element.width, "little") for word in words)

    def index(self, row: int, column: int) -> int:
        """Returns which element of the tensor an element of the matrix is."""
        if not self.flags & BY_DIMENSION_1:
            return row * self.columns + column
        rest = math.prod(self.sizes[2:])
        return (column // rest * self.sizes[1] + row) * rest + column % rest


class PastFactors(NamedTuple):
    """The prediction that the frame before had for a tensor."""

    by_dimension_1: bool
    u: PastFactor
    v: PastFactor


class FixedSection(Section):
    """Methods scale and lowrank: reads all but the bodies when it is made; `decode` reads those."""

    def __init__(
        self,
        section: bytes,
        sizes: Sequence[int],
        element: ElementType,
        predicted: bool,
        spare: Spare = WHOLE,
    ) -> None:
        fields = ByteReader(section)
        super().__init__(fields, fields.unsigned(1), sizes, element, predicted, spare)
        if self.elements == 0:
            return
        if self.low_rank:
            self.low_rank.u.read_head(fields)
            self.low_rank.v.read_head(fields)
        self.digits = Digits(fields, self.elements, self.kind)

    def decode(self, past: PastFactors | None = None) -> bytes:
        if self.elements == 0:
            return self.tensor([])
        if self.low_rank:
            u, v = self.live_of(past)
            self.low_rank.read_bodies(self.fields, u, v)
            self.low_rank.prepare()
        columns = len(self.live_columns)
        bins = [self.bin_of(i // columns, i % columns) for i in range(self.elements)]
        decoded = self.digits.decode(self.fields, [own.context for own in bins])
        words = [join(symbol, bins[i], self.form, tail) for i, (symbol, tail) in enumerate(decoded)]
        return self.tensor(words)

    def live_of(self, past: PastFactors | None) -> tuple[PastFactor | None, PastFactor | None]:
        """Returns what the frame before had for the lines that live now."""
        by_dimension_1 = bool(self.flags & BY_DIMENSION_1)
        lines = self.all_elements // self.columns, self.columns
        if (
            past is None
            or past[0] != by_dimension_1
            or lines != tuple(len(factor.weights) for factor in (past.u, past.v))
        ):
            return None, None
        return past.u.of(self.live_rows), past.v.of(self.live_columns)

    def factors(self) -> PastFactors | None:
        """Returns what the next frame may refer to; this one is decoded."""
        if self.low_rank is None:
            return None
        found, rows = self.low_rank, self.all_elements // self.columns
        u = spread(found.u.entries, found.row_weights, self.live_rows, rows)
        v = spread(found.v.entries, found.column_weights, self.live_columns, self.columns)
        return PastFactors(bool(self.flags & BY_DIMENSION_1), u, v)


def spread(
    entries: list[list[int]], weights: list[int], live: Sequence[int], lines: int
) -> PastFactor:
    """Returns a factor over all lines."""
    past = PastFactor([[0] * len(entries[0])] * lines, [0] * lines)
    for line, own, weight in zip(live, entries, weights, strict=True):
        past.entries[line], past.weights[line] = own, weight
    return past
