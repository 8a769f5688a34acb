#include "ops/dense.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <tuple>

namespace lmgc::ops {
namespace {

// Lines of a product that one thread computes at a time: about 16 panels, not too narrow for a
// matrix multiplication nor so wide that threads wait for the last one.
std::int64_t panel_width(std::int64_t lines) {
  constexpr std::int64_t narrow = 48, wide = 512, panels = 16;
  return std::clamp((lines + panels - 1) / panels, narrow, wide);
}

void multiply(const at::Tensor& a, const at::Tensor& b, at::Tensor& out) {
  if (!a.is_cpu()) {
    at::mm_out(out, a, b);
    return;
  }
  const std::int64_t along = out.size(0) > out.size(1) ? 0 : 1;
  const std::int64_t lines = out.size(along), width = panel_width(lines);
  at::parallel_for(0, (lines + width - 1) / width, 1, [&](std::int64_t begin, std::int64_t end) {
    const PlainDispatch plain;
    for (std::int64_t panel = begin; panel < end; ++panel) {
      const std::int64_t first = panel * width, count = std::min(width, lines - first);
      at::Tensor own = out.narrow(along, first, count);
      if (along == 0) {
        at::mm_out(own, a.narrow(0, first, count), b);
      } else {
        at::mm_out(own, a, b.narrow(1, first, count));
      }
    }
  });
}

// By the Cholesky decomposition of the columns' Gram matrix, twice (Yamamoto, Nakatsukasa,
// Yanagisawa, Fukaya 2015): nothing but products. Undefined where the columns are too nearly
// dependent for that.
at::Tensor cholesky_basis(const at::Tensor& matrix) {
  at::Tensor basis = matrix.to(at::kDouble);
  for (int round = 0; round < 2; ++round) {
    const at::Tensor turned = basis.t();
    at::Tensor products = product(turned, basis);
    const at::Tensor sizes = products.diagonal().sqrt();
    products.div_(sizes.unsqueeze(0)).div_(sizes.unsqueeze(1));
    auto [factor, failed] = at::linalg_cholesky_ex(products);
    if (failed.item<int>() != 0) return {};
    const at::Tensor pivots = factor.diagonal();
    constexpr double least = 1e-6;  // below, rounding leaves nothing of a column
    if (!(pivots.min().item<double>() > least)) return {};
    basis = at::linalg_solve_triangular(factor, (basis / sizes).t(), /*upper=*/false).t();
  }
  return basis.to(matrix.scalar_type());
}

}  // namespace

at::Tensor product(const at::Tensor& a, const at::Tensor& b) {
  at::Tensor out = at::empty({a.size(0), b.size(1)}, a.options());
  multiply(a, b, out);
  return out;
}

at::Tensor gram(const at::Tensor& a, at::ScalarType type) {
  constexpr std::int64_t stripe = 16384;  // columns, so that not all of it is copied
  at::Tensor sum;
  for (std::int64_t first = 0; first < a.size(1); first += stripe) {
    const at::Tensor own = a.narrow(1, first, std::min(stripe, a.size(1) - first)).to(type);
    const at::Tensor products = product(own, own.t());
    sum = sum.defined() ? sum.add_(products) : products;
  }
  return sum;
}

at::Tensor orthonormal(const at::Tensor& matrix) {
  at::Tensor basis;
  alone([&] {
    basis = cholesky_basis(matrix);
    if (!basis.defined()) basis = std::get<0>(at::linalg_qr(matrix));
  });
  return basis;
}

Eigen eigen(const at::Tensor& symmetric) {
  Eigen result;
  alone([&] {
    auto [ascending, columns] = at::linalg_eigh(symmetric);
    result = {ascending.flip({0}), columns.flip({1})};
  });
  return result;
}

}  // namespace lmgc::ops
