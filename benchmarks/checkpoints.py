"""Checkpoints: weights and optimiser state, alone and relative to one of some steps before.

    python benchmarks/checkpoints.py

trains a character model with AdamW, keeps its weights and both moments at one step and some steps
later, and prints a table in Markdown: sizes in % of raw of the later checkpoint, by peers, by our
methods, and by ``auto`` with the earlier one as reference. Every frame is decompressed and compared
bit for bit.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping

import datasets
import gradients
import measure
import torch
from peers import PEERS
from torch import Tensor

import lmgc_torch

PARTS = ("weights", "first moments", "second moments")
PEER_NAMES = tuple(name for name in ("byte planes + zstd-1", "ZipNN") if name in PEERS)
METHODS = ("planes", "scale", "lowrank", "auto")

Checkpoint = dict[str, dict[str, Tensor]]  # by part


def checkpoints(steps: tuple[int, ...], width: int, depth: int, seed: int) -> list[Checkpoint]:
    """Returns what a training run has after so many steps."""
    options = {"width": width, "depth": depth, "heads": max(1, width // 64)}
    model, losses = gradients.task("gpt", "text", torch.float32, seed, 16, options, datasets.DATA)
    optimizer = gradients.optimizer_of("gpt", model)
    kept = []
    for step, loss in enumerate(losses, 1):
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step in steps:
            state = {name: optimizer.state[p] for name, p in model.named_parameters()}
            kept.append(
                {
                    "weights": {n: p.detach().clone() for n, p in model.named_parameters()},
                    "first moments": {n: s["exp_avg"].clone() for n, s in state.items()},
                    "second moments": {n: s["exp_avg_sq"].clone() for n, s in state.items()},
                }
            )
        if step == max(steps):
            break
    return kept


def measured(
    tensors: Mapping[str, Tensor], method: str, reference: Mapping[str, Tensor] | None = None
) -> tuple[int, float, float]:
    """Returns the size of a frame that was decoded, and the seconds that in and out took."""
    begin = time.perf_counter()
    frame = lmgc_torch.compress(dict(tensors), method=method, reference=reference)
    middle = time.perf_counter()
    back = lmgc_torch.decompress(frame, reference=reference)
    end = time.perf_counter()
    assert isinstance(back, dict)
    if not measure.identical(list(tensors.values()), [back[name] for name in tensors]):
        raise RuntimeError("a checkpoint did not come back")
    return frame.numel(), middle - begin, end - middle


def peer_size(tensors: Mapping[str, Tensor], name: str) -> int:
    """Returns the size by another codec, decoded and compared."""
    return measure.measure_peer("", list(tensors.values()), name, PEERS[name]).compressed_bytes


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--steps", type=int, nargs=2, default=[200, 210])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--seed", type=int, default=31)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parsed = parser.parse_args(arguments)
    torch.set_num_threads(parsed.threads)
    before, now = checkpoints(tuple(parsed.steps), parsed.width, parsed.depth, parsed.seed)
    raw = {part: measure.raw_bytes(now[part].values()) for part in PARTS}
    rows: dict[str, list[int]] = {}
    for name in PEER_NAMES:
        rows[name] = [peer_size(now[part], name) for part in PARTS]
    speeds = {}
    for method in METHODS:
        found = [measured(now[part], method) for part in PARTS]
        rows[method] = [size for size, _, _ in found]
        speeds[method] = found
    for method in ("scale", "auto"):
        found = [measured(now[part], method, before[part]) for part in PARTS]
        rows[f"{method}, relative"] = [size for size, _, _ in found]
        speeds[f"{method}, relative"] = found
    print("| | " + " | ".join(PARTS) + " | all | MB/s in | MB/s out |")
    print("|---" * (len(PARTS) + 4) + "|")
    total = sum(raw.values())
    for name, sizes in rows.items():
        cells = [f"{100 * s / raw[p]:.2f}" for s, p in zip(sizes, PARTS, strict=True)]
        cells.append(f"{100 * sum(sizes) / total:.2f}")
        if name in speeds:
            cells += [f"{total / 1e6 / sum(x[k] for x in speeds[name]):.0f}" for k in (1, 2)]
        else:
            cells += ["", ""]
        print(f"| {name} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
