"""What archives are made relative to: tensors by name, in memory or in a file."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch

from lmgc_torch import files
from lmgc_torch.api import PriorLike
from lmgc_torch.archive import objects
from lmgc_torch.archive.container import ReferenceEntry, is_archive, is_frame
from lmgc_torch.archive.identity import Needed, digest, identity
from lmgc_torch.archive.reader import ArchiveReader
from lmgc_torch.errors import LmgcError, ReferenceMismatchError

ReferenceLike: TypeAlias = Mapping[Any, Any] | str | os.PathLike[str]


class Reference:
    """Tensors by name that are read when they are asked for.

    Attributes:
        name: The file's name; None for a dict.
        archive: The archive's identity; None for what is none.
    """

    def __init__(
        self, tensors: Mapping[str, torch.Tensor] | ArchiveReader, name: str | None = None
    ) -> None:
        """Takes tensors, or an archive that needs no reference."""
        self._tensors = tensors
        self.name = name
        self.archive: str | None = None
        if isinstance(tensors, ArchiveReader):
            self.archive = tensors.index.identity or None

    @classmethod
    def open(cls, base: ReferenceLike, *, prior: PriorLike | None = None) -> "Reference":
        """Opens a file, or takes a dict or an object as `save` takes it.

        Args:
            base: An archive, a frame, a .safetensors or .pt file, told by its content; or a dict.
            prior: What the archive decodes with, if it needs one.

        Raises:
            TypeError: `base` is something else, or an object that archives do not hold.
            ValueError: The file is none of tensors, or an archive that needs a reference itself.
            CorruptArchiveError: The archive is damaged.
            OSError: The file cannot be read.
        """
        from lmgc_torch.checkpoints import NoTensorsError, read  # which needs archives itself

        if isinstance(base, Mapping):
            pairs = base.items()
            if all(isinstance(k, str) and isinstance(t, torch.Tensor) for k, t in pairs):
                return cls(base)
            return cls(dict(objects.encode(base)[1]))
        if not isinstance(base, str | os.PathLike):
            raise TypeError(
                f"reference is of type {type(base).__name__}; it must be a file or a dict of "
                "tensors by name"
            )
        path = Path(base)
        data = files.map_file(path)
        view = data.numpy().data
        if is_archive(view) or is_frame(view):
            with _named(path.name):
                reader = ArchiveReader(data, prior=prior)
                needs = reader.needs_reference
            if needs:
                raise ValueError(
                    f"the reference {path.name} needs a reference itself: decompress it to a file "
                    "that needs none"
                )
            return cls(reader, path.name)
        try:
            return cls(dict(read(path, f"the reference {path.name}").tensors), path.name)
        except NoTensorsError as error:
            raise ValueError(str(error)) from error

    def tensor(self, needed: Needed) -> torch.Tensor | None:
        """Returns the tensor of that name, on the CPU, if it has that type and shape.

        Raises:
            CorruptFrameError: It is damaged.
            PriorMismatchError: It was made with another prior.
        """
        name, dtype, shape = needed
        if isinstance(self._tensors, ArchiveReader):
            try:
                position = self._tensors.position(name)
            except KeyError:
                return None
            with _named(self.name):
                found = self._tensors.tensor_info(position).dtype, self._tensors.shape(position)
                return self._tensors.tensor(position) if found == (dtype, shape) else None
        tensor = self._tensors.get(name)
        if tensor is None or (tensor.dtype, tuple(tensor.shape)) != (dtype, shape):
            return None
        if tensor.layout != torch.strided or tensor.is_meta:
            return None
        return tensor.detach().resolve_neg().cpu().contiguous()

    def entry(self, digests: Iterable[bytes]) -> ReferenceEntry:
        """Returns what an index tells, of the digests of the tensors that its archive needs."""
        return ReferenceEntry(identity(digests), self.archive, self.name)

    def check(self, entry: ReferenceEntry, needed: Iterable[Needed]) -> None:
        """Looks whether this is the reference that an archive was made with.

        An archive is known by its identity; else all tensors that are needed are read.

        Raises:
            ReferenceMismatchError: It is another.
        """
        if self.archive is not None and self.archive == entry.archive:
            return
        name = self.name or "the one at hand"
        digests = []
        for one in needed:
            tensor = self.tensor(one)
            if tensor is None:
                raise ReferenceMismatchError(
                    f"the archive was made with {entry}, and {name} has no tensor {one.name!r} of "
                    "its type and shape"
                )
            digests.append(digest(one, tensor))
        found = self.entry(digests)
        if found.tensors != entry.tensors:
            raise ReferenceMismatchError(f"the archive was made with {entry}, not with {found}")


@contextlib.contextmanager
def _named(name: str | None) -> Iterator[None]:
    """Says in the library's errors that they are of the reference."""
    try:
        yield
    except LmgcError as error:
        raise type(error)(f"the reference {name}: {error}") from error


def keep_apart(output: str | os.PathLike[str], base: ReferenceLike | None) -> None:
    """Raises a ValueError if an archive would take the place of the reference that it needs."""
    if isinstance(base, str | os.PathLike):
        with contextlib.suppress(FileNotFoundError):
            if os.path.samefile(output, base):
                raise ValueError(f"{os.fspath(output)} is the reference: write to another file")
