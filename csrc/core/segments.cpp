#include "core/segments.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <mutex>
#include <numeric>

#include "core/histogram.h"
#include "core/integer_math.h"
#include "core/isa.h"
#include "core/segment_kernels.h"

namespace lmgc {
namespace {

constexpr int rounds = 2;                 // a third moves less than 0.05 % of the size
constexpr int table_numbers[] = {4, 16};  // tried beside 1
constexpr std::uint32_t most_cost = most_table_cost;

struct SymbolCount {
  std::uint8_t symbol;
  std::uint16_t count;
};

// The distinct symbols of one segment (at most 256 symbols) with their counts, in order; how many.
class SegmentCounter {
 public:
  int count(const std::uint8_t* data, int symbols, SymbolCount* out) {
    std::uint8_t least = 255, greatest = 0;
    for (int i = 0; i < symbols; ++i) {
      least = std::min(least, data[i]);
      greatest = std::max(greatest, data[i]);
    }
    int i = 0;
    for (; i + 8 <= symbols; i += 8) {  // equal neighbours do not wait for each other's counter
      std::uint64_t next;
      std::memcpy(&next, data + i, 8);
      for (int j = 0; j < 8; ++j) ++counts_[j % 4][next >> (8 * j) & 0xFF];
    }
    for (; i < symbols; ++i) ++counts_[0][data[i]];
    int distinct = 0;
    for (int symbol = least; symbol <= greatest; ++symbol) {
      const auto sum = static_cast<std::uint16_t>(counts_[0][symbol] + counts_[1][symbol] +
                                                  counts_[2][symbol] + counts_[3][symbol]);
      out[distinct] = {static_cast<std::uint8_t>(symbol), sum};
      distinct += sum != 0;
    }
    for (int symbol = least & ~15; symbol <= greatest; symbol += 16) {
      for (auto& counter : counts_) std::memset(counter + symbol, 0, 16);
    }
    return distinct;
  }

