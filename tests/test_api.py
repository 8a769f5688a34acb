"""Compressing and decompressing from Python: every bit comes back, in the form it was given."""

from __future__ import annotations

import contextlib
import copy
import pickle
import re
from pathlib import Path

import helpers
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
    op_info,
    python,
    to_bytes,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import lmgc_torch
from lmgc_torch import Prior, api, compress, decompress, info
from lmgc_torch import prior as prior_module
from lmgc_torch.errors import CorruptFrameError, LmgcError, PriorMismatchError

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
    """Tensors of any type and shape: random bits, few values, zeros, or like gradients."""
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


# ---- structure -----------------------------------------------------------------------------------


def test_what_comes_back_is_what_was_given():
    tensor = torch.arange(3)
    assert isinstance(decompress(compress(tensor)), torch.Tensor)
    for one in ([tensor], (tensor,)):
        back = decompress(compress(one))
        assert isinstance(back, list)
        assert len(back) == 1
    assert list(decompress(compress({"a": tensor}))) == ["a"]
    assert decompress(compress([])) == []
    assert decompress(compress({})) == {}
    assert compress({}).device == compress([]).device == torch.device("cpu")


@given(names=st.lists(st.text(max_size=20), unique=True, max_size=6))
def test_names_and_their_order_are_kept(names: list[str]):
    given_ = {name: torch.tensor(index) for index, name in enumerate(names)}
    frame = check(given_)
    assert [tensor.name for tensor in info(frame).tensors] == names


@pytest.mark.parametrize("name", ["\ud800", "\x00", '"\\', "\u2028", "😀", "a" * 10_000])
def test_odd_names(name: str):
    check({name: torch.ones(2), "other": torch.zeros(2)})


def test_modules_state_dicts():
    module = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8))
    back = decompress(compress(module.state_dict()))
    module.load_state_dict(back)


def test_frames_of_the_operator_are_lists():
    given_ = [gradient(10), torch.arange(4)]
    frame = lmgc_torch._library.ops().compress(given_)
    assert torch.equal(frame, compress(given_))
    assert all_identical(decompress(frame), given_)


@pytest.mark.parametrize(
    "metadata",
    ["anything", "[1, 2", "[1, 2]", "{}", '{"names": ["x"]}', "[" * 100_000, "1e999", "ä\n"],
)
def test_foreign_metadata_are_a_list_s(metadata: str):
    frame = lmgc_torch._library.ops().compress([torch.ones(2)], metadata=metadata)
    back = decompress(frame)
    assert isinstance(back, list)
    assert info(frame).metadata == metadata
    assert info(frame).kind == "list"


@pytest.mark.parametrize(
    "metadata",
    [
        '{"lmgc":2}',
        '{"lmgc":"1"}',
        '{"lmgc":1,"names":["a"]}',
        '{"lmgc":1,"names":["a","a"]}',
        '{"lmgc":1,"names":["a",1]}',
        '{"lmgc":1,"names":"ab"}',
        '{"lmgc":1}',
    ],
)
def test_metadata_that_contradict_the_frame(metadata: str):
    frame = lmgc_torch._library.ops().compress([torch.ones(2)] * 2, metadata=metadata)
    for function in (decompress, info):
        with pytest.raises(CorruptFrameError, match="metadata"):
            function(frame)


# ---- bytes ---------------------------------------------------------------------------------------


def test_frames_may_be_buffers():
    numpy = pytest.importorskip("numpy")
    given_ = {"w": gradient(500)}
    frame = compress(given_)
    data = to_bytes(frame)
    twice = b"".join(bytes([byte, 0]) for byte in data)
    for buffer in (
        data,
        bytearray(data),
        memoryview(data),
        memoryview(twice)[::2],
        numpy.frombuffer(data, dtype=numpy.uint8),
        numpy.array(list(data), dtype=numpy.uint8),
        torch.tensor(list(twice), dtype=torch.uint8)[::2],
    ):
        assert identical(decompress(buffer)["w"], given_["w"])
        assert info(buffer).bytes == len(data)


