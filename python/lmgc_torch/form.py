"""The form of what is compressed: a single tensor, a list, or a dict of tensors by name.

Frames remember it as a line of JSON in their metadata:

    (empty)                         a list; so are frames of ``torch.ops.lmgc.compress``
    {"lmgc":1}                      a single tensor
    {"lmgc":1,"names":["a","b"]}    a dict
    {"lmgc":1,"list":true, ...}     a list, where there is more to say

Other keys belong to those who write them.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch

from lmgc_torch.errors import CorruptFrameError

__all__ = ["Tensors", "flatten", "matched", "metadata_of", "structure_of", "kind_of"]
__all__ += ["flat"]

Tensors: TypeAlias = torch.Tensor | Sequence[torch.Tensor] | Mapping[str, torch.Tensor]

METADATA_VERSION = 1
_A_LIST = {"list": True}


def flatten(tensors: object) -> tuple[list[torch.Tensor], dict[str, Any]]:
    """Returns the tensors of what `compress` takes, and the metadata's keys that tell its form."""
    if isinstance(tensors, torch.Tensor):
        return [_checked(tensors, "the tensor")], {}
    if isinstance(tensors, Mapping):
        for name in tensors:
            if not isinstance(name, str):
                raise TypeError(
                    f"the names of tensors must be str; {name!r} is of type {type(name).__name__}"
                )
        values = [_checked(value, f"tensor {name!r}") for name, value in tensors.items()]
        return values, {"names": list(tensors)}
    if isinstance(tensors, Sequence) and not isinstance(
        tensors, str | bytes | bytearray | memoryview
    ):
        return [_checked(value, f"tensor {i}") for i, value in enumerate(tensors)], _A_LIST
    raise TypeError(
        "compress takes a tensor, a list of tensors or a dict of tensors by name, not a "
        f"{type(tensors).__name__}"
    )


def matched(reference: object, structure: Mapping[str, Any], count: int) -> list[torch.Tensor]:
    """Returns a reference for each tensor of a structure: an empty tensor where it has none."""
    nothing = torch.empty(0)
    names = structure.get("names")
    if names is not None:
        if not isinstance(reference, Mapping):
            raise ValueError("the tensors have names; the reference must be a dict of tensors, too")
        known = {name: reference[name] for name in names if name in reference}
        others, _ = flatten(known)
        by_name = dict(zip(known, others, strict=True))
        return [by_name.get(name, nothing) for name in names]
    others, form = flatten(reference)
    if form.get("names") is not None or len(others) != count:
        raise ValueError(f"the reference must be of the same form as what has {count} tensors")
    return others


def metadata_of(structure: Mapping[str, Any]) -> str:
    """Returns the metadata of a frame of that form."""
    if structure == _A_LIST:
        return ""
    return json.dumps({"lmgc": METADATA_VERSION, **structure}, separators=(",", ":"))


def structure_of(metadata: str, count: int) -> dict[str, Any]:
    """Returns the keys that `metadata_of` wrote for `count` tensors, checked.

    Raises:
        CorruptFrameError: They are of another version, or not of so many tensors.
    """
    if not metadata:
        return _A_LIST
    try:
        keys = json.loads(metadata)
    except (ValueError, RecursionError):
        return _A_LIST
    if not isinstance(keys, dict) or "lmgc" not in keys:
        return _A_LIST
    if keys["lmgc"] != METADATA_VERSION:
        raise CorruptFrameError(
            f"the metadata are of version {keys['lmgc']!r}; this lmgc_torch reads version "
            f"{METADATA_VERSION}"
        )
    names = keys.get("names")
    if names is not None:
        good = isinstance(names, list) and all(isinstance(name, str) for name in names)
        if not good or len(names) != count or len(set(names)) != count:
            raise CorruptFrameError(f"the metadata do not name the frame's {count} tensors")
    elif not keys.get("list") and count != 1:
        raise CorruptFrameError(f"the metadata speak of one tensor, but the frame has {count}")
    return keys


def kind_of(structure: Mapping[str, Any]) -> Literal["tensor", "list", "dict"]:
    """Returns the form's name, as `FrameInfo.kind` has it."""
    if structure.get("names") is not None:
        return "dict"
    return "list" if structure.get("list") else "tensor"


def flat(tensor: torch.Tensor) -> torch.Tensor:
    """Returns the elements in C order with stride 1, [elements], as a view where they lie so.

    `contiguous` keeps any stride of a single element, and then torch refuses to show its bytes.
    """
    return tensor.contiguous().as_strided((tensor.numel(),), (1,))


def _checked(value: object, what: str) -> torch.Tensor:
    """Returns `value` if it is a dense tensor; the operator checks the rest."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{what} is of type {type(value).__name__}, not a torch.Tensor")
    if value.is_nested or value.layout != torch.strided:
        layout = "nested" if value.is_nested else str(value.layout).removeprefix("torch.")
        raise ValueError(f"{what} is {layout}; lmgc compresses dense tensors")
    if value.is_meta:
        raise ValueError(f"{what} is a meta tensor: it has no data")
    if value.is_quantized:
        raise ValueError(f"{what} is quantized; compress its int_repr() and its parameters")
    return value
