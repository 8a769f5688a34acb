"""What archives hold, in lines and in JSON."""

import dataclasses
from typing import Any

import torch

from lmgc_torch.archive.info import ArchiveInfo


def size_line(info: ArchiveInfo) -> str:
    """Returns sizes and method in a line."""
    return f"{info.ratio:.2f} % ({info.raw_bytes:,} -> {info.bytes:,} bytes, {info.method})"


def count_of(info: ArchiveInfo) -> str:
    """Returns the number of tensors."""
    count = len(info.tensors) + len(info.views)
    return "1 tensor" if count == 1 else f"{count} tensors"


def size_keys(info: ArchiveInfo) -> dict[str, Any]:
    """Returns the sizes for JSON."""
    return {
        "tensors": len(info.tensors) + len(info.views),
        "raw_bytes": info.raw_bytes,
        "bytes": info.bytes,
        "ratio": info.ratio,
        "method": info.method,
    }


def archive_keys(info: ArchiveInfo) -> dict[str, Any]:
    """Returns all that is known of an archive, but for its tensors."""
    return {
        "version": info.version,
        "format": info.format,
        **size_keys(info),
        "frames": info.frames,
        "header_bytes": info.header_bytes,
        "index_bytes": info.index_bytes,
        "sections": info.sections,
        "spare_bits": info.spare_bits,
        "priors": list(info.priors),
        "needs_past": info.needs_past,
        "reference": reference_keys(info),
        "metadata": info.metadata,
        "identity": info.identity,
    }


def tensor_keys(info: ArchiveInfo) -> dict[str, Any]:
    """Returns what is known of an archive's tensors."""
    tensors = [
        {
            **dataclasses.asdict(tensor),
            "dtype": dtype_name(tensor.dtype),
            "ratio": tensor.ratio,
            "bits_per_element": tensor.bits_per_element,
        }
        for tensor in info.tensors
    ]
    return {"tensors": tensors, "views": info.views, "reference": reference_keys(info)}


def reference_keys(info: ArchiveInfo) -> dict[str, Any] | None:
    """Returns what an archive says of the reference that it needs; None if it needs none."""
    return None if info.reference is None else dataclasses.asdict(info.reference)


def dtype_name(dtype: torch.dtype) -> str:
    """Returns "float32" for torch.float32."""
    return str(dtype).removeprefix("torch.")
