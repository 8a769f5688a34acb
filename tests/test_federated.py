"""The federated example: exact differences, and the weights of training without compression."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from helpers import all_identical, bits, identical
from ranks import run_ranks
from torch import Tensor

# The examples are scripts, not a package: they are found by folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

import federated

CLIENTS, ROUNDS, IMAGES = 2, 2, 128


def test_differences_are_exact() -> None:
    special = [0.0, -0.0, 1.0, -1.0, float("inf"), float("-inf"), float("nan"), 1e-45, 3e38]
    one = torch.tensor(special).repeat(len(special)).view(len(special), -1)
    two = one.t().contiguous()
    any_bits = torch.arange(-(1 << 31), 1 << 31, 49_999).to(torch.int32).view(torch.float32)
    pairs = [
        (one, two),
        (any_bits, any_bits.flip(0).clone()),
        (any_bits, torch.ones_like(any_bits)),
    ]
    for weight, base in pairs:
        told = federated.difference({"w": weight}, {"w": base})
        assert identical(federated.restore(told, {"w": base})["w"], weight)
    near = torch.nextafter(torch.full((8,), 1.5), torch.tensor([1.0, 2.0] * 4))
    told = federated.difference({"w": near}, {"w": torch.full((8,), 1.5)})
    assert told["w"].tolist() == [1, 2] * 4


def test_floats_would_not_be() -> None:
    base, weight = torch.tensor([0.1]), torch.tensor([1e-9])
    assert not identical(base + (weight - base), weight)


def samples() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(federated.TEST_IMAGES + IMAGES, 1, 28, 28, generator=generator)
    return images, images.mean(dim=(1, 2, 3)).gt(0).long()


def _run(rank: int) -> tuple[list[federated.Round], list[Tensor]]:
    images, labels = samples()
    model = federated.new_model(1, 28)
    if rank == federated.SERVER:
        test = (images[:10], labels[:10])
        history = federated.serve(model, CLIENTS, ROUNDS, test)
    else:
        mine = slice(federated.TEST_IMAGES + rank - 1, None, CLIENTS)
        federated.take_part(model, rank, ROUNDS, images[mine], labels[mine])
        history = []
    return history, [weight.detach() for weight in model.parameters()]


def _plain(rank: int) -> list[Tensor]:
    """Federated averaging in one process, nothing sent."""
    images, labels = samples()
    model = federated.new_model(1, 28)
    weights = federated.weights_of(model)
    for number in range(1, ROUNDS + 1):
        trained = []
        for client in range(1, CLIENTS + 1):
            model.load_state_dict(weights)
            mine = slice(federated.TEST_IMAGES + client - 1, None, CLIENTS)
            federated.train_one_epoch(
                model, images[mine], labels[mine], seed=1000 * number + client
            )
            trained.append(federated.weights_of(model))
        weights = federated.average(trained)
    return list(weights.values())


def test_the_global_weights_are_those_of_plain_averaging() -> None:
    (history, weights), *_ = run_ranks(_run, CLIENTS + 1)
    (expected,) = run_ranks(_plain, 1)
    assert all_identical(weights, expected)
    assert len(history) == ROUNDS
    size = sum(bits(weight).numel() for weight in weights)
    for row in history:
        assert row.raw_bytes == 2 * CLIENTS * size
        assert row.sent_bytes < 0.9 * row.raw_bytes
        assert row.loss > 0


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None, reason="needs scikit-learn's digits"
)
def test_the_example_runs(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    images = federated.datasets.images
    monkeypatch.setattr(federated.datasets, "images", lambda name: images(name, tmp_path))
    monkeypatch.setattr(federated.datasets, "source", lambda name: "scikit-learn digits")
    assert federated.main(["--clients", "1", "--rounds", "1", "--images", "100"]) == 0
    out, err = capfd.readouterr()
    assert "1 clients share 100 images of scikit-learn digits" in out
    assert "of every client's weights, 1 times" in out
    assert "using scikit-learn digits instead" in err
