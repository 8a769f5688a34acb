// How often each byte occurs.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

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

}  // namespace lmgc
