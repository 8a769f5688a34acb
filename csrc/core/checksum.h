// A 64-bit checksum that any number of threads can compute in any order: the sum over 8-byte words
// of a bijection of (word, position). Every change of a single word changes it; other changes
// escape with probability 2^-64. Against accidents and fuzzers, not against an adversary who can
// choose both data and checksum.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/host_device.h"

namespace lmgc {

// The contribution of the 8 little-endian bytes `word` at word position `index`.
LMGC_HD inline std::uint64_t checksum_word(std::uint64_t word, std::uint64_t index) {
  std::uint64_t x = word + (index + 1) * 0x9E3779B97F4A7C15u;
  x ^= x >> 32;
  x *= 0xD6E8FEB86659FD93u;
  x ^= x >> 29;
  return x;
}

// From the sum of all contributions (mod 2^64) and the number of bytes to the checksum.
LMGC_HD inline std::uint64_t checksum_finish(std::uint64_t sum, std::uint64_t bytes) {
  std::uint64_t x = sum ^ (bytes * 0xC2B2AE3D27D4EB4Fu);
  x ^= x >> 32;
  x *= 0xD6E8FEB86659FD93u;
  x ^= x >> 32;
  return x;
}

// The sum of contributions of `size` bytes whose first word has position `first_word`; the last
// word is padded with zeros. Sums of pieces that begin at multiples of 8 bytes add up to the sum of
// the whole.
std::uint64_t checksum_sum(const std::uint8_t* data, std::size_t size,
                           std::uint64_t first_word = 0);

inline std::uint64_t checksum(const std::uint8_t* data, std::size_t size) {
  return checksum_finish(checksum_sum(data, size), size);
}

}  // namespace lmgc
