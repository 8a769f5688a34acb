"""Warm starts: the gradients of consecutive steps, with a warm start and without one.

    python benchmarks/warm_start.py

trains character models of two widths (batches of 4 x 128 characters), keeps the gradients of steps
20 to 27, and prints a table in Markdown: size and speed of ``scale``, of ``lowrank``, of
``lowrank`` with a warm start, and of that with a past frame, all from the same process, step after
step. Every frame is
decompressed and compared bit for bit. Speeds are of processor time on one thread, the best of all
steps but the first; sizes are means over these steps.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator

import gradients
import measure
import torch
from torch import Tensor

import lmgc_torch
from lmgc_torch import PastFrame, WarmStart

STEPS = tuple(range(20, 28))
ROWS = ("scale", "lowrank", "lowrank, warm", "lowrank, warm, past")


def measure_steps(
    steps: list[list[Tensor]], name: str, rounds: int
) -> tuple[float, float, float, float]:
    """Compresses lists of gradients one after the other.

    Args:
        steps: the gradients of each step.
        name: one of ``ROWS``.
        rounds: how often all steps are gone through, from a new warm start.

    Returns:
        Mean size in % of raw; MB/s in: best and mean; MB/s out, best.
    """
    size = measure.raw_bytes(steps[0])
    sizes, into, out = [], [], []
    for _ in range(rounds):
        warm = WarmStart() if "warm" in name else None
        sender, receiver = (PastFrame(), PastFrame()) if "past" in name else (None, None)
        for k, tensors in enumerate(steps):
            start = time.thread_time()
            frame = lmgc_torch.compress(
                tensors, method=name.split(",")[0], warm_start=warm, past=sender
            )
            middle = time.thread_time()
            back = lmgc_torch.decompress(frame, past=receiver)
            end = time.thread_time()
            if not isinstance(back, list) or not measure.identical(tensors, back):
                raise RuntimeError(f"{name}: step {k} did not come back")
            if k > 0:
                sizes.append(100 * frame.numel() / size)
                into.append(middle - start)
                out.append(end - middle)
    megabytes = size / 1e6
    return (
        sum(sizes) / len(sizes),
        megabytes / min(into),
        megabytes * len(into) / sum(into),
        megabytes / min(out),
    )


def captured(widths: list[int], dtypes: list[str]) -> Iterator[tuple[str, list[list[Tensor]]]]:
    """Yields a name and the gradients of ``STEPS`` for each width and dtype."""
    for width in widths:
        for dtype in dtypes:
            options = {"width": width, "depth": 4, "heads": width // 64}
            kept = gradients.capture(
                "gpt", "text", steps=STEPS, dtype=dtype, seed=5, batch=4, options=options
            )
            yield f"GPT {width}, {dtype}", [list(kept[step].values()) for step in STEPS]


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[256, 384])
    parser.add_argument("--dtypes", nargs="+", choices=gradients.DTYPES, default=["fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=2)
    parsed = parser.parse_args(arguments)
    print("| gradients | method | size | MB/s in, best | MB/s in, mean | MB/s out |")
    print("|---|---|---|---|---|---|")
    for data, steps in captured(parsed.widths, parsed.dtypes):
        torch.set_num_threads(1)
        for name in ROWS:
            size, best, mean, out = measure_steps(steps, name, parsed.rounds)
            print(f"| {data} | {name} | {size:.2f} | {best:.1f} | {mean:.1f} | {out:.1f} |")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
