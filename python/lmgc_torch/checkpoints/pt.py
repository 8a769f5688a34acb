"""Files that torch.save wrote."""

import io
from pathlib import Path
from typing import BinaryIO

import torch

from lmgc_torch.archive import objects
from lmgc_torch.archive.nested import object_of
from lmgc_torch.archive.reader import ArchiveReader
from lmgc_torch.checkpoints.content import Content, NoTensorsError


def read(path: Path, name: str) -> Content:
    """Reads a .pt file; its tensors stay in the file until they are looked at.

    Args:
        path: The file. It is read with ``weights_only=True``: no code is run.
        name: What messages call it.

    Raises:
        NoTensorsError: It is no such file, or holds what archives do not.
    """
    try:
        value = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:  # files of torch before 1.6 cannot be mapped
        value = _load(path, name)
    except Exception as error:
        raise _no_tensors(name, error) from error
    try:
        root, tensors = objects.encode(value)
    except TypeError as error:
        raise NoTensorsError(f"{name}: {error}") from error
    return Content(tensors, {"format": "pt"}, {"root": root})


def _load(path: Path, name: str) -> object:
    try:
        return torch.load(
            io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True, mmap=False
        )
    except Exception as error:  # damaged files make it raise nearly anything
        raise _no_tensors(name, error) from error


def _no_tensors(name: str, error: Exception) -> NoTensorsError:
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    return NoTensorsError(
        f"{name} is neither a .safetensors file nor a .pt file that torch.load reads with "
        f"weights_only=True: {first}"
    )


def write(reader: ArchiveReader, file: BinaryIO) -> None:
    """Writes the object of an archive; all of it is decoded first."""
    value = object_of(reader)
    try:
        torch.save(value, file)
    except RuntimeError as error:
        # Where the file could not be written, torch fails once more when it ends its archive.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
