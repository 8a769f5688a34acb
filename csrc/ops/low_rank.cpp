#include "ops/low_rank.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "ops/rank_choice.h"
#include "ops/spectrum.h"

namespace lmgc::ops {
namespace {

constexpr std::int64_t least_side = 4;  // of a matrix worth a fit
constexpr std::int64_t least_elements = 1024;
constexpr std::int64_t most_exact_side = 640;  // up to here the whole spectrum is cheap
// Components that are looked at where it is not: time is as the number of elements times this.
constexpr std::int64_t most_components = 192;
constexpr std::int64_t oversampling = 8;
constexpr double spare_share =
    0.0015;  // of a matrix's bits: what a refit gives for fewer components

// ---- one fit ------------------------------------------------------------------------------------

// Where the fitted matrix comes from: its rows are the shorter side.
struct Source {
  at::Tensor matrix;  // of any float type
  bool finite = true;
  int exponent =
      0;  // elements are divided by 2^exponent, so that squares neither overflow nor vanish

  // A copy to work in.
  at::Tensor copy(at::ScalarType type) const {
    at::Tensor values =
        matrix.to(type, /*non_blocking=*/false, /*copy=*/true, at::MemoryFormat::Contiguous);
    if (!finite) values.nan_to_num_(0.0, 0.0, 0.0);
    // A power that is out of a float's range comes in two steps.
    const int first = std::clamp(-exponent, -100, 100);
    values.mul_(std::ldexp(1.0, first));
    if (first != -exponent) values.mul_(std::ldexp(1.0, -exponent - first));
    return values;
  }
};

// From the spectrum of a matrix in its weights to the integers that predict it.
LowRankFit finish(const Spectrum& spectrum, const at::Tensor& matrix, const Weights& weights,
                  const Grid& grid, double spare_bits) {
  const RankChoice choice = choose_rank(
      spectrum, precisions_of(matrix, weights, grid), static_cast<double>(matrix.size(0)),
      static_cast<double>(matrix.size(1)), grid.mantissa, spare_bits);
  LowRankFit fit;
  fit.bits = choice.bits;
  if (choice.rank == 0) return fit;
  Factors factors = factors_of(spectrum, choice, grid.mantissa);
  if (factors.rank == 0) return fit;
  fit.low_rank = {std::move(factors), to_exponents(weights.rows), to_exponents(weights.columns)};
  return fit;
}

// The rows of what was fitted are the matrix's shorter side: back to its own.
void turn(LowRank& low_rank) {
  std::swap(low_rank.factors.u, low_rank.factors.v);
  std::swap(low_rank.row_weights, low_rank.column_weights);
}

bool is_worth_a_fit(const at::Tensor& matrix) {
  return std::min(matrix.size(0), matrix.size(1)) >= least_side && matrix.numel() >= least_elements;
}

// Works in one copy of the matrix, of the type `work`, which is made anew rather than kept twice.
class Fit {
 public:
  Fit(const Source& source, at::ScalarType work, const Grid& grid)
      : source_(source), work_(work), grid_(grid) {}

  // Whether what a prediction leaves drowns in the work type's rounding.
  bool needs_double = false;

  LowRankFit run() {
    matrix_ = source_.copy(work_);
    Weights weights = balance(matrix_.square_());
    take_copy(weights);
    // The weights that suit best are those of the residual, which a first look tells.
    const Sketch first =
        sketch(matrix_, random_start(matrix_.size(1), first_count(), matrix_.options()));
    matrix_.addmm_(first.basis, first.seen, 1, -1).square_();
    if (work_ == at::kFloat) {
      const double captured = first.seen.square().sum().item<double>();
      needs_double = matrix_.sum().item<double>() < 1e-11 * captured;
      if (needs_double) return {};
    }
    const Weights change = balance(matrix_);
    weights = {weights.rows + change.rows, weights.columns + change.columns};
    take_copy(weights);
    const Spectrum spectrum =
        exact() ? exact_spectrum(matrix_)
                : leading_spectrum(matrix_, sum_of_squares(matrix_), better_start(first, change));
    LowRankFit fit = finish(spectrum, matrix_, weights, grid_, 0);
    fit.in_double = work_ == at::kDouble;
    return fit;
  }

