// What method lm knows of a symbol: marks against exact integers, and the features against a slow
// reimplementation from the words of docs/prior.md.
#include "core/digit_context.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "digit_cases.h"
#include "slow_lane.h"

using namespace lmgc;
using test::power, test::within, test::slow_context, test::SlowLane, test::Wide;

namespace {

struct Shape {
  std::int64_t columns, taps;
  bool flat = false;
};

constexpr std::int64_t huge = std::int64_t{1} << 40;
const std::vector<Shape> shapes = {{36, 9},
                                   {18, 9},
                                   {4, 2},
                                   {6, 2},
                                   {6, 3},
                                   {12, 3},
                                   {27, 3},
                                   {128, 64},
                                   {192, 64},
                                   {130, 65},
                                   {66, 33},
                                   {100, 25},
                                   {9, 9},
                                   {10, 3},
                                   {2, 2},
                                   {8, 9},
                                   {1, 1},
                                   {2, 1},
                                   {3, 1},
                                   {4, 1},
                                   {5, 1},
                                   {7, 1},
                                   {8, 1},
                                   {9, 1},
                                   {10, 1},
                                   {11, 1},
                                   {12, 1},
                                   {13, 1},
                                   {50, 1},
                                   {50, 0},
                                   {300, 1},
                                   {256, 1, true},
                                   {huge, 1},
                                   {huge, 16},
                                   {70000, 7},
                                   {1LL << 31, 1},
                                   {(1LL << 31) - 1, 1},
                                   {(1LL << 29) + 9, 1},
                                   {3LL << 30, 3}};

}  // namespace

TEST_CASE("magnitudes are the nearest integers to eight times the logarithm") {
  for (int i = 0; i < 128; ++i) {
    CAPTURE(i);
    const int m = mark_magnitude(i);
    // 2^(2m - 1) < (1 + i)^16 < 2^(2m + 1)
    const Wide x = power(1 + static_cast<unsigned>(i), 16);
    CHECK(power(2, 2 * m) < 2 * x);
    CHECK(x < power(2, 2 * m + 1));
    CHECK(mark_magnitude(-i) == m);
  }
  CHECK(mark_magnitude(-128) == -32);
  CHECK(mark_value(-128) == 0);
  for (int mark = -127; mark < 128; ++mark) CHECK(mark_value(mark) == mark);
}

TEST_CASE("marks are residuals in sixteenths of the width, rounded") {
  for (int width = -16; width <= 15; ++width) {
    for (int fraction = 0; fraction < 32; ++fraction) {
      const Known known{static_cast<std::int8_t>(width), static_cast<std::uint8_t>(fraction), 0};
      REQUIRE(mark_of(0, known) == 127);
      REQUIRE(mark_of(1, known) == -128);
      REQUIRE(mark_of(2, known) == -128);
      for (int symbol = 3; symbol < 256; ++symbol) {
        const int v = 32 * (symbol - 129) + 16 - fraction;
        const int mark = mark_of(symbol, known);
        const auto size = static_cast<unsigned>(std::abs(mark));
        if (mark < -127 || mark > 127 || (mark > 0 && v < 0) || (mark < 0 && v > 0))
          FAIL("mark " << mark << " of " << v);
        // size - 1/2 <= |v| / 2 / 2^(width / 4) < size + 1/2, doubled, to the fourth power
        const Wide x = power(static_cast<unsigned>(std::abs(v)), 4) << (width < 0 ? -width : 0);
        const int up = width > 0 ? width : 0;
        const bool beyond = size != 127 && !(x < power(2 * size + 1, 4) << up);
        const bool below = size != 0 && x < power(2 * size - 1, 4) << up;
        if (beyond || below) FAIL("mark " << mark << " of " << v << " in width " << width);
      }
    }
  }
}

TEST_CASE("contexts of the kinds lie side by side") {
  std::vector<bool> seen(digit_contexts);
  for (const DigitKind kind : {DigitKind::unpredicted, DigitKind::predicted, DigitKind::factor}) {
    for (int width = -16; width <= 15; ++width) {
      for (int fraction = 0; fraction < 32; ++fraction) {
        const Known known{static_cast<std::int8_t>(width), static_cast<std::uint8_t>(fraction), 0};
        const int context = digit_context(known, kind);
        REQUIRE(context == slow_context(known, kind));
        REQUIRE(context < digit_contexts);
        seen[static_cast<std::size_t>(context)] = true;
      }
    }
  }
  CHECK(digit_contexts == 148);
  CHECK(std::find(seen.begin(), seen.end(), false) == seen.end());
}

