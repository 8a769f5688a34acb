"""Lossless gradient compression with learned priors, for PyTorch.

    frame = lmgc_torch.compress({"weight": gradient})
    tensors = lmgc_torch.decompress(frame)

    lmgc_torch.save_file({"weight": weight}, "model.lmgc")
    tensors = lmgc_torch.load_file("model.lmgc")

The same operators are there as ``torch.ops.lmgc`` once this is imported.
"""

import contextlib

from lmgc_torch import _library, export, near_lossless
from lmgc_torch.analyze import analyze
from lmgc_torch.api import compress, decompress, info
from lmgc_torch.archive import load, load_file, safe_open, save, save_file
from lmgc_torch.errors import (
    CommunicationError,
    CorruptArchiveError,
    CorruptFrameError,
    LmgcError,
    PastMismatchError,
    PriorMismatchError,
    ReferenceMismatchError,
    TooLargeError,
)
from lmgc_torch.frame_info import FrameInfo, TensorInfo
from lmgc_torch.past_frame import PastFrame
from lmgc_torch.prior import Prior
from lmgc_torch.serialize import deserialize, detokenize, serialize, tokenize
from lmgc_torch.warm_start import WarmStart

__version__ = "0.1.0"

cmake_prefix_path = str(_library.CMAKE_PREFIX)
"""Where CMake finds this package for C++: ``find_package(lmgc_torch)`` with it in CMAKE_PREFIX_PATH
gives the target ``lmgc_torch::lmgc_torch``; ``torch.utils.cmake_prefix_path`` is its model."""

__all__ = ["__version__", "cmake_prefix_path"]
__all__ += ["compress", "decompress", "info", "FrameInfo", "TensorInfo"]
__all__ += ["save_file", "load_file", "safe_open", "save", "load"]
__all__ += ["Prior", "WarmStart", "PastFrame", "analyze", "export", "near_lossless"]
__all__ += ["serialize", "deserialize", "tokenize", "detokenize"]
__all__ += ["LmgcError", "CorruptFrameError", "CorruptArchiveError", "TooLargeError"]
__all__ += ["PriorMismatchError", "PastMismatchError", "ReferenceMismatchError"]
__all__ += ["CommunicationError"]

# Without its native libraries the package can still be imported: the first use says what is wrong,
# and so does `python -m lmgc_torch`.
with contextlib.suppress(ImportError):
    _library.ops()
