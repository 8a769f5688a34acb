"""The frame before, of a sequence: what both sides know, so that the next one need not tell it."""

from typing import Any

import torch

from lmgc_torch import _library

__all__ = ["PastFrame"]


class PastFrame:
    """What one side of a sequence of frames keeps of the last one.

    Gradients of consecutive steps are alike in the spaces that their singular vectors span. With a
    past frame, methods "lowrank" and "auto" tell the factors of a tensor's prediction relative to
    those that the frame before had. Such frames are smaller, and must be decompressed in the order
    in which they were compressed, none left out:

    Examples:
        >>> sender, receiver = PastFrame(), PastFrame()
        >>> for step in range(3):
        ...     gradient = torch.randn(64, 64)
        ...     frame = lmgc_torch.compress({"weight": gradient}, past=sender)
        ...     restored = lmgc_torch.decompress(frame, past=receiver)

    The first frame needs no other, nor does one after `clear` on the sender's side, nor one that
    gains nothing. A frame that refers to another than the receiver's last one is a
    `PastMismatchError`; the receiver is as it was, and can go on from a frame that needs no other.

    It takes 4 bytes for each integer of the factors: rank * (rows + columns) of a matrix. Use one
    for each list of tensors and each side; calls from several threads take turns. Copies and
    pickled ones begin empty.
    """

    __slots__ = ("_handle",)

    def __init__(self) -> None:
        """Makes one that knows no frame.

        Raises:
            ImportError: The native library cannot be loaded; the message says why.
        """
        _library.ops()
        self._handle = torch.classes.lmgc.PastFrame()

    def clear(self) -> None:
        """Forgets the frame: the next one that is compressed needs no other."""
        self._handle.clear()

    @property
    def handle(self) -> Any:
        """The ``torch.classes.lmgc.PastFrame``, as the operators take it."""
        return self._handle

    def __reduce__(self) -> tuple[Any, ...]:
        return PastFrame, ()
