"""The DDP communication hook, on ranks that are processes of their own."""

from __future__ import annotations

import os
import pickle
import time
from contextlib import ExitStack
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from ranks import RanksError, run_ranks
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.parallel import DistributedDataParallel

import lmgc_torch.distributed as lmgc_dist
from lmgc_torch.distributed import codec
from lmgc_torch.errors import CommunicationError

STEPS = 50


class Network(nn.Module):
    """Matrices, a convolution in channels_last, vectors, and a part that may go unused."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 24, 3, stride=2).to(memory_format=torch.channels_last)
        self.hidden = nn.Linear(24 * 3 * 3, 300)
        self.norm = nn.LayerNorm(300)
        self.side = nn.Linear(300, 300)
        self.out = nn.Linear(300, 10)

    def forward(self, x, side=True):
        hidden = F.gelu(self.hidden(F.gelu(self.convolution(x)).flatten(1)))
        hidden = self.norm(hidden)
        if side:
            hidden = hidden + F.gelu(self.side(hidden))
        return self.out(hidden)


def network(dtype=torch.float32):
    torch.manual_seed(0)
    return Network().to(dtype)


def weights_of(module):
    return torch.cat([p.detach().reshape(-1).double() for p in module.parameters()])


def train(
    rank,
    hook=None,
    steps=STEPS,
    dtype=torch.float32,
    accumulate=1,
    side=lambda step: True,
    **options,
):
    """Trains a network with `hook` = (state, function), and returns its weights."""
    model = DistributedDataParallel(network(dtype), bucket_cap_mb=0.2, **options)
    if hook is not None:
        model.register_comm_hook(*hook)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(rank)
    for step in range(steps):
        optimizer.zero_grad()
        for part in range(accumulate):
            x = torch.randn(8, 3, 8, 8, generator=generator).to(dtype)
            y = torch.randint(0, 10, (8,), generator=generator)
            with ExitStack() as stack:
                if part < accumulate - 1:
                    stack.enter_context(model.no_sync())
                F.cross_entropy(model(x, side(step)).float(), y).backward()
        optimizer.step()
    return weights_of(model)


def same_everywhere(weights):
    every = [torch.empty_like(weights) for _ in range(dist.get_world_size())]
    dist.all_gather(every, weights)
    return all(torch.equal(every[0], other) for other in every)


def hook(method="planes", **options):
    options.setdefault("min_bytes", 0)
    state = lmgc_dist.CompressedAllReduceState(method=method, **options)
    return state, lmgc_dist.compressed_allreduce_hook


def _as_plain(rank, methods):
    """Trains with and without the hook; returns which runs ended with the same bits."""
    plain = train(rank)
    equal = {}
    for method in methods:
        chosen = hook(method, match_backend=True)
        equal[method] = torch.equal(train(rank, chosen), plain)
        stats = chosen[0].compression_stats()
        assert stats.steps == STEPS
        assert stats.raw_bytes > 0
        if method in ("planes", "scale", "lowrank", "past"):
            assert 0 < stats.ratio < 98
            assert set(stats.methods.values()) == {method}
        chosen[0].close()
    in_rank_order = train(rank, hook("planes"))
    equal["by rank"] = torch.equal(in_rank_order, plain)
    equal["by rank, once more"] = torch.equal(train(rank, hook("auto")), in_rank_order)
    assert same_everywhere(in_rank_order)
    assert (in_rank_order - plain).abs().max() < 1e-2
    return equal


@pytest.mark.parametrize(
    ("ranks", "methods"),
    [(2, ("planes", "scale", "raw", "past")), (3, ("auto", "past")), (4, ("lowrank", "past"))],
)
def test_training_is_that_of_plain_ddp(ranks, methods):
    for equal in run_ranks(_as_plain, ranks, methods):
        other = equal.pop("by rank")
        assert other == (ranks == 2)  # with more ranks the order of the sum tells
        assert all(equal.values()), equal


def _ways_of_ddp(rank):
    """Returns by option whether the hook's bits are those of plain DDP."""
    equal = {}
    ways = {
        "accumulation": {"accumulate": 3},
        "static_graph": {"static_graph": True},
        "unused": {"find_unused_parameters": True, "side": lambda step: step % 2 == 0},
        "views": {"gradient_as_bucket_view": True},
        "bf16": {"dtype": torch.bfloat16},
        "fp64": {"dtype": torch.float64},
    }
    for name, options in ways.items():
        plain = train(rank, steps=8, **options)
        equal[name] = torch.equal(train(rank, hook("lowrank"), steps=8, **options), plain)
    for name in ("bf16_compress_wrapper", "fp16_compress_wrapper"):
        wrapper = getattr(default_hooks, name)
        plain = train(rank, (None, wrapper(default_hooks.allreduce_hook)), steps=8)
        state, function = hook("planes")
        equal[name] = torch.equal(train(rank, (state, wrapper(function)), steps=8), plain)
    return equal


