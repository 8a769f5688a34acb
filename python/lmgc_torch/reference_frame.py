"""Frames in `lmgc_torch.reference`: header and records, docs/format.md, section 2."""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from lmgc_torch.reference_common import (
    WHOLE,
    ByteReader,
    ElementType,
    Spare,
    checksum,
    refuse,
)

__all__: list[str] = []  # for the reference only

DTYPES = {
    "float16": ElementType(2, 5, 10),
    "bfloat16": ElementType(2, 8, 7),
    "float32": ElementType(4, 8, 23),
    "float64": ElementType(8, 11, 52),
}
DTYPES |= {name: ElementType(1) for name in ("uint8", "int8", "bool")}
DTYPES |= {name: ElementType(2) for name in ("int16", "uint16")}
DTYPES |= {name: ElementType(4) for name in ("int32", "uint32", "complex32")}
DTYPES |= {name: ElementType(8) for name in ("int64", "uint64", "complex64")}
DTYPES |= {"complex128": ElementType(16)}
FLOAT8 = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")
DTYPES |= {name: ElementType(1) for name in FLOAT8}
NOT_IN_NUMPY = ("bfloat16", "complex32", *FLOAT8)
DTYPE_OF_CODE = dict(enumerate(("float16", "bfloat16", "float32", "float64")))
DTYPE_OF_CODE |= enumerate(("uint8", "int8", "int16", "int32", "int64", "bool"), 16)
DTYPE_OF_CODE |= enumerate(
    ("complex32", "complex64", "complex128", "uint16", "uint32", "uint64"), 22
)
DTYPE_OF_CODE |= enumerate(FLOAT8, 32)
METHODS = ("raw", "planes", "lmgc", "scale", "lowrank", "lm")
FIXED = ("scale", "lowrank")
LEARNED = ("lmgc", "lm")  # with a prior
SHORT_FLOATS = 128  # added to a method's code
JOINED = 64  # likewise
SEPARATORS = ("", " ", ",", ", ", ";", "0x", "")  # as they are written
ISO_8859_1 = 6


@dataclass(frozen=True)
class PriorBlock:
    separator: int
    bytes_per_group: int
    little: bool
    portable: bool
    sliding: bool
    window_tokens: int
    fingerprint: tuple[int, int]
    probe: int


@dataclass(frozen=True)
class Joined:
    """One of several tensors that a record has."""

    place: int
    sizes: tuple[int, ...]
    data_checksum: int


@dataclass(frozen=True)
class Record:
    dtype: str
    method: str
    sizes: tuple[int, ...]
    data_checksum: int  # of no use where tensors are joined
    section_size: int
    spare: Spare = WHOLE
    joined: tuple[Joined, ...] = ()

    @property
    def element(self) -> ElementType:
        return DTYPES[self.dtype]

    @property
    def elements(self) -> int:
        return math.prod(self.sizes)

    @property
    def tensors(self) -> "Sequence[Joined | Record]":
        """What has sizes and a checksum: its joined tensors, or itself."""
        return self.joined or (self,)

    def split(self, data: bytes) -> list[bytes]:
        """The bytes of each of its tensors, of what its section decodes to."""
        parts = []
        for one in self.tensors:
            size = self.element.width * math.prod(one.sizes)
            parts.append(data[:size])
            data = data[size:]
        return parts


@dataclass(frozen=True)
class Header:
    size: int
    prior: PriorBlock | None
    past: int | None
    records: list[Record]
    places: list[tuple[int, ...]]  # of each record's tensors, in the list of all
    payload_checksum: int
    identity: int

    @property
    def shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        """Types and sizes of all tensors, in order."""
        found = {
            place: (record.dtype, one.sizes)
            for record, places in zip(self.records, self.places, strict=True)
            for place, one in zip(places, record.tensors, strict=True)
        }
        return [found[place] for place in range(len(found))]


def read_header(frame: bytes) -> Header:
    if frame[:4] != b"LMGC":
        refuse("these bytes are not an lmgc frame")
    if len(frame) < 26:
        refuse("the bytes end too early")
    version, flags, size = struct.unpack_from("<BBI", frame, 4)
    if version not in (1, 2, 3, 4):
        refuse(f"the frame has format version {version}")
    if not 26 <= size <= len(frame):
        refuse("the bytes end too early")
    payload_checksum, header_checksum = struct.unpack_from("<QQ", frame, size - 16)
    if checksum(frame[: size - 8]) != header_checksum:
        refuse("the header was changed (checksum)")

    fields = ByteReader(frame[10 : size - 16])
    fields.text()  # metadata
    if flags > (3 if version >= 3 else 1):
        refuse("unknown flags")
    prior = read_prior_block(fields, version) if flags & 1 else None
    past = fields.unsigned(8) if flags & 2 else None
    count = fields.varint()
    if count > fields.left():
        refuse("more tensors than bytes")
    records = [read_record(fields, version) for _ in range(count)]
    if fields.left():
        refuse("the header goes on behind its last record")
    if any(record.method == "lm" for record in records):
        if version < 2:
            refuse("method lm is younger than the frame's version")
        if prior and (prior.separator or prior.bytes_per_group or prior.little or prior.sliding):
            refuse("the prior block does not suit method lm")
    if (prior is not None) != any(record.method in LEARNED for record in records):
        refuse("a prior block stands where a tensor needs it, and nowhere else")
    if size + sum(record.section_size for record in records) != len(frame):
        refuse("the sections do not end with the frame")
    return Header(size, prior, past, records, places_of(records), payload_checksum, header_checksum)


