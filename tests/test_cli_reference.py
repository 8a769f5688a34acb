"""`--reference` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from command_line import files
from helpers import equal, gradient
from test_archive_reference import next_step, trained

from lmgc_torch.archive.objects import encode

safetensors_torch = pytest.importorskip("safetensors.torch")
pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_checkpoint_of_ten_steps_later(run, tmp_path: Path):
    """A model and its AdamW, as an object and, flat, byte for byte as a .safetensors file."""
    steps = {"before": trained(0), "later": trained(10)}
    for name, checkpoint in steps.items():
        torch.save(checkpoint, tmp_path / f"{name}.pt")
        flat = {key: tensor.clone() for key, tensor in encode(checkpoint)[1]}
        safetensors_torch.save_file(flat, tmp_path / f"{name}.safetensors")
    for suffix in (".pt", ".safetensors"):
        base, later = tmp_path / f"before{suffix}", tmp_path / f"later{suffix}"
        archive, original = Path(f"{later}.lmgc"), later.read_bytes()
        run("compress", later)
        alone = archive.stat().st_size
        _, messages = run("compress", "-f", "--rm", later, "--reference", base)
        assert messages.startswith(f"{archive.name}: ")
        assert archive.stat().st_size < 0.9 * alone
        run("compress", "--rm", base)  # its archive does as well
        out, _ = run("test", archive, "--reference", f"{base}.lmgc")
        assert out.startswith(f"{archive.name}: ok")
        run("decompress", archive, "--reference", f"{base}.lmgc")
        if suffix == ".pt":
            assert equal(torch.load(later, weights_only=True), steps["later"])
        else:
            assert later.read_bytes() == original


@pytest.fixture
def pair(tmp_path: Path, run) -> tuple[Path, Path, Path]:
    """A base, a file, and its archive."""
    before = {"weight": gradient(60, 50) * 100, "step": torch.tensor(3)}
    base, now = tmp_path / "base.pt", tmp_path / "now.pt"
    torch.save(before, base)
    torch.save(next_step(before), now)
    run("compress", now, "--reference", base)
    return base, now, tmp_path / "now.pt.lmgc"


def test_list_and_info_tell_which(run, pair: tuple[Path, Path, Path]):
    for command in ("list", "info"):
        out, _ = run(command, pair[2])
        assert "needs the reference base.pt for 1 tensor: " in out
        out, _ = run(command, "--json", pair[2])
        told = json.loads(out)["reference"]
        assert (told["name"], told["archive"], len(told["tensors"])) == ("base.pt", None, 64)
    run("compress", pair[0])
    for command in ("list", "info"):
        out, _ = run(command, "--json", f"{pair[0]}.lmgc")
        assert json.loads(out)["reference"] is None


def test_missing_and_other_references(run, pair: tuple[Path, Path, Path], tmp_path: Path):
    base, now, archive = pair
    now.unlink()
    other, text = tmp_path / "other.pt", tmp_path / "a.txt"
    torch.save(next_step(torch.load(base), seed=3), other)
    text.write_text("no tensors")
    for command in ("test", "decompress"):
        _, messages = run(command, archive, code=1)
        assert "now.pt.lmgc: the archive was made with base.pt (tensors " in messages
        _, messages = run(command, archive, "--reference", other, code=1)
        assert "made with base.pt (tensors " in messages
        assert "not with other.pt (tensors " in messages
        _, messages = run(command, archive, "--reference", text, code=1)
        assert "the reference a.txt is neither" in messages
        _, messages = run(command, archive, "--reference", archive, code=1)
        assert "needs a reference itself" in messages
        run(command, archive, "--reference", tmp_path / "none.pt", code=2)
    assert files(tmp_path) == {"base.pt", "other.pt", "a.txt", "now.pt.lmgc"}
    run("decompress", archive, "--reference", base)
    assert now.exists()


def test_the_reference_is_kept(run, pair: tuple[Path, Path, Path], tmp_path: Path):
    base, now, archive = pair
    content = base.read_bytes()
    for arguments in (
        ("compress", "--rm", now, base, "-f"),
        ("compress", now, "-f", "-o", base),
        ("decompress", archive, "-f", "-o", base),
        ("compress", "-r", "--rm", "-f", tmp_path),
    ):
        _, messages = run(*arguments, "--reference", base, code=2)
        assert "is the reference" in messages
    assert base.read_bytes() == content
    assert now.exists()
