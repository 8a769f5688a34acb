// How many components a low-rank prediction should have and how precise they should be, and the
// integer factors of that. Encoder only: any arithmetic will do.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "core/factors.h"
#include "ops/spectrum.h"

namespace lmgc::ops {

// The floats that a matrix was made of, in its own units.
struct Grid {
  int mantissa;  // bits
  int least;     // exponent of the smallest normal number
};

// How far 1 lies above the elements' last bits: (exponent, share of the elements), of a matrix that
// is divided by `weights`, (rows, 1) and (1, columns), already.
using Precisions = std::vector<std::pair<double, double>>;
Precisions precisions_of(const at::Tensor& sample, const Weights& weights, const Grid& grid);

struct RankChoice {
  std::int64_t rank = 0;
  double noise_share = 0;   // of the noise that the formula of docs/lowrank.md gives
  double bits = 0;          // estimate of the section
  double bits_without = 0;  // of one that predicts nothing
};

// The estimate for every rank with the usual noise; then, for the best one, with more and less of
// it, which pays where the residual is hardly wider than the last bits. Of ranks that differ by up
// to `spare_bits` the lowest is taken: the last components save next to nothing, and take as much
// time as the others.
RankChoice choose_rank(const Spectrum& spectrum, const Precisions& precisions, double rows,
                       double columns, int mantissa, double spare_bits);

// The factors of a choice of rank 1 or more whose product_bound() holds; rank 0 where there are
// none.
Factors factors_of(const Spectrum& spectrum, const RankChoice& choice, int mantissa);

std::vector<std::int16_t> to_exponents(const at::Tensor& tensor);

}  // namespace lmgc::ops
