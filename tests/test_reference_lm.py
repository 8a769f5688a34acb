"""Sections of method lm, made by hand: what the reference decodes is what was encoded."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from typing import Any

import helpers
import pytest
import torch
from helpers import FLOATS
from sections_by_hand import BitWriter, RandomFactor, RandomSection

from lmgc_torch import CorruptFrameError, Prior, PriorMismatchError, compress, priors
from lmgc_torch import reference as ref
from lmgc_torch import reference_common as common
from lmgc_torch import reference_frame as ref_frame
from lmgc_torch import reference_lm as lm
from lmgc_torch import reference_lmgc as ref_lmgc
from lmgc_torch import reference_prior as ref_prior


class RangeEncoder:
    """A lane (docs/format.md, section 7.6), with an integer that has as many bits as it needs."""

    def __init__(self) -> None:
        self.low, self.range, self.steps = 0, 2**64 - 1, 0

    def encode(self, frequencies: Sequence[int], symbol: int) -> None:
        part = self.range // 65536
        self.low += part * sum(frequencies[:symbol])
        self.range = part * frequencies[symbol]
        if self.range < 2**48:
            self.low, self.range, self.steps = self.low << 16, self.range << 16, self.steps + 1

    def bytes(self) -> bytes:
        bits = 64 + 16 * self.steps
        for size in range(bits // 8 + 1):
            unit = 2 ** (bits - 8 * size)
            first = -(-self.low // unit)
            if first * unit < self.low + self.range:
                return first.to_bytes(size, "big") if size else b""
        raise AssertionError


class Stream:
    """Head and body of a coded matrix."""

    def __init__(
        self,
        geometry: lm.Geometry,
        known: Sequence[lm.Known],
        symbols: Sequence[int],
        tails: bytes,
        prior: Any,
        lane_elements: int,
    ) -> None:
        model = ref_prior.LanguageModel(prior, 4, "")
        window = max(prior.max_context // 2, 1)
        lanes = []
        for first in range(0, len(symbols), lane_elements):
            coder, lane = RangeEncoder(), lm.Lane(geometry, first)
            for index in range(first, min(first + lane_elements, len(symbols))):
                if (index - first) % window == 0:
                    model.start_window()
                features = lane.features(known[index])
                for digit, value in enumerate(divmod(symbols[index], 16)):
                    model.predict({**features, "digit": digit})
                    coder.encode(model.frequencies(), value)
                    model.see(value)
                lane.see(symbols[index], known[index])
            lanes.append(coder.bytes())
        assert len(symbols) <= 65536
        sizes = [lane_elements, *map(len, lanes), len(tails)]
        self.head = b"".join(map(helpers.varint, sizes))
        self.body = b"".join(lanes) + tails


class LmSection(RandomSection):
    def __init__(
        self, generator: random.Random, dtype: torch.dtype, predicted: bool, prior: Any
    ) -> None:
        self.prior = prior
        self.lane_elements = generator.choice([1, 50, 300, 65536])
        super().__init__(generator, dtype, predicted)
        self.section = bytes([self.flags | (32 if predicted else 0)]) + self.section[1:]

    def taps(self) -> int:
        return torch.Size(self.sizes[2:]).numel() if len(self.sizes) > 2 else 1

    def code_factors(self) -> None:
        self.code_factor(self.u, 1)
        self.code_factor(self.v, self.taps())

    def code_factor(self, factor: RandomFactor, taps: int) -> None:
        tails, symbols, known = BitWriter(), [], []
        for component in range(self.rank):
            for line in range(len(factor.entries)):
                symbol, width = factor.split(line, component, tails)
                symbols.append(symbol)
                known.append(lm.Known(lm.FACTOR, max(-16, min(width, 15)), 16))
        geometry = lm.Geometry(len(factor.entries), taps)
        coded = Stream(geometry, known, symbols, tails.bytes(), self.prior, self.lane_elements)
        factor.head, factor.body = coded.head, coded.body

    def code_residuals(self, places: Any, bins: Any, symbols: Sequence[int], tails: bytes) -> None:
        known = []
        for (row, column), own in zip(places, bins, strict=True):
            width = max(-16, min(own.width, 15))
            if self.predicted:
                scale = self.scales[0][row] + self.scales[1][column]
                level = lm.level_of(*self.prediction(row, column), scale)
                known.append(lm.Known(lm.LOWRANK, width, own.fraction, level))
            else:
                known.append(lm.Known(lm.SCALE, width))
        flat = common.Matrix(self.sizes).flat
        geometry = lm.Geometry(len(self.live[1]), self.taps(), flat)
        coded = Stream(geometry, known, symbols, tails, self.prior, self.lane_elements)
        self.head, self.body = coded.head, coded.body


def scripted(module: torch.nn.Module) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(module)


@pytest.fixture(scope="module")
def residual_prior() -> Any:
    return scripted(helpers.random_residual_prior((16, 16)))


@pytest.fixture(scope="module")
def table_prior() -> Any:
    """Another kind of prior: it looks at the digits before."""
    features = ["digit", "left1.value", "width"]
    return scripted(helpers.TablePrior(helpers.HEX_VOCAB, features, 17, True))


def decode(made: LmSection, section: bytes, prior: Any) -> bytes:
    model = ref_prior.LanguageModel(prior, 4, "")
    read = lm.LmSection(
        section, made.sizes, made.element, model, prior.max_context, ref_lmgc.RangeDecoder
    )
    return read.decode()


@pytest.mark.parametrize("predicted", [False, True], ids=["scale", "lowrank"])
def test_round_trips(predicted: bool, residual_prior: Any, table_prior: Any):
    flags, tested = 0, 0
    for seed in range(12):
        prior = residual_prior if seed == 0 else table_prior
        made = LmSection(random.Random(seed), FLOATS[seed % 4], predicted, prior)
        if made.bound >= 2**62:
            continue
        assert decode(made, made.section, prior) == made.data, seed
        flags |= made.flags
        tested += 1
    assert tested > 8
    assert flags == (31 if predicted else 7)


@pytest.fixture(scope="module")
def small(residual_prior: Any) -> LmSection:
    """A short section with a prediction."""
    seeds = (LmSection(random.Random(s), torch.bfloat16, True, residual_prior) for s in range(99))
    return next(m for m in seeds if len(m.section) < 1200 and m.lane_elements == 300)


def test_cut_sections_are_refused(small: LmSection, residual_prior: Any):
    assert decode(small, small.section, residual_prior) == small.data
    for size in range(0, len(small.section), 97):
        with pytest.raises(CorruptFrameError):
            decode(small, small.section[:size], residual_prior)
    with pytest.raises(CorruptFrameError):
        decode(small, small.section + b"x", residual_prior)


def test_unknown_flags_are_refused(small: LmSection, residual_prior: Any):
    for flag in (64, 128):
        section = bytes([small.section[0] | flag]) + small.section[1:]
        with pytest.raises(CorruptFrameError):
            decode(small, section, residual_prior)


def test_a_prior_that_wants_something_else_is_refused(small: LmSection):
    prior = scripted(helpers.TablePrior(helpers.HEX_VOCAB, ["reference"], 17, True))
    with pytest.raises(PriorMismatchError):
        decode(small, small.section, prior)


@pytest.mark.parametrize(
    ("head", "says"),
    [
        ([0, 5, 0], "length"),
        ([65537, 5, 0], "length"),
        ([1, 5, 0], "bytes end"),
        ([50000, 0, 0], "too short"),
        ([50000, 200003, 0], "too long"),
        ([50000, 9, 16 * 65536 + 1], "block"),
    ],
)
def test_streams_that_cannot_be_are_refused(head: list[int], says: str):
    fields = common.ByteReader(b"".join(map(helpers.varint, head)))
    with pytest.raises(CorruptFrameError, match=says):
        lm.Stream(fields, 50000)


def test_a_tensor_of_dead_lines_has_no_streams(residual_prior: Any):
    side = BitWriter()
    side.put_flags([True] * 20)
    side.put_flags([False] * 24)
    section = bytes([2]) + helpers.varint(len(side.bytes())) + side.bytes()
    model = ref_prior.LanguageModel(residual_prior, 4, "")
    read = lm.LmSection(
        section,
        (20, 24),
        ref_frame.DTYPES["float32"],
        model,
        residual_prior.max_context,
        ref_lmgc.RangeDecoder,
    )
    assert read.decode() == bytes(20 * 24 * 4)


# ---- features, worked out by hand ----------------------------------------------------------------


def test_marks_are_in_units_of_the_width():
    """16 stands for one width."""
    even = lm.Known(lm.LOWRANK, 8, 16)
    assert [lm.mark_of(129 + r, even) for r in (-8, -4, 0, 4, 100)] == [-32, -16, 0, 16, 127]
    assert lm.mark_of(129, lm.Known(lm.SCALE, 0)) == 8
    assert lm.mark_of(128, lm.Known(lm.SCALE, 0)) == -8
    assert [lm.mark_of(symbol, even) for symbol in (0, 1, 2)] == [127, -128, -128]
    assert [lm.magnitude_of(mark) for mark in (-128, 0, -1, 127)] == [-32, 0, 8, 56]


def test_levels_of_predictions():
    assert lm.level_of(0, 5, 3) == 0
    assert lm.level_of(1, 0, 0) == 24
    assert lm.level_of(7, -2, 0) == 24 + 3
    assert lm.level_of(-6, -2, 0) == -(24 + 2)
    assert lm.level_of(1, -9, 0) == 0
    assert lm.level_of(-1, 99, 0) == -63


def test_a_neighbour_is_there_within_its_lane_only():
    lane = lm.Lane(lm.Geometry(6, 3), 12)
    known = lm.Known(lm.LOWRANK, 8, 16)
    for symbol in (133, 1, 0, 125, 129):
        lane.features(known)
        lane.see(symbol, known)
    features = lane.features(known)
    assert [features[f"left{i}.value"] for i in (1, 2, 3)] == [0, -16, 127]
    assert [features[f"left{i}.magnitude"] for i in (1, 2, 3)] == [0, 33, 56]
    assert (features["tap_after.value"], features["tap_after.magnitude"]) == (0, -32)
    assert (features["above_right.value"], features["above_right.magnitude"]) == (16, 33)
    assert (features["above.value"], features["above.magnitude"]) == (0, 26)
    assert (features["column"], features["tap_index"], features["rows_above"]) == (80, 42, 0)


# ---- features, against the operator --------------------------------------------------------------


def low_rank(rows: int, *columns: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows)
    u = torch.randn(rows, 2, generator=generator)
    v = torch.randn(2, torch.Size(columns).numel(), generator=generator)
    noise = torch.randn(rows, v.size(1), generator=generator) * 0.05
    return (u @ v + noise).view(rows, *columns).to(dtype)


TENSORS = {
    "matrix": (low_rank(30, 40), 30, 40, 1),
    "wide": (low_rank(17, 300, dtype=torch.bfloat16), 17, 300, 1),
    "heavy tails": (
        torch.randn(30, 40, generator=torch.Generator().manual_seed(1)) ** 9,
        30,
        40,
        1,
    ),
    "convolution": (low_rank(90, 1, 5, 5), 90, 25, 25),
    "kernel": (low_rank(40, 1, 6, 6, dtype=torch.float16), 40, 36, 36),
    "zeros": (low_rank(30, 40).relu(), 30, 40, 1),
    "flat": (low_rank(700), 3, 256, 1),
    "flat with taps": (low_rank(1, 40, 2, 2), 1, 256, 1),
}


@pytest.mark.parametrize("method", ["lowrank", "scale"])
@pytest.mark.parametrize("name", TENSORS)
def test_the_operator_gives_the_same_features(name: str, method: str):
    tensor, rows, columns, taps = TENSORS[name]
    names = sorted(lm.FEATURES)
    streams = helpers.ops().residual_features(tensor, names, method, 5 * columns)
    for place, (symbols, features) in enumerate(zip(*streams, strict=True)):
        told = [dict(zip(names, row, strict=True)) for row in features.tolist()]
        geometry = lm.Geometry(columns, taps, name.startswith("flat"))
        lane_elements, kind = 5 * columns, lm.SCALE
        if told[0]["factor"]:
            kind = lm.FACTOR
            geometry = [lm.Geometry(rows), lm.Geometry(columns, taps)][place]
            wish = 5 * columns  # lanes of whole rows, as near to that as may be
            lane_elements = (wish + geometry.columns // 2) // geometry.columns * geometry.columns
        elif told[0]["predicted"]:
            kind = lm.LOWRANK
        for index, (symbol, row) in enumerate(zip(symbols.tolist(), told, strict=True)):
            if index % lane_elements == 0:
                lane = lm.Lane(geometry, index)
            fraction = 0 if kind == lm.SCALE else (row["fraction"] + 62) // 4
            known = lm.Known(kind, row["width"] // 8, fraction, row["prediction"] // 2)
            assert lane.features(known) | {"digit": 0} == row, (place, index)
            lane.see(symbol, known)


@pytest.mark.parametrize("name", ["matrix", "wide", "convolution", "kernel"])
def test_frames_of_the_library_decode(name: str):
    """Of version 2: none of these is smaller by another method."""
    tensor = TENSORS[name][0]
    path = priors.bundled()["residual"]
    frame = compress([tensor], method="lm", prior=Prior.load(path))
    data = helpers.to_bytes(frame)
    assert data[4] == 2
    (decoded,) = ref.decode(data, torch.jit.load(str(path)))
    assert decoded.data == helpers.to_bytes(helpers.bits(tensor))
