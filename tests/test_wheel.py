"""Distributions: a wheel that works in an environment of its own, a source that can be built."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import torch

import lmgc_torch

ROOT = Path(__file__).resolve().parent.parent
BUILD = Path(os.environ.get("LMGC_BUILD_DIR", ROOT / "build")).resolve()
NAME = f"lmgc_torch-{lmgc_torch.__version__}"

pytestmark = pytest.mark.slow


def call(*command: str | Path, cwd: Path = ROOT, **variables: str) -> str:
    """Runs a command, as in a shell that knows nothing of this source tree."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**environment, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("distributions")


@pytest.fixture(scope="module")
def settings(folder: Path) -> dict[str, str]:
    """Variables that keep what setuptools writes out of the source tree."""
    config = folder / "setuptools.cfg"
    config.write_text(f"[build]\nbuild_base={folder}/base\n[egg_info]\negg_base={folder}\n")
    return {"DIST_EXTRA_CONFIG": str(config), "LMGC_BUILD_DIR": str(BUILD)}


@pytest.fixture(scope="module")
def wheel(folder: Path, settings: dict[str, str]) -> Path:
    if not (BUILD / "CMakeCache.txt").exists():
        pytest.skip(f"there is no build in {BUILD}")
    options = ("--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", folder)
    call(sys.executable, "-m", "pip", "wheel", *options, ROOT, **settings)
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def python(wheel: Path, folder: Path) -> Path:
    """The interpreter of an environment with the wheel, and torch from this one."""
    environment = folder / "venv"
    venv.create(environment, symlinks=True)
    interpreter = environment / "bin" / "python"
    options = ("--no-deps", "--no-index", "--no-compile")
    call(sys.executable, "-m", "pip", "--python", interpreter, "install", *options, wheel)
    (packages,) = environment.glob("lib/python*/site-packages")
    # Its .pth files are not read here: an editable lmgc_torch there stays out.
    places = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (packages / "torch_of_the_tests.pth").write_text("\n".join(places) + "\n")
    return interpreter


def test_wheel_holds_the_whole_package(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        files = set(archive.namelist())
    source = {
        str(file.relative_to(ROOT / "python"))
        for file in (ROOT / "python/lmgc_torch").rglob("*")
        if file.suffix in {".py", ".pyi", ".pt", ".typed"}
    }
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    native = {
        f"lmgc_torch/{file}"
        for file in (
            "liblmgc_ops.so",
            f"_C{suffix}",
            "include/lmgc_torch/lmgc.h",
            "share/cmake/lmgc_torch/lmgc_torchConfig.cmake",
            "share/cmake/lmgc_torch/lmgc_torchConfigVersion.cmake",
        )
    }
    about = {
        f"{NAME}.dist-info/{file}"
        for file in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt")
    }
    about.add(f"{NAME}.dist-info/licenses/LICENSE")
    assert files == source | native | about
    assert "lmgc_torch/py.typed" in files


def test_wheel_is_for_this_platform(wheel: Path):
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert wheel.name == f"{NAME}-{tag}-{tag}-{platform}.whl"


def test_wheel_works_where_it_is_installed(python: Path, tmp_path: Path):
    program = """
import torch, lmgc_torch
from lmgc_torch.__main__ import main
tensors = {"weight": torch.randn(96, 4) @ torch.randn(4, 80), "bias": torch.full((9,), -0.0)}
for method in ("auto", "planes", "lm"):
    back = lmgc_torch.decompress(lmgc_torch.compress(tensors, method=method))
    for name, tensor in tensors.items():
        assert torch.equal(back[name].view(torch.int32), tensor.view(torch.int32)), method
torch.save(tensors, "tensors.pt")
print(lmgc_torch.__file__, lmgc_torch.cmake_prefix_path, sep="\\n")
raise SystemExit(main())
"""
    module, prefix, *diagnosis = call(python, "-c", program, cwd=tmp_path).splitlines()
    environment = python.parent.parent
    assert Path(module).is_relative_to(environment)
    assert Path(prefix) == Path(module).parent / "share/cmake"
    assert any(line.startswith("C++ package") and prefix in line for line in diagnosis)
    call(python.with_name("lmgc"), "compress", "tensors.pt", cwd=tmp_path)
    assert (tmp_path / "tensors.pt.lmgc").is_file()


def test_wheel_is_found_by_cmake(python: Path, tmp_path: Path):
    (prefix,) = python.parent.parent.glob("lib/python*/site-packages/lmgc_torch/share/cmake")
    path = f"-DCMAKE_PREFIX_PATH={prefix};{torch.utils.cmake_prefix_path}"
    call("cmake", "-S", ROOT / "tests/cpp", "-B", tmp_path, path)


def test_source_distribution_is_complete(folder: Path, settings: dict[str, str]):
    program = f"from setuptools import build_meta; print(build_meta.build_sdist({str(folder)!r}))"
    call(sys.executable, "-c", program, **settings)
    with tarfile.open(folder / f"{NAME}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    unpacked = folder / NAME

    def files(root: Path) -> set[str]:
        return {str(file.relative_to(root)) for file in root.rglob("*") if file.is_file()}

    inside = files(unpacked)
    if (ROOT / ".git").exists() and shutil.which("git"):
        kept = {file for file in call("git", "ls-files").splitlines() if (ROOT / file).is_file()}
        assert kept <= inside, f"MANIFEST.in leaves out {sorted(kept - inside)}"
    assert not [f for f in inside if f.endswith(".so") or f.startswith("benchmarks/data/")]
    # CMake looks for every source that it names; compiling them all again would take minutes.
    python = f"-DPython_EXECUTABLE={sys.executable}"
    call("cmake", "-S", unpacked, "-B", folder / "configured", "-DLMGC_CUDA=OFF", python)
