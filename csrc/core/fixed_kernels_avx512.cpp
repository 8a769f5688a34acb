// The `fixed` serializer in vectors of 512 bits: what is known of elements.
#include "core/fixed_avx512.h"

namespace lmgc {
namespace fixed_avx512 {
namespace {

// ---- bins ---------------------------------------------------------------------------------------

// By most_width - width: the first context, and how far a fraction in 32nds is shifted down.
alignas(64) constexpr std::int32_t first_contexts[32] = {
    0,  1,  2,  3,  4,  6,   8,   10,  12, 16, 20, 24, 28, 36, 44, 52,
    60, 68, 76, 84, 92, 100, 108, 116, 0,  0,  0,  0,  0,  0,  0,  0};
alignas(64) constexpr std::int32_t fraction_shifts[32] = {
    5, 5, 5, 5, 4, 4, 4, 4, 3, 3, 3, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0};

__m512i look_up(const std::int32_t (&table)[32], __m512i index) {
  return _mm512_permutex2var_epi32(_mm512_load_si512(table), index, _mm512_load_si512(table + 16));
}

// Of sixteen elements what bin_of() says.
struct Bins16 {
  __m512i scale, quantum, place, fraction, width;
};

template <bool predicted>
[[gnu::always_inline]] inline Bins16 bins_of(const FixedRun& run, int i, __mmask16 mask) {
  const __m512i finest = all(run.least - run.mantissa);
  const __m512i mantissa = all_64(run.mantissa);
  Bins16 bins;
  bins.scale = _mm512_add_epi32(
      all(run.row_scale),
      load_16_bits(mask, run.column_scales == nullptr ? nullptr : run.column_scales + i));
  bins.quantum = _mm512_max_epi32(
      _mm512_sub_epi32(_mm512_srai_epi32(bins.scale, 2), all(bins_per_scale_bits)), finest);
  bins.place = bins.fraction = all(0);
  if constexpr (predicted) {
    const __m512i exponent =
        _mm512_add_epi32(all(run.row_exponent), load_16_bits(mask, run.column_weights + i));
    __m256i quanta[2], places[2], fractions[2];
    for (int half = 0; half < 2; ++half) {
      const __m512i value = _mm512_maskz_loadu_epi64(static_cast<__mmask8>(mask >> (8 * half)),
                                                     run.product + i + 8 * half);
      const __m512i magnitude = _mm512_abs_epi64(value);
      const __m512i sign = _mm512_srai_epi64(value, 63);
      const __m512i power = signed_half(exponent, half);
      const __m512i top = _mm512_sub_epi64(all_64(63), _mm512_lzcnt_epi64(magnitude));
      const __m512i ulp = _mm512_sub_epi64(_mm512_add_epi64(top, power), mantissa);
      __m512i own = signed_half(bins.quantum, half);
      own = _mm512_mask_max_epi64(own, _mm512_test_epi64_mask(magnitude, magnitude), own, ulp);
      const __m512i up = _mm512_sub_epi64(power, own);
      const __m512i whole = shift_left_64(magnitude, up);
      const __m512i part =
          _mm512_and_si512(shift_left_64(magnitude, _mm512_add_epi64(up, all_64(5))), all_64(31));
      quanta[half] = _mm512_cvtepi64_epi32(own);
      places[half] = _mm512_cvtepi64_epi32(_mm512_xor_si512(whole, sign));
      fractions[half] =
          _mm512_cvtepi64_epi32(_mm512_xor_si512(part, _mm512_and_si512(sign, all_64(31))));
    }
    bins.quantum = _mm512_inserti64x4(_mm512_castsi256_si512(quanta[0]), quanta[1], 1);
    bins.place = _mm512_inserti64x4(_mm512_castsi256_si512(places[0]), places[1], 1);
    bins.fraction = _mm512_inserti64x4(_mm512_castsi256_si512(fractions[0]), fractions[1], 1);
  }
  bins.width = _mm512_sub_epi32(bins.scale, _mm512_slli_epi32(bins.quantum, 2));
  return bins;
}

__m512i within(__m512i value, int least, int most) {
  return _mm512_min_epi32(_mm512_max_epi32(value, all(least)), all(most));
}

template <bool predicted>
void find_bins(const FixedRun& run, FixedBins& bins) {
  for (int i = 0; i < run.count; i += 16) {
    const __mmask16 mask = lanes_from(i, run.count);
    const Bins16 own = bins_of<predicted>(run, i, mask);
    const __m512i down =
        _mm512_sub_epi32(all(most_width), within(own.width, least_width, most_width));
    __m512i context = down;
    if constexpr (predicted) {
      context = _mm512_add_epi32(look_up(first_contexts, down),
                                 _mm512_srlv_epi32(own.fraction, look_up(fraction_shifts, down)));
    }
    _mm512_mask_storeu_epi32(bins.quantum + i, mask, own.quantum);
    _mm512_mask_storeu_epi32(bins.place + i, mask, own.place);
    _mm512_mask_cvtepi32_storeu_epi8(bins.contexts + i, mask, context);
  }
}

// level_of() of sixteen predictions.
__m512i prediction_levels(const FixedRun& run, int i, __mmask16 mask, __m512i scale) {
  const __m512i exponent =
      _mm512_add_epi32(all(run.row_exponent), load_16_bits(mask, run.column_weights + i));
  __m256i levels[2];
  __mmask16 negative = 0, there = 0;
  for (int half = 0; half < 2; ++half) {
    const __m512i value = _mm512_maskz_loadu_epi64(static_cast<__mmask8>(mask >> (8 * half)),
                                                   run.product + i + 8 * half);
    const __m512i magnitude = _mm512_abs_epi64(value);
    const __m512i top = _mm512_sub_epi64(all_64(63), _mm512_lzcnt_epi64(magnitude));
    const __m512i quarters =
        _mm512_and_si512(shift_left_64(magnitude, _mm512_sub_epi64(all_64(2), top)), all_64(3));
    const __m512i octaves = _mm512_add_epi64(top, signed_half(exponent, half));
    levels[half] = _mm512_cvtepi64_epi32(_mm512_add_epi64(_mm512_slli_epi64(octaves, 2), quarters));
    negative |= static_cast<__mmask16>(_mm512_movepi64_mask(value) << (8 * half));
    there |= static_cast<__mmask16>(_mm512_test_epi64_mask(value, value) << (8 * half));
  }
  const __m512i level =
      within(_mm512_add_epi32(
                 _mm512_sub_epi32(
                     _mm512_inserti64x4(_mm512_castsi256_si512(levels[0]), levels[1], 1), scale),
                 all(24)),
             0, 63);
  return _mm512_maskz_mov_epi32(there, _mm512_mask_sub_epi32(level, negative, all(0), level));
}

template <bool predicted>
void find_known(const FixedRun& run, std::int8_t* known) {
  const __m512i byte = all(0xff);
  // Three of each four bytes, then three of each four words.
  const __m512i bytes =
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1));
  const __m512i words = _mm512_setr_epi32(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 15, 15, 15, 15);
  for (int i = 0; i < run.count; i += 16, known += 16 * 3) {
    const __mmask16 mask = lanes_from(i, run.count);
    const Bins16 own = bins_of<predicted>(run, i, mask);
    __m512i all_three = _mm512_and_si512(within(own.width, -16, 15), byte);
    if constexpr (predicted) {
      const __m512i level = _mm512_and_si512(prediction_levels(run, i, mask, own.scale), byte);
      all_three = _mm512_or_si512(all_three, _mm512_or_si512(_mm512_slli_epi32(own.fraction, 8),
                                                             _mm512_slli_epi32(level, 16)));
    }
    const int left = run.count - i;
    const std::uint64_t stored =
        left >= 16 ? (std::uint64_t{1} << 48) - 1 : (std::uint64_t{1} << (3 * left)) - 1;
    _mm512_mask_storeu_epi8(known, stored,
                            _mm512_permutexvar_epi32(words, _mm512_shuffle_epi8(all_three, bytes)));
  }
}

void find_known_of(const FixedRun& run, std::int8_t* known) {
  if (run.product == nullptr) {
    find_known<false>(run, known);
  } else {
    find_known<true>(run, known);
  }
}

void find_bins_of(const FixedRun& run, FixedBins& bins) {
  if (run.product == nullptr) {
    find_bins<false>(run, bins);
  } else {
    find_bins<true>(run, bins);
  }
}

// ---- levels -------------------------------------------------------------------------------------

// 2^exponent as power_of_two() has it.
__m512d power_of_two(__m512i exponent) {
  const __m512i clamped = _mm512_min_epi64(_mm512_max_epi64(exponent, all_64(-1022)), all_64(1023));
  return _mm512_castsi512_pd(_mm512_slli_epi64(_mm512_add_epi64(clamped, all_64(1023)), 52));
}

__m512 floats_of(__m512i words, const FixedRun& run) {
  if (run.bytes == 4) return _mm512_castsi512_ps(words);
  if (run.mantissa == 10) return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words));
  return _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
}

