"""Measures a step of data-parallel training over slow links: plain all-reduce and compressed ones.

    sudo nice -n -15 python benchmarks/ddp.py --rates 100 1000 --ranks 2

Ranks are processes of one thread, each in a network namespace of its own, whose interface sends
and receives at the rate asked for (``namespaces.py``). All communications of a cell run in the same
processes, blocks of steps in turn, so that their ratios are fair on a machine that does other
things, too (``ddp_rank.py``). Where namespaces cannot be made, everything runs over loopback,
without a limit and without bytes, and the output says so.

The communications: `compute` (none at all: each rank trains alone), `plain` (DDP's own all-reduce),
torch's hooks `bf16` and `powersgd` of rank 4 (lossy, for fp32), and our hook with a method, or with
`auto`, which chooses. `auto, matched` also sums in plain's order for more than two ranks.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import namespaces
from ddp_rank import (
    COMMUNICATIONS,
    COMPUTE,
    LOSSY,
    MATCHED,
    PLAIN,
    WORKLOADS,
    Cell,
    Measured,
)
from measure import aligned, markdown
from namespaces import Port

HERE = Path(__file__).parent
OUT = HERE / "out" / "ddp.json"
TCP_PORT = 29577  # in namespaces nobody else has it
LOUD = "*" * 8
DEFAULTS = (COMPUTE, PLAIN, *LOSSY, "auto")


@dataclass(frozen=True)
class Row:
    """One communication in one cell of the grid."""

    workload: str
    ranks: int
    mbit: float | None
    bucket_mb: float
    communication: str
    seconds: float  # a step, the median of those after the warm-up; the slowest rank counts
    speedup: float | None  # of plain's time over this one's: the median over turns
    speedup_range: tuple[float, float] | None  # the least and the greatest of a turn
    sent_mb: float | None  # MB (10^6 bytes) a step and rank, through the rank's own interface
    received_mb: float | None
    loss: float
    identical: bool | None
    step_seconds: list[float]  # of every step, the warm-up's too
    statistics: list[Any]  # our hook's own, of each rank


def run_cell(cell: Cell) -> list[Row]:
    """Runs the processes of a cell and returns a row for each communication.

    Raises:
        RuntimeError: if a rank fails.
    """
    with contextlib.ExitStack() as stack:
        if cell.mbit is None:
            ports, port = namespaces.loopback(cell.ranks), free_port()
        else:
            ports, port = stack.enter_context(namespaces.links(cell.ranks, cell.mbit)), TCP_PORT
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        results = run_ranks(cell, ports, port, folder)
    return rows_of(cell, results)


def run_ranks(
    cell: Cell, ports: Sequence[Port], tcp_port: int, folder: Path
) -> list[dict[str, Measured]]:
    """Starts a process for every rank, waits, and reads what they write into the folder."""
    processes: list[subprocess.Popen[bytes]] = []
    files = [folder / f"{rank}.json" for rank in range(cell.ranks)]
    try:
        for rank, (port, file) in enumerate(zip(ports, files, strict=True)):
            script = [sys.executable, str(HERE / "ddp_rank.py")]
            arguments = [json.dumps(asdict(cell)), str(rank), port.interface, str(file)]
            environment = os.environ | {
                "OMP_NUM_THREADS": "1",
                "TORCH_CPP_LOG_LEVEL": "ERROR",  # a namespace has no host names, and no need of any
                "MASTER_ADDR": ports[0].address,
                "MASTER_PORT": str(tcp_port),
                "GLOO_SOCKET_IFNAME": port.interface,
            }
            # The pipe at its input tells a rank when this process is gone, however it ends. In a
            # session of its own it does not see Ctrl-C, which is for this process to handle.
            processes.append(
                subprocess.Popen(
                    [*port.command, *script, *arguments],
                    stdin=subprocess.PIPE,
                    env=environment,
                    start_new_session=True,
                )
            )
        _wait(processes)
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
            if process.stdin:
                process.stdin.close()
    texts = [json.loads(file.read_text()) for file in files]
    return [{name: Measured(**one) for name, one in text.items()} for text in texts]


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Waits until all processes have ended; one that fails is an error at once."""
    while any(process.poll() is None for process in processes):
        failed = [process.returncode for process in processes if process.returncode]
        if failed:
            break
        time.sleep(0.05)
    for rank, process in enumerate(processes):
        if process.returncode:
            raise RuntimeError(f"rank {rank} ended with status {process.returncode}")


