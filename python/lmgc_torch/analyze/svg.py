"""Drawings as SVG elements; ElementTree escapes what names contain."""

from collections.abc import Sequence
from xml.etree import ElementTree

__all__ = ["Drawing", "shortened"]

Number = int | float


class Drawing:
    """A drawing of a size in pixels, which shrinks with a narrower page."""

    def __init__(self, width: Number, height: Number, label: str) -> None:
        """Begins a drawing; `label` is what screen readers say of it."""
        self.width, self.height = width, height
        size = {"viewBox": f"0 0 {_text(width)} {_text(height)}", "width": _text(width)}
        self._root = ElementTree.Element("svg", {**size, "role": "img", "aria-label": label})

    def rect(
        self,
        x: Number,
        y: Number,
        width: Number,
        height: Number,
        *,
        tip: str = "",
        **attributes: str | Number,
    ) -> None:
        """Draws a rectangle; `tip` appears under the pointer."""
        self._add("rect", tip, x=x, y=y, width=width, height=height, **attributes)

    def line(self, x1: Number, y1: Number, x2: Number, y2: Number, **attributes: str) -> None:
        """Draws a line."""
        self._add("line", "", x1=x1, y1=y1, x2=x2, y2=y2, **attributes)

    def polyline(
        self, points: Sequence[tuple[float, float]], *, tip: str = "", **attributes: str
    ) -> None:
        """Draws lines from point to point."""
        path = " ".join(f"{_text(x)},{_text(y)}" for x, y in points)
        self._add("polyline", tip, points=path, fill="none", **attributes)

    def text(self, x: Number, y: Number, content: str, *, anchor: str = "start") -> None:
        """Writes a line of text whose base is at y."""
        self._add("text", "", x=x, y=y, **{"text-anchor": anchor}).text = content

    def __str__(self) -> str:
        return ElementTree.tostring(self._root, encoding="unicode")

    def _add(self, kind: str, tip: str, **attributes: str | Number) -> ElementTree.Element:
        texts = {
            name.rstrip("_").replace("_", "-"): value if isinstance(value, str) else _text(value)
            for name, value in attributes.items()
        }
        element = ElementTree.SubElement(self._root, kind, texts)
        if tip:
            ElementTree.SubElement(element, "title").text = tip
        return element


def shortened(name: str, letters: int) -> str:
    """Returns a name of at most so many letters: without its middle, where the least differs."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in name)
    if len(printable) <= letters:
        return printable
    tail = 2 * (letters - 1) // 3
    return f"{printable[: letters - 1 - tail]}…{printable[-tail:]}"


def _text(value: Number) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")
