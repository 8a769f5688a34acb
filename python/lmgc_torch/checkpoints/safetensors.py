"""Files of the package safetensors: a header in JSON, then the tensors' bytes, back to back.

They come back byte for byte, because an archive of one keeps the text of the header.
"""

import dataclasses
import itertools
import json
import math
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import torch

from lmgc_torch import files
from lmgc_torch.archive.named import DTYPE_CODES
from lmgc_torch.archive.reader import ArchiveReader
from lmgc_torch.checkpoints.content import Content, DataError, NoTensorsError, UsageError
from lmgc_torch.errors import CorruptArchiveError

_SIZE = struct.Struct("<Q")
_DTYPES = {code: dtype for dtype, code in DTYPE_CODES.items()}
_MOST_HEADER = 100_000_000  # as the package says
_METADATA = "__metadata__"


@dataclasses.dataclass(frozen=True)
class _Entry:
    """A tensor of the header: `begin` and `end` are bytes behind it."""

    name: str
    code: str
    shape: tuple[int, ...]
    begin: int
    end: int


class _HeaderError(Exception):
    """The header is not what the format says."""


def is_safetensors(data: torch.Tensor) -> bool:
    """Whether a file's bytes begin as those of a .safetensors file do."""
    if data.numel() < _SIZE.size + 2:
        return False
    (size,) = _SIZE.unpack(bytes(data[: _SIZE.size].numpy().data))
    return size <= _MOST_HEADER and data[_SIZE.size].item() == ord("{")


def read(data: torch.Tensor, name: str) -> Content:
    """Reads a .safetensors file.

    Args:
        data: Its bytes, uint8 of shape [bytes]; the tensors are parts of them.
        name: What messages call it.

    Returns:
        The tensors in the order of their bytes. Those of types that torch has not are uint8.

    Raises:
        NoTensorsError: It is no such file.
    """
    (size,) = _SIZE.unpack(bytes(data[: _SIZE.size].numpy().data))
    start = _SIZE.size + size
    if start > data.numel():
        raise NoTensorsError(f"{name} is cut within its header")
    try:
        text = bytes(data[_SIZE.size : start].numpy().data).decode("utf-8")
        entries, metadata = _parse(text)
        at = 0
        for entry in entries:
            if entry.begin != at:
                raise _HeaderError(f"the bytes of tensor {entry.name!r} do not follow the others'")
            at = entry.end
        if start + at != data.numel():
            raise _HeaderError(f"{at} bytes of tensors are announced, {data.numel() - start} there")
    except (UnicodeDecodeError, _HeaderError) as error:
        raise NoTensorsError(f"{name} is not a sound .safetensors file: {error}") from error
    tensors = [
        (entry.name, _tensor(data[start + entry.begin : start + entry.end], entry))
        for entry in entries
    ]
    file = {"format": "safetensors", "header": text}
    return Content(tensors, file, metadata=metadata)


def write(reader: ArchiveReader, file: BinaryIO, name: str) -> None:
    """Writes an archive's tensors as a .safetensors file, tensor by tensor.

    Args:
        reader: The archive: of a .safetensors file, which comes back byte for byte; of tensors by
            name; or of an object that is a dict of tensors.
        file: What to write to; it need not seek.
        name: What messages call the archive.

    Raises:
        UsageError: It is of another object.
        DataError: The format does not have the type of a tensor.
        CorruptFrameError: The archive is damaged.
        TooLargeError: The file would have more bytes of tensors than the reader's `max_bytes`.
    """
    for piece in pieces(reader, name):
        if isinstance(piece, bytes):
            file.write(piece)
        else:
            files.write_bytes(file, piece)


def pieces(reader: ArchiveReader, name: str) -> Iterator[bytes | torch.Tensor]:
    """Yields what `write` writes, piece by piece."""
    reader.check_all(views=True)  # in such a file none shares its elements
    kept = (reader.index.file or {}).get("header")
    if kept is None:
        header, places = _new_header(reader, name)
        yield _SIZE.pack(len(header)) + header
        for place in places:
            yield reader.tensor(place)
        return
    try:
        if not isinstance(kept, str):
            raise _HeaderError("it is no text")
        entries, _ = _parse(kept)
        header = kept.encode("utf-8")
    except (UnicodeEncodeError, _HeaderError) as error:
        raise CorruptArchiveError(f"the header that the archive keeps: {error}") from error
    if [entry.name for entry in entries] != reader.names:
        raise CorruptArchiveError("the header that the archive keeps is of other tensors")
    yield _SIZE.pack(len(header)) + header
    for place, entry in enumerate(entries):
        tensor = reader.tensor(place)
        if tensor.nbytes != entry.end - entry.begin:
            raise CorruptArchiveError(
                f"tensor {entry.name!r} has {tensor.nbytes} bytes, and the header that the archive "
                f"keeps announces {entry.end - entry.begin}"
            )
        yield tensor


