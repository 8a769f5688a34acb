"""Method lm: what comes back, by the native engine and by TorchScript, and how it shows itself."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from helpers import FLOATS, WORDS, all_identical, bits, gradient, identical, op_info, ops, to_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_priors import low_rank, paying, smooth, waves, with_dead_lines
from torch import Tensor

from lmgc_torch import Prior, PriorMismatchError, compress, decompress, info
from lmgc_torch import prior as prior_module

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def slow_prior(residual_prior: Prior) -> Prior:
    """The same prior, run as TorchScript."""
    return copy.deepcopy(residual_prior).use_native(False)


def check(tensors: Sequence[Tensor], prior: Prior, **options: Any) -> Tensor:
    """Compresses and decompresses; returns the frame."""
    frame = compress(list(tensors), method="lm", prior=prior, **options)
    assert all_identical(decompress(frame, prior=prior), tensors)
    return frame


def methods(frame: Tensor) -> list[str]:
    return [tensor.method for tensor in info(frame).tensors]


# ---- round trips ---------------------------------------------------------------------------------

SHAPES = [
    *((300,), (1, 400), (16, 1), (17, 16), (33, 20), (20, 64), (5, 130)),
    *((24, 3, 3, 3), (6, 40, 2), (4, 2, 4, 4, 4), (8, 5, 1, 1), (9, 2, 9, 9)),
]


def special_words(dtype: torch.dtype) -> list[int]:
    """Zeros, infinities, subnormals and NaNs with payloads, as bits."""
    limits = torch.finfo(dtype)
    mantissa = -int(torch.tensor(limits.eps).log2())
    infinity = int(torch.tensor([float("inf")], dtype=dtype).view(WORDS[dtype.itemsize]).item())
    quiet = infinity + (1 << (mantissa - 1))
    positive = [0, 1, (1 << mantissa) - 1, 1 << mantissa, infinity - 1, infinity, infinity + 1]
    positive += [quiet, quiet + 5, infinity + (1 << mantissa) - 1]
    return positive + [word - (1 << (8 * dtype.itemsize - 1)) for word in positive]


@st.composite
def matrices(draw: st.DrawFn) -> Tensor:
    """Nearly of low rank, or without structure, with zeros, dead lines and any bits among it."""
    dtype, shape = draw(st.sampled_from(FLOATS)), draw(st.sampled_from(SHAPES))
    rank, noise = draw(st.integers(0, 3)), draw(st.sampled_from([0.0, 0.02, 1.0]))
    matrix = low_rank(*shape, rank=rank, noise=noise, dtype=dtype, seed=draw(st.integers(0, 3)))
    if draw(st.booleans()):
        matrix = matrix.relu()
    flat = matrix.view(-1)
    words = flat.view(WORDS[dtype.itemsize])
    least, most = torch.iinfo(words.dtype).min, torch.iinfo(words.dtype).max
    anything = st.sampled_from(special_words(dtype)) | st.integers(least, most)
    places = st.integers(0, len(flat) - 1)
    for place, word in draw(st.lists(st.tuples(places, anything), max_size=8)):
        words[place] = word
    matrix[draw(st.lists(st.integers(0, shape[0] - 1), max_size=3))] = 0
    if draw(st.booleans()):
        flat[:: draw(st.integers(1, 5))] = -0.0
    layout = draw(st.sampled_from(["plain", "transposed", "strided"]))
    if layout == "transposed":
        matrix = matrix.transpose(0, -1)
    elif layout == "strided":
        matrix = matrix[::2]
    return matrix


@given(drawn=st.lists(matrices(), max_size=3))
def test_round_trips_are_never_larger_than_auto(drawn: list[Tensor], residual_prior: Prior):
    tensors = [paying(), *drawn]
    frame = check(tensors, residual_prior)
    auto = compress(tensors)
    assert frame.numel() <= auto.numel()
    assert methods(frame)[0] == "lm"
    for one, two in zip(info(frame).tensors, info(auto).tensors, strict=True):
        assert one.section_bytes <= two.section_bytes
        assert one.method in (two.method, "lm")


@settings(max_examples=12)
@given(tensor=matrices(), lane_elements=st.sampled_from([1, 7, 60]))
def test_both_engines_give_the_same_bytes(
    tensor: Tensor, lane_elements: int, residual_prior: Prior, slow_prior: Prior
):
    tensors = [paying(), tensor]
    frame = check(tensors, residual_prior, lane_elements=lane_elements)
    assert torch.equal(
        frame, compress(tensors, method="lm", prior=slow_prior, lane_elements=lane_elements)
    )
    assert all_identical(decompress(frame, prior=slow_prior), tensors)


KINDS: dict[str, Callable[[torch.dtype], Tensor]] = {
    "predicted": lambda dtype: low_rank(48, 60, dtype=dtype),
    "unpredicted": lambda dtype: low_rank(64, 130, rank=0, noise=1.0, dtype=dtype),
    "flat": lambda dtype: low_rank(9000, rank=0, noise=1.0, dtype=dtype),
    "convolution": lambda dtype: low_rank(64, 16, 3, 3, dtype=dtype),
    "by dimension 1": lambda dtype: (
        low_rank(40, 32, 3, 3, dtype=dtype).transpose(0, 1).contiguous()
    ),
    "zeros among it": lambda dtype: low_rank(48, 60, dtype=dtype).relu(),
    "dead lines": lambda dtype: with_dead_lines(low_rank(60, 70, dtype=dtype)),
}


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_and_type(
    kind: str, dtype: torch.dtype, residual_prior: Prior, slow_prior: Prior
):
    tensors = [paying(), KINDS[kind](dtype)]
    assert methods(check(tensors, residual_prior)) == ["lm", "lm"]
    rank = info(compress(tensors[1], method="lowrank")).tensors[0].rank
    frame = check(tensors, residual_prior, lane_elements=100)
    assert info(frame).tensors[1].rank == rank
    assert (rank > 0) == (kind not in ("unpredicted", "flat"))
    assert torch.equal(frame, compress(tensors, method="lm", prior=slow_prior, lane_elements=100))
    assert all_identical(decompress(frame, prior=slow_prior), tensors)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_special_values_keep_their_bits(dtype: torch.dtype, residual_prior: Prior):
    matrix = low_rank(60, 400, dtype=dtype)
    special = torch.tensor(special_words(dtype), dtype=WORDS[dtype.itemsize]).view(dtype)
    matrix[5, : len(special)] = special
    frame = check([paying(), matrix, special], residual_prior)
    assert methods(frame)[:2] == ["lm", "lm"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "shape",
    [(2, 70_000), (20, 65_537), (70_001, 16), (140_000,)],
    ids=lambda s: "x".join(map(str, s)),
)
def test_long_rows_and_columns(shape: tuple[int, ...], dtype: torch.dtype, residual_prior: Prior):
    """Lanes are shorter than the rows; factors have more symbols than a block of tails."""
    predicted = shape[0] > 2 and len(shape) > 1
    tensor = low_rank(*shape, rank=0, dtype=dtype)
    if predicted:
        tensor += low_rank(*shape, rank=1, noise=0, dtype=dtype)
    tensor = waves(tensor) if shape[-1] < 20 else smooth(tensor)
    frame = check([tensor], residual_prior)
    assert methods(frame) == ["lm"]
    assert (info(frame).tensors[0].rank > 0) == predicted


def test_what_has_nothing_to_model(residual_prior: Prior):
    tensors = [
        torch.zeros(30, 40),
        torch.empty(0, 3),
        torch.tensor(1.5),
        torch.arange(1000),
        torch.zeros(40, 40, dtype=torch.bool),
        torch.empty(0, dtype=torch.bfloat16),
        torch.complex(gradient(5, 6), gradient(5, 6, seed=1)),
    ]
    frame = check(tensors, residual_prior)
    assert info(frame).prior is None
    assert info(frame).version == 1
    assert torch.equal(frame, compress(tensors))
    frame = check([paying(), *tensors], residual_prior)
    assert "lm" not in methods(frame)[2:]
    assert check([], residual_prior).numel() == compress([]).numel()


def test_a_prior_block_is_paid_for_by_what_it_saves(residual_prior: Prior):
    tensor = low_rank(20, 30)
    assert methods(check([tensor], residual_prior)) != ["lm"]
    assert methods(check([tensor, paying()], residual_prior))[1] == "lm"


def test_types_may_be_mixed(residual_prior: Prior):
    tensors = [low_rank(40, 50, dtype=dtype) for dtype in FLOATS] + [torch.arange(99)]
    assert methods(check(tensors, residual_prior)) == ["lm"] * 4 + ["planes"]


# ---- what does not matter ------------------------------------------------------------------------


def test_any_number_of_threads(residual_prior: Prior, slow_prior: Prior):
    """Factors are searched for in floating point, so that only their search may differ."""
    tensors = [gradient(64, 130), gradient(64, 200, dtype=torch.bfloat16), gradient(9000)]
    frames = []
    try:
        predicted = compress([low_rank(64, 90), paying()], method="lm", prior=residual_prior)
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            options = {"method": "lm", "lane_elements": 1000}
            frames += [
                compress(tensors, prior=prior, **options) for prior in (residual_prior, slow_prior)
            ]
            assert all_identical(decompress(frames[0], prior=residual_prior), tensors)
            back = decompress(predicted, prior=residual_prior)
            assert all_identical(back, [low_rank(64, 90), paying()])
    finally:
        torch.set_num_threads(1)
    assert all_identical(decompress(frames[0], prior=slow_prior), tensors)
    assert methods(frames[0]) == ["lm"] * 3
    assert all(torch.equal(frames[0], frame) for frame in frames)


def test_lanes_change_the_bytes_only(residual_prior: Prior):
    tensors = [low_rank(48, 60), gradient(64, 130, dtype=torch.bfloat16)]
    frames = {
        to_bytes(check(tensors, residual_prior, lane_elements=lane_elements))
        for lane_elements in (60, 61, 500, 1024, 65_536)
    }
    assert len(frames) >= 4
    with pytest.raises(ValueError, match="lane_elements"):
        check(tensors, residual_prior, lane_elements=65_537)


def test_the_memory_limit_does_not_change_the_bytes(residual_prior: Prior, slow_prior: Prior):
    tensors = [low_rank(48, 60), gradient(64, 130, dtype=torch.bfloat16)]
    expected = compress(tensors, method="lm", prior=residual_prior, lane_elements=50)
    for prior in (residual_prior, slow_prior):
        small = compress(tensors, method="lm", prior=prior, lane_elements=50, memory_limit=2**20)
        assert torch.equal(small, expected)


def test_options_of_lmgc_are_ignored(residual_prior: Prior):
    tensor = low_rank(48, 60)
    expected = check([tensor], residual_prior)
    for options in (
        {"separator": "comma", "bytes_per_group": 3, "byte_order": "little"},
        {"window": "sliding"},
        {"bypass": False},
    ):
        assert torch.equal(check([tensor], residual_prior, **options), expected)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda m: m.t(),
    "strided": lambda m: m[::2, 1::2],
    "offset": lambda m: m[5:, 7:],
    "flipped": lambda m: m.flip(0, 1),
    "expanded": lambda m: m[:, :1].expand(80, 50),
    "parameter": torch.nn.Parameter,
    "unaligned": lambda m: m.flatten()[1:],
    "channels last": lambda m: m.view(20, 4, 10, 12).to(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(name: str, residual_prior: Prior):
    base = low_rank(80, 120)
    before = base.clone()
    tensor = LAYOUTS[name](base)
    frame = check([paying(), tensor], residual_prior)
    assert torch.equal(frame, check([paying(), tensor.detach().contiguous()], residual_prior))
    assert identical(base, before)


CONTEXTS: dict[str, Callable[[], Any]] = {
    "inference mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
    "default device": lambda: torch.device("meta"),
}


@pytest.mark.parametrize("name", CONTEXTS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_caller_s_context_does_not_matter(name: str, residual_prior: Prior, slow_prior: Prior):
    values = low_rank(48, 60, rank=3, noise=0, dtype=torch.bfloat16).requires_grad_()
    options = {"method": "lm", "lane_elements": 100}
    expected = compress(values, prior=residual_prior, **options)
    assert methods(expected) == ["lm"]
    with CONTEXTS[name]():
        for prior in (residual_prior, slow_prior):
            assert torch.equal(compress(values, prior=prior, **options), expected)
            assert identical(decompress(expected, prior=prior), values)


# ---- info ----------------------------------------------------------------------------------------


def test_info_adds_up(residual_prior: Prior):
    given_ = {"low": low_rank(96, 80), "flat": gradient(9000), "count": torch.arange(500)}
    frame = compress(given_, method="lm", prior=residual_prior)
    about = info(frame)
    assert about.version == 2
    assert about.prior is not None
    assert about.prior["fingerprint"] == residual_prior.fingerprint
    assert sum(about.sections.values()) == about.bytes == frame.numel()
    low, flat, count = about.tensors
    assert [t.method for t in about.tensors] == ["lm", "lm", "planes"]
    assert (low.rank > 0, flat.rank, count.rank) == (True, 0, 0)
    for tensor in (low, flat):
        assert list(tensor.sections) == ["side", "lanes", "tails"]
        assert min(tensor.sections.values()) > 0
        assert sum(tensor.sections.values()) == tensor.section_bytes
        whole = 8 * tensor.section_bytes / tensor.elements
        assert sum(tensor.bits_per_element.values()) == pytest.approx(whole)
    lines = str(about).splitlines()
    assert lines[0].split()[-3:] == ["side", "lanes", "tails"]
    assert lines[1].split()[:5] == ["low", "float32", "96x80", "lm", str(low.rank)]
    assert lines[1].split()[-3:] == [f"{value:.2f}" for value in low.bits_per_element.values()]
    assert lines[3].split()[-1] == f"{count.ratio:.1f}"
    assert "in bits for each element" in str(about)


def test_info_of_lm_beside_other_methods(residual_prior: Prior):
    exact = low_rank(40, 50, rank=1, noise=0, dtype=torch.float64)
    about = info(
        compress([low_rank(96, 80), exact, gradient(300)], method="lm", prior=residual_prior)
    )
    told = {part for tensor in about.tensors for part in tensor.sections}
    head = str(about).splitlines()[0].split()
    shown = [part for part in ("side", "digits", "escapes", "lanes", "tails") if part in told]
    assert head[-len(shown) :] == shown


# ---- priors and faces ----------------------------------------------------------------------------


def test_each_method_has_its_default_prior(residual_prior: Prior):
    tensor = low_rank(48, 60)
    frame = compress(tensor, method="lm")
    about = info(frame)
    assert about.prior is not None
    assert about.prior["fingerprint"] == residual_prior.fingerprint
    assert about.prior["portable"]
    assert torch.equal(frame, compress(tensor, method="lm", prior="residual"))
    assert identical(decompress(frame), tensor)
    assert identical(decompress(frame, prior="residual"), tensor)
    with pytest.raises(PriorMismatchError, match=residual_prior.fingerprint):
        decompress(frame, prior="default")
    lmgc = compress(gradient(20, 30), method="lmgc")
    assert info(lmgc).prior["fingerprint"] == Prior.load("default").fingerprint
    assert identical(decompress(lmgc), gradient(20, 30))
    cpu = torch.device("cpu")
    assert prior_module.cached("residual", cpu) is prior_module.cached("residual", cpu)


def test_the_operator_wants_a_prior(residual_prior: Prior):
    tensor = low_rank(48, 60)
    with pytest.raises(ValueError, match="method 'lm' needs a prior"):
        ops().compress([tensor], method="lm")
    frame = ops().compress([tensor], residual_prior.handle, method="lm", metadata="mine")
    assert op_info(frame)["tensors"][0]["rank"] == info(frame).tensors[0].rank > 0
    assert all_identical(ops().decompress(frame, residual_prior.handle), [tensor])
    with pytest.raises(RuntimeError, match=r"^PriorMismatchError: .*prior"):
        ops().decompress(frame)


def test_the_native_engine_can_be_switched_off(residual_prior: Prior, prior: Prior):
    assert residual_prior.native
    assert not prior.native
    assert not prior.use_native().native  # there is none
    one = Prior.load("residual")
    assert one.use_native(False) is one
    assert not one.native
    assert one.fingerprint == residual_prior.fingerprint
    assert one.to("cpu").native is False
    assert copy.deepcopy(one).native  # a copy begins anew
    assert one.use_native(True).native


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))]
)
def test_priors_can_be_copied(copied: Callable[[Prior], Prior], residual_prior: Prior):
    tensor = low_rank(48, 60)
    frame = check([tensor], residual_prior)
    other = copied(residual_prior)
    assert other.native
    assert other.fingerprint == residual_prior.fingerprint
    assert torch.equal(check([tensor], other), frame)


def test_results_are_tensors_of_their_own(residual_prior: Prior):
    given_ = [low_rank(48, 60), low_rank(60, 48).t()]
    frame = compress(given_, method="lm", prior=residual_prior)
    kept = frame.clone()
    for tensor in decompress(frame, prior=residual_prior):
        assert tensor.is_contiguous()
        assert not tensor.requires_grad
        bits(tensor).fill_(7)
    assert torch.equal(frame, kept)
    assert all_identical(decompress(frame, prior=residual_prior), given_)