def test_reading_a_buffer_warns_of_nothing(recwarn: pytest.WarningsRecorder):
    decompress(to_bytes(compress(torch.ones(3))))
    assert not recwarn.list


@every_method
def test_threads_do_not_change_the_bytes(method: str, prior: Prior):
    given_ = [gradient(64, 3, 3, 3), gradient(300, 70, dtype=torch.bfloat16), torch.arange(1000)]
    threads = torch.get_num_threads()
    frames = []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            frames.append(compress(given_, method=method, prior=prior))
            assert all_identical(decompress(frames[0], prior=prior), given_)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(frames[0], frames[1])
    assert torch.equal(frames[0], frames[2])


def test_memory_limit_does_not_change_the_bytes(prior: Prior, feature_prior: Prior):
    given_ = [gradient(70, 100), gradient(3000)]
    for model in (prior, feature_prior):
        frames = [
            compress(given_, method="lmgc", prior=model, lane_elements=50, memory_limit=limit)
            for limit in (2**20, 2**28)
        ]
        assert torch.equal(*frames)


def test_every_method_pays(prior: Prior):
    tensor = gradient(64, 512)
    sizes = {method: compress(tensor, method=method, prior=prior).numel() for method in METHODS}
    assert sizes["raw"] <= tensor.nbytes + 64
    assert sizes["planes"] < 0.95 * tensor.nbytes
    assert sizes["lmgc"] < 0.95 * tensor.nbytes
    assert sizes["auto"] <= min(sizes["raw"], sizes["planes"])


@every_method
def test_zeros_cost_nearly_nothing(method: str):
    # A prior says how nearly: the bundled one allows for -0.0, which real gradients have.
    limit = {"raw": 41_000, "lmgc": 4_000, "scale": 250, "lowrank": 250}.get(method, 100)
    assert compress(torch.zeros(10_000), method=method).numel() < limit


# ---- info ----------------------------------------------------------------------------------------


@every_method
def test_info_adds_up(method: str, prior: Prior):
    given_ = {"weight": gradient(64, 128), "bias": gradient(64), "step": torch.tensor(3)}
    frame = compress(given_, method=method, prior=prior)
    about = info(frame)
    assert about.kind == "dict"
    assert about.version == 1
    assert about.bytes == frame.numel()
    assert about.raw_bytes == sum(tensor.nbytes for tensor in given_.values())
    assert about.ratio == pytest.approx(100 * about.bytes / about.raw_bytes)
    assert sum(about.sections.values()) == about.bytes
    assert about.sections["header"] == about.header_bytes
    for tensor, (name, value) in zip(about.tensors, given_.items(), strict=True):
        assert (tensor.name, tensor.dtype, tensor.shape) == (name, value.dtype, tuple(value.shape))
        assert tensor.raw_bytes == value.nbytes
        assert sum(tensor.sections.values()) == tensor.section_bytes
        assert tensor.method in api.METHODS
        assert tensor.rank == 0
    if method in ("raw", "planes", "scale", "lmgc"):
        assert about.tensors[0].method == method
    assert (about.prior is not None) == (method == "lmgc")
    if about.prior is not None:
        assert about.prior["fingerprint"] == prior.fingerprint
    lines = str(about).splitlines()
    assert any(line.startswith("weight") and "64x128" in line for line in lines)
    assert f"{about.bytes:,}" in str(about)


