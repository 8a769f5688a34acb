// Kernels of core/predict.h.
#include "core/predict.h"

#include "cuda/launch.cuh"

LMGC_INSTANTIATE_LAUNCH(lmgc::SumLevels);
LMGC_INSTANTIATE_LAUNCH(lmgc::FeaturesOfTensor);
