#include "core/mixture.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <numeric>

#include "core/gaussian.h"

namespace lmgc {
namespace {

constexpr int first_symbol = symbol_origin - most_residual;  // of a residual
constexpr int edges = 2 * most_residual + 2;                 // of the bins of all residuals

// round(2^30 * 2^(-i / 4))
constexpr std::int64_t quarter_powers[4] = {1073741824, 902905651, 759250125, 638450708};

// The probabilities of a component to lie below each edge, in 2^25ths. With edge e at e / 32 bins
// from the prediction and a standard deviation of 2^(t / 4) bins, the argument in 2^-14 is
// e * 2^9 * 2^(-t / 4).
void component_cdf(const ContextShape& shape, int component,
                   std::array<std::uint32_t, edges>& cdf) {
  const MixtureComponent& own = mixture_shape[static_cast<std::size_t>(component)];
  const int quarters = shape.width + own.width;
  const std::int64_t factor = quarter_powers[quarters & 3];
  const int shift = 30 - (gaussian_argument_bits - 5) + (quarters >> 2);
  for (int i = 0; i < edges; ++i) {
    const std::int64_t edge = 32 * (i - most_residual) - shape.fraction;
    const std::int64_t magnitude = (edge < 0 ? -edge : edge) * factor >> shift;
    const std::int64_t argument = edge < 0 ? -magnitude : magnitude;
    cdf[static_cast<std::size_t>(i)] =
        gaussian_cdf(argument - own.distance, gaussian_table.data()) +
        gaussian_cdf(argument + own.distance, gaussian_table.data());
  }
}

using ComponentCdfs = std::array<std::array<std::uint32_t, edges>, mixture_components>;

// Those of all components in a context. They depend on nothing else, so each is computed once in a
// process and kept, 12 KiB.
const ComponentCdfs& component_cdfs(int context, Fraction kind) {
  constexpr std::size_t kinds = 3;
  static std::array<std::array<std::atomic<const ComponentCdfs*>, most_contexts>, kinds> kept{};
  auto& place = kept[static_cast<std::size_t>(kind)][static_cast<std::size_t>(context)];
  if (const ComponentCdfs* const known = place.load(std::memory_order_acquire)) return *known;
  // Threads that come at the same time compute the same; no lock that a fork could leave shut.
  auto made = std::make_unique<ComponentCdfs>();
  for (int k = 0; k < mixture_components; ++k)
    component_cdf(shape_of(context, kind), k, (*made)[static_cast<std::size_t>(k)]);
  const ComponentCdfs* known = nullptr;
  if (place.compare_exchange_strong(known, made.get(), std::memory_order_acq_rel))
    known = made.release();
  return *known;
}

// A number for each component, in vectors of four of which compilers make the same sums everywhere.
constexpr std::size_t lanes = 4, vectors = mixture_components / lanes;
using Vector [[gnu::vector_size(lanes * sizeof(float))]] = float;
struct Components {
  Vector of[vectors];
};
static_assert(mixture_components % lanes == 0);

float sum_of_products(const Components& a, const Components& b) {
  Vector sums{};
  for (std::size_t v = 0; v < vectors; ++v) sums += a.of[v] * b.of[v];
  return (sums[0] + sums[2]) + (sums[1] + sums[3]);
}

}  // namespace

bool Mixture::valid(Fraction kind) const {
  return std::accumulate(weights.begin(), weights.end(), 0) == mixture_one &&
         positive <= 2 * even && (positive == even || kind == Fraction::edge) &&
         zero + minus_zero <= most_zero_frequency;
}

Mixture fit_mixture(const ContextCounts& counts, Fraction kind) {
  // Squared factors in most iterations come near as fast as twice as many of plain ones; they may
  // swing around where plain ones settle.
  constexpr int iterations = 16, plain_iterations = 2;
  constexpr std::size_t most_used = 24;  // contexts, those with the most symbols

  std::vector<std::uint64_t> totals(counts.size());
  std::uint64_t zeros = 0, minus_zeros = 0, all = 0;
  for (std::size_t c = 0; c < counts.size(); ++c) {
    totals[c] = std::accumulate(counts[c].begin(), counts[c].end(), std::uint64_t{0});
    zeros += counts[c][symbol_zero];
    minus_zeros += counts[c][symbol_minus_zero];
    all += totals[c];
  }
  std::vector<std::size_t> used(counts.size());
  std::iota(used.begin(), used.end(), std::size_t{0});
  std::stable_sort(used.begin(), used.end(),
                   [&](std::size_t a, std::size_t b) { return totals[a] > totals[b]; });
  used.resize(std::min(used.size(), most_used));

  // Every symbol that occurs: how often, and how probable each component makes it.
  struct Item {
    Components probability;
    float count;
  };
  std::vector<Item> items;
  float total = 0;
  for (const std::size_t c : used) {
    if (totals[c] == 0) break;
    const ComponentCdfs& cdf = component_cdfs(static_cast<int>(c), kind);
    for (std::size_t i = 0; i + 1 < edges; ++i) {
      const std::uint32_t count = counts[c][first_symbol + i];
      if (count == 0) continue;
      Item item{{}, static_cast<float>(count)};
      bool any = false;
      for (std::size_t k = 0; k < mixture_components; ++k) {
        const std::uint32_t probability = cdf[k][i + 1] - cdf[k][i];
        item.probability.of[k / lanes][k % lanes] = static_cast<float>(probability);
        any |= probability != 0;
      }
      if (!any) continue;
      items.push_back(item);
      total += item.count;
    }
  }

  Components ones;
  for (Vector& part : ones.of) part = Vector{} + 1.0f;
  Components weights;
  for (Vector& part : weights.of) part = Vector{} + 1.0f / mixture_components;
  for (int iteration = 0; iteration < iterations && total > 0; ++iteration) {
    Components sums{};
    for (const Item& item : items) {
      const float mean = sum_of_products(weights, item.probability);
      if (!(mean > 0)) continue;
      const float share = item.count / mean;
      for (std::size_t v = 0; v < vectors; ++v) sums.of[v] += share * item.probability.of[v];
    }
    Components next;
    for (std::size_t v = 0; v < vectors; ++v) {
      const Vector factor = sums.of[v] / total;
      next.of[v] = weights.of[v] * factor;
      if (iteration < iterations - plain_iterations) next.of[v] *= factor;
    }
    const float all_weights = sum_of_products(next, ones);
    if (!(all_weights > 0 && all_weights < 1e30f)) break;
    for (std::size_t v = 0; v < vectors; ++v) weights.of[v] = next.of[v] / all_weights;
  }

  // The nearest 255ths whose sum is right: what rounding down leaves goes to the largest
  // remainders.
  Mixture mixture;
  std::array<float, mixture_components> remainders;
  int left = mixture_one;
  for (std::size_t k = 0; k < mixture_components; ++k) {
    const float scaled =
        std::clamp(weights.of[k / lanes][k % lanes] * mixture_one, 0.0f, float{mixture_one});
    const int whole = std::min(static_cast<int>(scaled), left);
    mixture.weights[k] = static_cast<std::uint8_t>(whole);
    remainders[k] = scaled - static_cast<float>(whole);
    left -= whole;
  }
  for (; left > 0; --left) {
    const auto k = static_cast<std::size_t>(std::max_element(remainders.begin(), remainders.end()) -
                                            remainders.begin());
    ++mixture.weights[k];
    remainders[k] -= 1;
  }

  if (kind == Fraction::edge) {
    std::uint64_t positive = 0, either = 0;
    for (const auto& own : counts) {
      for (std::size_t s = first_symbol; s < own.size(); ++s) {
        either += own[s];
        if (s >= symbol_origin) positive += own[s];
      }
    }
    const std::uint64_t share =
        either == 0 ? Mixture::even : (2 * Mixture::even * positive + either / 2) / either;
    // Chance alone moves the share by a few per cent.
    const bool skewed = share < Mixture::even - 16 || share > Mixture::even + 16;
    if (skewed) mixture.positive = static_cast<std::uint8_t>(share);
  }

  if (all > 0) {
    const auto frequency = [&](std::uint64_t count) {
      return static_cast<std::uint64_t>(rans::probability_one) * count / all;
    };
    const auto cap = static_cast<std::uint64_t>(most_zero_frequency);
    const std::uint64_t zero = std::min(frequency(zeros), cap);
    mixture.zero = static_cast<std::uint16_t>(zero);
    mixture.minus_zero = static_cast<std::uint16_t>(std::min(frequency(minus_zeros), cap - zero));
  }
  return mixture;
}

rans::Table mixture_table(const Mixture& mixture, int context, Fraction kind) {
  const ComponentCdfs& components = component_cdfs(context, kind);
  std::array<std::uint64_t, edges> cdf{};
  for (std::size_t k = 0; k < mixture_components; ++k) {
    const std::uint64_t weight = mixture.weights[k];
    if (weight == 0) continue;
    const auto& component = components[k];
    for (std::size_t i = 0; i < edges; ++i) cdf[i] += weight * component[i];
  }

  rans::Table table;
  const std::uint64_t budget = rans::probability_one - mixture.zero - mixture.minus_zero;
  constexpr std::uint64_t one = std::uint64_t{mixture_one * Mixture::even} << (gaussian_bits + 1);
  std::uint64_t sum = 0;
  std::size_t peak = first_symbol;
  for (std::size_t i = 0; i + 1 < edges; ++i) {
    const std::size_t symbol = first_symbol + i;
    const std::uint64_t share = symbol >= symbol_origin
                                    ? mixture.positive
                                    : std::uint64_t{2 * Mixture::even} - mixture.positive;
    const auto frequency =
        static_cast<std::uint16_t>(((cdf[i + 1] - cdf[i]) * share * budget + one / 2) / one);
    table.frequency[symbol] = frequency;
    sum += frequency;
    if (frequency > table.frequency[peak]) peak = symbol;
  }
  // What rounding up took too much, the largest gives back, one after the other; the escape needs
  // one at least.
  while (sum > budget - 1) {
    --table.frequency[peak];
    --sum;
    peak = static_cast<std::size_t>(
        std::max_element(table.frequency.begin(), table.frequency.end()) - table.frequency.begin());
  }
  table.frequency[symbol_escape] = static_cast<std::uint16_t>(budget - sum);
  table.frequency[symbol_zero] = mixture.zero;
  table.frequency[symbol_minus_zero] = mixture.minus_zero;
  return table;
}

std::vector<rans::Table> mixture_tables(const Mixture& mixture, int contexts, Fraction kind,
                                        const Parallel& parallel) {
  std::vector<rans::Table> tables(static_cast<std::size_t>(contexts));
  parallel(contexts, [&](std::int64_t context) {
    tables[static_cast<std::size_t>(context)] =
        mixture_table(mixture, static_cast<int>(context), kind);
  });
  return tables;
}

}  // namespace lmgc
