// 8 lanes of rANS in a vector of 256 bits. Called only where the processor has AVX2.
#include <immintrin.h>

#include "core/rans_runs.h"

namespace lmgc::rans {
namespace {

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
constexpr Ranks ranks;

}  // namespace

std::uint32_t decode_run_avx2(std::uint8_t* symbols, std::uint32_t steps,
                              const DecodeEntry* entries, std::uint32_t* states,
                              const std::uint8_t** at, const std::uint8_t* end) {
  constexpr int vectors = most_lanes / 8;
  const __m256i slots = _mm256_set1_epi32(probability_one - 1);
  const __m256i bound = _mm256_set1_epi32(lower_bound);
  const __m256i low_byte = _mm256_set1_epi32(0xFF);
  const auto* const table = reinterpret_cast<const int*>(entries);
  __m256i state[vectors];
  for (int v = 0; v < vectors; ++v) {
    state[v] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(states + 8 * v));
  }
  const std::uint8_t* from = *at;
  std::uint32_t step = 0;
  for (; step < steps && end - from >= most_read(most_lanes); ++step) {
    __m256i bytes[vectors];
    for (int v = 0; v < vectors; ++v) {
      const __m256i x = state[v];
      const __m256i entry = _mm256_i32gather_epi32(table, _mm256_and_si256(x, slots), 4);
      bytes[v] = _mm256_and_si256(entry, low_byte);
      const __m256i high = _mm256_srli_epi32(x, probability_bits);
      const __m256i less_one = _mm256_and_si256(_mm256_srli_epi32(entry, 8), slots);
      const __m256i rest = _mm256_add_epi32(
          _mm256_add_epi32(_mm256_mullo_epi32(less_one, high), high), _mm256_srli_epi32(entry, 20));
      const __m256i more = _mm256_cmpgt_epi32(bound, rest);  // states are below 2^31
      const int lanes = _mm256_movemask_ps(_mm256_castsi256_ps(more));
      const __m256i words =
          _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
      const __m256i rank = _mm256_cvtepu8_epi32(
          _mm_loadl_epi64(reinterpret_cast<const __m128i*>(ranks.rank[lanes])));
      const __m256i received = _mm256_or_si256(_mm256_slli_epi32(rest, word_bits),
                                               _mm256_permutevar8x32_epi32(words, rank));
      state[v] = _mm256_blendv_epi8(rest, received, more);
      from += 2 * __builtin_popcount(static_cast<unsigned>(lanes));
    }
    // 4 vectors of 32-bit numbers below 256 to one of bytes; packing works within halves
    const __m256i low = _mm256_packus_epi32(bytes[0], bytes[1]);
    const __m256i high = _mm256_packus_epi32(bytes[2], bytes[3]);
    const __m256i mixed = _mm256_packus_epi16(low, high);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(symbols + 32 * step),
                        _mm256_permutevar8x32_epi32(mixed, order));
  }
  for (int v = 0; v < vectors; ++v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(states + 8 * v), state[v]);
  }
  *at = from;
  return step;
}

}  // namespace lmgc::rans
