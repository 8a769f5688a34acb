// Method `lmgc` from elements to lanes and back by its kernels, launched on an emulated device,
// with a model that hashes what it is given: forward over windows and step by step must come to the
// same intervals.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "core/lane_coding.h"
#include "core/lane_tails.h"
#include "cuda/launch.h"
#include "emulated_device.h"

namespace {

using namespace lmgc;
using test::EmulatedDevice;
using Words = std::vector<std::uint32_t>;

const FloatFormat format = float_format(DType::float32);

std::size_t index_of(std::int64_t i) { return static_cast<std::size_t>(i); }

template <class Body>
void launch(std::int64_t count, const Body& body) {
  REQUIRE(cuda::launch(count, body, nullptr) == 0);
}

std::vector<std::int64_t> offsets_of(const std::vector<std::int64_t>& sizes) {
  std::vector<std::int64_t> offsets(1, 0);
  for (const std::int64_t size : sizes) offsets.push_back(offsets.back() + size);
  return offsets;
}

Words gradient(std::int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  Words words;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint32_t exponent = 115 + static_cast<std::uint32_t>(random() % 6);
    std::uint32_t word = (static_cast<std::uint32_t>(random()) & 0x807FFFFFu) | exponent << 23;
    if (random() % 4 == 0) word &= 0x80000000u;   // zero
    if (random() % 40 == 0) word &= 0x8000FFFFu;  // subnormal
    words.push_back(word);
  }
  return words;
}

// ---- the plan -----------------------------------------------------------------------------------

SymbolPlan plan_of(const Words& words, const SerializeOptions& options, bool bypass) {
  EmulatedDevice device;
  const auto elements = static_cast<std::int64_t>(words.size());
  const std::int64_t blocks = (elements - 1) / CountSymbols::block_elements + 1;
  const void* const there = device.put(words);
  CountSymbols count{there, format, elements, {}, nullptr};
  const std::uint8_t constant[most_symbols] = {};
  complete_plan(format, options, constant, count.plan);
  const std::size_t stride = index_of(count.stride());
  count.counts = device.put(std::vector<std::uint32_t>(index_of(blocks) * stride));
  launch(blocks, count);
  std::vector<std::uint64_t> total(stride), expected(stride);
  for (std::size_t i = 0; i < index_of(blocks) * stride; ++i) total[i % stride] += count.counts[i];
  for (const std::uint32_t word : words) {
    if ((word & 0x7FFFFFFFu) == 0) continue;
    ++expected[0];
    for (int s = 0; s < count.plan.symbols; ++s)
      ++expected[1 + (static_cast<std::size_t>(s) << count.plan.bits) +
                 count.plan.symbol_of(word, s)];
  }
  REQUIRE(total == expected);

  SymbolPlan plan = make_plan(format, options, bypass, total.data());
  auto* const zeros = device.put(std::vector<std::uint32_t>(index_of(2 * blocks)));
  launch(blocks, CountZeros{there, format, elements, plan, zeros});
  std::uint64_t with_prefix = 0, zero = 0, expected_prefix = 0, expected_zero = 0;
  for (std::int64_t block = 0; block < blocks; ++block) {
    with_prefix += zeros[2 * block];
    zero += zeros[2 * block + 1];
  }
  for (const std::uint32_t word : words) {
    expected_prefix += plan.zero_prefix(word);
    expected_zero += (word & 0x7FFFFFFFu) == 0;
  }
  REQUIRE(with_prefix == expected_prefix);
  REQUIRE(zero == expected_zero);
  set_zero_flag(with_prefix, zero, plan);
  return plan;
}

// ---- tensors, lanes, and what a model sees of them ----------------------------------------------

struct Batch {
  Batch(const SerializeOptions& options, bool bypass, WindowKind window, std::int64_t max_context) {
    const std::vector<std::int64_t> sizes = {12, 20};
    const MatrixShape shape = matrix_shape(sizes.data(), sizes.size());
    words = {gradient(shape.elements, 1), gradient(shape.elements, 2)};
    Words all = words[0];
    all.insert(all.end(), words[1].begin(), words[1].end());
    plan = plan_of(all, options, bypass);
    for (const Words& own : words) {
      LaneTensor tensor{{}, plan};
      tensor.context.words = device.put(own);
      tensor.context.known = ~plan.raw_mask;
      tensor.context.row_scales =
          device.put(std::vector<std::int16_t>(index_of(shape.rows), 118 * 4));
      tensor.context.columns = shape.columns;
      tensor.context.offsets = neighbour_offsets(shape);
      tensor.context.format = format;
      tensor.context.flat = shape.flat;
      tensors.push_back(tensor);
    }
    // The longest first.
    lanes = {{0, 100, 0},  {1, 100, 99}, {0, 100, 100}, {1, 99, 0},
             {0, 40, 200}, {1, 34, 199}, {1, 7, 233}};
    make_pattern(options, window, max_context);
    tensors_there = device.put(tensors);
    lanes_there = device.put(lanes);
    std::vector<std::int64_t> symbols;
    for (const Lane& lane : lanes) symbols.push_back(std::int64_t{lane.count} * plan.coded_count);
    const std::vector<std::int64_t> offsets = offsets_of(symbols);
    intervals = index_of(offsets.back());
    lane_offset = device.put(offsets);
  }

