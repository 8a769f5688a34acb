// Kernels of core/short_floats.h.
#include "core/short_floats.h"

#include "cuda/launch.cuh"

LMGC_INSTANTIATE_LAUNCH(lmgc::ShortenWords);
LMGC_INSTANTIATE_LAUNCH(lmgc::LengthenWords);
