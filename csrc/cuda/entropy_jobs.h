// What the device does for coded streams, for many of them in one launch: function objects for
// launch(), launch_warps() and launch_blocks(), which hold device pointers only. Internal to
// csrc/cuda and its tests.
#pragma once

#include <cstdint>

#include "core/entropy.h"
#include "core/host_device.h"
#include "core/rans_block.h"
#include "core/segments.h"
#include "core/spread.h"
#include "core/warp.h"
#include "core/warp_rans.h"
#include "cuda/task_list.h"

namespace lmgc::cuda {

// ---- bytes --------------------------------------------------------------------------------------

// Bytes to their places; `slices` warps for each part. The list is made by add_part().
struct CopyParts {
  static constexpr std::int64_t slices = 16;
  struct Part {
    const std::uint8_t* from;  // null: `value` in all places
    std::uint8_t* to;
    std::uint64_t size;
    std::uint8_t value = 0;
  };
  const Part* parts;

  template <class Warp>
  LMGC_HD void operator()(const Warp& warp, std::int64_t task) const {
    const Part part = parts[task / slices];
    const auto slice = static_cast<std::uint64_t>(task % slices);
    const std::uint64_t first = part.size * slice / slices, last = part.size * (slice + 1) / slices;
    warp.each([&](std::uint32_t lane) {
      for (std::uint64_t i = first + lane; i < last; i += warp_lanes)
        part.to[i] = part.from == nullptr ? part.value : part.from[i];
    });
  }
};

// Units of bytes that are spread over a long array (spread_place) become one short array, a warp
// for each. The last unit may be shorter.
struct GatherUnits {
  struct Source {
    const std::uint8_t* data;
    std::int64_t unit;          // bytes
    std::int64_t units, total;  // how many are taken, of how many
    std::int64_t size;          // of all that are taken, in bytes
    std::uint8_t* to;
    std::int64_t first_task = 0;  // a task a unit
  };
  TaskList<Source> sources;

  template <class Warp>
  LMGC_HD void operator()(const Warp& warp, std::int64_t task) const {
    const Source own = sources.item_of(task);
    const std::int64_t i = task - own.first_task, at = i * own.unit;
    const std::int64_t count = own.size - at < own.unit ? own.size - at : own.unit;
    const std::uint8_t* const from = own.data + spread_place(i, own.units, own.total) * own.unit;
    warp.each([&](std::uint32_t lane) {
      for (std::int64_t k = lane; k < count; k += warp_lanes) own.to[at + k] = from[k];
    });
  }
};

// ---- encoder ------------------------------------------------------------------------------------

// What a symbol costs in each table: two of 16 bits in a word, the even table's in the lower half,
// and four words that are loaded together. Tables that there are not cost most.
struct SymbolCosts {
  struct alignas(16) Four {
    std::uint32_t pairs[4];
  };
  Four fours[most_tables / 8];
};

// Names the table of each segment, and counts the symbols of each table. A block takes a run of
// segments, its warps one segment after the other.
struct NameSegments {
  struct Stream {
    const std::uint8_t* data;
    std::int64_t symbols;
    std::int32_t segment_bits, tables;
    const SymbolCosts* costs;  // of each symbol
    std::uint8_t* names;
    std::uint64_t* counts;  // 256 a table
    std::int64_t first_task = 0;
  };
  TaskList<Stream> streams;
  std::int64_t run;  // segments of a task

  struct Shared {
    std::uint32_t counts[most_tables * 256];
  };

  LMGC_HD static constexpr std::int64_t segments_of(std::int64_t symbols, int segment_bits) {
    return (symbols + (std::int64_t{1} << segment_bits) - 1) >> segment_bits;
  }

  template <class Block>
  LMGC_HD void operator()(const Block& block, Shared& shared, std::int64_t task) const {
    const Stream own = streams.item_of(task);
    const std::int64_t first = (task - own.first_task) * run;
    const std::int64_t segments = segments_of(own.symbols, own.segment_bits);
    const std::int64_t last = first + run < segments ? first + run : segments;
    const auto counters = 256 * static_cast<std::uint32_t>(own.tables);
    // Every thread of the block takes counters of its own.
    constexpr std::uint32_t threads = block_warps * warp_lanes;
    block.each_warp([&](const auto& warp, std::uint32_t w) {
      warp.each([&](std::uint32_t lane) {
        for (std::uint32_t i = w * warp_lanes + lane; i < counters; i += threads)
          shared.counts[i] = 0;
      });
    });
    block.each_warp([&](const auto& warp, std::uint32_t w) {
      for (std::int64_t segment = first + w; segment < last; segment += block_warps)
        name(warp, own, segment, shared);
    });
    block.each_warp([&](const auto& warp, std::uint32_t w) {
      warp.each([&](std::uint32_t lane) {
        for (std::uint32_t i = w * warp_lanes + lane; i < counters; i += threads) {
          if (shared.counts[i] != 0) warp.add(own.counts + i, std::uint64_t{shared.counts[i]});
        }
      });
    });
  }

