"""Modules that do not keep the contract of docs/prior.md are refused with what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import prior_modules as modules
import pytest
import torch
from helpers import HEX_VOCAB, TablePrior, gradient, identical
from torch import nn

from lmgc_torch import compress, decompress, info

pytestmark = pytest.mark.usefixtures("one_thread")


def changed(**attributes: object) -> TablePrior:
    module = TablePrior(HEX_VOCAB, [], 32, True)
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


def with_vocab(*vocab: str) -> TablePrior:
    module = TablePrior(HEX_VOCAB, [], 32, True)
    module.vocab = list(vocab)
    return module


DIGITS = "0123456789abcdef"

REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "NaN units": (lambda: changed(units_per_octave=float("nan")), "units_per_octave is nan"),
    "infinite units": (lambda: changed(units_per_octave=float("inf")), "units_per_octave is inf"),
    "no units": (lambda: changed(units_per_octave=0.0), "units_per_octave is 0"),
    "negative units": (lambda: changed(units_per_octave=-1.0), "units_per_octave is -1"),
    "endless context": (
        lambda: changed(max_context=2**40),
        "max_context is 1099511627776.*1048576",
    ),
    "negative context": (lambda: changed(max_context=-1), "max_context is -1"),
    "no vocabulary": (lambda: with_vocab("<bos>"), "no token '0'"),
    "a digit twice": (lambda: with_vocab(*DIGITS, "<bos>", "7"), "token '7' twice"),
    "<bos> twice": (lambda: with_vocab(*DIGITS, "<bos>", "<bos>"), "token '<bos>' twice"),
    "a byte twice": (lambda: with_vocab(*DIGITS, "<bos>", "é", "é"), "token 'é' twice"),
    "a feature twice": (
        lambda: TablePrior(HEX_VOCAB, ["digit", "taps", "digit"], 32, True),
        "'digit' twice",
    ),
    "three results": (modules.ThreeResults, r"step.*returns a Tuple\[Tensor, Tensor, Tensor\]"),
    "no new state": (modules.NoNewState, "step.*returns a Tensor"),
    "another state": (modules.OtherState, r"init_state returns a List\[Tensor\]"),
    "lanes as tensors": (modules.LanesAreTensors, "'lanes' is a Tensor, it should be a int"),
    "tokens as lists": (modules.TokensAreLists, r"'tokens' is a List\[int\]"),
    "a pair from forward": (modules.ForwardGivesPairs, "forward.*returns a Tuple"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_modules_that_do_not_load(name: str, tmp_path: Path):
    make, says = REFUSED[name]
    with pytest.raises(ValueError, match=says):
        modules.load(make(), tmp_path)


def test_an_empty_vocabulary(tmp_path: Path):
    module = changed(vocab=torch.jit.annotate(list[str], []))
    with pytest.raises(ValueError, match="no token '0'"):
        modules.load(module, tmp_path)


def test_tokens_that_frames_do_not_name_may_read_alike(tmp_path: Path):
    """Parts of characters in large vocabularies do."""
    module = TablePrior([*HEX_VOCAB, "�", "�"], [], 32, True)
    prior = modules.load(module, tmp_path)
    x = gradient(500)
    assert identical(decompress(compress(x, method="lmgc", prior=prior), prior=prior), x)


DIFFER = "two calls of this prior with the same input differ"
UNUSABLE: dict[str, tuple[Callable[[], nn.Module], type[Exception], str]] = {
    "too few tokens": (
        lambda: with_vocab(*HEX_VOCAB, "<more>"),
        ValueError,
        r"logits.*\[4, 15, 23\].*23 tokens of its vocab.*\[4, 15, 22\]",
    ),
    "fewer lanes": (modules.FewerLanes, ValueError, r"logits.*\[4, 22\].*lanes.*got.*\[3, 22\]"),
    "integers": (modules.IntegerLogits, ValueError, "logits.*floating-point.*Long"),
    "dropout": (modules.DropsOut, ValueError, DIFFER),
    "random steps": (modules.DropsOutInSteps, ValueError, DIFFER),
    "memory of earlier calls": (modules.Remembers, ValueError, DIFFER),
    "step is not forward": (modules.StepsDiffer, ValueError, "its step does not give the logits"),
    "rows": (
        modules.RowsDiffer,
        ValueError,
        "portable, but its logits depend on how many rows|its step",
    ),
    "raises": (modules.Raises, RuntimeError, "'forward' failed: .*no such luck"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_modules_that_cannot_be_used(name: str, tmp_path: Path):
    make, error, says = UNUSABLE[name]
    prior = modules.load(make(), tmp_path)
    for _ in range(2):  # it is not forgotten
        with pytest.raises(error, match=says):
            compress(gradient(20, 20), method="lmgc", prior=prior)
    assert compress([], method="lmgc", prior=prior).numel() > 0  # nothing to ask it


NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize("portable", [True, False])
@pytest.mark.parametrize("value", [NAN, INFINITY])
def test_logits_that_are_not_finite(value: float, portable: bool, tmp_path: Path):
    prior = modules.load(modules.NotFinite(5, value, portable), tmp_path)
    for window in ("disjoint", "sliding"):
        with pytest.raises(ValueError, match="logits are not finite"):
            compress(gradient(20, 20), method="lmgc", prior=prior, window=window)
    assert prior.portable is portable


@pytest.mark.parametrize("portable", [True, False])
@pytest.mark.parametrize(
    ("token", "value"), [(16, NAN), (16, INFINITY), (5, -INFINITY), (5, 3e38), (5, -3e38)]
)
def test_logits_that_are_finite_where_it_matters(
    token: int, value: float, portable: bool, tmp_path: Path
):
    """Token 16 is no digit; minus infinity is a way to say "impossible"."""
    prior = modules.load(modules.NotFinite(token, value, portable), tmp_path)
    x = gradient(30, 30, dtype=torch.float16).float()
    frame = compress(x, method="lmgc", prior=prior)
    assert identical(decompress(frame, prior=prior), x)


def test_padding_may_be_anything(tmp_path: Path):
    prior = modules.load(modules.NotFinitePadding(), tmp_path)
    x = gradient(500)
    for window in ("disjoint", "sliding"):
        frame = compress(x, method="lmgc", prior=prior, lane_elements=70, window=window)
        assert identical(decompress(frame, prior=prior), x)


# ---- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [modules.Hungry, modules.HungryForward])
def test_a_module_that_needs_more_memory_than_there_is(module: type[nn.Module], tmp_path: Path):
    prior = modules.load(module(), tmp_path)
    says = "prior's method '(init_state|forward)' needs more memory.*memory_limit"
    with pytest.raises(torch.OutOfMemoryError, match=says) as caught:
        compress(gradient(100), method="lmgc", prior=prior)
    assert isinstance(caught.value, RuntimeError)


@pytest.mark.parametrize("portable", [True, False])
def test_batches_are_as_small_as_large_states_want(portable: bool, tmp_path: Path):
    """A MiB for each lane: 256 lanes while decoding with 256 MiB, 16 with 16 MiB."""
    prior = modules.load(modules.LargeState(portable, 256 if portable else 16), tmp_path)
    x = gradient(3000).half().float()
    options = {"method": "lmgc", "prior": prior, "lane_elements": 8}
    frame = compress(x, memory_limit=16 << 20, **options)
    assert info(frame).method == "lmgc"
    assert identical(decompress(frame, prior=prior), x)
    if not portable:
        with pytest.raises(RuntimeError, match="too many lanes"):
            compress(x, memory_limit=32 << 20, **options)
