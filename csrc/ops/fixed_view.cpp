#include "ops/fixed_view.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "ops/for_each.h"

#ifdef LMGC_WITH_CUDA
#include "cuda/survey.h"
#include "ops/device_memory.h"
#endif

namespace lmgc::ops {
namespace {

// The words of a tensor as a matrix, dimension 0 or 1 by the rest.
at::Tensor grouped(const at::Tensor& bytes, FloatFormat format,
                   const std::vector<std::int64_t>& sizes, bool by_dimension_1) {
  const at::Tensor words = bytes.view(word_type(format)).view(sizes);
  if (!by_dimension_1) return words.view({sizes[0], -1});
  return words.transpose(0, 1).reshape({sizes[1], -1}).contiguous();
}

// Flags of the lines of `words` without a bit set; empty when there are none.
void find_dead_lines(const at::Tensor& words, FixedHead& head) {
  // Few elements tell that there are none, nearly always.
  constexpr std::int64_t few = 16;
  const auto some_live = [&](std::int64_t along) {
    const std::int64_t count = std::min(words.size(along), few);
    return words.narrow(along, 0, count).ne(0).any(along).all().item<bool>();
  };
  if (some_live(0) && some_live(1)) return;
  const at::Tensor live = words.ne(0);
  const at::Tensor rows = live.any(1), columns = live.any(0);
  if (rows.all().item<bool>() && columns.all().item<bool>()) return;
  const auto dead = [](const at::Tensor& flags) {
    const at::Tensor host = flags.cpu();
    const bool* const first = host.data_ptr<bool>();
    std::vector<bool> result;
    for (std::int64_t i = 0; i < host.numel(); ++i) result.push_back(!first[i]);
    return FlagRuns(result);
  };
  head.dead_rows = dead(rows);
  head.dead_columns = dead(columns);
}

at::Tensor live_lines(const FlagRuns& dead, const at::Device& device) {
  const at::Tensor live = at::empty({dead.clear()}, at::kLong);
  auto* next = live.data_ptr<std::int64_t>();
  dead.for_each_clear([&](std::int64_t line) { *next++ = line; });
  return live.to(device);
}

at::Tensor take_live(const at::Tensor& words, const FixedHead& head) {
  if (head.dead_rows.empty()) return words;
  return words.index_select(0, live_lines(head.dead_rows, words.device()))
      .index_select(1, live_lines(head.dead_columns, words.device()));
}

bool is_whole(const FixedHead& head) { return !head.by_dimension_1 && head.dead_rows.empty(); }

constexpr std::int64_t word_grain = 1 << 14;  // words worth a thread

// What the first `stretches` stretches have in common.
UsedBits used_bits(const at::Tensor& bytes, FloatFormat format, std::int64_t stretches) {
  std::vector<UsedBits> each(static_cast<std::size_t>(stretches));
  const FindUsedBits job{bytes.data_ptr(), format, bytes.numel() / format.bytes, each.data()};
  for_each_range(stretches, word_grain / FindUsedBits::stretch,
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t i = begin; i < end; ++i) job(i);
                 });
  UsedBits all;
  for (const UsedBits& used : each) all.take(used);
  return all;
}

// What `elements` elements can spare, if what they use does not become more.
Spare worth_sparing(const UsedBits& used, FloatFormat format, std::int64_t elements) {
  constexpr std::int64_t least_saved = 8 * 8;  // bits: more than a record says of it
  const Spare spare = spare_of(used, format);
  return spare.mantissa_bits * elements < least_saved ? Spare{} : spare;
}

}  // namespace

at::ScalarType float_type(FloatFormat format) {
  if (format.bytes == 8) return at::kDouble;
  if (format.bytes == 4) return at::kFloat;
  return format.exponent_bits == 8 ? at::kBFloat16 : at::kHalf;
}

at::ScalarType word_type(FloatFormat format) {
  return format.bytes == 8 ? at::kLong : format.bytes == 4 ? at::kInt : at::kShort;
}

Spare find_spare(const at::Tensor& bytes, FloatFormat format) {
  const std::int64_t elements = bytes.numel() / format.bytes;
  // Few elements tell that there is nothing, nearly always.
  Spare spare;
  for (const std::int64_t most : {FindUsedBits::stretch, elements}) {
    const std::int64_t stretches =
        (std::min(most, elements) + FindUsedBits::stretch - 1) / FindUsedBits::stretch;
    spare = worth_sparing(used_bits(bytes, format, stretches), format, elements);
    if (!spare.any() || elements <= most) break;
  }
  return spare;
}