 private:
  template <class Warp>
  LMGC_HD static void name(const Warp& warp, const Stream& own, std::int64_t segment,
                           Shared& shared) {
    const std::int64_t first = segment << own.segment_bits;
    const std::int64_t length = std::int64_t{1} << own.segment_bits;
    const auto count =
        static_cast<std::uint32_t>(own.symbols - first < length ? own.symbols - first : length);
    const std::uint8_t* const data = own.data + first;
    const int table = own.tables == 1   ? 0
                      : own.tables <= 8 ? best_table<8>(warp, data, count, own.costs)
                                        : best_table<most_tables>(warp, data, count, own.costs);
    std::uint32_t* const counts = shared.counts + 256 * table;
    warp.each([&](std::uint32_t lane) {
      if (lane == 0) own.names[segment] = static_cast<std::uint8_t>(table);
      for (std::uint32_t i = lane; i < count; i += warp_lanes)
        warp.add(counts + data[i], std::uint32_t{1});
    });
  }

  // Of the first `tables` tables. Two sums share 32 bits, and neither half can overflow: see
  // TableCosts.
  template <int tables, class Warp>
  LMGC_HD static int best_table(const Warp& warp, const std::uint8_t* data, std::uint32_t count,
                                const SymbolCosts* costs) {
    typename Warp::template PerLane<std::uint32_t> sums[tables / 2];
    warp.each([&](std::uint32_t lane) {
      for (std::uint32_t i = lane; i < count; i += warp_lanes) {
        for (int k = 0; k < tables / 8; ++k) {
          const SymbolCosts::Four four = costs[data[i]].fours[k];
          for (int j = 0; j < 4; ++j) sums[4 * k + j][lane] += four.pairs[j];
        }
      }
    });
    std::uint16_t cost[tables];
    for (int t = 0; t < tables / 2; ++t) {
      const std::uint32_t both = warp.sum(sums[t]);
      cost[2 * t] = static_cast<std::uint16_t>(both);
      cost[2 * t + 1] = static_cast<std::uint16_t>(both >> 16);
    }
    return cheapest(cost, tables);
  }
};

// Codes blocks of streams, a warp each, and packs the names of their segments. The words of a
// stream's block b end at room + (b + 1) * stride.
struct EncodeStreams {
  struct Stream {
    const std::uint8_t* data;
    std::uint64_t symbols;
    std::int32_t segment_bits, tables;
    const std::uint8_t* names;         // of segments; null where there is one table
    const rans::EncodeEntry* entries;  // 256 for each name
    std::uint8_t renamed[most_tables];
    std::uint8_t* packed;
    std::uint8_t* room;
    std::uint64_t stride;
    std::uint32_t* words;         // of each block
    std::int64_t first_task = 0;  // a task a block
  };
  TaskList<Stream> streams;

  template <class Warp>
  LMGC_HD void operator()(const Warp& warp, std::int64_t task) const {
    const Stream& own = streams.item_of(task);
    const auto block = static_cast<std::uint64_t>(task - own.first_task);
    const std::uint32_t count = symbols_in_block(own.symbols, block);
    const std::uint8_t* const data = own.data + block * rans::block_symbols;
    const int segment_bits = own.segment_bits;
    const std::uint8_t* const names =
        own.names == nullptr ? nullptr : own.names + (block << (rans::block_bits - segment_bits));
    if (names != nullptr) pack(warp, own, block, count, names);
    const rans::EncodeEntry* const entries = own.entries;
    auto* const end = reinterpret_cast<std::uint16_t*>(own.room + (block + 1) * own.stride);
    const std::uint16_t* const begin = encode_block(
        warp, count, end,
        [&](std::uint32_t, std::uint32_t i) {
          const std::uint32_t name = names == nullptr ? 0 : names[i >> segment_bits];
          return entries[256 * name + data[i]];
        },
        [] {});
    warp.each([&](std::uint32_t lane) {
      if (lane == 0) {
        own.words[block] = static_cast<std::uint32_t>(end - begin) -
                           2 * static_cast<std::uint32_t>(rans::lanes_of(count));
      }
    });
  }

