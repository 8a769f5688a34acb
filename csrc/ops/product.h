// The exact product of integer factors through a floating-point GEMM: every partial sum is an
// integer that a double holds, so that any library gives the same. docs/lowrank.md has the proof.
#pragma once

#include <ATen/core/Tensor.h>

#include "core/fixed_section.h"

namespace lmgc::ops {

// The product of `factors` (`columns` lines in v) on the CPU. `bound` is their product_bound(),
// below 2^most_product_bits. The factors must live as long as the result.
Product exact_product(const Factors& factors, std::int64_t columns, std::uint64_t bound);

}  // namespace lmgc::ops