#ifdef LMGC_WITH_CUDA
std::vector<Survey> survey(const std::vector<FloatTensor>& tensors) {
  std::vector<Survey> surveys(tensors.size());
  if (tensors.empty()) return surveys;
  const at::Tensor& first = tensors[0].bytes;
  DeviceMemory memory(first.device());
  std::vector<std::size_t> which;
  for (std::size_t k = 0; k < tensors.size(); ++k) which.push_back(k);
  for (const std::int64_t most : {FindUsedBits::stretch, INT64_MAX}) {
    std::vector<cuda::SurveyedTensor> surveyed;
    for (const std::size_t k : which) {
      const auto& [bytes, format, sizes] = tensors[k];
      const MatrixShape shape = matrix_shape(sizes.data(), sizes.size());
      const bool lines = !shape.flat && most == FindUsedBits::stretch;
      surveyed.push_back({bytes.data_ptr(), format, shape.elements, lines ? shape.rows : 0,
                          lines ? shape.columns : 0});
    }
    std::vector<cuda::Survey> found;
    check_cuda(cuda::survey(surveyed, most, memory.allocate(), stream_of(first), found));
    std::vector<std::size_t> longer;
    for (std::size_t i = 0; i < which.size(); ++i) {
      Survey& own = surveys[which[i]];
      const std::int64_t elements = surveyed[i].elements;
      own.spare = worth_sparing(found[i].used, tensors[which[i]].format, elements);
      own.all_live |= found[i].all_live;
      if (own.spare.any() && elements > most) longer.push_back(which[i]);
    }
    which = std::move(longer);
    if (which.empty()) break;
  }
  return surveys;
}
#else
// check_device() has refused tensors on CUDA.
std::vector<Survey> survey(const std::vector<FloatTensor>&) { return {}; }
#endif

at::Tensor shorten_words(const at::Tensor& live, FloatFormat whole, Spare spare) {
  if (!spare.any()) return live;
  const FloatFormat coded = shortened(whole, spare);
  const at::Tensor words = at::empty(live.sizes(), live.options().dtype(word_type(coded)));
  const ShortenWords job{{whole, coded}, live.data_ptr(), words.data_ptr()};
  for_each(live.device(), live.numel(), job, word_grain);
  return words;
}

FixedView view_of(const at::Tensor& bytes, FloatFormat format,
                  const std::vector<std::int64_t>& sizes, bool by_dimension_1) {
  FixedView view;
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

FixedView view_by(const at::Tensor& bytes, FloatFormat format,
                  const std::vector<std::int64_t>& sizes, FixedHead head) {
  const MatrixShape shape = fixed_shape(sizes.data(), sizes.size(), head.by_dimension_1);
  at::Tensor live = live_words(bytes, format, sizes, head);
  const LiveShape own = live_shape(shape, head);
  return {std::move(head), std::move(live), own};
}

at::Tensor live_words(const at::Tensor& bytes, FloatFormat format,
                      const std::vector<std::int64_t>& sizes, const FixedHead& head) {
  if (matrix_shape(sizes.data(), sizes.size()).flat) return bytes.view(word_type(format));
  return take_live(grouped(bytes, format, sizes, head.by_dimension_1), head).contiguous();
}

at::Tensor live_room(const at::Tensor& bytes, FloatFormat whole, Spare spare, const FixedHead& head,
                     const LiveShape& shape) {
  const at::ScalarType type = word_type(shortened(whole, spare));
  if (!spare.any() && is_whole(head)) return bytes.view(type);
  if (is_whole(head)) return at::empty({shape.elements}, bytes.options().dtype(type));
  return at::empty({shape.rows, shape.elements == 0 ? 0 : shape.columns},
                   bytes.options().dtype(type));
}

void put_live(const at::Tensor& coded, const FixedHead& head, FloatFormat format, Spare spare,
              const std::vector<std::int64_t>& sizes, const at::Tensor& bytes) {
  at::Tensor live = coded;
  if (spare.any()) {
    live = is_whole(head) ? bytes.view(word_type(format))
                          : at::empty(coded.sizes(), coded.options().dtype(word_type(format)));
    const LengthenWords job{{format, shortened(format, spare)}, coded.data_ptr(), live.data_ptr()};
    for_each(live.device(), live.numel(), job, word_grain);
  }
  if (is_whole(head)) return;
  const MatrixShape shape = fixed_shape(sizes.data(), sizes.size(), head.by_dimension_1);
  const at::Tensor out = bytes.view(word_type(format));
  at::Tensor whole = live;
  if (!head.dead_rows.empty()) {
    whole = head.by_dimension_1 ? at::empty(out.sizes(), out.options()) : out;
    whole.zero_();
    if (live.numel() > 0) {
      whole.view({shape.rows, shape.columns})
          .index_put_({live_lines(head.dead_rows, live.device()).unsqueeze(1),
                       live_lines(head.dead_columns, live.device())},
                      live);
    }
  }
  if (!head.by_dimension_1) return;
  std::vector<std::int64_t> turned_sizes = sizes;
  std::swap(turned_sizes[0], turned_sizes[1]);
  out.view(sizes).copy_(whole.view(turned_sizes).transpose(0, 1));
}

}  // namespace lmgc::ops
