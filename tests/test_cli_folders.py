"""Folders on the command line: sharded checkpoints come back whole."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
import torch
from helpers import gradient

safetensors_torch = pytest.importorskip("safetensors.torch")


def content(folder: Path) -> dict[str, bytes | str | None]:
    """All that is in a folder: bytes of files, targets of links, None for folders."""
    return {
        str(path.relative_to(folder)): (
            os.readlink(path)
            if path.is_symlink()
            else path.read_bytes()
            if path.is_file()
            else None
        )
        for path in folder.rglob("*")
    }


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A checkpoint as transformers writes it, in two shards, with the files around them."""
    folder = tmp_path / "llama"
    (folder / "original" / "empty").mkdir(parents=True)
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    weights = [{f"layer.{i}.{j}": gradient(30, 20, seed=i + j) for j in range(3)} for i in (1, 2)]
    for name, tensors in zip(names, weights, strict=True):
        safetensors_torch.save_file(tensors, folder / name, {"format": "pt"})
    index = {name: file for tensors, file in zip(weights, names, strict=True) for name in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "original" / "tokenizer.model").write_bytes(bytes(range(256)))
    (folder / "original" / "training_args.bin").write_bytes(b"no tensors at all")
    safetensors_torch.save_file(weights[0], folder / "original" / "adapter.safetensors")
    return folder


def test_a_sharded_checkpoint_comes_back_whole(run, sharded: Path, tmp_path: Path):
    before = content(sharded)
    (sharded / "config.json").chmod(0o600)
    os.utime(sharded / "config.json", (1_000_000_000, 1_000_000_000))
    out, back = tmp_path / "compressed", tmp_path / "back"
    _, messages = run("compress", "-r", sharded, "-o", out)
    assert "training_args.bin is neither" in messages
    assert "copied as it is" in messages
    assert "3 files: " in messages
    made = content(out)
    assert {name.removesuffix(".lmgc") for name in made} == set(before)
    assert "model-00001-of-00002.safetensors.lmgc" in made
    assert made["config.json"] == before["config.json"]
    run("test", "-r", "-q", out)
    text, _ = run("info", "-r", "--json", out)
    assert len(text.splitlines()) == 3
    run("decompress", "-r", out, "-o", back)
    assert content(back) == before
    assert content(sharded) == before
    for folder in (out, back):
        about = (folder / "config.json").stat()
        assert (stat.S_IMODE(about.st_mode), about.st_mtime) == (0o600, 1_000_000_000)


def test_in_place(run, sharded: Path):
    before = content(sharded)
    _, messages = run("compress", "-r", "--rm", sharded)
    assert "left as it is" in messages
    made = content(sharded)
    assert not (sharded / "model-00001-of-00002.safetensors").exists()
    assert {name.removesuffix(".lmgc") for name in made} == set(before)
    run("decompress", "-r", "--rm", sharded)
    assert content(sharded) == before


def test_existing_files_are_kept(run, sharded: Path, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_text("mine")
    _, messages = run("compress", "-r", sharded, "-o", out, code=2)
    assert "config.json exists already" in messages
    assert (out / "config.json").read_text() == "mine"
    run("compress", "-r", "-f", sharded, "-o", out)
    assert (out / "config.json").read_text() == '{"model_type": "llama"}'
    first = content(out)
    _, messages = run("compress", "-r", "-m", "raw", sharded, "-o", out, code=2)
    assert "exists already" in messages
    assert content(out) == first


def test_links(run, tmp_path: Path):
    """Links in caches lead to the content; in place they stay as they are."""
    folder = tmp_path / "snapshot"
    (tmp_path / "blobs").mkdir()
    folder.mkdir()
    tensors = {"w": gradient(20)}
    safetensors_torch.save_file(tensors, tmp_path / "blobs" / "abc.safetensors")
    (tmp_path / "blobs" / "def").write_text("{}")
    (folder / "model.safetensors").symlink_to("../blobs/abc.safetensors")
    (folder / "config.json").symlink_to("../blobs/def")
    (folder / "broken").symlink_to("nowhere")
    (folder / "folder").symlink_to("../blobs")
    before = content(folder)
    run("compress", "-r", folder)
    assert content(folder) == before
    out, back = tmp_path / "out", tmp_path / "back"
    run("compress", "-r", folder, "-o", out)
    assert "model.safetensors.lmgc" in content(out)
    run("decompress", "-r", out, "-o", back)
    blob = (tmp_path / "blobs" / "abc.safetensors").read_bytes()
    assert content(back) == {
        "model.safetensors": blob,
        "config.json": b"{}",
        "broken": "nowhere",
        "folder": "../blobs",
    }


def test_what_is_no_file(run, tmp_path: Path):
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o700)
    torch.save([1], folder / "a.pt")
    os.mkfifo(folder / "pipe.pt")
    _, messages = run("compress", "-r", folder, "-o", tmp_path / "out", code=2)
    assert "pipe.pt is neither a file nor a folder" in messages
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700
    run("compress", "-r", folder)
    assert set(content(folder)) == {"a.pt", "a.pt.lmgc", "pipe.pt"}


def test_files_in_folders_are_found_by_their_suffix(run, tmp_path: Path):
    for name in ("a.pt", "b.pth", "c.bin", "d.ckpt", "e.txt", "f.pt.lmgc"):
        torch.save([gradient(5)], tmp_path / name)
    run("compress", "-r", "-q", tmp_path)
    made = {path.name for path in tmp_path.iterdir() if path.name.endswith(".lmgc")}
    assert made == {"a.pt.lmgc", "b.pth.lmgc", "c.bin.lmgc", "d.ckpt.lmgc", "f.pt.lmgc"}


def test_what_is_compressed_already_is_copied(run, sharded: Path, tmp_path: Path):
    run("compress", "-r", "--rm", "-q", sharded)
    before = content(sharded)
    run("compress", "-r", sharded, "-o", tmp_path / "out")
    assert content(tmp_path / "out") == before


def test_a_damaged_archive_does_not_keep_the_others(run, sharded: Path, tmp_path: Path):
    out, back = tmp_path / "out", tmp_path / "back"
    run("compress", "-r", sharded, "-o", out)
    damaged = out / "model-00001-of-00002.safetensors.lmgc"
    data = bytearray(damaged.read_bytes())
    data[20] ^= 1
    damaged.write_bytes(data)
    _, messages = run("decompress", "-r", out, "-o", back, code=1)
    assert str(damaged) in messages
    missing = set(content(sharded)) - set(content(back))
    assert missing == {"model-00001-of-00002.safetensors"}
