#include "ops/fixed.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <memory>

#include "ops/error.h"
#include "ops/for_each.h"
#include "ops/low_rank.h"
#include "ops/product.h"
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
constexpr std::int64_t least_bits_without = 3;

at::ScalarType float_type(FloatFormat format) {
  if (format.bytes == 8) return at::kDouble;
  if (format.bytes == 4) return at::kFloat;
  return format.exponent_bits == 8 ? at::kBFloat16 : at::kHalf;
}

at::ScalarType word_type(FloatFormat format) {
  return format.bytes == 8 ? at::kLong : format.bytes == 4 ? at::kInt : at::kShort;
}

// The words of a tensor as a matrix, dimension 0 or 1 by the rest.
at::Tensor grouped(const at::Tensor& bytes, FloatFormat format,
                   const std::vector<std::int64_t>& sizes, bool by_dimension_1) {
  const at::Tensor words = bytes.view(word_type(format)).view(sizes);
  if (!by_dimension_1) return words.view({sizes[0], -1});
  return words.transpose(0, 1).reshape({sizes[1], -1}).contiguous();
}

// Flags of the lines of `words` without a bit set; empty when there are none.
void find_dead_lines(const at::Tensor& words, FixedHead& head) {
  const at::Tensor live = words.ne(0);
  const at::Tensor rows = live.any(1), columns = live.any(0);
  if (rows.all().item<bool>() && columns.all().item<bool>()) return;
  const auto dead = [](const at::Tensor& flags) {
    const at::Tensor host = flags.cpu();
    const bool* const first = host.data_ptr<bool>();
    std::vector<bool> result;
    for (std::int64_t i = 0; i < host.numel(); ++i) result.push_back(!first[i]);
    return result;
  };
  head.dead_rows = dead(rows);
  head.dead_columns = dead(columns);
}

at::Tensor live_lines(const std::vector<bool>& dead, const at::Device& device) {
  std::vector<std::int64_t> live;
  for (std::size_t i = 0; i < dead.size(); ++i) {
    if (!dead[i]) live.push_back(static_cast<std::int64_t>(i));
  }
  return at::tensor(live, at::kLong).to(device);
}

at::Tensor take_live(const at::Tensor& words, const FixedHead& head) {
  if (head.dead_rows.empty()) return words;
  return words.index_select(0, live_lines(head.dead_rows, words.device()))
      .index_select(1, live_lines(head.dead_columns, words.device()));
}

// A tensor as the matrix that is coded.
struct View {
  FixedHead head;
  at::Tensor live;  // words
  LiveShape shape;
};

View view_of(const at::Tensor& bytes, FloatFormat format, const std::vector<std::int64_t>& sizes,
             bool by_dimension_1) {
  View view;
  const MatrixShape shape = fixed_shape(sizes.data(), sizes.size(), by_dimension_1);
  view.head.by_dimension_1 = by_dimension_1;
  if (shape.flat) {
    view.live = bytes.view(word_type(format));
  } else {
    const at::Tensor words = grouped(bytes, format, sizes, by_dimension_1);
    find_dead_lines(words, view.head);
    view.live = take_live(words, view.head);
  }
  view.shape = live_shape(shape, view.head);
  return view;
}

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

Section encode_on_device(const View& view, const FixedInput& input, FixedHead head) {
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
  return {static_cast<std::int64_t>(job->encoder.size()), [job, stream](const at::Tensor& out) {
            check_cuda(
                job->encoder.write(out.data_ptr<std::uint8_t>(), job->memory.allocate(), stream));
          }};
}
#endif

Section encode(const View& view, FloatFormat format, bool may_have_column_scales,
               const LowRank& low_rank) {
  const FixedInput input{view.live.data_ptr(), format, view.shape, may_have_column_scales};
  FixedHead head = view.head;
  head.low_rank = low_rank;
#ifdef LMGC_WITH_CUDA
  if (view.live.is_cuda() && view.shape.elements > 0)
    return encode_on_device(view, input, std::move(head));
#endif
  Product product;
  if (head.predicted()) {
    const std::uint64_t bound = product_bound(low_rank.factors, aten_parallel());
    product = exact_product(low_rank.factors, view.shape.columns, bound);
  }
  const auto section = std::make_shared<FixedSection>(
      encode_fixed(input, std::move(head), product, aten_parallel()));
  return {static_cast<std::int64_t>(section->size()), [section](const at::Tensor& out) {
            if (out.is_cpu()) {
              section->write(out.data_ptr<std::uint8_t>());
            } else {  // a tensor of zeros
              out.copy_(upload(section->head_bytes, out.device()));
            }
          }};
}

// ---- decoder ------------------------------------------------------------------------------------

// A section that was read, and the bytes that it was read from.
struct ReadSection {
  FixedSource source;
  at::Tensor bytes;  // on the host: the whole section, or of one on a device all that lies before
                     // the elements
};

