// The definition behind launch.h, for .cu files.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <type_traits>

#include "cuda/launch.h"

namespace lmgc::cuda {

template <class Body>
__global__ void for_each(std::int64_t count, const Body body) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += stride)
    body(i);
}

template <class Body>
int launch(std::int64_t count, const Body& body, void* stream) {
  static_assert(std::is_trivially_copyable_v<Body>);
  if (count <= 0) return cudaSuccess;
  constexpr std::int64_t threads = 128;
  constexpr std::int64_t most_blocks = 1 << 16;
  const auto blocks = static_cast<unsigned>(std::min((count + threads - 1) / threads, most_blocks));
  for_each<Body><<<blocks, static_cast<unsigned>(threads), 0, static_cast<cudaStream_t>(stream)>>>(
      count, body);
  return cudaGetLastError();
}

}  // namespace lmgc::cuda

#define LMGC_INSTANTIATE_LAUNCH(Body) \
  template int lmgc::cuda::launch<Body>(std::int64_t, const Body&, void*)
