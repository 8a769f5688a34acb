"""Ratio against speed: every effort of our methods, and the reference compressors, in one run.

    python benchmarks/pareto.py FILES --threads 2 --plot docs/images/pareto.svg
    python benchmarks/pareto.py --block fp32

Takes the tensors of the files as one list, or those of `speed.py --block`. Every row was decoded
and compared bit for bit. In the plot a line joins the efforts of a method, 1 to 9 from right to
left; what is neither above nor left of another point is on the Pareto front.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch
from gradients import DTYPES
from measure import Row, load, measure_ours, measure_peer, table, write_json
from peers import peers
from speed import block_workload
from torch import Tensor

PLAIN = ("planes", "scale")
SEARCHING = ("lowrank", "auto", "lm")
EFFORTS = range(1, 10)


def rows_of(
    data: str,
    tensors: list[Tensor],
    methods: list[str],
    efforts: list[int],
    threads: int,
    repeats: int,
) -> list[Row]:
    """Measures methods without a search once, others with every effort, and every peer."""
    torch.set_num_threads(threads)
    rows = []
    for method in methods:
        for effort in efforts if method in SEARCHING else [None]:
            chosen = {} if effort is None else {"effort": effort}
            row = measure_ours(data, tensors, method, repeats=repeats, **chosen)
            rows.append(row if effort is None else replace(row, method=f"{method} -{effort}"))
    dtypes = {tensor.dtype for tensor in tensors}
    for name, peer in peers(threads).items():
        if peer.takes(dtypes):
            rows.append(measure_peer(data, tensors, name, peer, repeats=repeats, threads=threads))
    return rows


def is_on_front(row: Row, rows: list[Row]) -> bool:
    """Whether no other row is both smaller and faster to compress."""
    return not any(
        other.ratio < row.ratio and other.compress_mb_s > row.compress_mb_s for other in rows
    )


def plot(rows: list[Row], path: Path) -> None:
    """Draws sizes against rates, compressing and decompressing."""
    import matplotlib as mpl

    mpl.use("Agg")  # no display is needed
    mpl.rcParams["svg.hashsalt"] = "lmgc"  # the same picture from the same numbers
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(11, 4.6), sharey=True, layout="constrained")
    directions = (("compress", "compress_mb_s"), ("decompress", "decompress_mb_s"))
    families: dict[str, list[Row]] = {}
    for row in rows:
        families.setdefault(row.method.split(" -")[0], []).append(row)
    for panel, (title, field) in zip(panels, directions, strict=True):
        for name, members in families.items():
            ours = name in (*PLAIN, *SEARCHING)
            points = [(getattr(row, field), row.ratio) for row in members]
            panel.semilogx(
                *zip(*points, strict=True),
                "-" if ours else "",
                marker="o" if ours else "x",
                markersize=4 if ours else 6,
                label=name,
            )
            for row, point in zip(members, points, strict=True):
                if row.method[-2:] in ("-1", "-5", "-9"):
                    panel.annotate(row.method[-1], point, (4, 3), textcoords="offset points")
        panel.set(title=title, xlabel="MB/s")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("compressed size in % of raw")
    panels[1].legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help=".pt or .safetensors")
    parser.add_argument("--block", choices=DTYPES, help="matrices of a transformer block")
    parser.add_argument("--methods", nargs="*", default=[*PLAIN, *SEARCHING])
    parser.add_argument("--efforts", nargs="*", type=int, default=list(EFFORTS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3, help="calls, the best counts")
    parser.add_argument("--plot", type=Path, metavar="OUT", help="draw sizes against rates here")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the rows here, too")
    parsed = parser.parse_args(arguments)
    if bool(parsed.files) == bool(parsed.block):
        parser.error("name files or a block")
    files = parsed.files
    if parsed.block:
        files = block_workload(parsed.block).files
    tensors = [tensor for path in files for tensor in load(path).values()]
    data = f"block, {parsed.block}" if parsed.block else "files"
    rows = rows_of(data, tensors, parsed.methods, parsed.efforts, parsed.threads, parsed.repeats)
    print(table(rows))
    front = sorted((row for row in rows if is_on_front(row, rows)), key=lambda row: row.ratio)
    print("on the front:", ", ".join(row.method for row in front))
    if parsed.plot:
        plot(rows, parsed.plot)
    if parsed.json:
        write_json(parsed.json, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
