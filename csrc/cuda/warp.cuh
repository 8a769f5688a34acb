// A warp and a block of the device for the algorithms of core/warp.h, and launch_warps() and
// launch_blocks() of launch.h.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <type_traits>

#include "core/warp.h"
#include "cuda/launch.h"

namespace lmgc::cuda {

inline constexpr unsigned whole_warp = 0xFFFFFFFFu;

__device__ inline unsigned lane_index() { return threadIdx.x % warp_lanes; }

// Its members are host functions, too, for the host's half of the templates that call them, which
// nothing runs.
class DeviceWarp {
 public:
  template <class T>
  class PerLane {
   public:
    LMGC_HD T& operator[](std::uint32_t) { return value_; }
    LMGC_HD const T& operator[](std::uint32_t) const { return value_; }

   private:
    T value_{};
  };

  template <class Body>
  LMGC_HD void each([[maybe_unused]] const Body& body) const {
#if defined(__CUDA_ARCH__)
    body(lane_index());
#endif
  }
  LMGC_HD std::uint32_t ballot([[maybe_unused]] const PerLane<bool>& flags) const {
#if defined(__CUDA_ARCH__)
    __syncwarp();  // what lanes have read, others may now overwrite
    return __ballot_sync(whole_warp, flags[0]);
#else
    return 0;
#endif
  }
  template <class T>
  LMGC_HD T value_of(const PerLane<T>& values, [[maybe_unused]] std::uint32_t lane) const {
#if defined(__CUDA_ARCH__)
    return __shfl_sync(whole_warp, values[0], static_cast<int>(lane));
#else
    return values[0];
#endif
  }
  template <class T>
  LMGC_HD T sum([[maybe_unused]] const PerLane<T>& values) const {
#if defined(__CUDA_ARCH__)
    if constexpr (std::is_same_v<T, std::uint32_t>) {
      return __reduce_add_sync(whole_warp, values[0]);
    } else {
      T own = values[0];
      for (unsigned distance = warp_lanes / 2; distance > 0; distance /= 2)
        own += __shfl_xor_sync(whole_warp, own, static_cast<int>(distance));
      return own;
    }
#else
    return values[0];
#endif
  }
  template <class T>
  LMGC_HD T sums_before([[maybe_unused]] const PerLane<T>& values,
                        [[maybe_unused]] PerLane<T>& before) const {
#if defined(__CUDA_ARCH__)
    const T own = values[0];
    T sum = own;
    for (unsigned distance = 1; distance < warp_lanes; distance *= 2) {
      const T below = __shfl_up_sync(whole_warp, sum, distance);
      if (lane_index() >= distance) sum += below;
    }
    before[0] = sum - own;
    return __shfl_sync(whole_warp, sum, static_cast<int>(warp_lanes) - 1);
#else
    return 0;
#endif
  }
  LMGC_HD void tally([[maybe_unused]] std::uint32_t* counts,
                     [[maybe_unused]] const PerLane<std::uint32_t>& keys,
                     [[maybe_unused]] const PerLane<bool>& active) const {
#if defined(__CUDA_ARCH__)
    const unsigned lanes = __ballot_sync(whole_warp, active[0]);
    if (!active[0]) return;
    // Few symbols are most of them: lanes that have the same one add it up first.
    const unsigned same = __match_any_sync(lanes, keys[0]);
    if (lanes_before(same, lane_index()) == 0)
      atomicAdd(counts + keys[0], static_cast<unsigned>(__popc(same)));
#endif
  }
  LMGC_HD static void set_bits([[maybe_unused]] std::uint32_t* word,
                               [[maybe_unused]] std::uint32_t bits) {
#if defined(__CUDA_ARCH__)
    atomicOr(word, bits);
#endif
  }
  LMGC_HD static void raise([[maybe_unused]] std::int32_t* flag) {
#if defined(__CUDA_ARCH__)
    atomicOr(flag, 1);
#endif
  }
  template <class T>
  LMGC_HD static void add([[maybe_unused]] T* sum, [[maybe_unused]] T value) {
#if defined(__CUDA_ARCH__)
    using Word = std::conditional_t<sizeof(T) == 4, unsigned, unsigned long long>;
    atomicAdd(reinterpret_cast<Word*>(sum), static_cast<Word>(value));
#endif
  }
  LMGC_HD void add_all([[maybe_unused]] std::int64_t* all,
                       [[maybe_unused]] const PerLane<std::int64_t>& values) const {
#if defined(__CUDA_ARCH__)
    const std::int64_t own = sum(values);
    if (lane_index() == 0) add(all, own);
#endif
  }
};

// The block's threads are its warps, one after the other.
class DeviceBlock {
 public:
  template <class Body>
  LMGC_HD void each_warp([[maybe_unused]] const Body& body) const {
#if defined(__CUDA_ARCH__)
    body(DeviceWarp{}, threadIdx.x / warp_lanes);
    __syncthreads();
#endif
  }
};

template <class Body>
__global__ void for_each_warp(std::int64_t count, const Body body) {
  const std::int64_t thread = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * (blockDim.x / warp_lanes);
  for (std::int64_t i = thread / warp_lanes; i < count; i += stride) body(DeviceWarp{}, i);
}

template <class Body>
int launch_warps(std::int64_t count, const Body& body, void* stream) {
  static_assert(std::is_trivially_copyable_v<Body>);
  if (count <= 0) return cudaSuccess;
  constexpr unsigned threads = 128;
  constexpr std::int64_t warps = threads / warp_lanes, most_blocks = 1 << 16;
  const auto blocks = static_cast<unsigned>(std::min((count + warps - 1) / warps, most_blocks));
  for_each_warp<Body><<<blocks, threads, 0, static_cast<cudaStream_t>(stream)>>>(count, body);
  return cudaGetLastError();
}

template <class Body>
__global__ void for_each_block(std::int64_t count, const Body body) {
  __shared__ typename Body::Shared shared;
  for (std::int64_t i = blockIdx.x; i < count; i += gridDim.x) body(DeviceBlock{}, shared, i);
}

template <class Body>
int launch_blocks(std::int64_t count, const Body& body, void* stream) {
  static_assert(std::is_trivially_copyable_v<Body> && std::is_trivial_v<typename Body::Shared>);
  if (count <= 0) return cudaSuccess;
  constexpr std::int64_t most_blocks = 1 << 16;
  for_each_block<Body>
      <<<static_cast<unsigned>(std::min(count, most_blocks)), block_warps * warp_lanes, 0,
         static_cast<cudaStream_t>(stream)>>>(count, body);
  return cudaGetLastError();
}

}  // namespace lmgc::cuda

#define LMGC_INSTANTIATE_LAUNCH_WARPS(Body) \
  template int lmgc::cuda::launch_warps<Body>(std::int64_t, const Body&, void*)
#define LMGC_INSTANTIATE_LAUNCH_BLOCKS(Body) \
  template int lmgc::cuda::launch_blocks<Body>(std::int64_t, const Body&, void*)
