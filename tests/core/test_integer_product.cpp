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

// Factors for one layer, with gains up to 2^most_gain.
Factors narrow_factors(Random& random, std::int64_t rows, std::int64_t columns, std::int64_t rank,
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

std::uint64_t bound_of(const Factors& factors) { return product_bound(factors, run_serially); }

// Factors with entries of up to 2^most_bits and gains up to 2^most_gain that have a
// product_bound().
Factors wide_factors(Random& random, std::int64_t rows, std::int64_t columns, std::int64_t rank,
                     int most_bits, int most_gain) {
  for (;; --most_gain) {
    Factors factors = factors_of(rows, columns, rank);
    std::vector<std::int32_t> u(static_cast<std::size_t>(rank)), v(u.size());
    for (std::size_t c = 0; c < u.size(); ++c) {
      const auto bits = [&] { return random() % static_cast<unsigned>(most_bits + 1); };
      u[c] = std::int32_t{1} << bits();
      v[c] = std::int32_t{1} << bits();
      if (most_gain > 0)
        factors.exponents[c] =
            static_cast<std::int16_t>(random() % static_cast<unsigned>(most_gain + 1));
    }
    for (std::size_t i = 0; i < factors.u.entries.size(); ++i)
      factors.u.entries[i] = within(random, u[i % u.size()]);
    for (std::size_t i = 0; i < factors.v.entries.size(); ++i)
      factors.v.entries[i] = within(random, v[i % v.size()]);
    if (bound_of(factors) < std::uint64_t{1} << most_product_bits) return factors;
    if (most_gain <= 0) --most_bits;
  }
}

IntegerProduct product_of(const Factors& factors, std::int64_t columns) {
  return {factors, columns, bound_of(factors), run_serially};
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
    ProductTile tile{};
    tile.rows = static_cast<std::int64_t>(random() % 15);
    tile.groups = static_cast<int>(1 + random() % most_groups);
    tile.pairs = static_cast<std::int64_t>(1 + random() % 20);
    tile.u_stride = 2 * (tile.pairs + static_cast<std::int64_t>(random() % 3));
    tile.v_stride = tile.groups + static_cast<std::int64_t>(random() % 3);
    tile.shift = static_cast<int>(random() % 2 == 0 ? 0 : random() % 64);
    tile.add = random() % 2 == 0;
    tile.out_stride = tile.groups * group_columns + static_cast<std::int64_t>(random() % 9);
    // The largest two products in a pair, or sums that stay below 2^31.
    const std::int32_t limit = tile.pairs == 1 ? most : 7000;
    std::vector<std::int16_t> u(static_cast<std::size_t>(tile.rows * tile.u_stride));
    for (auto& entry : u) entry = static_cast<std::int16_t>(within(random, limit));
    std::vector<ColumnPairs> v(static_cast<std::size_t>(tile.pairs * tile.v_stride));
    for (auto& column_pairs : v) {
      for (auto& entry : column_pairs.entries)
        entry = static_cast<std::int16_t>(within(random, limit));
    }
    std::vector<std::int64_t> expected(static_cast<std::size_t>(tile.rows * tile.out_stride + 1));
    for (auto& before : expected) before = static_cast<std::int64_t>(random());
    std::vector<std::int64_t> got = expected;
    tile.u = u.data();
    tile.v = v.data();
    tile.out = got.data();
    run(tile);
    tile.out = expected.data();
    multiply_tile_portable(tile);
    CAPTURE(trial, tile.rows, tile.groups, tile.pairs, tile.shift, tile.add);
    REQUIRE(got == expected);
  }
}

// The plan keeps what its header promises for these factors.
void check_plan(const Factors& factors, const std::vector<ProductLayer>& layers) {
  const auto rank = static_cast<std::size_t>(factors.rank);
  const auto part = [&](const Factor& factor, std::size_t line, std::int64_t component,
                        const EntryLimb& limb) {
    const std::int32_t own =
        limb.of(factor.entries[line * rank + static_cast<std::size_t>(component)]);
    REQUIRE(std::abs(own) <= most);
    return own;
  };
  for (const ProductLayer& layer : layers) {
    REQUIRE((!layer.terms.empty() && layer.shift >= 0 && layer.shift < 64));
    for (std::size_t row = 0; row < factors.u.entries.size() / rank; ++row) {
      for (std::size_t column = 0; column < factors.v.entries.size() / rank; ++column) {
        std::uint64_t sum = 0;
        for (const ProductTerm& term : layer.terms) {
          sum += static_cast<std::uint64_t>(
              std::abs(std::int64_t{part(factors.u, row, term.component, term.u)} *
                       part(factors.v, column, term.component, term.v)));
        }
        REQUIRE(sum <= no_sum_beyond);
      }
    }
  }
}

std::size_t terms_of(const std::vector<ProductLayer>& layers) {
  std::size_t terms = 0;
  for (const ProductLayer& layer : layers) terms += layer.terms.size();
  return terms;
}

}  // namespace

