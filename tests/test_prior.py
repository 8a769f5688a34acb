"""Priors: what they tell of themselves, and where they come from."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import helpers
import pytest
import torch
from helpers import (
    gradient,
    identical,
    python,
    to_bytes,
)
from test_round_trip import CONTEXTS, check

from lmgc_torch import Prior, compress, decompress, info
from lmgc_torch import prior as prior_module


def test_prior_tells_its_contract(prior: Prior, feature_prior: Prior, bound_prior: Prior):
    assert prior.vocab[:3] == ["0", "1", "2"]
    assert prior.max_context == 32
    assert prior.portable
    assert not bound_prior.portable
    assert prior.context_features == []
    assert feature_prior.context_features[0] == "digit"
    assert prior.device == torch.device("cpu")
    assert len(prior.fingerprint) == 32
    assert len({prior.fingerprint, feature_prior.fingerprint, bound_prior.fingerprint}) == 3
    assert prior.fingerprint in repr(prior)
    assert prior.to("cpu") is prior


def test_priors_may_be_files(prior: Prior, prior_file: Path):
    frame = check(gradient(300), method="lmgc", prior=prior_file)
    check(gradient(300), method="lmgc", prior=str(prior_file))
    assert identical(decompress(frame, prior=prior), gradient(300))


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))]
)
def test_priors_can_be_copied(prior: Prior, copied):
    frame = compress(gradient(300), method="lmgc", prior=prior)
    other = copied(prior)
    assert isinstance(other, Prior)
    assert other.fingerprint == prior.fingerprint
    assert torch.equal(frame, compress(gradient(300), method="lmgc", prior=other))
    assert identical(decompress(frame, prior=other), gradient(300))


def test_priors_go_to_other_processes(prior: Prior, tmp_path: Path):
    frame = compress(gradient(300), method="lmgc", prior=prior)
    (tmp_path / "both").write_bytes(pickle.dumps((prior, to_bytes(frame))))
    program = (
        "import pickle, sys\n"
        "prior, frame = pickle.load(open(sys.argv[1], 'rb'))\n"
        "import lmgc_torch\n"
        "print(prior.fingerprint, lmgc_torch.decompress(frame, prior=prior).shape)\n"
    ).replace("sys.argv[1]", repr(str(tmp_path / "both")))
    result = python(program)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[0] == prior.fingerprint


def test_a_prior_may_keep_its_inputs(tmp_path: Path):
    """The tokens that step() is given are a fresh tensor, or a state could not hold on to them."""
    path = helpers.write_prior_that_keeps_its_inputs(tmp_path / "keeps.pt")
    check(gradient(100), method="lmgc", prior=Prior.load(path))


def test_prior_that_is_not_there(tmp_path: Path):
    for path in (tmp_path / "none.pt", str(tmp_path / "none.pt"), "none.pt"):
        with pytest.raises(FileNotFoundError, match="bundled priors are: "):
            Prior.load(path)
    with pytest.raises(ValueError, match="neither a bundled prior nor a file called 'defualt'"):
        Prior.load("defualt")
    with pytest.raises(TypeError, match="int"):
        Prior.load(3)


def test_methods_without_a_prior_do_not_look_for_it():
    check(torch.ones(10), method="planes", prior="no such prior")
    with pytest.raises(ValueError, match="no such prior"):
        compress(torch.ones(10), method="lmgc", prior="no such prior")


needs_default = pytest.mark.skipif(
    prior_module.DEFAULTS["lmgc"] not in prior_module.bundled(),
    reason="the default prior is not bundled",
)


@needs_default
def test_default_prior_is_used_where_none_is_given():
    tensor = gradient(20, 30)
    frame = check(tensor, method="lmgc")
    assert info(frame).prior["fingerprint"] == Prior.load("default").fingerprint
    assert torch.equal(frame, compress(tensor, method="lmgc", prior="default"))
    assert info(frame).prior["portable"]


@needs_default
@pytest.mark.parametrize("name", CONTEXTS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_default_prior_does_not_mind_the_caller_s_context(name: str):
    values = gradient(20, 30)
    expected = compress(values, method="lmgc")
    with CONTEXTS[name]():
        assert torch.equal(compress(values, method="lmgc", prior=Prior.load("default")), expected)
        assert identical(decompress(expected, prior=Prior.load("default")), values)


@needs_default
def test_loaded_priors_are_not_the_cached_one():
    assert Prior.load("default").handle is not Prior.load("default").handle
    cpu = torch.device("cpu")
    assert prior_module.cached("default", cpu) is prior_module.cached("default", cpu)


def test_without_a_bundled_prior_the_error_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prior_module, "bundled", dict)
    with pytest.raises(ValueError, match="neither a bundled prior nor a file called 'default'"):
        compress(torch.ones(10), method="lmgc")