  // Tokens of symbols and features as csrc/ops/lane_group.cpp makes them.
  void make_pattern(const SerializeOptions& options, WindowKind window, std::int64_t max_context) {
    const TokenPattern whole = token_pattern(format.bytes, options);
    for (const PatternToken& token : whole.tokens) {
      if (token.symbol < 0 || plan.mode[token.symbol] == SymbolMode::lm) tokens.push_back(token);
    }
    std::vector<std::int32_t> ids, coded_index(most_symbols, 0);
    for (std::int32_t id = 0; id <= 1 << plan.bits; ++id) ids.push_back(vocabulary - 1 - id);
    for (int k = 0; k < plan.coded_count; ++k) coded_index[plan.coded[k]] = k;
    std::vector<Feature> features;
    for (const std::string name : {"reference", "left1.level", "digit", "above.value"}) {
      features.emplace_back();
      REQUIRE(find_feature(name, features.back()));
    }
    const auto token_count = static_cast<std::int32_t>(tokens.size());
    pattern = {device.put(tokens),
               token_count,
               whole.elements,
               plan.coded_count,
               device.put(ids),
               device.put(coded_index),
               device.put(features),
               static_cast<std::int32_t>(features.size()),
               2,
               1,
               make_windows(window, max_context, token_count, whole.elements),
               0};
    pattern.row_elements = pattern.windows.elements;
  }

  static constexpr std::int32_t vocabulary = 40;
  EmulatedDevice device;
  std::vector<Words> words;
  SymbolPlan plan;
  std::vector<LaneTensor> tensors;
  std::vector<Lane> lanes;
  std::vector<PatternToken> tokens;
  BatchPattern pattern{};
  const LaneTensor* tensors_there = nullptr;
  const Lane* lanes_there = nullptr;
  std::size_t intervals = 0;
  const std::int64_t* lane_offset = nullptr;
};

// ---- the model ----------------------------------------------------------------------------------

// Sees a token and its features; its logits depend on all that it saw.
std::uint64_t next_state(std::uint64_t state, std::int64_t token, const float* features,
                         int count) {
  state = (state ^ static_cast<std::uint64_t>(token)) * 0x9E3779B97F4A7C15u;
  for (int i = 0; i < count; ++i)
    state = (state ^ static_cast<std::uint64_t>(static_cast<std::int64_t>(features[i]))) *
            0xD6E8FEB86659FD93u;
  return state ^ state >> 29;
}

void put_logits(std::uint64_t state, float* logits) {
  for (std::int32_t v = 0; v < Batch::vocabulary; ++v) {
    state = state * 0x5851F42D4C957F2Du + 0x14057B7EF767814Fu;
    logits[v] = static_cast<float>(state >> 56) / 32.0f - 4.0f;
  }
}

std::vector<Interval> intervals_of_windows(Batch& batch) {
  BatchPattern pattern = batch.pattern;
  std::vector<WindowRow> rows;
  std::int32_t longest = 0;
  for (std::size_t lane = 0; lane < batch.lanes.size(); ++lane) {
    for_each_window(pattern.windows, batch.lanes[lane].count,
                    [&](std::int32_t first, std::int32_t known, std::int32_t count) {
                      rows.push_back({static_cast<std::int32_t>(lane), first, known, count});
                      longest = std::max(longest, count);
                    });
  }
  pattern.row_elements = (longest - 1) / pattern.elements * pattern.elements + pattern.elements;
  EmulatedDevice& device = batch.device;
  const auto count = static_cast<std::int64_t>(rows.size());
  const std::int64_t row_tokens = pattern.row_tokens();
  const WindowRow* const there = device.put(rows);
  auto* const tokens = device.room<std::int64_t>(index_of(count * row_tokens));
  auto* const features = device.room<float>(index_of(count * row_tokens * pattern.feature_count));
  launch(count * pattern.row_elements,
         PrepareWindows{batch.tensors_there, batch.lanes_there, there, pattern, tokens, features});
  auto* const logits = device.room<float>(index_of(count * row_tokens * Batch::vocabulary));
  for (std::int64_t row = 0; row < count; ++row) {
    std::uint64_t state = 0;
    for (std::int64_t at = row * row_tokens; at < (row + 1) * row_tokens; ++at) {
      state = next_state(state, tokens[at], features + at * pattern.feature_count,
                         pattern.feature_count);
      put_logits(state, logits + at * Batch::vocabulary);
    }
  }
  auto* const intervals = device.room<Interval>(batch.intervals);
  launch(count * row_tokens,
         CodeWindows{batch.tensors_there, batch.lanes_there, there, pattern, logits,
                     Batch::vocabulary, 1.0f, intervals, batch.lane_offset});
  return device.get(intervals, batch.intervals);
}

