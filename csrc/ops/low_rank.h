// The encoder's search for a low-rank prediction: any arithmetic will do here, for what it finds is
// rounded to integers, and only those are part of a frame. docs/lowrank.md has the mathematics.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "core/fixed_section.h"
#include "core/float_format.h"
#include "ops/search_limits.h"

namespace lmgc::ops {

struct LowRankFit {
  LowRank low_rank;         // rank 0: prediction does not pay; else its product_bound() holds
  double bits = 0;          // estimate of the section
  double bits_without = 0;  // of one that predicts nothing
  bool in_double = false;   // the work was done in double precision
  std::size_t view = 0;     // which one of the views it is of
};

// A tensor seen as a matrix.
struct View {
  at::Tensor matrix;  // 2-d, of one of the four float types; NaNs and infinities count as zeros
  // Of the same shape and type, where the matrix is only what something else leaves of them; their
  // last bits are what a section tells down to.
  at::Tensor elements;
};

// Fits a prediction to the view of a tensor that promises most, or to each of them and takes the
// best; `format` says how precise the elements are. Takes temporary memory of about 8 bytes an
// element and 4 for a second view, twice that for float64 and where the rounding of the elements is
// all that a low rank leaves.
LowRankFit fit_low_rank(const std::vector<View>& views, FloatFormat format,
                        const SearchLimits& limits);

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
                                         const FitMemory& memory, const SearchLimits& limits);

}  // namespace lmgc::ops