// Eight of the words of short floats: significands times powers of two, NaN for what is not finite.
__m512d values_of(__m512i words, int half, const FixedRun& run) {
  const __m512i word = unsigned_half(words, half);
  const __m512i magnitude = _mm512_and_si512(word, all_64((std::int64_t{1} << (run.bits - 1)) - 1));
  const __m512i field = _mm512_srl_epi64(magnitude, _mm_cvtsi32_si128(run.mantissa));
  const __m512i below = _mm512_and_si512(magnitude, all_64((std::int64_t{1} << run.mantissa) - 1));
  const __m512i significand = _mm512_mask_or_epi64(below, _mm512_test_epi64_mask(field, field),
                                                   below, all_64(std::int64_t{1} << run.mantissa));
  const __m512i exponent =
      _mm512_sub_epi64(_mm512_max_epi64(field, all_64(1)), all_64(run.bias + run.mantissa));
  const __m512i rest = _mm512_min_epi64(_mm512_add_epi64(exponent, all_64(1022)), all_64(0));
  const __m512d value = _mm512_mul_pd(
      _mm512_mul_pd(_mm512_cvtepi64_pd(significand), power_of_two(exponent)), power_of_two(rest));
  const __m512i sign = _mm512_sll_epi64(word, _mm_cvtsi32_si128(64 - run.bits));
  const __m512d turned = _mm512_castsi512_pd(
      _mm512_or_si512(_mm512_castpd_si512(value), _mm512_and_si512(sign, all_64(INT64_MIN))));
  return _mm512_mask_mov_pd(turned, _mm512_cmpeq_epi64_mask(field, all_64(run.infinite_field)),
                            _mm512_castsi512_pd(all_64(INT64_MAX)));
}

