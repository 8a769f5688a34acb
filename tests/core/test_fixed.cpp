// One element of the fixed serializer: split and joined, for any prediction and any scale.
#include "core/fixed.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "core/bits.h"
#include "core/digits.h"
#include "fixed_cases.h"

using namespace lmgc;
using test::float_formats;

namespace {

const std::vector<Fraction> kinds = {Fraction::edge, Fraction::varies};
constexpr int most_scale = (1 << 17) - 1;
constexpr std::int64_t most_prediction = INT64_MAX >> 1;  // 2^62 - 1

// An element's tail, as a section has it.
int put_tail(BitWriter& out, const FixedElement& element) {
  out.put(std::uint64_t{element.one} << element.octaves, element.octaves + element.one);
  out.put(element.tail & UINT32_MAX & ((std::uint64_t{1} << std::min(element.bits, 32)) - 1),
          std::min(element.bits, 32));
  if (element.bits > 32) out.put(element.tail >> 32, element.bits - 32);
  return element.octaves + element.one + element.bits;
}

// Splits and joins a word, with other bits around its tail; returns its symbol.
int check_round_trip(std::uint64_t word, const Bin& bin, const FixedFormat& format) {
  constexpr std::uint64_t guard = 0x15A5;
  const FixedElement element = split_element(word, bin, format);
  BitWriter out;
  out.put(guard, 13);
  const int bits = put_tail(out, element);
  out.put(guard, 13);
  const auto bytes = out.take();
  BitReader in(bytes.data(), bytes.size());
  const bool opened = in.get(13) == guard;
  TailReader tail{in};
  const std::uint64_t back = join_element(element.symbol, bin, format, tail);
  const bool closed = in.get(13) == guard && in.only_padding_left();
  if (back != word || !opened || !closed || bits > 12 * 8 || element.symbol < 0 ||
      element.symbol > 255) {
    CAPTURE(word, back, bin.quantum, bin.place, bin.context, element.symbol, element.octaves,
            element.one, element.bits, format.bits, format.mantissa);
    FAIL("a word does not come back");
  }
  return element.symbol;
}

Bin checked_bin(const Prediction& prediction, int scale, Fraction kind, const FixedFormat& format) {
  const Bin bin = bin_of(prediction, scale, kind, format);
  constexpr std::int64_t most_place = std::int64_t{1} << 53;
  if (bin.context < 0 || bin.context >= contexts_of(kind) || bin.place > most_place ||
      bin.place < -most_place || bin.quantum < format.least - format.mantissa) {
    CAPTURE(prediction.value, prediction.exponent, scale, bin.quantum, bin.context, bin.place);
    FAIL("a bin is out of its range");
  }
  return bin;
}

std::int64_t some_value(std::mt19937_64& random) {
  switch (random() % 8) {
    case 0:
      return 0;
    case 1:
      return most_prediction;
    case 2:
      return -most_prediction;
    case 3:
      return random() % 2 == 0 ? 1 : -1;
    default:
      return static_cast<std::int64_t>(random()) >> (1 + random() % 62);
  }
}

}  // namespace

TEST_CASE("any word comes back whatever was predicted") {
  std::mt19937_64 random(11);
  for (const FloatFormat plain : float_formats) {
    const FixedFormat format(plain);
    for (int trial = 0; trial < 200000; ++trial) {
      const Fraction kind = kinds[random() % 2];
      Prediction prediction;
      if (kind == Fraction::varies) {
        // Exponents of three 16-bit numbers, or such that there is something to predict.
        const bool absurd = random() % 3 == 0;
        prediction.value = some_value(random);
        prediction.exponent =
            absurd ? static_cast<int>(random() % (6 * 32768)) - 3 * 32768
                   : static_cast<int>(random() % (2 * static_cast<unsigned>(format.bias) + 80)) -
                         format.bias - 70;
      }
      const int scale =
          random() % 3 == 0
              ? static_cast<int>(random() % (2 * most_scale + 1)) - most_scale
              : static_cast<int>(random() % (8 * static_cast<unsigned>(format.bias) + 400)) -
                    4 * format.bias - 300;
      const Bin bin = checked_bin(prediction, scale, kind, format);
      check_round_trip(test::some_word(random, format), bin, format);
    }
  }
}

