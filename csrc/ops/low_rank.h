// The encoder's search for a low-rank prediction: any arithmetic will do here, for what it finds is
// rounded to integers, and only those are part of a frame. docs/lowrank.md has the mathematics.
#pragma once

#include <ATen/core/Tensor.h>

#include "core/fixed_section.h"
#include "core/float_format.h"

namespace lmgc::ops {

struct LowRankFit {
  LowRank low_rank;  // rank 0: prediction does not pay; else its product_bound() holds
  double bits = 0;   // estimate of the section
};

// Fits a prediction to `matrix`, a 2-d tensor of one of the four float types, non-empty, whose
// NaNs and infinities count as zeros. Takes temporary memory of about 4 bytes an element, 8 for
// float64 and where the rounding of the elements is all that a low rank leaves.
LowRankFit fit_low_rank(const at::Tensor& matrix, FloatFormat format);

}  // namespace lmgc::ops
