"""Frames of method lm that were damaged, or say what is not so."""

from __future__ import annotations

from dataclasses import replace

import helpers
import pytest
import torch
from helpers import (
    Record,
    all_identical,
    frame_by_hand,
    op_info,
    resealed,
    to_bytes,
    to_tensor,
    varint,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_priors import low_rank, paying
from torch import Tensor

from lmgc_torch import CorruptFrameError, Prior, PriorMismatchError, compress, decompress, info
from lmgc_torch import reference_common as ref_common
from lmgc_torch import reference_frame as ref_frame

pytestmark = pytest.mark.usefixtures("one_thread")


def small_tensors() -> list[Tensor]:
    """With a prediction, without one, and with zeros and dead lines."""
    matrix = paying()
    matrix[3] = 0
    matrix[:, 5] = 0
    noise = low_rank(8, 40, rank=0, dtype=torch.float16)
    noise[:, ::3] = 0
    return [matrix, noise]


@pytest.fixture(scope="module")
def frame(residual_prior: Prior) -> bytes:
    made = compress(small_tensors(), method="lm", prior=residual_prior, lane_elements=200)
    assert [tensor.method for tensor in info(made).tensors] == ["lm", "lm"]
    return to_bytes(made)


def check_hostile(frame: bytes, hostile: bytes, prior: Prior) -> None:
    """A changed frame is refused by name, or it decodes; from the same header, to the same data."""
    header_bytes = info(frame).header_bytes
    try:
        back = decompress(hostile, prior=prior)
    except (CorruptFrameError, PriorMismatchError):
        return
    if hostile[10 : header_bytes - 16] == frame[10 : header_bytes - 16]:
        assert all_identical(back, small_tensors())


# ---- damaged frames ------------------------------------------------------------------------------


def test_every_changed_byte_is_noticed(frame: bytes, residual_prior: Prior):
    for position in range(len(frame)):
        for change in (1, 0x80):
            damaged = bytearray(frame)
            damaged[position] ^= change
            with pytest.raises((CorruptFrameError, PriorMismatchError)):
                decompress(damaged, prior=residual_prior)


def test_every_cut_is_noticed(frame: bytes, residual_prior: Prior):
    for size in range(len(frame)):
        with pytest.raises(CorruptFrameError):
            decompress(frame[:size], prior=residual_prior)
    for more in (b"\0", frame):
        with pytest.raises(CorruptFrameError):
            decompress(frame + more, prior=residual_prior)


def test_every_byte_changed_under_right_checksums(frame: bytes, residual_prior: Prior):
    """What reaches the decoder: sections and header, with checksums made right again."""
    slow = Prior.load("residual").use_native(False)
    header_bytes = info(frame).header_bytes
    for position in range(10, len(frame)):
        for change in (1, 0xFF):
            damaged = bytearray(frame)
            damaged[position] ^= change
            check_hostile(frame, resealed(bytes(damaged)), residual_prior)
        if position >= header_bytes and position % 97 == 0:
            check_hostile(frame, resealed(bytes(damaged)), slow)


@settings(max_examples=200)
@given(data=st.data())
def test_hostile_bytes_under_right_checksums(
    frame: bytes, residual_prior: Prior, data: st.DataObject
):
    hostile = bytearray(frame)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(10, len(hostile)))
        size = data.draw(st.integers(0, 12))
        hostile[start : start + size] = data.draw(st.binary(max_size=12))
    check_hostile(frame, resealed(bytes(hostile)), residual_prior)


def test_both_engines_read_damaged_lanes_alike(frame: bytes, residual_prior: Prior):
    """Any bytes of a lane are some symbols: the same ones."""
    slow = Prior.load("residual").use_native(False)
    about = op_info(to_tensor(frame))
    end = about["header_bytes"] + about["tensors"][0]["section_bytes"]

    def says(damaged: bytes, prior: Prior) -> object:
        try:
            return [to_bytes(helpers.bits(t)) for t in decompress(damaged, prior=prior)]
        except CorruptFrameError as error:
            return str(error)

    for position in range(end - 150, end, 40):
        damaged = bytearray(frame)
        damaged[position] ^= 0x41
        outcome = says(resealed(bytes(damaged)), residual_prior)
        assert outcome == says(resealed(bytes(damaged)), slow)


# ---- sections and records that lie ---------------------------------------------------------------


class Parts:
    """A frame of one tensor of method lm, to be put together with something else in it."""

    def __init__(self, tensor: Tensor, prior: Prior) -> None:
        frame = to_bytes(compress([paying(), tensor], method="lm", prior=prior))
        about = op_info(to_tensor(frame))
        first, own = about["tensors"]
        assert own["method"] == "lm"
        offset = about["header_bytes"] + first["section_bytes"]
        self.tensor, self.prior = tensor, prior
        self.section = frame[offset : offset + own["section_bytes"]]
        fields = ref_common.ByteReader(frame[11:])  # behind the empty metadata
        ref_frame.read_prior_block(fields, frame[4])
        self.block = frame[11 : 11 + fields.position]
        code = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2, torch.float64: 3}
        data = helpers.checksum(to_bytes(helpers.bits(tensor)))
        self.record = Record(
            tuple(tensor.shape), dtype=code[tensor.dtype], method=5, data_checksum=data
        )

    def frame(self, section: bytes | None = None, version: int = 2, **changes: object) -> bytes:
        section = self.section if section is None else section
        record = replace(self.record, section=section, **changes)
        return frame_by_hand([record], prior=self.block, version=version)

    def refused(self, section: bytes | None = None, **changes: object) -> None:
        made = self.frame(section, **changes)
        # A section that says to be of method lmgc would need another prior.
        named = PriorMismatchError if changes.get("method") == 2 else CorruptFrameError
        with pytest.raises(named):
            decompress(made, prior=self.prior)


