"""What archives are made relative to: tensors by name, in memory, in a file, or in a folder.

An archive that needs a reference can be one itself, with its own behind it: `Reference.open` takes
the links of such a chain, nearest first. Every link is held to the identity that the archive before
it tells.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
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

Link: TypeAlias = Mapping[Any, Any] | str | os.PathLike[str]
ReferenceLike: TypeAlias = Link | Sequence[Link]


def links_of(reference: ReferenceLike) -> list[Link]:
    """Returns the links of a chain, nearest first; what is no list is the only one.

    Raises:
        TypeError: It is something else.
        ValueError: The list is empty.
    """
    links: list[Any] = list(reference) if isinstance(reference, list | tuple) else [reference]
    for link in links:
        if not isinstance(link, Mapping | str | os.PathLike):
            raise TypeError(
                f"reference is of type {type(link).__name__}; it must be a file, a folder, or a "
                "dict of tensors by name, or a list of them"
            )
    if not links:
        raise ValueError("reference is an empty list; None means that there is no reference")
    return links


@dataclasses.dataclass(frozen=True)
class Source:
    """Tensors by name of one file, or of a dict.

    Attributes:
        tensors: The tensors, or an archive that is decoded when they are asked for.
        name: What messages call the file; None for a dict.
    """

    tensors: Mapping[str, torch.Tensor] | ArchiveReader
    name: str | None = None

    @property
    def archive(self) -> str | None:
        """The archive's identity; None for what is none."""
        if isinstance(self.tensors, ArchiveReader):
            return self.tensors.index.identity or None
        return None

    def has(self, needed: Needed) -> bool:
        """Whether there is a tensor of that name, type and shape."""
        name, dtype, shape = needed
        if isinstance(self.tensors, ArchiveReader):
            try:
                position = self.tensors.position(name)
            except KeyError:
                return False
            with _named(self.name):
                found = self.tensors.tensor_info(position).dtype, self.tensors.shape(position)
            return found == (dtype, shape)
        tensor = self.tensors.get(name)
        if tensor is None or (tensor.dtype, tuple(tensor.shape)) != (dtype, shape):
            return False
        return tensor.layout == torch.strided and not tensor.is_meta

    def tensor(self, name: str) -> torch.Tensor:
        """Returns a tensor that is there, on the CPU."""
        if isinstance(self.tensors, ArchiveReader):
            with _named(self.name):
                return self.tensors.tensor(self.tensors.position(name))
        return self.tensors[name].detach().resolve_neg().cpu().contiguous()


