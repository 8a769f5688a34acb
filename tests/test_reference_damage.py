"""Damaged frames mean the same to C++ and to `lmgc_torch.reference`, or nothing to both."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, TypeAlias

import helpers
import pytest
import torch
from helpers import (
    FLOATS,
    METHODS,
    Record,
    bits,
    frame_by_hand,
    gradient,
    resealed,
    to_bytes,
    to_tensor,
)
from test_reference import BothPriors, golden, shortened, special_floats, sprinkled
from torch import Tensor

from lmgc_torch import (
    CorruptFrameError,
    PriorMismatchError,
    compress,
)
from lmgc_torch import reference as ref
from lmgc_torch import reference_common as ref_common
from lmgc_torch import reference_fixed as fixed
from lmgc_torch import reference_frame as ref_frame
from lmgc_torch import reference_lmgc as ref_lmgc
from lmgc_torch import reference_planes as ref_planes
from lmgc_torch.errors import translated


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> BothPriors:
    """Speaks hexadecimal and bytes, and looks at every feature."""
    path = tmp_path_factory.mktemp("prior") / "prior.pt"
    golden.write_prior(path)
    return BothPriors(path)


Outcome: TypeAlias = "list[bytes] | str"  # the tensors' bytes, or why there are none


def outcome(decode: Callable[[], list[bytes]]) -> Outcome:
    try:
        return decode()
    except (CorruptFrameError, PriorMismatchError) as error:
        return str(error)


def by_reference(frame: bytes, prior: BothPriors) -> Outcome:
    return outcome(lambda: [tensor.data for tensor in ref.decode(frame, prior.module)])


def by_operators(frame: bytes, prior: BothPriors) -> Outcome:
    def decode() -> list[bytes]:
        with translated():
            tensors = helpers.ops().decompress(to_tensor(frame), prior.operators.handle)
        return [to_bytes(bits(tensor)) for tensor in tensors]

    return outcome(decode)


@pytest.mark.parametrize("method", dict.fromkeys([*METHODS, "scale", "lowrank"]))
def test_both_refuse_the_same_headers(method: str, prior: BothPriors):
    check_headers(method, {}, prior)
    if method == "lmgc":
        check_headers(method, {"window": "sliding"}, prior)


def check_headers(method: str, options: dict[str, Any], prior: BothPriors) -> None:
    tensors = [gradient(4, 20), torch.arange(3, dtype=torch.int16), torch.empty(0)]
    if method == "lowrank":
        tensors[0] = golden.low_rank(32, 36, 1, dtype=torch.float32, seed=1)
    frame = to_bytes(compress(tensors, method=method, prior=prior.operators, **options))
    size = ref_frame.read_header(frame).size
    for position in range(size):
        for value in (frame[position] ^ 1, 0xFF):
            changed = frame[:position] + bytes([value]) + frame[position + 1 :]
            changed = changed if position < 10 else resealed(changed)
            reference, operators = by_reference(changed, prior), by_operators(changed, prior)
            if isinstance(reference, list):
                assert operators == reference, position
            else:
                assert isinstance(operators, str), (position, reference)


def changed_sections(section: bytes, count: int, seed: int) -> list[bytes]:
    """The section with one or two bytes changed, most of them near its beginning, or cut."""
    generator = random.Random(seed)
    results = []
    for _ in range(count):
        changed = bytearray(section)
        for _ in range(generator.choice([1, 1, 2])):
            position = generator.randrange(generator.choice([min(len(section), 12), len(section)]))
            bit = 1 << generator.randrange(8)
            changed[position] = generator.choice(
                [changed[position] ^ bit, generator.randrange(256)]
            )
        results.append(bytes(changed[: generator.choice([None] * 15 + [-1])]))
    return results


SECTIONS: list[tuple[str, Tensor, dict[str, Any]]] = [
    ("planes", golden.few_values(torch.int16, 400, seed=1), {}),
    ("planes", golden.segments(2)[:4000], {}),
    ("planes", torch.arange(600).remainder(9).eq(3) * gradient(600), {}),
    ("scale", gradient(17, 20), {}),
    ("scale", sprinkled(gradient(200, dtype=torch.float64), special_floats(torch.float64)), {}),
    ("scale", golden.values(300, torch.bfloat16).abs(), {}),
    ("lowrank", golden.with_dead_lines(golden.low_rank(40, 36, 2, dtype=FLOATS[2], seed=1)), {}),
    ("lowrank", golden.low_rank_convolution(10, 14, 2, dtype=torch.float16, seed=2), {}),
    ("lmgc", shortened(gradient(4, 20)), {"lane_elements": 30}),
    ("lmgc", shortened(gradient(100)), {"separator": "comma", "bytes_per_group": 3}),
    ("lmgc", torch.cat([gradient(80), torch.zeros(40), -torch.zeros(9)]), {"lane_elements": 60}),
    ("lmgc", gradient(40, dtype=torch.float16).to(torch.float64), {"byte_order": "little"}),
    ("lmgc", shortened(gradient(100)), {"window": "sliding", "lane_elements": 60}),
    ("lmgc", golden.few_values(torch.uint8, 200, seed=1), {"byte_order": "big"}),
]


@pytest.mark.parametrize(
    ("method", "tensor", "options"), SECTIONS, ids=lambda value: str(value)[:9]
)
def test_both_read_changed_sections_alike(
    method: str, tensor: Tensor, options: dict[str, Any], prior: BothPriors
):
    """Sections that no encoder writes mean the same to both, or nothing to both.

    What the reference makes of the section is stated as the tensor's checksum, so that the
    operators have to agree bit for bit.
    """
    real = to_bytes(compress([tensor], method=method, prior=prior.operators, **options))
    header = ref_frame.read_header(real)
    assert header.records[0].method == method
    codes = {name: code for code, name in ref_frame.DTYPE_OF_CODE.items()}
    dtype = codes[header.records[0].dtype]
    block = None
    if header.prior is not None:
        fields = ref_common.ByteReader(real[11:])  # behind the empty metadata
        ref_frame.read_prior_block(fields, real[4])
        block = real[11 : 11 + fields.position]

    def frame_of(section: bytes, data: bytes) -> bytes:
        code = ref_frame.METHODS.index(method)
        record = Record(tuple(tensor.shape), section, dtype, code, helpers.checksum(data))
        return frame_by_hand([record], prior=block, version=real[4])

    def read(section: bytes) -> list[bytes]:
        record = ref_frame.Record(
            header.records[0].dtype, method, tuple(tensor.shape), 0, len(section)
        )
        if method in ref_frame.FIXED:
            predicted = method == "lowrank"
            return [fixed.FixedSection(section, record.sizes, record.element, predicted).decode()]
        if header.prior is None:
            return [ref_planes.decode_planes(section, record)]
        return [ref_lmgc.LmgcSection(section, record, header.prior, prior.module).decode()]

    section = real[header.size :]
    assert frame_of(section, to_bytes(bits(tensor))) == real
    read_at_all = 0
    for changed in changed_sections(section, 40, seed=1):
        reference = outcome(lambda changed=changed: read(changed))
        data = reference[0] if isinstance(reference, list) else b""
        operators = by_operators(frame_of(changed, data), prior)
        if isinstance(reference, list):
            assert operators == reference, changed.hex()
            read_at_all += 1
        else:  # it is not the tensor's checksum alone that stops the operators
            by_chance = isinstance(operators, list) or "data differ" in operators
            assert not by_chance, (changed.hex(), reference)
    assert read_at_all > 0 or method == "planes"
