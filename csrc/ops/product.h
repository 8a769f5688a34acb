// The exact product of integer factors: in small integers where these suffice, else through a
// floating-point GEMM, where every partial sum is an integer that a double holds, so that any
// library gives the same. docs/lowrank.md has the proof.
#pragma once

#include <ATen/core/Tensor.h>

#include "core/fixed_section.h"

namespace lmgc::ops {

// Into how many limbs v, with its gains, is cut so that the sums of each fit a double, and the bits
// of the low one; 0 limbs: no way.
struct LimbPlan {
  int limbs, low_bits;
};
LimbPlan plan_limbs(const Factors& factors, std::uint64_t bound);

// The product of `factors` (`columns` lines in v) on the CPU. `bound` is their product_bound(),
// below 2^most_product_bits. The factors must live as long as the result.
Product exact_product(const Factors& factors, std::int64_t columns, std::uint64_t bound);

}  // namespace lmgc::ops
