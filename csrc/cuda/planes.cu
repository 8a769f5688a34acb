// The kernels of cuda/planes_jobs.h.
#include "cuda/planes_jobs.h"

#include "cuda/launch.cuh"
#include "cuda/warp.cuh"

#define LMGC_INSTANTIATE_WIDTHS(Job)                 \
  LMGC_INSTANTIATE_LAUNCH_WARPS(lmgc::cuda::Job<1>); \
  LMGC_INSTANTIATE_LAUNCH_WARPS(lmgc::cuda::Job<2>); \
  LMGC_INSTANTIATE_LAUNCH_WARPS(lmgc::cuda::Job<4>); \
  LMGC_INSTANTIATE_LAUNCH_WARPS(lmgc::cuda::Job<8>); \
  LMGC_INSTANTIATE_LAUNCH_WARPS(lmgc::cuda::Job<16>)

LMGC_INSTANTIATE_WIDTHS(MaskChunks);
LMGC_INSTANTIATE_WIDTHS(SplitChunks);
LMGC_INSTANTIATE_WIDTHS(JoinChunks);
LMGC_INSTANTIATE_LAUNCH(lmgc::cuda::PickSums);
LMGC_INSTANTIATE_LAUNCH_WARPS(lmgc::cuda::CountChunks);
LMGC_INSTANTIATE_LAUNCH_WARPS(lmgc::cuda::SumStretches);
LMGC_INSTANTIATE_LAUNCH_WARPS(lmgc::cuda::AddUp);
