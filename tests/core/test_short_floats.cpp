// Short floats: words there and back, and what is found to be spare.
#include "core/short_floats.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "core/residual_scales.h"
#include "fixed_cases.h"

namespace lmgc {
namespace {

const FloatFormat half = float_format(DType::float16);
const FloatFormat single = float_format(DType::float32);
const FloatFormat double_ = float_format(DType::float64);

UsedBits used_by(const std::vector<std::uint64_t>& words, FloatFormat format) {
  std::vector<std::uint64_t> stored(words.size());
  for (std::size_t i = 0; i < words.size(); ++i)
    store_word(stored.data(), format.bytes, static_cast<std::int64_t>(i), words[i]);
  UsedBits used;
  const auto elements = static_cast<std::int64_t>(words.size());
  FindUsedBits{stored.data(), format, elements, &used}(0);
  return used;
}

Spare spare_of_words(const std::vector<std::uint64_t>& words, FloatFormat format) {
  return spare_of(used_by(words, format), format);
}

void check_round_trip(std::uint64_t word, const ShortFloats& floats) {
  const std::uint64_t coded = floats.shorten(word);
  REQUIRE(coded >> floats.coded.bits() == 0);
  REQUIRE(floats.lengthen(coded) == word);
}

TEST_CASE("every word of a format is that of a longer one") {
  // All short words: there and back the other way, one to one.
  for (const Spare spare : {Spare{3, 0}, Spare{7, 0}, Spare{1, 4}, Spare{5, 29}, Spare{7, 12}}) {
    REQUIRE(suits(spare, half));
    const ShortFloats floats{half, shortened(half, spare)};
    const FixedFormat own(floats.coded), whole(half);
    for (std::uint64_t word = 0; word < std::uint64_t{2} << (own.bits - 1); ++word) {
      const std::uint64_t longer = floats.lengthen(word);
      REQUIRE(longer >> 16 == 0);
      if (own.exponent_field(word) > own.infinite_field) continue;  // no encoder writes them
      REQUIRE(floats.shorten(longer) == word);
      const bool infinite = own.exponent_field(word) == own.infinite_field;
      REQUIRE((whole.exponent_field(longer) == whole.infinite_field) == infinite);
      if (!infinite) REQUIRE(value_of(word, own) == value_of(longer, whole));
    }
  }
}

TEST_CASE("tensors of few bits are told by short words") {
  std::mt19937_64 random(1);
  for (const FloatFormat format : {half, float_format(DType::bfloat16), single, double_}) {
    const FixedFormat own(format);
    for (int round = 0; round < 400; ++round) {
      const int zeros = static_cast<int>(random() % static_cast<unsigned>(own.mantissa));
      const int grid = static_cast<int>(random() % static_cast<unsigned>(own.infinite_field));
      std::vector<std::uint64_t> words;
      for (int i = 0; i < 40; ++i) {
        std::uint64_t word = test::some_word(random, own) >> zeros << zeros;
        // What is below the grid goes, unless the number is not finite.
        const int field = own.exponent_field(word);
        if (field != own.infinite_field && round % 2 == 0) {
          const int below = grid - (field == 0 ? 1 : field);
          if (below > own.mantissa) {
            word &= own.sign();
          } else if (below > 0) {
            word = word >> below << below;
          }
        }
        words.push_back(word);
      }
      const Spare spare = spare_of_words(words, format);
      REQUIRE(suits(spare, format));
      REQUIRE(spare.mantissa_bits >= std::min(zeros, own.mantissa - least_mantissa_bits));
      if (!spare.any()) continue;
      const ShortFloats floats{format, shortened(format, spare)};
      REQUIRE(floats.coded.bits() <= 8 * floats.coded.bytes);
      for (const std::uint64_t word : words) check_round_trip(word, floats);
    }
  }
}

TEST_CASE("what is spare") {
  const auto word = [](float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return std::uint64_t{bits};
  };
  const std::uint64_t nan = word(NAN), infinity = word(INFINITY);
  CHECK_FALSE(spare_of_words({word(0.1f)}, single).any());
  CHECK_FALSE(spare_of_words({word(1), nan | 1}, single).any());  // a payload takes them all
  CHECK(spare_of_words({nan, infinity, word(0), word(-0.0f)}, single).mantissa_bits == 20);
  CHECK(spare_of_words({nan, infinity, word(0)}, single).exponents == 0);
  // 64 to 127 in steps of 1: six bits of mantissa; what is below 64 is subnormal.
  const Spare integers = spare_of_words({word(127), word(64), word(-1), word(0), nan}, single);
  CHECK(integers.mantissa_bits == 17);
  CHECK(integers.exponents == 126 + 6);
  CHECK(spare_of_words({word(1), word(2)}, single).mantissa_bits == 20);
  // Above all numbers that there are: one exponent of normal numbers is left.
  const Spare huge = spare_of_words({word(1.5f * 0x1p127f)}, single);
  CHECK(huge.exponents == 253);
  check_round_trip(word(-1.5f * 0x1p127f), {single, shortened(single, huge)});

  CHECK(suits({}, single));
  CHECK_FALSE(suits({0, 1}, single));
  CHECK_FALSE(suits({21, 0}, single));
  CHECK_FALSE(suits({20, 254}, single));
  CHECK_FALSE(suits({1, 0}, float_format(DType::int32)));
}

}  // namespace
}  // namespace lmgc
