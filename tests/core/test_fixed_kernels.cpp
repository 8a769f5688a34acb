// Kernels against the functions that they stand for, one element at a time.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "core/bits.h"
#include "core/delta.h"
#include "core/fixed.h"
#include "core/fixed_kernels.h"
#include "core/fixed_walk.h"
#include "core/residual_scales.h"
#include "core/short_floats.h"

namespace lmgc {
namespace {

constexpr FloatFormat single = float_format(DType::float32);
constexpr FloatFormat formats[] = {{2, 5, 10},
                                   {2, 8, 7},
                                   single,
                                   shortened(single, {20, 90}),
                                   shortened(single, {16, 60}),
                                   shortened(single, {11, 0}),
                                   shortened(float_format(DType::float16), {7, 3}),
                                   shortened(float_format(DType::float64), {48, 0}),
                                   shortened(float_format(DType::float64), {33, 500})};

// A run of elements, most of them near their predictions, others anywhere.
struct Case {
  FloatFormat format;
  std::vector<std::uint64_t> words;
  std::vector<std::uint8_t> bytes;
  std::vector<std::int64_t> product;
  std::vector<std::int16_t> scales, weights;
  FixedRun run;

  Case(FloatFormat plain, int count, bool predicted, std::mt19937_64& random) : format(plain) {
    const FixedFormat own(plain);
    const auto between = [&](int least, int most) {
      return std::uniform_int_distribution<int>(least, most)(random);
    };
    const int centre = between(own.least - 2, own.bias - 20);
    run.row_scale = 4 * centre + between(-8, 8);
    run.row_exponent = centre - between(0, 30);
    const int size = between(1, 62);
    for (int i = 0; i < count; ++i) {
      scales.push_back(static_cast<std::int16_t>(between(-12, 12)));
      weights.push_back(static_cast<std::int16_t>(between(-3, 3)));
      std::int64_t value = static_cast<std::int64_t>(random() >> (64 - size));
      if (between(0, 9) == 0) value = 0;
      product.push_back(between(0, 1) == 0 ? value : -value);
      std::uint64_t word = random() & (own.sign() | own.mantissa_mask());
      const int field = std::clamp(centre + between(-26, 6) + own.bias, 0, own.infinite_field);
      word |= static_cast<std::uint64_t>(field) << own.mantissa;
      const int kind = between(0, 15);
      if (kind == 0) word &= own.sign();
      if (kind == 1) word = random() & (2 * own.sign() - 1);
      if (kind > 8 && predicted) {  // near the prediction
        const double near = static_cast<double>(product.back()) *
                            power_of_two(run.row_exponent + weights.back()) *
                            (1 + 0.001 * between(-9, 9));
        std::uint64_t bits;
        std::memcpy(&bits, &near, sizeof bits);
        const int exponent = static_cast<int>(bits >> 52 & 2047) - 1023 + own.bias;
        if (exponent > 0 && exponent < own.infinite_field) {
          word = (bits >> 63) * own.sign() | static_cast<std::uint64_t>(exponent) << own.mantissa |
                 (bits >> (52 - own.mantissa) & own.mantissa_mask());
        }
      }
      words.push_back(word);
    }
    bytes.resize(words.size() * plain.bytes);
    for (std::size_t i = 0; i < words.size(); ++i)
      store_word(bytes.data(), plain.bytes, static_cast<std::int64_t>(i), words[i]);
    run.product = predicted ? product.data() : nullptr;
    run.column_scales = scales.data();
    run.column_weights = weights.data();
    run.count = count;
    run.bytes = plain.bytes;
    run.bits = own.bits;
    run.mantissa = own.mantissa;
    run.bias = own.bias;
    run.least = own.least;
    run.infinite_field = own.infinite_field;
    run.is_short = is_short(plain);
  }

