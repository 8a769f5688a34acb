"""Files of tensors (.pt, .safetensors) and of frames, for the command ``lmgc``.

A path of None is standard input or standard output.
"""

import ctypes
import dataclasses
import io
import json
import os
import struct
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from lmgc_torch import api
from lmgc_torch.frame_info import FrameInfo

SUFFIX = ".lmgc"
PT_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
SAFETENSORS_SUFFIX = ".safetensors"
STANDARD = "-"

Tensors = torch.Tensor | list[torch.Tensor] | dict[str, torch.Tensor]


class DataError(Exception):
    """What a file holds does not do."""


class UsageError(Exception):
    """The command does not do."""


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a file of tensors was beside its tensors.

    Attributes:
        format: "pt" or "safetensors".
        metadata: The texts that safetensors keeps with the tensors, by key.
    """

    format: str = "pt"
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns what the frame's metadata hold under "file"."""
        return {"format": self.format, **({"metadata": self.metadata} if self.metadata else {})}

    @classmethod
    def of_frame(cls, info: FrameInfo) -> "Origin":
        """Reads it from a frame; frames of other makers are taken for .pt files."""
        try:
            keys = json.loads(info.metadata)["file"]
            origin = cls(keys["format"], dict(keys.get("metadata", {})))
        except (ValueError, RecursionError, TypeError, KeyError):
            return cls()
        known = origin.format in ("pt", "safetensors")
        texts = all(isinstance(text, str) for pair in origin.metadata.items() for text in pair)
        return origin if known and texts else cls()


def input_path(name: str) -> Path | None:
    """Returns the path of an input that exists."""
    if name == STANDARD:
        return None
    path = Path(name)
    if not path.exists():
        raise UsageError(f"there is no file {name}")
    if path.is_dir():
        raise UsageError(f"{name} is a folder")
    return path


def output_path(name: str, source: Path | None, *, overwrite: bool) -> Path | None:
    """Returns the path of an output that may be written, not the input's."""
    if name == STANDARD:
        return None
    path = Path(os.path.realpath(name))  # what a link names is replaced, not the link
    if path.is_dir():
        raise UsageError(f"{name} is a folder")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}")
    if source is not None and path.exists() and path.samefile(source):
        raise UsageError(f"{name} is the input itself")
    if path.is_file() and not overwrite:
        raise UsageError(f"{name} exists already: choose another name, or overwrite it with -f")
    return path


def name_of(path: Path | None) -> str:
    """Returns what messages call a file."""
    return STANDARD if path is None else path.name


def write_whole(path: Path | None, write: Callable[[BinaryIO], None]) -> None:
    """Writes a whole file, or none: under another name first."""
    if path is None:
        write(sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    if path.exists() and not path.is_file():  # a device or a pipe: not ours to replace
        with path.open("wb") as file:
            write(file)
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _read_bytes(source: Path | None) -> bytearray:
    if source is None:
        return bytearray(sys.stdin.buffer.read())
    with source.open("rb") as file:
        return bytearray(file.read())


def read_frame(source: Path | None) -> torch.Tensor:
    """Reads a file as it is, into uint8 [bytes]."""
    data = _read_bytes(source)
    if not data:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(data, dtype=torch.uint8)


def write_frame(file: BinaryIO, data: torch.Tensor) -> None:
    """Writes the bytes of a tensor on the CPU."""
    data = data.contiguous()
    file.write(memoryview((ctypes.c_ubyte * data.numel()).from_address(data.data_ptr())))


def load(source: Path | None) -> tuple[Tensors, Origin]:
    """Reads a file of tensors, by its content."""
    name = name_of(source)
    data = _read_bytes(source)
    header = _safetensors_header(data)
    if header is not None:
        return _load_safetensors(bytes(data), header, name)
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files make it raise nearly anything
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{name} is neither a .safetensors file nor a .pt file that torch.load reads with "
            f"weights_only=True: {first}"
        ) from error
    return _checked(content, name), Origin("pt")


def _checked(content: object, name: str) -> Tensors:
    """Returns what a .pt file holds if it is made of tensors alone."""
    if isinstance(content, torch.Tensor):
        return content
    entries: list[tuple[str, object]]
    if isinstance(content, Mapping):
        for key in content:
            if not isinstance(key, str):
                raise DataError(f"{name} holds a dict whose key {key!r} is no str")
        entries = [(f"entry {key!r}", value) for key, value in content.items()]
    elif isinstance(content, list | tuple):
        entries = [(f"item {index}", value) for index, value in enumerate(content)]
    else:
        raise DataError(
            f"{name} holds a {type(content).__name__}; lmgc takes a tensor, or a list or dict of "
            "tensors"
        )
    for what, value in entries:
        if not isinstance(value, torch.Tensor):
            raise DataError(
                f"{name} holds a {type(content).__name__} whose {what} is a "
                f"{type(value).__name__}; lmgc takes tensors alone, not nested ones (save the "
                "model's state_dict by itself)"
            )
    try:
        values, _ = api.flatten(content)
    except ValueError as error:
        raise DataError(f"{name}: {error}") from error
    return dict(zip(content, values, strict=True)) if isinstance(content, Mapping) else values


def save_pt(file: BinaryIO, tensors: Tensors) -> None:
    """Writes a .pt file."""
    torch.save(tensors, file)


def safetensors_package() -> Any:
    """Imports safetensors, or says that it is needed."""
    try:
        import safetensors.torch
    except ImportError as error:
        raise UsageError("reading and writing .safetensors needs: pip install safetensors") from (
            error
        )
    return safetensors


def _safetensors_header(data: bytearray) -> dict[str, Any] | None:
    """Returns the JSON header of a .safetensors file, None if it is none."""
    if len(data) < 10 or data[8:9] != b"{":
        return None
    (size,) = struct.unpack_from("<Q", data)
    if size > len(data) - 8:
        return None
    try:
        header = json.loads(data[8 : 8 + size])
    except (ValueError, RecursionError):
        return None
    return header if isinstance(header, dict) else None


def _load_safetensors(data: bytes, header: dict[str, Any], name: str) -> tuple[Tensors, Origin]:
    package = safetensors_package()
    try:
        tensors: dict[str, torch.Tensor] = package.torch.load(data)
    except Exception as error:
        raise DataError(f"{name} is not a sound .safetensors file: {error}") from error
    order = [key for key in header if key in tensors]  # as they lie in the file
    metadata = {str(key): str(text) for key, text in header.get("__metadata__", {}).items()}
    return {key: tensors[key] for key in order}, Origin("safetensors", metadata)


def save_safetensors(file: BinaryIO, tensors: Tensors, metadata: dict[str, str], name: str) -> None:
    """Writes a .safetensors file; `name` is what messages call the frame it comes from."""
    try:
        file.write(safetensors_package().torch.save(tensors, metadata or None))
    except (ValueError, KeyError, RuntimeError) as error:
        raise DataError(f"{name}: .safetensors cannot hold these tensors: {error}") from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":
            raise
        raise DataError(f"{name}: .safetensors cannot hold these tensors: {error}") from error
