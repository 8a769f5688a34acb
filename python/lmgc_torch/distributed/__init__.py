"""Compressed communication for ``torch.distributed``, without loss unless it is asked for."""

from lmgc_torch.distributed.hook import CompressedAllReduceState, compressed_allreduce_hook
from lmgc_torch.distributed.near_lossless import NearLosslessAllReduceState
from lmgc_torch.distributed.stats import CompressionStats

__all__ = ["CompressedAllReduceState", "compressed_allreduce_hook", "CompressionStats"]
__all__ += ["NearLosslessAllReduceState"]
