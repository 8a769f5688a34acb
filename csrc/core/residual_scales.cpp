#include "core/residual_scales.h"

#include <algorithm>
#include <array>

#include "core/fixed_kernels.h"

namespace lmgc {
namespace {

constexpr std::int64_t stripe = 64;              // columns in a task
constexpr std::int64_t kernel_columns = 32;      // that one call of a kernel takes
constexpr std::int64_t task_elements = 1 << 15;  // rows in a task are as many as make this
constexpr std::int64_t surely_many_rows = 64;    // columns' scales then cost little
constexpr std::int64_t bits_of_a_scale = 3;      // as side information, about

// ---- sums in memory -----------------------------------------------------------------------------

// level_term() of every difference of levels, clamped as energy() does.
std::array<std::uint32_t, 129> make_energies() {
  std::array<std::uint32_t, 129> table{};
  for (std::size_t i = 0; i < table.size(); ++i)
    table[i] =
        static_cast<std::uint32_t>(level_term(static_cast<std::int32_t>(i) - 64, 0, 0, true));
  return table;
}
const std::array<std::uint32_t, 129> energies = make_energies();

std::int64_t term(std::int32_t level, std::int32_t other, std::int32_t own, bool refine) {
  if (!refine) return level_term(level, other, own, false);
  const std::int32_t place = std::clamp(level - other - own, -64, 64) + 64;
  return energies[static_cast<std::size_t>(place)];
}

void sum_rows(const ResidualMatrix& m, const LevelPass& pass, std::vector<LineSum>& sums,
              const Parallel& parallel) {
  const FixedKernels* const kernels = fixed_kernels();
  const std::int64_t in_task = std::max<std::int64_t>(1, task_elements / m.columns);
  parallel((m.rows + in_task - 1) / in_task, [&](std::int64_t task) {
    const std::int64_t last = std::min((task + 1) * in_task, m.rows);
    for (std::int64_t row = task * in_task; row < last; ++row) {
      const std::int16_t* const levels = m.levels + row * m.columns;
      const std::int64_t count = std::min(m.columns, m.elements - row * m.columns);
      LineSum own;
      if (kernels != nullptr) {
        kernels->row_terms(levels, pass.columns, pass.rows[row], count, pass.refine, &own.sum,
                           &own.counted);
        sums[static_cast<std::size_t>(row)] = own;
        continue;
      }
      for (std::int64_t c = 0; c < count; ++c) {
        if (levels[c] == no_level) continue;
        own.sum += term(levels[c], pass.columns == nullptr ? 0 : pass.columns[c], pass.rows[row],
                        pass.refine);
        ++own.counted;
      }
      sums[static_cast<std::size_t>(row)] = own;
    }
  });
}

void sum_columns(const ResidualMatrix& m, const LevelPass& pass, std::vector<LineSum>& sums,
                 const Parallel& parallel) {
  const FixedKernels* const kernels = fixed_kernels();
  parallel((m.columns + stripe - 1) / stripe, [&](std::int64_t task) {
    const std::int64_t first = task * stripe;
    const std::int64_t count = std::min(stripe, m.columns - first);
    if (kernels != nullptr) {
      for (std::int64_t c = first; c < first + count; c += kernel_columns) {
        const auto columns = static_cast<int>(std::min(kernel_columns, first + count - c));
        std::int64_t own_sums[kernel_columns] = {}, counted[kernel_columns] = {};
        kernels->column_terms(m.levels + c, m.columns, m.rows, pass.rows, pass.columns + c, columns,
                              pass.refine, own_sums, counted);
        for (int k = 0; k < columns; ++k)
          sums[static_cast<std::size_t>(c + k)] = {own_sums[k], counted[k]};
      }
      return;
    }
    LineSum own[stripe];
    for (std::int64_t row = 0; row < m.rows; ++row) {
      const std::int16_t* const levels = m.levels + row * m.columns + first;
      for (std::int64_t c = 0; c < count; ++c) {
        if (levels[c] == no_level) continue;
        own[c].sum += term(levels[c], pass.rows[row], pass.columns[first + c], pass.refine);
        ++own[c].counted;
      }
    }
    std::copy(own, own + count, sums.begin() + first);
  });
}

// ---- estimates ----------------------------------------------------------------------------------

std::int64_t elements_of_row(const ResidualShape& shape, std::int64_t row) {
  return std::min((row + 1) * shape.columns, shape.elements) - row * shape.columns;
}

}  // namespace

ResidualScales::Estimate::Estimate(const ResidualShape& shape, bool with_columns)
    : rows_(static_cast<std::size_t>(shape.rows), 0),
      columns_(static_cast<std::size_t>(with_columns ? shape.columns : 0), 0) {}

LevelPass ResidualScales::Estimate::pass() const {
  const bool by_turns = has_columns();
  const int round = by_turns ? passes_ / 2 : passes_;
  return {!by_turns || passes_ % 2 == 0, round > 0, rows_.data(),
          by_turns ? columns_.data() : nullptr};
}

// Moves the levels of the rows or of the columns to where the pass says.
void ResidualScales::Estimate::take(const ResidualShape& shape, const LineSum* sums) {
  // Levels stay within what 16 bits of quarter octaves hold, by far.
  constexpr std::int32_t most = 1 << 14;
  const LevelPass now = pass();
  std::vector<std::int32_t>& lines = now.by_row ? rows_ : columns_;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const LineSum& own = sums[i];
    if (!now.refine && own.counted == 0) {
      lines[i] = now.by_row ? shape.floor : 0;
      continue;
    }
    const std::int64_t length =
        now.by_row ? elements_of_row(shape, static_cast<std::int64_t>(i)) : shape.rows;
    const std::int64_t level = now.refine
                                   ? refined_level(lines[i], static_cast<std::uint64_t>(own.sum),
                                                   static_cast<std::uint64_t>(length))
                                   : rounded_quotient(own.sum, own.counted);
    lines[i] = static_cast<std::int32_t>(std::clamp<std::int64_t>(level, -most, most));
  }
  ++passes_;
}

