#include "ops/fixed.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <memory>

#include "core/integer_product.h"
#include "ops/delta.h"
#include "ops/error.h"
#include "ops/fixed_view.h"
#include "ops/for_each.h"
#include "ops/low_rank.h"
#include "ops/projection.h"
#include "ops/upload.h"

namespace lmgc::ops {
namespace {

// ---- decoder ------------------------------------------------------------------------------------

// A section that was read, and the bytes that it was read from.
struct ReadSection {
  FixedSource source;
  at::Tensor bytes;  // on the host: the whole section, or of one on a device all that lies before
                     // the elements
};

ReadSection read(const at::Tensor& frame, std::int64_t offset, std::int64_t size,
                 const std::vector<std::int64_t>& sizes, bool predicted, bool with_factors,
                 const PastFactors* past, const std::string& where) {
  constexpr std::int64_t first_part = 1 << 16;
  const at::Tensor section = frame.narrow(0, offset, size);
  for (std::int64_t part = frame.is_cpu() ? size : std::min(size, first_part);;
       part = std::min(size, 16 * part)) {
    ReadSection result;
    result.bytes = section.narrow(0, 0, part).cpu();
    const Status status =
        read_fixed_part(result.bytes.data_ptr<std::uint8_t>(), static_cast<std::size_t>(part),
                        static_cast<std::size_t>(size), sizes.data(), sizes.size(), predicted,
                        with_factors, aten_parallel(), result.source, past);
    if (status == Status::truncated && part < size) continue;
    check_frame(status, where);
    return result;
  }
}

}  // namespace

FixedHead head_by(const FixedView& view, const FixedPlan& plan) {
  FixedHead head = view.head;
  head.low_rank = plan.low_rank;
  head.u_projection = plan.u_projection;
  head.v_projection = plan.v_projection;
  return head;
}

FixedResult encode_view(const FixedView& view, FloatFormat format, bool may_have_column_scales,
                        const FixedPlan& plan, const PastFactors* past) {
  const FixedInput input{view.live.data_ptr(), format, view.shape, may_have_column_scales, past};
  FixedHead head = head_by(view, plan);
  const Factors& factors = plan.low_rank.factors;
  Product product;
  if (head.predicted()) {
    product = exact_product(factors, view.shape.columns, product_bound(factors, aten_parallel()),
                            aten_parallel());
  }
  const auto section = std::make_shared<FixedSection>(
      encode_fixed(input, std::move(head), product, aten_parallel()));
  const auto write = [section](const at::Tensor& out) {
    section->write(out.data_ptr<std::uint8_t>());
  };
  return {{static_cast<std::int64_t>(section->size()), write}, {section, &section->head}};
}

FixedPlan plan_fixed(const at::Tensor& bytes, FloatFormat format, Spare spare,
                     const std::vector<std::int64_t>& sizes, const SearchLimits& limits) {
  if (matrix_shape(sizes.data(), sizes.size()).flat) return {};
  std::vector<FixedView> views;
  std::vector<View> matrices;
  for (const bool by_dimension_1 : {false, true}) {
    if (by_dimension_1 && !has_dimension_1_view(sizes.data(), sizes.size())) break;
    FixedView view = view_of(bytes, format, sizes, by_dimension_1);
    if (view.shape.elements == 0) break;
    matrices.push_back({view.live.view(float_type(format)), {}});
    views.push_back(std::move(view));
  }
  LowRankFit fit = fit_low_rank(matrices, shortened(format, spare), limits);
  if (fit.low_rank.factors.rank == 0) return {};
  FixedHead& head = views[fit.view].head;
  return {head.by_dimension_1,
          std::move(fit.low_rank),
          fit.in_double,
          std::move(head.dead_rows),
          std::move(head.dead_columns),
          {},
          {}};
}

void project_fixed(const PastFactors& past, FixedPlan& plan) {
  const auto& [factors, row_weights, column_weights] = plan.low_rank;
  if (factors.rank == 0 || past.rank == 0 || past.by_dimension_1 != plan.by_dimension_1) return;
  plan.u_projection =
      fit_projection(factors.u, factors.rank, row_weights, plan.dead_rows, past.u, past.rank);
  plan.v_projection =
      fit_projection(factors.v, factors.rank, column_weights, plan.dead_columns, past.v, past.rank);
}

namespace {

// Of all lines those that are not flagged as dead.
std::vector<std::int16_t> live_of(const std::vector<std::int16_t>& lines, const FlagRuns& dead) {
  if (dead.empty()) return lines;
  std::vector<std::int16_t> live;
  dead.for_each_clear(
      [&](std::int64_t line) { live.push_back(lines[static_cast<std::size_t>(line)]); });
  return live;
}

// Weights near the scales of the live lines, zeros where there are none; dead lines keep theirs.
void take_weights(const std::vector<std::int16_t>& scales, const FlagRuns& dead,
                  std::vector<std::int16_t>& weights) {
  std::size_t live = 0;
  for_each_live(dead, static_cast<std::int64_t>(weights.size()), [&](std::int64_t line) {
    weights[static_cast<std::size_t>(line)] =
        scales.empty() ? std::int16_t{0} : static_cast<std::int16_t>((scales[live] + 2) >> 2);
    ++live;
  });
}

}  // namespace

std::optional<FixedPlan> replan_fixed(const at::Tensor& bytes, FloatFormat format, Spare spare,
                                      const std::vector<std::int64_t>& sizes,
                                      const FixedMemory& memory, const SearchLimits& limits) {
  if (memory.fit.rank == 0) return std::nullopt;
  FixedView view = view_of(bytes, format, sizes, memory.by_dimension_1);
  if (view.shape.elements == 0) return FixedPlan{};
  FitMemory live{memory.fit.rank, memory.fit.in_double,
                 live_of(memory.fit.row_weights, view.head.dead_rows),
                 live_of(memory.fit.column_weights, view.head.dead_columns)};
  std::optional<LowRankFit> fit =
      refit_low_rank(view.live.view(float_type(format)), shortened(format, spare), live, limits);
  if (!fit.has_value()) return std::nullopt;
  return FixedPlan{memory.by_dimension_1,
                   std::move(fit->low_rank),
                   fit->in_double,
                   std::move(view.head.dead_rows),
                   std::move(view.head.dead_columns),
                   {},
                   {}};
}

void remember_fixed(const FixedPlan& plan, const FixedHead& head,
                    const std::vector<std::int64_t>& sizes, FixedMemory& memory) {
  const bool same_view = memory.by_dimension_1 == head.by_dimension_1;
  memory.by_dimension_1 = head.by_dimension_1;
  memory.fit.rank = head.low_rank.factors.rank;
  memory.fit.in_double = plan.in_double;
  if (!head.predicted()) return;
  const MatrixShape shape = fixed_shape(sizes.data(), sizes.size(), head.by_dimension_1);
  if (!same_view) memory.fit = {memory.fit.rank, memory.fit.in_double, {}, {}};
  memory.fit.row_weights.resize(static_cast<std::size_t>(shape.rows));
  memory.fit.column_weights.resize(static_cast<std::size_t>(shape.columns));
  take_weights(head.scales.rows, head.dead_rows, memory.fit.row_weights);
  take_weights(head.scales.columns, head.dead_columns, memory.fit.column_weights);
}

FixedView FixedTensor::predicted_view() const {
  FixedHead head;
  head.by_dimension_1 = plan.by_dimension_1;
  head.dead_rows = plan.dead_rows;
  head.dead_columns = plan.dead_columns;
  FixedView view = view_by(bytes, format, sizes, std::move(head));
  view.live = shorten_words(view.live, format, spare);
  return view;
}

FixedView FixedTensor::plain_view() const {
  FixedView view =
      all_live ? view_by(bytes, format, sizes, {}) : view_of(bytes, format, sizes, false);
  view.live = shorten_words(view.live, format, spare);
  return view;
}

// Without a prediction an element takes its mantissa and between three and four bits: a section
// with one that is not below that may be the larger one, whatever was estimated.
std::int64_t FixedTensor::least_size(std::int64_t elements) const {
  const int more = spare.any() ? -3 : 3;  // short floats may have few values: tails alone are sure
  return elements * (coded_format().mantissa_bits + more) / 8;
}

std::optional<FixedResult> encode_fixed_section(const FixedTensor& tensor, std::int64_t limit) {
  std::optional<FixedResult> best;
  if (tensor.has_prediction()) {
    const FixedView view = tensor.predicted_view();
    best = encode_view(view, tensor.coded_format(), true, tensor.plan, tensor.past);
    if (best->section.size <= tensor.least_size(view.shape.elements)) return best;
  }
  const FixedView view = tensor.plain_view();
  if (!best.has_value() && limit <= tensor.least_size(view.shape.elements)) return std::nullopt;
  FixedResult without = encode_view(view, tensor.coded_format(), !tensor.is_flat(), {}, nullptr);
  if (!best.has_value() || without.section.size <= best->section.size) best = std::move(without);
  return best;
}

FixedSource read_fixed_section(const at::Tensor& frame, std::int64_t offset, std::int64_t size,
                               const std::vector<std::int64_t>& sizes, bool predicted,
                               const std::string& where) {
  return read(frame, offset, size, sizes, predicted, false, nullptr, where).source;
}

std::shared_ptr<const FixedHead> decode_fixed_section(const at::Tensor& frame,
                                                      const FixedCodedTensor& tensor,
                                                      const at::Tensor& reference) {
  const auto& [room, format, spare, sizes, predicted, past, offset, size, where] = tensor;
  const auto section =
      std::make_shared<ReadSection>(read(frame, offset, size, sizes, predicted, true, past, where));
  const FixedSource& source = section->source;
  FixedHead& head = section->source.head;
  at::Tensor words;
  if (head.reference.is_there)
    words = attach_reference(reference, format, spare, sizes, where, head);
  const at::Tensor bytes = room();
  const at::Tensor live = live_room(bytes, format, spare, head, source.shape);
  Product product;
  if (head.predicted()) {
    product = exact_product(head.low_rank.factors, source.shape.columns, source.product_bound,
                            aten_parallel());
  }
  check_frame(
      decode_fixed(source, shortened(format, spare), product, live.data_ptr(), aten_parallel()),
      where);
  put_live(live, head, format, spare, sizes, bytes);
  return {section, &head};
}

}  // namespace lmgc::ops