def places_of(records: list[Record]) -> list[tuple[int, ...]]:
    taken = [one.place for record in records for one in record.joined]
    count = len(taken) + sum(not record.joined for record in records)
    if len(set(taken)) != len(taken) or max(taken, default=0) >= max(count, 1):
        refuse("joined tensors have no places of their own in the list")
    free = iter(sorted({*range(count)} - {*taken}))
    return [
        tuple(one.place for one in record.joined) if record.joined else (next(free),)
        for record in records
    ]


def read_prior_block(fields: ByteReader, version: int) -> PriorBlock:
    separator, group, order, portable = (fields.unsigned(1) for _ in range(4))
    window = fields.unsigned(1) if version >= 2 else 0
    window_tokens = fields.varint()
    fingerprint = (fields.unsigned(8), fields.unsigned(8))
    probe = fields.unsigned(8)
    batch_lanes, environment = fields.varint(), fields.text()
    if (
        separator > ISO_8859_1
        or group not in (0, 1, 2, 3, 4, 8)
        or max(order, portable, window) > 1
    ):
        refuse("the prior block has an unknown code")
    if window_tokens == 0 or bool(portable) != (batch_lanes == 0) or (portable and environment):
        refuse("the prior block contradicts itself")
    return PriorBlock(
        separator,
        group,
        order == 1,
        portable == 1,
        window == 1,
        window_tokens,
        fingerprint,
        probe,
    )


def read_sizes(fields: ByteReader, width: int) -> tuple[int, ...]:
    dimensions = fields.varint()
    if dimensions > 64:
        refuse("too many dimensions")
    sizes = tuple(fields.varint() for _ in range(dimensions))
    if width * math.prod(size for size in sizes if size) >= 2**63:
        refuse("the sizes are too large")
    return sizes


def read_record(fields: ByteReader, version: int) -> Record:
    dtype, method = fields.unsigned(1), fields.unsigned(1)
    spare = WHOLE
    short = version >= 3 and method >= SHORT_FLOATS
    if short:
        method -= SHORT_FLOATS
        spare = Spare(fields.unsigned(1), fields.varint())
    is_joined = version >= 4 and bool(method & JOINED)
    if is_joined:
        method -= JOINED
    if dtype not in DTYPE_OF_CODE or method >= len(METHODS):
        refuse("unknown element type or method")
    name = DTYPE_OF_CODE[dtype]
    width = DTYPES[name].width
    joined: list[Joined] = []
    if is_joined:
        count = fields.varint()
        if not 2 <= count <= fields.left():
            refuse("an impossible number of joined tensors")
        place = 0
        for _ in range(count):
            place += fields.varint()
            joined.append(Joined(place, read_sizes(fields, width), fields.unsigned(4)))
            place += 1
            if not math.prod(joined[-1].sizes):
                refuse("an empty tensor is joined")
        sizes: tuple[int, ...] = (sum(math.prod(one.sizes) for one in joined),)
        if width * sizes[0] >= 2**63:
            refuse("the sizes are too large")
        data_checksum = 0
    else:
        sizes, data_checksum = read_sizes(fields, width), fields.unsigned(4)
    record = Record(
        name, METHODS[method], sizes, data_checksum, fields.varint(), spare, tuple(joined)
    )
    raw_size = record.elements * record.element.width
    if record.section_size > raw_size or (method == 0 and record.section_size != raw_size):
        refuse("a section does not fit its tensor")
    if record.method in (*FIXED, "lm") and record.element.exponent_bits == 0:
        refuse("a method for floats codes another type")
    if short:
        if record.method not in (*FIXED, "lm"):
            refuse("this method has no short floats")
        if not 1 <= spare.bits <= record.element.mantissa_bits - 3:
            refuse("the number of spare bits is impossible")
        if spare.exponents > 2**record.element.exponent_bits - 3:
            refuse("the number of spare exponents is impossible")
    if raw_size == 0 and method != 0:
        refuse("an empty tensor is not of method raw")
    return record
