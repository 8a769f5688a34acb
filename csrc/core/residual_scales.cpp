#include "core/residual_scales.h"

#include <algorithm>
#include <array>

namespace lmgc {
namespace {

constexpr int rounds = 2;
constexpr std::int64_t stripe = 64;         // columns in a task
constexpr std::int64_t task_elements = 1 << 15;  // rows in a task are as many as make this
constexpr std::int64_t surely_many_rows = 64;    // columns' scales then cost little
constexpr std::int64_t bits_of_a_scale = 3;      // as side information, about

std::array<std::uint32_t, 129> make_energies() {
  std::array<std::uint32_t, 129> table{};
  for (std::size_t i = 0; i < table.size(); ++i) {
    const std::uint64_t value = energy(static_cast<std::int32_t>(i) - 64);
    table[i] = static_cast<std::uint32_t>(std::min<std::uint64_t>(value, UINT32_MAX));
  }
  return table;
}
const std::array<std::uint32_t, 129> energies = make_energies();

std::uint32_t energy_of(std::int32_t level) {
  return energies[static_cast<std::size_t>(std::clamp(level, -64, 64) + 64)];
}

class Estimate {
 public:
  Estimate(const ResidualMatrix& matrix, bool with_columns, const Parallel& parallel)
      : m_(matrix),
        parallel_(parallel),
        rows_(static_cast<std::size_t>(matrix.rows), 0),
        columns_(static_cast<std::size_t>(with_columns ? matrix.columns : 0), 0) {
    row_pass(false);
    if (with_columns) column_pass(false);
    for (int round = 0; round < rounds; ++round) {
      row_pass(true);
      if (with_columns) column_pass(true);
    }
  }

  // The bits that the scales cost every element, in eighths, and their own.
  std::int64_t cost() const {
    std::int64_t sum = 0;
    for (std::int64_t row = 0; row < m_.rows; ++row)
      sum += rows_[static_cast<std::size_t>(row)] *
             (std::min((row + 1) * m_.columns, m_.elements) - row * m_.columns);
    for (const std::int32_t column : columns_) sum += column * m_.rows;
    return sum + 8 * bits_of_a_scale * static_cast<std::int64_t>(columns_.size());
  }

  Scales scales() const {
    Scales scales;
    for (const std::int32_t row : rows_)
      scales.rows.push_back(scale_from_level(std::max(row, m_.floor)));
    for (const std::int32_t column : columns_) scales.columns.push_back(scale_from_level(column));
    return scales;
  }

 private:
  void row_pass(bool refine) {
    const std::int64_t in_task = std::max<std::int64_t>(1, task_elements / m_.columns);
    parallel_((m_.rows + in_task - 1) / in_task, [&](std::int64_t task) {
      const std::int64_t last = std::min((task + 1) * in_task, m_.rows);
      for (std::int64_t row = task * in_task; row < last; ++row) {
        const std::int16_t* const levels = m_.levels + row * m_.columns;
        const std::int64_t count = std::min(m_.columns, m_.elements - row * m_.columns);
        std::int32_t& own = rows_[static_cast<std::size_t>(row)];
        std::int64_t sum = 0, counted = 0;
        for (std::int64_t c = 0; c < count; ++c) {
          if (levels[c] == no_level) continue;
          const std::int32_t level =
              levels[c] - (columns_.empty() ? 0 : columns_[static_cast<std::size_t>(c)]);
          sum += refine ? std::int64_t{energy_of(level - own)} : level;
          ++counted;
        }
        own = settle(refine, own, sum, refine ? count : counted);
      }
    });
  }

  void column_pass(bool refine) {
    parallel_((m_.columns + stripe - 1) / stripe, [&](std::int64_t task) {
      const std::int64_t first = task * stripe;
      const std::int64_t count = std::min(stripe, m_.columns - first);
      std::int64_t sums[stripe] = {}, counted[stripe] = {};
      for (std::int64_t row = 0; row < m_.rows; ++row) {
        const std::int16_t* const levels = m_.levels + row * m_.columns + first;
        const std::int32_t scale = rows_[static_cast<std::size_t>(row)];
        for (std::int64_t c = 0; c < count; ++c) {
          if (levels[c] == no_level) continue;
          const std::int32_t level = levels[c] - scale;
          sums[c] += refine ? std::int64_t{energy_of(
                                  level - columns_[static_cast<std::size_t>(first + c)])}
                            : level;
          ++counted[c];
        }
      }
      for (std::int64_t c = 0; c < count; ++c) {
        std::int32_t& own = columns_[static_cast<std::size_t>(first + c)];
        own = settle(refine, own, sums[c], refine ? m_.rows : counted[c]);
      }
    });
  }

  // Levels stay within what 16 bits of quarter octaves hold, by far.
  std::int32_t settle(bool refine, std::int32_t current, std::int64_t sum,
                      std::int64_t count) const {
    constexpr std::int32_t most = 1 << 14;
    if (!refine && count == 0) return columns_.empty() ? m_.floor : 0;
    const std::int64_t level = refine ? refined_level(current, static_cast<std::uint64_t>(sum),
                                                      static_cast<std::uint64_t>(count))
                                      : rounded_quotient(sum, count);
    return static_cast<std::int32_t>(std::clamp<std::int64_t>(level, -most, most));
  }

  const ResidualMatrix& m_;
  const Parallel& parallel_;
  std::vector<std::int32_t> rows_, columns_;
};

}  // namespace

Scales residual_scales(const ResidualMatrix& matrix, bool may_have_columns, bool& has_columns,
                       const Parallel& parallel) {
  has_columns = may_have_columns;
  if (!may_have_columns) return Estimate(matrix, false, parallel).scales();
  const Estimate both(matrix, true, parallel);
  if (matrix.rows >= surely_many_rows) return both.scales();
  const Estimate rows_only(matrix, false, parallel);
  has_columns = both.cost() < rows_only.cost();
  return has_columns ? both.scales() : rows_only.scales();
}

}  // namespace lmgc
