"""Method `lmgc` of `lmgc_torch.reference`: docs/format.md, section 7."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from lmgc_torch.reference_common import (
    WORD,
    BitReader,
    ByteReader,
    ElementType,
    Matrix,
    read_line,
    refuse,
)
from lmgc_torch.reference_frame import ISO_8859_1, SEPARATORS, PriorBlock, Record
from lmgc_torch.reference_prior import LanguageModel, neighbours

__all__: list[str] = []  # for the reference only

LM, RAW, CONSTANT = range(3)


class LmgcSection:
    """Reads everything but lanes and tails when it is made; `decode` reads those."""

    def __init__(self, section: bytes, record: Record, block: PriorBlock, prior: Any) -> None:
        self.block = block
        is_float = record.element.exponent_bits > 0
        self.element = record.element if is_float else ElementType(1)
        self.elements = record.elements * record.element.width // self.element.width
        self.matrix = Matrix(record.sizes)
        self.bits = 8 if block.separator == ISO_8859_1 else 4
        self.symbols = 8 * self.element.width // self.bits

        fields = self.fields = ByteReader(section)
        flags = fields.unsigned(1)
        if flags > (3 if is_float else 0):
            refuse("flags that are unknown, or for floats only")
        modes = BitReader(ByteReader(fields.take(-(-self.symbols // 4))))
        self.modes = [modes.bits(2) for _ in range(self.symbols)]
        if LM not in self.modes or any(mode > CONSTANT for mode in self.modes):
            refuse("the modes of the symbols are impossible")
        self.constant_word = 0
        for symbol in self.symbols_of(CONSTANT):
            value = fields.unsigned(1)
            if value >> self.bits:
                refuse("a constant is too large for its symbol")
            self.constant_word |= value << self.shift(symbol)
        self.zero_frequency = fields.unsigned(2) if flags & 1 else 0
        if flags & 1 and self.zero_frequency == 0:
            refuse("zeros are announced, but impossible")
        lane_elements = fields.varint()
        if not 1 <= lane_elements <= 2**16:
            refuse("the lanes' length is out of its range")
        self.row_scales: list[int] = []
        self.column_scales: list[int] = []
        if flags & 2:
            self.row_scales, self.column_scales = read_scales(
                self.matrix, fields.take(fields.varint())
            )
        lanes = -(-self.elements // lane_elements)
        if lanes > fields.left():
            refuse("the bytes end too early")
        firsts = [lane * lane_elements for lane in range(lanes)]
        self.lanes = [(first, min(self.elements, first + lane_elements)) for first in firsts]
        self.lane_sizes = [fields.varint() for _ in range(lanes)]
        coded = len(self.symbols_of(LM))
        for (first, end), size in zip(self.lanes, self.lane_sizes, strict=True):
            if (end - first) * coded > (size + 4) * 8 * 3029:
                refuse("a lane is too short for its symbols")
        self.pattern, self.period = self.token_pattern()
        periods = min(max(prior.max_context // len(self.pattern), 1), 65536)
        self.window = self.period * periods  # elements
        self.overlap = self.period * (periods // 2) if block.sliding else 0
        self.model = LanguageModel(prior, self.bits, SEPARATORS[block.separator])

    def symbols_of(self, mode: int) -> list[int]:
        return [symbol for symbol in range(self.symbols) if self.modes[symbol] == mode]

    def shift(self, symbol: int) -> int:
        per_byte = 8 // self.bits
        byte = symbol // per_byte
        if not self.block.little:
            byte = self.element.width - 1 - byte
        return 8 * byte + 8 - self.bits * (symbol % per_byte + 1)

    def token_pattern(self) -> tuple[list[tuple[int, int]], int]:
        """Returns tokens as (element in the period, symbol or -1), and the elements of a period."""
        separator, group = self.block.separator, self.block.bytes_per_group
        separated = 1 <= separator <= 5 and group > 0
        width, per_byte = self.element.width, 8 // self.bits
        period_bytes = math.lcm(width, group) if separated else width
        tokens = []
        for byte in range(period_bytes):
            if separated and separator == 5 and byte % group == 0:
                tokens.append((byte // width, -1))
            first = byte % width * per_byte
            for symbol in range(first, first + per_byte):
                if self.modes[symbol] == LM:
                    tokens.append((byte // width, symbol))
            if separated and separator != 5 and byte % group == group - 1:
                tokens.append((byte // width, -1))
        return tokens, period_bytes // width

    def decode(self) -> bytes:
        self.words = [0] * self.elements
        self.elided = [False] * self.elements
        for (first, end), size in zip(self.lanes, self.lane_sizes, strict=True):
            self.decode_lane(first, end, RangeDecoder(self.fields.take(size)))
        for first, end in self.lanes:
            self.decode_tail(first, end)
        if self.fields.left():
            refuse("the section goes on behind its last tail")
        return b"".join(word.to_bytes(self.element.width, "little") for word in self.words)

    def decode_lane(self, first: int, end: int, coder: "RangeDecoder") -> None:
        beside_sign = 2 ** (8 * self.element.width - (self.element.exponent_bits > 0)) - 1
        fresh = {first, *range(first + self.window, end, self.window - self.overlap)}
        for index in range(first, end):
            if index in fresh:
                self.model.start_window()
                for known in range(max(first, index - self.overlap), index):
                    self.recall(known, first)
            word = 0
            for symbol in self.ask(index, first):
                value = coder.decode(self.model.frequencies())
                self.model.see(value)
                word |= value << self.shift(symbol)
            if self.zero_frequency and word & beside_sign == 0:
                zero = self.zero_frequency
                self.elided[index] = coder.decode([zero, 65536 - zero]) == 0
            self.words[index] = word if self.elided[index] else word | self.constant_word

    def recall(self, index: int, first: int) -> None:
        """Tells the model of an element that is known."""
        for symbol in self.ask(index, first):
            self.model.see(self.words[index] >> self.shift(symbol) & (2**self.bits - 1))

    def ask(self, index: int, first: int) -> Iterator[int]:
        """Yields an element's symbols, each when the model has been asked for it."""
        features = self.features(index, first)
        for element, symbol in self.pattern:
            if element != (index - first) % self.period:
                continue
            digit = self.symbols - 1 - self.shift(symbol) // self.bits if symbol >= 0 else -1
            self.model.predict({**features, "digit": digit})
            if symbol < 0:
                self.model.see_separator()
            else:
                yield symbol

    def decode_tail(self, first: int, end: int) -> None:
        stored = [index for index in range(first, end) if not self.elided[index]]
        raw_symbols = self.symbols_of(RAW)
        bits = len(stored) * len(raw_symbols) * self.bits
        tail = int.from_bytes(self.fields.take(-(-bits // 8)), "big") >> -bits % 8
        for index in stored:
            for symbol in raw_symbols:
                bits -= self.bits
                self.words[index] |= (tail >> bits) % 2**self.bits << self.shift(symbol)

    # ---- docs/prior.md: what the model is told of an element -------------------------------------

    def features(self, index: int, lane_first: int) -> dict[str, int]:
        reference = self.reference(index)
        features = {
            "exponent_bits": self.element.exponent_bits,
            "mantissa_bits": self.element.mantissa_bits,
            "reference": reference,
            "taps": min(self.matrix.taps, 16),
            "flat": int(self.matrix.flat),
        }
        for name, back in neighbours(self.matrix).items():
            level = value = 0
            if self.element.exponent_bits and back > 0 and index - back >= lane_first:
                level, value = self.neighbour(self.words[index - back], reference)
            features[name + ".level"], features[name + ".value"] = level, value
        return features

    def neighbour(self, word: int, reference: int) -> tuple[int, int]:
        """Returns level and value; raw bits are still 0 in all words."""
        sign_bit = 8 * self.element.width - 1
        magnitude = word % 2**sign_bit
        if magnitude == 0:
            return -64, 0
        level = (magnitude >> (self.element.mantissa_bits - 3)) - reference
        level = min(max(level, -63), 63)
        value = min(math.floor((8 + level % 8) * 2.0 ** (level // 8)), 127)
        return level, -value if word >> sign_bit else value

    def reference(self, index: int) -> int:
        if not self.row_scales:
            return 0
        row, column = divmod(index, self.matrix.columns)
        scale = self.row_scales[row] + (self.column_scales[column] if self.column_scales else 0)
        return min(max(2 * scale, 0), (8 << self.element.exponent_bits) - 1)


def read_scales(matrix: Matrix, data: bytes) -> tuple[list[int], list[int]]:
    """docs/format.md, section 7.3."""
    bits = BitReader(ByteReader(data))
    columns = 0 if matrix.flat or matrix.rows < 16 else matrix.columns
    if matrix.rows + columns > 8 * len(data):
        refuse("more scales than bits")
    lines = read_line(bits, matrix.rows), read_line(bits, columns)
    bits.end()
    return lines


class RangeDecoder:
    """One lane (docs/format.md, section 7.6)."""

    def __init__(self, lane: bytes) -> None:
        self.lane, self.position = lane, 8
        self.code = int.from_bytes((lane + bytes(8))[:8], "big")
        self.range = WORD

    def decode(self, frequencies: Sequence[int]) -> int:
        part = self.range // 65536
        target = min(self.code // part, 65535)
        symbol = start = 0
        while start + frequencies[symbol] <= target:
            start += frequencies[symbol]
            symbol += 1
        self.code -= part * start
        self.range = part * frequencies[symbol]
        if self.range < 2**48:
            step = (self.lane[self.position : self.position + 2] + bytes(2))[:2]
            self.position += 2
            self.code = (self.code * 65536 + int.from_bytes(step, "big")) & WORD
            self.range *= 65536
        return symbol
