// The `fixed` serializer in vectors of 512 bits. Called only where the processor has AVX-512 F, BW,
// CD, DQ and VL. The formulas are those of fixed.h and residual_scales.h, without their branches:
// shifts by a count that is negative or too large give zero.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12's own header, PR 105593
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include "core/fixed_kernels.h"

#include <immintrin.h>

#include <cstring>

namespace lmgc {
namespace {

// Constants of headers that have inline functions.
constexpr int bins_per_scale_bits = 2, quarters_per_octave = 4, most_octaves = 24;
constexpr int most_width = 11, least_width = -12, most_residual = 126, symbol_origin = 129;
constexpr int symbol_zero = 1, symbol_minus_zero = 2;
constexpr int most_put_bits = 56;
constexpr std::int16_t no_level = INT16_MIN;

__m512i all(int value) { return _mm512_set1_epi32(value); }
__m512i all_64(std::int64_t value) { return _mm512_set1_epi64(value); }

__mmask16 lanes_from(int first, std::int64_t count) {
  return static_cast<__mmask16>(count - first >= 16 ? 0xffff : (1u << (count - first)) - 1);
}

__m256i half_of(__m512i lanes, int half) {
  return half == 0 ? _mm512_castsi512_si256(lanes) : _mm512_extracti64x4_epi64(lanes, 1);
}
__m512i signed_half(__m512i lanes, int half) { return _mm512_cvtepi32_epi64(half_of(lanes, half)); }
__m512i unsigned_half(__m512i lanes, int half) {
  return _mm512_cvtepu32_epi64(half_of(lanes, half));
}

__m512i load_16_bits(__mmask16 mask, const std::int16_t* from) {
  return from == nullptr ? _mm512_setzero_si512()
                         : _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(mask, from));
}

__m512i load_words(__mmask16 mask, const void* words, int bytes, int first) {
  if (bytes == 4)
    return _mm512_maskz_loadu_epi32(mask, static_cast<const std::uint32_t*>(words) + first);
  return _mm512_cvtepu16_epi32(
      _mm256_maskz_loadu_epi16(mask, static_cast<const std::uint16_t*>(words) + first));
}

// value << count, or value >> -count where that is negative.
__m512i shift_left(__m512i value, __m512i count) {
  return _mm512_or_si512(_mm512_sllv_epi32(value, count),
                         _mm512_srlv_epi32(value, _mm512_sub_epi32(all(0), count)));
}
__m512i shift_left_64(__m512i value, __m512i count) {
  return _mm512_or_si512(_mm512_sllv_epi64(value, count),
                         _mm512_srlv_epi64(value, _mm512_sub_epi64(all_64(0), count)));
}

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

// ---- symbols and tails --------------------------------------------------------------------------

void put(TailBits& tails, std::uint64_t value, std::uint64_t count) {
  tails.held |= value << tails.used;
  std::memcpy(tails.at, &tails.held, sizeof tails.held);
  tails.used += static_cast<int>(count);
  tails.at += static_cast<unsigned>(tails.used) / 8;
  tails.held >>= tails.used & ~7;
  tails.used %= 8;
}

// Joins pairs of tails that lie `distance` lanes apart, the lower one first.
template <int order>
void join(__m512i& tails, __m512i& counts) {
  tails = _mm512_or_si512(tails, _mm512_sllv_epi64(_mm512_permutex_epi64(tails, order), counts));
  counts = _mm512_add_epi64(counts, _mm512_permutex_epi64(counts, order));
}

// Appends eight tails, several at a time where they are short.
void put_eight(TailBits& out, __m512i tails, __m512i counts) {
  constexpr __mmask8 pairs = 0x55, fours = 0x11;
  const __m512i most = all_64(most_put_bits);
  int step = 1;
  __m512i joined = tails, sums = counts;
  join<0xb1>(joined, sums);
  if ((_mm512_cmpgt_epi64_mask(sums, most) & pairs) == 0) {
    step = 2;
    tails = joined;
    counts = sums;
    join<0x4e>(joined, sums);
    if ((_mm512_cmpgt_epi64_mask(sums, most) & fours) == 0) {
      step = 4;
      tails = joined;
      counts = sums;
    }
  }
  alignas(64) std::uint64_t values[8], lengths[8];
  _mm512_store_si512(values, tails);
  _mm512_store_si512(lengths, counts);
  for (int i = 0; i < 8; i += step) put(out, values[i], lengths[i]);
}

void split(const FixedRun& run, const FixedBins& bins, const void* words, std::uint8_t* symbols,
           TailBits& tails) {
  const int bits = run.bits;
  const __m512i magnitude_mask = all(static_cast<int>((std::uint32_t{1} << (bits - 1)) - 1));
  const __m512i mantissa_mask = all((1 << run.mantissa) - 1);
  const __m512i implicit = all(1 << run.mantissa);
  const __m512i least = all(run.least), one = all(1);
  const __m128i mantissa_shift = _mm_cvtsi32_si128(run.mantissa);
  for (int i = 0; i < run.count; i += 16) {
    const __mmask16 mask = lanes_from(i, run.count);
    const __m512i word = load_words(mask, words, run.bytes, i);
    const __m512i quantum = _mm512_maskz_loadu_epi32(mask, bins.quantum + i);
    const __m512i place = _mm512_maskz_loadu_epi32(mask, bins.place + i);
    const __m512i magnitude = _mm512_and_si512(word, magnitude_mask);
    const __mmask16 negative =
        _mm512_test_epi32_mask(word, all(static_cast<int>(1u << (bits - 1))));
    const __mmask16 zero = _mm512_cmpeq_epi32_mask(magnitude, all(0));
    const __m512i field = _mm512_srl_epi32(magnitude, mantissa_shift);
    const __mmask16 subnormal = _mm512_cmpeq_epi32_mask(field, all(0));
    const __mmask16 infinite = _mm512_cmpeq_epi32_mask(field, all(run.infinite_field));
    const __m512i below = _mm512_and_si512(word, mantissa_mask);
    const __m512i significand =
        _mm512_mask_or_epi32(below, static_cast<__mmask16>(~subnormal), below, implicit);
    const __m512i exponent = _mm512_sub_epi32(_mm512_max_epi32(field, one), all(run.bias));
    const __m512i down = _mm512_sub_epi32(quantum, _mm512_sub_epi32(exponent, all(run.mantissa)));
    const __m512i n = shift_left(significand, _mm512_sub_epi32(all(0), down));

    // In its bin; or next to zero, where octaves come first.
    const __mmask16 inside = _mm512_cmpgt_epi32_mask(down, all(0));
    const __mmask16 next_to_zero = _mm512_mask_cmpgt_epi32_mask(
        _mm512_mask_cmpeq_epi32_mask(inside, n, all(0)), quantum, least);
    __m512i tail = _mm512_maskz_and_epi32(inside, significand,
                                          _mm512_sub_epi32(_mm512_sllv_epi32(one, down), one));
    __m512i count = _mm512_maskz_mov_epi32(inside, down);
    const __m512i reach = _mm512_sub_epi32(quantum, least);
    __m512i octaves = _mm512_sub_epi32(_mm512_sub_epi32(quantum, one), exponent);
    octaves =
        _mm512_maskz_mov_epi32(next_to_zero, _mm512_mask_mov_epi32(octaves, subnormal, reach));
    const __mmask16 ended = _mm512_mask_cmplt_epi32_mask(
        next_to_zero, octaves, _mm512_min_epi32(reach, all(most_octaves)));
    tail = _mm512_mask_mov_epi32(tail, next_to_zero, below);
    count = _mm512_mask_mov_epi32(count, next_to_zero, all(run.mantissa));

    // Numbers beyond 2^30 are no residual away from any place.
    const __m512i bounded = _mm512_min_epu32(n, all(1 << 30));
    const __m512i own = _mm512_mask_xor_epi32(bounded, negative, bounded, all(-1));
    const __m512i residual = _mm512_sub_epi32(own, place);
    const auto whole = static_cast<__mmask16>(
        ~zero & (infinite | _mm512_cmplt_epi32_mask(down, all(-8)) |
                 _mm512_cmpgt_epi32_mask(octaves, all(most_octaves)) |
                 _mm512_cmpgt_epi32_mask(_mm512_abs_epi32(residual), all(most_residual))));
    __m512i symbol = _mm512_add_epi32(residual, all(symbol_origin));
    symbol = _mm512_mask_mov_epi32(symbol, zero, all(symbol_zero));
    symbol = _mm512_mask_mov_epi32(symbol, static_cast<__mmask16>(zero & negative),
                                   all(symbol_minus_zero));
    symbol = _mm512_mask_mov_epi32(symbol, whole, all(0));
    _mm512_mask_cvtepi32_storeu_epi8(symbols + i, mask, symbol);

    const auto plain = static_cast<__mmask16>(whole | zero);
    octaves = _mm512_mask_mov_epi32(octaves, plain, all(0));
    const __m512i prefix =
        _mm512_maskz_add_epi32(static_cast<__mmask16>(ended & ~plain), octaves, one);
    tail = _mm512_mask_mov_epi32(tail, whole, word);
    count = _mm512_mask_mov_epi32(count, whole, all(bits));
    count = _mm512_mask_mov_epi32(count, static_cast<__mmask16>(zero | ~mask), all(0));
    tail = _mm512_mask_mov_epi32(tail, static_cast<__mmask16>(zero | ~mask), all(0));
    // `prefix` is 0 where no one follows the octaves.
    for (int half = 0; half < 2; ++half) {
      const __m512i zeros = unsigned_half(octaves, half), before = unsigned_half(prefix, half);
      const __m512i length = _mm512_max_epi64(zeros, before);
      const __m512i unary =
          _mm512_maskz_sllv_epi64(_mm512_test_epi64_mask(before, before), all_64(1), zeros);
      put_eight(tails, _mm512_or_si512(unary, _mm512_sllv_epi64(unsigned_half(tail, half), length)),
                _mm512_add_epi64(unsigned_half(count, half), length));
    }
  }
}

// ---- sums of levels -----------------------------------------------------------------------------

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
void row_terms(const std::int16_t* levels, const std::int32_t* others, std::int32_t own,
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

void row_terms_of(const std::int16_t* levels, const std::int32_t* others, std::int32_t own,
                  std::int64_t count, bool refine, std::int64_t* sum, std::int64_t* counted) {
  if (refine) {
    row_terms<true>(levels, others, own, count, sum, counted);
  } else {
    row_terms<false>(levels, others, own, count, sum, counted);
  }
}

template <bool refine>
void column_terms(const std::int16_t* levels, std::int64_t stride, std::int64_t rows,
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

void column_terms_of(const std::int16_t* levels, std::int64_t stride, std::int64_t rows,
                     const std::int32_t* others, const std::int32_t* own, int columns, bool refine,
                     std::int64_t* sums, std::int64_t* counted) {
  if (refine) {
    column_terms<true>(levels, stride, rows, others, own, columns, sums, counted);
  } else {
    column_terms<false>(levels, stride, rows, others, own, columns, sums, counted);
  }
}

}  // namespace

const FixedKernels fixed_kernels_avx512 = {find_bins_of, find_levels_of,  split,
                                           row_terms_of, column_terms_of, find_known_of};

}  // namespace lmgc
