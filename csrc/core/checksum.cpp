#include "core/checksum.h"

#include <cstring>

namespace lmgc {

std::uint64_t checksum_sum(const std::uint8_t* data, std::size_t size, std::uint64_t first_word) {
  std::uint64_t sum = 0;
  const std::size_t words = size / 8;
  for (std::size_t i = 0; i < words; ++i) {
    std::uint64_t word;
    std::memcpy(&word, data + 8 * i, 8);  // little-endian hosts only, asserted in bytes.h
    sum += checksum_word(word, first_word + i);
  }
  if (const std::size_t rest = size % 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, data + 8 * words, rest);
    sum += checksum_word(word, first_word + words);
  }
  return sum;
}

}  // namespace lmgc
