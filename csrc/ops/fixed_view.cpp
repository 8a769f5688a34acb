#include "ops/fixed_view.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "ops/for_each.h"

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
  static_assert(sizeof(UsedBits) == 2 * sizeof(std::int64_t));
  const at::Tensor found = at::empty({stretches, 2}, bytes.options().dtype(at::kLong));
  const FindUsedBits job{bytes.data_ptr(), format, bytes.numel() / format.bytes,
                         static_cast<UsedBits*>(found.data_ptr())};
  for_each(bytes.device(), stretches, job, word_grain / FindUsedBits::stretch);
  const at::Tensor host = found.cpu();
  const auto* const each = static_cast<const UsedBits*>(host.data_ptr());
  UsedBits all;
  for (std::int64_t i = 0; i < stretches; ++i) {
    all.bits |= each[i].bits;
    all.lowest = std::min(all.lowest, each[i].lowest);
  }
  return all;
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
  constexpr std::int64_t least_saved = 8 * 8;  // bits: more than a record says of it
  const std::int64_t elements = bytes.numel() / format.bytes;
  // Few elements tell that there is nothing, nearly always.
  Spare spare;
  for (const std::int64_t most : {FindUsedBits::stretch, elements}) {
    const std::int64_t stretches =
        (std::min(most, elements) + FindUsedBits::stretch - 1) / FindUsedBits::stretch;
    spare = spare_of(used_bits(bytes, format, stretches), format);
    if (spare.mantissa_bits * elements < least_saved) return {};
    if (elements <= most) break;
  }
  return spare;
}

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
