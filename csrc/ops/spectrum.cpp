#include "ops/spectrum.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

#include "ops/panels.h"

namespace lmgc::ops {
namespace {

// An orthonormal basis of the space of the columns of a matrix that has no fewer rows than columns.
// By Cholesky decompositions of the columns' Gram matrix and products, repeated for as long as
// rounding has a part in it, and with a shift where columns are too nearly dependent for a
// decomposition (Fukaya, Kannan, Nakatsukasa, Yamamoto, Yanagisawa 2020). Not by Householder's:
// MKL's hangs in parallel regions.
at::Tensor orthonormal(const at::Tensor& matrix) {
  constexpr int most_rounds = 6;
  constexpr double least_pivot = 1e-6, shift = 1e-14;
  const bool single = matrix.scalar_type() == at::kFloat;
  at::Tensor basis = matrix.to(at::kDouble);
  for (int round = 0; round < most_rounds; ++round) {
    at::Tensor gram = mm_in_panels(basis.t(), basis);
    // As if columns were of norm 1.
    const at::Tensor norms = gram.diagonal().sqrt().clamp_min_(1e-300);
    gram.div_(norms.unsqueeze(0)).div_(norms.unsqueeze(1));
    auto [factor, failed] = at::linalg_cholesky_ex(gram);
    const double smallest = failed.item<int>() == 0 ? factor.diagonal().min().item<double>() : 0.0;
    const bool shifted = !(smallest > least_pivot);
    if (shifted) {
      gram.diagonal().add_(shift * static_cast<double>(gram.size(0)));
      std::tie(factor, failed) = at::linalg_cholesky_ex(gram);
      if (failed.item<int>() != 0) break;
    }
    factor.mul_(norms.unsqueeze(1));
    basis = at::linalg_solve_triangular(factor, basis.t(), /*upper=*/false).t();
    // What is left is rounding times the square of how dependent columns were.
    if (smallest > (single ? 1e-3 : 0.5)) break;
  }
  return basis.to(matrix.scalar_type());
}

}  // namespace

double largest_of(const at::Tensor& matrix) {
  const auto [least, most] = at::aminmax(matrix);
  return std::max(most.item<double>(), -least.item<double>());
}

Singular left_singular(const at::Tensor& matrix, at::ScalarType products,
                       at::ScalarType decomposition) {
  constexpr std::int64_t stripe = 16384;  // columns, so that not all of it is copied
  at::Tensor gram = at::zeros({matrix.size(0), matrix.size(0)}, matrix.options().dtype(products));
  for (std::int64_t first = 0; first < matrix.size(1); first += stripe) {
    const at::Tensor wide =
        matrix.narrow(1, first, std::min(stripe, matrix.size(1) - first)).to(products);
    gram.add_(mm_in_panels(wide, wide.t()));
  }
  auto [ascending, vectors] = at::linalg_eigh(gram.to(decomposition));
  return {vectors.flip({1}).to(matrix.scalar_type()), to_doubles(ascending.flip({0}).clamp_min(0))};
}

Unweigh::Unweigh(const Weights& weights)
    : rows_(at::exp2(-weights.rows)), columns_(at::exp2(-weights.columns)) {}

void Unweigh::panel_(at::Tensor panel, std::int64_t across, std::int64_t begin,
                     std::int64_t count) const {
  panel.mul_(across == 0 ? rows_.narrow(0, begin, count) : rows_)
      .mul_(across == 1 ? columns_.narrow(1, begin, count) : columns_);
}

void Unweigh::matrix_(const at::Tensor& matrix) const {
  const std::int64_t across = 1 - contiguous_side(matrix);
  for_each_panel(matrix, [&](std::int64_t begin, std::int64_t count) {
    panel_(matrix.narrow(across, begin, count), across, begin, count);
  });
}

at::Tensor spread(std::int64_t length, std::int64_t most, const at::Device& device) {
  const std::int64_t count = std::min(length, most);
  return at::arange(count, at::TensorOptions().dtype(at::kLong).device(device))
      .mul_(length)
      .div_(count, "floor");
}

Weights balance(const LineSquares& some_rows, const LineSquares& some_columns) {
  constexpr int rounds = 3;
  const double least = std::ldexp(1.0, 2 * unseen_weight);
  at::Tensor rows, columns = at::ones({1, some_rows.squares.size(1)}, some_rows.squares.options());
  for (int round = 0; round < rounds; ++round) {
    const at::Tensor of_columns = columns.index_select(1, some_columns.places);
    rows = at::mm(some_columns.squares, of_columns.reciprocal().t())
               .div_(of_columns.size(1))
               .clamp_min_(least);
    const at::Tensor of_rows = rows.index_select(0, some_rows.places);
    columns =
        at::mm(of_rows.reciprocal().t(), some_rows.squares).div_(of_rows.size(0)).clamp_min_(least);
  }
  return {(rows.log2() * 0.5).round(), (columns.log2() * 0.5).round()};
}

std::vector<double> to_doubles(const at::Tensor& tensor) {
  const at::Tensor host = tensor.to(at::kCPU, at::kDouble).contiguous();
  const double* const first = host.data_ptr<double>();
  return std::vector<double>(first, first + host.numel());
}

double sum_of_squares(const at::Tensor& matrix) {
  const std::int64_t along = matrix.stride(1) == 1 ? 1 : 0;
  double sum = 0;
  for (const double norm : to_doubles(at::linalg_vector_norm(matrix, 2, {along})))
    sum += norm * norm;
  return sum;
}

Spectrum exact_spectrum(const at::Tensor& matrix) {
  Spectrum spectrum;
  std::tie(spectrum.left, spectrum.squares) = left_singular(matrix, at::kDouble, at::kDouble);
  spectrum.inside = matrix;
  // Not from the matrix: what a rank leaves is a difference of these, tiny for some matrices.
  spectrum.total = std::accumulate(spectrum.squares.begin(), spectrum.squares.end(), 0.0);
  return spectrum;
}

Look look(const at::Tensor& matrix, const at::Tensor& range) {
  const at::Tensor basis = orthonormal(range);
  return {basis, mm_in_panels(basis.t(), matrix)};
}

// As its transposed, which is as fast however the matrix lies in memory: of one that lies in
// columns, MKL makes the product itself in four times the time on some processors.
at::Tensor range_from(const at::Tensor& matrix, const at::Tensor& right) {
  return mm_in_panels(right, matrix.t()).t();
}

at::Tensor signed_sums(const at::Tensor& matrix, std::int64_t count) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(20240917);
  const std::int64_t columns = matrix.size(1);
  const at::Tensor signs =
      at::randint(0, 2, {1, columns}, generator, at::kFloat).mul_(2).sub_(1).to(matrix.options());
  // Few columns at a time would take long: several lots of them, which are added up in the end.
  constexpr std::int64_t at_once = 256;
  const std::int64_t lots = std::max<std::int64_t>(1, at_once / count), wide = lots * count;
  at::Tensor sums = contiguous_side(matrix) == 1
                        ? at::zeros({matrix.size(0), wide}, matrix.options())
                        : at::zeros({wide, matrix.size(0)}, matrix.options()).t();
  for (std::int64_t first = 0; first < columns; first += wide) {
    const std::int64_t width = std::min(wide, columns - first);
    sums.narrow(1, 0, width)
        .addcmul_(matrix.narrow(1, first, width), signs.narrow(1, first, width));
  }
  for (std::int64_t lot = 1; lot < lots; ++lot)
    sums.narrow(1, 0, count).add_(sums.narrow(1, lot * count, count));
  return sums.narrow(1, 0, count);
}

