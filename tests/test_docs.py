"""The chart of methods says what the code does, and README.md leads to every notebook."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import get_args
from xml.etree import ElementTree

import pytest

from lmgc_torch import api, near_lossless

ROOT = Path(__file__).resolve().parents[1]
METHODS = set(get_args(api.Method))


@pytest.fixture(scope="module")
def chart() -> ModuleType:
    """The script that draws which method is for what."""
    spec = importlib.util.spec_from_file_location("which_method", ROOT / "docs/which_method.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_chart_is_what_its_script_draws(chart: ModuleType) -> None:
    assert chart.IMAGE.read_text(encoding="utf-8") == chart.svg()
    texts = [node.text for node in ElementTree.fromstring(chart.svg()).iter() if node.text]
    assert all(cell.name in texts for cell in chart.CELLS)


def test_every_answer_of_the_chart_exists(chart: ModuleType) -> None:
    options = {f"{name}=" for name in ("past", "reference", "prior")}
    names = {cell.name for cell in chart.CELLS if cell.colour != chart.EXACT}
    methods = {cell.name for cell in chart.CELLS if cell.colour not in (chart.OPTION, chart.EXACT)}
    assert methods <= METHODS
    losses = {name for name in names if name.startswith("KeepBits")}
    assert all(near_lossless.KeepBits(int(name[9:-1])) for name in losses)
    assert names == methods | options | losses | {"lmgc export-prior"}


def test_the_boxes_of_the_chart_fill_the_grid_once(chart: ModuleType) -> None:
    places = [
        (row, column)
        for cell in chart.CELLS
        for row in range(cell.row, cell.row + cell.rows)
        for column in range(cell.column, cell.column + cell.columns)
    ]
    assert len(set(places)) == len(places) == len(chart.QUESTIONS) * len(chart.COLUMNS)


def test_the_table_beside_the_chart_has_every_method(chart: ModuleType) -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Which method\n")[1]
    section = section.split("\n## ")[0]
    assert chart.IMAGE.relative_to(ROOT).as_posix() in section
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == METHODS


def test_readme_leads_to_every_notebook() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    paths = [path.relative_to(ROOT) for path in (ROOT / "examples/notebooks").glob("*.ipynb")]
    assert len(paths) > 5
    assert all(f"]({path.as_posix()})" in text for path in paths)
