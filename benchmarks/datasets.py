"""Image and text samples to train the benchmark networks on.

Real samples are read from ``../shared/data`` beside the repository (``cifar10.npz``, ``mnist.npz``,
``tinyshakespeare.txt``). Without that folder every function falls back to samples that come with
scikit-learn or Python, and says so on stderr. The figures we publish are those of the real samples.
"""

from __future__ import annotations

import importlib
import sys
import sysconfig
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SIZES = {"cifar10": (3, 32), "mnist": (1, 28)}  # channels, height = width
SOURCES = {  # the file, and what stands in for it
    "cifar10": ("cifar10.npz", "scikit-learn digits"),
    "mnist": ("mnist.npz", "scikit-learn digits"),
    "text": ("tinyshakespeare.txt", "Python standard library"),
}
FALLBACK_TEXT_BYTES = 1 << 20


def source(name: str, folder: Path = DATA) -> str:
    """Tells where the samples of "cifar10", "mnist" or "text" come from."""
    file, fallback = SOURCES[name]
    return file if (folder / file).is_file() else fallback


def images(name: str, folder: Path = DATA) -> tuple[Tensor, Tensor]:
    """Loads the training images of a data set.

    Args:
        name: "cifar10" (3x32x32) or "mnist" (1x28x28); 10 classes each.
        folder: where ``{name}.npz`` (train_images uint8 [N,H,W(,3)], train_labels [N]) may lie.

    Returns:
        Images float32 [N,C,H,W], zero mean and unit variance per channel, and labels int64 [N];
        scikit-learn's digits at the same size if the file is missing.
    """
    channels, side = SIZES[name]
    path = _find(name, folder)
    if path:
        with np.load(path) as archive:
            pixels = torch.from_numpy(archive["train_images"]).float()
            labels = torch.from_numpy(archive["train_labels"]).long()
        pixels = pixels.permute(0, 3, 1, 2) if pixels.dim() == 4 else pixels.unsqueeze(1)
    else:
        pixels, labels = _digits(channels, side)
    mean = pixels.mean(dim=(0, 2, 3), keepdim=True)
    deviation = pixels.std(dim=(0, 2, 3), keepdim=True)
    return ((pixels - mean) / deviation).contiguous(), labels


def text(folder: Path = DATA) -> Tensor:
    """Loads ``tinyshakespeare.txt``, or sources of Python's standard library if it is missing.

    Returns:
        Characters, uint8 [N].
    """
    path = _find("text", folder)
    content = path.read_bytes() if path else _standard_library()
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _find(name: str, folder: Path) -> Path | None:
    """Returns the file of a data set, or says what stands in for it and returns None."""
    file, fallback = SOURCES[name]
    if (folder / file).is_file():
        return folder / file
    print(f"{file} not found in {folder}: using {fallback} instead", file=sys.stderr)
    return None


def _digits(channels: int, side: int) -> tuple[Tensor, Tensor]:
    """Returns 8x8 digits upscaled to float32 [N,channels,side,side] and their labels."""
    try:
        bunch = importlib.import_module("sklearn.datasets").load_digits()
    except ImportError as error:
        raise RuntimeError(
            f"no images: put cifar10.npz and mnist.npz into {DATA} or `pip install scikit-learn`"
        ) from error
    small = torch.from_numpy(bunch.images).float().unsqueeze(1)
    large = F.interpolate(small, size=(side, side), mode="bilinear", align_corners=False)
    return large.expand(-1, channels, -1, -1), torch.from_numpy(bunch.target).long()


def _standard_library() -> bytes:
    """Returns the first megabyte of the top-level standard library modules, in name order."""
    content = b""
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        content += path.read_bytes()
        if len(content) >= FALLBACK_TEXT_BYTES:
            break
    return content[:FALLBACK_TEXT_BYTES]
