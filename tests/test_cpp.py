"""The C++ package: programs that find it with CMake, as it lies in the Python package and alone."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

import lmgc_torch
from lmgc_torch import _library

ROOT = Path(__file__).resolve().parent.parent
BUILD = Path(os.environ.get("LMGC_BUILD_DIR", ROOT / "build"))
TORCH = torch.utils.cmake_prefix_path
TOOLS = ("cmake", "c++")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(shutil.which, TOOLS)) and "CI" not in os.environ,
        reason=f"needs {' and '.join(TOOLS)}",
    ),
]


def call(*command: str | Path, fails: bool = False) -> str:
    """Runs a command and returns what it printed."""
    done = subprocess.run(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )
    assert (done.returncode != 0) == fails, done.stdout
    return done.stdout


def configure(
    source: Path, build: Path, prefixes: Sequence[str | Path], *, fails: bool = False
) -> str:
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    path = ";".join(map(str, prefixes))
    return call(
        "cmake", "-S", source, "-B", build, *generator, f"-DCMAKE_PREFIX_PATH={path}", fails=fails
    )


def built(source: Path, build: Path, prefixes: Sequence[str | Path]) -> Path:
    """Configures and builds a project; returns the folder of its program."""
    configure(source, build, prefixes)
    call("cmake", "--build", build)
    return build


def test_example_with_the_python_package(tmp_path: Path):
    assert Path(lmgc_torch.cmake_prefix_path).is_dir()
    build = built(ROOT / "examples/cpp", tmp_path, [lmgc_torch.cmake_prefix_path, TORCH])
    out = call(build / "compress_gradients")
    rows = re.findall(r"^ *\d+ +(\w+) +(\d+) +(\d+) .* every bit came back$", out, re.MULTILINE)
    assert [row[0] for row in rows] == ["planes", "lowrank", "lm"] * 3
    for (_, raw, planes), (_, _, lowrank), (_, _, lm) in zip(
        rows[::3], rows[1::3], rows[2::3], strict=True
    ):
        assert int(raw) > int(planes) > int(lowrank) > int(lm)
    assert re.search(r"^one bit changed: the frame: ", out, re.MULTILINE)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C++ component of the build that this package comes from, installed by itself."""
    if not (BUILD / "CMakeCache.txt").exists():
        pytest.skip(f"there is no build in {BUILD}")
    folder = tmp_path_factory.mktemp("cpp") / "prefix"
    call("cmake", "--install", BUILD, "--component", "cpp", "--prefix", folder)
    return folder


def test_component_holds_what_it_should(prefix: Path):
    files = {str(file.relative_to(prefix)) for file in prefix.rglob("*") if file.is_file()}
    assert files == {
        "include/lmgc_torch/lmgc.h",
        "lib/liblmgc_ops.so",
        "share/cmake/lmgc_torch/lmgc_torchConfig.cmake",
        "share/cmake/lmgc_torch/lmgc_torchConfigVersion.cmake",
        "share/lmgc_torch/priors/default.pt",
        "share/lmgc_torch/priors/residual.pt",
    }


def test_api_with_the_component(prefix: Path, tmp_path: Path):
    build = built(ROOT / "tests/cpp", tmp_path / "build", [prefix, TORCH])
    ours, theirs = tmp_path / "python.lmgc", tmp_path / "cpp.lmgc"
    numbers = torch.arange(1000)
    ours.write_bytes(lmgc_torch.compress([numbers]).numpy().tobytes())
    out = call(build / "test_api", prefix / "share/lmgc_torch/priors", ours, theirs)
    assert re.search(rf"^{lmgc_torch.__version__}: \d+ checks, 0 failed$", out, re.MULTILINE), out
    back = lmgc_torch.decompress(theirs.read_bytes())
    assert isinstance(back, dict)
    assert list(back) == ["all", "half"]
    assert torch.equal(back["all"], numbers)


def test_without_torch_it_is_not_found(prefix: Path, tmp_path: Path):
    out = configure(ROOT / "tests/cpp", tmp_path, [prefix], fails=True)
    assert "LibTorch was not found" in " ".join(out.split())


def test_another_torch_is_refused(prefix: Path, tmp_path: Path):
    other = tmp_path / "torch/share/cmake/Torch"
    other.mkdir(parents=True)
    (other / "TorchConfigVersion.cmake").write_text('set(PACKAGE_VERSION "2.4.0")\n')
    prefixes = [prefix, tmp_path / "torch"]
    out = configure(ROOT / "tests/cpp", tmp_path / "build", prefixes, fails=True)
    built_for = str(_library.native().build_info()["torch_version"])
    words = " ".join(out.split())
    assert f"built for torch {built_for}" in words
    assert "this is torch 2.4" in words
