"""Tensors as hexadecimal text and as token ids, the way LM-GC shows them to a language model.

The text is the concatenation of groups of bytes, two lower-case digits a byte, with separators
between the groups (Wang and Fritz, "Language Models as Zero-shot Lossless Gradient Compressors",
NeurIPS 2024, section 3.2). Both forms keep every bit, and reading accepts exactly what writing
gives: NaN payloads and signed zeros come back, and anything else is an error.

The same operators are there as ``torch.ops.lmgc.serialize`` and so on; they leave the text on the
tensor's device, as Latin-1 bytes.
"""

import ctypes
from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch

from lmgc_torch import _library

__all__ = ["SEPARATOR_TOKEN", "ByteOrder", "Separator"]
__all__ += ["serialize", "deserialize", "tokenize", "detokenize"]

Separator: TypeAlias = Literal[
    "none", "space", "comma", "comma_space", "semicolon", "0x", "iso-8859-1"
]
ByteOrder: TypeAlias = Literal["big", "little"]

SEPARATOR_TOKEN = 256
"""The token id of a separator; digits are 0 to 15, and bytes ("iso-8859-1") are 0 to 255."""


def serialize(
    tensor: torch.Tensor,
    *,
    separator: Separator = "none",
    bytes_per_group: int | None = None,
    byte_order: ByteOrder = "big",
) -> str:
    """Writes a tensor as text.

    Args:
        tensor: Any dense tensor of a float, integer, bool or complex type, on CPU or CUDA.
        separator: What stands between groups; "0x" stands before every group. "iso-8859-1" writes
            no digits but one character for every byte.
        bytes_per_group: 1, 2, 3, 4 or 8 bytes; None makes one group of the whole tensor. Groups do
            not stop at elements: 3 puts parts of two float32 into a group.
        byte_order: "big" writes an element's sign and exponent first, "little" its lowest byte.
            Only float16, bfloat16, float32 and float64 are turned: other types are written as the
            bytes in memory.

    Returns:
        The text; "" for an empty tensor.

    Raises:
        ValueError: The tensor or an option is none of these.

    Examples:
        >>> serialize(torch.tensor([1.0, -2.0]), separator="space", bytes_per_group=4)
        '3f800000 c0000000'
    """
    text = _library.ops().serialize(
        tensor,
        separator=separator,
        bytes_per_group=_group(bytes_per_group),
        byte_order=byte_order,
    )
    text = text.cpu()
    return ctypes.string_at(text.data_ptr(), text.numel()).decode("latin-1")


def deserialize(
    text: str,
    dtype: torch.dtype,
    shape: Sequence[int],
    *,
    separator: Separator = "none",
    bytes_per_group: int | None = None,
    byte_order: ByteOrder = "big",
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Reads a tensor from the text that `serialize` wrote.

    Args:
        text: The text.
        dtype: The tensor's element type.
        shape: The tensor's shape.
        separator: As it was written.
        bytes_per_group: As it was written.
        byte_order: As it was written.
        device: Where the tensor is made; None is the default device.

    Returns:
        The tensor, with the bits that were written.

    Raises:
        ValueError: The text is not what `serialize` writes for such a tensor (the message gives the
            position of the first wrong character), or an option is not legal.
    """
    try:
        characters = bytearray(text, "latin-1")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the text is damaged at position {error.start}: {text[error.start]!r} is not a "
            "character of iso-8859-1"
        ) from error
    if device is None:
        device = torch.get_default_device()
    # torch.frombuffer refuses an empty buffer.
    buffer = (
        torch.frombuffer(characters, dtype=torch.uint8)
        if characters
        else torch.empty(0, dtype=torch.uint8, device="cpu")
    )
    result: torch.Tensor = _library.ops().deserialize(
        buffer.to(device),
        dtype,
        shape,
        separator=separator,
        bytes_per_group=_group(bytes_per_group),
        byte_order=byte_order,
    )
    return result


def tokenize(
    tensor: torch.Tensor,
    *,
    separator: Separator = "none",
    bytes_per_group: int | None = None,
    byte_order: ByteOrder = "big",
) -> torch.Tensor:
    """Writes a tensor as the token ids of its text.

    Args:
        tensor: As for `serialize`.
        separator: As for `serialize`. A separator is one token, `SEPARATOR_TOKEN`, however many
            characters it has.
        bytes_per_group: As for `serialize`.
        byte_order: As for `serialize`.

    Returns:
        The tokens, int16 of shape [tokens] on the tensor's device. Digits are 0 to 15; with
        "iso-8859-1" bytes are 0 to 255. ``.int()`` makes indices for an embedding of them.

    Raises:
        ValueError: As for `serialize`.
    """
    result: torch.Tensor = _library.ops().tokenize(
        tensor,
        separator=separator,
        bytes_per_group=_group(bytes_per_group),
        byte_order=byte_order,
    )
    return result


def detokenize(
    tokens: torch.Tensor,
    dtype: torch.dtype,
    shape: Sequence[int],
    *,
    separator: Separator = "none",
    bytes_per_group: int | None = None,
    byte_order: ByteOrder = "big",
) -> torch.Tensor:
    """Reads a tensor from the token ids that `tokenize` wrote.

    Args:
        tokens: int16, int32 or int64 of shape [tokens].
        dtype: The tensor's element type.
        shape: The tensor's shape.
        separator: As it was written.
        bytes_per_group: As it was written.
        byte_order: As it was written.

    Returns:
        The tensor, on the device of the tokens.

    Raises:
        ValueError: The tokens are not what `tokenize` writes for such a tensor (the message gives
            the position of the first wrong token), or an option is not legal.
    """
    result: torch.Tensor = _library.ops().detokenize(
        tokens,
        dtype,
        shape,
        separator=separator,
        bytes_per_group=_group(bytes_per_group),
        byte_order=byte_order,
    )
    return result


def _group(bytes_per_group: int | None) -> int:
    return 0 if bytes_per_group is None else bytes_per_group