 private:
  std::uint8_t counts_[4][256] = {};  // each sees at most a quarter of 256 symbols
};

using Eight [[gnu::vector_size(16)]] = std::uint16_t;

Eight load_eight(const std::uint16_t* costs) {
  Eight eight;
  std::memcpy(&eight, costs, sizeof eight);
  return eight;
}

int least_of(Eight low, Eight high, int tables) {
  std::uint16_t
      sums[most_tables];  // element by element: a copy of the whole would keep it in memory
  for (int t = 0; t < 8; ++t) {
    sums[t] = low[t];
    sums[8 + t] = high[t];
  }
  return cheapest(sums, tables);
}

// Sums of all tables at once, as vectors of eight: left to itself a compiler vectorises another
// loop.
template <int vectors>
int cheapest_of(const SymbolCount* pairs, int distinct, const TableCosts& costs) {
  Eight low{}, high{};
  for (int i = 0; i < distinct; ++i) {
    const std::uint16_t* const own = costs.cost[pairs[i].symbol].data();
    low += load_eight(own) * pairs[i].count;
    if (vectors > 1) high += load_eight(own + 8) * pairs[i].count;
  }
  return least_of(low, high, costs.tables);
}

int cheapest_table(const SymbolCount* pairs, int distinct, const TableCosts& costs) {
  if (costs.tables == 1) return 0;
  return costs.tables <= 8 ? cheapest_of<1>(pairs, distinct, costs)
                           : cheapest_of<2>(pairs, distinct, costs);
}

using SymbolCounts = std::array<std::uint32_t, 256>;
using ClusterCounts = std::array<SymbolCounts, most_tables>;

// The symbols that a sample has are [first, last].
struct SymbolRange {
  int first = 0, last = 255;
};
SymbolRange range_of(const SymbolCounts& counts) {
  SymbolRange range;
  while (range.first < range.last && counts[range.first] == 0) ++range.first;
  while (range.last > range.first && counts[range.last] == 0) --range.last;
  return range;
}

std::uint64_t total_of(const SymbolCounts& counts, SymbolRange range) {
  return std::accumulate(counts.begin() + range.first, counts.begin() + range.last + 1,
                         std::uint64_t{0});
}

// Costs of tables with these counts, a sixteenth of a symbol added to each: what a cluster has not
// seen is expensive, not impossible.
void set_costs(const SymbolCounts* counts, int tables, SymbolRange range, TableCosts& costs) {
  costs.tables = tables;
  std::array<std::uint16_t, most_tables> unseen{};
  std::uint32_t whole[most_tables];
  for (int t = 0; t < tables; ++t) {
    whole[t] = log2_fixed(16 * total_of(counts[t], range) + 256);
    unseen[t] = static_cast<std::uint16_t>(std::min(whole[t] >> 4, most_cost));
  }
  costs.cost.fill(unseen);
  for (int t = 0; t < tables; ++t) {
    for (int symbol = range.first; symbol <= range.last; ++symbol) {
      const std::uint64_t count = counts[t][symbol];
      if (count == 0) continue;
      const std::uint32_t cost = (whole[t] - log2_of_count(16 * count + 1)) >> 4;
      costs.cost[symbol][t] = static_cast<std::uint16_t>(std::min(cost, most_cost));
    }
  }
}

// Bits that a stream of `symbols` symbols takes with these tables, to be compared with one another.
// Code lengths measured on the `sampled` symbols that made the tables are too short by about
// 0.72 bits (185/256) for every distinct symbol.
std::uint64_t estimated_bits(const ClusterCounts& counts, int tables, SymbolRange range,
                             std::uint64_t sampled, std::uint64_t symbols, int segment_bits) {
  std::uint64_t sample_cost = 0, table_bits = 0;
  for (int t = 0; t < tables; ++t) {
    const std::uint32_t whole = log2_fixed(total_of(counts[t], range));
    for (int symbol = range.first; symbol <= range.last; ++symbol) {
      const std::uint32_t count = counts[t][symbol];
      if (count == 0) continue;
      sample_cost += std::uint64_t{count} * (whole - log2_of_count(count)) + 185;
      table_bits += 6;
    }
    table_bits += 32;
  }
  const std::uint64_t names =
      (symbols >> segment_bits) * static_cast<std::uint64_t>(name_bits(tables));
  return (sample_cost >> log2_fraction_bits) * symbols / sampled + table_bits + names;
}

// The cheapest of at most eight tables, symbol by symbol.
int cheapest_of_few(const std::uint8_t* data, std::int64_t count, const TableCosts& costs) {
  Eight sums{};
  for (std::int64_t i = 0; i < count; ++i) sums += load_eight(costs.cost[data[i]].data());
  return least_of(sums, Eight{}, costs.tables);
}

// The sampled segments. Where segments have few distinct symbols, it is faster to look at those
// with their counts.
class SegmentSample {
 public:
  SegmentSample(const std::uint8_t* data, std::int64_t segments, int segment_bits)
      : data_(data), length_(1 << segment_bits), segments_(static_cast<std::uint32_t>(segments)) {}

  void count_distinct() {
    pairs_ = std::make_unique_for_overwrite<SymbolCount[]>(
        std::size_t{segments_} * static_cast<std::size_t>(length_) + 1);
    first_.resize(std::size_t{segments_} + 1);
    SegmentCounter counter;
    for (std::uint32_t s = 0; s < segments_; ++s) {
      const int distinct = counter.count(segment(s), length_, pairs_.get() + first_[s]);
      first_[s + 1] = first_[s] + static_cast<std::uint32_t>(distinct);
    }
  }

