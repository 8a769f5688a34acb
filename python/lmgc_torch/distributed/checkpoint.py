"""Compressed files for `torch.distributed.checkpoint`.

    writer = FileSystemWriter(path, _extensions=[CheckpointCompression()])
    torch.distributed.checkpoint.save(state, storage_writer=writer)

    reader = FileSystemReader(path, _extension_registry=checkpoint_registry())
    torch.distributed.checkpoint.load(state, storage_reader=reader)

The writer passes each item of a checkpoint through a stream of ours: a tensor as torch.save writes
it, or any bytes. Such an archive has its description first and the elements later, in one piece, so
that the stream knows the elements' type and shape when they come. That decides only how well they
are compressed: the bytes that were written come back, whatever they are. A stream is

    magic       8 bytes     "LMGCDCP", version (1)
    blocks      each        bytes of the frame (uint64), bytes that it stands for (uint64), frame
    end         16 bytes    0, bytes that the whole stream stands for

in little-endian order. A frame is a list of tensors whose bytes follow one another.
"""

import collections
import io
import math
import pickle
import struct
from typing import IO, TYPE_CHECKING, Any, TypeAlias, cast

import torch
from torch import Tensor

from lmgc_torch.api import METHODS, Method, compress
from lmgc_torch.distributed.codec import decode_frame
from lmgc_torch.errors import CorruptFrameError

try:
    from torch.distributed.checkpoint._extension import ExtensionRegistry, StreamTransformExtension
except ImportError as error:
    raise ImportError(
        f"distributed checkpoints of torch {torch.__version__} know no extensions; those of a "
        "newer torch do"
    ) from error

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["CheckpointCompression", "checkpoint_registry"]

VERSION = 1
MAGIC = b"LMGCDCP" + bytes([VERSION])
BLOCK = struct.Struct("<QQ")
BLOCK_BYTES = 8 << 20  # a block ends when it stands for so many
MOST_BLOCK_BYTES = 4 * BLOCK_BYTES
SMALL_BYTES = 1 << 12  # less in one piece is the text of an archive
MOST_TEXT_BYTES = 1 << 20
PROBE_BYTES = 1 << 16

STORAGES = {  # names in archives
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "BoolStorage": torch.bool,
}

Form: TypeAlias = tuple[torch.dtype, list[int]]


class CheckpointCompression(StreamTransformExtension):
    """Compresses what `FileSystemWriter` writes, without loss.

    It serves writers of `SerializationFormat.TORCH_SAVE`, the default; safetensors files pass the
    extensions by.
    """

    def __init__(self, method: Method = "planes") -> None:
        """Chooses how to compress.

        Args:
            method: As for `lmgc_torch.compress`: "planes" is fast; "lowrank" makes the moments of
                an optimizer much smaller, and weights a little. Reading needs no such choice.

        Raises:
            ValueError: There is no such method.
        """
        if method not in METHODS:
            legal = ", ".join(map(repr, METHODS))
            raise ValueError(f"method is {method!r}; it must be one of {legal}")
        self.method = method

    @staticmethod
    def registry_name() -> str:
        """Returns the name by which checkpoints refer to this extension."""
        return "stream.lmgc"

    @staticmethod
    def from_descriptor(version: str) -> "CheckpointCompression":
        """Returns the extension that reads what one of `version` has written.

        Raises:
            ValueError: That version is not read here.
        """
        if version != str(VERSION):
            raise ValueError(
                f"the checkpoint was compressed by version {version!r} of stream.lmgc; this "
                f"lmgc_torch reads version {VERSION}"
            )
        return CheckpointCompression()

    def get_descriptor(self) -> str:
        """Returns what the checkpoint remembers: name and version."""
        return f"{self.registry_name()}/{VERSION}"

    def transform_to(self, output: IO[bytes]) -> IO[bytes]:
        """Returns a stream whose bytes go to `output` compressed; closing it completes them."""
        return cast(IO[bytes], _Writer(output, self.method))

    def transform_from(self, input: IO[bytes]) -> IO[bytes]:
        """Returns a stream of the bytes that were compressed to `input`, all decoded; it can seek.

        Raises:
            CorruptFrameError: `input` is no stream of ours, or is damaged or cut.
        """
        return _decoded(input)


