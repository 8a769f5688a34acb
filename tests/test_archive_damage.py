"""Archives that are damaged, cut, or made to deceive: a named error, never wrong data."""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import all_identical, gradient

from lmgc_torch import CorruptArchiveError, CorruptFrameError, save_file
from lmgc_torch.archive import ArchiveReader, ArchiveWriter
from lmgc_torch.archive.container import END, TRAILER, Geometry

pytestmark = pytest.mark.usefixtures("one_thread")


def reader_of(data: bytes) -> ArchiveReader:
    return ArchiveReader(torch.frombuffer(bytearray(data), dtype=torch.uint8))


def parts(data: bytes) -> tuple[bytes, dict[str, Any]]:
    """What stands before the index, and the index."""
    offset, size, plain_size, digest, end = TRAILER.unpack(data[-TRAILER.size :])
    assert end == END
    stored = data[offset : offset + size]
    assert hashlib.sha256(stored).digest() == digest
    plain = zlib.decompress(stored)
    assert len(plain) == plain_size
    return data[:offset], json.loads(plain)


def archive_by_hand(frames: bytes, index: object, **changes: Any) -> bytes:
    """An archive with right checksums, whatever its index says."""
    plain = changes.get("plain", json.dumps(index).encode())
    stored = changes.get("stored", zlib.compress(plain))
    offset = changes.get("offset", len(frames))
    size = changes.get("size", len(stored))
    plain_size = changes.get("plain_size", len(plain))
    digest = hashlib.sha256(stored).digest()
    return frames + stored + TRAILER.pack(offset, size, plain_size, digest, END)


@pytest.fixture(scope="module")
def small() -> tuple[bytes, dict[str, torch.Tensor]]:
    """An archive of two frames, some hundred bytes."""
    tensors = {"w": torch.arange(9.0), "tied": torch.empty(0), "count": torch.tensor([3, 4])}
    tensors["tied"] = tensors["w"][2:]
    file = io.BytesIO()
    writer = ArchiveWriter(file, method="planes")
    writer.add("w", tensors["w"])
    writer._end_group(torch.device("cpu"))
    writer.add_view("tied", 0, Geometry(2, (7,), (1,)))
    writer.add("count", tensors["count"])
    writer.finish(metadata={"a": "b"})
    return file.getvalue(), tensors


def test_truncated_at_every_byte(small):
    data, _ = small
    for size in range(len(data)):
        with pytest.raises(CorruptArchiveError):
            reader_of(data[:size]) if size else ArchiveReader(torch.empty(0, dtype=torch.uint8))


def test_every_byte_flipped(small):
    data, _ = small
    assert len(data) < 600
    for place in range(len(data)):
        for bit in (0x01, 0x80):
            damaged = bytearray(data)
            damaged[place] ^= bit
            with pytest.raises(CorruptFrameError):
                reader_of(damaged).tensors()


def test_something_behind_the_end(small):
    with pytest.raises(CorruptArchiveError, match="does not end with a trailer"):
        reader_of(small[0] + b"\n")


