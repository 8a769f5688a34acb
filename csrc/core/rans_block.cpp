#include "core/rans_block.h"

#include <algorithm>
#include <cstring>

#include "core/rans_runs.h"

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
std::uint8_t* encode_run(const std::uint8_t* symbols, std::uint32_t steps,
                         const EncodeEntry* entries, std::uint32_t* states, std::uint8_t* at) {
  while (steps-- > 0) {
    for (int lane = lanes - 1; lane >= 0; --lane) {
      encode_symbol(entries[symbols[steps * lanes + static_cast<unsigned>(lane)]], states[lane],
                    at);
    }
  }
  return at;
}

// The version of the run for this processor.
template <int lanes>
EncodeRun best_encode_run() {
#if defined(__x86_64__)
  if (lanes == most_lanes && has_avx512()) return encode_run_avx512;
#endif
  return encode_run<lanes>;
}

template <int lanes>
std::uint8_t* encode_lanes(const std::uint8_t* symbols, std::uint32_t count,
                           const BlockTables& tables, const EncodeEntry* entries,
                           std::uint8_t* at) {
  static const EncodeRun run = best_encode_run<lanes>();
  std::uint32_t states[lanes];
  std::fill(states, states + lanes, lower_bound);
  const std::uint32_t segment = 1u << tables.segment_bits;
  for (std::uint32_t first = (count - 1) >> tables.segment_bits << tables.segment_bits;;
       first -= segment) {
    const EncodeEntry* const own =
        tables.names ? entries + 256 * tables.names[first >> tables.segment_bits] : entries;
    std::uint32_t i = std::min(first + segment, count);
    for (; i % lanes != 0; --i) encode_symbol(own[symbols[i - 1]], states[(i - 1) % lanes], at);
    at = run(symbols + first, (i - first) / lanes, own, states, at);
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
std::uint32_t decode_run(std::uint8_t* symbols, std::uint32_t steps, const DecodeEntry* entries,
                         std::uint32_t* states, const std::uint8_t** at, const std::uint8_t* end) {
  const std::uint8_t* from = *at;
  std::uint32_t step = 0;
  for (; step < steps && end - from >= most_read(lanes); ++step) {
    for (int lane = 0; lane < lanes; ++lane) {
      symbols[step * lanes + static_cast<unsigned>(lane)] =
          decode_symbol(entries, states[lane], from);
    }
  }
  *at = from;
  return step;
}

template <int lanes>
DecodeRun best_decode_run() {
#if defined(__x86_64__)
  if (lanes == most_lanes && has_avx512()) return decode_run_avx512;
  if (lanes == most_lanes && has_avx2()) return decode_run_avx2;
#endif
  return decode_run<lanes>;
}

template <int lanes>
Status decode_lanes(const std::uint8_t* data, std::size_t size, std::uint32_t count,
                    const BlockTables& tables, const DecodeEntry* entries, std::uint8_t* symbols) {
  static const DecodeRun run = best_decode_run<lanes>();
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
    i += lanes * run(symbols + i, (last - i) / lanes, own, states, &at, end);
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

#if defined(__x86_64__)
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl");
}
bool has_avx2() { return __builtin_cpu_supports("avx2"); }
#endif

std::uint8_t* encode_run_portable(const std::uint8_t* symbols, std::uint32_t steps,
                                  const EncodeEntry* entries, std::uint32_t* states,
                                  std::uint8_t* at) {
  return encode_run<most_lanes>(symbols, steps, entries, states, at);
}

std::uint32_t decode_run_portable(std::uint8_t* symbols, std::uint32_t steps,
                                  const DecodeEntry* entries, std::uint32_t* states,
                                  const std::uint8_t** at, const std::uint8_t* end) {
  return decode_run<most_lanes>(symbols, steps, entries, states, at, end);
}

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
