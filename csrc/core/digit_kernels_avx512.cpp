// Called only where the processor has AVX-512 F, BW, DQ, VL and VNNI.
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12's own header, PR 105593
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include "core/digit_kernels.h"
#include "core/digit_starts.h"

namespace lmgc {
namespace {

// Sixteen slots' bytes, four inputs of each in a word: [words][16].
using Words = __m512i;

// What digit_starts.h asks for.
struct Vector512 {
  using Words = __m512i;

  static Words all(int n) { return _mm512_set1_epi32(n); }
  static Words load(const std::uint32_t* p) { return _mm512_load_si512(p); }
  static void store(std::uint32_t* p, Words x) { _mm512_store_si512(p, x); }
  static Words add(Words x, Words y) { return _mm512_add_epi32(x, y); }
  static Words sub(Words x, Words y) { return _mm512_sub_epi32(x, y); }
  static Words both(Words x, Words y) { return _mm512_and_si512(x, y); }
  static Words either(Words x, Words y) { return _mm512_or_si512(x, y); }
  static Words least(Words x, Words y) { return _mm512_min_epi32(x, y); }
  static Words most(Words x, Words y) { return _mm512_max_epi32(x, y); }
  template <int by>
  static Words up(Words x) {
    return _mm512_slli_epi32(x, by);
  }
  template <int by>
  static Words down(Words x) {
    return _mm512_srli_epi32(x, by);
  }
  template <int by>
  static Words down64(Words x) {
    return _mm512_srli_epi64(x, by);
  }
  static Words shift_down(Words x, Words by) { return _mm512_srlv_epi32(x, by); }
  static Words logarithm(Words n) { return _mm512_castps_si512(_mm512_cvtepi32_ps(n)); }
  static Words pair_sums(Words x, Words y) { return _mm512_madd_epi16(x, y); }
  static Words high_products(Words x, Words y) { return _mm512_mulhi_epu16(x, y); }
  static Words even_products(Words x, Words y) { return _mm512_mul_epu32(x, y); }
  static Words with_odd(Words x, Words y) { return _mm512_mask_mov_epi32(x, 0xAAAA, y); }
  static Words quotient_of_even(double n, Words x) {
    // Exact: a quotient below 2^18 that is no integer is further from one than doubles round.
    const __m512d by = _mm512_cvtepi32_pd(_mm512_cvtepi64_epi32(x));
    return _mm512_cvtepu32_epi64(_mm512_cvttpd_epi32(_mm512_div_pd(_mm512_set1_pd(n), by)));
  }
  static Words powers(Words x) { return _mm512_i32gather_epi32(x, host_exp2_table.step, 4); }
  static Words add_beyond(Words x, Words n, Words y, Words z) {
    return _mm512_mask_add_epi32(x, _mm512_cmpgt_epi32_mask(n, y), x, z);
  }
};

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

// The sums of `count` outputs, from the first of sixteen on: their number hides the latency of
// each. Not by intrinsics, because GCC 12 moves every sum to another register and back.
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
  const Words most = _mm512_set1_epi8(127);
  // Packing leaves four slots' bytes output after output.
  const Words by_slot =
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  for (int o = 0; o < layer.outputs; o += outputs_together) {
    Words sum[outputs_together];
    sums_of(bias + o, layer.words + o * row, row, in, sum);
    for (int i = 0; i < outputs_together; ++i)
      sum[i] = _mm512_srav_epi32(sum[i], _mm512_set1_epi32(layer.shift[o + i]));
    for (int i = 0; i < outputs_together; i += 4) {
      const Words four = _mm512_packus_epi16(_mm512_packs_epi32(sum[i], sum[i + 1]),
                                             _mm512_packs_epi32(sum[i + 2], sum[i + 3]));
      *out++ = _mm512_shuffle_epi8(_mm512_min_epu8(four, most), by_slot);
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
    score[k] = _mm512_srav_epi32(score[k], _mm512_set1_epi32(head.shift[k]));
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
      counts[slot] =
          _mm512_dpwssd_epi32(counts[slot], _mm512_loadu_si512(rows + pair * pair_stride),
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
    const __mmask16 first =
        _mm512_cmpeq_epi32_mask(_mm512_loadu_si512(highs), _mm512_setzero_si512());
    counts[symbol_zero] =
        _mm512_mask_add_epi32(counts[symbol_zero], first, counts[symbol_zero], plus);
    counts[symbol_minus_zero] =
        _mm512_mask_add_epi32(counts[symbol_minus_zero], first, counts[symbol_minus_zero], minus);
  }
  starts_of<Vector512>(counts, starts.of);
}

}  // namespace

const DigitKernels digit_kernels_avx512 = {start_avx512,  look_avx512,   weights_avx512,
                                           starts_avx512, encode_avx512, decode_avx512,
                                           learn_avx512};

}  // namespace lmgc