def _parse(text: str) -> tuple[list[_Entry], dict[str, str] | None]:
    """Returns the tensors in the order of their bytes, and the metadata."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) != len(pairs):
            raise _HeaderError("a name is there twice")
        return dict(pairs)

    try:
        header = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise _HeaderError(f"its header is no JSON: {error}") from error
    if not isinstance(header, dict):
        raise _HeaderError("its header is no JSON object")
    metadata = header.pop(_METADATA, None)
    if metadata is not None and not (
        isinstance(metadata, dict) and all(isinstance(text, str) for text in metadata.values())
    ):
        raise _HeaderError("its metadata are no texts")
    entries = [_entry(name, row) for name, row in header.items()]
    return sorted(entries, key=lambda entry: (entry.begin, entry.end)), metadata


def _entry(name: str, row: Any) -> _Entry:
    try:
        name.encode("utf-8")
        code, shape, (begin, end) = row["dtype"], row["shape"], row["data_offsets"]
        numbers = [*shape, begin, end]
    except (TypeError, KeyError, ValueError) as error:
        raise _HeaderError(f"tensor {name!r} is not described") from error
    good = isinstance(code, str) and all(type(n) is int and 0 <= n < 2**63 for n in numbers)
    if not good or begin > end:
        raise _HeaderError(f"tensor {name!r} is not described")
    if code in _DTYPES and math.prod(shape) * _DTYPES[code].itemsize != end - begin:
        raise _HeaderError(f"tensor {name!r} has {end - begin} bytes, not those of its shape")
    return _Entry(name, code, tuple(shape), begin, end)


def _tensor(data: torch.Tensor, entry: _Entry) -> torch.Tensor:
    if entry.code not in _DTYPES:
        return data
    dtype = _DTYPES[entry.code]
    if data.numel() == 0:
        return torch.empty(entry.shape, dtype=dtype, device="cpu")
    if data.data_ptr() % dtype.itemsize:
        data = data.clone()
    return data.view(dtype).view(entry.shape)


def _new_header(reader: ArchiveReader, name: str) -> tuple[bytes, list[int]]:
    """Makes a header, and returns the places of the tensors in its order."""
    rows: list[tuple[str, int, torch.dtype, list[int]]] = []
    for key, place in _named(reader, name):
        info = reader.tensor_info(place)
        shape = list(reader.shape(place))
        if info.dtype not in DTYPE_CODES:
            raise DataError(
                f"{name}: tensor {key!r} is of {info.dtype}, which .safetensors files do not have"
            )
        rows.append((key, place, info.dtype, shape))
    rows.sort(key=lambda row: -row[2].itemsize)  # so that each is aligned; else as they lie
    header: dict[str, Any] = {}
    if reader.index.metadata is not None:
        header[_METADATA] = reader.index.metadata
    ends = itertools.accumulate(
        (math.prod(shape) * dtype.itemsize for _, _, dtype, shape in rows), initial=0
    )
    for (key, _, dtype, shape), (begin, end) in zip(rows, itertools.pairwise(ends), strict=True):
        header[key] = {"dtype": DTYPE_CODES[dtype], "shape": shape, "data_offsets": [begin, end]}
    try:
        data = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{name}: .safetensors files have Unicode names: {error}") from error
    return data + b" " * (-len(data) % 8), [place for _, place, _, _ in rows]


def _named(reader: ArchiveReader, name: str) -> list[tuple[str, int]]:
    """Returns the names and places of the tensors of an archive that is a dict of tensors."""
    if reader.index.object is None:
        return [(key, place) for place, key in enumerate(reader.names)]
    root = reader.index.object.get("root")
    pairs = root.get("dict", root.get("ordered_dict")) if isinstance(root, dict) else None
    try:
        if pairs is None:
            raise ValueError
        named = [(key, leaf["tensor"]) for key, leaf in pairs]
    except (ValueError, TypeError, KeyError):
        raise UsageError(
            f"{name} holds another object than a dict of tensors, and a .safetensors file holds "
            "nothing else: write to a .pt file"
        ) from None
    count = len(reader.names)
    if not all(
        isinstance(key, str) and type(place) is int and 0 <= place < count for key, place in named
    ):
        raise UsageError(f"{name} has keys that are no texts: write to a .pt file")
    return named
