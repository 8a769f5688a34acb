"""The command `lmgc decompress`: single frames, archives of others, formats."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from command_line import files, holds
from helpers import equal, frame_by_hand, gradient, identical, to_bytes

import lmgc_torch
from lmgc_torch.archive import ArchiveWriter

safetensors_torch = pytest.importorskip("safetensors.torch")


def test_the_output_s_suffix_chooses_the_format(run, pt: Path, tensors: dict[str, torch.Tensor]):
    run("compress", pt)
    run("decompress", f"{pt}.lmgc", "-o", pt.with_name("other.safetensors"))
    back = safetensors_torch.load_file(pt.with_name("other.safetensors"))
    assert all(identical(back[name], tensors[name]) for name in tensors)
    run("compress", pt.with_name("other.safetensors"))
    run("decompress", pt.with_name("other.safetensors.lmgc"), "-o", pt.with_name("third.pt"))
    back = torch.load(pt.with_name("third.pt"), weights_only=True)
    assert all(identical(back[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("kind", ["dict", "list", "tensor"])
def test_single_frames(run, tmp_path: Path, kind: str):
    """What users wrote with Path.write_bytes(frame)."""
    path = tmp_path / "gradients.lmgc"
    content = {"dict": {"w": gradient(10)}, "list": [gradient(10)], "tensor": gradient(10)}[kind]
    path.write_bytes(to_bytes(lmgc_torch.compress(content)))
    run("test", path)
    out, _ = run("info", path)
    assert "a single frame: 1 tensors" in out
    run("list", path)
    run("decompress", path)
    assert equal(torch.load(tmp_path / "gradients.pt", weights_only=True), content)
    if kind == "dict":
        run("decompress", path, "-o", tmp_path / "a.safetensors")
        assert identical(safetensors_torch.load_file(tmp_path / "a.safetensors")["w"], gradient(10))


def test_a_frame_that_needs_the_one_before_it(run, tmp_path: Path):
    past = lmgc_torch.PastFrame()
    steps = [
        {"w": gradient(90, 4, seed=1) @ gradient(4, 70, seed=2) * (1 + step)} for step in (0, 1)
    ]
    _, frame = (lmgc_torch.compress(step, method="lowrank", past=past) for step in steps)
    assert lmgc_torch.info(frame).needs_past
    (tmp_path / "a.lmgc").write_bytes(to_bytes(frame))
    out, _ = run("info", tmp_path / "a.lmgc")
    assert "needs the frame before it" in out
    for command in ("test", "decompress"):
        _, messages = run(command, tmp_path / "a.lmgc", code=1)
        assert "refers to the one before it" in messages
    assert files(tmp_path) == {"a.lmgc"}


@pytest.mark.parametrize("file", ["3", '{"format":"zip"}', '{"format":"pt","metadata":7}'])
def test_frames_with_other_metadata(run, tmp_path: Path, file: str):
    metadata = b'{"lmgc":1,"names":[],"file":' + file.encode() + b"}"
    (tmp_path / "a.lmgc").write_bytes(frame_by_hand([], metadata=metadata))
    run("decompress", tmp_path / "a.lmgc")
    assert torch.load(tmp_path / "a.pt", weights_only=True) == {}


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        ([torch.ones(2)], 2, "another object than a dict"),
        ({"a": {"b": torch.ones(2)}}, 2, "another object than a dict"),
        ({"a": torch.ones(2), "lr": 0.1}, 2, "another object than a dict"),
        ({0: torch.ones(2)}, 2, "keys that are no texts"),
        ({"a": torch.ones(2, dtype=torch.complex128)}, 1, "'a' is of torch.complex128"),
    ],
)
def test_what_safetensors_cannot_hold(run, tmp_path: Path, content: object, code: int, says: str):
    torch.save(content, tmp_path / "a.pt")
    run("compress", tmp_path / "a.pt")
    arguments = ("decompress", tmp_path / "a.pt.lmgc", "-o", tmp_path / "a.safetensors")
    _, messages = run(*arguments, code=code)
    assert says in messages
    assert files(tmp_path) == {"a.pt", "a.pt.lmgc"}


def test_formats_are_told_by_content(run, tmp_path: Path, tensors: dict[str, torch.Tensor]):
    """A .bin file may be one of safetensors, and a .safetensors file one of torch.save."""
    paths = tmp_path / "pytorch_model.bin", tmp_path / "model.safetensors"
    safetensors_torch.save_file(tensors, paths[0])
    torch.save(tensors, paths[1])
    original = paths[0].read_bytes()
    run("compress", "--rm", *paths)
    run("decompress", "--rm", *(f"{path}.lmgc" for path in paths))
    assert paths[0].read_bytes() == original
    assert holds(paths[1], tensors)


def test_archives_of_the_python_face(run, tmp_path: Path, tensors: dict[str, torch.Tensor]):
    tensors["tied"] = tensors["weight"][3:]
    lmgc_torch.save_file(tensors, tmp_path / "a.lmgc", {"mood": "bright ☀"})
    run("decompress", tmp_path / "a.lmgc")
    with safetensors_torch.safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata() == {"mood": "bright ☀"}
        assert all(identical(file.get_tensor(name), tensors[name]) for name in tensors)
    lmgc_torch.save({"nested": [tensors]}, tmp_path / "b.lmgc")
    run("decompress", tmp_path / "b.lmgc")
    assert equal(torch.load(tmp_path / "b.pt", weights_only=True), {"nested": [tensors]})


def test_headers_that_do_not_fit(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Kept headers are not trusted either."""
    path = tmp_path / "model.safetensors"
    safetensors_torch.save_file({"a": torch.ones(2), "b": torch.ones(3)}, path)
    finish = ArchiveWriter.finish
    right = path.read_bytes()[8:-20].decode()
    for header, says in (
        (right.replace('"a"', '"c"'), "of other tensors"),
        ("{", "no JSON"),
        (3, "no text"),
        ('{"__metadata__":{"a":"\ud800"}}', "surrogates not allowed"),
        (right.replace("[2]", "[1]").replace("[3]", "[4]").replace("8", "4"), "has 8 bytes"),
    ):
        monkeypatch.setattr(
            ArchiveWriter,
            "finish",
            lambda self, header=header, **keys: finish(
                self, **{**keys, "file": {"format": "safetensors", "header": header}}
            ),
        )
        run("compress", "-f", path)
        _, messages = run("decompress", "-f", f"{path}.lmgc", code=1)
        assert says in messages
        assert files(tmp_path) == {"model.safetensors", "model.safetensors.lmgc"}
