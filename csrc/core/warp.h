// How an algorithm for the 32 lanes of a GPU's warp is written once and runs anywhere: as a
// template of a `Warp`, which is HostWarp here (a loop over the lanes, for tests) and DeviceWarp
// (cuda/warp.cuh) on the device. Values that differ by lane are PerLane; all others are the same in
// every lane.
//
//   each(body)            body(lane) in every lane: what lanes do on their own
//   ballot(flags)         the lanes whose flag is set, as bits
//   value_of(values, k)   lane k's value, in every lane
//   sum(values)           the sum of all lanes', in every lane
//   sums_before(v, out)   out: the sum of the lanes before each; returns the sum of all
//   tally(counts, key, active)   one more in counts[key] for every active lane
//   set_bits(word, bits), raise(flag), add(sum, value), add_all(sum, values)
//                         atomically, in memory that warps share; add_all adds those of all lanes
//
// A `Block` is block_warps warps that share a struct of the algorithm's own, `Shared`, which is not
// initialised: HostBlock here, and DeviceBlock there.
//
//   each_warp(body)       body(warp, w) in every warp, w in [0, block_warps): what warps do on
//   their
//                         own; none goes on before all are done
#pragma once

#include <bit>
#include <cstdint>

#include "core/host_device.h"

namespace lmgc {

inline constexpr std::uint32_t warp_lanes = 32;
inline constexpr std::uint32_t block_warps = 8;

LMGC_HD inline std::uint32_t count_ones(std::uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return static_cast<std::uint32_t>(__popc(bits));
#else
  return static_cast<std::uint32_t>(std::popcount(bits));
#endif
}

// Zeros below the lowest one; `bits` is not zero.
LMGC_HD inline int trailing_zeros(std::uint64_t bits) {
#if defined(__CUDA_ARCH__)
  return __ffsll(static_cast<long long>(bits)) - 1;
#else
  return std::countr_zero(bits);
#endif
}

// How many of `lanes`, a ballot, come before `lane`.
LMGC_HD inline std::uint32_t lanes_before(std::uint32_t lanes, std::uint32_t lane) {
  return count_ones(lanes & ((1u << lane) - 1));
}

class HostWarp {
 public:
  template <class T>
  class PerLane {
   public:
    T& operator[](std::uint32_t lane) { return values_[lane]; }
    const T& operator[](std::uint32_t lane) const { return values_[lane]; }

   private:
    T values_[warp_lanes] = {};
  };

  template <class Body>
  void each(const Body& body) const {
    for (std::uint32_t lane = 0; lane < warp_lanes; ++lane) body(lane);
  }
  std::uint32_t ballot(const PerLane<bool>& flags) const {
    std::uint32_t lanes = 0;
    for (std::uint32_t lane = 0; lane < warp_lanes; ++lane) lanes |= flags[lane] ? 1u << lane : 0;
    return lanes;
  }
  template <class T>
  T value_of(const PerLane<T>& values, std::uint32_t lane) const {
    return values[lane];
  }
  template <class T>
  T sum(const PerLane<T>& values) const {
    T sum = 0;
    for (std::uint32_t lane = 0; lane < warp_lanes; ++lane) sum += values[lane];
    return sum;
  }
  template <class T>
  T sums_before(const PerLane<T>& values, PerLane<T>& before) const {
    T sum = 0;
    for (std::uint32_t lane = 0; lane < warp_lanes; ++lane) {
      before[lane] = sum;
      sum += values[lane];
    }
    return sum;
  }
  void tally(std::uint32_t* counts, const PerLane<std::uint32_t>& keys,
             const PerLane<bool>& active) const {
    for (std::uint32_t lane = 0; lane < warp_lanes; ++lane) counts[keys[lane]] += active[lane];
  }
  static void set_bits(std::uint32_t* word, std::uint32_t bits) { *word |= bits; }
  static void raise(std::int32_t* flag) { *flag = 1; }
  template <class T>
  static void add(T* sum, T value) {
    *sum += value;
  }
  void add_all(std::int64_t* all, const PerLane<std::int64_t>& values) const {
    *all += sum(values);
  }
};

class HostBlock {
 public:
  // Backwards: nothing may depend on the order of warps.
  template <class Body>
  void each_warp(const Body& body) const {
    for (std::uint32_t w = block_warps; w-- > 0;) body(HostWarp(), w);
  }
};

}  // namespace lmgc
