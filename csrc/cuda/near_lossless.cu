// Kernels of core/near_lossless.h.
#include "core/near_lossless.h"

#include "cuda/launch.cuh"

LMGC_INSTANTIATE_LAUNCH(lmgc::RoundMantissas);
LMGC_INSTANTIATE_LAUNCH(lmgc::RoundToPowers);
