// The symbols of method `lm` by the native engine on a device. Only in builds with CUDA.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "core/digit_coder.h"
#include "core/digit_prior.h"

namespace lmgc::ops {

// Copies the prior; matrices and lanes lie in host memory.
std::unique_ptr<DigitCoder> device_coder(const DigitPriorView& prior, const at::Device& device);

}  // namespace lmgc::ops
