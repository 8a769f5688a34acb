// What csrc/cuda's launchers ask of their caller: memory, a stream, and someone to tell of errors.
// For builds with CUDA.
#pragma once

#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cuda/memory.h"

namespace lmgc::ops {

// Memory of torch's caching allocator that lives as long as this object.
class DeviceMemory {
 public:
  explicit DeviceMemory(const at::Device& device)
      : options_(at::TensorOptions().device(device).dtype(at::kByte)) {}
  cuda::Allocate allocate() {
    return [this](std::size_t bytes) {
      held_.push_back(at::empty({static_cast<std::int64_t>(bytes)}, options_));
      return held_.back().data_ptr();
    };
  }

 private:
  at::TensorOptions options_;
  std::vector<at::Tensor> held_;
};

inline void* stream_of(const at::Tensor& tensor) {
  return c10::cuda::getCurrentCUDAStream(tensor.device().index()).stream();
}

inline void check_cuda(int error) { C10_CUDA_CHECK(static_cast<cudaError_t>(error)); }

}  // namespace lmgc::ops
