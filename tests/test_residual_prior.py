"""The prior of residual digits: its arithmetic, its contract, and its training."""

from __future__ import annotations

import copy
import io
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helpers
import numpy as np
import pytest
import torch
from torch import Tensor

from lmgc_torch import reference_lm as lm
from lmgc_torch.priors import train_residual, training
from lmgc_torch.priors.model import IntegerLinear
from lmgc_torch.priors.residual import CONTEXT_FEATURES, ROLES, ResidualPrior
from lmgc_torch.priors.train_residual import FACTOR, Network, Samples

BOS = 16


def scripted(module: torch.nn.Module) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(module.eval())


@pytest.fixture(scope="module")
def eager() -> ResidualPrior:
    return helpers.random_residual_prior()


@pytest.fixture(scope="module")
def prior(eager: ResidualPrior) -> Any:
    return scripted(eager)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def window(lanes: int, elements: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Tokens [lanes, T] and features [lanes, T, F]: random, with extremes and with padding."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randint(
        -128, 128, (lanes, elements, 1, len(CONTEXT_FEATURES)), generator=generator
    )
    spread = torch.randint(0, 4, (lanes, elements, 1, 1), generator=generator)
    features = torch.where(spread == 1, -128, torch.where(spread == 2, 127, features))
    features[..., 1] = torch.randint(0, 148, (lanes, elements, 1), generator=generator)
    features[1:, -1] = 0  # what padding looks like; the first lane is never padded
    features = features.repeat(1, 1, 2, 1)
    features[..., 0] = torch.arange(2)
    tokens = torch.randint(0, 16, (lanes, elements, 2), generator=generator)
    tokens[:, :, 1] *= torch.randint(0, 4, (lanes, elements), generator=generator) > 0
    tokens[:, 0, 0] = BOS
    return tokens.flatten(1), features.flatten(1, 2).float()


def steps(prior: Any, tokens: Tensor, features: Tensor) -> Tensor:
    state = prior.init_state(len(tokens))
    logits = []
    for t in range(tokens.size(1)):
        predicted, state = prior.step(tokens[:, t], features[:, t], state)
        logits.append(predicted)
    return torch.stack(logits, 1)


# ---- contract ------------------------------------------------------------------------------------


def test_it_keeps_its_contract(prior: Any):
    assert prior.vocab == [*"0123456789abcdef", "<bos>"]
    assert prior.context_features == list(CONTEXT_FEATURES)
    assert set(CONTEXT_FEATURES) == lm.FEATURES
    assert CONTEXT_FEATURES[:2] == ("digit", "context")
    assert len(CONTEXT_FEATURES) == 51
    assert prior.portable is True
    assert prior.units_per_octave == 256.0
    assert prior.max_context == 512
    assert prior.architecture == "digit-mlp-1"


def test_forward_and_step_agree_and_are_integers(prior: Any):
    tokens, features = window(65)
    logits = prior(tokens, features)
    assert logits.dtype == torch.float32
    assert logits.shape == (*tokens.shape, 17)
    assert torch.equal(logits, logits.round())
    assert logits.min() >= 0
    assert logits.max() < 2**13
    assert torch.equal(logits, steps(prior, tokens, features))


@pytest.mark.usefixtures("threads")
def test_batch_size_order_and_threads_do_not_matter(prior: Any):
    tokens, features = window(3000)
    torch.set_num_threads(1)
    logits = prior(tokens, features)
    order = torch.randperm(3000, generator=torch.Generator().manual_seed(1))
    for count in (1, 2):
        torch.set_num_threads(count)
        assert torch.equal(prior(tokens[:1], features[:1]), logits[:1])
        assert torch.equal(prior(tokens[:7], features[:7]), logits[:7])
        assert torch.equal(prior(tokens[order], features[order]), logits[order])
        assert torch.equal(steps(prior, tokens, features), logits)


def test_reduced_precision_of_matrix_products_does_not_matter(prior: Any):
    tokens, features = window(300)
    logits = prior(tokens, features)
    before = torch.get_float32_matmul_precision()
    try:
        for precision in ("high", "medium"):
            torch.set_float32_matmul_precision(precision)
            assert torch.equal(prior(tokens, features), logits)
    finally:
        torch.set_float32_matmul_precision(before)


def test_lanes_may_leave_between_elements(prior: Any):
    tokens, features = window(50, elements=6)
    whole = prior(tokens, features)
    state = prior.init_state(50)
    active = 50
    for t in range(tokens.size(1)):
        if t % 2 == 0 and t > 0:
            active -= 9
            state = tuple(tensor.narrow(0, 0, active) for tensor in state)
        logits, state = prior.step(tokens[:active, t], features[:active, t], state)
        assert torch.equal(logits, whole[:active, t])


