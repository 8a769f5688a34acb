#include "core/segments.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <mutex>
#include <numeric>

#include "core/integer_log.h"

namespace lmgc {
namespace {

constexpr int rounds = 3;  // more of them move less than 0.05 % of the size
constexpr int table_numbers[] = {1, 4, 16};
constexpr std::uint32_t most_cost = 255;

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
    for (auto& counter : counts_) {
      std::memset(counter + least, 0, static_cast<std::size_t>(greatest - least + 1));
    }
    return distinct;
  }

 private:
  std::uint8_t counts_[4][256] = {};  // each sees at most a quarter of 256 symbols
};

// Sums of all tables at once, as vectors of eight: left to itself a compiler vectorises another
// loop.
template <int vectors>
int cheapest_of(const SymbolCount* pairs, int distinct, const TableCosts& costs) {
  using Eight [[gnu::vector_size(16), gnu::may_alias]] = std::uint16_t;
  Eight low{}, high{};
  for (int i = 0; i < distinct; ++i) {
    const auto* const own = reinterpret_cast<const Eight*>(costs.cost[pairs[i].symbol].data());
    low += own[0] * pairs[i].count;
    if (vectors > 1) high += own[1] * pairs[i].count;
  }
  std::uint16_t sums[most_tables];
  std::memcpy(sums, &low, sizeof low);
  std::memcpy(sums + 8, &high, sizeof high);
  return cheapest(sums, costs.tables);
}

int cheapest_table(const SymbolCount* pairs, int distinct, const TableCosts& costs) {
  if (costs.tables == 1) return 0;
  return costs.tables <= 8 ? cheapest_of<1>(pairs, distinct, costs)
                           : cheapest_of<2>(pairs, distinct, costs);
}

using ClusterCounts = std::array<std::array<std::uint32_t, 256>, most_tables>;

// Costs of tables with these counts, a sixteenth of a symbol added to each: what a cluster has not
// seen is expensive, not impossible.
void set_costs(const ClusterCounts& counts, int tables, TableCosts& costs) {
  costs.tables = tables;
  for (int t = 0; t < tables; ++t) {
    const std::uint64_t total =
        std::accumulate(counts[t].begin(), counts[t].end(), std::uint64_t{0});
    const std::uint32_t whole = log2_fixed(16 * total + 256);
    for (int symbol = 0; symbol < 256; ++symbol) {
      const std::uint32_t cost =
          (whole - log2_fixed(16 * std::uint64_t{counts[t][symbol]} + 1)) >> 4;
      costs.cost[symbol][t] = static_cast<std::uint16_t>(std::min(cost, most_cost));
    }
  }
}

// Bits that a stream of `symbols` symbols takes with these tables, to be compared with one another.
// Code lengths measured on the `sampled` symbols that made the tables are too short by about
// 0.72 bits (185/256) for every distinct symbol.
std::uint64_t estimated_bits(const ClusterCounts& counts, int tables, std::uint64_t sampled,
                             std::uint64_t symbols, int segment_bits) {
  std::uint64_t sample_cost = 0, table_bits = 0;
  for (int t = 0; t < tables; ++t) {
    std::uint64_t total = 0;
    for (const std::uint32_t count : counts[t]) total += count;
    const std::uint32_t whole = log2_fixed(total);
    for (const std::uint32_t count : counts[t]) {
      if (count == 0) continue;
      sample_cost += std::uint64_t{count} * (whole - log2_fixed(count)) + 185;
      table_bits += 6;
    }
    table_bits += 32;
  }
  const std::uint64_t names =
      (symbols >> segment_bits) * static_cast<std::uint64_t>(name_bits(tables));
  return (sample_cost >> log2_fraction_bits) * symbols / sampled + table_bits + names;
}

void count_bytes(const std::uint8_t* data, std::int64_t count, std::uint32_t* counts) {
  std::uint32_t own[4][256] = {};
  std::int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
    for (int j = 0; j < 4; ++j) ++own[j][data[i + j]];
  }
  for (; i < count; ++i) ++own[0][data[i]];
  for (int symbol = 0; symbol < 256; ++symbol) {
    counts[symbol] += own[0][symbol] + own[1][symbol] + own[2][symbol] + own[3][symbol];
  }
}

// The sampled segments, each as its distinct symbols with their counts.
class SegmentSample {
 public:
  SegmentSample(const std::uint8_t* data, std::int64_t segments, int segment_bits)
      : first_(static_cast<std::size_t>(segments) + 1), sums_(static_cast<std::size_t>(segments)) {
    const int length = 1 << segment_bits;
    pairs_.resize(static_cast<std::size_t>(segments) * length + 1);
    SegmentCounter counter;
    for (std::int64_t s = 0; s < segments; ++s) {
      SymbolCount* const own = pairs_.data() + first_[s];
      const int distinct = counter.count(data + s * length, length, own);
      first_[s + 1] = first_[s] + static_cast<std::uint32_t>(distinct);
      for (int i = 0; i < distinct; ++i) sums_[s] += std::uint32_t{own[i].symbol} * own[i].count;
    }
  }

