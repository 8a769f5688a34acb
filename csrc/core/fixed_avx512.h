// What the files of the `fixed` serializer's vectors of 512 bits share. They are called only where
// the processor has AVX-512 F, BW, CD, DQ and VL. The formulas are those of fixed.h and
// residual_scales.h, without their branches: shifts by a count that is negative or too large give
// zero.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12's own header, PR 105593
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <cstdint>

#include "core/fixed_kernels.h"

namespace lmgc::fixed_avx512 {

// FixedKernels' functions of the other files.
void split(const FixedRun& run, const FixedBins& bins, const void* words, std::uint8_t* symbols,
           TailBits& tails);
int join(const FixedRun& run, const FixedBins& bins, const std::uint8_t* symbols, TailSource& tails,
         void* words);
void refer(const FixedRun& run, const void* words, std::uint32_t factor, bool is_finest,
           std::int64_t* values, std::int16_t* exponents);
void row_terms(const std::int16_t* levels, const std::int32_t* others, std::int32_t own,
               std::int64_t count, bool refine, std::int64_t* sum, std::int64_t* counted);
void column_terms(const std::int16_t* levels, std::int64_t stride, std::int64_t rows,
                  const std::int32_t* others, const std::int32_t* own, int columns, bool refine,
                  std::int64_t* sums, std::int64_t* counted);

// Constants of headers that have inline functions.
inline constexpr int bins_per_scale_bits = 2, quarters_per_octave = 4, most_octaves = 24;
inline constexpr int most_width = 11, least_width = -12, most_residual = 126, symbol_origin = 129;
inline constexpr int symbol_zero = 1, symbol_minus_zero = 2;
inline constexpr int most_put_bits = 56;
inline constexpr std::int16_t no_level = INT16_MIN;

static inline __m512i all(int value) { return _mm512_set1_epi32(value); }
static inline __m512i all_64(std::int64_t value) { return _mm512_set1_epi64(value); }

static inline __mmask16 lanes_from(int first, std::int64_t count) {
  return static_cast<__mmask16>(count - first >= 16 ? 0xffff : (1u << (count - first)) - 1);
}

static inline __m256i half_of(__m512i lanes, int half) {
  return half == 0 ? _mm512_castsi512_si256(lanes) : _mm512_extracti64x4_epi64(lanes, 1);
}
static inline __m512i signed_half(__m512i lanes, int half) {
  return _mm512_cvtepi32_epi64(half_of(lanes, half));
}
static inline __m512i unsigned_half(__m512i lanes, int half) {
  return _mm512_cvtepu32_epi64(half_of(lanes, half));
}

static inline __m512i load_16_bits(__mmask16 mask, const std::int16_t* from) {
  return from == nullptr ? _mm512_setzero_si512()
                         : _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(mask, from));
}

static inline __m512i load_words(__mmask16 mask, const void* words, int bytes, int first) {
  if (bytes == 4)
    return _mm512_maskz_loadu_epi32(mask, static_cast<const std::uint32_t*>(words) + first);
  return _mm512_cvtepu16_epi32(
      _mm256_maskz_loadu_epi16(mask, static_cast<const std::uint16_t*>(words) + first));
}

// value << count, or value >> -count where that is negative.
static inline __m512i shift_left(__m512i value, __m512i count) {
  return _mm512_or_si512(_mm512_sllv_epi32(value, count),
                         _mm512_srlv_epi32(value, _mm512_sub_epi32(all(0), count)));
}
static inline __m512i shift_left_64(__m512i value, __m512i count) {
  return _mm512_or_si512(_mm512_sllv_epi64(value, count),
                         _mm512_srlv_epi64(value, _mm512_sub_epi64(all_64(0), count)));
}

}  // namespace lmgc::fixed_avx512