  // Every `step`-th segment, by the sum of its symbols.
  std::vector<std::uint32_t> ordered(std::uint32_t step) const {
    std::vector<std::uint64_t> keys;  // sum << 32 | segment
    for (std::uint32_t s = 0; s < segments_; s += step) {
      const std::uint8_t* const own = segment(s);
      keys.push_back(std::uint64_t{std::accumulate(own, own + length_, std::uint32_t{0})} << 32 |
                     s);
    }
    std::sort(keys.begin(), keys.end());
    std::vector<std::uint32_t> order(keys.size());
    std::transform(keys.begin(), keys.end(), order.begin(),
                   [](std::uint64_t key) { return static_cast<std::uint32_t>(key); });
    return order;
  }

  void add_to(ClusterCounts& counts, int table, std::uint32_t s) const {
    if (first_.empty()) {
      for (int i = 0; i < length_; ++i) ++counts[table][segment(s)[i]];
      return;
    }
    for (std::uint32_t i = first_[s]; i < first_[s + 1]; ++i) {
      counts[table][pairs_[i].symbol] += pairs_[i].count;
    }
  }

  int cheapest(std::uint32_t s, const TableCosts& costs) const {
    if (first_.empty()) return cheapest_of_few(segment(s), length_, costs);
    return cheapest_table(pairs_.get() + first_[s], static_cast<int>(first_[s + 1] - first_[s]),
                          costs);
  }

 private:
  const std::uint8_t* segment(std::size_t s) const {
    return data_ + s * static_cast<std::size_t>(length_);
  }

