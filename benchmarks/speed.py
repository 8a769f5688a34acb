"""Measures speed both ways, and memory: our methods next to ZipNN, byte planes and memcpy.

    python benchmarks/speed.py benchmarks/data/report/*fp32*.pt --megabytes 16 --threads 1 2
    python benchmarks/speed.py --block fp32 bf16 --threads 1 2
    python benchmarks/speed.py FILES --sizes 4K 64K 1M 16M 256M 200x4K --plot rates.svg

The tensors of the files are repeated, whole, up to the megabytes asked for. ``--block`` takes the
matrices of a transformer block of width 1024 instead, gradients of a few steps of training, made
when they are first asked for. Everything is measured in one run, the best of several calls (one or
two of what is slow), and compared bit for bit. "extra MB" is how far the memory of
a fresh process rises above its level before the call while it compresses, output included; a small
call beforehand has loaded the library and its prior.

Behind `lm` stand three rows more: `lm` through the prior's TorchScript module, and for both what
the language model alone takes, features, network and coder: the time of `lm` less `lowrank`'s.
"""

from __future__ import annotations

import argparse
import itertools
import math
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from gradients import DTYPES, capture
from measure import (
    Row,
    best_of,
    joined,
    load,
    measure_ours,
    measure_peer,
    raw_bytes,
    table,
    write_json,
)
from peers import peers
from torch import Tensor

METHODS = ("raw", "planes", "scale", "lowrank", "auto", "lm", "lmgc")
PEERS = ("lz4", "byte planes + zstd-1", "byte planes + xz-6", "pcodec", "ZipNN")
LEAST_MEASURED = 32e6  # bytes: small ones are called more often
DATA = Path(__file__).parent / "data"
REPORT = DATA / "report"
BLOCK_WIDTH = 1024
BLOCK_STEP = 3


class Workload(NamedTuple):
    """The files whose tensors are repeated up to ``megabytes`` (10^6 bytes)."""

    name: str
    files: tuple[Path, ...]
    megabytes: float

    def tensors(self) -> list[Tensor]:
        """Reads the tensors; at least one, and no more than asked for unless that one is."""
        originals = [tensor for path in self.files for tensor in load(path).values()]
        chosen = [originals[0]]
        room = 1e6 * self.megabytes - originals[0].nbytes
        for tensor in itertools.cycle(originals[1:] + originals[:1]):
            room -= max(1, tensor.nbytes)
            if room < 0:
                return chosen
            chosen.append(tensor.clone())
        return chosen


