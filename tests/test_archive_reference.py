"""Archives that are made relative to a reference: an archive, a file of tensors, or tensors."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import all_identical, bits, equal, gradient
from test_archive_damage import archive_by_hand, parts, reader_of

from lmgc_torch import (
    CorruptArchiveError,
    CorruptFrameError,
    ReferenceMismatchError,
    compress,
    load,
    load_file,
    safe_open,
    save,
    save_file,
)
from lmgc_torch.archive import ArchiveReader
from lmgc_torch.archive.reference import Reference

safetensors_torch = pytest.importorskip("safetensors.torch")
pytestmark = pytest.mark.usefixtures("one_thread")

Tensors = dict[str, torch.Tensor]


def next_step(tensors: Tensors, seed: int = 0) -> Tensors:
    """The tensors some steps later: floats have moved a little."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor + 1e-3 * torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor + 1
        for name, tensor in tensors.items()
    }


@pytest.fixture(scope="module")
def before() -> Tensors:
    """Tensors of frames of their own and of shared ones."""
    return {
        "large": gradient(300, 300, seed=1) * 100,
        "weight": gradient(60, 50, seed=2) * 100,
        "half": (gradient(3000, seed=3) * 100).bfloat16(),
        "step": torch.tensor(7),
        "empty": torch.empty(0, 3),
    }


@pytest.fixture(scope="module")
def now(before: Tensors) -> Tensors:
    return {**next_step(before), "new": gradient(40, 30, seed=9)}


def bases(folder: Path, tensors: Tensors) -> dict[str, Any]:
    """The same tensors in all that can be a reference."""
    save_file(tensors, folder / "base.lmgc")
    save_file(tensors, folder / "other.lmgc", method="planes")
    torch.save(tensors, folder / "base.pt")
    safetensors_torch.save_file(tensors, folder / "base.safetensors")
    frame = compress(tensors, method="planes")
    (folder / "base.frame").write_bytes(frame.numpy().tobytes())
    files = ("base.lmgc", "other.lmgc", "base.pt", "base.safetensors", "base.frame")
    return {**{name: folder / name for name in files}, "tensors": tensors}


def test_any_file_of_the_tensors_is_the_reference(tmp_path: Path, before: Tensors, now: Tensors):
    path = tmp_path / "now.lmgc"
    given = bases(tmp_path, before)
    save_file(now, path)
    alone = path.stat().st_size
    for made, base in given.items():
        save_file(now, path, {"a": "b"}, reference=base)
        assert path.stat().st_size < 0.8 * alone
        index = parts(path.read_bytes())[1]["reference"]
        assert index.get("name") == (None if made == "tensors" else made)
        assert ("archive" in index) == made.endswith(".lmgc")
        for other in given.values():
            back = load_file(path, reference=other)
            assert list(back) == list(now)
            assert all_identical(back.values(), now.values())
    with safe_open(path, reference=str(given["base.pt"])) as file:
        assert torch.equal(file.get_tensor("half"), now["half"])
        assert torch.equal(file.get_slice("large")[3:5], now["large"][3:5])


def test_identity_is_what_the_document_says(tmp_path: Path, before: Tensors, now: Tensors):
    path, base = tmp_path / "now.lmgc", tmp_path / "base.lmgc"
    save_file(before, base)
    save_file(now, path, reference=base)
    digests = b""
    for name in ("large", "weight", "half"):
        tensor = before[name]
        dtype = str(tensor.dtype).removeprefix("torch.")
        head = json.dumps([name, dtype, list(tensor.shape)], separators=(",", ":"))
        data = head.encode() + b"\n" + bits(tensor).numpy().tobytes()
        digests += hashlib.sha256(data).digest()
    about = ArchiveReader.open(path).info()
    assert [t.name for t in about.tensors if t.needs_reference] == ["large", "weight", "half"]
    assert about.reference is not None
    assert about.reference.tensors == hashlib.sha256(digests).hexdigest()
    assert about.reference.archive == ArchiveReader.open(base).index.identity
    for text in (str(about), about.table()):
        assert f"the reference base.lmgc for 3 tensors: {about.reference.tensors}" in text