std::int64_t ResidualScales::Estimate::cost(const ResidualShape& shape) const {
  std::int64_t sum = 0;
  for (std::int64_t row = 0; row < shape.rows; ++row)
    sum += rows_[static_cast<std::size_t>(row)] * elements_of_row(shape, row);
  for (const std::int32_t column : columns_) sum += column * shape.rows;
  return sum + 8 * bits_of_a_scale * static_cast<std::int64_t>(columns_.size());
}

Scales ResidualScales::Estimate::scales(std::int32_t floor) const {
  Scales scales;
  for (const std::int32_t row : rows_)
    scales.rows.push_back(scale_from_level(std::max(row, floor)));
  for (const std::int32_t column : columns_) scales.columns.push_back(scale_from_level(column));
  return scales;
}

ResidualScales::ResidualScales(const ResidualShape& shape, bool may_have_columns) : shape_(shape) {
  estimates_.emplace_back(shape, may_have_columns);
  if (may_have_columns && shape.rows < surely_many_rows) estimates_.emplace_back(shape, false);
}

const ResidualScales::Estimate& ResidualScales::best() const {
  const Estimate &first = estimates_.front(), &last = estimates_.back();
  return first.cost(shape_) < last.cost(shape_) ? first : last;
}

Scales residual_scales(const ResidualMatrix& matrix, bool may_have_columns, bool& has_columns,
                       const Parallel& parallel) {
  ResidualScales scales({matrix.elements, matrix.rows, matrix.columns, matrix.floor},
                        may_have_columns);
  std::vector<LineSum> sums;
  while (!scales.done()) {
    sums.resize(static_cast<std::size_t>(scales.lines()));
    const LevelPass pass = scales.pass();
    (pass.by_row ? sum_rows : sum_columns)(matrix, pass, sums, parallel);
    scales.take(sums.data());
  }
  has_columns = scales.has_columns();
  return scales.scales();
}

}  // namespace lmgc
