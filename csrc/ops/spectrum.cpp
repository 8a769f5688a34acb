#include "ops/spectrum.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <numeric>

namespace lmgc::ops {
namespace {

// Left singular vectors and squared singular values of a matrix, the largest first. Through its
// Gram matrix, in `type`: squares of small singular values drown in floats.
void decompose(const at::Tensor& matrix, at::ScalarType type, Spectrum& spectrum) {
  constexpr std::int64_t stripe = 16384;  // columns, so that not all of it is copied
  at::Tensor gram = at::zeros({matrix.size(0), matrix.size(0)}, matrix.options().dtype(type));
  for (std::int64_t first = 0; first < matrix.size(1); first += stripe) {
    const at::Tensor wide =
        matrix.narrow(1, first, std::min(stripe, matrix.size(1) - first)).to(type);
    gram.addmm_(wide, wide.t());
  }
  auto [ascending, columns] = at::linalg_eigh(gram);
  spectrum.left = columns.flip({1}).to(matrix.scalar_type());
  spectrum.squares = to_doubles(ascending.flip({0}).clamp_min(0));
}

}  // namespace

void scale_(at::Tensor& matrix, const Weights& weights) {
  matrix.mul_(at::exp2(-weights.rows)).mul_(at::exp2(-weights.columns));
}

Weights balance(const at::Tensor& squares) {
  constexpr int rounds = 3;
  constexpr double least = 1e-30;
  at::Tensor rows, columns = at::ones({1, squares.size(1)}, squares.options());
  for (int round = 0; round < rounds; ++round) {
    rows = at::matmul(squares, columns.reciprocal().t()).div_(squares.size(1)).clamp_min_(least);
    columns = at::matmul(rows.reciprocal().t(), squares).div_(squares.size(0)).clamp_min_(least);
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
  return at::linalg_vector_norm(matrix, 2, {along}).to(at::kDouble).square_().sum().item<double>();
}

Spectrum exact_spectrum(const at::Tensor& matrix) {
  Spectrum spectrum;
  decompose(matrix, at::kDouble, spectrum);
  spectrum.inside = matrix;
  // Not from the matrix: what a rank leaves is a difference of these, tiny for some matrices.
  spectrum.total = std::accumulate(spectrum.squares.begin(), spectrum.squares.end(), 0.0);
  return spectrum;
}

Sketch sketch(const at::Tensor& matrix, const at::Tensor& start) {
  const at::Tensor basis = std::get<0>(at::linalg_qr(at::matmul(matrix, start)));
  return {basis, at::matmul(basis.t(), matrix)};
}

Spectrum leading_spectrum(const at::Tensor& matrix, double total, const at::Tensor& start) {
  Spectrum spectrum;
  const Sketch found = sketch(matrix, start);
  // Floats do where more is left than they lose.
  constexpr double much = 1e-5;
  const double seen = sum_of_squares(found.seen);
  decompose(found.seen, total - seen > much * total ? matrix.scalar_type() : at::kDouble, spectrum);
  spectrum.left = at::matmul(found.basis, spectrum.left);
  spectrum.outside = found.basis;
  spectrum.inside = found.seen;
  // What is left, as a difference, or, where it is so small that the difference is rounding,
  // itself.
  constexpr double too_small = 1e-5;
  spectrum.total = total;
  if (total - seen < too_small * total) {
    spectrum.total = std::accumulate(spectrum.squares.begin(), spectrum.squares.end(), 0.0);
    constexpr std::int64_t stripe = 256;  // rows, so that not all of it is copied
    for (std::int64_t first = 0; first < matrix.size(0); first += stripe) {
      const std::int64_t rows = std::min(stripe, matrix.size(0) - first);
      spectrum.total += sum_of_squares(at::addmm(
          matrix.narrow(0, first, rows), found.basis.narrow(0, first, rows), found.seen, 1, -1));
    }
  }
  return spectrum;
}

at::Tensor random_start(std::int64_t columns, std::int64_t count,
                        const at::TensorOptions& options) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(20240917);
  return at::randn({columns, count}, generator, at::TensorOptions().dtype(at::kFloat))
      .to(options.device(), c10::typeMetaToScalarType(options.dtype()));
}

}  // namespace lmgc::ops
