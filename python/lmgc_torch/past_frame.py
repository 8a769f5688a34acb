"""The frame before, of a sequence: what both sides know, so that the next one need not tell it."""

from lmgc_torch.memory import Memory

__all__ = ["PastFrame"]


class PastFrame(Memory):
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

    The first frame needs no other, nor does one after `clear()` on the sender's side, nor one that
    gains nothing. A frame that refers to another than the receiver's last one is a
    `PastMismatchError`; the receiver is as it was, and can go on from a frame that needs no other.

    It takes 4 bytes for each integer of the factors: rank * (rows + columns) of a matrix. Use one
    for each list of tensors and each side; calls from several threads take turns. Copies and
    pickled ones begin empty.
    """

    __slots__ = ()
    _name = "PastFrame"
