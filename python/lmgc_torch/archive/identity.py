"""The identity of the tensors that an archive needs, whatever file holds them."""

import hashlib
import json
from collections.abc import Iterable
from typing import NamedTuple

import torch

from lmgc_torch import form

REFER = frozenset((torch.float16, torch.bfloat16, torch.float32, torch.float64))
"""The types of tensors that have references."""


class Needed(NamedTuple):
    """A tensor that an archive needs of its reference: the one of this name, type and shape."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]


def digest(needed: Needed, tensor: torch.Tensor) -> bytes:
    """Returns the SHA-256 of a tensor on the CPU: of its name, type and shape, and of its bytes."""
    head = [needed.name, str(needed.dtype).removeprefix("torch."), list(needed.shape)]
    result = hashlib.sha256(json.dumps(head, separators=(",", ":")).encode("ascii") + b"\n")
    if tensor.numel():
        result.update(form.flat(tensor).view(torch.uint8).numpy().data)
    return result.digest()


def identity(digests: Iterable[bytes]) -> str:
    """Returns the identity of tensors in hexadecimal digits: the SHA-256 of their digests."""
    return hashlib.sha256(b"".join(digests)).hexdigest()
