// One step of 8 lanes of rANS in a vector of 256 bits, for the sources compiled for AVX2. The
// functions are static, so that no other source is linked to a copy from there.
#pragma once

#include <immintrin.h>

#include "core/rans.h"

namespace lmgc::rans {

// For each set of lanes, which word each of its lanes takes: its rank among them, a byte a lane.
struct Ranks {
  alignas(8) std::uint8_t rank[256][8] = {};
  constexpr Ranks() {
    for (int lanes = 0; lanes < 256; ++lanes) {
      for (int lane = 0, next = 0; lane < 8; ++lane) {
        rank[lanes][lane] = static_cast<std::uint8_t>(next);
        next += lanes >> lane & 1;
      }
    }
  }
};
static constexpr Ranks ranks;

// The states whose entries are `entry` after their symbols are taken out; moves `from` behind the
// words that were read. 16 bytes from there on are readable.
static inline __m256i get_8(__m256i state, __m256i entry, const std::uint8_t*& from) {
  const __m256i high = _mm256_srli_epi32(state, probability_bits);
  const __m256i less_one =
      _mm256_and_si256(_mm256_srli_epi32(entry, 8), _mm256_set1_epi32(probability_one - 1));
  const __m256i rest = _mm256_add_epi32(_mm256_add_epi32(_mm256_mullo_epi32(less_one, high), high),
                                        _mm256_srli_epi32(entry, 20));
  const __m256i more =
      _mm256_cmpgt_epi32(_mm256_set1_epi32(lower_bound), rest);  // states are below 2^31
  const int lanes = _mm256_movemask_ps(_mm256_castsi256_ps(more));
  const __m256i words =
      _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  const __m256i rank =
      _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(ranks.rank[lanes])));
  const __m256i received =
      _mm256_or_si256(_mm256_slli_epi32(rest, word_bits), _mm256_permutevar8x32_epi32(words, rank));
  from += 2 * __builtin_popcount(static_cast<unsigned>(lanes));
  return _mm256_blendv_epi8(rest, received, more);
}

// Stores the symbols of 32 entries.
static inline void store_symbols(const __m256i (&entries)[4], std::uint8_t* symbols) {
  __m256i bytes[4];
  for (int v = 0; v < 4; ++v) bytes[v] = _mm256_and_si256(entries[v], _mm256_set1_epi32(0xFF));
  // 4 vectors of 32-bit numbers below 256 to one of bytes; packing works within halves
  const __m256i low = _mm256_packus_epi32(bytes[0], bytes[1]);
  const __m256i high = _mm256_packus_epi32(bytes[2], bytes[3]);
  const __m256i mixed = _mm256_packus_epi16(low, high);
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(symbols),
                      _mm256_permutevar8x32_epi32(mixed, order));
}

}  // namespace lmgc::rans
