"""Small tensors that are coded as one: what comes back, what is joined, and what damage does."""

from __future__ import annotations

import pytest
import torch
from helpers import (
    DTYPES,
    JoinedTensor,
    Record,
    all_identical,
    bits,
    checksum,
    frame_by_hand,
    from_bytes,
    gradient,
    op_info,
    ops,
    resealed,
    to_bytes,
    to_tensor,
)
from hypothesis import given
from hypothesis import strategies as st

import lmgc_torch
from lmgc_torch import (
    CorruptFrameError,
    PastFrame,
    Prior,
    TooLargeError,
    WarmStart,
    compress,
    decompress,
    info,
    reference,
)

OPS = ops()
pytestmark = pytest.mark.usefixtures("one_thread")

shapes = st.sampled_from(
    [(), (1,), (0,), (7,), (300,), (2, 3), (40, 30), (1, 5000), (30, 0), (9, 4, 3)]
)
lists = st.lists(st.tuples(st.sampled_from(DTYPES), shapes), max_size=12)


def small(
    count: int = 20, size: int = 500, dtype: torch.dtype = torch.float32
) -> list[torch.Tensor]:
    return [gradient(size, dtype=dtype, seed=i) for i in range(count)]


def joined(frame: torch.Tensor) -> list[bool]:
    return [tensor.joined for tensor in info(frame).tensors]


# ---- what comes back -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["planes", "scale", "lowrank", "auto"])
@given(kinds=lists, data=st.data())
def test_any_list_comes_back(method: str, kinds: list, data: st.DataObject):
    """To both decoders, whatever the bits, and in storages of their own."""
    random = data.draw(st.randoms(use_true_random=False))
    tensors = [
        from_bytes(random.randbytes(torch.Size(shape).numel() * dtype.itemsize), dtype, shape)
        for dtype, shape in kinds
    ]
    frame = compress(tensors, method=method)
    back = decompress(frame)
    assert all_identical(back, tensors)
    plain = reference.decode(to_bytes(frame))
    assert [one.data for one in plain] == [to_bytes(bits(tensor)) for tensor in tensors]
    assert [one.shape for one in plain] == [tuple(tensor.shape) for tensor in tensors]
    assert all(one.untyped_storage().nbytes() == one.nbytes for one in back)
    about = info(frame)
    assert about.header_bytes + sum(t.section_bytes for t in about.tensors) == about.bytes
    for tensor in about.tensors:
        assert sum(tensor.sections.values()) == tensor.section_bytes


def test_under_a_prior(residual_prior: Prior):
    tensors = [*small(6, 300), gradient(40, 30, seed=9)]
    tensors.insert(2, torch.arange(5))
    for method, prior in (("lm", residual_prior), ("auto", None)):
        frame = compress(tensors, method=method, prior=prior)
        assert all_identical(decompress(frame, prior=prior), tensors)
        assert sum(joined(frame)) == 6


def test_sequences():
    """Warm starts and past frames know records, of which every list has the same."""
    warm, sender, receiver, plain = WarmStart(), PastFrame(), PastFrame(), reference.Past()
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(96, 6, generator=generator)
    for step in range(3):
        matrix = left @ torch.randn(6, 80, generator=generator)
        matrix += 0.01 * torch.randn(96, 80, generator=generator)
        tensors = [gradient(40, seed=step), matrix, gradient(50, seed=step), torch.tensor(step)]
        frame = compress(tensors, method="lowrank", past=sender, warm_start=warm)
        assert info(frame).needs_past == (step > 0)
        assert joined(frame) == [True, False, True, False]
        assert all_identical(decompress(frame, past=receiver), tensors)
        told = reference.decode(to_bytes(frame), past=plain)
        assert [one.data for one in told] == [to_bytes(bits(tensor)) for tensor in tensors]


def test_in_inference_mode():
    frame = compress(small())
    with torch.inference_mode():
        assert all(tensor.is_inference() for tensor in decompress(frame))
    assert not any(tensor.is_inference() for tensor in decompress(frame))


# ---- what is joined ------------------------------------------------------------------------------


def test_tensors_of_one_type_are_joined_across_others():
    tensors = [torch.ones(3), gradient(80, 90), torch.arange(4), torch.ones(2), torch.arange(2)]
    frame = compress(tensors, method="planes")
    assert joined(frame) == [True, False, True, True, True]
    assert info(frame).version == 4
    assert "4 small tensors are coded as one with others" in str(info(frame))


def test_what_stays_alone():
    """Large ones, empty ones, the only one of its type, and for `scale` what has rows."""
    matrices = [gradient(20, 30, seed=i) for i in range(3)]
    lists = [
        ("planes", [torch.ones(5000), torch.ones(5000)]),
        ("planes", [torch.ones(0), torch.ones(0), torch.ones(3), torch.arange(3)]),
        ("scale", matrices),
        ("raw", small()),
        ("planes", [torch.ones(3)]),
        ("planes", []),
    ]
    for method, tensors in lists:
        frame = compress(tensors, method=method)
        assert not any(joined(frame))
        assert info(frame).version < 4
    assert all(joined(compress(matrices, method="planes")))
    now = [tensor * 1.001 for tensor in small()]
    assert not any(joined(compress(now, reference=small())))


