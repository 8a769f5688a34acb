"""Compressing and decompressing from Python: every bit comes back, in the form it was given."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from helpers import (
    METHODS,
    all_identical,
    gradient,
    identical,
    op_info,
    python,
    to_bytes,
)
from hypothesis import given
from hypothesis import strategies as st
from test_prior import needs_default
from test_round_trip import check, every_method

import lmgc_torch
from lmgc_torch import Prior, api, compress, decompress, info
from lmgc_torch.errors import CorruptFrameError, LmgcError, PriorMismatchError

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
