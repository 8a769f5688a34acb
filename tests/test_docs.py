"""Pictures and tables of the documentation say what the code does, and name files that exist."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import get_args
from xml.etree import ElementTree

import pytest

from lmgc_torch import api, near_lossless

ROOT = Path(__file__).resolve().parents[1]
METHODS = set(get_args(api.Method))


PAGE = ROOT / "docs/architecture.md"
SUFFIX_OF_ISA = re.compile(r"_(avx2|avx512|vnni)$")


def stems(folder: str) -> set[str]:
    """What a folder of sources has, without the kinds of processor."""
    files = (path for path in (ROOT / folder).iterdir() if path.is_file())
    return {SUFFIX_OF_ISA.sub("", path.name.split(".")[0]) for path in files}


def table(text: str, first: str) -> list[dict[str, str]]:
    """The rows of the Markdown table whose first heading is `first`, by heading."""
    begin = text.index(f"| {first} |")
    lines = text[begin:].split("\n\n")[0].splitlines()
    head, _, *rows = ([cell.strip() for cell in line[1:-1].split("|")] for line in lines)
    return [dict(zip(head, row, strict=True)) for row in rows]


def quoted(text: str) -> list[str]:
    """What stands between backticks, outside blocks of code."""
    return re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


@pytest.fixture(scope="module")
def drawings() -> Iterator[None]:
    """The scripts that draw can be imported, as they import each other."""
    sys.path.insert(0, str(ROOT / "docs"))
    yield
    sys.path.remove(str(ROOT / "docs"))


@pytest.fixture(scope="module")
def chart(drawings: None) -> ModuleType:
    """The script that draws which method is for what."""
    return importlib.import_module("which_method")


@pytest.fixture(scope="module")
def layers(drawings: None) -> ModuleType:
    """The script that draws the architecture."""
    return importlib.import_module("architecture")


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


def test_the_architecture_is_what_its_script_draws(layers: ModuleType) -> None:
    assert layers.IMAGE.read_text(encoding="utf-8") == layers.svg()
    assert f"]({layers.IMAGE.relative_to(ROOT / 'docs').as_posix()})" in PAGE.read_text("utf-8")
    for layer in layers.LAYERS:
        assert sum(columns for columns, _ in layer.boxes) == len(layers.STEPS)
    assert len(layers.BENEATH) == len(layers.STEPS)


@pytest.mark.parametrize("folder", ["csrc/core", "csrc/ops", "csrc/cuda"])
def test_the_architecture_has_every_stem_once(layers: ModuleType, folder: str) -> None:
    names = [
        name
        for layer in layers.LAYERS
        if layer.folder == folder
        for _, box in layer.boxes
        for name in box.split()
    ]
    names += dict(layers.BENEATH)[folder].split()
    assert sorted(name.rstrip("*") for name in names) == sorted(stems(folder))
    versions = (path.stem for path in (ROOT / folder).iterdir() if SUFFIX_OF_ISA.search(path.stem))
    assert {name.rstrip("*") for name in names if name.endswith("*")} == {
        SUFFIX_OF_ISA.sub("", stem) for stem in versions
    }


def test_the_architecture_has_all_of_the_package(layers: ModuleType) -> None:
    folder = ROOT / "python/lmgc_torch"
    there = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    there |= {f"{path.parent.name}/" for path in folder.glob("*/__init__.py")}
    drawn = {
        name
        for layer in layers.LAYERS
        if layer.folder == "python/lmgc_torch"
        for _, box in layer.boxes
        for name in box.split()
    }
    drawn |= set(dict(layers.BENEATH)["python/lmgc_torch"].split())
    assert drawn == {name for name in there if not name.startswith("reference")}


def test_the_table_of_stems_is_complete() -> None:
    rows = table(PAGE.read_text(encoding="utf-8"), "subject")
    for folder in ("csrc/core", "csrc/ops", "csrc/cuda"):
        named = {name for row in rows for name in quoted(row[f"`{folder}`"])}
        assert named == stems(folder)
    for name in (name for row in rows for name in quoted(row["`python/lmgc_torch`"])):
        path = ROOT / "python/lmgc_torch" / name
        assert path.is_dir() or path.with_name(f"{path.name}.py").is_file(), name
    tests = {name for row in rows for name in quoted(row["`tests`"])}
    assert all((ROOT / "tests" / name).is_file() for name in tests)
    for kind in ("core", "cuda"):
        there = {f"{kind}/{path.name}" for path in (ROOT / "tests" / kind).glob("test_*.cpp")}
        assert {name for name in tests if name.startswith(f"{kind}/")} == there
    assert all(row["chapter"].startswith("[") for row in rows)


@pytest.mark.parametrize("name", ["docs/architecture.md", "SECURITY.md", "CONTRIBUTING.md"])
def test_every_file_that_is_named_exists(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    paths = {
        path
        for path in quoted(text)
        if re.fullmatch(r"(csrc|python|tests|docs|benchmarks|examples)/[\w./-]+", path)
        and not re.search("STEM|NAME", path)
    }
    assert len(paths) > 3
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


def test_every_folder_is_named() -> None:
    folders = [path for path in (ROOT / "csrc").iterdir() if path.is_dir()]
    folders += [path.parent for path in (ROOT / "python/lmgc_torch").glob("*/__init__.py")]
    assert len(folders) > 10
    first = [quoted(row["folder"]) for row in table(PAGE.read_text(encoding="utf-8"), "folder")]
    assert {str(path.relative_to(ROOT)) for path in folders} <= {
        name for row in first for name in row
    }


def test_the_way_of_a_tensor_leads_through_functions_that_exist() -> None:
    to_bytes, back = PAGE.read_text(encoding="utf-8").split("### And back")
    steps = table(to_bytes, "function") + table(back, "function")
    assert len(steps) > 30
    for row in steps:
        (function,), (file,) = quoted(row["function"]), quoted(row["file"])
        assert re.search(rf"\b{function}\(", (ROOT / file).read_text(encoding="utf-8")), row


@pytest.mark.parametrize(
    ("folder", "may_use"),
    [("core", {"core"}), ("cuda", {"core", "cuda"}), ("ops", {"core", "cuda", "ops"})],
)
def test_layers_use_only_what_is_below_them(folder: str, may_use: set[str]) -> None:
    texts = [path.read_text("utf-8") for path in (ROOT / "csrc" / folder).iterdir()]
    own = {name for text in texts for name in re.findall(r'#include "([^"]+)"', text)}
    assert {name.split("/")[0] for name in own} == may_use
    if folder != "ops":
        others = {name for text in texts for name in re.findall(r"#include <([^>]+)>", text)}
        foreign = {name for name in others if "/" in name} | ({"cuda_runtime.h"} & others)
        assert foreign <= ({"cuda_runtime.h"} if folder == "cuda" else set())
