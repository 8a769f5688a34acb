"""Writes `report.md` and the figures from `results.json`.

python benchmarks/paper/report.py benchmarks/out/paper/results.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from paper import figures
from paper.draws import TITLES
from paper.tables import (
    NOTHING,
    Cell,
    Figure,
    best,
    code_ratio,
    figure,
    gains,
    markdown,
    over,
    ratio,
    released_ratio,
    select,
    shown,
    total_ratio,
)

CODECS = ("PNG", "FLAC", "gzip", "LZMA", "FPZIP")
OURS = ("planes", "scale", "lmgc")
TEXTS = (  # title, separator, bytes per group, byte order
    ("iso-8859-1", "iso-8859-1", None, "big"),
    ("none", "none", None, "big"),
    ("space", "space", 4, "big"),
    ("comma", "comma", 4, "big"),
    ("comma+space", "comma_space", 4, "big"),
    ("semicolon", "semicolon", 4, "big"),
    ("`0x`", "0x", 4, "big"),
    ("none, little-endian", "none", None, "little"),
    ("space, little-endian", "space", 4, "little"),
)
LOSSY = ("1 bit", "8 bits", "16 bits", "random 50 %", "random 10 %", "top 10 %", "top 1 %")
NOISE = "random bytes"
UNDECODABLE = "† what the released code's formula reports; it cannot be decoded and is no size"


def text(separator: str, group: int | None, order: str = "big") -> dict[str, Any]:
    """The value of a cell's `text`."""
    return {"separator": separator, "bytes_per_group": group, "byte_order": order}


class Results:
    """The cells of a run, and what all tables need of them."""

    def __init__(self, results: dict[str, Any]) -> None:
        self.all = results
        self.cells: list[Cell] = results["cells"]
        self.settings: dict[str, Any] = results["settings"]
        size = self.settings["slice_bytes"]
        self.chunk: int = next(cell["chunk"] for cell in self.cells if cell["chunk"])
        # Slices of two sizes of the same payload differ in their bytes, up to whole periods.
        self.slices = [cell for cell in self.cells if not cell["whole"]]
        self.long = [
            cell
            for cell in self.slices
            if cell["payload"] == "fp32" and cell["raw_bytes"] > 3 * size // 4
        ]
        self.short = [cell for cell in self.slices if cell not in self.long]

    def lm(self, data: str, separator: str, group: int | None, order: str = "big") -> list[Cell]:
        """The cells of the language model on the long slices."""
        return select(self.long, data=data, method="LM", text=text(separator, group, order))

    def windows(self) -> dict[int, list[Cell]]:
        """The cells of Fig. 2."""
        cells = [cell for cell in self.short if cell["payload"] == "fp32"]
        found = {
            window: select(cells, method="LM", window=window, text=text("space", 4))
            for window in self.settings["windows"]
        }
        return {window: group for window, group in found.items() if group}

    def codecs(self, cells: list[Cell], chunk: int | None = None, **wanted: Any) -> dict[str, Any]:
        """{codec: its cells}, whole or in chunks."""
        return {name: select(cells, method=name, chunk=chunk, **wanted) for name in CODECS}


def table1(results: Results) -> str:
    """Table 1: codecs, whole and in chunks, against the language model and its separators."""
    data = "cifar10"
    chunk = results.chunk
    whole = [cell for cell in results.cells if cell["whole"]]
    rows = [
        [
            name,
            shown(over(select(results.long, data=data, method=name, chunk=chunk), ratio)),
            shown(over(select(results.long, data=data, method=name, chunk=None), ratio)),
            shown(over(select(whole, data=data, method=name), ratio)),
        ]
        for name in (*CODECS, "planes", "scale", "lmgc", "lowrank")
    ]
    for row in rows[len(CODECS) :]:
        row[0] = f"ours: `{row[0]}`"
    codecs = markdown(["codec", f"chunks of {chunk} bytes", "whole slice", "whole gradients"], rows)
    lines = []
    for title, *options in TEXTS:
        cells = results.lm(data, *options)
        lines.append([title, *_lm_columns(cells)])
    noise = select(results.cells, payload=NOISE, method="LM")
    lines.append(["*random bytes*, space", *_lm_columns(noise)])
    head = ["separator", "decoded", "code length", "released formula", "tokens per float"]
    return f"{codecs}\n\n{markdown(head, lines)}"


def _lm_columns(cells: list[Cell]) -> list[str]:
    return [
        _decoded(cells),
        shown(over(cells, code_ratio)),
        shown(over(cells, released_ratio), undecodable=True),
        _tokens(cells),
    ]


def _decoded(cells: list[Cell]) -> str:
    note = " (stored raw)" if any(cell["stored_raw"] for cell in cells) else ""
    return shown(over(cells, ratio)) + note


