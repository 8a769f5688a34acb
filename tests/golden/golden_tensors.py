"""The tensors of the golden files: the same on every machine and with every library's version."""

import torch
from helpers import bits, from_bytes
from torch import Tensor

WORDS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def numbers(count: int, seed: int) -> list[int]:
    """Numbers of 32 random bits that no library can change."""
    state, out = seed, []
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        out.append(state >> 32)
    return out


def values(count: int, dtype: torch.dtype, seed: int = 1) -> Tensor:
    """About normal with a standard deviation of 0.001."""
    raw = torch.tensor(numbers(6 * count, seed), dtype=torch.float64).view(6, count)
    return ((raw.sum(0) / 2**32 - 3) * 1.4e-3).to(dtype)


def gradient(*shape: int, dtype: torch.dtype, seed: int) -> Tensor:
    """Rows and columns of different scale, some of them zero."""
    tensor = values(int(torch.Size(shape).numel()), torch.float64, seed).view(shape)
    tensor *= 2.0 ** (torch.arange(shape[0]) % 5).view(-1, *[1] * (len(shape) - 1))
    if len(shape) > 1:
        tensor /= 3.0 ** (torch.arange(shape[1]) % 4).view(1, -1, *[1] * (len(shape) - 2))
        tensor[::7] = 0
    return tensor.to(dtype)


def special(dtype: torch.dtype, count: int = 120) -> Tensor:
    """Zeros of both signs, subnormals, infinities and NaNs with payload among a few values."""
    info = torch.finfo(dtype)
    tensor = gradient(count, dtype=dtype, seed=9)
    picks = [0.0, -0.0, info.tiny / 2, -info.tiny / 4, float("inf"), -float("inf"), info.max]
    for i, pick in enumerate(picks):
        tensor[3 + 5 * i] = pick
    raw = bits(tensor).clone()
    raw[50 * dtype.itemsize : 51 * dtype.itemsize] = 0xFF  # a NaN with all bits set
    raw[80 * dtype.itemsize : 100 * dtype.itemsize] = 0
    return raw.view(dtype)


def low_rank(rows: int, columns: int, rank: int, *, dtype: torch.dtype, seed: int) -> Tensor:
    """A product of two small matrices, exact in float64, and hardly any noise."""
    u, v = (
        (torch.tensor(numbers(lines * rank, seed + i)) % 201 - 100).double().view(lines, rank)
        for i, lines in enumerate((rows, columns))
    )
    noise = values(rows * columns, torch.float64, seed + 2).view(rows, columns)
    return (u @ v.T * 2.0**-22 + noise / 32).to(dtype)


def mixed_low_rank(
    rows: int, columns: int, rank: int, *, dtype: torch.dtype, seed: int, step: int
) -> Tensor:
    """Matrices whose rows and columns span the same spaces at every step, by other vectors."""
    u, v = (
        (torch.tensor(numbers(lines * rank, seed + i)) % 201 - 100).double().view(lines, rank)
        for i, lines in enumerate((rows, columns))
    )
    mix = (torch.tensor(numbers(rank * rank, seed + 9 + step)) % 9 - 4).double().view(rank, rank)
    noise = values(rows * columns, torch.float64, seed + 20 + step).view(rows, columns)
    return (u @ mix @ v.T * 2.0**-25 + noise / 32).to(dtype)


def low_rank_convolution(
    out: int, into: int, rank: int, *, dtype: torch.dtype, seed: int
) -> Tensor:
    """Weights [out, into, 3, 3] that are of low rank as a matrix of dimension 1 by the rest."""
    matrix = low_rank(into, 9 * out, rank, dtype=dtype, seed=seed)
    return matrix.view(into, out, 3, 3).transpose(0, 1).contiguous()


def exactly_low_rank(rows: int, columns: int, rank: int, *, seed: int) -> Tensor:
    """Of low rank but for the rounding to float32: factors and product have many bits."""
    u, v = (
        torch.tensor(numbers(lines * rank, seed + i)).double().view(lines, rank) / 2**32 - 0.5
        for i, lines in enumerate((rows, columns))
    )
    return (u @ v.T).float()


def with_dead_lines(matrix: Tensor) -> Tensor:
    matrix = matrix.clone()
    matrix.view(-1)[matrix.abs().argmin()] = -0.0
    matrix[3:6] = 0
    matrix[:, ::9] = 0
    return matrix


def few_values(dtype: torch.dtype, *shape: int, seed: int) -> Tensor:
    """Elements of any type with few different bytes, and no byte that is 0."""
    size = int(torch.Size(shape).numel()) * dtype.itemsize
    data = bytes((1, 17, 17, 17, 18, 33)[number % 6] for number in numbers(size, seed))
    return from_bytes(data, dtype, shape)


def segments(seed: int) -> Tensor:
    """Two blocks of one plane, with tables of their own for several parts of it."""
    parts = [
        [base + (x % spread) * (x >> 8) % spread for x in numbers(6000, seed + base)]
        for base, spread in [(0, 3), (100, 40), (30, 8), (200, 2)] * 3
    ]
    return torch.tensor([x for part in parts for x in part], dtype=torch.uint8)


def with_zero_bits(tensor: Tensor, kept: int) -> Tensor:
    """Of every mantissa the first bits, of NaNs, too."""
    mantissa = {2**-10: 10, 2**-7: 7, 2**-23: 23, 2**-52: 52}[torch.finfo(tensor.dtype).eps]
    words = bits(tensor).clone().view(WORDS[tensor.dtype.itemsize])
    words &= -(1 << (mantissa - kept))
    return words.view(tensor.dtype).view(tensor.shape)


def on_grid(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Multiples of a power of two, such that the largest have five bits."""
    step = 2.0 ** (torch.frexp(tensor.abs().max()).exponent - 5)
    return (torch.round(tensor / step) * step).to(dtype)
