"""Prints how small files of tensors become: our methods next to the reference compressors.

    python benchmarks/ratio.py benchmarks/data/report/*.pt --json ratio.json

Every size was decompressed and compared bit for bit before it is printed. The speeds come from one
call each; `speed.py` measures them with care. At the end stands a table in Markdown of the ratios
of all files, and how far `lowrank` is below the smallest of the peers, in % of it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from measure import Row, load, markdown, measure_ours, measure_peer, table, write_json
from peers import PEERS

METHODS = ("planes", "scale", "lowrank", "auto", "lm", "lmgc")


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


def summary(rows: Sequence[Row]) -> str:
    """Returns the ratios of all rows as a table in Markdown: a line a file, a column a method."""
    methods = list(dict.fromkeys(row.method for row in rows))
    columns = [name for name in PEERS if name in methods]
    columns += [name for name in methods if name not in PEERS]
    of_data: dict[str, dict[str, Row]] = {}
    for row in rows:
        of_data.setdefault(row.data, {})[row.method] = row
    heads = ["tensors", *(name if name in PEERS else f"`{name}`" for name in columns)]
    lines = [[*heads, "below the best peer"]]
    for data, own in of_data.items():
        ratios = [f"{own[name].ratio:.2f}" if name in own else "" for name in columns]
        best = min((own[name].ratio for name in PEERS if name in own), default=None)
        gain = ""
        if best is not None and "lowrank" in own:
            gain = f"{100 * (1 - own['lowrank'].ratio / best):.1f} %"
        lines.append([data, *ratios, gain])
    return markdown(lines)


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
    print(summary(rows))
    if parsed.json:
        write_json(parsed.json, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
