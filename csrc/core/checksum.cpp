#include "core/checksum.h"

#include <cstring>

#include "core/isa.h"

namespace lmgc {

#if defined(__x86_64__)
// In checksum_avx512.cpp; `words` is a multiple of 8.
std::uint64_t checksum_words_avx512(const std::uint8_t* data, std::size_t words,
                                    std::uint64_t first_word);
#endif

namespace {

// The fastest loop that this processor has takes whole groups of 8 words; returns how many it took.
std::size_t sum_groups(const std::uint8_t* data, std::size_t words, std::uint64_t first_word,
                       std::uint64_t& sum) {
#if defined(__x86_64__)
  if (has_isa(isa_avx512f | isa_avx512dq)) {
    const std::size_t whole = words / 8 * 8;
    sum += checksum_words_avx512(data, whole, first_word);
    return whole;
  }
#endif
  (void)data, (void)words, (void)first_word, (void)sum;
  return 0;
}

}  // namespace

std::uint64_t checksum_sum(const std::uint8_t* data, std::size_t size, std::uint64_t first_word) {
  std::uint64_t sum = 0;
  const std::size_t words = size / 8;
  for (std::size_t i = sum_groups(data, words, first_word, sum); i < words; ++i) {
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
