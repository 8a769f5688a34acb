#include "ops/low_rank.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>
#include <utility>
#include <vector>

#include "ops/panels.h"
#include "ops/rank_choice.h"
#include "ops/spectrum.h"

namespace lmgc::ops {
namespace {

constexpr std::int64_t least_side = 4;  // of a matrix worth a fit
constexpr std::int64_t least_elements = 1024;
constexpr std::int64_t oversampling = 8;
// Of a matrix's bits: what a refit gives for fewer components.
constexpr double spare_share = 0.0015;

// ---- one fit ------------------------------------------------------------------------------------

// Where the fitted matrix comes from: its rows are the shorter side.
struct Source {
  at::Tensor matrix;    // of any float type
  at::Tensor elements;  // whose last bits count, if not the matrix's own
  bool finite = true;
  // Elements are divided by 2^exponent, so that squares neither overflow nor vanish.
  int exponent = 0;

  // A copy to work in, of it without its weights, or of a part; in memory as the matrix is.
  at::Tensor copy(at::ScalarType type, const Weights& weights) const {
    const Unweigh unweigh(weights);
    return copy_of(matrix, type, &unweigh);
  }
  at::Tensor copy_of(const at::Tensor& of, at::ScalarType type,
                     const Unweigh* unweigh = nullptr) const {
    at::Tensor values = at::empty_like(of, of.options().dtype(type));
    const std::int64_t across = 1 - contiguous_side(of);
    // A power that is out of a float's range comes in two steps.
    const int first = std::clamp(-exponent, -100, 100), second = -exponent - first;
    for_each_panel(of, [&](std::int64_t begin, std::int64_t count) {
      at::Tensor to = values.narrow(across, begin, count);
      to.copy_(of.narrow(across, begin, count));
      if (!finite) to.nan_to_num_(0.0, 0.0, 0.0);
      to.mul_(std::ldexp(1.0, first));
      if (second != 0) to.mul_(std::ldexp(1.0, second));
      if (unweigh != nullptr) unweigh->panel_(to, across, begin, count);
    });
    return values;
  }
};

// From the spectrum of a matrix in its weights to the integers that predict it.
LowRankFit finish(const Spectrum& spectrum, const Weights& weights, const Grid& grid,
                  double spare_bits, const Precisions& precisions) {
  const RankChoice choice =
      choose_rank(spectrum, precisions, static_cast<double>(weights.rows.size(0)),
                  static_cast<double>(weights.columns.size(1)), grid.mantissa, spare_bits);
  LowRankFit fit;
  fit.bits = choice.bits;
  fit.bits_without = choice.bits_without;
  if (choice.rank == 0) return fit;
  Factors factors = factors_of(spectrum, choice, grid.mantissa);
  if (factors.rank == 0) return fit;
  fit.low_rank = {std::move(factors), to_exponents(weights.rows), to_exponents(weights.columns)};
  return fit;
}

// body(sample, weights) of some of the elements.
template <class Body>
Precisions sample_of(const at::Tensor& matrix, const Weights& weights, const Body& body) {
  constexpr std::int64_t most_rows = 64, most_columns = 256;
  const at::Tensor rows = spread(matrix.size(0), most_rows, matrix.device());
  const at::Tensor columns = spread(matrix.size(1), most_columns, matrix.device());
  return body(matrix.index_select(0, rows).index_select(1, columns),
              {weights.rows.index_select(0, rows), weights.columns.index_select(1, columns)});
}

// The rows of what was fitted are the matrix's shorter side: back to its own.
void turn(LowRank& low_rank) {
  std::swap(low_rank.factors.u, low_rank.factors.v);
  std::swap(low_rank.row_weights, low_rank.column_weights);
}

bool is_worth_a_fit(const at::Tensor& matrix) {
  return std::min(matrix.size(0), matrix.size(1)) >= least_side && matrix.numel() >= least_elements;
}

// About the right singular vectors, in rows, of what a look sees, from the left ones. One by one,
// or the largest would drown the others in a product.
at::Tensor right_vectors(const at::Tensor& left, const at::Tensor& seen) {
  at::Tensor right = mm_in_panels(left.t(), seen);
  return right.div_(at::linalg_vector_norm(right, 2, {1}, true).clamp_min_(1e-30));
}

// Works in one copy of the matrix, in the type `work`.
class Fit {
 public:
  Fit(Source source, at::ScalarType work, const Grid& grid, const SearchLimits& limits)
      : source_(std::move(source)), work_(work), grid_(grid), limits_(limits) {}