  Prediction prediction(int i) const {
    if (run.product == nullptr) return {};
    return {product[static_cast<std::size_t>(i)],
            run.row_exponent + weights[static_cast<std::size_t>(i)]};
  }
};

TEST_CASE("fixed kernels do what the functions of one element do") {
  const FixedKernels* const kernels = fixed_kernels();
  if (kernels == nullptr) return;
  std::mt19937_64 random(5);
  for (const FloatFormat plain : formats) {
    const FixedFormat format(plain);
    for (int round = 0; round < 300; ++round) {
      const int count = round % 3 == 0 ? run_elements : static_cast<int>(random() % 40 + 1);
      const bool predicted = round % 2 == 0;
      const Case own(plain, count, predicted, random);
      const Fraction kind = predicted ? Fraction::varies : Fraction::edge;

      // Nothing behind the last is written.
      std::vector<std::int8_t> known(static_cast<std::size_t>(3 * count + 1), 77);
      kernels->known(own.run, known.data());
      CHECK(known.back() == 77);
      FixedBins bins;
      kernels->bins(own.run, bins);
      std::vector<std::int16_t> levels(static_cast<std::size_t>(count));
      kernels->levels(own.run, own.bytes.data(), levels.data());
      std::vector<std::uint8_t> symbols(levels.size()),
          tails(levels.size() * most_tail_bytes + 16, 0xff);
      TailBits at{tails.data() + 1, 5, 3};  // as if three bits were there already
      kernels->split(own.run, bins, own.bytes.data(), symbols.data(), at);

      BitWriter expected;
      expected.put(5, 3);
      for (int i = 0; i < count; ++i) {
        const auto k = static_cast<std::size_t>(i);
        const Bin bin = bin_of(own.prediction(i), own.run.row_scale + own.scales[k], kind, format);
        REQUIRE(bins.quantum[i] == bin.quantum);
        REQUIRE(bins.place[i] == bin.place);
        REQUIRE(bins.contexts[i] == bin.context);
        REQUIRE(known[3 * k] == known_width(bin.width));
        REQUIRE(known[3 * k + 1] == bin.fraction);
        REQUIRE(known[3 * k + 2] == level_of(own.prediction(i), own.run.row_scale + own.scales[k]));
        REQUIRE(levels[k] == residual_level(own.words[k], own.prediction(i), format));
        const FixedElement element = split_element(own.words[k], bin, format);
        REQUIRE(symbols[k] == element.symbol);
        put_tail(expected, element);
      }
      const std::vector<std::uint8_t> written = expected.take();
      if (at.used > 0) *at.at++ = static_cast<std::uint8_t>(at.held);
      REQUIRE(std::vector<std::uint8_t>(tails.data() + 1, at.at) == written);
      REQUIRE(tails[0] == 0xff);
    }
  }
}

// Any symbols and any tails, up to their very end.
TEST_CASE("fixed kernels join what the function of one element joins") {
  const FixedKernels* const kernels = fixed_kernels();
  if (kernels == nullptr) return;
  std::mt19937_64 random(7);
  for (const FloatFormat plain : formats) {
    const FixedFormat format(plain);
    for (int round = 0; round < 300; ++round) {
      const int count = round % 3 == 0 ? run_elements : static_cast<int>(random() % 40 + 1);
      const Case own(plain, count, round % 2 == 0, random);
      FixedBins bins;
      kernels->bins(own.run, bins);
      std::vector<std::uint8_t> symbols(static_cast<std::size_t>(count)),
          tails(symbols.size() * most_tail_bytes + random() % 200);
      for (std::size_t i = 0; i < symbols.size(); ++i) {
        // Those next to zero, whose tails have octaves, more often than others.
        const std::int64_t next_to_zero = symbol_origin - bins.place[i] - (random() % 2 == 0);
        const bool near = random() % 3 == 0 && next_to_zero > 2 && next_to_zero < 256;
        symbols[i] = static_cast<std::uint8_t>(
            near ? next_to_zero
                 : static_cast<std::int64_t>(random() % (random() % 4 == 0 ? 3 : 256)));
      }
      const std::uint64_t sparse = round % 4 == 0 ? random() & random() & random() : ~0ull;
      for (auto& byte : tails) byte = static_cast<std::uint8_t>(random() & random() & sparse);
      BitReader reader(tails.data(), tails.size());
      reader.get(static_cast<int>(random() % 8));

      TailSource source{reader.data(), reader.size(), reader.used()};
      std::vector<std::uint8_t> words(own.bytes.size() + 1, 0xee);
      const int joined = kernels->join(own.run, bins, symbols.data(), source, words.data());
      REQUIRE(joined <= count);
      REQUIRE((joined == count || 8 * tails.size() - source.used < 8 * 16 * 9));
      TailReader tail{reader};
      for (int i = 0; i < joined; ++i) {
        const auto k = static_cast<std::size_t>(i);
        Bin bin;
        bin.quantum = bins.quantum[i];
        bin.place = bins.place[i];
        const std::uint64_t word = load_word(words.data(), plain.bytes, i);
        REQUIRE(word == join_element(symbols[k], bin, format, tail));
      }
      REQUIRE(reader.ok());
      REQUIRE(source.used == reader.used());
      for (std::size_t k = static_cast<std::size_t>(joined) * plain.bytes; k < words.size(); ++k)
        REQUIRE(words[k] == 0xee);
    }
  }
}

TEST_CASE("fixed kernels predict by a reference as the function of one element does") {
  const FixedKernels* const kernels = fixed_kernels();
  if (kernels == nullptr) return;
  std::mt19937_64 random(8);
  for (const FloatFormat plain : formats) {
    if (plain.bytes == 8) continue;
    const FixedFormat format(plain);
    const int finest = format.least - format.mantissa;
    for (int round = 0; round < 400; ++round) {
      const int count = round % 3 == 0 ? run_elements : static_cast<int>(random() % 40 + 1);
      Case own(plain, count, round % 2 == 0, random);
      if (round % 5 == 0) own.run.row_exponent += static_cast<int>(random() % 400) - 200;
      const bool is_finest = round % 4 < 2;
      const auto factor = round % 7 == 0
                              ? delta_one
                              : static_cast<std::uint32_t>(random() % (most_delta_factor + 1));
      std::vector<std::int64_t> values(static_cast<std::size_t>(count) + 1, 77);
      std::vector<std::int16_t> exponents(values.size(), 77);
      kernels->refer(own.run, own.bytes.data(), factor, is_finest, values.data(), exponents.data());
      CHECK((values.back() == 77 && exponents.back() == 77));
      for (int i = 0; i < count; ++i) {
        const auto k = static_cast<std::size_t>(i);
        const int scale = own.run.row_scale + own.scales[k];
        const int quantum =
            is_finest ? finest : std::max((scale >> 2) - bins_per_scale_bits, finest);
        const Prediction expected =
            predict_by(own.words[k], factor, own.prediction(i), quantum, format);
        CAPTURE(i, own.words[k], own.prediction(i).value, own.prediction(i).exponent);
        REQUIRE(values[k] == expected.value);
        REQUIRE(exponents[k] == (expected.value == 0 ? 0 : expected.exponent));
      }
    }
  }
}

TEST_CASE("fixed kernels sum the terms of levels") {
  const FixedKernels* const kernels = fixed_kernels();
  if (kernels == nullptr) return;
  std::mt19937_64 random(6);
  for (int round = 0; round < 60; ++round) {
    const auto rows = static_cast<std::int64_t>(random() % 70 + 1);
    const auto columns = static_cast<int>(random() % 32 + 1);
    const bool refine = round % 2 == 0;
    std::vector<std::int16_t> levels;
    for (std::int64_t i = 0; i < rows * columns; ++i)
      levels.push_back(random() % 8 == 0 ? no_level : static_cast<std::int16_t>(random() % 400));
    std::vector<std::int32_t> of_rows, of_columns;
    for (std::int64_t i = 0; i < rows; ++i)
      of_rows.push_back(static_cast<std::int32_t>(random() % 200));
    for (int j = 0; j < columns; ++j)
      of_columns.push_back(static_cast<std::int32_t>(random() % 200) - 20);

    std::vector<std::int64_t> column_sums(32, 0), column_counts(32, 0);
    kernels->column_terms(levels.data(), columns, rows, of_rows.data(), of_columns.data(), columns,
                          refine, column_sums.data(), column_counts.data());
    std::vector<std::int64_t> sums(32, 0), counts(32, 0);
    for (std::int64_t i = 0; i < rows; ++i) {
      std::int64_t sum = 0, counted = 0, row_sum = 0, row_counted = 0;
      for (int j = 0; j < columns; ++j) {
        const std::int16_t level = levels[static_cast<std::size_t>(i * columns + j)];
        const std::int32_t row = of_rows[static_cast<std::size_t>(i)];
        const std::int32_t column = of_columns[static_cast<std::size_t>(j)];
        if (level == no_level) continue;
        row_sum += level_term(level, column, row, refine);
        ++row_counted;
        sums[static_cast<std::size_t>(j)] += level_term(level, row, column, refine);
        ++counts[static_cast<std::size_t>(j)];
      }
      kernels->row_terms(levels.data() + i * columns, of_columns.data(),
                         of_rows[static_cast<std::size_t>(i)], columns, refine, &sum, &counted);
      REQUIRE(sum == row_sum);
      REQUIRE(counted == row_counted);
    }
    REQUIRE(column_sums == sums);
    REQUIRE(column_counts == counts);
  }
}

}  // namespace
}  // namespace lmgc
