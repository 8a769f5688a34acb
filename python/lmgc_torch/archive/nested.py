"""Objects that hold tensors in archives: `save` and `load`, as torch has them."""

import os
from typing import Any, BinaryIO

import torch

from lmgc_torch import files
from lmgc_torch.api import Method, PriorLike
from lmgc_torch.archive import objects
from lmgc_torch.archive.reader import ArchiveReader
from lmgc_torch.archive.reference import Reference, ReferenceLike, keep_apart
from lmgc_torch.archive.writer import ArchiveWriter, add_tensors


def save(
    obj: object,
    filename: str | os.PathLike[str],
    *,
    method: Method = "auto",
    prior: PriorLike | None = None,
    reference: ReferenceLike | None = None,
) -> None:
    """Writes an object that holds tensors to an archive, a whole checkpoint for example.

    The file appears when it is complete, in place of one of that name. Memory for a few times the
    largest tensor is needed beside the object.

    Args:
        obj: Tensors and parameters in dicts, lists, tuples, with numbers, texts, None and torch's
            Size, dtype and device, as ``torch.load(..., weights_only=True)`` would return it: the
            ``state_dict()`` of modules and optimizers, and dicts of them. Tensors that share their
            elements are stored once.
        filename: The file.
        method: As for `lmgc_torch.compress`.
        prior: As for `lmgc_torch.compress`.
        reference: As for `save_file`: the checkpoint before, for example. Names of tensors are the
            keys that lead to them, ``optimizer.state.0.exp_avg``.

    Raises:
        TypeError: The object holds something else; the message says where.
        ValueError: The method or the prior are none, or the reference does not do.
        ReferenceMismatchError: The reference needs one itself, and that is missing or another.
        OSError: The file cannot be written.

    Example:
        >>> save({"model": model.state_dict(), "epoch": 7}, "checkpoint.lmgc")
    """
    root, tensors = objects.encode(obj)
    keep_apart(filename, reference)
    base = None if reference is None else Reference.open(reference, prior=prior)

    def write(file: BinaryIO) -> None:
        writer = ArchiveWriter(file, method=method, prior=prior, reference=base)
        add_tensors(writer, tensors)
        writer.finish(object={"root": root})

    files.write_whole(filename, write)


def load(
    filename: str | os.PathLike[str],
    map_location: torch.device | str = "cpu",
    *,
    prior: PriorLike | None = None,
    reference: ReferenceLike | None = None,
    max_bytes: int | None = None,
) -> Any:
    """Reads an object from an archive.

    No code is run. Memory for the tensors is needed, and on a device that is not the CPU for the
    largest frame.

    Args:
        filename: A file that `save`, `save_file` or the command line wrote; also a single frame.
        map_location: Where all tensors shall be decoded and lie: a CPU or CUDA device.
        prior: As for `lmgc_torch.decompress`.
        reference: As for `load_file`.
        max_bytes: As for `load_file`.

    Returns:
        An object equal to the one that was stored; of what `save_file` wrote, the dict. Tensors are
        contiguous; those that shared their elements do so again.

    Raises:
        CorruptArchiveError: The file is no archive, or is damaged or cut.
        CorruptFrameError: The tensors of an archive are damaged.
        TooLargeError: It announces more than `max_bytes`.
        PriorMismatchError: It was made with another prior.
        ReferenceMismatchError: As for `load_file`.
        ValueError: The reference does not do, or `max_bytes` is negative.
        OSError: The file cannot be read.
    """
    base = None if reference is None else Reference.open(reference, prior=prior)
    reader = ArchiveReader.open(
        filename, device=map_location, prior=prior, reference=base, max_bytes=max_bytes
    )
    return object_of(reader)


def object_of(reader: ArchiveReader) -> Any:
    """Decodes all tensors, and returns the object that they are part of."""
    tensors = reader.tensors()
    if reader.index.object is None:
        return dict(zip(reader.names, tensors, strict=True))
    return objects.decode(reader.index.object.get("root"), tensors)


def check(reader: ArchiveReader) -> None:
    """Decodes everything, frame by frame, and keeps nothing.

    Raises:
        CorruptFrameError: Something is damaged.
        TooLargeError: The tensors together have more than the reader's `max_bytes`.
        PriorMismatchError: It was made with another prior.
        ReferenceMismatchError: It needs a reference, and there is none.
    """
    reader.check_all(views=False)
    likes: list[torch.Tensor] = [torch.empty(0)] * len(reader.names)
    for number in range(len(reader.index.frames)):
        for position, tensor in zip(reader.positions(number), reader.decode(number), strict=True):
            likes[position] = torch.empty_like(tensor, device="meta")
    for position, entry in enumerate(reader.index.tensors):
        if entry.view_of is not None:
            likes[position] = reader.view_of(entry, likes[entry.view_of])
    if reader.index.object is not None:
        objects.decode(reader.index.object.get("root"), likes)
