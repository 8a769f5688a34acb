// Called only where the processor has AVX-512 F, BW, DQ, VL and VNNI.
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12's own header, PR 105593
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include "core/digit_kernels.h"

namespace lmgc {
namespace {

// Sixteen slots' bytes, four inputs of each in a word: [words][16].
using Words = __m512i;

// Four sums at a time hide the latency of none: eight do.
constexpr int together = 8;

// out: words of four outputs, limited to 0..127.
template <int words>
void hidden_layer(const LayerView& layer, const std::int32_t* bias, const Words* in, Words* out) {
  const auto* weight = reinterpret_cast<const std::int32_t*>(layer.weight);
  const int row = words > 0 ? words : layer.inputs / 4;
  const Words zero = _mm512_setzero_si512(), most = _mm512_set1_epi32(127);
  for (int o = 0; o < layer.outputs; o += together) {
    Words sum[together];
    for (int i = 0; i < together; ++i) sum[i] = _mm512_set1_epi32(bias[o + i]);
    for (int w = 0; w < row; ++w) {
      for (int i = 0; i < together; ++i) {
        sum[i] = _mm512_dpbusd_epi32(sum[i], in[w], _mm512_set1_epi32(weight[(o + i) * row + w]));
      }
    }
    for (int i = 0; i < together; i += 4) {
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
  constexpr int input_words = padded_inputs / 4;
  Words x[input_words], hidden1[most_hidden / 4], hidden2[most_hidden / 4];
  const Words rows =
      _mm512_mullo_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
                         _mm512_set1_epi32(padded_inputs));
  const Words flip = _mm512_set1_epi32(static_cast<int>(0x80808080u));
  for (int w = 0; w < input_words; ++w) {
    x[w] = _mm512_xor_si512(_mm512_i32gather_epi32(rows, inputs + 4 * w, 1), flip);
  }
  hidden_layer<input_words>(prior.layer[0], prior.layer[0].bias_of_unsigned, x, hidden1);
  hidden_layer<0>(prior.layer[1], prior.layer[1].bias, hidden1, hidden2);

  const LayerView& head = prior.layer[2];
  const auto* weight = reinterpret_cast<const std::int32_t*>(head.weight);
  const int row = head.inputs / 4;
  Words score[prior_scores];
  for (int k = 0; k < prior_scores; ++k) score[k] = _mm512_set1_epi32(head.bias[k]);
  for (int w = 0; w < row; ++w) {
    for (int k = 0; k < prior_scores; ++k) {
      score[k] = _mm512_dpbusd_epi32(score[k], hidden2[w], _mm512_set1_epi32(weight[k * row + w]));
    }
  }
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

Words log2_of(Words counts) {
  const Words value =
      _mm512_add_epi32(_mm512_srli_epi32(counts, 8), _mm512_set1_epi32(1));  // below 2^24
  const Words bits = _mm512_srli_epi32(_mm512_castps_si512(_mm512_cvtepi32_ps(value)), 11);
  const Words fraction = _mm512_and_si512(bits, _mm512_set1_epi32(4095));
  const Words parabola = _mm512_srli_epi32(
      _mm512_mullo_epi32(fraction, _mm512_sub_epi32(_mm512_set1_epi32(4096), fraction)), 6);
  const Words factor = _mm512_sub_epi32(
      _mm512_set1_epi32(6895),
      _mm512_srli_epi32(_mm512_mullo_epi32(fraction, _mm512_set1_epi32(2562)), 12));
  const Words bend = _mm512_srli_epi32(_mm512_mullo_epi32(parabola, factor), 20);
  const Words sum =
      _mm512_add_epi32(_mm512_add_epi32(bits, bend), _mm512_set1_epi32(8 - (127 << 12)));
  return _mm512_srai_epi32(sum, 4);
}

template <int by>
Words move_up(Words x) {
  return _mm512_alignr_epi32(x, _mm512_setzero_si512(), digit_slots - by);
}

// logits_to_frequencies() of sixteen logits, and the sums of the frequencies before each.
Words starts_of(Words logits) {
  const Words steps = _mm512_sub_epi32(_mm512_set1_epi32(_mm512_reduce_max_epi32(logits)), logits);
  const Words table = _mm512_i32gather_epi32(_mm512_and_si512(steps, _mm512_set1_epi32(255)),
                                             host_exp2_table.step, 4);
  // Logits of counts differ by less than 24 octaves.
  const Words weight = _mm512_srlv_epi32(table, _mm512_srli_epi32(steps, 8));
  const auto sum = static_cast<std::uint32_t>(_mm512_reduce_add_epi32(weight));
  const std::uint64_t scale = (std::uint64_t{cdf_total - digits_of} << 28) / sum;
  const Words by = _mm512_set1_epi64(static_cast<long long>(scale));  // below 2^18
  const Words even = _mm512_srli_epi64(_mm512_mul_epu32(weight, by), 28);
  const Words odd = _mm512_srli_epi64(_mm512_mul_epu32(_mm512_srli_epi64(weight, 32), by), 28);
  Words frequency =
      _mm512_add_epi32(_mm512_or_si512(even, _mm512_slli_epi64(odd, 32)), _mm512_set1_epi32(1));
  const unsigned bests = _mm512_testn_epi32_mask(steps, steps);
  const auto best = static_cast<__mmask16>(bests & (0u - bests));
  const int total = _mm512_reduce_add_epi32(frequency);
  frequency = _mm512_mask_add_epi32(frequency, best, frequency,
                                    _mm512_set1_epi32(static_cast<int>(cdf_total) - total));
  Words before = move_up<1>(frequency);
  before = _mm512_add_epi32(before, move_up<1>(before));
  before = _mm512_add_epi32(before, move_up<2>(before));
  before = _mm512_add_epi32(before, move_up<4>(before));
  return _mm512_add_epi32(before, move_up<8>(before));
}

void starts_avx512(const DigitPriorView& prior, const SlotWeights& weights,
                   const std::int32_t* contexts, const std::int32_t* highs, int active,
                   std::uint32_t* starts) {
  for (int slot = 0; slot < active; ++slot) {
    const std::int16_t* const rows =
        highs == nullptr
            ? prior.high + contexts[slot] * distribution_size
            : prior.low + (contexts[slot] * digits_of + highs[slot]) * distribution_size;
    Words counts = _mm512_setzero_si512();
    for (int pair = 0; pair < component_pairs; ++pair) {
      counts = _mm512_dpwssd_epi32(counts, _mm512_loadu_si512(rows + pair * pair_stride),
                                   _mm512_set1_epi32(weights.of[pair * digit_slots + slot]));
    }
    const std::int32_t zeros = weights.of[component_pairs * digit_slots + slot];
    if (zeros != 0) {
      const std::int32_t plus = (zeros & 0xFFFF) << 15, minus = (zeros >> 16) << 15;
      Words more = _mm512_setzero_si512();
      if (highs == nullptr) {
        more = _mm512_maskz_set1_epi32(1, plus + minus);
      } else if (highs[slot] == 0) {
        more = _mm512_mask_set1_epi32(_mm512_maskz_set1_epi32(1 << symbol_zero, plus),
                                      1 << symbol_minus_zero, minus);
      }
      counts = _mm512_add_epi32(counts, more);
    }
    _mm512_store_si512(starts + slot * digits_of, starts_of(log2_of(counts)));
  }
}

}  // namespace

const DigitKernels digit_kernels_avx512 = {weights_avx512, starts_avx512};

}  // namespace lmgc
