// Called only where the processor has AVX2.
#include <immintrin.h>

#include "core/digit_kernels.h"
#include "core/digit_starts.h"

namespace lmgc {
namespace {

using Words = __m256i;
constexpr int halves = digit_slots / 8;

// What digit_starts.h asks for.
struct Vector256 {
  using Words = __m256i;

  static Words all(int n) { return _mm256_set1_epi32(n); }
  static Words load(const std::uint32_t* p) {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(p));
  }
  static void store(std::uint32_t* p, Words x) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(p), x);
  }
  static Words add(Words x, Words y) { return _mm256_add_epi32(x, y); }
  static Words sub(Words x, Words y) { return _mm256_sub_epi32(x, y); }
  static Words both(Words x, Words y) { return _mm256_and_si256(x, y); }
  static Words either(Words x, Words y) { return _mm256_or_si256(x, y); }
  static Words least(Words x, Words y) { return _mm256_min_epi32(x, y); }
  static Words most(Words x, Words y) { return _mm256_max_epi32(x, y); }
  template <int by>
  static Words up(Words x) {
    return _mm256_slli_epi32(x, by);
  }
  template <int by>
  static Words down(Words x) {
    return _mm256_srli_epi32(x, by);
  }
  template <int by>
  static Words down64(Words x) {
    return _mm256_srli_epi64(x, by);
  }
  static Words shift_down(Words x, Words by) { return _mm256_srlv_epi32(x, by); }
  static Words logarithm(Words n) { return _mm256_castps_si256(_mm256_cvtepi32_ps(n)); }
  static Words pair_sums(Words x, Words y) { return _mm256_madd_epi16(x, y); }
  static Words high_products(Words x, Words y) { return _mm256_mulhi_epu16(x, y); }
  static Words even_products(Words x, Words y) { return _mm256_mul_epu32(x, y); }
  static Words with_odd(Words x, Words y) { return _mm256_blend_epi32(x, y, 0xAA); }
  static Words quotient_of_even(double n, Words x) {
    const Words even = _mm256_permutevar8x32_epi32(x, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6));
    // Exact: a quotient below 2^18 that is no integer is further from one than doubles round.
    const __m256d by = _mm256_cvtepi32_pd(_mm256_castsi256_si128(even));
    return _mm256_cvtepu32_epi64(_mm256_cvttpd_epi32(_mm256_div_pd(_mm256_set1_pd(n), by)));
  }
  static Words powers(Words x) {
    return _mm256_i32gather_epi32(reinterpret_cast<const int*>(host_exp2_table.step), x, 4);
  }
  static Words add_beyond(Words x, Words n, Words y, Words z) {
    return _mm256_add_epi32(x, _mm256_and_si256(_mm256_cmpgt_epi32(n, y), z));
  }
};
using V = Vector256;

// Columns of an 8 x 8 matrix of words whose rows are given.
[[gnu::always_inline]] inline void transpose(Words (&row)[8]) {
  Words fours[8];
  for (int i = 0; i < 8; i += 4) {
    const Words a = _mm256_unpacklo_epi32(row[i], row[i + 1]),
                b = _mm256_unpackhi_epi32(row[i], row[i + 1]),
                c = _mm256_unpacklo_epi32(row[i + 2], row[i + 3]),
                d = _mm256_unpackhi_epi32(row[i + 2], row[i + 3]);
    fours[i] = _mm256_unpacklo_epi64(a, c);
    fours[i + 1] = _mm256_unpackhi_epi64(a, c);
    fours[i + 2] = _mm256_unpacklo_epi64(b, d);
    fours[i + 3] = _mm256_unpackhi_epi64(b, d);
  }
  for (int k = 0; k < 4; ++k) {
    row[k] = _mm256_permute2x128_si256(fours[k], fours[k + 4], 0x20);
    row[k + 4] = _mm256_permute2x128_si256(fours[k], fours[k + 4], 0x31);
  }
}

// ---- network ------------------------------------------------------------------------------------

// Four inputs of eight slots, as halves of words: the first and the third, the second and the
// fourth.
struct Four {
  Words even, odd;
};

Four four_of(Words bytes) {
  return {_mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8), _mm256_srai_epi16(bytes, 8)};
}

// Outputs `o` to `o + count - 1` of eight slots.
template <int count>
[[gnu::always_inline]] inline void outputs_of(const LayerView& layer, int o, const Four* in,
                                              Words (&sum)[count]) {
  const int row = layer.inputs / 4;
  const std::int32_t* words =
      layer.words + o / outputs_together * outputs_together * row + o % outputs_together;
  for (int i = 0; i < count; ++i) sum[i] = V::all(layer.bias[o + i]);
  for (int w = 0; w < row; ++w, words += outputs_together) {
    for (int i = 0; i < count; ++i) {
      const Four weight = four_of(V::all(words[i]));
      sum[i] = V::add(sum[i], V::add(_mm256_madd_epi16(in[w].even, weight.even),
                                     _mm256_madd_epi16(in[w].odd, weight.odd)));
    }
  }
  for (int i = 0; i < count; ++i)
    sum[i] = _mm256_sra_epi32(sum[i], _mm_cvtsi32_si128(layer.shift[o + i]));
}

