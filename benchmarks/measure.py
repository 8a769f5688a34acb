"""What the benchmark scripts share: reading tensors, timing, and checked rows of a table.

A row exists only if the compressed bytes were decompressed and every tensor came back bit for bit.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from peers import Peer
from torch import Tensor

if TYPE_CHECKING:
    import lmgc_torch

Result = TypeVar("Result")
PATIENCE = 20  # seconds
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Row:
    """One method on one data set. Speeds are MB (10^6 bytes) of uncompressed data a second."""

    data: str
    method: str
    raw_bytes: int
    compressed_bytes: int
    compress_mb_s: float
    decompress_mb_s: float
    threads: int = 1
    extra_memory_mb: float | None = None  # peak while compressing, where it was measured

    @property
    def ratio(self) -> float:
        """Compressed size in % of raw; smaller is better."""
        return 100 * self.compressed_bytes / self.raw_bytes


def load(path: Path) -> dict[str, Tensor]:
    """Reads ``{name: tensor}`` from a ``.pt`` or ``.safetensors`` file, onto the CPU."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(tensors, dict) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise ValueError(f"{path} does not hold a dict of tensors")
    return tensors


def raw_bytes(tensors: Iterable[Tensor]) -> int:
    """Returns the size of the tensors' elements in bytes."""
    return sum(tensor.nbytes for tensor in tensors)


def joined(tensors: Iterable[Tensor]) -> dict[torch.dtype, bytes]:
    """Concatenates the tensors' bytes, one buffer per dtype: what a peer gets to compress."""
    groups: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype, []).append(tensor.detach().contiguous().flatten())
    return {
        dtype: torch.cat(group).view(torch.uint8).numpy().tobytes()
        for dtype, group in groups.items()
    }


def identical(left: Sequence[Tensor], right: Sequence[Tensor]) -> bool:
    """Compares dtypes, shapes and bits (NaN payloads and signs of zero included)."""
    return len(left) == len(right) and all(
        a.dtype == b.dtype and a.shape == b.shape and torch.equal(_bits(a), _bits(b))
        for a, b in zip(left, right, strict=True)
    )


def _bits(tensor: Tensor) -> Tensor:
    """Returns the integer view of a tensor; complex numbers as bytes."""
    plain = tensor.detach().contiguous().flatten()
    return plain.view(INTEGERS.get(tensor.element_size(), torch.uint8))


def best_of(function: Callable[[], Result], repeats: int) -> tuple[Result, float]:
    """Calls a function; returns its last result and the least wall time in s.

    Args:
        function: what is called.
        repeats: the calls; fewer, once they have taken ``PATIENCE`` seconds in all.
    """
    best, spent = float("inf"), 0.0
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        seconds = time.perf_counter() - start
        best, spent = min(best, seconds), spent + seconds
        if spent > PATIENCE:
            break
    return result, best


def measure_ours(
    data: str,
    tensors: Sequence[Tensor],
    method: str,
    *,
    repeats: int = 1,
    prior: lmgc_torch.Prior | None = None,
    effort: int = 5,
) -> Row:
    """Measures ``lmgc_torch.compress(tensors, method=method)``, with torch's current threads.

    Args:
        data: what the tensors are called.
        tensors: what is compressed.
        method: one of the library's.
        repeats: calls of each, the best counts.
        prior: instead of the bundled one.
        effort: of the search for predictions.

    Raises:
        RuntimeError: if a tensor does not come back bit for bit.
    """
    import lmgc_torch

    whole = list(tensors)
    packed, compressing = best_of(
        lambda: lmgc_torch.compress(whole, method=method, prior=prior, effort=effort), repeats
    )
    back, decompressing = best_of(lambda: lmgc_torch.decompress(packed, prior=prior), repeats)
    if not identical(whole, back):
        raise RuntimeError(f"{method} does not give back the tensors of {data}")
    size = raw_bytes(whole)
    return Row(
        data,
        method,
        size,
        packed.numel(),
        size / 1e6 / compressing,
        size / 1e6 / decompressing,
        torch.get_num_threads(),
    )


def measure_peer(
    data: str,
    tensors: Sequence[Tensor],
    method: str,
    peer: Peer,
    *,
    repeats: int = 1,
    threads: int = 1,
) -> Row:
    """Measures a peer on the concatenated bytes of all tensors (of each dtype).

    Args:
        threads: what the row says the peer was made with.

    Raises:
        RuntimeError: if the bytes do not come back.
    """
    buffers = joined(tensors)
    packed, compressing = best_of(
        lambda: {dtype: peer.compress(buffer, dtype) for dtype, buffer in buffers.items()}, repeats
    )
    back, decompressing = best_of(
        lambda: {dtype: peer.decompress(buffer, dtype) for dtype, buffer in packed.items()}, repeats
    )
    if back != buffers:
        raise RuntimeError(f"{method} does not give back the bytes of {data}")
    size = raw_bytes(tensors)
    return Row(
        data,
        method,
        size,
        sum(map(len, packed.values())),
        size / 1e6 / compressing,
        size / 1e6 / decompressing,
        threads,
    )


def table(rows: Sequence[Row]) -> str:
    """Formats rows as aligned text; columns that say nothing are left out."""
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("data", lambda row: row.data),
        ("method", lambda row: row.method),
        ("raw bytes", lambda row: f"{row.raw_bytes:,}"),
        ("compressed", lambda row: f"{row.compressed_bytes:,}"),
        ("ratio %", lambda row: f"{row.ratio:.2f}"),
        ("MB/s in", lambda row: _speed(row.compress_mb_s)),
        ("MB/s out", lambda row: _speed(row.decompress_mb_s)),
    ]
    if len({row.threads for row in rows}) > 1:
        columns.insert(2, ("threads", lambda row: str(row.threads)))
    if any(row.extra_memory_mb is not None for row in rows):
        columns.append(("extra MB", lambda row: _memory(row.extra_memory_mb)))
    lines = [[head for head, _ in columns]]
    return aligned(lines + [[show(row) for _, show in columns] for row in rows])


def aligned(lines: Sequence[Sequence[str]], left: int = 2) -> str:
    """Formats a head and its lines as text in columns; all but the first ones to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    ruled = [lines[0], ["-" * width for width in widths], *lines[1:]]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in ruled
    )


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Formats a head and its lines as a table in Markdown."""
    ruled = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in ruled)


def _speed(mb_s: float) -> str:
    return f"{mb_s:.0f}" if mb_s >= 100 else f"{mb_s:.3g}"


def _memory(megabytes: float | None) -> str:
    return "" if megabytes is None else f"{megabytes:.1f}"


def write_json(path: Path, rows: Sequence[Row]) -> None:
    """Writes rows as a JSON list of objects, the ratio included."""
    path.write_text(json.dumps([asdict(row) | {"ratio": row.ratio} for row in rows], indent=2))
