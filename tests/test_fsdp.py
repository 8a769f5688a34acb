"""FSDP2 with compressed communication trains to the same bits as without."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from helpers import bits, identical
from ranks import run_ranks
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.fsdp._fully_shard._fsdp_api import ReduceScatter

from lmgc_torch.distributed import fsdp
from lmgc_torch.distributed.fsdp import (
    CompressedAllGather,
    CompressedReduceScatter,
    FSDPTraffic,
    Traffic,
    compress_fsdp,
)
from lmgc_torch.distributed.summation import RankOrder
from lmgc_torch.errors import CommunicationError, CorruptFrameError

BATCH = 8
STEPS = 2


class Alternating(nn.Module):
    """Uses one layer after the other, so that the other has no gradient."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(width, width) for _ in range(2)])

    def forward(self, x: Tensor, step: int) -> Tensor:
        return self.layers[step % 2](x)


class Network(nn.Module):
    """Odd sizes, so that chunks are padded; a frozen layer; a layer that is used every other step;
    a module without parameters of its own around them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(30, 71), nn.Tanh(), nn.Linear(71, 53))
        self.frozen = nn.Sequential(nn.Linear(53, 53), nn.Linear(53, 53))
        self.frozen[0].requires_grad_(False)
        self.sometimes = Alternating(53)
        self.images = nn.Sequential(nn.Conv2d(1, 9, 3, padding=1), nn.Flatten(), nn.Linear(477, 5))

    def forward(self, x: Tensor, step: int) -> Tensor:
        hidden = self.frozen(torch.tanh(self.first(x)))
        hidden = hidden + self.sometimes(hidden, step)
        return self.images(hidden.unflatten(1, (1, 1, 53)))


def sharded(model: nn.Module, **options: Any) -> nn.Module:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    model = copy.deepcopy(model)
    for part in model.children():
        fully_shard(part, mesh=mesh, **options)
    fully_shard(model, mesh=mesh, **options)
    return model


def train(model: nn.Module, rank: int) -> list[Tensor]:
    """Returns the losses of all steps, then gradients and weights of this rank's shards."""
    generator = torch.Generator().manual_seed(7 + rank)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    values = []
    for step in range(STEPS):
        x = torch.randn(BATCH, 30, generator=generator)
        target = torch.randint(5, (BATCH,), generator=generator)
        loss = F.cross_entropy(model(x, step).float(), target)
        loss.backward()
        values.append(loss.detach())
        values += [p.grad.to_local().clone() for p in model.parameters() if p.grad is not None]
        optimizer.step()
        optimizer.zero_grad()
    return values + [p.to_local().detach() for p in model.parameters()]


def same(one: Sequence[Tensor], two: Sequence[Tensor]) -> bool:
    return len(one) == len(two) and all(map(identical, one, two))


class Multiplying(ReduceScatter):
    """What torch does on gloo, and the PREMUL_SUM that it lacks there."""

    def allocate(self, size: Any, *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: Any, op: Any, async_op: Any = 0
    ) -> None:
        if op == dist.ReduceOp.PREMUL_SUM:
            input_tensor, op = input_tensor * op.__getstate__()[1], dist.ReduceOp.SUM
        dist.reduce_scatter_tensor(output_tensor, input_tensor, op, group)


# ---- two ranks -----------------------------------------------------------------------------------


def _like_plain(rank: int) -> dict[str, tuple[float, float]]:
    torch.manual_seed(0)
    model = Network()
    ratios = {}
    policies = {
        "float32": MixedPrecisionPolicy(),
        "bfloat16": MixedPrecisionPolicy(torch.bfloat16, torch.bfloat16),
        "bfloat16, reduced in float32": MixedPrecisionPolicy(torch.bfloat16, torch.float32),
        "float16": MixedPrecisionPolicy(torch.float16, torch.float16),
    }
    for name, policy in policies.items():
        plain = train(sharded(model, mp_policy=policy), rank)
        pairs = [("lowrank", "planes"), ("planes", "scale"), ("auto", None)]
        for gradients, weights in pairs[: 3 if name == "float32" else 1]:
            compressed = sharded(model, mp_policy=policy)
            traffic = compress_fsdp(compressed, gradients=gradients, weights=weights, min_bytes=500)
            assert same(train(compressed, rank), plain), (name, gradients, weights)
            _check_counts(traffic, gathers=weights is not None)
            ratios[f"{name}, {gradients}"] = (traffic.gradients.ratio, traffic.weights.ratio)
    return ratios


