"""``python -m lmgc_torch``: a diagnosis of this installation and this machine.

It works, and explains, where the native libraries are missing or cannot be loaded.
"""

import ctypes
import os
import platform
import sys
from collections.abc import Iterator

Line = tuple[str, str]


def _library_lines() -> Iterator[Line]:
    from . import _library

    try:
        ops = _library.ops()
    except ImportError as error:
        yield "operator library", f"NOT LOADED\n{error}"
    else:
        yield "operator library", f"loaded, {_library.OPS_LIBRARY}"
        yield "operators", ", ".join(_operators()) or f"none in {ops}"
    try:
        native = _library.native()
    except ImportError as error:
        yield "python module", f"NOT LOADED\n{error}"
        return
    info = native.build_info()
    yield "python module", f"loaded, {native.__file__}"
    yield "built", f"version {info['version']}, frame format {info['format_version']}"
    yield "built for", f"torch {info['torch_version']}, {info['target']}"
    yield "built with", f"{info['compiler']}, {info['build_type']}"
    if info["cuda"]:
        yield "CUDA build", f"yes, CUDA {info['cuda_version']}, architectures {info['cuda_archs']}"
    else:
        yield "CUDA build", f"no: {info['cuda_why_not']}"
    yield "CPU features", ", ".join(native.cpu_features()) or "none that the library uses"
    if os.environ.get("LMGC_ISA"):
        yield "limited to", f"{os.environ['LMGC_ISA']}, by LMGC_ISA"


def _operators() -> list[str]:
    import torch

    names = (name for name in torch._C._dispatch_get_all_op_names() if name.startswith("lmgc::"))
    return sorted({name.removeprefix("lmgc::").split(".")[0] for name in names})


def _torch_lines() -> Iterator[Line]:
    try:
        import torch
    except ImportError as error:
        yield "torch", f"NOT LOADED\n{error}"
        return
    yield "torch", f"{torch.__version__}, {os.path.dirname(torch.__file__)}"
    if torch.version.cuda is None:
        yield "GPU", "none: torch is built without CUDA"
    elif not torch.cuda.is_available():
        yield "driver", _driver()
        yield "GPU", f"none that torch (for CUDA {torch.version.cuda}) can use"
    else:
        yield "driver", _driver()
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            memory = f"{gpu.total_memory / 2**30:.1f} GiB"
            yield f"GPU {index}", f"{gpu.name}, sm_{gpu.major}{gpu.minor}, {memory}"
    yield (
        "threads",
        f"{torch.get_num_threads()} within operators, {torch.get_num_interop_threads()} between "
        f"operators, {_usable_processors()} usable processors",
    )


def _driver() -> str:
    """Asks the NVIDIA driver itself, which answers even where no GPU can be used."""
    number = ctypes.c_int(0)
    try:
        status = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(number))
    except (OSError, AttributeError) as error:
        return f"none: {error}"
    if status != 0:
        return f"found, but it fails with status {status}"
    return f"up to CUDA {number.value // 1000}.{number.value % 1000 // 10}"


def _usable_processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _prior_lines() -> Iterator[Line]:
    from pathlib import Path

    folder = Path(__file__).resolve().parent / "priors"
    files = sorted(folder.glob("*.pt"))
    if not files:
        yield "bundled priors", f"none in {folder}"
    for file in files:
        yield "bundled prior", f"{file.name}, {file.stat().st_size:,} bytes"


def _cpp_lines() -> Iterator[Line]:
    from . import cmake_prefix_path

    config = os.path.join(cmake_prefix_path, "lmgc_torch", "lmgc_torchConfig.cmake")
    yield "C++ package", config if os.path.isfile(config) else f"none: there is no {config}"


def diagnosis() -> Iterator[Line]:
    """Yields the diagnosis as pairs of a label and a text, which may have several lines."""
    from . import __version__

    yield "lmgc_torch", f"{__version__}, {os.path.dirname(os.path.abspath(__file__))}"
    yield "python", f"{platform.python_version()}, {sys.executable}"
    yield "machine", f"{platform.system()} {platform.machine()}, {platform.platform()}"
    torch_lines = list(_torch_lines())
    yield from torch_lines
    if torch_lines[0][1].startswith("NOT LOADED"):
        yield "operator library", "NOT LOADED\nit needs torch"
    else:
        yield from _library_lines()
        yield from _cpp_lines()
    yield from _prior_lines()


def main() -> int:
    """Prints the diagnosis.

    Returns:
        0 if the operator library loads, otherwise 1.
    """
    healthy = True
    for label, text in diagnosis():
        first, *rest = text.splitlines()
        print(f"{label:<17} {first}")
        for line in rest:
            print(f"    {line}")
        healthy = healthy and not (label == "operator library" and first == "NOT LOADED")
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main())
