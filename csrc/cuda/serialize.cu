// The kernels of the `ieee` serializer: core/serialize.h's function objects.

#include "core/serialize.h"

#include "cuda/launch.cuh"

LMGC_INSTANTIATE_LAUNCH(lmgc::SerializeText);
LMGC_INSTANTIATE_LAUNCH(lmgc::DeserializeText);
LMGC_INSTANTIATE_LAUNCH(lmgc::SerializeTokens);
LMGC_INSTANTIATE_LAUNCH(lmgc::DeserializeTokens16);
LMGC_INSTANTIATE_LAUNCH(lmgc::DeserializeTokens32);
LMGC_INSTANTIATE_LAUNCH(lmgc::DeserializeTokens64);