def _check_counts(traffic: FSDPTraffic, gathers: bool) -> None:
    assert traffic.gradients.messages > 0
    assert traffic.gradients.sent_bytes < traffic.gradients.raw_bytes
    assert (traffic.weights.messages > 0) == gathers
    assert not gathers or traffic.weights.sent_bytes < traffic.weights.raw_bytes


def _other_ways_to_train(rank: int) -> None:
    """Sharded along dimension 1, weights kept after forward, gradients summed over two backwards,
    unsharded ahead of time."""
    from torch.distributed.tensor import Shard

    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(32, 64), nn.Linear(64, 32), nn.Linear(32, 5))
    batches = [torch.randn(2, BATCH, 32) for _ in range(2)]

    def run(compressed: bool, **options: Any) -> list[Tensor]:
        network = copy.deepcopy(model)
        for part in network:
            fully_shard(part, **options)
        fully_shard(network, **options)
        traffic = compress_fsdp(network, min_bytes=64) if compressed else None
        values = []
        for batch in batches:
            network.set_requires_gradient_sync(False)
            network(batch[rank]).square().mean().backward()
            network.set_requires_gradient_sync(True)
            handle = network[0].unshard(async_op=True)
            handle.wait()
            network(2 * batch[rank]).square().mean().backward()
            values += [p.grad.to_local().clone() for p in network.parameters()]
        assert traffic is None or traffic.weights.messages > 0
        return values

    def second_dimension(parameter: nn.Parameter) -> Shard:
        return Shard(min(1, parameter.dim() - 1)) if parameter.shape[-1] % 2 == 0 else Shard(0)

    for options in ({}, {"reshard_after_forward": False}, {"shard_placement_fn": second_dimension}):
        assert same(run(True, **options), run(False, **options)), options


def _direct_calls(rank: int) -> None:
    """The communicators by themselves: bits, operations, small messages, what is refused."""
    group = dist.group.WORLD
    ranks = dist.get_world_size()
    generator = torch.Generator().manual_seed(rank)
    mine = 1e-3 * torch.randn(ranks * 5000, generator=generator)
    special = [float("inf"), -0.0, 1e-45, -1e-40, float("-inf"), 3e38, float("nan")]
    mine[:: ranks * 500][: len(special)] = torch.tensor(special)
    out, expected = torch.empty(5000), torch.empty(5000)

    traffic = Traffic()
    reduce = CompressedReduceScatter("planes", 1000, traffic)
    for op in (dist.ReduceOp.SUM, dist.ReduceOp.AVG, dist._make_nccl_premul_sum(0.3)):
        before = mine.clone()
        assert reduce(out, mine, group, op) is None
        assert torch.equal(bits(mine), bits(before))
        Multiplying()(expected, mine, group, op)
        assert torch.equal(bits(out), bits(expected)), op
    assert traffic.messages == 3
    assert traffic.raw_bytes == 3 * (ranks - 1) * 20000
    with pytest.raises(ValueError, match=r"are summed or averaged, not reduced by .*MAX"):
        reduce(out, mine, group, dist.ReduceOp.MAX)
    little = torch.arange(ranks * 10.0) + rank
    reduce(out[:10], little, group, dist.ReduceOp.SUM)
    assert torch.equal(
        out[:10], ranks * little[10 * rank :][:10] - ranks * rank + sum(range(ranks))
    )
    assert (traffic.messages, traffic.small) == (3, 1)

    # The input may be a part of the output, and need not.
    for dtype in (torch.float32, torch.bfloat16, torch.uint8):
        whole = mine.to(dtype) if dtype.is_floating_point else mine.view(torch.uint8)
        gathered = torch.empty(ranks * whole.numel(), dtype=dtype)
        wanted = [torch.empty_like(whole) for _ in range(ranks)]
        dist.all_gather(wanted, whole)
        gather = CompressedAllGather("planes", 1000)
        assert gather(gathered, whole, group) is None
        assert torch.equal(bits(gathered), bits(torch.cat(wanted)))
        gathered.zero_()
        slot = gathered.view(ranks, -1)[rank]
        slot.copy_(whole)
        gather(gathered, slot, group, async_op=True)
        assert torch.equal(bits(gathered), bits(torch.cat(wanted)))
        assert gather.traffic.messages == 2
    work = gather(gathered[: 8 * ranks], torch.full((8,), rank, dtype=torch.uint8), group, True)
    assert isinstance(work, dist.Work)
    work.wait()
    assert gathered[: 8 * ranks].tolist() == [r for r in range(ranks) for _ in range(8)]


