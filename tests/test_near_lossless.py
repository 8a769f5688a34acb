"""Tunable loss: what is promised of every element, and that the lossless methods profit."""

from __future__ import annotations

import math
import pickle

import helpers
import pytest
import torch
from helpers import FLOATS, WORDS, identical, ops
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lmgc_torch import compress, decompress, near_lossless
from lmgc_torch.near_lossless import (
    AbsoluteBound,
    BlockBits,
    ErrorFeedback,
    KeepBits,
    Loss,
    RelativeBound,
    Threshold,
    TopK,
)

LOSSES: list[Loss] = [
    KeepBits(0),
    KeepBits(3),
    KeepBits(7),
    KeepBits(99),
    RelativeBound(0.9),
    RelativeBound(0.01),
    RelativeBound(2.0**-9),
    AbsoluteBound(1e-3),
    AbsoluteBound(1e-30),
    AbsoluteBound(3e38),
    BlockBits(2),
    BlockBits(8, block=7),
    BlockBits(24, block=16),
    Threshold(0.0),
    Threshold(0.01),
    TopK(0.01),
    TopK(0.3),
    TopK(1.0),
]


def words_of(tensor: Tensor) -> Tensor:
    return tensor.view(WORDS[tensor.dtype.itemsize])


def any_words(dtype: torch.dtype, seed: int, count: int = 300) -> Tensor:
    """Words of all kinds: any bits, subnormals, extremes, zeros, infinities, NaNs with payload."""
    generator = torch.Generator().manual_seed(seed)
    data = torch.randint(0, 256, (count * dtype.itemsize,), generator=generator, dtype=torch.uint8)
    tensor = data.view(dtype)
    info = torch.finfo(dtype)
    near = (torch.randn(count, generator=generator, dtype=torch.float64) * 0.01).to(dtype)
    tensor = torch.where(torch.rand(count, generator=generator) < 0.4, near, tensor)
    tiny = (torch.randn(count, generator=generator, dtype=torch.float64) * info.tiny).to(dtype)
    tensor = torch.where(torch.rand(count, generator=generator) < 0.1, tiny, tensor)
    picks = [0.0, -0.0, info.max, info.min, info.tiny, -info.smallest_normal, math.inf, -math.inf]
    picks += [math.nan, info.smallest_normal / 2, 1.0, -1.5]
    tensor[: len(picks)] = torch.tensor(picks, dtype=dtype)
    words_of(tensor)[len(picks)] = -1  # a NaN with all bits set
    return tensor


@pytest.fixture(params=FLOATS, ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


# ---- of every element ----------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_promises_of_all(loss: Loss, dtype: torch.dtype):
    for seed in range(8):
        tensor = any_words(dtype, seed).view(20, 15)
        before = tensor.clone()
        changed = loss(tensor)
        assert identical(tensor, before)
        assert changed.dtype == dtype
        assert changed.shape == tensor.shape
        special = ~tensor.isfinite()
        assert torch.equal(words_of(changed)[special], words_of(tensor)[special])
        assert changed[~special].isfinite().all()
        vanished = (changed == 0) & (tensor != 0)
        assert (words_of(changed)[vanished] == 0).all()
        assert ((changed.signbit() == tensor.signbit()) | (changed == 0) | special).all()
        assert identical(loss(changed), changed)


def doubles(tensor: Tensor) -> Tensor:
    return torch.where(tensor.isfinite(), tensor, 0).double()


def check_bounds(tensor: Tensor, bits: int, absolute: float) -> None:
    """All bounds, in double; float64 is checked where that is exact."""
    info = torch.finfo(tensor.dtype)
    exact = doubles(tensor)
    kept = doubles(KeepBits(bits)(tensor))
    largest = (2 - 2.0 ** -min(bits, mantissa_of(tensor.dtype))) * 2.0 ** (
        math.frexp(info.max)[1] - 1
    )
    inside = exact.abs() <= largest
    limit = exact.abs().clamp_min(info.smallest_normal) * 2.0 ** -(bits + 1)
    assert ((kept - exact).abs() <= limit)[inside].all()
    assert (kept.abs() == largest)[~inside].all()

    relative = RelativeBound(2.0 ** -(bits + 1))
    assert relative.bits == bits
    assert ((doubles(relative(tensor)) - exact).abs() <= exact.abs() * 2.0 ** -(bits + 1)).all()
    assert ((doubles(AbsoluteBound(absolute)(tensor)) - exact).abs() <= absolute).all()

    blocks = BlockBits(bits + 2, block=9)
    rounded = doubles(blocks(tensor))
    for i in range(0, tensor.numel(), 9):
        own = slice(i, i + 9)
        limit = rounded[own].abs().max() * 2.0 ** (1 - bits - 2)
        assert ((rounded - exact)[own].abs() <= limit).all()


def mantissa_of(dtype: torch.dtype) -> int:
    return {torch.float16: 10, torch.bfloat16: 7, torch.float32: 23, torch.float64: 52}[dtype]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    kind=st.sampled_from(FLOATS),
    bits=st.integers(0, 22),
    absolute=st.one_of(st.floats(1e-12, 1e6), st.floats(1e-300, 1e300)),
)
def test_bounds(seed: int, kind: torch.dtype, bits: int, absolute: float):
    check_bounds(any_words(kind, seed), bits, absolute)


