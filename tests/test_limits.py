"""How much a frame or an archive may announce: `max_bytes`, in all that decodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import helpers
import pytest
import torch
from helpers import Record, all_identical, frame_by_hand, gradient, to_bytes, to_tensor

import lmgc_torch
from lmgc_torch import CorruptFrameError, PastFrame, TooLargeError, reference
from lmgc_torch.archive import ArchiveReader, ArchiveWriter
from lmgc_torch.archive.container import Geometry
from lmgc_torch.distributed import codec

METHODS = ["raw", "planes", "scale", "lowrank", "lm", "lmgc"]
ZEROS = b"\0" + b"\1\0" * 4
"""A section of method planes: four planes that are zero, of as many floats as you like."""


def zeros(*sizes: int) -> Record:
    """Zeros under a right checksum if they have 4096 elements."""
    data = helpers.checksum(bytes(4 * 4096))
    return Record(sizes, ZEROS, method=1, data_checksum=data)


def low_rank(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return gradient(rows, 2, seed=seed) @ gradient(2, columns, seed=seed + 1)


def tensors() -> list[torch.Tensor]:
    return [low_rank(40, 30), gradient(64, dtype=torch.bfloat16)]  # 4928 bytes


def check_limit(decode: Any, total: int) -> None:
    """`decode` takes `total` bytes, and not one less."""
    for enough in (total, total + 1, 2**63 - 1, 2**80, None):
        decode(max_bytes=enough)
    for little in (total - 1, total // 2, 0):
        with pytest.raises(TooLargeError, match=f"{total} bytes.*max_bytes is {little}"):
            decode(max_bytes=little)
    with pytest.raises(ValueError, match="max_bytes is -1"):
        decode(max_bytes=-1)
    for wrong in (1.5, "2GB", True):
        with pytest.raises(TypeError, match="max_bytes"):
            decode(max_bytes=wrong)


# ---- frames --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_frames(method: Any):
    frame = lmgc_torch.compress(tensors(), method=method)

    def decode(max_bytes: int | None) -> None:
        assert all_identical(lmgc_torch.decompress(frame, max_bytes=max_bytes), tensors())

    check_limit(decode, 4928)


def test_a_frame_of_nothing():
    for nothing in ([], [torch.empty(0, 4)]):
        frame = lmgc_torch.compress(nothing)
        assert all_identical(lmgc_torch.decompress(frame, max_bytes=0), nothing)


def test_frames_with_a_reference():
    others = [tensor * 1.01 for tensor in tensors()]
    frame = lmgc_torch.compress(tensors(), reference=others)

    def decode(max_bytes: int | None) -> None:
        back = lmgc_torch.decompress(frame, reference=others, max_bytes=max_bytes)
        assert all_identical(back, tensors())

    check_limit(decode, 4928)


def test_a_past_frame_stays_after_a_refusal():
    sender, receiver = PastFrame(), PastFrame()
    first, second = (
        lmgc_torch.compress([step * low_rank(90, 70)], method="lowrank", past=sender)
        for step in (1, 2)
    )
    assert lmgc_torch.info(second).needs_past
    lmgc_torch.decompress(first, past=receiver, max_bytes=25200)
    for little in (0, 25199):
        with pytest.raises(TooLargeError):
            lmgc_torch.decompress(second, past=receiver, max_bytes=little)
    back = lmgc_torch.decompress(second, past=receiver, max_bytes=25200)
    assert all_identical(back, [2 * low_rank(90, 70)])


def test_operators():
    frame = lmgc_torch.compress(tensors(), method="planes")
    for operator, arguments in (
        (helpers.ops().decompress.default, ()),
        (helpers.ops().decompress.past, (PastFrame().handle,)),
        (helpers.ops().decompress.reference, (tensors(),)),
    ):
        assert all_identical(operator(frame, *arguments, max_bytes=4928), tensors())
        with pytest.raises(RuntimeError, match=r"^TooLargeError: the frame announces 4928 bytes"):
            operator(frame, *arguments, max_bytes=4927)
        with pytest.raises(ValueError, match="max_bytes is -1"):
            operator(frame, *arguments, max_bytes=-1)


def test_the_second_decoder():
    frame = to_bytes(lmgc_torch.compress(tensors(), method="planes"))
    assert len(reference.decode(frame, max_bytes=4928)) == 2
    with pytest.raises(TooLargeError):
        reference.decode(frame, max_bytes=4927)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 9])
def test_sums_that_leave_64_bits(count: int):
    frame = frame_by_hand([zeros(2**60)] * count)  # 2^62 bytes each
    assert lmgc_torch.info(frame).raw_bytes == count * 2**62
    for limit in (0, 2**62, 2**63 - 1, 2**80):
        with pytest.raises(TooLargeError, match="max_bytes is"):
            lmgc_torch.decompress(frame, max_bytes=limit)
    with pytest.raises(CorruptFrameError, match="no memory"):
        lmgc_torch.decompress(frame)


def test_what_is_announced_counts_whatever_it_takes():
    frame = frame_by_hand([zeros(2**50), zeros(4096)])
    assert len(frame) < 120
    with pytest.raises(TooLargeError):
        lmgc_torch.decompress(frame, max_bytes=2**40)
    (back,) = lmgc_torch.decompress(frame_by_hand([zeros(4096)]), max_bytes=2**14)
    assert torch.equal(back, torch.zeros(4096))


# ---- other ranks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["planes", "lowrank", "past"])
def test_a_peer_s_frame_takes_what_is_expected_of_it(method: Any):
    """A bucket's size is known: what announces more is refused before it is decoded."""
    expected = {"shapes": [(64, 64), (9,)], "dtype": torch.float32}
    past = PastFrame()
    good = [low_rank(64, 64), gradient(9)]
    assert all_identical(codec.decode(codec.encode(good, method), method, **expected), good)
    for wrong in ([zeros(2**50)], [zeros(4096), zeros(2**50)], [zeros(2**60)] * 5):
        with pytest.raises(CorruptFrameError, match="16420 bytes of tensors were expected"):
            codec.decode(to_tensor(frame_by_hand(wrong)), method, **expected, past=past)
    for other in (good[:1], [good[0], gradient(8)], [good[0].half(), good[1]], good[0]):
        frame = lmgc_torch.compress(other, method="planes")
        with pytest.raises(CorruptFrameError, match=r"holds other tensors|holds no list"):
            codec.decode(frame, method, **expected, past=past)