def test_ways_of_ddp():
    for equal in run_ranks(_ways_of_ddp, 2):
        assert all(equal.values()), equal


def _special_values(rank):
    """Returns a gradient with and without the hook, as integers."""
    gradient = torch.linspace(-1, 1, 64 * 64).view(64, 64) / (rank + 1)
    gradient[0, :4] = torch.tensor([float("nan"), float("inf"), 1e-44, -0.0])
    gradient[1, rank] = float("nan")
    gradient[2, rank] = -float("inf")
    bits = []
    for chosen in ((), hook("lowrank")):
        module = nn.Module()
        module.weight = nn.Parameter(torch.zeros(64, 64))
        module.forward = lambda x, w=module.weight: (w * x).sum()
        model = DistributedDataParallel(module)
        if chosen:
            model.register_comm_hook(*chosen)
        model(gradient).backward()
        bits.append(module.weight.grad.view(torch.int32))
    return bits


def test_special_values_travel():
    for plain, compressed in run_ranks(_special_values, 2):
        assert torch.equal(plain, compressed)
        values = compressed.view(torch.float32)
        assert values[0, 0].isnan()
        assert values[1, :2].isnan().all()
        assert values[2, :2].isinf().all()
        assert 0 < values[0, 2] < 2e-44
        assert compressed[0, 3] == -(2**31)


def _mixed_types(rank):
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.first = nn.Linear(64, 128)
            self.second = nn.Linear(128, 128).to(torch.bfloat16)

        def forward(self, x):
            return self.second(self.first(x).to(torch.bfloat16)).float()

    def gradients(*hooks):
        model = DistributedDataParallel(Mixed())
        for state, function in hooks:
            model.register_comm_hook(state, function)
        found = []
        for step in range(3):
            model.zero_grad()
            torch.manual_seed(10 * step + rank)
            model(torch.randn(16, 64)).square().sum().backward()
            found += [p.grad.double().reshape(-1) for p in model.parameters()]
        return torch.cat(found)

    return torch.equal(gradients(), gradients(hook("scale")))


def test_mixed_types():
    assert all(run_ranks(_mixed_types, 2))


def _subgroup(rank):
    """Only ranks 1 and 2 of three train; the state makes its groups without rank 0."""
    group = dist.new_group([1, 2])
    if rank == 0:
        return True
    plain = train(rank, steps=5, process_group=group)
    compressed = train(rank, hook("planes", process_group=group), steps=5, process_group=group)
    return torch.equal(plain, compressed)


def test_a_group_of_some_ranks():
    assert all(run_ranks(_subgroup, 3))


# ---- what goes wrong ----------------------------------------------------------------------------


def _failing(rank, stage, method):
    """Rank 1 fails in a stage of some step; returns what each rank's backward raised, and when."""
    chosen = hook(method)
    calls = {"encode": 0, "decode": 0}
    original = getattr(codec, stage)

    def failing(*arguments):
        calls[stage] += 1
        if rank == 1 and calls[stage] > 20:
            raise MemoryError(f"no room to {stage}")
        return original(*arguments)

    setattr(codec, stage, failing)
    begin = time.monotonic()
    try:
        train(rank, chosen)
    except RuntimeError as error:
        taken = time.monotonic() - begin
        with pytest.raises(RuntimeError, match="an earlier step has failed"):
            chosen[0].reduce(0, torch.zeros(8), [torch.zeros(8)], True)
        return str(error), taken
    return None, 0


