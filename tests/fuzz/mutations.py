"""Every byte of small frames and archives changed, every cut: refused by name, or the same data.

    python tests/fuzz/mutations.py              over 1,000,000 mutations, some minutes
    python tests/fuzz/mutations.py --most 300   of frames of at most so many bytes

Frames of all methods and types are mutated as they lie, and once more with the header's and the
payload's checksums made right, as nobody but an attacker does: then sections are decoded, and what
the tensor's own 32-bit checksum catches shows how often nothing else does. The table tells which
check refused how many. "Identical" are those that decode to the very bytes; a type, a shape or a
name is a field of the header, for which its checksum alone answers: "header says otherwise" counts
the sealed headers that tell other ones of the same bytes. The exit status is 1 if anything decodes
to other bytes, raises an error that is none of the library's, or the process dies.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import frames
import torch
from archives import archive_of, index_of, small_archives
from frames import Base, Parts, helpers

from lmgc_torch import load_file
from lmgc_torch.archive import ArchiveReader
from lmgc_torch.archive.container import HEAD
from lmgc_torch.errors import CorruptArchiveError, CorruptFrameError, LmgcError

SMALL = 400  # bytes: below, every bit is flipped by itself
STRIDES = {"past": 16}  # every so many bytes, where decoding takes long
STRIDE_OF_SLOW = 64
OUTCOMES = ("header", "payload", "field", "section", "tensor", "index", "other")
OUTCOMES += ("identical", "header says otherwise", "wrong", "unnamed")
TITLES = {
    "header": "header's checksum",
    "payload": "payload's checksum",
    "field": "a field of the header",
    "section": "a section",
    "tensor": "tensor's checksum",
    "index": "archive's index",
    "other": "prior, past, reference",
}
CHECKS = (
    ("header was changed", "header"),
    ("payload was changed", "payload"),
    ("data differ", "tensor"),
    ("contradicts its tensor", "section"),
    ("symbol table", "section"),
    ("coded stream", "section"),
)


def check_of(error: LmgcError) -> str:
    """Returns which check an error is of."""
    if isinstance(error, CorruptArchiveError):
        return "index"
    if not isinstance(error, CorruptFrameError):
        return "other"
    message = str(error)
    for words, check in CHECKS:
        if words in message:
            return check
    return "section" if message.startswith("tensor ") else "field"


# ---- mutations -----------------------------------------------------------------------------------


def flips(data: bytes, stride: int = 1) -> Iterator[tuple[int, bytes]]:
    """Yields the bytes with one changed: each bit, and all; of much, one bit and all."""
    for place in range(0, len(data), stride):
        values = [1 << bit for bit in range(8)] if len(data) <= SMALL else [1 << place % 8]
        for value in (*values, 0xFF):
            yield place, data[:place] + bytes([data[place] ^ value]) + data[place + 1 :]


def sealed(base: Base, stride: int) -> Iterator[bytes]:
    """Yields a frame's mutations behind right checksums: flips, and sections that are cut."""
    header_size = int.from_bytes(base.frame[6:10], "little")
    for place, mutated in flips(base.frame, stride):
        if not header_size - 16 <= place < header_size and not 6 <= place < 10:
            yield helpers.resealed(mutated)
    parts = Parts.of(base.frame)
    for i, record in enumerate(parts.records):
        for size in range(0, len(record.section), stride):
            cut = replace(record, section=record.section[:size])
            yield replace(parts, records=[*parts.records[:i], cut, *parts.records[i + 1 :]]).write()


# ---- what becomes of them ------------------------------------------------------------------------


class Table:
    """Counts outcomes by kind; remembers what must not be.

    Attributes:
        rows: By kind, and whether checksums were made right.
        bad: Mutations that decoded to other data, or raised an error without a name.
    """

    def __init__(self) -> None:
        self.rows: dict[tuple[str, bool], Counter[str]] = {}
        self.bad: list[tuple[str, bytes]] = []

    @property
    def total(self) -> int:
        return sum(row.total() for row in self.rows.values())

    def add(self, kind: str, is_sealed: bool, outcome: str, data: bytes) -> None:
        self.rows.setdefault((kind, is_sealed), Counter())[outcome] += 1
        if outcome in ("wrong", "unnamed"):
            self.bad.append((kind, data))

    def __str__(self) -> str:
        lines = []
        for is_sealed in (False, True):
            rows = {kind: row for (kind, own), row in self.rows.items() if own == is_sealed}
            everything = sum(rows.values(), Counter())
            columns = [name for name in OUTCOMES if everything[name] or name == "wrong"]
            titles = [TITLES.get(name, name) for name in columns]
            first = "with right checksums" if is_sealed else "as they are"
            lines += ["", "| " + " | ".join([first, "mutations", *titles]) + " |"]
            lines.append("|---|" + "---:|" * (len(columns) + 1))
            for kind, row in [*rows.items(), ("all", everything)]:
                counts = [f"{row[name]:,}" for name in columns]
                lines.append("| " + " | ".join([kind, f"{row.total():,}", *counts]) + " |")
        return "\n".join(lines).strip()


