"""Bits of elements: sign, exponent and mantissa, and how much each of them tells."""

import math
from collections.abc import Iterable

import torch

from lmgc_torch.analyze.report import Field

__all__ = ["Layout", "as_words", "layout_of", "measure", "nonzero"]

# Exponent and mantissa bits; a float has a sign besides, but for float8_e8m0fnu.
_FLOATS: dict[torch.dtype, tuple[int, int]] = {
    torch.float64: (11, 52),
    torch.float32: (8, 23),
    torch.float16: (5, 10),
    torch.bfloat16: (8, 7),
    torch.float8_e4m3fn: (4, 3),
    torch.float8_e4m3fnuz: (4, 3),
    torch.float8_e5m2: (5, 2),
    torch.float8_e5m2fnuz: (5, 2),
}
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

Layout = tuple[tuple[str, int], ...]
"""Names and bits of an element's fields, the most significant first."""


def layout_of(dtype: torch.dtype) -> Layout:
    """Returns the fields of a type that is not complex: whole bytes if it is no float."""
    if dtype not in _FLOATS:
        return (("byte", 8),) * dtype.itemsize
    exponent, mantissa = _FLOATS[dtype]
    first = ((("mantissa", mantissa % 8),) if mantissa % 8 else ()) + (("mantissa", 8),) * (
        mantissa // 8
    )
    return (("sign", 1), ("exponent", exponent), *first)


def as_words(tensor: torch.Tensor) -> torch.Tensor:
    """Returns the elements as integers of the same bits, 1-D; a copy only where it has to be."""
    plain = tensor.detach().resolve_conj().resolve_neg()
    if plain.is_complex():
        plain = torch.view_as_real(plain)
    return plain.contiguous().view(-1).view(_WORDS[plain.dtype.itemsize])


def nonzero(words: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Returns those words that are neither zero nor, in a float, infinite or not a number."""
    magnitudes = words & _mask(8 * words.dtype.itemsize - 1) if dtype in _FLOATS else words
    keep = magnitudes != 0
    if dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        exponent, mantissa = _FLOATS[dtype]
        keep &= (magnitudes >> mantissa) != _mask(exponent)
    return words if bool(keep.all()) else words[keep]


def measure(words: torch.Tensor, layout: Layout) -> tuple[Field, ...]:
    """Counts the values of every field.

    Args:
        words: Integers of shape [elements].
        layout: The fields.

    Returns:
        Name, width and entropies of every field; entropies are 0 if there are no elements.
    """
    shift = 8 * words.dtype.itemsize
    fields = []
    for name, bits in layout:
        shift -= bits
        values = (words >> shift) & _mask(bits) if bits < 8 * words.dtype.itemsize else words
        counts = torch.bincount(values.int(), minlength=1 << bits)[: 1 << bits].tolist()
        fields.append(Field(name, bits, entropy(counts), _bit_entropies(counts, bits)))
    return tuple(fields)


def entropy(counts: Iterable[int]) -> float:
    """Returns the entropy in bits of a distribution that is given by counts."""
    present = [count for count in counts if count > 0]
    total = sum(present)
    if total == 0:
        return 0.0
    return max(0.0, -sum(n / total * math.log2(n / total) for n in present))


def _bit_entropies(counts: list[int], bits: int) -> tuple[float, ...]:
    total = sum(counts)
    ones = (
        sum(count for value, count in enumerate(counts) if value >> bit & 1)
        for bit in reversed(range(bits))
    )
    return tuple(entropy((one, total - one)) for one in ones)


def _mask(bits: int) -> int:
    return (1 << bits) - 1
