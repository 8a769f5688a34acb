"""Draws images/which_method.svg: which method and which option for what.

``python docs/which_method.py`` writes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from drawing import MONO, box, picture, stack

IMAGE = Path(__file__).resolve().parent / "images" / "which_method.svg"

HEAD, ASK = "#1e293b", "#475569"  # what is compressed, and what is asked
SMALL, FAST, LEARNED = "#b45309", "#1d4ed8", "#7e22ce"  # methods
OPTION, EXACT = "#0f766e", "#64748b"  # options beside them; nothing to choose

LEFT, WIDE, GAP = 200, 210, 8  # widths: of questions, of columns, between
TOP, HIGH = 58, 66  # heights: of headings, of rows


class Cell(NamedTuple):
    """A box in the grid of answers.

    Attributes:
        row: Of the questions, the first one.
        column: The first one.
        rows: How many it takes.
        columns: How many it takes.
        colour: Of the box.
        name: The answer, as it is written in code.
        notes: Lines below it.
    """

    row: int
    column: int
    rows: int
    columns: int
    colour: str
    name: str
    notes: tuple[str, ...]


COLUMNS = (
    ("Gradients", "between ranks, federated"),
    ("Checkpoints", "weights, optimiser states"),
    ("Weights", "models to keep or send"),
    ("Research", "on priors, on LM-GC"),
)
QUESTIONS = (
    ("To begin with",),
    ("Does time count most?",),
    ("Does size count most?",),
    ("Does the receiver hold", "something like it?"),
    ("May last bits be lost?",),
)
CELLS = (
    Cell(0, 0, 1, 1, SMALL, "lowrank", ("in DDP the hook, which", "measures and chooses")),
    Cell(
        0,
        1,
        1,
        2,
        SMALL,
        "auto",
        ("the smallest of raw, planes, scale, lowrank", "for each tensor"),
    ),
    Cell(1, 0, 1, 3, FAST, "planes", ("byte grouping: about 1 GB/s on two cores",)),
    Cell(
        2,
        0,
        1,
        3,
        LEARNED,
        "lm",
        ("lowrank, coded by a small language model: never larger than auto",),
    ),
    Cell(3, 0, 1, 1, OPTION, "past=", ("the step before",)),
    Cell(3, 1, 1, 1, OPTION, "reference=", ("an earlier checkpoint",)),
    Cell(3, 2, 1, 1, OPTION, "reference=", ("the model it was made of",)),
    Cell(4, 0, 1, 1, OPTION, "KeepBits(7)", ("in DDP in the hook's state",)),
    Cell(4, 1, 1, 1, EXACT, "keep them all", ("so that a run goes on exactly",)),
    Cell(4, 2, 1, 1, OPTION, "KeepBits(5)", ("and test the model",)),
    Cell(0, 3, 2, 1, LEARNED, "lmgc", ("LM-GC as published,", "and decodable: slow")),
    Cell(2, 3, 2, 1, OPTION, "prior=", ("any causal language model", "in TorchScript")),
    Cell(4, 3, 1, 1, OPTION, "lmgc export-prior", ("makes one of a checkpoint",)),
)


def left(column: int) -> int:
    """Returns where a column begins."""
    return LEFT + GAP + column * (WIDE + GAP)


def top(row: int) -> int:
    """Returns where a row begins."""
    return TOP + GAP + row * (HIGH + GAP)


def svg() -> str:
    """Returns the picture."""
    width, height = left(len(COLUMNS)) - GAP, top(len(QUESTIONS)) - GAP
    styles = [
        ".head { font-size: 18px; font-weight: 700; } .small { font-size: 12.5px; }",
        ".ask { font-size: 14px; font-weight: 600; }",
        f".name {{ font-family: {MONO}; font-size: 17px; font-weight: 700; }}",
    ]
    parts = [
        box(0, 0, LEFT, TOP, HEAD),
        *stack(LEFT / 2, TOP / 2, [("What do you", "ask", 20), ("compress?", "ask", 20)]),
    ]
    for column, (title, note) in enumerate(COLUMNS):
        parts.append(box(left(column), 0, WIDE, TOP, HEAD))
        lines = [(title, "head", 23), (note, "small", 17)]
        parts += stack(left(column) + WIDE / 2, TOP / 2, lines)
    for row, question in enumerate(QUESTIONS):
        parts.append(box(0, top(row), LEFT, HIGH, ASK))
        parts += stack(LEFT / 2, top(row) + HIGH / 2, [(line, "ask", 19) for line in question])
    for cell in CELLS:
        x, y = left(cell.column), top(cell.row)
        right, bottom = left(cell.column + cell.columns) - GAP, top(cell.row + cell.rows) - GAP
        parts.append(box(x, y, right - x, bottom - y, cell.colour))
        lines = [(cell.name, "name", 22), *((note, "small", 16) for note in cell.notes)]
        parts += stack((x + right) / 2, (y + bottom) / 2, lines)
    return picture("Which method", width, height, styles, parts)


if __name__ == "__main__":
    IMAGE.write_text(svg(), encoding="utf-8")
