// Integer factors as side information, and their exact product.
#include "core/factors.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "stream_cases.h"

using namespace lmgc;

namespace {

using Bytes = std::vector<std::uint8_t>;
using Wide = __int128;

constexpr Wide no_bound = Wide{1} << most_product_bits;

const std::vector<std::string> factor_kinds = {"zero",    "ones",        "narrow",
                                               "growing", "rows",        "rows and wide",
                                               "largest", "one differs", "sparse"};

Factor some_factor(const std::string& kind, std::int64_t lines, std::int64_t rank) {
  std::mt19937_64 random(static_cast<unsigned>(lines * 100 + rank));
  std::normal_distribution<double> normal;
  Factor factor;
  for (std::int64_t i = 0; i < lines; ++i) {
    const double row = std::exp2(static_cast<double>(i * 37 % 11));
    for (std::int64_t c = 0; c < rank; ++c) {
      const double column = std::exp2(static_cast<double>(25 * c) / static_cast<double>(rank));
      double value = 0;
      if (kind == "ones") value = random() % 2 == 0 ? 1 : -1;
      if (kind == "narrow") value = 0.4 * normal(random);
      if (kind == "growing") value = column * normal(random);
      if (kind == "rows") value = row * normal(random);
      if (kind == "rows and wide") value = 65536 * row * normal(random);
      if (kind == "largest") value = std::ldexp(random() % 2 == 0 ? 1 : -1, 30);
      if (kind == "one differs") value = i == lines / 2 ? 1 << 30 : 1;
      if (kind == "sparse") value = random() % 64 == 0 ? 33554432 * normal(random) : 0;
      const double most = most_factor;
      factor.entries.push_back(
          static_cast<std::int32_t>(std::clamp(std::round(value), -most, most)));
    }
  }
  return factor;
}

Bytes body_of(const CodedDigits& coded) {
  Bytes body(coded.body_size());
  coded.write_body(body.data());
  return body;
}

Factors random_factors(std::mt19937_64& random, std::int64_t rows, std::int64_t columns) {
  Factors factors;
  factors.rank = 1 + static_cast<std::int64_t>(random() % 6);
  const unsigned entry_bits = 1 + random() % 31, exponents = random() % 3 == 0 ? 80 : 12;
  const auto fill = [&](Factor& factor, std::int64_t lines) {
    for (std::int64_t i = 0; i < lines * factors.rank; ++i) {
      const auto magnitude = static_cast<std::int64_t>(random() % (std::uint64_t{1} << entry_bits));
      const std::int64_t value = std::min(magnitude, most_factor);
      factor.entries.push_back(static_cast<std::int32_t>(random() % 2 == 0 ? value : -value));
    }
  };
  fill(factors.u, rows);
  fill(factors.v, columns);
  for (std::int64_t c = 0; c < factors.rank; ++c) {
    factors.exponents.push_back(static_cast<std::int16_t>(random() % exponents));
    if (random() % 4 != 0) continue;  // a component that a side does not have
    Factor& factor = random() % 2 == 0 ? factors.u : factors.v;
    for (auto i = static_cast<std::size_t>(c); i < factor.entries.size();
         i += static_cast<std::size_t>(factors.rank))
      factor.entries[i] = 0;
  }
  return factors;
}

// min(2^62, |u| * max(|v|, 1) * 2^shift), exactly.
Wide term_bound(std::int64_t u, std::int64_t v, int shift) {
  if (u == 0) return 0;
  const Wide product = Wide{std::abs(u)} * std::max<std::int64_t>(std::abs(v), 1);
  return shift >= most_product_bits ? no_bound : std::min(no_bound, product << shift);
}

Wide exact_bound(const Factors& factors) {
  const auto rank = static_cast<std::size_t>(factors.rank);
  std::vector<std::int64_t> largest(rank, 0);
  for (std::size_t i = 0; i < factors.v.entries.size(); ++i)
    largest[i % rank] = std::max(largest[i % rank], std::abs(std::int64_t{factors.v.entries[i]}));
  Wide bound = 0;
  for (std::size_t line = 0; line < factors.u.entries.size() / rank; ++line) {
    Wide sum = 0;
    for (std::size_t c = 0; c < rank; ++c)
      sum += term_bound(factors.u.entries[line * rank + c], largest[c],
                        factors.exponents[c] - factors.base());
    bound = std::max(bound, std::min(sum, no_bound));
  }
  return bound;
}

}  // namespace

