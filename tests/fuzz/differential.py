"""Fuzzing of the operators against the second decoder: changed frames mean the same to both.

    python tests/fuzz/differential.py --seconds 60 [--seed 1] [--found build/fuzz]

Frames of all kinds are changed in their parts (section, sizes, type, method, prior block) or in the
bytes of their header, and put together with right checksums. Whatever the second decoder makes of a
tensor is stated as its checksum. Then either both decoders refuse a frame by a named error, the
operators by another than that checksum, or both give the same types, shapes and bytes. The second
decoder is slow, so frames are small, and those that come to announce many elements are left out. A
frame that they read differently is written to the folder `--found`.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import frames
import torch
from frames import Base, Parts, helpers
from mutators import changed

from lmgc_torch.errors import LmgcError
from lmgc_torch.reference_frame import DTYPE_OF_CODE, METHODS, read_header

MOST_BYTES = 6200  # of a frame to change
MOST_ELEMENTS = 8000  # of a frame that is decoded


class DisagreementError(Exception):
    """The decoders differ, or one of them raised what it may not."""


# ---- one frame -----------------------------------------------------------------------------------


def verdict(base: Base, frame: bytes) -> str:
    """Decodes a frame by both; returns what both make of it.

    Raises:
        DisagreementError: They make different things of it.
    """
    data: dict[int, bytes] = {}  # as far as it comes
    refused = None
    try:
        if frames.announced(frame) > MOST_ELEMENTS:
            return "left out"
        parts = Parts.of(frame)
        parts.metadata = Parts.of(base.frame).metadata  # the second decoder passes it by
        frame = parts.write()
        data.update(base.read(frame))
    except LmgcError as error:
        refused = error
    else:
        assert len(data) == len(read_header(frame).shapes)
    if data:
        header = read_header(frame)
        for record, places in zip(parts.records, header.places, strict=True):
            for one, place in zip(record.joined or (record,), places, strict=True):
                if place in data:
                    one.data_checksum = helpers.checksum(data[place])
        frame = parts.write()
    try:
        tensors = base.decompress(frame)
    except LmgcError as error:
        if refused is None:
            raise DisagreementError(f"only the operators refuse: {error}") from error
        if "data differ" in str(error):  # nor do they read what the other one refuses
            raise DisagreementError(f"the operators decode what is refused: {refused}") from error
        return f"refused: {type(refused).__name__}"
    if refused is not None:
        raise DisagreementError(f"only the second decoder refuses: {refused}")
    told = [(getattr(torch, dtype), sizes) for dtype, sizes in read_header(frame).shapes]
    if [(tensor.dtype, tuple(tensor.shape)) for tensor in tensors] != told:
        raise DisagreementError("types or shapes differ")
    if frames.as_bytes(tensors) != [data[place] for place in range(len(data))]:
        raise DisagreementError("bytes differ")
    return "read"


# ---- changes -------------------------------------------------------------------------------------


def changed_frame(base: Base, others: list[bytes], generator: random.Random) -> bytes:
    """Returns the frame with one part changed, most often a section."""
    parts = Parts.of(base.frame)
    kind = generator.random()
    if kind < 0.12:
        header_size = int.from_bytes(base.frame[6:10], "little")
        header = changed(base.frame[10 : header_size - 16], others, generator)
        size = (len(header) + 26).to_bytes(4, "little")
        frame = base.frame[:6] + size + header + bytes(16) + base.frame[header_size:]
        return helpers.resealed(frame)
    place = generator.randrange(len(parts.records))
    record = parts.records[place]
    if kind < 0.75:
        record = replace(record, section=changed(record.section, others, generator))
    elif kind < 0.85 and record.joined:
        record = replace(record, joined=changed_tensors(list(record.joined), generator))
    elif kind < 0.85:
        record = replace(record, sizes=changed_sizes(list(record.sizes), generator))
    elif kind < 0.89:
        record = replace(record, dtype=generator.choice([*range(4), *DTYPE_OF_CODE]))
    elif kind < 0.92:
        record = replace(record, method=generator.randrange(len(METHODS)))
    elif kind < 0.95:
        spare = generator.randrange(1, 24), generator.choice([0, 1, 20, 200])
        record = replace(record, spare=generator.choice([None, spare]))
        parts.version = 3
    elif kind < 0.97:
        parts.version = generator.randrange(1, 5)
    else:
        parts.prior = changed(parts.prior, others, generator) if parts.prior else b""
        parts.past = generator.choice([parts.past, b"", bytes(8)])
    parts.records[place] = record
    return parts.write()


def changed_tensors(
    joined: list[helpers.JoinedTensor], generator: random.Random
) -> list[helpers.JoinedTensor]:
    place = generator.randrange(len(joined))
    one = joined[place]
    kind = generator.randrange(4)
    if kind == 0:
        joined[place] = replace(one, skipped=max(0, one.skipped + generator.choice([-1, 1, 2])))
    elif kind == 1:
        joined[place] = replace(one, sizes=changed_sizes(list(one.sizes), generator))
    elif kind == 2:
        joined.insert(place, one)
    else:
        del joined[place]
    return joined


def changed_sizes(sizes: list[int], generator: random.Random) -> list[int]:
    kind = generator.randrange(6)
    if kind == 0 or not sizes:
        return [*sizes, generator.choice([1, 2, 3])]
    place = generator.randrange(len(sizes))
    if kind == 1:
        sizes[place] = max(0, sizes[place] + generator.choice([-1, 1, -2, 7]))
    elif kind == 2:
        generator.shuffle(sizes)
    elif kind == 3 and len(sizes) > 1:
        sizes[:2] = [sizes[0] * sizes[1]]
    elif kind == 4:
        factor = next((f for f in (2, 3, 5) if sizes[place] % f == 0), 1)
        sizes[place : place + 1] = [sizes[place] // factor, factor]
    else:
        del sizes[place]
    return sizes


# ---- the run -------------------------------------------------------------------------------------


class Run:
    """Changes frames until the time is up, those of all kinds about equally long.

    Attributes:
        outcomes: How often both did what, by kind.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.generator = random.Random(seed)
        self.bases: dict[str, list[Base]] = {}
        for base in frames.bases(folder, MOST_BYTES):
            if frames.announced(base.frame) <= MOST_ELEMENTS and base.kind != "raw":
                kind = base.kind + (" (TorchScript)" if base.slow else "")
                self.bases.setdefault(kind, []).append(base)
        self.sections = [
            record.section
            for own in self.bases.values()
            for base in own
            for record in Parts.of(base.frame).records
        ]
        self.taken = dict.fromkeys(self.bases, 0.0)
        self.outcomes: dict[str, Counter[str]] = {kind: Counter() for kind in self.bases}

    def step(self) -> None:
        """Changes a frame of the kind that took the least time so far.

        Raises:
            Disagreement: The decoders differ; the frame is its second argument.
        """
        kind = min(self.taken, key=lambda kind: self.taken[kind])
        start = time.perf_counter()
        base = self.generator.choice(self.bases[kind])
        frame = changed_frame(base, self.sections, self.generator)
        try:
            self.outcomes[kind][verdict(base, frame)] += 1
        except Exception as error:
            raise DisagreementError(f"{base.name}: {error!r}", frame) from error
        self.taken[kind] += time.perf_counter() - start


def table(outcomes: dict[str, Counter[str]]) -> str:
    columns = sorted(set().union(*outcomes.values()))
    rows = [["kind", "frames", *columns]]
    for kind, own in [*outcomes.items(), ("all", sum(outcomes.values(), Counter()))]:
        rows.append([kind, f"{own.total():,}", *(f"{own[column]:,}" for column in columns)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None, help="default: another one every time")
    parser.add_argument("--found", type=Path, default=Path("build/fuzz"))
    options = parser.parse_args(arguments)
    seed = time.time_ns() % 2**32 if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), seed)
        end = time.monotonic() + options.seconds
        try:
            while time.monotonic() < end:
                run.step()
        except DisagreementError as error:
            message, frame = error.args
            options.found.mkdir(parents=True, exist_ok=True)
            path = options.found / f"differential-{helpers.checksum(frame):016x}.lmgc"
            path.write_bytes(frame)
            print(f"{message}\n{path}")
            return 1
        print(table(run.outcomes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
