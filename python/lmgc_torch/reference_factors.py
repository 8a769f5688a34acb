"""Digits and factors in `lmgc_torch.reference`: docs/format.md, sections 6.3, 6.6, 6.7 and 6.9."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lmgc_torch.reference_common import (
    AdaptiveRice,
    BitReader,
    ByteReader,
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
    ORIGIN,
    VARIES,
    Mixture,
    context_of,
)

__all__: list[str] = []  # for the reference only

U_LINE_WIDTHS, V_LINE_WIDTHS = 8, 16  # flags of a section

MOST_FACTOR, MOST_PRODUCT, MOST_MEAN = 2**30, 2**62, 2**40


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
        self.projection: Projection | None = None

    def read_head(self, fields: ByteReader) -> None:
        if self.projection:
            self.projection.coefficients.read_head(fields)
        self.kind = VARIES if self.projection else MIDDLE
        self.digits = Digits(fields, self.lines * self.rank, self.kind)

    def read_body(
        self, fields: ByteReader, weights: Sequence[int] = (), past: "PastFactor | None" = None
    ) -> None:
        means = [[0] * self.rank] * self.lines
        if self.projection:
            self.projection.coefficients.read_body(fields)
            means = self.projection.means(weights, past)
        shapes = [self.shape(i, c) for i in range(self.lines) for c in range(self.rank)]
        flat = [mean for line in means for mean in line]
        places = [place_of(mean, tail) for mean, (_, tail) in zip(flat, shapes, strict=True)]
        contexts = [
            context_of(width, fraction, self.kind)
            for (width, _), (_, fraction) in zip(shapes, places, strict=True)
        ]
        entries: list[int] = []
        for symbol, bits in self.digits.decode(fields, contexts):
            (_, tail), (place, _) = shapes[len(entries)], places[len(entries)]
            entries.append(join_factor(symbol, place, tail, bits))
        self.entries = [entries[i : i + self.rank] for i in range(0, len(entries), self.rank)]

    def shape(self, line: int, component: int) -> tuple[int, int]:
        """Returns the width of an entry's symbol, and the bits of its tail."""
        width = self.component_widths[component] + 2 * self.line_widths[line]
        tail = min(max(-((11 - width) // 4), 0), 30)
        return width - 4 * tail, tail


def place_of(mean: int, tail: int) -> tuple[int, int]:
    """Returns the bin that holds a mean in 64ths, and where in it, in 32nds."""
    half = 1 << tail >> 1
    return divmod((mean + 64 * half + 32) >> (tail + 1), 32)


def join_factor(symbol: int, place: int, tail: int, bits: BitReader) -> int:
    if symbol == ESCAPE:
        value = signed(bits.bits(32), 32)
    else:
        value = ((place + symbol - ORIGIN) << tail) + bits.bits(tail) - (1 << tail >> 1)
    return value if abs(value) <= MOST_FACTOR else refuse("a factor is too large")


def bound_of(u: list[list[int]], v: list[list[int]], shifts: list[int]) -> int:
    """Returns what no partial sum of a product exceeds, and refuses one that may leave 64 bits."""
    columns = zip(*v, strict=True)
    largest = [max(1, *map(abs, c)) << s for c, s in zip(columns, shifts, strict=True)]
    bound: int = max(sum(abs(a) * b for a, b in zip(line, largest, strict=True)) for line in u)
    return bound if bound < MOST_PRODUCT else refuse("the product is too large")


# ---- section 6.9: projections --------------------------------------------------------------------


class PastFactor(NamedTuple):
    """A factor of the frame before; zeros for lines that were dead."""

    entries: list[list[int]]
    weights: list[int]

    def of(self, lines: Sequence[int]) -> "PastFactor":
        return PastFactor([self.entries[i] for i in lines], [self.weights[i] for i in lines])


class Projection:
    """Coefficients of the first `count` components of a past factor, for some of `rank`."""

    def __init__(self, side: BitReader, count: int, rank: int) -> None:
        self.count = count
        self.projected = read_flags(side, rank)
        components = sum(self.projected)
        if components == 0:
            refuse("no component is projected")
        self.steps = read_line(side, components)
        self.coefficients = Factor(side, components, count, bool(side.bits(1)))

    def means(self, weights: Sequence[int], past: PastFactor | None) -> list[list[int]]:
        """Returns what a factor's entries are predicted to be, in 64ths."""
        if past is None or len(past.entries[0]) < self.count:
            refuse("the frame before has no such factor")
        basis = [line[: self.count] for line in past.entries]
        norms = [norm_of(column) for column in zip(*basis, strict=True)]
        shifts = [max(norms) - norm for norm in norms]
        coefficients = self.coefficients.entries
        bound_of(basis, coefficients, shifts)
        scaled = [[q << s for q, s in zip(line, shifts, strict=True)] for line in coefficients]
        return [
            self.means_of(line, before - now - max(norms), scaled)
            for line, before, now in zip(basis, past.weights, weights, strict=True)
        ]

    def means_of(self, line: list[int], exponent: int, scaled: list[list[int]]) -> list[int]:
        means, coded = [], iter(zip(scaled, self.steps, strict=True))
        for is_projected in self.projected:
            value, shift = 0, 0
            if is_projected:
                own, step = next(coded)
                value = sum(b * q for b, q in zip(line, own, strict=True))
                shift = exponent + step + 6
            if shift >= 0:
                value <<= min(shift, 41)
            else:
                value >>= -shift
            means.append(min(max(value, -MOST_MEAN), MOST_MEAN))
        return means


def norm_of(column: Sequence[int]) -> int:
    down = max(0, max(map(abs, column)).bit_length() - 15)
    total = sum((abs(entry) >> down) ** 2 for entry in column)
    return down + (total.bit_length() + 1) // 2


# ---- both factors --------------------------------------------------------------------------------


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

    def read_projections(self, side: BitReader, counts: tuple[int, int]) -> None:
        if counts == (0, 0):
            refuse("there is no projection")
        for factor, count in zip((self.u, self.v), counts, strict=True):
            if count > factor.lines // 2:
                refuse("too many past components")
            if count:
                factor.projection = Projection(side, count, self.rank)

    def prepare(self) -> None:
        """Checks the factors, and does what all predictions need."""
        self.base = min(self.exponents)
        shifts = [exponent - self.base for exponent in self.exponents]
        self.bound = bound_of(self.u.entries, self.v.entries, shifts)
        self.scaled_v = [[v << s for v, s in zip(e, shifts, strict=True)] for e in self.v.entries]

    def prediction(self, row: int, column: int) -> tuple[int, int]:
        """Returns value and exponent."""
        terms = zip(self.u.entries[row], self.scaled_v[column], strict=True)
        exponent = self.base + self.row_weights[row] + self.column_weights[column]
        return sum(u * v for u, v in terms), exponent

    def read_bodies(
        self, fields: ByteReader, past_u: PastFactor | None, past_v: PastFactor | None
    ) -> None:
        self.u.read_body(fields, self.row_weights, past_u)
        self.v.read_body(fields, self.column_weights, past_v)
