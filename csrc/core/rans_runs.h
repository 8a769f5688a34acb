// What the coders of blocks (rans_block.cpp, rans_contexts.cpp) share, and their inner loops for 32
// lanes in versions for different processors, which all compute the same. Internal to these coders.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "core/rans.h"
#include "core/status.h"

namespace lmgc::rans {

// ---- one symbol ---------------------------------------------------------------------------------

// Not for the sources that are compiled for newer processors: the linker might keep their copy.

inline constexpr std::size_t word_size = word_bits / 8;

// Stores a word whether it is due or not and moves on only if it was. Sums instead of conditions:
// these a compiler makes branches of, and every fifth is mispredicted.
inline void encode_symbol(const EncodeEntry& entry, std::uint32_t& state, std::uint8_t*& at) {
  const unsigned send = must_send(state, entry) ? 1 : 0;
  const auto word = static_cast<std::uint16_t>(state);
  std::memcpy(at - word_size, &word, word_size);
  at -= send * word_size;
  state = put(state >> (send * word_bits), entry);
}

// Loads a word whether it is due or not, likewise.
inline std::uint8_t decode_symbol(DecodeEntry entry, std::uint32_t& state,
                                  const std::uint8_t*& at) {
  const std::uint32_t rest = get(state, entry);
  std::uint16_t word;
  std::memcpy(&word, at, word_size);
  const unsigned more = must_receive(rest) ? 1 : 0;
  state = rest << (more * word_bits) | (word & (0u - more));
  at += more * word_size;
  return symbol_of(entry);
}

// The same where the words may end: looks at a word only if it is due, and returns false if it does
// not lie before `end`.
inline bool decode_symbol_until(const std::uint8_t* end, DecodeEntry entry, std::uint32_t& state,
                                const std::uint8_t*& at, std::uint8_t& symbol) {
  symbol = symbol_of(entry);
  state = get(state, entry);
  if (!must_receive(state)) return true;
  if (end - at < static_cast<std::ptrdiff_t>(word_size)) return false;
  std::uint16_t word;
  std::memcpy(&word, at, word_size);
  at += word_size;
  state = receive(state, word);
  return true;
}

// ---- the frame of a block -----------------------------------------------------------------------

// code(std::integral_constant<int, lanes>()) for the lanes of a block of `count` symbols.
template <class Code>
auto with_lanes(std::uint32_t count, const Code& code) {
  switch (lanes_of(count)) {
    case 1:
      return code(std::integral_constant<int, 1>());
    case 2:
      return code(std::integral_constant<int, 2>());
    case 4:
      return code(std::integral_constant<int, 4>());
    case 8:
      return code(std::integral_constant<int, 8>());
    case 16:
      return code(std::integral_constant<int, 16>());
    default:
      return code(std::integral_constant<int, 32>());
  }
}

// Reads the states at the front of an untrusted block. False unless they are all there and valid.
template <int lanes>
bool read_states(const std::uint8_t* data, std::size_t size, std::uint32_t (&states)[lanes]) {
  if (size < sizeof states) return false;
  std::memcpy(states, data, sizeof states);
  for (const std::uint32_t state : states) {
    if (state < lower_bound || state >> 31 != 0) return false;
  }
  return true;
}

// What a decoder says that has all its symbols and has read the words up to `at`.
template <int lanes>
Status status_at_end(const std::uint32_t (&states)[lanes], const std::uint8_t* at,
                     const std::uint8_t* end) {
  bool whole = at == end;
  for (const std::uint32_t state : states) whole = whole && state == lower_bound;
  return whole ? Status::ok : Status::bad_stream;
}

// ---- inner loops --------------------------------------------------------------------------------

// A step codes 32 consecutive symbols, symbol i with states[i].

// With one table. Puts symbols[0, 32 * steps), the last step first, and writes the words so that
// they end at `at`. Returns where they begin. 32 bytes beyond the words of each step are writable
// before `at`.
using EncodeRun = std::uint8_t* (*)(const std::uint8_t* symbols, std::uint32_t steps,
                                    const EncodeEntry* entries, std::uint32_t* states,
                                    std::uint8_t* at);

// A block that is being decoded.
struct BlockRun {
  std::uint8_t* symbols;
  const DecodeEntry* entries;
  std::uint32_t* states;
  const std::uint8_t* at;   // the next word
  const std::uint8_t* end;  // of the words
};

// Gets at most `steps` steps of each of `blocks` blocks (1 or 2) into their symbols[0, 32 *
// steps) while a step is sure to find its words before `end`; moves `at` behind the words that were
// read. Returns the number of steps done, the same for each block, perhaps none where there are
// two. Two are done side by side: while a step of one waits for its words, the other goes on.
using DecodeRun = std::uint32_t (*)(BlockRun* runs, int blocks, std::uint32_t steps);

// The most bytes that a DecodeRun looks at from *at on in one step: a word a lane, and one more.
constexpr int most_read(int lanes) { return 2 * (lanes + 1); }

std::uint8_t* encode_run_portable(const std::uint8_t* symbols, std::uint32_t steps,
                                  const EncodeEntry* entries, std::uint32_t* states,
                                  std::uint8_t* at);
std::uint32_t decode_run_portable(BlockRun* runs, int blocks, std::uint32_t steps);

// The same for one block where symbols[i] is coded with table contexts[i].
using EncodeContextsRun = std::uint8_t* (*)(const std::uint8_t* symbols,
                                            const std::uint8_t* contexts, std::uint32_t steps,
                                            const EncodeEntry* entries, std::uint32_t* states,
                                            std::uint8_t* at);
using DecodeContextsRun = std::uint32_t (*)(std::uint8_t* symbols, const std::uint8_t* contexts,
                                            std::uint32_t steps, const DecodeEntry* entries,
                                            std::uint32_t* states, const std::uint8_t** at,
                                            const std::uint8_t* end);

std::uint8_t* encode_contexts_run_portable(const std::uint8_t* symbols,
                                           const std::uint8_t* contexts, std::uint32_t steps,
                                           const EncodeEntry* entries, std::uint32_t* states,
                                           std::uint8_t* at);
std::uint32_t decode_contexts_run_portable(std::uint8_t* symbols, const std::uint8_t* contexts,
                                           std::uint32_t steps, const DecodeEntry* entries,
                                           std::uint32_t* states, const std::uint8_t** at,
                                           const std::uint8_t* end);

#if defined(__x86_64__)
bool has_avx512();
bool has_avx2();
std::uint8_t* encode_run_avx512(const std::uint8_t* symbols, std::uint32_t steps,
                                const EncodeEntry* entries, std::uint32_t* states,
                                std::uint8_t* at);
std::uint32_t decode_run_avx512(BlockRun* runs, int blocks, std::uint32_t steps);
std::uint32_t decode_run_avx2(BlockRun* runs, int blocks, std::uint32_t steps);

std::uint8_t* encode_contexts_run_avx512(const std::uint8_t* symbols, const std::uint8_t* contexts,
                                         std::uint32_t steps, const EncodeEntry* entries,
                                         std::uint32_t* states, std::uint8_t* at);
std::uint32_t decode_contexts_run_avx512(std::uint8_t* symbols, const std::uint8_t* contexts,
                                         std::uint32_t steps, const DecodeEntry* entries,
                                         std::uint32_t* states, const std::uint8_t** at,
                                         const std::uint8_t* end);
std::uint32_t decode_contexts_run_avx2(std::uint8_t* symbols, const std::uint8_t* contexts,
                                       std::uint32_t steps, const DecodeEntry* entries,
                                       std::uint32_t* states, const std::uint8_t** at,
                                       const std::uint8_t* end);
#endif

}  // namespace lmgc::rans
