// Leading singular vectors of large matrices, by the encoder: any arithmetic will do.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace lmgc::ops {

// Powers of two by which the lines of a matrix are divided: exponents as floats of the work type,
// (rows, 1) and (1, columns).
struct Weights {
  at::Tensor rows, columns;
};

// The largest magnitude of a matrix that is not empty; NaN if there is one.
double largest_of(const at::Tensor& matrix);

// Takes weights off, in place: off a matrix, or off its panels, (begin, count) of `across`.
class Unweigh {
 public:
  explicit Unweigh(const Weights& weights);
  void panel_(at::Tensor panel, std::int64_t across, std::int64_t begin, std::int64_t count) const;
  void matrix_(const at::Tensor& matrix) const;

 private:
  at::Tensor rows_, columns_;  // what to multiply by
};

// Some rows (`along` 0) or columns (1) of a matrix, evenly spread, or all of a small one: their
// places, int64 and ascending, and elements, (places, columns) or (rows, places).
struct SomeLines {
  at::Tensor places, elements;
};
SomeLines some_lines(const at::Tensor& matrix, std::int64_t along);

// The squares of their elements.
struct LineSquares {
  at::Tensor places, squares;

  // The sum of all squares of a matrix of so many elements.
  double estimate(std::int64_t elements) const;
};

// Powers of two near the root mean squares of rows and columns, found by turns: of all rows from
// `some_columns`, and of all columns from `some_rows`. Of a line that holds nothing there, and of
// one whose squares are smaller, 2^(2 * unseen_weight).
inline constexpr int unseen_weight = -50;
Weights balance(const LineSquares& some_rows, const LineSquares& some_columns);

// Up to `most` places of `length`, evenly spread.
at::Tensor spread(std::int64_t length, std::int64_t most, const at::Device& device);

// All left singular vectors, in columns, and squared singular values of a matrix, the largest
// first. Through its Gram matrix, whose products and decomposition are in these types: squares of
// small singular values drown in floats, unless rows that hold them are small themselves.
using Singular = std::pair<at::Tensor, std::vector<double>>;
Singular left_singular(const at::Tensor& matrix, at::ScalarType products,
                       at::ScalarType decomposition);

// The leading left singular vectors and squared singular values of a matrix whose rows are its
// shorter side.
struct Spectrum {
  at::Tensor left;              // (rows, count), in the work type
  std::vector<double> squares;  // count, falling
  double total = 0;             // of all squares
  // The matrix but for what no component here can see: outside x inside, (rows, n) x (n, columns);
  // without an outside it is inside itself.
  at::Tensor outside, inside;
};

// All of them.
Spectrum exact_spectrum(const at::Tensor& matrix);

// An orthonormal basis of about the space of the leading left singular vectors, and the matrix seen
// in it.
struct Look {
  at::Tensor basis;  // (rows, count)
  at::Tensor seen;   // (count, columns): basis' x matrix
};
// Of the space of `range`, (rows, count), count <= rows: the range of the matrix, as far as it is
// known, of randomized subspace iteration (Halko, Martinsson, Tropp 2011).
Look look(const at::Tensor& matrix, const at::Tensor& range);

// The range that right vectors lead to, which are the rows of `right`: matrix x right', (rows,
// count).
at::Tensor range_from(const at::Tensor& matrix, const at::Tensor& right);

// What a look does not see of some rows (`along` 0) or columns (1).
LineSquares residual_squares(const at::Tensor& matrix, const Look& look, std::int64_t along);

// A range when nothing is known, (rows, count): sums of columns with random signs, each column in
// one of them. The same each time.
at::Tensor signed_sums(const at::Tensor& matrix, std::int64_t count);

// Of a matrix or a transposed one: of its lines that are contiguous, each in the work type, and all
// together in doubles.
double sum_of_squares(const at::Tensor& matrix);

// As many as `range` has columns, by a look; `total` is the sum of squares.
Spectrum leading_spectrum(const at::Tensor& matrix, double total, const at::Tensor& range);

std::vector<double> to_doubles(const at::Tensor& tensor);

}  // namespace lmgc::ops
