"""Buffers between ranks: every byte arrives, and the failure of one rank is an error on all."""

from __future__ import annotations

import os
import threading

import pytest
import torch
import torch.distributed as dist
from ranks import RanksError, run_ranks
from torch import Tensor

from lmgc_torch.distributed.exchange import exchange, transport_device
from lmgc_torch.errors import CommunicationError

WORLD = 4
CPU = torch.device("cpu")


def message(source: int, target: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * source + target)
    return torch.randint(256, (size,), dtype=torch.uint8, generator=generator)


def size_between(source: int, target: int) -> int:
    return 0 if (source, target) == (0, 1) else (source + 1) ** 5 * (target + 1)


def everyone_but(rank: int, world: int = WORLD) -> list[int]:
    return [peer for peer in range(world) if peer != rank]


def _all_to_all(rank: int) -> None:
    outgoing: dict[int, Tensor | None] = {
        peer: message(rank, peer, size_between(rank, peer)) for peer in everyone_but(rank)
    }
    if rank == 0:
        outgoing[1] = None
    received = exchange(outgoing, everyone_but(rank), device=CPU)
    assert list(received) == everyone_but(rank)
    for peer, data in received.items():
        assert data.dtype == torch.uint8
        assert torch.equal(data, message(peer, rank, size_between(peer, rank)))


def _one_tensor_to_all(rank: int) -> None:
    # Strided, so that it must be copied, and sent to several ranks.
    mine = message(rank, 0, 2 * 300_000)[::2]
    received = exchange(dict.fromkeys(everyone_but(rank), mine), everyone_but(rank), device="cpu")
    assert all(torch.equal(received[p], message(p, 0, 600_000)[::2]) for p in received)


def _one_way(rank: int) -> None:
    """Rank 0 sends to 1, and 2 to nobody; nobody else takes part."""
    if rank == 0:
        assert exchange({1: message(0, 1, 10)}, [], device=CPU) == {}
    elif rank == 1:
        assert torch.equal(exchange({}, [0], device=CPU)[0], message(0, 1, 10))
    else:
        assert exchange({}, [], device=CPU) == {}


def _in_a_part(rank: int) -> None:
    """Ranks are those of the group, and errors name the global ones."""
    group = dist.new_group([1, 3])
    if rank in (1, 3):
        here = dist.get_rank(group)
        received = exchange({1 - here: message(here, 9, 77)}, [1 - here], group, device=CPU)
        assert torch.equal(received[1 - here], message(1 - here, 9, 77))
        error = "ValueError: no" if rank == 3 else None
        with pytest.raises(CommunicationError, match=r"^rank 3: ValueError: no$"):
            exchange({1 - here: message(0, 0, 5)}, [1 - here], group, device=CPU, error=error)


def _errors_reach_all(rank: int) -> None:
    peers = everyone_but(rank)
    error = f"KeyError: of {rank}, ü" if rank in (1, 2) else None
    with pytest.raises(CommunicationError) as caught:
        exchange(dict.fromkeys(peers, message(rank, 0, 2_000_000)), peers, device=CPU, error=error)
    assert str(caught.value) == "rank 1: KeyError: of 1, ü; rank 2: KeyError: of 2, ü"

    # What cannot be sent is an error of the sender.
    wrong = torch.zeros(3) if rank == 2 else message(rank, 0, 3)
    with pytest.raises(CommunicationError, match=r"^rank 2: TypeError: .* not torch.float32 of"):
        exchange(dict.fromkeys(peers, wrong), peers, device=CPU)
    large = message(rank, 0, 101 if rank == 0 else 100)
    with pytest.raises(CommunicationError, match=r"^rank 0: ValueError: 101 bytes for rank \d are"):
        exchange(dict.fromkeys(peers, large), peers, device=CPU, most_bytes=100)

    # The group works on.
    _all_to_all(rank)

    # Very long and empty texts.
    with pytest.raises(CommunicationError, match=r"^rank 0: x{1000}"):
        exchange(dict.fromkeys(peers), peers, device=CPU, error="x" * 10**6 if rank == 0 else None)
    with pytest.raises(CommunicationError, match=r"^rank 0: "):
        exchange(dict.fromkeys(peers), peers, device=CPU, error="" if rank == 0 else None)


def _claims_are_checked(rank: int) -> None:
    """Rank 1 follows no rules: the one that it lies to allocates nothing."""
    if rank == 0:
        with pytest.raises(CommunicationError, match=r"^rank 1: announces 4611686018427387904 by"):
            exchange({1: None}, [1], device=CPU)
        with pytest.raises(CommunicationError, match=r"^rank 1: announces 9223372036854775808 by"):
            exchange({1: None}, [1], device=CPU)
    elif rank == 1:
        for claim in (1 << 62, -(1 << 63)):
            dist.send(torch.tensor([claim]), 0)
            dist.recv(torch.empty(1, dtype=torch.int64), 0)


def _from_threads(rank: int) -> None:
    """Two groups, each used by a thread of its own, at the same time."""
    groups = [dist.new_group(list(range(WORLD))) for _ in range(2)]
    failures: list[BaseException] = []

    def work(index: int) -> None:
        try:
            for turn in range(20):
                size = 1 + 1000 * turn
                outgoing = {p: message(rank + 10 * index, p, size) for p in everyone_but(rank)}
                received = exchange(
                    outgoing, everyone_but(rank), groups[index], device=CPU, tag=turn
                )
                for peer, data in received.items():
                    assert torch.equal(data, message(peer + 10 * index, rank, size))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def _itself(rank: int) -> None:
    with pytest.raises(ValueError, match=f"rank {rank} of the group cannot exchange with itself"):
        exchange({rank: None}, [], device=CPU)
    with pytest.raises(ValueError, match="with itself"):
        exchange({}, [rank], device=CPU)


def _device(rank: int) -> None:
    assert transport_device(None, CPU) == CPU
    assert transport_device(None, torch.device("cuda", 0)) == CPU
    assert transport_device(dist.group.WORLD, torch.device("meta")) == CPU


def _all_checks(rank: int) -> list[str]:
    """One group for many checks: starting the processes takes longer than all of them."""
    checks = [_all_to_all, _one_tensor_to_all, _one_way, _in_a_part, _errors_reach_all]
    checks += [_claims_are_checked, _from_threads, _itself, _device]
    for check in checks:
        check(rank)
        dist.barrier()
    return [check.__name__ for check in checks]


def test_exchange() -> None:
    done = run_ranks(_all_checks, WORLD)
    assert len(done[0]) == 9
    assert done == [done[0]] * WORLD


def _one_dies(rank: int) -> str:
    exchange({1 - rank: message(0, 0, 1)}, [1 - rank], device=CPU)
    if rank == 1:
        os._exit(3)
    with pytest.raises(CommunicationError) as caught:
        exchange({1: message(0, 0, 1 << 20)}, [1], device=CPU)
    return str(caught.value)


def test_a_rank_that_dies_is_an_error_on_its_peers() -> None:
    with pytest.raises(RanksError) as caught:
        run_ranks(_one_dies, 2)
    assert caught.value.failures == {1: "ended without a result"}
    assert caught.value.results[0].startswith("a peer cannot be reached (of ranks 1): ")


def _one_raises(rank: int) -> int:
    dist.barrier()  # both are there, however slow the machine
    if rank == 1:
        raise ArithmeticError("as it should")
    return 7


def test_the_helper_reports_what_ranks_raise() -> None:
    with pytest.raises(RanksError, match=r"rank 1: (?s:.*)ArithmeticError: as it should") as caught:
        run_ranks(_one_raises, 2)
    assert caught.value.results == {0: 7}
