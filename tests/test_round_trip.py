"""Every bit of any tensor comes back, by every method and whatever the caller's context."""

from __future__ import annotations

import contextlib

import pytest
import torch
from helpers import (
    DTYPES,
    FLOATS,
    METHODS,
    all_identical,
    bits,
    from_bytes,
    gradient,
    identical,
    to_bytes,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lmgc_torch import Prior, api, compress, decompress, files, info
from lmgc_torch.archive import identity
from lmgc_torch.distributed import codec

every_method = pytest.mark.parametrize("method", METHODS)


def bound(tensors: list[torch.Tensor], names: int = 0) -> float:
    """The most bytes that a frame may take."""
    return 64 + names + sum(1.001 * tensor.nbytes + 64 for tensor in tensors)


def check(given_: api.Tensors, **options) -> torch.Tensor:
    """Compresses and decompresses, and compares."""
    frame = compress(given_, **options)
    assert frame.dtype == torch.uint8
    assert frame.dim() == 1
    back = decompress(frame, prior=options.get("prior"))
    if isinstance(given_, torch.Tensor):
        assert isinstance(back, torch.Tensor)
        assert identical(given_, back)
    elif isinstance(given_, dict):
        assert isinstance(back, dict)
        assert list(back) == list(given_)
        assert all_identical(given_.values(), back.values())
    else:
        assert isinstance(back, list)
        assert all_identical(given_, back)
    return frame


# ---- any tensor ----------------------------------------------------------------------------------

SHAPES = st.one_of(
    st.just(()),
    st.lists(st.integers(0, 5), min_size=1, max_size=4).map(tuple),
    st.tuples(st.integers(0, 300)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
)


@st.composite
def tensors(draw: st.DrawFn, dtypes: list[torch.dtype] = DTYPES) -> torch.Tensor:
    """Tensors of any type, shape and strides."""
    tensor = draw(dense_tensors(dtypes))
    if tensor.dim() > 0 and draw(st.booleans()):
        tensor = tensor.permute(draw(st.permutations(range(tensor.dim()))))
        dimension = draw(st.integers(0, tensor.dim() - 1))
        kind = draw(st.sampled_from(["permuted", "part", "expanded"]))
        if kind == "part":
            index = [slice(None)] * tensor.dim()
            index[dimension] = slice(draw(st.integers(0, 3)), None, draw(st.integers(1, 3)))
            tensor = tensor[tuple(index)]
        if kind == "expanded" and tensor.size(dimension) > 0:
            sizes = list(tensor.shape)
            tensor = tensor.narrow(dimension, 0, 1).expand(sizes)
    return tensor


@st.composite
def dense_tensors(draw: st.DrawFn, dtypes: list[torch.dtype]) -> torch.Tensor:
    """Random bits, few values, zeros, or like gradients."""
    dtype = draw(st.sampled_from(dtypes))
    shape = draw(SHAPES)
    size = torch.Size(shape).numel() * dtype.itemsize
    kind = draw(st.sampled_from(["bits", "few", "zeros", "gradient"]))
    if kind == "gradient" and dtype in FLOATS and len(shape) > 0 and size > 0:
        return gradient(*shape, dtype=dtype, seed=draw(st.integers(0, 100)))
    if kind == "zeros":
        return from_bytes(bytes(size), dtype, shape)
    if kind == "few":
        value = st.binary(min_size=dtype.itemsize, max_size=dtype.itemsize)
        values = [*draw(st.lists(value, min_size=1, max_size=2)), bytes(dtype.itemsize)]
        picks = draw(st.randoms(use_true_random=False))
        count = size // dtype.itemsize
        return from_bytes(b"".join(picks.choices(values, k=count)), dtype, shape)
    random = draw(st.randoms(use_true_random=False))
    return from_bytes(random.randbytes(size), dtype, shape)


@every_method
@given(data=st.data())
def test_round_trip(method: str, prior: Prior, data: st.DataObject):
    given_ = data.draw(st.lists(tensors(), max_size=3))
    frame = check(given_, method=method, prior=prior)
    assert frame.numel() <= bound(given_)


@every_method
@given(tensor=tensors())
def test_round_trip_of_one_stays_within_64_bytes(method: str, prior: Prior, tensor: torch.Tensor):
    frame = check(tensor, method=method, prior=prior)
    assert frame.numel() <= 1.001 * tensor.nbytes + 64


@settings(max_examples=60)
@given(
    tensor=tensors(),
    separator=st.sampled_from(
        ["none", "space", "comma", "comma_space", "semicolon", "0x", "iso-8859-1"]
    ),
    bytes_per_group=st.sampled_from([None, 1, 2, 3, 4, 8]),
    byte_order=st.sampled_from(["big", "little"]),
    window=st.sampled_from(["disjoint", "sliding"]),
    lane_elements=st.sampled_from([None, 1, 7, 64]),
    bypass=st.booleans(),
)
def test_round_trip_with_every_option(
    prior: Prior, byte_prior: Prior, tensor: torch.Tensor, separator: str, **options
):
    assume(tensor.numel() <= 400)
    model = byte_prior if separator == "iso-8859-1" else prior
    check(tensor, method="lmgc", prior=model, separator=separator, **options)


@settings(max_examples=25)
@given(tensor=tensors(FLOATS), lane_elements=st.sampled_from([None, 5, 100]))
def test_round_trip_with_context_features(
    feature_prior: Prior, tensor: torch.Tensor, lane_elements: int | None
):
    check(tensor, method="lmgc", prior=feature_prior, lane_elements=lane_elements)


@settings(max_examples=15)
@given(tensor=tensors(FLOATS), lane_elements=st.sampled_from([None, 5, 100]))
def test_round_trip_with_a_bound_prior(
    bound_prior: Prior, tensor: torch.Tensor, lane_elements: int | None
):
    check(tensor, method="lmgc", prior=bound_prior, lane_elements=lane_elements)


@every_method
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_value_among_zeros(method: str, dtype: torch.dtype, prior: Prior):
    for count in (1, 3, 100):
        values = torch.zeros(count, dtype=torch.uint8).repeat_interleave(dtype.itemsize)
        values[0] = 1
        check(from_bytes(to_bytes(values), dtype, (count,)), method=method, prior=prior)


# ---- special values and layouts ------------------------------------------------------------------


def special_values(dtype: torch.dtype) -> torch.Tensor:
    """Zeros, infinities, subnormals, quiet and signalling NaNs with payloads, of both signs."""
    width = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    limits = torch.finfo(dtype)
    mantissa = -int(torch.tensor(limits.eps).log2())
    infinity = int(torch.tensor([float("inf")], dtype=dtype).view(width).item())
    words = [0, 1, 2, (1 << mantissa) - 1, 1 << mantissa, infinity - 1]
    words += [
        infinity,
        infinity + 1,
        infinity + (1 << (mantissa - 1)),
        infinity + (1 << mantissa) - 1,
    ]
    positive = torch.tensor(words, dtype=width)
    return torch.cat([positive, positive | torch.iinfo(width).min]).view(dtype)


@every_method
@pytest.mark.parametrize("dtype", FLOATS)
def test_special_values_keep_their_bits(method: str, dtype: torch.dtype, prior: Prior):
    values = special_values(dtype)
    check(values, method=method, prior=prior)
    among_others = gradient(2000, dtype=dtype)
    among_others[::100] = values
    check(among_others, method=method, prior=prior)


def layouts() -> dict[str, torch.Tensor]:
    matrix = gradient(24, 36)
    complex_ = torch.complex(gradient(6, 8, seed=1), gradient(6, 8, seed=2))
    return {
        "transposed": matrix.t(),
        "strided": matrix[::2, 1::3],
        "offset": matrix[5:, 7:],
        "flipped": matrix.flip(0, 1),
        "expanded": matrix[:, :1].expand(24, 50),
        "expanded scalar": torch.tensor(1.5).expand(3, 4),
        "channels last": gradient(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "conjugate": complex_.conj(),
        "conjugate transposed": complex_.mH,
        "negative": complex_.conj().imag,
        "real part": complex_.real,
        "parameter": torch.nn.Parameter(matrix.clone()),
        "with history": matrix.clone().requires_grad_() * 2,
        "unaligned": gradient(101)[1:],
        "unaligned bytes": torch.arange(100, dtype=torch.uint8)[1:],
    }


@every_method
@pytest.mark.parametrize("name", layouts())
def test_layouts(method: str, name: str, prior: Prior):
    tensor = layouts()[name]
    frame = check(tensor, method=method, prior=prior)
    plain = from_bytes(to_bytes(bits(tensor)), tensor.dtype, tensor.shape)
    assert torch.equal(frame, compress(plain, method=method, prior=prior))


@every_method
def test_results_are_plain_tensors_of_their_own(method: str, prior: Prior):
    given_ = [torch.nn.Parameter(gradient(300, 5)), gradient(5, 300).t(), torch.empty(0, 3)]
    frame = compress(given_, method=method, prior=prior)
    back = decompress(frame, prior=prior)
    for tensor in back:
        assert type(tensor) is torch.Tensor
        assert tensor.is_contiguous()
        assert not tensor.requires_grad
    before = frame.clone()
    for tensor in back:
        tensor.fill_(7)
    assert torch.equal(frame, before)
    assert all_identical(decompress(frame, prior=prior), given_)


@every_method
def test_inputs_are_only_read(method: str, prior: Prior):
    base = gradient(50, 60)
    tensor = base[1:, ::2]
    before, version = base.clone(), base._version
    frame = compress(tensor, method=method, prior=prior)
    kept = frame.clone()
    decompress(frame, prior=prior)
    info(frame)
    assert identical(base, before)
    assert base._version == version
    assert torch.equal(frame, kept)


def test_the_default_device_does_not_matter(prior: Prior):
    ones, values = torch.ones(3), gradient(100)
    with torch.device("meta"):
        check(values, method="lmgc", prior=prior)
        assert identical(decompress(to_bytes(compress(ones))), ones)
        assert compress([]).device == torch.device("cpu")


@contextlib.contextmanager
def double_precision():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


CONTEXTS = {
    "inference mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "double precision": double_precision,
    "anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
    "gradients": torch.enable_grad,
}


@every_method
@pytest.mark.parametrize("name", CONTEXTS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_caller_s_context_does_not_matter(name: str, method: str, prior: Prior):
    values = gradient(30, 40).requires_grad_()
    expected = compress(values, method=method, prior=prior)
    with CONTEXTS[name]():
        assert torch.equal(compress(values, method=method, prior=prior), expected)
        assert identical(decompress(expected, prior=prior), values)


@pytest.mark.parametrize("shape", [(1,), (1, 1), (3, 1)])
def test_the_bytes_of_a_single_element_with_a_stride(shape: tuple[int, ...], tmp_path):
    """torch shows bytes only where the stride is 1, and `contiguous` does not make it so."""
    tensor = gradient(2 * shape[0], *shape[1:])[::2]
    check(tensor)
    assert identical(
        codec.decode(codec.encode([tensor], "raw"), "raw", [shape], tensor.dtype)[0], tensor
    )
    needed = identity.Needed("a", tensor.dtype, shape)
    assert identity.digest(needed, tensor) == identity.digest(needed, tensor.clone())
    with (tmp_path / "bytes").open("wb") as file:
        files.write_bytes(file, tensor)
    assert (tmp_path / "bytes").read_bytes() == to_bytes(bits(tensor))
