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

#ifdef LMGC_WITH_CUDA
#include "cuda/fixed.h"
#include "ops/device_memory.h"
#include "ops/panel_product.h"
#endif

namespace lmgc::ops {
namespace {

// Without a prediction an element takes its mantissa and between three and four bits: a section
// with one that is not below that may be the larger one, whatever was estimated.
constexpr int least_bits_without = 3;
constexpr int least_bits_short = -3;  // short floats may have few values: tails alone are sure

#ifdef LMGC_WITH_CUDA
// Panels of the product, each of which takes the place of the one before it.
cuda::DeviceProduct device_product(const Factors& factors, std::int64_t columns,
                                   std::uint64_t bound, const at::Device& device) {
  struct Panels {
    PanelProduct product;
    at::Tensor now;
  };
  const auto panels =
      std::make_shared<Panels>(Panels{PanelProduct(factors, columns, bound, device), {}});
  return {[panels](std::int64_t first, std::int64_t count) {
    panels->now.reset();
    panels->now = panels->product.panel(first, count);
    return panels->now.data_ptr<std::int64_t>();
  }};
}

FixedResult encode_on_device(const FixedView& view, const FixedInput& input, FixedHead head) {
  struct Job {
    explicit Job(const at::Device& device) : memory(device) {}
    DeviceMemory memory;
    cuda::FixedEncoder encoder;
  };
  const auto job = std::make_shared<Job>(view.live.device());
  const Factors& factors = head.low_rank.factors;
  cuda::DeviceProduct product;
  if (head.predicted()) {
    product = device_product(factors, view.shape.columns, product_bound(factors, aten_parallel()),
                             view.live.device());
  }
  void* const stream = stream_of(view.live);
  check_cuda(job->encoder.prepare(input, std::move(head), product, aten_parallel(),
                                  job->memory.allocate(), stream));
  const Section section{
      static_cast<std::int64_t>(job->encoder.size()), [job, stream](const at::Tensor& out) {
        check_cuda(
            job->encoder.write(out.data_ptr<std::uint8_t>(), job->memory.allocate(), stream));
      }};
  return {section, {job, &job->encoder.head()}};
}
#endif

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

void decode_elements(const FixedSource& source, [[maybe_unused]] const at::Tensor& section,
                     FloatFormat format, const at::Tensor& live, const std::string& where) {
  const Factors& factors = source.head.low_rank.factors;
  Status status = Status::ok;
#ifdef LMGC_WITH_CUDA
  if (live.is_cuda()) {
    FixedSource there = source;
    there.residuals = section.data_ptr<std::uint8_t>() + source.sizes.side;
    cuda::DeviceProduct product;
    if (source.head.predicted()) {
      product = device_product(factors, source.shape.columns, source.product_bound, live.device());
    }
    DeviceMemory memory(live.device());
    check_cuda(cuda::decode_fixed(there, format, product, live.data_ptr(), aten_parallel(),
                                  memory.allocate(), stream_of(live), status));
    check_frame(status, where);
    return;
  }
#endif
  Product product;
  if (source.head.predicted())
    product = exact_product(factors, source.shape.columns, source.product_bound, aten_parallel());
  status = decode_fixed(source, format, product, live.data_ptr(), aten_parallel());
  check_frame(status, where);
}

}  // namespace

FixedResult encode_view(const FixedView& view, FloatFormat format, bool may_have_column_scales,
                        const FixedPlan& plan, const PastFactors* past) {
  const LowRank& low_rank = plan.low_rank;
  const FixedInput input{view.live.data_ptr(), format, view.shape, may_have_column_scales, past};
  FixedHead head = view.head;
  head.low_rank = low_rank;
  head.u_projection = plan.u_projection;
  head.v_projection = plan.v_projection;
#ifdef LMGC_WITH_CUDA
  if (view.live.is_cuda() && view.shape.elements > 0)
    return encode_on_device(view, input, std::move(head));
#endif
  Product product;
  if (head.predicted()) {
    const std::uint64_t bound = product_bound(low_rank.factors, aten_parallel());
    product = exact_product(low_rank.factors, view.shape.columns, bound, aten_parallel());
  }
  const auto section = std::make_shared<FixedSection>(
      encode_fixed(input, std::move(head), product, aten_parallel()));
  const auto write = [section](const at::Tensor& out) {
    if (out.is_cpu()) {
      section->write(out.data_ptr<std::uint8_t>());
    } else {  // a tensor of zeros
      out.copy_(upload(section->head_bytes, out.device()));
    }
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

std::optional<FixedResult> encode_fixed_section(const at::Tensor& bytes, FloatFormat format,
                                                Spare spare, const std::vector<std::int64_t>& sizes,
                                                const FixedPlan& plan, const PastFactors* past,
                                                std::int64_t limit) {
  const FloatFormat coded = shortened(format, spare);
  const auto coded_view = [&](bool by_dimension_1) {
    FixedView view = view_of(bytes, format, sizes, by_dimension_1);
    view.live = shorten_words(view.live, format, spare);
    return view;
  };
  // What a section without a prediction is at least, if its matrix is this one.
  const auto surely = [&](const FixedView& view) {
    const int more = spare.any() ? least_bits_short : least_bits_without;
    return view.shape.elements * (coded.mantissa_bits + more) / 8;
  };
  std::optional<FixedResult> best;
  if (plan.low_rank.factors.rank != 0) {
    const FixedView view = coded_view(plan.by_dimension_1);
    best = encode_view(view, coded, true, plan, past);
    if (best->section.size <= surely(view)) return best;
  }
  const FixedView view = coded_view(false);
  if (!best.has_value() && limit <= surely(view)) return std::nullopt;
  const bool flat = matrix_shape(sizes.data(), sizes.size()).flat;
  FixedResult without = encode_view(view, coded, !flat, {}, nullptr);
  if (!best.has_value() || without.section.size <= best->section.size) best = std::move(without);
  return best;
}

FixedSource read_fixed_section(const at::Tensor& frame, std::int64_t offset, std::int64_t size,
                               const std::vector<std::int64_t>& sizes, bool predicted,
                               const std::string& where) {
  return read(frame, offset, size, sizes, predicted, false, nullptr, where).source;
}

std::shared_ptr<const FixedHead> decode_fixed_section(const at::Tensor& frame, std::int64_t offset,
                                                      std::int64_t size, FloatFormat format,
                                                      Spare spare,
                                                      const std::vector<std::int64_t>& sizes,
                                                      bool predicted, const SectionNeeds& needs,
                                                      const Room& room, const std::string& where) {
  const auto section = std::make_shared<ReadSection>(
      read(frame, offset, size, sizes, predicted, true, needs.past, where));
  const FixedSource& source = section->source;
  FixedHead& head = section->source.head;
  at::Tensor words;
  if (head.reference.is_there) {
    words = attach_reference(needs.reference, format, spare, sizes, where, head);
  }
  const at::Tensor bytes = room();
  const at::Tensor live = live_room(bytes, format, spare, head, source.shape);
  decode_elements(source, frame.narrow(0, offset, size), shortened(format, spare), live, where);
  put_live(live, head, format, spare, sizes, bytes);
  return {section, &head};
}

}  // namespace lmgc::ops
