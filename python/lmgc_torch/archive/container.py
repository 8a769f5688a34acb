"""The bytes of an archive: head, index and trailer, as docs/archive.md describes them."""

import dataclasses
import hashlib
import json
import re
import struct
import zlib
from collections.abc import Sequence
from typing import Any

from lmgc_torch.errors import CorruptArchiveError
from lmgc_torch.frame_info import printable

VERSION = 1
MAGIC = b"LMGA"
MAGIC_OF_FRAMES = b"LMGC"
HEAD = MAGIC + bytes([VERSION, 0, 0, 0])
END = b"LMGA\0END"
TRAILER = struct.Struct("<QQQ32s8s")
MOST_EXPANSION = 1040  # deflate makes at most 1032 bytes of one
MOST_DIMENSIONS = 64
LEAST_FRAME = 27  # a header without tensors


@dataclasses.dataclass(frozen=True)
class FrameEntry:
    """Where a frame lies.

    Attributes:
        offset: Bytes of the file before it.
        size: Its bytes.
        checksum: The checksum of its header, which covers all that is in the frame.
    """

    offset: int
    size: int
    checksum: int


@dataclasses.dataclass(frozen=True)
class Geometry:
    """A view of a tensor's elements: how ``Tensor.as_strided`` takes it, in elements."""

    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class TensorEntry:
    """A named tensor: stored in a frame, or a view of one that is.

    Attributes:
        name: Its name, like no other's.
        frame: The frame that holds it; None for a view. A frame's tensors are in the entries'
            order.
        view_of: For a view, the position of the entry whose elements it shares.
        geometry: How it sees these; None if it is the same tensor.
    """

    name: str
    frame: int | None = None
    view_of: int | None = None
    geometry: Geometry | None = None


@dataclasses.dataclass(frozen=True)
class ReferenceEntry:
    """What an archive was made relative to, see `archive.reference`.

    Attributes:
        tensors: The identity of the tensors that the archive needs, in hexadecimal digits.
        archive: That of the archive that held them; None if none did.
        name: The name that the file had; None if it was none.
    """

    tensors: str
    archive: str | None = None
    name: str | None = None

    def __str__(self) -> str:
        held = "" if self.archive is None else f", archive {self.archive[:16]}"
        return f"{printable(self.name or 'a reference')} (tensors {self.tensors[:16]}{held})"


@dataclasses.dataclass(frozen=True)
class Index:
    """What stands between the frames and the trailer.

    Attributes:
        frames: The frames, in order.
        tensors: The tensors, in order.
        metadata: Texts by key, the user's.
        object: Under "root" the object that the tensors are part of, see `archive.objects`; None
            if the archive is a dict of tensors.
        file: What the file was that the command line made an archive of; None for others.
        reference: What the archive was made relative to; None if it needs nothing.
        identity: SHA-256 of the index as it is stored, in hexadecimal digits.
        version: Of the format; 0 for a single frame, which has no index.
    """

    frames: tuple[FrameEntry, ...]
    tensors: tuple[TensorEntry, ...]
    metadata: dict[str, str] | None = None
    object: dict[str, Any] | None = None
    file: dict[str, Any] | None = None
    reference: ReferenceEntry | None = None
    identity: str = ""
    version: int = VERSION


# ---- writing -------------------------------------------------------------------------------------


def header_checksum(frame: memoryview) -> int:
    """Returns the checksum at the end of a frame's header, 0 where there is no room for one."""
    if len(frame) < 10:
        return 0
    size = int.from_bytes(frame[6:10], "little")
    return int.from_bytes(frame[size - 8 : size], "little") if 18 <= size <= len(frame) else 0


def write_index(index: Index) -> tuple[bytes, int]:
    """Returns the index as it is stored, and its size before."""
    keys: dict[str, Any] = {
        "frames": [[frame.size, f"{frame.checksum:016x}"] for frame in index.frames],
        "tensors": [_tensor_keys(tensor) for tensor in index.tensors],
    }
    for key in ("metadata", "object", "file"):
        if getattr(index, key) is not None:
            keys[key] = getattr(index, key)
    if index.reference is not None:
        told = dataclasses.asdict(index.reference).items()
        keys["reference"] = {key: value for key, value in told if value is not None}
    plain = json.dumps(keys, separators=(",", ":"), allow_nan=False).encode("ascii")
    return zlib.compress(plain, 9), len(plain)


