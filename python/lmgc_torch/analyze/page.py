"""A report as a page: one file, which fetches nothing and runs no script."""

import html
from collections.abc import Iterator, Sequence

from lmgc_torch import __version__
from lmgc_torch.analyze import plots
from lmgc_torch.analyze.report import CATEGORIES, Report, dtype_name
from lmgc_torch.analyze.table import HEADINGS, as_lines, in_words, row_of

__all__ = ["as_page"]

_STYLE = """\
:root { color-scheme: light dark; --ink: #1b1f24; --quiet: #59636e; --page: #ffffff;
  --line: #d1d9e0; --heat: #0b4f9e; --none: #e7ebef;
  --c0: #0b62b5; --c1: #d9730d; --c2: #15803d; --c3: #b42355; --c4: #7048c9; --c5: #0e8a92;
  --c6: #8a6d1a; --c7: #5b6470; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --quiet: #9198a1; --page: #0d1117;
  --line: #3d444d; --heat: #7cb8ff; --none: #222a33;
  --c0: #58a6ff; --c1: #f0883e; --c2: #4cc26a; --c3: #ff7b9c; --c4: #b392f0; --c5: #39c5cf;
  --c6: #d8b648; --c7: #9aa4af; } }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; background: var(--page);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
p { color: var(--quiet); max-width: 46rem; }
dl { display: flex; flex-wrap: wrap; gap: .6rem 2.5rem; } dt { color: var(--quiet); }
dd { margin: 0; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
svg { display: block; max-width: 100%; height: auto; } svg text { fill: var(--ink);
  font: 12px system-ui, sans-serif; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; }
th, td { padding: .25rem .7rem .25rem 0; text-align: left; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
ul.key { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; padding: 0; list-style: none;
  font-size: 13px; } ul.key svg { display: inline; margin-right: .4rem; }
.heat { fill: var(--heat); stroke: var(--line); stroke-width: .5; }
.grid { stroke: var(--line); } .curve { stroke-width: 1.8; fill: none; }
.part-side { fill: var(--c0); } .part-digits { fill: var(--c1); } .part-escapes { fill: var(--c3); }
.part-lanes { fill: var(--c4); } .part-tails { fill: var(--c7); } .part-planes { fill: var(--c5); }
.part-raw { fill: var(--c6); } .part-header { fill: var(--ink); } .part-saved { fill: var(--none); }
.curve-0 { stroke: var(--c0); } .curve-1 { stroke: var(--c1); } .curve-2 { stroke: var(--c2); }
.curve-3 { stroke: var(--c3); } .curve-4 { stroke: var(--c4); } .curve-5 { stroke: var(--c5); }
.curve-6 { stroke: var(--c6); } .curve-7 { stroke: var(--c7); }
"""


def as_page(report: Report, title: str, downloads: int | None = None) -> str:
    """Returns a page with the report.

    Args:
        report: The report.
        title: What it is of, a file's name for example.
        downloads: How often a month the tensors are fetched, to say what that saves.

    Returns:
        HTML, whole and by itself.
    """
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}: what compresses</title>",
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>{html.escape(title)}</h1>",
        *_numbers(report, downloads),
        *_bits_spent(report),
        *_bit_maps(report),
        *_spectra(report),
        *_table(report, downloads),
        f"<p>lmgc_torch {__version__}</p></body></html>",
    ]
    return "\n".join(parts) + "\n"


def _numbers(report: Report, downloads: int | None) -> Iterator[str]:
    numbers = {
        "raw": in_words(report.raw_bytes),
        "expected": in_words(report.expected_bytes),
        "left": f"{report.ratio:.1f} %",
        "most bytes are": CATEGORIES[report.category],
    }
    if downloads is not None:
        numbers[f"saved by {downloads:,} downloads a month"] = in_words(
            report.saved_bytes(downloads)
        )
    yield "<dl>"
    for name, value in numbers.items():
        yield f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
    yield "</dl>"


def _bits_spent(report: Report) -> Iterator[str]:
    yield "<h2>Where the bits go</h2>"
    yield (
        "<p>What the bytes of all tensors, and of the largest, become in a frame. "
        "Each tensor is coded by its best method.</p>"
    )
    present = {"saved", *(part for part, size in report.sections.items() if size)}
    yield '<ul class="key">'
    for part, meaning in plots.PARTS.items():
        if part in present:
            box = f'<svg width="12" height="12"><rect width="12" height="12" class="part-{part}"/>'
            yield f"<li>{box}</svg>{part}: {html.escape(meaning)}</li>"
    yield "</ul>"
    yield str(plots.bits_spent(report))


def _bit_maps(report: Report) -> Iterator[str]:
    yield "<h2>What each bit tells</h2>"
    yield (
        "<p>The entropy of each bit by itself, in the largest tensors, the most significant bit at "
        "the left. A full cell is one bit: nothing to save there without a prediction. An empty "
        "one is always the same.</p>"
    )
    for group in plots.by_dtype(report):
        yield f"<h3>{dtype_name(group[0].dtype)}</h3>"
        yield str(plots.bit_map(group))


def _spectra(report: Report) -> Iterator[str]:
    drawing = plots.spectra(report)
    if drawing is None:
        return
    yield "<h2>Singular values</h2>"
    yield (
        "<p>As parts of the largest, for the largest tensors as matrices. Where they fall fast, "
        "few components predict most of the tensor, and method lowrank saves much.</p>"
    )
    yield str(drawing)


def _table(report: Report, downloads: int | None) -> Iterator[str]:
    yield '<h2>All tensors</h2><div class="scroll"><table><thead>'
    yield _row(list(HEADINGS), "th")
    yield "</thead><tbody>"
    for tensor in report.tensors:
        yield _row(row_of(tensor), "td")
    yield "</tbody></table></div>"
    yield from (f"<p>{html.escape(line)}</p>" for line in as_lines(report, downloads))


def _row(cells: Sequence[str], kind: str) -> str:
    classes = ["number" if right else "" for right in HEADINGS.values()]
    return "".join(
        [
            "<tr>",
            *(
                f'<{kind} class="{name}">{html.escape(cell)}</{kind}>'
                for cell, name in zip(cells, classes, strict=True)
            ),
            "</tr>",
        ]
    )
