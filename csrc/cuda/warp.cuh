// A warp of the device for the algorithms of core/warp.h, and launch_warps() of launch.h.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <type_traits>

#include "core/warp.h"
#include "cuda/kernel.cuh"
#include "cuda/launch.h"

namespace lmgc::cuda {

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
  LMGC_HD std::uint32_t sums_before([[maybe_unused]] const PerLane<std::uint32_t>& values,
                                    [[maybe_unused]] PerLane<std::uint32_t>& before) const {
#if defined(__CUDA_ARCH__)
    const std::uint32_t own = values[0];
    std::uint32_t sum = own;
    for (unsigned distance = 1; distance < warp_size; distance *= 2) {
      const std::uint32_t below = __shfl_up_sync(whole_warp, sum, distance);
      if (lane_index() >= distance) sum += below;
    }
    before[0] = sum - own;
    return __shfl_sync(whole_warp, sum, static_cast<int>(warp_size) - 1);
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
    if (lmgc::lanes_before(same, lane_index()) == 0)
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
  LMGC_HD static void add([[maybe_unused]] std::int64_t* sum, [[maybe_unused]] std::int64_t value) {
#if defined(__CUDA_ARCH__)
    atomicAdd(reinterpret_cast<unsigned long long*>(sum), static_cast<unsigned long long>(value));
#endif
  }
  LMGC_HD static void add_all([[maybe_unused]] std::int64_t* sum,
                              [[maybe_unused]] const PerLane<std::int64_t>& values) {
#if defined(__CUDA_ARCH__)
    auto own = static_cast<long long>(values[0]);
    for (unsigned distance = warp_size / 2; distance > 0; distance /= 2)
      own += __shfl_xor_sync(whole_warp, own, static_cast<int>(distance));
    if (lane_index() == 0) add(sum, own);
#endif
  }
};

template <class Body>
__global__ void for_each_warp(std::int64_t count, const Body body) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * (blockDim.x / warp_size);
  for (std::int64_t i = warp_index(); i < count; i += stride) body(DeviceWarp{}, i);
}

template <class Body>
int launch_warps(std::int64_t count, const Body& body, void* stream) {
  static_assert(std::is_trivially_copyable_v<Body>);
  constexpr unsigned threads = 128;
  constexpr std::int64_t warps = threads / warp_size, most_blocks = 1 << 16;
  return start(for_each_warp<Body>, std::min((count + warps - 1) / warps, most_blocks), threads,
               stream, count, body);
}

}  // namespace lmgc::cuda

#define LMGC_INSTANTIATE_LAUNCH_WARPS(Body) \
  template int lmgc::cuda::launch_warps<Body>(std::int64_t, const Body&, void*)
