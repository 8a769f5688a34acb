#include "ops/projection.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace lmgc::ops {
namespace {

constexpr std::int64_t counts[] = {8, 16, 32, 64, 128, 256};  // that are tried, and all
constexpr double bits_of_a_component = 6;                     // its flag and its step
constexpr double bits_of_a_past_component = 5;                // the width of its coefficients
constexpr double bits_of_a_stream = 256;                      // head, states
constexpr double least_variance = 1.0 / 12;                   // of what is rounded
constexpr double most_coefficient = 1 << 20;

// Of a Gaussian that is rounded to integers.
double bits_of(double variance) {
  constexpr double two_pi_e = 17.0794684453471;
  return 0.5 * std::log2(two_pi_e * (variance + least_variance));
}

// A factor and the past one in the factor's own line widths: least squares in these weigh every bit
// alike.
struct Weighted {
  at::Tensor own;   // [lines, rank], float
  at::Tensor past;  // [lines, past rank], of length about 1
};

Weighted weighted(const Factor& factor, std::int64_t rank, const std::vector<std::int16_t>& weights,
                  const FlagRuns& dead, const PastFactor& past, std::int64_t past_rank) {
  const auto lines = static_cast<std::int64_t>(weights.size());
  Factor widths{factor.entries, {}, {}};
  choose_widths(widths, lines, rank);
  Weighted result{at::empty({lines, rank}, at::kFloat), at::empty({lines, past_rank}, at::kFloat)};
  auto* own = result.own.data_ptr<float>();
  auto* other = result.past.data_ptr<float>();
  std::vector<std::int32_t> live;
  live.reserve(static_cast<std::size_t>(lines * past_rank));
  std::size_t line = 0;
  for_each_live(dead, lines, [&](std::int64_t i) {
    const double spread =
        widths.row_widths.empty() ? 1.0 : std::exp2(-0.5 * widths.row_widths[line]);
    const double shift =
        std::ldexp(spread, past.weights[static_cast<std::size_t>(i)] - weights[line]);
    const auto* const from = past.entries.data() + i * past_rank;
    for (std::int64_t j = 0; j < past_rank; ++j) *other++ = static_cast<float>(from[j] * shift);
    live.insert(live.end(), from, from + past_rank);
    const auto* const entries = factor.entries.data() + line * static_cast<std::size_t>(rank);
    for (std::int64_t c = 0; c < rank; ++c) *own++ = static_cast<float>(entries[c] * spread);
    ++line;
  });
  const at::Tensor norms = at::empty({past_rank}, at::kFloat);
  for (std::int64_t j = 0; j < past_rank; ++j)
    norms.data_ptr<float>()[j] = std::ldexp(1.0F, -norm_of(live.data() + j, lines, past_rank));
  result.past.mul_(norms);
  return result;
}

// What the first `count` past components make of each component.
struct Choice {
  std::int64_t count = 0;
  double saved = 0;  // bits
  std::vector<std::int64_t> components;
  std::vector<int> steps;
};

// log2 of the unit of coefficients: their noise costs least where its variance, on a vector of
// length 1, is about 12 times what is left of an entry (as docs/lowrank.md has it of factors).
int step_of(double left, double share, double length) {
  const double step = std::sqrt(12 * left / (1 - share)) / length;
  return static_cast<int>(std::lrint(std::log2(step)));
}

// `captured`: the squares of the components along the past ones, each made orthogonal to those
// before it, summed over the first `count`.
Choice judge(std::int64_t count, double lines, const std::vector<double>& energy,
             const at::Tensor& captured, double length) {
  Choice choice;
  choice.count = count;
  choice.saved = -bits_of_a_stream - bits_of_a_past_component * static_cast<double>(count);
  const double share = static_cast<double>(count) / lines;
  const float* const inside = captured.data_ptr<float>();
  for (std::size_t c = 0; c < energy.size(); ++c) {
    const double left = std::max((energy[c] - inside[c]) / lines, least_variance);
    const int step = step_of(left, share, length);
    const double unit = std::ldexp(length, step);
    const double coefficients = static_cast<double>(count) *
                                bits_of(inside[c] / (static_cast<double>(count) * unit * unit));
    const double after = left + share * unit * unit / 12;
    const double saved =
        lines * (bits_of(energy[c] / lines) - bits_of(after)) - coefficients - bits_of_a_component;
    if (!(saved > 0)) continue;
    choice.saved += saved;
    choice.components.push_back(static_cast<std::int64_t>(c));
    choice.steps.push_back(step);
  }
  return choice;
}

}  // namespace

