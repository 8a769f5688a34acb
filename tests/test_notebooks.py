"""The notebooks that compute what they show: run with small sizes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import helpers
import pytest

NOTEBOOKS = Path(__file__).resolve().parents[1] / "examples" / "notebooks"


@pytest.fixture
def plots(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of axes of the plots that a notebook shows."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    shown: list[int] = []

    def show() -> None:
        shown.extend(len(pyplot.figure(number).axes) for number in pyplot.get_fignums())
        pyplot.close("all")

    monkeypatch.setattr(pyplot, "show", show)
    monkeypatch.setenv("LMGC_QUICK", "1")
    return shown


def rows(table: object) -> dict[str, list[float]]:
    """A table in Markdown: its first column to the numbers of the others."""
    lines = [line.strip("| ").split(" | ") for line in str(table).splitlines()[2:]]
    return {name: [float(cell.strip("*")) for cell in cells] for name, *cells in lines}


def test_quick_start(
    plots: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    methods, warm = helpers.run_notebook(NOTEBOOKS / "quick_start.ipynb", monkeypatch)
    for row in rows(methods).values():
        raw, planes, scale, lmgc, lowrank, auto, lm = row
        assert raw > planes > lowrank >= auto >= lm
        assert 20 < lm < scale < 100
        assert lmgc < 100
    assert len(rows(warm)) == 4
    assert plots == [1]
    assert "every bit came back" in capsys.readouterr().out


# Where people's files and temporary ones lie; not what merely ends so in a line of base64.
SOMEBODYS_FOLDER = re.compile(r"(?<![A-Za-z0-9+])/(home|root|tmp|Users)/|[A-Z]:\\\\Users")


def test_whose_folders_are_found() -> None:
    for place in ("home/ada/x.py", "root/x", "tmp/x", "Users/ada"):
        assert SOMEBODYS_FOLDER.search(f'File "/{place}')
        assert SOMEBODYS_FOLDER.search(f"file:///{place}")
    assert SOMEBODYS_FOLDER.search(r"C:\\Users\\ada")
    assert not SOMEBODYS_FOLDER.search("benchmarks/data/tmp/x, iVBOR/tmp/0Kx")


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_outputs_are_whole_and_speak_of_no_machine(path: Path) -> None:
    text = path.read_text()
    notebook = json.loads(text)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert outputs
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not any(output.get("name") == "stderr" for output in outputs)
    assert not SOMEBODYS_FOLDER.search(text)
    assert str(Path.home()) + "/" not in text


def test_why_gradients_compress(plots: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    shown = helpers.run_notebook(NOTEBOOKS / "why_gradients_compress.ipynb", monkeypatch)
    _, sizes, _, halves = shown
    for name, (floor, planes, scale, lowrank) in rows(sizes).items():
        assert lowrank <= scale < 100, name
        assert 60 < floor < 100
        assert 60 < planes < 100
    assert set(rows(halves)) == {"GPT", "ViT", "ConvNet"}
    assert plots == [1, 2, 1, 3, 1]


def test_near_lossless_and_checkpoints(
    plots: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = helpers.run_notebook(NOTEBOOKS / "near_lossless_and_checkpoints.ipynb", monkeypatch)
    promises, short, feedback, accuracy, parts, distances, files = map(rows, shown)
    lossless = promises.pop("as they are")
    assert lossless[0] == lossless[3] == 0
    for worst, _, _, error, size in promises.values():
        assert worst > 0
        assert error > 0
        assert size < lossless[-1] / 2
    half, dressed = short["bfloat16"], short["float32 that holds it"]
    assert (half[0], dressed[0]) == (50, 100)
    assert dressed[-1] == pytest.approx(half[-1], abs=0.5)
    for name in ("TopK(0.1)", "KeepBits(2)"):
        assert feedback[f"{name}, with feedback"][1] < feedback[name][1]
    assert accuracy["none"][0] > accuracy["keep 7 bits"][0] > accuracy["keep 3 bits"][0]
    *_, related = parts.values()
    assert all(a <= b <= c for a, b, c in zip(related, parts["auto"], parts["planes"], strict=True))
    assert related[3] < parts["auto"][3]
    assert distances["1"][3] < distances["alone"][3]
    sizes = [size for size, _ in files.values()]
    assert sizes == sorted(sizes, reverse=True)
    assert plots == [2, 1, 2, 1, 1]
    said = capsys.readouterr().out
    assert said.count("ReferenceMismatchError") == 2
    assert "every bit came back" in said


def test_notebook_estimates_traffic(monkeypatch: pytest.MonkeyPatch):
    cells = helpers.run_notebook(NOTEBOOKS / "traffic.ipynb", monkeypatch)
    models, wav2vec, whole, bound, counted, ours = map(str, cells)
    assert len(models.splitlines()) == 2 + 8
    assert "11.6 PB" in wav2vec  # the paper has 11.7
    assert "1.45 EB" in whole
    assert "1.34 EB" in whole  # without the figure that was not compared with its source
    assert "everything | 182.6 | 2.19" in bound
    assert "2.0" in counted
    ratios = [float(line.split("|")[3]) for line in ours.splitlines()[2:]]
    assert ratios == pytest.approx([82.7, 33.0, 66.0], abs=0.2)
