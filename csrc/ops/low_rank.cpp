#include "ops/low_rank.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/for_each.h"
#include "ops/spectrum.h"

namespace lmgc::ops {
namespace {

constexpr std::int64_t least_side = 4;  // of a matrix worth a fit
constexpr std::int64_t least_elements = 1024;
constexpr std::int64_t most_exact_side = 640;  // up to here the whole spectrum is cheap
// Components that are looked at where it is not: time is as the number of elements times this.
constexpr std::int64_t most_components = 192;
constexpr std::int64_t oversampling = 8;
constexpr double entropy_factor = 17.07946844534713;  // 2 pi e
constexpr double usual_noise_share = 0.5;
constexpr double least_noise = 0.03;

// ---- how large a section would be ---------------------------------------------------------------

// What a rank costs: the noise that its rounded factors add to the residual's variance, and the
// steps that spend it.
struct Budget {
  double residual = 0;  // variance of an element before noise
  double noise = 0;     // relative to it
};

Budget budget_of(const Spectrum& spectrum, std::int64_t rank, double noise_share, double rows,
                 double columns, int mantissa) {
  double captured = 0;
  for (std::int64_t c = 0; c < rank; ++c) captured += spectrum.squares[static_cast<std::size_t>(c)];
  const double elements = rows * columns;
  // The rounding of the elements themselves is no finer than their last bits.
  const double finest = std::ldexp(spectrum.total, -2 * mantissa - 2);
  const double rho = static_cast<double>(rank) * (rows + columns) / elements;
  return {std::max(spectrum.total - captured, finest) / elements,
          std::max(least_noise, noise_share * rho / std::max(1 - rho, 0.1))};
}

double step_of(const Budget& budget, double square, std::int64_t rank, double elements) {
  return std::sqrt(12 * budget.noise * budget.residual /
                   (static_cast<double>(rank) * std::max(square / elements, 1e-300)));
}

// The floats that the matrix was made of, in its own units.
struct Grid {
  int mantissa;  // bits
  int least;     // exponent of the smallest normal number
};

// The exponents of the last bits of a sample of elements, at the crossings of some rows and
// columns.
struct LastBits {
  at::Tensor rows, columns;  // indices
  at::Tensor exponents;      // doubles
};

LastBits last_bits_of(const at::Tensor& values, const Grid& grid) {
  constexpr std::int64_t most_rows = 64, most_columns = 512;
  const auto pick = [&](std::int64_t length, std::int64_t most) {
    const std::int64_t count = std::min(length, most);
    return at::arange(count, at::TensorOptions().dtype(at::kLong).device(values.device()))
        .mul_(length)
        .div_(count, "floor");
  };
  LastBits sample{pick(values.size(0), most_rows), pick(values.size(1), most_columns), {}};
  const at::Tensor picked =
      values.index_select(0, sample.rows).index_select(1, sample.columns).to(at::kDouble);
  // Zeros have no bits worth a count.
  constexpr double none = 1e4;
  sample.exponents =
      at::where(picked.eq(0), none, picked.abs().log2().floor().clamp_min_(grid.least)) -
      grid.mantissa;
  return sample;
}

// How far the weights of elements lie above their last bits: (exponent, share of the elements).
using Precisions = std::vector<std::pair<double, double>>;

Precisions precisions_of(const LastBits& sample, const Weights& weights) {
  const at::Tensor above = weights.rows.index_select(0, sample.rows) +
                           weights.columns.index_select(1, sample.columns) - sample.exponents;
  std::vector<double> values = to_doubles(above.reshape({-1}));
  std::sort(values.begin(), values.end());
  Precisions result;
  for (const double value : values) {
    if (result.empty() || result.back().first != value) result.emplace_back(value, 0.0);
    result.back().second += 1.0 / static_cast<double>(values.size());
  }
  return result;
}

// Bits of a Gaussian of standard deviation 2^t rounded to integers, closely.
double gaussian_bits(double t) {
  const double log = 2 * t + std::log2(entropy_factor);
  return log > 60 ? 0.5 * log : 0.5 * std::log2(1 + std::exp2(log));
}

double element_bits(const Precisions& precisions, double variance) {
  double bits = 0;
  const double deviation = 0.5 * std::log2(std::max(variance, 1e-300));
  for (const auto& [above, share] : precisions) bits += share * gaussian_bits(above + deviation);
  return bits;
}

// How many components there are before a cliff: a matrix that is of low rank but for the rounding
// of its elements. What lies below follows the last bits of each element, and no rank pays there.
std::int64_t rank_of_signal(const Spectrum& spectrum) {
  constexpr double cliff = 1e-5;
  const auto count = static_cast<std::int64_t>(spectrum.squares.size());
  for (std::int64_t c = 1; c < count; ++c) {
    if (spectrum.squares[static_cast<std::size_t>(c)] <
        cliff * spectrum.squares[static_cast<std::size_t>(c - 1)])
      return c;
  }
  return count;
}

struct RankChoice {
  std::int64_t rank = 0;
  double noise_share = 0;
  double bits = 0;
};

// The estimate for every rank with the usual noise; then, for the best one, with more and less of
// it, which pays where the residual is hardly wider than the last bits.
RankChoice choose_rank(const Spectrum& spectrum, const Precisions& precisions, double rows,
                       double columns, int mantissa) {
  const double elements = rows * columns;
  constexpr double bits_of_a_line = 4;  // weights, beside the scales that any section has
  constexpr double bits_of_a_component = 10;
  RankChoice best;
  best.bits = element_bits(precisions, spectrum.total / elements) * elements;
  const auto consider = [&](std::int64_t rank, double noise_share) {
    const Budget budget = budget_of(spectrum, rank, noise_share, rows, columns, mantissa);
    double bits =
        bits_of_a_line * (rows + columns) + bits_of_a_component * static_cast<double>(rank);
    double variance = budget.residual;
    for (std::int64_t c = 0; c < rank; ++c) {
      const double square = spectrum.squares[static_cast<std::size_t>(c)];
      const double step = step_of(budget, square, rank, elements);
      bits += (rows + columns) * gaussian_bits(-std::log2(step));
      // What rounding takes from each of the two vectors, and so from the component.
      const double kept = 1 - std::min(step * step / 12, 1.0);
      variance += square / elements * (1 - kept * kept);
    }
    bits += element_bits(precisions, variance) * elements;
    if (bits < best.bits) {
      best.bits = bits;
      best.rank = rank;
      best.noise_share = noise_share;
    }
  };
  const std::int64_t most = rank_of_signal(spectrum);
  const std::int64_t stride = std::max<std::int64_t>(1, most / 64);
  for (std::int64_t rank = 1; rank <= most; rank += rank < 16 ? 1 : stride) {
    // Nearly full ranks leave no residual to speak of, and estimates of it are wild.
    if (static_cast<double>(rank) > 0.9 * std::min(rows, columns)) break;
    consider(rank, usual_noise_share);
  }
  const std::int64_t rank = best.rank;
  for (const double factor : {0.35, 0.6, 1.6, 2.5, 4.0, 6.0}) {
    if (rank > 0) consider(rank, factor * usual_noise_share);
  }
  return best;
}

// ---- factors ------------------------------------------------------------------------------------

void fill_entries(const at::Tensor& matrix, Factor& factor) {
  const at::Tensor host = matrix.to(at::kCPU, at::kInt).contiguous();
  const auto* const first = host.data_ptr<std::int32_t>();
  factor.entries.assign(first, first + host.numel());
}

std::vector<std::int16_t> to_exponents(const at::Tensor& tensor) {
  std::vector<std::int16_t> exponents;
  for (const double value : to_doubles(tensor.reshape({-1})))
    exponents.push_back(static_cast<std::int16_t>(value));
  return exponents;
}

// Rounds the left vectors, and then takes for the right ones those that suit the rounded left ones
// best (least squares): they undo what of the rounding lies within the space of the left ones.
// `coarser` multiplies the steps. False when the factors cannot be had so precise.
bool quantize(const Spectrum& spectrum, const RankChoice& choice, double coarser, int mantissa,
              Factors& factors) {
  const std::int64_t rank = choice.rank;
  const auto rows = static_cast<double>(spectrum.left.size(0)),
             columns = static_cast<double>(spectrum.inside.size(1));
  const double elements = rows * columns;
  const Budget budget = budget_of(spectrum, rank, choice.noise_share, rows, columns, mantissa);
  std::vector<double> units;  // of a left vector's entries
  std::vector<double> exponents;
  for (std::int64_t c = 0; c < rank; ++c) {
    const double square = spectrum.squares[static_cast<std::size_t>(c)];
    const double step = coarser * step_of(budget, square, rank, elements);
    const double gain = step * step * std::sqrt(square / elements);
    const double exponent = std::round(std::log2(gain));
    units.push_back(std::sqrt(rows) / (step * std::sqrt(std::exp2(exponent) / gain)));
    exponents.push_back(exponent);
  }
  const auto row_of = [](std::vector<double>& values) {
    return at::from_blob(values.data(), {1, static_cast<std::int64_t>(values.size())}, at::kDouble)
        .clone();
  };
  const auto device = spectrum.left.device();
  at::Tensor left =
      (spectrum.left.narrow(1, 0, rank).to(at::kDouble) * row_of(units).to(device)).round();
  at::Tensor powers = row_of(exponents).to(device);
  // A component whose entries all round to zero predicts nothing.
  const at::Tensor useful = left.abs().amax(0).gt(0).nonzero().reshape({-1});
  if (useful.numel() == 0) return false;
  left = left.index_select(1, useful);
  powers = powers.index_select(1, useful);

  const at::Tensor basis = left * at::exp2(powers);
  at::Tensor gram = at::matmul(basis.t(), basis);
  const at::Tensor size = gram.diagonal().sqrt();
  gram = gram / size.unsqueeze(0) / size.unsqueeze(1);
  gram.diagonal().add_(1e-12);
  auto [factor, failed] = at::linalg_cholesky_ex(gram);
  if (failed.item<int>() != 0) return false;
  at::Tensor seen = (basis / size.unsqueeze(0)).t();
  if (spectrum.outside.defined()) seen = at::matmul(seen, spectrum.outside.to(at::kDouble));
  const at::Tensor solution = at::cholesky_solve(seen, factor) / size.unsqueeze(1);
  const at::Tensor right =
      at::matmul(solution.to(spectrum.inside.scalar_type()), spectrum.inside).round_().t();
  const double largest =
      std::max(left.abs().max().item<double>(), right.abs().max().item<double>());
  if (!(largest < static_cast<double>(most_factor))) return false;

  factors.rank = left.size(1);
  factors.exponents = to_exponents(powers);
  fill_entries(left, factors.u);
  fill_entries(right, factors.v);
  return true;
}

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

// Works in one copy of the matrix, of the type `work`, which is made anew rather than kept twice.
class Fit {
 public:
  Fit(const Source& source, at::ScalarType work, const Grid& grid)
      : source_(source), work_(work), grid_(grid) {}

