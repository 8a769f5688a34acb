"""The command `lmgc bench`: sizes that were verified, and rates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers import gradient

from lmgc_torch import api, baselines, compress
from lmgc_torch.cli import bench

pytest.importorskip("zstandard")
pytestmark = pytest.mark.usefixtures("one_thread")


def test_table(run, pt: Path, tensors: dict[str, torch.Tensor]):
    out, _ = run("bench", pt)
    title, head, *rows = out.splitlines()
    raw = sum(tensor.nbytes for tensor in tensors.values())
    assert title == f"model.pt: {raw:,} bytes of tensors, every method verified"
    assert head.split() == ["method", "bytes", "%", "MB/s", "in", "MB/s", "out"]
    methods = [*bench.DEFAULTS, *baselines.NAMES]
    assert [row.rsplit(maxsplit=4)[0].strip() for row in rows if row] == methods


def test_sizes_are_those_of_the_frames(run, pt: Path, tensors: dict[str, torch.Tensor]):
    chosen = ("raw", "planes", "lm", "grouped zstd", "zlib", "planes")
    out, _ = run("bench", "--json", *(f"-m{m}" for m in chosen), "--repeat", 2, "-T", 1, pt)
    about = json.loads(out)
    assert (about["file"], about["threads"], about["repeat"]) == (str(pt), 1, 2)
    results = {result["method"]: result for result in about["results"]}
    assert tuple(results) == chosen[:-1]
    for method, result in results.items():
        if method in api.METHODS:
            size = compress(list(tensors.values()), method=method).numel()
        else:
            size = sum(
                len(
                    baselines.compress(
                        tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
                        if tensor.numel()
                        else b"",
                        tensor.element_size(),
                        method,
                    )
                )
                for tensor in tensors.values()
            )
        assert result["bytes"] == size
        assert result["ratio"] == pytest.approx(100 * size / about["raw_bytes"])
        assert result["compress_mb_per_s"] > 0
        assert result["decompress_mb_per_s"] > 0


def test_several_files(run, tmp_path: Path, pt: Path):
    """Archives are decoded first; tensors that share their elements count once."""
    whole = gradient(600, 500)
    torch.save({"a": whole, "b": whole[3:], "c": torch.ones(3)}, tmp_path / "tied.pt")
    run("compress", pt)
    out, _ = run("bench", "-m", "planes", tmp_path / "tied.pt", f"{pt}.lmgc")
    assert "tied.pt: 1,200,012 bytes of tensors" in out
    assert "model.pt.lmgc: 5,008 bytes of tensors" in out
    assert "2 files: 1,205,020 bytes of tensors" in out


def test_what_decodes_to_something_else_is_no_result(
    run, pt: Path, monkeypatch: pytest.MonkeyPatch
):
    decompress, unpack = api.decompress, baselines.decompress
    for wrong in (
        lambda *given, **options: [t + 1 for t in decompress(*given, **options)],
        lambda *given, **options: [t[None] for t in decompress(*given, **options)],
    ):
        monkeypatch.setattr(api, "decompress", wrong)
        out, messages = run("bench", "-m", "planes", pt, code=1)
        assert out == ""
        assert "what 'planes' decodes differs" in messages
    monkeypatch.setattr(baselines, "decompress", lambda data: unpack(data) + b"a")
    _, messages = run("bench", "-m", "zlib", pt, code=1)
    assert "what 'zlib' decodes differs" in messages


def test_wrong_arguments(run, tmp_path: Path, pt: Path):
    run("bench", "-m", "magic", pt, code=2)
    run("bench", "--repeat", 0, pt, code=2)
    run("bench", tmp_path / "none.pt", code=2)
    run("bench", "--prior", tmp_path / "none.pt", pt, code=2)
    (tmp_path / "a.pt").write_text("no tensors")
    out, _ = run("bench", "-m", "raw", tmp_path / "a.pt", pt, code=1)
    assert out.startswith("model.pt: ")
