"""Reference compressors on the bytes of tensors, to measure ours against.

Every peer compresses and decompresses, so that a size counts only once its bytes came back. Those
that want to know the element's width ask for the dtype.
"""

from __future__ import annotations

import importlib
import lzma
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch

from lmgc_torch import baselines

ZIPNN_DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
# NumPy has no bfloat16: pcodec gets its bits.
PCODEC_DTYPES = {
    torch.float16: "float16",
    torch.bfloat16: "uint16",
    torch.float32: "float32",
    torch.float64: "float64",
}
Codec = Callable[[bytes, torch.dtype], bytes]
Bytes = Callable[[bytes], bytes]


class Peer(NamedTuple):
    """A compressor of ``bytes`` that hold elements of a dtype, and its inverse."""

    compress: Codec
    decompress: Codec
    dtypes: frozenset[torch.dtype] | None = None  # what it takes; None: everything

    def takes(self, dtypes: Iterable[torch.dtype]) -> bool:
        """Tells whether all the dtypes can be compressed."""
        return self.dtypes is None or self.dtypes.issuperset(dtypes)


def peers(threads: int = 1) -> dict[str, Peer]:
    """Returns the peers by name; a missing optional package drops out with a note on stderr.

    Args:
        threads: threads of ZipNN and of the byte planes (one plane a thread).
    """
    zlib = baselines.zlib_codec(6)
    xz = baselines.Codec(baselines.OTHER, _pack_xz, lambda data, _: lzma.decompress(data))
    table = {
        "zlib-6": _baseline([zlib]),
        "xz-6": _baseline([xz]),
        "byte planes + zlib-6": _baseline([zlib], threads),
        "byte planes + xz-6": _baseline([xz], threads),
    }
    if optional("zstandard"):
        zstd, raw = baselines.zstd_codec, baselines.RAW_CODEC
        table["zstd-3"] = _baseline([zstd(3)])
        table["byte planes + zstd-1"] = _baseline([zstd(1)], threads)
        table["byte planes + smallest"] = _baseline([raw, zlib, zstd(3)], threads)
    if zipnn := optional("zipnn"):
        table["ZipNN"] = _zipnn(zipnn, threads)
    if lz4 := optional("lz4.frame"):
        table["lz4"] = plain(lz4.compress, lz4.decompress)
    if pcodec := optional("pcodec"):
        table["pcodec"] = _pcodec(pcodec)
    order = ("zlib-6", "lz4", "zstd-3", "xz-6", "byte planes + zlib-6", "byte planes + zstd-1")
    order += ("byte planes + smallest", "byte planes + xz-6", "pcodec", "ZipNN")
    return {name: table[name] for name in order if name in table}


def plain(compress: Bytes, decompress: Bytes) -> Peer:
    """Makes a peer that does not care about the dtype."""
    return Peer(lambda data, _: compress(data), lambda data, _: decompress(data))


def _pack_xz(data: bytes) -> bytes:
    return lzma.compress(data, preset=6)


def _baseline(codecs: list[baselines.Codec], threads: int = 0) -> Peer:
    """Makes a peer of one stream, or with ``threads`` of one stream for each byte of an element."""

    def pack(data: bytes, dtype: torch.dtype) -> bytes:
        width = dtype.itemsize if threads else 1
        return baselines.compress_groups(data, width, codecs, threads or 1)

    def unpack(data: bytes, _: torch.dtype) -> bytes:
        return baselines.decompress(data, codecs[-1], threads or 1)

    return Peer(pack, unpack)


def _zipnn(zipnn: Any, threads: int) -> Peer:
    """Makes the ZipNN peer: its default method on a whole buffer of floats."""

    def pack(data: bytes, dtype: torch.dtype) -> bytes:
        codec = zipnn.ZipNN(bytearray_dtype=ZIPNN_DTYPES[dtype], threads=threads)
        return bytes(codec.compress(bytearray(data)))  # a copy: ZipNN reorders bits in its input

    def unpack(data: bytes, dtype: torch.dtype) -> bytes:
        codec = zipnn.ZipNN(bytearray_dtype=ZIPNN_DTYPES[dtype], threads=threads)
        return bytes(codec.decompress(data))

    return Peer(pack, unpack, frozenset(ZIPNN_DTYPES))


def _pcodec(pcodec: Any) -> Peer:
    """Makes the pcodec peer: its default level on a whole buffer of numbers; one thread."""
    np = importlib.import_module("numpy")
    config = pcodec.ChunkConfig()
    # Of older versions the module has no attribute of that name.
    standalone = importlib.import_module("pcodec.standalone")

    def pack(data: bytes, dtype: torch.dtype) -> bytes:
        numbers = np.frombuffer(data, PCODEC_DTYPES[dtype])
        return bytes(standalone.simple_compress(numbers, config))

    def unpack(data: bytes, _: torch.dtype) -> bytes:
        numbers = standalone.simple_decompress(data)
        return b"" if numbers is None else bytes(numbers.tobytes())  # None: there are none

    return Peer(pack, unpack, frozenset(PCODEC_DTYPES))


def optional(package: str) -> Any:
    """Imports a package, or says that its peer drops out and returns None."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        print(f"no {package} ({error}): its figures are left out", file=sys.stderr)
        return None


PEERS = peers()
