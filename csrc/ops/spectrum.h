// Leading singular vectors of large matrices, by the encoder: any arithmetic will do.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace lmgc::ops {

// Powers of two by which the lines of a matrix are divided: exponents as floats of the work type,
// (rows, 1) and (1, columns).
struct Weights {
  at::Tensor rows, columns;
};

// Takes the weights off, in place.
void scale_(at::Tensor& matrix, const Weights& weights);

// Powers of two near the root mean squares of rows and columns of a matrix of squares, found by
// turns.
Weights balance(const at::Tensor& squares);

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
// in it: one step of randomized subspace iteration (Halko, Martinsson, Tropp 2011) from `start`,
// (columns, count), a guess of the leading right ones.
struct Sketch {
  at::Tensor basis;  // (rows, count)
  at::Tensor seen;   // (count, columns): basis' x matrix
};
Sketch sketch(const at::Tensor& matrix, const at::Tensor& start);

// Of a matrix or a transposed one: of its lines that are contiguous, each in the work type, and all
// together in doubles.
double sum_of_squares(const at::Tensor& matrix);

// As many as `start` has columns, by a sketch; `total` is the sum of squares.
Spectrum leading_spectrum(const at::Tensor& matrix, double total, const at::Tensor& start);

// A guess when nothing is known, the same each time.
at::Tensor random_start(std::int64_t columns, std::int64_t count, const at::TensorOptions& options);

std::vector<double> to_doubles(const at::Tensor& tensor);

}  // namespace lmgc::ops