  const std::uint8_t* data_;
  int length_;
  std::uint32_t segments_;
  std::unique_ptr<SymbolCount[]> pairs_;
  std::vector<std::uint32_t> first_;  // of each segment's pairs; empty until count_distinct()
};

// Clusters the segments of `order`, which begins as the clusters' ranges, into `tables` clusters.
void cluster(const SegmentSample& sample, const std::vector<std::uint32_t>& order, int tables,
             SymbolRange range, ClusterCounts& counts) {
  std::fill_n(counts.begin(), tables, SymbolCounts{});
  for (std::size_t i = 0; i < order.size(); ++i) {
    sample.add_to(counts, static_cast<int>(i * static_cast<std::size_t>(tables) / order.size()),
                  order[i]);
  }
  TableCosts costs;
  for (int round = 0; round < rounds; ++round) {
    set_costs(counts.data(), tables, range, costs);
    std::fill_n(counts.begin(), tables, SymbolCounts{});
    for (const std::uint32_t s : order) sample.add_to(counts, sample.cheapest(s, costs), s);
  }
}

}  // namespace

TableCosts choose_tables(const std::uint8_t* data, std::int64_t segments, int segment_bits,
                         std::int64_t symbols) {
  TableCosts best;
  const std::int64_t length = std::int64_t{1} << segment_bits;
  Histogram seen;
  if (segments < 8) {
    SymbolCounts counts{};
    seen.add(data, segments * length);
    seen.add_to(counts.data());
    set_costs(&counts, 1, range_of(counts), best);
    return best;
  }
  constexpr std::int64_t step = 2;
  ClusterCounts counts;
  counts[0] = {};
  for (std::int64_t s = 0; s < segments; s += step) seen.add(data + s * length, length);
  seen.add_to(counts[0].data());
  SymbolRange range = range_of(counts[0]);
  const auto whole = static_cast<std::uint64_t>(symbols);
  const auto estimate = [&](int tables, std::size_t sampled) {
    return estimated_bits(counts, tables, range, std::uint64_t{sampled} << segment_bits, whole,
                          segment_bits);
  };

  // With little to gain, a rough answer will do: four tables from half of the segments.
  SegmentSample sample(data, segments, segment_bits);
  best.estimated_bits = estimate(1, static_cast<std::size_t>((segments + step - 1) / step));
  const bool rough = best.estimated_bits > 7 * whole;
  const std::vector<std::uint32_t> order = sample.ordered(rough ? 2 : 1);
  if (!rough) {
    sample.count_distinct();
    counts[0] = {};
    for (const std::uint32_t s : order) sample.add_to(counts, 0, s);
    range = range_of(counts[0]);
    best.estimated_bits = estimate(1, order.size());
  }
  set_costs(counts.data(), 1, range, best);
  for (const int tables : table_numbers) {
    if (order.size() < 2 * static_cast<std::size_t>(tables) || (rough && tables > 4)) break;
    cluster(sample, order, tables, range, counts);
    const std::uint64_t bits = estimate(tables, order.size());
    if (bits < best.estimated_bits) {
      set_costs(counts.data(), tables, range, best);
      best.estimated_bits = bits;
    }
  }
  return best;
}

namespace {

NameRun best_name_run() {
#if defined(__x86_64__)
  if (has_avx512_vbmi()) return name_run_avx512;
#endif
  return name_run_portable;
}

NameCosts name_costs(const TableCosts& costs) {
  NameCosts both;
  static_assert(sizeof costs.cost == 256 * sizeof *both.rows);
  both.rows = reinterpret_cast<const std::uint16_t(*)[most_tables]>(costs.cost.data());
  both.tables = costs.tables;
  if (costs.tables == 1) return both;  // there is no choice
  std::memset(both.columns, most_cost, sizeof both.columns);
  for (int t = 0; t < costs.tables; ++t) {
    for (int symbol = 0; symbol < 256; ++symbol)
      both.columns[t][symbol] = static_cast<std::uint8_t>(costs.cost[symbol][t]);
  }
  return both;
}

}  // namespace

void name_run_portable(const std::uint8_t* data, std::int64_t segments, int length,
                       const NameCosts& costs, std::uint8_t* names) {
  for (std::int64_t s = 0; s < segments; ++s, data += length) {
    Eight low{}, high{};
    for (int i = 0; i < length; ++i) {
      low += load_eight(costs.rows[data[i]]);
      high += load_eight(costs.rows[data[i]] + 8);
    }
    names[s] = static_cast<std::uint8_t>(least_of(low, high, costs.tables));
  }
}

#if defined(__x86_64__)
bool has_avx512_vbmi() {
  return has_isa(isa_avx512f | isa_avx512bw | isa_avx512vl | isa_avx512vbmi);
}
#endif

void name_tables(const std::uint8_t* data, std::int64_t symbols, int segment_bits,
                 const TableCosts& costs, const Parallel& parallel, std::uint8_t* names,
                 std::array<rans::Counts, most_tables>& counts) {
  static const NameRun run = best_name_run();
  constexpr std::int64_t task_symbols = 1 << 16;
  const std::int64_t length = std::int64_t{1} << segment_bits;
  const NameCosts both = name_costs(costs);
  std::fill_n(counts.begin(), costs.tables, rans::Counts{});
  std::mutex counts_guard;
  parallel((symbols + task_symbols - 1) / task_symbols, [&](std::int64_t task) {
    const std::uint8_t* const own = data + task * task_symbols;
    const std::int64_t count = std::min(task_symbols, symbols - task * task_symbols);
    const std::int64_t whole = count >> segment_bits;
    std::uint8_t* const own_names = names + (task * task_symbols >> segment_bits);
    const auto seen = std::make_unique<Histogram[]>(static_cast<std::size_t>(costs.tables));
    if (costs.tables == 1) {
      std::fill_n(own_names, (count + length - 1) >> segment_bits, std::uint8_t{0});
      seen[0].add(own, count);
    } else {
      (length < 64 ? name_run_portable : run)(own, whole, static_cast<int>(length), both,
                                              own_names);
      const std::int64_t done = whole << segment_bits;
      if (done < count)
        name_run_portable(own + done, 1, static_cast<int>(count - done), both, own_names + whole);
      for (std::int64_t at = 0; at < count; at += length)
        seen[own_names[at >> segment_bits]].add(own + at, std::min(length, count - at));
    }
    const std::lock_guard lock(counts_guard);
    for (int t = 0; t < costs.tables; ++t) seen[t].add_to(counts[t].data());
  });
}

}  // namespace lmgc
