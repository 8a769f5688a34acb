"""Small frames of every method and type to change, taken apart, and how both decoders read them."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "golden")]

import helpers  # noqa: E402
import lm_priors  # noqa: E402
import make as golden  # noqa: E402

from lmgc_torch import PastFrame, Prior, compress, decompress  # noqa: E402
from lmgc_torch import near_lossless as loss  # noqa: E402
from lmgc_torch import reference as ref  # noqa: E402
from lmgc_torch import reference_common as ref_common  # noqa: E402
from lmgc_torch import reference_frame as ref_frame  # noqa: E402
from lmgc_torch.errors import LmgcError  # noqa: E402

PRIORS = Path(ref.__file__).parent / "priors"
CODES = {name: code for code, name in ref_frame.DTYPE_OF_CODE.items()}


# ---- frames, taken apart -------------------------------------------------------------------------


@dataclass
class Parts:
    """What a frame is made of; `write` makes one of any parts, with right checksums.

    Attributes:
        version: Of the format.
        metadata: As it stands in the header.
        prior: The prior block, if there is one.
        past: What the frame says of the one before it, if it does.
        records: Of the header, with their sections.
    """

    version: int
    metadata: bytes
    prior: bytes
    past: bytes
    records: list[helpers.Record]

    @classmethod
    def of(cls, frame: bytes) -> Parts:
        """Takes a frame apart that is whole."""
        header = ref_frame.read_header(frame)
        fields = ref_common.ByteReader(frame[10 : header.size - 16])
        metadata = fields.text().encode()
        start = 10 + fields.position
        if header.prior is not None:
            ref_frame.read_prior_block(fields, frame[4])
        middle = 10 + fields.position
        past = frame[middle : middle + 8] if header.past is not None else b""
        records = []
        offset = header.size
        for one in header.records:
            section = frame[offset : offset + one.section_size]
            offset += one.section_size
            spare = None if one.spare == ref_common.WHOLE else (one.spare.bits, one.spare.exponents)
            method = ref_frame.METHODS.index(one.method)
            dtype, data = CODES[one.dtype], one.data_checksum
            joined, place = [], 0
            for tensor in one.joined:
                skipped, place = tensor.place - place, tensor.place + 1
                joined.append(helpers.JoinedTensor(skipped, tensor.sizes, tensor.data_checksum))
            records.append(
                helpers.Record(one.sizes, section, dtype, method, data, None, spare, joined)
            )
        return cls(frame[4], metadata, frame[start:middle], past, records)

    def write(self) -> bytes:
        return helpers.frame_by_hand(
            self.records,
            metadata=self.metadata,
            prior=self.prior + self.past,
            flags=(1 if self.prior else 0) + (2 if self.past else 0),
            version=self.version,
        )


# ---- frames, and what they decode with -----------------------------------------------------------


@dataclass(frozen=True)
class Base:
    """A frame that is whole.

    Attributes:
        kind: Its method, or what else is special: "past", "reference", "near-lossless".
        name: Of the golden frame that it is from, and which tensor of it.
        frame: The frame.
        data: Its tensors' bytes.
        prior: What compressed it, for frames that need a prior.
        before: The frame that it refers to.
        reference: The tensors that it was compressed relative to.
    """

    kind: str
    name: str
    frame: bytes
    data: list[bytes]
    prior: BothPriors | None = None
    before: bytes | None = None
    reference: list[Tensor] = field(default_factory=list)
    _past: list[PastFrame] = field(default_factory=list)

    @property
    def slow(self) -> bool:
        """Whether a prior's steps are TorchScript's."""
        return self.prior is not None and not self.prior.native

    def decompress(self, frame: bytes) -> list[Tensor]:
        """Decodes a frame that may take this one's place, by the operators."""
        if self.before is not None and not self._past:
            self._past.append(PastFrame())
            decompress(self.before, past=self._past[0])
        content = decompress(
            frame,
            prior=self.prior.operators if self.prior else None,
            past=self._past[0] if self._past else None,
            reference=self._reference_of(frame) or None,
        )
        self._past.clear()  # frames that are refused leave it as it was
        if isinstance(content, Tensor):
            return [content]
        return list(content.values() if isinstance(content, dict) else content)

    def _reference_of(self, frame: bytes) -> list[Tensor]:
        """The reference, of a changed frame's type and shape where its bytes can be: what the
        second decoder takes are bytes alone."""
        try:
            told = shapes(frame)
        except LmgcError:
            return self.reference
        result = list(self.reference)
        for i, (tensor, (dtype, sizes)) in enumerate(zip(result, told, strict=False)):
            dtype = getattr(torch, dtype)
            if math.prod(sizes) * dtype.itemsize == tensor.nbytes:
                result[i] = helpers.from_bytes(as_bytes([tensor])[0], dtype, sizes)
        return result

    def read(self, frame: bytes) -> Iterator[tuple[int, bytes]]:
        """The same by the second decoder, which does not look at the tensors' checksums: their
        places and bytes."""
        past = None
        if self.before is not None:
            past = ref.Past()
            ref.decode(self.before, past=past)
        known = as_bytes(self.reference)
        module = self.prior.module if self.prior else None
        header = ref.checked_header(frame, module, past)
        sections = ref.decoded_sections(frame, header, module, past, known)
        for record, places, section in zip(header.records, header.places, sections, strict=True):
            yield from zip(places, record.split(section.data), strict=True)