// As run_lockstep() of csrc/ops/lockstep.h: code(element, symbol, first, last, active, logits,
// tokens) for each symbol that is coded.
template <class Code>
void step_by_step(Batch& batch, const LaneTensor* tensors, const Code& code) {
  const BatchPattern& pattern = batch.pattern;
  EmulatedDevice& device = batch.device;
  auto active = static_cast<std::int64_t>(batch.lanes.size());
  const std::size_t most = batch.lanes.size();
  std::vector<std::uint64_t> states(most);
  auto* const tokens = device.room<std::int64_t>(most);
  auto* const features = device.put(std::vector<float>(most * index_of(pattern.feature_count)));
  auto* const logits = device.room<float>(most * Batch::vocabulary);
  const auto walk = [&](std::int32_t element, const auto& see) {
    launch(active, StepFeatures{tensors, batch.lanes_there, pattern, element, features});
    for (const PatternToken& token : batch.tokens) {
      if (token.element != element % pattern.elements) continue;
      for (std::int64_t i = 0; i < active; ++i) {
        float* const own = features + i * pattern.feature_count;
        own[pattern.digit_feature] = static_cast<float>(batch.plan.digit_of(token.symbol));
        std::uint64_t& state = states[index_of(i)];
        state = next_state(state, tokens[i], own, pattern.feature_count);
        put_logits(state, logits + i * Batch::vocabulary);
      }
      if (token.symbol < 0) {
        std::fill(tokens, tokens + active, pattern.vocab_ids[1 << batch.plan.bits]);
      } else {
        see(token.symbol);
      }
    }
  };
  for (std::int32_t element = 0;; ++element) {
    while (active > 0 && batch.lanes[index_of(active - 1)].count <= element) --active;
    if (active == 0) break;
    if (pattern.windows.codes_from(element)) {
      std::fill(states.begin(), states.end(), 0);
      std::fill(tokens, tokens + active, pattern.bos);
      const std::int32_t known = element == 0 ? 0 : pattern.windows.overlap;
      for (std::int32_t before = element - known; before < element; ++before) {
        walk(before, [&](std::int32_t symbol) {
          launch(active, StepRecall{tensors, batch.lanes_there, pattern, before, symbol, tokens});
        });
      }
    }
    std::int32_t coded = 0;
    walk(element, [&](std::int32_t symbol) {
      ++coded;
      code(element, symbol, coded == 1, coded == pattern.coded_count, active, logits, tokens);
    });
  }
}

std::vector<Interval> intervals_of_steps(Batch& batch) {
  auto* const intervals = batch.device.room<Interval>(batch.intervals);
  step_by_step(batch, batch.tensors_there,
               [&](std::int32_t element, std::int32_t symbol, bool, bool, std::int64_t active,
                   const float* logits, std::int64_t* tokens) {
                 launch(active, StepEncode{batch.tensors_there, batch.lanes_there, batch.pattern,
                                           element, symbol, logits, Batch::vocabulary, 1.0f, tokens,
                                           intervals, batch.lane_offset});
               });
  return batch.device.get(intervals, batch.intervals);
}

// ---- bytes --------------------------------------------------------------------------------------

// Lanes or tails, one after the other.
struct Coded {
  std::vector<std::int64_t> sizes;
  std::vector<std::uint8_t> bytes;
};

