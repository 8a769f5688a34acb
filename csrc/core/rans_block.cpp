#include "core/rans_block.h"

#include <algorithm>
#include <cstring>

#include "core/rans_runs.h"

namespace lmgc::rans {
namespace {

// ---- encoder ------------------------------------------------------------------------------------

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

template <int lanes>
std::uint32_t decode_run(std::uint8_t* symbols, std::uint32_t steps, const DecodeEntry* entries,
                         std::uint32_t* states, const std::uint8_t** at, const std::uint8_t* end) {
  const std::uint8_t* from = *at;
  std::uint32_t step = 0;
  for (; step < steps && end - from >= most_read(lanes); ++step) {
    for (int lane = 0; lane < lanes; ++lane) {
      symbols[step * lanes + static_cast<unsigned>(lane)] =
          decode_symbol(entries[slot_of(states[lane])], states[lane], from);
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
  if (!read_states(data, size, states)) return Status::bad_stream;
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
      if (!decode_symbol_until(end, own[slot_of(state)], state, at, symbols[i])) {
        return Status::bad_stream;
      }
    }
  }
  return status_at_end(states, at, end);
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
  return with_lanes(
      count, [=](auto lanes) { return encode_lanes<lanes>(symbols, count, tables, entries, end); });
}

Status decode_block(const std::uint8_t* data, std::size_t size, std::uint32_t count,
                    const BlockTables& tables, const DecodeEntry* entries, std::uint8_t* symbols) {
  return with_lanes(count, [=](auto lanes) {
    return decode_lanes<lanes>(data, size, count, tables, entries, symbols);
  });
}

}  // namespace lmgc::rans
