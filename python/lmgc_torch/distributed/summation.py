"""The order in which ranks' gradients are summed: floating-point sums depend on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from lmgc_torch.distributed.partition import Piece

GLOO_SEGMENT = 1 << 20  # bytes; gloo's most for a segment of its ring


@dataclass(frozen=True)
class RankOrder:
    """Rank 0 first, then 1, 2, ..., wherever an element lies."""

    ranks: int

    def ranges(self, first: int, last: int) -> Iterator[tuple[int, int, Sequence[int]]]:
        """Yields (begin, end, order of the ranks) for elements ``first .. last - 1``."""
        yield first, last, range(self.ranks)


@dataclass(frozen=True)
class GlooOrder:
    """The order of gloo's all-reduce, a ring over chunks of a buffer of `numel` elements.

    The buffer is cut into segments of at most 1 MiB, a multiple of the ranks and at least two for
    each; equal numbers of them make a chunk for each rank. The sum of chunk c begins with rank
    c - 1 and goes down the ring to rank c (gloo/allreduce.cc, algorithm RING).
    """

    ranks: int
    numel: int
    itemsize: int

    @property
    def chunk(self) -> int:
        """Elements of a chunk."""
        size = self.numel * self.itemsize
        segments = _round_up(max(-(-size // GLOO_SEGMENT), 2 * self.ranks), self.ranks)
        segment = _round_up(-(-size // segments), self.itemsize)
        return segments // self.ranks * segment // self.itemsize

    def ranges(self, first: int, last: int) -> Iterator[tuple[int, int, Sequence[int]]]:
        """Yields (begin, end, order of the ranks) for elements ``first .. last - 1``."""
        chunk = self.chunk
        while first < last:
            c = first // chunk
            end = min(last, (c + 1) * chunk)
            yield first, end, [(c - 1 - step) % self.ranks for step in range(self.ranks)]
            first = end


Order = RankOrder | GlooOrder


def add_up(
    piece: Piece, gradients: Sequence[list[torch.Tensor]], order: Order, buffer: torch.Tensor
) -> None:
    """Sums a piece over the ranks, in the elements' type.

    Args:
        piece: The piece; its place in `buffer` receives the sum.
        gradients: By rank, the piece's blocks as of `Piece.split`. They are overwritten, except
            those that lie in `buffer`.
        order: The order of the sum.
        buffer: The bucket.
    """
    for index, block in enumerate(piece.blocks):
        for begin, end, ranks in order.ranges(block.offset, block.offset + block.numel):
            start, length = begin - block.offset, end - begin
            terms = [gradients[rank][index].narrow(0, start, length) for rank in ranks]
            target = buffer.narrow(0, begin, length)
            # The target may be one of the terms, but only the first one may be written to.
            total = terms[0].add_(terms[1]) if len(terms) > 1 else terms[0]
            for term in terms[2:]:
                total.add_(term)
            if total.data_ptr() != target.data_ptr():
                target.copy_(total)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