class Reference:
    """Tensors by name that are read when they are asked for.

    Attributes:
        name: The name of the file or folder; None for a dict.
    """

    def __init__(self, sources: Sequence[Source], name: str | None = None) -> None:
        """Takes what holds the tensors; of two that have one, the first counts."""
        self._sources = sources
        self.name = name

    @classmethod
    def open(cls, reference: ReferenceLike, *, prior: PriorLike | None = None) -> "Reference":
        """Opens a file or a folder, or takes a dict or an object as `save` takes it.

        Args:
            reference: An archive, a frame, a .safetensors or .pt file, told by its content; a
                folder with such files in it, told by their suffixes; or a dict. Or a list of these:
                each stands behind the one that is relative to it.
            prior: What archives decode with, if they need one.

        Raises:
            TypeError: It is something else, or an object that archives do not hold.
            ValueError: The file is none of tensors, or the folder has none.
            CorruptArchiveError: The archive is damaged.
            ReferenceMismatchError: An archive needs a reference itself, and the one behind it is
                missing or another.
            OSError: The file cannot be read.
        """
        links = links_of(reference)
        opened = cls._open(links[-1], prior, None)
        for link in reversed(links[:-1]):
            opened = cls._open(link, prior, opened)
        return opened

    @classmethod
    def _open(cls, link: Link, prior: PriorLike | None, behind: "Reference | None") -> "Reference":
        from lmgc_torch.checkpoints import SAFETENSORS_SUFFIX, NoTensorsError  # they need archives
        from lmgc_torch.checkpoints.folder import tensor_files

        if isinstance(link, Mapping):
            pairs = link.items()
            if all(isinstance(k, str) and isinstance(t, torch.Tensor) for k, t in pairs):
                return cls([Source(link)])
            return cls([Source(dict(objects.encode(link)[1]))])
        path = Path(link)
        name = Path(os.path.abspath(path)).name
        sources = []
        for file in tensor_files(path) if path.is_dir() else [path]:
            told = name if file is path else f"{name}/{file.name}"
            try:
                sources.append(_read(file, told, prior, behind))
            except NoTensorsError as error:
                if file is path or file.suffix == SAFETENSORS_SUFFIX:
                    raise ValueError(str(error)) from error
                # Else a pickle of settings, for example.
        if not sources:
            raise ValueError(f"the reference {path} is a folder without files of tensors")
        return cls(sources, name)

    def tensor(self, needed: Needed) -> torch.Tensor | None:
        """Returns the tensor of that name, on the CPU, if it has that type and shape.

        Raises:
            CorruptFrameError: It is damaged.
            PriorMismatchError: It was made with another prior.
        """
        source = self._source(needed)
        return None if source is None else source.tensor(needed.name)

    def entry(self, digests: Mapping[Needed, bytes]) -> ReferenceEntry:
        """Returns what an index tells, of the tensors that its archive needs and their digests."""
        archives = {None if s is None else s.archive for s in map(self._source, digests)}
        archive = archives.pop() if len(archives) == 1 else None
        return ReferenceEntry(identity(digests.values()), archive, self.name)

    def check(self, entry: ReferenceEntry, needed: Iterable[Needed]) -> None:
        """Looks whether this is the reference that an archive was made with.

        An archive is known by its identity; else all tensors that are needed are read.

        Raises:
            ReferenceMismatchError: It is another.
        """
        sources = {one: self._source(one) for one in needed}
        archives = {None if source is None else source.archive for source in sources.values()}
        if entry.archive is not None and archives == {entry.archive}:
            return
        name = self.name or "the one at hand"
        digests = {}
        for one, source in sources.items():
            if source is None:
                raise ReferenceMismatchError(
                    f"the archive was made with {entry}, and {name} has no tensor {one.name!r} of "
                    "its type and shape"
                )
            digests[one] = digest(one, source.tensor(one.name))
        found = self.entry(digests)
        if found.tensors != entry.tensors:
            raise ReferenceMismatchError(f"the archive was made with {entry}, not with {found}")

    def _source(self, needed: Needed) -> Source | None:
        return next((source for source in self._sources if source.has(needed)), None)


def _read(path: Path, name: str, prior: PriorLike | None, behind: Reference | None) -> Source:
    """Reads a file of tensors, or opens an archive that may be relative to the one behind it."""
    from lmgc_torch.checkpoints import read

    data = files.map_file(path)
    view = data.numpy().data
    if not is_archive(view) and not is_frame(view):
        return Source(dict(read(path, f"the reference {name}").tensors), name)
    with _named(name):
        reader = ArchiveReader(data, prior=prior, reference=behind)
        if behind is None and reader.needs_reference:
            with_ = f", {reader.index.reference}" if reader.index.reference is not None else ""
            raise ReferenceMismatchError(
                f"it needs a reference itself{with_}: name that one behind it"
            )
    return Source(reader, name)


@contextlib.contextmanager
def _named(name: str | None) -> Iterator[None]:
    """Says in the library's errors that they are of the reference."""
    try:
        yield
    except LmgcError as error:
        raise type(error)(f"the reference {name}: {error}") from error


def keep_apart(output: str | os.PathLike[str], reference: ReferenceLike | None) -> None:
    """Raises a ValueError if a file would take the place of a reference, or of a part of one."""
    for link in [] if reference is None else links_of(reference):
        if not isinstance(link, Mapping) and is_part(output, link):
            raise ValueError(
                f"{os.fspath(output)} would change the reference {os.fspath(link)}: write elsewhere"
            )


def is_part(path: str | os.PathLike[str], link: str | os.PathLike[str]) -> bool:
    """Whether a file is that of a reference, or one of its folder, or would be."""
    path, link = Path(path), Path(link)
    held = [link]
    if link.is_dir():
        if path.resolve().is_relative_to(link.resolve()):
            return True
        held = list(link.rglob("*"))
    return path.exists() and any(file.exists() and file.samefile(path) for file in held)
