// Method `lmgc`: the tails of lanes, which hold the symbols that go around the language model.
// docs/format.md, section 7.7.
#pragma once

#include <cstdint>

#include "core/float_format.h"
#include "core/host_device.h"
#include "core/lane_coding.h"
#include "core/lanes.h"

namespace lmgc {

// Bytes of a lane's tail: the raw bits of its elements that are not elided, the last byte padded.
LMGC_HD inline std::int64_t tail_size(const LaneTensor& tensor, const Lane& lane) {
  std::int64_t stored = lane.count;
  if (tensor.plan.elide_zeros) {
    stored = 0;
    for (std::int32_t i = 0; i < lane.count; ++i) {
      stored += !tensor.plan.elided(
          load_word(tensor.context.words, tensor.context.format.bytes, lane.first + i));
    }
  }
  return (stored * tensor.plan.raw_bits + 7) / 8;
}

struct MeasureTails {
  const LaneTensor* tensors;
  const Lane* lanes;
  std::int64_t* sizes;
  LMGC_HD void operator()(std::int64_t index) const {
    sizes[index] = tail_size(tensors[lanes[index].tensor], lanes[index]);
  }
};

// The raw symbols of `word` side by side, and back.
LMGC_HD inline std::uint64_t gather_raw(const SymbolPlan& plan, std::uint64_t word) {
  std::uint64_t value = 0;
  for (int s = 0; s < plan.symbols; ++s) {
    if (plan.mode[s] == SymbolMode::raw) value = (value << plan.bits) | plan.symbol_of(word, s);
  }
  return value;
}
LMGC_HD inline std::uint64_t scatter_raw(const SymbolPlan& plan, std::uint64_t value) {
  std::uint64_t word = 0;
  for (int s = plan.symbols - 1; s >= 0; --s) {
    if (plan.mode[s] != SymbolMode::raw) continue;
    word |= (value & ((1u << plan.bits) - 1)) << plan.shift[s];
    value >>= plan.bits;
  }
  return word;
}

// A lane's raw symbols, packed most significant first.
struct PackTails {
  const LaneTensor* tensors;
  const Lane* lanes;
  std::uint8_t* out;
  const std::int64_t* out_offset;

  LMGC_HD void operator()(std::int64_t index) const {
    const Lane lane = lanes[index];
    const LaneTensor& tensor = tensors[lane.tensor];
    std::uint8_t* at = out + out_offset[index];
    std::uint32_t pending = 0;  // the last `filled` bits
    int filled = 0;
    for (std::int32_t i = 0; i < lane.count; ++i) {
      const std::uint64_t word =
          load_word(tensor.context.words, tensor.context.format.bytes, lane.first + i);
      if (tensor.plan.elided(word)) continue;
      std::uint64_t value = gather_raw(tensor.plan, word);
      for (int left = tensor.plan.raw_bits; left > 0; left -= 4) {
        pending = (pending << 4) | (static_cast<std::uint32_t>(value >> (left - 4)) & 15u);
        filled += 4;
        if (filled == 8) {
          *at++ = static_cast<std::uint8_t>(pending);
          filled = 0;
        }
      }
    }
    if (filled != 0) *at = static_cast<std::uint8_t>(pending << 4);
  }
};

// Fills in the raw symbols that PackTails packed. `in` holds all tails, whose sizes were measured
// and checked before.
struct UnpackTails {
  const LaneTensor* tensors;
  const Lane* lanes;
  const std::uint8_t* in;
  const std::int64_t* in_offset;
  void* const* words;

  LMGC_HD void operator()(std::int64_t index) const {
    const Lane lane = lanes[index];
    const LaneTensor& tensor = tensors[lane.tensor];
    const int bytes = tensor.context.format.bytes;
    const std::uint8_t* at = in + in_offset[index];
    std::uint32_t pending = 0;
    int left_in_byte = 0;
    for (std::int32_t i = 0; i < lane.count; ++i) {
      const std::uint64_t word = load_word(words[lane.tensor], bytes, lane.first + i);
      if (tensor.plan.elided(word)) continue;
      std::uint64_t value = 0;
      for (int left = tensor.plan.raw_bits; left > 0; left -= 4) {
        if (left_in_byte == 0) {
          pending = *at++;
          left_in_byte = 8;
        }
        left_in_byte -= 4;
        value = (value << 4) | ((pending >> left_in_byte) & 15u);
      }
      store_word(words[lane.tensor], bytes, lane.first + i,
                 (word & ~tensor.plan.raw_mask) | scatter_raw(tensor.plan, value));
    }
  }
};

}  // namespace lmgc
