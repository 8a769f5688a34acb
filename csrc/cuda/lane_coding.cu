// Kernels of core/lane_coding.h and core/lane_tails.h.
#include "core/lane_coding.h"

#include "core/lane_tails.h"
#include "cuda/launch.cuh"

LMGC_INSTANTIATE_LAUNCH(lmgc::CountSymbols);
LMGC_INSTANTIATE_LAUNCH(lmgc::CountZeros);
LMGC_INSTANTIATE_LAUNCH(lmgc::PrepareWindows);
LMGC_INSTANTIATE_LAUNCH(lmgc::CodeWindows);
LMGC_INSTANTIATE_LAUNCH(lmgc::EncodeLanes);
LMGC_INSTANTIATE_LAUNCH(lmgc::CopyLanes);
LMGC_INSTANTIATE_LAUNCH(lmgc::MeasureTails);
LMGC_INSTANTIATE_LAUNCH(lmgc::PackTails);
LMGC_INSTANTIATE_LAUNCH(lmgc::UnpackTails);
LMGC_INSTANTIATE_LAUNCH(lmgc::StartLanes);
LMGC_INSTANTIATE_LAUNCH(lmgc::StepFeatures);
LMGC_INSTANTIATE_LAUNCH(lmgc::StepRecall);
LMGC_INSTANTIATE_LAUNCH(lmgc::StepDecode);
LMGC_INSTANTIATE_LAUNCH(lmgc::StepEncode);
