// Kernels of core/digit_lane.h.
#include "core/digit_lane.h"

#include "cuda/launch.cuh"

LMGC_INSTANTIATE_LAUNCH(lmgc::EncodeDigitLane);
LMGC_INSTANTIATE_LAUNCH(lmgc::DecodeDigitLane);
