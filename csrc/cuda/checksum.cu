// Kernels of core/checksum_blocks.h.
#include "core/checksum_blocks.h"

#include "cuda/launch.cuh"

LMGC_INSTANTIATE_LAUNCH(lmgc::SumBlocks);
