// Scales of the rows and columns of residuals.
#include "core/residual_scales.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "fixed_cases.h"
#include "stream_cases.h"

using namespace lmgc;

namespace {

const FloatFormat single = float_format(DType::float32);
constexpr std::int32_t least_floor = 8 * (-1022 - 52);

// Residuals of known deviations, as levels.
struct Known {
  Known(std::int64_t rows, std::int64_t columns, double row_octaves, double column_octaves,
        unsigned seed)
      : rows(rows), columns(columns) {
    std::mt19937_64 random(seed);
    std::normal_distribution<double> normal;
    const FixedFormat format(single);
    for (std::int64_t i = 0; i < rows; ++i) row_logs.push_back(row_octaves * normal(random) - 9);
    for (std::int64_t j = 0; j < columns; ++j)
      column_logs.push_back(column_octaves * normal(random));
    for (const double row : row_logs) {
      for (const double column : column_logs) {
        const double value = std::exp2(row + column) * normal(random);
        levels.push_back(residual_level(test::word_of(value, format), {}, format));
      }
    }
  }
  ResidualMatrix matrix() const {
    return {levels.data(), rows * columns, rows, columns, least_floor};
  }

  std::int64_t rows, columns;
  std::vector<double> row_logs, column_logs;  // of deviations
  std::vector<std::int16_t> levels;
};

struct Found {
  Scales scales;
  bool has_columns = false;
};
Found found(const ResidualMatrix& matrix, bool may_have_columns,
            const Parallel& parallel = run_serially) {
  Found result;
  result.scales = residual_scales(matrix, may_have_columns, result.has_columns, parallel);
  REQUIRE(static_cast<std::int64_t>(result.scales.rows.size()) == matrix.rows);
  REQUIRE(static_cast<std::int64_t>(result.scales.columns.size()) ==
          (result.has_columns ? matrix.columns : 0));
  if (!may_have_columns) REQUIRE_FALSE(result.has_columns);
  return result;
}

}  // namespace

TEST_CASE("levels of residuals are eighths of an octave") {
  const FixedFormat format(single);
  const auto level = [&](double value, Prediction prediction = {}) {
    return residual_level(test::word_of(value, format), prediction, format);
  };
  CHECK(level(1) == 0);
  CHECK(level(-1) == 0);
  CHECK(level(1.5) == 4);
  CHECK(level(0.25) == -16);
  CHECK(level(0) == no_level);
  CHECK(level(INFINITY) == no_level);
  CHECK(residual_level(0x7FC12345, {}, format) == no_level);
  CHECK(level(1, {3, -1}) == -8);
  CHECK(level(1, {1, 0}) == no_level);
  CHECK(level(1, {-3, 0}) == 16);
  CHECK(level(1, {1, 90000}) == no_level);  // beyond a double
  CHECK(level(1, {1, -90000}) == 0);        // nothing
  CHECK(level(0, {1, 500}) == 4000);
  CHECK(level(0, {1, -1000}) == -8000);
}

TEST_CASE("values and powers of two are exact") {
  std::mt19937_64 random(30);
  for (const FloatFormat plain : test::float_formats) {
    const FixedFormat format(plain);
    for (int i = 0; i < 20000; ++i) {
      const std::uint64_t word = test::some_word(random, format);
      if (format.exponent_field(word) == format.infinite_field) continue;
      REQUIRE(test::word_of(value_of(word, format), format) == word);
    }
  }
  for (int exponent = -1022; exponent <= 1023; ++exponent)
    REQUIRE(power_of_two(exponent) == std::ldexp(1.0, exponent));
  REQUIRE(power_of_two(-5000) == std::ldexp(1.0, -1022));
  REQUIRE(power_of_two(5000) == std::ldexp(1.0, 1023));
}

TEST_CASE("known scales of rows and columns are found within a quarter octave") {
  for (const double octaves : {0.0, 0.5, 3.0}) {
    for (const double column_octaves : {0.0, 0.5, 3.0}) {
      const Known known(700, 700, octaves, column_octaves, 31);
      const Found both = found(known.matrix(), true);
      REQUIRE(both.has_columns);
      double most = 0, sum = 0;
      for (std::size_t i = 0; i < 700; ++i) {
        for (std::size_t j = 0; j < 700; ++j) {
          const double own = both.scales.rows[i] + both.scales.columns[j];
          const double exact = 4 * (known.row_logs[i] + known.column_logs[j]);
          most = std::max(most, std::abs(own - exact));
          sum += std::abs(own - exact);
        }
      }
      CHECK(most <= 2);  // a row's and a column's
      CHECK(sum < 0.6 * 700 * 700);
    }
    const Known rows_only(100, 4000, octaves, 0, 32);
    const Found one = found(rows_only.matrix(), false);
    for (std::size_t i = 0; i < 100; ++i)
      REQUIRE(std::abs(one.scales.rows[i] - 4 * rows_only.row_logs[i]) <= 1);
  }
}

