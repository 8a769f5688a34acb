"""What the pictures of these pages share: boxes with centred lines, in SVG.

Nothing is drawn on the bare page: every text has a box of its own, so that a picture can be read on
light pages and on dark ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

SANS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif"
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def box(x: int, y: int, width: int, height: int, colour: str) -> str:
    """Returns a rounded rectangle."""
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="{colour}"/>'


def step(x: int, y: int, width: int, height: int, colour: str, point: int = 12) -> str:
    """Returns a box that points to what comes next, with a notch for what comes before."""
    path = (
        f"M{x} {y}h{width}l{point} {height // 2}l-{point} {height // 2}h-{width}l{point} "
        f"-{height // 2}z"
    )
    return f'<path d="{path}" fill="{colour}"/>'


def text(x: float, y: float, content: str, style: str) -> str:
    """Returns a centred line."""
    return f'<text class="{style}" x="{x:g}" y="{y:g}">{escape(content)}</text>'


def stack(x: float, middle: float, lines: list[tuple[str, str, int]]) -> list[str]:
    """Returns lines (content, style, height) around a middle."""
    y = middle - sum(height for *_, height in lines) / 2
    drawn = []
    for content, style, height in lines:
        y += height
        drawn.append(text(x, y - height * 0.25, content, style))
    return drawn


def picture(
    title: str, width: int, height: int, styles: Iterable[str], parts: Iterable[str]
) -> str:
    """Returns a whole SVG file: `styles` are rules for the classes of texts in `parts`."""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        "<style>",
        f"text {{ font-family: {SANS}; fill: #fff; text-anchor: middle; }}",
        *styles,
        "</style>",
        *parts,
        "</svg>",
        "",
    ]
    return "\n".join(lines)
