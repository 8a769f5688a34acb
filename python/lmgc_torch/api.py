"""Compress, decompress, and look into frames: the functional face of the library.

A *frame* is the compressed form of a list of tensors: self-contained bytes in a 1-D uint8 tensor.
`form` has what it remembers beside the tensors.
"""

import json
import os
from collections.abc import Iterator, Set
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

import torch

from lmgc_torch import _library, form
from lmgc_torch import prior as _prior
from lmgc_torch.errors import CorruptFrameError, translated
from lmgc_torch.form import Tensors
from lmgc_torch.frame_info import FrameInfo, TensorInfo
from lmgc_torch.past_frame import PastFrame
from lmgc_torch.prior import Prior
from lmgc_torch.serialize import ByteOrder, Separator
from lmgc_torch.warm_start import WarmStart

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["compress", "decompress", "info"]
__all__ += ["Method", "Window", "Tensors", "Data", "PriorLike"]

Method: TypeAlias = Literal["auto", "raw", "planes", "scale", "lowrank", "lm", "lmgc"]
Window: TypeAlias = Literal["disjoint", "sliding"]
Data: TypeAlias = "torch.Tensor | Buffer"
PriorLike: TypeAlias = Prior | str | os.PathLike[str]

METHODS: tuple[Method, ...] = get_args(Method)
WINDOWS: tuple[Window, ...] = get_args(Window)
NEEDS_PRIOR = frozenset(_prior.DEFAULTS)
REMEMBERS = frozenset(("auto", "lowrank"))
"""Methods that take a warm start or a past frame."""
REFERS = ("auto", "lowrank", "scale")
"""Methods that take a reference."""


