"""Windows of a prior's context, and priors that are bound to where they encoded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import prior_modules as modules
import pytest
import torch
from helpers import (
    BYTE_VOCAB,
    FLOATS,
    HEX_VOCAB,
    TablePrior,
    all_identical,
    gradient,
    identical,
    op_info,
    to_bytes,
)
from torch import Tensor, nn

from lmgc_torch import Prior, PriorMismatchError, compress, decompress, info
from lmgc_torch import reference_frame as ref_frame
from lmgc_torch import reference_lmgc as ref_lmgc

pytestmark = pytest.mark.usefixtures("one_thread")


def check(tensors: Sequence[Tensor], prior: Prior, **options: object) -> list[str]:
    """Compresses and decompresses; returns the methods."""
    frame = compress(list(tensors), method="lmgc", prior=prior, **options)
    assert all_identical(decompress(frame, prior=prior), tensors)
    return [tensor.method for tensor in info(frame).tensors]


def sections(frame: Tensor) -> bytes:
    return to_bytes(frame)[op_info(frame)["header_bytes"] :]


# ---- windows -------------------------------------------------------------------------------------


def test_a_frame_has_the_oldest_version_that_can_express_it(prior: Prior):
    x = gradient(30, 30)
    for method in ("raw", "planes", "lowrank", "lmgc"):
        frame = compress(x, method=method, prior=prior)
        assert info(frame).version == to_bytes(frame)[4] == 1
    frame = compress(x, method="lmgc", prior=prior)
    assert torch.equal(frame, compress(x, method="lmgc", prior=prior, window="disjoint"))
    assert info(frame).prior["window"] == "disjoint"
    sliding = compress(x, method="lmgc", prior=prior, window="sliding")
    assert info(sliding).version == to_bytes(sliding)[4] == 2
    assert info(sliding).prior["window"] == "sliding"
    assert "window sliding" in str(info(sliding))
    # Nothing of it is there where no tensor needs the prior.
    assert info(compress(x[:1, :3], method="lmgc", prior=prior, window="sliding")).version == 1


def test_windows_have_names(prior: Prior):
    with pytest.raises(
        ValueError, match="window is 'open'; it must be one of 'disjoint', 'sliding'"
    ):
        compress(gradient(5), prior=prior, window="open")


def twins(folder: Path, vocab: list[str], features: list[str], context: int) -> list[Prior]:
    """The same prior, portable and bound: one encodes with forward, the other with steps."""
    priors = []
    for portable in (True, False):
        path = folder / f"{portable}.pt"
        module = TablePrior(vocab, features, context, True)
        module.portable = portable
        modules.save_scripted(module, path)
        priors.append(Prior.load(path))
    return priors


@pytest.mark.parametrize("context", [1, 9, 40, 1000])
@pytest.mark.parametrize(
    ("separator", "group", "order"),
    [
        ("none", None, "big"),
        ("none", None, "little"),
        ("comma_space", 3, "big"),
        ("0x", 3, "little"),
        ("semicolon", 8, "little"),
        ("iso-8859-1", None, "big"),
        ("iso-8859-1", None, "little"),
    ],
)
def test_forward_and_steps_slide_alike(
    separator: str, group: int | None, order: str, context: int, tmp_path: Path
):
    features = ["digit", "left1.level", "above.value", "reference"]
    vocab = BYTE_VOCAB if separator == "iso-8859-1" else HEX_VOCAB
    portable, bound = twins(tmp_path, vocab, features, context)
    tensors = [
        gradient(10, 24).half().float(),
        gradient(90, dtype=torch.bfloat16),
        gradient(5, 16, dtype=torch.float64).bfloat16().double(),
        torch.arange(70, dtype=torch.int16) % 3,
    ]
    for lane_elements in (5, 100):
        options = {
            "method": "lmgc",
            "separator": separator,
            "bytes_per_group": group,
            "byte_order": order,
            "lane_elements": lane_elements,
            "window": "sliding",
        }
        frames = [compress(tensors, prior=prior, **options) for prior in (portable, bound)]
        assert sections(frames[0]) == sections(frames[1])
        for frame, prior in zip(frames, (portable, bound), strict=True):
            assert all_identical(decompress(frame, prior=prior), tensors)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_sliding_with_zeros_and_specials(dtype: torch.dtype, feature_prior: Prior):
    x = gradient(40, 30, dtype=dtype)
    x[3, :5] = torch.tensor([0.0, -0.0, float("inf"), float("nan"), torch.finfo(dtype).tiny / 4])
    x[10:20] = 0
    tensors = [x, gradient(8, 20, dtype=torch.float16).to(dtype), torch.zeros(90, dtype=dtype)]
    for lane_elements in (50, 1000):
        methods = check(tensors, feature_prior, window="sliding", lane_elements=lane_elements)
        assert "lmgc" in methods


def test_context_goes_on_where_windows_slide(tmp_path: Path):
    prior = modules.load(modules.LearningPrior(), tmp_path)
    x = gradient(2000).half().float()
    sizes = {
        window: compress(x, method="lmgc", prior=prior, window=window, lane_elements=1000).numel()
        for window in ("disjoint", "sliding")
    }
    assert sizes["sliding"] < 0.99 * sizes["disjoint"]


def lanes_of(frame: Tensor, path: Path) -> list[int]:
    """The elements of each lane of a frame's first tensor."""
    data = to_bytes(frame)
    header = ref_frame.read_header(data)
    section = data[header.size : header.size + header.records[0].section_size]
    module = torch.jit.load(str(path))
    lanes = ref_lmgc.LmgcSection(section, header.records[0], header.prior, module).lanes
    return [end - first for first, end in lanes]