ReadSection read(const at::Tensor& frame, std::int64_t offset, std::int64_t size,
                 const std::vector<std::int64_t>& sizes, bool predicted, bool with_factors,
                 const std::string& where) {
  constexpr std::int64_t first_part = 1 << 16;
  const at::Tensor section = frame.narrow(0, offset, size);
  for (std::int64_t part = frame.is_cpu() ? size : std::min(size, first_part);;
       part = std::min(size, 16 * part)) {
    ReadSection result;
    result.bytes = section.narrow(0, 0, part).cpu();
    const Status status =
        read_fixed_part(result.bytes.data_ptr<std::uint8_t>(), static_cast<std::size_t>(part),
                        static_cast<std::size_t>(size), sizes.data(), sizes.size(), predicted,
                        with_factors, aten_parallel(), result.source);
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
    product = exact_product(factors, source.shape.columns, source.product_bound);
  status = decode_fixed(source, format, product, live.data_ptr(), aten_parallel());
  check_frame(status, where);
}

}  // namespace

FixedPlan plan_fixed(const at::Tensor& bytes, FloatFormat format,
                     const std::vector<std::int64_t>& sizes) {
  FixedPlan plan;
  if (matrix_shape(sizes.data(), sizes.size()).flat) return plan;
  double bits = 0;
  for (const bool by_dimension_1 : {false, true}) {
    if (by_dimension_1 && !has_dimension_1_view(sizes.data(), sizes.size())) break;
    const View view = view_of(bytes, format, sizes, by_dimension_1);
    if (view.shape.elements == 0) break;
    LowRankFit fit = fit_low_rank(view.live.view(float_type(format)), format);
    if (fit.low_rank.factors.rank == 0) continue;
    if (plan.low_rank.factors.rank != 0 && fit.bits >= bits) continue;
    bits = fit.bits;
    plan = {by_dimension_1, std::move(fit.low_rank)};
  }
  return plan;
}

FixedResult encode_fixed_section(const at::Tensor& bytes, FloatFormat format,
                                 const std::vector<std::int64_t>& sizes, const FixedPlan& plan) {
  FixedResult best;
  const bool predicted = plan.low_rank.factors.rank != 0;
  std::int64_t surely_less = 0;
  if (predicted) {
    const View view = view_of(bytes, format, sizes, plan.by_dimension_1);
    best = {encode(view, format, true, plan.low_rank), true};
    surely_less = view.shape.elements * (format.mantissa_bits + least_bits_without) / 8;
  }
  if (!predicted || best.section.size > surely_less) {
    const bool flat = matrix_shape(sizes.data(), sizes.size()).flat;
    Section without = encode(view_of(bytes, format, sizes, false), format, !flat, {});
    if (!predicted || without.size <= best.section.size) best = {std::move(without), false};
  }
  return best;
}

FixedSource read_fixed_section(const at::Tensor& frame, std::int64_t offset, std::int64_t size,
                               const std::vector<std::int64_t>& sizes, bool predicted,
                               const std::string& where) {
  return read(frame, offset, size, sizes, predicted, false, where).source;
}

void decode_fixed_section(const at::Tensor& frame, std::int64_t offset, std::int64_t size,
                          FloatFormat format, const std::vector<std::int64_t>& sizes,
                          bool predicted, const at::Tensor& bytes, const std::string& where) {
  const ReadSection section = read(frame, offset, size, sizes, predicted, true, where);
  const FixedSource& source = section.source;
  const FixedHead& head = source.head;
  const bool in_place = !head.by_dimension_1 && head.dead_rows.empty();
  const at::Tensor live =
      in_place
          ? bytes.view(word_type(format))
          : at::empty({source.shape.rows, source.shape.elements == 0 ? 0 : source.shape.columns},
                      bytes.options().dtype(word_type(format)));
  decode_elements(source, frame.narrow(0, offset, size), format, live, where);
  if (in_place) return;
  const MatrixShape shape = fixed_shape(sizes.data(), sizes.size(), head.by_dimension_1);
  at::Tensor whole = live;
  if (!head.dead_rows.empty()) {
    whole = at::zeros({shape.rows, shape.columns}, live.options());
    if (live.numel() > 0) {
      whole.index_put_({live_lines(head.dead_rows, live.device()).unsqueeze(1),
                        live_lines(head.dead_columns, live.device())},
                       live);
    }
  }
  at::Tensor out = bytes.view(word_type(format)).view(sizes);
  if (head.by_dimension_1) {
    std::vector<std::int64_t> turned_sizes = sizes;
    std::swap(turned_sizes[0], turned_sizes[1]);
    out.copy_(whole.view(turned_sizes).transpose(0, 1));
  } else {
    out.copy_(whole.view(sizes));
  }
}

}  // namespace lmgc::ops
