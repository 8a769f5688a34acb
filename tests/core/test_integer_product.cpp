// The integer product of factors against the plain one.
#include "core/integer_product.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <random>
#include <vector>

#include "core/factors.h"
#include "stream_cases.h"

using namespace lmgc;

namespace {

using Random = std::mt19937_64;

constexpr std::int32_t most = 32767;
constexpr std::uint64_t no_sum_beyond = (std::uint64_t{1} << 31) - 1;

// A whole number in [-limit, limit], often at one of the ends.
std::int32_t within(Random& random, std::int32_t limit) {
  const auto any = static_cast<std::int32_t>(random() % (2 * static_cast<unsigned>(limit) + 1));
  const unsigned kind = random() % 8;
  return kind == 0 ? limit : kind == 1 ? -limit : any - limit;
}

Factors factors_of(std::int64_t rows, std::int64_t columns, std::int64_t rank) {
  Factors factors;
  factors.rank = rank;
  factors.exponents.assign(static_cast<std::size_t>(rank), -3);
  factors.u.entries.assign(static_cast<std::size_t>(rows * rank), 0);
  factors.v.entries.assign(static_cast<std::size_t>(columns * rank), 0);
  return factors;
}

// Factors that fit, with gains up to 2^most_gain.
Factors random_factors(Random& random, std::int64_t rows, std::int64_t columns, std::int64_t rank,
                       int most_gain) {
  Factors factors = factors_of(rows, columns, rank);
  std::vector<std::int32_t> u(static_cast<std::size_t>(rank)), v(u.size());
  for (std::size_t c = 0; c < u.size(); ++c) {
    const auto gain = static_cast<int>(random() % static_cast<unsigned>(most_gain + 1));
    factors.exponents[c] = static_cast<std::int16_t>(factors.exponents[c] + gain);
    const auto gain_of_u = static_cast<int>(random() % static_cast<unsigned>(gain + 1));
    // So that the products add up to at most 2^31 - 1.
    const auto product = static_cast<std::int32_t>(no_sum_beyond / static_cast<unsigned>(rank));
    const std::int32_t scaled_u = std::min(product, 1 + static_cast<std::int32_t>(random() % most));
    u[c] = scaled_u >> gain_of_u;
    v[c] = std::min(most, product / scaled_u) >> (gain - gain_of_u);
  }
  for (std::size_t i = 0; i < factors.u.entries.size(); ++i)
    factors.u.entries[i] = within(random, u[i % u.size()]);
  for (std::size_t i = 0; i < factors.v.entries.size(); ++i)
    factors.v.entries[i] = within(random, v[i % v.size()]);
  return factors;
}

bool fits(const Factors& factors) {
  return IntegerProduct::fits(factors, product_bound(factors, run_serially));
}

// Elements [first, first + count) are those of multiply_factors, and no other is written.
void check_range(const Factors& factors, const IntegerProduct& product, std::int64_t columns,
                 std::int64_t first, std::int64_t count) {
  constexpr std::int64_t untouched = std::numeric_limits<std::int64_t>::min();
  CAPTURE(factors.rank, columns, first, count);
  std::vector<std::int64_t> expected(static_cast<std::size_t>(count) + 2, untouched);
  std::vector<std::int64_t> got = expected;
  multiply_factors(factors, columns, first, count, expected.data() + 1);
  product.multiply(first, count, got.data() + 1);
  REQUIRE(got == expected);
}

void check_tiles(TileRun run) {
  Random random(3);
  for (int trial = 0; trial < 2000; ++trial) {
    const auto rows = static_cast<std::int64_t>(random() % 15);
    const auto groups = static_cast<int>(1 + random() % most_groups);
    const auto pairs = static_cast<std::int64_t>(1 + random() % 20);
    const std::int64_t v_stride = groups + static_cast<std::int64_t>(random() % 3);
    const std::int64_t out_stride =
        groups * group_columns + static_cast<std::int64_t>(random() % 9);
    // The largest two products in a pair, or sums that stay below 2^31.
    const std::int32_t limit = pairs == 1 ? most : 7000;
    std::vector<std::int16_t> u(static_cast<std::size_t>(rows * 2 * pairs));
    for (auto& entry : u) entry = static_cast<std::int16_t>(within(random, limit));
    std::vector<ColumnPairs> v(static_cast<std::size_t>(pairs * v_stride));
    for (auto& column_pairs : v) {
      for (auto& entry : column_pairs.entries)
        entry = static_cast<std::int16_t>(within(random, limit));
    }
    std::vector<std::int64_t> expected(static_cast<std::size_t>(rows * out_stride + 1), 7);
    std::vector<std::int64_t> got = expected;
    ProductTile tile{u.data(), v.data(), v_stride, pairs, rows, groups, got.data(), out_stride};
    run(tile);
    tile.out = expected.data();
    multiply_tile_portable(tile);
    CAPTURE(trial, rows, groups, pairs);
    REQUIRE(got == expected);
  }
}

}  // namespace

