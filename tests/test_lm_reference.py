"""Method lm: the library and the reference decoder read the same, also what no encoder writes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import helpers
import pytest
import torch
from helpers import FLOATS, Record, bits, frame_by_hand, save_scripted, to_bytes, varint
from lm_priors import low_rank, paying, waves, with_dead_lines
from test_reference_lm import LmSection, decode
from torch import Tensor

from lmgc_torch import CorruptFrameError, Prior, compress, decompress, info, priors
from lmgc_torch import reference as ref
from lmgc_torch import reference_frame as ref_frame
from lmgc_torch import reference_prior as ref_prior

# A step of the prior for each digit: threads that wait for busy processors make it far slower.
pytestmark = pytest.mark.usefixtures("one_thread")


class BothPriors:
    """A prior as the operators and as the reference take it."""

    def __init__(self, path: Path) -> None:
        self.operators = Prior.load(path)
        self.slow = Prior.load(path).use_native(False)
        self.module = torch.jit.load(str(path))

    def block(self) -> bytes:
        """What a frame says of it (docs/format.md, section 3)."""
        words = [self.operators.fingerprint[:16], self.operators.fingerprint[16:]]
        block = bytes([0, 0, 0, 1, 0]) + varint(self.operators.max_context)
        block += b"".join(int(word, 16).to_bytes(8, "little") for word in words)
        return block + ref_prior.probe_of(self.module).to_bytes(8, "little") + varint(0) + varint(0)


@pytest.fixture(scope="module")
def bundled() -> BothPriors:
    return BothPriors(priors.bundled()["residual"])


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> BothPriors:
    path = tmp_path_factory.mktemp("prior") / "native.pt"
    save_scripted(helpers.random_residual_prior((16, 16)), path)
    return BothPriors(path)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> BothPriors:
    """It looks at the digits before, in windows of 8 symbols."""
    features = ["digit", "left1.value", "width", "above.magnitude", "adaptive"]
    path = tmp_path_factory.mktemp("prior") / "table.pt"
    return BothPriors(helpers.write_prior(path, features=features, context=17))


# ---- frames of the library -----------------------------------------------------------------------


def tensors_of(dtype: torch.dtype) -> list[Tensor]:
    special = low_rank(20, 24, dtype=dtype)
    special[4, :5] = torch.tensor([float("inf"), float("nan"), -0.0, 1e-40, -float("inf")])
    return [
        paying(),
        with_dead_lines(low_rank(24, 30, dtype=dtype)),
        low_rank(10, 4, 3, 3, dtype=dtype),
        low_rank(8, 12, 2, 2, dtype=dtype).transpose(0, 1).contiguous(),
        waves(low_rank(300, rank=0, dtype=dtype)),
        low_rank(30, 20, dtype=dtype).relu(),
        special,
        torch.zeros(20, 20, dtype=dtype),
    ]


@pytest.mark.parametrize(
    ("dtype", "lane_elements"), list(zip(FLOATS, [77, None, 77, 500], strict=True))
)
def test_frames_of_every_type(dtype: torch.dtype, lane_elements: int | None, bundled: BothPriors):
    tensors = tensors_of(dtype)
    frame = compress(tensors, method="lm", prior=bundled.operators, lane_elements=lane_elements)
    assert [tensor.method for tensor in info(frame).tensors].count("lm") >= 3
    decoded = ref.decode(to_bytes(frame), bundled.module)
    assert [one.data for one in decoded] == [to_bytes(bits(tensor)) for tensor in tensors]


# ---- sections that no encoder writes -------------------------------------------------------------


def outcome(frame: bytes, prior: Prior) -> object:
    try:
        return [to_bytes(bits(tensor)) for tensor in decompress(frame, prior=prior)]
    except CorruptFrameError:
        return "refused"


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("predicted", [False, True], ids=["scale", "lowrank"])
def test_sections_by_hand(
    predicted: bool, dtype: torch.dtype, native: BothPriors, table: BothPriors
):
    """Any numbers that a section can hold mean the same to all three, whoever would write them."""
    codes = {name: code for code, name in ref_frame.DTYPE_OF_CODE.items()}
    code = codes[str(dtype).removeprefix("torch.")]
    tested = 0
    for seed in range(24):
        prior = native if seed % 2 == 0 else table
        made = LmSection(random.Random(seed), dtype, predicted, prior.module)
        if len(made.section) > len(made.data) or made.bound >= 2**62:
            continue
        checksum = helpers.checksum(made.data)
        record = Record(made.sizes, made.section, code, ref_frame.METHODS.index("lm"), checksum)
        frame = frame_by_hand([record], prior=prior.block(), version=2)
        for one in (prior.operators, prior.slow):
            assert outcome(frame, one) == [made.data], seed
        tested += 1
        if tested == 3:  # the reference is slow
            return
    raise AssertionError("too few sections were small enough")


def test_both_refuse_the_same_sections(native: BothPriors):
    """Changed bytes give the same data, or are refused by both."""
    made: Sequence[Any] = [
        LmSection(random.Random(seed), torch.float32, True, native.module) for seed in range(12)
    ]
    own = min(
        (one for one in made if len(one.section) <= len(one.data) and one.bound < 2**62),
        key=lambda one: len(one.section),
    )
    block, refused = native.block(), 0
    generator = random.Random(5)
    for _ in range(20):
        section = bytearray(own.section)
        section[generator.randrange(len(section))] ^= 1 << generator.randrange(8)
        try:
            expected = decode(own, bytes(section), native.module)
        except CorruptFrameError:
            expected, refused = None, refused + 1
        checksum = helpers.checksum(expected or b"")
        told = Record(own.sizes, bytes(section), 2, ref_frame.METHODS.index("lm"), checksum)
        frame = frame_by_hand([told], prior=block, version=2)
        assert outcome(frame, native.operators) == ([expected] if expected else "refused")
    assert 0 < refused < 20
