"""The command `lmgc export-prior`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from helpers import python

from lmgc_torch import Prior, cli

pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.load:DeprecationWarning"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]):
    def run(*arguments: object, code: int = 0) -> str:
        capfd.readouterr()
        assert cli.main(["export-prior", *map(str, arguments)]) == code
        out, messages = capfd.readouterr()
        assert out == ""
        assert "Traceback" not in messages
        return messages

    return run


def test_command(run, gpt2_folder: Path, tmp_path: Path):
    output = tmp_path / "prior.pt"
    message = run(gpt2_folder, "-o", output, "--max-context", 80, "--dtype", "bfloat16")
    prior = Prior.load(output)
    assert prior.max_context == 80
    parameters = sum(tensor.numel() for tensor in torch.jit.load(output).parameters())
    assert message == (
        f"prior.pt: gpt2, {parameters:,} parameters in bfloat16, {output.stat().st_size:,} bytes, "
        "windows of 80 tokens; separators: none, space, comma, comma_space, semicolon, 0x, "
        "iso-8859-1\n"
    )
    before = output.read_bytes()
    assert "exists already" in run(gpt2_folder, "-o", output, code=2)
    assert output.read_bytes() == before
    assert run(gpt2_folder, "-o", output, "-f", "-q") == ""
    assert Prior.load(output).max_context == 96
    assert {path.name for path in tmp_path.iterdir()} == {"prior.pt"}


def test_command_says_what_is_wrong(
    run, gpt2_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    output = tmp_path / "prior.pt"
    assert "no checkpoint folder" in run(tmp_path / "none", "-o", output, code=2)
    assert "64 to 96" in run(gpt2_folder, "-o", output, "--max-context", 10, code=2)
    assert "no folder" in run(gpt2_folder, "-o", tmp_path / "none" / "prior.pt", code=2)
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt" / "config.json").write_text(json.dumps({"model_type": "opt"}))
    message = run(tmp_path / "opt", "-o", output, code=1)
    assert message.count("\n") == 1
    assert "architecture is 'opt'; supported are 'gpt2', 'llama', 'mistral'" in message
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "pip install lmgc_torch[export]" in run(gpt2_folder, "-o", output, code=2)
    assert not output.exists()


def test_only_export_needs_transformers():
    result = python("import sys, lmgc_torch.cli; assert 'transformers' not in sys.modules")
    assert result.returncode == 0, result.stderr
