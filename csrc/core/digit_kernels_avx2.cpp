// Plain loops over sixteen slots or sixteen digits, which the compiler turns into AVX2. Called only
// where the processor has it.
#include <cstring>

#include "core/digit_kernels.h"

namespace lmgc {
namespace {

constexpr int lanes = digit_slots;

// in, out: [inputs][slots], [outputs][slots]
void apply(const LayerView& layer, int inputs, const std::int32_t* in, bool limit,
           std::int32_t* out) {
  constexpr int together = 2;
  for (int o = 0; o < layer.outputs; o += together) {
    std::int32_t sum[together][lanes];
    for (int i = 0; i < together; ++i) {
      for (int slot = 0; slot < lanes; ++slot) sum[i][slot] = layer.bias[o + i];
    }
    const std::int8_t* const weight = layer.weight + o * layer.inputs;
    for (int w = 0; w < inputs; ++w) {
      for (int i = 0; i < together; ++i) {
        const std::int32_t factor = weight[i * layer.inputs + w];
        for (int slot = 0; slot < lanes; ++slot) sum[i][slot] += factor * in[w * lanes + slot];
      }
    }
    for (int i = 0; i < together; ++i) {
      for (int slot = 0; slot < lanes; ++slot) {
        std::int32_t y = sum[i][slot] >> layer.shift[o + i];
        if (limit) y = y < 0 ? 0 : y > 127 ? 127 : y;
        out[(o + i) * lanes + slot] = y;
      }
    }
  }
}

void weights_avx2(const DigitPriorView& prior, const std::int8_t* inputs, SlotWeights& weights) {
  alignas(64) std::int32_t x[digit_inputs * lanes], y[most_hidden * lanes], z[most_hidden * lanes];
  for (int slot = 0; slot < lanes; ++slot) {
    for (int i = 0; i < digit_inputs; ++i) x[i * lanes + slot] = inputs[slot * input_stride + i];
  }
  apply(prior.layer[0], digit_inputs, x, true, y);
  apply(prior.layer[1], prior.layer[1].inputs, y, true, z);
  apply(prior.layer[2], prior.layer[2].inputs, z, false, y);
  std::int32_t best[lanes];
  for (int slot = 0; slot < lanes; ++slot) best[slot] = y[slot];
  for (int k = 1; k < prior_scores; ++k) {
    for (int slot = 0; slot < lanes; ++slot)
      best[slot] = best[slot] < y[k * lanes + slot] ? y[k * lanes + slot] : best[slot];
  }
  for (int k = 0; k < prior_scores; ++k) {
    for (int slot = 0; slot < lanes; ++slot) {
      const std::int32_t u = score_reach - (best[slot] - y[k * lanes + slot]);
      const std::int32_t kept = u > 0 ? u : 0;
      const std::int32_t weight = ((32 + (kept & 31)) << (kept >> 5)) >> 5;
      weights.of[k * lanes + slot] = u > 0 ? weight : 0;  // [scores][slots]
    }
  }
}

void starts_of(const std::int32_t* counts, std::uint32_t* starts) {  // stride of slots
  std::int32_t logit[digits_of];
  for (int s = 0; s < digits_of; ++s) {
    const auto value = static_cast<float>((counts[s] >> 8) + 1);
    std::int32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    bits >>= 11;
    const std::int32_t fraction = bits & 4095;
    const std::int32_t bend =
        (((fraction * (4096 - fraction)) >> 6) * (6895 - ((fraction * 2562) >> 12))) >> 20;
    logit[s] = (bits - (127 << 12) + bend + 8) >> 4;
  }
  std::int32_t most = logit[0];
  for (int s = 1; s < digits_of; ++s) most = most < logit[s] ? logit[s] : most;
  std::uint32_t weight[digits_of], frequency[digits_of];
  std::uint32_t sum = 0;
  for (int s = 0; s < digits_of; ++s) {
    const auto steps = static_cast<std::uint32_t>(most - logit[s]);
    weight[s] = host_exp2_table.step[steps & 255] >> (steps >> 8);
    sum += weight[s];
  }
  const std::uint64_t scale = (std::uint64_t{cdf_total - digits_of} << 28) / sum;
  std::uint32_t total = 0;
  for (int s = 0; s < digits_of; ++s) {
    frequency[s] = 1 + static_cast<std::uint32_t>((weight[s] * scale) >> 28);
    total += frequency[s];
  }
  int best = 0;
  while (logit[best] != most) ++best;
  frequency[best] += cdf_total - total;
  std::uint32_t before = 0;
  for (int s = 0; s < digits_of; ++s) {
    starts[s * digit_slots] = before;
    before += frequency[s];
  }
  starts[digits_of * digit_slots] = before;
}

void starts_avx2(const DigitPriorView& prior, const SlotWeights& weights,
                 const std::int32_t* contexts, const std::int32_t* highs,
                 SlotStarts& starts) {
  for (int slot = 0; slot < digit_slots; ++slot) {
    const std::int16_t* const rows =
        highs == nullptr
            ? prior.high + contexts[slot] * distribution_size
            : prior.low + (contexts[slot] * digits_of + highs[slot]) * distribution_size;
    std::int32_t counts[digits_of] = {};
    for (int pair = 0; pair < component_pairs; ++pair) {
      const std::int16_t* const both = rows + pair * pair_stride;
      const std::int32_t one = weights.of[2 * pair * lanes + slot],
                         two = weights.of[(2 * pair + 1) * lanes + slot];
      for (int s = 0; s < digits_of; ++s) counts[s] += both[2 * s] * one + both[2 * s + 1] * two;
    }
    const std::int32_t plus = weights.of[prior_components * lanes + slot] << 15,
                       minus = weights.of[(prior_components + 1) * lanes + slot] << 15;
    if (highs == nullptr) {
      counts[0] += plus + minus;
    } else if (highs[slot] == 0) {
      counts[symbol_zero] += plus;
      counts[symbol_minus_zero] += minus;
    }
    starts_of(counts, starts.of + slot);
  }
}

}  // namespace

const DigitKernels digit_kernels_avx2 = {start_portable, look_portable, weights_avx2, starts_avx2, learn_portable};

}  // namespace lmgc
