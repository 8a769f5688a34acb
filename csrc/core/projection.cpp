#include "core/projection.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "core/integer_product.h"
#include "core/rice.h"

namespace lmgc {
namespace {

std::uint64_t magnitude_of(std::int32_t entry) {
  return static_cast<std::uint64_t>(entry < 0 ? -std::int64_t{entry} : entry);
}

// value * 2^exponent, rounded down, within +-most_mean.
std::int64_t shifted(std::int64_t value, int exponent) {
  if (exponent <= 0) {
    const std::int64_t low = value >> std::min(-exponent, 63);
    return std::clamp(low, -most_mean, most_mean);
  }
  if (value == 0) return 0;
  if (exponent > 41 || value > most_mean >> exponent || value < -(most_mean >> exponent))
    return value > 0 ? most_mean : -most_mean;
  return value * (std::int64_t{1} << exponent);
}

}  // namespace

int norm_of(const std::int32_t* column, std::int64_t lines, std::int64_t rank) {
  std::uint64_t largest = 0;
  for (std::int64_t i = 0; i < lines; ++i)
    largest = std::max(largest, magnitude_of(column[i * rank]));
  // So that squares add up in 64 bits.
  const int down = std::max(0, static_cast<int>(std::bit_width(largest)) - 15);
  std::uint64_t sum = 0;
  for (std::int64_t i = 0; i < lines; ++i) {
    const std::uint64_t value = magnitude_of(column[i * rank]) >> down;
    sum += value * value;
  }
  return down + (static_cast<int>(std::bit_width(sum)) + 1) / 2;
}

bool EntryMeans::open(const Projection& projection, const PastFactor& past, std::int64_t past_rank,
                      const FlagRuns& dead, const std::vector<std::int16_t>& weights,
                      const Parallel& parallel) {
  const auto all_lines = dead.empty() ? static_cast<std::int64_t>(weights.size()) : dead.lines();
  if (projection.count > past_rank || static_cast<std::int64_t>(past.weights.size()) != all_lines)
    return false;
  const auto count = static_cast<std::size_t>(projection.count);
  Factors factors;
  factors.rank = projection.count;
  factors.u.entries.reserve(weights.size() * count);
  line_shifts_.clear();
  for_each_live(dead, all_lines, [&](std::int64_t line) {
    const auto first = past.entries.begin() + line * past_rank;
    factors.u.entries.insert(factors.u.entries.end(), first, first + projection.count);
    line_shifts_.push_back(past.weights[static_cast<std::size_t>(line)] -
                           weights[line_shifts_.size()]);
  });
  factors.v.entries = projection.coefficients.entries;
  for (std::int64_t j = 0; j < projection.count; ++j) {
    const int norm = norm_of(factors.u.entries.data() + j,
                             static_cast<std::int64_t>(weights.size()), projection.count);
    factors.exponents.push_back(static_cast<std::int16_t>(-norm));
  }
  const std::uint64_t bound = product_bound(factors, parallel);
  if (bound >= std::uint64_t{1} << most_product_bits) return false;
  places_.assign(projection.projected.size(), -1);
  component_shifts_.clear();
  for (std::size_t c = 0; c < places_.size(); ++c) {
    if (!projection.projected[c]) continue;
    places_[c] = static_cast<std::int32_t>(component_shifts_.size());
    component_shifts_.push_back(projection.steps[component_shifts_.size()] + factors.base() +
                                mean_fraction_bits);
  }
  product_ = exact_product(factors, projection.components(), bound, parallel);
  return true;
}

void EntryMeans::get(std::int64_t first, std::int64_t count, std::int64_t* out) const {
  const auto rank = static_cast<std::int64_t>(places_.size());
  const auto components = static_cast<std::int64_t>(component_shifts_.size());
  const std::int64_t first_line = first / rank, lines = (first + count - 1) / rank + 1 - first_line;
  std::vector<std::int64_t> product(static_cast<std::size_t>(lines * components));
  product_(first_line * components, lines * components, product.data());
  std::int64_t line = 0, component = first % rank;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int32_t place = places_[static_cast<std::size_t>(component)];
    out[i] = place < 0 ? 0
                       : shifted(product[static_cast<std::size_t>(line * components + place)],
                                 component_shifts_[static_cast<std::size_t>(place)] +
                                     line_shifts_[static_cast<std::size_t>(first_line + line)]);
    if (++component == rank) {
      component = 0;
      ++line;
    }
  }
}

void choose_projected_widths(const EntryMeans& means, std::int64_t lines, std::int64_t rank,
                             Factor& factor) {
  std::vector<std::int64_t> own(factor.entries.size());
  means.get(0, lines * rank, own.data());
  Factor left;
  left.entries.resize(factor.entries.size());
  for (std::size_t i = 0; i < own.size(); ++i) {
    const std::int64_t mean = (own[i] + (1 << (mean_fraction_bits - 1))) >> mean_fraction_bits;
    left.entries[i] =
        static_cast<std::int32_t>(std::clamp(factor.entries[i] - mean, -most_factor, most_factor));
  }
  choose_widths(left, lines, rank);
  factor.row_widths = std::move(left.row_widths);
  factor.column_widths = std::move(left.column_widths);
}

void write_projection(BitWriter& out, const Projection& projection) {
  write_flags(out, FlagRuns(projection.projected));
  write_line(out, projection.steps);
  out.put(projection.coefficients.row_widths.empty() ? 0 : 1, 1);
  write_line(out, projection.coefficients.column_widths);
  write_line(out, projection.coefficients.row_widths);
}

bool read_projection(BitReader& in, std::int64_t rank, Projection& projection) {
  FlagRuns projected;
  if (!read_flags(in, rank, projected) || projected.set() == 0) return false;
  projection.projected = projected.flags();
  const auto components = static_cast<std::size_t>(projected.set());
  projection.steps.resize(components);
  if (!read_line(in, projection.steps)) return false;
  if (in.get(1) != 0) projection.coefficients.row_widths.resize(components);
  projection.coefficients.column_widths.resize(static_cast<std::size_t>(projection.count));
  return read_line(in, projection.coefficients.column_widths) &&
         read_line(in, projection.coefficients.row_widths) && in.ok();
}

}  // namespace lmgc
