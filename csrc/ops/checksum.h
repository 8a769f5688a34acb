// core/checksum.h for tensors, where they lie.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace lmgc::ops {

// checksum() of a contiguous tensor's bytes.
std::uint64_t checksum_of(const at::Tensor& tensor);

// The same of each tensor of a list on one device; on CUDA all at once.
std::vector<std::uint64_t> checksums_of(const std::vector<at::Tensor>& tensors);

}  // namespace lmgc::ops
