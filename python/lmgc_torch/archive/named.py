"""Dicts of tensors in archives: `save_file`, `load_file`, `safe_open`, as safetensors has them."""

import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import torch

from lmgc_torch import files
from lmgc_torch.api import Method, PriorLike
from lmgc_torch.archive.reader import ArchiveReader
from lmgc_torch.archive.reference import Reference, ReferenceLike, keep_apart
from lmgc_torch.archive.writer import ArchiveWriter, add_tensors

FRAMEWORKS = ("pt", "torch", "pytorch")

# As safetensors calls them.
DTYPE_CODES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.complex64: "C64",
}
if hasattr(torch, "float8_e8m0fnu"):
    DTYPE_CODES[torch.float8_e8m0fnu] = "F8_E8M0"


def save_file(
    tensors: Mapping[str, torch.Tensor],
    filename: str | os.PathLike[str],
    metadata: Mapping[str, str] | None = None,
    *,
    method: Method = "auto",
    prior: PriorLike | None = None,
    reference: ReferenceLike | None = None,
) -> None:
    """Writes a dict of tensors to an archive.

    The file appears when it is complete, in place of one of that name. Memory for a few times the
    largest tensor is needed beside the tensors.

    Args:
        tensors: Tensors by name, as `lmgc_torch.compress` takes them; they may lie on different
            devices. Those that share their elements are stored once.
        filename: The file.
        metadata: Texts by key, to be stored as they are.
        method: As for `lmgc_torch.compress`.
        prior: As for `lmgc_torch.compress`.
        reference: What the reader has as well: an archive, a .safetensors or .pt file, a folder
            with such files, or a dict, of tensors or such as `save` takes. Floats are told
            relative to those of the same name, type and shape, by "auto", "lowrank" and "scale",
            where that is smaller. The archive is then read with the same tensors as reference,
            whatever files hold them. If an archive needs a reference itself: a list of them, each
            followed by its own.

    Raises:
        TypeError: `tensors` is no dict of tensors, or `metadata` none of texts.
        ValueError: A tensor is sparse or quantized, a name is no Unicode text, or the method or the
            prior are none; the message names the tensor. The reference holds no tensors, or is the
            file to be written.
        ReferenceMismatchError: The reference needs one itself, and that is missing or another.
        OSError: The file cannot be written.

    Example:
        >>> save_file({"weight": torch.zeros(1000)}, "model.lmgc", {"step": "7"})
    """
    if not isinstance(tensors, Mapping):
        raise TypeError(f"tensors is of type {type(tensors).__name__}; it must be a dict by name")
    texts = _texts(metadata)
    for name in tensors:
        if not isinstance(name, str):
            raise TypeError(f"the names of tensors must be str; {name!r} is not")
        if not _is_unicode(name):
            raise ValueError(f"the name {name!r} is no Unicode text")
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"tensor {name!r} is of type {type(tensor).__name__}")

    keep_apart(filename, reference)
    base = None if reference is None else Reference.open(reference, prior=prior)

    def write(file: Any) -> None:
        writer = ArchiveWriter(file, method=method, prior=prior, reference=base)
        add_tensors(writer, list(tensors.items()))
        writer.finish(metadata=texts)

    files.write_whole(filename, write)


def load_file(
    filename: str | os.PathLike[str],
    device: torch.device | str = "cpu",
    *,
    prior: PriorLike | None = None,
    reference: ReferenceLike | None = None,
    max_bytes: int | None = None,
) -> dict[str, torch.Tensor]:
    """Reads all tensors of an archive.

    Memory for the tensors is needed, and on a device that is not the CPU for the largest frame.

    Args:
        filename: A file that `save_file`, `save` or the command line wrote; also a single frame.
        device: Where the tensors shall be decoded and lie: a CPU or CUDA device.
        prior: As for `lmgc_torch.decompress`.
        reference: What the archive was made with, as for `save_file`, in this or another file.
            Archives that need none ignore it. That it is the same is made sure before anything is
            decoded: of files that are not the very archive, all tensors that are needed are read.
        max_bytes: The most bytes that all tensors together may have; None: as many as they like. An
            archive that announces more is refused before anything is decoded. What shares its
            elements counts once, and the reference not at all.

    Returns:
        The tensors by name, in the order in which they were stored. What shared its elements does
        so again.

    Raises:
        CorruptArchiveError: The file is no archive, or is damaged or cut.
        CorruptFrameError: The tensors of an archive are damaged.
        TooLargeError: It announces more than `max_bytes`.
        PriorMismatchError: It was made with another prior.
        ReferenceMismatchError: It was made with another reference, or with one that is not given;
            or its reference was. The message says which is needed.
        ValueError: The reference holds no tensors, or `max_bytes` is negative.
        OSError: The file cannot be read.
    """
    base = None if reference is None else Reference.open(reference, prior=prior)
    reader = ArchiveReader.open(
        filename, device=device, prior=prior, reference=base, max_bytes=max_bytes
    )
    return dict(zip(reader.names, reader.tensors(), strict=True))


