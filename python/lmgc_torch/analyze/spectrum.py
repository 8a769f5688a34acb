"""Singular values: how nearly a tensor is of low rank, which is what `lowrank` lives on."""

import math

import torch

from lmgc_torch.analyze.report import Spectrum

__all__ = ["POINTS", "spectrum_of"]

POINTS = 64
"""Singular values that a report keeps of each tensor."""
LARGEST = 1024
"""Of larger matrices, rows and columns at equal distances are looked at."""


def spectrum_of(tensor: torch.Tensor) -> Spectrum | None:
    """Returns the spectrum of a tensor as a matrix, dimension 0 by all the others.

    Args:
        tensor: Floats of any shape and type.

    Returns:
        None where there is no matrix of two rows and columns, or not every element is finite.
    """
    if tensor.dim() < 2 or tensor.numel() == 0 or not tensor.is_floating_point():
        return None
    matrix = tensor.detach().reshape(tensor.size(0), -1)
    if min(matrix.shape) < 2:
        return None
    matrix = _thinned(_thinned(matrix, 0), 1).double()
    if not bool(torch.isfinite(matrix).all()):
        return None
    largest = matrix.abs().max()
    if largest == 0:
        return Spectrum(matrix.size(0), matrix.size(1), 0.0, (), ())
    singular = torch.linalg.svdvals(matrix / largest)
    shares = singular / singular.sum()
    shares = shares[shares > 0]
    rank = math.exp(float(-(shares * shares.log()).sum()))
    places = _places(singular.numel())
    values = tuple(float(singular[place] / singular[0]) for place in places)
    return Spectrum(
        matrix.size(0), matrix.size(1), rank, values, tuple(place + 1 for place in places)
    )


def _thinned(matrix: torch.Tensor, dimension: int) -> torch.Tensor:
    size = matrix.size(dimension)
    if size <= LARGEST:
        return matrix
    index = torch.arange(LARGEST, device=matrix.device) * size // LARGEST
    return matrix.index_select(dimension, index)


def _places(count: int) -> list[int]:
    """Returns at most `POINTS` indices below `count`, dense at the front, the ends among them."""
    if count <= POINTS:
        return list(range(count))
    steps = (round((count - 1) ** (i / (POINTS - 1))) for i in range(POINTS))
    return sorted({0, *steps, count - 1})[:POINTS]
