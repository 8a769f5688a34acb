"""Compressed checkpoints of transformers."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
import torch
from command_line import files
from helpers import identical, python

from lmgc_torch import CorruptArchiveError, ReferenceMismatchError, hf

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("one_thread")


def config(name: str):
    if name == "gpt2":
        return transformers.GPT2Config(
            vocab_size=80, n_positions=32, n_embd=16, n_layer=2, n_head=2
        )
    return transformers.LlamaConfig(
        vocab_size=80,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
    )


@pytest.fixture(params=["gpt2", "llama"])
def model(request):
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config(request.param))


def same(one: torch.nn.Module, two: torch.nn.Module) -> bool:
    before, after = one.state_dict(), two.state_dict()
    return before.keys() == after.keys() and all(identical(before[n], after[n]) for n in before)


def load(folder: Path, **options):
    return hf.from_pretrained(transformers.AutoModelForCausalLM, folder, **options)


def test_there_and_back(model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    folder = tmp_path / "made" / "compressed"
    hf.save_pretrained(model, folder)
    assert {"config.json", "model.safetensors.lmgc"} <= files(folder)
    assert not any(name.endswith(".safetensors") for name in files(folder))
    back = load(folder)
    assert type(back) is type(model)
    assert same(back, model)
    tokens = torch.arange(20)[None]
    assert identical(back.eval()(tokens).logits, model.eval()(tokens).logits)
    half = load(folder, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert files(tmp_path / "tmp") == set()
    assert files(tmp_path / "made") == {"compressed"}


def test_shards(model, tmp_path: Path):
    hf.save_pretrained(model, tmp_path / "a", max_shard_size="8KB", method="planes")
    index = json.loads((tmp_path / "a" / "model.safetensors.index.json").read_text())
    shards = set(index["weight_map"].values())
    assert len(shards) > 1
    assert {f"{shard}.lmgc" for shard in shards} <= files(tmp_path / "a")
    assert same(load(tmp_path / "a"), model)
    (tmp_path / "a" / "notes.txt").write_text("mine")
    hf.save_pretrained(model, tmp_path / "a")
    assert not any("-of-" in name or "index" in name for name in files(tmp_path / "a"))
    assert {"notes.txt", "model.safetensors.lmgc"} <= files(tmp_path / "a")
    assert same(load(tmp_path / "a"), model)


def test_what_the_command_line_wrote(run, model, tmp_path: Path):
    model.save_pretrained(tmp_path / "plain")
    run("compress", "-q", "-r", tmp_path / "plain", "-o", tmp_path / "compressed")
    assert same(load(tmp_path / "compressed"), model)
    with hf.decompressed(tmp_path / "compressed") as folder:
        for path in (tmp_path / "plain").iterdir():
            assert (Path(folder) / path.name).read_bytes() == path.read_bytes()
    assert not Path(folder).exists()


def test_plain_checkpoints_load_too(model, tmp_path: Path):
    model.save_pretrained(tmp_path / "plain")
    assert same(load(tmp_path / "plain"), model)


# ---- relative to the model that it was made of ---------------------------------------------------


def tuned(model):
    """The model after a little training."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1e-4 * torch.randn(parameter.shape, generator=generator)
    return model


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.lmgc"))


def test_tuned_models(model, tmp_path: Path):
    """The base may be plain or compressed, in other shards; the folder is what it always is."""
    base, shards, packed = (tmp_path / name for name in ("base", "shards", "packed"))
    model.save_pretrained(base)
    model.save_pretrained(shards, max_shard_size="8KB")
    hf.save_pretrained(model, packed, max_shard_size="12KB", method="planes")
    model = tuned(model)
    hf.save_pretrained(model, tmp_path / "alone")
    for i, reference in enumerate((base, shards, packed)):
        folder = tmp_path / str(i)
        hf.save_pretrained(model, folder, reference=reference, max_shard_size="10KB")
        assert size(folder) < 0.85 * size(tmp_path / "alone")
        for other in (base, shards, str(packed)):
            assert same(load(folder, reference=other), model)
    hf.save_pretrained(model, folder, reference=[packed])
    with hf.decompressed(folder, reference=base) as plain:
        assert files(Path(plain)) == files(base)
    assert same(load(tmp_path / "alone", reference=base), model)  # needs none


def test_tuned_models_of_tuned_models(model, tmp_path: Path):
    paths = [tmp_path / name for name in ("base", "tuned", "more")]
    hf.save_pretrained(model, paths[0])
    hf.save_pretrained(tuned(model), paths[1], reference=paths[0])
    hf.save_pretrained(tuned(model), paths[2], reference=[paths[1], paths[0]])
    assert same(load(paths[2], reference=[paths[1], paths[0]]), model)
    says = "tuned/model.safetensors.lmgc: it needs a reference itself, base "
    with pytest.raises(ReferenceMismatchError, match=says):
        load(paths[2], reference=paths[1])


def test_other_references(model, tmp_path: Path):
    base, folder = tmp_path / "base", tmp_path / "tuned"
    model.save_pretrained(base)
    before = {path: path.read_bytes() for path in base.iterdir()}
    tuned(model).save_pretrained(tmp_path / "other")
    hf.save_pretrained(tuned(model), folder, reference=base)
    with pytest.raises(ReferenceMismatchError, match=r"made with base \(tensors"):
        load(folder)
    with pytest.raises(ReferenceMismatchError, match=r"made with base \(.*not with other \("):
        load(folder, reference=tmp_path / "other")
    with pytest.raises(FileNotFoundError):
        load(folder, reference=tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty is a folder without files of tensors"):
        hf.save_pretrained(model, tmp_path / "a", reference=tmp_path / "empty")
    for target, reference in ((base, base), (base, base / "model.safetensors")):
        with pytest.raises(ValueError, match=r"would change the reference .*: write elsewhere"):
            hf.save_pretrained(model, target, reference=reference)
    assert before == {path: path.read_bytes() for path in base.iterdir()}


def test_damage(model, tmp_path: Path):
    hf.save_pretrained(model, tmp_path / "a")
    path = tmp_path / "a" / "model.safetensors.lmgc"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptArchiveError):
        load(tmp_path / "a")
    with pytest.raises(NotADirectoryError, match="no folder 'nowhere'"):
        load(Path("nowhere"))


def test_importing_it_needs_no_transformers():
    result = python("import sys, lmgc_torch.hf; assert 'transformers' not in sys.modules")
    assert result.returncode == 0, result.stderr