def _a_rank_that_cannot_compress(rank: int) -> None:
    torch.manual_seed(0)
    model = sharded(Network())
    compress_fsdp(model, min_bytes=500)
    if rank == 1:

        def fail(*_: Any) -> Tensor:
            raise ArithmeticError("no more")

        model.first._get_fsdp_state()._fsdp_param_group._reduce_scatter_comm._compress = fail
    loss = model(torch.randn(BATCH, 30), 0).sum()
    with pytest.raises(CommunicationError, match=r"^rank 1: ArithmeticError: no more") as caught:
        loss.backward()
    assert isinstance(caught.value.__cause__, ArithmeticError) == (rank == 1)


def _damage(rank: int) -> None:
    """What a rank sends is not what the other expects."""
    part = torch.randn(1000)
    for wrong in (part.half(), part[:999], part.double(), torch.randn(1001)):
        frame = CompressedAllGather("planes", 0)._compress(wrong)
        gather = CompressedAllGather("planes", 0)
        gather._compress = lambda *_, frame=frame: frame  # type: ignore[method-assign]
        with pytest.raises(CorruptFrameError, match="expected"):
            gather(torch.empty(2000), part, dist.group.WORLD)


def _two_ranks(rank: int) -> dict[str, tuple[float, float]]:
    ratios = _like_plain(rank)
    _other_ways_to_train(rank)
    _direct_calls(rank)
    _a_rank_that_cannot_compress(rank)
    _damage(rank)
    return ratios


def test_two_ranks() -> None:
    ratios, _ = run_ranks(_two_ranks, 2)
    # The layer's shapes were found: prediction would not help flat data.
    assert ratios["float32, lowrank"][0] < ratios["float32, planes"][0] - 10


# ---- more ranks: the order of sums ---------------------------------------------------------------


def _order_of_ranks(rank: int) -> None:
    """Backends whose order is not known."""
    mine = torch.randn(4 * 1000, generator=torch.Generator().manual_seed(rank))
    everything = [torch.empty_like(mine) for _ in range(4)]
    dist.all_gather(everything, mine)
    zero, one, two, three = (whole.chunk(4)[rank] for whole in everything)
    out = torch.empty(1000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fsdp, "GlooOrder", lambda ranks, *_: RankOrder(ranks))
        CompressedReduceScatter("planes", 0)(out, mine, dist.group.WORLD, dist.ReduceOp.AVG)
    assert torch.equal(out, (((zero + one) + two) + three) / 4)


def _hybrid(rank: int) -> None:
    """Shards in pairs of ranks, which are groups of their own, and replicas of them."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(30, 40), nn.Linear(40, 7))
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicas", "shards"))
    values = []
    for compressed in (False, True):
        network = fully_shard(copy.deepcopy(model), mesh=mesh)
        if compressed:
            traffic = compress_fsdp(network, min_bytes=0)
        x = torch.randn(BATCH, 30, generator=torch.Generator().manual_seed(rank))
        network(x).square().mean().backward()
        values.append([p.grad.to_local() for p in network.parameters()])
    assert same(*values)
    assert (traffic.gradients.messages, traffic.weights.messages) == (1, 1)


def _four_ranks(rank: int) -> None:
    torch.manual_seed(0)
    model = Network()
    for factor in (None, 5.0):
        values = []
        for compressed in (False, True):
            network = sharded(model)
            if factor is not None:
                for part in network.modules():
                    if isinstance(part, FSDPModule):
                        part.set_gradient_divide_factor(factor)
                        part.set_custom_reduce_scatter(Multiplying())
            if compressed:
                compress_fsdp(network, gradients="lowrank", min_bytes=0)
            values.append(train(network, rank))
        assert same(*values), factor
    _hybrid(rank)
    _direct_calls(rank)
    _order_of_ranks(rank)


def test_more_ranks() -> None:
    run_ranks(_four_ranks, 4)


# ---- arguments -----------------------------------------------------------------------------------


def test_arguments() -> None:
    with pytest.raises(ValueError, match="holds no FSDPModule; call fully_shard before"):
        compress_fsdp(nn.Linear(3, 3))
    with pytest.raises(ValueError, match="method is 'zip'; it must be one of 'auto', 'raw'"):
        CompressedAllGather("zip")  # type: ignore[arg-type]
    assert Traffic().ratio == 100
