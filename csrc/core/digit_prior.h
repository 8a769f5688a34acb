// The bundled prior of method `lm` in C++: a small integer network whose scores weigh a bank of
// component distributions over the symbol, read from the TorchScript module that declares the
// architecture (python/lmgc_torch/priors/residual.py). Everything here is integers, and gives the
// frequencies that logits_to_frequencies() makes of the module's logits. docs/prior.md states the
// arithmetic.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/cdf.h"
#include "core/digit_context.h"
#include "core/host_device.h"

namespace lmgc {

inline constexpr const char* digit_prior_architecture = "digit-mlp-1";
inline constexpr int prior_components = 10;
inline constexpr int prior_scores = prior_components + 2;  // and the two zeros
inline constexpr int most_hidden = 128;
inline constexpr int digits_of = 16;  // values of a digit
// Inputs, padded with zeros to whole 32-bit words.
inline constexpr int padded_inputs = (digit_inputs + 3) / 4 * 4;

// y = (weight x + bias) >> shift, one shift an output.
struct DigitLayer {
  int inputs = 0, outputs = 0;
  std::vector<std::int8_t> weight;  // [outputs][inputs], within +-127
  std::vector<std::int32_t> bias, shift;
};

// A layer as kernels read it. `weight` has `inputs` (a multiple of 4) bytes a row.
struct LayerView {
  const std::int8_t* weight;
  const std::int32_t* bias;
  const std::int32_t* shift;
  const std::int32_t* bias_of_unsigned;  // for inputs that are 128 too large
  std::int32_t inputs, outputs;
  // The weights once more, for vectors: four inputs of one output a word, sixteen outputs side by
  // side, [outputs / 16][inputs / 4][16], zeros where there are fewer outputs.
  const std::int32_t* words;
};
inline constexpr int outputs_together = 16;

// Component distributions lie in pairs, as kernels multiply them: [pair][digit][2].
inline constexpr int component_pairs = prior_components / 2;
inline constexpr int pair_stride = 2 * digits_of;
inline constexpr int distribution_size = component_pairs * pair_stride;

struct DigitPriorView {
  LayerView layer[3];
  const std::int16_t* low;   // [digit_contexts][16 high digits][distribution_size]
  const std::int16_t* high;  // [digit_contexts][distribution_size]: sums over low digits
};

// Owns the numbers of a prior, laid out for kernels. Immutable once made.
class DigitPrior {
 public:
  // layers: digit_inputs -> hidden -> hidden -> prior_scores. table: [digit_contexts][high digit]
  // [prior_components][low digit], 0 to 32767; a component's entries sum to 2^15. An error message,
  // empty if all is well; then view() is complete.
  std::string set(const DigitLayer (&layers)[3], const std::int16_t* table);

  const DigitPriorView& view() const { return view_; }

