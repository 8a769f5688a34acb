"""What an archive holds, as `lmgc info` and `lmgc list` show it."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

from lmgc_torch.archive.container import Index, ReferenceEntry, positions_in_frames
from lmgc_torch.frame_info import FrameInfo, Sizes, TensorInfo, printable, table


@dataclasses.dataclass(frozen=True)
class ArchiveInfo(Sizes):
    """What an archive holds; ``print`` shows a summary.

    Attributes:
        version: The version of the archive format; 0 for a single frame.
        format: What it was made of: "pt" or "safetensors" for such a file, "object" for what `save`
            wrote, "tensors" for `save_file`, "frame" for a single frame.
        tensors: The tensors that are stored, in order.
        views: The others: their name, and the name of the one that holds their elements.
        frames: The number of frames.
        bytes: The size of the archive.
        header_bytes: The part of it that is not the tensors' own: the frames' headers, the index.
        index_bytes: The part of that that is not in frames.
        priors: What the frames say of the priors that they need.
        needs_past: Whether a frame decompresses only after the one before it in a sequence, as the
            frames of a `PastFrame` do; archives that this library writes have none.
        reference: What the archive was made relative to and needs; None if it needs nothing.
        metadata: Texts by key; None if there are none.
        identity: SHA-256 of the index, in hexadecimal digits; of a frame an empty text.
    """

    version: int
    format: str
    tensors: tuple[TensorInfo, ...]
    views: dict[str, str]
    frames: int
    bytes: int
    header_bytes: int
    index_bytes: int
    priors: tuple[dict[str, Any], ...]
    needs_past: bool
    reference: ReferenceEntry | None
    metadata: dict[str, str] | None
    identity: str

    @classmethod
    def of(cls, index: Index, infos: Sequence[FrameInfo], size: int) -> "ArchiveInfo":
        """Puts together what the index and the frames' headers tell."""
        entries = index.tensors
        stored: dict[int, TensorInfo] = {}
        for held, info in zip(positions_in_frames(entries, len(infos)), infos, strict=True):
            for position, tensor in zip(held, info.tensors, strict=True):
                stored[position] = dataclasses.replace(tensor, name=entries[position].name)
        priors: list[dict[str, Any]] = []
        for info in infos:
            if info.prior is not None and info.prior not in priors:
                priors.append(info.prior)
        in_frames = sum(info.bytes for info in infos)
        headers = sum(info.header_bytes for info in infos)
        return cls(
            version=index.version,
            format=format_of(index),
            tensors=tuple(stored[position] for position in sorted(stored)),
            views={
                entry.name: entries[entry.view_of].name
                for entry in entries
                if entry.view_of is not None
            },
            frames=len(infos),
            bytes=size,
            header_bytes=headers + size - in_frames,
            index_bytes=size - in_frames,
            priors=tuple(priors),
            needs_past=any(info.needs_past for info in infos),
            reference=index.reference,
            metadata=index.metadata,
            identity=index.identity,
        )

    @property
    def spare_bits(self) -> dict[int, int]:
        """How many tensors have so many spare bits, of those that have some, by their number."""
        spare = Counter(tensor.spare_bits for tensor in self.tensors if tensor.spare_bits)
        return dict(sorted(spare.items()))

    def table(self) -> str:
        """Returns a table of the tensors."""
        lines = table(self.tensors, self)
        lines += [
            f"{printable(name)} is part of {printable(of)}" for name, of in self.views.items()
        ]
        lines += self._needs()
        return "\n".join(lines)

    def __str__(self) -> str:
        methods = Counter(tensor.method for tensor in self.tensors)
        kind = f"archive format {self.version}, {_FORMATS[self.format]}"
        if self.version == 0:
            kind = "a single frame"
        tied = f" and {len(self.views)} that share their elements" if self.views else ""
        lines = [
            f"{kind}: {len(self.tensors)} tensors in {self.frames} frames{tied}",
            f"{self.ratio:.2f} % ({self.raw_bytes:,} -> {self.bytes:,} bytes)",
            "methods: "
            + (", ".join(f"{name} {count}" for name, count in sorted(methods.items())) or "none"),
            "bytes: " + ", ".join(f"{name} {size:,}" for name, size in self.sections.items()),
        ]
        if self.spare_bits:
            told = (f"{bits} in {_counted(count)}" for bits, count in self.spare_bits.items())
            lines.append(f"bits of the mantissa that are not used: {', '.join(told)}")
        for prior in self.priors:
            lines.append("prior: " + ", ".join(f"{key} {value}" for key, value in prior.items()))
        if self.needs_past:
            lines.append("needs the frame before it")
        lines += self._needs()
        for key, text in (self.metadata or {}).items():
            lines.append(f"metadata: {printable(key)} = {printable(text)}")
        if self.identity:
            lines.append(f"identity: {self.identity}")
        return "\n".join(lines)

    def _needs(self) -> list[str]:
        relative = sum(tensor.needs_reference for tensor in self.tensors)
        if self.reference is None:
            return ["needs the reference that it was compressed relative to"] if relative else []
        name = printable(self.reference.name or "given as tensors")
        told = f"needs the reference {name} for {_counted(relative)}: {self.reference.tensors}"
        if self.reference.archive is not None:
            told += f", of the archive {self.reference.archive}"
        return [told]


def _counted(tensors: int) -> str:
    return "1 tensor" if tensors == 1 else f"{tensors} tensors"


_FORMATS = {
    "pt": "of a .pt file",
    "safetensors": "of a .safetensors file",
    "object": "of an object",
    "tensors": "of tensors by name",
    "frame": "of a frame",
}


def format_of(index: Index) -> str:
    """Returns what an archive was made of, see `ArchiveInfo.format`."""
    if index.version == 0:
        return "frame"
    if index.file is not None and index.file.get("format") in ("pt", "safetensors"):
        return str(index.file["format"])
    return "tensors" if index.object is None else "object"
