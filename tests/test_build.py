"""The package as built: diagnosis, build facts, typing, and what a broken one says."""

import ast
import importlib
import importlib.metadata
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lmgc_torch
from lmgc_torch import _library

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(lmgc_torch.__file__).resolve().parent

BUILD_INFO_TYPES = {
    "version": str,
    "format_version": int,
    "torch_version": str,
    "cuda": bool,
    "cuda_why_not": str,
    "cuda_version": (str, type(None)),
    "cuda_archs": str,
    "compiler": str,
    "target": str,
    "build_type": str,
}


def diagnose(cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs the diagnosis of the package that lies in `cwd`."""
    return subprocess.run(
        [sys.executable, "-m", "lmgc_torch"], cwd=cwd, capture_output=True, text=True, timeout=300
    )


@pytest.fixture
def bare_copy(tmp_path: Path) -> Path:
    """The package's Python files alone, without native libraries."""
    shutil.copytree(
        PACKAGE, tmp_path / "lmgc_torch", ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    return tmp_path


def test_build_info_has_its_keys_and_types():
    info = _library.native().build_info()
    assert info.keys() == BUILD_INFO_TYPES.keys()
    for key, kind in BUILD_INFO_TYPES.items():
        assert isinstance(info[key], kind), key


def test_build_info_says_why_there_is_no_cuda():
    info = _library.native().build_info()
    assert info["cuda"] == (info["cuda_version"] is not None)
    assert info["cuda"] == (info["cuda_why_not"] == "")
    assert info["cuda"] == (info["cuda_archs"] != "")


def test_one_version_everywhere():
    header = (ROOT / "csrc/core/version.h").read_text()
    match = re.search(r'#define LMGC_VERSION "(.+)"', header)
    assert match is not None
    assert _library.native().build_info()["version"] == match.group(1)
    assert lmgc_torch.__version__ == match.group(1)
    assert importlib.metadata.version("lmgc_torch") == match.group(1)


def test_built_for_the_torch_that_runs():
    built_for = _library.native().build_info()["torch_version"]
    assert built_for.split(".")[:2] == torch.__version__.split(".")[:2]


def test_cpu_features_are_names():
    features = _library.native().cpu_features()
    assert all(isinstance(feature, str) for feature in features)
    assert len(set(features)) == len(features)


def test_operators_are_registered():
    assert _library.ops() is torch.ops.lmgc


def test_package_is_typed():
    assert (PACKAGE / "py.typed").is_file()


def test_stub_matches_module():
    module = _library.native()
    stub = ast.parse((PACKAGE / "_C.pyi").read_text())
    in_stub = {node.name for node in stub.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    in_module = {name for name in dir(module) if not name.startswith("_")}
    assert in_stub == in_module, "run `make stubs`"


def test_diagnosis_of_a_good_installation():
    result = diagnose(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    for label in (
        "lmgc_torch",
        "python",
        "torch",
        "GPU",
        "threads",
        "operator library",
        "python module",
        "built for",
        "CUDA build",
        "CPU features",
        "C\\+\\+ package",
        "bundled prior",
    ):
        assert re.search(rf"^{label}", result.stdout, re.MULTILINE), label
    assert "NOT LOADED" not in result.stdout
    assert result.stderr == ""


def test_diagnosis_without_native_libraries(bare_copy: Path):
    result = diagnose(bare_copy)
    assert result.returncode == 1
    assert result.stderr == ""
    assert re.search(r"^operator library +NOT LOADED", result.stdout, re.MULTILINE)
    assert re.search(r"^python module +NOT LOADED", result.stdout, re.MULTILINE)
    assert str(bare_copy / "lmgc_torch" / "liblmgc_ops.so") in result.stdout
    assert "make build" in result.stdout
    assert torch.__version__ in result.stdout


def test_diagnosis_with_a_library_that_does_not_load(bare_copy: Path):
    (bare_copy / "lmgc_torch" / "liblmgc_ops.so").write_bytes(b"\x7fELF, but no more than that")
    result = diagnose(bare_copy)
    assert result.returncode == 1
    assert re.search(r"^operator library +NOT LOADED", result.stdout, re.MULTILINE)
    assert "liblmgc_ops.so: " in result.stdout  # the loader's own words


def test_first_use_without_native_libraries_is_an_import_error(bare_copy: Path):
    program = (
        "import lmgc_torch\n"
        "from lmgc_torch import _library\n"
        "for first_use in (lambda: lmgc_torch.compress([]), _library.native):\n"
        "    try:\n"
        "        first_use()\n"
        "    except ImportError as error:\n"
        "        print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=bare_copy, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert "operator library of lmgc_torch is missing" in result.stdout
    assert "module lmgc_torch._C cannot be imported" in result.stdout
    assert result.stdout.count("pip install --no-build-isolation -e .") == 2


def test_a_library_without_the_operators_is_refused(bare_copy: Path):
    shutil.copy(_library.native().__file__, bare_copy / "lmgc_torch" / "liblmgc_ops.so")
    program = "import lmgc_torch\ntry: lmgc_torch.info(b'')\nexcept ImportError as e: print(e)"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=bare_copy, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert "is not of the same version as the Python files beside it" in result.stdout
    assert "make build" in result.stdout


def test_another_torch_release_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_library, "_torch_built_for", lambda: "2.6.0+cpu")
    monkeypatch.setattr(torch, "__version__", "2.11.0")
    _library.ops.cache_clear()
    with pytest.raises(ImportError, match=r"was built for torch 2\.6\.0\+cpu"):
        _library.ops()


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("checkpoint", "torch.distributed.checkpoint._extension"),
        ("fsdp", "torch.distributed.fsdp._fully_shard._fsdp_api"),
    ],
)
def test_a_torch_that_is_too_old_for_a_part(name: str, needs: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, needs, None)
    monkeypatch.delitem(sys.modules, f"lmgc_torch.distributed.{name}", raising=False)
    with pytest.raises(ImportError, match=rf"of torch {re.escape(torch.__version__)} .* newer"):
        importlib.import_module(f"lmgc_torch.distributed.{name}")


def test_the_emulated_device_has_every_kernel():
    """What a GPU launches, tests of the core launch as well: csrc/cuda/*.cu only name it."""

    def named(text: str, prefix: str) -> set[str]:
        names = re.findall(rf"^{prefix}\w*\((?:lmgc::)?(?:cuda::)?(\w+)\)", text, re.MULTILINE)
        return set(names) - {"Job", "Body"}

    kernels = {
        name
        for path in (ROOT / "csrc/cuda").glob("*.cu")
        for name in named(path.read_text(encoding="utf-8"), "LMGC_INSTANTIATE_")
    }
    emulated = (ROOT / "tests/core/emulated_device.cpp").read_text(encoding="utf-8")
    assert len(kernels) > 40
    assert named(emulated, "EMULATE") == kernels
