"""Reads an archive: its index at once, its frames when their tensors are asked for."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lmgc_torch import api, files
from lmgc_torch.api import PriorLike
from lmgc_torch.archive.container import (
    FrameEntry,
    Index,
    TensorEntry,
    header_checksum,
    is_frame,
    last_element,
    positions_in_frames,
    read_index,
)
from lmgc_torch.archive.identity import Needed
from lmgc_torch.archive.info import ArchiveInfo
from lmgc_torch.archive.writer import loaded
from lmgc_torch.errors import CorruptArchiveError, ReferenceMismatchError, TooLargeError
from lmgc_torch.frame_info import FrameInfo, TensorInfo

if TYPE_CHECKING:  # it reads archives itself
    from lmgc_torch.archive.reference import Reference


class ArchiveReader:
    """Gives random access to the tensors of an archive that lies in memory or is mapped into it.

    A single frame is read as an archive of its tensors: of the names that it remembers, else of
    their numbers.
    """

    def __init__(
        self,
        data: torch.Tensor,
        *,
        device: torch.device | str = "cpu",
        prior: PriorLike | None = None,
        reference: "Reference | None" = None,
        max_bytes: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Reads the index.

        Args:
            data: The bytes of the archive or frame, uint8 of shape [bytes] on the CPU.
            device: Where tensors shall be decoded and lie.
            prior: As for `lmgc_torch.decompress`; a file is loaded once.
            reference: What the archive was made relative to, looked at if it needs one.
            max_bytes: The most bytes of tensors that one call may decode, those of a frame or of
                all, and that a view may show; None: as many as they like. What the reference holds
                does not count.
            progress: Called with the bytes of tensors that have been decoded since the last time.

        Raises:
            CorruptArchiveError: The bytes are no archive, or its index is damaged.
            CorruptFrameError: They are a frame whose header is damaged.
            ReferenceMismatchError: The archive was made with another reference.
            ValueError: `max_bytes` is negative.
        """
        self._data = data
        self._max_bytes = api.checked_max_bytes(max_bytes)
        self._device = torch.device(device)
        self._prior = prior
        self._reference = reference
        self._progress = progress
        self._cached: tuple[int, list[torch.Tensor]] | None = None
        self._cached_info: tuple[int, FrameInfo] | None = None
        self.index = _index_of_frame(data) if is_frame(self._view()) else read_index(self._view())
        self._positions = positions_in_frames(self.index.tensors, len(self.index.frames))
        self._by_name = {entry.name: i for i, entry in enumerate(self.index.tensors)}
        if reference is not None and self.index.reference is not None:
            reference.check(self.index.reference, self._needed())

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        device: torch.device | str = "cpu",
        prior: PriorLike | None = None,
        reference: "Reference | None" = None,
        max_bytes: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> "ArchiveReader":
        """Opens a file, mapped into memory."""
        data = files.map_file(Path(path))
        return cls(
            data,
            device=device,
            prior=prior,
            reference=reference,
            max_bytes=max_bytes,
            progress=progress,
        )

    @property
    def bytes(self) -> int:
        """The size of the file."""
        return self._data.numel()

    @property
    def names(self) -> list[str]:
        """The tensors' names, in the archive's order."""
        return list(self._by_name)

    @property
    def needs_reference(self) -> bool:
        """Whether nothing is decoded without a reference; of a frame, whether something is not."""
        if self.index.version > 0:
            return self.index.reference is not None
        return any(tensor.needs_reference for tensor in self.frame_info(0).tensors)

    def position(self, name: str) -> int:
        """Returns the position of a tensor.

        Raises:
            KeyError: There is no such tensor.
        """
        if name not in self._by_name:
            raise KeyError(f"the archive has no tensor {name!r}")
        return self._by_name[name]

    def frame(self, number: int) -> torch.Tensor:
        """Returns the bytes of a frame, once it is clear that it is the one that was written there.

        Raises:
            CorruptArchiveError: It is another.
        """
        entry = self.index.frames[number]
        frame = self._data.narrow(0, entry.offset, entry.size)
        if header_checksum(frame.numpy().data) != entry.checksum:
            raise CorruptArchiveError(f"frame {number} is damaged: it is not the one of the index")
        return frame

    def frame_info(self, number: int) -> FrameInfo:
        """Returns what a frame holds; only its header is read."""
        cached = self._cached_info
        if cached is None or cached[0] != number:
            info = api.info(self.frame(number))
            self._check_count(number, len(info.tensors))
            self._cached_info = cached = number, info
        return cached[1]

    def info(self) -> ArchiveInfo:
        """Returns what the archive holds; of its frames only the headers are read."""
        infos = [self.frame_info(number) for number in range(len(self.index.frames))]
        return ArchiveInfo.of(self.index, infos, self.bytes)

    def tensor_info(self, position: int) -> TensorInfo:
        """Returns the description of a stored tensor; of a view, that of the tensor it is part of.

        Its name is that of the frame, if any.
        """
        of = self.index.tensors[position].view_of
        stored = position if of is None else of
        number = self.index.tensors[stored].frame
        assert number is not None
        return self.frame_info(number).tensors[self._positions[number].index(stored)]

    def shape(self, position: int) -> tuple[int, ...]:
        """Returns a tensor's sizes, those of a view too."""
        geometry = self.index.tensors[position].geometry
        return tuple(self.tensor_info(position).shape) if geometry is None else geometry.size

    def tensor(self, position: int) -> torch.Tensor:
        """Decodes a tensor; a new one with every call.

        Of the frames that hold several tensors, which are small, the last one is kept.

        Raises:
            CorruptFrameError: Its frame is damaged.
            TooLargeError: Its frame announces more than `max_bytes`.
            PriorMismatchError: It was made with another prior.
            ReferenceMismatchError: The archive needs a reference, and there is none.
        """
        entry = self.index.tensors[position]
        if entry.view_of is not None:
            return self.view_of(entry, self.tensor(entry.view_of))
        assert entry.frame is not None
        held = self._positions[entry.frame]
        if len(held) == 1:
            return self.decode(entry.frame)[0]
        cached = self._cached  # another thread may replace it
        if cached is None or cached[0] != entry.frame:
            self._cached = None
            self._cached = cached = entry.frame, self.decode(entry.frame)
        return cached[1][held.index(position)].clone()

    def tensors(self) -> list[torch.Tensor]:
        """Decodes all tensors, in the archive's order; views share the elements of others.

        Raises:
            TooLargeError: The frames together announce more than `max_bytes`; nothing was decoded.
            CorruptFrameError, PriorMismatchError, ReferenceMismatchError: As for `tensor`.
        """
        self.check_all(views=False)
        result: list[torch.Tensor | None] = [None] * len(self.index.tensors)
        for number, held in enumerate(self._positions):
            for position, tensor in zip(held, self.decode(number), strict=True):
                result[position] = tensor
        for position, entry in enumerate(self.index.tensors):
            if entry.view_of is not None:
                base = result[entry.view_of]
                assert base is not None
                result[position] = self.view_of(entry, base)
        return [tensor for tensor in result if tensor is not None]

    def decode(self, number: int) -> list[torch.Tensor]:
        """Decodes the tensors of a frame."""
        entry = self.index.reference
        if entry is not None and self._reference is None:
            raise ReferenceMismatchError(
                f"the archive was made with {entry} and decodes with it alone: pass it as reference"
            )
        self._prior = loaded(self._prior, self._device)
        frame = self.frame(number)
        moved = frame if self._device.type == "cpu" else frame.to(self._device)
        references = self._references(number)
        content = api.decompress(
            moved,
            prior=None if references else self._prior,
            reference=references,
            max_bytes=self._max_bytes,
        )
        if isinstance(content, torch.Tensor):
            content = [content]
        tensors = list(content.values() if isinstance(content, dict) else content)
        self._check_count(number, len(tensors))
        if self._progress is not None:
            self._progress(sum(tensor.nbytes for tensor in tensors))
        return tensors

    def check_all(self, *, views: bool) -> None:
        """Looks whether all tensors together have at most `max_bytes`; decodes nothing.

        Args:
            views: Whether those that share their elements count as if each had its own.

        Raises:
            TooLargeError: They have more.
        """
        if self._max_bytes is None:
            return
        announced = sum(
            self.frame_info(number).raw_bytes for number in range(len(self.index.frames))
        )
        if views:
            announced += sum(
                math.prod(self.shape(position)) * self.tensor_info(position).dtype.itemsize
                for position, entry in enumerate(self.index.tensors)
                if entry.view_of is not None
            )
        self.check_bytes(announced, "the archive")

    def check_bytes(self, count: int, what: str) -> None:
        """Raises a TooLargeError if that many bytes are more than `max_bytes`."""
        if self._max_bytes is not None and count > self._max_bytes:
            raise TooLargeError(
                f"{what} announces {count} bytes of tensors, and max_bytes is {self._max_bytes}"
            )

    def positions(self, number: int) -> list[int]:
        """Returns the positions of the tensors of a frame."""
        return self._positions[number]

    def view_of(self, entry: TensorEntry, base: torch.Tensor) -> torch.Tensor:
        """Returns the elements of `base`, a stored tensor, that an entry speaks of."""
        if entry.geometry is None:
            return base.detach()
        if last_element(entry.geometry) > base.numel():
            raise CorruptArchiveError(f"tensor {entry.name!r} is a view beyond its tensor's end")
        self.check_bytes(math.prod(entry.geometry.size) * base.itemsize, f"view {entry.name!r}")
        return base.as_strided(entry.geometry.size, entry.geometry.stride, entry.geometry.offset)

    def _needed(self, number: int | None = None) -> list[Needed]:
        """Returns the tensors of the reference that a frame needs, or all of them, in order."""
        numbers = range(len(self.index.frames)) if number is None else [number]
        needed = {
            position: Needed(self.index.tensors[position].name, tensor.dtype, tuple(tensor.shape))
            for n in numbers
            for position, tensor in zip(self._positions[n], self.frame_info(n).tensors, strict=True)
            if tensor.needs_reference
        }
        return [needed[position] for position in sorted(needed)]

    def _references(self, number: int) -> dict[str, torch.Tensor] | list[torch.Tensor] | None:
        """Returns what a frame was compressed relative to; None if it was not."""
        needed = self._needed(number)
        if needed and self.index.version > 0 and self.index.reference is None:
            raise CorruptArchiveError(
                f"frame {number} needs a reference, and the index speaks of none"
            )
        if not needed or self._reference is None:
            return None
        found = {one.name: self._reference.tensor(one) for one in needed}
        known = {name: tensor for name, tensor in found.items() if tensor is not None}
        if self.frame_info(number).kind == "dict":
            return known
        names = [self.index.tensors[position].name for position in self._positions[number]]
        return [known.get(name, torch.empty(0)) for name in names]

    def _view(self) -> memoryview:
        return self._data.numpy().data

    def _check_count(self, number: int, count: int) -> None:
        expected = len(self._positions[number])
        if count != expected:
            raise CorruptArchiveError(
                f"frame {number} holds {count} tensors, and the index names {expected} of it"
            )


def _index_of_frame(data: torch.Tensor) -> Index:
    """Returns the index of an archive that would hold a single frame."""
    info = api.info(data)
    names = [str(i) if t.name is None else t.name for i, t in enumerate(info.tensors)]
    leaves = [{"tensor": i} for i in range(len(names))]
    root: object = leaves if info.kind == "list" else leaves[0] if info.kind == "tensor" else None
    if info.kind == "dict":
        root = {"dict": [list(pair) for pair in zip(names, leaves, strict=True)]}
    entry = FrameEntry(0, data.numel(), header_checksum(data.numpy().data))
    return Index(
        (entry,), tuple(TensorEntry(name, 0) for name in names), object={"root": root}, version=0
    )
