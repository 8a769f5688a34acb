"""Compressed communication for FSDP2, `torch.distributed.fsdp.fully_shard`.

    model = fully_shard(model)
    traffic = compress_fsdp(model)

FSDP2 gathers the weights of a module before it is used and reduce-scatters its gradients when it is
done. Both go through communicators that can be replaced, one of each in every FSDPModule. Those
here send frames. Nothing is approximated: what is gathered has the bits of what was sent, and
gradients are added in the tensors' own type, on gloo in the order in which gloo adds them.

A message is flat: for every parameter of the module that takes part, a chunk of its dimension 0,
padded so that all ranks have the same size, one after the other. The chunks are matrices again once
they are cut apart, which is what methods that predict need. Frames remember the shapes, so that
only the sender must know them; where it cannot tell, the message is coded as one flat tensor.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from lmgc_torch.api import METHODS, Method, compress
from lmgc_torch.distributed.codec import decode_frame
from lmgc_torch.distributed.exchange import exchange, transport_device
from lmgc_torch.distributed.summation import GlooOrder, Order, RankOrder
from lmgc_torch.errors import CommunicationError, CorruptFrameError
from lmgc_torch.warm_start import WarmStart

try:
    from torch.distributed.fsdp._fully_shard._fsdp_api import AllGather, ReduceScatter
except ImportError as error:
    raise ImportError(
        f"FSDP2 of torch {torch.__version__} has no communicators that can be replaced; a newer "
        "torch has"
    ) from error

__all__ = ["CompressedAllGather", "CompressedReduceScatter", "FSDPTraffic", "Traffic"]
__all__ += ["compress_fsdp"]

MIN_BYTES = 1 << 16

ReduceOp: TypeAlias = dist.ReduceOp | dist.ReduceOp.RedOpType
Shapes: TypeAlias = Callable[[], Sequence[Sequence[torch.Size]]]


@dataclass
class Traffic:
    """What this rank has sent to others.

    Attributes:
        messages: How many collectives were compressed.
        raw_bytes: What they would have sent without compression.
        sent_bytes: What they sent.
        small: How many collectives were too small and went the usual way; their bytes are not
            counted.
    """

    messages: int = 0
    raw_bytes: int = 0
    sent_bytes: int = 0
    small: int = 0

    @property
    def ratio(self) -> float:
        """Sent / raw bytes in %."""
        return 100 * self.sent_bytes / self.raw_bytes if self.raw_bytes else 100.0


@dataclass
class FSDPTraffic:
    """What the communicators of `compress_fsdp` have sent so far, of all modules together."""

    gradients: Traffic = field(default_factory=Traffic)
    weights: Traffic = field(default_factory=Traffic)


def compress_fsdp(
    module: nn.Module,
    *,
    gradients: Method | None = "planes",
    weights: Method | None = "planes",
    min_bytes: int = MIN_BYTES,
) -> FSDPTraffic:
    """Compresses the communication of a module and of all within it that FSDP2 shards.

    To be called on all ranks, with the same arguments, after `fully_shard`. The all-reduce between
    the replicas of hybrid sharding stays as it is.

    Args:
        module: A module to which `fully_shard` was applied, or that holds such modules.
        gradients: The method for reduce-scattered gradients, as for `lmgc_torch.compress`:
            "lowrank" and "auto" make them much smaller, "planes" is fast. None: not compressed.
        weights: The method for gathered weights; nothing predicts weights well. None: not
            compressed.
        min_bytes: Messages in which a rank has fewer bytes for another are not compressed.

    Returns:
        What this rank will have sent; it is counted while training.

    Raises:
        ValueError: Nothing in `module` is sharded by FSDP2, or there is no such method.
    """
    sharded = [part for part in module.modules() if isinstance(part, FSDPModule)]
    if not sharded:
        raise ValueError("the module holds no FSDPModule; call fully_shard before compress_fsdp")
    traffic = FSDPTraffic()
    for part in sharded:
        shapes = _shapes_of(part)
        if gradients is not None:
            part.set_custom_reduce_scatter(
                CompressedReduceScatter(gradients, min_bytes, traffic.gradients, shapes)
            )
        if weights is not None:
            part.set_custom_all_gather(
                CompressedAllGather(weights, min_bytes, traffic.weights, shapes)
            )
    return traffic


class _Communicator:
    """What both directions share: buffers, methods, and frames to and from the other ranks."""

    def __init__(
        self,
        method: Method = "planes",
        min_bytes: int = MIN_BYTES,
        traffic: Traffic | None = None,
        shapes: Shapes = tuple,
    ) -> None:
        """Makes a communicator for one FSDPModule.

        Args:
            method: How messages are compressed, as for `lmgc_torch.compress`.
            min_bytes: Messages with fewer bytes for each rank are not compressed.
            traffic: Where to count; None counts in a new one.
            shapes: Tells of what shapes one rank's part of a message may be the concatenation; a
                guess that does not add up to the message's size is ignored.

        Raises:
            ValueError: There is no such method.
        """
        if method not in METHODS:
            legal = ", ".join(map(repr, METHODS))
            raise ValueError(f"method is {method!r}; it must be one of {legal}")
        self.method = method
        self.min_bytes = min_bytes
        self.traffic = Traffic() if traffic is None else traffic
        self._shapes = shapes
        self._warm_starts: defaultdict[int | None, WarmStart] = defaultdict(WarmStart)

    def allocate(
        self, size: Sequence[int | torch.SymInt], *, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """Returns a new buffer of `size` elements, not initialised."""
        return torch.empty(*size, dtype=dtype, device=device)

    def _is_small(self, nbytes: int) -> bool:
        """Whether a message is not worth the work; it has the same size on all ranks."""
        if nbytes >= self.min_bytes:
            return False
        self.traffic.small += 1
        return True

    def _compress(self, flat: Tensor, rank: int | None = None) -> Tensor:
        """Returns the frame of one rank's part; the parts of a rank resemble those before."""
        parts = [flat]
        for shapes in self._shapes():
            sizes = [shape.numel() for shape in shapes]
            if sum(sizes) == flat.numel():
                chunks = flat.split(sizes)
                parts = [part.view(shape) for part, shape in zip(chunks, shapes, strict=True)]
                break
        return compress(parts, method=self.method, warm_start=self._warm_starts[rank])

    def _exchange(
        self, frames: Callable[[], Mapping[int, Tensor]], part: Tensor, group: dist.ProcessGroup
    ) -> dict[int, Tensor]:
        """Sends what `frames` returns and returns what all others sent, each in place of `part`."""
        peers = [peer for peer in range(dist.get_world_size(group)) if peer != dist.get_rank(group)]
        outgoing: Mapping[int, Tensor | None] = dict.fromkeys(peers)
        problem: Exception | None = None
        try:
            outgoing = frames()
        except Exception as error:  # the others wait for this rank: tell them
            problem = error
        try:
            received = exchange(
                outgoing,
                peers,
                group,
                device=transport_device(group, part.device),
                error=None if problem is None else f"{type(problem).__name__}: {problem}",
                most_bytes=2 * part.nbytes + (1 << 20),
            )
        except CommunicationError as error:
            if problem is not None:
                raise error from problem
            raise
        self.traffic.messages += 1
        self.traffic.raw_bytes += len(peers) * part.nbytes
        self.traffic.sent_bytes += sum(
            frame.nbytes for frame in outgoing.values() if frame is not None
        )
        return received


