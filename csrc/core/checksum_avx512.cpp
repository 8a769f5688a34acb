// checksum_sum for processors with AVX-512DQ: eight words at a time. Compiled for them alone.
#pragma GCC diagnostic ignored "-Wuninitialized"  // in GCC 12's own header
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "core/integer_math_avx512.h"

namespace lmgc {

std::uint64_t checksum_words_avx512(const std::uint8_t* data, std::size_t words,
                                    std::uint64_t first_word) {
  constexpr std::uint64_t step = 0x9E3779B97F4A7C15u, steps = 8 * step;
  const __m512i factor = _mm512_set1_epi64(static_cast<long long>(0xD6E8FEB86659FD93u));
  const __m512i next = _mm512_set1_epi64(static_cast<long long>(steps));
  alignas(64) std::uint64_t start[8];
  for (std::uint64_t i = 0; i < 8; ++i) start[i] = (first_word + i + 1) * step;
  __m512i position = _mm512_load_si512(start);
  __m512i sum = _mm512_setzero_si512();
  for (std::size_t i = 0; i < words; i += 8) {
    __m512i x = _mm512_add_epi64(_mm512_loadu_si512(data + 8 * i), position);
    x = _mm512_xor_si512(x, _mm512_srli_epi64(x, 32));
    x = _mm512_mullo_epi64(x, factor);
    x = _mm512_xor_si512(x, _mm512_srli_epi64(x, 29));
    sum = _mm512_add_epi64(sum, x);
    position = _mm512_add_epi64(position, next);
  }
  return sum_of_words(sum);
}

}  // namespace lmgc
