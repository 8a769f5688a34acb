"""Methods scale and lowrank: every float comes back, whatever its tensor looks like."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from helpers import (
    FLOATS,
    all_identical,
    bits,
    from_bytes,
    identical,
    op_info,
    ops,
    python,
    to_bytes,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from lmgc_torch import reference_fixed
from lmgc_torch import reference_frame as ref_frame

OPS = ops()
METHODS = ["scale", "lowrank", "auto"]
PARTS = {"side", "digits", "escapes", "tails"}

every_method = pytest.mark.parametrize("method", METHODS)
every_dtype = pytest.mark.parametrize("dtype", FLOATS, ids=str)


pytestmark = pytest.mark.usefixtures("one_thread")


# ---- tensors of all kinds ------------------------------------------------------------------------


def noise(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spread(shape: tuple[int, ...], seed: int, octaves: float) -> torch.Tensor:
    """A factor for every row (of dimension 0)."""
    ones = [1] * (len(shape) - 1)
    return torch.exp2(octaves * noise(*shape[:1], *ones, seed=seed + 100))


def low_rank(shape: tuple[int, ...], seed: int, noise_level: float) -> torch.Tensor:
    rows, rest = shape[0], torch.Size(shape[1:]).numel()
    rank = 1 + seed % 3
    product = noise(rows, rank, seed=seed) @ noise(rank, rest, seed=seed + 1)
    return (product + noise_level * noise(rows, rest, seed=seed + 2)).view(shape)


def sparse_lines(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    values = noise(*shape, seed=seed)
    for dimension, size in enumerate(shape[:2]):
        dead = torch.rand(size, generator=torch.Generator().manual_seed(seed + dimension)) < 0.6
        values.index_fill_(dimension, dead.nonzero().flatten(), 0)
    return values


def special(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Some of everything among ordinary values; without payloads."""
    values = noise(*shape, seed=seed)
    picks = [0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1e300, -1e-300, 1e38, 5e-324]
    flat = values.view(-1)
    for i in range(0, flat.numel(), 3 + seed % 20):
        flat[i] = picks[(i + seed) % len(picks)]
    return values


def extreme(dtype: torch.dtype, shape: tuple[int, ...], seed: int, largest: bool) -> torch.Tensor:
    limits = torch.finfo(dtype)
    if largest:
        return (noise(*shape, seed=seed) / 4).clamp(-1, 1) * limits.max
    return noise(*shape, seed=seed) * limits.tiny / 4  # subnormal


Make = Callable[[torch.dtype, tuple[int, ...], int], torch.Tensor]
KINDS: dict[str, Make] = {
    "noise": lambda dtype, shape, seed: noise(*shape, seed=seed),
    "rows": lambda dtype, shape, seed: noise(*shape, seed=seed) * spread(shape, seed, 4),
    "low rank": lambda dtype, shape, seed: low_rank(shape, seed, 0.03),
    "low rank, rows": lambda dtype, shape, seed: (
        low_rank(shape, seed, 0.1) * spread(shape, seed, 3)
    ),
    "exactly low rank": lambda dtype, shape, seed: low_rank(shape, seed, 0),
    "sparse lines": lambda dtype, shape, seed: sparse_lines(shape, seed),
    "half zeros": lambda dtype, shape, seed: noise(*shape, seed=seed).clamp_min(0),
    "minus zeros": lambda dtype, shape, seed: -noise(*shape, seed=seed).clamp_min(0),
    "zero": lambda dtype, shape, seed: torch.zeros(shape),
    "constant": lambda dtype, shape, seed: torch.full(shape, 0.1 * (seed + 1)),
    "integers": lambda dtype, shape, seed: (noise(*shape, seed=seed) * 20).round(),
    "special": lambda dtype, shape, seed: special(shape, seed),
    "subnormal": lambda dtype, shape, seed: extreme(dtype, shape, seed, False),
    "near the largest": lambda dtype, shape, seed: extreme(dtype, shape, seed, True),
    "low rank, large": lambda dtype, shape, seed: (
        (low_rank(shape, seed, 0.01) / 64).clamp(-1, 1) * torch.finfo(dtype).max
    ),
    "low rank, tiny": lambda dtype, shape, seed: (
        low_rank(shape, seed, 0.01) * torch.finfo(dtype).tiny * 8
    ),
}


