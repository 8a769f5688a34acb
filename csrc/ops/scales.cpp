#include "ops/scales.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

#include "ops/for_each.h"
#include "ops/upload.h"

namespace lmgc::ops {
namespace {

constexpr int rounds = 3;

std::vector<std::int16_t> to_scales(const at::Tensor& levels) {
  const at::Tensor host = levels.cpu();
  const auto* first = host.data_ptr<std::int32_t>();
  std::vector<std::int16_t> scales(static_cast<std::size_t>(host.numel()));
  std::transform(first, first + host.numel(), scales.begin(), scale_from_level);
  return scales;
}

// On the CPU without the dispatcher, which would take longer than a small tensor.
std::int64_t sum_of(const at::Tensor& numbers) {
  if (!numbers.is_cpu()) return numbers.sum().item<std::int64_t>();
  const auto* const first = numbers.data_ptr<std::int32_t>();
  return std::accumulate(first, first + numbers.numel(), std::int64_t{0});
}

}  // namespace

Scales estimate_scales(const at::Tensor& values, FloatFormat format, const MatrixShape& shape) {
  const auto device = values.device();
  const auto options = at::TensorOptions().dtype(at::kInt).device(device);
  const at::Tensor rows = at::zeros({shape.rows}, options);
  const at::Tensor columns = at::zeros({shape.has_column_scales ? shape.columns : 0}, options);

  SumLevels sum{values.data_ptr(), format, shape.elements, shape.rows, shape.columns, true,
                nullptr,           0,      nullptr};
  // Lines without a non-zero element get the rows' mean: they say nothing and cost least that way.
  sum.out = rows.data_ptr<std::int32_t>();
  for_each(device, shape.rows, sum);
  const auto mean = sum_of(rows) / std::max<std::int64_t>(shape.rows, 1);
  for (int round = 0; round < rounds; ++round) {
    sum.by_row = true;
    sum.other = shape.has_column_scales ? columns.data_ptr<std::int32_t>() : nullptr;
    sum.fallback = static_cast<std::int32_t>(mean);
    sum.out = rows.data_ptr<std::int32_t>();
    for_each(device, shape.rows, sum);
    if (!shape.has_column_scales) break;
    sum.by_row = false;
    sum.other = rows.data_ptr<std::int32_t>();
    sum.fallback = 0;
    sum.out = columns.data_ptr<std::int32_t>();
    for_each(device, shape.columns, sum);
  }
  return {to_scales(rows), to_scales(columns)};
}

DeviceScales upload_scales(const Scales& scales, const at::Device& device) {
  return {upload(scales.rows, device), upload(scales.columns, device)};
}

TensorContext tensor_context(const void* words, FloatFormat format, const MatrixShape& shape,
                             const DeviceScales& scales) {
  const auto pointer = [](const at::Tensor& tensor) {
    return tensor.defined() && tensor.numel() > 0 ? items_of<std::int16_t>(tensor) : nullptr;
  };
  TensorContext context;
  context.words = words;
  context.row_scales = pointer(scales.rows);
  context.column_scales = pointer(scales.columns);
  context.columns = shape.columns;
  context.offsets = neighbour_offsets(shape);
  context.format = format;
  context.taps = static_cast<std::uint8_t>(std::min<std::int64_t>(shape.taps, 16));
  context.flat = shape.flat;
  return context;
}

}  // namespace lmgc::ops