TEST_CASE("columns of few rows have scales only where they pay") {
  CHECK_FALSE(found(Known(4, 1000, 1, 0, 33).matrix(), true).has_columns);
  CHECK(found(Known(20, 1000, 1, 4, 33).matrix(), true).has_columns);
}

TEST_CASE("scales do not depend on how work is shared") {
  std::mt19937_64 random(34);
  for (const auto& [rows, columns] : std::vector<std::pair<std::int64_t, std::int64_t>>{
           {1, 1}, {1, 300}, {300, 1}, {2, 20}, {63, 65}, {64, 64}, {500, 129}, {7, 40000}}) {
    Known known(rows, columns, 2, 2, 35);
    for (auto& level : known.levels) {
      if (random() % 3 == 0) level = no_level;
    }
    for (const bool may_have_columns : {false, true}) {
      const Found serial = found(known.matrix(), may_have_columns);
      for (const Parallel& parallel :
           {Parallel(test::run_backwards), Parallel(test::run_on_threads)}) {
        const Found other = found(known.matrix(), may_have_columns, parallel);
        REQUIRE(other.has_columns == serial.has_columns);
        REQUIRE(other.scales.rows == serial.scales.rows);
        REQUIRE(other.scales.columns == serial.scales.columns);
      }
    }
  }
}

TEST_CASE("lines without a level do not disturb the others") {
  Known known(200, 300, 1, 1, 36);
  const Found before = found(known.matrix(), true);
  for (std::size_t i = 0; i < 200; ++i) {
    for (std::size_t j = 0; j < 300; ++j) {
      if (i == 17 || j == 5) known.levels[i * 300 + j] = no_level;
    }
  }
  const Found after = found(known.matrix(), true);
  // How a level is split between rows and columns is free.
  for (std::size_t i = 0; i < 200; ++i) {
    for (std::size_t j = 0; j < 300; ++j) {
      if (i == 17 || j == 5) continue;
      const int one = before.scales.rows[i] + before.scales.columns[j];
      const int two = after.scales.rows[i] + after.scales.columns[j];
      if (std::abs(one - two) > 2) FAIL(one << " and " << two);
    }
  }
}

TEST_CASE("no levels at all, the extremes, and a short last row have scales") {
  for (const bool may_have_columns : {false, true}) {
    const std::vector<std::int16_t> none(70 * 20, no_level);
    const Found zeros = found({none.data(), 1400, 70, 20, least_floor}, may_have_columns);
    for (const std::int16_t row : zeros.scales.rows) REQUIRE(2 * row >= least_floor - 1);

    std::mt19937_64 random(37);
    for (int trial = 0; trial < 50; ++trial) {
      std::vector<std::int16_t> levels(70 * 20);
      for (auto& level : levels) {
        const std::int16_t choices[] = {no_level, -8592, 8191, 8190, 0};
        level = choices[random() % (2 + static_cast<unsigned>(trial) % 4)];
      }
      const Found wild = found({levels.data(), 1400, 70, 20, -500}, may_have_columns);
      for (const std::int16_t row : wild.scales.rows) {
        REQUIRE(2 * row >= -501);
        REQUIRE(row <= 1 << 13);
      }
      for (const std::int16_t column : wild.scales.columns) REQUIRE(std::abs(column) <= 1 << 13);
    }
  }
  // A flat matrix whose last row has three elements.
  Known flat(5, 256, 2, 0, 38);
  flat.levels.resize(4 * 256 + 3);
  const ResidualMatrix matrix{flat.levels.data(), 4 * 256 + 3, 5, 256, least_floor};
  const Found found_flat = found(matrix, false);
  for (std::size_t i = 0; i < 4; ++i)
    CHECK(std::abs(found_flat.scales.rows[i] - 4 * flat.row_logs[i]) <= 1.5);
  CHECK(std::abs(found_flat.scales.rows[4] - 4 * flat.row_logs[4]) <= 12);
}
