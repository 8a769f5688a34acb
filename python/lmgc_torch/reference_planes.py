"""Coded streams and method `planes` in `lmgc_torch.reference`: docs/format.md, sections 4 and 5."""

from lmgc_torch.reference_common import (
    BitReader,
    ByteReader,
    Table,
    decode_block,
    refuse,
)
from lmgc_torch.reference_frame import Record

__all__: list[str] = []  # for the reference only


class CodedStream:
    """Reads its head when it is made; `decode` reads the body."""

    def __init__(self, fields: ByteReader, symbols: int) -> None:
        self.symbols = symbols
        self.kind = fields.unsigned(1)
        if self.kind == 1:
            self.constant = fields.unsigned(1)
        elif self.kind == 2:
            parameters = fields.unsigned(1)
            self.segment_bits = (parameters >> 4) + 5
            if self.segment_bits > 16:
                refuse("segments are too long")
            bits = BitReader(fields)
            self.tables = [read_table(bits) for _ in range((parameters & 15) + 1)]
            self.block_words = [fields.varint() for _ in range(0, symbols, 65536)]
            if any(words > 65536 for words in self.block_words):
                refuse("a block has more words than symbols")
        elif self.kind > 2:
            refuse("unknown kind of stream")

    def decode(self, fields: ByteReader) -> bytes:
        if self.kind == 0:
            return fields.take(self.symbols)
        if self.kind == 1:
            return bytes([self.constant]) * self.symbols
        names = self.read_names(fields)
        tables = [Table(frequencies) for frequencies in self.tables]
        out = bytearray()
        for words in self.block_words:
            first = len(out)
            count = min(65536, self.symbols - first)

            def table_of(i: int, first: int = first) -> Table:
                return tables[names[(first + i) >> self.segment_bits]]

            out += decode_block(fields, count, words, table_of)
        return bytes(out)

    def read_names(self, fields: ByteReader) -> list[int]:
        """Returns the table of each segment."""
        segments = -(-self.symbols >> self.segment_bits)
        tables = len(self.tables)
        if tables == 1:
            return [0] * segments
        width = 1 if tables == 2 else 2 if tables <= 4 else 4
        bits = BitReader(ByteReader(fields.take(-(-segments // (8 // width)))))
        names = [bits.bits(width) for _ in range(segments)]
        if any(name >= tables for name in names):
            refuse("a segment names a table that is not there")
        return names


def read_table(bits: BitReader) -> list[int]:
    """Returns the 256 frequencies."""
    first, last, rest = bits.bits(8), bits.bits(8), bits.bits(8)
    if not first <= rest <= last:
        refuse("a table's range does not hold its rest")
    frequency = [0] * 256
    exponent = 0
    for symbol in range(first, last + 1):
        if symbol == rest:
            continue
        extra = 0
        while bits.bits(1) == 0:
            extra += 1
            if extra > 4:
                refuse("a step is too long")
        gamma = 1 << extra | bits.bits(extra)
        exponent += gamma // 2 if gamma % 2 else -(gamma // 2)
        if not 0 <= exponent <= 12:
            refuse("a frequency is out of its range")
        if exponent > 0:
            digits = min(exponent, 5) - 1
            frequency[symbol] = (1 << digits | bits.bits(digits)) << (exponent - 1 - digits)
    frequency[rest] = 4096 - sum(frequency)
    return frequency if frequency[rest] > 0 else refuse("a table's frequencies exceed 4096")


def decode_planes(section: bytes, record: Record) -> bytes:
    fields = ByteReader(section)
    width = record.element.width
    flags = fields.unsigned(1)
    if flags > 1:
        refuse("unknown flags")
    kept = fields.varint() if flags else record.elements
    if kept > record.elements:
        refuse("more elements are kept than there are")
    mask_stream = CodedStream(fields, -(-record.elements // 8)) if flags else None
    plane_streams = [CodedStream(fields, kept) for _ in range(width)]
    mask = mask_stream.decode(fields) if mask_stream else b"\xff" * -(-record.elements // 8)
    planes = [stream.decode(fields) for stream in plane_streams]
    if fields.left():
        refuse("the section goes on behind its last body")

    is_kept = [mask[i // 8] >> i % 8 & 1 for i in range(record.elements)]
    if sum(is_kept) != kept:
        refuse("the mask keeps another number of elements")
    kept_words = iter(zip(*planes, strict=True))
    out = bytearray()
    for i in range(record.elements):
        word = int.from_bytes(bytes(next(kept_words)), "little") if is_kept[i] else 0
        if record.element.exponent_bits:
            word = word >> 1 | (word & 1) << (8 * width - 1)
        out += word.to_bytes(width, "little")
    return bytes(out)
