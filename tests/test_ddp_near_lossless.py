"""The DDP hook with a tunable loss.

DDP asks hooks for annotations that are real objects, so this file does not postpone them.
"""

import pickle

import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks
from test_ddp import train

import lmgc_torch.distributed as lmgc_dist
from lmgc_torch.near_lossless import BlockBits, KeepBits, Loss, TopK

STEPS = 6


def rounded_train(rank: int, loss: Loss, method: str, feedback: bool) -> torch.Tensor:
    state = lmgc_dist.NearLosslessAllReduceState(
        loss, method=method, min_bytes=0, error_feedback=feedback
    )
    return train(rank, (state, lmgc_dist.compressed_allreduce_hook), STEPS)


def plain_train(rank: int, loss: Loss) -> torch.Tensor:
    """The same without this library's exchange, without error feedback."""

    def hook(_: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        buffer = bucket.buffer() / dist.get_world_size()
        at = 0
        for parameter in bucket.parameters():
            part = buffer.narrow(0, at, parameter.numel())
            at += parameter.numel()
            part.copy_(loss(part))
        work = dist.all_reduce(buffer, async_op=True)
        return work.get_future().then(lambda done: done.value()[0])

    return train(rank, (None, hook), STEPS)


@pytest.mark.parametrize("method", ["lowrank", "auto"])
def test_two_ranks_do_what_rounding_and_all_reduce_do(method: str):
    loss = KeepBits(5)
    with_hook = run_ranks(rounded_train, 2, loss, method, False)
    without = run_ranks(plain_train, 2, loss)
    for weights in (with_hook[1], *without):
        assert torch.equal(weights, with_hook[0])


@pytest.mark.parametrize("loss", [TopK(0.1), BlockBits(4, 64)], ids=str)
def test_ranks_end_with_the_same_bits(loss: Loss):
    weights = run_ranks(rounded_train, 3, loss, "scale", True)
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], run_ranks(rounded_train, 3, loss, "scale", False)[0])


def train_and_pickle(rank: int) -> tuple[bool, int, int]:
    state = lmgc_dist.NearLosslessAllReduceState(TopK(0.1), method="planes", min_bytes=0)
    train(rank, (state, lmgc_dist.compressed_allreduce_hook), 3)
    other = pickle.loads(pickle.dumps(state))
    mine, theirs = state._feedback.state_dict(), other._feedback.state_dict()
    same = all(torch.equal(mine[key], theirs[key]) for key in mine) and mine.keys() == theirs.keys()
    state.close()
    return same and other.loss == state.loss and other.method == "planes", len(mine), len(theirs)


def test_what_was_lost_is_pickled():
    parameters = 10
    assert run_ranks(train_and_pickle, 2) == [(True, parameters, parameters)] * 2


def test_bad_options():
    with pytest.raises(TypeError, match="it must be a Loss"):
        lmgc_dist.NearLosslessAllReduceState(7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="method is 'lmgc'"):
        lmgc_dist.NearLosslessAllReduceState(KeepBits(7), method="lmgc")