def checkpoint_registry() -> ExtensionRegistry:
    """Returns the registry that a `FileSystemReader` needs to find `CheckpointCompression`."""
    registry = ExtensionRegistry()
    registry.register(CheckpointCompression)
    return registry


# ---- writing -------------------------------------------------------------------------------------


class _Writer(io.RawIOBase):
    """Collects what is written into blocks of tensors."""

    def __init__(self, output: IO[bytes], method: Method) -> None:
        self._output = output
        self._method = method
        self._text = bytearray()  # not yet in a block
        self._block: list[Tensor] = []
        self._block_bytes = 0
        self._total = 0
        self._forms: list[Form] | None = None  # of an archive's tensors that have not come yet

    def writable(self) -> bool:
        return True

    def write(self, data: "Buffer", /) -> int:
        view = memoryview(data).cast("B")
        if self._total == 0 and view.nbytes:
            self._output.write(MAGIC)
        self._total += view.nbytes
        if view.nbytes < SMALL_BYTES:
            self._text += view
            if len(self._text) >= MOST_TEXT_BYTES:
                self._end_text()
            return view.nbytes
        dtype, shape = self._form(view)
        self._end_text()
        # Whole rows where one fits, so that the parts of a matrix are matrices.
        row = dtype.itemsize * math.prod(shape[1:])
        if row > BLOCK_BYTES:
            row, shape = dtype.itemsize, [-1]
        step = BLOCK_BYTES // row * row
        whole = view.nbytes // row * row
        for start in range(0, whole, step):
            part = _tensor(view[start : min(start + step, whole)]).view(dtype)
            self._add(part.view(-1, *shape[1:]))
        self._text += view[whole:]
        return view.nbytes

    def close(self) -> None:
        if self.closed:
            return
        if self._total:  # a writer of safetensors closes streams that it never used
            self._end_text()
            self._end_block()
            self._output.write(BLOCK.pack(0, self._total))
        self._output.close()
        super().close()

    def __del__(self) -> None:
        """A stream that nobody closed is not complete, and must not look like it."""

    def _form(self, view: memoryview) -> Form:
        """Returns the type and shape of elements; right or wrong, they only matter for the size."""
        if self._forms is None:
            self._forms = _forms(bytes(self._text))
        for form in self._forms:
            dtype, shape = form
            if view.nbytes == dtype.itemsize * math.prod(shape):
                self._forms.remove(form)
                return form
        return _likely_dtype(view[:PROBE_BYTES]), [-1]

    def _end_text(self) -> None:
        size = len(self._text)
        if size >= PROBE_BYTES:  # bytes that come in small pieces
            size -= size % 8
            dtype = _likely_dtype(memoryview(self._text)[:PROBE_BYTES])
            self._add(_tensor(self._text[:size]).view(dtype))
            self._text = self._text[size:]
        if self._text:
            self._add(_tensor(self._text))
            self._text = bytearray()

    def _add(self, tensor: Tensor) -> None:
        self._block.append(tensor)
        self._block_bytes += tensor.nbytes
        if self._block_bytes >= BLOCK_BYTES:
            self._end_block()

    def _end_block(self) -> None:
        if self._block:
            frame = compress(self._block, method=self._method)
            self._output.write(BLOCK.pack(frame.nbytes, self._block_bytes))
            self._output.write(frame.numpy().data)
            self._block, self._block_bytes = [], 0


def _tensor(view: "Buffer") -> Tensor:
    """Returns a copy of bytes, uint8 of shape [bytes]: writers reuse their buffers."""
    return torch.frombuffer(bytearray(view), dtype=torch.uint8)


