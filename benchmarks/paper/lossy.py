"""What Fig. 4 and Table 4 do to gradients before they are coded, and the bytes that costs beside.

Everything a receiver needs is either in the payload, which a codec then compresses, or counted as
side information, byte by byte. Payloads are bytes with the most significant first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

SCALES_BYTES = 8  # least value and step of a quantizer, or the two values of one bit, as float32
SEED_BYTES = 8  # of a random mask: who knows the generator needs no more
LONGEST_RUN, LONGEST_LITERAL = 129, 128


class Lossy(NamedTuple):
    """A payload (uint8, or float32 values), and what must be sent beside it."""

    payload: Tensor
    side_bytes: int
    floats: int  # of the gradient it stands for
    restored: Tensor  # what a receiver makes of it, float32 [floats]


def quantize(vector: Tensor, bits: int) -> Lossy:
    """Quantizes to 2^bits equidistant levels between least and greatest value; 1 bit is the sign.

    The sign's two values are the means of the positive and of the other elements.
    """
    values = vector.double().numpy()
    if bits == 1:
        positive = values > 0
        parts = (values[~positive], values[positive])
        means = [float(part.mean()) if len(part) else 0.0 for part in parts]
        codes = np.packbits(positive)
        restored = np.where(positive, means[1], means[0])
    elif bits in (8, 16):
        least, levels = values.min(), 2**bits - 1
        step = max(float(values.max() - least) / levels, 1e-45)
        indices = np.rint((values - least) / step)
        codes = indices.astype(">u1" if bits == 8 else ">u2").view(np.uint8)
        restored = least + indices * step
    else:
        raise ValueError(f"bits is {bits}; it must be 1, 8 or 16")
    payload = torch.from_numpy(codes.copy())
    return Lossy(payload, SCALES_BYTES, vector.numel(), torch.from_numpy(restored).float())


def top_k(vector: Tensor, fraction: float) -> Lossy:
    """Keeps the values of greatest magnitude, in their order; their places are side information."""
    count = max(1, round(fraction * vector.numel()))
    places = vector.abs().topk(count).indices.sort().values
    return _kept(vector, places, index_bytes(vector.numel(), count))


def random_k(vector: Tensor, fraction: float, seed: int) -> Lossy:
    """Keeps values at random places, which both sides know from a seed of ``SEED_BYTES``."""
    count = max(1, round(fraction * vector.numel()))
    generator = torch.Generator().manual_seed(seed)
    places = torch.randperm(vector.numel(), generator=generator)[:count].sort().values
    return _kept(vector, places, SEED_BYTES)


def index_bytes(floats: int, count: int) -> int:
    """Bytes that tell ``count`` places out of ``floats``: a bitmap or a list, what is smaller."""
    bitmap = math.ceil(floats / 8)
    listed = math.ceil(count * max(1, math.ceil(math.log2(floats))) / 8)
    return min(bitmap, listed)


def _kept(vector: Tensor, places: Tensor, side_bytes: int) -> Lossy:
    restored = torch.zeros_like(vector)
    restored[places] = vector[places]
    return Lossy(vector[places].clone(), side_bytes, vector.numel(), restored)


def big_endian(vector: Tensor) -> Tensor:
    """The bytes of float32 values, the sign's first: uint8 [4 N]."""
    return torch.from_numpy(vector.numpy().astype(">f4").view(np.uint8).copy())


def run_length(data: Tensor) -> Tensor:
    """Codes runs of equal bytes: a byte n < 128 and n + 1 bytes as they are, or n and one byte that
    occurs n - 126 times.

    Args:
        data: uint8 [N].

    Returns:
        uint8 [at most N + N / 128 + 1].
    """
    raw = data.numpy().tobytes()
    out, literal, at = bytearray(), bytearray(), 0

    def flush() -> None:
        if literal:
            out.append(len(literal) - 1)
            out.extend(literal)
            literal.clear()

    while at < len(raw):
        end = at + 1
        while end < len(raw) and raw[end] == raw[at] and end - at < LONGEST_RUN:
            end += 1
        if end - at > 2 or (end - at == 2 and not literal):
            flush()
            out += bytes([end - at + 126, raw[at]])
        else:
            for byte in raw[at:end]:
                literal.append(byte)
                if len(literal) == LONGEST_LITERAL:
                    flush()
        at = end
    flush()
    return torch.frombuffer(out, dtype=torch.uint8).clone() if out else data[:0]


def expand_runs(data: Tensor) -> Tensor:
    """Inverts ``run_length``."""
    raw, out, at = data.numpy().tobytes(), bytearray(), 0
    while at < len(raw):
        head = raw[at]
        if head < 128:
            out += raw[at + 1 : at + 2 + head]
            at += 2 + head
        else:
            out += raw[at + 1 : at + 2] * (head - 126)
            at += 2
    return torch.frombuffer(out, dtype=torch.uint8).clone() if out else data[:0]


Transform = Callable[[Tensor, int], Lossy]  # of a vector and a seed
TRANSFORMS: dict[str, Transform] = {
    "1 bit": lambda vector, _: quantize(vector, 1),
    "8 bits": lambda vector, _: quantize(vector, 8),
    "16 bits": lambda vector, _: quantize(vector, 16),
    "random 50 %": lambda vector, seed: random_k(vector, 0.5, seed),
    "random 10 %": lambda vector, seed: random_k(vector, 0.1, seed),
    "top 10 %": lambda vector, _: top_k(vector, 0.1),
    "top 1 %": lambda vector, _: top_k(vector, 0.01),
}


def bytes_per_float(name: str) -> float:
    """Bytes of payload that a float of the gradient gives: 4 for "fp32"."""
    head, _, unit = name.partition(" ")
    if unit.startswith("bit"):
        return int(head) / 8
    return 4 * float(name.split()[1]) / 100 if name in TRANSFORMS else 4
