"""What the parts of `lmgc_torch.reference` share: bytes, bits, checksums, blocks of symbols."""

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from lmgc_torch.errors import CorruptFrameError

__all__: list[str] = []  # for the reference only

# ---- section 1: conventions ----------------------------------------------------------------------

WORD = 2**64 - 1  # mask of a word


@dataclass(frozen=True)
class ElementType:
    width: int  # bytes
    exponent_bits: int = 0  # 0: not a float
    mantissa_bits: int = 0


class Spare(NamedTuple):
    """What short floats lack of their element type."""

    bits: int = 0  # of the mantissa, at its lower end
    exponents: int = 0


WHOLE = Spare()


def refuse(why: str) -> NoReturn:
    raise CorruptFrameError(why)


def signed(value: int, bits: int) -> int:
    """Returns the number that `value`, of so many bits, is in two's complement."""
    return value - (value >> (bits - 1) << bits)


def checksum(data: bytes) -> int:
    words = struct.iter_unpack("<Q", data + bytes(-len(data) % 8))
    return finish(sum(mix(word, index) for index, (word,) in enumerate(words)), len(data))


def finish(total: int, size: int) -> int:
    x = (total ^ (size * 0xC2B2AE3D27D4EB4F)) & WORD
    x = (x ^ (x >> 32)) * 0xD6E8FEB86659FD93 & WORD
    return x ^ (x >> 32)


def mix(word: int, index: int) -> int:
    x = (word + (index + 1) * 0x9E3779B97F4A7C15) & WORD
    x = (x ^ (x >> 32)) * 0xD6E8FEB86659FD93 & WORD
    return x ^ (x >> 29)


class ByteReader:
    """Fields one after the other; it refuses where the bytes end."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def take(self, count: int) -> bytes:
        if count > self.left():
            refuse("the bytes end too early")
        self.position += count
        return self.data[self.position - count : self.position]

    def unsigned(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    def varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.unsigned(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value if value <= WORD else refuse("a varint has more than 64 bits")
        refuse("a varint has more than ten bytes")

    def text(self) -> str:
        try:
            return self.take(self.varint()).decode("utf-8")
        except UnicodeDecodeError:
            refuse("a text is not UTF-8")

    def left(self) -> int:
        return len(self.data) - self.position


class BitReader:
    """Bits of bytes, the least significant first."""

    def __init__(self, source: ByteReader) -> None:
        self.source, self.held, self.count = source, 0, 0

    def bits(self, count: int) -> int:
        while self.count < count:
            self.held |= self.source.unsigned(1) << self.count
            self.count += 8
        value = self.held & ((1 << count) - 1)
        self.held >>= count
        self.count -= count
        return value

    def end(self) -> None:
        """Refuses unless what is left is less than a byte and zero."""
        if self.source.left() or self.held:
            refuse("bits go on behind the last one that means something")


# ---- section 4: blocks of symbols ----------------------------------------------------------------


class Table:
    """Frequencies of the symbols, in 4096ths."""

    def __init__(self, frequencies: Sequence[int]) -> None:
        self.frequencies = frequencies
        self.slots = [s for s, f in enumerate(frequencies) for _ in range(f)]
        self.starts = [sum(frequencies[:s]) for s in range(len(frequencies))]


def decode_block(
    fields: ByteReader, count: int, words: int, table_of: Callable[[int], Table]
) -> bytes:
    """Decodes `count` symbols; `table_of(i)` is the table of symbol i of the block."""
    lanes = 1
    while lanes < 32 and 2 * lanes * 256 <= count:
        lanes *= 2
    states = [fields.unsigned(4) for _ in range(lanes)]
    if not all(2**15 <= x < 2**31 for x in states):
        refuse("a state is out of its range")
    block = ByteReader(fields.take(2 * words))
    out = bytearray()
    for i in range(count):
        table = table_of(i)
        x = states[i % lanes]
        slot = x % 4096
        symbol = table.slots[slot]
        x = table.frequencies[symbol] * (x // 4096) + slot - table.starts[symbol]
        if x < 2**15:
            x = x * 65536 + block.unsigned(2)
        states[i % lanes] = x
        out.append(symbol)
    if block.left() or any(x != 2**15 for x in states):
        refuse("a block does not end where it should")
    return bytes(out)


# ---- section 6: matrices and lines of integers ---------------------------------------------------


class Matrix:
    """A tensor's shape as a matrix (docs/format.md, section 6.1)."""

    def __init__(self, sizes: Sequence[int]) -> None:
        elements = math.prod(sizes)
        rest = elements // sizes[0] if sizes else 1
        self.flat = len(sizes) < 2 or sizes[0] < 2 or rest < 16
        self.columns = 256 if self.flat else rest
        self.rows = -(-elements // 256) if self.flat else sizes[0]
        self.taps = 1 if self.flat else rest // sizes[1]


class AdaptiveRice:
    """The code of one integer after the other (docs/format.md, section 6.3)."""

    def __init__(self) -> None:
        self.total, self.seen = 4, 1

    def parameter(self) -> int:
        k = 0
        while self.seen << k < self.total and k < 15:
            k += 1
        return k

    def update(self, value: int) -> None:
        self.total, self.seen = self.total + value, self.seen + 1
        if self.seen == 64:
            self.total, self.seen = self.total // 2, 32

    def read(self, bits: BitReader) -> int:
        k = self.parameter()
        ones = 0
        while ones < 24 and bits.bits(1):
            ones += 1
        value = (ones << k) + bits.bits(k) if ones < 24 else bits.bits(17)
        self.update(value)
        return -(value + 1) // 2 if value % 2 else value // 2


def read_line(bits: BitReader, count: int) -> list[int]:
    if count == 0:
        return []
    smooth = bits.bits(1)
    predicted = signed(bits.bits(16), 16)
    code = AdaptiveRice()
    line = []
    for _ in range(count):
        value = predicted + code.read(bits)
        if not -(2**15) <= value < 2**15:
            refuse("an integer of a line is out of its range")
        line.append(value)
        if smooth:
            predicted = value
    return line
