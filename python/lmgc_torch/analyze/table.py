"""A report as a table, for terminals."""

import io

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lmgc_torch.analyze.report import CATEGORIES, Report, TensorReport, dtype_name, percent

__all__ = ["HEADINGS", "as_lines", "as_table", "as_text", "in_words", "row_of"]

LEFT = ("tensor", "type", "shape", "why", "best")
RIGHT = ("zeros %", "sign", "exponent", "mantissa", "rank", "bytes", "expected", "%")
HEADINGS = {**dict.fromkeys(LEFT, False), **dict.fromkeys(RIGHT, True)}
"""The columns, and whether they are flush right."""


def as_table(report: Report) -> Table:
    """Returns one row for each tensor, and one for all of them."""
    table = Table(box=None, pad_edge=False, header_style="bold", show_footer=False)
    for name, right in HEADINGS.items():
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for tensor in report.tensors:
        table.add_row(*map(Text, row_of(tensor)))
    table.add_section()
    sums = (f"{report.raw_bytes:,}", f"{report.expected_bytes:,}", f"{report.ratio:.1f}")
    table.add_row("all", "", "", CATEGORIES[report.category], "", *[""] * 5, *sums, style="bold")
    return table


def as_lines(report: Report, downloads: int | None = None) -> list[str]:
    """Returns what the table does not say, as sentences."""
    lines = [
        "sign, exponent, mantissa: entropy in bits for each element; rank: effective, of full",
        "why: " + _shares({CATEGORIES[key]: size for key, size in report.categories.items()}),
        "best: " + _shares(report.best),
        "bytes: " + ", ".join(f"{part} {size:,}" for part, size in report.sections.items()),
    ]
    if report.sampled:
        lines.append("~: expected from a sample of the tensor, which came back bit for bit")
    if downloads is not None:
        saved = in_words(report.saved_bytes(downloads))
        lines.append(f"{downloads:,} downloads a month: {saved} saved a month")
    return lines


def as_text(report: Report, downloads: int | None = None) -> str:
    """Returns the table and the lines below it."""
    table = as_table(report)
    out = io.StringIO()
    wide = Console(file=out, width=10_000)
    wide.width = wide.measure(table).maximum
    wide.print(table)
    return "\n".join(
        [*(line.rstrip() for line in out.getvalue().splitlines()), *as_lines(report, downloads)]
    )


def in_words(size: int) -> str:
    """Returns a number of bytes with a decimal prefix: "1.23 GB"."""
    value, prefixes = float(size), iter(("", "k", "M", "G", "T", "P", "E"))
    prefix = next(prefixes)
    while abs(value) >= 999.5 and (larger := next(prefixes, None)) is not None:
        value, prefix = value / 1000, larger
    return f"{value:.3g} {prefix}B" if prefix else f"{size} B"


def row_of(tensor: TensorReport) -> tuple[str, ...]:
    """Returns a tensor's row, by `HEADINGS`."""
    spectrum = tensor.spectrum
    mantissa = [part.entropy for part in tensor.fields if part.name == "mantissa"]
    why = CATEGORIES[tensor.category]
    return (
        tensor.name if tensor.name.isprintable() else repr(tensor.name),
        dtype_name(tensor.dtype),
        "x".join(map(str, tensor.shape)) or "scalar",
        why if tensor.precision is None else f"{why}: {dtype_name(tensor.precision)}",
        tensor.best,
        f"{100 * tensor.zeros:.1f}",
        _number(tensor.entropy("sign")),
        _number(tensor.entropy("exponent")),
        " ".join(map(_number, mantissa)),
        "" if spectrum is None else f"{spectrum.effective_rank:.1f}/{spectrum.full_rank}",
        f"{tensor.raw_bytes:,}",
        ("~" if tensor.sampled < tensor.elements else "") + f"{tensor.expected_bytes:,}",
        f"{tensor.ratio:.1f}",
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _shares(sums: dict[str, int]) -> str:
    whole = sum(sums.values())
    return ", ".join(f"{name} {percent(size, whole):.1f} %" for name, size in sums.items())
