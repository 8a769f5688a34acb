"""General compressors with byte grouping: round trips, sizes, damaged bytes."""

from __future__ import annotations

import random
import sys

import pytest
import torch

from lmgc_torch import baselines
from lmgc_torch.errors import CorruptFrameError

pytest.importorskip("zstandard")


def gradient(dtype: torch.dtype = torch.float32, count: int = 20000) -> bytes:
    values = torch.randn(count, generator=torch.Generator().manual_seed(1)) * 1e-3
    return bytes(values.to(dtype).view(torch.uint8).tolist())


@pytest.mark.parametrize("name", baselines.NAMES)
def test_round_trips(name: str):
    for data, width in [(gradient(), 4), (gradient(torch.bfloat16), 2), (b"", 4), (b"a", 1)]:
        packed = baselines.compress(data, width, name)
        assert baselines.decompress(packed) == data
        assert baselines.decompress(packed, threads=2) == data


def test_grouping_pays_and_the_smallest_is_smallest():
    data = gradient()
    sizes = {name: len(baselines.compress(data, 4, name)) for name in baselines.NAMES}
    assert sizes["grouped zlib"] < sizes["zlib"]
    assert sizes["grouped zstd"] < sizes["zstd"]
    assert sizes["grouped"] <= min(sizes.values())
    # Three bytes of random mantissa stay raw: exponents alone are compressed.
    packed = baselines.compress(data, 4)
    codes, at = [], 9
    for _ in range(4):
        codes.append(packed[at])
        at += 9 + int.from_bytes(packed[at + 1 : at + 9], "little")
    assert codes[:2] == [0, 0]
    assert codes[3] != 0


def test_groups():
    assert baselines.split_groups(b"abcdef", 3) == [b"ad", b"be", b"cf"]
    assert baselines.join_groups([b"ad", b"be", b"cf"]) == b"abcdef"
    with pytest.raises(ValueError, match="5 bytes are not whole elements of 2"):
        baselines.split_groups(b"abcde", 2)


def test_bad_arguments(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match="name is 'zip'"):
        baselines.compress(b"", 1, "zip")
    with pytest.raises(ValueError, match="width is 256"):
        baselines.compress(bytes(256), 256)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert baselines.decompress(baselines.compress(b"aa", 2, "grouped zlib")) == b"aa"
    with pytest.raises(ImportError):
        baselines.compress(b"aa", 2)


@pytest.mark.parametrize("name", baselines.NAMES)
def test_damaged_bytes(name: str):
    """Nothing but the bytes or the error by its name; there are no checksums of raw groups."""
    data = gradient(count=100)
    packed = baselines.compress(data, 4, name)
    generator = random.Random(3)
    for end in range(0, len(packed), 7):
        with pytest.raises(CorruptFrameError):
            baselines.decompress(packed[:end])
    with pytest.raises(CorruptFrameError, match="go on"):
        baselines.decompress(packed + b"\0")
    for _ in range(300):
        changed = bytearray(packed)
        changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(8)
        try:
            out = baselines.decompress(bytes(changed))
        except CorruptFrameError:
            continue
        assert len(out) <= 2 * len(data)
