"""What the code that was released with LM-GC would report as its size, and why it is no size.

For each token the released compressor turns the model's probabilities p_0, p_1, ... (in the order
of the vocabulary) into

    c = [0, p_0 / S_0, p_1 / S_1, p_2 / S_2, ...],    S_k = p_0 + p_1 + ... + p_k,

and hands c to an arithmetic coder as the cumulative distribution; the bytes that come out are
counted and never decoded. A cumulative distribution is S itself. The coder narrows its interval to
[c_k, c_(k+1)) for token k. Among tens of thousands of tokens the one before a digit has next to no
probability, so that this begins at 0, and the token costs

    -log2(p_k / S_k) bits

instead of -log2(p_k). All intervals begin at 0 and overlap, so nothing could tell them apart: their
widths add up to more than 1, for sixteen equally likely digits to 1 + 1/2 + ... + 1/16 = 3.38. Such
digits, which nothing can compress, are reported with log2(16!) / 16 = 2.77 bits of 4, or 69 %.
A token "saves" -log2(S_k), on average 1.23 bits if all digits are equally likely and 1.42 if all
bytes are: text with more tokens is reported smaller.

The functions here evaluate both lengths on teacher-forced probabilities, restricted to the legal
symbols (16 digits or 256 bytes, in the order of their values) as in our coder; separators cost
nothing. A language model's own vocabulary may have the digits in another order, and so may report
another number.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEAST = 2.0**-16  # our coder gives every symbol at least this


class Lengths(NamedTuple):
    """Bits for a sequence of symbols."""

    code: float  # -log2 p: what a coder needs that decodes
    released: float  # -log2 (p / cumsum p): what the released code reports


def probabilities(logits: Floats) -> Floats:
    """Softmax over the last axis, at least ``LEAST`` each as in our coder."""
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    share = weights / weights.sum(axis=-1, keepdims=True)
    return share * (1 - LEAST * share.shape[-1]) + LEAST


def lengths(probability: Floats, symbols: NDArray[np.int64]) -> Lengths:
    """Sums both lengths over positions.

    Args:
        probability: [N, symbols], rows that sum to 1.
        symbols: [N], what occurred.
    """
    column = symbols[:, None]
    own = np.take_along_axis(probability, column, 1)
    running = np.take_along_axis(np.cumsum(probability, axis=1), column, 1)
    return Lengths(float(-np.log2(own).sum()), float(-np.log2(own / running).sum()))
