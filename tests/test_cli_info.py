"""The commands `lmgc test`, `lmgc list` and `lmgc info`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from command_line import files
from helpers import gradient

from lmgc_torch.archive import ArchiveWriter


def test_test_goes_on_after_a_damaged_file(run, pt: Path, tmp_path: Path):
    run("compress", pt)
    good = Path(f"{pt}.lmgc")
    bad = tmp_path / "bad.lmgc"
    data = bytearray(good.read_bytes())
    data[100] ^= 1
    bad.write_bytes(data)
    out, messages = run("test", bad, good, code=1)
    assert out.startswith("model.pt.lmgc: ok, 4 tensors")
    assert "bad.lmgc" in messages
    assert "checksum" in messages
    run("test", good, tmp_path / "none.lmgc", code=2)
    out, _ = run("test", "--json", bad, good, code=1)
    wrong, right = map(json.loads, out.splitlines())
    assert (wrong["ok"], right["ok"]) == (False, True)
    assert "checksum" in wrong["error"]
    assert right["tensors"] == 4
    out, messages = run("test", "-q", good)
    assert out == messages == ""
    assert files(tmp_path) == {"model.pt", "model.pt.lmgc", "bad.lmgc"}


def test_test_looks_at_everything(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Objects and headers that do not fit the tensors are found, too."""
    finish = ArchiveWriter.finish
    torch.save({"a": torch.ones(3)}, tmp_path / "a.pt")
    wrong = [{"tensor": 1}, {"unknown": 2}, {"tensor": 0, "requires_grad": "yes", "dict": []}]
    for root, code in zip(wrong, (1, 1, 0), strict=True):
        monkeypatch.setattr(
            ArchiveWriter,
            "finish",
            lambda self, root=root, **keys: finish(self, **{**keys, "object": {"root": root}}),
        )
        run("compress", "-f", tmp_path / "a.pt")
        run("test", tmp_path / "a.pt.lmgc", code=code)


def test_info(run, pt: Path, tensors: dict[str, torch.Tensor]):
    run("compress", pt)
    out, _ = run("info", f"{pt}.lmgc")
    assert out.startswith("archive format 1, of a .pt file: 4 tensors in 1 frames\n")
    out, _ = run("info", "--json", f"{pt}.lmgc")
    about = json.loads(out)
    assert about["format"] == "pt"
    assert about["tensors"] == 4
    assert about["bytes"] == Path(f"{pt}.lmgc").stat().st_size == sum(about["sections"].values())
    assert about["header_bytes"] > about["index_bytes"] > 0
    assert len(about["identity"]) == 64
    out, _ = run("info", f"{pt}.lmgc", pt, code=1)
    assert "model.pt.lmgc:" in out


def test_list(run, pt: Path, tensors: dict[str, torch.Tensor]):
    run("compress", pt)
    out, _ = run("list", f"{pt}.lmgc")
    assert all(name in out for name in tensors)
    out, _ = run("list", "--json", f"{pt}.lmgc")
    about = json.loads(out)
    assert [tensor["name"] for tensor in about["tensors"]] == list(tensors)
    types = [tensor["dtype"] for tensor in about["tensors"]]
    assert types == ["float32", "bfloat16", "float32", "int64"]
    assert [tensor["shape"] for tensor in about["tensors"]] == [[40, 30], [100], [0, 3], []]
    assert about["views"] == {}


def test_list_of_lowrank(run, tmp_path: Path):
    matrix = gradient(90, 4, seed=1) @ gradient(4, 70, seed=2)  # the first row of each is zero
    torch.save({"w": matrix}, tmp_path / "a.pt")
    run("compress", "-m", "lowrank", tmp_path / "a.pt")
    out, _ = run("list", tmp_path / "a.pt.lmgc")
    assert out.splitlines()[1].split()[:5] == ["w", "float32", "90x70", "lowrank", "3"]
    out, _ = run("list", "--json", tmp_path / "a.pt.lmgc")
    (tensor,) = json.loads(out)["tensors"]
    assert (tensor["method"], tensor["rank"]) == ("lowrank", 3)
    assert list(tensor["bits_per_element"]) == ["side", "digits", "escapes", "tails"]
    bits = 8 * tensor["section_bytes"] / 6300
    assert sum(tensor["bits_per_element"].values()) == pytest.approx(bits)


def test_bits_that_are_not_used(run, tmp_path: Path):
    """float32 tensors that hold bfloat16 values have 16 of them, and those of float16 13."""
    values = gradient(90, 70) * 100
    tensors = {"b": values.bfloat16().float(), "h": values.half().float(), "f": values}
    tensors["c"] = tensors["b"] + tensors["b"]
    tensors["i"] = torch.arange(5)
    torch.save(tensors, tmp_path / "a.pt")
    archive = tmp_path / "a.pt.lmgc"
    run("compress", "-m", "scale", tmp_path / "a.pt")
    out, _ = run("info", archive)
    assert "\nbits of the mantissa that are not used: 13 in 1 tensor, 16 in 2 tensors\n" in out
    out, _ = run("info", "--json", archive)
    assert json.loads(out)["spare_bits"] == {"13": 1, "16": 2}
    out, _ = run("list", archive)
    head, *rows = out.splitlines()
    place = head.split().index("spare")
    told = {row.split()[0]: row.split()[place] for row in rows[:3]}
    assert (told["b"], told["h"]) == ("16", "13")
    assert told["f"] == rows[2].split()[4]  # nothing stands there
    assert "spare: low bits of the mantissa that no element uses" in out
    out, _ = run("list", "--json", archive)
    by_name = {tensor["name"]: tensor for tensor in json.loads(out)["tensors"]}
    spare = {"b": 16, "h": 13, "f": 0, "i": 0, "c": 16}
    assert {n: t["spare_bits"] for n, t in by_name.items()} == spare
    assert by_name["h"]["spare_exponents"] > 0
    assert by_name["f"]["spare_exponents"] == 0
    run("compress", "-f", "-m", "planes", tmp_path / "a.pt")
    for command in ("info", "list"):
        out, _ = run(command, archive)
        assert "not used" not in out
        assert "spare" not in out
