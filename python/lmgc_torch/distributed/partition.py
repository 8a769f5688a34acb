"""Who reduces what of a bucket: owners, and rounds of pieces that keep the link busy.

A bucket is a flat buffer of parameters' gradients, one after the other. Every rank *owns* a part of
it: it receives that part from all others, sums it and sends the sum to all. Parts are made of whole
parameters where that balances, else of blocks of a parameter's rows, so that low-rank prediction
still sees matrices. Each part is cut into *pieces* of about `ROUND_BYTES`; the pieces of equal
number, one of each owner, form a *round*, the unit that is encoded, sent and decoded. Two ranks
both own everything: what one would send to the other as a sum is as large as its gradients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

ROUND_BYTES = 1 << 20  # of an owner's piece: large for the codec, small for the pipeline
LEAST_MATRIX = 1024  # elements; smaller blocks of a piece are coded together as one flat tensor
MOST_IMBALANCE = 0.1  # of a part, above which a parameter is cut to balance the owners
LEAST_ROWS = 8  # of a block that is cut off to balance


@dataclass(frozen=True)
class Block:
    """Elements ``offset .. offset + numel - 1`` of a bucket: rows of a parameter's gradient.

    ``shape`` is that of the memory: dimensions in the order of their strides.
    """

    offset: int
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def of(self, buffer: torch.Tensor) -> torch.Tensor:
        """Returns the block of a bucket's buffer, a contiguous view."""
        return buffer.narrow(0, self.offset, self.numel).view(self.shape)

    def split(self, rows: int) -> tuple[Block, Block]:
        """Returns the first so many rows and the others."""
        width = self.numel // self.shape[0]
        rest = (self.shape[0] - rows, *self.shape[1:])
        return Block(self.offset, (rows, *self.shape[1:])), Block(self.offset + rows * width, rest)


@dataclass(frozen=True)
class Piece:
    """Blocks that are coded in one frame: matrices each on its own, and the rest as one tensor."""

    matrices: tuple[Block, ...]
    rest: tuple[Block, ...]

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks, in the order of `split`."""
        return self.matrices + self.rest

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the tensors that `gather` returns."""
        shapes = [block.shape for block in self.matrices]
        return shapes + ([(sum(block.numel for block in self.rest),)] if self.rest else [])

    def gather(self, buffer: torch.Tensor) -> list[torch.Tensor]:
        """Returns the piece's tensors of a bucket: views, and a copy of the rest."""
        tensors = [block.of(buffer) for block in self.matrices]
        if self.rest:
            tensors.append(torch.cat([block.of(buffer).view(-1) for block in self.rest]))
        return tensors

    def split(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Returns what `tensors` (as of `gather`, contiguous) say of each block, flat."""
        flat = [tensor.view(-1) for tensor in tensors[: len(self.matrices)]]
        if self.rest:
            flat += tensors[-1].split([block.numel for block in self.rest])
        return flat

    def scatter(self, tensors: Sequence[torch.Tensor], buffer: torch.Tensor) -> None:
        """Writes tensors (as of `gather`) to their places in a bucket."""
        for block, flat in zip(self.blocks, self.split(tensors), strict=True):
            buffer.narrow(0, block.offset, block.numel).copy_(flat)


Round = tuple[Piece, ...]  # by owner


def memory_shape(parameter: torch.Tensor) -> tuple[int, ...]:
    """Returns the shape of a parameter's gradient as DDP lays it out in a bucket.

    That is in the order of the parameter's strides where these fill its memory (channels_last, for
    one), else in its own.
    """
    sizes, strides = parameter.shape, parameter.stride()
    order = sorted(range(len(sizes)), key=lambda d: (-strides[d], d))
    expected = 1
    for d in reversed(order):
        if sizes[d] != 1 and strides[d] != expected:
            return tuple(sizes)
        expected *= sizes[d]
    return tuple(sizes[d] for d in order)


def partition(shapes: Sequence[tuple[int, ...]], itemsize: int, ranks: int) -> list[Round]:
    """Divides a bucket among its owners.

    Args:
        shapes: Of the parameters, as they follow each other in the bucket.
        itemsize: Bytes of an element.
        ranks: The number of owners.

    Returns:
        The rounds. Every element of the bucket is in exactly one piece, or for two ranks in the
        piece of both, in the same round; pieces may be empty. The same arguments give the same
        rounds on every rank.
    """
    blocks, offset = [], 0
    for shape in shapes:
        block = Block(offset, shape or (1,))
        offset += block.numel
        if block.numel:
            blocks.append(block)
    parts = [blocks] if ranks == 2 else _balance(blocks, offset, ranks)
    largest = max(_load(part) for part in parts)
    count = max(1, round(largest * itemsize / ROUND_BYTES))
    cut = [_pieces(sorted(part, key=lambda block: block.offset), count) for part in parts]
    if ranks == 2:
        cut = cut * 2
    rounds = [tuple(pieces[i] for pieces in cut) for i in range(count)]
    return [pieces for pieces in rounds if any(piece.blocks for piece in pieces)]


def _load(part: Sequence[Block]) -> int:
    return sum(block.numel for block in part)


def _balance(blocks: list[Block], total: int, ranks: int) -> list[list[Block]]:
    """Gives every block to an owner, the largest first and always to whom has the least."""
    share = max(1, -(-total // ranks))
    whole: list[Block] = []
    for block in blocks:
        count = -(-block.numel // share)
        if block.shape[0] < count:  # rows are too long
            block = Block(block.offset, (block.numel,))
        for left in range(count, 1, -1):
            first, block = block.split(block.shape[0] // left)
            whole.append(first)
        whole.append(block)
    parts: list[list[Block]] = [[] for _ in range(ranks)]
    for block in sorted(whole, key=lambda block: (-block.numel, block.offset)):
        min(parts, key=_load).append(block)
    for _ in range(ranks):
        most, least = max(parts, key=_load), min(parts, key=_load)
        excess = (_load(most) - _load(least)) // 2
        if excess <= MOST_IMBALANCE * share:
            break
        largest = max(most, key=lambda block: block.numel)
        rows = round(excess / (largest.numel // largest.shape[0]))
        if rows < LEAST_ROWS or largest.shape[0] - rows < LEAST_ROWS:
            break
        most.remove(largest)
        moved, kept = largest.split(rows)
        most.append(kept)
        least.append(moved)
    return parts


def _pieces(part: list[Block], count: int) -> list[Piece]:
    """Cuts an owner's part into pieces of about the same size, between blocks."""
    load = max(1, _load(part))
    members: list[list[Block]] = [[] for _ in range(count)]
    before = 0
    for block in part:
        middle = before + block.numel // 2
        members[middle * count // load].append(block)
        before += block.numel
    return [
        Piece(
            tuple(b for b in some if len(b.shape) > 1 and b.numel >= LEAST_MATRIX),
            tuple(b for b in some if len(b.shape) <= 1 or b.numel < LEAST_MATRIX),
        )
        for some in members
    ]
