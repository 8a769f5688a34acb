// Live matrices with everything that precedes their sections, for the tests of sections.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "core/fixed_section.h"
#include "fixed_cases.h"

namespace lmgc::test {

using Bytes = std::vector<std::uint8_t>;
using Sizes = std::vector<std::int64_t>;

struct Wish {
  std::string kind = "noise";  // what the elements are
  Sizes sizes;
  FloatFormat format = float_format(DType::float32);
  std::int64_t rank = 0;
  bool dead = false;
  bool by_dimension_1 = false;
  bool may_have_columns = true;
};

inline Product product_of(const Factors& factors, std::int64_t columns) {
  if (factors.rank == 0) return {};
  return [&factors, columns](std::int64_t first, std::int64_t count, std::int64_t* out) {
    multiply_factors(factors, columns, first, count, out);
  };
}
inline Product product_of(const FixedHead& head, const LiveShape& shape) {
  return product_of(head.low_rank.factors, shape.columns);
}

inline std::vector<bool> some_dead(std::int64_t lines, std::mt19937_64& random) {
  std::vector<bool> dead(static_cast<std::size_t>(lines));
  for (std::size_t i = 0; i < dead.size(); ++i) dead[i] = random() % 4 == 0;
  dead[dead.size() / 2] = false;
  return dead;
}

inline LowRank some_low_rank(const LiveShape& shape, std::int64_t rank, std::mt19937_64& random) {
  LowRank low_rank;
  Factors& factors = low_rank.factors;
  std::normal_distribution<double> normal(0, 20);
  factors.rank = rank;
  for (std::int64_t c = 0; c < rank; ++c)
    factors.exponents.push_back(static_cast<std::int16_t>(-static_cast<int>(random() % 4) - 4));
  for (std::int64_t i = 0; i < shape.rows * rank; ++i)
    factors.u.entries.push_back(static_cast<std::int32_t>(normal(random)));
  for (std::int64_t i = 0; i < shape.columns * rank; ++i)
    factors.v.entries.push_back(static_cast<std::int32_t>(normal(random)));
  for (std::int64_t i = 0; i < shape.rows; ++i)
    low_rank.row_weights.push_back(static_cast<std::int16_t>(random() % 5));
  for (std::int64_t i = 0; i < shape.columns; ++i)
    low_rank.column_weights.push_back(static_cast<std::int16_t>(-static_cast<int>(random() % 5)));
  return low_rank;
}

// A tensor's live matrix and what is known of it.
struct Case {
  Case() = default;
  explicit Case(const Wish& wish) : wish(wish) {
    std::mt19937_64 random(wish.sizes[0] + wish.rank * 7 + wish.format.mantissa_bits);
    std::normal_distribution<double> normal;
    const FixedFormat format(wish.format);
    const MatrixShape whole =
        fixed_shape(wish.sizes.data(), wish.sizes.size(), wish.by_dimension_1);
    head.by_dimension_1 = wish.by_dimension_1;
    if (wish.dead) {
      head.dead_rows = FlagRuns(some_dead(whole.rows, random));
      head.dead_columns = FlagRuns(some_dead(whole.columns, random));
    }
    shape = live_shape(whole, head);
    if (wish.rank > 0) {
      const std::int64_t rank = std::min({wish.rank, shape.rows, shape.columns});
      head.low_rank = some_low_rank(shape, rank, random);
    }
    may_have_columns = wish.may_have_columns && !whole.flat;
    words.resize(static_cast<std::size_t>(shape.elements) * wish.format.bytes / 8 + 1);
    const Product product = product_of(head, shape);
    std::vector<std::int64_t> values(static_cast<std::size_t>(shape.elements));
    if (product) product(0, shape.elements, values.data());
    for (std::int64_t i = 0; i < shape.elements; ++i) {
      const auto row = static_cast<std::size_t>(i / shape.columns);
      const auto column = static_cast<std::size_t>(i % shape.columns);
      double x = std::exp2(row % 7 - 9.0 + column % 3) * normal(random);
      if (product) {
        const LowRank& low_rank = head.low_rank;
        x += std::ldexp(
            static_cast<double>(values[static_cast<std::size_t>(i)]),
            low_rank.factors.base() + low_rank.row_weights[row] + low_rank.column_weights[column]);
      }
      if (wish.kind == "zeros" && random() % 8 != 0) x = random() % 8 != 0 ? 0.0 : -0.0;
      if (wish.kind == "constant") x = 0.1;
      if (wish.kind == "integers") x = std::round(x * 512);
      if (wish.kind == "tiny") x = std::ldexp(x, format.least - 1);
      if (wish.kind == "positive") x = std::abs(x);
      const bool any = wish.kind == "any" || (wish.kind == "some special" && random() % 9 == 0);
      store_word(words.data(), wish.format.bytes, i,
                 any ? some_word(random, format) : word_of(x, format));
    }
  }
  FixedInput input() const { return {words.data(), wish.format, shape, may_have_columns}; }
  std::size_t bytes() const { return static_cast<std::size_t>(shape.elements) * wish.format.bytes; }

  Wish wish;
  FixedHead head;
  LiveShape shape;
  bool may_have_columns = false;
  std::vector<std::uint64_t> words;
};

inline const std::vector<std::string> element_kinds = {
    "noise", "zeros", "constant", "integers", "tiny", "positive", "any", "some special"};

}  // namespace lmgc::test