class BothPriors:
    """A prior as the operators and as the second decoder take it."""

    def __init__(self, path: Path, native: bool) -> None:
        self.operators = Prior.load(path)
        self.module = torch.jit.load(str(path))
        self.native = native


def single(record: helpers.Record, parts: Parts) -> bytes:
    """The frame of one record of another."""
    learned = ref_frame.METHODS[record.method] in ref_frame.LEARNED
    return replace(parts, records=[record], prior=parts.prior if learned else b"").write()


def golden_bases(folder: Path, most: int) -> Iterator[Base]:
    """Each record of the golden frames in a frame of its own, unless it refers to another frame.

    Args:
        folder: Where a prior can be written to.
        most: Bytes of a frame.
    """
    priors = {
        begin: BothPriors(path, begin == "lm_native_")
        for begin, path in golden.prior_files(folder).items()
    }
    seen = set()
    for path in sorted(golden.FOLDER.glob("*.lmgc")):
        frame, raw = path.read_bytes(), path.with_suffix(".raw").read_bytes()
        name = path.stem.split("_", 1)[1]
        prior = next(prior for begin, prior in priors.items() if name.startswith(begin))
        if (before := path.with_suffix(".before")).exists():
            if len(frame) <= most:
                yield Base("past", path.stem, frame, [raw], None, before.read_bytes())
            continue
        header = ref_frame.read_header(frame)
        data = []
        for dtype, sizes in header.shapes:
            size = torch.Size(sizes).numel() * ref_frame.DTYPES[dtype].width
            data.append(raw[:size])
            raw = raw[size:]
        parts, known = Parts.of(frame), golden.reference(name)
        for i, (record, places) in enumerate(zip(parts.records, header.places, strict=True)):
            joined = [dataclasses.replace(one, skipped=0) for one in record.joined]
            record = dataclasses.replace(record, joined=joined)
            method = ref_frame.METHODS[record.method]
            own = single(record, parts)
            # An older torch may lack the type.
            there = hasattr(torch, ref_frame.DTYPE_OF_CODE[record.dtype])
            if len(own) > most or own in seen or not there:
                continue
            seen.add(own)
            learned = method in ref_frame.LEARNED
            yield Base(
                "reference" if known else "joined" if joined else method,
                f"{path.stem}[{i}]",
                own,
                [data[place] for place in places],
                prior if learned else None,
                reference=[known[places[0]]] if known else [],
            )


def learned_bases(most: int) -> Iterator[Base]:
    """Small tensors of method "lm" under the bundled prior, each in a frame of its own."""
    prior = BothPriors(PRIORS / "residual.pt", native=True)
    for dtype in helpers.FLOATS:
        tensors = [
            lm_priors.paying(),  # for the prior block
            golden.gradient(30, dtype=dtype, seed=22),
            golden.gradient(3, 17, dtype=dtype, seed=23),
            golden.with_dead_lines(golden.low_rank(8, 20, 1, dtype=dtype, seed=24)),
            lm_priors.low_rank(24, 28, rank=1, noise=0, dtype=dtype),
        ]
        frame = helpers.to_bytes(compress(tensors, method="lm", prior=prior.operators))
        parts = Parts.of(frame)
        for i, (record, data) in enumerate(zip(parts.records, as_bytes(tensors), strict=True)):
            own = single(record, parts)
            if i > 0 and ref_frame.METHODS[record.method] == "lm" and len(own) <= most:
                yield Base("lm", f"lm {dtype} {i}", own, [data], prior)


LOSSES: Sequence[loss.Loss] = (loss.KeepBits(3), loss.AbsoluteBound(1e-4))


def rounded_bases(most: int) -> Iterator[Base]:
    """Tensors that a tunable loss changed."""
    for dtype in helpers.FLOATS:
        for number, change in enumerate(LOSSES):
            tensor = change(golden.gradient(8, 20, dtype=dtype, seed=21))
            frame = helpers.to_bytes(compress([tensor], method="scale"))
            data = helpers.to_bytes(helpers.bits(tensor))
            if len(frame) <= most:
                yield Base("near-lossless", f"{dtype} {number}", frame, [data])


def bases(folder: Path, most: int = 1 << 20) -> list[Base]:
    """Frames of all kinds, of at most so many bytes."""
    return [*golden_bases(folder, most), *learned_bases(most), *rounded_bases(most)]


def as_bytes(tensors: Sequence[Tensor]) -> list[bytes]:
    return [helpers.to_bytes(helpers.bits(tensor)) for tensor in tensors]


def announced(frame: bytes) -> int:
    """Elements of all tensors that a header speaks of; 0 if it is none."""
    try:
        header = ref_frame.read_header(frame)
    except LmgcError:
        return 0
    return sum(record.elements for record in header.records)


def shapes(frame: bytes) -> Any:
    """Types and shapes of a frame's tensors."""
    return ref_frame.read_header(frame).shapes
