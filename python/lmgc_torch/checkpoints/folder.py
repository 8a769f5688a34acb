"""Folders of checkpoints: files of tensors become archives, and all else is copied.

A folder can be relative to another one: the files of each folder within to those in the folder of
the same name, whatever file of it holds a tensor.
"""

import functools
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from lmgc_torch import files
from lmgc_torch.api import Method, PriorLike
from lmgc_torch.archive.reader import ArchiveReader
from lmgc_torch.archive.reference import Reference, ReferenceLike, keep_apart, links_of
from lmgc_torch.checkpoints.content import (
    SAFETENSORS_SUFFIX,
    SUFFIX,
    SUFFIXES,
    NoTensorsError,
    UsageError,
)
from lmgc_torch.checkpoints.convert import compress_file, decompress_file, default_format, read


def compress_folder(
    source: Path,
    target: Path,
    *,
    method: Method = "auto",
    prior: PriorLike | None = None,
    reference: ReferenceLike | None = None,
) -> None:
    """Makes a folder of archives and of copies of what holds no tensors.

    Args:
        source: The folder.
        target: The one that is made, or added to; files of the same names are replaced.
        method: As for `lmgc_torch.compress`.
        prior: As for `lmgc_torch.compress`.
        reference: As for `FolderReferences`.

    Raises:
        DataError: A file holds tensors that archives do not hold.
        ValueError: The reference does not do, or would be overwritten.
        OSError: A file cannot be read or written.
    """
    references = FolderReferences(reference, prior=prior)
    found = [path for path in walk(source) if path.name.endswith(SUFFIXES) and path.is_file()]
    for path in found:
        output = target / path.relative_to(source)
        for written in (output, f"{output}{SUFFIX}"):
            keep_apart(written, reference)
    copy_rest(source, target, set(found), overwrite=True)
    for path in found:
        output = target / path.relative_to(source)
        try:
            content = read(path, str(path))
        except NoTensorsError:
            copy(path, output)
            continue
        base = references.of(path.parent.relative_to(source))
        write = functools.partial(
            compress_file, content, method=method, prior=prior, reference=base
        )
        files.write_whole(f"{output}{SUFFIX}", write, like=path.stat())


def decompress_folder(
    source: Path,
    target: Path,
    *,
    device: torch.device | str = "cpu",
    prior: PriorLike | None = None,
    reference: ReferenceLike | None = None,
) -> None:
    """Makes the folder that `compress_folder` made a folder of.

    Args:
        source: The folder of archives.
        target: The one that is made, or added to; files of the same names are replaced.
        device: Where to decode.
        prior: As for `lmgc_torch.decompress`.
        reference: As for `FolderReferences`.

    Raises:
        CorruptFrameError: An archive is damaged.
        PriorMismatchError: One was made with another prior.
        ReferenceMismatchError: One was made with another reference, or with one that is not given.
        ValueError: The reference holds no tensors.
        OSError: A file cannot be read or written.
    """
    references = FolderReferences(reference, prior=prior)
    found = [path for path in walk(source) if path.name.endswith(SUFFIX) and path.is_file()]
    copy_rest(source, target, set(found), overwrite=True)
    for path in found:
        base = references.of(path.parent.relative_to(source))
        reader = ArchiveReader.open(path, device=device, prior=prior, reference=base)
        write = functools.partial(
            decompress_file, reader, format_=default_format(reader), name=str(path)
        )
        output = target / path.relative_to(source)
        output = output.with_name(output.name.removesuffix(SUFFIX))
        files.write_whole(output, write, like=path.stat())


class FolderReferences:
    """The references of the files of a folder and of its folders.

    Where a reference is a folder, files of the folder itself are relative to its files, and files
    of a folder within to those of the folder of the same name within. Where that has none, there is
    no reference. Other references are those of all files.
    """

    def __init__(self, reference: ReferenceLike | None, *, prior: PriorLike | None = None) -> None:
        """Looks whether they are there; `of` opens them.

        Args:
            reference: As for `Reference.open`.
            prior: What archives decode with, if they need one.

        Raises:
            TypeError: It is none.
            ValueError: A folder has no files of tensors, nor have the folders within.
        """
        self._links = [] if reference is None else links_of(reference)
        self._prior = prior
        self._opened: dict[Path | None, Reference | None] = {}
        for link in self._links:
            if not isinstance(link, Mapping) and os.path.isdir(link):
                folders = (path for path in (Path(link), *walk(Path(link))) if path.is_dir())
                if not any(map(tensor_files, folders)):
                    raise ValueError(
                        f"the reference {os.fspath(link)} is a folder without files of tensors"
                    )

    def of(self, folder: Path | None) -> Reference | None:
        """Returns the reference of the files of a folder, named from the outer one.

        Args:
            folder: The folder; None for a file that stands for itself.

        Raises:
            What `Reference.open` raises.
        """
        if folder not in self._opened:
            links = []
            for link in self._links:
                if folder is not None and not isinstance(link, Mapping) and os.path.isdir(link):
                    link = Path(link) / folder
                    if not tensor_files(link):
                        break
                links.append(link)
            self._opened[folder] = Reference.open(links, prior=self._prior) if links else None
        return self._opened[folder]


def tensor_files(folder: Path) -> list[Path]:
    """Returns the files of a folder that should hold tensors, as references are looked up in them.

    A file comes before its archive, which is left out then; .safetensors files come first, and of
    one kind the names decide.
    """
    if not folder.is_dir():
        return []
    found = {path.name: path for path in folder.iterdir() if path.is_file()}
    names = [
        name
        for name in found
        if name.endswith((SUFFIX, *SUFFIXES))
        and not (name.endswith(SUFFIX) and name.removesuffix(SUFFIX) in found)
    ]
    names.sort(key=lambda name: (not name.removesuffix(SUFFIX).endswith(SAFETENSORS_SUFFIX), name))
    return [found[name] for name in names]


def walk(folder: Path) -> Iterator[Path]:
    """Yields all that is in a folder and its folders, in the order of names; links as they are."""
    for path in sorted(folder.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from walk(path)


def copy_rest(root: Path, out: Path, taken: set[Path], *, overwrite: bool) -> list[Path]:
    """Makes the folders of `root` in `out`, and copies the files that are not `taken`.

    Returns:
        The copies.

    Raises:
        UsageError: One exists, and is not to be overwritten.
    """
    copies = []
    if not out.is_dir():
        out.mkdir(parents=True)
        shutil.copymode(root, out)
    for path in walk(root):
        target = out / path.relative_to(root)
        if path in taken:
            continue
        if path.is_dir() and not path.is_symlink():
            if not target.is_dir():
                target.mkdir()
                shutil.copymode(path, target)
            continue
        if os.path.lexists(target):
            if not overwrite:
                raise UsageError(f"{target} exists already: overwrite it with -f")
            if target.is_symlink() or path.is_symlink():
                target.unlink()
        copy(path, target)
        copies.append(target)
    return copies


def copy(path: Path, target: Path) -> None:
    """Copies a file, its permissions and its time; of a link that leads nowhere the link."""
    if path.is_symlink() and not path.is_file():
        target.symlink_to(os.readlink(path))
        return
    if not path.is_file():
        raise UsageError(f"{path} is neither a file nor a folder")
    with path.open("rb") as source:
        files.write_whole(
            target, lambda file: shutil.copyfileobj(source, file, 1 << 20), like=path.stat()
        )
