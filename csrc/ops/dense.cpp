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

// body(panel, first, count) for panels of `lines` lines, on all threads.
template <class Body>
void for_each_panel(std::int64_t lines, std::int64_t width, const Body& body) {
  at::parallel_for(0, (lines + width - 1) / width, 1, [&](std::int64_t begin, std::int64_t end) {
    const PlainDispatch plain;
    for (std::int64_t panel = begin; panel < end; ++panel)
      body(panel, panel * width, std::min(width, lines - panel * width));
  });
}

at::Tensor multiply_panels(const at::Tensor& a, const at::Tensor& b) {
  at::Tensor out = at::empty({a.size(0), b.size(1)}, a.options());
  const std::int64_t along = out.size(0) > out.size(1) ? 0 : 1, lines = out.size(along);
  for_each_panel(lines, panel_width(lines), [&](auto, std::int64_t first, std::int64_t count) {
    at::Tensor own = out.narrow(along, first, count);
    if (along == 0) {
      at::mm_out(own, a.narrow(0, first, count), b);
    } else {
      at::mm_out(own, a, b.narrow(1, first, count));
    }
  });
  return out;
}

// A small product of long lines: parts of the lines, whose products are added up in order. Panels
// would read all of an operand again and again.
at::Tensor multiply_parts(const at::Tensor& a, const at::Tensor& b) {
  const std::int64_t lines = a.size(1), width = panel_width(lines);
  const at::Tensor parts =
      at::empty({(lines + width - 1) / width, a.size(0), b.size(1)}, a.options());
  for_each_panel(lines, width, [&](std::int64_t panel, std::int64_t first, std::int64_t count) {
    at::Tensor own = parts.select(0, panel);
    at::mm_out(own, a.narrow(1, first, count), b.narrow(0, first, count));
  });
  at::Tensor sum = parts.select(0, 0);
  for (std::int64_t panel = 1; panel < parts.size(0); ++panel) sum.add_(parts.select(0, panel));
  return sum;
}

// By the Cholesky decomposition of the columns' Gram matrix: nothing but products. What rounding
// leaves is as the square of the columns' dependence, so that it is done twice where that is too
// much (Yamamoto, Nakatsukasa, Yanagisawa, Fukaya 2015). Undefined where even that does not do.
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
    const double smallest = pivots.min().item<double>();
    if (!(smallest > least)) return {};
    basis = at::linalg_solve_triangular(factor, (basis / sizes).t(), /*upper=*/false).t();
    constexpr double enough = 1e-3;  // for floats
    if (matrix.scalar_type() == at::kFloat && smallest > enough) break;
  }
  return basis.to(matrix.scalar_type());
}

}  // namespace

double largest_of(const at::Tensor& matrix) {
  const auto [least, most] = at::aminmax(matrix);
  return std::max(most.item<double>(), -least.item<double>());
}

at::Tensor product(const at::Tensor& a, const at::Tensor& b) {
  if (!a.is_cpu()) return at::mm(a, b);
  const bool long_lines = a.size(1) >= 1024 && a.size(1) >= 2 * b.size(1);
  return long_lines ? multiply_parts(a, b) : multiply_panels(a, b);
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
