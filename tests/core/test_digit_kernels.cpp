// Kernels of the native engine, each against its plain twin: features, network, intervals, range
// coders.
#include "core/digit_kernels.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "core/range_coder.h"
#include "digit_cases.h"

using namespace lmgc;
using test::all_kernels, test::NamedKernels, test::PriorCase, test::ReadyPrior, test::Zeros;

namespace {

// digit_frequencies() of one slot, as SlotStarts has them.
void plain_starts(const DigitPriorView& prior, const std::int8_t* inputs, int context, int high,
                  std::uint32_t (&starts)[digits_of + 1]) {
  std::int16_t weights[prior_scores];
  component_weights(prior, inputs, weights);
  std::uint32_t frequency[digits_of];
  digit_frequencies(prior, context, high, weights, frequency);
  starts[0] = 0;
  for (int d = 0; d < digits_of; ++d) starts[d + 1] = starts[d] + frequency[d];
}

// Compares what a kernel makes of inputs with the plain arithmetic, for high and low digits.
void check_starts(const NamedKernels& named, const DigitPriorView& prior,
                  const test::SlotInputs& inputs, const std::int32_t* contexts,
                  const std::int32_t* highs) {
  SlotWeights weights;
  named.kernels.weights(prior, inputs.of, weights);
  for (const std::int32_t* const after : {static_cast<const std::int32_t*>(nullptr), highs}) {
    SlotStarts starts;
    std::fill(std::begin(starts.of), std::end(starts.of), 0xABCDABCD);
    named.kernels.starts(prior, weights, contexts, after, starts);
    for (int slot = 0; slot < digit_slots; ++slot) {
      std::uint32_t expected[digits_of + 1];
      plain_starts(prior, inputs.row(slot), contexts[slot], after == nullptr ? -1 : after[slot],
                   expected);
      REQUIRE(expected[digits_of] == cdf_total);
      for (int d = 0; d <= digits_of; ++d) {
        if (starts.of[d * digit_slots + slot] != expected[d])
          FAIL(named.name << ", slot " << slot << ", " << (after == nullptr ? "high" : "low")
                          << " digit " << d);
      }
    }
  }
}

}  // namespace

TEST_CASE("all kernels give the intervals of the plain arithmetic") {
  std::mt19937 random(1);
  for (const auto& [hidden1, hidden2] :
       std::vector<std::pair<int, int>>{{16, 16}, {32, 64}, {112, 16}, {128, 128}}) {
    for (const bool extreme : {false, true}) {
      for (const Zeros zeros : {Zeros::some, Zeros::never, Zeros::always}) {
        CAPTURE(hidden1, hidden2, extreme, static_cast<int>(zeros));
        const ReadyPrior ready(
            PriorCase(hidden1, hidden2, static_cast<unsigned>(hidden1), extreme, zeros));
        REQUIRE(ready.error.empty());
        for (int trial = 0; trial < 30; ++trial) {
          const test::SlotInputs inputs = test::some_slot_inputs(random);
          std::int32_t contexts[digit_slots], highs[digit_slots];
          for (int slot = 0; slot < digit_slots; ++slot) {
            contexts[slot] = static_cast<std::int32_t>(random() % digit_contexts);
            highs[slot] = static_cast<std::int32_t>(random() % (slot % 2 == 0 ? 16 : 2));
          }
          for (const NamedKernels& named : all_kernels())
            check_starts(named, ready.prior.view(), inputs, contexts, highs);
        }
      }
    }
  }
}

TEST_CASE("all kernels agree in every context, after every high digit") {
  const ReadyPrior ready(PriorCase(16, 16, 2));
  std::mt19937 random(2);
  const test::SlotInputs inputs = test::some_slot_inputs(random);
  for (int context = 0; context < digit_contexts; ++context) {
    std::int32_t contexts[digit_slots], highs[digit_slots];
    for (int slot = 0; slot < digit_slots; ++slot) {
      contexts[slot] = context;
      highs[slot] = slot;
    }
    for (const NamedKernels& named : all_kernels())
      check_starts(named, ready.prior.view(), inputs, contexts, highs);
  }
}

