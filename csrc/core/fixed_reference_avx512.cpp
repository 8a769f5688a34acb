// The `fixed` serializer in vectors of 512 bits: predictions by a reference, predict_by() of
// delta.h.
#include "core/fixed_avx512.h"

namespace lmgc::fixed_avx512 {
namespace {

constexpr int fraction_bits = 5;  // of a bin, that predictions keep

// Eight values, times powers of two, rounded down, within +-2^60.
__m512i in_units(__m512i value, __m512i exponent) {
  const __m512i most = all_64(std::int64_t{1} << 60), least = all_64(-(std::int64_t{1} << 60));
  const __m512i zero = all_64(0);
  const __mmask8 up = _mm512_cmpgt_epi64_mask(exponent, zero);
  const __m512i limit = _mm512_srlv_epi64(most, exponent);
  const __m512i larger =
      _mm512_max_epi64(_mm512_min_epi64(value, limit), _mm512_sub_epi64(zero, limit));
  __m512i result = _mm512_mask_mov_epi64(
      _mm512_srav_epi64(value, _mm512_min_epi64(_mm512_sub_epi64(zero, exponent), all_64(63))), up,
      _mm512_sllv_epi64(larger, exponent));
  // Beyond the limit, which is zero where the power is too large for any value.
  result = _mm512_mask_mov_epi64(result, up & _mm512_cmpgt_epi64_mask(value, limit), most);
  result = _mm512_mask_mov_epi64(
      result, up & _mm512_cmplt_epi64_mask(value, _mm512_sub_epi64(zero, limit)), least);
  return _mm512_max_epi64(_mm512_min_epi64(result, most), least);
}

}  // namespace

void refer(const FixedRun& run, const void* words, std::uint32_t factor, bool is_finest,
           std::int64_t* values, std::int16_t* exponents) {
  const __m512i finest = all(run.least - run.mantissa);
  const __m512i mantissa = all_64((std::int64_t{1} << run.mantissa) - 1);
  const __m512i hidden = all_64(std::int64_t{1} << run.mantissa);
  const __m512i magnitude_mask = all_64((std::int64_t{1} << (run.bits - 1)) - 1);
  const __m128i field_shift = _mm_cvtsi32_si128(run.mantissa);
  const __m128i sign_shift = _mm_cvtsi32_si128(64 - run.bits);
  for (int i = 0; i < run.count; i += 16) {
    const __mmask16 mask = lanes_from(i, run.count);
    const __m512i loaded = load_words(mask, words, run.bytes, i);
    __m512i quantum = finest;
    if (!is_finest) {
      const __m512i scale = _mm512_add_epi32(
          all(run.row_scale),
          load_16_bits(mask, run.column_scales == nullptr ? nullptr : run.column_scales + i));
      quantum = _mm512_max_epi32(
          _mm512_sub_epi32(_mm512_srai_epi32(scale, 2), all(bins_per_scale_bits)), finest);
    }
    const __m512i power =
        run.product == nullptr
            ? all(0)
            : _mm512_add_epi32(all(run.row_exponent), load_16_bits(mask, run.column_weights + i));
    for (int half = 0; half < 2; ++half) {
      const auto own = static_cast<__mmask8>(mask >> (8 * half));
      const __m512i word = unsigned_half(loaded, half);
      const __m512i magnitude = _mm512_and_si512(word, magnitude_mask);
      const __m512i field = _mm512_srl_epi64(magnitude, field_shift);
      const __m512i below = _mm512_and_si512(magnitude, mantissa);
      const __m512i significand =
          _mm512_mask_or_epi64(below, _mm512_test_epi64_mask(field, field), below, hidden);
      const __m512i ulp =
          _mm512_sub_epi64(_mm512_max_epi64(field, all_64(1)), all_64(run.bias + run.mantissa));
      const __m512i scaled = _mm512_srli_epi64(_mm512_mul_epu32(significand, all_64(factor)), 16);
      const __mmask8 negative = _mm512_movepi64_mask(_mm512_sll_epi64(word, sign_shift));
      const __m512i turned = _mm512_mask_sub_epi64(scaled, negative, all_64(0), scaled);
      const __m512i unit = _mm512_sub_epi64(_mm512_max_epi64(signed_half(quantum, half), ulp),
                                            all_64(fraction_bits));
      __m512i value = in_units(turned, _mm512_sub_epi64(ulp, unit));
      __m512i exponent = unit;
      // Infinities and NaNs predict nothing.
      const __mmask8 none = _mm512_cmpeq_epi64_mask(field, all_64(run.infinite_field));
      if (run.product != nullptr) {
        const __m512i product = _mm512_maskz_loadu_epi64(own, run.product + i + 8 * half);
        const __m512i product_power = signed_half(power, half);
        value = _mm512_add_epi64(value, in_units(product, _mm512_sub_epi64(product_power, unit)));
        value = _mm512_mask_mov_epi64(value, none, product);
        exponent = _mm512_mask_mov_epi64(exponent, none, product_power);
      } else {
        value = _mm512_mask_mov_epi64(value, none, all_64(0));
      }
      exponent = _mm512_maskz_mov_epi64(_mm512_test_epi64_mask(value, value), exponent);
      _mm512_mask_storeu_epi64(values + i + 8 * half, own, value);
      _mm512_mask_cvtepi64_storeu_epi16(exponents + i + 8 * half, own, exponent);
    }
  }
}

}  // namespace lmgc::fixed_avx512
