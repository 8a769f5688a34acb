// Logits -> integer distribution over the legal symbols, in integer arithmetic after one exact
// rounding step, so that the same logits give the same distribution on every machine. Every symbol
// gets at least 1, and the sum is exactly 2^16.
#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace lmgc {

inline constexpr int cdf_bits = 16;
inline constexpr std::uint32_t cdf_total = 1u << cdf_bits;
inline constexpr int cdf_steps_per_octave = 256;
inline constexpr int cdf_most_symbols = 256;

// exp2_step(k) = 2^26 * 2^(-k/256) for k in [0, 256), within 4 parts in 2^26, from integer
// arithmetic alone: the product of the rounded factors 2^26 * 2^(-2^b/256) for the bits b of k.
LMGC_HD constexpr std::uint32_t exp2_step(std::uint32_t k) {
  // round(2^26 * 2^(-1/256)), ... 2^(-2/256), 2^(-4/256), ..., 2^(-128/256)
  constexpr std::uint32_t factors[8] = {66927405, 66746437, 66385968, 65670859,
                                        64263668, 61539100, 56431603, 47453133};
  std::uint64_t value = 1u << 26;
  for (int bit = 0; bit < 8; ++bit) {
    if ((k >> bit) & 1u) value = (value * factors[bit] + (1u << 25)) >> 26;
  }
  return static_cast<std::uint32_t>(value);
}

struct Exp2Table {
  std::uint32_t step[cdf_steps_per_octave];
};
constexpr Exp2Table make_exp2_table() {
  Exp2Table table{};
  for (std::uint32_t k = 0; k < cdf_steps_per_octave; ++k) table.step[k] = exp2_step(k);
  return table;
}
#if defined(__CUDACC__)
__device__ constexpr Exp2Table device_exp2_table = make_exp2_table();
#endif
inline constexpr Exp2Table host_exp2_table = make_exp2_table();

// 2^26 * 2^(-steps/256), 0 from 26 octaves down.
LMGC_HD inline std::uint32_t exp2_weight(std::uint32_t steps) {
  const std::uint32_t octaves = steps / cdf_steps_per_octave;
  if (octaves >= 26) return 0;
#if defined(__CUDA_ARCH__)
  return device_exp2_table.step[steps % cdf_steps_per_octave] >> octaves;
#else
  return host_exp2_table.step[steps % cdf_steps_per_octave] >> octaves;
#endif
}

// A finite value for any float: NaN counts as "impossible", infinities as very large.
LMGC_HD inline float tame(float logit) {
  constexpr float most = 1e30f;
  if (!(logit > -most)) return -most;  // also NaN
  return logit < most ? logit : most;
}

// Fills frequency[0..symbols) from logits[ids[0..symbols)]; `ids` may be null: 0, 1, 2, ...
// `steps_per_unit` turns logit units into 1/256 octaves (256 / units_per_octave). 2 <= symbols <=
// cdf_most_symbols.
LMGC_HD inline void logits_to_frequencies(const float* logits, const std::int32_t* ids, int symbols,
                                          float steps_per_unit, std::uint32_t* frequency) {
  float most = tame(logits[ids != nullptr ? ids[0] : 0]);
  for (int i = 1; i < symbols; ++i) {
    const float logit = tame(logits[ids != nullptr ? ids[i] : i]);
    if (logit > most) most = logit;
  }
  std::uint64_t sum = 0;
  int best = 0;
  for (int i = 0; i < symbols; ++i) {
    // One subtraction, one multiplication, one addition, each correctly rounded (never fused): the
    // same everywhere.
    const float below = (most - tame(logits[ids != nullptr ? ids[i] : i])) * steps_per_unit;
    constexpr float farthest = 26 * cdf_steps_per_octave;
    const auto steps = static_cast<std::uint32_t>((below < farthest ? below : farthest) + 0.5f);
    frequency[i] = exp2_weight(steps);
    sum += frequency[i];
    if (frequency[i] > frequency[best]) best = i;
  }
  // sum >= 2^26: the best symbol has steps == 0.
  const std::uint64_t scale =
      (static_cast<std::uint64_t>(cdf_total - static_cast<std::uint32_t>(symbols)) << 28) / sum;
  std::uint32_t total = 0;
  for (int i = 0; i < symbols; ++i) {
    frequency[i] = 1 + static_cast<std::uint32_t>((frequency[i] * scale) >> 28);
    total += frequency[i];
  }
  frequency[best] += cdf_total - total;  // what rounding down left over
}

}  // namespace lmgc
