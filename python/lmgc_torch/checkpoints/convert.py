"""Archives of files of tensors, and back: what `lmgc compress` and `lmgc decompress` do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch

from lmgc_torch import files
from lmgc_torch.api import Method, PriorLike
from lmgc_torch.archive.container import is_archive, is_frame
from lmgc_torch.archive.info import ArchiveInfo, format_of
from lmgc_torch.archive.reader import ArchiveReader
from lmgc_torch.archive.reference import Reference
from lmgc_torch.archive.sharing import find_views
from lmgc_torch.archive.writer import ArchiveWriter, add_tensors
from lmgc_torch.checkpoints import pt, safetensors
from lmgc_torch.checkpoints.content import Content, DataError, NoTensorsError

Format = Literal["pt", "safetensors"]


def read(path: Path, name: str) -> Content:
    """Reads a file of tensors, .safetensors or .pt by its content, without loading the tensors.

    Raises:
        NoTensorsError: It is neither.
    """
    data = files.map_file(path)
    view = data.numpy().data
    if is_archive(view) or is_frame(view):
        raise NoTensorsError(f"{name} is compressed already")
    if safetensors.is_safetensors(data):
        return safetensors.read(data, name)
    return pt.read(path, name)


def read_tensors(
    path: Path, name: str, *, prior: PriorLike | None = None, reference: Reference | None = None
) -> dict[str, torch.Tensor]:
    """Reads the tensors of a file, or decodes those of an archive or a frame.

    Raises:
        NoTensorsError: It is none of these.
        CorruptFrameError: An archive or a frame is damaged.
        ReferenceMismatchError: It was made with another reference, or with one that is not given.
    """
    view = files.map_file(path).numpy().data
    if is_archive(view) or is_frame(view):
        reader = ArchiveReader.open(path, prior=prior, reference=reference)
        return dict(zip(reader.names, reader.tensors(), strict=True))
    return dict(read(path, name).tensors)


def compress_file(
    content: Content,
    output: BinaryIO,
    *,
    method: Method = "auto",
    prior: PriorLike | None = None,
    reference: Reference | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
    **options: Any,
) -> ArchiveInfo:
    """Writes an archive of a file of tensors.

    Memory is needed for a few times the largest tensor, whatever the size of all.

    Args:
        content: What `read` read.
        output: What to write to; it need not seek.
        method: As for `lmgc_torch.compress`.
        prior: As for `lmgc_torch.compress`.
        reference: As for `ArchiveWriter`.
        device: Where to compress.
        progress: Called with the bytes of tensors that have been compressed since the last time.
        **options: More of `lmgc_torch.compress`.
    """
    writer = ArchiveWriter(
        output, method=method, prior=prior, reference=reference, progress=progress, **options
    )
    add_tensors(writer, content.tensors, device)
    return writer.finish(metadata=content.metadata, object=content.object, file=content.file)


def raw_bytes(content: Content) -> int:
    """Returns the bytes of the tensors that an archive stores."""
    views = find_views([tensor for _, tensor in content.tensors])
    stored = (t for (_, t), view in zip(content.tensors, views, strict=True) if view is None)
    return sum(tensor.nbytes for tensor in stored)


def default_format(reader: ArchiveReader) -> Format:
    """Returns what file an archive becomes if nothing else is asked for."""
    return "safetensors" if format_of(reader.index) in ("safetensors", "tensors") else "pt"


def decompress_file(reader: ArchiveReader, output: BinaryIO, format_: Format, name: str) -> None:
    """Writes the file of tensors that an archive was made of, or one of the other format.

    A .safetensors file needs memory for a few times the largest tensor, a .pt file for all of them.

    Args:
        reader: The archive.
        output: What to write to; it need not seek.
        format_: The file's format.
        name: What messages call the archive.

    Raises:
        UsageError, DataError: That format cannot hold it.
        CorruptFrameError: The archive is damaged.
    """
    if format_ == "safetensors":
        safetensors.write(reader, output, name)
    else:
        pt.write(reader, output)


def verify_file(path: Path, content: Content, reader: ArchiveReader, name: str) -> None:
    """Decodes an archive and compares it with the file that it was made of, bit for bit.

    Args:
        path: The file.
        content: What `read` read from it.
        reader: The archive.
        name: What messages call the file.

    Raises:
        DataError: They differ.
    """
    if content.file["format"] == "safetensors":
        same = _same_bytes(path, reader, name)
    else:
        before, after = (json.dumps(c.object) for c in (content, reader.index))
        same = before == after and [n for n, _ in content.tensors] == reader.names
        for position, (_, tensor) in enumerate(content.tensors if same else ()):
            same = same and _same_tensor(tensor, reader.tensor(position).cpu())
    if not same:
        raise DataError(f"{name}: what decodes differs from what was encoded; nothing was written")


def _same_bytes(path: Path, reader: ArchiveReader, name: str) -> bool:
    data = files.map_file(path)
    at = 0
    for piece in safetensors.pieces(reader, name):
        if isinstance(piece, bytes):
            piece = torch.frombuffer(bytearray(piece), dtype=torch.uint8)
        flat = piece.cpu().reshape(-1).view(torch.uint8)
        if not torch.equal(data[at : at + flat.numel()], flat):
            return False
        at += flat.numel()
    return at == data.numel()


def _same_tensor(one: torch.Tensor, two: torch.Tensor) -> bool:
    if one.dtype != two.dtype or one.shape != two.shape:
        return False
    flat = [t.detach().resolve_conj().resolve_neg().contiguous().reshape(-1) for t in (one, two)]
    return torch.equal(flat[0].view(torch.uint8), flat[1].view(torch.uint8))
