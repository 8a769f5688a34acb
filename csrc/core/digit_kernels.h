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

// The lanes under way.
struct SlotLanes {
  // Numbers of the contexts, for kernels that keep them side by side: those of the contexts
  // themselves stand still there, but for the filters, what they have seen and the tap energies.
  enum Field {
    position,
    tap,
    taps,
    columns,
    columns_left,  // until the column is 0 again
    row_left,      // until there is one more row above
    column,        // at most 7
    rows,
    fast,
    slow,
    ahead,
    ahead_back,  // how far back the trace lies that is ahead in the row above
    adaptive,
    tap_energy,
    learns_tap,  // -1 or 0
    predicted,   // -1 or 0
    kind_input,
    factor_input,
    convolution_input,
    flat_input,
    tap_step,
    width,
    fraction,
    level,
    fields
  };
  alignas(64) std::int32_t side[fields][digit_slots] = {};
  const Known* known[digit_slots] = {};  // of the next symbol
  LaneContext context[digit_slots];
};

// The lanes' range coders, RangeEncoder or RangeDecoder, side by side.
struct SlotCoders {
  alignas(64) std::uint64_t low[digit_slots];  // decoder: code
  alignas(64) std::uint64_t range[digit_slots];
  std::uint8_t* out[digit_slots];                          // encoder: the next byte
  const std::uint8_t *in[digit_slots], *end[digit_slots];  // decoder
};

struct DigitKernels {
  // After LaneContext::start() of a slot.
  void (*start)(SlotLanes& lanes, int slot);
  // LaneContext::inputs() of the first `active` slots, and the contexts of their symbols; into
  // inputs [digit_slots][input_stride], which begin at a cache line.
  void (*look)(SlotLanes& lanes, int active, std::int8_t* inputs, std::int32_t* contexts);
  // The weights of the components in every slot.
  void (*weights)(const DigitPriorView& prior, const std::int8_t* inputs, SlotWeights& weights);
  // Of the high digits, or, where `highs` is not null, of the low ones after these, in every slot.
  void (*starts)(const DigitPriorView& prior, const SlotWeights& weights,
                 const std::int32_t* contexts, const std::int32_t* highs, SlotStarts& starts);
  // RangeEncoder::put() of the digits of the first `active` slots; may write two bytes at `out`
  // without moving on.
  void (*encode)(SlotCoders& coders, int active, const SlotStarts& starts,
                 const std::int32_t* digits);
  // RangeDecoder's target() and take(): the digits.
  void (*decode)(SlotCoders& coders, int active, const SlotStarts& starts, std::int32_t* digits);
  // LaneContext::update() of the first `active` slots.
  void (*learn)(SlotLanes& lanes, int active, const std::int32_t* symbols);
};

// Of kernels that have no way of their own.
void start_portable(SlotLanes& lanes, int slot);
void look_portable(SlotLanes& lanes, int active, std::int8_t* inputs, std::int32_t* contexts);
void encode_portable(SlotCoders& coders, int active, const SlotStarts& starts,
                     const std::int32_t* digits);
void decode_portable(SlotCoders& coders, int active, const SlotStarts& starts,
                     std::int32_t* digits);
void learn_portable(SlotLanes& lanes, int active, const std::int32_t* symbols);
#if defined(__x86_64__)
void start_avx512(SlotLanes& lanes, int slot);
void look_avx512(SlotLanes& lanes, int active, std::int8_t* inputs, std::int32_t* contexts);
void encode_avx512(SlotCoders& coders, int active, const SlotStarts& starts,
                   const std::int32_t* digits);
void decode_avx512(SlotCoders& coders, int active, const SlotStarts& starts, std::int32_t* digits);
void learn_avx512(SlotLanes& lanes, int active, const std::int32_t* symbols);
#endif

// The fastest for this processor.
const DigitKernels& digit_kernels();
extern const DigitKernels digit_kernels_portable;
#if defined(__x86_64__)
bool has_digits_avx2();
bool has_digits_avx512();
extern const DigitKernels digit_kernels_avx2;    // needs AVX2
extern const DigitKernels digit_kernels_avx512;  // needs AVX-512 F, BW, DQ, VL and VNNI
#endif

}  // namespace lmgc
