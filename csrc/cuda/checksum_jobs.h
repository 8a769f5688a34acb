// What the device does for checksums (core/checksum.h): a function object for launch_warps(), which
// holds device pointers only. Internal to csrc/cuda and its tests.
#pragma once

#include <cstdint>

#include "core/checksum.h"
#include "core/float_format.h"
#include "core/host_device.h"
#include "core/warp.h"
#include "cuda/task_list.h"

namespace lmgc::cuda {

// Adds the contributions of byte strings up, a warp for each block of words. Sums are mod 2^64: the
// order does not matter.
struct SumBlocks {
  static constexpr std::int64_t block_words = 1 << 12;
  struct Bytes {
    const std::uint8_t* data;  // of any alignment
    std::int64_t size;
    std::uint64_t* sum;
    std::int64_t first_task = 0;

    LMGC_HD std::int64_t words() const { return (size + 7) / 8; }
    // Word i, the last one padded with zeros.
    LMGC_HD std::uint64_t word(std::int64_t i) const {
      const auto off = static_cast<int>(reinterpret_cast<std::uintptr_t>(data) % 8);
      if (off == 0 && 8 * i + 8 <= size) return load_word(data, 8, i);
      if (off != 0 && i > 0 && 8 * i + 16 <= size) {
        // Two aligned words, both within the data.
        return load_word(data - off, 8, i) >> (8 * off) | load_word(data - off, 8, i + 1)
                                                              << (64 - 8 * off);
      }
      std::uint64_t word = 0;
      for (int k = 0; k < 8 && 8 * i + k < size; ++k)
        word |= std::uint64_t{data[8 * i + k]} << (8 * k);
      return word;
    }
  };
  TaskList<Bytes> all;

  template <class Warp>
  LMGC_HD void operator()(const Warp& warp, std::int64_t task) const {
    const Bytes own = all.item_of(task);
    const std::int64_t first = (task - own.first_task) * block_words;
    const std::int64_t last = first + block_words < own.words() ? first + block_words : own.words();
    typename Warp::template PerLane<std::uint64_t> sums;
    warp.each([&](std::uint32_t lane) {
      for (std::int64_t i = first + lane; i < last; i += warp_lanes)
        sums[lane] += checksum_word(own.word(i), static_cast<std::uint64_t>(i));
    });
    const std::uint64_t sum = warp.sum(sums);
    warp.each([&](std::uint32_t lane) {
      if (lane == 0) warp.add(own.sum, sum);
    });
  }
};

}  // namespace lmgc::cuda
