"""The language models that ship with the library, and what it takes to train them again."""

from pathlib import Path

__all__ = ["FOLDER", "bundled"]

FOLDER = Path(__file__).resolve().parent


def bundled() -> dict[str, Path]:
    """Returns the bundled priors, name to TorchScript file; "default" is the portable one."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.pt"))}
