"""Processes that torch starts for others: workers of a DataLoader; and what is sent to them."""

from __future__ import annotations

import copy
import io
import os
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import gradient, identical
from torch.utils.data import DataLoader, Dataset

import lmgc_torch
import lmgc_torch.distributed as lmgc_dist
from lmgc_torch import PastFrame, Prior, WarmStart, compress, decompress, info, safe_open, save_file
from lmgc_torch.archive import ArchiveReader, ArchiveWriter
from lmgc_torch.near_lossless import (
    AbsoluteBound,
    BlockBits,
    ErrorFeedback,
    KeepBits,
    RelativeBound,
    Threshold,
    TopK,
)

COUNT = 6


class Frames(Dataset):
    """Decodes a frame and a tensor of an archive for each item, and compresses what it decoded."""

    def __init__(self, path: Path, method: str, killed: int | None = None) -> None:
        self.frames = [compress(gradient(60, 50, seed=i), method=method) for i in range(COUNT)]
        self.archive = safe_open(path)
        self.method, self.killed = method, killed

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, bool]:
        if index == self.killed:
            os.kill(os.getpid(), signal.SIGKILL)
        tensor = decompress(self.frames[index])
        again = torch.equal(compress(tensor, method=self.method), self.frames[index])
        return tensor, self.archive.get_tensor(str(index)), again


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    save_file({str(i): gradient(60, 50, seed=-i - 1) for i in range(COUNT)}, tmp_path / "a.lmgc")
    return tmp_path / "a.lmgc"


@pytest.mark.parametrize(
    ("start", "method"),
    [*(("fork", method) for method in ("planes", "auto", "lm")), ("spawn", "auto")],
)
def test_workers_of_a_data_loader(start: str, method: str, archive: Path):
    compress(gradient(2000, 600))  # OpenMP has threads when workers are forked
    loader = DataLoader(
        Frames(archive, method), num_workers=2, multiprocessing_context=start, batch_size=None
    )
    for index, (tensor, other, again) in enumerate(loader):
        assert identical(tensor, gradient(60, 50, seed=index))
        assert identical(other, gradient(60, 50, seed=-index - 1))
        assert again


def test_a_worker_that_is_killed(archive: Path):
    loader = DataLoader(
        Frames(archive, "planes", killed=3),
        num_workers=2,
        multiprocessing_context="fork",
        batch_size=None,
    )
    with pytest.raises(RuntimeError, match=r"worker .* (killed by signal|exited unexpectedly)"):
        list(loader)


# ---- what can be sent ----------------------------------------------------------------------------

COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda one: pickle.loads(pickle.dumps(one)),
}


def of_archive(one: Any) -> list[torch.Tensor]:
    if isinstance(one, ArchiveReader):
        return one.tensors()
    return [one.get_tensor(name) for name in one.keys()]  # noqa: SIM118


def same_tensors(one: Any, two: Any) -> bool:
    return all(map(identical, of_archive(one), of_archive(two)))


def same_attributes(one: Any, two: Any) -> bool:
    return vars(one) == vars(two)


def same_stats(one: Any, two: Any) -> bool:
    return one.compression_stats() == two.compression_stats() and one.method == two.method


OBJECTS: dict[str, tuple[Callable[[Path], Any], Callable[[Any, Any], bool]]] = {
    "FrameInfo": (lambda _: info(compress({"a": gradient(9, 9)})), lambda a, b: a == b),
    "ArchiveInfo": (lambda path: ArchiveReader.open(path).info(), lambda a, b: a == b),
    "ArchiveReader": (ArchiveReader.open, same_tensors),
    "safe_open": (safe_open, same_tensors),
    "TensorSlice": (
        lambda path: safe_open(path).get_slice("0"),
        lambda a, b: identical(a[:], b[:]),
    ),
    "Report": (lambda _: lmgc_torch.analyze({"a": gradient(50, 9)}), lambda a, b: str(a) == str(b)),
    "Prior": (lambda _: Prior.load("residual"), lambda a, b: a.fingerprint == b.fingerprint),
    "WarmStart": (lambda _: WarmStart(), lambda a, b: a is not b),
    "PastFrame": (lambda _: PastFrame(), lambda a, b: a is not b),
    "KeepBits": (lambda _: KeepBits(5), same_attributes),
    "BlockBits": (lambda _: BlockBits(4, 64), same_attributes),
    "TopK": (lambda _: TopK(0.1), same_attributes),
    "Threshold": (lambda _: Threshold(0.1), same_attributes),
    "AbsoluteBound": (lambda _: AbsoluteBound(0.1), same_attributes),
    "RelativeBound": (lambda _: RelativeBound(0.1), same_attributes),
    "ErrorFeedback": (
        lambda _: ErrorFeedback(TopK(0.5)),
        lambda a, b: a.state_dict() == b.state_dict(),
    ),
    "CompressedAllReduceState": (
        lambda _: lmgc_dist.CompressedAllReduceState(method="scale"),
        same_stats,
    ),
    "NearLosslessAllReduceState": (
        lambda _: lmgc_dist.NearLosslessAllReduceState(KeepBits(3), method="scale"),
        same_stats,
    ),
    "CompressionStats": (
        lambda _: lmgc_dist.CompressedAllReduceState().compression_stats(),
        lambda a, b: a == b,
    ),
    "CorruptFrameError": (
        lambda _: lmgc_torch.CorruptFrameError("it says this"),
        lambda a, b: type(a) is type(b) and a.args == b.args,
    ),
}


@pytest.mark.parametrize("copied", COPIES)
@pytest.mark.parametrize("name", OBJECTS)
def test_copies(name: str, copied: str, archive: Path):
    make, same = OBJECTS[name]
    one = make(archive)
    two = COPIES[copied](one)
    assert type(two) is type(one)
    assert same(one, two)


def test_what_is_public_is_copied():
    """A class that is new is copied here, too, or said why not."""
    modules = (lmgc_torch, lmgc_dist, lmgc_torch.near_lossless)
    public = {
        name
        for module in modules
        for name in module.__all__
        if isinstance(getattr(module, name), type)
    }
    errors = {name for name in public if name.endswith("Error")}
    others = {"TensorInfo", "Loss"}  # a part of FrameInfo, and what losses are derived from
    assert public - errors - others == (OBJECTS.keys() & public) - errors


def test_a_writer_is_not_sent(tmp_path: Path):
    with (tmp_path / "a.lmgc").open("wb") as file, pytest.raises(TypeError, match="cannot pickle"):
        pickle.dumps(ArchiveWriter(file))
    pickle.dumps(ArchiveWriter(io.BytesIO()))
