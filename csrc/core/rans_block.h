// Blocks of a coded stream: up to 65536 symbols, coded by interleaved rANS lanes independently of
// all other blocks. The bytes of a block are the lanes' states (4 bytes each, lane 0 first), then
// words of 2 bytes in the order in which a decoder asks for them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/rans.h"
#include "core/status.h"

namespace lmgc::rans {

inline constexpr int block_bits = 16;
inline constexpr std::uint32_t block_symbols = 1u << block_bits;

// A bound on what encode_block writes and, because it stores words before it knows whether they
// count, touches: each symbol sends at most one word.
LMGC_HD constexpr std::size_t block_bound(std::uint32_t symbols) {
  return 4 * most_lanes + 2 * (static_cast<std::size_t>(symbols) + 1);
}

// Segment i of the block, symbols [i << segment_bits, (i + 1) << segment_bits), uses table
// names[i].
struct BlockTables {
  const std::uint8_t* names;  // null: all use table 0
  int segment_bits;           // 5 to 16
};

// Writes the block of symbols[0, count) so that it ends at `end`, and returns where it begins.
// 1 <= count <= block_symbols; block_bound(count) bytes before `end` are writable. entries[256 * t
// + s] is symbol s in table t; every symbol has a frequency in the table that its segment names.
std::uint8_t* encode_block(const std::uint8_t* symbols, std::uint32_t count,
                           const BlockTables& tables, const EncodeEntry* entries,
                           std::uint8_t* end);

// A block to decode: `count` symbols (1 to block_symbols) from the untrusted bytes [data, data +
// size), with tables as for the encoder.
struct CodedBlock {
  const std::uint8_t* data;
  std::size_t size;
  std::uint32_t count;
  const std::uint8_t* names;
  std::uint8_t* symbols;
};
inline constexpr int most_blocks = 2;  // that are decoded side by side

// Decodes `blocks` consecutive blocks of one stream, 1 or 2; entries[4096 * t + slot] are valid
// tables, names point at them, and are null for all blocks or for none. bad_stream unless the bytes
// of each are exactly one block; `symbols` may then hold anything.
Status decode_blocks(const CodedBlock* coded, int blocks, int segment_bits,
                     const DecodeEntry* entries);

}  // namespace lmgc::rans