def compress(
    tensors: Tensors,
    *,
    method: Method = "auto",
    effort: int = 5,
    prior: PriorLike | None = None,
    separator: Separator = "none",
    bytes_per_group: int | None = None,
    byte_order: ByteOrder = "big",
    window: Window = "disjoint",
    lane_elements: int | None = None,
    bypass: bool = True,
    memory_limit: int = 256 * 2**20,
    warm_start: WarmStart | None = None,
    past: PastFrame | None = None,
    reference: Tensors | None = None,
) -> torch.Tensor:
    """Compresses tensors without loss.

    Args:
        tensors: A tensor, a list of tensors, or a dict of tensors by name: dense, of any float (8
            to 64 bits), integer, bool or complex type and any shape, all on one CPU or CUDA device.
            They are only read.
        method: How each tensor is coded. "raw": as it is; "planes": bytes of equal significance
            together, fast; "scale": floats relative to the scales of their row and column;
            "lowrank": the same after an exact low-rank prediction of matrices, much smaller for
            gradients, and "scale" where no prediction pays; "lm": what "lowrank" finds, its digits
            predicted by a language model, and the methods before where they are smaller; "lmgc":
            the floats' own digits predicted by a language model (LM-GC, Wang and Fritz, NeurIPS
            2024), slow; "auto": the smallest of all that need no prior, by their exact sizes. A
            tensor that a method would make larger is stored raw; "scale", "lowrank" and "lm" treat
            types other than floats as "planes" does.
        effort: For "lowrank", "auto" and "lm": how long to look for predictions, from 1, the
            quickest, to 9, the smallest result. Decompressing is as fast for all of them, or faster
            where less was found. Other methods ignore it.
        prior: The language model of "lm" or "lmgc", on the device of the tensors: a `Prior`, a
            file, or the name of a bundled one; None is the bundled "residual" for "lm" and
            "default" for "lmgc". Other methods ignore it.
        separator: For "lmgc": what stands between groups of digits, as for `serialize`.
        bytes_per_group: For "lmgc": 1, 2, 3, 4 or 8; None is one group.
        byte_order: For "lmgc": "big" shows the model an element's sign and exponent first.
        window: For "lmgc": how the model's context goes on where a lane is longer than it.
            "disjoint": it starts anew; "sliding": it starts with the last half of what stood there,
            which takes twice the time and helps models that learn from their context.
        lane_elements: For "lm" and "lmgc": the elements that are coded one after the other; lanes
            are coded side by side, so that fewer elements make it faster and a little larger. None
            chooses.
        bypass: For "lmgc": store digits that look random as they are, without asking the model.
        memory_limit: For "lm" and "lmgc": about how many bytes the model's inputs and outputs may
            take at a time. It does not change the result, except with a prior that is not portable.
        warm_start: For "lowrank" and "auto": what earlier calls found for a list like this one, and
            where this call leaves what it finds. It makes a sequence of calls several times as
            fast. Other methods ignore it.
        past: For "lowrank" and "auto": the frame before of a sequence, whose place this one takes.
            The frame may refer to it; then it decompresses only after it, with the receiver's own
            `PastFrame`. Other methods ignore it, and leave it as it is.
        reference: For "scale", "lowrank" and "auto": tensors that the receiver holds as well, in
            the same form as `tensors`: a checkpoint of some steps before, the model that was
            fine-tuned. A float of theirs that has the same name (or place), dtype and shape
            predicts one of `tensors`, where that makes it smaller; dicts may lack names or have
            more. Such frames decompress with the same reference and no other. Other methods ignore
            it. Not together with `past` or `warm_start`.

    Returns:
        The frame, uint8 of shape [bytes], on the device of the tensors (CPU if there are none). It
        is never larger than all tensors + 64 bytes + 0.1 % for each, and the names. The same
        tensors and options give the same bytes, on CPU and CUDA and for any number of threads; only
        "lowrank" (and so "auto" and "lm") may find another prediction on another device or machine,
        or with a warm start.

    Raises:
        TypeError: `tensors` or what is in it is something else, a name is no str, `warm_start` is
            no `WarmStart`, or `past` is no `PastFrame`.
        ValueError: A tensor is sparse, quantized or on another device, an option is not legal,
            `reference` has another form, the prior was made for another method, or it does not do
            what it says: two calls differ, or its logits are not finite.
        torch.OutOfMemoryError: The prior needs more memory than there is; the message says what
            makes it need less.
        ImportError: The native library cannot be loaded; the message says why.

    Examples:
        >>> frame = compress({"weight": torch.zeros(1000)})
        >>> decompress(frame)["weight"].shape
        torch.Size([1000])
    """
    values, structure = form.flatten(tensors)
    metadata = form.metadata_of(structure)
    if method not in METHODS:
        legal = ", ".join(map(repr, METHODS))
        raise ValueError(f"method is {method!r}; it must be one of {legal}")
    for name, kept, kind in (("warm_start", warm_start, WarmStart), ("past", past, PastFrame)):
        if kept is not None and not isinstance(kept, kind):
            raise TypeError(
                f"{name} is of type {type(kept).__name__}; it must be a {kind.__name__}"
            )
    device = values[0].device if values else torch.device("cpu")
    handle = _handle(prior, device, {method})
    if reference is not None:
        if past is not None or warm_start is not None:
            raise ValueError("reference goes neither with past nor with warm_start")
        others = form.matched(reference, structure, len(values))
        if method in REFERS:
            with translated():
                frame = _library.ops().compress.reference(
                    values, others, method=method, effort=effort, metadata=metadata
                )
            return cast(torch.Tensor, frame)
    if method in REMEMBERS and (warm_start is not None or past is not None):
        warm = None if warm_start is None else warm_start.handle
        keywords = {"method": method, "effort": effort, "metadata": metadata}
        with translated():
            if past is None:
                frame = _library.ops().compress.warm(values, warm, **keywords)
            else:
                frame = _library.ops().compress.past(values, past.handle, warm, **keywords)
        return cast(torch.Tensor, frame)
    operator = _library.ops().compress
    if handle is None:
        operator = operator.default  # looking for an overload takes as long as a small tensor
    with translated():
        frame = operator(
            values,
            handle,
            method=method,
            separator=separator,
            bytes_per_group=0 if bytes_per_group is None else bytes_per_group,
            byte_order=byte_order,
            window=window,
            lane_elements=0 if lane_elements is None else lane_elements,
            bypass=bypass,
            memory_limit=memory_limit,
            effort=effort,
            metadata=metadata,
        )
    return cast(torch.Tensor, frame)


