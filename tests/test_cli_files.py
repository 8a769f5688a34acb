"""The files that `lmgc` finds and leaves behind."""

from __future__ import annotations

import dataclasses
import os
import stat
from pathlib import Path

import pytest
import torch
from command_line import files, holds

from lmgc_torch import api
from lmgc_torch.archive import ArchiveWriter


def test_existing_files_are_kept(run, pt: Path):
    original = pt.read_bytes()
    run("compress", pt)
    first = Path(f"{pt}.lmgc").read_bytes()
    _, messages = run("compress", "-m", "raw", pt, code=2)
    assert "exists already" in messages
    assert Path(f"{pt}.lmgc").read_bytes() == first
    _, messages = run("decompress", f"{pt}.lmgc", code=2)
    assert "exists already" in messages
    assert pt.read_bytes() == original
    run("compress", "-f", "-m", "raw", pt)
    assert Path(f"{pt}.lmgc").read_bytes() != first


def test_rm(run, pt: Path, tensors: dict[str, torch.Tensor]):
    run("compress", "--rm", pt)
    assert files(pt.parent) == {"model.pt.lmgc"}
    run("decompress", "--rm", f"{pt}.lmgc")
    assert files(pt.parent) == {"model.pt"}
    assert holds(pt, tensors)


def test_rm_keeps_the_input_when_something_fails(run, pt: Path):
    run("compress", pt)
    frame = Path(f"{pt}.lmgc")
    frame.write_bytes(frame.read_bytes()[:-1] + b"?")
    run("decompress", "--rm", "-f", frame, code=1)
    assert files(pt.parent) == {"model.pt", "model.pt.lmgc"}
    run("compress", "--rm", pt, code=2)  # the output exists
    assert pt.exists()


@pytest.mark.parametrize("change", ["bits", "names", "header"])
@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_rm_verifies_first(
    run, pt: Path, tensors: dict[str, torch.Tensor], monkeypatch, change: str, name: str
):
    path = pt.with_name(name)
    if name != "model.pt":
        pytest.importorskip("safetensors.torch").save_file(tensors, path)
        pt.unlink()
    original = path.read_bytes()
    if change == "bits":
        compress = api.compress
        monkeypatch.setattr(
            api, "compress", lambda t, **options: compress([x + 1 for x in t], **options)
        )
    else:
        finish = ArchiveWriter.finish

        def changed(self, **keys):
            if change == "names":
                self._tensors = [
                    dataclasses.replace(entry, name=entry.name + "?") for entry in self._tensors
                ]
            elif "header" in keys["file"]:
                keys["file"]["header"] += " "
            else:
                keys["object"] = {"root": 1}
            return finish(self, **keys)

        monkeypatch.setattr(ArchiveWriter, "finish", changed)
    _, messages = run("compress", "--rm", path, code=1)
    assert "differs" in messages or "of other tensors" in messages
    assert files(pt.parent) == {name}
    assert path.read_bytes() == original


def test_a_failing_write_leaves_nothing(run, pt: Path, monkeypatch: pytest.MonkeyPatch):
    finish = ArchiveWriter.finish

    def fail(self, **keys):
        finish(self, **keys)
        raise OSError("No space left on device")

    monkeypatch.setattr(ArchiveWriter, "finish", fail)
    _, messages = run("compress", "--rm", pt, code=1)
    assert "No space left" in messages
    assert files(pt.parent) == {"model.pt"}


def test_permissions_and_times_are_kept(run, pt: Path):
    pt.chmod(0o640)
    os.utime(pt, (1_000_000_000, 1_234_567_890))
    run("compress", "--rm", pt)
    archive = Path(f"{pt}.lmgc")
    run("decompress", archive)
    for path in (archive, pt):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert path.stat().st_mtime == 1_234_567_890


def test_links_and_devices_stay(run, pt: Path, tmp_path: Path):
    target, link = tmp_path / "target.lmgc", tmp_path / "link.lmgc"
    target.write_bytes(b"old")
    link.symlink_to(target)
    run("compress", "-f", pt, "-o", link)
    assert link.is_symlink()
    assert target.read_bytes()[:4] == b"LMGA"
    run("compress", pt, "-o", "/dev/null")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
