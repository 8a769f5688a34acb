"""Finds and loads the native libraries, once, when they are first used.

Two libraries lie in the package, and a problem of one does not touch the other:

- ``liblmgc_ops.so`` registers ``torch.ops.lmgc``; it links torch and knows nothing of Python;
- ``_C.*.so`` is a small Python module with build facts; it links Python and knows nothing of torch.

Importing `lmgc_torch` tries the first and stays silent about a failure, so that
``python -m lmgc_torch`` can explain what is wrong; the first use raises it.
"""

import functools
import importlib
import os
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

PACKAGE = Path(__file__).resolve().parent
OPS_LIBRARY = PACKAGE / "liblmgc_ops.so"
CMAKE_PREFIX = PACKAGE / "share" / "cmake"

KINDS_OF_PROCESSOR = (None, "", "scalar", "avx2", "avx512")
"""What LMGC_ISA may be: the vector units that the library may use, as in csrc/core/isa.h."""

_HOW_TO_BUILD = """\
To build the native libraries, in the source tree:
    make build
or, with torch, CMake and a C++20 compiler installed already:
    pip install --no-build-isolation -e .
"python -m lmgc_torch" prints a diagnosis of this installation."""


@functools.cache
def ops() -> Any:
    """Returns ``torch.ops.lmgc``, with its library loaded.

    Raises:
        ImportError: The library is missing, was built for another torch, or cannot be loaded, or
            LMGC_ISA names no kind of processor; the message says what was looked for and what to
            do.
    """
    if not OPS_LIBRARY.is_file():
        raise ImportError(
            f"The operator library of lmgc_torch is missing: there is no {OPS_LIBRARY}\n"
            f"(native libraries found in that folder: {_found()}).\n{_HOW_TO_BUILD}",
            name="lmgc_torch",
            path=str(OPS_LIBRARY),
        )
    if os.environ.get("LMGC_ISA") not in KINDS_OF_PROCESSOR:
        legal = ", ".join(filter(None, KINDS_OF_PROCESSOR))
        raise ImportError(
            f"LMGC_ISA in the environment is {os.environ['LMGC_ISA']!r}; it must be one of "
            f"{legal}, or unset",
            name="lmgc_torch",
        )
    built_for = _torch_built_for()
    if built_for is not None and _release(built_for) != _release(torch.__version__):
        raise ImportError(
            f"{OPS_LIBRARY}\nwas built for torch {built_for}, but this is torch "
            f"{torch.__version__}, and torch's C++ interface differs from release to release.\n"
            f"{_HOW_TO_BUILD}",
            name="lmgc_torch",
            path=str(OPS_LIBRARY),
        )
    try:
        torch.ops.load_library(OPS_LIBRARY)
    except OSError as error:
        raise ImportError(
            "The operator library of lmgc_torch cannot be loaded:\n"
            f"    {error.__cause__ or error}\n"
            f"It was built for torch {built_for or 'of unknown version'}; this is torch "
            f"{torch.__version__}.\nAn undefined symbol means that the two do not fit; a shared "
            "object that cannot be opened,\nthat a library which it needs is missing.\n"
            f"{_HOW_TO_BUILD}",
            name="lmgc_torch",
            path=str(OPS_LIBRARY),
        ) from error
    try:
        importlib.import_module("lmgc_torch._fake")  # for torch.compile and meta tensors
    except RuntimeError as error:
        raise ImportError(
            f"{OPS_LIBRARY}\nis not of the same version as the Python files beside it: {error}\n"
            f"{_HOW_TO_BUILD}",
            name="lmgc_torch",
            path=str(OPS_LIBRARY),
        ) from error
    return torch.ops.lmgc


@functools.cache
def native() -> ModuleType:
    """Returns the Python module `lmgc_torch._C`.

    Raises:
        ImportError: The module is missing, was built for another Python, or cannot be loaded.
    """
    try:
        return importlib.import_module("lmgc_torch._C")
    except ImportError as error:
        raise ImportError(
            f"The module lmgc_torch._C cannot be imported:\n    {error}\n"
            f"It is looked for in {PACKAGE} (native libraries found there: {_found()}).\n"
            f"{_HOW_TO_BUILD}",
            name="lmgc_torch._C",
            path=str(PACKAGE),
        ) from error


def _found() -> str:
    return ", ".join(sorted(path.name for path in PACKAGE.glob("*.so"))) or "none"


def _torch_built_for() -> str | None:
    try:
        return str(native().build_info()["torch_version"])
    except ImportError:
        return None


def _release(version: str) -> str:
    """Returns "2.11" for "2.11.0+cu130"."""
    match = re.match(r"\d+\.\d+", version)
    return match.group() if match else version