// out: four outputs at a time, limited to 0..127.
void hidden_layer(const LayerView& layer, const Four* in, Four* out) {
  const Words none = V::all(0), most = V::all(127);
  for (int o = 0; o < layer.outputs; o += 4) {
    Words y[4];
    outputs_of(layer, o, in, y);
    for (Words& own : y) own = V::least(V::most(own, none), most);
    *out++ = {V::either(y[0], V::up<16>(y[2])), V::either(y[1], V::up<16>(y[3]))};
  }
}

void weights_avx2(const DigitPriorView& prior, const std::int8_t* inputs, SlotWeights& weights) {
  for (int half = 0; half < halves; ++half, inputs += 8 * input_stride) {
    Four x[input_stride / 4], hidden1[most_hidden / 4], hidden2[most_hidden / 4];
    for (int part = 0; part < 2; ++part) {
      Words row[8];
      for (int slot = 0; slot < 8; ++slot)
        row[slot] = _mm256_load_si256(
            reinterpret_cast<const __m256i*>(inputs + slot * input_stride + 32 * part));
      transpose(row);
      for (int w = 0; w < 8; ++w) x[8 * part + w] = four_of(row[w]);
    }
    hidden_layer(prior.layer[0], x, hidden1);
    hidden_layer(prior.layer[1], hidden1, hidden2);
    Words score[prior_scores], best = V::all(INT32_MIN);
    for (int k = 0; k < prior_scores; k += 4) {
      Words own[4];
      outputs_of(prior.layer[2], k, hidden2, own);
      for (int i = 0; i < 4; ++i) {
        score[k + i] = own[i];
        best = V::most(best, own[i]);
      }
    }
    for (Words& own : score) {
      const Words u = V::sub(V::all(score_reach), V::sub(best, own));
      const Words line = V::add(V::both(u, V::all(31)), V::all(32));
      const Words weight = V::down<5>(_mm256_sllv_epi32(line, V::down<5>(u)));
      own = V::both(weight, _mm256_cmpgt_epi32(u, V::all(0)));
    }
    // Pairs of 16 bits, as the tables have them: [pairs][slots].
    for (int pair = 0; pair < prior_scores / 2; ++pair) {
      _mm256_store_si256(reinterpret_cast<__m256i*>(weights.of + pair * digit_slots + 8 * half),
                         V::either(score[2 * pair], V::up<16>(score[2 * pair + 1])));
    }
  }
}

// ---- intervals ----------------------------------------------------------------------------------

void starts_avx2(const DigitPriorView& prior, const SlotWeights& weights,
                 const std::int32_t* contexts, const std::int32_t* highs, SlotStarts& starts) {
  for (int first = 0; first < digit_slots; first += 8) {
    Words part[2][8];
    for (int slot = 0; slot < 8; ++slot) {
      const int own = first + slot;
      const std::int16_t* const rows =
          highs == nullptr
              ? prior.high + contexts[own] * distribution_size
              : prior.low + (contexts[own] * digits_of + highs[own]) * distribution_size;
      Words low = V::all(0), high = V::all(0);
      for (int pair = 0; pair < component_pairs; ++pair) {
        const Words weight = V::all(weights.of[pair * digit_slots + own]);
        const auto* const row = reinterpret_cast<const __m256i*>(rows + pair * pair_stride);
        low = V::add(low, _mm256_madd_epi16(_mm256_load_si256(row), weight));
        high = V::add(high, _mm256_madd_epi16(_mm256_load_si256(row + 1), weight));
      }
      part[0][slot] = low;
      part[1][slot] = high;
    }
    transpose(part[0]);
    transpose(part[1]);
    Words counts[digits_of];
    for (int d = 0; d < digits_of; ++d) counts[d] = part[d / 8][d % 8];
    const Words zeros = _mm256_load_si256(
        reinterpret_cast<const __m256i*>(weights.of + component_pairs * digit_slots + first));
    const Words plus = V::up<15>(V::both(zeros, V::all(0xFFFF))),
                minus = V::up<15>(V::down<16>(zeros));
    if (highs == nullptr) {
      counts[0] = V::add(counts[0], V::add(plus, minus));
    } else {
      const Words is_first = _mm256_cmpeq_epi32(
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(highs + first)), V::all(0));
      counts[symbol_zero] = V::add(counts[symbol_zero], V::both(plus, is_first));
      counts[symbol_minus_zero] = V::add(counts[symbol_minus_zero], V::both(minus, is_first));
    }
    starts_of<V>(counts, starts.of + first);
  }
}

}  // namespace

const DigitKernels digit_kernels_avx2 = {start_portable, look_portable,   weights_avx2,
                                         starts_avx2,    encode_portable, decode_portable,
                                         learn_portable};

}  // namespace lmgc
