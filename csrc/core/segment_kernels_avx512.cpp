// Sums of costs from tables that lie in vectors of 512 bits. Called only where the processor has
// AVX-512 F, BW, VL and VBMI.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12's own header, PR 105593
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "core/integer_math_avx512.h"
#include "core/segment_kernels.h"

namespace lmgc {
namespace {

// The smallest of 16 sums, the first of equals.
std::uint8_t least(__m128i low, __m128i high) {
  const auto a = static_cast<unsigned>(_mm_cvtsi128_si32(_mm_minpos_epu16(low)));
  const auto b = static_cast<unsigned>(_mm_cvtsi128_si32(_mm_minpos_epu16(high)));
  return static_cast<std::uint8_t>((b & 0xFFFF) < (a & 0xFFFF) ? 8 + (b >> 16) : a >> 16);
}

// The sums of tables 4 * group to 4 * group + 3, 16 bits each: a segment's costs are at most
// 256 * 255, and so is each part of them, so that four sums share the 64 bits of a lane.
template <int vectors>
std::uint64_t four_sums(const __m512i (&symbols)[vectors], const __mmask64 (&high)[vectors],
                        bool any_high, const NameCosts& costs, int group) {
  __m512i sums = _mm512_setzero_si512();
  for (int t = 3; t >= 0; --t) {
    const std::uint8_t* const column = costs.columns[4 * group + t];
    const __m512i c0 = _mm512_load_si512(column), c1 = _mm512_load_si512(column + 64);
    __m512i sum = _mm512_setzero_si512();
    for (int v = 0; v < vectors; ++v) {
      __m512i cost = _mm512_permutex2var_epi8(c0, symbols[v], c1);
      if (any_high) {
        const __m512i upper = _mm512_permutex2var_epi8(_mm512_load_si512(column + 128), symbols[v],
                                                       _mm512_load_si512(column + 192));
        cost = _mm512_mask_blend_epi8(high[v], cost, upper);
      }
      sum = _mm512_add_epi64(sum, _mm512_sad_epu8(cost, _mm512_setzero_si512()));
    }
    sums = _mm512_add_epi64(_mm512_slli_epi64(sums, 16), sum);
  }
  return sum_of_words(sums);
}

template <int vectors>
void name(const std::uint8_t* data, std::int64_t segments, const NameCosts& costs,
          std::uint8_t* names) {
  const int groups = (costs.tables + 3) / 4;
  for (std::int64_t s = 0; s < segments; ++s, data += 64 * vectors) {
    __m512i symbols[vectors];
    __mmask64 high[vectors];
    bool any_high = false;
    for (int v = 0; v < vectors; ++v) {
      symbols[v] = _mm512_loadu_si512(data + 64 * v);
      high[v] = _mm512_movepi8_mask(symbols[v]);
      any_high |= high[v] != 0;
    }
    alignas(16) std::uint64_t sums[4] = {~0ull, ~0ull, ~0ull, ~0ull};
    for (int group = 0; group < groups; ++group) {
      sums[group] = any_high ? four_sums(symbols, high, true, costs, group)
                             : four_sums(symbols, high, false, costs, group);
    }
    names[s] = least(_mm_load_si128(reinterpret_cast<const __m128i*>(sums)),
                     _mm_load_si128(reinterpret_cast<const __m128i*>(sums + 2)));
  }
}

}  // namespace

void name_run_avx512(const std::uint8_t* data, std::int64_t segments, int length,
                     const NameCosts& costs, std::uint8_t* names) {
  if (length == 64) name<1>(data, segments, costs, names);
  if (length == 128) name<2>(data, segments, costs, names);
  if (length == 256) name<4>(data, segments, costs, names);
}

}  // namespace lmgc
