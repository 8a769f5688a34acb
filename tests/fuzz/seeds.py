"""Writes the inputs that fuzzing starts from: what the golden frames are made of.

    python tests/fuzz/seeds.py build/fuzz/corpus

makes a folder for each target in which every file is one input, in the layout that the target
states.
"""

import math
import struct
import sys
from dataclasses import replace
from pathlib import Path

from lmgc_torch.reference_common import WHOLE
from lmgc_torch.reference_frame import DTYPE_OF_CODE, DTYPES, Record, read_header

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
CODES = {name: code for code, name in DTYPE_OF_CODE.items()}
MOST_BYTES = 8192  # of an input: fuzzing larger ones is slow
FLOATS = 4  # the first codes
COLUMN_SCALES, REFERENCE, SECTION = 4, 8, 128
TARGETS = ("frame", "planes", "fixed", "lm", "round_trip")


def element_format(record: Record) -> bytes:
    return struct.pack("<BBH", CODES[record.dtype], record.spare.bits, record.spare.exponents)


def shape(record: Record) -> bytes | None:
    """The sizes; None where a target does not take such."""
    sizes = record.sizes
    if not 1 <= len(sizes) <= 4 or max(sizes) >= 1 << 16:
        return None
    return struct.pack(f"<B{len(sizes)}H", len(sizes) - 1, *sizes)


def factors(shift: int, *exponents: int) -> bytes:
    """What `take_low_rank` reads: entries of so many bits and seven more."""
    return struct.pack(f"<BI{len(exponents)}b", shift, 0x1234567, *exponents)


def tensor(record: Record, flags: int, rank: int = 0, low_rank: bytes = b"") -> bytes | None:
    """What `take_tensor` reads; None where a target does not take such."""
    sizes = shape(record)
    if sizes is None or CODES[record.dtype] >= FLOATS:
        return None
    return element_format(record) + sizes + struct.pack("<BB", rank, flags) + low_rank


def round_trips(record: Record, data: bytes) -> dict[str, list[bytes]]:
    whole = replace(record, spare=WHOLE)
    alone = tensor(whole, COLUMN_SCALES)
    both = tensor(whole, COLUMN_SCALES | REFERENCE, 2, factors(3, -9, -8))
    wide = tensor(whole, COLUMN_SCALES, 1, factors(23, -60))
    if alone is None or both is None or wide is None:
        return {}
    factor, lanes = struct.pack("<I", 1 << 16), struct.pack("<B", 50)
    changed = struct.pack("<HBHBHB", 3, 1, 20, 0x80, 60, 0)
    few = data[:400]  # a prior is slow
    found = {"round_trip": [alone + bytes(4) + data, both + factor + data]}
    if record.method == "lm":
        found["lm"] = [alone + lanes + bytes(9) + few, both + lanes + changed + few]
        found["lm"].append(wide + lanes + bytes(9) + few[:60])
    return found


def inputs(frame: bytes, raw: bytes) -> dict[str, list[bytes]]:
    """The inputs that a frame and its tensors give, by target."""
    header = read_header(frame)
    head = struct.pack("<I", len(frame) - header.size) + frame[: header.size]
    found: dict[str, list[bytes]] = {target: [] for target in TARGETS}
    found["frame"].append(head)
    starts = [0]  # of all tensors, in order
    for dtype, shape_of in header.shapes:
        starts.append(starts[-1] + math.prod(shape_of) * DTYPES[dtype].width)
    offset = header.size
    for record, places in zip(header.records, header.places, strict=True):
        section = frame[offset : offset + record.section_size]
        offset += record.section_size
        size = record.elements * record.element.width
        sizes = shape(record)
        if record.method == "planes":
            plain = struct.pack("<BH", CODES[record.dtype], record.elements % (1 << 16))
            found["planes"].append(plain + section)
        elif record.method in ("scale", "lowrank") and sizes is not None:
            predicted, past = record.method == "lowrank", header.past is not None
            by_dimension_1 = past and section[0] & 1  # of the past factors, too
            flags = struct.pack("<BB", predicted + 2 * past + 4 * by_dimension_1, 0x3B)
            found["fixed"].append(element_format(record) + sizes + flags + section)
        elif record.method == "lm" and (told := tensor(record, SECTION)) is not None:
            found["lm"].append(told + bytes(10) + section)
        if not record.joined:
            start = starts[places[0]]
            for target, own in round_trips(record, raw[start : start + size]).items():
                found[target] += own
    return found


def main(folder: Path) -> None:
    for path in sorted(GOLDEN.glob("*.lmgc")):
        found = inputs(path.read_bytes(), path.with_suffix(".raw").read_bytes())
        for target, seeds in found.items():
            (folder / target).mkdir(parents=True, exist_ok=True)
            for number, seed in enumerate(seeds):
                if len(seed) <= MOST_BYTES:
                    (folder / target / f"{path.stem}_{number}").write_bytes(seed)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
