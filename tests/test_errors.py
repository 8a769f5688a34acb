"""What goes wrong has a name: damaged frames, wrong priors, wrong arguments."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import helpers
import pytest
import torch
from helpers import (
    Record,
    all_identical,
    frame_by_hand,
    gradient,
    op_info,
    resealed,
    to_bytes,
    to_tensor,
    varint,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from lmgc_torch import CorruptFrameError, Prior, PriorMismatchError, compress, decompress, info

pytestmark = pytest.mark.usefixtures("one_thread")

FRAME_METHODS = ["raw", "planes", "scale", "lowrank", "lmgc"]


def low_rank(rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
    """Exactly of rank 1, before it is rounded."""
    generator = torch.Generator().manual_seed(2)
    column, row = (torch.randn(size, generator=generator) for size in (rows, columns))
    return torch.outer(column, row).to(dtype)


def small_tensors(method: str) -> list[torch.Tensor]:
    """Few bytes that yet have one section of the method, with all its parts."""
    if method == "raw":
        return [torch.arange(5, dtype=torch.int16), torch.tensor(1.5)]
    if method == "planes":
        return [gradient(8, 40), gradient(100, dtype=torch.bfloat16, seed=1)]
    if method == "scale":
        return [gradient(8, 40), gradient(100, dtype=torch.bfloat16, seed=1)]
    if method == "lowrank":
        matrix = low_rank(32, 36, torch.bfloat16)
        kernels = low_rank(32, 36, torch.float16).view(32, 9, 4).transpose(0, 1)
        matrix[3] = 0
        return [matrix, kernels]
    return [gradient(4, 16), gradient(50, dtype=torch.bfloat16, seed=1)]  # few steps of the model


@pytest.fixture(scope="module")
def frames(prior: Prior) -> dict[str, bytes]:
    return {
        method: to_bytes(
            compress(small_tensors(method), method=method, prior=prior, lane_elements=20)
        )
        for method in FRAME_METHODS
    }


@pytest.mark.parametrize("method", FRAME_METHODS)
def test_small_frames_are_of_their_method(method: str, frames: dict[str, bytes]):
    assert method in {tensor.method for tensor in info(frames[method]).tensors}


def check_hostile(frame: bytes, hostile: bytes, prior: Prior) -> None:
    """A changed frame is refused by name, or it decodes; from the same header, to the same data."""
    header_bytes = info(frame).header_bytes
    try:
        back = decompress(hostile, prior=prior)
    except (CorruptFrameError, PriorMismatchError):
        return
    if hostile[10 : header_bytes - 16] == frame[10 : header_bytes - 16]:
        assert all_identical(back, decompress(frame, prior=prior))


# ---- damaged frames ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", FRAME_METHODS)
def test_every_changed_byte_is_noticed(method: str, prior: Prior, frames: dict[str, bytes]):
    frame = frames[method]
    for position in range(len(frame)):
        for change in (1, 0x80, 0xFF):
            damaged = bytearray(frame)
            damaged[position] ^= change
            with pytest.raises((CorruptFrameError, PriorMismatchError)):
                decompress(damaged, prior=prior)


@pytest.mark.parametrize("method", FRAME_METHODS)
def test_every_cut_is_noticed(method: str, prior: Prior, frames: dict[str, bytes]):
    frame = frames[method]
    for size in range(len(frame)):
        with pytest.raises(CorruptFrameError):
            decompress(frame[:size], prior=prior)
        if size < op_info(to_tensor(frame))["header_bytes"]:
            with pytest.raises(CorruptFrameError):
                info(frame[:size])


@pytest.mark.parametrize("method", FRAME_METHODS)
def test_more_bytes_are_noticed(method: str, prior: Prior, frames: dict[str, bytes]):
    with pytest.raises(CorruptFrameError):
        decompress(frames[method] + b"\0", prior=prior)
    with pytest.raises(CorruptFrameError):
        decompress(frames[method] * 2, prior=prior)


@pytest.mark.parametrize("method", FRAME_METHODS)
@settings(max_examples=300)
@given(data=st.data())
def test_hostile_bytes_under_right_checksums(
    method: str, prior: Prior, frames: dict[str, bytes], data: st.DataObject
):
    """Changes that an attacker would make: the header's and the payload's checksums fit."""
    frame = bytearray(frames[method])
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(10, len(frame) - 1))
        frame[position] = data.draw(st.integers(0, 255))
    check_hostile(frames[method], resealed(bytes(frame)), prior)


@pytest.mark.parametrize("method", FRAME_METHODS)
def test_every_byte_under_right_checksums(method: str, prior: Prior, frames: dict[str, bytes]):
    header_bytes = info(frames[method]).header_bytes
    for position in range(10, len(frames[method])):
        if method == "lmgc" and position > header_bytes + 40 and position % 5:
            continue  # lanes and tails, where one byte is like the next, and the model is slow
        frame = bytearray(frames[method])
        for value in (frame[position] ^ 1, 0, 0xFF):
            frame[position] = value
            check_hostile(frames[method], resealed(bytes(frame)), prior)


@given(data=st.binary(max_size=200))
def test_random_bytes_are_no_frame(data: bytes):
    for function in (decompress, info):
        with pytest.raises(CorruptFrameError):
            function(data)


@given(body=st.binary(max_size=120), count=st.integers(0, 5), flags=st.sampled_from([0, 1]))
def test_random_headers(prior: Prior, body: bytes, count: int, flags: int):
    frame = frame_by_hand([], count=count, flags=flags, trailing=body)
    try:
        decompress(frame, prior=prior)
    except (CorruptFrameError, PriorMismatchError):
        return
    assert count == 0


def test_what_it_is_not():
    with pytest.raises(CorruptFrameError, match="not an lmgc frame"):
        decompress(b"PK\x03\x04" + bytes(100))
    for version in (0, 5, 255):
        with pytest.raises(CorruptFrameError, match="version"):
            decompress(frame_by_hand([], version=version))
    with pytest.raises(CorruptFrameError):
        decompress(frame_by_hand([], flags=2))
    with pytest.raises(CorruptFrameError):
        decompress(frame_by_hand([], trailing=b"\0"))
    for version in (1, 2, 3, 4):
        assert decompress(frame_by_hand([], version=version)) == []


def test_frames_by_hand_are_frames():
    values = gradient(6)
    record = Record((2, 3), to_bytes(helpers.bits(values)))
    (back,) = decompress(frame_by_hand([record]))
    assert helpers.identical(back, values.view(2, 3))
    assert frame_by_hand([record]) == to_bytes(compress([values.view(2, 3)], method="raw"))


HUGE_RECORDS = {
    "raw and huge": Record((2**40,)),
    "raw, huge, with its size": Record((2**40,), section_size=2**42),
    "planes and huge": Record((2**50,), b"\0" * 20, method=1),
    "planes and large": Record((2**33,), b"\0" * 20, method=1),
    "one past int64": Record((2**63,)),
    "the most a varint holds": Record((2**64 - 1,)),
    "product past 64 bits": Record((2**32, 2**32)),
    "product of bytes past 63 bits": Record((2**61,)),
    "product past 64 bits but empty": Record((2**40, 0, 2**40)),
    "many dimensions": Record((1,) * 65),
    "very many dimensions": Record((1,) * 5000),
    "section of 2**63": Record((1,), b"\0" * 4, section_size=2**63),
    "section of 2**64 - 1": Record((1,), b"\0" * 4, section_size=2**64 - 1),
    "section larger than the tensor": Record((1,), b"\0" * 8),
    "section smaller than the tensor": Record((3,), b"\0" * 8),
    "unknown type": Record((1,), b"\0" * 4, dtype=4),
    "type 255": Record((1,), b"\0", dtype=255),
    "unknown method": Record((1,), b"\0" * 4, method=5),
    "lmgc without a prior": Record((100,), b"\0" * 40, method=2),
    "empty planes": Record((100,), method=1),
    "empty scale": Record((100,), method=3),
    "empty lowrank": Record((100, 100), method=4),
    "scale of nothing": Record((0, 40), b"\0\0", method=3),
    "scale of integers": Record((100,), b"\0" * 40, dtype=19, method=3),
    "lowrank of integers": Record((40, 40), b"\0" * 40, dtype=19, method=4),
    "lowrank of bytes": Record((40, 40), b"\0" * 40, dtype=32, method=4),
    "lowrank of a vector": Record((1000,), b"\0\1" + b"\xff" * 400, method=4),
    "scale and huge": Record((2**50,), b"\0" * 20, method=3),
    "scale and large": Record((2**33,), b"\0" * 20, method=3),
    "lowrank and huge": Record((2**25, 2**25), b"\0\1" + b"\xff" * 400, method=4),
    "lowrank and large": Record((2**16, 2**17), b"\0\1" + b"\xff" * 400, method=4),
    "wrong data checksum": Record((1,), b"\0" * 4, data_checksum=0),
}


@pytest.mark.parametrize("name", HUGE_RECORDS)
def test_records_that_lie(name: str):
    frame = frame_by_hand([HUGE_RECORDS[name]])
    with pytest.raises(CorruptFrameError):
        decompress(frame)
    after_others = frame_by_hand([Record((2,), bytes(8)), HUGE_RECORDS[name]])
    with pytest.raises(CorruptFrameError):
        decompress(after_others)


def section_of(frame: bytes, index: int) -> tuple[Record, bytes]:
    """One of the sections of a frame, and the record that tells of it but for its section."""
    about = op_info(to_tensor(frame))
    sizes = [tensor["section_bytes"] for tensor in about["tensors"]]
    offset = about["header_bytes"] + sum(sizes[:index])
    tensor = decompress(frame)[index]
    code = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2}[tensor.dtype]
    method = {"scale": 3, "lowrank": 4}[about["tensors"][index]["method"]]
    data = helpers.checksum(to_bytes(helpers.bits(tensor)))
    record = Record(tuple(tensor.shape), dtype=code, method=method, data_checksum=data)
    return record, frame[offset : offset + sizes[index]]


def check_refused(record: Record, section: bytes) -> None:
    with pytest.raises(CorruptFrameError):
        decompress(frame_by_hand([replace(record, section=section)]))


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("method", ["scale", "lowrank"])
def test_fixed_sections_of_another_tensor(method: str, index: int, frames: dict[str, bytes]):
    """A section of methods scale and lowrank under records that lie about its tensor."""
    record, section = section_of(frames[method], index)
    right = frame_by_hand([replace(record, section=section)])
    assert all_identical(decompress(right), small_tensors(method)[index : index + 1])
    itemsize = (2, 2, 4)[record.dtype]
    elements = decompress(right)[0].numel()
    for dtype in (16, 17, 18, 19, 20, 21, 23, 25, 32):  # no floats
        check_refused(replace(record, dtype=dtype), section)
    for dtype in {0, 1, 2, 3} - {record.dtype}:
        check_refused(replace(record, dtype=dtype), section)
    check_refused(replace(record, method=7 - record.method), section)
    for sizes in [(), (elements - 1,), (elements + 1,), (0,), (2, elements), (1, elements - 1)]:
        check_refused(replace(record, sizes=sizes), section)
    check_refused(record, section + b"\0")
    for size in range(len(section)):
        check_refused(record, section[:size])
    check_refused(record, section + bytes(itemsize * elements))  # larger than raw


@pytest.mark.parametrize("rank", [0, 2, 32, 33, 36, 127, 2**14, 2**31, 2**63, 2**64 - 1])
def test_ranks_that_lie(rank: int, frames: dict[str, bytes]):
    for index in (0, 1):
        record, section = section_of(frames["lowrank"], index)
        assert section[1] == 1  # behind the flags
        check_refused(record, section[:1] + varint(rank) + section[2:])


@pytest.mark.parametrize("size", [0, 1, 2**14, 2**31, 2**32, 2**61, 2**63, 2**64 - 1])
@pytest.mark.parametrize("method", ["scale", "lowrank"])
def test_sizes_of_side_information_that_lie(method: str, size: int, frames: dict[str, bytes]):
    for index in (0, 1):
        record, section = section_of(frames[method], index)
        place = 1 if method == "scale" else 2
        behind = place + 1 if section[place] < 0x80 else place + 2
        check_refused(record, section[:place] + varint(size) + section[behind:])


@pytest.mark.parametrize("method", ["scale", "lowrank"])
def test_flags_that_lie(method: str, frames: dict[str, bytes]):
    for index in (0, 1):
        record, section = section_of(frames[method], index)
        for flags in range(256):
            if flags != section[0]:
                check_refused(record, bytes([flags]) + section[1:])


@pytest.mark.parametrize("count", [1, 100, 2**32, 2**63, 2**64 - 1])
def test_counts_that_lie(count: int):
    with pytest.raises(CorruptFrameError):
        decompress(frame_by_hand([], count=count))


@pytest.mark.parametrize("size", [1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1])
def test_metadata_sizes_that_lie(size: int):
    body = varint(size)
    head = b"LMGC" + bytes([1, 0]) + (10 + len(body) + 16).to_bytes(4, "little") + body
    frame = resealed(head + bytes(16))
    with pytest.raises(CorruptFrameError):
        decompress(frame)


@pytest.mark.parametrize("size", [0, 9, 10, 25, 2**31, 2**32 - 1])
def test_header_sizes_that_lie(size: int):
    frame = bytearray(frame_by_hand([]))
    frame[6:10] = size.to_bytes(4, "little")
    with pytest.raises(CorruptFrameError):
        decompress(frame)


def test_metadata_that_are_no_text():
    """Operators return them as str, which torch makes of UTF-8 only."""
    frame = frame_by_hand([], metadata=b"\xff\xfe\x80")
    for function in (decompress, info):
        with pytest.raises(CorruptFrameError):
            function(frame)


def test_frames_decode_from_an_unaligned_place(frames: dict[str, bytes], prior: Prior):
    for method, frame in frames.items():
        moved = to_tensor(b"\0" + frame)[1:]
        assert all_identical(decompress(moved, prior=prior), small_tensors(method))


# ---- priors --------------------------------------------------------------------------------------


def test_another_prior_is_refused(prior: Prior, feature_prior: Prior, frames: dict[str, bytes]):
    with pytest.raises(PriorMismatchError) as caught:
        decompress(frames["lmgc"], prior=feature_prior)
    assert prior.fingerprint in str(caught.value)
    assert feature_prior.fingerprint in str(caught.value)
    assert "PriorMismatchError" not in str(caught.value)


def test_no_prior_is_refused(frames: dict[str, bytes]):
    """By the operator; the Python face takes the bundled one."""
    with pytest.raises(RuntimeError, match=r"^PriorMismatchError: .*prior"):
        helpers.ops().decompress(to_tensor(frames["lmgc"]))
    with pytest.raises(ValueError, match="needs a prior"):
        helpers.ops().compress([torch.ones(3)], method="lmgc")


def test_a_bound_prior_decodes_where_it_encoded(bound_prior: Prior):
    threads = torch.get_num_threads()
    frame = compress(gradient(1000), method="lmgc", prior=bound_prior)
    assert info(frame).prior["portable"] is False
    try:
        torch.set_num_threads(threads + 1)
        with pytest.raises(PriorMismatchError, match="environment"):
            decompress(frame, prior=bound_prior)
    finally:
        torch.set_num_threads(threads)
    assert helpers.identical(decompress(frame, prior=bound_prior), gradient(1000))


@pytest.fixture(scope="module")
def broken_priors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    return helpers.write_broken_priors(tmp_path_factory.mktemp("broken"))


@pytest.mark.parametrize(
    "name",
    [
        "no-attributes",
        "no-step",
        "no-bos",
        "no-digit",
        "unknown-feature",
        "no-context",
        "text",
        "empty",
        "state-dict",
        "cut",
    ],
)
def test_broken_priors_do_not_load(name: str, broken_priors: dict[str, tuple[Path, str]]):
    path, says = broken_priors[name]
    with pytest.raises(ValueError, match=says):
        Prior.load(path)


def test_a_prior_with_logits_of_the_wrong_shape(tmp_path: Path):
    prior = Prior.load(helpers.write_wrong_logits(tmp_path / "wrong.pt"))
    with pytest.raises(ValueError, match="logits"):
        compress(gradient(100), method="lmgc", prior=prior)


def test_a_vocabulary_without_the_separator(byte_prior: Prior, prior: Prior, tmp_path: Path):
    bare = Prior.load(helpers.write_prior(tmp_path / "bare.pt", vocab=helpers.HEX_VOCAB[:17]))
    with pytest.raises(ValueError, match="vocab"):
        compress(gradient(100), method="lmgc", prior=bare, separator="space", bytes_per_group=4)
    with pytest.raises(ValueError, match="vocab"):
        compress(gradient(100), method="lmgc", prior=prior, separator="iso-8859-1")
    assert compress(gradient(100), method="lmgc", prior=bare).numel() > 0


def test_priors_go_to_cpu_and_cuda_only(prior: Prior):
    with pytest.raises((ValueError, RuntimeError)):
        prior.to("meta")
    with pytest.raises(RuntimeError):
        prior.to("no such device")
    assert prior.device == torch.device("cpu")
