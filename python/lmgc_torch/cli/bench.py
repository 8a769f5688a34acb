"""``lmgc bench``: how small and how fast the methods are with files of yours.

Examples:
  lmgc bench model.safetensors                        our methods, and general compressors
  lmgc bench -m auto -m "grouped zstd" *.safetensors  these two
  lmgc bench -m lm -T 8 --repeat 3 gradients.pt
  lmgc bench --json model.pt | jq '.results[] | {method, ratio}'

Tensors are read before the clock starts, compressed, decompressed and compared bit for bit, about a
megabyte or a tensor at a time. Sizes count everything that decoding needs, but for the peers' types
and shapes, which they do not keep. Peers (zlib at level 6, zstd at 3; "grouped" ones treat bytes of
equal significance by themselves, as lmgc_torch.baselines says) work on the CPU, with one thread.
No method is given a reference: that serves to read archives that need one.
Of several repetitions the fastest counts. MB are 10^6 bytes of tensors.
"""

import argparse
import dataclasses
import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from lmgc_torch import api, baselines, form
from lmgc_torch.api import PriorLike
from lmgc_torch.archive.reference import Reference
from lmgc_torch.archive.sharing import find_views
from lmgc_torch.archive.writer import GROUP_BYTES, loaded
from lmgc_torch.checkpoints import SUFFIX, SUFFIXES, DataError, UsageError, read_tensors
from lmgc_torch.cli import arguments, paths
from lmgc_torch.cli.paths import Job
from lmgc_torch.cli.work import (
    for_each,
    named_errors,
    open_references,
    print_json,
    progress,
    reference_of,
    set_up,
)
from lmgc_torch.frame_info import aligned

HELP = "measure how small and how fast methods are on files of tensors"

DEFAULTS = ("planes", "scale", "lowrank", "auto")

Result = TypeVar("Result")