TEST_CASE("factors decode to what they were") {
  for (const auto& kind : factor_kinds) {
    for (const auto& [lines, rank] : std::vector<std::pair<std::int64_t, std::int64_t>>{
             {1, 1}, {2, 1}, {700, 1}, {40, 3}, {333, 8}, {64, 64}, {9000, 15}}) {
      CAPTURE(kind, lines, rank);
      Factor factor = some_factor(kind, lines, rank);
      choose_widths(factor, lines, rank);
      REQUIRE(static_cast<std::int64_t>(factor.column_widths.size()) == rank);
      if (!factor.row_widths.empty())
        REQUIRE(static_cast<std::int64_t>(factor.row_widths.size()) == lines);
      const CodedDigits coded = code_factor(factor, rank, nullptr, run_serially);
      const Bytes body = body_of(coded);
      Factor back;
      back.row_widths = factor.row_widths;
      back.column_widths = factor.column_widths;
      REQUIRE(decode_factor(coded.head, body.data(), lines, rank, nullptr, back, run_serially) ==
              Status::ok);
      REQUIRE(back.entries == factor.entries);
      const CodedDigits shared = code_factor(factor, rank, nullptr, test::run_on_threads);
      REQUIRE(body_of(shared) == body);
      REQUIRE(decode_factor(coded.head, body.data(), lines, rank, nullptr, back,
                            test::run_on_threads) == Status::ok);
      REQUIRE(back.entries == factor.entries);
    }
  }
}

TEST_CASE("any widths code any factors") {
  std::mt19937_64 random(21);
  for (int trial = 0; trial < 300; ++trial) {
    const auto lines = static_cast<std::int64_t>(1 + random() % 50);
    const auto rank = static_cast<std::int64_t>(1 + random() % 5);
    Factor factor = some_factor(factor_kinds[random() % factor_kinds.size()], lines, rank);
    for (std::int64_t c = 0; c < rank; ++c)
      factor.column_widths.push_back(static_cast<std::int16_t>(random()));
    for (std::int64_t i = 0; i < lines && trial % 2 == 0; ++i)
      factor.row_widths.push_back(static_cast<std::int16_t>(random()));
    const CodedDigits coded = code_factor(factor, rank, nullptr, run_serially);
    const Bytes body = body_of(coded);
    Factor back = factor;
    back.entries.clear();
    REQUIRE(decode_factor(coded.head, body.data(), lines, rank, nullptr, back, run_serially) ==
            Status::ok);
    REQUIRE(back.entries == factor.entries);
  }
}

TEST_CASE("factors take about what their entropy says") {
  for (const double deviation : {1.0, 10.0, 1000.0, 1e6}) {
    std::mt19937_64 random(22);
    std::normal_distribution<double> normal(0, deviation);
    Factor factor;
    for (int i = 0; i < 20000; ++i)
      factor.entries.push_back(static_cast<std::int32_t>(std::round(normal(random))));
    choose_widths(factor, 20000, 1);
    CHECK(factor.row_widths.empty());                    // all lines are alike
    const double entropy = std::log2(deviation) + 2.05;  // of a Gaussian
    const auto bits =
        8.0 * static_cast<double>(code_factor(factor, 1, nullptr, run_serially).body_size());
    CHECK(bits < 20000 * (entropy + 0.15));
  }
  // Lines that differ by octaves: their widths pay.
  Factor factor = some_factor("rows", 2000, 16);
  choose_widths(factor, 2000, 16);
  REQUIRE_FALSE(factor.row_widths.empty());
  const auto with = code_factor(factor, 16, nullptr, run_serially).body_size();
  factor.row_widths.clear();
  CHECK(with + 2000 < code_factor(factor, 16, nullptr, run_serially).body_size());
}

