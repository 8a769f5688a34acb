"""How long the encoder looks for predictions: every effort decodes, and more of it pays."""

from __future__ import annotations

import itertools
import subprocess
import sys

import helpers
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmgc_torch import PastFrame, WarmStart, compress, decompress

EFFORTS = range(1, 10)


def low_rank(rows: int, columns: int, rank: int, *, noise: float = 0.05) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows + columns + rank)
    u = torch.randn(rows, rank, generator=generator)
    v = torch.randn(rank, columns, generator=generator) / torch.arange(1, rank + 1).unsqueeze(1)
    return u @ v + noise * torch.randn(rows, columns, generator=generator) / rank


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("method", ["auto", "lowrank", "lm"])
def test_every_effort_decodes(method: str, effort: int):
    tensors = {
        "matrix": low_rank(90, 130, 30),
        "kernel": low_rank(40, 27 * 9, 12).view(40, 27, 3, 3).bfloat16(),
        "double": low_rank(30, 50, 3, noise=0).double(),
        "vector": torch.randn(300),
    }
    restored = decompress(compress(tensors, method=method, effort=effort))
    assert all(helpers.identical(restored[name], tensors[name]) for name in tensors)


def test_more_effort_is_smaller():
    matrix = low_rank(500, 700, 200, noise=0.01)
    sizes = [compress(matrix, method="lowrank", effort=effort).numel() for effort in EFFORTS]
    assert sizes[0] > 1.03 * sizes[4]
    for less, more in itertools.pairwise(sizes):
        assert more <= 1.002 * less


def test_the_usual_effort_is_5():
    matrix = low_rank(400, 500, 40)
    assert torch.equal(compress(matrix), compress(matrix, effort=5))


@pytest.mark.parametrize("effort", [1, 9])
def test_effort_with_what_is_known_beside(effort: int):
    first, second = low_rank(64, 96, 8), low_rank(64, 96, 8) * 1.01
    assert helpers.identical(
        decompress(compress([second], effort=effort, reference=[first]), reference=[first])[0],
        second,
    )
    warm, past, receiver = WarmStart(), PastFrame(), PastFrame()
    for matrix in (first, second):
        frame = compress(matrix, effort=effort, warm_start=warm, past=past)
        assert helpers.identical(decompress(frame, past=receiver), matrix)


@given(
    rows=st.integers(4, 40),
    columns=st.integers(4, 40),
    rank=st.integers(0, 6),
    effort=st.sampled_from(EFFORTS),
    seed=st.integers(0, 2**31),
)
def test_matrices_whose_columns_depend_on_each_other(
    rows: int, columns: int, rank: int, effort: int, seed: int
):
    """Of small whole numbers: the bases that the search begins with have fewer columns then."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.randint(-3, 4, (30 * rows, rank), generator=generator).float()
    v = torch.randint(-3, 4, (rank, columns), generator=generator).float()
    matrix = u @ v
    assert helpers.identical(decompress(compress(matrix, method="lowrank", effort=effort)), matrix)


MANY = """
import torch, lmgc_torch
generator = torch.Generator().manual_seed(0)
def matrix(rows, columns, rank):
    u = torch.randint(-3, 4, (rows, rank), generator=generator).float()
    return u @ torch.randint(-3, 4, (rank, columns), generator=generator).float()
matrices = [matrix(300 + 40 * i, 900, 3 + 20 * i) for i in range(6)]
noisy = [m + torch.randn(m.shape, generator=generator) for m in matrices]
for threads in (2, 4, 8):
    torch.set_num_threads(threads)
    for tensors in (matrices, noisy):
        for effort in (4, 6):
            frame = lmgc_torch.compress(tensors, method="lowrank", effort=effort)
            assert all(map(torch.equal, lmgc_torch.decompress(frame), tensors))
"""


def test_lists_share_threads():
    """Decompositions run in parallel regions, where LAPACK's threads must not wait for others."""
    subprocess.run([sys.executable, "-c", MANY], check=True, timeout=240)
