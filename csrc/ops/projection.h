// The encoder's search for projections of factors on those of a past frame. Any arithmetic will do:
// coefficients are rounded to integers, and only those are part of a frame.
#pragma once

#include <cstdint>
#include <vector>

#include "core/projection.h"

namespace lmgc::ops {

// The projection of a factor that is estimated to save most, or none. The factor has entries alone,
// with these weights of its lines; `past` has the same lines and those that are `dead` here (empty:
// none is). In a parallel region only with a OneBlasThread.
Projection fit_projection(const Factor& factor, std::int64_t rank,
                          const std::vector<std::int16_t>& weights, const FlagRuns& dead,
                          const PastFactor& past, std::int64_t past_rank);

}  // namespace lmgc::ops
