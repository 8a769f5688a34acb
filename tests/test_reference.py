"""The C++ codec against `lmgc_torch.reference`, which was written from docs/format.md alone."""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import helpers
import numpy as np
import pytest
import torch
from helpers import (
    DTYPES,
    FLOATS,
    METHODS,
    Record,
    bits,
    frame_by_hand,
    from_bytes,
    gradient,
    identical,
    resealed,
    to_bytes,
    to_tensor,
)
from torch import Tensor

from lmgc_torch import (
    CorruptFrameError,
    PastFrame,
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
from lmgc_torch import reference_lmgc as ref_lmgc
from lmgc_torch import reference_mixture as mixture
from lmgc_torch import reference_planes as ref_planes
from lmgc_torch import reference_prior as ref_prior
from lmgc_torch.errors import translated

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
    for record in header.tensors:
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
    methods = dict(zip(tensors, check(list(tensors.values()), method="scale"), strict=True))
    assert methods.pop("scalar") == "raw"
    methods.pop("huge")  # infinities among them
    assert set(methods.values()) == {"scale"}
    decoded = dict(
        zip(tensors, sections(compress(list(tensors.values()), method="scale")), strict=True)
    )
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


# ---- damaged frames ------------------------------------------------------------------------------


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
    assert header.tensors[0].method == method
    codes = {name: code for code, name in ref_frame.DTYPE_OF_CODE.items()}
    dtype = codes[header.tensors[0].dtype]
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
            header.tensors[0].dtype, method, tuple(tensor.shape), 0, len(section)
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


# ---- golden files --------------------------------------------------------------------------------

# By the stem of the frame's file: "v1_planes_zeros".
INDEX: dict[str, Any] = {
    f"v{version}_{name}": entry
    for version in golden.FRAMES
    for name, entry in json.loads(golden.index_of(version).read_text()).items()
}


PriorOf = Callable[[str], BothPriors]


@pytest.fixture(scope="module")
def golden_prior(tmp_path_factory: pytest.TempPathFactory) -> PriorOf:
    """The prior of a golden frame of that name."""
    files = golden.prior_files(tmp_path_factory.mktemp("golden"))
    priors = {begin: BothPriors(file) for begin, file in files.items()}

    def prior_of(name: str) -> BothPriors:
        name = name.split("_", 1)[1]
        return next(prior for begin, prior in priors.items() if name.startswith(begin))

    return prior_of


def golden_tensors(name: str, suffix: str = "raw") -> list[Tensor]:
    data = (GOLDEN / f"{name}.{suffix}").read_bytes()
    tensors = []
    for type_name, shape, _ in INDEX[name]["tensors"]:
        dtype = getattr(torch, type_name)
        size = torch.Size(shape).numel() * dtype.itemsize
        tensors.append(from_bytes(data[:size], dtype, shape))
        data = data[size:]
    assert not data
    return tensors


def test_golden_files_are_there():
    assert {path.stem for path in GOLDEN.glob("*.lmgc")} == set(INDEX)
    for version in golden.FRAMES:
        assert golden.main([str(version)]) == 1  # refuses to overwrite


@pytest.mark.parametrize("name", INDEX)
def test_golden_frames_decode(name: str, golden_prior: PriorOf):
    frame = (GOLDEN / f"{name}.lmgc").read_bytes()
    assert name.startswith(f"v{info(frame).version}_")
    tensors, prior = golden_tensors(name), golden_prior(name)
    past, plain_past = None, None
    if (before := GOLDEN / f"{name}.before").exists():
        past, plain_past = PastFrame(), ref.Past()
        decompress(before.read_bytes(), past=past)
        ref.decode(before.read_bytes(), past=plain_past)
    known = None
    if (GOLDEN / f"{name}.reference").exists():
        known = golden_tensors(name, "reference")
    back = decompress(frame, prior=prior.operators, past=past, reference=known)
    assert helpers.all_identical(back, tensors)
    known_bytes = [to_bytes(bits(tensor)) for tensor in known or []]
    assert [one.data for one in ref.decode(frame, prior.module, plain_past, known_bytes)] == [
        to_bytes(bits(tensor)) for tensor in tensors
    ]
    about = [tensor.method for tensor in info(frame).tensors]
    assert about == [method for _, _, method in INDEX[name]["tensors"]]


# Frames that the encoder has since come to write otherwise.
WRITTEN_OTHERWISE = {
    "v1_planes_segments": "tables of `planes` are found from half as many segments",
}


@pytest.mark.parametrize(
    "name",
    [
        n
        for n in INDEX
        if not {"lowrank", "past", "reference"} & set(n.split("_")) and n not in WRITTEN_OTHERWISE
    ],
)
def test_golden_frames_are_written_again(name: str, golden_prior: PriorOf):
    """Not a promise of the format: a better encoder may change this, and then says so here.

    What low-rank factors are found depends on the machine's linear algebra.
    """
    prior = golden_prior(name).operators
    frame = compress(golden_tensors(name), prior=prior, **INDEX[name]["options"])
    assert to_bytes(frame) == (GOLDEN / f"{name}.lmgc").read_bytes()
