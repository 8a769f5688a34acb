#include "core/integer_product.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "core/isa.h"

namespace lmgc {
namespace {

constexpr std::int64_t panel_columns = group_columns * most_groups;
constexpr std::int64_t lines_in_task = 4 * panel_columns;
constexpr std::size_t pair_bytes = 2 * sizeof(std::int16_t);
constexpr int magnitude_bits = 15;

// The largest magnitude of each component's entries.
std::vector<std::uint32_t> largest_of(const Factor& factor, std::size_t rank) {
  std::vector<std::uint32_t> largest(rank, 0);
  const std::int32_t* entry = factor.entries.data();
  const std::int32_t* const end = entry + factor.entries.size();
  for (; entry != end; entry += rank) {
    for (std::size_t c = 0; c < rank; ++c) {
      const auto bits = static_cast<std::uint32_t>(entry[c]);
      largest[c] = std::max(largest[c], entry[c] < 0 ? 0 - bits : bits);
    }
  }
  return largest;
}

// The powers of two by which a component's entries in u and in v are multiplied.
struct Gains {
  std::vector<std::int16_t> u, v;
};

// False if there is no way to get all entries into 16 bits.
bool find_gains(const Factors& factors, Gains& gains) {
  const auto rank = static_cast<std::size_t>(factors.rank);
  const std::vector<std::uint32_t> u = largest_of(factors.u, rank), v = largest_of(factors.v, rank);
  const int base = factors.base();
  gains.u.assign(rank, 1);
  gains.v.assign(rank, 1);
  for (std::size_t c = 0; c < rank; ++c) {
    const int room_u = magnitude_bits - static_cast<int>(std::bit_width(u[c]));
    const int room_v = magnitude_bits - static_cast<int>(std::bit_width(v[c]));
    if (room_u < 0 || room_v < 0) return false;
    if (u[c] == 0 || v[c] == 0) continue;  // whatever the gain, it adds nothing
    const int gain = factors.exponents[c] - base;
    if (gain > room_u + room_v) return false;
    const int gain_v = std::min(gain, room_v);
    gains.v[c] = static_cast<std::int16_t>(1 << gain_v);
    gains.u[c] = static_cast<std::int16_t>(1 << (gain - gain_v));
  }
  return true;
}

void pack_line(const std::int32_t* entries, const std::vector<std::int16_t>& gains,
               std::int16_t* out) {
  for (std::size_t c = 0; c < gains.size(); ++c) {
    const auto entry = static_cast<std::int16_t>(entries[c]);
    out[c] = static_cast<std::int16_t>(entry * gains[c]);
  }
}

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
    const std::int16_t* const u = tile.u + 2 * tile.pairs * row;
    for (int group = 0; group < tile.groups; ++group) {
      std::int32_t sums[2 * group_columns] = {};  // of the first ones and the second ones of pairs
      const ColumnPairs* v = tile.v + group;
      for (std::int64_t pair = 0; pair < tile.pairs; ++pair, v += tile.v_stride) {
        std::int16_t line[2 * group_columns];
        for (int j = 0; j < group_columns; ++j) std::memcpy(line + 2 * j, u + 2 * pair, pair_bytes);
        for (int j = 0; j < 2 * group_columns; ++j) sums[j] += line[j] * v->entries[j];
      }
      std::int64_t* const out = tile.out + row * tile.out_stride + group_columns * group;
      for (int j = 0; j < group_columns; ++j) out[j] = sums[2 * j] + sums[2 * j + 1];
    }
  }
}

bool IntegerProduct::fits(const Factors& factors, std::uint64_t bound) {
  Gains gains;
  return bound <= std::numeric_limits<std::int32_t>::max() && find_gains(factors, gains);
}

IntegerProduct::IntegerProduct(const Factors& factors, std::int64_t columns,
                               const Parallel& parallel)
    : columns_(columns), pairs_((factors.rank + 1) / 2) {
  static const TileRun best = best_run();
  run_ = best;
  Gains gains;
  find_gains(factors, gains);
  const std::int64_t rank = factors.rank, row_entries = 2 * pairs_;

  const auto rows = static_cast<std::int64_t>(factors.u.entries.size()) / rank;
  u_.resize(static_cast<std::size_t>(rows * row_entries));
  parallel((rows + lines_in_task - 1) / lines_in_task, [&](std::int64_t task) {
    const std::int64_t last = std::min((task + 1) * lines_in_task, rows);
    for (std::int64_t i = task * lines_in_task; i < last; ++i) {
      pack_line(factors.u.entries.data() + i * rank, gains.u, u_.data() + i * row_entries);
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
        pack_line(factors.v.entries.data() + (from + j) * rank, gains.v,
                  lines.data() + j * row_entries);
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

void IntegerProduct::multiply(std::int64_t first, std::int64_t count, std::int64_t* out) const {
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
    tile.pairs = pairs_;
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
        run_(tile);
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
      run_(tile);
    } else {
      by_buffer(whole_from, whole_to - whole_from, from, to);
    }
    if (whole_to == last_row) by_buffer(last_row, 1, from, std::min(to, end_column));
  }
}

}  // namespace lmgc
