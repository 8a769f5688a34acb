"""Priors of method lm that are not the bundled one, and those that cannot be used."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import lm_priors
import pytest
import torch
from helpers import (
    HEX_VOCAB,
    TablePrior,
    all_identical,
    identical,
    random_residual_prior,
    save_scripted,
    to_bytes,
)
from lm_priors import OtherHighDigit, OtherLowDigit, SeenPrior, loaded, low_rank, paying
from torch import Tensor, nn

from lmgc_torch import Prior, PriorMismatchError, compress, decompress, info
from lmgc_torch import reference as ref
from lmgc_torch.priors.residual import CONTEXT_FEATURES, ResidualPrior

FEATURES = ["digit", "left1.value", "width", "above.magnitude", "context", "adaptive"]


pytestmark = pytest.mark.usefixtures("one_thread")


def half_zeros(seed: int) -> Tensor:
    return low_rank(12, 24, rank=0, noise=1.0, dtype=torch.bfloat16, seed=seed).relu()


def methods(frame: Tensor) -> list[str]:
    return [tensor.method for tensor in info(frame).tensors]


# ---- other models --------------------------------------------------------------------------------

# Small ones: what saves is that no tables stand in the frame.
SHOWN = [half_zeros(seed) for seed in range(8)]
TENSORS = [*SHOWN, torch.arange(50)]


@pytest.mark.parametrize("portable", [True, False])
@pytest.mark.parametrize("features", [[], FEATURES], ids=["alone", "features"])
@pytest.mark.parametrize("context", [1, 2, 7, 64])
def test_other_priors(features: list[str], portable: bool, context: int, tmp_path: Path):
    """Teacher-forced or in lockstep, with windows of 1 to 32 symbols, lanes of few to all."""
    prior = loaded(SeenPrior(SHOWN, features, portable=portable, context=context), tmp_path)
    assert not prior.native
    sections = set()
    for lane_elements in (120, 77):
        frame = compress(TENSORS, method="lm", prior=prior, lane_elements=lane_elements)
        assert methods(frame) == ["lm"] * 8 + ["planes"]
        assert info(frame).prior["portable"] is portable
        assert all_identical(decompress(frame, prior=prior), TENSORS)
        sections.add(to_bytes(frame))
    assert len(sections) == 2


def test_portable_priors_agree_with_their_bound_twins(tmp_path: Path):
    """One is teacher-forced, the other goes in lockstep; the network is not asked."""
    portable = SeenPrior(SHOWN, FEATURES)
    bound = copy.deepcopy(portable)
    bound.portable = False
    nn.init.zeros_(bound.head.weight)
    nn.init.zeros_(bound.head.bias)
    frames = [
        compress(TENSORS, method="lm", prior=loaded(module, tmp_path), lane_elements=50)
        for module in (portable, bound)
    ]
    sections = [to_bytes(frame)[info(frame).header_bytes :] for frame in frames]
    assert sections[0] == sections[1]


def test_portable_priors_do_not_mind_threads_and_memory(tmp_path: Path):
    prior = loaded(SeenPrior(SHOWN, FEATURES), tmp_path)
    frame = compress(TENSORS, method="lm", prior=prior, lane_elements=20)
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            for limit in (2**20, 2**28):
                assert torch.equal(
                    frame,
                    compress(
                        TENSORS, method="lm", prior=prior, lane_elements=20, memory_limit=limit
                    ),
                )
            assert all_identical(decompress(frame, prior=prior), TENSORS)
    finally:
        torch.set_num_threads(1)


def test_the_reference_reads_other_priors(tmp_path: Path):
    prior = loaded(SeenPrior(SHOWN, FEATURES), tmp_path)
    frame = compress(TENSORS[:2], method="lm", prior=prior, lane_elements=100)
    module = torch.jit.load(str(tmp_path / "SeenPrior.pt"))
    decoded = ref.decode(to_bytes(frame), module)
    back = decompress(frame, prior=prior)
    assert [one.data for one in decoded] == [to_bytes(t.view(torch.uint8).flatten()) for t in back]


def test_a_prior_without_features_goes_with_both_methods(tmp_path: Path):
    prior = loaded(SeenPrior(SHOWN), tmp_path)
    for method in ("lm", "lmgc"):
        frame = compress(SHOWN, method=method, prior=prior)
        assert all_identical(decompress(frame, prior=prior), SHOWN)


# ---- bound priors --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bound(tmp_path_factory: pytest.TempPathFactory) -> Prior:
    module = SeenPrior(SHOWN, FEATURES, portable=False)
    return loaded(module, tmp_path_factory.mktemp("bound"))


def test_a_bound_prior_decodes_where_it_encoded(bound: Prior):
    frame = compress(TENSORS, method="lm", prior=bound, lane_elements=100)
    assert "lm" in methods(frame)
    assert "1 threads" in info(frame).prior["environment"]
    try:
        torch.set_num_threads(2)
        with pytest.raises(PriorMismatchError, match="environment"):
            decompress(frame, prior=bound)
    finally:
        torch.set_num_threads(1)
    assert all_identical(decompress(frame, prior=bound), TENSORS)


def test_batches_of_bound_priors(bound: Prior):
    """More lanes than go side by side; tensors drop out, and the others' batches change."""
    noise = torch.randn(2000, generator=torch.Generator().manual_seed(0))
    given = [*SHOWN[:3], noise, low_rank(20, 30), *SHOWN[3:], noise[:300]]
    for limit, lane_elements in ((2**20, 2), (2**28, 90)):
        options = {"lane_elements": lane_elements, "memory_limit": limit}
        frame = compress(given, method="lm", prior=bound, **options)
        assert all_identical(decompress(frame, prior=bound), given)
    assert {methods(frame)[i] for i in (0, 1, 2, 5, 6, 7, 8, 9)} == {"lm"}
    assert "lm" not in {methods(frame)[i] for i in (3, 4, 10)}


