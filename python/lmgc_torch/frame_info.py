"""What `lmgc_torch.info` returns: the description of a frame, and its table."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

__all__ = ["FrameInfo", "TensorInfo"]

# Those whose bits per element say something, and what their sections are spent on.
RESIDUAL_METHODS = frozenset({"scale", "lowrank", "lm"})
RESIDUAL_PARTS = ("side", "digits", "escapes", "lanes", "tails")


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a frame.

    Attributes:
        name: Its name in a dict, else None.
        dtype: Its element type.
        shape: Its sizes.
        method: How it is coded: "raw", "planes", "scale", "lowrank", "lm" or "lmgc".
        rank: The components of its low-rank prediction; 0 for methods other than "lowrank" and
            "lm".
        raw_bytes: Its size before.
        section_bytes: Its size in the frame, without its part of the header. Where it is joined:
            its part of the common section, by its bytes.
        sections: `section_bytes` by what they are spent on. For "scale" and "lowrank": "side" (all
            that the decoder knows before the first element: scales, factors, tables), "digits" (the
            residuals), "escapes" (residuals too rare for the tables) and "tails" (what is left of
            the elements inside their bins). For "lm": "side" (scales, and where the rest lies),
            "lanes" (the digits of factors and residuals) and "tails" (what is left of them). For
            "lmgc": "side", "lanes" (the digits that the model saw) and "tails" (the others).
        needs_reference: Whether it was compressed relative to a reference, which decompressing
            needs, too.
        spare_bits: The bits at the low end of the mantissa that no element uses and that are not
            stored, as of a float32 tensor that holds bfloat16 values; 0 if there are none.
        spare_exponents: The exponents at the low end of the format that are not stored either.
        joined: Whether it is coded as one with other small tensors of its type.
    """

    name: str | None
    dtype: torch.dtype
    shape: tuple[int, ...]
    method: str
    rank: int
    raw_bytes: int
    section_bytes: int
    sections: dict[str, int]
    needs_reference: bool = False
    spare_bits: int = 0
    spare_exponents: int = 0
    joined: bool = False

    @property
    def ratio(self) -> float:
        """`section_bytes` in % of `raw_bytes`; 100 for an empty tensor."""
        return _percent(self.section_bytes, self.raw_bytes)

    @property
    def elements(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)

    @property
    def bits_per_element(self) -> dict[str, float]:
        """`sections` in bits for each element; 0 for an empty tensor."""
        count = max(1, self.elements)
        return {part: 8 * size / count for part, size in self.sections.items()}


class Sizes:
    """What tensors take, before and after; for frames and archives alike."""

    tensors: tuple[TensorInfo, ...]
    bytes: int
    header_bytes: int

    @property
    def method(self) -> str:
        """How the tensors are coded: the method of all, or "mixed", or "none" without tensors."""
        methods = {tensor.method for tensor in self.tensors}
        if len(methods) > 1:
            return "mixed"
        return methods.pop() if methods else "none"

    @property
    def raw_bytes(self) -> int:
        """The size of all tensors before."""
        return sum(tensor.raw_bytes for tensor in self.tensors)

    @property
    def sections(self) -> dict[str, int]:
        """All bytes by what they are spent on, over all tensors; they add up to `bytes`."""
        total = {"header": self.header_bytes}
        for tensor in self.tensors:
            for name, size in tensor.sections.items():
                total[name] = total.get(name, 0) + size
        return total

    @property
    def ratio(self) -> float:
        """`bytes` in % of `raw_bytes`; 100 where there is nothing to compress."""
        return _percent(self.bytes, self.raw_bytes)


@dataclass(frozen=True)
class FrameInfo(Sizes):
    """What a frame holds; ``print`` shows it as a table.

    Attributes:
        version: The version of the frame format.
        kind: What `decompress` returns: "tensor", "list" or "dict".
        tensors: The tensors, in order.
        bytes: The size of the frame.
        header_bytes: The part of it that is the header.
        prior: What the frame says of the prior it needs, by field; None if it needs none.
        needs_past: Whether it decompresses only after the frame before it in a sequence.
        metadata: The text that the frame carries along.
    """

    version: int
    kind: Literal["tensor", "list", "dict"]
    tensors: tuple[TensorInfo, ...]
    bytes: int
    header_bytes: int
    prior: dict[str, Any] | None
    needs_past: bool
    metadata: str

    def __str__(self) -> str:
        lines = table(self.tensors, self)
        spent = ", ".join(f"{name} {size:,}" for name, size in self.sections.items())
        lines.append(f"frame format {self.version}; bytes: {spent}")
        if self.prior is not None:
            lines.append(
                "prior: " + ", ".join(f"{key} {value}" for key, value in self.prior.items())
            )
        if self.needs_past:
            lines.append("needs the frame before it")
        if any(tensor.needs_reference for tensor in self.tensors):
            lines.append("needs the reference that it was compressed relative to")
        return "\n".join(lines)


def table(tensors: Sequence[TensorInfo], whole: Sizes) -> list[str]:
    """Returns the lines of a table of tensors, with what all of them take at its end."""
    told = {p for t in tensors if t.method in RESIDUAL_METHODS for p in t.sections}
    parts = tuple(part for part in RESIDUAL_PARTS if part in told)
    counts = {"rank": [tensor.rank for tensor in tensors]}
    counts["spare"] = [tensor.spare_bits for tensor in tensors]
    shown = {name: column for name, column in counts.items() if any(column)}
    no_counts, no_parts = ("",) * len(shown), ("",) * len(parts)
    rows = [("tensor", "type", "shape", "method", *shown, "bytes", "in frame", "%", *parts)]
    for index, tensor in enumerate(tensors):
        bits = tensor.bits_per_element if tensor.method in RESIDUAL_METHODS else {}
        rows.append(
            (
                str(index) if tensor.name is None else printable(tensor.name),
                str(tensor.dtype).removeprefix("torch."),
                "x".join(map(str, tensor.shape)) or "scalar",
                tensor.method,
                *(str(column[index] or "") for column in shown.values()),
                f"{tensor.raw_bytes:,}",
                f"{tensor.section_bytes:,}",
                f"{tensor.ratio:.1f}",
                *(f"{bits[part]:.2f}" if part in bits else "" for part in parts),
            )
        )
    total = (f"{whole.raw_bytes:,}", f"{whole.bytes:,}", f"{whole.ratio:.1f}")
    header = ("", f"{whole.header_bytes:,}", "")
    rows.append(("header", "", "", "", *no_counts, *header, *no_parts))
    rows.append(("all", "", "", whole.method, *no_counts, *total, *no_parts))
    lines = aligned(rows, left=4)
    if "spare" in shown:
        lines.append("spare: low bits of the mantissa that no element uses and that are not stored")
    if joined := sum(tensor.joined for tensor in tensors):
        lines.append(f"{joined} small tensors are coded as one with others: shown by their bytes")
    if parts:
        lines.append(f"{', '.join(parts)}: in bits for each element")
    return lines


def aligned(rows: Sequence[tuple[str, ...]], left: int) -> list[str]:
    """Returns the lines of a table, its first `left` columns flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 100.0


def printable(name: str) -> str:
    """Returns a name as a line of text shows it."""
    return name if name.isprintable() else repr(name)
