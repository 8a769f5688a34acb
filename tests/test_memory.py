"""The memory that decoding takes: nothing for frames that lie, else the result and what is stated.

SECURITY.md states it. Frames are decoded in a process that has so much and no more.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import helpers
import little_memory
import pytest
import torch
from helpers import Record, frame_by_hand, op_info, to_bytes, varint
from little_memory import Case
from sections_by_hand import BitWriter
from torch import Tensor

from lmgc_torch import compress, info
from lmgc_torch import reference_common as common

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="needs /proc, and a limit on memory that holds"
)

MIB = 1 << 20
SLACK = 4 * MIB
"""What threads, tables and pieces of work take whatever the tensor."""
METHODS = ["raw", "planes", "scale", "lowrank", "lm", "lmgc"]
CODES = {
    name: code for code, name in enumerate(["raw", "planes", "lmgc", "scale", "lowrank", "lm"])
}


def within(cases: dict[str, Case], folder: Path) -> dict[str, str]:
    """What becomes of the cases in a process of their own."""
    (folder / "cases").write_bytes(pickle.dumps(cases))
    glibc = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    glibc |= {"MALLOC_TRIM_THRESHOLD_": "65536"}
    subprocess.run(
        [sys.executable, little_memory.__file__, folder / "cases", folder / "outcomes"],
        check=True,
        timeout=300,
        env=os.environ | glibc,
    )
    outcomes: dict[str, str] = pickle.loads((folder / "outcomes").read_bytes())
    return outcomes


def low_rank(rows: int, columns: int, rank: int) -> Tensor:
    generator = torch.Generator().manual_seed(rank)
    left, right = (
        torch.randn(*shape, generator=generator) for shape in ((rows, rank), (rank, columns))
    )
    return left @ right * torch.exp(torch.randn(rows, 1, generator=generator))


# ---- frames that lie -----------------------------------------------------------------------------


def taken_apart(method: Any) -> tuple[Record, bytes, int]:
    """A frame's only tensor, the prior block, and the version."""
    frame = to_bytes(compress([low_rank(64, 48, 2)], method=method))
    about = op_info(helpers.to_tensor(frame))
    (tensor,) = about["tensors"]
    assert (tensor["method"], tensor["spare_bits"]) == (method, 0)
    data = helpers.checksum(to_bytes(helpers.bits(low_rank(64, 48, 2))))
    section = frame[about["header_bytes"] :]
    record = Record((64, 48), section, method=CODES[method], data_checksum=data)
    block = frame[11 : about["header_bytes"] - 16 - 1 - len(record.header())]
    assert frame == frame_by_hand([record], prior=block or None, version=frame[4])
    return record, block, frame[4]


def relabelled(method: Any, sizes: Sequence[int]) -> bytes:
    """The section of a small tensor under a record that announces another."""
    record, block, version = taken_apart(method)
    lying = Record(sizes, record.section, method=record.method, data_checksum=record.data_checksum)
    return frame_by_hand([lying], prior=block or None, version=version)


def side_bits(rows: int, columns: int, rank: int = 0) -> bytes:
    """Scales of rows (and weights, exponents, widths) that are 0, with their size."""
    side = BitWriter()
    for count in (rows, columns, rank, rank, rank) if rank else ():
        side.put_line([0] * count, True)
    side.put_line([0] * rows, True)
    return varint(len(side.bytes())) + side.bytes()


