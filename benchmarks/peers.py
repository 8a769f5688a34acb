"""Reference compressors on the bytes of tensors, to measure ours against.

Every peer compresses and decompresses, so that a size counts only once its bytes came back. Those
that want to know the element's width ask for the dtype.
"""

from __future__ import annotations

import importlib
import lzma
import struct
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch

ZIPNN_DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
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
    table = {
        "zlib-6": plain(lambda data: zlib.compress(data, 6), zlib.decompress),
        "xz-6": plain(lambda data: lzma.compress(data, preset=6), lzma.decompress),
        "byte planes + xz-6": _byte_planes(
            lambda plane: lzma.compress(plane, preset=6), lzma.decompress, threads
        ),
    }
    if zstandard := optional("zstandard"):
        # A context each: python-zstandard's must not be shared between threads.
        def unpack(data: bytes) -> bytes:
            return bytes(zstandard.ZstdDecompressor().decompress(data))

        table["zstd-3"] = plain(lambda data: zstandard.ZstdCompressor(3).compress(data), unpack)
        table["byte planes + zstd-1"] = _byte_planes(
            lambda plane: bytes(zstandard.ZstdCompressor(1).compress(plane)), unpack, threads
        )
    if zipnn := optional("zipnn"):
        table["ZipNN"] = _zipnn(zipnn, threads)
    order = ("zlib-6", "zstd-3", "xz-6", "byte planes + zstd-1", "byte planes + xz-6", "ZipNN")
    return {name: table[name] for name in order if name in table}


def split_planes(data: bytes, width: int) -> list[bytes]:
    """Splits words of ``width`` bytes into ``width`` streams of bytes of equal significance.

    The sign stays where IEEE puts it, above the exponent: rotating it next to the mantissa makes
    zstd and xz up to 2 points worse on most gradients.
    """
    matrix = np.frombuffer(data, np.uint8).reshape(-1, width)
    return [matrix[:, index].tobytes() for index in range(width)]


def join_planes(planes: list[bytes]) -> bytes:
    """Inverts ``split_planes``."""
    matrix = np.empty((len(planes[0]), len(planes)), np.uint8)
    for index, plane in enumerate(planes):
        matrix[:, index] = np.frombuffer(plane, np.uint8)
    return matrix.tobytes()


def plain(compress: Bytes, decompress: Bytes) -> Peer:
    """Makes a peer that does not care about the dtype."""
    return Peer(lambda data, _: compress(data), lambda data, _: decompress(data))


def _byte_planes(compress: Bytes, decompress: Bytes, threads: int) -> Peer:
    """Makes a peer that compresses each plane on its own, its length (uint64) in front."""

    def apply(function: Bytes, parts: list[bytes]) -> list[bytes]:
        if threads == 1:
            return [function(part) for part in parts]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(function, parts))

    def pack(data: bytes, dtype: torch.dtype) -> bytes:
        parts = apply(compress, split_planes(data, dtype.itemsize))
        return b"".join(struct.pack("<Q", len(part)) + part for part in parts)

    def unpack(data: bytes, _: torch.dtype) -> bytes:
        return join_planes(apply(decompress, list(_prefixed(data))))

    return Peer(pack, unpack)


def _prefixed(data: bytes) -> Iterator[bytes]:
    """Yields the parts of ``data`` that follow their own lengths."""
    offset = 0
    while offset < len(data):
        (length,) = struct.unpack_from("<Q", data, offset)
        yield data[offset + 8 : offset + 8 + length]
        offset += 8 + length


def _zipnn(zipnn: Any, threads: int) -> Peer:
    """Makes the ZipNN peer: its default method on a whole buffer of floats."""

    def pack(data: bytes, dtype: torch.dtype) -> bytes:
        codec = zipnn.ZipNN(bytearray_dtype=ZIPNN_DTYPES[dtype], threads=threads)
        return bytes(codec.compress(bytearray(data)))  # a copy: ZipNN reorders bits in its input

    def unpack(data: bytes, dtype: torch.dtype) -> bytes:
        codec = zipnn.ZipNN(bytearray_dtype=ZIPNN_DTYPES[dtype], threads=threads)
        return bytes(codec.decompress(data))

    return Peer(pack, unpack, frozenset(ZIPNN_DTYPES))


def optional(package: str) -> Any:
    """Imports a package, or says that its peer drops out and returns None."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        print(f"no {package} ({error}): its figures are left out", file=sys.stderr)
        return None


PEERS = peers()