def test_any_order_of_digits_has_an_answer(prior: Any):
    """What loads a prior asks it about digits that residuals do not have."""
    tokens, features = window(20, elements=3)
    for digits in ([0, 1, 2, 0, 1, 2], [1, 0, 0, 1, 1, 0], [-1, 0, 1, 0, 1, 0]):
        features[..., 0] = torch.tensor(digits)
        features[3:, :, 1] = -64.0
        logits = prior(tokens, features)
        assert torch.equal(logits, steps(prior, tokens, features))
        odd = prior(tokens[:, :5], features[:, :5])
        assert torch.equal(odd, logits[:, :5])


def test_torchscript_eager_and_a_saved_copy_agree(eager: ResidualPrior, prior: Any, tmp_path: Path):
    tokens, features = window(40)
    logits = prior(tokens, features)
    with torch.no_grad():
        assert torch.equal(eager(tokens, features), logits)
        assert torch.equal(steps(eager, tokens, features), logits)
    file = io.BytesIO()
    torch.jit.save(prior, file)
    file.seek(0)
    assert torch.equal(torch.jit.load(file)(tokens, features), logits)
    assert torch.equal(copy.deepcopy(prior)(tokens, features), logits)
    training.save(eager, tmp_path / "residual.pt")
    assert torch.equal(torch.jit.load(str(tmp_path / "residual.pt"))(tokens, features), logits)


# ---- arithmetic, against plain NumPy -------------------------------------------------------------


def integer_log2(count: np.ndarray) -> np.ndarray:
    """256 log2 from the leading bits and a cubic in the fraction, as docs/prior.md says."""
    whole = np.floor(np.log2(count)).astype(np.int64)
    fraction = (count << 12 >> whole) - 4096
    bend = fraction * (4096 - fraction) >> 6
    bend = bend * (6895 - (fraction * 2562 >> 12)) >> 20
    return ((whole << 12) + fraction + bend + 8) >> 4


