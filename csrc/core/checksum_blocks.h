// The checksum of a long byte string, block by block (checksum.h).
#pragma once

#include <cstdint>

#include "core/checksum.h"
#include "core/host_device.h"

namespace lmgc {

// The sum of contributions of one block of words; block sums add up (mod 2^64) in any order.
struct SumBlocks {
  static constexpr std::int64_t block_bytes = 1 << 15;
  const std::uint8_t* data;  // 8-byte aligned or not
  std::int64_t size;
  std::uint64_t* sums;  // one a block

  LMGC_HD void operator()(std::int64_t block) const {
    const std::int64_t begin = block * block_bytes;
    const std::int64_t end = begin + block_bytes < size ? begin + block_bytes : size;
#if !defined(__CUDA_ARCH__)
    sums[block] = checksum_sum(data + begin, static_cast<std::size_t>(end - begin),
                               static_cast<std::uint64_t>(begin / 8));
#else
    std::uint64_t sum = 0;
    for (std::int64_t at = begin; at < end; at += 8) {
      std::uint64_t word = 0;
      for (int i = 0; i < 8 && at + i < end; ++i)
        word |= static_cast<std::uint64_t>(data[at + i]) << (8 * i);
      sum += checksum_word(word, static_cast<std::uint64_t>(at / 8));
    }
    sums[block] = sum;
#endif
  }
};

}  // namespace lmgc