def test_rounding_is_to_nearest_even(dtype: torch.dtype):
    """Every word of two of the types; of the others some."""
    if dtype.itemsize == 2:
        tensor = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)
    else:
        tensor = any_words(dtype, 3, 20000)
    p, info = mantissa_of(dtype), torch.finfo(dtype)
    for bits in (0, 2, p - 1, p, p + 5):
        kept = KeepBits(bits)(tensor)
        finite = tensor.isfinite()
        exact = tensor[finite].double()
        least = math.frexp(info.smallest_normal)[1] - 1
        exponents = (torch.frexp(exact).exponent - 1).clamp_min(least)
        unit = 2.0 ** (exponents - min(bits, p)).double()
        expected = torch.round(exact / unit) * unit  # torch rounds to even, too
        largest = (2 - 2.0 ** -min(bits, p)) * 2.0 ** (math.frexp(info.max)[1] - 1)
        expected = expected.clamp(-largest, largest)
        assert torch.equal(kept[finite].double(), expected)


def test_steps_of_absolute_bounds():
    tensor = torch.tensor([0.5, 1.5, 2.5, -0.49, 1.26, 3.0, 1e30, -0.0])
    rounded = AbsoluteBound(0.5)(tensor)
    assert rounded[:6].tolist() == [0.0, 2.0, 2.0, 0.0, 1.0, 3.0]
    assert rounded[6] == tensor[6]
    assert AbsoluteBound(0.7).step == 0
    assert AbsoluteBound(1.0).step == 1
    assert AbsoluteBound(0.25)(tensor[:5]).tolist() == [0.5, 1.5, 2.5, -0.5, 1.5]


def test_blocks_have_steps_of_their_own():
    tensor = torch.tensor([[100.0, 1.0, 0.1, 3.0, 0.02], [0.0, 0.0, 0.0, 1e-3, 7e-4]])
    assert BlockBits(4, block=3)(tensor).tolist() == [
        [96.0, 0.0, 0.0, 3.0, 0.0],
        [0.0, 0.0, 0.0, *BlockBits(4)(tensor[1, 3:]).tolist()],
    ]
    assert BlockBits(4)(torch.tensor([15.5, 4.2])).tolist() == [16.0, 4.0]  # the largest one rises
    assert BlockBits(8)(torch.tensor(3.3)).item() == 3.3125
    assert BlockBits(8)(torch.empty(0, 3)).shape == (0, 3)
    infinite = torch.tensor([math.inf, 3.3, math.nan])
    assert BlockBits(8)(infinite)[1] == 3.3125