def _likely_dtype(sample: memoryview) -> torch.dtype:
    """Returns the type with which bytes of unknown kind compress best."""
    flat = _tensor(sample[: sample.nbytes // 8 * 8])
    types = (torch.uint8, torch.bfloat16, torch.float32, torch.float64)
    return min(types, key=lambda dtype: compress(flat.view(dtype), method="planes").nbytes)


# ---- what an archive of torch.save tells of its tensors ------------------------------------------


def _forms(archive: bytes) -> list[Form]:
    """Reads types and shapes from the beginning of an archive; none from anything else."""
    # The first file in the archive: its header is 30 bytes, its name and extra field, the content.
    if archive[:4] != b"PK\x03\x04" or len(archive) < 30:
        return []
    name, extra = struct.unpack_from("<HH", archive, 26)
    skeleton = _Skeleton(io.BytesIO(archive[30 + name + extra :]))
    try:
        skeleton.load()
    except Exception:  # other objects, other versions of torch: nothing is lost but some bytes
        return []
    return skeleton.forms


class _Skeleton(pickle.Unpickler):
    """Unpickles what torch.save wrote up to the tensors, and collects their types and shapes.

    It calls nothing that a pickle could name, except an empty OrderedDict.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.forms: list[Form] = []

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._tensor
        if (module, name) == ("torch._utils", "_rebuild_tensor_v3"):
            return self._tensor_of_dtype
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) == ("torch.storage", "UntypedStorage"):
            return torch.uint8  # the tensor tells its type
        if module == "torch" and isinstance(dtype := getattr(torch, name, None), torch.dtype):
            return dtype
        raise pickle.UnpicklingError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        return pid[1]  # ("storage", type, key, location, elements)

    def _tensor(self, dtype: torch.dtype, _offset: int, size: Any, stride: Any, *_: Any) -> None:
        # Elements come in the order of memory, which need not be that of the dimensions.
        order = sorted(range(len(size)), key=lambda dimension: -stride[dimension])
        self.forms.append((dtype, [size[dimension] for dimension in order] or [1]))

    def _tensor_of_dtype(
        self, _: Any, offset: int, size: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any
    ) -> None:
        self._tensor(dtype, offset, size, stride)


# ---- reading -------------------------------------------------------------------------------------


def _decoded(source: IO[bytes]) -> io.BytesIO:
    """Decodes a stream as a whole.

    torch.load asks for the end first and then here and there, and it hides the errors of streams
    that it reads: so there is no decoding while it reads.
    """
    magic = _exactly(source, len(MAGIC))
    if magic != MAGIC:
        if magic[:-1] == MAGIC[:-1]:
            raise CorruptFrameError(
                f"the stream is of version {magic[-1]}; this lmgc_torch reads version {VERSION}"
            )
        raise CorruptFrameError("this is no stream of compressed checkpoint data")
    data = io.BytesIO()
    while True:
        size, raw = BLOCK.unpack(_exactly(source, BLOCK.size))
        if size == 0:
            break
        if not 0 < raw <= MOST_BLOCK_BYTES or size > 2 * MOST_BLOCK_BYTES:
            raise CorruptFrameError(f"a block of {raw} in {size} bytes cannot be")
        frame = bytearray(_exactly(source, size))
        tensors = decode_frame(torch.frombuffer(frame, dtype=torch.uint8), raw)
        if sum(tensor.nbytes for tensor in tensors) != raw:
            raise CorruptFrameError(f"the frame of a block does not hold {raw} bytes")
        for tensor in tensors:
            data.write(tensor.view(-1).view(torch.uint8).numpy().data)
    if raw != data.tell() or source.read(1):
        raise CorruptFrameError("the stream's blocks do not add up to its size")
    data.seek(0)
    return data


def _exactly(source: IO[bytes], size: int) -> bytes:
    data = source.read(size)
    while len(data) < size:
        more = source.read(size - len(data))
        if not more:
            raise CorruptFrameError("the stream ends within a block")
        data += more
    return data