TEST_CASE("an integer product is the product of the factors, from wherever one begins") {
  Random random(1);
  for (const std::int64_t rank : {1, 2, 3, 7, 64, 255}) {
    for (const std::int64_t columns : {1, 2, 15, 16, 17, 63, 64, 65, 200, 1000}) {
      for (int trial = 0; trial < 6; ++trial) {
        const auto rows = static_cast<std::int64_t>(1 + random() % (rank > 60 ? 20 : 70));
        const Factors factors = trial % 2 == 0
                                    ? narrow_factors(random, rows, columns, rank, 9)
                                    : wide_factors(random, rows, columns, rank, 8 + 4 * trial, 30);
        const IntegerProduct product(
            factors, columns, bound_of(factors),
            trial % 3 == 0 ? Parallel(test::run_on_threads) : run_serially);
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
    for (const Factors& factors : {narrow_factors(random, rows, columns, 3, 4),
                                   wide_factors(random, rows, columns, 3, 30, 30)}) {
      const IntegerProduct product = product_of(factors, columns);
      for (std::int64_t first = 0; first <= rows * columns; ++first) {
        for (std::int64_t count = 0; count <= rows * columns - first; count += 1 + count / 40)
          check_range(factors, product, columns, first, count);
      }
    }
  }
}

TEST_CASE("factors at the limits of 16 bits, and of all bits, have their product") {
  constexpr std::int64_t rows = 8, columns = 70;
  const auto check = [](const Factors& factors) {
    REQUIRE(bound_of(factors) < std::uint64_t{1} << most_product_bits);
    check_range(factors, product_of(factors, columns), columns, 0, rows * columns);
  };
  for (const std::int32_t largest :
       {most - 1, most, most + 1, most + 2, 1 << 16, 1 << 24, 1 << 30}) {
    for (const int gain : {0, 1, 7, 14, 31}) {  // of the second component
      for (const int bits_of_u : {0, gain / 2, gain}) {
        if (largest > 1 << 24 && gain != 0) continue;
        Factors factors = factors_of(rows, columns, 2);
        factors.exponents[1] = static_cast<std::int16_t>(factors.exponents[0] + gain);
        for (std::size_t i = 0; i < factors.u.entries.size(); ++i) {
          const std::int32_t u = i % 2 == 0 ? largest : largest >> bits_of_u;
          factors.u.entries[i] = i % 3 == 0 ? -u : u;
        }
        for (std::size_t i = 0; i < factors.v.entries.size(); ++i) {
          const std::int32_t v = i % 2 == 0 ? largest : largest >> (gain - bits_of_u);
          factors.v.entries[i] = i % 5 == 0 ? -v : v;
        }
        check(factors);
      }
    }
  }
  // A component that is zero on one side has no gain to speak of, and no term.
  for (const bool zero_u : {false, true}) {
    Factors factors = factors_of(rows, columns, 2);
    factors.exponents[1] = zero_u ? 1000 : 20;
    for (std::size_t i = 0; i < factors.u.entries.size(); i += 2) factors.u.entries[i] = most;
    for (std::size_t i = 0; i < factors.v.entries.size(); i += 2) factors.v.entries[i] = -most;
    auto& other = zero_u ? factors.v.entries : factors.u.entries;
    for (std::size_t i = 1; i < other.size(); i += 2) other[i] = 100;
    check(factors);
    CHECK(terms_of(plan_layers(factors, bound_of(factors))) == 1);
  }
  check(factors_of(rows, columns, 2));
}

TEST_CASE("limbs add up to their entry, and layers' sums fit 32 bits") {
  Random random(4);
  for (int trial = 0; trial < 300; ++trial) {
    const auto rank = static_cast<std::int64_t>(1 + random() % 12);
    const Factors factors = wide_factors(random, 4, 3, rank, 1 + trial % 30, trial % 40);
    const std::vector<ProductLayer> layers = plan_layers(factors, bound_of(factors));
    check_plan(factors, layers);
    CHECK(terms_of(layers) <= 16 * static_cast<std::size_t>(rank));
    check_range(factors, product_of(factors, 3), 3, 0, 12);
  }
}

TEST_CASE("what fits 16 bits and sums of 32 is one layer") {
  const auto layers_of = [](std::int32_t u, std::int32_t v, int gain) {
    Factors factors = factors_of(1, 1, 2);
    factors.exponents[1] = static_cast<std::int16_t>(factors.exponents[0] + gain);
    factors.u.entries = {1, u};
    factors.v.entries = {1, v};
    const std::vector<ProductLayer> layers = plan_layers(factors, bound_of(factors));
    check_plan(factors, layers);
    return layers.size() == 1 && layers[0].terms.size() == 2;
  };
  CHECK(layers_of(most, most, 0));
  CHECK(layers_of(-most, most, 0));
  CHECK(layers_of(most, 1, 14));
  CHECK(layers_of(1, -most, 14));
  CHECK(layers_of(255, 1, 21));
  CHECK(layers_of(1, 1, 28));
  CHECK_FALSE(layers_of(most + 1, 1, 0));
  CHECK_FALSE(layers_of(1, -most - 1, 0));
  CHECK_FALSE(layers_of(1, 1, 29));  // in 16 bits 2^14 is the largest power
  CHECK_FALSE(layers_of(1, 1, 40));

  Factors many = factors_of(1, 1, 3);
  many.u.entries = many.v.entries = {most, most, 362};
  CHECK(bound_of(many) < no_sum_beyond);
  CHECK(plan_layers(many, bound_of(many)).size() == 1);
  many.u.entries = many.v.entries = {most, most, 363};
  CHECK(bound_of(many) > no_sum_beyond);
  CHECK(plan_layers(many, bound_of(many)).size() > 1);
}

TEST_CASE("the versions of the integer product compute the same") {
  check_tiles(multiply_tile_portable);
#if defined(__x86_64__)
  if (has_product_avx2()) check_tiles(multiply_tile_avx2);
  if (has_product_avx512()) check_tiles(multiply_tile_avx512);
  if (has_product_vnni()) check_tiles(multiply_tile_vnni);
#endif
}