TEST_CASE("widths are clamped to what a byte of features can tell") {
  for (int width = -300; width < 300; ++width) {
    CHECK(known_width(width) == within(width, -16, 15));
    CHECK(std::abs(8 * known_width(width)) <= 128);
  }
}

TEST_CASE("taps that do not suit the columns are none") {
  const auto taps = [](std::int64_t columns, std::int64_t wish) {
    return digit_geometry(columns, wish, DigitKind::predicted, false).taps;
  };
  CHECK(taps(18, 9) == 9);
  CHECK(taps(4, 2) == 2);
  CHECK(taps(128, 64) == 64);
  CHECK(taps(130, 65) == 1);
  CHECK(taps(9, 9) == 1);  // a single channel
  CHECK(taps(19, 9) == 1);
  CHECK(taps(18, 1) == 1);
  CHECK(taps(18, 0) == 1);
  CHECK(taps(18, -9) == 1);
  CHECK(taps(huge, huge) == 1);
}

TEST_CASE("features have names, each its own") {
  SlowLane lane(36, 9, DigitKind::predicted, false, 0);
  std::vector<std::string> names;
  std::vector<int> values;
  lane.features({}, &names, values);
  REQUIRE(names.size() == digit_feature_count);
  CHECK(digit_feature_count == 51);
  for (int i = 0; i < digit_feature_count; ++i) {
    CHECK(digit_feature_names[static_cast<std::size_t>(i)] == names[static_cast<std::size_t>(i)]);
    CHECK(find_digit_feature(names[static_cast<std::size_t>(i)]) == i);
  }
  CHECK(find_digit_feature("") == -1);
  CHECK(find_digit_feature("left4.value") == -1);
}

TEST_CASE("features are what the documentation says") {
  std::mt19937_64 random(1);
  for (const Shape& shape : shapes) {
    for (const DigitKind kind : {DigitKind::unpredicted, DigitKind::predicted, DigitKind::factor}) {
      for (const std::string& symbols : test::symbol_kinds) {
        CAPTURE(shape.columns, shape.taps, static_cast<int>(kind), symbols);
        const std::int64_t count = shape.columns > 100 ? 300 : 5 * shape.columns + 40;
        // Lanes start wherever the one before ends.
        const auto first = static_cast<std::int64_t>(random() >> 20) % (5 * shape.columns);
        const test::SymbolCase own(symbols, kind, count, random);
        const DigitGeometry geometry = digit_geometry(shape.columns, shape.taps, kind, shape.flat);
        // Exactly as much room as it may use.
        std::vector<Trace> traces(static_cast<std::size_t>(count));
        LaneContext context;
        context.start(geometry, first, traces.data());
        SlowLane slow(shape.columns, shape.taps, kind, shape.flat, first);
        std::vector<int> expected;
        for (std::int64_t i = 0; i < count; ++i) {
          const Known& known = own.known[static_cast<std::size_t>(i)];
          if (random() % 64 == 0) {
            // Coefficients at their limits, where few streams take them.
            const auto n = static_cast<std::size_t>(random() % 16);
            slow.own_coefficients()[n] = random() % 2 == 0 ? 32760 : -32760;
            context.coefficient[context.tap][n] =
                static_cast<std::int16_t>(slow.own_coefficients()[n]);
          }
          std::int8_t inputs[digit_inputs];
          context.inputs(known, inputs);
          slow.features(known, nullptr, expected);
          for (int f = 0; f < digit_feature_count; ++f) {
            const int high = digit_feature(f, 0, known, kind, inputs);
            if (high != expected[static_cast<std::size_t>(f)])
              FAIL(digit_feature_names[static_cast<std::size_t>(f)]
                   << " of symbol " << i << " is " << high << ", not "
                   << expected[static_cast<std::size_t>(f)]);
            const int low = digit_feature(f, 1, known, kind, inputs);
            if (low != (f == 0 ? 1 : high)) FAIL("the low digit's feature " << f << " differs");
          }
          const int symbol = own.symbols[static_cast<std::size_t>(i)];
          const std::int16_t* const coefficients = context.coefficient[context.tap];
          const std::vector<int>& expected_coefficients = slow.own_coefficients();
          context.update(known, symbol);
          slow.update(known, symbol);
          if (!std::equal(coefficients, coefficients + 16, expected_coefficients.begin()))
            FAIL("coefficients after symbol " << i);
        }
      }
    }
  }
}

