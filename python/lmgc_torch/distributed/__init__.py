"""Compressed communication for ``torch.distributed``, without loss."""

from lmgc_torch.distributed.hook import CompressedAllReduceState, compressed_allreduce_hook
from lmgc_torch.distributed.stats import CompressionStats

__all__ = ["CompressedAllReduceState", "compressed_allreduce_hook", "CompressionStats"]
