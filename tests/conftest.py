"""Settings of all tests, and the priors that several of them share."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import helpers
import pytest
import torch
from hypothesis import HealthCheck, settings

from lmgc_torch import Prior, cli

# What torch 2.6 does not have yet: communicators of FSDP2 that can be replaced, and extensions of
# distributed checkpoints.
collect_ignore = ["test_fsdp.py", "test_dcp.py"]
if importlib.util.find_spec("torch.distributed.checkpoint._extension"):
    collect_ignore.clear()

# Examples are the same on every run: a failure that one machine finds is found by all. Operators
# are slow when first called, which is no reason to fail. `--hypothesis-profile=more` looks further.
settings.register_profile(
    "repeatable",
    deadline=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile(
    "more", settings.get_profile("repeatable"), max_examples=1000, derandomize=False
)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that are marked `cuda` are skipped where they cannot run."""
    if helpers.has_cuda():
        return
    skip = pytest.mark.skip(reason="needs a GPU and a build with CUDA")
    for item in items:
        # Not by its keywords, which have the names of folders, too.
        if item.get_closest_marker("cuda") is not None:
            item.add_marker(skip)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small work on many threads is slow where other processes want the processors too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def prior_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small portable prior with every separator in its vocabulary."""
    return helpers.write_prior(tmp_path_factory.mktemp("prior") / "table.pt")


@pytest.fixture(scope="session")
def prior(prior_file: Path) -> Prior:
    return Prior.load(prior_file)


@pytest.fixture(scope="session")
def byte_prior(tmp_path_factory: pytest.TempPathFactory) -> Prior:
    """A prior for the separator "iso-8859-1": its tokens are bytes."""
    path = tmp_path_factory.mktemp("prior") / "bytes.pt"
    return Prior.load(helpers.write_prior(path, vocab=helpers.BYTE_VOCAB))


@pytest.fixture(scope="session")
def feature_prior(tmp_path_factory: pytest.TempPathFactory) -> Prior:
    """A prior that looks at context features."""
    path = tmp_path_factory.mktemp("prior") / "features.pt"
    names = ["digit", "exponent_bits", "reference", "left1.level", "above.value"]
    return Prior.load(helpers.write_prior(path, features=names))


@pytest.fixture(scope="session")
def residual_prior() -> Prior:
    """The bundled prior of method lm."""
    return Prior.load("residual")


@pytest.fixture(scope="session")
def bound_prior(tmp_path_factory: pytest.TempPathFactory) -> Prior:
    """A prior that is not portable."""
    path = tmp_path_factory.mktemp("prior") / "bound.pt"
    return Prior.load(helpers.write_prior(path, portable=False))


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    """Runs the command line in this process, which is quick; returns its output and messages."""

    def run(*arguments: object, code: int = 0) -> tuple[str, str]:
        capfd.readouterr()
        try:
            got = cli.main([str(argument) for argument in arguments])
        except SystemExit as error:  # argparse
            got = error.code
        out, messages = capfd.readouterr()
        assert got == code, messages
        return out, messages

    return run


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    return {
        "weight": helpers.gradient(40, 30),
        "half": helpers.gradient(100, dtype=torch.bfloat16),
        "empty": torch.empty(0, 3),
        "step": torch.tensor(7),
    }


@pytest.fixture
def pt(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    """A .pt file of these tensors."""
    torch.save(tensors, tmp_path / "model.pt")
    return tmp_path / "model.pt"


@pytest.fixture(scope="session")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small GPT-2 and its tokenizer, as transformers save them."""
    pytest.importorskip("transformers")
    import small_checkpoints

    return small_checkpoints.write_gpt2(tmp_path_factory.mktemp("gpt2"))
