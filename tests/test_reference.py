"""The C++ codec against `lmgc_torch.reference`, which was written from docs/format.md alone."""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import helpers
import numpy as np
import pytest
import torch
from helpers import (
    DTYPES,
    FLOATS,
    bits,
    from_bytes,
    gradient,
    identical,
    to_bytes,
)
from torch import Tensor

from lmgc_torch import (
    Prior,
    PriorMismatchError,
    compress,
    decompress,
    info,
)
from lmgc_torch import reference as ref
from lmgc_torch import reference_common as ref_common
from lmgc_torch import reference_fixed as fixed
from lmgc_torch import reference_frame as ref_frame
from lmgc_torch import reference_mixture as mixture
from lmgc_torch import reference_planes as ref_planes
from lmgc_torch import reference_prior as ref_prior

BUNDLED = Path(ref.__file__).parent / "priors" / "default.pt"
GOLDEN = Path(__file__).parent / "golden"
_spec = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
assert _spec is not None
assert _spec.loader is not None
golden = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(golden)


class BothPriors:
    """A prior as the operators and as the reference take it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.operators = Prior.load(path)
        self.module = torch.jit.load(str(path))


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> BothPriors:
    """Speaks hexadecimal and bytes, and looks at every feature."""
    path = tmp_path_factory.mktemp("prior") / "prior.pt"
    golden.write_prior(path)
    return BothPriors(path)


def check(tensors: Sequence[Tensor], prior: BothPriors | None = None, **options: Any) -> list[str]:
    """Compresses, compares what the reference and the operators decode, returns the methods."""
    operators, module = (prior.operators, prior.module) if prior else (None, None)
    frame = compress(list(tensors), prior=operators, **options)
    decoded = ref.decode(to_bytes(frame), module)
    assert len(decoded) == len(tensors)
    for tensor, one in zip(tensors, decoded, strict=True):
        assert str(tensor.dtype) == "torch." + one.dtype
        assert tuple(tensor.shape) == one.shape == one.array.shape
        assert to_bytes(bits(tensor)) == one.data
    for tensor, back in zip(tensors, decompress(frame, prior=operators), strict=True):
        assert identical(tensor, back)
    return [tensor.method for tensor in info(frame).tensors]


# ---- methods raw and planes ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("method", ["raw", "planes", "auto"])
def test_every_type_and_shape(method: str, dtype: torch.dtype):
    shapes = [(), (0,), (3, 0, 2), (1,), (7,), (17, 16), (4, 3, 3, 3), (1000,)]
    tensors = [golden.few_values(dtype, *shape, seed=i) for i, shape in enumerate(shapes)]
    assert method == "raw" or "planes" in check(tensors, method=method)
    check([], method=method)


def test_arrays_are_of_their_type():
    tensors = [torch.tensor([1.5, -2.0]).to(dtype) for dtype in FLOATS]
    tensors += [torch.tensor([[1, -2]]), torch.tensor([True, False]), torch.tensor([1 + 2j])]
    for tensor, one in zip(tensors, ref.decode(to_bytes(compress(tensors))), strict=True):
        if tensor.dtype == torch.bfloat16:
            assert one.array.tolist() == [0x3FC0, 0xC000]
        else:
            assert np.array_equal(one.array, tensor.numpy())
            assert one.array.dtype == tensor.numpy().dtype


def mostly(value: int, other: int, one_in: int, count: int) -> Tensor:
    data = [other if number % one_in == 0 else value for number in golden.numbers(count, 1)]
    return torch.tensor(data, dtype=torch.uint8)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.full((1000,), 7, dtype=torch.uint8),  # a constant
        mostly(7, 8, 2, 511),  # one lane
        mostly(7, 8, 2, 512),  # two lanes
        mostly(0, 255, 300, 5000),  # a frequency of 1
        mostly(3, 200, 9, 66_000),  # two blocks
        golden.segments(1),  # several tables
        torch.tensor(golden.numbers(3000, 1)).to(torch.uint8),  # random
        torch.zeros(100, dtype=torch.float64),  # nothing kept
        torch.arange(2000).eq(1234).to(torch.float32),  # one kept
        torch.arange(6000).remainder(40).eq(3) * gradient(6000),  # a mask
        gradient(100, 100, dtype=torch.bfloat16),
    ],
    ids=lambda tensor: f"{tensor.dtype}-{tensor.numel()}",
)
def test_streams_of_every_form(tensor: Tensor):
    check([tensor], method="planes")


def test_numbers_of_tables():
    """Frames with one and with several tables are among those that are tested."""
    numbers = set()
    for tensor in (mostly(7, 8, 2, 128), golden.segments(1)):
        frame = to_bytes(compress([tensor], method="planes"))
        fields = ref_common.ByteReader(frame[ref_frame.read_header(frame).size :])
        assert fields.unsigned(1) == 0  # no mask
        numbers.add(len(ref_planes.CodedStream(fields, tensor.numel()).tables))
    assert 1 in numbers
    assert max(numbers) > 2


# ---- method lmgc ---------------------------------------------------------------------------------

TEXTS = list(
    itertools.product(
        ["none", "space", "comma", "comma_space", "semicolon", "0x", "iso-8859-1"],
        [None, 1, 2, 3, 8],
    )
)


@pytest.mark.parametrize("number", range(len(TEXTS)))
def test_every_text(number: int, prior: BothPriors):
    separator, group = TEXTS[number]
    for byte_order in ("big", "little"):
        dtype = FLOATS[(number + (byte_order == "big")) % 4]
        convolution = gradient(12, 2, 3, 3, dtype=dtype, seed=number)
        methods = check(
            [gradient(17, 3, dtype=dtype, seed=number), shortened(convolution)],
            prior,
            method="lmgc",
            separator=separator,
            bytes_per_group=group,
            byte_order=byte_order,
            lane_elements=61,
            window=("disjoint", "sliding")[number // 2 % 2],
        )
        assert methods[1] == "lmgc" or (separator, dtype) == ("iso-8859-1", torch.bfloat16)


def shortened(tensor: Tensor) -> Tensor:
    """The tensor with one bit of mantissa: what compresses with any prior."""
    element = ref_frame.DTYPES[str(tensor.dtype).removeprefix("torch.")]
    integers = tensor.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[element.width])
    return (integers & (-1 << (element.mantissa_bits - 1))).view(tensor.dtype)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("bypass", [True, False])
def test_special_floats(dtype: torch.dtype, bypass: bool, prior: BothPriors):
    tensors = [
        golden.special(dtype),
        gradient(8, 20, dtype=torch.float16).to(dtype),  # constant digits
        torch.zeros(50, dtype=dtype),
        torch.full((50,), -0.0, dtype=dtype),
        gradient(60, dtype=dtype).abs() + 1,
        torch.tensor(1.0, dtype=dtype),
        torch.empty(0, dtype=dtype),
        gradient(1, 40, dtype=dtype),
        gradient(6, 2, 3, 3, dtype=dtype),
        gradient(16, 1, 16, dtype=dtype),  # taps of a single channel
    ]
    for window in ("disjoint", "sliding"):
        methods = check(
            tensors, prior, method="lmgc", bypass=bypass, lane_elements=50, window=window
        )
        assert "lmgc" in methods


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.complex64], ids=str)
@pytest.mark.parametrize("separator", ["none", "comma", "iso-8859-1"])
def test_bytes(dtype: torch.dtype, separator: str, prior: BothPriors):
    """Types that are no floats are bytes to the prior; zeros among them are nothing special."""
    data = bytes((0, 0x13, 0x15, 0x10)[number % 4] for number in golden.numbers(2000, 3))
    tensors = [from_bytes(data, dtype, (-1,)), golden.few_values(dtype, 6, 20, seed=1)]
    for window in ("disjoint", "sliding"):
        methods = check(
            tensors, prior, method="lmgc", separator=separator, bytes_per_group=3, window=window
        )
        assert "lmgc" in methods


def test_bundled_prior():
    tensors = [gradient(16, 20), gradient(4, 2, 3, 3, dtype=torch.bfloat16)]
    for window in ("disjoint", "sliding"):
        methods = check(tensors, BothPriors(BUNDLED), method="lmgc", window=window)
        assert methods == ["lmgc", "lmgc"]


def test_the_wrong_prior(prior: BothPriors):
    frame = to_bytes(compress([gradient(20, 20)], method="lmgc", prior=prior.operators))
    for module in (None, torch.jit.load(str(BUNDLED))):
        with pytest.raises(PriorMismatchError):
            ref.decode(frame, module)


def test_identity_of_priors(prior: BothPriors):
    halves = ref_prior.fingerprint_of(prior.module)
    assert prior.operators.fingerprint == "".join(f"{half:016x}" for half in halves)


def test_frequencies():
    for k in range(256):
        assert abs(ref_prior.exp2(k) - 2**26 * 2 ** (-k / 256)) < 3
    inf, nan = float("inf"), float("nan")
    for logits in ([0.0] * 16, [nan] * 16, [inf, -inf, nan, 3.0], [-1e38, 1e38], [5.0, 1e9, 5.5]):
        for units in (256.0, 0.6931471805599453, 1.1e-6):
            frequencies = ref_prior.frequencies_of(np.array(logits, np.float32), units)
            assert sum(frequencies) == 65536
            assert min(frequencies) >= 1


# ---- methods scale and lowrank -------------------------------------------------------------------


def sections(frame: Tensor) -> list[fixed.FixedSection | None]:
    """The sections of methods scale and lowrank, decoded; None for others."""
    data = to_bytes(frame)
    header = ref_frame.read_header(data)
    offset, result = header.size, []
    for record in header.records:
        section = data[offset : offset + record.section_size]
        offset += record.section_size
        result.append(read_fixed(section, record) if record.method in ref_frame.FIXED else None)
    return result


def read_fixed(section: bytes, record: ref_frame.Record) -> fixed.FixedSection:
    predicted = record.method == "lowrank"
    result = fixed.FixedSection(section, record.sizes, record.element, predicted, record.spare)
    result.decode()
    return result


def special_floats(dtype: torch.dtype) -> Tensor:
    """Zeros of both signs, subnormals, the largest number, infinities and NaNs with payload."""
    limits = torch.finfo(dtype)
    picks = [0.0, -0.0, limits.tiny / 2, -limits.tiny / 8, limits.tiny, limits.max, -limits.max]
    tensor = torch.tensor([*picks, float("inf"), -float("inf"), *[float("nan")] * 3]).double()
    raw = bits(tensor.to(dtype)).clone()
    raw[-dtype.itemsize :] = 0xFF
    raw[-2 * dtype.itemsize] ^= 1
    return raw.view(dtype)


def sprinkled(tensor: Tensor, picks: Tensor) -> Tensor:
    """The tensor with `picks` at places all over it."""
    tensor = tensor.clone()
    places = torch.arange(len(picks)) * (tensor.numel() // len(picks)) + 1
    tensor.view(-1)[places] = picks
    return tensor


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_scale(dtype: torch.dtype):
    """Floats of every kind, in every shape."""
    tiny = torch.finfo(dtype).tiny
    tensors = {
        "scalar": torch.tensor(1.5, dtype=dtype),
        "flat": gradient(1000, dtype=dtype),
        "one row": gradient(1, 300, dtype=dtype).fill_diagonal_(1.0),
        "narrow": gradient(60, 3, dtype=dtype),
        "zeros": torch.zeros(400, dtype=dtype),
        "minus zeros": torch.full((20, 30), -0.0, dtype=dtype),
        "zeros and a line": torch.cat([torch.zeros(30, 40), gradient(1, 40) + 1]).to(dtype),
        "matrix": golden.gradient(40, 50, dtype=dtype, seed=1),
        "few rows": gradient(8, 100, dtype=dtype),
        "convolution": golden.gradient(20, 5, 3, 3, dtype=dtype, seed=2),
        "special": sprinkled(gradient(30, 40, dtype=dtype), special_floats(dtype)),
        "subnormal": (golden.values(600, torch.float64) * tiny * 100).to(dtype),
        "both sides of subnormal": (golden.values(900, torch.float64) * tiny * 2000).to(dtype),
        "huge": (golden.values(600, torch.float64) * torch.finfo(dtype).max * 100).to(dtype),
        "positive": golden.values(900, dtype).abs(),
        "negative": -golden.values(900, dtype).abs(),
        "two blocks": golden.values(66_000, dtype),
    }
    check(list(tensors.values()), method="scale")
    methods = {name: check([tensor], method="scale")[0] for name, tensor in tensors.items()}
    assert methods.pop("scalar") == "raw"
    methods.pop("huge")  # infinities among them
    assert set(methods.values()) == {"scale"}
    decoded = {
        name: sections(compress([tensor], method="scale"))[0] for name, tensor in tensors.items()
    }
    for name, flags in {
        "flat": 0,
        "narrow": 0,
        "matrix": fixed.DEAD_LINES | fixed.COLUMN_SCALES,
        "convolution": fixed.DEAD_LINES | fixed.COLUMN_SCALES,
    }.items():
        assert decoded[name].flags == flags, name
    assert decoded["positive"].digits.mixture.positive == 254
    assert decoded["negative"].digits.mixture.positive == 0
    assert decoded["flat"].digits.mixture.positive == 127
    assert len(decoded["two blocks"].digits.blocks) == 2


@pytest.mark.parametrize("shape", [(16, 16), (500, 40), (4, 5, 3, 3), (30,)])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("method", ["scale", "lowrank"])
def test_zeros(method: str, dtype: torch.dtype, shape: tuple[int, ...]):
    check([torch.zeros(shape, dtype=dtype)], method=method)


def tall(tensor: Tensor) -> Tensor:
    return tensor.T.contiguous()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_lowrank(dtype: torch.dtype):
    """Matrices that are nearly of low rank, with everything that a float can be among them."""
    limits = torch.finfo(dtype)
    matrix = golden.low_rank(48, 64, 2, dtype=torch.float64, seed=1)
    picks = special_floats(dtype)[[0, 1, 2, 3, 4, 7, 8, 9, 10, 11]]  # none that is too large
    tensors = {
        "wide": matrix,
        "tall": tall(matrix),
        "dead lines": golden.with_dead_lines(matrix),
        "special": sprinkled(matrix.to(dtype), picks),
        "subnormal": matrix / matrix.abs().max() * limits.tiny,
        "large": matrix / matrix.abs().max() * limits.max / 4,
        "positive": matrix.abs(),
        "by dimension 1": golden.low_rank_convolution(12, 16, 2, dtype=dtype, seed=2),
        "by dimension 0": golden.low_rank_convolution(12, 16, 2, dtype=dtype, seed=3)
        .transpose(0, 1)
        .contiguous(),
        "three dimensions": golden.low_rank(16, 120, 2, dtype=dtype, seed=4).view(16, 6, 20),
    }
    tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    check(list(tensors.values()), method="lowrank")
    frame = compress(list(tensors.values()), method="lowrank")
    about = helpers.op_info(frame)["tensors"]
    decoded = dict(zip(tensors, sections(frame), strict=True))
    for (name, section), told in zip(decoded.items(), about, strict=True):
        assert section is not None
        if name in ("special", "subnormal", "large", "positive"):
            continue  # no prediction may pay
        assert told["method"] == "lowrank", name
        assert told["rank"] == section.low_rank.u.rank >= 1
        parts = [told["sections"][part] for part in ("side", "digits", "escapes", "tails")]
        assert sum(parts) == told["section_bytes"]
        dead, turned = section.flags & fixed.DEAD_LINES, section.flags & fixed.BY_DIMENSION_1
        assert bool(dead) == (name == "dead lines"), name
        assert bool(turned) == (name == "by dimension 1"), name
    assert decoded["special"].low_rank is not None


def test_exactly_lowrank():
    """What is left is the rounding to float32, and the product needs more than 53 bits."""
    tensor = golden.exactly_low_rank(160, 192, 8, seed=20)
    assert check([tensor], method="lowrank") == ["lowrank"]
    frame = compress([tensor], method="lowrank")
    (section,) = sections(frame)
    assert section.low_rank.u.rank == 8
    assert 2**53 <= section.low_rank.bound < 2**62
    assert frame.numel() < 0.2 * 4 * tensor.numel()


def test_normal_distribution():
    """The entries are those of docs/format.md, and far from halves for any library."""
    assert len(mixture.PHI) == 385
    assert [mixture.PHI[i] for i in (0, 1, 64, 384)] == [8388608, 8493184, 14115423, 2**24]
    assert sum(mixture.PHI) == 6026664138
    for i in range(385):
        fraction = 2**23 * math.erfc(-i / 64 / math.sqrt(2)) % 1
        assert abs(fraction - 0.5) > 4e-6
    assert [mixture.phi(z) for z in (-(10**9), 10**9)] == [0, 2**24]
    assert all(mixture.phi(z) + mixture.phi(-z) == 2**24 for z in range(1, 99000, 97))


@pytest.mark.parametrize("kind", [mixture.EDGE, mixture.MIDDLE, mixture.VARIES])
def test_contexts(kind: int):
    seen = set()
    for width in range(-14, 14):
        for fraction in range(32):
            context = fixed.context_of(width, fraction, kind)
            typical = mixture.shape_of(context, kind)
            assert fixed.context_of(*typical, kind) == context
            assert typical[0] == min(max(width, -12), 11)
            assert kind != fixed.VARIES or abs(typical[1] - fraction) <= 16
            seen.add(context)
    assert seen == set(range(mixture.CONTEXTS[kind]))
