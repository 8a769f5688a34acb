// The kernels of cuda/survey_jobs.h.
#include "cuda/survey_jobs.h"

#include "cuda/warp.cuh"

LMGC_INSTANTIATE_LAUNCH_WARPS(lmgc::cuda::SurveyBits);
LMGC_INSTANTIATE_LAUNCH_WARPS(lmgc::cuda::SurveyLines);
