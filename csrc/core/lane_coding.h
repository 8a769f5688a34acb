// Method `lmgc`: the function objects that move between elements, tokens, logits and coded lanes,
// one call a lane (or a token), on CPU and CUDA alike. lanes.h has the plan and the section's
// format.
#pragma once

#include <cstdint>

#include "core/cdf.h"
#include "core/float_format.h"
#include "core/host_device.h"
#include "core/lanes.h"
#include "core/predict.h"
#include "core/range_coder.h"
#include "core/serialize.h"
#include "core/windows.h"

namespace lmgc {

struct LaneTensor {
  TensorContext context;
  SymbolPlan plan;
};

// A contiguous run of elements of one tensor.
struct Lane {
  std::int32_t tensor;
  std::int32_t count;
  std::int64_t first;
};

// A language model's view of one batch: what token stands where. All lanes of a batch share it.
struct BatchPattern {
  const PatternToken* tokens;  // of one period; only lm symbols and separators
  std::int32_t token_count;
  std::int32_t elements;          // of one period
  std::int32_t coded_count;       // lm symbols of an element
  const std::int32_t* vocab_ids;  // symbol value -> token id; [1 << bits], then the separator's id
  const std::int32_t* coded_index;  // symbol of an element -> its index among the coded ones
  const Feature* features;
  std::int32_t feature_count;
  std::int32_t digit_feature;  // column of `digit`; -1: none
  std::int32_t bos;
  Windows windows;
  std::int32_t row_elements;  // of every row of a forward() batch: whole periods

  LMGC_HD std::int32_t row_tokens() const { return row_elements / elements * token_count; }
};

// A window of a lane: one row of a forward() batch.
struct WindowRow {
  std::int32_t lane;
  std::int32_t first;  // element within the lane
  std::int32_t known;  // elements at its beginning that another window codes
  std::int32_t count;  // with those
};

// Writes one element's tokens and features of a teacher-forced batch; index = row * row_elements +
// element.
struct PrepareWindows {
  const LaneTensor* tensors;
  const Lane* lanes;
  const WindowRow* rows;
  BatchPattern pattern;
  std::int64_t* tokens;  // [rows][row tokens]
  float* features;       // [rows][row tokens][feature_count]

  LMGC_HD void operator()(std::int64_t index) const {
    const std::int64_t row_index = index / pattern.row_elements;
    const auto element = static_cast<std::int32_t>(index % pattern.row_elements);
    const WindowRow row = rows[row_index];
    const Lane lane = lanes[row.lane];
    const LaneTensor& tensor = tensors[lane.tensor];
    const std::int32_t token_count = pattern.row_tokens();
    const std::int32_t period = element / pattern.elements;
    const std::int32_t in_period = element % pattern.elements;
    const bool padding = element >= row.count;
    const std::int64_t at = lane.first + row.first + element;
    const std::uint64_t word =
        padding ? 0 : load_word(tensor.context.words, tensor.context.format.bytes, at);
    std::int64_t* row_tokens = tokens + row_index * token_count;
    if (element == 0) row_tokens[0] = pattern.bos;
    float* first_features = nullptr;
    for (std::int32_t t = 0; t < pattern.token_count; ++t) {
      const PatternToken token = pattern.tokens[t];
      if (token.element != in_period) continue;
      const std::int32_t position = period * pattern.token_count + t;
      const std::uint32_t symbol =
          token.symbol < 0 ? 1u << tensor.plan.bits : tensor.plan.symbol_of(word, token.symbol);
      if (position + 1 < token_count) row_tokens[position + 1] = pattern.vocab_ids[symbol];
      float* out = features + (row_index * token_count + position) * pattern.feature_count;
      if (first_features == nullptr) {
        if (padding) {
          for (int i = 0; i < pattern.feature_count; ++i) out[i] = 0.0f;
        } else {
          compute_features(tensor.context, pattern.features, pattern.feature_count, at, lane.first,
                           out);
        }
        first_features = out;
      } else {
        for (int i = 0; i < pattern.feature_count; ++i) out[i] = first_features[i];
      }
      if (pattern.digit_feature >= 0) {
        out[pattern.digit_feature] = static_cast<float>(tensor.plan.digit_of(token.symbol));
      }
    }
  }
};

// The part of [0, 2^16) that a coded symbol owns: start, and frequency - 1.
struct Interval {
  std::uint16_t start;
  std::uint16_t frequency_less_one;

