#include "core/rans_contexts.h"

#include <algorithm>
#include <cstring>

#include "core/rans_runs.h"

namespace lmgc::rans {
namespace {

// ---- encoder ------------------------------------------------------------------------------------

inline const EncodeEntry& entry_of(const EncodeEntry* entries, std::uint8_t context,
                                   std::uint8_t symbol) {
  return entries[256u * context + symbol];
}

template <int lanes>
std::uint8_t* encode_run(const std::uint8_t* symbols, const std::uint8_t* contexts,
                         std::uint32_t steps, const EncodeEntry* entries, std::uint32_t* states,
                         std::uint8_t* at) {
  while (steps-- > 0) {
    for (int lane = lanes - 1; lane >= 0; --lane) {
      const std::uint32_t i = steps * lanes + static_cast<unsigned>(lane);
      encode_symbol(entry_of(entries, contexts[i], symbols[i]), states[lane], at);
    }
  }
  return at;
}

// The version of the run for this processor.
template <int lanes>
EncodeContextsRun best_encode_run() {
#if defined(__x86_64__)
  if (lanes == most_lanes && has_avx512()) return encode_contexts_run_avx512;
#endif
  return encode_run<lanes>;
}

template <int lanes>
std::uint8_t* encode_lanes(const std::uint8_t* symbols, const std::uint8_t* contexts,
                           std::uint32_t count, const EncodeEntry* entries, std::uint8_t* at) {
  static const EncodeContextsRun run = best_encode_run<lanes>();
  std::uint32_t states[lanes];
  std::fill(states, states + lanes, lower_bound);
  std::uint32_t i = count;
  for (; i % lanes != 0; --i) {
    encode_symbol(entry_of(entries, contexts[i - 1], symbols[i - 1]), states[(i - 1) % lanes], at);
  }
  at = run(symbols, contexts, i / lanes, entries, states, at);
  at -= sizeof states;
  std::memcpy(at, states, sizeof states);
  return at;
}

// ---- decoder ------------------------------------------------------------------------------------

inline DecodeEntry entry_of(const DecodeEntry* entries, std::uint8_t context, std::uint32_t state) {
  return entries[probability_one * context + slot_of(state)];
}

template <int lanes>
std::uint32_t decode_run(std::uint8_t* symbols, const std::uint8_t* contexts, std::uint32_t steps,
                         const DecodeEntry* entries, std::uint32_t* states, const std::uint8_t** at,
                         const std::uint8_t* end) {
  const std::uint8_t* from = *at;
  std::uint32_t step = 0;
  for (; step < steps && end - from >= most_read(lanes); ++step) {
    for (int lane = 0; lane < lanes; ++lane) {
      const std::uint32_t i = step * lanes + static_cast<unsigned>(lane);
      std::uint32_t& state = states[lane];
      symbols[i] = decode_symbol(entry_of(entries, contexts[i], state), state, from);
    }
  }
  *at = from;
  return step;
}

template <int lanes>
DecodeContextsRun best_decode_run() {
#if defined(__x86_64__)
  if (lanes == most_lanes && has_avx512()) return decode_contexts_run_avx512;
  if (lanes == most_lanes && has_avx2()) return decode_contexts_run_avx2;
#endif
  return decode_run<lanes>;
}

template <int lanes>
Status decode_lanes(const std::uint8_t* data, std::size_t size, const std::uint8_t* contexts,
                    std::uint32_t count, const DecodeEntry* entries, std::uint8_t* symbols) {
  static const DecodeContextsRun run = best_decode_run<lanes>();
  std::uint32_t states[lanes];
  if (!read_states(data, size, states)) return Status::bad_stream;
  const std::uint8_t* at = data + sizeof states;
  const std::uint8_t* const end = data + size;
  std::uint32_t i = lanes * run(symbols, contexts, count / lanes, entries, states, &at, end);
  for (; i < count; ++i) {  // near the end of the words, or of the block
    std::uint32_t& state = states[i % lanes];
    const DecodeEntry entry = entry_of(entries, contexts[i], state);
    if (!decode_symbol_until(end, entry, state, at, symbols[i])) return Status::bad_stream;
  }
  return status_at_end(states, at, end);
}

}  // namespace

std::uint8_t* encode_contexts_run_portable(const std::uint8_t* symbols,
                                           const std::uint8_t* contexts, std::uint32_t steps,
                                           const EncodeEntry* entries, std::uint32_t* states,
                                           std::uint8_t* at) {
  return encode_run<most_lanes>(symbols, contexts, steps, entries, states, at);
}

std::uint32_t decode_contexts_run_portable(std::uint8_t* symbols, const std::uint8_t* contexts,
                                           std::uint32_t steps, const DecodeEntry* entries,
                                           std::uint32_t* states, const std::uint8_t** at,
                                           const std::uint8_t* end) {
  return decode_run<most_lanes>(symbols, contexts, steps, entries, states, at, end);
}

std::uint8_t* encode_contexts(const std::uint8_t* symbols, const std::uint8_t* contexts,
                              std::uint32_t count, const EncodeEntry* entries, std::uint8_t* end) {
  return with_lanes(count, [=](auto lanes) {
    return encode_lanes<lanes>(symbols, contexts, count, entries, end);
  });
}

Status decode_contexts(const std::uint8_t* data, std::size_t size, const std::uint8_t* contexts,
                       std::uint32_t count, const DecodeEntry* entries, std::uint8_t* symbols) {
  return with_lanes(count, [=](auto lanes) {
    return decode_lanes<lanes>(data, size, contexts, count, entries, symbols);
  });
}

}  // namespace lmgc::rans
