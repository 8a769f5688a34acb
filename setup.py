"""Builds the native libraries with CMake; everything else is in pyproject.toml.

Why torch is not a build requirement: operators are compiled against the headers of one torch and
must be loaded into that same torch. Under build isolation pip would download a second torch
(several GB) into a temporary environment, maybe another version or another CUDA, and the result
would not load. So torch must be installed first, where the build sees it:

    pip install "torch==2.11.0" "setuptools>=77,<82" wheel
    pip install --no-build-isolation -e .

Environment:
    CMAKE_ARGS                  more arguments for cmake to configure with, e.g. "-DLMGC_CUDA=OFF"
    CMAKE_BUILD_PARALLEL_LEVEL  number of compile jobs (default: all processors)
    LMGC_BUILD_DIR              build directory (default: build; an existing one keeps its options)
"""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


class CMakeBuild(build_ext):
    """Configures, builds and installs the CMake component "python" into the package."""

    def run(self) -> None:
        """Runs CMake instead of compiling `self.extensions` one by one."""
        try:
            import torch  # noqa: F401
        except ImportError as error:
            raise SystemExit(
                "lmgc_torch is compiled against the installed torch, which cannot be imported:\n"
                f"    {error}\n"
                "Install torch first and switch build isolation off:\n"
                '    pip install "torch==2.11.0" "setuptools>=77,<82" wheel\n'
                "    pip install --no-build-isolation -e ."
            ) from error
        cmake = shutil.which("cmake")
        if cmake is None:
            raise SystemExit("cmake is not on PATH: apt-get install cmake, or pip install cmake.")

        build = Path(os.environ.get("LMGC_BUILD_DIR", ROOT / "build")).resolve()
        configure = [cmake, "-S", str(ROOT), "-B", str(build)]
        configure.append(f"-DPython_EXECUTABLE={sys.executable}")
        if not (build / "CMakeCache.txt").exists():
            configure.append("-DBUILD_TESTING=OFF")
            if shutil.which("ninja"):
                configure += ["-G", "Ninja"]
        configure += shlex.split(os.environ.get("CMAKE_ARGS", ""))
        jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(os.cpu_count() or 1)
        in_place = self.inplace or self.editable_mode
        package = (ROOT / "python" if in_place else Path(self.build_lib).resolve()) / "lmgc_torch"

        self._call(*configure)
        self._call(cmake, "--build", str(build), "--parallel", jobs)
        install = [cmake, "--install", str(build), "--component", "python"]
        self._call(*install, "--prefix", str(package))

    def get_outputs(self) -> list[str]:
        """The installed libraries lie in the package already; setuptools need not look for them."""
        return []

    def get_output_mapping(self) -> dict[str, str]:
        """Nothing is left for an editable install to link or copy."""
        return {}

    @staticmethod
    def _call(*command: str) -> None:
        print("+", shlex.join(command), flush=True)
        if status := subprocess.run(command).returncode:
            raise SystemExit(f"lmgc_torch: status {status} from: {shlex.join(command)}")


setup(
    # A name without sources: it makes the wheel a platform wheel and runs build_ext.
    ext_modules=[Extension("lmgc_torch._C", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
