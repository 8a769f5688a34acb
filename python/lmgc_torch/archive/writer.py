"""Writes an archive to a stream, frame by frame."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import torch

from lmgc_torch import api, form
from lmgc_torch.api import Method, PriorLike
from lmgc_torch.archive.container import (
    HEAD,
    MOST_DIMENSIONS,
    FrameEntry,
    Geometry,
    Index,
    TensorEntry,
    header_checksum,
    write_index,
    write_trailer,
)
from lmgc_torch.archive.identity import REFER, Needed, digest
from lmgc_torch.archive.info import ArchiveInfo
from lmgc_torch.archive.sharing import find_views
from lmgc_torch.frame_info import FrameInfo
from lmgc_torch.prior import Prior, bundled

if TYPE_CHECKING:  # it reads archives, and a reader loads priors as a writer does
    from lmgc_torch.archive.reference import Reference

SMALL_BYTES = 1 << 18
"""Tensors of fewer bytes share a frame."""
GROUP_BYTES = 1 << 20
"""A shared frame is closed when its tensors have so many."""
BYTES_OF_A_TENSOR = 1 << 8
"""What a tensor counts beside its bytes, so that a frame has thousands at most."""


class ArchiveWriter:
    """Writes tensors to a file that need not seek, a pipe for example.

    It needs memory for one frame at a time, and keeps a group of small tensors; what is added must
    not change before `finish`. Without `finish` what was written is no archive.
    """

    def __init__(
        self,
        file: BinaryIO,
        *,
        method: Method = "auto",
        prior: PriorLike | None = None,
        reference: "Reference | None" = None,
        progress: Callable[[int], None] | None = None,
        **options: Any,
    ) -> None:
        """Begins an archive.

        Args:
            file: What to write to.
            method: As for `lmgc_torch.compress`.
            prior: As for `lmgc_torch.compress`; a file is loaded once.
            reference: What tensors of the same name, type and shape are told relative to, where
                that is smaller.
            progress: Called with the bytes of tensors that have been compressed since the last
                time.
            **options: More of them.
        """
        self._file = file
        self._method = method
        self._prior = prior
        self._reference = reference if method in api.REFERS else None
        self._needed: dict[int, tuple[Needed, bytes]] = {}  # of the reference, by position
        self._progress = progress
        self._options = options
        self._offset = 0
        self._frames: list[FrameEntry] = []
        self._tensors: list[TensorEntry] = []
        self._names: set[str] = set()
        self._pending: dict[torch.device, _Group] = {}
        self._infos: list[FrameInfo] = []
        self._write(HEAD)

    def add(self, name: str, tensor: torch.Tensor) -> int:
        """Adds a tensor and returns its position.

        Raises:
            TypeError: It is no tensor.
            ValueError: There is a tensor of that name, or frames cannot hold it; the message names
                it.
        """
        form.flatten({name: tensor})  # raises
        if tensor.dim() > MOST_DIMENSIONS:
            raise ValueError(
                f"tensor {name!r} has {tensor.dim()} dimensions; a frame holds {MOST_DIMENSIONS} "
                "at most"
            )
        position = self._enter(TensorEntry(name))
        if tensor.nbytes >= SMALL_BYTES:
            self._write_frame([position], [tensor])
            return position
        group = self._pending.setdefault(tensor.device, _Group())
        group.positions.append(position)
        group.tensors.append(tensor)
        group.bytes += tensor.nbytes + BYTES_OF_A_TENSOR
        if group.bytes >= GROUP_BYTES:
            self._end_group(tensor.device)
        return position

    def add_view(self, name: str, of: int, geometry: Geometry | None = None) -> int:
        """Adds a name for elements of a tensor that has the position `of`, now or later."""
        return self._enter(TensorEntry(name, None, of, geometry))

    def finish(
        self,
        *,
        metadata: Mapping[str, str] | None = None,
        object: dict[str, Any] | None = None,
        file: dict[str, Any] | None = None,
    ) -> ArchiveInfo:
        """Writes what is left, index and trailer; the file is not closed.

        Args:
            metadata: Texts by key.
            object: Under "root" the tree of `objects.encode`, if the tensors are an object's.
            file: What the archive was made of.

        Returns:
            What the archive holds.
        """
        for device in list(self._pending):
            self._end_group(device)
        texts = None if metadata is None else dict(metadata)
        reference = None
        if self._reference is not None and self._needed:
            reference = self._reference.entry(dict(self._needed[i] for i in sorted(self._needed)))
        index = Index(tuple(self._frames), tuple(self._tensors), texts, object, file, reference)
        stored, plain_size = write_index(index)
        trailer = write_trailer(self._offset, stored, plain_size)
        self._write(stored)
        self._write(trailer)
        return ArchiveInfo.of(index, self._infos, self._offset)

    def _enter(self, entry: TensorEntry) -> int:
        if entry.name in self._names:
            raise ValueError(f"there is a tensor {entry.name!r} already")
        self._names.add(entry.name)
        self._tensors.append(entry)
        return len(self._tensors) - 1

    def _end_group(self, device: torch.device) -> None:
        group = self._pending.pop(device)
        self._write_frame(group.positions, group.tensors)

    def _write_frame(self, positions: list[int], tensors: list[torch.Tensor]) -> None:
        names = [self._tensors[position].name for position in positions]
        self._prior = loaded(self._prior, tensors[0].device)
        references = self._references(names, tensors)
        try:
            frame = api.compress(
                tensors,
                method=self._method,
                prior=self._prior,
                reference=references or None,
                **self._options,
            ).cpu()
        except ValueError as error:
            if len(names) == 1:
                raise ValueError(f"tensor {names[0]!r}: {error}") from error
            raise ValueError(f"tensors {names[0]!r} to {names[-1]!r}: {error}") from error
        data = frame.numpy().data
        for position, name in zip(positions, names, strict=True):
            self._tensors[position] = TensorEntry(name, len(self._frames))
        self._frames.append(FrameEntry(self._offset, len(data), header_checksum(data)))
        self._write(data)
        self._infos.append(info := api.info(frame))
        for position, name, tensor, told, reference in zip(
            positions, names, tensors, info.tensors, references or tensors, strict=True
        ):
            if told.needs_reference:
                needed = Needed(name, tensor.dtype, tuple(tensor.shape))
                self._needed[position] = needed, digest(needed, reference)
        if self._progress is not None:
            self._progress(self._infos[-1].raw_bytes)

    def _references(self, names: list[str], tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        """Returns a reference for each tensor, empty where it has none; [] if none has one."""
        if self._reference is None:
            return []
        found = [
            self._reference.tensor(Needed(name, tensor.dtype, tuple(tensor.shape)))
            if tensor.dtype in REFER
            else None
            for name, tensor in zip(names, tensors, strict=True)
        ]
        if all(tensor is None for tensor in found):
            return []
        return [torch.empty(0) if tensor is None else tensor for tensor in found]

    def _write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._offset += len(data)


class _Group:
    """Small tensors of one device that wait for more."""

    def __init__(self) -> None:
        self.positions: list[int] = []
        self.tensors: list[torch.Tensor] = []
        self.bytes = 0


def add_tensors(
    writer: ArchiveWriter,
    tensors: Sequence[tuple[str, torch.Tensor]],
    device: torch.device | str | None = None,
) -> None:
    """Adds named tensors, those that share their elements once; moves them to `device` before."""
    views = find_views([tensor for _, tensor in tensors])
    for (name, tensor), view in zip(tensors, views, strict=True):
        if view is None:
            writer.add(name, tensor if device is None else tensor.to(device))
        else:
            writer.add_view(name, view.of, view.geometry)


def loaded(prior: PriorLike | None, device: torch.device) -> PriorLike | None:
    """Loads a prior that is a file, so that it need not be loaded for every frame."""
    if isinstance(prior, str | os.PathLike) and prior not in bundled():
        return Prior.load(prior, device)
    return prior