TEST_CASE("the parabola of the logarithm fits half a word") {
  // digit_starts.h takes 65535 for the one 65536 there is.
  for (std::int32_t fraction = 0; fraction < 4096; ++fraction) {
    const std::int32_t parabola = (fraction * (4096 - fraction)) >> 6;
    const std::int32_t factor = 6895 - ((fraction * 2562) >> 12);
    REQUIRE(factor > 0);
    if (((parabola * factor) >> 20) != ((std::min(parabola, 65535) * factor) >> 20))
      FAIL("fraction " << fraction);
  }
}

TEST_CASE("contexts come from a table as they are computed") {
  for (int width = least_known_width; width <= most_known_width; ++width) {
    for (int fraction = 0; fraction < 32; ++fraction) {
      const Known known{static_cast<std::int8_t>(width), static_cast<std::uint8_t>(fraction), 0};
      for (const DigitKind kind :
           {DigitKind::unpredicted, DigitKind::predicted, DigitKind::factor}) {
        if (digit_context_table.of(known, kind) != digit_context(known, kind))
          FAIL("width " << width << ", fraction " << fraction);
      }
    }
  }
}

TEST_CASE("this processor's kernels are one of those there are") {
  bool found = false;
  for (const NamedKernels& named : all_kernels())
    found = found || &digit_kernels() == &named.kernels;
  CHECK(found);
}

// ---- features -----------------------------------------------------------------------------------

namespace {

// A lane, and what a single context makes of it.
struct PlainLane {
  PlainLane(std::int64_t columns, std::int64_t taps, DigitKind kind, bool flat, std::int64_t first,
            const std::string& symbols, std::int64_t count, std::mt19937_64& random)
      : geometry(digit_geometry(columns, taps, kind, flat)),
        start(first),
        lane(symbols, kind, count, random),
        traces(static_cast<std::size_t>(count)) {
    context.start(geometry, first, traces.data());
  }
  DigitGeometry geometry;
  std::int64_t start;
  test::SymbolCase lane;
  std::vector<Trace> traces;
  LaneContext context;
};

}  // namespace