SomeLines some_lines(const at::Tensor& matrix, std::int64_t along) {
  constexpr std::int64_t least = 128, elements = 1 << 18;
  const std::int64_t most = std::max(least, elements / matrix.size(1 - along));
  const at::Tensor places = spread(matrix.size(along), most, matrix.device());
  // As they lie in memory.
  return {places, contiguous_side(matrix) == 1 ? matrix.index_select(along, places)
                                               : matrix.t().index_select(1 - along, places).t()};
}

LineSquares residual_squares(const at::Tensor& matrix, const Look& look, std::int64_t along) {
  auto [places, lines] = some_lines(matrix, along);
  lines.sub_(along == 0 ? mm_in_panels(look.basis.index_select(0, places), look.seen)
                        : mm_in_panels(look.basis, look.seen.index_select(1, places)));
  return {places, lines.square_()};
}

double LineSquares::estimate(std::int64_t elements) const {
  const std::vector<double> sums = to_doubles(squares.sum(1));
  return std::accumulate(sums.begin(), sums.end(), 0.0) * static_cast<double>(elements) /
         static_cast<double>(squares.numel());
}

Spectrum leading_spectrum(const at::Tensor& matrix, double total, const at::Tensor& range) {
  Spectrum spectrum;
  const Look found = look(matrix, range);
  // Decompositions in floats do where more is left than they lose. Products of floats do anyway:
  // rows of what is seen are about as large as the components that they are near, and so are the
  // errors of their products.
  constexpr double much = 1e-5;
  const double seen = sum_of_squares(found.seen);
  std::tie(spectrum.left, spectrum.squares) =
      left_singular(found.seen, matrix.scalar_type(),
                    total - seen > much * total ? matrix.scalar_type() : at::kDouble);
  spectrum.left = at::mm(found.basis, spectrum.left);
  spectrum.outside = found.basis;
  spectrum.inside = found.seen;
  // What is left, as a difference, or, where it is so small that the difference is rounding,
  // itself, from some of the columns.
  constexpr double too_small = 1e-5;
  spectrum.total = total;
  if (total - seen < too_small * total) {
    const double left = residual_squares(matrix, found, 1).estimate(matrix.numel());
    spectrum.total = std::accumulate(spectrum.squares.begin(), spectrum.squares.end(), left);
  }
  return spectrum;
}

}  // namespace lmgc::ops
