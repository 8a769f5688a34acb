"""Picks cells out of `results.json` and shows their means and deviations as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

NOTHING = "-"  # where there are no cells
Cell = dict[str, Any]
Value = Callable[[Cell], float]


class Figure(NamedTuple):
    """A mean over draws with its sample standard deviation (0 with one draw)."""

    mean: float
    deviation: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.deviation:.2f}"


def figure(values: Iterable[float]) -> Figure | None:
    """Returns mean and deviation, None of nothing."""
    known = list(values)
    if not known:
        return None
    return Figure(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else 0.0)


def select(cells: Sequence[Cell], **wanted: Any) -> list[Cell]:
    """Returns the cells, one a draw, whose fields have the wanted values, in the order of draws.

    Raises:
        ValueError: if a draw has several: the fields given are not enough to tell them apart.
    """
    found = [cell for cell in cells if all(cell[name] == value for name, value in wanted.items())]
    found.sort(key=lambda cell: cell["draw"])
    if len({cell["draw"] for cell in found}) != len(found):
        raise ValueError(f"several cells for {wanted}")
    return found


def ratio(cell: Cell) -> float:
    """Decoded size in % of the payload."""
    return 100 * cell["bytes"] / cell["raw_bytes"]


def code_ratio(cell: Cell) -> float:
    """The model's own code length in % of the payload."""
    return 100 * cell["code_length"] / cell["raw_bytes"]


def released_ratio(cell: Cell) -> float:
    """What the released formula reports, in % of the payload."""
    return 100 * cell["released"] / cell["raw_bytes"]


def total_ratio(cell: Cell) -> float:
    """Decoded size and side information in % of the gradient as float32."""
    return 100 * (cell["bytes"] + cell["side_bytes"]) / (4 * cell["floats"])


def over(cells: Sequence[Cell], value: Value) -> Figure | None:
    """The mean and deviation of a value."""
    return figure(value(cell) for cell in cells)


def best(groups: dict[str, list[Cell]], value: Value = ratio) -> tuple[str, list[Cell]]:
    """Returns the group whose mean is least, and its name; ("none", []) if all are empty."""
    known = {name: group for name, group in groups.items() if group}
    if not known:
        return "none", []
    name = min(known, key=lambda name: statistics.fmean(map(value, known[name])))
    return name, known[name]


def gains(ours: Sequence[Cell], theirs: Sequence[Cell], value: Value) -> tuple[str, str]:
    """How much smaller ours are, draw by draw: relative in % and in points."""
    pairs = [(value(a), ratio(b)) for a, b in zip(ours, theirs, strict=True)]
    relative = figure(100 * (1 - a / b) for a, b in pairs)
    points = figure(b - a for a, b in pairs)
    return f"{relative} %", str(points)


def shown(value: Figure | None, undecodable: bool = False) -> str:
    """A table's cell; what no decoder can read is struck through."""
    if value is None:
        return NOTHING
    return f"~~{value}~~ †" if undecodable else str(value)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, the first column aligned left."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
