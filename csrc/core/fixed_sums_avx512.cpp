// The `fixed` serializer in vectors of 512 bits: sums of levels, for residual_scales().
#include "core/fixed_avx512.h"

namespace lmgc::fixed_avx512 {

namespace {

// 64-bit sums of the lanes of 32 bits, the even ones and the odd ones.
struct WideSums {
  __m512i even = _mm512_setzero_si512(), odd = _mm512_setzero_si512();

  void add_signed(__m512i terms) {
    even = _mm512_add_epi64(even, _mm512_srai_epi64(_mm512_slli_epi64(terms, 32), 32));
    odd = _mm512_add_epi64(odd, _mm512_srai_epi64(terms, 32));
  }
  void add_unsigned(__m512i terms) {
    even = _mm512_add_epi64(even, _mm512_and_si512(terms, all_64(UINT32_MAX)));
    odd = _mm512_add_epi64(odd, _mm512_srli_epi64(terms, 32));
  }
};

// energy(), of up to 32 bits.
__m512i energies(__m512i level) {
  const __m512i clamped = _mm512_min_epi32(_mm512_max_epi32(level, all(-64)), all(64));
  const __m512i quarters = _mm512_set4_epi32(110218, 92682, 77936, 65536);
  const __m512i energy =
      shift_left(_mm512_permutexvar_epi32(_mm512_and_si512(clamped, all(3)), quarters),
                 _mm512_srai_epi32(clamped, 2));
  return _mm512_mask_mov_epi32(energy, _mm512_cmpeq_epi32_mask(clamped, all(64)), all(-1));
}

// The terms of 16 levels; zeros where there is none.
template <bool refine>
void add_terms(__mmask16 mask, __m512i level, __m512i other, __m512i own, WideSums& sums) {
  const __m512i rest = _mm512_sub_epi32(level, other);
  if constexpr (refine) {
    sums.add_unsigned(_mm512_maskz_mov_epi32(mask, energies(_mm512_sub_epi32(rest, own))));
  } else {
    sums.add_signed(_mm512_maskz_mov_epi32(mask, rest));
  }
}

__mmask16 with_level(__mmask16 mask, __m512i level) {
  return _mm512_mask_cmpneq_epi32_mask(mask, level, all(no_level));
}

template <bool refine>
void sum_row(const std::int16_t* levels, const std::int32_t* others, std::int32_t own,
             std::int64_t count, std::int64_t* sum, std::int64_t* counted) {
  WideSums sums;
  for (std::int64_t i = 0; i < count; i += 16) {
    const __mmask16 lanes = lanes_from(0, count - i);
    const __m512i level = load_16_bits(lanes, levels + i);
    const __mmask16 mask = with_level(lanes, level);
    const __m512i other = others == nullptr ? all(0) : _mm512_maskz_loadu_epi32(lanes, others + i);
    add_terms<refine>(mask, level, other, all(own), sums);
    *counted += __builtin_popcount(mask);
  }
  *sum += _mm512_reduce_add_epi64(_mm512_add_epi64(sums.even, sums.odd));
}

}  // namespace

void row_terms(const std::int16_t* levels, const std::int32_t* others, std::int32_t own,
               std::int64_t count, bool refine, std::int64_t* sum, std::int64_t* counted) {
  if (refine) {
    sum_row<true>(levels, others, own, count, sum, counted);
  } else {
    sum_row<false>(levels, others, own, count, sum, counted);
  }
}

namespace {

template <bool refine>
void sum_columns(const std::int16_t* levels, std::int64_t stride, std::int64_t rows,
                 const std::int32_t* others, const std::int32_t* own, int columns,
                 std::int64_t* sums, std::int64_t* counted) {
  constexpr int groups = 2;
  WideSums wide[groups];
  __m512i counts[groups], owns[groups];
  __mmask16 lanes[groups];
  for (int g = 0; g < groups; ++g) {
    counts[g] = all(0);
    lanes[g] = columns > 16 * g ? lanes_from(16 * g, columns) : static_cast<__mmask16>(0);
    owns[g] = _mm512_maskz_loadu_epi32(lanes[g], own + 16 * g);
  }
  for (std::int64_t row = 0; row < rows; ++row) {
    const __m512i other = all(others[row]);
    for (int g = 0; g < groups; ++g) {
      const __m512i level = load_16_bits(lanes[g], levels + row * stride + 16 * g);
      const __mmask16 mask = with_level(lanes[g], level);
      add_terms<refine>(mask, level, other, owns[g], wide[g]);
      counts[g] = _mm512_mask_add_epi32(counts[g], mask, counts[g], all(1));
    }
  }
  for (int g = 0; g < groups; ++g) {
    alignas(64) std::int64_t even[8], odd[8];
    alignas(64) std::int32_t count[16];
    _mm512_store_si512(even, wide[g].even);
    _mm512_store_si512(odd, wide[g].odd);
    _mm512_store_si512(count, counts[g]);
    for (int c = 16 * g; c < columns && c < 16 * (g + 1); ++c) {
      sums[c] += c % 2 == 0 ? even[c % 16 / 2] : odd[c % 16 / 2];
      counted[c] += count[c % 16];
    }
  }
}

}  // namespace

void column_terms(const std::int16_t* levels, std::int64_t stride, std::int64_t rows,
                  const std::int32_t* others, const std::int32_t* own, int columns, bool refine,
                  std::int64_t* sums, std::int64_t* counted) {
  if (refine) {
    sum_columns<true>(levels, stride, rows, others, own, columns, sums, counted);
  } else {
    sum_columns<false>(levels, stride, rows, others, own, columns, sums, counted);
  }
}

}  // namespace lmgc::fixed_avx512
