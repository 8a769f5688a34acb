"""Expected sizes, by compressing: every size stands for bytes that were decoded and compared."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from lmgc_torch import api, form
from lmgc_torch.analyze.fields import as_words
from lmgc_torch.api import Method, PriorLike, Tensors
from lmgc_torch.errors import LmgcError
from lmgc_torch.frame_info import FrameInfo

__all__ = ["Sizes", "measure", "sample"]

GROUP_BYTES = 256 * 2**20
"""About how many bytes of tensors are compressed at a time."""
BLOCKS = 8
"""Runs of rows that a sample is made of."""


@dataclass(frozen=True)
class Sizes:
    """What methods make of one tensor.

    Attributes:
        bytes: Of its section, by method; "raw" is always among them.
        sections: Of the best method, by what they are spent on.
        best: The method of the fewest bytes, the first of them.
    """

    bytes: dict[str, int]
    sections: dict[str, int]
    best: str


def sample(tensor: torch.Tensor, most: int) -> torch.Tensor:
    """Returns rows of a tensor that has more than `most` elements: runs at equal distances."""
    if tensor.numel() <= most:
        return tensor
    rows = (
        tensor.detach().reshape(tensor.size(0), -1)
        if tensor.dim() > 1
        else tensor.detach().reshape(-1, 1)
    )
    length = min(rows.size(0), max(1, most // rows.size(1)))
    if rows.size(1) > most:  # rows that are too long themselves
        rows = rows[:, :most]
    count = min(BLOCKS, length)
    # The last run ends with the tensor.
    starts = [i * (rows.size(0) - length // count) // max(1, count - 1) for i in range(count)]
    taken = torch.cat([rows[start : start + length // count] for start in starts])
    return taken if tensor.dim() > 1 else taken.flatten()


def measure(
    tensors: Mapping[str, torch.Tensor],
    named: bool,
    methods: Sequence[Method],
    prior: PriorLike | None,
) -> tuple[list[Sizes], int]:
    """Compresses tensors by each of the methods, decompresses them, and compares every bit.

    Args:
        tensors: The tensors.
        named: Whether frames keep their names.
        methods: As `analyze` takes them.
        prior: Likewise.

    Returns:
        The sizes of each tensor, and the bytes of the headers, a frame for each group.
    """
    sizes: list[Sizes] = []
    header = 0
    for group in _groups(tensors):
        what: Tensors = group if named else list(group.values())
        found = [
            {"raw": (size, {"raw": size})}
            for size in (tensor.numel() * tensor.itemsize for tensor in group.values())
        ]
        bases = {"raw": _header_base(api.info(api.compress(what, method="raw")))}
        # Each alone: small tensors of a list are coded as one.
        for entry, (name, tensor) in zip(found, group.items(), strict=True):
            own: Tensors = {name: tensor} if named else [tensor]
            own_base = _header_base(api.info(api.compress(own, method="raw")))
            for method in methods:
                frame = api.compress(own, method=method, prior=prior)
                _compare(own, api.decompress(frame, prior=prior), method)
                about = api.info(frame)
                (told,) = about.tensors
                bases.setdefault(told.method, bases["raw"] + _header_base(about) - own_base)
                if told.method != "raw":  # else it would be larger
                    known = entry.get(told.method)
                    if known is None or told.section_bytes < known[0]:
                        entry[told.method] = (told.section_bytes, dict(told.sections))
        group_sizes = []
        for entry in found:
            best = min(entry, key=lambda method: entry[method][0])
            by_method = {method: size for method, (size, _) in entry.items()}
            group_sizes.append(Sizes(by_method, entry[best][1], best))
        # Short floats are told in the header: up to 4 bytes a tensor that another method may spare.
        header += max((bases[size.best] for size in group_sizes), default=0)
        header += sum(_varint_bytes(size.bytes[size.best]) for size in group_sizes)
        sizes += group_sizes
    return sizes, header


def _header_base(about: FrameInfo) -> int:
    """Returns the bytes of a header that do not depend on how large sections are."""
    return about.header_bytes - sum(_varint_bytes(t.section_bytes) for t in about.tensors)


def _varint_bytes(value: int) -> int:
    """Returns how many bytes a header takes for a number, see docs/format.md, section 1."""
    return max(1, -(-value.bit_length() // 7))


def _groups(tensors: Mapping[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
    """Yields the tensors in order, in parts of one device of about `GROUP_BYTES`."""
    group: dict[str, torch.Tensor] = {}
    size = 0
    for name, tensor in tensors.items():
        device = next((other.device for other in group.values()), tensor.device)
        if size > GROUP_BYTES or tensor.device != device:
            yield group
            group, size = {}, 0
        group[name] = tensor
        size += tensor.numel() * tensor.itemsize
    if group:
        yield group


def _compare(before: Tensors, after: Tensors, method: str) -> None:
    one, keys = form.flatten(before)
    two, other = form.flatten(after)
    same = keys == other and len(one) == len(two)
    if not same or not all(map(torch.equal, map(as_words, one), map(as_words, two))):
        raise LmgcError(f"method {method!r}: what was decompressed differs from what went in")
