"""Trains two small networks, compresses their gradients, and shows that nothing was lost.

    python examples/demo.py

A ConvNet on images gives fp32 gradients, a character GPT bf16 ones. Each is compressed by this
library and by the usual compressors, decompressed, and compared bit for bit; only then a row is
printed. Speeds come from one or two calls on small data: `benchmarks/speed.py` measures them well.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

# The benchmarks are scripts, not a package: their helpers are found by folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import datasets
import gradients
import measure
from peers import PEERS

METHODS = ("lm", "lowrank", "lmgc", "planes")
REPEATS = 2


def main() -> int:
    """Runs the demonstration."""
    rows: list[measure.Row] = []
    for run in gradients.SETS["demo"]:
        step = run.steps[-1]
        data = f"{run.model} {run.dtype}"
        where = datasets.source(run.dataset)
        print(f"training {data} on {where} up to step {step} ...", end=" ", flush=True)
        start = time.perf_counter()
        captured = list(gradients.capture_run(run)[step].values())
        print(f"{time.perf_counter() - start:.1f} s", flush=True)

        for method in METHODS:
            rows.append(measure.measure_ours(data, captured, method, repeats=REPEATS))
        for name, peer in PEERS.items():
            if peer.takes({tensor.dtype for tensor in captured}):
                rows.append(measure.measure_peer(data, captured, name, peer, repeats=REPEATS))

    print(f"\n{measure.table(rows)}\n")
    print("MB/s in: of gradients compressed; out: of gradients decompressed.")
    print(f"All {len(rows)} rows were decompressed and compared: every bit came back.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
