"""Writes the inputs that fuzzing starts from: what the golden frames are made of.

    python tests/fuzz/seeds.py build/fuzz/corpus

makes a folder for each target in which every file is one input, in the layout that the target
states.
"""

import struct
import sys
from pathlib import Path

from lmgc_torch.reference_frame import DTYPE_OF_CODE, Record, read_header

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
CODES = {name: code for code, name in DTYPE_OF_CODE.items()}
MOST_BYTES = 8192  # of an input: fuzzing larger ones is slow
FLOATS = 4  # the first codes
REFERENCE, COLUMN_SCALES = 8, 4


def element_format(record: Record) -> bytes:
    return struct.pack("<BBH", CODES[record.dtype], record.spare.bits, record.spare.exponents)


def shape(record: Record) -> bytes | None:
    """The sizes; None where a target does not take such."""
    sizes = record.sizes
    if not 1 <= len(sizes) <= 4 or max(sizes) >= 1 << 16:
        return None
    return struct.pack(f"<B{len(sizes)}H", len(sizes) - 1, *sizes)


def round_trips(record: Record, data: bytes) -> list[bytes]:
    sizes = shape(record)
    if sizes is None or CODES[record.dtype] >= FLOATS:
        return []
    plain = element_format(record)[:1] + bytes(3)
    low_rank = struct.pack("<BI3b", 2, 0x1234567, -9, -8, -7)
    alone = struct.pack("<BBI", 0, COLUMN_SCALES, 0)
    both = struct.pack("<BBI", 3, COLUMN_SCALES | REFERENCE, 1 << 16)
    return [plain + sizes + alone + data, plain + sizes + both + low_rank + data]


def inputs(frame: bytes, raw: bytes) -> dict[str, list[bytes]]:
    """The inputs that a frame and its tensors give, by target."""
    header = read_header(frame)
    head = struct.pack("<I", len(frame) - header.size) + frame[: header.size]
    found: dict[str, list[bytes]] = {"frame": [head], "planes": [], "fixed": [], "round_trip": []}
    offset, start = header.size, 0
    for record in header.tensors:
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
        found["round_trip"] += round_trips(record, raw[start : start + size])
        start += size
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
