"""The command `lmgc analyze`."""

import json
from pathlib import Path

import pytest
import torch
from helpers import gradient
from safetensors.torch import save_file

from lmgc_torch import cli, compress

pytestmark = pytest.mark.usefixtures("one_thread")


def run(*arguments: str | Path) -> int:
    return cli.main(["analyze", *map(str, arguments)])


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """The same tensors in every kind of file."""
    tensors = {"weight": gradient(40, 30), "bias": gradient(30, seed=1)}
    paths = {kind: tmp_path / f"model.{kind}" for kind in ("pt", "safetensors", "lmgc")}
    torch.save(tensors, paths["pt"])
    save_file(tensors, paths["safetensors"])
    paths["lmgc"].write_bytes(compress(tensors).numpy().tobytes())
    return paths


def test_every_kind_of_file(files: dict[str, Path], capsys: pytest.CaptureFixture[str]):
    out = {}
    for kind, path in files.items():
        assert run(path, "--json", "--downloads", "7") == 0
        out[kind] = json.loads(capsys.readouterr().out)
        out[kind].pop("file", None)
    assert out["pt"] == out["lmgc"]
    by_name = [sorted(out[kind]["tensors"], key=lambda t: t["name"]) for kind in out]
    assert by_name[0] == by_name[1]
    assert [tensor["name"] for tensor in out["pt"]["tensors"]] == ["weight", "bias"]
    assert out["pt"]["saved_bytes"] == 7 * (out["pt"]["raw_bytes"] - out["pt"]["expected_bytes"])


def test_table_and_page(files: dict[str, Path], capsys: pytest.CaptureFixture[str]):
    page = files["pt"].with_name("report.html")
    assert run(files["pt"], "--html", page, "--downloads", "1000") == 0
    out = capsys.readouterr().out
    assert out.startswith("tensor ")
    assert "1,000 downloads a month" in out
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert run(files["pt"], "--html", page) == cli.EXIT_USAGE
    assert "exists already" in capsys.readouterr().err
    assert run(files["pt"], "--html", page, "-f") == 0


def test_methods_of_choice(files: dict[str, Path], capsys: pytest.CaptureFixture[str]):
    assert run(files["pt"], "--json", "-m", "planes", "-m", "lm", "--sample", "0") == 0
    tensors = json.loads(capsys.readouterr().out)["tensors"]
    assert "scale" not in tensors[1]["sizes"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["no-such-file.pt"], cli.EXIT_USAGE, "there is no file"),
        (["{pt}", "--downloads", "-1"], cli.EXIT_USAGE, "--downloads is -1"),
        (["{pt}", "--sample", "-1"], cli.EXIT_USAGE, "--sample is -1"),
        (["{pt}", "--html", "-"], cli.EXIT_USAGE, "needs a file"),
        (["{pt}", "--html", "{pt}"], cli.EXIT_USAGE, "is the input itself"),
        (["{pt}", "-m", "lm", "--prior", "no-such"], cli.EXIT_USAGE, "no-such"),
        (["{bad}"], cli.EXIT_DATA, "neither a .safetensors file nor a .pt file"),
        (["{cut}"], cli.EXIT_DATA, "cut.lmgc: "),
    ],
)
def test_errors(
    arguments: list[str],
    code: int,
    says: str,
    files: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
):
    folder = files["pt"].parent
    (folder / "bad.pt").write_text("no tensors")
    (folder / "cut.lmgc").write_bytes(files["lmgc"].read_bytes()[:-5])
    names = {"pt": files["pt"], "bad": folder / "bad.pt", "cut": folder / "cut.lmgc"}
    assert run(*(argument.format(**names) for argument in arguments)) == code
    assert says in capsys.readouterr().err
