"""The general codecs of LM-GC's tables, in the settings of its released code.

They come with inverses, so that a size counts only once its bytes came back. A codec whose package
is missing is left out with a note on stderr.
"""

from __future__ import annotations

import gzip
import io
import lzma
import math

import numpy as np
import torch
from peers import Peer, optional, plain

CHUNK_BYTES = 512  # what the released code lets codecs see at a time
PNG_DEPTH, FLAC_RATE = 8, 16000


def codecs() -> dict[str, Peer]:
    """PNG (8-bit grey, nearly square), FLAC (8-bit mono), gzip -9, LZMA, FPZIP (lossless)."""
    table = {}
    if image := optional("PIL.Image"):
        table["PNG"] = _png(image)
    if soundfile := optional("soundfile"):
        table["FLAC"] = _flac(soundfile)
    table["gzip"] = plain(lambda data: gzip.compress(data, 9, mtime=0), gzip.decompress)
    table["LZMA"] = plain(lzma.compress, lzma.decompress)
    if fpzip := optional("fpzip"):
        table["FPZIP"] = _fpzip(fpzip)
    return table


def coded_size(peer: Peer, data: bytes, dtype: torch.dtype, chunk: int | None = None) -> int:
    """Compresses, checks that the bytes come back, and returns the compressed size.

    Args:
        peer: the codec.
        data: elements of ``dtype``.
        dtype: what FPZIP needs to know.
        chunk: bytes that are compressed at a time, on their own; None: all of them.

    Raises:
        RuntimeError: if the bytes do not come back.
    """
    size = 0
    step = chunk or max(1, len(data))
    for start in range(0, len(data), step):
        part = data[start : start + step]
        packed = peer.compress(part, dtype)
        if peer.decompress(packed, dtype) != part:
            raise RuntimeError("a codec does not give back its bytes")
        size += len(packed)
    return size


def sides(pixels: int) -> tuple[int, int]:
    """The two factors of a number that are closest to its square root, the smaller one first."""
    for side in range(math.isqrt(pixels), 0, -1):
        if pixels % side == 0:
            return side, pixels // side
    return 0, 0


def _png(image: object) -> Peer:
    def pack(data: bytes) -> bytes:
        out = io.BytesIO()
        image.frombytes("L", sides(len(data)), data).save(out, "PNG", optimize=True)  # type: ignore[attr-defined]
        return out.getvalue()

    def unpack(data: bytes) -> bytes:
        # The pictures are our own, however large.
        with image.open(io.BytesIO(data)) as picture:  # type: ignore[attr-defined]
            return bytes(picture.tobytes())

    return plain(pack, unpack)


def _flac(soundfile: object) -> Peer:
    """FLAC has signed samples: bytes less 128, in the upper half of 16 bits for the interface."""

    def pack(data: bytes) -> bytes:
        samples = (np.frombuffer(data, np.uint8).astype(np.int16) - 128) << 8
        out = io.BytesIO()
        soundfile.write(  # type: ignore[attr-defined]
            out, samples, FLAC_RATE, format="FLAC", subtype="PCM_S8", compression_level=1.0
        )
        return out.getvalue()

    def unpack(data: bytes) -> bytes:
        samples, _ = soundfile.read(io.BytesIO(data), dtype="int16")  # type: ignore[attr-defined]
        return ((samples >> 8) + 128).astype(np.uint8).tobytes()

    return plain(pack, unpack)


def _fpzip(fpzip: object) -> Peer:
    def pack(data: bytes, _: torch.dtype) -> bytes:
        values = np.frombuffer(data, np.float32).copy()  # fpzip wants to own what it reads
        return bytes(fpzip.compress(values, precision=0, order="C"))  # type: ignore[attr-defined]

    def unpack(data: bytes, _: torch.dtype) -> bytes:
        return fpzip.decompress(data, order="C").astype(np.float32).tobytes()  # type: ignore[attr-defined]

    return Peer(pack, unpack, frozenset({torch.float32}))
