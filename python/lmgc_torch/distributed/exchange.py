"""Buffers of different sizes between the ranks of a process group.

Compressed data is of another size on every rank and at every step, and the collectives for such
data are slow or missing where this library is needed most, on gloo over a slow link. Here each rank
tells its peers the sizes, then every rank posts all its receives before its sends and waits for all
of them: all links are busy at once, in both directions.

A rank that cannot do its part sends the text of its error in place of the data, so that its peers
raise too instead of waiting for it.
"""

from collections.abc import Callable, Collection, Mapping
from typing import TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

from lmgc_torch.errors import CommunicationError

__all__ = ["exchange", "transport_device"]

MOST_BYTES = 1 << 40
MOST_ERROR_BYTES = 1 << 14

_Buffers: TypeAlias = Mapping[int, Tensor]


def exchange(
    outgoing: Mapping[int, Tensor | None],
    incoming: Collection[int],
    group: dist.ProcessGroup | None = None,
    *,
    device: torch.device | str,
    tag: int = 0,
    error: str | None = None,
    most_bytes: int = MOST_BYTES,
) -> dict[int, Tensor]:
    """Sends bytes to some ranks and receives bytes from some, of any size each.

    Who is in `outgoing` must have this rank in its `incoming`, and the other way round. A group may
    be used by any thread, but by one at a time. On NCCL the first call in a group must be made by
    all its ranks.

    Args:
        outgoing: By rank in the group, what is sent there: uint8 of shape [bytes], the same tensor
            to several ranks if you like; None or an empty one sends nothing. Not this rank. The
            tensors must not change before the function returns.
        incoming: The ranks in the group that send to this one.
        group: The process group; None is the default one.
        device: Where the group's backend wants its buffers (`transport_device` tells) and where the
            returned tensors lie. What is sent is copied there if it lies elsewhere.
        tag: Tells exchanges apart that are under way between the same ranks at the same time, on
            backends that have tags.
        error: What went wrong on this rank, as "ValueError: no gradient": it is sent to all ranks
            of `outgoing`, in place of the data.
        most_bytes: The most that one rank may send to another. More is an error of the sender; a
            receiver allocates nothing for a peer that claims more.

    Returns:
        By rank in the group, in the order of `incoming`, what was received: uint8 of shape [bytes]
        on `device`.

    Raises:
        CommunicationError: A rank of `incoming` or this one has sent an error, or a peer is gone.
            All errors are in the message, with their global ranks. Errors that were sent are raised
            after this rank has done its own part, so that no peer is left waiting.
        ValueError: This rank is among the peers.
    """
    device = torch.device(device)
    here = dist.get_rank(group)
    if here in outgoing or here in incoming:
        raise ValueError(f"rank {here} of the group cannot exchange with itself")

    sending: dict[int, Tensor] = {}
    if error is None:
        try:
            sending = {
                peer: _checked(data, peer, most_bytes).to(device).contiguous()
                for peer, data in outgoing.items()
                if data is not None and data.numel() > 0
            }
        except (TypeError, ValueError) as problem:
            error = f"{type(problem).__name__}: {problem}"
    sign = 1
    if error is not None:
        text = error.encode()[:MOST_ERROR_BYTES] or b"unknown error"
        buffer = torch.frombuffer(bytearray(text), dtype=torch.uint8).to(device)
        sending, sign = dict.fromkeys(outgoing, buffer), -1

    # A negative size announces the text of an error.
    sizes = {
        peer: torch.full((1,), sign * sending[peer].numel() if peer in sending else 0)
        for peer in outgoing
    }
    claims = {peer: torch.zeros(1, dtype=torch.int64, device=device) for peer in incoming}
    _transfer({peer: size.to(device) for peer, size in sizes.items()}, claims, group, 2 * tag)

    problems: dict[int, str] = {} if error is None else {here: error}
    received: dict[int, Tensor] = {}
    failed: set[int] = set()
    for peer, claim in claims.items():
        size = int(claim)
        most = most_bytes if size >= 0 else MOST_ERROR_BYTES
        if abs(size) > most:
            problems[peer] = f"announces {abs(size)} bytes, more than the {most} that are allowed"
            continue
        if size < 0:
            failed.add(peer)
        received[peer] = torch.empty(abs(size), dtype=torch.uint8, device=device)
    arriving = {peer: buffer for peer, buffer in received.items() if buffer.numel() > 0}
    _transfer(sending, arriving, group, 2 * tag + 1)

    for peer in failed:
        problems[peer] = bytes(received[peer].tolist()).decode(errors="replace")
    if problems:
        raise CommunicationError(
            "; ".join(f"rank {_global(rank, group)}: {problems[rank]}" for rank in sorted(problems))
        )
    return received


def transport_device(group: dist.ProcessGroup | None, device: torch.device) -> torch.device:
    """Returns where buffers must lie that `group` shall send for tensors on `device`.

    Args:
        group: The process group; None is the default one.
        device: Where the data is that will be compressed.

    Returns:
        `device`, or the CPU if the group's backend for it is gloo or does not exist.
    """
    # "cpu:gloo,cuda:nccl"
    pairs = (pair.partition(":") for pair in dist.get_backend_config(group).split(","))
    backends = {kind: name for kind, _, name in pairs}
    if backends.get(device.type, "gloo") == "gloo":
        return torch.device("cpu")
    return device


def _checked(data: Tensor, peer: int, most_bytes: int) -> Tensor:
    if data.dtype != torch.uint8 or data.dim() != 1:
        raise TypeError(
            f"what is sent to rank {peer} must be uint8 of shape [bytes], not {data.dtype} of "
            f"shape {list(data.shape)}"
        )
    if data.numel() > most_bytes:
        raise ValueError(
            f"{data.numel()} bytes for rank {peer} are more than the {most_bytes} that are allowed"
        )
    return data


def _transfer(
    sending: _Buffers, arriving: _Buffers, group: dist.ProcessGroup | None, tag: int
) -> None:
    """Fills `arriving` with what the peers have in `sending`; the sizes must be the same."""
    operations = [_operation(dist.irecv, arriving, peer, group, tag) for peer in arriving]
    operations += [_operation(dist.isend, sending, peer, group, tag) for peer in sending]
    if not operations:
        return
    # The batch is one group of calls on NCCL, which must not meet them one by one; on gloo they
    # are posted in this order.
    try:
        for work in dist.batch_isend_irecv(operations):
            work.wait()
    except RuntimeError as problem:  # gloo: connection closed, timed out
        peers = ", ".join(str(_global(peer, group)) for peer in sorted({*sending, *arriving}))
        raise CommunicationError(f"a peer cannot be reached (of ranks {peers}): {problem}") from (
            problem
        )


def _operation(
    call: Callable, buffers: _Buffers, peer: int, group: dist.ProcessGroup | None, tag: int
) -> dist.P2POp:
    return dist.P2POp(call, buffers[peer], group=group, tag=tag, group_peer=peer)


def _global(rank: int, group: dist.ProcessGroup | None) -> int:
    return dist.get_global_rank(group or dist.distributed_c10d._get_default_group(), rank)
