// Which table codes which part of a stream: a stream is cut into *segments* of a fixed number of
// symbols, each of which names one of up to 16 tables. Tables come from clustering sampled segments
// by code length (k-means, where the distance is bits). All of it in integers: the same bytes on
// every machine. Encoder only; a decoder needs none of this.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/host_device.h"
#include "core/parallel.h"
#include "core/rans.h"
#include "core/spread.h"

namespace lmgc {

inline constexpr int most_tables = 16;
inline constexpr int least_segment_bits = 5;  // a step of 32 lanes never crosses a segment
inline constexpr int most_segment_bits = 16;
inline constexpr int most_searched_segment_bits = 8;  // the encoder's longest: sums fit 16 bits

// Bits that name one of `tables` tables: 0, 1, 2 or 4, so that a name never crosses a byte.
LMGC_HD constexpr int name_bits(int tables) {
  return tables <= 1 ? 0 : tables == 2 ? 1 : tables <= 4 ? 2 : 4;
}

// cost[symbol][table] in 16ths of a bit, so little at most that a segment of 256 symbols sums up to
// 16 bits.
inline constexpr std::uint16_t most_table_cost = 255;
struct alignas(32) TableCosts {
  std::array<std::array<std::uint16_t, most_tables>, 256> cost;
  int tables = 1;
  std::uint64_t estimated_bits = 0;  // of the whole stream; 0 where the sample is too small to tell
};

// The index of the smallest of `sums`, the first of equals.
LMGC_HD inline int cheapest(const std::uint16_t* sums, int tables) {
  int best = 0;
  std::uint16_t least = sums[0];
  for (int table = 1; table < tables; ++table) {
    if (sums[table] >= least) continue;
    least = sums[table];
    best = table;
  }
  return best;
}

// Of `segments` whole segments, those that stand for the stream: index i of `sampled_segments` is
// segment sampled_segment(i, ...). An eighth of them, but 96 if there are as many, and at most 512:
// twice as many save less than 0.01 % of the size.
LMGC_HD constexpr std::int64_t sampled_segments(std::int64_t segments) {
  if (segments <= 96) return segments;
  return segments < 768 ? 96 : segments < 4096 ? segments / 8 : 512;
}
LMGC_HD constexpr std::int64_t sampled_segment(std::int64_t i, std::int64_t segments) {
  return spread_place(i, sampled_segments(segments), segments);
}

// From the sampled segments, back to back in `sample`, the tables that a stream of `symbols`
// symbols pays for: between 1 and 16.
TableCosts choose_tables(const std::uint8_t* sample, std::int64_t segments, int segment_bits,
                         std::int64_t symbols);

// names[i] becomes the cheapest table of segment i (the last segment may be shorter), counts[t] for
// each of the tables the symbols of the segments that name it.
void name_tables(const std::uint8_t* data, std::int64_t symbols, int segment_bits,
                 const TableCosts& costs, const Parallel& parallel, std::uint8_t* names,
                 std::array<rans::Counts, most_tables>& counts);

}  // namespace lmgc
