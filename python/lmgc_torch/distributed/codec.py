"""Lists of tensors to bytes for the link, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch

from lmgc_torch import api, form
from lmgc_torch.errors import CorruptFrameError, TooLargeError
from lmgc_torch.past_frame import PastFrame
from lmgc_torch.warm_start import WarmStart

UNCOMPRESSED = "raw"  # as they are, without a frame
PAST = "past"  # "lowrank" relative to the frame that went the same way in the last such step


def encode(
    tensors: Sequence[torch.Tensor],
    method: str,
    warm_start: WarmStart | None = None,
    past: PastFrame | None = None,
) -> torch.Tensor:
    """Returns the tensors' bytes: a frame of `method`, or for "raw" just the elements."""
    if method == UNCOMPRESSED:
        parts = [form.flat(tensor).view(torch.uint8) for tensor in tensors]
        return parts[0] if len(parts) == 1 else torch.cat(parts)
    if method == PAST:
        return api.compress(list(tensors), method="lowrank", warm_start=warm_start, past=past)
    return api.compress(list(tensors), method=cast(api.Method, method), warm_start=warm_start)


def decode(
    data: torch.Tensor,
    method: str,
    shapes: Sequence[tuple[int, ...]],
    dtype: torch.dtype,
    past: PastFrame | None = None,
) -> list[torch.Tensor]:
    """Returns what `encode` was given.

    Args:
        data: What it returned, as received.
        method: The method it was given.
        shapes: Those of the tensors.
        dtype: Theirs.
        past: The frame that came the same way before, for method "past".

    Raises:
        CorruptFrameError: The bytes are damaged, or hold other tensors.
        PastMismatchError: They refer to another frame than `past`.
    """
    sizes = [torch.Size(shape).numel() * dtype.itemsize for shape in shapes]
    if method == UNCOMPRESSED:
        if data.numel() != sum(sizes):
            raise CorruptFrameError(f"{data.numel()} bytes came where {sum(sizes)} were expected")
        return [
            part.clone().view(dtype).view(shape)  # a clone is aligned
            for part, shape in zip(data.split(sizes), shapes, strict=True)
        ]
    tensors = decode_frame(data, sum(sizes), past if method == PAST else None)
    expected = [(dtype, tuple(shape)) for shape in shapes]
    if expected != [(tensor.dtype, tuple(tensor.shape)) for tensor in tensors]:
        raise CorruptFrameError("the frame holds other tensors than those that were expected")
    return tensors


def decode_frame(
    data: torch.Tensor, expected_bytes: int, past: PastFrame | None = None
) -> list[torch.Tensor]:
    """Decodes a frame of another rank, which takes no more memory than what is expected of it.

    Args:
        data: The frame, as received.
        expected_bytes: What its tensors have together.
        past: The frame that came the same way before, if it may refer to that.

    Raises:
        CorruptFrameError: The frame is damaged, announces more, or holds no list.
        PastMismatchError: It refers to another frame than `past`.
    """
    try:
        tensors = api.decompress(data, past=past, max_bytes=expected_bytes)
    except TooLargeError as error:
        raise CorruptFrameError(
            f"{expected_bytes} bytes of tensors were expected: {error}"
        ) from None
    if not isinstance(tensors, list):
        raise CorruptFrameError("the frame holds no list of tensors")
    return tensors