 private:
  // A byte a lane: blocks begin with whole ones, as they have at least 256 segments or all.
  template <class Warp>
  LMGC_HD static void pack(const Warp& warp, const Stream& own, std::uint64_t block,
                           std::uint32_t count, const std::uint8_t* names) {
    const auto bits = static_cast<std::uint32_t>(name_bits(own.tables));
    const std::uint32_t per_byte = 8 / bits;
    const std::uint32_t segments = ((count - 1) >> own.segment_bits) + 1;
    std::uint8_t* const packed =
        own.packed + (block << (rans::block_bits - own.segment_bits)) / per_byte;
    warp.each([&](std::uint32_t lane) {
      for (std::uint32_t at = lane; at * per_byte < segments; at += warp_lanes) {
        std::uint32_t byte = 0;
        for (std::uint32_t i = 0; i < per_byte && at * per_byte + i < segments; ++i)
          byte |= std::uint32_t{own.renamed[names[at * per_byte + i]]} << (i * bits);
        packed[at] = static_cast<std::uint8_t>(byte);
      }
    });
  }
};

// ---- decoder ------------------------------------------------------------------------------------

// Decoding tables, one call a slot of each: the symbol is the first that ends beyond the slot.
struct FillDecodeEntries {
  const std::uint16_t* ends;  // start + frequency of each symbol, 256 a table
  rans::DecodeEntry* entries;

  LMGC_HD void operator()(std::int64_t i) const {
    const std::uint16_t* const own = ends + i / rans::probability_one * 256;
    const auto slot = static_cast<std::uint32_t>(i % rans::probability_one);
    std::uint32_t symbol = 0;
    for (std::uint32_t half = 128; half > 0; half /= 2) {
      if (own[symbol + half - 1] <= slot) symbol += half;
    }
    const std::uint32_t start = symbol == 0 ? 0 : own[symbol - 1];
    entries[i] = rans::decode_entry(symbol, own[symbol] - start, slot - start);
  }
};

// Decodes blocks of streams, a warp each.
struct DecodeStreams {
  struct Stream {
    const std::uint8_t* body;
    const std::uint64_t* offsets;  // of the blocks in the body, and its end
    std::uint64_t symbols;
    std::int32_t segment_bits, tables;
    const rans::DecodeEntry* entries;
    std::uint8_t* out;
    std::int32_t* failed;
    std::int64_t first_task = 0;  // a task a block
  };
  TaskList<Stream> streams;

  template <class Warp>
  LMGC_HD void operator()(const Warp& warp, std::int64_t task) const {
    const Stream own = streams.item_of(task);
    const auto block = static_cast<std::uint64_t>(task - own.first_task);
    const std::uint32_t count = symbols_in_block(own.symbols, block);
    const std::uint64_t begin = own.offsets[block], size = own.offsets[block + 1] - begin;
    const auto words = static_cast<std::uint32_t>((size - block_size(count, 0)) / 2);
    const auto bits = static_cast<std::uint32_t>(name_bits(own.tables));
    const auto tables = static_cast<std::uint32_t>(own.tables);
    const std::uint64_t first_segment = block << (rans::block_bits - own.segment_bits);
    std::uint8_t* const out = own.out + block * rans::block_symbols;
    typename Warp::template PerLane<bool> bad;
    const bool good = decode_block(
        warp, own.body + begin, words, count,
        [&](std::uint32_t lane, std::uint32_t i) {
          if (bits == 0) return own.entries;
          const std::uint64_t bit = (first_segment + (i >> own.segment_bits)) * bits;
          std::uint32_t table = own.body[bit / 8] >> (bit % 8) & ((1u << bits) - 1);
          if (table >= tables) {
            bad[lane] = true;
            table = 0;
          }
          return own.entries + rans::probability_one * table;
        },
        [&](std::uint32_t, std::uint32_t i, std::uint8_t symbol) { out[i] = symbol; },
        [](std::uint32_t) {});
    const bool named = warp.ballot(bad) == 0;
    warp.each([&](std::uint32_t lane) {
      if (lane == 0 && !(good && named)) warp.raise(own.failed);
    });
  }
};

}  // namespace lmgc::cuda