TEST_CASE("the loops for other processors give the same features") {
  std::mt19937_64 random(2);
  for (const Shape& shape : shapes) {
    for (const std::string& symbols : test::symbol_kinds) {
      for (const std::int64_t count : {3, 40, 1500}) {
        const auto first = static_cast<std::int64_t>(random() % 1000);
        const auto kind = random() % 2 == 0 ? DigitKind::predicted : DigitKind::factor;
        const test::SymbolCase own(symbols, kind, count, random);
        const DigitGeometry geometry = digit_geometry(shape.columns, shape.taps, kind, shape.flat);
        std::vector<std::int8_t> inputs(static_cast<std::size_t>(count) * digit_inputs),
            plain(inputs.size());
        std::vector<Trace> traces(static_cast<std::size_t>(count));
        LaneContext context;
        context.start(geometry, first, traces.data());
        // Short lanes show whether coefficients stop where they must.
        std::vector<std::int16_t> coefficients(sizeof context.coefficient / sizeof(std::int16_t));
        for (auto& coefficient : coefficients)
          coefficient = count > 100 ? 0 : random() % 2 == 0 ? 32766 : -32766;
        std::memcpy(context.coefficient, coefficients.data(), sizeof context.coefficient);
        for (std::int64_t i = 0; i < count; ++i) {
          const Known& known = own.known[static_cast<std::size_t>(i)];
          context.inputs(known, inputs.data() + i * digit_inputs);
          context.update(known, own.symbols[static_cast<std::size_t>(i)]);
        }
        test::plain_digit_inputs(&geometry, own.known.data(), own.symbols.data(), first, count,
                                 coefficients.data(), plain.data());
        CAPTURE(shape.columns, shape.taps, symbols, count);
        REQUIRE(std::equal(inputs.begin(), inputs.end(), plain.begin()));
        REQUIRE(std::memcmp(context.coefficient, coefficients.data(), sizeof context.coefficient) ==
                0);
      }
    }
  }
}

TEST_CASE("neighbours lie behind, and as far as a lane may go") {
  for (const Shape& shape : shapes) {
    CAPTURE(shape.columns, shape.taps);
    const DigitGeometry geometry =
        digit_geometry(shape.columns, shape.taps, DigitKind::predicted, shape.flat);
    bool all = true;
    for (const std::int32_t offset : geometry.offset) {
      all = all && offset >= 1;
      CHECK(offset >= 0);
    }
    CHECK(all == (shape.columns > 2 || geometry.taps > 1));
    CHECK(geometry.offset[0] == 1);
    CHECK(geometry.offset[15] == std::min<std::int64_t>(4 * shape.columns, INT32_MAX));
  }
}

TEST_CASE("what a lane has become does not reach the next") {
  std::mt19937_64 random(3);
  const DigitGeometry geometry = digit_geometry(36, 9, DigitKind::predicted, false);
  const test::SymbolCase own("smooth", DigitKind::predicted, 300, random);
  std::vector<Trace> traces(300, Trace{99, 99}), fresh(300);
  LaneContext used, other;
  used.start(geometry, 11, traces.data());
  for (std::size_t i = 0; i < 300; ++i) {
    std::int8_t inputs[digit_inputs];
    used.inputs(own.known[i], inputs);
    used.update(own.known[i], own.symbols[i]);
  }
  used.start(geometry, 40, traces.data());
  other.start(geometry, 40, fresh.data());
  for (std::size_t i = 0; i < 300; ++i) {
    std::int8_t one[digit_inputs], two[digit_inputs];
    used.inputs(own.known[i], one);
    other.inputs(own.known[i], two);
    REQUIRE(std::equal(one, one + digit_inputs, two));
    used.update(own.known[i], own.symbols[i]);
    other.update(own.known[i], own.symbols[i]);
  }
}