TEST_CASE("every half-precision word comes back from many bins") {
  std::mt19937_64 random(12);
  for (const FloatFormat plain : {float_formats[0], float_formats[1]}) {
    const FixedFormat format(plain);
    for (const int scale : {-most_scale, -700, -540, -120, -97, -96, -95, -60, -1, 0, 1, 2, 3, 17,
                            60, 200, 500, 530, most_scale}) {
      const Prediction prediction{some_value(random), -40 - static_cast<int>(random() % 40)};
      for (const Bin& bin : {checked_bin({}, scale, Fraction::edge, format),
                             checked_bin(prediction, scale, Fraction::varies, format)}) {
        for (std::uint64_t word = 0; word < 65536; ++word) check_round_trip(word, bin, format);
      }
    }
  }
}

TEST_CASE("words near their prediction have a symbol") {
  std::mt19937_64 random(13);
  std::normal_distribution<double> normal;
  for (const FloatFormat plain : float_formats) {
    const FixedFormat format(plain);
    int escapes = 0;
    for (int trial = 0; trial < 20000; ++trial) {
      const auto value = static_cast<std::int64_t>(random() >> 40) - (1 << 23);
      const Prediction prediction{value, -30 + static_cast<int>(random() % 20)};
      const int scale = static_cast<int>(random() % 40) - 40;
      const double sigma = std::exp2(scale / 4.0);
      const double x =
          std::ldexp(static_cast<double>(value), prediction.exponent) + sigma * normal(random);
      const Bin bin = checked_bin(prediction, scale, Fraction::varies, format);
      const std::uint64_t word = test::word_of(x, format);
      if (format.exponent_field(word) == format.infinite_field) continue;
      escapes += check_round_trip(word, bin, format) == symbol_escape;
    }
    CHECK(escapes == 0);
  }
}

TEST_CASE("a prediction that is right is residual zero") {
  std::mt19937_64 random(14);
  for (const FloatFormat plain : float_formats) {
    const FixedFormat format(plain);
    for (int trial = 0; trial < 20000; ++trial) {
      const std::uint64_t most = format.mantissa_mask() + 1;
      const auto magnitude = static_cast<std::int64_t>(1 + random() % most);
      const Prediction prediction{random() % 2 == 0 ? magnitude : -magnitude,
                                  -format.mantissa - static_cast<int>(random() % 12)};
      const int scale = static_cast<int>(random() % 60) - 60;
      const Bin bin = checked_bin(prediction, scale, Fraction::varies, format);
      const double x = std::ldexp(static_cast<double>(prediction.value), prediction.exponent);
      const int symbol = check_round_trip(test::word_of(x, format), bin, format);
      REQUIRE(symbol == symbol_origin);
    }
  }
}

TEST_CASE("zeros need no tail") {
  for (const FloatFormat plain : float_formats) {
    const FixedFormat format(plain);
    const Bin bin = checked_bin({12345, -20}, 3, Fraction::varies, format);
    CHECK(check_round_trip(0, bin, format) == symbol_zero);
    CHECK(check_round_trip(format.sign(), bin, format) == symbol_minus_zero);
    CHECK(split_element(0, bin, format).bits == 0);
    CHECK(split_element(format.sign(), bin, format).bits == 0);
  }
}

TEST_CASE("any symbol with any tail gives a word of the format") {
  std::mt19937_64 random(15);
  for (const FloatFormat plain : float_formats) {
    const FixedFormat format(plain);
    for (int trial = 0; trial < 100000; ++trial) {
      std::vector<std::uint8_t> bytes(random() % 20);
      for (auto& byte : bytes) byte = trial % 2 == 0 ? 0 : static_cast<std::uint8_t>(random());
      BitReader in(bytes.data(), bytes.size());
      TailReader tail{in};
      const Prediction prediction{some_value(random),
                                  static_cast<int>(random() % (6 * 32768)) - 3 * 32768};
      const int scale = static_cast<int>(random() % (2 * most_scale + 1)) - most_scale;
      const Bin bin = checked_bin(trial % 3 == 0 ? Prediction{} : prediction,
                                  trial % 5 == 0 ? scale : scale / 256, Fraction::varies, format);
      const std::uint64_t word = join_element(static_cast<int>(random() % 256), bin, format, tail);
      if ((word & ~(format.sign() | (format.sign() - 1))) != 0) FAIL("more bits than there are");
    }
  }
}
