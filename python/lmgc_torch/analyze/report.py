"""What `lmgc_torch.analyze` returns: a report of tensors, and sums over them."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

import torch

__all__ = ["CATEGORIES", "Category", "Field", "Report", "Spectrum", "TensorReport"]

Key = TypeVar("Key", bound=str)

Category: TypeAlias = Literal[
    "exponent", "clean", "converted", "incompressible", "zeros", "small", "other"
]

CATEGORIES: dict[Category, str] = {
    "exponent": "exponent only",
    "clean": "clean mantissa",
    "converted": "from lower precision",
    "incompressible": "incompressible",
    "zeros": "only zeros",
    "small": "too small to tell",
    "other": "other",
}
"""What people call the categories; docs/analyze.md has the rule for each."""


@dataclass(frozen=True)
class Field:
    """Some neighbouring bits of each element.

    Attributes:
        name: "sign", "exponent", "mantissa"; "byte" in types that are no floats.
        bits: How many there are in an element.
        entropy: Their entropy in bits for each element, by their frequencies in the tensor.
        bit_entropies: The entropy of each of the bits alone, the most significant first.
    """

    name: str
    bits: int
    entropy: float
    bit_entropies: tuple[float, ...]


@dataclass(frozen=True)
class Spectrum:
    """Singular values of a tensor as a matrix, dimension 0 by all the others.

    Attributes:
        rows: Of the matrix that was looked at.
        columns: Likewise.
        effective_rank: exp of the entropy of the singular values as a distribution (Roy and
            Vetterli, 2007): 1 if there is one, min(rows, columns) if they are all the same.
        values: The singular values as fractions of the largest, descending; at most
            `spectrum.POINTS` of them, the first and the last among them.
        indices: Their places, from 1.
    """

    rows: int
    columns: int
    effective_rank: float
    values: tuple[float, ...]
    indices: tuple[int, ...]

    @property
    def full_rank(self) -> int:
        """The most that the effective rank can be."""
        return min(self.rows, self.columns)


@dataclass(frozen=True)
class TensorReport:
    """One tensor.

    Attributes:
        name: Its name in a dict, its index in a list, "" for a single tensor.
        dtype: Its element type.
        shape: Its sizes.
        category: Why it compresses, see `CATEGORIES`.
        precision: The narrower type that holds all its values, if the category is "converted".
        zeros: The fraction of its elements that are zero (of either sign).
        fields: Sign, exponent and the bytes of the mantissa, the most significant first; plain
            bytes for types that are no floats. Complex numbers count as pairs of floats.
        spectrum: None for tensors of one dimension, with values that are not finite, or no floats.
        raw_bytes: Its size.
        sampled: The elements that were looked at; all of them where this is `elements`.
        sizes: Expected bytes by method, without the tensor's part of the header: what the method
            made of the elements that were looked at, all of which came back bit for bit, in
            proportion.
        sections: The bytes of the best method by what they are spent on, see `TensorInfo`.
        best: The method that makes it smallest.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    category: Category
    precision: torch.dtype | None
    zeros: float
    fields: tuple[Field, ...]
    spectrum: Spectrum | None
    elements: int
    sampled: int
    raw_bytes: int
    sizes: dict[str, int]
    sections: dict[str, int]
    best: str

    @property
    def expected_bytes(self) -> int:
        """By the best method."""
        return self.sizes[self.best]

    @property
    def ratio(self) -> float:
        """`expected_bytes` in % of `raw_bytes`; 100 for an empty tensor."""
        return percent(self.expected_bytes, self.raw_bytes)

    def entropy(self, name: str) -> float | None:
        """The entropy of all fields of a name together, None if there is none."""
        found = [part.entropy for part in self.fields if part.name == name]
        return sum(found) if found else None

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON has it."""
        spectrum = self.spectrum
        return {
            "name": self.name,
            "dtype": dtype_name(self.dtype),
            "shape": list(self.shape),
            "category": self.category,
            "precision": None if self.precision is None else dtype_name(self.precision),
            "zeros": self.zeros,
            "fields": [
                {"name": part.name, "bits": part.bits, "entropy": part.entropy}
                for part in self.fields
            ],
            "bit_entropies": [bit for part in self.fields for bit in part.bit_entropies],
            "effective_rank": None if spectrum is None else spectrum.effective_rank,
            "full_rank": None if spectrum is None else spectrum.full_rank,
            "elements": self.elements,
            "sampled": self.sampled,
            "raw_bytes": self.raw_bytes,
            "expected_bytes": self.expected_bytes,
            "ratio": self.ratio,
            "best": self.best,
            "sizes": self.sizes,
            "sections": self.sections,
        }


@dataclass(frozen=True)
class Report:
    """What compresses in a list of tensors, and why; ``print`` shows it as a table.

    Attributes:
        tensors: The tensors, in order.
        header_bytes: The part of a frame that is the header, names and all.
    """

    tensors: tuple[TensorReport, ...]
    header_bytes: int

    @property
    def raw_bytes(self) -> int:
        """The size of all tensors."""
        return sum(tensor.raw_bytes for tensor in self.tensors)

    @property
    def expected_bytes(self) -> int:
        """The size of a frame of all tensors, each by its best method."""
        return self.header_bytes + sum(tensor.expected_bytes for tensor in self.tensors)

    @property
    def ratio(self) -> float:
        """`expected_bytes` in % of `raw_bytes`; 100 where there is nothing to compress."""
        return percent(self.expected_bytes, self.raw_bytes)

    @property
    def sampled(self) -> bool:
        """Whether some tensor was not looked at as a whole."""
        return any(tensor.sampled < tensor.elements for tensor in self.tensors)

    @property
    def categories(self) -> dict[Category, int]:
        """Raw bytes by category, the largest first."""
        sums: dict[Category, int] = {}
        for tensor in self.tensors:
            sums[tensor.category] = sums.get(tensor.category, 0) + tensor.raw_bytes
        return largest_first(sums)

    @property
    def category(self) -> Category:
        """That of most bytes; "other" if there are none."""
        return next(iter(self.categories), "other")

    @property
    def best(self) -> dict[str, int]:
        """Raw bytes by the method that is best for them, the largest first."""
        sums: dict[str, int] = {}
        for tensor in self.tensors:
            sums[tensor.best] = sums.get(tensor.best, 0) + tensor.raw_bytes
        return largest_first(sums)

    @property
    def sections(self) -> dict[str, int]:
        """`expected_bytes` by what they are spent on."""
        sums = {"header": self.header_bytes}
        for tensor in self.tensors:
            for part, size in tensor.sections.items():
                sums[part] = sums.get(part, 0) + size
        return sums

    def saved_bytes(self, downloads: int) -> int:
        """Bytes that need not travel if the tensors are fetched so often; below 0 if they grow."""
        return downloads * (self.raw_bytes - self.expected_bytes)

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON has it."""
        return {
            "raw_bytes": self.raw_bytes,
            "expected_bytes": self.expected_bytes,
            "header_bytes": self.header_bytes,
            "ratio": self.ratio,
            "sampled": self.sampled,
            "category": self.category,
            "categories": self.categories,
            "best": self.best,
            "sections": self.sections,
            "tensors": [tensor.to_json() for tensor in self.tensors],
        }

    def to_html(self, title: str, downloads: int | None = None) -> str:
        """Returns it as a page with plots: one file that fetches nothing.

        Args:
            title: What the report is of, a file's name for example.
            downloads: How often a month the tensors are fetched, to say what that saves.
        """
        from lmgc_torch.analyze.page import as_page

        return as_page(self, title, downloads)

    def __str__(self) -> str:
        from lmgc_torch.analyze.table import as_text

        return as_text(self)


def largest_first(sums: dict[Key, int]) -> dict[Key, int]:
    """Returns a dict ordered by its values."""
    return dict(sorted(sums.items(), key=lambda pair: -pair[1]))


def percent(part: int, whole: int) -> float:
    """Returns `part` in % of `whole`; 100 of nothing."""
    return 100 * part / whole if whole else 100.0


def dtype_name(dtype: torch.dtype) -> str:
    """Returns "float32" for torch.float32."""
    return str(dtype).removeprefix("torch.")