@pytest.mark.parametrize(
    ("context", "window", "memory", "elements"),
    [
        (40, "disjoint", 8, 512),  # windows are short: as many elements as always
        (40, "sliding", 8, 512),
        (900, "disjoint", 8, 600),  # two windows of 300 elements
        (900, "sliding", 1000, 600),  # as few whole windows: there are few lanes for a batch
        (900, "sliding", 9, 1050),  # eight lanes of 1000 elements would fill one
        (900, "sliding", 2, 1200),  # no more than four windows
        (6000, "disjoint", 1000, 2000),  # a whole window, more than there would be
        (6000, "sliding", 1000, 2000),
    ],
)
def test_lanes_hold_whole_windows(
    context: int, window: str, memory: int, elements: int, tmp_path: Path
):
    """The state takes a MiB a lane."""
    prior = modules.load(modules.LargeState(False, 2000, context), tmp_path)
    frame = compress(
        gradient(8000), method="lmgc", prior=prior, window=window, memory_limit=memory << 20
    )
    assert info(frame).method == "lmgc"
    assert lanes_of(frame, tmp_path / "LargeState.pt")[0] == elements


# ---- bound priors --------------------------------------------------------------------------------


@pytest.mark.parametrize("window", ["disjoint", "sliding"])
@pytest.mark.parametrize("module", [modules.RecurrentPrior, modules.AttentionPrior])
def test_models_with_a_state(module: type[nn.Module], window: str, tmp_path: Path):
    """Their lanes end at different times, and leave the batch and its state."""
    prior = modules.load(module(), tmp_path)
    tensors = [gradient(17, 20), gradient(90, dtype=torch.bfloat16), gradient(61)]
    tensors = [tensor.half().to(tensor.dtype) for tensor in tensors]
    for memory_limit in (1 << 20, 256 << 20):
        for lane_elements in (33, None):
            methods = check(
                tensors,
                prior,
                window=window,
                lane_elements=lane_elements,
                memory_limit=memory_limit,
            )
            assert "lmgc" in methods


@pytest.mark.parametrize("module", [modules.RecurrentPrior, modules.AttentionPrior])
def test_a_bound_frame_says_what_it_is_bound_to(module: type[nn.Module], tmp_path: Path):
    prior = modules.load(module(), tmp_path)
    x = gradient(600).half().float()
    frame = compress(x, method="lmgc", prior=prior, lane_elements=60)
    about = info(frame).prior
    assert about["portable"] is False
    threads = torch.get_num_threads()
    here = f"torch {torch.__version__.split('+')[0]}, CPU .*, {threads} threads, Float"
    try:
        torch.set_num_threads(threads + 1)
        with pytest.raises(
            PriorMismatchError,
            match=rf"environment \({here}; here: .*{threads + 1} threads, Float\)",
        ):
            decompress(frame, prior=prior)
    finally:
        torch.set_num_threads(threads)
    assert identical(decompress(frame, prior=prior), x)
    other = module()
    next(other.parameters()).data[0] += 1e-3
    with pytest.raises(PriorMismatchError, match=f"prior {prior.fingerprint}, this one is"):
        decompress(frame, prior=modules.load(other, tmp_path))


def test_tensors_that_end_up_raw_leave_the_batch(tmp_path: Path):
    """A bound prior codes the others once more without them, as they will be decoded.

    The prior's logits depend on which lanes are in the batch.
    """
    prior = modules.load(modules.MixesLanes(), tmp_path)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randint(-(2**31), 2**31, (500,), generator=generator).int().view(torch.float32)
    tensors = [gradient(400), noise, gradient(300, seed=2), noise[:90], gradient(200, seed=3)]
    for lane_elements in (64, 170):  # what does not decode would not be of this method
        methods = check(tensors, prior, lane_elements=lane_elements)
        assert methods == ["lmgc", "raw", "lmgc", "raw", "lmgc"]
    assert check([noise, noise[:90]], prior) == ["raw", "raw"]
    without = compress(tensors[::2], method="lmgc", prior=prior, lane_elements=64)
    among = compress(tensors, method="lmgc", prior=prior, lane_elements=64)
    coded = [tensor.section_bytes for tensor in info(among).tensors[::2]]
    assert [tensor.section_bytes for tensor in info(without).tensors] == coded


def test_what_does_not_decode_is_coded_without_the_prior(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    """The prior changes in the middle of what it codes, long after it was tried."""
    prior = modules.load(modules.Remembers(first=500), tmp_path)
    tensors = [gradient(40, 30), gradient(200, dtype=torch.bfloat16)]
    frame = compress(tensors, method="lmgc", prior=prior, window="sliding", lane_elements=150)
    warning = capfd.readouterr().err
    assert "does not compute the same probabilities twice" in warning
    assert "'auto'" in warning
    about = info(frame)
    assert about.version == 1
    assert about.prior is None
    assert torch.equal(frame, compress(tensors, method="auto"))
    assert all_identical(decompress(frame), tensors)