def free_port() -> int:
    """Returns a TCP port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def rows_of(cell: Cell, results: Sequence[dict[str, Measured]]) -> list[Row]:
    """Puts together what the ranks of a cell have measured."""
    slowest = {
        name: [max(step) for step in zip(*(rank[name].seconds for rank in results), strict=True)]
        for name in cell.communications
    }
    first = cell.warmup
    rows = []
    for name in cell.communications:
        ranks = [result[name] for result in results]
        steps = cell.ranks * (len(slowest[name]) - first)
        sent = sum(rank.sent_bytes for rank in ranks) / steps / 1e6
        received = sum(rank.received_bytes for rank in ranks) / steps / 1e6
        ratios = turn_ratios(slowest.get(PLAIN, []), slowest[name], first, cell.block)
        flags = [rank.identical for rank in ranks]
        rows.append(
            Row(
                cell.workload,
                cell.ranks,
                cell.mbit,
                cell.bucket_mb,
                name,
                statistics.median(slowest[name][first:]),
                statistics.median(ratios) if ratios else None,
                (min(ratios), max(ratios)) if ratios else None,
                sent if cell.mbit is not None else None,
                received if cell.mbit is not None else None,
                statistics.mean(rank.loss for rank in ranks),
                None if None in flags else all(flags),
                slowest[name],
                [rank.statistics for rank in ranks if rank.statistics is not None],
            )
        )
    return rows


def turn_ratios(
    plain: Sequence[float], other: Sequence[float], first: int, block: int
) -> list[float]:
    """Returns the time of plain over that of another, of each turn from step ``first`` on."""
    starts = range(first, min(len(plain), len(other)), block)
    return [
        sum(plain[start : start + block]) / sum(other[start : start + block]) for start in starts
    ]


def lines_of(rows: Sequence[Row]) -> list[list[str]]:
    """Returns the cells of a table, its head first."""
    heads = ["workload", "communication", "ranks", "Mbit/s", "buckets", "s / step", "plain / it"]
    lines = [[*heads, "in turns", "MB sent", "received", "loss", "weights"]]
    for row in rows:
        span = "" if row.speedup_range is None else "{:.2f}-{:.2f}".format(*row.speedup_range)
        weights = {None: "", True: "identical", False: "differ"}[row.identical]
        lines.append(
            [
                row.workload,
                row.communication,
                str(row.ranks),
                "none" if row.mbit is None else f"{row.mbit:g}",
                f"{row.bucket_mb:g}",
                f"{row.seconds:.3f}",
                "" if row.speedup is None else f"{row.speedup:.2f}",
                span,
                *("" if one is None else f"{one:.2f}" for one in (row.sent_mb, row.received_mb)),
                f"{row.loss:.4f}",
                weights,
            ]
        )
    return lines


def suited(communications: Sequence[str], workload: str, ranks: int) -> tuple[str, ...]:
    """Leaves out what a cell has no use for: lossy hooks for bf16, "matched" for two ranks."""
    fp32 = WORKLOADS[workload].dtype == "fp32"
    return tuple(
        name
        for name in communications
        if (fp32 or name not in LOSSY) and (ranks > 2 or name != MATCHED)
    )


def cells(parsed: argparse.Namespace, rates: Sequence[float | None]) -> Iterator[Cell]:
    """Yields the cells of the grid."""
    times = parsed.warmup, parsed.steps, parsed.block
    grid = itertools.product(parsed.ranks, rates, parsed.workloads, parsed.bucket_mb)
    for ranks, mbit, workload, bucket_mb in grid:
        names = suited(parsed.communications, workload, ranks)
        yield Cell(workload, ranks, mbit, names, *times, bucket_mb)


def _terminated(*_: object) -> NoReturn:
    raise SystemExit(1)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rates", nargs="+", type=float, default=[100, 1000], help="Mbit/s")
    parser.add_argument("--loopback", action="store_true", help="no namespaces, no limit")
    parser.add_argument("--ranks", nargs="+", type=int, default=[2], help="processes (2)")
    parser.add_argument(
        "--workloads", nargs="+", choices=WORKLOADS, default=["gpt_fp32", "gpt_bf16"]
    )
    parser.add_argument("--communications", nargs="+", choices=COMMUNICATIONS, default=DEFAULTS)
    parser.add_argument(
        "--bucket-mb", nargs="+", type=float, default=[25], help="DDP's buckets, in MiB (25)"
    )
    parser.add_argument("--warmup", type=int, default=32, help="steps not counted (32)")
    parser.add_argument("--steps", type=int, default=20, help="steps that are (20)")
    parser.add_argument("--block", type=int, default=5, help="steps in a turn (5)")
    parser.add_argument(
        "--json", type=Path, default=OUT, help="write all figures here (%(default)s)"
    )
    parsed = parser.parse_args(arguments)
    rates: list[float | None] = list(parsed.rates)
    reason = "--loopback" if parsed.loopback else namespaces.obstacle()
    if reason is not None:
        print(f"{LOUD} NO NETWORK NAMESPACES ({reason}).\n{LOUD} LOOPBACK WITHOUT A LIMIT:")
        print(f"{LOUD} THESE TIMES SAY NOTHING ABOUT SLOW LINKS.", flush=True)
        rates = [None]
    signal.signal(signal.SIGTERM, _terminated)  # so that namespaces go then, too
    rows: list[Row] = []
    for cell in cells(parsed, rates):
        of_cell = run_cell(cell)
        print(aligned(lines_of(of_cell)), end="\n\n", flush=True)
        rows += of_cell
        parsed.json.parent.mkdir(parents=True, exist_ok=True)
        parsed.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    print(markdown(lines_of(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
