// Elements next to those of a reference: the arithmetic of the prediction, and whole sections.
#include "core/delta.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "core/fixed_section.h"
#include "section_cases.h"
#include "stream_cases.h"

namespace {

using namespace lmgc;
using test::Bytes, test::Case, test::Wish;

// Long doubles have a wider range of exponents than all formats.
long double value_of(const Prediction& prediction) {
  return std::ldexp(static_cast<long double>(prediction.value), prediction.exponent);
}

}  // namespace

TEST_CASE("a prediction is the sum of reference and product, to a 32nd of a bin") {
  std::mt19937_64 random(3);
  for (const FloatFormat plain : test::float_formats) {
    const FixedFormat format(plain);
    for (int trial = 0; trial < 3000; ++trial) {
      const std::uint64_t word = test::some_word(random, format);
      if (format.exponent_field(word) == format.infinite_field) continue;
      const Prediction product{static_cast<std::int64_t>(random() % 2001) - 1000,
                               static_cast<int>(random() % 40) - 30};
      const int field = std::max(format.exponent_field(word), 1);
      const int ulp = field - format.bias - format.mantissa;
      const int quantum = ulp + static_cast<int>(random() % 30) - 8;
      const auto factor = static_cast<std::uint32_t>(random() % (most_delta_factor + 1));
      const Prediction made = predict_by(word, factor, product, quantum, format);
      REQUIRE(made.exponent == std::max(quantum, ulp) - 5);
      const std::uint64_t significand =
          (word & format.mantissa_mask()) |
          (format.exponent_field(word) == 0 ? 0 : format.mantissa_mask() + 1);
      const long double sign = (word & format.sign()) != 0 ? -1 : 1;
      const long double scaled = static_cast<long double>(significand) * factor / 65536;
      const long double exact = sign * std::ldexp(std::floor(scaled), ulp) + value_of(product);
      const long double unit = std::ldexp(1.0L, made.exponent);
      if (std::abs(value_of(product)) > unit * 0x1p59L) continue;
      CAPTURE(word, factor, product.value, product.exponent, quantum);
      // Both terms are rounded down; long doubles round, too.
      const long double off = (value_of(made) - exact) / unit,
                        slack = 1e-18L * std::abs(exact) / unit;
      CHECK(off <= slack);
      CHECK(off > -2 - slack);
    }
  }
}

TEST_CASE("what is no number predicts nothing, and nothing overflows") {
  const FixedFormat format(float_format(DType::float64));
  const Prediction product{7, -3};
  for (const std::uint64_t word : {0x7FF0000000000000ull, 0xFFF8000000000001ull}) {
    const Prediction made = predict_by(word, delta_one, product, -20, format);
    CHECK(made.value == product.value);
    CHECK(made.exponent == product.exponent);
  }
  for (const std::int64_t value : {std::int64_t{1} << 61, -(std::int64_t{1} << 61)}) {
    for (const int exponent : {-2000, -40, 0, 40, 2000}) {
      const Prediction made =
          predict_by(0x7FEFFFFFFFFFFFFF, most_delta_factor, {value, exponent}, 900, format);
      CHECK(std::abs(made.value) < std::int64_t{1} << 62);
    }
  }
}

TEST_CASE("sections with a reference decode to what they were, on any number of threads") {
  for (const FloatFormat format : test::float_formats) {
    for (const auto& kind : test::element_kinds) {
      for (const std::int64_t rank : {0, 2}) {
        for (const bool dead : {false, true}) {
          Case tensor({kind, {40, 50}, format, rank, dead});
          Case other = tensor;  // the reference: the same, changed here and there
          std::mt19937_64 random(5);
          for (std::int64_t i = 0; i < tensor.shape.elements; ++i) {
            const std::uint64_t word = load_word(other.words.data(), format.bytes, i);
            store_word(other.words.data(), format.bytes, i, word ^ (random() & 3));
          }
          tensor.head.reference = {true, 7, delta_one - 9, other.words.data()};
          const Product product = test::product_of(tensor.head, tensor.shape);
          const FixedSection section =
              encode_fixed(tensor.input(), tensor.head, product, run_serially);
          Bytes bytes(section.size()), again(section.size());
          section.write(bytes.data());
          const FixedSection shared =
              encode_fixed(tensor.input(), tensor.head, product, test::run_on_threads);
          REQUIRE(shared.size() == bytes.size());
          shared.write(again.data());
          CHECK(again == bytes);

          FixedSource source;
          const auto& sizes = tensor.wish.sizes;
          REQUIRE(read_fixed(bytes.data(), bytes.size(), sizes.data(), sizes.size(), rank > 0, true,
                             run_serially, source) == Status::ok);
          REQUIRE(source.head.reference.is_there);
          REQUIRE(source.head.reference.checksum == 7);
          REQUIRE(source.head.reference.factor == delta_one - 9);
          source.head.reference.words = other.words.data();
          std::vector<std::uint64_t> words(tensor.words.size());
          REQUIRE(decode_fixed(source, format, test::product_of(source.head, source.shape),
                               words.data(), run_serially) == Status::ok);
          REQUIRE(std::memcmp(words.data(), tensor.words.data(), tensor.bytes()) == 0);
        }
      }
    }
  }
}

TEST_CASE("a reference's factor beyond its range is refused") {
  Case tensor({"noise", {12, 20}});
  tensor.head.reference = {true, 7, most_delta_factor, tensor.words.data()};
  for (const std::uint32_t more : {0u, 1u}) {
    tensor.head.reference.factor = most_delta_factor + more;
    const FixedSection section = encode_fixed(tensor.input(), tensor.head, {}, run_serially);
    Bytes bytes(section.size());
    section.write(bytes.data());
    FixedSource source;
    CHECK(read_fixed(bytes.data(), bytes.size(), tensor.wish.sizes.data(), 2, false, true,
                     run_serially, source) == (more == 0 ? Status::ok : Status::bad_section));
  }
}
