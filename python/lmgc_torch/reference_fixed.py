"""Methods `scale` and `lowrank` of `lmgc_torch.reference`: docs/format.md, section 6."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from lmgc_torch.reference_common import (
    WHOLE,
    AdaptiveRice,
    BitReader,
    ByteReader,
    ElementType,
    Matrix,
    Spare,
    decode_block,
    read_line,
    refuse,
    signed,
)
from lmgc_torch.reference_mixture import (
    CONTEXTS,
    EDGE,
    ESCAPE,
    MIDDLE,
    MINUS_ZERO,
    ORIGIN,
    VARIES,
    ZERO,
    Mixture,
    context_of,
)

__all__: list[str] = []  # for the reference only

MOST_FACTOR, MOST_PRODUCT = 2**30, 2**62


# ---- section 6.3: side bits ----------------------------------------------------------------------


def read_flags(bits: BitReader, count: int) -> list[bool]:
    codes = AdaptiveRice(), AdaptiveRice()
    flags: list[bool] = []
    flag, before = False, 1
    while len(flags) < count:
        run = codes[flag].read(bits)
        if not 0 <= run <= count - len(flags) or run == before == 0:
            refuse("a run of lines is impossible")
        flags += [flag] * run
        flag, before = not flag, run
    return flags


# ---- section 6.6: digits -------------------------------------------------------------------------


class Digits:
    """Reads its head when it is made; `decode` reads the body."""

    def __init__(self, fields: ByteReader, symbols: int, kind: int) -> None:
        self.kind = kind
        present = fields.unsigned(2)
        if present >> 12:
            refuse("there are twelve weights")
        weights = tuple(fields.unsigned(1) if present >> k & 1 else 0 for k in range(12))
        positive, zero, minus_zero = fields.unsigned(1), fields.varint(), fields.varint()
        self.contexts = fields.unsigned(1)
        if sum(weights) != 255 or zero + minus_zero > 4032:
            refuse("a mixture does not add up")
        if positive > 254 or (positive != 127 and kind != EDGE):
            refuse("the share of positive residuals is impossible")
        if not 1 <= self.contexts <= CONTEXTS[kind]:
            refuse("the number of contexts is impossible")
        self.mixture = Mixture(weights, positive, zero, minus_zero)
        self.blocks = []
        for first in range(0, symbols, 65536):
            count = min(65536, symbols - first)
            words, escapes, tails = fields.varint(), fields.varint(), fields.varint()
            if words > count or escapes > count or tails > 16 * count:
                refuse("a block is larger than its symbols allow")
            self.blocks.append((words, escapes, tails))

    def decode(
        self, fields: ByteReader, contexts: Sequence[int]
    ) -> Iterator[tuple[int, BitReader]]:
        """Yields each symbol and the bits of which the next ones are its tail.

        It has to be asked until it ends: what is wrong at the end of a block is found there.
        """
        if max(contexts) >= self.contexts:
            refuse("a context has no table")
        tables = {c: self.mixture.table(c, self.kind) for c in set(contexts)}
        for number, (words, escapes, tails) in enumerate(self.blocks):
            own = contexts[65536 * number : 65536 * (number + 1)]
            symbols = decode_block(fields, len(own), words, lambda i, own=own: tables[own[i]])  # type: ignore[misc]
            escaped = ByteReader(fields.take(escapes))
            bits = BitReader(ByteReader(fields.take(tails)))
            for symbol in symbols:
                yield (symbol if symbol != ESCAPE else escaped.unsigned(1)), bits
            if escaped.left():
                refuse("there are escapes that no symbol uses")
            bits.end()


# ---- section 6.7: factors ------------------------------------------------------------------------


class Factor:
    """A matrix of `lines` times `rank` integers."""

    def __init__(self, side: BitReader, lines: int, rank: int, line_widths: bool) -> None:
        self.lines, self.rank = lines, rank
        self.component_widths = read_line(side, rank)
        self.line_widths = read_line(side, lines) if line_widths else [0] * lines

    def read_head(self, fields: ByteReader) -> None:
        self.digits = Digits(fields, self.lines * self.rank, MIDDLE)

    def read_body(self, fields: ByteReader) -> None:
        shapes = [self.shape(i, c) for i in range(self.lines) for c in range(self.rank)]
        contexts = [context_of(width, 0, MIDDLE) for width, _ in shapes]
        entries: list[int] = []
        for symbol, bits in self.digits.decode(fields, contexts):
            entries.append(join_factor(symbol, shapes[len(entries)][1], bits))
        self.entries = [entries[i : i + self.rank] for i in range(0, len(entries), self.rank)]

    def shape(self, line: int, component: int) -> tuple[int, int]:
        """Returns the width of an entry's symbol, and the bits of its tail."""
        width = self.component_widths[component] + 2 * self.line_widths[line]
        tail = min(max(-((11 - width) // 4), 0), 30)
        return width - 4 * tail, tail


def join_factor(symbol: int, tail: int, bits: BitReader) -> int:
    if symbol == ESCAPE:
        value = signed(bits.bits(32), 32)
    else:
        value = ((symbol - ORIGIN) << tail) + bits.bits(tail) - (1 << tail >> 1)
    return value if abs(value) <= MOST_FACTOR else refuse("a factor is too large")


class LowRank:
    def __init__(self, side: BitReader, rows: int, columns: int, rank: int, flags: int) -> None:
        if not 1 <= rank <= min(rows, columns):
            refuse("the rank is impossible")
        self.rank = rank
        self.row_weights = read_line(side, rows)
        self.column_weights = read_line(side, columns)
        self.exponents = read_line(side, rank)
        self.u = Factor(side, rows, rank, bool(flags & U_LINE_WIDTHS))
        self.v = Factor(side, columns, rank, bool(flags & V_LINE_WIDTHS))

    def prepare(self) -> None:
        """Checks the factors, and does what all predictions need."""
        self.base = min(self.exponents)
        shifts = [exponent - self.base for exponent in self.exponents]
        columns = zip(*self.v.entries, strict=True)
        largest = [max(1, *map(abs, c)) << s for c, s in zip(columns, shifts, strict=True)]
        self.bound = max(
            sum(abs(u) * v for u, v in zip(line, largest, strict=True)) for line in self.u.entries
        )
        if self.bound >= MOST_PRODUCT:
            refuse("the product is too large")
        self.scaled_v = [[v << s for v, s in zip(e, shifts, strict=True)] for e in self.v.entries]

    def prediction(self, row: int, column: int) -> tuple[int, int]:
        """Returns value and exponent."""
        terms = zip(self.u.entries[row], self.scaled_v[column], strict=True)
        exponent = self.base + self.row_weights[row] + self.column_weights[column]
        return sum(u * v for u, v in terms), exponent


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


# ---- section 6.9: short floats -------------------------------------------------------------------


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

BY_DIMENSION_1, DEAD_LINES, COLUMN_SCALES, U_LINE_WIDTHS, V_LINE_WIDTHS = 1, 2, 4, 8, 16


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
        self.row_scales = read_line(side, rows)
        self.column_scales = read_line(side, columns if self.flags & COLUMN_SCALES else 0)
        side.end()
        if self.low_rank:
            self.add_weights(self.low_rank)

    def check_flags(self, predicted: bool) -> None:
        flat = Matrix(self.sizes).flat
        if self.flags > (31 if predicted else 7) or (flat and (self.flags or predicted)):
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

    def decode(self) -> bytes:
        if self.elements == 0:
            return self.tensor([])
        if self.low_rank:
            self.low_rank.u.read_body(self.fields)
            self.low_rank.v.read_body(self.fields)
            self.low_rank.prepare()
        columns = len(self.live_columns)
        bins = [self.bin_of(i // columns, i % columns) for i in range(self.elements)]
        decoded = self.digits.decode(self.fields, [own.context for own in bins])
        words = [join(symbol, bins[i], self.form, tail) for i, (symbol, tail) in enumerate(decoded)]
        return self.tensor(words)
