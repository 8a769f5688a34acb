"""Why a tensor compresses: the categories of arXiv 2404.15198, for single tensors."""

from collections.abc import Sequence

import torch

from lmgc_torch.analyze import fields
from lmgc_torch.analyze.report import Category, Field

__all__ = ["categorize"]

LEAST_VALUES = 64
"""Fewer values than these say little about their bits."""
CLEAN = 0.9
"""A mantissa is clean if its bits, each by itself, tell at most this part of what they could."""
LEAST_SAVED = 0.5
"""Bits of sign and exponent that must be spared where a tensor is said to compress."""

_NARROWER = {
    torch.float64: (torch.bfloat16, torch.float16, torch.float32),
    torch.float32: (torch.bfloat16, torch.float16),
}


def categorize(words: torch.Tensor, dtype: torch.dtype) -> tuple[Category, torch.dtype | None]:
    """Sorts a tensor into a category; docs/analyze.md states the rule.

    Args:
        words: Its elements as `fields.as_words` gives them.
        dtype: The type of an element, the real part's where it is complex.

    Returns:
        The category, and for "converted" the narrower type.
    """
    layout = fields.layout_of(dtype)
    if layout[0][0] == "byte":
        return "other", None
    if words.numel() > 0 and not bool((words << 1).any()):
        return "zeros", None
    values = fields.nonzero(words, dtype)
    if values.numel() < LEAST_VALUES:
        return "small", None
    floats = values.view(dtype)
    for narrower in _NARROWER.get(dtype, ()):
        if bool((floats.to(narrower).to(dtype) == floats).all()):
            return "converted", narrower
    found = fields.measure(values, layout)
    mantissa = [bit for part in found if part.name == "mantissa" for bit in part.bit_entropies]
    if sum(mantissa) <= CLEAN * len(mantissa):
        return "clean", None
    return ("exponent" if _spared(found) >= LEAST_SAVED else "incompressible"), None


def _spared(found: Sequence[Field]) -> float:
    """Bits of sign and exponent that their entropies leave over."""
    return sum(part.bits - part.entropy for part in found if part.name != "mantissa")
