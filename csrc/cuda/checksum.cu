// The kernel of cuda/checksum_jobs.h.
#include "cuda/checksum_jobs.h"

#include "cuda/warp.cuh"

LMGC_INSTANTIATE_LAUNCH_WARPS(lmgc::cuda::SumBlocks);
