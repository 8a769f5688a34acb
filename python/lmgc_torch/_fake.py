"""Shapes and dtypes of the operators' results, for torch.compile, torch.export and meta tensors.

Imported by `lmgc_torch._library.ops` once the operators are there.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch._library.fake_class_registry import register_fake_class
from torch._subclasses.fake_tensor import DataDependentOutputException

# How many characters each separator has.
_SEPARATOR_WIDTHS = {
    "none": 0,
    "space": 1,
    "comma": 1,
    "comma_space": 2,
    "semicolon": 1,
    "0x": 2,
    "iso-8859-1": 0,
}


def _items(
    tensor: torch.Tensor, separator: str, bytes_per_group: int, byte_order: str, *, text: bool
) -> int:
    """Returns the number of characters (or tokens) that `tensor` is written with."""
    if separator not in _SEPARATOR_WIDTHS:
        names = ", ".join(map(repr, _SEPARATOR_WIDTHS))
        raise ValueError(f"separator is '{separator}'; it must be one of {names}")
    if bytes_per_group not in (0, 1, 2, 3, 4, 8):
        raise ValueError(
            f"bytes_per_group is {bytes_per_group}; it must be one of 1, 2, 3, 4, 8, or 0 for one "
            "group"
        )
    if byte_order not in ("big", "little"):
        raise ValueError(f"byte_order is '{byte_order}'; it must be one of 'big', 'little'")
    bytes_ = tensor.numel() * tensor.dtype.itemsize
    if separator == "iso-8859-1":
        return bytes_
    width = _SEPARATOR_WIDTHS[separator]
    if not text:
        width = min(width, 1)
    if bytes_per_group == 0:
        groups = torch.sym_min(bytes_, 1)
    else:
        groups = (bytes_ + bytes_per_group - 1) // bytes_per_group
    separators: int = groups if separator == "0x" else torch.sym_max(groups - 1, 0)
    return 2 * bytes_ + width * separators


@torch.library.register_fake("lmgc::context_features")
def _context_features(
    tensor: torch.Tensor, names: Sequence[str], lane_elements: int = 4096
) -> torch.Tensor:
    return tensor.new_empty((tensor.numel(), len(names)), dtype=torch.float32)


@torch.library.register_fake("lmgc::serialize")
def _serialize(
    tensor: torch.Tensor,
    *,
    separator: str = "none",
    bytes_per_group: int = 0,
    byte_order: str = "big",
) -> torch.Tensor:
    size = _items(tensor, separator, bytes_per_group, byte_order, text=True)
    return tensor.new_empty(size, dtype=torch.uint8)


@torch.library.register_fake("lmgc::tokenize")
def _tokenize(
    tensor: torch.Tensor,
    *,
    separator: str = "none",
    bytes_per_group: int = 0,
    byte_order: str = "big",
) -> torch.Tensor:
    size = _items(tensor, separator, bytes_per_group, byte_order, text=False)
    return tensor.new_empty(size, dtype=torch.int16)


@torch.library.register_fake("lmgc::deserialize")
def _deserialize(
    text: torch.Tensor,
    dtype: torch.dtype,
    shape: Sequence[int],
    *,
    separator: str = "none",
    bytes_per_group: int = 0,
    byte_order: str = "big",
) -> torch.Tensor:
    return text.new_empty(shape, dtype=dtype)


@torch.library.register_fake("lmgc::detokenize")
def _detokenize(
    tokens: torch.Tensor,
    dtype: torch.dtype,
    shape: Sequence[int],
    *,
    separator: str = "none",
    bytes_per_group: int = 0,
    byte_order: str = "big",
) -> torch.Tensor:
    return tokens.new_empty(shape, dtype=dtype)


@torch.library.register_fake("lmgc::compress")
@torch.library.register_fake("lmgc::compress.prior")
def _compress(
    tensors: Sequence[torch.Tensor],
    prior: Any = None,
    *,
    method: str = "auto",
    separator: str = "none",
    bytes_per_group: int = 0,
    byte_order: str = "big",
    window: str = "disjoint",
    lane_elements: int = 0,
    bypass: bool = True,
    memory_limit: int = 268435456,
    effort: int = 5,
    metadata: str = "",
) -> torch.Tensor:
    size = torch.library.get_ctx().new_dynamic_size()
    device = tensors[0].device if tensors else torch.device("cpu")
    return torch.empty(size, dtype=torch.uint8, device=device)


@torch.library.register_fake("lmgc::compress.warm")
def _compress_warm(
    tensors: Sequence[torch.Tensor],
    warm_start: Any,
    *,
    method: str = "auto",
    effort: int = 5,
    metadata: str = "",
) -> torch.Tensor:
    frame: torch.Tensor = _compress(tensors, method=method, metadata=metadata)
    return frame


@torch.library.register_fake("lmgc::compress.past")
def _compress_past(
    tensors: Sequence[torch.Tensor],
    past: Any,
    warm_start: Any = None,
    *,
    method: str = "auto",
    effort: int = 5,
    metadata: str = "",
) -> torch.Tensor:
    frame: torch.Tensor = _compress(tensors, method=method, metadata=metadata)
    return frame


@torch.library.register_fake("lmgc::compress.reference")
def _compress_reference(
    tensors: Sequence[torch.Tensor],
    reference: Sequence[torch.Tensor],
    *,
    method: str = "auto",
    effort: int = 5,
    metadata: str = "",
) -> torch.Tensor:
    frame: torch.Tensor = _compress(tensors, method=method, metadata=metadata)
    return frame


@torch.library.register_fake("lmgc::round_mantissas")
def _round_mantissas(tensor: torch.Tensor, bits: int, is_bound: bool = False) -> torch.Tensor:
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


@torch.library.register_fake("lmgc::round_to_powers")
def _round_to_powers(tensor: torch.Tensor, exponents: torch.Tensor, block: int) -> torch.Tensor:
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


# How many tensors a frame holds, and which, stands in its bytes, and how many matrices of symbols a
# tensor has depends on its elements: a graph cannot go on without them. This error makes
# torch.compile break the graph there, and fullgraph=True refuse it by name.


@torch.library.register_fake("lmgc::decompress")
def _decompress(
    data: torch.Tensor, prior: Any = None, *, max_bytes: int | None = None
) -> list[torch.Tensor]:
    raise DataDependentOutputException(torch.ops.lmgc.decompress.default)


@torch.library.register_fake("lmgc::decompress.past")
def _decompress_past(
    data: torch.Tensor, past: Any, *, max_bytes: int | None = None
) -> list[torch.Tensor]:
    raise DataDependentOutputException(torch.ops.lmgc.decompress.past)


@torch.library.register_fake("lmgc::decompress.reference")
def _decompress_reference(
    data: torch.Tensor, reference: Sequence[torch.Tensor], *, max_bytes: int | None = None
) -> list[torch.Tensor]:
    raise DataDependentOutputException(torch.ops.lmgc.decompress.reference)


@torch.library.register_fake("lmgc::contents")
def _contents(data: torch.Tensor) -> tuple[str, list[str]]:
    raise DataDependentOutputException(torch.ops.lmgc.contents.default)


@torch.library.register_fake("lmgc::info")
def _info(data: torch.Tensor) -> str:
    raise DataDependentOutputException(torch.ops.lmgc.info.default)


@torch.library.register_fake("lmgc::residual_features")
def _residual_features(
    tensor: torch.Tensor, names: Sequence[str], method: str = "lowrank", lane_elements: int = 0
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    raise DataDependentOutputException(torch.ops.lmgc.residual_features.default)


def _not_while_tracing(self: Any, *arguments: Any) -> Any:
    raise NotImplementedError(
        "priors, warm starts and past frames can be handed on while a graph is traced, not asked"
    )


@register_fake_class("lmgc::Prior")
class _FakePrior:
    """The stand-in of a prior while a graph is traced."""

    def __init__(self, fingerprint: str) -> None:
        self._fingerprint = fingerprint

    @classmethod
    def __obj_unflatten__(cls, flat: tuple[tuple[str, str], ...]) -> "_FakePrior":
        return cls(**dict(flat))

    def fingerprint(self) -> str:
        return self._fingerprint

    to = device = vocab = context_features = max_context = portable = _not_while_tracing
    native = use_native = _not_while_tracing


def _register_memory(name: str) -> None:
    """Registers the stand-in of a class that is empty in every copy."""

    @register_fake_class(name)
    class _FakeMemory:
        def __init__(self, empty: bool) -> None:
            self._empty = empty

        @classmethod
        def __obj_unflatten__(cls, flat: tuple[tuple[str, bool], ...]) -> "_FakeMemory":
            return cls(**dict(flat))

        clear = _not_while_tracing


_register_memory("lmgc::WarmStart")
_register_memory("lmgc::PastFrame")