def decompress(
    data: Data,
    *,
    prior: PriorLike | None = None,
    past: PastFrame | None = None,
    reference: Tensors | None = None,
    max_bytes: int | None = None,
) -> torch.Tensor | list[torch.Tensor] | dict[str, torch.Tensor]:
    """Decompresses a frame.

    Args:
        data: The frame: uint8 of shape [bytes] on CPU or CUDA, or bytes, a bytearray, a memoryview
            or a NumPy array of bytes. Damaged and foreign bytes are safe to pass.
        prior: The prior that compressed it, on the device of the data: a `Prior`, a file, or the
            name of a bundled one; None is the bundled "residual" for frames of method "lm" and
            "default" for those of "lmgc". Frames that need none ignore it.
        past: The frame before of a sequence, as this side has it; the frame takes its place. Frames
            that need no other decompress with it as well. Not for frames that need a prior.
        reference: What the frame was compressed relative to; ignored by frames that need none. Not
            for frames that need a prior or a past frame.
        max_bytes: The most bytes that all tensors together may have; None: as many as they like. A
            frame that announces more is refused before memory is taken for any of them.

    Returns:
        What was compressed, bit for bit: a tensor, a list (of any sequence), or a dict in the same
        order; new tensors on the device of the data.

    Raises:
        CorruptFrameError: The bytes are no frame, or are damaged.
        TooLargeError: The frame announces more than `max_bytes`.
        PriorMismatchError: The frame was compressed with another prior.
        PastMismatchError: The frame refers to another one than that of `past`.
        ReferenceMismatchError: A tensor was compressed relative to another one than that of
            `reference`.
        TypeError: `data` or `max_bytes` is something else, or `past` is no `PastFrame`.
        ValueError: `data` is not one-dimensional, the prior is on another device, or `max_bytes` is
            negative.
        ImportError: The native library cannot be loaded; the message says why.
    """
    max_bytes = checked_max_bytes(max_bytes)
    frame = _frame(data)
    with _decoded_text(), translated():
        metadata, methods = _library.ops().contents.default(frame)
    structure = form.structure_of(metadata, len(methods))
    if past is not None and not isinstance(past, PastFrame):
        raise TypeError(f"past is of type {type(past).__name__}; it must be a PastFrame")
    tensors: list[torch.Tensor]
    if reference is not None:
        if past is not None:
            raise ValueError("reference does not go with past")
        others = form.matched(reference, structure, len(methods))
        with translated():
            tensors = _library.ops().decompress.reference(frame, others, max_bytes=max_bytes)
    elif past is not None:
        with translated():
            tensors = _library.ops().decompress.past(frame, past.handle, max_bytes=max_bytes)
    else:
        handle = _handle(prior, frame.device, set(methods))
        operator = _library.ops().decompress
        if handle is None:
            operator = operator.default
        with translated():
            tensors = operator(frame, handle, max_bytes=max_bytes)
    kind = form.kind_of(structure)
    if kind == "list":
        return tensors
    return tensors[0] if kind == "tensor" else dict(zip(structure["names"], tensors, strict=True))


def info(data: Data) -> FrameInfo:
    """Reads what a frame holds, without decoding it.

    Only the header is looked at, and its checksum: decompressing tells whether the rest is whole.

    Args:
        data: As for `decompress`.

    Returns:
        The frame's description; ``print`` shows it as a table.

    Raises:
        CorruptFrameError: The bytes are no frame, or its header is damaged.
        TypeError: `data` is something else.
        ValueError: `data` is not one-dimensional, or this torch has no such element type.
        ImportError: The native library cannot be loaded; the message says why.
    """
    header = _header(_frame(data))
    structure = form.structure_of(header["metadata"], len(header["tensors"]))
    names = structure.get("names") or [None] * len(header["tensors"])
    return FrameInfo(
        version=header["version"],
        kind=form.kind_of(structure),
        tensors=tuple(
            TensorInfo(
                name=name,
                dtype=_dtype(tensor["dtype"]),
                shape=tuple(tensor["shape"]),
                method=tensor["method"],
                joined=tensor["joined"],
                rank=tensor.get("rank", 0),
                needs_reference=tensor.get("reference", False),
                spare_bits=tensor["spare_bits"],
                spare_exponents=tensor["spare_exponents"],
                raw_bytes=tensor["raw_bytes"],
                section_bytes=tensor["section_bytes"],
                sections=dict(tensor["sections"]),
            )
            for name, tensor in zip(names, header["tensors"], strict=True)
        ),
        bytes=header["bytes"],
        header_bytes=header["header_bytes"],
        prior=header["prior"],
        needs_past=header["past"],
        metadata=header["metadata"],
    )


