"""How floats become tokens: the text options of a cell, and windows as method `lmgc` cuts them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from paper.hex_model import DIGITS, SEPARATORS
from torch import Tensor

import lmgc_torch
from lmgc_torch.serialize import SEPARATOR_TOKEN

SEPARATOR_ID = SEPARATOR_TOKEN


@dataclass(frozen=True)
class Text:
    """The options of the serializer (docs/format.md, section 9)."""

    separator: str = "space"
    bytes_per_group: int | None = 4
    byte_order: str = "big"

    @property
    def options(self) -> dict[str, Any]:
        """As `lmgc_torch.compress` and `lmgc_torch.tokenize` take them."""
        return {
            "separator": self.separator,
            "bytes_per_group": self.bytes_per_group,
            "byte_order": self.byte_order,
        }

    @property
    def in_bytes(self) -> bool:
        """Whether a token is a byte, not a digit."""
        return self.separator == "iso-8859-1"

    def period(self, itemsize: int) -> tuple[int, int]:
        """Elements and tokens after which the pattern of digits and separators repeats."""
        if self.in_bytes:
            return 1, itemsize
        if self.separator == "none" or self.bytes_per_group is None:
            return 1, 2 * itemsize
        size = math.lcm(itemsize, self.bytes_per_group)
        return size // itemsize, 2 * size + size // self.bytes_per_group

    def window_elements(self, itemsize: int, max_context: int) -> int:
        """Elements of a window, of whole periods, in at most ``max_context`` tokens if possible."""
        elements, tokens = self.period(itemsize)
        return elements * max(1, min(max_context // tokens, 1 << 16))

    def tokens_per_float(self) -> float:
        """Tokens that a float32 takes, separators included."""
        elements, tokens = self.period(4)
        return tokens / elements


def needed(text: Text) -> set[str]:
    """The token strings that a prior must have for a text."""
    if text.in_bytes:
        return {chr(code) for code in range(256)}
    separator = {SEPARATORS[text.separator]} if text.period(4)[1] > 8 * text.period(4)[0] else set()
    return set(DIGITS) | separator


class Vocabulary:
    """From the tokens of `lmgc_torch.tokenize` to a prior's ids."""

    def __init__(self, vocab: Sequence[str]) -> None:
        index = {token: i for i, token in reversed(list(enumerate(vocab)))}
        self.bos = index["<bos>"]
        self.digits = torch.tensor([index[digit] for digit in DIGITS])
        self.separators = {name: index[text] for name, text in SEPARATORS.items() if text in index}
        codes = [chr(code) for code in range(256)]
        whole = all(code in index for code in codes)
        self.bytes = torch.tensor([index[code] for code in codes]) if whole else None

    def symbols(self, text: Text) -> Tensor:
        """The ids of the sixteen digits, or of the 256 bytes."""
        if not text.in_bytes:
            return self.digits
        if self.bytes is None:
            raise ValueError("this prior has no tokens for bytes")
        return self.bytes

    def ids(self, text: Text, tokens: Tensor) -> Tensor:
        """Maps tokens (digits or bytes, 256 for a separator) to ids."""
        table = torch.full([SEPARATOR_ID + 1], -1)
        table[: len(self.symbols(text))] = self.symbols(text)
        table[SEPARATOR_ID] = self.separators.get(text.separator, -1)
        return table[tokens.long()]


def windows(
    elements: Tensor, text: Text, max_context: int, lane_elements: int
) -> dict[int, list[Tensor]]:
    """Cuts a tensor as method `lmgc` does.

    Args:
        elements: float32 or uint8 [N].
        text: how they are written.
        max_context: the prior's.
        lane_elements: as given to `lmgc_torch.compress`.

    Returns:
        {number of tokens: windows of that many, int16 each}; a separator is 256.
    """
    size = text.window_elements(elements.element_size(), max_context)
    found: dict[int, list[Tensor]] = {}
    for lane in elements.split(lane_elements):
        for window in lane.split(size):
            tokens = lmgc_torch.tokenize(window, **text.options)
            found.setdefault(len(tokens), []).append(tokens)
    return found
