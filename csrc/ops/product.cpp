#include "ops/product.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "core/integer_product.h"
#include "ops/for_each.h"

namespace lmgc::ops {
namespace {

constexpr int double_bits = 53;

// Factors as doubles: u as it is, v (rank x columns) with its gains, cut into limbs where one does
// not suffice.
struct Operands {
  at::Tensor u;
  std::vector<at::Tensor> v;  // the lowest limb first
  int limb_bits = 0;
  std::int64_t columns = 0;
};

std::int64_t largest_row_sum(const Factors& factors) {
  std::int64_t largest = 0;
  for (std::size_t i = 0; i < factors.u.entries.size();) {
    std::int64_t sum = 0;
    for (std::int64_t c = 0; c < factors.rank; ++c)
      sum += std::abs(std::int64_t{factors.u.entries[i++]});
    largest = std::max(largest, sum);
  }
  return largest;
}

}  // namespace

LimbPlan plan_limbs(const Factors& factors, std::uint64_t bound) {
  if (bound < std::uint64_t{1} << double_bits) return {1, 0};
  const auto row_sum = static_cast<std::uint64_t>(largest_row_sum(factors));
  for (int bits = 1; bits < double_bits; ++bits) {
    // |low| < 2^bits, and |high| <= |v| / 2^bits + 1
    const bool low = row_sum < std::uint64_t{1} << (double_bits - bits);
    const bool high = (bound >> bits) + 1 + row_sum < std::uint64_t{1} << double_bits;
    if (low && high) return {2, bits};
  }
  return {0, 0};
}

namespace {

// out[0, count) = elements [first, first + count) of u times v.
void multiply(const Operands& operands, std::int64_t first, std::int64_t count, std::int64_t* out) {
  const std::int64_t columns = operands.columns;
  const std::int64_t row = first / columns, last_row = (first + count - 1) / columns;
  // Within one row only the columns that are asked for.
  const bool one_row = row == last_row;
  const std::int64_t from = one_row ? first % columns : 0;
  const std::int64_t width = one_row ? count : columns;
  const at::Tensor u = operands.u.narrow(0, row, last_row - row + 1);
  const std::int64_t skip = one_row ? 0 : first - row * columns;
  for (std::size_t limb = operands.v.size(); limb-- > 0;) {
    const at::Tensor product = at::mm(u, operands.v[limb].narrow(1, from, width));
    const double* const values = product.data_ptr<double>() + skip;
    if (limb + 1 == operands.v.size()) {
      for (std::int64_t i = 0; i < count; ++i) out[i] = static_cast<std::int64_t>(values[i]);
    } else {
      const std::int64_t unit = std::int64_t{1} << operands.limb_bits;
      for (std::int64_t i = 0; i < count; ++i)
        out[i] = out[i] * unit + static_cast<std::int64_t>(values[i]);
    }
  }
}

}  // namespace

Product exact_product(const Factors& factors, std::int64_t columns, std::uint64_t bound) {
  if (IntegerProduct::fits(factors, bound)) {
    const auto product = std::make_shared<IntegerProduct>(factors, columns, aten_parallel());
    return [product](std::int64_t first, std::int64_t count, std::int64_t* out) {
      product->multiply(first, count, out);
    };
  }
  const LimbPlan plan = plan_limbs(factors, bound);
  const bool fits = plan.limbs == 1;
  const int limb_bits = plan.low_bits;
  if (plan.limbs == 0) {
    return [&factors, columns](std::int64_t first, std::int64_t count, std::int64_t* out) {
      multiply_factors(factors, columns, first, count, out);
    };
  }
  const auto operands = std::make_shared<Operands>();
  operands->columns = columns;
  operands->limb_bits = limb_bits;
  const auto options = at::TensorOptions().dtype(at::kDouble);
  const auto rank = factors.rank;
  operands->u =
      at::empty({static_cast<std::int64_t>(factors.u.entries.size()) / rank, rank}, options);
  std::copy(factors.u.entries.begin(), factors.u.entries.end(), operands->u.data_ptr<double>());
  for (int limb = 0; limb < (fits ? 1 : 2); ++limb)
    operands->v.push_back(at::empty({rank, columns}, options));
  const int base = factors.base();
  for (std::int64_t c = 0; c < rank; ++c) {
    const int gain = factors.exponents[static_cast<std::size_t>(c)] - base;
    for (std::int64_t j = 0; j < columns; ++j) {
      const std::int64_t scaled =
          with_gain(factors.v.entries[static_cast<std::size_t>(j * rank + c)], gain);
      const std::int64_t at = c * columns + j;
      if (fits) {
        operands->v[0].data_ptr<double>()[at] = static_cast<double>(scaled);
      } else {
        const std::int64_t high = scaled >> limb_bits;
        operands->v[1].data_ptr<double>()[at] = static_cast<double>(high);
        operands->v[0].data_ptr<double>()[at] = static_cast<double>(scaled - (high << limb_bits));
      }
    }
  }
  return [operands](std::int64_t first, std::int64_t count, std::int64_t* out) {
    multiply(*operands, first, count, out);
  };
}

}  // namespace lmgc::ops