class Pieces(NamedTuple):
    """``count`` tensors of ``size`` bytes each, cut from all elements of the files."""

    name: str
    files: tuple[Path, ...]
    size: int
    count: int = 1

    def tensors(self) -> list[Tensor]:
        """Reads the elements, which must be of one dtype, and repeats them as often as needed."""
        originals = [tensor for path in self.files for tensor in load(path).values()]
        whole = torch.cat([tensor.flatten() for tensor in originals])
        elements = self.size // whole.element_size()
        times = -(-elements * self.count // whole.numel())
        pieces = whole.repeat(times)[: elements * self.count].reshape(self.count, elements)
        return [piece.clone() for piece in pieces]


def pieces_of(text: str, files: tuple[Path, ...]) -> Pieces:
    """Reads "64K" (KiB), "16M" (MiB) or, for a list, "200x4K".

    Raises:
        ValueError: if the text is none of these.
    """
    count, times, size = text.rpartition("x")
    unit = {"K": 10, "M": 20}.get(size[-1:])
    if unit is None or not size[:-1].isdigit() or (times and not count.isdigit()):
        raise ValueError(f"{text!r} is no size: say 64K, 16M or 200x4K")
    return Pieces(text, files, int(size[:-1]) << unit, int(count) if times else 1)


def block_workload(dtype: str, folder: Path = DATA / "speed") -> Workload:
    """Returns the matrices of a transformer block's gradient, of 1024 x 1024 elements and more.

    Args:
        dtype: "fp32" or "bf16".
        folder: where they are kept.
    """
    path = folder / f"block{BLOCK_WIDTH}_{dtype}.pt"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        options = {"width": BLOCK_WIDTH, "depth": 1, "heads": BLOCK_WIDTH // 64}
        whole = capture("gpt", "text", steps=(BLOCK_STEP,), dtype=dtype, seed=201, options=options)
        matrices = {
            name: gradient
            for name, gradient in whole[BLOCK_STEP].items()
            if gradient.dim() == 2 and min(gradient.shape) >= BLOCK_WIDTH
        }
        torch.save(matrices, path)
    megabytes = raw_bytes(load(path).values()) / 1e6
    return Workload(f"block, {dtype}", (path,), megabytes)


def measure_memcpy(data: str, tensors: list[Tensor], repeats: int) -> Row:
    """Measures copying the tensors' bytes into memory that is already there."""
    source = torch.cat([tensor.contiguous().flatten().view(torch.uint8) for tensor in tensors])
    destination = torch.empty_like(source).zero_()
    _, seconds = best_of(lambda: destination.copy_(source), repeats)
    speed = source.numel() / 1e6 / seconds
    threads = torch.get_num_threads()
    return Row(data, "memcpy", source.numel(), source.numel(), speed, speed, threads)


def rows_of(
    workload: Workload | Pieces,
    methods: list[str],
    threads: int,
    repeats: int,
    with_memory: bool,
    others: Sequence[str] = PEERS,
) -> list[Row]:
    """Measures every method and peer on a workload with so many threads."""
    torch.set_num_threads(threads)
    data, tensors = workload.name, workload.tensors()
    repeats = max(repeats, min(1000, int(LEAST_MEASURED / max(1, raw_bytes(tensors)))))
    rows = [measure_ours(data, tensors, method, repeats=repeats) for method in methods]
    dtypes = {tensor.dtype for tensor in tensors}
    models = model_rows(data, tensors, rows) if {"lm", "lowrank"} <= set(methods) else []
    for name, peer in peers(threads).items():
        if name in others and peer.takes(dtypes):
            rows.append(measure_peer(data, tensors, name, peer, repeats=repeats, threads=threads))
    if with_memory:
        rows = [
            replace(row, extra_memory_mb=extra_memory(workload, row.method, threads))
            for row in rows
        ]
    return [*rows, *models, measure_memcpy(data, tensors, repeats)]


def model_rows(data: str, tensors: list[Tensor], rows: list[Row]) -> list[Row]:
    """Measures the language model of `lm` apart from what `lowrank` does, and in TorchScript."""
    import lmgc_torch

    prior = lmgc_torch.Prior.load("residual")
    prior.use_native(False)
    script = measure_ours(data, tensors, "lm", prior=prior)
    measured = {row.method: row for row in rows}
    native, less = measured["lm"], measured["lowrank"]
    result = [replace(script, method="lm, TorchScript")]
    for row, name in ((native, "its model"), (script, "its model, TorchScript")):
        result.append(
            replace(
                row,
                method=name,
                compress_mb_s=rate_without(row.compress_mb_s, less.compress_mb_s),
                decompress_mb_s=rate_without(row.decompress_mb_s, less.decompress_mb_s),
            )
        )
    return result


def rate_without(whole: float, part: float) -> float:
    """Returns the rate of what a whole does beside a part of it; all in MB/s."""
    seconds = 1 / whole - 1 / part
    return 1 / seconds if seconds > 0 else math.inf


def extra_memory(workload: Workload | Pieces, method: str, threads: int) -> float:
    """Returns the memory in MB that compressing takes on top, measured in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_extra_memory_here, workload, method, threads).result()


def _extra_memory_here(workload: Workload | Pieces, method: str, threads: int) -> float:
    """Does the work of ``extra_memory`` in the process that runs it (Linux only)."""
    torch.set_num_threads(threads)
    tensors = workload.tensors()
    call = _peer_call(method, tensors, threads) if method in PEERS else _our_call(method, tensors)
    # getrusage's peak survives exec, so a child would report its parent's. The kernel keeps another
    # one for each address space, which can be reset.
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_bytes("VmRSS")
    result = call()
    del result
    return (_status_bytes("VmHWM") - before) / 1e6


def _our_call(method: str, tensors: list[Tensor]) -> Callable[[], object]:
    """Returns a function that compresses the tensors with one of our methods, warmed up."""
    import lmgc_torch

    lmgc_torch.compress([tensors[0].flatten()[:4096].clone()], method=method)
    return lambda: lmgc_torch.compress(tensors, method=method)


def _peer_call(name: str, tensors: list[Tensor], threads: int) -> Callable[[], object]:
    """Returns a function that compresses the tensors' bytes with a peer, warmed up."""
    peer, buffers = peers(threads)[name], joined(tensors)
    for dtype, buffer in buffers.items():
        peer.compress(buffer[:4096], dtype)
    return lambda: [peer.compress(buffer, dtype) for dtype, buffer in buffers.items()]


def _status_bytes(key: str) -> int:
    """Reads a memory figure of this process from the kernel."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def plot(rows: list[Row], sizes: list[Pieces], path: Path) -> None:
    """Draws MB/s in and out against the size of single tensors, a line a method."""
    import matplotlib as mpl

    mpl.use("Agg")  # no display is needed
    mpl.rcParams["svg.hashsalt"] = "lmgc"  # the same picture from the same numbers
    from matplotlib import pyplot as plt

    single = {pieces.name: pieces.size for pieces in sizes if pieces.count == 1}
    figure, panels = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    directions = (("compress", "compress_mb_s"), ("decompress", "decompress_mb_s"))
    for panel, (title, field) in zip(panels, directions, strict=True):
        for method, threads in dict.fromkeys((row.method, row.threads) for row in rows):
            points = [
                (single[row.data], getattr(row, field))
                for row in rows
                if (row.method, row.threads) == (method, threads) and row.data in single
            ]
            style = "--" if method in PEERS else ":" if method == "memcpy" else "-"
            name = method if threads == 1 else f"{method}, {threads} threads"
            panel.loglog(*zip(*sorted(points), strict=True), style, marker=".", label=name)
        panel.set(title=title, xlabel="bytes of the tensor")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("MB/s")
    panels[1].legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE",
        help=f".pt or .safetensors; all of {REPORT.name}/*fp32*.pt by default",
    )
    parser.add_argument(
        "--block", nargs="+", choices=DTYPES, default=[], help="matrices of a transformer block"
    )
    parser.add_argument("--methods", nargs="*", default=METHODS, help="ours: %(default)s")
    parser.add_argument("--peers", nargs="*", default=PEERS, help="others: %(default)s")
    parser.add_argument("--megabytes", type=float, default=16, help="size (%(default)s)")
    parser.add_argument(
        "--sizes", nargs="+", default=[], metavar="SIZE", help="4K, 16M, 200x4K: of the files"
    )
    parser.add_argument("--plot", type=Path, metavar="OUT", help="draw the sizes' rates here")
    parser.add_argument("--threads", nargs="+", type=int, default=[1], help="thread counts")
    parser.add_argument("--repeats", type=int, default=5, help="calls, the best counts")
    parser.add_argument("--no-memory", action="store_true", help="leave memory out")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the rows here, too")
    parsed = parser.parse_args(arguments)
    files = tuple(parsed.files or ([] if parsed.block else sorted(REPORT.glob("*fp32*.pt"))))
    if not files and not parsed.block:
        parser.error(f"{REPORT} is empty: run `python benchmarks/gradients.py --set report` first")
    workloads: list[Workload | Pieces] = [block_workload(dtype) for dtype in parsed.block]
    try:
        sizes = [pieces_of(text, files) for text in parsed.sizes]
    except ValueError as error:
        parser.error(str(error))
    workloads += sizes
    if files and not sizes:
        workloads.insert(0, Workload(f"{parsed.megabytes:g} MB", files, parsed.megabytes))
    rows: list[Row] = []
    for workload, threads in itertools.product(workloads, parsed.threads):
        rows += rows_of(
            workload,
            list(parsed.methods),
            threads,
            parsed.repeats,
            not parsed.no_memory,
            parsed.peers,
        )
    print(table(rows))
    if parsed.json:
        write_json(parsed.json, rows)
    if parsed.plot:
        plot(rows, sizes, parsed.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