def any_bits(dtype: torch.dtype, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Every bit at random: NaNs with payloads among them."""
    size = torch.Size(shape).numel() * dtype.itemsize
    generator = torch.Generator().manual_seed(seed)
    return from_bytes(
        to_bytes(torch.randint(0, 256, (size,), generator=generator).byte()), dtype, shape
    )


def strided(tensor: torch.Tensor, layout: str) -> torch.Tensor:
    """The same values, or some of them, laid out otherwise."""
    if layout == "transposed" and tensor.dim() > 1:
        return tensor.transpose(0, 1)
    if layout == "every second" and tensor.dim() > 0:
        return tensor[::2]
    if layout == "expanded":
        return tensor[:1].expand(tensor.shape) if tensor.dim() > 0 else tensor.expand(3, 20)
    if layout == "moved":
        moved = torch.zeros(tensor.numel() + 1, dtype=tensor.dtype)[1:].view(tensor.shape)
        return moved.copy_(tensor)
    if layout == "channels last" and tensor.dim() == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor


small = st.integers(1, 40)
shapes = st.one_of(
    st.just(()),
    st.tuples(st.integers(0, 3000)),
    st.tuples(small, small),
    st.tuples(st.integers(30, 70), st.integers(30, 70)),  # large enough for a prediction
    st.tuples(st.just(1), st.integers(1, 2000)),
    st.tuples(st.integers(1, 2000), st.just(1)),
    st.tuples(st.integers(2, 5), st.integers(2000, 4000)),
    st.tuples(st.integers(2000, 4000), st.integers(2, 18)),
    st.tuples(small, st.integers(0, 9), small),
    st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 3), st.integers(1, 3)),
)
layouts = st.sampled_from(
    ["contiguous"] * 3 + ["transposed", "every second", "expanded", "moved", "channels last"]
)


@st.composite
def float_tensors(draw: st.DrawFn) -> torch.Tensor:
    dtype, shape = draw(st.sampled_from(FLOATS)), draw(shapes)
    seed = draw(st.integers(0, 1000))
    kind = draw(st.sampled_from([*KINDS, "any bits"]))
    if kind == "any bits" or not shape:
        tensor = any_bits(dtype, shape, seed)
    else:
        tensor = KINDS[kind](dtype, shape, seed).to(dtype)
    return strided(tensor, draw(layouts))


def size_of(tensor: torch.Tensor, method: str) -> int:
    """The size of its frame, which decodes."""
    before = bits(tensor).clone()
    frame = OPS.compress([tensor], method=method)
    (back,) = OPS.decompress(frame)
    assert identical(back, tensor)
    assert torch.equal(bits(tensor), before)  # inputs are never modified
    assert frame.numel() <= bits(tensor).numel() * 1.001 + 64
    return frame.numel()


# ---- round trips ---------------------------------------------------------------------------------


@settings(max_examples=300)
@given(tensor=float_tensors())
def test_any_tensor_comes_back(tensor: torch.Tensor):
    sizes = {method: size_of(tensor, method) for method in ["raw", "planes", *METHODS]}
    for method in METHODS:
        assert sizes[method] <= sizes["raw"]
    assert sizes["auto"] <= min(sizes["planes"], sizes["lowrank"])


@settings(max_examples=300)
@given(tensor=float_tensors())
def test_a_prediction_is_never_larger_than_none(tensor: torch.Tensor):
    sizes = {method: OPS.compress([tensor], method=method).numel() for method in METHODS}
    assert sizes["lowrank"] <= sizes["scale"]
    assert sizes["auto"] <= sizes["scale"]


@every_dtype
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_as_a_matrix_and_as_a_kernel(kind: str, dtype: torch.dtype):
    for shape in [(48, 60), (60, 48), (16, 24, 3, 3), (900,)]:
        tensor = KINDS[kind](dtype, shape, 5).to(dtype)
        sizes = {method: size_of(tensor, method) for method in ["raw", "planes", *METHODS]}
        assert sizes["lowrank"] <= sizes["scale"] <= sizes["raw"]
        assert sizes["auto"] == min(sizes.values())


@settings(max_examples=60)
@given(
    tensors=st.lists(float_tensors(), max_size=4),
    others=st.lists(
        st.sampled_from([torch.int64, torch.uint8, torch.bool, torch.complex64, torch.int16]),
        max_size=3,
    ),
    method=st.sampled_from(METHODS),
)
def test_lists_of_mixed_types(tensors: list[torch.Tensor], others: list[torch.dtype], method: str):
    given_tensors = tensors + [torch.arange(700).remainder(3).to(dtype) for dtype in others]
    frame = OPS.compress(given_tensors, method=method)
    assert all_identical(OPS.decompress(frame), given_tensors)
    for told, tensor in zip(op_info(frame)["tensors"], given_tensors, strict=True):
        if not tensor.is_floating_point():
            assert told["method"] in ("planes", "raw")
        elif method != "auto":
            assert told["method"] in ("scale", "raw", *([method] if method == "lowrank" else []))


@every_method
def test_several_blocks(method: str):
    """Blocks hold 65536 elements: rows that lie across them, and whole blocks in one row."""
    for shape in [(300, 700), (2, 100_000), (70_000, 17)]:
        tensor = low_rank(shape, 1, 0.05).float()
        size_of(tensor, method)


def test_a_view_of_dimension_1():
    """Kernels whose input channels, not whose output channels, are alike."""
    values = low_rank((24, 20 * 9), 2, 0.01).view(24, 20, 3, 3).transpose(0, 1).contiguous()
    frame = OPS.compress([values.float()], method="lowrank")
    (told,) = op_info(frame)["tensors"]
    assert told["method"] == "lowrank"
    assert frame.numel() < 0.8 * OPS.compress([values.float()], method="scale").numel()
    assert identical(OPS.decompress(frame)[0], values.float())


# ---- what pays -----------------------------------------------------------------------------------


def test_predictions_pay_where_there_is_something_to_predict():
    nearly, pure = low_rank((128, 256), 1, 0.02).float(), noise(128, 256, seed=3).float()
    sizes = {method: size_of(nearly, method) for method in ["planes", "scale", "lowrank"]}
    assert sizes["lowrank"] < 0.85 * min(sizes["planes"], sizes["scale"])
    (told,) = op_info(OPS.compress([nearly], method="lowrank"))["tensors"]
    assert told["method"] == "lowrank"
    assert 1 <= told["rank"] < 20
    assert told["sections"]["side"] > 0
    (told,) = op_info(OPS.compress([pure], method="lowrank"))["tensors"]
    assert (told["method"], told["rank"]) == ("scale", 0)


@pytest.mark.parametrize("side", [4, 8, 11, 12, 13, 16, 40])
def test_noise_has_no_rank(side: int):
    """A prediction that nearly as many components as rows make up costs more than it saves."""
    for tensor in (noise(side, 1500, seed=side).float(), noise(900, side + 5, seed=side).half()):
        frames = [OPS.compress([tensor], method=method) for method in ("lowrank", "scale")]
        assert frames[0].numel() <= frames[1].numel()


def test_scales_pay_where_rows_differ():
    tensor = (noise(256, 256, seed=4) * spread((256, 256), 4, 4)).float()
    assert size_of(tensor, "scale") < size_of(tensor, "planes")


@every_dtype
@pytest.mark.parametrize("shape", [(0,), (4, 0), (64, 64), (1,), (5000,), (8, 8, 3, 3)])
def test_zeros_take_next_to_nothing(shape: tuple[int, ...], dtype: torch.dtype):
    for method in METHODS:
        size = size_of(torch.zeros(shape, dtype=dtype), method)
        assert size <= 64 + torch.Size(shape).numel() / 20


@settings(max_examples=60)
@given(tensor=float_tensors())
def test_sections_add_up(tensor: torch.Tensor):
    frame = OPS.compress([tensor, tensor.clone()], method="lowrank")
    about = op_info(frame)
    assert about["header_bytes"] + sum(t["section_bytes"] for t in about["tensors"]) == len(frame)
    for told in about["tensors"]:
        assert sum(told["sections"].values()) == told["section_bytes"]
        assert told["raw_bytes"] == bits(tensor).numel()
        if told["method"] in ("scale", "lowrank"):
            assert set(told["sections"]) == PARTS
            assert (told["rank"] > 0) == (told["method"] == "lowrank")


# ---- predictions of two limbs --------------------------------------------------------------------


def bound_of(frame: torch.Tensor) -> int:
    """The bound of the product in a frame of one matrix of method lowrank."""
    data = to_bytes(frame)
    (record,) = (header := ref_frame.read_header(data)).records
    assert record.method == "lowrank"
    section = reference_fixed.FixedSection(data[header.size :], record.sizes, record.element, True)
    section.decode()
    return section.low_rank.bound


@pytest.mark.parametrize("shape", [(40, 60), (128, 128), (100, 40), (12, 16, 3, 3)])
def test_products_beyond_a_double(shape: tuple[int, ...]):
    """Doubles of exactly low rank are predicted to their last bits: a product of more than 53."""
    tensor = low_rank(shape, 2, 0)
    frame = OPS.compress([tensor], method="lowrank")
    assert identical(OPS.decompress(frame)[0], tensor)
    assert bound_of(frame) >= 2**53
    assert frame.numel() < 0.6 * bits(tensor).numel()


# ---- whatever the caller's context is ------------------------------------------------------------

MATRICES = [
    low_rank((80, 120), 1, 0.02).float(),
    low_rank((48, 64), 2, 0),
    low_rank((64, 64), 3, 0.05).bfloat16(),
    sparse_lines((40, 60), 4).half(),
]

CONTEXTS: dict[str, Callable[[], AbstractContextManager]] = {
    "none": nullcontext,
    "autocast to bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast to half": lambda: torch.autocast("cpu", torch.float16),
    "no_grad": torch.no_grad,
    "enable_grad": torch.enable_grad,
    "inference_mode": torch.inference_mode,
    "deterministic": lambda: deterministic(),
}


class deterministic:  # noqa: N801
    def __enter__(self) -> None:
        torch.use_deterministic_algorithms(True)

    def __exit__(self, *_: object) -> None:
        torch.use_deterministic_algorithms(False)


@every_method
@pytest.mark.parametrize("decoding", CONTEXTS)
@pytest.mark.parametrize("encoding", CONTEXTS)
def test_contexts(encoding: str, decoding: str, method: str):
    """Nothing that surrounds a call changes its bytes, nor what they decode to."""
    expected = OPS.compress(MATRICES, method=method)
    with CONTEXTS[encoding]():
        frame = OPS.compress(MATRICES, method=method)
    assert torch.equal(frame, expected)
    with CONTEXTS[decoding]():
        assert all_identical(OPS.decompress(frame), MATRICES)


@pytest.mark.parametrize("precision", ["medium", "high", "highest"])
def test_precisions_of_matrix_products(precision: str):
    before = torch.get_float32_matmul_precision()
    frames = [OPS.compress(MATRICES, method="lowrank")]
    try:
        torch.set_float32_matmul_precision(precision)
        frames.append(OPS.compress(MATRICES, method="lowrank"))
        for frame in frames:
            assert all_identical(OPS.decompress(frame), MATRICES)
    finally:
        torch.set_float32_matmul_precision(before)
    for frame in frames:
        assert all_identical(OPS.decompress(frame), MATRICES)


def test_inputs_that_want_gradients_or_are_of_inference_mode():
    with torch.inference_mode():
        inferred = MATRICES[0] * 1
    wanted = MATRICES[0].clone().requires_grad_()
    for tensor in (inferred, wanted):
        frame = OPS.compress([tensor], method="lowrank")
        assert torch.equal(frame, OPS.compress([MATRICES[0]], method="lowrank"))
        (back,) = OPS.decompress(frame)
        assert not back.requires_grad
        assert not back.is_inference()
        assert identical(back, MATRICES[0])


def test_results_are_of_inference_mode_where_the_caller_is():
    """Those that other threads decode as well."""
    threads = torch.get_num_threads()
    frame = OPS.compress([MATRICES[0]] * 40, method="planes")
    try:
        torch.set_num_threads(4)
        with torch.inference_mode():
            inferred = OPS.decompress(frame)
        plain = OPS.decompress(frame)
    finally:
        torch.set_num_threads(threads)
    assert all(tensor.is_inference() for tensor in inferred)
    assert not any(tensor.is_inference() for tensor in plain)
    assert all_identical(inferred, plain)


def test_random_numbers_of_the_caller_stay_as_they_are():
    before = torch.get_rng_state()
    OPS.compress([low_rank((700, 710), 1, 0.1).float()], method="lowrank")
    assert torch.equal(torch.get_rng_state(), before)


@every_method
def test_threads(method: str):
    tensors = [*MATRICES, low_rank((600, 300), 5, 0.1).float(), noise(70_000, seed=6).float()]
    frames = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        frames.append(OPS.compress(tensors, method=method))
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for frame in frames:
            assert all_identical(OPS.decompress(frame), tensors)
    torch.set_num_threads(1)
    if method == "scale":
        assert torch.equal(*frames)


def test_a_list_of_matrices_with_all_threads() -> None:
    # LAPACK's own threads, inside a parallel region, once waited for each other for ever.
    program = """
import torch, lmgc_torch
torch.set_num_threads(2)
torch.manual_seed(0)
tensors = [torch.randn(1024, 32) @ torch.randn(32, 256) + torch.randn(1024, 256) for _ in range(4)]
restored = lmgc_torch.decompress(lmgc_torch.compress(tensors, method="lowrank"))
assert all(map(torch.equal, tensors, restored))
"""
    assert python(program).returncode == 0