class CompressedReduceScatter(_Communicator, ReduceScatter):
    """A reduce-scatter for `FSDPModule.set_custom_reduce_scatter` that sends frames.

    Sums are taken in the tensors' type, and an average is the sum divided by the number of ranks.
    What floats add up to depends on their order. With gloo it is gloo's own, so that the bits are
    those of its reduce-scatter; with other backends it is that of the ranks, (g0 + g1) + g2, which
    two ranks cannot tell from any other.
    """

    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: dist.ProcessGroup,
        op: ReduceOp,
        async_op: bool = False,
    ) -> dist.Work | None:
        """Reduces one part of `input_tensor` on each rank.

        Args:
            output_tensor: Shape [n], receives this rank's part.
            input_tensor: Shape [ranks * n], of the same type; the part of rank r begins at r * n.
            group: The ranks.
            op: SUM, AVG or PREMUL_SUM, whose factor is multiplied in the tensors' type.
            async_op: Not heeded, except where the message is small: the work is done on return.

        Returns:
            None, or what torch returns for a small message.

        Raises:
            CommunicationError: A rank could not compress, or is gone.
            CorruptFrameError: What arrived is damaged.
            ValueError: Another `op`.
        """
        if op == dist.ReduceOp.PREMUL_SUM:
            # gloo has none, and NCCL's multiplies first too.
            input_tensor, op = input_tensor * _factor(op), dist.ReduceOp.SUM
        if op not in (dist.ReduceOp.SUM, dist.ReduceOp.AVG):
            raise ValueError(f"compressed gradients are summed or averaged, not reduced by {op}")
        if self._is_small(output_tensor.nbytes):
            work: dist.Work | None = dist.reduce_scatter_tensor(
                output_tensor, input_tensor, op=op, group=group, async_op=async_op
            )
            return work

        here, ranks = dist.get_rank(group), dist.get_world_size(group)
        parts = input_tensor.view(ranks, -1)
        received = self._exchange(
            lambda: {
                rank: self._compress(parts[rank], rank) for rank in range(ranks) if rank != here
            },
            output_tensor,
            group,
        )
        terms = {rank: _decoded(received.pop(rank), output_tensor) for rank in sorted(received)}
        terms[here] = parts[here]
        order: Order = RankOrder(ranks)
        if transport_device(group, output_tensor.device).type == "cpu":
            # It reduces the whole message on all ranks.
            order = GlooOrder(ranks, input_tensor.numel(), input_tensor.itemsize)
        first = here * output_tensor.numel()
        for begin, end, (start, *others) in order.ranges(first, first + output_tensor.numel()):
            place = slice(begin - first, end - first)
            output_tensor[place].copy_(terms[start][place])
            for rank in others:
                output_tensor[place].add_(terms[rank][place])
        if op == dist.ReduceOp.AVG:
            output_tensor.div_(ranks)
        return None