def low_rank_matrix(rows: int, columns: int, rank: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    factors = [torch.randn(side, rank, generator=generator) for side in (rows, columns)]
    return factors[0] @ factors[1].T


def test_info_tells_ranks_and_bits_per_element():
    given_ = {"low": low_rank_matrix(96, 80, 5), "flat": gradient(300), "count": torch.arange(50)}
    about = info(check(given_, method="lowrank"))
    low, flat, count = about.tensors
    assert (low.method, low.rank) == ("lowrank", 5)
    assert (flat.method, flat.rank) == ("scale", 0)
    assert (count.method, count.rank) == ("planes", 0)
    for tensor in (low, flat):
        assert list(tensor.sections) == ["side", "digits", "escapes", "tails"]
        bits = 8 * tensor.section_bytes / tensor.elements
        assert sum(tensor.bits_per_element.values()) == pytest.approx(bits)
    lines = str(about).splitlines()
    assert lines[0].split()[-4:] == ["side", "digits", "escapes", "tails"]
    cells = lines[1].split()
    assert cells[:5] == ["low", "float32", "96x80", "lowrank", "5"]
    assert cells[-4:] == [f"{value:.2f}" for value in low.bits_per_element.values()]
    assert lines[2].split()[3:5] == ["scale", "1,200"]
    assert lines[3].split()[-1] == f"{count.ratio:.1f}"
    assert "in bits for each element" in str(about)
    assert "rank" not in str(info(compress(given_, method="scale")))
    assert "in bits" not in str(info(compress(given_, method="planes")))


def test_bits_per_element_of_nothing():
    (tensor,) = info(compress(torch.empty(0, 3))).tensors
    assert tensor.elements == 0
    assert set(tensor.bits_per_element.values()) == {0}


def test_auto_takes_the_smallest_for_each_tensor():
    given_ = {"low": low_rank_matrix(96, 80, 5), "flat": gradient(300), "count": torch.arange(50)}
    about = {t.name: t.section_bytes for t in info(compress(given_)).tensors}
    for method in ("raw", "planes", "scale", "lowrank"):
        for tensor in info(compress(given_, method=method)).tensors:
            assert about[tensor.name] <= tensor.section_bytes
    assert info(compress(given_)).tensors[0].method == "lowrank"


def test_info_of_the_smallest_frames():
    assert info(compress([])).ratio == 100
    assert info(compress([])).method == "none"
    assert info(compress({})).kind == "dict"
    assert info(compress(torch.tensor(1.0))).kind == "tensor"
    assert "scalar" in str(info(compress(torch.tensor(1.0))))
    assert info(compress([torch.ones(2), torch.zeros(10_000)])).method != "none"


def test_info_shows_no_control_characters():
    assert "\x1b" not in str(info(compress({"\x1b[31m": torch.ones(1)})))


@pytest.mark.parametrize(
    ("separator", "bytes_per_group", "byte_order"),
    [("comma_space", 4, "little"), ("0x", 1, "big"), ("none", None, "big")],
)
def test_info_tells_the_options(
    prior: Prior, separator: str, bytes_per_group: int | None, byte_order: str
):
    frame = compress(
        gradient(3000).bfloat16().float(),  # any prior makes that smaller
        method="lmgc",
        prior=prior,
        separator=separator,
        bytes_per_group=bytes_per_group,
        byte_order=byte_order,
    )
    about = info(frame).prior
    assert about is not None
    assert about["separator"] == separator
    assert about["bytes_per_group"] == (bytes_per_group or 0)
    assert about["byte_order"] == byte_order
    assert about["portable"] is True


def test_info_does_not_decode(prior: Prior):
    frame = compress(gradient(3000), method="planes")
    frame[-1] ^= 1
    assert info(frame).method == "planes"
    assert op_info(frame)["bytes"] == frame.numel()


# ---- priors --------------------------------------------------------------------------------------


def test_prior_tells_its_contract(prior: Prior, feature_prior: Prior, bound_prior: Prior):
    assert prior.vocab[:3] == ["0", "1", "2"]
    assert prior.max_context == 32
    assert prior.portable
    assert not bound_prior.portable
    assert prior.context_features == []
    assert feature_prior.context_features[0] == "digit"
    assert prior.device == torch.device("cpu")
    assert len(prior.fingerprint) == 32
    assert len({prior.fingerprint, feature_prior.fingerprint, bound_prior.fingerprint}) == 3
    assert prior.fingerprint in repr(prior)
    assert prior.to("cpu") is prior


def test_priors_may_be_files(prior: Prior, prior_file: Path):
    frame = check(gradient(300), method="lmgc", prior=prior_file)
    check(gradient(300), method="lmgc", prior=str(prior_file))
    assert identical(decompress(frame, prior=prior), gradient(300))


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))]
)
def test_priors_can_be_copied(prior: Prior, copied):
    frame = compress(gradient(300), method="lmgc", prior=prior)
    other = copied(prior)
    assert isinstance(other, Prior)
    assert other.fingerprint == prior.fingerprint
    assert torch.equal(frame, compress(gradient(300), method="lmgc", prior=other))
    assert identical(decompress(frame, prior=other), gradient(300))


