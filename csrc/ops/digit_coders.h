// Who codes the symbols of method `lm`: the native engine on the CPU, the same on a device, or any
// prior through its TorchScript module.
#pragma once

#include <cstdint>
#include <memory>

#include "core/digit_coder.h"
#include "ops/prior.h"

namespace lmgc::ops {

// For matrices and lanes in host memory. `prior` must outlive it. memory_limit: bytes that a
// module's inputs and outputs may take at a time; batch_lanes: what a frame of a bound prior says.
// Coding raises a ValueError where a module's logits are not finite.
std::unique_ptr<DigitCoder> digit_coder(const Prior& prior, std::int64_t memory_limit,
                                        std::int64_t batch_lanes);

}  // namespace lmgc::ops