# ---- archives ------------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two large tensors in frames of their own, two small ones together, and a view."""
    path = tmp_path / "a.lmgc"
    large = {"one": torch.zeros(2**17), "two": torch.ones(2**17)}
    small = {"three": torch.ones(100), "four": torch.ones(50)}
    lmgc_torch.save_file({**large, **small, "tied": large["one"]}, path)
    return path


ALL = 2 * 2**19 + 600


@pytest.mark.parametrize("load", [lmgc_torch.load_file, lmgc_torch.load])
def test_files(load: Any, archive: Path):
    def read(max_bytes: int | None) -> None:
        assert len(load(archive, max_bytes=max_bytes)) == 5

    check_limit(read, ALL)


def test_nothing_of_a_file_is_decoded_if_all_of_it_is_too_large(archive: Path):
    decoded: list[int] = []
    reader = ArchiveReader.open(archive, max_bytes=ALL - 1, progress=decoded.append)
    with pytest.raises(TooLargeError, match="the archive announces"):
        reader.tensors()
    assert decoded == []


def test_tensors_of_a_file(archive: Path):
    with lmgc_torch.safe_open(archive, max_bytes=599) as f:
        assert sorted(f.keys()) == ["four", "one", "three", "tied", "two"]
        assert f.get_slice("one").get_shape() == [2**17]
        for name in f.keys():  # noqa: SIM118
            with pytest.raises(TooLargeError, match=r"600|524288"):
                f.get_tensor(name)
            with pytest.raises(TooLargeError, match=r"600|524288"):
                f.get_slice(name)[:1]
    with lmgc_torch.safe_open(archive, max_bytes=600) as f:
        assert torch.equal(f.get_tensor("three"), torch.ones(100))
        with pytest.raises(TooLargeError, match="524288"):
            f.get_tensor("one")
    with lmgc_torch.safe_open(archive, max_bytes=2**19) as f:
        assert torch.equal(f.get_tensor("tied"), torch.zeros(2**17))
    for wrong, error in ((-1, ValueError), ("2GB", TypeError)):
        with pytest.raises(error, match="max_bytes"):
            lmgc_torch.safe_open(archive, max_bytes=wrong)


def test_a_frame_as_a_file(tmp_path: Path):
    (tmp_path / "a.lmgc").write_bytes(frame_by_hand([zeros(2**50)]))
    with pytest.raises(TooLargeError, match=str(2**52)):
        lmgc_torch.load_file(tmp_path / "a.lmgc", max_bytes=2**40)


def test_views_that_show_more_than_there_is(tmp_path: Path):
    """An archive that shows one element 2^50 times: no memory, until someone copies it."""
    path = tmp_path / "a.lmgc"
    with path.open("wb") as file:
        writer = ArchiveWriter(file)
        writer.add("one", torch.zeros(10))
        writer.add_view("wide", 0, Geometry(0, (2**50,), (0,)))
        writer.finish()
    assert lmgc_torch.load_file(path)["wide"].shape == (2**50,)
    for load in (lmgc_torch.load_file, lmgc_torch.load):
        with pytest.raises(TooLargeError, match="view 'wide'"):
            load(path, max_bytes=2**40)
    with lmgc_torch.safe_open(path, max_bytes=2**40) as f:
        for decode in (f.get_tensor, lambda name: f.get_slice(name)[:1]):
            with pytest.raises(TooLargeError, match="view 'wide'"):
                decode("wide")


# ---- the command line ----------------------------------------------------------------------------


def test_the_command_line(run, archive: Path):
    output = archive.with_name("a.pt")
    commands: list[tuple[object, ...]] = [("test", archive), ("decompress", archive, "-o", output)]
    for size in (str(ALL), "2MB", "2MiB", "1GB", "3TiB"):
        for command in commands:
            run(*command, "--max-bytes", size)
        output.unlink()
    for size in (str(ALL - 1), "0", "900KB", "1MiB"):
        for command in commands:
            _, messages = run(*command, "--max-bytes", size, code=1)
            assert f"a.lmgc: the archive announces {ALL} bytes" in messages
    assert not output.exists()


def test_in_a_safetensors_file_all_tensors_have_their_own_elements(run, archive: Path):
    pytest.importorskip("safetensors")
    plain = archive.with_name("a.safetensors")
    _, messages = run("decompress", archive, "-o", plain, "--max-bytes", str(ALL), code=1)
    assert f"announces {ALL + 2**19} bytes" in messages
    run("decompress", archive, "-o", plain, "--max-bytes", str(ALL + 2**19))


@pytest.mark.parametrize("size", ["", "-1", "2gb", "2 GB", "GB", "1.5GB", "2G", "0x10", "2PB"])
def test_sizes_that_are_none(run, archive: Path, size: str):
    _, messages = run("test", archive, f"--max-bytes={size}", code=2)
    assert "is no size: say 2000000000, 2GB or 2GiB" in messages