class CompressedAllGather(_Communicator, AllGather):
    """An all-gather for `FSDPModule.set_custom_all_gather` that sends frames.

    Each rank compresses its part once and sends the frame to all others.
    """

    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: dist.ProcessGroup,
        async_op: bool = False,
    ) -> dist.Work | None:
        """Collects the parts of all ranks on each.

        Args:
            output_tensor: Shape [ranks * n], receives the parts in the order of the ranks.
            input_tensor: Shape [n], this rank's part; may lie where it belongs in `output_tensor`.
            group: The ranks.
            async_op: Not heeded, except where the message is small: the work is done on return.

        Returns:
            None, or what torch returns for a small message.

        Raises:
            CommunicationError: A rank could not compress, or is gone.
            CorruptFrameError: What arrived is damaged.
        """
        if self._is_small(input_tensor.nbytes):
            work: dist.Work | None = dist.all_gather_into_tensor(
                output_tensor, input_tensor, group=group, async_op=async_op
            )
            return work

        here, ranks = dist.get_rank(group), dist.get_world_size(group)

        def frames() -> dict[int, Tensor]:
            frame = self._compress(input_tensor)
            return {rank: frame for rank in range(ranks) if rank != here}

        received = self._exchange(frames, input_tensor, group)
        parts = output_tensor.view(ranks, -1)
        if parts[here].data_ptr() != input_tensor.data_ptr():
            parts[here].copy_(input_tensor)
        for rank in sorted(received):
            parts[rank].copy_(_decoded(received.pop(rank), input_tensor))
        return None


def _decoded(frame: Tensor, like: Tensor) -> Tensor:
    """Returns the tensors in a frame as a flat one of the size and type of `like`."""
    tensors = decode_frame(frame.to(like.device), like.nbytes)
    if any(tensor.dtype != like.dtype for tensor in tensors):
        raise CorruptFrameError(f"a frame of {like.dtype} tensors was expected from another rank")
    if sum(tensor.numel() for tensor in tensors) != like.numel():
        raise CorruptFrameError(f"{like.numel()} elements were expected from another rank")
    return torch.cat([tensor.view(-1) for tensor in tensors])


def _factor(op: ReduceOp) -> Any:
    """Returns the factor of a PREMUL_SUM, a number or tensor; only pickling gives it away."""
    return op.__getstate__()[1]  # type: ignore[union-attr]


def _shapes_of(module: FSDPModule) -> Shapes:
    """Returns what tells the shapes of a module's chunks on one rank, in the messages' order.

    FSDP2 keeps them where no interface leads. It sends the gradients of all parameters or, where
    some are frozen, of the others; if some had no gradient in a step there are fewer, and no guess
    will fit.
    """
    group = module._get_fsdp_state()._fsdp_param_group

    def shapes() -> Sequence[Sequence[torch.Size]]:
        if group is None:
            return ()
        every = [(p.padded_sharded_param_size, p.sharded_param) for p in group.fsdp_params]
        return (
            [shape for shape, _ in every],
            [shape for shape, parameter in every if parameter.requires_grad],
        )

    return shapes
