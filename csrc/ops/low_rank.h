// The encoder's search for a low-rank prediction: any arithmetic will do here, for what it finds is
// rounded to integers, and only those are part of a frame. docs/lowrank.md has the mathematics.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "core/fixed_section.h"
#include "core/float_format.h"

namespace lmgc::ops {

struct LowRankFit {
  LowRank low_rank;        // rank 0: prediction does not pay; else its product_bound() holds
  double bits = 0;         // estimate of the section
  bool in_double = false;  // the work was done in double precision
};

// Fits a prediction to `matrix`, a 2-d tensor of one of the four float types, non-empty, whose
// NaNs and infinities count as zeros; `format` says how precise they are. Takes temporary memory of
// about 4 bytes an element, 8 for float64 and where the rounding of the elements is all that a low
// rank leaves.
LowRankFit fit_low_rank(const at::Tensor& matrix, FloatFormat format);

// What is known beforehand of a matrix's prediction, from that of a matrix like it.
struct FitMemory {
  std::int64_t rank = 0;  // 0: nothing
  bool in_double = false;
  std::vector<std::int16_t> row_weights, column_weights;  // near the scales of its residuals
};

// The same with one look instead of several: in the weights of `memory`, whose lines are those of
// `matrix`, and up to about an eighth more components than it had. Nothing where that look does not
// tell: the matrix has numbers that are not finite, or is of another kind.
std::optional<LowRankFit> refit_low_rank(const at::Tensor& matrix, FloatFormat format,
                                         const FitMemory& memory);

}  // namespace lmgc::ops