Coded coded_lanes(Batch& batch, const std::vector<Interval>& intervals) {
  EmulatedDevice& device = batch.device;
  const auto count = static_cast<std::int64_t>(batch.lanes.size());
  std::vector<std::int64_t> bounds;
  for (const Lane& lane : batch.lanes) bounds.push_back(lane_bound(batch.plan, lane.count));
  const std::vector<std::int64_t> bound_offsets = offsets_of(bounds);
  const std::int64_t* const from = device.put(bound_offsets);
  auto* const out = device.room<std::uint8_t>(index_of(bound_offsets.back()));
  auto* const sizes = device.room<std::int64_t>(index_of(count));
  launch(count, EncodeLanes{batch.tensors_there, batch.lanes_there, device.put(intervals),
                            batch.lane_offset, out, from, sizes});
  Coded coded{device.get(sizes, index_of(count)), {}};
  const std::vector<std::int64_t> offsets = offsets_of(coded.sizes);
  auto* const compact = device.room<std::uint8_t>(index_of(offsets.back()));
  launch(count, CopyLanes{out, from, compact, device.put(offsets), sizes});
  coded.bytes = device.get(compact, index_of(offsets.back()));
  std::vector<std::uint8_t> expected;
  for (std::size_t i = 0; i < batch.lanes.size(); ++i)
    expected.insert(expected.end(), out + from[i], out + from[i] + sizes[i]);
  REQUIRE(coded.bytes == expected);
  return coded;
}

std::vector<std::int64_t> tail_sizes(Batch& batch, const LaneTensor* tensors) {
  const std::size_t count = batch.lanes.size();
  auto* const sizes = batch.device.room<std::int64_t>(count);
  launch(static_cast<std::int64_t>(count), MeasureTails{tensors, batch.lanes_there, sizes});
  return batch.device.get(sizes, count);
}

Coded coded_tails(Batch& batch) {
  Coded tails{tail_sizes(batch, batch.tensors_there), {}};
  const std::vector<std::int64_t> offsets = offsets_of(tails.sizes);
  auto* const out = batch.device.room<std::uint8_t>(index_of(offsets.back()));
  launch(static_cast<std::int64_t>(batch.lanes.size()),
         PackTails{batch.tensors_there, batch.lanes_there, out, batch.device.put(offsets)});
  tails.bytes = batch.device.get(out, index_of(offsets.back()));
  return tails;
}

std::vector<Words> decoded(Batch& batch, const Coded& coded, const Coded& tails) {
  EmulatedDevice& device = batch.device;
  const auto count = static_cast<std::int64_t>(batch.lanes.size());
  std::vector<LaneTensor> targets = batch.tensors;
  std::vector<void*> out;
  for (std::size_t t = 0; t < targets.size(); ++t) {
    out.push_back(device.allocate(batch.words[t].size() * format.bytes));
    targets[t].context.words = out.back();
  }
  void* const* const words = device.put(out);
  const LaneTensor* const tensors = device.put(targets);
  auto* const states = device.room<LaneState>(index_of(count));
  launch(count, StartLanes{device.put(coded.bytes), device.put(offsets_of(coded.sizes)),
                           device.put(coded.sizes), states});
  step_by_step(
      batch, tensors,
      [&](std::int32_t element, std::int32_t symbol, bool first, bool last, std::int64_t active,
          const float* logits, std::int64_t* tokens) {
        launch(active, StepDecode{tensors, batch.lanes_there, batch.pattern, element, symbol, first,
                                  last, logits, Batch::vocabulary, 1.0f, states, tokens, words});
      });
  REQUIRE(tail_sizes(batch, tensors) == tails.sizes);
  launch(count, UnpackTails{tensors, batch.lanes_there, device.put(tails.bytes),
                            device.put(offsets_of(tails.sizes)), words});
  std::vector<Words> back;
  for (std::size_t t = 0; t < out.size(); ++t)
    back.push_back(device.get(static_cast<const std::uint32_t*>(out[t]), batch.words[t].size()));
  return back;
}

}  // namespace

TEST_CASE("the device codes lanes by windows and step by step alike, and decodes them") {
  for (const SerializeOptions& options :
       {SerializeOptions{}, SerializeOptions{Separator::space, 2, ByteOrder::big},
        SerializeOptions{Separator::comma, 3, ByteOrder::little}}) {
    for (const bool bypass : {true, false}) {
      for (const WindowKind window : {WindowKind::disjoint, WindowKind::sliding}) {
        for (const std::int64_t context : {1, 40, 250, 100000}) {
          CAPTURE(int(options.separator), bypass, int(window), context);
          Batch batch(options, bypass, window, context);
          const std::vector<Interval> intervals = intervals_of_windows(batch);
          const std::vector<Interval> others = intervals_of_steps(batch);
          REQUIRE(std::equal(intervals.begin(), intervals.end(), others.begin(), others.end(),
                             [](const Interval& a, const Interval& b) {
                               return a.start == b.start &&
                                      a.frequency_less_one == b.frequency_less_one;
                             }));
          const Coded coded = coded_lanes(batch, intervals), tails = coded_tails(batch);
          REQUIRE(decoded(batch, coded, tails) == batch.words);
        }
      }
    }
  }
}

TEST_CASE("the device counts the symbols of many blocks") {
  plan_of(gradient(2 * CountSymbols::block_elements + 100, 3), {}, true);
}
