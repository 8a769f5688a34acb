"""Owners, rounds and pieces of buckets."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmgc_torch.distributed.partition import (
    LEAST_MATRIX,
    ROUND_BYTES,
    memory_shape,
    partition,
)

shapes = st.lists(
    st.one_of(
        st.lists(st.integers(0, 40), max_size=4),
        st.tuples(st.integers(1, 2000), st.integers(1, 300)),
        st.tuples(st.integers(1, 200_000)),
    ).map(tuple),
    max_size=12,
)


@settings(deadline=None, max_examples=150)
@given(shapes, st.integers(1, 9), st.sampled_from([2, 4]))
def test_every_element_is_in_one_piece(shapes, ranks, itemsize):
    rounds = partition(shapes, itemsize, ranks)
    total = sum(torch.Size(shape).numel() for shape in shapes)
    seen = torch.zeros(total, dtype=torch.int32)
    for pieces in rounds:
        assert len(pieces) == ranks
        assert any(piece.blocks for piece in pieces)
        if ranks == 2:
            assert pieces[0] == pieces[1]
            pieces = pieces[:1]
        for piece in pieces:
            for block in piece.blocks:
                seen[block.offset : block.offset + block.numel] += 1
            assert all(block.numel >= LEAST_MATRIX for block in piece.matrices)
    assert bool((seen == 1).all())


@settings(deadline=None, max_examples=50)
@given(shapes, st.integers(1, 5))
def test_pieces_gather_and_scatter(shapes, ranks):
    total = sum(torch.Size(shape).numel() for shape in shapes)
    buffer = torch.arange(total, dtype=torch.float64)
    copy = torch.zeros_like(buffer)
    for pieces in partition(shapes, 8, ranks):
        for piece in pieces:
            tensors = piece.gather(buffer)
            assert [tuple(tensor.shape) for tensor in tensors] == piece.shapes
            flat = piece.split(tensors)
            assert [part.numel() for part in flat] == [block.numel for block in piece.blocks]
            piece.scatter(tensors, copy)
    assert torch.equal(buffer, copy)


@pytest.mark.parametrize("ranks", [3, 4, 8])
def test_owners_of_a_transformer_are_balanced_and_own_matrices(ranks):
    block = [(256,), (768, 256), (768,), (256, 256), (256,), (1024, 256), (1024,), (256, 1024)]
    shapes = block * 6 + [(65, 256), (256,)]
    rounds = partition(shapes, 4, ranks)
    total = sum(torch.Size(shape).numel() for shape in shapes)
    loads = [sum(b.numel for pieces in rounds for b in pieces[r].blocks) for r in range(ranks)]
    assert max(loads) <= 1.11 * total / ranks
    in_matrices = sum(b.numel for pieces in rounds for piece in pieces for b in piece.matrices)
    assert in_matrices > 0.98 * total
    assert len(rounds) == pytest.approx(4 * total / ranks / ROUND_BYTES, abs=1)


def test_a_matrix_is_cut_between_rows_for_its_owners():
    rounds = partition([(1000, 512)], 4, 4)
    blocks = [block for pieces in rounds for piece in pieces for block in piece.matrices]
    assert sorted(block.shape for block in blocks) == [(250, 512)] * 4


def test_memory_shape_follows_the_strides():
    images = torch.empty(8, 3, 5, 7).to(memory_format=torch.channels_last)
    assert memory_shape(images) == (8, 5, 7, 3)
    assert memory_shape(torch.empty(4, 6).t()) == (4, 6)
    assert memory_shape(torch.empty(4, 6)) == (4, 6)
    assert memory_shape(torch.empty(())) == ()
    assert memory_shape(torch.empty(1, 6).expand(4, 6)) == (4, 6)  # DDP lays these out by size
