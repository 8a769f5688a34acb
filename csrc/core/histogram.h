// How often each byte occurs, and with which context.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/scratch.h"

namespace lmgc {

// Counts whose sum counts: each of four neighbours has its own, so that equal ones do not wait for
// each other's counter.
class Histogram {
 public:
  void add(const std::uint8_t* data, std::int64_t count) {
    std::int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
      std::uint64_t next;
      std::memcpy(&next, data + i, 8);
      for (int j = 0; j < 8; ++j) ++parts_[j % 4][next >> (8 * j) & 0xFF];
    }
    for (; i < count; ++i) ++parts_[0][data[i]];
  }

  // Adds the counts to `sums[0, 256)`.
  template <class Count>
  void add_to(Count* sums) const {
    for (int symbol = 0; symbol < 256; ++symbol) {
      sums[symbol] += parts_[0][symbol] + parts_[1][symbol] + parts_[2][symbol] + parts_[3][symbol];
    }
  }

 private:
  std::uint32_t parts_[4][256] = {};
};

// The same of bytes that have a context each, below `contexts`. `count`: about how many there are,
// for few are not worth four counters.
class ContextHistogram {
 public:
  ContextHistogram(std::size_t contexts, std::int64_t count)
      : parts_(count < least_for_four ? 1 : 4),
        stride_(256 * parts_ + line),
        memory_(contexts * stride_ * sizeof(std::uint32_t)),
        counts_(reinterpret_cast<std::uint32_t*>(memory_.data())) {
    std::memset(counts_, 0, contexts * stride_ * sizeof(std::uint32_t));
  }

  void add(const std::uint8_t* data, const std::uint8_t* contexts, std::int64_t count) {
    std::int64_t i = 0;
    for (; parts_ == 4 && i + 4 <= count; i += 4) {
      for (std::int64_t j = 0; j < 4; ++j)
        ++counts_[contexts[i + j] * (4 * 256 + line) + std::size_t{4} * data[i + j] + j];
    }
    for (; i < count; ++i) ++counts_[contexts[i] * stride_ + parts_ * data[i]];
  }

  // Adds the counts to `sums[0, contexts)[0, 256)`.
  template <class Sums>
  void add_to(Sums& sums) const {
    const std::uint32_t* of_context = counts_;
    for (auto& own : sums) {
      for (std::size_t symbol = 0; symbol < 256; ++symbol) {
        const std::uint32_t* const parts = of_context + parts_ * symbol;
        own[symbol] += parts_ == 1 ? parts[0] : parts[0] + parts[1] + parts[2] + parts[3];
      }
      of_context += stride_;
    }
  }

 private:
  static constexpr std::int64_t least_for_four = 1 << 15;
  // Between contexts, whose counters would else be multiples of 4 KiB apart: loads from one would
  // wait for stores to another.
  static constexpr std::size_t line = 16;
  std::size_t parts_, stride_;
  Scratch memory_;
  std::uint32_t* counts_;
};

}  // namespace lmgc