  // No symbol owns everything: this stands for logits that are no probabilities.
  LMGC_HD static Interval invalid() { return {0xFFFF, 0xFFFF}; }
  LMGC_HD bool is_valid() const { return frequency_less_one != 0xFFFF; }
};

// Invalid where the logits of the legal symbols have a NaN or an infinity above zero. (Minus
// infinity is a way to say "impossible", and as improbable as can be.)
LMGC_HD inline Interval interval_of(const float* logits, const std::int32_t* ids, int symbols,
                                    float steps_per_unit, std::uint32_t symbol) {
  constexpr float most = 3.4028234663852886e38f;
  for (int i = 0; i < symbols; ++i) {
    if (!(logits[ids[i]] <= most)) return Interval::invalid();
  }
  std::uint32_t frequency[cdf_most_symbols];
  logits_to_frequencies(logits, ids, symbols, steps_per_unit, frequency);
  std::uint32_t start = 0;
  for (std::uint32_t i = 0; i < symbol; ++i) start += frequency[i];
  return {static_cast<std::uint16_t>(start), static_cast<std::uint16_t>(frequency[symbol] - 1)};
}

// Logits of a teacher-forced batch -> intervals; index = row * row tokens + token.
struct CodeWindows {
  const LaneTensor* tensors;
  const Lane* lanes;
  const WindowRow* rows;
  BatchPattern pattern;
  const float* logits;  // [rows][row tokens][vocabulary]
  std::int64_t vocabulary;
  float steps_per_unit;
  Interval* intervals;              // of all lanes
  const std::int64_t* lane_offset;  // first interval of each lane

  LMGC_HD void operator()(std::int64_t index) const {
    const std::int32_t row_tokens = pattern.row_tokens();
    const std::int64_t row_index = index / row_tokens;
    const auto position = static_cast<std::int32_t>(index % row_tokens);
    const PatternToken token = pattern.tokens[position % pattern.token_count];
    const std::int32_t element = position / pattern.token_count * pattern.elements + token.element;
    const WindowRow row = rows[row_index];
    if (token.symbol < 0 || element < row.known || element >= row.count) return;
    const Lane lane = lanes[row.lane];
    const LaneTensor& tensor = tensors[lane.tensor];
    const std::uint64_t word = load_word(tensor.context.words, tensor.context.format.bytes,
                                         lane.first + row.first + element);
    const std::int64_t at = lane_offset[row.lane] +
                            static_cast<std::int64_t>(row.first + element) * pattern.coded_count +
                            pattern.coded_index[token.symbol];
    intervals[at] =
        interval_of(logits + index * vocabulary, pattern.vocab_ids, 1 << tensor.plan.bits,
                    steps_per_unit, tensor.plan.symbol_of(word, token.symbol));
  }
};

// Range-codes one lane from its intervals; its size is -1 if one of them is invalid.
struct EncodeLanes {
  const LaneTensor* tensors;
  const Lane* lanes;
  const Interval* intervals;
  const std::int64_t* lane_offset;  // first interval of each lane
  std::uint8_t* out;
  const std::int64_t* out_offset;  // lane i has room for lane_bound() bytes there
  std::int64_t* sizes;

  LMGC_HD void operator()(std::int64_t index) const {
    const Lane lane = lanes[index];
    const LaneTensor& tensor = tensors[lane.tensor];
    const SymbolPlan& plan = tensor.plan;
    RangeEncoder coder;
    coder.out = out + out_offset[index];
    const Interval* interval = intervals + lane_offset[index];
    for (std::int32_t i = 0; i < lane.count; ++i) {
      for (int k = 0; k < plan.coded_count; ++k, ++interval) {
        if (!interval->is_valid()) {
          sizes[index] = -1;
          return;
        }
        coder.put(interval->start, interval->frequency_less_one + 1u);
      }
      if (!plan.elide_zeros) continue;
      const std::uint64_t word =
          load_word(tensor.context.words, tensor.context.format.bytes, lane.first + i);
      if (!plan.zero_prefix(word)) continue;
      if (plan.elided(word)) {
        coder.put(0, plan.zero_frequency);
      } else {
        coder.put(plan.zero_frequency, cdf_total - plan.zero_frequency);
      }
    }
    sizes[index] = coder.finish();
  }
};

// Moves lanes from one layout to another.
struct CopyLanes {
  const std::uint8_t* from;
  const std::int64_t* from_offset;
  std::uint8_t* to;
  const std::int64_t* to_offset;
  const std::int64_t* sizes;

  LMGC_HD void operator()(std::int64_t lane) const {
    for (std::int64_t i = 0; i < sizes[lane]; ++i)
      to[to_offset[lane] + i] = from[from_offset[lane] + i];
  }
};

// Most bytes a lane of `count` elements can take.
LMGC_HD inline std::int64_t lane_bound(const SymbolPlan& plan, std::int32_t count) {
  return lane_bound(static_cast<std::int64_t>(count) *
                    (plan.coded_count + (plan.elide_zeros ? 1 : 0)));
}

// Where a lane's decoding stands.
struct LaneState {
  RangeDecoder coder;
  std::uint64_t word = 0;  // the element's symbols so far
};

// Points every lane's decoder at its bytes.
struct StartLanes {
  const std::uint8_t* frame;
  const std::int64_t* offsets;
  const std::int64_t* sizes;
  LaneState* states;  // uninitialized