class safe_open:  # noqa: N801
    """Opens an archive, and decodes the tensors that are asked for.

    A context manager with the names of ``safetensors.safe_open``. The file is mapped into memory: a
    tensor costs the decoding of its frame, which is its own, or one of small tensors with about a
    megabyte.

    Example:
        >>> with safe_open("model.lmgc", framework="pt") as f:
        ...     weight = f.get_tensor("weight")
    """

    def __init__(
        self,
        filename: str | os.PathLike[str],
        framework: str = "pt",
        device: torch.device | str = "cpu",
        *,
        prior: PriorLike | None = None,
        reference: ReferenceLike | None = None,
        max_bytes: int | None = None,
    ) -> None:
        """Reads the index.

        Args:
            filename: As for `load_file`.
            framework: "pt": tensors are those of PyTorch.
            device: As for `load_file`.
            prior: As for `lmgc_torch.decompress`.
            reference: As for `load_file`; without it names, shapes and metadata can be read.
            max_bytes: The most bytes that one call may decode: those of the tensor, or of all that
                share its frame; None: as many as they like.

        Raises:
            CorruptArchiveError: The file is no archive, or its index is damaged.
            ReferenceMismatchError: It was made with another reference.
            ValueError: There is no such framework, the reference does not do, or `max_bytes` is
                negative.
            OSError: The file cannot be read.
        """
        if framework not in FRAMEWORKS:
            raise ValueError(f"framework is {framework!r}; archives hold tensors of 'pt'")
        base = None if reference is None else Reference.open(reference, prior=prior)
        self._reader: ArchiveReader | None = ArchiveReader.open(
            filename, device=device, prior=prior, reference=base, max_bytes=max_bytes
        )

    def __enter__(self) -> "safe_open":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._reader = None

    def keys(self) -> list[str]:
        """Returns the names of the tensors, sorted."""
        return sorted(self._open().names)

    def offset_keys(self) -> list[str]:
        """Returns the names of the tensors in the order in which they were stored."""
        return self._open().names

    def metadata(self) -> dict[str, str] | None:
        """Returns the texts that were stored with the tensors; None if there were none."""
        texts = self._open().index.metadata
        return None if texts is None else dict(texts)

    def get_tensor(self, name: str) -> torch.Tensor:
        """Decodes a tensor.

        Raises:
            KeyError: There is none of that name.
            CorruptFrameError: It is damaged.
            TooLargeError: It announces more than `max_bytes`, with all that share its frame.
            PriorMismatchError: It was made with another prior.
            ReferenceMismatchError: The archive needs a reference, and none was given.
        """
        reader = self._open()
        return reader.tensor(reader.position(name))

    def get_slice(self, name: str) -> "TensorSlice":
        """Returns a tensor that is decoded when it is indexed.

        Raises:
            KeyError: There is none of that name.
        """
        reader = self._open()
        return TensorSlice(reader, reader.position(name))

    def _open(self) -> ArchiveReader:
        if self._reader is None:
            raise ValueError("the archive is closed")
        return self._reader


class TensorSlice:
    """A tensor of an archive that is decoded when it is indexed: ``f.get_slice("w")[:, ::8]``."""

    def __init__(self, reader: ArchiveReader, position: int) -> None:
        self._reader = reader
        self._position = position

    def get_shape(self) -> list[int]:
        """Returns the tensor's sizes."""
        return list(self._reader.shape(self._position))

    def get_dtype(self) -> str:
        """Returns the tensor's type as safetensors calls it, "BF16" for example."""
        dtype = self._reader.tensor_info(self._position).dtype
        return DTYPE_CODES.get(dtype, str(dtype).removeprefix("torch."))

    def __getitem__(self, index: Any) -> torch.Tensor:
        # A copy, so that a small part does not keep all of the tensor.
        return self._reader.tensor(self._position)[index].clone()


def _texts(metadata: Mapping[str, str] | None) -> dict[str, str] | None:
    if metadata is None:
        return None
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata is of type {type(metadata).__name__}; it must be a dict of str")
    for key, text in metadata.items():
        for value in (key, text):
            if not isinstance(value, str):
                raise TypeError(f"metadata must be str by str; {value!r} is not")
            if not _is_unicode(value):
                raise ValueError(f"metadata {value!r} are no Unicode text")
    return dict(metadata)


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
