// One lane of method `lm` from end to end, by one thread: the engine's loop for devices, where
// there are enough lanes for every thread to have its own.
#pragma once

#include <cstdint>

#include "core/digit_coder.h"
#include "core/digit_prior.h"
#include "core/range_coder.h"

namespace lmgc {

// What lanes have in common; all of it where the body runs. `room` has two bytes for each symbol of
// all lanes before a lane's end.
struct DigitLanes {
  DigitPriorView prior;
  const DigitMatrix* matrices;
  const DigitLane* lanes;
  const std::int64_t* symbols_before;  // of each lane, in all lanes
  std::int8_t* room;

  LMGC_HD void start(std::int64_t index, LaneContext& context) const {
    const DigitLane& lane = lanes[index];
    std::int8_t* const own = room + 2 * symbols_before[index];
    context.start(matrices[lane.matrix].geometry, lane.first, own, own + lane.count);
  }
};

struct EncodeDigitLane {
  DigitLanes all;
  std::uint8_t* out;  // lane i has room for lane_bound(2 count) bytes at 4 symbols_before + 2 i
  std::int64_t* sizes;

  LMGC_HD void operator()(std::int64_t index) const {
    const DigitLane& lane = all.lanes[index];
    const DigitMatrix& matrix = all.matrices[lane.matrix];
    LaneContext context;
    all.start(index, context);
    RangeEncoder coder;
    coder.out = out + 4 * all.symbols_before[index] + 2 * index;
    for (std::int32_t i = 0; i < lane.count; ++i) {
      const Known known = matrix.known[lane.first + i];
      const int symbol = matrix.symbols[lane.first + i];
      std::int8_t inputs[padded_inputs] = {};
      std::int16_t weights[prior_scores];
      context.inputs(known, inputs);
      component_weights(all.prior, inputs, weights);
      const int place = digit_context(known, matrix.geometry.kind);
      for (int high = -1, digit = symbol >> 4;; high = digit, digit = symbol & 15) {
        std::uint32_t frequency[digits_of];
        digit_frequencies(all.prior, place, high, weights, frequency);
        std::uint32_t start = 0;
        for (int d = 0; d < digit; ++d) start += frequency[d];
        coder.put(start, frequency[digit]);
        if (high >= 0) break;
      }
      context.update(known, symbol);
    }
    sizes[index] = coder.finish();
  }
};

struct DecodeDigitLane {
  DigitLanes all;
  const LaneBytes* bytes;

  LMGC_HD void operator()(std::int64_t index) const {
    const DigitLane& lane = all.lanes[index];
    const DigitMatrix& matrix = all.matrices[lane.matrix];
    LaneContext context;
    all.start(index, context);
    RangeDecoder coder;
    coder.start(bytes[index].data, static_cast<std::int64_t>(bytes[index].size));
    for (std::int32_t i = 0; i < lane.count; ++i) {
      const Known known = matrix.known[lane.first + i];
      std::int8_t inputs[padded_inputs] = {};
      std::int16_t weights[prior_scores];
      context.inputs(known, inputs);
      component_weights(all.prior, inputs, weights);
      const int place = digit_context(known, matrix.geometry.kind);
      int digits[2];
      for (int which = 0; which < 2; ++which) {
        std::uint32_t frequency[digits_of];
        digit_frequencies(all.prior, place, which == 0 ? -1 : digits[0], weights, frequency);
        std::uint32_t start;
        digits[which] = find_symbol(frequency, digits_of, coder.target(), start);
        coder.take(start, frequency[digits[which]]);
      }
      const int symbol = 16 * digits[0] + digits[1];
      matrix.symbols[lane.first + i] = static_cast<std::uint8_t>(symbol);
      context.update(known, symbol);
    }
  }
};

}  // namespace lmgc