  // Every `step`-th segment, by the sum of its symbols.
  std::vector<std::uint32_t> ordered(std::uint32_t step) const {
    std::vector<std::uint32_t> order;
    for (std::uint32_t s = 0; s < sums_.size(); s += step) order.push_back(s);
    std::stable_sort(order.begin(), order.end(),
                     [&](std::uint32_t a, std::uint32_t b) { return sums_[a] < sums_[b]; });
    return order;
  }

  void add_to(ClusterCounts& counts, int table, std::uint32_t s) const {
    for (std::uint32_t i = first_[s]; i < first_[s + 1]; ++i) {
      counts[table][pairs_[i].symbol] += pairs_[i].count;
    }
  }

  int cheapest(std::uint32_t s, const TableCosts& costs) const {
    return cheapest_table(pairs_.data() + first_[s], static_cast<int>(first_[s + 1] - first_[s]),
                          costs);
  }

 private:
  std::vector<SymbolCount> pairs_;
  std::vector<std::uint32_t> first_;  // of each segment's pairs
  std::vector<std::uint32_t> sums_;
};

// Clusters the segments of `order`, which begins as the clusters' ranges, into `tables` clusters.
ClusterCounts cluster(const SegmentSample& sample, const std::vector<std::uint32_t>& order,
                      int tables) {
  ClusterCounts counts{};
  for (std::size_t i = 0; i < order.size(); ++i) {
    sample.add_to(counts, static_cast<int>(i * static_cast<std::size_t>(tables) / order.size()),
                  order[i]);
  }
  TableCosts costs;
  for (int round = 0; round < rounds && tables > 1; ++round) {
    set_costs(counts, tables, costs);
    counts = {};
    for (const std::uint32_t s : order) sample.add_to(counts, sample.cheapest(s, costs), s);
  }
  return counts;
}

}  // namespace

TableCosts choose_tables(const std::uint8_t* data, std::int64_t segments, int segment_bits,
                         std::int64_t symbols) {
  const SegmentSample sample(data, segments, segment_bits);
  TableCosts best;
  std::vector<std::uint32_t> order = sample.ordered(1);
  bool dense = false;  // little to gain, and many symbols in each segment: a rough answer will do
  for (const int tables : table_numbers) {
    if (tables > 1 &&
        (order.size() < 2 * static_cast<std::size_t>(tables) || (dense && tables > 4)))
      break;
    const ClusterCounts counts = cluster(sample, order, tables);
    if (order.size() < 8) {
      set_costs(counts, tables, best);
      break;
    }
    const std::uint64_t bits = estimated_bits(counts, tables, order.size() << segment_bits,
                                              static_cast<std::uint64_t>(symbols), segment_bits);
    if (tables == 1 || bits < best.estimated_bits) {
      set_costs(counts, tables, best);
      best.estimated_bits = bits;
    }
    if (tables == 1 && bits > 7 * static_cast<std::uint64_t>(symbols)) {
      dense = true;
      order = sample.ordered(4);
    }
  }
  return best;
}

void name_tables(const std::uint8_t* data, std::int64_t symbols, int segment_bits,
                 const TableCosts& costs, const Parallel& parallel, std::uint8_t* names,
                 std::array<rans::Counts, most_tables>& counts) {
  constexpr std::int64_t symbols_per_task = 1 << 16;
  counts = {};
  std::mutex counts_guard;
  const std::int64_t tasks = (symbols + symbols_per_task - 1) / symbols_per_task;
  parallel(tasks, [&](std::int64_t task) {
    const std::int64_t end = std::min(symbols, (task + 1) * symbols_per_task);
    const int length = 1 << segment_bits;
    SegmentCounter counter;
    SymbolCount pairs[257];
    ClusterCounts own{};
    if (costs.tables == 1) {
      const std::int64_t first = task * symbols_per_task;
      std::memset(names + (first >> segment_bits), 0,
                  static_cast<std::size_t>((end - first + length - 1) >> segment_bits));
      count_bytes(data + first, end - first, own[0].data());
    }
    for (std::int64_t at = task * symbols_per_task; at < end && costs.tables > 1; at += length) {
      const int distinct = counter.count(
          data + at, static_cast<int>(std::min<std::int64_t>(length, end - at)), pairs);
      const int table = cheapest_table(pairs, distinct, costs);
      names[at >> segment_bits] = static_cast<std::uint8_t>(table);
      for (int i = 0; i < distinct; ++i) own[table][pairs[i].symbol] += pairs[i].count;
    }
    const std::lock_guard lock(counts_guard);
    for (int t = 0; t < costs.tables; ++t) {
      for (int symbol = 0; symbol < 256; ++symbol) counts[t][symbol] += own[t][symbol];
    }
  });
}

}  // namespace lmgc
