// The kernels of cuda/entropy_jobs.h.
#include "cuda/entropy_jobs.h"

#include "cuda/launch.cuh"
#include "cuda/warp.cuh"

LMGC_INSTANTIATE_LAUNCH(lmgc::cuda::FillDecodeEntries);
LMGC_INSTANTIATE_LAUNCH_WARPS(lmgc::cuda::CopyParts);
LMGC_INSTANTIATE_LAUNCH_WARPS(lmgc::cuda::GatherUnits);
LMGC_INSTANTIATE_LAUNCH_BLOCKS(lmgc::cuda::NameSegments);
LMGC_INSTANTIATE_LAUNCH_WARPS(lmgc::cuda::EncodeStreams);
LMGC_INSTANTIATE_LAUNCH_WARPS(lmgc::cuda::DecodeStreams);