def expected_logits(prior: ResidualPrior, tokens: Tensor, features: Tensor) -> np.ndarray:
    """Logits [N, 2, 16] of elements given as [N, 2] tokens and [N, F] features."""
    numbers = {name: buffer.numpy() for name, buffer in prior.named_buffers()}
    values = features[:, 2:].numpy().astype(np.int64)
    for name in ("hidden1", "hidden2", "head"):
        weight = numbers[f"{name}.weight"].astype(np.int64)
        shift = (-np.log2(numbers[f"{name}.scale"])).astype(np.int64)
        sums = values @ weight.T + numbers[f"{name}.bias"].astype(np.int64)
        values = sums >> shift
        if name != "head":
            values = np.clip(values, 0, 127)
    above = np.maximum(values - values.max(1, keepdims=True) + 384, 0)
    weights = np.where(above == 0, 0, ((32 + above % 32) << (above // 32)) >> 5)

    context = features[:, 1].numpy().astype(int)
    table = numbers["table"].astype(np.int64).transpose(0, 2, 1, 3).reshape(148, 10, 256)
    coarse = np.minimum(table.reshape(148, 10, 16, 16).sum(3), 32767)
    high_count = np.einsum("nk,nkh->nh", weights[:, :10], coarse[context])
    high_count[:, 0] += 32768 * (weights[:, 10] + weights[:, 11])
    low_count = np.zeros((len(context), 16), np.int64)
    for i, high in enumerate(tokens[:, 1].tolist()):
        own = table[context[i], :, 16 * high : 16 * high + 16]
        low_count[i] = weights[i, :10] @ own
        if high == 0:
            low_count[i, 1:3] += 32768 * weights[i, 10:]
    count = np.stack([high_count, low_count], 1)
    assert count.max() < 2**31
    return integer_log2((count >> 8) + 1)


@pytest.mark.parametrize("hidden", [(64, 32), (96, 48), (16, 16)])
def test_logits_are_what_plain_integers_give(hidden: tuple[int, int]):
    prior = helpers.random_residual_prior(hidden, seed=hidden[0])
    tokens, features = window(400, seed=hidden[1])
    with torch.no_grad():
        logits = prior(tokens, features)
    expected = expected_logits(prior, tokens.reshape(-1, 2), features[:, ::2].reshape(-1, 51))
    np.testing.assert_array_equal(logits.reshape(-1, 2, 17)[:, :, :16].numpy(), expected)
    assert not logits[..., 16].any()


def test_the_largest_counts_stay_below_31_bits():
    """All weights at their most, and all of each table in one symbol."""
    zeros = IntegerLinear(torch.zeros(16, 49), torch.zeros(16), torch.zeros(16))
    middle = IntegerLinear(torch.zeros(16, 16), torch.zeros(16), torch.zeros(16))
    head = IntegerLinear(torch.zeros(12, 16), torch.zeros(12), torch.zeros(12))
    table = torch.zeros(148, 16, 10, 16, dtype=torch.int32)
    table[:, 0, :, 0], table[:, 0, :, 5] = 32767, 1
    prior = ResidualPrior(zeros, middle, head, table)
    tokens, features = torch.tensor([[BOS, 0]]), torch.zeros(1, 2, 51)
    features[0, 1, 0] = 1.0
    with torch.no_grad():
        logits = prior(tokens, features)
    expected = expected_logits(prior, tokens, features[:, 0])
    np.testing.assert_array_equal(logits[:, :, :16].numpy(), expected)


def test_tables_that_are_no_distributions_are_refused(eager: ResidualPrior):
    layers = eager.hidden1, eager.hidden2, eager.head
    for spoil in ("sum", "negative", "zeros", "shape"):
        table = eager.table.clone().int()
        if spoil == "sum":
            table[3, 8, 2, 1] += 1
        elif spoil == "negative":
            table[3, 8, 2, 1:3] += torch.tensor([40000, -40000], dtype=torch.int32)
        elif spoil == "zeros":
            table[3, 0, 2, 1:5:3] += torch.tensor([1, -1], dtype=torch.int32)
        else:
            table = table[1:]
        with pytest.raises(ValueError, match="distributions"):
            ResidualPrior(*layers, table)


def test_sums_that_could_round_are_refused():
    with pytest.raises(ValueError, match="24"):
        IntegerLinear(torch.full((1, 49), 127.0), torch.tensor([2.0**24]), torch.zeros(1))
    with pytest.raises(ValueError, match="24"):
        IntegerLinear(torch.full((1, 49), 128.0), torch.zeros(1), torch.zeros(1))


# ---- training ------------------------------------------------------------------------------------


def test_typical_shapes_are_those_of_the_contexts():
    for context, (width, fraction) in enumerate(train_residual.SHAPES.tolist()):
        kind = lm.LOWRANK if context < 124 else lm.SCALE
        assert lm.Known(kind, width, fraction).context == context


def network(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    made = Network()
    with torch.no_grad():
        made.means += torch.randn(10) * 0.5
        made.widths += torch.randn(10)
    return made


def test_exported_tables_are_distributions():
    table = network().table()
    assert table.shape == (148, 16, 10, 16)
    assert table.min() >= 0
    assert table.max() < 2**15
    assert (table.sum((1, 3)) == 2**15).all()
    assert not table[:, 0, :, 1:3].any()
    with torch.no_grad():
        narrow = network()
        narrow.widths[0] = -30.0
        narrow.means[0] = 0.01
    table = narrow.table()[:, :, 0]
    assert (table.flatten(1).max(1).values == 2**15 - 1).any()
    assert (table.sum((1, 2)) == 2**15).all()


def random_samples(count: int, seed: int = 0) -> Samples:
    """Elements whose values speak for their symbols."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randint(-100, 101, (count, 49), generator=generator)
    kind = torch.randint(0, 3, (count,), generator=generator)
    context = torch.randint(0, 124, (count,), generator=generator)
    context = torch.where(kind == 0, 124 + context % 24, context)
    inputs[:, FACTOR] = 64 * (kind == 2)
    width, fraction = train_residual.SHAPES[context].float().unbind(1)
    spread = torch.randn(count, generator=generator) * 0.7 + inputs[:, 0] / 64
    residual = (spread * torch.exp2(width / 4) + fraction / 32).floor().clamp(-126, 126)
    symbol = torch.where(torch.rand(count, generator=generator) < 0.1, 1, 129 + residual.long())
    symbol = torch.where(torch.rand(count, generator=generator) < 0.01, 0, symbol)
    return Samples(inputs.to(torch.int8), torch.stack([context, symbol], 1).to(torch.int16))


def test_the_loss_is_the_code_length_of_the_exported_integers():
    samples = random_samples(4000)
    made = Network()
    torch.manual_seed(2)
    generator = torch.Generator().manual_seed(0)

    def bits() -> Tensor:
        return made.bits(samples.at(torch.randint(4000, (512,), generator=generator)))

    training.fit(made, bits, 60, 8e-3)
    with torch.no_grad():
        trained = float(made.bits(samples).mean())
        length = train_residual.code_length(made.exported(), samples) / 4000
    assert trained < math.log2(256) - 1
    assert abs(length - trained) < 0.01


def test_mirroring_twice_changes_nothing():
    samples = random_samples(2000)
    once = train_residual.mirrored(samples)
    twice = train_residual.mirrored(once)
    kept = (once.facts[:, 1] != 0) | (samples.facts[:, 1] == 0)  # not beyond the last bin
    assert torch.equal(twice.inputs, samples.inputs)
    assert torch.equal(twice.facts[kept], samples.facts[kept])
    assert kept.float().mean() > 0.99


def test_a_mirrored_element_is_the_element_of_the_negative_tensor():
    """Features of negated residuals are the mirrored features."""
    generator = torch.Generator().manual_seed(0)
    for kind in (lm.SCALE, lm.LOWRANK, lm.FACTOR):
        residuals = torch.randint(-20, 21, (60,), generator=generator).tolist()
        fractions = torch.randint(0, 32, (60,), generator=generator).tolist()
        levels = torch.randint(-63, 64, (60,), generator=generator).tolist()
        rows: list[list[list[int]]] = []
        for negative in (False, True):
            lane, sets = lm.Lane(lm.Geometry(16), 0), []
            for residual, fraction, level in zip(residuals, fractions, levels, strict=True):
                known = lm.Known(kind, 7)
                flipped = -residual if negative else residual
                if kind == lm.LOWRANK:
                    place = 31 - fraction if negative else fraction
                    known = lm.Known(kind, 7, place, -level if negative else level)
                elif kind == lm.FACTOR:
                    known = lm.Known(kind, 7, 16)
                elif negative:
                    flipped = -1 - residual
                features = lane.features(known) | {"digit": 0}
                lane.see(129 + flipped, known)
                sets.append([*(features[name] for name in CONTEXT_FEATURES), 129 + flipped])
            rows.append(sets)
        plain, negated = (torch.tensor(sets) for sets in rows)
        samples = Samples(plain[:, 2:51].to(torch.int8), plain[:, [1, 51]].to(torch.int16))
        mirrored = train_residual.mirrored(samples)
        off = (mirrored.inputs.long() - negated[:, 2:51]).abs().amax(0)
        off = dict(zip(CONTEXT_FEATURES[2:], off.tolist(), strict=True))
        # The prediction of an element may lie in 32 places of a bin, of which none is the middle.
        most = 1 if kind == lm.LOWRANK else 0
        assert max(off[f"{role}.value"] for role in ROLES) <= most
        # What is made of values with rounding may be a little off, too.
        rounded = ("adaptive", "magnitude", "energy") if kind == lm.LOWRANK else ("adaptive",)
        others = [n for n in off if not n.endswith(".value") and not any(r in n for r in rounded)]
        assert max(off[name] for name in others) == 0
        assert torch.equal(mirrored.facts.long(), negated[:, [1, 51]])


def test_training_gives_the_same_bytes_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(training, "repeatable", lambda seed: torch.Generator().manual_seed(seed))
    (tmp_path / "data").mkdir()
    for i, dtype in enumerate((torch.float32, torch.bfloat16)):
        gradients = {
            "conv": helpers.gradient(16, 8, 3, 3, dtype=dtype, seed=i),
            "matrix": (torch.randn(40, 2) @ torch.randn(2, 30)).to(dtype),
            "bias": helpers.gradient(24, dtype=dtype, seed=i),
        }
        torch.save(gradients, tmp_path / "data" / f"{i}.pt")
    files = []
    for name in ("one.pt", "two.pt"):
        torch.manual_seed(0)
        arguments = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / name)]
        assert train_residual.main([*arguments, "--minutes", "0.005"]) == 0
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]
    assert str(tmp_path).encode() not in files[0]
    prior = torch.jit.load(str(tmp_path / "one.pt"))
    assert prior.architecture == "digit-mlp-1"


def test_training_says_where_its_data_come_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert train_residual.main(["--data", str(tmp_path)]) == 1
    assert "benchmarks/gradients.py" in capsys.readouterr().err


def test_roles_are_those_of_the_reference():
    assert tuple(lm.Geometry(9).offsets) == ROLES
    assert tuple(lm.Geometry(18, 9).offsets) == ROLES
