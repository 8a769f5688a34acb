// Dense algebra for the encoder's search. On the CPU every number is computed in the same way
// whatever the number of threads, so that the frames are the same, too: products are cut into
// panels whose bounds depend on the sizes alone, each of which one thread computes.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "ops/for_each.h"

namespace lmgc::ops {

// body() on one thread: what it calls sees a parallel region, and does not start threads.
template <class Body>
void alone(const Body& body) {
  at::parallel_for(0, at::in_parallel_region() ? 1 : 2, 1, [&](std::int64_t first, std::int64_t) {
    const PlainDispatch plain;
    if (first == 0) body();
  });
}

// The largest magnitude of a matrix that is not empty; NaN if there is one.
double largest_of(const at::Tensor& matrix);

// a x b, of two matrices of one floating-point type.
at::Tensor product(const at::Tensor& a, const at::Tensor& b);

// a x a', in `type`.
at::Tensor gram(const at::Tensor& a, at::ScalarType type);

// An orthonormal basis of the space of the columns of a matrix that has no fewer rows than columns.
at::Tensor orthonormal(const at::Tensor& matrix);

// Eigenvalues, falling, and vectors, in columns, of a symmetric matrix.
struct Eigen {
  at::Tensor values, vectors;
};
Eigen eigen(const at::Tensor& symmetric);

}  // namespace lmgc::ops
