"""The example of DDP training with torchrun, the notebook that reads the results."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import helpers
import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "examples" / "notebooks" / "ddp_slow_link.ipynb"


def test_training_with_torchrun() -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    command += ["2", str(ROOT / "examples" / "ddp_train.py")]
    command += ["--steps", "10", "--width", "64", "--method", "lowrank"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "step 10: loss" in done.stdout
    ratio = float(re.findall(r"10 steps: .* \((.*) %\)", done.stdout)[0])
    assert 20 < ratio < 90
    assert re.search(r"checksum of the weights: \w{8}", done.stdout)


def test_the_notebook_runs_a_small_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.setattr(pyplot, "show", lambda: pyplot.close("all"))
    out = tmp_path / "ddp.json"
    monkeypatch.setenv("LMGC_DDP_OUT", str(out))
    shown = helpers.run_notebook(NOTEBOOK, monkeypatch)
    assert "no results yet" in capsys.readouterr().out
    assert out.is_file()
    assert len(shown) == 3
    assert "| tiny_fp32 | planes |" in shown[0]
    assert "identical" in shown[0]
    assert "lowrank" in shown[2]
