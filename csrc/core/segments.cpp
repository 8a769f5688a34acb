#include "core/segments.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <mutex>
#include <numeric>

#include "core/integer_log.h"

namespace lmgc {
namespace {

constexpr int rounds = 3;                 // more of them move less than 0.05 % of the size
constexpr int table_numbers[] = {4, 16};  // tried beside 1
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
    for (; i + 4 <= symbols;
         i += 4) {  // four counters: equal neighbours do not wait for each other
      ++counts_[0][data[i]];
      ++counts_[1][data[i + 1]];
      ++counts_[2][data[i + 2]];
      ++counts_[3][data[i + 3]];
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

int cheapest_table(const SymbolCount* pairs, int distinct, const TableCosts& costs) {
  std::array<std::uint16_t, most_tables> sums{};
  if (costs.tables <= 4) {  // the first four alone: half the work, and what a compiler vectorises
    for (int i = 0; i < distinct; ++i) {
      const auto& cost = costs.cost[pairs[i].symbol];
      for (int t = 0; t < 4; ++t)
        sums[t] = static_cast<std::uint16_t>(sums[t] + pairs[i].count * cost[t]);
    }
  } else {
    for (int i = 0; i < distinct; ++i) {
      const auto& cost = costs.cost[pairs[i].symbol];
      for (int t = 0; t < most_tables; ++t) {
        sums[t] = static_cast<std::uint16_t>(sums[t] + pairs[i].count * cost[t]);
      }
    }
  }
  return cheapest(sums.data(), costs.tables);
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

}  // namespace

TableCosts choose_tables(const std::uint8_t* sample, std::int64_t segments, int segment_bits,
                         std::int64_t symbols) {
  const int length = 1 << segment_bits;
  std::vector<SymbolCount> pairs(static_cast<std::size_t>(segments) * length + 1);
  std::vector<std::uint32_t> first(static_cast<std::size_t>(segments) + 1);
  std::vector<std::uint32_t> sums(static_cast<std::size_t>(segments));
  SegmentCounter counter;
  ClusterCounts all{};
  for (std::int64_t s = 0; s < segments; ++s) {
    SymbolCount* own = pairs.data() + first[s];
    const int distinct = counter.count(sample + s * length, length, own);
    first[s + 1] = first[s] + static_cast<std::uint32_t>(distinct);
    for (int i = 0; i < distinct; ++i) {
      sums[s] += std::uint32_t{own[i].symbol} * own[i].count;
      all[0][own[i].symbol] += own[i].count;
    }
  }

  TableCosts best;
  set_costs(all, 1, best);
  if (segments < 8) return best;
  const auto sampled = static_cast<std::uint64_t>(segments) * length;
  const auto whole = static_cast<std::uint64_t>(symbols);
  best.estimated_bits = estimated_bits(all, 1, sampled, whole, segment_bits);

  std::vector<std::uint32_t> order(static_cast<std::size_t>(segments));
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::uint32_t a, std::uint32_t b) { return sums[a] < sums[b]; });

  for (const int tables : table_numbers) {
    if (segments < 2 * tables) break;
    ClusterCounts counts{};
    const auto add = [&](std::int64_t s, int table) {
      for (std::uint32_t i = first[s]; i < first[s + 1]; ++i) {
        counts[table][pairs[i].symbol] += pairs[i].count;
      }
    };
    for (std::int64_t i = 0; i < segments; ++i) {
      add(order[i], static_cast<int>(i * tables / segments));
    }
    TableCosts costs;
    for (int round = 0; round < rounds; ++round) {
      set_costs(counts, tables, costs);
      counts = {};
      for (std::int64_t s = 0; s < segments; ++s) {
        const int distinct = static_cast<int>(first[s + 1] - first[s]);
        add(s, cheapest_table(pairs.data() + first[s], distinct, costs));
      }
    }
    const std::uint64_t bits = estimated_bits(counts, tables, sampled, whole, segment_bits);
    if (bits < best.estimated_bits) {
      set_costs(counts, tables, best);
      best.estimated_bits = bits;
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
    for (std::int64_t at = task * symbols_per_task; at < end; at += length) {
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
