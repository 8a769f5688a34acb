// core/checksum.h for tensors, where they lie.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace lmgc::ops {

// checksum() of a contiguous tensor's bytes.
std::uint64_t checksum_of(const at::Tensor& tensor);

}  // namespace lmgc::ops