TEST_CASE("damaged factors give a status, never a crash") {
  for (const auto& kind : factor_kinds) {
    Factor factor = some_factor(kind, 40, 3);
    choose_widths(factor, 40, 3);
    const CodedDigits coded = code_factor(factor, 3, nullptr, run_serially);
    const Bytes good = body_of(coded);
    test::for_each_damage(good, 500, [&](const Bytes& bad) {
      if (bad.size() != good.size()) return;  // the head tells the size
      Factor back;
      back.row_widths = factor.row_widths;
      back.column_widths = factor.column_widths;
      if (decode_factor(coded.head, bad.data(), 40, 3, nullptr, back, run_serially) != Status::ok)
        return;
      for (const std::int64_t entry : back.entries) REQUIRE(std::abs(entry) <= most_factor);
    });
  }
}

TEST_CASE("the bound of a product is the exact one, or there is none") {
  std::mt19937_64 random(23);
  int bounded = 0;
  constexpr int trials = 3000;
  for (int trial = 0; trial < trials; ++trial) {
    const auto rows = static_cast<std::int64_t>(1 + random() % 5);
    const Factors factors = random_factors(random, rows, 1 + static_cast<int>(random() % 5));
    const auto bound = product_bound(factors, run_serially);
    const Wide exact = exact_bound(factors);
    CAPTURE(trial, bound, static_cast<std::uint64_t>(exact));
    REQUIRE(bound <= static_cast<std::uint64_t>(no_bound));
    // What is within a factor of the limit may count as beyond it.
    const bool near =
        bound == static_cast<std::uint64_t>(no_bound) && exact > no_bound - (Wide{1} << 34);
    REQUIRE((near || Wide{bound} == exact));
    bounded += exact < no_bound;
  }
  CHECK(bounded > trials / 4);
  CHECK(bounded < trials * 7 / 8);

  Factors many = random_factors(random, 2000, 3);
  CHECK(product_bound(many, run_serially) == product_bound(many, test::run_on_threads));
}

TEST_CASE("a product is exact, element by element, from wherever one begins") {
  std::mt19937_64 random(24);
  for (int trial = 0; trial < 2000; ++trial) {
    const auto rows = static_cast<std::int64_t>(1 + random() % 6);
    const auto columns = static_cast<std::int64_t>(1 + random() % 7);
    const Factors factors = random_factors(random, rows, columns);
    const auto bound = product_bound(factors, run_serially);
    if (bound >= std::uint64_t{1} << most_product_bits) continue;
    const auto first = static_cast<std::int64_t>(random() % static_cast<unsigned>(rows * columns));
    const std::int64_t count = rows * columns - first;
    std::vector<std::int64_t> product(static_cast<std::size_t>(count));
    multiply_factors(factors, columns, first, count, product.data());
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t row = (first + i) / columns, column = (first + i) % columns;
      Wide sum = 0, magnitude = 0;
      for (std::int64_t c = 0; c < factors.rank; ++c) {
        const Wide u = factors.u.entries[static_cast<std::size_t>(row * factors.rank + c)];
        const Wide v = factors.v.entries[static_cast<std::size_t>(column * factors.rank + c)];
        if (u == 0 || v == 0) continue;
        const Wide term =
            u * v * (Wide{1} << (factors.exponents[static_cast<std::size_t>(c)] - factors.base()));
        sum += term;
        magnitude += term < 0 ? -term : term;
      }
      REQUIRE((Wide{product[static_cast<std::size_t>(i)]} == sum));
      REQUIRE((magnitude <= Wide{bound}));
    }
  }
}

TEST_CASE("exponents that are far apart have no bound unless a side is zero") {
  Factors factors;
  factors.rank = 2;
  factors.exponents = {INT16_MIN, INT16_MAX};
  factors.u.entries = {1, 1};
  factors.v.entries = {1, 0};
  CHECK(product_bound(factors, run_serially) == std::uint64_t{1} << most_product_bits);
  factors.u.entries = {5, 0};
  factors.v.entries = {-7, 1 << 30};
  CHECK(product_bound(factors, run_serially) == 35);
  std::int64_t product = 0;
  multiply_factors(factors, 1, 0, 1, &product);
  CHECK(product == -35);
}