def test_frames_that_changed_places(tmp_path: Path):
    tensors = {"a": gradient(1 << 16, seed=1), "b": gradient(1 << 16, seed=2)}
    save_file(tensors, tmp_path / "a.lmgc", method="raw")
    data, index = parts((tmp_path / "a.lmgc").read_bytes())
    (size, _), (other, _) = index["frames"]
    assert size == other
    swapped = data[:8] + data[8 + size :] + data[8 : 8 + size]
    whole = archive_by_hand(swapped, index)
    with pytest.raises(CorruptArchiveError, match="frame 0 is damaged"):
        reader_of(whole).tensors()
    with pytest.raises(CorruptArchiveError, match="frame 1 is damaged"):
        reader_of(whole).tensor(1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"frames": None}, "list the frames"),
        ({"frames": [[27]]}, "frame 0 is not described"),
        ({"frames": [[26, "0" * 16]]}, "frame 0 is not described"),
        ({"frames": [[2**63, "0" * 16]]}, "frame 0 is not described"),
        ({"frames": [[True, "0" * 16]]}, "frame 0 is not described"),
        ({"frames": [[100, "0" * 15]]}, "frame 0 is not described"),
        ({"frames": [[100, "x" * 16]]}, "frame 0 is not described"),
        ({"frames": []}, "do not end where"),
        ({"frames": [[10**6, "0" * 16]]}, "do not end where"),
        ({"tensors": {}}, "list the tensors"),
        ({"tensors": [{"frame": 0}]}, "tensor 0 is not described"),
        ({"tensors": [{"name": "a"}]}, "tensor 0 is not described"),
        ({"tensors": [{"name": "a", "frame": -1}]}, "tensor 0 is not described"),
        ({"tensors": [{"name": "a", "frame": False}]}, "tensor 0 is not described"),
        ({"tensors": [{"name": "a", "frame": 0, "view_of": 0}]}, "tensor 0 is not described"),
        ({"tensors": [{"name": "a", "frame": 2}]}, "tensor 0 is in no frame"),
        ({"tensors": [{"name": "a", "frame": 0}] * 2}, "two tensors are called 'a'"),
        ({"tensors": [{"name": "a", "view_of": 0}]}, "tensor 0 is a view of none"),
        ({"tensors": [{"name": "a", "view_of": 1}]}, "tensor 0 is a view of none"),
        ({"tensors": [{"name": "a", "view_of": 0, "offset": 0}]}, "tensor 0 is not described"),
        (
            {"tensors": [{"name": "a", "view_of": 0, "offset": 0, "size": [1], "stride": []}]},
            "tensor 0 is not described",
        ),
        ({"metadata": {"a": 1}}, "no texts"),
        ({"metadata": []}, "no texts"),
        ({"object": 3}, "'object'"),
        ({"file": []}, "'file'"),
        ({"reference": {"identity": "0"}}, "'reference'"),
    ],
)
def test_indexes_that_are_wrong(small, change: dict[str, Any], says: str):
    frames, index = parts(small[0])
    with pytest.raises(CorruptArchiveError, match=says):
        reader_of(archive_by_hand(frames, {**index, **change}))


def test_indexes_that_do_not_fit_the_frames(small):
    frames, index = parts(small[0])
    first, tied, count = index["tensors"]
    for tensors, says in (
        ([first, tied], "frame 1 holds 1 tensors, and the index names 0"),
        ([first, tied, count, {"name": "more", "frame": 1}], "holds 1 tensors, and the index name"),
        ([first, {**tied, "size": [8]}, count], "beyond its tensor's end"),
        ([first, {**tied, "offset": 2**62}, count], "beyond its tensor's end"),
        ([first, {**tied, "size": [2, 7]}, count], "tensor 1 is not described"),
    ):
        with pytest.raises(CorruptArchiveError, match=says):
            reader_of(archive_by_hand(frames, {**index, "tensors": tensors})).tensors()
    wide = {**tied, "size": [0, 5], "stride": [9, 9]}
    assert reader_of(archive_by_hand(frames, {**index, "tensors": [first, wide, count]})).tensors()[
        1
    ].shape == (0, 5)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"plain": b"{"}, "no JSON"),
        ({"plain": b"[" * 100_000}, "no JSON"),
        ({"plain": b"[]"}, "no JSON object"),
        ({"plain": b'{"frames":"\xff"}'}, "no JSON"),
        ({"plain": b'{"frames":' + b"9" * 5000 + b"}"}, "no JSON|list the frames"),
        ({"plain_size": 5}, "another size"),
        ({"plain_size": 10**5}, "another size"),
        ({"plain_size": 2**63}, "cannot be in it"),
        ({"stored": b"no zlib"}, "inflated|cannot be in it"),
        ({"stored": zlib.compress(b"{}") + b"more", "plain_size": 2}, "another size"),
        ({"stored": zlib.compress(b"{}")[:-1], "plain_size": 2}, "another size"),
        ({"stored": zlib.compress(bytes(10**6)), "plain_size": 10}, "another size"),
        ({"offset": 9}, "speaks of an index"),
        ({"offset": 2**64 - 1}, "speaks of an index"),
        ({"size": 2**64 - 1}, "speaks of an index"),
        ({"offset": 0}, "speaks of an index"),
    ],
)
def test_trailers_that_are_wrong(small, changes: dict[str, Any], says: str):
    frames, index = parts(small[0])
    with pytest.raises(CorruptArchiveError, match=says):
        reader_of(archive_by_hand(frames, index, **changes))


def test_later_versions_are_refused(small):
    data = bytearray(small[0])
    data[4] = 2
    with pytest.raises(CorruptArchiveError, match="of version 2"):
        reader_of(data)


def test_keys_of_later_writers_are_passed_by(small):
    frames, index = parts(small[0])
    back = reader_of(archive_by_hand(frames, {**index, "mood": {"bright": 1}})).tensors()
    assert all_identical(back, small[1].values())
