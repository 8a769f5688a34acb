"""The bundled portable prior: the same logits bit for bit however it is run."""

import copy
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lmgc_torch import priors
from lmgc_torch.priors.model import CONTEXT_FEATURES, HexPrior, IntegerLinear, integer_exp2
from lmgc_torch.priors.model import integer_log2 as log2_of

# name: exponent bits, mantissa bits, digits coded
FORMATS = {
    "float16": (5, 10, [0, 1]),
    "float16 all": (5, 10, [0, 1, 2, 3]),
    "bfloat16": (8, 7, [0, 1, 2]),
    "float32": (8, 23, [0, 1, 2]),
    "float32 with a gap": (8, 23, [0, 1, 2, 4, 7]),
    "float64": (11, 52, [0, 1, 2]),
    "float64 more": (11, 52, [0, 1, 2, 3]),
    "spaces between": (8, 23, [0, 1, -1, 2, -1]),
    "a space first": (8, 7, [-1, 0, 1, 2]),
    "little-endian": (8, 23, [2, 0, 1]),
    "no float": (0, 0, [0, 1]),
}
BOS, SPACE = 16, 17


@pytest.fixture(scope="module")
def prior() -> Any:
    return torch.jit.load(str(priors.bundled()["default"]))


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def window(name: str, lanes: int, elements: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Tokens [lanes, T] and features [lanes, T, F]: random, with extremes and with padding."""
    exponent_bits, mantissa_bits, digits = FORMATS[name]
    generator = torch.Generator().manual_seed(seed)

    def random(low: int, high: int) -> Tensor:
        return torch.randint(low, high + 1, (lanes, elements), generator=generator)

    columns = {
        "exponent_bits": torch.full((lanes, elements), exponent_bits),
        "mantissa_bits": torch.full((lanes, elements), mantissa_bits),
        "reference": random(0, max(8 << exponent_bits, 1) - 1),
        "taps": random(1, 16),
        "flat": random(0, 1),
    }
    spread = random(0, 3)
    for feature in CONTEXT_FEATURES[6:]:
        limit = 63 if feature.endswith(".level") else 127
        value = random(-limit, limit)
        value = torch.where(spread == 1, limit, torch.where(spread == 2, -limit - 0, value))
        if feature.endswith(".level"):
            value = torch.where(random(0, 9) == 0, -64, value)
        columns[feature] = torch.where(spread == 3, 0, value)
    features = torch.zeros(lanes, elements, len(digits), len(CONTEXT_FEATURES))
    for i, feature in enumerate(CONTEXT_FEATURES[1:], 1):
        features[..., i] = columns[feature][..., None]
    features[1:, -1] = 0.0  # what padding looks like; the first lane is never padded
    features[..., 0] = torch.tensor(digits, dtype=torch.float32)
    positions = elements * len(digits)
    tokens = torch.randint(0, 16, (lanes, positions), generator=generator)
    after_separator = torch.tensor(digits * elements) < 0
    tokens[:, 1:][:, after_separator[:-1]] = SPACE
    tokens[:, 0] = BOS
    return tokens, features.reshape(lanes, positions, -1)


def steps(prior: Any, tokens: Tensor, features: Tensor) -> Tensor:
    state = prior.init_state(len(tokens))
    logits = []
    for t in range(tokens.size(1)):
        predicted, state = prior.step(tokens[:, t], features[:, t], state)
        logits.append(predicted)
    return torch.stack(logits, 1)


def test_it_keeps_its_contract(prior: Any):
    assert set("0123456789abcdef") | {"<bos>"} <= set(prior.vocab)
    assert prior.context_features == list(CONTEXT_FEATURES)
    assert prior.portable is True
    assert prior.units_per_octave == 256.0
    assert prior.max_context >= 64


@pytest.mark.parametrize("name", FORMATS)
def test_forward_and_step_agree_and_are_integers(prior: Any, name: str):
    tokens, features = window(name, 65)
    logits = prior(tokens, features)
    assert logits.dtype == torch.float32
    assert logits.shape == (*tokens.shape, len(prior.vocab))
    assert torch.equal(logits, logits.round())
    assert logits.abs().max() < 2**15
    assert torch.equal(logits, steps(prior, tokens, features))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("name", ["float16", "bfloat16", "float64"])
def test_batch_size_and_threads_do_not_matter(prior: Any, name: str):
    tokens, features = window(name, 1024)
    torch.set_num_threads(1)
    logits = prior(tokens, features)
    assert torch.equal(prior(tokens[:1], features[:1]), logits[:1])
    assert torch.equal(prior(tokens[:7], features[:7]), logits[:7])
    assert torch.equal(steps(prior, tokens, features), logits)
    torch.set_num_threads(2)
    assert torch.equal(prior(tokens, features), logits)
    assert torch.equal(prior(tokens[:7], features[:7]), logits[:7])
    assert torch.equal(steps(prior, tokens, features), logits)


def test_reduced_precision_of_matrix_products_does_not_matter(prior: Any):
    tokens, features = window("float32", 300)
    logits = prior(tokens, features)
    before = torch.get_float32_matmul_precision()
    try:
        for precision in ("high", "medium"):
            torch.set_float32_matmul_precision(precision)
            assert torch.equal(prior(tokens, features), logits)
    finally:
        torch.set_float32_matmul_precision(before)


def test_lanes_may_leave_between_elements(prior: Any):
    tokens, features = window("float32", 50, elements=6)
    whole = prior(tokens, features)
    state = prior.init_state(50)
    active = 50
    for t in range(tokens.size(1)):
        if t % 3 == 0 and t > 0:
            active -= 9
            tensors, order = state
            state = ([tensor.narrow(0, 0, active) for tensor in tensors], order)
        logits, state = prior.step(tokens[:active, t], features[:active, t], state)
        assert torch.equal(logits, whole[:active, t])


def test_torchscript_eager_and_a_saved_copy_agree(prior: Any):
    tokens, features = window("float32", 40)
    logits = prior(tokens, features)
    buffers = dict(prior.named_buffers())
    layers = []
    for name in ("hidden1", "hidden2", "head"):
        shift = -torch.log2(buffers[f"{name}.scale"])
        layers.append(IntegerLinear(buffers[f"{name}.weight"], buffers[f"{name}.bias"], shift))
    eager = HexPrior(*layers, buffers["mantissa"])
    assert torch.equal(eager.mantissa2, buffers["mantissa2"])
    with torch.no_grad():
        assert torch.equal(eager(tokens, features), logits)
        assert torch.equal(steps(eager, tokens, features), logits)
    file = io.BytesIO()
    torch.jit.save(prior, file)
    file.seek(0)
    assert torch.equal(torch.jit.load(file)(tokens, features), logits)
    assert torch.equal(copy.deepcopy(prior)(tokens, features), logits)


def test_every_product_and_sum_is_exact(prior: Any):
    inputs = 127
    for name, buffer in prior.named_buffers():
        assert torch.equal(buffer, buffer.round()) or name.endswith("scale")
        if name.endswith("weight"):
            assert buffer.abs().max() <= 127
            bias = dict(prior.named_buffers())[name.replace("weight", "bias")]
            assert (buffer.abs().sum(1) * inputs + bias.abs()).max() < 2**24
        if name.endswith("scale"):
            assert torch.equal(torch.exp2(torch.log2(buffer).round()), buffer)


def test_weights_and_logarithms():
    score = torch.arange(-2000.0, 1.0)[None]
    weight = integer_exp2(score)
    assert torch.equal(weight, weight.round())
    assert (weight[0, -1], weight.min()) == (2.0**17, 1.0)
    assert (weight.diff() >= 0).all()
    count = torch.cat([torch.arange(1.0, 70000.0), torch.arange(2.0**24 - 999, 2.0**24)])
    exact = torch.log2(count.double()) * 256
    assert (log2_of(count) - exact).abs().max() < 1.0


def test_digits_follow_the_scale(prior: Any):
    """Without neighbours the likeliest exponents lie around the scale, in any format."""
    for bits, mantissa, bias in ((5, 10, 15), (8, 7, 127), (8, 23, 127), (11, 52, 1023)):
        features = torch.zeros(1, 3, len(CONTEXT_FEATURES))
        features[..., 0] = torch.arange(3.0)
        features[..., 1], features[..., 2] = bits, mantissa
        features[..., 3], features[..., 4] = 8 * bias, 9
        word = {5: 0x3C00 << 48, 8: 0x3F80 << 48, 11: 0x3FF0 << 48}[bits]
        ones = [word >> 60 & 15, word >> 56 & 15, word >> 52 & 15]
        tokens = torch.tensor([[BOS, ones[0], ones[1]]])
        probability = torch.exp2(prior(tokens, features)[0, :, :16] / 256).double()
        probability /= probability.sum(1, keepdim=True)
        bits_spent = sum(-torch.log2(probability[i, ones[i]]) for i in range(2))
        assert bits_spent < 6, (bits, mantissa, bits_spent)


# ---- the context features, against the words of docs/prior.md ------------------------------------


Columns = dict[str, np.ndarray]


def expected_features(words: np.ndarray, shape: tuple[int, ...], lane: int) -> Columns:
    """The features of float32 `words`, element by element, as docs/prior.md defines them."""
    count = words.size
    rest = count // shape[0]
    flat = len(shape) < 2 or shape[0] < 2 or rest < 16
    row_length = 256 if flat else rest
    taps = 1 if flat else rest // shape[1]
    magnitude = words & 0x7FFFFFFF
    level, zero = (magnitude >> 20).astype(int), magnitude == 0
    index = np.arange(count)
    row, column = index // row_length, index % row_length

    def line_means(line: np.ndarray, other: np.ndarray, empty: int) -> np.ndarray:
        sums = np.bincount(line, np.where(zero, 0, level - other))
        counts = np.bincount(line, ~zero)
        mean = np.floor((2 * sums + counts) / np.maximum(2 * counts, 1)).astype(int)
        return np.where(counts == 0, empty, mean)

    rows = line_means(row, np.zeros(count, int), 0)
    columns = np.zeros(row_length, int)
    empty = int(rows.sum() / rows.size)
    for _ in range(3):
        rows = line_means(row, columns[column], empty)
        if not flat and shape[0] >= 16:
            columns = line_means(column, rows[row], 0)
    reference = 2 * ((rows + 1) >> 1)[row] + 2 * ((columns + 1) >> 1)[column]
    reference = np.clip(reference, 0, 2047)
    c, p = row_length, taps
    if p > 1:
        back = [1, 2, 3, 4, p - 1, p, p + 1, 2 * p, 3 * p, c - 1, c, c + 1, c + p, 2 * c, c - p]
        back.append(2 * c + p)
    else:
        back = [*range(1, 10), c - 1, c, c + 1, c + 2, 2 * c, c - 2, 2 * c + 1]
    result = {
        "exponent_bits": np.full(count, 8),
        "mantissa_bits": np.full(count, 23),
        "reference": reference,
        "taps": np.full(count, min(taps, 16)),
        "flat": np.full(count, int(flat)),
    }
    names = [name.removesuffix(".level") for name in CONTEXT_FEATURES[6:22]]
    for name, offset in zip(names, back, strict=True):
        there = offset <= index % lane
        neighbour = np.where(there, index - offset, 0)
        relative = np.clip(level[neighbour] - reference, -63, 63)
        exists = there & ~zero[neighbour]
        linear = np.minimum(127, np.floor((8 + relative % 8) * 2.0 ** (relative // 8)))
        linear = np.where(words[neighbour] >> 31 == 1, -linear, linear)
        result[f"{name}.level"] = np.where(exists, relative, np.where(there, -64, 0))
        result[f"{name}.value"] = np.where(exists, linear, 0)
    return result


@pytest.mark.parametrize(
    "shape", [(24, 16, 3, 3), (20, 40), (8, 3, 2, 2), (5, 7), (1000,), (2, 600), (1, 64, 32)]
)
def test_context_features_are_as_documented(shape: tuple[int, ...]):
    generator = torch.Generator().manual_seed(len(shape))
    tensor = torch.randn(shape, generator=generator) * torch.exp2(
        torch.randint(-20, 20, shape, generator=generator)
    )
    tensor[torch.rand(shape, generator=generator) < 0.1] = 0.0
    if len(shape) == 2:
        tensor[1] = 0.0
    names = list(CONTEXT_FEATURES[1:])
    features = torch.ops.lmgc.context_features(tensor, names, 300)
    words = tensor.numpy().view(np.uint32).ravel().astype(np.int64)
    expected = expected_features(words, shape, 300)
    for i, name in enumerate(names):
        np.testing.assert_array_equal(features[:, i].numpy(), expected[name], err_msg=name)


def test_the_file_names_no_folder_of_the_machine_it_was_made_on():
    data = Path(priors.bundled()["default"]).read_bytes()
    assert len(data) <= 300_000
    assert str(Path(__file__).resolve().parent.parent).encode() not in data
