"""Runs a function as the ranks of a gloo group, each in its own process."""

from __future__ import annotations

import contextlib
import os
import pickle
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
import torch.distributed as dist
from processes import CONTEXT, TIMEOUT, answer

GRACE = 15.0  # for the others, when one rank has failed


class RanksError(AssertionError):
    """Some ranks raised, died or hung; `results` has what the others returned."""

    def __init__(self, failures: dict[int, str], results: dict[int, Any]) -> None:
        super().__init__("".join(f"\nrank {rank}: {failures[rank]}" for rank in sorted(failures)))
        self.failures = failures
        self.results = results


def run_ranks(
    function: Callable[..., Any], world_size: int, *args: Any, timeout: float = TIMEOUT
) -> list[Any]:
    """Calls `function(rank, *args)` on each rank of a new default group of backend gloo.

    Args:
        function: A function at the top of a module; what it returns can be pickled.
        world_size: How many processes.
        args: What it gets beside the rank; they are pickled.
        timeout: Seconds after which ranks that are still at work are killed.

    Returns:
        What the ranks returned, in their order.

    Raises:
        RanksError: A rank raised an exception, ended without a result, or took too long.
    """
    with tempfile.TemporaryDirectory() as folder:
        processes, connections = [], []
        for rank in range(world_size):
            ours, theirs = CONTEXT.Pipe(duplex=False)
            process = CONTEXT.Process(
                target=_work,
                args=(theirs, f"{folder}/rendezvous", rank, world_size, timeout, function, args),
                daemon=True,
            )
            process.start()
            theirs.close()
            processes.append(process)
            connections.append(ours)
        try:
            results, failures = _collect(connections, timeout)
        finally:
            for process in processes:
                if process.exitcode is None:
                    process.join(timeout=5)  # it has sent its result: let it end
                if process.exitcode is None:
                    process.kill()
                    process.join()
    if failures:
        raise RanksError(failures, results)
    return [results[rank] for rank in range(world_size)]


def _collect(
    connections: list[Connection], timeout: float
) -> tuple[dict[int, Any], dict[int, str]]:
    results: dict[int, Any] = {}
    failures: dict[int, str] = {}
    waiting = dict(enumerate(connections))
    end = time.monotonic() + timeout
    while waiting:
        ready = wait(list(waiting.values()), timeout=max(0.0, end - time.monotonic()))
        if not ready:
            failures |= dict.fromkeys(waiting, "still at work when the time was over")
            break
        for rank in [rank for rank, connection in waiting.items() if connection in ready]:
            try:
                good, value = pickle.loads(waiting.pop(rank).recv_bytes())
            except EOFError:
                good, value = False, "ended without a result"
            (results if good else failures)[rank] = value
        if failures:
            end = min(end, time.monotonic() + GRACE)
    return results, failures


def _work(
    connection: Connection,
    rendezvous: str,
    rank: int,
    world_size: int,
    timeout: float,
    function: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    def in_the_group() -> Any:
        torch.set_num_threads(1)
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # the host's name may lead nowhere
        dist.init_process_group(
            "gloo",
            init_method=f"file://{rendezvous}",
            rank=rank,
            world_size=world_size,
            timeout=timedelta(seconds=timeout),
        )
        return function(rank, *args)

    answer(connection, in_the_group, timeout)
    with contextlib.suppress(Exception):
        dist.destroy_process_group()