def _tensor_keys(entry: TensorEntry) -> dict[str, Any]:
    if entry.frame is not None:
        return {"name": entry.name, "frame": entry.frame}
    geometry = {} if entry.geometry is None else dataclasses.asdict(entry.geometry)
    return {"name": entry.name, "view_of": entry.view_of, **geometry}


def write_trailer(index_offset: int, stored: bytes, plain_size: int) -> bytes:
    """Returns the last bytes of an archive."""
    digest = hashlib.sha256(stored).digest()
    return TRAILER.pack(index_offset, len(stored), plain_size, digest, END)


# ---- reading -------------------------------------------------------------------------------------


def is_archive(data: memoryview) -> bool:
    """Whether bytes begin as an archive does, of whatever version."""
    return bytes(data[: len(MAGIC)]) == MAGIC


def is_frame(data: memoryview) -> bool:
    """Whether bytes begin as a frame does, of whatever version."""
    return bytes(data[: len(MAGIC_OF_FRAMES)]) == MAGIC_OF_FRAMES


def read_index(data: memoryview) -> Index:
    """Reads and checks the index of an archive.

    Args:
        data: All bytes of the file; only head, index and trailer are looked at.

    Raises:
        CorruptArchiveError: They are not what the format says.
    """
    _check_head(data)
    trailer_at = len(data) - TRAILER.size
    if trailer_at < len(HEAD) or bytes(data[-len(END) :]) != END:
        raise CorruptArchiveError(
            "the archive is cut, or was never completed: it does not end with a trailer"
        )
    offset, size, plain_size, digest, _ = TRAILER.unpack(data[trailer_at:])
    if offset < len(HEAD) or offset + size != trailer_at:
        raise CorruptArchiveError(
            f"the archive's trailer speaks of an index of {size} bytes at {offset}; it must end at "
            f"{trailer_at}, where the trailer begins"
        )
    stored = bytes(data[offset:trailer_at])
    if hashlib.sha256(stored).digest() != digest:
        raise CorruptArchiveError("the archive's index is damaged: its checksum differs")
    keys = _json(_inflated(stored, plain_size))
    tensors = _tensors(keys.get("tensors"))
    index = Index(
        _frames(keys.get("frames"), end=offset),
        tensors,
        _texts(keys.get("metadata")),
        _dict_or_none(keys, "object"),
        _dict_or_none(keys, "file"),
        _reference(_dict_or_none(keys, "reference")),
        digest.hex(),
    )
    for position, tensor in enumerate(tensors):
        if tensor.frame is not None:
            _require(tensor.frame < len(index.frames), f"tensor {position} is in no frame")
        else:
            of = tensor.view_of
            good = of is not None and of < len(tensors) and tensors[of].frame is not None
            _require(good, f"tensor {position} is a view of none that is stored")
    return index


def _check_head(data: memoryview) -> None:
    head = bytes(data[: len(HEAD)])
    if head[: len(MAGIC)] != MAGIC[: len(head)] or not head:
        raise CorruptArchiveError("this is no archive: it does not begin with 'LMGA'")
    if len(head) < len(HEAD):
        raise CorruptArchiveError("the archive is cut: it ends within its head")
    if head != HEAD:
        raise CorruptArchiveError(
            f"the archive is of version {head[4]}, or its head is damaged; this lmgc_torch reads "
            f"version {VERSION}"
        )


def _inflated(stored: bytes, plain_size: int) -> bytes:
    _require(plain_size <= MOST_EXPANSION * len(stored), f"{plain_size} bytes cannot be in it")
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(stored, plain_size + 1)
    except zlib.error as error:
        raise CorruptArchiveError(f"the archive's index cannot be inflated: {error}") from None
    good = len(plain) == plain_size and stream.eof and not stream.unused_data
    _require(good, "it inflates to another size")
    return plain


