#include "core/rans_block.h"

#include <algorithm>
#include <cstring>

namespace lmgc::rans {
namespace {

constexpr std::size_t word_size = word_bits / 8;

// ---- encoder ------------------------------------------------------------------------------------

// Stores a word whether it is due or not and moves on only if it was: no branch to mispredict.
inline void encode_symbol(const EncodeEntry& entry, std::uint32_t& state, std::uint8_t*& at) {
  const bool send = must_send(state, entry);
  const auto word = static_cast<std::uint16_t>(state);
  std::memcpy(at - word_size, &word, word_size);
  at -= send ? word_size : 0;
  state = put(send ? state >> word_bits : state, entry);
}

template <int lanes>
std::uint8_t* encode_lanes(const std::uint8_t* symbols, std::uint32_t count,
                           const BlockTables& tables, const EncodeEntry* entries,
                           std::uint8_t* at) {
  std::uint32_t states[lanes];
  std::fill(states, states + lanes, lower_bound);
  const std::uint32_t segment = 1u << tables.segment_bits;
  for (std::uint32_t first = (count - 1) >> tables.segment_bits << tables.segment_bits;;
       first -= segment) {
    const std::uint32_t last = std::min(first + segment, count);
    const EncodeEntry* const own =
        tables.names ? entries + 256 * tables.names[first >> tables.segment_bits] : entries;
    std::uint32_t i = last;
    for (; i % lanes != 0; --i) encode_symbol(own[symbols[i - 1]], states[(i - 1) % lanes], at);
    for (; i > first; i -= lanes) {
      for (int lane = lanes - 1; lane >= 0; --lane) {
        encode_symbol(own[symbols[i - lanes + lane]], states[lane], at);
      }
    }
    if (first == 0) break;
  }
  at -= sizeof states;
  std::memcpy(at, states, sizeof states);
  return at;
}

// ---- decoder ------------------------------------------------------------------------------------

inline std::uint8_t decode_symbol(const DecodeEntry* entries, std::uint32_t& state,
                                  const std::uint8_t*& at) {
  const DecodeEntry entry = entries[slot_of(state)];
  const std::uint32_t rest = get(state, entry);
  std::uint16_t word;
  std::memcpy(&word, at, word_size);
  const bool more = must_receive(rest);
  state = more ? receive(rest, word) : rest;
  at += more ? word_size : 0;
  return symbol_of(entry);
}

template <int lanes>
Status decode_lanes(const std::uint8_t* data, std::size_t size, std::uint32_t count,
                    const BlockTables& tables, const DecodeEntry* entries, std::uint8_t* symbols) {
  std::uint32_t states[lanes];
  if (size < sizeof states) return Status::bad_stream;
  std::memcpy(states, data, sizeof states);
  for (const std::uint32_t state : states) {
    if (state < lower_bound || state >> 31 != 0) return Status::bad_stream;
  }
  const std::uint8_t* at = data + sizeof states;
  const std::uint8_t* const end = data + size;
  const std::uint32_t segment = 1u << tables.segment_bits;
  for (std::uint32_t first = 0; first < count; first += segment) {
    const std::uint32_t last = std::min(first + segment, count);
    const DecodeEntry* const own =
        tables.names ? entries + probability_one * tables.names[first >> tables.segment_bits]
                     : entries;
    std::uint32_t i = first;
    // A step reads one word a lane at most, and looks at one more.
    for (; i + lanes <= last && end - at >= static_cast<std::ptrdiff_t>((lanes + 1) * word_size);
         i += lanes) {
      for (int lane = 0; lane < lanes; ++lane) {
        symbols[i + lane] = decode_symbol(own, states[lane], at);
      }
    }
    for (; i < last; ++i) {  // near the end of the words, or of the segment
      std::uint32_t& state = states[i % lanes];
      const DecodeEntry entry = own[slot_of(state)];
      symbols[i] = symbol_of(entry);
      state = get(state, entry);
      if (must_receive(state)) {
        if (end - at < static_cast<std::ptrdiff_t>(word_size)) return Status::bad_stream;
        std::uint16_t word;
        std::memcpy(&word, at, word_size);
        at += word_size;
        state = receive(state, word);
      }
    }
  }
  const bool whole = at == end && std::all_of(states, states + lanes,
                                              [](auto state) { return state == lower_bound; });
  return whole ? Status::ok : Status::bad_stream;
}

}  // namespace

std::uint8_t* encode_block(const std::uint8_t* symbols, std::uint32_t count,
                           const BlockTables& tables, const EncodeEntry* entries,
                           std::uint8_t* end) {
  switch (lanes_of(count)) {
    case 1:
      return encode_lanes<1>(symbols, count, tables, entries, end);
    case 2:
      return encode_lanes<2>(symbols, count, tables, entries, end);
    case 4:
      return encode_lanes<4>(symbols, count, tables, entries, end);
    case 8:
      return encode_lanes<8>(symbols, count, tables, entries, end);
    case 16:
      return encode_lanes<16>(symbols, count, tables, entries, end);
    default:
      return encode_lanes<32>(symbols, count, tables, entries, end);
  }
}

Status decode_block(const std::uint8_t* data, std::size_t size, std::uint32_t count,
                    const BlockTables& tables, const DecodeEntry* entries, std::uint8_t* symbols) {
  switch (lanes_of(count)) {
    case 1:
      return decode_lanes<1>(data, size, count, tables, entries, symbols);
    case 2:
      return decode_lanes<2>(data, size, count, tables, entries, symbols);
    case 4:
      return decode_lanes<4>(data, size, count, tables, entries, symbols);
    case 8:
      return decode_lanes<8>(data, size, count, tables, entries, symbols);
    case 16:
      return decode_lanes<16>(data, size, count, tables, entries, symbols);
    default:
      return decode_lanes<32>(data, size, count, tables, entries, symbols);
  }
}

}  // namespace lmgc::rans