def checked_max_bytes(max_bytes: int | None) -> int | None:
    """Returns what the operators take for this limit.

    Raises:
        TypeError: It is no number.
        ValueError: It is negative.
    """
    if max_bytes is None:
        return None
    if not isinstance(max_bytes, int) or isinstance(max_bytes, bool):
        raise TypeError(f"max_bytes is of type {type(max_bytes).__name__}; it must be an int")
    if max_bytes < 0:
        raise ValueError(f"max_bytes is {max_bytes}; it must not be negative")
    return min(max_bytes, 2**63 - 1)


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if dtype is None:
        raise ValueError(f"torch {torch.__version__} has no element type {name}")
    return cast(torch.dtype, dtype)


def _handle(prior: PriorLike | None, device: torch.device, methods: Set[str]) -> Any:
    """Returns the operators' prior, loaded if one of the methods needs it, else None."""
    if prior is not None and not isinstance(prior, Prior | str | os.PathLike):
        raise TypeError(
            f"prior is of type {type(prior).__name__}; it must be a Prior, a file or the name of a "
            "bundled prior"
        )
    learned = sorted(methods & NEEDS_PRIOR)
    if not learned:
        return None
    if isinstance(prior, Prior):
        return prior.handle
    if prior is None:
        prior = _prior.DEFAULTS[learned[0]]
    if isinstance(prior, str) and prior in _prior.bundled():
        return _prior.cached(prior, device).handle
    return Prior.load(prior, device).handle


def _frame(data: Any) -> torch.Tensor:
    """Returns `data` as the operators take it, without a copy where it can be written to."""
    if isinstance(data, torch.Tensor):
        if data.dtype != torch.uint8:
            raise TypeError(f"a frame is a uint8 tensor; this one is of {data.dtype}")
        if data.is_meta:
            raise ValueError("the frame is a meta tensor: it has no data")
        frame = data
    else:
        try:
            view = memoryview(data)
        except TypeError:
            raise TypeError(
                f"a frame is a uint8 tensor or bytes, not of type {type(data).__name__}"
            ) from None
        if view.itemsize != 1:
            raise TypeError(
                f"a frame is made of single bytes; this buffer has {view.itemsize} each"
            )
        if view.ndim != 1:
            raise ValueError(f"a frame has 1 dimension, not {view.ndim}")
        if view.nbytes == 0:
            return torch.empty(0, dtype=torch.uint8, device="cpu")
        if view.readonly or not view.c_contiguous:  # torch has no tensors that are read-only
            view = memoryview(bytearray(view))
        frame = torch.frombuffer(view, dtype=torch.uint8)
    if frame.dim() != 1:
        raise ValueError(f"a frame has 1 dimension, not {frame.dim()}")
    return frame


@contextmanager
def _decoded_text() -> Iterator[None]:
    """Turns the error of metadata that are not text into ours."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise CorruptFrameError(f"the frame: its metadata are not text ({error})") from None


def _header(frame: torch.Tensor) -> dict[str, Any]:
    with _decoded_text(), translated():
        header: dict[str, Any] = json.loads(_library.ops().info(frame))
    for index, tensor in enumerate(header["tensors"]):
        for part, size in tensor["sections"].items():
            if not isinstance(size, int):
                raise CorruptFrameError(f"tensor {index}: {part}, {size}")
    return header