@pytest.fixture(scope="module")
def parts(residual_prior: Prior) -> dict[str, Parts]:
    tensors = {
        "predicted": small_tensors()[0],
        "scale": small_tensors()[1],
        "convolution": low_rank(40, 12, 3, 3, dtype=torch.bfloat16),
        "flat": low_rank(600, rank=0, dtype=torch.bfloat16),
    }
    return {name: Parts(tensor, residual_prior) for name, tensor in tensors.items()}


NAMES = ["predicted", "scale", "convolution", "flat"]
every_part = pytest.mark.parametrize("name", NAMES)


@every_part
def test_frames_by_hand_are_frames(name: str, parts: dict[str, Parts]):
    own = parts[name]
    (back,) = decompress(own.frame(), prior=own.prior)
    assert helpers.identical(back, own.tensor)
    own.refused(version=1)


@every_part
def test_sections_of_another_tensor(name: str, parts: dict[str, Parts]):
    own = parts[name]
    elements = own.tensor.numel()
    for dtype in (16, 17, 19, 21, 23, 25, 32):  # no floats
        own.refused(dtype=dtype)
    for dtype in {0, 1, 2, 3} - {own.record.dtype}:
        own.refused(dtype=dtype)
    for method in (1, 2, 3, 4):
        own.refused(method=method)
    for sizes in [(), (elements - 1,), (elements + 1,), (0,), (2, elements), (3, elements // 2)]:
        own.refused(sizes=sizes)
    own.refused(own.section + b"\0")
    for size in range(len(own.section)):
        own.refused(own.section[:size])


@every_part
def test_flags_that_lie(name: str, parts: dict[str, Parts]):
    own = parts[name]
    for flags in range(256):
        if flags != own.section[0]:
            own.refused(bytes([flags]) + own.section[1:])


@pytest.mark.parametrize("rank", [0, 2, 20, 36, 127, 2**14, 2**31, 2**63, 2**64 - 1])
def test_ranks_that_lie(rank: int, parts: dict[str, Parts]):
    for name in ("predicted", "convolution"):
        section = parts[name].section
        assert section[0] & 32
        if section[1] != rank:
            parts[name].refused(section[:1] + varint(rank) + section[2:])


@pytest.mark.parametrize("size", [0, 1, 2**14, 2**31, 2**32, 2**61, 2**63, 2**64 - 1])
@every_part
def test_sizes_of_side_information_that_lie(name: str, size: int, parts: dict[str, Parts]):
    section = parts[name].section
    place = 2 if section[0] & 32 else 1
    behind = place + 1 if section[place] < 0x80 else place + 2
    parts[name].refused(section[:place] + varint(size) + section[behind:])


HEADS = {
    "no lanes": [0],
    "lanes too long": [65_537],
    "very many lanes": [1],
    "lanes of a symbol": [1, *[1] * 99],
    "a huge lane": [65_536, 2**40],
    "the most a varint holds": [65_536, 2**64 - 1],
    "an empty lane": [65_536, 0],
    "huge tails": [65_536, 100, 2**62],
    "tails beyond the bound": [65_536, 100, 16 * 65_536 + 1],
}


@pytest.mark.parametrize("head", HEADS)
def test_heads_of_streams_that_lie(head: str, parts: dict[str, Parts]):
    for name in ("scale", "flat"):
        section = parts[name].section
        behind = 2 if section[1] < 0x80 else 3
        side = section[1] if section[1] < 0x80 else section[1] % 128 + 128 * section[2]
        begin = section[: behind + side]
        for rest in (b"", bytes(20), section[behind + side + 4 :]):
            parts[name].refused(begin + b"".join(map(varint, HEADS[head])) + rest)


@pytest.mark.parametrize("sizes", [(2**40,), (2**33,), (2**25, 2**25), (2**16, 2**17), (2**63,)])
@every_part
def test_huge_tensors(name: str, sizes: tuple[int, ...], parts: dict[str, Parts]):
    parts[name].refused(sizes=sizes)


def test_prior_blocks_that_do_not_suit(parts: dict[str, Parts]):
    """Options that only lmgc has."""
    own = parts["scale"]
    for place, value in ((0, 1), (1, 4), (2, 1), (4, 1)):
        block = bytearray(own.block)
        block[place] = value
        made = frame_by_hand(
            [replace(own.record, section=own.section)], prior=bytes(block), version=2
        )
        with pytest.raises(CorruptFrameError):
            decompress(made, prior=own.prior)


def test_a_prior_that_was_made_for_another_method(parts: dict[str, Parts], feature_prior: Prior):
    """The header names the prior that is given, and a method that this prior cannot serve."""
    frame = to_bytes(compress([helpers.gradient(20, 20)], method="lmgc", prior=feature_prior))
    fields = ref_common.ByteReader(frame[11:])
    ref_frame.read_prior_block(fields, 1)
    block = frame[11:15] + b"\0" + frame[15 : 11 + fields.position]  # as version 2 has it
    own = parts["scale"]
    made = frame_by_hand([replace(own.record, section=own.section)], prior=block, version=2)
    with pytest.raises(PriorMismatchError, match="'lm'"):
        decompress(made, prior=feature_prior)

    section = frame[info(frame).header_bytes :]
    lmgc = Record((20, 20), section, method=2, data_checksum=0)
    block = own.block[:4] + own.block[5:]  # as version 1 has it
    with pytest.raises(PriorMismatchError, match="'lmgc'"):
        decompress(frame_by_hand([lmgc], prior=block), prior=own.prior)