  // A look at the matrix in weights that are its own: says what to expect, and what the weights of
  // a prediction's residual are, which suit best.
  void look_first() {
    weights_ = balance(squares_of_some(0), squares_of_some(1));
    limit_unseen(weights_.rows);
    limit_unseen(weights_.columns);
    matrix_ = source_.copy(work_, weights_);
    const Look first = look(matrix_, signed_sums(matrix_, first_count()));
    seen_ = first.seen;

    if (!limits_.reweighs && rows() > limits_.most_exact_side) return look_once(first);
    const LineSquares rows_left = residual_squares(matrix_, first, 0);
    const LineSquares columns_left = residual_squares(matrix_, first, 1);
    const double left = columns_left.estimate(matrix_.numel());
    needs_double_ = work_ == at::kFloat && left < 1e-11 * (left + sum_of_squares(first.seen));
    change_ = balance(rows_left, columns_left);
    limit_change(change_.rows);
    limit_change(change_.columns);
    expect(left);
  }

  // Whether what a prediction leaves drowns in the work type's rounding.
  bool needs_double() const { return needs_double_; }
  double expected_bits() const { return expected_.bits; }

  LowRankFit run() {
    LowRankFit fit;
    fit.bits = expected_.bits;
    fit.in_double = work_ == at::kDouble;
    if (expected_.rank == 0) return fit;
    if (!only_.left.defined()) {
      Unweigh(change_).matrix_(matrix_);
      weights_ = {weights_.rows + change_.rows, weights_.columns + change_.columns};
      only_ = spectrum();
    }
    fit = finish(std::exchange(only_, {}), weights_, grid_, 0, precisions());
    fit.in_double = work_ == at::kDouble;
    return fit;
  }

 private:
  std::int64_t rows() const { return matrix_.size(0); }
  LineSquares squares_of_some(std::int64_t along) const {
    const SomeLines some = some_lines(source_.matrix, along);
    return {some.places, source_.copy_of(some.elements, work_).square_()};
  }
  // Components that the first look takes away: about as many as a section will.
  std::int64_t first_count() const {
    return std::min(rows(), std::min(rows() / 4, limits_.most_components * 3 / 4) + oversampling);
  }
  // Weights of lines of which hardly anything is left, or of which the sample holds nothing.
  static void limit_change(at::Tensor& exponents) {
    constexpr double most = 8;
    exponents.clamp_min_(exponents.median().item<double>() - most);
  }

  // Weights of lines of which the sample holds nothing: as if they were usual ones.
  static void limit_unseen(at::Tensor& exponents) {
    exponents.masked_fill_(exponents.le(unseen_weight), exponents.median());
  }

  // In the matrix's own weights: what the first look leads to is all.
  void look_once(const Look& first) {
    const double total = sum_of_squares(matrix_);
    const at::Tensor turn = left_singular(first.seen, at::kDouble, at::kDouble).first;
    only_ = leading_spectrum(matrix_, total, range_from(matrix_, right_vectors(turn, first.seen)));
    double left = only_.total;
    for (const double square : only_.squares) left -= square;
    needs_double_ = work_ == at::kFloat && left < 1e-9 * total;
    expected_ = choose_rank(only_, precisions(), static_cast<double>(rows()),
                            static_cast<double>(matrix_.size(1)), grid_.mantissa, 0);
  }

  // What the first look lets expect, estimated from some of the columns.
  void expect(double left) {
    constexpr std::int64_t most_columns = 768;
    const at::Tensor columns = spread(seen_.size(1), most_columns, seen_.device());
    const double share = static_cast<double>(columns.size(0)) / static_cast<double>(seen_.size(1));
    Spectrum spectrum;
    std::tie(turn_, spectrum.squares) =
        left_singular(seen_.index_select(1, columns), at::kDouble, at::kDouble);
    for (double& square : spectrum.squares) square /= share;
    // Not the matrix's own total, from which these differ by more than is left.
    spectrum.total = std::accumulate(spectrum.squares.begin(), spectrum.squares.end(), left);
    expected_ = choose_rank(spectrum, precisions(), static_cast<double>(rows()),
                            static_cast<double>(matrix_.size(1)), grid_.mantissa, 0);
  }

  Precisions precisions() const {
    const at::Tensor& elements = source_.elements.defined() ? source_.elements : source_.matrix;
    return sample_of(elements, weights_, [&](const at::Tensor& sample, const Weights& weights) {
      at::Tensor values = source_.copy_of(sample, work_);
      Unweigh(weights).matrix_(values);
      return precisions_of(values, weights, grid_);
    });
  }

  Spectrum spectrum() {
    if (rows() <= limits_.most_exact_side) return exact_spectrum(matrix_);
    const std::int64_t first = seen_.size(0), most = limits_.most_components + oversampling;
    const std::int64_t expected = expected_.rank;
    const std::int64_t count = std::min(
        {rows(), most, 4 * expected > 3 * first ? 2 * first : 3 * expected / 2 + oversampling});
    // The right singular vectors that were found, in the new weights, and some more.
    const std::int64_t old = std::min(count, first);
    seen_.mul_(at::exp2(-change_.columns));
    at::Tensor range = range_from(matrix_, right_vectors(turn_.narrow(1, 0, old), seen_));
    if (count > old) range = at::cat({range, signed_sums(matrix_, count - old)}, 1);
    for (int iteration = 1; iteration < limits_.iterations; ++iteration)
      range = range_from(matrix_, look(matrix_, range).seen);
    return leading_spectrum(matrix_, sum_of_squares(matrix_), range);
  }

