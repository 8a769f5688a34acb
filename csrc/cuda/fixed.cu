// The kernels of cuda/fixed_jobs.h.
#include "cuda/fixed_jobs.h"

#include "cuda/launch.cuh"
#include "cuda/warp.cuh"

LMGC_INSTANTIATE_LAUNCH_WARPS(lmgc::cuda::FindLevels);
LMGC_INSTANTIATE_LAUNCH_WARPS(lmgc::cuda::SumRows);
LMGC_INSTANTIATE_LAUNCH_WARPS(lmgc::cuda::SumColumns);
LMGC_INSTANTIATE_LAUNCH_WARPS(lmgc::cuda::SplitPieces);
LMGC_INSTANTIATE_LAUNCH_WARPS(lmgc::cuda::WriteTails);
LMGC_INSTANTIATE_LAUNCH_WARPS(lmgc::cuda::EncodeBlocks);
LMGC_INSTANTIATE_LAUNCH_WARPS(lmgc::cuda::FindContexts);
LMGC_INSTANTIATE_LAUNCH_WARPS(lmgc::cuda::DecodeBlocks);
