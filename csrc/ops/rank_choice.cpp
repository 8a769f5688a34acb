#include "ops/rank_choice.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "ops/for_each.h"
#include "ops/panels.h"

namespace lmgc::ops {
namespace {

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

}  // namespace

Precisions precisions_of(const at::Tensor& sample, const Weights& weights, const Grid& grid) {
  const std::vector<double> values = to_doubles(sample);
  const std::vector<double> row_weights = to_doubles(weights.rows);
  const std::vector<double> column_weights = to_doubles(weights.columns);
  std::map<int, std::int64_t> counts;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (values[i] == 0) continue;  // no bits worth a count
    const double weight =
        row_weights[i / column_weights.size()] + column_weights[i % column_weights.size()];
    const int exponent = std::max(std::ilogb(values[i]), grid.least - static_cast<int>(weight));
    ++counts[grid.mantissa - exponent];
  }
  Precisions result;
  for (const auto& [above, count] : counts)
    result.emplace_back(above, static_cast<double>(count) / static_cast<double>(values.size()));
  return result;
}

namespace {

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

}  // namespace

RankChoice choose_rank(const Spectrum& spectrum, const Precisions& precisions, double rows,
                       double columns, int mantissa, double spare_bits) {
  const double elements = rows * columns;
  constexpr double bits_of_a_line = 4;  // weights, beside the scales that any section has
  constexpr double bits_of_a_component = 10;
  RankChoice best;
  const double bits_without = element_bits(precisions, spectrum.total / elements) * elements;
  best.bits = bits_without;
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
    if (bits < best.bits) best = {rank, noise_share, bits, bits_without};
    return bits;
  };
  const std::int64_t most = rank_of_signal(spectrum);
  const std::int64_t stride = std::max<std::int64_t>(1, most / (spare_bits > 0 ? 32 : 64));
  std::vector<RankChoice> all;
  for (std::int64_t rank = 1; rank <= most; rank += rank < 16 ? 1 : stride) {
    // Nearly full ranks leave no residual to speak of, and estimates of it are wild.
    if (static_cast<double>(rank) > 0.9 * std::min(rows, columns)) break;
    all.push_back({rank, usual_noise_share, consider(rank, usual_noise_share), bits_without});
  }
  // A refit also looks at what lies between: before a cliff each component counts.
  const std::int64_t nearly = best.rank;
  for (std::int64_t rank = nearly - stride + 1;
       spare_bits > 0 && nearly > 16 && rank < nearly + stride; ++rank) {
    if (rank <= most && static_cast<double>(rank) <= 0.9 * std::min(rows, columns))
      consider(rank, usual_noise_share);
  }
  const double enough = best.bits + spare_bits;
  // Only where what is left falls slowly.
  double left = spectrum.total;
  for (std::int64_t c = 0; c < best.rank; ++c)
    left -= spectrum.squares[static_cast<std::size_t>(c)];
  const bool may_spare =
      best.rank > 0 && left > 16 * spectrum.squares[static_cast<std::size_t>(best.rank - 1)];
  for (const RankChoice& choice : all) {
    if (!may_spare || choice.rank >= best.rank) break;
    if (choice.bits > enough || 5 * choice.rank < 4 * best.rank) continue;
    best = choice;
    break;
  }
  const std::int64_t rank = best.rank;
  for (const double factor : {0.35, 0.6, 1.6, 2.5, 4.0, 6.0}) {
    if (rank > 0) consider(rank, factor * usual_noise_share);
  }
  best.bits_without = bits_without;
  return best;
}

namespace {

// ---- factors ------------------------------------------------------------------------------------

// Of integers as floats, (lines, rank).
void fill_entries(const at::Tensor& matrix, Factor& factor) {
  const at::Tensor host = matrix.to(at::kInt).cpu().contiguous();
  const auto* const first = host.data_ptr<std::int32_t>();
  factor.entries.assign(first, first + host.numel());
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
  at::Tensor products = at::mm(basis.t(), basis);
  const at::Tensor size = products.diagonal().sqrt();
  products = products / size.unsqueeze(0) / size.unsqueeze(1);
  products.diagonal().add_(1e-12);
  at::Tensor seen = (basis / size.unsqueeze(0)).t();
  if (spectrum.outside.defined())
    seen = mm_in_panels(seen.to(spectrum.outside.scalar_type()), spectrum.outside).to(at::kDouble);
  auto [factor, failed] = at::linalg_cholesky_ex(products);
  if (failed.item<int>() != 0) return false;
  const at::Tensor solution = at::cholesky_solve(seen, factor) / size.unsqueeze(1);
  const at::Tensor right =
      mm_in_panels(spectrum.inside.t(), solution.to(spectrum.inside.scalar_type()).t()).round_();
  const double largest = std::max(largest_of(left), largest_of(right));
  if (!(largest < static_cast<double>(most_factor))) return false;

  factors.rank = left.size(1);
  factors.exponents = to_exponents(powers);
  fill_entries(left, factors.u);
  fill_entries(right, factors.v);
  return true;
}

}  // namespace

std::vector<std::int16_t> to_exponents(const at::Tensor& tensor) {
  std::vector<std::int16_t> exponents;
  for (const double value : to_doubles(tensor.reshape({-1})))
    exponents.push_back(static_cast<std::int16_t>(value));
  return exponents;
}

Factors factors_of(const Spectrum& spectrum, const RankChoice& choice, int mantissa) {
  // Steps that are too fine for the integers at hand are made coarser.
  for (double coarser = 1; coarser < 1e12; coarser *= 2) {
    Factors factors;
    if (!quantize(spectrum, choice, coarser, mantissa, factors)) continue;
    if (product_bound(factors, aten_parallel()) < std::uint64_t{1} << most_product_bits)
      return factors;
  }
  return {};
}

}  // namespace lmgc::ops