def test_another_reference_is_refused(
    tmp_path: Path, before: Tensors, now: Tensors, monkeypatch: pytest.MonkeyPatch
):
    path, base, other = (tmp_path / f"{name}.lmgc" for name in ("now", "base", "other"))
    save_file(before, base)
    save_file(now, path, reference=base)
    wrong: list[Any] = [next_step(before, seed=5), {"weight": before["weight"]}, {}]
    wrong += [{**before, "large": before["large"].double()}]
    wrong += [{**before, "large": before["large"].view(900, 100)}]
    changed = before["half"].clone()
    changed[-1] = torch.nextafter(changed[-1], torch.tensor(9.0).bfloat16())
    wrong += [{**before, "half": changed}]
    save_file(wrong[0], other)
    monkeypatch.setattr(ArchiveReader, "tensors", lambda self: pytest.fail("decodes"))
    for reference in (*wrong, other):
        for read in (load_file, load, safe_open):
            with pytest.raises(ReferenceMismatchError, match=r"made with base\.lmgc"):
                read(path, reference=reference)
    with pytest.raises(
        ReferenceMismatchError, match=r"not with other\.lmgc \(tensors [0-9a-f]{16}"
    ):
        load_file(path, reference=other)
    save_file({"a": torch.ones(3)}, other)
    with pytest.raises(ReferenceMismatchError, match=r"other\.lmgc.*no tensor 'large'"):
        load_file(path, reference=other)


def test_without_its_reference(tmp_path: Path, before: Tensors, now: Tensors):
    path, base = tmp_path / "now.lmgc", tmp_path / "base.lmgc"
    save_file(before, base)
    save_file(now, path, {"a": "b"}, reference=base)
    for read in (load_file, load):
        with pytest.raises(ReferenceMismatchError, match=r"base\.lmgc.*pass it as reference"):
            read(path)
    with safe_open(path) as file:
        assert file.keys() == sorted(now)
        assert file.metadata() == {"a": "b"}
        assert file.get_slice("large").get_shape() == [300, 300]
        for name in now:  # those that need none, too: what works should not depend on sizes
            with pytest.raises(ReferenceMismatchError):
                file.get_tensor(name)


def test_archives_that_need_none(tmp_path: Path, before: Tensors, now: Tensors):
    """They are the same as without, and read with any reference."""
    alone, path = tmp_path / "alone.lmgc", tmp_path / "now.lmgc"
    generator = torch.Generator().manual_seed(77)
    far = {
        name: torch.randn(t.shape, generator=generator).to(t.dtype) for name, t in before.items()
    }
    for method, reference in (("scale", far), ("scale", {}), ("planes", before), ("raw", before)):
        save_file(now, alone, method=method)
        save_file(now, path, method=method, reference=reference)
        assert path.read_bytes() == alone.read_bytes()
        assert ArchiveReader.open(path).info().reference is None
        for other in (None, before, far):
            assert all_identical(load_file(path, reference=other).values(), now.values())


