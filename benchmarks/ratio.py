"""Prints how small files of tensors become: our methods next to the reference compressors.

    python benchmarks/ratio.py benchmarks/data/report/*.pt --json ratio.json

Every size was decompressed and compared bit for bit before it is printed. The speeds come from one
call each; `speed.py` measures them with care.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from measure import Row, load, measure_ours, measure_peer, table, write_json
from peers import PEERS

METHODS = ("raw", "planes", "lmgc", "auto")


def rows_of(path: Path, methods: list[str], with_peers: bool) -> list[Row]:
    """Measures one file with every method and peer that takes its dtypes."""
    tensors = list(load(path).values())
    rows = [measure_ours(path.stem, tensors, method) for method in methods]
    if with_peers:
        dtypes = {tensor.dtype for tensor in tensors}
        rows += [
            measure_peer(path.stem, tensors, name, peer)
            for name, peer in PEERS.items()
            if peer.takes(dtypes)
        ]
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help=".pt or .safetensors")
    parser.add_argument("--methods", nargs="*", default=METHODS, help="ours: %(default)s")
    parser.add_argument("--no-peers", action="store_true", help="measure our methods only")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the rows here, too")
    parsed = parser.parse_args(arguments)
    rows: list[Row] = []
    for path in parsed.files:
        of_file = rows_of(path, list(parsed.methods), not parsed.no_peers)
        print(table(of_file), end="\n\n", flush=True)
        rows += of_file
    if parsed.json:
        write_json(parsed.json, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