 private:
  std::vector<std::int8_t> weight_[3];
  std::vector<std::int32_t> bias_[3], shift_[3], bias_of_unsigned_[3], words_[3];
  std::vector<std::int16_t> low_, high_;
  DigitPriorView view_{};
};

// ---- the arithmetic, one symbol at a time -------------------------------------------------------

// A score to the weight of its component: 2^(u / 32), linear between powers of two; the best gets
// 4096.
inline constexpr int score_reach = 12 * 32;
LMGC_HD constexpr std::int32_t score_weight(std::int32_t score, std::int32_t best) {
  const std::int32_t below = best - score;
  if (below >= score_reach) return 0;
  const std::int32_t u = score_reach - below;
  return ((32 + (u & 31)) << (u >> 5)) >> 5;
}

// log2 of 1 <= count < 2^24 in 1/256 octave, within one unit.
LMGC_HD inline std::int32_t count_log2(std::int32_t count) {
  const auto value = static_cast<float>(count);  // exact
  std::int32_t bits;
  memcpy(&bits, &value, sizeof bits);
  const std::int32_t fraction = (bits >> 11) & 4095;
  const std::int32_t bend =
      (((fraction * (4096 - fraction)) >> 6) * (6895 - ((fraction * 2562) >> 12))) >> 20;
  return ((bits >> 11) - (127 << 12) + bend + 8) >> 4;
}

// `in` has layer.inputs bytes; writes layer.outputs integers.
LMGC_HD inline void apply_layer(const LayerView& layer, const std::int8_t* in, std::int32_t* out) {
  for (std::int32_t o = 0; o < layer.outputs; ++o) {
    const std::int8_t* const weight = layer.weight + static_cast<std::int64_t>(o) * layer.inputs;
    std::int32_t sum = layer.bias[o];
    for (std::int32_t i = 0; i < layer.inputs; ++i) sum += weight[i] * in[i];
    out[o] = sum >> layer.shift[o];
  }
}

// inputs: padded_inputs bytes.
LMGC_HD inline void component_weights(const DigitPriorView& prior, const std::int8_t* inputs,
                                      std::int16_t* weights) {
  std::int32_t sums[most_hidden];
  std::int8_t hidden[most_hidden];
  apply_layer(prior.layer[0], inputs, sums);
  for (int i = 0; i < prior.layer[0].outputs; ++i)
    hidden[i] = static_cast<std::int8_t>(clamp_to(sums[i], 0, 127));
  apply_layer(prior.layer[1], hidden, sums);
  for (int i = 0; i < prior.layer[1].outputs; ++i)
    hidden[i] = static_cast<std::int8_t>(clamp_to(sums[i], 0, 127));
  apply_layer(prior.layer[2], hidden, sums);
  std::int32_t best = sums[0];
  for (int k = 1; k < prior_scores; ++k) best = sums[k] > best ? sums[k] : best;
  for (int k = 0; k < prior_scores; ++k)
    weights[k] = static_cast<std::int16_t>(score_weight(sums[k], best));
}

// The mixture's counts of a digit's values.
LMGC_HD inline void mixture_counts(const std::int16_t* distribution, const std::int16_t* weights,
                                   std::int32_t* counts) {
  for (int s = 0; s < digits_of; ++s) {
    std::int32_t sum = 0;
    for (int pair = 0; pair < component_pairs; ++pair) {
      const std::int16_t* const both = distribution + pair * pair_stride + 2 * s;
      sum += both[0] * weights[2 * pair] + both[1] * weights[2 * pair + 1];
    }
    counts[s] = sum;
  }
}

LMGC_HD inline void counts_to_frequencies(const std::int32_t* counts, std::uint32_t* frequency) {
  float logits[digits_of];
  for (int s = 0; s < digits_of; ++s)
    logits[s] = static_cast<float>(count_log2((counts[s] >> 8) + 1));
  logits_to_frequencies(logits, nullptr, digits_of, 1.0f, frequency);
}

inline constexpr std::int32_t whole_probability = 1 << 15;  // a row of the table

// The distribution of the high digit, or, where `high` is not negative, of the low one after it.
LMGC_HD inline const std::int16_t* distribution_of(const DigitPriorView& prior, int context,
                                                   int high) {
  return high < 0 ? prior.high + context * distribution_size
                  : prior.low + (context * digits_of + high) * distribution_size;
}

// The counts of a digit's values.
LMGC_HD inline void digit_counts(const DigitPriorView& prior, int context, int high,
                                 const std::int16_t* weights, std::int32_t* counts) {
  mixture_counts(distribution_of(prior, context, high), weights, counts);
  // The two zeros are symbols of the first high digit.
  const std::int32_t zero = whole_probability * weights[prior_components],
                     minus_zero = whole_probability * weights[prior_components + 1];
  if (high < 0) {
    counts[0] += zero + minus_zero;
  } else if (high == 0) {
    counts[symbol_zero] += zero;
    counts[symbol_minus_zero] += minus_zero;
  }
}

LMGC_HD inline void digit_frequencies(const DigitPriorView& prior, int context, int high,
                                      const std::int16_t* weights, std::uint32_t* frequency) {
  std::int32_t counts[digits_of];
  digit_counts(prior, context, high, weights, counts);
  counts_to_frequencies(counts, frequency);
}

}  // namespace lmgc
