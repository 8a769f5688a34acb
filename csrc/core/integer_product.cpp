#include "core/integer_product.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "core/isa.h"

namespace lmgc {
namespace {

constexpr std::int64_t panel_columns = group_columns * most_groups;
constexpr std::int64_t lines_in_task = 4 * panel_columns;
constexpr std::size_t pair_bytes = 2 * sizeof(std::int16_t);

// All terms of a line of u or of v, layer after layer, each from a whole pair on.
class LinePacker {
 public:
  LinePacker(const std::vector<ProductLayer>& layers, bool is_u) {
    for (const ProductLayer& layer : layers) {
      for (const ProductTerm& term : layer.terms)
        limbs_.push_back({term.component, is_u ? term.u : term.v});
      if (layer.terms.size() % 2 != 0) limbs_.push_back({-1, {}});
    }
  }

  void pack(const std::int32_t* entries, std::int16_t* out) const {
    for (std::size_t i = 0; i < limbs_.size(); ++i) {
      const auto& [component, limb] = limbs_[i];
      out[i] = component < 0 ? std::int16_t{0} : limb.of(entries[component]);
    }
  }

 private:
  struct Limb {
    std::int64_t component;  // -1: a zero
    EntryLimb limb;
  };
  std::vector<Limb> limbs_;
};

// The version of the inner loop for this processor.
TileRun best_run() {
#if defined(__x86_64__)
  if (has_product_vnni()) return multiply_tile_vnni;
  if (has_product_avx512()) return multiply_tile_avx512;
  if (has_product_avx2()) return multiply_tile_avx2;
#endif
  return multiply_tile_portable;
}

}  // namespace

#if defined(__x86_64__)
bool has_product_avx2() { return has_isa(isa_avx2); }
bool has_product_avx512() { return has_isa(isa_avx512f | isa_avx512bw); }
bool has_product_vnni() { return has_isa(isa_avx512f | isa_avx512bw | isa_avx512vnni); }
#endif

void multiply_tile_portable(const ProductTile& tile) {
  for (std::int64_t row = 0; row < tile.rows; ++row) {
    const std::int16_t* const u = tile.u + tile.u_stride * row;
    for (int group = 0; group < tile.groups; ++group) {
      std::int32_t sums[2 * group_columns] = {};  // of the first ones and the second ones of pairs
      const ColumnPairs* v = tile.v + group;
      for (std::int64_t pair = 0; pair < tile.pairs; ++pair, v += tile.v_stride) {
        std::int16_t line[2 * group_columns];
        for (int j = 0; j < group_columns; ++j) std::memcpy(line + 2 * j, u + 2 * pair, pair_bytes);
        for (int j = 0; j < 2 * group_columns; ++j) sums[j] += line[j] * v->entries[j];
      }
      std::int64_t* const out = tile.out + row * tile.out_stride + group_columns * group;
      for (int j = 0; j < group_columns; ++j) {
        const auto sum = static_cast<std::uint64_t>(std::int64_t{sums[2 * j]} + sums[2 * j + 1]);
        const auto before = static_cast<std::uint64_t>(tile.add ? out[j] : 0);
        out[j] = static_cast<std::int64_t>(before + (sum << tile.shift));
      }
    }
  }
}

IntegerProduct::IntegerProduct(const Factors& factors, std::int64_t columns, std::uint64_t bound,
                               const Parallel& parallel)
    : columns_(columns) {
  static const TileRun best = best_run();
  run_layer_ = best;
  const std::vector<ProductLayer> layers = plan_layers(factors, bound);
  for (const ProductLayer& layer : layers) {
    const auto pairs = static_cast<std::int64_t>((layer.terms.size() + 1) / 2);
    layers_.push_back({pairs_, pairs, layer.shift});
    pairs_ += pairs;
  }
  const LinePacker pack_u(layers, true), pack_v(layers, false);
  const std::int64_t rank = factors.rank, row_entries = 2 * pairs_;

  const auto rows = static_cast<std::int64_t>(factors.u.entries.size()) / rank;
  u_.resize(static_cast<std::size_t>(rows * row_entries));
  parallel((rows + lines_in_task - 1) / lines_in_task, [&](std::int64_t task) {
    const std::int64_t last = std::min((task + 1) * lines_in_task, rows);
    for (std::int64_t i = task * lines_in_task; i < last; ++i) {
      pack_u.pack(factors.u.entries.data() + i * rank, u_.data() + i * row_entries);
    }
  });

  const std::int64_t groups = (columns + group_columns - 1) / group_columns;
  v_.resize(static_cast<std::size_t>(groups * pairs_));
  parallel((columns + lines_in_task - 1) / lines_in_task, [&](std::int64_t task) {
    std::vector<std::int16_t> lines(static_cast<std::size_t>(group_columns * row_entries), 0);
    const std::int64_t last = std::min((task + 1) * lines_in_task, columns);
    for (std::int64_t from = task * lines_in_task; from < last; from += group_columns) {
      // A group of columns, transposed.
      const std::int64_t width = std::min<std::int64_t>(group_columns, last - from);
      for (std::int64_t j = 0; j < width; ++j) {
        pack_v.pack(factors.v.entries.data() + (from + j) * rank, lines.data() + j * row_entries);
      }
      const std::int64_t panel = from / panel_columns * most_groups;
      ColumnPairs* to = v_.data() + panel * pairs_ + (from / group_columns - panel);
      const std::int64_t stride = std::min<std::int64_t>(most_groups, groups - panel);
      for (std::int64_t pair = 0; pair < pairs_; ++pair, to += stride) {
        for (std::int64_t j = 0; j < width; ++j)
          std::memcpy(to->entries + 2 * j, lines.data() + j * row_entries + 2 * pair, pair_bytes);
      }
    }
  });
}

// All layers of a tile, one onto the other.
void IntegerProduct::multiply_tile(ProductTile tile) const {
  const std::int16_t* const u = tile.u;
  const ColumnPairs* const v = tile.v;
  for (const Layer& layer : layers_) {
    tile.u = u + 2 * layer.first;
    tile.v = v + layer.first * tile.v_stride;
    tile.pairs = layer.count;
    tile.shift = layer.shift;
    run_layer_(tile);
    tile.add = true;
  }
}

void IntegerProduct::multiply(std::int64_t first, std::int64_t count, std::int64_t* out) const {
  if (layers_.empty()) {
    std::fill_n(out, count, 0);
    return;
  }
  const std::int64_t end = first + count;
  const std::int64_t first_row = first / columns_, first_column = first % columns_;
  const std::int64_t last_row = end / columns_,
                     end_column = end % columns_;  // may be 0: no element
  alignas(64) std::int64_t buffer[most_tile_rows * panel_columns];

  const std::int64_t groups = (columns_ + group_columns - 1) / group_columns;
  const bool one_row = first_row == last_row;
  // Panel by panel, which stays in the cache for all rows.
  std::int64_t from = one_row ? first_column / panel_columns * panel_columns : 0;
  const std::int64_t until = one_row ? end_column : columns_;
  for (; from < until; from += panel_columns) {
    const std::int64_t to = std::min(from + panel_columns, columns_);
    const std::int64_t panel = from / group_columns;
    const auto panel_groups = static_cast<int>(std::min<std::int64_t>(most_groups, groups - panel));
    ProductTile tile{};
    tile.v = v_.data() + panel * pairs_;
    tile.v_stride = panel_groups;
    tile.u_stride = 2 * pairs_;
    tile.groups = panel_groups;

    // By way of a buffer of whole tiles: columns [begin, stop) of rows [row, row + rows).
    const auto by_buffer = [&](std::int64_t row, std::int64_t rows, std::int64_t begin,
                               std::int64_t stop) {
      if (begin >= stop) return;
      for (std::int64_t done = 0; done < rows; done += tile.rows) {
        tile.u = u_.data() + 2 * pairs_ * (row + done);
        tile.rows = std::min<std::int64_t>(most_tile_rows, rows - done);
        tile.out = buffer;
        tile.out_stride = panel_columns;
        multiply_tile(tile);
        for (std::int64_t i = 0; i < tile.rows; ++i) {
          std::copy_n(buffer + i * panel_columns + (begin - from), stop - begin,
                      out + ((row + done + i) * columns_ + begin - first));
        }
      }
    };
    if (one_row) {
      by_buffer(first_row, 1, std::max(from, first_column), std::min(to, end_column));
      continue;
    }

    // The rows all of whose elements here are wanted; only the first and the last may have others.
    const std::int64_t whole_from = first_row + (first_column <= from ? 0 : 1);
    const std::int64_t whole_to = last_row + (to <= end_column ? 1 : 0);
    if (whole_from > first_row) by_buffer(first_row, 1, std::max(from, first_column), to);
    if (to - from == group_columns * panel_groups) {
      tile.u = u_.data() + 2 * pairs_ * whole_from;
      tile.rows = whole_to - whole_from;
      tile.out = out + (whole_from * columns_ + from - first);
      tile.out_stride = columns_;
      multiply_tile(tile);
    } else {
      by_buffer(whole_from, whole_to - whole_from, from, to);
    }
    if (whole_to == last_row) by_buffer(last_row, 1, from, std::min(to, end_column));
  }
}

Product exact_product(const Factors& factors, std::int64_t columns, std::uint64_t bound,
                      const Parallel& parallel) {
  const auto product = std::make_shared<const IntegerProduct>(factors, columns, bound, parallel);
  return [product](std::int64_t first, std::int64_t count, std::int64_t* out) {
    product->multiply(first, count, out);
  };
}

}  // namespace lmgc
