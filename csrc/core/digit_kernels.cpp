#include "core/digit_kernels.h"

#include <algorithm>
#include <cstddef>

#include "core/isa.h"
#include "core/range_coder.h"

namespace lmgc {

// ---- plain loops --------------------------------------------------------------------------------

void start_portable(SlotLanes&, int) {}

void look_portable(SlotLanes& lanes, int active, std::int8_t* inputs, std::int32_t* contexts) {
  for (int slot = 0; slot < active; ++slot) {
    LaneContext& own = lanes.context[slot];
    own.inputs(*lanes.known[slot], inputs + slot * input_stride);
    contexts[slot] = digit_context(*lanes.known[slot], own.geometry->kind);
  }
}

void encode_portable(SlotCoders& coders, int active, const SlotStarts& starts,
                     const std::int32_t* digits) {
  for (int slot = 0; slot < active; ++slot) {
    RangeEncoder coder;
    coder.low = coders.low[slot];
    coder.range = coders.range[slot];
    coder.out = coders.out[slot];
    const std::uint32_t* const start = starts.of + digits[slot] * digit_slots + slot;
    coder.put(start[0], start[digit_slots] - start[0]);
    coders.low[slot] = coder.low;
    coders.range[slot] = coder.range;
    coders.out[slot] += coder.size;
  }
}

void decode_portable(SlotCoders& coders, int active, const SlotStarts& starts,
                     std::int32_t* digits) {
  RangeDecoder own[digit_slots];
  std::int32_t targets[digit_slots] = {}, at[digit_slots] = {};
  for (int slot = 0; slot < active; ++slot) {
    RangeDecoder& coder = own[slot];
    coder.code = coders.low[slot];
    coder.range = coders.range[slot];
    coder.in = coders.in[slot];
    coder.size = coders.end[slot] - coders.in[slot];
    targets[slot] = static_cast<std::int32_t>(coder.target());
  }
  // The last digit that starts at or before its target.
  for (int d = 1; d < digits_of; ++d) {
    for (int slot = 0; slot < digit_slots; ++slot)
      at[slot] += static_cast<std::int32_t>(starts.of[d * digit_slots + slot]) <= targets[slot];
  }
  for (int slot = 0; slot < active; ++slot) {
    const std::uint32_t* const start = starts.of + at[slot] * digit_slots + slot;
    own[slot].take(start[0], start[digit_slots] - start[0]);
    coders.low[slot] = own[slot].code;
    coders.range[slot] = own[slot].range;
    coders.in[slot] += own[slot].position;
    digits[slot] = at[slot];
  }
}

void learn_portable(SlotLanes& lanes, int active, const std::int32_t* symbols) {
  for (int slot = 0; slot < active; ++slot)
    lanes.context[slot].update(*lanes.known[slot], symbols[slot]);
}

namespace {

void weights_portable(const DigitPriorView& prior, const std::int8_t* inputs,
                      SlotWeights& weights) {
  for (int slot = 0; slot < digit_slots; ++slot) {
    std::int16_t own[prior_scores];
    component_weights(prior, inputs + slot * input_stride, own);
    std::copy(own, own + prior_scores, weights.of + slot * prior_scores);
  }
}

void starts_portable(const DigitPriorView& prior, const SlotWeights& weights,
                     const std::int32_t* contexts, const std::int32_t* highs, SlotStarts& starts) {
  for (int slot = 0; slot < digit_slots; ++slot) {
    std::int16_t own[prior_scores];
    std::copy_n(weights.of + slot * prior_scores, prior_scores, own);
    std::uint32_t frequency[digits_of];
    digit_frequencies(prior, contexts[slot], highs == nullptr ? -1 : highs[slot], own, frequency);
    std::uint32_t sum = 0;
    for (int d = 0; d < digits_of; ++d) {
      starts.of[d * digit_slots + slot] = sum;
      sum += frequency[d];
    }
    starts.of[digits_of * digit_slots + slot] = sum;
  }
}

}  // namespace

const DigitKernels digit_kernels_portable = {start_portable,  look_portable,   weights_portable,
                                             starts_portable, encode_portable, decode_portable,
                                             learn_portable};

#if defined(__x86_64__)
bool has_digits_avx2() { return has_isa(isa_avx2); }
bool has_digits_avx512() {
  return has_isa(isa_avx512f | isa_avx512bw | isa_avx512dq | isa_avx512vl | isa_avx512vnni);
}
#endif

const DigitKernels& digit_kernels() {
  static const DigitKernels& best = []() -> const DigitKernels& {
#if defined(__x86_64__)
    if (has_digits_avx512()) return digit_kernels_avx512;
    if (has_digits_avx2()) return digit_kernels_avx2;
#endif
    return digit_kernels_portable;
  }();
  return best;
}

}  // namespace lmgc
