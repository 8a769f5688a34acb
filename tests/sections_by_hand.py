"""Sections that no encoder writes, and the coders that make them."""

from __future__ import annotations

import itertools
import math
import random
import struct
from collections.abc import Sequence

import helpers
import torch

from lmgc_torch import reference_common as common
from lmgc_torch import reference_factors as factors
from lmgc_torch import reference_fixed as fixed
from lmgc_torch import reference_frame as ref_frame
from lmgc_torch import reference_mixture as mixture


class BitWriter:
    def __init__(self) -> None:
        self.value = self.count = 0

    def put(self, value: int, count: int) -> None:
        assert 0 <= value < 1 << count
        self.value |= value << self.count
        self.count += count

    def put_rice(self, code: common.AdaptiveRice, number: int) -> None:
        value = 2 * number if number >= 0 else -2 * number - 1
        k = code.parameter()
        ones = min(value >> k, 24)
        self.put((1 << ones) - 1, ones + (ones < 24))
        self.put(*((value % (1 << k), k) if ones < 24 else (value, 17)))
        code.update(value)

    def put_line(self, line: Sequence[int], smooth: bool) -> None:
        if not line:
            return
        predicted = max(min(line[0] + 3, 2**15 - 1), -(2**15))
        self.put(smooth, 1)
        self.put(predicted % 2**16, 16)
        code = common.AdaptiveRice()
        for value in line:
            self.put_rice(code, value - predicted)
            predicted = value if smooth else predicted

    def put_flags(self, flags: Sequence[bool]) -> None:
        codes = common.AdaptiveRice(), common.AdaptiveRice()
        runs = [(flag, len(list(run))) for flag, run in itertools.groupby(flags)]
        for flag, run in [(False, 0), *runs] if flags[0] else runs:
            self.put_rice(codes[flag], run)

    def bytes(self) -> bytes:
        return self.value.to_bytes(-(-self.count // 8), "little")


class RandomTail:
    """Answers with any bits, and remembers them."""

    def __init__(self, generator: random.Random) -> None:
        self.generator, self.writer = generator, BitWriter()

    def bits(self, count: int) -> int:
        value = self.generator.getrandbits(count) if count else 0
        value &= self.generator.choice([0, -1, -1, -1])
        self.writer.put(value, count)
        return value


def encoded_block(symbols: Sequence[int], tables: Sequence[common.Table]) -> tuple[bytes, int]:
    """States and words of a block, and the number of words."""
    lanes = 1
    while lanes < 32 and 2 * lanes * 256 <= len(symbols):
        lanes *= 2
    states, words = [2**15] * lanes, []
    for i in reversed(range(len(symbols))):
        frequency, start = tables[i].frequencies[symbols[i]], tables[i].starts[symbols[i]]
        x = states[i % lanes]
        if x >= frequency << 19:
            words.append(x % 65536)
            x //= 65536
        states[i % lanes] = x // frequency * 4096 + x % frequency + start
    data = struct.pack(f"<{lanes}I", *states) + struct.pack(f"<{len(words)}H", *reversed(words))
    return data, len(words)


class RandomDigits:
    """Mixtures and symbols of all kinds."""

    def __init__(self, generator: random.Random, kind: int) -> None:
        self.generator, self.kind = generator, kind
        weights = [0] * 12
        for _ in range(generator.choice([1, 3, 255])):
            weights[generator.randrange(12)] += 1
        weights[generator.randrange(12)] += 255 - sum(weights)
        positive = generator.choice([0, 127, 200, 254]) if kind == mixture.EDGE else 127
        zero = generator.choice([0, 0, 5, 2000])
        minus_zero = generator.choice([0, 0, 5, 2000])
        self.mixture = mixture.Mixture(tuple(weights), positive, zero, minus_zero)

    def choose(self, contexts: Sequence[int]) -> list[int]:
        """Symbols, most of them probable ones."""
        self.tables = {c: self.mixture.table(c, self.kind) for c in set(contexts)}
        assert all(sum(table.frequencies) == 4096 for table in self.tables.values())
        symbols = []
        for context in contexts:
            symbol = self.tables[context].slots[self.generator.randrange(4096)]
            if self.generator.random() < 0.02:
                symbol = self.generator.randrange(256)
            symbols.append(symbol)
        return symbols

    def code(self, contexts: Sequence[int], symbols: Sequence[int], tails: bytes) -> None:
        """Makes `head` and `body`."""
        self.tables = {c: self.mixture.table(c, self.kind) for c in set(contexts)}
        tables = [self.tables[context] for context in contexts]
        plain = [
            symbol if table.frequencies[symbol] else 0
            for symbol, table in zip(symbols, tables, strict=True)
        ]
        escapes = bytes(s for s, told in zip(symbols, plain, strict=True) if told == 0)
        block, words = encoded_block(plain, tables)
        weights = self.mixture.weights
        self.head = struct.pack("<H", sum(1 << c for c in range(12) if weights[c]))
        self.head += bytes(weight for weight in weights if weight) + bytes([self.mixture.positive])
        self.head += helpers.varint(self.mixture.zero) + helpers.varint(self.mixture.minus_zero)
        self.head += bytes(
            [self.generator.choice([max(contexts) + 1, mixture.CONTEXTS[self.kind]])]
        )
        self.head += b"".join(map(helpers.varint, (words, len(escapes), len(tails))))
        self.body = block + escapes + tails


class RandomFactor:
    def __init__(self, generator: random.Random, lines: int, rank: int, size: int) -> None:
        near = 4 * size + generator.randrange(-12, 12)
        self.component_widths = [near + generator.randrange(-9, 9) for _ in range(rank)]
        self.line_widths = [generator.randrange(-4, 5) for _ in range(lines)]
        if generator.random() < 0.5:
            self.line_widths = []
        self.entries = [
            [round(generator.gauss(0, 1) * 2**size) for _ in range(rank)] for _ in range(lines)
        ]
        self.digits = RandomDigits(generator, mixture.MIDDLE)

    def code(self) -> None:
        """Makes head and body."""
        contexts, symbols, tails = [], [], BitWriter()
        for line, entries in enumerate(self.entries):
            for component in range(len(entries)):
                symbol, width = self.split(line, component, tails)
                contexts.append(mixture.context_of(width, 0, mixture.MIDDLE))
                symbols.append(symbol)
        self.digits.code(contexts, symbols, tails.bytes())
        self.head, self.body = self.digits.head, self.digits.body

    def split(self, line: int, component: int, tails: BitWriter) -> tuple[int, int]:
        """Symbol of an entry, and its width; its tail goes to `tails`."""
        width = self.component_widths[component]
        width += 2 * self.line_widths[line] if self.line_widths else 0
        tail = min(max(math.ceil((width - 11) / 4), 0), 30)
        value = self.entries[line][component]
        moved = value + (2**tail // 2)
        symbol = (moved >> tail) + 129
        if 3 <= symbol <= 255:
            tails.put(moved % 2**tail, tail)
        else:
            symbol = 0
            tails.put(value % 2**32, 32)
        return symbol, width - 4 * tail


class RandomSection:
    """A section that no encoder writes: any numbers in all fields that go together.

    Attributes:
        sizes: Of its tensor.
        section: Its bytes.
        data: What they decode to.
        bound: Of the product of the factors.
    """

    def __init__(
        self,
        generator: random.Random,
        dtype: torch.dtype,
        predicted: bool,
        spare: common.Spare = common.WHOLE,
    ) -> None:
        self.generator, self.predicted, self.spare = generator, predicted, spare
        self.element = ref_frame.DTYPES[str(dtype).removeprefix("torch.")]
        bias = 2 ** (self.element.exponent_bits - 1) - 1 - spare.exponents
        mantissa = self.element.mantissa_bits - spare.bits
        self.form = fixed.Float(1 + self.element.exponent_bits + mantissa, mantissa, bias)
        self.sizes = generator.choice([(20, 24), (9, 30), (7, 11, 5), (3, 17, 2, 4)])
        if not predicted and generator.random() < 0.2:
            self.sizes = generator.choice([(700,), (60, 4), (1, 400)])
        self.flags = 0 if common.Matrix(self.sizes).flat else generator.randrange(8)
        if len(self.sizes) < 3:
            self.flags &= ~fixed.BY_DIMENSION_1
        self.choose_lines()
        rows, columns = map(len, self.live)
        self.side = BitWriter()
        if self.flags & fixed.DEAD_LINES:
            for dead in self.dead:
                self.side.put_flags(dead)
        self.row_weights, self.column_weights = [0] * rows, [0] * columns
        self.bound = 0
        self.top = generator.randrange(self.form.least - self.form.mantissa - 4, bias + 4)
        if predicted:
            self.choose_factors(rows, columns)
        self.choose_scales(rows, columns)
        self.code_elements()

    def choose_lines(self) -> None:
        matrix = common.Matrix(self.sizes)
        rows, columns = matrix.rows, matrix.columns
        if self.flags & fixed.BY_DIMENSION_1:
            rows, columns = self.sizes[1], math.prod(self.sizes) // self.sizes[1]
        self.columns = columns
        self.elements = math.prod(self.sizes)
        self.dead = [[False] * count for count in (rows, columns)]
        if self.flags & fixed.DEAD_LINES:
            share = self.generator.choice([0.1, 0.5])
            self.dead = [
                [i > 0 and self.generator.random() < share for i in range(count)]
                for count in (rows, columns)
            ]
            if self.generator.random() < 0.5:
                self.dead[0] = [not flag for flag in self.dead[0][:1]] + self.dead[0][1:]
                self.dead[0][-1] = False
        self.live = [[i for i, flag in enumerate(dead) if not flag] for dead in self.dead]
        if not matrix.flat:
            self.elements = len(self.live[0]) * len(self.live[1])

    def line(self, count: int, middle: int, spread: int) -> list[int]:
        line = [middle + self.generator.randrange(-spread, spread + 1) for _ in range(count)]
        self.side.put_line(line, self.generator.random() < 0.5)
        return line

    def choose_factors(self, rows: int, columns: int) -> None:
        self.rank = self.generator.randrange(1, min(rows, columns, 4) + 1)
        size = self.generator.choice([1, 4, 12, 22, 26])
        self.u = RandomFactor(self.generator, rows, self.rank, size)
        self.v = RandomFactor(self.generator, columns, self.rank, size)
        middle = self.top - 2 * size + self.generator.randrange(-3, 8)
        self.row_weights = self.line(rows, 5, 3)
        self.column_weights = self.line(columns, -5, 3)
        exponents = [middle + self.generator.randrange(-2, 3) for _ in range(self.rank)]
        if self.generator.random() < 0.2:  # a component that is zero may be as large as it likes
            exponents[-1] += 200
            self.u.entries = [[*line[:-1], 0] for line in self.u.entries]
        self.code_factors()
        self.side.put_line(exponents, True)
        for factor, flag in ((self.u, factors.U_LINE_WIDTHS), (self.v, factors.V_LINE_WIDTHS)):
            self.side.put_line(factor.component_widths, True)
            self.side.put_line(factor.line_widths, False)
            self.flags |= flag if factor.line_widths else 0
        self.base = min(exponents)
        self.gains = [2 ** (exponent - self.base) for exponent in exponents]
        largest = [max(1, *map(abs, column)) for column in zip(*self.v.entries, strict=True)]
        self.bound = max(
            sum(abs(u) * v * g for u, v, g in zip(line, largest, self.gains, strict=True))
            for line in self.u.entries
        )

    def choose_scales(self, rows: int, columns: int) -> None:
        spread = self.generator.choice([2, 8, 40])
        row_scales = self.line(rows, 4 * self.top, spread)
        column_scales = [0] * columns
        if self.flags & fixed.COLUMN_SCALES:
            column_scales = self.line(columns, 3, spread)
            column_scales = [
                s + 4 * w for s, w in zip(column_scales, self.column_weights, strict=True)
            ]
        row_scales = [s + 4 * w for s, w in zip(row_scales, self.row_weights, strict=True)]
        self.scales = row_scales, column_scales

    def prediction(self, row: int, column: int) -> tuple[int, int]:
        """Value and exponent."""
        if not self.predicted:
            return 0, 0
        terms = zip(self.u.entries[row], self.v.entries[column], self.gains, strict=True)
        exponent = self.base + self.row_weights[row] + self.column_weights[column]
        return sum(u * v * gain for u, v, gain in terms), exponent

    def bin_of(self, row: int, column: int) -> fixed.Bin:
        value, exponent = self.prediction(row, column)
        scale = self.scales[0][row] + self.scales[1][column]
        kind = mixture.VARIES if self.predicted else mixture.EDGE
        return fixed.bin_of(value, exponent, scale, kind, self.form)

    def code_elements(self) -> None:
        places = [divmod(i, len(self.live[1])) for i in range(self.elements)]
        bins = [self.bin_of(row, column) for row, column in places]
        contexts = [own.context for own in bins]
        self.digits = RandomDigits(
            self.generator, mixture.VARIES if self.predicted else mixture.EDGE
        )
        symbols = self.digits.choose(contexts)
        tail = RandomTail(self.generator)
        words = [0] * math.prod(self.sizes)
        for (row, column), symbol, own in zip(places, symbols, bins, strict=True):
            index = self.index(self.live[0][row], self.live[1][column])
            words[index] = fixed.lengthen(
                fixed.join(symbol, own, self.form, tail), self.form, spare=self.spare
            )
        self.data = b"".join(word.to_bytes(self.element.width, "little") for word in words)
        self.code_residuals(places, bins, symbols, tail.writer.bytes())

        side = self.side.bytes()
        parts = [self.u, self.v, self] if self.predicted else [self]
        self.section = bytes([self.flags])
        self.section += helpers.varint(self.rank) if self.predicted else b""
        self.section += helpers.varint(len(side)) + side
        self.section += b"".join(part.head for part in parts)
        self.section += b"".join(part.body for part in parts)

    def code_factors(self) -> None:
        """Makes head and body of both factors."""
        self.u.code()
        self.v.code()

    def code_residuals(
        self,
        places: Sequence[tuple[int, int]],
        bins: Sequence[fixed.Bin],
        symbols: Sequence[int],
        tails: bytes,
    ) -> None:
        """Makes head and body."""
        self.digits.code([own.context for own in bins], symbols, tails)
        self.head, self.body = self.digits.head, self.digits.body

    def index(self, row: int, column: int) -> int:
        shape = list(self.sizes)
        if not self.flags & fixed.BY_DIMENSION_1:
            return row * self.columns + column
        shape[0:2] = shape[1], shape[0]
        order = torch.arange(math.prod(self.sizes)).view(self.sizes).transpose(0, 1)
        return int(order.reshape(shape[0], -1)[row, column])