  // Whether what a prediction leaves drowns in the work type's rounding.
  bool needs_double = false;

  LowRankFit run() {
    matrix_ = source_.copy(work_);
    const LastBits last_bits = last_bits_of(matrix_, grid_);
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
        exact() ? exact_spectrum(matrix_) : leading_spectrum(matrix_, better_start(first, change));
    const RankChoice choice = choose_rank(spectrum, precisions_of(last_bits, weights),
                                          static_cast<double>(matrix_.size(0)),
                                          static_cast<double>(matrix_.size(1)), grid_.mantissa);
    LowRankFit fit;
    fit.bits = choice.bits;
    if (choice.rank == 0) return fit;
    // Steps that are too fine for the integers at hand are made coarser.
    for (double coarser = 1; coarser < 1e12; coarser *= 32) {
      Factors factors;
      if (!quantize(spectrum, choice, coarser, grid_.mantissa, factors)) continue;
      if (product_bound(factors, aten_parallel()) >= std::uint64_t{1} << most_product_bits)
        continue;
      fit.low_rank = {std::move(factors), to_exponents(weights.rows),
                      to_exponents(weights.columns)};
      break;
    }
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
  if (std::min(matrix.size(0), matrix.size(1)) < least_side || matrix.numel() < least_elements)
    return fit;
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
  const Grid grid{format.mantissa_bits, 2 - (1 << (format.exponent_bits - 1)) - source.exponent};
  Fit first(source, type, grid);
  fit = first.run();
  if (first.needs_double) fit = Fit(source, at::kDouble, grid).run();
  for (auto& power : fit.low_rank.factors.exponents)
    power = static_cast<std::int16_t>(power + source.exponent);
  if (!wide) {
    std::swap(fit.low_rank.factors.u, fit.low_rank.factors.v);
    std::swap(fit.low_rank.row_weights, fit.low_rank.column_weights);
  }
  return fit;
}

}  // namespace lmgc::ops
