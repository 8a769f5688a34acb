"""The errors of this library, and how the operators' errors become them."""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["LmgcError", "CorruptFrameError", "CorruptArchiveError", "TooLargeError"]
__all__ += ["PriorMismatchError", "PastMismatchError", "ReferenceMismatchError"]
__all__ += ["CommunicationError"]
__all__ += ["translated"]


class LmgcError(RuntimeError):
    """What this library raises where Python has no better word; the base of the others."""


class CorruptFrameError(LmgcError):
    """The bytes are no frame, were changed or cut, or are of a version that is not read here."""


class CorruptArchiveError(CorruptFrameError):
    """The file is no archive, was changed or cut, or is of a version that is not read here."""


class TooLargeError(LmgcError):
    """The frame or archive announces more bytes of tensors than `max_bytes` allows.

    It need not be damaged: a few bytes can stand for many, of zeros for example.
    """


class PriorMismatchError(LmgcError):
    """The frame was compressed with another prior, or one that decodes only where it encoded."""


class PastMismatchError(LmgcError):
    """The frame refers to the frame before it in a sequence, and that is not the one at hand."""


class ReferenceMismatchError(LmgcError):
    """A tensor was compressed relative to a reference that is not the one at hand."""


class CommunicationError(LmgcError):
    """A rank of a process group failed or is gone; the message names it and says what it said."""


_BY_PREFIX: dict[str, type[LmgcError]] = {
    error.__name__ + ": ": error
    for error in (
        CorruptFrameError,
        TooLargeError,
        PriorMismatchError,
        PastMismatchError,
        ReferenceMismatchError,
    )
}


@contextmanager
def translated() -> Iterator[None]:
    """Turns the operators' RuntimeErrors that begin with the name of one of ours into ours.

    An operator cannot raise a class of ours: ``torch.ops.lmgc`` raises a RuntimeError with the
    message "CorruptFrameError: ...". Other errors pass as they are.
    """
    try:
        yield
    except RuntimeError as error:
        if type(error) is RuntimeError:
            message = str(error)
            for prefix, kind in _BY_PREFIX.items():
                if message.startswith(prefix):
                    raise kind(message.removeprefix(prefix)) from None
        raise