TEST_CASE("all kernels see and learn what a single lane does") {
  constexpr std::int64_t far = std::int64_t{1} << 33;
  struct Shape {
    std::int64_t columns, taps;
    bool flat;
  };
  const std::vector<Shape> shapes = {
      {36, 9, false},  {50, 1, false},   {1, 1, false},    {2, 1, false},
      {3, 1, false},   {7, 1, false},    {8, 1, false},    {9, 1, false},
      {12, 3, false},  {100, 25, false}, {128, 64, false}, {256, 1, true},
      {300, 1, false}, {far, 1, false},  {far, 4, false},  {4, 2, false}};
  constexpr int steps = 700;
  for (const NamedKernels& named : all_kernels()) {
    std::mt19937_64 random(3);
    for (int trial = 0; trial < 8; ++trial) {
      const auto lanes = std::make_unique<SlotLanes>();
      std::vector<std::unique_ptr<PlainLane>> plain;
      std::vector<std::vector<Trace>> traces;
      for (int slot = 0; slot < digit_slots; ++slot) {
        const Shape& shape = shapes[static_cast<std::size_t>(slot + trial) % shapes.size()];
        const auto kind = static_cast<DigitKind>(random() % 3);
        const std::int64_t first =
            static_cast<std::int64_t>(random() >> 20) % std::min(5 * shape.columns, far);
        plain.push_back(std::make_unique<PlainLane>(
            shape.columns, shape.taps, kind, shape.flat, first,
            test::symbol_kinds[random() % test::symbol_kinds.size()], steps, random));
        // Exactly as much room as a lane has, and nothing that it should count on.
        traces.emplace_back(steps, Trace{99, 99});
        LaneContext& context = lanes->context[slot];
        context.start(plain.back()->geometry, first, traces.back().data());
        if (trial % 2 == 1) {
          // Coefficients stop where they must.
          for (auto& row : context.coefficient) {
            for (auto& own : row)
              own = random() % 2 == 0 ? std::int16_t{32766} : std::int16_t{-32766};
          }
          std::memcpy(plain.back()->context.coefficient, context.coefficient,
                      sizeof context.coefficient);
        }
        named.kernels.start(*lanes, slot);
      }
      const int active = trial < 4 ? digit_slots : 1 + static_cast<int>(random() % digit_slots);
      CAPTURE(named.name, trial, active);
      for (std::size_t i = 0; i < steps; ++i) {
        test::SlotInputs inputs;
        std::int32_t contexts[digit_slots] = {}, symbols[digit_slots] = {};
        for (int slot = 0; slot < active; ++slot) {
          const test::SymbolCase& lane = plain[static_cast<std::size_t>(slot)]->lane;
          lanes->known[slot] = &lane.known[i];
          symbols[slot] = lane.symbols[i];
        }
        named.kernels.look(*lanes, active, inputs.of, contexts);
        named.kernels.learn(*lanes, active, symbols);
        for (int slot = 0; slot < active; ++slot) {
          PlainLane& own = *plain[static_cast<std::size_t>(slot)];
          const Known& known = own.lane.known[i];
          std::int8_t expected[input_stride] = {};
          own.context.inputs(known, expected);
          own.context.update(known, own.lane.symbols[i]);
          if (!std::equal(expected, expected + input_stride, inputs.row(slot)) ||
              contexts[slot] != digit_context(known, own.geometry.kind))
            FAIL("symbol " << i << " of slot " << slot << " is seen otherwise");
          if (std::memcmp(own.context.coefficient, lanes->context[slot].coefficient,
                          sizeof own.context.coefficient) != 0)
            FAIL("coefficients of slot " << slot << " after symbol " << i);
        }
      }
    }
  }
}

// ---- range coders -------------------------------------------------------------------------------

namespace {

// Intervals of all slots: even ones, or such that most of the room is one digit's.
SlotStarts some_starts(std::mt19937& random) {
  SlotStarts starts;
  for (int slot = 0; slot < digit_slots; ++slot) {
    std::uint32_t frequency[digits_of];
    std::uint32_t left = cdf_total - digits_of;
    for (auto& own : frequency) {
      const std::uint32_t more = random() % 3 == 0 ? random() % (left / 4 + 1) : 0;
      own = 1 + more;
      left -= more;
    }
    frequency[random() % 2 == 0 ? 0 : random() % digits_of] += left;
    std::uint32_t before = 0;
    for (int d = 0; d <= digits_of; ++d) {
      starts.of[d * digit_slots + slot] = before;
      if (d < digits_of) before += frequency[d];
    }
  }
  return starts;
}

}  // namespace