Projection fit_projection(const Factor& factor, std::int64_t rank,
                          const std::vector<std::int16_t>& weights, const FlagRuns& dead,
                          const PastFactor& past, std::int64_t past_rank) {
  const auto lines = static_cast<std::int64_t>(weights.size());
  const std::int64_t all_lines = dead.empty() ? lines : dead.lines();
  const std::int64_t most = std::min(past_rank, lines / 2);
  if (most < 1 || static_cast<std::int64_t>(past.weights.size()) != all_lines) return {};
  const Weighted matrices = weighted(factor, rank, weights, dead, past, past_rank);
  const at::Tensor basis = matrices.past.narrow(1, 0, most);
  at::Tensor gram = at::mm(basis.t(), basis);
  const at::Tensor squares = gram.diagonal().clone();
  const double largest = squares.max().item<double>();
  if (!(largest > 0) || !std::isfinite(largest)) return {};
  // Columns may be zero, or depend on each other.
  gram.diagonal().add_(1e-6 * largest);
  const auto [lower, failed] = at::linalg_cholesky_ex(gram);
  if (failed.item<int>() != 0) return {};
  const at::Tensor seen = at::linalg_solve_triangular(lower, at::mm(basis.t(), matrices.own),
                                                      /*upper=*/false);  // [most, rank]
  const at::Tensor captured = seen.square().cumsum(0).contiguous();
  const at::Tensor energies = matrices.own.square().sum(0).contiguous();
  const std::vector<double> energy(energies.data_ptr<float>(), energies.data_ptr<float>() + rank);
  const at::Tensor lengths = squares.cumsum(0).contiguous();

  Choice best;
  const auto offer = [&](std::int64_t count) {
    const double length =
        std::sqrt(lengths.data_ptr<float>()[count - 1] / static_cast<double>(count));
    Choice choice =
        judge(count, static_cast<double>(lines), energy, captured[count - 1].contiguous(), length);
    if (choice.saved > best.saved) best = std::move(choice);
  };
  for (const std::int64_t count : counts)
    if (count < most) offer(count);
  offer(most);
  if (best.components.empty()) return {};

  const at::Tensor which = at::tensor(best.components, at::kLong);
  const at::Tensor coefficients = at::linalg_solve_triangular(
      lower.narrow(0, 0, best.count).narrow(1, 0, best.count).t(),
      seen.narrow(0, 0, best.count).index_select(1, which), /*upper=*/true);
  const at::Tensor by_component = coefficients.t().contiguous();
  const auto* value = by_component.data_ptr<float>();
  Projection projection;
  projection.count = best.count;
  projection.projected.assign(static_cast<std::size_t>(rank), false);
  for (std::size_t p = 0; p < best.components.size(); ++p, value += best.count) {
    std::vector<std::int32_t> own;
    for (std::int64_t j = 0; j < best.count; ++j) {
      const double number = std::rint(std::ldexp(double{value[j]}, -best.steps[p]));
      if (!(std::abs(number) <= most_coefficient)) break;
      own.push_back(static_cast<std::int32_t>(number));
    }
    if (own.size() != static_cast<std::size_t>(best.count)) continue;  // far from all that is sane
    projection.projected[static_cast<std::size_t>(best.components[p])] = true;
    projection.steps.push_back(static_cast<std::int16_t>(best.steps[p]));
    auto& entries = projection.coefficients.entries;
    entries.insert(entries.end(), own.begin(), own.end());
  }
  return projection.steps.empty() ? Projection{} : projection;
}

}  // namespace lmgc::ops
