"""Folders of checkpoints: files of tensors become archives, and all else is copied."""

import functools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from lmgc_torch import files
from lmgc_torch.api import Method, PriorLike
from lmgc_torch.archive.reader import ArchiveReader
from lmgc_torch.checkpoints.content import SUFFIX, SUFFIXES, NoTensorsError, UsageError
from lmgc_torch.checkpoints.convert import compress_file, decompress_file, default_format, read


def compress_folder(
    source: Path,
    target: Path,
    *,
    method: Method = "auto",
    prior: PriorLike | None = None,
) -> None:
    """Makes a folder of archives and of copies of what holds no tensors.

    Args:
        source: The folder.
        target: The one that is made, or added to; files of the same names are replaced.
        method: As for `lmgc_torch.compress`.
        prior: As for `lmgc_torch.compress`.

    Raises:
        DataError: A file holds tensors that archives do not hold.
        OSError: A file cannot be read or written.
    """
    found = [path for path in walk(source) if path.name.endswith(SUFFIXES) and path.is_file()]
    copy_rest(source, target, set(found), overwrite=True)
    for path in found:
        output = target / path.relative_to(source)
        try:
            content = read(path, str(path))
        except NoTensorsError:
            copy(path, output)
            continue
        write = functools.partial(compress_file, content, method=method, prior=prior)
        files.write_whole(f"{output}{SUFFIX}", write, like=path.stat())


def decompress_folder(
    source: Path,
    target: Path,
    *,
    device: torch.device | str = "cpu",
    prior: PriorLike | None = None,
) -> None:
    """Makes the folder that `compress_folder` made a folder of.

    Args:
        source: The folder of archives.
        target: The one that is made, or added to; files of the same names are replaced.
        device: Where to decode.
        prior: As for `lmgc_torch.decompress`.

    Raises:
        CorruptFrameError: An archive is damaged.
        PriorMismatchError: One was made with another prior.
        OSError: A file cannot be read or written.
    """
    found = [path for path in walk(source) if path.name.endswith(SUFFIX) and path.is_file()]
    copy_rest(source, target, set(found), overwrite=True)
    for path in found:
        reader = ArchiveReader.open(path, device=device, prior=prior)
        write = functools.partial(
            decompress_file, reader, format_=default_format(reader), name=str(path)
        )
        output = target / path.relative_to(source)
        output = output.with_name(output.name.removesuffix(SUFFIX))
        files.write_whole(output, write, like=path.stat())


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
