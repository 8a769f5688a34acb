"""The study of the past: lengths agree with frames, and memory helps where there is something."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib")
# The benchmarks are scripts, not a package: their helpers are found by folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import factor_model
import past

import lmgc_torch

RANDOM = np.random.default_rng(5)


def gradients(dtype: torch.dtype, shape: tuple[int, ...] = (64, 96)) -> list[torch.Tensor]:
    """Returns two matrices whose rows lie in nearly the same space of 8 dimensions."""
    generator = torch.Generator().manual_seed(6)
    columns = torch.Size(shape[1:]).numel()
    inputs = torch.randn(8, columns, generator=generator) * torch.arange(8, 0, -1).unsqueeze(1)
    steps = []
    for _ in range(2):
        drift = inputs + 0.02 * torch.randn(8, columns, generator=generator)
        noise = 0.1 * torch.randn(shape[0], columns, generator=generator)
        product = torch.randn(shape[0], 8, generator=generator) @ drift
        steps.append((1e-3 * (product + noise)).to(dtype).view(shape))
    return steps


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(64, 96), (96, 64), (32, 16, 3, 3)])
def test_lengths_agree_with_the_frame(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    _, now = gradients(dtype, shape)
    frame = factor_model.frame_of(now)
    assert frame is not None
    entries = [
        factor_model.entry_bits(f.entries, None, factor_model.widths_of(f)) for f in frame.factors
    ]
    assert sum(entries) == pytest.approx(frame.factor_bits, rel=0.03)
    lines = (*frame.weights, *frame.scales, np.log2(frame.powers))
    side = sum(map(factor_model.line_bits, lines)) + sum(map(factor_model.side_bits, frame.factors))
    heads = 3 * 20  # bytes, about
    whole = lmgc_torch.info(lmgc_torch.compress(now, method="lowrank")).tensors[0].sections["side"]
    states = 4 * sum(lanes_of(f.entries.size) for f in frame.factors)
    assert (side + sum(entries)) / 8 + heads + states == pytest.approx(whole, rel=0.05)
    u, v = (factor.entries for factor in frame.factors)
    left = frame.weighted(now) - (u * frame.powers) @ v.T
    assert (left**2).sum() < 0.01 * (frame.weighted(now) ** 2).sum()


def lanes_of(symbols: int) -> int:
    return min(32, 1 << max(0, (symbols // 256).bit_length() - 1))


def test_no_prediction_is_no_frame() -> None:
    noise = torch.randn(32, 64, generator=torch.Generator().manual_seed(1))
    assert factor_model.frame_of(noise) is None
    counts = past.study(noise, noise, set(past.SCHEMES))
    assert 0 < counts["section"] < counts["raw"] == 8 * noise.nbytes


def test_an_entry_takes_the_entropy_of_what_its_mean_leaves() -> None:
    means = RANDOM.normal(0, 40, (200, 30))
    entries = np.rint(means + RANDOM.normal(0, 2, means.shape)).astype(np.int64)
    widths = np.full(entries.shape, 4)
    bits = factor_model.entry_bits(entries, means, widths) / entries.size
    assert bits == pytest.approx(np.log2(2 * np.sqrt(2 * np.pi * np.e)), rel=0.02)
    wide = factor_model.entry_bits(entries, None, np.full(entries.shape, 21)) / entries.size
    assert wide == pytest.approx(np.log2(40 * np.sqrt(2 * np.pi * np.e)), rel=0.02)


def test_lines_take_what_the_format_says() -> None:
    assert factor_model.line_bits([]) == 0
    # Of zeros: k is 2 for the first one, for the sum is 4 and the count 1.
    assert factor_model.line_bits([7]) == 17 + 1 + 2
    ramp = factor_model.line_bits(range(100))
    assert ramp < factor_model.line_bits(RANDOM.permutation(100))


def test_the_past_helps_where_it_spans_the_factor() -> None:
    basis, _ = np.linalg.qr(RANDOM.normal(size=(96, 16)))
    other, _ = np.linalg.qr(RANDOM.normal(size=(96, 16)))
    factor = factor_model.plain(
        np.rint(400 * basis @ RANDOM.normal(size=(16, 24)) + RANDOM.normal(size=(96, 24)))
    )
    plain = factor_model.factor_bits(factor)
    projected = past.projected_bits(factor, basis)
    assert projected < 0.75 * plain
    assert past.projected_bits(factor, other) == pytest.approx(plain, rel=0.01)
    assert past.projected_bits(factor, np.zeros((96, 0))) == plain
    assert factor_model.conditional_saving(factor, basis) > 0.9 * (plain - projected)
    assert factor_model.conditional_saving(factor, other) < 0.05 * plain
    guess = factor.entries + RANDOM.normal(0, 20, factor.entries.shape)
    assert past.shrunk_bits(factor, guess) < 0.8 * plain


def test_orthogonal_components_say_something_of_each_other() -> None:
    vectors, _ = np.linalg.qr(RANDOM.normal(size=(48, 32)))
    factor = factor_model.plain(np.rint(300 * vectors))
    free = factor_model.plain(np.rint(300 / np.sqrt(48) * RANDOM.normal(size=(48, 32))))
    assert factor_model.conditional_saving(factor, None, earlier=True) > 1000
    assert factor_model.conditional_saving(free, None, earlier=True) < 100


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_schemes_of_two_steps(dtype: torch.dtype) -> None:
    before, now = gradients(dtype)
    counts = past.study(now, before, set(past.SCHEMES))
    assert counts["b projected"] > 0
    assert counts["c scales"] <= counts["scales"]
    assert counts["a right"] > counts["a left"]  # rows lie in the same space, columns do not
    assert abs(counts["d element, residual"]) < 0.01 * counts["raw"]
    head, _, row = past.table({"w": counts}).splitlines()
    assert head.startswith("| gradients | section |")
    assert row.count("|") == head.count("|")


def test_few_lines_can_be_replaced() -> None:
    before, now = gradients(torch.float32, (10, 128))
    found = past.low_rank.weighted(now.double().numpy())
    lengths = past.replaced_bits(
        found, before.double().numpy() / found.weights, past.Format(23, -126, 32)
    )
    assert min(lengths.values()) > 0


def test_what_a_correlation_saves() -> None:
    a = RANDOM.normal(size=(50, 50))
    assert past.correlation(a, -2 * a) == pytest.approx(-1)
    assert past.correlation(a, 0 * a) == 0
    assert past.correlated_bits(0, 100) == 0
    assert past.correlated_bits(np.sqrt(0.75), 100) == pytest.approx(100)


def test_the_first_matrix_of_each_shape() -> None:
    tensors = {name: torch.ones(32, 64) for name in "ab"} | {"c": torch.ones(64, 32)}
    tensors |= {"d": torch.ones(64), "e": torch.ones(2048, 1024)}
    assert list(past.matrices(tensors)) == ["a", "c"]
    assert past.table({"x": Counter({"raw": 200, "section": 50})}).endswith("| x | 25.00 |")
