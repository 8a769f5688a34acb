"""Archives whose reference is relative itself, and references that are folders of shards."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import all_identical, gradient
from hypothesis import given
from hypothesis import strategies as st
from test_archive_damage import archive_by_hand, parts
from test_archive_reference import Tensors, next_step

from lmgc_torch import (
    CorruptFrameError,
    ReferenceMismatchError,
    compress,
    load,
    load_file,
    safe_open,
    save,
    save_file,
)
from lmgc_torch.archive import ArchiveReader, ArchiveWriter
from lmgc_torch.archive.reference import Reference
from lmgc_torch.checkpoints.folder import tensor_files

safetensors_torch = pytest.importorskip("safetensors.torch")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def steps() -> list[Tensors]:
    """Four checkpoints, each a little after the other."""
    first = {
        "large": gradient(300, 300, seed=1) * 100,
        "weight": gradient(60, 50, seed=2) * 100,
        "half": (gradient(3000, seed=3) * 100).bfloat16(),
        "step": torch.tensor(7),
    }
    result = [first]
    for seed in range(3):
        result.append(next_step(result[-1], seed))
    return result


@pytest.fixture
def chain(tmp_path: Path, steps: list[Tensors]) -> list[Path]:
    """Archives of them; all but the first are relative to the one before."""
    paths = [tmp_path / f"step-{10 * i}.lmgc" for i in range(4)]
    for i, (path, tensors) in enumerate(zip(paths, steps, strict=True)):
        save_file(tensors, path, reference=paths[:i][::-1] or None)
    return paths


def same(back: Any, tensors: Tensors) -> bool:
    return list(back) == list(tensors) and all_identical(back.values(), tensors.values())


# ---- chains --------------------------------------------------------------------------------------


def test_a_chain_is_read_with_all_that_is_behind(chain: list[Path], steps: list[Tensors]):
    for i, path in enumerate(chain):
        behind = chain[:i][::-1]
        about = ArchiveReader.open(path).info()
        assert (about.reference is None) == (i == 0)
        if about.reference is not None:
            assert about.reference.name == chain[i - 1].name
            assert about.reference.archive == ArchiveReader.open(chain[i - 1]).index.identity
        assert same(load_file(path, reference=behind or None), steps[i])
        assert same(load(path, reference=tuple(map(str, behind)) or None), steps[i])
    with safe_open(chain[3], reference=chain[2::-1]) as file:
        assert torch.equal(file.get_tensor("half"), steps[3]["half"])


def test_a_link_may_be_any_file_of_its_tensors(
    tmp_path: Path, chain: list[Path], steps: list[Tensors]
):
    """What a plain file stands for needs nothing behind it; more is not looked at."""
    torch.save(steps[1], tmp_path / "ten.pt")
    safetensors_torch.save_file(steps[0], tmp_path / "zero.safetensors")
    for behind in (
        [steps[2]],
        [steps[2], steps[0]],
        [chain[2], tmp_path / "ten.pt"],
        [chain[2], chain[1], tmp_path / "zero.safetensors"],
        [chain[2], chain[1], steps[0]],
        [*chain[2::-1], tmp_path / "zero.safetensors"],
    ):
        assert same(load_file(chain[3], reference=behind), steps[3])


def test_frames_in_a_chain(tmp_path: Path, steps: list[Tensors]):
    frame, path = tmp_path / "frame.lmgc", tmp_path / "a.lmgc"
    frame.write_bytes(compress(steps[1], reference=steps[0]).numpy().tobytes())
    save_file(steps[2], path, reference=[frame, steps[0]])
    assert same(load_file(path, reference=[frame, steps[0]]), steps[2])
    with pytest.raises(ReferenceMismatchError, match=r"the reference frame\.lmgc: "):
        load_file(path, reference=[frame, steps[1]])
    with pytest.raises(ReferenceMismatchError, match=r"frame\.lmgc: it needs a reference itself:"):
        load_file(path, reference=frame)


def test_a_missing_link_is_named(tmp_path: Path, chain: list[Path], steps: list[Tensors]):
    tensors = r"\(tensors [0-9a-f]{16}, archive [0-9a-f]{16}\)"
    says = rf"^the archive was made with step-20\.lmgc {tensors} and decodes with it alone"
    with pytest.raises(ReferenceMismatchError, match=says):
        load_file(chain[3])
    for given_, named, missing in ((chain[2:3], "20", "10"), (chain[2:0:-1], "10", "0")):
        says = (
            rf"the reference step-{named}\.lmgc: it needs a reference itself, "
            rf"step-{missing}\.lmgc {tensors}: name that one behind it$"
        )
        for work in (
            lambda given_=given_: load_file(chain[3], reference=given_),
            lambda given_=given_: save_file(steps[3], tmp_path / "a.lmgc", reference=given_),
            lambda given_=given_: save(steps[3], tmp_path / "a.lmgc", reference=given_),
        ):
            with pytest.raises(ReferenceMismatchError, match=says):
                work()
    assert not (tmp_path / "a.lmgc").exists()


def test_a_wrong_link_is_named(
    tmp_path: Path, chain: list[Path], steps: list[Tensors], monkeypatch: pytest.MonkeyPatch
):
    """Each link is held to what the archive before it says, before anything of it is decoded."""
    other = tmp_path / "other.lmgc"
    save_file(next_step(steps[0], seed=9), other)
    links = chain[2::-1]
    for place in range(3):
        wrong = [*links[:place], other, *links[place + 1 :]]
        who = (
            "the archive was" if place == 0 else rf"step-{10 * (3 - place)}\.lmgc: the archive was"
        )
        says = rf"{who} made with step-{10 * (2 - place)}\.lmgc .*, not with other\.lmgc \(tensors"
        with pytest.raises(ReferenceMismatchError, match=says):
            load_file(chain[3], reference=wrong)
    with pytest.raises(ReferenceMismatchError, match=r"not with step-10\.lmgc"):
        load_file(chain[3], reference=[chain[1], chain[0]])
    # The same names and tensors, in an archive that was made anew: another identity, but it does.
    save_file(steps[0], other, method="planes")
    assert same(load_file(chain[3], reference=[chain[2], chain[1], other]), steps[3])
    # A link whose tensors are right, but that was made with another reference than is behind it.
    save_file(steps[1], other, reference=steps[2])
    with pytest.raises(ReferenceMismatchError, match=r"other\.lmgc: the archive was made with a r"):
        load_file(chain[3], reference=[chain[2], other, chain[0]])
    assert same(load_file(chain[3], reference=[chain[2], other, steps[2]]), steps[3])


def test_damage_in_a_chain_says_where(chain: list[Path]):
    links = chain[2::-1]
    for path in links:
        whole = path.read_bytes()
        for place in (len(whole) // 2, len(whole) - 80):
            damaged = bytearray(whole)
            damaged[place] ^= 1
            path.write_bytes(damaged)
            with pytest.raises(CorruptFrameError, match=rf"the reference {path.name}: "):
                load_file(chain[3], reference=links)
        path.write_bytes(whole)


def test_links_are_not_overwritten(chain: list[Path], steps: list[Tensors]):
    for path in chain[:3]:
        before = path.read_bytes()
        with pytest.raises(ValueError, match=r"would change the reference .*: write elsewhere"):
            save_file(steps[3], path, reference=chain[2::-1])
        assert path.read_bytes() == before


def written(tensors: Tensors, reference: Any = None) -> bytes:
    file = io.BytesIO()
    base = None if reference is None else Reference.open(reference)
    writer = ArchiveWriter(file, method="scale", reference=base)
    for name, tensor in tensors.items():
        writer.add(name, tensor)
    writer.finish()
    return file.getvalue()


@given(st.permutations([0, 1, 2]), st.integers(1, 3))
def test_only_the_right_order_decodes(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], count: int
):
    folder = tmp_path_factory.mktemp("order")
    steps = [{"w": gradient(12, 10) * 100}]
    paths = [folder / f"{i}.lmgc" for i in range(4)]
    for i, path in enumerate(paths):
        save_file(steps[i], path, method="scale", reference=paths[:i][::-1] or None)
        steps.append(next_step(steps[-1], i))
    links = [paths[i] for i in order[:count]]
    if order == [2, 1, 0] and count == 3:
        assert same(load_file(paths[3], reference=links), steps[3])
    else:
        with pytest.raises(ReferenceMismatchError):
            load_file(paths[3], reference=links)


def test_every_byte_of_a_link_flipped(tmp_path: Path):
    """A link is untrusted: whatever is wrong with it, no other tensor comes out."""
    steps = [{"w": gradient(12, 10) * 100}]
    steps += [next_step(steps[0], 1)]
    steps += [next_step(steps[1], 2)]
    link, path = tmp_path / "link.lmgc", tmp_path / "now.lmgc"
    save_file(steps[1], link, method="scale", reference=steps[0])
    save_file(steps[2], path, method="scale", reference=[link, steps[0]])
    whole = link.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        link.write_bytes(damaged)
        with pytest.raises((CorruptFrameError, ValueError)):
            load_file(path, reference=[link, steps[0]])
    # An index that was made right again, and lies.
    frames, index = parts(whole)
    other = Reference.open(steps[2]).entry({}).tensors
    for lie in (None, {"tensors": other}, {**index["reference"], "tensors": "0" * 64}):
        link.write_bytes(archive_by_hand(frames, {**index, "reference": lie}))
        with pytest.raises((CorruptFrameError, ReferenceMismatchError)):
            load_file(path, reference=[link, steps[0]])


# ---- folders -------------------------------------------------------------------------------------


def shards(folder: Path, tensors: Tensors, kind: str, count: int = 2) -> Path:
    """Writes a folder in which tensors are dealt out to files."""
    folder.mkdir()
    for i in range(count):
        part = dict(list(tensors.items())[i::count])
        path = folder / f"model-{i + 1:05}-of-{count:05}.{kind}"
        if kind == "lmgc":
            save_file(part, path)
        elif kind == "safetensors":
            safetensors_torch.save_file(part, path)
        else:
            torch.save(part, path)
    (folder / "config.json").write_text("{}")
    torch.save({"a": object}, folder / "training_args.bin")
    return folder


def test_any_folder_of_the_tensors_is_the_reference(tmp_path: Path, steps: list[Tensors]):
    path, alone = tmp_path / "now.lmgc", tmp_path / "alone.lmgc"
    save_file(steps[1], alone)
    folders = [
        shards(tmp_path / f"{kind}-{count}", steps[0], kind, count)
        for kind, count in (("safetensors", 2), ("lmgc", 3), ("lmgc", 1), ("pt", 2))
    ]
    save_file(steps[0], tmp_path / "single.lmgc")
    for folder in folders:
        save_file(steps[1], path, reference=folder)
        assert path.stat().st_size < 0.8 * alone.stat().st_size
        told = ArchiveReader.open(path).info().reference
        assert told is not None
        assert told.name == folder.name
        assert (told.archive is not None) == (folder.name == "lmgc-1")  # all are of one archive
        for other in (*folders, tmp_path / "single.lmgc", steps[0]):
            assert same(load_file(path, reference=other), steps[1])


def test_other_folders_are_refused(tmp_path: Path, steps: list[Tensors]):
    path = tmp_path / "now.lmgc"
    base = shards(tmp_path / "base", steps[0], "lmgc")
    save_file(steps[1], path, reference=base)
    other = shards(tmp_path / "other", next_step(steps[0], 8), "lmgc")
    with pytest.raises(ReferenceMismatchError, match=r"made with base \(.*not with other \("):
        load_file(path, reference=other)
    first, second = sorted(base.glob("*.lmgc"))
    data = first.read_bytes()
    first.unlink()
    with pytest.raises(ReferenceMismatchError, match="and base has no tensor 'large'"):
        load_file(path, reference=base)
    first.write_bytes(data[:-1])
    with pytest.raises(CorruptFrameError, match=rf"the reference base/{first.name}: "):
        load_file(path, reference=base)
    first.unlink()
    second.unlink()
    with pytest.raises(ValueError, match="base is a folder without files of tensors"):
        load_file(path, reference=base)


def test_folders_in_a_chain(tmp_path: Path, steps: list[Tensors]):
    base = shards(tmp_path / "base", steps[0], "safetensors")
    middle, path = tmp_path / "middle", tmp_path / "now.lmgc"
    middle.mkdir()
    for i, names in enumerate((["half", "large"], ["step", "weight"])):
        part = {name: steps[1][name] for name in names}
        save_file(part, middle / f"{i}.lmgc", reference=base)
    save_file(steps[2], path, reference=[middle, base])
    for behind in (base, steps[0]):
        assert same(load_file(path, reference=[middle, behind]), steps[2])
    says = r"the reference middle/0\.lmgc: it needs a reference itself, base \(tensors"
    with pytest.raises(ReferenceMismatchError, match=says):
        load_file(path, reference=middle)
    with pytest.raises(ReferenceMismatchError, match=r"middle/0\.lmgc: the archive was made with"):
        load_file(path, reference=[middle, steps[2]])


def test_where_a_tensor_is_in_several_files(tmp_path: Path):
    folder = tmp_path / "base"
    folder.mkdir()
    for name in ("b.pt", "a.pt.lmgc", "a.pt", "c.safetensors.lmgc", "z.safetensors", "a.txt"):
        (folder / name).touch()
    (folder / "d.pt").mkdir()
    names = [path.name for path in tensor_files(folder)]
    assert names == ["c.safetensors.lmgc", "z.safetensors", "a.pt", "b.pt"]
    assert tensor_files(tmp_path / "none") == []


def test_an_archive_does_not_answer_for_another(tmp_path: Path, steps: list[Tensors]):
    """Its identity counts only if the tensors that are needed would come from it."""
    base, path = tmp_path / "base", tmp_path / "now.lmgc"
    base.mkdir()
    save_file(steps[0], base / "b.lmgc")
    save_file(steps[1], path, reference=base)
    entry = ArchiveReader.open(path).index.reference
    assert entry is not None
    assert entry.archive == ArchiveReader.open(base / "b.lmgc").index.identity
    save_file({"weight": steps[2]["weight"]}, base / "a.lmgc")  # comes before it
    with pytest.raises(ReferenceMismatchError, match=r"made with base \("):
        load_file(path, reference=base)
    save_file({"weight": steps[0]["weight"].double()}, base / "a.lmgc")  # is of another type
    assert same(load_file(path, reference=base), steps[1])


@given(st.data())
def test_any_cut_of_the_shards(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    """Which files hold the tensors does not matter, neither when writing nor when reading."""
    folder = tmp_path_factory.mktemp("cut")
    before = {f"w{i}": gradient(6, 5 + i, seed=i) * 100 for i in range(4)}
    now = next_step(before)
    for name in ("written", "read"):
        (folder / name).mkdir()
        places = data.draw(st.lists(st.integers(0, 2), min_size=4, max_size=4))
        for place in set(places):
            part = {k: before[k] for k, at in zip(before, places, strict=True) if at == place}
            save_file(part, folder / name / f"{place}.lmgc", method="planes")
    save_file(now, folder / "now.lmgc", method="scale", reference=folder / "written")
    assert same(load_file(folder / "now.lmgc", reference=folder / "read"), now)
