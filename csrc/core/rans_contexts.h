// Blocks in which every symbol has its own table, its *context*, which both sides know before the
// block is decoded. The bytes are those of rans_block.h, so where all contexts are equal they are
// those of encode_block with that one table.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/rans.h"
#include "core/rans_block.h"
#include "core/status.h"

namespace lmgc::rans {

// Writes the block of symbols[0, count) so that it ends at `end`, and returns where it begins.
// 1 <= count <= block_symbols; block_bound(count) bytes before `end` are writable. symbols[i] is
// coded with table contexts[i] and has a frequency there; entries[256 * t + s] is symbol s in table
// t.
std::uint8_t* encode_contexts(const std::uint8_t* symbols, const std::uint8_t* contexts,
                              std::uint32_t count, const EncodeEntry* entries, std::uint8_t* end);

// Decodes `count` symbols (1 to block_symbols) from the untrusted bytes [data, data + size), and
// reads no others; entries[4096 * t + slot] are valid tables and contexts[0, count) point at them.
// bad_stream unless the bytes are exactly one block; `symbols` may then hold anything.
Status decode_contexts(const std::uint8_t* data, std::size_t size, const std::uint8_t* contexts,
                       std::uint32_t count, const DecodeEntry* entries, std::uint8_t* symbols);

}  // namespace lmgc::rans
