// Called only where the processor has AVX-512 F, BW, DQ, VL and VNNI.
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12's own header, PR 105593
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include "core/digit_kernels.h"

namespace lmgc {
namespace {

// Sixteen slots' bytes, four inputs of each in a word: [words][16].
using Words = __m512i;

// Columns of a 16 x 16 matrix of words whose rows are given: row[i] of word k -> row[k] of word i.
[[gnu::always_inline]] inline void transpose(Words (&row)[16]) {
  Words pairs[16];
  for (int i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_epi32(row[i], row[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_epi32(row[i], row[i + 1]);
  }
  // fours[4 g + k]: words 4 j + k of rows 4 g to 4 g + 3, in the register's quarter j.
  Words fours[16];
  for (int i = 0; i < 16; i += 4) {
    fours[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
    fours[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
    fours[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
    fours[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
  }
  for (int k = 0; k < 4; ++k) {
    const Words low01 = _mm512_shuffle_i32x4(fours[k], fours[k + 4], 0x44),
                high01 = _mm512_shuffle_i32x4(fours[k], fours[k + 4], 0xEE),
                low23 = _mm512_shuffle_i32x4(fours[k + 8], fours[k + 12], 0x44),
                high23 = _mm512_shuffle_i32x4(fours[k + 8], fours[k + 12], 0xEE);
    row[k] = _mm512_shuffle_i32x4(low01, low23, 0x88);
    row[k + 4] = _mm512_shuffle_i32x4(low01, low23, 0xDD);
    row[k + 8] = _mm512_shuffle_i32x4(high01, high23, 0x88);
    row[k + 12] = _mm512_shuffle_i32x4(high01, high23, 0xDD);
  }
}

// The sums of `count` outputs, from the first of sixteen on: their number hides the latency of each.
template <int count>
[[gnu::always_inline]] inline void sums_of(const std::int32_t* bias, const std::int32_t* words,
                                           int row, const Words* in, Words (&sum)[count]) {
  for (int i = 0; i < count; ++i) sum[i] = _mm512_set1_epi32(bias[i]);
  for (int w = 0; w < row; ++w, words += outputs_together) {
    const Words four = in[w];
#pragma GCC unroll 16
    for (int i = 0; i < count; ++i)
      asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum[i]) : "v"(four), "m"(words[i]));
  }
}

// out: words of four outputs, limited to 0..127.
void hidden_layer(const LayerView& layer, const std::int32_t* bias, const Words* in, Words* out) {
  const int row = layer.inputs / 4;
  const Words zero = _mm512_setzero_si512(), most = _mm512_set1_epi32(127);
  for (int o = 0; o < layer.outputs; o += outputs_together) {
    Words sum[outputs_together];
    sums_of(bias + o, layer.words + o * row, row, in, sum);
    for (int i = 0; i < outputs_together; i += 4) {
      Words packed = zero;
      for (int k = 3; k >= 0; --k) {
        const __m128i shift = _mm_cvtsi32_si128(layer.shift[o + i + k]);
        const Words y =
            _mm512_min_epi32(_mm512_max_epi32(_mm512_sra_epi32(sum[i + k], shift), zero), most);
        packed = _mm512_or_si512(_mm512_slli_epi32(packed, 8), y);
      }
      *out++ = packed;
    }
  }
}

void weights_avx512(const DigitPriorView& prior, const std::int8_t* inputs, SlotWeights& weights) {
  Words x[digit_slots], hidden1[most_hidden / 4], hidden2[most_hidden / 4];
  const Words flip = _mm512_set1_epi32(static_cast<int>(0x80808080u));
  for (int slot = 0; slot < digit_slots; ++slot) {
    x[slot] = _mm512_xor_si512(_mm512_load_si512(inputs + slot * input_stride), flip);
  }
  transpose(x);
  hidden_layer(prior.layer[0], prior.layer[0].bias_of_unsigned, x, hidden1);
  hidden_layer(prior.layer[1], prior.layer[1].bias, hidden1, hidden2);

  const LayerView& head = prior.layer[2];
  Words score[prior_scores];
  sums_of(head.bias, head.words, head.inputs / 4, hidden2, score);
  Words best = _mm512_set1_epi32(INT32_MIN);
  for (int k = 0; k < prior_scores; ++k) {
    score[k] = _mm512_sra_epi32(score[k], _mm_cvtsi32_si128(head.shift[k]));
    best = _mm512_max_epi32(best, score[k]);
  }
  const Words reach = _mm512_set1_epi32(score_reach), one_octave = _mm512_set1_epi32(32);
  for (int k = 0; k < prior_scores; ++k) {
    const Words u = _mm512_sub_epi32(reach, _mm512_sub_epi32(best, score[k]));
    const Words line = _mm512_add_epi32(_mm512_and_si512(u, _mm512_set1_epi32(31)), one_octave);
    score[k] = _mm512_maskz_srli_epi32(_mm512_cmpgt_epi32_mask(u, _mm512_setzero_si512()),
                                       _mm512_sllv_epi32(line, _mm512_srli_epi32(u, 5)), 5);
  }
  // Pairs of 16 bits, as the tables have them: [pairs][slots].
  for (int pair = 0; pair < prior_scores / 2; ++pair) {
    _mm512_store_si512(
        weights.of + pair * digit_slots,
        _mm512_or_si512(score[2 * pair], _mm512_slli_epi32(score[2 * pair + 1], 16)));
  }
}

// 16 count_log2() + `low`, from counts of 2^8 times as much; 0 <= low < 16. The products of 16 bits:
// fraction * fraction below 2^13 each, and what is below 2^16 times what is.
Words log2_of(Words counts, int low) {
  const Words value =
      _mm512_add_epi32(_mm512_srli_epi32(counts, 8), _mm512_set1_epi32(1));  // below 2^24
  const Words bits = _mm512_srli_epi32(_mm512_castps_si512(_mm512_cvtepi32_ps(value)), 11);
  const Words fraction = _mm512_and_si512(bits, _mm512_set1_epi32(4095));
  const Words parabola = _mm512_srli_epi32(
      _mm512_madd_epi16(fraction, _mm512_sub_epi32(_mm512_set1_epi32(4096), fraction)), 6);
  // 2^16 at the top of the parabola, where one less makes no difference.
  const Words limited = _mm512_min_epi32(parabola, _mm512_set1_epi32(65535));
  const Words factor = _mm512_sub_epi32(
      _mm512_set1_epi32(6895), _mm512_mulhi_epu16(fraction, _mm512_set1_epi32(2562 << 4)));
  const Words bend = _mm512_srli_epi32(_mm512_mulhi_epu16(limited, factor), 4);
  const Words sum =
      _mm512_add_epi32(_mm512_add_epi32(bits, bend), _mm512_set1_epi32(8 - (127 << 12)));
  // (sum & -16) | low
  return _mm512_ternarylogic_epi32(sum, _mm512_set1_epi32(-16), _mm512_set1_epi32(low), 0xEA);
}

// host_exp2_table.step[steps % 256]: permutations of registers are faster than a gather.
Words exp2_of(Words steps) {
  const auto chosen = [&](int bit) {
    return _mm512_test_epi32_mask(steps, _mm512_set1_epi32(1 << bit));
  };
  const __mmask16 bit5 = chosen(5), bit6 = chosen(6), bit7 = chosen(7);
  const auto of_32 = [&](int first) {
    const std::uint32_t* const from = host_exp2_table.step + first;
    return _mm512_permutex2var_epi32(_mm512_loadu_si512(from), steps,
                                     _mm512_loadu_si512(from + 16));
  };
  const auto of_64 = [&](int first) {
    return _mm512_mask_mov_epi32(of_32(first), bit5, of_32(first + 32));
  };
  const auto of_128 = [&](int first) {
    return _mm512_mask_mov_epi32(of_64(first), bit6, of_64(first + 64));
  };
  return _mm512_mask_mov_epi32(of_128(0), bit7, of_128(128));
}

// floor(2^28 (2^16 - 16) / sum) of the even words: exact in doubles, because a quotient below 2^18
// that is no integer is further from one than they round. 2^26 <= sum < 2^31.
Words scale_of_even(Words sum) {
  const __m256i even = _mm512_cvtepi64_epi32(sum);
  const __m512d quotient =
      _mm512_div_pd(_mm512_set1_pd(static_cast<double>(std::uint64_t{cdf_total - digits_of} << 28)),
                    _mm512_cvtepi32_pd(even));
  return _mm512_cvttpd_epi64(quotient);
}

// logits_to_frequencies() of sixteen slots' sixteen counts, and the sums of the frequencies before
// each. counts: [digit][slot].
void starts_of(Words (&counts)[digits_of], SlotStarts& starts) {
  // The lower the digit, the larger among equals.
  Words best = _mm512_setzero_si512();
  for (int d = 0; d < digits_of; ++d) {
    counts[d] = log2_of(counts[d], digits_of - 1 - d);
    best = _mm512_max_epi32(best, counts[d]);
  }
  const Words first_best =
      _mm512_andnot_si512(best, _mm512_set1_epi32(digits_of - 1));  // the digit itself
  best = _mm512_or_si512(best, _mm512_set1_epi32(digits_of - 1));
  Words sum = _mm512_setzero_si512();
  for (int d = 0; d < digits_of; ++d) {
    const Words steps = _mm512_srli_epi32(_mm512_sub_epi32(best, counts[d]), 4);
    // Logits of counts differ by less than 24 octaves.
    counts[d] = _mm512_srlv_epi32(_mm512_i32gather_epi32(_mm512_and_si512(steps, _mm512_set1_epi32(255)), host_exp2_table.step, 4), _mm512_srli_epi32(steps, 8));
    sum = _mm512_add_epi32(sum, counts[d]);
  }
  const Words even_scale = scale_of_even(sum),
              odd_scale = scale_of_even(_mm512_srli_epi64(sum, 32));
  Words before = _mm512_setzero_si512();
  auto* const out = reinterpret_cast<Words*>(starts.of);
  for (int d = 0; d < digits_of; ++d) {
    _mm512_store_si512(out + d, before);
    const Words even = _mm512_srli_epi64(_mm512_mul_epu32(counts[d], even_scale), 28);
    const Words odd =
        _mm512_slli_epi64(_mm512_mul_epu32(_mm512_srli_epi64(counts[d], 32), odd_scale), 4);
    before = _mm512_add_epi32(before, _mm512_add_epi32(_mm512_mask_mov_epi32(even, 0xAAAA, odd),
                                                       _mm512_set1_epi32(1)));
  }
  // The first of the best has what rounding down left over: all that come after it move.
  const Words total = _mm512_set1_epi32(static_cast<int>(cdf_total));
  const Words left = _mm512_sub_epi32(total, before);
  for (int d = 1; d < digits_of; ++d) {
    const Words start = _mm512_load_si512(out + d);
    _mm512_store_si512(
        out + d, _mm512_mask_add_epi32(
                     start, _mm512_cmpgt_epi32_mask(_mm512_set1_epi32(d), first_best), start, left));
  }
  _mm512_store_si512(out + digits_of, total);
}

void starts_avx512(const DigitPriorView& prior, const SlotWeights& weights,
                   const std::int32_t* contexts, const std::int32_t* highs, SlotStarts& starts) {
  Words counts[digits_of];
  for (int slot = 0; slot < digit_slots; ++slot) {
    const std::int16_t* const rows =
        highs == nullptr
            ? prior.high + contexts[slot] * distribution_size
            : prior.low + (contexts[slot] * digits_of + highs[slot]) * distribution_size;
    counts[slot] = _mm512_setzero_si512();
    for (int pair = 0; pair < component_pairs; ++pair) {
      counts[slot] = _mm512_dpwssd_epi32(counts[slot], _mm512_loadu_si512(rows + pair * pair_stride),
                                   _mm512_set1_epi32(weights.of[pair * digit_slots + slot]));
    }
  }
  transpose(counts);
  const Words zeros = _mm512_load_si512(weights.of + component_pairs * digit_slots);
  const Words plus = _mm512_slli_epi32(_mm512_and_si512(zeros, _mm512_set1_epi32(0xFFFF)), 15),
              minus = _mm512_slli_epi32(_mm512_srli_epi32(zeros, 16), 15);
  if (highs == nullptr) {
    counts[0] = _mm512_add_epi32(counts[0], _mm512_add_epi32(plus, minus));
  } else {
    const __mmask16 first = _mm512_cmpeq_epi32_mask(_mm512_loadu_si512(highs), _mm512_setzero_si512());
    counts[symbol_zero] = _mm512_mask_add_epi32(counts[symbol_zero], first, counts[symbol_zero], plus);
    counts[symbol_minus_zero] =
        _mm512_mask_add_epi32(counts[symbol_minus_zero], first, counts[symbol_minus_zero], minus);
  }
  starts_of(counts, starts);
}

}  // namespace

const DigitKernels digit_kernels_avx512 = {start_avx512, look_avx512, weights_avx512, starts_avx512, learn_avx512};

}  // namespace lmgc