def test_sparsification(dtype: torch.dtype):
    tensor = torch.tensor([3.0, -1.0, 0.5, -3.0, 2.0, -0.0, 1.0, math.nan], dtype=dtype)
    assert TopK(0.125)(tensor)[:7].tolist() == [3.0, 0, 0, 0, 0, 0, 0]  # the first of two
    assert TopK(0.25)(tensor)[:7].tolist() == [3.0, 0, 0, -3.0, 0, 0, 0]
    assert TopK(0.5)(tensor)[:7].tolist() == [3.0, -1.0, 0, -3.0, 2.0, 0, 0]
    assert TopK(1e-9)(tensor)[:7].tolist() == [3.0, *[0] * 6]
    assert Threshold(1.0)(tensor)[:7].tolist() == [3.0, -1.0, 0, -3.0, 2.0, 0, 1.0]
    assert Threshold(1.0 + 1e-14)(tensor)[:7].tolist() == [3.0, 0, 0, -3.0, 2.0, 0, 0]
    assert identical(Threshold(0.0)(tensor), tensor)
    assert TopK(0.5)(torch.empty(0, dtype=dtype)).numel() == 0
    for loss in (TopK(0.25), Threshold(1.0)):
        assert words_of(loss(tensor))[5] == 0
        assert identical(loss(tensor)[-1], tensor[-1])


# ---- structures and arguments --------------------------------------------------------------------


def test_structures():
    loss, tensor = KeepBits(2), torch.tensor([1.3, 2.7], requires_grad=True)
    counter = torch.tensor(3)
    changed = loss({"a": tensor, "b": [tensor, (counter,)]})
    assert not changed["a"].requires_grad
    assert changed["a"].tolist() == [1.25, 2.5]
    assert changed["b"][1][0] is counter
    transposed = torch.arange(12.0).view(3, 4).t() + 0.3
    assert identical(loss(transposed), loss(transposed.contiguous()))
    with pytest.raises(TypeError, match="expected tensors, got str"):
        loss("tensor")  # type: ignore[type-var]
    with pytest.raises(TypeError, match="expected tensors, got int"):
        loss([3])  # type: ignore[list-item]
    for name in near_lossless.__all__:
        assert hasattr(near_lossless, name)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: KeepBits(-1), "bits is -1"),
        (lambda: RelativeBound(0), "bound is 0"),
        (lambda: RelativeBound(1), "bound is 1"),
        (lambda: RelativeBound(math.nan), "bound is nan"),
        (lambda: AbsoluteBound(-1), "bound is -1"),
        (lambda: AbsoluteBound(math.inf), "bound is inf"),
        (lambda: BlockBits(1), "bits is 1"),
        (lambda: BlockBits(8, 0), "block is 0"),
        (lambda: Threshold(-1), "least is -1"),
        (lambda: TopK(0), "fraction is 0"),
        (lambda: TopK(1.1), "fraction is 1.1"),
        (lambda: ops().round_mantissas(torch.ones(2), -1), "bits is -1"),
        (lambda: ops().round_mantissas(torch.ones(2, dtype=torch.int32), 1), "only floats"),
        (lambda: ops().round_to_powers(torch.ones(2), torch.zeros(1), 1), "must be int32"),
        (lambda: ops().round_to_powers(torch.ones(2), torch.zeros(1).int(), 0), "block is 0"),
        (lambda: ops().round_to_powers(torch.ones(3, 5), torch.zeros(5).int(), 2), "5 exponents"),
    ],
)
def test_bad_arguments(make, says: str):
    with pytest.raises((ValueError, RuntimeError), match=says):
        make()


# ---- with the lossless methods -------------------------------------------------------------------