 private:
  bool exact() const { return matrix_.size(0) <= most_exact_side; }
  // Components that the first look takes away: about as many as a section will.
  std::int64_t first_count() const {
    return std::min(matrix_.size(0), std::min(matrix_.size(0) / 4, most_components) + oversampling);
  }
  // The right singular vectors that the first look found, in the new weights, and a few more.
  at::Tensor better_start(const Sketch& first, const Weights& change) const {
    const at::Tensor found = (first.seen * at::exp2(-change.columns)).t();
    const at::Tensor more =
        random_start(matrix_.size(1), first.basis.size(1) / 3, matrix_.options());
    // Of the size of the others, so that none drowns.
    return at::cat({found / found.norm(2, {0}, true).clamp_min(1e-30), more * 1e-2}, 1);
  }

  void take_copy(const Weights& weights) {
    matrix_ = at::Tensor();
    matrix_ = source_.copy(work_);
    scale_(matrix_, weights);
  }

  const Source& source_;
  at::ScalarType work_;
  Grid grid_;
  at::Tensor matrix_;
};

}  // namespace

LowRankFit fit_low_rank(const at::Tensor& matrix, FloatFormat format) {
  LowRankFit fit;
  const bool wide = matrix.size(0) <= matrix.size(1);
  if (!is_worth_a_fit(matrix)) return fit;
  const auto type = matrix.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  Source source{wide ? matrix : matrix.t()};
  const auto largest_of = [](const at::Tensor& values) {
    const auto [least, most] = at::aminmax(values);  // NaN if there is one
    return std::max(most.item<double>(), -least.item<double>());
  };
  double largest = largest_of(matrix);
  if (!std::isfinite(largest)) {
    source.finite = false;
    largest = largest_of(source.copy(type));
  }
  if (!(largest > 0)) return fit;
  source.exponent = std::ilogb(largest) + 1;
  const Grid grid{format.mantissa_bits, FixedFormat(format).least - source.exponent};
  Fit first(source, type, grid);
  fit = first.run();
  if (first.needs_double) fit = Fit(source, at::kDouble, grid).run();
  for (auto& power : fit.low_rank.factors.exponents)
    power = static_cast<std::int16_t>(power + source.exponent);
  if (!wide) turn(fit.low_rank);
  return fit;
}

namespace {

// About the leading right singular vectors: some of the columns span about the space of the left
// ones, and half a step of iteration leads from there.
at::Tensor good_start(const at::Tensor& matrix, std::int64_t count) {
  const at::Tensor some = at::arange(count, matrix.options().dtype(at::kLong))
                              .mul_(matrix.size(1))
                              .div_(count, "floor");
  return at::matmul(matrix.t(), std::get<0>(at::linalg_qr(matrix.index_select(1, some))));
}

}  // namespace

std::optional<LowRankFit> refit_low_rank(const at::Tensor& matrix, FloatFormat format,
                                         const FitMemory& memory) {
  if (!is_worth_a_fit(matrix)) return std::nullopt;
  const bool wide = matrix.size(0) <= matrix.size(1);
  const bool in_double = memory.in_double || matrix.scalar_type() == at::kDouble;
  const auto options =
      at::TensorOptions().dtype(in_double ? at::kDouble : at::kFloat).device(matrix.device());
  const auto weights_of = [&](const std::vector<std::int16_t>& exponents) {
    return at::tensor(std::vector<std::int64_t>(exponents.begin(), exponents.end())).to(options);
  };
  const auto& short_side = wide ? memory.row_weights : memory.column_weights;
  const auto& long_side = wide ? memory.column_weights : memory.row_weights;
  const Weights weights{weights_of(short_side).unsqueeze(1), weights_of(long_side).unsqueeze(0)};
  at::Tensor values = at::mul((wide ? matrix : matrix.t()).to(options), at::exp2(-weights.rows));
  values.mul_(at::exp2(-weights.columns));

  // Far from its weights, or not finite.
  constexpr double most = 1e30;
  const double total = sum_of_squares(values);
  if (!(total < most) || !(total > 1 / most)) return std::nullopt;

  const std::int64_t count = std::min(values.size(0), memory.rank + memory.rank / 8 + oversampling);
  const Spectrum spectrum = leading_spectrum(values, total, good_start(values, count));
  double captured = 0;
  for (const double square : spectrum.squares) captured += square;
  // Where next to nothing is left, floats do not tell the last components from rounding.
  if (!in_double && spectrum.total - captured < 1e-9 * captured) return std::nullopt;
  LowRankFit fit =
      finish(spectrum, values, weights, {format.mantissa_bits, FixedFormat(format).least},
             spare_share * format.bits() * static_cast<double>(matrix.numel()));
  fit.in_double = in_double;
  if (!wide) turn(fit.low_rank);
  return fit;
}

}  // namespace lmgc::ops