def test_what_is_joined_does_not_depend_on_elements():
    one, other = small(), [torch.zeros(500) for _ in range(20)]
    assert joined(compress(one)) == joined(compress(other)) == [True] * 20


def test_groups_are_bounded():
    tensors = small(160, 4000, torch.bfloat16)
    frame = compress(tensors, method="planes")
    assert all(joined(frame))
    sections = frame_sections(frame)
    assert len(sections) == 2
    assert all_identical(decompress(frame), tensors)


def frame_sections(frame: torch.Tensor) -> list[int]:
    from lmgc_torch.reference_frame import read_header

    return [record.section_size for record in read_header(to_bytes(frame)).records]


@pytest.mark.parametrize("method", ["planes", "scale", "auto"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_smaller(method: str, dtype: torch.dtype):
    tensors = small(30, 300, dtype)
    together = compress(tensors, method=method)
    alone = sum(compress([tensor], method=method).numel() for tensor in tensors)
    assert together.numel() < 0.97 * alone
    assert all_identical(decompress(together), tensors)


# ---- bytes that are wrong ------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["planes", "scale"])
def test_damage_is_told_by_both(method: str):
    tensors = [*small(3, 60), torch.arange(6), torch.arange(9)]
    good = to_bytes(compress(tensors, method=method))
    plain = sorted(to_bytes(bits(tensor)) for tensor in tensors)
    header = int.from_bytes(good[6:10], "little")
    for place in range(len(good)):
        flipped = good[:place] + bytes([good[place] ^ 1 << place % 8]) + good[place + 1 :]
        for bad in (good[:place], flipped):
            with pytest.raises(CorruptFrameError):
                decompress(bad)
            if len(bad) < header:
                continue
            told = []
            for decode in (
                lambda frame: [to_bytes(bits(one)) for one in decompress(frame)],
                lambda frame: [one.data for one in reference.decode(frame)],
            ):
                try:
                    told.append(decode(resealed(bad)))
                except CorruptFrameError:
                    told.append(None)
            assert told[0] == told[1]
            # A header that is sealed anew may say that they come in another order.
            assert told[0] is None or sorted(told[0]) == plain


def by_hand(*tensors: JoinedTensor, section: bytes = bytes(12), **options) -> bytes:
    record = Record((), section, joined=tensors)
    return frame_by_hand([record], **{"version": 4, **options})


def test_headers_by_hand():
    def of(skipped: int, *sizes: int) -> JoinedTensor:
        size = 4 * torch.Size(sizes).numel()
        return JoinedTensor(skipped, sizes, checksum(bytes(size)))

    zeros = [torch.zeros(2), torch.tensor(0.0)]
    assert all_identical(OPS.decompress(to_tensor(by_hand(of(0, 2), of(0)))), zeros)
    bad = {
        "one": by_hand(of(0, 3)),
        "empty": by_hand(of(0, 3), of(0, 0)),
        "place": by_hand(of(0, 2), of(1)),
        "far": by_hand(of(0, 2), of(2**64 - 1)),
        "large": by_hand(of(0, 2), JoinedTensor(0, (2**62,))),
        "sum": by_hand(JoinedTensor(0, (2**60,)), JoinedTensor(0, (2**60,))),
        "section": by_hand(of(0, 2), of(0), section=bytes(16)),
        "version": by_hand(of(0, 2), of(0), version=3),
        "checksum": by_hand(of(0, 2), JoinedTensor(0, (), 5)),
        "same place": frame_by_hand(
            [Record((), bytes(12), joined=(of(0, 2), of(0)))] * 2, version=4
        ),
        "dimensions": by_hand(of(0, 2), JoinedTensor(0, (1,) * 65)),
    }
    for name, frame in bad.items():
        with pytest.raises(CorruptFrameError):
            decompress(frame)
        with pytest.raises(CorruptFrameError):
            reference.decode(frame)
        assert name


def test_limits():
    tensors = small()
    frame = compress(tensors)
    size = sum(tensor.nbytes for tensor in tensors)
    assert all_identical(decompress(frame, max_bytes=size), tensors)
    with pytest.raises(TooLargeError):
        decompress(frame, max_bytes=size - 1)
    with pytest.raises(TooLargeError):
        reference.decode(to_bytes(frame), max_bytes=size - 1)


def test_a_tensor_is_named_by_its_place():
    tensors = [torch.arange(3), *small(3)]
    frame = bytearray(to_bytes(compress(tensors, method="planes")))
    told = op_info(to_tensor(bytes(frame)))["tensors"]
    assert [one["joined"] for one in told] == [False, True, True, True]
    frame[-1] ^= 1
    with pytest.raises(CorruptFrameError, match=r"tensor [123] \(float32, planes\)"):
        decompress(resealed(bytes(frame)))
    assert lmgc_torch.info(compress(tensors)).tensors[0].method in ("raw", "planes")
