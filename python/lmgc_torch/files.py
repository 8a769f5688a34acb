"""Files that are read as memory maps, and written whole or not at all.

A path of None is standard input or standard output.
"""

import contextlib
import mmap
import os
import secrets
import stat
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import torch

from lmgc_torch import form

__all__ = ["map_file", "map_open_file", "write_bytes", "write_whole", "abandon_writes"]

_partials: set[Path] = set()  # files under another name, not complete yet
_lock = threading.Lock()


def map_file(path: str | os.PathLike[str]) -> torch.Tensor:
    """Maps a file into memory: what is looked at is read, and no more.

    Args:
        path: The file. It must not become shorter as long as the tensor lives.

    Returns:
        Its bytes, uint8 of shape [bytes], on the CPU. They must not be written to.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file:
        return map_open_file(file)


def map_open_file(file: BinaryIO) -> torch.Tensor:
    """`map_file` for a file that is open; it may be closed afterwards."""
    if os.fstat(file.fileno()).st_size == 0:
        return torch.empty(0, dtype=torch.uint8, device="cpu")
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*not writable", UserWarning)
        return torch.frombuffer(mapped, dtype=torch.uint8)


def write_bytes(file: BinaryIO, tensor: torch.Tensor) -> None:
    """Writes a tensor's elements as they lie in memory, in C order, without another copy."""
    flat = form.flat(tensor.detach().resolve_conj().resolve_neg().cpu())
    if flat.numel():
        file.write(flat.view(torch.uint8).numpy().data)


def write_whole(
    path: str | os.PathLike[str] | None,
    write: Callable[[BinaryIO], object],
    *,
    like: os.stat_result | None = None,
) -> None:
    """Writes a whole file, or none: under another name first, which is renamed when all is on disk.

    Args:
        path: The file; where it is a link, what it names. Standard output if it is None. Devices
            and pipes are written to as they are.
        write: Writes the content to the binary file that it is given.
        like: The file gets this one's permissions and time of modification.

    Raises:
        OSError: The file cannot be written; nothing is left of it.
    """
    if path is None:
        write(sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():  # a device or a pipe: not ours to replace
        with _named(path), path.open("wb") as file:
            write(file)
        return
    with (
        _named(path),
        _partial(path, 0o666 if like is None else 0o600) as partial,
        partial.open("wb") as file,
    ):
        write(file)
        file.flush()
        if like is not None:
            os.fchmod(file.fileno(), stat.S_IMODE(like.st_mode))
            os.utime(file.fileno(), ns=(like.st_atime_ns, like.st_mtime_ns))
        os.fsync(file.fileno())
        with _lock:
            partial.replace(path)
            _partials.discard(partial)
    with contextlib.suppress(OSError):  # some file systems know no fsync of folders
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Adds the name of the file to errors of writing, which have none: the disk is full, say."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextlib.contextmanager
def _partial(path: Path, mode: int) -> Iterator[Path]:
    """Makes an empty file beside `path`, and removes it unless it was renamed."""
    partial = path.with_name(f".{secrets.token_hex(8)}.partial")
    with _lock:
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
        _partials.add(partial)
    try:
        yield partial
    finally:
        with _lock:
            if partial in _partials:
                _partials.discard(partial)
                partial.unlink(missing_ok=True)


def abandon_writes() -> None:
    """Removes what is not complete, for a process that ends at once; nothing is written after it.

    Other threads that write files wait from now on, for ever.
    """
    _lock.acquire()
    for partial in _partials:
        partial.unlink(missing_ok=True)
