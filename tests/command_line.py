"""The command `lmgc`, run as its users run it, and what it leaves behind."""

import subprocess
import sys
from pathlib import Path

import torch
from helpers import all_identical
from torch import Tensor

LMGC = [sys.executable, "-m", "lmgc_torch.cli"]


def lmgc(*arguments: object, code: int = 0, stdin: bytes | None = None) -> tuple[bytes, str]:
    """Runs the command line in a process of its own; returns its output and its messages."""
    result = subprocess.run(
        [*LMGC, *map(str, arguments)], input=stdin, capture_output=True, timeout=300
    )
    messages = result.stderr.decode()
    assert result.returncode == code, messages
    assert "Traceback" not in messages
    return result.stdout, messages


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def holds(path: Path, tensors: dict[str, Tensor]) -> bool:
    """Whether a .pt file holds these tensors in this order."""
    back = torch.load(path, weights_only=True)
    return list(back) == list(tensors) and all_identical(back.values(), tensors.values())