  Source source_;
  at::ScalarType work_;
  Grid grid_;
  SearchLimits limits_;
  at::Tensor matrix_;
  Weights weights_, change_;
  Spectrum only_;           // where one look is all
  at::Tensor seen_, turn_;  // by the first look, and what turns it into singular vectors
  RankChoice expected_;
  bool needs_double_ = false;
};

// The view with its shorter side as rows, ready to work in; nothing where it is not worth it.
std::optional<Source> source_of(const View& view, at::ScalarType work) {
  if (!is_worth_a_fit(view.matrix)) return std::nullopt;
  const bool wide = view.matrix.size(0) <= view.matrix.size(1);
  Source source{wide ? view.matrix : view.matrix.t(), {}};
  if (view.elements.defined()) source.elements = wide ? view.elements : view.elements.t();
  double largest = largest_of(view.matrix);
  if (!std::isfinite(largest)) {
    source.finite = false;
    largest = largest_of(source.copy_of(view.matrix, work));
  }
  if (!(largest > 0)) return std::nullopt;
  source.exponent = std::ilogb(largest) + 1;
  return source;
}

}  // namespace

LowRankFit fit_low_rank(const std::vector<View>& views, FloatFormat format,
                        const SearchLimits& limits) {
  struct Begun {
    std::size_t view;
    int exponent;
    Fit fit;
  };
  std::vector<Begun> all;
  for (std::size_t i = 0; i < views.size(); ++i) {
    const auto type = views[i].matrix.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const std::optional<Source> source = source_of(views[i], type);
    if (!source.has_value()) continue;
    const Grid grid{format.mantissa_bits, FixedFormat(format).least - source->exponent};
    Begun begun{i, source->exponent, Fit(*source, type, grid, limits)};
    begun.fit.look_first();
    if (begun.fit.needs_double()) {
      begun.fit = Fit(*source, at::kDouble, grid, limits);
      begun.fit.look_first();
    }
    all.push_back(std::move(begun));
  }
  std::stable_sort(all.begin(), all.end(), [](const Begun& a, const Begun& b) {
    return a.fit.expected_bits() < b.fit.expected_bits();
  });
  // What looks nearly as good may be better in the end.
  constexpr double nearly = 1.003;
  LowRankFit best;
  for (Begun& begun : all) {
    if (!limits.every_view && begun.fit.expected_bits() > nearly * all[0].fit.expected_bits())
      break;
    LowRankFit fit = begun.fit.run();
    if (fit.low_rank.factors.rank == 0) continue;
    if (best.low_rank.factors.rank != 0 && fit.bits >= best.bits) continue;
    for (auto& power : fit.low_rank.factors.exponents)
      power = static_cast<std::int16_t>(power + begun.exponent);
    const at::Tensor& matrix = views[begun.view].matrix;
    if (matrix.size(0) > matrix.size(1)) turn(fit.low_rank);
    best = std::move(fit);
    best.view = begun.view;
  }
  return best;
}

namespace {

// About the range of the matrix: some of the columns span about the space of the left singular
// vectors, and one step of iteration leads from there.
at::Tensor good_range(const at::Tensor& matrix, std::int64_t count) {
  const at::Tensor some = matrix.index_select(1, spread(matrix.size(1), count, matrix.device()));
  return range_from(matrix, look(matrix, some).seen);
}

}  // namespace

std::optional<LowRankFit> refit_low_rank(const at::Tensor& matrix, FloatFormat format,
                                         const FitMemory& memory, const SearchLimits& limits) {
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

  const std::int64_t count =
      std::min(values.size(0),
               std::min(memory.rank + memory.rank / 8, limits.most_components) + oversampling);
  const Spectrum spectrum = leading_spectrum(values, total, good_range(values, count));
  double captured = 0;
  for (const double square : spectrum.squares) captured += square;
  // Where next to nothing is left, floats do not tell the last components from rounding.
  if (!in_double && spectrum.total - captured < 1e-9 * captured) return std::nullopt;
  const Grid grid{format.mantissa_bits, FixedFormat(format).least};
  const Precisions precisions =
      sample_of(values, weights, [&](const at::Tensor& sample, const Weights& of_sample) {
        return precisions_of(sample, of_sample, grid);
      });
  LowRankFit fit =
      finish(spectrum, weights, grid,
             spare_share * format.bits() * static_cast<double>(matrix.numel()), precisions);
  fit.in_double = in_double;
  if (!wide) turn(fit.low_rank);
  return fit;
}

}  // namespace lmgc::ops
