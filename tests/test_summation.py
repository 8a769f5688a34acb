"""The order of sums over ranks."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks

from lmgc_torch.distributed.partition import partition
from lmgc_torch.distributed.summation import GlooOrder, RankOrder, add_up

SIZES = (1, 2, 7, 1000, 4097, 262_144, 1_000_003)


def reference_sum(gradients, order):
    total = torch.empty_like(gradients[0])
    for begin, end, ranks in order.ranges(0, total.numel()):
        part = gradients[ranks[0]][begin:end].clone()
        for rank in ranks[1:]:
            part += gradients[rank][begin:end]
        total[begin:end] = part
    return total


def gradient_of(rank, numel, dtype):
    generator = torch.Generator().manual_seed(1000 * rank + numel)
    values = torch.randn(numel, generator=generator, dtype=torch.float64)
    return (values * 10.0**rank).to(dtype)


def _gloo_sums(rank, dtype):
    sums = {}
    for numel in SIZES:
        tensor = gradient_of(rank, numel, dtype)
        dist.all_reduce(tensor)
        sums[numel] = tensor
    return sums if rank == 0 else None


@pytest.mark.parametrize(
    ("ranks", "dtype"),
    [(2, torch.float32), (3, torch.float32), (4, torch.bfloat16), (5, torch.float64)],
)
def test_gloo_order_is_that_of_gloo(ranks, dtype):
    sums = run_ranks(_gloo_sums, ranks, dtype)[0]
    for numel in SIZES:
        gradients = [gradient_of(rank, numel, dtype) for rank in range(ranks)]
        expected = reference_sum(gradients, GlooOrder(ranks, numel, dtype.itemsize))
        assert torch.equal(expected, sums[numel]), numel
        if ranks > 3 and numel > 1000:
            other = reference_sum(gradients, RankOrder(ranks))
            assert not torch.equal(other, sums[numel])  # so the comparison above says something


@pytest.mark.parametrize("kind", ["rank", "gloo"])
def test_pieces_add_up_to_the_whole(kind):
    ranks, shapes = 3, [(300, 50), (17,), (64, 33), (5,)]
    numel = sum(torch.Size(shape).numel() for shape in shapes)
    order = RankOrder(ranks) if kind == "rank" else GlooOrder(ranks, numel, 4)
    gradients = [gradient_of(rank, numel, torch.float32) for rank in range(ranks)]
    expected = reference_sum(gradients, order)
    buffers = [gradient.clone() for gradient in gradients]
    for pieces in partition(shapes, 4, ranks):
        for owner, piece in enumerate(pieces):
            if piece.blocks:
                blocks = [
                    piece.split(
                        [
                            tensor if rank == owner else tensor.clone()
                            for tensor in piece.gather(buffers[rank])
                        ]
                    )
                    for rank in range(ranks)
                ]
                add_up(piece, blocks, order, buffers[owner])
                for block in piece.blocks:
                    place = slice(block.offset, block.offset + block.numel)
                    assert torch.equal(buffers[owner][place], expected[place])
