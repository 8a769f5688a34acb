"""Files of tensors (.safetensors, .pt) and archives of them, for the command line and others."""

from lmgc_torch.checkpoints.content import (
    PT_SUFFIXES,
    SAFETENSORS_SUFFIX,
    SUFFIX,
    SUFFIXES,
    DataError,
    NoTensorsError,
    UsageError,
)
from lmgc_torch.checkpoints.convert import (
    compress_file,
    decompress_file,
    default_format,
    raw_bytes,
    read,
    read_tensors,
    verify_file,
)

__all__ = ["read", "read_tensors", "raw_bytes", "compress_file", "verify_file"]
__all__ += ["decompress_file", "default_format"]
__all__ += ["DataError", "NoTensorsError", "UsageError"]
__all__ += ["SUFFIX", "SUFFIXES", "PT_SUFFIXES", "SAFETENSORS_SUFFIX"]
