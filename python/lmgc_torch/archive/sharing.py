"""Which tensors share their elements, so that these are stored once."""

import bisect
import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from lmgc_torch.archive.container import Geometry, last_element


@dataclasses.dataclass(frozen=True)
class View:
    """A tensor that need not be stored: it is a view of the one at the position `of`."""

    of: int
    geometry: Geometry | None


def find_views(tensors: Sequence[torch.Tensor]) -> list[View | None]:
    """Finds the tensors whose elements belong to another one of the list.

    That one has the same storage and type, and either is the same view of it, or a contiguous one
    of all elements between its first and last.

    Args:
        tensors: Dense tensors.

    Returns:
        For each tensor what it is a view of, or None: it must be stored. What others are views of
        must be stored.
    """
    views: list[View | None] = [None] * len(tensors)
    storages: dict[Any, list[int]] = {}
    for position, tensor in enumerate(tensors):
        if tensor.numel() and tensor.layout == torch.strided and not tensor.is_meta:
            key = (
                *(tensor.device, tensor.untyped_storage().data_ptr(), tensor.dtype),
                *(tensor.is_conj(), tensor.is_neg()),
            )
            storages.setdefault(key, []).append(position)
    for group in storages.values():
        if len(group) > 1:
            _find_in_storage(tensors, group, views)
    return views


def _find_in_storage(
    tensors: Sequence[torch.Tensor], group: list[int], views: list[View | None]
) -> None:
    geometries = {position: _geometry(tensors[position]) for position in group}
    # Contiguous tensors that lie within no other one: both their ends go up.
    widest: list[int] = []
    ends: list[int] = []
    spans = {
        position: (geometry.offset, last_element(geometry))
        for position, geometry in geometries.items()
    }
    for position in sorted(
        (position for position in group if tensors[position].is_contiguous()),
        key=lambda position: (spans[position][0], -spans[position][1]),
    ):
        if not ends or spans[position][1] > ends[-1]:
            widest.append(position)
            ends.append(spans[position][1])
    starts = [spans[position][0] for position in widest]
    first: dict[Geometry, int] = {}
    for position in group:
        geometry = geometries[position]
        begin, end = spans[position]
        place = bisect.bisect_right(starts, begin) - 1
        if place >= 0 and end <= ends[place]:
            of = widest[place]
            if of != position:
                same = geometries[of] == geometry
                views[position] = View(of, None if same else _within(geometry, starts[place]))
        elif geometry in first:
            views[position] = View(first[geometry], None)
        else:
            first[geometry] = position


def _geometry(tensor: torch.Tensor) -> Geometry:
    return Geometry(int(tensor.storage_offset()), tuple(tensor.shape), tuple(tensor.stride()))


def _within(geometry: Geometry, start: int) -> Geometry:
    return Geometry(geometry.offset - start, geometry.size, geometry.stride)
