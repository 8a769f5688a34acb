// integer_math.h for vectors of 512 bits, in files that include <immintrin.h> and are compiled for
// AVX-512 F.
#pragma once

#include <cstdint>

namespace lmgc {

// Wraps around: _mm512_reduce_add_epi64 adds signed words, whose overflow is undefined.
static inline std::uint64_t sum_of_words(__m512i words) {
  const __m256i four =
      _mm256_add_epi64(_mm512_castsi512_si256(words), _mm512_extracti64x4_epi64(words, 1));
  const __m128i two =
      _mm_add_epi64(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1));
  return static_cast<std::uint64_t>(_mm_cvtsi128_si64(two)) +
         static_cast<std::uint64_t>(_mm_extract_epi64(two, 1));
}

}  // namespace lmgc