template <bool predicted>
void find_levels(const FixedRun& run, const void* words, std::int16_t* levels) {
  for (int i = 0; i < run.count; i += 16) {
    const __mmask16 mask = lanes_from(i, run.count);
    const __m512i loaded = load_words(mask, words, run.bytes, i);
    const __m512 values = run.is_short ? _mm512_setzero_ps() : floats_of(loaded, run);
    const __m512i exponent =
        predicted
            ? _mm512_add_epi32(all(run.row_exponent), load_16_bits(mask, run.column_weights + i))
            : all(0);
    for (int half = 0; half < 2; ++half) {
      const auto own = static_cast<__mmask8>(mask >> (8 * half));
      __m512d residual = run.is_short
                             ? values_of(loaded, half, run)
                             : _mm512_cvtps_pd(half == 0 ? _mm512_castps512_ps256(values)
                                                         : _mm512_extractf32x8_ps(values, 1));
      if constexpr (predicted) {
        const __m512i product = _mm512_maskz_loadu_epi64(own, run.product + i + 8 * half);
        const __m512i power = signed_half(exponent, half);
        const __m512i first =
            _mm512_srai_epi64(_mm512_add_epi64(power, _mm512_srli_epi64(power, 63)), 1);
        const __m512d scaled =
            _mm512_mul_pd(_mm512_mul_pd(_mm512_cvtepi64_pd(product), power_of_two(first)),
                          power_of_two(_mm512_sub_epi64(power, first)));
        residual = _mm512_mask_sub_pd(residual, _mm512_test_epi64_mask(product, product), residual,
                                      scaled);
      }
      const __m512i bits = _mm512_and_si512(_mm512_castpd_si512(residual), all_64(INT64_MAX));
      const __m512i level = _mm512_sub_epi64(_mm512_srli_epi64(bits, 49), all_64(1023 * 8));
      const __mmask8 none =
          static_cast<__mmask8>(_mm512_cmpeq_epi64_mask(bits, all_64(0)) |
                                _mm512_cmpge_epu64_mask(bits, all_64(std::int64_t{2047} << 52)));
      _mm512_mask_cvtepi64_storeu_epi16(levels + i + 8 * half, own,
                                        _mm512_mask_mov_epi64(level, none, all_64(no_level)));
    }
  }
}

void find_levels_of(const FixedRun& run, const void* words, std::int16_t* levels) {
  if (run.product == nullptr) {
    find_levels<false>(run, words, levels);
  } else {
    find_levels<true>(run, words, levels);
  }
}

}  // namespace
}  // namespace fixed_avx512

const FixedKernels fixed_kernels_avx512 = {
    fixed_avx512::find_bins_of,  fixed_avx512::find_levels_of, fixed_avx512::split,
    fixed_avx512::join,          fixed_avx512::row_terms,      fixed_avx512::column_terms,
    fixed_avx512::find_known_of, fixed_avx512::refer};

}  // namespace lmgc