  LMGC_HD void operator()(std::int64_t lane) const {
    states[lane] = LaneState{};
    states[lane].coder.start(frame + offsets[lane], sizes[lane]);
  }
};

// Features of element `element` of every active lane, for lockstep coding.
struct StepFeatures {
  const LaneTensor* tensors;
  const Lane* lanes;
  BatchPattern pattern;
  std::int32_t element;
  float* features;  // [lanes][feature_count]

  LMGC_HD void operator()(std::int64_t index) const {
    const Lane lane = lanes[index];
    compute_features(tensors[lane.tensor].context, pattern.features, pattern.feature_count,
                     lane.first + element, lane.first, features + index * pattern.feature_count);
  }
};

// Decodes symbol `symbol` of element `element` of every active lane, hands its token on, and stores
// the element when `last`: all its lm symbols (and its flag) are then known, and constants are
// filled in.
struct StepDecode {
  const LaneTensor* tensors;
  const Lane* lanes;
  BatchPattern pattern;
  std::int32_t element;
  std::int32_t symbol;
  bool first, last;  // of the element's coded symbols
  const float* logits;
  std::int64_t vocabulary;
  float steps_per_unit;
  LaneState* states;
  std::int64_t* tokens;  // [lanes]
  void* const* words;    // of each tensor, written here

  LMGC_HD void operator()(std::int64_t index) const {
    const Lane lane = lanes[index];
    const LaneTensor& tensor = tensors[lane.tensor];
    const SymbolPlan& plan = tensor.plan;
    LaneState& state = states[index];
    std::uint32_t frequency[cdf_most_symbols];
    logits_to_frequencies(logits + index * vocabulary, pattern.vocab_ids, 1 << plan.bits,
                          steps_per_unit, frequency);
    std::uint32_t start;
    const int value = find_symbol(frequency, 1 << plan.bits, state.coder.target(), start);
    state.coder.take(start, frequency[value]);
    tokens[index] = pattern.vocab_ids[value];
    if (first) state.word = 0;
    state.word |= static_cast<std::uint64_t>(value) << plan.shift[symbol];
    if (!last) return;
    bool zero = false;
    if (plan.elide_zeros && plan.zero_prefix(state.word)) {
      zero = state.coder.target() < plan.zero_frequency;
      if (zero) {
        state.coder.take(0, plan.zero_frequency);
      } else {
        state.coder.take(plan.zero_frequency, cdf_total - plan.zero_frequency);
      }
    }
    // Raw bits are all ones until UnpackTails: SymbolPlan::elided() then tells an elided element by
    // its bits alone.
    if (!zero) state.word |= plan.constant_word | plan.raw_mask;
    store_word(words[lane.tensor], tensor.context.format.bytes, lane.first + element, state.word);
  }
};

// The token of symbol `symbol` of element `element`, which is known, of every active lane: what a
// window that begins with it is told.
struct StepRecall {
  const LaneTensor* tensors;
  const Lane* lanes;
  BatchPattern pattern;
  std::int32_t element;
  std::int32_t symbol;
  std::int64_t* tokens;  // [lanes]

  LMGC_HD void operator()(std::int64_t index) const {
    const Lane lane = lanes[index];
    const LaneTensor& tensor = tensors[lane.tensor];
    const std::uint64_t word =
        load_word(tensor.context.words, tensor.context.format.bytes, lane.first + element);
    tokens[index] = pattern.vocab_ids[tensor.plan.symbol_of(word, symbol)];
  }
};

// Records the interval of symbol `symbol` of element `element` of every active lane: StepDecode's
// twin, for encoders that must run in the decoder's order.
struct StepEncode {
  const LaneTensor* tensors;
  const Lane* lanes;
  BatchPattern pattern;
  std::int32_t element;
  std::int32_t symbol;
  const float* logits;
  std::int64_t vocabulary;
  float steps_per_unit;
  std::int64_t* tokens;
  Interval* intervals;
  const std::int64_t* lane_offset;

  LMGC_HD void operator()(std::int64_t index) const {
    const Lane lane = lanes[index];
    const LaneTensor& tensor = tensors[lane.tensor];
    const std::uint64_t word =
        load_word(tensor.context.words, tensor.context.format.bytes, lane.first + element);
    const std::uint32_t value = tensor.plan.symbol_of(word, symbol);
    const std::int64_t at = lane_offset[index] +
                            static_cast<std::int64_t>(element) * pattern.coded_count +
                            pattern.coded_index[symbol];
    intervals[at] = interval_of(logits + index * vocabulary, pattern.vocab_ids,
                                1 << tensor.plan.bits, steps_per_unit, value);
    tokens[index] = pattern.vocab_ids[value];
  }
};

}  // namespace lmgc
