"""The language models that ship with the library, and what it takes to train them again."""

from pathlib import Path

__all__ = ["FOLDER", "bundled"]

FOLDER = Path(__file__).resolve().parent


def bundled() -> dict[str, Path]:
    """Returns the bundled priors by name: TorchScript files; `prior.DEFAULTS` names two."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.pt"))}