def outcome_of_frame(base: Base, mutated: bytes) -> str:
    try:
        tensors = base.decompress(mutated)
    except LmgcError as error:
        return check_of(error)
    except Exception as error:
        # An older torch may lack the type that a header tells now.
        return "field" if "has no element type" in str(error) else "unnamed"
    if b"".join(frames.as_bytes(tensors)) != b"".join(base.data):
        return "wrong"
    return "identical" if told(mutated) == told(base.frame) else "header says otherwise"


def told(frame: bytes) -> object:
    """Types, shapes and metadata."""
    return frames.shapes(frame), Parts.of(frame).metadata


def mutate_frames(bases: Sequence[Base], table: Table) -> None:
    for base in bases:
        stride = STRIDE_OF_SLOW if base.slow else STRIDES.get(base.kind, 1)
        for _, mutated in flips(base.frame):
            table.add(base.kind, False, outcome_of_frame(base, mutated), mutated)
        for size in range(len(base.frame)):
            cut = base.frame[:size]
            table.add(base.kind, False, outcome_of_frame(base, cut), cut)
        for mutated in sealed(base, stride):
            table.add(base.kind, True, outcome_of_frame(base, mutated), mutated)


def outcome_of_archive(path: Path, mutated: bytes, good: dict[str, torch.Tensor]) -> str:
    path.unlink(missing_ok=True)  # what is mapped stays what it was
    path.write_bytes(mutated)
    try:
        tensors = load_file(path)
    except LmgcError as error:
        return check_of(error)
    except Exception:
        return "unnamed"
    same = list(tensors) == list(good)
    same = same and all(helpers.identical(tensors[name], good[name]) for name in good)
    return "identical" if same else "wrong"


def mutate_archives(folder: Path, table: Table) -> None:
    """Archives that need no reference; with right checksums their frames change, not the index.

    Whoever can seal an index can also name tensors otherwise.
    """
    path, whole = folder / "mutated.lmgc", folder / "whole.lmgc"
    for data in small_archives(folder):
        whole.unlink(missing_ok=True)
        whole.write_bytes(data)
        if ArchiveReader.open(whole).needs_reference:
            continue
        good = load_file(whole)
        for mutated in (*(own for _, own in flips(data)), *(data[:n] for n in range(len(data)))):
            table.add("archive", False, outcome_of_archive(path, mutated, good), mutated)
        for mutated in sealed_archives(data):
            table.add("archive", True, outcome_of_archive(path, mutated, good), mutated)


def sealed_archives(data: bytes) -> Iterator[bytes]:
    """Yields archives with a section's byte changed, and its frame and the index sealed."""
    before, index = index_of(data)
    offset = len(HEAD)
    for number, (size, _) in enumerate(index["frames"]):
        frame = before[offset : offset + size]
        header_size = int.from_bytes(frame[6:10], "little")
        for place, mutated in flips(frame):
            if place < header_size:
                continue
            whole = helpers.resealed(mutated)
            rows = [list(row) for row in index["frames"]]
            rows[number][1] = whole[header_size - 8 : header_size][::-1].hex()
            plain = json.dumps({**index, "frames": rows}).encode()
            yield archive_of(before[:offset] + whole + before[offset + size :], plain)
        offset += size


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=1 << 20, help="bytes of a frame")
    parser.add_argument("--found", type=Path, default=Path("build/fuzz"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    table, start = Table(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        mutate_frames(frames.bases(Path(folder), options.most), table)
        mutate_archives(Path(folder), table)
    print(table)
    print(f"\n{table.total:,} mutations in {time.monotonic() - start:.0f} s; {len(table.bad)} bad")
    for number, (kind, data) in enumerate(table.bad[:20]):
        options.found.mkdir(parents=True, exist_ok=True)
        path = options.found / f"mutation-{number}.lmgc"
        path.write_bytes(data)
        print(f"{kind}: {path}")
    return 1 if table.bad else 0


if __name__ == "__main__":
    sys.exit(main())