def trained(steps: int) -> dict[str, Any]:
    """A checkpoint of a model and its optimizer after some steps, tied weights among it."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(4)))
    model[3].weight = model[0].weight
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    data = torch.randn(60, 16, 64)
    for batch in data[: 50 + steps]:
        optimizer.zero_grad()
        (model(batch) - batch).square().mean().backward()
        optimizer.step()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": steps}


def test_checkpoints(tmp_path: Path):
    first, later = trained(0), trained(10)
    base, pt, path = tmp_path / "first.lmgc", tmp_path / "first.pt", tmp_path / "later.lmgc"
    save(first, base)
    torch.save(first, pt)
    save(later, path)
    alone = path.stat().st_size
    for reference in (base, pt, first):
        save(later, path, reference=reference)
        assert path.stat().st_size < 0.9 * alone
        told = ArchiveReader.open(path).info().tensors
        relative = {tensor.name for tensor in told if tensor.needs_reference}
        assert {"model.0.weight", "optimizer.state.0.exp_avg_sq"} <= relative
        for other in (base, pt, first):
            assert equal(load(path, reference=other), later)


def test_tensors_that_share_elements(tmp_path: Path):
    """Views of the reference are references; views are told as what they are part of."""
    whole = gradient(200, 100) * 100
    moved = next_step({"whole": whole})["whole"]
    base, path = tmp_path / "base.lmgc", tmp_path / "now.lmgc"
    save_file({"whole": whole, "part": whole[:50], "column": whole[:, 0]}, base)
    now = {"part": moved[:50].clone(), "column": moved[:, 0].clone(), "whole": moved}
    now["again"] = now["whole"][7:]
    save_file(now, path, method="scale", reference=base)
    assert all(tensor.needs_reference for tensor in ArchiveReader.open(path).info().tensors)
    back = load_file(path, reference=base)
    assert all_identical(back.values(), now.values())
    assert back["again"].untyped_storage().data_ptr() == back["whole"].data_ptr()


def test_what_is_no_reference(tmp_path: Path, before: Tensors, now: Tensors):
    base, path, text = (tmp_path / name for name in ("base.lmgc", "now.lmgc", "a.txt"))
    save_file(before, base)
    save_file(now, path, reference=base)
    text.write_text("no tensors")
    last = tmp_path / "last.lmgc"
    single = tmp_path / "frame.lmgc"
    single.write_bytes(compress(now, reference=before).numpy().tobytes())
    for wrong in (path, single):
        with pytest.raises(ReferenceMismatchError, match=f"{wrong.name}: it needs a reference its"):
            save_file(now, last, reference=wrong)
    with pytest.raises(ValueError, match=r"the reference a\.txt is neither"):
        load_file(path, reference=text)
    for none in (7, [[before]]):
        with pytest.raises(TypeError, match=f"reference is of type {type(none).__name__}; it must"):
            save(now, last, reference=none)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reference is an empty list"):
        save(now, last, reference=[])
    with pytest.raises(TypeError, match=r"object\['a'\]"):
        save(now, last, reference={"a": object()})
    with pytest.raises(FileNotFoundError):
        save(now, last, reference=tmp_path / "none.pt")
    for write in (save, save_file):
        with pytest.raises(ValueError, match=r"would change the reference .*: write elsewhere"):
            write(now, base, reference=base)
    assert all_identical(load_file(base).values(), before.values())
    assert not last.exists()


def test_damaged_references(tmp_path: Path, before: Tensors, now: Tensors):
    """Errors say that it is the reference, and nothing is written."""
    base, path, last = (tmp_path / f"{name}.lmgc" for name in ("base", "now", "last"))
    save_file(before, base)
    save_file(now, path, reference=base)
    whole = base.read_bytes()
    for place in (len(whole) // 2, len(whole) - 80):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        base.write_bytes(damaged)
        for work in (
            lambda: load_file(path, reference=base),
            lambda: save_file(now, last, reference=base),
        ):
            with pytest.raises(CorruptFrameError, match=r"^the reference base\.lmgc: "):
                work()
    assert not last.exists()


def test_single_frames(tmp_path: Path, before: Tensors, now: Tensors):
    path = tmp_path / "frame.lmgc"
    for tensors, reference in (
        (now, before),
        ([now["weight"]], {"0": before["weight"]}),
        (now["weight"], {"0": before["weight"]}),
    ):
        others = reference if isinstance(tensors, dict) else list(reference.values())
        frame = compress(tensors, reference=others)
        path.write_bytes(frame.numpy().tobytes())
        assert equal(load(path, reference=reference), tensors)
        with pytest.raises(ReferenceMismatchError):
            load(path)
        with pytest.raises(ReferenceMismatchError):
            load(path, reference={"weight": now["weight"]})


def test_references_are_read_one_by_one(
    tmp_path: Path, before: Tensors, now: Tensors, monkeypatch: pytest.MonkeyPatch
):
    """Tensors of other types or shapes are not decoded, and no more than a frame is."""
    base, path = tmp_path / "base.lmgc", tmp_path / "now.lmgc"
    save_file({**before, "unused": gradient(300, 301), "large": before["large"].double()}, base)
    read: list[list[str]] = []
    decode = ArchiveReader.decode

    def noted(self: ArchiveReader, number: int) -> list[torch.Tensor]:
        read.append([self.names[position] for position in self.positions(number)])
        return decode(self, number)

    monkeypatch.setattr(ArchiveReader, "decode", noted)
    save_file(now, path, reference=base)
    assert read == [["weight", "half", "step", "empty"]]


# ---- damage --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Tensors, Tensors]:
    path = tmp_path_factory.mktemp("small") / "a.lmgc"
    before = {"w": gradient(12, 10) * 100}
    now = next_step(before)
    save_file(now, path, method="scale", reference=before)
    return path.read_bytes(), now, before


@pytest.mark.parametrize(
    "change",
    [
        *(None, {}, [], "x", 7, {"archive": "0" * 64}, {"tensors": 7}, {"tensors": "0" * 63}),
        *({"tensors": "0" * 65}, {"tensors": "g" * 64}, {"tensors": "A" * 64}),
        *({"tensors": "0" * 64 + "\n"}, {"tensors": "0" * 64, "archive": "0"}),
        *({"tensors": "0" * 64, "archive": 3}, {"tensors": "0" * 64, "name": 3}),
        {"tensors": "0" * 64, "name": ["a"]},
    ],
)
def test_references_that_are_not_described(small: tuple[bytes, Tensors, Tensors], change: Any):
    frames, index = parts(small[0])
    says = "needs a reference, and the index speaks of none" if change is None else "'reference'"
    with pytest.raises(CorruptArchiveError, match=says):
        reader_of(archive_by_hand(frames, {**index, "reference": change})).tensors()


def read_with(data: bytes, base: Tensors) -> list[torch.Tensor]:
    raw = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    return ArchiveReader(raw, reference=Reference.open(base)).tensors()


def test_references_that_are_not_the_frames(small: tuple[bytes, Tensors, Tensors]):
    """An index that names another reference does not bring another tensor in."""
    data, now, before = small
    frames, index = parts(data)
    assert all_identical(read_with(data, before), now.values())
    wrong = {**index, "reference": {"tensors": "0" * 64}}
    with pytest.raises(ReferenceMismatchError, match="made with a reference"):
        read_with(archive_by_hand(frames, wrong), before)
    other = next_step(before)
    about = Reference.open(other).entry({}).tensors
    with pytest.raises(ReferenceMismatchError):
        read_with(archive_by_hand(frames, {**index, "reference": {"tensors": about}}), other)
    wrong["reference"]["name"] = "\x1b[2J\ud800"  # no message prints it as it is
    with pytest.raises(ReferenceMismatchError, match=r"made with '\\x1b\[2J\\ud800' \(tensors"):
        reader_of(archive_by_hand(frames, wrong)).tensors()
    assert (
        r"needs the reference '\x1b[2J\ud800'"
        in reader_of(archive_by_hand(frames, wrong)).info().table()
    )
    # Names that lead elsewhere.
    renamed = {**index, "tensors": [{"name": "v", "frame": 0}]}
    with pytest.raises(ReferenceMismatchError, match="no tensor 'v'"):
        read_with(archive_by_hand(frames, renamed), before)


def test_every_byte_flipped(small: tuple[bytes, Tensors, Tensors]):
    data, _, before = small
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 0x10
        with pytest.raises(CorruptFrameError):
            read_with(bytes(damaged), before)
