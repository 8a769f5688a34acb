"""The plots of a report: where the bits go, what each bit tells, singular values."""

import math
from collections.abc import Iterator, Sequence

import torch

from lmgc_torch.analyze.report import Field, Report, TensorReport, dtype_name, percent
from lmgc_torch.analyze.svg import Drawing, shortened

__all__ = ["PARTS", "bit_map", "bits_spent", "by_dtype", "spectra"]

WIDTH = 900
NAMES = 230
"""Pixels for names of tensors, at the left."""
ROW = 18
MOST_ROWS = 32
MOST_CURVES = 8
LEAST = 1e-6
"""Singular values below this part of the largest lie on the axis."""

PARTS = {
    "side": "what the decoder knows first: scales, factors, tables",
    "digits": "residuals of predictions",
    "escapes": "residuals too rare for the tables",
    "lanes": "digits that a language model saw",
    "tails": "bits that nothing predicts",
    "planes": "grouped bytes, entropy-coded",
    "raw": "bytes as they are",
    "header": "names, types, checksums",
    "saved": "what is not needed",
}
"""What sections are made of; each has a colour of its own, the class "part-NAME"."""


def bits_spent(report: Report) -> Drawing:
    """Draws for all tensors, and for the largest, what each element's bits become."""
    tensors = largest(report.tensors, MOST_ROWS)
    drawing = Drawing(WIDTH, (len(tensors) + 2) * ROW + 4, "Where the bits go")
    saved = report.raw_bytes - report.expected_bytes
    whole = {**report.sections, "saved": max(0, saved)}
    _bar(drawing, 0, "all tensors", whole, report.ratio)
    for row, tensor in enumerate(tensors, 1):
        saved = tensor.raw_bytes - tensor.expected_bytes
        parts = {**tensor.sections, "saved": max(0, saved)}
        _bar(drawing, row * ROW + 6, tensor.name or "the tensor", parts, tensor.ratio)
    return drawing


def bit_map(tensors: Sequence[TensorReport]) -> Drawing:
    """Draws the entropy of every bit of tensors of one type, a row for each of the largest."""
    shown = largest(tensors, MOST_ROWS)
    fields = shown[0].fields
    bits = sum(part.bits for part in fields)
    gap = 6
    cell = min(24.0, (WIDTH - NAMES - gap * len(fields)) / bits)
    name = dtype_name(shown[0].dtype)
    drawing = Drawing(WIDTH, (len(shown) + 1) * ROW + 4, f"Entropy of every bit of {name} tensors")
    for left, _, part in _columns(fields, cell, gap):
        first = part.name if part.bits * cell > 7 * len(part.name) else part.name[0]
        drawing.text(NAMES + left, 12, first)
    for row, tensor in enumerate(shown, 1):
        y = row * ROW
        drawing.text(0, y + 13, shortened(tensor.name or "the tensor", 33))
        for left, number, part in _columns(tensor.fields, cell, gap):
            for index, entropy in enumerate(part.bit_entropies):
                drawing.rect(
                    NAMES + left + index * cell,
                    y,
                    cell - 1,
                    ROW - 2,
                    class_="heat",
                    fill_opacity=round(entropy, 3),
                    tip=f"{tensor.name}: bit {bits - 1 - number - index}, {part.name}: "
                    f"{entropy:.3f} bits",
                )
    return drawing


def spectra(report: Report) -> Drawing | None:
    """Draws the singular values of the largest matrices, None if there is no matrix."""
    matrices = [tensor for tensor in report.tensors if tensor.spectrum is not None]
    shown = [(t, t.spectrum) for t in largest(matrices, MOST_CURVES) if t.spectrum is not None]
    shown = [(tensor, spectrum) for tensor, spectrum in shown if spectrum.values]
    if not shown:
        return None
    left, right, top, bottom = 60, 600, 10, 290
    last = max(spectrum.indices[-1] for _, spectrum in shown)
    decades = round(-math.log10(LEAST))

    def x(index: int) -> float:
        return left + (right - left) * math.log(index) / math.log(last)

    def y(value: float) -> float:
        return top - (bottom - top) * math.log10(max(value, LEAST)) / decades

    drawing = Drawing(WIDTH, bottom + 46, "Singular values of the largest matrices")
    for decade in range(decades + 1):
        height = y(10.0**-decade)
        drawing.line(left, height, right, height, class_="grid")
        drawing.text(left - 8, height + 4, f"1e-{decade}" if decade else "1", anchor="end")
    for power in range(0, last.bit_length(), 2):
        drawing.text(x(1 << power), bottom + 18, str(1 << power), anchor="middle")
    drawing.text((left + right) / 2, bottom + 38, "singular values, largest first", anchor="middle")
    for number, (tensor, spectrum) in enumerate(shown):
        style = f"curve curve-{number}"
        rank = f"effective rank {spectrum.effective_rank:.1f} of {spectrum.full_rank}"
        points = [(x(i), y(v)) for i, v in zip(spectrum.indices, spectrum.values, strict=True)]
        drawing.polyline(points, class_=style, tip=f"{tensor.name}: {rank}")
        height = top + 10 + 34 * number
        drawing.line(right + 20, height - 4, right + 44, height - 4, class_=style)
        drawing.text(right + 52, height, shortened(tensor.name or "the tensor", 34))
        drawing.text(right + 52, height + 15, rank)
    return drawing


def by_dtype(report: Report) -> list[list[TensorReport]]:
    """Returns the tensors by their type, types of most bytes first; without empty ones."""
    by_type: dict[torch.dtype, list[TensorReport]] = {}
    for tensor in report.tensors:
        if tensor.elements:
            by_type.setdefault(tensor.dtype, []).append(tensor)
    return sorted(by_type.values(), key=lambda group: -sum(t.raw_bytes for t in group))


def largest(tensors: Sequence[TensorReport], most: int) -> list[TensorReport]:
    """Returns the largest tensors, in the order of the report."""
    chosen = sorted(range(len(tensors)), key=lambda i: (-tensors[i].raw_bytes, i))[:most]
    return [tensors[i] for i in sorted(chosen)]


def _bar(drawing: Drawing, y: float, name: str, parts: dict[str, int], ratio: float) -> None:
    """Draws one line: a name, its bytes by what they become, and how many are left."""
    drawing.text(0, y + 13, shortened(name, 33))
    whole = sum(parts.values())
    left, width = float(NAMES), WIDTH - NAMES - 60
    for part in PARTS:
        size = parts.get(part, 0)
        if size == 0:
            continue
        length = width * size / whole
        tip = f"{name}: {part} {size:,} bytes, {percent(size, whole):.1f} %"
        drawing.rect(left, y, length, ROW - 3, class_=f"part-{part}", tip=tip)
        left += length
    drawing.text(WIDTH, y + 13, f"{ratio:.1f} %", anchor="end")


def _columns(
    fields: Sequence[Field], cell: float, gap: float
) -> Iterator[tuple[float, int, Field]]:
    """Yields for each field: its left edge, how many bits lie before it, and the field."""
    left, before = 0.0, 0
    for part in fields:
        yield left, before, part
        left += part.bits * cell + gap
        before += part.bits