def digits_head(symbols: int) -> bytes:
    """Of a stream whose blocks have no words, escapes and tails."""
    return b"\x01\0\xff\x7f\0\0\x18" + bytes(3) * -(-symbols // 65536)


LARGE = 2**29  # elements of 4 bytes


def scale_section(bodies: int) -> bytes:
    """A head that tells all of a tensor of 2 rows, and so many bodies."""
    return b"\0" + side_bits(2, LARGE // 2) + digits_head(LARGE) + bytes(128 * bodies)


def lowrank_section(bodies: int) -> bytes:
    """The same of 2^13 rows and a prediction of rank 1."""
    heads = digits_head(2**13) + digits_head(2**16) + digits_head(LARGE)
    return b"\0\1" + side_bits(2**13, 2**16, 1) + heads + bytes(128 * bodies)


def lying_frames() -> dict[str, bytes]:
    frames = {f"{m}: another matrix": relabelled(m, (2**16, LARGE >> 16)) for m in METHODS}
    frames |= {f"{m}: a vector": relabelled(m, (LARGE,)) for m in METHODS}
    blocks = LARGE >> 16
    constant, raw, rans = b"\1\0", b"\0", b"\2\0" + b"\0\0\0"  # one table of one symbol
    sections = {
        "a raw plane": b"\0" + 3 * constant + raw,
        "a raw plane, in part": b"\0" + 3 * constant + raw + bytes(1 << 16),
        "too few blocks": b"\0" + 3 * constant + rans + b"\0",
        "blocks without states": b"\0" + 3 * constant + rans + bytes(blocks),
        "states are missing": b"\0" + 3 * constant + rans + bytes(blocks + 128 * blocks - 1),
        "bytes behind the last body": b"\0" + 4 * constant + b"\0",
        "a raw mask": b"\1" + varint(5) + raw + 4 * constant,
        "more kept than there are": b"\1" + varint(LARGE + 1) + 5 * constant,
        "nothing": b"",
    }
    for name, section in sections.items():
        frames[f"planes: {name}"] = frame_by_hand([Record((LARGE,), section, method=1)])
    for name, missing in (("no bodies", blocks), ("one is missing", 1), ("one too many", -1)):
        record = Record((2, LARGE // 2), scale_section(blocks - missing), method=3)
        frames[f"scale: {name}"] = frame_by_hand([record])
        record = Record((2**13, 2**16), lowrank_section(2 + blocks - missing), method=4)
        frames[f"lowrank: {name}"] = frame_by_hand([record])
    record = Record((2**13, 2**16), lowrank_section(2 + blocks), method=4)
    frames["lowrank: factors that do not decode"] = frame_by_hand([record])
    return frames


def test_frames_that_lie_take_no_memory(tmp_path: Path):
    """They announce 2 GiB, and are refused with 4 MiB and ten times what they have themselves."""
    warm = {m: to_bytes(compress([low_rank(64, 48, 2)], method=m)) for m in METHODS}
    cases = {
        name: Case(frame, SLACK + 10 * len(frame), warm=warm[name.partition(":")[0]])
        for name, frame in lying_frames().items()
    }
    for name, told in within(cases, tmp_path).items():
        assert told.startswith("CorruptFrameError: "), (name, told)
        assert "no memory" not in told, (name, told)


def dead_lines(lines: int, side: BitWriter) -> None:
    """Flags that say that all of so many lines are zero."""
    codes = common.AdaptiveRice(), common.AdaptiveRice()
    side.put_rice(codes[0], 0)
    for left in range(lines, 0, -65535):
        side.put_rice(codes[1], min(left, 65535))
        if left > 65535:
            side.put_rice(codes[0], 0)


def test_flags_of_lines_take_no_memory(tmp_path: Path):
    """A matrix of 2^28 lines of 2^28 zeros in 23 KB; the flags alone would be 64 MiB of bits."""
    side = BitWriter()
    dead_lines(2**28, side)
    dead_lines(2**28, side)
    flags = side.bytes()
    section = b"\2" + varint(len(flags)) + flags
    assert len(section) < 24_000
    _, block, version = taken_apart("lm")
    shape = (2**28, 2**28)
    frames = {
        "scale": frame_by_hand([Record(shape, section, method=3)]),
        "lm": frame_by_hand([Record(shape, section, method=5)], prior=block, version=version),
    }
    cut = b"\2" + varint(len(flags) - 9) + flags[:-9]
    damaged = frame_by_hand([Record(shape, cut, method=3)])
    few = frame_by_hand([Record((2**40, 2**20), b"\2\4" + b"\xff\xff\xff\xff", method=3)])
    warm = to_bytes(compress([low_rank(64, 48, 2)], method="lm"))
    cases = {f"{name}, info": Case(frame, SLACK, True, warm) for name, frame in frames.items()}
    cases |= {name: Case(frame, SLACK, False, warm) for name, frame in frames.items()}
    cases |= {"damaged": Case(damaged, SLACK, False, warm), "few": Case(few, SLACK, False, warm)}
    cases |= {f"{name}, info": replace(cases[name], only_info=True) for name in ("damaged", "few")}
    told = within(cases, tmp_path)
    for name in frames:
        assert told[f"{name}, info"] == f"{2**58} bytes"
        assert "no memory for the" in told[name]
    for name in ("damaged", "few"):
        for what in (told[name], told[f"{name}, info"]):
            assert what.startswith("CorruptFrameError: "), (name, what)
            assert "no memory" not in what, (name, what)


# ---- frames that do not --------------------------------------------------------------------------


def spread(*shape: int, seed: int = 0) -> Tensor:
    """Floats without a prediction, of which all bits are used."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def in_bfloat16(tensor: Tensor) -> Tensor:
    """What bfloat16 holds, so that bits are spare, and some lines of it zero."""
    short = tensor.bfloat16().float()
    short[3::8] = 0
    return short


def entries(tensors: Sequence[Tensor], method: Any) -> int:
    """Of the factors of the tensors' predictions."""
    told = info(compress(list(tensors), method=method)).tensors
    lines = [
        max(t.shape[0] + t.elements // t.shape[0], t.shape[1] + t.elements // t.shape[1])
        for t in told
    ]
    return sum(tensor.rank * count for tensor, count in zip(told, lines, strict=True))


@dataclass
class Sample:
    """Tensors to be coded by a method.

    Attributes:
        beside: What decoding may take beside them, as a multiple of the largest tensor's bytes: no
            more than what is stated, less where that tensor does not need all of it.
        for_entry: The same for an entry of its factors, in bytes.
    """

    tensors: list[Tensor]
    method: Any
    beside: float
    for_entry: int = 0
    reference: list[Tensor] | None = None

    def case(self) -> Case:
        frame = compress(self.tensors, method=self.method, reference=self.reference)
        assert self.method in {tensor.method for tensor in info(frame).tensors}
        result = sum(tensor.nbytes for tensor in self.tensors)
        largest = max(self.tensors, key=lambda tensor: tensor.nbytes)
        beside = int(self.beside * largest.nbytes)
        if self.for_entry:
            beside += self.for_entry * entries([largest], self.method)
        small = [tensor[:64, :64] if tensor.dim() > 1 else tensor[:4096] for tensor in self.tensors]
        others = self.reference and [tensor[:64, :64] for tensor in self.reference]
        warm = to_bytes(compress(small, method=self.method, reference=others))
        return Case(
            frame.numpy().tobytes(),
            result + beside + SLACK,
            warm=warm,
            reference=(self.reference, others),
        )


def samples() -> dict[str, Sample]:
    sparse = spread(2**21) * (spread(2**21, seed=1) > 0)
    short = in_bfloat16(spread(1024, 2048))
    kernels = in_bfloat16(low_rank(256, 128 * 64, 16).view(256, 128, 64)).transpose(0, 1)
    return {
        "planes": Sample([spread(2**21)], "planes", 0),
        "planes, zeros": Sample([torch.zeros(2**26)], "planes", 0.036),
        "planes, many zeros": Sample([sparse], "planes", 0.036),
        "planes of bytes": Sample([torch.zeros(2**24, dtype=torch.uint8)], "planes", 0.143),
        "scale": Sample([spread(1024, 2048)], "scale", 0),
        "scale, a vector": Sample([spread(2**21)], "scale", 0),
        "scale, zeros": Sample([torch.zeros(4096, 4096)], "scale", 0),
        "scale, spare bits and dead lines": Sample([short], "scale", 2),
        "scale, a reference": Sample([short], "scale", 2, reference=[in_bfloat16(short * 1.01)]),
        "lowrank": Sample([low_rank(256, 8192, 30)], "lowrank", 0, 32),
        "lowrank, many": Sample([low_rank(256, 2048, 16)] * 8, "lowrank", 0, 32),
        "lowrank, all of it": Sample([kernels.contiguous()], "lowrank", 2, 32),
        "lm": Sample([low_rank(512, 1024, 8)], "lm", 2, 40),
    }


def test_decoding_takes_the_result_and_what_is_stated(tmp_path: Path):
    chosen = samples()
    cases = {name: sample.case() for name, sample in chosen.items()}
    for name, told in within(cases, tmp_path).items():
        size = sum(tensor.nbytes for tensor in chosen[name].tensors)
        assert told == f"{size} bytes", (name, told)
