"""What a file of tensors holds, in the terms of an archive."""

import dataclasses
from typing import Any

import torch

SUFFIX = ".lmgc"
SAFETENSORS_SUFFIX = ".safetensors"
PT_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
SUFFIXES = (SAFETENSORS_SUFFIX, *PT_SUFFIXES)


class DataError(Exception):
    """What a file holds does not do."""


class NoTensorsError(DataError):
    """The file is none of tensors, or one that archives do not hold."""


class UsageError(Exception):
    """What was asked for does not do."""


@dataclasses.dataclass(frozen=True)
class Content:
    """What a file of tensors holds.

    Attributes:
        tensors: The tensors with their names, as they shall follow one another in the archive.
        file: What the archive remembers of the file.
        object: Under "root" the tree of the object that the tensors are part of, if any.
        metadata: Texts by key, if any.
    """

    tensors: list[tuple[str, torch.Tensor]]
    file: dict[str, Any]
    object: dict[str, Any] | None = None
    metadata: dict[str, str] | None = None
