"""`--reference` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from command_line import files
from helpers import equal, gradient
from test_archive_chain import shards
from test_archive_reference import Tensors, next_step, trained

from lmgc_torch.archive import ArchiveReader
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
        assert "reference now.pt.lmgc: it needs a reference itself, base.pt (tensors " in messages
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
        assert "reference, which is still needed" in messages or "would change the" in messages
    assert base.read_bytes() == content
    assert now.exists()


@pytest.mark.parametrize("command", ["list", "info", "test", "analyze", "bench"])
def test_commands_that_only_read(run, pair: tuple[Path, Path, Path], tmp_path: Path, command: str):
    """Those that decode need the reference; those that do not make sure that it is that one."""
    base, now, archive = pair
    other = tmp_path / "other.pt"
    torch.save(next_step(torch.load(base), seed=3), other)
    decodes = command not in ("list", "info")
    options = ("-m", "raw") if command in ("analyze", "bench") else ()
    _, messages = run(command, *options, archive, code=int(decodes))
    assert ("made with base.pt (tensors " in messages) == decodes
    _, messages = run(command, *options, archive, "--reference", other, code=1)
    assert "now.pt.lmgc: the archive was made with base.pt (tensors " in messages
    assert "not with other.pt (tensors " in messages
    run(command, *options, archive, "--reference", tmp_path / "none.pt", code=2)
    run(command, *options, archive, "--reference", base)
    if command in ("analyze", "bench"):  # what the archive's tensors give, not the difference
        json_of = [
            run(command, *options, "--json", *of)[0]
            for of in ((archive, "--reference", base), (now,))
        ]
        told = [json.loads(text) for text in json_of]
        kept = [
            t["tensors"] if command == "analyze" else (t["raw_bytes"], t["results"][0]["bytes"])
            for t in told
        ]
        assert kept[0] == kept[1]
    # Inputs that need none ignore it.
    plain = now if command in ("analyze", "bench") else tmp_path / "base.pt.lmgc"
    run("compress", base)
    run(command, *options, plain, "--reference", other)


def test_chains(run, pair: tuple[Path, Path, Path], tmp_path: Path):
    base, now, archive = pair
    later, path = tmp_path / "later.pt", tmp_path / "later.pt.lmgc"
    torch.save(next_step(torch.load(now), seed=4), later)
    content = torch.load(later)
    _, messages = run("compress", later, "--reference", archive, code=1)
    says = "the reference now.pt.lmgc: it needs a reference itself, base.pt (tensors "
    assert says in messages
    assert "name that one behind it" in messages
    chain = ("--reference", archive, "--reference", base)
    run("compress", "--rm", later, *chain)
    for command in ("test", "info", "analyze"):
        run(command, path, *chain)
    _, messages = run("test", path, "--reference", base, code=1)
    assert "later.pt.lmgc: the archive was made with now.pt.lmgc (tensors " in messages
    assert "not with base.pt (tensors " in messages
    _, messages = run("test", path, "--reference", base, "--reference", archive, code=1)
    assert "reference now.pt.lmgc: it needs a reference itself" in messages
    for link in (base, archive):
        _, messages = run("decompress", path, "-f", "-o", link, *chain, code=2)
        assert f"{link} would change the reference {link}: choose another" in messages
    run("decompress", path, *chain)
    assert equal(torch.load(later), content)


# ---- folders -------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> tuple[Path, Path, Tensors]:
    """A folder of a model and a part of its own, and what became of it, cut otherwise."""
    before = {f"w{i}": gradient(50, 40, seed=i) * 100 for i in range(5)}
    now = next_step(before)
    base = shards(tmp_path / "base", before, "safetensors", 2)
    tuned = shards(tmp_path / "tuned", now, "safetensors", 3)
    for folder, shift in ((base, 1), (tuned, 1.001)):  # the same names as outside
        inner = {name: shift * tensor.flip(0) for name, tensor in before.items()}
        shards(folder / "part", inner, "pt", 1)
    shards(tuned / "added", now, "pt", 1)
    return base, tuned, now


def test_folders(run, tree: tuple[Path, Path, Tensors], tmp_path: Path):
    base, tuned, _ = tree
    out, back = tmp_path / "tuned-lmgc", tmp_path / "back"
    run("compress", "-r", tuned, "-o", tmp_path / "alone")
    run("compress", "-r", tuned, "-o", out, "--reference", base)
    needed = {path: ArchiveReader.open(path).index.reference for path in out.rglob("*.lmgc")}
    names = {
        str(path.relative_to(out)): None if entry is None else entry.name
        for path, entry in needed.items()
    }
    model = {f"model-0000{i}-of-00003.safetensors.lmgc": "base" for i in (1, 2, 3)}
    inner = "model-00001-of-00001.pt.lmgc"
    assert names == {**model, f"part/{inner}": "part", f"added/{inner}": None}
    for path, entry in needed.items():
        alone = tmp_path / "alone" / path.relative_to(out)
        assert (path.stat().st_size < 0.85 * alone.stat().st_size) == (entry is not None)
    # The reference may be compressed meanwhile, in one archive a file.
    run("compress", "-q", "-r", base, "-o", tmp_path / "base-lmgc")
    run("test", "-r", out, "--reference", tmp_path / "base-lmgc")
    run("info", "-r", out, "--reference", tmp_path / "base-lmgc")
    run("decompress", "-r", out, "-o", back, "--reference", tmp_path / "base-lmgc")
    assert_same_trees(back, tuned)
    # A shard by itself.
    shard = out / "model-00002-of-00003.safetensors.lmgc"
    run("test", shard, "--reference", base)
    _, messages = run("test", shard, "--reference", base / "part", code=1)
    assert "made with base (tensors " in messages
    # Without it every file that needs it is told, and the others are treated.
    back = tmp_path / "again"
    _, messages = run("decompress", "-r", out, "-o", back, code=1)
    assert messages.count("and decodes with it alone") == 4
    assert (back / "added" / inner.removesuffix(".lmgc")).exists()


def test_folders_that_are_relative_themselves(
    run, tree: tuple[Path, Path, Tensors], tmp_path: Path
):
    base, tuned, now = tree
    middle, last, out, back = (tmp_path / name for name in ("middle", "last", "out", "back"))
    run("compress", "-q", "-r", tuned, "-o", middle, "--reference", base)
    shards(last, next_step(now, 5), "safetensors", 1)
    chain = ("--reference", middle, "--reference", base)
    _, messages = run("compress", "-r", last, "-o", out, *chain[:2], code=1)
    assert "the reference middle/model-00001-of-00003.safetensors.lmgc: it needs" in messages
    run("compress", "-f", "-r", last, "-o", out, *chain)
    run("decompress", "-r", out, "-o", back, *chain)
    assert_same_trees(back, last)


def test_folders_that_are_references_are_kept(
    run, tree: tuple[Path, Path, Tensors], tmp_path: Path
):
    base, tuned, _ = tree
    before = {path: path.read_bytes() for path in base.rglob("*") if path.is_file()}
    (tmp_path / "link").symlink_to(base)
    for arguments in (
        ("compress", "-r", tuned, "-o", base),
        ("compress", "-r", tuned, "-o", tmp_path / "link"),
        ("compress", "-r", "-f", tuned, "-o", base / "part"),
        ("compress", "-r", base),
        ("compress", "-r", "--rm", tmp_path),
        ("compress", tuned / "part" / "model-00001-of-00001.pt", "-f", "-o", base / "config.json"),
    ):
        _, messages = run(*arguments, "--reference", base, code=2)
        assert "reference, which is still needed" in messages or "would change the" in messages
    assert before == {path: path.read_bytes() for path in base.rglob("*") if path.is_file()}


def test_folders_that_are_no_references(run, tree: tuple[Path, Path, Tensors], tmp_path: Path):
    base, tuned, _ = tree
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    (tmp_path / "empty" / "config.json").write_text("{}")
    out = tmp_path / "out"
    _, messages = run("compress", "-r", tuned, "-o", out, "--reference", tmp_path / "empty", code=1)
    assert "empty is a folder without files of tensors" in messages
    assert not out.exists()
    first = base / "model-00001-of-00002.safetensors"
    first.write_bytes(first.read_bytes()[:40])
    _, messages = run("compress", "-r", tuned, "-o", out, "--reference", base, code=1)
    assert messages.count("the reference base/model-00001-of-00002.safetensors is cut") == 3
    assert not list(out.glob("*.lmgc"))


def assert_same_trees(one: Path, two: Path) -> None:
    names = [{str(path.relative_to(root)) for path in root.rglob("*")} for root in (one, two)]
    assert names[0] == names[1]
    for name in names[0]:
        if (two / name).is_file():
            if name.endswith(".pt"):
                assert equal(torch.load(one / name), torch.load(two / name))
            else:
                assert (one / name).read_bytes() == (two / name).read_bytes()