def _json(plain: bytes) -> dict[str, Any]:
    try:
        keys = json.loads(plain.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise CorruptArchiveError(f"the archive's index is no JSON: {error}") from None
    _require(isinstance(keys, dict), "it is no JSON object")
    return dict(keys)


def _frames(rows: Any, end: int) -> tuple[FrameEntry, ...]:
    _require(isinstance(rows, list), "it does not list the frames")
    frames = []
    offset = len(HEAD)
    for number, row in enumerate(rows):
        what = f"frame {number} is not described"
        _require(isinstance(row, list) and len(row) == 2, what)
        size, checksum = row
        _require(_is_count(size) and size >= LEAST_FRAME, what)
        _require(isinstance(checksum, str) and len(checksum) == 16, what)
        try:
            frames.append(FrameEntry(offset, size, int(checksum, 16)))
        except ValueError:
            _require(False, what)
        offset += size
    _require(offset == end, "the frames do not end where it begins")
    return tuple(frames)


def _tensors(rows: Any) -> tuple[TensorEntry, ...]:
    _require(isinstance(rows, list), "it does not list the tensors")
    names = set()
    tensors = []
    for position, row in enumerate(rows):
        what = f"tensor {position} is not described"
        _require(isinstance(row, dict) and isinstance(row.get("name"), str), what)
        _require(row["name"] not in names, f"two tensors are called {row['name']!r}")
        names.add(row["name"])
        if "frame" in row:
            _require(_is_count(row["frame"]) and "view_of" not in row, what)
            tensors.append(TensorEntry(row["name"], row["frame"]))
        else:
            _require(_is_count(row.get("view_of")), what)
            geometry = _geometry(row, what) if "offset" in row else None
            tensors.append(TensorEntry(row["name"], None, row["view_of"], geometry))
    return tuple(tensors)


def _geometry(row: dict[str, Any], what: str) -> Geometry:
    size, stride = row.get("size"), row.get("stride")
    _require(_is_count(row["offset"]), what)
    for numbers in (size, stride):
        _require(isinstance(numbers, list) and all(map(_is_count, numbers)), what)
    assert isinstance(size, list)
    assert isinstance(stride, list)
    _require(len(size) == len(stride) <= MOST_DIMENSIONS, what)
    return Geometry(row["offset"], tuple(size), tuple(stride))


def last_element(geometry: Geometry) -> int:
    """Returns the place behind the last element that a view sees, 0 if it sees none."""
    if 0 in geometry.size:
        return 0
    steps = zip(geometry.size, geometry.stride, strict=True)
    return geometry.offset + sum((size - 1) * stride for size, stride in steps) + 1


def _texts(metadata: Any) -> dict[str, str] | None:
    if metadata is None:
        return None
    _require(isinstance(metadata, dict), "its metadata are no texts")
    _require(all(isinstance(text, str) for text in metadata.values()), "its metadata are no texts")
    return dict(metadata)


def _reference(keys: dict[str, Any] | None) -> ReferenceEntry | None:
    if keys is None:
        return None
    what = "its 'reference' is not described"
    tensors, archive, name = (keys.get(key) for key in ("tensors", "archive", "name"))
    _require(_is_digest(tensors) and (archive is None or _is_digest(archive)), what)
    _require(name is None or isinstance(name, str), what)
    return ReferenceEntry(str(tensors), archive, name)


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _dict_or_none(keys: dict[str, Any], key: str) -> dict[str, Any] | None:
    value = keys.get(key)
    _require(value is None or isinstance(value, dict), f"its {key!r} is not described")
    return value


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _require(good: bool, what: str) -> None:
    if not good:
        raise CorruptArchiveError(f"the archive's index: {what}")


def positions_in_frames(tensors: Sequence[TensorEntry], frames: int) -> list[list[int]]:
    """Returns for each frame the positions of the entries that it holds."""
    held: list[list[int]] = [[] for _ in range(frames)]
    for position, tensor in enumerate(tensors):
        if tensor.frame is not None:
            held[tensor.frame].append(position)
    return held