def test_a_bound_prior_codes_factors(tmp_path: Path):
    tensors = [low_rank(32, 36, rank=1, noise=0, dtype=torch.bfloat16, seed=i) for i in range(2)]
    prior = loaded(SeenPrior(tensors, FEATURES, portable=False), tmp_path)
    frame = compress(tensors, method="lm", prior=prior, lane_elements=144)
    assert [(tensor.method, tensor.rank) for tensor in info(frame).tensors] == [("lm", 1)] * 2
    assert all_identical(decompress(frame, prior=prior), tensors)


def test_a_bound_prior_that_does_not_decode_is_not_used(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    module = SeenPrior(SHOWN, FEATURES, portable=False, first=150)
    prior = loaded(module, tmp_path)
    frame = compress(TENSORS, method="lm", prior=prior, lane_elements=100)
    assert "does not compute the same probabilities twice" in capfd.readouterr().err
    assert info(frame).prior is None
    assert torch.equal(frame, compress(TENSORS))


# ---- priors that cannot be used ------------------------------------------------------------------


def test_priors_of_the_other_method(residual_prior: Prior, feature_prior: Prior):
    tensor = low_rank(48, 60)
    with pytest.raises(ValueError, match=r"for method 'lmgc': .* features that 'lm' does not have"):
        compress(tensor, method="lm", prior=feature_prior)
    with pytest.raises(ValueError, match=r"for method 'lm': .* features that 'lmgc' does not have"):
        compress(tensor, method="lmgc", prior=residual_prior)
    frames = {
        "lm": compress(tensor, method="lm", prior=residual_prior),
        "lmgc": compress(tensor, method="lmgc", prior=feature_prior),
    }
    assert {method: info(frame).method for method, frame in frames.items()} == {
        "lm": "lm",
        "lmgc": "lmgc",
    }
    with pytest.raises(PriorMismatchError, match=residual_prior.fingerprint):
        decompress(frames["lm"], prior=feature_prior)
    with pytest.raises(PriorMismatchError, match=residual_prior.fingerprint):
        decompress(frames["lmgc"], prior=residual_prior)


@pytest.mark.parametrize(
    ("features", "says"),
    [
        (["width", "taps"], "'taps'.*only method 'lmgc'.*'width'.*only method 'lm'"),
        (["left1.value", "left9.value"], "'left9.value', which does not exist"),
        (["context", "digit", "context"], "'context' twice"),
    ],
)
def test_features_that_no_method_has(features: list[str], says: str, tmp_path: Path):
    with pytest.raises(ValueError, match=says):
        loaded(TablePrior(HEX_VOCAB, features, 32, True), tmp_path)


@pytest.mark.parametrize("portable", [True, False])
def test_logits_that_are_not_finite(portable: bool, tmp_path: Path):
    prior = loaded(lm_priors.NotFinite(TENSORS[:1], portable=portable), tmp_path)
    with pytest.raises(ValueError, match="logits are not finite"):
        compress(TENSORS, method="lm", prior=prior, lane_elements=100)


def test_nothing_is_asked_where_there_is_nothing_to_code(tmp_path: Path):
    prior = loaded(lm_priors.NotFinite(TENSORS[:1]), tmp_path)
    given = [torch.empty(0, 3), torch.arange(9)]
    assert all_identical(decompress(compress(given, method="lm", prior=prior)), given)


# ---- modules that declare the bundled architecture -----------------------------------------------


def changed(change: Callable[[ResidualPrior], object]) -> ResidualPrior:
    module = random_residual_prior((16, 16))
    change(module)
    return module


def set_buffer(path: str, change: Callable[[Tensor], Tensor]) -> Callable[[ResidualPrior], object]:
    """Changes a buffer behind the back of what checks it when the module is made."""

    def apply(module: ResidualPrior) -> None:
        *where, name = path.split(".")
        owner = module.get_submodule(".".join(where))
        owner._buffers[name] = change(owner.get_buffer(name).clone())

    return apply


def put(place: object, value: float) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        tensor[place] = value
        return tensor

    return change


WRONG: dict[str, tuple[Callable[[ResidualPrior], object], str]] = {
    "fewer features": (
        lambda m: setattr(m, "context_features", list(CONTEXT_FEATURES[:-1])),
        "architecture 'digit-mlp-1', but does not take all context features",
    ),
    "another order": (
        lambda m: setattr(m, "context_features", list(reversed(CONTEXT_FEATURES))),
        "in their order",
    ),
    "bound": (lambda m: setattr(m, "portable", False), "not portable"),
    "other units": (lambda m: setattr(m, "units_per_octave", 128.0), "256 units an octave"),
    "halves": (set_buffer("hidden1.weight", put((3, 4), 0.5)), "'hidden1.weight' should hold int"),
    "large weights": (
        set_buffer("hidden2.weight", put((0, 0), 128.0)),
        "'hidden2.weight' should hold integers of 8 bits",
    ),
    "a weight of -128": (
        set_buffer("hidden2.weight", put((0, 0), -128.0)),
        "'hidden2.weight' should hold integers of 8 bits",
    ),
    "NaN": (set_buffer("head.bias", put(3, float("nan"))), "'head.bias' should hold integers"),
    "large biases": (set_buffer("head.bias", put(3, 2.0**24)), "'head.bias' should hold integers"),
    "large sums": (set_buffer("head.bias", put(3, 2.0**24 - 1)), "sums could reach 2.24"),
    "shifts between": (set_buffer("head.scale", put(3, 0.3)), "'head.scale' should hold integers"),
    "shifts to the left": (set_buffer("head.scale", put(3, 2.0)), "shift is not between"),
    "other types": (
        set_buffer("table", lambda t: t.int()),
        "'table' should be of type Short, it is Int",
    ),
    "more contexts": (
        set_buffer("table", lambda t: torch.cat([t, t[:1]])),
        r"its table has the shape \[149, 16, 10, 16\]",
    ),
    "negative entries": (set_buffer("table", put((3, 8, 2, 1), -5)), "negative entry"),
    "other sums": (set_buffer("table", lambda t: t * 0), "does not sum to 2.15"),
    "fewer outputs": (
        set_buffer("hidden1.bias", lambda t: t[1:]),
        "do not have the sizes of the architecture",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_buffers_that_are_not_of_the_architecture(name: str, tmp_path: Path):
    change, says = WRONG[name]
    with pytest.raises(ValueError, match=says):
        loaded(changed(change), tmp_path)


def test_a_buffer_that_is_missing(tmp_path: Path):
    module = TablePrior(HEX_VOCAB, list(CONTEXT_FEATURES), 32, True)
    module.architecture = "digit-mlp-1"
    with pytest.raises(ValueError, match=r"has no buffer 'hidden1\.weight'"):
        loaded(module, tmp_path)


def test_another_architecture_is_nothing_special(tmp_path: Path):
    module = random_residual_prior((16, 16))
    module.architecture = "digit-mlp-2"
    other = loaded(module, tmp_path)
    assert not other.native
    tensor = low_rank(20, 30)
    frame = compress([tensor], method="lm", prior=other)
    assert identical(decompress(frame, prior=other)[0], tensor)


@pytest.mark.parametrize("kind", [OtherHighDigit, OtherLowDigit])
def test_other_logits_than_those_of_the_architecture(kind: type[ResidualPrior], tmp_path: Path):
    """The engine would compute what the module does not."""
    module = random_residual_prior((16, 16))
    other = kind(module.hidden1, module.hidden2, module.head, module.table)
    prior = loaded(other, tmp_path)
    for _ in range(2):  # it is not forgotten
        with pytest.raises(ValueError, match="'digit-mlp-1', but computes other logits"):
            compress(paying(), method="lm", prior=prior)


@pytest.mark.parametrize("hidden", [(16, 16), (32, 64), (96, 48), (128, 128)])
def test_layers_of_any_size(hidden: tuple[int, int], tmp_path: Path):
    """Both engines compute the same; frames are forced by what the prior has seen."""
    save_scripted(random_residual_prior(hidden), tmp_path / "random.pt")
    fast = Prior.load(tmp_path / "random.pt")
    slow = Prior.load(tmp_path / "random.pt").use_native(False)
    assert fast.native
    assert fast.fingerprint == slow.fingerprint
    tensors = [paying(), SHOWN[0]]
    frames = [compress(tensors, method="lm", prior=prior) for prior in (fast, slow)]
    assert torch.equal(*frames)
