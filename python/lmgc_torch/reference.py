"""A second decoder of frames, written from docs/format.md alone: the judge in doubt.

It is slow and plain on purpose: Python integers, one step at a time, no bit tricks. It reads frame
formats 1 to 4 on the CPU, with priors that are portable. NumPy holds its results and the few
float32 operations of docs/format.md, section 7.5; torch runs the prior and nothing else. The header
is read in `reference_frame`; methods are in `reference_planes`, `reference_fixed` and
`reference_factors` ("scale" and "lowrank"), `reference_lm` and `reference_lmgc`, priors in
`reference_prior`, and what all of them share in `reference_common`.

    tensors = reference.decode(frame, torch.jit.load("prior.pt"))
    tensors[0].dtype, tensors[0].array
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from lmgc_torch.errors import PastMismatchError, ReferenceMismatchError, TooLargeError
from lmgc_torch.reference_common import (
    checksum,
    refuse,
)
from lmgc_torch.reference_fixed import REFERENCE, FixedSection, PastFactors
from lmgc_torch.reference_frame import DTYPES, FIXED, NOT_IN_NUMPY, Header, read_header
from lmgc_torch.reference_lm import LmSection
from lmgc_torch.reference_lmgc import LmgcSection, RangeDecoder
from lmgc_torch.reference_planes import decode_planes
from lmgc_torch.reference_prior import LanguageModel, check_prior

__all__ = ["DecodedTensor", "Past", "decode"]


@dataclass(frozen=True)
class DecodedTensor:
    """One tensor of a frame.

    Attributes:
        dtype: The name of its element type, as torch has it: "bfloat16".
        shape: Its sizes.
        data: Its bytes: elements in C order, little-endian.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @property
    def array(self) -> npt.NDArray[Any]:
        """The tensor; where NumPy lacks the type (bfloat16, float8, complex32), its bits."""
        width = DTYPES[self.dtype].width
        kind = f"uint{8 * width}" if self.dtype in NOT_IN_NUMPY else self.dtype
        return np.frombuffer(self.data, dtype=np.dtype(kind).newbyteorder("<")).reshape(self.shape)


@dataclass
class Past:
    """What is kept of the frame before, of a sequence.

    Attributes:
        identity: The frame's header checksum; None before the first frame.
        factors: By the tensor's place in the list: its factors, None where it had no prediction.
    """

    identity: int | None = None
    factors: dict[int, PastFactors | None] = field(default_factory=dict)


def decode(
    frame: bytes,
    prior: Any = None,
    past: Past | None = None,
    reference: Sequence[bytes] = (),
    max_bytes: int | None = None,
) -> list[DecodedTensor]:
    """Decodes a frame.

    Args:
        frame: The frame.
        prior: The TorchScript module that compressed it, on the CPU; frames that hold nothing of
            methods "lmgc" and "lm" need none.
        past: The frame before, of a sequence; this one takes its place.
        reference: The bytes of the tensors that the frame was compressed relative to.
        max_bytes: The most bytes that all tensors together may have; None: as many as they like.

    Returns:
        The tensors, in order.

    Raises:
        CorruptFrameError: The bytes are no frame of these versions, or are damaged.
        TooLargeError: The frame announces more than `max_bytes`.
        PriorMismatchError: The frame was compressed with another prior, or one that is not
            portable.
        PastMismatchError: The frame refers to another one than `past`.
        ReferenceMismatchError: A tensor was compressed relative to another one.
    """
    header = checked_header(frame, prior, past, max_bytes)
    tensors: dict[int, DecodedTensor] = {}
    factors: dict[int, PastFactors | None] = {}
    sections = decoded_sections(frame, header, prior, past, reference)
    for record, places, section in zip(header.records, header.places, sections, strict=True):
        parts = record.split(section.data)
        for place, one, data in zip(places, record.tensors, parts, strict=True):
            if checksum(data) & 0xFFFFFFFF != one.data_checksum:
                refuse("the decoded data differ from what was encoded (checksum)")
            tensors[place] = DecodedTensor(record.dtype, one.sizes, data)
        factors[places[0]] = section.factors
    if past is not None:
        past.identity, past.factors = header.identity, factors
    return [tensors[place] for place in range(len(tensors))]


def checked_header(
    frame: bytes, prior: Any, past: Past | None, max_bytes: int | None = None
) -> Header:
    """Reads a frame's header, and checks what holds for all sections; as `decode`."""
    header = read_header(frame)
    announced = sum(record.elements * record.element.width for record in header.records)
    if max_bytes is not None and announced > max_bytes:
        raise TooLargeError(f"the frame announces {announced} bytes of tensors")
    if checksum(frame[header.size :]) != header.payload_checksum:
        refuse("the payload was changed (checksum)")
    if header.prior is not None:
        check_prior(header.prior, prior)
    if header.past is not None and (past is None or past.identity != header.past):
        raise PastMismatchError("the frame refers to another one than that at hand")
    return header


@dataclass(frozen=True)
class DecodedSection:
    """What a section decodes to: the tensor's bytes, and its factors where it has some."""

    data: bytes
    factors: PastFactors | None = None


def decoded_sections(
    frame: bytes,
    header: Header,
    prior: Any = None,
    past: Past | None = None,
    reference: Sequence[bytes] = (),
) -> Iterator[DecodedSection]:
    """Decodes the sections of a frame, one after the other; the tensors' checksums are not checked.

    Arguments and errors are those of `decode`.
    """
    known = past.factors if past and header.past is not None else {}
    offset = header.size
    for index, record in enumerate(header.records):
        section = frame[offset : offset + record.section_size]
        offset += record.section_size
        if record.method == "raw":
            yield DecodedSection(section)
        elif record.method == "planes":
            yield DecodedSection(decode_planes(section, record))
        elif record.method in FIXED:
            predicted = record.method == "lowrank"
            fixed = FixedSection(section, record.sizes, record.element, predicted, record.spare)
            words = None
            if fixed.flags & REFERENCE:
                place = header.places[index][0]
                alone = not record.joined and place < len(reference)
                own = reference[place] if alone else b""
                width = record.element.width
                same = checksum(own) & 0xFFFFFFFF == fixed.reference_checksum
                if not same or len(own) != width * record.elements:
                    raise ReferenceMismatchError(f"tensor {place}: this is another reference")
                words = [
                    int.from_bytes(own[i : i + width], "little") for i in range(0, len(own), width)
                ]
            data = fixed.decode(known.get(header.places[index][0]), words)
            yield DecodedSection(data, fixed.factors())
        elif record.method == "lm":
            model = LanguageModel(prior, 4, "")
            yield DecodedSection(
                LmSection(
                    section,
                    record.sizes,
                    record.element,
                    model,
                    prior.max_context,
                    RangeDecoder,
                    record.spare,
                ).decode()
            )
        else:
            assert header.prior is not None  # read_header has seen to it
            yield DecodedSection(LmgcSection(section, record, header.prior, prior).decode())
