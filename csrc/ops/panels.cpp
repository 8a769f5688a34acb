#include "ops/panels.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "ops/for_each.h"

namespace lmgc::ops {
namespace {

constexpr std::int64_t most_panels = 8;
constexpr double panel_products = 1 << 27;  // scalar products that a panel has at least: about 2 ms
constexpr std::int64_t panel_unit = 64;     // lines

// body(i) for every panel, by one thread each.
void run_panels(std::int64_t count, const std::function<void(std::int64_t)>& body) {
  for_each_range(count, 1, [&](std::int64_t begin, std::int64_t end) {
    const PlainDispatch plain;
    const OneBlasThread one_thread;
    for (std::int64_t i = begin; i < end; ++i) body(i);
  });
}

}  // namespace

at::Tensor mm_in_panels(const at::Tensor& a, const at::Tensor& b) {
  const std::int64_t rows = a.size(0), inner = a.size(1), columns = b.size(1);
  const double products =
      static_cast<double>(rows) * static_cast<double>(inner) * static_cast<double>(columns);
  const std::int64_t longest = std::max({rows, inner, columns});
  const auto wanted = std::clamp<std::int64_t>(static_cast<std::int64_t>(products / panel_products),
                                               1, most_panels);
  const std::int64_t length =
      ((longest + wanted - 1) / wanted + panel_unit - 1) / panel_unit * panel_unit;
  if (!a.is_cpu() || length >= longest) return at::mm(a, b);

  const std::int64_t panels = (longest + length - 1) / length;
  const auto count_of = [&](std::int64_t panel) {
    return std::min(length, longest - panel * length);
  };
  if (inner == longest) {
    std::vector<at::Tensor> parts(static_cast<std::size_t>(panels));
    run_panels(panels, [&](std::int64_t panel) {
      const std::int64_t begin = panel * length, count = count_of(panel);
      parts[static_cast<std::size_t>(panel)] =
          at::mm(a.narrow(1, begin, count), b.narrow(0, begin, count));
    });
    for (std::size_t i = 1; i < parts.size(); ++i) parts[0].add_(parts[i]);
    return parts[0];
  }
  at::Tensor out = at::empty({rows, columns}, a.options());
  run_panels(panels, [&](std::int64_t panel) {
    const std::int64_t begin = panel * length, count = count_of(panel);
    if (columns == longest) {
      at::Tensor to = out.narrow(1, begin, count);
      at::mm_out(to, a, b.narrow(1, begin, count));
    } else {
      at::Tensor to = out.narrow(0, begin, count);
      at::mm_out(to, a.narrow(0, begin, count), b);
    }
  });
  return out;
}

void for_each_panel(const at::Tensor& matrix,
                    const std::function<void(std::int64_t begin, std::int64_t count)>& body) {
  constexpr std::int64_t least_elements = 1 << 17;
  const std::int64_t side = contiguous_side(matrix);
  const std::int64_t lines = matrix.size(1 - side);
  if (!matrix.is_cpu()) return body(0, lines);
  const std::int64_t grain =
      std::max<std::int64_t>(1, least_elements / std::max<std::int64_t>(1, matrix.size(side)));
  for_each_range(lines, grain, [&](std::int64_t begin, std::int64_t end) {
    const PlainDispatch plain;
    body(begin, end - begin);
  });
}

}  // namespace lmgc::ops
