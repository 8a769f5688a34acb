"""A second decoder of frames, written from docs/format.md alone: the judge in doubt.

It is slow and plain on purpose: Python integers, one step at a time, no bit tricks. It reads frame
formats 1 to 3 on the CPU, with priors that are portable. NumPy holds its results and the few
float32 operations of docs/format.md, section 7.5; torch runs the prior and nothing else. The header
is read in `reference_frame`; methods are in `reference_planes`, `reference_fixed` ("scale" and
"lowrank"), `reference_lm` and `reference_lmgc`, priors in `reference_prior`, and what all of them
share in `reference_common`.

    tensors = reference.decode(frame, torch.jit.load("prior.pt"))
    tensors[0].dtype, tensors[0].array
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lmgc_torch.reference_common import (
    checksum,
    refuse,
)
from lmgc_torch.reference_fixed import FixedSection
from lmgc_torch.reference_frame import DTYPES, FIXED, NOT_IN_NUMPY, read_header
from lmgc_torch.reference_lm import LmSection
from lmgc_torch.reference_lmgc import LmgcSection, RangeDecoder
from lmgc_torch.reference_planes import decode_planes
from lmgc_torch.reference_prior import LanguageModel, check_prior

__all__ = ["DecodedTensor", "decode"]


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


def decode(frame: bytes, prior: Any = None) -> list[DecodedTensor]:
    """Decodes a frame.

    Args:
        frame: The frame.
        prior: The TorchScript module that compressed it, on the CPU; frames that hold nothing of
            methods "lmgc" and "lm" need none.

    Returns:
        The tensors, in order.

    Raises:
        CorruptFrameError: The bytes are no frame of these versions, or are damaged.
        PriorMismatchError: The frame was compressed with another prior, or one that is not
            portable.
    """
    header = read_header(frame)
    if checksum(frame[header.size :]) != header.payload_checksum:
        refuse("the payload was changed (checksum)")
    if header.prior is not None:
        check_prior(header.prior, prior)
    tensors = []
    offset = header.size
    for record in header.tensors:
        section = frame[offset : offset + record.section_size]
        offset += record.section_size
        if record.method == "raw":
            data = section
        elif record.method == "planes":
            data = decode_planes(section, record)
        elif record.method in FIXED:
            predicted = record.method == "lowrank"
            data = FixedSection(
                section, record.sizes, record.element, predicted, record.spare
            ).decode()
        elif record.method == "lm":
            model = LanguageModel(prior, 4, "")
            data = LmSection(
                section,
                record.sizes,
                record.element,
                model,
                prior.max_context,
                RangeDecoder,
                record.spare,
            ).decode()
        else:
            assert header.prior is not None  # read_header has seen to it
            data = LmgcSection(section, record, header.prior, prior).decode()
        if checksum(data) & 0xFFFFFFFF != record.data_checksum:
            refuse("the decoded data differ from what was encoded (checksum)")
        tensors.append(DecodedTensor(record.dtype, record.sizes, data))
    return tensors
