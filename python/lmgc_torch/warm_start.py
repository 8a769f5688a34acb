"""Warm starts: what compressing one list of tensors found out, for the next one like it."""

from lmgc_torch.memory import Memory

__all__ = ["WarmStart"]


class WarmStart(Memory):
    """What methods "lowrank" and "auto" remember from one call of `compress` to the next.

    In training, the same list of gradients is compressed every step. Given the same warm start each
    time, `compress` begins with what it found the last time: for every tensor the method, the rank
    of its prediction and the scales of its rows and columns. It searches in full in the first call,
    every now and then, for tensors that came out much larger than expected, and for all of them
    when their number, shapes, dtypes or device change, or after `clear()`.

    Frames do not depend on it: they decode like all others. They do depend on the calls before, so
    that equal tensors need not give equal bytes. Use one warm start for each list; calls from
    several threads take turns. Copies and pickled ones begin empty.

    Examples:
        >>> warm_start = WarmStart()
        >>> for step in range(3):
        ...     frame = lmgc_torch.compress({"weight": torch.randn(64, 64)}, warm_start=warm_start)
    """

    __slots__ = ()
    _name = "WarmStart"
