"""The fuzzers of tests/fuzz run for a moment, and find what is planted."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))

import archives
import differential
import frames
import mutations
import seeds
from frames import Base, Parts, helpers

from lmgc_torch import reference_common

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> list[Base]:
    return frames.bases(tmp_path_factory.mktemp("frames"), 300)


def of_kind(bases: list[Base], kind: str) -> Base:
    return next(base for base in bases if base.kind == kind and not base.slow)


def test_frames_are_of_all_kinds(bases: list[Base], tmp_path: Path):
    kinds = {"raw", "planes", "scale", "lmgc", "lm", "joined", "reference", "near-lossless"}
    assert {base.kind for base in bases} == kinds
    assert {base.kind for base in frames.bases(tmp_path)} == {*kinds, "lowrank", "past"}
    for base in bases:
        assert Parts.of(base.frame).write() == base.frame
        assert frames.as_bytes(base.decompress(base.frame)) == base.data
        if not base.slow:
            assert differential.verdict(base, base.frame) == "read"


# ---- mutations -----------------------------------------------------------------------------------


def test_no_mutation_of_the_smallest_frames_gives_other_data(bases: list[Base], tmp_path: Path):
    table = mutations.Table()
    fast = [base for base in bases if not base.slow and len(base.frame) < 130]
    mutations.mutate_frames(fast[::3], table)
    assert table.total > 5000
    assert not table.bad
    sealed = sum((row for (_, own), row in table.rows.items() if own), mutations.Counter())
    assert sealed["tensor"] > 100
    assert sealed["header"] == sealed["payload"] == 0
    assert " 0 |" in str(table)


def test_wrong_data_are_noticed(bases: list[Base]):
    base = of_kind(bases, "scale")
    other = Parts.of(of_kind(bases, "planes").frame).write()
    assert mutations.outcome_of_frame(base, other) == "wrong"
    assert mutations.outcome_of_frame(base, base.frame) == "identical"
    assert mutations.outcome_of_frame(base, base.frame[:-1]) == "field"


def test_checks_are_told_apart(bases: list[Base]):
    base = of_kind(bases, "raw")
    frame = bytearray(base.frame)
    frame[-1] ^= 1
    assert mutations.outcome_of_frame(base, bytes(frame)) == "payload"
    assert mutations.outcome_of_frame(base, helpers.resealed(bytes(frame))) == "tensor"
    frame[11] ^= 1
    assert mutations.outcome_of_frame(base, bytes(frame)) == "header"


# ---- both decoders -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["planes", "scale", "reference", "near-lossless"])
def test_both_decoders_agree_for_a_moment(bases: list[Base], kind: str):
    generator = random.Random(1)
    own = [base for base in bases if base.kind == kind]
    for _ in range(60):
        base = generator.choice(own)
        changed = differential.changed_frame(base, [own[0].frame], generator)
        differential.verdict(base, changed)


def test_what_only_one_decoder_refuses_is_found(bases: list[Base], monkeypatch: pytest.MonkeyPatch):
    base = of_kind(bases, "scale")

    def refuse(*_: object) -> None:
        raise reference_common.CorruptFrameError("not today")

    monkeypatch.setattr(frames.ref, "decoded_sections", refuse)
    with pytest.raises(differential.DisagreementError, match="only the second decoder refuses"):
        differential.verdict(base, base.frame)


def test_other_bytes_are_found(bases: list[Base], monkeypatch: pytest.MonkeyPatch):
    base = of_kind(bases, "scale")
    other = bytes([base.data[0][0] ^ 1]) + base.data[0][1:]
    monkeypatch.setattr(Base, "read", lambda *_: [(0, other)])
    with pytest.raises(differential.DisagreementError, match="only the operators refuse"):
        differential.verdict(base, base.frame)


def test_a_run_prints_what_it_did(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    arguments = ["--seconds", "1", "--seed", "1", "--found", str(tmp_path)]
    assert archives.main(arguments) == 0
    assert "archives" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_archives_that_are_read_differently_are_found(tmp_path: Path):
    """Two ways to read: here one of them leaves tensors out."""
    data = next(archives.small_archives(tmp_path))
    path = tmp_path / "a.lmgc"
    path.write_bytes(data)
    kinds = {name: mutations.Counter() for name in archives.WAYS}
    archives.check(path, None, kinds)
    assert kinds["load_file"] == {"read": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archives.lmgc_torch, "load_file", lambda *_, **__: {})
        with pytest.raises(AssertionError, match="names are the same"):
            archives.check(path, None, kinds)


# ---- seeds ---------------------------------------------------------------------------------------


def test_every_target_has_seeds(tmp_path: Path):
    seeds.main(tmp_path)
    for target in seeds.TARGETS:
        assert len(list((tmp_path / target).iterdir())) > 20
