"""Sections of methods scale and lowrank that no encoder writes, made by hand: C++ and reference."""

from __future__ import annotations

import random

import helpers
import pytest
import torch
from helpers import FLOATS, Record, bits, frame_by_hand, to_bytes
from sections_by_hand import RandomSection

from lmgc_torch import CorruptFrameError, decompress
from lmgc_torch import reference as ref
from lmgc_torch import reference_frame as ref_frame
from lmgc_torch.reference_common import WHOLE, Spare


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("predicted", [False, True], ids=["scale", "lowrank"])
@pytest.mark.parametrize("is_short", [False, True], ids=["whole", "short"])
def test_sections_by_hand(is_short: bool, predicted: bool, dtype: torch.dtype):
    """Any numbers that a section can hold mean the same to both, whoever would write them."""
    codes = {name: code for code, name in ref_frame.DTYPE_OF_CODE.items()}
    code = codes[str(dtype).removeprefix("torch.")]
    method = "lowrank" if predicted else "scale"
    flags, bounds, tested = 0, set(), 0
    for seed in range(60):
        spare = some_spare(random.Random(seed), dtype) if is_short else WHOLE
        made = RandomSection(random.Random(seed), dtype, predicted, spare)
        if len(made.section) > len(made.data) or made.bound >= 2**62:
            continue
        record = Record(
            made.sizes,
            made.section,
            code,
            ref_frame.METHODS.index(method),
            helpers.checksum(made.data),
            spare=spare if is_short else None,
        )
        frame = frame_by_hand([record], version=3 if is_short else 1)
        assert ref.decode(frame)[0].data == made.data, seed
        assert to_bytes(bits(decompress(frame)[0])) == made.data, seed
        flags |= made.flags
        bounds.add(made.bound >= 2**53)
        tested += 1
    assert tested > 20
    assert bounds == ({True, False} if predicted else {False})
    assert flags == (31 if predicted else 7)


def some_spare(generator: random.Random, dtype: torch.dtype) -> Spare:
    element = ref_frame.DTYPES[str(dtype).removeprefix("torch.")]
    most = 2**element.exponent_bits - 3
    return Spare(
        generator.randrange(1, element.mantissa_bits - 2),
        generator.choice([0, 1, generator.randrange(most + 1), most]),
    )


@pytest.mark.parametrize(
    ("version", "method", "spare"),
    [
        (1, "scale", (3, 0)),
        (2, "scale", (3, 0)),
        (3, "scale", (0, 0)),
        (3, "scale", (0, 5)),
        (3, "scale", (21, 0)),
        (3, "scale", (3, 254)),
        (3, "scale", (3, 2**40)),
        (3, "scale", (255, 0)),
        (3, "planes", (3, 0)),
        (3, "raw", (3, 0)),
    ],
)
def test_impossible_spares_are_refused(version: int, method: str, spare: tuple[int, int]):
    """By the header alone: the section would be one of these floats."""
    made = RandomSection(random.Random(1), torch.float32, False)
    code = ref_frame.METHODS.index(method)
    record = Record(made.sizes, made.section, 2, code, spare=spare)
    frame = frame_by_hand([record], version=version)
    with pytest.raises(CorruptFrameError):
        ref_frame.read_header(frame)
    with pytest.raises(CorruptFrameError, match="header"):
        decompress(frame)


def test_any_spare_that_is_told_decodes_or_is_refused():
    """A section of whole floats that is said to be one of short ones: data of the right size, or an
    error; the checksum is that of neither."""
    made = RandomSection(random.Random(2), torch.float32, False)
    for spare in [(1, 0), (1, 253), (20, 0), (20, 253), (9, 100)]:
        record = Record(made.sizes, made.section, 2, 3, spare=spare)
        frame = frame_by_hand([record], version=3)
        for decode in (decompress, ref.decode):
            with pytest.raises(CorruptFrameError):
                decode(frame)
