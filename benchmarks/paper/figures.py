"""The report's figures, as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")  # no display is needed
import matplotlib.pyplot as plt
from paper.tables import Cell, Value, best, code_ratio, over, ratio, released_ratio, total_ratio

if TYPE_CHECKING:
    from paper.report import Results

SIZE, DPI = (6.4, 4.0), 110
RELEASED = {"color": "0.6", "linestyle": "--", "label": "released formula (undecodable)"}
LINES: tuple[tuple[Value, dict[str, Any]], ...] = (
    (ratio, {"color": "C0", "label": "LM, decoded"}),
    (code_ratio, {"color": "C0", "linestyle": ":", "label": "LM, code length alone"}),
    (released_ratio, RELEASED),
)


def draw(results: Results, out: Path) -> list[Path]:
    """Writes all figures and returns their files."""
    from paper import report

    windows = results.windows()
    codecs = results.codecs([cell for cell in results.short if cell["payload"] == "fp32"])
    return [
        _lines(windows, "window, tokens", codecs, out / "paper_windows.png"),
        _lines(
            report.groups(results),
            "bytes per group",
            results.codecs([cell for cell in results.long if cell["data"] == "cifar10"]),
            out / "paper_groups.png",
        ),
        _bars(report.lossy_rows(results), out / "paper_lossy.png"),
    ]


def _lines(
    groups: dict[Any, list[Cell]], label: str, codecs: dict[str, list[Cell]], path: Path
) -> Path:
    """Sizes over a row of settings, and the best codec."""
    figure, axes = plt.subplots(figsize=SIZE)
    places = range(len(groups))
    for value, style in LINES:
        _error_bars(axes, places, [over(cells, value) for cells in groups.values()], style)
    name, cells = best(codecs)
    if cells:
        axes.axhline(over(cells, ratio).mean, color="C1", label=f"best codec on slices: {name}")
    axes.set_xticks(list(places), [str(key) for key in groups])
    axes.set_xlabel(label)
    axes.set_ylabel("% of raw")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    return _save(figure, path)


def _error_bars(
    axes: Any, places: Sequence[int], figures: list[Any], style: dict[str, Any]
) -> None:
    axes.errorbar(
        places,
        [figure.mean for figure in figures],
        [figure.deviation for figure in figures],
        marker="o",
        markersize=4,
        capsize=3,
        **style,
    )


def _bars(rows: dict[str, dict[str, list[Cell]]], path: Path) -> Path:
    """What a whole lossy gradient takes, side information included."""
    figure, axes = plt.subplots(figsize=(SIZE[0] * 1.25, SIZE[1]))
    methods = ("gzip", "LZMA", "planes", "lmgc", "LM")
    width = 0.8 / len(methods)
    for index, method in enumerate(methods):
        heights = [over(row[method], total_ratio) for row in rows.values()]
        axes.bar(
            [place + width * index for place in range(len(rows))],
            [height.mean if height else 0 for height in heights],
            width,
            yerr=[height.deviation if height else 0 for height in heights],
            label=method if method in ("gzip", "LZMA", "LM") else f"our {method}",
            capsize=2,
        )
    axes.set_xticks([place + 0.4 for place in range(len(rows))], list(rows), rotation=20)
    axes.set_yscale("log")
    axes.set_ylabel("% of fp32, side information included")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3, axis="y")
    return _save(figure, path)


def _save(figure: Any, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, dpi=DPI)
    plt.close(figure)
    return path