TEST_CASE("all kernels code digits as a single range coder does") {
  constexpr int steps = 2000;
  for (const NamedKernels& named : all_kernels()) {
    for (const int active : {16, 16, 5, 1}) {
      CAPTURE(named.name, active);
      std::mt19937 random(static_cast<unsigned>(active));
      SlotCoders coders = {};
      std::vector<std::vector<std::uint8_t>> bytes(digit_slots), expected(digit_slots);
      std::vector<RangeEncoder> plain(digit_slots);
      std::vector<SlotStarts> all;
      std::vector<std::vector<std::int32_t>> digits;
      for (std::size_t slot = 0; slot < digit_slots; ++slot) {
        bytes[slot].resize(static_cast<std::size_t>(lane_bound(steps)));
        expected[slot] = bytes[slot];
        plain[slot].out = expected[slot].data();
        coders.low[slot] = plain[slot].low;
        coders.range[slot] = plain[slot].range;
        coders.out[slot] = bytes[slot].data();
      }
      for (int i = 0; i < steps; ++i) {
        all.push_back(some_starts(random));
        std::vector<std::int32_t> own(digit_slots);
        for (std::size_t slot = 0; slot < static_cast<std::size_t>(active); ++slot) {
          // Where carries are likely, the last digit.
          own[slot] = random() % 3 == 0 ? digits_of - 1 : static_cast<int>(random() % digits_of);
          const std::uint32_t* const start =
              all.back().of + own[slot] * digit_slots + static_cast<std::ptrdiff_t>(slot);
          plain[slot].put(start[0], start[digit_slots] - start[0]);
        }
        digits.push_back(own);
        named.kernels.encode(coders, active, all.back(), own.data());
        for (std::size_t slot = 0; slot < static_cast<std::size_t>(active); ++slot) {
          if (coders.low[slot] != plain[slot].low || coders.range[slot] != plain[slot].range ||
              coders.out[slot] - bytes[slot].data() != plain[slot].size)
            FAIL("slot " << slot << " after digit " << i);
        }
      }
      SlotCoders decoders = {};
      for (std::size_t slot = 0; slot < static_cast<std::size_t>(active); ++slot) {
        CHECK(std::equal(expected[slot].begin(), expected[slot].begin() + plain[slot].size,
                         bytes[slot].begin()));
        expected[slot].resize(static_cast<std::size_t>(plain[slot].finish()));
        RangeDecoder start;
        start.start(expected[slot].data(), static_cast<std::int64_t>(expected[slot].size()));
        decoders.low[slot] = start.code;
        decoders.range[slot] = start.range;
        decoders.in[slot] = expected[slot].data() + start.position;
        decoders.end[slot] = expected[slot].data() + expected[slot].size();
      }
      for (std::size_t i = 0; i < steps; ++i) {
        std::int32_t own[digit_slots] = {};
        named.kernels.decode(decoders, active, all[i], own);
        if (!std::equal(own, own + active, digits[i].begin())) FAIL("decoded digit " << i);
      }
    }
  }
}

TEST_CASE("all kernels decode bytes that no encoder wrote as a single range decoder does") {
  for (const NamedKernels& named : all_kernels()) {
    std::mt19937 random(5);
    for (int trial = 0; trial < 40; ++trial) {
      CAPTURE(named.name, trial);
      const int active = 1 + static_cast<int>(random() % digit_slots);
      std::vector<std::vector<std::uint8_t>> bytes(digit_slots);
      std::vector<RangeDecoder> plain(digit_slots);
      SlotCoders coders = {};
      for (std::size_t slot = 0; slot < static_cast<std::size_t>(active); ++slot) {
        // The highest codes lie beyond the last interval.
        bytes[slot].assign(random() % 60, 0xFF);
        if (random() % 2 == 0) {
          for (auto& byte : bytes[slot]) byte = static_cast<std::uint8_t>(random());
        }
        plain[slot].start(bytes[slot].data(), static_cast<std::int64_t>(bytes[slot].size()));
        coders.low[slot] = plain[slot].code;
        coders.range[slot] = plain[slot].range;
        coders.in[slot] = bytes[slot].data() + plain[slot].position;
        coders.end[slot] = bytes[slot].data() + bytes[slot].size();
      }
      for (int i = 0; i < 200; ++i) {
        const SlotStarts starts = some_starts(random);
        std::int32_t digits[digit_slots] = {};
        named.kernels.decode(coders, active, starts, digits);
        for (std::size_t slot = 0; slot < static_cast<std::size_t>(active); ++slot) {
          std::uint32_t frequency[digits_of], first = 0;
          for (std::size_t d = 0; d < digits_of; ++d)
            frequency[d] =
                starts.of[(d + 1) * digit_slots + slot] - starts.of[d * digit_slots + slot];
          const int digit = find_symbol(frequency, digits_of, plain[slot].target(), first);
          plain[slot].take(first, frequency[digit]);
          if (digits[slot] != digit || coders.low[slot] != plain[slot].code ||
              coders.range[slot] != plain[slot].range ||
              coders.in[slot] - bytes[slot].data() != plain[slot].position)
            FAIL("slot " << slot << ", digit " << i);
        }
      }
    }
  }
}
