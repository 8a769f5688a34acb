// Range asymmetric numeral systems with static tables: the arithmetic of one state, and the tables.
//
// A state is an integer x in [2^15, 2^31). Putting a symbol of frequency f (of 4096) multiplies x
// by about 4096 / f; when x would leave its range, its low 16 bits go out as one *word*. The
// decoder undoes the steps of the encoder in reverse order, hence the encoder puts the symbols from
// the last to the first and writes its words from the end to the front. Many states (*lanes*) are
// interleaved: lane j of L codes symbols j, j + L, j + 2L, ... of a block, and a decoder reads the
// words that the lanes ask for in the order of the symbols. docs/format.md specifies the
// bytes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/bytes.h"
#include "core/host_device.h"
#include "core/status.h"

namespace lmgc::rans {

inline constexpr int probability_bits = 12;
inline constexpr std::uint32_t probability_one = 1u << probability_bits;
inline constexpr std::uint32_t lower_bound = 1u << 15;  // the least state; also the encoder's first
inline constexpr int word_bits = 16;
inline constexpr int most_lanes = 32;

// ---- lanes --------------------------------------------------------------------------------------

// How many lanes code a block of `symbols` symbols: the power of two at or below symbols / 256,
// within [1, 32]. A lane costs 4 bytes, half of them for nothing: little against the 256 symbols or
// more that it codes.
LMGC_HD constexpr int lanes_of(std::uint32_t symbols) {
  int lanes = 1;
  while (lanes < most_lanes && symbols >= 512u * static_cast<std::uint32_t>(lanes)) lanes *= 2;
  return lanes;
}

// ---- encoder's arithmetic -----------------------------------------------------------------------

// What the encoder needs to know about one symbol.
struct EncodeEntry {
  std::uint32_t limit;       // a state at or above it must send a word first
  std::uint32_t reciprocal;  // x / frequency == (x * reciprocal >> 32) >> shift for x < 2^31
  std::uint16_t bias;        // 13 bits
  std::uint16_t complement;  // probability_one - frequency, 12 bits
  std::uint32_t packed;      // shift (4 bits), bias << 4, complement << 17: all of them in one load
};
static_assert(sizeof(EncodeEntry) == 16);

// The entry of a symbol whose slots are [start, start + frequency); 1 <= frequency <= 4096.
// A frequency of 1 has no 32-bit reciprocal: 2^32 - 1 gives x - 1 instead of x, which `bias` mends.
LMGC_HD constexpr EncodeEntry encode_entry(std::uint32_t start, std::uint32_t frequency) {
  std::uint32_t shift = 0, bias = start;
  std::uint32_t reciprocal = 0xFFFFFFFFu;
  if (frequency < 2) {
    bias += probability_one - 1;
  } else {
    while ((2u << shift) < frequency) ++shift;
    reciprocal = static_cast<std::uint32_t>(((std::uint64_t{1} << (shift + 32)) + frequency - 1) /
                                            frequency);
  }
  const std::uint32_t complement = probability_one - frequency;
  return {frequency << (31 - probability_bits), reciprocal, static_cast<std::uint16_t>(bias),
          static_cast<std::uint16_t>(complement), shift | bias << 4 | complement << 17};
}

// Whether the low 16 bits of `state` must go out (and the state be shifted) before `put`.
LMGC_HD inline bool must_send(std::uint32_t state, const EncodeEntry& entry) {
  return state >= entry.limit;
}

// The state after a symbol. Requires !must_send(state, entry).
LMGC_HD inline std::uint32_t put(std::uint32_t state, const EncodeEntry& entry) {
  const auto high = static_cast<std::uint32_t>((std::uint64_t{state} * entry.reciprocal) >> 32);
  return state + entry.bias + (high >> (entry.packed & 15)) * entry.complement;
}

// ---- decoder's arithmetic -----------------------------------------------------------------------

// One slot of a decoding table: symbol (8 bits), frequency - 1 (12), slot - start (12).
using DecodeEntry = std::uint32_t;

LMGC_HD constexpr DecodeEntry decode_entry(std::uint32_t symbol, std::uint32_t frequency,
                                           std::uint32_t offset) {
  return symbol | (frequency - 1) << 8 | offset << 20;
}

LMGC_HD inline std::uint32_t slot_of(std::uint32_t state) { return state & (probability_one - 1); }

LMGC_HD inline std::uint8_t symbol_of(DecodeEntry entry) {
  return static_cast<std::uint8_t>(entry);
}

// The state before the symbol was put, apart from a word that is to be read. Any state and any
// entry of a valid table give a state below 2^31 when the old one was.
LMGC_HD inline std::uint32_t get(std::uint32_t state, DecodeEntry entry) {
  return (((entry >> 8) & 0xFFFu) + 1) * (state >> probability_bits) + (entry >> 20);
}

LMGC_HD inline bool must_receive(std::uint32_t state) { return state < lower_bound; }

LMGC_HD inline std::uint32_t receive(std::uint32_t state, std::uint32_t word) {
  return state << word_bits | word;
}

// ---- tables -------------------------------------------------------------------------------------

using Counts = std::array<std::uint64_t, 256>;

// The frequency of each symbol, in 4096ths: the sum is exactly 4096. All but one of them (`rest`)
// have at most five significant bits, so that tables are short; `rest` takes what is left.
struct Table {
  std::array<std::uint16_t, 256> frequency{};
  std::uint8_t rest = 0;
};

// A table near `counts`, in integers only: every symbol with a count has a frequency of at least 1,
// every other one 0. The counts must not all be zero.
Table normalize(const Counts& counts);

// Bytes that write_tables appends.
std::size_t tables_size(const Table* tables, int count);

// Appends `count` tables as one string of bits, padded to a whole byte.
void write_tables(const Table* tables, int count, ByteWriter& out);

// Reads what write_tables wrote, from untrusted bytes: truncated, or bad_table unless every table's
// frequencies sum to 4096. `tables` then holds only valid ones.
Status read_tables(ByteReader& in, int count, std::vector<Table>& tables);

// entries[symbol] for every symbol of the table; those of absent symbols are left alone.
void fill_encode_entries(const Table& table, EncodeEntry* entries);

// entries[slot] for every slot; the table must be valid.
void fill_decode_entries(const Table& table, DecodeEntry* entries);

}  // namespace lmgc::rans