def _tokens(cells: list[Cell]) -> str:
    mean = over(cells, lambda cell: 4 * cell["tokens"] / cell["raw_bytes"])
    return f"{mean.mean:.2f}" if mean else NOTHING


def table3(results: Results) -> str:
    """Table 3: data sets, and the improvement over the best codec."""
    sizes, improvements, files = [], [], []
    for data, title in TITLES.items():
        own = [cell for cell in results.long if cell["data"] == data]
        codec, theirs = best(results.codecs(own))
        lms = {
            name: results.lm(data, name, group) for name, group in (("none", None), ("space", 4))
        }
        separator, lm = best(lms)
        zeros = over(theirs, lambda cell: 100 * cell["zeros"])
        sizes.append(
            [
                title,
                shown(zeros),
                *(shown(over(group, ratio)) for group in results.codecs(own).values()),
                f"{shown(over(lm, ratio))} ({separator})",
                shown(over(lm, released_ratio), undecodable=True),
                *(shown(over(select(own, method=name), ratio)) for name in OURS),
            ]
        )
        for chunk in (results.chunk, None):
            codec, theirs = best(results.codecs(own, chunk))
            if lm and theirs:
                improvements.append(
                    [
                        title,
                        f"{codec}, {f'chunks of {chunk} bytes' if chunk else 'whole slice'}",
                        *gains(lm, theirs, ratio),
                        *(f"~~{gain}~~ †" for gain in gains(lm, theirs, released_ratio)),
                    ]
                )
        whole = [cell for cell in results.cells if cell["whole"] and cell["data"] == data]
        codec, theirs = best(results.codecs(whole))
        files.append(
            [
                title,
                f"{shown(over(theirs, ratio))} ({codec})",
                *(shown(over(select(whole, method=name), ratio)) for name in (*OURS, "lowrank")),
            ]
        )
    ours = [f"`{name}`" for name in OURS]
    parts = [
        markdown(["gradients", "zeros", *CODECS, "LM", "released formula", *ours], sizes),
        markdown(
            [
                "LM against",
                "the best codec",
                "smaller by",
                "points",
                "by the formula",
                "its points",
            ],
            improvements,
        ),
        markdown(["whole gradients", "the best codec", *ours, "`lowrank`"], files),
    ]
    return "\n\n".join(parts)


def figure2(results: Results) -> str:
    """Fig. 2 as a table: windows."""
    rows = [[str(window), *_lm_columns(cells)[:3]] for window, cells in results.windows().items()]
    return markdown(["window, tokens", "decoded", "code length", "released formula"], rows)


def groups(results: Results) -> dict[str, list[Cell]]:
    """The cells of Fig. 3."""
    found = {str(group): results.lm("cifar10", "space", group) for group in (1, 2, 3, 4, 8)} | {
        "none": results.lm("cifar10", "none", None)
    }
    return {name: cells for name, cells in found.items() if cells}


def figure3(results: Results) -> str:
    """Fig. 3 as a table: bytes per group."""
    rows = [[name, *_lm_columns(cells)] for name, cells in groups(results).items()]
    head = ["bytes per group", "decoded", "code length", "released formula", "tokens per float"]
    return markdown(head, rows)


def lossy_rows(results: Results) -> dict[str, dict[str, list[Cell]]]:
    """The cells of Fig. 4: {payload: {method: cells}}."""
    found = {}
    for payload in ("fp32", *LOSSY):
        cells = [cell for cell in results.short if cell["payload"] == payload]
        methods = results.codecs(cells) | {
            name: select(cells, method=name) for name in ("planes", "lmgc")
        }
        wanted = {"window": results.settings["window"]}
        found[payload] = methods | {"LM": select(cells, method="LM", **wanted)}
    return found


def figure4(results: Results) -> str:
    """Fig. 4 as tables: lossy payloads, of the payload and of the whole gradient."""
    relative, total = [], []
    for payload, methods in lossy_rows(results).items():
        lm = methods["LM"]
        codec, theirs = best({name: methods[name] for name in CODECS})
        our, own = best({name: methods[name] for name in ("planes", "lmgc")})
        relative.append(
            [
                payload,
                shown(over(lm, ratio)),
                shown(over(lm, released_ratio), undecodable=True),
                f"{shown(over(theirs, ratio))} ({codec})",
                f"{shown(over(own, ratio))} (`{our}`)",
            ]
        )
        side = over(theirs, lambda cell: 100 * cell["side_bytes"] / (4 * cell["floats"]))
        error = over(theirs, lambda cell: 100 * cell["error"]) if payload != "fp32" else None
        total.append(
            [
                payload,
                shown(over(theirs, lambda cell: 100 * cell["raw_bytes"] / (4 * cell["floats"]))),
                shown(side),
                shown(over(lm, total_ratio)),
                shown(over(theirs, total_ratio)),
                shown(over(own, total_ratio)),
                shown(error),
            ]
        )
    head = ["payload", "LM", "released formula", "the best codec", "the better of ours"]
    heads = [
        "% of fp32",
        "payload",
        "side",
        "with LM",
        "with codec",
        "with ours",
        "error, % of norm",
    ]
    return f"{markdown(head, relative)}\n\n{markdown(heads, total)}"


