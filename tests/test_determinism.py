"""The same bytes with any number of threads and any vector units, and every frame decodes with all.

What is promised: methods `raw`, `planes`, `scale` and `lmgc` give the same bytes everywhere. Those
that search for a prediction (`lowrank`, `auto`, `lm`) compute singular vectors in floating point:
the same ones with any number of threads, for sums are cut by shapes alone; with other vector units
they may find another prediction, whose frame every machine decodes to the same bits.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers import (
    FLOATS,
    METHODS,
    all_identical,
    bits,
    from_bytes,
    gradient,
    python,
    to_bytes,
)
from lm_priors import low_rank, paying
from processes import in_child
from test_golden import OF_NEWER_TORCH
from test_reference import GOLDEN, golden

from lmgc_torch import CorruptFrameError, PastFrame, Prior, _library, compress, decompress

ROOT = Path(__file__).resolve().parents[1]
ALL_METHODS = [*METHODS, "lm"]
SEARCHING = {"lowrank", "auto", "lm"}
THREADS = range(1, 17)


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def tensors_for(method: str) -> list[torch.Tensor]:
    """Every type, in several blocks where the method is fast enough for them."""
    rows = 40 if method == "lmgc" else 300
    tensors = [low_rank(rows, 230, rank=5, dtype=dtype, seed=1) for dtype in FLOATS]
    tensors += [gradient(16, rows // 10, 3, 3), paying(), torch.empty(0, 3)]
    tensors += [torch.arange(rows * 300) % 1000, torch.arange(rows * 300).to(torch.uint8)]
    tensors += [gradient(rows * 20).to(torch.float8_e5m2), gradient(500).to(torch.complex64)]
    if method in ("raw", "planes", "scale"):  # has all threads to itself
        tensors.append(gradient(1100, 1000, seed=2))
    return tensors


# ---- threads -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ALL_METHODS)
def test_threads_do_not_change_the_bytes(method: str, prior: Prior, residual_prior: Prior):
    tensors, model = tensors_for(method), residual_prior if method == "lm" else prior
    frames = []
    for count in THREADS:
        torch.set_num_threads(count)
        frames.append(compress(tensors, method=method, prior=model))
        if count in (1, 2, 16):
            assert all_identical(decompress(frames[0], prior=model), tensors)
    assert all(torch.equal(frames[0], frame) for frame in frames)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("method", "effort"), [("lowrank", 1), ("lowrank", 5), ("lm", 2)])
def test_threads_do_not_change_what_is_found_for_large_matrices(
    method: str, effort: int, dtype: torch.dtype
):
    """Matrices of several MiB, whose products are cut into panels: one alone, and three at once."""
    tall = low_rank(2300, 1100, rank=30, noise=0.1, dtype=dtype)
    tensors = [low_rank(1500, 1300, rank=30, noise=0.1, dtype=dtype), tall, tall[:700].clone()]
    expected = None
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        frames = [compress(list_, method=method, effort=effort) for list_ in (tensors, [tall])]
        if expected is None:
            expected = frames
        assert all(torch.equal(*pair) for pair in zip(expected, frames, strict=True))
        assert all_identical(decompress(expected[0]), tensors)


def test_a_tensor_that_fails_among_others_on_threads():
    """What one thread raises is raised, and nobody waits for ever; the next call works."""
    tensors = [low_rank(600, 500, rank=9, seed=seed) for seed in range(6)]
    torch.set_num_threads(3)
    frame = compress(tensors, method="lowrank", effort=2)
    start = frame.numel() - 4 * frame.numel() // 9  # amid a section
    broken = frame.clone()
    broken[start : start + 64] ^= 0xFF
    for _ in range(3):
        with pytest.raises(CorruptFrameError):
            decompress(broken)
    assert all_identical(decompress(frame), tensors)


# ---- vector units --------------------------------------------------------------------------------


def test_one_place_asks_the_processor():
    asking = {
        path.relative_to(ROOT / "csrc").as_posix()
        for path in (ROOT / "csrc").rglob("*")
        if path.suffix in (".h", ".cpp", ".cu", ".cuh")
        and re.search("__builtin_cpu|cpuid|get_cpu_capability", path.read_text("utf-8"))
    }
    # The second names the environment of a prior that is not portable.
    assert asking == {"core/isa.cpp", "ops/prior.cpp"}


def report(folder: Path, environment: dict[str, str]) -> tuple[list[str], dict[str, bytes]]:
    """Decodes all frames, the golden ones too, in a process that has chosen no kernels yet.

    Returns:
        The features that its kernels may use, and its own frames by method.
    """
    os.environ.update(environment)
    torch.set_num_threads(2)
    written = {}
    for method in ALL_METHODS:
        tensors = torch.load(folder / f"{method}.pt")
        assert all_identical(decompress((folder / method).read_bytes()), tensors), method
        frame = compress(tensors, method=method)
        assert all_identical(decompress(frame), tensors), method
        written[method] = to_bytes(frame)
    assert wrong_golden_frames(torch.load(folder / "priors", weights_only=False)) == []
    level = environment.get("ATEN_CPU_CAPABILITY")
    # Torch 2.6 has another word for the first.
    names = ("default", "no avx") if level == "default" else (level,)
    assert level is None or torch.backends.cpu.get_cpu_capability().lower() in names
    return _library.native().cpu_features(), written


def wrong_golden_frames(prior_files: dict[str, Path]) -> list[str]:
    priors = {begin: Prior.load(file) for begin, file in prior_files.items()}
    wrong = []
    for path in sorted(GOLDEN.glob("*.lmgc")):
        if path.stem in OF_NEWER_TORCH:
            continue
        name = path.stem.split("_", 1)[1]
        prior = next(prior for begin, prior in priors.items() if name.startswith(begin))
        past = reference = None
        if (before := path.with_suffix(".before")).exists():
            decompress(before.read_bytes(), past=(past := PastFrame()))
        if (other := path.with_suffix(".reference")).exists():
            frame = json.loads(golden.index_of(int(path.stem[1])).read_text())[name]
            reference, data = [], other.read_bytes()
            for kind, shape, _ in frame["tensors"]:
                dtype = getattr(torch, kind)
                size = torch.Size(shape).numel() * dtype.itemsize
                reference.append(from_bytes(data[:size], dtype, shape))
                data = data[size:]
        back = decompress(path.read_bytes(), prior=prior, past=past, reference=reference)
        if b"".join(to_bytes(bits(tensor)) for tensor in back) != (
            path.with_suffix(".raw").read_bytes()
        ):
            wrong.append(path.stem)
    return wrong


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frames")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    for method in ALL_METHODS:
        tensors = tensors_for(method)
        torch.save(tensors, folder / f"{method}.pt")  # torch's own may differ by vector units, too
        (folder / method).write_bytes(to_bytes(compress(tensors, method=method)))
    torch.set_num_threads(threads)
    torch.save(golden.prior_files(folder), folder / "priors")
    return folder


LEVELS = {
    "scalar": {"LMGC_ISA": "scalar"},
    "avx2": {"LMGC_ISA": "avx2"},
    "torch without vectors": {"LMGC_ISA": "avx2", "ATEN_CPU_CAPABILITY": "default"},
}


@pytest.mark.parametrize("name", LEVELS)
def test_vector_units_do_not_change_the_bytes(name: str, frames: Path):
    if name == "torch without vectors":  # torch has looked already where others are forked from
        program = (
            "import pathlib, torch, test_determinism as test\n"
            f"result = test.report(pathlib.{frames!r}, {LEVELS[name]})\n"
            f"torch.save(result, {str(frames / 'result')!r})\n"
        )
        environment = {**os.environ, **LEVELS[name], "PYTHONPATH": os.pathsep.join(sys.path)}
        result = python(program, env=environment)
        assert result.returncode == 0, result.stderr
        features, written = torch.load(frames / "result", weights_only=False)
    else:
        features, written = in_child(report, frames, LEVELS[name])
    assert features == [
        feature
        for feature in _library.native().cpu_features()
        if feature == LEVELS[name]["LMGC_ISA"]
    ]
    for method in ALL_METHODS:
        # A search in other vector units may find something else.
        if "ATEN_CPU_CAPABILITY" not in LEVELS[name] or method not in SEARCHING:
            assert written[method] == (frames / method).read_bytes(), method


def test_a_kind_of_processor_that_is_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LMGC_ISA", "sse9")
    _library.ops.cache_clear()
    with pytest.raises(ImportError, match="LMGC_ISA in the environment is 'sse9'; it must be one"):
        compress([])
