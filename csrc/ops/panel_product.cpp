#include "ops/panel_product.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace lmgc::ops {
namespace {

constexpr int double_bits = 53;

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

// Into how many limbs v, with its gains, is cut so that the sums of each fit a double, and the bits
// of the low one; 0 limbs: no way.
struct LimbPlan {
  int limbs, low_bits;
};

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

at::Tensor to_device(const std::vector<std::int32_t>& entries, std::int64_t rank,
                     const at::Device& device) {
  const auto count = static_cast<std::int64_t>(entries.size());
  const at::Tensor host = at::empty({count / rank, rank}, at::kInt);
  std::memcpy(host.data_ptr(), entries.data(), entries.size() * sizeof entries[0]);
  return host.to(device).to(at::kLong);
}

// The product in 64-bit integers, for which there is no GEMM.
at::Tensor multiply_integers(const at::Tensor& u, const at::Tensor& v) {
  at::Tensor sum = at::zeros({u.size(0), v.size(1)}, u.options());
  for (std::int64_t c = 0; c < u.size(1); ++c)
    sum.add_(u.select(1, c).unsqueeze(1) * v.select(0, c).unsqueeze(0));
  return sum;
}

}  // namespace

PanelProduct::PanelProduct(const Factors& factors, std::int64_t columns, std::uint64_t bound,
                           const at::Device& device) {
  const std::int64_t rank = factors.rank;
  const at::Tensor u = to_device(factors.u.entries, rank, device);
  const at::Tensor v = to_device(factors.v.entries, rank, device).t();
  TORCH_INTERNAL_ASSERT(v.size(1) == columns);
  // A component without an entry in u adds nothing and is in no bound: its gain may be any.
  const at::Tensor gains = at::empty({rank, 1}, at::kLong);
  for (std::int64_t c = 0; c < rank; ++c) {
    const int gain = factors.exponents[static_cast<std::size_t>(c)] - factors.base();
    gains.data_ptr<std::int64_t>()[c] = std::int64_t{1} << std::min(gain, most_product_bits);
  }
  const at::Tensor scaled = (v * u.ne(0).any(0).unsqueeze(1) * gains.to(device)).contiguous();

  const LimbPlan plan = plan_limbs(factors, bound);
  if (plan.limbs == 0) {
    u_ = u;
    v_ = {scaled};
    return;
  }
  u_ = u.to(at::kDouble);
  limb_bits_ = plan.low_bits;
  if (plan.limbs == 1) {
    v_ = {scaled.to(at::kDouble)};
  } else {
    const at::Tensor high = at::bitwise_right_shift(scaled, limb_bits_);
    const at::Tensor low = scaled - high * (std::int64_t{1} << limb_bits_);
    v_ = {low.to(at::kDouble), high.to(at::kDouble)};
  }
}

at::Tensor PanelProduct::panel(std::int64_t first, std::int64_t count) const {
  const std::int64_t columns = v_[0].size(1);
  const std::int64_t row = first / columns, last_row = (first + count - 1) / columns;
  // Within one row only the columns that are asked for.
  const bool one_row = row == last_row;
  const std::int64_t from = one_row ? first % columns : 0;
  const std::int64_t width = one_row ? count : columns;
  const at::Tensor u = u_.narrow(0, row, last_row - row + 1);
  at::Tensor sum;
  for (std::size_t limb = v_.size(); limb-- > 0;) {
    const at::Tensor v = v_[limb].narrow(1, from, width);
    const at::Tensor own =
        u.scalar_type() == at::kLong ? multiply_integers(u, v) : at::mm(u, v).to(at::kLong);
    sum = sum.defined() ? sum.mul_(std::int64_t{1} << limb_bits_).add_(own) : own;
  }
  return sum.view({-1}).narrow(0, one_row ? 0 : first - row * columns, count);
}

}  // namespace lmgc::ops