TEST_CASE("an integer product is the product of the factors, from wherever one begins") {
  Random random(1);
  for (const std::int64_t rank : {1, 2, 3, 7, 64, 255}) {
    for (const std::int64_t columns : {1, 2, 15, 16, 17, 63, 64, 65, 200, 1000}) {
      for (int trial = 0; trial < 6; ++trial) {
        const auto rows = static_cast<std::int64_t>(1 + random() % (rank > 60 ? 20 : 70));
        const Factors factors = random_factors(random, rows, columns, rank, trial % 2 == 0 ? 0 : 9);
        REQUIRE(fits(factors));
        const IntegerProduct product(
            factors, columns, trial % 3 == 0 ? Parallel(test::run_on_threads) : run_serially);
        const std::int64_t elements = rows * columns;
        check_range(factors, product, columns, 0, elements);
        const auto any = [&](std::int64_t limit) {
          return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(limit + 1));
        };
        for (int range = 0; range < 10; ++range) {
          const std::int64_t first = any(elements);
          check_range(factors, product, columns, first, any(elements - first));
          const std::int64_t few = std::min<std::int64_t>(elements - first, 2 * columns);
          check_range(factors, product, columns, first, any(few));
        }
      }
    }
  }
}

TEST_CASE("an integer product of any range of a small matrix") {
  Random random(2);
  for (const std::int64_t columns : {1, 3, 16, 65, 130}) {
    const std::int64_t rows = columns < 20 ? 9 : 3;
    const Factors factors = random_factors(random, rows, columns, 3, 4);
    const IntegerProduct product(factors, columns, run_serially);
    for (std::int64_t first = 0; first <= rows * columns; ++first) {
      for (std::int64_t count = 0; count <= rows * columns - first; count += 1 + count / 40)
        check_range(factors, product, columns, first, count);
    }
  }
}

TEST_CASE("factors at the limits of 16 bits have an integer product") {
  constexpr std::int64_t rows = 8, columns = 70;
  const auto check = [](const Factors& factors) {
    REQUIRE(fits(factors));
    check_range(factors, IntegerProduct(factors, columns, run_serially), columns, 0,
                rows * columns);
  };
  for (const int gain : {0, 1, 7, 14}) {  // of the second component
    for (const int bits_of_u : {0, gain / 2, gain}) {
      Factors factors = factors_of(rows, columns, 2);
      factors.exponents[1] = static_cast<std::int16_t>(factors.exponents[0] + gain);
      for (std::size_t i = 0; i < factors.u.entries.size(); ++i) {
        const std::int32_t u = i % 2 == 0 ? most : most >> bits_of_u;
        factors.u.entries[i] = i % 3 == 0 ? -u : u;
      }
      for (std::size_t i = 0; i < factors.v.entries.size(); ++i) {
        const std::int32_t v = i % 2 == 0 ? most : most >> (gain - bits_of_u);
        factors.v.entries[i] = i % 5 == 0 ? -v : v;
      }
      check(factors);
    }
  }
  // A component that is zero on one side has no gain to speak of.
  for (const bool zero_u : {false, true}) {
    Factors factors = factors_of(rows, columns, 2);
    factors.exponents[1] = 20;
    for (std::size_t i = 0; i < factors.u.entries.size(); i += 2) factors.u.entries[i] = most;
    for (std::size_t i = 0; i < factors.v.entries.size(); i += 2) factors.v.entries[i] = -most;
    auto& other = zero_u ? factors.v.entries : factors.u.entries;
    for (std::size_t i = 1; i < other.size(); i += 2) other[i] = 100;
    check(factors);
  }
}

TEST_CASE("what does not fit 16 bits or sums of 32 has no integer product") {
  const auto one = [](std::int32_t u, std::int32_t v, int gain) {
    Factors factors = factors_of(1, 1, 2);
    factors.exponents[1] = static_cast<std::int16_t>(factors.exponents[0] + gain);
    factors.u.entries[1] = u;
    factors.v.entries[1] = v;
    return factors;
  };
  CHECK(fits(one(most, most, 0)));
  CHECK(fits(one(-most, most, 0)));
  CHECK_FALSE(fits(one(most + 1, 1, 0)));
  CHECK_FALSE(fits(one(-most - 1, 1, 0)));
  CHECK_FALSE(fits(one(1, most + 1, 0)));
  CHECK_FALSE(fits(one(1, -most - 1, 0)));
  CHECK(fits(one(most, 1, 14)));
  CHECK(fits(one(1, -most, 14)));
  CHECK(fits(one(255, 1, 21)));
  CHECK(fits(one(1, 1, 28)));
  CHECK_FALSE(fits(one(1, 1, 29)));       // in 16 bits 2^14 is the largest power
  CHECK_FALSE(fits(one(8193, 8193, 3)));  // 2^14 * 2^14 * 2^3
  CHECK_FALSE(fits(one(1, 1, 40)));
  CHECK_FALSE(fits(one(most, most, 1000)));

  // The bound.
  const Factors small = one(1, 1, 0);
  CHECK(IntegerProduct::fits(small, no_sum_beyond));
  CHECK_FALSE(IntegerProduct::fits(small, no_sum_beyond + 1));
  Factors many = factors_of(1, 1, 3);
  many.u.entries = many.v.entries = {most, most, 362};
  CHECK(product_bound(many, run_serially) < no_sum_beyond);
  CHECK(fits(many));
  many.u.entries = many.v.entries = {most, most, 363};
  CHECK(product_bound(many, run_serially) > no_sum_beyond);
  CHECK_FALSE(fits(many));
}

TEST_CASE("the versions of the integer product compute the same") {
  check_tiles(multiply_tile_portable);
#if defined(__x86_64__)
  if (has_product_avx2()) check_tiles(multiply_tile_avx2);
  if (has_product_avx512()) check_tiles(multiply_tile_avx512);
  if (has_product_vnni()) check_tiles(multiply_tile_vnni);
#endif
}