@pytest.mark.parametrize("stage", ["encode", "decode"])
def test_an_error_on_one_rank_is_an_error_on_all(stage):
    for error, taken in run_ranks(_failing, 3, stage, "planes"):
        assert error is not None
        assert f"rank 1: MemoryError: no room to {stage}" in error
        assert taken < 60


def _last_decode_fails(rank):
    """Rank 1 fails when its peers have all they need of the step."""
    chosen = hook("planes")
    original = lmgc_dist.hook.Pipeline._decode

    def failing(pipeline, step):
        if rank == 1 and chosen[0].compression_stats().steps == 3:
            raise ValueError("at the very end")
        original(pipeline, step)

    lmgc_dist.hook.Pipeline._decode = failing
    try:
        train(rank, chosen, steps=5)
    except RuntimeError as error:
        return str(error), chosen[0].compression_stats().steps
    return None, 0


def test_a_step_fails_on_all_ranks_or_on_none():
    for error, step in run_ranks(_last_decode_fails, 3):
        assert "rank 1: ValueError: at the very end" in str(error)
        assert step == 3


def _dying(rank):
    chosen = hook("planes", timeout=timedelta(seconds=60))
    original = codec.encode

    def dying(*arguments):
        if rank == 1 and chosen[0].compression_stats().steps == 4:
            os._exit(7)
        return original(*arguments)

    codec.encode = dying
    try:
        train(rank, chosen)
    except RuntimeError as error:
        return str(error)
    return None


def test_a_dead_peer_is_the_backends_error():
    with pytest.raises(RanksError) as caught:
        run_ranks(_dying, 2)
    assert set(caught.value.failures) == {1}
    assert "closed" in caught.value.results[0] or "reset" in caught.value.results[0]


def _late(rank):
    """Rank 1 comes to no step: the others give up after the timeout."""
    state, function = hook("planes", timeout=timedelta(seconds=6))
    model = DistributedDataParallel(nn.Linear(64, 64))
    model.register_comm_hook(state, function)
    for step in range(3):
        if rank == 1 and step == 2:
            time.sleep(14)
            return "late"
        try:
            model(torch.ones(4, 64)).sum().backward()
        except RuntimeError as error:
            return str(error)
    return None


def test_a_late_peer_is_a_timeout():
    error, late = run_ranks(_late, 2)
    assert late == "late"
    assert error is not None
    assert "imed out" in error


# ---- the state ----------------------------------------------------------------------------------


def test_the_state_is_pickled_without_its_group():
    state = lmgc_dist.CompressedAllReduceState(
        method="scale", match_backend=True, min_bytes=5, timeout=timedelta(seconds=9), log_every=3
    )
    state._stats.steps = 12
    copy = pickle.loads(pickle.dumps(state))
    assert (copy.method, copy.match_backend, copy.min_bytes) == ("scale", True, 5)
    assert (copy.timeout, copy.log_every) == (timedelta(seconds=9), 3)
    assert copy.process_group is None
    assert copy.compression_stats() == state.compression_stats()


def _pickled_and_logged(rank):
    import logging

    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger("lmgc_torch.distributed")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    state, function = hook("planes", log_every=2)
    train(rank, (state, function), steps=4)
    state = pickle.loads(pickle.dumps(state))
    train(rank, (state, function), steps=4)
    state.close()
    train(rank, (state, function), steps=1)
    return state.compression_stats().steps, lines


def test_a_state_goes_on_after_pickling_and_closing():
    for steps, lines in run_ranks(_pickled_and_logged, 2):
        assert steps == 9
        assert len(lines) == 4
        assert lines[0].startswith("2 steps")
        assert "planes" in lines[-1]


@pytest.mark.parametrize(
    "options",
    [{"method": "lmgc"}, {"method": "zip"}, {"min_bytes": -1}, {"log_every": -1}],
)
def test_bad_options(options):
    with pytest.raises(ValueError, match=r"method|min_bytes|log_every"):
        lmgc_dist.CompressedAllReduceState(**options)


def test_errors_are_of_this_library():
    assert issubclass(CommunicationError, RuntimeError)


def _alone(rank):
    return torch.equal(train(rank, steps=5), train(rank, hook("lowrank"), steps=5))


def test_one_rank():
    assert run_ranks(_alone, 1) == [True]
