// Helpers for kernels written by hand, where launch.cuh's loop over an index is not enough.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace lmgc::cuda {

inline constexpr unsigned warp_size = 32;
inline constexpr unsigned whole_warp = 0xFFFFFFFFu;

// Starts `blocks` blocks of `threads` threads; nothing for no blocks.
template <class... Parameters, class... Arguments>
int start(void (*kernel)(Parameters...), std::int64_t blocks, unsigned threads, void* stream,
          const Arguments&... arguments) {
  if (blocks <= 0) return cudaSuccess;
  kernel<<<static_cast<unsigned>(blocks), threads, 0, static_cast<cudaStream_t>(stream)>>>(
      arguments...);
  return cudaGetLastError();
}

__device__ inline unsigned lane_index() { return threadIdx.x % warp_size; }

// The number of warps of the grid before this one.
__device__ inline std::int64_t warp_index() {
  return (static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / warp_size;
}

// How many lanes before this one are in `lanes`, a ballot.
__device__ inline unsigned lanes_before(unsigned lanes) {
  return static_cast<unsigned>(__popc(lanes & ((1u << lane_index()) - 1)));
}

}  // namespace lmgc::cuda
