"""What a warm start and a past frame have in common: they are kept from call to call."""

from typing import Any, ClassVar

import torch

from lmgc_torch import _library

__all__: list[str] = []  # `WarmStart` and `PastFrame` are


class Memory:
    """What the codec keeps from one call to the next. Copies and pickled ones begin empty."""

    __slots__ = ("_handle",)
    _name: ClassVar[str]  # in torch.classes.lmgc

    def __init__(self) -> None:
        """Makes an empty one.

        Raises:
            ImportError: The native library cannot be loaded; the message says why.
        """
        _library.ops()
        self._handle = getattr(torch.classes.lmgc, self._name)()

    def clear(self) -> None:
        """Forgets everything."""
        self._handle.clear()

    @property
    def handle(self) -> Any:
        """The object of ``torch.classes.lmgc``, as the operators take it."""
        return self._handle

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()
