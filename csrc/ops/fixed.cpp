#include "ops/fixed.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "ops/error.h"
#include "ops/for_each.h"
#include "ops/low_rank.h"
#include "ops/product.h"

namespace lmgc::ops {
namespace {

// Where an estimate says that a prediction saves less than this, both ways are tried.
constexpr double surely_pays = 0.97;

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
    std::vector<bool> result;
    const bool* const first = flags.data_ptr<bool>();
    for (std::int64_t i = 0; i < flags.numel(); ++i) result.push_back(!first[i]);
    return result;
  };
  head.dead_rows = dead(rows);
  head.dead_columns = dead(columns);
}

at::Tensor live_lines(const std::vector<bool>& dead) {
  std::vector<std::int64_t> live;
  for (std::size_t i = 0; i < dead.size(); ++i) {
    if (!dead[i]) live.push_back(static_cast<std::int64_t>(i));
  }
  return at::tensor(live, at::kLong);
}

at::Tensor take_live(const at::Tensor& words, const FixedHead& head) {
  if (head.dead_rows.empty()) return words;
  return words.index_select(0, live_lines(head.dead_rows))
      .index_select(1, live_lines(head.dead_columns));
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

FixedSection encode(const View& view, FloatFormat format, bool may_have_column_scales,
                    const LowRank& low_rank) {
  const FixedInput input{view.live.data_ptr(), format, view.shape, may_have_column_scales};
  FixedHead head = view.head;
  head.low_rank = low_rank;
  Product product;
  if (head.predicted()) {
    const std::uint64_t bound = product_bound(low_rank.factors, aten_parallel());
    product = exact_product(low_rank.factors, view.shape.columns, bound);
  }
  return encode_fixed(input, std::move(head), product, aten_parallel());
}

}  // namespace

FixedResult encode_fixed_section(const at::Tensor& bytes, FloatFormat format,
                                 const std::vector<std::int64_t>& sizes, bool low_rank) {
  const MatrixShape shape = matrix_shape(sizes.data(), sizes.size());
  const View plain = view_of(bytes, format, sizes, false);
  std::optional<View> turned;
  std::optional<LowRankFit> fit;
  bool use_turned = false;
  if (low_rank && !shape.flat && plain.shape.elements > 0) {
    const auto fit_of = [&](const View& view) {
      return fit_low_rank(view.live.view(float_type(format)), format);
    };
    fit = fit_of(plain);
    if (has_dimension_1_view(sizes.data(), sizes.size())) {
      turned = view_of(bytes, format, sizes, true);
      LowRankFit other = fit_of(*turned);
      if (other.low_rank.factors.rank > 0 && other.bits < fit->bits) {
        fit = std::move(other);
        use_turned = true;
      }
    }
    const LowRank& found = fit->low_rank;
    if (found.factors.rank == 0 || product_bound(found.factors, aten_parallel()) >=
                                       std::uint64_t{1} << most_product_bits)
      fit.reset();
  }

  std::shared_ptr<FixedSection> best;
  bool predicted = false;
  if (fit) {
    best = std::make_shared<FixedSection>(
        encode(use_turned ? *turned : plain, format, true, fit->low_rank));
    predicted = true;
  }
  if (!fit || fit->bits > surely_pays * fit->bits_without) {
    auto without = std::make_shared<FixedSection>(encode(plain, format, !shape.flat, {}));
    if (!best || without->size() <= best->size()) {
      best = std::move(without);
      predicted = false;
    }
  }
  return {{static_cast<std::int64_t>(best->size()),
           [best](const at::Tensor& out) { best->write(out.data_ptr<std::uint8_t>()); }},
          predicted};
}

FixedSource read_fixed_section(const at::Tensor& frame, std::int64_t offset, std::int64_t size,
                               const std::vector<std::int64_t>& sizes, bool predicted,
                               const std::string& where) {
  FixedSource source;
  check_frame(read_fixed(frame.data_ptr<std::uint8_t>() + offset, static_cast<std::size_t>(size),
                         sizes.data(), sizes.size(), predicted, false, aten_parallel(), source),
              where);
  return source;
}

void decode_fixed_section(const at::Tensor& frame, std::int64_t offset, std::int64_t size,
                          FloatFormat format, const std::vector<std::int64_t>& sizes,
                          bool predicted, const at::Tensor& bytes, const std::string& where) {
  FixedSource source;
  check_frame(read_fixed(frame.data_ptr<std::uint8_t>() + offset, static_cast<std::size_t>(size),
                         sizes.data(), sizes.size(), predicted, true, aten_parallel(), source),
              where);
  const FixedHead& head = source.head;
  Product product;
  if (predicted)
    product = exact_product(head.low_rank.factors, source.shape.columns, source.product_bound);
  const bool in_place = !head.by_dimension_1 && head.dead_rows.empty();
  const at::Tensor live =
      in_place ? bytes.view(word_type(format))
               : at::empty({source.shape.rows, source.shape.elements == 0 ? 0 : source.shape.columns},
                           word_type(format));
  check_frame(decode_fixed(source, format, product, live.data_ptr(), aten_parallel()), where);
  if (in_place) return;
  const MatrixShape shape = fixed_shape(sizes.data(), sizes.size(), head.by_dimension_1);
  at::Tensor whole = live;
  if (!head.dead_rows.empty()) {
    whole = at::zeros({shape.rows, shape.columns}, live.options());
    if (live.numel() > 0) {
      whole.index_put_({live_lines(head.dead_rows).unsqueeze(1), live_lines(head.dead_columns)},
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