@pytest.mark.parametrize("method", ["scale", "lowrank"])
def test_spare_bits_are_not_stored(method: str):
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(64, 5, generator=generator) @ torch.randn(5, 80, generator=generator)
    matrix = matrix + 0.01 * torch.randn(64, 80, generator=generator)
    single = matrix.bfloat16().float()
    sizes = {}
    for name, tensor in {"bfloat16": matrix.bfloat16(), "float32": single}.items():
        frame = compress([tensor], method=method)
        assert identical(decompress(frame)[0], tensor)
        sizes[name] = frame.numel()
    assert abs(sizes["float32"] - sizes["bfloat16"]) <= 4 + sizes["bfloat16"] // 100
    assert identical(KeepBits(7)(matrix), single)

    before = compress([matrix], method=method).numel()
    for loss in (KeepBits(5), AbsoluteBound(2.0**-5), BlockBits(8), BlockBits(8, block=80)):
        rounded = loss(matrix)
        frame = compress([rounded], method=method)
        assert identical(decompress(frame)[0], rounded)
        assert frame.numel() < before / 2, loss


@pytest.mark.parametrize("method", ["auto", "scale", "lowrank", "lm"])
@pytest.mark.parametrize("loss", [KeepBits(3), AbsoluteBound(1e-4), BlockBits(6, 32), TopK(0.05)])
def test_rounded_tensors_come_back(loss: Loss, method: str, dtype: torch.dtype):
    tensors = [any_words(dtype, seed).view(12, 25) for seed in range(2)]
    tensors.append((torch.randn(30, 40, dtype=torch.float64) * 1e-3).to(dtype))
    rounded = loss(tensors)
    assert helpers.all_identical(decompress(compress(rounded, method=method)), rounded)


# ---- error feedback ------------------------------------------------------------------------------


def test_what_is_lost_comes_later():
    """Integers: all sums are exact, so that what was sent and what is left is what came in."""
    feedback = ErrorFeedback(TopK(0.1))
    generator = torch.Generator().manual_seed(5)
    put, sent = torch.zeros(20, 10), torch.zeros(20, 10)
    for _ in range(30):
        gradient = torch.randint(-50, 50, (20, 10), generator=generator).float()
        put += gradient
        out = feedback({"weight": gradient})["weight"]
        assert (out != 0).sum() <= 20
        sent += out
    left = feedback.state_dict()["weight"]
    assert torch.equal(sent + left, put)
    assert left.abs().max() > 0


@pytest.mark.parametrize("loss", [KeepBits(2), AbsoluteBound(0.25), BlockBits(4, 8)], ids=str)
def test_rounding_loses_nothing_in_the_long_run(loss: Loss, dtype: torch.dtype):
    feedback, generator = ErrorFeedback(loss), torch.Generator().manual_seed(6)
    put = sent = torch.zeros(100, dtype=torch.float64)
    for _ in range(40):
        gradient = torch.randn(100, generator=generator).to(dtype)
        put = put + gradient.double()
        sent = sent + feedback(gradient).double()
    assert (sent + feedback.state_dict()[0] - put).abs().max() < 1e-4
    assert (sent - put).abs().max() < 1


def test_feedback_keeps_to_itself():
    feedback = ErrorFeedback(KeepBits(1))
    assert feedback([torch.tensor([1.3]), torch.tensor(7)])[1].item() == 7
    assert feedback.state_dict().keys() == {0}
    special = feedback([torch.tensor([math.nan])])[0]
    assert special.isnan().all()
    assert feedback.state_dict()[0].tolist() == [0.0]  # nothing is left of what is not finite
    feedback([torch.tensor([1.3])])
    with pytest.raises(ValueError, match=r"0 is torch.float32 \(2,\)"):
        feedback([torch.ones(2)])
    other = ErrorFeedback(feedback.loss)
    other.load_state_dict(pickle.loads(pickle.dumps(feedback.state_dict())))
    assert torch.equal(other([torch.tensor([0.4])])[0], feedback([torch.tensor([0.4])])[0])
    assert pickle.loads(pickle.dumps(feedback)).state_dict().keys() == {0}
    feedback.reset(0)
    assert feedback.state_dict() == {}
    with pytest.raises(TypeError, match="it must be a Loss"):
        ErrorFeedback(3)  # type: ignore[arg-type]