def table4(results: Results) -> str:
    """Table 4: run-length coding in front. All sizes in % of the bytes before it."""
    rows = []
    for payload in ("fp32", "8 bits"):
        for name in (payload, f"runs of {payload}"):
            cells = [cell for cell in results.short if cell["payload"] == name]
            plain = [cell for cell in results.short if cell["payload"] == payload]
            before = {cell["draw"]: cell["raw_bytes"] for cell in plain}

            def of_plain(cell: Cell, size: str = "bytes", before: dict[int, int] = before) -> float:
                return 100 * cell[size] / before[cell["draw"]]

            lm = select(cells, method="LM", window=results.settings["window"])
            columns = [over(lm, of_plain)]
            columns += [over(group, of_plain) for group in results.codecs(cells).values()]
            first = select(cells, method="gzip", chunk=None)
            alone = figure(of_plain(cell, "raw_bytes") for cell in first)
            rows.append([name, shown(alone), *(shown(column) for column in columns)])
    return markdown(["payload", "before coding", "LM", *CODECS], rows)


def setting(results: Results) -> str:
    """How the numbers came about."""
    settings, machine, model = (results.all[key] for key in ("settings", "environment", "model"))
    seconds = results.all["seconds"]
    samples = ", ".join(f"{TITLES[data]}: {name}" for data, name in results.all["samples"].items())
    lines = [
        f"- Draws: {settings['draws']}, with seeds 0, 1, ... for the network, its batches and the "
        f"places of the slices; steps {settings['steps']} of each. A slice is made of runs of 1024 "
        f"consecutive floats: {settings['slice_bytes']:,} bytes in all, and "
        f"{settings['short_bytes']:,} of payload in Fig. 2, Fig. 4, Table 4 and the random bytes.",
        f"- Samples: {samples}.",
        f"- Windows of {settings['window']} tokens, big-endian digits unless it says otherwise.",
        f"- Machine: {machine['processor']}, {machine['workers']} processes with one thread each, "
        f"torch {machine['torch']}, lmgc_torch {machine['lmgc_torch']}.",
        f"- Time: {results.all['wall_seconds'] / 60:.1f} minutes ("
        + ", ".join(f"{name} {value / 60:.1f}" for name, value in seconds.items())
        + f"), {results.all['processor_seconds'] / 60:.1f} minutes of processor time. Captures and "
        "the trained model are used again where they exist.",
    ]
    if model.get("prior"):
        lines.append(f"- Language model: `{model['prior']}`.")
    else:
        lines.append(
            f"- Language model: {settings['depth']} layers of width {settings['width']}, "
            f"{model['parameters']:,} parameters, trained for {model['seconds']:.0f} s on "
            f"{model['tokens']:,} tokens of other networks' gradients."
        )
    return "\n".join(lines)


def write(path: Path, out: Path) -> Path:
    """Writes report.md and the figures into ``out`` from a results file."""
    results = Results(json.loads(path.read_text()))
    figures.draw(results, out)
    sections = [
        ("Setting", setting(results)),
        ("Table 1: codecs and separators", table1(results)),
        ("Table 3: data sets", table3(results)),
        ("Fig. 2: window", f"![Window](paper_windows.png)\n\n{figure2(results)}"),
        ("Fig. 3: bytes per group", f"![Bytes per group](paper_groups.png)\n\n{figure3(results)}"),
        ("Fig. 4: lossy gradients", f"![Lossy gradients](paper_lossy.png)\n\n{figure4(results)}"),
        ("Table 4: run-length coding", table4(results)),
    ]
    body = "\n\n".join(f"## {title}\n\n{content}" for title, content in sections)
    intro = (
        "# LM-GC's tables and figures\n\nSizes in % of raw (smaller is better), mean ± sample "
        "deviation over draws. Every size was decoded and compared bit for bit, but for those "
        f"struck through: {UNDECODABLE}.\n\n"
    )
    target = out / "report.md"
    target.write_text(intro + body + "\n")
    return target


__all__ = ["Figure", "Results", "write"]

if __name__ == "__main__":
    results_file = Path(sys.argv[1])
    print(write(results_file, results_file.parent))
