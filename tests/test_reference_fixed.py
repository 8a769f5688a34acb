"""Sections of methods scale and lowrank that no encoder writes, made by hand: C++ and reference."""

from __future__ import annotations

import random

import helpers
import pytest
import torch
from helpers import FLOATS, Record, bits, frame_by_hand, to_bytes
from sections_by_hand import RandomSection

from lmgc_torch import decompress
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