def test_priors_go_to_other_processes(prior: Prior, tmp_path: Path):
    frame = compress(gradient(300), method="lmgc", prior=prior)
    (tmp_path / "both").write_bytes(pickle.dumps((prior, to_bytes(frame))))
    program = (
        "import pickle, sys\n"
        "prior, frame = pickle.load(open(sys.argv[1], 'rb'))\n"
        "import lmgc_torch\n"
        "print(prior.fingerprint, lmgc_torch.decompress(frame, prior=prior).shape)\n"
    ).replace("sys.argv[1]", repr(str(tmp_path / "both")))
    result = python(program)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[0] == prior.fingerprint


def test_a_prior_may_keep_its_inputs(tmp_path: Path):
    """The tokens that step() is given are a fresh tensor, or a state could not hold on to them."""
    path = helpers.write_prior_that_keeps_its_inputs(tmp_path / "keeps.pt")
    check(gradient(100), method="lmgc", prior=Prior.load(path))


def test_prior_that_is_not_there(tmp_path: Path):
    for path in (tmp_path / "none.pt", str(tmp_path / "none.pt"), "none.pt"):
        with pytest.raises(FileNotFoundError, match="bundled priors are: "):
            Prior.load(path)
    with pytest.raises(ValueError, match="neither a bundled prior nor a file called 'defualt'"):
        Prior.load("defualt")
    with pytest.raises(TypeError, match="int"):
        Prior.load(3)


def test_methods_without_a_prior_do_not_look_for_it():
    check(torch.ones(10), method="planes", prior="no such prior")
    with pytest.raises(ValueError, match="no such prior"):
        compress(torch.ones(10), method="lmgc", prior="no such prior")


needs_default = pytest.mark.skipif(
    prior_module.DEFAULTS["lmgc"] not in prior_module.bundled(),
    reason="the default prior is not bundled",
)


@needs_default
def test_default_prior_is_used_where_none_is_given():
    tensor = gradient(20, 30)
    frame = check(tensor, method="lmgc")
    assert info(frame).prior["fingerprint"] == Prior.load("default").fingerprint
    assert torch.equal(frame, compress(tensor, method="lmgc", prior="default"))
    assert info(frame).prior["portable"]


@needs_default
@pytest.mark.parametrize("name", CONTEXTS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_default_prior_does_not_mind_the_caller_s_context(name: str):
    values = gradient(20, 30)
    expected = compress(values, method="lmgc")
    with CONTEXTS[name]():
        assert torch.equal(compress(values, method="lmgc", prior=Prior.load("default")), expected)
        assert identical(decompress(expected, prior=Prior.load("default")), values)


@needs_default
def test_loaded_priors_are_not_the_cached_one():
    assert Prior.load("default").handle is not Prior.load("default").handle
    cpu = torch.device("cpu")
    assert prior_module.cached("default", cpu) is prior_module.cached("default", cpu)


def test_without_a_bundled_prior_the_error_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prior_module, "bundled", dict)
    with pytest.raises(ValueError, match="neither a bundled prior nor a file called 'default'"):
        compress(torch.ones(10), method="lmgc")


# ---- the package ---------------------------------------------------------------------------------


def test_exports():
    for name in lmgc_torch.__all__:
        assert hasattr(lmgc_torch, name)
    assert issubclass(CorruptFrameError, LmgcError)
    assert issubclass(PriorMismatchError, LmgcError)
    assert issubclass(LmgcError, RuntimeError)
    assert lmgc_torch.CorruptFrameError is CorruptFrameError


@needs_default
def test_the_guide_s_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    guide = Path(__file__).resolve().parent.parent / "docs" / "api.md"
    blocks = re.findall(r"^```python\n(.*?)^```", guide.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 5
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)


def test_import_registers_the_operators():
    result = python(
        "import lmgc_torch, torch; print(torch.ops.lmgc.compress([torch.ones(3)]).shape)"
    )
    assert result.returncode == 0, result.stderr
