"""Frames of every version of the format decode for ever: to the C++ codec and to the reference."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import helpers
import pytest
import torch
from helpers import (
    bits,
    from_bytes,
    to_bytes,
)
from test_reference import GOLDEN, BothPriors, golden
from torch import Tensor

from lmgc_torch import (
    PastFrame,
    compress,
    decompress,
    info,
)
from lmgc_torch import reference as ref

# By the stem of the frame's file: "v1_planes_zeros".
INDEX: dict[str, Any] = {
    f"v{version}_{name}": entry
    for version in golden.FRAMES
    for name, entry in json.loads(golden.index_of(version).read_text()).items()
}


# Frames of types that the torch at hand does not have (2.6 has no float8_e8m0fnu).
OF_NEWER_TORCH = {
    name
    for name, entry in INDEX.items()
    if not all(hasattr(torch, dtype) for dtype, _, _ in entry["tensors"])
}

PriorOf = Callable[[str], BothPriors]


@pytest.fixture(scope="module")
def golden_prior(tmp_path_factory: pytest.TempPathFactory) -> PriorOf:
    """The prior of a golden frame of that name."""
    files = golden.prior_files(tmp_path_factory.mktemp("golden"))
    priors = {begin: BothPriors(file) for begin, file in files.items()}

    def prior_of(name: str) -> BothPriors:
        name = name.split("_", 1)[1]
        return next(prior for begin, prior in priors.items() if name.startswith(begin))

    return prior_of


def golden_tensors(name: str, suffix: str = "raw") -> list[Tensor]:
    data = (GOLDEN / f"{name}.{suffix}").read_bytes()
    tensors = []
    for type_name, shape, _ in INDEX[name]["tensors"]:
        dtype = getattr(torch, type_name)
        size = torch.Size(shape).numel() * dtype.itemsize
        tensors.append(from_bytes(data[:size], dtype, shape))
        data = data[size:]
    assert not data
    return tensors


def test_golden_files_are_there():
    assert {path.stem for path in GOLDEN.glob("*.lmgc")} == set(INDEX)
    for version in golden.FRAMES:
        assert golden.main([str(version)]) == 1  # refuses to overwrite


def test_types_that_this_torch_lacks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(torch, "float8_e8m0fnu", raising=False)
    frame = (GOLDEN / "v1_raw.lmgc").read_bytes()
    with pytest.raises(ValueError, match="has no element type float8_e8m0fnu"):
        info(frame)
    for name in OF_NEWER_TORCH:
        with pytest.raises(ValueError, match="has no element type"):
            decompress((GOLDEN / f"{name}.lmgc").read_bytes())


@pytest.mark.parametrize("name", sorted(INDEX.keys() - OF_NEWER_TORCH))
def test_golden_frames_decode(name: str, golden_prior: PriorOf):
    frame = (GOLDEN / f"{name}.lmgc").read_bytes()
    assert name.startswith(f"v{info(frame).version}_")
    tensors, prior = golden_tensors(name), golden_prior(name)
    past, plain_past = None, None
    if (before := GOLDEN / f"{name}.before").exists():
        past, plain_past = PastFrame(), ref.Past()
        decompress(before.read_bytes(), past=past)
        ref.decode(before.read_bytes(), past=plain_past)
    known = None
    if (GOLDEN / f"{name}.reference").exists():
        known = golden_tensors(name, "reference")
    back = decompress(frame, prior=prior.operators, past=past, reference=known)
    assert helpers.all_identical(back, tensors)
    known_bytes = [to_bytes(bits(tensor)) for tensor in known or []]
    assert [one.data for one in ref.decode(frame, prior.module, plain_past, known_bytes)] == [
        to_bytes(bits(tensor)) for tensor in tensors
    ]
    about = [tensor.method for tensor in info(frame).tensors]
    assert about == [method for _, _, method in INDEX[name]["tensors"]]


# Frames that the encoder has since come to write otherwise.
WRITTEN_OTHERWISE = {
    "v1_planes_segments": "tables of `planes` are found from half as many segments",
    **{
        name: "small tensors are coded as one"
        for name in INDEX
        if name.startswith(("v1_planes_", "v1_scale_", "v3_short_scale_"))
    },
    **{
        name: "mixtures are fitted in fewer and larger steps"
        for name in INDEX
        if name.startswith(("v2_lm_scale_", "v3_lm_short_scale_", "v4_joined_s", "v4_lm_joined_"))
    },
}


@pytest.mark.parametrize(
    "name",
    [
        n
        for n in sorted(INDEX.keys() - OF_NEWER_TORCH)
        if not {"lowrank", "past", "reference"} & set(n.split("_")) and n not in WRITTEN_OTHERWISE
    ],
)
def test_golden_frames_are_written_again(name: str, golden_prior: PriorOf):
    """Not a promise of the format: a better encoder may change this, and then says so here.

    What low-rank factors are found depends on the machine's linear algebra.
    """
    prior = golden_prior(name).operators
    frame = compress(golden_tensors(name), prior=prior, **INDEX[name]["options"])
    assert to_bytes(frame) == (GOLDEN / f"{name}.lmgc").read_bytes()
