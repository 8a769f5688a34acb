"""The command `lmgc compress`: methods, formats, and the files that are there already."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from pathlib import Path

import prior_modules
import pytest
import torch
from command_line import files, holds
from helpers import equal, gradient, write_prior
from lm_priors import paying

needs_safetensors = pytest.mark.skipif(
    importlib.util.find_spec("safetensors") is None, reason="needs safetensors"
)


@pytest.mark.parametrize("method", ["auto", "raw", "planes", "scale", "lowrank"])
def test_methods(run, pt: Path, tensors: dict[str, torch.Tensor], method: str):
    run("compress", "-m", method, pt)
    run("decompress", "-f", f"{pt}.lmgc")
    assert holds(pt, tensors)


def test_method_lmgc(run, pt: Path, tensors: dict[str, torch.Tensor], prior_file: Path):
    run("compress", "-m", "lmgc", "--prior", prior_file, pt)
    run("decompress", "-f", "--prior", prior_file, f"{pt}.lmgc")
    assert holds(pt, tensors)
    out, _ = run("info", f"{pt}.lmgc")
    assert "prior: fingerprint" in out
    run("test", "--prior", prior_file, f"{pt}.lmgc")


def test_method_lm(run, tmp_path: Path, prior_file: Path):
    """The bundled prior of the method is found on the way back, too."""
    file, content = tmp_path / "a.pt", {"w": paying(), "count": torch.arange(50)}
    torch.save(content, file)
    run("compress", "-m", "lm", "--rm", file)
    out, _ = run("list", f"{file}.lmgc")
    assert out.splitlines()[1].split()[:5] == ["w", "bfloat16", "32x36", "lm", "1"]
    out, _ = run("info", f"{file}.lmgc")
    assert "prior: fingerprint" in out
    out, _ = run("list", "--json", f"{file}.lmgc")
    assert list(json.loads(out)["tensors"][0]["sections"]) == ["side", "lanes", "tails"]
    run("test", f"{file}.lmgc")
    run("test", "--prior", "residual", f"{file}.lmgc")
    run("test", "--prior", prior_file, f"{file}.lmgc", code=1)
    run("decompress", f"{file}.lmgc")
    assert holds(file, content)


def test_another_prior(run, pt: Path, prior_file: Path, tmp_path_factory):
    other = write_prior(tmp_path_factory.mktemp("other") / "other.pt", context=16)
    run("compress", "-m", "lmgc", "--prior", prior_file, pt)
    _, messages = run("decompress", "-f", "--prior", other, f"{pt}.lmgc", code=1)
    assert "prior" in messages


def test_windows(run, pt: Path, prior_file: Path):
    run("compress", "-m", "lmgc", "--prior", prior_file, "--window", "sliding", pt)
    out, _ = run("info", "--json", f"{pt}.lmgc")
    assert json.loads(out)["priors"][0]["window"] == "sliding"
    run("test", "--prior", prior_file, f"{pt}.lmgc")
    run("compress", "--window", "open", pt, code=2)


def test_effort(run, tmp_path: Path):
    torch.manual_seed(0)
    noise = 0.05 * torch.randn(200, 300)
    torch.save({"weight": torch.randn(200, 60) @ torch.randn(60, 300) + noise}, tmp_path / "w.pt")
    sizes = []
    for arguments in (("-1",), ("--effort", "5"), ("-9",)):
        run("compress", "-f", "-m", "lowrank", *arguments, tmp_path / "w.pt")
        run("test", tmp_path / "w.pt.lmgc")
        sizes.append((tmp_path / "w.pt.lmgc").stat().st_size)
    assert sizes[0] > sizes[1] >= sizes[2]
    run("compress", "--effort", "10", tmp_path / "w.pt", code=2)


def test_a_prior_that_fails(run, pt: Path, tmp_path: Path):
    prior_modules.load(prior_modules.Raises(), tmp_path)
    options = ("-m", "lmgc", "--prior", tmp_path / "Raises.pt", pt)
    _, messages = run("compress", *options, code=1)
    assert messages.count("\n") == 1
    assert "model.pt: the prior's method 'forward' failed: " in messages
    assert "no such luck" in messages
    prior_modules.load(prior_modules.DropsOut(), tmp_path)
    options = ("-m", "lmgc", "--prior", tmp_path / "DropsOut.pt", pt)
    _, messages = run("compress", *options, code=2)
    assert "two calls of this prior" in messages


def test_several_files(run, pt: Path, tensors: dict[str, torch.Tensor], tmp_path: Path):
    torch.save([gradient(9)], tmp_path / "other.pt")
    (tmp_path / "bad.pt").write_bytes(b"no tensors")
    _, messages = run("compress", pt, tmp_path / "bad.pt", tmp_path / "other.pt", code=1)
    assert "bad.pt is neither" in messages
    assert "2 files: " in messages.splitlines()[-1]
    (tmp_path / "out").mkdir()
    run("decompress", f"{pt}.lmgc", tmp_path / "other.pt.lmgc", "-o", tmp_path / "out")
    assert files(tmp_path / "out") == {"model.pt", "other.pt"}
    assert holds(tmp_path / "out" / "model.pt", tensors)
    _, messages = run("compress", "-f", tmp_path / "none.pt", tmp_path, pt, code=2)
    assert "there is no file" in messages
    assert "is a folder" in messages
    assert "model.pt.lmgc: " in messages
    _, messages = run("compress", "-f", pt, tmp_path / "other.pt", "-o", tmp_path / "a", code=2)
    assert "names a folder" in messages
    run("compress", pt, "-o", tmp_path / "out")
    assert files(tmp_path / "out") == {"model.pt", "other.pt", "model.pt.lmgc"}


def test_what_is_compressed_already(run, pt: Path):
    run("compress", pt)
    _, messages = run("compress", f"{pt}.lmgc", code=1)
    assert "model.pt.lmgc is compressed already" in messages


def test_json(run, pt: Path, tensors: dict[str, torch.Tensor]):
    out, messages = run("compress", "--json", pt)
    assert messages == ""
    about = json.loads(out)
    assert about["file"] == str(pt)
    assert about["output"] == f"{pt}.lmgc"
    assert about["bytes"] == Path(f"{pt}.lmgc").stat().st_size
    assert about["raw_bytes"] == sum(tensor.nbytes for tensor in tensors.values())
    assert about["ratio"] == 100 * about["bytes"] / about["raw_bytes"]
    assert about["tensors"] == 4
    out, _ = run("decompress", "--json", "-f", f"{pt}.lmgc")
    assert json.loads(out)["output"] == str(pt)


def test_verbose(run, pt: Path, tensors: dict[str, torch.Tensor]):
    _, messages = run("compress", "-v", pt)
    assert all(name in messages for name in tensors)


def test_named_pipes(run, pt: Path, tmp_path: Path, tensors: dict[str, torch.Tensor]):
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cp", pt, tmp_path / "pipe"]):
        run("compress", tmp_path / "pipe", "-o", tmp_path / "a.pt.lmgc")
    run("decompress", tmp_path / "a.pt.lmgc")
    assert holds(tmp_path / "a.pt", tensors)


# ---- .pt files -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        gradient(5, 6),
        [gradient(3), torch.arange(4)],
        [],
        {},
        3,
        {"model": {"w": gradient(3)}, "lr": 0.1, 0: [None, (True, "text")]},
    ],
)
def test_what_pt_files_may_hold(run, tmp_path: Path, content: object):
    torch.save(content, tmp_path / "a.pt")
    run("compress", tmp_path / "a.pt", "-o", tmp_path / "b.lmgc")
    run("decompress", tmp_path / "b.lmgc")
    back = torch.load(tmp_path / "b.pt", weights_only=True)
    assert equal(back, content)


def test_checkpoints(run, tmp_path: Path):
    """A model with tied weights, and an optimizer: objects within objects."""
    model = torch.nn.ModuleDict({"wte": torch.nn.Embedding(50, 8), "head": torch.nn.Linear(8, 50)})
    model["head"].weight = model["wte"].weight
    optimizer = torch.optim.AdamW(model.parameters())
    model["head"](model["wte"](torch.arange(9))).square().sum().backward()
    optimizer.step()
    checkpoint = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
    torch.save(checkpoint, tmp_path / "a.pt")
    run("compress", "--rm", tmp_path / "a.pt")
    out, _ = run("list", tmp_path / "a.pt.lmgc")
    assert "model.head.weight is part of model.wte.weight" in out
    run("decompress", tmp_path / "a.pt.lmgc")
    back = torch.load(tmp_path / "a.pt", weights_only=True)
    assert equal(back, checkpoint)
    assert back["model"]._metadata == checkpoint["model"]._metadata
    storages = {back["model"][name].data_ptr() for name in ("wte.weight", "head.weight")}
    assert len(storages) == 1


def test_old_pt_files(run, tmp_path: Path):
    torch.save({"w": gradient(50)}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    run("compress", tmp_path / "a.pt")
    run("decompress", "-f", tmp_path / "a.pt.lmgc")
    assert holds(tmp_path / "a.pt", {"w": gradient(50)})


def test_state_dicts_and_parameters(run, tmp_path: Path):
    module = torch.nn.Linear(4, 4)
    torch.save(module.state_dict(), tmp_path / "a.pt")
    torch.save(dict(module.named_parameters()), tmp_path / "b.pth")
    for name in ("a.pt", "b.pth"):
        run("compress", "--rm", tmp_path / name)
        run("decompress", tmp_path / f"{name}.lmgc")
        module.load_state_dict(torch.load(tmp_path / name, weights_only=True))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"s": torch.eye(3).to_sparse()}, "object['s'] is a sparse_coo tensor"),
        ([torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.quint8)], "quantized"),
    ],
)
def test_what_pt_files_may_not_hold(run, tmp_path: Path, content: object, says: str):
    torch.save(content, tmp_path / "a.pt")
    _, messages = run("compress", tmp_path / "a.pt", code=1)
    assert says in messages
    assert "a.pt" in messages
    assert files(tmp_path) == {"a.pt"}


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04" + bytes(50), bytes(1000)])
def test_files_that_hold_no_tensors(run, tmp_path: Path, content: bytes):
    (tmp_path / "a.pt").write_bytes(content)
    _, messages = run("compress", tmp_path / "a.pt", code=1)
    assert "a.pt is neither" in messages
    assert files(tmp_path) == {"a.pt"}


def test_code_in_pt_files_is_not_run(run, tmp_path: Path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "evil"),)

    torch.save({"w": Evil()}, tmp_path / "a.pt")
    run("compress", tmp_path / "a.pt", code=1)
    assert files(tmp_path) == {"a.pt"}
