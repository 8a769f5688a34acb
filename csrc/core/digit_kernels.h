// What the native engine does with sixteen lanes at a time, by kind of processor. Every kernel
// gives the numbers of digit_prior.h's functions. Included by files that are compiled for newer
// processors: it brings no inline functions of its own.
#pragma once

#include <cstdint>

#include "core/digit_prior.h"

namespace lmgc {

inline constexpr int digit_slots = 16;

// Bytes from one slot's inputs to the next slot's: padded_inputs, and zeros up to a cache line.
inline constexpr int input_stride = 64;
static_assert(padded_inputs <= input_stride);

// What a kernel passes from weights() to starts(), in a layout of its own.
struct alignas(64) SlotWeights {
  std::int32_t of[digit_slots * prior_scores];
};

// Where each digit's interval of [0, 2^16) begins, [digit][slot]; a last row of 2^16.
struct alignas(64) SlotStarts {
  std::uint32_t of[(digits_of + 1) * digit_slots];
};

// The lanes under way: what each has seen, and what is known of its next symbol.
struct SlotLanes {
  LaneContext* context[digit_slots];
  const Known* known[digit_slots];
};

struct DigitKernels {
  // LaneContext::inputs() of the first `active` slots, and the contexts of their symbols; into
  // inputs [digit_slots][input_stride], which begin at a cache line.
  void (*look)(const SlotLanes& lanes, int active, std::int8_t* inputs, std::int32_t* contexts);
  // The weights of the components in every slot.
  void (*weights)(const DigitPriorView& prior, const std::int8_t* inputs, SlotWeights& weights);
  // Of the high digits, or, where `highs` is not null, of the low ones after these, in every slot.
  void (*starts)(const DigitPriorView& prior, const SlotWeights& weights,
                 const std::int32_t* contexts, const std::int32_t* highs, SlotStarts& starts);
  // LaneContext::update() of the first `active` slots.
  void (*learn)(const SlotLanes& lanes, int active, const std::int32_t* symbols);
};

// What kernels without a way of their own do.
void look_portable(const SlotLanes& lanes, int active, std::int8_t* inputs, std::int32_t* contexts);
void learn_portable(const SlotLanes& lanes, int active, const std::int32_t* symbols);

extern const DigitKernels digit_kernels_portable;
#if defined(__x86_64__)
extern const DigitKernels digit_kernels_avx2;    // needs AVX2
extern const DigitKernels digit_kernels_avx512;  // needs AVX-512 F, BW, DQ, VL and VNNI
#endif

}  // namespace lmgc