@dataclasses.dataclass
class Measured:
    """What a method did.

    Attributes:
        method: One of ours, or of `baselines`.
        raw_bytes: Of the tensors.
        bytes: Of what they became.
        compress_seconds: The time that took.
        decompress_seconds: The time that the way back took.
    """

    method: str
    raw_bytes: int = 0
    bytes: int = 0
    compress_seconds: float = 0.0
    decompress_seconds: float = 0.0

    def add(self, other: "Measured") -> None:
        """Adds what it did with other tensors."""
        self.raw_bytes += other.raw_bytes
        self.bytes += other.bytes
        self.compress_seconds += other.compress_seconds
        self.decompress_seconds += other.decompress_seconds

    def to_json(self) -> dict[str, Any]:
        """Returns sizes in bytes, the ratio in %, and rates in MB/s."""
        return {
            "method": self.method,
            "bytes": self.bytes,
            "ratio": 100 * self.bytes / self.raw_bytes if self.raw_bytes else 100.0,
            "compress_mb_per_s": _rate(self.raw_bytes, self.compress_seconds),
            "decompress_mb_per_s": _rate(self.raw_bytes, self.decompress_seconds),
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    arguments.add_files(parser, "FILE")
    parser.add_argument(
        *("-m", "--method"),
        action="append",
        choices=(*api.METHODS, *baselines.NAMES),
        metavar="METHOD",
        help=f"may be given again: {', '.join((*api.METHODS, *baselines.NAMES))}; default: "
        f"{', '.join(DEFAULTS)} and the peers, those of zstd where the package zstandard is",
    )
    parser.add_argument(
        "--repeat", metavar="N", type=int, default=1, help="how often to measure; default: 1"
    )
    arguments.add_reference(parser, "what archives were told relative to, to decode them")
    arguments.add_work(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    parser.add_argument("--json", action="store_true", help="print an object in JSON for each file")


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    if options.repeat < 1:
        raise UsageError(f"--repeat is {options.repeat}: it should be 1 or more")
    set_up(options)
    methods = tuple(dict.fromkeys(options.method or (*DEFAULTS, *_peers())))
    jobs = paths.find(options, (SUFFIX, *SUFFIXES))
    references = open_references(options)
    totals = [Measured(method) for method in methods]
    count = 0

    def work(job: Job) -> None:
        nonlocal count
        with paths.readable(job.source) as path:
            results = _bench(options, path, job, methods, reference_of(references, job))
        count += 1
        for total, result in zip(totals, results, strict=True):
            total.add(result)
        if options.json:
            print_json(
                {
                    "file": job.path,
                    "raw_bytes": results[0].raw_bytes,
                    "device": options.device,
                    "threads": torch.get_num_threads(),
                    "repeat": options.repeat,
                    "results": [result.to_json() for result in results],
                }
            )
        else:
            print(_table(job.name, results))

    code = for_each(options, jobs, work)
    if count > 1 and not options.json:
        print(_table(f"{count} files", totals))
    return code


def _peers() -> list[str]:
    there = importlib.util.find_spec("zstandard") is not None
    return [name for name in baselines.NAMES if there or name.endswith("zlib")]


def _bench(
    options: argparse.Namespace,
    path: Path,
    job: Job,
    methods: Sequence[str],
    reference: Reference | None,
) -> list[Measured]:
    results = [Measured(method) for method in methods]
    with named_errors(job.name):
        read = read_tensors(path, job.name, prior=options.prior, reference=reference)
        tensors = list(read.values())
        views = find_views(tensors)
        stored = [tensor for tensor, view in zip(tensors, views, strict=True) if view is None]
        prior = loaded(options.prior, torch.device(options.device))
        first = torch.arange(1 << 16, device=options.device) / 7
        for result in results:  # threads that start in the first call are not measured
            _measure(result.method, [first.view(256, 256)], prior, 1, job.name)
        total = len(methods) * sum(tensor.nbytes for tensor in stored)
        with progress(options, f"measuring {job.name}", total) as advance:
            for group in _groups(stored, options.device):
                for result in results:
                    one = _measure(result.method, group, prior, options.repeat, job.name)
                    result.add(one)
                    advance(one.raw_bytes)
    return results


def _groups(tensors: Sequence[torch.Tensor], device: str) -> Iterator[list[torch.Tensor]]:
    """Yields copies in memory, so that no disk is measured: a few at a time if they are small."""
    group: list[torch.Tensor] = []
    for tensor in tensors:
        group.append(tensor.detach().to(device, copy=True).contiguous())
        if sum(one.nbytes for one in group) >= GROUP_BYTES:
            yield group
            group = []
    if group:
        yield group


def _measure(
    method: str, tensors: list[torch.Tensor], prior: PriorLike | None, repeat: int, name: str
) -> Measured:
    result = Measured(method, sum(tensor.nbytes for tensor in tensors))
    before = [_bytes(tensor) for tensor in tensors]
    times = []
    for _ in range(repeat):
        if method in baselines.NAMES:
            widths = [tensor.element_size() for tensor in tensors]
            result.bytes, after, *seconds = _peer(method, before, widths)
        else:
            result.bytes, back, *seconds = _ours(method, tensors, prior)
            after = [_bytes(tensor) for tensor in back]
            if [(t.dtype, t.shape) for t in back] != [(t.dtype, t.shape) for t in tensors]:
                after = []
        if after != before:
            raise DataError(f"{name}: what {method!r} decodes differs from what was encoded")
        times.append(seconds)
    result.compress_seconds, result.decompress_seconds = map(min, zip(*times, strict=True))
    return result


def _ours(
    method: str, tensors: list[torch.Tensor], prior: PriorLike | None
) -> tuple[int, list[torch.Tensor], float, float]:
    keywords: dict[str, Any] = {"method": method, "prior": prior}
    frame, first = _timed(lambda: api.compress(tensors, **keywords))
    back, second = _timed(lambda: api.decompress(frame, prior=prior))
    assert isinstance(back, list)
    return frame.numel(), back, first, second


def _peer(
    method: str, data: list[bytes], widths: list[int]
) -> tuple[int, list[bytes], float, float]:
    pairs = list(zip(data, widths, strict=True))
    packed, first = _timed(lambda: [baselines.compress(*pair, method) for pair in pairs])
    back, second = _timed(lambda: [baselines.decompress(one) for one in packed])
    return sum(map(len, packed)), back, first, second


def _timed(work: Callable[[], Result]) -> tuple[Result, float]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result, time.perf_counter() - start


def _bytes(tensor: torch.Tensor) -> bytes:
    flat = form.flat(tensor.resolve_conj().resolve_neg().cpu())
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def _rate(raw_bytes: int, seconds: float) -> float:
    return raw_bytes / 1e6 / seconds if seconds > 0 else 0.0


def _table(name: str, results: Sequence[Measured]) -> str:
    rows: list[tuple[str, ...]] = [("method", "bytes", "%", "MB/s in", "MB/s out")]
    for result in results:
        told = result.to_json()
        rates = (f"{told[f'{way}compress_mb_per_s']:.1f}" for way in ("", "de"))
        rows.append((result.method, f"{result.bytes:,}", f"{told['ratio']:.2f}", *rates))
    title = f"{name}: {results[0].raw_bytes:,} bytes of tensors, every method verified"
    return "\n".join((title, *aligned(rows, left=1), ""))
