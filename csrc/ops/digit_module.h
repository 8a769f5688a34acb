// The symbols of method `lm` through a prior's TorchScript module, lanes side by side: the slow
// way, for priors that the native engine does not know.
#pragma once

#include <cstdint>
#include <memory>

#include "core/digit_coder.h"
#include "ops/prior.h"

namespace lmgc::ops {

// As digit_coder() in digit_coders.h has it.
std::unique_ptr<DigitCoder> module_coder(const Prior& prior, std::int64_t memory_limit,
                                         std::int64_t batch_lanes);

// How many lanes a bound prior's batch holds; what the frame records of it.
std::int64_t bound_digit_lanes(const Prior& prior, std::int64_t memory_limit);

}  // namespace lmgc::ops
